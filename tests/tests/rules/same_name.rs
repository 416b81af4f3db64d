//! A class of the file and a program of the workers directory that have the same name.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use workhall_tests::harness::{Supervisor, bin_dir};

/// A supervisor with the class `thumb` for `thumb-*`, and the program `thumb` in its workers directory. Both
/// speak the protocol, and say which of the two they are.
fn both() -> Supervisor {
    let supervisor = Supervisor::with_config(
        "supervisor.workers = '{dir}'
         class.thumb = { exec = ['{bin}/test-worker', '1'], names = ['thumb-*'] }
         class.b = { exec = ['{bin}/test-worker'] }",
    );
    for name in ["thumb", "b"] {
        std::os::unix::fs::symlink(bin_dir().join("test-worker"), supervisor.path(name)).unwrap();
    }
    supervisor
}

fn program(supervisor: &Supervisor, worker: &str) -> Value {
    supervisor.cli(&["info", worker, "--json"]).ok().json()["exec"].clone()
}

#[test]
fn w09_a_class_of_the_file_is_not_confused_with_a_program_of_its_name() {
    for first in ["thumb-1", "thumb"] {
        let supervisor = both();
        let refused = |name: &str| {
            let refused = supervisor.cli(&["call", name, "count", "--json"]);
            let refused = refused.fails(3, &["no_class", "does not serve it", "`thumb` for `thumb-*`", "rename"]);
            assert_eq!(refused.json()["refused"]["reason"], "no_class");
        };
        // Whichever is called first: the name outside the patterns runs neither of the two.
        if first == "thumb" {
            refused("thumb");
        }
        assert_eq!(supervisor.call(&["thumb-1", "count"]), 1);
        for name in ["thumb", "thumb/1"] {
            refused(name);
            supervisor.cli(&["info", name]).fails(1, &["there is no worker"]);
        }
        assert_eq!(program(&supervisor, "thumb-1")[1], json!("1"), "of the class");
        assert_eq!(supervisor.call(&["thumb-2", "count"]), 1);
        assert_eq!(program(&supervisor, "thumb-2")[1], json!("1"), "of the class");
    }
}

#[test]
fn w09_check_and_serve_warn_of_a_program_that_a_class_hides() {
    let mut supervisor = both();
    let warning = format!("warning: class `thumb` has the name of {}", supervisor.path("thumb").display());
    let file = supervisor.path("workhall.toml");
    let checked = supervisor.cli(&["check", file.to_str().unwrap()]).ok();
    assert!(checked.err.contains(&warning), "{checked:?}");
    // `b` is the very program of that name, with keys of its own: nothing is hidden.
    assert!(!checked.err.contains("class `b`"), "{checked:?}");
    supervisor.signal(Signal::SIGTERM);
    supervisor.ended();
    supervisor.restart();
    assert!(supervisor.log().contains(&warning), "{}", supervisor.log());
}

#[test]
fn w09_check_and_serve_warn_of_a_class_that_another_hides() {
    let supervisor = Supervisor::with_config(
        "class.m = { exec = ['{bin}/test-worker'], main = true, idle_timeout = '1h' }
         class.v = { exec = ['{bin}/test-worker', '1'], names = ['m', 'w', 'x-*'] }
         class.w = { exec = ['{bin}/test-worker'] }
         class.x = { exec = ['{bin}/test-worker'] }",
    );
    let file = supervisor.path("workhall.toml");
    let checked = supervisor.cli(&["check", file.to_str().unwrap()]).ok();
    for said in [&checked.err, &supervisor.log()] {
        let warnings: Vec<&str> = said.lines().filter(|line| line.contains("warning: ")).collect();
        assert_eq!(
            warnings,
            [
                "workhall: warning: class `m`: who may call its `main` worker `m` is said by class `v`, whose `names` have `m`",
                "workhall: warning: class `m`: `idle_timeout` does nothing to its `main` worker `m`",
                "workhall: warning: class `w` serves only what is below `w/`: the worker `w` is of class `v`, whose `names` have `w`",
            ]
        );
    }
}
