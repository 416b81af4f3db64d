//! One worker: what is wished of it ([`Goal`]) and what is so ([`Life`]).
//!
//! | goal \ life | none | starting | ready | stopping | exited, tree not gone |
//! | --- | --- | --- | --- | --- | --- |
//! | up | waits for a message, its turn in the line, the end of a backoff or pause, or a free place among the processes | waits for ready, under a deadline | executes | is ended for a fault, a task that took too long, because it had nothing to do, or for a new class: what comes waits for the next life | waits for the tree |
//! | drain | the same; without messages it is removed | the same | executes; without messages Ask | Ask was sent, nothing is left to execute | waits for the tree |
//! | down | cannot be: it is removed | the ladder runs; Ask is sent once it is ready | cannot be: Ask is sent at the kill | the ladder runs | waits for the tree |
//!
//! An operator may pause a worker whose goal is not down: what the table says of `up` and `drain` then waits for the resume,
//! but for what stops and has exited ([`crate::pause`]).
//!
//! Workers of one name stand in a *line*: the oldest alone may have a process; the newest alone
//! accepts calls by name, and only while its goal is up. A kill puts the goal to down; a call behind it
//! creates a successor at the end of the line, whose turn comes when the one before it is
//! removed. That is the respawn gate (rules K7, K8): a worker is removed, and a next life starts, only
//! after both facts are in, the exit and the end of the process tree.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use workhall_protocol::ids::{Generation, MessageId};
use workhall_protocol::terms::{Current, Exit, StartStage};

use crate::event::{ProcessKey, ReplyTo};
use crate::held::Held;
use crate::in_flight::InFlight;
use crate::kind::Kind;
use crate::mailbox::{Envelope, Identity, Mailbox};
use crate::policy::Policy;
use crate::restart::{Failures, HEALTHY_AFTER};
use crate::stop::{REPEAT, Stop};
use crate::time::Instant;
use crate::view::LastExit;

/// How much is kept of the words for a violation, in bytes.
const VIOLATION_BYTES_MAX: usize = 200;
/// How many violations are kept in words, and how many exits.
pub(crate) const KEPT_MAX: usize = 10;
/// How many bytes are sent ahead to a process at most, beyond the message being executed.
const SENT_AHEAD_BYTES_MAX: u64 = 256 << 10;
/// How often one time limit of a task is looked at, where the process may have come further than it has said.
const LOOKS: u32 = 4;
/// No look comes sooner after another.
const LOOK_AFTER_MIN: Duration = Duration::from_millis(1);

/// What is wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Goal {
    /// Execute what comes.
    Up,
    /// Execute what is there, then end (rule K13).
    Drain,
    /// End.
    Down,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Worker {
    pub identity: Arc<Identity>,
    /// Restored from the table of policies, of which many workers share one.
    #[serde(skip)]
    pub policy: Arc<Policy>,
    /// The policy of the next life, where a newer configuration says something else than when this one began.
    #[serde(skip)]
    pub renewed: Option<Arc<Policy>>,
    /// The number under which its class is counted.
    #[serde(skip)]
    pub counted: u32,
    /// No class has its name any more: it takes nothing new.
    #[serde(default)]
    pub retired: bool,
    pub goal: Goal,
    /// What it is beside a worker that a call has created.
    #[serde(default)]
    pub kind: Kind,
    /// Created by the supervisor and not by a call: while it has a class, a process is wished for without messages too,
    /// and a kill only empties the mailbox (rule K10): [`Worker::stays`].
    pub kept: bool,
    /// Somebody waits for a state of this name.
    pub watched: bool,
    pub failures: Failures,
    /// The worker of the same name that was created before, and not gone yet.
    pub older: Option<u32>,
    /// The one created after.
    pub newer: Option<u32>,
    pub startup: Option<Arc<str>>,
    pub mailbox: Mailbox,
    /// Bytes charged for the messages in the mailbox and in flight.
    pub charged: u64,
    pub life: Option<Box<Life>>,
    /// The last life's, or the current one's.
    pub generation: Generation,
    /// No start before.
    pub backoff_until: Instant,
    /// Too many crashes: it pauses until then (rule D4).
    pub paused: bool,
    /// Since when an operator has paused it (rule P4).
    #[serde(default)]
    pub suspended: Option<Instant>,
    /// It has a place among the processes.
    pub place: bool,
    /// It has its turn when one is free.
    pub queued: bool,
    /// A drain is over here.
    pub drain_deadline: Instant,
    /// The entry in the deadlines that holds; none is [`Instant::NEVER`].
    pub wake_at: Instant,
    pub killers: Vec<Killer>,
    pub executed: u64,
    pub crashes: u64,
    /// The last exits, the newest last. Few workers have any.
    #[allow(clippy::box_collection, reason = "a worker without any has a pointer, not an empty queue")]
    pub exits: Option<Box<VecDeque<LastExit>>>,
    /// What its processes said that they must not say.
    pub violations: Option<Box<Violations>>,
    /// The last attempts to start it found its name held.
    pub held: Option<Box<Held>>,
    pub created: Instant,
}

/// What the processes of a worker said that they must not say.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Violations {
    pub count: u64,
    /// The last of them in words, the newest last.
    pub last: VecDeque<(Generation, Box<str>)>,
}

/// Somebody who waits for the end of a kill, or for its receipt.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Killer {
    pub reply: ReplyTo,
    pub since: Instant,
    /// How many messages were discarded since.
    pub discarded: u64,
    /// The task that ran at the kill.
    pub task: Option<MessageId>,
    /// What became of it.
    pub current: Current,
    /// The last life that had ended by then.
    pub ended_before: Generation,
}

impl Worker {
    /// One that has nothing yet, and is alone in its line.
    pub fn new(identity: Identity, policy: Arc<Policy>, created: Instant) -> Worker {
        Worker {
            identity: Arc::new(identity),
            policy,
            renewed: None,
            counted: 0,
            retired: false,
            goal: Goal::Up,
            kind: Kind::Called,
            kept: false,
            watched: false,
            failures: Failures::default(),
            older: None,
            newer: None,
            startup: None,
            mailbox: Mailbox::default(),
            charged: 0,
            life: None,
            generation: Generation::default(),
            backoff_until: Instant::default(),
            paused: false,
            suspended: None,
            place: false,
            queued: false,
            drain_deadline: Instant::NEVER,
            wake_at: Instant::NEVER,
            killers: Vec::new(),
            executed: 0,
            crashes: 0,
            exits: None,
            violations: None,
            held: None,
            created,
        }
    }

    pub fn key(&self, index: u32) -> ProcessKey {
        ProcessKey { index, number: self.identity.number, generation: self.generation }
    }

    /// Messages that are pending or running.
    pub fn messages(&self) -> u64 {
        self.mailbox.len() + self.in_flight()
    }

    pub fn in_flight(&self) -> u64 {
        self.life.as_ref().map_or(0, |life| life.in_flight.len() as u64)
    }

    /// How many messages run: derived from the living process, never counted apart.
    pub fn running(&self) -> u64 {
        self.in_flight().min(1)
    }

    /// Whether neither a kill nor an end of its own ends it (rule K10). One that the supervisor keeps nothing else would
    /// ever end, without a class.
    pub fn stays(&self) -> bool {
        self.is_attached() || self.kept && !self.retired
    }

    /// Whether its process is not ours: no signal is for it, and it has no place among the processes (rule P2).
    pub fn is_attached(&self) -> bool {
        self.kind == Kind::Attached
    }

    /// Whether a process is wished for, should its turn have come.
    pub fn wants_process(&self) -> bool {
        match self.goal {
            Goal::Up => self.stays() || !self.mailbox.nothing_due(),
            Goal::Drain => !self.mailbox.nothing_due(),
            Goal::Down => false,
        }
    }

    /// Whether a process may start now, but for delays. This is the gate: the worker is the oldest of its line, and
    /// no life of it is left. Behind it a pause of an operator.
    pub fn may_start(&self) -> bool {
        self.older.is_none() && self.life.is_none() && self.wants_process() && self.suspended.is_none()
    }

    /// Whether too many crashes have paused it.
    pub fn is_paused(&self, now: Instant) -> bool {
        self.paused && self.life.is_none() && now < self.backoff_until
    }

    /// Counts something that its process must not say, and keeps the words for people.
    pub fn violated(&mut self, detail: &str) {
        let violations = self.violations.get_or_insert_default();
        violations.count += 1;
        if violations.last.len() == KEPT_MAX {
            violations.last.pop_front();
        }
        violations.last.push_back((self.generation, detail[..detail.floor_char_boundary(VIOLATION_BYTES_MAX)].into()));
        if let Some(life) = &mut self.life {
            life.violated = true;
        }
    }

    /// Why the start or the life failed, with what it said wrong before.
    pub fn told_failure(&self, life: &mut Life) -> Option<Box<str>> {
        let last = self.violations.as_ref().filter(|_| life.violated).and_then(|violations| violations.last.back());
        match (life.failure.take(), last) {
            (Some(failure), Some((_, words))) => {
                Some(format!("{failure}; the last thing it said wrong: {words}").into())
            }
            (failure, _) => failure,
        }
    }

    /// Whether the process is to be given a message now, the next in turn.
    pub fn takes(&self, now: Instant, next: &Envelope) -> bool {
        let open = self.goal != Goal::Down && self.suspended.is_none();
        let Some(life) = self.life.as_ref().filter(|life| life.accepts() && open) else { return false };
        // What may expire is not sent ahead: it could not be called back.
        let ahead = || life.in_flight.charge_ahead() + next.charge() <= SENT_AHEAD_BYTES_MAX;
        let may_be_ahead = || life.in_flight.len() < self.window(life) && next.expires == Instant::NEVER && ahead();
        next.expires > now && (life.in_flight.is_empty() || may_be_ahead())
    }

    /// How many unsettled messages the process may have. One for a worker that a kill only
    /// empties: what is emptied then has surely not begun. Also while it has no class, which may come back.
    pub fn window(&self, life: &Life) -> usize {
        if self.kept || self.is_attached() { 1 } else { life.window as usize }
    }

    /// One who kills now, or drains.
    pub fn killer(&self, now: Instant, reply: ReplyTo) -> Killer {
        let living = self.life.as_ref().filter(|life| life.exit.is_none());
        Killer {
            reply,
            since: now,
            discarded: 0,
            task: living.and_then(|life| life.running()),
            current: Current::None,
            ended_before: Generation(self.generation.0 - u64::from(living.is_some())),
        }
    }

    /// Notes for those who killed what became of a task: of the one that ran at their kill; of a later one, which
    /// only a drain has, when the kill interrupted it.
    pub fn note(&mut self, task: MessageId, current: Current) {
        let cut = current == Current::Interrupted && self.goal == Goal::Down;
        let meant = |killer: &&mut Killer| killer.task == Some(task) || cut;
        for killer in self.killers.iter_mut().filter(meant) {
            killer.current = current;
        }
    }

    /// The next point in time at which something is to be done.
    pub fn deadline(&self) -> Instant {
        let own = match &self.life {
            Some(life) if self.is_halted(life) => Instant::NEVER,
            Some(life) => life.deadline(&self.policy).min(self.task_deadline(life)).min(self.idle_deadline(life)),
            None if self.queued => Instant::NEVER,
            None if self.may_start() => self.backoff_until,
            None => Instant::NEVER,
        };
        own.min(self.drain_deadline)
    }

    /// When its task has taken too long (rule D6), or it is to be seen which task it executes.
    pub fn task_deadline(&self, life: &Life) -> Instant {
        let timed = life.task_is_timed() && !self.is_halted(life);
        let Some(timeout) = self.policy.task_timeout.filter(|_| timed) else { return Instant::NEVER };
        let ahead = life.marked && self.window(life) > 1;
        let again = life.looked.after((timeout / LOOKS).max(LOOK_AFTER_MIN));
        let look = if ahead || life.looking { again } else { Instant::NEVER };
        let limit = if life.looking { Instant::NEVER } else { life.since.after(timeout) };
        limit.min(look)
    }

    /// When it has had nothing to do for too long (rule W6).
    pub fn idle_deadline(&self, life: &Life) -> Instant {
        let idle = life.accepts() && life.in_flight.is_empty() && self.mailbox.nothing_due() && !self.is_halted(life);
        match self.policy.idle_timeout.filter(|_| idle && !self.stays() && self.goal == Goal::Up) {
            Some(timeout) => life.since.after(timeout),
            None => Instant::NEVER,
        }
    }
}

/// The slot of a process of which the shell has not said yet that it is there.
pub(crate) const UNSPAWNED: u32 = u32::MAX;

/// One life of a process, from the command to start it until the proof that it is gone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Life {
    /// The shell's index of it.
    pub slot: u32,
    pub started: Instant,
    /// For how long it was halted in all.
    #[serde(default)]
    pub stood: Duration,
    pub ready: Option<Instant>,
    pub window: u32,
    /// It keeps the mark page.
    pub marked: bool,
    /// Handed over and not settled; the first is the one being executed.
    pub in_flight: InFlight,
    /// When, as far as is known, the first of them was begun; without any, when the last one ended.
    pub since: Instant,
    /// The last task that it was given.
    #[serde(default)]
    pub given: MessageId,
    /// Tasks of which it was told that they are not wanted any more, of those that it has.
    #[serde(default)]
    pub cancelled: BTreeSet<MessageId>,
    /// The last task that was settled.
    pub settled: MessageId,
    /// The last task that it has settled in words.
    pub told: MessageId,
    /// When it was last looked at how far it has come.
    pub looked: Instant,
    /// That look is not answered.
    pub looking: bool,
    /// The task that took too long.
    pub timed_out: Option<MessageId>,
    /// It was asked to end because it had nothing to do: its end is no failure.
    pub idled: bool,
    /// It is to end so that one of a newer class takes its place: its end is no failure.
    #[serde(default)]
    pub replaced: bool,
    pub connected: bool,
    pub stop: Option<Stop>,
    /// Receipts of kills that wait for the answer to Ask.
    pub held: Vec<Killer>,
    pub ask_pending: bool,
    /// The answer to Ask named a task as begun that the process may yet drop, because it saw the stop
    /// flag just then: it is asked again here. Each time is twice as long, so that a long task costs little.
    pub ask_again: Instant,
    pub ask_again_after: Duration,
    /// The first of the two facts that end a life.
    pub exit: Option<(Exit, Instant)>,
    pub swept: Instant,
    /// A task was charged at the exit.
    pub charged: bool,
    /// It said something that it must not say.
    pub violated: bool,
    /// Why the start or the life failed, for people.
    pub failure: Option<Box<str>>,
    /// How far the start had come, if it is that which failed.
    pub failed_stage: Option<StartStage>,
}

impl Life {
    pub fn new(now: Instant) -> Life {
        Life {
            slot: UNSPAWNED,
            started: now,
            stood: Duration::ZERO,
            ready: None,
            window: 1,
            marked: false,
            in_flight: InFlight::default(),
            since: now,
            given: MessageId(0),
            cancelled: BTreeSet::new(),
            settled: MessageId(0),
            told: MessageId(0),
            looked: now,
            looking: false,
            timed_out: None,
            idled: false,
            replaced: false,
            connected: true,
            stop: None,
            held: Vec::new(),
            ask_pending: false,
            ask_again: Instant::NEVER,
            ask_again_after: REPEAT,
            exit: None,
            swept: now,
            charged: false,
            violated: false,
            failure: None,
            failed_stage: None,
        }
    }

    /// The task that is executed.
    pub fn running(&self) -> Option<MessageId> {
        self.in_flight.front().map(|message| message.task)
    }

    /// Whether it may be given messages.
    pub fn accepts(&self) -> bool {
        self.ready.is_some() && self.connected && self.stop.is_none() && self.exit.is_none()
    }

    /// Whether its task may take too long: no step of the ladder is under way that ends the process anyway.
    fn task_is_timed(&self) -> bool {
        let asked = self.stop.as_ref().is_none_or(Stop::waits_for_task);
        !self.in_flight.is_empty() && asked && self.exit.is_none()
    }

    /// How its program ended; none if it was never executed, and only what was to prepare it ran.
    pub fn exit_of_program(&self) -> Option<Exit> {
        let prepared = !matches!(self.failed_stage, Some(StartStage::Setup | StartStage::Exec));
        self.exit.filter(|_| prepared).map(|(exit, _)| exit)
    }

    /// The start has failed. What was said first is the cause of what is said later.
    pub fn start_failed(&mut self, stage: StartStage, detail: Box<str>) {
        if self.failure.is_none() {
            (self.failure, self.failed_stage) = (Some(detail), Some(stage));
        }
    }

    /// When its process ended; now if it has not.
    pub fn ended(&self, now: Instant) -> Instant {
        self.exit.map_or(now, |(_, at)| at)
    }

    /// Whether it did anything that speaks against delaying its successor.
    pub fn healthy(&self, now: Instant) -> bool {
        self.settled.0 > 0 || self.ready.is_some_and(|ready| self.ended(now).since(ready) >= HEALTHY_AFTER)
    }

    fn deadline(&self, policy: &Policy) -> Instant {
        if self.exit.is_some() {
            return self.swept.after(REPEAT);
        }
        match (&self.stop, self.ready) {
            (Some(stop), _) => stop.deadline(policy).min(self.ask_again),
            (None, None) => self.started.after(policy.start_timeout).after(self.stood),
            (None, Some(_)) => Instant::NEVER,
        }
    }
}
