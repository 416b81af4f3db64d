//! The rules of those that no call creates, on the core alone with a virtual clock: processes for one method, attached
//! workers, and those that the configuration keeps running.

use std::sync::Arc;

use workhall_core::{Call, Change, Event, Kill, KillMode, Kind, Letters, Limits, Renewal, Run, RunReceipt, State};
use workhall_protocol::ids::{MessageId, Target, WorkerName, WorkerNumber};
use workhall_protocol::terms::{DeadReason, Exit, Ignored, Refusal, StartStage, Until};

use workhall_tests::driver::{Driver, EXIT_GRACE_MS, START_TIMEOUT_MS, TERM_GRACE_MS, kill, ms, post, process, reply};

const HOUR_MS: u64 = 3_600_000;

fn named(name: &str) -> Run<'_> {
    Run { name: Some(name), ..process() }
}

fn letters(d: &Driver) -> Vec<(u64, DeadReason, bool)> {
    let letters = d.core.dead_letters(Letters::All);
    letters.map(|letter| (letter.message.id.0, letter.reason, letter.may_have_run)).collect()
}

fn balanced(d: &Driver) {
    let ledger = d.core.ledger();
    assert!(ledger.balances(), "{ledger:?}");
    assert_eq!((ledger.pending, ledger.running), (0, 0), "{ledger:?}");
}

// ---- run ----------------------------------------------------------------------------------------

#[test]
fn p01_a_run_executes_one_method_and_ends_with_it() {
    let mut d = Driver::new();
    assert_eq!(d.runs(process()), ("c/run-2".into(), 2, 1));
    d.did(&["spawn %2.1"]);
    assert_eq!(d.view("c/run-2").kind, Kind::Run);
    d.ready(2, 1, 256);
    d.did(&["deliver #1 to %2.1"]);
    d.done(2, 1, 1);
    d.did(&["t50: done", "ask %2.1"]);
    d.dies(2, 1, Exit::Code(0), None);
    d.did(&["sweep %2.1"]);
    assert_eq!((d.core.worker_count(), d.core.places().0), (0, 0));
    balanced(&d);
    let stats = d.core.class_stats().iter().find(|class| &*class.class == "c").unwrap();
    assert!(stats.kills.0.iter().all(|count| *count == 0), "nobody has killed it");
}

#[test]
fn p01_its_end_is_bounded_like_that_of_a_kill() {
    let mut d = Driver::new();
    d.runs(process());
    d.ready(2, 1, 1);
    d.done(2, 1, 1);
    d.effects.clear();
    d.tick(EXIT_GRACE_MS);
    d.tick(EXIT_GRACE_MS + TERM_GRACE_MS);
    d.did(&["term %2.1", "kill %2.1"]);
}

#[test]
fn p01_made_names_do_not_collide() {
    let mut d = Driver::new();
    d.call("c/run-3", "m");
    assert_eq!(d.runs(process()).0, "c/run-4");
    assert_eq!(d.runs(process()).0, "c/run-5");
}

#[test]
fn p01_a_name_that_is_taken_is_refused_by_whoever_has_it() {
    let mut d = Driver::new();
    let refused = |receipt| matches!(receipt, RunReceipt::Refused(refused) if refused.reason == Refusal::NameTaken);
    d.runs(named("job"));
    assert!(refused(d.run(named("job"))));
    d.call("w", "m");
    assert!(refused(d.run(named("w"))), "a worker has a message");
    assert!(refused(d.run(Run { unique: true, ..named("w") })), "a worker is not what would run");
    d.ready(3, 1, 1);
    d.done(3, 1, 2);
    assert!(refused(d.run(named("w"))), "a worker has a process");
    d.dies(3, 1, Exit::Code(0), None);
    assert!(refused(d.run(named("w"))), "a worker with neither has its number and its startup method");
    assert!(d.call_number(3, "m").is_some());
    d.kill("w", KillMode::Ladder);
    d.ready(3, 2, 1);
    d.dies(3, 2, Exit::Code(0), None);
    assert_eq!(d.runs(named("w")).1, 4);
    assert_eq!(d.core.counters().refused, 5);
}

#[test]
fn p01_unique_is_answered_with_the_one_that_runs() {
    let mut d = Driver::new();
    let unique = Run { unique: true, ..named("job") };
    assert_eq!(d.runs(unique).1, 2);
    let name = WorkerName::new("job").unwrap();
    assert_eq!(d.run(unique), RunReceipt::Running { name, number: WorkerNumber(2) });
    assert_eq!(d.core.ledger().accepted, 1, "nothing was posted");
    d.kill("job", KillMode::Ladder);
    let refused = d.run(unique);
    assert!(matches!(refused, RunReceipt::Refused(_)), "one that is to end is not one that runs: {refused:?}");
    d.ready(2, 1, 1);
    d.dies(2, 1, Exit::Code(0), None);
    assert_eq!(d.runs(unique).1, 3);
}

#[test]
fn p01_it_is_nobodys_to_call_by_name_or_number() {
    let mut d = Driver::new();
    d.runs(named("job"));
    d.ready(2, 1, 1);
    assert_eq!(d.refusal(post("job")), Refusal::NameTaken);
    assert_eq!(d.ignored(Call { target: Target::Number(WorkerNumber(2)), ..post("") }), Ignored::NoWorker);
    let from = Some(d.key(2, 1));
    assert_eq!(d.refusal(Call { from, ..post("job") }), Refusal::NameTaken, "not even its own");
    assert_eq!(d.core.ledger().accepted, 1);
}

#[test]
fn p01_it_calls_workers_under_its_name_and_number() {
    let mut d = Driver::new();
    d.runs(named("job"));
    d.ready(2, 1, 1);
    let (number, id) = d.accepted(Call { from: Some(d.key(2, 1)), ..post("w") });
    d.ready(number, 1, 1);
    let from = d.core.task(d.key(number, 1), MessageId(id)).unwrap().from.clone().unwrap();
    assert_eq!((from.name.as_str(), from.number.0), ("job", 2));
}

#[test]
fn p01_its_death_is_an_outcome_and_it_is_not_started_again() {
    let mut d = Driver::new();
    d.runs(process());
    d.ready(2, 1, 1);
    d.dies(2, 1, Exit::Signal(11), None);
    d.did(&["spawn %2.1", "deliver #1 to %2.1", "t50: crashed", "sweep %2.1"]);
    assert_eq!(letters(&d), [(1, DeadReason::Crashed, true)]);
    assert_eq!((d.core.worker_count(), d.core.next_deadline()), (0, None));
    balanced(&d);
    let stats = d.core.class_stats().iter().find(|class| &*class.class == "c").unwrap();
    assert_eq!(stats.crashes.0.iter().sum::<u64>(), 1);
}

#[test]
fn p01_one_that_cannot_be_started_is_dead_at_once_unless_its_class_retries() {
    for (attempts, lives) in [(1, 1), (3, 3)] {
        let mut d = Driver::with(|policy| policy.attempts = attempts);
        d.runs(process());
        for life in 1..=lives {
            while !d.keys.contains_key(&(2, life)) {
                d.now = d.core.next_deadline().expect("it waits for its delay");
                d.core.tick(d.now);
                d.take();
            }
            let (stage, detail) = (StartStage::Exec, "no such file".into());
            d.feed(Event::StartFailed { process: d.key(2, life), stage, detail });
            d.dies(2, life, Exit::Code(127), None);
        }
        assert_eq!(d.lines().last().map(String::as_str), Some("t50: never started"), "{attempts} attempts");
        assert_eq!((d.core.worker_count(), letters(&d)), (0, vec![(1, DeadReason::NeverStarted, false)]));
        balanced(&d);
    }
}

#[test]
fn p01_a_class_that_retries_gives_it_more_lives() {
    let mut d = Driver::with(|policy| policy.attempts = 2);
    d.runs(named("job"));
    d.ready(2, 1, 1);
    d.dies(2, 1, Exit::Signal(11), None);
    d.ready(2, 2, 1);
    assert_eq!(d.view("job").identity.number.0, 2);
    d.done(2, 2, 1);
    d.dies(2, 2, Exit::Code(0), None);
    assert_eq!((d.core.ledger().done, d.core.worker_count()), (1, 0));
}

#[test]
fn p01_kill_and_pause_are_those_of_any_worker() {
    let mut d = Driver::new();
    d.runs(named("job"));
    d.ready(2, 1, 1);
    d.effects.clear();
    d.core.pause(d.now, Target::Name("job")).unwrap();
    d.take();
    assert_eq!(d.view("job").state, State::Paused);
    assert!(d.core.resume(d.now, Target::Name("job")));
    d.take();
    d.did(&["pause %2.1", "continue %2.1"]);
    d.kill("job", KillMode::Now);
    let report = d.ends(2, 1, Exit::Signal(9));
    assert_eq!((report.number.0, report.discarded), (2, 0));
    assert_eq!((d.core.ledger().discarded, d.core.worker_count()), (1, 0), "it was running, and is no dead letter");
    balanced(&d);
}

#[test]
fn p01_a_kill_before_the_start_discards_its_message() {
    let mut d = Driver::with(|policy| policy.start_timeout = ms(START_TIMEOUT_MS));
    d.held = true;
    d.runs(named("job"));
    d.effects.clear();
    d.kill("job", KillMode::Ladder);
    assert_eq!((d.core.worker_count(), d.core.ledger().discarded), (0, 1));
    balanced(&d);
}

#[test]
fn p01_limits_hold_for_it_and_an_empty_method_is_that_of_its_class() {
    let mut d = Driver::with(|policy| policy.startup_method = Some("begin".into()));
    d.runs(Run { method: "", ..process() });
    d.ready(2, 1, 1);
    assert_eq!(d.core.task(d.key(2, 1), MessageId(1)).unwrap().method(), "begin");
    let reason = |receipt| match receipt {
        RunReceipt::Refused(refused) => Some(refused.reason),
        _ => None,
    };
    assert_eq!(reason(d.run(Run { args: &[0; 2000], ..process() })), Some(Refusal::TooLarge));
    assert_eq!(reason(d.run(named("a\nb"))), Some(Refusal::BadName));
    d.core.reload(d.now, Limits { processes: 1, ..Limits::default() }, false, |_, _| unreachable!("it is no worker"));
    assert_eq!(reason(d.run(process())), Some(Refusal::MailboxFull));
    d.policy.startup_method = None;
    let nothing = d.run(Run { method: "", ..process() });
    assert_eq!(nothing, RunReceipt::Ignored(Ignored::NoStartupMethod));
    d.core.shutdown(d.now, ms(100));
    assert_eq!(reason(d.run(process())), Some(Refusal::ShuttingDown));
}

#[test]
fn p01_a_new_configuration_leaves_it_alone_and_the_stop_ends_it() {
    let mut d = Driver::new();
    d.runs(named("job"));
    d.ready(2, 1, 1);
    d.effects.clear();
    let done = d.core.reload(d.now, Limits::default(), true, |_, _| Renewal::Gone);
    assert_eq!((done.retired, done.restarted), (0, 0));
    assert_eq!(d.core.classes_of_runs().collect::<Vec<_>>(), ["c"]);
    d.core.shutdown(d.now, ms(100));
    d.take();
    d.did(&["ask %2.1", "continue %2.1"]);
    d.dies(2, 1, Exit::Code(0), None);
    d.did(&["t50: abandoned", "sweep %2.1", "stopped"]);
    balanced(&d);
}

// ---- attach -------------------------------------------------------------------------------------

#[test]
fn p02_calls_reach_it_one_at_a_time_and_in_order() {
    let mut d = Driver::new();
    assert_eq!(d.attach("dev"), Ok(2));
    let view = d.view("dev");
    assert_eq!((view.kind, view.state, view.generation.0), (Kind::Attached, State::Idle, 1));
    for id in 1..=3 {
        assert_eq!(d.call("dev", "m"), (2, id));
    }
    d.did(&["deliver #1 to %2.1"]);
    d.done(2, 1, 1);
    d.feed(Event::Failed { process: d.key(2, 1), id: MessageId(2), error: "no" });
    d.done(2, 1, 3);
    d.did(&["deliver #2 to %2.1", "deliver #3 to %2.1"]);
    assert_eq!((d.core.ledger().done, d.core.ledger().failed, d.core.places().0), (2, 1, 0));
    assert_eq!(d.core.next_deadline(), None);
}

#[test]
fn k10_a_kill_of_an_attached_worker_only_empties_it() {
    for mode in [KillMode::Ladder, KillMode::Drain, KillMode::Now] {
        let mut d = Driver::new();
        d.attach("dev").unwrap();
        for _ in 0..3 {
            d.call("dev", "m");
        }
        d.effects.clear();
        d.kill("dev", mode);
        let discarded = if mode == KillMode::Drain { 0 } else { 2 };
        let receipt = format!("k100: {discarded} discarded");
        let end = format!("k100: ended by OnlyEmptied, current None, {discarded} discarded");
        d.did(&[&receipt, &end]);
        d.done(2, 1, 1);
        assert_eq!(d.call("dev", "m").0, 2, "the same worker goes on");
        assert_eq!(d.core.ledger().discarded, discarded);
    }
}

#[test]
fn p02_a_name_that_is_taken_or_has_messages_is_not_stolen() {
    let mut d = Driver::new();
    d.attach("dev").unwrap();
    assert_eq!(d.attach("dev"), Err(Refusal::NameTaken));
    d.call("w", "m");
    assert_eq!(d.attach("w"), Err(Refusal::NameTaken), "it has a process, and a message");
    d.ready(3, 1, 1);
    d.done(3, 1, 1);
    d.dies(3, 1, Exit::Code(0), None);
    assert_eq!(d.attach("w"), Err(Refusal::NameTaken), "it has neither, but its number and its startup method");
    d.kill("w", KillMode::Ladder);
    assert_eq!(d.attach("w"), Ok(4));
    d.accepted(Call { after: Some(ms(1000)), ..post("later") });
    assert_eq!(d.attach("later"), Err(Refusal::NameTaken), "it has no process, and a message for later");
    d.call("x", "m");
    d.core.pause(d.now, Target::Name("x")).unwrap();
    assert_eq!(d.attach("x"), Err(Refusal::NameTaken));
    d.runs(named("job"));
    assert_eq!(d.attach("job"), Err(Refusal::NameTaken));
    assert_eq!(d.attach("a\nb"), Err(Refusal::BadName));
}

#[test]
fn p02_while_it_is_attached_no_process_of_its_name_is_started() {
    let mut d = Driver::new();
    d.attach("dev").unwrap();
    for _ in 0..2 {
        d.call("dev", "m");
        d.tick(HOUR_MS);
    }
    assert!(d.lines().iter().all(|line| !line.starts_with("spawn")));
    d.feed(Event::Disconnected { process: d.key(2, 1) });
    d.effects.clear();
    d.call("dev", "m");
    d.did(&["spawn %3.1"]);
}

#[test]
fn p02_it_disappears_and_its_task_is_dead_and_what_waited_too() {
    let mut d = Driver::with(|policy| policy.attempts = 3);
    d.attach("dev").unwrap();
    for token in 1..=2 {
        d.accepted(Call { reply: reply(token), ..post("dev") });
    }
    d.accepted(Call { reply: reply(3), after: Some(ms(1000)), ..post("dev") });
    d.effects.clear();
    d.news.clear();
    d.feed(Event::Disconnected { process: d.key(2, 1) });
    let lines = d.lines();
    assert_eq!(lines, ["t1: dead of something else", "t2: abandoned", "t3: abandoned"]);
    let expected =
        [(1, DeadReason::Crashed, true), (2, DeadReason::Abandoned, false), (3, DeadReason::Abandoned, false)];
    assert_eq!(letters(&d), expected);
    assert_eq!(d.call_number(2, "m"), None, "its number names nobody");
    assert_eq!(d.core.worker_count(), 0);
    let first = d.news.first().map(|news| news.what.clone());
    assert_eq!(first, Some(Change::Disconnected));
    assert!(d.news.iter().any(|news| news.what == Change::Gone));
    balanced(&d);
}

#[test]
fn p02_it_leaves_at_once_and_what_waits_is_abandoned() {
    let mut d = Driver::new();
    d.attach("dev").unwrap();
    for token in 1..=2 {
        d.accepted(Call { reply: reply(token), ..post("dev") });
    }
    d.effects.clear();
    d.core.leave(d.now, d.key(2, 1), false);
    d.take();
    d.did(&["t2: abandoned", "ask %2.1"]);
    assert_eq!(d.refusal(Call { target: Target::Name("a\nb"), ..post("") }), Refusal::BadName);
    d.done(2, 1, 1);
    d.did(&["t1: done"]);
    d.feed(Event::Disconnected { process: d.key(2, 1) });
    assert_eq!(d.core.worker_count(), 0);
    balanced(&d);
    let stats = d.core.class_stats().iter().find(|class| &*class.class == "c").unwrap();
    assert!(stats.kills.0.iter().all(|count| *count == 0), "nobody has killed it");
}

#[test]
fn p02_it_leaves_by_a_drain_and_newer_calls_wait_for_its_successor() {
    let mut d = Driver::new();
    d.attach("dev").unwrap();
    d.call("dev", "m");
    d.call("dev", "m");
    d.effects.clear();
    d.core.leave(d.now, d.key(2, 1), true);
    d.take();
    assert_eq!(d.call("dev", "late"), (3, 3));
    d.done(2, 1, 1);
    d.did(&["deliver #2 to %2.1"]);
    d.done(2, 1, 2);
    d.did(&["ask %2.1"]);
    d.feed(Event::Disconnected { process: d.key(2, 1) });
    d.did(&["spawn %3.1"]);
    assert_eq!(d.core.ledger().done, 2);
}

#[test]
fn p02_a_kill_empties_one_that_drains_so_that_it_leaves() {
    let mut d = Driver::new();
    d.attach("dev").unwrap();
    d.call("dev", "m");
    d.call("dev", "m");
    d.core.leave(d.now, d.key(2, 1), true);
    d.take();
    d.kill_with(Kill { reply: None, ..kill("dev", KillMode::Ladder) });
    d.effects.clear();
    d.done(2, 1, 1);
    d.did(&["ask %2.1"]);
}

#[test]
fn p02_who_does_not_end_in_time_loses_its_connection_and_is_never_signalled() {
    let mut d = Driver::new();
    d.attach("dev").unwrap();
    d.core.leave(d.now, d.key(2, 1), false);
    d.take();
    d.did(&["ask %2.1"]);
    d.tick(EXIT_GRACE_MS);
    d.did(&["close %2.1"]);
    d.feed(Event::Disconnected { process: d.key(2, 1) });
    assert_eq!(d.core.worker_count(), 0);
    assert!(d.news.iter().all(|news| !matches!(news.what, Change::Signalled { .. })));
}

#[test]
fn p02_a_task_that_takes_too_long_is_timed_out_and_the_connection_closed() {
    let mut d = Driver::with(|policy| policy.task_timeout = Some(ms(100)));
    d.attach("dev").unwrap();
    for token in 1..=2 {
        d.accepted(Call { reply: reply(token), ..post("dev") });
    }
    d.effects.clear();
    d.tick(100);
    d.did(&["ask %2.1", "close %2.1"]);
    d.feed(Event::Disconnected { process: d.key(2, 1) });
    assert_eq!(letters(&d), [(1, DeadReason::TimedOut, true), (2, DeadReason::Abandoned, false)]);
    balanced(&d);
}

#[test]
fn p02_a_pause_gives_it_nothing_and_sends_no_signal() {
    let mut d = Driver::with(|policy| policy.task_timeout = Some(ms(100)));
    d.attach("dev").unwrap();
    d.call("dev", "m");
    d.core.pause(d.now, Target::Name("dev")).unwrap();
    d.take();
    d.done(2, 1, 1);
    d.call("dev", "m");
    d.did(&["deliver #1 to %2.1"]);
    assert_eq!(d.view("dev").state, State::Paused);
    d.core.resume(d.now, Target::Name("dev"));
    d.take();
    d.did(&["deliver #2 to %2.1"]);
    d.core.pause(d.now, Target::Name("dev")).unwrap();
    d.tick(100);
    d.did(&["ask %2.1", "close %2.1"]);
}

#[test]
fn p02_the_supervisors_stop_asks_it_to_end_and_closes_its_connection() {
    let mut d = Driver::new();
    d.attach("dev").unwrap();
    for token in 1..=2 {
        d.accepted(Call { reply: reply(token), ..post("dev") });
    }
    d.effects.clear();
    d.core.shutdown(d.now, ms(1000));
    d.take();
    d.did(&["t2: abandoned", "ask %2.1"]);
    d.tick(1000);
    d.did(&["close %2.1"]);
    d.feed(Event::Disconnected { process: d.key(2, 1) });
    d.did(&["t1: abandoned", "stopped"]);
    balanced(&d);
}

#[test]
fn p02_a_new_configuration_reaches_it_without_an_end() {
    let mut d = Driver::new();
    d.attach("dev").unwrap();
    let policy = workhall_core::Policy { mailbox_messages: 1, ..d.policy.clone() };
    let done = d.core.reload(d.now, Limits::default(), true, |_, _| Renewal::Changed(Arc::new(policy.clone())));
    assert_eq!((done.renewed, done.restarted, done.kept), (1, 0, 0));
    d.call("dev", "m");
    d.call("dev", "m");
    assert_eq!(d.refusal(post("dev")), Refusal::MailboxFull);
    let done = d.core.reload(d.now, Limits::default(), true, |_, _| Renewal::Gone);
    assert_eq!((done.retired, done.removed), (0, 0), "it has its name until it leaves");
    d.done(2, 1, 1);
    assert_eq!(d.call("dev", "m").0, 2);
}

#[test]
fn p02_it_is_waited_for_like_any_other() {
    let mut d = Driver::new();
    d.attach("dev").unwrap();
    let account = workhall_core::AccountId(0);
    d.core.wait(Target::Name("dev"), Until::Gone, account, reply(9).unwrap());
    d.take();
    d.did(&[]);
    d.feed(Event::Disconnected { process: d.key(2, 1) });
    d.did(&["t9: reached"]);
}

// ---- the main worker and those of boot ------------------------------------------------------------

fn boot(d: &Driver, names: &[&str]) -> Vec<(WorkerName, Arc<workhall_core::Policy>)> {
    let policy = Arc::new(d.policy.clone());
    names.iter().map(|name| (WorkerName::new(name).unwrap(), policy.clone())).collect()
}

fn keep(d: &mut Driver, names: &[&str]) -> Vec<String> {
    let boot = boot(d, names);
    let taken = d.core.keep_running(d.now, &boot);
    d.take();
    taken.into_iter().map(|name| name.to_string()).collect()
}

#[test]
fn w05_a_worker_of_boot_is_started_without_a_call_and_again_after_a_crash_under_backoff() {
    let mut d = Driver::new();
    assert!(keep(&mut d, &["b"]).is_empty());
    assert_eq!((d.view("b").kind, d.view("b").identity.number.0), (Kind::Boot, 2));
    d.ready(2, 1, 1);
    d.dies(2, 1, Exit::Signal(11), None);
    d.dies(2, 2, Exit::Signal(11), None);
    assert_eq!(d.view("b").state, State::Backoff);
    d.effects.clear();
    d.tick(HOUR_MS);
    d.did(&["spawn %2.3"]);
}

#[test]
fn k10_a_kill_of_a_worker_of_boot_only_empties_it_and_it_is_never_idle_for_too_long() {
    let mut d = Driver::with(|policy| policy.idle_timeout = Some(ms(100)));
    keep(&mut d, &["b"]);
    d.ready(2, 1, 8);
    for _ in 0..3 {
        d.call("b", "m");
    }
    d.effects.clear();
    d.kill("b", KillMode::Ladder);
    d.did(&["k100: 2 discarded", "k100: ended by OnlyEmptied, current None, 2 discarded"]);
    d.done(2, 1, 1);
    d.tick(HOUR_MS);
    assert_eq!(d.view("b").state, State::Idle);
    d.did(&[]);
}

#[test]
fn w05_a_new_configuration_adds_and_takes_back_workers_of_boot() {
    let mut d = Driver::with(|policy| policy.idle_timeout = Some(ms(100)));
    d.call("called", "m");
    d.ready(2, 1, 1);
    d.done(2, 1, 1);
    d.dies(2, 1, Exit::Code(0), None);
    d.effects.clear();
    keep(&mut d, &["called", "new"]);
    d.did(&["spawn %2.2", "spawn %3.1"]);
    assert_eq!(d.view("called").kind, Kind::Boot);
    d.ready(2, 2, 1);
    d.ready(3, 1, 1);
    keep(&mut d, &["called", "new"]);
    d.did(&[]);
    keep(&mut d, &["called"]);
    assert_eq!(d.view("new").kind, Kind::Called);
    d.tick(100);
    d.did(&["ask %3.1"]);
    d.dies(3, 1, Exit::Code(0), None);
    d.tick(HOUR_MS);
    assert_eq!((d.view("new").state, d.view("called").state), (State::Absent, State::Idle));
}

#[test]
fn w05_a_worker_of_boot_waits_behind_one_that_ends_and_not_behind_one_that_has_the_name() {
    let mut d = Driver::new();
    d.call("b", "m");
    d.ready(2, 1, 1);
    d.kill("b", KillMode::Ladder);
    d.effects.clear();
    keep(&mut d, &["b"]);
    d.did(&[]);
    d.ends(2, 1, Exit::Code(0));
    assert_eq!((d.view("b").identity.number.0, d.view("b").state), (3, State::Starting));
    d.attach("dev").unwrap();
    d.runs(named("job"));
    assert_eq!(keep(&mut d, &["b", "dev", "job"]), ["dev", "job"]);
}

#[test]
fn d08_the_stop_asks_workers_of_boot_to_end_and_none_is_started_again() {
    let mut d = Driver::new();
    keep(&mut d, &["b"]);
    d.ready(2, 1, 1);
    d.effects.clear();
    d.core.shutdown(d.now, ms(1000));
    d.take();
    d.did(&["ask %2.1", "continue %2.1"]);
    d.dies(2, 1, Exit::Code(0), None);
    d.did(&["sweep %2.1", "stopped"]);
}

// ---- the rest -------------------------------------------------------------------------------------

#[test]
fn p05_a_leading_dollar_is_an_ordinary_character() {
    let mut d = Driver::new();
    let (with, without) = (d.call("$a", "m").0, d.call("a", "m").0);
    assert_ne!(with, without);
    assert_eq!(d.view("$a").identity.name.as_str(), "$a");
    assert_eq!(d.attach("$dev"), Ok(4));
    assert_eq!(d.runs(named("$job")).0, "$job");
}

#[test]
fn a_snapshot_keeps_what_each_is() {
    let mut d = Driver::new();
    keep(&mut d, &["b"]);
    d.attach("dev").unwrap();
    d.runs(named("job"));
    let mut bytes = Vec::new();
    d.core.snapshot(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map()).unwrap();
    d.core = workhall_core::Core::restore(&mut rmp_serde::Deserializer::new(&*bytes), Limits::default()).unwrap();
    let kinds = ["b", "dev", "job"].map(|name| d.view(name).kind);
    assert_eq!(kinds, [Kind::Boot, Kind::Attached, Kind::Run]);
    d.effects.clear();
    d.call("dev", "m");
    d.did(&["deliver #2 to %3.1"]);
}
