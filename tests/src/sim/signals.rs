//! Signals and messages that are not wanted any more: what clients do with them, and who checks the core's answers.
//!
//! The checker here keeps no copy of the core's books. It knows who carries a signal from what was accepted and what was
//! settled, and whether a process that executed a carrier is gone from what the core was told.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::time::Duration;

use workhall_core::{
    AccountId, Cancelled, Core, Effect, Instant, NewSignal, Outcome, ProcessKey, ReplyTo, SignalEnd, Signalled,
};
use workhall_protocol::ids::{MessageId, SignalId};
use workhall_protocol::terms::Ignored;

use super::checker::TICK_SLACK;
use super::rng::Rng;
use super::world::World;

/// The connections of those who make signals and wait for them.
const CONNECTIONS: [u64; 3] = [3, 4, 5];

/// What is drawn for signals, and what must be so.
#[derive(Debug)]
pub struct Signals {
    /// Of its own, so that worlds without signals are what they were.
    pub rng: Rng,
    /// Whether there are any in this world.
    pub on: bool,
    /// All that were ever made.
    all: BTreeMap<SignalId, Signal>,
    /// Who waits, by token, and for what.
    waits: BTreeMap<u64, Wait>,
    made: u64,
}

#[derive(Debug)]
struct Signal {
    maker: Option<u64>,
    kept_until: Instant,
    values: BTreeMap<Box<str>, Box<[u8]>>,
    triggered: bool,
    /// A message carries it for whose fate nobody waits.
    unsure: bool,
    carriers: BTreeSet<MessageId>,
    /// Lives that have executed one, before it was triggered.
    keepers: BTreeSet<ProcessKey>,
    /// The last fate of a carrier.
    ended: Option<Outcome>,
    was_carried: bool,
}

#[derive(Debug)]
struct Wait {
    signal: SignalId,
    connection: u64,
    until: Instant,
    /// There was such a signal.
    there: bool,
    /// It is answered, or nobody waits for the answer any more.
    over: bool,
    /// What was said, to be judged when all that the core has commanded with it is known.
    said: Option<SignalEnd>,
}

impl Signals {
    pub fn new(seed: u64) -> Signals {
        let mut rng = Rng::new(seed.rotate_left(48));
        let on = rng.percent(35);
        Signals { rng, on, all: BTreeMap::new(), waits: BTreeMap::new(), made: 0 }
    }

    /// Of those that may still be there.
    fn draw(&mut self) -> SignalId {
        // One of the last few; now and then one that never was.
        let back = self.rng.below(8);
        id_of(self.made.saturating_sub(back))
    }

    /// What a message is to carry, as it stands in arguments.
    pub fn draw_carried(&mut self) -> Vec<u8> {
        if !self.on || self.made == 0 || !self.rng.percent(40) {
            return Vec::new();
        }
        let texts: Vec<Vec<u8>> = (0..self.rng.between(1, 3))
            .map(|_| [b"\xa7$signal\xd9\x20", self.draw().to_string().as_bytes()].concat())
            .collect();
        texts.concat()
    }

    /// A message is accepted. `sure`: its fate will be told.
    pub fn carried(&mut self, core: &Core, id: MessageId, args: &[u8], sure: bool) {
        // What was gone before is carried by nobody.
        for found in SignalId::find_all(args).filter(|found| core.signal_view(Instant(0), *found).is_some()) {
            if let Some(signal) = self.all.get_mut(&found) {
                signal.unsure |= !sure;
                signal.was_carried = true;
                signal.ended = None;
                if sure {
                    signal.carriers.insert(id);
                }
            }
        }
    }

    /// A message has its fate; `by`: the life that has executed it.
    pub fn settled(&mut self, id: MessageId, outcome: &Outcome, by: Option<ProcessKey>) {
        for signal in self.all.values_mut() {
            if signal.carriers.remove(&id) {
                signal.ended = Some(outcome.clone());
                if let (Outcome::Done { .. }, Some(by), false) = (outcome, by, signal.triggered) {
                    signal.keepers.insert(by);
                }
            }
        }
    }

    /// The core answers who waits.
    pub fn answered(&mut self, now: Instant, reply: ReplyTo, end: &SignalEnd) -> Result<(), String> {
        let Some(wait) = self.waits.get_mut(&reply.token).filter(|wait| !wait.over) else {
            return Err(format!("{end:?} for {reply:?}, who does not wait"));
        };
        wait.over = true;
        let signal = self.all.get(&wait.signal);
        match (end, signal) {
            (SignalEnd::Lost, _) if !wait.there => Ok(()),
            _ if !wait.there => Err(format!("{end:?} of {}, which is not there", wait.signal)),
            (SignalEnd::Triggered(values), Some(signal)) if signal.triggered && **values == signal.values => Ok(()),
            (SignalEnd::TimedOut, Some(signal)) if !signal.triggered && wait.until <= now => Ok(()),
            (SignalEnd::Message(_) | SignalEnd::Lost, _) if signal.is_none_or(|signal| !signal.triggered) => {
                wait.said = Some(end.clone());
                Ok(())
            }
            _ => Err(format!("{end:?} for {reply:?} of {signal:?}")),
        }
    }

    /// When all is done that the core has commanded. `lives`: whether a life may still trigger something.
    pub fn check(
        &mut self,
        now: Instant,
        is_there: impl Fn(SignalId) -> bool,
        lives: impl Fn(ProcessKey) -> bool,
    ) -> Result<(), (&'static str, String)> {
        for wait in self.waits.values_mut() {
            let Some(said) = wait.said.take() else { continue };
            let signal = self.all.get(&wait.signal);
            let Some(signal) = signal else { continue };
            let nobody_left = signal.carriers.is_empty() && !signal.keepers.iter().any(|key| lives(*key));
            let so = match (&said, &signal.ended) {
                _ if signal.unsure => true,
                (SignalEnd::Message(told), Some(ended)) => **told == *ended,
                (SignalEnd::Lost, Some(Outcome::Done { .. })) => true,
                // The last of those who kept it went after the last carrier.
                (SignalEnd::Lost, Some(_)) => !signal.keepers.is_empty(),
                (SignalEnd::Lost, None) => !signal.was_carried && signal.maker.is_none() && signal.kept_until <= now,
                _ => false,
            };
            if !so || !nobody_left && !signal.unsure {
                return Err(("S5", format!("{said:?} was told of {signal:?}")));
            }
        }
        let waiting: BTreeSet<SignalId> =
            self.waits.values().filter(|wait| !wait.over).map(|wait| wait.signal).collect();
        for (id, signal) in self.all.iter().filter(|(_, signal)| !signal.unsure) {
            let waited = waiting.contains(id);
            let kept = !signal.triggered && signal.keepers.iter().any(|key| lives(*key));
            let may_be_triggered = kept || !signal.carriers.is_empty();
            if waited && (signal.triggered || signal.was_carried && !may_be_triggered) {
                return Err(("S5", format!("somebody waits in vain for {signal:?}")));
            }
            let held = may_be_triggered || waited || signal.maker.is_some();
            let (kept, over) = (signal.kept_until > now, signal.kept_until.after(TICK_SLACK) < now);
            match is_there(*id) {
                false if held || kept => return Err(("S4", format!("{id} is gone: {signal:?}, waited for {waited}"))),
                true if !held && over => return Err(("S4", format!("nobody holds {id}, and it is there: {signal:?}"))),
                _ => {}
            }
        }
        let late = self.waits.values().find(|wait| !wait.over && wait.until.after(TICK_SLACK) < now);
        match late {
            Some(wait) => Err(("S3", format!("it has waited for too long: {wait:?}"))),
            None => Ok(()),
        }
    }
}

impl World {
    /// Somebody makes, sends, triggers, waits for or forgets a signal, or cancels a message.
    pub fn acts_with_signals(&mut self) {
        if self.is_over() {
            return;
        }
        let rng = &mut self.signals.rng;
        let connection = rng.pick(&CONNECTIONS);
        match rng.below(20) {
            0..=4 => self.makes_signal(connection),
            5..=6 => self.sets_signal(),
            7..=8 => self.triggers_signal(),
            9..=13 => self.waits_for_signal(connection),
            14 => self.frees_signal(connection),
            15 => {
                self.forgets(connection);
                self.apply();
            }
            _ => self.cancels(),
        }
        let pause = self.signals.rng.pick(&[0, 2, 20, 300]);
        let pause = self.signals.rng.up_to_ms(pause);
        self.plan_signals(pause);
    }

    fn makes_signal(&mut self, connection: u64) {
        let rng = &mut self.signals.rng;
        let keep = if rng.percent(50) { Duration::ZERO } else { rng.up_to_ms(1500) };
        let id = id_of(self.signals.made);
        let maker = connection_of(connection);
        let account = AccountId(rng.below(3));
        let new = NewSignal { id, maker, account, description: None, keep };
        if let Err(refused) = self.core.make_signal(self.now, new) {
            self.log(|_| format!("signal of {connection} refused: {refused:?}"));
            return self.coverage.count("signal refused");
        }
        self.log(|_| format!("signal {id} of {connection}, kept {keep:?}"));
        self.coverage.count("signal made");
        self.signals.made += 1;
        let kept_until = if keep.is_zero() { Instant::default() } else { self.now.after(keep) };
        let signal = Signal {
            maker: Some(connection),
            kept_until,
            values: BTreeMap::new(),
            triggered: false,
            unsure: false,
            carriers: BTreeSet::new(),
            keepers: BTreeSet::new(),
            ended: None,
            was_carried: false,
        };
        self.signals.all.insert(id, signal);
        self.apply();
    }

    fn sets_signal(&mut self) {
        let id = self.signals.draw();
        let (key, value) = (self.signals.rng.pick(&["a", "b"]), self.signals.rng.bits().to_le_bytes());
        let Ok(done) = self.core.set_signal(self.now, id, key, &value) else { return };
        let Some(signal) = self.signals.all.get_mut(&id) else { return };
        let so = match done {
            Signalled::Done { .. } => !signal.triggered,
            Signalled::Ignored(why) => {
                (why == Ignored::AlreadyTriggered) == signal.triggered || why == Ignored::NoSignal
            }
        };
        if let Signalled::Done { .. } = done {
            signal.values.insert(key.into(), value.into());
        }
        self.must_be(so, "S4", |_| format!("a value of {id} was {done:?}"));
        self.apply();
    }

    fn triggers_signal(&mut self) {
        let id = self.signals.draw();
        if let Some(signal) = self.signals.all.get_mut(&id)
            && self.core.signal_view(self.now, id).is_some()
        {
            let first = !std::mem::replace(&mut signal.triggered, true);
            let done = self.core.trigger_signal(self.now, id);
            self.log(|_| format!("trigger {id} -> {done:?}"));
            self.coverage.count(if first { "signal triggered" } else { "signal triggered again" });
            self.must_be(done == Signalled::Done { first }, "S2", |_| format!("{id} triggered: {done:?}"));
        } else {
            let done = self.core.trigger_signal(self.now, id);
            let ignored = done == Signalled::Ignored(Ignored::NoSignal);
            self.must_be(ignored, "S2", |_| format!("{id} is not there, and triggered: {done:?}"));
        }
        self.apply();
    }

    fn waits_for_signal(&mut self, connection: u64) {
        let signal = self.signals.draw();
        let rng = &mut self.signals.rng;
        let timeout = match rng.below(4) {
            0 => None,
            1 => Some(Duration::ZERO),
            _ => Some(rng.up_to_ms(1000)),
        };
        let there = self.core.signal_view(self.now, signal).is_some();
        let token = self.token();
        let until = timeout.map_or(Instant::NEVER, |timeout| self.now.after(timeout));
        self.log(|_| format!("wait {token} of {connection} for {signal} {timeout:?}"));
        self.coverage.count("wait for a signal");
        self.signals.waits.insert(token, Wait { signal, connection, until, there, over: false, said: None });
        let reply = ReplyTo { connection: connection_of(connection), token };
        self.core.wait_for_signal(self.now, signal, timeout, reply);
        self.apply();
    }

    fn frees_signal(&mut self, connection: u64) {
        let id = self.signals.draw();
        let done = self.core.free_signal(self.now, id, connection_of(connection));
        self.log(|_| format!("free {id} by {connection} -> {done:?}"));
        if let (Signalled::Done { .. }, Some(signal)) = (done, self.signals.all.get_mut(&id)) {
            self.coverage.count("signal freed");
            signal.kept_until = Instant::default();
            signal.maker = signal.maker.filter(|maker| *maker != connection);
        }
        self.apply();
    }

    fn forgets(&mut self, connection: u64) {
        self.log(|_| format!("{connection} is gone"));
        self.coverage.count("maker or waiter gone");
        for wait in self.signals.waits.values_mut().filter(|wait| wait.connection == connection) {
            wait.over = true;
        }
        for signal in self.signals.all.values_mut() {
            signal.maker = signal.maker.filter(|maker| *maker != connection);
        }
        self.core.forget_signals(connection_of(connection));
    }

    fn cancels(&mut self) {
        let known = self.checker.cancellable();
        let id = match known.is_empty() || self.signals.rng.percent(10) {
            true => MessageId(self.signals.rng.below(40)),
            false => self.signals.rng.pick(&known),
        };
        let cancelled = self.core.cancel(self.now, id, |_| true);
        self.log(|_| format!("cancel {id} -> {cancelled:?}"));
        self.coverage.count(match &cancelled {
            Cancelled::Discarded => "cancel discards",
            Cancelled::Told => "cancel told",
            Cancelled::Ignored(_) => "cancel ignored",
            Cancelled::Refused(_) => "cancel refused: never",
        });
        self.checker.cancelled(id, &cancelled);
        self.apply();
    }

    /// What the core commands of it.
    pub fn see_signal_effect(&mut self, effect: &Effect) {
        match effect {
            Effect::SignalEnded { reply, end } => {
                self.coverage.count(match end {
                    SignalEnd::Triggered(_) => "told triggered",
                    SignalEnd::Message(_) => "told the message's end",
                    SignalEnd::TimedOut => "told timed out",
                    SignalEnd::Lost => "told lost",
                });
                let answered = self.signals.answered(self.now, *reply, end);
                self.must_be(answered.is_ok(), "S2", |_| answered.unwrap_err());
            }
            Effect::Settled { reply, outcome } => {
                if let Some(id) = self.checker.message_of(reply.token) {
                    self.signals.settled(id, outcome, self.checker.executed_by(id));
                }
            }
            _ => {}
        }
    }

    /// When nothing that was commanded is left to be done.
    pub fn check_signals(&mut self) {
        // Who has stopped keeps no time any more.
        if !self.signals.on || self.is_stopped() {
            return;
        }
        let World { core, checker, signals, now, .. } = self;
        let checked = signals.check(*now, |id| core.signal_view(*now, id).is_some(), |key| checker.lives(key));
        if let Err((rule, detail)) = checked {
            self.must_be(false, rule, |_| detail);
        }
    }

    /// All who make them and wait for them leave.
    pub fn signals_are_left(&mut self) {
        if self.signals.on && !self.is_stopped() {
            for connection in CONNECTIONS {
                self.forgets(connection);
                self.apply();
            }
        }
    }

    /// At the end nobody holds any.
    pub fn signals_are_gone(&mut self) {
        CONNECTIONS.into_iter().for_each(|connection| self.forgets(connection));
        let later = self.now.after(Duration::from_secs(3600));
        self.core.tick(later);
        let totals = self.core.signal_totals();
        self.must_be(totals == (0, 0), "S4", |_| format!("signals and bytes of them are left: {totals:?}"));
    }
}

fn id_of(made: u64) -> SignalId {
    let mut id = [7; 16];
    id[8..].copy_from_slice(&made.to_be_bytes());
    SignalId(id)
}

fn connection_of(number: u64) -> NonZeroU64 {
    NonZeroU64::new(number).expect("is not 0")
}
