//! All workers: their state, their lines, and the accounts.
//!
//! A name or a number is looked up once per call; from there on a worker is its index. Facts carry
//! the index with number and generation: what an old life says late is dropped and counted.

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use core::time::Duration;

use hashbrown::{DefaultHashBuilder, HashTable};
use serde::{Deserialize, Serialize};
use workhall_protocol::ids::{MessageId, Target, WorkerName, WorkerNumber};
use workhall_protocol::terms::Refusal;

use crate::accounts::{Accounts, Charge};
use crate::cancel::Delayed;
use crate::dead_letters::{DeadLetter, DeadLetters, DeadTotals, Letters};
use crate::deadlines::Deadlines;
use crate::effect::Effect;
use crate::event::{AccountId, ProcessKey};
use crate::ledger::{Counters, Ledger};
use crate::mailbox::{Bodies, Identity, Message};
use crate::news::{Change, Pile};
use crate::policy::{Limits, Policy};
use crate::signals::Signals;
use crate::stats::Stats;
use crate::time::Instant;
use crate::view::{WorkerView, view};
use crate::watch::Watch;
use crate::worker::{Life, Worker};
use crate::workers::{Seat, Workers};

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// For programs.
    pub reason: Refusal,
    /// For people.
    pub detail: Cow<'static, str>,
}

impl Refused {
    /// A refusal with a sentence for people.
    pub fn new(reason: Refusal, detail: impl Into<Cow<'static, str>>) -> Refused {
        Refused { reason, detail: detail.into() }
    }
}

/// The whole state of a supervisor, but for its processes and connections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Core {
    /// Of the configuration that is in force when the snapshot is restored.
    #[serde(skip)]
    pub(crate) limits: Limits,
    /// How many places there were when the limits were set last: these may be lower than that.
    #[serde(skip)]
    pub(crate) places_at_reload: u32,
    pub(crate) workers: Workers,
    /// The newest worker of each name.
    #[serde(skip)]
    by_name: HashTable<u32>,
    #[serde(skip)]
    by_number: HashTable<u32>,
    #[serde(skip)]
    hasher: DefaultHashBuilder,
    next_number: u64,
    pub(crate) next_message: u64,
    pub(crate) ledger: Ledger,
    pub(crate) counters: Counters,
    #[serde(default)]
    pub(crate) stats: Stats,
    pub(crate) total_bytes: u64,
    pub(crate) accounts: Accounts,
    pub(crate) dead_letters: DeadLetters,
    #[serde(default)]
    pub(crate) signals: Signals,
    /// Messages that were posted for later, which a process knows by another number than their id.
    #[serde(default)]
    pub(crate) delayed: BTreeMap<MessageId, Delayed>,
    /// Workers that have a process, or are to have one.
    pub(crate) places: u32,
    /// Workers that wait for such a place. Some may not want it any more.
    pub(crate) queued: VecDeque<(u32, WorkerNumber)>,
    pub(crate) deadlines: Deadlines,
    /// In the order of names, so that the same input always has the same output.
    pub(crate) watches: BTreeMap<WorkerName, Vec<Watch>>,
    /// Workers for whose end somebody waits who has killed them.
    pub(crate) killed: BTreeSet<u32>,
    /// Watched names that this step has changed.
    #[serde(skip)]
    pub(crate) touched: Vec<WorkerName>,
    /// Workers that this step may have left with nothing to do.
    #[serde(skip)]
    pub(crate) idle: Vec<u32>,
    #[serde(skip)]
    pub(crate) effects: VecDeque<Effect>,
    /// What happened, and nobody has taken yet.
    #[serde(skip)]
    pub(crate) news: Pile,
    #[serde(skip)]
    pub(crate) bodies: Bodies,
    /// When the current step happens.
    pub(crate) now: Instant,
    /// Until when the shutdown waits.
    pub(crate) stopping: Option<Instant>,
    stopped: bool,
    random: u64,
    #[cfg(feature = "canary")]
    pub(crate) gate_broken: bool,
}

impl Core {
    /// An empty one. `seed` feeds the jitter of delays.
    pub fn new(limits: Limits, seed: u64) -> Core {
        Core {
            limits,
            places_at_reload: 0,
            workers: Workers::new(),
            by_name: HashTable::new(),
            by_number: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            next_number: 2,
            next_message: 1,
            ledger: Ledger::default(),
            counters: Counters::default(),
            stats: Stats::default(),
            total_bytes: 0,
            accounts: Accounts::default(),
            dead_letters: DeadLetters::default(),
            signals: Signals::default(),
            delayed: BTreeMap::new(),
            places: 0,
            queued: VecDeque::new(),
            deadlines: Deadlines::default(),
            watches: BTreeMap::new(),
            killed: BTreeSet::new(),
            touched: Vec::new(),
            idle: Vec::new(),
            effects: VecDeque::new(),
            news: Pile::default(),
            bodies: Bodies::default(),
            now: Instant::default(),
            stopping: None,
            stopped: false,
            random: seed | 1,
            #[cfg(feature = "canary")]
            gate_broken: false,
        }
    }

    /// The next command. The shell takes and applies all of them after each request and fact.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether there is a next command.
    pub fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// The ledger (rule L1).
    pub fn ledger(&self) -> Ledger {
        self.ledger
    }

    /// What is counted beside it.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The bounds, and how many bytes of messages there are.
    pub fn limits(&self) -> (&Limits, u64) {
        (&self.limits, self.total_bytes)
    }

    /// How many processes there are or are about to be started, and how many workers wait for one of their places.
    pub fn places(&self) -> (u32, usize) {
        (self.places, self.workers.iter().filter(|(_, worker)| worker.queued).count())
    }

    /// What each sender is charged for the messages that wait.
    pub fn charges(&self) -> impl Iterator<Item = (AccountId, Charge)> {
        self.accounts.iter()
    }

    /// The same with how many signals each has made, and who has made signals only.
    pub fn senders(&self) -> impl Iterator<Item = (AccountId, Charge, u64)> {
        let with_messages = self.accounts.iter().map(|(id, charge)| (id, charge, self.signals.made_by(id)));
        let others = self.signals.makers().filter(|id| self.accounts.of(*id) == Charge::default());
        with_messages.chain(others.map(|id| (id, Charge::default(), self.signals.made_by(id))))
    }

    /// Dead letters, in the order in which they died.
    pub fn dead_letters(&self, which: Letters<'_>) -> impl DoubleEndedIterator<Item = &DeadLetter> {
        self.dead_letters.iter().filter(move |letter| letter.is_meant(which))
    }

    /// How many there are.
    pub fn dead_totals(&self) -> DeadTotals {
        self.dead_letters.totals()
    }

    /// Drops dead letters; returns how many.
    pub fn drop_dead(&mut self, which: Letters<'_>) -> u64 {
        self.dead_letters.take(which).len() as u64
    }

    /// The class of a worker that exists.
    pub fn class_of(&self, target: Target<'_>) -> Option<&str> {
        Some(&self.workers.seat(self.find(target)? as usize)?.newest_policy().class)
    }

    /// How many workers there are.
    pub fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// The content of a message that was handed to a process and is not settled, by its task number.
    pub fn task(&self, process: ProcessKey, id: MessageId) -> Option<&Message> {
        let worker = self.workers.get(process.index as usize)?;
        let life = worker.life.as_ref().filter(|_| worker.key(process.index) == process)?;
        life.in_flight.get(life.in_flight.position(id)?)
    }

    /// The name of a worker.
    pub fn name(&self, process: ProcessKey) -> Option<&WorkerName> {
        let worker = self.workers.seat(process.index as usize)?;
        (worker.number() == process.number).then_some(worker.name())
    }

    /// The policy of a worker.
    pub fn policy(&self, process: ProcessKey) -> Option<&Arc<Policy>> {
        let worker = self.workers.seat(process.index as usize)?;
        (worker.number() == process.number).then_some(worker.policy())
    }

    /// All about the newest worker of a name, or about the worker with a number.
    pub fn worker(&self, now: Instant, target: Target<'_>) -> Option<WorkerView<'_>> {
        let place = self.find(target)?;
        Some(view(place, self.workers.seat(place as usize)?, now))
    }

    /// Simulator only: from here on the gate opens at the exit, whatever lives in the tree, and
    /// a kill does not wait for the exit at all. Proves that the checkers see it.
    #[cfg(feature = "canary")]
    pub fn break_the_gate(&mut self) {
        self.gate_broken = true;
    }

    // ---- the line of a name -----------------------------------------------------------------

    pub(crate) fn create(&mut self, now: Instant, identity: Identity, policy: Arc<Policy>) -> u32 {
        let older = self.find_name(&identity.name);
        let watched = self.watches.contains_key(&identity.name);
        let hash = self.hasher.hash_one(identity.name.as_str());
        let number_hash = self.hasher.hash_one(identity.number);
        let worker = Worker { watched, older, ..Worker::new(identity, policy, now) };
        let index = self.workers.insert(worker);
        match older {
            Some(older) => {
                self.workers[older as usize].newer = Some(index);
                *self.by_name.find_mut(hash, |entry| *entry == older).expect("the older one was found by it") = index;
            }
            None => self.index_name(index, hash),
        }
        self.index_number(index, number_hash);
        self.follow_class(index);
        self.note(index, Change::Created);
        index
    }

    fn index_number(&mut self, index: u32, hash: u64) {
        let (workers, hasher) = (&self.workers, &self.hasher);
        let number = |entry: &u32| workers.seat(*entry as usize).map(Seat::number);
        self.by_number.insert_unique(hash, index, |entry| hasher.hash_one(number(entry).expect(INDEXED)));
    }

    fn index_name(&mut self, index: u32, hash: u64) {
        let (workers, hasher) = (&self.workers, &self.hasher);
        let name = |entry: &u32| workers.seat(*entry as usize).map(|seat| seat.name().as_str());
        self.by_name.insert_unique(hash, index, |entry| hasher.hash_one(name(entry).expect(INDEXED)));
    }

    /// Finds all workers again by name and number, after a snapshot was read.
    pub(crate) fn index_all(&mut self) {
        let hashes = |(index, seat): (u32, Seat<'_>)| {
            let newest = !matches!(seat, Seat::Awake(worker) if worker.newer.is_some());
            let name = newest.then(|| self.hasher.hash_one(seat.name().as_str()));
            (index, self.hasher.hash_one(seat.number()), name)
        };
        let all: Vec<_> = self.workers.seats().map(hashes).collect();
        for (index, number, name) in all {
            self.index_number(index, number);
            if let Some(name) = name {
                self.index_name(index, name);
            }
        }
    }

    /// Takes a worker out of its line; the next one's turn may have come.
    pub(crate) fn remove(&mut self, now: Instant, index: u32, life: Option<Life>) {
        self.touch(index);
        let worker = self.workers.remove(index as usize);
        debug_assert!(worker.mailbox.len() == 0 && worker.life.is_none());
        self.keeper_ended(worker.identity.number);
        self.killed.remove(&index);
        self.note_of(&worker, Change::Gone);
        self.report_killers(now, &worker, life);
        let number_hash = self.hasher.hash_one(worker.identity.number);
        if let Ok(entry) = self.by_number.find_entry(number_hash, |entry| *entry == index) {
            entry.remove();
        }
        if let Some(older) = worker.older {
            self.workers[older as usize].newer = worker.newer;
        }
        match worker.newer {
            Some(newer) => {
                // The next in the line has the place of the one before it.
                let next = &mut self.workers[newer as usize];
                next.older = worker.older;
                if worker.place && next.older.is_none() && !next.place {
                    (next.place, next.queued) = (true, false);
                } else {
                    self.places -= u32::from(worker.place);
                }
                self.try_start(now, newer);
                self.pump(now, newer);
            }
            None => {
                self.places -= u32::from(worker.place);
                let hash = self.hasher.hash_one(worker.identity.name.as_str());
                let entry = self.by_name.find_entry(hash, |entry| *entry == index);
                match (entry, worker.older) {
                    (Ok(mut entry), Some(older)) => *entry.get_mut() = older,
                    (Ok(entry), None) => drop(entry.remove()),
                    (Err(_), _) => debug_assert!(false, "the newest of a name is found by it"),
                }
            }
        }
    }

    // ---- small things -----------------------------------------------------------------------

    pub(crate) fn emit(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    pub(crate) fn touch(&mut self, index: u32) {
        let worker = &self.workers[index as usize];
        if worker.watched && self.touched.last() != Some(&worker.identity.name) {
            self.touched.push(worker.identity.name.clone());
        }
    }

    pub(crate) fn find_name(&self, name: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        let is = |index: &u32| self.workers.seat(*index as usize).is_some_and(|seat| **seat.name() == *name);
        self.by_name.find(hash, is).copied()
    }

    pub(crate) fn find_number(&self, number: WorkerNumber) -> Option<u32> {
        let hash = self.hasher.hash_one(number);
        let is = |index: &u32| self.workers.seat(*index as usize).is_some_and(|seat| seat.number() == number);
        self.by_number.find(hash, is).copied()
    }

    fn find(&self, target: Target<'_>) -> Option<u32> {
        match target {
            Target::Name(name) => self.find_name(name),
            Target::Number(number) => self.find_number(number),
        }
    }

    /// Finds whom a request is for. If it rests it wakes, for this step at least.
    pub(crate) fn find_awake(&mut self, target: Target<'_>) -> Option<u32> {
        let index = self.find(target)?;
        self.wake(index);
        Some(index)
    }

    pub(crate) fn wake(&mut self, index: u32) {
        if self.workers.wake(index) {
            self.follow_class(index);
            self.idle.push(index);
        }
    }

    pub(crate) fn rest_idle(&mut self) {
        while let Some(index) = self.idle.pop() {
            let worker = self.workers.get(index as usize);
            match worker.is_some_and(Worker::may_leave) {
                true => self.remove(self.now, index, None),
                false => self.workers.rest(self.now, index),
            }
        }
    }

    /// A shutdown has nothing to ask of those that rest.
    pub(crate) fn drop_resting(&mut self) {
        let (by_name, by_number, hasher) = (&mut self.by_name, &mut self.by_number, &self.hasher);
        self.workers.drop_resting(|index, resting| {
            let hashes = [hasher.hash_one(resting.name.as_str()), hasher.hash_one(resting.number())];
            for (table, hash) in [&mut *by_name, &mut *by_number].into_iter().zip(hashes) {
                if let Ok(entry) = table.find_entry(hash, |entry| *entry == index) {
                    entry.remove();
                }
            }
        });
    }

    /// The life that a fact is about; none, counted, if it has ended.
    pub(crate) fn life(&mut self, process: ProcessKey) -> Option<&mut Life> {
        let worker = self.workers.get_mut(process.index as usize);
        let life =
            worker.filter(|worker| worker.key(process.index) == process).and_then(|worker| worker.life.as_deref_mut());
        if life.is_none() {
            self.counters.stale += 1;
        }
        life
    }

    /// The places of all workers, the oldest worker's first: so the same input has the same output.
    pub(crate) fn in_order_of_numbers(&self) -> Vec<u32> {
        let mut workers: Vec<_> =
            self.workers.iter().map(|(index, worker)| (worker.identity.number, index as u32)).collect();
        workers.sort_unstable();
        workers.into_iter().map(|(_, index)| index).collect()
    }

    /// The number that the next one has.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_number
    }

    pub(crate) fn take_number(&mut self) -> WorkerNumber {
        let number = WorkerNumber(self.next_number);
        self.next_number += 1;
        number
    }

    pub(crate) fn random(&mut self) -> u64 {
        // xorshift64: enough for jitter, and the same for the same seed.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// The end of each step: who waits is told, and the ledger is proved. Stopped is the last word.
    pub(crate) fn finish_step(&mut self) {
        self.start_queued(self.now);
        self.answer_watches();
        self.rest_idle();
        if self.stopping.is_some() && self.workers.is_empty() && !self.stopped {
            self.stopped = true;
            self.emit(Effect::Stopped);
        }
        debug_assert!(self.ledger.balances(), "{:?}", self.ledger);
        // With many workers or messages the full count would dominate; the simulator has few.
        if cfg!(debug_assertions) && self.workers.len() <= 32 && self.ledger.pending <= 256 {
            self.prove_ledger();
        }
    }
}

/// Who is found by name or number is there.
const INDEXED: &str = "an index is that of a worker";
/// How long a shutdown that is over waits between two attempts to end what is left.
pub(crate) const SHUTDOWN_REPEAT: Duration = Duration::from_secs(1);
