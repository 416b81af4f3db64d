//! The messages, as closed enums. One definition serves both encodings: field names are the JSON
//! names, field order is the binary order, so fields and variants are only ever appended.

use std::borrow::Cow;
use std::fmt;

use bincode::de::BorrowDecoder;
use bincode::error::{AllowedEnumVariants, DecodeError};
use bincode::{BorrowDecode, Decode, Encode};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::args::Payload;
use crate::ids::{Target, WorkerNumber};

pub use crate::terms::{Current, DeadReason, EndedBy, Exit, Ignored, Refusal, Steps, Until};

/// A reference of the sender's choosing, by which it knows the answer again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Serialize)]
#[serde(untagged)]
pub enum Ref {
    /// A number; the cheaper one.
    Number(u64),
    /// A text of at most [`REF_BYTES_MAX`] bytes.
    Text(String),
}

/// The longest text of a [`Ref`], in bytes.
pub const REF_BYTES_MAX: usize = 64;

impl From<u64> for Ref {
    fn from(number: u64) -> Self {
        Ref::Number(number)
    }
}

impl Ref {
    /// Who receives a reference keeps it until the answer: its length is checked before it is copied.
    fn text(text: &str) -> Result<Self, String> {
        match text.len() {
            0..=REF_BYTES_MAX => Ok(Ref::Text(text.to_owned())),
            bytes => Err(format!("a `ref` has at most {REF_BYTES_MAX} bytes, this one has {bytes}")),
        }
    }
}

impl<'de> Deserialize<'de> for Ref {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RefVisitor;
        impl Visitor<'_> for RefVisitor {
            type Value = Ref;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a `ref`: a whole number from 0 or a text")
            }
            fn visit_u64<E>(self, number: u64) -> Result<Ref, E> {
                Ok(Ref::Number(number))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Ref, E> {
                Ref::text(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(RefVisitor)
    }
}

impl<'de, Context> BorrowDecode<'de, Context> for Ref {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        match u32::decode(decoder)? {
            0 => u64::decode(decoder).map(Ref::Number),
            1 => Ref::text(<&str>::borrow_decode(decoder)?).map_err(DecodeError::OtherString),
            found => Err(DecodeError::UnexpectedVariant {
                type_name: "Ref",
                allowed: &AllowedEnumVariants::Range { min: 0, max: 1 },
                found,
            }),
        }
    }
}

/// Whom a request is for: in JSON a text is a name, a number is a number (rule W4).
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize)]
#[serde(untagged)]
pub enum Address<'a> {
    /// By name.
    Name(Cow<'a, str>),
    /// By number.
    Number(u64),
}

impl Address<'_> {
    /// The same as the core understands it.
    pub fn target(&self) -> Target<'_> {
        match self {
            Address::Name(name) => Target::Name(name),
            Address::Number(number) => Target::Number(WorkerNumber(*number)),
        }
    }

    /// The same, owning its text.
    pub fn into_owned(self) -> Address<'static> {
        match self {
            Address::Name(name) => Address::Name(Cow::Owned(name.into_owned())),
            Address::Number(number) => Address::Number(number),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Address<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AddressVisitor;
        impl<'de> Visitor<'de> for AddressVisitor {
            type Value = Address<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a worker: its name as a text or its number")
            }
            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Address::Number(number))
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Address::Name(Cow::Borrowed(name)))
            }
            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Address::Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_any(AddressVisitor)
    }
}

impl<'a> From<&'a str> for Address<'a> {
    fn from(name: &'a str) -> Self {
        Address::Name(Cow::Borrowed(name))
    }
}

impl From<u64> for Address<'_> {
    fn from(number: u64) -> Self {
        Address::Number(number)
    }
}

impl From<WorkerNumber> for Address<'_> {
    fn from(number: WorkerNumber) -> Self {
        Address::Number(number.0)
    }
}

// ---- to the supervisor ----------------------------------------------------------------------

/// A worker's first message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Ready {
    /// [`crate::limits::PROTOCOL_VERSION`].
    pub protocol: u32,
    /// How many unsettled tasks the process takes at once; 1 is one at a time, 0 counts as 1.
    pub window: u32,
}

/// A worker settles a task: the method returned.
#[derive(Clone, Debug, PartialEq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Done<'a> {
    /// The task's id.
    pub id: u64,
    /// What the method returned; nil if left out.
    #[serde(default = "nil")]
    pub result: Payload<'a>,
}

/// A worker settles a task: the method reported an error (rule D3).
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Failed<'a> {
    /// The task's id.
    pub id: u64,
    /// The error, for people.
    #[serde(borrow)]
    pub error: Cow<'a, str>,
}

/// Posts a message (rules C1–C13).
#[derive(Clone, Debug, PartialEq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Call<'a> {
    /// Whom for.
    #[serde(borrow)]
    pub worker: Address<'a>,
    /// Which method; empty is the startup method (rule C5).
    #[serde(borrow, default)]
    pub method: Cow<'a, str>,
    /// The list of arguments.
    #[serde(default)]
    pub args: Payload<'a>,
    /// Asks for a receipt.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Ref>,
    /// Asks for the outcome too; needs a `ref`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub wait: bool,
    /// Only if the worker exists already (rule C12).
    #[serde(default, skip_serializing_if = "is_false")]
    pub existing: bool,
    /// Time to live, in milliseconds (rule C13); for ever if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Refused if the call before it on this connection was chained and refused. So who posts
    /// many without waiting for each receipt knows that none overtook a refused one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub chain: bool,
}

impl<'a> Call<'a> {
    /// A plain call.
    pub fn new(worker: impl Into<Address<'a>>, method: &'a str, args: Payload<'a>) -> Self {
        Call {
            worker: worker.into(),
            method: Cow::Borrowed(method),
            args,
            reference: None,
            wait: false,
            existing: false,
            expires_ms: None,
            chain: false,
        }
    }
}

/// Kills a worker (rules K1–K13).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
#[serde(default)]
pub struct Kill<'a> {
    /// Whom; left out it is the sender itself, who must be a worker (rule K5).
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Address<'a>>,
    /// Asks for a receipt.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<Ref>,
    /// Asks for the full receipt when the process is gone (rule K12); needs a `ref`.
    #[serde(skip_serializing_if = "is_false")]
    pub wait: bool,
    /// How long the current task may still take, in milliseconds (rule K4).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within_ms: Option<u64>,
    /// Execute what is pending first (rule K13).
    #[serde(skip_serializing_if = "is_false")]
    pub drain: bool,
    /// Start at SIGKILL (rule K4).
    #[serde(skip_serializing_if = "is_false")]
    pub now: bool,
}

/// Asks who is there; answered by a receipt with a report.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct List {
    /// For the receipt.
    #[serde(rename = "ref")]
    pub reference: Ref,
}

/// Asks for all about one worker; answered by a receipt with a report, or ignored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Info<'a> {
    /// For the receipt.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// Whom.
    #[serde(borrow)]
    pub worker: Address<'a>,
}

/// Asks for the supervisor's own state; answered by a receipt with a report.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Status {
    /// For the receipt.
    #[serde(rename = "ref")]
    pub reference: Ref,
}

/// Asks to be told when a worker is in some state; answered by an outcome `reached`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Wait<'a> {
    /// For the outcome.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// Whom.
    #[serde(borrow)]
    pub worker: Address<'a>,
    /// Which state.
    pub until: Until,
}

// ---- from the supervisor --------------------------------------------------------------------

/// The supervisor's answer to `ready`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Welcome<'a> {
    /// [`crate::limits::PROTOCOL_VERSION`].
    pub protocol: u32,
    /// The worker's name.
    #[serde(borrow)]
    pub worker: Cow<'a, str>,
    /// Its number.
    pub number: u64,
    /// Which life this is.
    pub generation: u64,
}

/// A message to execute.
#[derive(Clone, Debug, PartialEq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Task<'a> {
    /// The message's id; to be settled with it.
    pub id: u64,
    /// Which method.
    #[serde(borrow)]
    pub method: Cow<'a, str>,
    /// The list of arguments.
    pub args: Payload<'a>,
    /// Who sent it; null for a client that is not a worker (rule C11).
    #[serde(borrow)]
    pub from: Option<Sender<'a>>,
    /// Somebody waits for the outcome: its settlement is to be sent at once.
    #[serde(default, skip_serializing_if = "is_false")]
    pub wait: bool,
}

/// A worker that sent a message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Sender<'a> {
    /// Its name.
    #[serde(borrow)]
    pub worker: Cow<'a, str>,
    /// Its number.
    pub number: u64,
}

/// Ask: ignore what is pending, end after the current task (rule K4).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Ask {}

/// The one answer to a request that has a `ref`.
#[derive(Clone, Debug, PartialEq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Receipt<'a> {
    /// The request's reference.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// What became of the request.
    #[serde(flatten, borrow)]
    pub body: ReceiptBody<'a>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Encode, BorrowDecode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptBody<'a> {
    /// A call: the message is in the mailbox.
    #[serde(borrow)]
    Accepted(Accepted<'a>),
    /// By the rules nothing is to be done.
    Ignored {
        /// Why.
        reason: Ignored,
    },
    /// A call that may not be accepted; nothing has happened.
    Refused {
        /// Why, for programs.
        reason: Refusal,
        /// Why, for people.
        detail: Cow<'a, str>,
    },
    /// A kill was posted.
    Killed {
        /// How many messages it discarded.
        discarded: u64,
    },
    /// The answer to a question: a map.
    Report(Payload<'a>),
}

impl ReceiptBody<'_> {
    /// The same, owning its text and bytes.
    pub fn into_owned(self) -> ReceiptBody<'static> {
        match self {
            ReceiptBody::Accepted(Accepted { worker, number, message }) => {
                ReceiptBody::Accepted(Accepted { worker: owned(worker), number, message })
            }
            ReceiptBody::Ignored { reason } => ReceiptBody::Ignored { reason },
            ReceiptBody::Refused { reason, detail } => ReceiptBody::Refused { reason, detail: owned(detail) },
            ReceiptBody::Killed { discarded } => ReceiptBody::Killed { discarded },
            ReceiptBody::Report(report) => ReceiptBody::Report(report.into_owned()),
        }
    }
}

/// An accepted message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Accepted<'a> {
    /// The worker's name.
    #[serde(borrow)]
    pub worker: Cow<'a, str>,
    /// The worker's number.
    pub number: u64,
    /// The message's id.
    pub message: u64,
}

/// What came of a request for which somebody waits.
#[derive(Clone, Debug, PartialEq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Outcome<'a> {
    /// The request's reference.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// What came of it.
    #[serde(flatten, borrow)]
    pub body: OutcomeBody<'a>,
}

/// What came of a message, a kill or a wait.
#[derive(Clone, Debug, PartialEq, Encode, BorrowDecode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeBody<'a> {
    /// The method returned.
    Done {
        /// What it returned.
        result: Payload<'a>,
    },
    /// The method reported an error.
    Failed {
        /// The error.
        error: Cow<'a, str>,
    },
    /// A kill discarded the message.
    Discarded {
        /// Rule L2.
        may_have_run: bool,
    },
    /// Its time to live was over before it began.
    Expired {
        /// Rule L2; always false.
        may_have_run: bool,
    },
    /// It is a dead letter.
    Dead {
        /// Why.
        reason: DeadReason,
        /// How the process ended, if one had it.
        exit: Option<Exit>,
        /// Rule L2.
        may_have_run: bool,
    },
    /// The full receipt of a kill.
    #[serde(borrow)]
    Killed(KillReport<'a>),
    /// What was waited for is so.
    Reached {},
}

impl OutcomeBody<'_> {
    /// The same, owning its text and bytes.
    pub fn into_owned(self) -> OutcomeBody<'static> {
        match self {
            OutcomeBody::Done { result } => OutcomeBody::Done { result: result.into_owned() },
            OutcomeBody::Failed { error } => OutcomeBody::Failed { error: owned(error) },
            OutcomeBody::Discarded { may_have_run } => OutcomeBody::Discarded { may_have_run },
            OutcomeBody::Expired { may_have_run } => OutcomeBody::Expired { may_have_run },
            OutcomeBody::Dead { reason, exit, may_have_run } => OutcomeBody::Dead { reason, exit, may_have_run },
            OutcomeBody::Killed(report) => OutcomeBody::Killed(KillReport { worker: owned(report.worker), ..report }),
            OutcomeBody::Reached {} => OutcomeBody::Reached {},
        }
    }
}

/// The receipt of a kill (rule K12).
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct KillReport<'a> {
    /// The worker's name.
    #[serde(borrow)]
    pub worker: Cow<'a, str>,
    /// Its number.
    pub number: u64,
    /// The life that ended; 0 if there was none.
    pub generation: u64,
    /// How many messages the kill discarded.
    pub discarded: u64,
    /// What became of the task that was running.
    pub current: Current,
    /// Which step ended the process.
    pub ended_by: EndedBy,
    /// How the process ended; null if there was none.
    pub exit: Option<Exit>,
    /// From the kill until the process and its tree were gone, in milliseconds.
    pub took_ms: u64,
    /// How long each step took.
    pub steps: Steps,
}

/// What could not be understood.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Error<'a> {
    /// The request's reference, where it could be read.
    #[serde(rename = "ref")]
    pub reference: Option<Ref>,
    /// What was wrong, for people.
    #[serde(borrow)]
    pub detail: Cow<'a, str>,
}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

/// JSON leaves out a flag that is not set.
fn is_false(flag: &bool) -> bool {
    !flag
}

fn nil() -> Payload<'static> {
    Payload(Cow::Borrowed(crate::args::NIL))
}

// ---- the two directions ---------------------------------------------------------------------

/// One direction of a connection.
pub trait Direction {
    /// Its messages.
    type Message<'a>: Message<'a>;
}

/// A message of some direction, in both encodings.
pub trait Message<'a>: Sized {
    /// The kind byte of its binary frame.
    fn kind(&self) -> u8;
    /// Appends the body of its binary frame.
    fn encode_body(&self, out: &mut Vec<u8>) -> Result<(), String>;
    /// Reads the body of a binary frame. `Ok(None)` for a kind that is not known.
    fn decode_body(kind: u8, body: &'a [u8]) -> Result<Option<Self>, String>;
    /// Appends one line of JSON, without the newline.
    fn encode_json(&self, out: &mut Vec<u8>) -> Result<(), String>;
    /// Reads one line of JSON.
    fn decode_json(line: &'a [u8]) -> Result<Self, String>;
}

macro_rules! direction {
    ($(#[$doc:meta])* $direction:ident, $name:ident { $($(#[$vdoc:meta])* $kind:literal $variant:ident($body:ty),)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name<'a> { $($(#[$vdoc])* $variant($body),)* }

        /// The direction of the messages of the same name.
        #[derive(Clone, Copy, Debug)]
        pub enum $direction {}

        impl Direction for $direction {
            type Message<'a> = $name<'a>;
        }

        impl<'a> Message<'a> for $name<'a> {
            fn kind(&self) -> u8 {
                match self { $($name::$variant(_) => $kind,)* }
            }
            fn encode_body(&self, out: &mut Vec<u8>) -> Result<(), String> {
                match self { $($name::$variant(body) => crate::wire::encode_binary_body(body, out),)* }
            }
            fn decode_body(kind: u8, body: &'a [u8]) -> Result<Option<Self>, String> {
                match kind {
                    $($kind => crate::wire::decode_binary_body(body).map(|body| Some($name::$variant(body))),)*
                    _ => Ok(None),
                }
            }
            fn encode_json(&self, out: &mut Vec<u8>) -> Result<(), String> {
                serde_json::to_writer(out, self).map_err(|e| e.to_string())
            }
            fn decode_json(line: &'a [u8]) -> Result<Self, String> {
                serde_json::from_slice(line).map_err(|e| e.to_string())
            }
        }
    };
}

direction! {
    /// What workers and clients say.
    ToSupervisor, Request {
        /// A worker's first message.
        1 Ready(Ready),
        /// A task ended.
        #[serde(borrow)]
        2 Done(Done<'a>),
        /// A task ended with an error.
        #[serde(borrow)]
        3 Failed(Failed<'a>),
        /// Post a message.
        #[serde(borrow)]
        4 Call(Call<'a>),
        /// Kill a worker.
        #[serde(borrow)]
        5 Kill(Kill<'a>),
        /// Who is there.
        6 List(List),
        /// All about one worker.
        #[serde(borrow)]
        7 Info(Info<'a>),
        /// All about the supervisor.
        8 Status(Status),
        /// Tell me when.
        #[serde(borrow)]
        9 Wait(Wait<'a>),
    }
}

direction! {
    /// What the supervisor says.
    FromSupervisor, Reply {
        /// The answer to `ready`.
        #[serde(borrow)]
        65 Welcome(Welcome<'a>),
        /// A message to execute.
        #[serde(borrow)]
        66 Task(Task<'a>),
        /// End after the current task.
        67 Kill(Ask),
        /// The answer to a request.
        #[serde(borrow)]
        68 Receipt(Receipt<'a>),
        /// What came of a request.
        #[serde(borrow)]
        69 Outcome(Outcome<'a>),
        /// What could not be understood.
        #[serde(borrow)]
        70 Error(Error<'a>),
    }
}
