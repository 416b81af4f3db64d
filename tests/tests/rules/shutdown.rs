//! The supervisor stops, with twenty workers of all kinds (rule D8): all are asked, stopped ones continued, the
//! deadline is kept, nothing is left behind, and a second signal does not wait.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use workhall_protocol::args::Payload;
use workhall_protocol::client::Ticket;
use workhall_protocol::messages::{Call, DeadReason, OutcomeBody};
use workhall_tests::harness::{self, Supervisor, lives, payload, text};

/// Ready, and from then on deaf to everything but SIGKILL.
const DEAF: &str = r#"
import os, signal, socket, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
connection = socket.socket(fileno=int(os.environ["WORKHALL_FD"]))
connection.sendall(b'{"ready":{"protocol":1,"window":1}}\n')
while True: time.sleep(1000)
"#;

const CONFIG: &str = r#"
    supervisor.shutdown_grace = "{grace}"
    [class.worker]
    exec = ["{bin}/test-worker"]
    names = ["idle/*", "busy/*", "stopped/*", "parent/*", "ending", "endless"]
    [class.deaf]
    exec = ["{python}", "-S", "{dir}/deaf.py"]
    names = ["deaf/*"]
    [class.never]
    exec = ["sh", "-c", "trap '' TERM; while :; do sleep 1000; done"]
    names = ["starting/*"]
    [class.fails]
    exec = ["false"]
    names = ["backoff/*"]
"#;

/// Scripts for what a worker leaves behind, in sessions of its own; both ignore SIGTERM.
const CHILD: &str =
    "(setsid sh -c 'trap \"\" TERM; echo $$ > $FILE.new; mv $FILE.new $FILE; while :; do sleep 1000; done' &)";
const STOPPED_CHILD: &str = "(setsid sh -c 'trap \"\" TERM; echo $$ > $FILE.new; mv $FILE.new $FILE; kill -STOP $$' &)";

struct Crowd {
    /// Calls that were not executed when the signal came, by worker.
    tickets: BTreeMap<&'static str, Ticket>,
    client: workhall_protocol::Client<std::os::unix::net::UnixStream>,
    /// What workers have left behind.
    left: Vec<i32>,
}

/// Twenty names, each in a state of its own.
fn crowd(grace: &str) -> (Supervisor, Crowd) {
    let config = CONFIG.replace("{grace}", grace).replace("{python}", harness::python());
    let mut supervisor = Supervisor::with_config(&config);
    supervisor.file("deaf.py", DEAF);
    let mut client = supervisor.client();
    let mut tickets = BTreeMap::new();
    let mut post = |worker: &'static str, method: &'static str, args: Payload<'static>| {
        let ticket = client.submit(Call { wait: true, ..Call::new(worker, method, args) }).unwrap();
        client.flush().unwrap();
        tickets.insert(worker, ticket);
    };
    let none = || payload(&());
    for worker in ["deaf/1", "deaf/2", "starting/1", "starting/2", "backoff/1", "backoff/2"] {
        post(worker, "x", none());
    }
    for worker in ["idle/1", "idle/2", "idle/3", "idle/4", "stopped/1", "stopped/2"] {
        supervisor.call(&[worker, "count"]);
    }
    let mut left = Vec::new();
    for (worker, script) in [("parent/1", CHILD), ("parent/2", STOPPED_CHILD), ("parent/3", CHILD)] {
        let file = supervisor.path(&worker.replace('/', "-"));
        left.push(supervisor.call(&[worker, "leave", script, text(&file)])[0].as_i64().unwrap() as i32);
    }
    let (begun, go, never) = (supervisor.path("begun"), supervisor.path("go"), supervisor.path("never"));
    let workers = [("busy/1", &go), ("busy/2", &go), ("stopped/3", &go), ("endless", &never), ("ending", &never)];
    for (at, (worker, go)) in workers.into_iter().enumerate() {
        post(worker, "block", payload(&(&begun, go)));
        supervisor.until_lines("begun", at + 1);
    }
    // A second process would follow those that are killed, or have left the task of another behind.
    supervisor.cli(&["kill", "ending"]).ok();
    supervisor.cli(&["call", "ending", "count"]).ok();
    supervisor.cli(&["call", "busy/1", "count"]).ok();
    for worker in ["stopped/1", "stopped/2", "stopped/3"] {
        kill(Pid::from_raw(supervisor.worker_pid(worker)), Signal::SIGSTOP).unwrap();
    }
    supervisor.until("all are in their states", |this| {
        let is = |worker: &str, state: &str| this.ps(worker)["state"] == state;
        is("deaf/1", "busy") && is("deaf/2", "busy") && is("backoff/1", "backoff") && is("backoff/2", "backoff")
    });
    let list = supervisor.cli(&["ps", "--json"]).ok().json();
    let names: std::collections::BTreeSet<_> =
        list.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 20, "{names:?}");
    assert!(left.iter().all(|pid| lives(*pid)));
    (supervisor, Crowd { tickets, client, left })
}

/// Each who waits for an outcome is told it: done for these, abandoned for the others.
fn outcomes(crowd: &mut Crowd, done: &[&str]) {
    for (worker, ticket) in &crowd.tickets {
        let outcome = crowd.client.outcome(*ticket).unwrap_or_else(|error| panic!("{worker}: {error}"));
        let expected = match outcome {
            OutcomeBody::Done { .. } => done.contains(worker),
            OutcomeBody::Dead { reason: DeadReason::Abandoned, .. } => !done.contains(worker),
            // One that could not start has been charged for its message, or for none.
            OutcomeBody::Dead { reason: DeadReason::Crashed, .. } => worker.starts_with("backoff"),
            _ => false,
        };
        assert!(expected, "{worker}: {outcome:?}");
    }
}

fn ended(supervisor: &mut Supervisor, crowd: &Crowd) {
    assert_eq!(supervisor.ended().code(), Some(0));
    assert_eq!(supervisor.processes(), [0_i32; 0]);
    assert_eq!(crowd.left.iter().filter(|pid| lives(**pid)).count(), 0, "what was left behind is gone");
    supervisor.no_overlap();
}

#[test]
fn d08_twenty_workers_of_all_kinds_end_within_the_grace_or_are_killed_then() {
    const GRACE: Duration = Duration::from_secs(3);
    let (mut supervisor, mut crowd) = crowd("3s");
    let idle = ["idle/1", "stopped/1", "parent/1"].map(|worker| supervisor.worker_pid(worker));
    let began = Instant::now();
    supervisor.signal(Signal::SIGTERM);
    supervisor.until("idle ones end at once, also stopped ones", |_| !idle.into_iter().any(lives));
    assert!(began.elapsed() < GRACE, "it took {:?}", began.elapsed());
    assert_eq!(supervisor.status()["stopping"], json!(true), "it can be asked meanwhile");
    supervisor.let_go();
    outcomes(&mut crowd, &["busy/1", "busy/2", "stopped/3"]);
    ended(&mut supervisor, &crowd);
    let took = began.elapsed();
    assert!(took >= GRACE && took < GRACE + Duration::from_secs(15), "it took {took:?}");
    assert_eq!(supervisor.lines("begun").iter().filter(|line| *line == "ended").count(), 3);
}

#[test]
fn d08_a_second_signal_during_the_grace_is_immediate() {
    for (first, second) in [(Signal::SIGTERM, Signal::SIGINT), (Signal::SIGINT, Signal::SIGTERM)] {
        let (mut supervisor, mut crowd) = crowd("1h");
        supervisor.signal(first);
        supervisor.until("it stops", |this| this.status()["stopping"] == true);
        assert!(lives(supervisor.worker_pid("endless")) && lives(supervisor.worker_pid("deaf/1")));
        let began = Instant::now();
        supervisor.signal(second);
        outcomes(&mut crowd, &[]);
        ended(&mut supervisor, &crowd);
        assert!(began.elapsed() < Duration::from_secs(15), "it took {:?}", began.elapsed());
        assert!(!supervisor.lines("begun").contains(&"ended".to_string()));
    }
}

#[test]
fn d08_two_signals_at_once_are_a_first_and_a_second() {
    let (mut supervisor, mut crowd) = crowd("1h");
    // Held up, so that it finds both at once.
    supervisor.signal(Signal::SIGSTOP);
    supervisor.signal(Signal::SIGTERM);
    supervisor.signal(Signal::SIGINT);
    supervisor.signal(Signal::SIGCONT);
    outcomes(&mut crowd, &[]);
    ended(&mut supervisor, &crowd);
}

#[test]
fn a_stop_that_loses_messages_says_how_many_and_whose() {
    let config = format!("supervisor.shutdown_grace = '0s'\n{}", harness::ANY_NAME);
    let mut supervisor = Supervisor::with_config(&config);
    for worker in ["a", "b"] {
        supervisor.block(worker);
    }
    for worker in ["a", "a", "a", "b", "b"] {
        supervisor.cli(&["call", worker, "count"]).ok();
    }
    supervisor.call(&["idle", "count"]);
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.ended().code(), Some(0));
    let lost = "warning: 5 messages that waited and 2 that had begun are lost with this stop, of 2 workers: a, b";
    assert_eq!(supervisor.log().lines().skip(1).collect::<Vec<_>>(), [format!("workhall: {lost}")]);
}
