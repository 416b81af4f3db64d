//! What workers wrote, and what happened.

use std::io::Read;
use std::os::fd::AsFd;

use super::{Client, ClientError, Ticket};
use crate::messages::{Address, Events, Logs, News, Ref, Request};

impl<S: Read + AsFd> Client<S> {
    /// Asks for what workers wrote: of one worker or of all, all that is kept or the last lines, and with `follow` what
    /// comes. [`Self::receipt`] says whether that may be; then [`Self::news`].
    pub fn logs(
        &mut self,
        worker: Option<Address<'_>>,
        last: Option<u64>,
        follow: bool,
    ) -> Result<Ticket, ClientError> {
        let ticket = self.ticket();
        self.send(&Request::Logs(Logs { reference: Ref::Number(ticket.0), worker, last, follow }))?;
        Ok(ticket)
    }

    /// Asks for what happened, in the same way; `since_ms`: only what is not older than that.
    pub fn events(
        &mut self,
        worker: Option<Address<'_>>,
        last: Option<u64>,
        follow: bool,
        since_ms: Option<u64>,
    ) -> Result<Ticket, ClientError> {
        let ticket = self.ticket();
        let reference = Ref::Number(ticket.0);
        self.send(&Request::Events(Events { reference, worker, last, follow, since_ms }))?;
        Ok(ticket)
    }

    /// Waits for the next lines or events, after the receipt `waiting`; none at the end, which comes if nobody follows.
    pub fn news(&mut self, ticket: Ticket) -> Result<Option<News<'static>>, ClientError> {
        loop {
            if let Some(at) = self.news.iter().position(|(number, _)| *number == ticket.0) {
                return Ok(self.news.remove(at).map(|(_, news)| news));
            }
            if self.outcomes.contains_key(&ticket.0) {
                return self.outcome(ticket).map(|_| None);
            }
            self.flush()?;
            self.read_one()?;
        }
    }
}
