//! Kill, drain and shutdown (rules K1–K13, D8).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use hashbrown::HashSet;
use workhall_protocol::ids::{MessageId, Target};
use workhall_protocol::terms::{Current, DeadReason, EndedBy, Exit, Ignored};

use crate::deadlines::Due;
use crate::effect::{Effect, KillReport, Outcome};
use crate::event::{Kill, KillMode, KillReceipt, ProcessKey, ReplyTo};
use crate::kind::Kind;
use crate::ledger::Place;
use crate::mailbox::Envelope;
use crate::news::Change;
use crate::registry::{Core, SHUTDOWN_REPEAT};
use crate::stop::{Step, Stop};
use crate::time::Instant;
use crate::worker::{Goal, Killer, Life, Worker};

impl Core {
    /// Kills: by name the whole line of that name, by number that worker only. A receipt that
    /// is wanted follows as [`Effect::Killed`].
    pub fn kill(&mut self, now: Instant, kill: Kill<'_>) -> KillReceipt {
        self.now = now;
        let Some(newest) = self.find_awake(kill.target) else {
            self.counters.ignored += 1;
            return KillReceipt::Ignored(Ignored::NoWorker);
        };
        let mut line = Vec::from([newest]);
        if let Target::Name(_) = kill.target {
            while let Some(older) = self.workers[line[line.len() - 1] as usize].older {
                line.push(older);
            }
        }
        match kill.mode {
            KillMode::Drain => {
                self.drain(now, newest, &kill);
                // Drains that began before must not make this one longer: its limit is one of the name, and so is what it
                // does to a pause.
                for &index in &line[1..] {
                    self.limit_drain(now, index, kill.within);
                    if self.workers[index as usize].goal == Goal::Drain {
                        self.go_on(now, index);
                    }
                }
            }
            KillMode::Ladder | KillMode::Now => self.kill_line(now, &line, &kill),
        }
        self.finish_step();
        KillReceipt::Posted
    }

    /// Every worker is asked to end; what has not ended after `grace` is killed (rule D8).
    /// [`Effect::Stopped`] when none is left. A second shutdown only shortens the grace.
    pub fn shutdown(&mut self, now: Instant, grace: Duration) {
        self.now = now;
        let deadline = now.after(grace);
        let first = self.stopping.is_none();
        self.stopping = Some(self.stopping.map_or(deadline, |earlier| earlier.min(deadline)));
        if first {
            self.drop_resting();
            let indexes = self.in_order_of_numbers();
            for index in indexes {
                let worker = &mut self.workers[index as usize];
                worker.kept = false;
                let process = worker.key(index);
                let ours = !worker.is_attached();
                let slot = worker.life.as_ref().filter(|life| ours && life.exit.is_none()).map(|life| life.slot);
                self.empty_mailbox(index);
                self.bring_down(now, index, Step::Ask, None);
                if let Some(slot) = slot {
                    self.emit(Effect::Continue { process, slot });
                }
            }
        }
        self.push_deadline(deadline, Due::Shutdown);
        self.finish_step();
    }

    pub(crate) fn shutdown_is_over(&mut self, now: Instant) {
        let indexes = self.in_order_of_numbers();
        for index in indexes {
            self.climb(now, index, Step::Kill);
        }
        let again = now.after(SHUTDOWN_REPEAT);
        self.stopping = Some(again);
        self.push_deadline(again, Due::Shutdown);
    }

    /// `line` from the newest to the oldest; only the oldest may have a process.
    fn kill_line(&mut self, now: Instant, line: &[u32], kill: &Kill<'_>) {
        let (&oldest, newer) = line.split_last().expect("the caller has found one");
        let mut discarded = 0;
        for &index in newer {
            discarded += self.empty_by(kill.mode, index);
            self.workers[index as usize].goal = Goal::Down;
            self.remove(now, index, None);
        }
        discarded += self.empty_by(kill.mode, oldest);
        let worker = &mut self.workers[oldest as usize];
        let killer = kill.reply.map(|reply| Killer { discarded, ..worker.killer(now, reply) });
        if worker.stays() {
            self.stats.killed(worker.counted, EndedBy::OnlyEmptied);
            if let Some(killer) = killer {
                self.only_emptied(oldest, killer, kill.wait);
            }
            // One that is about to leave has nothing to wait for any more.
            return self.remove_if_drained(now, oldest);
        }
        // It ends, whatever becomes of its class meanwhile.
        worker.kept = false;
        if let Some(killer) = killer {
            let waiting = kill.wait.then_some(killer);
            match &mut worker.life {
                // The answer to Ask says what runs, and what else is discarded.
                Some(life) if life.will_be_asked() => {
                    worker.killers.extend(waiting.map(|killer| Killer { task: None, ..killer }));
                    life.held.push(killer);
                }
                _ => {
                    worker.killers.extend(waiting);
                    self.emit(Effect::Killed { reply: killer.reply, discarded });
                }
            }
        }
        if !self.workers[oldest as usize].killers.is_empty() {
            self.killed.insert(oldest);
        }
        let step = if kill.mode == KillMode::Now { Step::Kill } else { Step::Ask };
        self.bring_down(now, oldest, step, kill.within);
    }

    /// The goal is down: without a process the worker is gone at once, else its ladder begins.
    fn bring_down(&mut self, now: Instant, index: u32, step: Step, within: Option<Duration>) {
        let worker = &mut self.workers[index as usize];
        let was_down = worker.goal == Goal::Down;
        worker.goal = Goal::Down;
        // First of all: who is stopped hears nothing.
        self.end_pause(now, index);
        let worker = &mut self.workers[index as usize];
        worker.drain_deadline = Instant::NEVER;
        let grace = match (within, worker.policy.task_grace) {
            (Some(within), Some(grace)) => Some(within.min(grace)),
            (within, grace) => within.or(grace),
        };
        let Some(life) = &mut worker.life else { return self.remove(now, index, None) };
        if life.exit.is_none() {
            let busy = !life.in_flight.is_empty();
            let asked_before = was_down && life.stop.is_some();
            let stop = life.stop.get_or_insert_with(|| Stop::new(now, Step::Ask, busy));
            if let Some(grace) = grace {
                stop.task_deadline = stop.task_deadline.min(now.after(grace));
            }
            let (slot, ready) = (life.slot, life.ready.is_some());
            let process = worker.key(index);
            if !asked_before || self.holds_receipts(index) {
                self.ask(index, process, slot, ready);
            }
            if step == Step::Kill {
                self.climb(now, index, Step::Kill);
            }
        }
        self.arm(index);
        self.touch(index);
        #[cfg(feature = "canary")]
        if self.gate_broken && self.workers[index as usize].life.as_ref().is_some_and(|l| l.in_flight.is_empty()) {
            let life = self.workers[index as usize].end_life();
            self.remove(now, index, life);
        }
    }

    pub(crate) fn ask(&mut self, index: u32, process: ProcessKey, slot: u32, ready: bool) {
        let life = self.workers[index as usize].life.as_mut().expect("the caller has it");
        if !life.connected {
            return;
        }
        match ready {
            true => self.emit(Effect::Ask { process, slot }),
            // Before it has said how it speaks nothing can be said to it.
            false => life.ask_pending = true,
        }
    }

    fn holds_receipts(&self, index: u32) -> bool {
        self.workers[index as usize].life.as_ref().is_some_and(|life| !life.held.is_empty())
    }

    /// Rule K13: what is there is executed, newer calls go to a successor.
    fn drain(&mut self, now: Instant, index: u32, kill: &Kill<'_>) {
        self.note(index, Change::Killed { mode: kill.mode, discarded: 0 });
        let worker = &mut self.workers[index as usize];
        let killer = kill.reply.map(|reply| worker.killer(now, reply));
        if worker.stays() {
            self.stats.killed(worker.counted, EndedBy::OnlyEmptied);
            // What is there is executed anyway.
            if let Some(killer) = killer {
                self.only_emptied(index, killer, kill.wait);
            }
            return;
        }
        worker.kept = false;
        if let Some(killer) = killer {
            if kill.wait {
                worker.killers.push(killer);
                self.killed.insert(index);
            }
            self.emit(Effect::Killed { reply: killer.reply, discarded: 0 });
        }
        let worker = &mut self.workers[index as usize];
        if worker.goal == Goal::Up {
            worker.goal = Goal::Drain;
        }
        self.limit_drain(now, index, kill.within);
        self.touch(index);
        self.remove_if_drained(now, index);
        if self.workers.contains(index as usize) {
            // What is there is to be executed.
            self.go_on(now, index);
        }
    }

    fn limit_drain(&mut self, now: Instant, index: u32, within: Option<Duration>) {
        let worker = &mut self.workers[index as usize];
        if let (Goal::Drain, Some(within)) = (worker.goal, within) {
            worker.drain_deadline = worker.drain_deadline.min(now.after(within));
            self.arm(index);
        }
    }

    /// Rule K10: the receipts of a kill that ended nothing.
    fn only_emptied(&mut self, index: u32, killer: Killer, wait: bool) {
        let worker = &self.workers[index as usize];
        let report = KillReport {
            worker: worker.identity.name.clone(),
            number: worker.identity.number,
            generation: worker.generation,
            discarded: killer.discarded,
            current: Current::None,
            ended_by: EndedBy::OnlyEmptied,
            exit: None,
            took: Duration::ZERO,
            steps: [None; 3],
        };
        self.emit(Effect::Killed { reply: killer.reply, discarded: killer.discarded });
        if wait {
            self.emit(Effect::KillEnded { reply: killer.reply, report: Box::new(report) });
        }
    }

    /// The time for a drain is over: what is left is discarded, the current task cut short.
    pub(crate) fn cut_drain(&mut self, now: Instant, index: u32) {
        self.empty_mailbox(index);
        self.bring_down(now, index, Step::Ask, Some(Duration::ZERO));
    }

    /// A drained worker has nothing left to execute: it ends.
    pub(crate) fn remove_if_drained(&mut self, now: Instant, index: u32) {
        let worker = &mut self.workers[index as usize];
        if worker.goal == Goal::Drain && worker.messages() == 0 {
            if worker.kind == Kind::Run {
                // Its end is no failure, and nobody has killed it.
                worker.life.iter_mut().for_each(|life| life.idled = true);
            }
            self.bring_down(now, index, Step::Ask, None);
        }
    }

    /// An attached worker is asked to end after its task (rule P2).
    pub(crate) fn ask_to_leave(&mut self, now: Instant, index: u32) {
        self.bring_down(now, index, Step::Ask, None);
    }

    fn empty_by(&mut self, mode: KillMode, index: u32) -> u64 {
        let discarded = self.workers[index as usize].mailbox.len();
        self.note(index, Change::Killed { mode, discarded });
        self.empty_mailbox(index)
    }

    /// Rule K2. Returns how many there were.
    fn empty_mailbox(&mut self, index: u32) -> u64 {
        let mailbox = core::mem::take(&mut self.workers[index as usize].mailbox);
        self.discard(index, mailbox.len(), mailbox.drain())
    }

    /// `messages` are `count`.
    pub(crate) fn discard(&mut self, index: u32, count: u64, messages: impl Iterator<Item = Envelope>) -> u64 {
        if count == 0 {
            return 0;
        }
        let worker = &mut self.workers[index as usize];
        let held = worker.life.iter_mut().flat_map(|life| &mut life.held);
        for killer in worker.killers.iter_mut().chain(held) {
            killer.discarded += count;
        }
        for message in messages {
            let outcome = self.emptied(message.may_have_run(), None);
            self.settle(index, message, Place::Pending, outcome);
        }
        count
    }

    /// The fate of a message that its worker's end takes along.
    pub(crate) fn emptied(&self, may_have_run: bool, exit: Option<Exit>) -> Outcome {
        match self.stopping {
            None => Outcome::Discarded { may_have_run },
            Some(_) => Outcome::Dead { reason: DeadReason::Abandoned, exit, may_have_run },
        }
    }

    /// The answer to Ask has come, or never will: now it is known what ran at the kill, and what it discarded.
    /// What runs is the first task behind `before`.
    pub(crate) fn release_held(&mut self, index: u32, before: MessageId) {
        let worker = &mut self.workers[index as usize];
        let Some(life) = &mut worker.life else { return };
        let held = core::mem::take(&mut life.held);
        let running = life.in_flight.iter().map(|message| message.task).find(|task| *task > before);
        let released: HashSet<ReplyTo> = held.iter().map(|killer| killer.reply).collect();
        for waiting in worker.killers.iter_mut().filter(|waiting| released.contains(&waiting.reply)) {
            waiting.task = running;
        }
        for killer in held {
            self.effects.push_back(Effect::Killed { reply: killer.reply, discarded: killer.discarded });
        }
    }

    pub(crate) fn report_killers(&mut self, now: Instant, worker: &Worker, life: Option<Life>) {
        self.count_kill(worker, life.as_ref());
        if worker.killers.is_empty() {
            return;
        }
        let ended = life.as_ref().and_then(|life| life.exit);
        let stop = life.as_ref().and_then(|life| life.stop.as_ref()).zip(ended);
        for killer in &worker.killers {
            let stop = stop.filter(|_| worker.generation > killer.ended_before);
            let report = Box::new(KillReport {
                worker: worker.identity.name.clone(),
                number: worker.identity.number,
                generation: worker.generation,
                discarded: killer.discarded,
                current: killer.current,
                ended_by: stop.map_or(EndedBy::AlreadyGone, |(stop, _)| stop.ended_by()),
                exit: ended.map(|(exit, _)| exit),
                took: now.since(killer.since),
                steps: stop.map_or([None; 3], |(stop, (_, at))| stop.durations(at)),
            });
            self.emit(Effect::KillEnded { reply: killer.reply, report });
        }
    }
}

impl Life {
    /// A kill now leads to an Ask that is answered at once.
    fn will_be_asked(&self) -> bool {
        self.exit.is_none() && self.ready.is_some() && self.connected
    }
}
