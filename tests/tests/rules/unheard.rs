//! A supervisor whose stderr nobody reads.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use workhall_tests::harness::{self, ANY_NAME, Supervisor, python};

use super::logs;

/// Starts what follows with a pipe of one page as its stderr, of which one line is read; the rest once there is `go`.
const READER: &str = r#"
import fcntl, os, sys, time
reader, writer = os.pipe()
fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
if os.fork() == 0:
    os.close(writer)
    while True:
        byte = os.read(reader, 1)
        os.write(1, byte)
        if byte == b"\n": break
    while not os.path.exists(sys.argv[1]):
        if os.getppid() == 1: sys.exit()
        time.sleep(0.005)
    while data := os.read(reader, 65536): os.write(1, data)
    sys.exit()
os.dup2(writer, 2)
os.close(reader)
os.close(writer)
os.execv(sys.argv[2], sys.argv[2:])
"#;

fn unheard(config: &str) -> Supervisor {
    Supervisor::with_config_under(config, |dir| {
        let script = dir.join("reader.py");
        fs::write(&script, READER).unwrap();
        [python(), script.to_str().unwrap(), dir.join("go").to_str().unwrap()].map(str::to_string).to_vec()
    })
}

#[test]
fn a_supervisor_whose_stderr_nobody_reads_goes_on_and_says_later_how_much_was_lost() {
    let mut supervisor = unheard(ANY_NAME);
    let mut client = supervisor.client();
    let mut line_more = |supervisor: &Supervisor| {
        supervisor.signal(Signal::SIGHUP);
        client.list().unwrap();
    };
    // Each says a line of some 70 bytes.
    for _ in 0..200 {
        line_more(&supervisor);
    }
    assert_eq!(supervisor.call(&["a", "count"]), 1);
    supervisor.let_go();
    supervisor.until("it says what was lost", |this| {
        line_more(this);
        this.log().contains(" lines before this one were lost: nobody read them")
    });
    let log = supervisor.log();
    let lost = log.lines().find_map(|line| {
        line.strip_prefix("workhall: ")?.strip_suffix(" lines before this one were lost: nobody read them")
    });
    let lost: usize = lost.unwrap().parse().unwrap();
    assert!((50..200).contains(&lost), "{log}");
    assert!(log.lines().all(|line| line.starts_with("workhall: ")), "whole lines: {log}");
}

#[test]
fn a_worker_whose_lines_nobody_reads_on_stderr_holds_up_nobody() {
    let mut supervisor = unheard(&logs::class(Path::new("{dir}")));
    supervisor.file("worker.py", logs::WORKER);
    supervisor.cli(&["call", "flood", "sh", "yes 'a line that is written again and again'"]).ok();
    supervisor.until("much was written", |this| this.status()["logs"]["dropped"].as_u64().unwrap() > 100_000);
    for n in 0..20 {
        logs::run(&supervisor, "b", &format!("print({n}, flush=True)"));
    }
    assert_eq!(logs::texts(&supervisor, "b"), harness::numbers(0..20));
    supervisor.kill(&["flood", "--now"]);
    supervisor.let_go();
    supervisor.until("it says what was lost", |this| {
        this.signal(Signal::SIGHUP);
        this.log().contains(" lines before this one were lost: nobody read them")
    });
}
