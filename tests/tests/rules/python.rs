//! The Python package: its own tests, against the supervisor of this build.

use std::process::{Command, Stdio};

use workhall_tests::harness::{bin_dir, output, workspace};

use super::examples::is_there;

/// Python, ready to be told what to do with the package.
fn python() -> Command {
    let mut command = Command::new("python3");
    command
        .current_dir(workspace().join("worker-host/python"))
        .env("WORKHALL_BIN", bin_dir().join("workhall"))
        .env("PYTHONPATH", "src")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    command
}

#[test]
fn the_python_package_passes_its_own_tests() {
    if !is_there("python3") {
        return;
    }
    let ended = output(python().args(["-m", "unittest", "discover", "-s", "tests", "-t", "."]));
    assert_eq!(ended.code, 0, "{}", ended.err);
    // None were found, and none failed: that is no success.
    let ran = ended.err.split("Ran ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    assert!(ran >= Some(40), "{}", ended.err);
}
