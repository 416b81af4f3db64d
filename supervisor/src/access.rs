//! Who may do what. Who a peer is comes from the kernel, what it may from the configuration.
//!
//! Names of users and groups became numbers when the configuration was read: nothing here looks anything up,
//! which could take long where users come over the network.

use serde::{Deserialize, Serialize};
use workhall_core::{AccountId, Refused};
use workhall_protocol::ids::WorkerNumber;
use workhall_protocol::terms::Refusal;

/// Who a process is to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Creds {
    /// The process that connected; it may have handed the connection on.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
}

/// On whose account something is: of one user, over all connections; or of one worker, whatever user its
/// process runs as. So a flood of clients takes nothing from workers, nor the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Account(u64);

impl Account {
    /// Above all numbers of users, which have 32 bits.
    const WORKER_BIT: u64 = 1 << 63;

    /// Of a user.
    pub const fn of_user(uid: u32) -> Account {
        Account(uid as u64)
    }

    /// Of a worker.
    pub fn of_worker(number: WorkerNumber) -> Account {
        Account(number.0 | Account::WORKER_BIT)
    }

    /// As the core knows it, which charges it for messages.
    pub fn id(self) -> AccountId {
        AccountId(self.0)
    }

    /// Whose an account of the core is.
    pub fn owner(id: AccountId) -> Owner {
        match id.0 & Account::WORKER_BIT {
            0 => Owner::User(id.0),
            _ => Owner::Worker(id.0 & !Account::WORKER_BIT),
        }
    }
}

/// Whose an account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Of the user with this number.
    User(u64),
    /// Of the worker with this number.
    Worker(u64),
}

/// A list of users and groups, as numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// Users that are named, and the members of the groups that are.
    pub users: Vec<u32>,
    /// Groups that are named: whoever has one of them as the primary group.
    pub groups: Vec<u32>,
}

impl Allowed {
    fn holds(&self, who: Creds) -> bool {
        self.users.contains(&who.uid) || self.groups.contains(&who.gid)
    }
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub enum Wish<'a> {
    /// Call a worker of a class, which has such a list or none.
    Call {
        /// The class.
        class: &'a str,
        /// Its `call`.
        list: Option<&'a Allowed>,
    },
    /// Read what a worker of a class wrote, and what happened to it.
    Read {
        /// The class; empty if it is any.
        class: &'a str,
        /// Its `logs`.
        list: Option<&'a Allowed>,
    },
    /// Be an attached worker of a class.
    Attach {
        /// The class.
        class: &'a str,
        /// Its `attach`.
        list: Option<&'a Allowed>,
    },
    /// Kill a worker.
    Kill,
    /// Change what there is beyond calls and kills.
    Admin,
}

/// What `[supervisor]` says of it.
#[derive(Clone, Debug, Default)]
pub struct Rights {
    /// Who may kill: everyone who may open the socket, if none.
    pub kill: Option<Allowed>,
    /// Who may administer: nobody else, if none.
    pub admin: Option<Allowed>,
}

impl Rights {
    /// Whether somebody may. Root and the supervisor's own user always may. The refusal says which list
    /// excludes whom, and nothing of whom it names.
    pub fn check(&self, own_uid: u32, who: Creds, wish: Wish<'_>) -> Result<(), Refused> {
        if is_master(own_uid, who) {
            return Ok(());
        }
        let (allowed, list) = match wish {
            Wish::Call { list, class } => {
                (list.is_none_or(|list| list.holds(who)), format_args!("`call` of class `{class}`").to_string())
            }
            Wish::Read { class, list } => {
                let may = list.is_some_and(|list| list.holds(who));
                let admin = self.admin.as_ref().is_some_and(|list| list.holds(who));
                let which = if class.is_empty() { "any class".to_string() } else { format!("class `{class}`") };
                (may || admin, format!("`logs` of {which}, nor in `admin` in [supervisor]"))
            }
            Wish::Attach { class, list } => {
                (list.is_some_and(|list| list.holds(who)), format!("`attach` of class `{class}`"))
            }
            Wish::Kill => (self.kill.as_ref().is_none_or(|list| list.holds(who)), "`kill` in [supervisor]".to_string()),
            Wish::Admin => {
                (self.admin.as_ref().is_some_and(|list| list.holds(who)), "`admin` in [supervisor]".to_string())
            }
        };
        match allowed {
            true => Ok(()),
            false => {
                let detail = format!("user {} (group {}) is not in {list}", who.uid, who.gid);
                Err(Refused::new(Refusal::NotPermitted, detail))
            }
        }
    }
}

/// Root and the supervisor's own user.
pub fn is_master(own_uid: u32, who: Creds) -> bool {
    who.uid == 0 || who.uid == own_uid
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 500;

    fn who(uid: u32, gid: u32) -> Creds {
        Creds { pid: 1, uid, gid }
    }

    #[test]
    fn a_list_lets_in_whom_it_names_and_the_masters_and_nobody_else() {
        let list = Allowed { users: vec![1000, 1001], groups: vec![33] };
        let none = Allowed::default();
        let rights = Rights { kill: Some(list.clone()), admin: None };
        for (uid, gid, in_list) in [
            (0, 0, true),
            (OWN, 7, true),
            (1000, 7, true),
            (1001, 7, true),
            (7, 33, true),
            (7, 7, false),
            (33, 0, false),
        ] {
            let master = uid == 0 || uid == OWN;
            let may = |wish| rights.check(OWN, who(uid, gid), wish).is_ok();
            assert_eq!(may(Wish::Kill), in_list, "{uid}");
            assert_eq!(may(Wish::Call { class: "a", list: Some(&list) }), in_list, "{uid}");
            assert!(may(Wish::Call { class: "a", list: None }), "no list is no bar");
            assert_eq!(may(Wish::Call { class: "a", list: Some(&none) }), master, "an empty list names nobody");
            assert_eq!(may(Wish::Attach { class: "a", list: Some(&list) }), in_list, "{uid}");
            assert_eq!(may(Wish::Attach { class: "a", list: None }), master, "without a list nobody else attaches");
            assert_eq!(may(Wish::Admin), master, "without a list nobody else administers");
        }
        assert!(Rights::default().check(OWN, who(7, 7), Wish::Kill).is_ok());
    }

    #[test]
    fn c04_the_refusal_says_which_list_excludes_whom() {
        let rights = Rights { kill: Some(Allowed::default()), admin: None };
        for (wish, detail) in [
            (Wish::Kill, "user 7 (group 8) is not in `kill` in [supervisor]"),
            (Wish::Admin, "user 7 (group 8) is not in `admin` in [supervisor]"),
            (
                Wish::Call { class: "web", list: Some(&Allowed::default()) },
                "user 7 (group 8) is not in `call` of class `web`",
            ),
        ] {
            let refused = rights.check(OWN, who(7, 8), wish).unwrap_err();
            assert_eq!((refused.reason, &*refused.detail), (Refusal::NotPermitted, detail));
        }
    }

    #[test]
    fn users_and_workers_have_accounts_of_their_own() {
        assert_ne!(Account::of_user(7), Account::of_worker(WorkerNumber(7)));
        assert_ne!(Account::of_user(7), Account::of_user(8));
        assert_ne!(Account::of_worker(WorkerNumber(7)), Account::of_worker(WorkerNumber(8)));
    }
}
