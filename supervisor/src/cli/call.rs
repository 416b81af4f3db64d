//! `workhall call`: posts messages.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use workhall_protocol::args::Payload;
use workhall_protocol::client::{ClientError, Ticket};
use workhall_protocol::limits::FRAME_BYTES_MAX;
use workhall_protocol::messages::{Call as CallMessage, OutcomeBody, ReceiptBody, Until};
use workhall_protocol::terms::{Ignored, Refusal};

use super::connect::{Connection, connect, refused};
use super::outcome::show_outcome;
use super::output::{Out, counted};
use super::{ExitCode, Failure, WorkerArgument, parse_duration};
use crate::config::UNREAD_BYTES_DEFAULT;
use crate::diagnostics::say;

pub const EXAMPLES: &str = "Examples:
  workhall call counter add 5                 post a message, and that is all
  workhall call counter total --wait          wait for the result and print it
  workhall call ledger/eu add --args '[{\"amount\": 12.5}]'
  workhall call ledger/eu add --lines < rows.jsonl
  workhall call reminder send Ann --in 10m    post it for later";

/// How many messages of `--lines` are on their way at once.
const LINES_AHEAD: usize = 256;
/// The same with `--wait`: so many results may have to be kept for a reader that is slow.
const LINES_AHEAD_WAITING: usize = 8;
// Twice as many outcomes can be on their way, and as much again in front of them that was written already; they
// must not make the supervisor give this client up.
const _: () = assert!(2 * 2 * (LINES_AHEAD_WAITING * FRAME_BYTES_MAX) as u64 <= UNREAD_BYTES_DEFAULT);
/// How much of stdin is read at once, in bytes.
const LINES_BUFFER_BYTES: usize = 64 << 10;
/// How often in a row a full mailbox may refuse although it had room: others may have filled it first.
const REFUSALS_IN_A_ROW_MAX: u32 = 1000;

/// The arguments of `workhall call`.
#[derive(Debug, clap::Args)]
pub struct Call {
    /// The worker: a name, or %7 for number 7
    worker: WorkerArgument,
    /// The method; left out or empty it is the worker's startup method
    #[arg(default_value = "", hide_default_value = true)]
    method: String,
    /// The arguments: each is JSON if it parses as JSON, else a string
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    arguments: Vec<String>,
    /// WORKER is a name, also if it looks like a number
    #[arg(long)]
    name: bool,
    /// The whole list of arguments as one JSON array; `-` reads it from stdin
    #[arg(long, value_name = "JSON", conflicts_with_all = ["arguments", "lines"])]
    args: Option<String>,
    /// Post one message per line of stdin, each the JSON array of arguments
    #[arg(long, conflicts_with = "arguments")]
    lines: bool,
    /// Wait for the outcome and print the method's result as JSON
    #[arg(long)]
    wait: bool,
    /// Give up waiting after this long (the message stays posted)
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Only if the worker exists already
    #[arg(long)]
    existing: bool,
    /// Do not start executing it later than this
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expires: Option<Duration>,
    /// It enters the mailbox after this long
    #[arg(long = "in", value_name = "DURATION", value_parser = parse_duration)]
    after: Option<Duration>,
    /// Print the receipt, or with --wait the outcome, as JSON; with --lines one line of it per message
    #[arg(long)]
    json: bool,
}

impl Call {
    /// Posts, and waits if asked to.
    pub fn run(mut self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        self = Call { worker: self.worker.read(self.name), ..self };
        if let (Some(after), Some(expires)) = (self.after, self.expires)
            && after >= expires
        {
            return Err(Failure::usage(
                "--expires counts from the call, as --in does: it must be the longer one, or the message is never executed",
            ));
        }
        let mut out = Out::default();
        let result = if self.lines { self.run_lines(socket, &mut out) } else { self.run_one(socket, &mut out) };
        out.end(result)
    }

    fn run_one(&self, socket: Option<PathBuf>, out: &mut Out) -> Result<ExitCode, Failure> {
        let args = whole_arguments(&self.arguments, self.args.as_deref())?;
        let mut connection = connect(socket, self.timeout)?;
        let ticket = self.submit(&mut connection, args, false, out)?;
        let receipt = connection.receipt(ticket)?;
        let mut code = self.show_receipt(&receipt, self.wait, out)?;
        if self.wait && matches!(receipt, ReceiptBody::Accepted(_)) {
            let outcome = connection.ask(|client| client.outcome(ticket))?;
            code = show_outcome(&self.worker.to_string(), &outcome, self.json, out)?;
        }
        Ok(code)
    }

    fn submit(
        &self,
        connection: &mut Connection,
        args: Payload<'_>,
        chain: bool,
        out: &mut Out,
    ) -> Result<Ticket, Failure> {
        let call = CallMessage {
            wait: self.wait,
            existing: self.existing,
            expires_ms: self.expires.map(|expires| expires.as_millis() as u64),
            in_ms: self.after.map(|after| after.as_millis() as u64),
            chain,
            ..CallMessage::new(self.worker.address(), &self.method, args)
        };
        let submitted = connection.ask(|client| match client.submit(call) {
            Err(ClientError::Encode(error)) => Ok(Err(error)),
            other => other.map(Ok),
        })?;
        submitted.map_err(|error| {
            // What the wire cannot carry is refused here as the supervisor refuses what is too large.
            let refused = ReceiptBody::Refused { reason: Refusal::TooLarge, detail: error.to_string().into() };
            self.show_receipt(&refused, false, out).expect_err("a refusal is a failure")
        })
    }

    /// `outcome_follows`: an accepted call is shown by its outcome.
    fn show_receipt(
        &self,
        receipt: &ReceiptBody<'_>,
        outcome_follows: bool,
        out: &mut Out,
    ) -> Result<ExitCode, Failure> {
        let accepted = matches!(receipt, ReceiptBody::Accepted(_));
        if self.json && !(accepted && outcome_follows) {
            out.line(serde_json::to_value(receipt).map_err(anyhow::Error::from)?);
        }
        match receipt {
            ReceiptBody::Refused { reason, detail } => Err(refused(*reason, detail)),
            ReceiptBody::Ignored { reason } => {
                if self.wait && !self.json {
                    say(format!("ignored, so there is no result: {}", ignored(*reason)));
                }
                Ok(ExitCode::Done)
            }
            ReceiptBody::Accepted(_) => Ok(ExitCode::Done),
            other => Err(Failure::new(ExitCode::Failed, format!("unexpected answer: {other:?}"))),
        }
    }

    // ---- --lines ----------------------------------------------------------------------------

    fn run_lines(&self, socket: Option<PathBuf>, out: &mut Out) -> Result<ExitCode, Failure> {
        let mut connection = connect(socket, self.timeout)?;
        let progress = progress(stdin_bytes());
        let result = self.post_lines(&mut connection, &progress, out);
        progress.finish_and_clear();
        let (posted, code) = result?;
        if io::stderr().is_terminal() {
            eprintln!("{posted} messages posted to {}", self.worker);
        }
        Ok(code)
    }

    fn post_lines(
        &self,
        connection: &mut Connection,
        progress: &ProgressBar,
        out: &mut Out,
    ) -> Result<(u64, ExitCode), Failure> {
        let mut posting = Posting::default();
        let end = self.post_all(connection, &mut posting, progress, out);
        let posted = posting.posted;
        match end {
            Ok(None) => Ok((posted, posting.worst)),
            Ok(Some(Failure { code, message })) => {
                let before = counted(posted, "line before it was", "lines before it were");
                Err(Failure::new(code, format!("{message}; {before} posted")))
            }
            Err(failure) => Err(self.broken_off(connection, posting, failure, out)),
        }
    }

    /// Posts line after line. Returns what is wrong with the first that could not be posted, when the outcomes of all
    /// before it have come.
    fn post_all(
        &self,
        connection: &mut Connection,
        posting: &mut Posting,
        progress: &ProgressBar,
        out: &mut Out,
    ) -> Result<Option<Failure>, Failure> {
        // Unlike stdin's own, this buffer says whether the next line is there already.
        let mut lines = BufReader::with_capacity(LINES_BUFFER_BYTES, io::stdin().lock());
        let ahead = if self.wait { LINES_AHEAD_WAITING } else { LINES_AHEAD };
        let mut number = 0;
        let mut end: Option<Option<Failure>> = None;
        loop {
            connection.check_time()?;
            // Before a read that may have to wait, all that was sent is seen to its end: so what comes slowly
            // is posted line by line.
            while end.is_none()
                && posting.sent.len() < ahead
                && (posting.sent.is_empty() || lines.buffer().contains(&b'\n'))
            {
                let mut text = Vec::new();
                let bytes = lines.read_until(b'\n', &mut text)?;
                if bytes == 0 {
                    end = Some(None);
                    break;
                }
                number += 1;
                if text.trim_ascii().is_empty() {
                    continue;
                }
                let args = array(&text).map_err(Failure::usage).and_then(encode);
                let args = args.map_err(|error| Failure::usage(format!("line {number} is {}", error.message)));
                let line = args.and_then(|args| match self.submit(connection, args.clone(), true, out) {
                    Ok(ticket) => Ok(Line { number, bytes: bytes as u64, args, ticket, refusals: 0 }),
                    Err(error) => Err(Failure::new(error.code, format!("line {number}: {}", error.message))),
                });
                match line {
                    Ok(line) => posting.sent.push_back(line),
                    Err(failure) => end = Some(Some(failure)),
                }
            }
            let Some(line) = posting.sent.front() else { break };
            let receipt = connection.receipt(line.ticket)?;
            let Some(line) = posting.sent.pop_front() else { break };
            if let ReceiptBody::Refused { reason: Refusal::MailboxFull, .. } = receipt
                && line.refusals < REFUSALS_IN_A_ROW_MAX
            {
                self.send_again(connection, line, posting, out)?;
                continue;
            }
            if let Err(Failure { code, message }) = self.show_receipt(&receipt, self.wait, out) {
                end = Some(Some(Failure::new(code, format!("line {}: {message}", line.number))));
                // Those behind it in the chain were refused with it.
                posting.sent.clear();
            }
            posting.took(&line, &receipt, self.wait);
            while posting.outcomes.len() > if posting.sent.is_empty() { 0 } else { ahead } {
                let Some(ticket) = posting.outcomes.front() else { break };
                let outcome = connection.ask(|client| client.outcome(*ticket))?;
                self.line_outcome(&outcome, posting, out)?;
            }
            self.show_known(connection, posting, out)?;
            progress.inc(line.bytes);
            progress.set_message(format!("{} posted", posting.posted));
        }
        Ok(end.flatten())
    }

    /// A full mailbox has refused a line, and with it all that were sent behind it: waits for room and
    /// sends them again, in their order. What becomes of those that are posted is shown meanwhile.
    fn send_again(
        &self,
        connection: &mut Connection,
        mut line: Line,
        posting: &mut Posting,
        out: &mut Out,
    ) -> Result<(), Failure> {
        line.refusals += 1;
        posting.refused.push_back(line);
        while let Some(behind) = posting.sent.front() {
            connection.receipt(behind.ticket)?;
            posting.refused.extend(posting.sent.pop_front().map(|line| Line { refusals: 0, ..line }));
        }
        let room = connection.ask(|client| client.wait(self.worker.address(), Until::Room))?;
        while let Some(next) = posting.outcomes.front()
            && connection.ask(|client| client.first_outcome(&[*next, room]))? == *next
        {
            let outcome = connection.ask(|client| client.outcome(*next))?;
            self.line_outcome(&outcome, posting, out)?;
        }
        connection.ask(|client| client.outcome(room))?;
        while let Some(line) = posting.refused.front() {
            // The first begins a new chain.
            let ticket = self.submit(connection, line.args.clone(), !posting.sent.is_empty(), out)?;
            posting.sent.extend(posting.refused.pop_front().map(|line| Line { ticket, ..line }));
        }
        Ok(())
    }

    /// Shows the outcome of the first line of which none was shown; those that went wrong do not stop the others.
    fn line_outcome(&self, outcome: &OutcomeBody<'_>, posting: &mut Posting, out: &mut Out) -> Result<(), Failure> {
        posting.outcomes.pop_front();
        match show_outcome(&self.worker.to_string(), outcome, self.json, out) {
            Ok(_) => Ok(()),
            Err(failure) if matches!(failure.code, ExitCode::Failed | ExitCode::NotExecuted) => {
                say(&failure.message);
                if posting.worst != ExitCode::NotExecuted {
                    posting.worst = failure.code;
                }
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Shows the outcomes that have come already, in the order of the lines.
    fn show_known(&self, connection: &mut Connection, posting: &mut Posting, out: &mut Out) -> Result<(), Failure> {
        while let Some(next) = posting.outcomes.front()
            && let Some(outcome) = connection.known_outcome(*next)?
        {
            self.line_outcome(&outcome, posting, out)?;
        }
        Ok(())
    }

    /// The time ran out, or the supervisor is gone: shows what has come, and says which lines were posted.
    fn broken_off(
        &self,
        connection: &mut Connection,
        mut posting: Posting,
        Failure { code, mut message }: Failure,
        out: &mut Out,
    ) -> Failure {
        let mut unknown = false;
        while let Some(line) = posting.sent.pop_front() {
            match connection.receipt(line.ticket) {
                Ok(receipt @ ReceiptBody::Accepted(_)) => posting.took(&line, &receipt, self.wait),
                result => {
                    unknown = result.is_err();
                    posting.sent.push_front(line);
                    break;
                }
            }
        }
        if let Err(failure) = self.show_known(connection, &mut posting, out) {
            say(&failure.message);
        }
        message += &format!("; {} posted", counted(posting.posted, "line was", "lines were"));
        let first = |lines: &VecDeque<Line>| lines.front().map(|line| line.number);
        message += &not_posted(first(&posting.sent), first(&posting.refused), unknown);
        Failure::new(code, message)
    }
}

/// Which lines were not posted, by the first of those without a receipt and of those that were refused. A line that was sent
/// behind a refused one is refused with it, whether that was heard or not.
fn not_posted(sent: Option<u64>, refused: Option<u64>, unknown: bool) -> String {
    match (sent, refused) {
        (None, None) => String::new(),
        (Some(number), refused) if unknown && refused.is_none_or(|refused| number < refused) => {
            format!("; whether line {number} and those behind it were is not known")
        }
        (sent, refused) => {
            let number = sent.into_iter().chain(refused).min().expect("there is one");
            format!(", line {number} and those behind it were not")
        }
    }
}

/// How far the lines have come.
#[derive(Default)]
struct Posting {
    /// On their way: the receipt has not been taken.
    sent: VecDeque<Line>,
    /// Refused by a full mailbox, to be sent again.
    refused: VecDeque<Line>,
    /// Posted, the outcome was not shown.
    outcomes: VecDeque<Ticket>,
    posted: u64,
    worst: ExitCode,
}

impl Posting {
    fn took(&mut self, line: &Line, receipt: &ReceiptBody<'_>, wait: bool) {
        if matches!(receipt, ReceiptBody::Accepted(_)) {
            self.posted += 1;
            self.outcomes.extend(wait.then_some(line.ticket));
        }
    }
}

/// A line that is on its way.
struct Line {
    number: u64,
    bytes: u64,
    args: Payload<'static>,
    ticket: Ticket,
    refusals: u32,
}

/// The arguments of a method: each for itself, or the whole list as JSON.
pub(super) fn whole_arguments(arguments: &[String], args: Option<&str>) -> Result<Payload<'static>, Failure> {
    let values = match args {
        None => arguments.iter().map(|text| one_argument(text)).collect(),
        Some("-") => {
            let mut text = Vec::new();
            io::stdin().lock().read_to_end(&mut text)?;
            array(&text).map_err(|error| Failure::usage(format!("stdin is {error}")))?
        }
        Some(text) => array(text.as_bytes()).map_err(|error| Failure::usage(format!("--args is {error}")))?,
    };
    encode(values)
}

pub(super) fn ignored(reason: Ignored) -> &'static str {
    match reason {
        Ignored::NoWorker => "there is no such worker",
        Ignored::Ending => "the worker was killed",
        Ignored::NoStartupMethod => "the method is empty, and the worker has no startup method",
        Ignored::OwnKilledWorker => "a killed worker has called itself",
        Ignored::NoLetter => "there is no such dead letter",
        Ignored::NoSignal => "there is no such signal",
        Ignored::NoMessage => "no such message waits or is executed",
        Ignored::AlreadyTriggered => "the signal was triggered already",
    }
}

fn one_argument(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
}

fn array(text: &[u8]) -> Result<Vec<Value>, String> {
    match serde_json::from_slice(text) {
        Ok(Value::Array(values)) => Ok(values),
        Ok(_) => Err("not a JSON array: write [1, \"a\"]".to_string()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

fn encode(values: Vec<Value>) -> Result<Payload<'static>, Failure> {
    Payload::from_json(&Value::Array(values))
        .map_err(|error| Failure::usage(format!("not usable as arguments: {error}")))
}

/// How long stdin is, where it is a file.
fn stdin_bytes() -> Option<u64> {
    let meta = std::fs::metadata("/dev/stdin").ok()?;
    meta.is_file().then_some(meta.len())
}

/// On a terminal; elsewhere nothing is drawn.
fn progress(total: Option<u64>) -> ProgressBar {
    let style = |template: &str| ProgressStyle::with_template(template).expect("the template is a constant");
    match total {
        Some(total) => ProgressBar::new(total).with_style(style("{bar:30} {bytes}/{total_bytes}  {msg}  {eta} left")),
        None => ProgressBar::new_spinner().with_style(style("{spinner} {msg}  {elapsed}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_was_not_posted_is_named() {
        let not = |number| format!(", line {number} and those behind it were not");
        for (sent, refused, unknown, words) in [
            (None, None, false, String::new()),
            (Some(7), None, false, not(7)),
            (None, Some(7), true, not(7)),
            (Some(12), Some(10), true, not(10)),
            (Some(12), Some(10), false, not(10)),
            (Some(10), Some(12), false, not(10)),
            (Some(10), Some(12), true, "; whether line 10 and those behind it were is not known".to_string()),
            (Some(3), None, true, "; whether line 3 and those behind it were is not known".to_string()),
        ] {
            assert_eq!(not_posted(sent, refused, unknown), words, "{sent:?} {refused:?} {unknown}");
        }
    }
}
