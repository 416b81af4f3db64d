//! What the configuration says, as the core understands it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::time::Duration;

/// What the configuration says of a class. A worker keeps the policy it was created with.
#[derive(Clone, Debug)]
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
}

/// The bounds of the whole supervisor.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most bytes of method and arguments of one message.
    pub message_bytes: u64,
    /// The most bytes of pending messages of all workers, counted like a mailbox's.
    pub total_bytes: u64,
    /// The most workers at a time.
    pub workers: u32,
}
