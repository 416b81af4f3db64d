//! The way to the supervisor.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use workhall_protocol::Client;
use workhall_protocol::client::{ClientError, Ticket};
use workhall_protocol::messages::{OutcomeBody, ReceiptBody};
use workhall_protocol::terms::Refusal;

use super::Failure;
use super::output::safe;
use crate::exit_code::ExitCode;
use crate::sys::{self, Stream};

/// The shortest time-out of a read: zero would be none.
const READ_TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// So long it may take to connect, to write and to be given a receipt, however short the time-out is.
const RECEIPT_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// How many workers are asked for at once: their rows fit into an answer, whatever their names are.
const PAGE: u64 = 10_000;

/// `WORKHALL_SOCKET`; empty is unset, as in all variables.
pub fn environment_socket() -> Option<PathBuf> {
    variable("WORKHALL_SOCKET").map(PathBuf::from)
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Where the supervisor is looked for, if nobody says where.
pub fn default_socket() -> PathBuf {
    match variable("XDG_RUNTIME_DIR") {
        Some(dir) => Path::new(&dir).join("workhall/workhall.sock"),
        None => PathBuf::from("/run/workhall/workhall.sock"),
    }
}

/// A path that the kernel would cut or refuse is refused with its length.
pub fn check_socket_path(path: &Path) -> Result<(), Failure> {
    let bytes = path.as_os_str().len();
    let limit = sys::SOCKET_PATH_BYTES_MAX;
    if bytes == 0 || bytes > limit {
        return Err(Failure::usage(format!(
            "a socket's path has 1 to {limit} bytes, this one has {bytes}: {}",
            path.display()
        )));
    }
    Ok(())
}

/// A connection to the supervisor, with an optional deadline for everything that is asked on it.
pub struct Connection {
    client: Client<Stream>,
    deadline: Option<Instant>,
}

/// Connects, or says where nobody answered and what to do. From here on everything together takes at most
/// `timeout`. What is asked for is posted however short that is, and its receipt taken: so who runs out of time
/// knows that it goes on.
pub fn connect(socket: Option<PathBuf>, timeout: Option<Duration>) -> Result<Connection, Failure> {
    let path = socket.unwrap_or_else(default_socket);
    check_socket_path(&path)?;
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let stream = sys::connect(&path, timeout.map(|timeout| timeout.max(RECEIPT_TIMEOUT_MIN))).map_err(|error| {
        let shown = path.display();
        if error.kind() == io::ErrorKind::WouldBlock {
            let message = format!("the time ran out: the supervisor at {shown} takes no connections at the moment (is it stopped?); nothing was asked for");
            return Failure::new(ExitCode::TimedOut, message);
        }
        let message = match error.kind() {
            io::ErrorKind::NotFound => format!(
                "no supervisor at {shown}: there is no socket (start one with `workhall serve`, or name its socket with --socket)"
            ),
            io::ErrorKind::ConnectionRefused if path.metadata().is_ok_and(|meta| !meta.file_type().is_socket()) => {
                format!("no supervisor at {shown}: it is no socket, name the supervisor's with --socket")
            }
            io::ErrorKind::ConnectionRefused => {
                format!("no supervisor at {shown}: the socket is there but nobody listens (start one with `workhall serve`)")
            }
            io::ErrorKind::PermissionDenied => format!("no permission for {shown}: ask its owner, or become them"),
            _ => format!("no supervisor at {shown}: {error}"),
        };
        Failure::new(ExitCode::NoSupervisor, message)
    })?;
    Ok(Connection { client: Client::new(stream), deadline })
}

impl Connection {
    /// An error if the time is over: for those who would ask again and again.
    pub fn check_time(&self) -> Result<(), Failure> {
        match self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            true => Err(timed_out()),
            false => Ok(()),
        }
    }

    /// Asks something, within the deadline.
    pub fn ask<T>(
        &mut self,
        question: impl FnOnce(&mut Client<Stream>) -> Result<T, ClientError>,
    ) -> Result<T, Failure> {
        self.ask_within(READ_TIMEOUT_MIN, question)
    }

    /// The receipt of a request, which comes at once, whatever is waited for behind it.
    pub fn receipt(&mut self, ticket: Ticket) -> Result<ReceiptBody<'static>, Failure> {
        self.ask_within(RECEIPT_TIMEOUT_MIN, |client| client.receipt(ticket))
    }

    /// The outcome of a request that waits for it, if it has come already.
    pub fn known_outcome(&mut self, ticket: Ticket) -> Result<Option<OutcomeBody<'static>>, Failure> {
        match self.client.has_outcome(ticket) {
            true => self.ask(|client| client.outcome(ticket)).map(Some),
            false => Ok(None),
        }
    }

    fn ask_within<T>(
        &mut self,
        least: Duration,
        question: impl FnOnce(&mut Client<Stream>) -> Result<T, ClientError>,
    ) -> Result<T, Failure> {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            sys::set_timeouts(self.client.stream(), Some(left.max(least)), Some(left.max(RECEIPT_TIMEOUT_MIN)))?;
        }
        question(&mut self.client).map_err(|error| match error {
            ClientError::Io(error) if error.kind() == io::ErrorKind::WouldBlock && self.client.has_unsent() => {
                let message = "the time ran out: the supervisor takes nothing in at the moment (is it stopped?); what was asked for last may not have been posted";
                Failure::new(ExitCode::TimedOut, message)
            }
            ClientError::Io(error) if error.kind() == io::ErrorKind::WouldBlock => timed_out(),
            ClientError::Io(error) => {
                Failure::new(ExitCode::NoSupervisor, format!("the supervisor closed the connection: {error}"))
            }
            ClientError::TurnedAway(_) => Failure::new(ExitCode::Refused, format!("refused: {error}")),
            ClientError::NoOutcome(ReceiptBody::Refused { reason, detail }) => refused(reason, &detail),
            ClientError::Encode(error) => Failure::new(ExitCode::Refused, format!("refused: too_large: {error}")),
            other => Failure::new(ExitCode::Failed, other.to_string()),
        })
    }

    /// All workers, or only so many behind a place, as the rows of their reports.
    pub fn workers(&mut self, after: Option<u64>, limit: Option<u64>) -> Result<Vec<serde_json::Value>, Failure> {
        let (mut after, mut rows) = (after, Vec::new());
        loop {
            let wanted = limit.map_or(PAGE, |limit| (limit - rows.len() as u64).min(PAGE));
            let page = self.report(|client| client.list_page(after, Some(wanted)))?.unwrap_or_default();
            let serde_json::Value::Array(page) = page else {
                return Err(Failure::new(ExitCode::Failed, "the supervisor's list is no array"));
            };
            after = page.last().and_then(|row| row["at"].as_u64()).or(after);
            let last = (page.len() as u64) < wanted;
            rows.extend(page);
            if last || limit.is_some_and(|limit| rows.len() as u64 >= limit) {
                return Ok(rows);
            }
        }
    }

    /// Asks for a report.
    pub fn report(
        &mut self,
        question: impl FnOnce(&mut Client<Stream>) -> Result<ReceiptBody<'static>, ClientError>,
    ) -> Result<Option<serde_json::Value>, Failure> {
        let unanswered = |failure: Failure| match failure.code {
            ExitCode::TimedOut => {
                Failure::new(ExitCode::TimedOut, "the time ran out before the supervisor has answered (is it stopped?)")
            }
            _ => failure,
        };
        match self.ask_within(RECEIPT_TIMEOUT_MIN, question).map_err(unanswered)? {
            ReceiptBody::Report(payload) => payload
                .to_json()
                .map(Some)
                .map_err(|error| Failure::new(ExitCode::Failed, format!("the report cannot be read: {error}"))),
            ReceiptBody::Ignored { .. } => Ok(None),
            ReceiptBody::Refused { reason, detail } => Err(refused(reason, &detail)),
            other => Err(Failure::new(ExitCode::Failed, format!("unexpected answer: {other:?}"))),
        }
    }
}

/// What the supervisor refuses.
pub fn refused(reason: Refusal, detail: &str) -> Failure {
    let reason = serde_json::to_value(reason).unwrap_or_default();
    Failure::new(ExitCode::Refused, format!("refused: {}: {}", reason.as_str().unwrap_or_default(), safe(detail)))
}

fn timed_out() -> Failure {
    Failure::new(ExitCode::TimedOut, "the time ran out; what was asked for goes on")
}
