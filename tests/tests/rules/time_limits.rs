//! What takes too long, what has nothing to do, and what is for later (rules D6, W6, C13).

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use workhall_protocol::messages::{Call, DeadReason, Exit, OutcomeBody};
use workhall_tests::harness::{Supervisor, lives, numbers, payload, text};

use crate::crash::{JSON_WORKER, with_python};

// ---- D6 -------------------------------------------------------------------------------------

const TIMED: &str = r#"
    [class.one]
    exec = ["{bin}/test-worker", "1"]
    task_timeout = "{timeout}"
    term_grace = "200ms"
    [class.many]
    exec = ["{bin}/test-worker", "64"]
    task_timeout = "{timeout}"
    term_grace = "200ms"
    on_crash = "retry"
    [class.json]
    exec = ["{python}", "-S", "{dir}/w.py"]
    task_timeout = "{timeout}"
    term_grace = "200ms"
"#;

const WORKERS: [&str; 3] = ["one", "many", "json"];

fn timed(timeout: &str) -> Supervisor {
    with_python(&TIMED.replace("{timeout}", timeout), JSON_WORKER)
}

#[test]
fn d06_a_task_that_takes_too_long_ends_its_process_and_no_other_is_charged() {
    let supervisor = timed("800ms");
    for worker in WORKERS {
        let file = supervisor.path(worker);
        let mut client = supervisor.client();
        let log = |line: usize| Call::new(worker, "log", payload(&(&file, line.to_string())));
        for line in 0..20 {
            client.submit(log(line)).unwrap();
        }
        let start = Instant::now();
        let late = client.submit(Call { wait: true, ..Call::new(worker, "sleep", payload(&(100_000,))) }).unwrap();
        for line in 20..40 {
            client.submit(log(line)).unwrap();
        }
        let last = client.submit(Call { wait: true, ..log(40) }).unwrap();
        // Also where the class retries: it would take too long again.
        let expected =
            OutcomeBody::Dead { reason: DeadReason::TimedOut, exit: Some(Exit::Signal(15)), may_have_run: true };
        assert_eq!(client.outcome(late).unwrap(), expected, "{worker}");
        assert!(start.elapsed() >= Duration::from_millis(800), "{worker}: {:?}", start.elapsed());
        assert!(matches!(client.outcome(last).unwrap(), OutcomeBody::Done { .. }), "{worker}");
        assert_eq!(supervisor.lines(worker), numbers(0..41), "{worker}");
        let row = supervisor.ps(worker);
        assert_eq!((&row["generation"], &row["executed"]), (&json!(2), &json!(41)), "{worker}");
        let letters = supervisor.cli(&["dead", "list", worker, "--json"]).ok().json();
        assert_eq!((&letters[0]["reason"], letters.as_array().unwrap().len()), (&json!("timed_out"), 1));
    }
    assert_eq!(supervisor.ledger("dead"), 3);
}

#[test]
fn d06_tasks_that_end_in_time_are_not_touched_however_long_all_of_them_take() {
    let supervisor = timed("1500ms");
    for worker in WORKERS {
        let mut client = supervisor.client();
        // Together they take twice the time that each of them has.
        for _ in 0..15 {
            client.submit(Call::new(worker, "sleep", payload(&(200,)))).unwrap();
        }
        client.flush().unwrap();
    }
    for worker in WORKERS {
        supervisor.cli(&["wait", worker, "--idle", "--timeout", "60s"]).ok();
        let row = supervisor.ps(worker);
        assert_eq!((&row["generation"], &row["executed"]), (&json!(1), &json!(15)), "{worker}");
    }
    assert_eq!(supervisor.ledger("dead"), 0);
}

#[test]
fn d06_who_does_not_heed_sigterm_is_killed_after_its_grace() {
    let supervisor = timed("300ms");
    for worker in WORKERS {
        let mut client = supervisor.client();
        client.submit(Call::new(worker, "ignore_term", payload(&()))).unwrap();
        let start = Instant::now();
        let late = client.submit(Call { wait: true, ..Call::new(worker, "sleep", payload(&(100_000,))) }).unwrap();
        let next = client.submit(Call { wait: true, ..Call::new(worker, "sleep", payload(&(0,))) }).unwrap();
        let expected =
            OutcomeBody::Dead { reason: DeadReason::TimedOut, exit: Some(Exit::Signal(9)), may_have_run: true };
        assert_eq!(client.outcome(late).unwrap(), expected, "{worker}");
        assert!(start.elapsed() >= Duration::from_millis(500), "{worker}: {:?}", start.elapsed());
        assert!(matches!(client.outcome(next).unwrap(), OutcomeBody::Done { .. }), "{worker}");
    }
}

#[test]
fn d06_the_time_limit_holds_also_for_a_task_that_a_kill_waits_for() {
    let mut supervisor = timed("2s");
    supervisor.block("one");
    let (begun, go) = (supervisor.path("begun"), supervisor.path("go"));
    let [begun, go] = [begun, go].map(|path| path.to_str().unwrap().to_string());
    let task = supervisor.start_cli(&["call", "many", "block", &begun, &go, "--wait", "--json"]);
    supervisor.until_lines("begun", 2);
    let report = supervisor.kill(&["many"]);
    assert_eq!((&report["ended_by"], &report["current"]), (&json!("term"), &json!("interrupted")), "{report}");
    assert_eq!(task.end().json()["dead"]["reason"], "timed_out");
}

// ---- W6 -------------------------------------------------------------------------------------

const IDLE: &str = r#"
    [class.many]
    exec = ["{bin}/test-worker", "64"]
    idle_timeout = "{idle}"
    [class.one]
    exec = ["{bin}/test-worker", "1"]
    idle_timeout = "{idle}"
    [class.json]
    exec = ["{python}", "-S", "{dir}/w.py"]
    idle_timeout = "{idle}"
    [class.deaf]
    exec = ["{python}", "-S", "{dir}/deaf.py"]
    idle_timeout = "{idle}"
    exit_grace = "100ms"
"#;

fn idle(idle: &str) -> Supervisor {
    with_python(&IDLE.replace("{idle}", idle), JSON_WORKER)
}

#[test]
fn w06_a_process_that_has_nothing_to_do_ends_and_the_next_call_starts_another() {
    let mut supervisor = idle("100ms");
    for worker in ["many", "one"] {
        let start = Instant::now();
        assert_eq!(supervisor.call(&[worker, "count"]), 1);
        let before = supervisor.ps(worker);
        supervisor.until("it has ended", |this| this.ps(worker)["state"] == "absent");
        assert!(start.elapsed() >= Duration::from_millis(100));
        let info = supervisor.cli(&["info", worker, "--json"]).ok().json();
        assert_eq!((&info["number"], &info["exits"][0]["exit"]), (&before["number"], &json!({"code": 0})), "{info}");
        assert_eq!((&info["crashes"], &info["failures_in_a_row"]), (&json!(0), &json!(0)), "{info}");
        assert!(before["pid"].as_i64().is_none_or(|pid| !lives(pid as i32)));
        assert_eq!(supervisor.call(&[worker, "count"]), 1, "its memory is gone");
    }
    // A task that takes longer than that is not idle.
    assert_eq!(supervisor.call(&["many", "sleep", "500"]), Value::Null);
    assert_eq!(supervisor.ledger("dead"), 0);
}

#[test]
fn w06_one_that_is_deaf_when_it_is_to_end_goes_down_the_ladder_and_is_no_crash() {
    let mut supervisor = idle("50ms");
    let worker = format!("{}\n{JSON_WORKER}", crate::raw_worker::PRELUDE);
    supervisor
        .file("deaf.py", &worker.replace("done(task, generation)", "done(task, generation)\n    time.sleep(1000)"));
    for life in 1..=3 {
        assert_eq!(supervisor.call(&["deaf", "x"]), life);
        // What comes while it is being ended waits for the next life.
        supervisor.until("it is being ended", |this| this.ps("deaf")["state"] != "idle");
    }
    supervisor.cli(&["wait", "deaf", "--gone", "--timeout", "60s"]).ok();
    let info = supervisor.cli(&["info", "deaf", "--json"]).ok().json();
    assert_eq!((&info["crashes"], &info["executed"]), (&json!(0), &json!(3)), "{info}");
    assert_eq!(info["exits"][0]["exit"], json!({"signal": 15}), "{info}");
}

/// Calls at random times around the end of the idle time: each is executed exactly once, and in order.
#[test]
fn w06_no_call_is_lost_or_done_twice_when_an_idle_process_is_being_ended() {
    const CALLS: usize = 150;
    let supervisor = idle("4ms");
    std::thread::scope(|scope| {
        for (seed, worker) in WORKERS.into_iter().enumerate() {
            let supervisor = &supervisor;
            scope.spawn(move || {
                let file = supervisor.path(worker);
                let mut client = supervisor.client();
                let mut random = seed as u64 + 1;
                let mut posted = Vec::new();
                for line in 0..CALLS {
                    let call = Call::new(worker, "log", payload(&(&file, line.to_string())));
                    // Most have their answer before the next one, others come two at a time.
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let ticket = client.submit(Call { wait: true, ..call }).unwrap();
                    client.flush().unwrap();
                    posted.push(ticket);
                    if random >> 60 != 0 {
                        for ticket in posted.drain(..) {
                            let outcome = client.outcome(ticket).unwrap();
                            assert!(matches!(outcome, OutcomeBody::Done { .. }), "{worker} {line}: {outcome:?}");
                        }
                        std::thread::sleep(Duration::from_micros((random >> 33) % 8_000));
                    }
                }
                for ticket in posted {
                    assert!(matches!(client.outcome(ticket).unwrap(), OutcomeBody::Done { .. }), "{worker}");
                }
            });
        }
    });
    for worker in WORKERS {
        assert_eq!(supervisor.lines(worker), numbers(0..CALLS), "{worker}");
        let info = supervisor.cli(&["info", worker, "--json"]).ok().json();
        assert_eq!((&info["crashes"], &info["failures_in_a_row"]), (&json!(0), &json!(0)), "{info}");
        assert_eq!(info["next_start_in_ms"], Value::Null, "{info}");
        assert!(info["generation"].as_u64().unwrap() > 5, "{worker} was ended only {} times", info["generation"]);
        for exit in info["exits"].as_array().unwrap() {
            assert_eq!(exit["exit"], json!({"code": 0}), "{info}");
        }
    }
    assert_eq!((supervisor.ledger("done"), supervisor.ledger("accepted")), (450, 450));
    supervisor.no_overlap();
}

// ---- C13 ------------------------------------------------------------------------------------

#[test]
fn c13_what_is_posted_for_later_enters_at_its_time_behind_what_came_before() {
    let mut supervisor = Supervisor::start();
    // Until then it is pending, and needs no process.
    supervisor.cli(&["call", "b", "count", "--in", "1h"]).ok();
    let row = supervisor.ps("b");
    assert_eq!((&row["pending"], &row["state"], &row["generation"]), (&json!(1), &json!("absent"), &json!(0)), "{row}");
    supervisor.kill(&["b"]);
    let file = supervisor.path("lines");
    let mut client = supervisor.client();
    let log = |line: &'static str| Call::new("a", "log", payload(&(&file, line)));
    let start = Instant::now();
    client.submit(Call { in_ms: Some(900), ..log("late") }).unwrap();
    let early = client.submit(Call { in_ms: Some(600), wait: true, ..log("early") }).unwrap();
    client.submit(log("now")).unwrap();
    assert!(matches!(client.outcome(early).unwrap(), OutcomeBody::Done { .. }));
    assert!(start.elapsed() >= Duration::from_millis(600));
    supervisor.until_lines("lines", 3);
    assert!(start.elapsed() >= Duration::from_millis(900));
    assert_eq!(supervisor.lines("lines"), ["now", "early", "late"]);
    // A worker does so too: to itself, for example.
    assert_eq!(
        supervisor.call(&["a", "call_in", "100", "a", "log", &format!("[{:?}, \"own\"]", text(&file))]),
        "accepted by a"
    );
    supervisor.until_lines("lines", 4);
}

#[test]
fn c13_each_time_is_kept_where_many_are_posted_for_later() {
    let mut supervisor = Supervisor::start();
    let file = supervisor.path("lines");
    let mut client = supervisor.client();
    let start = Instant::now();
    // Posted in another order than they are due.
    for line in 0..50_u64 {
        let slot = line * 37 % 50;
        let call = Call::new("a", "log", payload(&(&file, format!("{slot:02}"))));
        client.submit(Call { in_ms: Some(500 + 10 * slot), ..call }).unwrap();
    }
    client.flush().unwrap();
    supervisor.until_lines("lines", 50);
    assert!(start.elapsed() >= Duration::from_millis(990));
    let lines = supervisor.lines("lines");
    assert!(lines.is_sorted() && lines.len() == 50, "{lines:?}");
}

#[test]
fn c13_a_kill_discards_what_was_posted_for_later() {
    let mut supervisor = Supervisor::start();
    let file = supervisor.path("lines");
    let mut client = supervisor.client();
    let later =
        |line: &'static str, ms| Call { in_ms: Some(ms), wait: true, ..Call::new("a", "log", payload(&(&file, line))) };
    let never = client.submit(later("never", 2000)).unwrap();
    client.receipt(never).unwrap();
    assert_eq!(supervisor.kill(&["a"])["discarded"], 1);
    assert_eq!(client.outcome(never).unwrap(), OutcomeBody::Discarded { may_have_run: false });
    // The successor's comes, the other does not.
    let after = client.submit(later("after", 2000)).unwrap();
    assert!(matches!(client.outcome(after).unwrap(), OutcomeBody::Done { .. }));
    assert_eq!(supervisor.lines("lines"), ["after"]);
    supervisor.until("nothing is pending", |this| this.ledger("pending") == 0);
}

#[test]
fn c13_a_drain_waits_for_what_was_posted_for_later() {
    let supervisor = Supervisor::start();
    let file = supervisor.path("lines");
    let start = Instant::now();
    supervisor.cli(&["call", "a", "log", text(&file), "later", "--in", "700ms"]).ok();
    let report = supervisor.kill(&["a", "--drain"]);
    assert_eq!((&report["discarded"], supervisor.lines("lines")), (&json!(0), vec!["later".to_string()]), "{report}");
    assert!(start.elapsed() >= Duration::from_millis(700));
}

#[test]
fn c13_who_expires_before_it_enters_is_refused_on_the_command_line_and_expires_else() {
    let supervisor = Supervisor::start();
    for (after, expires) in [("1s", "1s"), ("2s", "1s")] {
        supervisor.cli(&["call", "a", "count", "--in", after, "--expires", expires]).fails(2, &["--expires", "--in"]);
    }
    supervisor.cli(&["call", "a", "count", "--in", "soon"]).fails(2, &["soon"]);
    let mut client = supervisor.client();
    let call = Call { in_ms: Some(100), expires_ms: Some(50), wait: true, ..Call::new("a", "count", payload(&())) };
    let (_, outcome) = client.call_and_wait(call).unwrap();
    assert_eq!(outcome, Some(OutcomeBody::Expired { may_have_run: false }));
    // One that lives longer is executed.
    assert_eq!(supervisor.call(&["a", "count", "--in", "50ms", "--expires", "60s"]), 1);
}
