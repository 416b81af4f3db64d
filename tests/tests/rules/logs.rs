//! What workers write on stdout and stderr: `workhall logs`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use workhall_protocol::messages::{News, ReceiptBody};
use workhall_tests::harness::{self, ANY_NAME, PATIENCE, Supervisor, is_root, lives, python};

/// A worker in Python that executes what it is told: `run` a piece of Python, `sh` a piece of shell.
pub(super) const WORKER: &str = r#"
import json, os, socket, subprocess, sys, time
connection = socket.socket(fileno=int(os.environ["WORKHALL_FD"]))
connection.set_inheritable(False)
os.set_inheritable(int(os.environ["WORKHALL_MARK_FD"]), False)
lines = connection.makefile("rw", encoding="utf-8", newline="\n")
def say(message):
    lines.write(json.dumps(message) + "\n")
    lines.flush()
def write(fd, data):
    while data: data = data[os.write(fd, data):]
say({"ready": {"protocol": 1, "window": 1}})
for line in lines:
    message = json.loads(line)
    if "kill" in message: break
    if "task" not in message: continue
    task = message["task"]
    if task["method"] == "run": exec(task["args"][0])
    else: subprocess.run(["sh", "-c", task["args"][0]], close_fds=False)
    say({"done": {"id": task["id"]}})
"#;

/// Its class. The script is in this directory.
pub(super) fn class(dir: &Path) -> String {
    format!("[class.w]\nexec = ['{}', '-S', '{}']\nnames = ['**']\n", python(), dir.join("worker.py").display())
}

pub(super) fn supervisor(settings: &str) -> Supervisor {
    let supervisor = Supervisor::with_config(&format!("{settings}\n{}", class(Path::new("{dir}"))));
    supervisor.file("worker.py", WORKER);
    supervisor
}

pub(super) fn run(supervisor: &Supervisor, worker: &str, code: &str) {
    supervisor.call(&[worker, "run", code]);
}

/// What is kept, as `logs --json` prints it.
#[track_caller]
pub(super) fn logs(supervisor: &Supervisor, args: &[&str]) -> Vec<Value> {
    let output = supervisor.cli(&[&["logs", "--json"], args].concat()).ok();
    output.json().as_array().unwrap().clone()
}

#[track_caller]
pub(super) fn texts(supervisor: &Supervisor, worker: &str) -> Vec<String> {
    logs(supervisor, &[worker]).iter().map(|line| line["text"].as_str().unwrap().to_string()).collect()
}

/// One who follows, and its lines.
pub(super) struct Follower(Child, Receiver<String>);

impl Follower {
    pub(super) fn start(supervisor: &Supervisor, args: &[&str]) -> Follower {
        let mut child = supervisor.command(args).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (said, lines) = mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        Follower(child, lines)
    }

    /// The next one.
    #[track_caller]
    pub(super) fn line(&mut self) -> String {
        self.1.recv_timeout(PATIENCE).expect("it is told the next line")
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn what_a_worker_wrote_before_its_task_was_done_is_there_with_all_that_is_known_of_it() {
    let supervisor = supervisor("");
    run(&supervisor, "a/1", "print('one', flush=True); print('two', file=sys.stderr, flush=True)");
    run(&supervisor, "b", "print('of another', flush=True)");
    supervisor.cli(&["call", "a/1", "run", "os.kill(os.getpid(), 9)", "--wait"]);
    run(&supervisor, "a/1", "print('three', flush=True)");
    let lines = logs(&supervisor, &["a/1"]);
    let of = |line: &Value| json!([line["text"], line["stream"], line["generation"], line["number"], line["class"]]);
    let number = &supervisor.ps("a/1")["number"];
    let mut first = [of(&lines[0]), of(&lines[1])];
    first.sort_by_key(|line| line.to_string());
    assert_eq!(first, [json!(["one", "stdout", 1, number, "w"]), json!(["two", "stderr", 1, number, "w"])]);
    assert_eq!((lines.len(), of(&lines[2])), (3, json!(["three", "stdout", 2, number, "w"])));
    assert!(lines.windows(2).all(|two| two[0]["at_ms"].as_u64() <= two[1]["at_ms"].as_u64()));
    // By number, the last only, of all.
    assert_eq!(logs(&supervisor, &[&format!("%{number}")]).len(), 3);
    assert_eq!(logs(&supervisor, &["a/1", "-n", "1"])[0]["text"], "three");
    assert_eq!((logs(&supervisor, &["-n", "2"]).len(), logs(&supervisor, &["-n", "0"]).len()), (2, 0));
    assert_eq!(logs(&supervisor, &[]).iter().map(|line| &line["worker"]).filter(|name| *name == "b").count(), 1);
    assert_eq!(logs(&supervisor, &["nobody"]), [Value::Null; 0]);
    let shown = supervisor.cli(&["logs", "a/1", "-n", "1"]).ok().out;
    assert!(shown.ends_with(&format!("Z a/1 %{number}.2 out| three\n")), "{shown}");
    // What a worker is gone and killed has written stays.
    supervisor.kill(&["a/1"]);
    assert_eq!(texts(&supervisor, "a/1").len(), 3);
}

#[test]
fn what_a_crashing_worker_wrote_last_is_there_to_the_last_byte_when_its_end_is_known() {
    let supervisor = supervisor("[supervisor]\nlogs = { lines = 100_000, bytes = '64MiB' }\n");
    for round in 0..10 {
        let worker = format!("w/{round}");
        // Nearly all that a pipe holds, and a line without its end.
        let code = "write(2, b''.join(b'line %d\\n' % n for n in range(5000)) + b'no end'); os.kill(os.getpid(), 9)";
        let output = supervisor.cli(&["call", &worker, "run", code, "--wait"]);
        assert_eq!(output.code, 6, "{output:?}");
        let texts = texts(&supervisor, &worker);
        let expected = (0..5000).map(|n| format!("line {n}")).chain(["no end".to_string()]);
        assert!(texts.iter().cloned().eq(expected), "{} lines, the last {:?}", texts.len(), texts.last());
    }
    // One that cannot even start.
    let supervisor = Supervisor::with_config("[class.w]\nexec = ['sh', '-c', 'echo missing library >&2; exit 3']\n");
    supervisor.cli(&["call", "w", "x"]).ok();
    let mut supervisor = supervisor;
    supervisor.until("its words are there", |this| texts(this, "w").first().is_some_and(|it| it == "missing library"));
}

#[test]
fn whatever_bytes_a_worker_writes_come_as_lines_and_command_no_terminal() {
    let supervisor = supervisor("[supervisor]\nlogs = { line_bytes = 300 }\n");
    run(&supervisor, "w", r"write(1, b'\x1b[2Jred\x07\n\0\0\n\xff\xfe\xc3\n\r\ntab\there\r\n\xc2\x9b31m\x7f\n')");
    assert_eq!(
        texts(&supervisor, "w"),
        ["\x1b[2Jred\x07", "\0\0", "\u{fffd}\u{fffd}\u{fffd}", "", "tab\there", "\u{9b}31m\x7f"]
    );
    for args in [&["logs", "w"][..], &["logs", "w", "--json"], &["logs", "w", "-f", "-n", "100"]] {
        let shown = match args.contains(&"-f") {
            false => supervisor.cli(args).ok().out,
            true => {
                let mut follower = Follower::start(&supervisor, args);
                (0..6).map(|_| follower.line() + "\n").collect()
            }
        };
        let harmless = |c: char| matches!(c, '\n' | '\t') || !c.is_control();
        assert!(shown.chars().all(harmless), "{shown:?}");
        assert!(shown.contains("[2Jred") && shown.lines().count() == 6, "{shown:?}");
    }
    assert!(supervisor.log().contains("w | \\x1b[2Jred\\x07\n"), "{}", supervisor.log());
    // A line without an end comes in parts, and no character is torn.
    run(&supervisor, "long", "write(1, 'é'.encode() * 1000 + b'\\nend\\n')");
    let lines = logs(&supervisor, &["long"]);
    let parts: String = lines.iter().take(lines.len() - 1).map(|line| line["text"].as_str().unwrap()).collect();
    assert_eq!((parts, &lines[lines.len() - 1]["text"]), ("é".repeat(1000), &json!("end")));
    assert!(lines.iter().all(|line| line["text"].as_str().unwrap().len() <= 300));
    assert_eq!(lines.iter().filter(|line| line["cut"] == true).count(), lines.len() - 2);
}

#[test]
fn who_follows_is_told_what_comes_and_only_of_whom_was_asked() {
    let supervisor = supervisor("");
    run(&supervisor, "a", "print('before', flush=True)");
    let mut all = Follower::start(&supervisor, &["logs", "-f", "--json"]);
    let mut one = Follower::start(&supervisor, &["logs", "a", "-f", "-n", "0", "--json"]);
    let text = |line: String| serde_json::from_str::<Value>(&line).unwrap()["text"].as_str().unwrap().to_string();
    assert_eq!(text(all.line()), "before");
    // Whether the other follows already cannot be seen from outside: its first line is one of these.
    let mut number = 0;
    let mut more = |worker: &str| {
        number += 1;
        run(&supervisor, worker, &format!("print('{worker} {number}', flush=True)"));
        format!("{worker} {number}")
    };
    for _ in 0..3 {
        assert_eq!([more("b"), more("a")], [text(all.line()), text(all.line())]);
    }
    let seen = text(one.line());
    let mut expected: usize = seen.strip_prefix("a ").unwrap().parse().unwrap();
    while expected < 6 {
        expected += 2;
        assert_eq!(text(one.line()), format!("a {expected}"));
    }
    // What a process left behind writes is told, too, as its worker's.
    run(
        &supervisor,
        "a",
        "subprocess.Popen(['sh', '-c', 'while [ ! -e go ]; do sleep 0.01; done; echo late'], close_fds=False, cwd=os.path.dirname(os.environ['WORKHALL_SOCKET']))",
    );
    supervisor.let_go();
    assert_eq!(text(one.line()), "late");
}

#[test]
fn a_worker_that_writes_without_end_and_a_follower_that_does_not_read_block_nobody_and_what_is_lost_is_said() {
    let mut supervisor = supervisor("[supervisor]\nlogs = { lines = 500, total_lines = 2_000, forward = 'none' }\n");
    let mut client = supervisor.client();
    let ticket = client.logs(Some("flood".into()), None, true).unwrap();
    assert_eq!(client.receipt(ticket).unwrap(), ReceiptBody::Waiting {});
    supervisor.cli(&["call", "flood", "sh", "yes 'a line that is written again and again'"]).ok();
    let pid = supervisor.worker_pid("flood");
    let dropped = |this: &Supervisor| this.status()["logs"]["dropped"].as_u64().unwrap();
    supervisor.until("much was written", |this| dropped(this) > 200_000);
    // Others are served meanwhile, and what they write is not driven out.
    run(&supervisor, "b", "print('mine', flush=True)");
    assert!(supervisor.worker_pid("flood") == pid && lives(pid));
    assert_eq!(texts(&supervisor, "b"), ["mine"]);
    let status = supervisor.status();
    assert!(status["logs"]["lines"].as_u64().unwrap() <= 501, "{status}");
    let shown = supervisor.cli(&["logs", "flood"]).ok();
    assert!(shown.err.contains("lines before these are not kept any more (`logs` in [supervisor]"), "{}", shown.err);
    // The follower reads at last: it is told what it has missed, to the line.
    let (mut lost, mut told, mut first, mut last) = (0, 0, 0, 0);
    while lost < 100_000 {
        let News { lost: more, items, .. } = client.news(ticket).unwrap().unwrap();
        lost += more;
        for item in items.to_json().unwrap().as_array().unwrap() {
            let seq = item["seq"].as_u64().unwrap();
            first = if first == 0 { seq } else { first };
            (told, last) = (told + 1, seq);
        }
    }
    // One line is another's. It came before the last that was told, or after.
    let between = last + 1 - first;
    assert!((between..=between + 600).contains(&(told + lost + 1)), "{told} told, {lost} lost, of {between}");
    supervisor.kill(&["flood", "--now"]);
    assert!(supervisor.peak_memory() < 100 << 20, "{}", supervisor.peak_memory());
}

#[test]
fn a_flood_of_empty_lines_of_many_workers_leaves_time_for_others() {
    let supervisor = supervisor("[supervisor]\nlogs = { lines = 100 }\n");
    for n in 0..8 {
        supervisor.cli(&["call", &format!("flood/{n}"), "sh", "yes ''"]).ok();
    }
    for n in 0..20 {
        run(&supervisor, "b", &format!("print({n}, flush=True)"));
        assert_eq!(texts(&supervisor, "b").last(), Some(&n.to_string()));
    }
    supervisor.kill(&["flood/*", "--now"]);
}

#[test]
fn d07_after_the_supervisors_death_a_worker_goes_on_printing_and_finishes_its_task() {
    let mut supervisor = supervisor("");
    let scripts = [
        (
            "python",
            "run",
            "open(base + 'begun', 'a').write('x\\n')\nwhile not os.path.exists(base + 'go'): time.sleep(0.005)\nfor n in range(500): print('still here', n, flush=True)\nprint('late', file=sys.stderr, flush=True)\nopen(base + 'ended', 'a').write('python\\n')",
        ),
        (
            "shell",
            "sh",
            "echo x >> $base/begun; while [ ! -e $base/go ]; do sleep 0.01; done; for n in $(seq 500); do echo still here $n || exit; done; echo late > /dev/stderr || exit; seq 500 || exit; echo shell >> $base/ended",
        ),
    ];
    for (worker, method, script) in scripts {
        let base = supervisor.path("");
        let script = match method {
            "run" => format!("base = '{}'\n{script}", base.display()),
            _ => format!("base={}; {script}", base.display()),
        };
        supervisor.cli(&["call", worker, method, &script]).ok();
    }
    supervisor.until_lines("begun", 2);
    let pids = ["python", "shell"].map(|worker| supervisor.worker_pid(worker));
    supervisor.signal(Signal::SIGKILL);
    supervisor.ended();
    supervisor.let_go();
    supervisor.until("both have finished their tasks and exited", |this| {
        this.lines("ended").len() == 2 && !pids.into_iter().any(lives)
    });
    supervisor.restart();
    run(&supervisor, "python", "print('again', flush=True)");
    assert_eq!(texts(&supervisor, "python"), ["again"]);
}

#[test]
fn d07_a_worker_that_prints_much_after_the_supervisors_death_ends_when_the_next_one_wants_its_name() {
    let mut supervisor = supervisor("[supervisor]\nlogs = { lines = 50_000, bytes = '64MiB' }\n");
    let base = supervisor.path("");
    let script = "open(base + 'begun', 'a').write('x\\n')\nwhile not os.path.exists(base + 'go'): time.sleep(0.005)\nfor n in range(20_000): print('late', n, flush=True)\nopen(base + 'ended', 'a').write('x\\n')";
    supervisor.cli(&["call", "w", "run", &format!("base = '{}'\n{script}", base.display())]).ok();
    supervisor.until_lines("begun", 1);
    let pid = supervisor.worker_pid("w");
    supervisor.signal(Signal::SIGKILL);
    supervisor.ended();
    supervisor.let_go();
    supervisor.until("it waits in its full pipe", |_| {
        std::fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|wchan| wchan.contains("pipe"))
    });
    supervisor.restart();
    run(&supervisor, "w", "print('again', flush=True)");
    assert_eq!((supervisor.lines("ended").len(), lives(pid)), (1, false), "its task was finished");
    let texts = texts(&supervisor, "w");
    assert_eq!(texts.last().unwrap(), "again");
    // What it wrote last has gone with its pipe. What came before was read, a line in two parts where a read has ended.
    let before: String = (0..8_000).map(|n| format!("late {n}")).collect();
    assert!(texts.concat().starts_with(&before), "{} lines", texts.len());
    supervisor.no_overlap();
}

#[test]
fn a_worker_of_another_user_may_open_its_stdout_again_and_a_closed_one_costs_nothing() {
    if is_root() {
        let config = format!("[class.w]\nexec = ['{}', '-S', '{{dir}}/worker.py']\nuser = 'daemon'\n", python());
        let supervisor = Supervisor::with_config(&config);
        supervisor.open_to_others();
        supervisor.file("worker.py", WORKER);
        supervisor.call(&["w", "sh", "echo one > /dev/stderr; echo two >> /dev/stdout"]);
        let mut texts = texts(&supervisor, "w");
        texts.sort();
        assert_eq!(texts, ["one", "two"]);
    }
    let supervisor = supervisor("");
    run(&supervisor, "w", "print('last', flush=True); os.close(1); os.close(2)");
    assert_eq!(texts(&supervisor, "w"), ["last"]);
    run(&supervisor, "w", "pass");
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", supervisor.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(ticks() - before <= 20, "it turns in circles");
}

#[test]
fn only_who_may_administer_or_is_named_for_a_class_reads_what_its_workers_write() {
    if !is_root() {
        return;
    }
    const BIN: u32 = 2;
    const SYS: u32 = 3;
    let class = format!("exec = ['{}', '-S', '{{dir}}/worker.py']", python());
    let supervisor = Supervisor::with_config(&format!(
        "[supervisor]\nsocket_mode = '0666'\nadmin = {{ users = ['daemon'] }}\n\
         [class.a]\n{class}\n[class.b]\n{class}\nlogs = {{ users = ['bin'] }}\n"
    ));
    supervisor.file("worker.py", WORKER);
    supervisor.open_to_others();
    for worker in ["a", "b", "b/1"] {
        run(&supervisor, worker, "print('secret', flush=True)");
    }
    let number = format!("%{}", supervisor.ps("a")["number"]);
    for command in ["logs", "events"] {
        let seen = |uid: u32, args: &[&str]| -> Vec<String> {
            let output = supervisor.cli_of(uid, uid, &[&[command, "--json"], args].concat()).ok();
            let list = output.json().as_array().unwrap().clone();
            let mut names: Vec<String> = list.iter().map(|it| it["worker"].as_str().unwrap().to_string()).collect();
            names.sort();
            names.dedup();
            names
        };
        assert_eq!(seen(0, &[]), ["a", "b", "b/1"]);
        assert_eq!(seen(1, &[]), ["a", "b", "b/1"]);
        assert_eq!(seen(BIN, &[]), ["b", "b/1"], "of all those that it may read");
        assert_eq!(seen(BIN, &["b/1"]), ["b/1"]);
        for worker in ["a", "a/none", &number] {
            let said = ["not_permitted", "user 2 (group 2)", "`logs` of class `a`, nor in `admin`"];
            supervisor.cli_of(BIN, BIN, &[command, worker]).fails(3, &said);
            supervisor.cli_of(BIN, BIN, &[command, worker, "-f"]).fails(3, &said);
        }
        supervisor.cli_of(SYS, SYS, &[command]).fails(3, &["not_permitted", "`logs` of any class"]);
    }
}

#[test]
fn a_user_may_not_have_any_number_of_followers() {
    let supervisor = Supervisor::with_config(ANY_NAME);
    let mut client = supervisor.client();
    let tickets: Vec<_> = (0..65).map(|_| client.logs(None, None, true).unwrap()).collect();
    let receipts: Vec<_> = tickets.into_iter().map(|ticket| client.receipt(ticket).unwrap()).collect();
    assert!(receipts[..64].iter().all(|receipt| *receipt == ReceiptBody::Waiting {}));
    assert!(matches!(&receipts[64], ReceiptBody::Refused { detail, .. } if detail.contains("64 of this user")));
    drop(client);
    harness::until("their places are free", || {
        let mut client = supervisor.client();
        let ticket = client.events(None, None, false, None).unwrap();
        client.receipt(ticket).unwrap() == ReceiptBody::Waiting {}
    });
    // One who has said all that it wants still gets the answer.
    let mut raw = supervisor.raw();
    raw.write_all(b"{\"logs\":{\"ref\":1}}\n").unwrap();
    raw.shutdown(std::net::Shutdown::Write).unwrap();
    let mut said = String::new();
    raw.read_to_string(&mut said).unwrap();
    assert_eq!(said, "{\"receipt\":{\"ref\":1,\"waiting\":{}}}\n{\"outcome\":{\"ref\":1,\"reached\":{}}}\n");
}

#[test]
fn a_follower_learns_that_the_supervisor_has_gone() {
    let mut supervisor = supervisor("");
    run(&supervisor, "w", "print('one', flush=True)");
    let mut follower = Follower::start(&supervisor, &["logs", "-f"]);
    assert!(follower.line().ends_with("out| one"));
    kill(Pid::from_raw(supervisor.pid()), Signal::SIGKILL).unwrap();
    supervisor.ended();
    assert_eq!(follower.0.wait().unwrap().code(), Some(4), "no supervisor answers any more");
    supervisor.until("the worker has exited, too", |this| this.processes().is_empty());
}
