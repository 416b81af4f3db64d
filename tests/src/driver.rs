//! Drives the core alone, with a virtual clock: [`Driver`] plays a shell that answers at once. What the core commands
//! is compared as short lines, such as `deliver #1 to %2.1`: message 1 to the first life of worker number 2.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use workhall_core::{
    AccountId, Call, CallReceipt, Core, Effect, Event, Instant, Kill, KillMode, KillReceipt, KillReport, Limits, Mark,
    News, Outcome, Policy, ProcessKey, ReplyTo, Run, RunReceipt, SignalEnd,
};
use workhall_protocol::ids::{MessageId, Target, WorkerNumber};
use workhall_protocol::terms::{DeadReason, Exit, Ignored, Refusal};

/// The graces and limits of time of the driver's class, in milliseconds.
pub const EXIT_GRACE_MS: u64 = 5_000;
/// From SIGTERM to SIGKILL.
pub const TERM_GRACE_MS: u64 = 2_000;
/// The shell's index of what is attached: no signal is for it.
pub const ATTACHED_SLOT: u32 = 7;
/// From the spawn to ready.
pub const START_TIMEOUT_MS: u64 = 10_000;

/// A core with a shell that answers at once.
pub struct Driver {
    /// What is driven.
    pub core: Core,
    /// The virtual clock.
    pub now: Instant,
    /// Of the one class there is.
    pub policy: Policy,
    /// The lives that were started, by number and generation.
    pub keys: HashMap<(u64, u64), ProcessKey>,
    /// What the page says at the next Ask; none for a process without one.
    pub mark: Option<Mark>,
    /// An earlier supervisor holds every name.
    pub held: bool,
    /// What was commanded and not compared yet.
    pub effects: Vec<Effect>,
    /// What happened and was not looked at yet.
    pub news: Vec<News>,
}

impl Default for Driver {
    fn default() -> Self {
        Driver::new()
    }
}

impl Driver {
    /// With the class as it is at the head of the file.
    pub fn new() -> Driver {
        Driver::with(|_| {})
    }

    /// With a class of its own.
    pub fn with(change: impl FnOnce(&mut Policy)) -> Driver {
        let mut policy = Policy {
            class: "c".into(),
            mailbox_messages: 1000,
            mailbox_bytes: 1 << 20,
            start_timeout: ms(START_TIMEOUT_MS),
            exit_grace: ms(EXIT_GRACE_MS),
            term_grace: ms(TERM_GRACE_MS),
            ..Policy::default()
        };
        change(&mut policy);
        let limits = Limits { message_bytes: 1000, total_bytes: 60_000, workers: 100, ..Limits::default() };
        let core = Core::new(limits, 1);
        Driver {
            core,
            now: Instant(0),
            policy,
            keys: HashMap::new(),
            mark: None,
            held: false,
            effects: Vec::new(),
            news: Vec::new(),
        }
    }

    /// Takes the effects, and gives the answers that come at once.
    pub fn take(&mut self) {
        while let Some(effect) = self.core.next_effect() {
            let answer = match effect {
                Effect::Spawn { process } => {
                    self.keys.insert((process.number.0, process.generation.0), process);
                    Some(match self.held {
                        true => Event::Held { process, detail: "process 7 holds it".into() },
                        false => Event::Spawned { process, slot: 0 },
                    })
                }
                Effect::Ask { process, .. } => Some(Event::Asked { process, mark: self.mark }),
                _ => None,
            };
            if let Effect::Pause { slot, .. } | Effect::Term { slot, .. } | Effect::Kill { slot, .. } = effect {
                assert_eq!(slot, 0, "a signal for what is not there: {effect:?}");
            }
            self.effects.push(effect);
            if let Some(answer) = answer {
                self.core.handle(self.now, answer);
            }
        }
        while let Some(news) = self.core.next_news() {
            self.news.push(news);
        }
    }

    /// What was commanded since the last time.
    pub fn lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.effects).iter().map(line).collect()
    }

    /// Compares what was commanded since the last time.
    #[track_caller]
    pub fn did(&mut self, expected: &[&str]) {
        assert_eq!(self.lines(), expected);
    }

    /// A life that was started.
    pub fn key(&self, number: u64, generation: u64) -> ProcessKey {
        self.keys[&(number, generation)]
    }

    /// A worker, which must exist.
    pub fn view(&self, name: &str) -> workhall_core::WorkerView<'_> {
        self.core.worker(self.now, Target::Name(name)).unwrap()
    }

    /// Posts a call.
    pub fn receipt(&mut self, call: Call<'_>) -> CallReceipt {
        let policy = self.policy.clone();
        let receipt = self.core.call(self.now, call, |_| Ok(Arc::new(policy)));
        self.take();
        receipt
    }

    /// Number and id.
    #[track_caller]
    pub fn accepted(&mut self, call: Call<'_>) -> (u64, u64) {
        match self.receipt(call) {
            CallReceipt::Accepted { number, message } => (number.0, message.0),
            other => panic!("{other:?}"),
        }
    }

    /// Posts a call that must be ignored.
    #[track_caller]
    pub fn ignored(&mut self, call: Call<'_>) -> Ignored {
        match self.receipt(call) {
            CallReceipt::Ignored(why) => why,
            other => panic!("{other:?}"),
        }
    }

    /// Posts a call that must be refused.
    #[track_caller]
    pub fn refusal(&mut self, call: Call<'_>) -> Refusal {
        match self.receipt(call) {
            CallReceipt::Refused(refused) => refused.reason,
            other => panic!("{other:?}"),
        }
    }

    /// Posts a call that must be accepted; returns number and id.
    #[track_caller]
    pub fn call(&mut self, name: &str, method: &str) -> (u64, u64) {
        self.accepted(Call { method, ..post(name) })
    }

    /// The same by number; none unless it was accepted.
    pub fn call_number(&mut self, number: u64, method: &str) -> Option<(u64, u64)> {
        match self.receipt(Call { target: Target::Number(WorkerNumber(number)), method, ..post("") }) {
            CallReceipt::Accepted { number, message } => Some((number.0, message.0)),
            _ => None,
        }
    }

    /// Starts a process for one method.
    pub fn run(&mut self, run: Run<'_>) -> RunReceipt {
        let receipt = self.core.run(self.now, run, Arc::new(self.policy.clone()));
        self.take();
        receipt
    }

    /// The same; it must be accepted. Name, number and id.
    #[track_caller]
    pub fn runs(&mut self, run: Run<'_>) -> (String, u64, u64) {
        match self.run(run) {
            RunReceipt::Accepted { name, number, message } => (name.to_string(), number.0, message.0),
            other => panic!("{other:?}"),
        }
    }

    /// A process that somebody else has started takes a name; returns its number.
    pub fn attach(&mut self, name: &str) -> Result<u64, Refusal> {
        let attached = self.core.attach(self.now, name, Arc::new(self.policy.clone()), ATTACHED_SLOT);
        self.take();
        let key = attached.map_err(|refused| refused.reason)?;
        self.keys.insert((key.number.0, key.generation.0), key);
        Ok(key.number.0)
    }

    /// By name, with both receipts to token 100.
    #[track_caller]
    pub fn kill(&mut self, name: &str, mode: KillMode) {
        self.kill_with(kill(name, mode));
    }

    /// Kills somebody who must exist.
    #[track_caller]
    pub fn kill_with(&mut self, kill: Kill<'_>) {
        assert_eq!(self.core.kill(self.now, kill), KillReceipt::Posted);
        self.take();
    }

    /// Tells the core a fact.
    pub fn feed(&mut self, event: Event<'_>) {
        self.core.handle(self.now, event);
        self.take();
    }

    /// A process is ready; it keeps the marks unless its window is 1.
    pub fn ready(&mut self, number: u64, generation: u64, window: u32) {
        self.feed(Event::Ready { process: self.key(number, generation), window, marked: window > 1 });
    }

    /// A process settles a task.
    pub fn done(&mut self, number: u64, generation: u64, id: u64) {
        self.feed(Event::Done { process: self.key(number, generation), id: MessageId(id), result: b"" });
    }

    /// A process ends.
    pub fn exits(&mut self, number: u64, generation: u64, exit: Exit, mark: Option<Mark>) {
        self.feed(Event::Exited { process: self.key(number, generation), exit, mark });
    }

    /// Nothing is left of its tree.
    pub fn gone(&mut self, number: u64, generation: u64) {
        self.feed(Event::TreeGone { process: self.key(number, generation) });
    }

    /// Both.
    pub fn dies(&mut self, number: u64, generation: u64, exit: Exit, mark: Option<Mark>) {
        self.exits(number, generation, exit, mark);
        self.gone(number, generation);
    }

    /// The report of the kill that this death completes.
    pub fn ends(&mut self, number: u64, generation: u64, exit: Exit) -> KillReport {
        self.effects.clear();
        self.dies(number, generation, exit, None);
        let report = self.effects.iter().find_map(|effect| match effect {
            Effect::KillEnded { report, .. } => Some((**report).clone()),
            _ => None,
        });
        report.expect("somebody waits for it")
    }

    /// Time passes, to so many milliseconds after the start.
    pub fn tick(&mut self, at_ms: u64) {
        self.now = Instant(0).after(ms(at_ms));
        self.core.tick(self.now);
        self.take();
    }
}

/// `a` is number 2, executes message 1, and 2 and 3 are pending; tokens are the ids.
pub fn busy_with_two_pending() -> Driver {
    let mut d = Driver::new();
    for token in 1..=3 {
        d.accepted(Call { reply: reply(token), ..post("a") });
    }
    d.ready(2, 1, 1);
    d.effects.clear();
    d
}

/// `a` has three workers: 2 executes message 1 and is drained of 2; 3 is drained of 3; 4 has 4.
pub fn line_of_three() -> Driver {
    let mut d = Driver::new();
    d.accepted(Call { reply: reply(1), ..post("a") });
    d.ready(2, 1, 1);
    d.kill_with(Kill { reply: None, ..kill("a", KillMode::Drain) });
    d.accepted(Call { reply: reply(3), ..post("a") });
    d.kill_with(Kill { reply: None, ..kill("a", KillMode::Drain) });
    d.accepted(Call { reply: reply(4), ..post("a") });
    assert_eq!(d.core.worker_count(), 3);
    d.effects.clear();
    d
}

/// A call of `m` without arguments.
pub fn post(name: &str) -> Call<'_> {
    let target = Target::Name(name);
    let (from, expires, after, reply) = (None, None, None, None);
    Call { target, method: "m", args: b"", from, existing: false, expires, after, account: AccountId(0), reply }
}

/// A process without a name, that executes `m`, to token 50.
pub fn process<'a>() -> Run<'a> {
    let (name, from) = (None, None);
    Run { name, unique: false, method: "m", args: b"", from, account: AccountId(0), reply: reply(50) }
}

/// A kill by name, with both receipts to token 100.
pub fn kill(name: &str, mode: KillMode) -> Kill<'_> {
    Kill { target: Target::Name(name), mode, within: None, reply: reply(100), wait: true }
}

/// Where an answer goes.
pub fn reply(token: u64) -> Option<ReplyTo> {
    Some(ReplyTo { connection: NonZeroU64::MIN, token })
}

/// A mark page.
pub fn mark(begun: u64, finished: u64) -> Mark {
    Mark { begun: MessageId(begun), finished: MessageId(finished) }
}

/// Milliseconds.
pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A command in a few words.
pub fn line(effect: &Effect) -> String {
    let of = |process: &ProcessKey| format!("{}.{}", process.number, process.generation);
    match effect {
        Effect::Spawn { process } => format!("spawn {}", of(process)),
        Effect::Deliver { process, id, .. } => format!("deliver #{id} to {}", of(process)),
        Effect::Ask { process, .. } => format!("ask {}", of(process)),
        Effect::Look { process, .. } => format!("look at {}", of(process)),
        Effect::Pause { process, .. } => format!("pause {}", of(process)),
        Effect::Continue { process, .. } => format!("continue {}", of(process)),
        Effect::Term { process, .. } => format!("term {}", of(process)),
        Effect::Kill { process, .. } => format!("kill {}", of(process)),
        Effect::Close { process, .. } => format!("close {}", of(process)),
        Effect::Sweep { process, .. } => format!("sweep {}", of(process)),
        Effect::Settled { reply, outcome } => format!("t{}: {}", reply.token, fate(outcome)),
        Effect::Killed { reply, discarded } => format!("k{}: {discarded} discarded", reply.token),
        Effect::KillEnded { reply, report } => {
            let KillReport { ended_by, current, discarded, .. } = &**report;
            format!("k{}: ended by {ended_by:?}, current {current:?}, {discarded} discarded", reply.token)
        }
        Effect::Reached { reply } => format!("t{}: reached", reply.token),
        Effect::SignalEnded { reply, end } => match end {
            SignalEnd::Triggered(values) => {
                let values: Vec<_> = values.iter().map(|(key, value)| format!(" {key}={value:?}")).collect();
                format!("t{}: triggered{}", reply.token, values.concat())
            }
            SignalEnd::Message(outcome) => format!("t{}: {}", reply.token, fate(outcome)),
            SignalEnd::TimedOut => format!("t{}: not triggered in time", reply.token),
            SignalEnd::Lost => format!("t{}: nobody is left to trigger it", reply.token),
        },
        Effect::Cancel { process, id, .. } => format!("cancel #{id} at {}", of(process)),
        Effect::Stopped => "stopped".into(),
    }
}

/// An outcome in a few words.
pub fn fate(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done { .. } => "done",
        Outcome::Failed { .. } => "failed",
        Outcome::Discarded { may_have_run: false } => "discarded",
        Outcome::Discarded { may_have_run: true } => "discarded, may have run",
        Outcome::Expired { may_have_run: false } => "expired",
        Outcome::Expired { may_have_run: true } => "expired, may have run",
        Outcome::Dead { reason: DeadReason::Crashed, may_have_run: true, exit: Some(_) } => "crashed",
        Outcome::Dead { reason: DeadReason::Abandoned, .. } => "abandoned",
        Outcome::Dead { reason: DeadReason::Poison, may_have_run: true, .. } => "poison",
        Outcome::Dead { reason: DeadReason::Poison, may_have_run: false, .. } => "poison, never begun",
        Outcome::Dead { reason: DeadReason::TimedOut, may_have_run: true, .. } => "timed out",
        Outcome::Dead { reason: DeadReason::NeverStarted, may_have_run: false, .. } => "never started",
        Outcome::Dead { .. } => "dead of something else",
    }
}
