//! Attached workers (rule P2): processes that the supervisor did not start, and that have a name and a mailbox as long as
//! their connection lasts.
//!
//! To the core such a process is a life that is ready from the first, the only one that its worker ever has. It holds no
//! place among the processes, and no signal is ever sent to it: where a ladder would come to SIGTERM or SIGKILL its
//! connection is closed ([`Effect::Close`]). When the connection ends, so does the worker: the task that it executed is
//! dead, *crashed*, and what waited is dead, *abandoned*.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::sync::Arc;

use workhall_protocol::ids::{Generation, Target, WorkerName};
use workhall_protocol::terms::{DeadReason, Refusal};

use crate::dead_letters::Fate;
use crate::event::ProcessKey;
use crate::kind::Kind;
use crate::ledger::Place;
use crate::mailbox::Identity;
use crate::news::Change;
use crate::policy::Policy;
use crate::registry::{Core, Refused};
use crate::time::Instant;
use crate::worker::{Goal, Life};

impl Core {
    /// A process that somebody else has started takes a name (rule P2). `slot` is the shell's index of it, and comes back
    /// with the effects.
    ///
    /// # Errors
    ///
    /// The name is none, or is taken; there are too many workers; the supervisor is stopping.
    pub fn attach(&mut self, now: Instant, name: &str, policy: Arc<Policy>, slot: u32) -> Result<ProcessKey, Refused> {
        self.now = now;
        let attached = self.try_attach(now, name, policy.clone(), slot);
        if let Err(refused) = &attached {
            self.note_refused(refused, Target::Name(name), Some(&policy));
        }
        self.finish_step();
        attached
    }

    fn try_attach(&mut self, now: Instant, name: &str, policy: Arc<Policy>, slot: u32) -> Result<ProcessKey, Refused> {
        if self.stopping.is_some() {
            return Err(Refused::new(Refusal::ShuttingDown, "the supervisor is stopping"));
        }
        let checked = WorkerName::new(name).map_err(|error| Refused::new(Refusal::BadName, error.to_string()))?;
        self.check_free(name)?;
        self.check_workers()?;
        let number = self.take_number();
        let index = self.create(now, Identity { name: checked, number }, policy);
        let worker = &mut self.workers[index as usize];
        worker.kind = Kind::Attached;
        worker.startup = worker.policy.startup_method.clone();
        worker.generation = Generation(1);
        worker.life = Some(Box::new(Life { slot, ready: Some(now), ..Life::new(now) }));
        let process = worker.key(index);
        self.note(index, Change::Attached);
        self.arm(index);
        self.touch(index);
        Ok(process)
    }

    /// An attached worker gives its name back: with `drain` once what is pending is executed, else that is dead at once.
    /// Either way it is asked to end, and is gone when its connection ends.
    pub fn leave(&mut self, now: Instant, process: ProcessKey, drain: bool) {
        self.now = now;
        if self.life(process).is_some() && self.workers[process.index as usize].kind == Kind::Attached {
            let index = process.index;
            self.note(index, Change::Left { drain });
            if !drain {
                self.abandon(now, index);
            }
            let worker = &mut self.workers[index as usize];
            if worker.goal == Goal::Up {
                worker.goal = Goal::Drain;
            }
            // What is there is to be executed.
            self.go_on(now, index);
            match drain {
                true => self.remove_if_drained(now, index),
                false => self.ask_to_leave(now, index),
            }
            self.touch(index);
        }
        self.finish_step();
    }

    /// Its connection has ended.
    pub(crate) fn detach(&mut self, now: Instant, index: u32) {
        let worker = &mut self.workers[index as usize];
        let Some(mut life) = worker.end_life() else { return };
        if worker.goal == Goal::Up {
            self.note(index, Change::Disconnected);
        }
        for message in life.in_flight.take() {
            let timed_out = life.timed_out == Some(message.task);
            match self.stopping {
                None => {
                    let reason = if timed_out { DeadReason::TimedOut } else { DeadReason::Crashed };
                    let fate = Fate { reason, exit: None, may_have_run: true };
                    self.bury(now, index, message, Place::Running, fate);
                }
                Some(_) => {
                    let outcome = self.emptied(true, None);
                    self.settle(index, message.envelope(), Place::Running, outcome);
                }
            }
        }
        self.abandon(now, index);
        self.remove(now, index, None);
    }

    /// What waits for it waits in vain.
    fn abandon(&mut self, now: Instant, index: u32) {
        while let Some(message) = self.workers[index as usize].mailbox.pop_any(&mut self.bodies) {
            let may_have_run = message.may_have_run();
            let fate = Fate { reason: DeadReason::Abandoned, exit: None, may_have_run };
            self.bury(now, index, message, Place::Pending, fate);
        }
    }
}
