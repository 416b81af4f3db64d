//! A message that is not wanted any more: one that waits is discarded; of one that a process was given the process is told,
//! and nothing is interrupted.

use alloc::format;

use serde::{Deserialize, Serialize};
use workhall_protocol::ids::{MessageId, WorkerNumber};
use workhall_protocol::terms::{Ignored, Refusal};

use crate::effect::Effect;
use crate::event::AccountId;
use crate::registry::{Core, Refused};
use crate::time::Instant;

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It was waiting, and is discarded.
    Discarded,
    /// A process has it, and is told.
    Told,
    /// No such message waits or is executed.
    Ignored(Ignored),
    /// The sender may not.
    Refused(Refused),
}

/// Where a message is that was posted for later.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Delayed {
    /// It waits for its time.
    Until { number: WorkerNumber, due: Instant },
    /// In its mailbox, or at a process, under this number.
    Task(MessageId),
}

impl Core {
    /// Cancels a message. `may` is asked whether the sender may, with the account that is charged for it. Looks at each
    /// worker that is not at rest, because nothing says where a message is.
    pub fn cancel(&mut self, now: Instant, id: MessageId, may: impl FnOnce(AccountId) -> bool) -> Cancelled {
        self.now = now;
        let cancelled = self.find_and_cancel(now, id, may);
        self.finish_step();
        cancelled
    }

    fn find_and_cancel(&mut self, now: Instant, id: MessageId, may: impl FnOnce(AccountId) -> bool) -> Cancelled {
        let refused = || {
            let detail =
                format!("message {id} was posted by another: who may not kill cancels only what he has posted");
            Cancelled::Refused(Refused::new(Refusal::NotPermitted, detail))
        };
        let task = match self.delayed.get(&id) {
            Some(&Delayed::Until { number, due }) => {
                let found = self.find_number(number).and_then(|index| {
                    let message = self.workers.get_mut(index as usize)?.mailbox.take_due(due, id)?;
                    Some((index, message))
                });
                let Some((index, message)) = found else { return Cancelled::Ignored(Ignored::NoMessage) };
                if !may(self.accounts.at(message.account)) {
                    self.workers[index as usize].mailbox.keep_until(due, message);
                    return refused();
                }
                self.discard(index, 1, core::iter::once(message.envelope()));
                return self.cancelled(now, index);
            }
            Some(Delayed::Task(task)) => *task,
            None => id,
        };
        let has = |(index, worker): (usize, &crate::worker::Worker)| {
            let given = worker.life.as_ref().and_then(|life| life.in_flight.get(life.in_flight.position(task)?));
            if let Some(message) = given {
                return (message.id == id).then_some((index as u32, true, message.account));
            }
            let message = worker.mailbox.envelope(task).filter(|message| message.id == id)?;
            Some((index as u32, false, message.account))
        };
        let Some((index, given, account)) = self.workers.iter().find_map(has) else {
            return Cancelled::Ignored(Ignored::NoMessage);
        };
        if !may(self.accounts.at(account)) {
            return refused();
        }
        let worker = &mut self.workers[index as usize];
        match given {
            true => {
                let process = worker.key(index);
                let slot = worker.life.as_ref().expect("it has the message").slot;
                self.emit(Effect::Cancel { process, slot, id: task });
                Cancelled::Told
            }
            false => {
                let message = worker.mailbox.remove(task).expect("was looked for above");
                self.discard(index, 1, core::iter::once(message.envelope()));
                self.cancelled(now, index)
            }
        }
    }

    /// The worker may have nothing left to do.
    fn cancelled(&mut self, now: Instant, index: u32) -> Cancelled {
        self.pump(now, index);
        if self.workers.contains(index as usize) {
            self.remove_if_drained(now, index);
        }
        Cancelled::Discarded
    }
}
