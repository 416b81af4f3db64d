//! What a method can ask and do while it executes a task.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;
use workhall_protocol::MarkPage;
use workhall_protocol::args::{Payload, decode};
use workhall_protocol::ids::SignalId;
use workhall_protocol::messages::{self, Address, OutcomeBody, ReceiptBody as Receipt, Ref, Request, millis};
use workhall_protocol::process::ProcessInfo;
use workhall_protocol::signal::{Signal, SignalError, SignalLink};

use crate::link::Link;
use crate::session::Task;
use crate::{Error, Result};

/// The worker that sent the task (rule C11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender<'a> {
    /// Its name.
    pub worker: &'a str,
    /// Its number, which names that worker and no later one of the same name.
    pub number: u64,
}

/// The task that is executed, and the way to other workers.
pub struct Context<'a> {
    link: &'a mut Link,
    page: Option<&'a MarkPage>,
    task: &'a Task,
}

/// A call with more than the method and its arguments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call {
    /// Only if the worker exists already (rule C12).
    pub existing: bool,
    /// Do not start it later than this (rule C13).
    pub expires: Option<Duration>,
    /// It enters the mailbox after so long (rule C13).
    pub after: Option<Duration>,
}

/// A process for one method, beyond class, method and arguments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run<'a> {
    /// Its name; one is made if there is none.
    pub name: Option<&'a str>,
    /// If one of this name runs already, the receipt says which, and nothing is started.
    pub unique: bool,
}

impl<'a> Context<'a> {
    pub(crate) fn new(link: &'a mut Link, page: Option<&'a MarkPage>, task: &'a Task) -> Context<'a> {
        Context { link, page, task }
    }

    /// This worker's name.
    pub fn worker(&self) -> &str {
        &self.link.session.identity.worker
    }

    /// This worker's number.
    pub fn number(&self) -> u64 {
        self.link.session.identity.number
    }

    /// Which life of the worker's process this is, from 1.
    pub fn generation(&self) -> u64 {
        self.link.session.identity.generation
    }

    /// What the message that is executed is known by: the same at each attempt, and no other's. It is the message's
    /// id, but for a message that was posted for later a newer number.
    pub fn message(&self) -> u64 {
        self.task.id.0
    }

    /// The method that is executed.
    pub fn method(&self) -> &str {
        self.task.method()
    }

    /// Who sent the message; none for a client that is not a worker, who cannot be called back (rule W8).
    pub fn sender(&self) -> Option<Sender<'_>> {
        self.task.from.as_ref().map(|(worker, number)| Sender { worker, number: *number })
    }

    /// Whether this worker was killed: a long task may look here and end early. It is not interrupted
    /// otherwise (rule K3).
    pub fn end_requested(&self) -> bool {
        self.link.session.is_ending() || self.page.is_some_and(MarkPage::is_stopped)
    }

    /// Whether somebody has said that the message which is executed is not wanted any more (`workhall cancel`): a long task
    /// may look here and end early, with an error for example. It is not interrupted otherwise. A system call, and it takes
    /// in what has come.
    pub fn cancelled(&mut self) -> Result<bool> {
        self.link.look()?;
        Ok(self.link.session.is_cancelled(self.task.id))
    }

    /// Says that a message is not wanted any more, by its id: of this worker, or any if it may kill. It is discarded, or
    /// its process is told.
    pub fn cancel(&mut self, message: u64) -> Result<Receipt<'static>> {
        self.link.ask(|reference| Request::Cancel(messages::Cancel { reference: reference.into(), message }))
    }

    /// Makes a signal, held by this process as long as it lives (rule S1). It may be sent to anybody in the arguments of a
    /// call.
    pub fn signal(&mut self, description: &str) -> std::result::Result<Signal, SignalError<Error>> {
        Signal::new(self, description)
    }

    /// Posts a message to a worker, by name or number, and returns its receipt; the execution is not waited
    /// for (rule C1). `args` is a tuple or another list, `()` for none. A worker may call itself: the message
    /// queues behind what waits already (rule C10).
    pub fn call<'b>(
        &mut self,
        worker: impl Into<Address<'b>>,
        method: &str,
        args: impl Serialize,
    ) -> Result<Receipt<'static>> {
        self.call_with(worker, method, args, Call::default())
    }

    /// The same, with more conditions.
    pub fn call_with<'b>(
        &mut self,
        worker: impl Into<Address<'b>>,
        method: &str,
        args: impl Serialize,
        conditions: Call,
    ) -> Result<Receipt<'static>> {
        let args = Payload::encode_list(&args)?;
        let worker = worker.into();
        self.link.ask(|reference| {
            Request::Call(messages::Call {
                reference: Some(Ref::Number(reference)),
                method: Cow::Borrowed(method),
                existing: conditions.existing,
                expires_ms: conditions.expires.map(millis),
                in_ms: conditions.after.map(millis),
                ..messages::Call::new(worker, "", args)
            })
        })
    }

    /// Calls back the worker that sent the message (rule C11), by its number, so that a successor that has
    /// asked nothing gets no answer. An error if a client sent it.
    pub fn reply(&mut self, method: &str, args: impl Serialize) -> Result<Receipt<'static>> {
        let Some(sender) = self.sender() else {
            return Err(Error::Arguments("the message was sent by a client, which cannot be called back".into()));
        };
        let number = sender.number;
        self.call(number, method, args)
    }

    /// Stops the process of a worker until a resume, while its mailbox goes on accepting (rule P4). This user must be one
    /// who may administer.
    pub fn pause<'b>(&mut self, worker: impl Into<Address<'b>>) -> Result<Receipt<'static>> {
        let worker = worker.into();
        self.link.ask(|reference| Request::Pause(messages::Pause { reference: Ref::Number(reference), worker }))
    }

    /// Ends the pause of a worker, and its backoff or pause after crashes (rules P4, D4).
    pub fn resume<'b>(&mut self, worker: impl Into<Address<'b>>) -> Result<Receipt<'static>> {
        let worker = worker.into();
        self.link.ask(|reference| Request::Resume(messages::Resume { reference: Ref::Number(reference), worker }))
    }

    /// What is known of the process of a worker (rule P3); none if there is no such worker.
    pub fn process<'b>(&mut self, worker: impl Into<Address<'b>>) -> Result<Option<ProcessInfo>> {
        let worker = worker.into();
        let info = |reference| Request::Info(messages::Info { reference: Ref::Number(reference), worker });
        match self.link.ask(info)? {
            Receipt::Report(report) => Ok(Some(decode(&report.0)?)),
            Receipt::Ignored { .. } => Ok(None),
            other => Err(Error::Protocol(format!("unexpected answer: {other:?}"))),
        }
    }

    /// Starts a process that executes one method and ends with it (rule P1), under the class of this name. `process`
    /// says its own name, and whether one that runs already is enough.
    pub fn run(
        &mut self,
        class: &str,
        method: &str,
        args: impl Serialize,
        process: Run<'_>,
    ) -> Result<Receipt<'static>> {
        let args = Payload::encode_list(&args)?;
        self.link.ask(|reference| {
            Request::Run(messages::Run {
                class: Cow::Borrowed(class),
                method: Cow::Borrowed(method),
                args,
                reference: Some(Ref::Number(reference)),
                wait: false,
                name: process.name.map(Cow::Borrowed),
                unique: process.unique,
            })
        })
    }

    /// Gives the name back that this worker has attached as (rule P2): with `drain` what is pending is executed first, else
    /// it is dead when this task has ended. Of a worker that a supervisor has started it is an error, which counts as one
    /// of its violations.
    pub fn leave(&mut self, drain: bool) -> Result {
        self.link.leave(drain)
    }

    /// Kills a worker (rule K1). The receipt says how many messages were discarded.
    pub fn kill<'b>(&mut self, worker: impl Into<Address<'b>>) -> Result<Receipt<'static>> {
        let worker = Some(worker.into());
        self.send_kill(worker)
    }

    /// Kills this worker itself: what is pending is ignored, and the process ends after this task, the rest
    /// of which still runs (rule K3).
    pub fn kill_self(&mut self) -> Result<Receipt<'static>> {
        self.send_kill(None)
    }

    fn send_kill(&mut self, worker: Option<Address<'_>>) -> Result<Receipt<'static>> {
        self.link.ask(|reference| {
            Request::Kill(messages::Kill {
                worker,
                reference: Some(Ref::Number(reference)),
                ..messages::Kill::default()
            })
        })
    }
}

impl SignalLink for Context<'_> {
    type Error = Error;

    fn ask_signal<'a>(&mut self, request: impl FnOnce(Ref) -> Request<'a>) -> Result<Receipt<'static>> {
        self.link.ask(|reference| request(Ref::Number(reference)))
    }

    fn await_signal(
        &mut self,
        id: SignalId,
        timeout: Option<Duration>,
    ) -> Result<std::result::Result<OutcomeBody<'static>, Receipt<'static>>> {
        self.link.wait_for_signal(id.to_string(), timeout.map(millis))
    }
}
