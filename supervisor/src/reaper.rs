//! The end of processes: the exit status, and what was left behind.

use std::fs::File;
use std::io;

use workhall_core::{Event, Mark};
use workhall_protocol::ids::MessageId;

use crate::cgroup::Group;
use crate::event_loop::{EventLoop, Process};
use crate::name_lock::Look;
use crate::process_tree::{Census, Foreign};
use crate::token::Token;
use crate::{spawner, sys};

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
        let exit = match sys::reap(&self.processes[slot].pidfd) {
            Ok(Some(exit)) => exit,
            Ok(None) => return self.is_traced(slot),
            // Nobody else reaps our children; should it happen the status is unknown, but not the end.
            Err(_) => workhall_protocol::terms::Exit::Signal(0),
        };
        self.end_output(slot);
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
        self.ended_pids.insert((key.number, key.generation), pid);
        self.core.handle(self.clock.now(), Event::Exited { process: key, exit, mark });
        self.apply();
    }

    /// It has ended, and another process that traces it keeps its exit status. Its pidfd would wake us for ever: it is
    /// looked at again when a child has ended, perhaps that one.
    fn is_traced(&mut self, slot: usize) {
        let process = &self.processes[slot];
        let _open = self.poller.remove(&process.pidfd);
        self.traced.insert(slot);
    }

    /// The tracer may be of its own tree: all of that is killed, and then it can be reaped.
    pub(crate) fn kill_tracer(&mut self, slot: usize) {
        if self.traced.contains(&slot) {
            self.make_sweep(slot);
            self.hunt_orphans_of(slot, true);
        }
    }

    /// It may have said why it never became its program.
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
        let process = &self.processes[slot];
        // One who may move the supervisor's processes may have moved its own.
        if process.reaped && process.group.is_some() && self.end_group(slot) {
            self.hunt_orphans_of(slot, repeated);
        }
    }

    /// Ends what is in the control group of a process, if it has one. Returns whether nothing is; else the group is
    /// watched.
    fn end_group(&mut self, slot: usize) -> bool {
        let process = &mut self.processes[slot];
        let Some(group) = &mut process.group else { return true };
        let watched = group.events().is_some();
        let mut emptied = group.end();
        if emptied.as_ref().is_err_and(|error| sys::shortage(error).is_some()) {
            self.reserve.release();
            emptied = group.end();
            self.reserve.fill();
        }
        let empty = emptied.unwrap_or(false);
        if let (false, false, Some(events)) = (empty, watched, group.events()) {
            let token = Token::Tree { slot, serial: process.serial }.pack();
            let _else_by_the_repeated_sweep = self.poller.add_changes(events, token);
        }
        empty
    }

    /// At the end of the turn; `repeated`: some time has passed since the hunt before.
    pub(crate) fn hunt_orphans_of(&mut self, slot: usize, repeated: bool) {
        *self.hunted.entry(slot).or_default() |= repeated;
    }

    /// An adopted child has ended, perhaps one that keeps a gate shut.
    pub(crate) fn children_changed(&mut self) {
        self.reap_adopted = true;
        for slot in std::mem::take(&mut self.traced) {
            self.process_ended(slot);
        }
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
            // Who has ended until now is seen by this look, and by no other one.
            if self.child_signal.take() > 0 {
                self.children_changed();
                self.reap_adopted = false;
            }
            let leaders = &self.leaders;
            let take = |foreign: &mut Foreign| Census::take(|pid| leaders.contains(&pid), foreign);
            let mut census = take(&mut self.foreign);
            let (mut gone, mut look) = (Vec::new(), Look::new());
            if !census.found_nobody() {
                self.reserve.release();
            }
            if !census.is_complete() {
                census = take(&mut self.foreign);
            }
            for (slot, repeated) in std::mem::take(&mut self.hunted) {
                let process = &mut self.processes[slot];
                let Some(sweep) = &mut process.sweep else { continue };
                let ended = census.found_nobody() || {
                    // Who holds a lock is looked for only if somebody does: that takes the longest.
                    let held = sweep.place().filter(|place| !self.names.is_free(*place));
                    let lock = held.and_then(|place| self.names.file(place)).map(|file| (file, &mut look));
                    sweep.pass(&mut census, &mut self.foreign, repeated, lock)
                };
                match ended {
                    _ if !process.reaped => {}
                    true => gone.push(slot),
                    false => drop(self.sweeping.insert(slot)),
                }
            }
            self.reserve.fill();
            // One was to be hunted before it was reaped, and its group still has somebody: its change is awaited.
            gone.retain(|slot| self.end_group(*slot));
            self.trees_gone(gone);
        }
    }

    /// Nothing is left of these. What they had is tidied up behind what is started now, their successors perhaps.
    fn trees_gone(&mut self, slots: Vec<usize>) {
        let mut remains = Vec::with_capacity(slots.len());
        for slot in slots {
            self.sweeping.remove(&slot);
            self.end_output(slot);
            // The kernel forgets the watch of its group with the descriptor.
            let Process { key, group, .. } = self.processes.remove(slot);
            let place = self.core.name(key).map(|name| self.names.place(name));
            remains.push((place, group.map(Group::unwatched)));
            self.core.handle(self.clock.now(), Event::TreeGone { process: key });
        }
        self.apply();
        for (place, group) in remains {
            drop(group);
            if let Some(place) = place {
                self.names.forget(place);
            }
        }
    }
}
