//! How long it takes until a process is there and has done something: at the first call, after a kill, after a crash,
//! and beside much that is pending.

use std::time::Instant;

use anyhow::{bail, ensure};
use workhall_protocol::args::Payload;
use workhall_protocol::messages::{Call, Kill, OutcomeBody};
use workhall_protocol::wire::Encoding;

use super::figures::{Goal, Rounds, Row, Unit, median};
use super::floor::bare_start;
use super::server::{Caller, Server, ask, kill};
use super::words::{PAYLOAD_MIN, arguments};
use super::{Run, Work};

/// Starts of a round, unless it is said how many messages one has.
const STARTS: u64 = 20;
/// Messages that are pending when a worker crashes.
const PENDING: u64 = 16;
/// Of these the much that is pending is made, in bytes.
const CHUNK: usize = 1 << 20;

/// `cold-start`, `kill-respawn`, `crash-respawn`: the three of each name in turn, so that all see the same machine.
pub fn starts(run: &mut Run, server: &Server, how: &str) -> anyhow::Result<()> {
    let mut client = server.client()?;
    let mut rounds: [Rounds; 4] = Default::default();
    // The first round is the warm-up.
    for round in 0..=run.options.rounds {
        let mut millis: [Rounds; 4] = Default::default();
        for at in 0..run.options.messages.unwrap_or(STARTS).min(STARTS) {
            run.stop.check()?;
            let name = server.name(format_args!("start-{}-{round}-{at}", std::process::id()));
            millis[0].push(bare()?);
            millis[1].push(cold(&mut client, &name)?);
            millis[2].push(after_kill(&mut client, &name)?);
            millis[3].push(after_crash(&mut client, &name)?);
            kill(&mut client, &name, false)?;
        }
        if round > 0 {
            for (rounds, millis) in rounds.iter_mut().zip(&millis) {
                rounds.push(median(millis));
            }
            run.step();
        }
    }
    let [bare, cold, killed, crashed] = rounds;
    let row = |work: Work, case: String, ours, beside: (&'static str, &Rounds), most| {
        let row = Row::new(work.key(), case, Unit::Millis, ours).beside(beside.0, beside.1.clone());
        row.wanted(Goal::RatioAtMost(most))
    };
    let rows = [
        (
            Work::ColdStart,
            row(Work::ColdStart, format!("first task ended{how}"), cold.clone(), ("a bare start", &bare), 1.4),
        ),
        (
            Work::KillRespawn,
            row(
                Work::KillRespawn,
                format!("successor's first task ended{how}"),
                killed,
                ("the cold start", &cold),
                1.25,
            ),
        ),
        (
            Work::CrashRespawn,
            row(
                Work::CrashRespawn,
                format!("next of {PENDING} pending ended, none lost{how}"),
                crashed,
                ("the cold start", &cold),
                1.25,
            ),
        ),
    ];
    for (work, row) in rows {
        if run.wants(work) {
            run.row(row);
        }
    }
    Ok(())
}

/// `spawn-pending`: starts by a supervisor that holds much, and by one that holds nothing.
pub fn beside_pending(run: &mut Run) -> anyhow::Result<()> {
    let (full, empty) = (Server::start(&run.dir, run.options.window)?, Server::start(&run.dir, run.options.window)?);
    let (mut to_full, mut to_empty) = (full.client()?, empty.client()?);
    let holder = full.name("holder");
    ask(&mut to_full, &holder, "count", Payload::no_args())?;
    to_full.call(Call::new(&*holder, "hold", Payload::no_args()))?;
    let chunk = arguments(Encoding::Binary, CHUNK)?;
    let chunks = run.options.pending.div_ceil(CHUNK as u64);
    for _ in 0..chunks {
        run.stop.check()?;
        let ticket = to_full.submit(Call::new(&*holder, "take", chunk.clone()))?;
        to_full.receipt(ticket)?;
    }
    let (mut ours, mut beside) = (Rounds::new(), Rounds::new());
    for round in 0..=run.options.rounds {
        let mut millis: [Rounds; 2] = Default::default();
        for at in 0..run.options.messages.unwrap_or(STARTS).min(STARTS) {
            run.stop.check()?;
            let name = format!("bench/start-{round}-{at}");
            millis[0].push(cold(&mut to_full, &name)?);
            millis[1].push(cold(&mut to_empty, &name)?);
            kill(&mut to_full, &name, false)?;
            kill(&mut to_empty, &name, false)?;
        }
        if round > 0 {
            ours.push(median(&millis[0]));
            beside.push(median(&millis[1]));
            run.step();
        }
    }
    kill(&mut to_full, &holder, true)?;
    let case = format!("{} pending", super::super::output::bytes(chunks * CHUNK as u64));
    let row = Row::new(Work::SpawnPending.key(), case, Unit::Millis, ours).beside("the same with none", beside);
    run.row(row.wanted(Goal::RatioAtMost(1.2)));
    Ok(())
}

fn bare() -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut child = bare_start()?;
    let took = millis(start);
    child.wait()?;
    Ok(took)
}

fn cold(client: &mut Caller, name: &str) -> anyhow::Result<f64> {
    let args = arguments(Encoding::Binary, PAYLOAD_MIN)?;
    let start = Instant::now();
    ask(client, name, "take", args)?;
    Ok(millis(start))
}

/// Both are sent together: the successor is called before the predecessor has ended.
fn after_kill(client: &mut Caller, name: &str) -> anyhow::Result<f64> {
    let args = arguments(Encoding::Binary, PAYLOAD_MIN)?;
    let start = Instant::now();
    client.kill(Kill { worker: Some(name.into()), ..Kill::default() })?;
    ask(client, name, "take", args)?;
    Ok(millis(start))
}

fn after_crash(client: &mut Caller, name: &str) -> anyhow::Result<f64> {
    let args = arguments(Encoding::Binary, PAYLOAD_MIN)?;
    let start = Instant::now();
    client.submit(Call::new(name, "die", Payload::no_args()))?;
    let next = client.submit(Call { wait: true, ..Call::new(name, "take", args.clone()) })?;
    for _ in 1..PENDING {
        client.submit(Call::new(name, "take", args.clone()))?;
    }
    let outcome = client.outcome(next)?;
    let took = millis(start);
    if !matches!(outcome, OutcomeBody::Done { .. }) {
        bail!("behind a crash: {outcome:?}");
    }
    let executed: u64 = ask(client, name, "count", Payload::no_args())?.decode()?;
    ensure!(executed == PENDING, "of {PENDING} messages behind a crash {executed} were executed");
    Ok(took)
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}
