//! What takes too long (rule D6), and what has had nothing to do for long (rule W6).

use crate::event::ProcessKey;
use crate::news::Change;
use crate::registry::Core;
use crate::stop::{Step, Stop};
use crate::time::Instant;

impl Core {
    /// The answer to Look is handled: is the task that took too long still the same?
    pub(crate) fn looked(&mut self, now: Instant, process: ProcessKey) {
        let index = process.index;
        let worker = self.workers.get_mut(index as usize).filter(|worker| worker.key(index) == process);
        let Some(worker) = worker else { return };
        let Some(mut life) = worker.life.take() else { return };
        life.looked = now;
        let asked = core::mem::take(&mut life.looking);
        let over = asked && worker.task_deadline(&life) <= now;
        worker.life = Some(life);
        match over {
            true => self.time_out(now, index),
            false => self.arm_earlier(index),
        }
    }

    /// Rule D6: the stop ladder runs. Its first step has no grace, because the process does not listen; but what was
    /// sent ahead must not begin any more, should the task end after all.
    pub(crate) fn time_out(&mut self, now: Instant, index: u32) {
        let worker = &mut self.workers[index as usize];
        let process = worker.key(index);
        let Some(life) = &mut worker.life else { return };
        life.timed_out = life.running();
        let (slot, unasked) = (life.slot, life.stop.is_none());
        if let Some(message) = life.timed_out {
            self.note(index, Change::TimedOut { message });
        }
        if unasked {
            self.ask(index, process, slot, true);
        }
        self.climb(now, index, Step::Term);
    }

    /// Rule W6: it has had nothing to do for long enough. What comes from here on waits for the next life.
    pub(crate) fn end_idle(&mut self, now: Instant, index: u32) {
        let worker = &mut self.workers[index as usize];
        let process = worker.key(index);
        let Some(life) = &mut worker.life else { return };
        life.idled = true;
        life.stop = Some(Stop::new(now, Step::Ask, false));
        let slot = life.slot;
        self.note(index, Change::Idle);
        self.ask(index, process, slot, true);
        self.arm(index);
        self.touch(index);
    }
}
