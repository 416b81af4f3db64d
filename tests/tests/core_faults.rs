//! What the core decides when processes die, hang or lie, and when there is too much of something: crashes, limits of
//! time, dead letters, quotas. With a virtual clock, like `core_rules.rs`.

use std::sync::Arc;

use workhall_core::{
    AccountId, Call, CallReceipt, Charge, CrashLimit, DeadTotals, Event, Kill, KillMode, Letters, Policy, State,
};
use workhall_protocol::ids::{MessageId, Target, WorkerName, WorkerNumber};
use workhall_protocol::terms::{DeadReason, Exit, Ignored, Refusal, StartStage, Until};
use workhall_tests::driver::{
    self, Driver, EXIT_GRACE_MS, TERM_GRACE_MS, busy_with_two_pending, mark, ms, post, reply,
};

const CRASH: Exit = Exit::Signal(11);

fn retry(attempts: u8) -> Driver {
    Driver::with(|policy| {
        policy.attempts = attempts;
        policy.crash_limit.crashes = 1000;
    })
}

/// Time passes until a life of worker 2 has been started.
fn started(d: &mut Driver, generation: u64) {
    while !d.keys.contains_key(&(2, generation)) {
        d.now = d.core.next_deadline().expect("it waits for its delay");
        d.core.tick(d.now);
        d.take();
    }
}

/// What the dead letters are, oldest first.
fn letters(d: &Driver) -> Vec<(u64, DeadReason, bool)> {
    let letters = d.core.dead_letters(Letters::All);
    letters.map(|letter| (letter.message.id.0, letter.reason, letter.may_have_run)).collect()
}

// ---- crashes ----------------------------------------------------------------------------------

#[test]
fn d02_a_message_is_tried_again_until_it_is_poison_and_the_others_keep_their_order() {
    let mut d = retry(3);
    for token in 1..=3 {
        d.accepted(Call { reply: reply(token), ..post("a") });
    }
    for generation in 1..=3 {
        started(&mut d, generation);
        d.ready(2, generation, 2);
        d.effects.clear();
        d.dies(2, generation, CRASH, Some(mark(1, 0)));
    }
    assert!(d.lines().contains(&"t1: poison".to_string()));
    started(&mut d, 4);
    d.effects.clear();
    d.ready(2, 4, 2);
    d.did(&["deliver #2 to %2.4", "deliver #3 to %2.4"]);
    assert_eq!(letters(&d), [(1, DeadReason::Poison, true)]);
}

#[test]
fn d02_what_waits_for_a_retry_may_have_run() {
    let mut d = retry(5);
    d.accepted(Call { reply: reply(1), ..post("a") });
    d.accepted(Call { reply: reply(2), ..post("a") });
    d.ready(2, 1, 4);
    d.dies(2, 1, CRASH, Some(mark(1, 0)));
    d.effects.clear();
    d.kill("a", KillMode::Now);
    let lines = d.lines();
    assert_eq!(lines[..2], ["t1: discarded, may have run", "t2: discarded"], "{lines:?}");
}

#[test]
fn d02_a_retried_message_that_expires_may_have_run() {
    let mut d = retry(5);
    d.accepted(Call { reply: reply(1), expires: Some(ms(50)), ..post("a") });
    d.ready(2, 1, 1);
    d.dies(2, 1, CRASH, None);
    d.effects.clear();
    d.tick(60);
    assert!(d.lines().contains(&"t1: expired, may have run".to_string()));
    assert_eq!(letters(&d), [(1, DeadReason::Expired, true)]);
}

#[test]
fn d02_only_what_had_begun_is_charged_however_many_were_sent_ahead() {
    let mut d = Driver::new();
    for token in 1..=4 {
        d.accepted(Call { reply: reply(token), ..post("a") });
    }
    d.ready(2, 1, 4);
    d.done(2, 1, 1);
    d.effects.clear();
    // It died between two tasks: nobody is charged.
    d.dies(2, 1, CRASH, Some(mark(1, 1)));
    d.did(&["sweep %2.1", "spawn %2.2"]);
    d.ready(2, 2, 4);
    d.did(&["deliver #2 to %2.2", "deliver #3 to %2.2", "deliver #4 to %2.2"]);
    d.dies(2, 2, CRASH, Some(mark(2, 0)));
    d.tick(1000);
    d.ready(2, 3, 4);
    d.did(&["t2: crashed", "sweep %2.2", "spawn %2.3", "deliver #3 to %2.3", "deliver #4 to %2.3"]);
}

#[test]
fn d02_a_message_before_which_processes_die_again_and_again_is_poison_without_having_run() {
    let mut d = retry(3);
    d.accepted(Call { reply: reply(1), ..post("a") });
    for generation in 1..=10 {
        started(&mut d, generation);
        d.ready(2, generation, 2);
        d.dies(2, generation, CRASH, Some(mark(0, 0)));
    }
    assert!(d.lines().contains(&"t1: poison, never begun".to_string()));
}

fn limited(limit: CrashLimit) -> Driver {
    Driver::with(|policy| policy.crash_limit = limit)
}

fn crashes_before_ready(d: &mut Driver, generation: u64) {
    d.dies(2, generation, Exit::Code(1), None);
}

#[test]
fn d04_past_the_limit_the_worker_pauses_accepts_and_tries_again_by_itself() {
    let mut d = limited(CrashLimit { crashes: 3, pause: ms(60_000), ..CrashLimit::default() });
    d.call("a", "m");
    for generation in 1..=3 {
        assert_ne!(d.view("a").state, State::Paused);
        d.tick(generation * 1000);
        crashes_before_ready(&mut d, generation);
    }
    assert_eq!(d.view("a").state, State::Paused);
    let wait = d.view("a").next_start_in.unwrap();
    assert!(wait <= ms(60_000) && wait > ms(44_000), "{wait:?}");
    d.call("a", "m");
    d.effects.clear();
    d.tick(3000 + 60_000);
    d.did(&["spawn %2.4"]);
    // On trial: one more pauses again, a healthy life ends the trial.
    crashes_before_ready(&mut d, 4);
    assert_eq!(d.view("a").state, State::Paused);
    d.tick(130_000);
    d.ready(2, 5, 1);
    d.done(2, 5, 1);
    d.dies(2, 5, CRASH, None);
    assert_ne!(d.view("a").state, State::Paused);
    assert_eq!(d.view("a").failures_in_a_row, 1);
    assert_eq!(d.view("a").exits().count(), 5);
}

#[test]
fn d04_a_class_may_refuse_calls_during_the_pause_and_resume_ends_it() {
    let mut d = limited(CrashLimit { crashes: 1, pause: ms(60_000), refuse_calls: true, ..CrashLimit::default() });
    d.call("a", "m");
    crashes_before_ready(&mut d, 1);
    assert_eq!(d.refusal(post("a")), Refusal::CrashLoop);
    d.effects.clear();
    assert!(d.core.resume(d.now, Target::Name("a")));
    d.take();
    d.did(&["spawn %2.2"]);
    assert_eq!(d.view("a").state, State::Starting);
    d.call("a", "m");
    assert!(!d.core.resume(d.now, Target::Name("nobody")));
}

#[test]
fn d04_deaths_in_a_row_are_not_told_of_a_life_that_is_healthy() {
    let mut d = limited(CrashLimit { crashes: 1000, ..CrashLimit::default() });
    d.call("a", "m");
    crashes_before_ready(&mut d, 1);
    started(&mut d, 2);
    assert_eq!(d.view("a").failures_in_a_row, 1);
    d.ready(2, 2, 1);
    assert_eq!(d.view("a").failures_in_a_row, 1);
    d.done(2, 2, 1);
    assert_eq!(d.view("a").failures_in_a_row, 0);
}

#[test]
fn k04_a_process_that_starts_in_the_moment_in_which_it_is_to_end_is_told_as_soon_as_it_is_there() {
    let mut d = Driver::with(|policy| policy.exit_grace = ms(0));
    d.accepted(Call { after: Some(ms(500)), reply: reply(1), ..post("a") });
    d.kill_with(Kill { within: Some(ms(1000)), ..driver::kill("a", KillMode::Drain) });
    d.effects.clear();
    // Both the message's time and the end of the drain have passed when the clock ticks again.
    d.tick(5000);
    d.did(&["spawn %2.1", "t1: discarded", "term %2.1"]);
}

#[test]
fn d04_a_start_by_a_message_is_no_crash() {
    let mut d = limited(CrashLimit { crashes: 2, ..CrashLimit::default() });
    for generation in 1..=20 {
        d.call("a", "m");
        d.ready(2, generation, 1);
        d.done(2, generation, generation);
        d.dies(2, generation, Exit::Code(0), None);
        assert_eq!((d.view("a").state, d.view("a").crashes), (State::Absent, 0));
    }
}

#[test]
fn d05_what_waited_for_a_process_that_cannot_be_started_is_dead_if_the_class_says_so() {
    let mut d = limited(CrashLimit { crashes: 2, drop_unstarted: true, ..CrashLimit::default() });
    d.accepted(Call { reply: reply(1), ..post("a") });
    d.accepted(Call { reply: reply(2), ..post("a") });
    let fails = |d: &mut Driver, generation| {
        let (process, detail) = (d.key(2, generation), "no such file".into());
        d.feed(Event::SpawnFailed { process, stage: StartStage::Exec, detail });
    };
    fails(&mut d, 1);
    assert_eq!(letters(&d), []);
    d.effects.clear();
    fails(&mut d, 2);
    d.did(&["t1: never started", "t2: never started"]);
    assert_eq!(letters(&d).len(), 2);
    assert_eq!((d.view("a").state, d.core.next_deadline()), (State::Paused, None), "nothing is left to start for");
}

#[test]
fn d05_a_pause_after_crashes_of_a_process_that_starts_keeps_what_is_pending() {
    let mut d = limited(CrashLimit { crashes: 1, drop_unstarted: true, ..CrashLimit::default() });
    d.accepted(Call { reply: reply(1), ..post("a") });
    d.accepted(Call { reply: reply(2), ..post("a") });
    d.ready(2, 1, 1);
    d.dies(2, 1, CRASH, None);
    assert_eq!((d.view("a").state, d.view("a").pending), (State::Paused, 1));
}

// ---- limits of time ---------------------------------------------------------------------------

fn timed(timeout: u64) -> Driver {
    Driver::with(|policy| policy.task_timeout = Some(ms(timeout)))
}

#[test]
fn d06_a_task_that_takes_too_long_is_cut_by_the_ladder_and_the_next_one_is_executed() {
    let mut d = timed(100);
    d.accepted(Call { reply: reply(1), ..post("a") });
    d.accepted(Call { reply: reply(2), ..post("a") });
    d.tick(30);
    d.ready(2, 1, 1);
    d.effects.clear();
    d.tick(129);
    d.did(&[]);
    d.tick(130);
    d.did(&["ask %2.1", "term %2.1"]);
    d.tick(130 + TERM_GRACE_MS);
    d.did(&["kill %2.1"]);
    d.dies(2, 1, Exit::Signal(9), None);
    d.did(&["t1: timed out", "sweep %2.1", "spawn %2.2"]);
    d.ready(2, 2, 1);
    d.did(&["deliver #2 to %2.2"]);
    assert_eq!(letters(&d), [(1, DeadReason::TimedOut, true)]);
}

#[test]
fn d06_the_time_counts_from_each_tasks_own_begin() {
    let mut d = timed(100);
    d.call("a", "m");
    d.call("a", "m");
    d.ready(2, 1, 1);
    d.tick(99);
    d.done(2, 1, 1);
    d.effects.clear();
    d.tick(198);
    d.did(&[]);
    d.tick(199);
    d.did(&["ask %2.1", "term %2.1"]);
}

#[test]
fn d06_where_tasks_were_sent_ahead_the_page_is_looked_at() {
    let mut d = timed(100);
    for token in 1..=3 {
        d.accepted(Call { reply: reply(token).filter(|_| token == 3), ..post("a") });
    }
    d.ready(2, 1, 4);
    d.effects.clear();
    let look = |d: &mut Driver, at, begun, finished| {
        d.tick(at);
        d.did(&["look at %2.1"]);
        d.feed(Event::Marked { process: d.key(2, 1), mark: mark(begun, finished) });
    };
    look(&mut d, 25, 1, 0);
    look(&mut d, 50, 2, 1);
    // The second one was begun at 50 at the latest.
    for at in [75, 100, 125] {
        look(&mut d, at, 2, 1);
        d.did(&[]);
    }
    look(&mut d, 150, 2, 1);
    // What was sent ahead must not begin, should the task end after all: it would be charged for the end.
    d.did(&["ask %2.1", "term %2.1"]);
    d.dies(2, 1, Exit::Signal(15), Some(mark(2, 1)));
    assert_eq!(letters(&d), [(2, DeadReason::TimedOut, true)]);
    assert_eq!(d.core.ledger().done, 1);
}

#[test]
fn d06_a_look_that_is_never_answered_is_repeated_and_harms_nobody() {
    let mut d = timed(100);
    d.call("a", "m");
    d.ready(2, 1, 2);
    d.effects.clear();
    for at in [25, 50, 75] {
        d.tick(at);
        d.did(&["look at %2.1"]);
        assert!(d.core.next_deadline() > Some(d.now));
    }
}

#[test]
fn d06_a_task_that_ends_while_it_is_cut_has_ended() {
    let mut d = timed(100);
    d.accepted(Call { reply: reply(1), ..post("a") });
    d.ready(2, 1, 1);
    d.tick(100);
    d.effects.clear();
    d.done(2, 1, 1);
    d.did(&["t1: done"]);
    d.dies(2, 1, Exit::Signal(15), None);
    assert_eq!(letters(&d), []);
}

#[test]
fn d06_a_task_that_took_too_long_is_not_tried_again() {
    let mut d = Driver::with(|policy| {
        policy.task_timeout = Some(ms(100));
        policy.attempts = 3;
    });
    d.accepted(Call { reply: reply(1), ..post("a") });
    d.ready(2, 1, 1);
    d.tick(100);
    d.dies(2, 1, Exit::Signal(15), None);
    assert_eq!(letters(&d), [(1, DeadReason::TimedOut, true)]);
}

#[test]
fn d06_a_killed_worker_has_no_more_time_for_its_task_than_another() {
    let mut d = timed(100);
    d.accepted(Call { reply: reply(1), ..post("a") });
    d.ready(2, 1, 1);
    d.kill("a", KillMode::Ladder);
    d.effects.clear();
    d.tick(100);
    d.did(&["term %2.1"]);
    d.exits(2, 1, Exit::Signal(15), None);
    d.did(&["t1: timed out", "sweep %2.1"]);
}

fn idling(timeout: u64) -> Driver {
    Driver::with(|policy| policy.idle_timeout = Some(ms(timeout)))
}

#[test]
fn w06_a_process_that_has_nothing_to_do_is_ended_and_what_comes_meanwhile_has_the_next_one() {
    let mut d = idling(100);
    d.call("a", "m");
    d.ready(2, 1, 1);
    d.tick(50);
    d.done(2, 1, 1);
    d.effects.clear();
    d.tick(149);
    d.did(&[]);
    d.tick(150);
    d.did(&["ask %2.1"]);
    assert_eq!(d.view("a").state, State::Ending);
    d.accepted(Call { reply: reply(2), ..post("a") });
    d.did(&[]);
    d.dies(2, 1, Exit::Signal(15), None);
    d.did(&["sweep %2.1", "spawn %2.2"]);
    d.ready(2, 2, 1);
    d.did(&["deliver #2 to %2.2"]);
    let view = d.view("a");
    assert_eq!((view.crashes, view.failures_in_a_row), (0, 0), "however it ended, it was asked to");
}

#[test]
fn w06_a_message_in_time_keeps_the_process() {
    let mut d = idling(100);
    d.call("a", "m");
    d.ready(2, 1, 1);
    d.done(2, 1, 1);
    d.effects.clear();
    for round in 1..=5 {
        d.tick(round * 99);
        d.call("a", "m");
        d.done(2, 1, round + 1);
        d.did(&[&*format!("deliver #{} to %2.1", round + 1)]);
    }
}

#[test]
fn w06_an_idle_process_that_does_not_listen_is_ended_by_the_ladder() {
    let mut d = idling(100);
    d.call("a", "m");
    d.ready(2, 1, 1);
    d.done(2, 1, 1);
    d.effects.clear();
    d.tick(100);
    d.tick(100 + EXIT_GRACE_MS);
    d.tick(100 + EXIT_GRACE_MS + TERM_GRACE_MS);
    d.did(&["ask %2.1", "term %2.1", "kill %2.1"]);
}

#[test]
fn w06_a_worker_that_no_call_created_stays() {
    let mut d = idling(100);
    let policy = d.policy.clone();
    d.core.start(d.now, WorkerName::new("main").unwrap(), policy.into(), true);
    d.take();
    d.ready(1, 1, 1);
    assert_eq!(d.core.next_deadline(), None);
}

// ---- later ------------------------------------------------------------------------------------

#[test]
fn c13_a_message_for_later_enters_the_mailbox_at_its_time_behind_what_is_there() {
    let mut d = Driver::new();
    d.accepted(Call { after: Some(ms(100)), reply: reply(1), ..post("a") });
    d.did(&[]);
    assert_eq!((d.view("a").pending, d.view("a").state), (1, State::Absent));
    d.accepted(Call { reply: reply(2), ..post("a") });
    d.ready(2, 1, 1);
    d.accepted(Call { reply: reply(3), ..post("a") });
    d.did(&["spawn %2.1", "deliver #2 to %2.1"]);
    d.tick(100);
    for (task, token) in [(2, 2), (3, 3), (4, 1)] {
        let process = d.key(2, 1);
        if token == 1 {
            let message = d.core.task(process, MessageId(task)).unwrap();
            assert_eq!(message.id, MessageId(1), "what the caller was told is still its id");
        }
        d.effects.clear();
        d.done(2, 1, task);
        assert_eq!(d.lines()[0], format!("t{token}: done"));
    }
}

#[test]
fn c13_no_process_is_started_for_what_has_expired_when_it_is_due() {
    let mut d = Driver::new();
    let (after, expires) = (Some(ms(2)), Some(ms(1)));
    d.accepted(Call { after, expires, reply: reply(1), ..post("a") });
    d.tick(2);
    d.did(&["t1: expired"]);
    let view = d.view("a");
    assert_eq!((view.state, view.generation.0, view.pending), (State::Absent, 0, 0));
}

#[test]
fn c13_what_is_for_later_is_pending_and_a_kill_discards_it() {
    let mut d = Driver::new();
    d.accepted(Call { after: Some(ms(100)), reply: reply(1), ..post("a") });
    assert_eq!(d.core.ledger().pending, 1);
    d.kill("a", KillMode::Ladder);
    assert_eq!(d.lines()[0], "t1: discarded");
    d.tick(100);
    d.did(&[]);
    assert_eq!((d.core.worker_count(), d.core.next_deadline()), (0, None));
}

#[test]
fn k13_a_drain_waits_for_what_is_for_later() {
    let mut d = Driver::new();
    d.accepted(Call { after: Some(ms(100)), reply: reply(1), ..post("a") });
    d.kill("a", KillMode::Drain);
    assert_eq!(d.core.worker_count(), 1);
    d.tick(100);
    d.ready(2, 1, 1);
    d.effects.clear();
    d.done(2, 1, 2);
    d.did(&["t1: done", "ask %2.1"]);
}

#[test]
fn c13_what_expires_before_its_time_never_starts_a_process() {
    let mut d = Driver::new();
    d.accepted(Call { after: Some(ms(100)), expires: Some(ms(50)), reply: reply(1), ..post("a") });
    d.tick(100);
    assert!(!d.lines().iter().any(|line| line.starts_with("deliver")));
    d.tick(101);
    assert_eq!(letters(&d), [(1, DeadReason::Expired, false)]);
}

#[test]
fn c13_nothing_that_has_expired_is_handed_over_however_late_the_clock_ticks() {
    let mut d = Driver::new();
    d.accepted(Call { expires: Some(ms(50)), reply: reply(1), ..post("a") });
    d.now = workhall_core::Instant(0).after(ms(50));
    d.effects.clear();
    d.ready(2, 1, 1);
    d.did(&["t1: expired"]);
}

// ---- dead letters -----------------------------------------------------------------------------

/// Messages 1 to 3 of `a` have crashed their processes.
fn three_dead() -> Driver {
    let mut d = retry(1);
    for token in 1..=3 {
        d.accepted(Call { args: &[token as u8], reply: reply(token), ..post("a") });
    }
    for generation in 1..=3 {
        started(&mut d, generation);
        d.tick(d.now.0 / 1_000_000 + 10);
        d.ready(2, generation, 1);
        d.dies(2, generation, CRASH, None);
    }
    d.effects.clear();
    d
}

#[test]
fn d02_a_dead_letter_keeps_the_message_and_says_how_it_died() {
    let d = three_dead();
    let letter = d.core.dead_letters(Letters::One(MessageId(2))).next().unwrap();
    assert_eq!((letter.message.method(), letter.message.args()), ("m", &[2][..]));
    assert_eq!((&*letter.worker.name, letter.worker.number, letter.generation.0), ("a", WorkerNumber(2), 2));
    assert_eq!((letter.reason, letter.exit, letter.may_have_run), (DeadReason::Crashed, Some(CRASH), true));
    let times = (letter.message.accepted, letter.died);
    assert_eq!(times, (workhall_core::Instant(0), workhall_core::Instant(20_000_000)));
}

#[test]
fn l01_a_requeued_letter_is_a_new_message_and_the_order_of_the_deaths_is_kept() {
    let mut d = three_dead();
    let policy = d.policy.clone();
    let report = d.core.requeue(d.now, Letters::All, AccountId(7), |_| Ok(policy.clone().into()));
    d.take();
    assert_eq!((report.requeued, report.first, report.left), (3, Some(MessageId(4)), 0));
    started(&mut d, 4);
    d.ready(2, 4, 4);
    d.did(&["spawn %2.4", "deliver #4 to %2.4", "deliver #5 to %2.4", "deliver #6 to %2.4"]);
    let args = (4..=6).map(|id| d.core.task(d.key(2, 4), MessageId(id)).unwrap().args()[0]).collect::<Vec<_>>();
    assert_eq!(args, [1, 2, 3]);
    let ledger = d.core.ledger();
    assert_eq!((ledger.accepted, ledger.dead, ledger.running, ledger.pending), (6, 3, 1, 2));
    assert_eq!(d.core.charges().next(), Some((AccountId(7), Charge { messages: 3, bytes: 3 * 66 })));
}

#[test]
fn what_cannot_be_requeued_stays_where_it_is() {
    let mut d = Driver::with(|policy| policy.mailbox_messages = 2);
    d.call("a", "m");
    d.call("a", "m");
    for generation in 1..=2 {
        started(&mut d, generation);
        d.ready(2, generation, 1);
        d.dies(2, generation, CRASH, None);
    }
    d.call("a", "m");
    d.call("a", "m");
    assert_eq!(letters(&d).len(), 2);
    let policy = d.policy.clone();
    let report = d.core.requeue(d.now, Letters::Of("a"), AccountId(0), |_| Ok(policy.clone().into()));
    assert_eq!((report.requeued, report.left), (0, 2));
    assert_eq!(report.refused.map(|refused| refused.reason), Some(Refusal::MailboxFull));
    assert_eq!(letters(&d).iter().map(|letter| letter.0).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn dropped_letters_are_gone_and_the_ledger_does_not_change() {
    let mut d = three_dead();
    let before = d.core.ledger();
    assert_eq!(d.core.drop_dead(Letters::One(MessageId(9))), 0);
    assert_eq!(d.core.drop_dead(Letters::One(MessageId(1))), 1);
    assert_eq!(d.core.drop_dead(Letters::Of("b")), 0);
    assert_eq!(d.core.drop_dead(Letters::All), 2);
    assert_eq!((d.core.ledger(), d.core.dead_totals()), (before, DeadTotals::default()));
}

// ---- quotas -----------------------------------------------------------------------------------

fn with_limits(change: impl FnOnce(&mut workhall_core::Limits)) -> Driver {
    let mut d = Driver::new();
    let mut limits = d.core.limits().0.clone();
    change(&mut limits);
    d.core = workhall_core::Core::new(limits, 1);
    d
}

fn by(account: u64, name: &str) -> Call<'_> {
    Call { account: AccountId(account), ..post(name) }
}

#[test]
fn one_senders_limit_is_nobody_elses_and_what_is_settled_is_paid_back() {
    let mut d = with_limits(|limits| limits.sender_messages = 2);
    d.accepted(by(1000, "a"));
    d.accepted(by(1000, "b"));
    assert_eq!(d.refusal(by(1000, "c")), Refusal::MailboxFull);
    assert!(d.core.worker(d.now, Target::Name("c")).is_none(), "what was refused had no effect");
    d.accepted(by(1001, "c"));
    d.ready(2, 1, 1);
    d.done(2, 1, 1);
    d.accepted(by(1000, "a"));
    assert_eq!(d.core.charges().map(|(id, charge)| (id.0, charge.messages)).collect::<Vec<_>>().len(), 2);
}

#[test]
fn a_sender_who_waits_for_room_is_told_when_half_of_his_limit_is_free() {
    let mut d = with_limits(|limits| limits.sender_messages = 4);
    for _ in 0..4 {
        d.accepted(by(1000, "a"));
    }
    d.core.wait(Target::Name("a"), Until::Room, AccountId(1000), reply(9).unwrap());
    d.core.wait(Target::Name("a"), Until::Room, AccountId(1001), reply(8).unwrap());
    d.take();
    assert_eq!(d.lines().last().unwrap(), "t8: reached", "the other one has room");
    d.ready(2, 1, 1);
    d.effects.clear();
    d.done(2, 1, 1);
    assert!(!d.lines().contains(&"t9: reached".to_string()));
    d.done(2, 1, 2);
    assert!(d.lines().contains(&"t9: reached".to_string()));
}

#[test]
fn all_messages_together_have_a_limit() {
    let mut d = with_limits(|limits| limits.total_messages = 3);
    for account in 0..3 {
        d.accepted(by(account, "a"));
    }
    assert_eq!(d.refusal(by(9, "b")), Refusal::MailboxFull);
}

#[test]
fn a_call_that_needs_one_process_too_many_is_refused_and_others_are_not() {
    let mut d = with_limits(|limits| limits.processes = 1);
    d.call("a", "m");
    assert_eq!(d.refusal(post("b")), Refusal::MailboxFull);
    d.call("a", "m");
    // Its place is kept while it waits for the next start.
    d.ready(2, 1, 1);
    d.dies(2, 1, CRASH, None);
    d.dies(2, 2, CRASH, None);
    assert_eq!((d.view("a").state, d.refusal(post("b"))), (State::Backoff, Refusal::MailboxFull));
    // A successor has the place of the one before it.
    d.kill("a", KillMode::Now);
    d.call("b", "m");
    assert_eq!(d.refusal(post("a")), Refusal::MailboxFull);
}

#[test]
fn k07_the_successor_of_a_killed_worker_has_its_place() {
    let mut d = with_limits(|limits| limits.processes = 1);
    d.call("a", "m");
    d.ready(2, 1, 1);
    d.kill("a", KillMode::Now);
    d.call("a", "m");
    assert_eq!(d.refusal(post("b")), Refusal::MailboxFull);
    d.effects.clear();
    d.dies(2, 1, Exit::Signal(9), None);
    assert_eq!(d.lines().last().unwrap(), "spawn %3.1");
}

#[test]
fn c13_a_message_for_later_waits_for_a_place_among_the_processes() {
    let mut d = with_limits(|limits| limits.processes = 1);
    d.accepted(Call { after: Some(ms(10)), ..post("b") });
    d.call("a", "m");
    d.tick(10);
    assert!(d.view("b").queued);
    d.ready(3, 1, 1);
    d.kill("a", KillMode::Now);
    d.effects.clear();
    d.dies(3, 1, Exit::Signal(9), None);
    assert_eq!(d.lines().last().unwrap(), "spawn %2.1");
    assert!(!d.view("b").queued);
}

// ---- lies -------------------------------------------------------------------------------------

#[test]
fn each_lie_is_counted_and_named_and_changes_nothing() {
    let mut d = busy_with_two_pending();
    d.done(2, 1, 1);
    let before = d.core.ledger();
    d.done(2, 1, 1);
    d.done(2, 1, 77);
    d.feed(Event::Violation { process: d.key(2, 1), detail: "rubbish" });
    d.ready(2, 1, 5);
    assert_eq!(d.core.ledger(), before);
    let view = d.view("a");
    let words: Vec<&str> = view.last_violations().map(|(_, words)| words).collect();
    assert_eq!(view.violations, 4);
    assert_eq!(
        words,
        ["it said `ready` twice", "rubbish", "it settled task 77, which it was not given", "it settled task 1 twice"]
    );
    d.dies(2, 1, CRASH, None);
    assert_eq!((d.view("a").violations, d.core.counters().violations), (4, 4), "a new process does not forget them");
}

#[test]
fn who_keeps_the_page_settles_each_task_in_words_once() {
    let mut d = Driver::new();
    for _ in 0..4 {
        d.call("a", "m");
    }
    d.ready(2, 1, 4);
    d.feed(Event::Marked { process: d.key(2, 1), mark: mark(3, 2) });
    // The words come after the page: no lie.
    d.done(2, 1, 1);
    d.done(2, 1, 2);
    assert_eq!(d.view("a").violations, 0);
    d.done(2, 1, 2);
    d.done(2, 1, 4);
    let words: Vec<String> = d.view("a").last_violations().map(|(_, words)| words.to_string()).collect();
    assert_eq!(words, ["it settled task 4 before its turn", "it settled task 2 twice"]);
}

#[test]
fn an_empty_startup_method_on_a_requeue_harms_nobody() {
    let mut d = Driver::new();
    assert_eq!(d.ignored(Call { method: "", ..post("a") }), Ignored::NoStartupMethod);
    let policy: std::sync::Arc<Policy> = d.policy.clone().into();
    let report = d.core.requeue(d.now, Letters::All, AccountId(0), |_| Ok(policy.clone()));
    assert_eq!(report, workhall_core::Requeued::default());
    assert!(matches!(d.receipt(post("a")), CallReceipt::Accepted { .. }));
}

// ---- found in reviews ---------------------------------------------------------------------------

#[test]
fn d06_a_limit_shorter_than_a_look_does_not_keep_the_core_looking() {
    let mut d = Driver::with(|policy| policy.task_timeout = Some(std::time::Duration::from_nanos(3)));
    d.call("a", "m");
    d.ready(2, 1, 8);
    d.tick(1);
    assert_eq!(d.lines().iter().filter(|line| line.starts_with("look")).count(), 1);
}

#[test]
fn d04_a_tree_that_lingers_makes_no_life_healthy() {
    let mut d = Driver::new();
    for _ in 0..3 {
        d.call("a", "m");
    }
    for generation in 1..=2 {
        d.ready(2, generation, 8);
        d.exits(2, generation, CRASH, Some(mark(0, 0)));
        d.tick(generation * 20_000);
        assert_eq!(d.view("a").failures_in_a_row, generation as u16 - 1);
        d.gone(2, generation);
    }
    assert_eq!(d.view("a").failures_in_a_row, 2);
}

#[test]
fn d04_an_end_that_is_no_crash_pauses_nobody() {
    let mut d = Driver::with(|policy| policy.crash_limit.crashes = 1);
    d.call("a", "m");
    d.ready(2, 1, 1);
    d.done(2, 1, 1);
    d.dies(2, 1, Exit::Code(0), None);
    assert_eq!(d.view("a").crashes, 0);
    d.effects.clear();
    d.call("a", "m");
    d.did(&["spawn %2.2"]);
}

#[test]
fn d08_nothing_is_started_during_a_shutdown() {
    let mut d = Driver::new();
    let policy = Arc::new(d.policy.clone());
    d.call("a", "m");
    d.core.shutdown(d.now, ms(10));
    d.core.start(d.now, WorkerName::new("main").unwrap(), policy, true);
    d.take();
    d.dies(2, 1, Exit::Code(0), None);
    assert!(d.lines().contains(&"stopped".to_string()), "{:?}", d.lines());
}

#[test]
fn c13_no_process_is_started_for_what_expires_at_once() {
    let mut d = Driver::new();
    d.accepted(Call { expires: Some(ms(0)), reply: reply(1), ..post("a") });
    d.did(&["t1: expired"]);
    assert_eq!(d.core.ledger().expired, 1);
}

#[test]
fn c13_no_process_is_started_for_what_has_expired_during_a_life() {
    let mut d = retry(3);
    d.accepted(Call { expires: Some(ms(10)), reply: reply(1), ..post("a") });
    d.ready(2, 1, 1);
    d.now = d.now.after(ms(20));
    d.effects.clear();
    d.dies(2, 1, CRASH, Some(mark(1, 0)));
    let lines = d.lines();
    assert!(lines.contains(&"t1: expired, may have run".to_string()), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("spawn")), "{lines:?}");
}

#[test]
fn d02_a_mark_page_that_names_tasks_that_were_never_given_settles_none() {
    for end in 0..3 {
        let mut d = Driver::new();
        for token in 1..=3 {
            d.accepted(Call { reply: reply(token), ..post("a") });
        }
        d.ready(2, 1, 8);
        let process = d.key(2, 1);
        let lie = mark(1, u64::MAX);
        d.effects.clear();
        match end {
            0 => d.feed(Event::Marked { process, mark: lie }),
            1 => d.feed(Event::Asked { process, mark: Some(lie) }),
            _ => d.dies(2, 1, CRASH, Some(lie)),
        }
        let done = d.lines().iter().filter(|line| line.ends_with("done")).count();
        assert_eq!((done, d.core.ledger().done), (0, 0), "{:?}", d.lines());
        let view = d.view("a");
        assert_eq!(view.violations, 1);
        assert!(view.last_violations().next().unwrap().1.contains("18446744073709551615"));
    }
}
