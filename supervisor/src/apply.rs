//! Effect to act: one exhaustive match, and nothing is decided here.

use std::borrow::Cow;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;

use tracing::debug;
use workhall_core::{Change, Effect, Event, KillReport, Mark, Outcome, ProcessKey, ReplyTo};
use workhall_protocol::args::Payload;
use workhall_protocol::messages::{self, Ask, OutcomeBody, Receipt, ReceiptBody, Reply, Sender, Steps, Task};
use workhall_protocol::terms::StartStage;

use crate::cgroup::Group;
use crate::clock::Clock;
use crate::config::Class;
use crate::connection::Peer;
use crate::event_loop::{EventLoop, Process};
use crate::log::log_news;
use crate::name_lock::{Noted, Place};
use crate::output::Output;
use crate::process_tree::Sweep;
use crate::spawner::{self, Surroundings};
use crate::sys;

impl EventLoop {
    /// Applies all that the core commands, and what follows from it. A look brings in what processes say, a kill perhaps:
    /// so looks come last, one by one, when nothing that was commanded is left to be done; and what they bring is
    /// applied here, not on the stack of each.
    pub(crate) fn apply(&mut self) {
        if std::mem::replace(&mut self.applying, true) {
            return;
        }
        loop {
            self.apply_commands();
            match self.looks.pop_front() {
                Some((process, slot)) => self.look(process, slot),
                None => break,
            }
        }
        self.applying = false;
    }

    /// Once, without what looks bring in: for who is called by such a look, and may not leave anything half done.
    pub(crate) fn apply_commands(&mut self) {
        while let Some(effect) = self.core.next_effect() {
            match effect {
                Effect::Spawn { process } => self.spawn(process),
                Effect::Deliver { process, slot, id } => self.deliver(process, slot, id),
                Effect::Ask { process, slot } => self.ask(process, slot),
                Effect::Look { process, slot } => self.looks.push_back((process, slot)),
                Effect::Pause { process, slot } => self.signal(process, slot, sys::pause),
                Effect::Continue { process, slot } => self.signal(process, slot, sys::resume),
                Effect::Term { process, slot } => self.signal(process, slot, sys::terminate),
                Effect::Kill { process, slot } => self.kill_tree(process, slot),
                Effect::Close { process, slot } => self.close_attached(process, slot),
                Effect::Sweep { process, slot } => self.begin_sweep(process, slot),
                Effect::Settled { reply, outcome } => self.outcome(reply, outcome_body(&outcome)),
                Effect::Killed { reply, discarded } => self.killed(reply, discarded),
                Effect::KillEnded { reply, report } => self.outcome(reply, kill_report(&report)),
                Effect::Reached { reply } => self.outcome(reply, OutcomeBody::Reached {}),
                Effect::SignalEnded { reply, end } => self.signal_ended(reply, &end),
                Effect::Cancel { process, slot, id } => self.tell_cancelled(process, slot, id),
                Effect::Stopped => self.stopped = true,
            }
        }
        self.take_news();
    }

    /// Writes down what has happened.
    fn take_news(&mut self) {
        while let Some(news) = self.core.next_news() {
            let ago = self.clock.now().since(news.at).as_millis() as u64;
            let pid = match news.what {
                Change::Exited { .. } => self.ended_pids.remove(&(news.worker.number, news.generation)),
                _ => None,
            };
            log_news(&news, pid);
            self.losses.note(&news, self.stopping);
            self.journal.note(Clock::wall_ms().saturating_sub(ago), news);
        }
        self.ended_pids.clear();
        let lost = self.core.take_lost_news();
        self.losses.have_lost(lost, self.stopping);
        self.journal.lost_events += lost;
    }

    /// Starts the main worker, if the configuration has one (rule W5).
    pub(crate) fn start_main(&mut self) {
        let Some(class) = self.config.classes().iter().find(|class| class.main).cloned() else { return };
        let name = workhall_protocol::ids::WorkerName::new(&class.policy.class).expect("the configuration was checked");
        let policy = class.policy.clone();
        self.classes.insert(policy.class.clone(), class);
        self.core.start(self.clock.now(), name, policy, true);
    }

    fn spawn(&mut self, key: ProcessKey) {
        let started = self.try_spawn(key);
        let now = self.clock.now();
        match started {
            Ok(slot) => self.core.handle(now, Event::Spawned { process: key, slot: slot as u32 }),
            Err(Unstarted::Failed((stage, detail))) => {
                self.core.handle(now, Event::SpawnFailed { process: key, stage, detail: detail.into() });
            }
            Err(Unstarted::Held(detail)) => {
                if detail == HOLDS {
                    self.look_after_earlier(key);
                }
                self.core.handle(now, Event::Held { process: key, detail: detail.into() });
            }
        }
    }

    fn try_spawn(&mut self, key: ProcessKey) -> Result<usize, Unstarted> {
        if self.core.policy(key).is_some_and(|policy| !self.starter.has_room(&policy.class)) {
            return Err(Unstarted::Held(NO_ROOM));
        }
        let (lock, place) = self.take_name(key)?;
        let class = self.core.policy(key).and_then(|policy| self.classes.get(&policy.class));
        let Some((name, class)) = self.core.name(key).zip(class) else { return Err(gone()) };
        let creds = class.runs_as();
        let group = self.trees.group(key, place, &class.settings);
        let group = group.map_err(|error| setup("cannot make its control group", &error))?;
        let around = Surroundings { socket: &self.socket, group: group.as_ref(), no_new_privs: self.no_new_privs };
        let spawned = spawner::spawn(&mut self.starter, class, name, key, around, lock)?;
        let (pid, serial) = (spawned.pid, self.take_serial());
        let process = Process {
            key,
            pid,
            pidfd: spawned.pidfd,
            page: spawned.page,
            page_fd: spawned.page_fd,
            serial,
            connection: None,
            unwritten_task: None,
            reaped: false,
            group,
            sweep: None,
            outputs: spawned.outputs,
        };
        // From here on it is watched: should its connection fail, its end is noticed like any other.
        let slot = self.add_process(process).map_err(|error| setup(&format!("cannot watch process {pid}"), &error))?;
        self.leaders.insert(pid);
        if let Some(name) = self.core.name(key) {
            let pipes = self.processes[slot].outputs.each_ref().map(|output| output.as_ref().map_or(0, Output::inode));
            self.names.note(name, Noted { pid, pipes });
            debug!(
                worker = name.as_str(),
                number = key.number.0,
                generation = key.generation.0,
                class = self.core.policy(key).map(|policy| &*policy.class),
                pid,
                "its process is started"
            );
        }
        if self.watch_outputs(slot).is_err() {
            sys::kill_group(pid);
        }
        match self.add_connection(spawned.stream, Peer::Worker { process: key, slot, creds }) {
            Ok(index) => self.processes[slot].connection = Some(index),
            Err(_) => sys::kill_group(pid),
        }
        Ok(slot)
    }

    /// The lock on the name of a worker and its place, once nothing of an earlier supervisor is in the way (rule D7).
    fn take_name(&mut self, key: ProcessKey) -> Result<(OwnedFd, Place), Unstarted> {
        let name = self.core.name(key).ok_or_else(gone)?;
        let lock = self.names.take(name).map_err(|error| setup("cannot lock its name", &error))?;
        let lock = lock.ok_or(Unstarted::Held(HOLDS))?;
        let place = self.names.place(name);
        match self.trees.end_left_behind(place) {
            Ok(true) => Ok((lock, place)),
            Ok(false) => Err(Unstarted::Held("what a process of an earlier supervisor left behind is being ended")),
            Err(error) => Err(setup("cannot end what an earlier supervisor left behind", &error).into()),
        }
    }

    fn deliver(&mut self, key: ProcessKey, slot: u32, id: workhall_protocol::ids::MessageId) {
        let connection = || self.process(key, slot).and_then(|process| process.connection);
        let Some(index) = self.attached(key, slot).or_else(connection) else { return };
        self.mark_dirty(index);
        let Some(message) = self.core.task(key, id) else { return };
        let task = Reply::Task(Task {
            id: id.0,
            method: Cow::Borrowed(message.method()),
            args: Payload(Cow::Borrowed(message.args())),
            from: message.from.as_ref().map(|from| Sender { worker: Cow::Borrowed(&from.name), number: from.number.0 }),
            wait: message.reply.is_some(),
        });
        if let Err(reason) = self.connections[index].say_task(&task, id) {
            // The arguments do not fit this worker's encoding: it never sees them.
            let error = format!("the message cannot be handed to its worker: {reason}");
            self.core.handle(self.clock.now(), Event::Undeliverable { process: key, id, error: &error });
        }
    }

    fn ask(&mut self, key: ProcessKey, slot: u32) {
        let mut mark = None;
        if let Some(process) = self.process(key, slot) {
            // First the flag, then the look at what has begun: so none can slip between.
            process.page.stop();
            mark = process.page.marks().map(|(begun, finished)| Mark { begun, finished });
            if let Some(index) = process.connection {
                self.say(index, &Reply::Kill(Ask {}));
            }
        }
        if let Some(index) = self.attached(key, slot) {
            self.say(index, &Reply::Kill(Ask {}));
        }
        self.core.handle(self.clock.now(), Event::Asked { process: key, mark });
    }

    /// What it wrote before it set its marks is read after these were, and handled before they count.
    fn look(&mut self, key: ProcessKey, slot: u32) {
        let Some(process) = self.process(key, slot).filter(|process| !process.reaped) else { return };
        // One that takes its promise to keep marks back has come nowhere.
        let (begun, finished) = process.page.marks().unwrap_or_default();
        if let Some(index) = process.connection {
            self.read_all(index);
        }
        self.core.handle(self.clock.now(), Event::Marked { process: key, mark: Mark { begun, finished } });
    }

    fn signal(&mut self, key: ProcessKey, slot: u32, send: fn(i32)) {
        if let Some(process) = self.process(key, slot).filter(|process| !process.reaped) {
            send(process.pid);
        }
    }

    fn kill_tree(&mut self, key: ProcessKey, slot: u32) {
        if let Some(process) = self.process(key, slot) {
            // Both: before a launcher has joined the group, it is alone in its process group.
            let _again_in_a_while = process.group.as_ref().map(Group::kill);
            self.signal(key, slot, sys::kill_group);
            self.kill_tracer(slot as usize);
        }
    }

    fn begin_sweep(&mut self, key: ProcessKey, slot: u32) {
        let Some(process) = self.process(key, slot) else { return };
        let (slot, repeated) = (slot as usize, process.sweep.is_some());
        self.make_sweep(slot);
        match self.processes[slot].group {
            Some(_) => self.end_tree(slot, repeated),
            None => self.hunt_orphans_of(slot, repeated),
        }
    }

    /// What is to know what a process has left behind.
    pub(crate) fn make_sweep(&mut self, slot: usize) {
        let process = &mut self.processes[slot];
        if process.sweep.is_none() {
            let place = self.core.name(process.key).map(|name| self.names.place(name));
            process.sweep = Some(Sweep::new(process.pid, process.key, &self.socket, place));
        }
    }

    pub(crate) fn outcome(&mut self, reply: ReplyTo, body: OutcomeBody<'_>) {
        let Some(index) = self.connection(reply.connection) else { return };
        if let OutcomeBody::Reached {} = body {
            self.connections[index].waits -= 1;
        }
        if let Some(reference) = self.connections[index].outcome_reference(reply.token) {
            self.say(index, &Reply::Outcome(messages::Outcome { reference, body }));
        }
    }

    fn killed(&mut self, reply: ReplyTo, discarded: u64) {
        let Some(index) = self.connection(reply.connection) else { return };
        if let Some(reference) = self.connections[index].receipt_reference(reply.token) {
            self.say(index, &Reply::Receipt(Receipt { reference, body: ReceiptBody::Killed { discarded } }));
        }
    }

    /// The connection that is to be answered, if it is still there.
    pub(crate) fn connection(&self, key: NonZeroU64) -> Option<usize> {
        let index = (key.get() & u64::from(u32::MAX)) as usize;
        self.connections.get(index).is_some_and(|connection| connection.key == key).then_some(index)
    }

    /// The class of a process.
    pub(crate) fn class_of_process(&self, key: ProcessKey) -> Option<&Class> {
        self.core.policy(key).and_then(|policy| self.classes.get(&policy.class)).map(|class| &**class)
    }

    /// What a process is started into.
    pub(crate) fn surroundings<'a>(&'a self, group: Option<&'a Group>) -> Surroundings<'a> {
        Surroundings { socket: &self.socket, group, no_new_privs: self.no_new_privs }
    }

    pub(crate) fn process(&self, key: ProcessKey, slot: u32) -> Option<&Process> {
        self.processes.get(slot as usize).filter(|process| process.key == key)
    }
}

/// Why a name waits: who it is can be looked for.
pub(crate) const HOLDS: &str = "a process of an earlier supervisor still holds the name";
const NO_ROOM: &str = "too many processes, of its class or in all, do not come to execute their programs: does the file system of \
                       the program, or of the directory to start in, answer?";

/// Why there is no process.
enum Unstarted {
    /// Something is in the way; it is tried again soon.
    Held(&'static str),
    /// Stage and reason.
    Failed(spawner::Failed),
}

impl From<spawner::Failed> for Unstarted {
    fn from(failed: spawner::Failed) -> Unstarted {
        Unstarted::Failed(failed)
    }
}

fn setup(what: &str, error: &io::Error) -> spawner::Failed {
    (StartStage::Setup, spawner::failed(what, error))
}

fn gone() -> Unstarted {
    Unstarted::Failed((StartStage::Setup, "the worker or its class has gone".to_string()))
}

/// What came of a message, for who waits.
pub(crate) fn outcome_body(outcome: &Outcome) -> OutcomeBody<'_> {
    match outcome {
        Outcome::Done { result } if result.is_empty() => {
            OutcomeBody::Done { result: Payload(Cow::Borrowed(workhall_protocol::args::NIL)) }
        }
        Outcome::Done { result } => OutcomeBody::Done { result: Payload(Cow::Borrowed(result)) },
        Outcome::Failed { error } => OutcomeBody::Failed { error: Cow::Borrowed(error) },
        Outcome::Discarded { may_have_run } => OutcomeBody::Discarded { may_have_run: *may_have_run },
        Outcome::Expired { may_have_run } => OutcomeBody::Expired { may_have_run: *may_have_run },
        Outcome::Dead { reason, exit, may_have_run } => {
            OutcomeBody::Dead { reason: *reason, exit: *exit, may_have_run: *may_have_run }
        }
    }
}

fn kill_report(report: &KillReport) -> OutcomeBody<'_> {
    let millis = |duration: std::time::Duration| duration.as_millis() as u64;
    let [ask_ms, term_ms, kill_ms] = report.steps.map(|step| step.map(millis));
    OutcomeBody::Killed(messages::KillReport {
        worker: Cow::Borrowed(&report.worker),
        number: report.number.0,
        generation: report.generation.0,
        discarded: report.discarded,
        current: report.current,
        ended_by: report.ended_by,
        exit: report.exit,
        took_ms: millis(report.took),
        steps: Steps { ask_ms, term_ms, kill_ms },
    })
}
