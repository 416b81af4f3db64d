//! What workers write on stdout and stderr: read in the event loop, line by line.
//!
//! Each has two pipes of its own. A pipe breaks when its last reader goes, and whoever writes to it then dies of SIGPIPE,
//! in the middle of a task that was to be finished although the supervisor is gone (rule D7). So the end that a worker
//! inherits is open for reading too: as long as anybody can write there is a reader, whatever becomes of the supervisor.
//! Nothing needs to be kept open for it beside stdout and stderr themselves, no signal is ignored that
//! programs expect, `/dev/stdout` can be opened as ever (a socket cannot), and nobody ever reads there. After the
//! supervisor's death what is written fills the pipe (64 KiB of each stream, as a rule). Who writes more then waits, and
//! keeps its name; so the next supervisor reads on, as soon as it wants the name. A file in memory would need nobody who
//! reads, but has no bound while the supervisor lives either; a process that reads on would be one more to be watched.
//!
//! Of each pipe little is read in a turn, so who writes without an end is slowed down to what all have, and holds up
//! nobody. At the end of a process everything that it wrote is read before its end is known to anybody.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt as _;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use workhall_core::ProcessKey;

use crate::clock::Clock;
use crate::event_loop::EventLoop;
use crate::journal::{Line, Splitter, Stream};
use crate::name_lock::Noted;
use crate::process_tree::is_stopped;
use crate::sys::{self, Interest};
use crate::token::{SERIAL_MASK, Token};

/// How much one turn reads from one pipe, in bytes.
const READ_BYTES: usize = 8 << 10;
/// With more lines than this in one read the next one is shorter: each line costs, however short it is.
const LINES_TURN: usize = 128;
/// But no shorter than this, in bytes.
const READ_BYTES_MIN: usize = 256;
/// The same of a process of an earlier supervisor, each time that its name is asked for: what a pipe holds as a rule.
const EARLIER_READS_MAX: usize = 8;

const READ: Interest = Interest { read: true, write: false };

/// The pipes of one process, while anybody may write to them: stdout and stderr.
pub(crate) type Outputs = [Option<Output>; 2];

/// One of them.
#[derive(Debug)]
pub(crate) struct Output {
    pipe: File,
    splitter: Splitter,
    /// How much one turn reads, in bytes.
    room: usize,
}

impl Output {
    /// Ours of a pipe.
    pub fn new(pipe: File) -> Output {
        Output { pipe, splitter: Splitter::default(), room: READ_BYTES }
    }
}

/// What of it goes to the next program of this supervisor. Fields are only ever added, with a default.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CarriedOutput {
    pub pipe: RawFd,
    /// The beginning of a line.
    pub rest: ByteBuf,
}

impl Output {
    /// All that the next program needs to go on.
    pub fn carried(&self) -> CarriedOutput {
        CarriedOutput { pipe: sys::number(&self.pipe), rest: ByteBuf::from(self.splitter.rest()) }
    }

    /// Goes on with it.
    pub fn again(pipe: File, rest: ByteBuf) -> Output {
        Output { splitter: Splitter::again(rest.into_vec()), ..Output::new(pipe) }
    }

    /// Its descriptor.
    pub fn pipe(&self) -> &File {
        &self.pipe
    }

    /// What the kernel knows the pipe by, at both ends.
    pub fn inode(&self) -> u64 {
        inode_of(&self.pipe)
    }
}

fn inode_of(pipe: &File) -> u64 {
    pipe.metadata().map_or(0, |meta| meta.ino())
}

impl EventLoop {
    /// Watches what a process writes.
    pub(crate) fn watch_outputs(&self, slot: usize) -> io::Result<()> {
        let process = &self.processes[slot];
        for stream in Stream::BOTH {
            if let Some(output) = &process.outputs[stream as usize] {
                let token = Token::Output { slot, stderr: stream == Stream::Stderr, serial: process.serial };
                self.poller.add(&output.pipe, token.pack(), READ)?;
            }
        }
        Ok(())
    }

    /// There is something to read.
    pub(crate) fn output_readable(&mut self, slot: usize, serial: u64, stderr: bool) {
        if self.processes.get(slot).is_some_and(|process| process.serial & SERIAL_MASK == serial) {
            let stream = if stderr { Stream::Stderr } else { Stream::Stdout };
            let Some(output) = &self.processes[slot].outputs[stream as usize] else { return };
            self.read_output(slot, stream, output.room);
        }
    }

    /// Reads what the processes of a name, or all, have written so far.
    pub(crate) fn read_outputs(&mut self, name: Option<&str>) {
        let wanted = |key: ProcessKey| name.is_none_or(|name| self.core.name(key).is_some_and(|own| **own == *name));
        let slots: Vec<usize> =
            self.processes.iter().filter(|(_, process)| wanted(process.key)).map(|(slot, _)| slot).collect();
        for slot in slots {
            self.read_whole_output(slot);
        }
    }

    /// Reads all that a process, or what it left behind, has written until now. Who goes on writing keeps nobody by it.
    fn read_whole_output(&mut self, slot: usize) {
        for stream in Stream::BOTH {
            let Some(output) = &self.processes[slot].outputs[stream as usize] else { continue };
            let mut there = sys::readable_bytes(&output.pipe);
            while there > 0 {
                match self.read_output(slot, stream, there.min(READ_BYTES)) {
                    0 => break,
                    count => there = there.saturating_sub(count),
                }
            }
        }
    }

    /// The same when it has ended: the line that it had begun is a line too.
    pub(crate) fn end_output(&mut self, slot: usize) {
        self.read_whole_output(slot);
        for stream in Stream::BOTH {
            let Some(output) = &mut self.processes[slot].outputs[stream as usize] else { continue };
            let mut rest = Vec::new();
            output.splitter.end(|text, cut| rest.push((String::from_utf8_lossy(text).into(), cut)));
            self.write_down(slot, stream, rest);
        }
    }

    /// Sees that a process of an earlier supervisor that keeps this name comes to its end: reads what it writes, because in
    /// a full pipe it would wait for ever, and the name with it; and one that is stopped is continued.
    pub(crate) fn look_after_earlier(&mut self, key: ProcessKey) {
        let (Some(name), Some(policy)) = (self.core.name(key), self.core.policy(key)) else { return };
        let Some(Noted { pid, pipes }) = self.names.noted(name) else { return };
        if is_stopped(pid) {
            sys::resume(pid);
        }
        for ((stream, number), inode) in Stream::BOTH.into_iter().zip([1, 2]).zip(pipes) {
            // What it has put in the place of ours has another reader.
            let is_ours = |pipe: &File| inode_of(pipe) == inode;
            let Some(mut pipe) = sys::open_pipe_of(pid, number).filter(is_ours) else { continue };
            let (mut splitter, mut room, mut lines) = (Splitter::default(), [0; READ_BYTES], Vec::new());
            let mut each = |text: &[u8], cut| {
                let (at_ms, text) = (Clock::wall_ms(), String::from_utf8_lossy(text).into());
                // Its own numbers were another supervisor's.
                lines.push(Line { at_ms, number: 0, generation: 0, class: policy.into(), stream, cut, text });
            };
            for _ in 0..EARLIER_READS_MAX {
                match pipe.read(&mut room) {
                    Ok(count) if count > 0 => splitter.take_in(&room[..count], self.journal.line_bytes, &mut each),
                    _ => break,
                }
            }
            splitter.end(&mut each);
            self.journal.write(name, lines);
        }
    }

    /// Reads once, at most so many bytes. Returns how many there were.
    fn read_output(&mut self, slot: usize, stream: Stream, most: usize) -> usize {
        // What is shared may be lent to a connection whose request has brought us here.
        let mut room = [0; READ_BYTES];
        let Some(output) = &mut self.processes[slot].outputs[stream as usize] else { return 0 };
        let mut lines: Vec<(Box<str>, bool)> = Vec::new();
        let mut each = |text: &[u8], cut| lines.push((String::from_utf8_lossy(text).into(), cut));
        let found = output.pipe.read(&mut room[..most]);
        match &found {
            Ok(count @ 1..) => {
                output.splitter.take_in(&room[..*count], self.journal.line_bytes, each);
                output.room = match lines.len() > LINES_TURN {
                    true => (output.room / 2).max(READ_BYTES_MIN),
                    false => (output.room * 2).min(READ_BYTES),
                };
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            // The poller forgets it with the descriptor.
            Ok(0) | Err(_) => {
                output.splitter.end(&mut each);
                self.processes[slot].outputs[stream as usize] = None;
            }
        }
        self.write_down(slot, stream, lines);
        found.unwrap_or(0)
    }

    fn write_down(&mut self, slot: usize, stream: Stream, lines: Vec<(Box<str>, bool)>) {
        let key = self.processes[slot].key;
        let (false, Some(name), Some(policy)) = (lines.is_empty(), self.core.name(key), self.core.policy(key)) else {
            return;
        };
        let (at_ms, number, generation) = (Clock::wall_ms(), key.number.0, key.generation.0);
        let line = |(text, cut)| Line { at_ms, number, generation, class: policy.into(), stream, cut, text };
        self.journal.write(name, lines.into_iter().map(line).collect());
    }
}
