//! The floors: what the same bytes cost when nothing is done with them.
//!
//! `forward` copies what a client writes to its worker, and back, as it comes. `mailbox` is the least that can be
//! called a mailbox daemon: one queue per worker, so many messages sent ahead, and nothing else; no names, no limits,
//! no guarantees. Both are one epoll loop, as the supervisor is. Each has the clients that connect, in the order in
//! which they do, and as many workers, which are processes that answer each frame with itself. Without workers
//! `forward` answers itself.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};

use anyhow::ensure;

use super::words::{FIRST, FLOOR_HEADER};
use crate::sys::{self, Interest, Poller};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 64 << 10;
/// With more unwritten bytes than this for the other side, nothing more is read from this one.
const PENDING_BYTES_MAX: usize = 1 << 20;
/// The token of stdin, whose end is the daemon's.
const STDIN: u64 = u64::MAX;

/// One side: what is to be written to it, and, in a mailbox daemon, what came from it and is no whole frame.
struct Side {
    stream: UnixStream,
    out: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    interest: Interest,
}

impl Side {
    fn new(stream: UnixStream) -> io::Result<Side> {
        stream.set_nonblocking(true)?;
        let interest = Interest { read: true, write: false };
        Ok(Side { stream, out: Vec::new(), written: 0, input: Vec::new(), interest })
    }

    fn pending(&self) -> usize {
        self.out.len() - self.written
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }
}

/// What waits for a worker of the mailbox daemon.
#[derive(Default)]
struct Queue {
    messages: VecDeque<Box<[u8]>>,
    at_worker: usize,
}

/// Either daemon. Sides 2n are clients, sides 2n+1 their workers.
struct Daemon {
    poller: Poller,
    sides: Vec<Side>,
    /// How many messages are sent ahead; none where bytes are only copied.
    ahead: Option<usize>,
    queues: Vec<Queue>,
    room: Vec<u8>,
}

/// Serves until stdin ends. `ahead` makes it a mailbox daemon.
pub fn run(socket: &Path, clients: usize, workers: bool, ahead: Option<usize>) -> anyhow::Result<()> {
    let listener = UnixListener::bind(socket)?;
    let mut children = Vec::new();
    let mut behind = Vec::new();
    for _ in 0..if workers { clients } else { 0 } {
        let (ours, child) = answering_worker()?;
        behind.push(ours);
        children.push(child);
    }
    println!("ready");
    let mut daemon = Daemon {
        poller: Poller::new(256)?,
        sides: Vec::new(),
        ahead,
        queues: (0..clients).map(|_| Queue::default()).collect(),
        room: vec![0; READ_BYTES],
    };
    daemon.poller.add(io::stdin(), STDIN, Interest { read: true, write: false })?;
    let mut behind = behind.into_iter();
    for _ in 0..clients {
        daemon.watch(listener.accept()?.0)?;
        if let Some(worker) = behind.next() {
            daemon.watch(worker)?;
        }
    }
    let served = daemon.serve(workers);
    drop(daemon);
    for mut child in children {
        child.wait()?;
    }
    served
}

impl Daemon {
    fn watch(&mut self, stream: UnixStream) -> io::Result<()> {
        let side = Side::new(stream)?;
        self.poller.add(&side.stream, self.sides.len() as u64, side.interest)?;
        self.sides.push(side);
        Ok(())
    }

    fn serve(&mut self, workers: bool) -> anyhow::Result<()> {
        let mut ready = Vec::new();
        loop {
            self.poller.wait(None, &mut ready)?;
            for event in &ready {
                if event.token == STDIN {
                    return Ok(());
                }
                let from = event.token as usize;
                let to = if workers { from ^ 1 } else { from };
                if event.write {
                    self.sides[from].flush()?;
                }
                if event.read && self.sides[to].pending() < PENDING_BYTES_MAX && !self.read(from, to)? {
                    // A client that is gone is the end of the measurement; stdin's end follows.
                    self.poller.remove(&self.sides[from].stream)?;
                    continue;
                }
                self.settle(from, to)?;
            }
        }
    }

    /// Reads once and passes on; false at the end.
    fn read(&mut self, from: usize, to: usize) -> anyhow::Result<bool> {
        let read = match self.sides[from].stream.read(&mut self.room) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        match self.ahead {
            None => self.sides[to].out.extend_from_slice(&self.room[..read]),
            Some(ahead) => self.frames(from, to, read, ahead),
        }
        Ok(true)
    }

    /// From a client: into the queue. From a worker: the answer to the client. Then what may go to the worker goes.
    fn frames(&mut self, from: usize, to: usize, read: usize, ahead: usize) {
        let queue = &mut self.queues[from / 2];
        let is_client = from.is_multiple_of(2);
        let mut input = std::mem::take(&mut self.sides[from].input);
        input.extend_from_slice(&self.room[..read]);
        let mut at = 0;
        while let Some(length) = frame_length(&input[at..]).filter(|length| input.len() - at >= *length) {
            let frame = &input[at..at + length];
            match is_client {
                true => queue.messages.push_back(frame.into()),
                false => {
                    queue.at_worker -= 1;
                    self.sides[to].out.extend_from_slice(frame);
                }
            }
            at += length;
        }
        input.drain(..at);
        self.sides[from].input = input;
        let worker = if is_client { to } else { from };
        while queue.at_worker < ahead
            && let Some(message) = queue.messages.pop_front()
        {
            self.sides[worker].out.extend_from_slice(&message);
            queue.at_worker += 1;
        }
    }

    /// Writes each side once, and watches it for what it waits for.
    fn settle(&mut self, from: usize, to: usize) -> io::Result<()> {
        for (at, other) in [(to, from), (from, to)] {
            self.sides[at].flush()?;
            let read = self.sides[other].pending() < PENDING_BYTES_MAX;
            let interest = Interest { read, write: self.sides[at].pending() > 0 };
            if interest != self.sides[at].interest {
                self.sides[at].interest = interest;
                self.poller.modify(&self.sides[at].stream, at as u64, interest)?;
            }
        }
        Ok(())
    }
}

fn frame_length(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<FLOOR_HEADER>()?;
    Some(FLOOR_HEADER + u64::from_le_bytes(*header) as usize)
}

/// Starts a worker of a floor: this executable, with the other end of a connection as its stdin.
fn answering_worker() -> io::Result<(UnixStream, Child)> {
    let (ours, theirs) = UnixStream::pair()?;
    let theirs = std::os::fd::OwnedFd::from(theirs);
    let child = Command::new(std::env::current_exe()?).args([super::PART, "answer"]).stdin(theirs).spawn()?;
    Ok((ours, child))
}

/// A worker of a floor: checks the number of each frame, counts, and answers with the frame itself.
pub fn answer() -> anyhow::Result<()> {
    let mut stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (mut buffer, mut filled, mut expected) = (vec![0; READ_BYTES], 0, FIRST);
    loop {
        if filled == buffer.len() {
            buffer.resize(2 * filled, 0); // a frame that is larger
        }
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let mut at = 0;
        while let Some(length) = frame_length(&buffer[at..filled]).filter(|length| filled - at >= *length) {
            let number = buffer[at + FLOOR_HEADER..].first_chunk().map_or(0, |number| u64::from_be_bytes(*number));
            ensure!(number == expected || number == FIRST, "{number} came instead of {expected}");
            expected = number + 1;
            at += length;
        }
        stream.write_all(&buffer[..at])?;
        buffer.copy_within(at..filled, 0);
        filled -= at;
    }
}

/// A process that says one byte as soon as it can: a bare start.
pub fn first_byte() -> anyhow::Result<()> {
    UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?).write_all(b"!")?;
    Ok(())
}

/// Starts such a process and waits for its byte.
pub fn bare_start() -> anyhow::Result<Child> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let theirs = std::os::fd::OwnedFd::from(theirs);
    let child = Command::new(std::env::current_exe()?).args([super::PART, "byte"]).stdin(theirs).spawn()?;
    ours.read_exact(&mut [0])?;
    Ok(child)
}

/// For the parts that are daemons: as many descriptors as may be.
pub fn raise_descriptors() -> anyhow::Result<u64> {
    Ok(sys::raise_descriptor_limit()?)
}
