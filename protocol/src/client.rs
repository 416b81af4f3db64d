//! The client of programs that call: blocking, over any connection that is given to it.

mod news;
mod pause;
mod questions;
mod run;
mod signals;

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::messages::{
    Address, Call, Error, FromSupervisor, Kill, Letters, Message, News, OutcomeBody, Receipt, ReceiptBody, Ref, Reply,
    Request, Until, Wait,
};
use crate::sys;
use crate::wire::{DecodeError, Decoder, EncodeError, Encoding, encode};

/// How many receipts a [`Client`] leaves unread at most while it posts: so few that they do not pile up at
/// the supervisor, so many that each read brings a batch.
const UNREAD_RECEIPTS_MAX: usize = 256;

/// How many bytes of requests are collected before they are written.
const WRITE_BYTES: usize = 32 << 10;

/// How much is read at once, in bytes.
const READ_BYTES: usize = 16 << 10;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection failed or ended. What was asked last may or may not have happened.
    #[error("the connection to the supervisor ended: {0}")]
    Io(#[from] io::Error),
    /// The supervisor did not understand the request; nothing has happened.
    #[error("the supervisor did not understand: {0}")]
    NotUnderstood(String),
    /// There are too many connections, of this user or of all: the supervisor has ended this one before it
    /// took in anything. Nothing has happened.
    #[error("the supervisor has no place for this connection: {0}")]
    TurnedAway(String),
    /// The request was ignored or refused, or is a question: it has this receipt and no outcome.
    #[error("the request has no outcome, only a receipt: {0:?}")]
    NoOutcome(ReceiptBody<'static>),
    /// The request cannot be sent; nothing has happened.
    #[error("{0}")]
    Encode(#[from] EncodeError),
    /// The other side does not speak this protocol.
    #[error("the other side does not speak this protocol: {0}")]
    Protocol(String),
}

/// Which dead letters are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhichLetters<'a> {
    /// The one of this message.
    Message(u64),
    /// Those for the workers of this name.
    Worker(&'a str),
    /// All.
    All,
}

impl<'a> WhichLetters<'a> {
    fn letters(self, ticket: Ticket) -> Letters<'a> {
        let none = Letters { reference: Ref::Number(ticket.0), message: None, worker: None, all: false };
        match self {
            WhichLetters::Message(message) => Letters { message: Some(message), ..none },
            WhichLetters::Worker(worker) => Letters { worker: Some(Cow::Borrowed(worker)), ..none },
            WhichLetters::All => Letters { all: true, ..none },
        }
    }
}

/// A request whose answers are still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// A connection to a supervisor, for programs that are not workers (rule W8).
///
/// Blocking, over any connected stream socket. While a write would have to wait, it reads: the supervisor
/// stops reading from a peer that leaves many answers unread, and two that wait for each other to read would
/// wait for ever. What was read is kept until it is taken, so the memory of a client grows with what it has
/// asked for and not taken. The time-outs of the socket are kept: a write that does not get on for as long as its
/// write time-out fails with [`io::ErrorKind::WouldBlock`], and can be gone on with by [`Client::flush`]. A request that
/// fails so was not posted; one that was has its ticket.
///
/// ```no_run
/// use workhall_protocol::{Client, args::Payload, messages::Call};
/// let mut client = Client::connect("/run/workhall/workhall.sock")?;
/// let receipt = client.call(Call::new("counter", "add", Payload::encode(&(5,)).unwrap()))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    decoder: Decoder,
    out: Vec<u8>,
    next_ref: u64,
    /// Posted, receipt not read yet; receipts come in the order of the requests or, for a kill, later.
    unread: usize,
    receipts: HashMap<u64, Result<ReceiptBody<'static>, String>>,
    outcomes: HashMap<u64, OutcomeBody<'static>>,
    /// Lines and events that were read and not taken, in order.
    news: VecDeque<(u64, News<'static>)>,
    /// Made by [`Client::post`], and not known to be accepted; in order.
    posts: VecDeque<u64>,
    /// Those of them that were not, with their receipts above.
    failed_posts: Vec<Ticket>,
}

impl Client<UnixStream> {
    /// Connects to the socket at `path`.
    pub fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        UnixStream::connect(path).map(Client::new)
    }
}

impl<S: Read + AsFd> Client<S> {
    /// Speaks over a connection that is already made.
    pub fn new(stream: S) -> Self {
        Client {
            stream,
            decoder: Decoder::default(),
            out: Vec::new(),
            next_ref: 0,
            unread: 0,
            receipts: HashMap::new(),
            outcomes: HashMap::new(),
            news: VecDeque::new(),
            posts: VecDeque::new(),
            failed_posts: Vec::new(),
        }
    }

    /// The connection below, to set its time-outs for example.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Posts a call and waits for its receipt (not for its execution, rule C1).
    pub fn call(&mut self, call: Call<'_>) -> Result<ReceiptBody<'static>, ClientError> {
        let ticket = self.submit(call)?;
        self.receipt(ticket)
    }

    /// Posts a call and waits for its outcome; a call that was not accepted has its receipt only.
    pub fn call_and_wait(
        &mut self,
        call: Call<'_>,
    ) -> Result<(ReceiptBody<'static>, Option<OutcomeBody<'static>>), ClientError> {
        let ticket = self.submit(Call { wait: true, ..call })?;
        let receipt = self.receipt(ticket)?;
        let outcome = match receipt {
            ReceiptBody::Accepted(_) => Some(self.outcome(ticket)?),
            _ => None,
        };
        Ok((receipt, outcome))
    }

    /// Posts a call and waits for its outcome, which is all that comes of an accepted call: one message instead of
    /// two. [`ClientError::NoOutcome`] if it was not accepted.
    pub fn ask(&mut self, call: Call<'_>) -> Result<OutcomeBody<'static>, ClientError> {
        let ticket = self.ticket();
        let reference = Some(Ref::Number(ticket.0));
        self.send(&Request::Call(Call { reference, wait: true, brief: true, ..call }))?;
        let outcome = self.outcome(ticket)?;
        // It stands for the receipt.
        self.unread = self.unread.saturating_sub(1);
        Ok(outcome)
    }

    /// Posts one of many calls, for whose outcomes nobody waits. The supervisor says in one word that it has accepted
    /// many; what it has not accepted, [`Self::posted`] tells. Not with `wait`.
    pub fn post(&mut self, call: Call<'_>) -> Result<Ticket, ClientError> {
        let ticket = self.ticket();
        let reference = Some(Ref::Number(ticket.0));
        self.send(&Request::Call(Call { reference, wait: false, brief: true, ..call }))?;
        self.posts.push_back(ticket.0);
        Ok(ticket)
    }

    /// Waits until all calls that were made by [`Self::post`] are in their mailboxes, or refused or ignored: those it
    /// returns, in order, with their receipts.
    pub fn posted(&mut self) -> Result<Vec<(Ticket, ReceiptBody<'static>)>, ClientError> {
        while !self.posts.is_empty() {
            self.flush()?;
            self.read_one()?;
        }
        let mut failed = std::mem::take(&mut self.failed_posts);
        failed.sort_unstable_by_key(|ticket| ticket.0);
        failed.into_iter().map(|ticket| Ok((ticket, self.receipt(ticket)?))).collect()
    }

    /// Posts a call without waiting for its receipt: for those who post many. Requests are
    /// collected and written together; [`Self::receipt`] or [`Self::flush`] sends the rest.
    /// Every ticket's receipt (and outcome, with `wait`) is kept until it is taken; a receipt
    /// that is not taken before the outcome is dropped with it.
    pub fn submit(&mut self, call: Call<'_>) -> Result<Ticket, ClientError> {
        let ticket = self.ticket();
        self.send(&Request::Call(Call { reference: Some(Ref::Number(ticket.0)), ..call }))?;
        Ok(ticket)
    }

    /// Kills a worker; the receipt comes at once, the outcome (with `wait`) when the process is gone.
    pub fn kill(&mut self, kill: Kill<'_>) -> Result<Ticket, ClientError> {
        let ticket = self.ticket();
        self.send(&Request::Kill(Kill { reference: Some(Ref::Number(ticket.0)), ..kill }))?;
        Ok(ticket)
    }

    /// Asks to be told when a worker is in some state; the receipt comes at once, the outcome when it is.
    pub fn wait(&mut self, worker: Address<'_>, until: Until) -> Result<Ticket, ClientError> {
        let ticket = self.ticket();
        self.send(&Request::Wait(Wait { reference: Ref::Number(ticket.0), worker, until }))?;
        Ok(ticket)
    }

    /// Waits for the receipt of a request. It can be taken once, and not after the outcome.
    pub fn receipt(&mut self, ticket: Ticket) -> Result<ReceiptBody<'static>, ClientError> {
        loop {
            if let Some(receipt) = self.receipts.remove(&ticket.0) {
                return receipt.map_err(ClientError::NotUnderstood);
            }
            self.flush()?;
            self.read_one()?;
        }
    }

    /// Waits for the outcome of a request that was made with `wait`. If the receipt, not taken yet,
    /// says that there will be none, that is the error. With the outcome the receipt is dropped
    /// if nobody took it, so that receipts do not pile up; who wants both takes the receipt first.
    pub fn outcome(&mut self, ticket: Ticket) -> Result<OutcomeBody<'static>, ClientError> {
        loop {
            if let Some(outcome) = self.outcomes.remove(&ticket.0) {
                self.receipts.remove(&ticket.0);
                return Ok(outcome);
            }
            match self.receipts.get(&ticket.0) {
                // The outcome is still to come.
                None | Some(Ok(ReceiptBody::Accepted(_) | ReceiptBody::Killed { .. } | ReceiptBody::Waiting {})) => {}
                Some(_) => {
                    return self.receipt(ticket).and_then(|receipt| Err(ClientError::NoOutcome(receipt)));
                }
            }
            self.flush()?;
            self.read_one()?;
        }
    }

    /// Whether [`Client::outcome`] would return at once: the outcome was read, or a receipt that says there is none.
    pub fn has_outcome(&self, ticket: Ticket) -> bool {
        let goes_on = |receipt: &_| {
            matches!(receipt, Ok(ReceiptBody::Accepted(_) | ReceiptBody::Killed { .. } | ReceiptBody::Waiting {}))
        };
        self.outcomes.contains_key(&ticket.0) || self.receipts.get(&ticket.0).is_some_and(|receipt| !goes_on(receipt))
    }

    /// Waits until [`Client::has_outcome`] holds for one of these requests, and says for which: the first of them, if
    /// for several.
    pub fn first_outcome(&mut self, tickets: &[Ticket]) -> Result<Ticket, ClientError> {
        loop {
            if let Some(ticket) = tickets.iter().find(|ticket| self.has_outcome(**ticket)) {
                return Ok(*ticket);
            }
            self.flush()?;
            self.read_one()?;
        }
    }

    /// Writes what was submitted so far.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        let mut written = 0;
        let result = self.write(&mut written);
        self.out.drain(..written);
        match result {
            // Who is gone may have said why; one that only takes nothing in would be waited for.
            Err(ClientError::Io(error)) if has_gone(&error) => {
                Err(self.turned_away().unwrap_or(ClientError::Io(error)))
            }
            other => other,
        }
    }

    /// Whether something was submitted that is not written yet.
    pub fn has_unsent(&self) -> bool {
        !self.out.is_empty()
    }

    fn write(&mut self, written: &mut usize) -> Result<(), ClientError> {
        while *written < self.out.len() {
            match sys::send_now(&self.stream, &self.out[*written..])? {
                Some(count) => *written += count,
                None if sys::wait_to_write(&self.stream)?.readable => {
                    self.read_more()?;
                    while self.take_one()? {}
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Why the connection has ended before it began, if the supervisor has left word.
    fn turned_away(&mut self) -> Option<ClientError> {
        match self.read_one() {
            Err(error @ ClientError::TurnedAway(_)) => Some(error),
            _ => None,
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ref += 1;
        Ticket(self.next_ref)
    }

    fn send(&mut self, request: &Request<'_>) -> Result<(), ClientError> {
        while self.unread >= UNREAD_RECEIPTS_MAX {
            self.flush()?;
            self.read_one()?;
        }
        // What does not get on fails here, before anything is posted: whoever has no ticket may post it again.
        if self.out.len() >= WRITE_BYTES {
            self.flush()?;
        }
        encode(request, Encoding::Binary, &mut self.out)?;
        self.unread += 1;
        if self.out.len() >= WRITE_BYTES {
            match self.flush() {
                Err(ClientError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
        Ok(())
    }

    /// Takes in one message, reading if none is there.
    fn read_one(&mut self) -> Result<(), ClientError> {
        while !self.take_one()? {
            self.read_more()?;
        }
        Ok(())
    }

    fn read_more(&mut self) -> Result<(), ClientError> {
        let stream = &mut self.stream;
        let read = loop {
            match self.decoder.fill(READ_BYTES, |room| stream.read(room)) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        match read {
            0 => Err(ClientError::Io(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    /// Takes in one message of those that were read; says whether there was one.
    fn take_one(&mut self) -> Result<bool, ClientError> {
        // This client speaks in binary frames. Only who was not heard at all is answered otherwise.
        let turned_away = self.decoder.encoding() == Some(Encoding::Json);
        let reply = match self.decoder.next::<FromSupervisor>() {
            Ok(Some(Reply::Error(Error { reference: None, detail }))) if turned_away => {
                return Err(ClientError::TurnedAway(detail.into_owned()));
            }
            Ok(Some(reply)) => reply,
            Ok(None) => return Ok(false),
            Err(DecodeError::Message { reason, .. } | DecodeError::Stream(reason)) => {
                return Err(ClientError::Protocol(reason));
            }
        };
        let kind = reply.kind();
        let (number, keep) = match reply {
            Reply::Receipt(Receipt { reference, body: ReceiptBody::AcceptedAll { messages } }) => {
                (number(&reference), Kept::Accepted(messages))
            }
            Reply::Receipt(r) => (number(&r.reference), Kept::Receipt(Ok(r.body.into_owned()))),
            Reply::Outcome(o) => (number(&o.reference), Kept::Outcome(o.body.into_owned())),
            Reply::News(news) => {
                let items = news.items.into_owned();
                (number(&news.reference), Kept::News(News { reference: news.reference, lost: news.lost, items }))
            }
            Reply::Error(e) => match e.reference {
                Some(reference) => (number(&reference), Kept::Receipt(Err(e.detail.into_owned()))),
                None => {
                    // Whichever request it answers has no other receipt to come.
                    self.unread = self.unread.saturating_sub(1);
                    return Err(ClientError::NotUnderstood(e.detail.into_owned()));
                }
            },
            Reply::Welcome(_) | Reply::Task(_) | Reply::Kill(_) | Reply::Cancelled(_) => (None, Kept::Nothing),
        };
        match (number, keep) {
            (Some(last), Kept::Accepted(messages)) => {
                self.unread = self.unread.saturating_sub(messages as usize);
                // What was not accepted of them has its own receipt, which came before.
                while self.posts.pop_front_if(|post| *post <= last).is_some() {}
            }
            (Some(n), Kept::Receipt(receipt)) => {
                self.unread = self.unread.saturating_sub(1);
                self.receipts.insert(n, receipt);
                if let Ok(at) = self.posts.binary_search(&n) {
                    self.posts.remove(at);
                    self.failed_posts.push(Ticket(n));
                }
            }
            (Some(n), Kept::Outcome(outcome)) => {
                self.outcomes.insert(n, outcome);
            }
            (Some(n), Kept::News(news)) => self.news.push_back((n, news)),
            _ => return Err(ClientError::Protocol(format!("unexpected message kind {kind}"))),
        }
        Ok(true)
    }
}

enum Kept {
    Accepted(u64),
    Receipt(Result<ReceiptBody<'static>, String>),
    Outcome(OutcomeBody<'static>),
    News(News<'static>),
    Nothing,
}

fn has_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn number(reference: &Ref) -> Option<u64> {
    match reference {
        Ref::Number(number) => Some(*number),
        Ref::Text(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Payload;
    use crate::messages::{Accepted, DeadReason, Ignored, List, Outcome, Receipt, Refusal, ToSupervisor};
    use std::io::Write as _;
    use std::thread;
    use std::time::Duration;

    /// Runs `user` with a client whose other side is `supervisor`: it is called with every request, and
    /// once with none after each read; what it returns is written, and the connection ends at its `None`.
    fn with_supervisor(
        mut supervisor: impl FnMut(Option<Request<'_>>) -> Option<Vec<Reply<'static>>> + Send,
        user: impl FnOnce(Client<UnixStream>),
    ) {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_read_timeout(Some(Duration::from_secs(60))).unwrap(); // a hang is an error
        near.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut decoder = Decoder::default();
                loop {
                    if decoder.fill(64 << 10, |room| far.read(room)).unwrap_or(0) == 0 {
                        return;
                    }
                    let mut out = Vec::new();
                    loop {
                        let request = decoder.next::<ToSupervisor>().unwrap();
                        let last = request.is_none();
                        let Some(replies) = supervisor(request) else { return };
                        for reply in replies {
                            encode(&reply, Encoding::Binary, &mut out).unwrap();
                        }
                        if last {
                            break;
                        }
                    }
                    if far.write_all(&out).is_err() {
                        return;
                    }
                }
            });
            user(Client::new(near));
        });
    }

    fn call(id: u64) -> Call<'static> {
        Call { worker: Address::Number(id), ..Call::new("", "m", Payload::no_args()) }
    }

    fn accepted(reference: Ref, message: u64) -> Reply<'static> {
        let body = ReceiptBody::Accepted(Accepted { worker: "w".into(), number: 2, message });
        Reply::Receipt(Receipt { reference, body })
    }

    fn waiting(reference: Ref) -> Reply<'static> {
        Reply::Receipt(Receipt { reference, body: ReceiptBody::Waiting {} })
    }

    fn reached(reference: Ref) -> Reply<'static> {
        Reply::Outcome(Outcome { reference, body: OutcomeBody::Reached {} })
    }

    fn failed(reference: Ref, error: String) -> Reply<'static> {
        Reply::Outcome(Outcome { reference, body: OutcomeBody::Failed { error: error.into() } })
    }

    #[test]
    fn ten_thousand_calls_with_answers_in_any_order() {
        const CALLS: u64 = 10_000;
        let mut due = Vec::new();
        let supervisor = |request: Option<Request<'_>>| match request {
            Some(Request::Call(Call { worker: Address::Number(id), reference, wait, .. })) => {
                let reference = reference.expect("submit sets it");
                if wait {
                    due.push(failed(reference.clone(), format!("outcome {id}")));
                }
                due.push(accepted(reference, id));
                Some(Vec::new())
            }
            Some(other) => panic!("{other:?}"),
            // Everything that came with one read is answered backwards: outcomes behind and before receipts.
            None => {
                due.reverse();
                let middle = due.len() / 3;
                due.rotate_left(middle);
                Some(std::mem::take(&mut due))
            }
        };
        with_supervisor(supervisor, |mut client| {
            let tickets: Vec<_> =
                (0..CALLS).map(|id| client.submit(Call { wait: id % 3 == 0, ..call(id) }).unwrap()).collect();
            assert!(client.unread <= UNREAD_RECEIPTS_MAX);
            for (id, ticket) in (0..CALLS).rev().zip(tickets.iter().rev()) {
                let ReceiptBody::Accepted(accepted) = client.receipt(*ticket).unwrap() else { panic!("{id}") };
                assert_eq!(accepted.message, id);
            }
            for (id, ticket) in (0..CALLS).zip(&tickets).filter(|(id, _)| id % 3 == 0) {
                assert_eq!(
                    client.outcome(*ticket).unwrap(),
                    OutcomeBody::Failed { error: format!("outcome {id}").into() }
                );
            }
            assert_eq!((client.unread, client.receipts.len(), client.outcomes.len()), (0, 0, 0));
        });
    }

    #[test]
    fn receipts_that_nobody_takes_go_with_the_outcome() {
        const ROUNDS: usize = 3 * UNREAD_RECEIPTS_MAX;
        let supervisor = |request: Option<Request<'_>>| {
            Some(match request {
                Some(Request::Wait(Wait { reference, .. })) => vec![waiting(reference.clone()), reached(reference)],
                Some(Request::Call(Call { reference: Some(reference), .. })) => {
                    vec![accepted(reference.clone(), 1), failed(reference, String::new())]
                }
                Some(Request::Kill(Kill { reference: Some(reference), .. })) => {
                    let body = ReceiptBody::Killed { discarded: 1 };
                    vec![Reply::Receipt(Receipt { reference: reference.clone(), body }), reached(reference)]
                }
                Some(other) => panic!("{other:?}"),
                None => Vec::new(),
            })
        };
        with_supervisor(supervisor, |mut client| {
            let mut tickets = Vec::new();
            for _ in 0..ROUNDS {
                tickets.push(client.wait("w".into(), Until::Gone).unwrap());
                tickets.push(client.submit(Call { wait: true, ..call(1) }).unwrap());
                tickets.push(client.kill(Kill { wait: true, ..Kill::default() }).unwrap());
                assert!(client.unread <= UNREAD_RECEIPTS_MAX);
            }
            for ticket in tickets {
                client.outcome(ticket).unwrap();
            }
            assert_eq!((client.unread, client.receipts.len(), client.outcomes.len()), (0, 0, 0));
            // Who wants both takes the receipt first.
            let ticket = client.wait("w".into(), Until::Gone).unwrap();
            assert_eq!(client.receipt(ticket).unwrap(), ReceiptBody::Waiting {});
            assert_eq!(client.outcome(ticket).unwrap(), OutcomeBody::Reached {});
            assert_eq!((client.unread, client.receipts.len(), client.outcomes.len()), (0, 0, 0));
        });
    }

    /// The receipt is read long before the outcome is there.
    #[test]
    fn a_wait_is_not_over_with_its_receipt() {
        let mut due = None;
        let supervisor = |request: Option<Request<'_>>| {
            Some(match request {
                Some(Request::Wait(Wait { reference, .. })) => {
                    due = Some(reached(reference.clone()));
                    vec![waiting(reference)]
                }
                Some(Request::Call(Call { reference: Some(reference), .. })) => {
                    due.take().into_iter().chain([accepted(reference, 1)]).collect()
                }
                Some(other) => panic!("{other:?}"),
                None => Vec::new(),
            })
        };
        with_supervisor(supervisor, |mut client| {
            let wait = client.wait("w".into(), Until::Idle).unwrap();
            let call = client.submit(call(1)).unwrap();
            assert_eq!(client.outcome(wait).unwrap(), OutcomeBody::Reached {});
            assert!(client.receipts.is_empty());
            assert!(matches!(client.receipt(call), Ok(ReceiptBody::Accepted(_))));
            assert_eq!((client.unread, client.receipts.len(), client.outcomes.len()), (0, 0, 0));
        });
    }

    /// One request each, one answer each, what the client says of it.
    #[test]
    fn each_answer_is_what_it_is() {
        let supervisor = |request: Option<Request<'_>>| {
            let Some(request) = request else { return Some(Vec::new()) };
            Some(vec![match request {
                Request::Call(Call { worker: Address::Number(id), reference: Some(reference), .. }) => match id {
                    1 => Reply::Error(Error { reference: Some(reference), detail: "kind 4".into() }),
                    2 => Reply::Error(Error { reference: None, detail: "no ref".into() }),
                    3 => {
                        let body = ReceiptBody::Refused { reason: Refusal::NoClass, detail: "none".into() };
                        Reply::Receipt(Receipt { reference, body })
                    }
                    4 => {
                        let body = OutcomeBody::Dead { reason: DeadReason::Crashed, exit: None, may_have_run: true };
                        return Some(vec![
                            Reply::Outcome(Outcome { reference: reference.clone(), body }),
                            accepted(reference, 4),
                        ]);
                    }
                    5 => Reply::Kill(crate::messages::Ask {}),
                    _ => return None,
                },
                Request::Kill(Kill { reference: Some(reference), .. }) => {
                    Reply::Receipt(Receipt { reference, body: ReceiptBody::Ignored { reason: Ignored::NoWorker } })
                }
                Request::Wait(Wait { reference, .. }) => {
                    return Some(vec![waiting(reference.clone()), reached(reference)]);
                }
                Request::List(List { reference, .. }) => {
                    Reply::Receipt(Receipt { reference, body: ReceiptBody::Report(Payload::no_args()) })
                }
                other => panic!("{other:?}"),
            }])
        };
        with_supervisor(supervisor, |mut client| {
            assert!(matches!(client.call(call(1)), Err(ClientError::NotUnderstood(detail)) if detail == "kind 4"));
            let ticket = client.submit(call(1)).unwrap();
            assert!(matches!(client.outcome(ticket), Err(ClientError::NotUnderstood(detail)) if detail == "kind 4"));
            // An error without a reference is no receipt that is still to come.
            for _ in 0..2 * UNREAD_RECEIPTS_MAX {
                assert!(matches!(client.call(call(2)), Err(ClientError::NotUnderstood(detail)) if detail == "no ref"));
            }
            let (receipt, outcome) = client.call_and_wait(call(3)).unwrap();
            assert!(matches!((receipt, outcome), (ReceiptBody::Refused { reason: Refusal::NoClass, .. }, None)));
            let (receipt, outcome) = client.call_and_wait(call(4)).unwrap();
            assert!(matches!(receipt, ReceiptBody::Accepted(_)));
            assert!(matches!(outcome, Some(OutcomeBody::Dead { reason: DeadReason::Crashed, .. })));
            // Who asks for an outcome that will not come is told so.
            let ticket = client.submit(Call { wait: true, ..call(3) }).unwrap();
            assert!(matches!(client.outcome(ticket), Err(ClientError::NoOutcome(ReceiptBody::Refused { .. }))));
            let ticket = client.kill(Kill { wait: true, ..Kill::default() }).unwrap();
            assert!(matches!(client.outcome(ticket), Err(ClientError::NoOutcome(ReceiptBody::Ignored { .. }))));
            let ticket = client.wait("w".into(), Until::Idle).unwrap();
            assert_eq!(client.outcome(ticket).unwrap(), OutcomeBody::Reached {});
            assert_eq!(client.list().unwrap(), ReceiptBody::Report(Payload::no_args()));
            assert_eq!(client.unread, 0);
            assert!(matches!(client.call(call(5)), Err(ClientError::Protocol(reason)) if reason.contains("67")));
            assert!(
                matches!(client.call(call(6)), Err(ClientError::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof)
            );
        });
    }

    #[test]
    fn a_request_that_cannot_be_sent_disturbs_nothing() {
        let supervisor = |request: Option<Request<'_>>| match request {
            Some(Request::Call(Call { reference: Some(reference), .. })) => Some(vec![accepted(reference, 1)]),
            _ => Some(Vec::new()),
        };
        with_supervisor(supervisor, |mut client| {
            let before = client.submit(call(1)).unwrap();
            let large = Payload(vec![0; crate::limits::FRAME_BYTES_MAX].into());
            assert!(matches!(client.submit(Call { args: large, ..call(1) }), Err(ClientError::Encode(_))));
            assert!(matches!(client.call(call(1)), Ok(ReceiptBody::Accepted(_))));
            assert!(matches!(client.receipt(before), Ok(ReceiptBody::Accepted(_))));
            assert_eq!(client.unread, 0);
        });
    }

    /// A peer that reads nothing until the client has read much, and a client that posts much before it asks.
    #[test]
    fn neither_side_waits_for_the_other_to_read() {
        const BYTES: usize = 1 << 20;
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_write_timeout(Some(Duration::from_secs(60))).unwrap(); // a hang is an error
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut out = Vec::new();
                for number in 1..=8 {
                    encode(&failed(Ref::Number(number), "x".repeat(BYTES)), Encoding::Binary, &mut out).unwrap();
                }
                far.write_all(&out).unwrap();
                io::copy(&mut far, &mut io::sink()).unwrap();
            });
            let mut client = Client::new(near);
            let tickets: Vec<_> = (0..8)
                .map(|id| {
                    let args = Payload::encode_list(&("y".repeat(BYTES),)).unwrap();
                    client.submit(Call { wait: true, args, ..call(id) }).unwrap()
                })
                .collect();
            for ticket in tickets {
                let OutcomeBody::Failed { error } = client.outcome(ticket).unwrap() else { panic!() };
                assert_eq!(error.len(), BYTES);
            }
        });
    }

    #[test]
    fn a_write_that_does_not_get_on_ends_with_the_time_out_and_can_be_gone_on_with() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut client = Client::new(near);
        let args = Payload::encode_list(&("y".repeat(4 << 20),)).unwrap();
        let ticket = client.submit(Call { args: args.clone(), ..call(1) }).expect("it is posted, though not written");
        assert!(client.has_unsent());
        for result in [client.submit(call(2)).map(drop), client.flush()] {
            let error = result.unwrap_err();
            assert!(matches!(&error, ClientError::Io(e) if e.kind() == io::ErrorKind::WouldBlock), "{error}");
        }
        thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let (mut decoder, mut calls) = (Decoder::default(), Vec::new());
                while decoder.fill(64 << 10, |room| far.read(room)).unwrap() > 0 {
                    while let Some(Request::Call(call)) = decoder.next::<ToSupervisor>().unwrap() {
                        calls.push((call.reference, call.args.into_owned()));
                    }
                }
                calls
            });
            while client.flush().is_err() {}
            assert!(!client.has_unsent());
            drop(client);
            let posted = reader.join().unwrap();
            assert_eq!(posted, [(Some(Ref::Number(ticket.0)), args)], "once, and not what failed");
        });
    }

    #[test]
    fn who_is_turned_away_is_told_why_whether_it_reads_or_writes_first() {
        let line = b"{\"error\":{\"ref\":null,\"detail\":\"full\"}}\n";
        for close_first in [true, false] {
            let (near, mut far) = UnixStream::pair().unwrap();
            far.write_all(line).unwrap();
            let far = if close_first { None } else { Some(far) };
            let error = Client::new(near).status().unwrap_err();
            assert!(matches!(&error, ClientError::TurnedAway(detail) if detail == "full"), "{error}");
            drop(far);
        }
    }

    #[test]
    fn what_is_not_the_protocol_is_said() {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"HTTP/1.1 400 Bad Request\r\n").unwrap();
        let error = Client::new(near).status().unwrap_err();
        assert!(matches!(&error, ClientError::Protocol(_)) && error.to_string().contains("0x48"), "{error}");
    }
}
