//! What happened, for people: every change of a worker, and every end of a message but *done*.
//!
//! The shell takes what there is after each step. Nothing is noted where a task is done, so that costs nothing. What
//! nobody takes is bounded: the oldest leave, counted.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::time::Duration;

use workhall_protocol::ids::{Generation, MessageId};
use workhall_protocol::terms::{DeadReason, EndedBy, Exit, StartStage};

use crate::effect::Outcome;
use crate::event::KillMode;
use crate::mailbox::{Envelope, Identity};
use crate::policy::Policy;
use crate::registry::Core;
use crate::time::Instant;
use crate::worker::Worker;

/// How many are kept for the shell to take.
const KEPT_MAX: usize = 4096;
/// How much of a text is noted, in bytes.
const TEXT_BYTES_MAX: usize = 500;

/// Something that happened to a worker.
#[derive(Clone, Debug)]
pub struct News {
    /// When.
    pub at: Instant,
    /// To whom.
    pub worker: Arc<Identity>,
    /// What its class says.
    pub policy: Arc<Policy>,
    /// In which life; 0 before the first.
    pub generation: Generation,
    /// What.
    pub what: Change,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The worker was created.
    Created,
    /// Its process runs.
    Started,
    /// There is no process: a start has failed.
    NotStarted {
        /// How far it had come.
        stage: StartStage,
        /// Why.
        detail: Box<str>,
    },
    /// A process of an earlier supervisor still holds its name (rule D7).
    Held,
    /// Its process is ready.
    Ready,
    /// A process that somebody else has started has taken the name (rule P2).
    Attached,
    /// An attached worker gives its name back.
    Left {
        /// Once what is pending is executed.
        drain: bool,
    },
    /// The connection of an attached worker has ended unasked.
    Disconnected,
    /// Its process said something that it must not say.
    Violation {
        /// What.
        detail: Box<str>,
    },
    /// It was killed.
    Killed {
        /// How.
        mode: KillMode,
        /// How many messages were discarded at once.
        discarded: u64,
    },
    /// Its process is ended because it had nothing to do (rule W6).
    Idle,
    /// Its process is ended because its task took too long (rule D6).
    TimedOut {
        /// The task.
        message: MessageId,
    },
    /// Its process is asked to end after its current task, because its class has changed.
    Replaced,
    /// No class has its name any more: it executes what it has, and takes nothing new.
    Retired,
    /// It did not end by itself in time: SIGTERM or SIGKILL.
    Signalled {
        /// Which of both.
        step: EndedBy,
    },
    /// Its process has ended.
    Exited {
        /// How.
        exit: Exit,
        /// Which step of a kill, or of another end, it was that ended it; none if it ended by itself.
        ended_by: Option<EndedBy>,
        /// How far its start had come, if that is what failed.
        stage: Option<StartStage>,
        /// Why it failed, as far as is known.
        failure: Option<Box<str>>,
    },
    /// Its next process waits.
    Backoff {
        /// For so long.
        delay: Duration,
    },
    /// It has crashed too often (rule D4).
    Paused {
        /// It is tried again after so long.
        pause: Duration,
        /// How its last process ended, if there was one.
        exit: Option<Exit>,
        /// Why its last start failed, if it did.
        failure: Option<Box<str>>,
    },
    /// An operator has paused it (rule P4).
    Suspended,
    /// Somebody has ended its backoff or pause.
    Resumed,
    /// It is gone, and so is its process and all that this had started.
    Gone,
    /// Messages have ended, and are not done.
    Ended {
        /// The first of them.
        message: MessageId,
        /// How many, one after the other.
        count: u64,
        /// How.
        fate: Ending,
        /// Rule L2.
        may_have_run: bool,
    },
}

/// How a message ended that is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its method reported an error.
    Failed {
        /// The error.
        error: Box<str>,
    },
    /// Discarded by a kill.
    Discarded,
    /// Not started in time.
    Expired,
    /// A dead letter.
    Dead {
        /// Why.
        reason: DeadReason,
        /// How the process ended, if one had it.
        exit: Option<Exit>,
    },
}

/// What was not taken yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pile {
    news: VecDeque<News>,
    lost: u64,
}

impl Core {
    /// The next that happened. The shell takes all of them after each step, as far as it wants to know.
    pub fn next_news(&mut self) -> Option<News> {
        self.news.news.pop_front()
    }

    /// How many left because nobody had taken them; counts from here on anew.
    pub fn take_lost_news(&mut self) -> u64 {
        core::mem::take(&mut self.news.lost)
    }

    /// Notes something.
    pub(crate) fn note(&mut self, index: u32, what: Change) {
        let worker = &self.workers[index as usize];
        self.news.note(self.now, worker, what);
    }

    pub(crate) fn note_of(&mut self, worker: &Worker, what: Change) {
        self.news.note(self.now, worker, what);
    }

    /// Notes the end of a message. Many that end in one step in the same way are one.
    pub(crate) fn note_end(&mut self, index: u32, message: &Envelope, outcome: &Outcome) {
        let (fate, may_have_run) = match outcome {
            Outcome::Done { .. } => return,
            Outcome::Failed { error } => (Ending::Failed { error: beginning(error) }, true),
            Outcome::Discarded { may_have_run } => (Ending::Discarded, *may_have_run),
            Outcome::Expired { may_have_run } => (Ending::Expired, *may_have_run),
            Outcome::Dead { reason, exit, may_have_run } => {
                (Ending::Dead { reason: *reason, exit: *exit }, *may_have_run)
            }
        };
        let worker = &self.workers[index as usize];
        if let Some(last) = self.news.news.back_mut()
            && let Change::Ended { count, fate: known, may_have_run: ran, .. } = &mut last.what
            && last.at == self.now
            && last.worker.number == worker.identity.number
            && (&*known, *ran) == (&fate, may_have_run)
        {
            *count += 1;
            return;
        }
        self.news.note(self.now, worker, Change::Ended { message: message.id, count: 1, fate, may_have_run });
    }
}

impl Pile {
    fn note(&mut self, at: Instant, worker: &Worker, what: Change) {
        if self.news.len() == KEPT_MAX {
            self.news.pop_front();
            self.lost += 1;
        }
        let (identity, policy) = (worker.identity.clone(), worker.policy.clone());
        self.news.push_back(News { at, worker: identity, policy, generation: worker.generation, what });
    }
}

/// As much of a text as is noted.
pub(crate) fn beginning(text: &str) -> Box<str> {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].into()
}
