//! The ledger (rule L1): at any instant
//! `accepted = done + failed + discarded + expired + dead + pending + running`.

use crate::effect::Outcome;
use crate::mailbox::Message;
use crate::registry::Core;
use crate::worker::Worker;
use serde::{Deserialize, Serialize};

/// How many messages have which fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// All that were ever accepted.
    pub accepted: u64,
    /// The method returned.
    pub done: u64,
    /// The method reported an error.
    pub failed: u64,
    /// Discarded by kill.
    pub discarded: u64,
    /// Not started in time.
    pub expired: u64,
    /// Dead letters of all reasons.
    pub dead: u64,
    /// Waiting, also those sent ahead to a process.
    pub pending: u64,
    /// Being executed.
    pub running: u64,
}

/// What is counted beside the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Calls refused.
    pub refused: u64,
    /// Calls and kills ignored by the rules.
    pub ignored: u64,
    /// Facts from lives that had ended.
    pub stale: u64,
    /// Processes started.
    pub spawned: u64,
    /// Things that processes said and must not say.
    pub violations: u64,
}

/// Where a message is when its fate is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Pending,
    Running,
}

impl Ledger {
    /// Whether the two sides are equal.
    pub fn balances(&self) -> bool {
        self.accepted == self.terms().iter().map(|(_, count)| count).sum::<u64>()
    }

    /// What all that were accepted are the sum of, each with its word.
    pub fn terms(&self) -> [(&'static str, u64); 7] {
        let Ledger { accepted: _, done, failed, discarded, expired, dead, pending, running } = *self;
        [
            ("done", done),
            ("failed", failed),
            ("discarded", discarded),
            ("expired", expired),
            ("dead", dead),
            ("pending", pending),
            ("running", running),
        ]
    }

    pub(crate) fn accept(&mut self) {
        self.accepted += 1;
        self.pending += 1;
    }

    pub(crate) fn begin(&mut self) {
        self.pending -= 1;
        self.running += 1;
    }

    /// It was with a process that ended before it began.
    pub(crate) fn unbegin(&mut self) {
        self.running -= 1;
        self.pending += 1;
    }

    pub(crate) fn settle(&mut self, place: Place, outcome: &Outcome) {
        match place {
            Place::Pending => self.pending -= 1,
            Place::Running => self.running -= 1,
        }
        match outcome {
            Outcome::Done { .. } => self.done += 1,
            Outcome::Failed { .. } => self.failed += 1,
            Outcome::Discarded { .. } => self.discarded += 1,
            Outcome::Expired { .. } => self.expired += 1,
            Outcome::Dead { .. } => self.dead += 1,
        }
    }
}

impl Core {
    /// In debug builds: the terms are what mailboxes and processes really hold, every charge is on one worker and on one
    /// account, and who is behind the gate has no process.
    pub(crate) fn prove_ledger(&self) {
        let sum = |count: fn(&Worker) -> u64| self.workers.iter().map(|(_, worker)| count(worker)).sum::<u64>();
        let running = sum(Worker::running);
        debug_assert_eq!(self.ledger.running, running, "running is what living processes execute");
        debug_assert_eq!(self.ledger.pending, sum(Worker::messages) - running, "pending is what waits");
        debug_assert_eq!(self.total_bytes, sum(|worker| worker.charged), "every charge is on one worker");
        let charges = self.accounts.iter().fold((0, 0), |sum, (_, of)| (sum.0 + of.messages, sum.1 + of.bytes));
        let messages = self.ledger.pending + self.ledger.running;
        debug_assert_eq!(charges, (messages, self.total_bytes), "every charge is on one account");
        debug_assert_eq!(self.places as u64, sum(|worker| worker.place.into()), "every place has a worker");
        self.prove_stats();
        self.prove_signals();
        debug_assert!(self.places <= self.limits.processes.max(self.places_at_reload));
        for (index, worker) in self.workers.iter() {
            let in_flight = worker.life.iter().flat_map(|life| life.in_flight.iter()).map(Message::envelope);
            let held = worker.mailbox.envelopes().chain(in_flight);
            debug_assert_eq!(worker.charged, held.map(|message| message.charge()).sum::<u64>());
            debug_assert!(worker.life.is_none() || worker.older.is_none(), "worker {index} is behind the gate");
            let needed = !worker.is_attached() && worker.life.is_some()
                || worker.may_start() && !worker.queued && self.stopping.is_none();
            debug_assert_eq!(worker.place, needed, "worker {index} has a place while it needs one");
        }
    }
}
