//! An operator pauses and resumes workers (rule P4): the process is stopped and continued, its mailbox goes on accepting.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use workhall_protocol::messages::{Address, Call, OutcomeBody, ReceiptBody};
use workhall_tests::harness::{ANY_NAME, Held, Supervisor, is_root, lives, numbers, payload, text, tree_modes};

/// Any user's, and no worker's.
const DAEMON: u32 = 1;

/// How a process is, in a letter: `T` is stopped. None if there is none.
fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

fn info(supervisor: &Supervisor, worker: &str) -> Value {
    supervisor.cli(&["info", worker, "--json"]).ok().json()
}

/// Pauses a worker that has a process, and waits until that is stopped. Returns its id.
#[track_caller]
fn pause(supervisor: &mut Supervisor, worker: &str) -> i32 {
    supervisor.cli(&["pause", worker]).ok();
    let pid = supervisor.worker_pid(worker);
    supervisor.until("it is stopped", |_| state(pid) == Some('T'));
    pid
}

/// A worker that is paused in the middle of a task, which was let go since.
fn paused_in_a_task(supervisor: &mut Supervisor, worker: &str) -> (i32, Held) {
    let held = supervisor.hold(worker);
    let pid = pause(supervisor, worker);
    held.release();
    (pid, held)
}

#[test]
fn p04_a_task_stops_in_the_middle_and_goes_on_with_its_memory() {
    let mut supervisor = Supervisor::start();
    assert_eq!(supervisor.call(&["a", "count"]), 1);
    let file = supervisor.path("child");
    let script = "echo $$ > $FILE.new; mv $FILE.new $FILE; exec sleep 1000";
    let child = supervisor.call(&["a", "leave", script, text(&file)])[0].as_i64().unwrap() as i32;
    let (pid, held) = paused_in_a_task(&mut supervisor, "a");
    supervisor.until("what it has started is stopped too", |_| state(child) == Some('T'));
    let waiting = supervisor.start_cli(&["call", "a", "count", "--wait"]);
    supervisor.until("the mailbox accepts", |this| this.ps("a")["pending"] == 1);
    // Others work.
    assert_eq!(supervisor.call(&["b", "count"]), 1);
    let row = supervisor.ps("a");
    assert_eq!(
        (&row["state"], &row["pid"], &row["running"]["method"]),
        (&json!("paused"), &json!(pid), &json!("block"))
    );
    assert!(row["paused_ms"].is_u64() && supervisor.ps("b")["paused_ms"].is_null(), "{row}");
    assert!(state(pid) == Some('T') && !held.has_ended());
    let receipt = supervisor.cli(&["resume", "a", "--json"]).ok().json();
    assert_eq!(receipt, json!({"resumed": {}}));
    assert_eq!(waiting.end().ok().out, "2\n");
    assert!(held.has_ended());
    supervisor.until("its child goes on", |_| state(child) == Some('S'));
    let row = supervisor.ps("a");
    assert_eq!((&row["pid"], &row["generation"], &row["state"]), (&json!(pid), &json!(1), &json!("idle")));
    assert!(row["paused_ms"].is_null());
}

#[test]
fn p04_a_paused_idle_worker_is_given_nothing_and_then_all_in_order() {
    let supervisor = Supervisor::start();
    let file = supervisor.path("order");
    supervisor.call(&["a", "count"]);
    assert_eq!(supervisor.cli(&["pause", "a", "--json"]).ok().json(), json!({"paused": {}}));
    let mut client = supervisor.client();
    for line in 0..100 {
        let receipt = client.call(Call::new("a", "log", payload(&(&file, line.to_string())))).unwrap();
        assert!(matches!(receipt, ReceiptBody::Accepted(_)), "{receipt:?}");
    }
    let row = supervisor.ps("a");
    assert_eq!((&row["pending"], &row["running"], &row["state"]), (&json!(100), &Value::Null, &json!("paused")));
    // What it is sent ahead stays with the supervisor: a kill knows exactly what has not run.
    supervisor.cli(&["pause", "a"]).ok();
    supervisor.cli(&["resume", "a"]).ok();
    supervisor.cli(&["wait", "a", "--idle", "--timeout", "60s"]).ok();
    assert_eq!(supervisor.lines("order"), numbers(0..100));
    assert_eq!(supervisor.ps("a")["generation"], 1);
    supervisor.no_overlap();
}

#[test]
fn p04_info_says_who_has_paused_it_and_for_how_long() {
    let mut supervisor = Supervisor::start();
    supervisor.call(&["a", "count"]);
    let pid = pause(&mut supervisor, "a");
    let report = info(&supervisor, "a");
    assert!(report["paused_ms"].is_u64() && report["next_start_in_ms"].is_null(), "{report}");
    let people = supervisor.cli(&["info", "a"]).ok().out;
    let line = people.lines().find(|line| line.starts_with("paused ")).unwrap_or_else(|| panic!("{people}"));
    assert!(line.contains("for ") && line.contains(", by an operator (`workhall resume a` continues it)"), "{line}");
    assert!(people.contains(&format!("process       {pid},")), "{people}");
    let first = report["paused_ms"].as_u64().unwrap();
    supervisor.until("the time goes on", |this| info(this, "a")["paused_ms"].as_u64().unwrap() > first);
    // A second pause does not begin it anew.
    let before = info(&supervisor, "a")["paused_ms"].as_u64().unwrap();
    supervisor.cli(&["pause", "a"]).ok();
    assert!(info(&supervisor, "a")["paused_ms"].as_u64().unwrap() >= before);
    supervisor.cli(&["resume", "a"]).ok();
    assert!(!supervisor.cli(&["info", "a"]).ok().out.contains("paused"));
}

#[test]
fn p04_the_time_limit_of_a_task_does_not_run_during_a_pause() {
    let class = "exec = ['{bin}/test-worker', 'WINDOW']\ntask_timeout = '600ms'\n";
    let mut supervisor = Supervisor::with_config(&format!(
        "[class.one]\n{}[class.many]\n{}",
        class.replace("WINDOW", "1"),
        class.replace("WINDOW", "64")
    ));
    for worker in ["one", "many"] {
        supervisor.call(&[worker, "count"]);
        let mut client = supervisor.client();
        let slow = Call { wait: true, ..Call::new(worker, "sleep", payload(&(300,))) };
        let slow = client.submit(slow).unwrap();
        client.flush().unwrap();
        supervisor.until("it executes the task", |this| this.ps(worker)["running"]["method"] == "sleep");
        let pid = pause(&mut supervisor, worker);
        // Three times the limit.
        supervisor.until("much time has passed", |this| this.ps(worker)["paused_ms"].as_u64().unwrap() > 1800);
        assert_eq!((state(pid), &supervisor.ps(worker)["running"]["method"]), (Some('T'), &json!("sleep")));
        assert!(supervisor.ps(worker)["running"]["age_ms"].as_u64().unwrap() < 600, "what it has executed counts");
        supervisor.cli(&["resume", worker]).ok();
        assert!(matches!(client.outcome(slow).unwrap(), OutcomeBody::Done { .. }), "{worker}");
        // And runs again: it is ended at its limit.
        let endless = Call { wait: true, ..Call::new(worker, "sleep", payload(&(1_000_000,))) };
        let outcome = client.call_and_wait(endless).unwrap();
        assert!(format!("{outcome:?}").contains("TimedOut"), "{worker}: {outcome:?}");
    }
}

#[test]
fn p04_a_kill_of_a_paused_worker_is_heard() {
    for mode in tree_modes() {
        let mut supervisor = Supervisor::in_mode(mode, "");
        // One with nothing to do ends when it is asked.
        supervisor.call(&["b", "count"]);
        pause(&mut supervisor, "b");
        supervisor.cli(&["call", "b", "count"]).ok();
        let report = supervisor.kill(&["b"]);
        assert_eq!((&report["ended_by"], &report["discarded"]), (&json!("ask"), &json!(1)), "{mode}: {report}");
        // One that executes a task finishes it first.
        let held = supervisor.hold("a");
        pause(&mut supervisor, "a");
        let killing = supervisor.start_cli(&["kill", "a", "--wait", "--json"]);
        supervisor.until("it is asked", |this| this.ps("a")["state"] == "ending");
        held.release();
        let report = killing.end().ok().json();
        assert_eq!((&report["ended_by"], &report["current"]), (&json!("ask"), &json!("finished")), "{mode}: {report}");
        assert!(held.has_ended());
        // And one can be killed at once.
        let held = supervisor.hold("a");
        let pid = pause(&mut supervisor, "a");
        let report = supervisor.kill(&["a", "--now"]);
        assert_eq!(
            (&report["ended_by"], &report["current"]),
            (&json!("kill"), &json!("interrupted")),
            "{mode}: {report}"
        );
        assert!(!lives(pid) && !held.has_ended());
        // Its successor is not paused.
        assert_eq!(supervisor.call(&["a", "count"]), 1);
    }
}

#[test]
fn p04_a_drain_continues_and_executes_what_waits() {
    let mut supervisor = Supervisor::start();
    let (_, held) = paused_in_a_task(&mut supervisor, "a");
    let waiting = supervisor.start_cli(&["call", "a", "count", "--wait"]);
    supervisor.until("it waits", |this| this.ps("a")["pending"] == 1);
    let report = supervisor.kill(&["a", "--drain"]);
    assert_eq!((&report["ended_by"], &report["discarded"]), (&json!("ask"), &json!(0)), "{report}");
    assert!(held.has_ended());
    assert_eq!(waiting.end().ok().out, "1\n");
}

#[test]
fn p04_who_is_ending_is_not_paused() {
    let mut supervisor = Supervisor::start();
    let held = supervisor.hold("a");
    let killing = supervisor.start_cli(&["kill", "a", "--wait"]);
    supervisor.until("it is ending", |this| this.ps("a")["state"] == "ending");
    supervisor.cli(&["pause", "a"]).fails(1, &["a was killed and is ending"]);
    let receipt = supervisor.cli(&["pause", "a", "--json"]);
    assert_eq!((receipt.code, receipt.json()), (1, json!({"ignored": {"reason": "ending"}})));
    held.release();
    killing.end().ok();
}

#[test]
fn p04_the_supervisor_stops_while_workers_are_paused() {
    let mut supervisor = Supervisor::start();
    supervisor.call(&["b", "count"]);
    let idle = pause(&mut supervisor, "b");
    let (busy, held) = paused_in_a_task(&mut supervisor, "a");
    supervisor.cli(&["call", "a", "count"]).ok();
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.ended().code(), Some(0));
    assert!(held.has_ended(), "its task was finished");
    assert!(!lives(idle) && !lives(busy));
}

#[test]
fn p04_a_process_that_is_killed_while_it_is_paused_is_followed_by_none_until_the_resume() {
    let mut supervisor = Supervisor::start();
    let held = supervisor.hold("a");
    let pid = pause(&mut supervisor, "a");
    let waiting = supervisor.start_cli(&["call", "a", "count", "--wait"]);
    supervisor.until("it waits", |this| this.ps("a")["pending"] == 1);
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    supervisor.until("it has died", |this| this.ps("a")["crashes"] == 1);
    assert_eq!(supervisor.call(&["b", "count"]), 1);
    let row = supervisor.ps("a");
    assert_eq!((&row["state"], &row["pid"], &row["pending"]), (&json!("paused"), &Value::Null, &json!(1)));
    assert_eq!(supervisor.ledger("dead"), 1);
    supervisor.cli(&["resume", "a"]).ok();
    assert_eq!(waiting.end().ok().out, "1\n");
    assert_eq!(supervisor.ps("a")["generation"], 2);
    assert!(!held.has_ended());
}

#[test]
fn p04_for_a_worker_without_a_process_none_is_started() {
    let mut supervisor = Supervisor::start();
    supervisor.call(&["a", "count"]);
    supervisor.cli(&["call", "a", "exit", "0"]).ok();
    supervisor.until("it has no process", |this| this.ps("a")["state"] == "absent");
    supervisor.cli(&["pause", "a"]).ok();
    let waiting = supervisor.start_cli(&["call", "a", "count", "--wait"]);
    supervisor.until("it waits", |this| this.ps("a")["pending"] == 1);
    assert_eq!(supervisor.call(&["b", "count"]), 1);
    let row = supervisor.ps("a");
    assert_eq!((&row["state"], &row["pid"], &row["generation"]), (&json!("paused"), &Value::Null, &json!(1)));
    supervisor.cli(&["resume", "a"]).ok();
    assert_eq!(waiting.end().ok().out, "1\n");
}

#[test]
fn p04_who_is_not_there_is_not_paused_and_a_number_means_one() {
    let mut supervisor = Supervisor::start();
    supervisor.cli(&["pause", "nobody"]).fails(1, &["there is no worker nobody, so nothing to pause"]);
    let receipt = supervisor.cli(&["pause", "%99", "--json"]);
    assert_eq!((receipt.code, receipt.json()), (1, json!({"ignored": {"reason": "no_worker"}})));
    supervisor.cli(&["pause", ""]).fails(3, &["bad_name"]);
    supervisor.cli(&["pause"]).fails(2, &[]);
    assert!(supervisor.ps("nobody").is_null(), "a pause creates nobody");
    // By number the one that is drained; by name its successor too.
    let held = supervisor.hold("a");
    supervisor.cli(&["kill", "a", "--drain"]).ok();
    let old = supervisor.ps("a")["number"].as_u64().unwrap();
    supervisor.cli(&["call", "a", "count"]).ok();
    let paused = |this: &Supervisor| {
        let list = this.cli(&["ps", "--json"]).ok().json();
        let rows = list.as_array().unwrap().iter().filter(|row| row["paused_ms"].is_u64());
        rows.map(|row| row["number"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    supervisor.cli(&["pause", &format!("%{old}")]).ok();
    assert_eq!(paused(&supervisor), [old]);
    supervisor.cli(&["pause", "a"]).ok();
    assert_eq!(paused(&supervisor).len(), 2);
    supervisor.cli(&["resume", &format!("%{old}")]).ok();
    held.release();
    supervisor.until("the drained one has ended", |this| this.ps("a")["state"] == "paused" && held.has_ended());
    assert_eq!(supervisor.call(&["b", "count"]), 1);
    let new = supervisor.ps("a");
    assert_eq!((&new["pid"], &new["pending"]), (&Value::Null, &json!(1)), "its turn has come, and it is paused");
    supervisor.cli(&["resume", "a"]).ok();
    supervisor.cli(&["wait", "a", "--idle", "--timeout", "60s"]).ok();
    assert_eq!(supervisor.ps("a")["executed"], 1);
    supervisor.no_overlap();
}

#[test]
fn p04_who_may_not_administer_may_not_pause() {
    if !is_root() {
        return;
    }
    let mut supervisor = Supervisor::with_config(&format!("supervisor.socket_mode = '0666'\n{ANY_NAME}"));
    supervisor.open_to_others();
    supervisor.call(&["a", "count"]);
    let pid = supervisor.worker_pid("a");
    supervisor.cli_of(DAEMON, DAEMON, &["pause", "a"]).fails(3, &["not_permitted"]);
    assert!(supervisor.ps("a")["paused_ms"].is_null() && state(pid) != Some('T'));
    pause(&mut supervisor, "a");
    supervisor.cli_of(DAEMON, DAEMON, &["resume", "a"]).fails(3, &["not_permitted"]);
    assert_eq!(state(pid), Some('T'));
}

#[test]
fn p04_a_reload_leaves_a_worker_paused_and_replaces_its_process_at_the_resume() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    supervisor.call(&["a", "count"]);
    let pid = pause(&mut supervisor, "a");
    let file = supervisor.path("workhall.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, config.replace("names =", "exit_grace = '1s', names =")).unwrap();
    supervisor.cli(&["reload", "--restart"]).ok();
    let row = supervisor.ps("a");
    assert_eq!((&row["state"], &row["pid"]), (&json!("paused"), &json!(pid)));
    assert_eq!(state(pid), Some('T'));
    supervisor.cli(&["resume", "a"]).ok();
    supervisor.until("it has made place", |_| !lives(pid));
    assert_eq!(supervisor.call(&["a", "count"]), 1);
    assert_eq!((&supervisor.ps("a")["generation"], &supervisor.ps("a")["crashes"]), (&json!(2), &json!(0)));
}

#[test]
fn p04_a_pause_outlasts_an_upgrade() {
    let mut supervisor = Supervisor::start();
    assert_eq!(supervisor.call(&["a", "count"]), 1);
    assert_eq!(supervisor.call(&["b", "count"]), 1);
    let (pid, held) = paused_in_a_task(&mut supervisor, "a");
    pause(&mut supervisor, "b");
    let before = supervisor.ps("a")["paused_ms"].as_u64().unwrap();
    supervisor.cli(&["upgrade"]).ok();
    let row = supervisor.ps("a");
    assert_eq!((&row["state"], &row["pid"]), (&json!("paused"), &json!(pid)));
    assert!(row["paused_ms"].as_u64().unwrap() >= before, "{row}");
    assert!(state(pid) == Some('T') && !held.has_ended());
    let waiting = supervisor.start_cli(&["call", "b", "count", "--wait"]);
    supervisor.until("it is accepted", |this| this.ps("b")["pending"] == 1);
    for worker in ["a", "b"] {
        supervisor.cli(&["resume", worker]).ok();
    }
    assert_eq!(waiting.end().ok().out, "2\n");
    assert_eq!(supervisor.call(&["a", "count"]), 2);
    assert!(held.has_ended() && supervisor.worker_pid("a") == pid);
}

/// Rule D7: the kernel sends SIGHUP and SIGCONT to an orphaned group that is stopped.
#[test]
fn p04_a_paused_process_does_not_keep_its_name_when_the_supervisor_dies() {
    for mode in tree_modes() {
        let config = format!("supervisor.process_tree = '{mode}'\n{ANY_NAME}");
        // In a session of its own: who inherits the processes is not of it.
        let mut supervisor = Supervisor::with_config_under(&config, |_| vec!["setsid".into()]);
        supervisor.call(&["idle", "count"]);
        let file = supervisor.path("child");
        let script = "echo $$ > $FILE.new; mv $FILE.new $FILE; exec sleep 1000";
        let child = supervisor.call(&["parent", "leave", script, text(&file)])[0].as_i64().unwrap() as i32;
        // In the middle of a task that never ends by itself.
        supervisor.hold("busy");
        let pids = ["idle", "parent", "busy"].map(|worker| pause(&mut supervisor, worker));
        supervisor.until("its child is stopped", |_| state(child) == Some('T'));
        supervisor.signal(Signal::SIGKILL);
        supervisor.ended();
        supervisor.restart();
        for worker in ["idle", "parent", "busy"] {
            assert_eq!(supervisor.call(&[worker, "count"]), 1, "{mode}: another process serves {worker}");
            assert!(supervisor.ps(worker)["paused_ms"].is_null());
        }
        assert!(!pids.into_iter().chain([child]).any(lives), "{mode}");
        supervisor.no_overlap();
    }
}

#[test]
fn p04_a_pause_is_an_event_and_info_says_why_there_is_no_process() {
    let mut supervisor = Supervisor::start();
    supervisor.call(&["a", "count"]);
    let pid = pause(&mut supervisor, "a");
    supervisor.cli(&["pause", "a"]).ok();
    let report = info(&supervisor, "a");
    assert!(report["why"].is_null() && report["state_ms"].as_u64() >= report["paused_ms"].as_u64(), "{report}");
    assert_eq!(report["tree"]["processes"][0]["state"], "T", "{report}");
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    supervisor.until("it has died", |this| this.ps("a")["crashes"] == 1);
    let why = info(&supervisor, "a")["why"].to_string();
    assert!(why.contains("an operator has paused it"), "{why}");
    for _ in 0..2 {
        supervisor.cli(&["resume", "a"]).ok();
    }
    supervisor.call(&["a", "count"]);
    let events = supervisor.cli(&["events", "a", "--json"]).ok().json();
    let events = events.as_array().unwrap();
    let words: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(words, ["created", "started", "ready", "paused", "exited", "resumed", "started", "ready"]);
    assert_eq!((&events[3]["detail"], &events[3]["delay_ms"]), (&json!("by an operator"), &Value::Null));
    assert!(supervisor.cli(&["events", "a"]).ok().out.contains("by an operator"));
}

/// What programs say, and are told.
#[test]
fn p04_a_client_pauses_and_resumes() {
    let supervisor = Supervisor::start();
    let mut client = supervisor.client();
    client.call_and_wait(Call::new("a", "count", payload(&()))).unwrap();
    assert!(matches!(client.pause(Address::from("a")).unwrap(), ReceiptBody::Paused {}));
    let waiting = client.submit(Call { wait: true, ..Call::new("a", "count", payload(&())) }).unwrap();
    client.receipt(waiting).unwrap();
    assert!(matches!(client.resume(Address::from("a")).unwrap(), ReceiptBody::Resumed {}));
    assert!(matches!(client.outcome(waiting).unwrap(), OutcomeBody::Done { .. }));
    assert!(matches!(client.pause(Address::from("nobody")).unwrap(), ReceiptBody::Ignored { .. }));
}
