//! A worker at rest: it has no process, no message, and nobody waits for anything of it. Most names of a large installation
//! are at rest most of the time, so all that is left of them is their name and what people may want to know, packed.
//!
//! What has a meaning only while something happens is not kept: a worker rests only where it is as at first.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use workhall_protocol::ids::{Generation, WorkerName, WorkerNumber};
use workhall_protocol::terms::{Exit, StartStage};

use crate::kind::Kind;
use crate::mailbox::Identity;
use crate::policy::Policy;
use crate::restart::Failures;
use crate::time::Instant;
use crate::view::LastExit;
use crate::worker::{Goal, Worker};

#[derive(Clone, Debug)]
pub(crate) struct Resting {
    pub name: WorkerName,
    pub policy: Arc<Policy>,
    /// Its number first.
    packed: Box<[u8]>,
}

/// What is packed, but for the startup method, which is the rest of the bytes.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub created: Instant,
    pub generation: Generation,
    pub executed: u64,
    pub crashes: u64,
    pub paused: bool,
    pub backoff_until: Instant,
    pub failures: Failures,
    pub exits: VecDeque<LastExit>,
    has_startup: bool,
}

impl Worker {
    /// Whether there is nothing of it that rest would forget.
    pub fn may_rest(&self) -> bool {
        let alone = self.older.is_none() && self.newer.is_none() && self.killers.is_empty() && !self.watched;
        let idle = self.life.is_none() && self.mailbox.len() == 0 && !self.kept && !self.place && !self.queued;
        let timeless = self.drain_deadline == Instant::NEVER && self.wake_at == Instant::NEVER;
        let silent = self.violations.is_none() && self.held.is_none() && self.suspended.is_none();
        alone && idle && timeless && silent && self.goal == Goal::Up && self.kind == Kind::Called
    }

    /// Whether no class has its name, and there is nothing left of it to be done or to be said: then it is removed. What
    /// rest would forget keeps no other from its place.
    pub fn may_leave(&self) -> bool {
        let alone = self.older.is_none() && self.newer.is_none() && self.killers.is_empty() && !self.watched;
        let idle = self.life.is_none() && self.mailbox.len() == 0 && !self.place;
        self.retired && alone && idle
    }
}

impl Resting {
    /// Of a worker that may rest. A delay that is over by `now` is forgotten.
    pub fn new(worker: Worker, now: Instant) -> Resting {
        debug_assert!(worker.may_rest() && worker.charged == 0);
        let Worker { identity, policy, failures, startup, generation, backoff_until, paused, executed, .. } = &worker;
        let flags = u64::from(*paused) | u64::from(failures.on_trial) << 1 | u64::from(startup.is_some()) << 2;
        let mut to = Packer(Vec::with_capacity(64));
        to.number(identity.number.0);
        to.number(flags);
        to.number(worker.created.0);
        to.number(generation.0);
        to.number(*executed);
        to.number(worker.crashes);
        to.number(if *backoff_until > now { backoff_until.0 } else { 0 });
        to.number(failures.in_a_row.into());
        to.number(failures.recent.iter().flat_map(|recent| recent.iter()).count() as u64);
        for at in failures.recent.iter().flat_map(|recent| recent.iter()) {
            to.number(at.0);
        }
        to.number(worker.exits.iter().flat_map(|exits| exits.iter()).count() as u64);
        for exit in worker.exits.iter().flat_map(|exits| exits.iter()) {
            to.exit(exit, worker.created);
        }
        if let Some(startup) = startup {
            to.0.extend_from_slice(startup.as_bytes());
        }
        Resting { name: identity.name.clone(), policy: policy.clone(), packed: Box::from(&*to.0) }
    }

    pub fn number(&self) -> WorkerNumber {
        WorkerNumber(Unpacker(&self.packed).number())
    }

    pub fn identity(&self) -> Identity {
        Identity { name: self.name.clone(), number: self.number() }
    }

    /// The worker as it was.
    pub fn wake(&self) -> Worker {
        let (facts, startup) = self.facts();
        Worker {
            startup: startup.map(Arc::from),
            generation: facts.generation,
            executed: facts.executed,
            crashes: facts.crashes,
            paused: facts.paused,
            backoff_until: facts.backoff_until,
            failures: facts.failures,
            exits: Some(Box::new(facts.exits)).filter(|exits| !exits.is_empty()),
            ..Worker::new(self.identity(), self.policy.clone(), facts.created)
        }
    }

    #[cfg(test)]
    pub fn packed_bytes(&self) -> usize {
        self.packed.len()
    }

    /// What is packed, and the startup method.
    pub fn facts(&self) -> (Facts, Option<&str>) {
        let mut from = Unpacker(&self.packed);
        let (_number, flags) = (from.number(), from.number());
        let mut facts = Facts {
            created: Instant(from.number()),
            generation: Generation(from.number()),
            executed: from.number(),
            crashes: from.number(),
            backoff_until: Instant(from.number()),
            paused: flags & 1 != 0,
            has_startup: flags & 4 != 0,
            ..Facts::default()
        };
        facts.failures.on_trial = flags & 2 != 0;
        facts.failures.in_a_row = from.number() as u16;
        let recent: VecDeque<_> = (0..from.number()).map(|_| Instant(from.number())).collect();
        facts.failures.recent = Some(Box::new(recent)).filter(|recent| !recent.is_empty());
        facts.exits = (0..from.number()).map(|_| from.exit(facts.created)).collect();
        let startup = facts.has_startup.then(|| from.rest());
        (facts, startup)
    }
}

/// Numbers as bytes of seven bits, the lowest first: most of them are small.
struct Packer(Vec<u8>);

impl Packer {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn exit(&mut self, exit: &LastExit, since: Instant) {
        let LastExit { generation, exit, stage, failure, at } = exit;
        let (kind, status) = match exit {
            None => (0, 0),
            Some(Exit::Code(code)) => (1, *code),
            Some(Exit::Signal(signal)) => (2, *signal),
        };
        let stage = stage.map_or(0, |stage| 1 + STAGES.iter().position(|known| *known == stage).unwrap_or(0));
        self.number(kind | (stage as u64) << 2 | u64::from(failure.is_some()) << 5);
        self.number(u64::from(status as u32));
        self.number(generation.0);
        self.number(at.0.saturating_sub(since.0));
        if let Some(failure) = failure {
            self.number(failure.len() as u64);
            self.0.extend_from_slice(failure.as_bytes());
        }
    }
}

/// In the order of their numbers.
const STAGES: [StartStage; 4] =
    [StartStage::Setup, StartStage::Exec, StartStage::EndedBeforeReady, StartStage::NotReadyInTime];

/// Reads what a [`Packer`] has written.
struct Unpacker<'a>(&'a [u8]);

impl<'a> Unpacker<'a> {
    fn number(&mut self) -> u64 {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let (byte, rest) = self.0.split_first().expect("a number is whole");
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }

    fn exit(&mut self, since: Instant) -> LastExit {
        let (kind, status) = (self.number(), self.number() as u32 as i32);
        let exit = match kind & 3 {
            0 => None,
            1 => Some(Exit::Code(status)),
            _ => Some(Exit::Signal(status)),
        };
        let stage = (kind >> 2 & 7).checked_sub(1).map(|stage| STAGES[stage as usize]);
        let generation = Generation(self.number());
        let at = Instant(since.0 + self.number());
        let failure = (kind >> 5 != 0).then(|| {
            let bytes = self.number() as usize;
            let (text, rest) = self.0.split_at(bytes);
            self.0 = rest;
            text_of(text).into()
        });
        LastExit { generation, exit, stage, failure, at }
    }

    fn rest(&mut self) -> &'a str {
        text_of(core::mem::take(&mut self.0))
    }
}

fn text_of(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).expect("was a str")
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    fn worker() -> Worker {
        let identity = Identity { name: WorkerName::new("a/é").unwrap(), number: WorkerNumber(7) };
        Worker::new(identity, Arc::new(Policy::default()), Instant(1 << 50))
    }

    #[test]
    fn a_worker_that_wakes_is_what_it_was() {
        let exit = |exit, stage, failure: Option<&str>| LastExit {
            generation: Generation(u64::MAX),
            exit,
            stage,
            failure: failure.map(Into::into),
            at: Instant(1 << 51),
        };
        let mut busy = worker();
        busy.startup = Some("début".into());
        (busy.generation, busy.executed, busy.crashes) = (Generation(u64::MAX), 300, 127);
        (busy.paused, busy.backoff_until) = (true, Instant(1 << 60));
        let recent = Some(Box::new([Instant(5), Instant(1 << 50)].into()));
        busy.failures = Failures { in_a_row: u16::MAX, on_trial: true, recent };
        let exits = [
            exit(None, Some(StartStage::Setup), Some("")),
            exit(Some(Exit::Code(-1)), Some(StartStage::NotReadyInTime), Some("too long")),
            exit(Some(Exit::Signal(9)), None, None),
            exit(Some(Exit::Code(0)), Some(StartStage::Exec), None),
        ];
        busy.exits = Some(Box::new(exits.into()));
        let mut named_after_nothing = worker();
        named_after_nothing.startup = Some("".into());
        for worker in [worker(), busy, named_after_nothing] {
            let woken = Resting::new(worker.clone(), Instant(0)).wake();
            assert_eq!(format!("{woken:?}"), format!("{worker:?}"));
        }
    }

    #[test]
    fn a_delay_that_is_over_is_forgotten_and_one_that_lasts_is_not() {
        let mut worker = worker();
        worker.backoff_until = Instant(9);
        for (now, left) in [(8, 9), (9, 0)] {
            assert_eq!(Resting::new(worker.clone(), Instant(now)).wake().backoff_until, Instant(left));
        }
    }
}
