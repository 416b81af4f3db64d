//! Processes: start, ready, deliver, settle, exit (rules C2, C3, D1–D3, K8).

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use workhall_protocol::ids::MessageId;
use workhall_protocol::limits::WINDOW_MAX;
use workhall_protocol::terms::{Current, DeadReason, Exit, StartStage};

use crate::deadlines::Due;
use crate::effect::{Effect, Outcome};
use crate::event::{Event, Mark, ProcessKey};
use crate::ledger::Place;
use crate::mailbox::Message;
use crate::registry::Core;
use crate::stop::{Step, Stop};
use crate::time::Instant;
use crate::view::LastExit;
use crate::worker::{Goal, Life};

/// How many bytes are sent ahead to a process at most, beyond the message being executed.
const SENT_AHEAD_BYTES_MAX: u64 = 256 << 10;

impl Core {
    /// A fact about a process.
    pub fn handle(&mut self, now: Instant, event: Event<'_>) {
        match event {
            Event::Spawned { process, slot } => {
                if let Some(life) = self.life(process) {
                    life.slot = slot;
                }
            }
            Event::SpawnFailed { process, stage, detail } => {
                if let Some(life) = self.life(process) {
                    life.start_failed(stage, detail);
                    self.end_life(now, process.index);
                }
            }
            Event::StartFailed { process, stage, detail } => {
                if let Some(life) = self.life(process).filter(|life| life.ready.is_none()) {
                    life.start_failed(stage, detail);
                }
            }
            Event::Ready { process, window } => self.ready(now, process, window),
            Event::Done { process, id, result } => {
                self.settled(now, process, id, |wanted| Outcome::Done {
                    result: if wanted { result.into() } else { Box::default() },
                });
            }
            Event::Failed { process, id, error } => {
                self.settled(now, process, id, |wanted| Outcome::Failed {
                    error: if wanted { error.into() } else { Box::default() },
                });
            }
            Event::Undeliverable { process, id, error } => self.undeliverable(now, process, id, error),
            Event::Marked { process, mark } => {
                if self.life(process).is_some() {
                    self.finish_through(now, process.index, mark.finished, |message| message.reply.is_none());
                    self.pump(now, process.index);
                }
            }
            Event::Asked { process, mark } => self.asked(now, process, mark),
            Event::Violation { process, detail } => {
                if let Some(life) = self.life(process) {
                    life.violated(detail);
                }
            }
            Event::Disconnected { process } => {
                if let Some(life) = self.life(process) {
                    life.connected = false;
                    if life.exit.is_none() {
                        // It cannot settle anything any more. It may be about to exit: that is its grace.
                        let stop = life.stop.get_or_insert_with(|| Stop::new(now, Step::Ask, false));
                        stop.idle_since.get_or_insert(now);
                    }
                    self.arm(process.index);
                }
            }
            Event::Exited { process, exit, mark } => self.exited(now, process, exit, mark),
            Event::TreeGone { process } => {
                if self.life(process).is_some_and(|life| life.exit.is_some()) {
                    self.end_life(now, process.index);
                }
            }
        }
        self.finish_step();
    }

    /// The one place where a process starts. The gate: the worker is the oldest of its line, and no
    /// life of it is left.
    pub(crate) fn try_start(&mut self, now: Instant, index: u32) {
        let worker = &mut self.workers[index as usize];
        let gate_is_open = worker.older.is_none() && worker.life.is_none();
        if !gate_is_open || self.stopping.is_some() || !worker.wants_process() {
            return;
        }
        if now >= worker.backoff_until {
            worker.generation.0 += 1;
            worker.life = Some(Box::new(Life::new(now)));
            let process = worker.key(index);
            self.counters.spawned += 1;
            self.emit(Effect::Spawn { process });
        }
        self.arm(index);
        self.touch(index);
    }

    fn ready(&mut self, now: Instant, process: ProcessKey, window: u32) {
        let Some(life) = self.life(process) else { return };
        if life.ready.is_some() {
            return life.violated("it said `ready` twice");
        }
        life.ready = Some(now);
        life.window = window.clamp(1, WINDOW_MAX);
        if core::mem::take(&mut life.ask_pending) {
            let slot = life.slot;
            self.emit(Effect::Ask { process, slot });
        }
        self.pump(now, process.index);
        self.arm(process.index);
        self.touch(process.index);
    }

    /// Hands over what the window has room for.
    pub(crate) fn pump(&mut self, now: Instant, index: u32) {
        loop {
            let worker = &mut self.workers[index as usize];
            let process = worker.key(index);
            let Some(life) = &worker.life else { return };
            let Some(next) = worker.mailbox.front() else { break };
            if !life.accepts() || worker.goal == Goal::Down || life.in_flight.len() >= worker.window(life) {
                return;
            }
            if next.expires <= now {
                let message = worker.mailbox.pop().expect("there is a front");
                self.settle(index, message, Place::Pending, Outcome::Expired);
                continue;
            }
            let ahead: u64 = life.in_flight.iter().skip(1).map(Message::charge).sum();
            // What may expire is not sent ahead: it could not be called back.
            let must_be_first = next.expires != Instant::NEVER || ahead + next.charge() > SENT_AHEAD_BYTES_MAX;
            if must_be_first && !life.in_flight.is_empty() {
                return;
            }
            let message = worker.mailbox.pop().expect("there is a front");
            let life = worker.life.as_mut().expect("was there above");
            let (slot, id) = (life.slot, message.id);
            if life.in_flight.is_empty() {
                life.running_since = now;
                self.ledger.begin();
            }
            life.in_flight.push_back(message);
            self.emit(Effect::Deliver { process, slot, id });
        }
        self.remove_if_drained(now, index);
    }

    fn settled(&mut self, now: Instant, process: ProcessKey, id: MessageId, outcome: impl FnOnce(bool) -> Outcome) {
        let Some(life) = self.life(process) else { return };
        match life.in_flight.front() {
            Some(front) if front.id == id => {
                let outcome = outcome(front.reply.is_some());
                self.settle_front(now, process.index, outcome);
                self.pump(now, process.index);
            }
            // The mark page was faster than the words.
            _ if id <= life.settled => {}
            _ => life.violated("it settled a task that it was not given, or not in order"),
        }
    }

    /// The process never sees this message: it has failed, wherever it stood among those sent ahead.
    fn undeliverable(&mut self, now: Instant, process: ProcessKey, id: MessageId, error: &str) {
        let Some(life) = self.life(process) else { return };
        let Ok(at) = life.in_flight.binary_search_by_key(&id, |message| message.id) else { return };
        let message = life.in_flight.remove(at).expect("was found there");
        let another = !life.in_flight.is_empty();
        life.running_since = if at == 0 { now } else { life.running_since };
        let error = if message.reply.is_some() { error.into() } else { Box::default() };
        let place = if at == 0 { Place::Running } else { Place::Pending };
        self.settle(process.index, message, place, Outcome::Failed { error });
        if at == 0 && another {
            self.ledger.begin();
        }
        self.pump(now, process.index);
    }

    /// All tasks up to `finished` have ended: those at the front that are `tacit` need no other word.
    fn finish_through(&mut self, now: Instant, index: u32, finished: MessageId, tacit: fn(&Message) -> bool) {
        loop {
            let life = self.workers[index as usize].life.as_ref();
            match life.and_then(|life| life.in_flight.front()) {
                Some(front) if front.id <= finished && tacit(front) => {
                    self.settle_front(now, index, Outcome::Done { result: Box::default() });
                }
                _ => return,
            }
        }
    }

    /// The running task has ended by itself.
    fn settle_front(&mut self, now: Instant, index: u32, outcome: Outcome) {
        let worker = &mut self.workers[index as usize];
        let life = worker.life.as_mut().expect("a task has a process");
        let message = life.in_flight.pop_front().expect("the caller has seen it");
        life.settled = message.id;
        life.running_since = now;
        let another = !life.in_flight.is_empty();
        if !another && let Some(stop) = &mut life.stop {
            stop.idle_since.get_or_insert(now);
        }
        let stopping = life.stop.is_some();
        worker.executed += 1;
        worker.note(message.id, Current::Finished);
        self.settle(index, message, Place::Running, outcome);
        if another {
            self.ledger.begin();
        }
        if stopping {
            self.arm(index);
        }
    }

    /// The answer to Ask: what has not begun will not begin. What has ended is not settled by it: the words
    /// for it, with a result or an error, may have been written and not read yet.
    fn asked(&mut self, now: Instant, process: ProcessKey, mark: Option<Mark>) {
        if self.life(process).is_none() {
            return;
        }
        let index = process.index;
        let finished = mark.unwrap_or_default().finished;
        let worker = &mut self.workers[index as usize];
        let killed = worker.goal == Goal::Down;
        let life = worker.life.as_mut().expect("was there above");
        let mut discarded = VecDeque::new();
        if let (true, Some(mark)) = (killed, mark) {
            let begun = life.in_flight.partition_point(|message| message.id <= mark.begun);
            discarded = life.in_flight.split_off(begun);
            if begun == 0 && !discarded.is_empty() {
                self.ledger.unbegin();
            }
        }
        let idle = life.in_flight.back().is_none_or(|last| last.id <= finished);
        if idle && let Some(stop) = &mut life.stop {
            stop.idle_since.get_or_insert(now);
        }
        life.ask_again = Instant::NEVER;
        if killed && mark.is_some() && !idle {
            life.ask_again = now.after(life.ask_again_after);
        }
        self.discard(index, discarded);
        self.release_held(index, finished);
        self.arm(index);
        self.touch(index);
    }

    fn exited(&mut self, now: Instant, process: ProcessKey, exit: Exit, mark: Option<Mark>) {
        if self.life(process).is_none_or(|life| life.exit.is_some()) {
            return;
        }
        let index = process.index;
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
        let mut rest = core::mem::take(&mut life.in_flight);
        // Without a mark nobody knows whether the first had begun: it is charged, and not executed again.
        let begun = |first: &Message| mark.is_none_or(|mark| mark.begun >= first.id);
        if rest.front().is_some_and(begun) {
            let running = rest.pop_front().expect("there is a front");
            life.charged = true;
            worker.note(running.id, Current::Interrupted);
            let outcome = match killed {
                true => self.emptied(true, Some(exit)),
                false => Outcome::Dead { reason: DeadReason::Crashed, exit: Some(exit), may_have_run: true },
            };
            self.settle(index, running, Place::Running, outcome);
        } else if !rest.is_empty() {
            self.ledger.unbegin();
        }
        match killed {
            true => drop(self.discard(index, rest)),
            false => {
                let number = process.number;
                for message in rest.iter().filter(|message| message.expires != Instant::NEVER) {
                    self.deadlines.push(message.expires, Due::Message { index, number, id: message.id });
                }
                self.workers[index as usize].mailbox.put_back(rest);
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
    fn end_life(&mut self, now: Instant, index: u32) {
        let jitter = self.random();
        let worker = &mut self.workers[index as usize];
        let mut life = *worker.life.take().expect("the caller has seen it");
        debug_assert!(life.in_flight.is_empty(), "the exit has decided on all");
        let exit = life.exit.map(|(exit, _)| exit);
        if worker.goal == Goal::Down || self.stopping.is_some() {
            return self.remove(now, index, Some(life));
        }
        if worker.goal == Goal::Drain && worker.mailbox.is_empty() {
            return self.remove(now, index, Some(life));
        }
        let (stage, failure) = (life.failed_stage, life.told_failure());
        let crash = life.charged || failure.is_some() || exit != Some(Exit::Code(0));
        worker.crashes += u64::from(crash);
        worker.backoff_until = now.after(worker.failures.count(life.healthy(now), jitter));
        let generation = worker.generation;
        worker.last_exit = Some(Box::new(LastExit { generation, exit, stage, failure, at: now }));
        self.touch(index);
        self.try_start(now, index);
    }
}
