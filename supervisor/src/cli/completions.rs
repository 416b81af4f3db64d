//! `workhall completions`, and the names of workers in them: the shell asks the supervisor.
//!
//! What clap makes is fixed text. Each script is given one function more, which hands the words of the command line to
//! the hidden `workhall complete-workers`. That knows where a worker is named, by the same definition of the command
//! line by which it is parsed, and prints the names that begin as the last word does.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, Command};
use clap_complete::Shell;

use super::ExitCode;
use super::connect::{connect, environment_socket};
use super::output::Out;

/// A shell that waits for a name does not wait for longer than this.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many workers are looked at; of more names, those that were first are offered.
const NAMES_MAX: u64 = 10_000;

/// Bash breaks words at colons and at signs, which a name may have: they are put together again, and of what is offered
/// the part that stands before the last break is left out. Options are offered to who has begun one.
const BASH: &str = r#"
_workhall_or_workers() {
    _workhall "$@"
    local -a words=() names=() kept=()
    local word last joined= current=${COMP_WORDS[COMP_CWORD]}
    for word in "${COMP_WORDS[@]:1:COMP_CWORD}"; do
        if [[ $joined || $word == +([@:]) ]] && ((${#words[@]})); then words[-1]+=$word; else words+=("$word"); fi
        joined=
        [[ $word == +([@:]) ]] && joined=yes
    done
    last=${words[-1]}
    mapfile -t names < <("$1" complete-workers -- "${words[@]}" 2>/dev/null)
    if ((${#names[@]})); then
        [[ $current == +([@:]) ]] || last=${last%"$current"}
        COMPREPLY=()
        for word in "${names[@]}"; do COMPREPLY+=("$(printf %q "${word#"$last"}")"); done
    elif [[ $last != -* ]]; then
        for word in "${COMPREPLY[@]}"; do [[ $word == -* ]] || kept+=("$word"); done
        COMPREPLY=("${kept[@]}")
        [[ " ${words[*]} " == *" check "* || " ${words[*]} " == *" man "* ]] || compopt +o default +o bashdefault 2>/dev/null
    fi
}
complete -F _workhall_or_workers -o nosort -o bashdefault -o default workhall
"#;

const ZSH: &str = r#"
_workhall_workers() {
    local -a names socket
    [[ -n ${opt_args[--socket]} ]] && socket=(--socket "${(Q)opt_args[--socket]}")
    names=("${(@f)$(workhall complete-workers -- info "${socket[@]}" "${(Q)PREFIX}" 2>/dev/null)}")
    compadd -- "${(@)names:#}"
}
"#;

const FISH: &str = r#"
function __fish_workhall_workers
    set -l words (commandline -opc)
    $words[1] complete-workers -- $words[2..] (commandline -ct) 2>/dev/null
end
complete -c workhall -f -a "(__fish_workhall_workers)"
complete -c workhall -n "__fish_workhall_using_subcommand check" -F
complete -c workhall -n "__fish_workhall_using_subcommand man" -F
"#;

/// The completions of a shell.
pub fn script(shell: Shell, mut command: Command) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "workhall", &mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    match shell {
        Shell::Bash => text + BASH,
        Shell::Fish => {
            let lines = text.lines().map(|line| {
                let names_a_worker = line.contains("_using_subcommand dead;") && line.contains(" -l worker ");
                match line.ends_with(" -r") {
                    true if names_a_worker => format!("{line} -f -a \"(__fish_workhall_workers)\"\n"),
                    // A value that is no file.
                    true => format!("{line} -f\n"),
                    false => format!("{line}\n"),
                }
            });
            lines.collect::<String>() + FISH
        }
        Shell::Zsh => {
            let names_a_worker = |line: &str| {
                ["':worker -- ", "'::worker -- ", "'*::workers -- "].iter().any(|start| line.starts_with(start))
                    || line.starts_with("'--worker=") && line.contains(":NAME:")
            };
            let lines = text.lines().map(|line| match names_a_worker(line) {
                true => line.replace(":_default'", ":_workhall_workers'"),
                false => line.to_string(),
            });
            // Behind the line by which zsh knows what the file is for.
            let mut lines: Vec<String> = lines.collect();
            lines.insert(1, ZSH.to_string());
            lines.join("\n") + "\n"
        }
        _ => text,
    }
}

/// The words of the command line that a script wants to be completed, if this is one that asks. clap does not know of
/// this: its scripts would offer it.
pub fn asked(mut arguments: impl Iterator<Item = OsString>) -> Option<Vec<OsString>> {
    (arguments.nth(1)? == "complete-workers").then(|| arguments.skip_while(|word| word == "--").collect())
}

/// Prints the names of workers with which the last word may go on; none where it names no worker, or no supervisor
/// answers.
pub fn answer(mut command: Command, words: &[OsString]) -> ExitCode {
    command.build();
    let Some(wanted) = wanted(&command, words) else { return ExitCode::Done };
    let socket = wanted.socket.map(PathBuf::from).or_else(environment_socket);
    // Each read and write of it ends in time, also if the supervisor is stopped.
    let rows = connect(socket, Some(PATIENCE)).and_then(|mut it| it.workers(None, Some(NAMES_MAX))).unwrap_or_default();
    let names = rows.iter().filter_map(|row| row["name"].as_str()).filter(|name| name.starts_with(&wanted.prefix));
    let names: BTreeSet<&str> = names.collect();
    let mut out = Out::default();
    for name in names {
        out.line(name);
    }
    out.end(Ok(ExitCode::Done)).unwrap_or(ExitCode::Failed)
}

/// A worker is named by the last word.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    prefix: String,
    socket: Option<OsString>,
}

/// What is to be completed, if it is the name of a worker.
fn wanted(command: &Command, words: &[OsString]) -> Option<Wanted> {
    let (last, before) = words.split_last()?;
    let (mut command, mut socket, mut positionals, mut options) = (command, None, 0, true);
    let mut words = before.iter();
    while let Some(word) = words.next() {
        let text = word.to_str()?;
        match text.strip_prefix("--").filter(|_| options) {
            Some("") => options = false,
            Some(option) => {
                let name = option.split('=').next()?;
                let arg = long(command, name);
                if arg.is_some_and(|arg| arg.get_action().takes_values()) || name == "socket" {
                    let value = match option.split_once('=') {
                        Some((_, value)) => OsStr::new(value),
                        // The value of this option is what is being written.
                        None => match words.next() {
                            Some(value) => value,
                            None => return arg.filter(|arg| names_a_worker(arg)).and_then(|_| found(last, socket)),
                        },
                    };
                    if name == "socket" {
                        socket = Some(value.to_os_string());
                    }
                }
            }
            None if options && text.starts_with('-') => {}
            None => match command.find_subcommand(text).filter(|_| positionals == 0) {
                Some(below) => command = below,
                None => positionals += 1,
            },
        }
    }
    let mut places = command.get_positionals();
    let place = places.nth(positionals).or_else(|| {
        command.get_positionals().last().filter(|arg| arg.get_num_args().is_some_and(|count| count.max_values() > 1))
    })?;
    if options && last.as_encoded_bytes().starts_with(b"-") {
        return None;
    }
    names_a_worker(place).then(|| found(last, socket))?
}

fn found(last: &OsStr, socket: Option<OsString>) -> Option<Wanted> {
    Some(Wanted { prefix: last.to_str()?.to_string(), socket })
}

fn long<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(name))
}

/// By its name in the definition: what else is called so is the beginning of many names.
fn names_a_worker(arg: &Arg) -> bool {
    let beginning = arg.get_value_names().is_some_and(|names| names.iter().any(|name| name == "PREFIX"));
    ["worker", "workers"].contains(&arg.get_id().as_str()) && !beginning
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_named_where_the_command_line_says_so() {
        let mut command = super::super::command();
        command.build();
        let prefix = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            wanted(&command, &words).map(|wanted| wanted.prefix)
        };
        for (line, meant) in [
            ("", None),
            ("ca", None),
            ("call ", Some("")),
            ("call co", Some("co")),
            ("call counter ", None),
            ("call counter add ", None),
            ("call --wait co", Some("co")),
            ("call --timeout 5s co", Some("co")),
            ("call --timeout=5s co", Some("co")),
            ("call --timeout 5", None),
            ("call --wa", None),
            ("call -- --co", Some("--co")),
            ("kill a b c", Some("c")),
            ("kill a --within 5s b", Some("b")),
            ("info x", Some("x")),
            ("wait x", Some("x")),
            ("wait --idle x", Some("x")),
            ("pause x", Some("x")),
            ("resume x", Some("x")),
            ("logs -f x", Some("x")),
            ("events --since 1s x", Some("x")),
            ("dead list x", Some("x")),
            ("dead show 1", None),
            ("dead requeue --worker x", Some("x")),
            ("bench --worker x", None),
            ("serve ", None),
            ("status ", None),
            ("nonsense x", None),
        ] {
            assert_eq!(prefix(line).as_deref(), meant, "{line}");
        }
        for line in ["--socket /a call x", "call --socket /a x", "call --socket=/a x"] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let meant = Wanted { prefix: "x".into(), socket: Some("/a".into()) };
            assert_eq!(wanted(&command, &words), Some(meant), "{line}");
        }
    }

    #[test]
    fn each_script_asks_for_workers_wherever_one_is_named() {
        let of = |shell| script(shell, super::super::command());
        assert!(of(Shell::Bash).ends_with(BASH) && of(Shell::Fish).ends_with(FISH));
        // dead requeue, dead drop; where no option is written it is asked for everywhere.
        assert_eq!(of(Shell::Fish).matches(" -r -f -a \"(__fish_workhall_workers)\"\n").count(), 2);
        let zsh = of(Shell::Zsh);
        assert!(zsh.starts_with("#compdef workhall\n"));
        // call, kill, info, logs, events, wait, pause, resume, dead list, dead requeue, dead drop.
        assert_eq!(zsh.matches(":_workhall_workers'").count(), 11, "{zsh}");
        let args = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>().into_iter();
        assert_eq!(asked(args("workhall complete-workers -- call x")), Some(vec!["call".into(), "x".into()]));
        assert_eq!(asked(args("workhall call complete-workers")), None);
    }
}
