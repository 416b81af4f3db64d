//! `--timeout` holds from the first step on, also where the supervisor does not get on.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use workhall_tests::harness::{PATIENCE, Supervisor, output_of, until};

/// Longer than the time-outs below, and than the second that is always given; shorter than for ever.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_supervisor_that_takes_no_connections_is_not_waited_for() {
    let supervisor = Supervisor::start();
    supervisor.stop_with_full_backlog();
    let start = Instant::now();
    let commands = [
        &["call", "a", "count", "--wait", "--timeout", "300ms"][..],
        &["call", "a", "count", "--lines", "--wait", "--timeout", "300ms"],
        &["kill", "a", "--wait", "--timeout", "300ms"],
        &["kill", "*", "--wait", "--timeout", "0s"],
        &["wait", "a", "--idle", "--timeout", "300ms"],
    ]
    .map(|args| supervisor.start_cli(args));
    for command in commands {
        command.end().fails(5, &["time ran out", "takes no connections", "nothing was asked for"]);
    }
    assert!(start.elapsed() < SOON && SOON < PATIENCE, "{:?}", start.elapsed());
    supervisor.signal(Signal::SIGCONT);
    assert_eq!(supervisor.ledger("accepted"), 0);
}

#[test]
fn a_supervisor_that_reads_nothing_is_not_waited_for() {
    let supervisor = Supervisor::start();
    supervisor.signal(Signal::SIGSTOP);
    let start = Instant::now();
    let text = json!(["x".repeat(3 << 20)]).to_string();
    let mut large = supervisor.command(&["call", "a", "echo", "--args", "-", "--wait", "--timeout", "300ms"]);
    output_of(&mut large, text.as_bytes()).fails(5, &["time ran out", "may not have been posted"]);
    let lines = [text.as_bytes(), b"\n"].concat().repeat(3);
    let mut large = supervisor.command(&["call", "a", "echo", "--lines", "--wait", "--timeout", "300ms"]);
    output_of(&mut large, &lines).fails(5, &["time ran out", "may not have been posted"]);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    supervisor.signal(Signal::SIGCONT);
    assert_eq!(supervisor.ledger("accepted"), 0);
}

/// More lines than the mailbox holds, of which three come to their end and the fourth does not.
fn lines_that_get_stuck(supervisor: &Supervisor) -> Vec<u8> {
    let (begun, go) = (supervisor.path("begun"), supervisor.file("go", ""));
    let line = |go| format!("{}\n", json!([begun, go])).into_bytes();
    [line(go).repeat(3), line(supervisor.path("stay")).repeat(27)].concat()
}

const SMALL: &str = "class.a = { exec = ['{bin}/test-worker'], mailbox = { messages = 10 } }";

#[test]
fn lines_that_run_out_of_time_print_what_is_known_and_say_what_was_posted() {
    let supervisor = Supervisor::with_config(SMALL);
    let lines = lines_that_get_stuck(&supervisor);
    let mut posting = supervisor.command(&["call", "a", "block", "--lines", "--wait", "--timeout", "5s"]);
    let output = output_of(&mut posting, &lines);
    let accepted = supervisor.ledger("accepted");
    let said = format!(
        "the time ran out; what was asked for goes on; {accepted} lines were posted, line {} and",
        accepted + 1
    );
    let output = output.fails(5, &[&said, "those behind it were not"]);
    assert_eq!((output.out, supervisor.ledger("done")), ("null\n".repeat(3), 3));
    // Where all have room, none was not posted.
    supervisor.file("stay", "");
    supervisor.cli(&["wait", "a", "--idle"]).ok();
    std::fs::remove_file(supervisor.path("stay")).unwrap();
    let lines = lines.split_inclusive(|byte| *byte == b'\n').take(4).collect::<Vec<_>>().concat();
    let mut posting = supervisor.command(&["call", "a", "block", "--lines", "--wait", "--timeout", "5s"]);
    let output = output_of(&mut posting, &lines).fails(5, &["what was asked for goes on; 4 lines were posted\n"]);
    assert_eq!(output.out, "null\n".repeat(3));
    supervisor.file("stay", "");
}

#[test]
fn lines_that_lose_the_supervisor_print_what_is_known_and_say_what_was_posted() {
    let mut supervisor = Supervisor::with_config(SMALL);
    let lines = lines_that_get_stuck(&supervisor);
    let mut posting = supervisor.command(&["call", "a", "block", "--lines", "--wait"]);
    let output = std::thread::scope(|scope| {
        let posting = scope.spawn(|| output_of(&mut posting, &lines));
        until("three have ended, and it waits for room", || {
            let status = supervisor.status();
            let (done, running) = (&status["ledger"]["done"], &status["ledger"]["running"]);
            (done, running) == (&json!(3), &json!(1)) && status["refused"].as_u64() >= Some(1)
        });
        let accepted = supervisor.ledger("accepted");
        supervisor.signal(Signal::SIGKILL);
        let said = format!("; {accepted} lines were posted, line {} and those behind it were not", accepted + 1);
        posting.join().unwrap().fails(4, &["the supervisor closed the connection", &said])
    });
    assert_eq!(output.out, "null\n".repeat(3));
    supervisor.ended();
    supervisor.file("stay", "");
    supervisor.until("its worker has ended", |this| this.processes().is_empty());
}

#[test]
fn a_supervisor_that_is_stopped_is_not_waited_for_by_whoever_only_asks() {
    let supervisor = Supervisor::start();
    supervisor.signal(Signal::SIGSTOP);
    let start = Instant::now();
    let commands = [
        &["ps"][..],
        &["info", "a"],
        &["status"],
        &["dead", "list"],
        &["dead", "show", "1"],
        &["dead", "requeue", "--all"],
        &["dead", "drop", "1"],
        &["pause", "a"],
        &["resume", "a"],
        &["reload"],
        &["logs"],
        &["events", "a", "--json"],
    ]
    .map(|args| supervisor.start_cli(&[args, &["--timeout", "300ms"]].concat()));
    for command in commands {
        command.end().fails(5, &["the time ran out"]);
    }
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    supervisor.signal(Signal::SIGCONT);
    for command in ["ps", "logs", "events"] {
        supervisor.cli(&[command, "--timeout", "60s"]).ok();
    }
    for command in ["logs", "events"] {
        supervisor.cli(&[command, "-f", "--timeout", "1s"]).fails(2, &["--timeout", "--follow"]);
    }
}
