//! The ledger (rule L1): at any instant
//! `accepted = done + failed + discarded + expired + dead + pending + running`.

use crate::effect::Outcome;
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
        self.accepted
            == self.done + self.failed + self.discarded + self.expired + self.dead + self.pending + self.running
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
