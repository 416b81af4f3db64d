//! What senders were told of each message: one receipt, and one fate where they waited for it.

use std::collections::BTreeMap;

use workhall_protocol::messages::OutcomeBody;

/// A message: ids are unique while a supervisor lives, so it stands beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Message {
    /// The supervisor's process id.
    pub supervisor: i32,
    /// As the receipt says.
    pub id: u64,
}

/// What its sender knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Accepted; nobody waits.
    Unasked,
    /// Accepted; the fate is still to come.
    Awaited,
    /// The supervisor was killed before it told.
    Lost,
    /// The terms of the ledger.
    Done,
    Failed,
    Discarded {
        may_have_run: bool,
    },
    Expired,
    Dead {
        may_have_run: bool,
    },
}

impl Fate {
    /// Of an outcome of a call.
    pub fn of(outcome: &OutcomeBody<'_>) -> Option<Fate> {
        Some(match outcome {
            OutcomeBody::Done { .. } => Fate::Done,
            OutcomeBody::Failed { .. } => Fate::Failed,
            OutcomeBody::Discarded { may_have_run } => Fate::Discarded { may_have_run: *may_have_run },
            OutcomeBody::Expired { .. } => Fate::Expired,
            OutcomeBody::Dead { may_have_run, .. } => Fate::Dead { may_have_run: *may_have_run },
            OutcomeBody::Killed(_)
            | OutcomeBody::Reached {}
            | OutcomeBody::Triggered { .. }
            | OutcomeBody::TimedOut {}
            | OutcomeBody::Lost {} => return None,
        })
    }

    /// Its term in the ledger.
    pub fn term(self) -> Option<&'static str> {
        match self {
            Fate::Unasked | Fate::Awaited | Fate::Lost => None,
            Fate::Done => Some("done"),
            Fate::Failed => Some("failed"),
            Fate::Discarded { .. } => Some("discarded"),
            Fate::Expired => Some("expired"),
            Fate::Dead { .. } => Some("dead"),
        }
    }

    /// Whether it was certainly never begun.
    pub fn never_ran(self) -> bool {
        matches!(self, Fate::Expired | Fate::Discarded { may_have_run: false } | Fate::Dead { may_have_run: false })
    }
}

/// All messages whose receipts were read.
#[derive(Debug, Default)]
pub struct Book {
    fates: BTreeMap<Message, Fate>,
}

impl Book {
    /// A receipt. The error is a violation.
    pub fn accepted(&mut self, message: Message, awaited: bool) -> Result<(), String> {
        let fate = if awaited { Fate::Awaited } else { Fate::Unasked };
        match self.fates.insert(message, fate) {
            None => Ok(()),
            Some(before) => Err(format!("{message:?} was accepted twice; it was {before:?} before")),
        }
    }

    /// An outcome. The error is a violation.
    pub fn settled(&mut self, message: Message, fate: Fate) -> Result<(), String> {
        match self.fates.insert(message, fate) {
            Some(Fate::Awaited) => Ok(()),
            before => Err(format!("{message:?} is told to be {fate:?}, and was {before:?} before")),
        }
    }

    /// Its supervisor was killed.
    pub fn lost(&mut self, message: Message) {
        if let Some(fate @ Fate::Awaited) = self.fates.get_mut(&message) {
            *fate = Fate::Lost;
        }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (Message, Fate)> + '_ {
        self.fates.iter().map(|(message, fate)| (*message, *fate))
    }
}
