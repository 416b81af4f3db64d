//! The command line as people and scripts hold on to it: exit statuses, JSON, arguments, output.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use workhall_tests::harness::{ANY_NAME, Output, Supervisor, bin_dir, lines, lives, output, output_of, until};

// ---- exit statuses --------------------------------------------------------------------------

#[test]
fn exit_0_is_done_and_what_the_rules_ignore() {
    let mut supervisor = Supervisor::start();
    for args in [
        &["call", "a", "count"][..],
        &["call", "a", "count", "--wait"],
        &["call", "%99", "count"],
        &["call", "b", "count", "--existing", "--wait"],
        &["ps"],
        &["info", "a"],
        &["status"],
        &["wait", "a", "--idle"],
        &["kill", "a"],
        &["kill", "b", "--wait"],
        &["kill", "%99"],
        &["kill", "nobody*"],
        &["--help"],
        &["--version"],
    ] {
        let output = supervisor.cli(args).ok();
        // Who waits for a result hears why there is none.
        let waits = args.contains(&"--wait") && args[0] == "call" && output.out.is_empty();
        assert_eq!(output.err.contains("ignored, so there is no result"), waits, "{args:?}");
        // And who kills nobody, that there is nobody.
        let nobody = args.len() == 2 && args[0] == "kill" && args[1] != "a";
        assert_eq!(
            output.err.contains(": nothing to do") || output.err.contains(", nothing to do"),
            nobody,
            "{args:?}"
        );
        assert_eq!(output.err.is_empty(), !waits && !nobody, "{args:?}");
    }
    supervisor.signal(Signal::SIGINT);
    assert_eq!(supervisor.ended().code(), Some(0));
}

#[test]
fn exit_1_is_a_method_that_failed_or_an_unexpected_error() {
    let supervisor = Supervisor::start();
    let failed =
        supervisor.cli(&["call", "a", "fail", "no\u{1b}[31m luck", "--wait"]).fails(1, &["a failed: no", "luck"]);
    assert!(!failed.err.contains('\u{1b}'), "a worker's error cannot write to the terminal what it likes: {failed:?}");
    supervisor.cli(&["call", "a", "nothing", "--wait"]).fails(1, &["there is no method `nothing`", "`count`"]);
    supervisor.cli(&["call", "a", "sleep", "soon", "--wait"]).fails(1, &["arguments of `sleep`", "soon"]);
    supervisor.cli(&["info", "b"]).fails(1, &["there is no worker b"]);
}

#[test]
fn exit_2_is_wrong_usage() {
    let supervisor = Supervisor::start();
    for (args, part) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["call"], "<WORKER>"),
        (&["call", "a", "count", "--frobnicate"], "--frobnicate"),
        (&["call", "a", "count", "--timeout", "1s"], "--wait"),
        (&["call", "a", "count", "--wait", "--timeout", "soon"], "soon"),
        (&["call", "a", "count", "--expires", "5"], "write it like"),
        (&["call", "a", "count", "1", "--args", "[]"], "--args"),
        (&["call", "a", "count", "1", "--lines"], "--lines"),
        (&["wait", "a"], "--idle"),
        (&["wait", "a", "--idle", "--gone"], "--gone"),
        (&["kill"], "name a worker"),
        (&["kill", "a", "--now", "--drain"], "--drain"),
        (&["kill", "a", "--now", "--within", "1s"], "--within"),
        (&["kill", "*["], "no pattern"),
        (&["completions", "tcsh"], "tcsh"),
    ] {
        let output = supervisor.cli(args).fails(2, &[part]);
        assert_eq!(output.out, "", "{args:?}");
    }
    assert_eq!(supervisor.status()["ledger"]["accepted"], 0);
}

#[test]
fn exit_3_is_refused() {
    let supervisor = Supervisor::start();
    supervisor.cli(&["call", "c", "count"]).fails(3, &["refused: no_class", "`c`", "`a`, `b`"]);
    supervisor.cli(&["call", "c", "count", "--wait"]).fails(3, &["refused: no_class"]);
}

#[test]
fn exit_4_is_no_supervisor() {
    let mut supervisor = Supervisor::start();
    let socket = supervisor.path("nobody");
    let socket = socket.to_str().unwrap();
    let commands = [
        &["call", "a", "count"][..],
        &["call", "a", "count", "--lines"],
        &["kill", "a"],
        &["kill", "*"],
        &["ps"],
        &["info", "a"],
        &["status"],
        &["wait", "a", "--idle"],
    ];
    for args in commands {
        supervisor
            .cli(&[args, &["--socket", socket]].concat())
            .fails(4, &["no supervisor at", socket, "workhall serve"]);
    }
    // One that ends while somebody waits.
    let held = supervisor.hold("a");
    let worker = supervisor.worker_pid("a");
    let waiting = supervisor.command(&["wait", "a", "--idle"]).stderr(Stdio::piped()).spawn().unwrap();
    supervisor.until("the client waits", |this| this.status()["counts"]["clients"] == 2);
    supervisor.signal(Signal::SIGKILL);
    assert_eq!(waiting.wait_with_output().unwrap().status.code(), Some(4));
    supervisor.ended();
    held.release();
    until("the worker has ended by itself", || !lives(worker));
}

#[test]
fn exit_5_is_that_the_time_ran_out() {
    let mut supervisor = Supervisor::start();
    let held = supervisor.hold("a");
    supervisor.cli(&["call", "a", "count", "--wait", "--timeout", "30ms"]).fails(5, &["time ran out"]);
    supervisor.cli(&["wait", "a", "--idle", "--timeout", "30ms"]).fails(5, &["time ran out"]);
    supervisor.cli(&["kill", "b", "a", "--drain", "--wait", "--timeout", "30ms"]).fails(5, &["time ran out"]);
    held.release();
    supervisor.cli(&["wait", "a", "--gone"]).ok();
    // What was asked for went on.
    assert_eq!(supervisor.status()["ledger"]["done"], 2);
}

#[test]
fn exit_6_is_a_message_that_will_not_be_executed() {
    let mut supervisor = Supervisor::start();
    supervisor.cli(&["call", "a", "die", "--wait"]).fails(6, &["dead letter, crashed (signal 9)", "may have run"]);
    supervisor.cli(&["call", "a", "exit", "7", "--wait"]).fails(6, &["crashed (exit status 7)"]);
    let held = supervisor.hold("a");
    supervisor.cli(&["call", "a", "count", "--expires", "10ms", "--wait"]).fails(6, &["expired", "has not run"]);
    let discarded = waits(&mut supervisor, &["call", "a", "count", "--wait"], |this| {
        this.cli(&["kill", "a"]).ok();
    });
    discarded.fails(6, &["discarded by kill", "has not run"]);
    held.release();
}

/// Runs a command that waits, does something while it waits, and returns what it printed.
fn waits(supervisor: &mut Supervisor, args: &[&str], meanwhile: impl FnOnce(&mut Supervisor)) -> Output {
    let accepted = supervisor.status()["ledger"]["accepted"].as_u64().unwrap();
    let mut command = supervisor.command(args);
    let running = std::thread::spawn(move || output(&mut command));
    supervisor.until("the call was accepted", |this| this.status()["ledger"]["accepted"].as_u64() > Some(accepted));
    meanwhile(supervisor);
    running.join().unwrap()
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let supervisor = Supervisor::start();
    let runtime = supervisor.path("runtime");
    std::fs::create_dir_all(runtime.join("workhall")).unwrap();
    std::os::unix::fs::symlink(supervisor.socket(), runtime.join("workhall/workhall.sock")).unwrap();
    let with = |socket: &str, args: &[&str]| {
        output(supervisor.command(args).env("WORKHALL_SOCKET", socket).env("XDG_RUNTIME_DIR", &runtime))
    };
    assert_eq!(with("", &["status", "--json"]).ok().json()["pid"], supervisor.pid());
    with("", &["completions", "bash"]).ok();
    with("", &["call", "a", "count"]).ok();
    with("/no/such/socket", &["ps"]).fails(4, &["/no/such/socket"]);
    // What is asked for by name is not left out.
    with("", &["ps", "--socket", ""]).fails(2, &["--socket"]);
    assert!(with("", &["ps", "--help"]).ok().out.contains("WORKHALL_SOCKET"));
}

// ---- JSON -----------------------------------------------------------------------------------

#[track_caller]
fn has_keys(value: &Value, keys: &[&str]) {
    for key in keys {
        assert!(value.get(key).is_some(), "no `{key}` in {value}");
    }
}

#[test]
fn call_json_is_the_receipt() {
    let supervisor = Supervisor::start();
    let call = |args: &[&str]| supervisor.cli(&[&["call", "--json"], args].concat());
    assert_eq!(call(&["a", "count"]).ok().out, "{\"accepted\":{\"worker\":\"a\",\"number\":2,\"message\":1}}\n");
    assert_eq!(call(&["%2", "count"]).ok().json(), json!({"accepted": {"worker": "a", "number": 2, "message": 2}}));
    assert_eq!(call(&["%9", "count"]).ok().json(), json!({"ignored": {"reason": "no_worker"}}));
    let refused = call(&["c", "count"]).fails(3, &["no_class"]).json();
    assert_eq!(refused["refused"]["reason"], "no_class");
    assert!(refused["refused"]["detail"].as_str().unwrap().contains("`c`"));
}

#[test]
fn call_wait_json_is_the_outcome() {
    let mut supervisor = Supervisor::start();
    let call = |this: &Supervisor, args: &[&str]| this.cli(&[&["call", "--wait", "--json"], args].concat());
    assert_eq!(call(&supervisor, &["a", "echo", "1"]).ok().out, "{\"done\":{\"result\":[1]}}\n");
    assert_eq!(call(&supervisor, &["a", "ignore_term"]).ok().json(), json!({"done": {"result": null}}));
    assert_eq!(call(&supervisor, &["a", "fail", "x"]).fails(1, &["x"]).json(), json!({"failed": {"error": "x"}}));
    let dead = call(&supervisor, &["a", "exit", "7"]).fails(6, &["crashed"]).json();
    assert_eq!(dead, json!({"dead": {"reason": "crashed", "exit": {"code": 7}, "may_have_run": true}}));
    let dead = call(&supervisor, &["a", "die"]).fails(6, &["crashed"]).json();
    assert_eq!(dead, json!({"dead": {"reason": "crashed", "exit": {"signal": 9}, "may_have_run": true}}));
    assert_eq!(call(&supervisor, &["%9", "count"]).ok().json(), json!({"ignored": {"reason": "no_worker"}}));
    assert_eq!(call(&supervisor, &["c", "x"]).fails(3, &["no_class"]).json()["refused"]["reason"], "no_class");
    let held = supervisor.hold("a");
    let expired = call(&supervisor, &["a", "count", "--expires", "10ms"]).fails(6, &["expired"]).json();
    assert_eq!(expired, json!({"expired": {"may_have_run": false}}));
    let discarded = waits(&mut supervisor, &["call", "a", "count", "--wait", "--json"], |this| {
        this.cli(&["kill", "a"]).ok();
    });
    assert_eq!(discarded.fails(6, &["discarded"]).json(), json!({"discarded": {"may_have_run": false}}));
    held.release();
}

#[test]
fn ps_json_has_a_row_for_each_worker() {
    let mut supervisor = Supervisor::start();
    supervisor.call(&["b", "count"]);
    let held = supervisor.hold("a");
    supervisor.cli(&["call", "a", "count"]).ok();
    let list = supervisor.cli(&["ps", "--json"]).ok().json();
    let [a, b] = list.as_array().unwrap().as_slice() else { panic!("{list}") };
    for row in [a, b] {
        has_keys(
            row,
            &["name", "number", "class", "state", "pid", "generation", "pending", "running", "executed", "crashes"],
        );
    }
    assert_eq!(
        (&a["name"], &a["number"], &a["class"], &a["state"]),
        (&json!("a"), &json!(3), &json!("a"), &json!("busy"))
    );
    assert_eq!(
        (&a["generation"], &a["pending"], &a["executed"], &a["crashes"]),
        (&json!(1), &json!(1), &json!(0), &json!(0))
    );
    assert_eq!((&a["running"]["message"], &a["running"]["method"]), (&json!(2), &json!("block")));
    assert!(a["running"]["age_ms"].is_u64());
    assert_eq!((&b["state"], &b["running"], &b["executed"]), (&json!("idle"), &Value::Null, &json!(1)));
    supervisor.cli(&["kill", "a"]).ok();
    assert_eq!(supervisor.ps("a")["state"], "ending");
    supervisor.cli(&["call", "b", "exit", "0", "--wait"]);
    supervisor.cli(&["wait", "b", "--gone"]).ok();
    let b = supervisor.ps("b");
    assert_eq!((&b["state"], &b["pid"], &b["generation"]), (&json!("absent"), &Value::Null, &json!(1)));
    held.release();
}

#[test]
fn info_json_is_the_row_and_more() {
    let supervisor = Supervisor::start();
    supervisor.cli(&["call", "a", "exit", "3", "--wait"]).fails(6, &["crashed"]);
    supervisor.call(&["a", "count"]);
    let (info, row) = (supervisor.cli(&["info", "a", "--json"]).ok().json(), supervisor.ps("a"));
    // Both are counted from now.
    let counted = ["age_ms", "created_ms"];
    for (key, value) in row.as_object().unwrap().iter().filter(|(key, _)| !counted.contains(&key.as_str())) {
        assert_eq!(&info[key], value, "{key}");
    }
    assert!(info["created_ms"].as_u64().unwrap().abs_diff(row["created_ms"].as_u64().unwrap()) < 1000);
    assert_eq!((&info["last_exit"]["generation"], &info["last_exit"]["exit"]), (&json!(1), &json!({"code": 3})));
    assert_eq!((&info["mailbox"]["messages_max"], &info["startup_method"]), (&json!(10_000), &json!("exit")));
    assert!(info["exec"][0].as_str().unwrap().ends_with("workers/a"));
    assert_eq!(supervisor.cli(&["info", "%2", "--json"]).ok().json()["name"], "a");
}

#[test]
fn status_json_has_the_ledger_and_what_stands_beside_it() {
    let supervisor = Supervisor::start();
    supervisor.call(&["a", "count"]);
    let status = supervisor.status();
    let ledger = ["accepted", "done", "failed", "discarded", "expired", "dead", "pending", "running"];
    has_keys(&status["ledger"], &ledger);
    has_keys(
        &status,
        &["refused", "ignored", "version", "pid", "uptime_ms", "socket", "config", "limits", "counts", "stopping"],
    );
    assert_eq!(status["pid"], supervisor.pid());
    assert_eq!(status["socket"], supervisor.socket().to_str().unwrap());
    assert_eq!((&status["ledger"]["accepted"], &status["ledger"]["done"]), (&json!(1), &json!(1)));
}

#[test]
fn kill_json_and_its_receipt() {
    let mut supervisor = Supervisor::start();
    let held = supervisor.hold("a");
    supervisor.cli(&["call", "a", "count"]).ok();
    assert_eq!(
        supervisor.cli(&["kill", "a", "--json"]).ok().json(),
        json!({"killed": {"discarded": 1}, "worker": "a"})
    );
    held.release();
    supervisor.cli(&["wait", "a", "--gone"]).ok();
    let ignored = json!({"ignored": {"reason": "no_worker"}, "worker": "a"});
    assert_eq!(supervisor.cli(&["kill", "a", "--json"]).ok().json(), ignored);
    assert_eq!(supervisor.cli(&["kill", "a", "--wait", "--json"]).ok().json(), ignored);
    supervisor.call(&["a", "count"]);
    let receipt = supervisor.cli(&["kill", "a", "--wait", "--json"]).ok().json();
    for (key, value) in [
        ("worker", json!("a")),
        ("number", json!(3)),
        ("generation", json!(1)),
        ("discarded", json!(0)),
        ("current", json!("none")),
        ("ended_by", json!("ask")),
        ("exit", json!({"code": 0})),
    ] {
        assert_eq!(receipt[key], value, "{key} in {receipt}");
    }
    assert!(receipt["took_ms"].is_u64());
    // A list for several workers and for patterns, whatever they match.
    supervisor.call(&["a", "count"]);
    let held = supervisor.hold("b");
    let several = supervisor.cli(&["kill", "a", "b", "--now", "--wait", "--json"]).ok().json();
    assert_eq!((&several[0]["worker"], &several[0]["current"]), (&json!("a"), &json!("none")));
    assert_eq!((&several[1]["worker"], &several[1]["current"]), (&json!("b"), &json!("interrupted")));
    assert_eq!((&several[1]["ended_by"], &several[1]["exit"]), (&json!("kill"), &json!({"signal": 9})));
    held.release();
    assert_eq!(supervisor.cli(&["kill", "x*", "--json"]).ok().json(), json!([]));
    supervisor.call(&["a/1", "count"]);
    assert_eq!(
        supervisor.cli(&["kill", "a/*", "--json"]).ok().json(),
        json!([{"killed": {"discarded": 0}, "worker": "a/1"}])
    );
}

// ---- arguments ------------------------------------------------------------------------------

#[test]
fn an_argument_is_json_if_it_parses_as_json_else_a_string() {
    let supervisor = Supervisor::start();
    let echoed = supervisor.call(&[
        "a",
        "echo",
        "5",
        "-5",
        "-0.5",
        "-1e3",
        "true",
        "null",
        "text",
        "two words",
        "",
        "007",
        "[1,\"x\"]",
        "{\"k\":[]}",
        "\"5\"",
        "{broken",
        "é",
    ]);
    assert_eq!(
        echoed,
        json!([5, -5, -0.5, -1e3, true, null, "text", "two words", "", "007", [1, "x"], {"k": []}, "5", "{broken", "é"])
    );
    assert_eq!(supervisor.call(&["a", "echo", "--", "--wait", "-x"]), json!(["--wait", "-x"]));
    assert_eq!(supervisor.call(&["a", "echo"]), json!([]));
    let large = json!([u64::MAX, i64::MIN]);
    assert_eq!(supervisor.call(&["a", "echo", &large[0].to_string(), &large[1].to_string()]), large);
}

#[test]
fn args_is_the_whole_list_or_comes_from_stdin() {
    let supervisor = Supervisor::start();
    assert_eq!(supervisor.call(&["a", "echo", "--args", "[1, [2], \"x\"]"]), json!([1, [2], "x"]));
    let stdin = |text: &str| {
        output_of(&mut supervisor.command(&["call", "a", "echo", "--wait", "--args", "-"]), text.as_bytes())
    };
    assert_eq!(stdin("[1,\n 2]\n").ok().json(), json!([1, 2]));
    // Larger than a command line can be.
    let large = json!(["x".repeat(300_000)]);
    assert_eq!(stdin(&large.to_string()).ok().json(), large);
}

// ---- --lines --------------------------------------------------------------------------------

fn numbered(count: usize) -> Vec<u8> {
    (0..count).flat_map(|number| format!("[{number}]\n").into_bytes()).collect()
}

#[test]
fn lines_posts_a_hundred_thousand_in_their_order() {
    // A debug build proves its ledger at each step from all that waits: so few wait here.
    let supervisor =
        Supervisor::with_config("class.a = { exec = ['{bin}/test-worker'], mailbox = { messages = 400 } }");
    let posted = output_of(&mut supervisor.command(&["call", "a", "in_order", "--lines"]), &numbered(100_000)).ok();
    assert_eq!((&*posted.out, &*posted.err), ("", ""));
    assert_eq!(supervisor.call(&["a", "count"]), 100_001);
    assert_eq!(supervisor.status()["ledger"]["failed"], 0);
}

#[test]
fn lines_keeps_the_order_through_a_mailbox_that_is_always_full() {
    let supervisor = Supervisor::with_config("class.a = { exec = ['{bin}/test-worker'], mailbox = { messages = 10 } }");
    output_of(&mut supervisor.command(&["call", "a", "in_order", "--lines"]), &numbered(1_000)).ok();
    supervisor.cli(&["wait", "a", "--idle"]).ok();
    let status = supervisor.status();
    assert_eq!((&status["ledger"]["done"], &status["ledger"]["failed"]), (&1000.into(), &0.into()));
    assert!(status["refused"].as_u64() >= Some(1), "it was full indeed");
}

#[test]
fn lines_stops_at_a_bad_line_and_says_which() {
    let supervisor = Supervisor::start();
    let file = supervisor.path("posted");
    let good = |line: &str| json!([file, line]).to_string();
    let bad: [(&[u8], &str); 3] =
        [(b"{\"not\": \"a list\"}", "not a JSON array"), (b"[1,", "not JSON"), (b"[\"\xff\"]", "not JSON")];
    for (bad, part) in bad {
        let text =
            [good("1").as_bytes(), b"\n\n", good("2").as_bytes(), b"\n", bad, b"\n", good("3").as_bytes()].concat();
        let stopped = output_of(&mut supervisor.command(&["call", "a", "log", "--lines"]), &text);
        stopped.fails(2, &["line 4", part, "2 lines before it were posted"]);
    }
    supervisor.cli(&["wait", "a", "--idle"]).ok();
    assert_eq!(lines(&file), ["1", "2"].repeat(3));
}

#[test]
fn lines_stops_at_a_line_that_is_refused_and_says_which() {
    let supervisor = Supervisor::with_config("supervisor.message_bytes = '1KiB'\nclass.a.exec = ['{bin}/test-worker']");
    for (bytes, way) in [(2000, "of the supervisor"), (17 << 20, "of the wire")] {
        let text = [b"[1]\n[2]\n[\"", "x".repeat(bytes).as_bytes(), b"\"]\n[3]\n"].concat();
        let refused = output_of(&mut supervisor.command(&["call", "a", "echo", "--lines", "--wait"]), &text);
        let refused = refused.fails(3, &["line 3: refused: too_large", "2 lines before it were posted"]);
        assert_eq!(refused.out, "[1]\n[2]\n", "the limit {way}");
    }
    let text = numbered(3);
    output_of(&mut supervisor.command(&["call", "c", "echo", "--lines"]), &text)
        .fails(3, &["line 1: refused: no_class", "0 lines"]);
}

#[test]
fn lines_with_wait_prints_one_result_per_line() {
    let supervisor = Supervisor::start();
    let waited = output_of(&mut supervisor.command(&["call", "a", "echo", "--lines", "--wait"]), &numbered(1_000)).ok();
    assert_eq!(waited.out.as_bytes(), numbered(1_000));
    // What fails does not stop the others, but shows in the status.
    let waited = output_of(
        &mut supervisor.command(&["call", "a", "in_order", "--lines", "--wait", "--json"]),
        b"[0]\n[5]\n[1]\n",
    );
    let shown: Vec<Value> = waited.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        shown,
        [
            json!({"done": {"result": null}}),
            json!({"failed": {"error": "5 came when 1 was due"}}),
            json!({"done": {"result": null}})
        ]
    );
    waited.fails(1, &["5 came when 1 was due"]);
}

#[test]
fn lines_that_come_slowly_are_posted_one_by_one() {
    let mut supervisor = Supervisor::start();
    let mut command = supervisor.command(&["call", "a", "in_order", "--lines"]);
    let mut posting = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = posting.stdin.take().unwrap();
    for number in 0..3_u64 {
        writeln!(stdin, "[{number}]").unwrap();
        supervisor.until("the line was executed", |this| this.status()["ledger"]["done"] == number + 1);
    }
    drop(stdin);
    assert!(posting.wait().unwrap().success());
}

// ---- wait -----------------------------------------------------------------------------------

#[test]
fn wait_returns_when_it_is_so() {
    let mut supervisor = Supervisor::start();
    for until in ["--idle", "--gone", "--empty"] {
        supervisor.cli(&["wait", "a", until]).ok();
    }
    let not_yet = |this: &Supervisor, until: &str| {
        this.cli(&["wait", "a", until, "--timeout", "20ms"]).fails(5, &["time ran out"]);
    };
    let first = supervisor.hold("a");
    let second = supervisor.post_hold("a");
    for until in ["--idle", "--gone", "--empty"] {
        not_yet(&supervisor, until);
    }
    first.release();
    // The second is executed: nothing is pending any more.
    supervisor.cli(&["wait", "a", "--empty"]).ok();
    assert!(first.has_ended());
    not_yet(&supervisor, "--idle");
    second.release();
    supervisor.cli(&["wait", "a", "--idle"]).ok();
    assert!(second.has_ended());
    not_yet(&supervisor, "--gone");
    supervisor.cli(&["kill", "a"]).ok();
    supervisor.cli(&["wait", "a", "--gone"]).ok();
    assert!(supervisor.ps("a").is_null());
}

#[test]
fn a_timeout_of_nothing_asks_and_does_not_wait() {
    let mut supervisor = Supervisor::start();
    let held = supervisor.hold("a");
    supervisor.cli(&["wait", "a", "--idle", "--timeout", "0s"]).fails(5, &["time ran out"]);
    // The message is posted all the same, as the sentence says.
    supervisor.cli(&["call", "a", "count", "--wait", "--timeout", "0s"]).fails(5, &["what was asked for goes on"]);
    assert_eq!(supervisor.ps("a")["pending"], 1);
    supervisor.cli(&["call", "c", "count", "--wait", "--timeout", "0s"]).fails(3, &["no_class"]);
    supervisor.cli(&["kill", "a", "--wait", "--timeout", "0s"]).fails(5, &["what was asked for goes on"]);
    assert_eq!(supervisor.ps("a")["state"], "ending");
    held.release();
    supervisor.cli(&["wait", "a", "--gone"]).ok();
    supervisor.cli(&["wait", "a", "--gone", "--timeout", "0s"]).ok();
    supervisor.cli(&["kill", "a", "--wait", "--timeout", "0s"]).ok();
}

// ---- for people -----------------------------------------------------------------------------

/// Runs a command in a terminal; `None`, with the reason, where there is no `script`.
fn in_terminal(supervisor: &Supervisor, command: &str, no_color: &str) -> Option<String> {
    let mut script = Command::new("script");
    script.args(["-qec", command, "/dev/null"]).env("WORKHALL_SOCKET", supervisor.socket()).stdin(Stdio::null());
    script.env("NO_COLOR", no_color).env("TERM", "xterm").env("PATH", path());
    match script.output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) => {
            println!("skipped: `script` of util-linux does not start: {error}");
            None
        }
    }
}

fn path() -> String {
    format!("{}:{}", bin_dir().display(), std::env::var("PATH").unwrap_or_default())
}

#[test]
fn ps_is_an_aligned_table_without_escape_codes() {
    let mut supervisor = Supervisor::start();
    supervisor.call(&["a/with a long name", "count"]);
    let held = supervisor.hold("b");
    let table = supervisor.cli(&["ps"]).ok().out;
    assert!(!table.contains('\u{1b}'), "{table}");
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 3, "{table}");
    for title in ["NAME", "NUMBER", "CLASS", "STATE"] {
        let column = rows[0].find(title).unwrap();
        for row in &rows {
            assert!(row[column..].starts_with(|c: char| c != ' '), "{title}:\n{table}");
            assert!(column == 0 || row[..column].ends_with("  "), "{title}:\n{table}");
        }
    }
    for title in ["PID", "GEN", "PENDING", "EXECUTED"] {
        let end = rows[0].find(title).unwrap() + title.len();
        assert!(rows.iter().all(|row| row[..end].ends_with(|c: char| c != ' ')), "{title} is aligned right:\n{table}");
    }
    assert!(rows.iter().all(|row| !row.ends_with(' ')), "{table}");
    held.release();
}

#[test]
fn colours_are_for_terminals_and_never_under_no_color() {
    let supervisor = Supervisor::start();
    supervisor.call(&["a", "count"]);
    let Some(colourful) = in_terminal(&supervisor, "workhall ps", "") else { return };
    assert!(colourful.contains('\u{1b}') && colourful.contains("idle"), "{colourful:?}");
    let plain = in_terminal(&supervisor, "workhall ps", "1").unwrap();
    assert!(!plain.contains('\u{1b}') && plain.contains("idle"), "{plain:?}");
    for command in ["workhall --help", "workhall frobnicate"] {
        let plain = in_terminal(&supervisor, command, "1").unwrap();
        assert!(!plain.contains('\u{1b}') && plain.contains("Usage"), "{plain:?}");
    }
}

#[test]
fn lines_shows_its_progress_on_a_terminal_only() {
    let supervisor = Supervisor::start();
    let file = supervisor.path("lines");
    std::fs::write(&file, numbered(3_000)).unwrap();
    let command = format!("workhall call a in_order --lines < {}", file.display());
    let Some(shown) = in_terminal(&supervisor, &command, "") else { return };
    assert!(shown.contains("posted  ") && shown.contains(" left"), "no progress: {shown:?}");
    assert!(shown.contains("3000 messages posted to a"), "{shown:?}");
    let piped =
        output(supervisor.command(&["call", "b", "in_order", "--lines"]).stdin(std::fs::File::open(&file).unwrap()))
            .ok();
    assert_eq!((&*piped.out, &*piped.err), ("", ""));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let supervisor = Supervisor::start();
    let nobody_reads = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    let mut ps = supervisor.command(&["ps", "--json"]);
    let quiet = ps.stdout(nobody_reads()).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!((quiet.status.code(), &*quiet.stderr), (Some(0), &b""[..]));
    let mut refused = supervisor.command(&["call", "c", "count"]);
    assert_eq!(refused.stderr(nobody_reads()).status().unwrap().code(), Some(3));
}

#[test]
fn a_supervisor_whose_stderr_nobody_reads_serves_on() {
    let mut supervisor = Supervisor::start();
    let socket = supervisor.path("other");
    let mut serve = supervisor.command(&["serve", "--workers", supervisor.path("workers").to_str().unwrap()]);
    serve.arg("--socket").arg(&socket).stderr(Stdio::piped());
    let mut serve = serve.spawn().unwrap();
    let mut ready = String::new();
    let mut stderr = BufReader::new(serve.stderr.take().unwrap());
    stderr.read_line(&mut ready).unwrap();
    assert!(ready.contains("ready at"), "{ready}");
    drop(stderr);
    let pid = nix::unistd::Pid::from_raw(serve.id() as i32);
    nix::sys::signal::kill(pid, Signal::SIGHUP).unwrap();
    let status = supervisor.cli(&["status", "--json", "--socket", socket.to_str().unwrap()]);
    let _ended = nix::sys::signal::kill(pid, Signal::SIGTERM);
    let mut ended = None;
    supervisor.until("it has ended", |_| {
        ended = serve.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(status.ok().json()["pid"], serve.id());
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let workhall = |args: &[&str]| output(Command::new(bin_dir().join("workhall")).args(args)).ok().out;
    let help = workhall(&["--help"]);
    assert!(help.contains("Examples:\n  workhall serve"), "{help}");
    for command in ["serve", "call", "kill", "ps", "info", "status", "wait", "check", "completions"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} in:\n{help}");
        let help = workhall(&[command, "--help"]);
        assert!(help.contains(&format!("\n  workhall {command}")), "no example:\n{help}");
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    for (shell, part) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef workhall"),
        ("fish", "complete -c workhall"),
        ("elvish", "edit:completion"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let text = output(Command::new(bin_dir().join("workhall")).args(["completions", shell])).ok().out;
        assert!(text.contains(part) && text.contains("kill"), "{shell}: {text}");
    }
}

#[test]
fn check_reads_a_configuration_as_serve_would() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("w.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        output(Command::new(bin_dir().join("workhall")).arg("check").arg(&file))
    };
    let good = check("class.a.exec = ['/bin/sh']\nclass.b.exec = ['/bin/cat']").ok();
    assert_eq!(good.out, format!("{}: correct: classes a, b\n", file.display()));
    assert_eq!(good.err, "");
    let warned = check("class.a.exec = ['/no/such/program']").ok();
    assert!(warned.err.contains("warning: class `a`: there is no executable `/no/such/program`"), "{warned:?}");
    let at = |line: u32, column: u32| format!("{}:{line}:{column}:", file.display());
    for (text, place, part) in [
        ("[class.a]\nexec = ['x']\nmailbix = 1", at(3, 1), "mailbix"),
        ("[supervisor]\nshutdown_grace = 5", at(2, 18), "string"),
        ("[class.a]\nexec = [", at(2, 9), ""),
    ] {
        let bad = check(text);
        assert_eq!((bad.code, &*bad.out), (2, ""), "{bad:?}");
        assert!(bad.err.contains(&place) && bad.err.contains(part), "{place} {part} in {bad:?}");
    }
    let missing = dir.path().join("missing.toml");
    let missing = output(Command::new(bin_dir().join("workhall")).arg("check").arg(&missing));
    missing.fails(2, &["cannot read", "missing.toml"]);
}

#[test]
fn wait_and_check_speak_json_too() {
    let supervisor = Supervisor::with_config("class.a.exec = ['{bin}/test-worker']\nclass.b.exec = ['/nowhere']");
    assert_eq!(supervisor.cli(&["wait", "a", "--idle", "--json"]).ok().json(), json!({"reached": {}}));
    let file = supervisor.path("workhall.toml");
    let checked = supervisor.cli(&["check", file.to_str().unwrap(), "--json"]).ok().json();
    assert_eq!((&checked["correct"], &checked["classes"]), (&json!(true), &json!(["a", "b"])));
    assert!(checked["warnings"][0].as_str().unwrap().contains("/nowhere"), "{checked}");
}

#[test]
fn workers_are_listed_in_pages_and_each_stands_in_one() {
    let supervisor = Supervisor::with_config(ANY_NAME);
    for worker in ["d", "b", "e", "a", "c"] {
        supervisor.call(&[worker, "count"]);
    }
    let page = |args: &[&str]| {
        let shown = supervisor.cli(&[&["ps", "--json"], args].concat()).ok().json();
        shown.as_array().unwrap().clone()
    };
    let names = |rows: &[Value]| rows.iter().map(|row| row["name"].as_str().unwrap().to_string()).collect::<String>();
    assert_eq!(names(&page(&[])), "abcde", "all of them are sorted by name");
    let first = page(&["--limit", "2"]);
    assert_eq!(names(&first), "db", "a page has the order of the places");
    let after = first[1]["at"].to_string();
    // Who leaves between two pages moves nobody else.
    supervisor.cli(&["kill", "b", "--wait"]).ok();
    let second = page(&["--limit", "2", "--after", &after]);
    assert_eq!(names(&second), "ea");
    let third = page(&["--limit", "2", "--after", &second[1]["at"].to_string()]);
    assert_eq!(names(&third), "c");
    assert!(page(&["--limit", "2", "--after", &third[0]["at"].to_string()]).is_empty());
    assert!(page(&["--after", "99999999999"]).is_empty());
    let shown = supervisor.cli(&["ps", "--limit", "1"]).ok();
    assert!(shown.err.contains("workhall ps --limit 1 --after "), "{shown:?}");
    supervisor.cli(&["ps", "--limit", "x"]).fails(2, &["--limit"]);
}

/// What a worker answers reaches the terminal of whoever calls it.
#[test]
fn results_and_json_lines_hold_no_control_characters() {
    let supervisor = Supervisor::start();
    let text = "\u{9b}31m red \u{7f}\u{80}\u{9f}\u{a0}ü\u{1b}[0m";
    let args = json!([text]).to_string();
    for json_line in [false, true] {
        let mut command = vec!["call", "a", "echo", "--wait", "--args", &args];
        command.extend(json_line.then_some("--json"));
        let out = supervisor.cli(&command).ok().out;
        assert!(!out.trim_end().chars().any(char::is_control), "{out:?}");
        let value: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(if json_line { &value["done"]["result"] } else { &value }, &json!([text]), "{out}");
    }
}

#[test]
fn who_mistypes_a_name_is_told_that_there_is_no_such_worker() {
    let supervisor = Supervisor::start();
    let said = |args: &[&str]| {
        let output = supervisor.cli(args).ok();
        assert!(output.out.is_empty() || output.out == "[]\n", "{output:?}");
        output.err
    };
    for (what, kept) in [("logs", "lines"), ("events", "events")] {
        let none = format!("workhall: typo: there is no such worker now, and no {kept} of one are kept\n");
        assert_eq!(said(&[what, "typo"]), none);
        assert_eq!(said(&[what, "typo", "--json"]), none);
        assert_eq!(said(&[what]), "");
    }
    assert_eq!(said(&["kill", "w/["]), "workhall: w/[: there is no such worker, nothing to do\n");
    assert_eq!(said(&["kill", "%x"]), "workhall: %x: there is no such worker, nothing to do\n");
    assert_eq!(said(&["kill", "w/*"]), "workhall: no worker matches `w/*`: nothing to do\n");
    supervisor.call(&["a", "count"]);
    assert_eq!(said(&["logs", "a"]), "", "it has written nothing");
    assert_eq!(said(&["kill", "a"]), "");
    supervisor.cli(&["wait", "a", "--gone"]).ok();
    supervisor.kill(&["b"]);
    // What is kept of one who is gone is shown, and nothing else is said.
    let events = supervisor.cli(&["events", "a"]).ok();
    assert!(events.err.is_empty() && events.out.contains(" gone"), "{events:?}");
}

#[test]
fn a_wait_whose_time_runs_out_says_what_is_not_so() {
    let mut supervisor = Supervisor::start();
    let held = supervisor.hold("a");
    let late = supervisor.cli(&["wait", "a", "--idle", "--timeout", "1ms"]);
    late.fails(5, &["workhall: the time ran out, and a is not idle\n"]);
    held.release();
}

#[test]
fn check_warns_of_a_directory_for_metrics_that_is_not_there() {
    let supervisor = Supervisor::start();
    let text = format!("{}supervisor.metrics = '/no dir/x'\n", "class.a.exec = ['true']\n");
    let file = supervisor.file("metrics.toml", &text);
    let checked = supervisor.cli(&["check", file.to_str().unwrap()]).ok();
    assert_eq!(checked.err, "workhall: warning: `metrics` in [supervisor]: there is no directory /no dir\n");
}

#[test]
fn w04_with_name_a_worker_is_named_whatever_its_name_looks_like() {
    let supervisor = Supervisor::with_config(ANY_NAME);
    for name in ["a", "%2", "%02", "*", "**"] {
        assert_eq!(supervisor.call(&["--name", name, "count"]), 1, "{name}");
    }
    let number = |name: &str| supervisor.cli(&["info", "--name", "--json", name]).ok().json()["number"].clone();
    let numbers = ["a", "%2", "%02", "*", "**"].map(number);
    assert_eq!(numbers, [2, 3, 4, 5, 6].map(Value::from));
    assert_eq!(supervisor.cli(&["info", "--json", "%2"]).ok().json()["name"], "a");
    // The second of them, and not the first.
    supervisor.cli(&["pause", "--name", "%2"]).ok();
    assert_eq!([2, 3].map(|number| state(&supervisor, number)), ["idle", "paused"]);
    supervisor.cli(&["call", "--name", "%2", "count"]).ok();
    supervisor.cli(&["wait", "%2", "--empty"]).ok();
    supervisor.cli(&["wait", "--name", "%2", "--empty", "--timeout", "1ms"]).fails(5, &["%2 is not empty"]);
    supervisor.cli(&["resume", "%2", "--name"]).ok();
    supervisor.cli(&["wait", "--name", "%2", "--idle"]).ok();
    assert_eq!(state(&supervisor, 3), "idle");
    let paused = |more: &[&str]| {
        let events = supervisor.cli(&[&["events", "--json", "%2"], more].concat()).ok().json();
        let paused = |event: &&Value| event["event"] == "paused";
        events.as_array().unwrap().iter().find(paused).map(|event| event["number"].clone())
    };
    assert_eq!([paused(&[]), paused(&["--name"])], [None, Some(json!(3))]);
    let lines = |more: &[&str]| supervisor.cli(&[&["logs", "--json", "%2"], more].concat()).ok().json();
    supervisor.call(&["--name", "%2", "count"]);
    assert_eq!((lines(&[]), lines(&["--name"])), (json!([]), json!([])));
    let killed = supervisor.cli(&["kill", "--wait", "--json", "--name", "--", "*"]).ok().json();
    assert_eq!(killed["number"], 5, "one, and no list: {killed}");
    let killed = supervisor.cli(&["kill", "--wait", "--json", "--name", "%02", "?*"]).ok().json();
    assert_eq!((&killed[0]["number"], &killed[1]["ignored"]["reason"]), (&json!(4), &json!("no_worker")), "{killed}");
    assert_eq!([2, 3, 6].map(|number| state(&supervisor, number)), ["idle", "idle", "idle"]);
    for command in ["kill", "logs", "events"] {
        supervisor.cli(&[command, "--name"]).fails(2, &["<WORKER>"]);
    }
}

#[test]
fn k05_who_is_named_by_name_number_and_pattern_is_killed_once() {
    let supervisor = Supervisor::with_config(ANY_NAME);
    let killed = |workers: &[&str]| {
        let killed = supervisor.cli(&[&["kill", "--wait", "--json"], workers].concat()).ok().json();
        killed.as_array().unwrap().iter().map(|one| one["number"].clone()).collect::<Vec<Value>>()
    };
    for name in ["a", "%3"] {
        assert_eq!(supervisor.call(&["--name", name, "count"]), 1, "{name}");
    }
    assert_eq!(killed(&["%2", "a", "%02"]), [json!(2)]);
    assert_eq!(supervisor.call(&["a", "count"]), 1);
    // The successor of `a` is number 4.
    assert_eq!(killed(&["*", "%4", "%3"]), [json!(3), json!(4)]);
    // A number that nobody has is not a name that looks like it.
    supervisor.cli(&["call", "--name", "%9", "count", "--wait"]).ok();
    assert_eq!(killed(&["%9", "%*"]), [Value::Null, json!(5)]);
}

#[test]
fn k05_one_that_is_ending_and_its_successor_are_two_by_number_and_one_by_name() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    let line = |supervisor: &Supervisor| -> Vec<u64> {
        let rows = supervisor.cli(&["ps", "--json"]).ok().json();
        let mut numbers: Vec<u64> = rows.as_array().unwrap().iter().filter_map(|row| row["number"].as_u64()).collect();
        numbers.sort_unstable();
        numbers
    };
    for by in ["numbers", "number and name", "name and number", "number and pattern"] {
        supervisor.cli(&["call", "a", "sleep", "1000000"]).ok();
        supervisor.until("it is busy", |this| this.ps("a")["state"] == "busy");
        supervisor.cli(&["kill", "a"]).ok();
        supervisor.cli(&["call", "a", "count"]).ok();
        let numbers = line(&supervisor);
        let [old, new] = numbers[..] else { panic!("{numbers:?}") };
        let [old, new] = [old, new].map(|number| format!("%{number}"));
        let targets = match by {
            "numbers" => [&*old, &new],
            "number and name" => [&*old, "a"],
            "name and number" => ["a", &new],
            _ => [&*old, "*"],
        };
        let killed = supervisor.cli(&[&["kill", "--now", "--json", "--wait"], &targets[..]].concat()).ok().json();
        assert_eq!(killed.as_array().unwrap().len(), if by == "numbers" { 2 } else { 1 }, "{by}: {killed}");
        supervisor.until("both are gone", |this| line(this).is_empty());
        assert_eq!(supervisor.ledger("done"), 0, "{by}");
    }
}

fn state(supervisor: &Supervisor, number: u64) -> Value {
    supervisor.cli(&["info", &format!("%{number}"), "--json"]).ok().json()["state"].clone()
}
