//! What workers and clients ask: each request becomes a call of the core, and its answer a message.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use workhall_core::{Call, CallReceipt, Event, Instant, Kill, KillMode, KillReceipt, Policy, ProcessKey, Refused};
use workhall_protocol::ids::{MessageId, Target, WorkerName};
use workhall_protocol::limits::PROTOCOL_VERSION;
use workhall_protocol::messages::{self, Accepted, Receipt, ReceiptBody, Ref, Reply, Request, Welcome};

use crate::access::{Wish, is_master};
use crate::config::{Class, Config};
use crate::connection::Peer;
use crate::event_loop::EventLoop;
use crate::processes::keep_class;
use crate::questions::Question;

impl EventLoop {
    /// One message of a peer.
    pub(crate) fn request(&mut self, now: Instant, index: usize, request: Request<'_>) {
        let peer = self.connections[index].peer;
        match (request, peer.process()) {
            (Request::Ready(ready), Some(process)) => self.ready(now, index, process, ready),
            (Request::Done(done), Some(process)) => {
                self.core.handle(now, Event::Done { process, id: MessageId(done.id), result: &done.result.0 });
            }
            (Request::DoneAll(done), Some(process)) => {
                self.core.handle(now, Event::DoneAll { process, id: MessageId(done.id) });
            }
            (Request::Failed(failed), Some(process)) => {
                self.core.handle(now, Event::Failed { process, id: MessageId(failed.id), error: &failed.error });
            }
            (Request::Dropped(dropped), Some(process)) => {
                self.core.handle(now, Event::Dropped { process, id: MessageId(dropped.id) });
            }
            (
                Request::Ready(_) | Request::Done(_) | Request::DoneAll(_) | Request::Failed(_) | Request::Dropped(_),
                None,
            ) => {
                let reason = "only a worker says ready, done, done_all, failed or dropped";
                self.misunderstood(now, index, None, reason);
            }
            (Request::Call(call), _) => self.call(now, index, call),
            (Request::Kill(kill), _) => self.kill(now, index, kill),
            (Request::List(list), _) => self.ask_later(index, Question::List(list)),
            (Request::Info(info), _) => {
                self.ask_later(index, Question::Info(info.reference, info.worker.into_owned()));
            }
            (Request::Status(status), _) => self.ask_later(index, Question::Status(status.reference)),
            (Request::Wait(wait), _) => self.wait(index, wait),
            (request @ (Request::Logs(_) | Request::Events(_)), _) => self.follow(index, request),
            (Request::Run(run), _) => self.run_asked(now, index, run),
            (Request::Attach(attach), _) => self.attach_asked(now, index, attach),
            (Request::Leave(leave), _) => self.leave_asked(now, index, &leave),
            (Request::SignalNew(new), _) => self.new_signal(now, index, new),
            (Request::SignalSet(set), _) => self.set_signal(now, index, set),
            (Request::SignalTrigger(trigger), _) => self.trigger_signal(now, index, trigger),
            (Request::SignalWait(wait), _) => self.wait_for_signal(now, index, wait),
            (Request::SignalGet(get), _) => self.show_signal(now, index, get),
            (Request::SignalFree(free), _) => self.free_signal(now, index, free),
            (Request::Cancel(cancel), _) => self.ask_later(index, Question::Cancel(cancel)),
            (request, _) => self.administer(now, index, request),
        }
    }

    fn ready(&mut self, now: Instant, index: usize, process: ProcessKey, ready: messages::Ready) {
        if ready.protocol != PROTOCOL_VERSION {
            let reason = format!("this supervisor speaks protocol {PROTOCOL_VERSION}, not {}", ready.protocol);
            self.connections[index].closing = true;
            return self.misunderstood(now, index, None, &reason);
        }
        let name = self.core.name(process).cloned();
        if let (false, Some(name)) = (self.connections[index].greeted, name) {
            self.connections[index].greeted = true;
            let welcome = Welcome {
                protocol: PROTOCOL_VERSION,
                worker: Cow::Borrowed(&name),
                number: process.number.0,
                generation: process.generation.0,
            };
            self.say(index, &Reply::Welcome(welcome));
        }
        // Without the marks nobody knows how far it has come with what was sent ahead (rules K1, D2).
        let marked = matches!(self.connections[index].peer, Peer::Worker { slot, .. } if self.processes[slot].page.marks().is_some());
        let window = if marked { ready.window } else { 1 };
        self.core.handle(now, Event::Ready { process, window, marked });
    }

    fn call(&mut self, now: Instant, index: usize, call: messages::Call<'_>) {
        let broken = self.connections[index].chain_broken.filter(|_| call.chain);
        if !call.chain {
            self.connections[index].chain_broken = None;
        }
        let from = self.connections[index].peer.process();
        if call.wait && call.reference.is_none() {
            return self.misunderstood(now, index, None, "a call with `wait` needs a `ref` for its outcome");
        }
        if call.brief && call.reference.is_none() {
            return self.misunderstood(now, index, None, "a `brief` call needs a `ref`: it may be refused");
        }
        if !call.args.is_list() {
            return self.misunderstood(now, index, call.reference, "`args` is a list: a single argument is `[5]`");
        }
        let admitted = match broken {
            Some(reason) => Err(Refused::new(reason, "a call before it in the chain was refused, or not understood")),
            None => self
                .check_call(index, &call)
                .inspect_err(|refused| self.core.count_refused(refused.reason, Some(call.worker.target()))),
        };
        let awaited = call.reference.as_ref().filter(|_| call.wait && admitted.is_ok());
        let reply = awaited.map(|reference| self.connections[index].reply_to(reference, false));
        let receipt = match admitted {
            Err(refused) => CallReceipt::Refused(refused),
            Ok(()) => {
                let account = self.connections[index].peer.account().id();
                let (config, classes) = (&self.config, &mut self.classes);
                let core_call = Call {
                    target: call.worker.target(),
                    method: &call.method,
                    args: &call.args.0,
                    from,
                    existing: call.existing,
                    expires: call.expires_ms.map(Duration::from_millis),
                    after: call.in_ms.map(Duration::from_millis),
                    account,
                    reply,
                };
                self.core.call(now, core_call, |name| policy_of(config, classes, name))
            }
        };
        if let (true, CallReceipt::Refused(refused)) = (call.chain, &receipt) {
            self.connections[index].chain_broken = Some(refused.reason);
        }
        if let (Some(reply), false) = (reply, matches!(receipt, CallReceipt::Accepted { .. })) {
            self.connections[index].outcome_reference(reply.token);
        }
        let Some(reference) = call.reference else { return };
        let target = call.worker.target();
        let body = match receipt {
            CallReceipt::Accepted { .. } if call.brief => {
                if !call.wait {
                    let connection = &mut self.connections[index];
                    connection.accepted += 1;
                    connection.accepted_last = Some(reference);
                }
                return;
            }
            CallReceipt::Accepted { number, message } => {
                let worker = match target {
                    Target::Name(name) => Cow::Borrowed(name),
                    Target::Number(_) => Cow::Owned(self.name_of(now, target)),
                };
                ReceiptBody::Accepted(Accepted { worker, number: number.0, message: message.0 })
            }
            CallReceipt::Ignored(reason) => ReceiptBody::Ignored { reason },
            CallReceipt::Refused(refused) => ReceiptBody::Refused { reason: refused.reason, detail: refused.detail },
        };
        self.receipt(index, reference, body);
    }

    /// One receipt for the brief calls that were taken in together.
    pub(crate) fn say_accepted(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if let Some(reference) = connection.accepted_last.take() {
            let messages = std::mem::take(&mut connection.accepted);
            self.receipt(index, reference, ReceiptBody::AcceptedAll { messages });
        }
    }

    fn kill(&mut self, now: Instant, index: usize, kill: messages::Kill<'_>) {
        let target = match (&kill.worker, self.connections[index].peer.process()) {
            (Some(address), _) => address.target(),
            // Rule K5: the current worker.
            (None, Some(process)) => Target::Number(process.number),
            (None, None) => {
                let reason = "a kill without a worker means the worker that says it, and this is none: name one";
                return self.misunderstood(now, index, kill.reference, reason);
            }
        };
        if kill.wait && kill.reference.is_none() {
            return self.misunderstood(now, index, None, "a kill with `wait` needs a `ref` for its outcome");
        }
        if kill.drain && kill.now {
            return self.misunderstood(now, index, kill.reference, "`drain` and `now` exclude each other");
        }
        let mode = match (kill.drain, kill.now) {
            (true, _) => KillMode::Drain,
            (_, true) => KillMode::Now,
            _ => KillMode::Ladder,
        };
        if let Err(refused) = self.check_kill(index, target, kill.wait) {
            self.core.count_refused(refused.reason, Some(target));
            let Some(reference) = kill.reference else { return };
            let body = ReceiptBody::Refused { reason: refused.reason, detail: refused.detail };
            return self.receipt(index, reference, body);
        }
        let connection = &mut self.connections[index];
        let reply = kill.reference.as_ref().map(|reference| connection.reply_to(reference, kill.wait));
        let within = kill.within_ms.map(Duration::from_millis);
        let receipt = self.core.kill(now, Kill { target, mode, within, reply, wait: kill.wait });
        if let (KillReceipt::Ignored(reason), Some(reply), Some(reference)) = (receipt, reply, kill.reference) {
            self.connections[index].outcome_reference(reply.token);
            self.receipt(index, reference, ReceiptBody::Ignored { reason });
        }
    }

    fn wait(&mut self, index: usize, wait: messages::Wait<'_>) {
        if let Err(refused) = self.check_awaited(index, true) {
            let body = ReceiptBody::Refused { reason: refused.reason, detail: refused.detail };
            return self.receipt(index, wait.reference, body);
        }
        let connection = &mut self.connections[index];
        let reply = connection.reply_to(&wait.reference, false);
        connection.waits += 1;
        let account = connection.peer.account().id();
        self.receipt(index, wait.reference, ReceiptBody::Waiting {});
        self.core.wait(wait.worker.target(), wait.until, account, reply);
    }

    /// Whether the sender may call this worker, whether it exists or not. A name is judged by the class that it
    /// would have. A worker may always call itself.
    fn check_call(&self, index: usize, call: &messages::Call<'_>) -> Result<(), Refused> {
        if call.wait {
            self.check_awaited(index, false)?;
        }
        let peer = self.connections[index].peer;
        if is_master(self.own.uid, peer.creds())
            || !self.config.has_call_lists()
            || self.is_itself(peer, call.worker.target())
        {
            return Ok(());
        }
        let class = match call.worker.target() {
            // What is no name, or has no class, is refused as that.
            Target::Name(name) if WorkerName::check(name).is_ok() => self.config.class_of(name).ok(),
            Target::Name(_) => None,
            Target::Number(_) => self.core.class_of(call.worker.target()).and_then(|class| self.config.class(class)),
        };
        let Some(class) = class else { return Ok(()) };
        let wish = Wish::Call { class: &class.policy.class, list: class.call.as_ref() };
        self.config.rights.check(self.own.uid, peer.creds(), wish)
    }

    /// Whether the sender may administer.
    pub(crate) fn check_admin(&self, index: usize) -> Result<(), Refused> {
        self.config.rights.check(self.own.uid, self.connections[index].peer.creds(), Wish::Admin)
    }

    /// Whether the sender may kill. A worker may always kill itself: it could end anyway.
    fn check_kill(&self, index: usize, target: Target<'_>, wait: bool) -> Result<(), Refused> {
        let peer = self.connections[index].peer;
        let itself =
            matches!((peer.process(), target), (Some(process), Target::Number(number)) if process.number == number);
        if !itself {
            self.config.rights.check(self.own.uid, peer.creds(), Wish::Kill)?;
        }
        // A plain kill has its answer at once, and is never refused for what else is due.
        match wait {
            true => self.check_awaited(index, false),
            false => Ok(()),
        }
    }

    fn is_itself(&self, peer: Peer, target: Target<'_>) -> bool {
        match (peer.process(), target) {
            (None, _) => false,
            (Some(process), Target::Number(number)) => process.number == number,
            (Some(process), Target::Name(name)) => self.core.name(process).is_some_and(|own| **own == *name),
        }
    }

    /// Whether one more answer may be due.
    pub(crate) fn check_awaited(&self, index: usize, wait: bool) -> Result<(), Refused> {
        let connection = &self.connections[index];
        self.accounts.check_awaited(connection.peer.account(), connection.charged, connection.charge(), wait)
    }

    fn name_of(&self, now: Instant, target: Target<'_>) -> String {
        self.core.worker(now, target).map(|view| view.identity.name.to_string()).unwrap_or_default()
    }

    pub(crate) fn receipt(&mut self, index: usize, reference: Ref, body: ReceiptBody<'_>) {
        self.say(index, &Reply::Receipt(Receipt { reference, body }));
    }
}

/// The policy of a name, and its class kept for the spawn. A program of the workers directory is a class of the same
/// name each time.
pub(crate) fn policy_of(
    config: &Config,
    classes: &mut HashMap<Box<str>, Arc<Class>>,
    name: &str,
) -> Result<Arc<Policy>, Refused> {
    let class = config.class_of(name)?;
    class.check_program(name)?;
    Ok(keep_class(classes, &class))
}
