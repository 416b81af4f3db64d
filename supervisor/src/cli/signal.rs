//! `workhall signal` and `cancel` (rules S1–S5).

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use workhall_protocol::args::Payload;
use workhall_protocol::ids::SignalId;
use workhall_protocol::messages::{OutcomeBody, ReceiptBody};
use workhall_protocol::terms::Ignored;

use super::connect::{connect, refused};
use super::dead::unexpected;
use super::outcome::not_done;
use super::output::{Out, age, print_line, printed, safe};
use super::{ExitCode, Failure, parse_duration};

pub const EXAMPLES: &str = "Examples:
  workhall signal new --description 'the book is counted'
  workhall call pages count book.txt '{\"$signal\":\"00112233445566778899aabbccddeeff\"}'
  workhall signal wait 00112233445566778899aabbccddeeff --timeout 30s

A signal is triggered once, and wakes all who wait. If the message that carries it ends without triggering it, who waits
learns that: the exit status is that of `call --wait`.";

pub const CANCEL_EXAMPLES: &str = "Examples:
  workhall call counter add 5 --json          shows the number of the message
  workhall cancel 12                          it is discarded, if it is not executed yet

Nothing is interrupted: of a message that a process has, the process is told, and its method may look.";

/// How long a signal made on the command line is kept, unless somebody says otherwise.
const KEEP_DEFAULT: &str = "1h";

/// The arguments of `workhall signal`.
#[derive(Debug, clap::Args)]
pub struct SignalCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a signal, and print its id
    #[command(after_help = "Example:\n  workhall signal new --description 'the book is counted' --keep 10m")]
    New(New),
    /// Write a value of a signal, before it is triggered
    #[command(after_help = "Example:\n  workhall signal set 00112233445566778899aabbccddeeff pages 312")]
    Set(Set),
    /// Trigger a signal: all who wait go on
    #[command(after_help = "Example:\n  workhall signal trigger 00112233445566778899aabbccddeeff")]
    Trigger(One),
    /// Wait for a signal, and print its values as a JSON object
    #[command(after_help = "Example:\n  workhall signal wait 00112233445566778899aabbccddeeff --timeout 30s")]
    Wait(Wait),
    /// Show a signal
    #[command(after_help = "Example:\n  workhall signal show 00112233445566778899aabbccddeeff")]
    Show(One),
}

#[derive(Debug, clap::Args)]
struct New {
    /// What it is for, for people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// It is kept at least this long; then as long as a message carries it, or a process that has executed one lives
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = KEEP_DEFAULT)]
    keep: Duration,
    /// Print the answer as a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Set {
    /// The signal's id
    #[arg(value_parser = parse_id)]
    signal: SignalId,
    /// Which value
    key: String,
    /// The value: JSON if it parses as JSON, else a string
    #[arg(allow_negative_numbers = true)]
    value: String,
    /// Print the answer as a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct One {
    /// The signal's id
    #[arg(value_parser = parse_id)]
    signal: SignalId,
    /// Print the answer as a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Wait {
    /// The signal's id
    #[arg(value_parser = parse_id)]
    signal: SignalId,
    /// Give up after this long; 0s only looks
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Print the outcome as a JSON object
    #[arg(long)]
    json: bool,
}

/// The arguments of `workhall cancel`.
#[derive(Debug, clap::Args)]
pub struct Cancel {
    /// The number of the message
    message: u64,
    /// Print the answer as a JSON object
    #[arg(long)]
    json: bool,
}

impl SignalCommand {
    /// Does what its subcommand says.
    pub fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        match self.command {
            Command::New(new) => new.run(socket),
            Command::Set(set) => set.run(socket),
            Command::Trigger(one) => trigger(&one, socket),
            Command::Wait(wait) => wait.run(socket),
            Command::Show(one) => show(&one, socket),
        }
    }
}

impl New {
    fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let (description, keep) = (self.description.as_deref(), Some(self.keep));
        let receipt = connect(socket, None)?.ask(|client| client.new_signal(description, keep))?;
        match &receipt {
            ReceiptBody::Signal { .. } if self.json => print(&receipt),
            ReceiptBody::Signal { id } => printed(print_line(id)),
            ReceiptBody::Refused { reason, detail } => Err(refused(*reason, detail)),
            other => Err(unexpected(other)),
        }
    }
}

impl Set {
    fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let value: Value = serde_json::from_str(&self.value).unwrap_or_else(|_| json!(self.value));
        let value =
            Payload::from_json(&value).map_err(|error| Failure::usage(format!("not usable as a value: {error}")))?;
        let receipt = connect(socket, None)?.ask(|client| client.set_signal(self.signal, &self.key, value))?;
        end(self.signal, &receipt, self.json)
    }
}

fn trigger(one: &One, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let receipt = connect(socket, None)?.ask(|client| client.trigger_signal(one.signal))?;
    end(one.signal, &receipt, one.json)
}

fn show(one: &One, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let Some(report) = connect(socket, None)?.report(|client| client.signal(one.signal))? else {
        return Err(no_signal(one.signal));
    };
    let mut out = Out::default();
    if one.json {
        out.line(report);
        return out.end(Ok(ExitCode::Done));
    }
    let text = |key: &str| report[key].as_str().map(safe);
    out.line(format_args!("signal       {}", one.signal));
    out.line(format_args!("for          {}", text("description").unwrap_or_else(|| "-".to_string())));
    out.line(format_args!("triggered    {}", if report["triggered"] == true { "yes" } else { "no" }));
    out.line(format_args!("age          {}", age(report["age_ms"].as_u64().unwrap_or_default())));
    out.line(format_args!("waiters      {}", report["waiters"]));
    for (key, value) in report["values"].as_object().into_iter().flatten() {
        out.line(format_args!("value        {} = {value}", safe(key)));
    }
    out.end(Ok(ExitCode::Done))
}

impl Wait {
    fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        // The supervisor counts the time: what it says at its end is the answer.
        let mut connection = connect(socket, None)?;
        let ticket = connection.ask(|client| client.wait_for_signal(self.signal, self.timeout))?;
        match connection.receipt(ticket)? {
            ReceiptBody::Waiting {} => {}
            ReceiptBody::Ignored { .. } => return Err(no_signal(self.signal)),
            ReceiptBody::Refused { reason, detail } => return Err(refused(reason, &detail)),
            other => return Err(unexpected(&other)),
        }
        let outcome = connection.ask(|client| client.outcome(ticket))?;
        let mut out = Out::default();
        if self.json {
            out.line(serde_json::to_value(&outcome).map_err(anyhow::Error::from)?);
        }
        let result = match &outcome {
            OutcomeBody::Triggered { values } => {
                if !self.json {
                    out.line(values.to_json().map_err(anyhow::Error::from)?);
                }
                Ok(ExitCode::Done)
            }
            OutcomeBody::TimedOut {} => {
                Err(Failure::new(ExitCode::TimedOut, "the time ran out before the signal was triggered"))
            }
            OutcomeBody::Lost {} => Err(Failure::new(
                ExitCode::NotExecuted,
                "the signal was not triggered, and nobody is left who was to trigger it",
            )),
            other => Err(not_done(&"the message that was to trigger the signal", other)),
        };
        out.end(result)
    }
}

impl Cancel {
    /// Says that a message is not wanted any more.
    pub fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let receipt = connect(socket, None)?.ask(|client| client.cancel(self.message))?;
        if self.json {
            print(&receipt)?;
        }
        match &receipt {
            ReceiptBody::Cancelled { .. } if self.json => Ok(ExitCode::Done),
            ReceiptBody::Cancelled { running: false } => Ok(ExitCode::Done),
            ReceiptBody::Cancelled { running: true } => {
                printed(print_line("a process has it and was told; it is not interrupted"))
            }
            ReceiptBody::Ignored { .. } => Err(Failure::new(
                ExitCode::Failed,
                format!("no message {} waits or is executed, so nothing to cancel", self.message),
            )),
            ReceiptBody::Refused { reason, detail } => Err(refused(*reason, detail)),
            other => Err(unexpected(other)),
        }
    }
}

fn end(id: SignalId, receipt: &ReceiptBody<'_>, json: bool) -> Result<ExitCode, Failure> {
    if json {
        print(receipt)?;
    }
    match receipt {
        ReceiptBody::Signalled { .. } => Ok(ExitCode::Done),
        ReceiptBody::Ignored { reason: Ignored::AlreadyTriggered } => Err(Failure::new(
            ExitCode::Failed,
            format!("signal {id} was triggered already: its values do not change any more"),
        )),
        ReceiptBody::Ignored { .. } => Err(no_signal(id)),
        ReceiptBody::Refused { reason, detail } => Err(refused(*reason, detail)),
        other => Err(unexpected(other)),
    }
}

fn print(receipt: &ReceiptBody<'_>) -> Result<ExitCode, Failure> {
    printed(print_line(serde_json::to_value(receipt).map_err(anyhow::Error::from)?))
}

fn no_signal(id: SignalId) -> Failure {
    let message = format!(
        "there is no signal {id}: its time is over (`--keep` of `signal new`), and nothing that was to trigger it is left"
    );
    Failure::new(ExitCode::Failed, message)
}

fn parse_id(text: &str) -> Result<SignalId, String> {
    SignalId::parse(text)
        .ok_or_else(|| "an id has 32 hexadecimal digits, as `workhall signal new` prints it".to_string())
}
