//! The messages that a mailbox holds for the next process, in order, packed into chunks of bytes: a message needs its own
//! bytes and a few more, and no memory of its own. It becomes a [`Message`] again when it is handed to a process.
//!
//! What would gain nothing by it is kept as it is, between the chunks: large messages, and the few
//! that a process has given back.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use workhall_protocol::ids::MessageId;

use crate::chunk::Chunk;
use crate::mailbox::{Bodies, Envelope, Message, Posted};

/// The most memory of an empty queue that is worth keeping for what comes next, in segments.
const SEGMENTS_KEPT_MAX: usize = 64;

/// Messages in the order of their task numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    /// None is empty, but for one that may be kept for what comes next when there are no messages.
    segments: VecDeque<Segment>,
    messages: usize,
    /// What they are charged for.
    charge: u64,
}

#[derive(Clone, Debug)]
enum Segment {
    Packed(Box<Chunk>),
    Whole(Box<Message>),
}

impl Queue {
    pub fn len(&self) -> usize {
        self.messages
    }

    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    #[inline]
    pub fn front(&self) -> Option<Envelope> {
        self.segments.front().filter(|_| self.messages > 0).map(Segment::first)
    }

    /// Puts a new message to the end.
    pub fn post(&mut self, posted: Posted<'_>) {
        if !Chunk::takes(&posted) {
            return self.push_whole(posted.into_message());
        }
        debug_assert!(self.last_task().is_none_or(|last| last < posted.envelope.task));
        self.messages += 1;
        self.charge += posted.envelope.charge();
        // Waste is a part of what there is, whether that is one message or a million.
        let ahead = self.charge as usize / 8;
        if let Some(Segment::Packed(chunk)) = self.segments.back_mut()
            && chunk.push(&posted, ahead)
        {
            return;
        }
        let mut chunk = Box::new(Chunk::default());
        let done = chunk.push(&posted, ahead);
        debug_assert!(done, "an empty chunk has room");
        self.segments.push_back(Segment::Packed(chunk));
    }

    /// Puts a message to the end that was one before.
    pub fn push(&mut self, message: Message) {
        let posted = message.posted();
        match Chunk::takes(&posted) {
            true => self.post(posted),
            false => self.push_whole(message),
        }
    }

    fn push_whole(&mut self, message: Message) {
        debug_assert!(self.last_task().is_none_or(|last| last < message.task));
        self.drop_kept();
        self.messages += 1;
        self.charge += message.charge();
        self.segments.push_back(Segment::Whole(Box::new(message)));
    }

    /// Puts a message before all others.
    pub fn push_front(&mut self, message: Message) {
        debug_assert!(self.front().is_none_or(|first| message.task < first.task));
        self.drop_kept();
        self.messages += 1;
        self.charge += message.charge();
        self.segments.push_front(Segment::Whole(Box::new(message)));
    }

    pub fn pop(&mut self, bodies: &mut Bodies) -> Option<Message> {
        if self.messages == 0 {
            return None;
        }
        let message = match self.segments.front_mut()? {
            Segment::Packed(chunk) => chunk.pop(bodies.take()),
            Segment::Whole(_) => match self.segments.pop_front() {
                Some(Segment::Whole(message)) => *message,
                _ => unreachable!("was seen just before"),
            },
        };
        self.popped(message.charge());
        Some(message)
    }

    /// Drops the first message, and says what it was.
    pub fn skip(&mut self) -> Option<Envelope> {
        let envelope = self.front()?;
        match self.segments.front_mut()? {
            Segment::Packed(chunk) => chunk.skip_first(),
            Segment::Whole(_) => drop(self.segments.pop_front()),
        }
        self.popped(envelope.charge());
        Some(envelope)
    }

    /// Whether there is a message with this task number.
    pub fn contains(&self, task: MessageId) -> bool {
        self.segment_of(task).is_some_and(|at| match &self.segments[at] {
            Segment::Packed(chunk) => chunk.find(task).is_some(),
            Segment::Whole(message) => message.task == task,
        })
    }

    /// What is to be known of one message, by its task number.
    pub fn envelope(&self, task: MessageId) -> Option<Envelope> {
        match &self.segments[self.segment_of(task)?] {
            Segment::Packed(chunk) => chunk.envelope(task),
            Segment::Whole(message) => (message.task == task).then(|| message.envelope()),
        }
    }

    /// Takes out one message by its task number.
    pub fn remove(&mut self, task: MessageId) -> Option<Message> {
        let at = self.segment_of(task)?;
        let message = match &mut self.segments[at] {
            Segment::Packed(chunk) => {
                let found = chunk.find(task)?;
                let message = chunk.message_at(found.start);
                chunk.remove(found);
                if chunk.is_empty() && self.messages > 1 {
                    self.segments.remove(at);
                }
                message
            }
            Segment::Whole(message) if message.task != task => return None,
            Segment::Whole(_) => match self.segments.remove(at) {
                Some(Segment::Whole(message)) => *message,
                _ => unreachable!("was seen just before"),
            },
        };
        self.messages -= 1;
        self.charge -= message.charge();
        self.release();
        Some(message)
    }

    /// What is to be known of all of them, in order.
    pub fn envelopes(&self) -> impl Iterator<Item = Envelope> {
        self.segments.iter().flat_map(|segment| {
            let (chunk, whole) = segment.parts();
            let packed = chunk.into_iter().flat_map(|chunk| chunk.blocks().map(|(_, block)| block.envelope));
            packed.chain(whole.map(Message::envelope))
        })
    }

    fn messages(&self) -> impl Iterator<Item = Cow<'_, Message>> {
        self.segments.iter().flat_map(|segment| {
            let (chunk, whole) = segment.parts();
            let packed =
                chunk.into_iter().flat_map(|chunk| chunk.blocks().map(|(at, _)| Cow::Owned(chunk.message_at(at))));
            packed.chain(whole.map(Cow::Borrowed))
        })
    }

    /// The only segment that a message with this number can be in.
    fn segment_of(&self, task: MessageId) -> Option<usize> {
        match self.messages {
            0 => None,
            _ => self.segments.partition_point(|segment| segment.first_task() <= task).checked_sub(1),
        }
    }

    /// The number of the last message as far as that costs nothing to know.
    fn last_task(&self) -> Option<MessageId> {
        self.segments.back().filter(|_| self.messages > 0).map(Segment::first_task)
    }

    fn popped(&mut self, charge: u64) {
        self.messages -= 1;
        self.charge -= charge;
        if self.segments.front().is_some_and(|segment| segment.parts().0.is_some_and(Chunk::is_empty))
            && self.messages > 0
        {
            self.segments.pop_front();
        }
        self.release();
    }

    /// An empty queue does not hold the memory of its deepest hour; a little is kept for what comes next.
    fn release(&mut self) {
        if self.messages > 0 {
            return;
        }
        if self.segments.capacity() > SEGMENTS_KEPT_MAX {
            self.segments = VecDeque::new();
        }
        if let Some(Segment::Packed(chunk)) = self.segments.front_mut() {
            chunk.clear();
        }
    }

    /// What was kept for the next message stands in the way of one that is whole.
    fn drop_kept(&mut self) {
        if self.messages == 0 {
            self.segments.clear();
        }
    }
}

impl Segment {
    fn parts(&self) -> (Option<&Chunk>, Option<&Message>) {
        match self {
            Segment::Packed(chunk) => (Some(chunk), None),
            Segment::Whole(message) => (None, Some(message)),
        }
    }

    #[inline]
    fn first(&self) -> Envelope {
        match self {
            Segment::Packed(chunk) => chunk.first(),
            Segment::Whole(message) => message.envelope(),
        }
    }

    fn first_task(&self) -> MessageId {
        self.first().task
    }
}

/// The messages, one after the other: how they are packed is nobody's concern.
impl Serialize for Queue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut messages = serializer.serialize_seq(Some(self.messages))?;
        for message in self.messages() {
            messages.serialize_element(&message)?;
        }
        messages.end()
    }
}

impl<'de> Deserialize<'de> for Queue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Queue, D::Error> {
        struct Messages;

        impl<'de> Visitor<'de> for Messages {
            type Value = Queue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("messages")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut messages: A) -> Result<Queue, A::Error> {
                let mut queue = Queue::default();
                while let Some(message) = messages.next_element()? {
                    queue.push(message);
                }
                Ok(queue)
            }
        }

        deserializer.deserialize_seq(Messages)
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use core::num::NonZeroU64;

    use workhall_protocol::ids::{WorkerName, WorkerNumber};

    use super::*;
    use crate::chunk::PACKED_BYTES_MAX;
    use crate::event::ReplyTo;
    use crate::mailbox::Identity;
    use crate::time::Instant;

    /// A queue and what it must hold, put to the same use.
    #[derive(Default)]
    struct Pair {
        queue: Queue,
        expected: VecDeque<Message>,
        next: u64,
        random: u64,
    }

    impl Pair {
        fn draw(&mut self, below: u64) -> u64 {
            self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (self.random >> 33) % below
        }

        fn message(&mut self, senders: &[Arc<Identity>]) -> Message {
            let args = match self.draw(40) {
                0 => 5000,
                1 => PACKED_BYTES_MAX - 1,
                2 => PACKED_BYTES_MAX,
                n => n as usize,
            };
            self.next += 1 + self.draw(3);
            let envelope = Envelope {
                id: MessageId(self.next - self.draw(8).min(self.next - 1) / 7),
                task: MessageId(self.next),
                reply: NonZeroU64::new(self.draw(3)).map(|connection| ReplyTo { connection, token: self.next }),
                accepted: Instant(self.draw(1 << 31) << 30),
                expires: if self.draw(4) == 0 { Instant(self.draw(1 << 30)) } else { Instant::NEVER },
                account: self.draw(1 << 30) as u32,
                deaths: 0,
                returns: 0,
                bytes: args as u32 + 1,
            };
            let from = senders.get(self.draw(2 * senders.len() as u64) as usize).cloned();
            Posted { envelope, from, method: b"m", args: &alloc::vec![self.next as u8; args] }.into_message()
        }

        fn check(&self) {
            let expected = || self.expected.iter().map(|message| alloc::format!("{message:?}"));
            assert!(self.queue.messages().map(|message| alloc::format!("{message:?}")).eq(expected()));
            let envelopes = self.queue.envelopes().map(|envelope| (envelope.task, envelope.charge()));
            assert!(envelopes.eq(self.expected.iter().map(|message| (message.task, message.charge()))));
            let charge: u64 = self.expected.iter().map(Message::charge).sum();
            assert_eq!((self.queue.len(), self.queue.charge), (self.expected.len(), charge));
        }

        fn same(&self, one: &Option<Message>, other: &Option<Message>) {
            assert_eq!(alloc::format!("{one:?}"), alloc::format!("{other:?}"));
        }
    }

    #[test]
    fn a_packed_queue_does_what_a_list_of_messages_does() {
        let name = |n| WorkerName::new(&alloc::format!("worker {n}")).unwrap();
        let senders: Vec<_> = (0..400).map(|n| Arc::new(Identity { name: name(n), number: WorkerNumber(n) })).collect();
        for round in 0..60 {
            let mut pair = Pair { random: round, next: 1000, ..Pair::default() };
            let (deep, few) = (round % 4, 1 + (round as usize * 7) % senders.len());
            for step in 0..1500 {
                match pair.draw(20) {
                    0..=8 => {
                        let message = pair.message(&senders[..few]);
                        pair.expected.push_back(message.clone());
                        match step % 2 {
                            0 => pair.queue.push(message),
                            _ => pair.queue.post(message.posted()),
                        }
                    }
                    9..=15 if deep > 0 || step > 1000 => {
                        for _ in 0..1 + 2 * (deep == 1) as u32 {
                            let (one, other) = (pair.queue.pop(&mut Bodies::default()), pair.expected.pop_front());
                            pair.same(&one, &other);
                        }
                    }
                    16 => {
                        let task = pair.queue.skip().map(|envelope| envelope.task);
                        assert_eq!(task, pair.expected.pop_front().map(|message| message.task));
                    }
                    17 if !pair.expected.is_empty() => {
                        let first = pair.expected[0].task.0;
                        let span = pair.next - first + 4;
                        let task = MessageId(first - 2 + pair.draw(span));
                        let at = pair.expected.iter().position(|message| message.task == task);
                        assert_eq!(pair.queue.contains(task), at.is_some());
                        let (one, other) = (pair.queue.remove(task), at.and_then(|at| pair.expected.remove(at)));
                        pair.same(&one, &other);
                    }
                    18 => {
                        // What a process gives back.
                        let handed: Vec<_> = (0..3).filter_map(|_| pair.queue.pop(&mut Bodies::default())).collect();
                        for mut message in handed.into_iter().rev() {
                            message.returns += 1;
                            pair.queue.push_front(message);
                        }
                        pair.expected.iter_mut().take(3).for_each(|message| message.returns += 1);
                    }
                    _ => {}
                }
                if step % 50 == 0 {
                    pair.check();
                }
            }
            pair.check();
        }
    }

    #[test]
    fn a_message_of_64_bytes_needs_no_more_than_it_is_charged_for() {
        let most = 64 + crate::MESSAGE_OVERHEAD_BYTES as usize;
        for messages in [1, 3, 10, 50, 1000, 20_000] {
            let mut queue = Queue::default();
            for id in 1..=messages {
                queue.push(Message::new(MessageId(id), Instant(id), "count", &[0; 64]));
            }
            let memory: usize = queue
                .segments
                .iter()
                .filter_map(|segment| segment.parts().0)
                .map(|chunk| {
                    // Two blocks of memory, each with what the allocator adds.
                    size_of::<Chunk>() + chunk.capacity() + 2 * 16
                })
                .sum();
            let memory = memory + queue.segments.capacity() * size_of::<Segment>();
            // The first chunk, and the list of them, are there for one message too.
            let fixed = 150;
            assert!(memory <= messages as usize * most + fixed, "{messages} messages need {memory} bytes");
        }
    }

    #[test]
    fn an_empty_queue_keeps_little() {
        let mut queue = Queue::default();
        for id in 1..=100_000 {
            queue.push(Message::new(MessageId(id), Instant(id), "count", &[0; 64]));
        }
        while queue.pop(&mut Bodies::default()).is_some() {}
        assert!(queue.segments.capacity() <= SEGMENTS_KEPT_MAX && queue.segments.len() <= 1);
        queue.push(Message::new(MessageId(200_000), Instant(1), "m", &[0; 5000]));
        assert_eq!(queue.pop(&mut Bodies::default()).map(|message| message.task), Some(MessageId(200_000)));
        assert_eq!(queue.segments.len(), 0);
    }
}
