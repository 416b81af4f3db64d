//! Signals (rules S1–S5): something that is triggered once, and for which any number may wait.
//!
//! A signal is *untriggered*, then *triggered*, and then only read. Who may trigger it is whoever knows its id: the shell
//! makes ids that nobody can guess. What ends it is that nobody holds it any more (rule S4):
//!
//! | holder | holds it from | until |
//! | --- | --- | --- |
//! | its maker, a connection | the making | it says that it does not, or is gone |
//! | time | the making | it is over |
//! | a message that carries its id in the arguments | it is accepted | its fate |
//! | a process that has executed such a message | the message is done | the process ends, or the signal is triggered |
//! | one who waits | the wait | the answer, or it is gone |
//!
//! The second to last may still trigger it. So rule S5 is this: when the last message that carries an untriggered signal
//! and the last process that has executed one are gone, those who wait are told what came of the last of them, and so is who
//! waits later. A signal that nobody has sent to anybody yet waits for its maker.
//!
//! Each message has a signal of its own besides, without an id, that is triggered with the method's result: the one who
//! waits for it stands in the message ([`crate::event::Call::reply`]). It ends with the message, at the same place
//! ([`Core::message_ended`]), and answers with the same outcome.
//!
//! What a signal counts against the bounds of bytes is charged to its maker, like a message; how many one account may have
//! is a bound of its own. Where there are none, a message costs a look at an empty map.

mod bounds;
mod carried;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU64;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use workhall_protocol::ids::{MessageId, SignalId, WorkerNumber};
use workhall_protocol::limits::METHOD_BYTES_MAX;
use workhall_protocol::terms::{Ignored, Refusal};

use crate::deadlines::Due;
use crate::effect::{Effect, Outcome, SignalEnd};
use crate::event::{AccountId, ReplyTo};
use crate::registry::{Core, Refused};
use crate::time::Instant;

/// The most that a signal with its values may count, in bytes: each who waits is given a copy of them.
pub const SIGNAL_BYTES_MAX: u64 = 64 << 10;
/// How long a signal may be kept, whoever holds it: nobody else could ever free it.
pub const KEEP_MAX: Duration = Duration::from_secs(24 * 3600);
/// What a signal, and each of its values, counts beyond its own bytes.
const SIGNAL_OVERHEAD_BYTES: u64 = 256;
const VALUE_OVERHEAD_BYTES: u64 = 64;

/// The values of a signal by their keys; what they mean is not the core's concern.
pub type Values = BTreeMap<Box<str>, Box<[u8]>>;

/// A signal that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewSignal<'a> {
    /// Its id, which nobody can guess.
    pub id: SignalId,
    /// The connection that makes it.
    pub maker: NonZeroU64,
    /// Who is charged for it.
    pub account: AccountId,
    /// For people.
    pub description: Option<&'a str>,
    /// It is kept so long, whoever else holds it; at most [`KEEP_MAX`].
    pub keep: Duration,
}

/// What became of something that was to be done with a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// It is done. Of a trigger: whether it was the first (rule S2).
    Done {
        /// Else true.
        first: bool,
    },
    /// By the rules nothing is to be done.
    Ignored(Ignored),
}

/// All about one signal.
#[derive(Clone, Copy, Debug)]
pub struct SignalView<'a> {
    /// For people.
    pub description: Option<&'a str>,
    /// Whether it was triggered.
    pub triggered: bool,
    /// Its values; none before it was triggered (rule S4).
    pub values: Option<&'a Values>,
    /// How old it is.
    pub age: Duration,
    /// How many wait.
    pub waiters: usize,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Signals {
    all: BTreeMap<SignalId, Signal>,
    /// What messages carry that have no fate yet. Few carry any.
    carried: BTreeMap<MessageId, Vec<SignalId>>,
    /// What the living process of a worker may still trigger of what it has executed.
    kept: BTreeMap<WorkerNumber, BTreeSet<SignalId>>,
    /// Which connections have made a signal or wait for it.
    links: BTreeSet<(NonZeroU64, SignalId)>,
    charges: BTreeMap<AccountId, SignalCharge>,
    /// The sum of all charges.
    bytes: u64,
}

impl Signals {
    /// Who has made some that are still there.
    pub fn makers(&self) -> impl Iterator<Item = AccountId> {
        self.charges.keys().copied()
    }

    /// How many.
    pub fn made_by(&self, account: AccountId) -> u64 {
        self.of(account).signals
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct SignalCharge {
    signals: u64,
    bytes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Signal {
    description: Option<Box<str>>,
    values: Arc<Values>,
    triggered: bool,
    account: AccountId,
    /// What it is charged for.
    bytes: u64,
    made: Instant,
    maker: Option<NonZeroU64>,
    kept_until: Instant,
    /// Messages that carry it.
    carriers: u32,
    /// Workers whose processes have executed one, before it was triggered.
    keepers: BTreeSet<WorkerNumber>,
    /// What came of the last of these, while there is none.
    ended: Option<Ended>,
    waiters: Vec<Waiter>,
    /// The entry in the deadlines that holds; none is [`Instant::NEVER`].
    armed: Instant,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Ended {
    Message(Arc<Outcome>),
    Process,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Waiter {
    reply: ReplyTo,
    until: Instant,
}

impl Core {
    /// Makes a signal (rule S1).
    pub fn make_signal(&mut self, now: Instant, new: NewSignal<'_>) -> Result<(), Refused> {
        self.now = now;
        if self.stopping.is_some() {
            return Err(Refused::new(Refusal::ShuttingDown, "the supervisor is stopping"));
        }
        let bytes = SIGNAL_OVERHEAD_BYTES + new.description.map_or(0, |text| text.len() as u64);
        let (signals, limit) = (self.signals.of(new.account).signals, self.limits.sender_signals);
        if signals >= limit {
            let detail = format!(
                "the sender has {signals} signals, and the limit is {limit} (`sender_signals` in [supervisor])"
            );
            return Err(Refused::new(Refusal::MailboxFull, detail));
        }
        self.check_signal_bytes(new.account, 0, bytes)?;
        let signal = Signal {
            description: new.description.map(Into::into),
            values: Arc::default(),
            triggered: false,
            account: new.account,
            bytes,
            made: now,
            maker: Some(new.maker),
            kept_until: if new.keep.is_zero() { Instant::default() } else { now.after(new.keep.min(KEEP_MAX)) },
            carriers: 0,
            keepers: BTreeSet::new(),
            ended: None,
            waiters: Vec::new(),
            armed: Instant::NEVER,
        };
        let charge = self.signals.charges.entry(new.account).or_default();
        charge.signals += 1;
        charge.bytes += bytes;
        self.signals.bytes += bytes;
        self.signals.links.insert((new.maker, new.id));
        let before = self.signals.all.insert(new.id, signal);
        debug_assert!(before.is_none(), "an id is made once");
        self.arm_signal(new.id);
        self.finish_step();
        Ok(())
    }

    /// Writes one value (rule S4).
    pub fn set_signal(&mut self, now: Instant, id: SignalId, key: &str, value: &[u8]) -> Result<Signalled, Refused> {
        self.now = now;
        let Some(signal) = self.signals.all.get(&id) else { return Ok(Signalled::Ignored(Ignored::NoSignal)) };
        if signal.triggered {
            return Ok(Signalled::Ignored(Ignored::AlreadyTriggered));
        }
        if key.len() > METHOD_BYTES_MAX {
            let bytes = key.len();
            let detail = format!("the key of a value has at most {METHOD_BYTES_MAX} bytes, this one has {bytes}");
            return Err(Refused::new(Refusal::TooLarge, detail));
        }
        let charge = |bytes: usize| bytes as u64 + key.len() as u64 + VALUE_OVERHEAD_BYTES;
        let (account, before) = (signal.account, signal.values.get(key).map_or(0, |value| charge(value.len())));
        let after = signal.bytes - before + charge(value.len());
        self.check_signal_bytes(account, signal.bytes, after)?;
        let signal = self.signals.all.get_mut(&id).expect("was there above");
        // Nobody else has them: who waits is given them when it is triggered.
        Arc::make_mut(&mut signal.values).insert(key.into(), value.into());
        let before = core::mem::replace(&mut signal.bytes, after);
        let of = self.signals.charges.get_mut(&account).expect("it is charged for this one");
        of.bytes = of.bytes - before + after;
        self.signals.bytes = self.signals.bytes - before + after;
        self.finish_step();
        Ok(Signalled::Done { first: true })
    }

    /// Triggers it, and wakes all who wait (rule S2).
    pub fn trigger_signal(&mut self, now: Instant, id: SignalId) -> Signalled {
        self.now = now;
        let Some(signal) = self.signals.all.get_mut(&id) else { return Signalled::Ignored(Ignored::NoSignal) };
        if core::mem::replace(&mut signal.triggered, true) {
            return Signalled::Done { first: false };
        }
        let values = signal.values.clone();
        // They have nothing more to do with it.
        for number in core::mem::take(&mut signal.keepers) {
            if let Some(kept) = self.signals.kept.get_mut(&number) {
                kept.remove(&id);
                if kept.is_empty() {
                    self.signals.kept.remove(&number);
                }
            }
        }
        self.answer_all(id, |reply| Effect::SignalEnded { reply, end: SignalEnd::Triggered(values.clone()) });
        self.look_after_signal(id);
        self.finish_step();
        Signalled::Done { first: true }
    }

    /// Waits for it (rules S3, S5), for as long as it takes if there is no time-out: answered by [`Effect::SignalEnded`],
    /// at once where that is known. A signal that is not there is taken for one that nobody is left to trigger.
    pub fn wait_for_signal(&mut self, now: Instant, id: SignalId, timeout: Option<Duration>, reply: ReplyTo) {
        self.now = now;
        let Some(signal) = self.signals.all.get_mut(&id) else {
            return self.emit(Effect::SignalEnded { reply, end: SignalEnd::Lost });
        };
        if signal.triggered {
            let values = signal.values.clone();
            return self.emit(Effect::SignalEnded { reply, end: SignalEnd::Triggered(values) });
        }
        if let Some(ended) = signal.ended.as_ref().filter(|_| signal.carriers == 0 && signal.keepers.is_empty()) {
            let effect = ended.effect(reply);
            return self.emit(effect);
        }
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return self.emit(Effect::SignalEnded { reply, end: SignalEnd::TimedOut });
        }
        let until = timeout.map_or(Instant::NEVER, |timeout| now.after(timeout));
        signal.waiters.push(Waiter { reply, until });
        self.signals.links.insert((reply.connection, id));
        self.look_after_signal(id);
        self.finish_step();
    }

    /// The connection holds it no more, if it has made it, and neither does its time (rule S4).
    pub fn free_signal(&mut self, now: Instant, id: SignalId, by: NonZeroU64) -> Signalled {
        self.now = now;
        let Some(signal) = self.signals.all.get_mut(&id) else { return Signalled::Ignored(Ignored::NoSignal) };
        signal.kept_until = Instant::default();
        if signal.maker == Some(by) {
            signal.maker = None;
        }
        self.unlink(by, id);
        self.look_after_signal(id);
        self.finish_step();
        Signalled::Done { first: true }
    }

    /// All about a signal.
    pub fn signal_view(&self, now: Instant, id: SignalId) -> Option<SignalView<'_>> {
        let signal = self.signals.all.get(&id)?;
        Some(SignalView {
            description: signal.description.as_deref(),
            triggered: signal.triggered,
            values: signal.triggered.then_some(&*signal.values),
            age: now.since(signal.made),
            waiters: signal.waiters.len(),
        })
    }

    /// How many signals there are, and how many bytes they are charged for.
    pub fn signal_totals(&self) -> (usize, u64) {
        (self.signals.all.len(), self.signals.bytes)
    }

    // ---- what else happens to it --------------------------------------------------------------

    /// Whether somebody on this connection waits for a signal (rule P3).
    pub fn waits_for_signal(&self, connection: NonZeroU64) -> bool {
        let (first, last) = (SignalId([0; 16]), SignalId([0xff; 16]));
        let waits = |waiters: &[Waiter]| waiters.iter().any(|waiter| waiter.reply.connection == connection);
        let mut links = self.signals.links.range((connection, first)..=(connection, last));
        links.any(|(_, id)| self.signals.all.get(id).is_some_and(|signal| waits(&signal.waiters)))
    }

    /// A connection is gone: it waits for no signal, and holds none that it has made.
    pub fn forget_signals(&mut self, connection: NonZeroU64) {
        let (first, last) = (SignalId([0; 16]), SignalId([0xff; 16]));
        let links: Vec<_> = self.signals.links.range((connection, first)..=(connection, last)).copied().collect();
        if links.is_empty() {
            return;
        }
        for (connection, id) in links {
            self.signals.links.remove(&(connection, id));
            if let Some(signal) = self.signals.all.get_mut(&id) {
                signal.waiters.retain(|waiter| waiter.reply.connection != connection);
                signal.maker = signal.maker.filter(|maker| *maker != connection);
                self.look_after_signal(id);
            }
        }
        self.finish_step();
    }

    /// Whether a deadline is one of this signal.
    pub(crate) fn signal_is_due(&self, at: Instant, id: SignalId) -> bool {
        self.signals.all.get(&id).is_some_and(|signal| signal.armed == at)
    }

    /// Some have waited long enough, or it was kept long enough.
    pub(crate) fn signal_due(&mut self, now: Instant, id: SignalId) {
        let Some(signal) = self.signals.all.get_mut(&id) else { return };
        signal.armed = Instant::NEVER;
        let late: Vec<ReplyTo> = signal.waiters.extract_if(.., |waiter| waiter.until <= now).map(|w| w.reply).collect();
        for reply in late {
            self.emit(Effect::SignalEnded { reply, end: SignalEnd::TimedOut });
            self.unlink(reply.connection, id);
        }
        self.look_after_signal(id);
    }

    /// After each change: tells those who wait in vain, frees it when nobody holds it any more, or sees that its next
    /// deadline stands in the heap.
    fn look_after_signal(&mut self, id: SignalId) {
        let now = self.now;
        let Some(signal) = self.signals.all.get_mut(&id) else { return };
        if signal.carriers > 0 || !signal.keepers.is_empty() {
            return self.arm_signal(id);
        }
        let held = signal.maker.is_some() || signal.kept_until > now;
        if !signal.triggered && !held {
            signal.ended.get_or_insert(Ended::Process);
        }
        if let Some(ended) = signal.ended.clone().filter(|_| !signal.triggered) {
            self.answer_all(id, |reply| ended.effect(reply));
        }
        let Some(signal) = self.signals.all.get(&id) else { return };
        match held || !signal.waiters.is_empty() {
            true => self.arm_signal(id),
            false => self.drop_signal(id),
        }
    }

    fn answer_all(&mut self, id: SignalId, answer: impl Fn(ReplyTo) -> Effect) {
        let Some(signal) = self.signals.all.get_mut(&id) else { return };
        for waiter in core::mem::take(&mut signal.waiters) {
            self.emit(answer(waiter.reply));
            self.unlink(waiter.reply.connection, id);
        }
    }

    /// A connection may have nothing to do with the signal any more.
    fn unlink(&mut self, connection: NonZeroU64, id: SignalId) {
        let concerned = |signal: &Signal| {
            let waits = signal.waiters.iter().any(|waiter| waiter.reply.connection == connection);
            waits || signal.maker == Some(connection)
        };
        if !self.signals.all.get(&id).is_some_and(concerned) {
            self.signals.links.remove(&(connection, id));
        }
    }

    fn drop_signal(&mut self, id: SignalId) {
        let Some(signal) = self.signals.all.remove(&id) else { return };
        self.signals.bytes -= signal.bytes;
        if let Some(of) = self.signals.charges.get_mut(&signal.account) {
            of.signals -= 1;
            of.bytes -= signal.bytes;
            if of.signals == 0 {
                debug_assert_eq!(of.bytes, 0, "all of an account is paid back");
                self.signals.charges.remove(&signal.account);
            }
        }
        let half = |now: u64, limit: u64| now <= limit / 2 && now + signal.bytes > limit / 2;
        let (own, all) = (self.bytes_of(signal.account), self.bytes_in_all());
        if half(own, self.limits.sender_bytes) || half(all, self.limits.total_bytes) {
            self.note_room();
        }
    }

    fn arm_signal(&mut self, id: SignalId) {
        let now = self.now;
        let Some(signal) = self.signals.all.get_mut(&id) else { return };
        let kept = Some(signal.kept_until).filter(|until| *until > now);
        let next = signal.waiters.iter().map(|waiter| waiter.until).chain(kept).min().unwrap_or(Instant::NEVER);
        if core::mem::replace(&mut signal.armed, next) != next && next != Instant::NEVER {
            self.push_deadline(next, Due::Signal { id });
        }
    }
}

impl Signals {
    fn of(&self, account: AccountId) -> SignalCharge {
        self.charges.get(&account).copied().unwrap_or_default()
    }

    /// How many entries in the deadlines hold at most.
    pub fn len(&self) -> usize {
        self.all.len()
    }
}

impl Ended {
    fn effect(&self, reply: ReplyTo) -> Effect {
        match self {
            Ended::Message(outcome) => Effect::SignalEnded { reply, end: SignalEnd::Message(outcome.clone()) },
            Ended::Process => Effect::SignalEnded { reply, end: SignalEnd::Lost },
        }
    }
}
