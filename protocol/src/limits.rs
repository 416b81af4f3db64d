//! The bounds of the wire. A bound is a constant with its unit and its reason.

/// The protocol version that both sides state in `ready` and `welcome`.
pub const PROTOCOL_VERSION: u32 = 1;

/// The longest worker name, in bytes (rule W2).
pub const NAME_BYTES_MAX: usize = 255;

/// The longest method name, in bytes.
pub const METHOD_BYTES_MAX: usize = 255;

/// The longest frame (without its header) or JSON line (without its newline), in bytes.
/// A peer that sends a longer one is beyond repair: its connection ends.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// The length of the header of a binary frame, in bytes.
pub const HEADER_BYTES: usize = 8;

/// How deep arguments and results may nest. Deeper ones are refused, so that no decoder
/// along the way can be made to exhaust its stack.
pub const ARGS_DEPTH_MAX: usize = 64;

/// The most tasks that the supervisor hands to a process before they are settled,
/// whatever window the process asks for.
pub const WINDOW_MAX: u32 = 1024;

/// Layout of the mark page that a process shares with the supervisor; see `PROTOCOL.md`.
pub mod mark_page {
    /// Size of the page, in bytes.
    pub const BYTES: usize = 4096;
    /// Offset of the id of the last task begun: `u64`, little endian, written by the worker.
    pub const BEGUN: usize = 0;
    /// Offset of the id up to which all tasks are finished: `u64`, written by the worker.
    pub const FINISHED: usize = 8;
    /// Offset of the word in which the worker says with a 1 that it keeps the marks.
    pub const ATTACHED: usize = 16;
    /// Offset of the stop flag: `u64`, written by the supervisor; not 0 means begin no more tasks.
    /// On a cache line of its own.
    pub const STOP: usize = 64;
    /// Offset of how often the worker was told that a task is not wanted any more: `u64`, written by the supervisor.
    pub const CANCELS: usize = STOP + 8;
    /// Offset of the step at which the supervisor's launcher failed, far from the others: `u64`, written before the
    /// worker's program is executed, if it cannot be. 0 is no failure.
    pub const LAUNCH_STEP: usize = 4096 - 64;
    /// Offset of the operating system's error number of that failure.
    pub const LAUNCH_ERROR: usize = LAUNCH_STEP + 8;
}

const _: () = assert!(NAME_BYTES_MAX < FRAME_BYTES_MAX && METHOD_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(FRAME_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(mark_page::CANCELS + 8 <= mark_page::LAUNCH_STEP);
const _: () = assert!(mark_page::LAUNCH_ERROR + 8 <= mark_page::BYTES);
