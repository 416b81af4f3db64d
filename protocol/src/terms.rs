//! The closed vocabularies that the core and the wire share. `no_std`, like [`crate::ids`].

use core::fmt;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(bincode::Encode, bincode::BorrowDecode))]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(bincode::Encode, bincode::BorrowDecode))]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Until {
    /// Nothing is executed and nothing is pending.
    Idle,
    /// There is no process, and none is about to be started.
    Gone,
    /// Nothing is pending (a task may still be running).
    Empty,
    /// The mailbox has room again after it was full: at most half of its limits is in use, and of the limits for
    /// this sender and for all.
    Room,
}

/// Why nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(bincode::Encode, bincode::BorrowDecode))]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Ignored {
    /// The name or number has no worker (rules C8, C12, K6).
    NoWorker,
    /// The number's worker was killed and is ending.
    Ending,
    /// An empty method, and the worker has no startup method (rule C6).
    NoStartupMethod,
    /// A killed worker's own process called itself (rule K9).
    OwnKilledWorker,
    /// There is no dead letter of that message.
    NoLetter,
    /// There is no such signal, or it was freed (rule S4).
    NoSignal,
    /// No such message is pending or executed.
    NoMessage,
    /// The signal was triggered: its values do not change any more (rule S4).
    AlreadyTriggered,
}

/// Why a call was refused (rule C4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(bincode::Encode, bincode::BorrowDecode))]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Refusal {
    /// No class matches the name (rule W9).
    NoClass,
    /// Not a name (rule W2).
    BadName,
    /// The worker's mailbox, or the supervisor's memory for all of them, is full.
    MailboxFull,
    /// The message is larger than the configuration allows.
    TooLarge,
    /// The sender may not.
    NotPermitted,
    /// The supervisor is stopping (rule D8).
    ShuttingDown,
    /// The worker is paused after too many crashes and its class refuses calls meanwhile.
    CrashLoop,
    /// Of a process that wants a name which another has (rules P1, P2).
    NameTaken,
}

/// Why a message is a dead letter (rule L1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(bincode::Encode, bincode::BorrowDecode))]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum DeadReason {
    /// Its process died while executing it.
    Crashed,
    /// It killed its process too often.
    Poison,
    /// It ran into its time limit.
    TimedOut,
    /// Its process could not be started.
    NeverStarted,
    /// The supervisor was stopped, or the attached worker has left.
    Abandoned,
    /// It was not started in time (rule C13). Only of a letter: the outcome itself is `expired`.
    Expired,
}

/// How far the start of a process had come when it failed (rule D5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum StartStage {
    /// What it needs could not be made: its connection, its control group, what its class sets.
    Setup,
    /// Its program could not be executed.
    Exec,
    /// It ended before it was ready.
    EndedBeforeReady,
    /// It was not ready in time.
    NotReadyInTime,
}

/// How long each step of a kill took, in milliseconds; null for a step that was not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(bincode::Encode, bincode::BorrowDecode))]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Steps {
    /// From asking until the end or the next step; includes the current task.
    pub ask_ms: Option<u64>,
    /// From SIGTERM until the end or the next step.
    pub term_ms: Option<u64>,
    /// From SIGKILL until the end.
    pub kill_ms: Option<u64>,
}

/// What became of the task that was running at the kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(bincode::Encode, bincode::BorrowDecode))]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Current {
    /// None was running.
    None,
    /// It ended in its own time.
    Finished,
    /// Its process was ended before it did.
    Interrupted,
}

/// Which step ended a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(bincode::Encode, bincode::BorrowDecode))]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum EndedBy {
    /// The protocol message.
    Ask,
    /// SIGTERM.
    Term,
    /// SIGKILL.
    Kill,
    /// There was no process.
    AlreadyGone,
    /// Nothing was ended: a worker that no call created is only emptied (rule K10).
    OnlyEmptied,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit status {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}
