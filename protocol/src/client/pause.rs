//! A worker is paused and resumed.

use std::io::Read;
use std::os::fd::AsFd;

use super::{Client, ClientError};
use crate::messages::{Address, Pause, ReceiptBody, Ref, Request, Resume};

impl<S: Read + AsFd> Client<S> {
    /// Stops the process of a worker until a resume, while its mailbox goes on accepting (rule P4): by name all of that
    /// name.
    pub fn pause(&mut self, worker: Address<'_>) -> Result<ReceiptBody<'static>, ClientError> {
        let ticket = self.ticket();
        self.send(&Request::Pause(Pause { reference: Ref::Number(ticket.0), worker }))?;
        self.receipt(ticket)
    }

    /// Ends the pause of a worker, and its backoff or pause after crashes (rules P4, D4): by name of all of that name.
    pub fn resume(&mut self, worker: Address<'_>) -> Result<ReceiptBody<'static>, ClientError> {
        let ticket = self.ticket();
        self.send(&Request::Resume(Resume { reference: Ref::Number(ticket.0), worker }))?;
        self.receipt(ticket)
    }
}
