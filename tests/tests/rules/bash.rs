//! The library for bash, on a real supervisor.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use workhall_protocol::args::Payload;
use workhall_protocol::messages::{Call, OutcomeBody};
use workhall_tests::harness::{ANY_NAME, Output, Supervisor, bin_dir, lives, output, workspace};

use super::examples::is_there;

fn library(file: &str) -> String {
    workspace().join("worker-host/bash").join(file).to_str().unwrap().to_string()
}

/// All of `probe`, `other` and `a/…` are `worker-host/bash/test/probe`. None where there is no bash.
fn with_probe() -> Option<Supervisor> {
    let exec = library("test/probe");
    is_there("bash").then(|| {
        Supervisor::with_config(&format!("[class.probe]\nexec = [{exec:?}]\nnames = [\"probe\", \"other\", \"a/*\"]\n"))
    })
}

/// Runs a script that has sourced the library.
fn script(text: &str, args: &[&OsStr]) -> Output {
    let text = format!(". '{}'\nset -u\n{text}", library("workhall.bash"));
    output(Command::new("bash").args(["-c", &text, "script"]).args(args).env_remove("WORKHALL_FD"))
}

/// Runs a script that has sourced the library and is no worker.
fn outside(supervisor: &Supervisor, text: &str) -> Output {
    let text = format!(". '{}'\n{text}", library("workhall.bash"));
    let path = format!("{}:{}", bin_dir().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command.args(["-c", &text]).env("PATH", path).env("WORKHALL_SOCKET", supervisor.socket());
    output(command.env_remove("WORKHALL_FD"))
}

#[track_caller]
fn failure(supervisor: &Supervisor, args: &[&str]) -> String {
    let output = supervisor.cli(&[&["call", "probe"], args, &["--wait", "--timeout", "60s"]].concat());
    assert_eq!(output.code, 1, "{output:?}");
    output.err
}

fn call(supervisor: &Supervisor, method: &str, args: &Value) -> Value {
    supervisor.call(&["probe", method, "--args", &args.to_string()])
}

// ---- JSON -------------------------------------------------------------------------------------

#[test]
fn texts_become_json_and_come_back_and_what_is_no_utf_8_is_replaced() {
    if !is_there("bash") {
        return;
    }
    let all: String = (1..=0x2ff).filter_map(char::from_u32).collect();
    let long = "line \"x\"\\\n".repeat(2000);
    let same: [&[u8]; 12] = [
        b"",
        b"plain",
        b"a\"b\\c/d",
        b"\\\"\\\\\n",
        b" lead\t\r\n\n",
        b"$(x) `y` * & \\1 %s ! ~",
        "é😀ü\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}".as_bytes(),
        b"-n",
        b"{\"a\":[1]}",
        b"\x7f\x1b[0m",
        all.as_bytes(),
        long.as_bytes(),
    ];
    let odd: [&[u8]; 9] = [
        b"a\xffb",
        b"\xc3(",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x98",
        b"\xc0\xaf",
        b"\xf5\x80\x80\x80",
        b"\xe2\xc3\xa9\x82\xac",
        b"\xf4\x90\x80\x80\xe2\x82\xac",
        &[0x80; 5000],
    ];
    const SCRIPT: &str = "for text; do workhall_json \"$text\"; echo \"$REPLY\"; \
        workhall_text \"$REPLY\"; [[ $REPLY = \"$text\" ]] && echo same || echo other; done";
    for locale in ["C", "C.UTF-8"] {
        let text = format!("LC_ALL={locale}; {SCRIPT}");
        let args: Vec<&OsStr> = same.iter().chain(&odd).map(|bytes| OsStr::from_bytes(bytes)).collect();
        let printed = script(&text, &args).ok();
        let lines: Vec<&str> = printed.out.lines().collect();
        assert_eq!(lines.len(), 2 * args.len(), "{printed:?}");
        for (at, bytes) in same.iter().chain(&odd).enumerate() {
            let written: String =
                serde_json::from_str(lines[2 * at]).unwrap_or_else(|e| panic!("{e}: {}", lines[2 * at]));
            let is_text = at < same.len();
            assert_eq!(lines[2 * at + 1], if is_text { "same" } else { "other" }, "{written}");
            match std::str::from_utf8(bytes) {
                Ok(text) => assert_eq!(written, text),
                // How many replacements stand for a broken sequence is anybody's choice: ours is one for each byte.
                Err(_) => {
                    assert_eq!(written.replace('\u{fffd}', ""), String::from_utf8_lossy(bytes).replace('\u{fffd}', ""))
                }
            }
        }
    }
}

#[test]
fn json_is_told_from_what_is_none_and_taken_apart() {
    if !is_there("bash") {
        return;
    }
    const CHECK: &str = "for text; do __wh_parse \"$text\" && { __wh_raw 0; echo \"$REPLY\"; } || echo none; done";
    let good = [
        "{}",
        "[]",
        "5",
        "\"a\"",
        "null",
        "-0.5e+3",
        "[1,2,{\"a\":[]}]",
        "[\"\\\\\"]",
        "[\"\\\\\\\"\",1]",
        "[\"[,]{:}\",{\"{\":\"}\"}]",
        " { \"a\" : [ 1 , \"x\\\"y\" ]\n} ",
        "[[[[]]],{\"a\":{\"b\":{}}}]",
        "[true,false,null,0,-1,1e9]",
        "[\"*\",\"?\"]",
    ];
    let bad = [
        "",
        " ",
        "{",
        "[1,]",
        "{\"a\"}",
        "{\"a\":}",
        "[1 2]",
        "nul",
        "01",
        "\"a",
        "{\"a\":1,}",
        "[]]",
        "{1:2}",
        "1,2",
        "[\"a\" \"b\"]",
        "{\"a\":1 \"b\":2}",
        "[,1]",
        "this is no JSON",
        "+1",
        "[1}",
        "{\"a\":1]",
        "*",
        "[*]",
        "\"a\"b",
        "{\"a\":1}}",
        "[\"\\\"]",
        "1.",
        ".5",
        "-",
    ];
    let args: Vec<&OsStr> = good.iter().chain(&bad).map(OsStr::new).collect();
    let printed = script(CHECK, &args).ok();
    let lines: Vec<&str> = printed.out.lines().collect();
    for (text, line) in good.iter().zip(&lines) {
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(read(line), read(text));
    }
    assert_eq!(lines[good.len()..], vec!["none"; bad.len()], "{bad:?}");

    // Rounded up: a time that is not zero does not become zero.
    let times = script(
        "for time; do __wh_millis x \"$time\"; echo \"$REPLY\"; done",
        &["0", "0.0000000", "0.0000001", "0.000001", "0.0010000", "0.0010001", "5.", "999999999.9999999"]
            .map(OsStr::new),
    );
    assert_eq!(times.ok().out, "0\n0\n1\n1\n1\n2\n5000\n1000000000000\n");

    let items = script(
        "workhall_items '[\"a\\u00e9\\ud83d\\ude00\\/\",1,{\"x\":1},null,true,{\"$signal\":\"ab\"}]'; printf '<%s>' \"${WORKHALL_ITEMS[@]}\"
         workhall_items '{\"k\":1,\"l\\n\":\"m\"}'; printf '(%s)' \"${WORKHALL_KEYS[@]}\" \"${WORKHALL_ITEMS[@]}\"
         workhall_items '[\"a\\u0000\"]' || echo \" $?\"; workhall_items 5 || echo \" $?\"
         workhall_list a -n 5 -j '{\"a\": [1]}' -s -n -S 0123456789abcdef0123456789abcdef -- -n x; echo \"$REPLY\"
         workhall_list -n 5x || echo \" $?\"; workhall_list -j '{' || echo \" $?\"; workhall_list -n || echo \" $?\"",
        &[],
    );
    assert_eq!(
        items.out,
        "<aé😀/><1><{\"x\":1}><><true><ab>(k)(l\n)(1)(m) 2\n 2\n[\"a\",5,{\"a\":[1]},\"-n\",{\"$signal\":\
         \"0123456789abcdef0123456789abcdef\"},\"-n\",\"x\"]\n 2\n 2\n 2\n"
    );
    for part in
        ["holds a NUL", "no list and no object", "\"5x\" is no number", "this is no JSON: {", "-n wants a value"]
    {
        assert!(items.err.contains(part), "{part}: {items:?}");
    }
}

// ---- workers ----------------------------------------------------------------------------------

#[test]
fn w06_a_worker_in_bash_keeps_its_variables_and_its_arguments_their_types() {
    let Some(supervisor) = with_probe() else { return };
    assert_eq!(call(&supervisor, "add", &json!([5])), 5);
    assert_eq!(call(&supervisor, "add", &json!([-2])), 3);
    assert_eq!(supervisor.call(&["a/x", "add", "1"]), 1);
    let values = json!([null, true, 1.5, "é😀\n\"\\ * $(x)", [1, [2]], {"a": {"b": null}}, {"$bytes": "AP8="}, u64::MAX, "a\u{0}b", ""]);
    // Who takes the texts cannot have a NUL; who takes the JSON can.
    assert!(
        failure(&supervisor, &["texts", "--args", &values.to_string()]).contains("argument 9 of `texts` holds a NUL")
    );
    let values = json!([null, true, 1.5, "é😀\n\"\\ * $(x)", [1, [2]], {"a": {"b": null}}, {"$bytes": "AP8="}, u64::MAX, " a ", ""]);
    assert_eq!(call(&supervisor, "echo", &values), values);
    let texts = json!([
        "",
        "true",
        "1.5",
        "é😀\n\"\\ * $(x)",
        "[1,[2]]",
        "{\"a\":{\"b\":null}}",
        "{\"$bytes\":\"AP8=\"}",
        u64::MAX.to_string(),
        " a ",
        ""
    ]);
    assert_eq!(call(&supervisor, "texts", &values), texts);
    assert_eq!(
        call(&supervisor, "odd_bytes", &json!([])),
        "a\u{fffd}\u{fffd}(\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}é\u{1}"
    );
    assert_eq!(call(&supervisor, "plain", &json!([])), Value::Null);
    let large = json!(["x".repeat(60_000), (0..3000).collect::<Vec<_>>()]);
    assert_eq!(call(&supervisor, "echo", &large), large);
}

#[test]
fn d03_a_function_that_fails_says_why_and_the_worker_lives_on() {
    let Some(mut supervisor) = with_probe() else { return };
    assert_eq!(call(&supervisor, "add", &json!([1])), 1);
    assert!(failure(&supervisor, &["status", "5"]).contains("`status` ended with status 5"));
    assert!(failure(&supervisor, &["says", "no", "such row"]).ends_with("failed: no such row\n"));
    assert!(failure(&supervisor, &["gives_up", "no reason"]).ends_with("failed: because: no reason\n"));
    assert!(failure(&supervisor, &["nul_on_stderr"]).ends_with("failed: ab\n"));
    assert!(failure(&supervisor, &["mistaken"]).contains("workhall_result: \"x\" is no number"));
    let lines = failure(&supervisor, &["many_lines"]);
    assert!(
        lines.ends_with("line 899\nline 900\n") && lines.len() < 4500 && lines.contains("failed: line "),
        "{lines}"
    );
    for method in ["what", "wh\"at", "wh\\at", "wh\nat", "$(exit 1)", "*", "@", "ls", "echo_all", "exit", ""] {
        let why = supervisor.cli(&["call", "probe", method, "--wait"]);
        assert!(method.is_empty() || why.err.contains("there is no method"), "{method}: {why:?}");
        assert!(
            method.is_empty() || why.err.contains("this worker has `add`, `any`, `ask_and_wait`"),
            "{method}: {why:?}"
        );
    }
    for (args, why) in [
        (&["add"][..], "it takes 1, and 0 came"),
        (&["add", "1", "2"], "it takes 1, and 2 came"),
        (&["some"], "it takes 1 to 2, and 0 came"),
        (&["any", "1"], "it takes 2 to any, and 1 came"),
    ] {
        assert!(failure(&supervisor, args).contains(why), "{args:?}");
    }
    assert_eq!(call(&supervisor, "any", &json!([1, 2, 3, 4])), Value::Null);
    assert_eq!(call(&supervisor, "add", &json!([1])), 2);
    // What it wrote is in its log when the failure is known.
    let logs = supervisor.cli(&["logs", "probe", "-n", "3000"]).ok();
    assert!(logs.out.contains("no such row") && logs.out.contains("line 1\n") && logs.out.contains("line 900\n"));
    // A child that holds stderr holds up nobody.
    let child = call(&supervisor, "leaves_a_child", &json!([])).as_i64().unwrap() as i32;
    assert!(failure(&supervisor, &["says", "again"]).ends_with("failed: again\n"));
    assert!(lives(child));
    supervisor.cli(&["kill", "probe", "--wait"]).ok();
    supervisor.until("its child has ended with it", |_| !lives(child));
}

#[test]
fn d03_the_reason_of_a_failure_comes_also_where_programs_start_slowly() {
    let Some(supervisor) = with_probe() else { return };
    let tee = output(Command::new("bash").args(["-c", "type -P tee"])).ok().out;
    let bin = supervisor.path("bin");
    fs::create_dir(&bin).unwrap();
    // As on a machine that has much to do.
    let slow = supervisor.path("bin/tee");
    fs::write(&slow, format!("#!/bin/sh\nsleep 1.5\nexec {} \"$@\"\n", tee.trim())).unwrap();
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).unwrap();
    let (exec, path) = (library("test/probe"), format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    supervisor
        .file("workhall.toml", &format!("[class.probe]\nexec = [{exec:?}]\nenvironment = {{ PATH = {path:?} }}\n"));
    supervisor.cli(&["reload"]).ok();
    assert!(failure(&supervisor, &["says", "no", "such row"]).ends_with("failed: no such row\n"));
    // What a child holds open holds nobody up for ever, and what it has not said is not waited for.
    let child = call(&supervisor, "leaves_a_child", &json!([])).as_i64().unwrap() as i32;
    assert!(failure(&supervisor, &["says", "again"]).ends_with("failed: again\n"));
    assert!(lives(child));
}

#[test]
fn d03_a_result_that_cannot_be_sent_fails_its_message_and_no_other() {
    let Some(supervisor) = with_probe() else { return };
    let result = |kind: &str, value: &str| {
        supervisor.cli(&["call", "probe", "result", "--wait", "--args", &json!([kind, value]).to_string()])
    };
    for (kind, value, why) in [
        ("-n", "1e999", "1e999 is too large a number"),
        ("-n", "-1.8e308", "-1.8e308 is too large a number"),
        ("-n", "0.01e311", "0.01e311 is too large a number"),
        ("-n", "1e99999999999999999999", "is too large a number"),
        ("-n", "1,5", "\"1,5\" is no number"),
        ("-n", "", "\"\" is no number"),
        ("-j", "{\"a\":}", "this is no JSON: {\"a\":}"),
        ("-j", "[1e999]", "1e999 is too large a number"),
        ("-j", "NaN", "this is no JSON: NaN"),
        ("-j", "[\"a\nb\"]", "a text in it holds a control character"),
        ("-j", "\"\\q\"", "an escape in it is none of JSON's"),
        ("-j", "\"\\u00\\n41\"", "an escape in it is none of JSON's"),
        ("-j", "\"\\ud800\"", "half a surrogate pair"),
        ("-j", "{\"$bytes\":\"!!\"}", "$bytes in it is no base64: \"!!\""),
        ("-j", "[{\"a\":{\"\\u0024bytes\":\"AB==\"}}]", "$bytes in it is no base64"),
        ("-j", "{\"$bytes\":\"AAA\"}", "$bytes in it is no base64"),
        ("-j", "[{\"$bytes\":1,\"\\u0024bytes\":\"!!\"}]", "$bytes in it is no base64: \"!!\""),
        ("-S", "x", "this is no signal: x"),
    ] {
        result(kind, value).fails(1, &["workhall_result: ", why]);
    }
    for (kind, value) in [
        ("-n", "1.7976931348623157e308"),
        ("-n", "0.000001e314"),
        ("-n", "1e-999"),
        ("-n", "0e999"),
        ("-j", "[\"\\ud83d\\ude00\\\\\\n\\u0041\",{\"$bytes\":\"AB==\",\"b\":1},{\"$bytes\":5},1E+2]"),
        (
            "-j",
            "[{\"$bytes\":\"!!\",\"$bytes\":\"AA==\"},{\"$bytes\":\"!!\",\"a\":1},{\"a\":1,\"$bytes\":\"!!\"},{\"$bytes\":\"\"},{\"$bytes\":\"AAE=\"}]",
        ),
    ] {
        let sent: Value = serde_json::from_str(value).unwrap();
        assert_eq!(result(kind, value).ok().json(), sent, "{value}");
    }
    // What a peer with the binary encoding may send is not yet what JSON can have.
    for (no_bytes, why) in [("!!", "no base64: \"!!\""), ("AAAA=", "no base64: \"AAAA=\"")] {
        let args = Payload::encode(&("-j", BTreeMap::from([("$bytes", no_bytes)]))).unwrap();
        let (_, outcome) = supervisor.client().call_and_wait(Call::new("probe", "result", args)).unwrap();
        match outcome {
            Some(OutcomeBody::Failed { error, .. }) => assert!(error.contains(why), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(call(&supervisor, "result_again", &json!(["1e999"])), "1e999");
    // The last one counts, whether or not its function looks at the status of the others.
    assert_eq!(call(&supervisor, "does", &json!(["workhall_result -n 1e999; workhall_result ok"])), "ok");
    assert!(failure(&supervisor, &["does", "workhall_result ok; workhall_result -n 1e999; :"]).contains("too large"));
    supervisor.cli(&["call", "probe", "deep", "64", "--wait"]).ok();
    assert!(failure(&supervisor, &["deep", "65"]).contains("it nests more than 64 levels deep"));
    assert!(failure(&supervisor, &["large", "17000000"]).contains("the result has 170000"));
    assert_eq!(call(&supervisor, "plain", &json!([])), Value::Null);
    assert_eq!(supervisor.ps("probe")["generation"], 1, "it is the same process");
}

#[test]
fn what_somebody_else_has_sent_is_never_an_option_in_bash() {
    let Some(supervisor) = with_probe() else { return };
    assert_eq!(call(&supervisor, "kills_unquoted", &json!([""])), 2);
    for text in ["-n", "-j", "-s", "-S", "--", "-", "-x", "--wait", "--json", "--name", "-e", "%7", ""] {
        assert_eq!(call(&supervisor, "returns", &json!([text])), text);
        assert_eq!(call(&supervisor, "returns", &json!(["--", text])), text);
        assert_eq!(call(&supervisor, "lists", &json!([text, text, "{}"])), json!(["1", 2, text, text, "{}"]));
        assert_eq!(call(&supervisor, "sends", &json!(["other", "texts", text, "{}", text])), json!([text, "{}", text]));
        if !text.is_empty() {
            // A method that is called so, and a worker.
            let why = failure(&supervisor, &["sends", "--args", &json!(["other", text]).to_string()]);
            assert!(why.contains(&format!("there is no method `{text}`")), "{why}");
            let why = failure(&supervisor, &["says_why", "--args", &json!([text]).to_string()]);
            assert!(why.ends_with(&format!("failed: {text}\n")), "{why}");
            assert_eq!(call(&supervisor, "kills", &json!([text])), "ignored no_worker");
            if text != "%7" {
                let why = failure(&supervisor, &["sends", "--args", &json!([text, "x"]).to_string()]);
                assert!(why.contains(&format!("no class matches `{text}`")), "{why}");
            }
        }
        assert_eq!(call(&supervisor, "sets", &json!([text])), json!({text: text, format!("x{text}"): text}));
        let why = failure(&supervisor, &["takes_apart", "--args", &json!([text]).to_string()]);
        assert!(why.contains("workhall_items: this is no JSON"), "{why}");
    }
    assert_eq!(call(&supervisor, "takes_apart", &json!(["[1,2]"])), "2");
}

#[test]
fn whatever_a_function_does_to_the_shell_the_next_one_begins_as_the_first() {
    let Some(supervisor) = with_probe() else { return };
    let first = call(&supervisor, "shell_is", &json!([]));
    for done in [
        "set -e",
        "set -euo pipefail",
        "set +u",
        "set -f -C -a -b -x -v",
        "set -E -T",
        "set -o posix",
        "set -t",
        "shopt -s nocasematch nullglob failglob dotglob lastpipe",
        "shopt -u sourcepath interactive_comments; shopt -s inherit_errexit localvar_unset",
        "IFS=",
        "IFS=0123456789",
        "unset IFS",
        "trap 'REPLY=junk IFS=' ERR",
        "trap 'REPLY=junk IFS=' RETURN",
        "set -T; trap 'REPLY=junk IFS=' DEBUG",
        "trap - PIPE",
        "trap '' PIPE",
        "trap 'exit 7' PIPE",
        "exec 1>&-",
        "exec 2>&-",
        "exec 0<&- 1>&- 2>&-",
        "exec 2>/dev/null",
        "exec >/dev/full 2>&1",
        "PATH=",
        "unset PATH",
        "LC_ALL=C.UTF-8 LANG=x",
        "WORKHALL_MESSAGE=4711 WORKHALL_METHOD= WORKHALL_ARGS=x",
        "unset WORKHALL_MESSAGE WORKHALL_METHOD WORKHALL_ARGS",
        "REPLY=x; unset REPLY",
        "set -- a b; shift 2",
        "break",
        "continue",
        "return 0",
        "set -e; false; true",
        "umask 777",
        "mkdir gone; cd gone; rmdir ../gone",
        "TMOUT=1; POSIXLY_CORRECT=1",
        "printf x; exec 3>&1",
    ] {
        supervisor
            .cli(&[
                "call",
                "probe",
                "does",
                "--wait",
                "--timeout",
                "60s",
                "--args",
                &json!([format!("cd {}; PATH=/usr/bin:/bin; {done}", supervisor.path("").display())]).to_string(),
            ])
            .ok();
        assert_eq!(call(&supervisor, "shell_is", &json!([])), first, "{done}");
        // Its own settings as a method: what it asks and what it says of a failure.
        let why = failure(&supervisor, &["what", "--args", "[\"é\",12]"]);
        assert!(why.contains("there is no method `what`: this worker has `add`, `any`"), "{done}: {why}");
        assert_eq!(call(&supervisor, "texts", &json!(["a b", 12, "x"])), json!(["a b", "12", "x"]), "{done}");
        assert!(failure(&supervisor, &["says", "no", "such row"]).ends_with("failed: no such row\n"), "{done}");
    }
    assert_eq!(supervisor.ps("probe")["generation"], 1, "it is the same process");
    // Under these the functions of the library do what they do.
    for set in [
        "set -e",
        "set -u",
        "IFS=",
        "IFS=0123456789-,",
        "set -f",
        "set -o posix",
        "set -E; trap 'exit 7' ERR",
        "shopt -s nocasematch failglob",
    ] {
        let ask = format!(
            "{set}; workhall_call --wait --timeout 20 other texts 'a b' -n 12; seen=$REPLY; workhall_signal_new; id=$REPLY
            workhall_signal_set \"$id\" k -n 1; workhall_signal_trigger \"$id\"; workhall_signal_wait \"$id\" 1.5; seen+=$REPLY
            workhall_ending || workhall_items '[1,[2,3]]'; workhall_list \"$seen\" \"${{WORKHALL_ITEMS[@]}}\"; workhall_result -j \"$REPLY\""
        );
        assert_eq!(
            call(&supervisor, "does", &json!([ask])),
            json!(["[\"a b\",\"12\"]{\"k\":1}", "1", "[2,3]"]),
            "{set}"
        );
    }
    // Variables of whatever name, and the directory, are the worker's state.
    call(&supervisor, "does", &json!(["name=1 word=2 raw=3 at=4 args=5 why=6 text=7 piece=8 pipe=9; cd /usr"]));
    assert_eq!(call(&supervisor, "add", &json!([1])), 1);
    assert_eq!(call(&supervisor, "state", &json!([])), "1 2 3 4 5 6 7 8 9 /usr");
}

#[test]
fn d02_a_function_that_makes_the_shell_execute_nothing_is_a_crash_and_not_the_end_of_all_work() {
    let Some(supervisor) = with_probe() else { return };
    for (done, generation) in [("set -n", 2), ("shopt -s extdebug; trap false DEBUG", 3)] {
        supervisor.cli(&["call", "probe", "does", done, "--wait", "--timeout", "60s"]).fails(6, &["crashed"]);
        assert_eq!(call(&supervisor, "who", &json!([]))[2], generation, "{done}");
    }
}

#[test]
fn d02_what_a_function_in_bash_makes_readonly_harms_no_other_message() {
    let Some(supervisor) = with_probe() else { return };
    let goes_on = |generation: u64, made: &str| {
        assert_eq!(call(&supervisor, "texts", &json!(["a b", 12])), json!(["a b", "12"]), "{made}");
        let asked = call(&supervisor, "pass_and_wait", &json!(["other", "returns", "x"]));
        assert_eq!((asked, &supervisor.ps("probe")["generation"]), (json!("x"), &json!(generation)), "{made}");
    };
    // By these the library answers a function: what it makes of them is over with it.
    for made in [
        "readonly REPLY",
        "REPLY=5; readonly REPLY",
        "readonly IFS",
        "readonly IFS=0 WORKHALL_RECEIPT=x WORKHALL_ITEMS WORKHALL_KEYS=y WORKHALL_METHOD WORKHALL_ARGS",
    ] {
        supervisor.cli(&["call", "probe", "does", made, "--wait", "--timeout", "60s"]).ok();
        goes_on(1, made);
    }
    let why = failure(&supervisor, &["does", "readonly REPLY=5; workhall_json x"]);
    assert!(why.contains("REPLY: readonly variable"), "{why}");
    goes_on(1, &why);
    // These the library cannot do without, and nothing takes a `readonly` back: the process says so, and makes place for another.
    for (made, name, generation) in
        [("readonly text=5", "text", 2), ("declare -gr REPLY=5", "REPLY", 3), ("readonly LC_ALL", "LC_ALL", 4)]
    {
        let why = failure(&supervisor, &["does", made]);
        assert!(why.contains(&format!("the variable `{name}` is readonly")), "{why}");
        goes_on(generation, made);
    }
    let started = script("readonly name=x; f() { :; }; workhall_run f", &[]);
    assert!(started.code == 2 && started.err.contains("the variable `name` is readonly"), "{started:?}");
}

/// The names that the library looks at are all that it has.
#[test]
fn the_library_for_bash_knows_the_names_of_its_own_variables() {
    let text = fs::read_to_string(library("workhall.bash")).unwrap();
    let is_name = |word: &str| word.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_') && !word.is_empty();
    let listed = text.split_once("\nreadonly __wh_names=(").unwrap().1.split_once(')').unwrap().0;
    let listed: Vec<&str> = listed.split_whitespace().collect();
    let mut seen = 0;
    for line in text.lines().filter_map(|line| line.trim_start().strip_prefix("local ")) {
        let line = line.split(';').next().unwrap();
        for name in line.split_whitespace().map(|word| word.split('=').next().unwrap()) {
            if is_name(name) && !name.starts_with("__wh_") && !name.starts_with("WORKHALL_") {
                assert!(listed.contains(&name), "`{name}` is not among the names of the library");
                seen += 1;
            }
        }
    }
    assert!(seen > 60, "{seen}");
}

#[test]
fn d03_a_mistake_in_arithmetic_is_a_failure_of_its_function() {
    let Some(supervisor) = with_probe() else { return };
    assert_eq!(call(&supervisor, "add", &json!([5])), 5);
    for _ in 0..3 {
        for (args, why) in [
            (["add", "{\"a\":1}"], "syntax error"),
            (["miscounts", "1 +"], "syntax error"),
            (["miscounts", "08"], "value too great for base"),
            (["miscounts_deep", "1/0"], "division by 0"),
            (["divides", "0"], "division by 0"),
        ] {
            let failed = failure(&supervisor, &args);
            assert!(failed.contains(why), "{args:?}: {failed}");
        }
        assert_eq!(call(&supervisor, "add", &json!([0])), 5, "what was local is gone, and the state is as it was");
        assert_eq!(call(&supervisor, "texts", &json!(["a b", 1])), json!(["a b", "1"]));
    }
    assert_eq!(supervisor.ps("probe")["generation"], 1, "it is the same process");
}

/// What a function does with the children of its shell is not mixed up with what the library has started.
#[test]
fn a_bare_wait_in_bash_waits_for_the_functions_own_children_and_a_quiet_child_holds_up_nobody() {
    let Some(mut supervisor) = with_probe() else { return };
    assert_eq!(call(&supervisor, "waits", &json!([])), 0);
    assert_eq!(call(&supervisor, "waits_for_any", &json!([])), 7);
    // Of the library's pipes a copy of its shell has the one by which the end of stderr comes back, and none that ends stderr.
    let child = call(&supervisor, "leaves_a_quiet_child", &json!([])).as_i64().unwrap() as i32;
    let pid = supervisor.ps("probe")["pid"].as_i64().unwrap();
    let links = |pid: i64, all: bool| -> Vec<PathBuf> {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap());
        let chosen = entries.filter(|entry| all || ["1", "2"].contains(&entry.file_name().to_str().unwrap()));
        chosen.map(|entry| fs::read_link(entry.path()).unwrap()).collect()
    };
    let (mut pipes, logs) = (links(child.into(), true), links(pid, false));
    pipes.retain(|link| link.to_str().unwrap().starts_with("pipe:") && !logs.contains(link));
    assert!(pipes.len() <= 1, "{pipes:?}");
    supervisor.cli(&["kill", "probe", "--wait"]).ok();
    supervisor.until("its child has ended with it", |_| !lives(child));
}

#[test]
fn d02_a_crash_in_bash_is_charged_to_its_message() {
    let Some(supervisor) = with_probe() else { return };
    supervisor.cli(&["call", "probe", "crash", "--wait"]).fails(6, &["crashed"]);
    assert_eq!(call(&supervisor, "add", &json!([1])), 1);
    assert_eq!(supervisor.ps("probe")["generation"], 2);
}

#[test]
fn the_children_of_a_worker_in_bash_hold_the_lock_of_its_name_and_not_its_connection() {
    let Some(supervisor) = with_probe() else { return };
    let shown = call(&supervisor, "descriptors", &json!([]));
    let shown = shown.as_str().unwrap();
    assert!(shown.contains("socket.names/"), "{shown}");
    assert!(!shown.contains("socket:[") && !shown.contains("workhall-mark"), "{shown}");
}

#[test]
fn c11_a_worker_in_bash_knows_who_has_called_it_and_answers() {
    let Some(mut supervisor) = with_probe() else { return };
    let who = call(&supervisor, "who", &json!([]));
    assert_eq!(
        (&who[0], &who[2], &who[4], &who[5], &who[6]),
        (&json!("probe"), &json!(1), &json!("who"), &json!(""), &json!(""))
    );
    assert_eq!(who[1], supervisor.ps("probe")["number"]);
    let seen = supervisor.call(&["other", "pass_and_wait", "probe", "who"]);
    let other = supervisor.ps("other")["number"].to_string();
    assert_eq!((&seen[5], seen[6].as_str()), (&json!("other"), Some(&*other)));
    let number = |of: &Supervisor| of.ps("other")["executed"].as_u64().unwrap();
    let before = number(&supervisor);
    supervisor.call(&["other", "pass_and_wait", "probe", "reply", "add", "7"]);
    supervisor.until("it is answered", |this| number(this) == before + 2);
    assert!(failure(&supervisor, &["reply", "add"]).contains("sent by a client, which cannot be called back"));
    for (args, receipt, status) in [
        (&["other", "plain"][..], "accepted", 0),
        (&["%4711", "plain"], "ignored no_worker", 0),
        (&["nobody", "plain"], "refused no_class", 3),
    ] {
        let args = [&["probe", "pass"], args].concat();
        assert_eq!(supervisor.call(&args), json!([receipt, status]), "{args:?}");
    }
    let why = failure(&supervisor, &["pass_and_wait", "other", "says", "not today"]);
    assert!(why.contains("`says` of other failed: not today"), "{why}");
    let why = failure(&supervisor, &["in_a_subshell"]);
    assert!(why.contains("workhall_ending: not in a subshell") && why.contains("call: not in a subshell"), "{why}");
    // Itself: it waits in vain, and executes it when it has ended.
    assert_eq!(supervisor.call(&["probe", "impatient", "probe", "plain"]), 5);
}

#[test]
fn k01_a_worker_in_bash_hears_a_kill_in_a_task_and_obeys_the_end_of_its_supervisor() {
    let Some(mut supervisor) = with_probe() else { return };
    assert_eq!(call(&supervisor, "kill_self", &json!([])), json!(["killed 0", "ending"]));
    supervisor.cli(&["wait", "probe", "--gone", "--timeout", "30s"]).ok();
    let paths = ["begun", "go", "asked"].map(|name| supervisor.path(name).to_str().unwrap().to_string());
    let holding = supervisor.start_cli(&["call", "probe", "hold", &paths[0], &paths[1], "--wait"]);
    supervisor.until("the task has begun", |this| this.path("begun").exists());
    let killing = supervisor.start_cli(&["kill", "probe", "--wait", "--json"]);
    supervisor.until("it is being ended", |this| this.ps("probe")["state"] == "ending");
    fs::write(&paths[1], "").unwrap();
    assert_eq!(holding.end().ok().json(), "ending");
    let report = killing.end().ok().json();
    assert_eq!((&report["ended_by"], &report["exit"]), (&json!("ask"), &json!({"code": 0})), "{report}");
    assert!(
        supervisor.cli(&["logs", "probe"]).ok().out.contains("the end of probe"),
        "the script goes on behind workhall_run"
    );
    for path in &paths[..2] {
        fs::remove_file(path).unwrap();
    }
    supervisor.cli(&["call", "probe", "hold_and_ask", &paths[0], &paths[1], &paths[2]]).ok();
    supervisor.until("the task has begun", |this| {
        fs::read_to_string(this.path("begun")).is_ok_and(|text| text.ends_with('\n'))
    });
    let pid: i32 = fs::read_to_string(&paths[0]).unwrap().trim().parse().unwrap();
    supervisor.signal(Signal::SIGKILL);
    supervisor.ended();
    fs::write(&paths[1], "").unwrap();
    supervisor.until("the worker has ended", |_| !lives(pid));
    let (log, id) = (fs::read_to_string(&paths[2]).unwrap(), "0123456789abcdef0123456789abcdef");
    let mut lines = log.lines();
    for (ask, what) in [
        ("workhall_call other add -n 1", "`add` of other".to_string()),
        ("workhall_call --wait other add -n 1", "`add` of other".into()),
        ("workhall_kill other", "the kill of other".into()),
        ("workhall_kill", "the kill of this worker".into()),
        ("workhall_signal_new", "a new signal".into()),
        (&format!("workhall_signal_set {id} key value"), format!("a value of signal {id}")),
        (&format!("workhall_signal_trigger {id}"), format!("the trigger of signal {id}")),
        (&format!("workhall_signal_wait {id} 1"), format!("the wait for signal {id}")),
    ] {
        let why = format!("the supervisor has gone: {what} was not sent, and nothing has happened");
        assert_eq!((lines.next(), lines.next()), (Some(&*why), Some(&*format!("{ask}: 4"))), "{log}");
    }
    assert_eq!(lines.collect::<Vec<_>>(), ["workhall_ending: 0", "end"], "none of these ends the task");
    supervisor.until("all others have", |this| this.processes().is_empty());
}

#[test]
fn l02_a_call_of_a_worker_in_bash_that_is_not_answered_any_more_says_what_is_known() {
    let Some(mut supervisor) = with_probe() else { return };
    let paths = ["pid", "begun", "go", "asked"].map(|name| supervisor.path(name).to_str().unwrap().to_string());
    supervisor.cli(&[&["call", "probe", "ask_and_wait"][..], &paths.each_ref().map(String::as_str)].concat()).ok();
    supervisor.until("the one it waits for is executed", |this| this.path("begun").exists());
    supervisor.signal(Signal::SIGKILL);
    supervisor.ended();
    supervisor.until("it has been told", |this| {
        fs::read_to_string(this.path("asked")).is_ok_and(|text| text.ends_with("4\n"))
    });
    let log = fs::read_to_string(&paths[3]).unwrap();
    let known = "the supervisor has gone: `hold` of other was accepted as message 2, and may or may not have been executed\n4\n";
    assert_eq!(log, known);
    fs::write(&paths[2], "").unwrap();
    supervisor.until("all have ended", |this| this.processes().is_empty());
}

#[test]
fn s01_a_worker_in_bash_makes_triggers_and_awaits_signals() {
    let Some(supervisor) = with_probe() else { return };
    let made = call(&supervisor, "make", &json!([]));
    assert_eq!(made["$signal"].as_str().map(str::len), Some(32), "{made}");
    let waited =
        supervisor.start_cli(&["call", "other", "wait_for", "--wait", "--args", &json!([made, 30]).to_string()]);
    assert_eq!(supervisor.call(&["a/b", "wait_for", "--args", &json!([made, 0]).to_string()]), json!([5, "none"]));
    call(&supervisor, "trigger_made", &json!([]));
    assert_eq!(waited.end().ok().json(), json!([0, "{\"list\":[1,{\"a\":null}]}"]));
    assert_eq!(supervisor.call(&["a/b", "trigger", "--args", &json!([made, "x"]).to_string()]), false);
    let none = json!([{"$signal": "0123456789abcdef0123456789abcdef"}, 0]);
    assert_eq!(supervisor.call(&["a/b", "wait_for", "--args", &none.to_string()])[0], 6);
    assert!(failure(&supervisor, &["trigger", "x", "y"]).contains("this is no signal: `x`"));
}

#[test]
fn a_cancelled_task_of_a_worker_in_bash_sees_it() {
    let Some(mut supervisor) = with_probe() else { return };
    let begun = supervisor.path("begun").to_str().unwrap().to_string();
    let running = supervisor.start_cli(&["call", "probe", "until_cancelled", &begun, "--wait"]);
    supervisor.until("the task has begun", |this| this.path("begun").exists());
    let message = supervisor.ps("probe")["running"]["message"].clone();
    let mut stream = supervisor.raw();
    std::io::Write::write_all(&mut stream, format!("{{\"cancel\":{{\"ref\":1,\"message\":{message}}}}}\n").as_bytes())
        .unwrap();
    assert_eq!(running.end().ok().json(), "seen");
}

// ---- callers, and wrong use -------------------------------------------------------------------

#[test]
fn a_script_that_is_no_worker_calls_by_the_command_line() {
    let Some(supervisor) = with_probe() else { return };
    let text = "set -eu
        workhall_call probe add -n 5; echo \"$WORKHALL_RECEIPT $REPLY\"
        workhall_call --wait --timeout 30 probe texts 5 -n 5 -j '[1]' -- -n; echo \"$REPLY\"
        workhall_call nobody x || echo \"$? $WORKHALL_RECEIPT\"
        workhall_call --existing other x; echo \"$WORKHALL_RECEIPT\"
        workhall_call --wait probe says 'not today' || echo \"$?\"
        workhall_kill probe";
    let done = outside(&supervisor, text).ok();
    assert_eq!(
        done.out, "accepted 1\n[\"5\",\"5\",\"[1]\",\"-n\"]\n3 refused no_class\nignored no_worker\n1\n",
        "{done:?}"
    );
    assert!(done.err.contains("not today") && done.err.contains("no class matches"), "{done:?}");
}

#[test]
fn w04_a_script_that_is_no_worker_means_one_worker_whatever_its_name_looks_like() {
    if !is_there("bash") {
        return;
    }
    let supervisor = Supervisor::with_config(ANY_NAME);
    for name in ["a", "b", "%2"] {
        supervisor.call(&["--name", name, "count"]);
    }
    let text = "set -eu
        workhall_call --name --wait %2 count; echo \"$WORKHALL_RECEIPT $REPLY\"
        workhall_kill -- '*'; echo \"$WORKHALL_RECEIPT, $REPLY.\"
        workhall_kill --name -- %2; echo \"$WORKHALL_RECEIPT, $REPLY.\"
        workhall_kill '--name' -- -x; echo \"$WORKHALL_RECEIPT, $REPLY.\"
        workhall_kill $'\\n' || echo \"$?:$WORKHALL_RECEIPT\"
        workhall_kill -x || echo \"$?:$WORKHALL_RECEIPT\"";
    let done = outside(&supervisor, text).ok();
    let receipts = "accepted 2\nignored no_worker, .\nkilled 0, 0.\nignored no_worker, .\n3:\n2:\n";
    assert_eq!(done.out, receipts, "{done:?}");
    assert!(done.err.contains("bad_name") && done.err.contains("there is no option -x"), "{done:?}");
    supervisor.cli(&["wait", "%4", "--gone"]).ok();
    for name in ["a", "b"] {
        assert_eq!(supervisor.ps(name)["generation"], 1);
        assert_eq!(supervisor.ps(name)["state"], "idle", "{name} was not meant");
    }
    // A number is one as in a worker.
    assert_eq!(outside(&supervisor, "workhall_kill %2; echo \"$WORKHALL_RECEIPT\"").ok().out, "killed 0\n");
    supervisor.cli(&["wait", "a", "--gone"]).ok();
}

#[test]
fn wrong_use_of_the_library_for_bash_is_named() {
    if !is_there("bash") {
        return;
    }
    for (text, part) in [
        ("workhall_run nothing", "there is no function `nothing`"),
        ("f() { :; }; workhall_run f", "is a Workhall worker: a supervisor starts it at the first message"),
        ("f() { :; }; WORKHALL_FD=999 workhall_run f", "WORKHALL_FD is `999`"),
        ("f() { :; }; WORKHALL_FD=1 workhall_run f", "WORKHALL_FD is `1`"),
        ("workhall_call", "which worker?"),
        ("workhall_call --soon x", "there is no option --soon"),
        ("workhall_call --expires 5s x", "a time is a number of seconds like 5 or 0.25, not `5s`"),
        ("workhall_call --expires", "--expires wants seconds"),
        ("workhall_kill", "Only a worker kills itself"),
        ("workhall_reply x", "workhall_reply: there is no message here that could be answered: this is no worker"),
        ("workhall_signal_new", "this is no worker"),
        ("workhall_signal_wait x", "this is no signal: `x`"),
        ("workhall_result a b", "one value, not 2 words"),
        ("workhall_result -n 1 2", "one value, not 3 words"),
        ("workhall_signal_set 0123456789abcdef0123456789abcdef k a b", "ID, KEY and one VALUE, not 4 words"),
        ("workhall_call -- ", "which worker?"),
        ("workhall_kill -x", "there is no option -x"),
        ("workhall_kill --", "which worker?"),
    ] {
        script(text, &[]).fails_with(2, part);
    }
}

trait FailsWith {
    fn fails_with(self, code: i32, part: &str);
}

impl FailsWith for Output {
    #[track_caller]
    fn fails_with(self, code: i32, part: &str) {
        assert!(self.code == code && self.err.contains(part), "{part}: {self:?}");
    }
}
