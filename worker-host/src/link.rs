//! The connection of a worker: blocking reads, collected writes.

use std::io::{self, Read as _, Write as _};
use std::path::Path;

use workhall_protocol::MarkPage;
use workhall_protocol::args::Payload;
use workhall_protocol::ids::MessageId;
use workhall_protocol::limits::PROTOCOL_VERSION;
use workhall_protocol::messages::{
    Attach, Done, DoneAll, Dropped, Failed, FromSupervisor, Leave, OutcomeBody, Ready, ReceiptBody, Ref, Request,
    SignalWait,
};
use workhall_protocol::wire::{DecodeError, Decoder, Encoding, encode};

use crate::session::Session;
use crate::sys::{self, Stream};
use crate::{Error, Result};

/// Settlements are collected up to this many bytes.
const WRITE_BYTES: usize = 32 << 10;
const READ_BYTES: usize = 64 << 10;
/// A result for which nobody waits is not sent. A larger one, in bytes, is all the same: it may be too large for the
/// wire, and then its method has failed, whoever waits.
const UNHEARD_BYTES_MAX: usize = 32 << 10;

pub(crate) struct Link {
    pub session: Session,
    stream: Stream,
    decoder: Decoder,
    out: Vec<u8>,
    /// All tasks up to this one have ended well, nobody waits for those that are not settled yet, and it is not said yet.
    ended_well: Option<MessageId>,
    next_ref: u64,
    /// The supervisor's end is closed.
    ended: bool,
}

impl Link {
    /// Takes what the supervisor has handed over: the connection, and the mark page if there is one.
    pub fn inherit() -> Result<(Link, Option<MarkPage>)> {
        let stream = sys::inherited_stream().map_err(Error::NotStartedBySupervisor)?;
        let page = sys::inherited_page()?;
        Ok((Link::new(stream), page))
    }

    /// Connects to a supervisor, and takes a name (rule P2).
    pub fn attach(socket: &Path, name: &str) -> Result<Link> {
        let stream = sys::connect(socket).map_err(|error| Error::NoSupervisor(socket.display().to_string(), error))?;
        let mut link = Link::new(stream);
        link.next_ref += 1;
        let reference = link.next_ref;
        let attach =
            Attach { protocol: PROTOCOL_VERSION, worker: name.into(), reference: Some(Ref::Number(reference)) };
        link.push(&Request::Attach(attach))?;
        while link.session.identity.number == 0 {
            match link.session.take_receipt(reference) {
                Some(Ok(ReceiptBody::Refused { reason, detail })) => {
                    return Err(Error::NotAttached { name: name.to_string(), reason, detail: detail.into_owned() });
                }
                Some(Ok(other)) => return Err(Error::Protocol(format!("unexpected answer: {other:?}"))),
                Some(Err(error)) => return Err(Error::Protocol(error)),
                None if link.read_more()? => {}
                None => return Err(Error::SupervisorGone),
            }
        }
        Ok(link)
    }

    fn new(stream: Stream) -> Link {
        Link {
            session: Session::default(),
            stream,
            decoder: Decoder::default(),
            out: Vec::new(),
            ended_well: None,
            next_ref: 0,
            ended: false,
        }
    }

    /// Gives the name back of one that has attached.
    pub fn leave(&mut self, drain: bool) -> Result {
        self.push(&Request::Leave(Leave { drain }))
    }

    pub fn greet(&mut self, window: u32) -> Result {
        self.push(&Request::Ready(Ready { protocol: PROTOCOL_VERSION, window }))?;
        self.flush()
    }

    /// Says how a task ended; it is written with others, or by [`Link::flush`]. Those for which nobody waits are settled
    /// together, by one word.
    pub fn settle(
        &mut self,
        id: MessageId,
        awaited: bool,
        outcome: std::result::Result<Payload<'static>, String>,
    ) -> Result {
        let pushed = match &outcome {
            Ok(result) if !awaited && result.0.len() <= UNHEARD_BYTES_MAX => {
                self.ended_well = Some(id);
                return Ok(());
            }
            Ok(result) => self.push(&Request::Done(Done { id: id.0, result: Payload((&*result.0).into()) })),
            Err(error) => self.push(&Request::Failed(Failed { id: id.0, error: error.as_str().into() })),
        };
        match pushed {
            // A result that is too large for the wire is the method's failure, not the worker's.
            Err(Error::Arguments(reason)) => {
                let error = format!("the result cannot be sent: {reason}");
                self.push(&Request::Failed(Failed { id: id.0, error: error.into() }))?;
                self.flush()
            }
            other => other,
        }
    }

    /// Says that a task is not executed because it is not wanted any more. At once: a mark behind it would say that it was.
    pub fn drop_task(&mut self, id: MessageId) -> Result {
        self.push(&Request::Dropped(Dropped { id: id.0 }))?;
        self.flush()
    }

    /// Sends a request with a reference of its own and waits for its receipt. Tasks that come meanwhile
    /// wait for their turn.
    pub fn ask<'a>(&mut self, request: impl FnOnce(u64) -> Request<'a>) -> Result<ReceiptBody<'static>> {
        self.next_ref += 1;
        let reference = self.next_ref;
        self.push(&request(reference))?;
        loop {
            if let Some(receipt) = self.session.take_receipt(reference) {
                return receipt.map_err(Error::Protocol);
            }
            if !self.read_more()? {
                return Err(Error::SupervisorGone);
            }
        }
    }

    /// Waits for a signal: its receipt first, then, if that says so, its outcome.
    pub fn wait_for_signal(
        &mut self,
        signal: String,
        timeout_ms: Option<u64>,
    ) -> Result<std::result::Result<OutcomeBody<'static>, ReceiptBody<'static>>> {
        let receipt = self.ask(|reference| {
            Request::SignalWait(SignalWait { reference: reference.into(), signal: signal.into(), timeout_ms })
        })?;
        let ReceiptBody::Waiting {} = receipt else { return Ok(Err(receipt)) };
        let reference = self.next_ref;
        loop {
            if let Some(outcome) = self.session.take_outcome(reference) {
                return Ok(Ok(outcome));
            }
            if !self.read_more()? {
                return Err(Error::SupervisorGone);
            }
        }
    }

    /// Takes in what has come, without waiting for more.
    pub fn look(&mut self) -> Result {
        while !self.ended && sys::has_come(&self.stream)? {
            self.read_more()?;
        }
        Ok(())
    }

    /// Takes in what comes next, waiting for it. False at the supervisor's end.
    pub fn read_more(&mut self) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        self.flush()?;
        let mut stream = &self.stream;
        let read = loop {
            match self.decoder.fill(READ_BYTES, |room| stream.read(room)) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => break 0,
                other => break other?,
            }
        };
        if read == 0 {
            self.ended = true;
            self.session.end();
            return Ok(false);
        }
        loop {
            match self.decoder.next::<FromSupervisor>() {
                Ok(Some(reply)) => self.session.take_in(reply).map_err(Error::Protocol)?,
                Ok(None) => return Ok(true),
                // A later supervisor may have more to say than this library knows.
                Err(DecodeError::Message { unknown: true, .. }) => {}
                Err(DecodeError::Message { reason, .. } | DecodeError::Stream(reason)) => {
                    return Err(Error::Protocol(reason));
                }
            }
        }
    }

    /// Writes what was collected. If the supervisor is gone no further task is begun: its sockets are closed an
    /// instant before this process has another parent, so that alone would tell too late.
    pub fn flush(&mut self) -> Result {
        self.say_ended_well()?;
        let mut stream = &self.stream;
        let written = stream.write_all(&self.out);
        self.out.clear();
        match written {
            Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                self.ended = true;
                self.session.end();
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Whether the supervisor's end is closed.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The last words.
    pub fn end(mut self) -> Result {
        self.flush()
    }

    /// Settlements come in the order of the tasks, and before what was said later.
    fn push(&mut self, request: &Request<'_>) -> Result {
        self.say_ended_well()?;
        self.append(request)?;
        if self.out.len() >= WRITE_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn say_ended_well(&mut self) -> Result {
        match self.ended_well.take() {
            Some(MessageId(id)) => self.append(&Request::DoneAll(DoneAll { id })),
            None => Ok(()),
        }
    }

    fn append(&mut self, request: &Request<'_>) -> Result {
        encode(request, Encoding::Binary, &mut self.out).map_err(|error| Error::Arguments(error.to_string()))
    }
}
