//! How long one call takes until its result is there, with nothing else going on.

use hdrhistogram::Histogram;
use workhall_protocol::wire::Encoding;

use super::Run;
use super::figures::{Goal, Rounds, Row, Unit};
use super::load::Lane;
use super::server::{FloorDaemon, Server};
use super::words::Answer;
use crate::sys::Pinned;

/// Calls of a round, unless it is said how many.
const CALLS: u64 = 5_000;
/// Calls of the warm-up, of that many in a round.
const WARM_UP_PART: u64 = 10;
/// The longest call that is told from a longer one, in nanoseconds, and to how many digits: to a thousandth.
const LONGEST: u64 = 60_000_000_000;
const DIGITS: u8 = 3;

/// `round-trip`: on one processor, where it is ours to say that, and on all.
pub fn round_trip(run: &mut Run, existing: Option<&Server>) -> anyhow::Result<()> {
    if let Some(server) = existing {
        return on(run, server, "all CPUs", false);
    }
    {
        // What is started while this is held is pinned with us.
        let _pinned = Pinned::new()?;
        let server = Server::start(&run.dir, run.options.window)?;
        on(run, &server, "one CPU", true)?;
    }
    let server = Server::start(&run.dir, run.options.window)?;
    on(run, &server, "all CPUs", false)
}

fn on(run: &mut Run, server: &Server, place: &str, counts: bool) -> anyhow::Result<()> {
    for (at, payload) in run.options.payload.clone().into_iter().enumerate() {
        let goals = counts && at == 0;
        between(run, server, payload, Encoding::Binary, place, goals)?;
        if at == 0 {
            between(run, server, payload, Encoding::Json, &format!("{place}, JSON client"), false)?;
        }
    }
    Ok(())
}

fn between(
    run: &mut Run,
    server: &Server,
    payload: usize,
    encoding: Encoding,
    place: &str,
    goals: bool,
) -> anyhow::Result<()> {
    let calls = run.options.messages.unwrap_or(CALLS);
    let floor = FloorDaemon::mailbox(&run.dir, 1)?;
    let mut ours = Lane::to_worker(server.socket(), encoding, &server.name("echo"), payload, Answer::Outcome)?;
    let mut theirs = Lane::to_floor(floor.socket(), payload)?;
    let new = || Histogram::<u64>::new_with_max(LONGEST, DIGITS);
    for lane in [&mut ours, &mut theirs] {
        lane.round_trips(calls.div_ceil(WARM_UP_PART), &mut new()?, &run.stop)?;
    }
    let (mut all, mut all_theirs) = (new()?, new()?);
    let mut rounds: [Rounds; 4] = Default::default();
    for _ in 0..run.options.rounds {
        let (mut one, mut other) = (new()?, new()?);
        ours.round_trips(calls, &mut one, &run.stop)?;
        theirs.round_trips(calls, &mut other, &run.stop)?;
        let micros = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        let figures = [micros(&one, 0.5), micros(&other, 0.5), micros(&one, 0.99), micros(&other, 0.99)];
        for (rounds, figure) in rounds.iter_mut().zip(figures) {
            rounds.push(figure);
        }
        all.add(&one)?;
        all_theirs.add(&other)?;
        run.step();
    }
    let [median, median_floor, late, late_floor] = rounds;
    let what = "a mailbox daemon";
    for (name, ours, theirs, most) in [("p50", median, median_floor, 1.15), ("p99", late, late_floor, 1.3)] {
        let case = format!("{place}, {payload} B, {name}");
        let goal = goals.then_some(Goal::RatioAtMost(most));
        run.row(Row::new("round-trip", case, Unit::Micros, ours).beside(what, theirs).wanted(goal).spread(all.clone()));
    }
    Ok(())
}
