//! The conformance suite: every worker library passes it, and a worker that makes a mistake fails at the check of that
//! mistake.

use std::process::Command;

use serde_json::Value;
use workhall_tests::conformance::METHODS;
use workhall_tests::harness::{self, Output, bin_dir, output, workspace};

use crate::examples::is_there;

/// The suite against a program: what it printed, a JSON value per line, and how it ended.
fn suite(options: &[&str], program: &[&str]) -> (Vec<Value>, Output) {
    let mut command = Command::new(bin_dir().join("conformance"));
    let output = output(command.arg("--json").args(options).arg("--").args(program));
    let lines = output.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")));
    (lines.collect(), output)
}

fn own(program: &str) -> String {
    bin_dir().join(program).to_str().expect("a path of UTF-8").to_string()
}

/// The names of the checks that failed, with why.
fn failed(lines: &[Value]) -> Vec<(String, String)> {
    let failed = lines.iter().filter(|line| line["failed"].is_object());
    failed
        .map(|line| (line["check"].as_str().unwrap().into(), line["failed"]["reason"].as_str().unwrap().into()))
        .collect()
}

/// All that the worker's encoding and window leave to check is checked, and passes; `attaches` says whether its library
/// offers that.
#[track_caller]
pub(crate) fn passes(program: &[&str], at_least: u64, attaches: bool) {
    let (lines, output) = suite(&["--patience", "60"], program);
    assert_eq!(failed(&lines), [], "{program:?}: {}", output.out);
    let worker = &lines.last().expect("the last line is about the worker")["worker"];
    let methods: Vec<&str> = worker["methods"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let missing: Vec<&str> = METHODS
        .iter()
        .map(|(method, _)| method.split('(').next().unwrap())
        .filter(|name| !methods.contains(name))
        .collect();
    assert_eq!(worker["attaches"], attaches, "{program:?}");
    assert_eq!(missing, if attaches { &[][..] } else { &["leave"] }, "{program:?}");
    assert_eq!(output.code, 0, "{program:?}: {}{}", output.out, output.err);
    let skipped = lines.iter().filter(|line| line["check"].as_str().is_some_and(|name| name.starts_with("attached")));
    let mut skipped = skipped.map(|line| &line["skipped"]["reason"]);
    assert!(skipped.all(|reason| *reason == if attaches { Value::Null } else { "it does not offer attaching".into() }));
    let count = lines.last().and_then(|line| line["passed"].as_u64());
    assert!(count.is_some_and(|count| count >= at_least), "{program:?}: only {count:?} checks passed");
}

#[test]
fn the_rust_library_passes() {
    passes(&[&own("conformance-worker")], 105, true);
}

#[test]
fn the_rust_library_passes_with_one_task_at_a_time() {
    passes(&[&own("conformance-worker"), "1"], 89, true);
}

/// A file of the libraries of other languages.
fn library(file: &str) -> String {
    workspace().join("worker-host").join(file).to_str().expect("a path of UTF-8").to_string()
}

#[test]
fn the_python_library_passes() {
    let worker = library("python/tests/conformance_worker.py");
    passes(&[harness::python(), &worker], 105, true);
    passes(&[harness::python(), &worker, "1"], 89, true);
}

#[test]
fn the_node_library_passes() {
    if !is_there("node") {
        return;
    }
    let worker = library("node/test/workers/conformance.js");
    passes(&["node", &worker], 89, true);
}

#[test]
fn the_bash_library_passes() {
    let worker = library("bash/test/conformance");
    passes(&["bash", &worker], 71, false);
}

/// A mistake, the check that is to find it, and a part of the reason that it gives.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("protocol-2", "ready: comes first", "its protocol: expected 1, and it is 2"),
    ("inherits", "descriptors: its children inherit", "set close-on-exec on the connection"),
    ("closes-all", "descriptors: the lock", "it has closed the descriptor with the lock"),
    ("forgets-name", "welcome: it knows", "who it is"),
    ("settles-twice", "task: executed", "twice"),
    ("other-id", "task: executed", "never handed"),
    ("out-of-order", "task: many, in order", "tasks are settled in order"),
    ("forgets", "task: many for which nobody waits", "was due"),
    ("done-all", "task: executed", "its result is lost"),
    ("mute", "failed: carries", "no such row"),
    ("lists-nothing", "failed: an unknown method", "the methods that there are"),
    ("dies-of-arguments", "failed: arguments that do not fit", "closed its connection"),
    ("doubles", "values: whole numbers from", "expected -9223372036854775808"),
    ("collects-awaited", "ahead: what somebody waits for", "it was not settled"),
    ("collects-failed", "ahead: what has failed", "it was not settled"),
    ("never-finishes", "ahead: a crash leaves its marks", "`begun` is to be"),
    ("numbers-as-text", "call: by number", "expected 7, and it is \"7\""),
    ("one-ref", "call: every one has a ref", "twice"),
    ("loses-tasks", "receipt: tasks that come before", "was due"),
    ("deaf-after-kill", "receipt: a kill that comes before", "this worker was killed"),
    ("ignores-kill", "kill: when idle", "it did not end"),
    ("status-1", "kill: when idle", "exit status must be 0"),
    ("executes-after-kill", "kill: what was sent ahead", "it said more before it ended"),
    ("ignores-stop", "stop flag: a task that comes after", "its mark page says that 1"),
    ("outlives", "end of file: when idle", "it did not end"),
    ("goes-on-alone", "end of file: no task begins", "was begun all the same"),
    ("goes-on-alone", "supervisor killed: no task begins", "was begun all the same"),
    ("takes-half-lines", "end of file: a half-written", "say nothing"),
    ("one-shape", "later: fields in any order", "was due"),
    ("dies-of-unknown", "later: unknown messages", "closed its connection"),
    ("one-read-one-line", "stream: byte by byte", "closed its connection"),
    ("deaf", "hostile: a line that is no JSON", "it did not end"),
    ("endless", "hostile: a line without end", "it did not end"),
    ("begins-cancelled", "cancelled: a task that was sent ahead", "closed its connection"),
    ("forgets-dropped", "cancelled: dropped in its turn", "`dropped` was due"),
    ("collects-dropped", "cancelled: dropped is written", "`dropped` is to be written before"),
    ("reads-no-cancels", "cancelled: the mark page tells", "closed its connection"),
    ("waits-for-cancels", "cancelled: a word of the mark page", "was due"),
    ("begins-cancelled", "cancelled: an attached worker", "closed its connection"),
    ("forgets-dropped", "cancelled: an attached worker", "`dropped` was due"),
    ("hangs-alone", "cancelled: an attached worker", "it did not connect within 3 s, and did not end"),
    ("hangs-alone", "attached: takes the name", "it did not connect within 3 s, and did not end"),
    ("hangs-alone", "attached, hostile: nobody", "it did not connect within 3 s, and did not end"),
    ("aborts-alone", "attached: takes the name", "SIGABRT has ended it before it connected"),
    ("protocol-2", "attached: takes the name", "its protocol: expected 1, and it is 2"),
    ("forgets-name", "attached: takes the name", "who it is"),
    ("ready-after-attach", "attached: takes the name", "`attach` is said once, and it said `ready` after it"),
    ("forgets", "attached: executes in order", "was due"),
    ("own-kill-ends", "attached: its own kill", "closed its connection"),
    ("leaves-early", "attached: leaves by a drain", "closed its connection"),
    ("drains-never", "attached: leaves by a drain", "expected true, and it is false"),
    ("ignores-kill", "attached: a kill when idle", "it did not end"),
    ("status-1", "attached: a kill during a task", "status 0"),
    ("dies-of-unknown", "attached: messages of a later", "closed its connection"),
    ("ignores-refusal", "attached, hostile: a name that is refused", "it did not end"),
    ("mute", "attached, hostile: a name that is refused", "wrote nothing about it"),
    ("outlives", "attached, hostile: the supervisor goes when it is idle", "it did not end"),
    ("deaf", "attached, hostile: rubbish later", "it did not end"),
];

#[test]
fn a_worker_that_makes_a_mistake_fails_at_its_check() {
    let program = own("conformance-wrong");
    for (mistake, check, reason) in MISTAKES {
        // What is to be waited for in vain is not waited for long.
        let patience = if ["did not end", "was due"].iter().any(|vain| reason.contains(vain)) { "3" } else { "60" };
        let (lines, output) = suite(&["--only", check, "--patience", patience], &[&program, mistake]);
        let failed = failed(&lines);
        assert_eq!(output.code, 1, "{mistake}: {}{}", output.out, output.err);
        assert!(
            failed.iter().any(|(name, why)| name.starts_with(check) && why.contains(reason)),
            "{mistake}: {failed:#?}{}",
            output.err
        );
    }
}

/// So it is the mistake that fails, and not the program around it.
#[test]
fn without_a_mistake_it_passes_all_that_it_has_methods_for() {
    let (lines, output) = suite(&["--patience", "60"], &[&own("conformance-wrong"), "none"]);
    assert_eq!(failed(&lines), [], "{}", output.out);
    assert_eq!(output.code, 3, "some methods are lacking, and the status says so: {}", output.out);
    assert_eq!(lines.last().unwrap()["worker"]["encoding"], "json lines");
}

/// Whether it names them or not.
#[test]
fn what_a_worker_lacks_is_skipped_also_if_it_does_not_list_what_it_has() {
    let skipped = |mistake: &str| {
        let (lines, output) = suite(&["--patience", "60"], &[&own("conformance-wrong"), mistake]);
        let failed: Vec<String> = failed(&lines).into_iter().map(|(check, _)| check).collect();
        let skipped: Vec<Value> =
            lines.iter().filter(|line| !line["skipped"]["lacks_method"].is_null()).cloned().collect();
        assert!(skipped.len() > 5, "{}", output.out);
        (failed, skipped)
    };
    let (failed, listed) = skipped("none");
    assert!(failed.is_empty(), "{failed:?}");
    for mistake in ["lists-nothing", "names-alone"] {
        let (failed, unlisted) = skipped(mistake);
        assert_eq!(failed, ["failed: an unknown method names those that there are"], "{mistake}");
        assert_eq!(unlisted, listed, "{mistake}");
    }
}

/// A check for which the window is too small has not passed.
#[test]
fn a_check_that_needs_a_larger_window_is_skipped_and_says_so() {
    let too_small = |window: u64, least: u64| format!("its window is {window}, and this takes {least} tasks at once");
    for (window, expected) in [(2, vec![too_small(2, 4), too_small(2, 3)]), (3, vec![too_small(3, 4)]), (4, vec![])] {
        let program = [&own("conformance-wrong"), "none", &window.to_string()];
        let (lines, output) = suite(&["--patience", "60", "--only", "cancelled: dropped"], &program);
        assert_eq!((failed(&lines), lines.len(), output.code), (vec![], 3, 0), "{}{}", output.out, output.err);
        let reasons = lines.iter().filter_map(|line| line["skipped"]["reason"].as_str());
        assert_eq!(reasons.collect::<Vec<_>>(), expected, "window {window}");
    }
}

/// Who does one task at a time may begin it when it has read it, and nothing behind it.
#[test]
fn an_attached_worker_with_a_window_of_one_may_begin_a_task_whose_cancel_it_has_not_read() {
    let check = ["--patience", "60", "--only", "cancelled: an attached worker"];
    let (lines, output) = suite(&check, &[&own("conformance-wrong"), "begins-cancelled", "1"]);
    assert_eq!((failed(&lines), lines.len(), output.code), (vec![], 2, 0), "{}{}", output.out, output.err);
    let reason = "its window is 1: it may begin a task before it reads what stands behind it";
    assert_eq!(lines[0]["skipped"]["reason"], reason);
}

/// With and without a word about it, and whatever its exit status.
#[test]
fn a_program_that_ends_by_itself_does_not_offer_attaching() {
    for mistake in ["ends-alone", "complains-alone"] {
        let checks = ["--patience", "60", "--only", "attached: takes the name", "--only", "attached, hostile: nobody"];
        let (lines, output) = suite(&checks, &[&own("conformance-wrong"), mistake]);
        assert_eq!((failed(&lines), lines.len(), output.code), (vec![], 3, 0), "{}{}", output.out, output.err);
        for line in &lines[..2] {
            assert_eq!(line["skipped"]["reason"], "it does not offer attaching", "{mistake}");
        }
        assert_eq!(lines[2]["worker"]["attaches"], false, "{mistake}");
    }
}

#[test]
fn a_program_that_is_no_worker_is_told_so() {
    for (program, part) in [
        (&["/no/such/program"][..], "cannot be started"),
        (
            &["/bin/sh", "-c", "printf '{\"ready\":{\"protocol\":1}}' >&$WORKHALL_FD; exec sleep 100"],
            "it said nothing whole (24 bytes have come, and not the end of a message) for 5 s",
        ),
        (&["/bin/true"], "it closed its connection instead: it ended with Code(0)"),
        (&["/bin/sh", "-c", "echo rubbish >&$WORKHALL_FD; echo I am here; sleep 100"], "the first byte is 0x72"),
    ] {
        let (lines, output) = suite(&["--patience", "5"], program);
        assert!(lines.is_empty() && output.code == 1, "{output:?}");
        assert!(output.err.starts_with("conformance: ") && output.err.contains(part), "{program:?}: {}", output.err);
    }
    let (_, spoke) = suite(&["--patience", "5"], &[&own("conformance-wrong"), "speaks-first"]);
    assert!(spoke.err.contains("first message is `ready`"), "{}", spoke.err);
    let (_, twice) = suite(&["--patience", "5"], &[&own("conformance-wrong"), "ready-twice"]);
    assert!(twice.err.contains("said once"), "{}", twice.err);
}

#[test]
fn wrong_usage_says_what_is_wrong() {
    let conformance = |args: &[&str]| output(Command::new(bin_dir().join("conformance")).args(args));
    for (args, part) in [
        (&[][..], "which program"),
        (&["--patience", "soon", "--", "x"], "`soon`"),
        (&["--sing", "--", "x"], "--sing"),
        (&["--only"], "--only needs a value"),
        (&["--only", "task", "--only", "tsak", "--", "x"], "no check has `tsak` in its name"),
        (&["--skip", "sginal", "--", "x"], "no check has `sginal` in its name"),
    ] {
        let output = conformance(args);
        assert!(output.code == 2 && output.err.contains(part), "{output:?}");
    }
    let help = conformance(&["--help"]);
    assert!(help.code == 0 && help.out.contains("echo(x)") && help.out.contains("last_words"), "{help:?}");
}

#[test]
fn the_page_has_the_methods_that_the_suite_asks_for() {
    let page = std::fs::read_to_string(workspace().join("protocol/PROTOCOL.md")).unwrap();
    for (method, does) in METHODS {
        assert!(page.contains(&format!("| `{method}` | {does} |\n")), "{method} is not in PROTOCOL.md as it is here");
    }
}
