//! Workers that lie: each lie is counted and named in `info`, with the life that told it, and harms only the liar.

use serde_json::{Value, json};
use workhall_tests::harness::Supervisor;

use crate::crash::with_python;

const CONFIG: &str = r#"
    [class.w]
    exec = ["{python}", "-S", "{dir}/w.py"]
    [class.honest]
    exec = ["{bin}/test-worker"]
"#;

/// What `info` names, the oldest first.
fn told(supervisor: &Supervisor) -> Vec<(u64, String)> {
    let info = supervisor.cli(&["info", "w", "--json"]).ok().json();
    let last = info["last_violations"].as_array().unwrap();
    let told = last.iter().map(|one| (one["generation"].as_u64().unwrap(), one["said"].as_str().unwrap().to_string()));
    told.rev().collect()
}

#[track_caller]
fn assert_told(supervisor: &Supervisor, parts: &[&str]) {
    let told = told(supervisor);
    assert_eq!(told.len(), parts.len(), "{told:?}");
    for ((generation, said), part) in told.iter().zip(parts) {
        assert!(*generation == 1 && said.contains(part), "{said} is not about `{part}`");
    }
}

#[test]
fn each_lie_of_a_worker_is_counted_and_named() {
    let supervisor = with_python(
        CONFIG,
        r#"
ready()
ready()
say("done", id=999999)
s.sendall(b"rubbish\n")
say("sing")
while True:
    task = until("task")
    done(task, task["method"])
    done(task, "again")
    say("failed", id=task["id"], error="too late")
"#,
    );
    assert_eq!(supervisor.call(&["w", "a"]), "a");
    assert_eq!(supervisor.call(&["w", "b"]), "b");
    let expected = [
        "`ready` twice",
        "task 999999, which it was not given",
        "",
        "sing",
        "task 1 twice",
        "task 1 twice",
        "task 2 twice",
        "task 2 twice",
    ];
    workhall_tests::harness::until("the last is told", || told(&supervisor).len() == expected.len());
    assert_told(&supervisor, &expected);
    assert_eq!(supervisor.status()["counts"]["violations"], 8);
    let page = supervisor.cli(&["info", "w"]).ok().out;
    assert!(page.contains("violations    8") && page.contains("generation 1: it settled task 2 twice"), "{page}");
    assert_eq!((supervisor.ledger("done"), supervisor.ledger("failed")), (2, 0));
    // The others are unharmed, and nothing is said of them.
    assert_eq!(supervisor.call(&["honest", "count"]), 1);
    let info = supervisor.cli(&["info", "honest", "--json"]).ok().json();
    assert_eq!((&info["violations"], &info["last_violations"]), (&json!(0), &json!([])));
    assert_eq!(supervisor.ps("w")["generation"], 1);
}

#[test]
fn a_task_settled_before_its_turn_is_still_settled_in_its_turn() {
    // It keeps the mark page, so that tasks are sent ahead to it; it has two, and settles the second first.
    let mut supervisor = with_python(
        CONFIG,
        r#"
import mmap, struct
page = mmap.mmap(int(os.environ["WORKHALL_MARK_FD"]), 4096)
def mark(at, number): page[at:at + 8] = struct.pack("<Q", number)
mark(16, 1)
while not os.path.exists(os.path.join(here, "both")): time.sleep(0.002)
say("ready", protocol=1, window=64)
first, second = until("task"), until("task")
mark(0, first["id"])
done(second, "too early")
done(first, "first")
mark(8, first["id"])
mark(0, second["id"])
done(second, "second")
mark(8, second["id"])
until("kill")
"#,
    );
    let first = supervisor.start_cli(&["call", "w", "one", "--wait"]);
    supervisor.until("the first waits", |this| this.ledger("pending") == 1);
    let second = supervisor.start_cli(&["call", "w", "two", "--wait"]);
    supervisor.until("the second waits", |this| this.ledger("pending") == 2);
    supervisor.file("both", "");
    assert_eq!((first.end().ok().json(), second.end().ok().json()), (json!("first"), json!("second")));
    assert_told(&supervisor, &["task 2 before its turn"]);
    assert_eq!(supervisor.ledger("done"), 2);
}

#[test]
fn d02_one_word_settles_what_was_sent_ahead_and_the_death_is_charged_to_the_task_behind() {
    let mut supervisor = with_python(
        CONFIG,
        r#"
import mmap, struct
page = mmap.mmap(int(os.environ["WORKHALL_MARK_FD"]), 4096)
def mark(at, number): page[at:at + 8] = struct.pack("<Q", number)
mark(16, 1)
while generation == 1 and not os.path.exists(os.path.join(here, "all")): time.sleep(0.002)
say("ready", protocol=1, window=64)
for count in (3, 1):
    for _ in range(count):
        task = until("task")
        mark(0, task["id"])
        note("ran", task["method"])
        if task["method"] == "die": os.kill(os.getpid(), 9)
    say("done_all", id=task["id"])
    mark(8, task["id"])
until("kill")
"#,
    );
    for method in ["one", "two", "three", "die", "five"] {
        supervisor.cli(&["call", "w", method]).ok();
    }
    supervisor.file("all", "");
    supervisor.until("the next life has executed the last", |this| this.lines("ran").len() == 5);
    assert_eq!(supervisor.lines("ran"), ["one", "two", "three", "die", "five"]);
    assert_eq!((supervisor.ledger("done"), supervisor.ledger("dead"), supervisor.ledger("running")), (3, 1, 1));
    assert_told(&supervisor, &[]);
    // Who waits is told that there is no result.
    supervisor.cli(&["call", "w", "six"]).ok();
    let seven = supervisor.start_cli(&["call", "w", "seven", "--wait"]);
    assert_eq!(seven.end().ok().json(), Value::Null);
    assert_eq!((supervisor.ledger("done"), supervisor.ledger("running")), (6, 0));
}

#[test]
fn lies_are_kept_in_few_words_and_few_of_them_however_many_there_are() {
    let mut supervisor = with_python(
        CONFIG,
        r#"
ready()
task = until("task")
for lie in range(5000): say("done", id=1000000 + lie)
say("x" * 100000)
done(task)
until("kill")
"#,
    );
    assert_eq!(supervisor.call(&["w", "a"]), Value::Null);
    let told = told(&supervisor);
    assert_eq!(told.len(), 10, "{told:?}");
    assert!(told.iter().all(|(_, said)| said.len() <= 200), "{told:?}");
    assert!(told[8].1.contains("task 1004999"), "{told:?}");
    assert_eq!(supervisor.cli(&["info", "w", "--json"]).ok().json()["violations"], 5001);
    // They are still known when the next life has begun, with the life that told them.
    supervisor.cli(&["call", "w", "b"]).ok();
    let pid = supervisor.worker_pid("w");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    supervisor.until("it has begun", |this| this.ps("w")["generation"] == 2 || this.ledger("dead") == 1);
    assert_eq!(supervisor.cli(&["info", "w", "--json"]).ok().json()["last_violations"][0]["generation"], 1);
}
