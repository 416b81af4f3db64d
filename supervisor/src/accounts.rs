//! What each user has in hand: connections, answers not read, messages not finished, answers due.
//!
//! The bounds are per user and not per connection alone: else a user could take all memory by many connections.
//! A connection tells what it holds where it is flushed; the sums here are exact then, and are paid back to
//! zero when it goes. Each worker has an account of its own, with its one connection.

use std::collections::HashMap;

use workhall_core::Refused;
use workhall_protocol::terms::Refusal;

use crate::access::Account;

/// Requests of one connection whose last answer is still to come: calls and kills that are waited for, waits,
/// questions. Far more than a program has in hand, and a few megabytes at most.
pub const AWAITED_MAX: usize = 1 << 16;
/// The same for all connections of one user.
pub const AWAITED_PER_USER_MAX: usize = 1 << 18;
/// Pending `wait`s of one connection. Each step of a worker looks at all who wait for its name, so they are
/// fewer: what everybody pays for must stay small.
pub const WAITS_MAX: usize = 1 << 10;
/// The same for all connections of one user.
pub const WAITS_PER_USER_MAX: usize = 1 << 12;
/// A message up to this size comes in whatever else its user has not finished, in bytes: so an operator whose
/// programs run wild can still ask and kill.
pub const SMALL_BYTES: usize = 8 << 10;

const _: () = assert!(AWAITED_MAX <= AWAITED_PER_USER_MAX && WAITS_MAX <= WAITS_PER_USER_MAX);

/// What one connection holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// Bytes of answers that wait to be read.
    pub unread: usize,
    /// Bytes of messages that are not complete.
    pub unfinished: usize,
    /// Requests whose last answer is still to come.
    pub awaited: usize,
    /// Those of them that are `wait`s.
    pub waits: usize,
}

/// What one account holds.
#[derive(Debug, Default)]
struct Usage {
    connections: usize,
    sum: Charge,
    /// The one connection that may finish its message although the others are held back.
    finishing: Option<u64>,
    /// So many connections are held back.
    held_back: usize,
    /// The log has a line on it.
    told: bool,
}

/// All accounts that hold anything.
#[derive(Debug)]
pub struct Accounts {
    unread_bytes: usize,
    unfinished_bytes: usize,
    usage: HashMap<Account, Usage>,
}

impl Accounts {
    /// With the bounds of each.
    pub fn new(unread_bytes: usize, unfinished_bytes: usize) -> Accounts {
        Accounts { unread_bytes, unfinished_bytes, usage: HashMap::new() }
    }

    /// Other bounds; what is there beyond them is not dropped, and grows no more.
    pub fn set_bounds(&mut self, unread_bytes: usize, unfinished_bytes: usize) {
        (self.unread_bytes, self.unfinished_bytes) = (unread_bytes, unfinished_bytes);
    }

    /// Of each account which connection may finish its message, and whether the log has a line on it. The rest follows
    /// from the connections.
    pub fn notes(&self) -> Vec<(Account, Option<u64>, bool)> {
        self.usage.iter().map(|(account, usage)| (*account, usage.finishing, usage.told)).collect()
    }

    /// Takes up such notes again, once the connections are open.
    pub fn take_notes(&mut self, notes: Vec<(Account, Option<u64>, bool)>) {
        for (account, finishing, told) in notes {
            if let Some(usage) = self.usage.get_mut(&account) {
                (usage.finishing, usage.told) = (finishing, told);
            }
        }
    }

    /// A connection more.
    pub fn open(&mut self, account: Account) {
        self.usage.entry(account).or_default().connections += 1;
    }

    /// A connection less; what it held is paid back.
    pub fn close(&mut self, account: Account, key: u64, charged: &mut Charge, held_back: bool) {
        self.update(account, charged, Charge::default());
        let Some(usage) = self.usage.get_mut(&account) else { return };
        usage.connections -= 1;
        usage.held_back -= usize::from(held_back);
        if usage.finishing == Some(key) {
            usage.finishing = None;
        }
        if usage.connections == 0 {
            debug_assert_eq!((usage.sum, usage.held_back), (Charge::default(), 0), "every charge is paid back");
            self.usage.remove(&account);
        }
    }

    /// How many connections an account has.
    pub fn connections(&self, account: Account) -> usize {
        self.usage.get(&account).map_or(0, |usage| usage.connections)
    }

    /// A connection holds this now instead of what was charged. Returns whether more is unread than may be.
    pub fn update(&mut self, account: Account, charged: &mut Charge, now: Charge) -> bool {
        let Some(usage) = self.usage.get_mut(&account) else { return false };
        let sum = &mut usage.sum;
        sum.unread = sum.unread - charged.unread + now.unread;
        sum.unfinished = sum.unfinished - charged.unfinished + now.unfinished;
        sum.awaited = sum.awaited - charged.awaited + now.awaited;
        sum.waits = sum.waits - charged.waits + now.waits;
        *charged = now;
        sum.unread > self.unread_bytes
    }

    /// How many bytes are unread beyond what may be.
    pub fn unread_excess(&self, account: Account) -> usize {
        self.usage.get(&account).map_or(0, |usage| usage.sum.unread.saturating_sub(self.unread_bytes))
    }

    /// How much a connection may read now, in bytes: `most`, or less where its user has begun more messages
    /// than he finishes; zero if it is to be held back until others are finished. One at a time is always
    /// let through, so that all come to their end.
    pub fn room(&mut self, account: Account, key: u64, charged: Charge, held: usize, most: usize) -> usize {
        let Some(usage) = self.usage.get_mut(&account) else { return most };
        let sum = usage.sum.unfinished - charged.unfinished + held;
        if sum + most <= self.unfinished_bytes || usage.finishing == Some(key) {
            most
        } else if held < SMALL_BYTES {
            most.min(SMALL_BYTES - held)
        } else if usage.finishing.is_none() {
            usage.finishing = Some(key);
            most
        } else {
            0
        }
    }

    /// A connection is held back, or is no more.
    pub fn hold_back(&mut self, account: Account, held_back: bool) {
        if let Some(usage) = self.usage.get_mut(&account) {
            match held_back {
                true => usage.held_back += 1,
                false => usage.held_back -= 1,
            }
        }
    }

    /// What a connection had begun is finished: another may go on in its place.
    pub fn finished(&mut self, account: Account, key: u64) {
        if let Some(usage) = self.usage.get_mut(&account).filter(|usage| usage.finishing == Some(key)) {
            usage.finishing = None;
        }
    }

    /// Whether some that are held back may go on.
    pub fn may_go_on(&self, account: Account, most: usize) -> bool {
        self.usage.get(&account).is_some_and(|usage| {
            usage.held_back > 0 && (usage.finishing.is_none() || usage.sum.unfinished + most <= self.unfinished_bytes)
        })
    }

    /// Whether one more request may wait for its answer, where a connection has `held` of them now.
    pub fn check_awaited(&self, account: Account, charged: Charge, held: Charge, wait: bool) -> Result<(), Refused> {
        let sum = self.usage.get(&account).map(|usage| usage.sum).unwrap_or_default();
        let (awaited, waits) = (sum.awaited - charged.awaited + held.awaited, sum.waits - charged.waits + held.waits);
        let bounds = [
            (held.awaited, AWAITED_MAX, "answers are due on this connection"),
            (awaited, AWAITED_PER_USER_MAX, "answers are due to this user"),
            (held.waits * usize::from(wait), WAITS_MAX, "waits are pending on this connection"),
            (waits * usize::from(wait), WAITS_PER_USER_MAX, "waits of this user are pending"),
        ];
        match bounds.into_iter().find(|(count, most, _)| count >= most) {
            None => Ok(()),
            Some((_, most, what)) => {
                let detail = format!("{most} {what}, which is the limit: take some of them in first");
                Err(Refused::new(Refusal::MailboxFull, detail))
            }
        }
    }

    /// Whether the log is to have a line on an account: one, until it has no connection left.
    pub fn tell_once(&mut self, account: Account) -> bool {
        self.usage.get_mut(&account).is_some_and(|usage| !std::mem::replace(&mut usage.told, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Account = Account::of_user(7);

    fn unfinished(bytes: usize) -> Charge {
        Charge { unfinished: bytes, ..Charge::default() }
    }

    #[test]
    fn what_is_charged_is_paid_back() {
        let mut accounts = Accounts::new(100, 100);
        let (mut a, mut b) = (Charge::default(), Charge::default());
        accounts.open(USER);
        accounts.open(USER);
        assert!(!accounts.update(USER, &mut a, Charge { unread: 60, unfinished: 1, awaited: 2, waits: 3 }));
        assert!(accounts.update(USER, &mut b, Charge { unread: 60, unfinished: 1, awaited: 2, waits: 3 }));
        assert_eq!(accounts.unread_excess(USER), 20);
        let less = Charge { unread: 40, ..b };
        assert!(!accounts.update(USER, &mut b, less));
        assert_eq!(accounts.connections(USER), 2);
        accounts.close(USER, 1, &mut a, false);
        accounts.close(USER, 2, &mut b, false);
        assert_eq!((accounts.connections(USER), accounts.usage.len()), (0, 0));
    }

    /// Whatever is begun, the sum stays under its bound and one message, and all come to their end.
    #[test]
    fn unfinished_messages_are_bounded_and_all_get_finished() {
        const LIMIT: usize = 1 << 20;
        const MESSAGE: usize = 300 << 10;
        const MOST: usize = 64 << 10;
        let mut accounts = Accounts::new(1, LIMIT);
        let mut charges = [Charge::default(); 20];
        let mut read = [0; 20];
        let mut finished = [false; 20];
        charges.iter().for_each(|_| accounts.open(USER));
        let mut rounds = 0;
        while finished.contains(&false) {
            rounds += 1;
            assert!(rounds < 1000, "nobody goes on");
            for at in 0..20 {
                if finished[at] {
                    continue;
                }
                read[at] += accounts.room(USER, at as u64, charges[at], read[at], MOST).min(MESSAGE - read[at]);
                if read[at] == MESSAGE {
                    (read[at], finished[at]) = (0, true);
                    accounts.finished(USER, at as u64);
                }
                accounts.update(USER, &mut charges[at], unfinished(read[at]));
                assert!(read.iter().sum::<usize>() <= LIMIT + MESSAGE + 20 * SMALL_BYTES);
            }
        }
        // One that has begun a message and does not go on leaves room for what is small.
        accounts.update(USER, &mut charges[0], unfinished(LIMIT));
        assert_eq!(accounts.room(USER, 1, charges[1], SMALL_BYTES, MOST), MOST, "one is let through");
        assert_eq!(accounts.room(USER, 2, charges[2], SMALL_BYTES, MOST), 0);
        assert_eq!(accounts.room(USER, 3, charges[3], 0, MOST), SMALL_BYTES);
        accounts.hold_back(USER, true);
        assert!(!accounts.may_go_on(USER, MOST));
        accounts.finished(USER, 1);
        assert!(accounts.may_go_on(USER, MOST));
        accounts.hold_back(USER, false);
    }

    #[test]
    fn answers_that_are_due_are_bounded_per_connection_and_per_user() {
        let mut accounts = Accounts::new(1, 1);
        let held = |awaited, waits| Charge { awaited, waits, ..Charge::default() };
        accounts.open(USER);
        let refused =
            |accounts: &Accounts, held, wait| accounts.check_awaited(USER, Charge::default(), held, wait).err();
        assert_eq!(refused(&accounts, held(AWAITED_MAX - 1, WAITS_MAX - 1), true), None);
        assert_eq!(refused(&accounts, held(0, WAITS_MAX), false), None, "a call is no wait");
        for (held, what) in [(held(AWAITED_MAX, 0), "65536 answers"), (held(0, WAITS_MAX), "1024 waits")] {
            let refused = refused(&accounts, held, true).unwrap();
            assert!(refused.reason == Refusal::MailboxFull && refused.detail.starts_with(what), "{refused:?}");
        }
        accounts.update(USER, &mut Charge::default(), held(AWAITED_PER_USER_MAX - 1, WAITS_PER_USER_MAX - 1));
        assert_eq!(refused(&accounts, Charge::default(), true), None);
        assert!(refused(&accounts, held(1, 0), false).unwrap().detail.contains("262144 answers are due to this user"));
        assert!(refused(&accounts, held(0, 1), true).unwrap().detail.contains("4096 waits of this user"));
    }
}
