//! What a process leaves behind is gone before its successor starts (rule K8), by control groups and without.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use workhall_tests::harness::{ANY_NAME, Supervisor, lives, parent, program, python, tree_modes};

/// Scripts that leave a process behind, which says its id in `$FILE`.
const LEFT_BEHIND: [(&str, &str); 8] = [
    ("a child", "echo $$ > $FILE.new; mv $FILE.new $FILE; exec sleep 1000"),
    ("that ignores SIGTERM", "trap '' TERM; echo $$ > $FILE.new; mv $FILE.new $FILE; while :; do sleep 1000; done"),
    (
        "an orphan in a session of its own",
        "(setsid sh -c 'echo $$ > $FILE.new; mv $FILE.new $FILE; exec sleep 1000' &)",
    ),
    (
        "that ignores SIGTERM and has children",
        "(setsid sh -c 'trap \"\" TERM; sleep 1000 & (setsid sleep 1000 & echo $! >> $FILE.new); \
          echo $$ $! >> $FILE.new; mv $FILE.new $FILE; wait' &)",
    ),
    ("a stopped one", "(setsid sh -c 'echo $$ > $FILE.new; mv $FILE.new $FILE; kill -STOP $$; sleep 1000' &)"),
    (
        "with a cleared environment, in the session of the worker's child",
        "setsid sh -c '(env -i sleep 1000 & echo $! > $FILE.new); mv $FILE.new $FILE; exec sleep 1000'",
    ),
    (
        "an orphan with a session of its own and a cleared environment",
        "(setsid env -i FILE=$FILE sh -c 'echo $$ > $FILE.new; mv $FILE.new $FILE; exec env -i sleep 1000' &)",
    ),
    ("with a file of its own name", "(exec setsid sh -c 'echo $$ > $FILE.new; mv $FILE.new $FILE; sleep 1000; :') &"),
];

#[test]
fn k08_what_a_process_left_behind_is_dead_before_its_successor_starts() {
    tree_modes().into_iter().for_each(what_a_process_left_behind_is_dead_before_its_successor_starts);
}

fn what_a_process_left_behind_is_dead_before_its_successor_starts(mode: &str) {
    let mut supervisor = Supervisor::in_mode(mode, "");
    for (index, (what, script)) in LEFT_BEHIND.into_iter().enumerate() {
        let file = supervisor.path(&format!("left-{index}"));
        let left = supervisor.call(&["a", "leave", script, file.to_str().unwrap()]);
        assert!(left.as_array().unwrap().iter().all(|pid| lives(pid.as_i64().unwrap() as i32)), "{what}: {left}");
        let end: &[&str] = match index % 3 {
            0 => &["kill", "a"],
            1 => &["kill", "a", "--now"],
            _ => &["call", "a", "die"],
        };
        supervisor.cli(end).ok();
        let living = supervisor.call(&["a", "living", &left.to_string()]);
        assert_eq!(living, json!([]), "{what}");
    }
    supervisor.until("only the worker lives", |this| this.processes().len() == 1);
    supervisor.no_overlap();
}

#[test]
fn k08_all_that_many_methods_left_behind_is_dead_when_the_receipt_comes() {
    tree_modes().into_iter().for_each(all_that_many_methods_left_behind_is_dead_when_the_receipt_comes);
}

fn all_that_many_methods_left_behind_is_dead_when_the_receipt_comes(mode: &str) {
    let supervisor = Supervisor::in_mode(mode, "");
    let mut left = Vec::new();
    for (index, (_, script)) in LEFT_BEHIND.into_iter().enumerate() {
        let file = supervisor.path(&format!("left-{index}"));
        let pids = supervisor.call(&["a", "leave", script, file.to_str().unwrap()]);
        left.extend(pids.as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap() as i32));
    }
    supervisor.call(&["b", "count"]);
    let report = supervisor.kill(&["a"]);
    assert_eq!(report["ended_by"], "ask");
    assert_eq!(left.into_iter().filter(|pid| lives(*pid)).collect::<Vec<_>>(), [0_i32; 0]);
    assert_eq!(supervisor.processes(), [supervisor.worker_pid("b")], "another worker is left alone");
}

#[test]
fn k08_children_live_as_long_as_their_worker() {
    tree_modes().into_iter().for_each(children_live_as_long_as_their_worker);
}

fn children_live_as_long_as_their_worker(mode: &str) {
    let supervisor = Supervisor::in_mode(mode, "");
    let file = supervisor.path("orphan");
    let orphan = supervisor.call(&["a", "orphan", file.to_str().unwrap()]).as_i64().unwrap() as i32;
    supervisor.call(&["b", "count"]);
    supervisor.kill(&["b"]);
    supervisor.call(&["a", "count"]);
    assert!(lives(orphan), "the end of another worker is not its end");
    supervisor.kill(&["a"]);
    assert!(!lives(orphan));
}

#[test]
fn k08_one_that_forks_and_leaves_again_and_again_is_caught() {
    tree_modes().into_iter().for_each(one_that_forks_and_leaves_again_and_again_is_caught);
}

fn one_that_forks_and_leaves_again_and_again_is_caught(mode: &str) {
    let supervisor = Supervisor::in_mode(mode, "");
    supervisor.file("hop", "setsid sh \"$0\" &\n");
    for round in 0..20 {
        let file = supervisor.path(&format!("left-{round}"));
        let script = format!("echo $$ > $FILE; exec setsid sh {}", supervisor.path("hop").display());
        supervisor.call(&["a", "leave", &script, file.to_str().unwrap()]);
        assert_eq!(supervisor.kill(&["a"])["ended_by"], "ask");
        assert_eq!(supervisor.processes(), [0_i32; 0]);
    }
    supervisor.no_overlap();
}

/// Leaves a session of its own with nothing that it has inherited: neither environment nor descriptor, and no parent
/// but the supervisor.
const ESCAPE: &str = r#"
import os
file = os.environ["FILE"]
os.closerange(3, os.sysconf("SC_OPEN_MAX"))
if pid := os.fork():
    with open(file + ".new", "w") as new: new.write(str(pid))
    os.rename(file + ".new", file)
else:
    os.setsid()
    os.execve("/bin/sleep", ["sleep", "1000"], {})
"#;

/// Returns once it is the child of the supervisor.
fn escaped(supervisor: &mut Supervisor, worker: &str) -> i32 {
    let file = supervisor.path("escaped");
    let _of_an_earlier_one = fs::remove_file(&file);
    let script = format!("exec {} {}", python(), supervisor.file("escape.py", ESCAPE).display());
    let pid = supervisor.call(&[worker, "leave", &script, file.to_str().unwrap()])[0].as_i64().unwrap() as i32;
    let own = supervisor.pid();
    supervisor.until("it is an orphan that executes its program", |_| parent(pid) == own && program(pid) == "sleep");
    pid
}

/// It has given the lock of the name back, but it is still in its group. Without groups it is a limit.
#[test]
fn d07_one_that_has_closed_the_lock_is_dead_before_the_next_supervisor_starts_its_name() {
    if !tree_modes().contains(&"cgroup") {
        return println!("skipped: no control groups");
    }
    let mut supervisor = Supervisor::in_mode("cgroup", "");
    for upgraded in [false, true] {
        let pid = escaped(&mut supervisor, "a");
        let worker = supervisor.worker_pid("a");
        supervisor.signal(Signal::SIGKILL);
        supervisor.ended();
        supervisor.until("the worker has exited by itself", |_| !lives(worker));
        assert!(lives(pid), "nobody has ended it");
        supervisor.restart();
        supervisor.call(&["b", "count"]);
        assert!(lives(pid), "it is in nobody's way but its own name's");
        if upgraded {
            supervisor.cli(&["upgrade"]).ok();
        }
        assert_eq!(supervisor.call(&["a", "living", &json!([pid]).to_string()]), json!([]));
        assert_eq!(supervisor.kill(&["a"])["ended_by"], "ask");
    }
    supervisor.no_overlap();
}

/// Without control groups; with them it does not escape.
#[test]
fn d08_one_that_has_escaped_from_its_worker_ends_with_the_supervisor() {
    let mut supervisor = Supervisor::in_mode("subreaper", "");
    let pid = escaped(&mut supervisor, "a");
    supervisor.kill(&["a"]);
    assert!(lives(pid), "it is as hidden as this test needs it");
    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.ended().success());
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap(), "it is killed, and reaped");
}

#[test]
fn k08_one_that_has_escaped_delays_nobodys_kill() {
    let mut supervisor = Supervisor::in_mode("subreaper", "");
    let pid = escaped(&mut supervisor, "a");
    supervisor.call(&["b", "count"]);
    let took = supervisor.kill(&["b"])["took_ms"].as_u64().unwrap();
    // What cannot be told is looked at again after one second, and after another.
    assert!(lives(pid) && took < 1000, "it took {took} ms");
}

/// A child that the supervisor had before it became one is nobody's that a worker has left.
#[test]
fn d08_children_from_before_the_supervisor_outlive_it() {
    let script = r#"setsid sleep 1000 & echo $! > "$0"; exec "$@""#;
    let mut supervisor = Supervisor::with_config_under(ANY_NAME, |dir| {
        ["sh", "-c", script, dir.join("before").to_str().unwrap()].map(str::to_string).to_vec()
    });
    let before = supervisor.lines("before")[0].parse().unwrap();
    assert_eq!(parent(before), supervisor.pid());
    supervisor.call(&["a", "count"]);
    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.ended().success());
    assert!(lives(before));
    kill(Pid::from_raw(before), Signal::SIGKILL).unwrap();
}

/// The same with the lock of its worker's name, behind more descriptors than are looked at.
const HIDDEN: &str = r#"
import os, sys, time
file = os.environ.get("FILE")
if file:
    if pid := os.fork():
        with open(file + ".new", "w") as new: new.write(str(pid))
        os.rename(file + ".new", file)
    else:
        os.setsid()
        os.execve(sys.executable, [sys.executable, sys.argv[0]], {})
else:
    import fcntl
    names = [fd for fd in range(3, 128) if os.path.exists(f"/proc/self/fd/{fd}") and ".names/" in os.readlink(f"/proc/self/fd/{fd}")]
    fcntl.fcntl(names[0], fcntl.F_DUPFD, 4500)
    os.close(names[0])
    for _ in range(4200): os.open("/dev/null", os.O_RDONLY)
    open(sys.argv[0] + ".done", "w")
    time.sleep(1000)
"#;

#[test]
fn d07_who_hides_the_lock_behind_thousands_of_descriptors_holds_up_its_own_name_alone() {
    let mut supervisor = Supervisor::in_mode("subreaper", "");
    let (script, file) = (supervisor.file("hidden.py", HIDDEN), supervisor.path("hidden"));
    let command = format!("exec {} {}", python(), script.display());
    let pid = supervisor.call(&["a", "leave", &command, file.to_str().unwrap()])[0].as_i64().unwrap() as i32;
    supervisor.until("it has all its descriptors", |this| this.path("hidden.py.done").exists());
    supervisor.kill(&["a"]);
    assert!(lives(pid));
    supervisor.cli(&["call", "a", "count"]).ok();
    let mut waits_for = String::new();
    supervisor.until("it is known that the name is held", |this| {
        let info = this.cli(&["info", "a", "--json"]).ok().json();
        waits_for = info["waits_for"].as_str().unwrap_or_default().to_string();
        !waits_for.is_empty()
    });
    assert!(waits_for.contains("not found among the first 4096 descriptors of each process"), "{waits_for}");
    assert_eq!(supervisor.call(&["b", "count"]), 1);
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert_eq!(supervisor.call(&["a", "count"]), 2);
    supervisor.no_overlap();
}
