//! Places among the processes: there is a most of them, and who waits for one has it in turn.
//!
//! A worker has a place from its first message to the end of its last process, also while it waits for a start after
//! a death: so who is to be started again is not overtaken. The next of a line has the place of the one before it.

use alloc::boxed::Box;

use crate::effect::Effect;
use crate::registry::Core;
use crate::time::Instant;
use crate::worker::Life;

impl Core {
    /// Starts a process if one is wished for and its delay is over, as soon as it has a place among the processes.
    pub(crate) fn try_start(&mut self, now: Instant, index: u32) {
        let worker = &mut self.workers[index as usize];
        if self.stopping.is_some() || !worker.may_start() {
            if worker.life.is_none() {
                self.give_up_place(index);
                self.arm(index);
            }
            return;
        }
        if worker.place || self.take_place(index) {
            let worker = &self.workers[index as usize];
            if now >= worker.backoff_until {
                self.start_process(now, index);
            }
        }
        self.arm(index);
        self.touch(index);
    }

    /// A place that is kept from the first message to the end of the last process, so that who is to be started again
    /// after a death is not overtaken. Without a free one the worker queues.
    fn take_place(&mut self, index: u32) -> bool {
        let worker = &mut self.workers[index as usize];
        let free = self.places < self.limits.processes && (self.queued.is_empty() || worker.queued);
        if free {
            (worker.place, worker.queued) = (true, false);
            self.places += 1;
        } else if !worker.queued {
            worker.queued = true;
            let number = worker.identity.number;
            self.queued.push_back((index, number));
            // Those that are gone leave when there are more of them than of the others.
            if self.queued.len() > 2 * self.workers.len() + 64 {
                let workers = &self.workers;
                self.queued.retain(|(index, number)| {
                    let worker = workers.get(*index as usize);
                    worker.is_some_and(|worker| worker.queued && worker.identity.number == *number)
                });
            }
        }
        free
    }

    /// Once no process is there and none is wished for.
    pub(crate) fn give_up_place(&mut self, index: u32) {
        let worker = &mut self.workers[index as usize];
        if worker.place && worker.life.is_none() && !worker.may_start() {
            worker.place = false;
            self.places -= 1;
        }
        if worker.life.is_none() && self.idle.last() != Some(&index) {
            self.idle.push(index);
        }
    }

    /// Gives free places to those who wait for one, first come first served.
    pub(crate) fn start_queued(&mut self, now: Instant) {
        while self.places < self.limits.processes {
            let Some((index, number)) = self.queued.pop_front() else { return };
            let worker = self.workers.get_mut(index as usize);
            let Some(worker) = worker.filter(|worker| worker.identity.number == number) else { continue };
            match worker.may_start() {
                true => self.try_start(now, index),
                false => {
                    worker.queued = false;
                    self.idle.push(index);
                }
            }
        }
    }

    /// The only line that starts a process. The gate was looked at just before, in [`Worker::may_start`].
    fn start_process(&mut self, now: Instant, index: u32) {
        let worker = &mut self.workers[index as usize];
        worker.generation.0 += 1;
        worker.paused = false;
        worker.life = Some(Box::new(Life::new(now)));
        let process = worker.key(index);
        self.counters.spawned += 1;
        self.emit(Effect::Spawn { process });
    }
}
