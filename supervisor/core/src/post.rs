//! Calls: what may be posted, and to whom (rules C1–C13).

use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;

use workhall_protocol::ids::{MessageId, Target, WorkerName};
use workhall_protocol::limits::METHOD_BYTES_MAX;
use workhall_protocol::terms::{Ignored, Refusal};

use crate::deadlines::Due;
use crate::event::{Call, CallReceipt};
use crate::mailbox::{Identity, MESSAGE_OVERHEAD_BYTES, Message};
use crate::policy::Policy;
use crate::registry::{Core, Refused};
use crate::time::Instant;
use crate::worker::Goal;

impl Core {
    /// Posts a message (rules C1–C13). `class_of` is asked only if a worker is to be created.
    pub fn call(
        &mut self,
        now: Instant,
        call: Call<'_>,
        class_of: impl FnOnce(&str) -> Result<Arc<Policy>, Refused>,
    ) -> CallReceipt {
        let receipt = match self.post(now, call, class_of) {
            Ok(receipt) => receipt,
            Err(refused) => CallReceipt::Refused(refused),
        };
        match receipt {
            CallReceipt::Accepted { .. } => {}
            CallReceipt::Ignored(_) => self.counters.ignored += 1,
            CallReceipt::Refused(_) => self.counters.refused += 1,
        }
        self.finish_step();
        receipt
    }

    fn post(
        &mut self,
        now: Instant,
        call: Call<'_>,
        class_of: impl FnOnce(&str) -> Result<Arc<Policy>, Refused>,
    ) -> Result<CallReceipt, Refused> {
        if self.stopping.is_some() {
            return Err(Refused::new(Refusal::ShuttingDown, "the supervisor is stopping"));
        }
        self.check_size(&call)?;
        let sender = match call.from {
            None => None,
            Some(process) => match self.workers.get(process.index as usize) {
                Some(worker) if worker.identity.number == process.number => Some(process.index),
                _ => return Ok(CallReceipt::Ignored(Ignored::NoWorker)),
            },
        };
        let found = match call.target {
            Target::Name(name) => {
                if let Err(error) = WorkerName::check(name) {
                    return Err(Refused::new(Refusal::BadName, error.to_string()));
                }
                if let Some(sender) = sender {
                    // Rule K9: known from the connection, not from what the message says.
                    let sender = &self.workers[sender as usize];
                    if sender.goal != Goal::Up && *sender.identity.name == *name {
                        return Ok(CallReceipt::Ignored(Ignored::OwnKilledWorker));
                    }
                }
                self.find_name(name).filter(|index| self.workers[*index as usize].goal == Goal::Up)
            }
            Target::Number(number) => match self.find_number(number) {
                None => return Ok(CallReceipt::Ignored(Ignored::NoWorker)),
                Some(index) if self.workers[index as usize].goal != Goal::Up => {
                    let own = sender == Some(index);
                    return Ok(CallReceipt::Ignored(if own { Ignored::OwnKilledWorker } else { Ignored::Ending }));
                }
                found => found,
            },
        };
        let index = match (found, call.target) {
            (Some(index), _) => {
                let worker = &self.workers[index as usize];
                if call.method.is_empty() && worker.startup.is_none() {
                    return Ok(CallReceipt::Ignored(Ignored::NoStartupMethod));
                }
                let method = method_or(call.method, worker.startup.as_deref());
                self.check_room(worker.messages() - worker.running(), worker.charged, &worker.policy, method, &call)?;
                index
            }
            (None, Target::Name(name)) if !call.existing => {
                let policy = class_of(name)?;
                if call.method.is_empty() && policy.startup_method.is_none() {
                    return Ok(CallReceipt::Ignored(Ignored::NoStartupMethod));
                }
                let method = method_or(call.method, policy.startup_method.as_deref());
                self.check_room(0, 0, &policy, method, &call)?;
                if self.workers.len() >= self.limits.workers as usize {
                    let limit = self.limits.workers;
                    let detail =
                        format!("there are {limit} workers, which is the limit (`max_workers` in [supervisor])");
                    return Err(Refused::new(Refusal::MailboxFull, detail));
                }
                let name = WorkerName::new(name).expect("was checked above");
                let number = self.take_number();
                let index = self.create(now, Identity { name, number }, policy);
                let worker = &mut self.workers[index as usize];
                worker.startup = worker.policy.startup_method.clone().or_else(|| Some(call.method.into()));
                index
            }
            _ => return Ok(CallReceipt::Ignored(Ignored::NoWorker)),
        };
        Ok(self.accept(now, index, sender, &call))
    }

    fn accept(&mut self, now: Instant, index: u32, sender: Option<u32>, call: &Call<'_>) -> CallReceipt {
        let id = MessageId(self.next_message);
        self.next_message += 1;
        let from = sender.map(|sender| self.workers[sender as usize].identity.clone());
        let worker = &mut self.workers[index as usize];
        let startup = worker.startup.clone();
        let mut message = Message::new(id, method_or(call.method, startup.as_deref()), call.args);
        message.from = from;
        message.reply = call.reply;
        worker.charged += message.charge();
        self.total_bytes += message.charge();
        let number = worker.identity.number;
        let expires = call.expires.map_or(Instant::NEVER, |expires| now.after(expires));
        message.expires = expires;
        worker.mailbox.push(message);
        self.ledger.accept();
        if expires != Instant::NEVER {
            self.push_deadline(expires, Due::Message { index, number, id });
        }
        self.touch(index);
        self.try_start(now, index);
        self.pump(now, index);
        CallReceipt::Accepted { number, message: id }
    }

    fn check_size(&self, call: &Call<'_>) -> Result<(), Refused> {
        if call.method.len() > METHOD_BYTES_MAX {
            let bytes = call.method.len();
            let detail = format!("a method's name has at most {METHOD_BYTES_MAX} bytes, this one has {bytes}");
            return Err(Refused::new(Refusal::TooLarge, detail));
        }
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

    fn check_room(
        &self,
        messages: u64,
        charged: u64,
        policy: &Policy,
        method: &str,
        call: &Call<'_>,
    ) -> Result<(), Refused> {
        let full = |detail| Err(Refused::new(Refusal::MailboxFull, detail));
        let charge = (method.len() + call.args.len()) as u64 + MESSAGE_OVERHEAD_BYTES;
        let most = policy.mailbox_bytes.min(self.limits.total_bytes);
        if charge > most {
            let class = &policy.class;
            let detail = format!(
                "the message counts {charge} bytes, and all messages of a worker together have at most {most} \
                 (`mailbox.bytes` of class `{class}`, `total_bytes` in [supervisor])"
            );
            return Err(Refused::new(Refusal::TooLarge, detail));
        }
        if messages >= policy.mailbox_messages {
            let (target, class) = (call.target, &policy.class);
            return full(format!(
                "{messages} messages wait for `{target}`, which is the limit (`mailbox.messages` of class `{class}`)"
            ));
        }
        if charged + charge > policy.mailbox_bytes {
            let (target, class, limit) = (call.target, &policy.class, policy.mailbox_bytes);
            return full(format!(
                "the messages that wait for `{target}` have {charged} bytes and this one {charge}; the limit is {limit} \
                 (`mailbox.bytes` of class `{class}`)"
            ));
        }
        if self.total_bytes + charge > self.limits.total_bytes {
            let (total, limit) = (self.total_bytes, self.limits.total_bytes);
            return full(format!(
                "the messages of all workers have {total} bytes and this one {charge}; the limit is {limit} \
                 (`total_bytes` in [supervisor])"
            ));
        }
        Ok(())
    }
}

/// What is executed: an empty method is the startup method (rule C5).
fn method_or<'a>(method: &'a str, startup: Option<&'a str>) -> &'a str {
    if method.is_empty() { startup.unwrap_or_default() } else { method }
}
