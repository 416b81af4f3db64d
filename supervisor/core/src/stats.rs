//! What is counted by class, for those who watch.
//!
//! A worker knows the number of its class here, so nothing is looked up where messages pass: each costs a few additions.
//! The class is the one that its name has now: who has another one after a reload takes what it has in hand along, and
//! what it has done stays where it was counted. Times are those of the steps, so a process that settles many tasks with
//! one word has worked on each for the same part of the time.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use workhall_protocol::ids::{Target, WorkerName};
use workhall_protocol::terms::{DeadReason, EndedBy, Exit, Refusal, StartStage};

use crate::effect::Outcome;
use crate::policy::Policy;
use crate::registry::{Core, Refused};
use crate::time::Instant;
use crate::worker::{Goal, Life, Worker};
use crate::workers::Seat;

/// So many classes are counted apart; what is of further ones stands with the class that has no name.
const CLASSES_MAX: usize = 4096;
/// How many workers that are not at rest are looked at for the ages, at most.
pub const AGES_OF_MAX: usize = 16_384;

/// Where the buckets of a [`Histogram`] end, in nanoseconds; one more is for what takes longer.
pub const BUCKETS: [u64; 18] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// Why a process counts as crashed, in words; [`ClassStats::crashes`] has them in this order.
pub const CRASHES: [&str; 8] =
    ["setup", "exec", "ended_before_ready", "not_ready_in_time", "timed_out", "signal", "exit_status", "ended_in_task"];
/// The reasons of dead letters, in the order of [`ClassStats::dead`].
pub const DEAD: [DeadReason; 6] = [
    DeadReason::Crashed,
    DeadReason::Poison,
    DeadReason::TimedOut,
    DeadReason::NeverStarted,
    DeadReason::Abandoned,
    DeadReason::Expired,
];
/// What ended a worker that was killed, in the order of [`ClassStats::kills`].
pub const KILLS: [EndedBy; 5] =
    [EndedBy::Ask, EndedBy::Term, EndedBy::Kill, EndedBy::AlreadyGone, EndedBy::OnlyEmptied];
/// Why something was refused, in the order of [`ClassStats::refused`].
pub const REFUSED: [Refusal; 8] = [
    Refusal::NoClass,
    Refusal::BadName,
    Refusal::MailboxFull,
    Refusal::TooLarge,
    Refusal::NotPermitted,
    Refusal::ShuttingDown,
    Refusal::CrashLoop,
    Refusal::NameTaken,
];

/// One number for each word of a vocabulary. Written as a list: a later version may have more words, at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts<const N: usize>(pub [u64; N]);

impl<const N: usize> Default for Counts<N> {
    fn default() -> Self {
        Counts([0; N])
    }
}

impl<const N: usize> Counts<N> {
    fn count(&mut self, word: usize) {
        self.0[word] += 1;
    }
}

impl<const N: usize> Serialize for Counts<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0[..].serialize(serializer)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Counts<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Vec::<u64>::deserialize(deserializer)?;
        let mut counts = [0; N];
        for (count, read) in counts.iter_mut().zip(read) {
            *count = read;
        }
        Ok(Counts(counts))
    }
}

/// How many took how long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// By the [`BUCKETS`], each without those of the others.
    pub buckets: Counts<{ BUCKETS.len() + 1 }>,
    /// All times together, in nanoseconds: more than a whole number of them can hold.
    pub sum: f64,
}

impl Histogram {
    #[inline]
    fn note(&mut self, nanos: u64) {
        // Most tasks are short: that is seen without a search.
        let bucket = if nanos <= BUCKETS[0] { 0 } else { BUCKETS.partition_point(|end| *end < nanos) };
        self.buckets.count(bucket);
        // No task lasts for 292 years, and a number with a sign is faster to convert.
        self.sum += nanos.cast_signed() as f64;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.0.iter().sum()
    }
}

/// What is counted of a class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassStats {
    /// The class; empty for what has none, or none that is known.
    pub class: Box<str>,
    /// Messages that were accepted.
    pub accepted: u64,
    /// Their method returned.
    pub done: u64,
    /// Their method reported an error.
    pub failed: u64,
    /// Discarded by a kill.
    pub discarded: u64,
    /// Not started in time.
    pub expired: u64,
    /// Dead letters, by [`DEAD`]; those that have expired are counted above alone.
    pub dead: Counts<{ DEAD.len() }>,
    /// Processes that were started, also those that did not come to execute their program.
    pub starts: u64,
    /// Deaths that nobody asked for, and starts that failed, by [`CRASHES`].
    pub crashes: Counts<{ CRASHES.len() }>,
    /// Workers that were killed, by [`KILLS`].
    pub kills: Counts<{ KILLS.len() }>,
    /// Requests that were refused, by [`REFUSED`].
    pub refused: Counts<{ REFUSED.len() }>,
    /// From the acceptance of a message until a process began it; of those whose execution has ended by itself.
    pub queue: Histogram,
    /// From then until it ended.
    pub execution: Histogram,
    /// Messages that are pending or running. Counted anew where a snapshot is read.
    #[serde(skip)]
    pub depth: u64,
}

impl ClassStats {
    /// A task has ended by itself.
    #[inline]
    pub(crate) fn executed(&mut self, accepted: Instant, begun: Instant, ended: Instant) {
        self.queue.note(begun.0.saturating_sub(accepted.0));
        self.execution.note(ended.0.saturating_sub(begun.0));
    }
}

/// How old things are in a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ages {
    /// The time since the acceptance of the oldest message that no process has begun.
    pub oldest_pending: Option<Duration>,
    /// How long the longest of the tasks lasts that are executed.
    pub longest_running: Option<Duration>,
}

/// The figures of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerStats {
    /// The name.
    pub name: WorkerName,
    /// The place of its class in what [`Core::class_stats`] gives.
    pub class: usize,
    /// Messages of all workers of the name that are pending or running.
    pub depth: u64,
    /// Tasks that the newest of them has ended.
    pub executed: u64,
    /// Its deaths that nobody asked for.
    pub crashes: u64,
    /// Lives that it has had.
    pub generations: u64,
    /// The time since the acceptance of its oldest message that no process has begun.
    pub oldest_pending: Option<Duration>,
}

/// All classes that anything was counted of; the first is the one without a name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stats {
    classes: Vec<ClassStats>,
    #[serde(skip)]
    numbers: BTreeMap<Box<str>, u32>,
}

impl Default for Stats {
    fn default() -> Self {
        Stats { classes: vec![ClassStats::default()], numbers: BTreeMap::new() }
    }
}

impl Stats {
    /// The number of a class, which it keeps.
    fn number(&mut self, class: &str) -> u32 {
        match self.numbers.get(class) {
            Some(number) => *number,
            None if class.is_empty() || self.classes.len() >= CLASSES_MAX => 0,
            None => {
                let number = self.classes.len() as u32;
                self.classes.push(ClassStats { class: class.into(), ..ClassStats::default() });
                self.numbers.insert(class.into(), number);
                number
            }
        }
    }

    #[inline]
    pub fn of(&mut self, number: u32) -> &mut ClassStats {
        &mut self.classes[number as usize]
    }

    #[inline]
    pub fn accept(&mut self, number: u32) {
        let class = self.of(number);
        class.accepted += 1;
        class.depth += 1;
    }

    #[inline]
    pub fn settle(&mut self, number: u32, outcome: &Outcome) {
        let class = self.of(number);
        class.depth -= 1;
        match outcome {
            Outcome::Done { .. } => class.done += 1,
            Outcome::Failed { .. } => class.failed += 1,
            Outcome::Discarded { .. } => class.discarded += 1,
            Outcome::Expired { .. } => class.expired += 1,
            Outcome::Dead { reason, .. } => class.dead.count(*reason as usize),
        }
    }

    /// The end of a life that counts as a crash.
    pub fn crashed(&mut self, number: u32, life: &Life, exit: Option<Exit>) {
        let word = match (life.failed_stage, exit) {
            (Some(StartStage::Setup), _) | (None, None) => "setup",
            (Some(StartStage::Exec), _) => "exec",
            (Some(StartStage::EndedBeforeReady), _) => "ended_before_ready",
            (Some(StartStage::NotReadyInTime), _) => "not_ready_in_time",
            (None, _) if life.timed_out.is_some() => "timed_out",
            (None, Some(Exit::Signal(_))) => "signal",
            (None, Some(Exit::Code(0))) => "ended_in_task",
            (None, Some(Exit::Code(_))) => "exit_status",
        };
        let word = CRASHES.iter().position(|known| *known == word).expect("the words are those above");
        self.of(number).crashes.count(word);
    }

    pub fn killed(&mut self, number: u32, by: EndedBy) {
        self.of(number).kills.count(by as usize);
    }
}

impl Core {
    /// What is counted of each class; the first stands for what has no class.
    pub fn class_stats(&self) -> &[ClassStats] {
        &self.stats.classes
    }

    /// How old things are in each class, in the same order. At most [`AGES_OF_MAX`] workers are looked at.
    pub fn ages(&self, now: Instant) -> Vec<Ages> {
        let mut ages = vec![Ages::default(); self.stats.classes.len()];
        for (_, worker) in self.workers.iter().take(AGES_OF_MAX) {
            let of = &mut ages[worker.counted as usize];
            of.oldest_pending = of.oldest_pending.max(worker.oldest_pending(now));
            let running = worker.life.as_deref().filter(|life| !life.in_flight.is_empty());
            // What is halted executes nothing.
            let until = worker.suspended.map_or(now, |since| since.min(now));
            of.longest_running = of.longest_running.max(running.map(|life| until.since(life.since)));
        }
        ages
    }

    /// The figures of each name of the classes that are asked for, at most `max` of them; and for each class how many
    /// workers there are beyond, those included that are being ended while the next of their name is there.
    pub fn worker_stats(&self, now: Instant, max: usize, asked: impl Fn(&str) -> bool) -> (Vec<WorkerStats>, Vec<u64>) {
        let asked: Vec<bool> = self.stats.classes.iter().map(|class| asked(&class.class)).collect();
        let (mut found, mut left_out) = (Vec::new(), vec![0; asked.len()]);
        if !asked.contains(&true) {
            return (found, left_out);
        }
        // Most workers at rest share their policies.
        let mut last: Option<(*const Policy, usize)> = None;
        for (counted, seat) in self.workers.seats_counted() {
            let class = match (counted, seat) {
                (Some(counted), _) => counted as usize,
                (None, seat) => match last.filter(|(policy, _)| *policy == Arc::as_ptr(seat.policy())) {
                    Some((_, class)) => class,
                    None => {
                        let class = self.stats.numbers.get(&seat.policy().class).map_or(0, |number| *number as usize);
                        last = Some((Arc::as_ptr(seat.policy()), class));
                        class
                    }
                },
            };
            if !asked[class] {
                continue;
            }
            // From here on none is looked at any more: of a million that would take longer than the loop may be busy.
            if found.len() == max {
                left_out[class] += 1;
            } else if !matches!(seat, Seat::Awake(worker) if worker.newer.is_some()) {
                found.push(self.stats_of(now, class, seat));
            }
        }
        (found, left_out)
    }

    fn stats_of(&self, now: Instant, class: usize, seat: Seat<'_>) -> WorkerStats {
        let name = seat.name().clone();
        match seat {
            Seat::Resting(resting) => {
                let (facts, _) = resting.facts();
                let (executed, crashes, generations) = (facts.executed, facts.crashes, facts.generation.0);
                WorkerStats { name, class, depth: 0, executed, crashes, generations, oldest_pending: None }
            }
            Seat::Awake(newest) => {
                let older = |worker: &&Worker| worker.older.and_then(|index| self.workers.get(index as usize));
                let line = || core::iter::successors(Some(newest), older);
                WorkerStats {
                    name,
                    class,
                    depth: line().map(Worker::messages).sum(),
                    executed: newest.executed,
                    crashes: newest.crashes,
                    generations: newest.generation.0,
                    oldest_pending: line().filter_map(|worker| worker.oldest_pending(now)).max(),
                }
            }
        }
    }

    /// A request that the shell has refused before it came here is counted with the others, with the class of its
    /// target, if it has one.
    pub fn count_refused(&mut self, reason: Refusal, target: Option<Target<'_>>) {
        self.counters.refused += 1;
        let class: Option<Box<str>> = target.and_then(|target| self.class_of(target)).map(Into::into);
        let number = class.map_or(0, |class| self.stats.number(&class));
        self.stats.of(number).refused.count(reason as usize);
    }

    /// A call was refused; `class` is what was found out for it.
    pub(crate) fn note_refused(&mut self, refused: &Refused, target: Target<'_>, class: Option<&Policy>) {
        match class {
            None => self.count_refused(refused.reason, Some(target)),
            Some(policy) => {
                self.counters.refused += 1;
                let number = self.stats.number(&policy.class);
                self.stats.of(number).refused.count(refused.reason as usize);
            }
        }
    }

    /// A worker that was killed is gone.
    pub(crate) fn count_kill(&mut self, worker: &Worker, life: Option<&Life>) {
        if worker.goal != Goal::Up && !worker.is_attached() && !worker.ran(life) {
            let stop = life.and_then(|life| life.stop.as_ref());
            self.stats.killed(worker.counted, stop.map_or(EndedBy::AlreadyGone, |stop| stop.ended_by()));
        }
    }

    /// What a worker has in hand is counted where its class is now.
    pub(crate) fn follow_class(&mut self, index: u32) {
        let Some(worker) = self.workers.get(index as usize) else { return };
        let number = self.stats.number(&worker.newest_policy().class);
        let messages = worker.messages();
        let Some(before) = self.workers.count_at(index, number) else { return };
        self.stats.of(before).depth -= messages;
        self.stats.of(number).depth += messages;
    }

    /// After a snapshot was read.
    pub(crate) fn count_again(&mut self) {
        let stats = &mut self.stats;
        if stats.classes.first().is_none_or(|first| !first.class.is_empty()) {
            stats.classes.insert(0, ClassStats::default());
        }
        let numbers = (0..).zip(&stats.classes).skip(1).map(|(number, class)| (class.class.clone(), number));
        stats.numbers = numbers.collect();
        let awake: Vec<u32> = self.workers.iter().map(|(index, _)| index as u32).collect();
        for index in awake {
            let worker = &self.workers[index as usize];
            let number = self.stats.number(&worker.newest_policy().class);
            self.stats.of(number).depth += worker.messages();
            self.workers.count_at(index, number);
        }
    }

    /// In debug builds: what is counted by class is what there is.
    pub(crate) fn prove_stats(&self) {
        let mut depths = vec![0; self.stats.classes.len()];
        for (counted, seat) in self.workers.seats_counted() {
            if let Seat::Awake(worker) = seat {
                debug_assert_eq!(counted, Some(worker.counted));
                depths[worker.counted as usize] += worker.messages();
            }
        }
        debug_assert!(self.stats.classes.iter().map(|class| class.depth).eq(depths), "each message has its class");
    }
}

impl Worker {
    fn oldest_pending(&self, now: Instant) -> Option<Duration> {
        // The first of those at its process is executed; those behind it are older than what waits here.
        let ahead = self.life.as_deref().and_then(|life| life.in_flight.get(1)).map(|message| message.accepted);
        ahead.or_else(|| Some(self.mailbox.front()?.accepted)).map(|accepted| now.since(accepted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_stands_in_the_bucket_that_ends_with_it_or_behind_it() {
        let mut histogram = Histogram::default();
        for nanos in [0, 100_000, 100_001, 60_000_000_000, 60_000_000_001, i64::MAX as u64] {
            histogram.note(nanos);
        }
        let mut expected = [0; BUCKETS.len() + 1];
        (expected[0], expected[1], expected[17], expected[18]) = (2, 1, 1, 2);
        assert_eq!((histogram.buckets.0, histogram.count()), (expected, 6));
        assert!(BUCKETS.is_sorted());
    }

    #[test]
    fn the_words_stand_in_the_order_of_their_numbers() {
        assert!(DEAD.iter().enumerate().all(|(at, reason)| *reason as usize == at));
        assert!(KILLS.iter().enumerate().all(|(at, by)| *by as usize == at));
        assert!(REFUSED.iter().enumerate().all(|(at, reason)| *reason as usize == at));
    }

    #[test]
    fn classes_beyond_the_bound_are_counted_together() {
        let mut stats = Stats::default();
        for number in 1..CLASSES_MAX {
            assert_eq!(stats.number(&alloc::format!("c{number}")), number as u32);
        }
        assert_eq!((stats.number("one more"), stats.number("c7"), stats.number("")), (0, 7, 0));
    }
}
