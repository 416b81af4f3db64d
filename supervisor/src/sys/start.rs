//! Starting a process, and becoming another program.
//!
//! A process is started as posix_spawn does it: it uses the supervisor's memory, none of which is copied, and the
//! thread that starts it stands still until it has executed its program or ended ([`crate::starter`]). What posix_spawn
//! cannot do can so be done between the two.

#[cfg(target_arch = "x86_64")]
use std::arch::asm;
use std::ffi::{CString, OsStr, OsString, c_char};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::SeqCst;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sched::{CloneFlags, clone};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, setpgid};

/// The stack of a process until it executes its program, in bytes: several times what it needs (there is a test).
const STACK_BYTES: usize = 64 << 10;

/// A program with its command line and its environment, ready to be executed without taking memory.
#[derive(Debug)]
pub struct Image {
    program: CString,
    words: Vector,
    environment: Vector,
}

impl Image {
    /// Fails if something in it has a NUL byte.
    pub fn new(
        program: &OsStr,
        words: &[impl AsRef<OsStr>],
        environment: &[(OsString, OsString)],
    ) -> io::Result<Image> {
        let words = words.iter().map(|word| CString::new(word.as_ref().as_bytes()));
        let environment = environment.iter().map(|(name, value)| {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            CString::new([name, b"=", value].concat())
        });
        Ok(Image {
            program: CString::new(program.as_bytes())?,
            words: Vector::new(words.collect::<Result<_, _>>()?),
            environment: Vector::new(environment.collect::<Result<_, _>>()?),
        })
    }

    /// Becomes it: comes back only if that fails. Unlike `Command::exec` it never takes a file that is no program for
    /// a script of the shell.
    pub fn execute(&self) -> io::Error {
        // SAFETY: all three point to strings, or to pointers to strings with a null behind them, that live as long as
        // self and are not changed.
        #[allow(unsafe_code)]
        unsafe {
            libc::execve(self.program.as_ptr(), self.words.as_ptr(), self.environment.as_ptr());
        }
        Errno::last().into()
    }
}

/// Strings as the kernel wants them: pointers with a null behind them.
#[derive(Debug)]
struct Vector {
    pointers: Vec<*const c_char>,
    /// What they point to. It is on the heap: this value may be moved.
    _strings: Vec<CString>,
}

// SAFETY: it points to what it owns, on the heap, and nobody changes that.
#[allow(unsafe_code)]
unsafe impl Send for Vector {}

impl Vector {
    fn new(strings: Vec<CString>) -> Vector {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Vector { pointers, _strings: strings }
    }

    fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

/// Starts a process, leader of a process group of its own, that does this and, if it comes back from it, ends with the
/// status that it says. Returns its id when it has executed a program or ended: so long this thread stands still, which may
/// be for ever where a file system does not answer. That is why `begun` tells other threads its id before.
///
/// Where the kernel can do it, it is born in the control group `group`, a directory; whether it was is said to it: else it
/// is to join the group by itself. Joining means waiting for all processors of the machine, mostly for 20 to 70 µs and after
/// a quiet time for up to 16 ms.
///
/// Of our descriptors it has the first three and those in `keep`, in rising order. Should we die before it has executed
/// a program, nobody takes it for us.
///
/// It is no thread and no copy: what it changes in memory is changed, what it takes of it and does not give back is
/// lost. It must take none: with a lock on what is free it might be killed.
pub fn start(
    group: Option<&Path>,
    keep: &[RawFd],
    begun: &AtomicI32,
    become_program: impl FnMut(bool) -> u8,
) -> io::Result<i32> {
    start_on(&mut vec![0; STACK_BYTES], group, keep, begun, become_program)
}

fn start_on(
    stack: &mut [u8],
    group: Option<&Path>,
    keep: &[RawFd],
    begun: &AtomicI32,
    mut become_program: impl FnMut(bool) -> u8,
) -> io::Result<i32> {
    let mut child = |in_group| {
        // A handler of ours would run in our memory, for a signal that was sent to another process.
        forget_handlers();
        let this = Pid::from_raw(0);
        if setpgid(this, this).and_then(|()| SigSet::empty().thread_set_mask()).is_err() {
            return u8::MAX;
        }
        close_others(keep);
        begun.store(Pid::this().as_raw(), SeqCst);
        become_program(in_group)
    };
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let started = match group.and_then(|group| born_in(group, stack, &mut || child(true))) {
        Some(pid) => Ok(pid),
        None => born(stack, || child(false)),
    };
    let restored = before.thread_set_mask();
    debug_assert_eq!(restored, Ok(()), "it was so before");
    started
}

/// Closes all descriptors but the first three and these. A kernel before 5.9 cannot: then they are closed when a program
/// is executed.
fn close_others(keep: &[RawFd]) {
    debug_assert!(keep.is_sorted());
    let mut first = 3;
    for last in keep.iter().map(|kept| kept - 1).chain([RawFd::MAX]) {
        if first <= last {
            // SAFETY: it is a process of its own, which shares our memory but not our descriptors.
            #[allow(unsafe_code)]
            unsafe {
                libc::syscall(libc::SYS_close_range, first, last, 0);
            }
        }
        first = last.saturating_add(2);
    }
}

fn born(stack: &mut [u8], mut child: impl FnMut() -> u8) -> io::Result<i32> {
    let child = Box::new(|| isize::from(child()));
    // SAFETY: this thread does not go on before the child has another memory, or has ended (CLONE_VFORK): so all that
    // is borrowed outlives the child's use of it, and what is this thread's, like errno, nobody else uses meanwhile. Other
    // threads of ours may run; to them the child is one more. The stack is the child's alone.
    // A panic does not leave the closure: it aborts the child. No handler of a signal runs in it: the caller has
    // blocked them.
    #[allow(unsafe_code)]
    let started =
        unsafe { clone(child, stack, CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK, Some(Signal::SIGCHLD as i32)) };
    Ok(started?.as_raw())
}

/// None where the kernel, or what restricts the supervisor, does not let it: then there is no process.
#[cfg(target_arch = "x86_64")]
fn born_in(group: &Path, stack: &mut [u8], mut child: &mut dyn FnMut() -> u8) -> Option<i32> {
    /// libc's is a shorter number, and so zero.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    extern "C" fn run(child: *mut &mut dyn FnMut() -> u8) -> ! {
        // SAFETY: it points to the variable of `born_in`, which stands still. _exit is for processes that share memory:
        // it runs nothing of what is to happen at the end of the supervisor.
        #[allow(unsafe_code)]
        unsafe {
            let status = (*child)();
            libc::_exit(status.into())
        }
    }
    let group = open(group, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    // A call expects its stack like this.
    let stack_bytes = (stack.len() - stack.as_ptr().align_offset(16)) & !15;
    let arguments = libc::clone_args {
        flags: (libc::CLONE_VM | libc::CLONE_VFORK) as u64 | CLONE_INTO_CGROUP,
        exit_signal: Signal::SIGCHLD as u64,
        stack: (stack.as_mut_ptr() as u64).next_multiple_of(16),
        stack_size: stack_bytes as u64,
        cgroup: group.as_raw_fd() as u64,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
    };
    let started: i64;
    // SAFETY: as in `born`. The child begins behind the same instruction, with a zero and on its own stack, and never
    // comes back from `run`: of what it does to registers this thread sees nothing.
    #[allow(unsafe_code)]
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp", // the outermost frame
            "mov rdi, {child}",
            "call {run}",
            "ud2",
            "2:",
            child = in(reg) &raw mut child,
            run = sym run,
            inlateout("rax") libc::SYS_clone3 => started,
            in("rdi") &raw const arguments,
            in("rsi") size_of::<libc::clone_args>(),
            // Not lateout: what the child is given must not be in them, which the kernel overwrites.
            out("rcx") _,
            out("r11") _,
        );
    }
    i32::try_from(started).ok().filter(|pid| *pid > 0)
}

#[cfg(not(target_arch = "x86_64"))]
fn born_in(_: &Path, _: &mut [u8], _: &mut dyn FnMut() -> u8) -> Option<i32> {
    None
}

/// What has a handler is as it is for a new program; what is ignored stays ignored.
fn forget_handlers() {
    for number in 1..=libc::SIGRTMAX() {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: the kernel writes one action to where there is room for one, and reads it from there; zeroes are an
        // action too. The default disposition runs no code of ours.
        #[allow(unsafe_code)]
        unsafe {
            if libc::sigaction(number, ptr::null(), action.as_mut_ptr()) != 0 {
                continue;
            }
            let action = action.assume_init_mut();
            if ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction) {
                action.sa_sigaction = libc::SIG_DFL;
                action.sa_flags = 0;
                libc::sigaction(number, action, ptr::null_mut());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launcher::{Plan, Prepared, become_program};
    use crate::sys::{Interest, Limit, Poller, reap, wait_for_child};
    use nix::sys::signal::kill;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32};
    use std::time::Duration;
    use workhall_protocol::MarkPage;
    use workhall_protocol::terms::Exit;

    /// A plan with all that is done without the launcher, to execute a script that says what it is.
    fn plan(script: &str) -> (Plan, Prepared) {
        let plan = Plan {
            program: "/bin/sh".into(),
            words: ["sh", "-c", script].map(String::from).to_vec(),
            limits: vec![(Limit::OpenFiles, Some(20)), (Limit::Core, Some(0))],
            umask: Some(0o027),
            directory: Some("/".into()),
            no_new_privs: true,
            ..Plan::default()
        };
        let prepared = plan.prepare(&[("SAID".into(), "it".into())]).unwrap();
        (plan, prepared)
    }

    /// Starts it, waits for its end, and returns its id and what it has written.
    fn said(script: &str) -> (i32, Vec<String>) {
        let (mut out, theirs) = io::pipe().unwrap();
        let (plan, prepared) = plan(script);
        let (page, _fd) = MarkPage::create().unwrap();
        let pid = start(None, &[theirs.as_raw_fd()], &AtomicI32::new(0), |_| match nix::unistd::dup2_stdout(&theirs) {
            Ok(()) => become_program(&plan, &prepared, false).tell(&page),
            Err(_) => 1,
        })
        .unwrap();
        drop(theirs);
        let text = io::read_to_string(&mut out).unwrap();
        assert_eq!((end_of(pid), page.launch_failure()), (Exit::Code(0), None));
        (pid, text.lines().map(str::to_string).collect())
    }

    /// Waits for its end.
    fn end_of(pid: i32) -> Exit {
        let pidfd = crate::sys::open_pidfd(pid).unwrap();
        let mut poller = Poller::new(1).unwrap();
        poller.add(&pidfd, 0, Interest { read: true, write: false }).unwrap();
        let mut ready = Vec::new();
        while ready.is_empty() {
            poller.wait(Some(Duration::from_secs(20)), &mut ready).unwrap();
        }
        reap(&pidfd).unwrap().expect("it has ended")
    }

    #[test]
    fn a_process_has_nothing_of_ours_but_what_it_is_given() {
        let (mut blocked, this) = (SigSet::empty(), SigSet::thread_get_mask().unwrap());
        blocked.add(Signal::SIGUSR1);
        blocked.thread_block().unwrap();
        let (pid, lines) = said(
            "echo $$; cut -d' ' -f5 /proc/$$/stat; echo $SAID; umask; pwd; ulimit -n; env; exec cat /proc/self/status",
        );
        assert_eq!(SigSet::thread_get_mask().unwrap(), blocked | this, "our mask is as it was");
        this.thread_set_mask().unwrap();
        let pid = pid.to_string();
        assert_eq!(lines[..6], [&*pid, &*pid, "it", "0027", "/", "20"]);
        let line = |key: &str| lines.iter().find_map(|line| line.strip_prefix(key)).unwrap().trim();
        assert_eq!((line("SigBlk:"), line("NoNewPrivs:")), ("0000000000000000", "1"));
        let ignored = u64::from_str_radix(line("SigIgn:"), 16).unwrap();
        assert_eq!(ignored & 1 << (Signal::SIGPIPE as u32 - 1), 0);
        assert!(lines.iter().all(|line| !line.starts_with("CARGO")), "{lines:?}");
        assert_ne!(std::env::current_dir().unwrap(), std::path::Path::new("/"), "ours is as it was");
    }

    #[test]
    fn a_process_is_born_in_its_control_group() {
        let Ok(own) = crate::cgroup::own_group() else { return println!("skipped: no control groups") };
        let group = own.join(format!("workhall-start-{}", std::process::id()));
        if std::fs::create_dir(&group).is_err() {
            return println!("skipped: not allowed to make control groups");
        }
        let (mut out, theirs) = io::pipe().unwrap();
        let image = Image::new(OsStr::new("/bin/cat"), &["cat", "/proc/self/cgroup"], &[]).unwrap();
        let (mut was_born_in_it, mut stack) = (None, vec![0; STACK_BYTES + 1]);
        // Also where the memory for its stack begins at an odd place.
        let pid = start_on(&mut stack[1..], Some(&group), &[theirs.as_raw_fd()], &AtomicI32::new(0), |in_group| {
            was_born_in_it = Some(in_group);
            let _failed = nix::unistd::dup2_stdout(&theirs).map(|()| image.execute());
            1
        });
        drop(theirs);
        let text = io::read_to_string(&mut out).unwrap();
        let end = end_of(pid.unwrap());
        std::fs::remove_dir(&group).unwrap();
        assert_eq!((end, was_born_in_it), (Exit::Code(0), Some(true)), "{text}");
        let name = group.file_name().unwrap().to_str().unwrap();
        assert!(text.lines().any(|line| line.starts_with("0::") && line.ends_with(name)), "{text}");
        // A group that is not there: it is started all the same, and is told so.
        let pid = start(Some(&group), &[], &AtomicI32::new(0), u8::from).unwrap();
        assert_eq!(end_of(pid), Exit::Code(0));
    }

    #[test]
    fn a_process_has_no_descriptor_of_ours_before_it_executes_a_program() {
        let (kept, lost) = (io::pipe().unwrap(), io::pipe().unwrap());
        let mut keep = [kept.0.as_raw_fd(), kept.1.as_raw_fd()];
        keep.sort_unstable();
        let all = [kept.0.as_raw_fd(), kept.1.as_raw_fd(), 0, lost.0.as_raw_fd(), lost.1.as_raw_fd()];
        let all = all.map(|fd| format!("/proc/self/fd/{fd}"));
        let is_open = |path: &String| std::fs::symlink_metadata(path).is_ok();
        let open = || all.iter().enumerate().map(|(bit, path)| u8::from(is_open(path)) << bit).sum();
        let pid = start(None, &keep, &AtomicI32::new(0), |_| open()).unwrap();
        assert_eq!(end_of(pid), Exit::Code(0b00111), "a bit for each that it has");
        assert!(all.iter().all(is_open), "ours are as they were");
    }

    #[test]
    fn a_signal_to_a_process_is_not_handled_by_us() {
        let seen = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(Signal::SIGUSR2 as i32, seen.clone()).unwrap();
        let pid = start(None, &[], &AtomicI32::new(0), |_| match kill(Pid::this(), Signal::SIGUSR2) {
            Ok(()) => 0,
            Err(_) => 1,
        })
        .unwrap();
        assert_eq!(end_of(pid), Exit::Signal(Signal::SIGUSR2 as i32));
        assert!(!seen.load(SeqCst));
        nix::sys::signal::raise(Signal::SIGUSR2).unwrap();
        assert!(seen.load(SeqCst), "our own is");
    }

    #[test]
    fn its_memory_is_ours() {
        let calls = AtomicU32::new(0);
        let begun = AtomicI32::new(0);
        let pid = start(None, &[], &begun, |_| {
            calls.store(std::process::id(), SeqCst);
            77
        })
        .unwrap();
        assert_eq!(begun.into_inner(), pid);
        assert_eq!(calls.load(SeqCst), pid as u32, "it was another process, in the same memory");
        assert_eq!(end_of(pid), Exit::Code(77));
    }

    #[test]
    fn d05_what_fails_in_the_process_stands_in_the_page() {
        let changed = |change: fn(&mut Plan)| {
            let (mut plan, _) = plan("");
            change(&mut plan);
            let prepared = plan.prepare(&[]).unwrap();
            (plan, prepared)
        };
        let never = changed(|plan| plan.directory = Some("/not there".into()));
        let nothing = changed(|plan| plan.program = "/not/there".into());
        for ((plan, prepared), part) in [(never, "cannot start in /not there"), (nothing, "cannot execute /not/there")]
        {
            let (page, _fd) = MarkPage::create().unwrap();
            let pid =
                start(None, &[], &AtomicI32::new(0), |_| become_program(&plan, &prepared, false).tell(&page)).unwrap();
            wait_for_child(pid);
            let (step, error) = page.launch_failure().unwrap();
            let (_, detail) = plan.failure(step, error, "").unwrap();
            assert!(detail.contains(part) && error == Errno::ENOENT as i32, "{detail}");
        }
    }

    #[test]
    fn its_stack_is_large_enough_several_times() {
        const UNTOUCHED: u8 = 0xa5;
        let (mut plan, _) = plan("exit 0");
        let long = |length: usize| "x/".repeat(length / 2);
        // The longest paths: the steps that need most.
        plan.directory = Some(format!("/{}..", "proc/../".repeat(500)).into());
        let mut fails =
            [None, Some(long(4000))].map(|cgroup| Plan { cgroup: cgroup.map(OsString::from), ..again(&plan) });
        for plan in &mut fails {
            let (page, _fd) = MarkPage::create().unwrap();
            let mut stack = vec![UNTOUCHED; STACK_BYTES];
            let prepared = plan.prepare(&[]).unwrap();
            let become_it = |_| become_program(plan, &prepared, false).tell(&page);
            let pid = start_on(&mut stack, None, &[], &AtomicI32::new(0), become_it).unwrap();
            wait_for_child(pid);
            assert_eq!(page.launch_failure().is_some(), plan.cgroup.is_some());
            let free = stack.iter().take_while(|byte| **byte == UNTOUCHED).count();
            assert!(STACK_BYTES - free < STACK_BYTES / 4, "{} bytes were used", STACK_BYTES - free);
        }
    }

    fn again(plan: &Plan) -> Plan {
        serde_json::from_slice(&serde_json::to_vec(plan).unwrap()).unwrap()
    }
}
