//! `workhall ps`, `info` and `status`.

use std::path::PathBuf;
use std::time::Duration;

use comfy_table::{Cell, CellAlignment};
use serde::de::DeserializeOwned;
use serde_json::Value;
use workhall_protocol::process::ProcessState;
use workhall_protocol::terms::EndedBy;

use super::connect::connect;
use super::output::{age, bytes, count, counted, print_line, print_table, printed, safe, state, table};
use super::{ExitCode, Failure, OneWorker, parse_duration};
use crate::report::{ClassLimits, EndingReport, ExitReport, StatusReport, TreeReport, WorkerInfo, WorkerRow};

/// How many senders `status` shows to people, the largest.
const SENDERS_SHOWN: usize = 5;

/// The arguments of `workhall ps`.
#[derive(Debug, clap::Args)]
pub struct Ps {
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    /// Show only so many, in the order of their places
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
    /// Show only those behind this place: `at` in the last row of the page before
    #[arg(long, value_name = "PLACE")]
    after: Option<u64>,
    /// Give up after this long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// The arguments of `workhall status`.
#[derive(Debug, clap::Args)]
pub struct Status {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    /// Give up after this long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

impl Ps {
    /// Lists.
    pub fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let mut rows = connect(socket, self.timeout)?.workers(self.after, self.limit)?;
        if self.limit.is_none() {
            let name = |row: &serde_json::Value| row["name"].as_str().map(str::to_string);
            rows.sort_by_cached_key(|row| (name(row), row["number"].as_u64()));
        }
        if self.json {
            return printed(print_line(serde_json::Value::Array(rows)));
        }
        let more = self.limit.is_some_and(|limit| rows.len() as u64 == limit);
        let next = rows.last().and_then(|row| row["at"].as_u64()).filter(|_| more);
        let rows: Vec<WorkerRow> = read(serde_json::Value::Array(rows))?;
        let mut table = table(&[
            "NAME", "NUMBER", "TYPE", "CLASS", "STATE", "PID", "GEN", "PENDING", "RUNNING", "EXECUTED", "CRASHES",
        ]);
        for at in [5, 6, 7, 9, 10] {
            if let Some(column) = table.column_mut(at) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for row in rows {
            table.add_row([
                Cell::new(safe(&row.name)),
                Cell::new(format!("%{}", row.number)),
                Cell::new(safe(&row.kind)),
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
        let shown = printed(print_table(&table));
        if let Some(next) = next {
            eprintln!("there may be more: workhall ps --limit {} --after {next}", self.limit.unwrap_or_default());
        }
        shown
    }
}

/// `workhall info`: shows one.
pub fn info(asked: OneWorker, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let worker = &asked.worker;
    worker.check()?;
    let Some(report) = connect(socket, asked.timeout)?.report(|client| client.info(worker.address()))? else {
        if asked.json {
            // Rule P3: it does not exist.
            let none = ProcessState::DoesNotExist.number();
            printed(print_line(serde_json::json!({"ignored": {"reason": "no_worker"}, "state_number": none})))?;
        }
        return Err(Failure::new(
            ExitCode::Failed,
            format!("there is no worker {worker}: `workhall ps` lists those there are; a call would create it"),
        ));
    };
    if asked.json {
        return printed(print_line(report));
    }
    let info: WorkerInfo = read(report)?;
    printed(info_lines(&info).iter().try_for_each(|(key, value)| print_line(format_args!("{key:<14}{value}"))))
}

impl Status {
    /// Shows the supervisor.
    pub fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let report = connect(socket, self.timeout)?.report(|client| client.status())?.unwrap_or_default();
        if self.json {
            return printed(print_line(report));
        }
        let status: StatusReport = read(report)?;
        printed(status_lines(&status).iter().try_for_each(|(key, value)| print_line(format_args!("{key:<14}{value}"))))
    }
}

fn running(row: &WorkerRow) -> String {
    row.running.as_ref().map_or("-".to_string(), |task| format!("{} {}", safe(&task.method), age(task.age_ms)))
}

/// What it is, as the head of its line.
fn kind(word: &str) -> &'static str {
    match word {
        "main" => "main worker",
        "boot" => "boot worker",
        "run" => "run",
        "attached" => "attached",
        _ => "worker",
    }
}

pub(super) fn info_lines(info: &WorkerInfo) -> Vec<(&'static str, String)> {
    let row = &info.row;
    let mut lines = vec![
        (kind(&row.kind), format!("{} (%{}), class {}", safe(&row.name), row.number, safe(&row.class))),
        (
            "state",
            format!(
                "{}, for {}{}",
                row.state,
                age(info.state_ms),
                if row.closed { ", closed: newer calls go to a successor" } else { "" }
            ),
        ),
    ];
    if let Some(millis) = row.paused_ms {
        let name = safe(&row.name);
        lines.push(("paused", format!("for {}, by an operator (`workhall resume {name}` continues it)", age(millis))));
    }
    if info.retired {
        lines
            .push(("class", "gone from the configuration: it executes what it has, and takes nothing new".to_string()));
    }
    if info.outdated {
        lines.push(("class", "changed since its process was started: the next one has the new class".to_string()));
    }
    lines.extend(info.why.as_ref().map(|why| ("why", safe(why))));
    lines.extend(info.ending.map(|ending| ("ending", ending_line(ending))));
    let age_of_process = info.process_age_ms.map(|millis| format!(", for {}", age(millis))).unwrap_or_default();
    lines.push(match row.pid {
        Some(pid) => ("process", format!("{pid}, generation {}{age_of_process}", row.generation)),
        None => ("process", format!("none; generation {} was the last", row.generation)),
    });
    lines.extend(info.tree.iter().flat_map(|tree| tree_lines(tree, info)));
    if let Some(task) = &row.running {
        lines.push(("running", format!("{}, message {}, for {}", safe(&task.method), task.message, age(task.age_ms))));
    }
    let mailbox = &info.mailbox;
    lines.push((
        "pending",
        format!(
            "{} of {} messages, {} of {}{}",
            count(row.pending),
            count(mailbox.messages_max),
            bytes(mailbox.bytes),
            bytes(mailbox.bytes_max),
            info.oldest_age_ms.map(|millis| format!(", the first for {}", age(millis))).unwrap_or_default()
        ),
    ));
    lines.push(("executed", count(row.executed)));
    lines.push(("crashes", format!("{}, {} in a row", count(row.crashes), info.failures_in_a_row)));
    if let Some(millis) = info.next_start_in_ms {
        let why =
            if row.state == "paused" { ", after too many crashes (`workhall resume` starts it at once)" } else { "" };
        lines.push(("next start", format!("in {}{why}", age(millis))));
    }
    if let Some(holder) = &info.waits_for {
        lines.push(("waits for", safe(holder)));
    }
    if info.queued {
        lines.push(("next start", "when another worker's process has ended: no place is free".to_string()));
    }
    for (at, exit) in info.exits.iter().enumerate() {
        lines.push((if at == 0 { "last exits" } else { "" }, exit_line(exit)));
    }
    if info.violations > 0 {
        lines.push(("violations", count(info.violations)));
        for violation in &info.last_violations {
            lines.push(("", format!("generation {}: {}", violation.generation, safe(&violation.said))));
        }
    }
    lines.push(("limits", limits_line(info)));
    lines.push(("a kill", kill_line(&info.limits)));
    lines.extend(info.limits.not_enforced.iter().map(|sentence| ("warning", sentence.clone())));
    if let Some(method) = &info.startup_method {
        lines.push(("startup", safe(method)));
    }
    if !info.line.is_empty() {
        let numbers: Vec<String> = info.line.iter().map(|number| format!("%{number}")).collect();
        lines.push(("same name", format!("{} (ending, or waiting for its end)", numbers.join(", "))));
    }
    lines.push(("executes", safe(&info.exec.join(" "))));
    lines.extend(info.from.as_ref().map(|from| ("class from", safe(from))));
    lines.push(("created", format!("{} ago", age(row.age_ms))));
    lines
}

/// What its processes use, of how much, and each of them.
fn tree_lines(tree: &TreeReport, info: &WorkerInfo) -> Vec<(&'static str, String)> {
    let enforced = |key: &str| !info.limits.not_enforced.iter().any(|said| said.starts_with(&format!("`{key}`")));
    let of = |limit: Option<String>| limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
    let tasks = match (tree.tasks, info.limits.processes.filter(|_| enforced("processes"))) {
        (Some(tasks), limit) => format!("; {}{} processes and threads", count(tasks), of(limit.map(count))),
        (None, _) => String::new(),
    };
    let sum = format!(
        "{}{} of memory, {} of processor time{tasks}",
        bytes(tree.memory_bytes),
        of(info.limits.memory_bytes.filter(|_| enforced("memory")).map(bytes)),
        age(tree.cpu_ms)
    );
    let each = tree.processes.iter().map(|process| {
        let (program, memory) = (safe(&process.program), bytes(process.memory_bytes));
        ("", format!("{} {program} ({}), {memory}, {}", process.pid, process.state, age(process.cpu_ms)))
    });
    let mut lines = vec![("uses", sum)];
    lines.extend(each);
    if tree.more {
        lines.push(("", "and more".to_string()));
    }
    lines
}

pub(super) fn exit_line(exit: &ExitReport) -> String {
    let how = match (&exit.failure, exit.exit) {
        (Some(failure), Some(exit)) => format!("{}; {exit}", safe(failure)),
        (Some(failure), None) => safe(failure),
        (None, Some(exit)) => exit.to_string(),
        (None, None) => "unknown".to_string(),
    };
    format!("generation {}, {} ago: {how}", exit.generation, age(exit.ago_ms))
}

fn ending_line(EndingReport { step, step_ms, next_step_in_ms }: EndingReport) -> String {
    let (step, next) = match step {
        EndedBy::Term => ("SIGTERM was sent", "SIGKILL"),
        EndedBy::Kill => ("SIGKILL was sent", "again"),
        _ => ("asked to end", "SIGTERM"),
    };
    let next = match next_step_in_ms {
        Some(millis) => format!("{next} in {}", age(millis)),
        None => "its task may take as long as it wants (`workhall kill --within`)".to_string(),
    };
    format!("{step}, for {}; {next}", age(step_ms))
}

/// The graces of the stop ladder (rule K4).
fn kill_line(limits: &ClassLimits) -> String {
    let (exit, term) = (age(limits.exit_grace_ms), age(limits.term_grace_ms));
    let cut = limits.task_grace_ms.map(|millis| format!(", or when that has run {} more", age(millis)));
    format!("SIGTERM {exit} after its task has ended{}; SIGKILL {term} after that", cut.unwrap_or_default())
}

fn limits_line(info: &WorkerInfo) -> String {
    let limits = &info.limits;
    let crash = &limits.crash_limit;
    let mut parts = vec![format!("ready within {}", age(limits.start_timeout_ms))];
    parts.extend(limits.task_timeout_ms.map(|millis| format!("a task {}", age(millis))));
    parts.extend(limits.idle_timeout_ms.map(|millis| format!("idle {}", age(millis))));
    parts.extend(limits.memory_bytes.map(|most| format!("{} of memory", bytes(most))));
    parts.extend(limits.processes.map(|most| format!("{} processes and threads", count(most))));
    parts.extend(limits.resources.iter().map(|(key, most)| match (most, key.as_str()) {
        (None, _) => format!("{key} unlimited"),
        (Some(most), "open_files" | "user_processes") => format!("{key} {}", count(*most)),
        (Some(most), "cpu_time") => format!("{key} {}", age(most.saturating_mul(1000))),
        (Some(most), _) => format!("{key} {}", bytes(*most)),
    }));
    parts.push(match limits.attempts {
        1 => "one attempt".to_string(),
        attempts => format!("{attempts} attempts"),
    });
    parts.push(format!("{} crashes in {} pause it for {}", crash.crashes, age(crash.within_ms), age(crash.pause_ms)));
    parts.join(", ")
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
            "{}, {}, {}; {} started so far",
            counted(counts.workers, "worker", "workers"),
            counted(counts.processes, "process", "processes"),
            counted(counts.clients, "client", "clients"),
            counted(counts.spawned, "process", "processes")
        ),
    ));
    let sum: Vec<String> = ledger.terms().iter().map(|(name, number)| format!("{} {name}", count(*number))).collect();
    lines.push(("ledger", format!("{} accepted = {}", count(ledger.accepted), sum.join(" + "))));
    let violations = match counts.violations {
        0 => String::new(),
        many => format!(", {} things said wrong by processes", count(many)),
    };
    lines.push((
        "beside it",
        format!("{} refused, {} ignored{violations}", count(status.refused), count(status.ignored)),
    ));
    let dead = &status.dead_letters;
    lines.push((
        "dead letters",
        format!(
            "{} of {} kept, {} of {}; {} dropped",
            count(dead.messages),
            count(limits.dead_messages),
            bytes(dead.bytes),
            bytes(limits.dead_bytes),
            counted(dead.dropped, "older one", "older ones")
        ),
    ));
    let (logs, events) = (&status.logs, &status.events);
    lines.push((
        "logs",
        format!(
            "{} of {} lines kept, {} of {}; {} dropped",
            count(logs.lines),
            count(logs.lines_max),
            bytes(logs.bytes),
            bytes(logs.bytes_max),
            counted(logs.dropped, "older one", "older ones")
        ),
    ));
    lines.push((
        "events",
        format!(
            "{} of {} kept; {} dropped",
            count(events.events),
            count(events.events_max),
            counted(events.dropped, "older one", "older ones")
        ),
    ));
    lines.push((
        "messages",
        format!(
            "{} of {} wait or run, {} of {}; at most {} each",
            count(limits.total_messages_used),
            count(limits.total_messages),
            bytes(limits.total_bytes_used),
            bytes(limits.total_bytes),
            bytes(limits.message_bytes)
        ),
    ));
    for (at, sender) in status.senders.iter().take(SENDERS_SHOWN).enumerate() {
        lines.push((
            if at == 0 { "senders" } else { "" },
            format!(
                "{}: {} of {} messages, {} of {}{}",
                match (sender.worker, sender.user) {
                    (Some(worker), _) => format!("worker %{worker}"),
                    (None, user) => format!("clients of user {}", user.unwrap_or_default()),
                },
                count(sender.messages),
                count(limits.sender_messages),
                bytes(sender.bytes),
                bytes(limits.sender_bytes),
                match sender.signals {
                    0 => String::new(),
                    many => format!(", {} of {} signals", count(many), count(limits.sender_signals)),
                }
            ),
        ));
    }
    let queued = match limits.processes_queued {
        0 => String::new(),
        many => format!(" ({} workers wait for a place)", count(many)),
    };
    lines.push((
        "limits",
        format!(
            "{} of {} processes{queued}, {} workers, {} clients, {} descriptors",
            count(limits.processes_used),
            count(limits.processes),
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
            count(asker.connections_max.unwrap_or(limits.connections_per_user)),
            may(asker.may_kill),
            may(asker.may_administer)
        ),
    ));
    let why = status.why_not_cgroup.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    lines.push(("trees by", format!("{}{why}", status.process_tree)));
    lines.extend(status.not_enforced.iter().map(|sentence| ("warning", sentence.clone())));
    lines
}

pub(super) fn read<T: DeserializeOwned>(report: Value) -> Result<T, Failure> {
    serde_json::from_value(report).map_err(|error| {
        Failure::new(ExitCode::Failed, format!("this supervisor reports what is not understood: {error}"))
    })
}
