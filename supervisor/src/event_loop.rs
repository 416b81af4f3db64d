//! The one place that waits. A turn takes what one wake-up brings, lets the core decide, applies what it
//! commands, and writes each connection once.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use slab::Slab;
use workhall_core::{Core, Event, Instant, ProcessKey};
use workhall_protocol::MarkPage;
use workhall_protocol::ids::MessageId;
use workhall_protocol::messages::{Error, Ref, Reply, ToSupervisor};
use workhall_protocol::terms::Refusal;
use workhall_protocol::wire::DecodeError;

use crate::cgroup::{Group, Trees};
use crate::clock::Clock;
use crate::config::{Class, Config};
use crate::connection::{Connection, Peer};
use crate::diagnostics::say;
use crate::name_lock::NameLocks;
use crate::process_tree::{Foreign, Sweep};
use crate::reaper::Reserve;
use crate::requests::Question;
use crate::sys::{self, Interest, Listener, LockFile, Poller, Ready, Stream};
use crate::token::{SERIAL_MASK, Token, next_serial};
use crate::unix_signals::SignalPipe;

/// How many events one wake-up brings at most.
const EVENTS_MAX: usize = 1024;
/// How many connections are accepted in one turn at most.
const ACCEPTS_MAX: usize = 64;
/// How often the connection of a process is read at most when all that it has written is wanted: more than
/// its socket can hold.
const READS_MAX: usize = 64;
/// How long accepting rests after the kernel had no descriptor for a connection.
const ACCEPT_REST: std::time::Duration = std::time::Duration::from_millis(500);

const READ: Interest = Interest { read: true, write: false };
const NOTHING: Interest = Interest { read: false, write: false };

/// A process that was started and is not proved gone.
#[derive(Debug)]
pub(crate) struct Process {
    pub key: ProcessKey,
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub page: MarkPage,
    pub serial: u64,
    /// Its connection, while there is one.
    pub connection: Option<usize>,
    /// The first task that could not be written to it whole, once the connection is gone.
    pub unwritten_task: Option<MessageId>,
    /// The exit status was collected: its number may be another's from here on.
    pub reaped: bool,
    /// Its control group, where there are groups.
    pub group: Option<Group>,
    /// The hunt for what it left behind, where there are none.
    pub sweep: Option<Sweep>,
}

/// A supervisor at work.
pub struct EventLoop {
    pub(crate) core: Core,
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) poller: Poller,
    pub(crate) connections: Slab<Connection>,
    pub(crate) processes: Slab<Process>,
    /// The living processes of workers, which are reaped through their pidfds alone.
    pub(crate) leaders: HashSet<i32>,
    /// Classes that were asked for, by name.
    pub(crate) classes: HashMap<Box<str>, Arc<Class>>,
    pub(crate) socket: PathBuf,
    pub(crate) descriptors: u64,
    pub(crate) clients: usize,
    pub(crate) stopped: bool,
    pub(crate) stopping: bool,
    listener: Listener,
    accepting: bool,
    accept_again: Option<Instant>,
    child_signal: SignalPipe,
    stop_signal: SignalPipe,
    reload_signal: SignalPipe,
    next_serial: u64,
    /// Asked in this turn.
    pub(crate) questions: Vec<(NonZeroU64, Question)>,
    /// Connections with something to write at the end of the turn.
    dirty: Vec<usize>,
    pub(crate) names: NameLocks,
    /// How what processes leave behind is found.
    pub(crate) trees: Trees,
    /// The supervisor has given up new privileges, and so all that it starts.
    pub(crate) no_new_privs: bool,
    /// What classes set and this machine does not enforce, for people.
    pub(crate) not_enforced: Vec<String>,
    pub(crate) foreign: Foreign,
    pub(crate) reserve: Reserve,
    /// Processes that have ended and may have left something behind.
    pub(crate) sweeping: Vec<usize>,
    /// Held as long as the supervisor lives.
    _lock: LockFile,
}

/// What an event loop starts from.
pub struct Setup {
    /// Checked.
    pub config: Config,
    /// Where it listens.
    pub socket: PathBuf,
    /// Bound to the socket.
    pub listener: Listener,
    /// The right to serve this socket.
    pub lock: LockFile,
    /// The locks of this socket's names.
    pub names: NameLocks,
    /// The most open descriptors.
    pub descriptors: u64,
    /// How what processes leave behind is found.
    pub trees: Trees,
    /// The supervisor has given up new privileges.
    pub no_new_privs: bool,
    /// What classes set and this machine does not enforce, for people.
    pub not_enforced: Vec<String>,
    /// For the jitter of delays.
    pub seed: u64,
}

impl EventLoop {
    /// Takes everything and watches it; starts the main worker, if the configuration has one.
    pub fn new(setup: Setup) -> std::io::Result<EventLoop> {
        let mut this = EventLoop {
            core: Core::new(setup.config.limits.clone(), setup.seed),
            config: setup.config,
            clock: Clock::start(),
            poller: Poller::new(EVENTS_MAX)?,
            connections: Slab::new(),
            processes: Slab::new(),
            leaders: HashSet::new(),
            classes: HashMap::new(),
            socket: setup.socket,
            descriptors: setup.descriptors,
            clients: 0,
            stopped: false,
            stopping: false,
            listener: setup.listener,
            accepting: true,
            accept_again: None,
            child_signal: SignalPipe::child()?,
            stop_signal: SignalPipe::stop()?,
            reload_signal: SignalPipe::reload()?,
            next_serial: 1,
            questions: Vec::new(),
            names: setup.names,
            trees: setup.trees,
            no_new_privs: setup.no_new_privs,
            not_enforced: setup.not_enforced,
            foreign: Foreign::default(),
            reserve: Reserve::new()?,
            dirty: Vec::new(),
            sweeping: Vec::new(),
            _lock: setup.lock,
        };
        this.poller.add(&this.listener, Token::Listener.pack(), READ)?;
        this.poller.add(&this.child_signal, Token::ChildSignal.pack(), READ)?;
        this.poller.add(&this.stop_signal, Token::StopSignal.pack(), READ)?;
        this.poller.add(&this.reload_signal, Token::ReloadSignal.pack(), READ)?;
        this.start_main();
        Ok(this)
    }

    /// Serves until it is told to stop and every process is gone.
    pub fn run(&mut self) -> std::io::Result<()> {
        let mut ready = Vec::with_capacity(EVENTS_MAX);
        self.apply();
        self.flush();
        while !self.stopped {
            let wake_at = [self.core.next_deadline(), self.accept_again].into_iter().flatten().min();
            let timeout = wake_at.map(|at| at.since(self.clock.now()));
            self.poller.wait(timeout, &mut ready)?;
            for event in &ready {
                self.event(*event)?;
            }
            let now = self.clock.now();
            self.core.tick(now);
            self.apply();
            self.answer_questions();
            if self.accept_again.is_some_and(|at| at <= now) {
                self.accept_again = None;
                self.resume_accepting()?;
            }
            self.flush();
        }
        Ok(())
    }

    fn event(&mut self, event: Ready) -> std::io::Result<()> {
        match Token::unpack(event.token) {
            Token::Listener => return self.accept(),
            Token::ChildSignal => {
                self.child_signal.take();
                self.sweep();
            }
            Token::StopSignal => {
                let now = self.clock.now();
                for _ in 0..self.stop_signal.take() {
                    // The first one asks; a second one does not wait.
                    let grace = if self.stopping { Default::default() } else { self.config.shutdown_grace };
                    self.stopping = true;
                    self.core.shutdown(now, grace);
                }
                self.apply();
            }
            Token::ReloadSignal => {
                self.reload_signal.take();
                say("SIGHUP does nothing yet: restart the supervisor for a new configuration");
            }
            Token::Connection { index, serial } => {
                let known = self.connections.get(index).is_some_and(|c| c.serial() & SERIAL_MASK == serial);
                if known && event.read {
                    self.readable(index, event.hung_up);
                }
                let known = self.connections.get(index).is_some_and(|c| c.serial() & SERIAL_MASK == serial);
                if known && event.write {
                    self.mark_dirty(index);
                }
            }
            Token::Process { slot, serial } => {
                if self.processes.get(slot).is_some_and(|process| process.serial & SERIAL_MASK == serial) {
                    self.process_ended(slot);
                }
            }
            Token::Tree { slot, serial } => {
                if self.processes.get(slot).is_some_and(|process| process.serial & SERIAL_MASK == serial) {
                    self.end_tree(slot);
                    self.apply();
                }
            }
        }
        Ok(())
    }

    // ---- connections ------------------------------------------------------------------------

    fn accept(&mut self) -> std::io::Result<()> {
        for _ in 0..ACCEPTS_MAX {
            if self.clients >= self.config.connections {
                return self.pause_accepting();
            }
            match sys::accept(&self.listener) {
                Ok(Some(stream)) => {
                    if self.add_connection(stream, Peer::Client).is_ok() {
                        self.clients += 1;
                    }
                }
                Ok(None) => return Ok(()),
                // No descriptor or no memory for one more: those who wait are served when there is.
                Err(_) => {
                    self.accept_again = Some(self.clock.now().after(ACCEPT_REST));
                    return self.pause_accepting();
                }
            }
        }
        Ok(())
    }

    fn pause_accepting(&mut self) -> std::io::Result<()> {
        self.accepting = false;
        self.poller.modify(&self.listener, Token::Listener.pack(), NOTHING)
    }

    fn resume_accepting(&mut self) -> std::io::Result<()> {
        if !self.accepting && self.clients < self.config.connections {
            self.accepting = true;
            self.poller.modify(&self.listener, Token::Listener.pack(), READ)?;
        }
        Ok(())
    }

    /// Watches a new connection; returns its place.
    pub(crate) fn add_connection(&mut self, stream: Stream, peer: Peer) -> std::io::Result<usize> {
        let serial = self.take_serial();
        let entry = self.connections.vacant_entry();
        let index = entry.key();
        let key = NonZeroU64::new(serial << 32 | index as u64).expect("no serial is 0");
        self.poller.add(&stream, Token::Connection { index, serial }.pack(), READ)?;
        entry.insert(Connection::new(key, stream, peer));
        Ok(index)
    }

    /// Watches a new process.
    pub(crate) fn add_process(&mut self, process: Process) -> std::io::Result<usize> {
        let entry = self.processes.vacant_entry();
        let slot = entry.key();
        let token = Token::Process { slot, serial: process.serial }.pack();
        if let Err(error) = self.poller.add(&process.pidfd, token, READ) {
            // Nobody would notice its end: it must not live, and the next one starts after it.
            sys::kill_group(process.pid);
            sys::wait_for_end(&process.pidfd);
            let _killed = process.group.as_ref().map(Group::kill);
            return Err(error);
        }
        entry.insert(process);
        Ok(slot)
    }

    pub(crate) fn take_serial(&mut self) -> u64 {
        let serial = self.next_serial;
        self.next_serial = next_serial(serial);
        serial
    }

    fn readable(&mut self, index: usize, hung_up: bool) {
        let ended = match self.connections[index].read() {
            Ok(count) => count == 0,
            Err(e) => e.kind() != std::io::ErrorKind::WouldBlock,
        };
        self.handle_input(index);
        let connection = &mut self.connections[index];
        match (ended, connection.peer) {
            (false, _) => {}
            // It has said all that it wants, and may still read the answers: `… | socat - UNIX:…`.
            (true, Peer::Client) if !hung_up => connection.half_closed = true,
            (true, _) => self.hang_up(index),
        }
    }

    /// Reads and handles all that a process has written so far. Bounded: a child that it left behind may have
    /// inherited the connection, and write without end. The end itself is left for the event that tells it.
    pub(crate) fn read_all(&mut self, index: usize) {
        for _ in 0..READS_MAX {
            match self.connections[index].read() {
                Ok(count) if count > 0 => self.handle_input(index),
                _ => break,
            }
        }
    }

    /// Handles all messages that are complete.
    fn handle_input(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let mut decoder = std::mem::take(&mut connection.decoder);
        if let Some(encoding) = decoder.encoding() {
            connection.encoding = encoding;
        }
        let now = self.clock.now();
        loop {
            match decoder.next::<ToSupervisor>() {
                Ok(None) => break,
                Ok(Some(request)) => self.request(now, index, request),
                Err(DecodeError::Message { reference, settles, reason }) => {
                    self.misunderstood(now, index, reference, &reason);
                    self.settle_misunderstood(now, index, settles, &reason);
                }
                Err(DecodeError::Stream(reason)) => {
                    self.misunderstood(now, index, None, &reason);
                    self.connections[index].closing = true;
                    break;
                }
            }
            self.apply();
            if self.connections[index].closing {
                break;
            }
        }
        self.connections[index].decoder = decoder;
        self.mark_dirty(index);
    }

    /// Answers what cannot be understood.
    pub(crate) fn misunderstood(&mut self, now: Instant, index: usize, reference: Option<Ref>, reason: &str) {
        if let Peer::Worker { process, .. } = self.connections[index].peer {
            self.core.handle(now, Event::Violation { process, detail: reason });
        }
        // Who chains calls must not have one overtake another that was not understood.
        self.connections[index].chain_broken = Some(Refusal::NotPermitted);
        self.say(index, &Reply::Error(Error { reference, detail: reason.into() }));
    }

    /// A worker has settled a task by what cannot be understood. It will not say it again: nobody who waits
    /// for the task, or behind it, would come to his own.
    fn settle_misunderstood(&mut self, now: Instant, index: usize, settles: Option<u64>, reason: &str) {
        if let (Some(id), Peer::Worker { process, .. }) = (settles, self.connections[index].peer) {
            let error = format!("the worker has settled it with what is not understood: {reason}");
            self.core.handle(now, Event::Failed { process, id: MessageId(id), error: &error });
        }
    }

    /// The other side has closed: nothing more comes, and nothing more is written.
    fn hang_up(&mut self, index: usize) {
        let connection = self.connections.remove(index);
        let _closing = self.poller.remove(connection.stream());
        match connection.peer {
            Peer::Client => {
                self.core.forget_waits(connection.key);
                self.clients -= 1;
                if self.resume_accepting().is_err() {
                    self.accept_again = Some(self.clock.now().after(ACCEPT_REST));
                }
            }
            Peer::Worker { process, slot } => {
                self.core.forget_waits(connection.key);
                let ended = &mut self.processes[slot];
                ended.connection = None;
                ended.unwritten_task = connection.first_unwritten_task();
                self.core.handle(self.clock.now(), Event::Disconnected { process });
                self.apply();
            }
        }
    }

    /// Says something on a connection; an answer that is too large for the wire becomes an error.
    pub(crate) fn say(&mut self, index: usize, reply: &Reply<'_>) {
        let said = self.connections[index].say(reply);
        let reference = match reply {
            Reply::Receipt(receipt) if said.is_err() => Some(receipt.reference.clone()),
            Reply::Outcome(outcome) if said.is_err() => Some(outcome.reference.clone()),
            _ => None,
        };
        self.unless_said(index, reference, said);
    }

    /// The end of saying something: what could not be said becomes an error.
    pub(crate) fn unless_said(&mut self, index: usize, reference: Option<Ref>, said: Result<(), String>) {
        if let Err(reason) = said {
            let detail = format!("the answer cannot be sent: {reason}");
            let said = self.connections[index].say(&Reply::Error(Error { reference, detail: detail.into() }));
            debug_assert!(said.is_ok(), "an error is short");
        }
        self.mark_dirty(index);
    }

    pub(crate) fn mark_dirty(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(index);
        }
    }

    /// Writes what this turn has to say: once per connection.
    fn flush(&mut self) {
        while let Some(index) = self.dirty.pop() {
            let Some(connection) = self.connections.get_mut(index).filter(|connection| connection.dirty) else {
                continue;
            };
            connection.dirty = false;
            let written = connection.flush();
            if written.is_err() {
                connection.drop_output();
            }
            let over = match &written {
                Ok(()) => {
                    let nothing_follows = connection.closing || connection.half_closed && connection.awaited == 0;
                    connection.unwritten() == 0 && nothing_follows
                }
                // A client that has left has no answers, but what it had asked for before is still taken in.
                Err(error) if has_left(error) => connection.closing || connection.half_closed,
                Err(_) => true,
            };
            match connection.peer {
                Peer::Client if over => self.hang_up(index),
                // What a worker has written is still read, up to its end; only a stream beyond repair is cut.
                Peer::Worker { .. } if connection.closing && over => self.hang_up(index),
                _ => {
                    if let Some(interest) = connection.new_interest() {
                        let token = Token::Connection { index, serial: connection.serial() }.pack();
                        let watched = self.poller.modify(connection.stream(), token, interest);
                        debug_assert!(watched.is_ok(), "it is open and in the poller");
                    }
                }
            }
        }
    }
}

fn has_left(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset)
}
