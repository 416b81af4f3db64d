//! Who is charged for the messages that wait: each sender has an account, so that one who floods meets a limit of
//! his own and not all others with him.
//!
//! A message is charged when it is accepted and paid back when it has its fate, to the byte: an account without
//! a charge does not exist.

use core::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
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
    charges: Slab<(AccountId, Charge)>,
    #[serde(skip)]
    by_id: HashTable<u32>,
    #[serde(skip)]
    hasher: DefaultHashBuilder,
}

impl Accounts {
    /// What an account is charged now.
    pub fn of(&self, id: AccountId) -> Charge {
        self.find(id).map_or_else(Charge::default, |index| self.charges[index as usize].1)
    }

    /// Charges a message; returns the account's place, which the message keeps.
    pub fn charge(&mut self, id: AccountId, bytes: u64) -> u32 {
        let index = self.find(id).unwrap_or_else(|| {
            let index = self.charges.insert((id, Charge::default())) as u32;
            self.index(index, id);
            index
        });
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
            let hash = self.hasher.hash_one(*id);
            if let Ok(entry) = self.by_id.find_entry(hash, |entry| *entry == index) {
                entry.remove();
            }
            self.charges.remove(index as usize);
        }
        left
    }

    /// Whose a place is that a message keeps.
    pub fn at(&self, index: u32) -> AccountId {
        self.charges[index as usize].0
    }

    /// All that are charged now.
    pub fn iter(&self) -> impl Iterator<Item = (AccountId, Charge)> {
        self.charges.iter().map(|(_, account)| *account)
    }

    /// Finds all again, after a snapshot was read.
    pub fn index_all(&mut self) {
        let all: alloc::vec::Vec<_> = self.charges.iter().map(|(index, (id, _))| (index as u32, *id)).collect();
        for (index, id) in all {
            self.index(index, id);
        }
    }

    fn find(&self, id: AccountId) -> Option<u32> {
        self.by_id.find(self.hasher.hash_one(id), |index| self.charges[*index as usize].0 == id).copied()
    }

    fn index(&mut self, index: u32, id: AccountId) {
        let (charges, hasher) = (&self.charges, &self.hasher);
        self.by_id.insert_unique(hasher.hash_one(id), index, |entry| hasher.hash_one(charges[*entry as usize].0));
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
