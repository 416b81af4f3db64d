//! Attached workers: programs that somebody else has started take a name (rules P2, K10), in Rust by the library and in JSON
//! lines by the protocol.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use workhall_tests::harness::{Supervisor, bin_dir, is_root, lives, output, text};

const DEV: &str = "class.dev = { attach = {}, exit_grace = '200ms' }\nclass.a = { exec = ['{bin}/test-worker'] }\n";

/// A program that has attached, which ends with the test.
struct Attached(Child);

impl Attached {
    /// Starts one, and waits until it has its name.
    fn start(supervisor: &mut Supervisor, name: &str) -> Attached {
        let mut command = Attached::command(supervisor, name);
        let child = Attached(command.stdin(Stdio::null()).spawn().unwrap());
        supervisor.until("it has its name", |this| this.cli(&["info", name]).code == 0);
        child
    }

    fn command(supervisor: &Supervisor, name: &str) -> Command {
        let mut command = Command::new(bin_dir().join("test-worker"));
        command.args(["attach", name]).env("WORKHALL_SOCKET", supervisor.socket()).env_remove("WORKHALL_WORKER");
        command
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// It ends by itself.
    fn ended(mut self) -> i32 {
        self.0.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// One in JSON lines.
struct Json(BufReader<UnixStream>);

impl Json {
    fn connect(supervisor: &Supervisor) -> Json {
        Json(BufReader::new(supervisor.raw()))
    }

    fn attach(supervisor: &Supervisor, name: &str) -> Json {
        let mut this = Json::connect(supervisor);
        let welcome = this.ask(&json!({"attach": {"protocol": 1, "worker": name, "ref": 1}}));
        assert_eq!(
            (&welcome["welcome"]["worker"], &welcome["welcome"]["generation"]),
            (&json!(name), &json!(1)),
            "{welcome}"
        );
        this
    }

    fn say(&mut self, message: &Value) {
        self.0.get_mut().write_all(format!("{message}\n").as_bytes()).unwrap();
    }

    #[track_caller]
    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    #[track_caller]
    fn ask(&mut self, message: &Value) -> Value {
        self.say(message);
        self.hear()
    }

    #[track_caller]
    fn ended(mut self) {
        let mut rest = String::new();
        let _reset = self.0.read_to_string(&mut rest);
        assert_eq!(rest, "");
    }
}

#[test]
fn p02_calls_reach_an_attached_worker_in_order_and_it_calls_as_itself() {
    let mut supervisor = Supervisor::with_config(DEV);
    let attached = Attached::start(&mut supervisor, "dev/1");
    for number in 0..50 {
        supervisor.cli(&["call", "dev/1", "in_order", &number.to_string()]).ok();
    }
    assert_eq!(supervisor.call(&["dev/1", "errors"]), json!([]));
    assert_eq!(supervisor.call(&["dev/1", "pid"]), attached.pid());
    assert_eq!(supervisor.call(&["dev/1", "who"]), json!(["dev/1", 2, 1]));
    let row = supervisor.ps("dev/1");
    let words = ["type", "type_number", "state", "pid", "class", "generation"].map(|key| row[key].clone());
    assert_eq!(words, [json!("attached"), json!(5), json!("idle"), json!(attached.pid()), json!("dev"), json!(1)]);
    let file = supervisor.path("sender");
    supervisor.call(&["dev/1", "call", "a", "sender_to", &json!([file]).to_string()]);
    supervisor.until_lines("sender", 1);
    assert_eq!(supervisor.lines("sender"), ["dev/1 %2"]);
    supervisor.cli(&["call", "dev/1", "fail", "no", "--wait"]).fails(1, &["no"]);
}

#[test]
fn k10_a_kill_of_an_attached_worker_only_empties_its_mailbox() {
    let mut supervisor = Supervisor::with_config(DEV);
    let attached = Attached::start(&mut supervisor, "dev");
    let hold = supervisor.hold("dev");
    supervisor.cli(&["call", "dev", "count"]).ok();
    let killed = supervisor.kill(&["dev", "--now"]);
    assert_eq!((&killed["discarded"], &killed["ended_by"]), (&json!(1), &json!("only_emptied")));
    hold.release();
    assert_eq!(supervisor.call(&["dev", "pid"]), attached.pid(), "no signal came");
    assert_eq!(supervisor.call(&["dev", "kill", "dev"]), "killed, 0 discarded");
    assert_eq!(supervisor.call(&["dev", "pid"]), attached.pid());
}

#[test]
fn p02_a_name_that_is_taken_is_refused_and_one_with_messages_is_not_stolen() {
    let mut supervisor =
        Supervisor::with_config(&format!("{DEV}class.x = {{ exec = ['/not/there'], attach = {{}} }}\n"));
    let _attached = Attached::start(&mut supervisor, "dev");
    let refused = output(&mut Attached::command(&supervisor, "dev"));
    assert!(
        refused.code == 1 && refused.err.contains("cannot attach as `dev`") && refused.err.contains("attached"),
        "{refused:?}"
    );
    supervisor.cli(&["call", "x", "m"]).ok();
    let mut json = Json::connect(&supervisor);
    let refused = json.ask(&json!({"attach": {"protocol": 1, "worker": "x", "ref": "r"}}));
    assert_eq!(
        (&refused["receipt"]["ref"], &refused["receipt"]["refused"]["reason"]),
        (&json!("r"), &json!("name_taken")),
        "{refused}"
    );
    // It is a client as before, and may try another name.
    let receipt = json.ask(&json!({"call": {"worker": "dev", "method": "count", "ref": 2}}));
    assert_eq!(receipt["receipt"]["accepted"]["worker"], "dev");
    let welcome = json.ask(&json!({"attach": {"protocol": 1, "worker": "dev/2"}}));
    assert_eq!(welcome["welcome"]["worker"], "dev/2");
    let again = json.ask(&json!({"attach": {"protocol": 1, "worker": "dev/3", "ref": 3}}));
    assert_eq!(again["error"]["ref"], 3, "{again}");
    supervisor.cli(&["call", "dev/4", "m"]).fails(3, &["no_class", "attached", "none is attached as `dev/4` now"]);
    supervisor.cli(&["run", "dev", "m"]).fails(3, &["no_class", "has no program"]);
}

#[test]
fn p02_in_json_lines_tasks_come_one_at_a_time_and_the_end_of_the_connection_is_its_death() {
    let mut supervisor = Supervisor::with_config(DEV);
    let mut dev = Json::attach(&supervisor, "dev");
    let waiting = supervisor.start_cli(&["call", "dev", "first", "1", "--wait"]);
    let first = dev.hear();
    assert_eq!((&first["task"]["method"], &first["task"]["args"]), (&json!("first"), &json!([1])));
    for method in ["second", "third"] {
        supervisor.cli(&["call", "dev", method]).ok();
    }
    dev.say(&json!({"done": {"id": first["task"]["id"], "result": 5}}));
    assert_eq!(waiting.end().ok().json(), 5);
    assert_eq!(dev.hear()["task"]["method"], "second");
    assert_eq!((supervisor.ps("dev")["pending"].clone(), supervisor.ledger("running")), (json!(1), 1));
    drop(dev);
    supervisor.until("it is gone", |this| this.cli(&["info", "dev"]).code == 1);
    let letters = supervisor.cli(&["dead", "list", "--json"]).ok().json();
    let reasons: Vec<(&Value, &Value)> =
        letters.as_array().unwrap().iter().map(|letter| (&letter["method"], &letter["reason"])).collect();
    assert_eq!(reasons, [(&json!("second"), &json!("crashed")), (&json!("third"), &json!("abandoned"))], "{letters}");
    assert_eq!((supervisor.ledger("dead"), supervisor.ledger("pending")), (2, 0));
    // The name is free again, with another number.
    let _other = Json::attach(&supervisor, "dev");
    assert_eq!(supervisor.ps("dev")["number"], 3);
}

#[test]
fn p02_it_leaves_with_and_without_a_drain() {
    let mut supervisor = Supervisor::with_config(DEV);
    let mut dev = Json::attach(&supervisor, "dev");
    for method in ["first", "second"] {
        supervisor.cli(&["call", "dev", method]).ok();
    }
    let first = dev.hear();
    dev.say(&json!({"leave": {"drain": true}}));
    dev.say(&json!({"done": {"id": first["task"]["id"]}}));
    let second = dev.hear();
    assert_eq!(second["task"]["method"], "second");
    supervisor.cli(&["call", "dev", "late"]).fails(3, &["no_class"]);
    let kill = dev.ask(&json!({"done": {"id": second["task"]["id"]}}));
    assert_eq!(kill, json!({"kill": {}}));
    drop(dev);
    supervisor.until("it is gone", |this| this.cli(&["info", "dev"]).code == 1);
    assert_eq!((supervisor.ledger("done"), supervisor.ledger("dead")), (2, 0));
    let attached = Attached::start(&mut supervisor, "dev");
    let hold = supervisor.hold("dev");
    supervisor.cli(&["call", "dev", "give_back", "false"]).ok();
    supervisor.cli(&["call", "dev", "count"]).ok();
    hold.release();
    assert_eq!(attached.ended(), 0);
    supervisor.until("it is gone", |this| this.cli(&["info", "dev"]).code == 1);
    assert_eq!((supervisor.ledger("done"), supervisor.ledger("dead")), (4, 1));
    let events = supervisor.cli(&["events", "dev", "--json"]).ok().out;
    for event in ["attached", "left", "gone"] {
        assert!(events.contains(&format!("\"event\":\"{event}\"")), "{event}: {events}");
    }
}

#[test]
fn p02_who_does_not_end_in_time_loses_its_connection() {
    let mut supervisor = Supervisor::with_config(DEV);
    let mut dev = Json::attach(&supervisor, "dev");
    dev.say(&json!({"leave": {}}));
    assert_eq!(dev.hear(), json!({"kill": {}}));
    dev.ended();
    supervisor.until("it is gone", |this| this.cli(&["info", "dev"]).code == 1);
}

#[test]
fn d06_a_task_of_an_attached_worker_that_takes_too_long_ends_its_connection_and_no_process() {
    let mut supervisor = Supervisor::with_config("class.dev = { attach = {}, task_timeout = '100ms' }\n");
    let mut dev = Json::attach(&supervisor, "dev");
    let timed_out = supervisor.start_cli(&["call", "dev", "slow", "--wait"]);
    assert_eq!(dev.hear()["task"]["method"], "slow");
    assert_eq!(dev.hear(), json!({"kill": {}}));
    dev.ended();
    timed_out.end().fails(6, &["timed out"]);
    supervisor.until("it is gone", |this| this.cli(&["info", "dev"]).code == 1);
}

#[test]
fn d08_the_stop_tells_an_attached_worker_and_closes_its_connection_and_never_signals_it() {
    let mut supervisor = Supervisor::with_config(&format!("supervisor.shutdown_grace = '300ms'\n{DEV}"));
    let mut dev = Json::attach(&supervisor, "dev");
    let attached = Attached::start(&mut supervisor, "dev/2");
    let hold = supervisor.hold("dev/2");
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(dev.hear(), json!({"kill": {}}));
    dev.ended();
    assert!(supervisor.ended().success());
    assert!(lives(attached.pid()));
    hold.release();
    assert_eq!(attached.ended(), 0);
}

#[test]
fn p02_it_goes_on_over_an_upgrade_and_a_reload() {
    let mut supervisor = Supervisor::with_config(DEV);
    let mut dev = Json::attach(&supervisor, "dev");
    let attached = Attached::start(&mut supervisor, "dev/2");
    supervisor.cli(&["call", "dev", "first"]).ok();
    supervisor.cli(&["call", "dev", "second"]).ok();
    let first = dev.hear();
    for _ in 0..2 {
        supervisor.cli(&["upgrade"]).ok();
        supervisor.cli(&["reload", "--restart"]).ok();
    }
    dev.say(&json!({"done": {"id": first["task"]["id"]}}));
    assert_eq!(dev.hear()["task"]["method"], "second");
    assert_eq!(supervisor.call(&["dev/2", "pid"]), attached.pid());
    assert_eq!(supervisor.ps("dev")["type"], "attached");
    assert_eq!(supervisor.status()["counts"]["clients"], 3, "the two, and who asks");
    drop(dev);
    supervisor.until("it is gone", |this| this.cli(&["info", "dev"]).code == 1);
    assert_eq!(supervisor.ledger("dead"), 1);
}

#[test]
fn p02_who_may_attach_is_said_by_the_class() {
    if !is_root() {
        return;
    }
    let supervisor = Supervisor::with_config(
        "supervisor.socket_mode = '0666'\n\
         class.dev = { attach = { users = ['daemon'] } }\nclass.other = { attach = {} }\nclass.none = { exec = ['/x'] }\n",
    );
    supervisor.open_to_others();
    let script = "import os, socket, sys\n\
                  s = socket.socket(socket.AF_UNIX); s.connect(os.environ['WORKHALL_SOCKET'])\n\
                  s.sendall(('{\"attach\":{\"protocol\":1,\"worker\":\"%s\",\"ref\":1}}\\n' % sys.argv[1]).encode())\n\
                  print(s.makefile().readline())";
    let attach = |uid: u32, name: &str| {
        let mut command = supervisor.command_of(uid, uid, workhall_tests::harness::python(), &["-c", script, name]);
        output(&mut command).ok().out
    };
    assert!(attach(1, "dev").contains("welcome"));
    for (uid, name, list) in [
        (2, "dev/1", "`attach` of class `dev`"),
        (1, "other", "`attach` of class `other`"),
        (1, "none", "`attach` of class `none`"),
    ] {
        let refused = attach(uid, name);
        assert!(refused.contains("not_permitted") && refused.contains(list), "{refused}");
    }
    assert!(attach(1, "nobody").contains("no_class"));
    assert!(attach(0, "nobody").contains("welcome"), "root may have a name without a class");
}

/// A class that loses its program, and a name without a class beside a class of that name: neither is taken for the other.
#[test]
fn p02_a_class_without_a_program_starts_nothing_and_harms_nobody() {
    let job = "class.job = { exec = ['{bin}/test-worker'], names = ['job-*'] }\n";
    let mut supervisor =
        Supervisor::with_config(&format!("{job}class.x = {{ exec = ['/not/there'], attach = {{}} }}\n"));
    let mut dev = Json::attach(&supervisor, "job");
    assert_eq!(supervisor.call(&["job-1", "count"]), 1, "its class is that of the file");
    supervisor.cli(&["call", "job", "m"]).ok();
    assert_eq!(dev.hear()["task"]["method"], "m");
    supervisor.cli(&["call", "x", "m"]).ok();
    let config = format!("{job}class.x = {{ attach = {{}} }}\n").replace("{bin}", text(bin_dir()));
    supervisor.file("workhall.toml", &config);
    supervisor.cli(&["reload"]).ok();
    supervisor.cli(&["resume", "x"]).ok();
    supervisor.until("it cannot be started", |this| {
        let info = this.cli(&["info", "x", "--json"]).ok().json();
        info["last_exit"]["failure"].as_str().is_some_and(|failure| failure.contains("has no program"))
    });
    supervisor.cli(&["call", "x/other", "m"]).fails(3, &["no_class", "has no program"]);
    assert_eq!(supervisor.call(&["job-1", "count"]), 2);
}

#[test]
fn p02_nobody_answers_is_an_error_that_says_where() {
    let supervisor = Supervisor::with_config(DEV);
    let nowhere = supervisor.path("nowhere.sock");
    let mut command = Attached::command(&supervisor, "dev");
    let refused = output(command.env("WORKHALL_SOCKET", &nowhere));
    assert!(
        refused.code == 1 && refused.err.contains("no supervisor answers at") && refused.err.contains(text(&nowhere)),
        "{refused:?}"
    );
}

#[test]
fn p02_a_connection_on_which_answers_are_due_attaches_nothing() {
    let supervisor = Supervisor::with_config(DEV);
    let mut raw = supervisor.raw();
    let mut lines = BufReader::new(raw.try_clone().unwrap()).lines();
    raw.write_all(
        b"{\"events\":{\"ref\":1,\"follow\":true}}\n{\"attach\":{\"protocol\":1,\"worker\":\"dev/1\",\"ref\":2}}\n",
    )
    .unwrap();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next(), json!({"receipt": {"ref": 1, "waiting": {}}}));
    let refused = next();
    assert!(
        refused["error"]["ref"] == 2 && refused["error"]["detail"].as_str().unwrap().contains("of its own"),
        "{refused}"
    );
    supervisor.cli(&["info", "dev/1"]).fails(1, &["there is no worker"]);
}
