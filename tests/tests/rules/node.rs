//! The library for Node.js: its own tests, on this supervisor.

use std::process::Command;

use workhall_tests::harness::{bin_dir, output, workspace};

use super::examples::is_there;

#[test]
fn the_library_for_node_passes_its_own_tests() {
    if !is_there("node") {
        return;
    }
    let mut command = Command::new("sh");
    command.args(["-c", "exec node --test --test-reporter=tap test/*.test.js"]);
    command.current_dir(workspace().join("worker-host/node")).env("WORKHALL_BIN", bin_dir().join("workhall"));
    // A test runner that finds itself below another one reports to that.
    let run = output(command.env_remove("NODE_TEST_CONTEXT"));
    let count = |what: &str| -> u32 {
        let line = run.out.lines().find_map(|line| line.strip_prefix(&format!("# {what} ")));
        line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no count: {run:?}"))
    };
    let (passed, failed, skipped) = (count("pass"), count("fail") + count("cancelled"), count("skipped"));
    assert!(run.code == 0 && failed == 0 && skipped == 0 && passed > 30, "{}\n{}", run.out, run.err);
    println!("node: {passed} passed");
}
