//! `worker-host/c/workhall.h`: it compiles without a warning, reads nothing that is not there, works under a real
//! supervisor, and passes the conformance suite.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};
use workhall_protocol::messages::{Call, ReceiptBody};
use workhall_tests::harness::{Output, Running, Supervisor, output, payload, text, workspace};

use crate::conformance::passes;

const FLAGS: &[&str] = &["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-g"];
const SANITIZERS: &[&str] = &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

fn cc(source: &Path, to: &Path, more: &[&str]) -> Output {
    output(Command::new("cc").args(FLAGS).args(more).arg("-o").arg(to).arg(source))
}

/// The sanitizers, where this compiler has them.
fn sanitizers() -> &'static [&'static str] {
    static HAS: OnceLock<bool> = OnceLock::new();
    let has = *HAS.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("empty.c");
        std::fs::write(&source, "int main(void) { return 0; }\n").unwrap();
        cc(&source, &dir.path().join("empty"), SANITIZERS).code == 0
    });
    if !has {
        eprintln!("this compiler has no sanitizers: the C library is tested without");
    }
    if has { SANITIZERS } else { &[] }
}

fn folder() -> PathBuf {
    workspace().join("worker-host/c")
}

/// A program of the folder, compiled into a directory.
fn compiled(program: &str, dir: &Path, more: &[&str]) -> PathBuf {
    let to = dir.join(program);
    let compiled = cc(&folder().join(format!("{program}.c")), &to, more).ok();
    assert_eq!(compiled.err, "", "no warning");
    to
}

#[test]
fn the_c_library_compiles_without_a_warning_as_its_users_compile_it() {
    let dir = tempfile::tempdir().unwrap();
    for flags in
        [&["-O2"][..], &["-O0"], &["-O3", "-DNDEBUG", "-Wshadow", "-Wconversion"], &["-std=c11"], &["-std=gnu17"]]
    {
        for program in ["example", "conformance", "test"] {
            compiled(program, dir.path(), flags);
        }
    }
    // Two files of one program: one has the implementation, the other only the declarations.
    let other = dir.path().join("other.c");
    let include = format!("#include \"{}\"\n", folder().join("workhall.h").display());
    std::fs::write(
        &other,
        format!("{include}uint64_t number(wh_task *t);\nuint64_t number(wh_task *t) {{ return wh_message(t); }}\n"),
    )
    .unwrap();
    let example = folder().join("example.c");
    cc(&example, &dir.path().join("two"), &[other.to_str().unwrap()]).ok();
}

#[test]
fn the_c_library_reads_nothing_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let test = compiled("test", dir.path(), sanitizers());
    let ran = output(Command::new(test).arg(workspace().join("protocol/recorded/frames.txt"))).ok();
    assert!(ran.out.contains("not understood"), "{ran:?}");
}

#[test]
fn the_c_library_passes() {
    let dir = tempfile::tempdir().unwrap();
    let worker = compiled("conformance", dir.path(), sanitizers());
    passes(&[worker.to_str().unwrap()], 105, true);
    passes(&[worker.to_str().unwrap(), "1"], 89, true);
}

/// A supervisor whose class `counter` is the example.
fn with_the_example() -> Supervisor {
    let supervisor = Supervisor::with_config(
        "[class.counter]\nexec = ['{dir}/example']\n[class.a]\nexec = ['{bin}/test-worker']\nnames = ['a', 'a/*']\n",
    );
    compiled("example", supervisor.path("").as_path(), sanitizers());
    supervisor
}

#[test]
fn the_c_example_counts_and_says_what_is_wrong() {
    let supervisor = with_the_example();
    assert_eq!(supervisor.call(&["counter", "add", "5"]), 5);
    assert_eq!(supervisor.call(&["counter", "add", "-7"]), -2);
    assert_eq!(supervisor.call(&["counter/eu", "total"]), 0, "each name has a process of its own");
    for (args, part) in [
        (&["counter", "add", "seven"][..], "argument 1 is a text, and a whole number"),
        (&["counter", "add"], "it takes (amount), and 0 came"),
        (&["counter", "sub", "1"], "there is no method `sub`: this worker has `add`, `total`, `tell`, `end`"),
        (&["counter", "add", "-9223372036854775808"], "would not fit"),
        (&["counter", "tell"], "cannot be called back"),
    ] {
        supervisor.cli(&[&["call", "--wait"], args].concat()).fails(1, &[part]);
    }
    assert_eq!(supervisor.call(&["counter", "total"]), -2, "the process lives on");
    assert_eq!(supervisor.ps("counter")["generation"], 1);
}

#[test]
fn the_c_example_calls_workers_and_ends_itself() {
    let mut supervisor = with_the_example();
    supervisor.call(&["counter", "add", "5"]);
    // A worker that asks is answered: `total_is` is none of its methods, and its failure shows that it came.
    let receipt = supervisor.call(&["a", "call", "\"counter\"", "\"tell\"", "[]"]);
    assert!(receipt.to_string().contains("accepted"), "{receipt}");
    supervisor.until("the answer came", |this| this.ledger("failed") == 1);
    supervisor.cli(&["call", "counter", "end"]).ok();
    supervisor.cli(&["wait", "counter", "--gone", "--timeout", "30s"]).ok();
    assert_eq!(supervisor.call(&["counter", "total"]), 0, "another process");
}

#[test]
fn the_c_example_calls_from_outside() {
    let supervisor = with_the_example();
    let socket = supervisor.socket().to_str().unwrap();
    let program = supervisor.path("example");
    let call = |socket: &str, args: &[&str]| output(Command::new(&program).arg(socket).args(args));
    assert_eq!(call(socket, &["counter", "add", "5"]).ok().out, "5\n");
    let refused = call(socket, &["nobody", "add", "5"]);
    assert!(refused.code == 3 && refused.err.starts_with("no_class: no class matches"), "{refused:?}");
    let unknown = call(socket, &["counter", "sub", "5"]);
    assert!(unknown.code == 1 && unknown.err.contains("there is no method `sub`"), "{unknown:?}");
    let nobody = call("/no/such/socket", &["counter", "add", "5"]);
    assert!(nobody.code == 4 && nobody.err.contains("no supervisor answers at /no/such/socket"), "{nobody:?}");
    // By hand, without a supervisor.
    let by_hand = output(&mut Command::new(&program));
    assert!(by_hand.code == 1 && by_hand.err.contains("a supervisor starts it"), "{by_hand:?}");
}

/// A supervisor whose class `c` has the agreed methods of the conformance suite, in C.
fn with_the_methods() -> Supervisor {
    let supervisor = Supervisor::with_config("[class.c]\nexec = ['{dir}/conformance']\n");
    compiled("conformance", supervisor.path("").as_path(), sanitizers());
    supervisor
}

#[test]
fn k06_a_kill_of_number_0_by_a_worker_in_c_is_for_nobody() {
    let supervisor = with_the_methods();
    let who = supervisor.call(&["c", "who"]);
    assert_eq!(supervisor.call(&["c", "kill", "0"]), "ignored no_worker");
    assert_eq!(supervisor.call(&["c", "call", "0", "\"echo\"", "[1]"]), "ignored no_worker");
    assert_eq!(supervisor.call(&["c", "who"]), who, "it lives on");
    assert_eq!(supervisor.call(&["c", "kill", "null"]), "killed 0", "itself is nil");
}

#[test]
fn s01_signals_go_through_the_c_library() {
    let supervisor = with_the_methods();
    let signal = supervisor.call(&["c/maker", "new_signal", "the way to the end"]);
    let text = signal.to_string();
    assert_eq!(supervisor.call(&["c/maker", "echo", &text]), signal);
    assert_eq!(supervisor.call(&["c/waiter", "wait_for", &text, "0"]), Value::Null, "not yet");
    let waits = supervisor.start_cli(&["call", "c/waiter", "wait_for", &text, "60000", "--wait"]);
    assert_eq!(supervisor.call(&["c/other", "trigger", &text, "result", "[5]"]), true);
    assert_eq!(waits.end().ok().json(), json!({"result": [5]}));
    let late = supervisor.call(&["c/waiter", "wait_for", &text, "0"]);
    assert_eq!(late, json!({"result": [5]}), "who comes late has it at once");
    let again = supervisor.cli(&["call", "--wait", "c/other", "trigger", &text, "result", "6"]);
    again.fails(1, &["was not written: ignored: already_triggered"]);
    let nobody = "{\"$signal\":\"00000000000000000000000000000000\"}";
    supervisor.cli(&["call", "--wait", "c/waiter", "wait_for", nobody, "0"]).fails(1, &["no_signal"]);
    supervisor.cli(&["call", "--wait", "c/waiter", "wait_for", "5", "0"]).fails(1, &["and a signal is needed"]);
}

/// The C library knows how deep the supervisor lets a signal's value be.
#[test]
fn s04_a_value_of_62_levels_goes_into_a_signal_from_c_and_one_of_63_is_not_sent() {
    let supervisor = with_the_methods();
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let signal = supervisor.call(&["c", "new_signal", "deep"]).to_string();
    let deeper = supervisor.cli(&["call", "--wait", "c", "trigger", &signal, "key", &nested(63)]);
    deeper.fails(1, &["what is to be written under `key` cannot be sent: it nests more than 62 levels deep"]);
    assert_eq!(supervisor.call(&["c", "trigger", &signal, "key", &nested(62)]), true, "nothing was sent before");
    let values = supervisor.call(&["c", "wait_for", &signal, "0"]);
    assert_eq!(values.to_string(), format!("{{\"key\":{}}}", nested(62)));
}

#[test]
fn s05_a_method_in_c_sees_that_it_is_cancelled() {
    let mut supervisor = with_the_methods();
    let waits = supervisor.start_cli(&["call", "c", "cancelled", "600000", "--wait"]);
    supervisor.until("it is executed", |this| this.ps("c")["running"].is_object());
    let message = supervisor.ps("c")["running"]["message"].clone();
    let mut client = supervisor.raw();
    client.write_all(format!("{{\"cancel\":{{\"ref\":1,\"message\":{message}}}}}\n").as_bytes()).unwrap();
    assert_eq!(waits.end().ok().json(), true);
    assert_eq!(supervisor.call(&["c", "cancelled", "0"]), false, "the next one is wanted");
}

/// A signal that a worker in C has made, as an argument, and a task that holds a worker until it is triggered.
fn held(supervisor: &mut Supervisor, worker: &str) -> (String, Running) {
    let signal = supervisor.call(&["c/maker", "new_signal", "let go"]).to_string();
    let holds = supervisor.start_cli(&["call", worker, "wait_for", &signal, "600000", "--wait"]);
    supervisor.until("it is executed", |this| this.ps(worker)["running"].is_object());
    (signal, holds)
}

#[test]
fn s05_a_task_that_was_sent_ahead_to_a_worker_in_c_and_is_cancelled_is_not_begun() {
    let mut supervisor = with_the_methods();
    let (signal, holds) = held(&mut supervisor, "c");
    let waits = supervisor.start_cli(&["call", "c", "crash", "--wait"]);
    supervisor.until("it waits", |this| this.ps("c")["pending"] == 1);
    let number = supervisor.ledger("accepted").to_string();
    let told = supervisor.cli(&["cancel", &number, "--json"]).ok().json();
    assert_eq!(told, json!({"cancelled": {"running": true}}), "its process has it");
    let next = supervisor.start_cli(&["call", "c", "echo", "5", "--wait"]);
    supervisor.until("it waits", |this| this.ps("c")["pending"] == 2);
    supervisor.call(&["c/other", "trigger", &signal, "key", "1"]);
    holds.end().ok();
    waits.end().fails(6, &["discarded", "has not run"]);
    assert_eq!(next.end().ok().json(), 5);
    assert_eq!(supervisor.ps("c")["generation"], 1, "it was not executed");
    assert_eq!(supervisor.cli(&["info", "c", "--json"]).ok().json()["violations"], json!(0));
}

/// A program in C that has attached, which ends with the test.
struct Attached(Child);

impl Attached {
    fn start(supervisor: &mut Supervisor, name: &str) -> Attached {
        let child = Attached::command(supervisor, name).stderr(Stdio::piped()).spawn().unwrap();
        supervisor.until("it has its name", |this| this.cli(&["info", name]).code == 0);
        Attached(child)
    }

    fn command(supervisor: &Supervisor, name: &str) -> Command {
        let mut command = Command::new(supervisor.path("conformance"));
        command.env("CONFORMANCE_ATTACH", name).env("WORKHALL_SOCKET", supervisor.socket()).stdin(Stdio::null());
        command
    }

    /// It ends by itself: its exit status, and what it wrote on stderr.
    fn ended(mut self) -> (i32, String) {
        let mut written = String::new();
        std::io::Read::read_to_string(&mut self.0.stderr.take().unwrap(), &mut written).unwrap();
        (self.0.wait().unwrap().code().unwrap_or(-1), written)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// The same, with a class whose names are for who attaches.
fn with_names_to_take() -> Supervisor {
    let supervisor = Supervisor::with_config(
        "[class.c]\nexec = ['{dir}/conformance']\n[class.dev]\nattach = {}\nexit_grace = '30s'\n\
         [class.a]\nexec = ['{bin}/test-worker']\n",
    );
    compiled("conformance", supervisor.path("").as_path(), sanitizers());
    supervisor
}

#[test]
fn p02_a_program_in_c_takes_a_name_and_executes_in_order_and_calls_as_itself() {
    let mut supervisor = with_names_to_take();
    let attached = Attached::start(&mut supervisor, "dev/1");
    let row = supervisor.ps("dev/1");
    assert_eq!((&row["type"], &row["pid"]), (&json!("attached"), &json!(attached.0.id())));
    let number = row["number"].clone();
    assert_eq!(supervisor.call(&["dev/1", "who"]), json!(["dev/1", number, 1]));
    let file = supervisor.path("lines");
    let lines: Vec<String> = (0..50).map(|at| at.to_string()).collect();
    for line in &lines {
        supervisor.cli(&["call", "dev/1", "call", "\"a\"", "log", &json!([file, line]).to_string()]).ok();
    }
    supervisor.until_lines("lines", lines.len());
    assert_eq!(supervisor.lines("lines"), lines);
    let sender = supervisor.path("sender");
    supervisor.call(&["dev/1", "call", "\"a\"", "sender_to", &json!([sender]).to_string()]);
    supervisor.until_lines("sender", 1);
    assert_eq!(supervisor.lines("sender"), [format!("dev/1 %{number}")]);
    supervisor.cli(&["call", "dev/1", "fail", "no", "--wait"]).fails(1, &["no"]);
    supervisor.cli(&["call", "dev/1", "nothing", "--wait"]).fails(1, &["there is no method `nothing`"]);
}

#[test]
fn k10_a_kill_of_a_program_in_c_that_has_attached_only_empties_its_mailbox() {
    let mut supervisor = with_names_to_take();
    let _attached = Attached::start(&mut supervisor, "dev");
    let (signal, holds) = held(&mut supervisor, "dev");
    supervisor.cli(&["call", "dev", "crash"]).ok();
    let killed = supervisor.kill(&["dev", "--now"]);
    assert_eq!((&killed["discarded"], &killed["ended_by"]), (&json!(1), &json!("only_emptied")));
    supervisor.call(&["c/other", "trigger", &signal, "key", "1"]);
    holds.end().ok();
    assert_eq!(supervisor.call(&["dev", "kill", "null"]), "killed 0", "it asks for it itself");
    assert_eq!(supervisor.call(&["dev", "echo", "5"]), 5);
}

#[test]
fn p02_a_name_that_is_taken_is_said_to_a_program_in_c() {
    let mut supervisor = with_names_to_take();
    let attached = Attached::start(&mut supervisor, "dev");
    for (name, parts) in [
        ("dev", &["cannot attach as `dev`: name_taken: ", "attached"][..]),
        ("a/b\n", &["cannot attach as `a/b\n`: bad_name: "]),
    ] {
        let refused = output(&mut Attached::command(&supervisor, name));
        assert!(refused.code == 1 && parts.iter().all(|part| refused.err.contains(part)), "{name}: {refused:?}");
    }
    let nowhere = supervisor.path("nowhere.sock");
    let nobody = output(Attached::command(&supervisor, "dev").env("WORKHALL_SOCKET", &nowhere));
    let part = format!("no supervisor answers at {}", text(&nowhere));
    assert!(nobody.code == 1 && nobody.err.contains(&part), "{nobody:?}");
    assert_eq!(supervisor.call(&["dev", "echo", "5"]), 5);
    drop(attached);
    supervisor.until("it is gone", |this| this.cli(&["info", "dev"]).code == 1);
    Attached::start(&mut supervisor, "dev");
}

#[test]
fn a_program_in_c_for_whom_there_is_no_place_is_told_why() {
    let config = "supervisor.max_connections = 16\n[class.c]\nexec = ['{dir}/conformance']\n[class.dev]\nattach = {}\n";
    let mut supervisor = Supervisor::with_config(config);
    compiled("conformance", supervisor.path("").as_path(), sanitizers());
    compiled("example", supervisor.path("").as_path(), sanitizers());
    let mut mine: Vec<_> = (0..16).map(|_| supervisor.client()).collect();
    mine.iter_mut().for_each(|client| drop(client.status().unwrap()));
    // Four processes that have none come in beyond the limit.
    let _others: Vec<Attached> =
        (0..4).map(|at| Attached(Attached::command(&supervisor, &format!("dev/{at}")).spawn().unwrap())).collect();
    supervisor.until("they have connected", |_| {
        let ReceiptBody::Report(report) = mine[0].status().unwrap() else { panic!() };
        report.to_json().unwrap()["counts"]["clients"] == 20
    });
    let why = "has no place for this connection, and has read nothing: there are 20 connections, and 16 are";
    let attach = output(&mut Attached::command(&supervisor, "dev"));
    let parts = ["cannot attach as `dev`: ", why];
    assert!(attach.code == 1 && parts.iter().all(|part| attach.err.contains(part)), "{attach:?}");
    let mut caller = Command::new(supervisor.path("example"));
    let call = output(caller.arg(supervisor.socket()).args(["c", "echo", "5"]));
    assert!(call.code == 1 && call.err.contains(why), "{call:?}");
}

#[test]
fn p02_a_program_in_c_leaves_with_and_without_a_drain() {
    let mut supervisor = with_names_to_take();
    for (drain, executed) in [("true", 3), ("false", 0)] {
        let attached = Attached::start(&mut supervisor, "dev");
        let (signal, holds) = held(&mut supervisor, "dev");
        supervisor.cli(&["call", "dev", "leave", drain]).ok();
        let file = format!("lines of {drain}");
        for line in 0..3 {
            let args = json!([supervisor.path(&file), line.to_string()]).to_string();
            supervisor.cli(&["call", "dev", "call", "\"a\"", "log", &args]).ok();
        }
        supervisor.call(&["c/other", "trigger", &signal, "key", "1"]);
        holds.end().ok();
        assert_eq!(attached.ended(), (0, String::new()), "drain {drain}");
        supervisor.until("it is gone", |this| this.cli(&["info", "dev"]).code == 1);
        if executed > 0 {
            supervisor.until_lines(&file, executed);
        }
        assert_eq!(supervisor.ledger("dead"), 3 - executed as u64, "drain {drain}");
    }
}

#[test]
fn p02_a_program_in_c_leaves_by_a_signal_when_idle_and_after_what_waits() {
    use nix::sys::signal::{Signal, kill};
    let mut supervisor = with_names_to_take();
    for waits in [false, true] {
        let attached = Attached::start(&mut supervisor, "dev");
        let pid = nix::unistd::Pid::from_raw(attached.0.id().cast_signed());
        let held = waits.then(|| held(&mut supervisor, "dev"));
        let next = waits.then(|| supervisor.start_cli(&["call", "dev", "echo", "5", "--wait"]));
        if waits {
            supervisor.until("one waits", |this| this.ps("dev")["pending"] == 1);
        } else {
            supervisor.call(&["dev", "echo", "1"]);
        }
        kill(pid, Signal::SIGTERM).unwrap();
        if let Some((signal, holds)) = held {
            supervisor.call(&["c/other", "trigger", &signal, "key", "1"]);
            holds.end().ok();
        }
        if let Some(next) = next {
            assert_eq!(next.end().ok().json(), 5, "what waits is executed");
        }
        assert_eq!(attached.ended(), (0, String::new()), "waits: {waits}");
        supervisor.until("it is gone", |this| this.cli(&["info", "dev"]).code == 1);
    }
}

#[test]
fn p02_the_end_of_the_supervisor_ends_a_program_in_c_after_its_task() {
    use nix::sys::signal::Signal;
    // A stop is told, and all is well; a death is not.
    for (signal, ends) in [(Signal::SIGTERM, (0, "")), (Signal::SIGKILL, (1, "the supervisor is gone\n"))] {
        let mut supervisor = with_names_to_take();
        let attached = Attached::start(&mut supervisor, "dev");
        supervisor.signal(signal);
        supervisor.ended();
        assert_eq!(attached.ended(), (ends.0, ends.1.to_string()), "{signal}");
    }
}

#[test]
fn k01_a_kill_of_a_c_worker_in_full_run_counts_exactly_what_it_took() {
    let mut supervisor = with_the_example();
    let mut client = supervisor.client();
    let mut posted = 0;
    for _ in 0..5 {
        for _ in 0..2000 {
            client.submit(Call::new("counter", "add", payload(&(1,)))).unwrap();
            posted += 1;
        }
        client.flush().unwrap();
        supervisor.until("some are done", |this| this.ledger("done") > 0);
        supervisor.kill(&["counter"]);
    }
    let last = client.submit(Call::new("counter", "total", payload(&()))).unwrap();
    client.receipt(last).unwrap();
    supervisor.until("all have their fate", |this| this.ledger("pending") + this.ledger("running") == 0);
    let (done, discarded) = (supervisor.ledger("done"), supervisor.ledger("discarded"));
    assert_eq!(done + discarded, posted + 1);
    assert_eq!((supervisor.ledger("failed"), supervisor.ledger("dead")), (0, 0));
    assert_eq!(supervisor.cli(&["info", "counter", "--json"]).ok().json()["violations"], json!(0));
}
