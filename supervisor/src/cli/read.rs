//! `workhall logs` and `workhall events`: what is kept, and with `-f` what comes.

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde_json::Value;
use workhall_protocol::client::Ticket;
use workhall_protocol::messages::ReceiptBody;

use super::connect::{Connection, connect, refused};
use super::output::{age, count, print_line, printed, ran, word};
use super::show::read;
use super::{ExitCode, Failure, WorkerArgument, parse_duration};
use crate::diagnostics::say;
use crate::journal::{EventReport, LineReport, Stream, harmless};

pub const LOGS_EXAMPLES: &str = "Examples:
  workhall logs ledger/eu                     what its processes wrote, as far as it is kept
  workhall logs ledger/eu -n 20 -f            the last twenty lines, and those that come
  workhall logs -f                            those of all workers that come
  workhall logs --json | jq -r '.[] | select(.stream == \"stderr\").text'

A line stands behind its time (UTC), its worker, that one's number and life, and where it was written. What would be a
command to a terminal is shown and not sent to it; --json has the text as it was written.";
pub const EVENTS_EXAMPLES: &str = "Examples:
  workhall events ledger/eu                   what happened to it, as far as it is kept
  workhall events --since 10m                 what happened to anyone in the last ten minutes
  workhall events -f --json | jq 'select(.event == \"dead\")'

Every change of a worker is one, and every end of a message but `done`.";

/// How many are shown of what is there before those that come.
const BEFORE_FOLLOWING: u64 = 10;

/// The arguments of `workhall logs`.
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// The worker: a name, or %7 for number 7; all if left out
    worker: Option<WorkerArgument>,
    /// WORKER is a name, also if it looks like a number
    #[arg(long, requires = "worker")]
    name: bool,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Only so many lines of what is there, the last [default: all, with -f 10]
    #[arg(short = 'n', value_name = "N")]
    last: Option<u64>,
    /// Print a JSON array, with -f one JSON object per line
    #[arg(long)]
    json: bool,
    /// Give up after this long; not with -f, which has no end
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "follow")]
    timeout: Option<Duration>,
}

/// The arguments of `workhall events`.
#[derive(Debug, clap::Args)]
pub struct Events {
    /// The worker: a name, or %7 for number 7; all if left out
    worker: Option<WorkerArgument>,
    /// WORKER is a name, also if it looks like a number
    #[arg(long, requires = "worker")]
    name: bool,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Only what is not older
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    since: Option<Duration>,
    /// Only so many of what is there, the last [default: all, with -f 10]
    #[arg(short = 'n', value_name = "N")]
    last: Option<u64>,
    /// Print a JSON array, with -f one JSON object per line
    #[arg(long)]
    json: bool,
    /// Give up after this long; not with -f, which has no end
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "follow")]
    timeout: Option<Duration>,
}

impl Logs {
    /// Shows them.
    pub fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let named = named(self.worker, self.name)?;
        let mut connection = connect(socket, self.timeout)?;
        let worker = named.as_ref().map(WorkerArgument::address);
        let last = self.last.or(self.follow.then_some(BEFORE_FOLLOWING));
        let ticket = connection.ask(|client| client.logs(worker, last, self.follow))?;
        let reader = Reader { what: "lines", key: "`logs` in [supervisor]", follow: self.follow, json: self.json };
        reader.show(named.as_ref(), connection, ticket, line)
    }
}

impl Events {
    /// Shows them.
    pub fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let named = named(self.worker, self.name)?;
        let mut connection = connect(socket, self.timeout)?;
        let worker = named.as_ref().map(WorkerArgument::address);
        let since_ms = self.since.map(|since| since.as_millis() as u64);
        let last = self.last.or((self.follow && since_ms.is_none()).then_some(BEFORE_FOLLOWING));
        let ticket = connection.ask(|client| client.events(worker, last, self.follow, since_ms))?;
        let reader = Reader { what: "events", key: "`events` in [supervisor]", follow: self.follow, json: self.json };
        reader.show(named.as_ref(), connection, ticket, event)
    }
}

/// The worker that is asked for, if one is. `is_name`: `--name`.
fn named(worker: Option<WorkerArgument>, is_name: bool) -> Result<Option<WorkerArgument>, Failure> {
    let worker = worker.map(|worker| worker.read(is_name));
    worker.as_ref().map_or(Ok(()), WorkerArgument::check)?;
    Ok(worker)
}

/// How what comes is shown.
struct Reader {
    what: &'static str,
    key: &'static str,
    follow: bool,
    json: bool,
}

impl Reader {
    fn show<T: DeserializeOwned>(
        self,
        worker: Option<&WorkerArgument>,
        mut connection: Connection,
        ticket: Ticket,
        shown: fn(T) -> Result<String, Failure>,
    ) -> Result<ExitCode, Failure> {
        if let ReceiptBody::Refused { reason, detail } = connection.receipt(ticket).map_err(not_all)? {
            return Err(refused(reason, &detail));
        }
        // One value for a list, so that it can be read as one; those that come have no end.
        let list = self.json && !self.follow;
        let mut held: Option<String> = None;
        let mut nothing = true;
        while let Some(news) = connection.ask(|client| client.news(ticket)).map_err(not_all)? {
            nothing = false;
            if news.lost > 0 {
                let (lost, Reader { what, key, .. }) = (count(news.lost), &self);
                say(format_args!("{lost} {what} before these are not kept any more ({key} says how many are)"));
            }
            let items = news.items.to_json().map_err(|error| {
                Failure::new(ExitCode::Failed, format!("what the supervisor tells cannot be read: {error}"))
            })?;
            for item in read::<Vec<Value>>(items)? {
                let text = match self.json {
                    true => escaped(&item),
                    false => shown(read(item)?)?,
                };
                let text = match (list, &held) {
                    (false, _) => Some(text),
                    (true, None) => held.replace(format!("[{text}")),
                    // Whether a comma or the end follows shows with the next one.
                    (true, Some(_)) => held.replace(text).map(|before| before + ","),
                };
                // Nobody reads any more: then nothing more is to be done.
                if let Some(Err(error)) = text.map(print_line) {
                    return printed(Err(error));
                }
            }
        }
        if let (true, Some(worker)) = (nothing, worker) {
            self.say_if_unknown(&mut connection, worker)?;
        }
        match list {
            true => printed(print_line(held.unwrap_or_else(|| "[".to_string()) + "]")),
            false => Ok(ExitCode::Done),
        }
    }

    /// Who has mistyped a name would take it for that of one who has said nothing.
    fn say_if_unknown(&self, connection: &mut Connection, worker: &WorkerArgument) -> Result<(), Failure> {
        if connection.report(|client| client.info(worker.address()))?.is_none() {
            let what = self.what;
            say(format_args!("{worker}: there is no such worker now, and no {what} of one are kept"));
        }
        Ok(())
    }
}

/// What was printed stays true.
fn not_all(failure: Failure) -> Failure {
    match failure.code {
        ExitCode::TimedOut => Failure::new(ExitCode::TimedOut, "the time ran out before all was told"),
        _ => failure,
    }
}

/// JSON of which no part is a command to a terminal: those of the control characters that JSON leaves as they are.
fn escaped(item: &Value) -> String {
    let mut text = String::new();
    for c in item.to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}' => text += &format!("\\u{:04x}", u32::from(c)),
            c => text.push(c),
        }
    }
    text
}

pub(super) fn time(at_ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at_ms)).to_string()
}

fn line(line: LineReport) -> Result<String, Failure> {
    let LineReport { at_ms, worker, number, generation, stream, cut, text, .. } = line;
    let stream = if stream == Stream::Stdout { "out" } else { "err" };
    let more = if cut { "\u{2026}" } else { "" };
    Ok(format!("{} {worker} %{number}.{generation} {stream}| {}{more}", time(at_ms), harmless(&text)))
}

fn event(event: EventReport) -> Result<String, Failure> {
    let EventReport { at_ms, worker, number, generation, .. } = &event;
    Ok(format!("{} {worker} %{number}.{generation} {}", time(*at_ms), happened(&event)?))
}

/// What happened, without when and to whom.
pub(super) fn happened(event: &EventReport) -> Result<String, Failure> {
    let what = &event.event;
    let mut text = what.replace('_', " ");
    let mut add = |part: String| {
        text += ", ";
        text += &part;
    };
    match (event.message, event.messages) {
        (Some(message), None) => add(format!("message {message}")),
        (Some(message), Some(messages)) => add(format!("{} messages from {message} on", count(messages))),
        _ => {}
    }
    if let Some(reason) = event.reason {
        add(word(reason)?.replace('_', " "));
    }
    if let Some(exit) = event.exit {
        add(exit.to_string());
    }
    if let Some(stage) = event.stage {
        add(format!("at {}", word(stage)?.replace('_', " ")));
    }
    if let Some(step) = event.ended_by {
        add(match (what.as_str(), word(step)?.as_str()) {
            ("signalled", step) => format!("SIG{}", step.to_uppercase()),
            (_, step) => format!("ended by {step}"),
        });
    }
    if let Some(delay) = event.delay_ms {
        add(format!("next start in {}", age(delay)));
    }
    match event.mode.as_deref() {
        Some("drain") => add("after what is pending".to_string()),
        Some("now") => add("at once".to_string()),
        _ => {}
    }
    if let Some(discarded) = event.discarded.filter(|discarded| *discarded > 0) {
        add(format!("{} messages discarded", count(discarded)));
    }
    if what == "dead" || what == "discarded" {
        add(ran(event.may_have_run.unwrap_or_default()).to_string());
    }
    if let Some(detail) = &event.detail {
        text += ": ";
        text += &harmless(detail);
    }
    Ok(text)
}
