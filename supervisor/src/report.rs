//! The answers to `list`, `info`, `status` and `dead`: made by the daemon, shown by the command line.
//! Keys are only ever added.

mod kept;
mod limits;
mod tree;
mod words;

use serde::{Deserialize, Serialize};
use workhall_core::{AccountId, Charge, DeadLetter, Instant, LastExit, Ledger, WorkerView};
use workhall_protocol::terms::{DeadReason, EndedBy, Exit, StartStage};

use crate::access::{Account, Owner};
use crate::clock::Clock;
pub(crate) use kept::kept;
pub use kept::{EventsReport, LinesReport};
pub use limits::ClassLimits;
pub use tree::TreeReport;
pub use words::state_word;
use words::{state_number, type_number};

mod changes;

pub use changes::{Change, ReloadReport, UpgradeReport, WorkersReport};

/// One row of `workhall ps`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerRow {
    /// The name.
    pub name: String,
    /// The number.
    pub number: u64,
    /// Its place among the workers, which it keeps: what `after` of a page means.
    pub at: u64,
    /// The class.
    pub class: String,
    /// `worker`, `main`, `boot`, `run`, `attached`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The same by 4D's number (rule P3).
    #[serde(default)]
    pub type_number: i32,
    /// `absent`, `starting`, `idle`, `busy`, `ending`, `backoff`, `paused`.
    pub state: String,
    /// The same by 4D's number (rule P3).
    #[serde(default)]
    pub state_number: i32,
    /// When it was created, in milliseconds since 1970: counted back from the wall clock as it is now, so two answers may
    /// differ by one.
    #[serde(default)]
    pub created_ms: u64,
    /// For how long an operator has paused it; null if none has.
    #[serde(default)]
    pub paused_ms: Option<u64>,
    /// The process, if there is one.
    pub pid: Option<i32>,
    /// The current life, else the last.
    pub generation: u64,
    /// Messages that wait.
    pub pending: u64,
    /// What is executed.
    pub running: Option<RunningRow>,
    /// Tasks that ended by themselves.
    pub executed: u64,
    /// Deaths that nobody asked for.
    pub crashes: u64,
    /// How long the worker exists.
    pub age_ms: u64,
    /// It was killed or is drained: calls by name go to its successor.
    pub closed: bool,
}

/// The task that is executed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunningRow {
    /// Its message.
    pub message: u64,
    /// Its method.
    pub method: String,
    /// For how long.
    pub age_ms: u64,
}

/// `workhall info`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// The row of `ps`.
    #[serde(flatten)]
    pub row: WorkerRow,
    /// No other life has the same, of this supervisor and of others on the machine (rule P3).
    #[serde(default)]
    pub unique_id: String,
    /// The processor time of the present life; null without a process, and of one that is attached.
    #[serde(default)]
    pub cpu_ms: Option<u64>,
    /// The share of one processor that this is of its age.
    #[serde(default)]
    pub cpu_share: Option<f64>,
    /// For how long the worker is in its state.
    #[serde(default)]
    pub state_ms: u64,
    /// Why it has no process, for people; null if it has one.
    #[serde(default)]
    pub why: Option<String>,
    /// How far the end of its process has come; null if it is not to end.
    #[serde(default)]
    pub ending: Option<EndingReport>,
    /// The processes that it has, and what they use; null without any.
    #[serde(default)]
    pub tree: Option<TreeReport>,
    /// What an empty method executes (rule C5).
    pub startup_method: Option<String>,
    /// Bytes of its messages, and the limits of its mailbox.
    pub mailbox: MailboxReport,
    /// The age of the message that waits first.
    pub oldest_age_ms: Option<u64>,
    /// How long the process lives.
    pub process_age_ms: Option<u64>,
    /// How the last life ended.
    pub last_exit: Option<ExitReport>,
    /// How the last ten ended, the newest first.
    pub exits: Vec<ExitReport>,
    /// Deaths in a row without a healthy life between.
    pub failures_in_a_row: u16,
    /// Until the next start, at the earliest, in backoff or paused after crashes.
    pub next_start_in_ms: Option<u64>,
    /// Who keeps the next process from starting; null if nobody does.
    #[serde(default)]
    pub waits_for: Option<String>,
    /// It waits for a free place among the processes.
    pub queued: bool,
    /// Things its processes said that they must not say.
    pub violations: u64,
    /// The last of them.
    pub last_violation: Option<String>,
    /// The last ten of them, the newest first.
    pub last_violations: Vec<ViolationReport>,
    /// What its class allows.
    pub limits: ClassLimits,
    /// The program and its arguments.
    pub exec: Vec<String>,
    /// The file that says so: the configuration, or the program in the workers directory.
    #[serde(default)]
    pub from: Option<String>,
    /// Workers of the same name that wait behind this one or end before it, by number.
    pub line: Vec<u64>,
    /// Its process was started under an older configuration of its class.
    #[serde(default)]
    pub outdated: bool,
    /// No class has its name since the configuration was changed: it takes nothing new.
    #[serde(default)]
    pub retired: bool,
}

/// How far the end of a process has come (rule K4).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct EndingReport {
    /// `ask`, `term` or `kill`.
    pub step: EndedBy,
    /// For how long this step lasts.
    pub step_ms: u64,
    /// Until the next step, or until SIGKILL is sent again; null while a task without a limit runs.
    #[serde(default)]
    pub next_step_in_ms: Option<u64>,
}

/// Bytes of messages, and the limits of a mailbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MailboxReport {
    /// Charged for all messages.
    pub bytes: u64,
    /// The most messages.
    pub messages_max: u64,
    /// The most bytes.
    pub bytes_max: u64,
}

/// Something that a process must not say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ViolationReport {
    /// Which life said it.
    pub generation: u64,
    /// What, for people.
    pub said: String,
}

/// How a life ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExitReport {
    /// Which life.
    pub generation: u64,
    /// How; null if no process ever ran.
    pub exit: Option<Exit>,
    /// How far the start had come, if that is what failed; else null (rule D5).
    #[serde(default)]
    pub stage: Option<StartStage>,
    /// What went wrong at the start, if that is why.
    pub failure: Option<String>,
    /// How long ago.
    pub ago_ms: u64,
}

/// `workhall status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusReport {
    /// Of the program.
    pub version: String,
    /// Of the supervisor.
    pub pid: u32,
    /// Since its start.
    pub uptime_ms: u64,
    /// Where it listens.
    pub socket: String,
    /// Its file; null without.
    pub config: Option<String>,
    /// The directory whose executables are classes; null without.
    pub workers_dir: Option<String>,
    /// The names of the classes.
    pub classes: Vec<String>,
    /// Rule L1.
    pub ledger: Ledger,
    /// Calls refused; not accepted, so not in the ledger.
    pub refused: u64,
    /// Calls and kills ignored by the rules; not in the ledger.
    pub ignored: u64,
    /// How many workers, processes and connections there are.
    pub counts: Counts,
    /// Dead letters that are kept, and those that had to leave.
    pub dead_letters: DeadTotalsReport,
    /// Lines that workers wrote.
    #[serde(default)]
    pub logs: LinesReport,
    /// What happened to workers and messages.
    #[serde(default)]
    pub events: EventsReport,
    /// Who is charged for how much of what waits, the largest first.
    pub senders: Vec<SenderReport>,
    /// The bounds.
    pub limits: LimitsReport,
    /// How left-over children of workers are found (rule K8): `cgroup` or `subreaper`.
    pub process_tree: String,
    /// Why not by control groups; null where it is by them.
    #[serde(default)]
    pub why_not_cgroup: Option<String>,
    /// What classes set and this machine does not enforce, one sentence each.
    #[serde(default)]
    pub not_enforced: Vec<String>,
    /// The supervisor is on its way to stop.
    pub stopping: bool,
    /// Who asks, and what they may do.
    pub asker: AskerReport,
}

/// Who asks, as the kernel says, and what they may do by the configuration.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct AskerReport {
    /// The user.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// How many connections they have.
    pub connections: u64,
    /// How many they may have: root and the own user all. None from an earlier supervisor.
    #[serde(default)]
    pub connections_max: Option<u64>,
    /// Whether they may kill.
    pub may_kill: bool,
    /// Whether they may administer.
    pub may_administer: bool,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Counts {
    /// Workers.
    pub workers: u64,
    /// Processes that were started and are not proved gone.
    pub processes: u64,
    /// Connections of clients.
    pub clients: u64,
    /// Processes started since the supervisor's start.
    pub spawned: u64,
    /// Things that old lives said too late.
    pub stale: u64,
    /// Things that processes said and must not say; `info` has them by worker.
    pub violations: u64,
}

/// Dead letters as a whole.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct DeadTotalsReport {
    /// That are kept.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// That left because there were too many.
    pub dropped: u64,
}

/// A sender who is charged for messages that wait or run, or for signals.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SenderReport {
    /// The user whose clients sent them; null for a worker.
    pub user: Option<u64>,
    /// The number of the worker that sent them; null for clients.
    pub worker: Option<u64>,
    /// Messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Signals that they have made.
    #[serde(default)]
    pub signals: u64,
}

/// `workhall dead list`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadReport {
    /// All letters that are kept.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that left because there were too many.
    pub dropped: u64,
    /// The most letters.
    pub messages_max: u64,
    /// The most bytes.
    pub bytes_max: u64,
    /// How many are for the worker that was asked for.
    pub matching: u64,
    /// The last of those that died, in the order in which they died.
    pub letters: Vec<DeadRow>,
}

/// One dead letter, without its arguments.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadRow {
    /// Its place: those that died before have smaller ones. None from an earlier supervisor.
    #[serde(default)]
    pub at: Option<u64>,
    /// Its message.
    pub message: u64,
    /// The worker it was for.
    pub worker: String,
    /// That worker's number.
    pub number: u64,
    /// The life it died with, or the last before; 0 if there was none.
    pub generation: u64,
    /// Its method.
    pub method: String,
    /// Bytes of its method and arguments.
    pub bytes: u64,
    /// Why it is one.
    pub reason: DeadReason,
    /// How its process ended, if it had one.
    pub exit: Option<Exit>,
    /// Rule L2.
    pub may_have_run: bool,
    /// When it was accepted.
    pub accepted_ago_ms: u64,
    /// When it died.
    pub died_ago_ms: u64,
}

/// The bounds of the whole.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct LimitsReport {
    /// Of one message, in bytes.
    pub message_bytes: u64,
    /// Bytes of all messages there are.
    pub total_bytes_used: u64,
    /// The most.
    pub total_bytes: u64,
    /// Messages that wait or run.
    pub total_messages_used: u64,
    /// The most.
    pub total_messages: u64,
    /// The most of one sender.
    pub sender_messages: u64,
    /// The most bytes of one sender.
    pub sender_bytes: u64,
    /// Signals there are.
    pub signals_used: u64,
    /// The most of one sender.
    pub sender_signals: u64,
    /// The most workers.
    pub workers: u64,
    /// Processes that are there or about to be started.
    pub processes_used: u64,
    /// The most.
    pub processes: u64,
    /// Workers that wait for a place among them.
    pub processes_queued: u64,
    /// The most dead letters.
    pub dead_messages: u64,
    /// The most bytes of them.
    pub dead_bytes: u64,
    /// The most connections of clients.
    pub connections: u64,
    /// The most of one user, but for root and the supervisor's own.
    pub connections_per_user: u64,
    /// The most bytes of answers that one user, or one worker, may leave unread.
    pub unread_bytes_per_user: u64,
    /// The most bytes of messages that one user may have begun and not finished.
    pub unfinished_bytes_per_user: u64,
    /// The most open descriptors of the supervisor.
    pub descriptors: u64,
}

impl WorkerRow {
    /// A row of a worker whose process, if any, has this id.
    pub fn new(view: &WorkerView<'_>, pid: Option<i32>) -> WorkerRow {
        WorkerRow {
            at: view.place.into(),
            name: view.identity.name.to_string(),
            number: view.identity.number.0,
            class: view.class.to_string(),
            kind: view.kind.word().to_string(),
            type_number: type_number(view.kind).number(),
            state_number: state_number(view).number(),
            created_ms: Clock::wall_ms().saturating_sub(view.age.as_millis() as u64),
            state: state_word(view.state).to_string(),
            paused_ms: view.suspended.map(|paused| paused.as_millis() as u64),
            pid,
            generation: view.generation.0,
            pending: view.pending,
            running: view.running.map(|running| RunningRow {
                message: running.id.0,
                method: running.method.to_string(),
                age_ms: running.age.as_millis() as u64,
            }),
            executed: view.executed,
            crashes: view.crashes,
            age_ms: view.age.as_millis() as u64,
            closed: view.closed,
        }
    }
}

impl ExitReport {
    /// As seen `now`.
    pub fn new(exit: &LastExit, now: Instant) -> ExitReport {
        ExitReport {
            generation: exit.generation.0,
            exit: exit.exit,
            stage: exit.stage,
            failure: exit.failure.as_deref().map(str::to_string),
            ago_ms: now.since(exit.at).as_millis() as u64,
        }
    }
}

impl SenderReport {
    /// The account's number says who it is.
    pub fn new(account: AccountId, charge: Charge, signals: u64) -> SenderReport {
        let (user, worker) = match Account::owner(account) {
            Owner::User(user) => (Some(user), None),
            Owner::Worker(worker) => (None, Some(worker)),
        };
        SenderReport { user, worker, messages: charge.messages, bytes: charge.bytes, signals }
    }
}

impl DeadRow {
    /// As seen `now`.
    pub fn new(letter: &DeadLetter, now: Instant) -> DeadRow {
        let message = &letter.message;
        DeadRow {
            at: Some(letter.place()),
            message: message.id.0,
            worker: letter.worker.name.to_string(),
            number: letter.worker.number.0,
            generation: letter.generation.0,
            method: message.method().to_string(),
            bytes: (message.method().len() + message.args().len()) as u64,
            reason: letter.reason,
            exit: letter.exit,
            may_have_run: letter.may_have_run,
            accepted_ago_ms: now.since(message.accepted).as_millis() as u64,
            died_ago_ms: now.since(letter.died).as_millis() as u64,
        }
    }
}
