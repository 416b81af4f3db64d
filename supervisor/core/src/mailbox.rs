//! Messages that wait for a process, in order.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use workhall_protocol::ids::{MessageId, WorkerName, WorkerNumber};

use crate::event::ReplyTo;
use crate::queue::Queue;
use crate::time::Instant;

/// What a message counts beyond its method and arguments, in bytes: about what the supervisor
/// needs to keep it. So a mailbox of empty messages is bounded too.
pub const MESSAGE_OVERHEAD_BYTES: u64 = 64;

/// Name and number of a worker, as its messages carry them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    body: Vec<u8>,
    method_bytes: u16,
}

/// Memory of messages that were settled, for those that are handed over next: a process that has tasks sent ahead settles
/// many together and is given as many, and to free and allocate each costs more than all else that is done with a small
/// one. Bounded, and empty after a snapshot was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bodies(Vec<Vec<u8>>);

/// So many are kept at most.
const BODIES_MAX: usize = 1024;
/// The largest that is kept, in bytes.
const BODY_BYTES_MAX: usize = 256;

impl Bodies {
    /// An empty one.
    pub fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    /// The message is settled.
    pub fn keep(&mut self, message: Message) {
        let mut body = message.body;
        if (1..=BODY_BYTES_MAX).contains(&body.capacity()) && self.0.len() < BODIES_MAX {
            body.clear();
            self.0.push(body);
        }
    }
}

/// What is to be known of a message without its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope {
    pub id: MessageId,
    pub task: MessageId,
    pub reply: Option<ReplyTo>,
    pub accepted: Instant,
    pub expires: Instant,
    pub account: u32,
    pub deaths: u8,
    pub returns: u8,
    /// Method and arguments.
    pub bytes: u32,
}

/// A message whose content is still, or again, somewhere else.
#[derive(Clone, Debug)]
pub(crate) struct Posted<'a> {
    pub envelope: Envelope,
    pub from: Option<Arc<Identity>>,
    pub method: &'a [u8],
    pub args: &'a [u8],
}

impl Envelope {
    /// What it counts against the bounds, in bytes.
    pub fn charge(&self) -> u64 {
        u64::from(self.bytes) + MESSAGE_OVERHEAD_BYTES
    }

    /// Whether a process may have begun it, while it waits (rule L2).
    pub fn may_have_run(&self) -> bool {
        self.deaths > 0
    }
}

impl<'a> Posted<'a> {
    /// For ever valid, of a client, and nobody waits for it. `method` is at most `u16::MAX` bytes, and both together have
    /// at most `u32::MAX`: the registry has checked that.
    pub fn new(id: MessageId, accepted: Instant, method: &'a str, args: &'a [u8]) -> Posted<'a> {
        let envelope = Envelope {
            id,
            task: id,
            reply: None,
            accepted,
            expires: Instant::NEVER,
            account: 0,
            deaths: 0,
            returns: 0,
            bytes: (method.len() + args.len()) as u32,
        };
        Posted { envelope, from: None, method: method.as_bytes(), args }
    }

    /// Bytes of method and arguments.
    pub fn bytes(&self) -> usize {
        self.method.len() + self.args.len()
    }

    /// Copies the content.
    pub fn into_message(self) -> Message {
        self.into_message_in(Vec::new())
    }

    /// Copies it into memory that was another's.
    pub fn into_message_in(self, mut body: Vec<u8>) -> Message {
        let Envelope { id, task, reply, accepted, expires, account, deaths, returns, .. } = self.envelope;
        body.reserve_exact(self.bytes());
        body.extend_from_slice(self.method);
        body.extend_from_slice(self.args);
        let (from, method_bytes) = (self.from, self.method.len() as u16);
        Message { id, task, from, reply, accepted, expires, account, deaths, returns, body, method_bytes }
    }
}

impl Message {
    /// The method.
    pub fn method(&self) -> &str {
        core::str::from_utf8(&self.body[..self.method_bytes.into()]).expect("was made from a str")
    }

    /// The arguments, as they came.
    pub fn args(&self) -> &[u8] {
        &self.body[self.method_bytes.into()..]
    }

    pub(crate) fn envelope(&self) -> Envelope {
        let Message { id, task, reply, accepted, expires, account, deaths, returns, .. } = *self;
        let bytes = self.body.len() as u32;
        Envelope { id, task, reply, accepted, expires, account, deaths, returns, bytes }
    }

    pub(crate) fn posted(&self) -> Posted<'_> {
        let (method, args) = self.body.split_at(self.method_bytes.into());
        Posted { envelope: self.envelope(), from: self.from.clone(), method, args }
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

#[cfg(test)]
impl Message {
    pub(crate) fn new(id: MessageId, accepted: Instant, method: &str, args: &[u8]) -> Message {
        Posted::new(id, accepted, method, args).into_message()
    }
}

/// The messages of one worker that no process has been given yet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Mailbox {
    queue: Queue,
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

    #[inline]
    pub fn front(&self) -> Option<Envelope> {
        self.queue.front()
    }

    /// A new message, for the next process.
    pub fn post(&mut self, posted: Posted<'_>) {
        self.queue.post(posted);
    }

    /// One that was kept until now.
    pub fn push(&mut self, message: Message) {
        self.queue.push(message);
    }

    /// The next, in memory that was another's.
    pub fn pop(&mut self, bodies: &mut Bodies) -> Option<Message> {
        self.queue.pop(bodies)
    }

    /// The next, or when there is none one of those for later.
    pub fn pop_any(&mut self, bodies: &mut Bodies) -> Option<Message> {
        self.queue.pop(bodies).or_else(|| Some(self.later.as_mut()?.pop_first()?.1))
    }

    /// Puts back what a process was given; `messages` are older than all here.
    pub fn put_back(&mut self, messages: VecDeque<Message>) {
        for message in messages.into_iter().rev() {
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
        self.queue.contains(task)
    }

    /// What is to be known of one message, by its task number; of none that is for later.
    pub fn envelope(&self, task: MessageId) -> Option<Envelope> {
        self.queue.envelope(task)
    }

    /// Takes out one message by its task number.
    pub fn remove(&mut self, task: MessageId) -> Option<Message> {
        self.queue.remove(task)
    }

    /// Takes out all that a process would be given now.
    pub fn take_queue(&mut self) -> Queue {
        core::mem::take(&mut self.queue)
    }

    /// What is to be known of all, those for later last.
    pub fn envelopes(&self) -> impl Iterator<Item = Envelope> {
        let later = self.later.iter().flat_map(|later| later.values());
        self.queue.envelopes().chain(later.map(Message::envelope))
    }

    /// Drops all, one after the other, those for later last, and says what they were.
    pub fn drain(mut self) -> impl Iterator<Item = Envelope> {
        let mut later = self.later.take().into_iter().flat_map(|later| later.into_values());
        core::iter::from_fn(move || self.queue.skip().or_else(|| later.next().map(|message| message.envelope())))
    }
}
