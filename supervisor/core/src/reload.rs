//! A new configuration, in one step: the limits of the whole, and a policy for each worker that is there.
//!
//! What a class says of the mailbox holds at once. What it says of a process holds for the processes that are started
//! from here on: one that lives keeps the class it was started with until it ends, and the new one waits beside it
//! ([`Worker::renewed`]). With `restart` it is asked to end after its current task, and what it was sent ahead waits for
//! the next one; that it ends is no failure.
//!
//! A limit that is lower than what is in use drops nothing: what comes newly is refused until there is room.
//!
//! A worker that has no class any more is *retired*: what it has is executed, under the class that it had, and nothing
//! new is taken. It is removed when it has nothing left and no process, or by a kill; at once if it rests.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::event::Mark;
use crate::kind::Kind;
use crate::news::Change;
use crate::policy::{Limits, Policy};
use crate::registry::Core;
use crate::stop::{Step, Stop};
use crate::time::Instant;
use crate::worker::{Life, Worker};
use crate::workers::Seat;

/// What the new configuration says of a worker.
#[derive(Clone, Debug)]
pub enum Renewal {
    /// The same as before.
    Same(Arc<Policy>),
    /// Something else, of the policy or of what only the shell knows.
    Changed(Arc<Policy>),
    /// No class has its name.
    Gone,
}

/// What became of the workers whose class is not what it was, or whose process was started under an older one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// They have the new class: there is no process, or none that was started under another.
    pub renewed: u64,
    /// Their process goes on under an older class, and the next one has the new class.
    pub kept: u64,
    /// Their process was asked to end, to make place for one of the new class.
    pub restarted: u64,
    /// They have no class any more, and go on until they have nothing left.
    pub retired: u64,
    /// They had no class any more, and nothing: they are gone.
    pub removed: u64,
}

impl Core {
    /// Takes a new configuration. `renewal` is asked once for each worker, with its name and the policy that it had
    /// last.
    pub fn reload(
        &mut self,
        now: Instant,
        limits: Limits,
        restart: bool,
        mut renewal: impl FnMut(&str, &Policy) -> Renewal,
    ) -> Reloaded {
        self.now = now;
        self.set_limits(limits);
        let mut done = Reloaded::default();
        // In the order of their numbers: places are others after an upgrade.
        let mut all: Vec<_> = self.workers.seats().map(|(index, seat)| (seat.number(), index)).collect();
        all.sort_unstable();
        for (_, index) in all {
            let Some(seat) = self.workers.seat(index as usize) else { continue };
            match seat {
                // It goes on under the class that it was started with, and ends with its method.
                Seat::Awake(worker) if worker.kind == Kind::Run => continue,
                Seat::Awake(worker) if worker.is_attached() => {
                    let renewal = renewal(&worker.identity.name, worker.newest_policy());
                    self.renew_attached(index, renewal, &mut done);
                    continue;
                }
                _ => {}
            }
            let (renewal, rests) = (renewal(seat.name(), seat.newest_policy()), matches!(seat, Seat::Resting(_)));
            match renewal {
                Renewal::Gone if rests => {
                    self.workers.wake(index);
                    self.remove(now, index, None);
                    done.removed += 1;
                }
                Renewal::Gone => {
                    self.retire(now, index);
                    done.retired += 1;
                }
                Renewal::Same(policy) if rests => drop(self.workers.set_policy(index, policy)),
                Renewal::Changed(policy) if rests => {
                    self.workers.set_policy(index, policy);
                    done.renewed += 1;
                }
                Renewal::Same(policy) => self.renew(now, index, policy, false, restart, &mut done),
                Renewal::Changed(policy) => self.renew(now, index, policy, true, restart, &mut done),
            }
        }
        self.finish_step();
        done
    }

    /// Limits that may be lower than what is in use.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.places_at_reload = self.places;
    }

    /// There is no next life to wait for, and no process of ours to be ended: it has its name until it leaves, also when
    /// no class has it any more.
    fn renew_attached(&mut self, index: u32, renewal: Renewal, done: &mut Reloaded) {
        let (policy, changed) = match renewal {
            Renewal::Gone => return,
            Renewal::Same(policy) => (policy, false),
            Renewal::Changed(policy) => (policy, true),
        };
        self.workers[index as usize].policy = policy;
        done.renewed += u64::from(changed);
        self.follow_class(index);
        self.arm(index);
        self.touch(index);
    }

    fn renew(
        &mut self,
        now: Instant,
        index: u32,
        policy: Arc<Policy>,
        changed: bool,
        restart: bool,
        done: &mut Reloaded,
    ) {
        let worker = &mut self.workers[index as usize];
        let back = core::mem::take(&mut worker.retired);
        let lives = worker.life.is_some();
        match lives && (changed || worker.renewed.is_some()) {
            true => worker.renewed = Some(policy),
            false => worker.policy = policy,
        }
        let outdated = worker.renewed.is_some();
        self.follow_class(index);
        match (outdated, restart) {
            (true, true) => {
                self.replace(now, index);
                done.restarted += 1;
            }
            (true, false) => done.kept += 1,
            (false, _) => done.renewed += u64::from(changed),
        }
        if back && !lives {
            // A process may be wished for again without messages (rule W5).
            self.try_start(now, index);
        }
        self.arm(index);
        self.touch(index);
    }

    fn retire(&mut self, now: Instant, index: u32) {
        let worker = &mut self.workers[index as usize];
        let first = !core::mem::replace(&mut worker.retired, true);
        if first {
            self.note(index, Change::Retired);
        }
        let worker = &self.workers[index as usize];
        if worker.life.is_none() {
            // What it waits for may not be wished for any more.
            self.try_start(now, index);
        }
        self.arm(index);
        self.touch(index);
    }

    /// Asks a process to end, to make place for the next one, unless it is about to end anyway.
    fn replace(&mut self, now: Instant, index: u32) {
        let worker = &mut self.workers[index as usize];
        let living = worker.life.as_mut().filter(|life| life.exit.is_none() && life.stop.is_none());
        let Some(life) = living else { return };
        life.replaced = true;
        // One that is not ready yet is asked when it is: until then the deadline of its start holds.
        if life.ready.is_some() {
            self.ask_to_make_place(now, index);
        }
    }

    /// The life must be there, and ready.
    pub(crate) fn ask_to_make_place(&mut self, now: Instant, index: u32) {
        let worker = &mut self.workers[index as usize];
        let process = worker.key(index);
        if worker.suspended.is_some() {
            // It is asked when it goes on.
            return;
        }
        let Some(life) = &mut worker.life else { return };
        life.stop = Some(Stop::new(now, Step::Ask, !life.in_flight.is_empty()));
        let slot = life.slot;
        self.note(index, Change::Replaced);
        self.ask(index, process, slot, true);
        self.arm(index);
        self.touch(index);
    }

    /// The answer to the Ask of a process that makes place: what it has not begun waits for the next one.
    pub(crate) fn take_back(&mut self, index: u32, mark: Mark) {
        let Some(life) = &mut self.workers[index as usize].life else { return };
        let begun = life.in_flight.partition_point(|message| message.task <= mark.begun);
        let back = life.in_flight.split_off(begun);
        if begun == 0 && !back.is_empty() {
            self.ledger.unbegin();
        }
        self.give_back(index, back);
    }
}

impl Worker {
    /// What its class says now, also while a process lives that was started under an older one.
    pub fn newest_policy(&self) -> &Arc<Policy> {
        self.renewed.as_ref().unwrap_or(&self.policy)
    }

    /// A life is over: from here on the class is the newest.
    pub fn end_life(&mut self) -> Option<Life> {
        if let Some(policy) = self.renewed.take() {
            self.policy = policy;
        }
        self.life.take().map(|life| *life)
    }
}
