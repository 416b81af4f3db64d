//! The world around the core, small enough to be enumerated: clients with a few things to do, virtual processes, and a
//! shell that gives the guarantees named at the head of `sim/mod.rs` and no others. What can happen next is a list
//! of [`Step`]s; each of them leads to one next state.

use std::hash::Hash;
use std::sync::Arc;

use workhall_core::{
    AccountId, Call, CallReceipt, Core, Effect, Event, Instant, Kill, KillReceipt, Limits, ProcessKey,
};
use workhall_protocol::ids::{MessageId, Target};
use workhall_protocol::terms::{Refusal, StartStage, Until};

use super::act::{Act, Step};
use super::books::{Books, Failure, KILL_TOKEN, WAIT_TOKEN};
use super::config::{Fault, Setup};
use super::key::Key;
use super::process::{Death, Doing, Process, Task, Word};
use crate::driver::{line, reply};

pub const NAMES: [&str; 2] = ["a", "b"];

#[derive(Clone, Debug)]
pub struct World {
    setup: Arc<Setup>,
    core: Core,
    now: Instant,
    deadline: Option<Instant>,
    books: Books,
    processes: Vec<Option<Process>>,
    posted: usize,
    /// When each message's time to live is over. The core's snapshot has it, so the key has it from there.
    expires: Vec<Instant>,
    faults: u8,
    fail_spawn: bool,
    /// A process was to be started in this step.
    spawned: bool,
    /// What the core was told and what it has commanded, if it is kept.
    pub log: Option<Vec<String>>,
}

impl World {
    pub fn new(setup: Arc<Setup>, broken_gate: bool) -> World {
        let limits = Limits { processes: setup.config.processes, ..Limits::default() };
        let mut core = Core::new(limits, 1);
        if broken_gate {
            core.break_the_gate();
        }
        let (books, faults) = (Books::new(&setup.policy), setup.config.faults_max);
        World {
            setup,
            core,
            now: Instant(1),
            deadline: None,
            books,
            processes: Vec::new(),
            posted: 0,
            expires: Vec::new(),
            faults,
            fail_spawn: false,
            spawned: false,
            log: None,
        }
    }

    pub fn key(&self) -> u128 {
        let mut key = Key::new(self.now.0, &self.setup.horizons);
        self.core.snapshot(&mut key).expect("all of the state can be hashed");
        self.books.hash(&mut key);
        self.processes.hash(&mut key);
        (self.posted as u64, self.faults).hash(&mut key);
        key.value()
    }

    // ---- what can happen ----------------------------------------------------------------------

    /// All that can happen now. First what must happen some day, then time, then what may.
    pub fn acts(&self) -> Vec<Act> {
        let config = self.setup.config;
        let mut acts = Vec::new();
        for (slot, process) in self.processes.iter().enumerate() {
            if let Some(process) = process {
                process.acts(slot as u8, config, &mut acts);
            }
        }
        if self.deadline.is_some() {
            acts.push(Act::Tick);
        }
        let names = 0..config.natures.len() as u8;
        if self.posted < config.posts.len() {
            // Two names that are alike may be exchanged.
            let alike = config.natures.iter().all(|nature| *nature == config.natures[0]);
            let first = self.posted == 0 && alike;
            acts.extend(names.clone().filter(|to| !first || *to == 0).map(|to| Act::Post { to }));
        }
        if self.books.kill.is_none() {
            for name in names.clone().filter(|name| self.books.is_open(*name)) {
                acts.extend((0..config.kills.len() as u8).map(|how| Act::Kill { name, how }));
            }
        }
        if config.waits && self.books.wait.is_none() {
            acts.extend(names.filter(|name| self.books.is_open(*name)).map(|name| Act::Wait { name }));
        }
        if self.faults > 0 {
            let living = self.processes.iter().enumerate();
            for (slot, process) in living.filter_map(|(slot, process)| Some((slot as u8, process.as_ref()?))) {
                let possible = |fault: &&Fault| match fault {
                    Fault::Crash => process.dead.is_none(),
                    Fault::Leaves => process.is_idle() && !process.may_leave(),
                    Fault::HangsUp => process.connected,
                    Fault::SpawnFails => false,
                };
                acts.extend(config.faults.iter().filter(possible).map(|fault| Act::Faults(slot, *fault)));
            }
        }
        acts
    }

    /// Whether the step before could also have been with a process that cannot be started.
    pub fn could_fail(&self) -> bool {
        self.spawned && self.faults > 0 && self.setup.config.faults.contains(&Fault::SpawnFails)
    }

    /// The state after a step.
    pub fn after(&self, step: Step) -> Result<World, Failure> {
        let mut next = self.clone();
        next.take(step)?;
        Ok(next)
    }

    pub fn take(&mut self, step: Step) -> Result<(), Failure> {
        self.say(|world| world.in_words(step));
        (self.fail_spawn, self.spawned) = (step.spawn_fails, false);
        self.happens(step.act)?;
        self.fail_spawn = false;
        self.forget_the_dead();
        self.deadline = self.core.next_deadline();
        self.books.receipts_are_true()?;
        self.books.check(&self.core)
    }

    /// Nothing more will happen by itself.
    pub fn check_end(&self) -> Result<(), Failure> {
        self.books.check_end(&self.core)
    }

    pub fn say(&mut self, words: impl FnOnce(&World) -> String) {
        if self.log.is_some() {
            let words = words(self);
            self.log.get_or_insert_default().push(words);
        }
    }

    fn in_words(&self, Step { act, spawn_fails }: Step) -> String {
        let failing = if spawn_fails { ", and what is to start cannot" } else { "" };
        let name = |name: u8| NAMES[usize::from(name)];
        let slot = match act {
            Act::Post { to } => return format!("post to {}{failing}", name(to)),
            Act::Kill { name: whom, how } => {
                let how = self.setup.config.kills[usize::from(how)];
                return format!("kill {} {how:?}{failing}", name(whom));
            }
            Act::Wait { name: whom } => return format!("wait until {} is idle", name(whom)),
            _ => match act.slot() {
                Some(slot) => slot,
                None => return format!("time passes{failing}"),
            },
        };
        let process = self.processes[usize::from(slot)].as_ref();
        let of = process.map_or("nobody".into(), |process| {
            format!("{} {}.{}", NAMES[usize::from(process.name)], process.key.number, process.key.generation)
        });
        format!("{of}: {act:?}{failing}")
    }

    fn forget_the_dead(&mut self) {
        let late_facts = self.setup.config.late_facts;
        for place in &mut self.processes {
            let told = |process: &mut Process| process.disconnected_fed || !late_facts;
            place.take_if(|process| !process.is_there() && told(process));
        }
        while self.processes.last().is_some_and(Option::is_none) {
            self.processes.pop();
        }
    }

    fn process(&mut self, slot: u8) -> &mut Process {
        self.processes[usize::from(slot)].as_mut().expect("what can happen names processes that are there")
    }

    fn happens(&mut self, act: Act) -> Result<(), Failure> {
        match act {
            Act::Post { to } => return self.post(to),
            Act::Kill { name, how } => return self.kill(name, how),
            Act::Wait { name } => {
                self.books.waits();
                let token = reply(WAIT_TOKEN).expect("is always some");
                self.core.wait(Target::Name(NAMES[usize::from(name)]), Until::Idle, AccountId(0), token);
                return self.apply();
            }
            Act::Tick => {
                self.now = self.now.max(self.deadline.expect("there is a deadline"));
                self.core.tick(self.now);
                self.apply()?;
                return self.books.expired(|place| self.expires[place] <= self.now);
            }
            Act::ShellReads(slot) => return self.shell_reads(slot, 1),
            Act::ShellReadsMarks(slot) => return self.shell_reads_marks(slot),
            Act::ExitIsSeen(slot) => return self.exit_is_seen(slot),
            Act::DisconnectionIsSeen(slot) => {
                self.process(slot).disconnected_fed = true;
                self.shell_reads(slot, usize::MAX)?;
                let process = self.process(slot).key;
                return self.feed(Event::Disconnected { process });
            }
            Act::TreeIsGone(slot) => {
                self.process(slot).tree_fed = true;
                let process = self.process(slot).key;
                return self.feed(Event::TreeGone { process });
            }
            Act::TreeIsGoneEarly(slot) => {
                self.process(slot).tree_early = true;
                let process = self.process(slot).key;
                return self.feed(Event::TreeGone { process });
            }
            Act::SaysReady(slot) => {
                let process = self.process(slot);
                process.is_ready = true;
                process.write(Word::Ready);
            }
            Act::Takes(slot) => return self.takes(slot),
            Act::LooksAtFlag(slot) => return self.looks_at_flag(slot),
            Act::Returns(slot) => self.ends(slot, true),
            Act::Fails(slot) => self.ends(slot, false),
            Act::Marks(slot) => {
                let process = self.process(slot);
                if let Doing::Told(task) = process.doing {
                    (process.finished, process.doing) = (task.id, Doing::Nothing);
                }
            }
            Act::Writes(slot) => self.process(slot).flush(),
            Act::Obeys(slot) => {
                self.process(slot).flush();
                self.process(slot).dies(Death::Leaves);
            }
            Act::DiesOfSignal(slot) => {
                let signal = self.process(slot).signal.expect("it was sent one");
                self.process(slot).dies(signal);
            }
            Act::Faults(slot, fault) => {
                self.faults -= 1;
                let process = self.process(slot);
                match fault {
                    Fault::Crash => process.dies(Death::Crash),
                    Fault::Leaves => {
                        process.flush();
                        process.dies(Death::Leaves);
                    }
                    Fault::HangsUp => process.connected = false,
                    Fault::SpawnFails => {}
                }
            }
        }
        Ok(())
    }

    // ---- clients ------------------------------------------------------------------------------

    fn post(&mut self, to: u8) -> Result<(), Failure> {
        let (config, policy) = (self.setup.config, self.setup.policy.clone());
        let post = config.posts[self.posted];
        let call = Call {
            target: Target::Name(NAMES[usize::from(to)]),
            method: "m",
            args: b"",
            from: None,
            existing: false,
            expires: post.expires,
            after: post.after,
            account: AccountId(0),
            reply: reply(self.books.messages.len() as u64).filter(|_| post.awaited),
        };
        match self.core.call(self.now, call, |_| Ok(policy)) {
            CallReceipt::Accepted { number, message } => {
                self.posted += 1;
                self.expires.push(post.expires.map_or(Instant::NEVER, |expires| self.now.after(expires)));
                self.books.accepted(to, number.0, message.0, post)?;
                self.apply()
            }
            // It may be posted again.
            CallReceipt::Refused(refused) if config.processes == 1 && refused.reason == Refusal::MailboxFull => {
                self.say(|_| format!("  refused: {}", refused.detail));
                self.apply()
            }
            other => Err(("C4", format!("a call was {other:?}"))),
        }
    }

    fn kill(&mut self, name: u8, how: u8) -> Result<(), Failure> {
        let (mode, within) = self.setup.config.kills[usize::from(how)];
        let target = Target::Name(NAMES[usize::from(name)]);
        let kill = Kill { target, mode, within, reply: reply(KILL_TOKEN), wait: self.setup.config.reports };
        let receipt: KillReceipt = self.core.kill(self.now, kill);
        self.books.killed(name, kill, receipt)?;
        self.apply()
    }

    // ---- processes ----------------------------------------------------------------------------

    fn takes(&mut self, slot: u8) -> Result<(), Failure> {
        let process = self.process(slot);
        let (task, number) = (process.inbox.remove(0), process.key.number.0);
        if process.stops {
            return Ok(());
        }
        if process.has_page {
            process.doing = Doing::Beginning { task, previous: process.begun };
            process.begun = task.id;
            return Ok(());
        }
        process.doing = Doing::Running(task);
        self.books.begins(number, task)
    }

    /// First the page, then the flag: one of the two sides sees the other.
    fn looks_at_flag(&mut self, slot: u8) -> Result<(), Failure> {
        let process = self.process(slot);
        let Doing::Beginning { task, previous } = process.doing else { return Ok(()) };
        if process.flag {
            (process.begun, process.stops, process.doing) = (previous, true, Doing::Nothing);
            return Ok(());
        }
        process.doing = Doing::Running(task);
        let number = process.key.number.0;
        self.books.begins(number, task)
    }

    fn ends(&mut self, slot: u8, done: bool) {
        let Doing::Running(task) = self.process(slot).doing else { return };
        let awaited = self.books.messages[usize::from(task.message)].awaited;
        let process = self.process(slot);
        let collected = process.has_page && done && !awaited;
        if collected {
            (process.finished, process.doing) = (task.id, Doing::Nothing);
            process.unwritten.push(task.id);
        } else if process.connected {
            process.flush();
            process.write(if done { Word::Done(task.id) } else { Word::Failed(task.id) });
            process.doing = if process.has_page { Doing::Told(task) } else { Doing::Nothing };
        } else {
            // What cannot be told any more is not finished as far as anybody can know.
            (process.stops, process.doing) = (true, Doing::Nothing);
            return;
        }
        self.books.ends(task, done);
    }

    // ---- the shell ----------------------------------------------------------------------------

    fn shell_reads(&mut self, slot: u8, words: usize) -> Result<(), Failure> {
        for _ in 0..words {
            let process = self.process(slot);
            if process.outbox.is_empty() {
                break;
            }
            let (key, has_page) = (process.key, process.has_page);
            match process.outbox.remove(0) {
                Word::Ready => {
                    process.ready_fed = true;
                    let window = if has_page { 2 } else { 1 };
                    self.feed(Event::Ready { process: key, window, marked: has_page })?;
                }
                Word::Done(id) => {
                    self.feed(Event::Done { process: key, id: MessageId(id), result: &id.to_le_bytes() })?
                }
                Word::Failed(id) => self.feed(Event::Failed { process: key, id: MessageId(id), error: "" })?,
            }
        }
        Ok(())
    }

    /// The marks as they were before all that was written before them is read.
    fn shell_reads_marks(&mut self, slot: u8) -> Result<(), Failure> {
        let process = self.process(slot);
        let (Some(mark), false) = (process.page(), process.exit_fed) else { return Ok(()) };
        process.finished_fed = process.finished;
        let process = process.key;
        self.shell_reads(slot, usize::MAX)?;
        self.feed(Event::Marked { process, mark })
    }

    fn exit_is_seen(&mut self, slot: u8) -> Result<(), Failure> {
        self.shell_reads(slot, usize::MAX)?;
        let process = self.process(slot);
        process.exit_fed = true;
        let (key, mark) = (process.key, process.page());
        let exit = process.dead.expect("it has died").exit();
        process.forget_how_it_was();
        self.books.exited(key.number.0);
        self.feed(Event::Exited { process: key, exit, mark })
    }

    fn feed(&mut self, event: Event<'_>) -> Result<(), Failure> {
        self.say(|_| format!("  fed {event:?}"));
        self.core.handle(self.now, event);
        self.apply()
    }

    /// Takes and applies all commands.
    fn apply(&mut self) -> Result<(), Failure> {
        while let Some(effect) = self.core.next_effect() {
            self.say(|_| format!("  -> {}", line(&effect)));
            self.books.commanded(&effect, self.processes.iter().flatten())?;
            match effect {
                Effect::Spawn { process } => self.spawn(process)?,
                Effect::Deliver { process, slot, id } => self.deliver(process, slot, id)?,
                Effect::Ask { process, slot } => {
                    let Some(asked) = self.meant(process, slot) else { continue };
                    asked.flag = true;
                    asked.asked |= asked.connected;
                    let mark = asked.page();
                    self.feed(Event::Asked { process, mark })?;
                }
                Effect::Look { process, slot } => self.look(process, slot)?,
                Effect::Term { process, slot } => self.signal(process, slot, Death::Term),
                Effect::Kill { process, slot } => self.signal(process, slot, Death::Kill),
                Effect::Sweep { process, slot } => {
                    if let Some(swept) = self.meant(process, slot) {
                        swept.swept = true;
                    }
                }
                _ => {}
            }
        }
        while self.core.next_news().is_some() {}
        Ok(())
    }

    fn look(&mut self, key: ProcessKey, slot: u32) -> Result<(), Failure> {
        if self.meant(key, slot).is_none() { Ok(()) } else { self.shell_reads_marks(slot as u8) }
    }

    fn meant(&mut self, key: ProcessKey, slot: u32) -> Option<&mut Process> {
        self.processes.get_mut(slot as usize)?.as_mut().filter(|process| process.key == key)
    }

    fn spawn(&mut self, key: ProcessKey) -> Result<(), Failure> {
        let name = self.core.name(key).and_then(|name| NAMES.iter().position(|known| *known == &**name));
        let Some(name) = name else { return Err(("spawn", format!("{key:?} has no name"))) };
        self.books.spawns(key, name as u8, self.processes.iter().flatten())?;
        let has_page = self.setup.config.natures[name].page;
        self.spawned = true;
        if std::mem::take(&mut self.fail_spawn) {
            self.faults -= 1;
            return self.feed(Event::SpawnFailed {
                process: key,
                stage: StartStage::Exec,
                detail: "no such file".into(),
            });
        }
        let free = self.processes.iter().position(Option::is_none).unwrap_or(self.processes.len());
        if free == self.processes.len() {
            self.processes.push(None);
        }
        self.processes[free] = Some(Process::new(key, name as u8, has_page));
        self.feed(Event::Spawned { process: key, slot: free as u32 })
    }

    fn deliver(&mut self, key: ProcessKey, slot: u32, id: MessageId) -> Result<(), Failure> {
        let content = self.core.task(key, id).map(|message| message.id.0);
        let Some(content) = content else { return Err(("C1", format!("task {id} has no content"))) };
        let process = self.processes.get_mut(slot as usize).and_then(Option::as_mut);
        let Some(process) = process.filter(|process| process.key == key) else {
            return Err(("K8", format!("{content} is handed to {key:?}, which is not there")));
        };
        let message = self.books.delivered(process, content, id.0)?;
        if process.dead.is_none() && process.connected {
            process.inbox.push(Task { id: id.0, message });
        }
        Ok(())
    }

    fn signal(&mut self, key: ProcessKey, slot: u32, signal: Death) {
        if let Some(process) = self.meant(key, slot).filter(|process| process.dead.is_none()) {
            process.signal = Some(signal);
        }
    }
}
