//! What messages and processes have to do with signals: who carries one may trigger it (rule S5).

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use workhall_protocol::ids::{MessageId, SignalId, WorkerNumber};
use workhall_protocol::terms::Refusal;

use super::Ended;
use crate::effect::{Effect, Outcome};
use crate::mailbox::Envelope;
use crate::registry::{Core, Refused};

/// The most signals that one message may carry.
const CARRIED_MAX: usize = 256;
/// How much of an error is told to those who wait for a signal, in bytes.
const ERROR_BYTES_MAX: usize = 4 << 10;

impl Core {
    /// Whether a message carries no more signals than one may.
    pub(crate) fn check_carried(&self, args: &[u8]) -> Result<(), Refused> {
        if self.signals.all.is_empty() || SignalId::find_all(args).take(CARRIED_MAX + 1).count() <= CARRIED_MAX {
            return Ok(());
        }
        let detail = format!("the message carries more than {CARRIED_MAX} signals, which is the limit");
        Err(Refused::new(Refusal::TooLarge, detail))
    }

    /// A message is accepted: it holds the signals that its arguments name.
    pub(crate) fn carry_signals(&mut self, message: MessageId, args: &[u8]) {
        if self.signals.all.is_empty() {
            return;
        }
        let mut ids: Vec<SignalId> = SignalId::find_all(args).filter(|id| self.signals.all.contains_key(id)).collect();
        if ids.is_empty() {
            return;
        }
        ids.sort_unstable();
        ids.dedup();
        for id in &ids {
            let signal = self.signals.all.get_mut(id).expect("was looked for above");
            signal.carriers += 1;
            signal.ended = None;
        }
        self.signals.carried.insert(message, ids);
    }

    /// Whether somebody may want to know how a message has ended who is not named in it.
    pub(crate) fn carries_signals(&self, message: MessageId) -> bool {
        !self.signals.carried.is_empty() && self.signals.carried.contains_key(&message)
    }

    /// A message has its fate: who waits for it, and for what it was to trigger, is told (rule S5).
    pub(crate) fn message_ended(&mut self, index: u32, message: &Envelope, outcome: Outcome) {
        if !self.signals.carried.is_empty()
            && let Some(ids) = self.signals.carried.remove(&message.id)
        {
            self.carrier_ended(index, ids, &outcome);
        }
        if let Some(reply) = message.reply {
            self.emit(Effect::Settled { reply, outcome });
        }
    }

    fn carrier_ended(&mut self, index: u32, ids: Vec<SignalId>, outcome: &Outcome) {
        let worker = &self.workers[index as usize];
        let (number, lives) = (worker.identity.number, worker.life.is_some());
        let ended = match outcome {
            Outcome::Done { .. } => Ended::Process,
            Outcome::Failed { error } => Ended::Message(Arc::new(Outcome::Failed {
                error: error[..error.floor_char_boundary(ERROR_BYTES_MAX)].into(),
            })),
            other => Ended::Message(Arc::new(other.clone())),
        };
        let done = matches!(ended, Ended::Process);
        for id in ids {
            let Some(signal) = self.signals.all.get_mut(&id) else { continue };
            signal.carriers -= 1;
            if !signal.triggered {
                // Its process may trigger it later, as long as it lives.
                if done && lives {
                    self.signals.kept.entry(number).or_default().insert(id);
                    signal.keepers.insert(number);
                }
                signal.ended = Some(ended.clone());
            }
            self.look_after_signal(id);
        }
    }

    /// A life is over: it triggers nothing any more.
    pub(crate) fn keeper_ended(&mut self, number: WorkerNumber) {
        if self.signals.kept.is_empty() {
            return;
        }
        for id in self.signals.kept.remove(&number).unwrap_or_default() {
            if let Some(signal) = self.signals.all.get_mut(&id) {
                signal.keepers.remove(&number);
                signal.ended = Some(Ended::Process);
                self.look_after_signal(id);
            }
        }
    }
}
