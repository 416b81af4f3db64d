//! Who waits for a state of a worker. A worker that nobody watches pays one look at a flag.

use alloc::vec::Vec;
use core::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use workhall_protocol::ids::{Target, WorkerName, WorkerNumber};
use workhall_protocol::terms::Until;

use crate::effect::Effect;
use crate::event::{AccountId, ReplyTo};
use crate::registry::Core;
use crate::worker::{Goal, Worker};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Watch {
    /// Only this worker, not all of its name.
    number: Option<WorkerNumber>,
    until: Until,
    /// Whose room is meant.
    account: AccountId,
    reply: ReplyTo,
}

impl Watch {
    pub fn is_for_room(&self) -> bool {
        self.until == Until::Room
    }
}

impl Core {
    /// Answers with [`Effect::Reached`] once it is so; at once if it is already, or if there is no
    /// such worker.
    pub fn wait(&mut self, target: Target<'_>, until: Until, account: AccountId, reply: ReplyTo) {
        self.watch(target, until, account, reply);
        self.rest_idle();
    }

    fn watch(&mut self, target: Target<'_>, until: Until, account: AccountId, reply: ReplyTo) {
        let Some(index) = self.find_awake(target) else { return self.emit(Effect::Reached { reply }) };
        let number = match target {
            Target::Name(_) => None,
            Target::Number(number) => Some(number),
        };
        let name = self.workers[index as usize].identity.name.clone();
        let watch = Watch { number, until, account, reply };
        if self.is_so(&name, watch) {
            return self.emit(Effect::Reached { reply });
        }
        let mut at = self.find_name(&name);
        while let Some(index) = at {
            let worker = &mut self.workers[index as usize];
            worker.watched = true;
            at = worker.older;
        }
        self.watches.entry(name).or_default().push(watch);
    }

    /// A connection is gone: nobody waits there any more, for a state or for the end of a kill. A worker that
    /// never ends would else keep all who ever killed it. For signals: [`Core::forget_signals`].
    pub fn forget_waits(&mut self, connection: NonZeroU64) {
        let workers = &mut self.workers;
        self.killed.retain(|index| {
            let killers = &mut workers[*index as usize].killers;
            killers.retain(|killer| killer.reply.connection != connection);
            !killers.is_empty()
        });
        let mut left = Vec::new();
        self.watches.retain(|name, watches| {
            watches.retain(|watch| watch.reply.connection != connection);
            if watches.is_empty() {
                left.push(name.clone());
            }
            !watches.is_empty()
        });
        for name in left {
            self.unwatch(&name);
        }
        self.rest_idle();
    }

    /// Nobody waits for this name any more.
    fn unwatch(&mut self, name: &WorkerName) {
        let mut at = self.find_name(name);
        while let Some(index) = at {
            let Some(worker) = self.workers.get_mut(index as usize) else { return };
            worker.watched = false;
            at = worker.older;
            self.idle.push(index);
        }
    }

    /// Looks at those who wait for the names that this step has touched.
    pub(crate) fn answer_watches(&mut self) {
        while let Some(name) = self.touched.pop() {
            let Some(mut watches) = self.watches.remove(&name) else { continue };
            let mut reached = Vec::new();
            watches.retain(|watch| {
                let so = self.is_so(&name, *watch);
                if so {
                    reached.push(watch.reply);
                }
                !so
            });
            match watches.is_empty() {
                true => self.unwatch(&name),
                false => drop(self.watches.insert(name, watches)),
            }
            for reply in reached {
                self.emit(Effect::Reached { reply });
            }
        }
    }

    fn is_so(&self, name: &WorkerName, watch: Watch) -> bool {
        let mut at = self.find_name(name);
        while let Some(index) = at {
            let worker = &self.workers[index as usize];
            let meant = watch.number.is_none_or(|number| number == worker.identity.number);
            if meant && !self.worker_is_so(worker, watch) {
                return false;
            }
            at = worker.older;
        }
        true
    }

    fn worker_is_so(&self, worker: &Worker, watch: Watch) -> bool {
        match watch.until {
            Until::Idle => worker.messages() == 0,
            Until::Empty => worker.messages() == worker.running(),
            Until::Gone => worker.life.is_none() && !worker.wants_process(),
            Until::Room => {
                let (own, limits) = (self.accounts.of(watch.account), &self.limits);
                worker.goal != Goal::Up
                    || worker.messages() <= worker.newest_policy().mailbox_messages / 2
                        && worker.charged <= worker.newest_policy().mailbox_bytes / 2
                        && own.messages <= limits.sender_messages / 2
                        && self.bytes_of(watch.account) <= limits.sender_bytes / 2
                        && self.ledger.pending + self.ledger.running <= limits.total_messages / 2
                        && self.bytes_in_all() <= limits.total_bytes / 2
            }
        }
    }
}
