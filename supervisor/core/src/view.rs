//! What people and programs may look at.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use workhall_protocol::ids::{Generation, MessageId, WorkerNumber};
use workhall_protocol::terms::{EndedBy, Exit, StartStage};

use crate::event::ProcessKey;
use crate::kind::Kind;
use crate::mailbox::Identity;
use crate::policy::Policy;
use crate::registry::Core;
use crate::resting::Resting;
use crate::time::Instant;
use crate::worker::{Goal, Life, UNSPAWNED, Violations, Worker};
use crate::workers::Seat;

/// The state of a worker, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No process.
    Absent,
    /// Its process is not ready yet.
    Starting,
    /// Its process waits for a message.
    Idle,
    /// Its process executes one.
    Busy,
    /// Its process is to end, or has ended and left something behind.
    Ending,
    /// Its next process waits after a death.
    Backoff,
    /// The same, for longer: it died too often (rule D4). Or an operator has paused it (rule P4): then it may have a
    /// process, which is stopped.
    Paused,
}

/// The task that is executed.
#[derive(Clone, Copy, Debug)]
pub struct Running<'a> {
    /// Its message.
    pub id: MessageId,
    /// Its method.
    pub method: &'a str,
    /// For how long.
    pub age: Duration,
}

/// How the last life ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    /// Which life.
    pub generation: Generation,
    /// How; none if no process ever ran.
    pub exit: Option<Exit>,
    /// How far the start had come, if that is what failed.
    pub stage: Option<StartStage>,
    /// What went wrong at the start, if that is why.
    pub failure: Option<Box<str>>,
    /// When.
    pub at: Instant,
}

/// The step of the stop ladder that a process is at (rule K4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndingView {
    /// Which.
    pub step: EndedBy,
    /// For how long.
    pub age: Duration,
    /// Until the next one, or until SIGKILL is sent again; none while a task without a limit runs.
    pub next_in: Option<Duration>,
}

/// All about one worker.
#[derive(Clone, Debug)]
pub struct WorkerView<'a> {
    /// Its place among the workers, which it keeps.
    pub place: u32,
    /// Name and number.
    pub identity: Cow<'a, Identity>,
    /// What it is.
    pub kind: Kind,
    /// Its class.
    pub class: &'a str,
    /// In one word.
    pub state: State,
    /// For how long it is so.
    pub state_age: Duration,
    /// How far the end of its process has come.
    pub ending: Option<EndingView>,
    /// It was killed or is drained: newer calls go to its successor.
    pub closed: bool,
    /// The current life, else the last one.
    pub generation: Generation,
    /// The shell's index of the process, if there is one.
    pub slot: Option<u32>,
    /// Messages that wait.
    pub pending: u64,
    /// Bytes charged for all its messages.
    pub bytes: u64,
    /// The most messages it may have.
    pub mailbox_messages: u64,
    /// The most bytes they may have.
    pub mailbox_bytes: u64,
    /// What is executed.
    pub running: Option<Running<'a>>,
    /// Tasks that ended by themselves.
    pub executed: u64,
    /// Deaths that nobody asked for.
    pub crashes: u64,
    /// Deaths in a row without a healthy life between.
    pub failures_in_a_row: u16,
    /// Until the next start, at the earliest, in backoff or paused after crashes; none if an operator has paused it.
    pub next_start_in: Option<Duration>,
    /// For how long an operator has paused it (rule P4).
    pub suspended: Option<Duration>,
    /// Its next process waits until there are fewer of other workers.
    pub queued: bool,
    /// Who keeps the next process from starting, for people (rule D7).
    pub waits_for: Option<&'a str>,
    /// Its process was started under an older configuration of its class.
    pub outdated: bool,
    /// No class has its name any more: it takes nothing new.
    pub retired: bool,
    /// Things its processes said that they must not say.
    pub violations: u64,
    /// The oldest message that waits is this old.
    pub oldest: Option<Duration>,
    /// Its startup method.
    pub startup_method: Option<&'a str>,
    /// How long it exists.
    pub age: Duration,
    /// How long the current process lives.
    pub process_age: Option<Duration>,
    policy: &'a Policy,
    exits: Cow<'a, VecDeque<LastExit>>,
    said_wrong: Option<&'a Violations>,
}

impl<'a> WorkerView<'a> {
    /// The current life, else the last one, as facts and commands name it.
    pub fn process(&self) -> ProcessKey {
        ProcessKey { index: self.place, number: self.identity.number, generation: self.generation }
    }

    /// What its class allows.
    pub fn policy(&self) -> &'a Policy {
        self.policy
    }

    /// How its last lives ended, the newest first.
    pub fn exits(&self) -> impl Iterator<Item = &LastExit> {
        self.exits.iter().rev()
    }

    /// The last things its processes said that they must not say, with the life that said it, the newest first.
    pub fn last_violations(&self) -> impl Iterator<Item = (Generation, &'a str)> {
        let violations = self.said_wrong.into_iter().flat_map(|violations| violations.last.iter().rev());
        violations.map(|(generation, words)| (*generation, &**words))
    }
}

impl Core {
    /// All workers, in no particular order.
    pub fn workers(&self, now: Instant) -> impl Iterator<Item = WorkerView<'_>> {
        self.workers_from(now, 0)
    }

    /// Those from a place on, in the order of their places.
    pub fn workers_from(&self, now: Instant, place: u32) -> impl Iterator<Item = WorkerView<'_>> {
        self.workers.seats_from(place).map(move |(place, seat)| view(place, seat, now))
    }

    /// All workers of this name, the newest first: behind the one that takes calls those that are still ending.
    pub fn line(&self, name: &str) -> impl Iterator<Item = WorkerNumber> {
        let seat = |index: u32| self.workers.seat(index as usize);
        core::iter::successors(self.find_name(name), move |index| match seat(*index) {
            Some(Seat::Awake(worker)) => worker.older,
            _ => None,
        })
        .filter_map(move |index| Some(seat(index)?.number()))
    }
}

pub(crate) fn view(place: u32, seat: Seat<'_>, now: Instant) -> WorkerView<'_> {
    match seat {
        Seat::Awake(worker) => view_awake(place, worker, now),
        Seat::Resting(resting) => view_resting(place, resting, now),
    }
}

fn view_resting(place: u32, resting: &Resting, now: Instant) -> WorkerView<'_> {
    let (facts, startup_method) = resting.facts();
    let is_paused = facts.paused && now < facts.backoff_until;
    WorkerView {
        place,
        identity: Cow::Owned(resting.identity()),
        kind: Kind::Called,
        class: &resting.policy.class,
        state: if is_paused { State::Paused } else { State::Absent },
        state_age: now.since(facts.exits.back().map_or(facts.created, |exit| exit.at)),
        ending: None,
        closed: false,
        generation: facts.generation,
        slot: None,
        pending: 0,
        bytes: 0,
        mailbox_messages: resting.policy.mailbox_messages,
        mailbox_bytes: resting.policy.mailbox_bytes,
        running: None,
        executed: facts.executed,
        crashes: facts.crashes,
        failures_in_a_row: facts.failures.in_a_row(),
        next_start_in: is_paused.then(|| facts.backoff_until.since(now)),
        suspended: None,
        queued: false,
        waits_for: None,
        outdated: false,
        retired: false,
        violations: 0,
        oldest: None,
        startup_method,
        age: now.since(facts.created),
        process_age: None,
        policy: &resting.policy,
        exits: Cow::Owned(facts.exits),
        said_wrong: None,
    }
}

fn view_awake(place: u32, worker: &Worker, now: Instant) -> WorkerView<'_> {
    let life = worker.life.as_deref();
    let running = life.and_then(|life| {
        let message = life.in_flight.front()?;
        let age = worker.own_time(life, now).since(life.since);
        Some(Running { id: message.id, method: message.method(), age })
    });
    let waits_for_start = life.is_none() && worker.wants_process() && worker.suspended.is_none();
    let stop = life.and_then(|life| life.stop.as_ref()).filter(|_| life.is_some_and(|life| life.exit.is_none()));
    WorkerView {
        place,
        identity: Cow::Borrowed(&worker.identity),
        kind: match worker.identity.number {
            WorkerNumber::MAIN => Kind::Main,
            _ => worker.kind,
        },
        class: &worker.policy.class,
        state: match life {
            // Also with nothing pending: its class may refuse calls because of it.
            None if worker.is_paused(now) || worker.suspended.is_some() => State::Paused,
            None if waits_for_start && now < worker.backoff_until => State::Backoff,
            None => State::Absent,
            Some(life) if life.stop.is_some() || life.exit.is_some() => State::Ending,
            Some(_) if worker.suspended.is_some() => State::Paused,
            Some(life) if life.ready.is_none() => State::Starting,
            Some(_) if running.is_some() => State::Busy,
            Some(_) => State::Idle,
        },
        state_age: now.since(match life {
            None => {
                let last = worker.exits.as_ref().and_then(|exits| exits.back());
                worker.suspended.unwrap_or_default().max(last.map_or(worker.created, |exit| exit.at))
            }
            Some(life) if worker.is_halted(life) => worker.own_time(life, now),
            Some(Life { exit: Some((_, at)), stop: None, .. }) => *at,
            Some(Life { stop: Some(stop), .. }) => stop.began_at(),
            Some(life) if life.ready.is_none() => life.started,
            Some(life) => life.since,
        }),
        ending: stop.map(|stop| EndingView {
            step: stop.ended_by(),
            age: now.since(stop.step_began_at()),
            next_in: Some(stop.deadline(&worker.policy)).filter(|at| *at < Instant::NEVER).map(|at| at.since(now)),
        }),
        closed: match worker.kind {
            // It is drained from the first, and takes no calls at all.
            Kind::Run => worker.goal == Goal::Down,
            _ => worker.goal != Goal::Up,
        },
        generation: worker.generation,
        slot: life.map(|life| life.slot).filter(|slot| *slot != UNSPAWNED),
        pending: worker.messages() - worker.running(),
        bytes: worker.charged,
        mailbox_messages: worker.newest_policy().mailbox_messages,
        mailbox_bytes: worker.newest_policy().mailbox_bytes,
        running,
        executed: worker.executed,
        crashes: worker.crashes,
        failures_in_a_row: match life.is_some_and(|life| life.healthy(now)) {
            // Said as it is, though it is counted so only when this life is over.
            true => 0,
            false => worker.failures.in_a_row(),
        },
        next_start_in: (worker.suspended.is_none() && worker.is_paused(now)
            || waits_for_start && now < worker.backoff_until)
            .then(|| worker.backoff_until.since(now)),
        suspended: worker.suspended_for(now),
        queued: worker.queued,
        outdated: worker.renewed.is_some(),
        retired: worker.retired,
        violations: worker.violations.as_ref().map_or(0, |violations| violations.count),
        // What was sent ahead waits too, and came before what is in the mailbox.
        oldest: life
            .and_then(|life| life.in_flight.iter().nth(1).map(|message| message.accepted))
            .or_else(|| worker.mailbox.envelopes().map(|message| message.accepted).next())
            .map(|accepted| now.since(accepted)),
        waits_for: worker.held.as_ref().filter(|_| waits_for_start).map(|held| held.detail()),
        startup_method: worker.startup.as_deref(),
        age: now.since(worker.created),
        process_age: life.map(|life| now.since(life.started)),
        policy: &worker.policy,
        exits: worker.exits.as_deref().map_or_else(Default::default, Cow::Borrowed),
        said_wrong: worker.violations.as_deref(),
    }
}
