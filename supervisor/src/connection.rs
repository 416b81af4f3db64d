//! One connection: bytes to messages and back, with bounded buffers.

mod carried;

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use slab::Slab;
use workhall_core::{ProcessKey, ReplyTo};
use workhall_protocol::ids::MessageId;
use workhall_protocol::messages::{Ref, Reply};
use workhall_protocol::terms::Refusal;
use workhall_protocol::wire::{Decoder, Encoding, encode};

use crate::access::{Account, Creds};
use crate::accounts::Charge;
use crate::questions::Question;
use crate::sys::{Interest, Stream};

pub use carried::Carried;

/// How much one turn reads from one connection, in bytes: fairness, and the size of a batch.
pub const READ_BYTES: usize = 64 << 10;
/// With more unread output than this nothing more is taken from a client, in bytes: what it asks then stays
/// where it is.
const OUT_PAUSE_BYTES: usize = 8 << 20;
/// So much output, in bytes, one turn makes for one client; the rest of what it has asked is for the next
/// turn. A thousand that ask for much at once must not fill the memory before the first of them is written to.
const OUT_TURN_BYTES: usize = 128 << 10;
/// The most questions of one connection that wait for the end of the turn. An answer may be large: a client's
/// further questions stay unread meanwhile, a worker's are refused.
pub const QUESTIONS_MAX: usize = 16;
/// So many empty buffers up to this size, in bytes, serve other connections next.
const OUT_LARGE_SPARE_BYTES: usize = 256 << 10;
const OUT_LARGE_SPARES_MAX: usize = 16;
/// And more up to this size, until there are so many in all: enough for what one turn writes of small messages. All
/// others are given back.
const OUT_SPARE_BYTES: usize = 16 << 10;
const OUT_SPARES_MAX: usize = 128;
/// So many written bytes are left at the front of the output at least, before the rest is moved down.
const OUT_WRITTEN_BYTES: usize = 256 << 10;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Peer {
    /// Somebody who connected to the socket; the kernel says who.
    Client(Creds),
    /// A process that the supervisor started; known from the connection, not from what it says.
    Worker {
        /// Which life.
        process: ProcessKey,
        /// Its place among the processes.
        slot: usize,
        /// As whom it runs.
        creds: Creds,
    },
    /// Somebody who connected to the socket, and has attached as a worker (rule P2).
    Attached {
        /// Its one life.
        process: ProcessKey,
        /// Who it is to the kernel.
        creds: Creds,
    },
}

impl Peer {
    /// As whom it calls and kills.
    pub fn creds(&self) -> Creds {
        match self {
            Peer::Client(creds) | Peer::Worker { creds, .. } | Peer::Attached { creds, .. } => *creds,
        }
    }

    /// On whose account it does. Who attaches stays on that of its user: else one could have as many as names.
    pub fn account(&self) -> Account {
        match self {
            Peer::Client(creds) | Peer::Attached { creds, .. } => Account::of_user(creds.uid),
            Peer::Worker { process, .. } => Account::of_worker(process.number),
        }
    }

    /// Somebody who connected to the socket, and is no worker.
    pub fn is_client(&self) -> bool {
        matches!(self, Peer::Client(_))
    }

    /// Somebody who connected to the socket, and is counted among those.
    pub fn has_connected(&self) -> bool {
        !matches!(self, Peer::Worker { .. })
    }

    /// The life of the worker that it is.
    pub fn process(&self) -> Option<ProcessKey> {
        match self {
            Peer::Client(_) => None,
            Peer::Worker { process, .. } | Peer::Attached { process, .. } => Some(*process),
        }
    }
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
    /// Brief calls that were accepted and not told of yet, and the reference of the last.
    pub accepted: u64,
    /// See there.
    pub accepted_last: Option<Ref>,
    /// The stream is beyond repair: it ends once the output is written.
    pub closing: bool,
    /// The peer will say nothing more, but may still read.
    pub half_closed: bool,
    /// How many requests wait for an outcome or a late receipt.
    pub awaited: usize,
    /// How many of them are waits for a state of a worker.
    pub waits: usize,
    /// Asked, to be answered at the end of the turn.
    pub questions: VecDeque<Question>,
    /// There may be messages in the decoder whose turn has not come.
    pub stalled: bool,
    /// Nothing is read from it until others of its user have finished what they began.
    pub held_back: bool,
    /// What its account was charged for it.
    pub charged: Charge,
    /// A worker has said `ready`.
    pub greeted: bool,
    /// How it is spoken to; JSON until the peer has said its first byte.
    pub encoding: Encoding,
    /// It stands in the list of connections to be written this turn.
    pub dirty: bool,
    stream: Stream,
    out: Vec<u8>,
    written: usize,
    /// Tasks that are not written whole, how many bytes there are to write, from the connection's start,
    /// until they are, and how long each is.
    unwritten_tasks: VecDeque<(MessageId, u64, usize)>,
    /// The sum of the last.
    task_bytes: usize,
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
            accepted: 0,
            accepted_last: None,
            closing: false,
            half_closed: false,
            awaited: 0,
            waits: 0,
            questions: VecDeque::new(),
            stalled: false,
            held_back: false,
            charged: Charge::default(),
            greeted: false,
            encoding: Encoding::Json,
            dirty: false,
            stream,
            out: Vec::new(),
            written: 0,
            unwritten_tasks: VecDeque::new(),
            task_bytes: 0,
            sent: 0,
            interest: Interest { read: true, write: false },
            refs: Slab::new(),
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

    /// What it holds.
    pub fn charge(&self) -> Charge {
        Charge {
            // Tasks are charged to the mailboxes that they come from.
            unread: self.out.len().saturating_sub(self.task_bytes),
            unfinished: self.decoder.buffered(),
            awaited: self.awaited,
            waits: self.waits,
        }
    }

    /// Reads once, at most `bytes` bytes, through memory that all connections share: the decoder gives it back when
    /// what was read is handled. `Ok(0)` is the end; `WouldBlock` that there is nothing.
    pub fn read(&mut self, shared: &mut Vec<u8>, bytes: usize) -> io::Result<usize> {
        let mut stream = &self.stream;
        loop {
            match self.decoder.fill_through(shared, bytes, |room| stream.read(room)) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Whether more of what it has asked may be taken up, in a turn that found it with so many bytes unwritten.
    /// A worker's is always: what it has settled counts from when it was written.
    pub fn may_ask(&self, before: usize) -> bool {
        let in_turn = self.questions.len() < QUESTIONS_MAX && self.unwritten() <= before + OUT_TURN_BYTES;
        !self.peer.is_client() || in_turn && self.has_read_enough()
    }

    /// Whether it may be told more.
    pub fn has_read_enough(&self) -> bool {
        !self.peer.is_client() || self.unwritten() <= OUT_PAUSE_BYTES
    }

    /// Its next question, unless it has much to read first.
    pub fn next_question(&mut self) -> Option<Question> {
        match self.has_read_enough() {
            true => self.questions.pop_front(),
            false => None,
        }
    }

    /// Appends a message to the output. The error says why it cannot be said; nothing was appended.
    pub fn say(&mut self, reply: &Reply<'_>) -> Result<(), String> {
        encode(reply, self.encoding, &mut self.out).map_err(|error| error.to_string())
    }

    /// The same for a task, whose way is followed.
    pub fn say_task(&mut self, task: &Reply<'_>, id: MessageId) -> Result<(), String> {
        let before = self.out.len();
        self.say(task)?;
        let bytes = self.out.len() - before;
        self.task_bytes += bytes;
        self.unwritten_tasks.push_back((id, self.sent + self.unwritten() as u64, bytes));
        Ok(())
    }

    /// The first task of which the peer has not been sent all.
    pub fn first_unwritten_task(&self) -> Option<MessageId> {
        self.unwritten_tasks.front().map(|(id, ..)| *id)
    }

    /// Takes an empty buffer for what it is about to say: most connections are silent for long, and have none of
    /// their own.
    pub fn take_spare(&mut self, spares: &mut Vec<Vec<u8>>) {
        if self.out.capacity() == 0
            && let Some(spare) = spares.pop()
        {
            self.out = spare;
        }
    }

    /// Writes as much as goes, and gives an empty buffer to `spares`. An error means that the peer is gone.
    pub fn flush(&mut self, spares: &mut Vec<Vec<u8>>) -> io::Result<()> {
        let written = self.write();
        if self.out.is_empty() {
            let spare = std::mem::take(&mut self.out);
            let most = match spares.len() {
                ..OUT_LARGE_SPARES_MAX => OUT_LARGE_SPARE_BYTES,
                OUT_LARGE_SPARES_MAX..OUT_SPARES_MAX => OUT_SPARE_BYTES,
                OUT_SPARES_MAX.. => 0,
            };
            if (1..=most).contains(&spare.capacity()) {
                spares.push(spare);
            }
        }
        while let Some((_, _, bytes)) = self.unwritten_tasks.pop_front_if(|(_, end, _)| *end <= self.sent) {
            self.task_bytes -= bytes;
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
                    // Only where at most as much is moved as was written: else a slow reader of much would cost
                    // more and more.
                    if self.written > OUT_WRITTEN_BYTES && self.written >= self.unwritten() {
                        self.out.drain(..self.written);
                        self.written = 0;
                        self.out.shrink_to(2 * self.out.len());
                    }
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
        }
        self.written = 0;
        self.out.clear();
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
        let full = unwritten > OUT_PAUSE_BYTES || self.stalled || self.held_back;
        let read = !full && !self.closing && !self.half_closed;
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

    const CLIENT: Peer = Peer::Client(Creds { pid: 1, uid: 1, gid: 1 });

    #[test]
    fn d02_a_task_is_unwritten_until_its_last_byte_is_written() {
        use std::borrow::Cow;
        use workhall_protocol::args::Payload;
        use workhall_protocol::messages::Task;
        let (ours, theirs) = crate::sys::stream_pair().unwrap();
        let mut theirs = Stream::from(theirs);
        let mut connection = Connection::new(NonZeroU64::MIN, ours, CLIENT);
        let text = Payload::encode(&["x".repeat(1 << 20)]).unwrap();
        for id in 1..=3 {
            let (method, args) = (Cow::Borrowed("m"), Payload(Cow::Borrowed(&*text.0)));
            let task = Reply::Task(Task { id, method, args, from: None, wait: false });
            connection.say_task(&task, MessageId(id)).unwrap();
        }
        let mut first = Vec::new();
        let mut spares = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while connection.unwritten() > 0 {
            connection.flush(&mut spares).unwrap();
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
        let mut connection = Connection::new(NonZeroU64::MIN, ours, CLIENT);
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
