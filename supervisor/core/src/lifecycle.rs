//! Processes: start, ready, deliver, settle, exit (rules C2, C3, D1–D3, K8).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;

use workhall_protocol::ids::MessageId;
use workhall_protocol::limits::WINDOW_MAX;
use workhall_protocol::terms::{Current, DeadReason, Exit, StartStage};

use crate::dead_letters::Fate;
use crate::deadlines::Due;
use crate::effect::{Effect, Outcome};
use crate::event::{Event, Mark, ProcessKey};
use crate::ledger::Place;
use crate::mailbox::Message;
use crate::registry::Core;
use crate::restart::Next;
use crate::stop::{Step, Stop};
use crate::time::Instant;
use crate::view::LastExit;
use crate::worker::{Goal, KEPT_MAX, Life, Worker};

/// How many bytes are sent ahead to a process at most, beyond the message being executed.
const SENT_AHEAD_BYTES_MAX: u64 = 256 << 10;
/// How many processes may die with a message that was handed over and not begun, before it counts as what kills them:
/// a script may die each time before it has read a large one to its end.
const RETURNS_MAX: u8 = 10;

impl Core {
    /// A fact about a process.
    pub fn handle(&mut self, now: Instant, event: Event<'_>) {
        self.now = now;
        match event {
            Event::Spawned { process, slot } => {
                if let Some(life) = self.life(process) {
                    life.slot = slot;
                    self.workers[process.index as usize].held = None;
                }
            }
            Event::SpawnFailed { process, stage, detail } => {
                if let Some(life) = self.life(process) {
                    life.start_failed(stage, detail);
                    self.workers[process.index as usize].held = None;
                    self.end_life(now, process.index);
                }
            }
            Event::StartFailed { process, stage, detail } => {
                if let Some(life) = self.life(process).filter(|life| life.ready.is_none()) {
                    life.start_failed(stage, detail);
                }
            }
            Event::Held { process, detail } => self.name_is_held(now, process, detail),
            Event::Ready { process, window, marked } => self.ready(now, process, window, marked),
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
                    self.looked(now, process);
                }
            }
            Event::Asked { process, mark } => self.asked(now, process, mark),
            Event::Violation { process, detail } => {
                if self.life(process).is_some() {
                    self.violated(process.index, detail);
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

    /// Starts a process if one is wished for and its delay is over, as soon as it has a place among the processes.
    pub(crate) fn try_start(&mut self, now: Instant, index: u32) {
        let worker = &mut self.workers[index as usize];
        if self.stopping.is_some() || !worker.may_start() {
            if worker.life.is_none() {
                self.give_up_place(index);
                self.arm(index);
            }
            return;
        }
        if worker.place || self.take_place(index) {
            let worker = &self.workers[index as usize];
            if now >= worker.backoff_until {
                self.start_process(now, index);
            }
        }
        self.arm(index);
        self.touch(index);
    }

    /// A place that is kept from the first message to the end of the last process, so that who is to be started again
    /// after a death is not overtaken. Without a free one the worker queues.
    fn take_place(&mut self, index: u32) -> bool {
        let worker = &mut self.workers[index as usize];
        let free = self.places < self.limits.processes && (self.queued.is_empty() || worker.queued);
        if free {
            (worker.place, worker.queued) = (true, false);
            self.places += 1;
        } else if !worker.queued {
            worker.queued = true;
            let number = worker.identity.number;
            self.queued.push_back((index, number));
        }
        free
    }

    /// Once no process is there and none is wished for.
    pub(crate) fn give_up_place(&mut self, index: u32) {
        let worker = &mut self.workers[index as usize];
        if worker.place && worker.life.is_none() && !worker.may_start() {
            worker.place = false;
            self.places -= 1;
        }
    }

    /// Gives free places to those who wait for one, first come first served.
    pub(crate) fn start_queued(&mut self, now: Instant) {
        while self.places < self.limits.processes {
            let Some((index, number)) = self.queued.pop_front() else { return };
            let worker = self.workers.get_mut(index as usize);
            let Some(worker) = worker.filter(|worker| worker.identity.number == number) else { continue };
            match worker.may_start() {
                true => self.try_start(now, index),
                false => worker.queued = false,
            }
        }
    }

    /// The only line that starts a process. The gate was looked at just before, in [`Worker::may_start`].
    fn start_process(&mut self, now: Instant, index: u32) {
        let worker = &mut self.workers[index as usize];
        worker.generation.0 += 1;
        worker.paused = false;
        worker.life = Some(Box::new(Life::new(now)));
        let process = worker.key(index);
        self.counters.spawned += 1;
        self.emit(Effect::Spawn { process });
    }

    fn ready(&mut self, now: Instant, process: ProcessKey, window: u32, marked: bool) {
        let Some(life) = self.life(process) else { return };
        if life.ready.is_some() {
            return self.violated(process.index, "it said `ready` twice");
        }
        life.ready = Some(now);
        life.since = now;
        life.marked = marked;
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
        self.hand_over(now, index);
        let timed = |worker: &&Worker| worker.policy.task_timeout.is_some() || worker.policy.idle_timeout.is_some();
        if self.workers.get(index as usize).filter(timed).is_some() {
            self.arm_earlier(index);
        }
    }

    fn hand_over(&mut self, now: Instant, index: u32) {
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
                self.expired(now, index, message);
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
            let (slot, id) = (life.slot, message.task);
            if life.in_flight.is_empty() {
                life.since = now;
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
            Some(front) if front.task == id => {
                let outcome = outcome(front.reply.is_some());
                life.told = id;
                self.settle_front(now, process.index, outcome);
                self.pump(now, process.index);
            }
            // The mark page was faster than the words.
            _ if life.marked && id <= life.settled && id > life.told => life.told = id,
            _ => {
                let words = unasked(life, id);
                self.violated(process.index, &words);
            }
        }
    }

    /// The life must be there.
    fn violated(&mut self, index: u32, detail: &str) {
        self.counters.violations += 1;
        self.workers[index as usize].violated(detail);
    }

    /// The process never sees this message: it has failed, wherever it stood among those sent ahead.
    fn undeliverable(&mut self, now: Instant, process: ProcessKey, id: MessageId, error: &str) {
        let Some(life) = self.life(process) else { return };
        let Ok(at) = life.in_flight.binary_search_by_key(&id, |message| message.task) else { return };
        let message = life.in_flight.remove(at).expect("was found there");
        let another = !life.in_flight.is_empty();
        life.since = if at == 0 { now } else { life.since };
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
                Some(front) if front.task <= finished && tacit(front) => {
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
        life.settled = message.task;
        life.since = now;
        let another = !life.in_flight.is_empty();
        if !another && let Some(stop) = &mut life.stop {
            stop.idle_since.get_or_insert(now);
        }
        let stopping = life.stop.is_some();
        worker.executed += 1;
        worker.note(message.task, Current::Finished);
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
            let begun = life.in_flight.partition_point(|message| message.task <= mark.begun);
            discarded = life.in_flight.split_off(begun);
            if begun == 0 && !discarded.is_empty() {
                self.ledger.unbegin();
            }
        }
        let idle = life.in_flight.back().is_none_or(|last| last.task <= finished);
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
        // Without a mark nobody knows whether the first had begun: it is charged, and not executed again unasked.
        let begun = |first: &Message| mark.is_none_or(|mark| mark.begun >= first.task);
        if rest.front().is_some_and(begun) {
            life.charged = true;
            let first = rest.front_mut().expect("there is a front");
            first.deaths = first.deaths.saturating_add(1);
            let (task, deaths, attempts) = (first.task, first.deaths, worker.policy.attempts);
            let timed_out = life.timed_out == Some(task);
            worker.note(task, Current::Interrupted);
            if killed && !timed_out {
                let message = rest.pop_front().expect("there is a front");
                let outcome = self.emptied(true, Some(exit));
                self.settle(index, message, Place::Running, outcome);
            } else if deaths < attempts && !timed_out {
                self.ledger.unbegin();
            } else {
                let message = rest.pop_front().expect("there is a front");
                let reason = match () {
                    () if timed_out => DeadReason::TimedOut,
                    () if attempts > 1 => DeadReason::Poison,
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
            true => drop(self.discard(index, rest)),
            false => {
                let number = process.number;
                for message in rest.iter().filter(|message| message.expires != Instant::NEVER) {
                    self.deadlines.push(message.expires, Due::Message { index, number, task: message.task });
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
        let life = self.workers[index as usize].life.take().expect("the caller has seen it");
        debug_assert!(life.in_flight.is_empty(), "the exit has decided on all");
        self.after_life(now, index, *life);
    }

    fn after_life(&mut self, now: Instant, index: u32, mut life: Life) {
        let jitter = self.random();
        let worker = &mut self.workers[index as usize];
        let exit = life.exit_of_program();
        if worker.goal == Goal::Down || self.stopping.is_some() {
            return self.remove(now, index, Some(life));
        }
        if worker.goal == Goal::Drain && worker.messages() == 0 {
            return self.remove(now, index, Some(life));
        }
        let (stage, failure) = (life.failed_stage, worker.told_failure(&mut life));
        // That it was asked to end because it had nothing to do is no failure, however it has ended.
        let crash = life.charged || !life.idled && (failure.is_some() || exit != Some(Exit::Code(0)));
        worker.crashes += u64::from(crash);
        if life.healthy(now) || life.idled {
            worker.failures.reset();
        }
        let mut unstarted = false;
        if !life.idled || crash {
            let limit = worker.policy.crash_limit;
            let delay = match worker.failures.count(now, &limit, jitter) {
                Next::After(delay) => delay,
                Next::Pause(pause) => {
                    worker.paused = true;
                    unstarted = life.ready.is_none() && limit.drop_unstarted;
                    pause
                }
            };
            worker.backoff_until = now.after(delay);
        }
        let exits = worker.exits.get_or_insert_default();
        if exits.len() == KEPT_MAX {
            exits.pop_front();
        }
        exits.push_back(LastExit { generation: worker.generation, exit, stage, failure, at: now });
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
        for message in self.workers[index as usize].mailbox.take_queue() {
            let may_have_run = message.may_have_run();
            let fate = Fate { reason: DeadReason::NeverStarted, exit, may_have_run };
            self.bury(now, index, message, Place::Pending, fate);
        }
        self.remove_if_drained(now, index);
    }

    /// Rule C13.
    pub(crate) fn expired(&mut self, now: Instant, index: u32, message: Message) {
        let may_have_run = message.may_have_run();
        let fate = Fate { reason: DeadReason::Expired, exit: None, may_have_run };
        self.bury(now, index, message, Place::Pending, fate);
    }

    // ---- what takes too long ------------------------------------------------------------------

    /// The answer to Look is handled: is the task that took too long still the same?
    fn looked(&mut self, now: Instant, process: ProcessKey) {
        let index = process.index;
        let worker = self.workers.get_mut(index as usize).filter(|worker| worker.key(index) == process);
        let Some(worker) = worker else { return };
        let Some(mut life) = worker.life.take() else { return };
        life.looked = now;
        let asked = core::mem::take(&mut life.looking);
        let over = asked && worker.task_deadline(&life) <= now;
        worker.life = Some(life);
        match over {
            true => self.time_out(now, index),
            false => self.arm_earlier(index),
        }
    }

    /// Rule D6: the stop ladder runs. Its first step is no use: the process does not listen.
    pub(crate) fn time_out(&mut self, now: Instant, index: u32) {
        let Some(life) = &mut self.workers[index as usize].life else { return };
        life.timed_out = life.running();
        self.climb(now, index, Step::Term);
    }

    /// Rule W6: it has had nothing to do for long enough. What comes from here on waits for the next life.
    pub(crate) fn end_idle(&mut self, now: Instant, index: u32) {
        let worker = &mut self.workers[index as usize];
        let process = worker.key(index);
        let Some(life) = &mut worker.life else { return };
        life.idled = true;
        life.stop = Some(Stop::new(now, Step::Ask, false));
        let slot = life.slot;
        self.ask(index, process, slot, true);
        self.arm(index);
        self.touch(index);
    }
}

/// What is wrong with a settlement, in words.
fn unasked(life: &Life, id: MessageId) -> alloc::string::String {
    match () {
        () if id <= life.told => format!("it settled task {id} twice"),
        () if life.in_flight.iter().any(|message| message.task == id) => {
            format!("it settled task {id} before its turn")
        }
        () => format!("it settled task {id}, which it was not given"),
    }
}
