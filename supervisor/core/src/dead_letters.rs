//! Messages that no process will execute any more, kept for people: which, why, and whether they may have run.
//!
//! The store is bounded by count and bytes. The oldest leave first, and are counted. What is dropped here has had
//! its fate long before: the ledger does not change.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use serde::{Deserialize, Serialize};
use workhall_protocol::ids::{Generation, MessageId};
use workhall_protocol::terms::{DeadReason, Exit};

use crate::mailbox::{Identity, Message};
use crate::time::Instant;

/// A message that will not be executed any more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The message, with its arguments.
    pub message: Message,
    /// The worker it was for.
    pub worker: Arc<Identity>,
    /// The life it died with, or the last before.
    pub generation: Generation,
    /// Why.
    pub reason: DeadReason,
    /// How its process ended, if it had one.
    pub exit: Option<Exit>,
    /// Rule L2.
    pub may_have_run: bool,
    /// When.
    pub died: Instant,
    /// Its place in the order in which they died.
    order: u64,
}

/// Why a message is a dead letter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    pub reason: DeadReason,
    pub exit: Option<Exit>,
    pub may_have_run: bool,
}

/// What there is, and what had to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadTotals {
    /// Letters that are kept.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Letters that left because there were too many.
    pub dropped: u64,
}

/// Which letters are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letters<'a> {
    /// All.
    All,
    /// Those that were for the workers of this name.
    Of(&'a str),
    /// The one with this id.
    One(MessageId),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DeadLetters {
    /// In the order in which they died.
    letters: VecDeque<DeadLetter>,
    totals: DeadTotals,
    next: u64,
}

impl DeadLetters {
    /// Keeps a letter; the oldest leave if that is too much.
    pub fn keep(&mut self, mut letter: DeadLetter, messages_max: u64, bytes_max: u64) {
        letter.order = self.next;
        self.next += 1;
        self.totals.messages += 1;
        self.totals.bytes += letter.message.charge();
        self.letters.push_back(letter);
        while self.totals.messages > messages_max || self.totals.bytes > bytes_max {
            let Some(oldest) = self.letters.pop_front() else { break };
            self.forget(&oldest);
            self.totals.dropped += 1;
        }
    }

    pub fn totals(&self) -> DeadTotals {
        self.totals
    }

    /// In the order in which they died.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &DeadLetter> {
        self.letters.iter()
    }

    /// Takes out those that are meant, in the order in which they died.
    pub fn take(&mut self, which: Letters<'_>) -> VecDeque<DeadLetter> {
        let mut taken = VecDeque::new();
        if let Letters::One(id) = which {
            let at = self.letters.iter().position(|letter| letter.message.id == id);
            taken.extend(at.and_then(|at| self.letters.remove(at)));
        } else {
            let all = core::mem::take(&mut self.letters);
            for letter in all {
                let rest = if letter.is_meant(which) { &mut taken } else { &mut self.letters };
                rest.push_back(letter);
            }
        }
        for letter in &taken {
            self.forget(letter);
        }
        taken
    }

    /// Puts back what was taken, to its old places.
    pub fn put_back(&mut self, letters: VecDeque<DeadLetter>) {
        self.totals.messages += letters.len() as u64;
        self.totals.bytes += letters.iter().map(|letter| letter.message.charge()).sum::<u64>();
        self.letters.extend(letters);
        // Both parts are in order: that is a merge.
        self.letters.make_contiguous().sort_by_key(|letter| letter.order);
    }

    fn forget(&mut self, letter: &DeadLetter) {
        self.totals.messages -= 1;
        self.totals.bytes -= letter.message.charge();
    }
}

impl DeadLetter {
    pub(crate) fn new(
        message: Message,
        worker: Arc<Identity>,
        generation: Generation,
        fate: Fate,
        died: Instant,
    ) -> Self {
        let Fate { reason, exit, may_have_run } = fate;
        DeadLetter { message, worker, generation, reason, exit, may_have_run, died, order: 0 }
    }

    /// Its place: those that died before have smaller ones.
    pub fn place(&self) -> u64 {
        self.order
    }

    pub(crate) fn is_meant(&self, which: Letters<'_>) -> bool {
        match which {
            Letters::All => true,
            Letters::Of(name) => *self.worker.name == *name,
            Letters::One(id) => self.message.id == id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use workhall_protocol::ids::{WorkerName, WorkerNumber};

    fn letter(id: u64, name: &str) -> DeadLetter {
        let worker = Arc::new(Identity { name: WorkerName::new(name).unwrap(), number: WorkerNumber(2) });
        let fate = Fate { reason: DeadReason::Crashed, exit: None, may_have_run: true };
        let message = Message::new(MessageId(id), Instant(1), "m", b"");
        DeadLetter::new(message, worker, Generation(1), fate, Instant(5))
    }

    fn ids(letters: &DeadLetters) -> alloc::vec::Vec<u64> {
        letters.iter().map(|letter| letter.message.id.0).collect()
    }

    #[test]
    fn d02_the_oldest_dead_letters_leave_first_and_are_counted() {
        let mut letters = DeadLetters::default();
        for id in [5, 3, 9] {
            letters.keep(letter(id, "a"), 2, 1 << 20);
        }
        assert_eq!(ids(&letters), [3, 9]);
        let bytes = letters.totals().bytes;
        assert_eq!(letters.totals(), DeadTotals { messages: 2, bytes, dropped: 1 });
        letters.keep(letter(4, "a"), 10, bytes / 2);
        assert_eq!((ids(&letters), letters.totals().dropped), (alloc::vec![4], 3));
    }

    #[test]
    fn what_is_put_back_stands_where_it_stood() {
        let mut letters = DeadLetters::default();
        for (id, name) in [(5, "a"), (3, "b"), (9, "a"), (1, "b")] {
            letters.keep(letter(id, name), 10, 1 << 20);
        }
        let mut taken = letters.take(Letters::Of("a"));
        assert_eq!(ids(&letters), [3, 1]);
        taken.pop_front();
        letters.put_back(taken);
        assert_eq!((ids(&letters), letters.totals().messages), (alloc::vec![3, 9, 1], 3));
        assert_eq!(letters.take(Letters::One(MessageId(9))).len(), 1);
        assert_eq!(letters.take(Letters::One(MessageId(9))).len(), 0);
        assert_eq!(letters.take(Letters::All).len(), 2);
        assert_eq!(letters.totals(), DeadTotals::default());
    }
}
