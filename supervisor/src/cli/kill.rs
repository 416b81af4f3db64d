//! `workhall kill`.

use std::collections::HashSet;
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use globset::GlobBuilder;
use serde_json::{Value, json};
use workhall_protocol::client::Ticket;
use workhall_protocol::ids::WorkerNumber;
use workhall_protocol::messages::{Kill as KillMessage, KillReport, OutcomeBody, ReceiptBody};
use workhall_protocol::terms::{Current, EndedBy};

use super::connect::{Connection, connect, environment_socket, refused};
use super::output::{Out, age};
use super::{ExitCode, Failure, WorkerArgument, parse_duration};
use crate::diagnostics::say;

pub const EXAMPLES: &str = "Examples:
  workhall kill counter                       discard what is pending, end after the current task
  workhall kill counter --wait                and say how it ended
  workhall kill 'thumb-*' --within 10s --wait SIGTERM if the current task takes longer than that
  workhall kill ledger/eu --drain             first execute what is pending
  workhall kill stuck --now                   SIGKILL at once";

/// The arguments of `workhall kill`.
#[derive(Debug, clap::Args)]
pub struct Kill {
    /// The workers: names, %7 for number 7, or patterns (`*` within a part of a name, `**` across slashes);
    /// left out inside a worker it is that worker
    #[arg(value_name = "WORKER")]
    workers: Vec<WorkerArgument>,
    /// Each WORKER is a name, also if it looks like a number or a pattern
    #[arg(long, requires = "workers")]
    name: bool,
    /// Wait until the process is gone and print the receipt
    #[arg(long)]
    wait: bool,
    /// Give up waiting after this long (the kill goes on)
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Cut the current task short after this long; with --drain, all that is pending
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    within: Option<Duration>,
    /// First execute what is pending; newer calls go to a successor
    #[arg(long, conflicts_with = "now")]
    drain: bool,
    /// SIGKILL at once
    #[arg(long, conflicts_with = "within")]
    now: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Kill {
    /// Kills, and waits if asked to.
    pub fn run(mut self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let mut out = Out::default();
        let result = self.kill(socket, &mut out);
        out.end(result)
    }

    fn kill(&mut self, socket: Option<PathBuf>, out: &mut Out) -> Result<ExitCode, Failure> {
        self.workers = self.workers.drain(..).map(|worker| worker.read(self.name)).collect();
        if self.workers.is_empty() {
            self.workers.push(current_worker(socket.as_deref())?);
        }
        for worker in &self.workers {
            worker.check()?;
        }
        let mut connection = connect(socket, self.timeout)?;
        let several = self.workers.len() > 1 || self.has_pattern();
        let targets = self.targets(&mut connection, out)?;
        let mut tickets: Vec<(WorkerArgument, Ticket)> = Vec::new();
        for target in targets {
            let kill = KillMessage {
                worker: Some(target.address()),
                wait: self.wait,
                within_ms: self.within.map(|within| within.as_millis() as u64),
                drain: self.drain,
                now: self.now,
                ..KillMessage::default()
            };
            let ticket = connection.ask(|client| client.kill(kill))?;
            tickets.push((target, ticket));
        }
        let (mut values, mut not_killed) = (Vec::new(), None);
        for (target, ticket) in tickets {
            match self.answer(&mut connection, &target, ticket, &mut not_killed, out) {
                Ok(value) => values.push(value),
                // What is known of the others is not lost with it.
                Err(failure) => {
                    not_killed = Some(failure);
                    break;
                }
            }
        }
        if self.json && several {
            out.line(Value::Array(values));
        } else if self.json
            && let Some(only) = values.pop()
        {
            out.line(only);
        }
        not_killed.map_or(Ok(ExitCode::Done), Err)
    }

    /// The receipt, and with `--wait` the full one; for people it is printed here. A refusal is kept until all
    /// have their answers; one of many alike is enough.
    fn answer(
        &self,
        connection: &mut Connection,
        target: &WorkerArgument,
        ticket: Ticket,
        not_killed: &mut Option<Failure>,
        out: &mut Out,
    ) -> Result<Value, Failure> {
        let receipt = connection.receipt(ticket)?;
        if let ReceiptBody::Refused { reason, detail } = &receipt {
            not_killed.get_or_insert_with(|| refused(*reason, detail));
        }
        if !self.wait || !matches!(receipt, ReceiptBody::Killed { .. }) {
            if let (false, ReceiptBody::Ignored { .. }) = (self.json, &receipt) {
                self.nothing(out, format_args!("{target}: there is no such worker, nothing to do"));
            }
            let mut value = serde_json::to_value(&receipt).map_err(anyhow::Error::from)?;
            value["worker"] = json!(target.to_string());
            return Ok(value);
        }
        match connection.ask(|client| client.outcome(ticket))? {
            OutcomeBody::Killed(report) => {
                if !self.json {
                    out.line(sentence(&report));
                }
                Ok(serde_json::to_value(&report).map_err(anyhow::Error::from)?)
            }
            other => Err(Failure::new(ExitCode::Failed, format!("unexpected outcome: {other:?}"))),
        }
    }

    /// There is nobody to be killed: with `--wait` that is the result, else it is only said, for who has mistyped a name.
    fn nothing(&self, out: &mut Out, sentence: fmt::Arguments<'_>) {
        match self.wait {
            true => out.line(sentence),
            false => say(sentence),
        }
    }

    fn has_pattern(&self) -> bool {
        !self.name && self.workers.iter().any(is_pattern)
    }

    /// Whom to kill, each once: a second kill would meet a successor (rule K11). A kill by name is for all who have that name
    /// now, one that is ending and its successor; so their numbers are not killed besides. A number alone is only itself.
    fn targets(&self, connection: &mut Connection, out: &mut Out) -> Result<Vec<WorkerArgument>, Failure> {
        let has_number = self.workers.iter().any(|worker| matches!(worker, WorkerArgument::Number(..)));
        let rows = match self.has_pattern() || has_number && self.workers.len() > 1 {
            true => connection.workers(None, None)?,
            false => Vec::new(),
        };
        let mut targets = self.expand(&rows, out)?;
        let named = |target: &WorkerArgument| match target {
            WorkerArgument::Name(name) => Some(name.clone()),
            WorkerArgument::Number(..) => None,
        };
        let names: HashSet<String> = targets.iter().filter_map(named).collect();
        let is_named = |row: &&Value| row["name"].as_str().is_some_and(|name| names.contains(name));
        let numbers: HashSet<u64> = rows.iter().filter(is_named).filter_map(|row| row["number"].as_u64()).collect();
        let mut seen = HashSet::new();
        targets.retain(|target| {
            seen.insert(match target {
                WorkerArgument::Number(number, _) if numbers.contains(&number.0) => return false,
                WorkerArgument::Number(number, _) => Err(*number),
                WorkerArgument::Name(name) => Ok(name.clone()),
            })
        });
        Ok(targets)
    }

    /// Patterns become the names that exist now.
    fn expand(&self, rows: &[Value], out: &mut Out) -> Result<Vec<WorkerArgument>, Failure> {
        if !self.has_pattern() {
            return Ok(self.workers.clone());
        }
        let mut names: Vec<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
        names.sort_unstable();
        let mut targets: Vec<WorkerArgument> = Vec::new();
        for worker in &self.workers {
            match worker {
                WorkerArgument::Name(pattern) if is_pattern(worker) => {
                    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
                    let glob = glob.map_err(|error| Failure::usage(format!("`{pattern}` is no pattern: {error}")))?;
                    let matcher = glob.compile_matcher();
                    let mut matching: Vec<&str> = names.iter().copied().filter(|name| matcher.is_match(name)).collect();
                    matching.dedup();
                    if matching.is_empty() && !self.json {
                        self.nothing(out, format_args!("no worker matches `{pattern}`: nothing to do"));
                    }
                    targets.extend(matching.into_iter().map(|name| WorkerArgument::Name(name.to_string())));
                }
                other => targets.push(other.clone()),
            }
        }
        Ok(targets)
    }
}

fn is_pattern(worker: &WorkerArgument) -> bool {
    matches!(worker, WorkerArgument::Name(name) if name.contains('*'))
}

/// Rule K5: without a worker it is the current one, known from the environment of its process. Its number
/// means it at its own supervisor alone.
fn current_worker(socket: Option<&Path>) -> Result<WorkerArgument, Failure> {
    let number = std::env::var("WORKHALL_NUMBER").ok().and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| {
        Failure::usage("name a worker: only inside a worker's process `workhall kill` without one means that worker")
    })?;
    let own = environment_socket();
    match (socket, &own) {
        (Some(socket), Some(own)) if is_same(socket, own) => {
            Ok(WorkerArgument::Number(WorkerNumber(number), format!("%{number}")))
        }
        _ => {
            let own = own
                .map_or("a supervisor that WORKHALL_SOCKET does not name".into(), |own| format!("{}", own.display()));
            Err(Failure::usage(format!(
                "name a worker: this one belongs to {own}, and --socket is another's, where its number would be somebody else"
            )))
        }
    }
}

fn is_same(a: &Path, b: &Path) -> bool {
    let file = |path: &Path| path.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
    std::path::absolute(a).ok() == std::path::absolute(b).ok() || file(a).is_some() && file(a) == file(b)
}

fn sentence(report: &KillReport<'_>) -> String {
    let KillReport { worker, number, generation, discarded, took_ms, .. } = report;
    let discarded = match discarded {
        0 => "nothing was pending".to_string(),
        1 => "1 message discarded".to_string(),
        many => format!("{many} messages discarded"),
    };
    let step = match report.ended_by {
        EndedBy::Ask => "it ended when asked",
        EndedBy::Term => "SIGTERM ended it",
        EndedBy::Kill => "SIGKILL ended it",
        EndedBy::AlreadyGone => return format!("{worker} (%{number}): there was no process; {discarded}"),
        EndedBy::OnlyEmptied => {
            return format!(
                "{worker} (%{number}): its mailbox was emptied, its process goes on (no call created it); {discarded}"
            );
        }
    };
    let exit = report.exit.map(|exit| format!(", {exit}")).unwrap_or_default();
    let current = match report.current {
        Current::None => "no task was running",
        Current::Finished => "the current task finished",
        Current::Interrupted => "the current task was interrupted",
    };
    format!(
        "{worker} (%{number}, generation {generation}): {step} after {}{exit}; {discarded}; {current}",
        age(*took_ms)
    )
}
