//! The process itself: its locks, limits and privileges.

use std::ffi::CStr;
use std::fs::{File, Permissions};
use std::io::{self, Read, Seek as _, Write as _};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, OFlag, fcntl, open};
use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Pid, Uid};

/// The most that stands in a lock file, in bytes: a process id and a newline.
const LOCK_BYTES_MAX: u64 = 11;

/// How often a lock is taken anew whose file was removed meanwhile.
const LOCK_TRIES_MAX: usize = 100;

/// Bytes that nobody can guess. Waits where the kernel has not gathered any yet, shortly after the machine has started.
pub fn random_bytes() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())? {
        16 => Ok(bytes),
        // The kernel gives so few at once.
        count => Err(io::Error::other(format!("the kernel gave {count} random bytes instead of 16"))),
    }
}

/// Takes the lock on the file at a path, for as long as the file is held, and writes our process id into it.
/// None if another process has it. Nothing but a lock file of our own user is ever locked or written: the
/// directory may be everybody's.
pub fn lock(path: &Path) -> io::Result<Option<LockFile>> {
    for _ in 0..LOCK_TRIES_MAX {
        let Some(lock) = try_lock(path)? else { return Ok(None) };
        // Between opening and locking it may have been removed, and another been made in its place: the
        // lock on a file that nobody finds keeps nobody out.
        if lock.is_at(path) {
            return Ok(Some(lock));
        }
    }
    Err(io::Error::other("it is removed again and again"))
}

fn try_lock(path: &Path) -> io::Result<Option<LockFile>> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path).map_err(|error| {
        match error.raw_os_error() == Some(Errno::ELOOP as i32) {
            true => io::Error::other("it is a symbolic link, which is not followed: remove it"),
            false => error,
        }
    })?;
    let meta = file.metadata()?;
    let user = nix::unistd::geteuid().as_raw();
    if meta.uid() != user {
        let owner = meta.uid();
        return Err(io::Error::other(format!("it belongs to user {owner}, not to {user}: remove it, or become them")));
    }
    if !meta.is_file() || meta.nlink() > 1 {
        return Err(io::Error::other("it is no file of its own (another name leads to it, too): remove it"));
    }
    let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
        Err((_, e)) => return Err(e.into()),
    };
    let mut file: &File = &lock;
    let mut text = Vec::new();
    Read::take(file, LOCK_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LOCK_BYTES_MAX || !text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'\n') {
        return Err(io::Error::other("it is no lock file, something else stands in it: move it away"));
    }
    // One of an earlier version may be open to others, who could hold the lock then.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(Some(LockFile(lock)))
}

/// A lock that the kernel releases with the process.
#[derive(Debug)]
pub struct LockFile(pub(super) Flock<File>);

impl LockFile {
    /// Whether the file that is locked is still the one at this path.
    pub fn is_at(&self, path: &Path) -> bool {
        match (self.0.metadata(), path.symlink_metadata()) {
            (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }
}

/// Opens a directory; a link is not followed.
pub fn open_directory(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)
}

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

/// How many units of processor time, as `/proc` tells it, are a second.
pub fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second()
}

/// What the machine or its limits lack, and where they are set, if that is why something failed.
pub fn shortage(error: &io::Error) -> Option<&'static str> {
    match Errno::from_raw(error.raw_os_error()?) {
        Errno::EMFILE => Some("the limit of open files is reached: `ulimit -n`, or LimitNOFILE of the service"),
        Errno::ENFILE => Some("the machine's limit of open files is reached: fs.file-max"),
        Errno::EAGAIN => Some("the limit of processes is reached: `ulimit -u`, or TasksMax of the service"),
        Errno::ENOMEM => Some("there is not enough memory"),
        _ => None,
    }
}

/// From here on nothing that is executed gains privileges by it (PR_SET_NO_NEW_PRIVS); there is no way back.
pub fn set_no_new_privs() -> io::Result<()> {
    Ok(nix::sys::prctl::set_no_new_privs()?)
}

/// Joins the control group with this `cgroup.procs`. Takes no memory.
pub fn join_group(procs: &CStr) -> io::Result<()> {
    let file = open(procs, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::write(file, b"0")?;
    Ok(())
}

/// Goes to a directory. Takes no memory.
pub fn change_directory(path: &CStr) -> io::Result<()> {
    Ok(nix::unistd::chdir(path)?)
}

/// Sets how nice it is to others, from -20 to 19.
pub fn set_nice(nice: i32) -> io::Result<()> {
    Ok(rustix::process::setpriority_process(None, nice)?)
}

/// Sets which permissions new files lack.
pub fn set_umask(mask: u32) {
    umask(Mode::from_bits_truncate(mask));
}

/// Sets the soft and the hard limit; none is unlimited.
pub fn set_limit(limit: Limit, value: Option<u64>) -> io::Result<()> {
    let value = value.unwrap_or(nix::sys::resource::RLIM_INFINITY);
    Ok(setrlimit(limit.resource(), value, value)?)
}

/// A resource that the kernel limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs, reason = "they are named as in the configuration, whose table says what they are")]
pub enum Limit {
    OpenFiles,
    UserProcesses,
    CpuTime,
    AddressSpace,
    Data,
    Stack,
    Core,
    FileSize,
    LockedMemory,
}

impl Limit {
    /// Its key in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Limit::OpenFiles => "open_files",
            Limit::UserProcesses => "user_processes",
            Limit::CpuTime => "cpu_time",
            Limit::AddressSpace => "address_space",
            Limit::Data => "data",
            Limit::Stack => "stack",
            Limit::Core => "core",
            Limit::FileSize => "file_size",
            Limit::LockedMemory => "locked_memory",
        }
    }

    fn resource(self) -> Resource {
        match self {
            Limit::OpenFiles => Resource::RLIMIT_NOFILE,
            Limit::UserProcesses => Resource::RLIMIT_NPROC,
            Limit::CpuTime => Resource::RLIMIT_CPU,
            Limit::AddressSpace => Resource::RLIMIT_AS,
            Limit::Data => Resource::RLIMIT_DATA,
            Limit::Stack => Resource::RLIMIT_STACK,
            Limit::Core => Resource::RLIMIT_CORE,
            Limit::FileSize => Resource::RLIMIT_FSIZE,
            Limit::LockedMemory => Resource::RLIMIT_MEMLOCK,
        }
    }
}

/// Keeps this thread, and what it starts meanwhile, on one processor; until it is dropped.
#[derive(Debug)]
pub struct Pinned {
    before: CpuSet,
}

impl Pinned {
    /// To the first processor that this thread may run on.
    pub fn new() -> io::Result<Pinned> {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this)?;
        let first = (0..CpuSet::count()).find(|cpu| before.is_set(*cpu) == Ok(true));
        let mut one = CpuSet::new();
        one.set(first.ok_or(io::ErrorKind::NotFound)?)?;
        sched_setaffinity(this, &one)?;
        Ok(Pinned { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let set = sched_setaffinity(Pid::from_raw(0), &self.before);
        debug_assert_eq!(set, Ok(()), "it was so before");
    }
}

/// Takes the supplementary groups.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    let groups: Vec<Gid> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
    Ok(nix::unistd::setgroups(&groups)?)
}

/// Takes the group: real, effective and saved.
pub fn set_group(group: u32) -> io::Result<()> {
    let group = Gid::from_raw(group);
    Ok(nix::unistd::setresgid(group, group, group)?)
}

/// Becomes the user: real, effective and saved, so that there is no way back.
pub fn set_user(user: u32) -> io::Result<()> {
    let user = Uid::from_raw(user);
    Ok(nix::unistd::setresuid(user, user, user)?)
}

/// From here on stdin is empty, and what this process wrote to a closed pipe kills it, as programs expect who were not
/// written in Rust: its runtime ignores SIGPIPE.
pub fn as_programs_expect() -> io::Result<()> {
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    // SAFETY: the default disposition runs no code of ours.
    #[allow(unsafe_code)]
    unsafe {
        nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigDfl)?;
    }
    Ok(())
}

/// A file in memory with this content, to be read from its beginning.
pub fn memory_file(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("workhall-plan", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
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
