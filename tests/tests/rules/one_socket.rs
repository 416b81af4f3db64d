//! One supervisor at one socket, whatever becomes of its lock file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use workhall_tests::harness::{Output, Supervisor, bin_dir, output};

/// Tries to serve the same socket, which must fail at once.
fn serve(supervisor: &Supervisor) -> Output {
    let mut command = Command::new("timeout");
    command.arg("20").arg(bin_dir().join("workhall")).args(["serve", "--workers", "/usr/bin", "--socket"]);
    output(command.arg(supervisor.socket()))
}

#[test]
fn k08_a_supervisor_whose_lock_file_was_removed_is_not_doubled() {
    let supervisor = Supervisor::start();
    supervisor.call(&["a", "count"]);
    let lock = supervisor.path("socket.lock");
    for _ in 0..2 {
        fs::remove_file(&lock).unwrap();
        serve(&supervisor).fails(1, &["another supervisor", &format!("process {}", supervisor.pid()), "stop it"]);
        // It has made a lock file of its own, which is nobody's now.
        serve(&supervisor).fails(1, &["another supervisor", &format!("process {}", supervisor.pid()), "stop it"]);
        assert_eq!(supervisor.call(&["a", "pid"]), supervisor.worker_pid("a"));
    }
    assert_eq!(supervisor.call(&["a", "count"]), 2);
    supervisor.no_overlap();
}

#[test]
fn a_supervisor_that_accepts_nothing_at_the_moment_is_not_doubled() {
    let supervisor = Supervisor::start();
    supervisor.stop_with_full_backlog();
    fs::remove_file(supervisor.path("socket.lock")).unwrap();
    serve(&supervisor).fails(1, &["another supervisor", "does not answer", "stop it"]);
    supervisor.signal(Signal::SIGCONT);
    assert_eq!(supervisor.call(&["a", "count"]), 1);
}

#[test]
fn a_socket_that_nobody_listens_at_is_taken_over_without_its_lock_file() {
    let mut supervisor = Supervisor::start();
    supervisor.signal(Signal::SIGKILL);
    supervisor.ended();
    fs::remove_file(supervisor.path("socket.lock")).unwrap();
    supervisor.restart();
    assert_eq!(supervisor.call(&["a", "count"]), 1);
}

/// A supervisor that is killed while it starts a process leaves copies of its lock and its listener in it, until the
/// process executes its program. The chaos run found that its successor took it for alive.
#[test]
fn d07_what_a_killed_supervisor_was_about_to_start_keeps_no_other_from_serving() {
    let dead = {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    };
    let mut holder = None;
    let config = format!("class.a = {{ exec = ['{}'] }}", bin_dir().join("test-worker").display());
    let supervisor = Supervisor::with_config_under(&config, |dir| {
        let (file, listener) = (dir.join("socket.lock"), UnixListener::bind(dir.join("socket")).unwrap());
        fs::write(&file, format!("{dead}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let lock = Flock::lock(fs::File::options().write(true).open(file).unwrap(), FlockArg::LockExclusive).unwrap();
        holder = Some(thread::spawn(move || {
            // So long it takes the lock for held; the listener is this process's, which lives, and ends first.
            thread::sleep(Duration::from_millis(200));
            drop(listener);
            drop(lock);
        }));
        Vec::new()
    });
    holder.unwrap().join().unwrap();
    assert_eq!(supervisor.call(&["a", "count"]), 1);
}

#[test]
fn a_lock_file_that_leads_elsewhere_is_refused() {
    let mut supervisor = Supervisor::start();
    supervisor.signal(Signal::SIGTERM);
    supervisor.ended();
    let (lock, victim) = (supervisor.path("socket.lock"), supervisor.file("victim", "precious"));
    fs::remove_file(&lock).unwrap();
    std::os::unix::fs::symlink(&victim, &lock).unwrap();
    serve(&supervisor).fails(1, &["cannot lock", "socket.lock", "symbolic link"]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    fs::remove_file(&lock).unwrap();
    // Nor is the socket of anybody else taken.
    let listener = UnixListener::bind(supervisor.socket()).unwrap();
    serve(&supervisor).fails(1, &[&format!("process {}", std::process::id()), "stop it"]);
    drop(listener);
}
