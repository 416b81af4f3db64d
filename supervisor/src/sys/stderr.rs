//! Writing to stderr without waiting for whoever reads it.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

/// How stderr is written to. It is shared with the workers, who may expect that writing waits: so it cannot be told
/// not to wait for all who have it.
#[derive(Debug)]
pub enum Stderr {
    /// A file: nobody has to read it.
    File,
    /// Each write to a socket says for itself that it does not wait.
    Socket,
    /// A pipe or a terminal, opened once more.
    Reopened(File),
    /// What may not be opened again is asked for room. Should a worker take that just then, the write waits.
    Asked,
}

impl Stderr {
    /// What it is now.
    pub fn find() -> Stderr {
        const PATH: &str = "/proc/self/fd/2";
        let Ok(kind) = std::fs::metadata(PATH).map(|meta| meta.file_type()) else { return Stderr::Asked };
        if kind.is_socket() {
            return Stderr::Socket;
        }
        if kind.is_file() {
            return Stderr::File;
        }
        match File::options().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(PATH) {
            Ok(file) => Stderr::Reopened(file),
            Err(_) => Stderr::Asked,
        }
    }

    /// Writes as much as there is room for; fails with `WouldBlock` if there is none.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        match self {
            Stderr::File => stderr.lock().write(bytes),
            Stderr::Socket => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                Ok(send(stderr.as_raw_fd(), bytes, flags)?)
            }
            Stderr::Reopened(file) => (&*file).write(bytes),
            Stderr::Asked => {
                let mut room = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
                match poll(&mut room, PollTimeout::ZERO)? {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    // More than a page may have to wait although there is room for less.
                    _ => stderr.lock().write(&bytes[..bytes.len().min(PAGE_BYTES)]),
                }
            }
        }
    }
}

/// What fits into a pipe that says it has room.
const PAGE_BYTES: usize = 4096;
