//! The rules that are about decisions, one by one, on the core alone with a virtual clock.

use std::sync::Arc;

use workhall_core::{
    AccountId, Call, CallReceipt, Effect, Event, Kill, KillMode, KillReceipt, Limits, MESSAGE_OVERHEAD_BYTES, Outcome,
    Policy, Refused, Reloaded, Renewal, State,
};
use workhall_protocol::ids::{MessageId, Target, WorkerName, WorkerNumber};
use workhall_protocol::terms::{Current, EndedBy, Exit, Ignored, Refusal, StartStage, Until};

use workhall_tests::driver::{
    Driver, EXIT_GRACE_MS, START_TIMEOUT_MS, TERM_GRACE_MS, busy_with_two_pending, kill, line, line_of_three, mark, ms,
    post, reply,
};

const HOUR_MS: u64 = 3_600_000;

// ---- the worker -------------------------------------------------------------------------------

#[test]
fn w02_names_are_case_sensitive_and_checked() {
    let mut d = Driver::new();
    assert_ne!(d.call("a", "m").0, d.call("A", "m").0);
    for bad in ["", "a\nb", &"x".repeat(256)] {
        assert_eq!(d.refusal(post(bad)), Refusal::BadName, "{bad:?}");
    }
    assert_eq!(d.core.worker_count(), 2);
}

#[test]
fn w03_the_first_call_brings_worker_mailbox_and_process_into_being() {
    let mut d = Driver::new();
    assert!(d.core.worker(d.now, Target::Name("a")).is_none());
    d.call("a", "m");
    d.did(&["spawn %2.1"]);
    assert_eq!(d.view("a").pending, 1);
}

#[test]
fn w04_a_number_names_one_worker_across_crashes_and_is_never_reused() {
    let mut d = Driver::new();
    assert_eq!(d.call("a", "m"), (2, 1));
    d.ready(2, 1, 1);
    d.dies(2, 1, Exit::Signal(11), None);
    assert_eq!(d.call_number(2, "m"), Some((2, 2)), "the crash leaves it its number");
    d.kill("a", KillMode::Now);
    d.dies(2, 2, Exit::Signal(9), None);
    assert_eq!(d.call("a", "m").0, 3);
    assert_eq!(d.call_number(2, "m"), None, "a stale number names nobody");
}

#[test]
fn w04_text_is_never_a_number() {
    let mut d = Driver::new();
    assert_eq!(d.call("3", "m").0, 2);
    assert_eq!(d.ignored(Call { target: Target::Number(WorkerNumber(3)), ..post("") }), Ignored::NoWorker);
}

#[test]
fn w05_number_1_is_the_main_worker_or_nobody() {
    let mut d = Driver::new();
    assert_eq!(d.call_number(1, "m"), None);
    let policy = d.policy.clone();
    d.core.start(d.now, WorkerName::new("main").unwrap(), Arc::new(policy), true);
    d.take();
    d.did(&["spawn %1.1"]);
    assert_eq!(d.call_number(1, "m"), Some((1, 1)));
}

#[test]
fn w06_the_process_stays_after_a_task() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.ready(2, 1, 1);
    d.done(2, 1, 1);
    assert_eq!(d.core.next_deadline(), None, "no idle limit");
    d.did(&["spawn %2.1", "deliver #1 to %2.1"]);
    d.call("a", "m");
    d.did(&["deliver #2 to %2.1"]);
}

#[test]
fn w07_the_end_of_a_caller_does_not_touch_those_it_called() {
    let mut d = Driver::new();
    d.call("caller", "m");
    d.ready(2, 1, 1);
    let from = d.key(2, 1);
    d.accepted(Call { from: Some(from), ..post("called") });
    d.ready(3, 1, 1);
    d.kill("caller", KillMode::Now);
    d.dies(2, 1, Exit::Signal(9), None);
    assert_eq!(d.view("called").state, State::Busy);
    d.effects.clear();
    d.done(3, 1, 2);
    d.call("called", "m");
    d.did(&["deliver #3 to %3.1"]);
}

#[test]
fn w08_a_client_is_nobody_who_could_be_called_back() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.ready(2, 1, 1);
    assert_eq!(d.core.task(d.key(2, 1), MessageId(1)).unwrap().from, None);
}

#[test]
fn w09_the_class_is_asked_once_and_without_one_nothing_is_created() {
    let mut d = Driver::new();
    let no_class = |_: &str| Err(Refused::new(Refusal::NoClass, "none"));
    let receipt = d.core.call(d.now, post("a"), no_class);
    assert!(matches!(receipt, CallReceipt::Refused(refused) if refused.reason == Refusal::NoClass));
    assert_eq!((d.core.worker_count(), d.core.ledger().accepted, d.core.counters().refused), (0, 0, 1));
    d.call("a", "m");
    let receipt = d.core.call(d.now, post("a"), no_class);
    assert!(matches!(receipt, CallReceipt::Accepted { .. }), "a worker keeps its class");
}

// ---- call -------------------------------------------------------------------------------------

#[test]
fn c01_a_call_is_accepted_before_anything_is_executed() {
    let mut d = Driver::new();
    assert_eq!(d.call("a", "m"), (2, 1));
    assert_eq!(d.call("a", "m"), (2, 2));
    d.did(&["spawn %2.1"]);
}

#[test]
fn c02_a_call_starts_a_process_if_there_is_none() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.ready(2, 1, 1);
    d.did(&["spawn %2.1", "deliver #1 to %2.1"]);
    d.done(2, 1, 1);
    d.dies(2, 1, Exit::Code(0), None);
    d.did(&["sweep %2.1"]);
    d.call("a", "m");
    d.did(&["spawn %2.2"]);
}

#[test]
fn c03_one_message_at_a_time_in_the_order_of_arrival() {
    let mut d = Driver::new();
    for _ in 0..3 {
        d.call("a", "m");
    }
    d.ready(2, 1, 1);
    d.did(&["spawn %2.1", "deliver #1 to %2.1"]);
    d.done(2, 1, 1);
    d.did(&["deliver #2 to %2.1"]);
    d.done(2, 1, 2);
    d.did(&["deliver #3 to %2.1"]);
}

#[test]
fn c03_a_window_is_filled_in_order_and_never_exceeded() {
    let mut d = Driver::new();
    for _ in 0..4 {
        d.call("a", "m");
    }
    d.ready(2, 1, 3);
    d.did(&["spawn %2.1", "deliver #1 to %2.1", "deliver #2 to %2.1", "deliver #3 to %2.1"]);
    assert_eq!((d.core.ledger().running, d.core.ledger().pending), (1, 3), "sent ahead is pending");
    d.feed(Event::Marked { process: d.key(2, 1), mark: mark(3, 2) });
    d.did(&["deliver #4 to %2.1"]);
    assert_eq!(d.core.ledger().done, 2);
}

#[test]
fn c03_workers_run_in_parallel() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.call("b", "m");
    d.ready(2, 1, 1);
    d.ready(3, 1, 1);
    assert_eq!(d.core.ledger().running, 2);
}

#[test]
fn c04_refusals_are_a_closed_set_and_change_nothing() {
    let mut d = Driver::with(|policy| policy.mailbox_messages = 1);
    d.call("a", "m");
    let full = (d.core.ledger(), d.core.limits().1);
    assert_eq!(d.refusal(post("a")), Refusal::MailboxFull);
    assert_eq!(d.refusal(Call { args: &[0; 2000], ..post("b") }), Refusal::TooLarge);
    assert_eq!(d.refusal(Call { method: &"m".repeat(256), ..post("b") }), Refusal::TooLarge);
    assert_eq!((d.core.ledger(), d.core.limits().1), full);
    d.core.shutdown(d.now, ms(1));
    assert_eq!(d.refusal(post("b")), Refusal::ShuttingDown);
}

#[test]
fn c04_mailboxes_are_bounded_in_bytes_too_and_the_startup_method_counts() {
    let room = 2 * MESSAGE_OVERHEAD_BYTES + 10;
    let mut d = Driver::with(|policy| {
        policy.mailbox_bytes = room;
        policy.startup_method = Some("startup".into());
    });
    d.accepted(Call { method: "12345", ..post("a") });
    assert_eq!(d.refusal(Call { method: "123456", ..post("a") }), Refusal::MailboxFull);
    assert_eq!(d.refusal(Call { method: "", ..post("a") }), Refusal::MailboxFull, "`startup` is longer than 5 bytes");
    d.accepted(Call { method: "12345", ..post("a") });
    assert_eq!(d.view("a").bytes, room);
}

#[test]
fn c05_an_empty_method_is_the_startup_method_with_the_arguments_of_the_call() {
    let mut d = Driver::new();
    d.call("a", "first");
    d.ready(2, 1, 1);
    d.dies(2, 1, Exit::Code(1), None);
    d.accepted(Call { method: "", args: b"new", ..post("a") });
    d.ready(2, 2, 1);
    let task = d.core.task(d.key(2, 2), MessageId(2)).unwrap();
    assert_eq!((task.method(), task.args()), ("first", &b"new"[..]), "it survives the crash");
    d.kill("a", KillMode::Now);
    d.dies(2, 2, Exit::Signal(9), None);
    assert_eq!(d.ignored(Call { method: "", ..post("a") }), Ignored::NoStartupMethod, "a kill ends it");
}

#[test]
fn c05_a_class_may_have_a_startup_method() {
    let mut d = Driver::with(|policy| policy.startup_method = Some("of the class".into()));
    d.accepted(Call { method: "", ..post("a") });
    d.ready(2, 1, 1);
    assert_eq!(d.core.task(d.key(2, 1), MessageId(1)).unwrap().method(), "of the class");
}

#[test]
fn c06_an_empty_method_without_a_startup_method_creates_nothing() {
    let mut d = Driver::new();
    assert_eq!(d.ignored(Call { method: "", ..post("a") }), Ignored::NoStartupMethod);
    assert_eq!((d.core.worker_count(), d.core.counters().ignored), (0, 1));
    d.did(&[]);
}

#[test]
fn c07_a_name_without_a_worker_gets_one() {
    let mut d = Driver::new();
    assert_eq!((d.call("a", "m").0, d.call("b", "m").0, d.call("a", "m").0), (2, 3, 2));
}

#[test]
fn c08_a_number_without_a_worker_is_ignored() {
    let mut d = Driver::new();
    assert_eq!(d.ignored(Call { target: Target::Number(WorkerNumber(9)), ..post("") }), Ignored::NoWorker);
    d.did(&[]);
}

#[test]
fn c09_arguments_are_copied_at_the_call() {
    let mut d = Driver::new();
    let mut args = b"before".to_vec();
    d.accepted(Call { args: &args, ..post("a") });
    args.fill(b'x');
    d.ready(2, 1, 1);
    assert_eq!(d.core.task(d.key(2, 1), MessageId(1)).unwrap().args(), b"before");
}

#[test]
fn c10_a_self_call_queues_behind_what_waits() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.call("a", "m");
    d.ready(2, 1, 1);
    d.accepted(Call { from: Some(d.key(2, 1)), ..post("a") });
    d.done(2, 1, 1);
    d.done(2, 1, 2);
    d.did(&["spawn %2.1", "deliver #1 to %2.1", "deliver #2 to %2.1", "deliver #3 to %2.1"]);
}

#[test]
fn c11_a_task_carries_name_and_number_of_its_sender() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.ready(2, 1, 1);
    d.accepted(Call { from: Some(d.key(2, 1)), ..post("b") });
    d.ready(3, 1, 1);
    let from = d.core.task(d.key(3, 1), MessageId(2)).unwrap().from.clone().unwrap();
    assert_eq!((&*from.name, from.number), ("a", WorkerNumber(2)));
}

#[test]
fn c12_existing_creates_no_worker() {
    let mut d = Driver::new();
    let existing = Call { existing: true, ..post("a") };
    assert_eq!(d.ignored(existing), Ignored::NoWorker);
    d.call("a", "m");
    d.accepted(existing);
    d.kill("a", KillMode::Ladder);
    assert_eq!(d.ignored(existing), Ignored::NoWorker, "a killed one does not count");
}

#[test]
fn c13_what_was_not_started_in_time_expires() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.ready(2, 1, 8);
    d.accepted(Call { expires: Some(ms(50)), reply: reply(7), ..post("a") });
    d.did(&["spawn %2.1", "deliver #1 to %2.1"]);
    d.tick(49);
    d.did(&[]);
    d.tick(50);
    d.did(&["t7: expired"]);
    assert_eq!((d.core.ledger().expired, d.core.ledger().running), (1, 1));
}

#[test]
fn c13_what_was_started_in_time_does_not_expire() {
    let mut d = Driver::new();
    d.accepted(Call { expires: Some(ms(50)), reply: reply(7), ..post("a") });
    d.ready(2, 1, 8);
    d.tick(1000);
    d.done(2, 1, 1);
    d.did(&["spawn %2.1", "deliver #1 to %2.1", "t7: done"]);
}

#[test]
fn c13_what_was_given_back_unbegun_still_expires() {
    let mut d = Driver::new();
    d.accepted(Call { expires: Some(ms(50)), reply: reply(7), ..post("a") });
    d.ready(2, 1, 8);
    d.exits(2, 1, Exit::Code(0), Some(mark(0, 0)));
    d.did(&["spawn %2.1", "deliver #1 to %2.1", "sweep %2.1"]);
    d.tick(50);
    d.did(&["t7: expired"]);
}

// ---- kill -------------------------------------------------------------------------------------

#[test]
fn k01_a_kill_ignores_what_is_pending_and_ends_after_the_current_task() {
    let mut d = busy_with_two_pending();
    d.kill("a", KillMode::Ladder);
    d.did(&["t2: discarded", "t3: discarded", "ask %2.1", "k100: 2 discarded"]);
    d.done(2, 1, 1);
    d.exits(2, 1, Exit::Code(0), None);
    d.did(&["t1: done", "sweep %2.1"]);
    d.gone(2, 1);
    d.did(&["k100: ended by Ask, current Finished, 2 discarded"]);
    assert_eq!(d.core.worker_count(), 0);
}

#[test]
fn k02_the_mailbox_is_emptied_at_once_and_what_was_sent_ahead_with_it() {
    let mut d = Driver::new();
    for token in 1..=4 {
        d.accepted(Call { reply: reply(token), ..post("a") });
    }
    d.ready(2, 1, 3);
    d.effects.clear();
    d.mark = Some(mark(1, 0));
    d.kill("a", KillMode::Ladder);
    d.did(&["t4: discarded", "ask %2.1", "t2: discarded", "t3: discarded", "k100: 3 discarded"]);
    assert_eq!((d.core.ledger().discarded, d.core.ledger().running), (3, 1));
}

#[test]
fn k02_what_had_not_begun_at_the_answer_is_not_the_current_task() {
    let mut d = Driver::new();
    d.accepted(Call { reply: reply(1), ..post("a") });
    d.ready(2, 1, 3);
    d.effects.clear();
    d.mark = Some(mark(0, 0));
    d.kill("a", KillMode::Ladder);
    d.did(&["ask %2.1", "t1: discarded", "k100: 1 discarded"]);
    d.dies(2, 1, Exit::Code(0), d.mark);
    d.did(&["sweep %2.1", "k100: ended by Ask, current None, 1 discarded"]);
}

#[test]
fn k02_the_answer_to_ask_does_not_settle_what_is_still_to_be_said() {
    // Message 1 has returned a result and 2 has failed; both was written, and not read before the kill.
    let mut d = Driver::new();
    for token in 1..=3 {
        d.accepted(Call { reply: reply(token), ..post("a") });
    }
    d.ready(2, 1, 3);
    d.effects.clear();
    d.mark = Some(mark(2, 2));
    d.kill("a", KillMode::Ladder);
    d.did(&["ask %2.1", "t3: discarded", "k100: 1 discarded"]);
    d.feed(Event::Done { process: d.key(2, 1), id: MessageId(1), result: b"result" });
    assert!(
        matches!(&d.effects[0], Effect::Settled { outcome: Outcome::Done { result }, .. } if **result == *b"result")
    );
    d.feed(Event::Failed { process: d.key(2, 1), id: MessageId(2), error: "error" });
    d.did(&["t1: done", "t2: failed"]);
    d.dies(2, 1, Exit::Code(0), d.mark);
    d.did(&["sweep %2.1", "k100: ended by Ask, current None, 1 discarded"]);
}

#[test]
fn c03_a_mark_settles_only_what_nobody_waits_for() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.accepted(Call { reply: reply(2), ..post("a") });
    d.ready(2, 1, 3);
    d.effects.clear();
    d.feed(Event::Marked { process: d.key(2, 1), mark: mark(2, 2) });
    d.did(&[]);
    assert_eq!((d.core.ledger().done, d.core.ledger().running), (1, 1));
    d.done(2, 1, 2);
    d.did(&["t2: done"]);
}

#[test]
fn k03_the_running_task_is_not_interrupted_and_goes_on_calling() {
    let mut d = busy_with_two_pending();
    d.kill("a", KillMode::Ladder);
    d.effects.clear();
    d.tick(HOUR_MS);
    d.did(&[]);
    d.accepted(Call { from: Some(d.key(2, 1)), ..post("b") });
    d.did(&["spawn %3.1"]);
    d.done(2, 1, 1);
    d.did(&["t1: done"]);
}

#[test]
fn k04_ask_term_kill_each_after_its_grace_counted_from_the_end_of_the_task() {
    let mut d = busy_with_two_pending();
    d.kill("a", KillMode::Ladder);
    d.effects.clear();
    d.tick(60_000);
    d.done(2, 1, 1);
    d.tick(60_000 + EXIT_GRACE_MS - 1);
    d.did(&["t1: done"]);
    d.tick(60_000 + EXIT_GRACE_MS);
    d.did(&["term %2.1"]);
    d.tick(60_000 + EXIT_GRACE_MS + TERM_GRACE_MS - 1);
    d.did(&[]);
    d.tick(60_000 + EXIT_GRACE_MS + TERM_GRACE_MS);
    d.did(&["kill %2.1"]);
    d.tick(60_000 + EXIT_GRACE_MS + TERM_GRACE_MS + 1000);
    d.did(&["kill %2.1"]);
    let report = d.ends(2, 1, Exit::Signal(9));
    let steps = [60_000 + EXIT_GRACE_MS, TERM_GRACE_MS, 1000].map(|step| Some(ms(step)));
    assert_eq!((report.ended_by, report.steps), (EndedBy::Kill, steps));
    assert_eq!(report.took, ms(60_000 + EXIT_GRACE_MS + TERM_GRACE_MS + 1000));
}

#[test]
fn k04_class_and_killer_may_limit_the_task_and_the_shorter_limit_holds() {
    for (task_grace, within, cut) in [(None, Some(30), 30), (Some(20), None, 20), (Some(20), Some(30), 20)] {
        let mut d = Driver::with(|policy| policy.task_grace = task_grace.map(ms));
        d.call("a", "m");
        d.ready(2, 1, 1);
        d.effects.clear();
        d.kill_with(Kill { within: within.map(ms), ..kill("a", KillMode::Ladder) });
        d.tick(cut - 1);
        d.did(&["ask %2.1", "k100: 0 discarded"]);
        d.tick(cut);
        d.did(&["term %2.1"]);
    }
}

#[test]
fn k04_abort_starts_at_kill() {
    let mut d = busy_with_two_pending();
    d.kill("a", KillMode::Now);
    d.did(&["t2: discarded", "t3: discarded", "ask %2.1", "kill %2.1", "k100: 2 discarded"]);
    d.dies(2, 1, Exit::Signal(9), None);
    d.did(&["t1: discarded, may have run", "sweep %2.1", "k100: ended by Kill, current Interrupted, 2 discarded"]);
}

#[test]
fn k04_a_process_that_is_not_ready_is_asked_once_it_is() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.effects.clear();
    d.kill("a", KillMode::Ladder);
    d.did(&["k100: 1 discarded"]);
    d.ready(2, 1, 1);
    d.did(&["ask %2.1"]);
    d.tick(EXIT_GRACE_MS);
    d.did(&["term %2.1"]);
}

#[test]
fn k04_a_process_that_drops_the_task_it_was_about_to_begin_is_not_waited_for() {
    // At the kill its page said that it begins; then it saw the stop flag and took that back (PROTOCOL.md, *The
    // mark page*), but does not end either. Nobody would ever tell, so it is asked again.
    let mut d = Driver::new();
    d.accepted(Call { reply: reply(1), ..post("a") });
    d.ready(2, 1, 8);
    d.effects.clear();
    d.mark = Some(mark(1, 0));
    d.kill("a", KillMode::Ladder);
    d.did(&["ask %2.1", "k100: 0 discarded"]);
    d.mark = Some(mark(0, 0));
    d.tick(1000);
    d.did(&["ask %2.1", "t1: discarded"]);
    d.tick(1000 + EXIT_GRACE_MS);
    d.did(&["term %2.1"]);
    d.dies(2, 1, Exit::Signal(15), d.mark);
    d.did(&["sweep %2.1", "k100: ended by Term, current None, 1 discarded"]);
}

#[test]
fn k05_by_number_a_kill_touches_that_worker_only_by_name_the_whole_line() {
    let mut d = line_of_three();
    d.kill_with(Kill { target: Target::Number(WorkerNumber(3)), reply: reply(101), ..kill("a", KillMode::Ladder) });
    d.did(&["t3: discarded", "k101: 1 discarded", "k101: ended by AlreadyGone, current None, 1 discarded"]);
    assert_eq!(d.call("a", "m").0, 4, "the newest still takes calls");
    d.kill_with(Kill { reply: reply(102), ..kill("a", KillMode::Ladder) });
    d.did(&["t4: discarded", "ask %2.1", "k102: 2 discarded"]);
    d.done(2, 1, 1);
    d.dies(2, 1, Exit::Code(0), None);
    assert_eq!(d.core.worker_count(), 0);
}

#[test]
fn k06_a_kill_of_nobody_does_nothing() {
    let mut d = Driver::new();
    assert_eq!(d.core.kill(d.now, kill("a", KillMode::Now)), KillReceipt::Ignored(Ignored::NoWorker));
    let number = Kill { target: Target::Number(WorkerNumber(2)), ..kill("", KillMode::Drain) };
    assert_eq!(d.core.kill(d.now, number), KillReceipt::Ignored(Ignored::NoWorker));
    assert_eq!(d.core.worker_count(), 0);
    d.take();
    d.did(&[]);
}

#[test]
fn k07_a_call_behind_a_kill_is_for_a_successor_with_its_own_startup_method() {
    let mut d = Driver::new();
    d.call("a", "old");
    d.ready(2, 1, 1);
    d.kill("a", KillMode::Ladder);
    d.effects.clear();
    assert_eq!(d.call("a", "new").0, 3);
    d.accepted(Call { method: "", ..post("a") });
    d.done(2, 1, 1);
    d.exits(2, 1, Exit::Code(0), None);
    d.did(&["sweep %2.1"]);
    d.gone(2, 1);
    d.did(&["k100: ended by Ask, current Finished, 0 discarded", "spawn %3.1"]);
    d.ready(3, 1, 8);
    assert_eq!(d.core.task(d.key(3, 1), MessageId(3)).unwrap().method(), "new");
}

#[test]
fn k08_no_start_before_exit_and_tree_are_proved() {
    for killed in [false, true] {
        let mut d = Driver::new();
        d.call("a", "m");
        d.call("a", "m");
        d.ready(2, 1, 1);
        if killed {
            d.kill("a", KillMode::Now);
            d.call("a", "m");
        }
        d.effects.clear();
        d.feed(Event::Disconnected { process: d.key(2, 1) });
        d.gone(2, 1);
        // Cut off, it is to begin nothing more; the kill has asked before.
        d.did(if killed { &[] } else { &["ask %2.1"] });
        d.exits(2, 1, Exit::Signal(9), None);
        d.did(&["sweep %2.1"]);
        d.tick(999);
        d.did(&[]);
        d.tick(1000);
        d.did(&["sweep %2.1"]);
        d.gone(2, 1);
        let next = if killed { "spawn %3.1" } else { "spawn %2.2" };
        assert_eq!(d.lines().last().unwrap(), next);
    }
}

#[test]
fn k08_facts_of_a_life_that_has_ended_are_dropped_and_counted() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.call("a", "m");
    d.ready(2, 1, 1);
    d.dies(2, 1, Exit::Code(1), None);
    d.ready(2, 2, 1);
    d.effects.clear();
    let before = d.core.ledger();
    d.done(2, 1, 2);
    d.exits(2, 1, Exit::Code(0), None);
    d.gone(2, 1);
    d.did(&[]);
    assert_eq!((d.core.ledger(), d.core.counters().stale), (before, 3));
}

#[test]
fn k09_a_killed_worker_that_calls_itself_is_ignored() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.ready(2, 1, 1);
    let from = Some(d.key(2, 1));
    d.kill("a", KillMode::Ladder);
    assert_eq!(d.ignored(Call { from, ..post("a") }), Ignored::OwnKilledWorker);
    let number = Target::Number(WorkerNumber(2));
    assert_eq!(d.ignored(Call { from, target: number, ..post("") }), Ignored::OwnKilledWorker);
    assert_eq!(d.ignored(Call { target: number, ..post("") }), Ignored::Ending, "for others it is ending");
    assert_eq!(d.call("a", "m").0, 3, "others get a successor");
    assert_eq!(d.ignored(Call { from, ..post("a") }), Ignored::OwnKilledWorker, "which it does not reach");
}

#[test]
fn k10_a_worker_that_no_call_created_is_only_emptied() {
    let mut d = Driver::new();
    let policy = Arc::new(d.policy.clone());
    d.core.start(d.now, WorkerName::new("main").unwrap(), policy, true);
    d.take();
    d.ready(1, 1, 8);
    d.accepted(Call { reply: reply(1), ..post("main") });
    d.accepted(Call { reply: reply(2), ..post("main") });
    d.did(&["spawn %1.1", "deliver #1 to %1.1"]);
    d.kill("main", KillMode::Now);
    d.did(&["t2: discarded", "k100: 1 discarded", "k100: ended by OnlyEmptied, current None, 1 discarded"]);
    d.done(1, 1, 1);
    d.dies(1, 1, Exit::Code(0), None);
    d.did(&["t1: done", "sweep %1.1", "spawn %1.2"]);
}

#[test]
fn k11_a_second_kill_cancels_the_successor() {
    let mut d = busy_with_two_pending();
    d.kill("a", KillMode::Ladder);
    assert_eq!(d.accepted(Call { reply: reply(4), ..post("a") }).0, 3);
    d.effects.clear();
    d.kill_with(Kill { reply: reply(101), ..kill("a", KillMode::Ladder) });
    d.did(&["t4: discarded", "ask %2.1", "k101: 1 discarded"]);
    d.done(2, 1, 1);
    d.dies(2, 1, Exit::Code(0), None);
    d.did(&[
        "t1: done",
        "sweep %2.1",
        "k100: ended by Ask, current Finished, 2 discarded",
        "k101: ended by Ask, current Finished, 1 discarded",
    ]);
}

#[test]
fn k11_a_second_kill_may_hurry_the_first() {
    let mut d = busy_with_two_pending();
    d.kill("a", KillMode::Ladder);
    d.effects.clear();
    d.kill_with(Kill { reply: None, ..kill("a", KillMode::Now) });
    d.did(&["kill %2.1"]);
    assert_eq!(d.ends(2, 1, Exit::Signal(9)).current, Current::Interrupted);
}

#[test]
fn k12_the_report_counts_what_was_sent_ahead_and_could_not_be_asked_for() {
    // The connection is gone: only the exit says how far the process had come.
    let mut d = Driver::new();
    for token in 1..=3 {
        d.accepted(Call { reply: reply(token), ..post("a") });
    }
    d.ready(2, 1, 8);
    d.feed(Event::Disconnected { process: d.key(2, 1) });
    d.effects.clear();
    d.kill("a", KillMode::Ladder);
    d.did(&["k100: 0 discarded"]);
    d.dies(2, 1, Exit::Code(0), Some(mark(1, 1)));
    d.did(&[
        "t1: done",
        "t2: discarded",
        "t3: discarded",
        "sweep %2.1",
        "k100: ended by Ask, current Finished, 2 discarded",
    ]);
}

#[test]
fn k12_a_drain_that_is_cut_counts_what_was_sent_ahead() {
    let mut d = Driver::new();
    for token in 1..=3 {
        d.accepted(Call { reply: reply(token), ..post("a") });
    }
    d.ready(2, 1, 2);
    d.effects.clear();
    d.mark = Some(mark(1, 0));
    d.kill_with(Kill { within: Some(ms(10)), ..kill("a", KillMode::Drain) });
    d.tick(10);
    d.did(&["k100: 0 discarded", "t3: discarded", "ask %2.1", "term %2.1", "t2: discarded"]);
    d.dies(2, 1, Exit::Signal(15), d.mark);
    d.did(&["t1: discarded, may have run", "sweep %2.1", "k100: ended by Term, current Interrupted, 2 discarded"]);
}

#[test]
fn k12_who_drains_hears_that_a_kill_discarded_the_rest() {
    let mut d = busy_with_two_pending();
    d.kill("a", KillMode::Drain);
    d.kill_with(Kill { reply: None, ..kill("a", KillMode::Now) });
    d.effects.clear();
    d.dies(2, 1, Exit::Signal(9), None);
    d.did(&["t1: discarded, may have run", "sweep %2.1", "k100: ended by Kill, current Interrupted, 2 discarded"]);
}

#[test]
fn k12_a_drain_that_is_cut_in_a_later_task_says_interrupted() {
    let mut d = busy_with_two_pending();
    d.kill_with(Kill { within: Some(ms(10)), ..kill("a", KillMode::Drain) });
    d.done(2, 1, 1);
    d.tick(10);
    d.effects.clear();
    d.dies(2, 1, Exit::Signal(15), None);
    d.did(&["t2: discarded, may have run", "sweep %2.1", "k100: ended by Term, current Interrupted, 1 discarded"]);
}

#[test]
fn k12_a_drain_tells_what_became_of_the_task_that_ran() {
    let mut d = busy_with_two_pending();
    d.kill("a", KillMode::Drain);
    d.done(2, 1, 1);
    d.done(2, 1, 2);
    d.done(2, 1, 3);
    d.effects.clear();
    d.dies(2, 1, Exit::Code(0), None);
    d.did(&["sweep %2.1", "k100: ended by Ask, current Finished, 0 discarded"]);
}

#[test]
fn k12_a_kill_behind_the_exit_ended_nothing() {
    // The task was interrupted by the crash, not by the kill; a hung up process was not asked by it either.
    let mut d = busy_with_two_pending();
    d.feed(Event::Disconnected { process: d.key(2, 1) });
    d.exits(2, 1, Exit::Signal(11), None);
    d.effects.clear();
    d.kill("a", KillMode::Ladder);
    d.did(&["t2: discarded", "t3: discarded", "k100: 2 discarded"]);
    d.gone(2, 1);
    d.did(&["k100: ended by AlreadyGone, current None, 2 discarded"]);
}

#[test]
fn k13_a_drain_executes_what_is_there_and_newer_calls_are_for_the_successor() {
    let mut d = busy_with_two_pending();
    d.kill("a", KillMode::Drain);
    assert_eq!(d.accepted(Call { reply: reply(4), ..post("a") }).0, 3);
    d.done(2, 1, 1);
    d.done(2, 1, 2);
    d.did(&["k100: 0 discarded", "t1: done", "deliver #2 to %2.1", "t2: done", "deliver #3 to %2.1"]);
    d.done(2, 1, 3);
    d.did(&["t3: done", "ask %2.1"]);
    d.dies(2, 1, Exit::Code(0), None);
    d.did(&["sweep %2.1", "k100: ended by Ask, current Finished, 0 discarded", "spawn %3.1"]);
}

#[test]
fn k13_a_drain_goes_on_over_a_crash_and_over_expiry() {
    let mut d = Driver::new();
    d.accepted(Call { reply: reply(1), ..post("a") });
    d.accepted(Call { reply: reply(2), ..post("a") });
    d.accepted(Call { reply: reply(3), expires: Some(ms(50)), ..post("a") });
    d.ready(2, 1, 1);
    d.kill("a", KillMode::Drain);
    d.effects.clear();
    d.dies(2, 1, Exit::Signal(11), None);
    d.did(&["t1: crashed", "sweep %2.1", "spawn %2.2"]);
    d.ready(2, 2, 1);
    d.tick(60);
    d.done(2, 2, 2);
    d.did(&["deliver #2 to %2.2", "t3: expired", "t2: done", "ask %2.2"]);
}

/// Seed 460592 of the simulator.
#[test]
fn k13_the_limit_of_a_drain_by_name_is_one_for_all_that_are_drained() {
    let mut d = line_of_three();
    d.effects.clear();
    d.kill_with(Kill { within: Some(ms(500)), ..kill("a", KillMode::Drain) });
    d.did(&["k100: 0 discarded"]);
    d.tick(499);
    assert_eq!(d.core.ledger().pending, 2);
    d.tick(500);
    let asked = d.effects.iter().any(|effect| matches!(effect, Effect::Ask { process, .. } if process.number.0 == 2));
    assert!(asked, "{:?}", d.effects);
    let ledger = d.core.ledger();
    assert_eq!((ledger.pending, ledger.running, ledger.discarded), (0, 1, 2));
}

#[test]
fn k13_a_drain_of_a_worker_without_process_and_messages_is_over_at_once() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.ready(2, 1, 1);
    d.done(2, 1, 1);
    d.dies(2, 1, Exit::Code(0), None);
    d.effects.clear();
    d.kill("a", KillMode::Drain);
    d.did(&["k100: 0 discarded", "k100: ended by AlreadyGone, current None, 0 discarded"]);
    assert_eq!(d.core.worker_count(), 0);
}

// ---- death ------------------------------------------------------------------------------------

#[test]
fn d01_a_death_keeps_what_is_pending_in_its_order() {
    let mut d = Driver::new();
    for token in 1..=4 {
        d.accepted(Call { reply: reply(token), ..post("a") });
    }
    d.ready(2, 1, 3);
    d.effects.clear();
    d.dies(2, 1, Exit::Signal(11), Some(mark(1, 0)));
    d.did(&["t1: crashed", "sweep %2.1", "spawn %2.2"]);
    d.ready(2, 2, 3);
    d.did(&["deliver #2 to %2.2", "deliver #3 to %2.2", "deliver #4 to %2.2"]);
}

#[test]
fn d01_without_messages_the_next_call_starts_the_next_life() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.ready(2, 1, 1);
    d.done(2, 1, 1);
    d.dies(2, 1, Exit::Code(0), None);
    d.tick(HOUR_MS);
    d.did(&["spawn %2.1", "deliver #1 to %2.1", "sweep %2.1"]);
    d.call("a", "m");
    d.did(&["spawn %2.2"]);
}

#[test]
fn d02_exactly_one_message_is_charged_with_a_death() {
    // (begun, finished) in the page, and what becomes of messages 1 to 3.
    for (page, fates) in [
        (Some((0, 0)), ["", "", ""]),
        (Some((1, 0)), ["t1: crashed", "", ""]),
        (Some((1, 1)), ["t1: done", "", ""]),
        (Some((2, 1)), ["t1: done", "t2: crashed", ""]),
        (Some((3, 3)), ["t1: done", "t2: done", "t3: done"]),
        (None, ["t1: crashed", "", ""]),
    ] {
        let mut d = Driver::new();
        for token in 1..=3 {
            d.accepted(Call { reply: reply(token), ..post("a") });
        }
        d.ready(2, 1, 3);
        d.effects.clear();
        d.exits(2, 1, Exit::Signal(11), page.map(|(begun, finished)| mark(begun, finished)));
        let mut expected: Vec<&str> = fates.into_iter().filter(|fate| !fate.is_empty()).collect();
        expected.push("sweep %2.1");
        d.did(&expected);
        assert_eq!(d.core.ledger().running, 0, "{page:?}");
    }
}

#[test]
fn d02_one_word_settles_all_up_to_a_task_and_the_one_behind_them_is_charged() {
    let mut d = Driver::new();
    for token in 1..=6 {
        d.accepted(Call { reply: reply(token), ..post("a") });
    }
    d.ready(2, 1, 4);
    d.effects.clear();
    let all_to = |d: &mut Driver, id| d.feed(Event::DoneAll { process: d.key(2, 1), id: MessageId(id) });
    all_to(&mut d, 3);
    d.did(&["t1: done", "t2: done", "t3: done", "deliver #5 to %2.1", "deliver #6 to %2.1"]);
    let ledger = d.core.ledger();
    assert_eq!((ledger.done, ledger.running, ledger.pending), (3, 1, 2));
    // What is settled, and what it does not have, it must not settle.
    for (id, violations) in [(3, 1), (2, 2), (7, 3)] {
        all_to(&mut d, id);
        d.did(&[]);
        assert_eq!(d.core.counters().violations, violations);
    }
    d.done(2, 1, 4);
    d.did(&["t4: done"]);
    d.exits(2, 1, Exit::Signal(11), Some(mark(5, 4)));
    d.did(&["t5: crashed", "sweep %2.1"]);
    d.gone(2, 1);
    d.ready(2, 2, 4);
    d.did(&["spawn %2.2", "deliver #6 to %2.2"]);
    let ledger = d.core.ledger();
    assert_eq!((ledger.done, ledger.dead, ledger.running, ledger.pending), (4, 1, 1, 0));
}

#[test]
fn d02_the_mark_page_may_be_faster_than_the_word_for_all() {
    let mut d = Driver::new();
    for _ in 1..=3 {
        d.call("a", "m");
    }
    d.ready(2, 1, 3);
    let process = d.key(2, 1);
    d.feed(Event::Marked { process, mark: mark(3, 2) });
    assert_eq!(d.core.ledger().done, 2);
    for (id, done, violations) in [(1, 2, 0), (2, 2, 0), (2, 2, 1), (3, 3, 1)] {
        d.feed(Event::DoneAll { process, id: MessageId(id) });
        assert_eq!((d.core.ledger().done, d.core.counters().violations), (done, violations), "{id}");
    }
}

#[test]
fn d03_a_reported_error_settles_the_message_and_the_process_lives_on() {
    let mut d = busy_with_two_pending();
    d.feed(Event::Failed { process: d.key(2, 1), id: MessageId(1), error: "no" });
    d.did(&["t1: failed", "deliver #2 to %2.1"]);
    assert_eq!(d.view("a").crashes, 0);
}

#[test]
fn d04_crashes_are_answered_with_growing_delay() {
    let mut d = Driver::new();
    for _ in 0..3 {
        d.call("a", "m");
    }
    d.dies(2, 1, Exit::Code(1), None);
    d.did(&["spawn %2.1", "sweep %2.1", "spawn %2.2"]);
    d.dies(2, 2, Exit::Code(1), None);
    d.tick(70);
    d.did(&["sweep %2.2"]);
    d.tick(100);
    d.did(&["spawn %2.3"]);
}

#[test]
fn d05_a_process_that_cannot_start_is_a_death_with_a_reason() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.effects.clear();
    d.feed(Event::SpawnFailed { process: d.key(2, 1), stage: StartStage::Exec, detail: "no such file".into() });
    d.did(&["spawn %2.2"]);
    d.tick(START_TIMEOUT_MS);
    d.did(&["term %2.2"]);
    d.dies(2, 2, Exit::Signal(15), None);
    let view = d.view("a");
    let last = view.exits().next().unwrap();
    assert_eq!((view.crashes, last.failure.as_deref()), (2, Some("not ready in time")));
    assert_eq!(last.stage, Some(StartStage::NotReadyInTime));
}

#[test]
fn d05_what_the_launcher_says_is_why_the_start_failed() {
    let mut d = Driver::new();
    d.call("a", "m");
    let (stage, detail) = (StartStage::Exec, "cannot execute a: No such file or directory");
    d.feed(Event::StartFailed { process: d.key(2, 1), stage, detail: detail.into() });
    d.dies(2, 1, Exit::Code(127), None);
    let last = d.view("a").exits().next().unwrap().clone();
    assert_eq!((last.stage, last.failure.as_deref()), (Some(stage), Some(detail)));
    // One that is ready has been started, whatever its memory says.
    d.ready(2, 2, 1);
    d.feed(Event::StartFailed { process: d.key(2, 2), stage, detail: detail.into() });
    d.dies(2, 2, Exit::Code(3), None);
    let last = d.view("a").exits().next().unwrap().clone();
    assert_eq!((last.generation.0, last.stage, last.failure), (2, None, None));
}

#[test]
fn d07_a_name_that_is_held_is_neither_a_start_nor_a_crash_and_is_tried_again() {
    let mut d = Driver::new();
    d.held = true;
    d.call("a", "m");
    d.did(&["spawn %2.1"]);
    let mut at = 0;
    for delay in [10, 20, 40, 80, 160, 320, 500, 500] {
        let view = d.view("a");
        assert_eq!((view.generation.0, view.crashes, view.pending, view.state), (0, 0, 1, State::Backoff));
        assert_eq!((view.waits_for, view.next_start_in), (Some("process 7 holds it"), Some(ms(delay))));
        assert!(d.core.counters().spawned == 0 && view.exits().next().is_none());
        d.tick(at + delay - 1);
        d.did(&[]);
        at += delay;
        d.tick(at);
        d.did(&["spawn %2.1"]);
    }
    d.call("a", "m");
    d.did(&[]);
    d.held = false;
    d.tick(at + 500);
    d.ready(2, 1, 1);
    d.did(&["spawn %2.1", "deliver #1 to %2.1"]);
    assert_eq!((d.view("a").waits_for, d.core.counters().spawned), (None, 1));
    d.held = true;
    d.dies(2, 1, Exit::Code(0), None);
    assert_eq!(d.view("a").next_start_in, Some(ms(10)), "the delays begin anew");
    assert_eq!(d.view("a").generation.0, 1);
}

#[test]
fn d07_a_worker_whose_name_is_held_is_killed_drained_and_stopped_like_one_without_a_process() {
    let mut d = Driver::new();
    d.held = true;
    d.accepted(Call { reply: reply(1), ..post("a") });
    d.effects.clear();
    d.kill("a", KillMode::Ladder);
    d.did(&["t1: discarded", "k100: 1 discarded", "k100: ended by AlreadyGone, current None, 1 discarded"]);
    d.call("a", "m");
    d.kill("a", KillMode::Drain);
    d.call("a", "m");
    d.effects.clear();
    d.held = false;
    d.tick(10);
    d.ready(3, 1, 1);
    d.held = true;
    d.done(3, 1, 2);
    d.dies(3, 1, Exit::Code(0), None);
    assert_eq!(d.effects.iter().map(line).next_back().unwrap(), "spawn %4.1", "the successor's turn comes");
    d.core.shutdown(d.now, ms(1));
    d.take();
    assert_eq!((d.core.worker_count(), d.core.ledger().dead), (0, 1));
}

#[test]
fn d08_a_shutdown_asks_all_continues_them_and_kills_what_has_not_ended() {
    let mut d = busy_with_two_pending();
    d.call("b", "m");
    d.effects.clear();
    d.core.shutdown(d.now, ms(1000));
    d.take();
    d.did(&["t2: abandoned", "t3: abandoned", "ask %2.1", "continue %2.1", "continue %3.1"]);
    d.dies(3, 1, Exit::Code(0), None);
    d.tick(1000);
    d.did(&["sweep %3.1", "kill %2.1"]);
    d.dies(2, 1, Exit::Signal(9), None);
    d.did(&["t1: abandoned", "sweep %2.1", "stopped"]);
}

#[test]
fn d08_stopped_is_said_once_and_last() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.ready(2, 1, 1);
    d.done(2, 1, 1);
    d.dies(2, 1, Exit::Code(0), None);
    d.kill("a", KillMode::Drain);
    d.call("a", "m");
    d.feed(Event::SpawnFailed { process: d.key(3, 1), stage: StartStage::Setup, detail: "".into() });
    d.feed(Event::SpawnFailed { process: d.key(3, 2), stage: StartStage::Setup, detail: "".into() });
    d.core.wait(Target::Name("a"), Until::Gone, AccountId(0), reply(9).unwrap());
    d.effects.clear();
    // Nothing has a process: the last worker goes while the shutdown still looks at them.
    d.core.shutdown(d.now, ms(1000));
    d.take();
    d.did(&["t9: reached", "stopped"]);
    d.core.shutdown(d.now, ms(10));
    d.take();
    d.tick(5000);
    d.did(&[]);
}

#[test]
fn d08_a_shutdown_of_nothing_is_complete_at_once() {
    let mut d = Driver::new();
    d.core.shutdown(d.now, ms(1000));
    d.take();
    d.did(&["stopped"]);
}

#[test]
fn d08_no_life_follows_during_a_shutdown() {
    let mut d = line_of_three();
    d.kill_with(Kill { reply: None, target: Target::Number(WorkerNumber(2)), ..kill("", KillMode::Drain) });
    d.effects.clear();
    d.core.shutdown(d.now, ms(1000));
    d.take();
    d.dies(2, 1, Exit::Signal(11), None);
    assert!(!d.lines().iter().any(|line| line.starts_with("spawn")));
    assert_eq!((d.core.worker_count(), d.core.ledger().dead), (0, 3));
}

// ---- the ledger -------------------------------------------------------------------------------

#[test]
fn l01_every_message_has_one_fate_and_the_ledger_balances() {
    let mut d = Driver::new();
    for name in ["a", "b", "c"] {
        for _ in 0..3 {
            d.call(name, "m");
        }
    }
    d.accepted(Call { expires: Some(ms(5)), ..post("b") });
    for number in 2..=4 {
        d.ready(number, 1, 2);
    }
    d.done(2, 1, 1);
    d.feed(Event::Failed { process: d.key(2, 1), id: MessageId(2), error: "" });
    d.dies(3, 1, Exit::Code(1), Some(mark(4, 0)));
    d.tick(5);
    d.kill("c", KillMode::Ladder);
    let ledger = d.core.ledger();
    assert!(ledger.balances());
    let fates = [ledger.done, ledger.failed, ledger.discarded, ledger.expired, ledger.dead];
    assert_eq!((ledger.accepted, fates), (10, [1, 1, 1, 1, 1]));
    // Running: one each in a and c; pending: two of b, and one that c had been sent ahead.
    assert_eq!((ledger.running, ledger.pending), (2, 3));
    assert_eq!(d.core.limits().1, 5 * (MESSAGE_OVERHEAD_BYTES + 1), "what has its fate is charged no more");
}

#[test]
fn l02_an_outcome_says_whether_the_message_may_have_run() {
    let mut d = busy_with_two_pending();
    d.kill("a", KillMode::Now);
    d.effects.clear();
    d.exits(2, 1, Exit::Signal(9), Some(mark(0, 0)));
    d.did(&["t1: discarded", "sweep %2.1"]);
    let mut d = busy_with_two_pending();
    d.kill("a", KillMode::Now);
    d.effects.clear();
    d.exits(2, 1, Exit::Signal(9), None);
    d.did(&["t1: discarded, may have run", "sweep %2.1"]);
}

#[test]
fn l03_the_same_input_has_the_same_output() {
    let run = || {
        let mut d = Driver::new();
        let names: Vec<String> = (0..20).map(|name| format!("w{name}")).collect();
        for (token, name) in names.iter().enumerate() {
            for _ in 0..3 {
                d.accepted(Call { args: &[0; 900], ..post(name) });
            }
            d.core.wait(Target::Name(name), Until::Room, AccountId(0), reply(token as u64).unwrap());
        }
        d.take();
        d.effects.clear();
        for number in 2..22 {
            d.kill_with(Kill { reply: None, target: Target::Number(WorkerNumber(number)), ..kill("", KillMode::Now) });
        }
        d.lines()
    };
    assert_eq!(run(), run());
}

// ---- waiting ----------------------------------------------------------------------------------

#[test]
fn a_wait_for_the_end_of_a_name_outlasts_kill_and_successor() {
    let mut d = busy_with_two_pending();
    d.core.wait(Target::Name("a"), Until::Gone, AccountId(0), reply(9).unwrap());
    d.core.wait(Target::Number(WorkerNumber(2)), Until::Gone, AccountId(0), reply(8).unwrap());
    d.kill_with(Kill { reply: None, ..kill("a", KillMode::Now) });
    d.call("a", "m");
    d.dies(2, 1, Exit::Signal(9), None);
    let lines = d.lines();
    assert!(lines.contains(&"t8: reached".into()) && !lines.contains(&"t9: reached".into()), "{lines:?}");
    d.kill_with(Kill { reply: None, ..kill("a", KillMode::Now) });
    d.dies(3, 1, Exit::Signal(9), None);
    assert_eq!(d.lines().last().unwrap(), "t9: reached");
}

// ---- a new configuration ----------------------------------------------------------------------

/// A class with another grace, for all workers or none.
fn reload(d: &mut Driver, restart: bool, exit_grace_ms: Option<u64>) -> Reloaded {
    let limits = d.core.limits().0.clone();
    let new = exit_grace_ms.map(|grace| Arc::new(Policy { exit_grace: ms(grace), ..d.policy.clone() }));
    let done = d.core.reload(d.now, limits, restart, |_, policy| match &new {
        None => Renewal::Gone,
        Some(new) if **new == *policy => Renewal::Same(new.clone()),
        Some(new) => Renewal::Changed(new.clone()),
    });
    d.take();
    done
}

#[test]
fn a_process_keeps_its_class_to_its_end_and_a_restart_knows_which_it_is() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.ready(2, 1, 1);
    d.done(2, 1, 1);
    d.lines();
    assert_eq!(reload(&mut d, false, Some(1)), Reloaded { kept: 1, ..Reloaded::default() });
    assert!(d.view("a").outdated);
    assert_eq!(d.view("a").policy().exit_grace, ms(EXIT_GRACE_MS));
    // The same file once more, but now the process is to go.
    assert_eq!(reload(&mut d, true, Some(1)), Reloaded { restarted: 1, ..Reloaded::default() });
    d.did(&["ask %2.1"]);
    d.call("a", "m");
    d.did(&[]);
    d.dies(2, 1, Exit::Code(0), None);
    d.did(&["sweep %2.1", "spawn %2.2"]);
    assert_eq!((d.view("a").outdated, d.view("a").crashes), (false, 0));
    assert_eq!(d.view("a").policy().exit_grace, ms(1));
    assert_eq!(reload(&mut d, true, Some(1)), Reloaded::default());
}

#[test]
fn what_was_sent_ahead_to_a_process_that_makes_place_waits_for_the_next() {
    let mut d = Driver::new();
    for _ in 0..3 {
        d.call("a", "m");
    }
    d.ready(2, 1, 4);
    d.did(&["spawn %2.1", "deliver #1 to %2.1", "deliver #2 to %2.1", "deliver #3 to %2.1"]);
    d.mark = Some(mark(1, 0));
    reload(&mut d, true, Some(1));
    d.did(&["ask %2.1"]);
    assert_eq!((d.core.ledger().running, d.core.ledger().pending), (1, 2));
    d.done(2, 1, 1);
    d.dies(2, 1, Exit::Code(0), Some(mark(1, 1)));
    d.ready(2, 2, 4);
    let lines = d.lines();
    assert!(lines.iter().any(|line| line == "deliver #2 to %2.2"), "{lines:?}");
    assert!(lines.iter().any(|line| line == "deliver #3 to %2.2"), "{lines:?}");
}

#[test]
fn c13_what_a_process_that_makes_place_has_not_begun_still_expires() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.ready(2, 1, 4);
    d.done(2, 1, 1);
    // It was handed over at once, and so had no deadline before.
    d.accepted(Call { expires: Some(ms(50)), reply: reply(2), ..post("a") });
    d.mark = Some(mark(1, 1));
    reload(&mut d, true, Some(1));
    d.did(&["spawn %2.1", "deliver #1 to %2.1", "deliver #2 to %2.1", "ask %2.1"]);
    assert_eq!(d.core.next_deadline(), Some(d.now.after(ms(50))));
    d.tick(50);
    d.did(&["t2: expired"]);
}

#[test]
fn a_process_that_drops_the_task_it_was_about_to_begin_makes_place_all_the_same() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.ready(2, 1, 8);
    d.lines();
    d.mark = Some(mark(1, 0));
    reload(&mut d, true, Some(1));
    d.did(&["ask %2.1"]);
    assert_eq!((d.core.ledger().running, d.core.ledger().pending), (1, 0));
    // Nobody tells that it has seen the flag just then, and does not begin: so it is asked again.
    d.mark = Some(mark(0, 0));
    d.tick(1000);
    d.did(&["ask %2.1"]);
    assert_eq!((d.core.ledger().running, d.core.ledger().pending), (0, 1));
    d.tick(1000 + EXIT_GRACE_MS);
    d.did(&["term %2.1"]);
    d.dies(2, 1, Exit::Signal(15), d.mark);
    d.ready(2, 2, 8);
    d.did(&["sweep %2.1", "spawn %2.2", "deliver #1 to %2.2"]);
}

#[test]
fn a_process_that_is_being_started_is_replaced_when_it_is_ready() {
    let mut d = Driver::new();
    d.call("a", "m");
    reload(&mut d, true, Some(1));
    d.did(&["spawn %2.1"]);
    d.ready(2, 1, 1);
    d.did(&["ask %2.1"]);
    d.dies(2, 1, Exit::Code(0), None);
    d.ready(2, 2, 1);
    d.did(&["sweep %2.1", "spawn %2.2", "deliver #1 to %2.2"]);
}

#[test]
fn a_worker_without_a_class_takes_nothing_new_and_leaves_when_it_has_nothing() {
    let mut d = Driver::new();
    for name in ["a", "rests"] {
        d.call(name, "m");
    }
    d.ready(3, 1, 1);
    d.done(3, 1, 2);
    d.kill("rests", KillMode::Ladder);
    d.dies(3, 1, Exit::Code(0), None);
    d.call("rests", "m");
    d.ready(4, 1, 1);
    d.done(4, 1, 3);
    d.dies(4, 1, Exit::Code(0), None);
    assert_eq!(reload(&mut d, false, None), Reloaded { retired: 1, removed: 1, ..Reloaded::default() });
    assert_eq!(d.refusal(post("a")), Refusal::NoClass);
    assert!(d.view("a").retired && d.core.worker(d.now, Target::Name("rests")).is_none());
    d.ready(2, 1, 1);
    d.done(2, 1, 1);
    d.dies(2, 1, Exit::Code(0), None);
    assert_eq!(d.core.worker_count(), 0);
}

#[test]
fn a_limit_below_what_is_in_use_drops_nothing() {
    let mut d = Driver::new();
    for name in ["a", "b", "c"] {
        d.call(name, "m");
    }
    let limits = Limits { processes: 1, workers: 1, total_messages: 1, ..d.core.limits().0.clone() };
    let same = |_: &str, policy: &Policy| Renewal::Same(Arc::new(policy.clone()));
    d.core.reload(d.now, limits, false, same);
    assert_eq!(d.refusal(post("a")), Refusal::MailboxFull);
    for (number, message) in [(2, 1), (3, 2), (4, 3)] {
        d.ready(number, 1, 1);
        d.done(number, 1, message);
    }
    assert_eq!(d.core.ledger().done, 3);
    assert_eq!(d.core.places().0, 3);
}

/// README: "it is gone when it has no process and nothing left".
#[test]
fn a_worker_without_a_class_leaves_though_it_has_said_something_wrong() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.ready(2, 1, 1);
    let process = d.key(2, 1);
    d.core.handle(d.now, Event::Violation { process, detail: "rubbish" });
    d.done(2, 1, 1);
    reload(&mut d, false, None);
    d.dies(2, 1, Exit::Code(0), None);
    assert_eq!(d.core.worker_count(), 0);
}

/// The same where its name was held, and its message has expired meanwhile.
#[test]
fn a_worker_without_a_class_leaves_though_its_name_was_held() {
    let mut d = Driver::new();
    d.held = true;
    d.accepted(Call { expires: Some(ms(50)), ..post("a") });
    reload(&mut d, false, None);
    for _ in 0..100 {
        d.now = d.now.after(ms(1000));
        d.core.tick(d.now);
        d.take();
    }
    assert_eq!((d.core.ledger().expired, d.core.ledger().pending), (1, 0));
    assert_eq!(d.core.worker_count(), 0);
}

/// README: "If its class comes back before, it goes on": rules W5 and K10 with it.
#[test]
fn k10_a_main_worker_whose_class_comes_back_is_the_main_worker_again() {
    let mut d = Driver::new();
    d.core.start(d.now, WorkerName::new("m").unwrap(), Arc::new(d.policy.clone()), true);
    d.take();
    d.ready(1, 1, 1);
    reload(&mut d, false, None);
    reload(&mut d, false, Some(EXIT_GRACE_MS));
    d.lines();
    d.kill("m", KillMode::Ladder);
    d.did(&["k100: 0 discarded", "k100: ended by OnlyEmptied, current None, 0 discarded"]);
    d.dies(1, 1, Exit::Code(0), None);
    d.did(&["sweep %1.1", "spawn %1.2"]);
}

/// What it still has may be for later only: then nothing but the class brings its process back.
#[test]
fn w05_a_main_worker_without_a_process_is_started_when_its_class_comes_back() {
    let mut d = Driver::new();
    d.core.start(d.now, WorkerName::new("m").unwrap(), Arc::new(d.policy.clone()), true);
    d.take();
    d.ready(1, 1, 1);
    d.accepted(Call { after: Some(ms(60_000)), ..post("m") });
    reload(&mut d, false, None);
    d.dies(1, 1, Exit::Code(0), None);
    assert_eq!(d.view("m").pending, 1);
    d.lines();
    reload(&mut d, false, Some(EXIT_GRACE_MS));
    d.did(&["spawn %1.2"]);
}

/// A kill in the meantime ends it, and goes on ending it: a second one is not told that it only emptied the mailbox.
#[test]
fn k10_a_main_worker_that_was_killed_while_it_had_no_class_stays_killed() {
    for mode in [KillMode::Ladder, KillMode::Drain] {
        let mut d = Driver::new();
        d.core.start(d.now, WorkerName::new("m").unwrap(), Arc::new(d.policy.clone()), true);
        d.take();
        d.ready(1, 1, 1);
        reload(&mut d, false, None);
        d.kill("m", mode);
        reload(&mut d, false, Some(EXIT_GRACE_MS));
        d.lines();
        d.kill_with(Kill { reply: None, ..kill("m", KillMode::Now) });
        d.did(&["kill %1.1"]);
        d.dies(1, 1, Exit::Signal(9), None);
        assert_eq!(d.core.worker_count(), 0, "{mode:?}");
    }
}
