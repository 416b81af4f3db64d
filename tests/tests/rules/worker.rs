//! Workers: names, numbers, where they come from, and how long they stay (rules W1–W9).

use std::process::Stdio;

use serde_json::json;
use workhall_protocol::args::Payload;
use workhall_protocol::messages::{Call, ReceiptBody};
use workhall_tests::harness::{ANY_NAME, Supervisor, lives, output};

#[test]
fn w01_a_worker_is_a_name_a_mailbox_a_startup_method_and_perhaps_a_process() {
    let mut supervisor = Supervisor::start();
    supervisor.call(&["a", "count"]);
    let held = supervisor.hold("a");
    supervisor.cli(&["call", "a", "count"]).ok();
    let info = supervisor.cli(&["info", "a", "--json"]).ok().json();
    assert_eq!(info["name"], "a");
    assert_eq!((&info["pending"], &info["startup_method"]), (&1.into(), &"count".into()));
    assert_eq!(info["running"]["method"], "block");
    assert!(info["pid"].is_number());
    held.release();
    // Without its process it is the same worker.
    let before = supervisor.call(&["a", "who"]);
    supervisor.cli(&["call", "a", "exit", "0", "--wait"]);
    supervisor.cli(&["wait", "a", "--gone"]).ok();
    let info = supervisor.cli(&["info", "a", "--json"]).ok().json();
    assert_eq!((&info["state"], info["pid"].is_null()), (&"absent".into(), true));
    assert_eq!((&info["number"], &info["startup_method"]), (&before[1], &"count".into()));
}

#[test]
fn w02_names_are_case_sensitive_and_compared_byte_by_byte() {
    let supervisor = Supervisor::with_config(ANY_NAME);
    // The two é are one character in different bytes.
    let names = ["x", "X", " x", "x ", "é", "e\u{301}", "$x", "x*", "名前"];
    for name in names {
        assert_eq!(supervisor.call(&[name, "count"]), 1, "{name:?} is a worker of its own");
    }
    for name in names {
        assert_eq!(supervisor.call(&[name, "who"])[0], name);
    }
    assert_eq!(supervisor.status()["counts"]["workers"], names.len());
    let longest = "x".repeat(255);
    assert_eq!(supervisor.call(&[&longest, "who"])[0], *longest);
}

#[test]
fn w03_everything_comes_into_being_at_the_first_call() {
    let supervisor = Supervisor::start();
    assert_eq!(supervisor.cli(&["ps", "--json"]).ok().out, "[]\n");
    // Questions and kills create nothing.
    supervisor.cli(&["info", "a"]);
    supervisor.cli(&["kill", "a"]).ok();
    supervisor.cli(&["wait", "a", "--idle"]).ok();
    assert_eq!(supervisor.status()["counts"]["workers"], 0);
    supervisor.call(&["a", "count"]);
    let row = supervisor.ps("a");
    assert_eq!((&row["state"], &row["generation"]), (&"idle".into(), &1.into()));
    assert!(lives(supervisor.worker_pid("a")));
}

#[test]
fn w04_text_is_never_taken_for_a_number() {
    let supervisor = Supervisor::with_config(ANY_NAME);
    supervisor.call(&["other", "count"]);
    // Number 2 exists, and `2` is a name all the same.
    assert_eq!(supervisor.call(&["2", "who"]), json!(["2", 3, 1]));
    assert_eq!(supervisor.call(&["%2", "who"]), json!(["other", 2, 1]));
    assert_eq!(supervisor.call(&["%3", "who"])[0], "2");
    let ignored = supervisor.cli(&["call", "%7", "count", "--json"]).ok();
    assert_eq!(ignored.json(), json!({"ignored": {"reason": "no_worker"}}));
    // A percent sign before anything else is a part of the name.
    assert_eq!(supervisor.call(&["%x", "who"])[0], "%x");
    let mut client = supervisor.client();
    for (address, name) in [("3".into(), "3"), (3_u64.into(), "2")] {
        let call = Call { worker: address, ..Call::new("", "who", Payload::no_args()) };
        let ReceiptBody::Accepted(accepted) = client.call(call).unwrap() else { panic!("{name} was not accepted") };
        assert_eq!(accepted.worker, name);
    }
}

#[test]
fn w04_a_number_outlives_crashes_and_is_never_given_again() {
    let mut supervisor = Supervisor::start();
    assert_eq!(supervisor.call(&["a", "who"]), json!(["a", 2, 1]), "numbers start at 2");
    supervisor.cli(&["call", "a", "die", "--wait"]);
    assert_eq!(supervisor.call(&["%2", "who"]), json!(["a", 2, 2]), "across a crash it is the same");
    supervisor.cli(&["kill", "%2", "--wait"]).ok();
    assert_eq!(supervisor.cli(&["call", "%2", "count", "--json"]).ok().json()["ignored"]["reason"], "no_worker");
    assert_eq!(supervisor.call(&["a", "who"]), json!(["a", 3, 1]), "a new worker has a new number");
    let held = supervisor.hold("a");
    supervisor.cli(&["kill", "a"]).ok();
    supervisor.cli(&["call", "a", "count"]).ok();
    // Two of one name: the number says which.
    assert_eq!(supervisor.cli(&["call", "%3", "count", "--json"]).ok().json()["ignored"]["reason"], "ending");
    assert_eq!(supervisor.cli(&["call", "%4", "count", "--json"]).ok().json()["accepted"]["number"], 4);
    held.release();
    assert_eq!(supervisor.call(&["b", "who"])[1], 5);
}

#[test]
fn w05_number_1_is_the_main_worker_which_nobody_has_to_call() {
    let mut supervisor = Supervisor::with_config(
        "class.boss = { exec = ['{bin}/test-worker'], main = true }\nclass.a = { exec = ['{bin}/test-worker'] }",
    );
    supervisor.until("the main worker is ready", |this| this.ps("boss")["state"] == "idle");
    assert_eq!(supervisor.ps("boss")["number"], 1);
    assert_eq!(supervisor.call(&["%1", "who"]), json!(["boss", 1, 1]));
    assert_eq!(supervisor.call(&["boss", "who"]), json!(["boss", 1, 1]));
    assert_eq!(supervisor.call(&["a", "who"])[1], 2, "the others begin at 2");
}

#[test]
fn w05_without_a_main_worker_number_1_names_nobody() {
    let supervisor = Supervisor::start();
    let ignored = supervisor.cli(&["call", "%1", "count", "--json"]).ok().json();
    assert_eq!(ignored, json!({"ignored": {"reason": "no_worker"}}));
    assert_eq!(supervisor.status()["counts"]["workers"], 0);
}

#[test]
fn w06_the_process_stays_and_its_memory_is_the_state() {
    let supervisor = Supervisor::start();
    let pid = supervisor.call(&["a", "pid"]);
    for round in 1..=20 {
        assert_eq!(supervisor.call(&["a", "count"]), round);
    }
    // An error of a method is no end either.
    supervisor.cli(&["call", "a", "fail", "x", "--wait"]).fails(1, &["x"]);
    assert_eq!(supervisor.call(&["a", "count"]), 21);
    assert_eq!(supervisor.call(&["a", "pid"]), pid);
    assert_eq!(supervisor.status()["counts"]["spawned"], 1);
    assert_eq!(supervisor.ps("a")["state"], "idle");
}

#[test]
fn w07_the_end_of_a_caller_touches_nobody_it_called() {
    let mut supervisor = Supervisor::start();
    // A client that waits is killed.
    let files = [supervisor.path("begun"), supervisor.path("go")];
    let [begun, go] = files.each_ref().map(|file| file.to_str().unwrap());
    let mut caller =
        supervisor.command(&["call", "b", "block", begun, go, "--wait"]).stdout(Stdio::null()).spawn().unwrap();
    supervisor.until("the task has begun", |_| files[0].exists());
    caller.kill().unwrap();
    caller.wait().unwrap();
    std::fs::write(&files[1], "").unwrap();
    supervisor.cli(&["wait", "b", "--idle"]).ok();
    assert_eq!(supervisor.status()["ledger"]["done"], 1);
    // A worker that has called dies, and is killed.
    supervisor.call(&["a", "call", "b", "count", "[]"]);
    let pid = supervisor.worker_pid("b");
    supervisor.cli(&["call", "a", "die", "--wait"]).fails(6, &["crashed"]);
    supervisor.call(&["a", "call", "b", "count", "[]"]);
    supervisor.cli(&["kill", "a", "--wait"]).ok();
    assert_eq!(supervisor.call(&["b", "count"]), 3);
    assert_eq!(supervisor.worker_pid("b"), pid);
}

#[test]
fn w07_the_supervisor_is_the_only_parent() {
    let supervisor = Supervisor::start();
    supervisor.call(&["a", "call", "b", "count", "[]"]);
    supervisor.cli(&["wait", "b", "--idle"]).ok();
    for name in ["a", "b"] {
        let status = std::fs::read_to_string(format!("/proc/{}/status", supervisor.worker_pid(name))).unwrap();
        assert!(status.contains(&format!("PPid:\t{}\n", supervisor.pid())), "the parent of {name}: {status}");
    }
}

#[test]
fn w08_a_client_has_no_mailbox_and_cannot_be_called_back() {
    let supervisor = Supervisor::start();
    assert!(supervisor.call(&["a", "sender"]).is_null());
    supervisor.cli(&["call", "a", "reply", "count", "[]", "--wait"]).fails(1, &["client, which cannot be called back"]);
    // What a shell has from a worker's environment does not make it one.
    let mut command = supervisor.command(&["call", "a", "sender", "--wait"]);
    command.env("WORKHALL_NUMBER", "2").env("WORKHALL_WORKER", "a").env("WORKHALL_GENERATION", "1");
    assert!(output(&mut command).ok().json().is_null());
    assert_eq!(supervisor.cli(&["ps", "--json"]).ok().json().as_array().unwrap().len(), 1);
}

#[test]
fn w09_the_class_whose_pattern_is_most_specific_runs_the_worker() {
    // The window that each is started with is its mark.
    let supervisor = Supervisor::with_config(
        "class.any = { exec = ['{bin}/test-worker', '1'], names = ['**'] }
         class.db = { exec = ['{bin}/test-worker', '2'] }
         class.eu = { exec = ['{bin}/test-worker', '3'], names = ['db/eu-*'] }
         class.one = { exec = ['{bin}/test-worker', '4'], names = ['db/eu-1'] }",
    );
    for (name, class, mark) in
        [("x/y", "any", "1"), ("db", "db", "2"), ("db/x/y", "db", "2"), ("db/eu-2", "eu", "3"), ("db/eu-1", "one", "4")]
    {
        supervisor.call(&[name, "count"]);
        let info = supervisor.cli(&["info", name, "--json"]).ok().json();
        assert_eq!((&info["class"], &info["exec"][1]), (&class.into(), &mark.into()), "{name}");
    }
}

#[test]
fn w09_without_a_configuration_the_first_part_of_a_name_is_an_executable() {
    let supervisor = Supervisor::start();
    for name in ["a", "a/eu", "a/eu/1"] {
        assert_eq!(supervisor.call(&[name, "who"])[0], name);
        assert_eq!(supervisor.ps(name)["class"], "a");
    }
}

#[test]
fn w09_a_name_that_no_class_matches_creates_nothing() {
    let supervisor = Supervisor::start();
    std::fs::write(supervisor.path("workers").join("plain"), "not a program").unwrap();
    for name in ["A", "c", "ab", "..", "../workers/a", ".", "/bin/true", "/", "log"] {
        supervisor.cli(&["call", name, "count"]).fails(3, &["no_class", name, "`a`, `b`, `test-worker`"]);
    }
    supervisor.cli(&["call", "plain", "count"]).fails(3, &["no_class", "plain", "not executable"]);
    let status = supervisor.status();
    assert_eq!((&status["counts"]["workers"], &status["counts"]["spawned"]), (&0.into(), &0.into()));
    assert_eq!((&status["ledger"]["accepted"], &status["refused"]), (&0.into(), &10.into()));
}
