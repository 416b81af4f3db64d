//! Signals, as bytes in sockets that the event loop watches.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

/// One group of signals that mean the same.
#[derive(Debug)]
pub struct SignalPipe {
    reader: UnixStream,
}

impl SignalPipe {
    /// A child has changed; also the adopted ones, which have no pidfd.
    pub fn child() -> io::Result<SignalPipe> {
        SignalPipe::new(&[SIGCHLD])
    }

    /// The supervisor is to stop.
    pub fn stop() -> io::Result<SignalPipe> {
        SignalPipe::new(&[SIGTERM, SIGINT])
    }

    /// The configuration is to be read again.
    pub fn reload() -> io::Result<SignalPipe> {
        SignalPipe::new(&[SIGHUP])
    }

    fn new(signals: &[i32]) -> io::Result<SignalPipe> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        for signal in signals {
            signal_hook::low_level::pipe::register(*signal, writer.try_clone()?)?;
        }
        Ok(SignalPipe { reader })
    }

    /// How many signals have come since the last look (as many as the socket could hold).
    pub fn take(&mut self) -> usize {
        let mut buffer = [0; 64];
        let mut total = 0;
        loop {
            match self.reader.read(&mut buffer) {
                Ok(0) => return total,
                Ok(count) => total += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return total,
            }
        }
    }
}

impl AsFd for SignalPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
