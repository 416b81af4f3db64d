//! Messages as bytes, one behind the other.
//!
//! A message in a chunk is a block: what each has, then what only some have, then method and arguments.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU64;
use core::ops::Range;

use workhall_protocol::ids::MessageId;

use crate::event::ReplyTo;
use crate::mailbox::{Envelope, Identity, Message, Posted};
use crate::time::Instant;

/// The most bytes of a chunk: so many that what it needs for itself is little beside them, so few that one message is soon
/// found among them.
const CHUNK_BYTES_MAX: usize = 4 << 10;
/// The most bytes of method and arguments of a message in a chunk: a longer one would leave much of a chunk empty, and
/// copying it would cost more than packing gains.
pub(crate) const PACKED_BYTES_MAX: usize = 512;
/// The most senders of one chunk: a block names its sender with one byte.
const SENDERS_MAX: usize = 1 << 8;

const _: () = assert!(PACKED_BYTES_MAX <= u16::MAX as usize && BLOCK_BYTES_MAX <= CHUNK_BYTES_MAX);

#[derive(Clone, Debug, Default)]
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    /// Where the first message begins: those before it were handed over.
    start: usize,
    /// Who has sent them, as far as they were workers.
    senders: Vec<Arc<Identity>>,
}

impl Chunk {
    /// Whether a message is one for a chunk. What a process has given back is not: few are, and more is to be known of
    /// them.
    pub fn takes(posted: &Posted<'_>) -> bool {
        let Envelope { deaths, returns, .. } = posted.envelope;
        posted.bytes() <= PACKED_BYTES_MAX && deaths == 0 && returns == 0
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// What is to be known of the first message.
    #[inline]
    pub fn first(&self) -> Envelope {
        Block::read(&self.bytes[self.start..]).envelope
    }

    /// Puts a message to the end, unless the chunk is full. `ahead`: how many bytes more to make room for.
    pub fn push(&mut self, posted: &Posted<'_>, ahead: usize) -> bool {
        let sender = match &posted.from {
            None => None,
            Some(from) => {
                let known = self.senders.iter().rposition(|sender| Arc::ptr_eq(sender, from));
                if known.is_none() && self.senders.len() == SENDERS_MAX {
                    return false;
                }
                Some(known.unwrap_or(self.senders.len()))
            }
        };
        if !self.make_room(Block::size(&posted.envelope, sender.is_some()), ahead) {
            return false;
        }
        if let (Some(from), Some(sender)) = (&posted.from, sender)
            && sender == self.senders.len()
        {
            self.senders.push(from.clone());
        }
        Block::write(&mut self.bytes, posted, sender.map(|sender| sender as u8));
        true
    }

    fn make_room(&mut self, size: usize, ahead: usize) -> bool {
        if self.bytes.len() + size <= self.bytes.capacity() {
            return true;
        }
        if self.start >= self.bytes.len() / 2 {
            // Half of it was handed over: moving the rest is cheaper than more memory.
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let needed = self.bytes.len() + size;
        if needed <= self.bytes.capacity() {
            return true;
        }
        if needed > CHUNK_BYTES_MAX {
            return false;
        }
        let room = (self.bytes.len() + ahead).clamp(needed, CHUNK_BYTES_MAX);
        self.bytes.reserve_exact(room - self.bytes.len());
        true
    }

    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub fn blocks(&self) -> impl Iterator<Item = (usize, Block<'_>)> {
        let mut at = self.start;
        core::iter::from_fn(move || {
            let bytes = self.bytes.get(at..).filter(|bytes| !bytes.is_empty())?;
            let block = Block::read(bytes);
            let found = (at, block);
            at += found.1.size;
            Some(found)
        })
    }

    pub fn envelope(&self, task: MessageId) -> Option<Envelope> {
        self.blocks().map(|(_, block)| block.envelope).find(|envelope| envelope.task == task)
    }

    pub fn find(&self, task: MessageId) -> Option<Range<usize>> {
        let (at, block) = self.blocks().find(|(_, block)| block.envelope.task >= task)?;
        (block.envelope.task == task).then_some(at..at + block.size)
    }

    pub fn message_at(&self, at: usize) -> Message {
        self.message(Block::read(&self.bytes[at..]), Vec::new())
    }

    fn message(&self, block: Block<'_>, body: Vec<u8>) -> Message {
        let Block { envelope, sender, method, args, .. } = block;
        let from = sender.map(|sender| self.senders[usize::from(sender)].clone());
        Posted { envelope, from, method, args }.into_message_in(body)
    }

    /// The first message, in this memory.
    pub fn pop(&mut self, body: Vec<u8>) -> Message {
        let block = Block::read(&self.bytes[self.start..]);
        let size = block.size;
        let message = self.message(block, body);
        self.start += size;
        message
    }

    pub fn skip_first(&mut self) {
        self.start += Block::read(&self.bytes[self.start..]).size;
    }

    pub fn remove(&mut self, block: Range<usize>) {
        if block.start == self.start {
            self.start = block.end;
            return;
        }
        self.bytes.drain(block);
        if self.bytes.len() < self.bytes.capacity() / 2 {
            self.bytes.shrink_to_fit();
        }
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
        self.senders.clear();
    }
}

/// One message in a chunk.
pub(crate) struct Block<'a> {
    pub envelope: Envelope,
    sender: Option<u8>,
    method: &'a [u8],
    args: &'a [u8],
    size: usize,
}

// What only some blocks have.
const HAS_ID: u8 = 1;
const HAS_EXPIRES: u8 = 2;
const HAS_REPLY: u8 = 4;
const HAS_SENDER: u8 = 8;
/// What each has: which of the rest, the bytes of the method and of both, account, task, when it was accepted.
const HEAD_BYTES: usize = 1 + 2 + 2 + 4 + 8 + 8;
const BLOCK_BYTES_MAX: usize = HEAD_BYTES + 8 + 8 + 16 + 1 + PACKED_BYTES_MAX;

impl<'a> Block<'a> {
    fn size(envelope: &Envelope, has_sender: bool) -> usize {
        let Envelope { id, task, expires, reply, bytes, .. } = envelope;
        HEAD_BYTES
            + if id != task { 8 } else { 0 }
            + if *expires != Instant::NEVER { 8 } else { 0 }
            + if reply.is_some() { 16 } else { 0 }
            + usize::from(has_sender)
            + *bytes as usize
    }

    fn write(to: &mut Vec<u8>, posted: &Posted<'_>, sender: Option<u8>) {
        let Envelope { id, task, reply, accepted, expires, account, .. } = posted.envelope;
        let flag = |bit: u8, is: bool| if is { bit } else { 0 };
        let flags = flag(HAS_ID, id != task)
            | flag(HAS_EXPIRES, expires != Instant::NEVER)
            | flag(HAS_REPLY, reply.is_some())
            | flag(HAS_SENDER, sender.is_some());
        let mut head = [0; HEAD_BYTES];
        head[0] = flags;
        head[1..3].copy_from_slice(&(posted.method.len() as u16).to_le_bytes());
        head[3..5].copy_from_slice(&(posted.bytes() as u16).to_le_bytes());
        head[5..9].copy_from_slice(&account.to_le_bytes());
        head[9..17].copy_from_slice(&task.0.to_le_bytes());
        head[17..25].copy_from_slice(&accepted.0.to_le_bytes());
        to.extend_from_slice(&head);
        if flags & HAS_ID != 0 {
            to.extend_from_slice(&id.0.to_le_bytes());
        }
        if flags & HAS_EXPIRES != 0 {
            to.extend_from_slice(&expires.0.to_le_bytes());
        }
        if let Some(ReplyTo { connection, token }) = reply {
            to.extend_from_slice(&connection.get().to_le_bytes());
            to.extend_from_slice(&token.to_le_bytes());
        }
        to.extend(sender);
        to.extend_from_slice(posted.method);
        to.extend_from_slice(posted.args);
    }

    /// The block at the start of `bytes`, which a chunk has written.
    #[inline]
    fn read(bytes: &'a [u8]) -> Block<'a> {
        let all = bytes.len();
        let (head, mut rest) = bytes.split_first_chunk::<HEAD_BYTES>().expect("a block has a head");
        let flags = head[0];
        let method_bytes = usize::from(u16::from_le_bytes([head[1], head[2]]));
        let body_bytes = u16::from_le_bytes([head[3], head[4]]);
        let mut head = &head[5..];
        let account = u32::from_le_bytes(take(&mut head));
        let task = MessageId(u64::from_le_bytes(take(&mut head)));
        let accepted = Instant(u64::from_le_bytes(take(&mut head)));
        let has = |bit: u8| flags & bit != 0;
        let id = if has(HAS_ID) { MessageId(u64::from_le_bytes(take(&mut rest))) } else { task };
        let expires = if has(HAS_EXPIRES) { Instant(u64::from_le_bytes(take(&mut rest))) } else { Instant::NEVER };
        let reply = has(HAS_REPLY).then(|| {
            let connection = NonZeroU64::new(u64::from_le_bytes(take(&mut rest))).expect("it was not 0");
            ReplyTo { connection, token: u64::from_le_bytes(take(&mut rest)) }
        });
        let sender = has(HAS_SENDER).then(|| u8::from_le_bytes(take(&mut rest)));
        let (body, rest) = rest.split_at(body_bytes.into());
        let (method, args) = body.split_at(method_bytes);
        let bytes = body_bytes.into();
        let envelope = Envelope { id, task, reply, accepted, expires, account, deaths: 0, returns: 0, bytes };
        Block { envelope, sender, method, args, size: all - rest.len() }
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (taken, rest) = bytes.split_first_chunk().expect("a block is whole");
    *bytes = rest;
    *taken
}
