//! A worker's side of the conversation, without input and output: what came, what is to be done next.
//!
//! Greeting → ready ⇄ busy → ending. `ready` and `busy` differ only in whether a task was taken that is not
//! settled yet, which the loop knows. Ending begins with the supervisor's `kill`, or with its end; from
//! there on no task is given out, and what was sent ahead is forgotten.

use std::collections::{BTreeSet, HashMap, VecDeque};

use workhall_protocol::ids::MessageId;
use workhall_protocol::messages::{self, OutcomeBody, ReceiptBody, Ref, Reply};

/// A task that came.
#[derive(Debug)]
pub(crate) struct Task {
    pub id: MessageId,
    pub from: Option<(String, u64)>,
    pub wait: bool,
    /// The method's name, and behind it the arguments: one piece of memory for both.
    body: Vec<u8>,
    method_bytes: usize,
}

/// So many tasks that have ended leave their memory to those that come, if it has at most so many bytes: many come at
/// once, and to free and allocate it for each would cost more than a short task does.
const SPARES_MAX: usize = 256;
const SPARE_BYTES_MAX: usize = 256;

impl Task {
    /// In memory that was another's.
    fn new(task: messages::Task<'_>, mut body: Vec<u8>) -> Task {
        body.reserve_exact(task.method.len() + task.args.0.len());
        body.extend_from_slice(task.method.as_bytes());
        body.extend_from_slice(&task.args.0);
        Task {
            id: MessageId(task.id),
            from: task.from.map(|from| (from.worker.into_owned(), from.number)),
            wait: task.wait,
            body,
            method_bytes: task.method.len(),
        }
    }

    /// The method's name.
    pub fn method(&self) -> &str {
        std::str::from_utf8(&self.body[..self.method_bytes]).expect("was made from a str")
    }

    /// The arguments, as they came.
    pub fn args(&self) -> &[u8] {
        &self.body[self.method_bytes..]
    }
}

/// Who this process is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    pub worker: String,
    pub number: u64,
    pub generation: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Session {
    pub identity: Identity,
    queue: VecDeque<Task>,
    spares: Vec<Vec<u8>>,
    ending: bool,
    receipts: HashMap<u64, Result<ReceiptBody<'static>, String>>,
    /// Of signals that were waited for.
    outcomes: HashMap<u64, OutcomeBody<'static>>,
    /// Tasks that are not wanted any more, of those that have come.
    cancelled: BTreeSet<MessageId>,
    /// How often one was.
    cancels: u64,
}

impl Session {
    /// Takes in what the supervisor says. The error names what cannot be.
    pub fn take_in(&mut self, reply: Reply<'_>) -> Result<(), String> {
        match reply {
            Reply::Welcome(welcome) => {
                self.identity = Identity {
                    worker: welcome.worker.into_owned(),
                    number: welcome.number,
                    generation: welcome.generation,
                };
            }
            Reply::Task(task) => self.queue.push_back(Task::new(task, self.spares.pop().unwrap_or_default())),
            Reply::Kill(_) => self.end(),
            Reply::Receipt(receipt) => {
                if let Ref::Number(number) = receipt.reference {
                    self.receipts.insert(number, Ok(receipt.body.into_owned()));
                }
            }
            Reply::Error(error) => match error.reference {
                Some(Ref::Number(number)) => {
                    self.receipts.insert(number, Err(error.detail.into_owned()));
                }
                _ => return Err(error.detail.into_owned()),
            },
            Reply::Outcome(outcome) => {
                if let Ref::Number(number) = outcome.reference {
                    self.outcomes.insert(number, outcome.body.into_owned());
                }
            }
            Reply::Cancelled(cancelled) => {
                self.cancels += 1;
                self.cancelled.insert(MessageId(cancelled.id));
            }
            // This library asks for no news.
            Reply::News(_) => {}
        }
        Ok(())
    }

    /// The supervisor has asked for the end, or is gone.
    pub fn end(&mut self) {
        self.ending = true;
        self.queue.clear();
    }

    pub fn is_ending(&self) -> bool {
        self.ending
    }

    /// Whether another task has come.
    pub fn has_tasks(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The task has ended.
    pub fn reuse(&mut self, task: Task) {
        if !self.cancelled.is_empty() {
            // Tasks end in the order of their numbers.
            self.cancelled = self.cancelled.split_off(&MessageId(task.id.0.saturating_add(1)));
        }
        let mut body = task.body;
        if (1..=SPARE_BYTES_MAX).contains(&body.capacity()) && self.spares.len() < SPARES_MAX {
            body.clear();
            self.spares.push(body);
        }
    }

    pub fn next_task(&mut self) -> Option<Task> {
        self.queue.pop_front()
    }

    /// How often the supervisor has said that a task is not wanted any more.
    pub fn cancels(&self) -> u64 {
        self.cancels
    }

    /// Whether the supervisor has said that a task is not wanted any more.
    pub fn is_cancelled(&self, task: MessageId) -> bool {
        self.cancelled.contains(&task)
    }

    pub fn take_outcome(&mut self, number: u64) -> Option<OutcomeBody<'static>> {
        self.outcomes.remove(&number)
    }

    pub fn take_receipt(&mut self, number: u64) -> Option<Result<ReceiptBody<'static>, String>> {
        self.receipts.remove(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use workhall_protocol::messages::{Ask, Error, Receipt, Task as TaskMessage, Welcome};
    use workhall_protocol::terms::Ignored;

    fn task(id: u64) -> Reply<'static> {
        Reply::Task(TaskMessage { id, method: "m".into(), args: Default::default(), from: None, wait: false })
    }

    #[test]
    fn c03_tasks_come_out_in_the_order_in_which_they_came() {
        let mut session = Session::default();
        let welcome = Welcome { protocol: 1, worker: "w".into(), number: 7, generation: 2 };
        session.take_in(Reply::Welcome(welcome)).unwrap();
        assert_eq!((session.identity.number, session.identity.generation), (7, 2));
        for id in [3, 4, 5] {
            session.take_in(task(id)).unwrap();
        }
        let order: Vec<u64> = std::iter::from_fn(|| session.next_task()).map(|task| task.id.0).collect();
        assert_eq!(order, [3, 4, 5]);
    }

    #[test]
    fn k01_after_a_kill_no_task_comes_out() {
        let mut session = Session::default();
        session.take_in(task(1)).unwrap();
        session.take_in(Reply::Kill(Ask {})).unwrap();
        assert!(session.is_ending() && session.next_task().is_none());
    }

    #[test]
    fn receipts_are_found_by_their_reference() {
        let mut session = Session::default();
        let body = ReceiptBody::Ignored { reason: Ignored::NoWorker };
        session.take_in(Reply::Receipt(Receipt { reference: 4.into(), body: body.clone() })).unwrap();
        session.take_in(Reply::Error(Error { reference: Some(5.into()), detail: "no".into() })).unwrap();
        assert_eq!(session.take_receipt(4), Some(Ok(body)));
        assert_eq!(session.take_receipt(5), Some(Err("no".into())));
        assert_eq!(session.take_receipt(4), None);
        assert_eq!(
            session.take_in(Reply::Error(Error { reference: None, detail: "what?".into() })),
            Err("what?".into())
        );
    }
}
