//! What the core decides when an operator pauses and resumes workers (rule P4). With a virtual clock, like
//! `core_rules.rs`.

use std::sync::Arc;

use workhall_core::{
    Call, CallReceipt, Core, CrashLimit, Effect, Event, Instant, Kill, KillMode, Limits, Policy, Renewal, State,
};
use workhall_protocol::ids::{Target, WorkerName, WorkerNumber};
use workhall_protocol::terms::{Exit, Ignored, Refusal, Until};
use workhall_tests::driver::{
    self, Driver, EXIT_GRACE_MS, START_TIMEOUT_MS, TERM_GRACE_MS, busy_with_two_pending, line_of_three, mark, ms, post,
    reply,
};

#[track_caller]
fn pause(d: &mut Driver, name: &str) {
    assert_eq!(d.core.pause(d.now, Target::Name(name)), Ok(()));
    d.take();
}

#[track_caller]
fn resume(d: &mut Driver, name: &str) {
    assert!(d.core.resume(d.now, Target::Name(name)));
    d.take();
}

/// Time passes, without anything that is due.
fn at(d: &mut Driver, millis: u64) {
    d.now = Instant(0).after(ms(millis));
}

#[test]
fn p04_a_process_stops_and_goes_on_and_is_given_nothing_meanwhile() {
    let mut d = busy_with_two_pending();
    pause(&mut d, "a");
    d.did(&["pause %2.1"]);
    assert_eq!((d.view("a").state, d.view("a").suspended), (State::Paused, Some(ms(0))));
    d.call("a", "m");
    // What it had said before it stopped is read now.
    d.done(2, 1, 1);
    d.did(&["t1: done"]);
    assert_eq!((d.view("a").pending, d.view("a").running.is_none()), (3, true));
    resume(&mut d, "a");
    d.did(&["continue %2.1", "deliver #2 to %2.1"]);
    assert_eq!((d.view("a").state, d.view("a").suspended), (State::Busy, None));
}

#[test]
fn p04_an_idle_worker_is_given_nothing_and_a_process_that_becomes_ready_neither() {
    let mut d = Driver::new();
    d.call("a", "m");
    pause(&mut d, "a");
    d.did(&["spawn %2.1", "pause %2.1"]);
    d.ready(2, 1, 4);
    d.did(&[]);
    assert_eq!(d.view("a").state, State::Paused);
    resume(&mut d, "a");
    d.did(&["continue %2.1", "deliver #1 to %2.1"]);
    d.done(2, 1, 1);
    pause(&mut d, "a");
    d.call("a", "m");
    d.did(&["pause %2.1"]);
    resume(&mut d, "a");
    d.did(&["continue %2.1", "deliver #2 to %2.1"]);
}

#[test]
fn p04_no_process_is_started_for_a_paused_worker_and_its_name_does_not_rest() {
    let mut d = Driver::with(|policy| policy.startup_method = Some("startup".into()));
    d.call("a", "m");
    d.ready(2, 1, 1);
    d.done(2, 1, 1);
    d.dies(2, 1, Exit::Code(0), None);
    // It rests, and is woken by the pause.
    d.effects.clear();
    pause(&mut d, "a");
    assert_eq!((d.view("a").state, d.view("a").identity.number), (State::Paused, WorkerNumber(2)));
    d.call("a", "m");
    d.accepted(Call { after: Some(ms(500)), ..post("a") });
    d.tick(1000);
    d.did(&[]);
    assert_eq!((d.view("a").state, d.view("a").pending, d.core.places()), (State::Paused, 2, (0, 0)));
    resume(&mut d, "a");
    d.did(&["spawn %2.2"]);
    // Nothing of the pause is left when it rests again.
    d.ready(2, 2, 1);
    d.done(2, 2, 2);
    d.done(2, 2, 4);
    d.dies(2, 2, Exit::Code(0), None);
    assert_eq!((d.view("a").state, d.view("a").suspended), (State::Absent, None));
}

#[test]
fn p04_a_worker_that_is_resumed_with_nothing_to_do_rests() {
    let mut d = Driver::new();
    d.call("a", "m");
    d.ready(2, 1, 1);
    d.done(2, 1, 1);
    d.dies(2, 1, Exit::Code(0), None);
    pause(&mut d, "a");
    resume(&mut d, "a");
    assert_eq!((d.view("a").state, d.core.next_deadline()), (State::Absent, None));
}

#[test]
fn p04_a_second_pause_changes_nothing_and_one_resume_ends_both() {
    let mut d = busy_with_two_pending();
    pause(&mut d, "a");
    at(&mut d, 1000);
    pause(&mut d, "a");
    d.did(&["pause %2.1"]);
    assert_eq!(d.view("a").suspended, Some(ms(1000)));
    resume(&mut d, "a");
    resume(&mut d, "a");
    d.did(&["continue %2.1"]);
}

#[test]
fn p04_who_is_not_there_or_is_being_killed_is_not_paused() {
    let mut d = busy_with_two_pending();
    assert_eq!(d.core.pause(d.now, Target::Name("nobody")), Err(Ignored::NoWorker));
    assert_eq!(d.core.pause(d.now, Target::Number(WorkerNumber(99))), Err(Ignored::NoWorker));
    d.kill("a", KillMode::Ladder);
    d.effects.clear();
    assert_eq!(d.core.pause(d.now, Target::Name("a")), Err(Ignored::Ending));
    assert_eq!(d.core.pause(d.now, Target::Number(WorkerNumber(2))), Err(Ignored::Ending));
    // By name, its successor is.
    d.call("a", "m");
    pause(&mut d, "a");
    d.did(&[]);
    d.done(2, 1, 1);
    d.dies(2, 1, Exit::Code(0), None);
    assert!(!d.lines().contains(&"spawn %3.1".to_string()), "its turn has come, and it is paused");
    assert_eq!((d.view("a").state, d.view("a").pending, d.core.places()), (State::Paused, 1, (0, 0)));
    resume(&mut d, "a");
    d.did(&["spawn %3.1"]);
}

#[test]
fn p04_by_name_all_of_a_line_are_paused_and_by_number_one() {
    let mut d = line_of_three();
    assert_eq!(d.core.pause(d.now, Target::Number(WorkerNumber(3))), Ok(()));
    d.take();
    d.did(&[]);
    d.done(2, 1, 1);
    d.did(&["t1: done", "ask %2.1"]);
    d.dies(2, 1, Exit::Code(0), None);
    assert!(!d.lines().contains(&"spawn %3.1".to_string()), "it is paused, and is the next");
    assert!(d.core.resume(d.now, Target::Number(WorkerNumber(3))));
    d.take();
    d.did(&["spawn %3.1"]);
    let mut d = line_of_three();
    pause(&mut d, "a");
    d.did(&["pause %2.1"]);
    let paused = |d: &Driver| d.core.workers(d.now).filter(|view| view.suspended.is_some()).count();
    assert_eq!(paused(&d), 3);
    resume(&mut d, "a");
    d.did(&["continue %2.1"]);
    assert_eq!(paused(&d), 0);
}

// ---- limits of time ---------------------------------------------------------------------------

#[test]
fn p04_a_time_limit_counts_only_what_is_executed() {
    for window in [1, 2] {
        let mut d = Driver::with(|policy| policy.task_timeout = Some(ms(1000)));
        d.accepted(Call { reply: reply(1), ..post("a") });
        d.ready(2, 1, window);
        at(&mut d, 400);
        pause(&mut d, "a");
        d.effects.clear();
        assert_eq!(d.core.next_deadline(), None, "nothing of it is due while it is stopped");
        at(&mut d, 100_000);
        assert_eq!(d.view("a").running.unwrap().age, ms(400));
        resume(&mut d, "a");
        assert_eq!(d.view("a").running.unwrap().age, ms(400));
        d.did(&["continue %2.1"]);
        // Where tasks are sent ahead it is looked at a few times how far it has come.
        while d.effects.is_empty() {
            d.now = d.core.next_deadline().expect("it is too late at some time");
            d.core.tick(d.now);
            d.take();
            if window > 1 {
                d.feed(Event::Marked { process: d.key(2, 1), mark: mark(1, 0) });
                d.effects.retain(|effect| !matches!(effect, Effect::Look { .. }));
            }
        }
        d.did(&["ask %2.1", "term %2.1"]);
        let late = d.now.since(Instant(0).after(ms(100_600)));
        assert!(d.now >= Instant(0).after(ms(100_600)) && late <= ms(250), "window {window}: {late:?}");
    }
}

#[test]
fn p04_what_was_said_during_the_pause_does_not_make_the_next_task_younger_than_it_is() {
    let mut d = Driver::with(|policy| policy.task_timeout = Some(ms(1000)));
    d.accepted(Call { reply: reply(1), ..post("a") });
    d.accepted(Call { reply: reply(2), ..post("a") });
    d.ready(2, 1, 2);
    pause(&mut d, "a");
    // It was written before the process stopped, and is read late: the second task is the first now.
    at(&mut d, 5000);
    d.done(2, 1, 1);
    at(&mut d, 8000);
    assert_eq!(d.view("a").running.unwrap().age, ms(0));
    resume(&mut d, "a");
    assert_eq!(d.view("a").running.unwrap().age, ms(0));
}

#[test]
fn p04_neither_the_time_to_start_nor_the_time_without_work_passes_during_a_pause() {
    let mut d = Driver::with(|policy| policy.idle_timeout = Some(ms(1000)));
    d.call("a", "m");
    at(&mut d, 4000);
    pause(&mut d, "a");
    assert_eq!(d.core.next_deadline(), None);
    at(&mut d, 50_000);
    resume(&mut d, "a");
    assert_eq!(d.view("a").process_age, Some(ms(50_000)), "its age is its age");
    assert_eq!(d.core.next_deadline(), Some(Instant(0).after(ms(46_000 + START_TIMEOUT_MS))));
    d.ready(2, 1, 1);
    d.done(2, 1, 1);
    at(&mut d, 50_700);
    pause(&mut d, "a");
    assert_eq!(d.core.next_deadline(), None);
    at(&mut d, 90_000);
    resume(&mut d, "a");
    assert_eq!(d.core.next_deadline(), Some(Instant(0).after(ms(90_300))));
}

#[test]
fn p04_messages_expire_during_a_pause() {
    let mut d = busy_with_two_pending();
    d.accepted(Call { reply: reply(4), expires: Some(ms(500)), ..post("a") });
    pause(&mut d, "a");
    d.effects.clear();
    d.tick(501);
    d.did(&["t4: expired"]);
}

// ---- ends -------------------------------------------------------------------------------------

#[test]
fn p04_a_kill_of_a_paused_worker_continues_it_first() {
    for (mode, then) in [(KillMode::Ladder, &[][..]), (KillMode::Now, &["kill %2.1"])] {
        let mut d = busy_with_two_pending();
        pause(&mut d, "a");
        d.effects.clear();
        d.kill("a", mode);
        let discarded = ["t2: discarded", "t3: discarded", "continue %2.1", "ask %2.1"];
        assert_eq!(d.lines(), [&discarded, then, &["k100: 2 discarded"]].concat(), "{mode:?}");
        assert_eq!(d.view("a").suspended, None);
        // The ladder has its graces from here.
        if mode == KillMode::Ladder {
            d.done(2, 1, 1);
            d.tick(EXIT_GRACE_MS);
            d.tick(EXIT_GRACE_MS + TERM_GRACE_MS);
            d.did(&["t1: done", "term %2.1", "kill %2.1"]);
        }
    }
    // Without a process it is gone at once.
    let mut d = Driver::new();
    d.held = true;
    d.call("a", "m");
    pause(&mut d, "a");
    d.effects.clear();
    d.kill("a", KillMode::Ladder);
    d.did(&["k100: 1 discarded", "k100: ended by AlreadyGone, current None, 1 discarded"]);
}

#[test]
fn p04_a_drain_by_name_ends_the_pause_of_all_that_are_drained() {
    let mut d = line_of_three();
    pause(&mut d, "a");
    d.effects.clear();
    d.kill_with(Kill { reply: None, ..driver::kill("a", KillMode::Drain) });
    d.did(&["continue %2.1"]);
}

#[test]
fn p04_a_drain_and_the_end_of_its_time_end_the_pause() {
    let mut d = busy_with_two_pending();
    pause(&mut d, "a");
    d.done(2, 1, 1);
    d.effects.clear();
    d.kill_with(Kill { reply: None, ..driver::kill("a", KillMode::Drain) });
    d.did(&["continue %2.1", "deliver #2 to %2.1"]);
    // Also one that is drained may be paused; its time runs.
    d.kill_with(Kill { reply: None, within: Some(ms(1000)), ..driver::kill("a", KillMode::Drain) });
    pause(&mut d, "a");
    d.done(2, 1, 2);
    d.did(&["pause %2.1", "t2: done"]);
    d.tick(1000);
    d.did(&["t3: discarded", "continue %2.1", "ask %2.1"]);
    // Without a process one is started.
    let mut d = Driver::new();
    d.call("a", "m");
    d.ready(2, 1, 1);
    pause(&mut d, "a");
    d.call("a", "m");
    d.dies(2, 1, Exit::Signal(9), None);
    d.effects.clear();
    d.kill_with(Kill { reply: None, ..driver::kill("a", KillMode::Drain) });
    d.did(&["spawn %2.2"]);
}

#[test]
fn p04_the_shutdown_ends_the_pause_and_nothing_is_paused_behind_it() {
    let mut d = busy_with_two_pending();
    pause(&mut d, "a");
    d.effects.clear();
    d.core.shutdown(d.now, ms(1000));
    d.take();
    let lines = d.lines();
    let place = |what: &str| lines.iter().position(|line| line == what);
    assert!(place("continue %2.1") < place("ask %2.1") && place("continue %2.1").is_some(), "{lines:?}");
    assert_eq!(d.core.pause(d.now, Target::Name("a")), Err(Ignored::Ending));
    d.take();
    d.did(&[]);
}

#[test]
fn p04_a_kill_only_empties_a_worker_that_no_call_created_and_leaves_it_paused() {
    let mut d = Driver::new();
    let policy = Arc::new(d.policy.clone());
    d.core.start(d.now, WorkerName::new("main").unwrap(), policy, true);
    d.take();
    d.ready(1, 1, 1);
    pause(&mut d, "main");
    d.call("main", "m");
    d.effects.clear();
    d.kill("main", KillMode::Ladder);
    d.did(&["k100: 1 discarded", "k100: ended by OnlyEmptied, current None, 1 discarded"]);
    assert_eq!(d.view("main").state, State::Paused);
    d.dies(1, 1, Exit::Code(0), None);
    d.did(&["sweep %1.1"]);
    resume(&mut d, "main");
    d.did(&["spawn %1.2"]);
}

#[test]
fn p04_who_dies_while_it_is_paused_stays_paused_and_its_messages_wait() {
    let mut d = busy_with_two_pending();
    pause(&mut d, "a");
    d.effects.clear();
    d.dies(2, 1, Exit::Signal(9), None);
    d.did(&["t1: crashed", "sweep %2.1"]);
    assert_eq!((d.view("a").state, d.view("a").pending, d.core.places().0), (State::Paused, 2, 0));
    assert_eq!(d.core.next_deadline(), None);
    d.core.wait(Target::Name("a"), Until::Gone, workhall_core::AccountId(0), reply(9).unwrap());
    d.take();
    d.did(&[]);
    resume(&mut d, "a");
    d.did(&["spawn %2.2"]);
}

#[test]
fn p04_whose_connection_ends_while_it_is_paused_may_use_its_grace() {
    let mut d = busy_with_two_pending();
    pause(&mut d, "a");
    d.effects.clear();
    d.feed(Event::Disconnected { process: d.key(2, 1) });
    d.did(&["continue %2.1", "ask %2.1"]);
    assert_eq!((d.view("a").state, d.view("a").suspended), (State::Ending, Some(ms(0))));
    d.tick(EXIT_GRACE_MS);
    d.did(&["term %2.1"]);
    d.dies(2, 1, Exit::Signal(15), None);
    d.did(&["t1: crashed", "sweep %2.1"]);
    resume(&mut d, "a");
    d.did(&["spawn %2.2"]);
}

#[test]
fn p04_a_process_that_is_about_to_end_ends_and_the_next_one_waits() {
    let mut d = Driver::with(|policy| policy.idle_timeout = Some(ms(1000)));
    d.call("a", "m");
    d.ready(2, 1, 1);
    d.done(2, 1, 1);
    d.effects.clear();
    d.tick(1000);
    d.did(&["ask %2.1"]);
    pause(&mut d, "a");
    d.call("a", "m");
    d.did(&[]);
    d.tick(1000 + EXIT_GRACE_MS);
    d.did(&["term %2.1"]);
    d.dies(2, 1, Exit::Signal(15), None);
    d.did(&["sweep %2.1"]);
    resume(&mut d, "a");
    d.did(&["spawn %2.2"]);
}

#[test]
fn p04_a_pause_and_one_after_crashes_are_two_and_a_resume_ends_both() {
    let limit = CrashLimit { crashes: 1, pause: ms(60_000), ..CrashLimit::default() };
    let mut d = Driver::with(|policy| policy.crash_limit = limit);
    d.call("a", "m");
    d.call("a", "m");
    pause(&mut d, "a");
    d.dies(2, 1, Exit::Code(1), None);
    d.effects.clear();
    assert_eq!((d.view("a").state, d.view("a").next_start_in), (State::Paused, None));
    d.tick(100_000);
    d.did(&[]);
    resume(&mut d, "a");
    d.did(&["spawn %2.2"]);
    d.dies(2, 2, Exit::Code(1), None);
    assert!(d.view("a").next_start_in.is_some() && d.view("a").suspended.is_none());
    pause(&mut d, "a");
    d.effects.clear();
    resume(&mut d, "a");
    d.did(&["spawn %2.3"]);
}

// ---- places, reload, snapshots ----------------------------------------------------------------

#[test]
fn p04_a_paused_worker_without_a_process_takes_no_place_and_accepts_without_one() {
    let mut d = Driver::new();
    d.core = Core::new(Limits { processes: 1, ..Limits::default() }, 1);
    d.call("a", "m");
    d.ready(2, 1, 1);
    pause(&mut d, "a");
    d.dies(2, 1, Exit::Signal(9), None);
    d.call("b", "m");
    d.ready(3, 1, 1);
    assert!(matches!(d.receipt(post("a")), CallReceipt::Accepted { .. }));
    assert_eq!(d.refusal(post("c")), Refusal::MailboxFull);
    d.effects.clear();
    resume(&mut d, "a");
    d.did(&[]);
    assert!(d.view("a").queued);
    d.dies(3, 1, Exit::Code(0), None);
    // `b` was executing: it has nothing more, and its place is free.
    assert!(d.lines().contains(&"spawn %2.2".to_string()));
}

#[test]
fn p04_a_reload_leaves_it_paused_and_what_is_to_be_replaced_is_asked_at_the_resume() {
    let mut d = busy_with_two_pending();
    pause(&mut d, "a");
    d.effects.clear();
    let new = Arc::new(Policy { exit_grace: ms(1), ..d.policy.clone() });
    let limits = d.core.limits().0.clone();
    let done = d.core.reload(d.now, limits, true, |_, _| Renewal::Changed(new.clone()));
    d.take();
    assert_eq!(done.restarted, 1);
    d.did(&[]);
    assert_eq!((d.view("a").state, d.view("a").outdated), (State::Paused, true));
    resume(&mut d, "a");
    d.did(&["continue %2.1", "ask %2.1"]);
    d.done(2, 1, 1);
    d.dies(2, 1, Exit::Code(0), None);
    d.did(&["t1: done", "sweep %2.1", "spawn %2.2"]);
    // One that was not ready yet is asked neither when it is.
    let mut d = Driver::new();
    d.call("a", "m");
    pause(&mut d, "a");
    let limits = d.core.limits().0.clone();
    d.core.reload(d.now, limits, true, |_, _| Renewal::Changed(new.clone()));
    d.effects.clear();
    d.ready(2, 1, 1);
    d.did(&[]);
    resume(&mut d, "a");
    d.did(&["continue %2.1", "ask %2.1"]);
}

#[test]
fn p04_a_pause_is_in_the_snapshot() {
    let mut d = Driver::with(|policy| policy.task_timeout = Some(ms(1000)));
    d.call("a", "m");
    d.ready(2, 1, 1);
    d.call("b", "m");
    pause(&mut d, "a");
    pause(&mut d, "b");
    d.dies(3, 1, Exit::Code(1), None);
    let mut bytes = Vec::new();
    d.core.snapshot(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map()).unwrap();
    d.core = Core::restore(&mut rmp_serde::Deserializer::new(&*bytes), d.core.limits().0.clone()).unwrap();
    d.effects.clear();
    d.tick(50_000);
    d.did(&[]);
    assert_eq!(d.view("a").suspended, Some(ms(50_000)));
    resume(&mut d, "a");
    resume(&mut d, "b");
    d.did(&["continue %2.1", "spawn %3.2"]);
    d.tick(51_000);
    d.did(&["ask %2.1", "term %2.1"]);
}
