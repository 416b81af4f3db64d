//! A signal as a value (rules S1–S5): it goes through serde anywhere in the arguments of a call, and what comes out on the
//! other side is the same signal.
//!
//! ```no_run
//! use std::time::Duration;
//! use workhall_protocol::{Client, Signal, args::Payload, messages::Call};
//!
//! let mut client = Client::connect("/run/workhall/workhall.sock")?;
//! let counted = Signal::new(&mut client, "the pages are counted")?;
//! client.call(Call::new("pages", "count", Payload::encode_list(&("book.txt", &counted))?))?;
//! if counted.wait(&mut client, Some(Duration::from_secs_f64(2.5)))? {
//!     let pages: Option<u64> = counted.get(&mut client, "pages")?;
//!     println!("{pages:?}");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! It knows no connection: each of its methods is given one, that of a [`crate::Client`] or the context of a worker.

use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::args::{ArgsError, Payload};
use crate::ids::SignalId;
use crate::messages::{
    OutcomeBody, ReceiptBody, Ref, Request, SignalFree, SignalGet, SignalNew, SignalSet, SignalTrigger,
};
use crate::terms::{Ignored, Refusal};

/// A connection on which signals can be asked for.
pub trait SignalLink {
    /// Why there is no answer.
    type Error;

    /// Sends a request, and waits for its receipt.
    fn ask_signal<'a>(&mut self, request: impl FnOnce(Ref) -> Request<'a>)
    -> Result<ReceiptBody<'static>, Self::Error>;

    /// Waits for a signal. The inner error is a receipt that says that nothing was waited for.
    fn await_signal(
        &mut self,
        id: SignalId,
        timeout: Option<Duration>,
    ) -> Result<Result<OutcomeBody<'static>, ReceiptBody<'static>>, Self::Error>;
}

/// Why something was not done with a signal.
#[derive(Debug, thiserror::Error)]
pub enum SignalError<E> {
    /// The connection gave no answer.
    #[error("{0}")]
    Link(E),
    /// There is no such signal: nobody holds it any more.
    #[error("there is no such signal: nobody holds it any more")]
    NoSignal,
    /// It was triggered: its values do not change any more.
    #[error("the signal was triggered already: its values do not change any more")]
    AlreadyTriggered,
    /// The supervisor refuses; nothing has happened.
    #[error("refused: {detail}")]
    Refused {
        /// For programs.
        reason: Refusal,
        /// For people.
        detail: String,
    },
    /// The message that was to trigger it has ended without doing so (rule S5); this is what came of it. Or
    /// [`OutcomeBody::Lost`]: nobody is left who was to trigger it.
    #[error("the signal will not be triggered: {0:?}")]
    Ended(Box<OutcomeBody<'static>>),
    /// A value that cannot be sent, or is not of the type that was asked for.
    #[error("{0}")]
    Value(#[from] ArgsError),
    /// The supervisor has said something else than what was asked.
    #[error("the supervisor answers with something else: {0}")]
    Unexpected(String),
}

/// Something that is triggered once, and for which any number may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signal(SignalId);

impl Signal {
    /// Makes one, held by this connection as long as it is there.
    pub fn new<L: SignalLink>(link: &mut L, description: &str) -> Result<Signal, SignalError<L::Error>> {
        let description = (!description.is_empty()).then(|| description.into());
        let request = |reference| Request::SignalNew(SignalNew { reference, description, keep_ms: None });
        match link.ask_signal(request).map_err(SignalError::Link)? {
            ReceiptBody::Signal { id } => {
                SignalId::parse(&id).map(Signal).ok_or_else(|| SignalError::Unexpected(id.into_owned()))
            }
            other => Err(undone(other)),
        }
    }

    /// What it is known by.
    pub fn id(&self) -> SignalId {
        self.0
    }

    /// Triggers it: all who wait go on. False if it was triggered before (rule S2).
    pub fn trigger<L: SignalLink>(&self, link: &mut L) -> Result<bool, SignalError<L::Error>> {
        let signal = self.0.to_string().into();
        let request = |reference| Request::SignalTrigger(SignalTrigger { reference: Some(reference), signal });
        signalled(link.ask_signal(request).map_err(SignalError::Link)?)
    }

    /// Waits until it is triggered: true, at once if it was already. False when the time ran out; zero only looks, without
    /// a time it may wait for ever. Uses no processor time (rule S3). An error if the message that was to trigger it has
    /// ended without doing so (rule S5). A worker that waits for a message to itself waits in vain: it executes one
    /// message at a time, and this one has not ended.
    pub fn wait<L: SignalLink>(&self, link: &mut L, timeout: Option<Duration>) -> Result<bool, SignalError<L::Error>> {
        match link.await_signal(self.0, timeout).map_err(SignalError::Link)? {
            Ok(OutcomeBody::Triggered { .. }) => Ok(true),
            Ok(OutcomeBody::TimedOut {}) => Ok(false),
            Ok(other) => Err(SignalError::Ended(Box::new(other))),
            Err(receipt) => Err(undone(receipt)),
        }
    }

    /// Whether it was triggered.
    pub fn signaled<L: SignalLink>(&self, link: &mut L) -> Result<bool, SignalError<L::Error>> {
        Ok(self.report(link)?.triggered)
    }

    /// Writes a value, before the trigger (rule S4).
    pub fn set<L: SignalLink>(
        &self,
        link: &mut L,
        key: &str,
        value: &(impl Serialize + ?Sized),
    ) -> Result<(), SignalError<L::Error>> {
        let (signal, value) = (self.0.to_string().into(), Payload::encode(value)?);
        let request =
            |reference| Request::SignalSet(SignalSet { reference: Some(reference), signal, key: key.into(), value });
        signalled(link.ask_signal(request).map_err(SignalError::Link)?).map(drop)
    }

    /// Reads a value, after the trigger (rule S4). None before it, or if it was not written.
    pub fn get<T: DeserializeOwned, L: SignalLink>(
        &self,
        link: &mut L,
        key: &str,
    ) -> Result<Option<T>, SignalError<L::Error>> {
        let values = self.report(link)?.values;
        let value = values.as_ref().and_then(|values| values.get(key));
        Ok(value.map(|value| Payload::from_json(value)?.decode()).transpose()?)
    }

    /// Reads all values at once, after the trigger, as a map or a struct (rule S4). None before it.
    pub fn values<T: DeserializeOwned, L: SignalLink>(&self, link: &mut L) -> Result<Option<T>, SignalError<L::Error>> {
        let values = self.report(link)?.values.map(serde_json::Value::Object);
        Ok(values.map(|values| Payload::from_json(&values)?.decode()).transpose()?)
    }

    /// This connection holds it no more. It lives on as long as a message carries it, or a process that has executed one
    /// lives.
    pub fn free<L: SignalLink>(&self, link: &mut L) -> Result<(), SignalError<L::Error>> {
        let signal = self.0.to_string().into();
        let request = |reference| Request::SignalFree(SignalFree { reference: Some(reference), signal });
        signalled(link.ask_signal(request).map_err(SignalError::Link)?).map(drop)
    }

    fn report<L: SignalLink>(&self, link: &mut L) -> Result<Report, SignalError<L::Error>> {
        let signal = self.0.to_string().into();
        let request = |reference| Request::SignalGet(SignalGet { reference, signal });
        match link.ask_signal(request).map_err(SignalError::Link)? {
            ReceiptBody::Report(report) => Ok(serde_json::from_value(report.to_json()?)
                .map_err(|error| SignalError::Unexpected(error.to_string()))?),
            other => Err(undone(other)),
        }
    }
}

/// What is read of the answer to `signal_get`.
#[derive(Deserialize)]
struct Report {
    triggered: bool,
    values: Option<serde_json::Map<String, serde_json::Value>>,
}

impl From<SignalId> for Signal {
    fn from(id: SignalId) -> Signal {
        Signal(id)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(SignalId::KEY, &self.0.to_string())?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, expecting = "a signal: an object with the one key `$signal`")]
        struct Written {
            #[serde(rename = "$signal")]
            id: String,
        }
        let Written { id } = Written::deserialize(deserializer)?;
        SignalId::parse(&id).map(Signal).ok_or_else(|| D::Error::custom(format!("`{id}` is not the id of a signal")))
    }
}

fn signalled<E>(receipt: ReceiptBody<'static>) -> Result<bool, SignalError<E>> {
    match receipt {
        ReceiptBody::Signalled { first } => Ok(first),
        other => Err(undone(other)),
    }
}

fn undone<E>(receipt: ReceiptBody<'static>) -> SignalError<E> {
    match receipt {
        ReceiptBody::Ignored { reason: Ignored::AlreadyTriggered } => SignalError::AlreadyTriggered,
        ReceiptBody::Ignored { .. } => SignalError::NoSignal,
        ReceiptBody::Refused { reason, detail } => SignalError::Refused { reason, detail: detail.into_owned() },
        other => SignalError::Unexpected(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s01_a_signal_goes_through_serde_anywhere_in_the_arguments() {
        let signal = Signal(SignalId([0xab; 16]));
        let args = Payload::encode_list(&(1, vec![("a", signal)], Some(signal))).unwrap();
        assert_eq!(SignalId::find_all(&args.0).collect::<Vec<_>>(), [signal.0, signal.0]);
        type Args = (u8, Vec<(String, Signal)>, Option<Signal>);
        assert_eq!(args.decode::<Args>().unwrap(), (1, vec![("a".to_string(), signal)], Some(signal)));
        let id = "ab".repeat(16);
        assert_eq!(args.to_json().unwrap(), serde_json::json!([1, [["a", {"$signal": id}]], {"$signal": id}]));
        for wrong in
            [serde_json::json!([{"$signal": "ab"}]), serde_json::json!([{"signal": id}]), serde_json::json!([7])]
        {
            let error = Payload::from_json(&wrong).unwrap().decode::<(Signal,)>().unwrap_err().to_string();
            assert!(error.contains("signal"), "{error}");
        }
    }
}
