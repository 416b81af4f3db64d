//! Signals, as bytes in sockets that the event loop watches.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

/// What people and timers send by mistake: it would end the supervisor, and means nothing to it. They are handled and not ignored: what is ignored stays so in
/// the programs of workers, what is handled does not.
const OTHERS: [(i32, &str); 6] = [
    (SIGUSR1, "SIGUSR1"),
    (SIGUSR2, "SIGUSR2"),
    (SIGALRM, "SIGALRM"),
    (SIGVTALRM, "SIGVTALRM"),
    (SIGPROF, "SIGPROF"),
    (SIGIO, "SIGIO"),
];

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

/// Signals that mean nothing here.
#[derive(Debug)]
pub struct OtherSignals {
    /// One pipe for all: a supervisor may have few descriptors.
    signals: SignalDelivery<UnixStream, SignalOnly>,
    /// Those that were not said yet.
    unsaid: Vec<(i32, &'static str)>,
}

impl OtherSignals {
    /// Handles them.
    pub fn new() -> io::Result<OtherSignals> {
        let (reader, writer) = UnixStream::pair()?;
        let signals = SignalDelivery::with_pipe(reader, writer, SignalOnly, OTHERS.map(|(signal, _)| signal))?;
        Ok(OtherSignals { signals, unsaid: OTHERS.to_vec() })
    }

    /// The names of those that have come for the first time.
    pub fn take(&mut self) -> Vec<&'static str> {
        let came: Vec<i32> = self.signals.pending().collect();
        self.unsaid.extract_if(.., |(signal, _)| came.contains(signal)).map(|(_, name)| name).collect()
    }
}

impl AsFd for OtherSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.get_read().as_fd()
    }
}
