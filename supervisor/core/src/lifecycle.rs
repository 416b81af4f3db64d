//! Processes: start, ready, deliver, settle, exit (rules C2, C3, D1–D3, K8).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;

use workhall_protocol::ids::MessageId;
use workhall_protocol::limits::WINDOW_MAX;
use workhall_protocol::terms::Current;

use crate::effect::{Effect, Outcome};
use crate::event::{Event, Mark, ProcessKey};
use crate::ledger::Place;
use crate::mailbox::Message;
use crate::news::{Change, beginning};
use crate::registry::Core;
use crate::stop::{Step, Stop};
use crate::time::Instant;
use crate::worker::{Goal, Life, Worker};

impl Core {
    /// A fact about a process.
    pub fn handle(&mut self, now: Instant, event: Event<'_>) {
        self.now = now;
        match event {
            Event::Spawned { process, slot } => {
                if let Some(life) = self.life(process) {
                    life.slot = slot;
                    let worker = &mut self.workers[process.index as usize];
                    worker.held = None;
                    self.stats.of(worker.counted).starts += 1;
                    self.note(process.index, Change::Started);
                    self.signal(process.index, process);
                    self.halt(process.index);
                }
            }
            Event::SpawnFailed { process, stage, detail } => {
                if let Some(life) = self.life(process) {
                    life.start_failed(stage, detail.clone());
                    self.workers[process.index as usize].held = None;
                    self.note(process.index, Change::NotStarted { stage, detail });
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
            Event::Dropped { process, id } => self.dropped(now, process, id),
            Event::DoneAll { process, id } => self.all_settled(now, process, id),
            Event::Failed { process, id, error } => {
                self.settled(now, process, id, |wanted| Outcome::Failed {
                    // People want to know why, too, but not all of it.
                    error: if wanted { error.into() } else { beginning(error) },
                });
            }
            Event::Undeliverable { process, id, error } => self.undeliverable(now, process, id, error),
            Event::Marked { process, mark } => {
                if let Some(mark) = self.heeded(process, Some(mark)) {
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
            Event::Disconnected { process } => self.disconnected(now, process),
            Event::Exited { process, exit, mark } => self.exited(now, process, exit, mark),
            Event::TreeGone { process } => {
                if self.life(process).is_some_and(|life| life.exit.is_some()) {
                    self.end_life(now, process.index);
                }
            }
        }
        self.finish_step();
    }

    fn disconnected(&mut self, now: Instant, process: ProcessKey) {
        if self.life(process).is_none() {
            return;
        }
        let index = process.index;
        if self.workers[index as usize].is_attached() {
            return self.detach(now, index);
        }
        // From here on it has a grace, which it must be able to use.
        self.continue_halted(now, index);
        let life = self.workers[index as usize].life.as_mut().expect("was there above");
        life.connected = false;
        let unasked = life.stop.is_none() && life.ready.is_some();
        let slot = life.slot;
        if life.exit.is_none() {
            // It cannot settle anything any more. It may be about to exit: that is its grace.
            let stop = life.stop.get_or_insert_with(|| Stop::new(now, Step::Ask, false));
            stop.idle_since.get_or_insert(now);
            if unasked {
                // Nothing can be said to it, but what it was sent ahead need not begin.
                self.emit(Effect::Ask { process, slot });
            }
        }
        self.arm(index);
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
        let life_makes_place = life.replaced && life.stop.is_none();
        if core::mem::take(&mut life.ask_pending) {
            let slot = life.slot;
            self.emit(Effect::Ask { process, slot });
        }
        self.note(process.index, Change::Ready);
        if life_makes_place {
            self.ask_to_make_place(now, process.index);
        }
        self.pump(now, process.index);
        self.arm(process.index);
        self.touch(process.index);
    }

    /// Hands over what the window has room for.
    pub(crate) fn pump(&mut self, now: Instant, index: u32) {
        self.hand_over(now, index);
        self.arm_timed(index);
    }

    fn hand_over(&mut self, now: Instant, index: u32) {
        while !self.workers[index as usize].mailbox.nothing_due() {
            let worker = &mut self.workers[index as usize];
            // Most often it has enough already: that is seen without a look at the next message.
            let room = |life: &Life| life.accepts() && life.in_flight.len() < worker.window(life);
            let open = worker.goal != Goal::Down && worker.suspended.is_none();
            if !open || !worker.life.as_deref().is_some_and(room) {
                return;
            }
            let next = worker.mailbox.front().expect("something is due");
            let expired = next.expires <= now;
            if !expired && !worker.takes(now, &next) {
                return;
            }
            let message = worker.mailbox.pop(&mut self.bodies).expect("there is a front");
            match expired {
                true => self.expired(now, index, message),
                false => self.deliver(now, index, message),
            }
        }
        if self.workers[index as usize].life.is_some() {
            self.remove_if_drained(now, index);
        }
    }

    /// The worker takes it, and it is the next.
    pub(crate) fn deliver(&mut self, now: Instant, index: u32, message: Message) {
        let worker = &mut self.workers[index as usize];
        let process = worker.key(index);
        let life = worker.life.as_mut().expect("who takes a message has a process");
        let (slot, id) = (life.slot, message.task);
        if life.in_flight.is_empty() {
            life.since = now;
            self.ledger.begin();
        }
        life.given = id;
        life.in_flight.push(message);
        self.emit(Effect::Deliver { process, slot, id });
    }

    /// Where a time limit may change with every message.
    pub(crate) fn arm_timed(&mut self, index: u32) {
        let timed = |worker: &&Worker| worker.policy.task_timeout.is_some() || worker.policy.idle_timeout.is_some();
        if self.workers.get(index as usize).filter(timed).is_some() {
            self.arm_earlier(index);
        }
    }

    fn settled(&mut self, now: Instant, process: ProcessKey, id: MessageId, outcome: impl FnOnce(bool) -> Outcome) {
        let Some(life) = self.life(process) else { return };
        match life.in_flight.front() {
            Some(front) if front.task == id => {
                let (message, awaited) = (front.id, front.reply.is_some());
                life.told = id;
                let task = Times { begun: life.since, ended: now };
                let outcome = outcome(awaited || self.carries_signals(message));
                self.settle_front(now, process.index, task, outcome);
                self.pump(now, process.index);
            }
            _ => self.settled_before(process, id),
        }
    }

    /// The same for all up to this one.
    fn all_settled(&mut self, now: Instant, process: ProcessKey, id: MessageId) {
        let Some(life) = self.life(process) else { return };
        match life.in_flight.count_to(id) {
            Some(count) => {
                life.told = id;
                for task in Times::shared(life.since, now, count) {
                    self.settle_front(now, process.index, task, Outcome::Done { result: Box::default() });
                }
                self.pump(now, process.index);
            }
            None => self.settled_before(process, id),
        }
    }

    /// It settles a task that is not to be settled now: only where the mark page was faster than the words is that right.
    fn settled_before(&mut self, process: ProcessKey, id: MessageId) {
        let Some(life) = self.life(process) else { return };
        if life.marked && id <= life.settled && id > life.told {
            life.told = id;
        } else {
            let words = unasked(life, id);
            self.violated(process.index, &words);
        }
    }

    /// The life must be there.
    pub(crate) fn violated(&mut self, index: u32, detail: &str) {
        self.counters.violations += 1;
        self.workers[index as usize].violated(detail);
        self.note(index, Change::Violation { detail: beginning(detail) });
    }

    /// The process never sees this message: it has failed, wherever it stood among those sent ahead.
    fn undeliverable(&mut self, now: Instant, process: ProcessKey, id: MessageId, error: &str) {
        let Some(life) = self.life(process) else { return };
        let Some(at) = life.in_flight.position(id) else { return };
        let message = life.in_flight.remove(at).expect("was found there");
        life.cancelled.remove(&id);
        let another = !life.in_flight.is_empty();
        life.since = if at == 0 { now } else { life.since };
        let wanted = message.reply.is_some() || self.carries_signals(message.id);
        let error = if wanted { error.into() } else { beginning(error) };
        let place = if at == 0 { Place::Running } else { Place::Pending };
        self.settle(process.index, message.envelope(), place, Outcome::Failed { error });
        if at == 0 && another {
            self.ledger.begin();
        }
        self.pump(now, process.index);
    }

    /// All tasks up to `finished` have ended: those at the front that are `tacit` need no other word.
    pub(crate) fn finish_through(
        &mut self,
        now: Instant,
        index: u32,
        finished: MessageId,
        tacit: fn(&Message) -> bool,
    ) {
        let Some(life) = &self.workers[index as usize].life else { return };
        let ended = life.in_flight.iter().take_while(|message| message.task <= finished && tacit(message)).count();
        for task in Times::shared(life.since, now, ended) {
            self.settle_front(now, index, task, Outcome::Done { result: Box::default() });
        }
    }

    /// The running task has ended by itself.
    fn settle_front(&mut self, now: Instant, index: u32, task: Times, outcome: Outcome) {
        let worker = &mut self.workers[index as usize];
        let life = worker.life.as_mut().expect("a task has a process");
        let message = life.in_flight.pop().expect("the caller has seen it");
        life.settled = message.task;
        life.since = now;
        if !life.cancelled.is_empty() {
            life.cancelled.remove(&message.task);
        }
        let another = !life.in_flight.is_empty();
        if !another && let Some(stop) = &mut life.stop {
            stop.idle_since.get_or_insert(now);
        }
        let stopping = life.stop.is_some();
        worker.executed += 1;
        self.stats.of(worker.counted).executed(message.accepted, task.begun, task.ended);
        worker.note(message.task, Current::Finished);
        self.settle(index, message.envelope(), Place::Running, outcome);
        self.bodies.keep(message);
        if another {
            self.ledger.begin();
        }
        if stopping {
            self.arm(index);
        }
    }

    /// What a mark is worth: one that names a task as ended which the process was not given says nothing of any.
    pub(crate) fn heeded(&mut self, process: ProcessKey, mark: Option<Mark>) -> Option<Mark> {
        let life = self.life(process)?;
        let last = life.in_flight.back().map_or(life.settled, |last| last.task);
        let given = life.given.max(last);
        let Some(Mark { finished, .. }) = mark.filter(|mark| mark.finished > given) else { return mark };
        let words = format!("its mark page says that task {finished} has ended, which it was not given");
        self.violated(process.index, &words);
        mark.map(|mark| Mark { finished: MessageId(0), ..mark })
    }

    /// The answer to Ask: what has not begun will not begin. What has ended is not settled by it: the words
    /// for it, with a result or an error, may have been written and not read yet.
    fn asked(&mut self, now: Instant, process: ProcessKey, mark: Option<Mark>) {
        if self.life(process).is_none() {
            return;
        }
        let mark = self.heeded(process, mark);
        let index = process.index;
        let finished = mark.unwrap_or_default().finished;
        let worker = &mut self.workers[index as usize];
        let killed = worker.goal == Goal::Down;
        let life = worker.life.as_mut().expect("was there above");
        let replaced = life.replaced && !killed && life.stop.as_ref().is_some_and(|stop| stop.step() == Step::Ask);
        let mut discarded = VecDeque::new();
        if let (true, Some(mark)) = (killed, mark) {
            let begun = life.in_flight.partition_point(|message| message.task <= mark.begun);
            discarded = life.in_flight.split_off(begun);
            if begun == 0 && !discarded.is_empty() {
                self.ledger.unbegin();
            }
        }
        if let (true, Some(mark)) = (replaced, mark) {
            self.take_back(index, mark);
        }
        let Some(life) = &mut self.workers[index as usize].life else { return };
        let idle = life.in_flight.back().is_none_or(|last| last.task <= finished);
        if idle && let Some(stop) = &mut life.stop {
            stop.idle_since.get_or_insert(now);
        }
        life.ask_again = Instant::NEVER;
        if (killed || replaced) && mark.is_some() && !idle {
            life.ask_again = now.after(life.ask_again_after);
        }
        self.discard(index, discarded.len() as u64, discarded.iter().map(Message::envelope));
        // What it has begun last is what runs: one before it may have been dropped, which is not read yet.
        let before = mark.map_or(finished, |mark| finished.max(MessageId(mark.begun.0.saturating_sub(1))));
        self.release_held(index, before);
        self.arm(index);
        self.touch(index);
    }
}

/// When a task was begun and when it ended.
#[derive(Clone, Copy)]
struct Times {
    begun: Instant,
    ended: Instant,
}

impl Times {
    /// Of so many one after the other, of which only the whole is known: each has the same part.
    fn shared(since: Instant, now: Instant, count: usize) -> impl Iterator<Item = Times> {
        let share = now.0.saturating_sub(since.0) / (count as u64).max(1);
        let at = move |number: usize| Instant(since.0 + share * number as u64);
        (0..count).map(move |number| Times { begun: at(number), ended: at(number + 1) })
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
