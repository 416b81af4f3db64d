//! A supervisor becomes another program while it serves: what its workers and clients notice of that, which is nothing.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use workhall_protocol::messages::{Address, Call, ReceiptBody, Until};
use workhall_tests::harness::{
    self, ANY_NAME, Supervisor, bin_dir, copy_program, is_root, numbers, output_of, payload, text, tree_modes,
};

#[track_caller]
fn upgrade(supervisor: &Supervisor) -> Value {
    let report = supervisor.cli(&["upgrade", "--json"]).ok().json()["upgraded"].take();
    assert_eq!(report["pid"], supervisor.pid(), "the process is the same");
    report
}

/// An executable file in the test's own directory.
fn program(supervisor: &Supervisor, name: &str, script: &str) -> String {
    let path = supervisor.file(name, script);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    text(&path).to_string()
}

/// How many upgrades the long test makes: `WORKHALL_UPGRADES=1000` for the full run.
fn upgrades() -> usize {
    std::env::var("WORKHALL_UPGRADES").map_or(30, |count| count.parse().expect("WORKHALL_UPGRADES is a number"))
}

/// Posts numbered messages to a worker, which writes them down, until it is told to stop. Returns how many.
fn post_until(supervisor: &Supervisor, worker: &str, file: &PathBuf, stop: &AtomicBool) -> usize {
    let mut client = supervisor.client();
    let mut posted = 0;
    while !stop.load(SeqCst) {
        let mut tickets = Vec::new();
        for number in posted..posted + 20 {
            let args = payload(&(file, number.to_string()));
            tickets.push(client.submit(Call::new(worker, "log", args)).unwrap());
        }
        for ticket in tickets {
            let receipt = client.receipt(ticket).unwrap();
            assert!(matches!(receipt, ReceiptBody::Accepted(_)), "{receipt:?}");
        }
        posted += 20;
        let args = payload(&(file, posted.to_string()));
        client.call_and_wait(Call::new(worker, "log", args)).unwrap();
        posted += 1;
    }
    posted
}

/// Many upgrades in a row, while clients post and wait, workers crash, and signals come.
#[test]
fn l01_upgrades_in_a_row_lose_nothing_and_do_nothing_twice() {
    let script = "class.script = { exec = ['{dir}/script'], names = ['script/*'] }\n";
    let mut supervisor = Supervisor::with_config(&format!("{script}{ANY_NAME}"));
    program(&supervisor, "script", &SCRIPT.replace("{python}", harness::python()));
    let held = supervisor.hold("held");
    let waiting = supervisor.start_cli(&["call", "held", "count", "--wait"]);
    let idle = supervisor.start_cli(&["wait", "held", "--idle"]);
    let names = ["a", "b/1", "script/1", "script/2"];
    let files: Vec<PathBuf> = names.iter().map(|name| supervisor.path(&name.replace('/', "-"))).collect();
    let stop = AtomicBool::new(false);
    let mut pauses = Vec::new();
    let posted: Vec<usize> = std::thread::scope(|scope| {
        let supervisor = &supervisor;
        let stop = &stop;
        // Should an upgrade fail, the others must end too.
        let stop_at_the_end = StopAtTheEnd(stop);
        let posters: Vec<_> = names
            .iter()
            .zip(&files)
            .map(|(name, file)| scope.spawn(move || post_until(supervisor, name, file, stop)))
            .collect();
        scope.spawn(move || {
            // SIGHUP and SIGCHLD come at any moment, also in that of the exec.
            let mut client = supervisor.client();
            while !stop.load(SeqCst) {
                supervisor.signal(Signal::SIGHUP);
                let outcome = client.call_and_wait(Call::new("victim", "die", payload(&()))).unwrap();
                assert!(format!("{outcome:?}").contains("Crashed"), "{outcome:?}");
                let resumed = client.resume(Address::from("victim")).unwrap();
                assert!(matches!(resumed, ReceiptBody::Resumed {}), "{resumed:?}");
            }
        });
        let mut client = supervisor.client();
        for _ in 0..upgrades() {
            match client.upgrade(None).unwrap() {
                ReceiptBody::Report(report) => pauses.push(report.to_json().unwrap()["pause_us"].as_u64().unwrap()),
                other => panic!("{other:?}"),
            }
        }
        drop(stop_at_the_end);
        posters.into_iter().map(|poster| poster.join().unwrap()).collect()
    });
    held.release();
    assert_eq!(waiting.end().ok().out, "1\n");
    idle.end().ok();
    for ((name, file), posted) in names.iter().zip(&files).zip(&posted) {
        supervisor.cli(&["wait", name, "--idle", "--timeout", "60s"]).ok();
        assert_eq!(harness::lines(file), numbers(0..*posted), "{name}");
        assert_eq!(supervisor.ps(name)["generation"], 1, "{name}: its process is the first");
        assert_eq!(harness::parent(supervisor.worker_pid(name)), supervisor.pid());
    }
    let ledger = supervisor.status()["ledger"].clone();
    let expected = posted.iter().sum::<usize>() as u64 + 2;
    assert_eq!((ledger["done"].as_u64(), ledger["failed"].as_u64()), (Some(expected), Some(0)), "{ledger}");
    assert_eq!(ledger["accepted"].as_u64(), Some(expected + ledger["dead"].as_u64().unwrap()), "{ledger}");
    supervisor.no_overlap();
    pauses.sort_unstable();
    println!(
        "{} upgrades, {} messages: a pause of {} µs in the median, {} µs at the longest",
        pauses.len(),
        expected,
        pauses[pauses.len() / 2],
        pauses[pauses.len() - 1]
    );
}

struct StopAtTheEnd<'a>(&'a AtomicBool);

impl Drop for StopAtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// A worker that takes one task at a time, and speaks JSON lines.
const SCRIPT: &str = r#"#!{python} -S
import json, os, socket
connection = socket.socket(fileno=int(os.environ["WORKHALL_FD"]))
lines = connection.makefile("rw", encoding="utf-8", newline="\n")
def say(message):
    lines.write(json.dumps(message) + "\n")
    lines.flush()
say({"ready": {"protocol": 1, "window": 1}})
for line in lines:
    message = json.loads(line)
    if "kill" in message:
        break
    if "task" in message:
        file, number = message["task"]["args"]
        with open(file, "a") as log:
            log.write(number + "\n")
        say({"done": {"id": message["task"]["id"], "result": None}})
"#;

#[test]
fn timers_go_on() {
    let class = "exec = ['{bin}/test-worker']";
    let config = format!(
        "[class.a]\n{class}\n[class.late]\n{class}\ntask_timeout = '4s'\nterm_grace = '100ms'\n[class.crashes]\n{class}\n\
         crash_limit = {{ crashes = 1, pause = '4s' }}\n[class.idles]\n{class}\nidle_timeout = '4s'\n"
    );
    let mut supervisor = Supervisor::with_config(&config);
    let file = supervisor.path("log");
    supervisor.call(&["idles", "count"]);
    supervisor.cli(&["call", "a", "log", text(&file), "\"later\"", "--in", "4s"]).ok();
    let late = supervisor.start_cli(&["call", "late", "sleep", "100000", "--wait"]);
    supervisor.cli(&["call", "crashes", "die", "--wait"]).fails(6, &["crashed"]);
    supervisor.cli(&["call", "crashes", "log", text(&file), "\"after the pause\""]).ok();
    supervisor.until("it pauses", |this| this.ps("crashes")["state"] == "paused");
    supervisor.until("its task runs", |this| this.ps("late")["state"] == "busy");
    let up = supervisor.status()["uptime_ms"].as_u64().unwrap();
    upgrade(&supervisor);
    let status = supervisor.status();
    assert!(status["uptime_ms"].as_u64().unwrap() >= up, "{status}");
    supervisor.until_lines("log", 2);
    late.end().fails(6, &["timed out"]);
    supervisor.cli(&["wait", "idles", "--gone", "--timeout", "30s"]).ok();
    assert_eq!(supervisor.ps("idles")["crashes"], 0);
}

#[test]
fn half_a_request_and_unread_answers_go_on() {
    let supervisor = Supervisor::with_config(ANY_NAME);
    let mut half = supervisor.raw();
    half.write_all(b"{\"call\":{\"worker\":\"a\",\"method\":\"count\",\"ref\":1,\"wa").unwrap();
    let mut unread = supervisor.raw();
    const ASKED: usize = 40;
    for number in 0..ASKED {
        let call = format!(
            "{{\"call\":{{\"worker\":\"b\",\"method\":\"big\",\"args\":[300000],\"ref\":{number},\"wait\":true,\"brief\":true}}}}\n"
        );
        unread.write_all(call.as_bytes()).unwrap();
    }
    unread.write_all(b"{\"status\":{\"ref\":\"s\"}}\n").unwrap();
    supervisor.cli(&["wait", "b", "--idle", "--timeout", "30s"]).ok();
    for _ in 0..3 {
        upgrade(&supervisor);
    }
    half.write_all(b"it\":true}}\n").unwrap();
    let mut lines = BufReader::new(half).lines();
    let mut line = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(line()["receipt"]["accepted"]["worker"], "a");
    assert_eq!(line()["outcome"], json!({ "ref": 1, "done": { "result": 1 } }));
    let mut outcomes = 0;
    for line in BufReader::new(unread).lines().take(ASKED + 1) {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        match line["outcome"]["done"]["result"].as_str() {
            Some(result) => {
                assert_eq!((line["outcome"]["ref"].as_u64(), result.len()), (Some(outcomes), 300_000));
                outcomes += 1;
            }
            None => assert_eq!(line["receipt"]["ref"], "s", "{line}"),
        }
    }
    assert_eq!(outcomes, ASKED as u64);
}

#[test]
fn d08_the_new_program_has_what_the_old_one_had_and_leaves_nothing() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    let before = supervisor.call(&["before", "descriptors"]);
    upgrade(&supervisor);
    let kinds = |links: &Value| {
        let links = links.as_array().unwrap().iter().map(|link| link.as_str().unwrap());
        let mut kinds: Vec<String> =
            links.map(|link| link.split(['[', '/']).next().unwrap_or_default().to_string()).collect();
        kinds.sort_unstable();
        kinds
    };
    let after = supervisor.call(&["after", "descriptors"]);
    assert_eq!(kinds(&after), kinds(&before), "{after} {before}");
    let status = supervisor.call(&["after", "read", "/proc/self/status"]);
    let blocked = status.as_str().unwrap().lines().find(|line| line.starts_with("SigBlk:")).unwrap();
    assert!(blocked.trim_end().ends_with("0000000000000000"), "{blocked}");
    let environ = supervisor.call(&["after", "read", "/proc/self/environ"]);
    assert!(!environ.as_str().unwrap().contains("WORKHALL_UPGRADE"), "{environ}");
    assert_eq!(harness::program(supervisor.pid()), "workhall");
    // The lock of the socket, and what a process holds over the supervisor's sudden death.
    let mut second = supervisor.command(&["serve", "--workers", text(bin_dir()), "--socket"]);
    harness::output(second.arg(supervisor.socket())).fails(1, &["another supervisor"]);
    let held = supervisor.hold("before");
    let pid = supervisor.worker_pid("before");
    supervisor.signal(Signal::SIGTERM);
    supervisor.until("it stops", |this| this.log().contains("goes on for") && !held.has_ended());
    held.release();
    assert!(supervisor.ended().success());
    assert!(!harness::lives(pid) && !supervisor.socket().exists());
    // The next one finds nothing in its way.
    supervisor.restart();
    assert_eq!(supervisor.call(&["before", "count"]), 1);
}

#[test]
fn k08_what_a_process_leaves_behind_is_found_after_an_upgrade() {
    for mode in tree_modes() {
        let mut supervisor = Supervisor::in_mode(mode, "");
        let file = supervisor.path("orphan");
        let orphan = supervisor.call(&["a", "orphan", text(&file)]).as_i64().unwrap() as i32;
        let pid = supervisor.worker_pid("a");
        upgrade(&supervisor);
        assert_eq!(supervisor.status()["process_tree"], mode);
        assert!(harness::lives(orphan), "{mode}");
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        supervisor.until("the next process", |this| {
            let _started = this.cli(&["call", "a", "count"]);
            this.ps("a")["generation"] == 2
        });
        assert!(!harness::lives(orphan), "{mode}: the gate opened before");
        supervisor.no_overlap();
    }
}

#[test]
fn a_stop_that_comes_with_an_upgrade_is_heard() {
    for round in 0..6 {
        let mut supervisor = Supervisor::with_config(ANY_NAME);
        supervisor.call(&["a", "count"]);
        let upgrading = supervisor.start_cli(&["upgrade"]);
        // At another moment each time: before, during and after the exec.
        let start = Instant::now();
        harness::until("its moment", || start.elapsed() >= Duration::from_millis(3 * round));
        supervisor.signal(Signal::SIGTERM);
        assert!(supervisor.ended().success(), "round {round}");
        assert!([0, 1, 4].contains(&upgrading.end().code), "round {round}");
    }
}

#[test]
fn a_program_that_cannot_go_on_is_refused_and_all_goes_on() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    supervisor.call(&["a", "count"]);
    let workhall = bin_dir().join("workhall");
    let other_format = format!(
        "#!{} -S\nimport subprocess, sys\nstate = bytearray(sys.stdin.buffer.read())\nstate[16] = 77\n\
         sys.exit(subprocess.run(['{}', 'upgrade-check'], input=bytes(state)).returncode)\n",
        harness::python(),
        workhall.display()
    );
    let cut = format!("#!/bin/sh\nhead -c 500 | {} \"$@\"\n", workhall.display());
    let later = program(&supervisor, "later", &other_format);
    let cut = program(&supervisor, "cut", &cut);
    let odd = program(&supervisor, "odd", "#!/bin/sh\necho who are you >&2\nexit 2\n");
    let text_file = text(&supervisor.file("text", "text")).to_string();
    let no_program = program(&supervisor, "no-program", "\u{1}\u{2}");
    for (binary, why) in [
        (&*later, "the state has format 77, and workhall"),
        (&cut, "cannot go on"),
        (&odd, "is no workhall that can go on: it says `who are you`"),
        ("/bin/true", "is no workhall that can go on: it says nothing"),
        (&no_program, "cannot ask"),
        (&text_file, "is no executable file"),
        ("/nowhere", "cannot look at /nowhere"),
    ] {
        supervisor.cli(&["upgrade", "--binary", binary]).fails(1, &[why]);
    }
    assert_eq!(supervisor.log().matches("no upgrade, all goes on as it was").count(), 5, "{}", supervisor.log());
    assert_eq!(supervisor.call(&["a", "count"]), 2);
    // One that does not answer is waited for only so long, and holds up nobody; there is one at a time.
    let silent = program(&supervisor, "silent", "#!/bin/sh\necho $$ > \"$0.pid\"\nexec sleep 1000\n");
    let asked = supervisor.start_cli(&["upgrade", "--binary", &silent]);
    supervisor.until_lines("silent.pid", 1);
    supervisor.cli(&["upgrade"]).fails(1, &["another upgrade is under way"]);
    assert_eq!(supervisor.call(&["a", "count"]), 3);
    asked.end().fails(1, &["did not say within 20 s"]);
    let pid: i32 = supervisor.lines("silent.pid")[0].parse().unwrap();
    assert!(!harness::lives(pid));
    upgrade(&supervisor);
    assert_eq!(supervisor.call(&["a", "count"]), 4);
}

#[test]
fn the_file_that_was_asked_is_the_file_that_is_executed() {
    let supervisor = Supervisor::with_config(ANY_NAME);
    let workhall = bin_dir().join("workhall");
    // Says yes in the name of another, and is another when it is to be executed.
    let path = supervisor.path("changes");
    let script = format!("#!/bin/sh\necho '#' >> {}\nexec {} \"$@\"\n", path.display(), workhall.display());
    let changes = program(&supervisor, "changes", &script);
    supervisor.cli(&["upgrade", "--binary", &changes]).fails(1, &["was replaced after it was asked"]);
    // A new version that was installed over the old one is found by its path.
    let copy = program(&supervisor, "workhall-copy", "");
    copy_program(&workhall, Path::new(&copy));
    assert_eq!(supervisor.cli(&["upgrade", "--json", "--binary", &copy]).ok().json()["upgraded"]["binary"], copy);
    std::fs::remove_file(&copy).unwrap();
    copy_program(&workhall, Path::new(&copy));
    assert_eq!(upgrade(&supervisor)["binary"], copy);
}

#[test]
fn the_configuration_in_force_goes_on_and_a_reload_finds_the_file() {
    let class = "[class.a]\nexec = ['{bin}/test-worker']\n";
    let supervisor = Supervisor::with_config(class);
    supervisor.call(&["a", "count"]);
    supervisor.file("workhall.toml", "what is this");
    upgrade(&supervisor);
    assert_eq!(supervisor.call(&["a/new", "count"]), 1);
    assert!(supervisor.cli(&["reload"]).err.contains("workhall.toml:1:"));
    let bin = bin_dir().display();
    supervisor.file("workhall.toml", &format!("[class.b]\nexec = ['{bin}/test-worker']\n"));
    assert_eq!(supervisor.cli(&["reload", "--json"]).ok().json()["reloaded"]["removed"], json!(["a"]));
    // Workers without a class keep theirs over an upgrade.
    upgrade(&supervisor);
    supervisor.cli(&["call", "a", "count"]).fails(3, &["no_class"]);
    assert_eq!(supervisor.cli(&["info", "a", "--json"]).ok().json()["retired"], true);
    assert_eq!(supervisor.call(&["b", "count"]), 1);
}

#[test]
fn a_wait_for_a_state_goes_on() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    let held = supervisor.hold("a");
    let mut client = supervisor.client();
    let ticket = client.wait("a".into(), Until::Idle).unwrap();
    let drain = supervisor.start_cli(&["kill", "b", "a", "--drain", "--wait", "--json"]);
    supervisor.until("it is drained", |this| this.ps("a")["closed"] == true);
    upgrade(&supervisor);
    held.release();
    assert!(matches!(client.outcome(ticket).unwrap(), workhall_protocol::messages::OutcomeBody::Reached {}));
    assert!(drain.end().ok().out.contains("\"current\":\"finished\""));
}

#[test]
fn who_names_the_program_is_root_or_the_supervisor_itself() {
    if !is_root() {
        return println!("skipped: only root can become another user");
    }
    let settings = "supervisor = { socket_mode = '0666', admin = { users = [1] } }\n";
    let supervisor = Supervisor::with_config(&format!("{settings}{ANY_NAME}"));
    supervisor.open_to_others();
    supervisor.cli_of(2, 2, &["upgrade"]).fails(3, &["not_permitted", "`admin` in [supervisor]"]);
    supervisor.cli_of(1, 1, &["upgrade", "--binary", "/bin/true"]).fails(3, &["not_permitted", "root"]);
    supervisor.cli_of(1, 1, &["upgrade"]).ok();
}

/// What this version has written, the next must be able to read.
#[test]
fn a_recorded_state_is_read() {
    let recorded = harness::workspace().join("supervisor/recorded");
    let mut files: Vec<PathBuf> = std::fs::read_dir(recorded).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let mut check = std::process::Command::new(bin_dir().join("workhall"));
        let output = output_of(check.arg("upgrade-check"), &std::fs::read(&file).unwrap()).ok();
        assert!(output.out.starts_with("workhall upgrade-check: workhall "), "{}: {output:?}", file.display());
    }
}

/// What came before in the same bytes is still being handled when the state is written to ask the new program.
#[test]
fn an_upgrade_that_is_asked_for_behind_a_brief_call_is_an_upgrade() {
    let supervisor = Supervisor::with_config(ANY_NAME);
    let mut client = supervisor.raw();
    client
        .write_all(
            b"{\"call\":{\"worker\":\"a\",\"method\":\"count\",\"ref\":1,\"brief\":true}}\n{\"upgrade\":{\"ref\":2}}\n",
        )
        .unwrap();
    let mut lines = BufReader::new(client).lines();
    let mut line = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(line(), json!({"receipt": {"ref": 1, "accepted_all": {"messages": 1}}}));
    assert_eq!(line()["receipt"]["ref"], 2);
}
