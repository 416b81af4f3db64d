//! Processes that execute one method.

use std::io::Read;
use std::os::fd::AsFd;

use super::{Client, ClientError, Ticket};
use crate::messages::{ReceiptBody, Ref, Request, Run};

impl<S: Read + AsFd> Client<S> {
    /// Starts a process that executes one method and ends with it, and waits for the receipt (rule P1). The outcome comes
    /// to the ticket, if the request has `wait` and is accepted.
    pub fn run(&mut self, run: Run<'_>) -> Result<(Ticket, ReceiptBody<'static>), ClientError> {
        let ticket = self.ticket();
        self.send(&Request::Run(Run { reference: Some(Ref::Number(ticket.0)), ..run }))?;
        let receipt = self.receipt(ticket)?;
        Ok((ticket, receipt))
    }
}
