//! One connection: bytes to messages and back, with bounded buffers.

use std::io::{self, Read as _, Write as _};
use std::num::NonZeroU64;

use slab::Slab;
use workhall_core::{ProcessKey, ReplyTo};
use workhall_protocol::messages::{Ref, Reply};
use workhall_protocol::wire::{Decoder, Encoding, encode};

use crate::sys::{Interest, Stream};

/// How much one turn reads from one connection, in bytes: fairness, and the size of a batch.
pub const READ_BYTES: usize = 64 << 10;
/// With more unread output than this nothing more is read from the peer, in bytes.
const OUT_PAUSE_BYTES: usize = 8 << 20;
/// With more than this the peer is given up, in bytes: it waits for answers and does not read them.
const OUT_BYTES_MAX: usize = 64 << 20;
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
    /// The last chained call was refused.
    pub chain_broken: bool,
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
    /// Something that was said to the peer could not be written any more.
    pub lost_output: bool,
    /// It stands in the list of connections to be written this turn.
    pub dirty: bool,
    stream: Stream,
    out: Vec<u8>,
    written: usize,
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
            chain_broken: false,
            closing: false,
            half_closed: false,
            awaited: 0,
            greeted: false,
            encoding: Encoding::Json,
            lost_output: false,
            dirty: false,
            stream,
            out: Vec::new(),
            written: 0,
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

    /// Writes as much as goes. An error means that the peer is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut stream = &self.stream;
        while self.written < self.out.len() {
            match stream.write(&self.out[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
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
        self.lost_output |= self.unwritten() > 0;
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
