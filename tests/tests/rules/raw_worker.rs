//! Workers that write their own bytes: JSON lines from other languages, those that break the rules or their
//! connection, and what a worker is handed.

use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use workhall_protocol::args::Payload;
use workhall_protocol::messages::Call;
use workhall_tests::harness::{self, Supervisor, lives, payload};

const CONFIG: &str = r#"
    [class.w]
    exec = ["{python}", "-S", "{dir}/w.py"]
    exit_grace = "100ms"
    term_grace = "10s"
    [class.sh]
    exec = ["bash", "{dir}/w.sh"]
    [class.b]
    exec = ["{bin}/test-worker"]
"#;

/// What a worker in Python begins with. `hear` notes each line in the file `heard`.
pub(crate) const PRELUDE: &str = r#"
import json, os, select, signal, socket, sys, time
here = os.path.dirname(os.path.abspath(__file__))
generation = int(os.environ["WORKHALL_GENERATION"])
s = socket.socket(fileno=int(os.environ["WORKHALL_FD"]))
os.set_inheritable(s.fileno(), False)
os.set_inheritable(int(os.environ["WORKHALL_MARK_FD"]), False)
buffer = b""
def note(file, text):
    with open(os.path.join(here, file), "a") as out: out.write(text + "\n")
def say(kind, **fields):
    s.sendall((json.dumps({kind: {name.rstrip("_"): value for name, value in fields.items()}}) + "\n").encode())
def hear():
    global buffer
    while b"\n" not in buffer:
        more = s.recv(65536)
        if not more: sys.exit(0)
        buffer += more
    line, buffer = buffer.split(b"\n", 1)
    note("heard", line.decode())
    (kind, fields), = json.loads(line).items()
    return kind, fields
def quiet(seconds): return not buffer and not select.select([s], [], [], seconds)[0]
def until(wanted):
    while True:
        kind, fields = hear()
        if kind == wanted: return fields
        if kind == "kill": sys.exit(0)
def done(task, result=None): say("done", id=task["id"], result=result)
def ready(): say("ready", protocol=1, window=1)
"#;

/// A supervisor whose class `w` is this script.
fn python(script: &str) -> Supervisor {
    let supervisor = Supervisor::with_config(&CONFIG.replace("{python}", harness::python()));
    supervisor.file("w.py", &format!("{PRELUDE}\n{script}"));
    supervisor
}

fn heard(supervisor: &Supervisor) -> Vec<Value> {
    supervisor.lines("heard").iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Executes all: what a well-behaved worker does with tasks that need no more.
pub(crate) const EXECUTE: &str = r#"
while True:
    task = until("task")
    note("ran", task["method"])
    done(task, os.getpid())
"#;

fn call_all(supervisor: &Supervisor, worker: &str, methods: &[&str]) {
    let mut client = supervisor.client();
    for method in methods {
        client.submit(Call::new(worker, method, Payload::no_args())).unwrap();
    }
    let last = client.submit(Call::new("%nobody", "", Payload::no_args())).unwrap();
    client.receipt(last).unwrap();
}

fn outcome(supervisor: &Supervisor, args: &[&str]) -> Value {
    supervisor.cli(&[&["call", "--wait", "--json", "--timeout", "60s"], args].concat()).json()
}

fn violations(supervisor: &Supervisor, worker: &str) -> Value {
    supervisor.cli(&["info", worker, "--json"]).ok().json()["violations"].clone()
}

// ---- workers in JSON lines ------------------------------------------------------------------

#[test]
fn a_worker_in_python_has_one_task_at_a_time_in_order() {
    let mut supervisor = python(
        r#"
ready()
while True:
    task = until("task")
    note("ran", task["method"] if quiet(0.01) else "early")
    done(task)
"#,
    );
    let methods: Vec<String> = (0..20).map(|number| format!("m{number}")).collect();
    call_all(&supervisor, "w", &methods.iter().map(String::as_str).collect::<Vec<_>>());
    supervisor.until("all is done", |this| this.ledger("done") == 20);
    assert_eq!(supervisor.lines("ran"), methods);
    let heard = heard(&supervisor);
    assert_eq!(heard[0], json!({"welcome": {"protocol": 1, "worker": "w", "number": 2, "generation": 1}}));
    assert_eq!(heard[1]["task"], json!({"id": heard[1]["task"]["id"], "method": "m0", "args": [], "from": null}));
}

#[test]
fn k01_a_kill_of_a_json_worker_in_full_run_counts_exactly_what_it_took() {
    let mut supervisor = python(&format!("ready()\n{EXECUTE}"));
    const TASKS: usize = 200;
    let methods: Vec<String> = (0..TASKS).map(|number| number.to_string()).collect();
    let methods: Vec<&str> = methods.iter().map(String::as_str).collect();
    let mut executed = 0;
    for round in 0..5 {
        call_all(&supervisor, "w", &methods);
        supervisor.until_lines("ran", executed + 1 + 20 * round);
        let report = supervisor.kill(&["w"]);
        let ran = supervisor.lines("ran")[executed..].to_vec();
        assert_eq!(ran.len() as u64 + report["discarded"].as_u64().unwrap(), TASKS as u64, "{report}");
        assert_eq!(ran, methods[..ran.len()]);
        executed += ran.len();
        assert_eq!(supervisor.ledger("done"), executed as u64);
    }
}

#[test]
fn a_worker_in_bash_has_its_tasks_in_order_and_obeys_a_kill() {
    let mut supervisor = python("");
    supervisor.file(
        "w.sh",
        r#"
fd=$WORKHALL_FD
printf '{"ready":{"protocol":1,"window":1}}\n' >&$fd
while IFS= read -r line <&$fd; do
    case $line in
        '{"kill"'*) exit 3;;
        '{"task"'*)
            id=${line#*'"id":'} method=${line#*'"method":"'}
            method=${method%%\"*}
            echo "$method" >> "${0%/*}/ran"
            case $method in
                end) printf '{"kill":{}}\n{"done":{"id":%s}}\n' "${id%%[,\}]*}" >&$fd;;
                wait) until test -e "${0%/*}/go"; do sleep 0.01; done; printf '{"done":{"id":%s}}\n' "${id%%[,\}]*}" >&$fd;;
                *) printf '{"done":{"id":%s,"result":[%s,"%s"]}}\n' "${id%%[,\}]*}" $$ "$WORKHALL_WORKER" >&$fd;;
            esac;;
    esac
done
"#,
    );
    assert_eq!(supervisor.call(&["sh", "m"]), json!([supervisor.worker_pid("sh"), "sh"]));
    call_all(&supervisor, "sh", &["1", "2", "3", "4", "5", "6"]);
    supervisor.until("all have run that may", |this| this.ledger("done") == 7);
    // A kill in the middle: the current one ends, the others are not executed.
    call_all(&supervisor, "sh", &["wait", "never-1", "never-2"]);
    supervisor.until_lines("ran", 8);
    assert_eq!(supervisor.lines("ran")[7], "wait");
    let kill = supervisor.start_cli(&["kill", "sh", "--wait", "--json"]);
    supervisor.until("the kill is known", |this| this.ps("sh")["closed"] == true);
    supervisor.file("go", "");
    let report = kill.end().ok().json();
    assert_eq!((&report["exit"], &report["discarded"]), (&json!({"code": 3}), &json!(2)), "{report}");
    assert_eq!((&report["ended_by"], &report["current"]), (&json!("ask"), &json!("finished")), "{report}");
    // It ends itself.
    call_all(&supervisor, "sh", &["before", "end", "after"]);
    supervisor.cli(&["wait", "sh", "--gone", "--timeout", "60s"]).ok();
    assert_eq!(supervisor.lines("ran")[8..], ["before", "end"]);
    assert_eq!(supervisor.ledger("discarded"), 3);
}

#[test]
fn a_json_worker_calls_and_kills_with_receipts() {
    let mut supervisor = python(
        r#"
ready()
task = until("task")
say("call", worker="b", method="echo", args=[1, "a"], ref=1)
say("call", worker="b", method="sender", ref="text", wait=True)
say("call", worker="nobody", method="x", ref=3)
say("call", worker=999, method="x", ref=4)
say("call", worker="w", method="", ref=5)
say("kill", worker="x", ref=6)
say("list", ref=7)
say("call", worker="b", method="echo")
say("call", worker="w", method="later", ref=8)
say("kill", ref="self")
say("call", worker="w", method="ignored", ref=9)
say("call", worker=int(os.environ["WORKHALL_NUMBER"]), method="ignored", ref=10)
while True:
    kind, fields = hear()
    if kind == "receipt" and fields["ref"] == 10: break
while not os.path.exists(os.path.join(here, "go")): time.sleep(0.005)
while not quiet(0.05): hear()
done(task)
"#,
    );
    let task = supervisor.start_cli(&["call", "w", "first", "--wait", "--json"]);
    supervisor.until("all is answered", |this| {
        this.lines("heard").iter().any(|line| line.contains(r#""ref":10"#)) && this.ps("b")["executed"] == 3
    });
    supervisor.file("go", "");
    assert_eq!(task.end().ok().json(), json!({"done": {"result": null}}));
    supervisor.cli(&["wait", "w", "--gone", "--timeout", "60s"]).ok();
    let heard = heard(&supervisor);
    let receipt = |reference: Value| {
        let found = heard.iter().find(|line| line["receipt"]["ref"] == reference);
        found.unwrap_or_else(|| panic!("no {reference} in {heard:#?}"))["receipt"].clone()
    };
    assert_eq!(receipt(json!(1))["accepted"]["worker"], "b");
    let outcome = heard.iter().find(|line| line["outcome"]["ref"] == "text").unwrap();
    assert_eq!(outcome["outcome"]["done"]["result"], json!(["w", 2]), "the sender is known (rule C11)");
    assert_eq!(receipt(json!(3))["refused"]["reason"], "no_class");
    for nobody in [4, 6] {
        assert_eq!(receipt(json!(nobody))["ignored"]["reason"], "no_worker");
    }
    assert!(receipt(json!(5))["accepted"].is_object(), "the startup method (rule C5)");
    assert!(receipt(json!(7))["report"].is_array());
    assert!(receipt(json!(8))["accepted"].is_object());
    assert_eq!(receipt(json!("self")), json!({"ref": "self", "killed": {"discarded": 2}}));
    for own in [9, 10] {
        assert_eq!(receipt(json!(own))["ignored"]["reason"], "own_killed_worker");
    }
    assert!(heard.iter().any(|line| line["kill"].is_object()), "{heard:#?}");
    assert_eq!(supervisor.ledger("discarded"), 2);
}

#[test]
fn c11_a_task_names_its_sender_or_null_for_a_client() {
    let mut supervisor = python(&format!("ready()\n{EXECUTE}"));
    supervisor.call(&["w", "from_client"]);
    supervisor.call(&["b", "call", "w", "from_worker", "[7]"]);
    supervisor.until_lines("ran", 2);
    let tasks: Vec<Value> = heard(&supervisor).into_iter().filter(|line| line["task"].is_object()).collect();
    assert_eq!(tasks[0]["task"]["from"], Value::Null);
    assert_eq!(tasks[0]["task"]["wait"], true);
    let number = supervisor.ps("b")["number"].clone();
    assert_eq!(tasks[1]["task"]["from"], json!({"worker": "b", "number": number}));
    assert_eq!(tasks[1]["task"]["args"], json!([7]));
}

#[test]
fn a_json_worker_may_say_more_than_is_known() {
    let mut supervisor = python(
        r#"
say("ready", protocol=1, window=1, colour="blue", nested={"deep": [1, None, {"x": "\u00e9"}]})
s.sendall(b"\n\n")
say("sing", loud=True, ref=5)
s.sendall(b"this is no JSON\n{\"done\":{}}\n{\"done\":{\"id\":\"text\"}}\n[1]\n{\"a\":{},\"b\":{}}\n\xff\xfe\n")
while True:
    task = until("task")
    say("done", id=task["id"], result={"n": 1}, extra=None)
"#,
    );
    for _ in 0..3 {
        assert_eq!(supervisor.call(&["w", "m"]), json!({"n": 1}));
    }
    let errors: Vec<Value> = heard(&supervisor).into_iter().filter(|line| line["error"].is_object()).collect();
    assert_eq!(errors.len(), 7, "{errors:#?}");
    assert_eq!(errors[0]["error"]["ref"], 5, "{}", errors[0]);
    assert!(errors[0]["error"]["detail"].as_str().unwrap().contains("sing"), "{}", errors[0]);
    assert_eq!(violations(&supervisor, "w"), 7);
    supervisor.until("it is idle", |this| this.ps("w")["state"] == "idle");
    assert_eq!((supervisor.ps("w")["generation"].clone(), supervisor.ledger("done")), (json!(1), 3));
}

#[test]
fn d03_a_task_that_is_settled_with_what_is_not_understood_has_failed() {
    let mut supervisor = python(
        r#"
ready()
while True:
    task = until("task")
    wrong = {
        "nan": b'{"done":{"id":%d,"result":NaN}}',
        "latin": b'{"done":{"id":%d,"result":"\xff"}}',
        "deep": b'{"done":{"id":%d,"result":' + b"[" * 70 + b"]" * 70 + b"}}",
        "deeper": b'{"done":{"id":%d,"result":' + b"[" * 5000 + b"]" * 5000 + b"}}",
        "bytes": b'{"done":{"result":{"$bytes":"!"},"id":%d}}',
        "silent": b'{"failed":{"id":%d}}',
        "number": b'{"failed":{"id":%d,"error":5}}',
        "list": b'{"done":[%d,5]}',
        "other": b'{"done":{"id":%d000,"result":NaN}}',
    }.get(task["method"])
    if wrong: s.sendall(wrong % task["id"] + b"\n")
    if not wrong or task["method"] in ("list", "other"): done(task, os.getpid())
"#,
    );
    let pid = supervisor.call(&["w", "good"]);
    let methods = ["nan", "latin", "deep", "deeper", "bytes", "silent", "number"];
    for (at, method) in methods.iter().enumerate() {
        let outcome = outcome(&supervisor, &["w", method]);
        let error = outcome["failed"]["error"].as_str().unwrap_or_else(|| panic!("{method}: {outcome}"));
        assert!(error.contains("not understood: "), "{method}: {error}");
        assert_eq!(violations(&supervisor, "w"), at + 1, "{method}: {error}");
    }
    // What does not say which task it is, or names one that is not its own, settles nothing.
    for method in ["list", "other"] {
        assert_eq!(supervisor.call(&["w", method]), pid, "{method}");
    }
    assert_eq!(violations(&supervisor, "w"), methods.len() + 3);
    // Those that nobody waits for fail as well, and none behind them is held up.
    call_all(&supervisor, "w", &methods);
    assert_eq!(supervisor.call(&["w", "good"]), pid, "the process lives on");
    assert_eq!((supervisor.ledger("done"), supervisor.ledger("failed")), (4, 2 * methods.len() as u64));
    let errors = heard(&supervisor).into_iter().filter(|line| line["error"].is_object()).count();
    assert_eq!(errors, 2 * methods.len() + 2);
    supervisor.until("it is idle", |this| this.ps("w")["state"] == "idle");
}

#[test]
fn what_a_worker_must_not_say_is_counted_and_harms_nothing() {
    let mut supervisor = python(
        r#"
ready()
ready()
say("done", id=999999)
say("failed", id=888888, error="no")
while True:
    task = until("task")
    say("done", id=task["id"] + 1)
    if task["method"] == "twice":
        done(task, 1)
        done(task, 2)
        say("failed", id=task["id"], error="too late")
    else:
        done(task, task["method"])
"#,
    );
    assert_eq!(supervisor.call(&["w", "a"]), "a");
    assert_eq!(violations(&supervisor, "w"), 4);
    assert_eq!(heard(&supervisor).iter().filter(|line| line["welcome"].is_object()).count(), 1);
    // The message behind it is not settled by the second `done`.
    let twice = supervisor.start_cli(&["call", "w", "twice", "--wait", "--json"]);
    supervisor.until("it has run", |this| this.ledger("done") == 2);
    assert_eq!(twice.end().ok().json(), json!({"done": {"result": 1}}));
    call_all(&supervisor, "w", &["twice", "twice", "b"]);
    assert_eq!(supervisor.call(&["w", "c"]), "c");
    assert_eq!((supervisor.ledger("done"), supervisor.ledger("failed")), (6, 0));
    assert_eq!(supervisor.ps("w")["generation"], 1);
}

#[test]
fn a_worker_of_another_protocol_is_told_so() {
    let mut supervisor = python(
        r#"
if generation == 1:
    say("ready", protocol=2, window=1)
    hear()
    time.sleep(1000)
ready()
"#,
    );
    supervisor.file("w.py", &format!("{}\n{EXECUTE}", std::fs::read_to_string(supervisor.path("w.py")).unwrap()));
    assert_eq!(supervisor.call(&["w", "m"]), supervisor.worker_pid("w"));
    let errors = heard(&supervisor);
    assert!(errors[0]["error"]["detail"].as_str().unwrap().contains("protocol 1, not 2"), "{errors:?}");
    supervisor.until("its second life is idle", |this| this.ps("w")["state"] == "idle");
    assert_eq!((supervisor.ps("w")["generation"].clone(), supervisor.ledger("dead")), (json!(2), 0));
}

// ---- workers that break their connection ----------------------------------------------------

/// The first life does `first` with its first task, later ones execute all. The first of three messages has
/// this outcome; the others are executed, in order, by the second life.
#[track_caller]
fn first_life(first: &str, expected: &Value) -> Supervisor {
    let first = first.trim().replace('\n', "\n    ");
    let mut supervisor = python(&format!(
        "if generation == 1:\n    ready()\n    task = until('task')\n    note('ran', 'first')\n    {first}\n    time.sleep(1000)\nready()\n{EXECUTE}"
    ));
    let first = supervisor.start_cli(&["call", "w", "one", "--wait", "--json"]);
    supervisor.until_lines("ran", 1);
    let pid = supervisor.ps("w")["pid"].as_i64();
    call_all(&supervisor, "w", &["two", "three"]);
    assert_eq!(first.end().json(), *expected);
    supervisor.until_lines("ran", 3);
    assert_eq!(supervisor.lines("ran"), ["first", "two", "three"]);
    supervisor.until("it is idle", |this| this.ps("w")["state"] == "idle");
    assert_eq!(supervisor.ps("w")["generation"], 2);
    assert!(!pid.is_some_and(|pid| lives(pid as i32)), "the first process is gone");
    supervisor
}

fn crashed(exit: Value) -> Value {
    json!({"dead": {"reason": "crashed", "exit": exit, "may_have_run": true}})
}

#[test]
fn k04_a_worker_that_closes_its_connection_goes_down_the_ladder() {
    first_life("s.close()", &crashed(json!({"signal": 15})));
    first_life("s.shutdown(socket.SHUT_WR)", &crashed(json!({"signal": 15})));
}

#[test]
fn a_worker_that_settles_and_then_closes_loses_nothing() {
    // The two that follow come after the connection's end, or are lost in it unread.
    let mut supervisor = python(&format!(
        r#"
if generation == 1:
    ready()
    task = until("task")
    done(task, "first")
    s.close()
    time.sleep(1000)
ready()
{EXECUTE}"#
    ));
    assert_eq!(supervisor.call(&["w", "one"]), "first");
    supervisor.until("its end is seen", |this| this.ps("w")["state"] != "idle");
    call_all(&supervisor, "w", &["two", "three"]);
    supervisor.until_lines("ran", 2);
    assert_eq!(supervisor.lines("ran"), ["two", "three"]);
    supervisor.until("all is done", |this| this.ledger("done") == 3);
}

#[test]
fn a_worker_that_dies_in_the_middle_of_its_last_line_has_not_said_it() {
    let half = r#"s.sendall(b'{"done":{"id":%d' % task["id"])
os._exit(4)"#;
    first_life(half, &crashed(json!({"code": 4})));
}

#[test]
fn d02_answers_that_a_worker_did_not_read_do_not_make_its_task_run_twice() {
    // More answers than the socket holds.
    let questions = r#"s.sendall(b'{"kill":{"worker":"nobody","ref":1}}\n' * 20000)
os._exit(6)"#;
    first_life(questions, &crashed(json!({"code": 6})));
}

#[test]
fn d02_a_task_that_was_not_handed_over_whole_is_not_charged() {
    let mut supervisor =
        python(&format!("ready()\nif generation == 1:\n    hear()\n    s.recv(1000)\n    os._exit(7)\n{EXECUTE}"));
    let mut client = supervisor.client();
    for text in ["x".repeat(1 << 20), String::new()] {
        let args = payload(&(text,));
        client.submit(Call::new("w", "large", args)).unwrap();
    }
    client.flush().unwrap();
    supervisor.until("both are done", |this| this.ledger("done") == 2);
    assert_eq!(supervisor.lines("ran"), ["large", "large"]);
    let row = supervisor.ps("w");
    assert_eq!((&row["generation"], &row["crashes"]), (&json!(2), &json!(1)));
}

#[test]
fn a_worker_that_dies_right_after_its_last_line_has_said_it() {
    first_life("done(task, 5)\nos._exit(4)", &json!({"done": {"result": 5}}));
}

#[test]
fn k08_a_connection_that_a_grandchild_holds_open_does_not_hide_the_death() {
    for script in [
        // It says nothing.
        "time.sleep(1000)",
        // It goes on talking as if it were the worker, as fast as it can.
        "while True: s.sendall(b'{\"sing\":{}}\\n' * 1000)",
        "while True: s.sendall(b'{\"call\":{\"worker\":\"b\",\"method\":\"count\"}}\\n' * 100)",
    ] {
        let fork = format!(
            "if os.fork() == 0:\n    os.setsid()\n    note('pid', str(os.getpid()))\n    {script}\n\
             while not os.path.exists(os.path.join(here, 'pid')): time.sleep(0.001)\ntime.sleep(0.05)\nos._exit(5)"
        );
        let supervisor = first_life(&fork, &crashed(json!({"code": 5})));
        let grandchild: i32 = supervisor.lines("pid")[0].parse().unwrap();
        assert!(!lives(grandchild), "{script}");
    }
}

#[test]
fn a_line_without_an_end_is_the_end_of_the_connection() {
    let endless = r#"try:
    while True: s.sendall(b'{"done":"' + b"x" * 1000000)
except OSError: pass"#;
    first_life(endless, &crashed(json!({"signal": 15})));
}

#[test]
fn rubbish_instead_of_ready_is_a_failed_start() {
    for rubbish in [
        r#"b"\x00\x01\x02rubbish""#,
        r#"b" {}\n""#,
        r#"b"\xb1\xff\x00\x00\x01\x00\x00\x00x""#,
        r#"b"\xb1\x01\x07\x07\xff\xff\xff\xff""#,
    ] {
        let mut supervisor =
            python(&format!("if generation == 1:\n    s.sendall({rubbish})\n    time.sleep(1000)\nready()\n{EXECUTE}"));
        call_all(&supervisor, "w", &["one", "two"]);
        let what = format!("{rubbish} is survived");
        if rubbish.contains("ff\\x00") {
            // A frame of an unknown kind: an error that names it, and the stream goes on; it never becomes ready.
            supervisor.until(&what, |this| violations(this, "w") == 1);
            assert_eq!(supervisor.ps("w")["state"], "starting");
            let report = supervisor.kill(&["w"]);
            assert_eq!((&report["ended_by"], &report["discarded"]), (&json!("term"), &json!(2)), "{report}");
            continue;
        }
        supervisor.until_lines("ran", 2);
        supervisor.until(&what, |this| this.ledger("done") == 2);
        let row = supervisor.ps("w");
        assert_eq!((&row["generation"], &row["crashes"]), (&json!(2), &json!(1)), "{rubbish}: {row}");
    }
}

#[test]
fn a_worker_that_does_not_read_its_answers_harms_nobody_else() {
    let mut supervisor = python(
        r#"
ready()
task = until("task")
note("ran", "begun")
while True: s.sendall(b'{"list":{"ref":1}}\n' * 1000)
"#,
    );
    let task = supervisor.start_cli(&["call", "w", "m", "--wait", "--json"]);
    supervisor.until_lines("ran", 1);
    supervisor.cli(&["call", "w", "never"]).ok();
    assert_eq!(supervisor.call(&["b", "count"]), 1);
    let report = supervisor.kill(&["w", "--within", "200ms"]);
    assert_eq!((&report["ended_by"], &report["current"]), (&json!("term"), &json!("interrupted")), "{report}");
    assert_eq!(report["discarded"], 1, "{report}");
    assert_eq!(task.end().json(), json!({"discarded": {"may_have_run": true}}));
    assert_eq!(supervisor.call(&["b", "count"]), 2);
}

// ---- what a worker is handed ----------------------------------------------------------------

#[test]
fn a_worker_has_its_standard_streams_its_connection_its_mark_page_and_its_name() {
    let supervisor = Supervisor::start();
    let _others: Vec<UnixStream> = (0..5).map(|_| supervisor.raw()).collect();
    for worker in ["b", "b/1", "a"] {
        supervisor.call(&[worker, "count"]);
    }
    check_descriptors(&supervisor);
}

#[test]
fn what_the_supervisor_inherited_does_not_reach_a_worker() {
    let supervisor = Supervisor::start_with("5</dev/zero 7<>/dev/full 8</proc/self/maps 9>/dev/null");
    check_descriptors(&supervisor);
}

fn check_descriptors(supervisor: &Supervisor) {
    let links = supervisor.call(&["a", "descriptors"]);
    let mut kinds: Vec<String> = links
        .as_array()
        .unwrap()
        .iter()
        .map(|link| link.as_str().unwrap())
        // The directory being read, and what the test worker opens itself.
        .filter(|link| !link.starts_with("/proc/") && !link.contains("/lock-"))
        .map(|link| link.split([':', '(']).next().unwrap().trim().to_string())
        // The file with the lock of its name is one of several.
        .map(|link| link.rsplit_once(".names/").map_or(link.clone(), |(socket, _)| format!("{socket}.names")))
        .collect();
    kinds.sort_unstable();
    let names = format!("{}.names", supervisor.socket().display());
    let mut expected = vec!["/dev/null".to_string(), names, "pipe".into(), "pipe".into(), "socket".into()];
    expected.sort_unstable();
    // The host library closes the mark page when it is mapped.
    kinds.retain(|kind| kind != "/memfd");
    assert_eq!(kinds, expected, "{links}");
    let environment = std::fs::read(format!("/proc/{}/environ", supervisor.worker_pid("a"))).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    for name in ["WORKHALL_FD=", "WORKHALL_MARK_FD=", "WORKHALL_WORKER=a\0", "WORKHALL_GENERATION=1\0"] {
        assert!(environment.contains(name), "{name} in {environment}");
    }
}

#[test]
fn a_worker_cannot_settle_the_task_of_another() {
    let mut supervisor = python(
        r#"
ready()
while True:
    task = until("task")
    say("done", id=task["args"][0], result="forged")
    say("failed", id=task["args"][0], error="forged")
    done(task)
"#,
    );
    let (begun, go) = (supervisor.path("begun"), supervisor.path("go"));
    let task = supervisor.start_cli(&[
        "call",
        "b",
        "block",
        begun.to_str().unwrap(),
        go.to_str().unwrap(),
        "--wait",
        "--json",
    ]);
    supervisor.until_lines("begun", 1);
    let message = supervisor.ps("b")["running"]["message"].to_string();
    assert_eq!(outcome(&supervisor, &["w", "forge", &message]), json!({"done": {"result": null}}));
    assert_eq!(supervisor.ps("b")["state"], "busy");
    assert_eq!(supervisor.ledger("failed"), 0);
    supervisor.file("go", "");
    assert_eq!(task.end().ok().json(), json!({"done": {"result": null}}));
}
