//! The answers to `list`, `info` and `status`: made by the daemon, shown by the command line.
//! Keys are only ever added.

use serde::{Deserialize, Serialize};
use workhall_core::{LastExit, State, WorkerView};
use workhall_protocol::terms::Exit;

/// One row of `workhall ps`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerRow {
    /// The name.
    pub name: String,
    /// The number.
    pub number: u64,
    /// The class.
    pub class: String,
    /// `absent`, `starting`, `idle`, `busy`, `ending`, `backoff`.
    pub state: String,
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
    /// What an empty method executes (rule C5).
    pub startup_method: Option<String>,
    /// Bytes of its messages, and the limits of its mailbox.
    pub mailbox: MailboxReport,
    /// How long the process lives.
    pub process_age_ms: Option<u64>,
    /// How the last life ended.
    pub last_exit: Option<ExitReport>,
    /// Deaths in a row without a healthy life between.
    pub failures_in_a_row: u16,
    /// Until the next start, in backoff.
    pub next_start_in_ms: Option<u64>,
    /// Things the current process said that it must not say.
    pub violations: u64,
    /// The last of them.
    pub last_violation: Option<String>,
    /// The program and its arguments.
    pub exec: Vec<String>,
    /// Workers of the same name that wait behind this one or end before it, by number.
    pub line: Vec<u64>,
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

/// How a life ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExitReport {
    /// Which life.
    pub generation: u64,
    /// How; null if no process ever ran.
    pub exit: Option<Exit>,
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
    pub ledger: LedgerReport,
    /// Calls refused; not accepted, so not in the ledger.
    pub refused: u64,
    /// Calls and kills ignored by the rules; not in the ledger.
    pub ignored: u64,
    /// How many workers, processes and connections there are.
    pub counts: Counts,
    /// The bounds.
    pub limits: LimitsReport,
    /// How left-over children of workers are found (rule K8).
    pub process_tree: String,
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
    /// Whether they may kill.
    pub may_kill: bool,
    /// Whether they may administer.
    pub may_administer: bool,
}

/// Rule L1.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct LedgerReport {
    /// All that were ever accepted: the sum of the others up to `running`.
    pub accepted: u64,
    /// The method returned.
    pub done: u64,
    /// The method reported an error.
    pub failed: u64,
    /// By kill.
    pub discarded: u64,
    /// Not started in time.
    pub expired: u64,
    /// Dead letters.
    pub dead: u64,
    /// Waiting.
    pub pending: u64,
    /// Being executed.
    pub running: u64,
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
    /// The most workers.
    pub workers: u64,
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

/// The word for a state.
pub fn state_word(state: State) -> &'static str {
    match state {
        State::Absent => "absent",
        State::Starting => "starting",
        State::Idle => "idle",
        State::Busy => "busy",
        State::Ending => "ending",
        State::Backoff => "backoff",
    }
}

impl WorkerRow {
    /// A row of a worker whose process, if any, has this id.
    pub fn new(view: &WorkerView<'_>, pid: Option<i32>) -> WorkerRow {
        WorkerRow {
            name: view.identity.name.to_string(),
            number: view.identity.number.0,
            class: view.class.to_string(),
            state: state_word(view.state).to_string(),
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
    pub fn new(exit: &LastExit, now: workhall_core::Instant) -> ExitReport {
        ExitReport {
            generation: exit.generation.0,
            exit: exit.exit,
            failure: exit.failure.as_deref().map(str::to_string),
            ago_ms: now.since(exit.at).as_millis() as u64,
        }
    }
}
