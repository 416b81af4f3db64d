//! `workhall bench`: what this machine and this supervisor can do, beside what the machine alone can.
//!
//! All of it is real: a supervisor, clients, and workers, each a process; the worker itself counts what it executes,
//! and a figure is only given where its number is the right one. Beside each figure stands a *floor*, measured in the
//! same run in turn: the same payload through processes that do nothing else with it (`floor.rs`), made busy by the
//! same load (`load.rs`). The ratio is the result; the figures alone say more about the machine.

mod figures;
mod floor;
mod latency;
mod load;
mod parts;
mod plot;
mod rates;
mod scrape;
mod server;
mod standing;
mod starts;
mod words;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::connect::check_socket_path;
use super::output::{Out, print_table};
use super::{ExitCode, Failure, parse_duration};
use figures::Row;
use server::{Dir, Server};
use words::PAYLOAD_MIN;

pub use parts::play_if_asked;

pub const EXAMPLES: &str = "Examples:
  workhall bench                              everything, in some minutes
  workhall bench execute round-trip --quick   two of them, in seconds
  workhall bench --json > this-machine.json
  workhall bench --plot cost.svg              the cost per message from 10 to 1,000,000 names

A supervisor of its own is started, and ends with it. With --socket it is one that is there, which needs a class
whose names begin with the prefix that --worker names:
  [class.load]
  exec = [\"workhall\", \"bench-part\", \"worker\", \"64\"]
  mailbox = { messages = 500_000, bytes = \"256MiB\" }
and is measured with
  workhall bench --socket /run/workhall/workhall.sock --worker load/";

/// By this first word the executable knows that it is to be a worker or a floor.
const PART: &str = "bench-part";
/// Descriptors of a process besides those of its connections.
const DESCRIPTORS_BESIDE: u64 = 64;
/// A supervisor keeps a process only where the system allows so many descriptors for each (README).
const DESCRIPTORS_PER_PROCESS: u64 = 12;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Work {
    /// Posted into a mailbox, a second
    Post,
    /// Posted, executed and settled, a second
    Execute,
    /// Call and wait, one outstanding
    RoundTrip,
    /// A worker that speaks JSON lines and takes one task at a time
    OneAtATime,
    /// A call to a name without a process, until its first task has ended
    ColdStart,
    /// A kill and a call, until the successor's first task has ended
    KillRespawn,
    /// A crash with messages pending, until the next one has ended
    CrashRespawn,
    /// Bytes per idle name, per pending message and per idle process
    Memory,
    /// Wake-ups and processor time with many idle workers
    Idle,
    /// A cold start while much is pending
    SpawnPending,
    /// Metrics, read while there are very many names
    Scrape,
}

impl Work {
    const ALL: [Work; 11] = [
        Work::Post,
        Work::Execute,
        Work::RoundTrip,
        Work::OneAtATime,
        Work::ColdStart,
        Work::KillRespawn,
        Work::CrashRespawn,
        Work::Memory,
        Work::Idle,
        Work::SpawnPending,
        Work::Scrape,
    ];

    /// Those that need no supervisor of our own: no process to look into, no worker of another class.
    const ANYWHERE: [Work; 6] =
        [Work::Post, Work::Execute, Work::RoundTrip, Work::ColdStart, Work::KillRespawn, Work::CrashRespawn];

    /// As on the command line.
    fn key(self) -> &'static str {
        match self {
            Work::Post => "post",
            Work::Execute => "execute",
            Work::RoundTrip => "round-trip",
            Work::OneAtATime => "one-at-a-time",
            Work::ColdStart => "cold-start",
            Work::KillRespawn => "kill-respawn",
            Work::CrashRespawn => "crash-respawn",
            Work::Memory => "memory",
            Work::Idle => "idle",
            Work::SpawnPending => "spawn-pending",
            Work::Scrape => "scrape",
        }
    }
}

/// The arguments of `workhall bench`.
#[derive(Debug, clap::Args)]
pub struct Bench {
    /// What to measure [default: everything]
    #[arg(value_name = "WORK", hide_default_value = true)]
    work: Vec<Work>,
    /// With --socket: what the names of its bench workers begin with
    #[arg(long, value_name = "PREFIX")]
    worker: Option<String>,
    /// Short rounds, few names and processes: to see that it works
    #[arg(long)]
    quick: bool,
    /// How often each is measured, in turn with its floor, after a warm-up [default: 5, with --quick 3]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Messages (calls, starts) of a round and connection [default: as many as take about 0.4s]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    messages: Option<u64>,
    /// Bytes of a message's arguments; several are separated by commas
    #[arg(long, value_name = "SIZE", value_delimiter = ',', default_value = "64,4KiB", value_parser = parse_payload)]
    payload: Vec<usize>,
    /// Messages sent ahead: unacknowledged by the supervisor, unsettled by the worker
    #[arg(long, value_name = "COUNT", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=1024))]
    window: u32,
    /// Clients and workers where it is several
    #[arg(long, value_name = "COUNT", default_value = "8", value_parser = clap::value_parser!(u64).range(2..=100))]
    several: u64,
    /// Clients and workers where it is many; fewer if descriptors are few [default: 1000, with --quick 20]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(2..=5000))]
    many: Option<u64>,
    /// Names and pending messages of `memory` [default: 1000000, with --quick 2000], and the most of `scrape` and
    /// --plot [default: 1000000, with --quick 1000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    names: Option<u64>,
    /// Bytes pending in `spawn-pending` [default: 2GiB, with --quick 16MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pending: Option<u64>,
    /// How long `idle` looks [default: 10s, with --quick 500ms]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    idle: Option<Duration>,
    /// Instead: draw the cost per message against names, pending messages and connections
    #[arg(long, value_name = "FILE.svg", conflicts_with_all = ["work", "worker"])]
    plot: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What is measured how, with all defaults filled in.
struct Options {
    work: Vec<Work>,
    rounds: u32,
    messages: Option<u64>,
    payload: Vec<usize>,
    window: u32,
    several: usize,
    many: u64,
    names: u64,
    /// The most that `scrape` and `--plot` go up to.
    most: u64,
    pending: u64,
    idle: Duration,
    quick: bool,
}

/// A measurement under way.
struct Run {
    options: Options,
    dir: Dir,
    stop: Stop,
    descriptors: u64,
    /// The load average before.
    load: Option<f64>,
    /// Our supervisors make control groups.
    groups: bool,
    progress: ProgressBar,
    rows: Vec<Row>,
}

/// Whether the user has had enough.
#[derive(Clone)]
struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Set by SIGINT and SIGTERM: so everything that was started is ended, and the directory removed.
    fn on_signals() -> anyhow::Result<Stop> {
        let stop = Stop(Arc::default());
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, stop.0.clone()).context("cannot register for signals")?;
        }
        Ok(stop)
    }

    fn check(&self) -> anyhow::Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(anyhow::anyhow!("interrupted")),
            false => Ok(()),
        }
    }
}

impl Bench {
    /// Measures. `socket` is the one that was named on the command line: that of the environment is somebody's who
    /// has not asked for this load.
    pub fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let existing = match (&socket, &self.worker) {
            (Some(socket), Some(prefix)) => {
                check_socket_path(socket)?;
                Some(Server::existing(socket, prefix))
            }
            (Some(_), None) => {
                return Err(Failure::usage(
                    "--socket needs --worker PREFIX: which of its workers run `workhall bench-part worker 64` (see --help)",
                ));
            }
            (None, Some(_)) => {
                return Err(Failure::usage("--worker is for a supervisor that is there: name it with --socket"));
            }
            (None, None) => None,
        };
        let options = self.options(existing.is_some())?;
        if let Some(server) = &existing {
            // Who is not there is said with the right status, before anything is started.
            drop(super::connect::connect(Some(server.socket().to_path_buf()), None)?);
        }
        let descriptors = crate::sys::raise_descriptor_limit()?;
        let progress = progress(&options);
        let stop = Stop::on_signals()?;
        let mut run = Run {
            options,
            dir: Dir::make()?,
            stop,
            descriptors,
            groups: false,
            progress,
            rows: Vec::new(),
            load: load_average(),
        };
        let result = match &self.plot {
            Some(file) => plot::draw(&mut run, file),
            None => run.all(existing.as_ref()),
        };
        run.progress.finish_and_clear();
        result?;
        let mut out = Out::default();
        match (self.json, &self.plot) {
            (true, _) => out.line(run.json(existing.is_some())?),
            (false, Some(_)) => {}
            (false, None) => {
                out.line(run.surroundings()?);
                return super::output::printed(print_table(&figures::rows_table(&run.rows)));
            }
        }
        out.end(Ok(ExitCode::Done))
    }

    fn options(&self, existing: bool) -> Result<Options, Failure> {
        let possible = if existing { &Work::ANYWHERE[..] } else { &Work::ALL };
        if let Some(work) = self.work.iter().find(|work| !possible.contains(work)) {
            return Err(Failure::usage(format!("`{}` needs a supervisor of its own: leave out --socket", work.key())));
        }
        Ok(Options {
            work: if self.work.is_empty() { possible.to_vec() } else { self.work.clone() },
            rounds: self.rounds.unwrap_or(if self.quick { 3 } else { 5 }),
            messages: self.messages.or(self.quick.then_some(100)),
            payload: self.payload.clone(),
            window: self.window,
            several: self.several as usize,
            many: self.many.unwrap_or(if self.quick { 20 } else { 1000 }),
            names: self.names.unwrap_or(if self.quick { 2_000 } else { 1_000_000 }),
            most: self.names.unwrap_or(if self.quick { 1_000 } else { 1_000_000 }),
            pending: self.pending.unwrap_or(if self.quick { 16 << 20 } else { 2 << 30 }),
            idle: self.idle.unwrap_or(Duration::from_millis(if self.quick { 500 } else { 10_000 })),
            quick: self.quick,
        })
    }
}

impl Run {
    fn all(&mut self, existing: Option<&Server>) -> anyhow::Result<()> {
        let starts = [Work::ColdStart, Work::KillRespawn, Work::CrashRespawn];
        let on_one = [Work::Post, Work::Execute, Work::OneAtATime];
        if existing.is_none() {
            let server = Server::start(&self.dir, self.options.window)?;
            self.groups = server::report(server.client()?.status()?)?["process_tree"] == "cgroup";
        }
        let own = |run: &Run| match existing {
            Some(_) => Ok(None),
            None => Server::start(&run.dir, run.options.window).map(Some),
        };
        if on_one.iter().any(|work| self.wants(*work)) {
            let started = own(self)?;
            let server = existing.or(started.as_ref()).context("there is a supervisor")?;
            if self.wants(Work::Post) {
                rates::post(self, server)?;
            }
            if self.wants(Work::Execute) {
                rates::execute(self, server)?;
            }
            if self.wants(Work::OneAtATime) {
                rates::one_at_a_time(self, server)?;
            }
        }
        if self.wants(Work::RoundTrip) {
            latency::round_trip(self, existing)?;
        }
        if starts.iter().any(|work| self.wants(*work)) {
            let started = own(self)?;
            let how = if self.groups { ", with control groups" } else { "" };
            starts::starts(self, existing.or(started.as_ref()).context("there is a supervisor")?, how)?;
            if self.groups {
                // As on machines where a supervisor may make no control groups.
                let server = Server::start_with(&self.dir, self.options.window, "subreaper")?;
                starts::starts(self, &server, ", without control groups")?;
            }
        }
        if self.wants(Work::Memory) {
            standing::memory(self)?;
        }
        if self.wants(Work::Idle) {
            standing::idle(self)?;
        }
        if self.wants(Work::SpawnPending) {
            starts::beside_pending(self)?;
        }
        if self.wants(Work::Scrape) {
            scrape::scrape(self)?;
        }
        Ok(())
    }

    fn wants(&self, work: Work) -> bool {
        self.options.work.contains(&work)
    }

    /// How many clients and workers many are on this machine.
    fn many(&self) -> usize {
        let possible = self.descriptors.saturating_sub(DESCRIPTORS_BESIDE) / DESCRIPTORS_PER_PROCESS;
        self.options.many.min(possible.max(2)) as usize
    }

    /// A round has ended.
    fn step(&self) {
        self.progress.inc(1);
    }

    fn row(&mut self, row: Row) {
        self.progress.set_message(format!("{} ({}) measured", row.work, row.case));
        self.rows.push(row);
    }

    /// Where it was measured, and whether something else ran: what shares the processors moves all figures.
    fn surroundings(&self) -> anyhow::Result<String> {
        let (cpus, kernel) = (std::thread::available_parallelism()?, kernel());
        let busy = self.load.map_or_else(|| "unknown".to_string(), |load| format!("{load:.1}"));
        Ok(format!("{cpus} CPUs, Linux {kernel}; load average before: {busy} (what else ran moves the figures)"))
    }

    fn json(&self, existing: bool) -> anyhow::Result<serde_json::Value> {
        let options = &self.options;
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "cpus": std::thread::available_parallelism()?.get(),
            "kernel": kernel(),
            "load_before": self.load,
            "own_supervisor": !existing,
            "control_groups": self.groups,
            "rounds": options.rounds,
            "window": options.window,
            "quick": options.quick,
            "rows": figures::rows_json(&self.rows),
        }))
    }
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim_end().to_string()
}

/// How many processes wanted a processor in the last minute.
fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// On a terminal; elsewhere nothing is drawn.
fn progress(options: &Options) -> ProgressBar {
    let starts = [Work::ColdStart, Work::KillRespawn, Work::CrashRespawn];
    let sizes = options.payload.len() as u64;
    let cases: u64 = Work::ALL
        .iter()
        .filter(|work| options.work.contains(work))
        .map(|work| match work {
            Work::Post | Work::OneAtATime => 2,
            Work::Execute => 3 * sizes + 3,
            Work::RoundTrip => 2 * (sizes + 1),
            _ => 1,
        })
        .sum();
    let together = starts.iter().filter(|work| options.work.contains(work)).count().saturating_sub(1) as u64;
    let style = ProgressStyle::with_template("{bar:30} {elapsed}  {msg}").expect("the template is a constant");
    let bar = ProgressBar::new((cases - together) * u64::from(options.rounds)).with_style(style);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

fn parse_payload(text: &str) -> Result<usize, String> {
    let bytes = parse_size(text)?;
    match (PAYLOAD_MIN as u64..=1 << 20).contains(&bytes) {
        true => Ok(bytes as usize),
        false => Err(format!("from {PAYLOAD_MIN} to 1MiB")),
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    crate::config::parse_bytes(text).ok_or_else(|| "a size is written 64, 4KiB, 16MiB or 2GiB".to_string())
}
