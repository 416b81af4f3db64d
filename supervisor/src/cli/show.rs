//! `workhall ps`, `info` and `status`.

use std::path::PathBuf;

use comfy_table::{Cell, CellAlignment};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::connect::connect;
use super::output::{age, bytes, count, print_line, print_table, safe, state, table};
use super::{ExitCode, Failure, WorkerArgument};
use crate::report::{StatusReport, WorkerInfo, WorkerRow};

/// The arguments of `workhall ps`.
#[derive(Debug, clap::Args)]
pub struct Ps {
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// The arguments of `workhall info`.
#[derive(Debug, clap::Args)]
pub struct Info {
    /// The worker: a name, or %7 for number 7
    worker: WorkerArgument,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// The arguments of `workhall status`.
#[derive(Debug, clap::Args)]
pub struct Status {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Ps {
    /// Lists.
    pub fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let report = connect(socket)?.report(|client| client.list())?.unwrap_or_default();
        if self.json {
            print_line(report)?;
            return Ok(ExitCode::Done);
        }
        let rows: Vec<WorkerRow> = read(report)?;
        let mut table =
            table(&["NAME", "NUMBER", "CLASS", "STATE", "PID", "GEN", "PENDING", "RUNNING", "EXECUTED", "CRASHES"]);
        for at in [4, 5, 6, 8, 9] {
            if let Some(column) = table.column_mut(at) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for row in rows {
            table.add_row([
                Cell::new(safe(&row.name)),
                Cell::new(format!("%{}", row.number)),
                Cell::new(safe(&row.class)),
                state(&row.state),
                Cell::new(row.pid.map_or("-".into(), |pid| pid.to_string())),
                Cell::new(row.generation),
                Cell::new(count(row.pending)),
                Cell::new(running(&row)),
                Cell::new(count(row.executed)),
                Cell::new(count(row.crashes)),
            ]);
        }
        print_table(&table)?;
        Ok(ExitCode::Done)
    }
}

impl Info {
    /// Shows one.
    pub fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let worker = &self.worker;
        worker.check()?;
        let Some(report) = connect(socket)?.report(|client| client.info(worker.address()))? else {
            return Err(Failure::new(
                ExitCode::Failed,
                format!("there is no worker {worker}: `workhall ps` lists those there are; a call would create it"),
            ));
        };
        if self.json {
            print_line(report)?;
            return Ok(ExitCode::Done);
        }
        let info: WorkerInfo = read(report)?;
        for (key, value) in info_lines(&info) {
            print_line(format_args!("{key:<12}{value}"))?;
        }
        Ok(ExitCode::Done)
    }
}

impl Status {
    /// Shows the supervisor.
    pub fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let report = connect(socket)?.report(|client| client.status())?.unwrap_or_default();
        if self.json {
            print_line(report)?;
            return Ok(ExitCode::Done);
        }
        let status: StatusReport = read(report)?;
        for (key, value) in status_lines(&status) {
            print_line(format_args!("{key:<12}{value}"))?;
        }
        Ok(ExitCode::Done)
    }
}

fn running(row: &WorkerRow) -> String {
    row.running.as_ref().map_or("-".to_string(), |task| format!("{} {}", safe(&task.method), age(task.age_ms)))
}

fn info_lines(info: &WorkerInfo) -> Vec<(&'static str, String)> {
    let row = &info.row;
    let mut lines = vec![
        ("worker", format!("{} (%{}), class {}", safe(&row.name), row.number, safe(&row.class))),
        ("state", row.state.clone() + if row.closed { ", closed: newer calls go to a successor" } else { "" }),
    ];
    let age_of_process = info.process_age_ms.map(|millis| format!(", for {}", age(millis))).unwrap_or_default();
    lines.push(match row.pid {
        Some(pid) => ("process", format!("{pid}, generation {}{age_of_process}", row.generation)),
        None => ("process", format!("none; generation {} was the last", row.generation)),
    });
    if let Some(task) = &row.running {
        lines.push(("running", format!("{}, message {}, for {}", safe(&task.method), task.message, age(task.age_ms))));
    }
    let mailbox = &info.mailbox;
    lines.push((
        "pending",
        format!(
            "{} of {} messages, {} of {}",
            count(row.pending),
            count(mailbox.messages_max),
            bytes(mailbox.bytes),
            bytes(mailbox.bytes_max)
        ),
    ));
    lines.push(("executed", count(row.executed)));
    lines.push(("crashes", format!("{}, {} in a row", count(row.crashes), info.failures_in_a_row)));
    if let Some(millis) = info.next_start_in_ms {
        lines.push(("next start", format!("in {}", age(millis))));
    }
    if let Some(last) = &info.last_exit {
        let how = match (&last.failure, last.exit) {
            (Some(failure), Some(exit)) => format!("{}; {exit}", safe(failure)),
            (Some(failure), None) => safe(failure),
            (None, Some(exit)) => exit.to_string(),
            (None, None) => "unknown".to_string(),
        };
        lines.push(("last exit", format!("generation {}, {} ago: {how}", last.generation, age(last.ago_ms))));
    }
    if info.violations > 0 {
        let last = info.last_violation.as_deref().map(safe).unwrap_or_default();
        lines.push(("violations", format!("{}, the last: {last}", count(info.violations))));
    }
    if let Some(method) = &info.startup_method {
        lines.push(("startup", safe(method)));
    }
    if !info.line.is_empty() {
        let numbers: Vec<String> = info.line.iter().map(|number| format!("%{number}")).collect();
        lines.push(("same name", format!("{} (ending, or waiting for its end)", numbers.join(", "))));
    }
    lines.push(("executes", info.exec.join(" ")));
    lines.push(("created", format!("{} ago", age(row.age_ms))));
    lines
}

fn status_lines(status: &StatusReport) -> Vec<(&'static str, String)> {
    let (ledger, counts, limits) = (&status.ledger, &status.counts, &status.limits);
    let stopping = if status.stopping { ", stopping" } else { "" };
    let mut lines = vec![
        ("supervisor", format!("{}, process {}, up {}{stopping}", status.version, status.pid, age(status.uptime_ms))),
        ("socket", status.socket.clone()),
    ];
    if let Some(config) = &status.config {
        lines.push(("config", config.clone()));
    }
    if let Some(dir) = &status.workers_dir {
        lines.push(("workers in", dir.clone()));
    }
    if !status.classes.is_empty() {
        lines.push(("classes", status.classes.join(", ")));
    }
    lines.push((
        "now",
        format!(
            "{} workers, {} processes, {} clients; {} processes started so far",
            count(counts.workers),
            count(counts.processes),
            count(counts.clients),
            count(counts.spawned)
        ),
    ));
    let terms = [
        ("done", ledger.done),
        ("failed", ledger.failed),
        ("discarded", ledger.discarded),
        ("expired", ledger.expired),
        ("dead", ledger.dead),
        ("pending", ledger.pending),
        ("running", ledger.running),
    ];
    let sum: Vec<String> = terms.iter().map(|(name, number)| format!("{} {name}", count(*number))).collect();
    lines.push(("ledger", format!("{} accepted = {}", count(ledger.accepted), sum.join(" + "))));
    lines.push(("beside it", format!("{} refused, {} ignored", count(status.refused), count(status.ignored))));
    lines.push((
        "limits",
        format!(
            "{} of {} of messages, {} a message, {} workers, {} clients, {} descriptors",
            bytes(limits.total_bytes_used),
            bytes(limits.total_bytes),
            bytes(limits.message_bytes),
            count(limits.workers),
            count(limits.connections),
            count(limits.descriptors)
        ),
    ));
    let asker = &status.asker;
    let may = |may: bool| if may { "may" } else { "may not" };
    lines.push((
        "you",
        format!(
            "user {}, group {}, {} of {} clients; you {} kill, you {} administer",
            asker.uid,
            asker.gid,
            count(asker.connections),
            count(limits.connections_per_user),
            may(asker.may_kill),
            may(asker.may_administer)
        ),
    ));
    lines.push(("trees by", status.process_tree.clone()));
    lines
}

fn read<T: DeserializeOwned>(report: Value) -> Result<T, Failure> {
    serde_json::from_value(report).map_err(|error| {
        Failure::new(ExitCode::Failed, format!("this supervisor reports what is not understood: {error}"))
    })
}
