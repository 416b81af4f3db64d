//! All that is to happen at a point in time. Entries are never taken out early: who finds one checks
//! whether it still holds, so that setting and dropping a deadline costs nothing but its place.

use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

use serde::{Deserialize, Serialize};
use workhall_protocol::ids::{MessageId, SignalId, WorkerNumber};

use crate::time::Instant;

/// What a deadline is about. At the same instant the worker with the lower number comes first: its place may be
/// another after a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Due {
    /// The worker's own: a grace, a start, a backoff.
    Worker { number: WorkerNumber, index: u32 },
    /// A message's time to live.
    Message { number: WorkerNumber, index: u32, task: MessageId },
    /// A message that was posted for later enters the mailbox.
    Later { number: WorkerNumber, index: u32, id: MessageId },
    /// The shutdown's.
    Shutdown,
    /// A signal's: of one who waits for it, or of the time for which it is kept.
    Signal { id: SignalId },
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Deadlines {
    heap: BinaryHeap<Reverse<(Instant, Due)>>,
}

impl Deadlines {
    pub fn push(&mut self, at: Instant, due: Due) {
        self.heap.push(Reverse((at, due)));
    }

    pub fn next(&self) -> Option<(Instant, Due)> {
        self.heap.peek().map(|Reverse(entry)| *entry)
    }

    pub fn pop(&mut self) {
        self.heap.pop();
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Keeps what still holds, once each; called when the dead entries may outnumber the living. A message that goes
    /// back to its mailbox has its entry pushed again while the first may still be there.
    pub fn retain(&mut self, mut holds: impl FnMut(Instant, Due) -> bool) {
        let mut entries = core::mem::take(&mut self.heap).into_vec();
        entries.retain(|Reverse((at, due))| holds(*at, *due));
        entries.sort_unstable();
        entries.dedup();
        entries.shrink_to(2 * entries.len());
        self.heap = BinaryHeap::from(entries);
    }
}
