//! The messages that a process was given and has not settled.

use alloc::collections::VecDeque;
use core::cell::Cell;
use core::ops::Deref;

use serde::{Deserialize, Serialize, Serializer};
use workhall_protocol::ids::MessageId;

use crate::mailbox::Message;

/// In the order in which they were given, which is that of their task numbers; the first is the one being executed. What
/// they are charged for is kept with them: it is asked for with each that is sent ahead.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "VecDeque<Message>")]
pub(crate) struct InFlight {
    messages: VecDeque<Message>,
    charge: u64,
    /// Where the one was that was asked for last: most often the one behind it comes next.
    asked: Cell<usize>,
}

impl InFlight {
    /// What those beyond the first are charged for, in bytes.
    pub fn charge_ahead(&self) -> u64 {
        self.charge - self.messages.front().map_or(0, Message::charge)
    }

    /// Where a message is that was given with this task number.
    pub fn position(&self, task: MessageId) -> Option<usize> {
        let is = |at: &usize| self.messages.get(*at).is_some_and(|message| message.task == task);
        let guesses = [self.messages.len().wrapping_sub(1), self.asked.get() + 1];
        let search = || self.messages.binary_search_by_key(&task, |message| message.task).ok();
        let found = guesses.into_iter().find(is).or_else(search)?;
        self.asked.set(found);
        Some(found)
    }

    /// How many there are up to the one with this task number, which are about to be settled: so all are looked at, in
    /// the order in which they will be.
    pub fn count_to(&self, task: MessageId) -> Option<usize> {
        self.messages.back().filter(|last| task <= last.task)?;
        let at = self.messages.iter().position(|message| message.task >= task)?;
        (self.messages[at].task == task).then_some(at + 1)
    }

    pub fn push(&mut self, message: Message) {
        debug_assert!(self.messages.back().is_none_or(|last| last.task < message.task));
        self.charge += message.charge();
        self.messages.push_back(message);
    }

    pub fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.charge -= message.charge();
        self.asked.set(self.asked.get().saturating_sub(1));
        Some(message)
    }

    pub fn remove(&mut self, at: usize) -> Option<Message> {
        let message = self.messages.remove(at)?;
        self.charge -= message.charge();
        Some(message)
    }

    /// Takes out all from `at` on.
    pub fn split_off(&mut self, at: usize) -> VecDeque<Message> {
        let rest = self.messages.split_off(at);
        self.charge -= rest.iter().map(Message::charge).sum::<u64>();
        rest
    }

    pub fn take(&mut self) -> VecDeque<Message> {
        self.charge = 0;
        core::mem::take(&mut self.messages)
    }
}

impl Deref for InFlight {
    type Target = VecDeque<Message>;
    fn deref(&self) -> &VecDeque<Message> {
        &self.messages
    }
}

impl From<VecDeque<Message>> for InFlight {
    fn from(messages: VecDeque<Message>) -> InFlight {
        InFlight { charge: messages.iter().map(Message::charge).sum(), messages, asked: Cell::default() }
    }
}

impl Serialize for InFlight {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.messages.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;

    #[test]
    fn a_task_is_found_wherever_it_stands_and_whatever_was_asked_before() {
        let mut tasks = InFlight::default();
        for task in [2, 3, 5, 8, 13, 21] {
            tasks.push(Message::new(MessageId(task), Instant(0), "m", &[]));
        }
        for popped in 0..=6 {
            let left: alloc::vec::Vec<u64> = tasks.iter().map(|message| message.task.0).collect();
            assert_eq!(left.len(), 6 - popped);
            for asked_before in 0..=22 {
                for task in 0..=22 {
                    tasks.position(MessageId(asked_before));
                    let at = left.iter().position(|other| *other == task);
                    assert_eq!(tasks.position(MessageId(task)), at, "{left:?}: {task} after {asked_before}");
                    assert_eq!(tasks.count_to(MessageId(task)), at.map(|at| at + 1), "{left:?}: {task}");
                }
            }
            tasks.pop();
        }
    }
}
