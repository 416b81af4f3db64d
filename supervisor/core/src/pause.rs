//! Pause and resume (rules P4, D4): an operator has the process of a worker stopped and continued; its mailbox goes on
//! accepting.
//!
//! A paused worker is given no message, and no process is started for it. Its process is *halted*, unless it is about to
//! end: then it ends, and the next one waits for the resume. What is halted executes nothing, so no time limit runs:
//! at the resume they all go on where they were. What was posted with a time to live goes on ageing.
//!
//! A kill, a drain and the shutdown end the pause: who is to end must be able to hear it. So a worker that is being killed
//! cannot be paused either.
//!
//! The pause after too many crashes is another one ([`Worker::paused`]). A resume ends both.

use alloc::vec::Vec;
use core::time::Duration;

use workhall_protocol::ids::Target;
use workhall_protocol::terms::Ignored;

use crate::effect::Effect;
use crate::news::Change;
use crate::registry::Core;
use crate::time::Instant;
use crate::worker::{Goal, Life, UNSPAWNED, Worker};

impl Core {
    /// Pauses all workers of a name, or the worker with a number, until a resume (rule P4). One that is paused already
    /// stays so since then; one that is being killed is left alone.
    ///
    /// # Errors
    ///
    /// There is no such worker, or all of them are being killed.
    pub fn pause(&mut self, now: Instant, target: Target<'_>) -> Result<(), Ignored> {
        let line = self.line_of(target);
        self.now = now;
        let mut paused = Err(if line.is_empty() { Ignored::NoWorker } else { Ignored::Ending });
        for index in line {
            let worker = &mut self.workers[index as usize];
            if worker.goal == Goal::Down {
                continue;
            }
            paused = Ok(());
            if worker.suspended.is_some() {
                continue;
            }
            worker.suspended = Some(now);
            self.note(index, Change::Suspended);
            self.halt(index);
            // Nobody holds a place among the processes for as long as an operator likes.
            self.give_up_place(index);
            self.arm(index);
            self.touch(index);
        }
        self.finish_step();
        paused
    }

    /// Ends the pause, and the backoff or pause after crashes, of all workers of a name, or of the worker with a number
    /// (rules P4, D4). Returns whether there is such a worker.
    pub fn resume(&mut self, now: Instant, target: Target<'_>) -> bool {
        let line = self.line_of(target);
        self.now = now;
        for index in &line {
            let worker = &mut self.workers[*index as usize];
            let waited = worker.suspended.is_some() || worker.backoff_until > now;
            worker.failures.reset();
            worker.paused = false;
            worker.backoff_until = worker.backoff_until.min(now);
            if waited {
                self.note(*index, Change::Resumed);
            }
            self.try_start(now, *index);
            self.go_on(now, *index);
        }
        self.finish_step();
        !line.is_empty()
    }

    /// Whom a request means, awake: by name all of it, the newest first.
    fn line_of(&mut self, target: Target<'_>) -> Vec<u32> {
        let mut line = Vec::new();
        let mut at = self.find_awake(target);
        while let Some(index) = at {
            line.push(index);
            at = self.workers[index as usize].older.filter(|_| matches!(target, Target::Name(_)));
        }
        line
    }

    /// Stops the process of a worker that is paused, if it is one to be halted. One that the shell is starting in
    /// this very step is stopped as soon as it is there.
    pub(crate) fn halt(&mut self, index: u32) {
        let worker = &self.workers[index as usize];
        let halted = worker.life.as_ref().filter(|life| worker.is_halted(life));
        if let Some(slot) = halted.map(|life| life.slot).filter(|slot| *slot != UNSPAWNED) {
            let process = worker.key(index);
            self.emit(Effect::Pause { process, slot });
        }
    }

    /// A paused worker does again what it would have done.
    pub(crate) fn go_on(&mut self, now: Instant, index: u32) {
        if self.workers[index as usize].suspended.is_none() {
            return;
        }
        self.end_pause(now, index);
        let makes_place = |life: &Life| life.replaced && life.ready.is_some() && life.goes_on();
        if self.workers[index as usize].life.as_deref().is_some_and(makes_place) {
            self.ask_to_make_place(now, index);
        }
        self.arm(index);
        self.touch(index);
        self.try_start(now, index);
        self.pump(now, index);
    }

    /// The pause is over: its process goes on, or is about to be told to end.
    pub(crate) fn end_pause(&mut self, now: Instant, index: u32) {
        self.continue_halted(now, index);
        self.workers[index as usize].suspended = None;
    }

    /// Continues a halted process. What it may take of time is counted without the time of the pause.
    pub(crate) fn continue_halted(&mut self, now: Instant, index: u32) {
        let worker = &mut self.workers[index as usize];
        let process = worker.key(index);
        let Some(pause) = worker.suspended.map(|since| now.since(since)) else { return };
        if worker.is_attached() {
            return;
        }
        let Some(life) = worker.life.as_deref_mut().filter(|life| life.goes_on()) else { return };
        life.stood += pause;
        // What it had said before may have been read during the pause.
        life.since = life.since.after(pause).min(now);
        life.looked = life.looked.after(pause).min(now);
        let slot = life.slot;
        if slot != UNSPAWNED {
            self.emit(Effect::Continue { process, slot });
        }
    }
}

impl Worker {
    /// Whether this life of it executes nothing because an operator has paused it. One that is attached is not ours to
    /// stop: it is only given nothing.
    pub fn is_halted(&self, life: &Life) -> bool {
        self.suspended.is_some() && life.goes_on() && !self.is_attached()
    }

    /// For how long an operator has paused it.
    pub fn suspended_for(&self, now: Instant) -> Option<Duration> {
        self.suspended.map(|since| now.since(since))
    }

    /// The present of its life: for one that is halted, when that began.
    pub fn own_time(&self, life: &Life, now: Instant) -> Instant {
        self.suspended.filter(|_| self.is_halted(life)).unwrap_or(now)
    }
}

impl Life {
    /// It has not ended, and is not about to.
    fn goes_on(&self) -> bool {
        self.stop.is_none() && self.exit.is_none()
    }
}
