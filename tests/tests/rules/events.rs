//! What happened to workers and messages: `workhall events`.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};
use workhall_protocol::messages::{Call, News, ReceiptBody};
use workhall_tests::harness::{ANY_NAME, Supervisor, bin_dir, output_of, payload, text};

#[track_caller]
fn events(supervisor: &Supervisor, args: &[&str]) -> Vec<Value> {
    supervisor.cli(&[&["events", "--json"], args].concat()).ok().json().as_array().unwrap().clone()
}

/// What happened to a worker, a word each, from an event on.
fn words(supervisor: &Supervisor, worker: &str, from: usize) -> Vec<String> {
    events(supervisor, &[worker]).iter().skip(from).map(|it| it["event"].as_str().unwrap().to_string()).collect()
}

#[test]
fn every_change_of_a_worker_is_an_event() {
    let mut supervisor = Supervisor::with_config(
        "[class.w]\nexec = ['{bin}/test-worker']\nnames = ['**']\nidle_timeout = '300ms'\ntask_timeout = '200ms'\n\
         term_grace = '100ms'\ncrash_limit = { crashes = 2, pause = '30s' }\n\
         [class.none]\nexec = ['/nonexistent']\n[class.early]\nexec = ['sh', '-c', 'exit 3']\n",
    );
    supervisor.call(&["a", "count"]);
    assert_eq!(words(&supervisor, "a", 0), ["created", "started", "ready"]);
    supervisor.until("it was ended for its idleness", |this| words(this, "a", 0).len() == 5);
    let list = events(&supervisor, &["a"]);
    assert_eq!((&list[3]["event"], &list[4]["event"]), (&json!("idle"), &json!("exited")));
    assert_eq!((&list[4]["exit"], &list[4]["ended_by"]), (&json!({"code": 0}), &json!("ask")));
    assert!(list.windows(2).all(|two| two[0]["seq"].as_u64() < two[1]["seq"].as_u64()));
    assert!(list.iter().all(|it| it["worker"] == "a" && it["class"] == "w" && it["number"] == 2));
    assert_eq!((&list[0]["generation"], &list[1]["generation"]), (&json!(0), &json!(1)));
    // It dies of itself, twice: at once again, then a pause, which is ended.
    for _ in 0..2 {
        supervisor.cli(&["call", "a", "die", "--wait"]).fails(6, &[]);
    }
    supervisor.until("it pauses", |this| words(this, "a", 5).last().is_some_and(|last| last == "paused"));
    supervisor.cli(&["resume", "a"]).ok();
    let list = events(&supervisor, &["a"]);
    let died = list.iter().find(|it| it["exit"] == json!({"signal": 9})).unwrap();
    assert_eq!(died["ended_by"], Value::Null, "nobody ended it: {died}");
    let words_now = words(&supervisor, "a", 5);
    assert_eq!(
        words_now,
        ["started", "ready", "exited", "dead", "started", "ready", "exited", "dead", "paused", "resumed"]
    );
    assert!(list.iter().find(|it| it["event"] == "paused").unwrap()["delay_ms"].as_u64().unwrap() > 20_000);
    // A task that takes too long, and does not care for SIGTERM.
    supervisor.call(&["late", "ignore_term"]);
    supervisor.cli(&["call", "late", "sleep", "100000", "--wait"]).fails(6, &[]);
    assert_eq!(
        words(&supervisor, "late", 0)[..8],
        ["created", "started", "ready", "timed_out", "signalled", "signalled", "exited", "dead"]
    );
    let list = events(&supervisor, &["late"]);
    assert_eq!([&list[4]["ended_by"], &list[5]["ended_by"], &list[6]["ended_by"]], ["term", "kill", "kill"]);
    assert_eq!(list[7]["reason"], "timed_out");
    // Starts that fail.
    for (worker, event, stage) in [("none", "not_started", "exec"), ("early", "exited", "ended_before_ready")] {
        supervisor.cli(&["call", worker, "x"]).ok();
        let failed = |this: &Supervisor| events(this, &[worker]).into_iter().find(|it| it["event"] == event);
        supervisor.until("it has failed", |this| failed(this).is_some());
        let failed = failed(&supervisor).unwrap();
        assert!(failed["stage"] == stage && failed["detail"].is_string(), "{failed}");
    }
}

#[test]
fn p01_who_dies_by_itself_in_a_run_or_a_drain_was_not_asked_to_end() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    let ends = |supervisor: &Supervisor, name: &str| -> Vec<(Value, Value)> {
        let events = supervisor.cli(&["events", name, "--json"]).ok().json();
        let exits = events.as_array().unwrap().iter().filter(|event| event["event"] == "exited");
        exits.map(|event| (event["exit"].clone(), event["ended_by"].clone())).collect()
    };
    let by_itself = (json!({"signal": 9}), Value::Null);
    supervisor.cli(&["run", "any", "die", "--name", "dies", "--wait"]).fails(6, &["signal 9"]);
    assert_eq!(ends(&supervisor, "dies"), std::slice::from_ref(&by_itself));
    let crashed = |name: &str| format!("workhall: warning: {name}: its process has crashed: signal 9");
    assert!(supervisor.log().contains(&crashed("dies")), "{}", supervisor.log());
    // One that runs to its end is asked.
    supervisor.cli(&["run", "any", "count", "--name", "ends", "--wait"]).ok();
    supervisor.until("it is gone", |this| !ends(this, "ends").is_empty());
    assert_eq!(ends(&supervisor, "ends"), [(json!({"code": 0}), json!("ask"))]);
    // So is one that is drained, once it has executed all: here by another life.
    let held = supervisor.hold("drained");
    for method in ["die", "count"] {
        supervisor.cli(&["call", "drained", method]).ok();
    }
    supervisor.cli(&["kill", "drained", "--drain"]).ok();
    held.release();
    supervisor.until("it is gone", |this| ends(this, "drained").len() == 2);
    assert_eq!(ends(&supervisor, "drained"), [by_itself, (json!({"code": 0}), json!("ask"))]);
    assert!(supervisor.log().contains(&crashed("drained")), "{}", supervisor.log());
}

#[test]
fn what_a_reload_does_to_a_worker_is_an_event() {
    let class = |more: &str| format!("exec = ['{}/test-worker']\n{more}", text(bin_dir()));
    let of = |keep: &str, more: &str| format!("[class.{keep}]\n{}\n[class.other]\n{}", class(more), class(""));
    let mut supervisor = Supervisor::with_config(&of("w", ""));
    supervisor.call(&["w", "count"]);
    supervisor.file("workhall.toml", &of("w", "term_grace = '9s'"));
    supervisor.cli(&["reload"]).ok();
    assert_eq!(words(&supervisor, "w", 3), [""; 0], "its process goes on as it is");
    supervisor.cli(&["reload", "--restart"]).ok();
    supervisor.until("its process has ended", |this| words(this, "w", 3).len() == 2);
    let list = events(&supervisor, &["w", "-n", "2"]);
    assert_eq!((&list[0]["event"], &list[1]["event"]), (&json!("replaced"), &json!("exited")));
    assert_eq!((&list[1]["exit"], &list[1]["ended_by"]), (&json!({"code": 0}), &json!("ask")));
    supervisor.call(&["w", "count"]);
    supervisor.file("workhall.toml", &of("x", ""));
    for _ in 0..2 {
        supervisor.cli(&["reload"]).ok();
    }
    assert_eq!(words(&supervisor, "w", 5), ["started", "ready", "retired"], "once, however often it is read");
    supervisor.kill(&["w"]);
    supervisor.until("it is gone", |this| words(this, "w", 8) == ["killed", "exited", "gone"]);
}

#[test]
fn a_kill_is_an_event_with_what_it_discarded_and_what_ended_the_process() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    for (flags, step) in [(&[][..], "ask"), (&["--within", "0s"], "term"), (&["--now"], "kill")] {
        let held = supervisor.hold("a");
        let seen = words(&supervisor, "a", 0).len();
        let mut client = supervisor.client();
        for _ in 0..1000 {
            client.post(Call::new("a", "count", payload(&()))).unwrap();
        }
        assert_eq!(client.posted().unwrap(), []);
        let killing = supervisor.start_cli(&[&["kill", "a", "--wait", "--json"], flags].concat());
        if step == "ask" {
            supervisor.until("it is asked", |this| words(this, "a", seen).contains(&"killed".to_string()));
            held.release();
        }
        let receipt = killing.end().ok().json();
        assert_eq!(receipt["ended_by"], step);
        let list = &events(&supervisor, &["a"])[seen..];
        let find =
            |event: &str| list.iter().find(|it| it["event"] == event).unwrap_or_else(|| panic!("{event}: {list:?}"));
        let discarded: u64 =
            list.iter().filter(|it| it["event"] == "discarded").map(|it| it["messages"].as_u64().unwrap_or(1)).sum();
        assert!(receipt["discarded"].as_u64().unwrap() <= discarded && discarded <= 1001, "{receipt}: {list:?}");
        assert!(list.len() < 12, "many messages are few events: {list:?}");
        assert_eq!((&find("exited")["ended_by"], list.last().unwrap()["event"].as_str()), (&json!(step), Some("gone")));
        let mode = if step == "kill" { "now" } else { "ladder" };
        assert_eq!(find("killed")["mode"], mode);
    }
}

#[test]
fn every_end_of_a_message_but_done_is_an_event_and_done_is_none() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    for _ in 0..100 {
        supervisor.cli(&["call", "a", "count"]).ok();
    }
    supervisor.call(&["a", "count"]);
    assert_eq!(words(&supervisor, "a", 0), ["created", "started", "ready"]);
    // Whether somebody waits for it or not, and however long its words are.
    supervisor.cli(&["call", "a", "fail", "no \u{1b}[2Jsuch row", "--wait"]).fails(1, &[]);
    supervisor.cli(&["call", "a", "fail", &"long ".repeat(1000)]).ok();
    let held = supervisor.hold("a");
    supervisor.cli(&["call", "a", "count", "--expires", "1ms", "--wait"]).fails(6, &[]);
    held.release();
    let list = &events(&supervisor, &["a"])[3..];
    assert_eq!(list.iter().map(|it| &it["event"]).collect::<Vec<_>>(), ["failed", "failed", "expired"]);
    assert_eq!(list[0]["detail"], "no \u{1b}[2Jsuch row");
    assert_eq!((list[1]["detail"].as_str().unwrap().len(), &list[2]["may_have_run"]), (500, &json!(false)));
    assert!(list.iter().all(|it| it["message"].is_u64()), "{list:?}");
    let shown = supervisor.cli(&["events", "a"]).ok().out;
    assert!(shown.contains("failed, message 102: no \\x1b[2Jsuch row"), "{shown}");
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
}

#[test]
fn events_are_followed_and_asked_for_by_age_number_and_worker() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    supervisor.call(&["a", "count"]);
    let mut child = supervisor.command(&["events", "-f", "--json", "b"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    supervisor.until("it follows", |this| this.status()["counts"]["clients"] == 2);
    supervisor.call(&["a", "count"]);
    supervisor.call(&["b", "count"]);
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    let followed: Vec<Value> = (0..3).map(|_| next()).collect();
    assert!(followed.iter().all(|it| it["worker"] == "b"), "{followed:?}");
    assert_eq!(followed.iter().map(|it| &it["event"]).collect::<Vec<_>>(), ["created", "started", "ready"]);
    supervisor.kill(&["b"]);
    let mut last = next();
    while last["event"] != "gone" {
        last = next();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(events(&supervisor, &[]).len(), events(&supervisor, &["a"]).len() + events(&supervisor, &["b"]).len());
    assert_eq!(events(&supervisor, &["-n", "2"]).len(), 2);
    assert_eq!(events(&supervisor, &["%2"]).len(), 3);
    assert!(events(&supervisor, &["--since", "1h"]).len() > 5);
    supervisor.until("they have aged", |this| events(this, &["--since", "1ms"]).is_empty());
}

#[test]
fn who_reads_too_slowly_is_told_how_many_events_it_has_lost_and_a_worker_drives_out_only_its_own() {
    let supervisor = Supervisor::with_config(&format!("supervisor.events.worker = 100\n{ANY_NAME}"));
    supervisor.call(&["b", "count"]);
    let mut client = supervisor.client();
    let ticket = client.events(None, None, true, None).unwrap();
    assert_eq!(client.receipt(ticket).unwrap(), ReceiptBody::Waiting {});
    // So many that they do not fit into what is on the way to one who does not read.
    const FAILURES: u64 = 20_000;
    let text = "x".repeat(400);
    let line = format!("{}\n", json!([text]));
    let mut lines = supervisor.command(&["call", "a", "fail", "--lines"]);
    output_of(&mut lines, line.repeat(FAILURES as usize).as_bytes()).ok();
    supervisor.call(&["a", "count"]);
    let (mut told, mut lost, mut last) = (0, 0, String::new());
    while last != format!("{}", FAILURES) {
        let News { lost: more, items, .. } = client.news(ticket).unwrap().unwrap();
        lost += more;
        for item in items.to_json().unwrap().as_array().unwrap() {
            told += u64::from(item["event"] == "failed");
            last = (told + lost).to_string();
        }
    }
    assert!(lost > 0 && told > 0, "{told} told, {lost} lost");
    assert_eq!(words(&supervisor, "b", 0), ["created", "started", "ready"]);
    assert_eq!(events(&supervisor, &["a"]).len(), 100);
    let said = supervisor.cli(&["events", "a"]).ok().err;
    assert!(said.contains("events before these are not kept any more (`events` in [supervisor]"), "{said}");
}
