//! Messages, and the queue of those that wait.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use workhall_protocol::ids::{MessageId, WorkerName, WorkerNumber};

use crate::event::ReplyTo;
use crate::time::Instant;

/// What a message counts beyond its method and arguments, in bytes: about what the supervisor
/// needs to keep it. So a mailbox of empty messages is bounded too.
pub const MESSAGE_OVERHEAD_BYTES: u64 = 64;

/// Name and number of a worker, as its messages carry them.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name.
    pub name: WorkerName,
    /// The number.
    pub number: WorkerNumber,
}

/// An accepted message. Method and arguments are one block of bytes, copied when the call was
/// made (rule C9); what the arguments mean is not the core's concern.
#[derive(Debug)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// The worker that sent it; none for a client (rule C11).
    pub from: Option<Arc<Identity>>,
    /// Who waits for the outcome.
    pub reply: Option<ReplyTo>,
    /// Not to be started from here on (rule C13).
    pub(crate) expires: Instant,
    body: Box<[u8]>,
    method_bytes: u16,
}

impl Message {
    /// `method` is at most `u16::MAX` bytes; the registry has checked that.
    pub(crate) fn new(id: MessageId, method: &str, args: &[u8]) -> Message {
        let mut body = Vec::with_capacity(method.len() + args.len());
        body.extend_from_slice(method.as_bytes());
        body.extend_from_slice(args);
        Message {
            id,
            from: None,
            reply: None,
            expires: Instant::NEVER,
            body: body.into_boxed_slice(),
            method_bytes: method.len() as u16,
        }
    }

    /// The method.
    pub fn method(&self) -> &str {
        core::str::from_utf8(&self.body[..self.method_bytes.into()]).expect("was made from a str")
    }

    /// The arguments, as they came.
    pub fn args(&self) -> &[u8] {
        &self.body[self.method_bytes.into()..]
    }

    /// What it counts against the bounds, in bytes.
    pub(crate) fn charge(&self) -> u64 {
        self.body.len() as u64 + MESSAGE_OVERHEAD_BYTES
    }
}

/// The messages of one worker that no process has been given yet, in the order of their ids.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    queue: VecDeque<Message>,
}

impl Mailbox {
    pub fn len(&self) -> u64 {
        self.queue.len() as u64
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn front(&self) -> Option<&Message> {
        self.queue.front()
    }

    pub fn push(&mut self, message: Message) {
        debug_assert!(self.queue.back().is_none_or(|last| last.id < message.id));
        self.queue.push_back(message);
    }

    pub fn pop(&mut self) -> Option<Message> {
        let message = self.queue.pop_front();
        // A drained queue must not hold the memory of its deepest hour; a small one is not worth it.
        if self.queue.is_empty() && self.queue.capacity() > 64 {
            self.queue = VecDeque::new();
        }
        message
    }

    /// Puts back what a process was given and has not begun; `messages` are older than all here.
    pub fn put_back(&mut self, messages: VecDeque<Message>) {
        for message in messages.into_iter().rev() {
            debug_assert!(self.queue.front().is_none_or(|first| message.id < first.id));
            self.queue.push_front(message);
        }
    }

    /// Whether a message waits here.
    pub fn contains(&self, id: MessageId) -> bool {
        self.queue.binary_search_by_key(&id, |message| message.id).is_ok()
    }

    /// Takes out one message by its id.
    pub fn remove(&mut self, id: MessageId) -> Option<Message> {
        let at = self.queue.binary_search_by_key(&id, |message| message.id).ok()?;
        self.queue.remove(at)
    }

    /// Takes out all.
    pub fn take(&mut self) -> VecDeque<Message> {
        core::mem::take(&mut self.queue)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Message> {
        self.queue.iter()
    }
}
