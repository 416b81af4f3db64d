//! Messages that wait for a process, in order.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use workhall_protocol::ids::{MessageId, WorkerName, WorkerNumber};

use crate::event::ReplyTo;
use crate::time::Instant;

/// What a message counts beyond its method and arguments, in bytes: about what the supervisor
/// needs to keep it. So a mailbox of empty messages is bounded too.
pub const MESSAGE_OVERHEAD_BYTES: u64 = 64;

/// Name and number of a worker, as its messages carry them.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The name.
    pub name: WorkerName,
    /// The number.
    pub number: WorkerNumber,
}

/// An accepted message. Method and arguments are one block of bytes, copied when the call was
/// made (rule C9); what the arguments mean is not the core's concern.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// What a process knows it by: the id, but for a message that was posted for later a newer number, taken when
    /// it entered the mailbox. So these numbers only rise for a process, as its marks need it.
    pub task: MessageId,
    /// The worker that sent it; none for a client (rule C11).
    pub from: Option<Arc<Identity>>,
    /// Who waits for the outcome.
    pub reply: Option<ReplyTo>,
    /// When it was accepted.
    pub accepted: Instant,
    /// Not to be started from here on (rule C13).
    pub(crate) expires: Instant,
    /// The account that is charged for it.
    pub(crate) account: u32,
    /// How many processes have died while they executed it.
    pub(crate) deaths: u8,
    /// How many have died after it was handed to them, and had surely not begun it.
    pub(crate) returns: u8,
    #[serde(with = "serde_bytes")]
    body: Box<[u8]>,
    method_bytes: u16,
}

impl Message {
    /// `method` is at most `u16::MAX` bytes; the registry has checked that.
    pub(crate) fn new(id: MessageId, accepted: Instant, method: &str, args: &[u8]) -> Message {
        let mut body = Vec::with_capacity(method.len() + args.len());
        body.extend_from_slice(method.as_bytes());
        body.extend_from_slice(args);
        Message {
            id,
            task: id,
            from: None,
            reply: None,
            accepted,
            expires: Instant::NEVER,
            account: 0,
            deaths: 0,
            returns: 0,
            body: body.into_boxed_slice(),
            method_bytes: method.len() as u16,
        }
    }

    /// The same content as a new message, for ever valid, for which nobody waits.
    pub(crate) fn again(self, id: MessageId, now: Instant) -> Message {
        Message { id, task: id, reply: None, accepted: now, expires: Instant::NEVER, deaths: 0, returns: 0, ..self }
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

    /// Whether a process may have begun it, while it waits (rule L2).
    pub(crate) fn may_have_run(&self) -> bool {
        self.deaths > 0
    }
}

/// The messages of one worker that no process has been given yet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Mailbox {
    /// In the order of their task numbers.
    queue: VecDeque<Message>,
    /// Posted for later: they enter the queue at their time. Few workers have any.
    #[allow(clippy::box_collection, reason = "a worker without any has a pointer, not an empty map")]
    later: Option<Box<BTreeMap<(Instant, MessageId), Message>>>,
}

impl Mailbox {
    /// How many there are, those for later included.
    pub fn len(&self) -> u64 {
        (self.queue.len() + self.later.as_ref().map_or(0, |later| later.len())) as u64
    }

    /// Whether a process would have nothing to do now.
    pub fn nothing_due(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn front(&self) -> Option<&Message> {
        self.queue.front()
    }

    pub fn push(&mut self, message: Message) {
        debug_assert!(self.queue.back().is_none_or(|last| last.task < message.task));
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

    /// Puts back what a process was given; `messages` are older than all here.
    pub fn put_back(&mut self, messages: VecDeque<Message>) {
        for message in messages.into_iter().rev() {
            debug_assert!(self.queue.front().is_none_or(|first| message.task < first.task));
            self.queue.push_front(message);
        }
    }

    /// Keeps a message until `due`.
    pub fn keep_until(&mut self, due: Instant, message: Message) {
        self.later.get_or_insert_default().insert((due, message.id), message);
    }

    /// Takes out the message that was to be kept until `due`.
    pub fn take_due(&mut self, due: Instant, id: MessageId) -> Option<Message> {
        let later = self.later.as_mut()?;
        let message = later.remove(&(due, id));
        if later.is_empty() {
            self.later = None;
        }
        message
    }

    /// Whether it is kept until then.
    pub fn keeps(&self, due: Instant, id: MessageId) -> bool {
        self.later.as_ref().is_some_and(|later| later.contains_key(&(due, id)))
    }

    /// Whether a message waits here; none that is for later.
    pub fn contains(&self, task: MessageId) -> bool {
        self.queue.binary_search_by_key(&task, |message| message.task).is_ok()
    }

    /// Takes out one message by its task number.
    pub fn remove(&mut self, task: MessageId) -> Option<Message> {
        let at = self.queue.binary_search_by_key(&task, |message| message.task).ok()?;
        self.queue.remove(at)
    }

    /// Takes out all, those for later last.
    pub fn take(&mut self) -> VecDeque<Message> {
        let mut messages = core::mem::take(&mut self.queue);
        if let Some(later) = self.later.take() {
            messages.extend(later.into_values());
        }
        messages
    }

    /// Takes out all that a process would be given now.
    pub fn take_queue(&mut self) -> VecDeque<Message> {
        core::mem::take(&mut self.queue)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Message> {
        self.queue.iter().chain(self.later.iter().flat_map(|later| later.values()))
    }
}
