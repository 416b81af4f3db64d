//! The one place that waits. A turn takes what one wake-up brings, lets the core decide, applies what it
//! commands, and writes each connection once. Where much is ready a turn is a part of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use tracing::{error, warn};
use workhall_core::{Core, Event, Instant, ProcessKey};
use workhall_protocol::MarkPage;
use workhall_protocol::ids::{Generation, MessageId, WorkerNumber};
use workhall_protocol::messages::{Error, Ref, Reply};
use workhall_protocol::terms::Refusal;
use workhall_protocol::wire::LOAN_BYTES_MAX;

use crate::access::Creds;
use crate::accounts::Accounts;
use crate::cgroup::{Group, Trees};
use crate::clock::Clock;
use crate::config::{Class, Config};
use crate::connection::{Connection, Peer, READ_BYTES};
use crate::diagnostics::say_what_was_lost;
use crate::ending::Losses;
use crate::journal::Journal;
use crate::metrics::{Door, Metrics};
use crate::name_lock::NameLocks;
use crate::notify::{Figures, Notifier};
use crate::output::Outputs;
use crate::process_tree::{self, Foreign, Inherited, Sweep};
use crate::reaper::Reserve;
use crate::starter::Starter;
use crate::sys::{self, FileId, Interest, Listener, LockFile, Poller, Ready, Stream};
use crate::token::{SERIAL_MASK, Token, next_serial};
use crate::unix_signals::{OtherSignals, SignalPipe};
use crate::upgrade::{Upgrade, own_binary};

/// How many events one turn takes at most: enough that what is done once per turn costs little, so few that those who are
/// told something go to work while others are read, and that what was touched is still in the cache when it is written.
const EVENTS_MAX: usize = 64;

/// How long the supervisor waits at its end for orphans that it has killed.
const ORPHANS_END_WITHIN: Duration = Duration::from_secs(5);

const READ: Interest = Interest { read: true, write: false };

/// A process that was started and is not proved gone.
#[derive(Debug)]
pub(crate) struct Process {
    pub key: ProcessKey,
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub page: Arc<MarkPage>,
    pub page_fd: OwnedFd,
    pub serial: u64,
    /// Its connection, while there is one.
    pub connection: Option<usize>,
    /// The first task that could not be written to it whole, once the connection is gone.
    pub unwritten_task: Option<MessageId>,
    /// The exit status was collected: its number may be another's from here on.
    pub reaped: bool,
    /// Its control group, where there are groups.
    pub group: Option<Group>,
    /// The hunt for what it left behind, once it has ended.
    pub sweep: Option<Sweep>,
    /// Where it writes.
    pub outputs: Outputs,
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
    /// Which file that was when it began to listen, as far as is known.
    pub(crate) socket_file: Option<FileId>,
    pub(crate) descriptors: u64,
    pub(crate) clients: usize,
    pub(crate) stopped: bool,
    pub(crate) stopping: bool,
    /// When the processes are not waited for any more that cannot be ended.
    pub(crate) give_up_at: Option<Instant>,
    /// What the stop costs.
    pub(crate) losses: Losses,
    /// Who the supervisor itself is.
    pub(crate) own: Creds,
    /// What each user and each worker has in hand.
    pub(crate) accounts: Accounts,
    pub(crate) listener: Listener,
    pub(crate) accepting: bool,
    /// The listener is the service manager's: who comes while we stop is for the next supervisor.
    pub(crate) adopted: bool,
    pub(crate) accept_again: Option<Instant>,
    pub(crate) child_signal: SignalPipe,
    pub(crate) stop_signal: SignalPipe,
    pub(crate) reload_signal: SignalPipe,
    other_signals: OtherSignals,
    pub(crate) next_serial: u64,
    /// Connections that have questions to be answered at the end of the turn.
    pub(crate) asked: Vec<NonZeroU64>,
    /// Connections that may have more messages in their decoders, for the next turn.
    pub(crate) stalled: Vec<NonZeroU64>,
    /// What is read from any connection comes through here.
    pub(crate) scratch: Vec<u8>,
    /// Connections with something to write at the end of the turn.
    pub(crate) dirty: Vec<usize>,
    /// Empty buffers, for who has something to say next.
    pub(crate) spares: Vec<Vec<u8>>,
    pub(crate) names: NameLocks,
    /// Processes that are to be looked at.
    pub(crate) looks: VecDeque<(ProcessKey, u32)>,
    /// What the core commands is being applied.
    pub(crate) applying: bool,
    /// How what processes leave behind is found.
    pub(crate) trees: Trees,
    pub(crate) starter: Starter,
    /// The supervisor has given up new privileges, and so all that it starts.
    pub(crate) no_new_privs: bool,
    /// What classes set and this machine does not enforce, for people.
    pub(crate) not_enforced: Vec<String>,
    pub(crate) foreign: Foreign,
    pub(crate) inherited: Inherited,
    pub(crate) reserve: Reserve,
    /// Processes that have ended and whose orphans are to be looked for in this turn.
    pub(crate) hunted: BTreeMap<usize, bool>,
    /// Those that had orphans when these were last looked for.
    pub(crate) sweeping: BTreeSet<usize>,
    /// Processes that have ended and that another process traces.
    pub(crate) traced: BTreeSet<usize>,
    /// A child has ended that may be an adopted one.
    pub(crate) reap_adopted: bool,
    /// What workers wrote, and what happened to them.
    pub(crate) journal: Journal,
    /// Of processes whose end is not logged yet.
    pub(crate) ended_pids: HashMap<(WorkerNumber, Generation), i32>,
    /// What those are told who watch, if anybody may.
    pub(crate) metrics: Option<Metrics>,
    /// What the service manager is told.
    pub(crate) notifier: Notifier,
    /// Held as long as the supervisor lives.
    pub(crate) lock: LockFile,
    /// The file that this program was started from, or the one that an upgrade has named.
    pub(crate) binary: PathBuf,
    /// It is about to become another program.
    pub(crate) upgrade: Option<Upgrade>,
}

/// What an event loop starts from.
pub struct Setup {
    /// Checked.
    pub config: Config,
    /// Where it listens.
    pub socket: PathBuf,
    /// Bound to the socket.
    pub listener: Listener,
    /// The listener was handed over, and stays open without us.
    pub adopted: bool,
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
    /// Where metrics are read.
    pub metrics: Option<Door>,
    /// What the service manager is told.
    pub notifier: Notifier,
    /// For the jitter of delays.
    pub seed: u64,
}

impl EventLoop {
    /// Takes everything and watches it; starts the workers that the configuration keeps running.
    pub fn new(setup: Setup) -> std::io::Result<EventLoop> {
        let mut this = EventLoop::bare(setup)?;
        this.inherited = Inherited::now()?;
        this.start_main();
        for sentence in this.keep_running(this.clock.now()) {
            warn!("{sentence}");
        }
        Ok(this)
    }

    /// Takes everything and watches it, and has neither workers nor connections.
    pub(crate) fn bare(setup: Setup) -> std::io::Result<EventLoop> {
        let (journal, warning) = Journal::new(&setup.config.journal);
        if let Some(warning) = warning {
            warn!("{warning}");
        }
        let mut this = EventLoop {
            core: Core::new(setup.config.limits.clone(), setup.seed),
            own: sys::own_creds(),
            accounts: Accounts::new(setup.config.unread_bytes, setup.config.unfinished_bytes),
            config: setup.config,
            clock: Clock::start(),
            poller: Poller::new(EVENTS_MAX)?,
            connections: Slab::new(),
            processes: Slab::new(),
            leaders: HashSet::new(),
            classes: HashMap::new(),
            socket_file: sys::file_id(&setup.socket).ok(),
            socket: setup.socket,
            descriptors: setup.descriptors,
            clients: 0,
            stopped: false,
            stopping: false,
            listener: setup.listener,
            accepting: true,
            adopted: setup.adopted,
            accept_again: None,
            child_signal: SignalPipe::child()?,
            stop_signal: SignalPipe::stop()?,
            reload_signal: SignalPipe::reload()?,
            other_signals: OtherSignals::new()?,
            next_serial: 1,
            names: setup.names,
            starter: Starter::new(),
            looks: VecDeque::new(),
            applying: false,
            trees: setup.trees,
            no_new_privs: setup.no_new_privs,
            not_enforced: setup.not_enforced,
            asked: Vec::new(),
            stalled: Vec::new(),
            scratch: vec![0; READ_BYTES + LOAN_BYTES_MAX],
            foreign: Foreign::default(),
            inherited: Inherited::default(),
            reserve: Reserve::new()?,
            dirty: Vec::new(),
            spares: Vec::new(),
            hunted: BTreeMap::new(),
            sweeping: BTreeSet::new(),
            traced: BTreeSet::new(),
            give_up_at: None,
            losses: Losses::default(),
            reap_adopted: false,
            journal,
            ended_pids: HashMap::new(),
            metrics: None,
            notifier: setup.notifier,
            lock: setup.lock,
            binary: own_binary(),
            upgrade: None,
        };
        this.poller.add(&this.listener, Token::Listener.pack(), READ)?;
        this.poller.add(&this.child_signal, Token::ChildSignal.pack(), READ)?;
        this.poller.add(&this.stop_signal, Token::StopSignal.pack(), READ)?;
        this.poller.add(&this.reload_signal, Token::ReloadSignal.pack(), READ)?;
        this.poller.add(&this.other_signals, Token::OtherSignal.pack(), READ)?;
        this.open_metrics(setup.metrics)?;
        Ok(this)
    }

    /// Serves until it is told to stop and every process is gone.
    pub fn run(&mut self) -> std::io::Result<()> {
        let mut ready = Vec::with_capacity(EVENTS_MAX);
        self.apply();
        self.flush();
        self.notifier.ready(self.clock.now(), self.figures());
        while !self.stopped {
            let deadlines = [self.core.next_deadline(), self.accept_again, self.give_up_at, self.notifier.deadline()];
            let wake_at = deadlines.into_iter().chain([self.upgrade_deadline()]).flatten().min();
            let timeout =
                match self.has_unfinished_turns() || self.has_hungry_followers() || self.upgrade_waits_for_a_turn() {
                    true => Some(Default::default()),
                    false => wake_at.map(|at| at.since(self.clock.now())),
                };
            self.poller.wait(timeout, &mut ready)?;
            for event in &ready {
                self.event(*event)?;
            }
            self.go_on_with_stalled();
            let now = self.clock.now();
            self.core.tick(now);
            self.apply();
            self.hunt();
            self.answer_questions();
            self.feed_followers();
            if self.accept_again.is_some_and(|at| at <= now) {
                self.accept_again = None;
                self.resume_accepting()?;
            }
            self.end_late_check(now);
            self.flush();
            self.notifier.turned(now, self.figures());
            say_what_was_lost();
            if !self.stopped && self.give_up_at.is_some_and(|at| at <= now) {
                self.say_losses();
                self.end_orphans()?;
                return Err(self.cannot_be_ended());
            }
            self.upgrade_if_ready()?;
        }
        self.say_losses();
        self.end_orphans()
    }

    /// Whoever has escaped from its worker has become a child of ours: it ends with us, for a bounded time.
    fn end_orphans(&mut self) -> std::io::Result<()> {
        self.reserve.release();
        let mut poller = Poller::new(1)?;
        poller.add(&self.child_signal, Token::ChildSignal.pack(), READ)?;
        let until = self.clock.now().after(ORPHANS_END_WITHIN);
        loop {
            self.child_signal.take();
            let left = process_tree::kill_all_but(&self.inherited)?;
            let patience = until.since(self.clock.now());
            if left == 0 || patience.is_zero() {
                if left > 0 {
                    error!("{left} processes that workers have left could not be ended");
                }
                return Ok(());
            }
            poller.wait(Some(patience), &mut Vec::new())?;
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        Figures {
            workers: self.core.worker_count(),
            processes: self.processes.len(),
            pending: self.core.ledger().pending,
            stopping: self.stopping,
        }
    }

    fn event(&mut self, event: Ready) -> std::io::Result<()> {
        match Token::unpack(event.token) {
            Token::Listener => return self.accept(),
            Token::ChildSignal => {
                self.child_signal.take();
                self.children_changed();
            }
            Token::StopSignal | Token::ReloadSignal => {
                let signals = self.take_signals();
                self.obey(signals);
                if self.stopping && self.adopted {
                    self.pause_accepting()?;
                }
            }
            Token::OtherSignal => {
                for name in self.other_signals.take() {
                    warn!("{name} does nothing here: SIGHUP reads the configuration again, SIGTERM stops");
                }
            }
            Token::Check => self.check_ended(),
            Token::Metrics => self.answer_scrape(),
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
            Token::Output { slot, stderr, serial } => self.output_readable(slot, serial, stderr),
            Token::Tree { slot, serial } => {
                if self.processes.get(slot).is_some_and(|process| process.serial & SERIAL_MASK == serial) {
                    self.end_tree(slot, false);
                }
            }
        }
        Ok(())
    }

    // ---- connections ------------------------------------------------------------------------

    /// Watches a new connection; returns its place.
    pub(crate) fn add_connection(&mut self, stream: Stream, peer: Peer) -> std::io::Result<usize> {
        let serial = self.take_serial();
        let entry = self.connections.vacant_entry();
        let index = entry.key();
        let key = NonZeroU64::new(serial << 32 | index as u64).expect("no serial is 0");
        self.poller.add(&stream, Token::Connection { index, serial }.pack(), READ)?;
        entry.insert(Connection::new(key, stream, peer));
        self.accounts.open(peer.account());
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

    /// Answers what cannot be understood.
    pub(crate) fn misunderstood(&mut self, now: Instant, index: usize, reference: Option<Ref>, reason: &str) {
        if let Some(process) = self.connections[index].peer.process() {
            self.core.handle(now, Event::Violation { process, detail: reason });
        }
        // Who chains calls must not have one overtake another that was not understood.
        self.connections[index].chain_broken = Some(Refusal::NotPermitted);
        self.say(index, &Reply::Error(Error { reference, detail: reason.into() }));
    }

    /// A worker has settled a task by what cannot be understood. It will not say it again: nobody who waits
    /// for the task, or behind it, would come to his own.
    pub(crate) fn settle_misunderstood(&mut self, now: Instant, index: usize, settles: Option<u64>, reason: &str) {
        if let (Some(id), Some(process)) = (settles, self.connections[index].peer.process()) {
            let error = format!("the worker has settled it with what is not understood: {reason}");
            self.core.handle(now, Event::Failed { process, id: MessageId(id), error: &error });
        }
    }

    /// Says something on a connection; an answer that is too large for the wire becomes an error.
    pub(crate) fn say(&mut self, index: usize, reply: &Reply<'_>) {
        self.mark_dirty(index);
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

    /// It is looked at, and written to, at the end of the turn.
    pub(crate) fn mark_dirty(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if !connection.dirty {
            connection.dirty = true;
            connection.take_spare(&mut self.spares);
            self.dirty.push(index);
        }
    }
}
