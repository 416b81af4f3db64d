//! What the core decides of signals (rules S1–S5), and of messages that are not wanted any more. With a virtual clock, like
//! `core_rules.rs`.

use std::num::NonZeroU64;
use std::time::Duration;

use workhall_core::{
    AccountId, Call, Cancelled, Core, Effect, Event, Instant, KEEP_MAX, KillMode, Limits, NewSignal, Outcome, ReplyTo,
    SignalEnd, Signalled,
};
use workhall_protocol::ids::{MessageId, SignalId, Target};
use workhall_protocol::terms::{Current, Exit, Ignored, Refusal, Until};
use workhall_tests::driver::{Driver, busy_with_two_pending, mark, ms, post, reply};

const MAKER: NonZeroU64 = NonZeroU64::new(77).unwrap();

fn id(n: u8) -> SignalId {
    SignalId([n; 16])
}

/// Arguments that name it.
fn args(n: u8) -> Vec<u8> {
    [b"\x92\x05\x81\xa7$signal\xd9\x20", id(n).to_string().as_bytes()].concat()
}

fn new(n: u8) -> NewSignal<'static> {
    NewSignal { id: id(n), maker: MAKER, account: AccountId(5), description: None, keep: Duration::ZERO }
}

#[track_caller]
fn make(d: &mut Driver, n: u8) {
    d.core.make_signal(d.now, new(n)).unwrap();
}

fn wait(d: &mut Driver, n: u8, timeout: Option<u64>, token: u64) {
    d.core.wait_for_signal(d.now, id(n), timeout.map(ms), reply(token).unwrap());
    d.take();
}

fn trigger(d: &mut Driver, n: u8) -> Signalled {
    let done = d.core.trigger_signal(d.now, id(n));
    d.take();
    done
}

fn there(d: &Driver, n: u8) -> bool {
    d.core.signal_view(d.now, id(n)).is_some()
}

/// The maker's connection, and those who wait on it, are gone.
fn leave(d: &mut Driver, connection: NonZeroU64) {
    d.core.forget_signals(connection);
    d.take();
}

#[test]
fn s02_the_first_trigger_wakes_all_who_wait_and_a_second_does_nothing() {
    let mut d = Driver::new();
    make(&mut d, 1);
    for token in 1..=3 {
        wait(&mut d, 1, None, token);
    }
    d.did(&[]);
    assert_eq!(trigger(&mut d, 1), Signalled::Done { first: true });
    d.did(&["t1: triggered", "t2: triggered", "t3: triggered"]);
    assert_eq!(trigger(&mut d, 1), Signalled::Done { first: false });
    d.did(&[]);
    assert_eq!(trigger(&mut d, 2), Signalled::Ignored(Ignored::NoSignal));
}

#[test]
fn s02_a_thousand_wait_for_one_and_all_are_told_once() {
    let mut d = Driver::new();
    make(&mut d, 1);
    for token in 0..1000 {
        wait(&mut d, 1, Some(1000 + token), token);
    }
    trigger(&mut d, 1);
    assert_eq!(d.lines().iter().filter(|line| line.ends_with("triggered")).count(), 1000);
    d.tick(5000);
    d.did(&[]);
}

#[test]
fn s03_a_wait_ends_at_once_in_time_or_not_at_all() {
    let mut d = Driver::new();
    make(&mut d, 1);
    wait(&mut d, 1, Some(0), 1);
    d.did(&["t1: not triggered in time"]);
    wait(&mut d, 1, Some(1500), 2);
    wait(&mut d, 1, Some(500), 3);
    wait(&mut d, 1, None, 4);
    assert_eq!(d.core.next_deadline(), Some(Instant(0).after(ms(500))), "nothing is looked at before");
    d.tick(499);
    d.did(&[]);
    d.tick(500);
    d.did(&["t3: not triggered in time"]);
    assert_eq!(d.core.next_deadline(), Some(Instant(0).after(ms(1500))));
    d.tick(1500);
    d.did(&["t2: not triggered in time"]);
    assert_eq!(d.core.next_deadline(), None, "who waits for ever costs no time");
    trigger(&mut d, 1);
    d.did(&["t4: triggered"]);
    wait(&mut d, 1, None, 5);
    wait(&mut d, 1, Some(0), 6);
    d.did(&["t5: triggered", "t6: triggered"]);
}

#[test]
fn s04_values_are_written_before_the_trigger_and_read_after_it() {
    let mut d = Driver::new();
    make(&mut d, 1);
    let set = |d: &mut Driver, key, value: &[u8]| d.core.set_signal(d.now, id(1), key, value).unwrap();
    assert_eq!(set(&mut d, "b", &[1]), Signalled::Done { first: true });
    set(&mut d, "a", &[2]);
    set(&mut d, "b", &[3, 4]);
    assert!(d.core.signal_view(d.now, id(1)).unwrap().values.is_none());
    wait(&mut d, 1, None, 1);
    trigger(&mut d, 1);
    d.did(&["t1: triggered a=[2] b=[3, 4]"]);
    assert_eq!(set(&mut d, "a", &[9]), Signalled::Ignored(Ignored::AlreadyTriggered));
    assert_eq!(d.core.signal_view(d.now, id(1)).unwrap().values.unwrap().len(), 2);
    wait(&mut d, 1, None, 2);
    d.did(&["t2: triggered a=[2] b=[3, 4]"]);
    assert_eq!(d.core.set_signal(d.now, id(2), "a", &[]).unwrap(), Signalled::Ignored(Ignored::NoSignal));
}

#[test]
fn s04_the_end_of_the_last_holder_frees_it() {
    // Its maker.
    let mut d = Driver::new();
    make(&mut d, 1);
    leave(&mut d, MAKER);
    assert!(!there(&d, 1));
    make(&mut d, 1);
    d.core.free_signal(d.now, id(1), MAKER);
    assert_eq!((there(&d, 1), d.core.signal_totals()), (false, (0, 0)));
    // A message, and then the process that has executed it.
    make(&mut d, 1);
    d.accepted(Call { args: &args(1), ..post("a") });
    leave(&mut d, MAKER);
    assert!(there(&d, 1), "the message carries it");
    d.ready(2, 1, 1);
    d.done(2, 1, 1);
    assert!(there(&d, 1), "its process may have kept it");
    d.dies(2, 1, Exit::Code(0), None);
    assert!(!there(&d, 1));
    // Time.
    d.core.make_signal(d.now, NewSignal { keep: ms(1000), ..new(2) }).unwrap();
    leave(&mut d, MAKER);
    d.tick(999);
    assert!(there(&d, 2));
    d.tick(1000);
    assert!(!there(&d, 2));
    // Who waits: for what nobody is left to trigger he does not.
    make(&mut d, 3);
    wait(&mut d, 3, None, 1);
    d.effects.clear();
    leave(&mut d, MAKER);
    d.did(&["t1: nobody is left to trigger it"]);
    assert!(!there(&d, 3));
}

#[test]
fn s04_a_triggered_signal_is_kept_for_its_holders_and_freed_with_the_last() {
    let mut d = Driver::new();
    make(&mut d, 1);
    d.accepted(Call { args: &args(1), ..post("a") });
    d.ready(2, 1, 1);
    trigger(&mut d, 1);
    leave(&mut d, MAKER);
    assert!(there(&d, 1), "the message that carries it runs");
    d.done(2, 1, 1);
    assert!(!there(&d, 1), "it was triggered: its process has nothing more to do with it");
    make(&mut d, 1);
    d.accepted(Call { args: &args(1), ..post("a") });
    d.done(2, 1, 2);
    leave(&mut d, MAKER);
    assert!(there(&d, 1), "its process may trigger it later");
    trigger(&mut d, 1);
    assert!(!there(&d, 1));
}

#[test]
fn s05_who_waits_learns_how_the_message_has_ended_that_was_to_trigger_it() {
    // It failed.
    let mut d = Driver::new();
    make(&mut d, 1);
    d.accepted(Call { args: &args(1), ..post("a") });
    wait(&mut d, 1, None, 1);
    d.ready(2, 1, 1);
    d.effects.clear();
    let process = d.key(2, 1);
    d.feed(Event::Failed { process, id: MessageId(1), error: "no" });
    d.did(&["t1: failed"]);
    wait(&mut d, 1, None, 2);
    d.did(&["t2: failed"]);
    assert!(there(&d, 1), "its maker holds it: another message may trigger it");
    // Its process died.
    d.accepted(Call { args: &args(1), ..post("a") });
    wait(&mut d, 1, None, 3);
    d.effects.clear();
    d.dies(2, 1, Exit::Signal(9), None);
    assert!(d.lines().contains(&"t3: crashed".to_string()));
    // It was discarded.
    d.tick(10_000);
    d.accepted(Call { args: &args(1), ..post("b") });
    d.accepted(Call { args: &args(1), ..post("b") });
    wait(&mut d, 1, None, 4);
    d.ready(3, 1, 1);
    d.effects.clear();
    d.kill("b", KillMode::Ladder);
    assert!(!d.lines().iter().any(|line| line.starts_with("t4")), "the other one still runs");
    d.dies(3, 1, Exit::Signal(15), None);
    assert!(d.lines().contains(&"t4: discarded, may have run".to_string()));
    // It expired.
    d.accepted(Call { args: &args(1), expires: Some(ms(100)), after: Some(ms(50)), ..post("c") });
    wait(&mut d, 1, None, 5);
    d.effects.clear();
    d.tick(10_100);
    assert!(d.lines().contains(&"t5: expired".to_string()));
}

#[test]
fn s05_of_a_long_error_who_waits_is_told_the_beginning() {
    for (long, told) in [(900, 900), (100_000, 4096)] {
        let mut d = Driver::new();
        make(&mut d, 1);
        d.accepted(Call { args: &args(1), ..post("a") });
        wait(&mut d, 1, None, 1);
        d.ready(2, 1, 1);
        d.effects.clear();
        let (process, error) = (d.key(2, 1), "x".repeat(long));
        d.feed(Event::Failed { process, id: MessageId(1), error: &error });
        let said = d.effects.iter().find_map(|effect| match effect {
            Effect::SignalEnded { end: SignalEnd::Message(outcome), .. } => match &**outcome {
                Outcome::Failed { error } => Some(error.len()),
                _ => None,
            },
            _ => None,
        });
        assert_eq!(said, Some(told));
    }
}

#[test]
fn s05_what_came_last_is_what_is_told() {
    let mut d = Driver::new();
    make(&mut d, 1);
    for _ in 0..2 {
        d.accepted(Call { args: &args(1), ..post("a") });
    }
    wait(&mut d, 1, None, 1);
    d.ready(2, 1, 1);
    d.done(2, 1, 1);
    let process = d.key(2, 1);
    d.feed(Event::Failed { process, id: MessageId(2), error: "no" });
    d.effects.clear();
    d.dies(2, 1, Exit::Code(0), None);
    assert!(d.lines().contains(&"t1: nobody is left to trigger it".to_string()), "its process has ended after that");
}

#[test]
fn s01_a_message_carries_only_so_many_and_none_is_kept_for_ever() {
    let mut d = Driver::new();
    make(&mut d, 1);
    let limits = Limits { message_bytes: 1 << 20, ..d.core.limits().0.clone() };
    let policy = std::sync::Arc::new(d.policy.clone());
    d.core.reload(d.now, limits, false, |_, _| workhall_core::Renewal::Same(policy.clone()));
    let many = |count: usize| args(1).repeat(count);
    d.accepted(Call { args: &many(256), ..post("a") });
    assert_eq!(d.refusal(Call { args: &many(257), ..post("a") }), Refusal::TooLarge);
    d.core.make_signal(d.now, NewSignal { keep: Duration::MAX, ..new(2) }).unwrap();
    leave(&mut d, MAKER);
    d.tick(KEEP_MAX.as_millis() as u64 - 1);
    assert!(there(&d, 2));
    d.tick(KEEP_MAX.as_millis() as u64);
    assert!(!there(&d, 2));
}

#[test]
fn who_waits_for_room_is_told_when_a_signal_makes_it() {
    let mut d = Driver::new();
    let limits = Limits { sender_bytes: 3000, ..d.core.limits().0.clone() };
    let policy = std::sync::Arc::new(d.policy.clone());
    d.core.reload(d.now, limits, false, |_, _| workhall_core::Renewal::Same(policy.clone()));
    d.call("a", "m");
    for n in 1..=7 {
        make(&mut d, n);
    }
    d.effects.clear();
    d.core.wait(Target::Name("a"), Until::Room, AccountId(5), reply(9).unwrap());
    d.take();
    d.did(&[]);
    for n in 1..=3 {
        d.core.free_signal(d.now, id(n), MAKER);
        d.take();
    }
    d.did(&["t9: reached"]);
}

#[test]
fn s05_a_process_that_has_executed_the_message_may_trigger_it_later_and_its_end_is_told() {
    let mut d = Driver::new();
    for (n, triggered) in [(1, true), (2, false)] {
        make(&mut d, n);
        let (number, message) = d.accepted(Call { args: &args(n), ..post("a") });
        wait(&mut d, n, None, n.into());
        if n == 1 {
            d.ready(2, 1, 1);
        }
        d.effects.clear();
        d.done(number, 1, message);
        wait(&mut d, n, Some(0), 9);
        d.did(&["t9: not triggered in time"]);
        if triggered {
            trigger(&mut d, n);
            d.did(&["t1: triggered"]);
        }
    }
    d.dies(2, 1, Exit::Code(0), None);
    assert!(d.lines().contains(&"t2: nobody is left to trigger it".to_string()));
    wait(&mut d, 2, None, 3);
    d.did(&["t3: nobody is left to trigger it"]);
}

#[test]
fn s05_of_two_messages_that_carry_it_only_the_end_of_the_last_counts() {
    let mut d = Driver::new();
    make(&mut d, 1);
    d.accepted(Call { args: &args(1), ..post("a") });
    d.accepted(Call { args: &args(1), ..post("a") });
    wait(&mut d, 1, None, 1);
    d.ready(2, 1, 1);
    d.effects.clear();
    let process = d.key(2, 1);
    d.feed(Event::Failed { process, id: MessageId(1), error: "no" });
    d.did(&["deliver #2 to %2.1"]);
    trigger(&mut d, 1);
    d.did(&["t1: triggered"]);
}

#[test]
fn s05_who_waits_late_waits_as_long_as_somebody_may_trigger_it() {
    let mut d = Driver::new();
    make(&mut d, 1);
    let (number, first) = d.accepted(Call { args: &args(1), ..post("a") });
    d.accepted(Call { args: &args(1), ..post("a") });
    d.ready(2, 1, 1);
    let process = d.key(2, 1);
    d.feed(Event::Failed { process, id: MessageId(first), error: "no" });
    d.effects.clear();
    // One message has failed, another is executed.
    wait(&mut d, 1, None, 1);
    d.did(&[]);
    d.done(number, 1, 2);
    d.effects.clear();
    // Both have ended; the process has what it needs.
    wait(&mut d, 1, None, 2);
    wait(&mut d, 1, Some(0), 3);
    d.did(&["t3: not triggered in time"]);
    d.dies(2, 1, Exit::Code(0), None);
    let lines = d.lines();
    for token in ["t1", "t2"] {
        assert!(lines.contains(&format!("{token}: nobody is left to trigger it")), "{lines:?}");
    }
}

#[test]
fn s05_a_message_that_is_tried_again_still_carries_it_and_a_dead_letter_that_is_posted_again_does() {
    let mut d = Driver::with(|policy| policy.attempts = 2);
    make(&mut d, 1);
    d.accepted(Call { args: &args(1), ..post("a") });
    wait(&mut d, 1, None, 1);
    d.ready(2, 1, 1);
    d.dies(2, 1, Exit::Signal(11), None);
    // The first death is answered at once.
    d.ready(2, 2, 1);
    assert!(!d.lines().iter().any(|line| line.starts_with("t1")), "it is tried again");
    d.dies(2, 2, Exit::Signal(11), None);
    let lines = d.lines();
    assert!(lines.contains(&"t1: poison".to_string()), "{lines:?}");
    let policy = d.policy.clone();
    let class_of = |_: &str| Ok(std::sync::Arc::new(policy.clone()));
    assert_eq!(d.core.requeue(d.now, workhall_core::Letters::All, AccountId(5), class_of).requeued, 1);
    d.take();
    d.effects.clear();
    wait(&mut d, 1, None, 2);
    d.did(&[]);
    trigger(&mut d, 1);
    d.did(&["t2: triggered"]);
}

#[test]
fn s05_at_the_supervisors_end_who_waits_learns_it() {
    let mut d = Driver::new();
    make(&mut d, 1);
    d.accepted(Call { args: &args(1), ..post("a") });
    wait(&mut d, 1, None, 1);
    d.core.shutdown(d.now, ms(1000));
    d.take();
    assert!(d.lines().contains(&"t1: abandoned".to_string()));
    assert_eq!(d.core.make_signal(d.now, new(2)).unwrap_err().reason, Refusal::ShuttingDown);
}

#[test]
fn s03_who_waits_and_goes_away_is_forgotten_and_a_trigger_after_all_have_left_is_no_error() {
    let mut d = Driver::new();
    make(&mut d, 1);
    let other = ReplyTo { connection: NonZeroU64::new(9).unwrap(), token: 1 };
    d.core.wait_for_signal(d.now, id(1), Some(ms(500)), other);
    wait(&mut d, 1, None, 2);
    leave(&mut d, other.connection);
    d.tick(1000);
    d.did(&[]);
    leave(&mut d, NonZeroU64::MIN);
    assert_eq!(d.core.signal_view(d.now, id(1)).unwrap().waiters, 0);
    assert_eq!(trigger(&mut d, 1), Signalled::Done { first: true });
    d.did(&[]);
}

#[test]
fn s01_signals_are_bounded_in_number_and_size_per_sender_and_count_like_messages() {
    let limits =
        Limits { sender_signals: 2, sender_bytes: 2000, message_bytes: 1000, total_bytes: 2700, ..Limits::default() };
    let mut core = Core::new(limits, 1);
    let now = Instant(0);
    core.make_signal(now, new(1)).unwrap();
    core.make_signal(now, NewSignal { description: Some("all pages"), ..new(2) }).unwrap();
    let refused = core.make_signal(now, new(3)).unwrap_err();
    assert_eq!((refused.reason, refused.detail.contains("`sender_signals`")), (Refusal::MailboxFull, true));
    let other = |n| NewSignal { account: AccountId(6), ..new(n) };
    core.make_signal(now, other(3)).unwrap();
    let set = |core: &mut Core, n, bytes: usize| core.set_signal(now, id(n), "k", &vec![0; bytes]);
    let refused = set(&mut core, 1, 800).unwrap_err();
    assert_eq!((refused.reason, refused.detail.contains("`message_bytes`")), (Refusal::TooLarge, true));
    set(&mut core, 1, 600).unwrap();
    set(&mut core, 2, 600).unwrap();
    // What is there can be written smaller, and so something else larger.
    let refused = set(&mut core, 2, 675).unwrap_err();
    assert!(refused.reason == Refusal::TooLarge, "{refused:?}");
    let policy = std::sync::Arc::new(workhall_core::Policy::default());
    let call = Call { args: &[0; 500], account: AccountId(5), ..post("a") };
    let receipt = core.call(now, call, |_| Ok(policy.clone()));
    assert!(
        matches!(&receipt, workhall_core::CallReceipt::Refused(refused) if refused.detail.contains("`sender_bytes`"))
    );
    set(&mut core, 1, 0).unwrap();
    let receipt = core.call(now, call, |_| Ok(policy.clone()));
    assert!(matches!(receipt, workhall_core::CallReceipt::Accepted { .. }), "{receipt:?}");
    let refused = set(&mut core, 3, 650).unwrap_err();
    assert!(refused.detail.contains("`total_bytes`"), "{refused:?}");
    core.forget_signals(MAKER);
    assert_eq!(core.signal_totals(), (0, 0));
}

#[test]
fn s04_signals_go_with_the_snapshot() {
    let mut d = Driver::new();
    make(&mut d, 1);
    d.core.set_signal(d.now, id(1), "k", &[7]).unwrap();
    d.accepted(Call { args: &args(1), ..post("a") });
    d.ready(2, 1, 1);
    wait(&mut d, 1, Some(5000), 1);
    make(&mut d, 2);
    wait(&mut d, 2, None, 2);
    d.effects.clear();
    let json = serde_json::to_string(&serde_json::to_value(Snapshot(&d.core)).unwrap()).unwrap();
    let limits = d.core.limits().0.clone();
    d.core = Core::restore(&mut serde_json::Deserializer::from_str(&json), limits).unwrap();
    d.dies(2, 1, Exit::Code(1), Some(mark(1, 0)));
    assert!(d.lines().contains(&"t1: crashed".to_string()));
    trigger(&mut d, 2);
    d.did(&["t2: triggered"]);
    leave(&mut d, MAKER);
    assert_eq!(d.core.signal_totals(), (0, 0));
}

struct Snapshot<'a>(&'a Core);

impl serde::Serialize for Snapshot<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.snapshot(serializer)
    }
}

// ---- cancel --------------------------------------------------------------------------------------

fn cancel(d: &mut Driver, message: u64) -> Cancelled {
    let done = d.core.cancel(d.now, MessageId(message), |account| account == AccountId(0));
    d.take();
    done
}

#[test]
fn a_pending_message_that_is_cancelled_is_discarded_and_who_waits_is_told() {
    let mut d = busy_with_two_pending();
    assert_eq!(cancel(&mut d, 2), Cancelled::Discarded);
    d.did(&["t2: discarded"]);
    assert_eq!(cancel(&mut d, 2), Cancelled::Ignored(Ignored::NoMessage));
    assert_eq!((d.core.ledger().discarded, d.core.ledger().pending), (1, 1));
    d.done(2, 1, 1);
    d.did(&["t1: done", "deliver #3 to %2.1"]);
}

#[test]
fn the_process_of_a_task_that_is_cancelled_is_told_and_not_interrupted() {
    let mut d = busy_with_two_pending();
    assert_eq!(cancel(&mut d, 1), Cancelled::Told);
    d.did(&["cancel #1 at %2.1"]);
    assert_eq!(cancel(&mut d, 1), Cancelled::Told);
    d.did(&[]);
    d.done(2, 1, 1);
    d.did(&["t1: done", "deliver #2 to %2.1"]);
    // What was sent ahead is at the process, too.
    let mut d = Driver::new();
    d.call("a", "m");
    d.call("a", "m");
    d.ready(2, 1, 8);
    d.effects.clear();
    assert_eq!(cancel(&mut d, 2), Cancelled::Told);
    d.did(&["cancel #2 at %2.1"]);
}

/// `a` executes message 1, was sent 2 (token 2) and 3 ahead, and was told that 2 is not wanted any more.
fn cancelled_ahead(attempts: u8) -> Driver {
    let mut d = Driver::with(|policy| policy.attempts = attempts);
    for token in 1..=3 {
        d.accepted(Call { reply: reply(token), ..post("a") });
    }
    d.ready(2, 1, 8);
    assert_eq!(cancel(&mut d, 2), Cancelled::Told);
    d.effects.clear();
    d
}

#[test]
fn what_was_sent_ahead_and_is_cancelled_is_discarded_where_its_process_has_not_begun_it() {
    let mut d = cancelled_ahead(1);
    let process = d.key(2, 1);
    d.feed(Event::Dropped { process, id: MessageId(2) });
    assert_eq!(d.core.counters().violations, 1, "not before its turn");
    d.done(2, 1, 1);
    d.feed(Event::Dropped { process, id: MessageId(2) });
    d.did(&["t1: done", "t2: discarded"]);
    d.feed(Event::Dropped { process, id: MessageId(3) });
    assert_eq!((d.core.counters().violations, d.core.ledger().running), (2, 1), "only what is not wanted");
    d.done(2, 1, 3);
    assert_eq!((d.core.ledger().done, d.core.ledger().discarded), (2, 1));
}

#[test]
fn k12_what_runs_at_a_kill_is_what_the_page_says_although_one_before_it_was_dropped() {
    let mut d = cancelled_ahead(1);
    // It has executed 1, dropped 2 and begun 3, and nothing of that is read.
    d.mark = Some(mark(3, 1));
    d.kill("a", KillMode::Ladder);
    let process = d.key(2, 1);
    d.done(2, 1, 1);
    d.feed(Event::Dropped { process, id: MessageId(2) });
    d.done(2, 1, 3);
    let report = d.ends(2, 1, Exit::Code(0));
    assert_eq!((report.current, report.discarded), (Current::Finished, 0));
}

#[test]
fn what_a_process_has_dropped_and_not_said_yet_is_discarded_although_it_makes_place() {
    let mut d = Driver::new();
    for token in 1..=4 {
        d.accepted(Call { reply: reply(token), ..post("a") });
    }
    d.ready(2, 1, 8);
    assert_eq!(cancel(&mut d, 2), Cancelled::Told);
    d.effects.clear();
    // It has executed 1, dropped 2 and begun 3, and nothing of that is read.
    d.mark = Some(mark(3, 1));
    let policy = std::sync::Arc::new(workhall_core::Policy { class: "new".into(), ..d.policy.clone() });
    let limits = d.core.limits().0.clone();
    d.core.reload(d.now, limits, true, |_, _| workhall_core::Renewal::Changed(policy.clone()));
    d.take();
    d.did(&["ask %2.1"]);
    d.done(2, 1, 1);
    let process = d.key(2, 1);
    d.feed(Event::Dropped { process, id: MessageId(2) });
    d.done(2, 1, 3);
    d.did(&["t1: done", "t2: discarded", "t3: done"]);
    assert_eq!((d.core.counters().violations, d.core.ledger().pending), (0, 1));
}

#[test]
fn what_is_cancelled_is_not_executed_by_the_next_process_either() {
    // The one that died had not begun it.
    let mut d = cancelled_ahead(1);
    d.dies(2, 1, Exit::Signal(9), Some(mark(1, 0)));
    let lines = d.lines();
    assert!(lines.contains(&"t2: discarded".to_string()), "{lines:?}");
    d.ready(2, 2, 8);
    assert!(d.lines().contains(&"deliver #3 to %2.2".to_string()));
    // Or had, and would execute it again.
    let mut d = cancelled_ahead(3);
    d.done(2, 1, 1);
    d.dies(2, 1, Exit::Signal(9), Some(mark(2, 1)));
    assert!(d.lines().contains(&"t2: crashed".to_string()));
    // It has made place for another class.
    let mut d = cancelled_ahead(1);
    d.mark = Some(mark(1, 0));
    let policy = std::sync::Arc::new(workhall_core::Policy { class: "new".into(), ..d.policy.clone() });
    let limits = d.core.limits().0.clone();
    d.core.reload(d.now, limits, true, |_, _| workhall_core::Renewal::Changed(policy.clone()));
    d.take();
    assert!(d.lines().contains(&"t2: discarded".to_string()));
    assert_eq!((d.core.ledger().pending, d.core.ledger().running), (1, 1));
}

#[test]
fn a_message_that_was_posted_for_later_is_cancelled_by_its_id_before_and_after_its_time() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.ready(2, 1, 1);
    let (_, first) = d.accepted(Call { after: Some(ms(100)), reply: reply(1), ..post("a") });
    let (_, second) = d.accepted(Call { after: Some(ms(100)), reply: reply(2), ..post("a") });
    let (_, third) = d.accepted(Call { after: Some(ms(100)), reply: reply(3), ..post("a") });
    d.effects.clear();
    assert_eq!(cancel(&mut d, first), Cancelled::Discarded);
    d.did(&["t1: discarded"]);
    d.tick(100);
    assert_eq!(cancel(&mut d, second), Cancelled::Discarded);
    d.did(&["t2: discarded"]);
    d.done(2, 1, 1);
    let delivered = d.lines();
    assert_eq!(delivered.len(), 1, "{delivered:?}");
    assert_eq!(cancel(&mut d, third), Cancelled::Told);
    // The number by which its process knows it is no message's.
    let task: u64 = delivered[0].strip_prefix("deliver #").unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(task != third && cancel(&mut d, task) == Cancelled::Ignored(Ignored::NoMessage));
    d.done(2, 1, task);
    assert_eq!((d.core.ledger().discarded, d.core.ledger().done), (2, 2));
}

#[test]
fn who_has_not_posted_a_message_and_may_not_kill_does_not_cancel_it() {
    let mut d = busy_with_two_pending();
    let (_, later) = d.accepted(Call { after: Some(ms(100)), ..post("a") });
    for message in [1, 2, later] {
        let done = d.core.cancel(d.now, MessageId(message), |_| false);
        assert!(matches!(&done, Cancelled::Refused(refused) if refused.reason == Refusal::NotPermitted), "{done:?}");
    }
    d.take();
    d.did(&[]);
    assert_eq!(d.core.ledger().pending, 3);
    d.tick(100);
    d.done(2, 1, 1);
    d.done(2, 1, 2);
    d.done(2, 1, 3);
    assert_eq!(d.view("a").running.map(|running| running.id.0), Some(later));
}

#[test]
fn a_drained_worker_whose_last_message_is_cancelled_ends() {
    let mut d = Driver::new();
    d.accepted(Call { after: Some(ms(100)), ..post("a") });
    d.kill("a", KillMode::Drain);
    d.effects.clear();
    assert_eq!(cancel(&mut d, 1), Cancelled::Discarded);
    assert!(d.core.worker(d.now, Target::Name("a")).is_none());
}
