//! Calls: what may be posted, in which order it is executed (rules C1–C13).

use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use workhall_protocol::Client;
use workhall_protocol::args::Payload;
use workhall_protocol::messages::{Call, ReceiptBody};
use workhall_protocol::terms::{Ignored, Refusal};
use workhall_tests::harness::{Supervisor, lines, until};

/// A program that never says that it is ready; its end is quick.
const SILENT: &str = "class.silent = { exec = ['sleep', '1000'], exit_grace = '10ms', term_grace = '10ms' }\n";

fn post(client: &mut Client<UnixStream>, worker: &str, method: &str, args: Value) -> ReceiptBody<'static> {
    client.call(Call::new(worker, method, Payload::from_json(&args).unwrap())).unwrap()
}

fn why_ignored(supervisor: &Supervisor, args: &[&str]) -> Value {
    supervisor.cli(&[&["call", "--json"], args].concat()).ok().json()["ignored"]["reason"].clone()
}

#[test]
fn c01_a_call_returns_before_it_is_executed_and_before_there_is_a_process() {
    let mut supervisor = Supervisor::with_config(&format!("{SILENT}class.a.exec = ['{{bin}}/test-worker']"));
    let receipt = supervisor.cli(&["call", "silent", "anything", "--json"]).ok().json();
    assert_eq!(receipt, json!({"accepted": {"worker": "silent", "number": 2, "message": 1}}));
    let row = supervisor.ps("silent");
    assert_eq!((&row["state"], &row["pending"]), (&"starting".into(), &1.into()));
    let held = supervisor.hold("a");
    supervisor.cli(&["call", "a", "count"]).ok();
    assert_eq!(supervisor.ps("a")["pending"], 1, "posted behind a task that is held");
    held.release();
}

#[test]
fn c02_a_call_starts_the_process_which_executes_it() {
    let supervisor = Supervisor::start();
    assert!(supervisor.ps("a").is_null());
    supervisor.cli(&["call", "a", "count"]).ok();
    assert_eq!(supervisor.call(&["a", "count"]), 2);
    assert_eq!(supervisor.ps("a")["state"], "idle");
    assert_eq!(supervisor.status()["ledger"]["done"], 2);
}

#[test]
fn c03_one_message_at_a_time() {
    let mut supervisor = Supervisor::start();
    let first = supervisor.hold("a");
    let second = supervisor.post_hold("a");
    let row = supervisor.ps("a");
    assert_eq!((&row["state"], &row["pending"], &row["running"]["message"]), (&"busy".into(), &1.into(), &1.into()));
    assert!(!second.has_begun());
    first.release();
    supervisor.until("the second begins", |_| second.has_begun());
    assert!(first.has_ended());
    second.release();
}

#[test]
fn c03_each_sender_keeps_its_order_among_many() {
    const SENDERS: usize = 4;
    const MESSAGES: usize = 250;
    let supervisor = Supervisor::start();
    let file = supervisor.path("order");
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (supervisor, file) = (&supervisor, &file);
            scope.spawn(move || {
                let mut client = supervisor.client();
                for number in 0..MESSAGES {
                    let args = Payload::encode(&(file, format!("{sender} {number}"))).unwrap();
                    client.submit(Call::new("a", "log", args)).unwrap();
                }
                // Its receipt comes behind those of all that were submitted.
                client.status().unwrap();
            });
        }
    });
    supervisor.cli(&["wait", "a", "--idle"]).ok();
    let lines = lines(&file);
    assert_eq!(lines.len(), SENDERS * MESSAGES);
    for sender in 0..SENDERS {
        let own = lines.iter().filter_map(|line| line.strip_prefix(&format!("{sender} ")));
        assert!(own.eq((0..MESSAGES).map(|number| number.to_string())), "the order of sender {sender}");
    }
}

#[test]
fn c03_a_worker_that_sends_keeps_its_order_too() {
    let supervisor = Supervisor::start();
    let file = supervisor.path("order");
    let file = file.to_str().unwrap();
    for line in ["1", "2", "3"] {
        supervisor.cli(&["call", "b", "call", "a", "log", &json!([file, line]).to_string()]).ok();
    }
    supervisor.cli(&["wait", "b", "--idle"]).ok();
    supervisor.cli(&["wait", "a", "--idle"]).ok();
    assert_eq!(lines(file.as_ref()), ["1", "2", "3"]);
}

#[test]
fn c03_workers_run_in_parallel() {
    let mut supervisor = Supervisor::start();
    let held = ["a", "b", "a/1"].map(|name| supervisor.hold(name));
    assert_eq!(supervisor.status()["ledger"]["running"], 3, "all have begun, none has ended");
    held.iter().for_each(|held| held.release());
    for name in ["a", "b", "a/1"] {
        supervisor.cli(&["wait", name, "--idle"]).ok();
    }
    assert!(held.iter().all(|held| held.has_ended()));
}

#[test]
fn c04_a_call_returns_a_receipt_and_no_value() {
    let supervisor = Supervisor::start();
    let called = supervisor.cli(&["call", "a", "echo", "1"]).ok();
    assert_eq!((&*called.out, &*called.err), ("", ""));
    let receipt = supervisor.cli(&["call", "a", "echo", "--json"]).ok().json();
    assert_eq!(receipt, json!({"accepted": {"worker": "a", "number": 2, "message": 2}}));
    assert_eq!(supervisor.call(&["b", "call", "a", "echo", "[1]"]), "accepted by a", "for a worker it is the same");
}

#[test]
fn c04_every_refusal_has_its_reason_and_creates_nothing() {
    let mut supervisor = Supervisor::with_config(
        "supervisor.message_bytes = '1KiB'
         class.a = { exec = ['{bin}/test-worker'], mailbox = { messages = 2 } }",
    );
    let mut client = supervisor.client();
    let long = "x".repeat(256);
    for (worker, method, args, expected) in [
        ("unknown", "m", json!([]), Refusal::NoClass),
        ("", "m", json!([]), Refusal::BadName),
        ("a\n", "m", json!([]), Refusal::BadName),
        (&*long, "m", json!([]), Refusal::BadName),
        ("a", "m", json!(["x".repeat(2000)]), Refusal::TooLarge),
        ("a", &*long, json!([]), Refusal::TooLarge),
    ] {
        let receipt = post(&mut client, worker, method, args);
        assert!(
            matches!(&receipt, ReceiptBody::Refused { reason, detail } if *reason == expected && !detail.is_empty()),
            "{receipt:?}"
        );
    }
    assert_eq!(supervisor.status()["counts"]["workers"], 0);
    let held = supervisor.hold("a");
    assert!(matches!(post(&mut client, "a", "count", json!([])), ReceiptBody::Accepted(_)));
    assert!(
        matches!(post(&mut client, "a", "count", json!([])), ReceiptBody::Accepted(_)),
        "the running one does not wait"
    );
    let full = post(&mut client, "a", "count", json!([]));
    assert!(matches!(&full, ReceiptBody::Refused { reason: Refusal::MailboxFull, .. }), "{full:?}");
    supervisor.signal(Signal::SIGTERM);
    let mut last = None;
    until("the supervisor refuses because it stops", || {
        last = Some(post(&mut client, "a", "count", json!([])));
        matches!(last, Some(ReceiptBody::Refused { reason: Refusal::ShuttingDown, .. }))
    });
    held.release();
    assert!(supervisor.ended().success());
}

#[test]
fn c05_an_empty_method_is_the_method_of_the_call_that_created_the_worker() {
    let supervisor = Supervisor::start();
    assert_eq!(supervisor.call(&["a", "echo", "1"]), json!([1]));
    supervisor.call(&["a", "count"]);
    assert_eq!(supervisor.call(&["a", "", "2", "x"]), json!([2, "x"]), "with the arguments of the new call");
    assert_eq!(supervisor.call(&["a"]), json!([]), "left out is empty");
    supervisor.cli(&["call", "a", "die", "--wait"]).fails(6, &["crashed"]);
    assert_eq!(supervisor.call(&["a", "", "3"]), json!([3]), "it survives a crash");
    supervisor.cli(&["kill", "a", "--wait"]).ok();
    assert_eq!(why_ignored(&supervisor, &["a", "", "4"]), "no_startup_method", "it ends with the worker");
    supervisor.call(&["a", "count"]);
    assert_eq!(supervisor.call(&["a"]), 2, "the new worker's is the new call's");
}

#[test]
fn c05_a_class_may_set_the_startup_method() {
    let supervisor = Supervisor::with_config("class.a = { exec = ['{bin}/test-worker'], startup_method = 'count' }");
    assert_eq!(supervisor.call(&["a"]), 1, "it creates the worker");
    supervisor.cli(&["kill", "a", "--wait"]).ok();
    supervisor.call(&["a", "echo", "first"]);
    assert_eq!(supervisor.call(&["a"]), 1, "it goes before the method of the first call");
}

#[test]
fn c06_an_empty_method_without_a_startup_method_does_nothing_and_creates_nothing() {
    let mut supervisor = Supervisor::with_config(
        "class.main = { exec = ['{bin}/test-worker'], main = true }\nclass.a.exec = ['{bin}/test-worker']",
    );
    assert_eq!(why_ignored(&supervisor, &["a"]), "no_startup_method");
    assert_eq!(why_ignored(&supervisor, &["a", "", "1", "--wait"]), "no_startup_method", "and nobody waits");
    assert!(supervisor.ps("a").is_null());
    supervisor.until("the main worker is ready", |this| this.ps("main")["state"] == "idle");
    supervisor.call(&["main", "count"]);
    assert_eq!(why_ignored(&supervisor, &["main"]), "no_startup_method", "no call created it");
    assert_eq!(supervisor.call(&["main", "count"]), 2);
    assert_eq!(supervisor.status()["ignored"], 3);
}

#[test]
fn c07_a_call_by_name_creates_the_worker_that_there_is_not() {
    let supervisor = Supervisor::start();
    for (name, number) in [("a", 2), ("b", 3), ("a/x", 4)] {
        assert_eq!(supervisor.call(&[name, "who"]), json!([name, number, 1]));
    }
    // From a worker it is the same.
    assert_eq!(supervisor.call(&["a", "call", "b/y", "count", "[]"]), "accepted by b/y");
    assert_eq!(supervisor.ps("b/y")["number"], 5);
}

#[test]
fn c08_a_call_by_a_number_that_names_nobody_does_nothing() {
    let supervisor = Supervisor::start();
    supervisor.call(&["a", "count"]);
    for number in ["%0", "%1", "%3", "%18446744073709551615"] {
        let ignored = supervisor.cli(&["call", number, "count"]).ok();
        assert_eq!((&*ignored.out, &*ignored.err), ("", ""), "and that is no error");
        assert_eq!(why_ignored(&supervisor, &[number, "count"]), "no_worker");
        assert_eq!(why_ignored(&supervisor, &[number, "count", "--wait"]), "no_worker");
    }
    assert_eq!(supervisor.call(&["a", "call_number", "99", "count"]), "ignored: NoWorker");
    assert_eq!(supervisor.status()["counts"]["workers"], 1);
}

#[test]
fn c09_arguments_are_copied_when_the_call_is_made() {
    let mut supervisor = Supervisor::start();
    let file = supervisor.path("seen");
    let held = supervisor.hold("a");
    let mut client = supervisor.client();
    let mut own = (file.clone(), "before".to_string());
    let ticket = client.submit(Call::new("a", "log", Payload::encode(&own).unwrap())).unwrap();
    own.1.replace_range(.., "after!");
    assert!(matches!(client.receipt(ticket), Ok(ReceiptBody::Accepted(_))));
    // And a file that the arguments were read from.
    let args = supervisor.path("args.json");
    std::fs::write(&args, json!([file, "before"]).to_string()).unwrap();
    let mut call = supervisor.command(&["call", "a", "log", "--args", "-"]);
    workhall_tests::harness::output(call.stdin(std::fs::File::open(&args).unwrap())).ok();
    std::fs::write(&args, json!([file, "after"]).to_string()).unwrap();
    held.release();
    supervisor.cli(&["wait", "a", "--idle"]).ok();
    assert_eq!(lines(&file), ["before", "before"]);
}

#[test]
fn c10_a_call_to_oneself_queues_behind_what_waits_already() {
    let mut supervisor = Supervisor::start();
    let file = supervisor.path("order");
    let line = |line: &str| json!([file, line]).to_string();
    let held = supervisor.hold("a");
    supervisor.cli(&["call", "a", "call", "a", "log", &line("its own")]).ok();
    supervisor.cli(&["call", "a", "log", "--args", &line("from outside")]).ok();
    held.release();
    supervisor.until("both were executed", |_| lines(&file).len() == 2);
    assert_eq!(lines(&file), ["from outside", "its own"]);
    // By its number too.
    assert_eq!(supervisor.call(&["a", "call_number", "2", "count"]), "accepted by a");
    assert_eq!(supervisor.call(&["a", "count"]), 2);
}

#[test]
fn c11_a_task_carries_its_senders_name_and_number_and_can_be_answered() {
    let mut supervisor = Supervisor::start();
    let file = supervisor.path("answer");
    supervisor.call(&["a", "count"]);
    supervisor.call(&["b", "count"]);
    // `a` asks `b`, and `b` answers by calling whoever asked.
    let answer = json!(["log", [file, "answered"]]).to_string();
    supervisor.call(&["a", "call", "b", "reply", &answer]);
    supervisor.until("the answer has come", |_| lines(&file) == ["answered"]);
    // A JSON worker sees the same, and null for a client.
    let asked = supervisor.call(&["a", "call", "b", "sender_to", &json!([file]).to_string()]);
    assert_eq!(asked, "accepted by b");
    supervisor.call(&["b", "sender_to", file.to_str().unwrap()]);
    assert_eq!(lines(&file)[1..], ["a %2", "nobody"]);
    // The answer goes by number: a successor that has asked nothing does not get it.
    let held = supervisor.hold("b");
    supervisor.call(&["a", "call", "b", "reply", &answer]);
    supervisor.cli(&["kill", "a", "--wait"]).ok();
    assert_eq!(supervisor.call(&["a", "who"])[1], 4);
    held.release();
    supervisor.cli(&["wait", "b", "--idle"]).ok();
    supervisor.cli(&["wait", "a", "--idle"]).ok();
    assert_eq!(lines(&file).len(), 3);
}

#[test]
fn c12_with_existing_only_a_worker_that_is_there_is_called() {
    let mut supervisor = Supervisor::start();
    assert_eq!(why_ignored(&supervisor, &["a", "count", "--existing"]), "no_worker");
    assert_eq!(why_ignored(&supervisor, &["a", "count", "--existing", "--wait"]), "no_worker");
    // A name without a class is not there either: that is no refusal.
    assert_eq!(why_ignored(&supervisor, &["nothing", "count", "--existing"]), "no_worker");
    assert_eq!(supervisor.status()["counts"]["workers"], 0);
    supervisor.call(&["a", "count"]);
    assert_eq!(supervisor.call(&["a", "count", "--existing"]), 2);
    // Without its process it is there; killed it is not, though its process still lives.
    supervisor.cli(&["call", "a", "die", "--wait"]).fails(6, &["crashed"]);
    assert_eq!(supervisor.call(&["a", "count", "--existing"]), 1);
    let held = supervisor.hold("a");
    supervisor.cli(&["kill", "a"]).ok();
    assert_eq!(why_ignored(&supervisor, &["a", "count", "--existing"]), "no_worker");
    held.release();
    supervisor.cli(&["wait", "a", "--gone"]).ok();
    assert!(supervisor.ps("a").is_null());
    let mut client = supervisor.client();
    let call = Call { existing: true, ..Call::new("a", "count", Payload::no_args()) };
    assert_eq!(client.call(call).unwrap(), ReceiptBody::Ignored { reason: Ignored::NoWorker });
}

#[test]
fn c13_what_was_not_begun_in_time_expires_and_is_never_executed() {
    let mut supervisor = Supervisor::start();
    let file = supervisor.path("executed");
    let file = file.to_str().unwrap();
    let held = supervisor.hold("a");
    let expired = supervisor.cli(&["call", "a", "log", file, "late", "--expires", "20ms", "--wait", "--json"]);
    assert_eq!(expired.json(), json!({"expired": {"may_have_run": false}}));
    expired.fails(6, &["expired", "has not run"]);
    supervisor.cli(&["call", "a", "log", file, "in time", "--expires", "1h"]).ok();
    supervisor.cli(&["call", "a", "log", file, "at once", "--expires", "0s"]).ok();
    supervisor.cli(&["call", "a", "log", file, "for ever"]).ok();
    held.release();
    supervisor.cli(&["wait", "a", "--idle"]).ok();
    assert_eq!(lines(file.as_ref()), ["in time", "for ever"]);
    let ledger = &supervisor.status()["ledger"];
    assert_eq!((&ledger["expired"], &ledger["done"]), (&2.into(), &3.into()));
}

#[test]
fn c13_a_message_expires_while_its_process_does_not_get_ready() {
    let supervisor = Supervisor::with_config(SILENT);
    let expired = supervisor.cli(&["call", "silent", "m", "--expires", "30ms", "--wait"]);
    expired.fails(6, &["expired"]);
    let row = supervisor.ps("silent");
    assert_eq!((&row["state"], &row["pending"]), (&"starting".into(), &0.into()));
}
