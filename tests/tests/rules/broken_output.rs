//! What a command does, and says with its status, when nobody reads its output any more.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use serde_json::json;
use workhall_tests::harness::Supervisor;

/// Runs a command with this stdin, and with this as stdout; its status and what it says on stderr.
fn run(supervisor: &Supervisor, args: &[&str], stdin: &[u8], stdout: impl Into<Stdio>) -> (Option<i32>, String) {
    let mut command = supervisor.command(args);
    let mut child = command.stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    let mut pipe = child.stdin.take().unwrap();
    let ended = std::thread::scope(|scope| {
        // One that ends without reading all of it is no error here: its status tells.
        scope.spawn(move || pipe.write_all(stdin).is_ok());
        child.wait_with_output().unwrap()
    });
    (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
}

/// The same where nobody reads stdout, as `… | head -1` leaves it.
fn unread(supervisor: &Supervisor, args: &[&str], stdin: &[u8]) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    run(supervisor, args, stdin, writer)
}

fn lines(count: usize) -> Vec<u8> {
    (0..count).flat_map(|number| format!("[{number}]\n").into_bytes()).collect()
}

#[test]
fn lines_are_posted_to_the_last_although_nobody_reads_their_results() {
    const LINES: usize = 2_000;
    let supervisor = Supervisor::start();
    let ended = unread(&supervisor, &["call", "a", "in_order", "--lines", "--wait"], &lines(LINES));
    assert_eq!(ended, (Some(0), String::new()));
    assert_eq!((supervisor.ledger("done"), supervisor.ledger("failed")), (LINES as u64, 0));
    // The reader takes one line and goes.
    let (reader, writer) = std::io::pipe().unwrap();
    let reader = std::thread::spawn(move || {
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line).unwrap();
        line
    });
    let ended = run(&supervisor, &["call", "a", "echo", "--lines", "--wait"], &lines(LINES), writer);
    assert_eq!((ended, reader.join().unwrap()), ((Some(0), String::new()), "[0]\n".to_string()));
    assert_eq!(supervisor.ledger("done"), 2 * LINES as u64);
    // What failed shows in the status all the same.
    let (code, said) = unread(&supervisor, &["call", "b", "in_order", "--lines", "--wait"], b"[0]\n[7]\n[1]\n");
    assert_eq!((code, said.contains("7 came when 1 was due")), (Some(1), true), "{said}");
    assert_eq!(supervisor.ledger("accepted"), 2 * LINES as u64 + 3);
}

#[test]
fn the_outcome_decides_the_status_although_nobody_reads_it() {
    let supervisor = Supervisor::start();
    for (args, code, part) in [
        (&["call", "a", "echo", "1", "--wait"][..], 0, ""),
        (&["call", "a", "echo", "1", "--json"], 0, ""),
        (&["call", "a", "fail", "no", "--wait", "--json"], 1, "a failed: no"),
        (&["call", "a", "exit", "7", "--wait", "--json"], 6, "exit status 7"),
        (&["call", "c", "echo", "--json"], 3, "no_class"),
        (&["wait", "a", "--idle", "--json"], 0, ""),
        (&["kill", "a", "--wait"], 0, ""),
        (&["kill", "a", "--wait", "--json"], 0, ""),
    ] {
        let (ended, said) = unread(&supervisor, args, b"");
        assert_eq!(ended, Some(code), "{args:?}: {said}");
        assert!(said.contains(part) && said.is_empty() == part.is_empty(), "{args:?}: {said}");
    }
    // Every one is killed, and waited for.
    supervisor.call(&["a", "count"]);
    supervisor.call(&["b", "count"]);
    assert_eq!(unread(&supervisor, &["kill", "a", "b", "--wait"], b""), (Some(0), String::new()));
    assert_eq!(supervisor.cli(&["ps", "--json"]).ok().json(), json!([]));
}

#[test]
fn commands_that_only_print_are_done_when_nobody_reads() {
    let supervisor = Supervisor::start();
    supervisor.call(&["a", "count"]);
    for args in [&["ps"][..], &["ps", "--json"], &["info", "a"], &["status"], &["completions", "bash"]] {
        assert_eq!(unread(&supervisor, args, b""), (Some(0), String::new()), "{args:?}");
    }
}

#[test]
fn output_that_finds_no_room_is_an_error() {
    let supervisor = Supervisor::start();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for (args, code, part) in [
        (&["ps"][..], 1, "cannot write to stdout: No space left"),
        (&["call", "a", "echo", "1", "--wait"], 1, "what was asked for is done, but"),
        (&["call", "a", "fail", "no", "--wait", "--json"], 1, "a failed: no"),
        (&["call", "a", "exit", "7", "--wait", "--json"], 6, "exit status 7"),
        (&["kill", "a", "--wait"], 1, "what was asked for is done, but"),
    ] {
        let (ended, said) = run(&supervisor, args, b"", full());
        assert_eq!((ended, said.contains(part)), (Some(code), true), "{args:?}: {said}");
    }
    assert_eq!(supervisor.cli(&["ps", "--json"]).ok().json(), json!([]));
}
