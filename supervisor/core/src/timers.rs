//! What happens by the passing of time.

use workhall_protocol::terms::{EndedBy, StartStage};

use crate::deadlines::Due;
use crate::effect::Effect;
use crate::event::ProcessKey;
use crate::news::Change;
use crate::registry::Core;
use crate::stop::{Step, Stop};
use crate::time::Instant;
use crate::worker::UNSPAWNED;

impl Core {
    /// The next point in time at which [`Core::tick`] has something to do.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        while let Some((at, due)) = self.deadlines.next() {
            if self.holds(at, due) {
                return Some(at);
            }
            self.deadlines.pop();
        }
        None
    }

    /// Does what is due by now.
    pub fn tick(&mut self, now: Instant) {
        self.now = now;
        while let Some((at, due)) = self.deadlines.next() {
            if at > now {
                break;
            }
            self.deadlines.pop();
            if !self.holds(at, due) {
                continue;
            }
            match due {
                Due::Worker { index, .. } => {
                    self.workers[index as usize].wake_at = Instant::NEVER;
                    self.worker_due(now, index);
                }
                Due::Message { index, task, .. } => {
                    let worker = &mut self.workers[index as usize];
                    if let Some(message) = worker.mailbox.remove(task) {
                        self.expired(now, index, message);
                        self.pump(now, index);
                        if self.workers.contains(index as usize) {
                            self.remove_if_drained(now, index);
                        }
                    }
                }
                Due::Later { index, id, .. } => self.enter(now, at, index, id),
                Due::Shutdown => self.shutdown_is_over(now),
                Due::Signal { id } => self.signal_due(now, id),
            }
            self.finish_step();
        }
    }

    fn worker_due(&mut self, now: Instant, index: u32) {
        let worker = &mut self.workers[index as usize];
        if worker.drain_deadline <= now {
            worker.drain_deadline = Instant::NEVER;
            return self.cut_drain(now, index);
        }
        if worker.deadline() > now {
            self.arm(index);
            // It may have nothing to do any more, and have waited for this alone.
            return self.idle.push(index);
        }
        let process = worker.key(index);
        if worker.life.is_none() {
            self.bury_expired(now, index);
            self.remove_if_drained(now, index);
            return if self.workers.contains(index as usize) {
                self.try_start(now, index)
            };
        }
        let Some(life) = &worker.life else { return };
        let (late_task, idle) = (worker.task_deadline(life) <= now, worker.idle_deadline(life) <= now);
        let Some(life) = &mut worker.life else { return };
        let slot = life.slot;
        if life.exit.is_some() {
            life.swept = now;
            self.emit(Effect::Sweep { process, slot });
        } else if late_task && life.marked {
            // It may have come further than it has said.
            life.looking = true;
            life.looked = now;
            self.emit(Effect::Look { process, slot });
        } else if late_task {
            self.time_out(now, index);
        } else if idle {
            self.end_idle(now, index);
        } else if life.ask_again <= now {
            life.ask_again = Instant::NEVER;
            life.ask_again_after = life.ask_again_after.saturating_mul(2);
            // A later step, or a task that has ended, needs no answer any more.
            if life.connected && life.stop.as_ref().is_some_and(Stop::waits_for_task) {
                self.emit(Effect::Ask { process, slot });
            }
        } else if let Some(stop) = &mut life.stop {
            let step = stop.next_step();
            if !life.connected && step == Step::Term {
                life.failure.get_or_insert_with(|| "its connection ended while the process lived".into());
            }
            self.climb(now, index, step);
        } else {
            life.start_failed(StartStage::NotReadyInTime, "not ready in time".into());
            self.climb(now, index, Step::Term);
        }
        self.arm(index);
    }

    /// Goes to a step of the ladder, if it is not there already (Kill repeats).
    pub(crate) fn climb(&mut self, now: Instant, index: u32, step: Step) {
        let worker = &mut self.workers[index as usize];
        let process = worker.key(index);
        let Some(life) = worker.life.as_mut().filter(|life| life.exit.is_none()) else { return };
        let busy = !life.in_flight.is_empty();
        let first = life.stop.as_ref().is_none_or(|stop| !stop.has_begun(step));
        let stop = life.stop.get_or_insert_with(|| Stop::new(now, step, busy));
        if stop.step() > step {
            return;
        }
        stop.enter(now, step);
        if first && step != Step::Ask && !worker.is_attached() {
            let step = if step == Step::Term { EndedBy::Term } else { EndedBy::Kill };
            self.note(index, Change::Signalled { step });
        }
        self.signal(index, process);
        self.arm(index);
        self.touch(index);
    }

    /// Sends the signal of the step that the ladder is at. A process that the shell is starting in this very step
    /// has it as soon as it is there.
    pub(crate) fn signal(&mut self, index: u32, process: ProcessKey) {
        let worker = &self.workers[index as usize];
        let Some(life) = worker.life.as_ref() else { return };
        let slot = life.slot;
        if worker.is_attached() {
            if life.stop.as_ref().is_some_and(|stop| stop.step() > Step::Ask) {
                self.emit(Effect::Close { process, slot });
            }
            return;
        }
        match life.stop.as_ref().map(Stop::step) {
            _ if slot == UNSPAWNED => {}
            None | Some(Step::Ask) => {}
            Some(Step::Term) => self.emit(Effect::Term { process, slot }),
            Some(Step::Kill) => self.emit(Effect::Kill { process, slot }),
        }
    }

    /// The same where it may change with every message: an entry that comes too early is left alone, and looked at
    /// when it comes.
    pub(crate) fn arm_earlier(&mut self, index: u32) {
        let worker = &self.workers[index as usize];
        if worker.deadline() < worker.wake_at {
            self.arm(index);
        }
    }

    /// Sees that the worker's next deadline stands in the heap.
    pub(crate) fn arm(&mut self, index: u32) {
        let worker = &mut self.workers[index as usize];
        let at = worker.deadline();
        if at != worker.wake_at {
            worker.wake_at = at;
            if at != Instant::NEVER {
                let number = worker.identity.number;
                self.push_deadline(at, Due::Worker { index, number });
            }
        }
    }

    pub(crate) fn push_deadline(&mut self, at: Instant, due: Due) {
        self.deadlines.push(at, due);
        // Each worker that is awake has one entry that holds, each message and each signal at most one: beyond that all
        // are dead or doubled.
        let living = self.workers.awake() as u64 + self.ledger.pending + self.signals.len() as u64 + 1;
        if self.deadlines.len() as u64 > 2 * living + 64 {
            let mut deadlines = core::mem::take(&mut self.deadlines);
            deadlines.retain(|at, due| self.holds(at, due));
            self.deadlines = deadlines;
        }
    }

    fn holds(&self, at: Instant, due: Due) -> bool {
        let worker =
            |index: u32, number| self.workers.get(index as usize).filter(|worker| worker.identity.number == number);
        match due {
            Due::Worker { index, number } => worker(index, number).is_some_and(|worker| worker.wake_at == at),
            Due::Message { index, number, task } => {
                worker(index, number).is_some_and(|worker| worker.mailbox.contains(task))
            }
            Due::Later { index, number, id } => {
                worker(index, number).is_some_and(|worker| worker.mailbox.keeps(at, id))
            }
            Due::Shutdown => self.stopping == Some(at),
            Due::Signal { id } => self.signal_is_due(at, id),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use core::time::Duration;

    use workhall_protocol::ids::{MessageId, Target};
    use workhall_protocol::terms::Exit;

    use super::*;
    use crate::event::{AccountId, Call, Event};
    use crate::policy::{CrashLimit, Limits, Policy};
    use crate::time::Instant;

    #[test]
    fn c13_deadlines_of_messages_that_were_executed_do_not_pile_up() {
        let mut core = Core::new(Limits::default(), 1);
        let policy = Arc::new(Policy { mailbox_messages: 10, ..Policy::default() });
        let now = Instant(0);
        let expires = Some(Duration::from_secs(3600));
        let target = Target::Name("a");
        for id in 1..=10_000 {
            let account = AccountId(0);
            let (method, args, after, reply) = ("m", &b""[..], None, None);
            let call = Call { target, method, args, from: None, existing: false, expires, after, account, reply };
            core.call(now, call, |_| Ok(policy.clone()));
            let process = core.workers[0].key(0);
            if id == 1 {
                core.handle(now, Event::Ready { process, window: 1, marked: true });
            }
            core.handle(now, Event::Done { process, id: MessageId(id), result: b"" });
        }
        assert_eq!(core.ledger().done, 10_000);
        assert!(core.deadlines.len() < 200, "{} entries", core.deadlines.len());
    }

    #[test]
    fn c13_deadlines_of_a_message_that_is_tried_again_do_not_pile_up() {
        let mut core = Core::new(Limits::default(), 1);
        let crash_limit = CrashLimit { crashes: 1000, ..CrashLimit::default() };
        let policy = Arc::new(Policy { attempts: 255, crash_limit, ..Policy::default() });
        let mut now = Instant(0);
        let expires = Some(Duration::from_secs(7 * 24 * 3600));
        let (target, method, args) = (Target::Name("a"), "m", &b""[..]);
        let (after, reply, account) = (None, None, AccountId(0));
        let call = Call { target, method, args, from: None, existing: false, expires, after, account, reply };
        core.call(now, call, |_| Ok(policy.clone()));
        for _ in 1..=200 {
            while core.workers[0].life.is_none() {
                now = core.next_deadline().expect("it waits for its delay");
                core.tick(now);
            }
            let process = core.workers[0].key(0);
            core.handle(now, Event::Spawned { process, slot: 0 });
            core.handle(now, Event::Ready { process, window: 1, marked: false });
            core.handle(now, Event::Exited { process, exit: Exit::Signal(11), mark: None });
            core.handle(now, Event::TreeGone { process });
        }
        assert_eq!((core.workers[0].crashes, core.ledger().pending), (200, 1));
        assert!(core.deadlines.len() < 100, "{} entries", core.deadlines.len());
    }
    #[test]
    fn names_whose_process_has_ended_rest_and_leave_no_deadlines() {
        let mut core = Core::new(Limits::default(), 1);
        let policy = Arc::new(Policy::default());
        let now = Instant(0);
        let (method, args, account) = ("m", &b""[..], AccountId(0));
        let (from, expires, after, reply) = (None, None, None, None);
        let lives = |core: &mut Core, name: &str, index: usize, id: u64| {
            let target = Target::Name(name);
            let call = Call { target, method, args, from, existing: false, expires, after, account, reply };
            core.call(now, call, |_| Ok(policy.clone()));
            let process = core.workers[index].key(index as u32);
            core.handle(now, Event::Ready { process, window: 1, marked: true });
            core.handle(now, Event::Done { process, id: MessageId(id), result: b"" });
            core.handle(now, Event::Exited { process, exit: Exit::Code(0), mark: None });
            core.handle(now, Event::TreeGone { process });
        };
        for n in 0..1000 {
            lives(&mut core, &alloc::format!("worker {n}"), n as usize, n + 1);
        }
        assert_eq!((core.workers.len(), core.workers.awake()), (1000, 0));
        assert!(core.deadlines.len() < 100, "{} entries", core.deadlines.len());
        core.forget_waits(core::num::NonZeroU64::MIN);
        let view = core.worker(now, Target::Name("worker 7")).expect("it is there");
        assert_eq!((view.executed, view.exits().count(), view.startup_method), (1, 1, Some("m")));
        lives(&mut core, "worker 7", 7, 1001);
        assert_eq!(core.worker(now, Target::Name("worker 7")).map(|view| view.generation.0), Some(2));
        core.shutdown(now, Duration::ZERO);
        assert!(core.workers.is_empty() && core.worker(now, Target::Name("worker 7")).is_none());
    }

    #[test]
    fn a_worker_whose_message_expires_during_a_delay_rests() {
        let mut core = Core::new(Limits::default(), 1);
        let policy = Arc::new(Policy::default());
        let mut now = Instant(0);
        let (method, args, account) = ("m", &b""[..], AccountId(0));
        let (from, after, reply) = (None, None, None);
        for n in 0..100_u32 {
            let name = alloc::format!("worker {n}");
            let (target, expires) = (Target::Name(&name), Some(Duration::from_millis(60)));
            let call = Call { target, method, args, from, existing: false, expires, after, account, reply };
            core.call(now, call, |_| Ok(policy.clone()));
            for _ in 0..2 {
                let process = core.workers[n as usize].key(n);
                core.handle(now, Event::Spawned { process, slot: 0 });
                core.handle(now, Event::Exited { process, exit: Exit::Code(1), mark: None });
                core.handle(now, Event::TreeGone { process });
            }
        }
        for _ in 0..100 {
            now = now.after(Duration::from_secs(10));
            core.tick(now);
        }
        assert_eq!((core.workers.len(), core.workers.awake()), (100, 0));
    }
}
