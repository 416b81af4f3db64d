//! Who may connect, call and kill, and how many connections one user gets: with real second users, which only
//! root can become. Without root these tests have nothing to try.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};
use workhall_protocol::messages::ReceiptBody;
use workhall_tests::harness::{self, Supervisor, is_root};

/// Users that every system has; their primary groups bear the same numbers here.
const DAEMON: u32 = 1;
const BIN: u32 = 2;
const SYS: u32 = 3;

const WORKERS: &str = "
    class.open = { exec = ['{bin}/test-worker'] }
    class.bin = { exec = ['{bin}/test-worker'], call = { users = ['bin'] } }
    class.group = { exec = ['{bin}/test-worker'], call = { groups = ['sys'] } }
    class.numbers = { exec = ['{bin}/test-worker'], call = { users = [2, 3] } }
    class.nobody = { exec = ['{bin}/test-worker'], call = {} }
";

fn supervisor(settings: &str) -> Supervisor {
    let supervisor = Supervisor::with_config(&format!("{WORKERS}\n[supervisor]\nsocket_mode = '0666'\n{settings}"));
    supervisor.open_to_others();
    supervisor
}

/// Opens connections as another user; what comes on each is printed, one line each.
const CLIENT: &str = r#"
import os, socket, sys
opened = []
for command in sys.stdin:
    word, *rest = command.split(None, 1)
    if word == "open":
        s = socket.socket(socket.AF_UNIX)
        s.connect(os.environ["WORKHALL_SOCKET"])
        opened.append((s, s.makefile("r")))
    elif word == "close":
        s, lines = opened.pop(0)
        lines.close(); s.close()
        continue
    elif word == "flood":
        # Asks, and does not read.
        s, lines = opened[0]
        s.sendall(b'{"call":{"worker":"open","method":"big","args":[4000000],"ref":1,"wait":true}}\n' * int(rest[0]))
        print("{}", flush=True)
        continue
    s, lines = opened[-1]
    try: s.sendall((rest[0] if rest else '{"status":{"ref":1}}\n').encode())
    except OSError: pass
    try: line = lines.readline()
    except OSError: line = ""
    print(line.strip() or "{}", flush=True)
"#;

/// Another user.
struct Other {
    child: Child,
    stdin: ChildStdin,
    lines: BufReader<ChildStdout>,
}

impl Other {
    fn new(supervisor: &Supervisor, uid: u32) -> Other {
        let mut command = supervisor.command_of(uid, uid, "/usr/bin/python3", &["-S", "-c", CLIENT]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Other { child, stdin, lines: BufReader::new(stdout) }
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.stdin, "{command}").unwrap();
    }

    #[track_caller]
    fn ask(&mut self, command: &str) -> Value {
        self.tell(command);
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// One connection more; says whether it was let in.
    #[track_caller]
    fn gets_in(&mut self) -> Result<(), String> {
        let answer = self.ask("open");
        match &answer["error"]["detail"] {
            Value::String(detail) => Err(detail.clone()),
            _ => {
                assert_eq!(answer["receipt"]["ref"], 1, "{answer}");
                Ok(())
            }
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn the_socket_is_as_the_configuration_says() {
    for (settings, mode, gid) in [
        ("", 0o600, None),
        ("socket_mode = '0660'\nsocket_group = 'sys'", 0o660, Some(3)),
        ("socket_mode = '0600'\nsocket_user = 'bin'", 0o600, None),
        ("socket_mode = '0620'\nsocket_user = 2\nsocket_group = 3", 0o620, Some(3)),
        ("socket_mode = '0666'", 0o666, None),
    ] {
        if !settings.is_empty() && !is_root() {
            return;
        }
        let mut supervisor = Supervisor::with_config(&format!("{WORKERS}\n[supervisor]\n{settings}"));
        supervisor.open_to_others();
        // A second time where the first has left its socket.
        for _ in 0..2 {
            let meta = supervisor.socket().metadata().unwrap();
            assert_eq!(meta.permissions().mode() & 0o7777, mode, "{settings}");
            assert!(gid.is_none_or(|gid| meta.gid() == gid), "{settings}");
            if is_root() {
                for (uid, mine) in [(DAEMON, 0o002), (SYS, 0o020), (BIN, 0o200)] {
                    let owner = settings.contains("user") && uid == BIN;
                    let bit = if mine == 0o200 && !owner || mine == 0o020 && gid.is_none() { 0o002 } else { mine };
                    let output = supervisor.cli_of(uid, uid, &["status", "--json"]);
                    match mode & bit {
                        0 => drop(output.fails(4, &["no permission"])),
                        _ => assert_eq!(output.ok().json()["asker"]["uid"], uid, "{settings}"),
                    }
                }
            }
            supervisor.signal(nix::sys::signal::Signal::SIGKILL);
            supervisor.ended();
            supervisor.restart();
        }
    }
}

#[test]
fn a_directory_that_is_made_for_an_open_socket_lets_others_through_and_no_more() {
    if !is_root() {
        return;
    }
    for (mode, expected) in [("0600", 0o700), ("0660", 0o711)] {
        let supervisor = Supervisor::with_config(&format!("{WORKERS}\n[supervisor]\nsocket_mode = '{mode}'"));
        let socket = supervisor.path("made/socket");
        let config = supervisor.path("workhall.toml");
        let mut serve = supervisor.command(&["serve", "--config", config.to_str().unwrap(), "--socket"]);
        let mut child = serve.arg(&socket).stderr(Stdio::null()).spawn().unwrap();
        let answers = || workhall_protocol::Client::connect(&socket).is_ok_and(|mut client| client.status().is_ok());
        harness::until("it serves", answers);
        let directory = socket.parent().unwrap().metadata().unwrap().permissions().mode() & 0o7777;
        let lock = supervisor.path("made/socket.lock").metadata().unwrap().permissions().mode() & 0o7777;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM)
            .unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!((directory, lock & 0o077), (expected, 0), "whoever may open the lock may hold it");
    }
}

#[test]
fn c04_who_may_not_call_is_told_and_nothing_happens() {
    if !is_root() {
        return;
    }
    let supervisor = supervisor("");
    let lists = [("open", [true; 3]), ("bin", [false, true, false]), ("group", [false, false, true])];
    let lists = lists.into_iter().chain([("numbers", [false, true, true]), ("nobody", [false; 3])]);
    for (class, may) in lists {
        // Before the worker exists, and after.
        let mut refusals = Vec::new();
        for exists in [false, true] {
            if exists {
                supervisor.call(&[class, "count"]);
            }
            for (uid, may) in [DAEMON, BIN, SYS].into_iter().zip(may).filter(|(_, may)| exists || !*may) {
                let output = supervisor.cli_of(uid, uid, &["call", class, "count"]);
                if may {
                    output.ok();
                    continue;
                }
                let list = format!("`call` of class `{class}`");
                refusals.push(output.fails(3, &["not_permitted", &format!("user {uid} (group {uid})"), &list]).err);
                for flag in ["--existing", "--wait"] {
                    supervisor.cli_of(uid, uid, &["call", class, "count", flag]).fails(3, &["not_permitted"]);
                }
                assert_eq!(supervisor.ps(class).is_null(), !exists, "a refused call creates nothing");
            }
        }
        let (before, after) = refusals.split_at(refusals.len() / 2);
        assert_eq!(before, after, "the answer does not tell whether the worker exists");
    }
    // By number too; one that names nobody is nobody's secret.
    let number = format!("%{}", supervisor.ps("nobody")["number"]);
    supervisor.cli_of(BIN, BIN, &["call", &number, "count"]).fails(3, &["not_permitted", "`call` of class `nobody`"]);
    supervisor.cli_of(BIN, BIN, &["call", "%4711", "count"]).ok();
    assert_eq!(supervisor.call(&["nobody", "count"]), 2, "root always may, and nobody else has");
    // What is no name or has no class is refused as that.
    supervisor.cli_of(BIN, BIN, &["call", "unknown", "count"]).fails(3, &["no_class"]);
    let status = supervisor.status();
    assert_eq!((&status["ledger"]["dead"], &status["ledger"]["failed"]), (&json!(0), &json!(0)));
    assert!(status["refused"].as_u64().unwrap() > 20, "{status}");
}

#[test]
fn a_worker_calls_as_the_user_that_it_runs_as() {
    if !is_root() {
        return;
    }
    let supervisor = supervisor("kill = {}");
    // The worker is root's here, whoever calls it.
    for (method, args) in [("call", json!(["nobody", "count", []])), ("kill", json!(["nobody"]))] {
        let args = args.to_string();
        let output = supervisor.cli_of(BIN, BIN, &["call", "open", method, "--args", &args, "--wait"]).ok();
        assert!(!output.out.contains("efused"), "{output:?}");
    }
    supervisor.cli_of(BIN, BIN, &["call", "nobody", "count"]).fails(3, &["not_permitted"]);
    // Inside the worker's process the command line is the worker's user too.
    let mut log = supervisor.path("log");
    log.set_extension("suicide");
    let receipt = supervisor.call(&["open", "suicide", log.to_str().unwrap()]);
    assert_eq!(receipt, "ignored: OwnKilledWorker", "a worker may kill itself");
}

#[test]
fn k01_who_may_not_kill_is_told_and_nothing_happens() {
    if !is_root() {
        return;
    }
    let mut supervisor = supervisor("kill = { users = ['bin'], groups = [3] }");
    let held = supervisor.hold("open");
    supervisor.cli(&["call", "open", "count"]).ok();
    for args in [
        &["kill", "open"][..],
        &["kill", "open", "--wait"],
        &["kill", "open", "--now"],
        &["kill", "open", "--drain", "--wait"],
        &["kill", "%2"],
        &["kill", "open*", "none"],
        // The same for what does not exist.
        &["kill", "none"],
        &["kill", "%77", "--wait"],
    ] {
        let parts = ["refused: not_permitted", "user 1 (group 1)", "`kill` in [supervisor]"];
        supervisor.cli_of(DAEMON, DAEMON, args).fails(3, &parts);
    }
    let json = supervisor.cli_of(DAEMON, DAEMON, &["kill", "open", "--json"]);
    assert_eq!((json.code, &json.json()["refused"]["reason"]), (3, &json!("not_permitted")));
    let row = supervisor.ps("open");
    assert_eq!((&row["state"], &row["pending"], &row["closed"]), (&json!("busy"), &json!(1), &json!(false)));
    // What needs no permission goes on, and `status` says what one may.
    let asker = supervisor.cli_of(DAEMON, DAEMON, &["status", "--json"]).ok().json()["asker"].clone();
    assert_eq!(
        (&asker["uid"], &asker["may_kill"], &asker["may_administer"]),
        (&json!(1), &json!(false), &json!(false))
    );
    let asker = supervisor.cli_of(BIN, BIN, &["status", "--json"]).ok().json()["asker"].clone();
    assert_eq!((&asker["may_kill"], &asker["may_administer"]), (&json!(true), &json!(false)));
    assert_eq!(supervisor.status()["asker"]["may_administer"], true);
    held.release();
    supervisor.cli_of(SYS, SYS, &["kill", "open", "--drain", "--wait"]).ok();
    supervisor.until("it is gone", |this| this.ps("open").is_null());
    supervisor.cli_of(BIN, BIN, &["kill", "none"]).ok();
}

#[test]
fn a_user_with_too_many_connections_is_told_and_nobody_else_is_harmed() {
    if !is_root() {
        return;
    }
    let mut supervisor = supervisor("max_connections_per_user = 3");
    let (mut many, mut one) = (Other::new(&supervisor, BIN), Other::new(&supervisor, SYS));
    for _ in 0..3 {
        many.gets_in().unwrap();
    }
    for _ in 0..5 {
        let detail = many.gets_in().unwrap_err();
        assert_eq!(detail, "user 2 has 3 connections, which is the limit (`max_connections_per_user` in [supervisor])");
    }
    one.gets_in().unwrap();
    supervisor.cli_of(BIN, BIN, &["ps"]).fails(3, &["no place for this connection", "user 2 has 3 connections"]);
    supervisor.cli_of(BIN, BIN, &["call", "open", "count"]).fails(3, &["user 2 has 3 connections"]);
    assert!(supervisor.ps("open").is_null());
    supervisor.cli_of(SYS, SYS, &["ps"]).ok();
    let told = supervisor.log().matches("turned away: user 2").count();
    assert_eq!(told, 1, "the log has one line on it");
    // Root and the supervisor's own user have no bound but that of all.
    let _roots: Vec<_> = (0..10).map(|_| supervisor.client()).map(|mut client| client.status().unwrap()).collect();
    many.tell("close");
    supervisor.until("it has a place again", |_| many.gets_in().is_ok());
}

#[test]
fn the_last_connections_are_kept_for_the_operator() {
    if !is_root() {
        return;
    }
    let supervisor = supervisor("max_connections = 20\nmax_connections_per_user = 7");
    let mut others: Vec<Other> = [DAEMON, BIN].map(|uid| Other::new(&supervisor, uid)).into();
    for _ in 0..5 {
        others.iter_mut().for_each(|other| other.gets_in().unwrap());
    }
    for other in &mut others {
        let detail = other.gets_in().unwrap_err();
        assert!(detail.contains("there are 10 connections") && detail.contains("`max_connections`"), "{detail}");
    }
    let mut mine: Vec<_> = (0..8).map(|_| supervisor.client()).collect();
    mine.iter_mut().for_each(|client| drop(client.status().unwrap()));
    assert_eq!(supervisor.status()["counts"]["clients"], 19);
}

/// Also where all are the operator's own: each one more is told why, and who has none yet still gets in to look.
#[test]
fn one_connection_more_than_all_is_told_why_whoever_it_is() {
    let mut supervisor = Supervisor::with_config(&format!("{WORKERS}\nsupervisor.max_connections = 16\n"));
    supervisor.block("open");
    let mut mine: Vec<_> = (0..16).map(|_| supervisor.client()).collect();
    mine.iter_mut().for_each(|client| drop(client.status().unwrap()));
    for _ in 0..60 {
        let mut told = String::new();
        BufReader::new(supervisor.raw()).read_to_string(&mut told).unwrap();
        assert!(told.contains("there are 16 connections, and 16 are the limit of all (`max_connections`"), "{told}");
        assert_eq!(told.matches('\n').count(), 1, "{told}");
    }
    assert_eq!(supervisor.log().matches("turned away: there are 16 connections").count(), 1, "{}", supervisor.log());
    assert_eq!(supervisor.status()["counts"]["clients"], 17);
    let shown = supervisor.cli(&["status"]).ok().out;
    assert!(shown.contains(", 17 of 16 clients;"), "their own limit is that of all: {shown}");
    let waiting: Vec<_> = (0..4).map(|_| supervisor.start_cli(&["wait", "open", "--idle"])).collect();
    let mut clients = || {
        let ReceiptBody::Report(report) = mine[0].status().unwrap() else { panic!() };
        report.to_json().unwrap()["counts"]["clients"].clone()
    };
    supervisor.until("they have connected", |_| clients() == 20);
    supervisor.cli(&["status"]).fails(3, &["no place for this connection", "there are 20 connections, and 16 are"]);
    supervisor.let_go();
    waiting.into_iter().for_each(|waiting| drop(waiting.end().ok()));
    supervisor.cli(&["kill", "open", "--wait"]).ok();
}

#[test]
fn who_leaves_too_many_answers_unread_loses_the_connection_and_nobody_else() {
    if !is_root() {
        return;
    }
    let mut supervisor = supervisor("unread_bytes = '32MiB'");
    let (mut greedy, mut modest) = (Other::new(&supervisor, BIN), Other::new(&supervisor, SYS));
    modest.gets_in().unwrap();
    greedy.gets_in().unwrap();
    // Of the same user, and does no harm.
    let mut beside = Other::new(&supervisor, BIN);
    beside.gets_in().unwrap();
    greedy.ask("flood 30");
    supervisor.until("all is executed", |this| this.ledger("done") == 30);
    supervisor.until("the connection is closed", |this| this.log().contains("a connection of user 2"));
    for other in [&mut modest, &mut beside] {
        assert_eq!(other.ask(r#"say {"status":{"ref":7}}"#)["receipt"]["ref"], 7);
    }
    assert_eq!(supervisor.status()["ledger"]["done"], 30);
    let peak = supervisor.peak_memory() >> 20;
    assert!(peak < 200, "{peak} MiB");
}

#[test]
fn p01_a_process_for_one_method_has_no_name_of_another_class() {
    if !is_root() {
        return println!("skipped: needs root to be another user");
    }
    let classes = "class.open = { exec = ['{bin}/test-worker'] }\n\
        class.secret = { exec = ['{bin}/test-worker'], call = { users = ['root'] } }\n\
        [supervisor]\nsocket_mode = '0666'\n";
    let supervisor = Supervisor::with_config(classes);
    supervisor.open_to_others();
    let run = |name: &str| supervisor.cli_of(1, 1, &["run", "open", "who", "--name", name, "--wait"]);
    run("secret/x").fails(3, &["not_permitted", "a name of class `secret`"]);
    supervisor.cli_of(1, 1, &["run", "secret", "who"]).fails(3, &["not_permitted"]);
    assert_eq!(run("open/x").ok().json()[0], "open/x");
    assert_eq!(run("nobodys").ok().json()[0], "nobodys");
    supervisor.cli(&["run", "open", "who", "--name", "secret/x", "--wait"]).ok();
}
