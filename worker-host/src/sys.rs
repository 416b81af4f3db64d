//! The only file of this crate that names nix and interprocess, and its only `unsafe`: what the
//! supervisor has handed over.

use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;

use interprocess::os::unix::uds_local_socket;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use workhall_protocol::MarkPage;

pub(crate) type Stream = uds_local_socket::Stream;

/// The process that has started this one, as long as it lives: one cheap system call.
pub(crate) fn parent() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// Whether something has come that was not read, or the end.
pub(crate) fn has_come(stream: &Stream) -> std::io::Result<bool> {
    let mut polled = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    match poll(&mut polled, PollTimeout::ZERO) {
        Ok(_) => Ok(polled[0].any().unwrap_or(true)),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A connection to a supervisor's socket.
pub(crate) fn connect(socket: &Path) -> std::io::Result<Stream> {
    UnixStream::connect(socket).map(|stream| Stream::from(OwnedFd::from(stream)))
}

/// The connection that `WORKHALL_FD` names. The error says what is missing.
pub(crate) fn inherited_stream() -> Result<Stream, String> {
    inherited("WORKHALL_FD")?.map(Stream::from).ok_or_else(|| "WORKHALL_FD is not set".to_string())
}

/// The mark page that `WORKHALL_MARK_FD` names, if the supervisor offers one.
pub(crate) fn inherited_page() -> std::io::Result<Option<MarkPage>> {
    match inherited("WORKHALL_MARK_FD").map_err(std::io::Error::other)? {
        Some(fd) => MarkPage::attach(&fd).map(Some),
        None => Ok(None),
    }
}

/// Descriptors that were taken already: each has one owner.
static TAKEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Takes the descriptor that a variable names, and sees that the worker's own children do not inherit it.
fn inherited(variable: &str) -> Result<Option<OwnedFd>, String> {
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    let number: RawFd = match text.parse() {
        Ok(number) if number > 2 => number,
        _ => return Err(format!("{variable} is `{text}`, which is no descriptor that a supervisor hands over")),
    };
    let mut taken = TAKEN.lock().map_err(|_| "the list of taken descriptors is broken".to_string())?;
    if taken.contains(&number) {
        return Err(format!("{variable} was taken already: a process runs one worker"));
    }
    // SAFETY: borrowed for this one call, which fails if the number is not open.
    #[allow(unsafe_code)]
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .map_err(|error| format!("{variable} is {number}: {error}"))?;
    taken.push(number);
    // SAFETY: it is open (just seen), it was made for this process by the supervisor, whose promise the
    // variable is, so nothing else here owns it; and it is taken once (just noted).
    #[allow(unsafe_code)]
    Ok(Some(unsafe { OwnedFd::from_raw_fd(number) }))
}
