//! What comes in: requests of callers, and facts about processes.

use alloc::boxed::Box;
use core::num::NonZeroU64;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use workhall_protocol::ids::{Generation, MessageId, Target, WorkerNumber};
use workhall_protocol::terms::{Exit, Ignored, StartStage};

use crate::registry::Refused;

/// One life of one worker. Facts carry it, so that what comes late from an old life is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessKey {
    /// The worker's place in the registry; meaningful together with the number only.
    pub index: u32,
    /// The worker.
    pub number: WorkerNumber,
    /// Which life.
    pub generation: Generation,
}

/// Where an answer goes. Opaque to the core: the shell's connection and the request on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReplyTo {
    /// Which connection.
    pub connection: NonZeroU64,
    /// Which request.
    pub token: u64,
}

/// How far a process has come, read from the page it shares with the supervisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The last task it has begun.
    pub begun: MessageId,
    /// All tasks up to this one have ended.
    pub finished: MessageId,
}

/// Who is charged for a message. Opaque to the core but for its equality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountId(pub u64);

/// A request to post a message.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Whom for.
    pub target: Target<'a>,
    /// Empty is the startup method.
    pub method: &'a str,
    /// Opaque.
    pub args: &'a [u8],
    /// The process that calls, known from its connection; none for a client.
    pub from: Option<ProcessKey>,
    /// Only if the worker exists (rule C12).
    pub existing: bool,
    /// Time to live (rule C13).
    pub expires: Option<Duration>,
    /// It enters the mailbox after so long (rule C13).
    pub after: Option<Duration>,
    /// Who is charged for it.
    pub account: AccountId,
    /// Who waits for the outcome.
    pub reply: Option<ReplyTo>,
}

/// What became of a call (rule C4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallReceipt {
    /// It is in the mailbox.
    Accepted {
        /// The worker.
        number: WorkerNumber,
        /// Its id.
        message: MessageId,
    },
    /// By the rules nothing is to be done.
    Ignored(Ignored),
    /// Nothing has happened.
    Refused(Refused),
}

/// How to kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillMode {
    /// Ask, then Term, then Kill.
    Ladder,
    /// First execute what is pending (rule K13).
    Drain,
    /// Start at Kill (rule K4).
    Now,
}

/// A request to kill.
#[derive(Clone, Copy, Debug)]
pub struct Kill<'a> {
    /// Whom: by name all of that name, by number that worker only.
    pub target: Target<'a>,
    /// How.
    pub mode: KillMode,
    /// How long the current task may still take; with drain, how long all of it may take.
    pub within: Option<Duration>,
    /// Where the receipt goes.
    pub reply: Option<ReplyTo>,
    /// Whether the full receipt is wanted too.
    pub wait: bool,
}

/// What became of a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReceipt {
    /// The receipt follows as an effect, once it is known what is discarded.
    Posted,
    /// There is no such worker (rule K6).
    Ignored(Ignored),
}

/// A fact about a process.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The process runs.
    Spawned {
        /// Which.
        process: ProcessKey,
        /// The shell's own index for it; comes back with the effects.
        slot: u32,
    },
    /// There will be no process.
    SpawnFailed {
        /// Which.
        process: ProcessKey,
        /// How far it had come.
        stage: StartStage,
        /// The reason, for people.
        detail: Box<str>,
    },
    /// The process runs, but will never execute its program; `Exited` follows. Says nothing of one that is ready.
    StartFailed {
        /// Which.
        process: ProcessKey,
        /// How far it had come.
        stage: StartStage,
        /// The reason, for people.
        detail: Box<str>,
    },
    /// There is no process yet: the kernel holds the name for a process of an earlier supervisor (rule D7).
    /// Neither a start nor a crash.
    Held {
        /// Which.
        process: ProcessKey,
        /// Who holds it, for people.
        detail: Box<str>,
    },
    /// It has said that all tasks up to one are done: each has returned, and what is of no use to anybody.
    DoneAll {
        /// Which.
        process: ProcessKey,
        /// The last of them.
        id: MessageId,
    },
    /// It has said that it is ready.
    Ready {
        /// Which.
        process: ProcessKey,
        /// How many unsettled tasks it takes.
        window: u32,
        /// It keeps the mark page.
        marked: bool,
    },
    /// A method returned.
    Done {
        /// Which.
        process: ProcessKey,
        /// The task.
        id: MessageId,
        /// Opaque.
        result: &'a [u8],
    },
    /// It has not begun a task of which it was told that it is not wanted any more, and will not.
    Dropped {
        /// Which.
        process: ProcessKey,
        /// The task.
        id: MessageId,
    },
    /// A method reported an error.
    Failed {
        /// Which.
        process: ProcessKey,
        /// The task.
        id: MessageId,
        /// For people.
        error: &'a str,
    },
    /// The message of a `Deliver` cannot be said to this process, and was not.
    Undeliverable {
        /// Which.
        process: ProcessKey,
        /// The message.
        id: MessageId,
        /// For people.
        error: &'a str,
    },
    /// How far it has come; at any time, and the answer to [`crate::Effect::Look`]. Settles what nobody waits for as
    /// done, so a failure that was written before the mark must have been read before.
    Marked {
        /// Which.
        process: ProcessKey,
        /// How far.
        mark: Mark,
    },
    /// The answer to [`crate::Effect::Ask`]: from here on the process begins no task beyond the mark.
    /// Without a mark only the process itself knows.
    Asked {
        /// Which.
        process: ProcessKey,
        /// How far it has come.
        mark: Option<Mark>,
    },
    /// It has said something that it must not say.
    Violation {
        /// Which.
        process: ProcessKey,
        /// What, for people.
        detail: &'a str,
    },
    /// Its connection has ended; everything that it had written was read before.
    Disconnected {
        /// Which.
        process: ProcessKey,
    },
    /// The kernel says that it has ended; everything that it had written was read before.
    Exited {
        /// Which.
        process: ProcessKey,
        /// How.
        exit: Exit,
        /// How far it had come.
        mark: Option<Mark>,
    },
    /// The kernel says that nothing it has started is left.
    TreeGone {
        /// Which.
        process: ProcessKey,
    },
}
