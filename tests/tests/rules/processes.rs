//! Processes for one method, and workers that are started at boot: with real processes (rules P1, P3, P4, W5, K10).

use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use workhall_protocol::messages::Address;
use workhall_protocol::process::{ProcessState, ProcessType};
use workhall_tests::harness::{Supervisor, bin_dir, lives, text};

const JOB: &str = "class.job = { exec = ['{bin}/test-worker'] }\n";

/// Where a task says that it has begun, and what lets it go.
fn gate(supervisor: &Supervisor, name: &str) -> (PathBuf, PathBuf) {
    (supervisor.path(&format!("{name}-begun")), supervisor.path(&format!("{name}-go")))
}

/// Starts a run that waits at its gate, and waits until it has begun.
fn held(supervisor: &mut Supervisor, name: &str, more: &[&str]) -> PathBuf {
    let (begun, go) = gate(supervisor, name);
    supervisor.cli(&[&["run", "job", "block", text(&begun), text(&go), "--name", name], more].concat()).ok();
    supervisor.until("it has begun", |_| begun.exists());
    go
}

#[track_caller]
fn gone(supervisor: &mut Supervisor, name: &str) {
    supervisor.until("it is gone", |this| this.cli(&["info", name]).code == 1);
}

fn write(supervisor: &Supervisor, config: &str) {
    supervisor.file("workhall.toml", &config.replace("{bin}", bin_dir().to_str().unwrap()));
}

#[test]
fn p01_a_run_executes_one_method_prints_its_result_and_is_gone() {
    let mut supervisor = Supervisor::with_config(JOB);
    let who = supervisor.cli(&["run", "job", "who", "--wait"]).ok().json();
    assert_eq!(who, json!(["job/run-2", 2, 1]));
    gone(&mut supervisor, "job/run-2");
    let (first, second) =
        (supervisor.cli(&["run", "job", "pid", "--wait"]), supervisor.cli(&["run", "job", "pid", "--wait"]));
    assert_ne!(first.ok().json(), second.ok().json(), "each has a process of its own");
    let receipt = supervisor.cli(&["run", "job", "count", "--name", "mine", "--json"]).ok().json();
    assert_eq!(receipt, json!({"accepted": {"worker": "mine", "number": 5, "message": 4}}));
    gone(&mut supervisor, "mine");
    assert_eq!(supervisor.ledger("done"), 4);
    assert_eq!(supervisor.cli(&["status", "--json"]).ok().json()["counts"]["workers"], 0);
}

#[test]
fn p01_it_is_listed_with_its_type_and_is_nobodys_to_call() {
    let mut supervisor = Supervisor::with_config(&format!("{JOB}class.a = {{ exec = ['{{bin}}/test-worker'] }}\n"));
    let go = held(&mut supervisor, "one", &[]);
    let row = supervisor.ps("one");
    assert_eq!(
        (&row["type"], &row["type_number"], &row["state"], &row["state_number"]),
        (&json!("run"), &json!(2), &json!("busy"), &json!(0))
    );
    assert_eq!((&row["closed"], &row["class"]), (&json!(false), &json!("job")));
    assert!(supervisor.cli(&["ps"]).ok().out.contains(" run "));
    supervisor.cli(&["call", "one", "count"]).fails(3, &["name_taken", "nobody can call it"]);
    supervisor.cli(&["run", "job", "count", "--name", "one"]).fails(3, &["name_taken", "`one`", "runs"]);
    let ignored = supervisor.cli(&["call", "%2", "count", "--json"]).ok().json();
    assert_eq!(ignored, json!({"ignored": {"reason": "no_worker"}}));
    let running = supervisor.cli(&["run", "job", "count", "--name", "one", "--unique", "--json"]).ok().json();
    assert_eq!(running, json!({"running": {"worker": "one", "number": 2}}));
    supervisor.call(&["a", "count"]);
    supervisor.cli(&["run", "job", "count", "--name", "a"]).fails(3, &["name_taken", "has a process"]);
    supervisor.cli(&["call", "job", "count", "--in", "1h"]).ok();
    supervisor.cli(&["run", "job", "count", "--name", "job"]).fails(3, &["name_taken", "for which 1 message waits"]);
    std::fs::write(go, "").unwrap();
    gone(&mut supervisor, "one");
    supervisor.cli(&["run", "job", "count", "--name", "one", "--unique", "--wait"]).ok();
    supervisor.no_overlap();
}

#[test]
fn p01_it_calls_workers_under_its_own_name() {
    let mut supervisor = Supervisor::with_config(&format!("{JOB}class.a = {{ exec = ['{{bin}}/test-worker'] }}\n"));
    let file = supervisor.path("sender");
    let args = json!(["a", "sender_to", [file]]).to_string();
    supervisor.cli(&["run", "job", "call", "--args", &args, "--name", "caller", "--wait"]).ok();
    supervisor.until_lines("sender", 1);
    assert_eq!(supervisor.lines("sender"), ["caller %2"]);
}

#[test]
fn p01_its_death_is_an_outcome_and_it_has_no_second_life() {
    let mut supervisor = Supervisor::with_config(&format!(
        "{JOB}class.again = {{ exec = ['{{bin}}/test-worker'], on_crash = 'retry', attempts = 3 }}\n\
         class.nothing = {{ exec = ['/not/there'] }}\n"
    ));
    supervisor.cli(&["run", "job", "die", "--wait"]).fails(6, &["crashed", "signal 9"]);
    supervisor.cli(&["run", "job", "fail", "no", "--wait"]).fails(1, &["job/run-3 failed: no"]);
    supervisor.cli(&["run", "nothing", "m", "--wait"]).fails(6, &["never started"]);
    let log = supervisor.path("tries");
    supervisor.cli(&["run", "again", "die_times", text(&log), "try", "2", "--wait"]).ok();
    assert_eq!(supervisor.lines("tries").len(), 3);
    supervisor.until("all are gone", |this| this.status()["counts"]["workers"] == 0);
    let ledger = &supervisor.status()["ledger"];
    let terms = ["done", "failed", "dead", "pending", "running"].map(|term| ledger[term].as_u64().unwrap());
    assert_eq!(terms, [1, 1, 2, 0, 0]);
    let events = supervisor.cli(&["events", "--json"]).ok().out;
    assert!(events.contains("not_started") && events.contains("/not/there"), "{events}");
}

#[test]
fn p01_kill_pause_and_logs_are_those_of_any_worker() {
    let mut supervisor = Supervisor::with_config(JOB);
    held(&mut supervisor, "one", &[]);
    let pid = supervisor.worker_pid("one");
    supervisor.cli(&["pause", "one"]).ok();
    assert_eq!(
        (supervisor.ps("one")["state"].clone(), supervisor.ps("one")["state_number"].clone()),
        (json!("paused"), json!(5))
    );
    supervisor.cli(&["resume", "one"]).ok();
    let killed = supervisor.kill(&["one", "--now"]);
    assert_eq!(
        (&killed["number"], &killed["ended_by"], &killed["current"]),
        (&json!(2), &json!("kill"), &json!("interrupted"))
    );
    assert!(!lives(pid));
    supervisor.cli(&["run", "job", "program", "printenv", "HOME", "--name", "two", "--wait"]).ok();
    gone(&mut supervisor, "two");
    let events = supervisor.cli(&["events", "two", "--json"]).ok().out;
    for event in ["created", "started", "ready", "exited", "gone"] {
        assert!(events.contains(&format!("\"event\":\"{event}\"")), "{event}: {events}");
    }
}

#[test]
fn p01_who_may_run_and_what_is_wrong_is_said() {
    let supervisor = Supervisor::with_config("class.job = { exec = ['{bin}/test-worker'], names = ['job-*'] }\n");
    supervisor.cli(&["run", "nobody", "m"]).fails(3, &["no_class", "nobody", "`job`"]);
    supervisor.cli(&["run", "job-1", "m"]).fails(3, &["no_class", "no class is called `job-1`", "of class `job`"]);
    supervisor.cli(&["run", "job", "m", "--name", ""]).fails(3, &["bad_name"]);
    supervisor.cli(&["run", "job", "m", "--unique"]).fails(2, &["--name"]);
    let ignored = supervisor.cli(&["run", "job", "--json"]).ok().json();
    assert_eq!(ignored, json!({"ignored": {"reason": "no_startup_method"}}));
    // Its class needs no name that its pattern has.
    assert_eq!(supervisor.cli(&["run", "job", "echo", "1", "--wait"]).ok().json(), json!([1]));
}

#[test]
fn p01_it_lives_over_a_reload_and_an_upgrade_and_ends_at_the_stop() {
    let mut supervisor = Supervisor::with_config(&format!("{JOB}class.a = {{ exec = ['{{bin}}/test-worker'] }}\n"));
    let go = held(&mut supervisor, "one", &[]);
    held(&mut supervisor, "two", &[]);
    let pids = ["one", "two"].map(|name| supervisor.worker_pid(name));
    write(&supervisor, "class.a = { exec = ['{bin}/test-worker'] }\n");
    supervisor.cli(&["reload", "--restart"]).ok();
    supervisor.cli(&["upgrade"]).ok();
    assert_eq!(["one", "two"].map(|name| supervisor.worker_pid(name)), pids);
    assert_eq!(supervisor.ps("one")["type"], "run");
    std::fs::write(go, "").unwrap();
    gone(&mut supervisor, "one");
    assert_eq!(supervisor.ledger("done"), 1);
    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.ended().success());
    assert!(pids.iter().all(|pid| !lives(*pid)));
}

// ---- boot ---------------------------------------------------------------------------------------

#[test]
fn w05_workers_of_boot_are_there_without_a_call_and_come_back_after_a_crash() {
    let mut supervisor = Supervisor::with_config(
        "class.main = { exec = ['{bin}/test-worker'], main = true }\n\
         class.b = { exec = ['{bin}/test-worker'], start = 'boot', names = ['b/1', 'b/2', 'c-*'] }\n",
    );
    for name in ["main", "b/1", "b/2"] {
        supervisor.until("it is idle", |this| this.ps(name)["state"] == "idle");
    }
    let types =
        ["main", "b/1"].map(|name| supervisor.ps(name)).map(|row| (row["type"].clone(), row["type_number"].clone()));
    assert_eq!(types, [(json!("main"), json!(1)), (json!("boot"), json!(5))]);
    assert_eq!(supervisor.ps("main")["number"], 1);
    let pid = supervisor.worker_pid("b/1");
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    supervisor.until("it is back", |this| this.ps("b/1")["generation"] == 2 && this.ps("b/1")["state"] == "idle");
    assert_eq!(supervisor.call(&["b/1", "count"]), 1);
    supervisor.no_overlap();
}

#[test]
fn k10_a_kill_of_a_worker_of_boot_only_empties_its_mailbox() {
    let mut supervisor = Supervisor::with_config("class.b = { exec = ['{bin}/test-worker'], start = 'boot' }\n");
    supervisor.until("it is idle", |this| this.ps("b")["state"] == "idle");
    let pid = supervisor.worker_pid("b");
    let hold = supervisor.hold("b");
    supervisor.cli(&["call", "b", "count"]).ok();
    let killed = supervisor.kill(&["b", "--now"]);
    assert_eq!((&killed["discarded"], &killed["ended_by"]), (&json!(1), &json!("only_emptied")));
    hold.release();
    supervisor.until("it is idle", |this| this.ps("b")["state"] == "idle");
    assert_eq!(supervisor.worker_pid("b"), pid);
    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.ended().success(), "the stop ends it (rule D8)");
    assert!(!lives(pid));
}

#[test]
fn w05_a_reload_adds_workers_of_boot_and_takes_them_back() {
    let class = |start: &str| format!("class.b = {{ exec = ['{{bin}}/test-worker'], start = '{start}' }}\n");
    let mut supervisor = Supervisor::with_config(&class("call"));
    assert_eq!(supervisor.status()["counts"]["workers"], 0);
    write(&supervisor, &class("boot"));
    supervisor.cli(&["reload"]).ok();
    supervisor.until("it is idle", |this| this.ps("b")["state"] == "idle" && this.ps("b")["type"] == "boot");
    supervisor.cli(&["upgrade"]).ok();
    assert_eq!(supervisor.ps("b")["type"], "boot");
    write(&supervisor, &class("call"));
    supervisor.cli(&["reload"]).ok();
    assert_eq!(
        (supervisor.ps("b")["type"].clone(), supervisor.ps("b")["state"].clone()),
        (json!("worker"), json!("idle"))
    );
    supervisor.kill(&["b"]);
    gone(&mut supervisor, "b");
}

// ---- what is known of a process -------------------------------------------------------------------

#[test]
fn p03_info_has_the_numbers_of_4d_beside_the_words() {
    let mut supervisor = Supervisor::start();
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    supervisor.call(&["a", "count"]);
    let info = |this: &Supervisor| this.cli(&["info", "a", "--json"]).ok().json();
    let first = info(&supervisor);
    let words = ["type", "type_number", "state", "state_number", "number"].map(|key| first[key].clone());
    assert_eq!(words, [json!("worker"), json!(5), json!("idle"), json!(2), json!(2)]);
    assert!(first["created_ms"].as_u64().unwrap() + 2 >= before, "{first}");
    assert!(first["cpu_ms"].is_u64() && first["cpu_share"].as_f64().is_some_and(|share| share >= 0.0), "{first}");
    let id = |info: &Value| info["unique_id"].as_str().unwrap().to_string();
    assert_eq!(id(&first), id(&info(&supervisor)), "a life has one");
    supervisor.cli(&["upgrade"]).ok();
    assert_eq!(id(&first), id(&info(&supervisor)), "over an upgrade too");
    kill(Pid::from_raw(supervisor.worker_pid("a")), Signal::SIGKILL).unwrap();
    supervisor.until("it is absent", |this| this.ps("a")["state"] == "absent");
    let absent = info(&supervisor);
    assert_eq!((&absent["state_number"], &absent["cpu_ms"]), (&json!(-1), &Value::Null));
    supervisor.call(&["a", "count"]);
    assert_ne!(id(&first), id(&info(&supervisor)), "the next life has another");
    let mut client = supervisor.client();
    let process = client.process(Address::from("a")).unwrap().unwrap();
    assert_eq!(
        (process.process_type(), process.process_state()),
        (Some(ProcessType::Worker), Some(ProcessState::Idle))
    );
    assert_eq!((process.pid, process.number), (Some(supervisor.worker_pid("a")), 2));
    assert_eq!(client.process(Address::from("nobody-here")).unwrap(), None);
}

#[test]
fn p03_a_worker_asks_what_another_is() {
    let supervisor = Supervisor::start();
    supervisor.call(&["a", "count"]);
    let said = supervisor.call(&["b", "process", "a"]);
    assert_eq!(said, r#"("a", "worker", Some(Worker), Some(Idle))"#);
    assert_eq!(supervisor.call(&["b", "process", "c"]), Value::Null);
    let said = supervisor.call(&["b", "process", "b"]);
    assert_eq!(said, r#"("b", "worker", Some(Worker), Some(Executing))"#);
}

#[test]
fn p04_the_library_pauses_and_resumes() {
    let mut supervisor = Supervisor::start();
    supervisor.call(&["a", "count"]);
    assert_eq!(supervisor.call(&["b", "pause", "a"]), "Paused");
    supervisor.cli(&["call", "a", "count"]).ok();
    assert_eq!(
        (supervisor.ps("a")["state"].clone(), supervisor.ps("a")["pending"].clone()),
        (json!("paused"), json!(1))
    );
    assert_eq!(supervisor.call(&["b", "resume", "a"]), "Resumed");
    supervisor.until("it has executed", |this| this.ps("a")["executed"] == 2);
    assert_eq!(supervisor.call(&["b", "pause", "c"]), "ignored: NoWorker");
}

#[test]
fn p05_a_leading_dollar_is_an_ordinary_character() {
    let supervisor = Supervisor::with_config(workhall_tests::harness::ANY_NAME);
    assert_eq!(supervisor.call(&["$a", "who"]), json!(["$a", 2, 1]));
    assert_eq!(supervisor.call(&["a", "who"]), json!(["a", 3, 1]));
    let run = supervisor.cli(&["run", "any", "who", "--name", "$run", "--wait"]).ok().json();
    assert_eq!(run, json!(["$run", 4, 1]));
}

#[test]
fn p03_of_who_does_not_exist_info_says_so_with_the_number_for_it() {
    let supervisor = Supervisor::start();
    let none = supervisor.cli(&["info", "nobody", "--json"]).fails(1, &["there is no worker nobody"]);
    assert_eq!(none.json(), json!({"ignored": {"reason": "no_worker"}, "state_number": -100}));
}
