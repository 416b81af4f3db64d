//! What goes out: commands to the shell. Each has an answer or a deadline.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use workhall_protocol::ids::{Generation, MessageId, WorkerName, WorkerNumber};
use workhall_protocol::terms::{Current, DeadReason, EndedBy, Exit};

use crate::event::{ProcessKey, ReplyTo};
use crate::signals::Values;

/// A command to the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start the process. Answered at once by `Spawned`, `SpawnFailed` or `Held`.
    Spawn {
        /// Which.
        process: ProcessKey,
    },
    /// Hand over a message; its content is [`crate::Core::task`]. Answered by a settlement or the exit.
    Deliver {
        /// To whom.
        process: ProcessKey,
        /// The shell's index of it.
        slot: u32,
        /// Which message.
        id: MessageId,
    },
    /// Ask it to end; see that it begins no further task. Answered at once by `Asked`. May come again.
    Ask {
        /// Whom.
        process: ProcessKey,
        /// The shell's index of it.
        slot: u32,
    },
    /// See how far it has come. Answered at once by `Marked`, if it keeps the mark page.
    Look {
        /// Who.
        process: ProcessKey,
        /// The shell's index of it.
        slot: u32,
    },
    /// SIGSTOP to the process and its group (rule P4). No answer.
    Pause {
        /// Whom.
        process: ProcessKey,
        /// The shell's index of it.
        slot: u32,
    },
    /// SIGCONT, so that a stopped process goes on or notices. No answer.
    Continue {
        /// Whom.
        process: ProcessKey,
        /// The shell's index of it.
        slot: u32,
    },
    /// SIGTERM and SIGCONT. Answered by the exit, or else Kill follows.
    Term {
        /// Whom.
        process: ProcessKey,
        /// The shell's index of it.
        slot: u32,
    },
    /// SIGKILL to the process and its tree. Repeated until the exit.
    Kill {
        /// Whom.
        process: ProcessKey,
        /// The shell's index of it.
        slot: u32,
    },
    /// Close the connection of an attached worker, which has not ended in time (rule P2). Answered by `Disconnected`.
    Close {
        /// Whose.
        process: ProcessKey,
        /// The shell's index of it.
        slot: u32,
    },
    /// The process has ended: end what it left behind. Answered by `TreeGone`; repeated until then.
    Sweep {
        /// Whose.
        process: ProcessKey,
        /// The shell's index of it.
        slot: u32,
    },
    /// Tell who waits what came of a message.
    Settled {
        /// Whom.
        reply: ReplyTo,
        /// What.
        outcome: Outcome,
    },
    /// Tell who killed how many messages were discarded since: until then, that is what the kill discarded.
    Killed {
        /// Whom.
        reply: ReplyTo,
        /// How many messages.
        discarded: u64,
    },
    /// Tell who killed how it ended.
    KillEnded {
        /// Whom.
        reply: ReplyTo,
        /// How.
        report: Box<KillReport>,
    },
    /// Tell who waits that it is so.
    Reached {
        /// Whom.
        reply: ReplyTo,
    },
    /// Tell who waits for a signal how that has ended.
    SignalEnded {
        /// Whom.
        reply: ReplyTo,
        /// How.
        end: SignalEnd,
    },
    /// Tell a process that a task which it was given is not wanted any more. No answer.
    Cancel {
        /// Whom.
        process: ProcessKey,
        /// The shell's index of it.
        slot: u32,
        /// The task.
        id: MessageId,
    },
    /// The shutdown is complete: no worker is left.
    Stopped,
}

/// How a wait for a signal has ended (rules S3, S5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignalEnd {
    /// It was triggered; these are its values.
    Triggered(Arc<Values>),
    /// The last message that was to trigger it has ended without doing so; this is what came of it.
    Message(Arc<Outcome>),
    /// It was not triggered in time.
    TimedOut,
    /// Nobody is left who was to trigger it.
    Lost,
}

/// The fate of a message (rules L1, L2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The method returned.
    Done {
        /// What it returned; kept only where somebody waits.
        result: Box<[u8]>,
    },
    /// The method reported an error.
    Failed {
        /// For people; kept only where somebody waits.
        error: Box<str>,
    },
    /// Discarded by kill.
    Discarded {
        /// Rule L2.
        may_have_run: bool,
    },
    /// Not started in time.
    Expired {
        /// Rule L2: it was, and its process died.
        may_have_run: bool,
    },
    /// A dead letter.
    Dead {
        /// Why.
        reason: DeadReason,
        /// How the process ended, if one had it.
        exit: Option<Exit>,
        /// Rule L2.
        may_have_run: bool,
    },
}

/// The receipt of a kill (rule K12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillReport {
    /// The worker's name.
    pub worker: WorkerName,
    /// Its number.
    pub number: WorkerNumber,
    /// The life that ended; 0 if there was none.
    pub generation: Generation,
    /// How many messages were discarded from the kill on, whoever discarded them.
    pub discarded: u64,
    /// What became of the task that was current at the kill.
    pub current: Current,
    /// Which step ended it.
    pub ended_by: EndedBy,
    /// How it ended.
    pub exit: Option<Exit>,
    /// From the kill to the proof that process and tree are gone.
    pub took: Duration,
    /// How long Ask, Term and Kill took; none for a step not taken.
    pub steps: [Option<Duration>; 3],
}
