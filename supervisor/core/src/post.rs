//! Calls: what may be posted, and to whom (rules C1–C13). And dead letters that are posted again.

use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use core::time::Duration;

use workhall_protocol::ids::{MessageId, Target, WorkerName};
use workhall_protocol::limits::METHOD_BYTES_MAX;
use workhall_protocol::terms::{Ignored, Refusal};

use crate::cancel::Delayed;
use crate::dead_letters::Letters;
use crate::deadlines::Due;
use crate::event::{AccountId, Call, CallReceipt};
use crate::kind::Kind;
use crate::mailbox::{Envelope, Identity, MESSAGE_OVERHEAD_BYTES, Posted};
use crate::policy::Policy;
use crate::registry::{Core, Refused};
use crate::time::Instant;
use crate::worker::Goal;

/// What became of a request to post dead letters again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requeued {
    /// How many are in a mailbox again, each as a new message (rule L1).
    pub requeued: u64,
    /// The id of the first of these; the others have the ids behind it.
    pub first: Option<MessageId>,
    /// Why the next one was refused: it and those behind it are dead letters as before.
    pub refused: Option<Refused>,
    /// How many those are.
    pub left: u64,
}

/// Whether a call may be accepted.
enum Admission {
    /// By this worker.
    By(u32),
    Ignored(Ignored),
}

impl Core {
    /// Posts a message (rules C1–C13). `class_of` is asked only if a worker is to be created.
    pub fn call(
        &mut self,
        now: Instant,
        call: Call<'_>,
        class_of: impl FnOnce(&str) -> Result<Arc<Policy>, Refused>,
    ) -> CallReceipt {
        self.now = now;
        let mut class = None;
        let class_of = |name: &str| class_of(name).inspect(|policy| class = Some(policy.clone()));
        let receipt = match self.admit(now, &call, class_of) {
            Ok(Admission::By(index)) => {
                let id = self.take_message_id();
                let startup = self.workers[index as usize].startup.as_ref().filter(|_| call.method.is_empty()).cloned();
                let mut posted = Posted::new(id, now, method_or(call.method, startup.as_deref()), call.args);
                posted.from = call.from.map(|from| self.workers[from.index as usize].identity.clone());
                posted.envelope.reply = call.reply;
                posted.envelope.expires = call.expires.map_or(Instant::NEVER, |expires| now.after(expires));
                self.accept(now, index, posted, call.account, call.after);
                CallReceipt::Accepted { number: self.workers[index as usize].identity.number, message: id }
            }
            Ok(Admission::Ignored(reason)) => {
                self.counters.ignored += 1;
                CallReceipt::Ignored(reason)
            }
            Err(refused) => {
                self.note_refused(&refused, call.target, class.as_deref());
                CallReceipt::Refused(refused)
            }
        };
        self.finish_step();
        receipt
    }

    /// Posts dead letters again, in the order in which they died, each as a new message to the same name (rule L1). The
    /// first that is refused ends it.
    pub fn requeue(
        &mut self,
        now: Instant,
        which: Letters<'_>,
        account: AccountId,
        mut class_of: impl FnMut(&str) -> Result<Arc<Policy>, Refused>,
    ) -> Requeued {
        self.now = now;
        let mut letters = self.dead_letters.take(which);
        let mut report = Requeued::default();
        while let Some(letter) = letters.front() {
            let name = letter.worker.name.clone();
            let call = Call {
                target: Target::Name(&name),
                method: letter.message.method(),
                args: letter.message.args(),
                from: None,
                existing: false,
                expires: None,
                after: None,
                account,
                reply: None,
            };
            match self.admit(now, &call, &mut class_of) {
                Ok(Admission::By(index)) => {
                    let letter = letters.pop_front().expect("there is a front");
                    let (id, message) = (self.take_message_id(), &letter.message);
                    let again = Posted::new(id, now, message.method(), message.args());
                    self.accept(now, index, Posted { from: message.from.clone(), ..again }, account, None);
                    report.requeued += 1;
                    report.first.get_or_insert(id);
                }
                Ok(Admission::Ignored(_)) => break,
                Err(refused) => {
                    self.count_refused(refused.reason, Some(Target::Name(&name)));
                    report.refused = Some(refused);
                    break;
                }
            }
        }
        report.left = letters.len() as u64;
        self.dead_letters.put_back(letters);
        self.finish_step();
        report
    }

    /// Finds, or creates, the worker that is to have the message; everything is checked before.
    fn admit(
        &mut self,
        now: Instant,
        call: &Call<'_>,
        class_of: impl FnOnce(&str) -> Result<Arc<Policy>, Refused>,
    ) -> Result<Admission, Refused> {
        if self.stopping.is_some() {
            return Err(Refused::new(Refusal::ShuttingDown, "the supervisor is stopping"));
        }
        self.check_size(call)?;
        let sender = match call.from {
            None => None,
            Some(process) => match self.workers.seat(process.index as usize) {
                Some(worker) if worker.number() == process.number => {
                    self.wake(process.index);
                    Some(process.index)
                }
                _ => return Ok(Admission::Ignored(Ignored::NoWorker)),
            },
        };
        let found = match call.target {
            Target::Name(name) => {
                let found = self.find_awake(call.target);
                // Who is found has a name that was checked.
                if found.is_none()
                    && let Err(error) = WorkerName::check(name)
                {
                    return Err(Refused::new(Refusal::BadName, error.to_string()));
                }
                if let Some(index) = found
                    && self.workers[index as usize].kind == Kind::Run
                {
                    let detail = format!(
                        "`{name}` is the name of a process that was started by `run`: it executes one method, and nobody \
                         can call it"
                    );
                    return Err(Refused::new(Refusal::NameTaken, detail));
                }
                if let Some(sender) = sender {
                    // Rule K9: known from the connection, not from what the message says.
                    let sender = &self.workers[sender as usize];
                    if sender.goal != Goal::Up && *sender.identity.name == *name {
                        return Ok(Admission::Ignored(Ignored::OwnKilledWorker));
                    }
                }
                found.filter(|index| self.workers[*index as usize].goal == Goal::Up)
            }
            Target::Number(_) => match self.find_awake(call.target) {
                None => return Ok(Admission::Ignored(Ignored::NoWorker)),
                // It names nobody who could be called.
                Some(index) if self.workers[index as usize].kind == Kind::Run => {
                    return Ok(Admission::Ignored(Ignored::NoWorker));
                }
                Some(index) if self.workers[index as usize].goal != Goal::Up => {
                    let own = sender == Some(index);
                    return Ok(Admission::Ignored(if own { Ignored::OwnKilledWorker } else { Ignored::Ending }));
                }
                found => found,
            },
        };
        match (found, call.target) {
            (Some(index), _) => {
                let worker = &self.workers[index as usize];
                if worker.retired {
                    let target = call.target;
                    let detail = format!(
                        "no class matches `{target}` since the configuration was changed: it executes what it has, and \
                         takes nothing new"
                    );
                    return Err(Refused::new(Refusal::NoClass, detail));
                }
                if call.method.is_empty() && worker.startup.is_none() {
                    return Ok(Admission::Ignored(Ignored::NoStartupMethod));
                }
                if worker.policy.crash_limit.refuse_calls && worker.is_paused(now) {
                    let wait = worker.backoff_until.since(now).as_secs() + 1;
                    let target = call.target;
                    let detail = format!(
                        "`{target}` crashed too often and pauses for {wait}s more; its class refuses calls meanwhile \
                         (`crash_limit`); `workhall resume` tries at once"
                    );
                    return Err(Refused::new(Refusal::CrashLoop, detail));
                }
                let method = method_or(call.method, worker.startup.as_deref());
                self.check_room(
                    worker.messages() - worker.running(),
                    worker.charged,
                    worker.newest_policy(),
                    method,
                    call,
                )?;
                let needs_one = worker.older.is_none() && !worker.place && worker.suspended.is_none();
                self.check_places(needs_one && !worker.is_attached(), call)?;
                Ok(Admission::By(index))
            }
            (None, Target::Name(name)) if !call.existing => {
                let policy = class_of(name)?;
                if call.method.is_empty() && policy.startup_method.is_none() {
                    return Ok(Admission::Ignored(Ignored::NoStartupMethod));
                }
                let method = method_or(call.method, policy.startup_method.as_deref());
                self.check_room(0, 0, &policy, method, call)?;
                self.check_places(self.find_name(name).is_none(), call)?;
                self.check_workers()?;
                let name = WorkerName::new(name).expect("was checked above");
                let number = self.take_number();
                let index = self.create(now, Identity { name, number }, policy);
                let worker = &mut self.workers[index as usize];
                worker.startup = worker.policy.startup_method.clone().or_else(|| Some(call.method.into()));
                Ok(Admission::By(index))
            }
            _ => Ok(Admission::Ignored(Ignored::NoWorker)),
        }
    }

    /// Nothing can fail any more: the message is charged, counted, and in the mailbox.
    pub(crate) fn accept(
        &mut self,
        now: Instant,
        index: u32,
        mut posted: Posted<'_>,
        account: AccountId,
        after: Option<Duration>,
    ) {
        let Envelope { id, expires, .. } = posted.envelope;
        let charge = posted.envelope.charge();
        posted.envelope.account = self.accounts.charge(account, charge);
        self.total_bytes += charge;
        self.ledger.accept();
        self.carry_signals(id, posted.args);
        let worker = &mut self.workers[index as usize];
        worker.charged += charge;
        self.stats.accept(worker.counted);
        let number = worker.identity.number;
        match after.filter(|after| !after.is_zero()) {
            // Its time to live is looked at when it enters the mailbox.
            Some(after) => {
                let due = now.after(after);
                worker.mailbox.keep_until(due, posted.into_message());
                self.push_deadline(due, Due::Later { index, number, id });
                self.delayed.insert(id, Delayed::Until { number, due });
                self.touch(index);
            }
            // It need not go by way of the mailbox.
            None if worker.mailbox.nothing_due() && worker.takes(now, &posted.envelope) => {
                let message = posted.into_message_in(self.bodies.take());
                self.deliver(now, index, message);
                self.touch(index);
                self.arm_timed(index);
            }
            // No process is started for it.
            None if expires <= now => self.expired(now, index, posted.into_message()),
            None => {
                worker.mailbox.post(posted);
                if expires != Instant::NEVER {
                    self.push_deadline(expires, Due::Message { index, number, task: id });
                }
                self.touch(index);
                self.try_start(now, index);
                self.pump(now, index);
            }
        }
    }

    /// Rule C13: a message that was posted for later enters the mailbox.
    pub(crate) fn enter(&mut self, now: Instant, due: Instant, index: u32, id: MessageId) {
        let worker = &mut self.workers[index as usize];
        let number = worker.identity.number;
        let Some(mut message) = worker.mailbox.take_due(due, id) else { return };
        if message.expires <= now {
            // No process is started for it.
            self.expired(now, index, message);
            return self.remove_if_drained(now, index);
        }
        let (task, expires) = (self.take_message_id(), message.expires);
        message.task = task;
        self.delayed.insert(id, Delayed::Task(task));
        self.workers[index as usize].mailbox.push(message);
        if expires != Instant::NEVER {
            self.push_deadline(expires, Due::Message { index, number, task });
        }
        self.touch(index);
        self.try_start(now, index);
        self.pump(now, index);
    }

    pub(crate) fn take_message_id(&mut self) -> MessageId {
        let id = MessageId(self.next_message);
        self.next_message += 1;
        id
    }

    pub(crate) fn check_size(&self, call: &Call<'_>) -> Result<(), Refused> {
        if call.method.len() > METHOD_BYTES_MAX {
            let bytes = call.method.len();
            let detail = format!("a method's name has at most {METHOD_BYTES_MAX} bytes, this one has {bytes}");
            return Err(Refused::new(Refusal::TooLarge, detail));
        }
        self.check_carried(call.args)?;
        let bytes = (call.method.len() + call.args.len()) as u64;
        if bytes > self.limits.message_bytes {
            let limit = self.limits.message_bytes;
            let detail = format!(
                "the message has {bytes} bytes, the limit is {limit} (`message_bytes` in [supervisor]); pass large \
                 data by the path of a file"
            );
            return Err(Refused::new(Refusal::TooLarge, detail));
        }
        Ok(())
    }

    pub(crate) fn check_workers(&self) -> Result<(), Refused> {
        let (workers, limit) = (self.workers.len(), self.limits.workers);
        if workers < limit as usize {
            return Ok(());
        }
        let detail = format!("there are {workers} workers, and the limit is {limit} (`max_workers` in [supervisor])");
        Err(Refused::new(Refusal::MailboxFull, detail))
    }

    pub(crate) fn check_room(
        &self,
        messages: u64,
        charged: u64,
        policy: &Policy,
        method: &str,
        call: &Call<'_>,
    ) -> Result<(), Refused> {
        let full = |detail| Err(Refused::new(Refusal::MailboxFull, detail));
        let (target, class, limits) = (call.target, &policy.class, &self.limits);
        let charge = (method.len() + call.args.len()) as u64 + MESSAGE_OVERHEAD_BYTES;
        let most = policy.mailbox_bytes.min(limits.total_bytes).min(limits.sender_bytes);
        if charge > most {
            let detail = format!(
                "the message counts {charge} bytes, and all messages of a worker together have at most {most} \
                 (`mailbox.bytes` of class `{class}`, `sender_bytes` and `total_bytes` in [supervisor])"
            );
            return Err(Refused::new(Refusal::TooLarge, detail));
        }
        if messages >= policy.mailbox_messages {
            let limit = policy.mailbox_messages;
            return full(format!(
                "{messages} messages wait for `{target}`, and the limit is {limit} (`mailbox.messages` of class `{class}`)"
            ));
        }
        if charged + charge > policy.mailbox_bytes {
            let limit = policy.mailbox_bytes;
            return full(format!(
                "the messages that wait for `{target}` have {charged} bytes and this one {charge}; the limit is {limit} \
                 (`mailbox.bytes` of class `{class}`)"
            ));
        }
        let (own, own_bytes, all_bytes) =
            (self.accounts.of(call.account), self.bytes_of(call.account), self.bytes_in_all());
        if own.messages >= limits.sender_messages {
            let (messages, limit) = (own.messages, limits.sender_messages);
            return full(format!(
                "{messages} messages of the same sender wait, and the limit is {limit} (`sender_messages` in [supervisor])"
            ));
        }
        if own_bytes + charge > limits.sender_bytes {
            let (bytes, limit) = (own_bytes, limits.sender_bytes);
            return full(format!(
                "the messages of the same sender that wait have {bytes} bytes and this one {charge}; the limit is \
                 {limit} (`sender_bytes` in [supervisor])"
            ));
        }
        let all = self.ledger.pending + self.ledger.running;
        if all >= limits.total_messages {
            let limit = limits.total_messages;
            return full(format!(
                "{all} messages wait for all workers, and the limit is {limit} (`total_messages` in [supervisor])"
            ));
        }
        if all_bytes + charge > limits.total_bytes {
            let (total, limit) = (all_bytes, limits.total_bytes);
            return full(format!(
                "the messages of all workers have {total} bytes and this one {charge}; the limit is {limit} \
                 (`total_bytes` in [supervisor])"
            ));
        }
        Ok(())
    }

    /// A call that would need one process too many is refused: nobody waits for a place that a worker holds that
    /// waits for the answer. What was posted for later waits for a place at its time.
    pub(crate) fn check_places(&self, needs_one: bool, call: &Call<'_>) -> Result<(), Refused> {
        let limit = self.limits.processes;
        let free = self.places < limit && self.queued.is_empty();
        if !needs_one || call.after.is_some() || free {
            return Ok(());
        }
        let detail = format!(
            "`{}` needs a process, and {} are there or about to be; the limit is {limit} (`max_processes` in [supervisor])",
            call.target, self.places
        );
        Err(Refused::new(Refusal::MailboxFull, detail))
    }
}

/// What is executed: an empty method is the startup method (rule C5).
fn method_or<'a>(method: &'a str, startup: Option<&'a str>) -> &'a str {
    if method.is_empty() { startup.unwrap_or_default() } else { method }
}
