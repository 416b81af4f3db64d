//! Signals (rules S1–S5), and messages that are not wanted any more.

use std::io::Read;
use std::os::fd::AsFd;
use std::time::Duration;

use super::{Client, ClientError, Ticket};
use crate::args::Payload;
use crate::ids::SignalId;
use crate::messages::{
    Cancel, OutcomeBody, ReceiptBody, Ref, Request, SignalFree, SignalGet, SignalNew, SignalSet, SignalTrigger,
    SignalWait, millis,
};
use crate::signal::SignalLink;

impl<S: Read + AsFd> Client<S> {
    /// Makes a signal. It is held as long as this connection is there, `keep` is not over, a message carries it, or a
    /// process lives that has executed one.
    pub fn new_signal(
        &mut self,
        description: Option<&str>,
        keep: Option<Duration>,
    ) -> Result<ReceiptBody<'static>, ClientError> {
        let (description, keep_ms) = (description.map(Into::into), keep.map(millis));
        self.ask_signal(|reference| Request::SignalNew(SignalNew { reference, description, keep_ms }))
    }

    /// Writes one value of a signal that was not triggered yet.
    pub fn set_signal(
        &mut self,
        id: SignalId,
        key: &str,
        value: Payload<'_>,
    ) -> Result<ReceiptBody<'static>, ClientError> {
        let signal = id.to_string().into();
        self.ask_signal(|reference| {
            Request::SignalSet(SignalSet { reference: Some(reference), signal, key: key.into(), value })
        })
    }

    /// Triggers a signal: all who wait for it go on.
    pub fn trigger_signal(&mut self, id: SignalId) -> Result<ReceiptBody<'static>, ClientError> {
        let signal = id.to_string().into();
        self.ask_signal(|reference| Request::SignalTrigger(SignalTrigger { reference: Some(reference), signal }))
    }

    /// Waits for a signal, for as long as it takes if there is no time-out; zero only looks. The receipt comes at once, the
    /// outcome when there is one: see [`Client::receipt`] and [`Client::outcome`].
    pub fn wait_for_signal(&mut self, id: SignalId, timeout: Option<Duration>) -> Result<Ticket, ClientError> {
        let (ticket, signal) = (self.ticket(), id.to_string().into());
        let timeout_ms = timeout.map(millis);
        self.send(&Request::SignalWait(SignalWait { reference: Ref::Number(ticket.0), signal, timeout_ms }))?;
        Ok(ticket)
    }

    /// Asks for all about a signal.
    pub fn signal(&mut self, id: SignalId) -> Result<ReceiptBody<'static>, ClientError> {
        let signal = id.to_string().into();
        self.ask_signal(|reference| Request::SignalGet(SignalGet { reference, signal }))
    }

    /// This connection holds a signal no more that it has made, and its time neither.
    pub fn free_signal(&mut self, id: SignalId) -> Result<ReceiptBody<'static>, ClientError> {
        let signal = id.to_string().into();
        self.ask_signal(|reference| Request::SignalFree(SignalFree { reference: Some(reference), signal }))
    }

    /// Says that a message is not wanted any more: it is discarded, or its process is told.
    pub fn cancel(&mut self, message: u64) -> Result<ReceiptBody<'static>, ClientError> {
        self.ask_signal(|reference| Request::Cancel(Cancel { reference, message }))
    }
}

impl<S: Read + AsFd> SignalLink for Client<S> {
    type Error = ClientError;

    fn ask_signal<'a>(
        &mut self,
        request: impl FnOnce(Ref) -> Request<'a>,
    ) -> Result<ReceiptBody<'static>, ClientError> {
        let ticket = self.ticket();
        self.send(&request(Ref::Number(ticket.0)))?;
        self.receipt(ticket)
    }

    fn await_signal(
        &mut self,
        id: SignalId,
        timeout: Option<Duration>,
    ) -> Result<Result<OutcomeBody<'static>, ReceiptBody<'static>>, ClientError> {
        let ticket = self.wait_for_signal(id, timeout)?;
        match self.outcome(ticket) {
            Ok(outcome) => Ok(Ok(outcome)),
            Err(ClientError::NoOutcome(receipt)) => Ok(Err(receipt)),
            Err(error) => Err(error),
        }
    }
}
