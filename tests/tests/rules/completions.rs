//! Completions in the shells themselves, with the names of workers; and the manual pages.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use workhall_tests::harness::{ANY_NAME, Output, Supervisor, bin_dir, output, text};

/// Runs a script in a shell that finds `workhall`; says so if there is none.
fn shell(supervisor: &Supervisor, program: &str, args: &[&str]) -> Option<Output> {
    let path = format!("{}:{}", bin_dir().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(program);
    command.args(args).env("PATH", path).env("WORKHALL_SOCKET", supervisor.socket()).env("HOME", supervisor.path(""));
    match command.output() {
        Ok(_) => Some(output(&mut command).ok()),
        Err(_) => {
            println!("skipped: there is no {program} (Debian package {program})");
            None
        }
    }
}

/// With workers whose names say what could go wrong.
fn supervisor() -> Supervisor {
    let supervisor = Supervisor::with_config(ANY_NAME);
    for name in ["counter/eu", "counter/us", "co lour's", "other", "x:y@z"] {
        supervisor.call(&[name, "count"]);
    }
    for name in ["bash", "zsh", "fish"] {
        supervisor.file(name, &supervisor.cli(&["completions", name]).ok().out);
    }
    supervisor
}

/// What bash offers for a line, as it calls a completion function.
const BASH: &str = r#"
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
function=$(complete -p workhall | sed 's/.*-F \([^ ]*\).*/\1/')
"$function" workhall "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;

#[test]
fn bash_completes_names_of_workers_where_a_worker_is_named() {
    let supervisor = supervisor();
    let script = supervisor.path("bash");
    let offered = |words: &[&str]| -> Option<Vec<String>> {
        let out = shell(&supervisor, "bash", &[&["-c", BASH, "bash", text(&script), "workhall"], words].concat())?.out;
        Some(out.lines().filter(|line| !line.is_empty()).map(str::to_string).collect())
    };
    let Some(names) = offered(&["call", "--wait", "counter"]) else { return };
    assert_eq!(names, ["counter/eu", "counter/us"]);
    assert_eq!(offered(&["kill", "other", "co"]).unwrap(), [r"co\ lour\'s", "counter/eu", "counter/us"]);
    assert_eq!(offered(&["dead", "list", "ot"]).unwrap(), ["other"]);
    // Elsewhere it is as it was: commands, options.
    assert_eq!(offered(&["dea"]).unwrap(), ["dead"]);
    assert_eq!(offered(&["call", "--wa"]).unwrap(), ["--wait"]);
    assert!(!offered(&["comp"]).unwrap().iter().any(|word| word.contains("workers")));
    // Bash breaks words at these characters, and puts what is offered behind the last of them.
    for (words, rest) in [
        (&["info", "x", ":"][..], "y@z"),
        (&["info", "x", ":", "y"], "y@z"),
        (&["kill", "other", "x", ":", "y", "@"], "z"),
        (&["dead", "drop", "--worker", "x", ":", "y", "@", "z"], "z"),
        (&["info", "x"], "x:y@z"),
    ] {
        assert_eq!(offered(words).unwrap(), [rest], "{words:?}");
    }
    // An option is offered to who has begun one. Files come from bash itself, where nothing is.
    for words in [&["check", ""][..], &["man", ""], &["dead", "show", ""], &["info", "none"], &["info", "none", ":"]] {
        assert_eq!(offered(words).unwrap(), [""; 0], "{words:?}");
    }
    assert_eq!(offered(&["dead", ""]).unwrap(), ["list", "show", "requeue", "drop", "help"]);
    assert!(offered(&["check", "-"]).unwrap().contains(&"--json".to_string()));
}

#[test]
fn fish_completes_names_of_workers() {
    let supervisor = supervisor();
    let offered = |line: &str| {
        let script = format!("source {}; complete -C '{line}'", supervisor.path("fish").display());
        shell(&supervisor, "fish", &["-c", &script])
    };
    let Some(names) = offered("workhall info counter") else { return };
    assert_eq!(names.out.lines().collect::<Vec<_>>(), ["counter/eu", "counter/us"]);
    assert!(!offered("workhall status ").unwrap().out.contains("counter"));
    for command in ["requeue", "drop"] {
        let names = offered(&format!("workhall dead {command} --worker counter")).unwrap();
        // What the option is for stands behind each.
        let names: Vec<&str> = names.out.lines().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(names, ["counter/eu", "counter/us"], "{command}");
    }
    assert_eq!(offered("workhall info x:").unwrap().out, "x:y@z\n");
    for command in ["check", "man"] {
        let files = offered(&format!("workhall {command} {}/fis", supervisor.path("").display())).unwrap();
        assert!(files.out.contains("/fish"), "{command}: {files:?}");
    }
    for line in ["workhall dead show ", "workhall kill a --within "] {
        assert_eq!(offered(line).unwrap().out, "", "{line}");
    }
    assert!(offered("workhall dea").unwrap().out.starts_with("dead\t"));
}

#[test]
fn zsh_completes_names_of_workers() {
    let supervisor = supervisor();
    // The completion system, as far as the function speaks to it.
    let script = "compdef() { }; compadd() { print -l -- ${@[2,-1]} }; source $0; PREFIX=co; _workhall_workers";
    let Some(names) = shell(&supervisor, "zsh", &["-f", "-c", script, text(&supervisor.path("zsh"))]) else { return };
    assert_eq!(names.out.lines().collect::<Vec<_>>(), ["co lour's", "counter/eu", "counter/us"]);
}

#[test]
fn who_completes_is_never_held_up_and_never_told_of_an_error() {
    let mut supervisor = supervisor();
    let complete = ["complete-workers", "--", "call", "counter"];
    assert_eq!(supervisor.cli(&complete).ok().out, "counter/eu\ncounter/us\n");
    supervisor.stop_with_full_backlog();
    let output = supervisor.cli(&complete).ok();
    assert_eq!((&*output.out, &*output.err), ("", ""));
    supervisor.signal(Signal::SIGCONT);
    supervisor.signal(Signal::SIGTERM);
    supervisor.ended();
    let output = supervisor.cli(&complete).ok();
    assert_eq!((&*output.out, &*output.err), ("", ""));
}

#[test]
fn each_command_has_a_manual_page() {
    let supervisor = Supervisor::start();
    let dir = supervisor.path("man/man1");
    supervisor.cli(&["man", text(&dir)]).ok();
    let page = |name: &str| fs::read_to_string(dir.join(format!("{name}.1"))).unwrap_or_else(|e| panic!("{name}: {e}"));
    let help = supervisor.cli(&["--help"]).ok().out;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What is long goes on further to the right.
    let commands = commands.filter(|line| !line.starts_with("   "));
    let commands: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.contains(&"serve") && commands.contains(&"man"), "{commands:?}");
    let whole = page("workhall");
    assert!(whole.contains(".SH EXIT STATUS") && whole.contains(".SH FILES"));
    for command in commands.into_iter().filter(|command| *command != "help") {
        let page = page(&format!("workhall-{command}"));
        assert!(page.contains(".SH EXAMPLES\n.nf\n") && !page.contains(".SH EXTRA"), "{page}");
        assert!(whole.contains(&format!("workhall\\-{command}(1)")), "{whole}");
    }
    assert!(page("workhall-dead-list").contains("in the order in which they died"));
    let file = supervisor.file("no-directory", "");
    supervisor.cli(&["man", text(&file.join("x"))]).fails(1, &["cannot make the directory", text(&file)]);
    assert!(!Path::new(&dir.join("workhall-help.1")).exists());
}
