//! `worker-host/c/workhall.h`: it compiles without a warning, reads nothing that is not there, works under a real
//! supervisor, and passes the conformance suite.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};
use workhall_protocol::messages::Call;
use workhall_tests::harness::{Output, Supervisor, output, payload, workspace};

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
    passes(&[worker.to_str().unwrap()], 80, &[]);
    passes(&[worker.to_str().unwrap(), "1"], 70, &[]);
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
