//! How a client of the run speaks: with the library's client in binary frames, or by hand in JSON lines. Either
//! sends a burst of requests and hears exactly what is due: a receipt for each, and an outcome where it waits.

use std::collections::HashMap;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use workhall_protocol::Client;
use workhall_protocol::args::Payload;
use workhall_protocol::client::ClientError;
use workhall_protocol::messages::{
    Address, Call, FromSupervisor, Kill, OutcomeBody, ReceiptBody, Ref, Reply, Request, Status,
};
use workhall_protocol::wire::{Decoder, Encoding, encode};

use super::{PATIENCE, Run};

/// A worker, as one of the two ways names it.
#[derive(Clone, Debug)]
pub enum Whom {
    Name(String),
    Number(u64),
}

impl Whom {
    fn address(&self) -> Address<'_> {
        match self {
            Whom::Name(name) => Address::from(&**name),
            Whom::Number(number) => Address::from(*number),
        }
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    Call { whom: Whom, method: &'static str, args: Value, wait: bool, existing: bool, expires_ms: Option<u64> },
    Kill { whom: Whom, wait: bool, within_ms: Option<u64>, drain: bool, now: bool },
}

impl Ask {
    /// Whether an outcome is asked for.
    pub fn waits(&self) -> bool {
        match self {
            Ask::Call { wait, .. } | Ask::Kill { wait, .. } => *wait,
        }
    }

    fn request(&self) -> Request<'_> {
        match self {
            Ask::Call { whom, method, args, wait, existing, expires_ms } => {
                let args = Payload::from_json(args).expect("the run's own arguments are plain");
                let call = Call::new(whom.address(), method, args);
                Request::Call(Call { wait: *wait, existing: *existing, expires_ms: *expires_ms, ..call })
            }
            Ask::Kill { whom, wait, within_ms, drain, now } => Request::Kill(Kill {
                worker: Some(whom.address()),
                wait: *wait,
                within_ms: *within_ms,
                drain: *drain,
                now: *now,
                reference: None,
            }),
        }
    }
}

/// What comes.
#[derive(Debug)]
pub enum Heard {
    Receipt(ReceiptBody<'static>),
    Outcome(OutcomeBody<'static>),
}

impl Heard {
    /// A receipt behind which an outcome may come.
    fn goes_on(&self) -> bool {
        matches!(self, Heard::Receipt(ReceiptBody::Accepted(_) | ReceiptBody::Killed { .. }))
    }
}

/// Why a burst was not answered.
#[derive(Debug)]
pub enum Error {
    /// The connection has ended.
    Ended(String),
    /// Something that must not be.
    Wrong(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Ended(why) => write!(f, "the connection has ended: {why}"),
            Error::Wrong(what) => f.write_str(what),
        }
    }
}

/// A connection of a client of the run.
pub struct Speaker {
    /// Who is spoken to.
    pub supervisor: i32,
    kind: Kind,
}

enum Kind {
    Library(Box<Client<UnixStream>>),
    ByHand(ByHand),
}

impl Speaker {
    /// Connects, patiently: a supervisor that was killed is started again. None if the run is over.
    pub fn connect(run: &Run, by_hand: bool) -> Option<Speaker> {
        let start = Instant::now();
        while !run.is_over() {
            match Speaker::try_connect(run, by_hand) {
                Ok(speaker) => return Some(speaker),
                Err(_) if run.deaths && start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => {
                    run.violation(format!("a client cannot connect: {error}"));
                    return None;
                }
            }
        }
        None
    }

    /// The same, once.
    pub fn try_connect(run: &Run, by_hand: bool) -> Result<Speaker, String> {
        let stream = UnixStream::connect(&run.socket).map_err(|error| error.to_string())?;
        let timeouts = stream.set_read_timeout(Some(PATIENCE)).and(stream.set_write_timeout(Some(PATIENCE)));
        timeouts.map_err(|error| error.to_string())?;
        let mut kind = match by_hand {
            true => Kind::ByHand(ByHand::new(stream)),
            false => Kind::Library(Box::new(Client::new(stream))),
        };
        let report = match &mut kind {
            Kind::Library(client) => client.status().map_err(|error| error.to_string())?,
            Kind::ByHand(by_hand) => by_hand.status().map_err(|error| error.to_string())?,
        };
        let ReceiptBody::Report(report) = report else { return Err(format!("{report:?}")) };
        let report = report.to_json().map_err(|error| error.to_string())?;
        let supervisor = report["pid"].as_i64().ok_or("a status without a pid")? as i32;
        Ok(Speaker { supervisor, kind })
    }

    /// Asks all, and hears all answers.
    pub fn burst(&mut self, asks: &[Ask], mut heard: impl FnMut(usize, Heard)) -> Result<(), Error> {
        match &mut self.kind {
            Kind::Library(client) => library(client, asks, &mut heard).map_err(|error| match error {
                ClientError::Io(error) if is_timeout(&error) => Error::Wrong(format!("no answer: {error}")),
                ClientError::Io(error) => Error::Ended(error.to_string()),
                other => Error::Wrong(other.to_string()),
            }),
            Kind::ByHand(by_hand) => by_hand.burst(asks, &mut heard),
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

fn library(
    client: &mut Client<UnixStream>,
    asks: &[Ask],
    heard: &mut dyn FnMut(usize, Heard),
) -> Result<(), ClientError> {
    let mut tickets = Vec::new();
    for ask in asks {
        tickets.push(match ask.request() {
            Request::Call(call) => client.submit(call)?,
            Request::Kill(kill) => client.kill(kill)?,
            other => unreachable!("{other:?} is not asked"),
        });
    }
    let mut due = Vec::new();
    for (index, ticket) in tickets.into_iter().enumerate() {
        let receipt = Heard::Receipt(client.receipt(ticket)?);
        if asks[index].waits() && receipt.goes_on() {
            due.push((index, ticket));
        }
        heard(index, receipt);
    }
    for (index, ticket) in due {
        heard(index, Heard::Outcome(client.outcome(ticket)?));
    }
    Ok(())
}

/// JSON lines, counted answer by answer: one too many is noticed.
struct ByHand {
    stream: UnixStream,
    decoder: Decoder,
    next_ref: u64,
}

/// What is still to come for a request: its receipt, its outcome.
type Due = HashMap<Ref, (usize, bool, bool)>;

impl ByHand {
    fn new(stream: UnixStream) -> ByHand {
        ByHand { stream, decoder: Decoder::default(), next_ref: 0 }
    }

    fn status(&mut self) -> Result<ReceiptBody<'static>, Error> {
        let reference = self.reference();
        self.write(&[Request::Status(Status { reference: reference.clone() })])?;
        let mut due = HashMap::from([(reference, (0, true, false))]);
        let mut report = None;
        self.read(&mut due, &mut |_, heard| report = Some(heard))?;
        match report {
            Some(Heard::Receipt(receipt)) => Ok(receipt),
            other => Err(Error::Wrong(format!("{other:?}"))),
        }
    }

    fn burst(&mut self, asks: &[Ask], heard: &mut dyn FnMut(usize, Heard)) -> Result<(), Error> {
        let mut due = HashMap::new();
        let mut requests = Vec::new();
        for (index, ask) in asks.iter().enumerate() {
            let reference = self.reference();
            due.insert(reference.clone(), (index, true, ask.waits()));
            requests.push(match ask.request() {
                Request::Call(call) => Request::Call(Call { reference: Some(reference), ..call }),
                Request::Kill(kill) => Request::Kill(Kill { reference: Some(reference), ..kill }),
                other => other,
            });
        }
        self.write(&requests)?;
        self.read(&mut due, heard)
    }

    fn reference(&mut self) -> Ref {
        self.next_ref += 1;
        match self.next_ref % 2 {
            0 => Ref::Number(self.next_ref),
            _ => Ref::Text(format!("ref {}", self.next_ref)),
        }
    }

    fn write(&mut self, requests: &[Request<'_>]) -> Result<(), Error> {
        let mut out = Vec::new();
        for request in requests {
            encode(request, Encoding::Json, &mut out).expect("the run's own requests are plain");
        }
        self.stream.write_all(&out).map_err(|error| Error::Ended(error.to_string()))
    }

    /// Until nothing is due any more.
    fn read(&mut self, due: &mut Due, heard: &mut dyn FnMut(usize, Heard)) -> Result<(), Error> {
        loop {
            loop {
                let (reference, answer) = match self.decoder.next::<FromSupervisor>() {
                    Ok(None) => break,
                    Ok(Some(Reply::Receipt(receipt))) => (receipt.reference, Heard::Receipt(receipt.body.into_owned())),
                    Ok(Some(Reply::Outcome(outcome))) => (outcome.reference, Heard::Outcome(outcome.body.into_owned())),
                    other => return Err(Error::Wrong(format!("a client was told {other:?}"))),
                };
                let Some((index, receipt, outcome)) = due.get_mut(&reference) else {
                    return Err(Error::Wrong(format!("nobody waits for {reference:?}: {answer:?}")));
                };
                let awaited = match &answer {
                    Heard::Receipt(_) => {
                        *outcome &= answer.goes_on();
                        std::mem::take(receipt)
                    }
                    Heard::Outcome(_) => std::mem::take(outcome),
                };
                if !awaited {
                    return Err(Error::Wrong(format!("{reference:?} is answered twice: {answer:?}")));
                }
                let (index, over) = (*index, !*receipt && !*outcome);
                if over {
                    due.remove(&reference);
                }
                heard(index, answer);
            }
            if due.is_empty() {
                return Ok(());
            }
            let stream = &mut self.stream;
            match self.decoder.fill(16 << 10, |room| stream.read(room)) {
                Ok(0) => return Err(Error::Ended("end of file".into())),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => {
                    return Err(Error::Wrong(format!("no answer within {PATIENCE:?} for {due:?}")));
                }
                Err(error) => return Err(Error::Ended(error.to_string())),
            }
        }
    }
}
