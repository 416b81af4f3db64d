//! Clients that write their own bytes: JSON lines, both encodings side by side, broken streams, pretence.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use workhall_protocol::args::Payload;
use workhall_protocol::client::ClientError;
use workhall_protocol::messages::{Call, OutcomeBody, ReceiptBody};
use workhall_protocol::terms::Refusal;
use workhall_tests::harness::{Supervisor, payload};

/// A client in JSON lines.
struct Json {
    lines: BufReader<UnixStream>,
}

impl Json {
    fn connect(supervisor: &Supervisor) -> Json {
        Json { lines: BufReader::new(supervisor.raw()) }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.lines.get_mut().write_all(bytes).unwrap();
    }

    fn say(&mut self, message: &Value) {
        self.write(format!("{message}\n").as_bytes());
    }

    #[track_caller]
    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    #[track_caller]
    fn ask(&mut self, message: &Value) -> Value {
        self.say(message);
        self.hear()
    }

    /// Nothing more comes: the supervisor has closed the connection.
    #[track_caller]
    fn ended(mut self) {
        let mut rest = String::new();
        let _reset = self.lines.read_to_string(&mut rest);
        assert_eq!(rest, "");
    }
}

#[test]
fn a_client_in_json_can_ask_everything() {
    let mut supervisor = Supervisor::start();
    let mut client = Json::connect(&supervisor);
    let receipt = client
        .ask(&json!({"call": {"worker": "a", "method": "echo", "args": [1, "x", null], "ref": "r", "wait": true}}));
    assert_eq!(receipt, json!({"receipt": {"ref": "r", "accepted": {"worker": "a", "number": 2, "message": 1}}}));
    assert_eq!(client.hear(), json!({"outcome": {"ref": "r", "done": {"result": [1, "x", null]}}}));
    // By number, without a receipt, and with one that refers to a text of the longest length.
    client.say(&json!({"call": {"worker": 2, "method": "count"}}));
    let long = "é".repeat(32);
    let receipt = client.ask(&json!({"call": {"worker": 2, "method": "count", "ref": long, "wait": true}}));
    assert_eq!(receipt["receipt"]["ref"], long);
    assert_eq!(client.hear(), json!({"outcome": {"ref": long, "done": {"result": 2}}}));
    let failed =
        client.ask(&json!({"call": {"worker": "a", "method": "fail", "args": ["no"], "ref": 0, "wait": true}}));
    assert!(failed["receipt"]["accepted"].is_object());
    assert_eq!(client.hear(), json!({"outcome": {"ref": 0, "failed": {"error": "no"}}}));
    // `"2"` is a name, which has no class.
    let refused = client.ask(&json!({"call": {"worker": "2", "method": "count", "ref": 1}}));
    assert_eq!(refused["receipt"]["refused"]["reason"], "no_class");
    assert_eq!(
        client.ask(&json!({"call": {"worker": 77, "ref": 2}})),
        json!({"receipt": {"ref": 2, "ignored": {"reason": "no_worker"}}})
    );
    // The questions.
    let list = client.ask(&json!({"list": {"ref": "l"}}));
    assert_eq!((&list["receipt"]["ref"], &list["receipt"]["report"][0]["name"]), (&json!("l"), &json!("a")));
    let info = client.ask(&json!({"info": {"ref": 3, "worker": "a"}}));
    assert_eq!(
        (&info["receipt"]["report"]["number"], &info["receipt"]["report"]["startup_method"]),
        (&json!(2), &json!("echo"))
    );
    assert_eq!(
        client.ask(&json!({"info": {"ref": 3, "worker": "b"}})),
        json!({"receipt": {"ref": 3, "ignored": {"reason": "no_worker"}}})
    );
    let status = client.ask(&json!({"status": {"ref": 4}}));
    assert_eq!(status["receipt"]["report"]["ledger"]["done"], 3);
    // To wait, for what is and for what is not yet.
    assert_eq!(
        client.ask(&json!({"wait": {"ref": "w", "worker": "a", "until": "idle"}})),
        json!({"receipt": {"ref": "w", "waiting": {}}})
    );
    assert_eq!(client.hear(), json!({"outcome": {"ref": "w", "reached": {}}}));
    assert_eq!(
        client.ask(&json!({"wait": {"ref": "g", "worker": "a", "until": "gone"}})),
        json!({"receipt": {"ref": "g", "waiting": {}}})
    );
    let mut other = Json::connect(&supervisor);
    assert_eq!(
        other.ask(&json!({"kill": {"worker": "a", "ref": "k", "wait": true}})),
        json!({"receipt": {"ref": "k", "killed": {"discarded": 0}}})
    );
    assert_eq!(client.hear(), json!({"outcome": {"ref": "g", "reached": {}}}));
    let mut report = other.hear()["outcome"].clone();
    assert_eq!((&report["ref"], &report["killed"]["ended_by"]), (&json!("k"), &json!("ask")));
    assert_eq!(report["killed"]["exit"].take(), json!({"code": 0}));
    assert_eq!(
        other.ask(&json!({"kill": {"worker": "a", "ref": "k"}})),
        json!({"receipt": {"ref": "k", "ignored": {"reason": "no_worker"}}})
    );
    supervisor.until("only this client is left", |this| this.status()["counts"]["clients"] == 3);
}

#[test]
fn requests_may_come_all_in_one_write_or_byte_by_byte() {
    let supervisor = Supervisor::start();
    let mut client = Json::connect(&supervisor);
    let mut all = String::new();
    for number in 0..100 {
        let call = json!({"call": {"worker": "a", "method": "echo", "args": [number], "ref": number, "wait": true}});
        all += &format!("{call}\n\n");
    }
    client.write(all.as_bytes());
    let (mut receipts, mut results) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let line = client.hear();
        match line["outcome"].is_object() {
            false => receipts.push(line["receipt"]["ref"].as_u64().unwrap()),
            true => results.push(line["outcome"]["done"]["result"][0].as_u64().unwrap()),
        }
    }
    assert_eq!(receipts, (0..100).collect::<Vec<_>>());
    assert_eq!(results, (0..100).collect::<Vec<_>>());
    // A byte at a time; the last line's end comes after the connection's.
    for byte in r#"{"call":{"worker":"a","method":"echo","args":["é"],"ref":"é","wait":true}}"#.bytes().chain(*b"\n")
    {
        client.write(&[byte]);
        std::thread::yield_now();
    }
    assert_eq!(client.hear()["receipt"]["ref"], "é");
    assert_eq!(client.hear(), json!({"outcome": {"ref": "é", "done": {"result": ["é"]}}}));
    client.write(br#"{"call":{"worker":"a","method":"count"}}"#);
    client.lines.get_ref().shutdown(Shutdown::Write).unwrap();
    client.ended();
    assert_eq!(supervisor.call(&["a", "count"]), 1, "half a line is no request");
}

#[test]
fn clients_of_both_encodings_stand_side_by_side() {
    let supervisor = Supervisor::start();
    let (mut text, mut binary) = (Json::connect(&supervisor), supervisor.client());
    for round in 1..=20 {
        let counted = text.ask(&json!({"call": {"worker": "a", "method": "count", "ref": round, "wait": true}}));
        assert!(counted["receipt"]["accepted"].is_object());
        assert_eq!(text.hear()["outcome"]["done"]["result"], 2 * round - 1);
        let call = Call::new("a", "count", Payload::no_args());
        let (receipt, outcome) = binary.call_and_wait(call).unwrap();
        assert!(matches!(receipt, ReceiptBody::Accepted(_)));
        let OutcomeBody::Done { result } = outcome.unwrap() else { panic!() };
        assert_eq!(result.to_json().unwrap(), 2 * round);
    }
}

#[test]
fn a_client_is_told_what_is_not_understood() {
    let supervisor = Supervisor::start();
    let mut client = Json::connect(&supervisor);
    for (line, reference, part) in [
        (r#"{"sing":{"ref":7}}"#, json!(7), "sing"),
        (r#"{"sing":{"ref":"x","deep":{"ref":9}}}"#, json!("x"), "sing"),
        (r#"{"call":{"ref":8}}"#, json!(8), "worker"),
        (r#"{"call":{"worker":"a","method":5,"ref":9}}"#, json!(9), "string"),
        (r#"{"call":{"worker":"a","method":"m","wait":true}}"#, json!(null), "ref"),
        (r#"{"kill":{"ref":10}}"#, json!(10), "name one"),
        (r#"{"kill":{"worker":"a","drain":true,"now":true,"ref":11}}"#, json!(11), "exclude"),
        (r#"{"wait":{"ref":12,"worker":"a","until":"tired"}}"#, json!(12), "tired"),
        ("nonsense", json!(null), ""),
        ("{}", json!(null), ""),
        (r#"{"list":{"ref":1},"status":{"ref":2}}"#, json!(null), ""),
        (r#"{"call":["b","count",[],15]}"#, json!(null), "an object"),
        (r#"{"kill":["a"]}"#, json!(null), "an object"),
    ] {
        client.write(format!("{line}\n").as_bytes());
        let error = client.hear();
        assert_eq!(error["error"]["ref"], reference, "{line} -> {error}");
        assert!(error["error"]["detail"].as_str().unwrap().contains(part), "{line} -> {error}");
    }
    assert!(supervisor.ps("b").is_null());
    // Unknown fields are ignored, and the connection is as good as before.
    let answer = client.ask(&json!({"call": {"worker": "a", "method": "count", "ref": 13, "colour": {"ref": 14}}}));
    assert!(answer["receipt"]["accepted"].is_object(), "{answer}");
    assert_eq!(supervisor.call(&["a", "count"]), 2);
}

#[test]
fn a_broken_stream_ends_and_harms_nobody_else() {
    let mut supervisor = Supervisor::start();
    let mut other = Json::connect(&supervisor);
    supervisor.call(&["a", "count"]);
    let endless = [b"{\"call\":\"".as_slice(), &vec![b'x'; 17 << 20]].concat();
    for rubbish in [
        b" {}\n".as_slice(),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\0",
        &[0xb1, 1, 9, 9, 0, 0, 0, 0],
        &[0xb1, 4, 0, 0, 255, 255, 255, 255],
        &endless,
    ] {
        let mut stream = supervisor.raw();
        // It may be closed before all is written.
        let _closed = stream.write_all(rubbish);
        let mut rest = Vec::new();
        let _reset = stream.read_to_end(&mut rest);
        assert!(rest.len() < 1000, "an error at most");
        assert_eq!(other.ask(&json!({"status": {"ref": 1}}))["receipt"]["ref"], 1);
    }
    supervisor.until("they are gone", |this| this.status()["counts"]["clients"] == 2);
    assert_eq!(supervisor.call(&["a", "count"]), 2);
}

#[test]
fn no_worker_can_pretend_to_be_another() {
    let mut supervisor = Supervisor::start();
    let (begun, go) = (supervisor.path("begun"), supervisor.path("go"));
    let task = supervisor.start_cli(&[
        "call",
        "a",
        "block",
        begun.to_str().unwrap(),
        go.to_str().unwrap(),
        "--wait",
        "--json",
    ]);
    supervisor.until_lines("begun", 1);
    let message = supervisor.ps("a")["running"]["message"].clone();
    // A client says what only workers say.
    let mut client = Json::connect(&supervisor);
    for pretence in [
        json!({"ready": {"protocol": 1, "window": 1}}),
        json!({"done": {"id": message, "result": "forged"}}),
        json!({"failed": {"id": message, "error": "forged"}}),
    ] {
        let answer = client.ask(&pretence);
        assert!(answer["error"]["detail"].as_str().unwrap().contains("only a worker"), "{answer}");
    }
    // What it says of itself is not believed.
    let from = json!({"worker": "a", "number": 2});
    client.ask(&json!({"call": {"worker": "b", "method": "sender", "ref": 1, "wait": true, "from": from}}));
    assert_eq!(client.hear()["outcome"]["done"]["result"], Value::Null);
    // Nor can another worker settle its task.
    assert_eq!(supervisor.ps("a")["state"], "busy");
    supervisor.file("go", "");
    assert_eq!(task.end().ok().json(), json!({"done": {"result": null}}));
    assert_eq!(supervisor.cli(&["info", "a", "--json"]).ok().json()["violations"], 0);
}

#[test]
fn who_closes_its_sending_side_still_hears_the_outcome_and_then_the_end() {
    let supervisor = Supervisor::start();
    let mut client = Json::connect(&supervisor);
    client.say(&json!({"call": {"worker": "a", "method": "sleep", "args": [50], "ref": 1, "wait": true}}));
    client.say(&json!({"status": {"ref": 2}}));
    client.lines.get_ref().shutdown(Shutdown::Write).unwrap();
    let mut said: Vec<Value> = (0..3).map(|_| client.hear()).collect();
    said.retain(|message| message["receipt"]["ref"] != 2);
    assert_eq!(said[0]["receipt"]["accepted"]["worker"], "a");
    assert_eq!(said[1], json!({"outcome": {"ref": 1, "done": {"result": null}}}));
    client.ended();
}

#[test]
fn a_chain_breaks_at_what_is_not_understood() {
    let supervisor = Supervisor::start();
    let mut client = Json::connect(&supervisor);
    let call = |reference: u32, args: Value, chain: bool| json!({"call": {"worker": "a", "method": "echo", "args": args, "ref": reference, "chain": chain}});
    for (reference, args, chain) in
        [(1, json!([1]), true), (2, json!(5), true), (3, json!([3]), true), (4, json!([4]), false)]
    {
        client.say(&call(reference, args, chain));
    }
    assert!(client.hear()["receipt"]["accepted"].is_object());
    assert_eq!(client.hear()["error"]["ref"], 2);
    assert!(client.hear()["receipt"]["refused"].is_object(), "it must not overtake the second");
    assert!(client.hear()["receipt"]["accepted"].is_object(), "a new chain begins");
}

#[test]
fn c01_brief_calls_are_told_of_together_and_each_that_is_not_accepted_by_itself() {
    let supervisor = Supervisor::start();
    let mut client = Json::connect(&supervisor);
    let call = |reference: u64, method: &str| json!({"call": {"worker": "a", "method": method, "ref": reference, "brief": true}});
    let bad = json!({"call": {"worker": "", "method": "count", "ref": 4, "brief": true}});
    let lines =
        [call(1, "count"), call(2, "count"), call(3, "count"), bad, call(5, "count")].map(|line| format!("{line}\n"));
    client.write(lines.concat().as_bytes());
    // One write may be read in several turns: how many receipts there are is not promised, but what they say.
    let (mut accepted, mut last, mut refused) = (0, 0, Vec::new());
    while accepted < 4 || refused.is_empty() {
        let receipt = client.hear()["receipt"].clone();
        match receipt["accepted_all"]["messages"].as_u64() {
            Some(messages) => {
                accepted += messages;
                assert!(receipt["ref"].as_u64().unwrap() > last);
                last = receipt["ref"].as_u64().unwrap();
            }
            None => refused.push((receipt["ref"].clone(), receipt["refused"]["reason"].clone())),
        }
    }
    assert_eq!((accepted, last, refused), (4, 5, vec![(json!(4), json!("bad_name"))]));
    // With `wait` the outcome is all that comes.
    let outcome =
        client.ask(&json!({"call": {"worker": "a", "method": "count", "ref": 6, "wait": true, "brief": true}}));
    assert_eq!(outcome, json!({"outcome": {"ref": 6, "done": {"result": 5}}}));
    let error = client.ask(&json!({"call": {"worker": "a", "method": "count", "brief": true}}));
    assert!(error["error"]["detail"].as_str().unwrap().contains("needs a `ref`"), "{error}");
}

#[test]
fn c01_a_program_posts_many_and_learns_what_was_not_accepted() {
    let supervisor = Supervisor::with_config(
        "[class.small]\nexec = ['{bin}/test-worker']\nmailbox = { messages = 3 }\n[class.a]\nexec = ['{bin}/test-worker']\n",
    );
    let mut client = supervisor.client();
    let go = supervisor.path("go");
    let block = client.submit(Call::new("small", "block", payload(&(supervisor.path("begun"), &go)))).unwrap();
    client.receipt(block).unwrap();
    supervisor.cli(&["wait", "small", "--empty"]).ok();
    let posts: Vec<_> = (0..5).map(|_| client.post(Call::new("small", "count", payload(&()))).unwrap()).collect();
    for _ in 0..2000 {
        client.post(Call::new("a", "count", payload(&()))).unwrap();
    }
    let failed = client.posted().unwrap();
    assert_eq!(failed.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), posts[3..]);
    let full = |body: &ReceiptBody<'_>| matches!(body, ReceiptBody::Refused { reason: Refusal::MailboxFull, .. });
    assert!(failed.iter().all(|(_, body)| full(body)), "{failed:?}");
    assert!(client.posted().unwrap().is_empty());
    let OutcomeBody::Done { result } = client.ask(Call::new("a", "count", payload(&()))).unwrap() else { panic!() };
    assert_eq!(result.decode::<u64>().unwrap(), 2001);
    let refused = client.ask(Call::new("nobody", "count", payload(&())));
    assert!(matches!(refused, Err(ClientError::NoOutcome(ReceiptBody::Refused { .. }))), "{refused:?}");
    std::fs::write(go, "").unwrap();
}
