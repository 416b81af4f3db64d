//! What `.ci/run` finds that a run of the tests has left behind.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use workhall_tests::harness::{Output, copy_program, output, workspace};

fn left_behind(dir: &Path, target: &Path) -> Output {
    output(Command::new(workspace().join(".ci/left-behind")).args([dir, target]))
}

/// A process that lives until it is dropped.
struct Process(Child);

impl Process {
    fn start(program: impl AsRef<Path>, socket: &Path) -> Process {
        let mut command = Command::new(program.as_ref());
        // It may be one program of many names.
        command.arg0("sleep").arg("1000").stdin(Stdio::null()).env("WORKHALL_SOCKET", socket);
        // An environment of more than a pipe holds, behind and before what is looked for.
        for name in ["A_LARGE_ONE", "Z_LARGE_ONE"] {
            command.env(name, "x".repeat(100_000));
        }
        Process(command.spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn what_a_run_has_left_is_found_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (own, other, target) = (dir.path().join("own"), dir.path().join("other"), dir.path().join("target"));
    std::fs::create_dir(&target).unwrap();
    let clean = |what: &str| {
        let output = left_behind(&own, &target);
        assert_eq!((output.code, &*output.err), (0, ""), "{what}");
    };
    clean("nothing runs");
    let elsewhere = Process::start("sleep", &other.join("workhall-x/socket"));
    clean("it belongs to another run");
    let started = Process::start("sleep", &own.join("workhall-x/socket"));
    let found = left_behind(&own, &target);
    assert_eq!(found.code, 1, "{found:?}");
    assert!(found.err.contains(&format!("\n{} ", started.0.id())), "{found:?}");
    assert_eq!(found.err.lines().count(), 2, "{found:?}");
    drop(started);
    clean("it is gone");
    // A program of ours, wherever its socket is, and by whatever path its directory is named.
    let program = target.join("workhall");
    copy_program(std::path::Path::new("/bin/sleep"), &program);
    let ours = Process::start(&program, &other.join("workhall-x/socket"));
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    for target in [&target, &link] {
        let found = left_behind(&own, target);
        assert_eq!((found.code, found.err.contains(&ours.0.id().to_string())), (1, true), "{found:?}");
    }
    drop((elsewhere, ours));
}
