//! What may wait, and for whom: at the limit a call is refused with the reason, for that sender alone, and what was
//! refused had no effect (rule C4).

use serde_json::{Value, json};
use workhall_protocol::messages::{Call, OutcomeBody, ReceiptBody, Refusal};
use workhall_tests::harness::{Supervisor, output_of, payload};

fn supervisor(limits: &str) -> Supervisor {
    Supervisor::with_config(&format!(
        "[supervisor]\n{limits}\n[class.any]\nexec = ['{{bin}}/test-worker']\nnames = ['**']\n"
    ))
}

fn full(receipt: &ReceiptBody<'_>, key: &str) -> bool {
    matches!(receipt, ReceiptBody::Refused { reason: Refusal::MailboxFull, detail } if detail.contains(key))
}

/// All that waits or runs, by sender.
fn charged(supervisor: &Supervisor) -> Vec<(bool, u64)> {
    let status = supervisor.status();
    let senders = status["senders"].as_array().unwrap();
    senders.iter().map(|s| (!s["worker"].is_null(), s["messages"].as_u64().unwrap())).collect()
}

#[test]
fn c04_a_sender_who_has_too_many_messages_waiting_is_refused_and_others_are_not() {
    let mut supervisor = supervisor("sender_messages = 5");
    let held = supervisor.hold("a");
    let mut client = supervisor.client();
    // One runs; with four more the account is full, whichever workers they are for.
    for worker in ["a", "b", "c", "d"] {
        let call = Call::new(worker, "count", payload(&()));
        let call = if worker == "a" { call } else { Call { in_ms: Some(3_600_000), ..call } };
        assert!(matches!(client.call(call).unwrap(), ReceiptBody::Accepted(_)), "{worker}");
    }
    assert_eq!(charged(&supervisor), [(false, 5)]);
    let before = supervisor.status();
    for worker in ["a", "new"] {
        let receipt = client.call(Call::new(worker, "count", payload(&()))).unwrap();
        assert!(full(&receipt, "sender_messages"), "{receipt:?}");
        // Another connection of the same user is the same sender.
        supervisor.cli(&["call", worker, "count"]).fails(3, &["mailbox_full", "sender_messages"]);
    }
    let after = supervisor.status();
    assert_eq!(before["ledger"], after["ledger"]);
    assert_eq!(supervisor.ps("new"), Value::Null, "what was refused created nothing");
    assert_eq!(after["refused"].as_u64().unwrap(), before["refused"].as_u64().unwrap() + 4);
    // A worker has an account of its own: it goes on while the clients are stopped.
    held.release();
    supervisor.until("the two have run", |this| charged(this) == [(false, 3)]);
    supervisor.cli(&["call", "e", "call_in", "3600000", "f", "count", "[]"]).ok();
    supervisor.until("the worker has called", |this| charged(this).contains(&(true, 1)));
    for worker in ["b", "c", "d", "f"] {
        supervisor.kill(&[worker]);
    }
    assert_eq!(charged(&supervisor), [], "all is paid back");
    assert_eq!(supervisor.call(&["new", "count"]), 1);
}

#[test]
fn c04_workers_are_charged_apart_from_clients() {
    let mut supervisor = supervisor("sender_messages = 3");
    // The worker is given its task first; then the clients use up what they have.
    let (begun, go) = (supervisor.path("begun"), supervisor.path("go"));
    let paths = [begun.to_str().unwrap(), go.to_str().unwrap()];
    supervisor.cli(&["call", "a", "block_then_call_self", paths[0], paths[1]]).ok();
    supervisor.until_lines("begun", 1);
    let mut client = supervisor.client();
    for _ in 0..2 {
        let call = Call { in_ms: Some(3_600_000), ..Call::new("b", "count", payload(&())) };
        assert!(matches!(client.call(call).unwrap(), ReceiptBody::Accepted(_)));
    }
    assert!(full(&client.call(Call::new("b", "count", payload(&()))).unwrap(), "sender_messages"));
    supervisor.file("go", "");
    supervisor.until_lines("begun", 2);
    assert_eq!(supervisor.lines("begun")[1], "accepted by a; accepted by a");
    supervisor.until("they are done", |this| charged(this) == [(false, 2)]);
}

#[test]
fn c04_the_bytes_of_one_sender_are_bounded() {
    let mut supervisor = supervisor("sender_bytes = 10000");
    let held = supervisor.hold("a");
    let mut client = supervisor.client();
    let mut accepted = 0;
    let refused = loop {
        let receipt = client.call(Call::new("a", "echo", payload(&("x".repeat(1000),)))).unwrap();
        if !matches!(receipt, ReceiptBody::Accepted(_)) {
            break receipt;
        }
        accepted += 1;
    };
    assert!(full(&refused, "sender_bytes"), "{refused:?}");
    assert_eq!(accepted, 9, "each counts its method, its arguments and 64 bytes");
    // A smaller one still fits; one that can never fit is told so.
    assert!(matches!(client.call(Call::new("a", "count", payload(&()))).unwrap(), ReceiptBody::Accepted(_)));
    let never = client.call(Call::new("a", "echo", payload(&("x".repeat(10_000),)))).unwrap();
    assert!(matches!(&never, ReceiptBody::Refused { reason: Refusal::TooLarge, .. }), "{never:?}");
    let status = supervisor.status();
    let sender = &status["senders"][0];
    assert_eq!(sender["bytes"], status["limits"]["total_bytes_used"]);
    assert!(sender["bytes"].as_u64().unwrap() <= 10_000, "{sender}");
    held.release();
    supervisor.until("all is paid back", |this| charged(this).is_empty());
    assert_eq!((supervisor.status()["limits"]["total_bytes_used"].clone(), supervisor.ledger("done")), (json!(0), 11));
}

#[test]
fn c04_the_messages_of_all_are_bounded() {
    let mut supervisor = supervisor("total_messages = 4");
    let held = supervisor.hold("a");
    let mut client = supervisor.client();
    for _ in 0..3 {
        assert!(matches!(client.call(Call::new("a", "count", payload(&()))).unwrap(), ReceiptBody::Accepted(_)));
    }
    for worker in ["a", "new"] {
        let receipt = client.call(Call::new(worker, "count", payload(&()))).unwrap();
        assert!(full(&receipt, "total_messages"), "{receipt:?}");
    }
    assert_eq!((supervisor.ledger("accepted"), supervisor.ps("new")), (4, Value::Null));
    let limits = supervisor.status()["limits"].clone();
    assert_eq!((&limits["total_messages_used"], &limits["total_messages"]), (&json!(4), &json!(4)));
    let shown = supervisor.cli(&["status"]).ok().out;
    assert!(shown.contains("4 of 4 wait or run"), "{shown}");
    held.release();
    supervisor.until("all have run", |this| charged(this).is_empty());
    assert_eq!(supervisor.call(&["a", "count"]), 4, "once there is room");
}

#[test]
fn c04_processes_are_bounded_and_a_place_that_is_free_is_given_to_who_waits_for_it() {
    let mut supervisor = supervisor("max_processes = 2");
    supervisor.call(&["a", "count"]);
    supervisor.call(&["b", "count"]);
    let before = supervisor.status();
    supervisor.cli(&["call", "c", "count"]).fails(3, &["mailbox_full", "max_processes"]);
    let after = supervisor.status();
    assert_eq!((&before["ledger"], supervisor.ps("c")), (&after["ledger"], Value::Null));
    assert_eq!((&after["limits"]["processes_used"], &after["limits"]["processes"]), (&json!(2), &json!(2)));
    assert_eq!(supervisor.call(&["a", "count"]), 2, "who has a process is served");
    // What was posted for later waits for a place at its time.
    let mut client = supervisor.client();
    let later = Call { in_ms: Some(1), wait: true, ..Call::new("c", "count", payload(&())) };
    let later = client.submit(later).unwrap();
    client.receipt(later).unwrap();
    supervisor.until("it queues", |this| this.cli(&["info", "c", "--json"]).ok().json()["queued"] == true);
    assert_eq!(supervisor.ps("c")["pid"], Value::Null);
    assert_eq!(supervisor.status()["limits"]["processes_queued"], 1);
    assert!(supervisor.cli(&["info", "c"]).ok().out.contains("no place is free"));
    supervisor.kill(&["b"]);
    assert!(matches!(client.outcome(later).unwrap(), OutcomeBody::Done { .. }));
    // A crashed worker keeps its place until it has what it is to execute.
    supervisor.cli(&["call", "a", "die"]).ok();
    supervisor.cli(&["call", "a", "count"]).ok();
    supervisor.until("it has run again", |this| this.ps("a")["executed"] == 3);
    supervisor.cli(&["call", "b", "count"]).fails(3, &["max_processes"]);
    supervisor.cli(&["call", "a", "die"]).ok();
    supervisor.until("its place is free", |this| this.ledger("dead") == 2 && this.ps("a")["state"] == "absent");
    assert_eq!(supervisor.call(&["b", "count"]), 1);
}

#[test]
fn c04_who_posts_many_lines_waits_for_room_of_his_own_account_too() {
    let mut supervisor = supervisor("sender_messages = 20");
    let file = supervisor.path("lines");
    let lines: Vec<String> = (0..300).map(|line| line.to_string()).collect();
    let stdin: String = lines.iter().map(|line| format!("{}\n", json!([file, line]))).collect();
    output_of(&mut supervisor.command(&["call", "a", "log", "--lines"]), stdin.as_bytes()).ok();
    supervisor.until_lines("lines", 300);
    assert_eq!(supervisor.lines("lines"), lines);
}

#[test]
fn the_places_for_processes_are_no_more_than_the_descriptors_allow() {
    let supervisor = supervisor("max_processes = 100000000");
    let limits = supervisor.status()["limits"].clone();
    let (processes, descriptors) = (limits["processes"].as_u64().unwrap(), limits["descriptors"].as_u64().unwrap());
    assert!(processes * 6 <= descriptors / 2 && processes > 0, "{limits}");
}
