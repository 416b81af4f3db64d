//! The end of a message: the ledger, the charges, who waits, and the dead letters.

use workhall_protocol::terms::DeadReason;

use crate::dead_letters::{DeadLetter, Fate};
use crate::effect::Outcome;
use crate::ledger::Place;
use crate::mailbox::{Envelope, Message};
use crate::registry::Core;
use crate::time::Instant;
use crate::watch::Watch;

impl Core {
    /// The end of a message: the ledger, the charge, and who waits.
    pub(crate) fn settle(&mut self, index: u32, message: Envelope, place: Place, outcome: Outcome) {
        self.ledger.settle(place, &outcome);
        self.note_end(index, &message, &outcome);
        let charge = message.charge();
        let worker = &mut self.workers[index as usize];
        worker.charged -= charge;
        self.stats.settle(worker.counted, &outcome);
        self.total_bytes -= charge;
        let (account, left) = self.accounts.pay_back(message.account, charge);
        let limits = &self.limits;
        let all = self.ledger.pending + self.ledger.running;
        let (bytes, own) = (self.bytes_in_all(), self.bytes_of(account));
        // Who waits for room is told when half of it is free again.
        let falls = |now: u64, by: u64, limit: u64| now <= limit / 2 && now + by > limit / 2;
        if falls(bytes, charge, limits.total_bytes)
            || falls(all, 1, limits.total_messages)
            || falls(own, charge, limits.sender_bytes)
            || falls(left.messages, 1, limits.sender_messages)
        {
            self.note_room();
        }
        self.give_up_place(index);
        self.touch(index);
        if !self.delayed.is_empty() {
            self.delayed.remove(&message.id);
        }
        self.message_ended(index, &message, outcome);
    }

    /// There may be room again for those who wait for it.
    pub(crate) fn note_room(&mut self) {
        let room = |watches: &[Watch]| watches.iter().any(Watch::is_for_room);
        self.touched.extend(self.watches.iter().filter(|(_, watches)| room(watches)).map(|(name, _)| name.clone()));
    }

    /// The same for a message that is kept as a dead letter.
    pub(crate) fn bury(&mut self, now: Instant, index: u32, message: Message, place: Place, fate: Fate) {
        let Fate { reason, exit, may_have_run } = fate;
        let outcome = match reason {
            DeadReason::Expired => Outcome::Expired { may_have_run },
            _ => Outcome::Dead { reason, exit, may_have_run },
        };
        self.settle(index, message.envelope(), place, outcome);
        let worker = &self.workers[index as usize];
        let letter = DeadLetter::new(message, worker.identity.clone(), worker.generation, fate, now);
        self.dead_letters.keep(letter, self.limits.dead_messages, self.limits.dead_bytes);
    }
}
