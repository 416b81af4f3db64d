//! Who is charged for the messages that wait: each sender has an account, so that one who floods meets a limit of
//! his own and not all others with him.
//!
//! A message is charged when it is accepted and paid back when it has its fate, to the byte: an account without
//! a charge does not exist.

use alloc::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use slab::Slab;

use crate::event::AccountId;

/// What one sender is charged for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// Messages that wait or run.
    pub messages: u64,
    /// Their bytes, counted as for a mailbox.
    pub bytes: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Accounts {
    by_id: BTreeMap<AccountId, u32>,
    charges: Slab<(AccountId, Charge)>,
}

impl Accounts {
    /// What an account is charged now.
    pub fn of(&self, id: AccountId) -> Charge {
        self.by_id.get(&id).map_or_else(Charge::default, |index| self.charges[*index as usize].1)
    }

    /// Charges a message; returns the account's place, which the message keeps.
    pub fn charge(&mut self, id: AccountId, bytes: u64) -> u32 {
        let charges = &mut self.charges;
        let index = *self.by_id.entry(id).or_insert_with(|| charges.insert((id, Charge::default())) as u32);
        let charge = &mut self.charges[index as usize].1;
        charge.messages += 1;
        charge.bytes += bytes;
        index
    }

    /// Pays a message back; returns whose it was and what is left.
    pub fn pay_back(&mut self, index: u32, bytes: u64) -> (AccountId, Charge) {
        let (id, charge) = &mut self.charges[index as usize];
        charge.messages -= 1;
        charge.bytes -= bytes;
        let left = (*id, *charge);
        if charge.messages == 0 {
            debug_assert_eq!(charge.bytes, 0, "all of an account is paid back");
            self.by_id.remove(id);
            self.charges.remove(index as usize);
        }
        left
    }

    /// All that are charged now.
    pub fn iter(&self) -> impl Iterator<Item = (AccountId, Charge)> {
        self.charges.iter().map(|(_, account)| *account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_charged_is_paid_back_to_the_byte_and_nothing_stays() {
        let mut accounts = Accounts::default();
        let (a, b) = (AccountId(1000), AccountId(1 << 32 | 1000));
        let first = accounts.charge(a, 70);
        let second = accounts.charge(a, 30);
        let other = accounts.charge(b, 5);
        assert_eq!(first, second);
        assert_eq!((accounts.of(a), accounts.of(b).bytes), (Charge { messages: 2, bytes: 100 }, 5));
        assert_eq!(accounts.pay_back(first, 70), (a, Charge { messages: 1, bytes: 30 }));
        accounts.pay_back(second, 30);
        assert_eq!((accounts.of(a), accounts.iter().count()), (Charge::default(), 1));
        accounts.pay_back(other, 5);
        assert_eq!(accounts.iter().count(), 0);
    }
}
