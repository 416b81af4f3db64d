//! What this crate asks of the operating system (the only file of it that names nix, and its only `unsafe`):
//! the mark page, and sending without waiting.
//!
//! The mark page is memory that a process shares with the supervisor.
//!
//! The worker marks which task it begins and up to which all have ended; the marks survive its sudden
//! death and cost no system call. The supervisor raises a flag after which no task may begin.
//!
//! "Mark begun, then look at the flag" on one side and "raise the flag, then look at what is begun" on
//! the other, both sequentially consistent: at least one of the two sees the other. So either the
//! supervisor knows that the task has begun, or the worker does not begin it.

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{MsgFlags, getsockopt, send};
use nix::sys::time::TimeValLike as _;

use crate::ids::MessageId;
use crate::limits::mark_page::{ATTACHED, BEGUN, BYTES, CANCELS, FINISHED, LAUNCH_ERROR, LAUNCH_STEP, STOP};

/// One end of the shared page. Numbers are little endian.
#[derive(Debug)]
pub struct MarkPage {
    base: NonNull<c_void>,
}

impl MarkPage {
    /// Makes a page and the descriptor to hand to the worker (close-on-exec is set). Its size is
    /// sealed, so that no worker can pull the memory away from under the supervisor.
    pub fn create() -> io::Result<(MarkPage, OwnedFd)> {
        let fd = memfd_create("workhall-mark", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        nix::unistd::ftruncate(&fd, BYTES as i64)?;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL))?;
        Ok((MarkPage::map(&fd)?, fd))
    }

    /// Worker: maps the page whose descriptor was inherited, and says in it that it will keep the marks.
    /// Fails if it has another size. To be done before `ready` is said.
    pub fn attach(fd: impl AsFd) -> io::Result<MarkPage> {
        let page = MarkPage::map(fd)?;
        page.word(ATTACHED).store(1_u64.to_le(), SeqCst);
        Ok(page)
    }

    /// Supervisor: maps again the page of a process that was started before the supervisor became another program.
    pub fn again(fd: impl AsFd) -> io::Result<MarkPage> {
        MarkPage::map(fd)
    }

    /// Launcher: maps the page of the worker that it is to become, and promises nothing in its name.
    pub fn of_launch(fd: impl AsFd) -> io::Result<MarkPage> {
        MarkPage::map(fd)
    }

    /// Launcher: the program cannot be executed, because of this step (above 0) and this error number.
    pub fn launch_failed(&self, step: u32, error: i32) {
        self.word(LAUNCH_ERROR).store(u64::from(error.unsigned_abs()).to_le(), SeqCst);
        self.word(LAUNCH_STEP).store(u64::from(step).to_le(), SeqCst);
    }

    /// Supervisor: the step and the error number with which the launcher failed, if it did.
    pub fn launch_failure(&self) -> Option<(u32, i32)> {
        let step = u64::from_le(self.word(LAUNCH_STEP).load(SeqCst));
        let error = u64::from_le(self.word(LAUNCH_ERROR).load(SeqCst));
        (step != 0).then(|| (u32::try_from(step).unwrap_or(u32::MAX), i32::try_from(error).unwrap_or(0)))
    }

    fn map(fd: impl AsFd) -> io::Result<MarkPage> {
        let size = nix::sys::stat::fstat(&fd)?.st_size;
        if size != BYTES as i64 {
            return Err(io::Error::other(format!("the mark page has {size} bytes, not {BYTES}")));
        }
        let length = NonZeroUsize::new(BYTES).expect("is a constant above 0");
        // SAFETY: a new mapping at an address of the kernel's choosing touches no memory of ours. The file
        // is as long as the mapping, and the supervisor has sealed its size.
        #[allow(unsafe_code)]
        let base =
            unsafe { mmap(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(MarkPage { base })
    }

    /// Worker: marks a task as begun, unless no task may begin any more. Returns whether it may.
    pub fn begin(&self, id: MessageId) -> bool {
        let before = self.word(BEGUN).swap(id.0.to_le(), SeqCst);
        let may = self.word(STOP).load(SeqCst) == 0;
        if !may {
            self.word(BEGUN).store(before, SeqCst);
        }
        may
    }

    /// Worker: all tasks up to this one have ended, and what must be said of them was written.
    pub fn finish(&self, id: MessageId) {
        self.word(FINISHED).store(id.0.to_le(), SeqCst);
    }

    /// Worker: whether the supervisor has asked for the end.
    pub fn is_stopped(&self) -> bool {
        self.word(STOP).load(SeqCst) != 0
    }

    /// Supervisor: one more task is not wanted any more, of which the worker is told.
    pub fn cancel(&self) {
        let told = u64::from_le(self.word(CANCELS).load(SeqCst));
        self.word(CANCELS).store(told.wrapping_add(1).to_le(), SeqCst);
    }

    /// Worker: how often it was, or is being, told that a task is not wanted any more.
    pub fn cancels(&self) -> u64 {
        u64::from_le(self.word(CANCELS).load(SeqCst))
    }

    /// Supervisor: no task may begin from here on.
    pub fn stop(&self) {
        self.word(STOP).store(1, SeqCst);
    }

    /// Supervisor: the last task begun, and the one up to which all have ended; none if the worker does
    /// not keep the marks.
    pub fn marks(&self) -> Option<(MessageId, MessageId)> {
        let finished = u64::from_le(self.word(FINISHED).load(SeqCst));
        let begun = u64::from_le(self.word(BEGUN).load(SeqCst));
        (self.word(ATTACHED).load(SeqCst) != 0).then_some((MessageId(begun), MessageId(finished)))
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset.is_multiple_of(8) && offset + 8 <= BYTES);
        // SAFETY: the mapping is BYTES long, page aligned, readable and writable and lives as long as self;
        // offset is one of the constants, a multiple of 8 within it. Both sides use atomics only, and a worker
        // that does not can only spoil the numbers.
        #[allow(unsafe_code)]
        unsafe {
            AtomicU64::from_ptr(self.base.as_ptr().byte_add(offset).cast())
        }
    }
}

impl Drop for MarkPage {
    fn drop(&mut self) {
        // SAFETY: base and length are those of the mapping, and no reference into it outlives self.
        #[allow(unsafe_code)]
        let unmapped = unsafe { munmap(self.base, BYTES) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

// SAFETY: the page is only accessed through atomics.
#[allow(unsafe_code)]
unsafe impl Send for MarkPage {}

// SAFETY: as before; `&self` gives nothing but atomics.
#[allow(unsafe_code)]
unsafe impl Sync for MarkPage {}

// ---- connections ----------------------------------------------------------------------------

/// Sends what can be sent without waiting; none if nothing can.
pub(crate) fn send_now(stream: impl AsFd, bytes: &[u8]) -> io::Result<Option<usize>> {
    loop {
        match send(stream.as_fd().as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            Ok(count) => return Ok(Some(count)),
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// What a connection is ready for.
pub(crate) struct Ready {
    /// A read does not wait.
    pub readable: bool,
}

/// Waits until a connection can be written to or read from. After the time that its own time-out gives
/// to a write it is an error, as a write's would be.
pub(crate) fn wait_to_write(stream: impl AsFd) -> io::Result<Ready> {
    let limit = getsockopt(&stream, SendTimeout)?;
    let timeout = match limit.num_microseconds().unsigned_abs() {
        0 => PollTimeout::NONE,
        micros => PollTimeout::try_from(micros.div_ceil(1000)).unwrap_or(PollTimeout::MAX),
    };
    let mut polled = [PollFd::new(stream.as_fd(), PollFlags::POLLIN | PollFlags::POLLOUT)];
    loop {
        match poll(&mut polled, timeout) {
            Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    // An end or an error is told by the next read or write.
    let readable = polled[0].revents().is_some_and(|events| events.intersects(PollFlags::POLLIN | PollFlags::POLLHUP));
    Ok(Ready { readable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_see_the_same_marks() {
        let (supervisor, fd) = MarkPage::create().unwrap();
        assert_eq!(supervisor.marks(), None, "nobody has promised to keep them");
        let worker = MarkPage::attach(&fd).unwrap();
        assert_eq!(supervisor.marks(), Some((MessageId(0), MessageId(0))));
        assert!(worker.begin(MessageId(7)));
        worker.finish(MessageId(6));
        assert_eq!(supervisor.marks(), Some((MessageId(7), MessageId(6))));
        drop(supervisor);
        assert_eq!(MarkPage::again(&fd).unwrap().marks(), Some((MessageId(7), MessageId(6))));
    }

    #[test]
    fn k01_no_task_begins_after_the_flag() {
        let (supervisor, fd) = MarkPage::create().unwrap();
        let worker = MarkPage::attach(&fd).unwrap();
        assert!(worker.begin(MessageId(1)));
        supervisor.stop();
        assert!(worker.is_stopped());
        assert!(!worker.begin(MessageId(2)));
        assert_eq!(supervisor.marks().unwrap().0, MessageId(1), "what was not begun is not marked");
    }

    #[test]
    fn d05_the_supervisor_reads_why_a_launch_failed() {
        let (supervisor, fd) = MarkPage::create().unwrap();
        let launcher = MarkPage::of_launch(&fd).unwrap();
        assert_eq!((supervisor.marks(), supervisor.launch_failure()), (None, None));
        launcher.launch_failed(3, 13);
        assert_eq!((supervisor.marks(), supervisor.launch_failure()), (None, Some((3, 13))));
    }

    #[test]
    fn a_worker_cannot_change_the_size() {
        let (_supervisor, fd) = MarkPage::create().unwrap();
        assert!(nix::unistd::ftruncate(&fd, 0).is_err());
        assert!(nix::unistd::ftruncate(&fd, 2 * BYTES as i64).is_err());
    }

    #[test]
    fn a_page_of_another_size_is_not_mapped() {
        let fd = memfd_create("other", MFdFlags::MFD_CLOEXEC).unwrap();
        assert!(MarkPage::attach(&fd).unwrap_err().to_string().contains("bytes"));
    }
}
