//! Processes that execute one method and end with it (rule P1).
//!
//! A run is a worker of a kind of its own, drained from the first: it has one message, and when that has its fate its
//! process is asked to end, and it is gone. So a kill, a pause, the limits, the gate and the ledger are those of any worker.
//! It is nobody's to call (rule W8): a call by its number names nobody (rule C8), and a call by its name is refused,
//! because a worker of that name cannot be created beside it (rule K8).
//!
//! It has as many lives as its class gives a message attempts (rule D2), one unless the class says more: a process that
//! cannot be started is not tried for ever, as there is nobody who could call again.

use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;

use workhall_protocol::ids::{MessageId, Target, WorkerName, WorkerNumber};
use workhall_protocol::terms::{DeadReason, Exit, Ignored, Refusal};

use crate::dead_letters::Fate;
use crate::event::{AccountId, Call, ProcessKey, ReplyTo};
use crate::kind::Kind;
use crate::ledger::Place;
use crate::mailbox::{Identity, Posted};
use crate::policy::Policy;
use crate::registry::{Core, Refused};
use crate::time::Instant;
use crate::worker::{Goal, Life, Worker};

/// A request to start a process for one method.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Its name; one is made if there is none.
    pub name: Option<&'a str>,
    /// If one of this name runs already, its number is the answer.
    pub unique: bool,
    /// Empty is the startup method of the class.
    pub method: &'a str,
    /// Opaque.
    pub args: &'a [u8],
    /// The process that asks, known from its connection; none for a client.
    pub from: Option<ProcessKey>,
    /// Who is charged for the message.
    pub account: AccountId,
    /// Who waits for the outcome.
    pub reply: Option<ReplyTo>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunReceipt {
    /// It is about to be started.
    Accepted {
        /// Its name.
        name: WorkerName,
        /// Its number.
        number: WorkerNumber,
        /// The id of its one message.
        message: MessageId,
    },
    /// One of this name is there already, and nothing was started.
    Running {
        /// Its name.
        name: WorkerName,
        /// Its number.
        number: WorkerNumber,
    },
    /// By the rules nothing is to be done.
    Ignored(Ignored),
    /// Nothing has happened.
    Refused(Refused),
}

impl Core {
    /// Starts a process under a class, which executes one method and ends with it (rule P1).
    pub fn run(&mut self, now: Instant, run: Run<'_>, policy: Arc<Policy>) -> RunReceipt {
        self.now = now;
        let class = policy.clone();
        let receipt = self.try_run(now, run, policy).unwrap_or_else(|refused| {
            self.note_refused(&refused, Target::Name(run.name.unwrap_or_default()), Some(&class));
            RunReceipt::Refused(refused)
        });
        self.counters.ignored += u64::from(matches!(receipt, RunReceipt::Ignored(_)));
        self.finish_step();
        receipt
    }

    fn try_run(&mut self, now: Instant, run: Run<'_>, policy: Arc<Policy>) -> Result<RunReceipt, Refused> {
        if self.stopping.is_some() {
            return Err(Refused::new(Refusal::ShuttingDown, "the supervisor is stopping"));
        }
        let from = match run.from.map(|process| (process, self.workers.seat(process.index as usize))) {
            None => None,
            Some((process, Some(seat))) if seat.number() == process.number => Some(Arc::new(seat.identity())),
            Some(_) => return Ok(RunReceipt::Ignored(Ignored::NoWorker)),
        };
        let made = run.name.is_none().then(|| self.make_name(&policy.class));
        let name = run.name.or(made.as_deref()).unwrap_or_default();
        let checked = WorkerName::new(name).map_err(|error| Refused::new(Refusal::BadName, error.to_string()))?;
        if let Some(worker) = self.find_name(name).and_then(|index| self.workers.get(index as usize))
            && (run.unique && worker.kind == Kind::Run && worker.goal != Goal::Down)
        {
            return Ok(RunReceipt::Running { name: checked, number: worker.identity.number });
        }
        self.check_free(name)?;
        let startup = policy.startup_method.clone().filter(|_| run.method.is_empty());
        let method = startup.as_deref().unwrap_or(run.method);
        if method.is_empty() {
            return Ok(RunReceipt::Ignored(Ignored::NoStartupMethod));
        }
        let call = Call {
            target: Target::Name(name),
            method: run.method,
            args: run.args,
            from: run.from,
            existing: false,
            expires: None,
            after: None,
            account: run.account,
            reply: run.reply,
        };
        self.check_size(&call)?;
        self.check_room(0, 0, &policy, method, &call)?;
        self.check_places(true, &call)?;
        self.check_workers()?;
        // Nothing can fail any more.
        let number = self.take_number();
        let index = self.create(now, Identity { name: checked.clone(), number }, policy);
        let worker = &mut self.workers[index as usize];
        (worker.kind, worker.goal) = (Kind::Run, Goal::Drain);
        let id = self.take_message_id();
        let mut posted = Posted::new(id, now, method, run.args);
        posted.from = from;
        posted.envelope.reply = run.reply;
        self.accept(now, index, posted, run.account, None);
        Ok(RunReceipt::Accepted { name: checked, number, message: id })
    }

    /// A name that nobody has: with the number that it will have, or a later one.
    fn make_name(&mut self, class: &str) -> alloc::string::String {
        loop {
            let name = format!("{class}/run-{}", self.next_number());
            if self.find_name(&name).is_none() {
                return name;
            }
            self.take_number();
        }
    }

    /// Whether a name may be taken by one that no call creates: nobody has it. A worker without a process has it too, with
    /// its number, its startup method and what its crashes have led to: only a kill ends that.
    pub(crate) fn check_free(&mut self, name: &str) -> Result<(), Refused> {
        let Some(index) = self.find_awake(Target::Name(name)) else { return Ok(()) };
        let worker = &self.workers[index as usize];
        let (number, messages) = (worker.identity.number, worker.messages());
        let detail = match (worker.kind, &worker.life) {
            (Kind::Attached, _) => format!("`{name}` is the name of {number}, which is attached"),
            (Kind::Run, _) => format!("`{name}` is the name of {number}, which runs"),
            (Kind::Main | Kind::Boot, _) => {
                format!("`{name}` is the name of {number}, which the configuration keeps running")
            }
            (Kind::Called, Some(_)) => format!("`{name}` is the name of {number}, which has a process"),
            (Kind::Called, None) if messages == 1 => {
                format!("`{name}` is the name of {number}, for which 1 message waits")
            }
            (Kind::Called, None) if messages > 0 => {
                format!("`{name}` is the name of {number}, for which {messages} messages wait")
            }
            (Kind::Called, None) => {
                format!("`{name}` is the name of {number}, a worker without a process: a kill makes the name free")
            }
        };
        Err(Refused::new(Refusal::NameTaken, detail))
    }

    /// A life of a run is over. What it has not begun has no other, unless its class gives it more; else it would wait
    /// for a process for which nobody can ask.
    pub(crate) fn end_run(&mut self, now: Instant, index: u32, exit: Option<Exit>) {
        let worker = &self.workers[index as usize];
        if worker.kind != Kind::Run || worker.generation.0 < u64::from(worker.policy.attempts) {
            return;
        }
        while let Some(message) = self.workers[index as usize].mailbox.pop_any(&mut self.bodies) {
            let may_have_run = message.may_have_run();
            let reason = if may_have_run { DeadReason::Poison } else { DeadReason::NeverStarted };
            self.bury(now, index, message, Place::Pending, Fate { reason, exit, may_have_run });
        }
    }

    /// The classes of all that run, each perhaps several times: a new configuration leaves them to these.
    pub fn classes_of_runs(&self) -> impl Iterator<Item = &str> {
        self.workers.iter().filter(|(_, worker)| worker.kind == Kind::Run).map(|(_, worker)| &*worker.policy.class)
    }
}

impl Worker {
    /// Whether it ends because its method has ended, and not because somebody has killed it.
    pub fn ran(&self, life: Option<&Life>) -> bool {
        self.kind == Kind::Run && (self.goal != Goal::Down || life.is_some_and(|life| life.idled))
    }
}
