//! Process trees by control groups (rule K8): what only they find, and that nothing of them is left over.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use workhall_tests::harness::{self, ANY_NAME, Supervisor, is_root, lives, own_cgroup, parent, program, tree_modes};

/// Whether there are control groups; says it if not.
fn no_cgroups() -> bool {
    !tree_modes().contains(&"cgroup")
}

/// Leaves a process behind by this script, which says its ids in `$FILE`.
fn leave(supervisor: &Supervisor, worker: &str, script: &str, file: &str) -> Vec<i32> {
    let file = supervisor.path(file);
    let pids = supervisor.call(&[worker, "leave", script, file.to_str().unwrap()]);
    pids.as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap() as i32).collect()
}

#[test]
fn k08_status_says_how_trees_are_found() {
    for mode in tree_modes() {
        let supervisor = Supervisor::in_mode(mode, "");
        let status = supervisor.status();
        assert_eq!(status["process_tree"], mode);
        assert_eq!(status["why_not_cgroup"].is_null(), mode == "cgroup", "{status}");
        let shown = supervisor.cli(&["status"]).ok().out;
        assert!(shown.lines().any(|line| line.starts_with("trees by") && line.contains(mode)), "{shown}");
    }
}

/// A control group beside the tests', gone with it.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make(name: &str) -> Cgroup {
        let dir = own_cgroup().join(format!("test-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Cgroup(dir)
    }

    /// What starts a supervisor in it.
    fn enter(&self) -> Vec<String> {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", self.0.display());
        vec!["sh".into(), "-c".into(), script]
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).unwrap();
    }
}

/// Who owns a group may kill and move what is in it, and below it.
#[test]
fn k08_control_groups_that_another_user_owns_or_may_write_to_are_not_used() {
    if no_cgroups() || !is_root() {
        return println!("skipped: needs root and control groups");
    }
    let theirs = Cgroup::make("theirs");
    std::os::unix::fs::chown(&theirs.0, Some(65534), None).unwrap();
    let below = Cgroup::make("theirs/below");
    for group in [&theirs, &below] {
        let supervisor = Supervisor::with_config_under(ANY_NAME, |_| group.enter());
        let status = supervisor.status();
        assert_eq!(status["process_tree"], "subreaper", "{status}");
        let why = format!("{} belongs to user 65534", theirs.0.display());
        assert!(status["why_not_cgroup"].as_str().unwrap().contains(&why), "{status}");
        assert!(supervisor.cli(&["status"]).ok().out.contains(&why));
        supervisor.call(&["a", "count"]);
    }
    let open = Cgroup::make("open");
    for file in [open.0.clone(), open.0.join("cgroup.kill")] {
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode | 0o020)).unwrap();
        let supervisor = Supervisor::with_config_under(ANY_NAME, |_| open.enter());
        let why = format!("others may write to {} ", file.display());
        assert!(supervisor.status()["why_not_cgroup"].as_str().unwrap().contains(&why), "{}", supervisor.status());
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    }
    let ours = Cgroup::make("ours");
    let supervisor = Supervisor::with_config_under(ANY_NAME, |_| ours.enter());
    assert_eq!(supervisor.status()["process_tree"], "cgroup");
}

#[test]
fn k08_an_orphan_that_has_left_everything_while_the_worker_lives_is_found() {
    if no_cgroups() {
        return;
    }
    let mut supervisor = Supervisor::in_mode("cgroup", "");
    let script = "setsid env -i F=$FILE sh -c '(setsid env -i sleep 1000 & echo $! > $F.new); mv $F.new $F' &";
    for (round, end) in [&["kill", "a"][..], &["kill", "a", "--now"], &["call", "a", "die"]].into_iter().enumerate() {
        let left = leave(&supervisor, "a", script, &format!("left-{round}"));
        let of_the_supervisor = supervisor.pid();
        supervisor.until("it is an orphan", |_| parent(left[0]) == of_the_supervisor);
        supervisor.until("its environment is gone", |_| {
            fs::read(format!("/proc/{}/environ", left[0])).is_ok_and(|environ| environ.is_empty())
        });
        supervisor.call(&["b", "count"]);
        supervisor.kill(&["b"]);
        assert!(lives(left[0]), "the end of another worker is not its end");
        supervisor.cli(end).ok();
        assert_eq!(supervisor.call(&["a", "living", &json!(left).to_string()]), json!([]), "{end:?}");
    }
    supervisor.no_overlap();
}

/// A worker of the supervisor's own user may do to control groups what the supervisor may.
#[test]
fn k08_one_that_was_moved_out_of_its_control_group_is_gone_before_the_next_starts() {
    if no_cgroups() {
        return;
    }
    let mut supervisor = Supervisor::in_mode("cgroup", "");
    let leave_group =
        format!("echo $$ > {}/cgroup.procs; echo $$ > $FILE.new; mv $FILE.new $FILE", own_cgroup().display());
    for (round, (end, last)) in [
        (&["kill", "a"][..], "exec setsid sleep 1000"),
        (&["kill", "a", "--now"], "exec setsid env -i sleep 1000"),
        (&["call", "a", "die"], "exec sleep 1000"),
    ]
    .into_iter()
    .enumerate()
    {
        let left = leave(&supervisor, "a", &format!("{leave_group}; {last}"), &format!("left-{round}"))[0];
        supervisor.until("it has moved and executes its program", |_| program(left) == "sleep");
        assert!(!fs::read_to_string(format!("/proc/{left}/cgroup")).unwrap().contains("workhall-"));
        supervisor.call(&["b", "count"]);
        supervisor.kill(&["b"]);
        assert!(lives(left), "the end of another worker is not its end");
        supervisor.cli(end).ok();
        assert_eq!(supervisor.call(&["a", "living", &json!([left]).to_string()]), json!([]), "{end:?}");
    }
    supervisor.no_overlap();
}

#[test]
fn k08_two_hundred_processes_are_gone_before_the_next_one_starts() {
    for mode in tree_modes() {
        let supervisor = Supervisor::in_mode(mode, "");
        let script = "for i in $(seq 200); do setsid sleep 1000 & echo $! >> $FILE.new; done; mv $FILE.new $FILE";
        let left = leave(&supervisor, "a", script, "left");
        assert_eq!(left.len(), 200);
        supervisor.cli(&["call", "a", "die"]).ok();
        assert_eq!(supervisor.call(&["a", "living", &json!(left).to_string()]), json!([]), "{mode}");
        supervisor.no_overlap();
    }
}

#[test]
fn k08_no_control_group_is_left_behind() {
    if no_cgroups() {
        return;
    }
    let mut supervisor = Supervisor::in_mode("cgroup", "");
    let base = supervisor.cgroups();
    for worker in ["a", "a/b", "b"] {
        supervisor.call(&[worker, "count"]);
    }
    let groups = || fs::read_dir(&base).unwrap().flatten().filter(|entry| entry.path().is_dir()).count();
    assert_eq!(groups(), 3);
    let own = supervisor.call(&["a", "read", "/proc/self/cgroup"]);
    assert!(own.as_str().unwrap().lines().any(|line| line.starts_with("0::") && line.contains("/2.1.")), "{own}");
    supervisor.kill(&["a"]);
    assert_eq!(groups(), 2, "a group goes with its life");
    // A group that the worker has made below its own goes too.
    let group = supervisor.group_of(&format!("{}.1", supervisor.ps("b")["number"]));
    fs::create_dir_all(group.join("deep/deeper")).unwrap();
    supervisor.kill(&["b"]);
    assert_eq!(groups(), 1);
    leave(&supervisor, "a/b", "setsid sleep 1000 & echo $! > $FILE.new; mv $FILE.new $FILE", "left");
    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.ended().success());
    assert!(!base.exists());
}

#[test]
fn k08_the_groups_of_a_supervisor_that_was_killed_are_removed_by_the_next() {
    if no_cgroups() {
        return;
    }
    let mut supervisor = Supervisor::in_mode("cgroup", "");
    let base = supervisor.cgroups();
    let worker = supervisor.call(&["a", "pid"]).as_i64().unwrap() as i32;
    supervisor.signal(Signal::SIGKILL);
    supervisor.ended();
    harness::until("its worker has ended", || !lives(worker));
    assert!(base.exists());
    supervisor.restart();
    assert!(!base.exists());
    assert_eq!(supervisor.call(&["a", "count"]), 1);
}

#[test]
fn d05_where_no_group_can_be_made_the_start_is_tried_again() {
    if no_cgroups() {
        return;
    }
    let mut supervisor = Supervisor::in_mode("cgroup", "");
    let most = supervisor.cgroups().join("cgroup.max.descendants");
    supervisor.call(&["a", "count"]);
    fs::write(&most, "1").unwrap();
    supervisor.cli(&["call", "b", "count"]).ok();
    supervisor.until("it waits for another start", |this| this.ps("b")["state"] == "backoff");
    let last = &supervisor.cli(&["info", "b", "--json"]).ok().json()["last_exit"];
    assert_eq!((&last["stage"], &last["exit"]), (&json!("setup"), &Value::Null), "{last}");
    assert!(last["failure"].as_str().unwrap().starts_with("cannot make its control group: "), "{last}");
    assert_eq!(supervisor.call(&["a", "count"]), 2, "the others go on");
    fs::write(&most, "max").unwrap();
    assert_eq!(supervisor.call(&["b", "count"]), 2);
}

#[test]
fn d05_a_failed_start_says_its_stage() {
    for mode in tree_modes() {
        let mut supervisor = Supervisor::with_config(&format!(
            "supervisor.process_tree = '{mode}'
             class.missing.exec = ['{{dir}}/missing']
             class.nowhere.exec = ['no-such-program']
             class.interpreter.exec = ['{{dir}}/script']
             class.directory = {{ exec = ['true'], directory = '{{dir}}/missing' }}
             class.ends.exec = ['true']
             class.slow = {{ exec = ['sleep', '1000'], start_timeout = '20ms' }}"
        ));
        let script = supervisor.file("script", "#!/no/such/interpreter\n");
        fs::set_permissions(script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        for (class, stage, detail) in [
            ("missing", "exec", "/missing: No such file or directory (os error 2)"),
            ("nowhere", "exec", "cannot execute no-such-program: no directory of PATH has it"),
            ("interpreter", "exec", "it is there: what its first line names is not"),
            ("directory", "setup", "cannot start in "),
            ("ends", "ended_before_ready", "it ended before it was ready"),
            ("slow", "not_ready_in_time", "not ready in time"),
        ] {
            supervisor.cli(&["call", class, "m"]).ok();
            supervisor.until("the second start has failed", |this| this.ps(class)["state"] == "backoff");
            let last = &supervisor.cli(&["info", class, "--json"]).ok().json()["last_exit"];
            assert_eq!(last["stage"], stage, "{mode}: {last}");
            assert!(last["failure"].as_str().unwrap().contains(detail), "{mode}: {last}");
            supervisor.kill(&[class]);
        }
    }
}

#[test]
fn k08_a_worker_that_was_stopped_with_all_its_children_is_killed() {
    for mode in tree_modes() {
        let supervisor = Supervisor::in_mode(mode, "");
        let left = leave(&supervisor, "a", "setsid sleep 1000 & echo $! > $FILE.new; mv $FILE.new $FILE", "left");
        for pid in [supervisor.worker_pid("a"), left[0]] {
            kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
        }
        assert_eq!(supervisor.kill(&["a", "--now"])["ended_by"], "kill", "{mode}");
        assert!(!lives(left[0]), "{mode}");
    }
}
