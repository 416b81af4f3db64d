//! The exit statuses of the command line. People script against them.

/// How a command ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done; also what the rules ignore.
    #[default]
    Done = 0,
    /// The method failed, or an unexpected error.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// Refused; the reason is on stderr.
    Refused = 3,
    /// No supervisor answers at that socket.
    NoSupervisor = 4,
    /// The time ran out.
    TimedOut = 5,
    /// The message will not be executed, or its process died.
    NotExecuted = 6,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        std::process::ExitCode::from(code as u8)
    }
}
