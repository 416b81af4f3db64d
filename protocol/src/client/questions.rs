//! Questions, and what only who administers asks for: each waits for its receipt.

use std::borrow::Cow;
use std::io::Read;
use std::os::fd::AsFd;

use super::{Client, ClientError, WhichLetters};
use crate::args::decode;
use crate::messages::{Address, Dead, DeadShow, Info, List, ReceiptBody, Ref, Reload, Request, Status, Upgrade};
use crate::process::ProcessInfo;

impl<S: Read + AsFd> Client<S> {
    /// Asks who is there.
    pub fn list(&mut self) -> Result<ReceiptBody<'static>, ClientError> {
        self.list_page(None, None)
    }

    /// The same in pages ([`List`]): at most `limit` workers, those behind the place `after`.
    pub fn list_page(&mut self, after: Option<u64>, limit: Option<u64>) -> Result<ReceiptBody<'static>, ClientError> {
        let ticket = self.ticket();
        self.send(&Request::List(List { reference: Ref::Number(ticket.0), after, limit }))?;
        self.receipt(ticket)
    }

    /// Asks for all about one worker.
    pub fn info(&mut self, worker: Address<'_>) -> Result<ReceiptBody<'static>, ClientError> {
        let ticket = self.ticket();
        self.send(&Request::Info(Info { reference: Ref::Number(ticket.0), worker }))?;
        self.receipt(ticket)
    }

    /// What is known of the process of a worker (rule P3); none if there is no such worker: its state is then
    /// [`ProcessState::DoesNotExist`](crate::process::ProcessState::DoesNotExist).
    pub fn process(&mut self, worker: Address<'_>) -> Result<Option<ProcessInfo>, ClientError> {
        match self.info(worker)? {
            ReceiptBody::Report(report) => {
                decode(&report.0).map(Some).map_err(|error| ClientError::Protocol(error.to_string()))
            }
            ReceiptBody::Ignored { .. } => Ok(None),
            other => Err(ClientError::NoOutcome(other)),
        }
    }

    /// Asks for the supervisor's own state.
    pub fn status(&mut self) -> Result<ReceiptBody<'static>, ClientError> {
        let ticket = self.ticket();
        self.send(&Request::Status(Status { reference: Ref::Number(ticket.0) }))?;
        self.receipt(ticket)
    }

    /// Asks which dead letters there are: of all workers or those of one name, all that one answer holds or the last
    /// `limit` that died.
    pub fn dead(&mut self, worker: Option<&str>, limit: Option<u64>) -> Result<ReceiptBody<'static>, ClientError> {
        self.dead_page(worker, None, limit)
    }

    /// The same in pages ([`Dead`]): of those that stand before the place `before`, the last `limit` that died.
    pub fn dead_page(
        &mut self,
        worker: Option<&str>,
        before: Option<u64>,
        limit: Option<u64>,
    ) -> Result<ReceiptBody<'static>, ClientError> {
        let ticket = self.ticket();
        let (reference, worker) = (Ref::Number(ticket.0), worker.map(Cow::Borrowed));
        self.send(&Request::Dead(Dead { reference, worker, limit, before }))?;
        self.receipt(ticket)
    }

    /// Asks for one dead letter, with everything.
    pub fn dead_show(&mut self, message: u64) -> Result<ReceiptBody<'static>, ClientError> {
        let ticket = self.ticket();
        self.send(&Request::DeadShow(DeadShow { reference: Ref::Number(ticket.0), message }))?;
        self.receipt(ticket)
    }

    /// Posts dead letters again, in the order in which they died, each as a new message to the same name.
    pub fn requeue(&mut self, which: WhichLetters<'_>) -> Result<ReceiptBody<'static>, ClientError> {
        let ticket = self.ticket();
        self.send(&Request::Requeue(which.letters(ticket)))?;
        self.receipt(ticket)
    }

    /// Drops dead letters.
    pub fn dead_drop(&mut self, which: WhichLetters<'_>) -> Result<ReceiptBody<'static>, ClientError> {
        let ticket = self.ticket();
        self.send(&Request::DeadDrop(which.letters(ticket)))?;
        self.receipt(ticket)
    }

    /// The configuration is read again; with `restart` the processes of changed classes make place for new ones.
    pub fn reload(&mut self, restart: bool) -> Result<ReceiptBody<'static>, ClientError> {
        let ticket = self.ticket();
        self.send(&Request::Reload(Reload { reference: Ref::Number(ticket.0), restart }))?;
        self.receipt(ticket)
    }

    /// The supervisor becomes another program: that at this absolute path, or the one that it was started from.
    pub fn upgrade(&mut self, binary: Option<&str>) -> Result<ReceiptBody<'static>, ClientError> {
        let ticket = self.ticket();
        self.send(&Request::Upgrade(Upgrade { reference: Ref::Number(ticket.0), binary: binary.map(Cow::Borrowed) }))?;
        self.receipt(ticket)
    }
}
