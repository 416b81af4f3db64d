//! What it costs the supervisor that somebody reads its metrics, with few names and with very many.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use workhall_protocol::args::Payload;
use workhall_protocol::messages::{Address, Call};

use super::figures::{Goal, Rounds, Row, Unit, median};
use super::server::Server;
use super::standing::{make_names, pid, post};
use super::{Run, Work};

/// The few.
const FEW: u64 = 10;
/// How long nothing else may be done, in milliseconds: what a watchdog or a person would not notice.
const BUSY_MS_MAX: f64 = 10.0;
/// So many are read in a round, one after the other; and where it is only to be seen that it works.
const SCRAPES: u32 = 20;
const SCRAPES_QUICK: u32 = 2;
/// When the message of a name that has one is due: not while this lasts.
const LATER_MS: u64 = 24 * 3600 * 1000;

/// What the names have.
#[derive(Clone, Copy)]
enum Names {
    /// Nothing: they are at rest.
    Resting,
    /// A message each, which waits.
    Waiting,
}

/// `scrape`.
pub fn scrape(run: &mut Run) -> anyhow::Result<()> {
    for (class, series) in [("bench/", "by class"), ("named/", "also by worker")] {
        for (names, state) in [(Names::Resting, "names"), (Names::Waiting, "names with a message")] {
            let (mut server, metrics) = Server::start_with_metrics(&run.dir, run.options.window)?;
            server.prefix = class.to_string();
            let mut client = server.client()?;
            let mut made = 0;
            for many in [FEW, run.options.most / 10, run.options.most] {
                match names {
                    Names::Resting => make_names(&mut client, &server, made..many, run)?,
                    Names::Waiting => post(&mut client, made..many, run, |at| Call {
                        in_ms: Some(LATER_MS),
                        ..Call::new(Address::Name(server.name(at).into()), "take", Payload::no_args())
                    })?,
                }
                made = many;
                let case = format!("{} {state}, {series}", super::super::output::count(many));
                measure(run, pid(&server)?, &metrics, &case)?;
            }
            run.step();
        }
    }
    Ok(())
}

fn measure(run: &mut Run, pid: u32, metrics: &Path, case: &str) -> anyhow::Result<()> {
    let scrapes = if run.options.quick { SCRAPES_QUICK } else { SCRAPES };
    read(metrics)?;
    let (mut busy, mut whole) = (Rounds::new(), Rounds::new());
    for _ in 0..run.options.rounds {
        run.stop.check()?;
        let mut took = Rounds::new();
        let before = loop_nanos(pid)?;
        for _ in 0..scrapes {
            let asked = Instant::now();
            read(metrics)?;
            took.push(asked.elapsed().as_secs_f64() * 1000.0);
        }
        busy.push((loop_nanos(pid)? - before) as f64 / f64::from(scrapes) / 1e6);
        whole.push(median(&took));
    }
    let row = |what: &str, rounds| Row::new(Work::Scrape.key(), format!("{what}, {case}"), Unit::Millis, rounds);
    run.row(row("event loop", busy).wanted(Goal::AtMost(BUSY_MS_MAX)));
    run.row(row("until it is read", whole));
    Ok(())
}

/// One scrape, as Prometheus does it.
fn read(metrics: &Path) -> anyhow::Result<()> {
    let mut stream = UnixStream::connect(metrics).context("cannot read the metrics")?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("# EOF\n"), "this is no answer: {text}");
    Ok(())
}

/// How long the event loop, which is the main thread, has run on a processor.
fn loop_nanos(pid: u32) -> anyhow::Result<u64> {
    let file = format!("/proc/{pid}/task/{pid}/schedstat");
    let text = fs::read_to_string(&file).with_context(|| file.clone())?;
    let first = text.split_whitespace().next().and_then(|number| number.parse().ok());
    first.with_context(|| format!("{file} is not understood"))
}
