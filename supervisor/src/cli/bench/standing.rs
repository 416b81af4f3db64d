//! What it costs to do nothing: memory, wake-ups, processor time.

use std::collections::VecDeque;
use std::fs;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use workhall_protocol::args::Payload;
use workhall_protocol::client::Ticket;
use workhall_protocol::messages::{Address, Call, ReceiptBody};
use workhall_protocol::wire::Encoding;

use super::figures::{Goal, Rounds, Row, Unit, median};
use super::server::{Caller, Server, ask, report};
use super::words::arguments;
use super::{Run, Work};

/// When a message is due that has expired by then, in milliseconds: that gives a name without a process.
const DUE_MS: u64 = 2;
const EXPIRES_MS: u64 = 1;
/// How long a change may take to be seen.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(20);
/// How long what was started may take to come to rest; and where it is only to be seen that it works.
const REST: Duration = Duration::from_millis(1500);
const REST_QUICK: Duration = Duration::from_millis(100);
/// How many names a page of the list has, and how many pages are asked for from all over the list.
const PAGE: u64 = 1000;
const PAGES: u64 = 10;
/// So many names at a time have a message: what they need while they have one stays with the allocator, and would be
/// taken for what they need later.
const NAMES_AT_A_TIME: u64 = 1000;
/// How often it is looked whether these have expired.
const SHORT_LOOK: Duration = Duration::from_millis(1);
/// So many processes at a time are started and waited for.
const STARTS_AT_A_TIME: usize = 50;

/// `memory`: of the supervisor alone, as the kernel counts what no other process shares.
pub fn memory(run: &mut Run) -> anyhow::Result<()> {
    let payload = run.options.payload[0];
    let (mut names, mut pending, mut processes, mut own) = (Rounds::new(), Rounds::new(), Rounds::new(), Rounds::new());
    let mut pages = Rounds::new();
    for _ in 0..run.options.rounds {
        let count = run.options.names;
        let server = Server::start(&run.dir, run.options.window)?;
        let (pid, mut client) = (pid(&server)?, server.client()?);
        // What every supervisor has once, whatever it holds.
        ask(&mut client, &server.name("holder"), "count", Payload::no_args())?;
        let before = private(pid)?;
        make_names(&mut client, &server, 0..count, run)?;
        names.push((private(pid)?.saturating_sub(before)) as f64 / count as f64);
        let mut took = Rounds::new();
        for after in (0..PAGES).map(|page| page * count / PAGES) {
            let asked = Instant::now();
            report(client.list_page(Some(after), Some(PAGE))?)?;
            took.push(asked.elapsed().as_secs_f64() * 1000.0);
        }
        pages.push(median(&took));
        drop((client, server));

        let server = Server::start(&run.dir, run.options.window)?;
        let (pid, mut client) = (self::pid(&server)?, server.client()?);
        let holder = server.name("holder");
        ask(&mut client, &holder, "count", Payload::no_args())?;
        client.call(Call::new(&*holder, "hold", Payload::no_args()))?;
        let args = arguments(Encoding::Binary, payload)?;
        let before = private(pid)?;
        post(&mut client, 0..count, run, |_| Call::new(&*holder, "take", args.clone()))?;
        pending.push((private(pid)?.saturating_sub(before)) as f64 / count as f64);
        drop((client, server));

        // Each with a supervisor of its own: memory that was freed would hide what is needed next.
        let server = Server::start(&run.dir, run.options.window)?;
        let (pid, mut client) = (self::pid(&server)?, server.client()?);
        ask(&mut client, &server.name("holder"), "count", Payload::no_args())?;
        let many = run.many() as u64;
        let before = private(pid)?;
        let pids = make_processes(&mut client, &server, many, run)?;
        std::thread::sleep(if run.options.quick { REST_QUICK } else { REST });
        processes.push((private(pid)?.saturating_sub(before)) as f64 / many as f64);
        let each: Rounds =
            pids.iter().take(32).map(|pid| private(*pid).map(|bytes| bytes as f64)).collect::<Result<_, _>>()?;
        own.push(median(&each));
        run.step();
    }
    let (count, many) = (super::super::output::count(run.options.names), run.many());
    let row = |case: String, rounds| Row::new(Work::Memory.key(), case, Unit::Bytes, rounds);
    run.row(row(format!("per name without a process, of {count}"), names).wanted(Goal::AtMost(200.0)));
    run.row(
        Row::new(Work::Memory.key(), format!("a page of {PAGE} of them, listed"), Unit::Millis, pages)
            .wanted(Goal::AtMost(50.0)),
    );
    let goal = (payload <= 64).then_some(Goal::AtMost(128.0));
    run.row(row(format!("per pending message of {payload} B, of {count}"), pending).wanted(goal));
    run.row(row(format!("per idle process, of {many}, in the supervisor"), processes));
    run.row(row("of an idle Rust worker itself".into(), own));
    Ok(())
}

/// `idle`: nothing is called, nothing happens.
pub fn idle(run: &mut Run) -> anyhow::Result<()> {
    let server = Server::start(&run.dir, run.options.window)?;
    let (pid, mut client) = (pid(&server)?, server.client()?);
    make_processes(&mut client, &server, run.many() as u64, run)?;
    std::thread::sleep(if run.options.quick { REST_QUICK } else { REST });
    let period = run.options.idle;
    let (wakeups, busy) = (sleeps(pid)?, processor_nanos(pid)?);
    let until = Instant::now() + period;
    while Instant::now() < until {
        run.stop.check()?;
        std::thread::sleep(until.saturating_duration_since(Instant::now()).min(LOOK));
    }
    let (wakeups, busy) = (sleeps(pid)? - wakeups, processor_nanos(pid)? - busy);
    let case = |what| format!("{what} of the supervisor in {period:?}, {} idle workers", run.many());
    let (first, second) = (case("wake-ups"), case("processor time"));
    let key = Work::Idle.key();
    run.row(Row::new(key, first, Unit::Times, vec![wakeups as f64]).wanted(Goal::AtMost(0.0)));
    run.row(Row::new(key, second, Unit::Micros, vec![busy as f64 / 1000.0]));
    run.step();
    Ok(())
}

/// Names that have no process and no message: each is made by a message that has expired when it is due.
pub fn make_names(client: &mut Caller, server: &Server, numbers: Range<u64>, run: &Run) -> anyhow::Result<()> {
    let mut first = numbers.start;
    while first < numbers.end {
        let last = numbers.end.min(first + NAMES_AT_A_TIME);
        post(client, first..last, run, |at| Call {
            in_ms: Some(DUE_MS),
            expires_ms: Some(EXPIRES_MS),
            ..Call::new(Address::Name(server.name(format_args!("n{at:07}")).into()), "take", Payload::no_args())
        })?;
        let until = Instant::now() + PATIENCE;
        loop {
            let status = report(client.status()?)?;
            if status["ledger"]["pending"] == 0 {
                ensure!(status["counts"]["workers"].as_u64() >= Some(last), "there are not {last} names: {status}");
                break;
            }
            ensure!(Instant::now() < until, "messages have not expired: {status}");
            std::thread::sleep(SHORT_LOOK);
        }
        first = last;
    }
    Ok(())
}

/// Posts so many, and takes all receipts.
pub fn post<'a>(
    client: &mut Caller,
    numbers: Range<u64>,
    run: &Run,
    call: impl Fn(u64) -> Call<'a>,
) -> anyhow::Result<()> {
    let mut sent = VecDeque::new();
    for at in numbers {
        sent.push_back(client.submit(call(at))?);
        if sent.len() >= 256 {
            run.stop.check()?;
            for ticket in sent.drain(..128) {
                accepted(client, ticket)?;
            }
        }
    }
    sent.into_iter().try_for_each(|ticket| accepted(client, ticket))
}

fn accepted(client: &mut Caller, ticket: Ticket) -> anyhow::Result<()> {
    match client.receipt(ticket)? {
        ReceiptBody::Accepted(_) => Ok(()),
        other => bail!("a message was not accepted: {other:?}"),
    }
}

/// Workers with an idle process each; their process ids.
pub fn make_processes(client: &mut Caller, server: &Server, count: u64, run: &Run) -> anyhow::Result<Vec<u32>> {
    let names: Vec<String> = (0..count).map(|at| server.name(format_args!("p{at}"))).collect();
    for names in names.chunks(STARTS_AT_A_TIME) {
        run.stop.check()?;
        let mut sent = Vec::new();
        for name in names {
            sent.push(client.submit(Call { wait: true, ..Call::new(&**name, "count", Payload::no_args()) })?);
        }
        for ticket in sent {
            client.outcome(ticket)?;
        }
    }
    let list = report(client.list()?)?;
    let rows = list.as_array().context("a list is an array")?.iter();
    let pids: Vec<u32> = rows
        .filter(|row| row["name"].as_str().is_some_and(|name| names.iter().any(|known| known == name)))
        .filter_map(|row| row["pid"].as_u64().map(|pid| pid as u32))
        .collect();
    ensure!(pids.len() as u64 == count, "{} of {count} processes run", pids.len());
    Ok(pids)
}

/// The process whose memory is looked at.
pub fn pid(server: &Server) -> anyhow::Result<u32> {
    server.pid().context("only a supervisor of our own is looked at")
}

/// What a process has in memory and shares with nobody, in bytes.
fn private(pid: u32) -> anyhow::Result<u64> {
    let file = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&file).with_context(|| file.clone())?;
    let lines = text.lines().filter(|line| line.starts_with("Private_Clean:") || line.starts_with("Private_Dirty:"));
    let kib: Option<u64> = lines.map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum();
    Ok(kib.with_context(|| format!("{file} is not understood"))? << 10)
}

/// How often a process has gone to sleep: each time it was woken up before.
fn sleeps(pid: u32) -> anyhow::Result<u64> {
    let file = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&file).with_context(|| file.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|number| number.trim().parse().ok()).with_context(|| format!("{file} is not understood"))
}

/// How long a process has run on a processor, in nanoseconds.
fn processor_nanos(pid: u32) -> anyhow::Result<u64> {
    let file = format!("/proc/{pid}/schedstat");
    let text = fs::read_to_string(&file).with_context(|| file.clone())?;
    let first = text.split_whitespace().next().and_then(|number| number.parse().ok());
    first.with_context(|| format!("{file} is not understood"))
}
