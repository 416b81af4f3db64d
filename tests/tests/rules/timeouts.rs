//! `--timeout` holds from the first step on, also where the supervisor does not get on.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use workhall_tests::harness::{PATIENCE, Supervisor, output_of};

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
