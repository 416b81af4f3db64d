//! What workers and clients ask: each request becomes a call of the core, and its answer a message.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use workhall_core::{
    Call, CallReceipt, Event, Instant, Kill, KillMode, KillReceipt, Mark, Policy, ProcessKey, Refused, WorkerView,
};
use workhall_protocol::args::Payload;
use workhall_protocol::ids::{MessageId, Target};
use workhall_protocol::limits::PROTOCOL_VERSION;
use workhall_protocol::messages::{self, Accepted, Receipt, ReceiptBody, Ref, Reply, Request, Welcome};
use workhall_protocol::terms::Ignored;

use crate::clock::Clock;
use crate::config::{Class, Config};
use crate::connection::Peer;
use crate::event_loop::EventLoop;
use crate::report::{
    ClassLimits, Counts, DeadTotalsReport, ExitReport, LedgerReport, LimitsReport, MailboxReport, SenderReport,
    StatusReport, ViolationReport, WorkerInfo, WorkerRow,
};

/// What is asked of the supervisor as a whole, answered at the end of the turn.
#[derive(Debug)]
pub(crate) enum Question {
    List(Ref),
    Info(Ref, messages::Address<'static>),
    Status(Ref),
}

impl EventLoop {
    /// One message of a peer.
    pub(crate) fn request(&mut self, now: Instant, index: usize, request: Request<'_>) {
        let peer = self.connections[index].peer;
        match (request, peer) {
            (Request::Ready(ready), Peer::Worker { process, .. }) => self.ready(now, index, process, ready),
            (Request::Done(done), Peer::Worker { process, .. }) => {
                self.core.handle(now, Event::Done { process, id: MessageId(done.id), result: &done.result.0 });
            }
            (Request::Failed(failed), Peer::Worker { process, .. }) => {
                self.core.handle(now, Event::Failed { process, id: MessageId(failed.id), error: &failed.error });
            }
            (Request::Ready(_) | Request::Done(_) | Request::Failed(_), Peer::Client) => {
                let reason = "only a worker that the supervisor started says ready, done or failed";
                self.misunderstood(now, index, None, reason);
            }
            (Request::Call(call), _) => self.call(now, index, call),
            (Request::Kill(kill), _) => self.kill(now, index, kill),
            (Request::List(list), _) => self.ask_later(index, Question::List(list.reference)),
            (Request::Info(info), _) => {
                self.ask_later(index, Question::Info(info.reference, info.worker.into_owned()));
            }
            (Request::Status(status), _) => self.ask_later(index, Question::Status(status.reference)),
            (Request::Wait(wait), _) => {
                let reply = self.connections[index].reply_to(&wait.reference, false);
                self.receipt(index, wait.reference, ReceiptBody::Waiting {});
                let account = self.connections[index].account();
                self.core.wait(wait.worker.target(), wait.until, account, reply);
            }
            (Request::Dead(dead), _) => self.dead(now, index, dead),
            (Request::DeadShow(show), _) => self.dead_show(now, index, show),
            (Request::Requeue(letters), _) => self.requeue(now, index, letters),
            (Request::DeadDrop(letters), _) => self.dead_drop(now, index, letters),
            (Request::Resume(resume), _) => self.resume(now, index, resume),
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
        let connection = &mut self.connections[index];
        let from = match connection.peer {
            Peer::Worker { process, .. } => Some(process),
            Peer::Client => None,
        };
        if call.wait && call.reference.is_none() {
            return self.misunderstood(now, index, None, "a call with `wait` needs a `ref` for its outcome");
        }
        if !call.args.is_list() {
            return self.misunderstood(now, index, call.reference, "`args` is a list: a single argument is `[5]`");
        }
        let reply =
            call.reference.as_ref().filter(|_| call.wait).map(|reference| connection.reply_to(reference, false));
        let receipt = match broken {
            Some(reason) => {
                let detail = "a call before it in the chain was refused, or not understood";
                CallReceipt::Refused(Refused::new(reason, detail))
            }
            None => {
                let account = connection.account();
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
        let body = match receipt {
            CallReceipt::Accepted { number, message } => {
                let key = match call.worker.target() {
                    Target::Name(name) => name.to_string(),
                    Target::Number(_) => self.name_of(now, Target::Number(number)),
                };
                ReceiptBody::Accepted(Accepted { worker: key.into(), number: number.0, message: message.0 })
            }
            CallReceipt::Ignored(reason) => ReceiptBody::Ignored { reason },
            CallReceipt::Refused(refused) => ReceiptBody::Refused { reason: refused.reason, detail: refused.detail },
        };
        self.receipt(index, reference, body);
    }

    fn kill(&mut self, now: Instant, index: usize, kill: messages::Kill<'_>) {
        let connection = &mut self.connections[index];
        let target = match (&kill.worker, connection.peer) {
            (Some(address), _) => address.target(),
            // Rule K5: the current worker.
            (None, Peer::Worker { process, .. }) => Target::Number(process.number),
            (None, Peer::Client) => {
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
        let reply = kill.reference.as_ref().map(|reference| connection.reply_to(reference, kill.wait));
        let within = kill.within_ms.map(Duration::from_millis);
        let receipt = self.core.kill(now, Kill { target, mode, within, reply, wait: kill.wait });
        if let (KillReceipt::Ignored(reason), Some(reply), Some(reference)) = (receipt, reply, kill.reference) {
            self.connections[index].outcome_reference(reply.token);
            self.receipt(index, reference, ReceiptBody::Ignored { reason });
        }
    }

    fn list(&mut self, now: Instant, index: usize, reference: Ref) {
        let mut rows: Vec<WorkerRow> =
            self.core.workers(now).map(|view| WorkerRow::new(&view, self.pid(&view))).collect();
        rows.sort_unstable_by(|a, b| (&a.name, a.number).cmp(&(&b.name, b.number)));
        self.report(index, reference, &rows);
    }

    fn info(&mut self, now: Instant, index: usize, reference: Ref, target: Target<'_>) {
        let Some(view) = self.core.worker(now, target) else {
            return self.receipt(index, reference, ReceiptBody::Ignored { reason: Ignored::NoWorker });
        };
        let class = self.classes.get(view.class).cloned().or_else(|| self.config.class(view.class));
        let same_name = |other: &WorkerView<'_>| {
            other.identity.name == view.identity.name && other.identity.number != view.identity.number
        };
        let info = WorkerInfo {
            row: WorkerRow::new(&view, self.pid(&view)),
            startup_method: view.startup_method.map(str::to_string),
            mailbox: MailboxReport {
                bytes: view.bytes,
                messages_max: view.mailbox_messages,
                bytes_max: view.mailbox_bytes,
            },
            oldest_age_ms: view.oldest.map(millis),
            process_age_ms: view.process_age.map(millis),
            last_exit: view.exits().next().map(|exit| ExitReport::new(exit, now)),
            exits: view.exits().map(|exit| ExitReport::new(exit, now)).collect(),
            failures_in_a_row: view.failures_in_a_row,
            next_start_in_ms: view.next_start_in.map(millis),
            waits_for: view.waits_for.map(|_| self.names.holder(now, &view.identity.name)),
            queued: view.queued,
            violations: view.violations,
            last_violation: view.last_violations().next().map(|(_, words)| words.to_string()),
            last_violations: view
                .last_violations()
                .map(|(generation, words)| ViolationReport { generation: generation.0, said: words.to_string() })
                .collect(),
            limits: ClassLimits::new(view.policy()),
            exec: class.map(|class| class.exec.clone()).unwrap_or_default(),
            line: self.core.workers(now).filter(same_name).map(|other| other.identity.number.0).collect(),
        };
        self.report(index, reference, &info);
    }

    fn status(&mut self, now: Instant, index: usize, reference: Ref) {
        let (ledger, counters) = (self.core.ledger(), self.core.counters());
        let (limits, total_bytes_used) = self.core.limits();
        let (processes_used, processes_queued) = self.core.places();
        let dead = self.core.dead_totals();
        let mut senders: Vec<SenderReport> =
            self.core.charges().map(|(account, charge)| SenderReport::new(account, charge)).collect();
        senders.sort_unstable_by_key(|sender| (std::cmp::Reverse(sender.bytes), sender.user, sender.workers));
        let status = StatusReport {
            version: env!("CARGO_PKG_VERSION").to_string(),
            pid: std::process::id(),
            uptime_ms: Clock::since_start(now).as_millis() as u64,
            socket: self.socket.display().to_string(),
            config: self.config.file.as_ref().map(|file| file.display().to_string()),
            workers_dir: self.config.workers_dir().map(|dir| dir.display().to_string()),
            classes: self.config.classes().iter().map(|class| class.policy.class.to_string()).collect(),
            ledger: LedgerReport {
                accepted: ledger.accepted,
                done: ledger.done,
                failed: ledger.failed,
                discarded: ledger.discarded,
                expired: ledger.expired,
                dead: ledger.dead,
                pending: ledger.pending,
                running: ledger.running,
            },
            refused: counters.refused,
            ignored: counters.ignored,
            counts: Counts {
                workers: self.core.worker_count() as u64,
                processes: self.processes.len() as u64,
                clients: self.clients as u64,
                spawned: counters.spawned,
                stale: counters.stale,
                violations: counters.violations,
            },
            dead_letters: DeadTotalsReport { messages: dead.messages, bytes: dead.bytes, dropped: dead.dropped },
            senders,
            limits: LimitsReport {
                message_bytes: limits.message_bytes,
                total_bytes_used,
                total_bytes: limits.total_bytes,
                total_messages_used: ledger.pending + ledger.running,
                total_messages: limits.total_messages,
                sender_messages: limits.sender_messages,
                sender_bytes: limits.sender_bytes,
                workers: limits.workers.into(),
                processes_used: processes_used.into(),
                processes: limits.processes.into(),
                processes_queued: processes_queued as u64,
                dead_messages: limits.dead_messages,
                dead_bytes: limits.dead_bytes,
                connections: self.config.connections as u64,
                descriptors: self.descriptors,
            },
            process_tree: self.trees.name().to_string(),
            why_not_cgroup: self.trees.why().map(str::to_string),
            not_enforced: self.not_enforced.clone(),
            stopping: self.stopping,
        };
        self.report(index, reference, &status);
    }

    fn ask_later(&mut self, index: usize, question: Question) {
        let connection = &mut self.connections[index];
        connection.awaited += 1;
        self.questions.push((connection.key, question));
    }

    /// Answers the questions of this turn, once everything else that it brought is done.
    pub(crate) fn answer_questions(&mut self) {
        if self.questions.is_empty() {
            return;
        }
        self.learn_marks();
        let now = self.clock.now();
        for (key, question) in std::mem::take(&mut self.questions) {
            let Some(index) = self.connection(key) else { continue };
            self.connections[index].awaited -= 1;
            match question {
                Question::List(reference) => self.list(now, index, reference),
                Question::Info(reference, worker) => self.info(now, index, reference, worker.target()),
                Question::Status(reference) => self.status(now, index, reference),
            }
        }
    }

    /// How far the processes have come beyond what they have said. What they wrote before they set their
    /// marks is read after these were, and handled before they count: so a failure is not taken for done.
    fn learn_marks(&mut self) {
        let living = self.processes.iter().filter(|(_, process)| !process.reaped);
        let marks: Vec<_> =
            living.filter_map(|(_, process)| Some((process.key, process.connection?, process.page.marks()?))).collect();
        for (process, index, (begun, finished)) in marks {
            self.read_all(index);
            self.core.handle(self.clock.now(), Event::Marked { process, mark: Mark { begun, finished } });
            self.apply();
        }
    }

    fn pid(&self, view: &WorkerView<'_>) -> Option<i32> {
        let process = self.processes.get(view.slot? as usize)?;
        (process.key.number == view.identity.number && !process.reaped).then_some(process.pid)
    }

    fn name_of(&self, now: Instant, target: Target<'_>) -> String {
        self.core.worker(now, target).map(|view| view.identity.name.to_string()).unwrap_or_default()
    }

    pub(crate) fn report(&mut self, index: usize, reference: Ref, report: &impl serde::Serialize) {
        match Payload::encode(report) {
            Ok(payload) => self.receipt(index, reference, ReceiptBody::Report(payload)),
            Err(error) => {
                let detail = format!("the report cannot be made: {error}");
                let error = messages::Error { reference: Some(reference), detail: detail.into() };
                self.say(index, &Reply::Error(error));
            }
        }
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
    let policy = class.policy.clone();
    let known = classes.entry(policy.class.clone()).or_insert(class);
    Ok(known.policy.clone())
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
