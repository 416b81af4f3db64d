//! What the configuration says, as the core understands it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// What the configuration says of a class. A process keeps the policy it was started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The name of the class.
    pub class: Box<str>,
    /// The class's own startup method (rule C5).
    pub startup_method: Option<Arc<str>>,
    /// The most pending messages of one worker.
    pub mailbox_messages: u64,
    /// The most bytes of pending messages of one worker; each counts its method, its arguments and
    /// [`crate::MESSAGE_OVERHEAD_BYTES`].
    pub mailbox_bytes: u64,
    /// From the spawn until the process must be ready.
    pub start_timeout: Duration,
    /// How long a kill waits for the current task; unlimited if none (rule K4).
    pub task_grace: Option<Duration>,
    /// From the end of the task to SIGTERM.
    pub exit_grace: Duration,
    /// From SIGTERM to SIGKILL.
    pub term_grace: Duration,
    /// How often a message may be executed whose process dies meanwhile (rule D2). 1: it is a dead letter
    /// *crashed* at the first death; more: it is tried again, and *poison* after the last.
    pub attempts: u8,
    /// How long one task may take (rule D6); unlimited if none.
    pub task_timeout: Option<Duration>,
    /// How long a process may have nothing to do before it is ended (rule W6); for ever if none.
    pub idle_timeout: Option<Duration>,
    /// When too many crashes pause the worker (rule D4).
    pub crash_limit: CrashLimit,
}

impl Default for Policy {
    /// What a class is that says nothing of itself.
    fn default() -> Self {
        Policy {
            class: "".into(),
            startup_method: None,
            mailbox_messages: 10_000,
            mailbox_bytes: 16 << 20,
            start_timeout: Duration::from_secs(30),
            task_grace: None,
            exit_grace: Duration::from_secs(5),
            term_grace: Duration::from_secs(5),
            attempts: 1,
            task_timeout: None,
            idle_timeout: None,
            crash_limit: CrashLimit::default(),
        }
    }
}

/// Past how many crashes a worker pauses, for how long, and what is done meanwhile (rules D4, D5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashLimit {
    /// So many deaths without a healthy life between them …
    pub crashes: u16,
    /// … within this time.
    pub within: Duration,
    /// After so long it is tried again.
    pub pause: Duration,
    /// Calls are refused meanwhile, not accepted.
    pub refuse_calls: bool,
    /// What is pending is dead when its process could not be started, and not kept.
    pub drop_unstarted: bool,
}

impl Default for CrashLimit {
    fn default() -> Self {
        CrashLimit {
            crashes: 8,
            within: Duration::from_secs(60),
            pause: Duration::from_secs(60),
            refuse_calls: false,
            drop_unstarted: false,
        }
    }
}

/// The bounds of the whole supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of method and arguments of one message.
    pub message_bytes: u64,
    /// The most bytes of pending messages of all workers, counted like a mailbox's.
    pub total_bytes: u64,
    /// The most pending messages of all workers.
    pub total_messages: u64,
    /// The most pending messages of one account.
    pub sender_messages: u64,
    /// The most bytes of pending messages of one account.
    pub sender_bytes: u64,
    /// The most signals of one account.
    pub sender_signals: u64,
    /// The most workers at a time.
    pub workers: u32,
    /// The most processes at a time.
    pub processes: u32,
    /// The most dead letters that are kept.
    pub dead_messages: u64,
    /// The most bytes of them, counted like pending ones.
    pub dead_bytes: u64,
}

impl Default for Limits {
    /// What suits a small server.
    fn default() -> Self {
        Limits {
            message_bytes: 4 << 20,
            total_bytes: 1 << 30,
            total_messages: 2_000_000,
            sender_messages: 1_000_000,
            sender_bytes: 512 << 20,
            sender_signals: 10_000,
            workers: 1_000_000,
            processes: 4_000,
            dead_messages: 10_000,
            dead_bytes: 64 << 20,
        }
    }
}
