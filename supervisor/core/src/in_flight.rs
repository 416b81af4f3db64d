//! The messages that a process was given and has not settled.

use alloc::collections::VecDeque;
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
}

impl InFlight {
    /// What those beyond the first are charged for, in bytes.
    pub fn charge_ahead(&self) -> u64 {
        self.charge - self.messages.front().map_or(0, Message::charge)
    }

    /// Where a message is that was given with this task number.
    pub fn position(&self, task: MessageId) -> Option<usize> {
        match self.messages.back() {
            // Who asks has most often just been told of it.
            Some(last) if last.task == task => Some(self.messages.len() - 1),
            _ => self.messages.binary_search_by_key(&task, |message| message.task).ok(),
        }
    }

    pub fn push(&mut self, message: Message) {
        debug_assert!(self.messages.back().is_none_or(|last| last.task < message.task));
        self.charge += message.charge();
        self.messages.push_back(message);
    }

    pub fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.charge -= message.charge();
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
        InFlight { charge: messages.iter().map(Message::charge).sum(), messages }
    }
}

impl Serialize for InFlight {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.messages.serialize(serializer)
    }
}
