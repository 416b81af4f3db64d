//! The ledger: every accepted message has exactly one fate (rules L1–L3).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::signal::Signal;
use serde_json::json;
use workhall_protocol::args::Payload;
use workhall_protocol::messages::{Call, DeadReason, Kill, OutcomeBody, ReceiptBody};
use workhall_tests::harness::{Supervisor, until, workspace};

/// Set at the end of a test that fails too, so that nobody waits for it.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Calls, kills and crashes from several sides, and a look at the ledger whenever there is time.
#[test]
fn l01_the_ledger_balances_at_any_instant() {
    let supervisor = Supervisor::start();
    let (over, accepted) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for name in ["a", "b"] {
            let (supervisor, over, accepted) = (&supervisor, &over, &accepted);
            scope.spawn(move || {
                let mut client = supervisor.client();
                for round in 0_u64.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let expires_ms = (round % 4 == 0).then_some(1);
                    let method = match round % 50 {
                        49 => "die",
                        at if at % 7 == 0 => "fail",
                        _ => "count",
                    };
                    let args = if method == "fail" { json!(["x"]) } else { json!([]) };
                    let call = Call { expires_ms, ..Call::new(name, method, Payload::from_json(&args).unwrap()) };
                    accepted.fetch_add(
                        u64::from(matches!(client.call(call), Ok(ReceiptBody::Accepted(_)))),
                        Ordering::Relaxed,
                    );
                    if round % 64 == 63 {
                        // With and without a successor, a drain, a kill at once.
                        let kind = round / 64;
                        let kill = Kill {
                            worker: Some(name.into()),
                            drain: kind % 3 == 1,
                            now: kind % 3 == 2,
                            ..Kill::default()
                        };
                        let ticket = client.kill(kill).unwrap();
                        client.receipt(ticket).unwrap();
                    }
                }
            });
        }
        let _over = SetAtEnd(&over);
        let mut looks = 0;
        until("every fate was met and many looks were taken", || {
            // Fails if it does not balance.
            let ledger = supervisor.status()["ledger"].clone();
            looks += 1;
            let met = |term: &str| ledger[term].as_u64().is_some_and(|count| count > 0);
            looks > 20 && ["done", "failed", "discarded", "expired", "dead"].into_iter().all(met)
        });
    });
    for name in ["a", "b"] {
        supervisor.cli(&["kill", name, "--now", "--wait"]).ok();
    }
    let ledger = &supervisor.status()["ledger"];
    assert_eq!((&ledger["pending"], &ledger["running"]), (&0.into(), &0.into()));
    assert_eq!(ledger["accepted"], accepted.load(Ordering::Relaxed), "what was accepted is what was said to be");
}

#[test]
fn l01_what_is_refused_or_ignored_stands_beside_the_ledger() {
    let supervisor = Supervisor::start();
    supervisor.cli(&["call", "unknown", "m"]).fails(3, &["no_class"]);
    supervisor.cli(&["call", "%9", "m"]).ok();
    supervisor.cli(&["kill", "a"]).ok();
    let status = supervisor.status();
    let counted = (&status["ledger"]["accepted"], &status["refused"], &status["ignored"]);
    assert_eq!(counted, (&0.into(), &1.into(), &2.into()));
}

#[test]
fn l02_what_did_not_begin_has_not_run() {
    let mut supervisor = Supervisor::start();
    let mut client = supervisor.client();
    let held = supervisor.hold("a");
    let discarded = client.submit(Call { wait: true, ..Call::new("a", "count", Payload::no_args()) }).unwrap();
    let expired = Call { wait: true, expires_ms: Some(1), ..Call::new("a", "count", Payload::no_args()) };
    let expired = client.submit(expired).unwrap();
    assert_eq!(client.outcome(expired).unwrap(), OutcomeBody::Expired { may_have_run: false });
    supervisor.cli(&["kill", "a"]).ok();
    assert_eq!(client.outcome(discarded).unwrap(), OutcomeBody::Discarded { may_have_run: false });
    held.release();
}

#[test]
fn l02_what_was_interrupted_may_have_run() {
    let mut supervisor = Supervisor::start();
    let (begun, go) = (supervisor.path("begun"), supervisor.path("go"));
    let mut client = supervisor.client();
    let args = Payload::encode(&(&begun, &go)).unwrap();
    let block = client.submit(Call { wait: true, ..Call::new("a", "block", args) }).unwrap();
    client.flush().unwrap();
    supervisor.until("the task has begun", |_| begun.exists());
    supervisor.cli(&["kill", "a", "--now", "--wait"]).ok();
    assert_eq!(client.outcome(block).unwrap(), OutcomeBody::Discarded { may_have_run: true });
}

#[test]
fn l02_exactly_the_message_that_was_executed_at_a_crash_may_have_run() {
    let mut supervisor = Supervisor::start();
    let mut client = supervisor.client();
    let held = supervisor.hold("a");
    let [before, dies, behind] = ["count", "die", "count"]
        .map(|method| client.submit(Call { wait: true, ..Call::new("a", method, Payload::no_args()) }).unwrap());
    client.flush().unwrap();
    held.release();
    assert_eq!(client.outcome(before).unwrap(), OutcomeBody::Done { result: Payload::encode(&1).unwrap() });
    let OutcomeBody::Dead { may_have_run: true, .. } = client.outcome(dies).unwrap() else { panic!("it has run") };
    let result = Payload::encode(&1).unwrap();
    assert_eq!(client.outcome(behind).unwrap(), OutcomeBody::Done { result }, "by the next life");
}

#[test]
fn l02_what_a_shutdown_abandons_says_whether_it_has_begun() {
    let mut supervisor =
        Supervisor::with_config("supervisor.shutdown_grace = '50ms'\nclass.a.exec = ['{bin}/test-worker']");
    let (begun, go) = (supervisor.path("begun"), supervisor.path("go"));
    let mut client = supervisor.client();
    let args = Payload::encode(&(&begun, &go)).unwrap();
    let running = client.submit(Call { wait: true, ..Call::new("a", "block", args) }).unwrap();
    let pending = client.submit(Call { wait: true, ..Call::new("a", "count", Payload::no_args()) }).unwrap();
    client.flush().unwrap();
    supervisor.until("the task has begun", |_| begun.exists());
    supervisor.signal(Signal::SIGTERM);
    for (ticket, begun) in [(pending, false), (running, true)] {
        let outcome = client.outcome(ticket).unwrap();
        let OutcomeBody::Dead { reason: DeadReason::Abandoned, may_have_run, .. } = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(may_have_run, begun);
    }
    assert!(supervisor.ended().success());
}

/// The documentation says plainly what a supervisor's violent end loses.
#[test]
fn l03_messages_are_in_memory_and_the_readme_says_so() {
    let readme = std::fs::read_to_string(workspace().join("README.md")).expect("there is a README.md");
    assert!(readme.contains("in memory"), "README.md does not say that messages are in memory");
}

#[test]
fn l03_a_supervisor_that_is_killed_has_lost_what_was_pending() {
    let mut supervisor = Supervisor::start();
    let held = supervisor.hold("a");
    supervisor.cli(&["call", "a", "count"]).ok();
    supervisor.signal(Signal::SIGKILL);
    supervisor.ended();
    held.release();
    supervisor.restart();
    assert_eq!(supervisor.status()["ledger"]["accepted"], 0);
    assert_eq!(supervisor.call(&["a", "count"]), 1);
}
