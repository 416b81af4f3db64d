//! The world around the core: the clock, the shell, the operating system and the clients.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use workhall_core::{
    AccountId, Call, CallReceipt, Change, ClassStats, Core, CrashLimit, Effect, Event, Instant, Kill, KillMode,
    KillReceipt, Ledger, Letters, Limits, Mark, Outcome, Policy, ProcessKey, Refused, Renewal, ReplyTo, Run,
    RunReceipt,
};
use workhall_protocol::ids::{MessageId, Target, WorkerName, WorkerNumber};
use workhall_protocol::terms::{Current, DeadReason, EndedBy, Exit, Ignored, Refusal, StartStage, Until};

use super::Options;
use super::checker::{Checker, error_of, result_of};
use super::coverage::Coverage;
use super::process::{
    Beginning, Ending, KillWish, Nature, Post, Process, Start, TASK_MAX, Task, ToProcess, ToShell, Whom,
};
use super::rng::Rng;
use super::signals::Signals;

/// What survives a panic of the core.
#[derive(Debug, Default)]
pub struct Notes {
    pub steps: u64,
    pub trace: Vec<String>,
}

/// A run that needs more than this does not end.
const STEPS_MAX: u64 = 60_000;
/// By then all that was accepted must have its fate, once everybody is calm.
const CALM_MAX: Duration = Duration::from_secs(3600);
/// By then nothing may be left, beyond the grace of the shutdown.
const STOP_MAX: Duration = Duration::from_secs(60);

/// The last byte of the arguments of a message that no process survives.
const POISON: u8 = 255;

/// The name of processes for one method.
const RUN: &str = "run";
const NAMES: [&str; 6] = ["a", "A", "b", "b/x", "main", "boot"];

type Failure = (&'static str, String);

pub struct World {
    pub(super) core: Core,
    limits: Limits,
    pub(super) checker: Checker,
    /// Signals, and messages that are not wanted any more.
    pub(super) signals: Signals,
    rng: Rng,
    pub(super) now: Instant,
    agenda: BinaryHeap<Reverse<(Instant, u64, Item)>>,
    processes: Vec<Process>,
    slots: BTreeMap<ProcessKey, usize>,
    /// The configuration: a name that is not here has no class.
    policies: BTreeMap<&'static str, Arc<Policy>>,
    /// What was there for a name before its class went.
    gone: BTreeMap<&'static str, Arc<Policy>>,
    /// What new configurations say.
    reloads: Rng,
    /// What is drawn for processes of one method, so that worlds without them are what they were.
    runs: Rng,
    pub(super) coverage: Coverage,
    notes: Arc<Mutex<Notes>>,
    trace: bool,
    restore_every: u64,
    phase: Phase,
    /// Nobody starts anything new, and nobody is ill.
    calm: bool,
    calm_until: Instant,
    stop_until: Instant,
    stopped: bool,
    /// How many ends of messages were noted.
    ends_noted: u64,
    next_token: u64,
    wait_tokens: Vec<u64>,
    awaited_percent: u64,
    /// How many attempts to start a process still find its name held by an earlier supervisor's.
    held_names: BTreeMap<&'static str, u32>,
    /// How late the next tick is.
    lateness: Duration,
    /// Processes that are stopped, with what they will do when they are continued.
    halted: BTreeMap<usize, Vec<Item>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Lively,
    Calm,
    Stopping,
}

/// What is going to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    ClientActs,
    BecomeCalm,
    ShutDown,
    Reload,
    ExtraTick,
    IsReady(usize),
    Arrives(usize),
    ShellReads(usize),
    MarkIsRead(usize),
    BeginsSecondHalf(usize, u64),
    ActsInTask(usize, u64),
    TaskEnds(usize, u64),
    IdleExit(usize, u64),
    Dies(usize, Option<i32>, i32),
    Exited(usize),
    Disconnected(usize),
    TreeGone(usize),
    Late(usize),
    Runs,
    Signals,
}

impl Item {
    /// The process that does it itself: one that is stopped does not. SIGKILL, and what is done to it, are not its own.
    fn actor(self) -> Option<usize> {
        match self {
            Item::Dies(_, None, 9) => None,
            Item::IsReady(slot)
            | Item::Arrives(slot)
            | Item::BeginsSecondHalf(slot, _)
            | Item::ActsInTask(slot, _)
            | Item::TaskEnds(slot, _)
            | Item::IdleExit(slot, _)
            | Item::Dies(slot, ..) => Some(slot),
            _ => None,
        }
    }
}

impl World {
    pub fn new(seed: u64, options: Options, notes: Arc<Mutex<Notes>>) -> World {
        let mut rng = Rng::new(seed);
        let limits = Limits {
            message_bytes: 2000,
            total_bytes: rng.pick(&[2000, 6000, 1 << 20]),
            total_messages: rng.pick(&[8, 1000, 1000]),
            sender_messages: rng.pick(&[4, 1000, 1000]),
            sender_bytes: rng.pick(&[1000, 1 << 20, 1 << 20]),
            sender_signals: 100,
            workers: rng.pick(&[3, 6, 100]),
            processes: rng.pick(&[1, 3, 100, 100]),
            dead_messages: rng.pick(&[3, 1000]),
            dead_bytes: rng.pick(&[500, 1 << 20]),
        };
        let mut core = Core::new(limits.clone(), rng.bits());
        if options.broken_gate {
            core.break_the_gate();
        }
        let awaited_percent = rng.pick(&[100, 100, 50, 10]);
        let policies = NAMES.iter().map(|name| (*name, Arc::new(draw_policy(&mut rng, name)))).collect();
        // Of its own, so that a run without such names is what it was.
        let mut left = Rng::new(!seed);
        let held_names = NAMES.iter().map(|name| (*name, left.pick(&[0, 0, 0, 1, 3, 12]))).collect();
        World {
            core,
            checker: Checker::new(awaited_percent == 100, limits.clone()),
            limits,
            signals: Signals::new(seed),
            rng,
            now: Instant(1),
            agenda: BinaryHeap::new(),
            processes: Vec::new(),
            slots: BTreeMap::new(),
            policies,
            gone: BTreeMap::new(),
            // Of its own, too.
            reloads: Rng::new(seed.rotate_left(32)),
            runs: Rng::new(seed.rotate_left(16)),
            coverage: Coverage::default(),
            notes,
            trace: options.trace,
            restore_every: options.restore_every,
            phase: Phase::Lively,
            calm: false,
            calm_until: Instant::NEVER,
            stop_until: Instant::NEVER,
            stopped: false,
            ends_noted: 0,
            next_token: 1,
            wait_tokens: Vec::new(),
            awaited_percent,
            held_names,
            lateness: Duration::ZERO,
            halted: BTreeMap::new(),
        }
    }

    pub fn run(mut self) -> Result<Coverage, Failure> {
        let lively = Duration::from_millis(self.rng.pick(&[300, 3_000, 20_000]));
        self.plan(lively, Item::BecomeCalm);
        if self.rng.percent(30) {
            let at = self.rng.up_to_ms(lively.as_millis() as u64);
            self.plan(at, Item::ShutDown);
        }
        if self.reloads.percent(40) {
            for _ in 0..self.reloads.between(1, 6) {
                let at = self.reloads.up_to_ms(lively.as_millis() as u64);
                self.plan(at, Item::Reload);
            }
        }
        if self.runs.percent(30) {
            for _ in 0..self.runs.between(1, 12) {
                let at = self.runs.up_to_ms(lively.as_millis() as u64);
                self.plan(at, Item::Runs);
            }
        }
        if self.signals.on {
            self.plan_signals(Duration::ZERO);
        }
        for name in ["main", "boot"] {
            if self.rng.percent(30) {
                self.start(name);
            }
        }
        for _ in 0..self.rng.between(1, 3) {
            self.plan(Duration::ZERO, Item::ClientActs);
        }
        for _ in 0..STEPS_MAX {
            if !self.step() {
                return self.finish();
            }
            self.check()?;
        }
        Err(("liveness", format!("no end after {STEPS_MAX} steps")))
    }

    /// The next thing that happens; none is the end of the run.
    fn step(&mut self) -> bool {
        let steps = {
            let mut notes = self.notes.lock().expect("only this thread");
            notes.steps += 1;
            notes.steps
        };
        if self.restore_every > 0 && steps.is_multiple_of(self.restore_every) {
            self.restore();
        }
        self.change_phase();
        let planned = self.agenda.peek().map(|Reverse((at, ..))| *at);
        let tick = match self.stopped {
            false => self.core.next_deadline().map(|at| at.after(self.lateness).max(self.now)),
            true => None,
        };
        match (planned, tick) {
            (None, None) if self.phase != Phase::Stopping => {
                let detail = format!("nothing will ever happen again: {:?}", self.core.ledger());
                self.checker.violation.get_or_insert(("liveness", detail));
                return true;
            }
            (None, None) => return false,
            (planned, Some(at)) if planned.is_none_or(|planned| at < planned) => {
                self.now = self.now.max(at);
                self.lateness = if self.rng.percent(20) { self.rng.up_to_ms(500) } else { Duration::ZERO };
                if self.lateness > Duration::ZERO {
                    self.coverage.count("late tick");
                }
                self.tick();
            }
            _ => {
                let Some(Reverse((at, _, item))) = self.agenda.pop() else { return false };
                self.now = self.now.max(at);
                self.happens(item);
            }
        }
        true
    }

    fn check(&mut self) -> Result<(), Failure> {
        self.checker.step(self.now, self.core.ledger(), self.core.counters());
        self.checker.books(self.core.charges(), self.core.dead_totals());
        if self.phase == Phase::Calm && self.now > self.calm_until {
            return Err(("liveness", format!("not all has its fate: {:?}", self.core.ledger())));
        }
        if self.phase == Phase::Stopping && !self.stopped && self.now > self.stop_until {
            return Err(("D8", "the shutdown does not end".into()));
        }
        match self.checker.violation.take() {
            Some(violation) => Err(violation),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> Result<Coverage, Failure> {
        let ledger = self.core.ledger();
        self.checker.finish(ledger);
        self.signals_are_gone();
        self.check()?;
        if self.core.worker_count() != 0 {
            return Err(("D8", format!("{} workers are left", self.core.worker_count())));
        }
        if self.core.limits().1 != 0 || self.core.charges().next().is_some() {
            return Err(("quota", format!("{} bytes are still charged", self.core.limits().1)));
        }
        self.check_stats()?;
        self.coverage.add("accepted", ledger.accepted);
        self.coverage.add("stale facts", self.core.counters().stale);
        Ok(self.coverage)
    }

    /// What is counted by class is all there was, over snapshots and new configurations.
    fn check_stats(&self) -> Result<(), Failure> {
        let sum = |of: fn(&ClassStats) -> u64| self.core.class_stats().iter().map(of).sum::<u64>();
        let counted = Ledger {
            accepted: sum(|class| class.accepted),
            done: sum(|class| class.done),
            failed: sum(|class| class.failed),
            discarded: sum(|class| class.discarded),
            expired: sum(|class| class.expired),
            dead: sum(|class| class.dead.0.iter().sum()),
            pending: sum(|class| class.depth),
            running: 0,
        };
        let refused = sum(|class| class.refused.0.iter().sum());
        let latencies = [sum(|class| class.queue.count()), sum(|class| class.execution.count())];
        let ledger = self.core.ledger();
        // What could not be handed to its process has failed without being executed.
        let executed =
            latencies[0] == latencies[1] && (ledger.done..=ledger.done + ledger.failed).contains(&latencies[0]);
        match counted == ledger && refused == self.core.counters().refused && executed {
            true => Ok(()),
            false => Err(("stats", format!("{counted:?}, {refused} refused, {latencies:?} executed; {ledger:?}"))),
        }
    }

    /// From calm to the shutdown, once everything has its fate.
    fn change_phase(&mut self) {
        let ledger = self.core.ledger();
        if self.phase == Phase::Calm && ledger.pending + ledger.running == 0 && !self.checker.unfinished_kills() {
            self.coverage.count("calm runs");
            self.kept_ones_are_there();
            // Signals count against the same bounds: who waits for room may wait for their end.
            self.checker.waits_are_answered(self.core.signal_totals().0 == 0);
            self.shut_down();
        }
    }

    /// The core that goes on is the one that its snapshot says.
    fn restore(&mut self) {
        let mut snapshot = Vec::new();
        let mut writer = rmp_serde::Serializer::new(&mut snapshot).with_struct_map();
        self.core.snapshot(&mut writer).expect("all of the state can be written");
        let mut reader = rmp_serde::Deserializer::from_read_ref(&snapshot);
        self.core = Core::restore(&mut reader, self.limits.clone()).expect("what was written can be read");
        self.coverage.count("restored");
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Nobody starts anything new.
    pub(super) fn is_over(&self) -> bool {
        self.stopped || self.calm
    }

    pub(super) fn plan_signals(&mut self, after: Duration) {
        self.plan(after, Item::Signals);
    }

    pub(super) fn must_be(&mut self, so: bool, rule: &'static str, detail: impl FnOnce(&World) -> String) {
        if !so {
            let detail = detail(self);
            self.checker.violation.get_or_insert((rule, detail));
        }
    }

    // ---- the agenda -------------------------------------------------------------------------

    /// Ties are broken by chance.
    fn plan(&mut self, after: Duration, item: Item) {
        let tie = self.rng.bits();
        self.agenda.push(Reverse((self.now.after(after), tie, item)));
    }

    fn happens(&mut self, item: Item) {
        self.log(|world| format!("{item:?} {}", world.whose(item)));
        if let Some(deferred) = item.actor().and_then(|slot| self.halted.get_mut(&slot)) {
            self.coverage.count("act of a stopped process deferred");
            return deferred.push(item);
        }
        match item {
            Item::ClientActs => self.client_acts(),
            Item::BecomeCalm => self.become_calm(),
            Item::ShutDown => self.shut_down(),
            Item::Reload => self.reload(),
            Item::ExtraTick => self.tick(),
            Item::IsReady(slot) => self.is_ready(slot),
            Item::Arrives(slot) => self.arrives(slot),
            Item::ShellReads(slot) => self.shell_reads(slot, 1),
            Item::MarkIsRead(slot) => self.mark_is_read(slot),
            Item::BeginsSecondHalf(slot, epoch) => self.if_current(slot, epoch, World::begins_second_half),
            Item::ActsInTask(slot, epoch) => self.if_current(slot, epoch, World::acts_in_task),
            Item::TaskEnds(slot, epoch) => self.if_current(slot, epoch, World::task_ends),
            Item::IdleExit(slot, epoch) => self.if_current(slot, epoch, World::idle_exit),
            Item::Dies(slot, code, signal) => self.dies(slot, code.map_or(Exit::Signal(signal), Exit::Code)),
            Item::Exited(slot) => self.exited(slot),
            Item::Disconnected(slot) => self.disconnected(slot),
            Item::TreeGone(slot) => self.tree_gone(slot),
            Item::Late(slot) => self.late(slot),
            Item::Runs => self.starts_one(),
            Item::Signals => self.acts_with_signals(),
        }
    }

    fn if_current(&mut self, slot: usize, epoch: u64, act: fn(&mut World, usize)) {
        if self.processes[slot].alive && self.processes[slot].epoch == epoch {
            act(self, slot);
        }
    }

    fn tick(&mut self) {
        self.log(|_| "tick".into());
        self.coverage.count("tick");
        self.core.tick(self.now);
        self.apply();
    }

    fn become_calm(&mut self) {
        self.calm = true;
        if self.phase == Phase::Lively {
            self.phase = Phase::Calm;
            self.calm_until = self.now.after(CALM_MAX);
        }
        self.signals_are_left();
        for name in NAMES.into_iter().chain([RUN]) {
            self.resumes(&Whom::Name(name));
        }
        for slot in 0..self.processes.len() {
            // What hung goes on, and ends as it should.
            if let Some(task) = &mut self.processes[slot].running
                && task.ending == Ending::Hang
            {
                task.ending = Ending::Done;
                let epoch = self.processes[slot].epoch;
                self.plan(Duration::ZERO, Item::TaskEnds(slot, epoch));
            }
        }
    }

    // ---- clients ----------------------------------------------------------------------------

    fn start(&mut self, name: &'static str) {
        let policy = self.policies[name].clone();
        let main = name == "main";
        self.core.start(self.now, WorkerName::new(name).expect("is one"), policy.clone(), main);
        let number = self.core.worker(self.now, Target::Name(name)).expect("was just started").identity.number;
        if main != (number == WorkerNumber::MAIN) {
            self.checker.violation = Some(("W5", format!("`{name}` has number {number}")));
        }
        self.checker.started(name, number, &policy);
        self.log(|_| format!("start {name} as {number}"));
        self.apply();
    }

    fn client_acts(&mut self) {
        if self.stopped || self.calm {
            return;
        }
        match self.rng.below(100) {
            0..=74 => {
                let burst = if self.rng.percent(20) { self.rng.between(2, 12) } else { 1 };
                for _ in 0..burst {
                    let post = self.draw_post(None);
                    self.post(None, post);
                }
            }
            75..=84 => {
                let wish = self.draw_kill(None);
                self.kill(wish);
            }
            85..=90 => self.wait(),
            91 | 96 => self.resume(),
            92 => self.take_dead_letters(),
            93 | 95 if self.has_places_for_all() => self.pause(),
            94 => {
                let connection = NonZeroU64::new(2).expect("is not 0");
                self.core.forget_waits(connection);
                let tokens = std::mem::take(&mut self.wait_tokens);
                self.checker.forgets_waits(&tokens);
                self.apply();
            }
            _ => {
                let after = self.rng.up_to_ms(100);
                self.plan(after, Item::ExtraTick);
            }
        }
        let pause = self.rng.pick(&[0, 2, 20, 300, 2000]);
        let pause = self.rng.up_to_ms(pause);
        self.plan(pause, Item::ClientActs);
    }

    fn draw_whom(&mut self, own: Option<ProcessKey>) -> Whom {
        match (self.rng.below(10), own) {
            (0..=2, Some(own)) => match self.rng.percent(50) {
                true => Whom::Number(own.number),
                false => Whom::Name(self.processes[self.slots[&own]].name),
            },
            (3, _) => Whom::Number(WorkerNumber(self.rng.below(20))),
            (4..=5, _) => {
                let numbers = self.checker.numbers();
                match numbers.is_empty() {
                    true => Whom::Name("a"),
                    false => Whom::Number(self.rng.pick(&numbers)),
                }
            }
            _ if self.rng.percent(1) => Whom::Name(self.rng.pick(&["", "nobody"])),
            // Few names have most of the work, so that lines form.
            _ if self.rng.percent(60) => Whom::Name("a"),
            _ => Whom::Name(self.rng.pick(&NAMES)),
        }
    }

    fn draw_post(&mut self, own: Option<ProcessKey>) -> Post {
        Post {
            to: self.draw_whom(own),
            startup: self.rng.percent(8),
            existing: self.rng.percent(10),
            expires: self.rng.percent(12).then(|| self.rng.up_to_ms(500)),
            awaited: self.rng.percent(self.awaited_percent),
            after: (self.rng.percent(8) && self.has_places_for_all()).then(|| self.rng.up_to_ms(500)),
            account: own.map_or(self.rng.below(3), |_| 1 << 32),
            poison: self.rng.percent(2),
            padding: if self.rng.percent(2) { 3000 } else { self.rng.below(80) as usize },
        }
    }

    /// Else a worker that has no process when a message is due, or when it is resumed, may wait for a place for ever: the
    /// others idle.
    fn has_places_for_all(&self) -> bool {
        self.limits.processes >= NAMES.len() as u32
    }

    fn draw_kill(&mut self, own: Option<ProcessKey>) -> KillWish {
        KillWish {
            whom: self.draw_whom(own),
            mode: self.rng.pick(&[KillMode::Ladder, KillMode::Ladder, KillMode::Drain, KillMode::Now]),
            within: self.rng.percent(30).then(|| self.rng.up_to_ms(1000)),
            reply: self.rng.percent(85),
            wait: self.rng.percent(70),
        }
    }

    pub(super) fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token - 1
    }

    fn post(&mut self, from: Option<ProcessKey>, post: Post) {
        let token = self.token();
        let mut args = token.to_le_bytes().to_vec();
        args.resize(8 + post.padding, 0);
        // Who sends signals wants to know what becomes of the message.
        let carried = self.signals.draw_carried();
        let awaited = post.awaited || !carried.is_empty();
        args.extend(&carried);
        if post.poison {
            args.push(POISON);
        }
        let method = if post.startup { "" } else { "work" };
        let target = target_of(&post.to);
        let call = Call {
            target,
            method,
            args: &args,
            from,
            existing: post.existing,
            expires: post.expires,
            after: post.after,
            account: AccountId(post.account),
            reply: awaited.then(|| reply_to(1, token)),
        };
        let policy = match target {
            Target::Name(name) => self.policies.get(name).cloned(),
            Target::Number(_) => None,
        };
        let class_of = |_: &str| policy.clone().ok_or_else(|| Refused::new(Refusal::NoClass, "no class"));
        let receipt = self.core.call(self.now, call, class_of);
        self.log(|_| {
            let from = from.map(|from| from.number.0);
            format!("call from {from:?} #{token} {post:?} -> {receipt:?}")
        });
        self.coverage.count(match &receipt {
            CallReceipt::Accepted { .. } => "call accepted",
            CallReceipt::Ignored(Ignored::NoWorker) => "call ignored: no worker",
            CallReceipt::Ignored(Ignored::Ending) => "call ignored: ending",
            CallReceipt::Ignored(
                Ignored::NoLetter | Ignored::NoSignal | Ignored::NoMessage | Ignored::AlreadyTriggered,
            ) => "call ignored: never of a call",
            CallReceipt::Ignored(Ignored::NoStartupMethod) => "call ignored: no startup method",
            CallReceipt::Ignored(Ignored::OwnKilledWorker) => "call ignored: own killed worker",
            CallReceipt::Refused(refused) => match refused.reason {
                Refusal::MailboxFull => "call refused: mailbox full",
                Refusal::TooLarge => "call refused: too large",
                Refusal::ShuttingDown => "call refused: shutting down",
                Refusal::CrashLoop => "call refused: crash loop",
                _ => "call refused: no class or bad name",
            },
        });
        self.checker.called(self.now, &call, policy.as_deref(), &receipt);
        if let CallReceipt::Accepted { message, .. } = receipt {
            if !carried.is_empty() {
                self.coverage.count("message with signals");
            }
            self.signals.carried(&self.core, message, &args, awaited);
        }
        self.apply();
        if let CallReceipt::Accepted { number, .. } = receipt {
            let limit = |view: workhall_core::WorkerView<'_>| {
                view.pending <= view.mailbox_messages && view.bytes <= view.mailbox_bytes
            };
            if !self.core.worker(self.now, Target::Number(number)).is_none_or(limit) {
                self.checker.violation = Some(("quota", format!("the mailbox of {number} is beyond its limits")));
            }
        }
    }

    fn kill(&mut self, wish: KillWish) {
        let token = self.token();
        let kill = Kill {
            target: target_of(&wish.whom),
            mode: wish.mode,
            within: wish.within,
            reply: wish.reply.then(|| reply_to(1, token)),
            wait: wish.wait,
        };
        let receipt = self.core.kill(self.now, kill);
        self.log(|_| format!("kill #{token} {wish:?} -> {receipt:?}"));
        self.coverage.count(match (receipt, wish.mode) {
            (KillReceipt::Ignored(_), _) => "kill ignored",
            (_, KillMode::Ladder) => "kill by the ladder",
            (_, KillMode::Drain) => "kill by drain",
            (_, KillMode::Now) => "kill now",
        });
        self.checker.killed(self.now, &kill, receipt);
        self.apply();
    }

    fn wait(&mut self) {
        let whom = self.draw_whom(None);
        let until = self.rng.pick(&[Until::Idle, Until::Gone, Until::Empty, Until::Room]);
        let token = self.token();
        self.log(|_| format!("wait {token} for {whom:?} {until:?}"));
        self.coverage.count("wait");
        self.wait_tokens.push(token);
        self.checker.waits(target_of(&whom), until, token);
        self.core.wait(target_of(&whom), until, AccountId(0), reply_to(2, token));
        self.apply();
    }

    fn resume(&mut self) {
        let paused = self.checker.paused_numbers();
        let whom = match paused.is_empty() || self.rng.percent(40) {
            true => self.draw_whom(None),
            false => Whom::Number(self.rng.pick(&paused)),
        };
        self.coverage.count("resume");
        self.resumes(&whom);
    }

    fn resumes(&mut self, whom: &Whom) {
        self.log(|_| format!("resume {whom:?}"));
        self.checker.resumed(target_of(whom));
        self.core.resume(self.now, target_of(whom));
        self.apply();
    }

    fn pause(&mut self) {
        // Most of all in the middle of a task.
        let busy = self.processes.iter().filter(|process| process.alive && process.running.is_some());
        let busy: Vec<WorkerNumber> = busy.map(|process| process.key.number).collect();
        let whom = match busy.is_empty() || self.rng.percent(40) {
            true => self.draw_whom(None),
            false => Whom::Number(self.rng.pick(&busy)),
        };
        let receipt = self.core.pause(self.now, target_of(&whom));
        self.log(|_| format!("pause {whom:?} -> {receipt:?}"));
        self.coverage.count(if receipt.is_ok() { "pause" } else { "pause ignored" });
        self.checker.paused(target_of(&whom), receipt);
        self.apply();
    }

    /// Drops dead letters, or posts them again.
    fn take_dead_letters(&mut self) {
        let name = self.rng.pick(&NAMES);
        let which = match self.rng.below(3) {
            0 => Letters::All,
            1 => Letters::Of(name),
            _ => match self.core.dead_letters(Letters::All).map(|letter| letter.message.id).next_back() {
                Some(id) => Letters::One(id),
                None => return,
            },
        };
        // Nobody waits for what is posted again.
        if self.awaited_percent == 100 || self.rng.percent(30) {
            let dropped = self.core.drop_dead(which);
            self.log(|_| format!("drop {which:?}: {dropped}"));
            self.coverage.add("dead letter dropped", dropped);
            return self.checker.letters_leave(dropped);
        }
        let letters: Vec<_> =
            self.core.dead_letters(which).map(|letter| (letter.message.id, letter.worker.name.clone())).collect();
        let policies = &self.policies;
        let class_of = |name: &str| policies.get(name).cloned().ok_or_else(|| Refused::new(Refusal::NoClass, "none"));
        let report = self.core.requeue(self.now, which, AccountId(0), class_of);
        self.log(|_| format!("requeue {which:?}: {report:?}"));
        self.coverage.add("dead letter requeued", report.requeued);
        if report.requeued + report.left != letters.len() as u64 {
            self.checker.violation.get_or_insert(("L1", format!("of {} letters: {report:?}", letters.len())));
        }
        self.checker.letters_leave(report.requeued);
        let first = report.first.unwrap_or_default().0;
        for (at, (old, name)) in letters.iter().take(report.requeued as usize).enumerate() {
            let number = self.core.worker(self.now, Target::Name(name)).map(|view| view.identity.number);
            let policy = self.policies.get(&**name).cloned().unwrap_or_default();
            let id = MessageId(first + at as u64);
            self.checker.requeued(*old, id, name, number, &policy);
            if let Some(args) = self.checker.args(id) {
                self.signals.carried(&self.core, id, args, false);
            }
        }
        self.apply();
    }

    // ---- a new configuration ----------------------------------------------------------------

    /// Each class may have changed, gone or come back, as it was or changed.
    fn reload(&mut self) {
        if self.calm || self.phase == Phase::Stopping {
            return;
        }
        for name in NAMES {
            let rng = &mut self.reloads;
            let change = match (self.gone.remove(name), rng.below(10)) {
                (None, 0..=1) => {
                    self.gone.extend(self.policies.remove_entry(name));
                    "class gone"
                }
                (None, 2..=4) => {
                    self.policies.insert(name, Arc::new(draw_policy(rng, name)));
                    "class changed"
                }
                (Some(policy), 0..=4) => {
                    self.policies.insert(name, policy);
                    "class back"
                }
                (Some(_), 5..=6) => {
                    self.policies.insert(name, Arc::new(draw_policy(rng, name)));
                    "class back, and changed"
                }
                (gone, _) => {
                    self.gone.extend(gone.map(|policy| (name, policy)));
                    continue;
                }
            };
            self.coverage.count(change);
        }
        let restart = self.reloads.percent(50);
        self.coverage.count(if restart { "reload with restart" } else { "reload" });
        let policies = &self.policies;
        let done = self.core.reload(self.now, self.limits.clone(), restart, |name, before| match policies.get(name) {
            None => Renewal::Gone,
            Some(policy) if **policy == *before => Renewal::Same(policy.clone()),
            Some(policy) => Renewal::Changed(policy.clone()),
        });
        self.log(|world| format!("reload, restart {restart}: {:?}, {done:?}", world.policies.keys()));
        self.checker.reloaded(restart, &|name| policies.get(name).map(|policy| &**policy));
        self.apply();
    }

    // ---- processes for one method -----------------------------------------------------------

    /// Rule P1: of one name, so that it is taken now and then.
    fn starts_one(&mut self) {
        if self.calm {
            return;
        }
        let Some(policy) = self.policies.get(NAMES[self.runs.below(NAMES.len() as u64) as usize]).cloned() else {
            return;
        };
        let token = self.token();
        let mut args = token.to_le_bytes().to_vec();
        if self.runs.percent(10) {
            args.push(POISON);
        }
        let run = Run {
            name: Some(RUN),
            unique: self.runs.percent(50),
            method: if self.runs.percent(10) { "" } else { "work" },
            args: &args,
            from: None,
            account: AccountId(0),
            reply: Some(reply_to(1, token)),
        };
        let receipt = self.core.run(self.now, run, policy.clone());
        self.log(|_| format!("run #{token} unique {} -> {receipt:?}", run.unique));
        self.coverage.count(match &receipt {
            RunReceipt::Accepted { .. } => "run accepted",
            RunReceipt::Running { .. } => "run running",
            RunReceipt::Ignored(_) => "run ignored",
            RunReceipt::Refused(refused) if refused.reason == Refusal::NameTaken => "run refused: name taken",
            RunReceipt::Refused(_) => "run refused",
        });
        self.checker.ran(self.now, &run, &policy, &receipt);
        self.apply();
    }

    /// Whoever has no class any more leaves when it has nothing left.
    fn see_who_leaves(&mut self) {
        for number in self.checker.runs_over() {
            if let Some(view) = self.core.worker(self.now, Target::Number(number)) {
                let detail =
                    format!("{number} has executed its method, its process is gone, and it is there: {view:?}");
                self.checker.violation.get_or_insert(("P1", detail));
            }
        }
        for number in self.checker.retired() {
            match self.core.worker(self.now, Target::Number(number)) {
                Some(_) => self.checker.stays(number),
                None => {
                    self.coverage.count("left without a class");
                    self.log(|_| format!("  {number} has left"));
                    self.checker.left(number);
                }
            }
        }
    }

    /// Rule W5: who was not created by a call, and has a class, has a process or is about to have one.
    fn kept_ones_are_there(&mut self) {
        if self.core.next_deadline().is_some_and(|at| at <= self.now) {
            // The tick that starts it is late.
            return;
        }
        for number in self.checker.kept() {
            let view = self.core.worker(self.now, Target::Number(number));
            let waits = |view: &workhall_core::WorkerView<'_>| {
                view.slot.is_some() || view.queued || view.next_start_in.is_some()
            };
            if !view.as_ref().is_some_and(waits) {
                let detail = format!("{number} has no process, and waits for none: {view:?}");
                self.checker.violation.get_or_insert(("W5", detail));
            }
        }
    }

    fn shut_down(&mut self) {
        let grace = self.rng.up_to_ms(10_000);
        self.log(|_| format!("shutdown within {grace:?}"));
        if self.phase != Phase::Stopping {
            self.coverage.count(if self.calm { "shutdown at the end" } else { "shutdown in the middle" });
            self.phase = Phase::Stopping;
            self.stop_until = self.now.after(grace + STOP_MAX);
            if self.rng.percent(20) {
                let after = self.rng.up_to_ms(2000);
                self.plan(after, Item::ShutDown);
            }
        }
        self.checker.shut_down();
        self.core.shutdown(self.now, grace);
        self.apply();
    }

    // ---- the shell --------------------------------------------------------------------------

    fn feed(&mut self, event: Event<'_>) {
        self.log(|_| format!("  fed {event:?}"));
        self.coverage.count(match &event {
            Event::Spawned { .. } => "event Spawned",
            Event::SpawnFailed { .. } => "event SpawnFailed",
            Event::Held { .. } => "event Held",
            Event::StartFailed { .. } => "event StartFailed",
            Event::Ready { .. } => "event Ready",
            Event::Done { .. } => "event Done",
            Event::DoneAll { .. } => "event DoneAll",
            Event::Dropped { .. } => "event Dropped",
            Event::Failed { .. } => "event Failed",
            Event::Undeliverable { .. } => "event Undeliverable",
            Event::Marked { .. } => "event Marked",
            Event::Asked { .. } => "event Asked",
            Event::Violation { .. } => "event Violation",
            Event::Disconnected { .. } => "event Disconnected",
            Event::Exited { .. } => "event Exited",
            Event::TreeGone { .. } => "event TreeGone",
        });
        self.checker.fed(self.now, &event);
        self.core.handle(self.now, event);
        self.apply();
    }

    /// Takes and applies all effects. Looks come when nothing that was commanded is left to be done.
    pub(super) fn apply(&mut self) {
        let mut looks = Vec::new();
        loop {
            self.apply_commands(&mut looks);
            match looks.is_empty() {
                true => break,
                false => self.mark_is_read(looks.remove(0)),
            }
        }
    }

    fn apply_commands(&mut self, looks: &mut Vec<usize>) {
        while let Some(effect) = self.core.next_effect() {
            self.log(|_| format!("  -> {effect:?}"));
            self.coverage.count(kind_of(&effect));
            if let Effect::Deliver { process, id, .. } = effect
                && let Some(message) = self.core.task(process, id)
            {
                self.checker.task_is(self.now, id, message.id);
            }
            self.checker.commanded(self.now, &effect);
            match effect {
                Effect::Spawn { process } => self.spawn(process),
                Effect::Deliver { process, slot, id } => self.deliver(process, slot as usize, id),
                Effect::Ask { process, slot } => self.ask(process, slot as usize),
                Effect::Look { slot, .. } => looks.push(slot as usize),
                Effect::Term { slot, .. } => self.term(slot as usize),
                Effect::Kill { slot, .. } => self.signal_kill(slot as usize),
                Effect::Sweep { slot, .. } => self.sweep(slot as usize),
                Effect::Pause { slot, .. } => drop(self.halted.entry(slot as usize).or_default()),
                Effect::Continue { slot, .. } => self.continues(slot as usize),
                Effect::Settled { ref outcome, .. } => {
                    self.coverage.count(outcome_kind(outcome));
                    self.see_signal_effect(&effect);
                }
                Effect::KillEnded { report, .. } => {
                    self.coverage.count(match report.ended_by {
                        EndedBy::Ask => "ended by ask",
                        EndedBy::Term => "ended by term",
                        EndedBy::Kill => "ended by kill",
                        EndedBy::AlreadyGone => "already gone",
                        EndedBy::OnlyEmptied => "only emptied",
                    });
                    self.coverage.count(match report.current {
                        Current::None => "current none",
                        Current::Finished => "current finished",
                        Current::Interrupted => "current interrupted",
                    });
                }
                Effect::Killed { .. } | Effect::Reached { .. } => {}
                Effect::Close { .. } => unreachable!("nobody attaches here"),
                Effect::SignalEnded { .. } => self.see_signal_effect(&effect),
                Effect::Cancel { slot, id, .. } => self.send(slot as usize, ToProcess::Cancel(id)),
                Effect::Stopped => self.stopped = true,
            }
        }
        self.see_who_leaves();
        self.take_news();
        self.check_signals();
    }

    /// Each end of a message that is not done is noted once, and nothing is done that is noted.
    fn take_news(&mut self) {
        while let Some(news) = self.core.next_news() {
            self.log(|_| format!("  news: {} {:?}", news.worker.name, news.what));
            if let Change::Ended { count, .. } = news.what {
                self.ends_noted += count;
            }
        }
        let Ledger { failed, discarded, expired, dead, .. } = self.core.ledger();
        let (noted, ended) = (self.ends_noted, failed + discarded + expired + dead);
        if noted != ended || self.core.take_lost_news() > 0 {
            let detail = format!("{ended} messages have ended and are not done, {noted} are noted");
            self.checker.violation.get_or_insert(("news", detail));
        }
    }

    fn spawn(&mut self, key: ProcessKey) {
        let name = self.core.name(key).map(|name| NAMES.into_iter().chain([RUN]).find(|known| *known == &**name));
        let Some(Some(name)) = name else {
            self.checker.violation.get_or_insert(("spawn", format!("{key:?} has no name")));
            return;
        };
        if let Some(left) = self.held_names.get_mut(name).filter(|left| **left > 0) {
            *left -= 1;
            return self.feed(Event::Held { process: key, detail: "process 7 holds it".into() });
        }
        let nature = Nature::draw(&mut self.rng, self.calm);
        self.count_faults(&nature);
        if nature.start == Start::Fails {
            return self.feed(Event::SpawnFailed {
                process: key,
                stage: StartStage::Exec,
                detail: "exec: no such file".into(),
            });
        }
        if self.core.policy(key).is_some_and(|policy| policy.task_grace.is_some()) {
            self.checker.limits_tasks(key.number);
        }
        let slot = self.processes.len();
        self.checker.spawned(key, nature.has_page);
        match nature.start {
            Start::Good => self.plan(nature.start_takes, Item::IsReady(slot)),
            Start::ExitsBefore(exit) => self.plan_death(slot, nature.start_takes, exit),
            Start::NeverReady | Start::Fails => {}
        }
        self.processes.push(Process::new(key, name, nature));
        self.slots.insert(key, slot);
        self.feed(Event::Spawned { process: key, slot: slot as u32 });
    }

    /// What is wrong with a process from its start on.
    fn count_faults(&mut self, nature: &Nature) {
        let slow = Duration::from_millis(100);
        let faults = [
            ("never ready", nature.start == Start::NeverReady),
            ("ended before ready", matches!(nature.start, Start::ExitsBefore(_))),
            ("deaf to the ladder", !nature.obeys_ask),
            ("deaf to SIGKILL at first", nature.kills_needed > 1),
            ("slow exit", nature.exit_takes > slow),
            ("left behind", nature.sweeps_needed > 1 || nature.tree_takes > slow),
        ];
        for (fault, _) in faults.iter().filter(|(_, so)| *so) {
            self.coverage.count(fault);
        }
    }

    fn send(&mut self, slot: usize, frame: ToProcess) {
        self.processes[slot].on_the_way.push_back(frame);
        let after = if self.rng.percent(30) { self.rng.up_to_ms(20) } else { self.rng.up_to_ms(1) };
        self.plan(after, Item::Arrives(slot));
    }

    fn deliver(&mut self, process: ProcessKey, slot: usize, id: MessageId) {
        let message = self.core.task(process, id);
        self.checker.content(id, message);
        let awaited = message.is_some_and(|message| message.reply.is_some());
        if self.rng.percent(1) {
            let error = error_of(id);
            return self.feed(Event::Undeliverable { process, id, error: &error });
        }
        let poison = message.is_some_and(|message| message.args().last() == Some(&POISON));
        self.send(slot, ToProcess::Task { id, awaited, poison });
    }

    /// Sets the flag, reads the page, and answers: what was written before is still unread.
    fn ask(&mut self, process: ProcessKey, slot: usize) {
        self.processes[slot].stop_flag = true;
        let mark = self.processes[slot].page();
        self.send(slot, ToProcess::Ask);
        self.feed(Event::Asked { process, mark });
    }

    fn mark_is_read(&mut self, slot: usize) {
        let process = &self.processes[slot];
        if let (Some(mark), false) = (process.page(), process.exit_fed) {
            let key = process.key;
            self.shell_reads(slot, usize::MAX);
            self.feed(Event::Marked { process: key, mark });
        }
    }

    fn shell_reads(&mut self, slot: usize, frames: usize) {
        for _ in 0..frames {
            let key = self.processes[slot].key;
            let Some(frame) = self.processes[slot].outbox.pop_front() else { return };
            match frame {
                ToShell::Ready => {
                    let Nature { window, has_page: marked, .. } = self.processes[slot].nature;
                    self.feed(Event::Ready { process: key, window, marked });
                }
                ToShell::Lie(id) if id.0 % 2 == 0 => self.feed(Event::DoneAll { process: key, id }),
                ToShell::Lie(id) => self.feed(Event::Done { process: key, id, result: b"a lie" }),
                ToShell::Done(id) => self.feed(Event::Done { process: key, id, result: &result_of(id) }),
                ToShell::DoneAll(id) => self.feed(Event::DoneAll { process: key, id }),
                ToShell::Dropped(id) => self.feed(Event::Dropped { process: key, id }),
                ToShell::Failed(id) => self.feed(Event::Failed { process: key, id, error: &error_of(id) }),
                ToShell::Post(post) => self.post(Some(key), post),
                ToShell::Kill(wish) => self.kill(wish),
            }
        }
    }

    fn sweep(&mut self, slot: usize) {
        let process = &mut self.processes[slot];
        process.sweeps_seen += 1;
        if process.sweeps_seen == process.nature.sweeps_needed {
            let takes = process.nature.tree_takes;
            self.plan(takes, Item::TreeGone(slot));
        } else if process.sweeps_seen > process.nature.sweeps_needed && process.tree_gone {
            self.plan(Duration::ZERO, Item::TreeGone(slot));
        }
    }

    // ---- the operating system ---------------------------------------------------------------

    fn plan_death(&mut self, slot: usize, after: Duration, exit: Exit) {
        self.plan(
            after,
            match exit {
                Exit::Code(code) => Item::Dies(slot, Some(code), 0),
                Exit::Signal(signal) => Item::Dies(slot, None, signal),
            },
        );
    }

    /// What came while it was stopped, it does now; in which order, chance says.
    fn continues(&mut self, slot: usize) {
        for item in self.halted.remove(&slot).unwrap_or_default() {
            self.plan(Duration::ZERO, item);
        }
    }

    fn term(&mut self, slot: usize) {
        self.continues(slot);
        if self.processes[slot].nature.obeys_term {
            let takes = self.processes[slot].nature.exit_takes;
            self.plan_death(slot, takes, Exit::Signal(15));
        }
    }

    fn signal_kill(&mut self, slot: usize) {
        self.processes[slot].kills_seen += 1;
        if self.processes[slot].kills_seen >= self.processes[slot].nature.kills_needed {
            let takes = self.rng.up_to_ms(5);
            self.plan_death(slot, takes, Exit::Signal(9));
        }
    }

    fn dies(&mut self, slot: usize, exit: Exit) {
        if !self.processes[slot].alive {
            return;
        }
        let process = &mut self.processes[slot];
        process.alive = false;
        process.exit = Some(exit);
        let hung_up = !std::mem::replace(&mut process.connected, false);
        let after = self.rng.up_to_ms(30);
        self.plan(after, Item::Exited(slot));
        if !hung_up {
            let after = self.rng.up_to_ms(30);
            self.plan(after, Item::Disconnected(slot));
        }
    }

    /// Reads all that it had written, then feeds the exit. The kernel may say first that the tree is gone, and
    /// the shell that nothing more can be given to the process.
    fn exited(&mut self, slot: usize) {
        if self.rng.percent(30) {
            let process = self.processes[slot].key;
            self.feed(Event::Disconnected { process });
        }
        self.shell_reads(slot, usize::MAX);
        let process = &mut self.processes[slot];
        let (key, exit, mark) = (process.key, process.exit.expect("it has died"), process.page());
        if process.nature.sweeps_needed == 1 && self.rng.percent(5) {
            self.feed(Event::TreeGone { process: key });
        }
        self.processes[slot].exit_fed = true;
        self.feed(Event::Exited { process: key, exit, mark });
    }

    fn disconnected(&mut self, slot: usize) {
        self.shell_reads(slot, usize::MAX);
        let process = self.processes[slot].key;
        self.feed(Event::Disconnected { process });
    }

    fn tree_gone(&mut self, slot: usize) {
        self.processes[slot].tree_gone = true;
        let process = self.processes[slot].key;
        self.feed(Event::TreeGone { process });
        if self.rng.percent(20) {
            let after = self.rng.up_to_ms(500);
            self.plan(after, Item::Late(slot));
        }
    }

    /// Something of a life that has ended.
    fn late(&mut self, slot: usize) {
        let process = self.processes[slot].key;
        let id = MessageId(self.rng.below(30));
        match self.rng.below(7) {
            0 => self.feed(Event::Done { process, id, result: b"late" }),
            1 => self.feed(Event::Failed { process, id, error: "late" }),
            2 => self.feed(Event::Marked { process, mark: Mark { begun: id, finished: id } }),
            3 => self.feed(Event::Ready { process, window: 3, marked: true }),
            4 => self.feed(Event::Exited { process, exit: Exit::Code(0), mark: None }),
            5 => self.feed(Event::Violation { process, detail: "é".repeat(150).as_str() }),
            _ => self.feed(Event::TreeGone { process }),
        }
    }

    // ---- processes --------------------------------------------------------------------------

    fn writes(&mut self, slot: usize, frame: ToShell) {
        if self.processes[slot].connected {
            self.processes[slot].write(frame);
            self.plan_reading(slot, 1);
        }
    }

    fn plan_reading(&mut self, slot: usize, frames: usize) {
        for _ in 0..frames {
            let after = if self.rng.percent(30) { self.rng.up_to_ms(20) } else { self.rng.up_to_ms(1) };
            self.plan(after, Item::ShellReads(slot));
        }
    }

    fn flushes(&mut self, slot: usize) {
        let before = self.processes[slot].outbox.len();
        self.processes[slot].flush();
        let written = self.processes[slot].outbox.len() - before;
        self.plan_reading(slot, written);
    }

    fn is_ready(&mut self, slot: usize) {
        if self.processes[slot].alive {
            self.processes[slot].is_ready = true;
            self.writes(slot, ToShell::Ready);
            self.goes_on(slot);
        }
    }

    fn arrives(&mut self, slot: usize) {
        let process = &mut self.processes[slot];
        let Some(frame) = process.on_the_way.pop_front() else { return };
        if process.alive && process.connected {
            match frame {
                ToProcess::Cancel(id) => drop(process.unwanted.insert(id)),
                frame => process.inbox.push_back(frame),
            }
            self.goes_on(slot);
        }
    }

    /// Between two tasks: reads on, begins the next, or ends.
    fn goes_on(&mut self, slot: usize) {
        loop {
            let process = &mut self.processes[slot];
            if !process.alive || !process.is_ready || process.running.is_some() || process.beginning.is_some() {
                return;
            }
            match process.inbox.pop_front() {
                Some(ToProcess::Ask) => {
                    process.stops = true;
                    if !std::mem::replace(&mut process.asked, true) && process.nature.obeys_ask {
                        let takes = process.nature.exit_takes;
                        self.flushes(slot);
                        self.plan_death(slot, takes, Exit::Code(0));
                    }
                }
                Some(ToProcess::Task { .. }) if process.stops => {}
                Some(ToProcess::Cancel(_)) => unreachable!("is taken when it arrives"),
                Some(ToProcess::Task { id, .. }) if process.nature.has_page && process.unwanted.remove(&id) => {
                    self.flushes(slot);
                    // What cannot be told has not happened, and it begins nothing more.
                    match self.processes[slot].connected {
                        true => self.writes(slot, ToShell::Dropped(id)),
                        false => self.processes[slot].stops = true,
                    }
                }
                Some(ToProcess::Task { id, awaited, poison }) => self.begins(slot, id, awaited, poison),
                None => return self.is_idle(slot),
            }
        }
    }

    fn is_idle(&mut self, slot: usize) {
        self.flushes(slot);
        let process = &mut self.processes[slot];
        process.epoch += 1;
        let epoch = process.epoch;
        if let (Some(after), false) = (process.nature.idle_exit, process.stops) {
            self.plan(after, Item::IdleExit(slot, epoch));
        }
        if !self.processes[slot].connected && self.processes[slot].nature.obeys_ask {
            let takes = self.processes[slot].nature.exit_takes;
            self.plan_death(slot, takes, Exit::Code(0));
        }
    }

    fn idle_exit(&mut self, slot: usize) {
        self.dies(slot, Exit::Code(0));
    }

    /// First the page, then the flag: one of the two sides sees the other.
    fn begins(&mut self, slot: usize, id: MessageId, awaited: bool, poison: bool) {
        let process = &mut self.processes[slot];
        process.epoch += 1;
        process.beginning = Some(Beginning { id, awaited, poison, previous: process.mark.begun });
        process.mark.begun = id;
        let epoch = process.epoch;
        let key = process.key;
        self.checker.page_differs(key, true);
        match self.rng.percent(20) {
            true => {
                let after = self.rng.up_to_ms(3);
                self.plan(after, Item::BeginsSecondHalf(slot, epoch));
            }
            false => self.look_at_the_flag(slot),
        }
    }

    fn begins_second_half(&mut self, slot: usize) {
        self.look_at_the_flag(slot);
        self.goes_on(slot);
    }

    fn look_at_the_flag(&mut self, slot: usize) {
        let process = &mut self.processes[slot];
        let Beginning { id, awaited, poison, previous } = process.beginning.take().expect("the caller has set it");
        self.checker.page_differs(process.key, false);
        if process.stop_flag && process.nature.has_page {
            process.mark.begun = previous;
            process.stops = true;
            return;
        }
        let key = process.key;
        let ending = match self.rng.below(100) {
            _ if poison => Ending::Crash(Exit::Signal(11)),
            _ if self.calm => Ending::Done,
            roll if roll < process.nature.hang_percent => Ending::Hang,
            _ => match self.rng.below(100) {
                roll if roll < process.nature.crash_percent => match self.rng.below(3) {
                    0 => Ending::Crash(Exit::Code(3)),
                    1 => Ending::Crash(Exit::Signal(11)),
                    _ => Ending::SettledThenCrash(Exit::Signal(6)),
                },
                roll if roll > 100 - process.nature.fail_percent => Ending::Failed,
                _ => Ending::Done,
            },
        };
        match ending {
            Ending::Hang => self.coverage.count("hung task"),
            Ending::Crash(_) | Ending::SettledThenCrash(_) => self.coverage.count("crash of a process"),
            Ending::Done | Ending::Failed => {}
        }
        let process = &mut self.processes[slot];
        process.running = Some(Task { id, awaited, ending });
        process.epoch += 1;
        let (epoch, task_ms) = (process.epoch, process.nature.task_ms);
        self.checker.begins(self.now, key, id);
        self.log(|world| format!("  {} {key:?} begins {id}, {ending:?}", world.processes[slot].name));
        let takes = self.rng.up_to_ms(task_ms).min(TASK_MAX);
        if ending != Ending::Hang {
            self.plan(takes, Item::TaskEnds(slot, epoch));
        }
        if !self.calm && self.rng.percent(25) {
            self.plan(takes / 2, Item::ActsInTask(slot, epoch));
        }
        if self.processes[slot].nature.has_page && self.rng.percent(20) {
            let after = self.rng.up_to_ms(30);
            self.plan(after, Item::MarkIsRead(slot));
        }
    }

    /// In the middle of a task: calls, kills, or hangs up.
    fn acts_in_task(&mut self, slot: usize) {
        let own = Some(self.processes[slot].key);
        if self.rng.percent(self.processes[slot].nature.lie_percent) {
            // Neither what it executes nor what it was sent ahead: that would be the truth, or the end of its own.
            let known = self.processes[slot].running.map_or(0, |task| task.id.0);
            // One that keeps the page may still owe the words for those before.
            let past = !self.processes[slot].nature.has_page && self.rng.percent(50);
            let id = if past { self.rng.below(known.max(1)) } else { known + 1000 };
            self.coverage.count("lie");
            self.writes(slot, ToShell::Lie(MessageId(id)));
        }
        for _ in 0..self.rng.between(1, 3) {
            let frame = match self.rng.percent(80) {
                true => ToShell::Post(self.draw_post(own)),
                false => ToShell::Kill(self.draw_kill(own)),
            };
            self.writes(slot, frame);
        }
        if self.rng.percent(self.processes[slot].nature.hang_up_percent) && self.processes[slot].connected {
            self.coverage.count("hung up");
            self.processes[slot].connected = false;
            let after = self.rng.up_to_ms(30);
            self.plan(after, Item::Disconnected(slot));
        }
    }

    fn task_ends(&mut self, slot: usize) {
        let process = &mut self.processes[slot];
        let key = process.key;
        let Some(task) = process.running.filter(|task| task.ending != Ending::Hang) else { return };
        let Task { id, awaited, ending } = task;
        if let Ending::Crash(exit) = ending {
            return self.dies(slot, exit);
        }
        process.running = None;
        process.epoch += 1;
        let (has_page, batch) = (process.nature.has_page, process.nature.batch);
        let done = ending != Ending::Failed;
        let collected = has_page && done && !awaited;
        // What cannot be told any more is not finished as far as anybody can know.
        let lost = !collected && !process.connected;
        if !lost {
            self.checker.ends(key, id, done);
        }
        if collected {
            self.processes[slot].unwritten.push(id);
            if self.processes[slot].unwritten.len() >= batch {
                self.flushes(slot);
            }
        } else {
            self.flushes(slot);
            self.writes(slot, if done { ToShell::Done(id) } else { ToShell::Failed(id) });
        }
        if let Ending::SettledThenCrash(exit) = ending
            && !collected
        {
            self.checker.page_differs(key, true);
            return self.dies(slot, exit);
        }
        if lost {
            self.processes[slot].stops = true;
        } else {
            self.processes[slot].mark.finished = id;
        }
        self.goes_on(slot);
    }

    // ---- the trace --------------------------------------------------------------------------

    pub(super) fn log(&self, line: impl FnOnce(&World) -> String) {
        if self.trace {
            let line = format!("{:>12.6} {}", self.now.0 as f64 / 1e9, line(self));
            self.notes.lock().expect("only this thread").trace.push(line);
        }
    }

    fn whose(&self, item: Item) -> String {
        match item {
            Item::IsReady(slot)
            | Item::Arrives(slot)
            | Item::ShellReads(slot)
            | Item::MarkIsRead(slot)
            | Item::BeginsSecondHalf(slot, _)
            | Item::ActsInTask(slot, _)
            | Item::TaskEnds(slot, _)
            | Item::IdleExit(slot, _)
            | Item::Dies(slot, ..)
            | Item::Exited(slot)
            | Item::Disconnected(slot)
            | Item::TreeGone(slot)
            | Item::Late(slot) => {
                let process = &self.processes[slot];
                format!("of {} {}.{}", process.name, process.key.number, process.key.generation)
            }
            Item::ClientActs
            | Item::BecomeCalm
            | Item::ShutDown
            | Item::Reload
            | Item::Runs
            | Item::Signals
            | Item::ExtraTick => String::new(),
        }
    }
}

fn draw_policy(rng: &mut Rng, name: &str) -> Policy {
    Policy {
        class: name.into(),
        startup_method: rng.percent(30).then(|| "startup".into()),
        mailbox_messages: rng.pick(&[2, 8, 1000]),
        mailbox_bytes: rng.pick(&[400, 3000, 1 << 20]),
        start_timeout: Duration::from_millis(rng.pick(&[200, 2000])),
        task_grace: rng.percent(40).then(|| rng.up_to_ms(2000)),
        exit_grace: rng.up_to_ms(1000),
        term_grace: rng.up_to_ms(1000),
        attempts: rng.pick(&[1, 1, 2, 3]),
        task_timeout: rng.percent(30).then(|| Duration::from_millis(1) + rng.up_to_ms(3000)),
        idle_timeout: rng.percent(30).then(|| Duration::from_millis(1) + rng.up_to_ms(1000)),
        crash_limit: CrashLimit {
            crashes: rng.pick(&[1, 3, 8]),
            within: Duration::from_secs(30),
            pause: rng.up_to_ms(20_000),
            refuse_calls: rng.percent(30),
            drop_unstarted: rng.percent(50),
        },
    }
}

fn target_of(whom: &Whom) -> Target<'_> {
    match whom {
        Whom::Name(name) => Target::Name(name),
        Whom::Number(number) => Target::Number(*number),
    }
}

fn reply_to(connection: u64, token: u64) -> ReplyTo {
    ReplyTo { connection: NonZeroU64::new(connection).expect("is not 0"), token }
}

fn kind_of(effect: &Effect) -> &'static str {
    match effect {
        Effect::Spawn { .. } => "effect Spawn",
        Effect::Deliver { .. } => "effect Deliver",
        Effect::Ask { .. } => "effect Ask",
        Effect::Look { .. } => "effect Look",
        Effect::Pause { .. } => "effect Pause",
        Effect::Continue { .. } => "effect Continue",
        Effect::Term { .. } => "effect Term",
        Effect::Kill { .. } => "effect Kill",
        Effect::Close { .. } => "effect Close",
        Effect::Sweep { .. } => "effect Sweep",
        Effect::Settled { .. } => "effect Settled",
        Effect::Killed { .. } => "effect Killed",
        Effect::KillEnded { .. } => "effect KillEnded",
        Effect::Reached { .. } => "effect Reached",
        Effect::SignalEnded { .. } => "effect SignalEnded",
        Effect::Cancel { .. } => "effect Cancel",
        Effect::Stopped => "effect Stopped",
    }
}

fn outcome_kind(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done { .. } => "outcome done",
        Outcome::Failed { .. } => "outcome failed",
        Outcome::Discarded { may_have_run: false } => "outcome discarded",
        Outcome::Discarded { may_have_run: true } => "outcome discarded, may have run",
        Outcome::Expired { may_have_run: false } => "outcome expired",
        Outcome::Expired { may_have_run: true } => "outcome expired, may have run",
        Outcome::Dead { reason: DeadReason::Crashed, .. } => "outcome crashed",
        Outcome::Dead { reason: DeadReason::Abandoned, .. } => "outcome abandoned",
        Outcome::Dead { reason: DeadReason::Poison, .. } => "outcome poison",
        Outcome::Dead { reason: DeadReason::TimedOut, .. } => "outcome timed out",
        Outcome::Dead { reason: DeadReason::NeverStarted, .. } => "outcome never started",
        Outcome::Dead { reason: DeadReason::Expired, .. } => "outcome dead otherwise",
    }
}
