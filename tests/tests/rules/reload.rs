//! What a new configuration changes while the supervisor runs, and what it does not.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use workhall_tests::harness::{Supervisor, bin_dir, is_root, text};

const A: &str = "[class.a]\nexec = ['{bin}/test-worker']\n";
const B: &str = "[class.b]\nexec = ['{bin}/test-worker']\n";

/// Writes another configuration in the place of the first.
fn write(supervisor: &Supervisor, config: &str) {
    let bin = bin_dir().to_str().unwrap();
    supervisor.file("workhall.toml", &config.replace("{bin}", bin));
}

#[track_caller]
fn reload(supervisor: &Supervisor, more: &[&str]) -> Value {
    supervisor.cli(&[&["reload", "--json"], more].concat()).ok().json()["reloaded"].take()
}

fn variable(supervisor: &Supervisor, worker: &str) -> String {
    let printed = supervisor.call(&[worker, "program", "printenv", "KEY"]);
    printed[1].as_str().unwrap().trim_end().to_string()
}

#[test]
fn a_running_process_keeps_its_class_and_the_next_one_has_the_new() {
    let class = |key: &str| format!("{A}environment = {{ KEY = '{key}' }}\n");
    let mut supervisor = Supervisor::with_config(&class("old"));
    assert_eq!(variable(&supervisor, "a"), "old");
    supervisor.call(&["a/rests", "count"]);
    supervisor.kill(&["a/rests"]);
    write(&supervisor, &class("new"));
    let report = reload(&supervisor, &[]);
    let secret = json!([{ "key": "class.a.environment.KEY", "old": "(not shown)", "new": "(not shown)" }]);
    assert_eq!(report["changed"], secret);
    assert_eq!(report["workers"], json!({ "renewed": 0, "kept": 1, "restarted": 0, "retired": 0, "removed": 0 }));
    assert_eq!(variable(&supervisor, "a"), "old");
    assert_eq!(supervisor.cli(&["info", "a", "--json"]).ok().json()["outdated"], true);
    assert_eq!(variable(&supervisor, "a/rests"), "new");
    // Its end, whatever the reason, is the end of the old class.
    let pid = supervisor.worker_pid("a");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    supervisor.until("it has ended", |this| this.ps("a")["pid"] != pid);
    assert_eq!(variable(&supervisor, "a"), "new");
    assert_eq!(supervisor.cli(&["info", "a", "--json"]).ok().json()["outdated"], false);
    assert!(supervisor.cli(&["reload"]).ok().out.contains("nothing has changed"));
}

#[test]
fn restart_waits_for_the_current_task_and_loses_nothing() {
    let class = |key: &str| format!("{A}environment = {{ KEY = '{key}' }}\n");
    let mut supervisor = Supervisor::with_config(&class("old"));
    let log = supervisor.path("executed");
    let held = supervisor.hold("a");
    for line in 0..50 {
        supervisor.cli(&["call", "a", "log", text(&log), &format!("\"{line}\"")]).ok();
    }
    let pid = supervisor.worker_pid("a");
    write(&supervisor, &class("new"));
    assert_eq!(reload(&supervisor, &["--restart"])["workers"]["restarted"], 1);
    supervisor.cli(&["call", "a", "log", text(&log), "\"50\""]).ok();
    assert_eq!((supervisor.ps("a")["pid"].clone(), held.has_ended()), (json!(pid), false));
    held.release();
    supervisor.until_lines("executed", 51);
    assert_eq!(supervisor.lines("executed"), workhall_tests::harness::numbers(0..51));
    assert_eq!(variable(&supervisor, "a"), "new");
    let info = supervisor.cli(&["info", "a", "--json"]).ok().json();
    assert_eq!((&info["crashes"], &info["generation"]), (&json!(0), &json!(2)), "{info}");
    assert_eq!(supervisor.ledger("done"), 53);
    // Nothing has changed since, so nothing is started anew.
    assert_eq!(reload(&supervisor, &["--restart"])["workers"]["restarted"], 0);
    supervisor.no_overlap();
}

#[test]
fn a_bad_file_changes_nothing_and_says_where() {
    let mut supervisor = Supervisor::with_config(&format!("{A}{B}"));
    supervisor.call(&["a", "count"]);
    write(&supervisor, &format!("{A}task_timeout = '5'\n"));
    let output = supervisor.cli(&["reload"]);
    assert_eq!((output.code, output.out.as_str()), (1, ""), "{output:?}");
    let place = format!("workhall: {}:3:16: ", text(&supervisor.path("workhall.toml")));
    assert!(output.err.starts_with(&place) && output.err.contains("task_timeout = '5'"), "{output:?}");
    assert!(supervisor.log().contains("workhall: error: the configuration is what it was: "), "{}", supervisor.log());
    supervisor.call(&["b", "count"]);
    let lines = supervisor.log().lines().count();
    supervisor.signal(Signal::SIGHUP);
    supervisor.until("the log says so again", |this| this.log().lines().count() > lines);
    supervisor.call(&["b/new", "count"]);
    // Nor does one that is not there, or has nothing to serve.
    std::fs::remove_file(supervisor.path("workhall.toml")).unwrap();
    supervisor.cli(&["reload"]).fails(1, &["cannot read", "workhall.toml"]);
    write(&supervisor, "");
    supervisor.cli(&["reload"]).fails(1, &["has no classes"]);
    supervisor.call(&["b/newer", "count"]);
}

#[test]
fn w09_a_class_that_is_gone_takes_nothing_new_and_what_it_has_is_executed() {
    let mut supervisor = Supervisor::with_config(&format!("{A}{B}"));
    supervisor.call(&["b/rests", "count"]);
    supervisor.kill(&["b/rests"]);
    supervisor.call(&["b/idle", "count"]);
    let log = supervisor.path("executed");
    let held = supervisor.hold("b");
    supervisor.cli(&["call", "b", "log", text(&log), "\"pending\""]).ok();
    supervisor.cli(&["call", "b", "die"]).ok();
    supervisor.cli(&["call", "b", "log", text(&log), "\"behind a crash\""]).ok();
    write(&supervisor, A);
    let report = reload(&supervisor, &[]);
    assert_eq!(report["removed"], json!(["b"]));
    assert_eq!(report["workers"]["retired"], 2, "{report}");
    for worker in ["b", "b/idle", "b/new"] {
        supervisor.cli(&["call", worker, "count"]).fails(3, &["no_class"]);
    }
    held.release();
    supervisor.until_lines("executed", 2);
    assert_eq!(supervisor.lines("executed"), ["pending", "behind a crash"]);
    supervisor.cli(&["wait", "b", "--idle", "--timeout", "30s"]).ok();
    supervisor.kill(&["b"]);
    assert_eq!(supervisor.ps("b"), Value::Null, "with its process the worker is gone");
    // What comes back in time goes on.
    write(&supervisor, &format!("{A}{B}"));
    assert_eq!(reload(&supervisor, &[])["added"], json!(["b"]));
    assert_eq!(supervisor.call(&["b/idle", "count"]), 2, "the same process");
    assert_eq!(supervisor.call(&["b", "count"]), 1);
}

#[test]
fn limits_below_what_is_in_use_drop_nothing() {
    let config = |limits: &str, mailbox: u32| format!("{limits}{A}mailbox = {{ messages = {mailbox} }}\n{B}");
    let mut supervisor = Supervisor::with_config(&config("", 100));
    let held = supervisor.hold("a");
    for _ in 0..10 {
        supervisor.cli(&["call", "a", "count"]).ok();
    }
    supervisor.call(&["b", "count"]);
    write(&supervisor, &config("[supervisor]\nmax_processes = 1\nmax_workers = 1\nmessage_bytes = 100\n", 5));
    let report = reload(&supervisor, &[]);
    let changed: Vec<&str> = report["changed"].as_array().unwrap().iter().filter_map(|it| it["key"].as_str()).collect();
    assert_eq!(
        changed,
        ["class.a.mailbox.messages", "supervisor.max_processes", "supervisor.max_workers", "supervisor.message_bytes"]
    );
    supervisor.cli(&["call", "a", "count"]).fails(3, &["mailbox_full", "10 messages wait"]);
    supervisor.cli(&["call", "b/new", "count"]).fails(3, &["mailbox_full"]);
    supervisor.cli(&["call", "b", "echo", &"x".repeat(200)]).fails(3, &["too_large"]);
    assert_eq!(supervisor.call(&["b", "count"]), 2, "its process was there");
    held.release();
    supervisor.cli(&["wait", "a", "--idle", "--timeout", "30s"]).ok();
    assert_eq!(supervisor.call(&["a", "count"]), 11);
    assert_eq!(supervisor.status()["refused"], 3);
}

#[test]
fn what_only_a_start_can_change_is_said() {
    let supervisor = Supervisor::with_config(A);
    write(&supervisor, &format!("[supervisor]\nsocket = '/elsewhere'\nprocess_tree = 'subreaper'\n{A}main = true\n"));
    let report = supervisor.cli(&["reload"]).ok().out;
    for part in [
        "~ class.a.main: (not set) -> true\n",
        "~ supervisor.socket: (not set) -> \"/elsewhere\"\n",
        "! `socket` in [supervisor] holds from the next start",
        "! `process_tree` in [supervisor] holds from the next start",
        "! class `a`: `main` holds from the next start",
    ] {
        assert!(report.contains(part), "lacks {part}: {report}");
    }
    assert_eq!(supervisor.ps("a"), Value::Null);
}

#[test]
fn a_supervisor_without_a_file_says_that_there_is_none() {
    let supervisor = Supervisor::start();
    supervisor.cli(&["reload"]).fails(1, &["there is no configuration to read again", "workers directory"]);
}

#[test]
fn who_may_not_administer_may_not_reload() {
    if !is_root() {
        return println!("skipped: only root can become another user");
    }
    let supervisor = Supervisor::with_config(&format!("[supervisor]\nsocket_mode = '0666'\n{A}"));
    supervisor.open_to_others();
    supervisor.cli_of(1, 1, &["reload"]).fails(3, &["not_permitted", "`admin` in [supervisor]"]);
    write(&supervisor, &format!("[supervisor]\nsocket_mode = '0666'\nadmin = {{ users = [1] }}\n{A}"));
    supervisor.cli(&["reload"]).ok();
    supervisor.cli_of(1, 1, &["reload"]).ok();
}

#[test]
fn what_an_included_file_says_counts_at_a_reload_and_over_an_upgrade() {
    let class = |grace: &str| format!("[class.more]\nexec = ['{{bin}}/test-worker']\nterm_grace = '{grace}'\n");
    let written = |text: &str| text.replace("{bin}", bin_dir().to_str().unwrap());
    let config = "[supervisor]\ninclude = 'more.d/*.toml'\n[class.a]\nexec = ['{bin}/test-worker']\n";
    let supervisor = Supervisor::with_config_under(config, |dir| {
        std::fs::create_dir(dir.join("more.d")).unwrap();
        Vec::new()
    });
    let file = supervisor.path("more.d").join("more.toml");
    std::fs::write(&file, written(&class("1s"))).unwrap();
    let said = reload(&supervisor, &[]);
    assert_eq!(said["added"], json!(["more"]), "{said}");
    assert_eq!(supervisor.call(&["more", "count"]), 1);
    std::fs::write(&file, written(&class("2s"))).unwrap();
    let said = reload(&supervisor, &[]);
    assert_eq!(said["changed"][0]["key"], "class.more.term_grace", "{said}");
    // The text that was read is carried, whatever stands there now.
    std::fs::write(&file, "not toml").unwrap();
    supervisor.cli(&["upgrade"]).ok();
    assert_eq!(supervisor.call(&["more", "count"]), 2);
    assert_eq!(supervisor.call(&["more/another", "count"]), 1);
    let refused = supervisor.cli(&["reload"]);
    assert!(refused.code == 1 && refused.err.contains("more.toml"), "{refused:?}");
}

#[test]
fn a_mailbox_that_holds_more_than_its_new_limit_says_both() {
    let mailbox = |messages: u32| format!("{A}mailbox = {{ messages = {messages} }}\n");
    let mut supervisor = Supervisor::with_config(&mailbox(10));
    let held = supervisor.hold("a");
    for _ in 0..6 {
        supervisor.cli(&["call", "a", "count"]).ok();
    }
    write(&supervisor, &mailbox(2));
    reload(&supervisor, &[]);
    let full = "6 messages wait for `a`, and the limit is 2 (`mailbox.messages` of class `a`)";
    supervisor.cli(&["call", "a", "count"]).fails(3, &[full]);
    held.release();
}

#[test]
fn a_socket_that_is_gone_or_anothers_is_said_at_a_reload() {
    let mut supervisor = Supervisor::with_config(A);
    let moved = supervisor.path("moved");
    let socket = supervisor.socket().to_path_buf();
    let upgraded = |socket: &std::path::Path| {
        supervisor.cli(&["--socket", text(socket), "upgrade"]).ok();
    };
    assert_eq!(reload(&supervisor, &[])["warnings"], json!([]));
    std::fs::rename(&socket, &moved).unwrap();
    upgraded(&moved);
    let warnings = |supervisor: &Supervisor| reload(supervisor, &["--socket", text(&moved)])["warnings"].clone();
    let gone =
        format!("{} is not there any more: nobody can connect until the supervisor is restarted", socket.display());
    assert_eq!(warnings(&supervisor), json!([gone]));
    let other = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let another = format!(
        "{} is not the socket of this supervisor any more: nobody can connect until it is restarted",
        socket.display()
    );
    upgraded(&moved);
    assert_eq!(warnings(&supervisor), json!([another]));
    supervisor.signal(Signal::SIGHUP);
    supervisor.until("it is in the log, too", |this| this.log().matches(&format!("warning: {another}")).count() == 2);
    drop(other);
    std::fs::rename(&moved, &socket).unwrap();
    assert_eq!(reload(&supervisor, &[])["warnings"], json!([]));
}
