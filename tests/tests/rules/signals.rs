//! Signals (rules S1–S5), from the shell, from Rust and as JSON lines; and messages that are not wanted any more.

use std::io::{BufRead as _, BufReader, Write as _};
use std::time::Duration;

use serde_json::{Value, json};
use workhall_protocol::Signal;
use workhall_protocol::args::Payload;
use workhall_protocol::ids::SignalId;
use workhall_protocol::messages::{Call, OutcomeBody, ReceiptBody};
use workhall_protocol::signal::SignalError;
use workhall_tests::harness::{ANY_NAME, Supervisor, is_root, payload, text};

/// Nothing is sent ahead: what is pending waits in its mailbox.
const ONE_AT_A_TIME: &str = "class.any = { exec = ['{bin}/test-worker', '1'], names = ['**'] }\n";

/// Made on the command line.
fn new(supervisor: &Supervisor, more: &[&str]) -> String {
    let id = supervisor.cli(&[&["signal", "new"], more].concat()).ok().out;
    id.trim().to_string()
}

fn written(id: &str) -> String {
    json!({ "$signal": id }).to_string()
}

/// How many signals there are.
fn count(supervisor: &Supervisor) -> Value {
    supervisor.status()["limits"]["signals_used"].clone()
}

#[test]
fn s01_a_shell_makes_a_signal_a_worker_triggers_it_and_who_waits_reads_its_values() {
    let mut supervisor = Supervisor::start();
    let id = new(&supervisor, &["--description", "a page\u{7}"]);
    assert!(SignalId::parse(&id).is_some(), "{id}");
    supervisor.cli(&["signal", "set", &id, "pages", "312"]).ok();
    let waiting = supervisor.start_cli(&["signal", "wait", &id]);
    supervisor.until("it waits", |this| this.cli(&["signal", "show", &id, "--json"]).ok().json()["waiters"] == 1);
    let shown = supervisor.cli(&["signal", "show", &id, "--json"]).ok().json();
    assert_eq!((&shown["triggered"], &shown["values"]), (&json!(false), &Value::Null), "read after the trigger");
    supervisor.cli(&["call", "a", "trigger", &written(&id), "{\"deep\": [1]}"]).ok();
    assert_eq!(waiting.end().ok().json(), json!({"by": "a", "pages": 312, "value": {"deep": [1]}}));
    let late = supervisor.cli(&["signal", "wait", &id, "--timeout", "0s", "--json"]).ok().json();
    assert_eq!(late["triggered"]["values"]["pages"], 312);
    let shown = supervisor.cli(&["signal", "show", &id]).ok().out;
    assert!(shown.contains("triggered    yes") && shown.contains("value        pages = 312"), "{shown}");
    assert!(!shown.contains('\u{7}'), "what a terminal would heed is escaped");
    supervisor.cli(&["signal", "set", &id, "pages", "1"]).fails(1, &["triggered already"]);
}

#[test]
fn s02_a_second_trigger_does_nothing() {
    let supervisor = Supervisor::start();
    let id = new(&supervisor, &[]);
    let trigger = || supervisor.cli(&["signal", "trigger", &id, "--json"]).ok().json();
    assert_eq!(trigger(), json!({"signalled": {"first": true}}));
    assert_eq!(trigger(), json!({"signalled": {"first": false}}));
}

#[test]
fn s03_a_wait_that_is_not_answered_in_time_ends_with_the_time_and_zero_only_looks() {
    let supervisor = Supervisor::start();
    let id = new(&supervisor, &[]);
    supervisor.cli(&["signal", "wait", &id, "--timeout", "0s"]).fails(5, &["the time ran out"]);
    supervisor.cli(&["signal", "wait", &id, "--timeout", "50ms"]).fails(5, &["the time ran out"]);
    let looked = supervisor.call(&["a", "wait_for", &written(&id), "0"]);
    assert_eq!(looked, json!([false, null]));
    assert_eq!(supervisor.call(&["a", "wait_for", &written(&id), "0.05"]), json!([false, null]));
    supervisor.cli(&["call", "b", "trigger", &written(&id), "7", "--wait"]).ok();
    assert_eq!(supervisor.call(&["a", "wait_for", &written(&id), "0"]), json!([true, 7]));
}

#[test]
fn s03_who_waits_uses_no_processor_time() {
    let mut supervisor = Supervisor::start();
    let id = new(&supervisor, &[]);
    let mut waiting: Vec<_> = (0..3).map(|_| supervisor.start_cli(&["signal", "wait", &id])).collect();
    supervisor.until("they wait", |this| this.cli(&["signal", "show", &id, "--json"]).ok().json()["waiters"] == 3);
    let wakes = |pid: i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_string()
    };
    // The connection that has asked may still be closed.
    supervisor.until("the supervisor sleeps", |this| {
        let before = wakes(this.pid());
        std::thread::sleep(Duration::from_millis(300));
        wakes(this.pid()) == before
    });
    assert!(waiting.iter_mut().all(|one| !one.has_ended()));
    supervisor.cli(&["signal", "trigger", &id]).ok();
    for one in waiting {
        assert_eq!(one.end().ok().json(), json!({}));
    }
}

#[test]
fn s04_the_end_of_the_last_holder_frees_it() {
    let mut supervisor = Supervisor::start();
    // Its maker's connection.
    let mut client = supervisor.client();
    let signal = Signal::new(&mut client, "").unwrap();
    assert_eq!(count(&supervisor), 1);
    // And a message that carries it.
    let held = supervisor.hold("a");
    client.call(Call::new("a", "keep", payload(&(signal,)))).unwrap();
    drop(client);
    assert_eq!(count(&supervisor), 1);
    held.release();
    // Then the process that has it in its memory.
    assert_eq!(supervisor.call(&["a", "count"]), 1);
    assert_eq!(count(&supervisor), 1);
    supervisor.kill(&["a"]);
    supervisor.until("it is freed", |this| count(this) == 0);
    // Its time.
    let id = new(&supervisor, &["--keep", "100ms"]);
    supervisor.until("it is freed", |this| count(this) == 0);
    supervisor.cli(&["signal", "trigger", &id]).fails(1, &["there is no signal", "--keep"]);
    supervisor.cli(&["signal", "wait", &id]).fails(1, &["there is no signal"]);
    // Whoever says so.
    let mut client = supervisor.client();
    let signal = Signal::new(&mut client, "").unwrap();
    signal.free(&mut client).unwrap();
    assert!(matches!(signal.trigger(&mut client), Err(SignalError::NoSignal)));
}

#[test]
fn s05_who_waits_learns_how_the_message_has_ended() {
    let mut supervisor = Supervisor::start();
    let mut client = supervisor.client();
    let mut told = |supervisor: &mut Supervisor, method: &str, more: Value, act: &dyn Fn(&mut Supervisor)| {
        let signal = Signal::new(&mut client, method).unwrap();
        let mut args = vec![serde_json::to_value(signal).unwrap()];
        args.extend(more.as_array().unwrap().clone());
        client.call(Call::new("a", method, Payload::from_json(&args.into()).unwrap())).unwrap();
        act(supervisor);
        match signal.wait(&mut client, Some(Duration::from_secs(60))).unwrap_err() {
            SignalError::Ended(outcome) => *outcome,
            other => panic!("{other}"),
        }
    };
    let failed = told(&mut supervisor, "fail_with", json!(["no paper"]), &|_| {});
    assert_eq!(failed, OutcomeBody::Failed { error: "no paper".into() });
    let died = told(&mut supervisor, "die_with", json!([]), &|_| {});
    assert!(matches!(died, OutcomeBody::Dead { .. }), "{died:?}");
    let held = supervisor.hold("a");
    let discarded = told(&mut supervisor, "keep", json!([]), &|this| drop(this.cli(&["kill", "a"]).ok()));
    assert_eq!(discarded, OutcomeBody::Discarded { may_have_run: false });
    held.release();
    // Done, and then the process ends that might have triggered it.
    let lost = told(&mut supervisor, "keep", json!([]), &|this| {
        this.call(&["a", "count"]);
        this.kill(&["a"]);
    });
    assert_eq!(lost, OutcomeBody::Lost {});
    let shown = supervisor.start_cli(&["call", "a", "have_triggered", "b", "fail_with", "[\"no ink\"]", "--wait"]);
    assert_eq!(shown.end().ok().json(), json!({"failed": {"error": "no ink"}}));
}

#[test]
fn s05_the_command_line_says_it_with_its_exit_status() {
    let supervisor = Supervisor::start();
    let id = new(&supervisor, &[]);
    supervisor.cli(&["call", "a", "fail_with", &written(&id), "no paper", "--wait"]).fails(1, &["no paper"]);
    supervisor.cli(&["signal", "wait", &id]).fails(1, &["the message that was to trigger", "no paper"]);
    let id = new(&supervisor, &[]);
    supervisor.cli(&["call", "a", "die_with", &written(&id), "--wait"]).fails(6, &["crashed"]);
    supervisor.cli(&["signal", "wait", &id]).fails(6, &["dead letter, crashed (signal 9)", "may have run"]);
    supervisor.cli(&["signal", "wait", "abc"]).fails(2, &["32 hexadecimal digits"]);
}

#[test]
fn s05_a_worker_that_waits_for_a_message_to_itself_runs_out_of_time() {
    let supervisor = Supervisor::start();
    let waited = supervisor.call(&["a", "have_triggered", "a", "trigger", "[1]"]);
    assert_eq!(waited, false, "it executes one message at a time, and this one has not ended");
    assert_eq!(supervisor.call(&["a", "have_triggered", "b", "trigger", "[1]"]), true);
}

#[test]
fn s02_a_later_task_triggers_what_an_earlier_one_was_given_and_a_thousand_wait() {
    let mut supervisor = Supervisor::start();
    let mut client = supervisor.client();
    let signal = Signal::new(&mut client, "all").unwrap();
    client.call(Call::new("a", "keep", payload(&(signal,)))).unwrap();
    let tickets: Vec<_> = (0..1000).map(|_| client.wait_for_signal(signal.id(), None).unwrap()).collect();
    let last = *tickets.last().unwrap();
    assert!(matches!(client.receipt(last).unwrap(), ReceiptBody::Waiting {}));
    let shown = supervisor.cli(&["signal", "show", &signal.to_string(), "--json"]).ok().json();
    assert_eq!(shown["waiters"], 1000);
    // Some go away.
    let mut other = supervisor.client();
    let ticket = other.wait_for_signal(signal.id(), None).unwrap();
    assert!(matches!(other.receipt(ticket).unwrap(), ReceiptBody::Waiting {}));
    drop(other);
    assert_eq!(supervisor.call(&["a", "trigger_kept"]), true);
    for ticket in tickets {
        assert!(matches!(client.outcome(ticket).unwrap(), OutcomeBody::Triggered { .. }));
    }
    drop(client);
    // A trigger after everybody left.
    supervisor.until("it is freed", |this| count(this) == 0);
    supervisor.cli(&["call", "a", "trigger_kept", "--wait"]).fails(1, &["no such signal"]);
}

#[test]
fn s01_json_lines_say_it_in_words() {
    let supervisor = Supervisor::start();
    let mut raw = supervisor.raw();
    let mut lines = BufReader::new(raw.try_clone().unwrap()).lines();
    let mut ask = |request: Value| -> Value {
        raw.write_all(format!("{request}\n").as_bytes()).unwrap();
        serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap()
    };
    let made = ask(json!({"signal_new": {"ref": 1, "description": "d"}}));
    let id = made["receipt"]["signal"]["id"].as_str().unwrap().to_string();
    let set = ask(json!({"signal_set": {"ref": 2, "signal": id, "key": "k", "value": {"$bytes": "AAE="}}}));
    assert_eq!(set, json!({"receipt": {"ref": 2, "signalled": {"first": true}}}));
    assert_eq!(
        ask(json!({"signal_set": {"ref": 2, "signal": "x", "key": "k", "value": 1}}))["error"]["ref"],
        2,
        "what is no id is an error"
    );
    let triggered = ask(json!({"signal_trigger": {"ref": 3, "signal": id}}));
    assert_eq!(triggered, json!({"receipt": {"ref": 3, "signalled": {"first": true}}}));
    let again = ask(json!({"signal_set": {"ref": 4, "signal": id, "key": "k"}}));
    assert_eq!(again, json!({"receipt": {"ref": 4, "ignored": {"reason": "already_triggered"}}}));
    assert_eq!(ask(json!({"signal_wait": {"ref": 5, "signal": id}})), json!({"receipt": {"ref": 5, "waiting": {}}}));
    let outcome: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(outcome, json!({"outcome": {"ref": 5, "triggered": {"values": {"k": {"$bytes": "AAE="}}}}}));
    let mut ask = |request: Value| -> Value {
        raw.write_all(format!("{request}\n").as_bytes()).unwrap();
        serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap()
    };
    let report = ask(json!({"signal_get": {"ref": 6, "signal": id}}));
    assert_eq!(report["receipt"]["report"]["values"], json!({"k": {"$bytes": "AAE="}}));
    assert_eq!(report["receipt"]["report"]["description"], "d");
    let freed = ask(json!({"signal_free": {"ref": 7, "signal": id}}));
    assert_eq!(freed["receipt"]["signalled"]["first"], true);
    let gone = ask(json!({"signal_trigger": {"ref": 8, "signal": id}}));
    assert_eq!(gone, json!({"receipt": {"ref": 8, "ignored": {"reason": "no_signal"}}}));
}

#[test]
fn s01_one_sender_has_only_so_many_and_a_value_that_is_none_changes_nothing() {
    let supervisor = Supervisor::with_config(&format!("{ANY_NAME}[supervisor]\nsender_signals = 2\n"));
    let mut client = supervisor.client();
    let first = Signal::new(&mut client, "").unwrap();
    Signal::new(&mut client, "").unwrap();
    match Signal::new(&mut client, "") {
        Err(SignalError::Refused { detail, .. }) => assert!(detail.contains("`sender_signals`"), "{detail}"),
        other => panic!("{other:?}"),
    }
    supervisor.cli(&["signal", "new"]).fails(3, &["mailbox_full", "`sender_signals`"]);
    let senders = &supervisor.cli(&["status", "--json"]).ok().json()["senders"];
    assert_eq!((&senders[0]["signals"], &senders[0]["messages"]), (&json!(2), &json!(0)), "{senders}");
    let shown = supervisor.cli(&["status"]).ok().out;
    assert!(shown.contains(", 2 of 2 signals"), "{shown}");
    first.free(&mut client).unwrap();
    let kept = Signal::new(&mut client, "").unwrap();
    let broken = client.set_signal(kept.id(), "k", Payload(vec![0x92, 1].into()));
    assert!(broken.unwrap_err().to_string().contains("cannot be read"));
    let large = kept.set(&mut client, "k", &"x".repeat(100_000)).unwrap_err().to_string();
    assert!(large.contains("65536 bytes"), "{large}");
    supervisor.cli(&["signal", "new", "--keep", "25h"]).fails(1, &["a day"]);
    kept.trigger(&mut client).unwrap();
    assert!(kept.wait(&mut client, None).unwrap());
}

#[test]
fn s04_signals_and_who_waits_for_them_go_on_over_an_upgrade() {
    let mut supervisor = Supervisor::start();
    let mut client = supervisor.client();
    let signal = Signal::new(&mut client, "over the upgrade").unwrap();
    signal.set(&mut client, "k", &7).unwrap();
    client.call(Call::new("a", "keep", payload(&(signal,)))).unwrap();
    assert_eq!(supervisor.call(&["a", "count"]), 1);
    let waiting = client.wait_for_signal(signal.id(), None).unwrap();
    assert!(matches!(client.receipt(waiting).unwrap(), ReceiptBody::Waiting {}));
    let late = client.wait_for_signal(signal.id(), Some(Duration::from_millis(700))).unwrap();
    supervisor.cli(&["upgrade"]).ok();
    assert!(matches!(client.outcome(late).unwrap(), OutcomeBody::TimedOut {}));
    assert_eq!(supervisor.call(&["a", "trigger_kept"]), true);
    let OutcomeBody::Triggered { values } = client.outcome(waiting).unwrap() else { panic!() };
    assert_eq!(values.to_json().unwrap(), json!({"k": 7}));
    drop(client);
    supervisor.until("it is freed", |this| count(this) == 0);
}

// ---- cancel --------------------------------------------------------------------------------------

/// The number of a message that was posted.
fn posted(supervisor: &Supervisor, args: &[&str]) -> String {
    let receipt = supervisor.cli(&[&["call", "--json"], args].concat()).ok().json();
    receipt["accepted"]["message"].to_string()
}

#[test]
fn a_message_that_is_cancelled_is_discarded_and_a_task_is_told() {
    let mut supervisor = Supervisor::start();
    let begun = supervisor.path("begun");
    let running = posted(&supervisor, &["a", "until_cancelled", text(&begun)]);
    supervisor.until_lines("begun", 1);
    let waiting = supervisor.start_cli(&["call", "a", "count", "--wait"]);
    supervisor.until("it waits", |this| this.ps("a")["pending"] == 1);
    let number = running.parse::<u64>().unwrap() + 1;
    // It was sent ahead: its process is told, and does not begin it.
    let told = supervisor.cli(&["cancel", &number.to_string(), "--json"]).ok().json();
    assert_eq!(told, json!({"cancelled": {"running": true}}));
    let later = posted(&supervisor, &["a", "count", "--in", "1h"]);
    supervisor.cli(&["cancel", &later]).ok();
    assert_eq!((supervisor.ledger("discarded"), supervisor.ledger("running")), (1, 1));
    assert!(supervisor.cli(&["cancel", &running]).ok().out.contains("was told"));
    supervisor.until("it ends", |this| this.ledger("running") == 0);
    waiting.end().fails(6, &["discarded", "has not run"]);
    assert_eq!((supervisor.ledger("done"), supervisor.ledger("discarded")), (1, 2), "it is settled as ever");
    supervisor.cli(&["cancel", &running]).fails(1, &["nothing to cancel"]);
    assert_eq!(supervisor.call(&["a", "is_cancelled"]), false, "the next one is wanted");
}

#[test]
fn a_task_that_was_sent_ahead_and_is_cancelled_is_not_begun_though_nobody_has_looked() {
    let mut supervisor = Supervisor::start();
    supervisor.block("a");
    let waiting = supervisor.start_cli(&["call", "a", "count", "--wait"]);
    supervisor.until("it waits", |this| this.ps("a")["pending"] == 1);
    let number = supervisor.ledger("accepted").to_string();
    let told = supervisor.cli(&["cancel", &number, "--json"]).ok().json();
    assert_eq!(told, json!({"cancelled": {"running": true}}));
    supervisor.let_go();
    waiting.end().fails(6, &["discarded", "has not run"]);
    assert_eq!(supervisor.call(&["a", "count"]), 1);
}

#[test]
fn a_message_that_waits_in_the_mailbox_and_is_cancelled_is_discarded_at_once() {
    let mut supervisor = Supervisor::with_config(ONE_AT_A_TIME);
    supervisor.block("a");
    let waiting = supervisor.start_cli(&["call", "a", "count", "--wait"]);
    supervisor.until("it waits", |this| this.ps("a")["pending"] == 1);
    let number = supervisor.ledger("accepted").to_string();
    let discarded = supervisor.cli(&["cancel", &number, "--json"]).ok().json();
    assert_eq!(discarded, json!({"cancelled": {"running": false}}));
    waiting.end().fails(6, &["discarded", "has not run"]);
    supervisor.let_go();
}

#[test]
fn who_may_not_kill_cancels_only_what_he_has_posted() {
    if !is_root() {
        return println!("skipped: needs root to be another user");
    }
    let mut supervisor = Supervisor::with_config(&format!(
        "{ONE_AT_A_TIME}[supervisor]\nsocket_mode = '0666'\nkill = {{ users = ['root'] }}\n"
    ));
    supervisor.open_to_others();
    supervisor.block("a");
    let ours = posted(&supervisor, &["a", "count"]);
    let refused = supervisor.cli_of(1, 1, &["cancel", &ours]);
    refused.fails(3, &["not_permitted", "posted by another"]);
    let theirs = supervisor.cli_of(1, 1, &["call", "a", "count", "--json"]).ok().json();
    supervisor.cli_of(1, 1, &["cancel", &theirs["accepted"]["message"].to_string()]).ok();
    assert_eq!(supervisor.ledger("discarded"), 1);
    supervisor.let_go();
}
