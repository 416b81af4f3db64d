//! One connection: bytes to messages and back, with bounded buffers.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::num::NonZeroU64;

use slab::Slab;
use workhall_core::{AccountId, ProcessKey, ReplyTo};
use workhall_protocol::ids::MessageId;
use workhall_protocol::messages::{Ref, Reply};
use workhall_protocol::terms::Refusal;
use workhall_protocol::wire::{Decoder, Encoding, encode};

use crate::sys::{Interest, Stream};

/// How much one turn reads from one connection, in bytes: fairness, and the size of a batch.
pub const READ_BYTES: usize = 64 << 10;
/// With more unread output than this nothing more is read from the peer, in bytes.
const OUT_PAUSE_BYTES: usize = 8 << 20;
/// With more than this the peer is given up, in bytes: it waits for many large results and reads none.
pub const OUT_BYTES_MAX: usize = 512 << 20;
/// An empty buffer larger than this is given back, in bytes.
const OUT_KEEP_BYTES: usize = 256 << 10;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Somebody who connected to the socket.
    Client,
    /// A process that the supervisor started; known from the connection, not from what it says.
    Worker {
        /// Which life.
        process: ProcessKey,
        /// Its place among the processes.
        slot: usize,
    },
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    /// Its serial number, unique among all connections of this supervisor, above its place: so the core's
    /// answers find it without a look-up.
    pub key: NonZeroU64,
    /// Who is there.
    pub peer: Peer,
    /// What came and is not handled.
    pub decoder: Decoder,
    /// Why the last chained call was refused, if it was.
    pub chain_broken: Option<Refusal>,
    /// The stream is beyond repair: it ends once the output is written.
    pub closing: bool,
    /// The peer will say nothing more, but may still read.
    pub half_closed: bool,
    /// How many requests wait for an outcome or a late receipt.
    pub awaited: usize,
    /// A worker has said `ready`.
    pub greeted: bool,
    /// How it is spoken to; JSON until the peer has said its first byte.
    pub encoding: Encoding,
    /// It stands in the list of connections to be written this turn.
    pub dirty: bool,
    stream: Stream,
    out: Vec<u8>,
    written: usize,
    /// Tasks that are not written whole, and how many bytes there are to write, from the connection's start,
    /// until they are.
    unwritten_tasks: VecDeque<(MessageId, u64)>,
    /// Bytes written since the connection's start.
    sent: u64,
    interest: Interest,
    /// References that are no small numbers, while something is to be answered to them.
    refs: Slab<Ref>,
}

/// Tokens with this bit are places in `refs`.
const REF_BIT: u64 = 1 << 63;
/// Tokens with this bit get a receipt and then an outcome.
const MORE_BIT: u64 = 1 << 62;

impl Connection {
    /// A new one; watched for reading.
    pub fn new(key: NonZeroU64, stream: Stream, peer: Peer) -> Connection {
        Connection {
            key,
            peer,
            decoder: Decoder::default(),
            chain_broken: None,
            closing: false,
            half_closed: false,
            awaited: 0,
            greeted: false,
            encoding: Encoding::Json,
            dirty: false,
            stream,
            out: Vec::new(),
            written: 0,
            unwritten_tasks: VecDeque::new(),
            sent: 0,
            interest: Interest { read: true, write: false },
            refs: Slab::new(),
        }
    }

    /// Who is charged for what is posted here: clients and workers apart, so that neither can use up the other's.
    pub fn account(&self) -> AccountId {
        match self.peer {
            Peer::Client => AccountId(0),
            Peer::Worker { .. } => AccountId(1 << 32),
        }
    }

    /// The upper half of the key.
    pub fn serial(&self) -> u64 {
        self.key.get() >> 32
    }

    /// The descriptor.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Reads once. `Ok(0)` is the end; `WouldBlock` that there is nothing.
    pub fn read(&mut self) -> io::Result<usize> {
        let mut stream = &self.stream;
        loop {
            match self.decoder.fill(READ_BYTES, |room| stream.read(room)) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Appends a message to the output. The error says why it cannot be said; nothing was appended.
    pub fn say(&mut self, reply: &Reply<'_>) -> Result<(), String> {
        encode(reply, self.encoding, &mut self.out).map_err(|error| error.to_string())
    }

    /// The same for a task, whose way is followed.
    pub fn say_task(&mut self, task: &Reply<'_>, id: MessageId) -> Result<(), String> {
        self.say(task)?;
        self.unwritten_tasks.push_back((id, self.sent + self.unwritten() as u64));
        Ok(())
    }

    /// The first task of which the peer has not been sent all.
    pub fn first_unwritten_task(&self) -> Option<MessageId> {
        self.unwritten_tasks.front().map(|(id, _)| *id)
    }

    /// Writes as much as goes. An error means that the peer is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        let written = self.write();
        while self.unwritten_tasks.front().is_some_and(|(_, end)| *end <= self.sent) {
            self.unwritten_tasks.pop_front();
        }
        written
    }

    fn write(&mut self) -> io::Result<()> {
        let mut stream = &self.stream;
        while self.written < self.out.len() {
            match stream.write(&self.out[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.written += count;
                    self.sent += count as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if self.unwritten() > OUT_BYTES_MAX {
                        return Err(io::Error::other("the peer does not read its answers"));
                    }
                    if self.written > OUT_KEEP_BYTES {
                        self.out.drain(..self.written);
                        self.written = 0;
                    }
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
        }
        self.written = 0;
        self.out.clear();
        if self.out.capacity() > OUT_KEEP_BYTES {
            self.out = Vec::new();
        }
        Ok(())
    }

    /// Forgets what is not written: nobody will read it.
    pub fn drop_output(&mut self) {
        self.out = Vec::new();
        self.written = 0;
    }

    /// Bytes that wait to be written.
    pub fn unwritten(&self) -> usize {
        self.out.len() - self.written
    }

    /// What it is to be watched for now, if that has changed.
    pub fn new_interest(&mut self) -> Option<Interest> {
        let unwritten = self.unwritten();
        let read = unwritten <= OUT_PAUSE_BYTES && !self.closing && !self.half_closed;
        let wanted = Interest { read, write: unwritten > 0 };
        (wanted != self.interest).then(|| {
            self.interest = wanted;
            wanted
        })
    }

    /// Where the answers to a request of this connection go. `more`: a receipt comes this way and an
    /// outcome after it, not just one of them.
    pub fn reply_to(&mut self, reference: &Ref, more: bool) -> ReplyTo {
        self.awaited += 1;
        let token = match reference {
            Ref::Number(number) if number & (REF_BIT | MORE_BIT) == 0 => *number,
            other => self.refs.insert(other.clone()) as u64 | REF_BIT,
        };
        ReplyTo { connection: self.key, token: if more { token | MORE_BIT } else { token } }
    }

    /// The reference behind a token, for a receipt.
    pub fn receipt_reference(&mut self, token: u64) -> Option<Ref> {
        match token & MORE_BIT != 0 && token & REF_BIT != 0 {
            true => self.refs.get((token & !(REF_BIT | MORE_BIT)) as usize).cloned(),
            false if token & MORE_BIT != 0 => Some(Ref::Number(token & !MORE_BIT)),
            false => self.outcome_reference(token),
        }
    }

    /// The reference behind a token, for an outcome: the last that is said to it.
    pub fn outcome_reference(&mut self, token: u64) -> Option<Ref> {
        self.awaited = self.awaited.saturating_sub(1);
        let number = token & !(REF_BIT | MORE_BIT);
        match token & REF_BIT {
            0 => Some(Ref::Number(number)),
            _ => self.refs.try_remove(number as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d02_a_task_is_unwritten_until_its_last_byte_is_written() {
        use std::borrow::Cow;
        use workhall_protocol::args::Payload;
        use workhall_protocol::messages::Task;
        let (ours, theirs) = crate::sys::stream_pair().unwrap();
        let mut theirs = Stream::from(theirs);
        let mut connection = Connection::new(NonZeroU64::MIN, ours, Peer::Client);
        let text = Payload::encode(&["x".repeat(1 << 20)]).unwrap();
        for id in 1..=3 {
            let (method, args) = (Cow::Borrowed("m"), Payload(Cow::Borrowed(&*text.0)));
            let task = Reply::Task(Task { id, method, args, from: None, wait: false });
            connection.say_task(&task, MessageId(id)).unwrap();
        }
        let mut first = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while connection.unwritten() > 0 {
            connection.flush().unwrap();
            first.extend(connection.first_unwritten_task());
            let _read = theirs.read(&mut buffer).unwrap();
        }
        first.dedup();
        assert_eq!(first, [MessageId(1), MessageId(2), MessageId(3)]);
        assert_eq!(connection.first_unwritten_task(), None);
        // What is said beside does not count; what is forgotten was not written.
        connection.say(&Reply::Kill(Default::default())).unwrap();
        assert_eq!(connection.first_unwritten_task(), None);
        let task = Task { id: 4, method: Cow::Borrowed("m"), args: Payload::no_args(), from: None, wait: false };
        connection.say_task(&Reply::Task(task), MessageId(4)).unwrap();
        connection.drop_output();
        assert_eq!(connection.first_unwritten_task(), Some(MessageId(4)));
    }

    #[test]
    fn every_reference_comes_back_and_leaves_nothing_behind() {
        let (ours, _theirs) = crate::sys::stream_pair().unwrap();
        let mut connection = Connection::new(NonZeroU64::MIN, ours, Peer::Client);
        for reference in [Ref::Number(0), Ref::Number(1 << 62), Ref::Number(u64::MAX), Ref::Text("x".into())] {
            let call = connection.reply_to(&reference, false);
            assert_eq!(connection.outcome_reference(call.token), Some(reference.clone()));
            let kill = connection.reply_to(&reference, true);
            assert_eq!(connection.receipt_reference(kill.token), Some(reference.clone()));
            assert_eq!(connection.outcome_reference(kill.token), Some(reference.clone()));
            assert!(connection.refs.is_empty() && connection.awaited == 0, "{reference:?}");
        }
    }
}
