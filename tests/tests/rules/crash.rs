//! Crash after crash: retries and poison, backoff and pauses, starts that fail (rules D2, D4, D5).

use serde_json::{Value, json};
use workhall_protocol::messages::{Call, DeadReason, Exit, OutcomeBody};
use workhall_tests::harness::{self, Supervisor, numbers, payload};

use crate::raw_worker::PRELUDE;

/// What `test-worker` does with these methods, in JSON lines, one at a time.
pub(crate) const JSON_WORKER: &str = r#"
ready()
while True:
    task = until("task")
    method, args = task["method"], task["args"]
    if method == "die": os.kill(os.getpid(), 9)
    if method == "log":
        with open(args[0], "a") as file: file.write(args[1] + "\n")
    if method == "die_times":
        with open(args[0], "a") as file: file.write(args[1] + "\n")
        if open(args[0]).read().split("\n").count(args[1]) <= args[2]: os.kill(os.getpid(), 9)
    if method == "sleep": time.sleep(args[0] / 1000)
    if method == "ignore_term": signal.signal(signal.SIGTERM, signal.SIG_IGN)
    done(task, generation)
"#;

const RETRY: &str = r#"
    [class.one]
    exec = ["{bin}/test-worker", "1"]
    on_crash = "retry"
    [class.many]
    exec = ["{bin}/test-worker", "64"]
    on_crash = "retry"
    attempts = 3
    [class.json]
    exec = ["{python}", "-S", "{dir}/w.py"]
    on_crash = "retry"
    attempts = 3
    [class.often]
    exec = ["{bin}/test-worker", "64"]
    on_crash = "retry"
    attempts = 200
"#;

/// A supervisor whose class with `{dir}/w.py` is this script.
pub(crate) fn with_python(config: &str, script: &str) -> Supervisor {
    let supervisor = Supervisor::with_config(&config.replace("{python}", harness::python()));
    supervisor.file("w.py", &format!("{PRELUDE}\n{script}"));
    supervisor
}

fn info(supervisor: &Supervisor, worker: &str) -> Value {
    supervisor.cli(&["info", worker, "--json"]).ok().json()
}

// ---- D2 -------------------------------------------------------------------------------------

#[test]
fn d02_a_retried_message_is_executed_again_before_those_behind_it() {
    let supervisor = with_python(RETRY, JSON_WORKER);
    for worker in ["one", "many", "json"] {
        let file = supervisor.path(worker);
        let mut client = supervisor.client();
        client.submit(Call::new(worker, "log", payload(&(&file, "before")))).unwrap();
        let tried = Call::new(worker, "die_times", payload(&(&file, "try", 2)));
        let tried = client.submit(Call { wait: true, ..tried }).unwrap();
        for line in 0..50 {
            client.submit(Call::new(worker, "log", payload(&(&file, line.to_string())))).unwrap();
        }
        let last = client.submit(Call { wait: true, ..Call::new(worker, "log", payload(&(&file, "last"))) }).unwrap();
        assert!(matches!(client.outcome(tried).unwrap(), OutcomeBody::Done { .. }), "{worker}");
        assert!(matches!(client.outcome(last).unwrap(), OutcomeBody::Done { .. }), "{worker}");
        let before = ["before", "try", "try", "try"].map(str::to_string);
        let expected = [before.to_vec(), numbers(0..50), vec!["last".to_string()]].concat();
        assert_eq!(supervisor.lines(worker), expected, "{worker}");
        let row = supervisor.ps(worker);
        assert_eq!((&row["generation"], &row["crashes"]), (&json!(3), &json!(2)), "{worker}");
    }
    assert_eq!((supervisor.ledger("done"), supervisor.ledger("dead")), (3 * 53, 0));
}

#[test]
fn d02_past_its_attempts_a_message_is_poison_and_no_other_is_charged() {
    let mut supervisor = with_python(RETRY, JSON_WORKER);
    const TASKS: usize = 64;
    for (worker, position) in
        [("many/0", 0), ("many/31", 31), ("many/63", 63), ("one/0", 0), ("one/31", 31), ("json/31", 31)]
    {
        let name = worker.replace('/', "-");
        let file = supervisor.path(&name);
        let mut client = supervisor.client();
        let mut poison = None;
        for task in 0..TASKS {
            let call = match task == position {
                // It leaves a line at each attempt.
                true => Call { wait: true, ..Call::new(worker, "die_times", payload(&(&file, "poison", 1000))) },
                false => Call::new(worker, "log", payload(&(&file, task.to_string()))),
            };
            let ticket = client.submit(call).unwrap();
            poison = if task == position { Some(ticket) } else { poison };
        }
        let expected =
            OutcomeBody::Dead { reason: DeadReason::Poison, exit: Some(Exit::Signal(9)), may_have_run: true };
        assert_eq!(client.outcome(poison.unwrap()).unwrap(), expected, "{worker}");
        supervisor.until("all is over", |this| this.ps(worker)["executed"] == TASKS - 1);
        let mut expected = numbers(0..TASKS);
        expected.splice(position..=position, ["poison"; 3].map(str::to_string));
        assert_eq!(supervisor.lines(&name), expected, "{worker}");
        let letters = supervisor.cli(&["dead", "list", worker, "--json"]).ok().json();
        assert_eq!((letters.as_array().unwrap().len(), &letters[0]["reason"]), (1, &json!("poison")), "{letters}");
    }
    assert_eq!(supervisor.ledger("dead"), 6);
}

#[test]
fn l02_a_message_that_was_tried_may_have_run_when_it_expires() {
    let supervisor = with_python(RETRY, "");
    let output = supervisor.cli(&["call", "often", "die", "--expires", "500ms", "--wait", "--json"]);
    assert_eq!((output.code, output.json()), (6, json!({"expired": {"may_have_run": true}})));
    let letters = supervisor.cli(&["dead", "list", "--json"]).ok().json();
    let letter = (&letters[0]["reason"], &letters[0]["may_have_run"], &letters[0]["exit"]);
    assert_eq!(letter, (&json!("expired"), &json!(true), &Value::Null));
    assert_eq!((supervisor.ledger("expired"), supervisor.ledger("dead")), (1, 0));
    supervisor
        .cli(&["call", "often", "die", "--expires", "500ms", "--wait"])
        .fails(6, &["expired before it was tried again: it may have run in part"]);
}

#[test]
fn d02_a_message_that_no_process_lives_to_read_is_not_tried_for_ever() {
    let config = r#"class.w = { exec = ["{python}", "-S", "{dir}/w.py"], crash_limit = { crashes = 1000 } }"#;
    // It reads a little of the first task that it is given, and dies.
    let mut supervisor = with_python(
        config,
        "note('lives', str(generation))\nready()\nhear()\nif generation <= 10:\n    s.recv(1000)\n    os._exit(7)\n\
         while True:\n    task = until('task')\n    note('ran', task['method'])\n    done(task)",
    );
    let mut client = supervisor.client();
    let huge = Call::new("w", "huge", payload(&("x".repeat(2 << 20),)));
    let huge = client.submit(Call { wait: true, ..huge }).unwrap();
    let small = client.submit(Call { wait: true, ..Call::new("w", "small", payload(&())) }).unwrap();
    client.flush().unwrap();
    // Without this each life would begin later than the one before it.
    supervisor.until("ten have died", |this| {
        // At first there may be nobody yet.
        this.cli(&["resume", "w"]);
        this.ledger("dead") == 1
    });
    let expected = OutcomeBody::Dead { reason: DeadReason::Poison, exit: Some(Exit::Code(7)), may_have_run: false };
    assert_eq!(client.outcome(huge).unwrap(), expected);
    assert!(matches!(client.outcome(small).unwrap(), OutcomeBody::Done { .. }));
    assert_eq!(supervisor.lines("ran"), ["small"]);
    assert_eq!(supervisor.lines("lives"), numbers(1..12));
}

// ---- D4 -------------------------------------------------------------------------------------

const CRASHING: &str = r#"
    [class.slow]
    exec = ["{bin}/test-worker"]
    crash_limit = { crashes = 1000 }
    [class.pause]
    exec = ["{bin}/test-worker"]
    crash_limit = { crashes = 3, pause = "1h" }
    [class.refuse]
    exec = ["{bin}/test-worker"]
    crash_limit = { crashes = 3, pause = "1h", calls = "refuse" }
    [class.short]
    exec = ["{bin}/test-worker"]
    crash_limit = { crashes = 2, pause = "200ms" }
    [class.once]
    exec = ["{python}", "-S", "{dir}/w.py"]
    crash_limit = { crashes = 2, pause = "1h" }
"#;

fn die(supervisor: &Supervisor, worker: &str, times: usize) {
    for _ in 0..times {
        supervisor.cli(&["call", worker, "die"]).ok();
    }
}

#[test]
fn d04_the_delay_grows_with_each_crash_and_a_healthy_life_ends_it() {
    let mut supervisor = with_python(CRASHING, "");
    die(&supervisor, "slow", 7);
    // 100 ms before the third life, then twice as long each time; up to a quarter is taken off.
    supervisor.until("the seventh waits", |this| {
        let row = this.ps("slow");
        (&row["crashes"], &row["state"]) == (&json!(6), &json!("backoff"))
    });
    let waiting = info(&supervisor, "slow");
    assert_eq!(waiting["failures_in_a_row"], 6, "{waiting}");
    let wait = waiting["next_start_in_ms"].as_u64().unwrap();
    assert!(wait <= 1600, "{waiting}");
    let ages: Vec<u64> =
        waiting["exits"].as_array().unwrap().iter().map(|exit| exit["ago_ms"].as_u64().unwrap()).collect();
    assert_eq!(ages.len(), 6, "{waiting}");
    let gaps: Vec<u64> = ages.windows(2).map(|pair| pair[1] - pair[0]).rev().collect();
    for (gap, least) in gaps.iter().zip([0, 75, 150, 300, 600]) {
        assert!(*gap >= least, "{gaps:?}");
    }
    assert!(wait + ages[0] >= 1190, "{waiting}");
    assert!(waiting["exits"].as_array().unwrap().iter().all(|exit| exit["exit"] == json!({"signal": 9})));
    // The next life settles a task: it was healthy, and the crash after it is a first one.
    supervisor.cli(&["resume", "slow"]).ok();
    supervisor.until("that one has died too", |this| this.ledger("dead") == 7);
    supervisor.call(&["slow", "count"]);
    die(&supervisor, "slow", 1);
    supervisor.until("it has died", |this| this.ps("slow")["crashes"] == 8);
    let info = info(&supervisor, "slow");
    assert_eq!((&info["failures_in_a_row"], &info["next_start_in_ms"]), (&json!(1), &Value::Null), "{info}");
}

#[test]
fn d04_too_many_crashes_pause_the_worker_whose_mailbox_accepts_and_resume_tries_at_once() {
    let mut supervisor = with_python(CRASHING, "");
    die(&supervisor, "pause", 3);
    supervisor.until("it pauses", |this| this.ps("pause")["state"] == "paused");
    let mut client = supervisor.client();
    let waiting = client.submit(Call { wait: true, ..Call::new("pause", "who", payload(&())) }).unwrap();
    client.receipt(waiting).unwrap();
    let paused = info(&supervisor, "pause");
    assert_eq!((&paused["state"], &paused["pending"], &paused["pid"]), (&json!("paused"), &json!(1), &Value::Null));
    assert!(paused["next_start_in_ms"].as_u64().unwrap() > 2_000_000, "{paused}");
    assert!(supervisor.cli(&["info", "pause"]).ok().out.contains("workhall resume"));
    assert_eq!(supervisor.cli(&["resume", "pause", "--json"]).ok().json(), json!({"resumed": {}}));
    let OutcomeBody::Done { result } = client.outcome(waiting).unwrap() else { panic!() };
    assert_eq!(result.to_json().unwrap()[2], 4, "the fourth generation");
    assert_eq!(info(&supervisor, "pause")["failures_in_a_row"], 0);
    supervisor.cli(&["resume", "nobody"]).fails(1, &["there is no worker nobody"]);
    supervisor.cli(&["resume", "%99"]).fails(1, &["there is no worker %99"]);
    // By number too.
    die(&supervisor, "pause", 4);
    supervisor.until("it pauses again", |this| this.ps("pause")["state"] == "paused" && this.ledger("pending") == 1);
    let number = format!("%{}", supervisor.ps("pause")["number"]);
    supervisor.cli(&["resume", &number]).ok();
    supervisor.until("the last has died", |this| this.ledger("dead") == 7);
}

#[test]
fn d04_a_class_may_refuse_calls_during_the_pause() {
    let mut supervisor = with_python(CRASHING, "");
    die(&supervisor, "refuse", 3);
    supervisor.until("it pauses", |this| this.ps("refuse")["state"] == "paused");
    let before = supervisor.status();
    supervisor.cli(&["call", "refuse", "count"]).fails(3, &["crash_loop", "workhall resume"]);
    let refused = supervisor.cli(&["call", "refuse", "count", "--json"]).json();
    assert_eq!(refused["refused"]["reason"], "crash_loop");
    let after = supervisor.status();
    assert_eq!(before["ledger"], after["ledger"], "what was refused had no effect");
    assert_eq!(after["refused"].as_u64().unwrap(), before["refused"].as_u64().unwrap() + 2);
    supervisor.cli(&["resume", "refuse"]).ok();
    assert_eq!(supervisor.call(&["refuse", "count"]), 1);
}

#[test]
fn d04_a_paused_worker_is_tried_again_by_itself() {
    let mut supervisor = with_python(CRASHING, "");
    // Past the limit each further crash pauses again, until a life is healthy.
    die(&supervisor, "short", 5);
    assert_eq!(supervisor.call(&["short", "count"]), 1);
    let info = info(&supervisor, "short");
    // The life that has executed something is healthy.
    assert_eq!((&info["crashes"], &info["failures_in_a_row"]), (&json!(5), &json!(0)), "{info}");
    let exits: Vec<u64> =
        info["exits"].as_array().unwrap().iter().map(|exit| exit["ago_ms"].as_u64().unwrap()).collect();
    for pair in exits.windows(2).take(3) {
        assert!(pair[1] - pair[0] >= 150, "a pause lies between them: {exits:?}");
    }
    assert_eq!(supervisor.call(&["short", "count"]), 2);
    supervisor.until("it is idle", |this| this.ps("short")["state"] == "idle");
}

#[test]
fn d04_a_start_by_a_message_is_no_crash() {
    let supervisor = with_python(CRASHING, "ready()\ntask = until('task')\ndone(task, generation)");
    for life in 1..=10 {
        assert_eq!(supervisor.call(&["once", "m"]), life);
        supervisor.cli(&["wait", "once", "--gone", "--timeout", "60s"]).ok();
    }
    let row = supervisor.ps("once");
    assert_eq!((&row["crashes"], &row["generation"], &row["state"]), (&json!(0), &json!(10), &json!("absent")));
}

// ---- D5 -------------------------------------------------------------------------------------

const UNSTARTED: &str = r#"
    [class.missing]
    exec = ["/no/such/program"]
    crash_limit = { crashes = 2, pause = "1h", unstarted = "drop" }
    [class.plain]
    exec = ["{dir}/plain"]
    crash_limit = { crashes = 2, pause = "1h", unstarted = "drop" }
    [class.ends]
    exec = ["sh", "-c", "exit 5"]
    crash_limit = { crashes = 2, pause = "1h", unstarted = "drop" }
    [class.mute]
    exec = ["sleep", "1000"]
    start_timeout = "100ms"
    crash_limit = { crashes = 2, pause = "1h", unstarted = "drop" }
    [class.later]
    exec = ["{dir}/later"]
    crash_limit = { crashes = 2, pause = "1h" }
    [class.crash]
    exec = ["{bin}/test-worker"]
    crash_limit = { crashes = 1, pause = "1h", unstarted = "drop" }
"#;

#[test]
fn d05_what_waits_for_a_process_that_cannot_be_started_is_never_started_if_the_class_says_so() {
    let supervisor = Supervisor::with_config(UNSTARTED);
    supervisor.file("plain", "no program");
    for (worker, failure, exit) in [
        ("missing", "cannot execute /no/such/program: No such file", Value::Null),
        ("plain", "Permission denied", Value::Null),
        ("ends", "it ended before it was ready", json!({"code": 5})),
        ("mute", "not ready in time", json!({"signal": 15})),
    ] {
        let mut client = supervisor.client();
        let first = client.submit(Call { wait: true, ..Call::new(worker, "first", payload(&())) }).unwrap();
        let OutcomeBody::Dead { reason: DeadReason::NeverStarted, exit: how, may_have_run: false } =
            client.outcome(first).unwrap()
        else {
            panic!("{worker}")
        };
        assert_eq!(serde_json::to_value(how).unwrap(), exit, "{worker}");
        let info = info(&supervisor, worker);
        assert!(info["exits"][0]["failure"].as_str().unwrap().contains(failure), "{info}");
        assert_eq!((&info["exits"][0]["exit"], &info["exits"][0]["generation"]), (&exit, &json!(2)), "{info}");
        assert_eq!((&info["state"], &info["crashes"]), (&json!("paused"), &json!(2)), "{info}");
        let letters = supervisor.cli(&["dead", "list", worker, "--json"]).ok().json();
        assert_eq!((&letters[0]["reason"], &letters[0]["may_have_run"]), (&json!("never_started"), &json!(false)));
        // What comes during the pause waits for the next attempt, with which it shares its fate.
        let output = supervisor.start_cli(&["call", worker, "second", "--wait", "--json"]);
        harness::until("the second waits", || supervisor.ps(worker)["pending"] == 1);
        supervisor.cli(&["resume", worker]).ok();
        assert_eq!(output.end().json()["dead"]["reason"], "never_started", "{worker}");
    }
    assert_eq!(supervisor.ledger("dead"), 8);
}

#[test]
fn d05_else_it_is_kept_until_the_process_can_be_started() {
    let mut supervisor = Supervisor::with_config(UNSTARTED);
    let file = supervisor.path("lines");
    let mut client = supervisor.client();
    for line in 0..3 {
        client.submit(Call::new("later", "log", payload(&(&file, line.to_string())))).unwrap();
    }
    client.flush().unwrap();
    supervisor.until("it pauses", |this| this.ps("later")["state"] == "paused");
    assert_eq!((supervisor.ps("later")["pending"].clone(), supervisor.ledger("dead")), (json!(3), 0));
    std::os::unix::fs::symlink(harness::bin_dir().join("test-worker"), supervisor.path("later")).unwrap();
    supervisor.cli(&["resume", "later"]).ok();
    supervisor.until("all is done", |this| this.ledger("done") == 3);
    assert_eq!(supervisor.lines("lines"), numbers(0..3));
}

#[test]
fn d05_a_crash_of_a_process_that_was_started_drops_nothing_that_waits() {
    let mut supervisor = Supervisor::with_config(UNSTARTED);
    let file = supervisor.path("lines");
    let mut client = supervisor.client();
    client.submit(Call::new("crash", "die", payload(&()))).unwrap();
    client.submit(Call::new("crash", "log", payload(&(&file, "kept")))).unwrap();
    client.flush().unwrap();
    supervisor.until("it pauses", |this| this.ps("crash")["state"] == "paused");
    assert_eq!((supervisor.ps("crash")["pending"].clone(), supervisor.ledger("dead")), (json!(1), 1));
    supervisor.cli(&["resume", "crash"]).ok();
    supervisor.until_lines("lines", 1);
}
