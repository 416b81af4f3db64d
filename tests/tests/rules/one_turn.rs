//! What the supervisor finds in one turn, and in which order: it stands still while that gathers.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use workhall_tests::harness::{Supervisor, bin_dir, lives, python, text, tree_modes};

use crate::crash::with_python;
use crate::odd_company::TRACER;
use crate::supervisor_death::state;

/// More than a turn takes in.
const CROWD: usize = 70;

/// Clients that fill the first turn of a supervisor that goes on: who comes behind them has to wait for the second.
struct Crowd(Vec<BufReader<UnixStream>>);

impl Crowd {
    /// They are known to the supervisor, which stands still from here on.
    fn gather(supervisor: &Supervisor) -> Crowd {
        let clients = (0..CROWD).map(|_| BufReader::new(supervisor.raw()));
        let mut crowd = Crowd(clients.collect());
        crowd.ask("");
        crowd.hear();
        supervisor.signal(Signal::SIGSTOP);
        crowd
    }

    /// Each asks how it is; the first says something else before.
    fn ask(&mut self, first: &str) {
        for (client, said) in self.0.iter_mut().zip([first].into_iter().chain(std::iter::repeat(""))) {
            client.get_mut().write_all(format!("{said}{{\"status\":{{\"ref\":1}}}}\n").as_bytes()).unwrap();
        }
    }

    /// All have their answers.
    fn hear(&mut self) {
        for client in &mut self.0 {
            let mut line = String::new();
            while !line.contains("\"ref\":1") {
                line.clear();
                client.read_line(&mut line).unwrap();
            }
        }
    }
}

/// What a worker says while nothing is read is taken in by a look at how far it has come. A call in it has commanded a
/// start, which is of the class that the name had then.
#[test]
fn a_start_that_was_commanded_before_a_reload_is_one_of_the_class_that_it_was_for() {
    const LOOKS_EVERY: Duration = Duration::from_secs(1);
    let config = |class: &str| {
        format!(
            "[class.w]\nexec = ['{{python}}', '-S', '{{dir}}/w.py']\ntask_timeout = '4s'\n\
             [class.{class}]\nnames = ['b']\nexec = ['{{bin}}/test-worker']\n"
        )
    };
    let mut supervisor = with_python(
        &config("first"),
        r#"
import mmap, struct
page = mmap.mmap(int(os.environ["WORKHALL_MARK_FD"]), 4096)
def mark(at, number): page[at:at + 8] = struct.pack("<Q", number)
mark(16, 1)
say("ready", protocol=1, window=64)
task = until("task")
mark(0, task["id"])
note("ran", "begun")
while not os.path.exists(os.path.join(here, "say")): time.sleep(0.002)
call, reload = {"call": {"worker": "b", "method": "count"}}, {"reload": {"ref": 1}}
s.sendall((json.dumps(call) + "\n" + json.dumps(reload) + "\n").encode())
note("ran", "said")
until("receipt")
done(task)
until("kill")
"#,
    );
    let script = supervisor.path("w.py");
    let written = config("second").replace("{python}", python()).replace("{dir}/w.py", text(&script));
    supervisor.file("workhall.toml", &written.replace("{bin}", text(bin_dir())));
    supervisor.cli(&["call", "w", "m"]).ok();
    supervisor.until_lines("ran", 1);
    let mut crowd = Crowd::gather(&supervisor);
    crowd.ask("");
    supervisor.file("say", "");
    supervisor.until_lines("ran", 2);
    let stopped = Instant::now();
    supervisor.until("the next look is due", |_| stopped.elapsed() > LOOKS_EVERY);
    supervisor.signal(Signal::SIGCONT);
    crowd.hear();
    assert_eq!(supervisor.call(&["b", "count"]), 2);
    let info = supervisor.cli(&["info", "b", "--json"]).ok().json();
    assert_eq!((&info["generation"], &info["outdated"]), (&json!(1), &json!(true)), "{info}");
}

/// Starts a process, says its number, and holds it where it ends, until nobody holds its own stdin.
const HOLDER: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
SEIZE, TRACEEXIT, EXITKILL = 0x4206, 0x40, 0x100000
pid = os.fork()
if pid == 0: os.execvp("sleep", ["sleep", "1000"])
done = libc.ptrace(SEIZE, pid, None, TRACEEXIT | EXITKILL)
print(pid if done == 0 else 0, flush=True)
sys.stdin.read()
"#;

/// The process could not be reaped, for it was traced; the kill ends its tracer, but not yet all of its group.
#[test]
fn k08_a_traced_process_is_not_gone_before_its_group_is_empty() {
    if !tree_modes().contains(&"cgroup") {
        return;
    }
    let mut supervisor = Supervisor::in_mode("cgroup", "exit_grace = '1h'\n");
    let file = supervisor.path("tracer");
    let script = format!("exec {} {}", python(), supervisor.file("tracer.py", TRACER).display());
    let tracer = supervisor.call(&["a", "leave", &script, text(&file)])[0].as_i64().unwrap() as i32;
    if tracer == 0 {
        eprintln!("skipped: nobody may trace here");
        return;
    }
    let mut holder = Command::new(python());
    holder.arg(supervisor.file("holder.py", HOLDER)).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = holder.spawn().unwrap();
    let mut held = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut held).unwrap();
    let held: i32 = held.trim().parse().unwrap();
    assert_ne!(held, 0, "who may trace there may trace here");
    fs::write(supervisor.group_of("2.1").join("cgroup.procs"), held.to_string()).unwrap();
    supervisor.cli(&["call", "a", "die"]).ok();
    supervisor.until("it has ended", |this| this.ps("a")["state"] == "ending");
    let mut crowd = Crowd::gather(&supervisor);
    crowd.ask("{\"kill\":{\"worker\":\"a\",\"now\":true}}\n");
    kill(Pid::from_raw(tracer), Signal::SIGKILL).unwrap();
    supervisor.until("the tracer has ended", |_| state(tracer) == Some('Z'));
    supervisor.signal(Signal::SIGCONT);
    crowd.hear();
    supervisor.until("the tracer was reaped", |_| !lives(tracer));
    let row = supervisor.ps("a");
    assert_eq!((state(held), &row["state"]), (Some('t'), &json!("ending")), "{row}");
    drop(holder.stdin.take());
    holder.wait().unwrap();
    supervisor.until("it is gone with the last of its group", |this| this.ps("a") == Value::Null);
}
