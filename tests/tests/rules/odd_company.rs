//! Processes that make themselves hard to look at, or to end, keep nobody else's gate shut (rule K8).

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use workhall_tests::harness::{ANY_NAME, Supervisor, lives, output_of, parent, python, tree_modes};

/// An orphan of a worker, in a session of its own, that does something odd before it says that it is there. It closes
/// its descriptors: so only by what it has else is it known whose it is.
fn odd_orphan(supervisor: &mut Supervisor, worker: &str, oddity: &str) -> i32 {
    let script = format!(
        r#"
import ctypes, mmap, os, struct, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.sbrk.restype = ctypes.c_void_p
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
if os.fork(): os._exit(0)
os.setsid()
os.closerange(3, 128)
{oddity}
file = os.environ["FILE"]
with open(file + ".new", "w") as new: new.write(str(os.getpid()))
os.rename(file + ".new", file)
time.sleep(1000)
"#
    );
    let file = supervisor.path("odd");
    let script = format!("exec {} {}", python(), supervisor.file("odd.py", &script).display());
    let pid = supervisor.call(&[worker, "leave", &script, file.to_str().unwrap()])[0].as_i64().unwrap() as i32;
    let own = supervisor.pid();
    supervisor.until("it is an orphan", |_| parent(pid) == own);
    std::fs::remove_file(file).unwrap();
    pid
}

/// Another worker ends at once, its own only with it, and the supervisor's end is its end.
fn it_delays_its_own_worker_alone(mode: &str, oddity: &str) {
    let mut supervisor = Supervisor::in_mode(mode, "");
    let pid = odd_orphan(&mut supervisor, "a", oddity);
    supervisor.call(&["b", "count"]);
    assert_eq!(supervisor.kill(&["b"])["ended_by"], "ask");
    assert!(lives(pid), "{mode}: the end of another worker is not its end");
    supervisor.kill(&["a"]);
    assert!(!lives(pid), "{mode}");
    let pid = odd_orphan(&mut supervisor, "a", oddity);
    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.ended().success());
    assert!(!lives(pid), "{mode}");
}

#[test]
fn k08_a_program_whose_name_is_no_text_is_found_like_any_other() {
    for mode in tree_modes() {
        it_delays_its_own_worker_alone(
            mode,
            r#"libc.prctl(15, ctypes.addressof(ctypes.create_string_buffer(b"gr\xf6\xdfe")), 0, 0, 0)"#,
        );
    }
}

/// It says that a gigabyte of its memory is its environment.
const HUGE_ENVIRONMENT: &str = r#"
size = 1 << 30
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
start = libc.mmap(None, size, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, -1, 0)
stat = open("/proc/self/stat", "rb").read().rsplit(b")", 1)[1].split()
field = lambda number: int(stat[number - 3])
layout = struct.pack("11QQII", *map(field, (26, 27, 45, 46, 47)), libc.sbrk(0), *map(field, (28, 48, 49)), start, start + size, 0, 0, 0xffffffff)
layout = ctypes.create_string_buffer(layout)
open(os.environ["FILE"] + ".prctl", "w").write(str(libc.prctl(35, 14, ctypes.addressof(layout), 104, 0)))
"#;

#[test]
fn k08_no_more_of_an_environment_is_read_than_one_may_have() {
    let mut supervisor = Supervisor::in_mode("subreaper", "");
    odd_orphan(&mut supervisor, "a", HUGE_ENVIRONMENT);
    if supervisor.lines("odd.prctl") != ["0"] {
        eprintln!("skipped: this kernel lets nobody say what its environment is");
        return;
    }
    supervisor.call(&["b", "count"]);
    assert_eq!(supervisor.kill(&["b"])["ended_by"], "ask");
    let peak = supervisor.peak_memory();
    assert!(peak < 200 << 20, "{} MiB", peak >> 20);
}

/// Traces the worker's process, whose child it is, from a session of its own.
pub(crate) const TRACER: &str = r#"
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
leader, file = os.getppid(), os.environ["FILE"]
os.setsid()
os.closerange(3, 128)
done = libc.ptrace(0x4206, leader, None, None)
with open(file + ".new", "w") as new: new.write(str(os.getpid() if done == 0 else 0))
os.rename(file + ".new", file)
time.sleep(1000)
"#;

#[test]
fn k08_a_process_that_is_traced_when_it_ends_costs_nothing_until_it_can_be_reaped() {
    for mode in tree_modes() {
        let supervisor = Supervisor::in_mode(mode, "exit_grace = '200ms'\nterm_grace = '200ms'\n");
        let file = supervisor.path("tracer");
        let script = format!("exec {} {}", python(), supervisor.file("tracer.py", TRACER).display());
        let tracer = supervisor.call(&["a", "leave", &script, file.to_str().unwrap()])[0].as_i64().unwrap() as i32;
        if tracer == 0 {
            eprintln!("skipped: nobody may trace here");
            return;
        }
        supervisor.cli(&["call", "a", "die"]).ok();
        assert_eq!(supervisor.call(&["a", "count"]), 1, "{mode}: the ladder ends the tracer, too");
        assert!(!lives(tracer));
        supervisor.no_overlap();
    }
}

/// Traces a process from outside of the supervisor's reach.
fn trace_from_outside(supervisor: &mut Supervisor, pid: i32) -> Option<std::process::Child> {
    let script = TRACER.replace("os.getppid()", &pid.to_string()).replace("os.setsid()", "");
    let (script, file) = (supervisor.file("outside.py", &script), supervisor.path("outside"));
    let tracer = std::process::Command::new(python()).arg(script).env("FILE", &file).spawn().unwrap();
    supervisor.until("it traces", |_| file.exists());
    (std::fs::read_to_string(file).unwrap() != "0").then_some(tracer)
}

#[test]
fn d08_a_supervisor_gives_up_what_nothing_can_end_and_says_so() {
    let mut supervisor = Supervisor::in_mode("subreaper", "");
    let pid: Value = supervisor.call(&["a", "pid"]);
    let Some(mut tracer) = trace_from_outside(&mut supervisor, pid.as_i64().unwrap() as i32) else {
        eprintln!("skipped: nobody may trace here");
        return;
    };
    for _ in 0..2 {
        supervisor.signal(Signal::SIGTERM);
    }
    let status = supervisor.ended();
    let log = supervisor.log();
    kill(Pid::from_raw(tracer.id() as i32), Signal::SIGKILL).unwrap();
    tracer.wait().unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&format!("gave up: SIGKILL has not ended a (process {pid})")), "{log}");
}

#[test]
fn d07_a_directory_of_locks_that_somebody_has_removed_is_named_with_what_to_do() {
    let mut supervisor = Supervisor::start();
    std::fs::remove_dir_all(supervisor.path("socket.names")).unwrap();
    supervisor.cli(&["call", "a", "count"]).ok();
    let mut failure = Value::Null;
    supervisor.until("the start has failed", |this| {
        failure = this.cli(&["info", "a", "--json"]).ok().json()["last_exit"]["failure"].clone();
        failure != json!(null)
    });
    let failure = failure.as_str().unwrap();
    for part in ["socket.names was removed while the supervisor runs", "restart the supervisor"] {
        assert!(failure.contains(part), "{failure}");
    }
}

/// A supervisor with much memory needs a while to end, and holds its locks until then.
#[test]
fn d07_a_supervisor_started_before_another_that_was_killed_has_ended_waits_for_that() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    let line = format!("[\"{}\"]\n", "x".repeat(1 << 20));
    for _round in 0..5 {
        let mut post = supervisor.command(&["call", "held", "echo", "--in", "1h", "--lines"]);
        output_of(&mut post, line.repeat(12).as_bytes()).ok();
        supervisor.signal(Signal::SIGKILL);
        supervisor.restart();
    }
}
