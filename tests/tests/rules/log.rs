//! What the supervisor itself says: levels, text and JSON. (The journal is in journal.rs.)

use serde_json::{Value, json};
use workhall_tests::harness::{ANY_NAME, Supervisor};

use super::logs;

fn with_log(settings: &str) -> Supervisor {
    Supervisor::with_config(&format!("{ANY_NAME}[supervisor]\n{settings}\n"))
}

/// Started with more words on its command line.
fn with_words(words: &str, settings: &str) -> Supervisor {
    let script = format!("exec \"$0\" \"$@\" {words}");
    let under = |_: &std::path::Path| ["sh", "-c", &script].map(str::to_string).to_vec();
    Supervisor::with_config_under(&format!("{ANY_NAME}[supervisor]\n{settings}\n"), under)
}

#[test]
fn a_healthy_supervisor_is_silent_after_its_ready_line() {
    let mut supervisor = Supervisor::with_config(&format!("supervisor.logs.forward = 'none'\n{ANY_NAME}"));
    for worker in ["a", "b/1", "b/2"] {
        supervisor.call(&[worker, "count"]);
    }
    // What one does all day: failures of methods, kills, pauses, looks, clients that leave.
    supervisor.cli(&["call", "a", "fail", "no", "--wait"]).fails(1, &["no"]);
    supervisor.cli(&["call", "b/1", "count", "--expires", "0s"]);
    supervisor.cli(&["pause", "b/2"]).ok();
    supervisor.cli(&["resume", "b/2"]).ok();
    supervisor.kill(&["b/*"]);
    supervisor.cli(&["status"]).ok();
    supervisor.cli(&["call", "a", "no_such_method", "--wait"]);
    drop(supervisor.raw());
    assert_eq!(supervisor.call(&["b/1", "count"]), 1);
    supervisor.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(supervisor.ended().code(), Some(0));
    assert_eq!(supervisor.log(), format!("workhall: ready at {}\n", supervisor.socket().display()));
}

/// What is said of a worker that fails at a task, crashes, and is killed.
fn life(supervisor: &mut Supervisor) -> String {
    supervisor.cli(&["call", "a/1", "fail", "no", "--wait"]).fails(1, &["no"]);
    supervisor.cli(&["call", "a/1", "die", "--wait"]).fails(6, &["signal 9"]);
    supervisor.call(&["a/1", "count"]);
    supervisor.kill(&["a/1"]);
    supervisor.log()
}

#[test]
fn each_level_has_what_those_above_it_have() {
    let said = [
        ("error", "ready at"),
        ("warn", "warning: a/1: its process has crashed: signal 9 number="),
        ("debug", "debug: a/1: its process is started number="),
        ("debug", "debug: a client has connected"),
        ("debug", "debug: a/1: messages are dead letters number="),
        ("trace", "trace: a/1: a task has failed: no number="),
    ];
    let levels = ["error", "warn", "info", "debug", "trace"];
    let place = |level: &str| levels.iter().position(|it| *it == level).unwrap();
    for level in levels {
        let log = life(&mut with_log(&format!("log_level = '{level}'")));
        for (from, words) in said {
            assert_eq!(log.contains(words), place(level) >= place(from), "{level}: {words}: {log}");
        }
        assert!(log.lines().all(|line| line.starts_with("workhall: ")), "{log}");
    }
    let log = life(&mut with_words("--log-level debug", "log_level = 'error'"));
    assert!(log.contains("debug: a/1: its process is started"), "the command line comes first: {log}");
    for (settings, part) in [
        ("log_level = 'loud'", "`loud`"),
        ("log_format = 'xml'", "`xml`"),
        ("log_level = 3", "3"),
        ("log_level = 3", "expected one of `error`, `warn`, `info`, `debug`, `trace`, in quotes"),
        ("log_format = { text = 1 }", "expected one of `auto`, `journal`, `text`, `json`, in quotes"),
        ("process_tree = ['auto']", "expected one of `auto`, `cgroup`, `subreaper`, in quotes"),
    ] {
        let supervisor = Supervisor::with_config(ANY_NAME);
        let text = format!("{ANY_NAME}[supervisor]\n{settings}\n");
        let bad = supervisor.file("bad.toml", &text.replace("{bin}", "/"));
        supervisor.cli(&["check", bad.to_str().unwrap()]).fails(2, &["bad.toml:3:", part]);
    }
}

#[test]
fn as_json_each_line_is_an_object_and_those_of_workers_stand_beside() {
    let settings = "[supervisor]\nlog_format = 'json'\nlog_level = 'debug'\n";
    let mut supervisor = logs::supervisor(settings);
    logs::run(&supervisor, "a/1", "print('one\\x1b[2J \\u202e', flush=True)");
    let (number, pid) = (supervisor.ps("a/1")["number"].clone(), supervisor.worker_pid("a/1"));
    supervisor.cli(&["call", "a/1", "run", "os.kill(os.getpid(), 9)", "--wait"]).fails(6, &[]);
    // What a worker says wrong is quoted.
    supervisor.cli(&["call", "b", "run", "say({'\\n\\x1bbad\\u009b': {}})"]).ok();
    supervisor.until("it is quoted", |this| this.log().contains("what it must not say"));
    logs::run(&supervisor, "c", "");
    supervisor.kill(&["c"]);
    supervisor.signal(nix::sys::signal::Signal::SIGTERM);
    supervisor.ended();
    let log = supervisor.log();
    assert!(log.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{log:?}");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(lines[0]["message"], format!("ready at {}", supervisor.socket().display()));
    let find = |message: &str| {
        let found = lines.iter().find(|line| line["message"].as_str().unwrap().contains(message));
        found.unwrap_or_else(|| panic!("{message}: {log}"))
    };
    let of = |line: &Value| json!([line["level"], line["worker"], line["number"], line["generation"], line["class"]]);
    let started = find("its process is started");
    assert_eq!((&started["worker"], &started["pid"], &started["number"]), (&json!("a/1"), &json!(pid), &number));
    let crashed = find("its process has crashed: signal 9");
    assert_eq!(of(crashed), json!(["warn", "a/1", number, 1, "w"]));
    assert_eq!((of(started), &crashed["pid"]), (json!(["debug", "a/1", number, 1, "w"]), &json!(pid)));
    let ended = find("its process has ended: exit status 0");
    assert_eq!((of(ended), ended["pid"].is_i64()), (json!(["debug", "c", 4, 1, "w"]), true), "{ended}");
    let line = find("one\u{1b}[2J");
    assert_eq!((of(line), &line["stream"]), (json!(["info", "a/1", number, 1, "w"]), &json!("stdout")));
    let time = started["time"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z') && time.starts_with("20"), "{time}");
}

#[test]
fn a_reload_changes_it_and_an_upgrade_keeps_it() {
    let mut supervisor = with_log("");
    let write = |supervisor: &Supervisor, settings: &str| {
        let bin = workhall_tests::harness::bin_dir().to_str().unwrap();
        let text = format!("{ANY_NAME}[supervisor]\n{settings}\n").replace("{bin}", bin);
        supervisor.file("workhall.toml", &text);
        supervisor.cli(&["reload"]).ok().out
    };
    let count = |supervisor: &Supervisor| supervisor.log().matches("its process is started").count();
    supervisor.call(&["quiet", "count"]);
    assert_eq!(count(&supervisor), 0);
    assert!(write(&supervisor, "log_level = 'debug'").contains("supervisor.log_level"));
    supervisor.call(&["one", "count"]);
    assert_eq!(count(&supervisor), 1);
    supervisor.cli(&["upgrade"]).ok();
    supervisor.call(&["two", "count"]);
    assert_eq!(count(&supervisor), 2);
    write(&supervisor, "log_level = 'debug'\nlog_format = 'json'");
    supervisor.call(&["three", "count"]);
    supervisor.until("it is JSON", |this| this.log().contains("\"message\":\"its process is started\""));
    write(&supervisor, "log_level = 'warn'");
    supervisor.call(&["four", "count"]);
    assert_eq!(count(&supervisor), 3);
    // What the command line says holds over both.
    let supervisor = with_words("--log-level debug --log-format json", "");
    let changed = write(&supervisor, "log_level = 'error'");
    assert!(changed.contains("! `log_level` in [supervisor] does nothing as long as --log-level"), "{changed}");
    supervisor.cli(&["upgrade"]).ok();
    supervisor.call(&["one", "count"]);
    assert!(supervisor.log().lines().all(|line| line.starts_with("{\"time\":")), "{}", supervisor.log());
    assert_eq!(count(&supervisor), 1);
}

#[test]
fn a_supervisor_whose_stderr_is_closed_goes_on() {
    // The reader takes the first line and goes.
    let script = "exec \"$0\" \"$@\" 2> >(head -n 1)";
    let config = format!("supervisor.log_level = 'trace'\n{ANY_NAME}");
    let mut supervisor =
        Supervisor::with_config_under(&config, |_| ["bash", "-c", script].map(str::to_string).to_vec());
    for _ in 0..3 {
        life(&mut supervisor);
    }
    supervisor.cli(&["upgrade"]).ok();
    life(&mut supervisor);
    assert_eq!(supervisor.log(), format!("workhall: ready at {}\n", supervisor.socket().display()));
    supervisor.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(supervisor.ended().code(), Some(0));
}

#[test]
fn d05_a_failed_start_is_a_warning_that_says_how_and_so_does_the_pause_after_it() {
    let config = "[class.deaf]\nexec = ['sleep', '1000']\nstart_timeout = '50ms'\nterm_grace = '0s'\n\
                  crash_limit = { crashes = 2 }\n[class.ends]\nexec = ['sh', '-c', 'exit 3']\n\
                  crash_limit = { crashes = 2 }\n[class.slow]\nexec = ['sleep', '1000']\nterm_grace = '0s'\n\
                  [supervisor]\nlog_level = 'warn'\n";
    let mut supervisor = Supervisor::with_config(config);
    for (worker, why) in
        [("deaf", "not ready in time (signal "), ("ends", "it ended before it was ready (exit status 3)")]
    {
        supervisor.cli(&["call", worker, "x"]).ok();
        let failed = format!("warning: {worker}: its process has failed to start: {why}");
        let paused = format!("warning: {worker}: it has crashed too often, and is paused (`crash_limit`): {why}");
        supervisor.until("it is paused", |this| this.log().contains(&paused));
        assert_eq!(supervisor.log().matches(&failed).count(), 2, "{}", supervisor.log());
    }
    // A kill of one that is not ready yet is no failure.
    let lines = supervisor.log().lines().count();
    for step in ["--now", "--within=0s"] {
        supervisor.cli(&["call", "slow", "x"]).ok();
        supervisor.until("it is being started", |this| this.ps("slow")["pid"].is_u64());
        assert_ne!(supervisor.kill(&["slow", step])["exit"], Value::Null, "there was a process");
    }
    assert_eq!(supervisor.log().lines().count(), lines, "{}", supervisor.log());
}
