//! The supervisor's own sudden death (rule D7): workers finish their task and exit by themselves, and a supervisor
//! that is started at once on the same socket never has a second process of a name.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use workhall_protocol::args::Payload;
use workhall_protocol::messages::{Call, OutcomeBody};
use workhall_tests::harness::{self, ANY_NAME, Output, Supervisor, lives, output, payload, text};

/// `slow` takes a while to start; everything else is the worker of the tests.
const CONFIG: &str = r#"
    [class.any]
    exec = ['{bin}/test-worker']
    names = ['**']
    [class.slow]
    exec = ['sh', '-c', 'sleep 0.1; exec {bin}/test-worker']
    [class.json]
    exec = ['{python}', '-S', '{dir}/worker.py']
"#;

/// Speaks JSON lines, as in the README; says in a file when it begins and ends a task, and holds a lock on it, so
/// that an overlap is seen.
const JSON_WORKER: &str = r#"
import fcntl, json, os, socket, sys, time
connection = socket.socket(fileno=int(os.environ["WORKHALL_FD"]))
lines = connection.makefile("r", encoding="utf-8", newline="\n")
out = connection.makefile("w", encoding="utf-8", newline="\n")
base = os.path.dirname(os.environ["WORKHALL_SOCKET"]) + "/"
alone = open(base + "json-" + os.environ["WORKHALL_WORKER"].replace("/", "%"), "w")
try: fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError: open(base + "OVERLAP", "a").write("json\n")
def say(message):
    out.write(json.dumps(message) + "\n")
    out.flush()
say({"ready": {"protocol": 1, "window": 1}})
for line in lines:
    message = json.loads(line)
    if "kill" in message: break
    if "task" not in message: continue
    task = message["task"]
    if task["method"] == "block":
        begun, go = task["args"]
        with open(begun, "a") as file: file.write("begun\n")
        while not os.path.exists(go): time.sleep(0.002)
        with open(begun, "a") as file: file.write("ended\n")
    say({"done": {"id": task["id"], "result": os.getpid()}})
"#;

fn supervisor() -> Supervisor {
    let supervisor = Supervisor::with_config(&CONFIG.replace("{python}", harness::python()));
    supervisor.file("worker.py", JSON_WORKER);
    supervisor
}

/// Killed, and started again at once.
fn dies_and_is_followed(supervisor: &mut Supervisor) {
    supervisor.signal(Signal::SIGKILL);
    supervisor.ended();
    supervisor.restart();
}

fn info(supervisor: &Supervisor, worker: &str) -> Value {
    supervisor.cli(&["info", worker, "--json"]).ok().json()
}

/// How a process is, in a letter; none if there is none.
pub(crate) fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[test]
fn d07_a_supervisor_started_at_once_never_has_two_processes_of_a_name() {
    let mut supervisor = supervisor();
    for round in 0..24 {
        let (begun, go) = (supervisor.path("begun"), supervisor.path(&format!("go-{round}")));
        let left = supervisor.path(&format!("left-{round}"));
        // Each is in another state when the supervisor dies.
        let busy = ["busy/1", "busy/2", "json/busy"];
        for worker in busy {
            let lines = supervisor.lines("begun").len();
            supervisor.cli(&["call", worker, "block", text(&begun), text(&go)]).ok();
            supervisor.until_lines("begun", lines + 1);
        }
        for worker in ["idle", "json/idle"] {
            supervisor.call(&[worker, "pid"]);
        }
        let script = "setsid sh -c 'echo $$ > $FILE.new; mv $FILE.new $FILE; exec sleep 0.15' &";
        let grandchild = supervisor.call(&["parent", "leave", script, text(&left)])[0].as_i64().unwrap() as i32;
        let pids = busy.map(|worker| supervisor.worker_pid(worker));
        for worker in ["slow", "json/slow", "fresh"] {
            supervisor.cli(&["call", worker, "pid"]).ok();
        }
        dies_and_is_followed(&mut supervisor);
        let mut client = supervisor.client();
        let mut call = |worker: &str, method: &'static str, args: Payload<'static>| {
            client.submit(Call { wait: true, ..Call::new(worker, method, args) }).unwrap()
        };
        let none = || payload(&());
        let parent = call("parent", "living", payload(&([grandchild],)));
        let mut tickets: Vec<_> =
            ["idle", "json/idle", "slow", "json/slow", "fresh"].map(|worker| call(worker, "pid", none())).into();
        tickets.extend(busy.map(|worker| call(worker, "pid", none())));
        client.flush().unwrap();
        let OutcomeBody::Done { result } = client.outcome(parent).unwrap() else { panic!() };
        assert_eq!(result.to_json().unwrap(), json!([]), "round {round}: the grandchild of the old process has ended");
        // Those that execute a task finish it, and only then the next process starts.
        for (worker, pid) in busy.into_iter().zip(pids) {
            supervisor.until("the call was taken in", |this| this.ps(worker)["pending"] == 1);
            let row = supervisor.ps(worker);
            assert!(lives(pid) && row["pid"].is_null() && row["generation"] == 0, "round {round}: {row}");
        }
        std::fs::write(&go, "").unwrap();
        for ticket in tickets {
            let outcome = client.outcome(ticket).unwrap();
            let OutcomeBody::Done { result } = outcome else { panic!("round {round}: {outcome:?}") };
            assert!(!pids.contains(&result.decode().unwrap()));
        }
        supervisor.no_overlap();
        let status = supervisor.status();
        assert_eq!((&status["ledger"]["done"], &status["counts"]["spawned"]), (&json!(9), &json!(9)), "{status}");
    }
    let ended = supervisor.lines("begun").iter().filter(|line| *line == "ended").count();
    assert_eq!(ended, 3 * 24, "each task that ran when the supervisor died was finished");
}

#[test]
fn d07_workers_exit_by_themselves_in_every_state() {
    let mut supervisor = supervisor();
    let (begun, go, log) = (supervisor.path("begun"), supervisor.path("go"), supervisor.path("later"));
    for worker in ["idle", "json/idle"] {
        supervisor.call(&[worker, "pid"]);
    }
    // Between the tasks of a batch; blocked writing a result that nobody reads; waiting for a receipt.
    for worker in ["batch", "writes", "calls", "json/busy"] {
        let lines = supervisor.lines("begun").len();
        supervisor.cli(&["call", worker, "block", text(&begun), text(&go)]).ok();
        supervisor.until_lines("begun", lines + 1);
    }
    let mut waiting = supervisor.client();
    let big = Call::new("writes", "big", payload(&(4_000_000,)));
    waiting.submit(Call { wait: true, ..big }).unwrap();
    waiting.flush().unwrap();
    supervisor.until("it was taken in", |this| this.ps("writes")["pending"] == 1);
    supervisor.cli(&["call", "calls", "call", "idle", "pid", "[]"]).ok();
    for worker in ["batch", "writes", "calls"] {
        for _ in 0..50 {
            supervisor.cli(&["call", worker, "log", text(&log), worker]).ok();
        }
    }
    let workers = ["idle", "json/idle", "batch", "writes", "calls", "json/busy"];
    let pids = workers.map(|worker| supervisor.worker_pid(worker));
    supervisor.cli(&["call", "slow", "log", text(&log), "slow"]).ok();
    supervisor.signal(Signal::SIGSTOP);
    std::fs::write(&go, "").unwrap();
    supervisor.until("the tasks have ended", |this| this.lines("begun").len() == 8);
    // `writes` and `calls` wait for the supervisor now. (`batch` goes on, as long as nobody has died.)
    supervisor.until("they wait", |_| [pids[3], pids[4]].iter().all(|pid| state(*pid) == Some('S')));
    let before = supervisor.lines("later").len();
    assert!(supervisor.lines("later").iter().all(|line| line == "batch"), "{:?}", supervisor.lines("later"));
    supervisor.signal(Signal::SIGKILL);
    supervisor.ended();
    // One that is about to end has no environment any more, by which it could be known.
    supervisor.until("all have exited", |this| this.processes().is_empty() && !pids.into_iter().any(lives));
    assert!(supervisor.lines("later").iter().all(|line| line == "batch"), "{:?}", supervisor.lines("later"));
    assert!(before <= 50, "{before}");
    // What they left beside the socket is no obstacle.
    supervisor.restart();
    for worker in workers {
        assert!(supervisor.call(&[worker, "pid"]).is_i64());
    }
    supervisor.no_overlap();
}

/// The connection of a supervisor that dies is closed a moment before its workers have another parent. Here it is closed
/// and the supervisor lives, but stands still: so nothing else tells the worker.
#[test]
fn d07_a_worker_that_cannot_say_what_has_ended_begins_nothing_more() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    supervisor.block("a");
    let pid = supervisor.worker_pid("a");
    let mut client = supervisor.client();
    client.submit(Call::new("a", "hang_up", payload(&()))).unwrap();
    let last = client.submit(Call { wait: true, ..Call::new("a", "who", payload(&())) }).unwrap();
    client.flush().unwrap();
    supervisor.until("both were sent ahead", |this| this.ps("a")["pending"] == 2);
    supervisor.signal(Signal::SIGSTOP);
    supervisor.let_go();
    supervisor.until("it has exited", |_| state(pid) == Some('Z'));
    supervisor.signal(Signal::SIGCONT);
    let outcome = client.outcome(last).unwrap();
    let OutcomeBody::Done { result } = outcome else { panic!("it had begun: {outcome:?}") };
    assert_eq!(result.to_json().unwrap(), json!(["a", 2, 2]), "the next process has executed it");
    assert_eq!((supervisor.ledger("done"), supervisor.ledger("dead")), (3, 0));
}

#[test]
fn d07_who_holds_a_name_shows_in_info_and_a_kill_of_it_returns_at_once() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    supervisor.block("a");
    let pid = supervisor.worker_pid("a");
    dies_and_is_followed(&mut supervisor);
    let first = supervisor.start_cli(&["call", "a", "count", "--wait", "--json"]);
    supervisor.until("it is known that the name is held", |this| {
        this.cli(&["info", "a", "--json"]).code == 0 && info(this, "a")["waits_for"].is_string()
    });
    let report = info(&supervisor, "a");
    let expected = format!("process {pid} (test-worker) of an earlier supervisor still holds the name");
    assert!(report["waits_for"].as_str().unwrap().starts_with(&expected), "{report}");
    assert_eq!((&report["generation"], &report["crashes"], &report["last_exit"]), (&json!(0), &json!(0), &Value::Null));
    assert!(["backoff", "absent", "starting"].contains(&report["state"].as_str().unwrap()), "{report}");
    let people = supervisor.cli(&["info", "a"]).ok().out;
    assert!(people.contains("waits for     process "), "{people}");
    for flags in [&["a"][..], &["a", "--now"]] {
        let began = Instant::now();
        let receipt = supervisor.kill(flags);
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!((&receipt["ended_by"], &receipt["discarded"]), (&json!("already_gone"), &json!(1)), "{receipt}");
        supervisor.cli(&["call", "a", "count"]).ok();
        supervisor.until("it waits again", |this| info(this, "a")["waits_for"].is_string());
    }
    assert_eq!(first.end().code, 6, "it was discarded by the kill");
    assert!(lives(pid), "it is not ours to kill");
    supervisor.let_go();
    assert_eq!(supervisor.call(&["a", "count"]), 2);
    assert_eq!(info(&supervisor, "a")["waits_for"], Value::Null);
    supervisor.no_overlap();
}

#[test]
fn d07_a_supervisor_stops_at_once_while_names_are_held() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    supervisor.block("a");
    dies_and_is_followed(&mut supervisor);
    supervisor.cli(&["call", "a", "count"]).ok();
    supervisor.until("it waits", |this| info(this, "a")["waits_for"].is_string());
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.ended().code(), Some(0));
    supervisor.let_go();
    supervisor.until("the old worker has exited", |this| this.processes().is_empty());
}

#[test]
fn d07_only_the_tree_of_a_worker_holds_its_name() {
    let supervisor = Supervisor::with_config(ANY_NAME);
    for worker in ["a", "b"] {
        supervisor.call(&[worker, "count"]);
    }
    let names = format!("{}.names/", supervisor.socket().display());
    let locks = |pid: i32| {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let of_names = descriptors.filter(|entry| {
            let link = std::fs::read_link(entry.path()).unwrap_or_default();
            text(&link).strip_prefix(&names).is_some_and(|file| file.len() == 16)
        });
        let infos = of_names.map(|entry| {
            std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", text(Path::new(&entry.file_name())))).unwrap()
        });
        infos.filter(|info| info.contains("FLOCK") && info.contains("WRITE")).count()
    };
    let [a, b] = ["a", "b"].map(|worker| supervisor.worker_pid(worker));
    assert_eq!([locks(a), locks(b), locks(supervisor.pid())], [1, 1, 0]);
    let file = supervisor.path("left");
    let script = "echo $$ > $FILE.new; mv $FILE.new $FILE; exec sleep 1000";
    let child = supervisor.call(&["a", "leave", script, text(&file)])[0].as_i64().unwrap() as i32;
    assert_eq!(locks(child), 1, "what the worker starts is of its tree");
    let mode = std::fs::metadata(&names).unwrap().mode() & 0o777;
    assert_eq!(mode, 0o700, "nobody else can hold a name");
}

/// A second supervisor in the directory of the first.
struct Second {
    child: Child,
    socket: String,
}

impl Second {
    fn start(first: &Supervisor, config: &Path) -> Second {
        let socket = first.path("second").display().to_string();
        let mut child = first
            .command(&["serve", "--config", text(config), "--socket", &socket])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("ready")));
        Second { child, socket }
    }

    fn cli(&self, args: &[&str]) -> Output {
        output(Command::new(harness::bin_dir().join("workhall")).args(args).env("WORKHALL_SOCKET", &self.socket))
    }

    fn stop(mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn d07_supervisors_on_two_sockets_of_one_directory_do_not_disturb_each_other() {
    let script = JSON_WORKER.replace("\"json-\"", "os.environ['WORKHALL_SOCKET'].replace('/', '%')");
    let mut first =
        Supervisor::with_config("class.j = { exec = ['python3', '-S', '{dir}/worker.py'], names = ['**'] }\n");
    first.file("worker.py", &script);
    let second = Second::start(&first, &first.path("workhall.toml"));
    let pid = |output: Output| output.ok().json().as_i64().unwrap() as i32;
    let names = ["a", "b", "c"];
    for name in names {
        let (one, other) =
            (first.call(&[name, "pid"]).as_i64().unwrap() as i32, pid(second.cli(&["call", "--wait", name, "pid"])));
        assert!(one != other && lives(one) && lives(other));
    }
    let living = pid(second.cli(&["call", "--wait", "a", "pid"]));
    dies_and_is_followed(&mut first);
    for name in names {
        first.call(&[name, "pid"]);
    }
    assert_eq!(pid(second.cli(&["call", "--wait", "a", "pid"])), living, "the death of the first is not its own");
    second.stop();
    assert!(!lives(living));
    first.call(&["a", "pid"]);
    first.no_overlap();
}

/// Stopped by whom it may: it would never see that its supervisor is gone, and keep its name for ever.
#[test]
fn d07_a_stopped_process_of_an_earlier_supervisor_is_continued_when_its_name_is_wanted() {
    let mut supervisor = supervisor();
    let (begun, go) = (supervisor.path("begun"), supervisor.path("go"));
    for worker in ["wanted", "other"] {
        let lines = supervisor.lines("begun").len();
        supervisor.cli(&["call", worker, "block", text(&begun), text(&go)]).ok();
        supervisor.until_lines("begun", lines + 1);
    }
    let [wanted, other] = ["wanted", "other"].map(|worker| supervisor.worker_pid(worker));
    supervisor.signal(Signal::SIGKILL);
    supervisor.ended();
    for pid in [wanted, other] {
        kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
        supervisor.until("it is stopped", |_| state(pid) == Some('T'));
    }
    std::fs::write(&go, "").unwrap();
    supervisor.restart();
    let pid = supervisor.call(&["wanted", "pid"]).as_i64().unwrap() as i32;
    assert!(!lives(wanted) && lives(pid));
    assert_eq!(state(other), Some('T'), "nobody wants its name");
    kill(Pid::from_raw(other), Signal::SIGKILL).unwrap();
    supervisor.no_overlap();
}

/// Writes into a pipe of its own, behind which is a child that has closed everything else.
const OWN_PIPE: &str = r#"
import os, subprocess
base = os.path.dirname(os.environ["WORKHALL_SOCKET"]) + "/"
own, write = os.pipe()
reader = subprocess.Popen(["cat"], stdin=own, stdout=open(base + "own", "a"), start_new_session=True)
os.dup2(write, 1)
os.close(own)
os.close(write)
"#;

/// The next supervisor reads what its worker writes, so that it can end, but from nobody else's pipe.
#[test]
fn d07_what_an_earlier_process_writes_into_a_pipe_of_its_own_stays_in_it() {
    let mut supervisor = supervisor();
    let worker = format!("{OWN_PIPE}{}", JSON_WORKER.replace("if task[\"method\"] == \"block\":", PRINTS));
    supervisor.file("worker.py", &worker);
    let (begun, go) = (supervisor.path("begun"), supervisor.path("go"));
    supervisor.cli(&["call", "json/own", "block", text(&begun), text(&go)]).ok();
    supervisor.until_lines("begun", 1);
    let old = supervisor.worker_pid("json/own");
    let reader = supervisor.lines("reader")[0].parse().unwrap();
    supervisor.until("nobody reads", |_| state(reader) == Some('T'));
    dies_and_is_followed(&mut supervisor);
    supervisor.cli(&["call", "json/own", "pid"]).ok();
    supervisor.until("it waits", |this| info(this, "json/own")["waits_for"].as_str().is_some());
    kill(Pid::from_raw(reader), Signal::SIGCONT).unwrap();
    // Before its worker ends: what that leaves behind is ended, too.
    supervisor.until_lines("own", 3);
    std::fs::write(&go, "").unwrap();
    supervisor.call(&["json/own", "pid"]);
    supervisor.until("the reader has ended", |_| !lives(reader));
    assert!(!lives(old));
    assert_eq!(supervisor.lines("own")[..3], ["one", "two", "three"]);
}

const PRINTS: &str = r#"if task["method"] == "block":
        import signal
        os.kill(reader.pid, signal.SIGSTOP)
        with open(base + "reader.new", "w") as file: file.write(str(reader.pid))
        os.rename(base + "reader.new", base + "reader")
        os.write(1, b"one\ntwo\nthree\n")"#;
