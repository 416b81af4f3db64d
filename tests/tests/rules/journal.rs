//! Where what workers write goes beside `workhall logs`, and what the supervisor itself logs: to stderr, or to systemd's
//! journal with fields.

use std::fs;

use serde_json::Value;
use workhall_tests::harness::{Supervisor, is_root, python};

/// Listens where the journal does, in a mount namespace of its own, and writes down what comes: one JSON object of the
/// fields of each datagram. Then it starts what follows.
const JOURNAL: &str = r#"
import json, os, socket, sys, time
out, program = sys.argv[1], sys.argv[2:]
os.makedirs("/run/systemd/journal", exist_ok=True)
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.bind("/run/systemd/journal/socket")
if os.fork() == 0:
    os.close(2); os.close(1)
    with open(out, "w") as file:
        journal.settimeout(0.2)
        while os.getppid() != 1 and os.path.exists(out + ".stalls"): time.sleep(0.01)
        while os.getppid() != 1 and not os.path.exists(out + ".end"):
            try: data = journal.recv(1 << 20)
            except TimeoutError: continue
            fields = dict(line.split("=", 1) for line in data.decode().rstrip("\n").split("\n"))
            file.write(json.dumps(fields) + "\n")
            file.flush()
    os._exit(0)
journal.close()
stderr = os.fstat(2)
if os.environ.get("CONNECTED"): os.environ["JOURNAL_STREAM"] = f"{stderr.st_dev}:{stderr.st_ino}"
os.execv(program[0], program)
"#;

fn with_journal(settings: &str, connected: bool) -> Supervisor {
    with_journal_that(settings, connected, false)
}

/// One that `stalls` reads nothing until `journal.stalls` is gone.
fn with_journal_that(settings: &str, connected: bool, stalls: bool) -> Supervisor {
    let class = "[class.w]\nexec = ['{bin}/test-worker']\nnames = ['**']\n";
    Supervisor::with_config_under(&format!("{settings}\n{class}"), |dir| {
        let script = dir.join("journal.py");
        fs::write(&script, JOURNAL).unwrap();
        let out = dir.join("journal");
        if stalls {
            fs::write(dir.join("journal.stalls"), "").unwrap();
        }
        // A directory of its own in the place of the machine's.
        let mount = "mkdir -p /run/systemd && mount -t tmpfs none /run/systemd && exec \"$@\"";
        let connected = format!("CONNECTED={}", if connected { "1" } else { "" });
        ["unshare", "--mount", "sh", "-c", mount, "sh", "env", &connected, python(), "-S"]
            .into_iter()
            .chain([script.to_str().unwrap(), out.to_str().unwrap()])
            .map(str::to_string)
            .collect()
    })
}

fn write(supervisor: &Supervisor) {
    // A panic is what a worker in Rust says on stderr.
    supervisor.cli(&["call", "a/1", "panic", "--wait"]).fails(6, &["exit status 101"]);
}

#[test]
fn a_supervisor_that_is_connected_to_the_journal_passes_lines_on_with_fields() {
    if !is_root() {
        return println!("skipped: only root can have a mount namespace of its own");
    }
    for (settings, connected, goes) in [
        ("", true, true),
        ("", false, false),
        ("[supervisor]\nlogs.forward = 'journal'", false, true),
        ("[supervisor]\nlogs.forward = 'stderr'", true, false),
    ] {
        let mut supervisor = with_journal(settings, connected);
        write(&supervisor);
        let number = supervisor.ps("a/1")["number"].to_string();
        let said = "as asked";
        if goes {
            supervisor.until("the journal has it", |this| this.lines("journal").iter().any(|line| line.contains(said)));
            let fields = supervisor.lines("journal");
            let line = fields.iter().find(|line| line.contains(said)).unwrap();
            let fields: Value = serde_json::from_str(line).unwrap();
            for (key, value) in [
                ("PRIORITY", "4"),
                ("SYSLOG_IDENTIFIER", "a/1"),
                ("WORKHALL_WORKER", "a/1"),
                ("WORKHALL_NUMBER", &number),
                ("WORKHALL_GENERATION", "1"),
                ("WORKHALL_CLASS", "w"),
                ("WORKHALL_STREAM", "stderr"),
                ("MESSAGE", said),
            ] {
                assert_eq!(fields[key], value, "{settings}: {fields}");
            }
            assert!(!supervisor.log().contains(said), "{settings}: {}", supervisor.log());
        } else {
            assert!(supervisor.log().contains(&format!("a/1 | {said}\n")), "{settings}: {}", supervisor.log());
            assert!(supervisor.lines("journal").iter().all(|line| !line.contains(said)), "{settings}");
        }
        supervisor.file("journal.end", "");
    }
}

/// The fields of the first entry with these words.
fn entry(supervisor: &mut Supervisor, words: &str) -> Value {
    let mut found = None;
    supervisor.until(words, |this| {
        found = this.lines("journal").into_iter().find(|line| line.contains(words));
        found.is_some()
    });
    serde_json::from_str(&found.unwrap()).unwrap()
}

#[test]
fn a_supervisor_that_is_connected_to_the_journal_logs_into_it_with_fields() {
    if !is_root() {
        return println!("skipped: only root can have a mount namespace of its own");
    }
    for (format, connected, goes) in
        [("auto", true, true), ("auto", false, false), ("journal", false, true), ("text", true, false)]
    {
        let settings = format!("[supervisor]\nlog_format = '{format}'\nlog_level = 'debug'\n");
        let mut supervisor = with_journal(&settings, connected);
        assert!(supervisor.log().contains("workhall: ready at "), "it is on stderr in any case");
        supervisor.call(&["a/1", "count"]);
        let (number, pid) = (supervisor.ps("a/1")["number"].to_string(), supervisor.worker_pid("a/1").to_string());
        supervisor.cli(&["call", "a/1", "die", "--wait"]);
        if goes {
            let started = entry(&mut supervisor, "a/1: its process is started");
            let crashed = entry(&mut supervisor, "a/1: its process has crashed");
            for (fields, key, value) in [
                (&started, "PRIORITY", "7"),
                (&started, "SYSLOG_IDENTIFIER", "workhall"),
                (&started, "WORKHALL_WORKER", "a/1"),
                (&started, "WORKHALL_NUMBER", &number),
                (&started, "WORKHALL_GENERATION", "1"),
                (&started, "WORKHALL_PID", &pid),
                (&crashed, "PRIORITY", "4"),
                (&crashed, "WORKHALL_CLASS", "w"),
                (&crashed, "MESSAGE", "a/1: its process has crashed: signal 9"),
            ] {
                assert_eq!(fields[key], value, "{format}: {fields}");
            }
            assert_eq!(supervisor.log().lines().count(), 1, "{}", supervisor.log());
            // What goes there goes there after an upgrade, too, and can be changed.
            supervisor.cli(&["upgrade"]).ok();
            entry(&mut supervisor, "goes on for");
            supervisor.file("workhall.toml", "[supervisor]\nlog_format = 'text'\n[class.w]\nexec = ['/bin/false']\n");
            supervisor.cli(&["reload"]).ok();
            supervisor.until("it is text", |this| this.log().contains("workhall.toml was read again"));
        } else {
            assert!(supervisor.log().contains("workhall: debug: a/1: its process is started number="));
            assert!(supervisor.log().contains("workhall: warning: a/1: its process has crashed: signal 9 number="));
            assert!(supervisor.lines("journal").iter().all(|line| !line.contains("its process")), "{format}");
        }
        supervisor.file("journal.end", "");
    }
}

#[test]
fn a_journal_that_takes_nothing_holds_up_nobody_and_what_it_has_not_taken_is_said_later() {
    if !is_root() {
        return println!("skipped: only root can have a mount namespace of its own");
    }
    let settings = "[supervisor]\nlog_format = 'journal'\nlog_level = 'debug'\n";
    let mut supervisor = with_journal_that(settings, true, true);
    // Each is a connection that comes and goes. The queue of a socket has room for some hundred entries.
    for _ in 0..1_000 {
        drop(supervisor.client());
    }
    assert_eq!(supervisor.call(&["a", "count"]), 1);
    supervisor.cli(&["upgrade"]).ok();
    assert_eq!(supervisor.call(&["a", "count"]), 2);
    fs::remove_file(supervisor.path("journal.stalls")).unwrap();
    let mut said = String::new();
    supervisor.until("it says what was lost", |this| {
        drop(this.client());
        said = this.lines("journal").into_iter().find(|line| line.contains(" were lost: ")).unwrap_or_default();
        !said.is_empty()
    });
    let fields: Value = serde_json::from_str(&said).unwrap();
    let message = fields["MESSAGE"].as_str().unwrap();
    let lost =
        message.strip_suffix(" entries of the supervisor before this one were lost: the journal did not take them");
    let lost: u64 = lost.unwrap().parse().unwrap();
    assert!(lost > 500 && fields["PRIORITY"] == "4", "{fields}");
    supervisor.file("journal.end", "");
}

#[test]
fn without_a_journal_lines_go_to_stderr_behind_the_workers_name_or_nowhere() {
    let class = "[class.w]\nexec = ['{bin}/test-worker']\nnames = ['**']\n";
    let supervisor = Supervisor::with_config(class);
    write(&supervisor);
    assert!(supervisor.log().contains("a/1 | as asked\n"), "{}", supervisor.log());
    let supervisor = Supervisor::with_config(&format!("[supervisor]\nlogs.forward = 'none'\n{class}"));
    write(&supervisor);
    assert!(!supervisor.log().contains("as asked"), "{}", supervisor.log());
    assert!(supervisor.cli(&["logs", "a/1"]).ok().out.contains("as asked"), "it is kept all the same");
    if !std::path::Path::new("/run/systemd/journal/socket").exists() {
        let supervisor = Supervisor::with_config(&format!("[supervisor]\nlogs.forward = 'journal'\n{class}"));
        write(&supervisor);
        let log = supervisor.log();
        assert!(log.contains("warning: there is no journal at") && log.contains("a/1 | as asked\n"), "{log}");
    }
}
