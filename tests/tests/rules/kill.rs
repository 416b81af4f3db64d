//! Kill: what it empties, what it lets finish, and what its receipt says (rules K1–K13; the ladder and what is
//! left behind have files of their own).

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use workhall_protocol::messages::{Call, Current, EndedBy, Kill, OutcomeBody, ReceiptBody};
use workhall_tests::harness::{ANY_NAME, Supervisor, bin_dir, lives, payload};

use crate::kill_ladder::{short, way};

fn with_window(window: u32) -> Supervisor {
    Supervisor::with_config(&format!("class.a.exec = ['{{bin}}/test-worker', '{window}']"))
}

fn log<'a>(worker: &'a str, file: &Path, line: &str) -> Call<'a> {
    Call::new(worker, "log", payload(&(file, line)))
}

fn gone(supervisor: &Supervisor, worker: &str) {
    supervisor.cli(&["wait", worker, "--gone", "--timeout", "60s"]).ok();
}

// ---- K1, K2 ---------------------------------------------------------------------------------

#[test]
fn k01_of_what_was_sent_ahead_nothing_is_executed_and_the_count_is_exact() {
    for window in [1, 2, 64, 65, 1024] {
        let mut supervisor = with_window(window);
        let (file, begun, go) = (supervisor.path("log"), supervisor.path("begun"), supervisor.path("go"));
        let file = file.with_extension("txt");
        let mut client = supervisor.client();
        for line in 0..20 {
            client.submit(log("a", &file, &line.to_string())).unwrap();
        }
        let block = payload(&(&begun, &go));
        let current = client.submit(Call { wait: true, ..Call::new("a", "block", block) }).unwrap();
        for _ in 0..64 {
            client.submit(log("a", &file, "must not run")).unwrap();
        }
        let last = client.submit(log("a", &file, "must not run")).unwrap();
        client.receipt(last).unwrap();
        supervisor.until_lines("begun", 1);
        let killed = client.kill(Kill { worker: Some("a".into()), wait: true, ..Kill::default() }).unwrap();
        assert_eq!(client.receipt(killed).unwrap(), ReceiptBody::Killed { discarded: 65 }, "window {window}");
        assert_eq!(supervisor.ledger("running"), 1);
        assert_eq!(supervisor.ledger("discarded"), 65, "the mailbox is emptied at once (rule K2)");
        supervisor.let_go();
        assert!(matches!(client.outcome(current).unwrap(), OutcomeBody::Done { .. }), "window {window}");
        let OutcomeBody::Killed(report) = client.outcome(killed).unwrap() else { panic!() };
        assert_eq!((report.discarded, report.current), (65, Current::Finished), "window {window}");
        assert_eq!(report.ended_by, EndedBy::Ask);
        let expected: Vec<String> = (0..20).map(|line| line.to_string()).collect();
        assert_eq!(supervisor.lines("log.txt"), expected, "window {window}");
        assert_eq!(supervisor.lines("begun"), ["begun", "ended"]);
        assert_eq!((supervisor.ledger("done"), supervisor.ledger("discarded")), (21, 65));
    }
}

#[test]
fn k01_a_kill_in_full_run_counts_exactly_what_it_took() {
    let mut supervisor = with_window(64);
    const TASKS: u64 = 400;
    for round in 0..5 {
        let name = format!("run-{round}");
        let file = supervisor.path(&name);
        let worker = format!("a/{round}");
        let mut client = supervisor.client();
        let before = (supervisor.ledger("done"), supervisor.ledger("discarded"));
        for line in 0..TASKS {
            client.submit(log(&worker, &file, &line.to_string())).unwrap();
        }
        client.flush().unwrap();
        supervisor.until_lines(&name, 1 + 30 * round);
        let kill = Kill { worker: Some(worker.as_str().into()), wait: true, ..Kill::default() };
        let killed = client.kill(kill).unwrap();
        let ReceiptBody::Killed { discarded } = client.receipt(killed).unwrap() else { panic!() };
        let OutcomeBody::Killed(report) = client.outcome(killed).unwrap() else { panic!() };
        let executed = supervisor.lines(&name).len() as u64;
        assert_eq!(executed + discarded, TASKS, "what was not discarded was executed, and only that");
        assert_eq!(report.discarded, discarded);
        assert_eq!(supervisor.ledger("done") - before.0, executed);
        assert_eq!(supervisor.ledger("discarded") - before.1, discarded);
        let expected: Vec<String> = (0..executed).map(|line| line.to_string()).collect();
        assert_eq!(supervisor.lines(&name), expected);
    }
}

#[test]
fn k02_every_emptied_message_has_its_outcome_at_once() {
    let mut supervisor = Supervisor::start();
    supervisor.block("a");
    let waiting = supervisor.start_cli(&["call", "a", "count", "--wait", "--json"]);
    supervisor.until("it is pending", |this| this.ps("a")["pending"] == 1);
    let receipt = supervisor.cli(&["kill", "a", "--json"]).ok().json();
    assert_eq!(receipt["killed"]["discarded"], 1);
    let outcome = waiting.end();
    assert_eq!((outcome.code, outcome.json()), (6, json!({"discarded": {"may_have_run": false}})));
    assert_eq!(supervisor.ps("a")["state"], "ending", "the current task still runs");
    supervisor.let_go();
    gone(&supervisor, "a");
}

// ---- K3 -------------------------------------------------------------------------------------

#[test]
fn k03_what_a_task_does_after_its_own_kill_still_runs() {
    let supervisor = Supervisor::start();
    let file = supervisor.path("file");
    let answer = supervisor.call(&["a", "suicide", file.to_str().unwrap()]);
    assert_eq!(answer, "ignored: OwnKilledWorker", "a call to itself does nothing (rule K9)");
    assert_eq!(supervisor.lines("file"), ["still here"]);
    gone(&supervisor, "a");
    assert!(supervisor.ps("a").is_null());
    assert_eq!(supervisor.ledger("done"), 1);
}

#[test]
fn k03_an_idle_worker_ends_at_once() {
    let supervisor = short();
    supervisor.call(&["patient", "count"]);
    let report = supervisor.kill(&["patient"]);
    assert_eq!(
        (&report["ended_by"], &report["current"], &report["exit"]),
        (&json!("ask"), &json!("none"), &json!({"code": 0}))
    );
    assert!(report["took_ms"].as_u64().unwrap() < 10_000, "{report}");
}

#[test]
fn k03_a_running_task_has_all_the_time_it_wants() {
    let mut supervisor = short();
    supervisor.block("a");
    let pid = supervisor.worker_pid("a");
    let kill = supervisor.start_cli(&["kill", "a", "--wait", "--json"]);
    supervisor.until("the kill is known", |this| this.ps("a")["closed"] == true);
    // Longer than both graces: the grace counts from the end of the task.
    std::thread::sleep(Duration::from_millis(500));
    assert!(lives(pid));
    assert_eq!(supervisor.ps("a")["state"], "ending");
    supervisor.let_go();
    let report = kill.end().ok().json();
    assert_eq!((&report["ended_by"], &report["current"]), (&json!("ask"), &json!("finished")), "{report}");
    assert_eq!(supervisor.lines("begun"), ["begun", "ended"]);
}

// ---- K5, K6 ---------------------------------------------------------------------------------

#[test]
fn k05_by_name_and_by_number() {
    let supervisor = Supervisor::start();
    for worker in ["a", "b"] {
        supervisor.call(&[worker, "count"]);
    }
    let number = supervisor.ps("b")["number"].as_u64().unwrap();
    let report = supervisor.kill(&[&format!("%{number}")]);
    assert_eq!((&report["worker"], &report["number"]), (&json!("b"), &json!(number)));
    assert!(supervisor.ps("b").is_null() && supervisor.ps("a")["state"] == "idle");
    assert_eq!(supervisor.kill(&["a"])["worker"], "a");
}

#[test]
fn k05_by_number_only_that_worker_and_not_its_successor() {
    let mut supervisor = Supervisor::start();
    supervisor.block("a");
    let first = supervisor.ps("a")["number"].as_u64().unwrap();
    supervisor.cli(&["kill", "a"]).ok();
    supervisor.cli(&["call", "a", "count"]).ok();
    let second = supervisor.cli(&["kill", &format!("%{first}"), "--json"]).ok().json();
    assert_eq!(second["killed"]["discarded"], 0);
    supervisor.let_go();
    supervisor.until("the successor has executed it", |this| this.ps("a")["executed"] == 1);
    assert_ne!(supervisor.ps("a")["number"], first);
    assert_eq!(supervisor.ledger("discarded"), 0);
}

#[test]
fn k05_without_a_name_inside_a_worker_it_is_that_worker() {
    let supervisor = Supervisor::start();
    let workhall = bin_dir().join("workhall");
    supervisor.call(&["b", "count"]);
    let program = supervisor.call(&["a", "program", workhall.to_str().unwrap(), "kill"]);
    assert_eq!(program[0], 0, "{program}");
    gone(&supervisor, "a");
    assert_eq!(supervisor.ps("b")["state"], "idle");
}

#[test]
fn k05_without_a_name_inside_a_worker_it_is_no_worker_of_another_supervisor() {
    let (own, other) = (Supervisor::start(), Supervisor::start());
    let workhall = bin_dir().join("workhall");
    let kill = |socket: &Path| {
        let (workhall, socket) = (workhall.to_str().unwrap(), socket.to_str().unwrap());
        own.call(&["a", "program", "--", workhall, "kill", "--socket", socket])
    };
    // Both have the number 2.
    assert_eq!((other.call(&["b", "count"]), other.ps("b")["number"].clone()), (json!(1), json!(2)));
    for socket in [other.socket(), Path::new("/no/such/socket")] {
        let refused = kill(socket);
        assert_eq!(refused[0], 2, "{refused}");
        let said = refused[2].as_str().unwrap();
        assert!(said.contains("name a worker") && said.contains(own.socket().to_str().unwrap()), "{said}");
    }
    assert_eq!(other.call(&["b", "count"]), 2, "it was not killed");
    assert_eq!(own.ps("a")["number"], 2);
    // Its own, by another name of it.
    let link = other.path("link");
    std::os::unix::fs::symlink(own.socket(), &link).unwrap();
    assert_eq!(kill(&link)[0], 0);
    gone(&own, "a");
}

#[test]
fn k05_without_a_name_outside_a_worker_it_is_a_usage_error() {
    let supervisor = Supervisor::start();
    supervisor.call(&["a", "count"]);
    let output = supervisor.cli(&["kill"]);
    assert_eq!(output.code, 2, "{output:?}");
    assert!(output.err.contains("name a worker"), "{output:?}");
    assert_eq!(supervisor.ps("a")["state"], "idle");
}

#[test]
fn k06_a_kill_of_nobody_does_nothing_and_creates_nothing() {
    let supervisor = Supervisor::start();
    for target in ["a", "no-such-class", "%77", "%1"] {
        let output = supervisor.cli(&["kill", target, "--wait", "--json"]).ok().json();
        assert_eq!(output["ignored"]["reason"], "no_worker", "{target}");
    }
    let status = supervisor.status();
    assert_eq!((&status["counts"]["workers"], &status["counts"]["spawned"]), (&json!(0), &json!(0)));
    assert_eq!(status["ignored"], 4);
    supervisor.call(&["a", "count"]);
    assert_eq!(supervisor.ps("a")["number"], 2, "a kill uses up no number");
}

// ---- K7 -------------------------------------------------------------------------------------

#[test]
fn k07_a_call_to_a_just_killed_worker_waits_for_the_old_process() {
    let mut supervisor = Supervisor::start();
    supervisor.call(&["a", "count"]);
    supervisor.block("a");
    let (old, pid) = (supervisor.ps("a"), supervisor.worker_pid("a"));
    supervisor.cli(&["kill", "a"]).ok();
    let new = supervisor.cli(&["call", "a", "who", "--json"]).ok().json();
    let number = new["accepted"]["number"].as_u64().unwrap();
    assert!(number > old["number"].as_u64().unwrap(), "a new worker has a new number");
    assert_eq!(supervisor.ps("a")["state"], "absent", "its turn has not come");
    assert_eq!(supervisor.processes(), [pid]);
    supervisor.let_go();
    // An empty method is the new worker's first one; what the old one had counted is gone.
    assert_eq!(supervisor.call(&["a"]), json!(["a", number, 1]));
    assert_eq!(supervisor.call(&["a", "count"]), 1);
    assert!(!lives(pid));
    supervisor.no_overlap();
}

// ---- K9 -------------------------------------------------------------------------------------

#[test]
fn k09_a_killed_worker_cannot_call_itself_even_if_a_successor_waits() {
    let mut supervisor = Supervisor::start();
    let (begun, go) = (supervisor.path("begun"), supervisor.path("go"));
    supervisor.cli(&["call", "a", "block_then_call_self", begun.to_str().unwrap(), go.to_str().unwrap()]).ok();
    supervisor.until_lines("begun", 1);
    supervisor.cli(&["kill", "a"]).ok();
    supervisor.cli(&["call", "a", "count"]).ok();
    supervisor.let_go();
    supervisor.until_lines("begun", 2);
    assert_eq!(supervisor.lines("begun")[1], "ignored: OwnKilledWorker; ignored: OwnKilledWorker");
    assert_eq!(supervisor.call(&["a", "count"]), 2, "the successor was called by the client alone");
}

#[test]
fn k09_who_calls_is_known_from_the_connection() {
    let supervisor = Supervisor::start();
    let workhall = bin_dir().join("workhall");
    let workhall = workhall.to_str().unwrap();
    // In the environment of the killed worker, but on a connection of its own: a client.
    let script = format!("'{workhall}' kill && '{workhall}' call a count --json && '{workhall}' call a count --json");
    let program = supervisor.call(&["a", "program", "--", "sh", "-c", &script]);
    assert_eq!(program[0], 0, "{program}");
    assert_eq!(program[1].as_str().unwrap().matches("accepted").count(), 2, "{program}");
    assert_eq!(supervisor.call(&["a", "count"]), 3);
    assert_eq!(supervisor.call(&["a", "sender"]), Value::Null);
}

#[test]
fn k09_others_may_call_a_killed_worker() {
    let mut supervisor = Supervisor::start();
    supervisor.block("a");
    supervisor.cli(&["kill", "a"]).ok();
    assert_eq!(supervisor.call(&["b", "call", "a", "count", "[]"]), "accepted by a");
    supervisor.let_go();
    assert_eq!(supervisor.call(&["a", "count"]), 2);
}

// ---- K10, K11 -------------------------------------------------------------------------------

#[test]
fn k10_a_kill_of_the_main_worker_only_empties_its_mailbox() {
    let mut supervisor = Supervisor::with_config("class.a = { exec = ['{bin}/test-worker'], main = true }");
    supervisor.until("the main worker is idle", |this| this.ps("a")["state"] == "idle");
    assert_eq!(supervisor.ps("a")["number"], 1);
    let pid = supervisor.worker_pid("a");
    supervisor.block("a");
    for (round, flags) in [&[][..], &["--now"], &["--within", "0s"]].into_iter().enumerate() {
        for _ in 0..3 {
            supervisor.cli(&["call", "a", "count"]).ok();
        }
        let report = supervisor.kill(&[&["a"], flags].concat());
        assert_eq!((&report["ended_by"], &report["discarded"]), (&json!("only_emptied"), &json!(3)), "{report}");
        assert_eq!(supervisor.ledger("discarded"), 3 * (round as u64 + 1));
        assert_eq!(supervisor.ps("a")["closed"], false);
    }
    let report = supervisor.kill(&["a", "--drain"]);
    assert_eq!((&report["ended_by"], &report["discarded"]), (&json!("only_emptied"), &json!(0)), "{report}");
    supervisor.let_go();
    assert_eq!(supervisor.call(&["%1", "count"]), 1);
    // A kill of itself neither: it may go on calling itself.
    let file = supervisor.path("file");
    assert_eq!(supervisor.call(&["a", "suicide", file.to_str().unwrap()]), "accepted by a");
    assert_eq!(supervisor.call(&["a", "count"]), 3);
    assert_eq!(supervisor.worker_pid("a"), pid);
}

#[test]
fn k11_a_second_kill_takes_what_was_posted_for_the_successor() {
    let mut supervisor = Supervisor::start();
    supervisor.block("a");
    let pid = supervisor.worker_pid("a");
    supervisor.cli(&["call", "a", "count"]).ok();
    let first = supervisor.start_cli(&["kill", "a", "--wait", "--json"]);
    supervisor.until("the kill is known", |this| this.ps("a")["closed"] == true);
    let waiting = supervisor.start_cli(&["call", "a", "count", "--wait", "--json"]);
    supervisor.until("the successor has its message", |this| this.ps("a")["pending"] == 1);
    supervisor.cli(&["call", "a", "count"]).ok();
    let second = supervisor.start_cli(&["kill", "a", "--wait", "--json"]);
    assert_eq!(waiting.end().json(), json!({"discarded": {"may_have_run": false}}));
    let third = supervisor.cli(&["kill", "a", "--json"]).ok().json();
    assert_eq!(third["killed"]["discarded"], 0, "there is nothing left to discard");
    assert_eq!(supervisor.ledger("discarded"), 3);
    supervisor.let_go();
    let (first, second) = (first.end().ok().json(), second.end().ok().json());
    assert_eq!((&first["discarded"], &first["ended_by"]), (&json!(1), &json!("ask")), "{first}");
    assert_eq!((&second["discarded"], &second["ended_by"]), (&json!(2), &json!("ask")), "{second}");
    assert_eq!(first["number"], second["number"]);
    gone(&supervisor, "a");
    assert!(supervisor.ps("a").is_null() && !lives(pid));
    assert_eq!(supervisor.status()["counts"]["spawned"], 1, "the successor never started");
}

// ---- K12 ------------------------------------------------------------------------------------

#[test]
fn k12_the_receipt_says_what_happened() {
    let mut supervisor = short();
    supervisor.call(&["a", "count"]);
    let number = supervisor.ps("a")["number"].clone();
    for _ in 0..2 {
        supervisor.cli(&["call", "a", "die"]).ok();
    }
    supervisor.until("it is dead twice", |this| this.ps("a")["crashes"] == 2 && this.ps("a")["state"] == "absent");
    // No process: already gone.
    let report = supervisor.kill(&["a"]);
    assert_eq!((&report["worker"], &report["number"]), (&json!("a"), &number), "{report}");
    assert_eq!(way(&report), ("already_gone", "none", Value::Null), "{report}");
    // The third life of another worker, idle.
    supervisor.call(&["a", "count"]);
    for _ in 0..2 {
        supervisor.cli(&["call", "a", "die"]).ok();
    }
    supervisor.call(&["a", "count"]);
    let report = supervisor.kill(&["a"]);
    assert_eq!(report["generation"], 3, "{report}");
    assert_eq!(way(&report), ("ask", "none", json!({"code": 0})), "{report}");
    assert!(report["steps"]["ask_ms"].is_u64() && report["steps"]["term_ms"].is_null(), "{report}");
    // A task that finishes.
    supervisor.block("a");
    for _ in 0..4 {
        supervisor.cli(&["call", "a", "count"]).ok();
    }
    let kill = supervisor.start_cli(&["kill", "a", "--wait", "--json"]);
    supervisor.until("the kill is known", |this| this.ps("a")["closed"] == true);
    supervisor.let_go();
    let report = kill.end().ok().json();
    assert_eq!(way(&report), ("ask", "finished", json!({"code": 0})), "{report}");
    assert_eq!(report["discarded"], 4);
}

#[test]
fn k12_a_task_that_exits_by_itself_after_the_kill_was_interrupted() {
    let mut supervisor = Supervisor::start();
    let begun = supervisor.path("begun");
    let mut client = supervisor.client();
    let args = payload(&(&begun,));
    let task = client.submit(Call { wait: true, ..Call::new("a", "until_asked", args) }).unwrap();
    let next = payload(&(3,));
    client.submit(Call::new("a", "exit", next)).unwrap();
    client.flush().unwrap();
    supervisor.until_lines("begun", 1);
    let report = supervisor.kill(&["a"]);
    assert_eq!(way(&report), ("ask", "finished", json!({"code": 0})), "a long task may look and end: {report}");
    assert_eq!(report["discarded"], 1);
    let OutcomeBody::Done { result } = client.outcome(task).unwrap() else { panic!() };
    assert_eq!(result.to_json().unwrap(), "asked");
    // One that dies in the task.
    let (begun, go) = (supervisor.path("begun"), supervisor.path("go"));
    let (begun, go) = (begun.to_str().unwrap(), go.to_str().unwrap());
    let script = format!("echo > {begun}.2; while ! test -e {go}; do sleep 0.01; done; kill -9 $PPID");
    supervisor.cli(&["call", "a", "program", "--", "sh", "-c", &script]).ok();
    supervisor.until_lines("begun.2", 1);
    let kill = supervisor.start_cli(&["kill", "a", "--wait", "--json"]);
    supervisor.until("the kill is known", |this| this.ps("a")["closed"] == true);
    supervisor.let_go();
    let report = kill.end().ok().json();
    assert_eq!(way(&report), ("ask", "interrupted", json!({"signal": 9})), "{report}");
}

#[test]
fn k12_who_does_not_want_to_wait_longer_does_not_take_the_kill_back() {
    let mut supervisor = Supervisor::start();
    supervisor.block("a");
    let output = supervisor.cli(&["kill", "a", "--wait", "--timeout", "50ms"]);
    assert_eq!(output.code, 5, "{output:?}");
    assert_eq!(supervisor.ps("a")["closed"], true);
    supervisor.let_go();
    gone(&supervisor, "a");
}

// ---- K13 ------------------------------------------------------------------------------------

#[test]
fn k13_a_drain_executes_what_is_pending_and_newer_calls_go_to_the_successor() {
    let mut supervisor = Supervisor::start();
    let (old, new) = (supervisor.path("old"), supervisor.path("new"));
    supervisor.block("a");
    let number = supervisor.ps("a")["number"].clone();
    for line in ["one", "two", "three"] {
        supervisor.cli(&["call", "a", "log", old.to_str().unwrap(), line]).ok();
    }
    let drain = supervisor.start_cli(&["kill", "a", "--drain", "--wait", "--json"]);
    supervisor.until("the drain is known", |this| this.ps("a")["closed"] == true);
    let newer = supervisor.cli(&["call", "a", "log", new.to_str().unwrap(), "four", "--json"]).ok().json();
    assert_ne!(newer["accepted"]["number"], number);
    assert!(!new.exists());
    supervisor.let_go();
    let report = drain.end().ok().json();
    assert_eq!(way(&report), ("ask", "finished", json!({"code": 0})), "{report}");
    assert_eq!((&report["discarded"], &report["number"]), (&json!(0), &number), "{report}");
    assert_eq!(supervisor.lines("old"), ["one", "two", "three"]);
    supervisor.until_lines("new", 1);
    supervisor.until("all is done", |this| this.ledger("done") == 5);
    assert_eq!(supervisor.ledger("discarded"), 0);
    supervisor.no_overlap();
}

#[test]
fn k13_a_crash_does_not_end_a_drain() {
    let mut supervisor = Supervisor::start();
    let file = supervisor.path("lines");
    supervisor.block("a");
    for line in ["one", "", "two", "three"] {
        match line {
            "" => supervisor.cli(&["call", "a", "die"]).ok(),
            line => supervisor.cli(&["call", "a", "log", file.to_str().unwrap(), line]).ok(),
        };
    }
    let drain = supervisor.start_cli(&["kill", "a", "--drain", "--wait", "--json"]);
    supervisor.until("the drain is known", |this| this.ps("a")["closed"] == true);
    supervisor.cli(&["call", "a", "log", file.to_str().unwrap(), "four"]).ok();
    supervisor.let_go();
    let report = drain.end().ok().json();
    assert_eq!((&report["generation"], &report["ended_by"]), (&json!(2), &json!("ask")), "{report}");
    supervisor.until_lines("lines", 4);
    assert_eq!(supervisor.lines("lines"), ["one", "two", "three", "four"]);
    supervisor.no_overlap();
}

#[test]
fn k13_a_drain_has_no_more_time_than_it_is_given() {
    let mut supervisor = short();
    supervisor.block("a");
    for _ in 0..3 {
        supervisor.cli(&["call", "a", "count"]).ok();
    }
    let report = supervisor.kill(&["a", "--drain", "--within", "100ms"]);
    assert_eq!(way(&report), ("term", "interrupted", json!({"signal": 15})), "{report}");
    assert_eq!(report["discarded"], 3, "{report}");
    assert_eq!(supervisor.ledger("discarded"), 4, "with the one that was interrupted");
}

#[test]
fn k13_a_drain_of_an_idle_worker_is_a_kill_and_a_kill_ends_a_drain() {
    let mut supervisor = Supervisor::start();
    supervisor.call(&["a", "count"]);
    let report = supervisor.kill(&["a", "--drain"]);
    assert_eq!(way(&report), ("ask", "none", json!({"code": 0})), "{report}");
    supervisor.block("a");
    supervisor.cli(&["call", "a", "count"]).ok();
    let drain = supervisor.start_cli(&["kill", "a", "--drain", "--wait", "--json"]);
    supervisor.until("the drain is known", |this| this.ps("a")["closed"] == true);
    assert_eq!(supervisor.cli(&["kill", "a", "--json"]).ok().json()["killed"]["discarded"], 1);
    supervisor.let_go();
    let report = drain.end().ok().json();
    assert_eq!((&report["discarded"], &report["current"]), (&json!(1), &json!("finished")), "{report}");
}

#[test]
fn k13_the_method_that_ends_its_worker_is_an_ordinary_message() {
    let mut supervisor = Supervisor::start();
    let (log, end) = (supervisor.path("lines"), supervisor.path("end"));
    supervisor.block("a");
    for line in ["one", "two", "three"] {
        supervisor.cli(&["call", "a", "log", log.to_str().unwrap(), line]).ok();
    }
    supervisor.cli(&["call", "a", "suicide", end.to_str().unwrap()]).ok();
    supervisor.cli(&["call", "a", "log", log.to_str().unwrap(), "too late"]).ok();
    supervisor.let_go();
    gone(&supervisor, "a");
    assert_eq!(supervisor.lines("lines"), ["one", "two", "three"]);
    assert_eq!(supervisor.lines("end"), ["still here"]);
    assert_eq!((supervisor.ledger("done"), supervisor.ledger("discarded")), (5, 1));
    // It does not create the worker that it is meant to end (rule C12).
    let ignored = supervisor.cli(&["call", "a", "suicide", "x", "--existing", "--json"]).ok().json();
    assert_eq!(ignored["ignored"]["reason"], "no_worker");
    assert!(supervisor.ps("a").is_null());
}

// ---- patterns -------------------------------------------------------------------------------

#[test]
fn a_pattern_kills_all_whose_names_match() {
    let supervisor = Supervisor::start();
    for worker in ["a", "a/x-1", "a/x-2", "a/y", "b"] {
        supervisor.call(&[worker, "count"]);
    }
    let reports = supervisor.kill(&["a/x-*"]);
    let names: Vec<&str> =
        reports.as_array().unwrap().iter().map(|report| report["worker"].as_str().unwrap()).collect();
    assert_eq!(names, ["a/x-1", "a/x-2"]);
    let left = || {
        let rows = supervisor.cli(&["ps", "--json"]).ok().json();
        rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(left(), ["a", "a/y", "b"]);
    assert_eq!(supervisor.kill(&["nobody-*"]), json!([]));
    let nobody = supervisor.cli(&["kill", "nobody-*", "--wait"]).ok();
    assert!(nobody.out.contains("no worker matches `nobody-*`"), "{nobody:?}");
    supervisor.kill(&["*"]);
    assert_eq!(left(), ["a/y"], "a star does not cross a slash");
    supervisor.kill(&["**"]);
    assert_eq!(left(), [""; 0]);
}

#[test]
fn who_is_named_several_times_is_killed_once() {
    let supervisor = Supervisor::with_config(ANY_NAME);
    for worker in ["v/1", "v/2"] {
        supervisor.call(&[worker, "count"]);
    }
    let killed = supervisor.cli(&["kill", "v/1", "v/*", "v/1", "**", "--wait"]).ok().out;
    let names: Vec<&str> = killed.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["v/1", "v/2"], "{killed}");
}
