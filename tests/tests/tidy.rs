//! What a reader may rely on: layering, forbidden calls, dead files, rules without a test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use workhall_tests::harness::workspace;

/// A file that is longer than this says at its head why, or is split.
const LINES_MAX: usize = 500;

/// Longer files, and why.
const LONG_FILES: &[(&str, &str)] = &[
    ("protocol/src/messages.rs", "one definition of every message, with its documentation"),
    ("tests/", "tests are read one at a time"),
];

/// What is not written, where, and what is written instead.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    ("unsafe {", &["sys.rs", "src/sys/", "test-worker.rs"], "unsafe stands in sys.rs"),
    ("unsafe impl", &["sys.rs", "src/sys/"], "unsafe stands in sys.rs"),
    ("unsafe fn", &["sys.rs", "src/sys/"], "unsafe stands in sys.rs"),
    ("unsafe extern", &["sys.rs", "src/sys/"], "unsafe stands in sys.rs"),
    ("unsafe trait", &["sys.rs", "src/sys/"], "unsafe stands in sys.rs"),
    ("unsafe(", &["sys.rs", "src/sys/"], "unsafe stands in sys.rs"),
    ("libc::", &["sys.rs", "src/sys/"], "the operating system is named in sys.rs"),
    ("nix::", &["sys.rs", "src/sys/", "tests/"], "the operating system is named in sys.rs"),
    ("rustix::", &["sys.rs", "src/sys/"], "the operating system is named in sys.rs"),
    ("interprocess::", &["sys.rs", "src/sys/"], "the operating system is named in sys.rs"),
    ("Instant::now", &["clock.rs", "cli/", "tests/", "examples/"], "the daemon's clock is read in clock.rs"),
    ("sys::monotonic", &["clock.rs"], "the daemon's clock is read in clock.rs"),
    ("SystemTime::now", &["clock.rs", "tests/", "examples/"], "the daemon's clock is read in clock.rs"),
    ("thread::sleep", &["tests/", "examples/", "cli/bench/"], "waits are deadlines in the event loop"),
    (".pre_exec(", &[], "it forks by copying the supervisor's memory (crates.md): see launcher.rs"),
    (".before_exec(", &[], "it forks by copying the supervisor's memory"),
    ("unimplemented!", &[], "no stubs"),
    ("todo!(", &[], "no stubs"),
    ("#[ignore", &[], "a test runs or is not there"),
];

/// What is written in these files of the daemon alone, and why.
const ROOMS: &[(&str, &[&str], &str)] = &[
    ("cli::", &["lib.rs", "cli/"], "nothing in the daemon imports the command line"),
    ("crate::cli", &["lib.rs", "cli/"], "nothing in the daemon imports the command line"),
    ("super::cli", &["lib.rs", "cli/"], "nothing in the daemon imports the command line"),
    // Before there is a loop, `serve` waits a moment for what a dead supervisor has held.
    (
        "poller.wait(",
        &["event_loop.rs", "cli/serve.rs", "cli/bench/load.rs", "cli/bench/floor.rs"],
        "the event loop is the only place that waits",
    ),
    ("Effect::", &["apply.rs"], "apply.rs is the only place that turns an effect into an act"),
    ("worker_host::", &["cli/bench/parts.rs"], "the supervisor knows a worker's side by the protocol alone"),
    ("spawner::spawn(", &["apply.rs"], "a process is started where the core commands it"),
];

/// The rules of semantics.md: each has its test.
const RULES: &[(char, std::ops::RangeInclusive<u32>)] =
    &[('w', 1..=9), ('c', 1..=13), ('k', 1..=13), ('l', 1..=3), ('d', 1..=8), ('s', 1..=5), ('p', 1..=5)];

#[test]
fn arrows_point_one_way() {
    let own = |package: &str| -> BTreeSet<String> {
        let tree = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--edges",
                "normal",
                "--prefix",
                "none",
                "--format",
                "{p}",
                "--package",
                package,
            ])
            .current_dir(workspace())
            .output()
            .unwrap();
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        let text = String::from_utf8(tree.stdout).unwrap();
        text.lines()
            .filter_map(|line| line.split(' ').next())
            .filter(|name| *name != package)
            .map(str::to_string)
            .collect()
    };
    let ours = |package: &str| own(package).into_iter().filter(|name| name.starts_with("workhall")).collect::<Vec<_>>();
    assert_eq!(ours("workhall-protocol"), [""; 0]);
    assert_eq!(ours("workhall-core"), ["workhall-protocol"]);
    // The host for the worker of `workhall bench`, and nowhere else: see ROOMS.
    assert_eq!(ours("workhall"), ["workhall-core", "workhall-protocol", "workhall-worker-host"]);
    assert_eq!(ours("workhall-worker-host"), ["workhall-protocol"]);
    let examples = packages_in("examples");
    assert!(examples.len() >= 2, "the examples are not found");
    for example in examples {
        let strange: Vec<String> = ours(&example)
            .into_iter()
            .filter(|name| !["workhall-protocol", "workhall-worker-host"].contains(&name.as_str()))
            .collect();
        assert_eq!(strange, [""; 0], "{example}: an example knows what its readers can know");
    }
    for package in own("workhall-core") {
        assert!(
            !["nix", "rustix", "interprocess", "libc", "bincode", "serde_json"].contains(&package.as_str()),
            "the core knows {package}"
        );
    }
    let core = fs::read_to_string(workspace().join("supervisor/core/src/lib.rs")).unwrap();
    assert!(core.contains("#![no_std]"));
}

#[test]
fn nothing_forbidden_is_written() {
    for file in sources() {
        let name = relative(&file);
        if name.ends_with("tests/tidy.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for (word, allowed, instead) in FORBIDDEN {
                let fine = allowed.iter().any(|part| name.contains(part));
                assert!(fine || !has_word(line, word), "{name}:{}: `{word}`: {instead}", number + 1);
            }
        }
    }
}

#[test]
fn the_daemon_keeps_to_its_rooms() {
    for file in sources() {
        let name = relative(&file);
        let Some(inside) = name.strip_prefix("supervisor/src/") else { continue };
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in code(&text).into_iter().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for (word, rooms, why) in ROOMS {
                let fine = rooms.iter().any(|room| inside.starts_with(room));
                assert!(fine || !has_word(line, word), "{name}:{number}: `{word}`: {why}");
            }
        }
    }
}

#[test]
fn a_peer_cannot_cause_a_panic_by_an_unwrap() {
    for file in sources() {
        let name = relative(&file);
        // recorded.rs is a module of tests.
        if name.starts_with("tests/") || name.ends_with("recorded.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in code(&text).into_iter().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            assert!(!line.contains(".unwrap()"), "{name}:{number}: say with `expect` why it holds");
        }
    }
}

#[test]
fn files_are_short() {
    for file in sources() {
        let name = relative(&file);
        let lines = code(&fs::read_to_string(&file).unwrap()).len();
        let excused = LONG_FILES.iter().any(|(prefix, _)| name.starts_with(prefix));
        assert!(excused || lines <= LINES_MAX, "{name} has {lines} lines without its tests: split it");
    }
}

#[test]
fn no_file_is_dead() {
    let all = sources();
    for file in &all {
        let stem = file.file_stem().unwrap().to_str().unwrap();
        let dir = file.parent().unwrap();
        let is_root = ["main", "lib", "mod"].contains(&stem)
            || dir.ends_with("bin")
            || dir.ends_with("tests/tests")
            || dir.ends_with("fuzz_targets")
            || dir.ends_with("benches")
            || dir.ends_with("examples");
        if is_root {
            continue;
        }
        let declared = format!("mod {stem};");
        let mut parents = all.iter().filter(|other| other.parent() == Some(dir) || other.with_extension("") == dir);
        assert!(
            parents.any(|parent| fs::read_to_string(parent).unwrap().contains(&declared)),
            "{} is in no module",
            relative(file)
        );
    }
}

#[test]
fn every_rule_has_a_test_with_its_number() {
    let mut names = String::new();
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        for line in text.lines().filter(|line| line.trim_start().starts_with("fn ")) {
            names.push_str(line.trim_start());
            names.push('\n');
        }
    }
    let missing: Vec<String> = RULES
        .iter()
        .flat_map(|(letter, numbers)| numbers.clone().map(move |number| format!("{letter}{number:02}_")))
        .filter(|rule| !names.contains(&format!("fn {rule}")))
        .collect();
    assert!(missing.is_empty(), "rules without a test: {missing:?}");
}

#[test]
fn ci_calls_the_test_command_of_the_readme() {
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let ci = fs::read_to_string(workspace().join(".ci/run")).unwrap();
    assert!(readme.contains("cargo test --workspace") && ci.contains("cargo test --workspace"));
    assert!(readme.contains("sh examples/demo") && ci.contains("sh examples/demo"));
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "protocol/PROTOCOL.md",
        "worker-host/node/README.md",
        "worker-host/bash/README.md",
        "tests/PERFORMANCE.md",
        "tests/fuzz/README.md",
        "packaging/OPERATING.md",
        "worker-host/c/README.md",
    ] {
        let path = workspace().join(document);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{document}: {error}"));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                assert!(path.parent().unwrap().join(target).exists(), "{document} links to {link}");
            }
        }
    }
}

/// Whether `word` stands in a line, and not as the end of a longer one (`unix::` holds `nix::`).
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// The lines of a file that are not for tests alone, with their numbers: each item behind a `#[cfg(test)]` is
/// left out, wherever it stands. An item ends, as rustfmt writes it, with the first line at its own depth that
/// closes a brace or has a semicolon at its end.
fn code(text: &str) -> Vec<(usize, &str)> {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let mut kept = Vec::new();
    let mut left_out = None;
    for (at, line) in text.lines().enumerate() {
        match left_out {
            None if line.trim_start().starts_with("#[cfg(test)]") => left_out = Some(depth(line)),
            None => kept.push((at + 1, line)),
            Some(outside) if depth(line) == outside && !line.trim().is_empty() => {
                let first = line.trim_start();
                if first.starts_with('}') || !first.starts_with("#[") && line.ends_with([';', '}', ',']) {
                    left_out = None;
                }
            }
            Some(_) => {}
        }
    }
    kept
}

#[test]
fn what_is_for_tests_alone_is_told_from_what_is_not() {
    let text = "\
fn a() {}
#[cfg(test)]
use std::fs;
fn b() {}
#[cfg(test)]
#[derive(Debug)]
struct Only {
    field: u8,
}
impl B {
    #[cfg(test)]
    fn seen(&self) -> bool {
        true
    }
    #[cfg(test)]
    fn short(&self) {}
    fn c(&self) {
        unseen();
    }
}
#[cfg(test)]
mod tests {
    fn d() {}
}
fn e() {}
";
    let kept: Vec<String> = code(text).iter().map(|(number, line)| format!("{number} {}", line.trim())).collect();
    let expected = [
        "1 fn a() {}",
        "4 fn b() {}",
        "10 impl B {",
        "17 fn c(&self) {",
        "18 unseen();",
        "19 }",
        "20 }",
        "25 fn e() {}",
    ];
    assert_eq!(kept, expected);
}

/// The names of the packages below a directory.
fn packages_in(dir: &str) -> Vec<String> {
    let manifests = fs::read_dir(workspace().join(dir)).unwrap().flatten().map(|entry| entry.path().join("Cargo.toml"));
    let texts = manifests.filter_map(|manifest| fs::read_to_string(manifest).ok());
    texts
        .filter_map(|text| {
            let name = text.lines().find_map(|line| line.strip_prefix("name = "))?;
            Some(name.trim_matches('"').to_string())
        })
        .collect()
}

/// All Rust files of the project.
fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for room in ["protocol", "supervisor", "worker-host", "tests", "examples"] {
        collect(&workspace().join(room), &mut files);
    }
    assert!(files.len() > 30, "the sources are not found");
    files
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn relative(path: &Path) -> String {
    path.strip_prefix(workspace()).unwrap().to_str().unwrap().to_string()
}
