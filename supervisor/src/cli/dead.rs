//! `workhall dead`: messages that no process will execute any more.

use std::path::PathBuf;
use std::time::Duration;

use comfy_table::{Cell, CellAlignment};
use serde_json::{Value, json};
use workhall_protocol::client::WhichLetters;
use workhall_protocol::messages::{Letter, ReceiptBody, Refused, Requeued};
use workhall_protocol::terms::{DeadReason, Exit};

use super::connect::{Connection, connect, refused};
use super::output::{age, bytes, count, counted, print_line, print_table, printed, ran, safe, table, word};
use super::show::read;
use super::{ExitCode, Failure, WorkerArgument, parse_duration};
use crate::diagnostics::say;
use crate::report::{DeadReport, DeadRow};

pub const EXAMPLES: &str = "Examples:
  workhall dead list                          all that are kept, in the order in which they died
  workhall dead list ledger/eu -n 20          the last twenty of one worker
  workhall dead show 12                       one, with its arguments and how it died
  workhall dead requeue 12                    post it again, as a new message
  workhall dead requeue --worker ledger/eu    post all of one worker again, in the order in which they died
  workhall dead drop --all                    forget them";

/// The arguments of `workhall dead`.
#[derive(Debug, clap::Args)]
pub struct Dead {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List them, in the order in which they died
    #[command(after_help = "Examples:\n  workhall dead list\n  workhall dead list ledger/eu -n 20")]
    List(List),
    /// Show all about one
    #[command(after_help = "Example:\n  workhall dead show 12")]
    Show(Show),
    /// Post them again, each as a new message to the worker of the same name
    #[command(after_help = "Examples:\n  workhall dead requeue 12 13\n  workhall dead requeue --worker ledger/eu")]
    Requeue(Requeue),
    /// Forget them
    #[command(after_help = "Examples:\n  workhall dead drop 12\n  workhall dead drop --all")]
    Drop(Drop),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only those for the workers of this name
    worker: Option<String>,
    /// Only so many: those that died last
    #[arg(short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    last: Option<u64>,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    /// Give up after this long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The message, as `dead list` numbers it
    message: u64,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    /// Give up after this long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["messages", "worker", "all"])))]
struct Which {
    /// The messages, as `dead list` numbers them; they are taken in this order
    #[arg(value_name = "MESSAGE")]
    messages: Vec<u64>,
    /// All that were for the workers of this name
    #[arg(long, value_name = "NAME")]
    worker: Option<String>,
    /// All there are
    #[arg(long)]
    all: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    /// Give up after this long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

#[derive(Debug, clap::Args)]
struct Requeue {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
struct Drop {
    #[command(flatten)]
    which: Which,
}

impl Dead {
    /// Does what its subcommand says.
    pub fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        match self.command {
            Command::List(command) => command.run(socket),
            Command::Show(command) => command.run(socket),
            Command::Requeue(command) => command.run(socket),
            Command::Drop(command) => command.run(socket),
        }
    }
}

impl List {
    fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        check_name(self.worker.as_deref())?;
        let (report, letters) = self.pages(&mut connect(socket, self.timeout)?)?;
        let unseen = report.matching.min(self.last.unwrap_or(u64::MAX)).saturating_sub(letters.len() as u64);
        if unseen > 0 && report.letters.first().is_some_and(|row| row.at.is_none()) {
            say(format_args!(
                "{} that died before these are not shown: this supervisor is an earlier one",
                count(unseen)
            ));
        }
        if self.json {
            return printed(print_line(Value::Array(letters)));
        }
        let letters: Vec<DeadRow> = read(Value::Array(letters))?;
        let mut table = table(&["MESSAGE", "WORKER", "NUMBER", "GEN", "METHOD", "BYTES", "REASON", "RAN", "DIED"]);
        for at in [0, 3, 5] {
            if let Some(column) = table.column_mut(at) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for row in &letters {
            table.add_row([
                Cell::new(row.message),
                Cell::new(safe(&row.worker)),
                Cell::new(format!("%{}", row.number)),
                Cell::new(row.generation),
                Cell::new(safe(&row.method)),
                Cell::new(count(row.bytes)),
                Cell::new(reason(row.reason, row.exit)),
                Cell::new(if row.may_have_run { "maybe" } else { "no" }),
                Cell::new(format!("{} ago", age(row.died_ago_ms))),
            ]);
        }
        printed(print_table(&table))?;
        if report.dropped > 0 {
            say(format_args!(
                "{} dropped, because at most {} and {} are kept (`dead_letters` in [supervisor])",
                counted(report.dropped, "older one was", "older ones were"),
                counted(report.messages_max, "letter", "letters"),
                bytes(report.bytes_max)
            ));
        }
        Ok(ExitCode::Done)
    }
}

impl List {
    /// All rows, or the last so many, in the order in which they died; asked for from the last on, a page after the other.
    /// With the report that came first.
    fn pages(&self, connection: &mut Connection) -> Result<(DeadReport, Vec<Value>), Failure> {
        let (mut first, mut pages, mut rows, mut before) = (None, Vec::new(), 0, None);
        loop {
            let left = self.last.map(|last| last - rows);
            let page = connection.report(|client| client.dead_page(self.worker.as_deref(), before, left))?;
            let mut page = page.unwrap_or_default();
            let report: DeadReport = read(page.clone())?;
            let letters = match page["letters"].take() {
                Value::Array(letters) => letters,
                _ => Vec::new(),
            };
            rows += letters.len() as u64;
            // One of an earlier supervisor has no place: it would give the same page again.
            before = report.letters.first().and_then(|row| row.at);
            let all = report.matching.min(self.last.unwrap_or(u64::MAX));
            pages.push(letters);
            let first = &*first.get_or_insert(report);
            if before.is_none() || rows >= all {
                let letters = pages.into_iter().rev().flatten().collect();
                return Ok((first.clone(), letters));
            }
        }
    }
}

impl Show {
    fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let letter = match connect(socket, self.timeout)?.ask(|client| client.dead_show(self.message))? {
            ReceiptBody::Letter(letter) => letter,
            ReceiptBody::Ignored { .. } => return Err(unknown(self.message)),
            other => return Err(unexpected(&other)),
        };
        if self.json {
            return printed(print_line(serde_json::to_value(&letter).map_err(anyhow::Error::from)?));
        }
        printed(lines(&letter)?.iter().try_for_each(|(key, value)| print_line(format_args!("{key:<12}{value}"))))
    }
}

impl Requeue {
    fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let mut connection = connect(socket, self.which.timeout)?;
        let mut sum = Requeued::default();
        let mut missing = Vec::new();
        let which = self.which.selection()?;
        for (at, which) in which.iter().enumerate() {
            match connection.ask(|client| client.requeue(*which))? {
                ReceiptBody::Requeued(Requeued { messages, left, refused }) => {
                    sum = Requeued { messages: sum.messages + messages, left: sum.left + left, refused };
                }
                ReceiptBody::Ignored { .. } => missing.push(*which),
                other => return Err(unexpected(&other)),
            }
            // What stands behind it must not overtake it.
            if sum.left > 0 {
                sum.left += (self.which.messages.len().max(1) - at - 1) as u64;
                break;
            }
        }
        if self.which.json {
            printed(print_line(json!({ "requeued": serde_json::to_value(&sum).map_err(anyhow::Error::from)? })))?;
        }
        let posted = format!("{} posted again", count(sum.messages));
        if sum.left > 0 {
            let why = match &sum.refused {
                Some(Refused { reason, detail }) => format!("{}: {}", word(reason)?, safe(detail)),
                None => "the next one was ignored".to_string(),
            };
            let message = format!("refused: {why}; {posted}, {} left", count(sum.left));
            return Err(Failure::new(ExitCode::Refused, message));
        }
        self.which.end(&missing, &posted)
    }
}

impl Drop {
    fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let mut connection = connect(socket, self.which.timeout)?;
        let mut dropped = 0;
        let mut missing = Vec::new();
        for which in self.which.selection()? {
            match connection.ask(|client| client.dead_drop(which))? {
                ReceiptBody::Dropped { messages } => dropped += messages,
                ReceiptBody::Ignored { .. } => missing.push(which),
                other => return Err(unexpected(&other)),
            }
        }
        if self.which.json {
            printed(print_line(json!({ "dropped": { "messages": dropped } })))?;
        }
        self.which.end(&missing, &format!("{} dropped", count(dropped)))
    }
}

impl Which {
    fn selection(&self) -> Result<Vec<WhichLetters<'_>>, Failure> {
        check_name(self.worker.as_deref())?;
        Ok(match (&self.worker, self.all) {
            (Some(worker), _) => vec![WhichLetters::Worker(worker)],
            (None, true) => vec![WhichLetters::All],
            (None, false) => self.messages.iter().map(|message| WhichLetters::Message(*message)).collect(),
        })
    }

    /// Says what was done, or which of them there are not.
    fn end(&self, missing: &[WhichLetters<'_>], done: &str) -> Result<ExitCode, Failure> {
        let missing: Vec<String> = missing
            .iter()
            .filter_map(|which| match which {
                WhichLetters::Message(message) => Some(message.to_string()),
                WhichLetters::Worker(_) | WhichLetters::All => None,
            })
            .collect();
        if !missing.is_empty() {
            let message = format!("there is no dead letter {}; {done}", missing.join(", "));
            return Err(Failure::new(ExitCode::Failed, message));
        }
        if !self.json {
            printed(print_line(done))?;
        }
        Ok(ExitCode::Done)
    }
}

fn check_name(name: Option<&str>) -> Result<(), Failure> {
    // Letters are kept by name: a worker's number ends with it.
    match name {
        Some(number) if number.starts_with('%') && number[1..].parse::<u64>().is_ok() => {
            Err(Failure::usage(format!("dead letters are kept by the worker's name, and {number} is a number")))
        }
        Some(name) => WorkerArgument::Name(name.to_string()).check(),
        None => Ok(()),
    }
}

fn unknown(message: u64) -> Failure {
    Failure::new(
        ExitCode::Failed,
        format!("there is no dead letter {message}: `workhall dead list` shows those there are"),
    )
}

pub(super) fn unexpected(answer: &ReceiptBody<'_>) -> Failure {
    if let ReceiptBody::Refused { reason, detail } = answer {
        return refused(*reason, detail);
    }
    Failure::new(ExitCode::Failed, format!("unexpected answer: {answer:?}"))
}

pub(super) fn reason(reason: DeadReason, exit: Option<Exit>) -> String {
    let word = word(reason).unwrap_or_default().replace('_', " ");
    exit.map_or_else(|| word.clone(), |exit| format!("{word}, {exit}"))
}

fn lines(letter: &Letter<'_>) -> Result<Vec<(&'static str, String)>, Failure> {
    let args = match letter.args.to_json() {
        Ok(args) => args.to_string(),
        Err(error) => format!("cannot be shown: {error}"),
    };
    let from = letter.from.as_ref().map(|from| format!("{} (%{})", safe(&from.worker), from.number));
    Ok(vec![
        ("message", letter.message.to_string()),
        ("worker", format!("{} (%{}), generation {}", safe(&letter.worker), letter.number, letter.generation)),
        ("method", safe(&letter.method)),
        ("args", args),
        ("from", from.unwrap_or_else(|| "a client".to_string())),
        ("reason", format!("{}: {}", reason(letter.reason, letter.exit), ran(letter.may_have_run))),
        ("accepted", format!("{} ago", age(letter.accepted_ago_ms))),
        ("died", format!("{} ago", age(letter.died_ago_ms))),
    ])
}
