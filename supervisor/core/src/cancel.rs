//! A message that is not wanted any more: one that waits is discarded; of one that a process was given the process is told,
//! and nothing is interrupted.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use workhall_protocol::ids::{MessageId, WorkerNumber};
use workhall_protocol::terms::{Ignored, Refusal};

use crate::deadlines::Due;
use crate::effect::{Effect, Outcome};
use crate::event::{AccountId, ProcessKey};
use crate::ledger::Place;
use crate::mailbox::Message;
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
        if id.0 >= self.next_message {
            return Cancelled::Ignored(Ignored::NoMessage);
        }
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
                let life = worker.life.as_mut().expect("it has the message");
                let slot = life.slot;
                // Once: one that does not read is not told without end.
                if life.cancelled.insert(task) {
                    self.emit(Effect::Cancel { process, slot, id: task });
                }
                Cancelled::Told
            }
            false => {
                let message = worker.mailbox.remove(task).expect("was looked for above");
                self.discard(index, 1, core::iter::once(message.envelope()));
                self.cancelled(now, index)
            }
        }
    }

    /// A process says that it has not begun, and will not, what it was told is not wanted any more.
    pub(crate) fn dropped(&mut self, now: Instant, process: ProcessKey, id: MessageId) {
        let Some(life) = self.life(process) else { return };
        let is_next = life.in_flight.front().is_some_and(|front| front.task == id);
        if !is_next || !life.cancelled.contains(&id) {
            return self
                .violated(process.index, &format!("it dropped task {id}, which is not one that it may drop now"));
        }
        let message = life.in_flight.pop().expect("was seen above");
        let another = !life.in_flight.is_empty();
        (life.told, life.settled, life.since) = (id, id, now);
        life.cancelled.remove(&id);
        if !another && let Some(stop) = &mut life.stop {
            stop.idle_since.get_or_insert(now);
        }
        let outcome = Outcome::Discarded { may_have_run: message.may_have_run() };
        self.settle(process.index, message.envelope(), Place::Running, outcome);
        if another {
            self.ledger.begin();
        }
        self.pump(now, process.index);
        self.arm(process.index);
    }

    /// What a process was given and has not begun waits again, but for what is not wanted any more.
    pub(crate) fn give_back(&mut self, index: u32, messages: VecDeque<Message>) {
        let worker = &mut self.workers[index as usize];
        let number = worker.identity.number;
        let life = &mut worker.life;
        // What the process goes on with, if it does, keeps its own.
        let mut cancelled = |task: &MessageId| life.as_mut().is_some_and(|life| life.cancelled.remove(task));
        let (unwanted, wanted): (VecDeque<_>, VecDeque<_>) =
            messages.into_iter().partition(|message| cancelled(&message.task));
        let expiring = wanted.iter().filter(|message| message.expires != Instant::NEVER);
        let deadlines: Vec<_> = expiring.map(|message| (message.expires, message.task)).collect();
        worker.mailbox.put_back(wanted);
        for (at, task) in deadlines {
            self.push_deadline(at, Due::Message { index, number, task });
        }
        self.discard(index, unwanted.len() as u64, unwanted.iter().map(Message::envelope));
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
