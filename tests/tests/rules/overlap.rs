//! Never two processes of one name (rule K8), whatever ends them, and every message accounted for (rule L1).

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use workhall_protocol::messages::{Call, Kill, OutcomeBody, ReceiptBody};
use workhall_tests::harness::{Supervisor, payload};

/// Ends of a process, one after the other.
const ENDS: [&str; 8] = ["kill", "now", "kill -9", "die", "exit", "panic", "drain", "kill and call at once"];

fn call(method: &'static str) -> Call<'static> {
    let args = match method {
        "exit" => payload(&(1,)),
        _ => payload(&()),
    };
    Call::new("a", method, args)
}

fn kill_message(flags: &str) -> Kill<'static> {
    Kill { worker: Some("a".into()), wait: true, now: flags == "now", drain: flags == "drain", ..Kill::default() }
}

fn word(outcome: &OutcomeBody<'_>) -> &'static str {
    match outcome {
        OutcomeBody::Done { .. } => "done",
        OutcomeBody::Failed { .. } => "failed",
        OutcomeBody::Discarded { .. } => "discarded",
        OutcomeBody::Expired { .. } => "expired",
        OutcomeBody::Dead { .. } => "dead",
        other => panic!("{other:?}"),
    }
}

#[test]
fn k08_two_hundred_ends_and_starts_never_overlap() {
    let supervisor = Supervisor::start();
    let mut client = supervisor.client();
    let mut fates: BTreeMap<&str, u64> = BTreeMap::new();
    for round in 0..200 {
        let mut tickets = Vec::new();
        for method in ["count", "pid", "count"] {
            tickets.push(client.submit(Call { wait: true, ..call(method) }).unwrap());
        }
        // With a healthy life behind it a crash delays nothing.
        client.outcome(tickets.remove(0)).map(|outcome| *fates.entry(word(&outcome)).or_default() += 1).unwrap();
        let end = ENDS[round % ENDS.len()];
        match end {
            "kill" | "now" | "drain" => drop(client.kill(kill_message(end)).unwrap()),
            "kill -9" => {
                let pid = supervisor.worker_pid("a");
                kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            }
            "kill and call at once" => {
                for _ in 0..3 {
                    client.kill(kill_message("kill")).unwrap();
                    tickets.push(client.submit(Call { wait: true, ..call("count") }).unwrap());
                }
            }
            method => tickets.push(client.submit(Call { wait: true, ..call(method) }).unwrap()),
        }
        for ticket in tickets {
            let outcome = client.outcome(ticket).unwrap();
            *fates.entry(word(&outcome)).or_default() += 1;
        }
        supervisor.no_overlap();
    }
    let status = supervisor.status();
    for (fate, count) in &fates {
        assert_eq!(status["ledger"][fate], *count, "{fates:?} in {status}");
    }
    assert_eq!(status["ledger"]["accepted"], fates.values().sum::<u64>());
    assert!(fates["done"] > 300 && fates["dead"] >= 75, "{fates:?}");
}

/// Several clients call without a pause, while others end the worker in all ways there are.
#[test]
fn k08_many_clients_at_once_never_see_two_processes() {
    const LASTS: Duration = Duration::from_secs(4);
    let supervisor = Supervisor::start();
    let fates: Mutex<BTreeMap<&str, u64>> = Mutex::default();
    let (over, kills) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (mut client, fates, over) = (supervisor.client(), &fates, &over);
            scope.spawn(move || {
                for round in 0_u64.. {
                    if over.load(Relaxed) {
                        return;
                    }
                    let method = match (thread, round % 8) {
                        (0, 7) => "die",
                        (1, 7) => "fail",
                        _ => "count",
                    };
                    let tickets: Vec<_> = (0..10)
                        .map(|at| {
                            let method = if at == 5 { method } else { "count" };
                            client.submit(Call { wait: true, ..call(method) }).unwrap()
                        })
                        .collect();
                    for ticket in tickets {
                        let outcome = client.outcome(ticket).expect("a call by name is accepted");
                        *fates.lock().unwrap().entry(word(&outcome)).or_default() += 1;
                    }
                }
            });
        }
        let (mut client, fates, over, kills, supervisor) = (supervisor.client(), &fates, &over, &kills, &supervisor);
        scope.spawn(move || {
            let start = Instant::now();
            for end in ["kill", "now", "drain", "kill -9", "kill", "twice"].into_iter().cycle() {
                if start.elapsed() > LASTS {
                    break;
                }
                match end {
                    "kill -9" => {
                        let (_, outcome) = client.call_and_wait(call("pid")).unwrap();
                        let outcome = outcome.expect("a call by name is accepted");
                        *fates.lock().unwrap().entry(word(&outcome)).or_default() += 1;
                        let OutcomeBody::Done { result } = outcome else { continue };
                        let pid = result.decode().unwrap();
                        // Others may have ended it since.
                        if supervisor.processes().contains(&pid) {
                            let _ended = kill(Pid::from_raw(pid), Signal::SIGKILL);
                        }
                    }
                    _ => {
                        let first = client.kill(kill_message(end)).unwrap();
                        let second = (end == "twice").then(|| client.kill(kill_message("now")).unwrap());
                        for ticket in [Some(first), second].into_iter().flatten() {
                            if let ReceiptBody::Killed { .. } = client.receipt(ticket).unwrap() {
                                assert!(matches!(client.outcome(ticket).unwrap(), OutcomeBody::Killed(_)));
                                kills.fetch_add(1, Relaxed);
                            }
                        }
                    }
                }
            }
            over.store(true, Relaxed);
        });
    });
    supervisor.no_overlap();
    supervisor.cli(&["wait", "a", "--idle", "--timeout", "60s"]).ok();
    let fates = fates.into_inner().unwrap();
    let status = supervisor.status();
    assert_eq!(status["ledger"]["accepted"], fates.values().sum::<u64>(), "{fates:?} in {status}");
    for (fate, count) in &fates {
        assert_eq!(status["ledger"][fate], *count, "{fates:?} in {status}");
    }
    assert_eq!((&status["ledger"]["pending"], &status["ledger"]["running"]), (&0.into(), &0.into()));
    assert!(kills.load(Relaxed) > 10 && status["counts"]["spawned"].as_u64().unwrap() > 20, "{status}");
}
