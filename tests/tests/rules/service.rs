//! A supervisor below a service manager: what it tells it, the socket that it is handed over, and what of all that
//! reaches the workers (nothing).

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use workhall_protocol::Client;
use workhall_protocol::messages::{Call, OutcomeBody, ReceiptBody};
use workhall_tests::harness::{
    ANY_NAME, Output, Supervisor, bin_dir, is_root, output, own_cgroup, payload, tree_modes, until, workspace,
};

/// A service manager, as far as it listens.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    /// Starts a supervisor with these variables beside `NOTIFY_SOCKET`.
    fn start(config: &str, variables: &str) -> (Manager, Supervisor) {
        let mut socket = None;
        let supervisor = Supervisor::with_config_under(config, |dir| {
            let path = dir.join("notify");
            socket = Some(UnixDatagram::bind(&path).unwrap());
            let script = format!("NOTIFY_SOCKET={} {variables} exec \"$0\" \"$@\"", path.display());
            vec!["sh".into(), "-c".into(), script]
        });
        let socket = socket.unwrap();
        socket.set_nonblocking(true).unwrap();
        (Manager { socket, heard: Vec::new() }, supervisor)
    }

    /// All that was said so far, one assignment each.
    fn heard(&mut self) -> &[String] {
        let mut buffer = [0; 4096];
        while let Ok(count) = self.socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            self.heard.extend(text.lines().map(str::to_string));
        }
        &self.heard
    }

    /// Waits until the last status is this one.
    #[track_caller]
    fn until_status(&mut self, supervisor: &mut Supervisor, status: &str) {
        supervisor.until(status, |_| {
            let last = self.heard().iter().rev().find_map(|line| line.strip_prefix("STATUS="));
            last == Some(status)
        });
    }

    fn count(&mut self, line: &str) -> usize {
        self.heard().iter().filter(|heard| *heard == line).count()
    }
}

/// How often a process has stopped to wait.
fn waits(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn the_service_manager_is_told_when_it_is_ready_what_it_has_and_when_it_stops() {
    let (mut manager, mut supervisor) = Manager::start(&format!("supervisor.shutdown_grace = '7s'\n{ANY_NAME}"), "");
    manager.until_status(&mut supervisor, "0 workers, 0 processes, 0 messages pending");
    assert_eq!(manager.heard()[..1], ["READY=1"]);
    supervisor.call(&["a", "count"]);
    supervisor.call(&["b", "count"]);
    let held = supervisor.hold("a");
    for _ in 0..3 {
        supervisor.cli(&["call", "a", "count"]).ok();
    }
    // Also when nothing else happens after the last change.
    manager.until_status(&mut supervisor, "2 workers, 2 processes, 3 messages pending");
    held.release();
    supervisor.cli(&["wait", "a", "--idle"]).ok();
    manager.until_status(&mut supervisor, "2 workers, 2 processes, 0 messages pending");
    assert_eq!((manager.count("STOPPING=1"), manager.count("WATCHDOG=1")), (0, 0));
    let held = supervisor.hold("a");
    supervisor.signal(Signal::SIGTERM);
    // The grace and some seconds more, so that the manager does not end before the supervisor does.
    supervisor.until("it says so", |_| manager.count("STOPPING=1") == 1);
    assert_eq!(manager.count("EXTEND_TIMEOUT_USEC=22000000"), 1, "{:?}", manager.heard());
    manager.until_status(&mut supervisor, "stopping: 1 worker, 1 process, 0 messages pending");
    held.release();
    assert_eq!(supervisor.ended().code(), Some(0));
    assert_eq!(manager.count("READY=1"), 1);
}

#[test]
fn an_idle_supervisor_does_not_wake_up_to_tell_figures() {
    let (mut manager, mut supervisor) = Manager::start(ANY_NAME, "");
    supervisor.call(&["a", "count"]);
    manager.until_status(&mut supervisor, "1 worker, 1 process, 0 messages pending");
    // What it does for the connection that asked last is done.
    let pid = supervisor.pid();
    let mut before = waits(pid);
    let quiet_since = |before: &mut u64| std::mem::replace(before, waits(pid)) == waits(pid);
    until("it has come to rest", || quiet_since(&mut before));
    let told = manager.heard().len();
    // Longer than the time between two figures.
    thread::sleep(Duration::from_millis(2500));
    assert_eq!((waits(pid), manager.heard().len()), (before, told));
}

#[test]
fn the_watchdog_is_shown_life_by_the_event_loop_alone() {
    let (mut manager, mut supervisor) = Manager::start(ANY_NAME, "WATCHDOG_USEC=200000 WATCHDOG_PID=$$");
    supervisor.until("it shows life", |_| manager.count("WATCHDOG=1") >= 5);
    // A loop that does not turn shows none, whatever else lives of the process.
    supervisor.signal(Signal::SIGSTOP);
    let stopped = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", supervisor.pid())).unwrap();
        stat.rsplit_once(')').unwrap().1.trim_start().starts_with('T')
    };
    until("it is stopped", stopped);
    let shown = manager.count("WATCHDOG=1");
    thread::sleep(Duration::from_millis(500));
    assert_eq!(manager.count("WATCHDOG=1"), shown);
    supervisor.signal(Signal::SIGCONT);
    supervisor.until("it goes on", |_| manager.count("WATCHDOG=1") > shown);
    // Asked of another process, it is none of ours.
    let (mut manager, mut supervisor) = Manager::start(ANY_NAME, "WATCHDOG_USEC=1000 WATCHDOG_PID=1");
    supervisor.call(&["a", "count"]);
    manager.until_status(&mut supervisor, "1 worker, 1 process, 0 messages pending");
    assert_eq!(manager.count("WATCHDOG=1"), 0);
}

#[test]
fn a_reload_is_told_with_its_time_and_its_end() {
    let (mut manager, mut supervisor) = Manager::start(ANY_NAME, "");
    supervisor.until("it is ready", |_| manager.count("READY=1") == 1);
    let times = |manager: &mut Manager| -> Vec<u64> {
        let lines = manager.heard().iter().filter_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        lines.map(|usec| usec.parse().unwrap()).collect()
    };
    // What the kernel says of its own time since the start, the first number of /proc/uptime, is near it.
    let uptime = || fs::read_to_string("/proc/uptime").unwrap().split('.').next().unwrap().parse::<u64>().unwrap();
    let before = uptime();
    for reload in 1..=2 {
        supervisor.signal(Signal::SIGHUP);
        supervisor.until("it is ready again", |_| manager.count("READY=1") == 1 + reload);
        assert_eq!(manager.count("RELOADING=1"), reload);
    }
    let times = times(&mut manager);
    assert!(times.len() == 2 && times[0] < times[1], "{times:?}");
    // A machine that has slept counts that in its uptime and not in its monotonic clock.
    assert!(times[1] / 1_000_000 <= uptime() + 1 && times[0] > 0, "{times:?}, not before {before}");
}

#[test]
fn a_manager_that_does_not_listen_harms_nobody() {
    let (manager, supervisor) = Manager::start(ANY_NAME, "WATCHDOG_USEC=20000");
    // Nobody reads: its queue is full soon.
    supervisor.call(&["a", "count"]);
    assert_eq!(supervisor.call(&["a", "count"]), 2);
    drop(manager);
    let mut supervisor = supervisor;
    supervisor.until("it has noticed", |this| this.log().contains("does not listen at its NOTIFY_SOCKET"));
    assert_eq!(supervisor.call(&["a", "count"]), 3);
    for (variables, part) in [
        ("NOTIFY_SOCKET=vsock:2:1", "NOTIFY_SOCKET is vsock:2:1: it is neither"),
        ("WATCHDOG_USEC=soon", "WATCHDOG_USEC is `soon`, which is no number"),
    ] {
        let (_manager, supervisor) = Manager::start(ANY_NAME, variables);
        assert_eq!(supervisor.call(&["a", "count"]), 1);
        assert!(supervisor.log().contains(part), "{}", supervisor.log());
    }
}

#[test]
fn what_the_service_manager_says_reaches_no_worker() {
    let all = "WATCHDOG_USEC=60000000 WATCHDOG_PID=$$ LISTEN_FDS=1 LISTEN_PID=1 LISTEN_FDNAMES=x";
    let classes =
        "[class.plain]\nexec = ['{bin}/test-worker']\n[class.launched]\nexec = ['{bin}/test-worker']\nnice = 1\n";
    let (_manager, supervisor) = Manager::start(classes, &format!("{all} export NOTIFY_SOCKET;"));
    let activated = Supervisor::activated(classes, |_| {});
    for (supervisor, worker) in [(&supervisor, "plain"), (&supervisor, "launched"), (&activated, "plain")] {
        let environment = supervisor.call(&[worker, "read", "/proc/self/environ"]);
        let environment = environment.as_str().unwrap();
        assert!(environment.contains("WORKHALL_WORKER="), "{environment:?}");
        for name in ["NOTIFY_", "WATCHDOG_", "LISTEN_"] {
            assert!(!environment.contains(name), "{worker}: {environment:?}");
        }
        // stdin, stdout, stderr, and what PROTOCOL.md says; no listener among them.
        let descriptors = supervisor.call(&[worker, "descriptors"]);
        assert!(!descriptors.to_string().contains(&listening(supervisor)), "{descriptors}");
    }
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS"] {
        let file = supervisor.file("w.toml", &format!("[class.a]\nexec = ['a']\npass_environment = ['{name}']\n"));
        supervisor.cli(&["check", file.to_str().unwrap()]).fails(2, &["class `a`", name, "supervisor alone"]);
    }
}

/// How the kernel calls the socket at which a supervisor listens.
fn listening(supervisor: &Supervisor) -> String {
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    let path = supervisor.socket().to_str().unwrap();
    // Flags of 00010000: it accepts.
    let line = table.lines().find(|line| line.ends_with(path) && line.contains(" 00010000 ")).unwrap();
    format!("socket:[{}]", line.split_whitespace().nth(6).unwrap())
}

// ---- a socket that is handed over -----------------------------------------------------------

#[test]
fn what_is_posted_before_the_start_waits_in_the_socket() {
    let mut early = None;
    let mut supervisor = Supervisor::activated(ANY_NAME, |this| {
        let mut client = this.client();
        let calls = [0, 1, 2].map(|number| {
            client.submit(Call { wait: true, ..Call::new("a", "in_order", payload(&(number,))) }).unwrap()
        });
        client.flush().unwrap();
        early = Some((client, calls));
    });
    let (mut client, calls) = early.unwrap();
    for call in calls {
        assert!(matches!(client.outcome(call), Ok(OutcomeBody::Done { .. })));
    }
    // So it does while the supervisor is restarted, whether it was stopped or killed.
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        supervisor.signal(signal);
        supervisor.ended();
        assert!(supervisor.socket().exists(), "the socket is the manager's");
        let mut client = supervisor.client();
        let call = Call { wait: true, ..Call::new("b", "count", payload(&())) };
        let ticket = client.submit(call).unwrap();
        client.flush().unwrap();
        supervisor.restart();
        assert!(matches!(client.outcome(ticket), Ok(OutcomeBody::Done { .. })));
    }
    supervisor.no_overlap();
}

/// From the moment of the stop on: none is refused, which a restart would make of every call for a whole grace.
#[test]
fn what_is_posted_while_the_supervisor_stops_is_for_the_next_one() {
    let mut supervisor = Supervisor::activated(ANY_NAME, |_| {});
    let held = supervisor.hold("a");
    let mut asked = supervisor.client();
    supervisor.signal(Signal::SIGTERM);
    // Who was there before can still ask.
    supervisor.until("it stops", |_| {
        let ReceiptBody::Report(report) = asked.status().unwrap() else { panic!("a status is a report") };
        report.to_json().unwrap()["stopping"] == true
    });
    let mut client = supervisor.client();
    let ticket = client.submit(Call { wait: true, ..Call::new("b", "count", payload(&())) }).unwrap();
    client.flush().unwrap();
    // A client that leaves gives room for another: not in this supervisor.
    drop(asked);
    held.release();
    assert_eq!(supervisor.ended().code(), Some(0));
    supervisor.restart();
    assert!(matches!(client.outcome(ticket), Ok(OutcomeBody::Done { .. })));
    assert_eq!(supervisor.ledger("accepted"), 1);
}

/// The new program is held where the old one has gone and it has not begun: who calls just then waits in the socket.
#[test]
fn an_upgrade_keeps_a_socket_that_was_handed_over_and_who_calls_meanwhile_is_served() {
    let mut supervisor = Supervisor::activated(ANY_NAME, |_| {});
    let socket = listening(&supervisor);
    let has_it = |supervisor: &Supervisor| {
        let links = fs::read_dir(format!("/proc/{}/fd", supervisor.pid())).unwrap().flatten();
        links.filter_map(|link| fs::read_link(link.path()).ok()).any(|to| to.to_str() == Some(&socket))
    };
    assert_eq!((has_it(&supervisor), supervisor.call(&["a", "count"])), (true, Value::from(1)));
    let pid = supervisor.worker_pid("a");
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" != upgrade-check ]; then echo here > {here}; while [ ! -e {go} ]; do sleep 0.01; done; fi\n\
         exec {workhall} \"$@\"\n",
        here = supervisor.path("here").display(),
        go = supervisor.path("go").display(),
        workhall = bin_dir().join("workhall").display(),
    );
    let program = supervisor.file("program", &script);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let upgrading = supervisor.start_cli(&["upgrade", "--binary", program.to_str().unwrap()]);
    supervisor.until_lines("here", 1);
    let count = |name| Call { wait: true, ..Call::new(name, "count", payload(&())) };
    let mut clients: Vec<_> = ["a", "b", "a"]
        .map(|name| {
            let mut client = supervisor.client();
            let ticket = client.submit(count(name)).unwrap();
            client.flush().unwrap();
            (client, ticket)
        })
        .into();
    supervisor.let_go();
    upgrading.end().ok();
    let result = |outcome| match outcome {
        Ok(OutcomeBody::Done { result }) => result.to_json().unwrap(),
        other => panic!("{other:?}"),
    };
    let results: Vec<Value> = clients.iter_mut().map(|(client, ticket)| result(client.outcome(*ticket))).collect();
    assert_eq!((&results[1], results[0].as_u64().max(results[2].as_u64())), (&Value::from(1), Some(3)), "{results:?}");
    assert_eq!((supervisor.worker_pid("a"), has_it(&supervisor), listening(&supervisor)), (pid, true, socket.clone()));
    // Many, one after the other, each with a connection of its own.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let served = thread::scope(|scope| {
        let (supervisor, stop) = (&supervisor, &stop);
        let caller = scope.spawn(move || {
            let mut served = 0;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                let outcome = supervisor.client().call_and_wait(Call::new("c", "count", payload(&()))).unwrap();
                assert!(matches!(outcome, (_, Some(OutcomeBody::Done { .. }))), "{outcome:?}");
                served += 1;
            }
            served
        });
        let upgrades: Vec<i32> = (0..10).map(|_| supervisor.cli(&["upgrade"]).code).collect();
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        (upgrades, caller.join().unwrap())
    });
    assert_eq!((&served.0, supervisor.call(&["c", "count"])), (&vec![0; 10], Value::from(served.1 + 1)));
    assert!(has_it(&supervisor));
    // It is still the manager's: it stays, and who calls while the supervisor stops is for the next one.
    let held = supervisor.hold("held");
    supervisor.signal(Signal::SIGTERM);
    supervisor.until("it stops", |this| this.log().contains("goes on for") && !held.has_ended());
    held.release();
    assert_eq!(supervisor.ended().code(), Some(0));
    assert!(supervisor.socket().exists(), "the socket is the manager's");
    let mut client = supervisor.client();
    let ticket = client.submit(count("a")).unwrap();
    client.flush().unwrap();
    supervisor.restart();
    assert_eq!(result(client.outcome(ticket)), 1);
    supervisor.no_overlap();
}

#[test]
fn mode_and_owner_of_a_socket_that_was_handed_over_stay() {
    let config = format!("supervisor.socket_mode = '0666'\n{ANY_NAME}");
    let supervisor = Supervisor::activated(&config, |this| {
        fs::set_permissions(this.socket(), fs::Permissions::from_mode(0o640)).unwrap();
    });
    assert_eq!(supervisor.socket().metadata().unwrap().mode() & 0o777, 0o640);
    assert!(supervisor.log().contains("warning: `socket_mode`"), "{}", supervisor.log());
    assert!(supervisor.log().contains("SocketMode="));
    let quiet = Supervisor::activated(ANY_NAME, |_| {});
    assert!(!quiet.log().contains("warning"), "{}", quiet.log());
}

#[test]
fn d07_a_socket_that_was_handed_over_is_protected_as_any_other() {
    let mut supervisor = Supervisor::activated(ANY_NAME, |_| {});
    let second = |supervisor: &Supervisor| -> Output {
        let mut command = Command::new("timeout");
        command.arg("20").arg(bin_dir().join("workhall")).args(["serve", "--workers", "/usr/bin", "--socket"]);
        output(command.arg(supervisor.socket()))
    };
    second(&supervisor).fails(1, &["another supervisor", &supervisor.pid().to_string()]);
    // A worker that lives on holds its name against the next supervisor.
    let held = supervisor.hold("a");
    let old = supervisor.worker_pid("a");
    supervisor.signal(Signal::SIGKILL);
    supervisor.ended();
    // Also without its supervisor the socket is not free.
    second(&supervisor).fails(1, &["listens at"]);
    supervisor.restart();
    let mut client = supervisor.client();
    let ticket = client.submit(Call { wait: true, ..Call::new("a", "pid", payload(&())) }).unwrap();
    client.flush().unwrap();
    supervisor.until("the name is seen to be held", |this| {
        this.cli(&["info", "a"]).ok().out.contains(&format!("process {old}"))
    });
    held.release();
    let Ok(OutcomeBody::Done { result }) = client.outcome(ticket) else { panic!("it is executed") };
    assert_ne!(result.to_json().unwrap(), Value::from(old));
    supervisor.no_overlap();
}

/// Starts a supervisor that is handed over what `script` opens as descriptor 3, which must fail.
fn handed_over(dir: &Path, script: &str, args: &[&str]) -> Output {
    let script = format!("{script}; LISTEN_PID=$$ exec \"$0\" \"$@\"");
    let mut command = Command::new("timeout");
    command.args(["20", "sh", "-c", &script]).arg(bin_dir().join("workhall")).args(["serve", "--workers", "/usr/bin"]);
    output(command.args(args).env("LISTEN_FDS", "1").env_remove("WORKHALL_SOCKET").current_dir(dir))
}

#[test]
fn what_cannot_be_served_is_refused_with_what_to_change() {
    let supervisor = Supervisor::activated(ANY_NAME, |_| {});
    let dir = supervisor.path("");
    handed_over(&dir, "exec 3</dev/null", &[]).fails(2, &["no socket"]);
    handed_over(&dir, "exec 3<&-", &[]).fails(2, &["no socket"]);
    handed_over(&dir, "export LISTEN_FDS=2", &[]).fails(2, &["hands over 2 sockets", "one ListenStream="]);
    handed_over(&dir, "export LISTEN_FDS=many", &[]).fails(2, &["LISTEN_FDS is `many`"]);
}

#[test]
fn a_socket_that_is_handed_over_and_another_that_is_named_are_an_error() {
    let (mut other, mut named) = (PathBuf::new(), None);
    let _supervisor = Supervisor::activated(ANY_NAME, |this| {
        other = this.path("other");
        let listener = std::os::unix::net::UnixListener::bind(&other).unwrap();
        let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
        let mut command = Command::new("timeout");
        command.args(["20", "sh", "-c", script]).arg(bin_dir().join("workhall")).args([
            "serve",
            "--workers",
            "/usr/bin",
        ]);
        command.arg("--socket").arg(this.socket()).stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)));
        named = Some(output(&mut command));
    });
    named.unwrap().fails(2, &["hands over the socket", other.to_str().unwrap(), "told to listen at", "leave out"]);
}

/// With the tool that systemd has for it, which starts the supervisor at the first connection.
#[test]
fn systemd_socket_activate_starts_it_at_the_first_call() {
    if Command::new("systemd-socket-activate").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: there is no systemd-socket-activate (Debian package systemd)");
        return;
    }
    let mut first = None;
    let supervisor = Supervisor::with_config_under(ANY_NAME, |dir| {
        let socket = dir.join("socket");
        let listen = format!("--listen={}", socket.display());
        first = Some(thread::spawn(move || {
            let mut client = None;
            until("it listens", || {
                client = Client::connect(&socket).ok();
                client.is_some()
            });
            client.unwrap().call_and_wait(Call::new("a", "count", payload(&()))).unwrap()
        }));
        vec!["systemd-socket-activate".into(), listen]
    });
    let (_, outcome) = first.unwrap().join().unwrap();
    assert!(matches!(outcome, Some(OutcomeBody::Done { .. })), "{outcome:?}");
    assert_eq!(supervisor.call(&["a", "count"]), 2);
}

// ---- units ----------------------------------------------------------------------------------

/// What systemd before 254 does not know, and leaves out with a warning.
const NOT_KNOWN_BEFORE_254: [&str; 4] =
    ["notify-reload", "'RestartSteps'", "'RestartMaxDelaySec'", "'DelegateSubgroup'"];

#[test]
fn the_units_are_what_systemd_expects() {
    let version = Command::new("systemd-analyze").arg("--version").output();
    let Ok(version) = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()) else {
        println!("skipped: there is no systemd-analyze (Debian package systemd)");
        return;
    };
    let version: u32 = version.split(' ').nth(1).unwrap().parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    for name in ["workhall.service", "workhall.socket"] {
        let unit = fs::read_to_string(workspace().join("packaging").join(name)).unwrap();
        // The program is not installed here.
        let unit = unit.replace("/usr/bin/workhall", bin_dir().join("workhall").to_str().unwrap());
        let file = dir.path().join(name);
        fs::write(&file, unit).unwrap();
        verify.arg(file);
    }
    let output = output(&mut verify);
    let complaints =
        output.err.lines().filter(|line| line.contains(dir.path().to_str().unwrap()) || line.contains("workhall"));
    let complaints: Vec<&str> = complaints.collect();
    let expected = if version < 254 { &NOT_KNOWN_BEFORE_254[..] } else { &[] };
    let unexpected = complaints.iter().filter(|line| !expected.iter().any(|word| line.contains(word))).count();
    assert_eq!((output.code, complaints.len(), unexpected), (0, expected.len(), 0), "{output:?}");
}

/// As systemd does it with `DelegateSubgroup=supervisor`.
#[test]
fn a_supervisor_in_a_part_of_its_services_group_makes_the_others_beside_it() {
    if !is_root() || !tree_modes().contains(&"cgroup") {
        println!("skipped: there are no control groups for the tests here");
        return;
    }
    let service = own_cgroup().join(format!("workhall-test-{}.service", std::process::id()));
    fs::create_dir_all(service.join("supervisor")).unwrap();
    let script = format!("echo $$ > {}/supervisor/cgroup.procs && exec \"$0\" \"$@\"", service.display());
    let mut supervisor = Supervisor::with_config_under(ANY_NAME, |_| vec!["sh".into(), "-c".into(), script]);
    assert_eq!(supervisor.status()["process_tree"], "cgroup");
    supervisor.call(&["a", "count"]);
    let (pid, worker) = (supervisor.pid(), supervisor.worker_pid("a"));
    let members = |group: &Path| fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    assert_eq!(members(&service.join("supervisor")), format!("{pid}\n"));
    let groups = fs::read_dir(service.join(format!("workhall-{pid}"))).unwrap().flatten();
    let groups: Vec<_> = groups.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.path()).collect();
    assert_eq!(groups.iter().map(|group| members(group)).collect::<Vec<_>>(), [format!("{worker}\n")]);
    assert!(groups[0].file_name().unwrap().to_str().unwrap().starts_with("2.1."), "{groups:?}");
    supervisor.signal(Signal::SIGTERM);
    supervisor.ended();
    assert!(!service.join(format!("workhall-{pid}")).exists());
    fs::remove_dir(service.join("supervisor")).unwrap();
    fs::remove_dir(service).unwrap();
}

#[test]
fn signals_that_mean_nothing_to_it_end_no_supervisor_and_are_not_kept_from_its_workers() {
    let odd = [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM, Signal::SIGVTALRM, Signal::SIGPROF, Signal::SIGIO];
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    for round in 1..=2 {
        for signal in odd {
            supervisor.signal(signal);
            let said =
                format!("warning: {signal} does nothing here: SIGHUP reads the configuration again, SIGTERM stops");
            supervisor.until("it is said", |this| this.log().matches(&said).count() == round);
            // Said once, however often it comes.
            supervisor.signal(signal);
            supervisor.call(&["a", "count"]);
            let worker = format!("{signal}/{round}");
            supervisor.call(&[&worker, "count"]);
            let pid = nix::unistd::Pid::from_raw(supervisor.worker_pid(&worker));
            nix::sys::signal::kill(pid, signal).unwrap();
            let crashed = format!("warning: {worker}: its process has crashed: signal {}", signal as i32);
            supervisor.until("it has ended its worker", |this| this.log().contains(&crashed));
            assert_eq!(supervisor.log().matches(&said).count(), round);
        }
        supervisor.cli(&["upgrade"]).ok();
    }
}

#[test]
fn a_signal_that_means_nothing_ends_no_upgrade() {
    let supervisor = Supervisor::with_config(ANY_NAME);
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                supervisor.signal(Signal::SIGUSR1);
                thread::yield_now();
            }
        });
        let upgraded: Vec<Output> = (0..20).map(|_| supervisor.cli(&["upgrade"])).collect();
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        upgraded.into_iter().for_each(|output| drop(output.ok()));
    });
    supervisor.call(&["a", "count"]);
}
