//! The end of a life: who is charged, what returns to the mailbox, and when the next one starts (rules D1, D2, D4, D5).

use workhall_protocol::ids::MessageId;
use workhall_protocol::terms::{Current, DeadReason, Exit, StartStage};

use crate::dead_letters::Fate;
use crate::effect::Effect;
use crate::event::{Mark, ProcessKey};
use crate::kind::Kind;
use crate::ledger::Place;
use crate::mailbox::{Envelope, Message};
use crate::news::Change;
use crate::registry::Core;
use crate::restart::Next;
use crate::stop::{Step, Stop};
use crate::time::Instant;
use crate::view::LastExit;
use crate::worker::{Goal, KEPT_MAX, Life};

/// How many processes may die with a message that was handed over and not begun, before it counts as what kills them:
/// a script may die each time before it has read a large one to its end.
const RETURNS_MAX: u8 = 10;

impl Core {
    pub(crate) fn exited(&mut self, now: Instant, process: ProcessKey, exit: Exit, mark: Option<Mark>) {
        if self.life(process).is_none_or(|life| life.exit.is_some()) {
            return;
        }
        let index = process.index;
        let mark = self.heeded(process, mark);
        if let Some(mark) = mark {
            self.finish_through(now, index, mark.finished, |_| true);
        }
        let worker = &mut self.workers[index as usize];
        let killed = worker.goal == Goal::Down;
        let life = worker.life.as_mut().expect("was there above");
        life.exit = Some((exit, now));
        life.swept = now;
        if life.ready.is_none() && life.stop.as_ref().is_none_or(|stop| stop.step() == Step::Ask) {
            life.start_failed(StartStage::EndedBeforeReady, "it ended before it was ready".into());
        }
        let slot = life.slot;
        // Who is drained, as every run is, is asked only when nothing is left to execute.
        let asked = killed || life.idled || life.replaced;
        let what = match (life.failed_stage, life.failure.clone()) {
            // Its program was never executed: only what was to prepare it has ended.
            (Some(stage @ (StartStage::Setup | StartStage::Exec)), Some(detail)) => {
                Change::NotStarted { stage, detail }
            }
            (stage, failure) => Change::Exited {
                exit,
                // That its connection ended before it, or that it was late with it, is no step of an end.
                ended_by: life.stop.as_ref().filter(|stop| asked || stop.step() > Step::Ask).map(Stop::ended_by),
                stage,
                failure,
            },
        };
        let mut rest = life.in_flight.take();
        self.note(index, what);
        let worker = &mut self.workers[index as usize];
        let life = worker.life.as_mut().expect("was there above");
        // Without a mark nobody knows whether the first had begun: it is charged, and not executed again unasked.
        let begun = |first: &Message| mark.is_none_or(|mark| mark.begun >= first.task);
        if rest.front().is_some_and(begun) {
            life.charged = true;
            let first = rest.front_mut().expect("there is a front");
            first.deaths = first.deaths.saturating_add(1);
            let (task, deaths, attempts) = (first.task, first.deaths, worker.policy.attempts);
            let timed_out = life.timed_out == Some(task);
            let cancelled = life.cancelled.contains(&task);
            worker.note(task, Current::Interrupted);
            if killed && !timed_out {
                let message = rest.pop_front().expect("there is a front");
                let outcome = self.emptied(true, Some(exit));
                self.settle(index, message.envelope(), Place::Running, outcome);
            } else if deaths < attempts && !timed_out && !cancelled {
                self.ledger.unbegin();
            } else {
                let message = rest.pop_front().expect("there is a front");
                let reason = match () {
                    () if timed_out => DeadReason::TimedOut,
                    () if attempts > 1 && !cancelled => DeadReason::Poison,
                    () => DeadReason::Crashed,
                };
                let fate = Fate { reason, exit: Some(exit), may_have_run: true };
                self.bury(now, index, message, Place::Running, fate);
            }
        } else if let Some(first) = rest.front_mut() {
            self.ledger.unbegin();
            first.returns = first.returns.saturating_add(1);
            if first.returns >= RETURNS_MAX && !killed {
                let message = rest.pop_front().expect("there is a front");
                let may_have_run = message.may_have_run();
                let fate = Fate { reason: DeadReason::Poison, exit: Some(exit), may_have_run };
                self.bury(now, index, message, Place::Pending, fate);
            }
        }
        match killed {
            true => drop(self.discard(index, rest.len() as u64, rest.iter().map(Message::envelope))),
            false => {
                self.give_back(index, rest);
            }
        }
        self.release_held(index, MessageId(0));
        self.emit(Effect::Sweep { process, slot });
        self.arm(index);
        self.touch(index);
        #[cfg(feature = "canary")]
        if self.gate_broken {
            self.end_life(now, index);
        }
    }

    /// Both facts are in: the exit, and the end of the tree. Or there never was a process.
    pub(crate) fn end_life(&mut self, now: Instant, index: u32) {
        let life = self.workers[index as usize].end_life().expect("the caller has seen it");
        debug_assert!(life.in_flight.is_empty(), "the exit has decided on all");
        self.after_life(now, index, life);
    }

    fn after_life(&mut self, now: Instant, index: u32, mut life: Life) {
        self.keeper_ended(self.workers[index as usize].identity.number);
        let jitter = self.random();
        let exit = life.exit_of_program();
        if self.workers[index as usize].goal == Goal::Down || self.stopping.is_some() {
            return self.remove(now, index, Some(life));
        }
        self.bury_expired(now, index);
        self.end_run(now, index, exit);
        let worker = &mut self.workers[index as usize];
        if worker.goal == Goal::Drain && worker.messages() == 0 {
            if worker.kind == Kind::Run {
                self.stats.crashed(worker.counted, &life, exit);
            }
            return self.remove(now, index, Some(life));
        }
        let (stage, failure) = (life.failed_stage, worker.told_failure(&mut life));
        // That it was asked to end because it had nothing to do, or to make place, is no failure, however it has ended.
        let meant = life.idled || life.replaced;
        let crash = life.charged || !meant && (failure.is_some() || exit != Some(Exit::Code(0)));
        worker.crashes += u64::from(crash);
        if crash {
            self.stats.crashed(worker.counted, &life, exit);
        }
        let (ended, well) = (life.ended(now), life.healthy(now) || meant);
        if well {
            worker.failures.reset();
        }
        let (mut unstarted, mut waits) = (false, None);
        if crash || !well {
            let limit = worker.policy.crash_limit;
            let delay = match worker.failures.count(now, &limit, jitter) {
                Next::After(delay) => {
                    waits = Some(Change::Backoff { delay }).filter(|_| !delay.is_zero());
                    delay
                }
                Next::Pause(pause) => {
                    worker.paused = true;
                    unstarted = life.ready.is_none() && limit.drop_unstarted;
                    waits = Some(Change::Paused { pause, exit, failure: failure.clone() });
                    pause
                }
            };
            worker.backoff_until = now.after(delay);
        }
        let exits = worker.exits.get_or_insert_default();
        if exits.len() == KEPT_MAX {
            exits.pop_front();
        }
        exits.push_back(LastExit { generation: worker.generation, exit, stage, failure, at: ended });
        if let Some(waits) = waits {
            self.note(index, waits);
        }
        self.touch(index);
        if unstarted {
            self.drop_unstarted(now, index, exit);
        }
        if self.workers.contains(index as usize) {
            self.try_start(now, index);
        }
    }

    /// Rule D5: what waited for a process that cannot be started.
    fn drop_unstarted(&mut self, now: Instant, index: u32, exit: Option<Exit>) {
        let mut queue = self.workers[index as usize].mailbox.take_queue();
        while let Some(message) = queue.pop(&mut self.bodies) {
            let may_have_run = message.may_have_run();
            let fate = Fate { reason: DeadReason::NeverStarted, exit, may_have_run };
            self.bury(now, index, message, Place::Pending, fate);
        }
        self.remove_if_drained(now, index);
    }

    /// Rule C13: for what has expired no process is started.
    pub(crate) fn bury_expired(&mut self, now: Instant, index: u32) {
        let expired = |next: &Envelope| next.expires <= now;
        while self.workers[index as usize].mailbox.front().as_ref().is_some_and(expired) {
            let message = self.workers[index as usize].mailbox.pop(&mut self.bodies).expect("there is a front");
            self.expired(now, index, message);
        }
    }

    /// Rule C13.
    pub(crate) fn expired(&mut self, now: Instant, index: u32, message: Message) {
        let may_have_run = message.may_have_run();
        let fate = Fate { reason: DeadReason::Expired, exit: None, may_have_run };
        self.bury(now, index, message, Place::Pending, fate);
    }
}
