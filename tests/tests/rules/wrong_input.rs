//! Wrong input of every kind: the status that was promised, one clear sentence, nothing half done, and
//! nobody else disturbed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use workhall_protocol::args::Payload;
use workhall_protocol::messages::{Call, ReceiptBody};
use workhall_protocol::terms::Refusal;
use workhall_tests::harness::{Output, PATIENCE, Supervisor, bin_dir, lives, output, output_of, until};

/// Nothing has come of it, and another worker answers.
#[track_caller]
fn undisturbed(supervisor: &Supervisor) {
    let status = supervisor.status();
    assert_eq!((&status["counts"]["workers"], &status["ledger"]["accepted"]), (&json!(0), &json!(0)));
    assert_eq!(supervisor.call(&["b", "count"]), 1);
}

/// `serve` where it must fail at once.
fn serve(args: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    output(command.arg("20").arg(bin_dir().join("workhall")).arg("serve").args(args).env_remove("WORKHALL_SOCKET"))
}

// ---- calls ----------------------------------------------------------------------------------

#[test]
fn a_bad_name_is_refused_with_the_reason() {
    let supervisor = Supervisor::start();
    let long = "x".repeat(256);
    let names = [
        ("", "cannot be empty"),
        (&*long, "at most 255 bytes, this one has 256"),
        ("a\nb", "no control characters, this one has U+000A at byte 1"),
        ("\u{1b}[31m", "no control characters, this one has U+001B at byte 0"),
        ("é\u{85}", "no control characters, this one has U+0085 at byte 2"),
    ];
    for (name, reason) in names {
        for args in [&["call", name, "count"][..], &["kill", name], &["info", name], &["wait", name, "--idle"]] {
            let output = supervisor.cli(args).fails(3, &["bad_name", reason]);
            assert!(!output.err.contains('\u{1b}'), "{output:?}");
        }
        let receipt = supervisor.client().call(Call::new(name, "count", Payload::no_args())).unwrap();
        let ReceiptBody::Refused { reason: Refusal::BadName, detail } = &receipt else { panic!("{name}: {receipt:?}") };
        assert!(detail.contains(reason), "{detail}");
    }
    undisturbed(&supervisor);
}

#[test]
fn an_unknown_class_is_refused_and_those_there_are_are_named() {
    let supervisor = Supervisor::start();
    supervisor.cli(&["call", "unknown/x", "count"]).fails(3, &["no_class", "`unknown/x`", "`a`, `b`, `test-worker`"]);
    undisturbed(&supervisor);
    let supervisor = Supervisor::with_config("class.b.exec = ['{bin}/test-worker']");
    supervisor.cli(&["call", "unknown", "count"]).fails(3, &["no_class", "`unknown`", "the configuration has `b`"]);
    undisturbed(&supervisor);
}

#[test]
fn arguments_that_are_no_json_list_are_wrong_usage() {
    let supervisor = Supervisor::start();
    let deep = format!("{}1{}", "[".repeat(70), "]".repeat(70));
    for (args, reason) in [
        ("{", "not JSON"),
        ("", "not JSON"),
        ("[1] 2", "not JSON"),
        ("{\"a\":1}", "not a JSON array"),
        ("5", "not a JSON array"),
        ("[{\"$bytes\":\"%\"}]", "base64"),
        (&deep, "deeper than 64"),
    ] {
        supervisor.cli(&["call", "a", "echo", "--args", args]).fails(2, &[reason]);
        let stdin = output_of(&mut supervisor.command(&["call", "a", "echo", "--args", "-"]), args.as_bytes());
        stdin.fails(2, &[reason]);
    }
    let stdin = output_of(&mut supervisor.command(&["call", "a", "echo", "--args", "-"]), b"[\"\xff\"]");
    stdin.fails(2, &["stdin is not JSON"]);
    undisturbed(&supervisor);
}

#[test]
fn a_message_that_is_too_large_is_refused_with_its_size_and_the_limit() {
    let supervisor = Supervisor::with_config("supervisor.message_bytes = '1MiB'\nclass.b.exec = ['{bin}/test-worker']");
    for (bytes, limit) in [(1 << 20, "1048576"), (17 << 20, "16777216")] {
        let text = json!(["x".repeat(bytes)]).to_string();
        let call = |args: &[&str]| {
            let args = [&["call", "b", "echo", "--args", "-"], args].concat();
            output_of(&mut supervisor.command(&args), text.as_bytes()).fails(3, &["refused: too_large", limit])
        };
        assert_eq!(call(&[]).out, "");
        assert_eq!(call(&["--json"]).json()["refused"]["reason"], "too_large");
        assert_eq!(call(&["--wait", "--json"]).json()["refused"]["reason"], "too_large");
    }
    let long = "m".repeat(256);
    supervisor.cli(&["call", "b", &long]).fails(3, &["refused: too_large", "255 bytes"]);
    undisturbed(&supervisor);
}

#[test]
fn a_full_mailbox_refuses_and_keeps_what_it_has() {
    for (limits, reason) in [
        ("mailbox = { messages = 3 }", "3 messages wait for `a`, and the limit is 3 (`mailbox.messages`"),
        ("mailbox = { bytes = '4KiB' }", "the limit is 4096 (`mailbox.bytes` of class `a`)"),
    ] {
        let mut supervisor = Supervisor::with_config(&format!(
            "class.a = {{ exec = ['{{bin}}/test-worker'], {limits} }}\nclass.b.exec = ['{{bin}}/test-worker']"
        ));
        let held = supervisor.hold("a");
        let args = ["call", "a", "echo", &"x".repeat(1000)];
        let full = loop {
            let output = supervisor.cli(&args);
            if output.code != 0 {
                break output;
            }
        };
        full.fails(3, &["refused: mailbox_full", reason]);
        let pending = supervisor.ps("a")["pending"].as_u64().unwrap();
        assert!((2..=3).contains(&pending), "{pending} fit");
        assert_eq!(supervisor.call(&["b", "count"]), 1, "another's mailbox is not full");
        held.release();
        supervisor.cli(&["wait", "a", "--idle"]).ok();
        supervisor.call(&["a", "count"]);
        assert_eq!(supervisor.status()["ledger"]["done"], pending + 3);
    }
}

#[test]
fn a_message_that_can_never_fit_is_too_large_and_not_refused_for_now() {
    let class = "class.a = { exec = ['{bin}/test-worker'], mailbox = { bytes = 1000 } }";
    let supervisor = Supervisor::with_config(class);
    let text = "x".repeat(1000);
    supervisor.cli(&["call", "a", "echo", &text]).fails(3, &["too_large", "`mailbox.bytes` of class `a`", "1000"]);
    // `--lines` does not wait for room that will never be.
    let lines = format!("[1]\n[\"{text}\"]\n[2]\n");
    let output = output_of(&mut supervisor.command(&["call", "a", "echo", "--lines"]), lines.as_bytes());
    output.fails(3, &["line 2", "too_large", "1 line before it was posted"]);
}

#[test]
fn the_memory_of_all_mailboxes_is_bounded_too() {
    let mut supervisor =
        Supervisor::with_config("supervisor.total_bytes = '4KiB'\nclass.a.exec = ['{bin}/test-worker']");
    let held = supervisor.hold("a/1");
    let args = ["call", "a/1", "echo", &"x".repeat(3000)];
    supervisor.cli(&args).ok();
    let other = ["call", "a/2", "echo", &"x".repeat(3000)];
    supervisor.cli(&other).fails(3, &["refused: mailbox_full", "`total_bytes` in [supervisor]"]);
    assert!(supervisor.ps("a/2").is_null(), "it was not created");
    held.release();
    supervisor.cli(&["wait", "a/1", "--idle"]).ok();
    supervisor.cli(&other).ok();
}

// ---- the configuration and the socket -------------------------------------------------------

#[test]
fn a_configuration_that_is_wrong_starts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (file, socket) = (dir.path().join("w.toml"), dir.path().join("socket"));
    let serve = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let failed = serve(&["--config", file.to_str().unwrap(), "--socket", socket.to_str().unwrap()]);
        assert!(!socket.exists(), "{failed:?}");
        failed
    };
    let misspelt = serve("[class.a]\nexec = ['/bin/sh']\nmailbix = { messages = 5 }");
    assert_eq!(misspelt.code, 2, "{misspelt:?}");
    let place = format!("workhall: {}:3:1: ", file.display());
    for part in
        [&*place, "unknown field `mailbix`", "expected one of", "`mailbox`", "\n    mailbix = { messages = 5 }\n"]
    {
        assert!(misspelt.err.contains(part), "{part} in {misspelt:?}");
    }
    serve("").fails(2, &["has no classes", "--workers DIR"]);
    let place = format!("{}:1:8: class `a`: `exec` is missing", file.display());
    serve("[class.a]\nmain = true").fails(2, &[&place, "\n    [class.a]\n"]);
    std::fs::remove_file(&file).unwrap();
    let missing = self::serve(&["--config", file.to_str().unwrap(), "--socket", socket.to_str().unwrap()]);
    missing.fails(2, &["cannot read", "w.toml", "No such file"]);
    let missing = self::serve(&["--workers", "/no/such/dir", "--socket", socket.to_str().unwrap()]);
    missing.fails(2, &["the workers directory /no/such/dir", "No such file"]);
    let file = self::serve(&["--workers", "/dev/null", "--socket", socket.to_str().unwrap()]);
    file.fails(2, &["/dev/null is not a directory"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_socket_path_that_is_too_long_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("x".repeat(100));
    let socket = socket.to_str().unwrap();
    let reason = format!("a socket's path has 1 to 107 bytes, this one has {}", socket.len());
    serve(&["--workers", "/usr/bin", "--socket", socket]).fails(2, &[&reason]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let workhall = bin_dir().join("workhall");
    output(Command::new(&workhall).args(["ps", "--socket", socket])).fails(2, &[&reason]);
    output(Command::new(&workhall).args(["ps", "--socket", ""])).fails(2, &[]);
}

#[test]
fn a_second_supervisor_leaves_the_first_alone() {
    let supervisor = Supervisor::start();
    let socket = supervisor.socket().to_str().unwrap();
    let second = serve(&["--workers", "/usr/bin", "--socket", socket]);
    second.fails(1, &["another supervisor", &format!("process {}", supervisor.pid()), socket]);
    undisturbed(&supervisor);
}

#[test]
fn a_stale_socket_is_taken_over() {
    let mut supervisor = Supervisor::start();
    supervisor.call(&["a", "count"]);
    let worker = supervisor.worker_pid("a");
    supervisor.signal(Signal::SIGKILL);
    supervisor.ended();
    assert!(supervisor.socket().exists());
    supervisor.cli(&["ps"]).fails(4, &["the socket is there but nobody listens", "workhall serve"]);
    supervisor.restart();
    undisturbed(&supervisor);
    until("the old worker has ended", || !lives(worker));
}

#[test]
fn a_path_that_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (file, inner) = (dir.path().join("file"), dir.path().join("dir"));
    std::fs::write(&file, "precious").unwrap();
    std::fs::create_dir(&inner).unwrap();
    for path in [&file, &inner] {
        let path = path.to_str().unwrap();
        serve(&["--workers", "/usr/bin", "--socket", path]).fails(1, &[path, "is no socket"]);
        output(Command::new(bin_dir().join("workhall")).args(["ps", "--socket", path])).fails(4, &[path, "no socket"]);
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    assert!(inner.is_dir());
    let below = file.join("socket");
    let below = serve(&["--workers", "/usr/bin", "--socket", below.to_str().unwrap()]);
    below.fails(1, &["file/socket"]);
}

#[test]
fn without_permission_nothing_is_done() {
    let supervisor = Supervisor::start();
    let nobody = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(bin_dir().join("workhall")).args(args);
        command.env("WORKHALL_SOCKET", supervisor.socket());
        command
    };
    if !nobody(&["--version"]).output().is_ok_and(|output| output.status.success()) {
        println!("skipped: only root can become nobody, with `setpriv` and an executable that nobody may reach");
        return;
    }
    // Everybody may look into the directory, but the socket is its owner's alone.
    std::fs::set_permissions(supervisor.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    let socket = supervisor.socket().to_str().unwrap();
    for args in [&["ps"][..], &["call", "a", "count"], &["kill", "*"]] {
        output(&mut nobody(args)).fails(4, &["no permission", socket]);
    }
    output(&mut nobody(&["serve", "--workers", "/usr/bin"])).fails(1, &["cannot lock", "Permission denied"]);
    let other = supervisor.path("new/socket");
    let other = output(&mut nobody(&["serve", "--workers", "/usr/bin", "--socket", other.to_str().unwrap()]));
    other.fails(1, &["cannot make the directory", "Permission denied"]);
    undisturbed(&supervisor);
}

// ---- bytes on the socket --------------------------------------------------------------------

/// What comes until the end of the connection.
fn rest(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

/// The next line.
fn line(stream: &UnixStream) -> Value {
    let mut text = String::new();
    BufReader::with_capacity(1, stream).read_line(&mut text).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn garbage_on_the_socket_ends_that_connection_alone() {
    let mut supervisor = Supervisor::start();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\n{}\n",
        b"\0\0\0\0",
        b"\xb1\x08\x07\x07\0\0\0\0",
        b"\xb1\x04\0\0\xff\xff\xff\xff",
    ] {
        let mut stream = supervisor.raw();
        stream.write_all(garbage).unwrap();
        let said = rest(&mut stream);
        assert!(said.contains("0x") || said.contains("too l") || said.contains("header"), "{garbage:?}: {said:?}");
    }
    // A line without an end.
    let mut stream = supervisor.raw();
    stream.write_all(b"{\"call\":{\"worker\":\"a\",\"method\":\"").unwrap();
    let _its_end = stream.write_all(&vec![b'x'; 17 << 20]);
    let mut said = Vec::new();
    let _reset = stream.read_to_end(&mut said);
    supervisor.until("the connections are closed", |this| this.status()["counts"]["clients"] == 1);
    undisturbed(&supervisor);
}

#[test]
fn half_a_frame_keeps_nobody_waiting() {
    let mut supervisor = Supervisor::start();
    let halves = [&b"{\"call\":{\"worker\":\"a\""[..], b"\xb1", b"\xb1\x04\0\0\x20\0\0\0\x00\x01a"].map(|half| {
        let mut stream = supervisor.raw();
        stream.write_all(half).unwrap();
        stream
    });
    supervisor.until("all are connected", |this| this.status()["counts"]["clients"] == 4);
    undisturbed(&supervisor);
    drop(halves);
    supervisor.until("all are gone", |this| this.status()["counts"]["clients"] == 1);
    assert!(supervisor.ps("a").is_null());
}

#[test]
fn a_client_that_leaves_before_its_receipts_has_posted_all_the_same() {
    const CALLS: usize = 2_000;
    let mut supervisor = Supervisor::start();
    let mut stream = supervisor.raw();
    let call = b"{\"call\":{\"worker\":\"a\",\"method\":\"count\",\"ref\":1}}\n";
    stream.write_all(&call.repeat(CALLS)).unwrap();
    drop(stream);
    supervisor.until("the connection is closed", |this| this.status()["counts"]["clients"] == 1);
    assert_eq!(supervisor.status()["ledger"]["accepted"], CALLS);
    assert_eq!(supervisor.call(&["a", "count"]), CALLS + 1);
}

#[test]
fn what_is_not_understood_is_named_and_the_connection_goes_on() {
    let supervisor = Supervisor::start();
    let mut stream = supervisor.raw();
    for (message, reference, part) in [
        (r#"{"frobnicate":{"ref":7}}"#, json!(7), "frobnicate"),
        (r#"{"frobnicate":{"ref":"x","y":[1]}}"#, json!("x"), "frobnicate"),
        (r#"{"call":{"ref":8,"method":"m"}}"#, json!(8), "worker"),
        (r#"{"call":{"ref":9,"worker":"b","method":"m","args":5}}"#, json!(9), "`args` is a list"),
        (r#"{"call":{"ref":10,"worker":-1}}"#, json!(10), ""),
        (r#"{"call":{"worker":"b","method":"count","wait":true}}"#, Value::Null, "`ref`"),
        (r#"{"kill":{"ref":11}}"#, json!(11), "name one"),
        (r#"{"kill":{"ref":12,"worker":"b","drain":true,"now":true}}"#, json!(12), "exclude"),
        (r#"{"list":{}}"#, Value::Null, "ref"),
        (r#"{"ready":{"protocol":1,"window":1}}"#, Value::Null, "only a worker"),
        (r#"{"done":{"id":1}}"#, Value::Null, "only a worker"),
        (r#"{"two":1,"keys":2}"#, Value::Null, ""),
        ("{", Value::Null, ""),
        ("nonsense", Value::Null, ""),
        ("[1]", Value::Null, ""),
    ] {
        if message == "nonsense" {
            // An empty line before it is allowed.
            stream.write_all(b"\n").unwrap();
        }
        writeln!(stream, "{message}").unwrap();
        let error = line(&stream);
        let detail = error["error"]["detail"].as_str().unwrap_or_else(|| panic!("{message}: {error}"));
        assert_eq!(error["error"]["ref"], reference, "{message}: {error}");
        assert!(detail.contains(part) && !detail.is_empty(), "{message}: {detail}");
    }
    // An unknown field is none of our business.
    writeln!(stream, r#"{{"info":{{"ref":100,"worker":"b","unknown":1}}}}"#).unwrap();
    assert_eq!(line(&stream), json!({"receipt": {"ref": 100, "ignored": {"reason": "no_worker"}}}));
    undisturbed(&supervisor);
}

#[test]
fn an_unknown_binary_message_is_named_and_the_connection_goes_on() {
    let supervisor = Supervisor::start();
    let mut stream = supervisor.raw();
    // Kind 99 with a body of one byte, then `list` (kind 6) with the reference 5.
    stream.write_all(&[0xb1, 99, 0, 0, 1, 0, 0, 0, 0]).unwrap();
    let mut frame = |kind: u8| {
        let mut header = [0; 8];
        stream.read_exact(&mut header).unwrap();
        assert_eq!((header[0], header[1]), (0xb1, kind));
        let mut body = vec![0; u32::from_le_bytes(header[4..].try_into().unwrap()) as usize];
        stream.read_exact(&mut body).unwrap();
        body
    };
    let error = frame(70);
    assert!(String::from_utf8_lossy(&error).contains("99"), "{error:?}");
    stream.write_all(&[0xb1, 6, 0, 0, 4, 0, 0, 0, 0, 5, 0, 0]).unwrap();
    let mut header = [0; 8];
    stream.read_exact(&mut header).unwrap();
    assert_eq!((header[0], header[1]), (0xb1, 68), "its receipt");
    undisturbed(&supervisor);
}

// ---- executables ----------------------------------------------------------------------------

/// A class whose process cannot do its work, beside one that can: the message stays, the reason is shown,
/// and the supervisor does not run hot.
fn cannot_start(class: &str, prepare: impl FnOnce(&Path), failure: Option<&str>, shown: &str) {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let class = class.replace("{own}", dir.path().to_str().unwrap());
    let mut supervisor = Supervisor::with_config(&format!("{class}\nclass.b.exec = ['{{bin}}/test-worker']"));
    let start = Instant::now();
    supervisor.cli(&["call", "broken", "m"]).ok();
    supervisor.until("it was started four times", |this| this.status()["counts"]["spawned"].as_u64() >= Some(4));
    // Without a delay, then after 100 and 200 ms, less at most a quarter.
    assert!(start.elapsed() >= Duration::from_millis(225), "{:?}", start.elapsed());
    supervisor.until("the last start has failed", |this| this.ps("broken")["state"] == "backoff");
    let info = supervisor.cli(&["info", "broken", "--json"]).ok().json();
    assert_eq!((&info["pending"], &info["running"], &info["pid"]), (&json!(1), &Value::Null, &Value::Null), "{info}");
    assert!(info["failures_in_a_row"].as_u64() >= Some(3) && info["next_start_in_ms"].is_u64(), "{info}");
    if let Some(failure) = failure {
        let told = info["last_exit"]["failure"].as_str().unwrap_or_default();
        assert!(told.contains(failure), "{failure} in {info}");
    }
    let human = supervisor.cli(&["info", "broken"]).ok().out;
    let last = human.lines().find(|line| line.starts_with("last exit")).unwrap_or_default();
    assert!(last.contains(shown), "{shown} in {human}");
    assert_eq!(supervisor.call(&["b", "count"]), 1);
    // It can be got rid of.
    assert_eq!(supervisor.cli(&["kill", "broken", "--json"]).ok().json()["killed"]["discarded"], 1);
    supervisor.cli(&["wait", "broken", "--gone"]).ok();
    assert!(start.elapsed() < PATIENCE);
}

#[test]
fn an_executable_that_is_missing() {
    let class = "class.broken.exec = ['{own}/missing']";
    cannot_start(class, |_| (), Some("cannot execute"), "missing: No such file or directory");
}

#[test]
fn an_executable_that_is_not_executable() {
    let prepare = |dir: &Path| std::fs::write(dir.join("plain"), "#!/bin/sh\n").unwrap();
    cannot_start("class.broken.exec = ['{own}/plain']", prepare, Some("cannot execute"), "plain: Permission denied");
}

#[test]
fn an_executable_that_is_no_program() {
    let prepare = |dir: &Path| {
        std::fs::write(dir.join("junk"), "\x7fELF junk").unwrap();
        std::fs::set_permissions(dir.join("junk"), PermissionsExt::from_mode(0o755)).unwrap();
    };
    cannot_start("class.broken.exec = ['{own}/junk']", prepare, Some("cannot execute"), "junk: Exec format error");
}

#[test]
fn a_directory_to_start_in_that_is_missing() {
    let class = "class.broken = { exec = ['/bin/cat'], directory = '{own}/missing' }";
    cannot_start(class, |_| (), Some("cannot start in"), "missing: No such file or directory");
}

#[test]
fn a_process_that_is_never_ready() {
    let class = "class.broken = { exec = ['sleep', '1000'], start_timeout = '20ms' }";
    cannot_start(class, |_| (), Some("not ready in time"), "not ready in time; signal 15");
}

#[test]
fn a_process_that_exits_before_it_is_ready() {
    let failure = "it ended before it was ready";
    cannot_start("class.broken.exec = ['sh', '-c', 'exit 3']", |_| (), Some(failure), "ready; exit status 3");
    cannot_start("class.broken.exec = ['true']", |_| (), Some(failure), "ready; exit status 0");
}

#[test]
fn a_process_that_speaks_something_else() {
    let class = "class.broken = { exec = ['{bin}/test-worker', 'garbage'], exit_grace = '1ms' }";
    cannot_start(
        class,
        |_| (),
        None,
        "its connection ended while the process lived; the last thing it said wrong: the first byte is",
    );
}
