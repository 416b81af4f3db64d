//! Those who act: clients that call and kill, and one who sends signals to processes.

use std::collections::VecDeque;
use std::fs;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use workhall_protocol::Client;
use workhall_protocol::messages::{OutcomeBody, ReceiptBody};

use super::fates::{Fate, Message};
use super::speaker::{Ask, Error, Heard, Speaker, Whom};
use super::{PATIENCE, Run, any_name};
use crate::sim::Rng;

/// How many requests go out at one go, at most.
const BURST_MAX: u64 = 25;
/// How many numbers a client remembers: some of them name nobody any more.
const NUMBERS_MAX: usize = 40;
/// How long a process is stopped at most.
const STOPPED_MS: u64 = 300;

/// Calls and kills until the run is over. Each third client speaks JSON by hand.
pub fn client(run: &Run, mut rng: Rng, number: u64) {
    let mut numbers = VecDeque::new();
    let Some(mut speaker) = Speaker::connect(run, number % 3 == 2) else { return };
    while !run.is_over() {
        let count = if rng.percent(60) { rng.between(1, 3) } else { rng.between(1, BURST_MAX) };
        let asks: Vec<Ask> = (0..count).map(|_| draw(&mut rng, &numbers)).collect();
        let result = burst(run, &mut speaker, &asks, &mut numbers);
        if let Err(error) = result {
            match error {
                Error::Ended(_) if run.may_be_dead(speaker.supervisor) => {}
                error => run.violation(format!("a client got no answer: {error}; it had asked {asks:?}")),
            }
            numbers.clear();
            match Speaker::connect(run, rng.percent(33)) {
                Some(another) => speaker = another,
                None => return,
            }
        }
        if rng.percent(50) {
            std::thread::sleep(rng.up_to_ms(20));
        }
    }
}

/// Many messages at once, and no wait for their fates: what comes behind them finds full mailboxes.
pub fn last_words(run: &Run, rng: &mut Rng) {
    let mut speaker = match Speaker::try_connect(run, false) {
        Ok(speaker) => speaker,
        Err(error) => return run.violation(format!("nobody can connect any more: {error}")),
    };
    let asks: Vec<Ask> = (0..200)
        .map(|_| Ask::Call {
            whom: Whom::Name(any_name(rng)),
            method: "work",
            args: json!([rng.below(3000)]),
            wait: false,
            existing: false,
            expires_ms: None,
        })
        .collect();
    if let Err(error) = burst(run, &mut speaker, &asks, &mut VecDeque::new()) {
        run.violation(format!("the last words were not heard: {error}"));
    }
}

fn draw(rng: &mut Rng, numbers: &VecDeque<u64>) -> Ask {
    let whom = match numbers.is_empty() || rng.percent(80) {
        true => Whom::Name(any_name(rng)),
        false => Whom::Number(numbers[rng.below(numbers.len() as u64) as usize]),
    };
    if rng.percent(12) {
        let (drain, now) = rng.pick(&[(false, false), (false, false), (true, false), (false, true)]);
        let within_ms = rng.percent(30).then(|| rng.below(50));
        return Ask::Kill { whom, wait: rng.percent(60), within_ms, drain, now };
    }
    let micros = if rng.percent(80) { rng.below(1500) } else { rng.below(30_000) };
    let (method, args) = match rng.below(100) {
        0..=69 => ("work", json!([micros])),
        70..=76 => ("fail", json!([0])),
        77..=79 => ("crash", json!([rng.below(5)])),
        80..=86 => ("pass", json!([any_name(rng), micros])),
        87..=88 => ("kill", json!([any_name(rng)])),
        89..=91 => ("kill_self", json!([0])),
        92..=96 => ("leave", json!([rng.below(4)])),
        _ => ("big", json!([rng.below(100_000)])),
    };
    let expires_ms = rng.percent(10).then(|| rng.below(40));
    Ask::Call { whom, method, args, wait: rng.percent(80), existing: rng.percent(5), expires_ms }
}

/// Asks, and enters what comes into the book.
fn burst(run: &Run, speaker: &mut Speaker, asks: &[Ask], numbers: &mut VecDeque<u64>) -> Result<(), Error> {
    let supervisor = speaker.supervisor;
    let mut messages = vec![None; asks.len()];
    for ask in asks {
        let count = if matches!(ask, Ask::Call { .. }) { &run.counts.calls } else { &run.counts.kills };
        count.fetch_add(1, Relaxed);
    }
    let result = speaker.burst(asks, |index, heard| {
        let entered = match heard {
            Heard::Receipt(ReceiptBody::Accepted(accepted)) => {
                let message = Message { supervisor, id: accepted.message };
                messages[index] = Some(message);
                numbers.push_back(accepted.number);
                if numbers.len() > NUMBERS_MAX {
                    numbers.pop_front();
                }
                run.book().accepted(message, asks[index].waits())
            }
            Heard::Receipt(_) => Ok(()),
            Heard::Outcome(outcome) => told(run, &asks[index], messages[index], &outcome),
        };
        if let Err(violation) = entered {
            run.violation(violation);
        }
    });
    if result.is_err() {
        let mut book = run.book();
        messages.into_iter().flatten().for_each(|message| book.lost(message));
    }
    result
}

fn told(run: &Run, ask: &Ask, message: Option<Message>, outcome: &OutcomeBody<'_>) -> Result<(), String> {
    match (ask, message, Fate::of(outcome)) {
        (Ask::Call { .. }, Some(message), Some(fate)) => {
            if let OutcomeBody::Done { result } = outcome {
                // Every method returns the id of its message, or begins with it.
                let result = result.to_json().map_err(|error| format!("{message:?} returned no value: {error}"))?;
                let id = result.as_u64().or_else(|| result[0].as_u64());
                if id != Some(message.id) {
                    return Err(format!("{message:?} has the result of another: {result}"));
                }
            }
            run.book().settled(message, fate)
        }
        (Ask::Kill { whom, .. }, _, None) => match (outcome, whom) {
            (OutcomeBody::Killed(report), Whom::Name(name)) if report.worker != *name => {
                Err(format!("the kill of {name} tells of {report:?}"))
            }
            (OutcomeBody::Killed(report), Whom::Number(number)) if report.number != *number => {
                Err(format!("the kill of {number} tells of {report:?}"))
            }
            (OutcomeBody::Killed(_), _) => Ok(()),
            (other, _) => Err(format!("the outcome of a kill is {other:?}")),
        },
        _ => Err(format!("the outcome of {ask:?} is {outcome:?}")),
    }
}

// ---- signals --------------------------------------------------------------------------------

/// A process that was seen alive; its start time tells it from a later one with the same id.
struct Victim {
    pid: i32,
    started: u64,
}

impl Victim {
    /// None if it is not one of this run's.
    fn new(run: &Run, pid: i32) -> Option<Victim> {
        let mark = format!("WORKHALL_SOCKET={}", run.socket.display());
        let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let ours = environ.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes());
        ours.then_some(Victim { pid, started: started(pid)? })
    }

    fn signal(&self, signal: Signal) {
        if started(self.pid) == Some(self.started) {
            // It may end just now: then there is nobody to be told.
            let _sent = kill(Pid::from_raw(self.pid), signal);
        }
    }
}

/// When a process was started, in ticks since the boot; none if it does not live.
pub fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    (!matches!(fields.next()?, "Z" | "X")).then_some(())?;
    fields.nth(18)?.parse().ok()
}

/// Ends, stops and continues processes until the run is over.
pub fn signaller(run: &Run, mut rng: Rng) {
    let mut stopped: Vec<(Victim, Instant)> = Vec::new();
    let mut client = None;
    while !run.is_over() {
        if client.is_none() {
            client = Client::connect(&run.socket).ok();
        }
        let list = client.as_mut().and_then(|client| {
            client.stream().set_read_timeout(Some(PATIENCE)).ok()?;
            match client.list().ok()? {
                ReceiptBody::Report(rows) => rows.to_json().ok(),
                _ => None,
            }
        });
        match list {
            Some(rows) => strike(run, &mut rng, &rows, &mut stopped),
            None => client = None,
        }
        std::thread::sleep(rng.up_to_ms(60));
        stopped.retain(|(victim, until)| {
            let over = *until <= Instant::now();
            if over {
                victim.signal(Signal::SIGCONT);
            }
            !over
        });
    }
    for (victim, _) in stopped {
        victim.signal(Signal::SIGCONT);
    }
}

fn strike(run: &Run, rng: &mut Rng, rows: &Value, stopped: &mut Vec<(Victim, Instant)>) {
    let living = rows.as_array().into_iter().flatten().filter_map(|row| row["pid"].as_i64());
    let pids: Vec<i32> = living.map(|pid| pid as i32).collect();
    if pids.is_empty() {
        return;
    }
    let Some(victim) = Victim::new(run, rng.pick(&pids)) else { return };
    run.counts.signals.fetch_add(1, Relaxed);
    let signal = rng.pick(&[
        Signal::SIGKILL,
        Signal::SIGKILL,
        Signal::SIGSEGV,
        Signal::SIGTERM,
        Signal::SIGSTOP,
        Signal::SIGSTOP,
        Signal::SIGSTOP,
        Signal::SIGCONT,
    ]);
    victim.signal(signal);
    if signal == Signal::SIGSTOP {
        let until = Instant::now() + Duration::from_millis(rng.below(STOPPED_MS));
        // Some are killed while they are stopped.
        if rng.percent(10) {
            victim.signal(Signal::SIGKILL);
        }
        stopped.push((victim, until));
    }
}
