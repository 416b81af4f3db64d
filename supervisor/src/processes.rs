//! Processes that no call creates: those that execute one method, those that attach, and the workers that the configuration
//! keeps running (rules P1, P2, W5).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use workhall_core::{Instant, Policy, ProcessKey, Refused, Run, RunReceipt};
use workhall_protocol::ids::{Generation, Target, WorkerName};
use workhall_protocol::limits::PROTOCOL_VERSION;
use workhall_protocol::messages::{self, Accepted, ReceiptBody, Ref, Reply, Running, Welcome};
use workhall_protocol::terms::Refusal;

use crate::access::{Wish, is_master};
use crate::config::{Class, Config};
use crate::connection::Peer;
use crate::event_loop::EventLoop;

/// The core's index of an attached worker's process: its connection, with this bit. No slot of a process has it.
const ATTACHED_BIT: u32 = 1 << 31;

impl EventLoop {
    /// Rule P1.
    pub(crate) fn run_asked(&mut self, now: Instant, index: usize, run: messages::Run<'_>) {
        if run.wait && run.reference.is_none() {
            return self.misunderstood(now, index, None, "a run with `wait` needs a `ref` for its outcome");
        }
        if !run.args.is_list() {
            return self.misunderstood(now, index, run.reference, "`args` is a list: a single argument is `[5]`");
        }
        let admitted = self.admit_run(index, &run);
        let awaited = run.reference.as_ref().filter(|_| run.wait && admitted.is_ok());
        let reply = awaited.map(|reference| self.connections[index].reply_to(reference, false));
        let receipt = match admitted {
            Err(refused) => {
                self.core.count_refused(refused.reason, None);
                RunReceipt::Refused(refused)
            }
            Ok(class) => {
                let peer = self.connections[index].peer;
                let policy = keep_class(&mut self.classes, &class);
                let run = Run {
                    name: run.name.as_deref(),
                    unique: run.unique,
                    method: &run.method,
                    args: &run.args.0,
                    from: peer.process(),
                    account: peer.account().id(),
                    reply,
                };
                self.core.run(now, run, policy)
            }
        };
        if let (Some(reply), false) = (reply, matches!(receipt, RunReceipt::Accepted { .. })) {
            self.connections[index].outcome_reference(reply.token);
        }
        let Some(reference) = run.reference else { return };
        let body = match &receipt {
            RunReceipt::Accepted { name, number, message } => {
                let worker = Cow::Borrowed(name.as_str());
                ReceiptBody::Accepted(Accepted { worker, number: number.0, message: message.0 })
            }
            RunReceipt::Running { name, number } => {
                ReceiptBody::Running(Running { worker: Cow::Borrowed(name.as_str()), number: number.0 })
            }
            RunReceipt::Ignored(reason) => ReceiptBody::Ignored { reason: *reason },
            RunReceipt::Refused(refused) => {
                ReceiptBody::Refused { reason: refused.reason, detail: refused.detail.clone() }
            }
        };
        self.receipt(index, reference, body);
    }

    /// The class to run under, if the sender may: who may call its workers may.
    fn admit_run(&self, index: usize, run: &messages::Run<'_>) -> Result<Arc<Class>, Refused> {
        if run.wait {
            self.check_awaited(index, false)?;
        }
        let class = self.config.class_to_run(&run.class)?;
        let wish = Wish::Call { class: &class.policy.class, list: class.call.as_ref() };
        let creds = self.connections[index].peer.creds();
        self.config.rights.check(self.own.uid, creds, wish)?;
        // Who has a name is known by it to all that it calls: a name of another class is that class's to give.
        let name = run.name.as_deref().filter(|name| WorkerName::check(name).is_ok());
        if let Some((name, owner)) = name.and_then(|name| Some((name, self.config.class_of(name).ok()?)))
            && owner.policy.class != class.policy.class
            && !is_master(self.own.uid, creds)
        {
            let class = &owner.policy.class;
            let detail = format!("`{name}` is a name of class `{class}`: only a process of that class may have it");
            return Err(Refused::new(Refusal::NotPermitted, detail));
        }
        Ok(class)
    }

    /// Rule P2: the connection of a client becomes that of a worker.
    pub(crate) fn attach_asked(&mut self, now: Instant, index: usize, attach: messages::Attach<'_>) {
        let Peer::Client(creds) = self.connections[index].peer else {
            let reason = "a worker has a name already: `attach` is for the connection of a client, once";
            return self.misunderstood(now, index, attach.reference, reason);
        };
        if self.connections[index].awaited > 0 {
            let reason = "answers are due on this connection: `attach` on one of its own";
            return self.misunderstood(now, index, attach.reference, reason);
        }
        if attach.protocol != PROTOCOL_VERSION {
            let reason = format!("this supervisor speaks protocol {PROTOCOL_VERSION}, not {}", attach.protocol);
            return self.misunderstood(now, index, attach.reference, &reason);
        }
        let attached = self
            .admit_attached(index, &attach.worker)
            .inspect_err(|refused| self.core.count_refused(refused.reason, None))
            .and_then(|policy| self.core.attach(now, &attach.worker, policy, index as u32 | ATTACHED_BIT));
        let process = match attached {
            Ok(process) => process,
            Err(refused) => {
                // Who has asked for no answer is told all the same: there is nothing else to wait for.
                let reference = attach.reference.unwrap_or(Ref::Number(0));
                let body = ReceiptBody::Refused { reason: refused.reason, detail: refused.detail };
                return self.receipt(index, reference, body);
            }
        };
        let connection = &mut self.connections[index];
        connection.peer = Peer::Attached { process, creds };
        connection.greeted = true;
        let Generation(generation) = process.generation;
        let (worker, number) = (Cow::Borrowed(&*attach.worker), process.number.0);
        self.say(index, &Reply::Welcome(Welcome { protocol: PROTOCOL_VERSION, worker, number, generation }));
    }

    /// The policy of an attached worker of this name, if its user may have it. A name without a class is for root and the
    /// supervisor's own user.
    fn admit_attached(&mut self, index: usize, name: &str) -> Result<Arc<Policy>, Refused> {
        if let Err(error) = WorkerName::check(name) {
            return Err(Refused::new(Refusal::BadName, error.to_string()));
        }
        let creds = self.connections[index].peer.creds();
        let class = match self.config.class_of(name) {
            Ok(class) => class,
            Err(refused) if !is_master(self.own.uid, creds) => return Err(refused),
            Err(_) => {
                // It is none of those that are kept for processes, which may have one of the same name.
                self.check_free(name)?;
                return Ok(self.config.class_without_program(name).policy);
            }
        };
        let wish = Wish::Attach { class: &class.policy.class, list: class.attach.as_ref() };
        self.config.rights.check(self.own.uid, creds, wish)?;
        self.check_free(name)?;
        Ok(keep_class(&mut self.classes, &class))
    }

    /// Whether no process of an earlier supervisor has the name (rule D7).
    fn check_free(&self, name: &str) -> Result<(), Refused> {
        let ours = self.core.worker(self.clock.now(), Target::Name(name)).is_some_and(|view| view.slot.is_some());
        if !ours && !self.names.is_free(self.names.place(name)) {
            let detail = format!(
                "a process of an earlier supervisor still holds the name `{name}`: try again when it has ended"
            );
            return Err(Refused::new(Refusal::NameTaken, detail));
        }
        Ok(())
    }

    /// An attached worker gives its name back.
    pub(crate) fn leave_asked(&mut self, now: Instant, index: usize, leave: &messages::Leave) {
        match self.connections[index].peer {
            Peer::Attached { process, .. } => self.core.leave(now, process, leave.drain),
            _ => self.misunderstood(now, index, None, "only an attached worker leaves"),
        }
    }

    /// The connection by which the core's index of an attached worker is meant.
    pub(crate) fn attached(&self, key: ProcessKey, slot: u32) -> Option<usize> {
        let index = (slot & !ATTACHED_BIT) as usize;
        let connection = self.connections.get(index).filter(|_| slot & ATTACHED_BIT != 0)?;
        matches!(connection.peer, Peer::Attached { process, .. } if process == key).then_some(index)
    }

    /// Closes the connection of an attached worker, at the end of the turn: what was to be said to it is written as far as
    /// that goes.
    pub(crate) fn close_attached(&mut self, key: ProcessKey, slot: u32) {
        let Some(index) = self.attached(key, slot) else { return };
        let connection = &mut self.connections[index];
        connection.closing = true;
        // An error comes again when the connection is flushed, and is answered there.
        let _written = connection.flush(&mut self.spares);
        connection.drop_output();
        self.mark_dirty(index);
    }

    /// Sees that the workers are there which the configuration keeps running (rule W5). Returns, in one sentence each,
    /// which are not.
    pub(crate) fn keep_running(&mut self, now: Instant) -> Vec<String> {
        let boot: Vec<(WorkerName, Arc<Policy>)> =
            self.config.boot().map(|(name, class)| (name, keep_class(&mut self.classes, class))).collect();
        let taken = self.core.keep_running(now, &boot);
        let sentence = |name: WorkerName| {
            format!("`{name}` is not started at boot (`start`): somebody else has the name; reload when it has ended")
        };
        taken.into_iter().map(sentence).collect()
    }
}

/// The policy of a class, which is kept for the spawn.
pub(crate) fn keep_class(classes: &mut HashMap<Box<str>, Arc<Class>>, class: &Arc<Class>) -> Arc<Policy> {
    let known = classes.entry(class.policy.class.clone()).or_insert_with(|| class.clone());
    // One that was kept for workers that go on after a reload is not that of a new one.
    if !Arc::ptr_eq(known, class) && !known.is_same_as(class) {
        *known = class.clone();
    }
    known.policy.clone()
}

impl Config {
    /// The class of this name, whatever names its workers have, or the refusal that says which classes there are.
    pub(crate) fn class_to_run(&self, name: &str) -> Result<Arc<Class>, Refused> {
        let class = match self.class(name) {
            Some(class) => class,
            None => self.class_of(name)?,
        };
        if *class.policy.class != *name {
            let detail =
                format!("no class is called `{name}`: the workers of that name are of class `{}`", class.policy.class);
            return Err(Refused::new(Refusal::NoClass, detail));
        }
        class.check_program(name)?;
        Ok(class)
    }
}

impl Class {
    /// Whether a process can be started for a name of it.
    pub(crate) fn check_program(&self, name: &str) -> Result<(), Refused> {
        if !self.exec.is_empty() {
            return Ok(());
        }
        let class = &self.policy.class;
        let detail = format!(
            "class `{class}` has no program (`exec`): its workers are programs that attach, and none is attached as \
             `{name}` now, or it is leaving"
        );
        Err(Refused::new(Refusal::NoClass, detail))
    }
}
