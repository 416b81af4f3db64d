//! What `[supervisor]` says of lines and events that are kept.

use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::file::{SupervisorFile, bytes, count};
use crate::journal::{Bound, Bounds, Settings, Wanted};

/// Below this a line would be torn apart; above it, one would not fit into a datagram of the journal.
const LINE_BYTES: std::ops::RangeInclusive<u64> = 256..=64 << 10;

/// `logs`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table, like logs = { lines = 1000 }")]
pub(super) struct LogsFile {
    #[serde(deserialize_with = "count")]
    lines: u64,
    #[serde(deserialize_with = "bytes")]
    bytes: u64,
    #[serde(deserialize_with = "count")]
    total_lines: u64,
    #[serde(deserialize_with = "bytes")]
    total_bytes: u64,
    #[serde(deserialize_with = "line_bytes")]
    line_bytes: u64,
    forward: Wanted,
}

impl Default for LogsFile {
    fn default() -> Self {
        LogsFile {
            lines: 1_000,
            bytes: 512 << 10,
            total_lines: 100_000,
            total_bytes: 64 << 20,
            line_bytes: 8 << 10,
            forward: Wanted::Auto,
        }
    }
}

/// `events`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table, like events = { worker = 1000 }")]
pub(super) struct EventsFile {
    #[serde(deserialize_with = "count")]
    worker: u64,
    #[serde(deserialize_with = "count")]
    total: u64,
}

impl Default for EventsFile {
    fn default() -> Self {
        EventsFile { worker: 1_000, total: 50_000 }
    }
}

impl SupervisorFile {
    /// What is kept.
    pub fn journal(&self) -> Settings {
        let LogsFile { lines, bytes, total_lines, total_bytes, line_bytes, forward } = self.logs;
        let events = |count: u64| Bound { count, bytes: u64::MAX };
        Settings {
            lines: Bounds {
                worker: Bound { count: lines, bytes },
                total: Bound { count: total_lines, bytes: total_bytes },
            },
            line_bytes: super::size(line_bytes),
            forward,
            // Their texts are short.
            events: Bounds { worker: events(self.events.worker), total: events(self.events.total) },
        }
    }
}

fn line_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let bytes = bytes(deserializer)?;
    match LINE_BYTES.contains(&bytes) {
        true => Ok(bytes),
        false => Err(de::Error::custom(format_args!(
            "out of range: {} to {} bytes of one line; a longer one comes in parts",
            LINE_BYTES.start(),
            LINE_BYTES.end()
        ))),
    }
}
