//! What must hold, seen from outside.
//!
//! The checker keeps its own books from three sources: what the clients and the shell tell the core, what
//! the core answers, and what the virtual processes really do. It never reads the core's state, but
//! for the ledger and the counters, which it compares with its own. The first violation counts.

use std::collections::BTreeMap;
use std::time::Duration;

use workhall_core::{
    AccountId, Call, CallReceipt, Cancelled, Charge, Counters, DeadTotals, Effect, Event, Instant, Kill, KillMode,
    KillReceipt, KillReport, Ledger, Limits, Mark, Message, Outcome, Policy, ProcessKey, Run, RunReceipt,
};
use workhall_protocol::ids::{MessageId, Target, WorkerNumber};
use workhall_protocol::terms::{Current, DeadReason, EndedBy, Exit, Ignored, Refusal, Until};

use super::process::{ENDING_MAX, TASK_MAX};

/// What a kill may take beyond its graces: the signals' repetition, the tree, late timers and the wires.
const KILL_SLACK: Duration = Duration::from_secs(5).saturating_add(ENDING_MAX.saturating_mul(2));

/// How late a tick may be in this world.
pub const TICK_SLACK: Duration = Duration::from_millis(600);

#[derive(Debug)]
pub struct Checker {
    limits: Limits,
    now: Instant,
    /// What processes know the messages by.
    tasks: BTreeMap<MessageId, MessageId>,
    /// The one that its process takes along at its exit, while the core decides about it.
    dying: Option<(MessageId, Exit)>,
    /// Dead letters that were dropped or posted again.
    letters_left: u64,
    /// Everybody waits for every message: then each count is known exactly.
    exact: bool,
    pub violation: Option<(&'static str, String)>,
    messages: BTreeMap<MessageId, Posted>,
    workers: BTreeMap<WorkerNumber, Worker>,
    /// Who accepts calls by name.
    open: BTreeMap<String, WorkerNumber>,
    processes: BTreeMap<ProcessKey, Process>,
    waiting: BTreeMap<u64, Waiting>,
    /// Whose fate each token is for.
    tokens: BTreeMap<u64, MessageId>,
    kills: Vec<KillRecord>,
    waits: Vec<Wait>,
    last_begun: BTreeMap<WorkerNumber, MessageId>,
    shutdown: bool,
    stopped: u32,
    fates: Fates,
    expected_stale: u64,
}

/// How many messages ended how, as far as the checker could see.
#[derive(Clone, Copy, Debug, Default)]
struct Fates {
    done: u64,
    failed: u64,
    discarded: u64,
    expired: u64,
    dead: u64,
}

#[derive(Debug)]
struct Posted {
    number: WorkerNumber,
    awaited: bool,
    method: String,
    args: Vec<u8>,
    from: Option<WorkerNumber>,
    expires: Option<Instant>,
    fate: Option<Outcome>,
    account: AccountId,
    /// It was posted for later.
    due: Option<Instant>,
    /// Since when it waits again, if a process was given it before.
    back: Instant,
    /// What processes know it by, once it was handed to one.
    task: Option<MessageId>,
    /// How many processes have died executing it.
    deaths: u8,
    /// It is tried again: so said the class of the last of them.
    again: bool,
    /// How many have died before they began it.
    returns: u8,
    begun: Option<ProcessKey>,
    /// How the task ended by itself, in truth.
    ended: Option<bool>,
    /// The core was told so.
    told: bool,
    /// It is not wanted any more, said somebody.
    cancelled: bool,
    /// The core was told that it has not been begun for that.
    dropped: bool,
}

#[derive(Debug)]
struct Worker {
    name: String,
    kept: bool,
    /// A process for one method: it never takes calls.
    run: bool,
    /// Killed or drained: it takes no more calls.
    closed: bool,
    /// Killed: it starts nothing more and is given nothing more.
    down: bool,
    /// Somebody has set a limit to its current task.
    may_be_cut: bool,
    /// Its drain becomes a kill here, if it is not over.
    drain_cut: Instant,
    /// By an operator: it starts nothing and is given nothing until it is resumed.
    paused: bool,
    startup: Option<String>,
    /// That of its process, if it has one.
    policy: Policy,
    /// That of the next one, where it is another.
    renewed: Option<Policy>,
    /// No class has its name: it takes nothing new.
    retired: bool,
    generation: u64,
    /// Messages that ended without having run, by a kill or the shutdown.
    discards: u64,
}

#[derive(Debug, Default)]
struct Process {
    ready: bool,
    disconnected: bool,
    asked: bool,
    /// It was to make place for one of a newer class.
    replaced: bool,
    step: Option<EndedBy>,
    exit: Option<Exit>,
    over: bool,
    window: u32,
    has_page: bool,
    /// Tasks given to it that the core does not know to have ended.
    in_flight: Vec<MessageId>,
    /// Since when, as far as the core knows, it executes the first of them, or none.
    since: Instant,
    /// What it executes in truth.
    executes: Option<MessageId>,
    /// Its page says that it executes something, which in truth it has ended, or will perhaps not begin.
    page_differs: bool,
    /// It must be gone by then.
    bound: Option<Instant>,
    /// Since when it is stopped.
    halted: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Waiting {
    Message(MessageId),
    Kill(usize),
    Wait(usize),
    Over,
}

#[derive(Debug)]
struct KillRecord {
    at: Instant,
    /// Whom it is for, and how many messages of each were discarded before.
    numbers: BTreeMap<WorkerNumber, u64>,
    mode: KillMode,
    kept: bool,
    wait: bool,
    /// The life that was not over at the kill, and its process, if that lived.
    life: Option<ProcessKey>,
    process: Option<ProcessKey>,
    current: Expected,
    receipts: u32,
    reports: u32,
    /// The last message that was accepted before.
    last: MessageId,
}

/// What the checker knows of the task that ran at a kill.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    None,
    Task(MessageId),
    Unknown,
}

#[derive(Debug)]
struct Wait {
    name: Option<String>,
    number: Option<WorkerNumber>,
    until: Until,
    reached: u32,
    forgotten: bool,
}

impl Checker {
    pub fn new(exact: bool, limits: Limits) -> Checker {
        Checker {
            limits,
            exact,
            now: Instant::default(),
            tasks: BTreeMap::new(),
            dying: None,
            letters_left: 0,
            violation: None,
            messages: BTreeMap::new(),
            workers: BTreeMap::new(),
            open: BTreeMap::new(),
            processes: BTreeMap::new(),
            waiting: BTreeMap::new(),
            tokens: BTreeMap::new(),
            kills: Vec::new(),
            waits: Vec::new(),
            last_begun: BTreeMap::new(),
            shutdown: false,
            stopped: 0,
            fates: Fates::default(),
            expected_stale: 0,
        }
    }

    /// The message that a process knows by this number.
    fn by_task(&self, task: MessageId) -> Option<&Posted> {
        self.messages.get(self.tasks.get(&task)?)
    }

    fn by_task_mut(&mut self, task: MessageId) -> Option<&mut Posted> {
        self.messages.get_mut(self.tasks.get(&task)?)
    }

    /// A message is handed over under this number: its id, but for one that was posted for later.
    pub fn task_is(&mut self, now: Instant, task: MessageId, id: MessageId) {
        self.now = now;
        let Some(posted) = self.messages.get_mut(&id) else {
            return self.fail("C1", format!("{id} is handed over and was never accepted"));
        };
        let same = posted.task.is_none_or(|before| before == task);
        posted.task = Some(task);
        let fits = match posted.due {
            None => task == id,
            Some(due) => due <= now && task > id,
        };
        let text = format!("{id} is handed over as {task}: {posted:?}");
        let other = self.tasks.insert(task, id).is_some_and(|other| other != id);
        self.must(fits && same && !other, "C13", || text);
    }

    /// Dead letters were dropped, or posted again.
    pub fn letters_leave(&mut self, count: u64) {
        self.letters_left += count;
    }

    /// A dead letter is a new message.
    pub fn requeued(
        &mut self,
        old: MessageId,
        id: MessageId,
        name: &str,
        number: Option<WorkerNumber>,
        policy: &Policy,
    ) {
        let Some(number) = number else { return self.fail("L1", format!("{old} was posted again to nobody")) };
        let Some(before) = self.messages.get(&old) else { return self.fail("L1", format!("{old} was no message")) };
        let (method, args, from) = (before.method.clone(), before.args.clone(), before.from);
        let target = Target::Name(name);
        let (account, reply) = (AccountId(0), None);
        let (expires, after) = (None, None);
        let call =
            Call { target, method: &method, args: &args, from: None, existing: false, expires, after, account, reply };
        let open = self.open.get(name).copied();
        self.accepted(self.now, &call, Some(policy), open, number, id);
        if let Some(posted) = self.messages.get_mut(&id) {
            posted.from = from;
        }
    }

    /// The accounts, and the bounds of the dead letters.
    pub fn books(&mut self, charges: impl Iterator<Item = (AccountId, Charge)>, dead: DeadTotals) {
        let charges: BTreeMap<AccountId, u64> = charges.map(|(id, charge)| (id, charge.messages)).collect();
        let (most, limits) = (charges.values().copied().max().unwrap_or(0), &self.limits);
        let (all, limit) = (charges.values().sum::<u64>(), limits.total_messages);
        let within = most <= limits.sender_messages && all <= limit;
        let dead_within = dead.messages <= limits.dead_messages && dead.bytes <= limits.dead_bytes;
        if self.exact {
            let mut expected = BTreeMap::<AccountId, u64>::new();
            for message in self.messages.values().filter(|message| message.fate.is_none() && !message.told) {
                *expected.entry(message.account).or_default() += 1;
            }
            let text = || format!("charged {charges:?}, expected {expected:?}");
            self.must(charges == expected, "quota", text);
            let abandoned = self.messages.values().filter(|message| message.is_abandoned()).count() as u64;
            let letters = self.fates.dead + self.fates.expired - abandoned;
            let seen = dead.messages + dead.dropped + self.letters_left;
            self.must(letters == seen, "dead letters", || {
                format!("{dead:?}, {letters} letters, {abandoned} abandoned")
            });
        }
        self.must(within, "quota", || format!("{most} messages of one sender, {all} of all"));
        self.must(dead_within, "dead letters", || format!("{dead:?}"));
    }

    fn fail(&mut self, rule: &'static str, detail: String) {
        if self.violation.is_none() {
            self.violation = Some((rule, detail));
        }
    }

    fn must(&mut self, holds: bool, rule: &'static str, detail: impl FnOnce() -> String) {
        if !holds {
            self.fail(rule, detail());
        }
    }

    // ---- what clients do --------------------------------------------------------------------

    /// A worker that no call created.
    pub fn started(&mut self, name: &str, number: WorkerNumber, policy: &Policy) {
        let startup = policy.startup_method.as_deref().map(str::to_owned);
        self.workers.insert(number, Worker { kept: true, ..Worker::new(name, startup, policy.clone()) });
        self.open.insert(name.to_owned(), number);
    }

    pub fn called(&mut self, now: Instant, call: &Call<'_>, policy: Option<&Policy>, receipt: &CallReceipt) {
        self.dying = None;
        let what = || format!("{call:?} had {receipt:?}");
        let sender = call.from.map(|from| from.number);
        let sender_closed = sender.and_then(|number| self.workers.get(&number)).is_some_and(|worker| worker.closed);
        let sender_name = sender.and_then(|number| self.workers.get(&number)).map(|worker| worker.name.as_str());
        let (open, own) = match call.target {
            Target::Name(name) => (self.open.get(name).copied(), sender_name == Some(name)),
            Target::Number(number) => {
                let open = self.workers.get(&number).is_some_and(|worker| !worker.closed);
                (open.then_some(number), sender == Some(number))
            }
        };
        let retired = open.is_some_and(|number| self.workers[&number].retired);
        match receipt {
            CallReceipt::Refused(refused) => {
                let shut = refused.reason == Refusal::ShuttingDown;
                self.must(shut == self.shutdown, "D8", || format!("refused for a wrong reason: {}", what()));
                let allowed = match refused.reason {
                    Refusal::NoClass => retired || open.is_none() && policy.is_none(),
                    Refusal::BadName => matches!(call.target, Target::Name("")),
                    Refusal::MailboxFull | Refusal::TooLarge | Refusal::ShuttingDown => true,
                    Refusal::CrashLoop => {
                        open.is_some_and(|number| self.workers[&number].policy.crash_limit.refuse_calls)
                    }
                    Refusal::NotPermitted => false,
                    Refusal::NameTaken => matches!(call.target, Target::Name(name) if self.has_run(name)),
                };
                self.must(allowed, "C4", what);
            }
            CallReceipt::Ignored(why) => {
                self.must(!self.shutdown, "D8", what);
                let allowed = match why {
                    Ignored::OwnKilledWorker => own && sender_closed,
                    Ignored::NoLetter | Ignored::NoSignal | Ignored::NoMessage | Ignored::AlreadyTriggered => false,
                    Ignored::Ending => matches!(call.target, Target::Number(_)) && open.is_none(),
                    Ignored::NoWorker => open.is_none() && (call.existing || matches!(call.target, Target::Number(_))),
                    Ignored::NoStartupMethod => match open {
                        Some(number) => call.method.is_empty() && self.workers[&number].startup.is_none(),
                        None => call.method.is_empty() && policy.is_some_and(|policy| policy.startup_method.is_none()),
                    },
                };
                self.must(allowed, "C4", what);
            }
            CallReceipt::Accepted { number, message } => {
                self.must(!self.shutdown, "D8", what);
                self.must(!(own && sender_closed), "K9", what);
                self.must(!retired, "W9", what);
                self.accepted(now, call, policy, open, *number, *message);
            }
        }
    }

    fn accepted(
        &mut self,
        now: Instant,
        call: &Call<'_>,
        policy: Option<&Policy>,
        open: Option<WorkerNumber>,
        number: WorkerNumber,
        id: MessageId,
    ) {
        match (open, call.target) {
            (Some(open), _) => self.must(open == number, "K7", || format!("{open} was called, {number} was meant")),
            (None, Target::Number(_)) => self.fail("C8", format!("{number} takes no calls and took one")),
            (None, Target::Name(name)) => {
                self.must(!call.existing, "C12", || format!("{number} was created"));
                let highest = self.workers.keys().next_back().copied().unwrap_or(WorkerNumber::MAIN);
                self.must(number > highest, "W4", || format!("{number} after {highest}"));
                let class = policy.and_then(|policy| policy.startup_method.as_deref());
                let startup = Some(class.unwrap_or(call.method).to_owned());
                let policy = policy.cloned().unwrap_or_default();
                self.workers.insert(number, Worker::new(name, startup, policy));
                self.open.insert(name.to_owned(), number);
            }
        }
        let last = self.messages.keys().next_back().copied().unwrap_or_default();
        self.must(id > last, "C3", || format!("message {id} after {last}"));
        let startup = self.workers.get(&number).and_then(|worker| worker.startup.clone()).unwrap_or_default();
        let method = if call.method.is_empty() { startup } else { call.method.to_owned() };
        self.must(!method.is_empty(), "C6", || format!("message {id} has no method"));
        let posted = Posted {
            number,
            awaited: call.reply.is_some(),
            method,
            args: call.args.to_vec(),
            from: call.from.map(|from| from.number),
            expires: call.expires.map(|expires| now.after(expires)),
            fate: None,
            account: call.account,
            due: call.after.filter(|after| !after.is_zero()).map(|after| now.after(after)),
            task: None,
            back: now,
            deaths: 0,
            again: false,
            returns: 0,
            begun: None,
            ended: None,
            told: false,
            cancelled: false,
            dropped: false,
        };
        self.messages.insert(id, posted);
        if let Some(reply) = call.reply {
            self.waiting.insert(reply.token, Waiting::Message(id));
            self.tokens.insert(reply.token, id);
        }
    }

    /// Rule P1.
    pub fn ran(&mut self, now: Instant, run: &Run<'_>, policy: &Policy, receipt: &RunReceipt) {
        self.dying = None;
        let name = run.name.expect("it has one here");
        let what = || format!("{run:?} had {receipt:?}");
        match receipt {
            RunReceipt::Accepted { number, message, .. } => {
                self.must(!self.shutdown, "D8", what);
                let of_name =
                    |key: &ProcessKey| self.workers.get(&key.number).is_some_and(|worker| worker.name == name);
                let other = self.processes.iter().find(|(key, process)| !process.over && of_name(key));
                let other = other.map(|(key, _)| *key);
                self.must(other.is_none(), "gate", || format!("{}, and {other:?} is not gone", what()));
                let highest = self.workers.keys().next_back().copied().unwrap_or(WorkerNumber::MAIN);
                self.must(*number > highest, "W4", || format!("{number} after {highest}"));
                let startup = policy.startup_method.as_deref().map(str::to_owned);
                let worker = Worker::new(name, startup, policy.clone());
                self.workers.insert(*number, Worker { run: true, closed: true, ..worker });
                let call = Call {
                    target: Target::Number(*number),
                    method: run.method,
                    args: run.args,
                    from: run.from,
                    existing: false,
                    expires: None,
                    after: None,
                    account: run.account,
                    reply: run.reply,
                };
                self.accepted(now, &call, Some(policy), Some(*number), *number, *message);
            }
            RunReceipt::Running { number, .. } => {
                let runs =
                    self.workers.get(number).is_some_and(|worker| worker.run && !worker.down && worker.name == name);
                self.must(run.unique && runs && !self.shutdown, "P1", what);
            }
            RunReceipt::Ignored(why) => {
                let nothing = run.method.is_empty() && policy.startup_method.is_none();
                self.must(nothing && *why == Ignored::NoStartupMethod && !self.shutdown, "P1", what);
            }
            RunReceipt::Refused(refused) => {
                let shut = refused.reason == Refusal::ShuttingDown;
                self.must(shut == self.shutdown, "D8", what);
                let allowed = match refused.reason {
                    Refusal::NameTaken => self.has_run(name),
                    Refusal::MailboxFull | Refusal::TooLarge | Refusal::ShuttingDown => true,
                    _ => false,
                };
                self.must(allowed, "P1", what);
            }
        }
    }

    /// Whether there may be one of this name: its message has no fate, or its process is not proved gone.
    fn has_run(&self, name: &str) -> bool {
        let over = self.runs_over();
        let is =
            |(number, worker): (&WorkerNumber, &Worker)| worker.run && worker.name == name && !over.contains(number);
        self.workers.iter().any(is)
    }

    /// Those whose message has its fate and whose process is gone.
    pub fn runs_over(&self) -> Vec<WorkerNumber> {
        let lives = |number: &WorkerNumber| self.processes.iter().any(|(key, it)| key.number == *number && !it.over);
        let open = |number: &WorkerNumber| self.messages.values().any(|it| it.number == *number && it.fate.is_none());
        let runs = self.workers.iter().filter(|(_, worker)| worker.run).map(|(number, _)| *number);
        runs.filter(|number| !lives(number) && !open(number)).collect()
    }

    pub fn killed(&mut self, now: Instant, kill: &Kill<'_>, receipt: KillReceipt) {
        self.dying = None;
        let (name, open) = match kill.target {
            Target::Name(name) => (Some(name.to_owned()), self.open.get(name).copied()),
            Target::Number(number) => {
                let worker = self.workers.get(&number);
                let open = worker.is_some_and(|worker| !worker.closed).then_some(number);
                (worker.map(|worker| worker.name.clone()), open)
            }
        };
        let lives = |key: &ProcessKey| match kill.target {
            Target::Number(number) => key.number == number,
            Target::Name(name) => self.workers[&key.number].name == name,
        };
        let living = self.processes.iter().find(|(key, process)| !process.over && lives(key));
        let living = living.map(|(key, process)| (*key, process.exit.is_some()));
        if let KillReceipt::Ignored(_) = receipt {
            self.must(open.is_none() && living.is_none(), "K6", || format!("{kill:?} was ignored"));
            return;
        }
        let Some(name) = name else { return self.fail("K6", format!("{kill:?} was posted to nobody")) };
        let mut numbers: Vec<WorkerNumber> = match kill.target {
            Target::Number(number) => vec![number],
            Target::Name(_) => {
                self.workers.iter().filter(|(_, worker)| worker.name == name).map(|(number, _)| *number).collect()
            }
        };
        if kill.mode == KillMode::Drain
            && let Some(open) = open
        {
            numbers = vec![open];
        }
        let stays = |worker: &Worker| worker.kept && !worker.retired;
        let kept = open.is_some_and(|open| stays(&self.workers[&open])) && !self.shutdown;
        let process = living.filter(|(_, exited)| !exited).map(|(key, _)| key);
        let current = self.current(process.filter(|key| numbers.contains(&key.number)), kill.mode);
        self.kills.push(KillRecord {
            at: now,
            numbers: numbers.iter().map(|number| (*number, self.workers[number].discards)).collect(),
            mode: kill.mode,
            kept,
            wait: kill.wait && kill.reply.is_some(),
            life: living.map(|(key, _)| key),
            process,
            current,
            receipts: u32::from(kill.reply.is_none()),
            reports: 0,
            last: self.messages.keys().next_back().copied().unwrap_or_default(),
        });
        if let Some(reply) = kill.reply {
            self.waiting.insert(reply.token, Waiting::Kill(self.kills.len() - 1));
        }
        if kept {
            return;
        }
        for number in &numbers {
            let worker = self.workers.get_mut(number).expect("was found above");
            worker.closed = true;
            worker.kept = false;
            worker.paused = false;
            worker.down |= kill.mode != KillMode::Drain;
            worker.may_be_cut |= kill.within.is_some() || kill.mode == KillMode::Now;
        }
        if kill.mode == KillMode::Drain {
            // The limit is one of the whole name, and so is the end of a pause.
            let cut = kill.within.map_or(Instant::NEVER, |within| now.after(within));
            let meant = |number: WorkerNumber, worker: &Worker| match kill.target {
                Target::Number(meant) => number == meant,
                Target::Name(_) => worker.name == name,
            };
            for (_, worker) in self.workers.iter_mut().filter(|(number, worker)| meant(**number, worker)) {
                worker.drain_cut = worker.drain_cut.min(cut);
                worker.may_be_cut |= kill.within.is_some();
                worker.paused = false;
            }
        }
        self.open.retain(|_, number| !numbers.contains(number));
        if let (Some(key), true) = (process, kill.mode != KillMode::Drain) {
            let policy = self.workers[&key.number].policy.clone();
            self.bound_kill(now, key, kill, &policy);
        }
    }

    /// Which task runs in a process, as a kill of this mode would see it.
    fn current(&self, process: Option<ProcessKey>, mode: KillMode) -> Expected {
        let Some(process) = process.and_then(|key| self.processes.get(&key)) else { return Expected::None };
        if process.in_flight.is_empty() && process.executes.is_none() {
            return Expected::None;
        }
        // A process with a page is asked what it really does; but not if nothing can be asked of it.
        match process.has_page {
            true if process.page_differs || process.disconnected || mode == KillMode::Drain => Expected::Unknown,
            true => process.executes.map_or(Expected::None, Expected::Task),
            false => process.in_flight.first().copied().map_or(Expected::None, Expected::Task),
        }
    }

    /// The sum of the graces, from now.
    fn bound_kill(&mut self, now: Instant, key: ProcessKey, kill: &Kill<'_>, policy: &Policy) {
        let limit = match (kill.mode, kill.within, policy.task_grace) {
            (KillMode::Now, ..) => Some(Duration::ZERO),
            (_, Some(within), Some(grace)) => Some(within.min(grace)),
            (_, within, grace) => within.or(grace),
        };
        let process = self.processes.get_mut(&key).expect("was found alive");
        // An unlimited task that hangs has no bound.
        let limit = match limit {
            Some(limit) => limit,
            None if process.in_flight.is_empty() => Duration::ZERO,
            None => return,
        };
        let bound = now.after(limit.max(TASK_MAX) + policy.exit_grace + policy.term_grace + KILL_SLACK);
        process.bound = Some(process.bound.map_or(bound, |earlier| earlier.min(bound)));
    }

    pub fn waits(&mut self, target: Target<'_>, until: Until, token: u64) {
        let (name, number) = match target {
            Target::Name(name) => (Some(name.to_owned()), None),
            Target::Number(number) => (None, Some(number)),
        };
        self.waits.push(Wait { name, number, until, reached: 0, forgotten: false });
        self.waiting.insert(token, Waiting::Wait(self.waits.len() - 1));
    }

    pub fn forgets_waits(&mut self, tokens: &[u64]) {
        for token in tokens {
            if let Some(Waiting::Wait(wait)) = self.waiting.get(token) {
                self.waits[*wait].forgotten = true;
            }
        }
    }

    /// A new configuration is in force: a process keeps its class to its end, unless it is to make place for the next.
    pub fn reloaded<'a>(&mut self, restart: bool, class: &dyn Fn(&str) -> Option<&'a Policy>) {
        self.dying = None;
        for (number, worker) in self.workers.iter_mut().filter(|(_, worker)| !worker.run) {
            worker.retired = class(&worker.name).is_none();
            let Some(new) = class(&worker.name) else { continue };
            let living = self.processes.iter_mut().find(|(key, process)| key.number == *number && !process.over);
            let changed = worker.renewed.as_ref().unwrap_or(&worker.policy) != new;
            match living {
                Some((_, process)) if changed || worker.renewed.is_some() => {
                    worker.renewed = Some(new.clone());
                    let ends = process.exit.is_some() || process.step.is_some() || process.disconnected;
                    process.replaced |= restart && !ends && !worker.down;
                }
                _ => worker.policy = new.clone(),
            }
        }
    }

    /// Who has no class and has not left, as far as is known here.
    pub fn retired(&self) -> Vec<WorkerNumber> {
        let retired = self.workers.iter().filter(|(_, worker)| worker.retired && !worker.closed);
        retired.map(|(number, _)| *number).collect()
    }

    /// One without a class has left: it had nothing, and takes nothing more.
    pub fn left(&mut self, number: WorkerNumber) {
        let living = self.processes.iter().find(|(key, process)| key.number == number && !process.over);
        let open = self.messages.iter().find(|(_, it)| it.number == number && it.awaited && it.fate.is_none());
        let left = living.map(|(key, _)| format!("{key:?} lives"));
        let left = left.or(open.map(|(id, message)| format!("{id} has no fate: {message:?}")));
        self.must(left.is_none(), "W9", || format!("{number} has left, and {}", left.unwrap()));
        let worker = self.workers.get_mut(&number).expect("the caller knows it from here");
        (worker.closed, worker.down) = (true, true);
        self.open.retain(|_, open| *open != number);
    }

    /// One without a class is there: it has something left, or one before it in its line, or somebody waits for it.
    pub fn stays(&mut self, number: WorkerNumber) {
        let name = &self.workers[&number].name;
        let same = |number: &WorkerNumber| self.workers[number].name == *name;
        let awaited = |wait: &Wait| match &wait.name {
            Some(of) => of == name,
            None => wait.number.is_some_and(|number| self.workers.contains_key(&number) && same(&number)),
        };
        let has = self.processes.iter().any(|(key, process)| !process.over && same(&key.number))
            || self.messages.values().any(|message| message.fate.is_none() && same(&message.number))
            || self.waits.iter().any(|wait| wait.reached == 0 && !wait.forgotten && awaited(wait));
        self.must(!self.exact || has, "W9", || format!("{number} has no class and nothing left, and does not leave"));
    }

    /// Those that no call has created, and that no kill has ended while they had no class.
    pub fn kept(&self) -> Vec<WorkerNumber> {
        let kept = self.workers.iter().filter(|(_, worker)| worker.kept && !worker.retired && !worker.closed);
        kept.map(|(number, _)| *number).collect()
    }

    pub fn shut_down(&mut self) {
        self.shutdown = true;
        self.dying = None;
        self.open.clear();
        for worker in self.workers.values_mut() {
            worker.closed = true;
            worker.paused = false;
            worker.down = true;
            worker.may_be_cut = true;
        }
    }

    // ---- pauses (rule P4) -------------------------------------------------------------------

    /// After the core has done it, before its effects.
    pub fn paused(&mut self, target: Target<'_>, receipt: Result<(), Ignored>) {
        let meant = |number: &WorkerNumber, worker: &Worker| match target {
            Target::Number(target) => target == *number,
            Target::Name(name) => worker.name == name,
        };
        let lives =
            |number: WorkerNumber| self.processes.iter().any(|(key, process)| key.number == number && !process.over);
        let mut open = false;
        let (mut lives_down, mut drained) = (false, false);
        for (number, worker) in self.workers.iter().filter(|(number, worker)| meant(number, worker)) {
            open |= !worker.closed;
            drained |= worker.closed && !worker.down;
            lives_down |= worker.down && lives(*number);
        }
        // Whether a drained worker is still there, and not ending, only the core knows.
        let allowed = match receipt {
            Ok(()) => open || drained,
            Err(Ignored::NoWorker) => !open && !lives_down,
            Err(Ignored::Ending) => !open && (lives_down || drained),
            Err(_) => false,
        };
        self.must(allowed, "P4", || format!("pause {target:?} had {receipt:?}"));
        if receipt.is_ok() {
            for (_, worker) in self.workers.iter_mut().filter(|(number, worker)| meant(number, worker) && !worker.down)
            {
                worker.paused = true;
            }
        }
    }

    /// Before the core does it.
    pub fn resumed(&mut self, target: Target<'_>) {
        for (number, worker) in &mut self.workers {
            let meant = match target {
                Target::Number(target) => target == *number,
                Target::Name(name) => worker.name == name,
            };
            worker.paused &= !meant;
        }
    }

    /// Who is paused, as far as is known.
    pub fn paused_numbers(&self) -> Vec<WorkerNumber> {
        self.workers.iter().filter(|(_, worker)| worker.paused).map(|(number, _)| *number).collect()
    }

    fn halted(&mut self, key: ProcessKey) {
        let paused = self.workers.get(&key.number).is_some_and(|worker| worker.paused);
        let now = self.now;
        let Some(process) = self.processes.get_mut(&key) else {
            return self.fail("P4", format!("{key:?} is stopped and never started"));
        };
        let whole = process.step.is_none() && process.exit.is_none() && !process.disconnected;
        let twice = process.halted.replace(now).is_some();
        self.must(paused && whole && !twice, "P4", || format!("{key:?} is stopped"));
    }

    /// What it may take of time goes on where it was.
    fn continued(&mut self, key: ProcessKey) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&key) else {
            return self.must(self.shutdown, "P4", || format!("{key:?} is continued and never started"));
        };
        let halted = process.halted.take();
        if let Some(since) = halted {
            process.since = process.since.after(now.since(since)).min(now);
        }
        self.must(halted.is_some() || self.shutdown, "P4", || format!("{key:?} is continued and was not stopped"));
    }

    // ---- what processes really do -----------------------------------------------------------

    pub fn page_differs(&mut self, key: ProcessKey, differs: bool) {
        self.processes.get_mut(&key).expect("it was started").page_differs = differs;
    }

    pub fn begins(&mut self, now: Instant, key: ProcessKey, task: MessageId) {
        self.now = now;
        let over = self.processes[&key].over || self.processes[&key].exit.is_some();
        self.must(!over, "K8", || format!("{key:?} executes after its end"));
        let halted = self.processes[&key].halted.is_some();
        self.must(!halted, "P4", || format!("{key:?} begins {task} while it is stopped"));
        let Some(message) = self.by_task_mut(task) else {
            return self.fail("C1", format!("{task} is executed and was never accepted"));
        };
        let again = message.again;
        let before = (message.begun.replace(key), message.fate.clone(), message.number);
        message.ended = None;
        let text = || format!("{task} is executed by {key:?}: {before:?}");
        self.must(before.0.is_none() || again, "at-most-once", text);
        self.must(before.1.is_none(), "executed-after-its-fate", text);
        self.must(before.2 == key.number, "W6", text);
        let last = self.last_begun.insert(key.number, task).unwrap_or_default();
        self.must(task > last || again && task == last, "C3", || format!("{task} is executed after {last}"));
        let process = self.processes.get_mut(&key).expect("was found above");
        let busy = process.executes.replace(task);
        self.must(busy.is_none(), "C3", || format!("{task} is executed while {busy:?} is"));
    }

    pub fn ends(&mut self, key: ProcessKey, task: MessageId, done: bool) {
        self.by_task_mut(task).expect("it began").ended = Some(done);
        self.processes.get_mut(&key).expect("it executes").executes = None;
    }

    // ---- what the shell tells the core ------------------------------------------------------

    /// Before the core sees it.
    pub fn fed(&mut self, now: Instant, event: &Event<'_>) {
        self.now = now;
        self.dying = None;
        let key = key_of(event);
        let known = self.processes.get(&key).is_some_and(|process| !process.over);
        if !known {
            self.expected_stale += 1;
            return;
        }
        let process = self.processes.get_mut(&key).expect("was found above");
        match event {
            Event::Spawned { .. } | Event::StartFailed { .. } | Event::Violation { .. } => {}
            Event::Dropped { id, .. } => {
                if process.in_flight.first() == Some(id) {
                    process.in_flight.remove(0);
                    process.since = now;
                    let message = self.by_task_mut(*id).expect("was delivered");
                    message.dropped = true;
                }
            }
            Event::SpawnFailed { .. } => process.over = true,
            Event::Held { .. } => {
                // As if it had never been commanded: the next attempt is the same life again.
                self.processes.remove(&key);
                self.workers.get_mut(&key.number).expect("it has lives").generation -= 1;
            }
            Event::Ready { window, .. } => {
                process.ready = true;
                process.since = now;
                process.window = *window;
            }
            Event::Done { id, .. } => self.told(key, *id, true),
            Event::DoneAll { id, .. } => self.told_up_to(key, *id),
            Event::Failed { id, .. } => self.told(key, *id, false),
            Event::Undeliverable { id, .. } => {
                // The shell never said it: it fails without having begun, wherever it stood.
                if process.in_flight.first() == Some(id) {
                    process.since = now;
                }
                process.in_flight.retain(|sent| sent != id);
                self.fates.failed += 1;
                let message = self.by_task_mut(*id).expect("was delivered");
                (message.ended, message.told) = (Some(false), true);
            }
            Event::Marked { mark, .. } => self.told_through(key, *mark, false),
            Event::Asked { mark, .. } => {
                // Only who is killed loses what it has not begun; from another, which is drained or was too long at a
                // task, it returns to the mailbox at its end.
                let worker = &self.workers[&key.number];
                let killed = worker.down || worker.drain_cut <= now && !process.disconnected;
                // One that makes place for the next leaves it to that at once.
                let replaced = process.replaced && process.step == Some(EndedBy::Ask);
                if let Some(mark) = mark.filter(|_| killed || replaced) {
                    let begun = process.in_flight.partition_point(|id| *id <= mark.begun);
                    let back = process.in_flight.split_off(begun);
                    self.are_back(&back);
                }
            }
            Event::Disconnected { .. } => process.disconnected = true,
            Event::Exited { exit, mark, .. } => {
                process.exit = Some(*exit);
                if let Some(mark) = mark {
                    self.told_through(key, *mark, true);
                }
                let process = self.processes.get_mut(&key).expect("was found above");
                let back = std::mem::take(&mut process.in_flight);
                let first = back.first().copied();
                process.executes = None;
                let begun = first.filter(|first| mark.is_none_or(|mark| mark.begun >= *first));
                let attempts = self.workers[&key.number].policy.attempts;
                self.are_back(&back);
                if let Some(message) = first.and_then(|first| self.by_task_mut(first)) {
                    match begun {
                        Some(_) => {
                            message.deaths += 1;
                            message.again = message.deaths < attempts && !message.cancelled;
                        }
                        None => message.returns += 1,
                    }
                }
                self.dying = begun.and_then(|begun| Some((*self.tasks.get(&begun)?, *exit)));
            }
            Event::TreeGone { .. } => process.over = process.exit.is_some(),
        }
        if self.processes.get(&key).is_none_or(|process| process.over) {
            let worker = self.workers.get_mut(&key.number).expect("it has lives");
            worker.policy = worker.renewed.take().unwrap_or_else(|| worker.policy.clone());
        }
    }

    /// A process has these no more: they wait, or are about to have their fate.
    fn are_back(&mut self, tasks: &[MessageId]) {
        for task in tasks {
            let now = self.now;
            if let Some(message) = self.by_task_mut(*task) {
                message.back = now;
            }
        }
    }

    fn told(&mut self, key: ProcessKey, id: MessageId, done: bool) {
        let process = self.processes.get_mut(&key).expect("the caller has found it");
        if process.in_flight.first() != Some(&id) {
            return;
        }
        process.in_flight.remove(0);
        process.since = self.now;
        match done {
            true => self.fates.done += 1,
            false => self.fates.failed += 1,
        }
        self.by_task_mut(id).expect("was delivered").told = true;
    }

    /// One word for all up to a task that it has.
    fn told_up_to(&mut self, key: ProcessKey, last: MessageId) {
        let in_flight = self.processes[&key].in_flight.clone();
        let Some(at) = in_flight.iter().position(|id| *id == last) else { return };
        for id in &in_flight[..=at] {
            self.told(key, *id, true);
        }
    }

    /// Who waits for a message is not served by a mark, unless there will be nothing else.
    fn told_through(&mut self, key: ProcessKey, mark: Mark, last: bool) {
        let awaited = |id: &MessageId| self.by_task(*id).is_some_and(|message| message.awaited);
        let is_told = |id: &MessageId| *id <= mark.finished && (last || !awaited(id));
        let told = self.processes[&key].in_flight.iter().copied().take_while(is_told).collect::<Vec<_>>();
        for id in told {
            self.told(key, id, true);
        }
    }

    // ---- what the core commands -------------------------------------------------------------

    pub fn commanded(&mut self, now: Instant, effect: &Effect) {
        self.now = now;
        // Whose time is over in the same turn may still be told so.
        let told = matches!(effect, Effect::SignalEnded { .. });
        self.must(self.stopped == 0 || told, "D8", || format!("{effect:?} after Stopped"));
        match effect {
            Effect::Spawn { process } => self.spawn(*process),
            Effect::Deliver { process, id, .. } => self.deliver(*process, *id),
            Effect::Look { process, .. } => {
                let timed =
                    self.workers.get(&process.number).is_some_and(|worker| worker.policy.task_timeout.is_some());
                let halted = self.processes.get(process).is_some_and(|process| process.halted.is_some());
                self.must(timed && !halted, "D6", || format!("{process:?} is looked at"));
            }
            Effect::Ask { process, .. } => self.stop(*process, EndedBy::Ask),
            Effect::Term { process, .. } => self.stop(*process, EndedBy::Term),
            Effect::Kill { process, .. } => self.stop(*process, EndedBy::Kill),
            Effect::Pause { process, .. } => self.halted(*process),
            Effect::Continue { process, .. } => self.continued(*process),
            Effect::Close { process, .. } => self.fail("P2", format!("{process:?} is closed, and nobody has attached")),
            Effect::Sweep { process, .. } => {
                let exited = self.processes.get(process).is_some_and(|process| process.exit.is_some() && !process.over);
                self.must(exited, "K8", || format!("{process:?} is swept"));
            }
            Effect::Settled { reply, outcome } => match self.waiting.insert(reply.token, Waiting::Over) {
                Some(Waiting::Message(id)) => self.settled(now, id, outcome),
                other => self.fail("L1", format!("{outcome:?} for {reply:?}, which is {other:?}")),
            },
            Effect::Killed { reply, discarded } => match self.waiting.get(&reply.token) {
                Some(Waiting::Kill(kill)) => self.receipt(*kill, *discarded),
                other => self.fail("K12", format!("a receipt for {reply:?}, which is {other:?}")),
            },
            Effect::KillEnded { reply, report } => match self.waiting.get(&reply.token) {
                Some(Waiting::Kill(kill)) => self.report(now, *kill, report),
                other => self.fail("K12", format!("a report for {reply:?}, which is {other:?}")),
            },
            Effect::Reached { reply } => match self.waiting.insert(reply.token, Waiting::Over) {
                Some(Waiting::Wait(wait)) => self.reached(wait),
                other => self.fail("wait", format!("reached for {reply:?}, which is {other:?}")),
            },
            // Another checker has these.
            Effect::SignalEnded { .. } => {}
            Effect::Cancel { process, id, .. } => {
                let given = self.processes.get(process).is_some_and(|process| process.in_flight.contains(id));
                let cancelled = self.by_task(*id).is_some_and(|message| message.cancelled);
                self.must(given && cancelled, "cancel", || format!("{effect:?}, unasked, or of what it has not"));
            }
            Effect::Stopped => {
                self.stopped += 1;
                self.must(self.shutdown, "D8", || "stopped without a shutdown".into());
                let left = self.processes.iter().find(|(_, process)| !process.over).map(|(key, _)| *key);
                self.must(left.is_none(), "D8", || format!("stopped, and {left:?} is left"));
            }
        }
    }

    fn spawn(&mut self, key: ProcessKey) {
        let Some(worker) = self.workers.get_mut(&key.number) else {
            return self.fail("K8", format!("{key:?} belongs to no worker"));
        };
        worker.generation += 1;
        let (generation, down, name) = (worker.generation, worker.down, worker.name.clone());
        let (run, attempts) = (worker.run, u64::from(worker.policy.attempts));
        let paused = worker.paused;
        self.must(!paused, "P4", || format!("{key:?} is paused and starts"));
        self.must(key.generation.0 == generation, "generation", || format!("{key:?}, not {generation}"));
        self.must(!down, "K7", || format!("{key:?} was killed and starts"));
        let too_many = run && generation > attempts;
        self.must(!too_many, "P1", || format!("{key:?} has one life too many"));
        let alive = self.processes.values().filter(|process| !process.over).count();
        self.must(alive < self.limits.processes as usize, "quota", || format!("{key:?} is one process too many"));
        let of_name = |key: &ProcessKey| self.workers.get(&key.number).is_some_and(|worker| worker.name == name);
        let older = self.processes.iter().find(|(key, process)| !process.over && of_name(key)).map(|(key, _)| *key);
        self.must(older.is_none(), "gate", || format!("{key:?} of `{name}` starts, and {older:?} is not proved gone"));
        self.processes.insert(key, Process::default());
    }

    /// What a process is like is known when it starts.
    pub fn spawned(&mut self, key: ProcessKey, has_page: bool) {
        if let Some(process) = self.processes.get_mut(&key) {
            process.has_page = has_page;
        }
    }

    fn deliver(&mut self, key: ProcessKey, id: MessageId) {
        let (down, kept) = self.workers.get(&key.number).map_or((true, false), |worker| (worker.down, worker.kept));
        let paused = self.workers.get(&key.number).is_some_and(|worker| worker.paused);
        self.must(!paused, "P4", || format!("{id} is for {key:?}, which is paused"));
        let begun =
            self.by_task(id).is_none_or(|message| message.begun.is_some() && !message.again || message.fate.is_some());
        let now = self.now;
        let expired = self.by_task(id).and_then(|message| message.expires).is_some_and(|at| at <= now);
        self.must(!expired, "C13", || format!("{id} has expired and is handed over"));
        let Some(process) = self.processes.get_mut(&key) else {
            return self.fail("deliver", format!("{id} to {key:?}, which never started"));
        };
        let takes = process.ready && !process.asked && process.exit.is_none() && !process.disconnected;
        if process.in_flight.is_empty() {
            process.since = now;
        }
        process.in_flight.push(id);
        let window = if kept && !self.shutdown { 1 } else { process.window as usize };
        let fits = process.in_flight.len() <= window && process.in_flight.is_sorted();
        let text = || format!("{id} to {key:?}");
        self.must(takes && !down, "deliver", text);
        self.must(fits, "window", text);
        self.must(!begun, "at-most-once", text);
    }

    /// The content of a message that is handed over (rules C9, C11).
    pub fn content(&mut self, task: MessageId, message: Option<&Message>) {
        let Some(posted) = self.by_task(task) else { return };
        let same = message.is_some_and(|message| {
            let from = message.from.as_ref().map(|identity| (identity.number, &*identity.name));
            let expected = posted.from.map(|number| (number, self.workers[&number].name.as_str()));
            message.id == self.tasks[&task]
                && message.method() == posted.method
                && message.args() == posted.args
                && from == expected
                && message.reply.is_some() == posted.awaited
        });
        self.must(same, "C9", || format!("{task} is handed over as {message:?}"));
    }

    fn stop(&mut self, key: ProcessKey, step: EndedBy) {
        let Some(worker) = self.workers.get(&key.number) else { return };
        let (closed, may_be_cut) = (worker.closed, worker.may_be_cut || self.shutdown);
        let (task_timeout, idle_timeout) = (worker.policy.task_timeout, worker.policy.idle_timeout);
        let now = self.now;
        let Some(process) = self.processes.get_mut(&key) else {
            return self.fail("K4", format!("{step:?} to {key:?}, which never started"));
        };
        let (ready, disconnected, over) = (process.ready, process.disconnected, process.exit.is_some());
        let replaced = process.replaced;
        let executes = process.executes;
        let for_long = |timeout: Option<Duration>| timeout.is_some_and(|timeout| process.since.after(timeout) <= now);
        let idled = for_long(idle_timeout) && process.in_flight.is_empty() && step == EndedBy::Ask;
        let timed_out = for_long(task_timeout) && !process.in_flight.is_empty() && step != EndedBy::Kill;
        let (back, begun) = (process.step.map(rank) > Some(rank(step)), process.step.is_some());
        // A second Ask does not go back: it only asks again what the process had begun.
        process.step = process.step.max_by_key_with(step);
        process.asked |= step == EndedBy::Ask;
        let text = || format!("{step:?} to {key:?} which executes {executes:?}");
        let deaf = process.halted.is_some();
        self.must(!deaf, "P4", || format!("{step:?} to {key:?}, which is stopped"));
        self.must(!over, "K4", || format!("{step:?} to {key:?}, which has ended"));
        let fault = step != EndedBy::Ask && (!ready || disconnected || begun);
        let cut_off = disconnected && step == EndedBy::Ask;
        let replaced = replaced && step == EndedBy::Ask;
        self.must(closed || fault || idled || timed_out || cut_off || replaced, "K4", text);
        self.must(!back || step == EndedBy::Ask, "K4", text);
        let interrupts = step != EndedBy::Ask && executes.is_some() && !disconnected;
        let timed_out_before = step == EndedBy::Kill && task_timeout.is_some();
        self.must(!interrupts || may_be_cut || timed_out || timed_out_before, "K3", text);
    }

    /// The class limits how long a kill waits for a task.
    pub fn limits_tasks(&mut self, number: WorkerNumber) {
        if let Some(worker) = self.workers.get_mut(&number) {
            worker.may_be_cut = true;
        }
    }

    fn settled(&mut self, now: Instant, id: MessageId, outcome: &Outcome) {
        let message = self.messages.get_mut(&id).expect("is registered with its token");
        message.fate = Some(outcome.clone());
        let (number, ended, told, expires) = (message.number, message.ended, message.told, message.expires);
        let (task, deaths, returns) = (message.task.unwrap_or(id), message.deaths, message.returns);
        let policy = &self.workers[&number].policy;
        let (attempts, timed, drops) = (policy.attempts, policy.task_timeout, policy.crash_limit.drop_unstarted);
        let (begun, cancelled, dropped) = (message.begun, message.cancelled, message.dropped);
        // It has as many lives as its class gives a message attempts.
        let last_life = self.workers[&number].run && self.workers[&number].generation >= u64::from(attempts);
        let closed = self.workers[&number].closed;
        let kept = self.workers[&number].kept;
        let exit = begun.and_then(|key| self.processes[&key].exit);
        let dies = self.dying.is_some_and(|(dying, _)| dying == id);
        // A process without a page may be charged for what it had not begun, and an earlier one had.
        let exit = self.dying.filter(|_| dies).map(|(_, exit)| exit).or(exit);
        let allowed = match outcome {
            Outcome::Done { result } => ended == Some(true) && told && **result == *result_of(task),
            Outcome::Failed { error } => ended == Some(false) && told && **error == *error_of(task),
            // Of one that has died executing it, nobody wants another attempt.
            Outcome::Discarded { may_have_run } if cancelled => {
                !told && *may_have_run == (deaths > 0) && (begun.is_none() || deaths > 0)
            }
            Outcome::Discarded { may_have_run: false } => begun.is_none() && (closed || kept) && !self.shutdown,
            Outcome::Discarded { may_have_run: true } => {
                !told && (closed && dies || (closed || kept) && deaths > 0) && !self.shutdown
            }
            Outcome::Expired { may_have_run } => {
                (begun.is_none() || *may_have_run)
                    && *may_have_run == (deaths > 0)
                    && expires.is_some_and(|expires| expires <= now)
            }
            Outcome::Dead { reason: DeadReason::Crashed, exit: Some(reported), may_have_run: true } => {
                let once = attempts == 1 || cancelled;
                !told && dies && (begun.is_none() || exit == Some(*reported)) && once
            }
            Outcome::Dead { reason: DeadReason::Poison, exit: Some(reported), may_have_run } => {
                let often = dies && attempts > 1 && deaths >= attempts && (begun.is_none() || exit == Some(*reported));
                let untried = last_life && deaths > 0 && *may_have_run;
                !told && (often && *may_have_run || untried || returns == 10 && *may_have_run == (deaths > 0))
            }
            Outcome::Dead { reason: DeadReason::TimedOut, exit: Some(_), may_have_run: true } => {
                !told && dies && timed.is_some()
            }
            Outcome::Dead { reason: DeadReason::NeverStarted, may_have_run, .. } => {
                (drops || last_life && deaths == 0) && !told && *may_have_run == (deaths > 0)
            }
            Outcome::Dead { reason: DeadReason::Poison, exit: None, may_have_run: true } => {
                last_life && !told && deaths > 0
            }
            Outcome::Dead { reason: DeadReason::Abandoned, may_have_run, .. } => {
                self.shutdown && !told && (*may_have_run || begun.is_none())
            }
            Outcome::Dead { .. } => false,
        };
        self.must(allowed, "L1", || format!("{id} is {outcome:?}; in truth begun {begun:?} ended {ended:?} {exit:?}"));
        let fates = &mut self.fates;
        match outcome {
            Outcome::Done { .. } | Outcome::Failed { .. } => {}
            Outcome::Discarded { .. } => fates.discarded += 1,
            Outcome::Expired { .. } => fates.expired += 1,
            Outcome::Dead { .. } => fates.dead += 1,
        }
        let emptied =
            matches!(outcome, Outcome::Discarded { .. } | Outcome::Dead { reason: DeadReason::Abandoned, .. });
        let waited = emptied && !dropped && self.dying.is_none_or(|(dying, _)| dying != id);
        self.workers.get_mut(&number).expect("is never forgotten").discards += u64::from(waited);
    }

    /// How many messages were discarded since a kill, of those it is for.
    fn discards(&self, kill: &KillRecord, number: Option<WorkerNumber>) -> u64 {
        let meant = kill.numbers.iter().filter(|(of, _)| number.is_none_or(|number| number == **of));
        meant.map(|(of, before)| self.workers[of].discards - before).sum()
    }

    fn receipt(&mut self, kill: usize, discarded: u64) {
        self.kills[kill].receipts += 1;
        let seen = self.discards(&self.kills[kill], None);
        let record = &self.kills[kill];
        let (once, text) = (record.receipts == 1, format!("{discarded} discarded, {seen} seen: {record:?}"));
        let fits = discarded == seen || (!self.exact && discarded > seen);
        self.must(once, "K12", || text.clone());
        self.must(fits, "K12", || text);
        // What had not been handed over at the kill is discarded by now.
        let record = &self.kills[kill];
        if record.mode != KillMode::Drain {
            let pending = |(id, message): &(&MessageId, &Posted)| {
                **id <= record.last && record.numbers.contains_key(&message.number) && message.task.is_none()
            };
            let left =
                self.messages.iter().filter(pending).find(|(_, message)| message.awaited && message.fate.is_none());
            let left = left.map(|(id, message)| format!("{id} is still pending: {message:?}"));
            self.must(left.is_none(), "K2", || left.unwrap());
        }
    }

    fn report(&mut self, now: Instant, kill: usize, report: &KillReport) {
        self.kills[kill].reports += 1;
        let record = &self.kills[kill];
        let seen = self.discards(record, (record.mode == KillMode::Drain).then_some(report.number));
        let text = format!("{report:?} for {record:?}, {seen} discarded");
        let worker = &self.workers[&report.number];
        let identity = record.numbers.contains_key(&report.number)
            && worker.name == *report.worker
            && worker.generation == report.generation.0;
        let once = record.reports == 1 && record.wait && record.receipts == 1 && report.took == now.since(record.at);
        let discarded = report.discarded == seen || (!self.exact && report.discarded > seen);
        let key = record.process.filter(|key| key.number == report.number);
        let last = self
            .processes
            .iter()
            .rev()
            .find(|(key, _)| (key.number, key.generation) == (report.number, report.generation));
        let gate = record.kept || last.is_none_or(|(_, process)| process.over);
        let ended_by = match (record.kept, record.mode) {
            (true, _) => report.ended_by == EndedBy::OnlyEmptied && report.exit.is_none(),
            // What a drain has to end may be a later life than the one at the kill.
            (_, KillMode::Drain) => match last.and_then(|(_, process)| process.step) {
                Some(step) => report.ended_by == step || report.ended_by == EndedBy::AlreadyGone,
                None => matches!(report.ended_by, EndedBy::AlreadyGone | EndedBy::Ask),
            },
            _ => {
                let step = key.and_then(|key| self.processes.get(&key)).map(|process| {
                    // A process that was never ready, or had hung up, could not be asked in words.
                    process.exit.map_or(EndedBy::AlreadyGone, |_| process.step.unwrap_or(EndedBy::Ask))
                });
                report.ended_by == step.unwrap_or(EndedBy::AlreadyGone)
            }
        };
        let seen_exit = last.and_then(|(_, process)| process.exit);
        let exit = match record.mode {
            _ if record.kept => report.exit.is_none(),
            KillMode::Drain => report.exit.is_none() || report.exit == seen_exit,
            _ => report.exit == record.life.filter(|key| key.number == report.number).and(seen_exit),
        };
        let current = match record.current {
            Expected::Unknown => true,
            Expected::None => report.current == Current::None,
            // The task of another one of the line.
            Expected::Task(_) if key.is_none() => report.current == Current::None,
            Expected::Task(_) if record.kept => report.current == Current::None,
            // Its process died with it, and it was tried again: both are true.
            Expected::Task(id) if self.by_task(id).is_some_and(|message| message.deaths > 0 && message.told) => true,
            Expected::Task(id) => match self.by_task(id).is_some_and(|message| message.told) {
                true => report.current == Current::Finished,
                false => report.current == Current::Interrupted,
            },
        };
        // A drain that is cut interrupts a later task than the one that ran at the kill. Without a page what
        // was handed over counts as begun; with one, what it had marked and not begun yet.
        let cut = || {
            let exact = last.is_none_or(|(_, process)| process.has_page && !process.page_differs);
            let mut own = self.messages.values().filter(|message| message.number == report.number && !message.told);
            own.any(|message| message.begun.is_some() || !exact)
        };
        let current = current || record.mode == KillMode::Drain && report.current == Current::Interrupted && cut();
        self.must(gate, "gate", || format!("reported before it was gone: {text}"));
        self.must(identity && once, "K12", || text.clone());
        self.must(discarded, "K12 discarded", || text.clone());
        self.must(ended_by && exit, "K12 ended_by", || text.clone());
        self.must(current, "K12 current", || text);
    }

    fn reached(&mut self, wait: usize) {
        self.waits[wait].reached += 1;
        let wait = &self.waits[wait];
        let meant = |number: &WorkerNumber| match (&wait.name, wait.number) {
            (Some(name), _) => self.workers.get(number).is_some_and(|worker| worker.name == *name),
            (None, meant) => meant == Some(*number),
        };
        let open_messages =
            || self.messages.values().filter(|message| message.fate.is_none() && meant(&message.number)).count();
        let so = match wait.until {
            Until::Gone => !self.processes.iter().any(|(key, process)| !process.over && meant(&key.number)),
            Until::Idle => !self.exact || open_messages() == 0,
            Until::Empty => !self.exact || open_messages() <= 1,
            Until::Room => true,
        };
        let (once, text) = (wait.reached == 1 && !wait.forgotten, format!("{wait:?}"));
        self.must(once && so, "wait", || text);
    }

    // ---- after each step, and at the end ----------------------------------------------------

    pub fn step(&mut self, now: Instant, ledger: Ledger, counters: Counters) {
        self.dying = None;
        let fates = self.fates;
        let accepted = self.messages.len() as u64;
        let running = self.processes.values().filter(|process| !process.in_flight.is_empty()).count() as u64;
        let text = || format!("{ledger:?}; counted {fates:?}, {accepted} accepted, {running} running");
        self.must(ledger.balances() && ledger.accepted == accepted, "L1 ledger", text);
        self.must((ledger.done, ledger.failed) == (fates.done, fates.failed), "L1 ledger", text);
        self.must(ledger.running == running, "L1 ledger", text);
        let seen = [ledger.discarded, ledger.expired, ledger.dead];
        let counted = [fates.discarded, fates.expired, fates.dead];
        let fits = if self.exact { seen == counted } else { seen.iter().zip(counted).all(|(seen, own)| *seen >= own) };
        self.must(fits, "L1 ledger", text);
        let stale = self.expected_stale;
        self.must(counters.stale == stale, "stale", || format!("{counters:?}, {stale} were late"));
        let spawned = self.processes.len() as u64;
        self.must(counters.spawned == spawned, "spawned", || format!("{counters:?}, {spawned} were started"));
        let late = self.processes.iter().find(|(key, process)| {
            let timeout = self.workers.get(&key.number).and_then(|worker| worker.policy.task_timeout);
            let begun =
                process.ready && !process.in_flight.is_empty() && process.exit.is_none() && process.halted.is_none();
            let judged = process.step.is_none_or(|step| step == EndedBy::Ask) && !process.disconnected;
            timeout.is_some_and(|timeout| begun && judged && now > process.since.after(timeout * 5 / 4 + TICK_SLACK))
        });
        let late = late.map(|(key, _)| *key);
        self.must(late.is_none(), "D6", || format!("{late:?} executes a task for too long"));
        let waits =
            |message: &&Posted| message.awaited && message.fate.is_none() && message.due.is_none_or(|due| due < now);
        let given = |message: &Posted| {
            let task = message.task;
            task.is_some_and(|task| self.processes.values().any(|process| process.in_flight.contains(&task)))
        };
        let expired = |message: &&Posted| {
            let times = message.expires.into_iter().chain(message.due).chain([message.back]);
            times.max().is_some_and(|at| at.after(TICK_SLACK) < now)
        };
        let mut expired = self.messages.values().filter(waits).filter(|it| it.expires.is_some()).filter(expired);
        let expired = expired.find(|message| !given(message)).map(|message| format!("{message:?}"));
        self.must(expired.is_none(), "C13", || format!("it waits, and has expired: {expired:?}"));
        let overdue = self.processes.iter().find(|(_, process)| !process.over && process.bound < Some(now));
        let overdue = overdue.filter(|(_, process)| process.bound.is_some()).map(|(key, _)| *key);
        self.must(overdue.is_none(), "K4 bound", || format!("{overdue:?} was killed and does not end"));
    }

    /// The supervisor has stopped.
    pub fn finish(&mut self, ledger: Ledger) {
        let stopped = self.stopped;
        self.must(stopped == 1, "D8", || format!("stopped {stopped} times"));
        self.must(ledger.pending == 0 && ledger.running == 0, "L1", || format!("{ledger:?}"));
        let left = self.processes.iter().find(|(_, process)| !process.over).map(|(key, _)| *key);
        self.must(left.is_none(), "D8", || format!("{left:?} is left"));
        let open = self.messages.iter().find(|(_, message)| message.awaited && message.fate.is_none());
        let open = open.map(|(id, message)| format!("{id} has no fate: {message:?}"));
        self.must(open.is_none(), "L1", || open.unwrap());
        let untold = self.messages.iter().find(|(_, message)| {
            message.ended == Some(true)
                && !message.told
                && message.begun.is_some_and(|key| self.processes[&key].has_page)
        });
        let untold = untold.map(|(id, message)| format!("{id} was executed, says its page: {message:?}"));
        // A failure that was lost with the connection is not in the page as such; a success is.
        self.must(untold.is_none(), "exactly-once", || untold.unwrap());
        let kill = self.kills.iter().find(|kill| kill.receipts != 1 || kill.reports != u32::from(kill.wait));
        let kill = kill.map(|kill| format!("{kill:?}"));
        self.must(kill.is_none(), "K12", || kill.unwrap());
        let wait = self.waits.iter().find(|wait| !wait.forgotten && wait.reached != 1).map(|wait| format!("{wait:?}"));
        self.must(wait.is_none(), "wait", || wait.unwrap());
    }

    /// The sender of a message is told by its number; only the checker knows the numbers that ever were.
    pub fn numbers(&self) -> Vec<WorkerNumber> {
        self.workers.keys().copied().collect()
    }

    /// Nothing is pending and nothing runs: who waits for that, or for room, has been told.
    pub fn waits_are_answered(&mut self, has_room: bool) {
        let kind = |until: Until| until != Until::Gone && (has_room || until != Until::Room);
        let open = |wait: &&Wait| !wait.forgotten && kind(wait.until) && wait.reached == 0;
        let wait = self.waits.iter().find(open).map(|wait| format!("{wait:?}"));
        self.must(wait.is_none(), "wait", || format!("nobody told {wait:?}"));
    }

    /// What may be cancelled: the last of those that have no fate, as far as anybody was told.
    pub fn cancellable(&self) -> Vec<MessageId> {
        let open = self.messages.iter().rev().filter(|(_, message)| message.fate.is_none() && !message.told);
        open.map(|(id, _)| *id).take(12).collect()
    }

    /// Before what came of it is applied.
    pub fn cancelled(&mut self, id: MessageId, cancelled: &Cancelled) {
        self.dying = None;
        let text = format!("{id} is {cancelled:?}");
        let Some(message) = self.messages.get_mut(&id) else {
            return self.must(*cancelled == Cancelled::Ignored(Ignored::NoMessage), "cancel", || text);
        };
        let (task, open) = (message.task, message.fate.is_none() && !message.told);
        let sure = message.awaited;
        message.cancelled |= matches!(cancelled, Cancelled::Discarded | Cancelled::Told);
        let text = || format!("{text}: {:?}", self.messages[&id]);
        let given = task.is_some_and(|task| self.processes.values().any(|process| process.in_flight.contains(&task)));
        let so = match cancelled {
            Cancelled::Discarded => open && !given,
            Cancelled::Told => open && given,
            Cancelled::Ignored(why) => *why == Ignored::NoMessage && (!open || !sure),
            Cancelled::Refused(_) => false,
        };
        let text = text();
        self.must(so, "cancel", || text);
    }

    /// The message whose fate this token was for.
    pub fn message_of(&self, token: u64) -> Option<MessageId> {
        self.tokens.get(&token).copied()
    }

    /// The life that has begun a message last.
    pub fn executed_by(&self, id: MessageId) -> Option<ProcessKey> {
        self.messages.get(&id)?.begun
    }

    /// The arguments of a message.
    pub fn args(&self, id: MessageId) -> Option<&[u8]> {
        self.messages.get(&id).map(|message| &*message.args)
    }

    /// Whether a life is not over, as far as the core was told.
    pub fn lives(&self, key: ProcessKey) -> bool {
        self.processes.get(&key).is_some_and(|process| !process.over)
    }

    pub fn unfinished_kills(&self) -> bool {
        self.processes.values().any(|process| !process.over && process.bound.is_some())
    }
}

impl Posted {
    fn is_abandoned(&self) -> bool {
        matches!(self.fate, Some(Outcome::Dead { reason: DeadReason::Abandoned, .. }))
    }
}

impl Worker {
    fn new(name: &str, startup: Option<String>, policy: Policy) -> Worker {
        Worker {
            name: name.to_owned(),
            kept: false,
            run: false,
            closed: false,
            drain_cut: Instant::NEVER,
            paused: false,
            down: false,
            may_be_cut: false,
            startup,
            policy,
            renewed: None,
            retired: false,
            generation: 0,
            discards: 0,
        }
    }
}

/// What a method that was executed returns.
pub fn result_of(id: MessageId) -> Vec<u8> {
    format!("result {id}").into_bytes()
}

/// What one that failed reports.
pub fn error_of(id: MessageId) -> String {
    format!("error {id}")
}

pub fn key_of(event: &Event<'_>) -> ProcessKey {
    match event {
        Event::Spawned { process, .. }
        | Event::SpawnFailed { process, .. }
        | Event::Held { process, .. }
        | Event::StartFailed { process, .. }
        | Event::Ready { process, .. }
        | Event::Done { process, .. }
        | Event::DoneAll { process, .. }
        | Event::Dropped { process, .. }
        | Event::Failed { process, .. }
        | Event::Undeliverable { process, .. }
        | Event::Marked { process, .. }
        | Event::Asked { process, .. }
        | Event::Violation { process, .. }
        | Event::Disconnected { process }
        | Event::Exited { process, .. }
        | Event::TreeGone { process } => *process,
    }
}

fn rank(step: EndedBy) -> u8 {
    match step {
        EndedBy::Ask => 0,
        EndedBy::Term => 1,
        EndedBy::Kill => 2,
        EndedBy::AlreadyGone | EndedBy::OnlyEmptied => unreachable!("no step"),
    }
}

trait HigherStep {
    fn max_by_key_with(self, step: EndedBy) -> Self;
}

impl HigherStep for Option<EndedBy> {
    /// The higher of the two on the ladder.
    fn max_by_key_with(self, step: EndedBy) -> Self {
        self.filter(|before| rank(*before) >= rank(step)).or(Some(step))
    }
}
