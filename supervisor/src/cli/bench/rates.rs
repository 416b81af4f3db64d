//! How many messages a second: posted, executed, and one at a time.

use std::time::Duration;

use workhall_core::MESSAGE_OVERHEAD_BYTES;
use workhall_protocol::args::Payload;
use workhall_protocol::messages::Call;
use workhall_protocol::wire::Encoding;

use super::figures::{Goal, Rounds, Row, Unit};
use super::load::{Job, Lane, Load};
use super::server::{Caller, FloorDaemon, Server, ask, kill};
use super::words::Answer;
use super::{Run, Work};

/// How long a round takes about, unless it is said how many messages it has.
const ROUND: Duration = Duration::from_millis(400);
/// The messages of the warm-up, per lane.
const WARM_UP: u64 = 200;

/// So many messages a round has at most, and so many and so many bytes at a supervisor that is not ours: all may wait at
/// once, and find room in the class that `--help` shows and in the bounds of one sender.
const MESSAGES_MAX: u64 = 10_000_000;
const ELSEWHERE_MAX: u64 = 400_000;
const ELSEWHERE_BYTES_MAX: u64 = 128 << 20;

/// A case: so many clients, each with a worker of its own.
struct Case {
    work: Work,
    title: String,
    lanes: usize,
    payload: usize,
    encoding: Encoding,
    answer: Answer,
    write_each: bool,
    worker: &'static str,
    goal: Option<Goal>,
}

/// What a case is compared with.
enum Floor {
    Forward,
    Mailbox,
}

/// `execute`: posted, executed, settled, and the number confirmed by the worker.
pub fn execute(run: &mut Run, server: &Server) -> anyhow::Result<()> {
    let (window, several, many) = (run.options.window, run.options.several, run.many());
    for payload in run.options.payload.clone() {
        let size = payload as u64;
        for (lanes, least) in [(1, 0.5), (several, 0.5), (many, 0.8)] {
            // 4 KiB have a goal of their own; those of 64 B count for everything smaller.
            let goal = Goal::RatioAtLeast(if size >= 4096 { 0.7 } else { least });
            if lanes == many && size >= 4096 && lanes > several {
                continue;
            }
            let case = Case::new(Work::Execute, lanes, payload).wanted(goal);
            measure(run, server, case, Floor::Forward, window)?;
        }
    }
    let payload = run.options.payload[0];
    let each = Case { write_each: true, ..Case::new(Work::Execute, 1, payload) };
    measure(run, server, each.titled("one call per write").wanted(Goal::RatioAtLeast(0.85)), Floor::Forward, window)?;
    let each = Case { answer: Answer::ReceiptEach, ..Case::new(Work::Execute, 1, payload) };
    measure(run, server, each.titled("a receipt for each"), Floor::Forward, window)?;
    let unacknowledged = Case { answer: Answer::None, ..Case::new(Work::Execute, 1, payload) };
    measure(run, server, unacknowledged.titled("no receipts"), Floor::Forward, window)?;
    let json = Case { encoding: Encoding::Json, ..Case::new(Work::Execute, 1, payload) };
    measure(run, server, json.titled("JSON client"), Floor::Forward, window)
}

/// `one-at-a-time`: a worker as a script is.
pub fn one_at_a_time(run: &mut Run, server: &Server) -> anyhow::Result<()> {
    let window = run.options.window;
    let payload = run.options.payload[0];
    for (encoding, client) in [(Encoding::Binary, "binary client"), (Encoding::Json, "JSON client")] {
        let goal = (encoding == Encoding::Binary).then_some(Goal::RatioAtLeast(0.8));
        let case = Case { encoding, worker: "lines/", goal, ..Case::new(Work::OneAtATime, 1, payload) };
        measure(run, server, case.titled(client), Floor::Mailbox, window)?;
    }
    Ok(())
}

/// `post`: into the mailbox of a worker that is busy, until the last receipt.
pub fn post(run: &mut Run, server: &Server) -> anyhow::Result<()> {
    let payload = run.options.payload[0];
    let mut client = server.client()?;
    for (write_each, what) in [(false, "pipelined"), (true, "one call per write")] {
        let floor = FloorDaemon::echo(&run.dir)?;
        let mut theirs = Load::new(vec![Lane::to_floor(floor.socket(), payload)?])?;
        let (mut ours, mut beside) = (Rounds::new(), Rounds::new());
        let mut job = Job { messages: WARM_UP, window: Some(run.options.window.into()), write_each };
        let most = most(server, payload, 1);
        job.messages = run.messages(most, |messages| theirs.run(Job { messages, ..job }, &run.stop))?;
        for round in 0..run.options.rounds {
            let name = server.name(format_args!("post-{write_each}-{round}"));
            // Waits until it has begun: from then on nothing of the round is executed.
            hold(&mut client, &name)?;
            let lane = Lane::posting(server.socket(), &name, payload)?;
            let mut load = Load::new(vec![lane])?;
            load.run(Job { messages: WARM_UP, ..job }, &run.stop)?;
            ours.push(rate(job, 1, load.run(job, &run.stop)?));
            drop(load);
            kill(&mut client, &name, true)?;
            beside.push(rate(job, 1, theirs.run(job, &run.stop)?));
            run.step();
        }
        let case = format!("{what}, {payload} B");
        run.row(Row::new("post", case, Unit::PerSecond, ours).beside("an echo by the next process", beside));
    }
    Ok(())
}

fn hold(client: &mut Caller, name: &str) -> anyhow::Result<()> {
    ask(client, name, "count", Payload::no_args())?;
    client.call(Call::new(name, "hold", Payload::no_args()))?;
    Ok(())
}

impl Case {
    fn new(work: Work, lanes: usize, payload: usize) -> Case {
        let title = match lanes {
            1 => "one worker".to_string(),
            _ => format!("{lanes} clients, {lanes} workers"),
        };
        Case {
            work,
            title,
            lanes,
            payload,
            encoding: Encoding::Binary,
            answer: Answer::Receipt,
            write_each: false,
            worker: "",
            goal: None,
        }
    }

    fn titled(mut self, more: &str) -> Case {
        self.title = format!("{}, {more}", self.title);
        self
    }

    fn wanted(mut self, goal: Goal) -> Case {
        self.goal = Some(goal);
        self
    }
}

/// Rounds of ours and of the floor in turn.
fn measure(run: &mut Run, server: &Server, case: Case, floor: Floor, window: u32) -> anyhow::Result<()> {
    let name = |lane: usize| match case.worker {
        "" => server.name(format_args!("{}-{lane}", case.lanes)),
        worker => format!("{worker}{lane}"),
    };
    let ours = (0..case.lanes)
        .map(|lane| Lane::to_worker(server.socket(), case.encoding, &name(lane), case.payload, case.answer));
    let mut ours = Load::new(ours.collect::<anyhow::Result<_>>()?)?;
    let (daemon, what) = match floor {
        Floor::Forward => (FloorDaemon::forward(&run.dir, case.lanes)?, "through a forwarding process and back"),
        Floor::Mailbox => (FloorDaemon::mailbox(&run.dir, 1)?, "a mailbox daemon, one sent at a time"),
    };
    let theirs = (0..case.lanes).map(|_| Lane::to_floor(daemon.socket(), case.payload));
    let mut theirs = Load::new(theirs.collect::<anyhow::Result<_>>()?)?;
    let job = Job { messages: 0, window: Some(window.into()), write_each: case.write_each };
    // Without receipts nothing says how far the supervisor is; a floor always answers.
    let own_window = job.window.filter(|_| case.answer != Answer::None);
    let most = most(server, case.payload, case.lanes);
    let messages = run.messages(most, |messages| ours.run(Job { messages, window: own_window, ..job }, &run.stop))?;
    let job = Job { messages, ..job };
    theirs.run(job, &run.stop)?;
    let (mut subject, mut beside) = (Rounds::new(), Rounds::new());
    for _ in 0..run.options.rounds {
        subject.push(rate(job, case.lanes, ours.run(Job { window: own_window, ..job }, &run.stop)?));
        beside.push(rate(job, case.lanes, theirs.run(job, &run.stop)?));
        run.step();
    }
    let title = format!("{}, {} B", case.title, case.payload);
    run.row(Row::new(case.work.key(), title, Unit::PerSecond, subject).beside(what, beside).wanted(case.goal));
    Ok(())
}

impl Run {
    /// How many messages a round has: as many as were asked for, or as many as take about [`ROUND`]. Warms up.
    fn messages(&self, most: u64, mut job: impl FnMut(u64) -> anyhow::Result<Duration>) -> anyhow::Result<u64> {
        job(WARM_UP)?;
        let messages = match self.options.messages {
            Some(messages) => messages,
            None => {
                let mut messages = WARM_UP;
                // Twice: the first is too short to tell, where a thousand processes are busy or caches are cold.
                for part in [8, 1] {
                    let took = job(messages)?.as_secs_f64();
                    let fitting = messages as f64 * ROUND.as_secs_f64() / f64::from(part) / took;
                    messages = (fitting as u64).clamp(WARM_UP, most);
                }
                messages
            }
        };
        job(messages)?;
        Ok(messages)
    }
}

/// How many messages each lane has at most in a round.
fn most(server: &Server, payload: usize, lanes: usize) -> u64 {
    match server.pid() {
        Some(_) => MESSAGES_MAX,
        None => {
            let fitting = ELSEWHERE_BYTES_MAX / (payload as u64 + MESSAGE_OVERHEAD_BYTES);
            (fitting.min(ELSEWHERE_MAX) / lanes as u64).max(WARM_UP)
        }
    }
}

fn rate(job: Job, lanes: usize, took: Duration) -> f64 {
    (job.messages * lanes as u64) as f64 / took.as_secs_f64()
}
