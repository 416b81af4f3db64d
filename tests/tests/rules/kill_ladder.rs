//! The stop ladder: asked, then SIGTERM, then SIGKILL (rule K4).

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use workhall_protocol::args::Payload;
use workhall_protocol::messages::Call;
use workhall_tests::harness::{self, Supervisor};

/// Workers that are asked, and get SIGTERM and SIGKILL soon after. `deaf` reads no `kill`, `stubborn` ignores
/// SIGTERM too; the current task of a `hasty` one has little time.
const SHORT: &str = r#"
    [class.a]
    exec = ["{bin}/test-worker"]
    exit_grace = "150ms"
    term_grace = "150ms"
    [class.patient]
    exec = ["{bin}/test-worker"]
    exit_grace = "30s"
    term_grace = "30s"
    [class.hasty]
    exec = ["{bin}/test-worker"]
    task_grace = "100ms"
    exit_grace = "150ms"
    term_grace = "150ms"
    [class.deaf]
    exec = ["bash", "{dir}/deaf"]
    exit_grace = "150ms"
    term_grace = "10s"
    [class.stubborn]
    exec = ["bash", "{dir}/stubborn"]
    exit_grace = "150ms"
    term_grace = "150ms"
"#;

/// Says that it is done with everything, and lives on whatever else it hears.
const DEAF: &str = r#"
    exec 3<>"/proc/self/fd/$WORKHALL_FD" 2>/dev/null || eval "exec 3<&$WORKHALL_FD 4>&$WORKHALL_FD"
    printf '{"ready":{"protocol":1,"window":1}}\n' >&$WORKHALL_FD
    while :; do
        if IFS= read -r line <&$WORKHALL_FD; then
            case "$line" in
                *'"task"'*) id=${line#*'"id":'}; printf '{"done":{"id":%s}}\n' "${id%%[,\}]*}" >&$WORKHALL_FD;;
            esac
        else
            read -t 1000 <> <(:)
        fi
    done
"#;

/// A supervisor with these classes.
pub fn short() -> Supervisor {
    let supervisor = Supervisor::with_config(SHORT);
    let deaf = DEAF.lines().filter(|line| !line.contains("exec 3")).collect::<Vec<_>>().join("\n");
    supervisor.file("deaf", &deaf);
    supervisor.file("stubborn", &format!("trap '' TERM\n{deaf}"));
    supervisor
}

/// What a receipt says of the way down.
pub fn way(report: &Value) -> (&str, &str, Value) {
    (report["ended_by"].as_str().unwrap(), report["current"].as_str().unwrap(), report["exit"].clone())
}

#[test]
fn k04_who_does_not_hear_the_request_gets_sigterm() {
    let supervisor = short();
    assert_eq!(supervisor.call(&["deaf", "x"]), Value::Null);
    let report = supervisor.kill(&["deaf"]);
    assert_eq!(way(&report), ("term", "none", json!({"signal": 15})), "{report}");
    assert!(report["steps"]["ask_ms"].as_u64().unwrap() >= 150, "{report}");
    assert!(report["steps"]["kill_ms"].is_null(), "{report}");
}

#[test]
fn k04_who_ignores_sigterm_gets_sigkill() {
    let supervisor = short();
    supervisor.call(&["stubborn", "x"]);
    let report = supervisor.kill(&["stubborn"]);
    assert_eq!(way(&report), ("kill", "none", json!({"signal": 9})), "{report}");
    for step in ["ask_ms", "term_ms"] {
        assert!(report["steps"][step].as_u64().unwrap() >= 150, "{report}");
    }
    assert!(report["took_ms"].as_u64().unwrap() >= 300, "{report}");
}

#[test]
fn k04_a_stopped_process_is_continued_with_sigterm() {
    let supervisor = short();
    supervisor.call(&["a", "count"]);
    kill(Pid::from_raw(supervisor.worker_pid("a")), Signal::SIGSTOP).unwrap();
    let report = supervisor.kill(&["a"]);
    assert_eq!(way(&report), ("term", "none", json!({"signal": 15})), "{report}");
}

#[test]
fn k04_a_stopped_process_that_ignores_sigterm_notices_the_request_when_continued() {
    let supervisor = short();
    supervisor.call(&["a", "ignore_term"]);
    kill(Pid::from_raw(supervisor.worker_pid("a")), Signal::SIGSTOP).unwrap();
    let report = supervisor.kill(&["a"]);
    assert_eq!(way(&report), ("term", "none", json!({"code": 0})), "it was asked, and reads it now: {report}");
}

#[test]
fn k04_a_class_or_a_killer_can_cut_the_task_short() {
    let mut supervisor = short();
    let (begun, go) = (supervisor.path("begun"), supervisor.path("go"));
    for (round, (worker, flags)) in
        [("hasty", &[][..]), ("a", &["--within", "100ms"]), ("a", &["--within", "0s"])].into_iter().enumerate()
    {
        let call = ["call", worker, "block", begun.to_str().unwrap(), go.to_str().unwrap(), "--wait", "--json"];
        let task = supervisor.start_cli(&call);
        supervisor.until_lines("begun", round + 1);
        let report = supervisor.kill(&[&[worker], flags].concat());
        assert_eq!(way(&report), ("term", "interrupted", json!({"signal": 15})), "{report}");
        let outcome = task.end();
        assert_eq!((outcome.code, outcome.json()), (6, json!({"discarded": {"may_have_run": true}})));
    }
    assert_eq!(supervisor.ledger("discarded"), 3);
}

#[test]
fn k04_the_shorter_of_two_limits_counts_also_in_a_second_kill() {
    let mut supervisor = short();
    supervisor.block("a");
    let first = supervisor.start_cli(&["kill", "a", "--wait", "--json"]);
    supervisor.until("the kill is known", |this| this.ps("a")["closed"] == true);
    let second = supervisor.start_cli(&["kill", "a", "--within", "100ms", "--wait", "--json"]);
    for report in [first.end().ok().json(), second.end().ok().json()] {
        assert_eq!(way(&report), ("term", "interrupted", json!({"signal": 15})), "{report}");
    }
}

#[test]
fn k04_a_task_that_ignores_sigterm_is_killed_after_the_grace() {
    let mut supervisor = short();
    supervisor.call(&["a", "ignore_term"]);
    supervisor.block("a");
    let report = supervisor.kill(&["a", "--within", "50ms"]);
    assert_eq!(way(&report), ("kill", "interrupted", json!({"signal": 9})), "{report}");
}

#[test]
fn k04_now_starts_at_sigkill() {
    let mut supervisor = short();
    supervisor.block("patient");
    supervisor.cli(&["call", "patient", "count"]).ok();
    let report = supervisor.kill(&["patient", "--now"]);
    assert_eq!(way(&report), ("kill", "interrupted", json!({"signal": 9})), "{report}");
    assert_eq!(report["discarded"], 1, "{report}");
    // Also after a kill that is under way, and for a stopped process.
    supervisor.block("patient");
    kill(Pid::from_raw(supervisor.worker_pid("patient")), Signal::SIGSTOP).unwrap();
    supervisor.cli(&["kill", "patient"]).ok();
    let report = supervisor.kill(&["patient", "--now"]);
    assert_eq!(way(&report), ("kill", "interrupted", json!({"signal": 9})), "{report}");
}

#[test]
fn k04_a_worker_that_is_not_ready_yet_is_killed_too() {
    let mut supervisor = Supervisor::with_config(
        r#"
        class.slow = { exec = ["sh", "-c", "exec sleep 1000"], exit_grace = "100ms", term_grace = "100ms" }
        "#,
    );
    let call = supervisor.start_cli(&["call", "slow", "x", "--wait", "--json"]);
    supervisor.until("it has a process", |this| this.ps("slow")["state"] == "starting");
    let report = supervisor.kill(&["slow"]);
    assert_eq!(way(&report), ("term", "none", json!({"signal": 15})), "{report}");
    assert_eq!(report["discarded"], 1);
    assert_eq!(call.end().json(), json!({"discarded": {"may_have_run": false}}));
}

#[test]
fn k04_a_process_that_has_left_its_group_gets_the_signals_all_the_same() {
    let supervisor = short();
    let join = "import os, time; os.setpgid(0, os.getpgid(os.getppid())); time.sleep(1000)";
    supervisor.file("deserter", join);
    supervisor.file("deaf", &format!("exec {} -S '{}'", harness::python(), supervisor.path("deserter").display()));
    supervisor.cli(&["call", "deaf", "x"]).ok();
    let group = || std::fs::read_to_string(format!("/proc/{}/stat", supervisor.worker_pid("deaf"))).unwrap();
    let pid = supervisor.worker_pid("deaf").to_string();
    let left = || group().rsplit(')').next().unwrap().split_whitespace().nth(2) != Some(&pid);
    let start = std::time::Instant::now();
    while !left() {
        assert!(start.elapsed() < harness::PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    let report = supervisor.kill(&["deaf"]);
    assert_eq!(way(&report), ("term", "none", json!({"signal": 15})), "{report}");
}

#[test]
fn k04_a_worker_that_cannot_start_is_killed_at_once() {
    let mut supervisor = Supervisor::with_config(
        "class.missing.exec = ['{dir}/missing']\nclass.failing.exec = ['false']\nclass.b.exec = ['{bin}/test-worker']",
    );
    for worker in ["missing", "failing"] {
        for _ in 0..3 {
            supervisor.cli(&["call", worker, "x"]).ok();
        }
        supervisor.until("it has failed twice", |this| this.ps(worker)["crashes"].as_u64() >= Some(2));
        supervisor.until("it waits", |this| this.ps(worker)["state"] == "backoff");
        let report = supervisor.kill(&[worker]);
        assert_eq!(report["discarded"], 3, "{report}");
        assert!(supervisor.ps(worker).is_null());
    }
    // One that dies again and again while others are called.
    let mut client = supervisor.client();
    for _ in 0..8 {
        client.submit(Call::new("b", "die", Payload::no_args())).unwrap();
    }
    client.flush().unwrap();
    supervisor.until("it waits", |this| this.ps("b")["state"] == "backoff" && this.ps("b")["crashes"] == 4);
    let report = supervisor.kill(&["b"]);
    assert_eq!((way(&report), &report["discarded"]), (("already_gone", "none", Value::Null), &json!(4)), "{report}");
    assert_eq!(supervisor.call(&["b", "count"]), 1, "a new worker has no failures");
}
