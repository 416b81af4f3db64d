//! The core's event stream: bytes become calls, kills, waits, facts about processes, and time.
//!
//! The processes are as hostile as a shell lets through: they settle what they were not given, twice or out of
//! order, are ready twice, write anything into their mark pages, and hang up at any moment. What the shell
//! guarantees is kept: Spawn is answered at once, Ask too, each process exits once and its tree is gone
//! once, after the exit; of a life that has ended only late facts come.
//!
//! The core's own debug assertions prove the ledger after each step. Checked here: the gate (no process while
//! another of the name is not gone), no task for a process that was asked to end or has exited, one answer to
//! each who waits; and that in the end a shutdown leaves nothing, whatever came before.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use workhall_core::{
    AccountId, Call, CallReceipt, Cancelled, Core, CrashLimit, Effect, Event, Instant, Kill, KillMode, KillReceipt,
    Kind, Letters, Limits, Mark, NewSignal, Policy, ProcessKey, Refused, Renewal, ReplyTo, Run, RunReceipt,
};
use workhall_protocol::ids::{MessageId, SignalId, Target, WorkerName, WorkerNumber};
use workhall_protocol::terms::{Exit, Refusal, StartStage, Until};

const NAMES: [&str; 4] = ["a", "b", "main", "nobody"];
/// How many times the end is driven on before it counts as none.
const END_STEPS_MAX: usize = 10_000;
/// Deadlines are followed so many times at one go.
const TICKS_MAX: u8 = 8;

/// The core's event stream.
pub fn core(data: &[u8]) {
    let [policy, limits, steps @ ..] = data else { return };
    let mut world = World::new(*policy, *limits, steps);
    while !world.bytes.is_empty() && !world.stopped {
        world.step();
    }
    world.end();
}

#[derive(Debug)]
struct Process {
    key: ProcessKey,
    name: WorkerName,
    tasks: Vec<MessageId>,
    asked: bool,
    halted: bool,
    exited: bool,
    gone: bool,
    /// It has attached: its connection is all there is of it.
    attached: bool,
    run: bool,
}

struct World<'a> {
    core: Core,
    now: Instant,
    bytes: &'a [u8],
    policy: Arc<Policy>,
    processes: Vec<Process>,
    /// Who waits for the fate of a message, for a receipt of a kill, for its end, for a state.
    awaited: BTreeMap<&'static str, BTreeSet<u64>>,
    next_token: u64,
    stopping: bool,
    stopped: bool,
}

impl<'a> World<'a> {
    fn new(policy: u8, limits: u8, bytes: &'a [u8]) -> World<'a> {
        let bit = |byte: u8, bit: u8| byte & (1 << bit) != 0;
        let limited = |at: u8| bit(limits, at);
        let limits = Limits {
            message_bytes: 100,
            total_bytes: if limited(0) { 700 } else { 1 << 20 },
            sender_messages: if limited(1) { 3 } else { 1000 },
            workers: 3,
            processes: if limited(2) { 1 } else { 100 },
            dead_messages: 2,
            ..Limits::default()
        };
        let policy = Policy {
            class: "c".into(),
            startup_method: bit(policy, 0).then(|| "startup".into()),
            mailbox_messages: if bit(policy, 1) { 2 } else { 20 },
            mailbox_bytes: if bit(policy, 2) { 200 } else { 1 << 20 },
            start_timeout: Duration::from_millis(100),
            task_grace: bit(policy, 3).then_some(Duration::from_millis(30)),
            exit_grace: Duration::from_millis(if bit(policy, 4) { 0 } else { 50 }),
            term_grace: Duration::from_millis(if bit(policy, 4) { 0 } else { 70 }),
            attempts: if bit(policy, 5) { 2 } else { 1 },
            task_timeout: bit(policy, 6).then_some(Duration::from_millis(40)),
            idle_timeout: bit(policy, 7).then_some(Duration::from_millis(90)),
            crash_limit: CrashLimit {
                crashes: if limited(3) { 1 } else { 8 },
                refuse_calls: limited(4),
                drop_unstarted: limited(5),
                ..CrashLimit::default()
            },
        };
        World {
            core: Core::new(limits, 1),
            now: Instant(1),
            bytes,
            policy: Arc::new(policy),
            processes: Vec::new(),
            awaited: BTreeMap::new(),
            next_token: 0,
            stopping: false,
            stopped: false,
        }
    }

    /// The next byte; zeros behind the end.
    fn byte(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((byte, rest)) => {
                self.bytes = rest;
                *byte
            }
            None => 0,
        }
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    fn duration(&mut self) -> Duration {
        Duration::from_millis([0, 1, 20, 60, 200, 1000, 30_000, 4_000_000][usize::from(self.byte() % 8)])
    }

    fn step(&mut self) {
        match self.byte() % 16 {
            0..=3 => self.call(),
            4 => self.kill(),
            5 => match self.flag() {
                false => self.wait(),
                true => self.signals(),
            },
            6 => self.ticks(),
            7 => match self.byte() {
                0..=15 => {
                    self.stopping = true;
                    self.core.shutdown(self.now, Duration::from_millis(100));
                }
                // Workers of its own a supervisor starts before it accepts anything.
                16..=63 if !self.stopping => self.start(),
                64..=95 => {
                    self.core.forget_waits(connection());
                    self.awaited.remove("state");
                    self.awaited.remove("end");
                }
                96..=127 => self.letters(),
                128..=143 => {
                    let target = self.target();
                    self.core.resume(self.now, target);
                }
                144..=159 => self.restore(),
                192..=207 => {
                    let target = self.target();
                    // Whoever is paused may be so for ever: the end finds them.
                    let _no_such_worker = self.core.pause(self.now, target);
                }
                160..=191 => self.reload(),
                208..=223 => self.attach(),
                224..=239 => self.run(),
                240..=247 => self.keep_running(),
                _ => self.late(),
            },
            _ => self.process_acts(),
        }
        self.apply();
    }

    // ---- clients ----------------------------------------------------------------------------

    fn target(&mut self) -> Target<'static> {
        match self.byte() {
            byte @ 0..=199 => Target::Name(NAMES[usize::from(byte % 8 / 2).min(3)]),
            byte => Target::Number(WorkerNumber(u64::from(byte - 200) % 12)),
        }
    }

    fn reply(&mut self) -> ReplyTo {
        self.next_token += 1;
        ReplyTo { connection: connection(), token: self.next_token }
    }

    fn await_one(&mut self, what: &'static str, reply: ReplyTo) {
        self.awaited.entry(what).or_default().insert(reply.token);
    }

    fn answered(&mut self, what: &'static str, reply: ReplyTo) {
        let was_awaited = self.awaited.get_mut(what).is_some_and(|awaited| awaited.remove(&reply.token));
        assert!(was_awaited, "{reply:?} was told of its {what} twice, or unasked");
    }

    fn call(&mut self) {
        let (target, flags) = (self.target(), self.byte());
        let bit = |bit: u8| flags & (1 << bit) != 0;
        let reply = bit(0).then(|| self.reply());
        let from = bit(1).then(|| self.any_process().map(|process| process.key)).flatten();
        let expires = bit(2).then(|| self.duration());
        let after = bit(6).then(|| self.duration());
        let args = match bit(3).then(|| self.byte()) {
            None => vec![0],
            // Now and then they carry signals.
            Some(byte @ 0..=31) => {
                let text = |n: u8| [b"\xa7$signal\xd9\x20", signal(n).to_string().as_bytes()].concat();
                [text(byte), text(byte / 4)].concat()
            }
            Some(bytes) => vec![0; bytes.into()],
        };
        let call = Call {
            target,
            method: if bit(4) { "" } else { "work" },
            args: &args,
            from,
            existing: bit(5),
            expires,
            after,
            account: AccountId(u64::from(flags >> 7)),
            reply,
        };
        let policy = self.policy.clone();
        let receipt = self.core.call(self.now, call, |name| class_of(name, policy));
        if let (Some(reply), CallReceipt::Accepted { .. }) = (reply, receipt) {
            self.await_one("fate", reply);
        }
    }

    /// A process for one method: nobody calls it, so it never has a second message.
    fn run(&mut self) {
        let flags = self.byte();
        let bit = |bit: u8| flags & (1 << bit) != 0;
        let reply = bit(0).then(|| self.reply());
        let from = bit(1).then(|| self.any_process().map(|process| process.key)).flatten();
        let name = bit(2).then(|| NAMES[usize::from(flags >> 6)]);
        let method = if bit(4) { "" } else { "work" };
        let account = AccountId(u64::from(flags >> 7));
        let run = Run { name, unique: bit(3), method, args: &[0; 5], from, account, reply };
        let policy = self.policy.clone();
        match (self.core.run(self.now, run, policy), reply) {
            (RunReceipt::Accepted { .. }, Some(reply)) => self.await_one("fate", reply),
            (RunReceipt::Running { number, .. }, _) => {
                let kind = self.core.worker(self.now, Target::Number(number)).map(|view| view.kind);
                assert!(bit(3) && kind == Some(Kind::Run), "{kind:?} runs");
            }
            _ => {}
        }
    }

    fn attach(&mut self) {
        let name = NAMES[usize::from(self.byte() % 4)];
        let slot = self.processes.len() as u32;
        let Ok(key) = self.core.attach(self.now, name, self.policy.clone(), slot) else { return };
        let name = WorkerName::new(name).expect("it is one");
        let other = self.processes.iter().find(|process| process.name == name && !process.gone);
        assert!(other.is_none(), "{key:?} of {name} attaches while {other:?} is not gone");
        let (asked, halted, exited, gone) = (false, false, false, false);
        let (tasks, attached, run) = (Vec::new(), true, false);
        self.processes.push(Process { key, name, tasks, asked, halted, exited, gone, attached, run });
    }

    /// What one that has attached does: most often it executes.
    fn attached_acts(&mut self, process: ProcessKey, tasks: &[MessageId]) {
        match self.byte() % 16 {
            0 => self.core.handle(self.now, Event::Ready { process, window: 5, marked: true }),
            1..=2 => {
                let drain = self.flag();
                self.core.leave(self.now, process, drain);
            }
            3..=4 => {
                let id = self.id(tasks);
                self.settled(process, id);
                self.core.handle(self.now, Event::Failed { process, id, error: "error" });
            }
            5 => self.core.handle(self.now, Event::Violation { process, detail: "what" }),
            6..=7 => {
                self.mark_gone(process);
                self.core.handle(self.now, Event::Disconnected { process });
            }
            _ => {
                let id = self.id(tasks);
                self.settled(process, id);
                self.core.handle(self.now, Event::Done { process, id, result: b"result" });
            }
        }
    }

    fn keep_running(&mut self) {
        let names = self.byte();
        let boot = NAMES.into_iter().enumerate().filter(|(at, _)| names & (1 << at) != 0);
        let boot: Vec<_> =
            boot.map(|(_, name)| (WorkerName::new(name).expect("it is one"), self.policy.clone())).collect();
        self.core.keep_running(self.now, &boot);
    }

    fn kill(&mut self) {
        let (target, flags) = (self.target(), self.byte());
        let reply = (flags & 1 != 0).then(|| self.reply());
        let wait = flags & 2 != 0 && reply.is_some();
        let within = (flags & 4 != 0).then(|| self.duration());
        let mode = [KillMode::Ladder, KillMode::Drain, KillMode::Now, KillMode::Ladder][usize::from(flags >> 6)];
        let receipt = self.core.kill(self.now, Kill { target, mode, within, reply, wait });
        if let (Some(reply), KillReceipt::Posted) = (reply, receipt) {
            self.await_one("receipt", reply);
            if wait {
                self.await_one("end", reply);
            }
        }
    }

    fn wait(&mut self) {
        let (target, reply) = (self.target(), self.reply());
        let until = [Until::Idle, Until::Gone, Until::Empty, Until::Room][usize::from(self.byte() % 4)];
        self.await_one("state", reply);
        self.core.wait(target, until, AccountId(0), reply);
    }

    /// Signals, and messages that are not wanted any more.
    fn signals(&mut self) {
        let (id, what) = (signal(self.byte()), self.byte());
        let maker = NonZeroU64::new(u64::from(what % 2) + 1).expect("is not 0");
        match what / 16 {
            0..=3 if self.core.signal_view(self.now, id).is_none() => {
                let keep = if what & 2 != 0 { self.duration() } else { Duration::ZERO };
                let account = AccountId(u64::from(what & 1));
                let description = (what & 4 != 0).then_some("what for");
                let _too_many = self.core.make_signal(self.now, NewSignal { id, maker, account, description, keep });
            }
            0..=3 => {
                let value = vec![0; usize::from(self.byte()) * 8];
                let _too_large = self.core.set_signal(self.now, id, "key", &value);
            }
            4..=8 => {
                let timeout = (what & 1 != 0).then(|| self.duration());
                let reply = self.reply();
                self.await_one("signal", reply);
                self.core.wait_for_signal(self.now, id, timeout, reply);
            }
            9 | 10 => drop(self.core.trigger_signal(self.now, id)),
            11 => drop(self.core.free_signal(self.now, id, maker)),
            12 => {
                self.core.forget_signals(maker);
                if maker == connection() {
                    self.awaited.remove("signal");
                }
            }
            _ => {
                let message = MessageId(u64::from(self.byte() % 32));
                let may = what & 1 == 0;
                let before = self.core.ledger();
                let done = self.core.cancel(self.now, message, |_| may);
                let discarded = u64::from(done == Cancelled::Discarded);
                assert_eq!(self.core.ledger().discarded, before.discarded + discarded, "{done:?}");
            }
        }
    }

    fn start(&mut self) {
        let main = self.flag();
        let name = WorkerName::new(if main { "main" } else { "b" }).expect("it is one");
        // A supervisor starts its main worker once, at its own start.
        if !main || self.core.worker(self.now, Target::Number(WorkerNumber::MAIN)).is_none() {
            self.core.start(self.now, name, self.policy.clone(), main);
        }
    }

    fn letters(&mut self) {
        let which = match self.byte() {
            0..=99 => Letters::All,
            100..=199 => Letters::Of("a"),
            byte => Letters::One(MessageId(u64::from(byte - 200))),
        };
        match self.flag() {
            true => drop(self.core.drop_dead(which)),
            false => {
                let policy = self.policy.clone();
                self.core.requeue(self.now, which, AccountId(0), |name| class_of(name, policy.clone()));
            }
        }
    }

    /// Another configuration: with fewer or more places, another policy, and without the class of `a` perhaps.
    fn reload(&mut self) {
        let (flags, time) = (self.byte(), self.duration());
        let bit = |bit: u8| flags & (1 << bit) != 0;
        let limits = Limits { processes: 1 + u32::from(flags >> 6), ..self.core.limits().0.clone() };
        if bit(0) {
            let idle_timeout = bit(1).then(|| time.max(Duration::from_millis(1)));
            self.policy = Arc::new(Policy { exit_grace: time, idle_timeout, ..Policy::clone(&self.policy) });
        }
        let policy = &self.policy;
        self.core.reload(self.now, limits, bit(2), |name, was| match () {
            () if bit(3) && name == "a" => Renewal::Gone,
            () if **policy == *was => Renewal::Same(policy.clone()),
            () => Renewal::Changed(policy.clone()),
        });
    }

    /// The core that goes on is the one that its snapshot says.
    fn restore(&mut self) {
        let mut bytes = Vec::new();
        let mut writer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
        self.core.snapshot(&mut writer).expect("a core can be written");
        let before = self.core.ledger();
        let mut reader = rmp_serde::Deserializer::new(&*bytes);
        let limits = self.core.limits().0.clone();
        self.core = Core::restore(&mut reader, limits).expect("what was written can be read");
        assert_eq!(self.core.ledger(), before);
    }

    fn ticks(&mut self) {
        let byte = self.byte();
        if byte < 128 {
            self.now = self.now.after(self.duration());
            return self.core.tick(self.now);
        }
        for _ in 0..byte % TICKS_MAX {
            let Some(at) = self.core.next_deadline() else { return };
            self.now = self.now.max(at);
            self.core.tick(self.now);
            self.apply();
        }
    }

    // ---- processes --------------------------------------------------------------------------

    fn any_process(&mut self) -> Option<&mut Process> {
        let living: Vec<usize> = (0..self.processes.len()).filter(|slot| !self.processes[*slot].gone).collect();
        let at = usize::from(self.byte());
        let slot = *living.get(at % living.len().max(1))?;
        Some(&mut self.processes[slot])
    }

    /// One that it was given, or any.
    fn id(&mut self, tasks: &[MessageId]) -> MessageId {
        match self.byte() {
            byte @ 0..=239 => tasks.get(usize::from(byte % 4)).copied().unwrap_or_default(),
            250..=255 => MessageId(u64::MAX),
            byte => MessageId(u64::from(byte - 240)),
        }
    }

    fn mark(&mut self, tasks: &[MessageId]) -> Option<Mark> {
        self.flag().then(|| Mark { begun: self.id(tasks), finished: self.id(tasks) })
    }

    fn process_acts(&mut self) {
        let Some(found) = self.any_process() else { return };
        let (process, tasks, exited) = (found.key, found.tasks.clone(), found.exited);
        if found.attached {
            return self.attached_acts(process, &tasks);
        }
        let act = self.byte() % 16;
        if exited {
            if act < 8 {
                self.mark_gone(process);
                self.core.handle(self.now, Event::TreeGone { process });
            }
            return;
        }
        let event = match act {
            0..=2 => {
                let window = [0, 1, 2, 64, u32::MAX][usize::from(self.byte() % 5)];
                Event::Ready { process, window, marked: self.flag() }
            }
            3..=5 => {
                let id = self.id(&tasks);
                self.settled(process, id);
                Event::Done { process, id, result: b"result" }
            }
            6 => {
                let id = self.id(&tasks);
                let last = tasks.iter().position(|task| *task == id);
                tasks.iter().take(last.map_or(0, |last| last + 1)).for_each(|task| self.settled(process, *task));
                Event::DoneAll { process, id }
            }
            7..=8 => {
                let id = self.id(&tasks);
                self.settled(process, id);
                Event::Failed { process, id, error: "error" }
            }
            9..=10 => match self.mark(&tasks) {
                Some(mark) => Event::Marked { process, mark },
                None => return,
            },
            11 => Event::Violation { process, detail: "é" },
            12 if self.flag() => Event::Disconnected { process },
            12 => Event::StartFailed { process, stage: StartStage::Exec, detail: "no such file".into() },
            _ => {
                let mark = self.mark(&tasks);
                let exit = if self.flag() { Exit::Code(0) } else { Exit::Signal(9) };
                return self.exits(process, exit, mark);
            }
        };
        self.core.handle(self.now, event);
    }

    fn settled(&mut self, process: ProcessKey, id: MessageId) {
        if let Some(process) = self.processes.iter_mut().find(|other| other.key == process) {
            process.tasks.retain(|task| *task != id);
        }
    }

    fn exits(&mut self, key: ProcessKey, exit: Exit, mark: Option<Mark>) {
        self.core.handle(self.now, Event::Disconnected { process: key });
        self.apply();
        if let Some(process) = self.processes.iter_mut().find(|process| process.key == key) {
            process.exited = true;
        }
        self.core.handle(self.now, Event::Exited { process: key, exit, mark });
        self.apply();
    }

    fn mark_gone(&mut self, key: ProcessKey) {
        if let Some(process) = self.processes.iter_mut().find(|process| process.key == key) {
            process.gone = true;
        }
    }

    /// Something of a life that has ended.
    fn late(&mut self) {
        let at = usize::from(self.byte());
        let ended: Vec<ProcessKey> =
            self.processes.iter().filter(|process| process.gone).map(|process| process.key).collect();
        let Some(process) = ended.get(at % ended.len().max(1)).copied() else { return };
        let id = MessageId(u64::from(self.byte()));
        let event = match self.byte() % 6 {
            0 => Event::Done { process, id, result: b"late" },
            1 => Event::Marked { process, mark: Mark { begun: id, finished: id } },
            2 => Event::Ready { process, window: 3, marked: true },
            3 => Event::Exited { process, exit: Exit::Code(0), mark: None },
            4 => Event::Asked { process, mark: None },
            _ => Event::TreeGone { process },
        };
        let before = self.core.ledger();
        self.core.handle(self.now, event);
        assert_eq!(self.core.ledger(), before, "an old life is not heard");
    }

    // ---- the shell --------------------------------------------------------------------------

    fn apply(&mut self) {
        while let Some(effect) = self.core.next_effect() {
            assert!(!self.stopped, "after Stopped came {effect:?}");
            match effect {
                Effect::Spawn { process } => self.spawn(process),
                Effect::Deliver { process, slot, id } => self.deliver(process, slot, id),
                Effect::Ask { process, slot } => self.ask(process, slot),
                Effect::Look { process, slot } => self.look(process, slot),
                Effect::Pause { process, slot } => {
                    let halted = &mut self.processes[slot as usize];
                    assert!(
                        halted.key == process && !halted.attached && !halted.halted && !halted.asked && !halted.exited
                    );
                    halted.halted = true;
                }
                Effect::Continue { process, slot }
                | Effect::Term { process, slot }
                | Effect::Kill { process, slot } => {
                    if let (Some(other), Effect::Continue { .. }) = (self.processes.get_mut(slot as usize), &effect) {
                        other.halted = false;
                    }
                    // A step that starts a process may end it too, before the answer to Spawn: then nobody is
                    // signalled, and the ladder goes on.
                    let own = |signalled: &Process| signalled.key == process && !signalled.attached;
                    assert!(self.processes.get(slot as usize).is_none_or(own));
                }
                Effect::Close { process, slot } => {
                    let closed = &mut self.processes[slot as usize];
                    assert!(closed.key == process && closed.attached);
                    // Two steps of a ladder may come at once.
                    if !std::mem::replace(&mut closed.gone, true) {
                        self.core.handle(self.now, Event::Disconnected { process });
                    }
                }
                Effect::Sweep { process, slot } => {
                    let swept = &self.processes[slot as usize];
                    assert!(swept.key == process && swept.exited, "a sweep comes after the exit");
                }
                Effect::Settled { reply, .. } => match self.awaited.get("signal") {
                    Some(awaited) if awaited.contains(&reply.token) => self.answered("signal", reply),
                    _ => self.answered("fate", reply),
                },
                Effect::SignalEnded { reply, .. } => self.answered("signal", reply),
                Effect::Cancel { process, slot, id } => {
                    let told = &self.processes[slot as usize];
                    assert!(told.key == process && self.core.task(process, id).is_some(), "it has the task");
                }
                Effect::Killed { reply, .. } => self.answered("receipt", reply),
                Effect::KillEnded { reply, .. } => {
                    assert!(self.awaited.get("receipt").is_none_or(|awaited| !awaited.contains(&reply.token)));
                    self.answered("end", reply);
                }
                Effect::Reached { reply } => self.answered("state", reply),
                Effect::Stopped => self.stopped = true,
            }
        }
        while self.core.next_news().is_some() {}
        assert!(self.core.ledger().balances());
    }

    fn spawn(&mut self, key: ProcessKey) {
        let name = self.core.name(key).expect("who is started is there").clone();
        let other = self.processes.iter().find(|process| process.name == name && !process.gone);
        assert!(other.is_none(), "{key:?} of {name} is started while {other:?} is not gone");
        match self.byte() {
            0..=239 => {}
            byte @ 240..=247 => {
                let stage = if byte % 2 == 0 { StartStage::Setup } else { StartStage::Exec };
                let failed = Event::SpawnFailed { process: key, stage, detail: "no such file".into() };
                return self.core.handle(self.now, failed);
            }
            _ => return self.core.handle(self.now, Event::Held { process: key, detail: "process 1".into() }),
        }
        let slot = self.processes.len() as u32;
        let (asked, halted, exited, gone) = (false, false, false, false);
        let run = self.core.worker(self.now, Target::Number(key.number)).is_some_and(|view| view.kind == Kind::Run);
        let (tasks, attached) = (Vec::new(), false);
        self.processes.push(Process { key, name, tasks, asked, halted, exited, gone, attached, run });
        self.core.handle(self.now, Event::Spawned { process: key, slot });
    }

    fn deliver(&mut self, key: ProcessKey, slot: u32, id: MessageId) {
        let process = &mut self.processes[slot as usize];
        assert_eq!(process.key, key);
        assert!(!process.asked && !process.exited, "{id} is for a process that ends");
        assert!(!process.attached || process.tasks.is_empty(), "{id} is ahead of its turn");
        assert!(!process.run || process.tasks.is_empty(), "{id} is for one that has its own");
        assert!(!process.halted, "{id} is for a process that is stopped");
        // In the same turn it may have been settled already: by a mark, if the process lies.
        if self.core.task(key, id).is_none() {
            return;
        }
        process.tasks.push(id);
        if self.byte() > 250 {
            self.settled(key, id);
            self.core.handle(self.now, Event::Undeliverable { process: key, id, error: "too deep" });
        }
    }

    fn ask(&mut self, key: ProcessKey, slot: u32) {
        let process = &mut self.processes[slot as usize];
        assert_eq!(process.key, key);
        assert!(!process.halted, "{key:?} is stopped and asked to end");
        process.asked = true;
        let tasks = process.tasks.clone();
        let mark = if process.attached { None } else { self.mark(&tasks) };
        self.core.handle(self.now, Event::Asked { process: key, mark });
    }

    /// What it writes into its page is its own affair.
    fn look(&mut self, key: ProcessKey, slot: u32) {
        let process = &self.processes[slot as usize];
        assert!(process.key == key && !process.exited);
        let tasks = process.tasks.clone();
        if let Some(mark) = self.mark(&tasks) {
            self.core.handle(self.now, Event::Marked { process: key, mark });
        }
    }

    // ---- the end ----------------------------------------------------------------------------

    /// A shutdown, under which everything ends that lives.
    fn end(&mut self) {
        self.core.shutdown(self.now, Duration::from_millis(10));
        self.apply();
        for _ in 0..END_STEPS_MAX {
            if self.stopped {
                break;
            }
            if let Some(at) = self.core.next_deadline() {
                self.now = self.now.max(at);
            }
            self.core.tick(self.now);
            self.apply();
            let living =
                // Who has attached goes on until its connection is closed.
                self.processes.iter().find(|process| !process.gone && !process.attached);
            let Some((process, exited)) = living.map(|process| (process.key, process.exited)) else { continue };
            if !exited {
                self.exits(process, Exit::Signal(9), None);
            }
            self.mark_gone(process);
            self.core.handle(self.now, Event::TreeGone { process });
            self.apply();
        }
        assert!(self.stopped, "the shutdown does not end: {:?}", self.core.ledger());
        let ledger = self.core.ledger();
        assert_eq!((ledger.pending, ledger.running, self.core.worker_count()), (0, 0, 0));
        assert_eq!(self.core.limits().1, 0, "every charge is paid back");
        // Whose maker is there, and what nobody has been sent, may still be triggered.
        for connection in [1, 2] {
            self.core.forget_signals(NonZeroU64::new(connection).expect("is not 0"));
        }
        self.awaited.remove("signal");
        self.awaited.retain(|_, awaited| !awaited.is_empty());
        assert!(self.awaited.is_empty(), "some were never answered: {:?}", self.awaited);
    }
}

fn class_of(name: &str, policy: Arc<Policy>) -> Result<Arc<Policy>, Refused> {
    match name {
        "nobody" => Err(Refused::new(Refusal::NoClass, "no class")),
        _ => Ok(policy),
    }
}

/// Few, so that they meet.
fn signal(n: u8) -> SignalId {
    SignalId([n % 4; 16])
}

fn connection() -> NonZeroU64 {
    NonZeroU64::MIN
}
