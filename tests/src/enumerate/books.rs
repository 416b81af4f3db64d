//! What must hold in every state, from what clients and processes really did and what the core commanded. Apart from the
//! core: of its state only the ledger, the counters and the charges are read, and compared.

use std::time::Duration;

use workhall_core::{Core, Effect, Instant, Kill, KillMode, KillReceipt, Letters, Outcome, Policy, ProcessKey};
use workhall_protocol::ids::{Target, WorkerNumber};
use workhall_protocol::terms::DeadReason;

use super::config::Post;
use super::process::{Process, Task};

/// A rule that does not hold: in a word, and what was seen.
pub type Failure = (&'static str, String);

/// The tokens of messages are their places; these are of the kill and of the wait.
pub const KILL_TOKEN: u64 = 100;
pub const WAIT_TOKEN: u64 = 200;

#[derive(Clone, Debug, Hash)]
pub struct Books {
    pub messages: Vec<Message>,
    /// Who accepts what is posted to each name.
    open: [Option<u64>; 2],
    highest: u64,
    pub kill: Option<KillRecord>,
    pub wait: Option<WaitRecord>,
    /// How many tasks ended by returning and by failing, as far as the core can know.
    ended: [u64; 2],
    /// How often a message may be begun.
    attempts: u8,
    /// The class ends processes that take too long, or have nothing to do.
    ends_by_time: bool,
}

#[derive(Clone, Debug, Hash)]
pub struct Message {
    pub id: u64,
    pub number: u64,
    pub awaited: bool,
    delivered: bool,
    /// With a process whose exit is not seen.
    in_flight: bool,
    begun: u8,
    /// How it ended, once the core can know it.
    ended: Option<bool>,
    /// Who waits has been told.
    settled: bool,
    /// Its task number, once it has one.
    task: u64,
}

#[derive(Clone, Debug, Hash)]
pub struct KillRecord {
    drain: bool,
    wait: bool,
    /// Whom it was for.
    number: u64,
    receipts: u8,
    /// What the receipt said, in the step in which it came.
    told: Option<u64>,
    reports: u8,
    /// Messages of that worker that were discarded since without having run.
    discarded: u64,
}

#[derive(Clone, Debug, Hash)]
pub struct WaitRecord {
    pub reached: u8,
}

fn fail<T>(rule: &'static str, detail: String) -> Result<T, Failure> {
    Err((rule, detail))
}

fn must(holds: bool, rule: &'static str, detail: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { fail(rule, detail()) }
}

impl Books {
    pub fn new(policy: &Policy) -> Books {
        let limits = [policy.task_timeout, policy.idle_timeout];
        let ends_by_time = policy.start_timeout < Duration::MAX || limits.iter().any(Option::is_some);
        Books {
            messages: Vec::new(),
            open: [None; 2],
            highest: 1,
            kill: None,
            wait: None,
            ended: [0; 2],
            attempts: policy.attempts,
            ends_by_time,
        }
    }

    // ---- clients ------------------------------------------------------------------------------

    pub fn accepted(&mut self, name: u8, number: u64, id: u64, post: Post) -> Result<(), Failure> {
        let posted_for_later = post.after.is_some();
        match self.open[usize::from(name)] {
            Some(open) => must(number == open, "K7", || format!("{number} has the message, {open} is open"))?,
            None => must(number > self.highest, "W4", || format!("{number} after {}", self.highest))?,
        }
        self.highest = self.highest.max(number);
        self.open[usize::from(name)] = Some(number);
        let last = self.messages.last().map_or(0, |last| last.id);
        must(id > last, "C3", || format!("message {id} after {last}"))?;
        self.messages.push(Message {
            id,
            number,
            awaited: post.awaited,
            delivered: false,
            in_flight: false,
            begun: 0,
            ended: None,
            settled: false,
            task: if posted_for_later { 0 } else { id },
        });
        Ok(())
    }

    /// A kill that was posted, or ignored because there is no such worker (rule K6).
    pub fn killed(&mut self, name: u8, kill: Kill<'_>, receipt: KillReceipt) -> Result<(), Failure> {
        let open = self.open[usize::from(name)].take();
        let posted = receipt == KillReceipt::Posted;
        must(posted == open.is_some(), "K6", || format!("{open:?} is open, and its kill was {receipt:?}"))?;
        if let Some(number) = open {
            let (drain, wait) = (kill.mode == KillMode::Drain, kill.wait);
            self.kill = Some(KillRecord { drain, wait, number, receipts: 0, told: None, reports: 0, discarded: 0 });
        }
        Ok(())
    }

    /// Whether a name has a worker that takes calls.
    pub fn is_open(&self, name: u8) -> bool {
        self.open[usize::from(name)].is_some()
    }

    pub fn waits(&mut self) {
        self.wait = Some(WaitRecord { reached: 0 });
    }

    // ---- processes ----------------------------------------------------------------------------

    /// Rule K8, of all those that are there or were.
    pub fn spawns<'p>(
        &self,
        key: ProcessKey,
        name: u8,
        mut others: impl Iterator<Item = &'p Process>,
    ) -> Result<(), Failure> {
        let other = others.find(|other| other.name == name && other.is_there());
        must(other.is_none(), "K8", || {
            format!("{}.{} starts and another process of its name is there: {other:?}", key.number, key.generation)
        })?;
        let killed = self.kill.as_ref().is_some_and(|kill| kill.number == key.number.0 && !kill.drain);
        must(!killed, "K1", || format!("{} was killed and starts a process", key.number))
    }

    /// A message is handed over; returns its place.
    pub fn delivered(&mut self, process: &Process, id: u64, task: u64) -> Result<u8, Failure> {
        let number = process.key.number.0;
        must(process.is_ready, "C3", || format!("{id} is handed to a process that is not ready"))?;
        must(!process.asked && process.signal.is_none() && !process.exit_fed, "K1", || {
            format!("{id} is handed to a process that is to end")
        })?;
        let killed = self.kill.as_ref().is_some_and(|kill| kill.number == number && !kill.drain);
        must(!killed, "K1", || format!("{number} was killed and is given {id}"))?;
        let place = self.messages.iter().position(|message| message.id == id);
        let Some(place) = place else { return fail("C1", format!("{id} is handed over and was never accepted")) };
        let message = &mut self.messages[place];
        must(message.number == number, "C3", || format!("{id} is for {}, and {number} has it", message.number))?;
        must(!message.settled, "L1", || format!("{id} is handed over after its fate"))?;
        must(message.task == 0 || message.task == task, "C3", || format!("{id} was {} and is {task}", message.task))?;
        (message.delivered, message.in_flight) = (true, true);
        message.task = task;
        Ok(place as u8)
    }

    /// A task begins, in truth.
    pub fn begins(&mut self, number: u64, task: Task) -> Result<(), Failure> {
        let message = &mut self.messages[usize::from(task.message)];
        let id = message.id;
        must(!message.settled, "L1", || format!("{id} is executed after its fate"))?;
        must(message.begun < self.attempts && message.ended.is_none(), "D2", || format!("{id} is executed again"))?;
        message.begun += 1;
        // Where nobody waits, what became of an earlier one is not seen: then at least no later one has begun.
        let passed = self.messages.iter().find(|other| {
            let begun = other.begun > 0;
            let waits = other.awaited && !other.settled && other.task != 0;
            let out_of_order = if other.task < task.id { waits && !begun } else { other.task > task.id && begun };
            other.number == number && out_of_order
        });
        must(passed.is_none(), "C3", || format!("{id} begins out of order: {passed:?}"))
    }

    /// It has ended by itself, and the core will know it.
    pub fn ends(&mut self, task: Task, done: bool) {
        self.messages[usize::from(task.message)].ended = Some(done);
        self.ended[usize::from(!done)] += 1;
    }

    /// The exit of a worker's process was told.
    pub fn exited(&mut self, number: u64) {
        for message in self.messages.iter_mut().filter(|message| message.number == number) {
            message.in_flight = false;
        }
    }

    /// Time has passed, and the time to live of some is over (rule C13).
    pub fn expired(&self, over: impl Fn(usize) -> bool) -> Result<(), Failure> {
        let waits = |message: &Message| message.awaited && !message.settled && !message.in_flight && message.task != 0;
        let left = self.messages.iter().enumerate().find(|(place, message)| waits(message) && over(*place));
        must(left.is_none(), "C13", || format!("it is over and waits: {left:?}"))
    }

    // ---- what the core commands ---------------------------------------------------------------

    pub fn commanded<'p>(
        &mut self,
        effect: &Effect,
        mut processes: impl Iterator<Item = &'p Process>,
    ) -> Result<(), Failure> {
        match effect {
            Effect::Settled { reply, outcome } => self.settled(reply.token, outcome),
            Effect::Killed { reply, discarded } => {
                let exact = self.counts_discards();
                let kill = self.kill_of(reply.token)?;
                kill.receipts += 1;
                must(kill.receipts == 1, "K12", || "two receipts of one kill".into())?;
                kill.told = exact.then_some(*discarded);
                Ok(())
            }
            Effect::KillEnded { reply, report } => {
                let exact = self.counts_discards();
                self.receipts_are_true()?;
                let kill = self.kill_of(reply.token)?;
                kill.reports += 1;
                must(kill.receipts == 1 && kill.reports == 1, "K12", || format!("out of order: {kill:?}"))?;
                must(!exact || report.discarded == kill.discarded, "K12", || {
                    format!("the report says {} discarded, it was {}", report.discarded, kill.discarded)
                })?;
                let kill = kill.clone();
                self.kill = Some(KillRecord { discarded: 0, ..kill });
                let left = processes.find(|process| process.key.number.0 == kill.number && process.is_there());
                must(left.is_none(), "K12", || format!("the kill is over and {left:?} is there"))
            }
            Effect::Reached { reply } => {
                let wait = self.wait.as_mut().filter(|_| reply.token == WAIT_TOKEN);
                let Some(wait) = wait else { return fail("wait", "nobody waits".into()) };
                wait.reached += 1;
                must(wait.reached == 1, "wait", || "reached twice".into())
            }
            Effect::Ask { process: key, .. }
            | Effect::Term { process: key, .. }
            | Effect::Kill { process: key, .. } => {
                let Some(process) = processes.find(|process| process.key == *key) else { return Ok(()) };
                self.ended(process, matches!(effect, Effect::Term { .. }))
            }
            _ => Ok(()),
        }
    }

    /// A process is told to end. Nobody is without a reason; and who was killed is asked before he is sent a signal.
    fn ended(&self, process: &Process, by_term: bool) -> Result<(), Failure> {
        let killed = self.kill.as_ref().is_some_and(|kill| kill.number == process.key.number.0);
        must(killed || self.ends_by_time || !process.connected, "K3", || {
            format!("nobody wants it to end: {process:?}")
        })?;
        let asked = process.asked || !process.ready_fed || !process.connected || self.ends_by_time;
        must(asked || !by_term, "K4", || format!("it was not asked: {process:?}"))
    }

    /// A receipt says what was discarded until then and in the same step.
    pub fn receipts_are_true(&mut self) -> Result<(), Failure> {
        let Some(kill) = &mut self.kill else { return Ok(()) };
        let Some(told) = kill.told.take() else { return Ok(()) };
        let discarded = kill.discarded;
        must(told == discarded, "K12", || format!("the receipt says {told} discarded, it was {discarded}"))
    }

    /// Whether each discarded message is seen, and none of them may have run before.
    fn counts_discards(&self) -> bool {
        self.attempts == 1 && self.messages.iter().all(|message| message.awaited)
    }

    fn kill_of(&mut self, token: u64) -> Result<&mut KillRecord, Failure> {
        match &mut self.kill {
            Some(kill) if token == KILL_TOKEN => Ok(kill),
            _ => fail("K12", format!("a receipt to {token}, where nobody kills")),
        }
    }

    fn settled(&mut self, token: u64, outcome: &Outcome) -> Result<(), Failure> {
        let attempts = self.attempts;
        let Some(message) = self.messages.get_mut(token as usize) else {
            return fail("L1", format!("a fate for {token}, which was never accepted"));
        };
        let what = format!("{message:?} is {outcome:?}");
        must(!message.settled && message.awaited, "L1", || format!("a second fate: {what}"))?;
        let Message { number, ended, begun, delivered, task, .. } = *message;
        // How it came to its fate tells two states apart no more.
        *message = Message { delivered: false, in_flight: false, begun: 0, ended: None, settled: true, ..*message };
        let never_begun = |may_have_run| may_have_run || begun == 0;
        let killed = self.kill.as_mut().filter(|kill| kill.number == number);
        match outcome {
            Outcome::Done { result } => {
                must(ended == Some(true), "L1", || what.clone())?;
                must(**result == task.to_le_bytes(), "S5", || format!("with another result: {what}"))
            }
            Outcome::Failed { .. } => must(ended == Some(false), "D3", || what),
            _ if ended.is_some() => fail("L1", format!("it had ended by itself: {what}")),
            Outcome::Discarded { may_have_run } => {
                must(never_begun(*may_have_run), "L2", || what.clone())?;
                match killed {
                    Some(kill) => kill.discarded += u64::from(!may_have_run),
                    None => return fail("K2", format!("nobody has killed it: {what}")),
                }
                Ok(())
            }
            Outcome::Expired { may_have_run } => must(never_begun(*may_have_run), "L2", || what),
            Outcome::Dead { reason, may_have_run, .. } => {
                must(never_begun(*may_have_run), "L2", || what.clone())?;
                let fits = match reason {
                    DeadReason::Crashed => attempts == 1 && delivered,
                    DeadReason::Poison => attempts > 1 && delivered,
                    DeadReason::TimedOut => delivered,
                    DeadReason::NeverStarted => true,
                    DeadReason::Abandoned | DeadReason::Expired => false,
                };
                must(fits, "D2", || what)
            }
        }
    }

    // ---- states -------------------------------------------------------------------------------

    /// After every step.
    pub fn check(&self, core: &Core) -> Result<(), Failure> {
        let ledger = core.ledger();
        let accepted = self.messages.len() as u64;
        must(ledger.balances() && ledger.accepted == accepted, "L1", || format!("{ledger:?}"))?;
        let violations = core.counters().violations;
        must(violations == 0, "violations", || "the core says that a process lied, and none does".into())?;
        let charged = core.charges().map(|(_, charge)| charge.messages).sum::<u64>();
        must(charged == ledger.pending + ledger.running, "quota", || format!("{charged} are charged, {ledger:?}"))?;
        let letters = core.dead_letters(Letters::All).count() as u64;
        must(letters == ledger.dead + ledger.expired, "dead letters", || format!("{letters} letters, {ledger:?}"))
    }

    /// When nothing more will happen by itself.
    pub fn check_end(&self, core: &Core) -> Result<(), Failure> {
        let ledger = core.ledger();
        must(ledger.pending + ledger.running == 0, "L1", || format!("not all has its fate: {ledger:?}"))?;
        let untold = self.messages.iter().find(|message| message.awaited && !message.settled);
        must(untold.is_none(), "L1", || format!("nobody was told: {untold:?}"))?;
        let [done, failed] = self.ended;
        must((ledger.done, ledger.failed) == (done, failed), "L1", || {
            format!("{done} have returned and {failed} have failed, {ledger:?}")
        })?;
        if let Some(kill) = &self.kill {
            must((kill.receipts, kill.reports) == (1, u8::from(kill.wait)), "K12", || {
                format!("no receipt or no report: {kill:?}")
            })?;
            let there = core.worker(Instant::default(), Target::Number(WorkerNumber(kill.number))).is_some();
            must(!there, "K1", || format!("{} was killed and is there", kill.number))?;
        }
        match &self.wait {
            Some(wait) => must(wait.reached == 1, "wait", || "it is so, and nobody was told".into()),
            None => Ok(()),
        }
    }
}
