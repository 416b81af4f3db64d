//! The only file of this crate that names the operating system's interfaces: nix, rustix and interprocess.
//! Thin: each function is one thing that the kernel does, and decides nothing.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use interprocess::local_socket::traits::{Listener as _, Stream as _};
use interprocess::local_socket::{ConnectOptions, GenericFilePath, ListenerNonblockingMode, ListenerOptions, ToFsName};
use interprocess::os::unix::local_socket::ListenerOptionsExt as _;
use interprocess::os::unix::uds_local_socket;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, getsockopt, shutdown, socketpair};
use nix::unistd::{Gid, Group, Pid, Uid, User};
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus};
use workhall_protocol::terms::Exit;

use crate::access::Creds;

/// A connected local socket.
pub type Stream = uds_local_socket::Stream;
/// A listening local socket.
pub type Listener = uds_local_socket::Listener;

/// The longest path of a socket, in bytes: what fits into `sockaddr_un`, with its end.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

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

/// Who is at the other end, as the kernel noted when it connected.
pub fn peer_creds(stream: &Stream) -> io::Result<Creds> {
    let creds = getsockopt(stream, PeerCredentials)?;
    Ok(Creds { pid: creds.pid(), uid: creds.uid(), gid: creds.gid() })
}

/// Who this process is.
pub fn own_creds() -> Creds {
    Creds { pid: std::process::id() as i32, uid: Uid::effective().as_raw(), gid: Gid::effective().as_raw() }
}

/// The number of a user; none if there is no such user.
pub fn user_number(name: &str) -> io::Result<Option<u32>> {
    Ok(User::from_name(name)?.map(|user| user.uid.as_raw()))
}

/// The number of a group and those of its members; none if there is no such group. Who has it as the primary
/// group only is not listed there.
pub fn group_members(name: &str) -> io::Result<Option<(u32, Vec<u32>)>> {
    Group::from_name(name)?.map(with_members).transpose()
}

/// The same for a group that is known by its number.
pub fn group_members_of(number: u32) -> io::Result<Option<(u32, Vec<u32>)>> {
    Group::from_gid(Gid::from_raw(number))?.map(with_members).transpose()
}

fn with_members(group: Group) -> io::Result<(u32, Vec<u32>)> {
    let mut members = Vec::new();
    for name in &group.mem {
        // A member whose user is gone is nobody.
        members.extend(user_number(name)?);
    }
    Ok((group.gid.as_raw(), members))
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

/// Connects, blocking.
pub fn connect(path: &Path) -> io::Result<Stream> {
    ConnectOptions::new().name(path.to_fs_name::<GenericFilePath>()?).connect_sync_as()
}

/// A read that takes longer than this fails with `WouldBlock`; none is for ever.
pub fn set_read_timeout(stream: &Stream, timeout: Option<Duration>) -> io::Result<()> {
    stream.set_recv_timeout(timeout)
}

/// From here on nobody can write to it any more; what was written before can still be read.
pub fn end_input(stream: &Stream) {
    let _closed = shutdown(stream.as_fd().as_raw_fd(), Shutdown::Read);
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

// ---- the process itself ---------------------------------------------------------------------

/// Takes the lock on a file, for as long as the file is held. None if another process has it.
pub fn lock(path: &Path) -> io::Result<Option<LockFile>> {
    // Who could open it could hold the lock.
    let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => {
            let mut file: &File = &lock;
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())?;
            Ok(Some(LockFile(lock)))
        }
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, e)) => Err(e.into()),
    }
}

/// A lock that the kernel releases with the process.
#[derive(Debug)]
pub struct LockFile(#[allow(dead_code, reason = "held, not read")] Flock<File>);

/// Adopts the orphans of the processes below (PR_SET_CHILD_SUBREAPER).
pub fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Raises the soft limit of open descriptors to the hard one; returns it.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Unblocks all signals: a mask that was inherited would go on to every worker.
pub fn unblock_signals() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Marks what was inherited, but for stdin, stdout and stderr, close-on-exec: it is nobody's below.
pub fn seal_inherited_descriptors() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number: Option<RawFd> = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(number) = number.filter(|number| *number > 2) {
            // SAFETY: borrowed for this one call. A number that is not open any more (that of the directory
            // being read, at its end) is answered by EBADF, and nothing else runs yet that could open it anew.
            #[allow(unsafe_code)]
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            match fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
                Ok(_) | Err(Errno::EBADF) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(())
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
    fn a_descriptor_is_inherited_only_while_the_guard_lives() {
        let (_ours, theirs) = stream_pair().unwrap();
        let flag = |fd: &OwnedFd| fcntl(fd, FcntlArg::F_GETFD).unwrap();
        let guard = Inherit::new(&theirs).unwrap();
        assert_eq!(flag(&theirs), 0);
        drop(guard);
        assert_eq!(flag(&theirs), FdFlag::FD_CLOEXEC.bits());
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
