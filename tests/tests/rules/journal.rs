//! Where what workers write goes beside `workhall logs`: to stderr behind the worker's name, or to systemd's journal with
//! fields.

use std::fs;

use serde_json::Value;
use workhall_tests::harness::{Supervisor, is_root, python};

/// Listens where the journal does, in a mount namespace of its own, and writes down what comes: one JSON object of the
/// fields of each datagram. Then it starts what follows.
const JOURNAL: &str = r#"
import json, os, socket, sys
out, program = sys.argv[1], sys.argv[2:]
os.makedirs("/run/systemd/journal", exist_ok=True)
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.bind("/run/systemd/journal/socket")
if os.fork() == 0:
    os.close(2); os.close(1)
    with open(out, "w") as file:
        journal.settimeout(0.2)
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
    let class = "[class.w]\nexec = ['{bin}/test-worker']\nnames = ['**']\n";
    Supervisor::with_config_under(&format!("{settings}\n{class}"), |dir| {
        let script = dir.join("journal.py");
        fs::write(&script, JOURNAL).unwrap();
        let out = dir.join("journal");
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
            assert!(supervisor.lines("journal").is_empty(), "{settings}");
        }
        supervisor.file("journal.end", "");
    }
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
