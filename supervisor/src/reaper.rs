//! The end of processes: the exit status, and what was left behind.

use std::fs::File;
use std::io;

use workhall_core::{Event, Mark, ProcessKey};
use workhall_protocol::ids::MessageId;

use crate::event_loop::EventLoop;
use crate::name_lock::Look;
use crate::token::Token;
use crate::{process_tree, spawner, sys};

/// How many descriptors a sweep has open at a time, at most.
const RESERVED: usize = 4;

/// Descriptors that are kept open for the end of processes: who has none left could not see what is left of a
/// process, and so could not end it and get back those that it has.
#[derive(Debug)]
pub(crate) struct Reserve(Vec<File>);

impl Reserve {
    /// A full one.
    pub fn new() -> io::Result<Reserve> {
        let files = (0..RESERVED).map(|_| File::open("/dev/null"));
        Ok(Reserve(files.collect::<io::Result<_>>()?))
    }

    /// Makes room. Nothing but a sweep may open anything until it is filled again.
    pub(crate) fn release(&mut self) {
        self.0.clear();
    }

    fn fill(&mut self) {
        while self.0.len() < RESERVED {
            // The machine may have run out of them meanwhile: then the next sweep tries again.
            let Ok(file) = File::open("/dev/null") else { return };
            self.0.push(file);
        }
    }
}

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
        self.end_output(slot);
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
        self.start_failed(slot);
        self.core.handle(self.clock.now(), Event::Exited { process: key, exit, mark });
        self.apply();
    }

    /// Its launcher may have said why it never became its program.
    fn start_failed(&mut self, slot: usize) {
        let process = &self.processes[slot];
        let (key, Some((step, error))) = (process.key, process.page.launch_failure()) else { return };
        let around = self.surroundings(process.group.as_ref());
        let failed = self.class_of_process(key).and_then(|class| spawner::launch_failure(class, around, step, error));
        if let Some((stage, detail)) = failed {
            self.core.handle(self.clock.now(), Event::StartFailed { process: key, stage, detail: detail.into() });
        }
    }

    /// Ends what is left in the control group of a process that has ended. What cannot be done now is done again
    /// when the group changes, and whenever the core says so: until then the gate stays shut.
    pub(crate) fn end_tree(&mut self, slot: usize, repeated: bool) {
        let process = &mut self.processes[slot];
        let (true, Some(group)) = (process.reaped, &mut process.group) else { return };
        let watched = group.events().is_some();
        self.reserve.release();
        // Looked at in any case: the kernel tells of a change until it was.
        let killed = group.kill();
        let empty = group.is_populated().is_ok_and(|populated| !populated) && killed.is_ok();
        self.reserve.fill();
        match (empty, watched, group.events()) {
            // One who may move the supervisor's processes may have moved its own.
            (true, ..) => self.hunt_orphans_of(slot, repeated),
            (false, false, Some(events)) => {
                let token = Token::Tree { slot, serial: process.serial }.pack();
                let _else_by_the_repeated_sweep = self.poller.add_changes(events, token);
            }
            _ => {}
        }
    }

    /// Nothing is left that holds the lock of the name.
    fn forget_name(&self, key: ProcessKey) {
        if let Some(name) = self.core.name(key) {
            self.names.forget(self.names.place(name));
        }
    }

    /// At the end of the turn; `repeated`: some time has passed since the hunt before.
    pub(crate) fn hunt_orphans_of(&mut self, slot: usize, repeated: bool) {
        *self.hunted.entry(slot).or_default() |= repeated;
    }

    /// An adopted child has ended, perhaps one that keeps a gate shut.
    pub(crate) fn children_changed(&mut self) {
        self.reap_adopted = true;
        for slot in std::mem::take(&mut self.sweeping) {
            match self.processes[slot].group {
                Some(_) => self.end_tree(slot, false),
                None => self.hunt_orphans_of(slot, false),
            }
        }
    }

    /// Reaps what was adopted, and looks for what ended processes left behind. Once for all that a turn has brought:
    /// each look goes through all children.
    pub(crate) fn hunt(&mut self) {
        while std::mem::take(&mut self.reap_adopted) || !self.hunted.is_empty() {
            let leaders = &self.leaders;
            let is_leader = |pid: i32| leaders.contains(&pid);
            self.reserve.release();
            let orphans = process_tree::reap_adopted(is_leader);
            let (mut gone, mut look) = (Vec::new(), Look::new());
            for (slot, repeated) in std::mem::take(&mut self.hunted) {
                let Some(sweep) = &mut self.processes[slot].sweep else { continue };
                // Who holds a lock is looked for only if somebody does: that takes the longest.
                let look = sweep.place().filter(|place| !self.names.is_free(*place)).map(|_| &mut look);
                match matches!(orphans, Ok(0)) || sweep.pass(is_leader, &mut self.foreign, repeated, look) {
                    true => gone.push(slot),
                    false => drop(self.sweeping.insert(slot)),
                }
            }
            self.reserve.fill();
            for slot in gone {
                self.sweeping.remove(&slot);
                self.end_output(slot);
                // The kernel forgets the watch of its group with the descriptor.
                let process = self.processes.remove(slot);
                self.forget_name(process.key);
                self.core.handle(self.clock.now(), Event::TreeGone { process: process.key });
            }
            self.apply();
        }
    }
}
