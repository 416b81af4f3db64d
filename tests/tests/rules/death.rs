//! Death without a kill, errors, and the end of the supervisor (rules D1–D3, D8).

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use workhall_protocol::messages::{Call, DeadReason, Exit, OutcomeBody};
use workhall_tests::harness::{self, Supervisor, lives, numbers, payload, text};

/// Executes `log` and `die` in JSON lines, one at a time, and forgets them at a `kill` as all others.
const JSON_WORKER: &str = r#"
import json, os, socket, sys
s = socket.socket(fileno=int(os.environ["WORKHALL_FD"]))
os.set_inheritable(s.fileno(), False)
lines = s.makefile("r", encoding="utf-8", newline="\n")
def say(kind, **fields): s.sendall((json.dumps({kind: fields}) + "\n").encode())
say("ready", protocol=1, window=1)
for line in lines:
    (kind, fields), = json.loads(line).items()
    if kind == "kill": break
    if kind != "task": continue
    method, args = fields["method"], fields["args"]
    if method == "die": os.kill(os.getpid(), 9)
    if method == "exit": os._exit(args[0])
    if method == "log":
        with open(args[0], "a") as file: file.write(args[1] + "\n")
    if method == "fail": say("failed", id=fields["id"], error=args[0])
    else: say("done", id=fields["id"], result=os.getpid())
"#;

const CONFIG: &str = r#"
    [class.one]
    exec = ["{bin}/test-worker", "1"]
    [class.many]
    exec = ["{bin}/test-worker", "64"]
    [class.json]
    exec = ["{python}", "-S", "{dir}/worker.py"]
"#;

fn supervisor() -> Supervisor {
    let supervisor = Supervisor::with_config(&CONFIG.replace("{python}", harness::python()));
    supervisor.file("worker.py", JSON_WORKER);
    supervisor
}

fn outcome(supervisor: &Supervisor, args: &[&str]) -> (i32, Value) {
    let output = supervisor.cli(&[&["call", "--wait", "--json", "--timeout", "60s"], args].concat());
    (output.code, output.json())
}

// ---- D1 -------------------------------------------------------------------------------------

#[test]
fn d01_a_crash_leaves_the_mailbox_and_its_order_to_the_next_generation() {
    let supervisor = supervisor();
    for worker in ["one", "many", "json"] {
        let mut client = supervisor.client();
        let file = supervisor.path(&format!("{worker}.txt"));
        client.submit(Call::new(worker, "log", payload(&(&file, "before")))).unwrap();
        client.submit(Call::new(worker, "die", payload(&()))).unwrap();
        for line in 0..100 {
            client.submit(Call::new(worker, "log", payload(&(&file, line.to_string())))).unwrap();
        }
        let last = client.submit(Call { wait: true, ..Call::new(worker, "log", payload(&(&file, "last"))) }).unwrap();
        assert!(matches!(client.outcome(last).unwrap(), OutcomeBody::Done { .. }), "{worker}");
        let expected = [vec!["before".to_string()], numbers(0..100), vec!["last".to_string()]].concat();
        assert_eq!(supervisor.lines(&format!("{worker}.txt")), expected, "{worker}");
        let row = supervisor.ps(worker);
        assert_eq!((&row["generation"], &row["crashes"]), (&json!(2), &json!(1)), "{worker}");
    }
    assert_eq!((supervisor.ledger("done"), supervisor.ledger("dead")), (3 * 102, 3));
}

#[test]
fn d01_with_nothing_pending_the_next_call_starts_it() {
    let mut supervisor = supervisor();
    for worker in ["many", "json"] {
        supervisor.cli(&["call", worker, "x"]).ok();
        supervisor.until("it has run", |this| this.ps(worker)["executed"] == 1);
        let before = supervisor.ps(worker);
        kill(Pid::from_raw(supervisor.worker_pid(worker)), Signal::SIGKILL).unwrap();
        supervisor.until("it is gone", |this| this.ps(worker)["state"] == "absent");
        let absent = supervisor.ps(worker);
        assert_eq!(
            (&absent["number"], &absent["generation"], &absent["crashes"]),
            (&before["number"], &json!(1), &json!(1))
        );
        assert_eq!(supervisor.cli(&["info", worker, "--json"]).ok().json()["last_exit"]["exit"], json!({"signal": 9}));
        supervisor.cli(&["call", worker, "x"]).ok();
        supervisor.until("it has run again", |this| this.ps(worker)["executed"] == 2);
        let after = supervisor.ps(worker);
        assert_eq!((&after["number"], &after["generation"]), (&before["number"], &json!(2)), "{worker}");
        assert_ne!(after["pid"], before["pid"]);
    }
}

#[test]
fn d01_an_exit_without_an_error_is_no_crash_and_loses_nothing() {
    let supervisor = supervisor();
    let mut client = supervisor.client();
    let file = supervisor.path("lines");
    // It leaves by itself while messages wait; the one that it was executing is charged all the same.
    let exit = client.submit(Call { wait: true, ..Call::new("many", "exit", payload(&(0,))) }).unwrap();
    for line in 0..10 {
        client.submit(Call::new("many", "log", payload(&(&file, line.to_string())))).unwrap();
    }
    let last = client.submit(Call { wait: true, ..Call::new("many", "pid", payload(&())) }).unwrap();
    let expected = OutcomeBody::Dead { reason: DeadReason::Crashed, exit: Some(Exit::Code(0)), may_have_run: true };
    assert_eq!(client.outcome(exit).unwrap(), expected);
    assert!(matches!(client.outcome(last).unwrap(), OutcomeBody::Done { .. }));
    assert_eq!(supervisor.lines("lines"), numbers(0..10));
}

#[test]
fn d01_crash_after_crash_is_answered_with_growing_delay_and_loses_nothing() {
    let supervisor = supervisor();
    let mut client = supervisor.client();
    let mut last = None;
    for _ in 0..3 {
        last = Some(client.submit(Call { wait: true, ..Call::new("many", "die", payload(&())) }).unwrap());
    }
    let alive = client.submit(Call { wait: true, ..Call::new("many", "who", payload(&())) }).unwrap();
    let OutcomeBody::Dead { exit: Some(Exit::Signal(9)), .. } = client.outcome(last.unwrap()).unwrap() else {
        panic!()
    };
    let OutcomeBody::Done { result } = client.outcome(alive).unwrap() else { panic!() };
    assert_eq!(result.to_json().unwrap()[2], 4, "the fourth generation");
    assert_eq!((supervisor.ledger("dead"), supervisor.ledger("done")), (3, 1));
}

// ---- D2 -------------------------------------------------------------------------------------

#[test]
fn d02_the_message_being_executed_is_charged_with_the_exit() {
    let supervisor = supervisor();
    for worker in ["one", "many", "json"] {
        let dead = |exit: Value| json!({"dead": {"reason": "crashed", "exit": exit, "may_have_run": true}});
        assert_eq!(outcome(&supervisor, &[worker, "die"]), (6, dead(json!({"signal": 9}))), "{worker}");
        outcome(&supervisor, &[worker, "log", text(&supervisor.path("lines")), "healthy"]);
        assert_eq!(outcome(&supervisor, &[worker, "exit", "7"]), (6, dead(json!({"code": 7}))), "{worker}");
        let output = supervisor.cli(&["call", "--wait", worker, "exit", "7"]);
        assert!(output.code == 6 && output.err.contains("crashed"), "{output:?}");
    }
    assert_eq!(supervisor.ledger("dead"), 9);
}

#[test]
fn d02_exactly_one_message_is_charged_however_many_were_sent_ahead() {
    let mut supervisor = supervisor();
    const TASKS: usize = 64;
    for (round, position) in [0, 1, 30, 31, 32, 62, 63].into_iter().enumerate() {
        for (kind, class) in ["many", "one", "json"].into_iter().enumerate() {
            if class == "json" && position % 2 == 0 {
                continue;
            }
            let worker = format!("{class}/{round}");
            let name = format!("lines-{kind}-{round}");
            let file = supervisor.path(&name);
            let dead = supervisor.ledger("dead");
            let mut client = supervisor.client();
            for task in 0..TASKS {
                let call = match task == position {
                    true => Call::new(worker.as_str(), "die", payload(&())),
                    false => Call::new(worker.as_str(), "log", payload(&(&file, task.to_string()))),
                };
                client.submit(call).unwrap();
            }
            client.flush().unwrap();
            supervisor.until("all is over", |this| {
                let row = this.ps(&worker);
                row["executed"] == TASKS - 1 && row["pending"] == 0
            });
            let mut expected = numbers(0..TASKS);
            expected.remove(position);
            assert_eq!(supervisor.lines(&name), expected, "{worker} dies at {position}");
            assert_eq!(supervisor.ledger("dead"), dead + 1, "{worker} dies at {position}");
        }
    }
}

#[test]
fn d02_a_process_that_is_killed_from_outside_in_full_run_loses_one_message_at_most() {
    let mut supervisor = supervisor();
    const TASKS: usize = 500;
    for (round, class) in ["many", "one", "many", "json", "many"].into_iter().enumerate() {
        let (worker, name) = (format!("{class}/{round}"), format!("lines-{round}"));
        let file = supervisor.path(&name);
        let (done, dead) = (supervisor.ledger("done"), supervisor.ledger("dead"));
        let mut client = supervisor.client();
        for task in 0..TASKS {
            client.submit(Call::new(worker.as_str(), "log", payload(&(&file, task.to_string())))).unwrap();
        }
        client.flush().unwrap();
        supervisor.until_lines(&name, 1 + 40 * round);
        if let Some(pid) = supervisor.ps(&worker)["pid"].as_i64() {
            kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
        }
        supervisor.cli(&["wait", &worker, "--idle", "--timeout", "60s"]).ok();
        let (done, dead) = (supervisor.ledger("done") - done, supervisor.ledger("dead") - dead);
        assert_eq!(done + dead, TASKS as u64, "{worker}");
        assert!(dead <= 1, "{worker}: {dead} messages were charged");
        let lines: Vec<usize> = supervisor.lines(&name).iter().map(|line| line.parse().unwrap()).collect();
        assert!(lines.is_sorted_by(|a, b| a < b), "{worker}: in order, and none twice: {lines:?}");
        assert!(lines.len() as u64 >= done && lines.len() <= TASKS, "{worker}: {} of {done}", lines.len());
    }
}

#[test]
fn d02_a_panic_is_a_crash_and_what_was_finished_before_stays_finished() {
    let supervisor = supervisor();
    let file = supervisor.path("lines");
    let mut client = supervisor.client();
    for line in 0..5 {
        client.submit(Call::new("many", "log", payload(&(&file, line.to_string())))).unwrap();
    }
    let failed = client.submit(Call { wait: true, ..Call::new("many", "fail", payload(&("no",))) }).unwrap();
    for line in 5..10 {
        client.submit(Call::new("many", "log", payload(&(&file, line.to_string())))).unwrap();
    }
    let panic = client.submit(Call { wait: true, ..Call::new("many", "panic", payload(&())) }).unwrap();
    for line in 10..15 {
        client.submit(Call::new("many", "log", payload(&(&file, line.to_string())))).unwrap();
    }
    let last = client.submit(Call { wait: true, ..Call::new("many", "count", payload(&())) }).unwrap();
    assert!(matches!(client.outcome(failed).unwrap(), OutcomeBody::Failed { .. }));
    let expected = OutcomeBody::Dead { reason: DeadReason::Crashed, exit: Some(Exit::Code(101)), may_have_run: true };
    assert_eq!(client.outcome(panic).unwrap(), expected);
    client.outcome(last).unwrap();
    assert_eq!(supervisor.lines("lines"), numbers(0..15));
    let status = supervisor.status();
    assert_eq!(
        (&status["ledger"]["done"], &status["ledger"]["failed"], &status["ledger"]["dead"]),
        (&json!(16), &json!(1), &json!(1))
    );
}

// ---- D3 -------------------------------------------------------------------------------------

#[test]
fn d03_an_error_fails_the_message_and_the_process_lives_on() {
    let supervisor = supervisor();
    for worker in ["one", "many", "json"] {
        let before = outcome(&supervisor, &[worker, "log", text(&supervisor.path("lines")), "x"]).0;
        let pid = supervisor.worker_pid(worker);
        assert_eq!(outcome(&supervisor, &[worker, "fail", "too bad"]), (1, json!({"failed": {"error": "too bad"}})));
        let output = supervisor.cli(&["call", "--wait", worker, "fail", "too bad"]);
        assert!(output.code == 1 && output.err.contains("too bad"), "{output:?}");
        assert_eq!((before, supervisor.worker_pid(worker)), (0, pid));
        let row = supervisor.ps(worker);
        assert_eq!((&row["generation"], &row["crashes"]), (&json!(1), &json!(0)));
    }
    assert_eq!(supervisor.ledger("failed"), 6);
}

#[test]
fn d03_a_process_has_one_hook_for_all_errors() {
    let supervisor = supervisor();
    supervisor.cli(&["call", "many", "fail", "first"]).ok();
    supervisor.cli(&["call", "many", "count", "an argument too many"]).ok();
    supervisor.cli(&["call", "many", "no_such_method"]).ok();
    let errors = supervisor.call(&["many", "errors"]);
    let errors: Vec<&str> = errors.as_array().unwrap().iter().map(|error| error.as_str().unwrap()).collect();
    assert_eq!(errors[0], "fail: first");
    assert!(errors[1].contains("the arguments of `count`"), "{errors:?}");
    assert!(errors[2].contains("there is no method `no_such_method`"), "{errors:?}");
    assert_eq!((supervisor.ledger("failed"), supervisor.ledger("done")), (3, 1));
}

// ---- D8 -------------------------------------------------------------------------------------

const STOPPING: &str = r#"
    [supervisor]
    shutdown_grace = "{grace}"
    [class.a]
    exec = ["{bin}/test-worker"]
    exit_grace = "30s"
    term_grace = "30s"
    [class.short]
    exec = ["{bin}/test-worker"]
    exit_grace = "100ms"
    term_grace = "30s"
"#;

fn stopping(grace: &str) -> Supervisor {
    Supervisor::with_config(&STOPPING.replace("{grace}", grace))
}

/// It has ended well, and left nothing.
fn ended(supervisor: &mut Supervisor) {
    let status = supervisor.ended();
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(supervisor.processes(), [0_i32; 0]);
}

#[test]
fn d08_idle_workers_end_at_once_and_nothing_is_left() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut supervisor = stopping("60s");
        for worker in ["a", "a/1", "a/2", "short"] {
            supervisor.call(&[worker, "count"]);
        }
        let file = supervisor.path("orphan");
        let orphan = supervisor.call(&["a/1", "orphan", text(&file)]).as_i64().unwrap() as i32;
        let start = std::time::Instant::now();
        supervisor.signal(signal);
        ended(&mut supervisor);
        assert!(!lives(orphan));
        assert!(start.elapsed().as_secs() < 20, "{signal} took {:?}", start.elapsed());
        let output = supervisor.cli(&["call", "a", "count"]);
        assert_eq!(output.code, 4, "{output:?}");
    }
}

#[test]
fn d08_a_task_may_end_within_the_grace_and_what_waits_is_abandoned() {
    let mut supervisor = stopping("60s");
    supervisor.block("a");
    let (begun, go) = (supervisor.path("begun"), supervisor.path("go"));
    let task = supervisor.start_cli(&["call", "a/1", "block", text(&begun), text(&go), "--wait", "--json"]);
    supervisor.until_lines("begun", 2);
    let ahead = supervisor.start_cli(&["call", "a/1", "count", "--wait", "--json"]);
    supervisor.until("one was sent ahead", |this| this.ps("a/1")["pending"] == 1);
    // A successor that has not started.
    supervisor.cli(&["kill", "a"]).ok();
    let successor = supervisor.start_cli(&["call", "a", "count", "--wait", "--json"]);
    supervisor.until("the successor has its message", |this| this.ps("a")["pending"] == 1);
    let mut kill = supervisor.start_cli(&["kill", "a/1", "--drain", "--wait", "--json"]);
    let mut client = supervisor.client();
    supervisor.until("the drain is known", |this| this.ps("a/1")["closed"] == true);
    supervisor.signal(Signal::SIGTERM);
    let abandoned = json!({"dead": {"reason": "abandoned", "exit": null, "may_have_run": false}});
    for waiting in [ahead, successor] {
        let output = waiting.end();
        assert_eq!((output.code, output.json()), (6, abandoned.clone()));
    }
    let receipt = client.call(Call::new("a", "count", payload(&()))).unwrap();
    let workhall_protocol::messages::ReceiptBody::Refused { reason, .. } = receipt else { panic!("{receipt:?}") };
    assert_eq!(reason, workhall_protocol::messages::Refusal::ShuttingDown);
    let status = supervisor.status();
    assert_eq!(
        (&status["stopping"], &status["ledger"]["dead"], &status["ledger"]["running"]),
        (&json!(true), &json!(2), &json!(2))
    );
    assert!(!kill.has_ended());
    supervisor.let_go();
    let done = task.end();
    assert_eq!((done.code, done.json()), (0, json!({"done": {"result": null}})));
    let report = kill.end().ok().json();
    assert_eq!((&report["current"], &report["ended_by"]), (&json!("finished"), &json!("ask")), "{report}");
    ended(&mut supervisor);
    assert_eq!(supervisor.lines("begun").iter().filter(|line| *line == "ended").count(), 2);
}

#[test]
fn d08_what_has_not_ended_by_the_deadline_is_killed() {
    let mut supervisor = stopping("300ms");
    let (begun, go) = (supervisor.path("begun"), supervisor.path("go"));
    supervisor.call(&["a", "ignore_term"]);
    let task = supervisor.start_cli(&["call", "a", "block", text(&begun), text(&go), "--wait", "--json"]);
    supervisor.until_lines("begun", 1);
    let start = std::time::Instant::now();
    supervisor.signal(Signal::SIGTERM);
    let output = task.end();
    let abandoned = json!({"dead": {"reason": "abandoned", "exit": {"signal": 9}, "may_have_run": true}});
    assert_eq!((output.code, output.json()), (6, abandoned));
    assert!(start.elapsed().as_millis() >= 300);
    ended(&mut supervisor);
}

#[test]
fn d08_stopped_processes_are_continued() {
    let mut supervisor = stopping("60s");
    supervisor.call(&["a", "count"]);
    kill(Pid::from_raw(supervisor.worker_pid("a")), Signal::SIGSTOP).unwrap();
    // One that was killed already, and is stopped in its task.
    supervisor.block("a/1");
    supervisor.cli(&["kill", "a/1"]).ok();
    kill(Pid::from_raw(supervisor.worker_pid("a/1")), Signal::SIGSTOP).unwrap();
    supervisor.let_go();
    supervisor.signal(Signal::SIGTERM);
    ended(&mut supervisor);
    assert_eq!(supervisor.lines("begun"), ["begun", "ended"]);
}

#[test]
fn d08_the_ladder_of_the_class_goes_on_within_the_grace() {
    let mut supervisor = Supervisor::with_config(
        r#"
        supervisor.shutdown_grace = "60s"
        class.deaf = { exec = ["sleep", "1000"], exit_grace = "100ms", term_grace = "100ms" }
        "#,
    );
    supervisor.cli(&["call", "deaf", "x"]).ok();
    supervisor.until("it has a process", |this| this.ps("deaf")["pid"].is_i64());
    supervisor.signal(Signal::SIGTERM);
    ended(&mut supervisor);
}

#[test]
fn d08_a_second_signal_does_not_wait() {
    for (first, second) in [(Signal::SIGTERM, Signal::SIGTERM), (Signal::SIGINT, Signal::SIGTERM)] {
        let mut supervisor = stopping("1h");
        supervisor.block("a");
        supervisor.signal(first);
        supervisor.until("it stops", |this| this.status()["stopping"] == true);
        assert!(lives(supervisor.worker_pid("a")));
        supervisor.signal(second);
        ended(&mut supervisor);
        assert_eq!(supervisor.lines("begun"), ["begun"]);
    }
}

#[test]
fn d08_a_restarted_supervisor_serves_the_same_socket() {
    let mut supervisor = stopping("60s");
    assert_eq!(supervisor.call(&["a", "count"]), 1);
    supervisor.signal(Signal::SIGTERM);
    ended(&mut supervisor);
    supervisor.restart();
    assert_eq!(supervisor.call(&["a", "count"]), 1);
    supervisor.no_overlap();
}

#[test]
fn d07_after_the_supervisor_has_died_only_the_current_task_is_finished() {
    let mut supervisor = Supervisor::start();
    let (begun, go, log) = (supervisor.path("begun"), supervisor.path("go"), supervisor.path("later"));
    let text = |path: &std::path::Path| path.to_str().unwrap().to_string();
    supervisor.cli(&["call", "a", "block", &text(&begun), &text(&go)]).ok();
    for line in 0..50 {
        supervisor.cli(&["call", "a", "log", &text(&log), &format!("\"{line}\"")]).ok();
    }
    supervisor.until("the task has begun", |_| begun.exists());
    let worker = supervisor.worker_pid("a");
    supervisor.signal(Signal::SIGKILL);
    supervisor.ended();
    std::fs::write(&go, "").unwrap();
    supervisor.until("the worker has ended", |_| !lives(worker));
    assert_eq!(std::fs::read_to_string(&begun).unwrap(), "begun\nended\n", "the current task is finished");
    assert!(!log.exists(), "what was sent ahead is not begun");
}
