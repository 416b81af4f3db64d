//! How much of workers' lines and of events is kept.

use serde::{Deserialize, Serialize};

use crate::journal::{Journal, Totals};

/// Lines that workers wrote.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct LinesReport {
    /// That are kept.
    pub lines: u64,
    /// Their bytes, each counted with its overhead.
    pub bytes: u64,
    /// That left because there were too many.
    pub dropped: u64,
    /// The most lines.
    pub lines_max: u64,
    /// The most bytes.
    pub bytes_max: u64,
}

/// Events.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct EventsReport {
    /// That are kept.
    pub events: u64,
    /// That left because there were too many.
    pub dropped: u64,
    /// The most.
    pub events_max: u64,
}

/// Of both.
pub(crate) fn kept(journal: &Journal) -> (LinesReport, EventsReport) {
    let Totals { count: lines, bytes, dropped } = journal.lines.totals();
    let bound = journal.lines.bounds().total;
    let lines = LinesReport { lines, bytes, dropped, lines_max: bound.count, bytes_max: bound.bytes };
    let Totals { count: events, dropped, .. } = journal.events.totals();
    let dropped = dropped + journal.lost_events;
    (lines, EventsReport { events, dropped, events_max: journal.events.bounds().total.count })
}
