//! The only place of this crate that names the operating system's interfaces: nix, rustix and interprocess. Here are
//! sockets, waiting and children; `own.rs` is about the process itself, `start.rs` about how one is started, `people.rs`
//! about users, `activation.rs` about a socket that was handed over, `stderr.rs` about what is said, `output.rs` about
//! what workers say. Thin: each function is one thing that the kernel does, and decides nothing.

mod activation;
mod exec;
mod output;
mod own;
mod people;
mod start;
mod stderr;

use std::fs::{File, FileType, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use interprocess::local_socket::traits::{Listener as _, Stream as _};
use interprocess::local_socket::{GenericFilePath, ListenerNonblockingMode, ListenerOptions, ToFsName};
use interprocess::os::unix::local_socket::ListenerOptionsExt as _;
use interprocess::os::unix::uds_local_socket;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, connect as connect_to, getsockopt, shutdown, socket,
    socketpair,
};
use nix::unistd::Pid;
use rustix::fs::{AtFlags, StatxFlags};
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus};
use workhall_protocol::terms::Exit;

use crate::access::Creds;

pub use activation::adopt_listener;
pub use exec::*;
pub use output::{open_pipe_of, output_pipe, readable_bytes, write_to};
pub use own::*;
pub use people::*;
pub use start::{Image, start};
pub use stderr::Stderr;

/// A connected local socket.
pub type Stream = uds_local_socket::Stream;
/// A listening local socket.
pub type Listener = uds_local_socket::Listener;

/// The longest path of a socket, in bytes: what fits into `sockaddr_un`, with its end.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

// ---- files ----------------------------------------------------------------------------------

/// Which file something is, however it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct FileId {
    device: (u32, u32),
    inode: u64,
}

/// Which file is at a path. By what the kernel knows already: no file system is asked, which may be a program of
/// somebody else's and never answer.
pub fn file_id(path: &Path) -> io::Result<FileId> {
    let found = rustix::fs::statx(rustix::fs::CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::INO)?;
    Ok(FileId { device: (found.stx_dev_major, found.stx_dev_minor), inode: found.stx_ino })
}

/// Opens a regular file for reading, or says what is there instead. It never waits for who would write to it, and opens
/// nothing that could do something by being opened, like a device.
pub fn open_regular(path: &Path) -> io::Result<File> {
    regular(std::fs::metadata(path)?.file_type())?;
    // Another file may have taken its place meanwhile.
    let file = File::options().read(true).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits()).open(path)?;
    regular(file.metadata()?.file_type())?;
    Ok(file)
}

fn regular(kind: FileType) -> io::Result<()> {
    let what = match kind {
        _ if kind.is_file() => return Ok(()),
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::other(format!("it is {what}, not a regular file")))
}

// ---- sockets --------------------------------------------------------------------------------

/// Whose a socket is, and who may open it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// The permission bits.
    pub mode: u32,
    /// Its owner; the supervisor's user if none.
    pub user: Option<u32>,
    /// Its group; the supervisor's, or the directory's, if none.
    pub group: Option<u32>,
}

/// Listens at a path. Accepts without blocking. At no moment is the socket more open than `access` says: it
/// is made with the bits of the owner alone, which is the supervisor itself until another is named; those of
/// the group come when the group is the right one.
pub fn listen(path: &Path, access: SocketAccess) -> io::Result<Listener> {
    let listener = ListenerOptions::new()
        .name(path.to_fs_name::<GenericFilePath>()?)
        .mode(access.mode & 0o700)
        .nonblocking(ListenerNonblockingMode::Both)
        .create_sync_as()?;
    // Held by a descriptor: whoever may write to the directory cannot put another file in its place meanwhile.
    let file = File::options().read(true).custom_flags((OFlag::O_PATH | OFlag::O_NOFOLLOW).bits()).open(path)?;
    let found = file.metadata()?;
    if !found.file_type().is_socket() || found.uid() != own_creds().uid {
        return Err(io::Error::other("somebody else has put another file in its place"));
    }
    let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    if access.user.is_some() || access.group.is_some() {
        std::os::unix::fs::chown(&by_descriptor, access.user, access.group).map_err(|error| {
            let whom =
                [access.user.map(|user| format!("user {user}")), access.group.map(|group| format!("group {group}"))];
            let whom = whom.into_iter().flatten().collect::<Vec<_>>().join(" and ");
            let hint = "root gives it to anybody, others only to groups that they are in";
            io::Error::new(error.kind(), format!("cannot give it to {whom}: {error} ({hint})"))
        })?;
    }
    std::fs::set_permissions(&by_descriptor, Permissions::from_mode(access.mode))?;
    Ok(listener)
}

/// The same, and accepts when somebody comes. The file stays when it is closed.
pub fn listen_and_wait(path: &Path, access: SocketAccess) -> io::Result<UnixListener> {
    let listener = listen(path, access)?;
    let copy = UnixListener::from(listener.as_fd().try_clone_to_owned()?);
    leave_path(listener);
    copy.set_nonblocking(false)?;
    Ok(copy)
}

/// Who is at the other end, as the kernel noted when it connected.
pub fn peer_creds(stream: &Stream) -> io::Result<Creds> {
    let creds = getsockopt(stream, PeerCredentials)?;
    Ok(Creds { pid: creds.pid(), uid: creds.uid(), gid: creds.gid() })
}

/// The next connection that waits; none if there is none.
pub fn accept(listener: &Listener) -> io::Result<Option<Stream>> {
    loop {
        match listener.accept() {
            Ok(stream) => return Ok(Some(stream)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            // The peer has given up already, or a signal came: look for the next.
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Who listens at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listens {
    /// There is no socket, or its process is gone.
    Nobody,
    /// A process, with its id if that is known.
    Process(Option<i32>),
}

/// Finds out by connecting, without waiting: who does not accept at the moment (a stopped process with a
/// full backlog) listens all the same.
pub fn who_listens(path: &Path) -> io::Result<Listens> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let ours = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect_to(ours.as_raw_fd(), &UnixAddr::new(path)?) {
        Ok(()) => {
            // The credentials are those of the process that began to listen.
            let pid = getsockopt(&ours, PeerCredentials).map(|peer| peer.pid()).ok();
            Ok(Listens::Process(pid.filter(|pid| *pid > 0)))
        }
        Err(Errno::EAGAIN) => Ok(Listens::Process(None)),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(Listens::Nobody),
        Err(e) => Err(e.into()),
    }
}

/// Connects. With a timeout it waits no longer than that for a place in the backlog, then it fails with
/// `WouldBlock`; without one, for ever.
pub fn connect(path: &Path, timeout: Option<Duration>) -> io::Result<Stream> {
    let ours = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let ours = Stream::from(ours);
    set_timeouts(&ours, None, timeout)?;
    connect_to(ours.as_fd().as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(ours)
}

/// A read or a write that takes longer than this fails with `WouldBlock`; none is for ever.
pub fn set_timeouts(stream: &Stream, read: Option<Duration>, write: Option<Duration>) -> io::Result<()> {
    stream.set_recv_timeout(read)?;
    stream.set_send_timeout(write)
}

/// Leaves the path as it is when it is closed: it may be another's by then.
pub fn leave_path(mut listener: Listener) {
    listener.do_not_reclaim_name_on_drop();
}

/// From here on nobody can write to it any more; what was written before can still be read.
pub fn end_input(stream: &Stream) {
    let _closed = shutdown(stream.as_fd().as_raw_fd(), Shutdown::Read);
}

/// The connection that a worker in this executable was handed over by its number, `WORKHALL_FD`.
pub fn inherited_stream(number: RawFd) -> io::Result<UnixStream> {
    if number <= 2 {
        return Err(io::Error::other(format!("{number} is no descriptor that a supervisor hands over")));
    }
    // SAFETY: borrowed for this one call, which fails if the number is not open.
    #[allow(unsafe_code)]
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    // A copy: whoever else might own the number keeps it.
    Ok(UnixStream::from(borrowed.try_clone_to_owned()?))
}

/// A connected pair: ours, which does not block, and the one to be inherited, which does.
pub fn stream_pair() -> io::Result<(Stream, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    let ours = Stream::from(ours);
    ours.set_nonblocking(true)?;
    Ok((ours, theirs))
}

// ---- waiting --------------------------------------------------------------------------------

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Bytes to read, or the end.
    pub read: bool,
    /// Room to write.
    pub write: bool,
}

/// What a descriptor is ready for.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// The token it was added with.
    pub token: u64,
    /// Bytes to read, the end, or an error.
    pub read: bool,
    /// Room to write, or an error.
    pub write: bool,
    /// Both directions are closed, or broken.
    pub hung_up: bool,
}

/// The one thing that waits: epoll, level-triggered.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

impl Poller {
    /// An empty one; `batch` is how many events one wake-up brings at most.
    pub fn new(batch: usize) -> io::Result<Poller> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Poller { epoll, events: vec![EpollEvent::empty(); batch] })
    }

    /// Watches a descriptor.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(flags(interest), token))?)
    }

    /// Watches a file of the kernel's for a change of what it says (EPOLLPRI), until it is read again.
    pub fn add_changes(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLPRI, token))?)
    }

    /// Watches it for something else.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.modify(fd, &mut EpollEvent::new(flags(interest), token))?)
    }

    /// Watches it no more.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(self.epoll.delete(fd)?)
    }

    /// Waits; for ever without a timeout. A timeout is rounded up to a millisecond. A signal ends the
    /// wait without an event.
    pub fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            Some(timeout) => {
                let millis = timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32;
                EpollTimeout::try_from(millis).expect("is not negative")
            }
        };
        ready.clear();
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(e) => return Err(e.into()),
        };
        ready.extend(self.events[..count].iter().map(|event| {
            let flags = event.events();
            let broken = flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
            Ready {
                token: event.data(),
                read: broken || flags.contains(EpollFlags::EPOLLIN),
                write: broken || flags.contains(EpollFlags::EPOLLOUT),
                hung_up: broken,
            }
        }));
        Ok(())
    }
}

fn flags(interest: Interest) -> EpollFlags {
    let mut flags = EpollFlags::empty();
    flags.set(EpollFlags::EPOLLIN, interest.read);
    flags.set(EpollFlags::EPOLLOUT, interest.write);
    flags
}

// ---- processes ------------------------------------------------------------------------------

/// A descriptor that stands for a child, and only for it.
pub fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Collects the exit status of a child; none while it lives.
pub fn reap(pidfd: impl AsFd) -> io::Result<Option<Exit>> {
    let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?;
    Ok(status.map(|status| exit_of(&status)))
}

/// Waits for the end of a child that was killed just now, and collects it.
pub fn wait_for_end(pidfd: impl AsFd) {
    while let Err(rustix::io::Errno::INTR) =
        rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
    {}
}

/// The same for one that has no pidfd and is not reaped yet.
pub fn wait_for_child(pid: i32) {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return };
    while let Err(rustix::io::Errno::INTR) = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) {}
}

/// Collects the exit status of an adopted child, if it has ended; says whether it had.
pub fn reap_adopted(pid: i32) -> bool {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return false };
    let status = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    matches!(status, Ok(Some(_)))
}

fn exit_of(status: &WaitIdStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(0)),
    }
}

/// SIGTERM to a worker's process and its group, then SIGCONT, so that stopped ones notice. The process
/// must not be reaped yet: so its number cannot be another's. One that has ended is no error.
pub fn terminate(leader: i32) {
    signal_group(leader, Signal::SIGTERM);
    signal_group(leader, Signal::SIGCONT);
}

/// SIGSTOP to a worker's process and its group, not reaped yet. Not `cgroup.freeze`: when the supervisor dies suddenly, its
/// workers' groups are orphaned, and the kernel sends SIGHUP and SIGCONT to an orphaned group that is stopped. What is
/// frozen would keep its name for ever. (PR_SET_PDEATHSIG is no way: it means the death of the thread, so also an exec.)
pub fn pause(leader: i32) {
    signal_group(leader, Signal::SIGSTOP);
}

/// SIGCONT to a worker's process and its group, not reaped yet.
pub fn resume(leader: i32) {
    signal_group(leader, Signal::SIGCONT);
}

/// SIGKILL to a worker's process and its group, not reaped yet.
pub fn kill_group(leader: i32) {
    signal_group(leader, Signal::SIGKILL);
}

/// The group was made with the process. A leader that has left it gets the signal itself; one that has
/// not gets it once.
fn signal_group(leader: i32, signal: Signal) {
    let leader = Pid::from_raw(leader);
    let _ended = killpg(leader, signal);
    if nix::unistd::getpgid(Some(leader)).is_ok_and(|group| group != leader) {
        let _ended = kill(leader, signal);
    }
}

/// SIGKILL to a child of ours that is not reaped yet.
pub fn kill_child(pid: i32) {
    let _ended = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

/// The same descriptor under a number that is out of the way of programs that take care of what is open next to their
/// own: Node.js, at its start, marks all that it finds up to the first that is closed beyond 15. Where so many are not
/// allowed it keeps its number.
pub fn out_of_the_way(fd: OwnedFd) -> OwnedFd {
    const LEAST: RawFd = 64;
    rustix::io::fcntl_dupfd_cloexec(&fd, LEAST).unwrap_or(fd)
}

/// Lets a descriptor through to the program that is executed next, until the guard is dropped.
/// Only while no other thread starts processes.
pub struct Inherit<'a>(BorrowedFd<'a>);

impl<'a> Inherit<'a> {
    /// Clears close-on-exec.
    pub fn new(fd: &'a OwnedFd) -> io::Result<Inherit<'a>> {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(Inherit(fd.as_fd()))
    }

    /// The number to tell the program.
    pub fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Drop for Inherit<'_> {
    fn drop(&mut self) {
        let set = fcntl(self.0, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        debug_assert!(set.is_ok(), "the descriptor is open as long as it is borrowed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    #[test]
    fn inherited_descriptors_are_sealed() {
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        fcntl(&a, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        seal_inherited_descriptors().unwrap();
        assert_eq!(fcntl(&a, FcntlArg::F_GETFD).unwrap(), FdFlag::FD_CLOEXEC.bits());
        drop((a, b.into_raw_fd()));
    }

    #[test]
    fn what_is_out_of_the_way_is_the_same_file_and_not_inherited() {
        let (ours, theirs) = stream_pair().unwrap();
        let theirs = out_of_the_way(theirs);
        assert!(theirs.as_raw_fd() >= 64);
        assert_eq!(fcntl(&theirs, FcntlArg::F_GETFD).unwrap(), FdFlag::FD_CLOEXEC.bits());
        drop(theirs);
        // Nobody else has the other end: the first number is closed.
        assert_eq!(std::io::Read::read(&mut &ours, &mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_descriptor_is_inherited_only_while_the_guard_lives() {
        let (_ours, theirs) = stream_pair().unwrap();
        let flag = |fd: &OwnedFd| fcntl(fd, FcntlArg::F_GETFD).unwrap();
        let guard = Inherit::new(&theirs).unwrap();
        assert_eq!(flag(&theirs), 0);
        drop(guard);
        assert_eq!(flag(&theirs), FdFlag::FD_CLOEXEC.bits());
    }

    #[test]
    fn only_a_lock_file_of_our_own_is_locked_and_written() {
        let dir = std::env::temp_dir().join(format!("workhall-lock-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (path, victim) = (dir.join("w.lock"), dir.join("victim"));
        let precious = "precious\n".repeat(100);
        std::fs::write(&victim, &precious).unwrap();
        let refused = |part: &str| {
            let error = lock(&path).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert_eq!(std::fs::read_to_string(&victim).unwrap(), precious);
            std::fs::remove_file(&path).unwrap();
        };
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        refused("symbolic link");
        std::os::unix::fs::symlink(dir.join("not there"), &path).unwrap();
        refused("symbolic link");
        assert!(!dir.join("not there").exists());
        std::fs::hard_link(&victim, &path).unwrap();
        refused("no file of its own");
        for text in [&*precious, "123456789012\n", "ab\n"] {
            std::fs::write(&path, text).unwrap();
            let error = lock(&path).unwrap_err().to_string();
            assert_eq!((error.contains("no lock file"), &*std::fs::read_to_string(&path).unwrap()), (true, text));
            std::fs::remove_file(&path).unwrap();
        }
        std::fs::write(&path, "").unwrap();
        if std::os::unix::fs::chown(&path, Some(65534), None).is_ok() {
            refused("belongs to user 65534");
        } else {
            println!("skipped in part: only root can give a file away");
        }
        // One that is ours: with the mode that keeps others from holding the lock, and our number.
        std::fs::write(&path, "4194304\n").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        for _ in 0..2 {
            let held = lock(&path).unwrap().unwrap();
            assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
            assert!(lock(&path).unwrap().is_none(), "it is held");
            assert!(held.is_at(&path));
            std::fs::remove_file(&path).unwrap();
            assert!(!held.is_at(&path));
            // The lock that nobody finds keeps nobody out, and is known for it.
            let next = lock(&path).unwrap().unwrap();
            assert!(next.is_at(&path) && !held.is_at(&path));
            std::fs::remove_file(&path).unwrap();
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_child_is_reaped_through_its_pidfd_with_its_status() {
        for (script, exit) in
            [("exit 3", Exit::Code(3)), ("kill -9 $$", Exit::Signal(9)), ("kill -40 $$", Exit::Signal(40))]
        {
            #[allow(clippy::zombie_processes, reason = "reaped through its pidfd, which is what is tested")]
            let child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pidfd = open_pidfd(child.id() as i32).unwrap();
            let mut poller = Poller::new(1).unwrap();
            poller.add(&pidfd, 7, Interest { read: true, write: false }).unwrap();
            let mut ready = Vec::new();
            while ready.is_empty() {
                poller.wait(Some(Duration::from_secs(20)), &mut ready).unwrap();
            }
            assert_eq!(ready[0].token, 7);
            assert_eq!(reap(&pidfd).unwrap(), Some(exit));
        }
    }
}
