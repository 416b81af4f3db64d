//! `serve` without a service manager: as process 1 of a container, and for a single user.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use workhall_tests::harness::{
    ANY_NAME, Supervisor, bin_dir, copy_program, is_root, lives, output, parent, program, text, until,
};

/// The only child of a process.
fn child(pid: i32) -> i32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap_or_else(|_| panic!("one child of {pid}: {children:?}"))
}

/// A supervisor that is process 1 of a namespace of its own, and its process id out here; none where only root may.
fn as_process_1() -> Option<(Supervisor, i32)> {
    if !is_root() {
        println!("skipped: only root can make the namespaces of a container");
        return None;
    }
    // `/proc` is the container's own; what unshare itself is told does not reach it.
    let unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"].map(str::to_string);
    let supervisor = Supervisor::with_config_under(ANY_NAME, |_| unshare.to_vec());
    let pid = child(supervisor.pid());
    assert_eq!(program(pid), "workhall");
    assert_eq!(supervisor.status()["pid"], 1);
    Some((supervisor, pid))
}

#[test]
fn d08_process_1_of_a_container_ends_when_it_is_told_to() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let Some((mut supervisor, pid)) = as_process_1() else { return };
        let held = supervisor.hold("a");
        supervisor.call(&["b", "count"]);
        let workers = supervisor.processes();
        kill(Pid::from_raw(pid), signal).unwrap();
        supervisor.until("it stops", |this| this.status()["stopping"] == true);
        assert!(!held.has_ended(), "the task is given its time");
        held.release();
        // `unshare` ends as its child did.
        assert_eq!(supervisor.ended().code(), Some(0));
        assert!(held.has_ended());
        assert!(!workers.into_iter().any(lives) && !supervisor.socket().exists());
        supervisor.no_overlap();
    }
}

#[test]
fn process_1_of_a_container_reaps_whatever_becomes_its_child() {
    let Some((mut supervisor, pid)) = as_process_1() else { return };
    // What somebody runs in the container, and leaves: it is nobody's, and reaped when it ends.
    let (file, go) = (supervisor.path("stranger"), supervisor.path("go"));
    let script =
        "(setsid sh -c 'echo $$ > \"$0\"; until [ -e \"$1\" ]; do sleep 0.01; done' \"$0\" \"$1\" >/dev/null 2>&1 &)";
    let namespace = format!("--pid=/proc/{pid}/ns/pid");
    let mount = format!("--mount=/proc/{pid}/ns/mnt");
    let mut enter = Command::new("nsenter");
    output(enter.args([&*namespace, &*mount, "sh", "-c", script, text(&file), text(&go)])).ok();
    supervisor.until_lines("stranger", 1);
    // Its number in the container is another out here.
    let strangers = || -> Vec<i32> {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split(' ').filter_map(|pid| pid.parse().ok()).filter(|pid| program(*pid) == "sh").collect()
    };
    until("it is a child of process 1", || strangers().len() == 1);
    let stranger = strangers()[0];
    // A worker that is killed takes its own with it, and not the stranger.
    supervisor.call(&["a", "count"]);
    supervisor.kill(&["a"]);
    assert!(lives(stranger) && parent(stranger) == pid);
    supervisor.let_go();
    supervisor.until("it is reaped", |_| !Path::new(&format!("/proc/{stranger}")).exists());
    assert_eq!(supervisor.call(&["a", "count"]), 1);
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    assert_eq!(supervisor.ended().code(), Some(0));
}

/// A supervisor of a user who is not root, found by `XDG_RUNTIME_DIR` alone.
struct OfUser(Child);

impl Drop for OfUser {
    fn drop(&mut self) {
        let _ended = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _reaped = self.0.wait();
    }
}

#[test]
fn a_user_has_a_supervisor_of_their_own_below_the_runtime_directory() {
    const NOBODY: u32 = 65534;
    let dir = tempfile::Builder::new().prefix("workhall-").tempdir().unwrap();
    let (runtime, workers, log) = (dir.path().join("run"), dir.path().join("workers"), dir.path().join("log"));
    fs::create_dir(&runtime).unwrap();
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(&workers).unwrap();
    // Copies: the others may not look into the directory of the build.
    for (from, to) in [("test-worker", workers.join("a")), ("workhall", dir.path().join("workhall"))] {
        copy_program(&bin_dir().join(from), &to);
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let user = match is_root() {
        true => {
            chown(&runtime, Some(NOBODY), Some(NOBODY)).unwrap();
            NOBODY
        }
        false => runtime.metadata().unwrap().uid(),
    };
    let workhall = |args: &[&str]| {
        let program = dir.path().join("workhall");
        let mut command = Command::new(if is_root() { Path::new("setpriv") } else { &program });
        if is_root() {
            let id = NOBODY.to_string();
            command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(&program);
        }
        command.args(args).env("XDG_RUNTIME_DIR", &runtime).env_remove("WORKHALL_SOCKET").env_remove("WORKHALL_NUMBER");
        command.current_dir("/").stdin(Stdio::null());
        command
    };
    output(&mut workhall(&["ps"])).fails(4, &["no supervisor at", text(&runtime)]);
    let file = fs::File::create(&log).unwrap();
    let serve = workhall(&["serve", "--workers", text(&workers)]).stdout(Stdio::null()).stderr(file).spawn();
    let mut supervisor = OfUser(serve.unwrap());
    let socket = runtime.join("workhall/workhall.sock");
    let ready = format!("workhall: ready at {}\n", socket.display());
    until("it is ready", || fs::read_to_string(&log).unwrap().ends_with(&ready));
    // The directory was missing; it is the user's alone, and so is what is in it.
    for path in [&runtime.join("workhall"), &socket] {
        let meta = path.metadata().unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o077), (user, 0), "{}", path.display());
    }
    let call = |args: &[&str]| output(&mut workhall(&[&["call", "a", "--wait"], args].concat())).ok().json();
    assert_eq!(call(&["count"]), 1);
    assert_eq!(call(&["count"]), 2);
    let status = output(&mut workhall(&["status", "--json"])).ok().json();
    assert_eq!(status["asker"]["uid"], user, "{status}");
    // A second one does not take its place.
    output(&mut workhall(&["serve", "--workers", text(&workers)])).fails(1, &["another supervisor"]);
    kill(Pid::from_raw(supervisor.0.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(supervisor.0.wait().unwrap().code(), Some(0));
    assert!(!socket.exists());
}
