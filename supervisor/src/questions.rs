//! What is asked of the supervisor: who is there, how one is, how all is. Answered at the end of a turn.

use std::path::Path;
use std::time::Duration;

use workhall_core::{EndingView, Event, Instant, Mark, State, WorkerView};
use workhall_protocol::args::Payload;
use workhall_protocol::ids::Target;
use workhall_protocol::messages::{self, ReceiptBody, Ref, Reply};
use workhall_protocol::process::ProcessState;
use workhall_protocol::terms::{Ignored, Refusal};

use crate::access::{Wish, is_master};
use crate::apply::HOLDS;
use crate::cgroup::Group;
use crate::clock::Clock;
use crate::config::Class;
use crate::connection::QUESTIONS_MAX;
use crate::event_loop::EventLoop;
use crate::report::{
    AskerReport, ClassLimits, Counts, DeadTotalsReport, EndingReport, ExitReport, LimitsReport, MailboxReport,
    SenderReport, StatusReport, TreeReport, ViolationReport, WorkerInfo, WorkerRow, kept,
};

/// How many senders `status` names, the largest.
const SENDERS_MAX: usize = 100;

/// What is asked of the supervisor as a whole, answered at the end of the turn.
#[derive(Debug)]
pub enum Question {
    List(messages::List),
    Info(Ref, messages::Address<'static>),
    Status(Ref),
    /// It is looked for at each worker.
    Cancel(messages::Cancel),
}

impl EventLoop {
    fn list(&self, now: Instant) -> Result<Payload<'static>, String> {
        let mut rows: Vec<WorkerRow> = self.rows(now, 0).collect();
        rows.sort_unstable_by(|a, b| (&a.name, a.number).cmp(&(&b.name, b.number)));
        Payload::encode(&rows).map_err(|error| error.to_string())
    }

    /// Costs what the page has, however many workers there are.
    fn page(&self, now: Instant, after: Option<u64>, limit: Option<u64>) -> Result<Payload<'static>, String> {
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let first = after.map_or(Some(0), |after| u32::try_from(after).ok()?.checked_add(1));
        let rows: Vec<WorkerRow> = first.map(|first| self.rows(now, first).take(limit).collect()).unwrap_or_default();
        Payload::encode(&rows).map_err(|error| error.to_string())
    }

    fn rows(&self, now: Instant, first: u32) -> impl Iterator<Item = WorkerRow> {
        self.core.workers_from(now, first).map(|view| self.row(&view))
    }

    fn info(&mut self, now: Instant, index: usize, reference: Ref, target: Target<'_>) {
        let Some(view) = self.core.worker(now, target) else {
            return self.receipt(index, reference, ReceiptBody::Ignored { reason: Ignored::NoWorker });
        };
        let class = self.classes.get(view.class).cloned().or_else(|| self.config.class(view.class));
        let others = self.core.line(&view.identity.name).filter(|number| *number != view.identity.number);
        let line: Vec<u64> = others.map(|number| number.0).collect();
        let process = view.slot.and_then(|slot| self.processes.get(slot as usize));
        // The number of one that was reaped may be another's by now.
        let process = process.filter(|process| {
            process.key.number == view.identity.number && (!process.reaped || process.group.is_some())
        });
        let tree = process.map(|process| TreeReport::new(process.pid, process.group.as_ref().map(Group::dir)));
        let tree = tree.filter(|tree| !tree.processes.is_empty());
        let life = view.process_age.filter(|age| !age.is_zero());
        let cpu_ms = tree.as_ref().map(|tree| tree.cpu_ms);
        let info = WorkerInfo {
            row: self.row(&view),
            unique_id: format!("{:x}-{}-{}", self.clock.start_number(), view.identity.number.0, view.generation.0),
            cpu_ms,
            cpu_share: cpu_ms.zip(life).map(|(cpu_ms, life)| cpu_ms as f64 / 1000.0 / life.as_secs_f64()),
            state_ms: millis(view.state_age),
            why: why_not_running(&view, &line),
            ending: view.ending.map(|EndingView { step, age, next_in }| EndingReport {
                step,
                step_ms: millis(age),
                next_step_in_ms: next_in.map(millis),
            }),
            tree,
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
            waits_for: view.waits_for.map(|detail| match detail {
                HOLDS => self.names.holder(now, &view.identity.name),
                other => other.to_string(),
            }),
            queued: view.queued,
            violations: view.violations,
            last_violation: view.last_violations().next().map(|(_, words)| words.to_string()),
            last_violations: view
                .last_violations()
                .map(|(generation, words)| ViolationReport { generation: generation.0, said: words.to_string() })
                .collect(),
            limits: ClassLimits::new(view.policy(), class.as_ref().map(|class| &class.settings), |controller| {
                self.trees.why_not_limited(controller)
            }),
            from: class.as_ref().and_then(|class| self.source_of(class)),
            exec: class.map(|class| class.exec.clone()).unwrap_or_default(),
            line,
            outdated: view.outdated,
            retired: view.retired,
        };
        self.report(index, reference, &info);
    }

    /// The file that a class is from: the program, if it is one of the workers directory; none if the class is gone.
    fn source_of(&self, class: &Class) -> Option<String> {
        let program = || Some(Path::new(class.exec.first()?)).filter(|it| it.parent() == self.config.workers_dir());
        let file = self.config.file_of(&class.policy.class).or_else(program);
        file.map(|file| file.display().to_string())
    }

    fn status(&mut self, now: Instant, index: usize, reference: Ref) {
        let (ledger, counters) = (self.core.ledger(), self.core.counters());
        let (limits, total_bytes_used) = self.core.limits();
        let (processes_used, processes_queued) = self.core.places();
        let dead = self.core.dead_totals();
        let (logs, events) = kept(&self.journal);
        let mut senders: Vec<SenderReport> =
            self.core.senders().map(|(account, charge, signals)| SenderReport::new(account, charge, signals)).collect();
        senders.sort_unstable_by_key(|sender| {
            (std::cmp::Reverse((sender.bytes, sender.signals)), sender.user, sender.worker)
        });
        senders.truncate(SENDERS_MAX);
        let status = StatusReport {
            version: env!("CARGO_PKG_VERSION").to_string(),
            pid: std::process::id(),
            uptime_ms: Clock::since_start(now).as_millis() as u64,
            socket: self.socket.display().to_string(),
            config: self.config.file.as_ref().map(|file| file.display().to_string()),
            workers_dir: self.config.workers_dir().map(|dir| dir.display().to_string()),
            classes: self.config.classes().iter().map(|class| class.policy.class.to_string()).collect(),
            ledger: self.core.ledger(),
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
            logs,
            events,
            senders,
            limits: LimitsReport {
                message_bytes: limits.message_bytes,
                total_bytes_used,
                total_bytes: limits.total_bytes,
                total_messages_used: ledger.pending + ledger.running,
                total_messages: limits.total_messages,
                sender_messages: limits.sender_messages,
                sender_bytes: limits.sender_bytes,
                signals_used: self.core.signal_totals().0 as u64,
                sender_signals: limits.sender_signals,
                workers: limits.workers.into(),
                processes_used: processes_used.into(),
                processes: limits.processes.into(),
                processes_queued: processes_queued as u64,
                dead_messages: limits.dead_messages,
                dead_bytes: limits.dead_bytes,
                connections: self.config.connections as u64,
                connections_per_user: self.connection_limits().0 as u64,
                unread_bytes_per_user: self.config.unread_bytes as u64,
                unfinished_bytes_per_user: self.config.unfinished_bytes as u64,
                descriptors: self.descriptors,
            },
            process_tree: self.trees.name().to_string(),
            why_not_cgroup: self.trees.why().map(str::to_string),
            not_enforced: self.not_enforced.clone(),
            stopping: self.stopping,
            asker: self.asker(index),
        };
        self.report(index, reference, &status);
    }

    fn asker(&self, index: usize) -> AskerReport {
        let peer = self.connections[index].peer;
        let may = |wish| self.config.rights.check(self.own.uid, peer.creds(), wish).is_ok();
        AskerReport {
            uid: peer.creds().uid,
            gid: peer.creds().gid,
            connections: self.accounts.connections(peer.account()) as u64,
            connections_max: Some(match is_master(self.own.uid, peer.creds()) {
                true => self.config.connections,
                false => self.connection_limits().0,
            } as u64),
            may_kill: may(Wish::Kill),
            may_administer: may(Wish::Admin),
        }
    }

    pub(crate) fn ask_later(&mut self, index: usize, question: Question) {
        let connection = &mut self.connections[index];
        if connection.questions.len() >= QUESTIONS_MAX {
            let detail = format!("{QUESTIONS_MAX} questions wait for their answers, which is the limit");
            let body = ReceiptBody::Refused { reason: Refusal::MailboxFull, detail: detail.into() };
            let reference = match question {
                Question::List(list) => list.reference,
                Question::Info(reference, _) | Question::Status(reference) => reference,
                Question::Cancel(cancel) => cancel.reference,
            };
            return self.receipt(index, reference, body);
        }
        if connection.questions.is_empty() {
            self.asked.push(connection.key);
        }
        connection.awaited += 1;
        connection.questions.push_back(question);
    }

    /// Answers the questions of this turn, once everything else that it brought is done. Each answer is
    /// written before the next is made: what a client asks is small, what it is told may be large.
    pub(crate) fn answer_questions(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        self.learn_marks();
        let now = self.clock.now();
        let mut list = None;
        for key in std::mem::take(&mut self.asked) {
            let Some(index) = self.connection(key) else { continue };
            while let Some(question) = self.connections[index].next_question() {
                self.connections[index].awaited -= 1;
                match question {
                    Question::List(messages::List { reference, after: None, limit: None }) => {
                        // The same for all who ask in this turn.
                        let list = list.get_or_insert_with(|| self.list(now)).clone();
                        self.report_payload(index, reference, list);
                    }
                    Question::List(messages::List { reference, after, limit }) => {
                        let page = self.page(now, after, limit);
                        self.report_payload(index, reference, page);
                    }
                    Question::Info(reference, worker) => self.info(now, index, reference, worker.target()),
                    Question::Status(reference) => self.status(now, index, reference),
                    Question::Cancel(cancel) => self.cancel(now, index, &cancel),
                }
                // An error comes again when the connection is flushed, and is answered there.
                let _written = self.connections[index].flush(&mut self.spares);
            }
            if !self.connections[index].questions.is_empty() {
                self.stall(index);
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

    fn row(&self, view: &WorkerView<'_>) -> WorkerRow {
        let row = WorkerRow::new(view, self.pid(view));
        let waits = || self.core.waits_for_signal(self.connections.get(self.connection_of(view)?)?.key).then_some(());
        match view.state {
            State::Busy if waits().is_some() => {
                WorkerRow { state_number: ProcessState::WaitingForSignal.number(), ..row }
            }
            _ => row,
        }
    }

    /// The connection of its process.
    fn connection_of(&self, view: &WorkerView<'_>) -> Option<usize> {
        let slot = view.slot?;
        let process = || self.processes.get(slot as usize).filter(|process| process.key == view.process());
        self.attached(view.process(), slot).or_else(|| process()?.connection)
    }

    fn pid(&self, view: &WorkerView<'_>) -> Option<i32> {
        if let Some(index) = self.attached(view.process(), view.slot?) {
            return Some(self.connections[index].peer.creds().pid);
        }
        let process = self.processes.get(view.slot? as usize)?;
        (process.key.number == view.identity.number && !process.reaped).then_some(process.pid)
    }

    pub(crate) fn report(&mut self, index: usize, reference: Ref, report: &impl serde::Serialize) {
        self.report_payload(index, reference, Payload::encode(report).map_err(|error| error.to_string()));
    }

    fn report_payload(&mut self, index: usize, reference: Ref, report: Result<Payload<'_>, String>) {
        match report {
            Ok(payload) => self.receipt(index, reference, ReceiptBody::Report(payload)),
            Err(error) => {
                let detail = format!("the report cannot be made: {error}");
                let error = messages::Error { reference: Some(reference), detail: detail.into() };
                self.say(index, &Reply::Error(error));
            }
        }
    }
}

/// In one sentence, with what to do where there is something to be done.
fn why_not_running(view: &WorkerView<'_>, line: &[u64]) -> Option<String> {
    if view.slot.is_some() {
        return None;
    }
    let older = line.iter().find(|number| **number < view.identity.number.0);
    let last = view.exits().next().map(|exit| match (&exit.failure, exit.exit) {
        (Some(failure), _) => failure.to_string(),
        (None, Some(exit)) => exit.to_string(),
        (None, None) => "unknown".to_string(),
    });
    let last = last.map(|last| format!("; the last: {last}")).unwrap_or_default();
    let failures = view.failures_in_a_row;
    Some(match view.state {
        State::Paused if view.suspended.is_some() => "an operator has paused it: a resume continues it".to_string(),
        State::Paused => format!("{failures} lives ended badly, one after the other: it pauses{last}"),
        _ if older.is_some() => {
            format!("%{} of the same name is still ending", older.copied().unwrap_or_default())
        }
        _ if view.waits_for.is_some() => "its name is still held (see `waits_for`)".to_string(),
        State::Backoff => format!("{failures} lives ended badly, one after the other: the next one waits{last}"),
        _ if view.queued => "there are as many processes as may be (`max_processes` in [supervisor])".to_string(),
        _ if view.pending > 0 => "what is pending is for later".to_string(),
        _ => "nothing is to be done: the next call starts it".to_string(),
    })
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
