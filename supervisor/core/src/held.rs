//! A name that is still held (rule D7).
//!
//! The shell takes a lock of the kernel on the name before it starts a process, and the process's whole tree
//! keeps it. So a supervisor that follows one that was killed finds out which names still have a process that it
//! knows nothing of. To the core that is neither a start nor a crash: the generation is given back, the messages
//! wait, and after a short delay it tries again. Nothing else is different: the worker has no process, so a kill
//! ends it at once.

use alloc::boxed::Box;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::ProcessKey;
use crate::news::Change;
use crate::registry::Core;
use crate::time::Instant;
use crate::worker::Goal;

/// The delay after the first attempt; each further one doubles it.
const FIRST_DELAY: Duration = Duration::from_millis(10);
/// No delay is longer: so long a free name may go unnoticed.
const DELAY_MAX: Duration = Duration::from_millis(500);

/// The attempts since the name was last had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    attempts: u8,
    detail: Box<str>,
}

impl Held {
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Counts an attempt in vain and returns the delay before the next.
    fn count(&mut self) -> Duration {
        let delay = FIRST_DELAY.saturating_mul(1 << self.attempts).min(DELAY_MAX);
        self.attempts = (self.attempts + 1).min(6);
        delay
    }
}

impl Core {
    pub(crate) fn name_is_held(&mut self, now: Instant, process: ProcessKey, detail: Box<str>) {
        let Some(life) = self.life(process) else { return };
        debug_assert!(life.slot == u32::MAX && life.in_flight.is_empty(), "it was never started");
        let index = process.index;
        let worker = &mut self.workers[index as usize];
        worker.end_life();
        worker.generation.0 -= 1;
        self.counters.spawned -= 1;
        let drained = worker.goal == Goal::Drain && worker.messages() == 0;
        if worker.goal == Goal::Down || drained || self.stopping.is_some() {
            return self.remove(now, index, None);
        }
        let first = worker.held.is_none();
        let held = worker.held.get_or_insert_with(|| Box::new(Held { attempts: 0, detail: Box::default() }));
        held.detail = detail;
        worker.backoff_until = now.after(held.count());
        if first {
            self.note(index, Change::Held);
        }
        self.give_up_place(index);
        self.arm(index);
        self.touch(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d07_the_delays_between_attempts_grow_to_a_bound() {
        let mut held = Held { attempts: 0, detail: Box::default() };
        let delays: [u128; 300] = core::array::from_fn(|_| held.count().as_millis());
        assert_eq!(delays[..8], [10, 20, 40, 80, 160, 320, 500, 500]);
        assert_eq!(delays[299], 500);
    }
}
