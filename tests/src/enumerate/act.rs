//! What can happen, one step at a time.

use super::config::Fault;

/// Something that can happen. Processes are named by their slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    Post {
        to: u8,
    },
    Kill {
        name: u8,
        how: u8,
    },
    Wait {
        name: u8,
    },
    /// Time passes to the next deadline.
    Tick,
    SaysReady(u8),
    /// Takes the next task from its wire: begins it, or its first half.
    Takes(u8),
    /// The second half of a begin, where there is a page.
    LooksAtFlag(u8),
    Returns(u8),
    Fails(u8),
    /// Stores in its page that the task has ended, after the words for it.
    Marks(u8),
    /// Writes the settlements that it has collected.
    Writes(u8),
    /// Ends because it was asked to, or nobody can speak to it any more.
    Obeys(u8),
    DiesOfSignal(u8),
    /// The one fault.
    Faults(u8, Fault),
    ShellReads(u8),
    ShellReadsMarks(u8),
    ExitIsSeen(u8),
    DisconnectionIsSeen(u8),
    TreeIsGone(u8),
    /// The kernel says so before the exit.
    TreeIsGoneEarly(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    pub act: Act,
    /// The first process that is to be started in it cannot be: that is the fault.
    pub spawn_fails: bool,
}

impl Act {
    /// Clients and faults: they may happen, and need not.
    pub fn is_optional(self) -> bool {
        matches!(self, Act::Post { .. } | Act::Kill { .. } | Act::Wait { .. } | Act::Faults(..))
    }

    /// Of which process it is an act, or about which one.
    pub fn slot(self) -> Option<u8> {
        match self {
            Act::Post { .. } | Act::Kill { .. } | Act::Wait { .. } | Act::Tick => None,
            Act::SaysReady(slot) | Act::Takes(slot) | Act::LooksAtFlag(slot) | Act::Returns(slot) => Some(slot),
            Act::Fails(slot) | Act::Marks(slot) | Act::Writes(slot) | Act::Obeys(slot) => Some(slot),
            Act::DiesOfSignal(slot) | Act::Faults(slot, _) | Act::ShellReads(slot) => Some(slot),
            Act::ShellReadsMarks(slot) | Act::ExitIsSeen(slot) | Act::DisconnectionIsSeen(slot) => Some(slot),
            Act::TreeIsGone(slot) | Act::TreeIsGoneEarly(slot) => Some(slot),
        }
    }
}
