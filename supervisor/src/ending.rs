//! The end of the supervisor: who asks for it, what it waits for, and what is lost with it (rule D8).

use std::collections::HashSet;
use std::time::Duration;

use tracing::warn;
use workhall_core::{Change, Ending, News};
use workhall_protocol::ids::WorkerNumber;
use workhall_protocol::terms::DeadReason;

use crate::event_loop::EventLoop;

/// How long the supervisor waits at its end for processes that it has killed: one in uninterruptible sleep, or of
/// another user, may not end at all.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);

/// How many workers are named whose messages are lost.
const NAMED_MAX: usize = 5;

/// The messages that are lost because the supervisor stops.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// They were not begun.
    waited: u64,
    /// They may have run, in part.
    begun: u64,
    workers: HashSet<WorkerNumber>,
    /// The first of them.
    names: Vec<String>,
    /// There were more at once than the core keeps the news of.
    more: bool,
}

impl Losses {
    /// Counts it, if it is one. What an attached worker that leaves loses is no loss of a stop.
    pub fn note(&mut self, news: &News, stopping: bool) {
        let Change::Ended { count, fate: Ending::Dead { reason: DeadReason::Abandoned, .. }, may_have_run, .. } =
            news.what
        else {
            return;
        };
        if !stopping {
            return;
        }
        *if may_have_run { &mut self.begun } else { &mut self.waited } += count;
        if self.workers.insert(news.worker.number) && self.names.len() < NAMED_MAX {
            self.names.push(news.worker.name.to_string());
        }
    }

    /// So much news was lost.
    pub fn have_lost(&mut self, news: u64, stopping: bool) {
        self.more |= stopping && news > 0;
    }

    /// For people; none if nothing is lost.
    fn sentence(&self) -> Option<String> {
        let Losses { waited, begun, workers, names, more } = self;
        if waited + begun == 0 {
            return None;
        }
        let messages = match waited + begun {
            1 => "message",
            _ => "messages",
        };
        let which = match (waited, begun) {
            (waited, 0) => format!("{waited} {messages} that waited"),
            (0, begun) => format!("{begun} {messages} that had begun"),
            (waited, begun) => format!("{waited} {messages} that waited and {begun} that had begun"),
        };
        let least = if *more { "at least " } else { "" };
        let verb = if waited + begun == 1 { "is" } else { "are" };
        let others = if workers.len() > names.len() { ", \u{2026}" } else { "" };
        let (names, s) = (names.join(", "), if workers.len() == 1 { "" } else { "s" });
        let workers = workers.len();
        Some(format!("{least}{which} {verb} lost with this stop, of {workers} worker{s}: {names}{others}"))
    }
}

impl EventLoop {
    /// The signals that came from outside: how many ask it to stop, how many to read its configuration again.
    pub(crate) fn take_signals(&mut self) -> (usize, usize) {
        (self.stop_signal.take(), self.reload_signal.take())
    }

    /// Does what they ask for.
    pub(crate) fn obey(&mut self, (stops, reloads): (usize, usize)) {
        for _ in 0..stops {
            // The first one asks; a second one does not wait.
            let grace = if self.stopping { Default::default() } else { self.config.shutdown_grace };
            self.stopping = true;
            let now = self.clock.now();
            let give_up_at = now.after(grace).after(GIVE_UP_AFTER);
            self.give_up_at = Some(self.give_up_at.map_or(give_up_at, |earlier| earlier.min(give_up_at)));
            self.core.shutdown(now, grace);
            self.notifier.stopping(now, grace, self.figures());
        }
        self.apply();
        if reloads > 0 {
            self.reload_signalled();
        }
    }

    /// One sentence at the end of a stop that has cost messages.
    pub(crate) fn say_losses(&self) {
        if let Some(sentence) = self.losses.sentence() {
            warn!("{sentence}");
        }
    }

    /// Who is left when nothing more can be done.
    pub(crate) fn cannot_be_ended(&self) -> std::io::Error {
        let left = self.processes.iter().map(|(_, process)| {
            let name = self.core.name(process.key).map_or("a worker", |name| name);
            format!("{name} (process {}{})", process.pid, if process.reaped { ", or what it has started" } else { "" })
        });
        let left = left.collect::<Vec<_>>().join(", ");
        std::io::Error::other(format!(
            "gave up: SIGKILL has not ended {left}; their names stay locked, for the next supervisor too, until they have ended"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stop_has_cost_is_said_in_one_sentence() {
        let losses = |waited, begun, workers: u64, more| {
            let names = (1..=workers.min(NAMED_MAX as u64)).map(|number| format!("w/{number}")).collect();
            Losses { waited, begun, workers: (1..=workers).map(WorkerNumber).collect(), names, more }.sentence()
        };
        assert_eq!(losses(0, 0, 0, false), None);
        let one = "1 message that had begun is lost with this stop, of 1 worker: w/1";
        assert_eq!(losses(0, 1, 1, false).as_deref(), Some(one));
        let many =
            "at least 7 messages that waited are lost with this stop, of 6 workers: w/1, w/2, w/3, w/4, w/5, \u{2026}";
        assert_eq!(losses(7, 0, 6, true).as_deref(), Some(many));
    }
}
