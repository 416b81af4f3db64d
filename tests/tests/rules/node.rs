//! The library for Node.js: its own tests, on this supervisor.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use workhall_tests::harness::{Supervisor, bin_dir, output, workspace};

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
    // What a supervisor has not is not tried.
    let has_run = output(Command::new(bin_dir().join("workhall")).args(["run", "--help"])).code == 0;
    assert!(run.code == 0 && failed == 0 && (skipped == 0 || !has_run) && passed > 30, "{}\n{}", run.out, run.err);
    println!("node: {passed} passed");
}

/// The example at work on a directory.
fn fan_out(supervisor: &Supervisor, program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env("WORKHALL_SOCKET", supervisor.socket());
    command
}

#[test]
fn fan_out_counts_the_words_of_a_directory_by_eight_workers() {
    if !is_there("node") {
        return;
    }
    let example = workspace().join("examples/fan-out");
    let (program, words) = (example.join("fan-out.mjs"), example.join("words.mjs"));
    let supervisor = Supervisor::with_config(&format!("[class.words]\nnames = [\"words-*\"]\nexec = [{words:?}]\n"));
    let program = program.to_str().unwrap();
    // Counted by hand.
    let texts: Vec<_> = fs::read_dir(example.join("texts")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for text in &texts {
        let text = fs::read_to_string(text).unwrap().to_lowercase();
        for word in text.split(|c: char| !(c.is_alphanumeric() || c == '\'')).filter(|word| !word.is_empty()) {
            *counts.entry(word.to_string()).or_default() += 1;
        }
    }
    let mut most: Vec<_> = counts.iter().map(|(word, count)| (-count, word)).collect();
    most.sort();
    let most: Vec<String> = most.iter().take(5).map(|(count, word)| format!("{word} {}", -count)).collect();
    let total: i64 = counts.values().sum();
    assert!(texts.len() > 10 && total > 200, "{total}");
    let expected =
        format!("{total} words in {} files, counted by 8 workers\nmost frequent: {}\n", texts.len(), most.join(", "));
    let done = output(&mut fan_out(&supervisor, program, &[])).ok();
    assert_eq!((done.out, done.err.as_str()), (expected, ""), "no progress bar without a terminal");
    // On a terminal there is one.
    let done = output(&mut fan_out(&supervisor, "script", &["-qec", program, "/dev/null"])).ok();
    assert!(done.out.contains("\r[####") && done.out.contains(&format!("] {0}/{0}", texts.len())), "{done:?}");

    // What cannot be read is the failure of one message, and the rest is counted.
    let odd = supervisor.path("odd");
    fs::create_dir_all(odd.join("b.txt")).unwrap();
    fs::write(odd.join("a.txt"), "one two").unwrap();
    let done = output(&mut fan_out(&supervisor, program, &[odd.to_str().unwrap()]));
    assert!(done.code == 1 && done.out.starts_with("2 words in 1 files, counted by 1 workers\n"), "{done:?}");
    assert!(done.err.starts_with("b.txt: ") && done.err.contains("EISDIR"), "{done:?}");
    fs::remove_dir_all(&odd).unwrap();
    let done = output(&mut fan_out(&supervisor, program, &[odd.to_str().unwrap()]));
    assert!(done.code == 1 && done.err.contains("ENOENT"), "{done:?}");
}
