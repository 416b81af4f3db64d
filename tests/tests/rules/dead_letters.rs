//! Dead letters: kept, shown, posted again, dropped (rules D2, L1).

use std::borrow::Cow;
use std::io::{BufRead as _, BufReader, Write as _};

use serde_json::{Value, json};
use workhall_protocol::args::Payload;
use workhall_protocol::client::WhichLetters;
use workhall_protocol::messages::{Call, DeadReason, OutcomeBody, ReceiptBody};
use workhall_tests::harness::{self, Supervisor, numbers, payload, text};

const CONFIG: &str = r#"
    [class.a]
    exec = ["{bin}/test-worker", "64"]
    crash_limit = { crashes = 1000 }
    [class.b]
    exec = ["{bin}/test-worker", "1"]
    [class.small]
    exec = ["{bin}/test-worker", "1"]
    mailbox = { messages = 2 }
"#;

fn letters(supervisor: &Supervisor, args: &[&str]) -> Vec<Value> {
    supervisor.cli(&[&["dead", "list", "--json"], args].concat()).ok().json().as_array().unwrap().clone()
}

/// Posts `die_unless` so many times, with a number each; all of them die, one after the other.
fn bury(supervisor: &Supervisor, worker: &str, lines: std::ops::Range<usize>) {
    let (go, file) = (supervisor.path("go"), supervisor.path("lines"));
    let mut client = supervisor.client();
    for line in lines {
        let call = Call::new(worker, "die_unless", payload(&(&go, &file, line.to_string())));
        let ticket = client.submit(Call { wait: true, ..call }).unwrap();
        // A worker that just died may wait for its next life; this one does not.
        client.receipt(ticket).unwrap();
        client.resume(worker.into()).unwrap();
        assert!(matches!(client.outcome(ticket).unwrap(), OutcomeBody::Dead { .. }));
    }
}

#[test]
fn l01_dead_letters_are_listed_in_the_order_in_which_they_died() {
    let supervisor = Supervisor::with_config(CONFIG);
    assert_eq!(letters(&supervisor, &[]), [Value::Null; 0]);
    bury(&supervisor, "a", 0..2);
    bury(&supervisor, "b", 2..3);
    bury(&supervisor, "a", 3..4);
    let all = letters(&supervisor, &[]);
    let workers: Vec<&Value> = all.iter().map(|letter| &letter["worker"]).collect();
    assert_eq!(workers, ["a", "a", "b", "a"]);
    let first = &all[0];
    let number = supervisor.ps("a")["number"].clone();
    assert_eq!((&first["number"], &first["generation"], &first["method"]), (&number, &json!(1), &json!("die_unless")));
    assert_eq!((&first["reason"], &first["exit"]), (&json!("crashed"), &json!({"signal": 9})));
    assert_eq!((&first["may_have_run"], &all[3]["generation"]), (&json!(true), &json!(3)));
    assert!(first["died_ago_ms"].as_u64() <= first["accepted_ago_ms"].as_u64(), "{first}");
    assert!(first["bytes"].as_u64().unwrap() > 20, "{first}");
    let of_b = letters(&supervisor, &["b"]);
    assert_eq!((of_b.len(), &of_b[0]["message"]), (1, &all[2]["message"]));
    let last: Vec<Value> = letters(&supervisor, &["-n", "2"]).iter().map(|l| l["message"].clone()).collect();
    assert_eq!(last, [all[2]["message"].clone(), all[3]["message"].clone()]);
    assert_eq!(letters(&supervisor, &["nobody"]), [Value::Null; 0]);
    let table = supervisor.cli(&["dead", "list"]).ok().out;
    assert!(table.starts_with("MESSAGE") && table.lines().count() == 5, "{table}");
    assert!(table.contains("crashed, signal 9") && table.contains("maybe"), "{table}");
    // The others are kept apart from them: what a kill discards is no letter.
    supervisor.cli(&["call", "a", "sleep", "100000"]).ok();
    supervisor.cli(&["call", "a", "count"]).ok();
    supervisor.kill(&["a", "--now"]);
    assert_eq!(letters(&supervisor, &[]).len(), 4);
    let status = supervisor.status();
    assert_eq!((&status["dead_letters"]["messages"], &status["dead_letters"]["dropped"]), (&json!(4), &json!(0)));
    supervisor.cli(&["dead", "list", "%2"]).fails(2, &["is a number"]);
    supervisor.cli(&["dead", "list", ""]).fails(3, &["bad_name"]);
}

#[test]
fn l01_a_dead_letter_shows_everything_also_to_a_json_client() {
    let mut supervisor = Supervisor::with_config(CONFIG);
    let bytes = serde_bytes(&[0, 1, 255]);
    let mut client = supervisor.client();
    let call = Call { wait: true, ..Call::new("a", "exit", bytes) };
    // The arguments do not fit: that is a failure and no letter.
    let (_, outcome) = client.call_and_wait(call).unwrap();
    assert!(matches!(outcome, Some(OutcomeBody::Failed { .. })));
    supervisor.cli(&["call", "b", "call", "a", "exit", "[4]"]).ok();
    supervisor.until("it has died", |this| this.ledger("dead") == 1);
    let message = letters(&supervisor, &[])[0]["message"].as_u64().unwrap();
    let ReceiptBody::Letter(letter) = client.dead_show(message).unwrap() else { panic!() };
    assert_eq!((&*letter.worker, &*letter.method, letter.reason), ("a", "exit", DeadReason::Crashed));
    assert_eq!(letter.from.as_ref().map(|from| &*from.worker), Some("b"));
    let shown = supervisor.cli(&["dead", "show", &message.to_string(), "--json"]).ok().json();
    assert_eq!(
        (&shown["args"], &shown["exit"], &shown["from"]["worker"]),
        (&json!([4]), &json!({"code": 4}), &json!("b"))
    );
    let page = supervisor.cli(&["dead", "show", &message.to_string()]).ok().out;
    for part in ["crashed, exit status 4", "it may have run in part", "[4]", "b (%"] {
        assert!(page.contains(part), "{page}");
    }
    supervisor.cli(&["dead", "show", "999"]).fails(1, &["there is no dead letter 999"]);
    // Bytes, which JSON lacks, are translated at the connection of a JSON peer.
    let held = supervisor.hold("b");
    let bytes = serde_bytes(&[0, 1, 255]);
    let call = Call { wait: true, expires_ms: Some(1), ..Call::new("b", "count", bytes) };
    let (receipt, outcome) = client.call_and_wait(call).unwrap();
    assert_eq!(outcome, Some(OutcomeBody::Expired { may_have_run: false }));
    let ReceiptBody::Accepted(accepted) = receipt else { panic!() };
    let mut json = Json::connect(&supervisor);
    let answer = json.ask(&json!({"dead_show": {"ref": 1, "message": accepted.message}}));
    let letter = &answer["receipt"]["letter"];
    assert_eq!((&letter["args"], &letter["from"]), (&json!([{"$bytes": "AAH/"}]), &Value::Null), "{answer}");
    assert_eq!((&letter["reason"], &letter["may_have_run"]), (&json!("expired"), &json!(false)), "{answer}");
    let list = json.ask(&json!({"dead": {"ref": "l", "limit": 1}}));
    let report = &list["receipt"]["report"];
    assert_eq!((&report["matching"], &report["letters"][0]["reason"]), (&json!(2), &json!("expired")), "{list}");
    assert_eq!(
        json.ask(&json!({"dead_show": {"ref": 2, "message": 999}})),
        json!({"receipt": {"ref": 2, "ignored": {"reason": "no_letter"}}})
    );
    held.release();
}

/// A list of one argument, which is bytes.
fn serde_bytes(bytes: &[u8]) -> Payload<'static> {
    let head = [0x91, 0xc4, bytes.len() as u8];
    Payload(Cow::Owned([&head, bytes].concat()))
}

/// A client in JSON lines.
struct Json(BufReader<std::os::unix::net::UnixStream>);

impl Json {
    fn connect(supervisor: &Supervisor) -> Json {
        Json(BufReader::new(supervisor.raw()))
    }

    fn ask(&mut self, message: &Value) -> Value {
        self.0.get_mut().write_all(format!("{message}\n").as_bytes()).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}

#[test]
fn l01_requeued_letters_are_new_messages_in_the_order_in_which_they_died() {
    let mut supervisor = Supervisor::with_config(CONFIG);
    bury(&supervisor, "a", 0..5);
    bury(&supervisor, "b", 5..7);
    let old: Vec<u64> = letters(&supervisor, &["a"]).iter().map(|letter| letter["message"].as_u64().unwrap()).collect();
    supervisor.file("go", "");
    let accepted = supervisor.ledger("accepted");
    let output = supervisor.cli(&["dead", "requeue", "--worker", "a", "--json"]).ok().json();
    assert_eq!(output, json!({"requeued": {"messages": 5, "left": 0}}));
    supervisor.until_lines("lines", 5);
    assert_eq!(supervisor.lines("lines"), numbers(0..5));
    supervisor.until("all are done", |this| this.ledger("done") == 5);
    assert_eq!((supervisor.ledger("accepted"), supervisor.ledger("dead")), (accepted + 5, 7));
    assert_eq!(letters(&supervisor, &["a"]), [Value::Null; 0]);
    // An old number means nothing any more; a name without letters is no mistake.
    supervisor.cli(&["dead", "requeue", &old[0].to_string()]).fails(1, &["there is no dead letter", "0 posted again"]);
    assert_eq!(supervisor.cli(&["dead", "requeue", "--worker", "a"]).ok().out, "0 posted again\n");
    // By message; then all. The worker that is killed is created anew.
    supervisor.kill(&["b"]);
    let message = letters(&supervisor, &["b"])[1]["message"].to_string();
    assert_eq!(supervisor.cli(&["dead", "requeue", &message]).ok().out, "1 posted again\n");
    supervisor.until_lines("lines", 6);
    supervisor.cli(&["dead", "requeue", "--all"]).ok();
    supervisor.until_lines("lines", 7);
    assert_eq!(supervisor.lines("lines")[5..], ["6", "5"]);
    assert_eq!(letters(&supervisor, &[]), [Value::Null; 0]);
}

#[test]
fn l01_a_refused_requeue_leaves_the_rest_where_it_was() {
    let mut supervisor = Supervisor::with_config(CONFIG);
    bury(&supervisor, "small", 0..5);
    let before: Vec<Value> = letters(&supervisor, &[]).iter().map(|letter| letter["message"].clone()).collect();
    let held = supervisor.hold("small");
    let refused = supervisor.status()["refused"].as_u64().unwrap();
    let output = supervisor.cli(&["dead", "requeue", "--worker", "small", "--json"]);
    assert_eq!(output.code, 3, "{output:?}");
    let report = output.json();
    assert_eq!((&report["requeued"]["messages"], &report["requeued"]["left"]), (&json!(2), &json!(3)), "{report}");
    assert_eq!(report["requeued"]["refused"]["reason"], "mailbox_full");
    output.fails(3, &["mailbox_full", "2 posted again, 3 left"]);
    let after: Vec<Value> = letters(&supervisor, &[]).iter().map(|letter| letter["message"].clone()).collect();
    assert_eq!(after, before[2..]);
    assert_eq!(supervisor.status()["refused"].as_u64().unwrap(), refused + 1);
    // Those that were named behind it are not posted either.
    let named: Vec<String> = after.iter().map(ToString::to_string).collect();
    let output = supervisor.cli(&["dead", "requeue", &named[0], &named[1], &named[2]]);
    output.fails(3, &["0 posted again, 3 left"]);
    supervisor.file("go", "");
    held.release();
    supervisor.until_lines("lines", 2);
    supervisor.cli(&["wait", "small", "--idle", "--timeout", "60s"]).ok();
    let output = supervisor.cli(&["dead", "requeue", &named[0], "777", &named[1]]);
    output.fails(1, &["there is no dead letter 777", "2 posted again"]);
    supervisor.until_lines("lines", 4);
    assert_eq!(supervisor.lines("lines"), numbers(0..4));
    assert_eq!(letters(&supervisor, &[]).len(), 1);
}

#[test]
fn an_empty_or_double_selection_never_means_all() {
    let supervisor = Supervisor::with_config(CONFIG);
    bury(&supervisor, "a", 0..2);
    let mut json = Json::connect(&supervisor);
    for kind in ["requeue", "dead_drop"] {
        for fields in [
            json!({"ref": 1}),
            json!({"ref": 1, "all": false}),
            json!({"ref": 1, "message": null, "worker": null}),
            json!({"ref": 1, "message": 1, "all": true}),
            json!({"ref": 1, "message": 1, "worker": "a"}),
            json!({"ref": 1, "worker": "a", "all": true}),
        ] {
            let answer = json.ask(&json!({kind: fields}));
            assert_eq!(answer["error"]["ref"], 1, "{kind} {fields}: {answer}");
            assert!(answer["error"]["detail"].as_str().unwrap().contains("Exactly one"), "{answer}");
        }
    }
    for command in ["requeue", "drop"] {
        supervisor.cli(&["dead", command]).fails(2, &[]);
        supervisor.cli(&["dead", command, "1", "--all"]).fails(2, &[]);
        supervisor.cli(&["dead", command, "--all", "--worker", "a"]).fails(2, &[]);
    }
    assert_eq!((letters(&supervisor, &[]).len(), supervisor.ledger("accepted")), (2, 2));
}

#[test]
fn l01_dropped_letters_are_forgotten_and_the_ledger_stays() {
    let supervisor = Supervisor::with_config(CONFIG);
    bury(&supervisor, "a", 0..3);
    bury(&supervisor, "b", 3..5);
    let message = letters(&supervisor, &["a"])[1]["message"].to_string();
    assert_eq!(supervisor.cli(&["dead", "drop", &message]).ok().out, "1 dropped\n");
    supervisor.cli(&["dead", "drop", &message]).fails(1, &["there is no dead letter"]);
    let dropped = supervisor.cli(&["dead", "drop", "--worker", "a", "--json"]).ok().json();
    assert_eq!(dropped, json!({"dropped": {"messages": 2}}));
    let mut client = supervisor.client();
    assert_eq!(client.dead_drop(WhichLetters::Worker("a")).unwrap(), ReceiptBody::Dropped { messages: 0 });
    assert_eq!(client.dead_drop(WhichLetters::All).unwrap(), ReceiptBody::Dropped { messages: 2 });
    let status = supervisor.status();
    assert_eq!((&status["dead_letters"]["messages"], &status["ledger"]["dead"]), (&json!(0), &json!(5)));
    assert_eq!(status["dead_letters"]["bytes"], 0);
}

#[test]
fn l01_the_store_is_bounded_and_says_what_it_had_to_drop() {
    for bound in ["messages = 3", "bytes = 1000"] {
        let config = format!("supervisor.dead_letters = {{ {bound} }}\n{CONFIG}");
        let supervisor = Supervisor::with_config(&config);
        bury(&supervisor, "a", 0..12);
        let kept = letters(&supervisor, &[]);
        assert!((3..12).contains(&kept.len()), "{bound}: {} letters", kept.len());
        let status = supervisor.status();
        let dead = &status["dead_letters"];
        assert_eq!(dead["messages"], kept.len());
        assert_eq!(dead["dropped"], 12 - kept.len(), "{bound}");
        assert!(dead["bytes"].as_u64().unwrap() <= status["limits"]["dead_bytes"].as_u64().unwrap());
        // Those that died last are kept.
        supervisor.file("go", "");
        supervisor.cli(&["dead", "requeue", "--all"]).ok();
        harness::until("they have run", || supervisor.ledger("done") == kept.len() as u64);
        assert_eq!(supervisor.lines("lines"), numbers(12 - kept.len()..12), "{bound}");
        assert_eq!(supervisor.ledger("dead"), 12);
        let listed = supervisor.cli(&["dead", "list"]).ok();
        assert!(listed.err.contains("older ones were dropped"), "{listed:?}");
    }
}

/// More than one answer holds.
#[test]
fn l01_all_letters_are_listed_however_many_they_are() {
    const LETTERS: usize = 4200;
    let mut supervisor = Supervisor::with_config(CONFIG);
    let held = supervisor.hold("a");
    let mut client = supervisor.client();
    for _ in 0..LETTERS {
        client.post(Call { expires_ms: Some(1), ..Call::new("a", "count", payload(&())) }).unwrap();
    }
    client.flush().unwrap();
    supervisor.until("all have expired", |this| this.status()["dead_letters"]["messages"] == LETTERS);
    held.release();
    for args in [&[][..], &["a"], &["-n", "5000"]] {
        let all = letters(&supervisor, args);
        assert_eq!(all.len(), LETTERS, "{args:?}");
        assert!(all.is_sorted_by(|a, b| a["at"].as_u64() < b["at"].as_u64()), "{args:?}");
        let shown = supervisor.cli(&[&["dead", "list"], args].concat()).ok();
        assert_eq!((shown.out.lines().count(), &*shown.err), (LETTERS + 1, ""), "{args:?}");
    }
    let all = letters(&supervisor, &[]);
    assert_eq!(letters(&supervisor, &["-n", "4150"]).len(), 4150);
    assert_eq!(letters(&supervisor, &["-n", "4150"])[0]["message"], all[LETTERS - 4150]["message"]);
    assert_eq!(letters(&supervisor, &["-n", "2"])[0]["message"], all[LETTERS - 2]["message"]);
}

#[test]
fn l01_one_letter_is_one_and_not_ones() {
    let supervisor = Supervisor::with_config(&format!("supervisor.dead_letters = {{ messages = 1 }}\n{CONFIG}"));
    bury(&supervisor, "a", 0..2);
    let listed = supervisor.cli(&["dead", "list"]).ok();
    assert!(listed.err.contains("1 older one was dropped, because at most 1 letter and "), "{listed:?}");
    let status = supervisor.cli(&["status"]).ok().out;
    assert!(status.contains("; 1 older one dropped"), "{status}");
}

#[test]
fn c13_what_expires_in_a_busy_mailbox_is_a_dead_letter() {
    let mut supervisor = Supervisor::with_config(CONFIG);
    for worker in ["a", "b"] {
        let held = supervisor.hold(worker);
        let file = supervisor.path("never");
        let output =
            supervisor.cli(&["call", worker, "log", text(&file), "x", "--expires", "50ms", "--wait", "--json"]);
        assert_eq!((output.code, output.json()), (6, json!({"expired": {"may_have_run": false}})));
        held.release();
        assert_eq!(supervisor.call(&[worker, "count"]), 1);
        let letter = &letters(&supervisor, &[worker])[0];
        assert_eq!((&letter["reason"], &letter["method"]), (&json!("expired"), &json!("log")), "{letter}");
        assert!(!file.exists());
        // It is executed once it is posted again: then it does not expire.
        supervisor.cli(&["dead", "requeue", "--worker", worker]).ok();
        supervisor.until_lines("never", 1);
        std::fs::remove_file(&file).unwrap();
    }
    assert_eq!((supervisor.ledger("expired"), supervisor.ledger("dead")), (2, 0));
}
