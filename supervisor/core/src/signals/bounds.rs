//! What signals count against the bounds, and the proof that it is what there is.

use alloc::collections::BTreeMap;
use alloc::format;

use workhall_protocol::terms::Refusal;

use crate::event::AccountId;
use crate::registry::{Core, Refused};
use crate::signals::SIGNAL_BYTES_MAX;
use crate::time::Instant;

impl Core {
    pub(super) fn check_signal_bytes(&self, account: AccountId, before: u64, after: u64) -> Result<(), Refused> {
        let limits = &self.limits;
        let limit = limits.message_bytes.min(SIGNAL_BYTES_MAX);
        if after > limit {
            let detail = format!(
                "a signal with its values has at most {limit} bytes ({SIGNAL_BYTES_MAX}, or `message_bytes` in [supervisor]), this one would have {after}"
            );
            return Err(Refused::new(Refusal::TooLarge, detail));
        }
        let full = |what, bytes: u64, limit: u64, key| {
            let detail = format!(
                "{what} {bytes} bytes of messages and signals, and the limit is {limit} (`{key}` in [supervisor])"
            );
            Err(Refused::new(Refusal::MailboxFull, detail))
        };
        let (own, all) = (self.bytes_of(account), self.bytes_in_all());
        if after > before && own - before + after > limits.sender_bytes {
            return full("the sender has", own, limits.sender_bytes, "sender_bytes");
        }
        if after > before && all - before + after > limits.total_bytes {
            return full("there are", all, limits.total_bytes, "total_bytes");
        }
        Ok(())
    }

    /// What an account is charged for: messages and signals.
    pub(crate) fn bytes_of(&self, account: AccountId) -> u64 {
        self.accounts.of(account).bytes + self.signals.of(account).bytes
    }

    /// What all messages and signals are charged for.
    pub(crate) fn bytes_in_all(&self) -> u64 {
        self.total_bytes + self.signals.bytes
    }

    /// Debug builds, after each step: what is held is what holds.
    pub(crate) fn prove_signals(&self) {
        let signals = &self.signals;
        let mut charges = BTreeMap::<AccountId, (u64, u64)>::new();
        for (id, signal) in &signals.all {
            let of = charges.entry(signal.account).or_default();
            (of.0, of.1) = (of.0 + 1, of.1 + signal.bytes);
            let carriers = signals.carried.values().filter(|ids| ids.contains(id)).count();
            debug_assert_eq!(signal.carriers as usize, carriers, "messages hold it until their fate");
            let keepers = signals.kept.values().filter(|ids| ids.contains(id)).count();
            debug_assert_eq!(signal.keepers.len(), keepers, "processes hold it until their end");
            let vain = signal.ended.is_some() && carriers + keepers == 0;
            debug_assert!(!vain || signal.waiters.is_empty(), "nobody waits for what nobody will trigger");
            debug_assert!(!signal.triggered || signal.waiters.is_empty(), "nobody waits for what was triggered");
            // Its time may be over, and the tick that says so still to come.
            let kept = signal.kept_until != Instant::default();
            let held = signal.maker.is_some() || kept || !signal.waiters.is_empty();
            debug_assert!(held || carriers > 0 || keepers > 0, "the last holder's end frees it");
        }
        for (account, of) in &signals.charges {
            debug_assert_eq!(charges.remove(account), Some((of.signals, of.bytes)), "each charge is that of a signal");
        }
        debug_assert!(charges.is_empty());
    }
}
