//! How the supervisor becomes another program and keeps what it has: descriptors, pending signals, the clock.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal};
use nix::time::{ClockId, clock_gettime};

use super::LockFile;

/// The kernel's monotonic clock, which is the same for all programs.
pub fn monotonic() -> Duration {
    // It cannot fail for a clock that every kernel has.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

/// Holds back the signals that the supervisor handles. They stay pending over the execution of another program, where
/// they would else meet the default action; [`super::unblock_signals`] lets them come.
pub fn block_signals() -> io::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
        signals.add(signal);
    }
    // Those that mean nothing to it.
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM, Signal::SIGVTALRM, Signal::SIGPROF, Signal::SIGIO]
    {
        signals.add(signal);
    }
    Ok(signals.thread_block()?)
}

/// An empty file in memory that can be sealed.
pub fn sealable_file() -> io::Result<File> {
    Ok(File::from(memfd_create("workhall-state", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?))
}

/// From here on nobody can change the file.
pub fn seal(file: &File) -> io::Result<()> {
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}

/// Whether a file is one that nobody can change.
pub fn is_sealed(file: &File) -> bool {
    fcntl(file, FcntlArg::F_GET_SEALS)
        .is_ok_and(|seals| SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL))
}

/// Descriptors that stay open over the execution of another program; close-on-exec again when it is dropped, which it
/// is only if that fails.
pub struct StayOpen<'a>(Vec<BorrowedFd<'a>>);

impl<'a> StayOpen<'a> {
    /// All of them, or none.
    pub fn new(descriptors: Vec<BorrowedFd<'a>>) -> io::Result<StayOpen<'a>> {
        let this = StayOpen(descriptors);
        for fd in &this.0 {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(this)
    }
}

impl Drop for StayOpen<'_> {
    fn drop(&mut self) {
        for fd in &self.0 {
            let set = fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
            debug_assert!(set.is_ok(), "it is open as long as it is borrowed");
        }
    }
}

/// What the program before in this process has left open, by its numbers. There is one, made before anything else was
/// opened.
#[derive(Debug, Default)]
pub struct LeftOpen {
    taken: HashSet<RawFd>,
}

impl LeftOpen {
    /// Takes one over, close-on-exec. Each can be taken once.
    pub fn take(&mut self, number: RawFd) -> io::Result<OwnedFd> {
        if number <= 2 || !self.taken.insert(number) {
            return Err(io::Error::other(format!("descriptor {number} cannot be taken over")));
        }
        // SAFETY: borrowed for this one call, which fails if the number is not open.
        #[allow(unsafe_code)]
        let set = fcntl(unsafe { BorrowedFd::borrow_raw(number) }, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        set.map_err(|error| io::Error::other(format!("descriptor {number} was not left open: {error}")))?;
        // SAFETY: it is open, the program that owned it is no more, and it is taken this once. What this program opens
        // itself has other numbers, because this one was open before.
        #[allow(unsafe_code)]
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }
}

/// The lock again whose descriptor was left open: the kernel knows it by that.
pub fn lock_again(fd: OwnedFd) -> io::Result<LockFile> {
    match Flock::lock(File::from(fd), FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(LockFile(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Err(io::Error::other("somebody else holds the lock of the socket")),
        Err((_, error)) => Err(error.into()),
    }
}

impl AsFd for LockFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The number of a descriptor, to be told to the next program.
pub fn number(fd: impl AsFd) -> RawFd {
    fd.as_fd().as_raw_fd()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn flag(fd: impl AsFd) -> i32 {
        fcntl(fd, FcntlArg::F_GETFD).unwrap()
    }

    #[test]
    fn descriptors_stay_open_only_while_the_guard_lives() {
        let file = sealable_file().unwrap();
        let guard = StayOpen::new(vec![file.as_fd()]).unwrap();
        assert_eq!(flag(&file), 0);
        drop(guard);
        assert_eq!(flag(&file), FdFlag::FD_CLOEXEC.bits());
    }

    #[test]
    fn what_was_left_open_is_taken_once_and_nothing_else() {
        let mut left = LeftOpen::default();
        let number = std::os::fd::IntoRawFd::into_raw_fd(sealable_file().unwrap());
        let fd = left.take(number).unwrap();
        assert_eq!((super::number(&fd), flag(&fd)), (number, FdFlag::FD_CLOEXEC.bits()));
        assert!(left.take(number).is_err(), "it has an owner");
        for not_open in [-1, 0, 2, i32::MAX] {
            assert!(left.take(not_open).is_err(), "{not_open}");
        }
    }

    #[test]
    fn a_sealed_file_is_not_changed() {
        let mut file = sealable_file().unwrap();
        file.write_all(b"state").unwrap();
        assert!(!is_sealed(&file));
        seal(&file).unwrap();
        assert!(is_sealed(&file) && file.write_all(b"more").is_err() && file.set_len(0).is_err());
    }

    #[test]
    fn a_lock_is_the_same_by_a_copy_of_its_descriptor() {
        let dir = std::env::temp_dir().join(format!("workhall-again-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let lock = crate::sys::lock(&dir.join("lock")).unwrap().unwrap();
        let again = lock_again(lock.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert!(again.is_at(&dir.join("lock")));
        let stranger = File::open(dir.join("lock")).unwrap();
        assert!(lock_again(stranger.into()).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_clock_goes_on() {
        let before = monotonic();
        assert!(before > Duration::ZERO && monotonic() >= before);
    }
}
