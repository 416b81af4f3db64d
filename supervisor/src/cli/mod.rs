//! The command line. Nothing in the daemon imports it.

mod bench;
mod call;
mod check;
mod completions;
mod connect;
mod dead;
mod kill;
mod manual;
mod outcome;
mod output;
mod pause;
mod read;
mod reload;
mod run;
mod serve;
mod show;
mod signal;
mod top;
mod upgrade;
mod wait;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand};
use workhall_protocol::ids::{WorkerName, WorkerNumber};
use workhall_protocol::messages::Address;

use crate::diagnostics::{printable, say};
use crate::exit_code::ExitCode;

const EXAMPLES: &str = "Examples:
  workhall serve --workers ./workers          the supervisor, in the foreground
  workhall call counter add 5                 post a message to the worker `counter`
  workhall call counter total --wait          wait for the result and print it
  workhall ps                                 see who is there
  workhall kill counter --wait                end it, and say how it ended";

/// Named workers with mailboxes, one operating-system process each.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    /// The supervisor's socket [default: $XDG_RUNTIME_DIR/workhall/workhall.sock, else
    /// /run/workhall/workhall.sock] [env: WORKHALL_SOCKET]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the supervisor in the foreground
    #[command(after_help = "Example:\n  workhall serve --workers ./workers")]
    Serve(serve::Serve),
    /// Post a message to a worker
    #[command(after_help = call::EXAMPLES)]
    Call(call::Call),
    /// Start a process that executes one method and ends with it
    #[command(after_help = run::EXAMPLES)]
    Run(run::Run),
    /// Kill workers: ignore what is pending, end after the current task
    #[command(after_help = kill::EXAMPLES)]
    Kill(kill::Kill),
    /// List the workers
    #[command(after_help = "Examples:\n  workhall ps\n  workhall ps --json | jq '.[] | select(.state == \"busy\")'")]
    Ps(show::Ps),
    /// Show all about one worker
    #[command(after_help = "Example:\n  workhall info counter")]
    Info(OneWorker),
    /// Show the supervisor: the ledger, limits, uptime, configuration
    #[command(after_help = "Examples:\n  workhall status\n  workhall status --json | jq .ledger")]
    Status(show::Status),
    /// Watch the workers live in the terminal, and kill, pause or resume them there
    #[command(after_help = top::EXAMPLES)]
    Top(top::Top),
    /// Show what workers wrote on stdout and stderr
    #[command(after_help = read::LOGS_EXAMPLES)]
    Logs(read::Logs),
    /// Show what happened to workers and messages
    #[command(after_help = read::EVENTS_EXAMPLES)]
    Events(read::Events),
    /// Wait until a worker is idle, gone or empty
    #[command(after_help = "Example:\n  workhall wait counter --idle --timeout 30s")]
    Wait(wait::Wait),
    /// Make signals, write their values, trigger them, wait for them
    #[command(after_help = signal::EXAMPLES)]
    Signal(signal::SignalCommand),
    /// Say that a message is not wanted any more
    #[command(after_help = signal::CANCEL_EXAMPLES)]
    Cancel(signal::Cancel),
    /// Look at dead letters, post them again, or drop them
    #[command(after_help = dead::EXAMPLES)]
    Dead(dead::Dead),
    /// Stop the process of a worker, in the middle of its task, while its mailbox goes on accepting
    #[command(after_help = pause::EXAMPLES)]
    Pause(OneWorker),
    /// Continue a worker that is paused; start one at once that waits after crashes
    #[command(after_help = "Example:\n  workhall resume ledger/eu")]
    Resume(OneWorker),
    /// Read the configuration again, all or nothing, and print what has changed
    #[command(after_help = reload::EXAMPLES)]
    Reload(reload::Reload),
    /// Have the supervisor become another program, in place: no worker, message or connection is lost
    #[command(after_help = upgrade::EXAMPLES)]
    Upgrade(upgrade::Upgrade),
    /// Say whether this program could go on with the state that is its stdin; asked by a supervisor before an upgrade
    #[command(hide = true)]
    UpgradeCheck,
    /// Measure this machine: a real supervisor and real workers, beside what the machine alone can do
    #[command(after_help = bench::EXAMPLES)]
    Bench(bench::Bench),
    /// Read a configuration as `serve` would, and say what is wrong where
    #[command(after_help = "Example:\n  workhall check /etc/workhall/workhall.toml")]
    Check(check::Check),
    /// Print the completions of a shell
    #[command(after_help = "Example:\n  workhall completions bash > /etc/bash_completion.d/workhall")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory
    #[command(after_help = "Example:\n  workhall man /usr/local/share/man/man1")]
    Man(manual::Manual),
}

/// The definition of the command line.
fn command() -> clap::Command {
    Arguments::command()
}

/// Parses the command line and does what it says.
pub fn run() -> ExitCode {
    if let Some(code) = bench::play_if_asked() {
        return code;
    }
    if let Some(words) = completions::asked(std::env::args_os()) {
        return completions::answer(command(), &words);
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _nobody_reads = error.print();
            return if error.use_stderr() { ExitCode::Usage } else { ExitCode::Done };
        }
    };
    let named = arguments.socket.clone();
    let socket = arguments.socket.or_else(connect::environment_socket);
    let result = match arguments.command {
        Command::Bench(command) => command.run(named),
        Command::Serve(command) => command.run(socket),
        Command::Call(command) => command.run(socket),
        Command::Run(command) => command.run(socket),
        Command::Kill(command) => command.run(socket),
        Command::Ps(command) => command.run(socket),
        Command::Info(asked) => show::info(asked.read(), socket),
        Command::Status(command) => command.run(socket),
        Command::Top(command) => command.run(socket),
        Command::Logs(command) => command.run(socket),
        Command::Events(command) => command.run(socket),
        Command::Wait(command) => command.run(socket),
        Command::Signal(command) => command.run(socket),
        Command::Cancel(command) => command.run(socket),
        Command::Dead(command) => command.run(socket),
        Command::Pause(asked) => pause::pause(asked.read(), socket),
        Command::Resume(asked) => pause::resume(asked.read(), socket),
        Command::Reload(command) => command.run(socket),
        Command::Upgrade(command) => command.run(socket),
        Command::UpgradeCheck => Ok(if crate::upgrade::check() { ExitCode::Done } else { ExitCode::Failed }),
        Command::Check(command) => command.run(),
        Command::Completions { shell } => {
            output::printed(std::io::stdout().write_all(completions::script(shell, command()).as_bytes()))
        }
        Command::Man(manual) => manual.run(command()),
    };
    result.unwrap_or_else(|failure| {
        // It may quote what was given on the command line, or the name of a file.
        say(printable(&failure.message));
        failure.code
    })
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub struct Failure {
    code: ExitCode,
    message: String,
}

impl Failure {
    fn new(code: ExitCode, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }

    fn usage(message: impl Into<String>) -> Failure {
        Failure::new(ExitCode::Usage, message)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::new(ExitCode::Failed, format!("{error:#}"))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::new(ExitCode::Failed, error.to_string())
    }
}

/// The arguments of the commands that are about one worker, and say or do one thing.
#[derive(Debug, clap::Args)]
struct OneWorker {
    /// The worker: a name, or %7 for number 7
    worker: WorkerArgument,
    /// WORKER is a name, also if it looks like a number
    #[arg(long)]
    name: bool,
    /// Print the answer as a JSON object
    #[arg(long)]
    json: bool,
    /// Give up after this long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

impl OneWorker {
    /// With what `--name` says of its worker.
    fn read(self) -> OneWorker {
        OneWorker { worker: self.worker.read(self.name), ..self }
    }
}

/// A worker as it is written on the command line: a name, or `%7` for number 7 (rule W4), with that text.
#[derive(Clone, Debug)]
enum WorkerArgument {
    Name(String),
    Number(WorkerNumber, String),
}

impl WorkerArgument {
    /// With `--name` it is a name, whatever it looks like: a script that has it from somebody else says so.
    fn read(self, is_name: bool) -> WorkerArgument {
        match self {
            WorkerArgument::Number(_, text) if is_name => WorkerArgument::Name(text),
            other => other,
        }
    }

    /// Refuses what is no name, where the supervisor would only say that there is no such worker.
    fn check(&self) -> Result<(), Failure> {
        match self {
            WorkerArgument::Name(name) => WorkerName::check(name)
                .map_err(|error| Failure::new(ExitCode::Refused, format!("refused: bad_name: {error}"))),
            WorkerArgument::Number(..) => Ok(()),
        }
    }

    fn address(&self) -> Address<'_> {
        match self {
            WorkerArgument::Name(name) => Address::from(name.as_str()),
            WorkerArgument::Number(number, _) => Address::from(*number),
        }
    }
}

impl std::str::FromStr for WorkerArgument {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(number) = text.strip_prefix('%').and_then(|digits| digits.parse().ok()) {
            return Ok(WorkerArgument::Number(WorkerNumber(number), text.to_string()));
        }
        // Whether it is a name is said where it is used: refused is not wrong usage (rules W2, C4).
        Ok(WorkerArgument::Name(text.to_string()))
    }
}

impl std::fmt::Display for WorkerArgument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WorkerArgument::Name(name) => f.write_str(name),
            WorkerArgument::Number(number, _) => number.fmt(f),
        }
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    crate::config::parse_duration(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All commands that people see, the whole first, each with the words before it.
    fn walk(command: &clap::Command, words: &str, all: &mut Vec<(String, clap::Command)>) {
        all.push((words.to_string(), command.clone()));
        for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help") {
            walk(below, &format!("{words} {}", below.get_name()), all);
        }
    }

    /// As a shell takes them, up to what goes to another program, and without the words for people behind it.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote, mut spaces) = (Vec::new(), None::<String>, None, 0);
        for c in line.trim_start().chars() {
            spaces = if c == ' ' && quote.is_none() { spaces + 1 } else { 0 };
            match (quote, c) {
                (None, '|' | '>' | '<') => break,
                _ if spaces == 2 => break,
                (None, ' ') => words.extend(word.take()),
                (None, '\'' | '"') => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                (Some(open), c) if c == open => quote = None,
                (_, c) => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        words
    }

    #[test]
    fn every_command_has_an_example_and_every_example_is_understood() {
        let (mut all, mut commands, mut wrong) = (0, Vec::new(), Vec::new());
        walk(&command(), "workhall", &mut commands);
        for (name, command) in commands {
            let text = command.get_after_help().map(|text| text.to_string()).unwrap_or_default();
            let examples: Vec<&str> = text.lines().filter(|line| line.starts_with("  workhall ")).collect();
            let own = |line: &&str| line.trim_start().starts_with(&name);
            if !text.starts_with("Example") || !examples.iter().any(own) {
                wrong.push(format!("{name} has no example: {text}"));
            }
            all += examples.len();
            for (example, error) in
                examples.iter().filter_map(|it| Some((it, Arguments::try_parse_from(words(it)).err()?)))
            {
                wrong.push(format!("{name}: {example}: {:?}: {error}", words(example)));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(all > 40, "{all} examples were found");
    }
}
