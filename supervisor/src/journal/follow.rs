//! Those who read what is kept, and what comes. Nothing is copied for them before they have room for it: each has a place
//! in the numbers, and is given what is there behind it when it has read what it was given before. What has left
//! meanwhile is counted, and said.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use workhall_protocol::args::Payload;
use workhall_protocol::ids::Target;
use workhall_protocol::messages::{
    Address, Events, Logs, News, Outcome, OutcomeBody, ReceiptBody, Ref, Reply, Request,
};
use workhall_protocol::terms::Refusal;

use super::Journal;
use super::events::EventReport;
use super::lines::{Line, Stream};
use super::store::{Kept, Store};
use crate::access::{Account, Allowed, Wish};
use crate::clock::Clock;
use crate::event_loop::EventLoop;
use workhall_core::Refused;

/// How many one user may have at a time. What leaves is looked at by all of them.
const FOLLOWERS_PER_USER_MAX: usize = 64;
/// With more unread than this a follower is given nothing, in bytes.
const UNREAD_BYTES: usize = 256 << 10;
/// About so much is told at once, in bytes.
const BATCH_BYTES: u64 = 64 << 10;
/// How many are looked at for one batch.
const SCAN_MAX: usize = 4096;

/// Of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum What {
    Lines,
    Events,
}

/// Of whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Whom {
    All,
    Name(Box<str>),
    Number(u64),
}

/// Which of what there is.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Filter {
    whom: Whom,
    /// Only of these classes; of all, if none.
    classes: Option<Vec<Box<str>>>,
    since_ms: u64,
}

/// One who reads. The next program of this supervisor goes on with it: fields are only ever added, with a default.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Follower {
    connection: NonZeroU64,
    account: Account,
    reference: Ref,
    what: What,
    filter: Filter,
    /// The number of the next to be told.
    at: u64,
    /// The number with which it ends; without one it follows.
    until: Option<u64>,
    lost: u64,
}

impl Follower {
    /// Something leaves that may not have been told.
    pub(super) fn loses(&mut self, what: What, at: u64, name: &str, item: &impl Kept) {
        let wanted = self.what == what && self.at <= at && self.until.is_none_or(|until| at < until);
        if wanted && self.filter.admits(name, item) {
            self.lost += 1;
        }
    }

    fn is_behind(&self, journal: &Journal) -> bool {
        let next = match self.what {
            What::Lines => journal.lines.next(),
            What::Events => journal.events.next(),
        };
        self.at < next.min(self.until.unwrap_or(u64::MAX)) || self.until.is_some() || self.lost > 0
    }

    /// What comes next, at most so much as is told at once; none if there is nothing.
    fn batch<T: Kept, R: Serialize>(
        &mut self,
        store: &Store<T>,
        row: impl Fn(u64, &str, &T) -> R,
    ) -> Option<Result<Payload<'static>, String>> {
        let (mut rows, mut bytes, mut seen) = (Vec::new(), 0, 0);
        let until = self.until.unwrap_or(u64::MAX).min(store.next());
        let at = std::mem::replace(&mut self.at, until);
        for (at, name, item) in self.filter.of(store, at).take_while(|(at, ..)| *at < until) {
            if bytes >= BATCH_BYTES || seen >= SCAN_MAX {
                self.at = at;
                break;
            }
            seen += 1;
            if self.filter.admits(name, item) {
                bytes += item.text_bytes() + name.len() as u64 + super::store::OVERHEAD_BYTES;
                rows.push(row(at, name, item));
            }
        }
        (!rows.is_empty() || self.lost > 0).then(|| Payload::encode(&rows).map_err(|error| error.to_string()))
    }
}

impl Filter {
    fn admits(&self, name: &str, item: &impl Kept) -> bool {
        let meant = match &self.whom {
            Whom::All => true,
            Whom::Name(wanted) => **wanted == *name,
            Whom::Number(number) => *number == item.number(),
        };
        let may = |classes: &Vec<Box<str>>| classes.iter().any(|class| **class == *item.class());
        meant && item.at_ms() >= self.since_ms && self.classes.as_ref().is_none_or(may)
    }

    fn is_all(&self) -> bool {
        matches!(self.whom, Whom::All) && self.classes.is_none()
    }

    fn of<'a, T: Kept>(
        &'a self,
        store: &'a Store<T>,
        at: u64,
    ) -> Box<dyn DoubleEndedIterator<Item = (u64, &'a str, &'a T)> + 'a> {
        match &self.whom {
            Whom::Name(name) => Box::new(store.of(name, at)),
            Whom::All | Whom::Number(_) => Box::new(store.from(at)),
        }
    }

    /// From which number on the last so many stand; and how many that are asked for have left before.
    fn begin<T: Kept>(&self, store: &Store<T>, last: Option<u64>) -> (u64, u64) {
        let dropped = || match &self.whom {
            Whom::All => store.totals().dropped,
            Whom::Name(name) => store.dropped_of(name),
            Whom::Number(_) => 0,
        };
        let all = self.classes.is_none() && self.since_ms == 0;
        match last {
            None => (0, if all { dropped() } else { 0 }),
            Some(0) => (store.next(), 0),
            Some(last) => {
                let last = usize::try_from(last).unwrap_or(usize::MAX);
                let mut wanted = self.of(store, 0).rev().filter(|(_, name, item)| self.admits(name, *item));
                (wanted.nth(last - 1).map_or(0, |(at, ..)| at), 0)
            }
        }
    }
}

/// One line of `workhall logs --json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LineReport {
    /// Lines are numbered from 1 in the order in which the supervisor has read them.
    pub seq: u64,
    /// In milliseconds since 1970.
    pub at_ms: u64,
    /// The worker's name.
    pub worker: String,
    /// Its number.
    pub number: u64,
    /// Which life wrote it.
    pub generation: u64,
    /// Its class.
    pub class: String,
    /// `stdout` or `stderr`.
    pub stream: Stream,
    /// The line goes on in the next one of this stream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// Without its newline. What is no UTF-8 was replaced.
    pub text: String,
}

impl LineReport {
    pub(super) fn new(seq: u64, name: &str, line: &Line) -> LineReport {
        let Line { at_ms, number, generation, class, stream, cut, text } = line;
        LineReport {
            seq,
            at_ms: *at_ms,
            worker: name.to_string(),
            number: *number,
            generation: *generation,
            class: class.to_string(),
            stream: *stream,
            cut: *cut,
            text: text.to_string(),
        }
    }
}

impl EventLoop {
    /// Somebody wants to read what is kept, and maybe what comes.
    pub(crate) fn follow(&mut self, index: usize, request: Request<'_>) {
        let (reference, what, worker, last, follow, since_ms) = match request {
            Request::Logs(Logs { reference, worker, last, follow }) => {
                (reference, What::Lines, worker, last, follow, None)
            }
            Request::Events(Events { reference, worker, last, follow, since_ms }) => {
                (reference, What::Events, worker, last, follow, since_ms)
            }
            _ => return,
        };
        let filter = match self.may_follow(index, worker.as_ref()) {
            Ok(classes) => Filter {
                whom: match worker {
                    None => Whom::All,
                    Some(Address::Name(name)) => Whom::Name(name.into()),
                    Some(Address::Number(number)) => Whom::Number(number),
                },
                classes,
                since_ms: since_ms.map_or(0, |ms| Clock::wall_ms().saturating_sub(ms)),
            },
            Err(refused) => {
                self.core.count_refused(refused.reason, None);
                let body = ReceiptBody::Refused { reason: refused.reason, detail: refused.detail };
                return self.receipt(index, reference, body);
            }
        };
        // What was written before the question is in the answer.
        let name = match &filter.whom {
            Whom::Name(name) => Some(&**name),
            _ => None,
        };
        self.read_outputs(name);
        let journal = &self.journal;
        let ((at, mut lost), next) = match what {
            What::Lines => (filter.begin(&journal.lines, last), journal.lines.next()),
            What::Events => (filter.begin(&journal.events, last), journal.events.next()),
        };
        if what == What::Events && last.is_none() && since_ms.is_none() && filter.is_all() {
            lost += journal.lost_events;
        }
        let connection = &mut self.connections[index];
        connection.awaited += 1;
        self.journal.followers.push(Follower {
            connection: connection.key,
            account: connection.peer.account(),
            reference: reference.clone(),
            what,
            filter,
            at,
            until: (!follow).then_some(next),
            lost,
        });
        self.receipt(index, reference, ReceiptBody::Waiting {});
    }

    /// Of which classes somebody may read; of all, if none. Lines and events may hold what only some may know.
    fn may_follow(&self, index: usize, worker: Option<&Address<'_>>) -> Result<Option<Vec<Box<str>>>, Refused> {
        let peer = self.connections[index].peer;
        if peer.process().is_some() {
            let detail = "a worker's own connection is for its tasks: connect to WORKHALL_SOCKET for this";
            return Err(Refused::new(Refusal::NotPermitted, detail));
        }
        let of_user = self.journal.followers.iter().filter(|follower| follower.account == peer.account()).count();
        if of_user >= FOLLOWERS_PER_USER_MAX {
            let detail = format!("{of_user} of this user read logs or events, which is the limit");
            return Err(Refused::new(Refusal::MailboxFull, detail));
        }
        let rights = &self.config.rights;
        if rights.check(self.own.uid, peer.creds(), Wish::Admin).is_ok() {
            return Ok(None);
        }
        let class = match worker.map(Address::target) {
            None => None,
            Some(Target::Name(name)) => self.config.class_of(name).ok(),
            Some(target) => self.core.class_of(target).and_then(|class| self.config.class(class)),
        };
        let check =
            |class: &str, list: Option<&Allowed>| rights.check(self.own.uid, peer.creds(), Wish::Read { class, list });
        if let Some(class) = &class {
            check(&class.policy.class, class.logs.as_ref())?;
        }
        let may = self.config.classes().iter().filter(|class| check(&class.policy.class, class.logs.as_ref()).is_ok());
        let classes: Vec<Box<str>> = may.map(|class| class.policy.class.clone()).collect();
        match classes.is_empty() {
            true => check("", None).map(|()| None),
            false => Ok(Some(classes)),
        }
    }

    /// Tells those who follow what they have room for.
    pub(crate) fn feed_followers(&mut self) {
        if self.journal.followers.is_empty() {
            return;
        }
        let mut followers = std::mem::take(&mut self.journal.followers);
        followers.retain_mut(|follower| self.feed(follower));
        self.journal.followers = followers;
    }

    /// Returns whether there may be more for it.
    fn feed(&mut self, follower: &mut Follower) -> bool {
        let Some(index) = self.connection(follower.connection) else { return false };
        while self.connections[index].unwritten() <= UNREAD_BYTES {
            let items = match follower.what {
                What::Lines => follower.batch(&self.journal.lines, LineReport::new),
                What::Events => follower.batch(&self.journal.events, EventReport::new),
            };
            let next = match follower.what {
                What::Lines => self.journal.lines.next(),
                What::Events => self.journal.events.next(),
            };
            if let Some(items) = items {
                let lost = std::mem::take(&mut follower.lost);
                let items = items.unwrap_or_else(|_| Payload::no_args());
                self.say(index, &Reply::News(News { reference: follower.reference.clone(), lost, items }));
            }
            match follower.until {
                Some(until) if follower.at >= until => {
                    self.connections[index].awaited -= 1;
                    let (reference, body) = (follower.reference.clone(), OutcomeBody::Reached {});
                    self.say(index, &Reply::Outcome(Outcome { reference, body }));
                    return false;
                }
                None if follower.at >= next => return true,
                _ => {}
            }
        }
        true
    }

    /// Whether somebody follows who has room for what there is.
    pub(crate) fn has_hungry_followers(&self) -> bool {
        self.journal.followers.iter().any(|follower| {
            let room = |index: usize| self.connections[index].unwritten() <= UNREAD_BYTES;
            follower.is_behind(&self.journal) && self.connection(follower.connection).is_some_and(room)
        })
    }

    /// A connection has gone.
    pub(crate) fn forget_followers(&mut self, connection: NonZeroU64) {
        self.journal.followers.retain(|follower| follower.connection != connection);
    }
}
