//! The end of processes: the exit status, and what was left behind.

use workhall_core::{Event, Mark};
use workhall_protocol::ids::MessageId;

use crate::event_loop::EventLoop;
use crate::{process_tree, sys};

impl EventLoop {
    /// The kernel says that a process has ended. First everything that it had written is taken in: so no
    /// settlement is lost, and the charge falls on the right message.
    pub(crate) fn process_ended(&mut self, slot: usize) {
        let process = &self.processes[slot];
        let (key, pid) = (process.key, process.pid);
        // It is not reaped yet, so the number of its group cannot be another's.
        sys::kill_group(pid);
        let now = self.clock.now();
        if process.connection.is_some() {
            // From here on it is given nothing more, whatever it still has to say.
            self.core.handle(now, Event::Disconnected { process: key });
            self.apply();
        }
        if let Some(index) = self.processes[slot].connection {
            // A child that has inherited the connection could else go on writing without an end.
            sys::end_input(self.connections[index].stream());
            self.read_all(index);
        }
        let exit = match sys::reap(&self.processes[slot].pidfd) {
            Ok(Some(exit)) => exit,
            Ok(None) => return,
            // Nobody else reaps our children; should it happen the status is unknown, but not the end.
            Err(_) => workhall_protocol::terms::Exit::Signal(0),
        };
        let process = &mut self.processes[slot];
        process.reaped = true;
        self.leaders.remove(&pid);
        let _open = self.poller.remove(&process.pidfd);
        if let Some(index) = process.connection.take() {
            let (_, unwritten_task) = self.forget_connection(index);
            self.processes[slot].unwritten_task = unwritten_task;
        }
        let process = &self.processes[slot];
        let mark = match process.page.marks() {
            Some((begun, finished)) => Some(Mark { begun, finished }),
            // Without marks it may have begun all that it was sent, but nothing that could not even be written
            // to it whole.
            None => process
                .unwritten_task
                .map(|first| Mark { begun: MessageId(first.0.saturating_sub(1)), finished: MessageId(0) }),
        };
        self.core.handle(self.clock.now(), Event::Exited { process: key, exit, mark });
        self.apply();
    }

    /// Looks again for what ended processes left behind, and reaps what was adopted.
    pub(crate) fn sweep(&mut self) {
        let mut sweeping = std::mem::take(&mut self.sweeping);
        sweeping.retain(|slot| !self.sweep_pass(*slot, false));
        self.sweeping.append(&mut sweeping);
        process_tree::reap_adopted(|pid| self.leaders.contains(&pid));
        self.apply();
    }

    /// One pass for one process. Returns whether nothing is left of it.
    pub(crate) fn sweep_pass(&mut self, slot: usize, repeated: bool) -> bool {
        let Some(mut sweep) = self.processes[slot].sweep.take() else { return false };
        let gone = sweep.pass(|pid| self.leaders.contains(&pid), &mut self.foreign, repeated);
        self.processes[slot].sweep = Some(sweep);
        if gone {
            let process = self.processes.remove(slot);
            self.core.handle(self.clock.now(), Event::TreeGone { process: process.key });
        }
        gone
    }
}
