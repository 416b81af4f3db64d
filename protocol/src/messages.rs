//! The messages, as closed enums. One definition serves both encodings: field names are the JSON
//! names, field order is the binary order, so fields and variants are only ever appended.

mod processes;
mod signals;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use bincode::de::BorrowDecoder;
use bincode::error::{AllowedEnumVariants, DecodeError};
use bincode::{BorrowDecode, Decode, Encode};
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::args::Payload;
use crate::ids::{Target, WorkerNumber};

pub use crate::terms::{Current, DeadReason, EndedBy, Exit, Ignored, Refusal, Steps, Until};
pub use processes::{Attach, Leave, Run};
pub use signals::{Cancel, Cancelled, Dropped, SignalFree, SignalGet, SignalNew, SignalSet, SignalTrigger, SignalWait};

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

/// Refuses `{"call":["a","m"]}`: serde would take the fields of a struct from a list, too, in an order that
/// nobody promises and that a new field changes. Only a message itself is a struct that a peer of the
/// supervisor writes; what stands in its fields is text, numbers and `args`.
fn fields_are_named(line: &[u8]) -> Result<(), String> {
    let value = line.iter().position(|byte| *byte == b':').map(|colon| line[colon + 1..].trim_ascii_start());
    match value.and_then(<[u8]>::first) {
        Some(b'[') => Err("the fields of a message are an object, {\"name\":value}, not a list".into()),
        _ => Ok(()),
    }
}

/// The `ref` of a JSON line that is no message that is understood, for the answer: `{"anything":{"ref":1}}`.
/// None unless the line is JSON of this shape, with one valid `ref`. The rest is skipped, not kept.
pub(crate) fn loose_ref(line: &[u8]) -> Option<Ref> {
    let line = std::str::from_utf8(line).ok()?;
    let OnlyKey(LooseFields(reference)) = serde_json::from_str(line).ok()?;
    reference
}

/// The task that a JSON line settles which is not understood: `{"done":{"id":12,"result":NaN}}`. The id counts
/// if it was whole before the line went wrong; a line that names two, or is two messages, settles none.
pub(crate) fn loose_settled(line: &[u8]) -> Option<u64> {
    let mut ids = Ids::default();
    let mut line = serde_json::Deserializer::from_slice(line);
    let _where_it_goes_wrong = line.deserialize_map(SettledVisitor(&mut ids));
    ids.only
}

/// The ids of tasks that were found, as long as it is one.
#[derive(Default)]
struct Ids {
    only: Option<u64>,
    more: bool,
}

impl Ids {
    fn found(&mut self, id: u64) {
        self.only = Some(id).filter(|_| self.only.is_none() && !self.more);
        self.more = self.only.is_none();
    }

    fn spoil(&mut self) {
        *self = Ids { only: None, more: true };
    }
}

/// The outer object of a line.
struct SettledVisitor<'a>(&'a mut Ids);

impl<'de> Visitor<'de> for SettledVisitor<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with one key")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        match map.next_key::<String>()?.as_deref() {
            Some("done" | "failed") => map.next_value_seed(SettledFields(self.0))?,
            _ => return Ok(()),
        }
        if map.next_key::<IgnoredAny>()?.is_some() {
            self.0.spoil();
        }
        Ok(())
    }
}

/// The fields of a `done` or a `failed`.
struct SettledFields<'a>(&'a mut Ids);

impl<'de> DeserializeSeed<'de> for SettledFields<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for SettledFields<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut read = None;
        loop {
            let key = map.next_key::<String>()?;
            // What follows the digits shows that they were all.
            if let Some(id) = read.take() {
                self.0.found(id);
            }
            match key.as_deref() {
                Some("id") => read = Some(map.next_value()?),
                Some(_) => drop(map.next_value::<IgnoredAny>()?),
                None => return Ok(()),
            }
        }
    }
}

/// The value of an object that has this one key.
struct OnlyKey<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OnlyKey<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnlyKeyVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyKeyVisitor<T> {
            type Value = OnlyKey<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with one key")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                match map.next_entry::<IgnoredAny, T>()? {
                    // A second key is an error: the deserializer expects the end here.
                    Some((_, value)) => Ok(OnlyKey(value)),
                    None => Err(de::Error::invalid_length(0, &self)),
                }
            }
        }
        deserializer.deserialize_map(OnlyKeyVisitor(PhantomData))
    }
}

/// What is of use in the fields of an unknown message.
struct LooseFields(Option<Ref>);

impl<'de> Deserialize<'de> for LooseFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LooseVisitor;
        impl<'de> Visitor<'de> for LooseVisitor {
            type Value = LooseFields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LooseFields, A::Error> {
                let mut reference = None;
                while let Some(key) = map.next_key::<String>()? {
                    match &*key {
                        "ref" if reference.is_some() => return Err(de::Error::duplicate_field("ref")),
                        "ref" => reference = Some(map.next_value()?),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(LooseFields(reference))
            }
        }
        deserializer.deserialize_map(LooseVisitor)
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

/// A worker settles all tasks up to one, for which nobody waits: their methods have returned.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct DoneAll {
    /// The last of them.
    pub id: u64,
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
    /// It enters the mailbox after so many milliseconds (rule C13); at once if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_ms: Option<u64>,
    /// If it is accepted it has no receipt of its own: with `wait` its outcome tells; without, one receipt
    /// [`ReceiptBody::AcceptedAll`] comes for all such calls that the supervisor took in together, with the `ref` of the
    /// last of them. Needs a `ref`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub brief: bool,
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
            in_ms: None,
            brief: false,
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

/// Asks who is there; answered by a receipt with a report. In pages, where there may be many: a worker that is there
/// from the first page to the last is in one of them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct List {
    /// For the receipt.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// Only those whose place (`at` in their row) is behind this one, in the order of their places.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Only so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
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

/// Asks to be told when a worker is in some state; answered by a receipt `waiting`, then an outcome `reached`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Wait<'a> {
    /// For the receipt and the outcome.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// Whom.
    #[serde(borrow)]
    pub worker: Address<'a>,
    /// Which state.
    pub until: Until,
}

/// Asks which dead letters there are; answered by a receipt with a report. In pages, where there may be many, from the
/// last that died to the first.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Serialize, Deserialize)]
pub struct Dead<'a> {
    /// For the receipt.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// Only those for the workers of this name.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Cow<'a, str>>,
    /// Only so many, those that died last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Only those that stand before this place (`at` in their row). A frame may end before it: then it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
}

impl<'de, Context> BorrowDecode<'de, Context> for Dead<'de> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let reference = Ref::borrow_decode(decoder)?;
        let worker = BorrowDecode::borrow_decode(decoder)?;
        let limit = BorrowDecode::borrow_decode(decoder)?;
        // It came later than the others: who does not know of it is still understood.
        let before = match BorrowDecode::borrow_decode(decoder) {
            Err(DecodeError::UnexpectedEnd { .. }) => None,
            other => other?,
        };
        Ok(Dead { reference, worker, limit, before })
    }
}

/// Asks for one dead letter; answered by a receipt `letter`, or ignored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct DeadShow {
    /// For the receipt.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// Its message.
    pub message: u64,
}

/// Posts dead letters again, or drops them. Exactly one of the three says which: so that nothing that was left out by
/// mistake ever means all.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Letters<'a> {
    /// For the receipt.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// The one of this message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<u64>,
    /// Those for the workers of this name.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Cow<'a, str>>,
    /// All.
    #[serde(default, skip_serializing_if = "is_false")]
    pub all: bool,
}

/// Stops the process of a worker, whose mailbox goes on accepting, until a resume (rule P4); answered by a receipt
/// `paused`, or ignored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Pause<'a> {
    /// For the receipt.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// Whom: by name all of that name.
    #[serde(borrow)]
    pub worker: Address<'a>,
}

/// Ends the pause of a worker, and its backoff or pause after crashes (rules P4, D4); answered by a receipt `resumed`, or
/// ignored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Resume<'a> {
    /// For the receipt.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// Whom: by name all of that name.
    #[serde(borrow)]
    pub worker: Address<'a>,
}

/// The configuration is to be read again; answered by a receipt with a report, or `failed`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Reload {
    /// For the receipt.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// Processes whose class has changed are asked to end after their current task, and started again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub restart: bool,
}

/// The supervisor is to replace itself by a program, in place; answered by the new one by a receipt with a report, or by
/// the old one by `failed`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Upgrade<'a> {
    /// For the receipt.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// The absolute path of the program; left out it is the one that the supervisor was started from.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<Cow<'a, str>>,
}

/// Asks for what workers wrote on stdout and stderr; answered by a receipt `waiting` or `refused`, then by `news` until
/// the outcome `reached`, or without an end.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Logs<'a> {
    /// For the receipt, the news and the outcome.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// Only what this worker wrote: by name all of that name, by number that one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Address<'a>>,
    /// Of what there is only so many lines, the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// And what comes from here on.
    #[serde(default, skip_serializing_if = "is_false")]
    pub follow: bool,
}

/// Asks for what happened to workers and messages; answered like [`Logs`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Events<'a> {
    /// For the receipt, the news and the outcome.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// Only what happened to this worker: by name all of that name, by number that one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Address<'a>>,
    /// Of what there is only so many events, the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// And what comes from here on.
    #[serde(default, skip_serializing_if = "is_false")]
    pub follow: bool,
    /// Of what there is only what is not older than so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
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
    /// To be settled with it: the message's id, but for a message that was posted for later a newer number.
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
    /// A request that may not be accepted; nothing has happened.
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
    /// The answer to a question: a list or a map.
    Report(Payload<'a>),
    /// A wait was taken in; its outcome follows.
    Waiting {},
    /// A dead letter, with everything.
    #[serde(borrow)]
    Letter(Box<Letter<'a>>),
    /// Dead letters were posted again.
    #[serde(borrow)]
    Requeued(Requeued<'a>),
    /// Dead letters were dropped.
    Dropped {
        /// How many.
        messages: u64,
    },
    /// The worker's process goes on, or is started as soon as it needs one.
    Resumed {},
    /// So many brief calls were accepted: all since the last such receipt, but those that have a receipt of their own.
    AcceptedAll {
        /// How many.
        messages: u64,
    },
    /// What was asked for cannot be done; nothing has changed.
    Failed {
        /// Why, for people.
        error: Cow<'a, str>,
    },
    /// The worker executes nothing until it is resumed.
    Paused {},
    /// A signal was made.
    Signal {
        /// Its id: who knows it can do all with it.
        id: Cow<'a, str>,
    },
    /// What was to be done with a signal is done.
    Signalled {
        /// Of a trigger: whether it was the first (rule S2). Else true.
        first: bool,
    },
    /// A message is not wanted any more.
    Cancelled {
        /// It is executed, and its process is told. Else it was pending, and is discarded.
        running: bool,
    },
    /// A process of this name is there already (rule P1).
    #[serde(borrow)]
    Running(Running<'a>),
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
            ReceiptBody::Waiting {} => ReceiptBody::Waiting {},
            ReceiptBody::Letter(letter) => ReceiptBody::Letter(Box::new(letter.into_owned())),
            ReceiptBody::Requeued(Requeued { messages, left, refused }) => {
                let refused = refused.map(|Refused { reason, detail }| Refused { reason, detail: owned(detail) });
                ReceiptBody::Requeued(Requeued { messages, left, refused })
            }
            ReceiptBody::Dropped { messages } => ReceiptBody::Dropped { messages },
            ReceiptBody::Resumed {} => ReceiptBody::Resumed {},
            ReceiptBody::AcceptedAll { messages } => ReceiptBody::AcceptedAll { messages },
            ReceiptBody::Failed { error } => ReceiptBody::Failed { error: owned(error) },
            ReceiptBody::Paused {} => ReceiptBody::Paused {},
            ReceiptBody::Signal { id } => ReceiptBody::Signal { id: owned(id) },
            ReceiptBody::Signalled { first } => ReceiptBody::Signalled { first },
            ReceiptBody::Cancelled { running } => ReceiptBody::Cancelled { running },
            ReceiptBody::Running(Running { worker, number }) => {
                ReceiptBody::Running(Running { worker: owned(worker), number })
            }
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

/// A process that is there already.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Running<'a> {
    /// Its name.
    #[serde(borrow)]
    pub worker: Cow<'a, str>,
    /// Its number.
    pub number: u64,
}

/// A message that no process will execute any more, with everything that is known of it.
#[derive(Clone, Debug, PartialEq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Letter<'a> {
    /// Its id.
    pub message: u64,
    /// The worker it was for.
    #[serde(borrow)]
    pub worker: Cow<'a, str>,
    /// That worker's number.
    pub number: u64,
    /// The life it died with, or the last before; 0 if there was none.
    pub generation: u64,
    /// The method.
    #[serde(borrow)]
    pub method: Cow<'a, str>,
    /// The list of arguments.
    pub args: Payload<'a>,
    /// Who sent it; null for a client that is not a worker.
    #[serde(borrow)]
    pub from: Option<Sender<'a>>,
    /// Why it is a dead letter.
    pub reason: DeadReason,
    /// How its process ended, if one had it.
    pub exit: Option<Exit>,
    /// Rule L2.
    pub may_have_run: bool,
    /// When it was accepted, in milliseconds before now.
    pub accepted_ago_ms: u64,
    /// When it died.
    pub died_ago_ms: u64,
}

impl Letter<'_> {
    fn into_owned(self) -> Letter<'static> {
        Letter {
            worker: owned(self.worker),
            method: owned(self.method),
            args: self.args.into_owned(),
            from: self.from.map(|from| Sender { worker: owned(from.worker), ..from }),
            ..self
        }
    }
}

/// What became of a request to post dead letters again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Requeued<'a> {
    /// How many are in a mailbox again, each as a new message.
    pub messages: u64,
    /// How many are dead letters as before, because one was refused.
    pub left: u64,
    /// Why that one was refused.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused<'a>>,
}

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Refused<'a> {
    /// For programs.
    pub reason: Refusal,
    /// For people.
    #[serde(borrow)]
    pub detail: Cow<'a, str>,
}

/// What came of a request for which somebody waits.
#[derive(Clone, Debug, PartialEq, Encode, BorrowDecode, Deserialize)]
pub struct Outcome<'a> {
    /// The request's reference.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// What came of it.
    #[serde(flatten, borrow)]
    pub body: OutcomeBody<'a>,
}

impl Serialize for Outcome<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // What is flattened is first kept as a tree of values. A result may be large.
        #[derive(Serialize)]
        struct Returned<'a> {
            result: &'a Payload<'a>,
        }
        #[derive(Serialize)]
        struct Done<'a> {
            #[serde(rename = "ref")]
            reference: &'a Ref,
            done: Returned<'a>,
        }
        #[derive(Serialize)]
        struct Other<'a> {
            #[serde(rename = "ref")]
            reference: &'a Ref,
            #[serde(flatten)]
            body: &'a OutcomeBody<'a>,
        }
        match (&self.reference, &self.body) {
            (reference, OutcomeBody::Done { result }) => {
                Done { reference, done: Returned { result } }.serialize(serializer)
            }
            (reference, body) => Other { reference, body }.serialize(serializer),
        }
    }
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
        /// Rule L2; true only where it was to be tried again after its process had died.
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
    /// The signal was triggered (rule S3).
    Triggered {
        /// Its values, a map.
        values: Payload<'a>,
    },
    /// The signal was not triggered in time.
    TimedOut {},
    /// Nobody is left who was to trigger the signal (rule S5).
    Lost {},
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
            OutcomeBody::Triggered { values } => OutcomeBody::Triggered { values: values.into_owned() },
            OutcomeBody::TimedOut {} => OutcomeBody::TimedOut {},
            OutcomeBody::Lost {} => OutcomeBody::Lost {},
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

/// Lines that workers wrote, or events, in order: some of the answer to [`Logs`] or [`Events`].
#[derive(Clone, Debug, PartialEq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct News<'a> {
    /// The request's reference.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// So many that were asked for are not kept any more: older ones, or such that were not read in time.
    pub lost: u64,
    /// A list of maps.
    pub items: Payload<'a>,
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

/// A time for the wire, in milliseconds, rounded up: one that is not zero does not become zero. The longest stands for all
/// that are longer.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
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
                fields_are_named(line)?;
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
        /// Which dead letters there are.
        #[serde(borrow)]
        10 Dead(Dead<'a>),
        /// All about one dead letter.
        11 DeadShow(DeadShow),
        /// Post dead letters again.
        #[serde(borrow)]
        12 Requeue(Letters<'a>),
        /// Drop dead letters.
        #[serde(borrow)]
        13 DeadDrop(Letters<'a>),
        /// End a worker's pause or backoff.
        #[serde(borrow)]
        14 Resume(Resume<'a>),
        /// All tasks up to one have ended.
        15 DoneAll(DoneAll),
        /// Read the configuration again.
        16 Reload(Reload),
        /// Become another program.
        #[serde(borrow)]
        17 Upgrade(Upgrade<'a>),
        /// What workers wrote.
        #[serde(borrow)]
        18 Logs(Logs<'a>),
        /// What happened.
        #[serde(borrow)]
        19 Events(Events<'a>),
        /// Stop a worker's process, and go on accepting.
        #[serde(borrow)]
        20 Pause(Pause<'a>),
        /// Make a signal.
        #[serde(borrow)]
        21 SignalNew(SignalNew<'a>),
        /// Write a value of a signal.
        #[serde(borrow)]
        22 SignalSet(SignalSet<'a>),
        /// Trigger a signal.
        #[serde(borrow)]
        23 SignalTrigger(SignalTrigger<'a>),
        /// Wait for a signal.
        #[serde(borrow)]
        24 SignalWait(SignalWait<'a>),
        /// All about a signal.
        #[serde(borrow)]
        25 SignalGet(SignalGet<'a>),
        /// Hold a signal no more.
        #[serde(borrow)]
        26 SignalFree(SignalFree<'a>),
        /// A message is not wanted any more.
        27 Cancel(Cancel),
        /// Start a process for one method.
        #[serde(borrow)]
        28 Run(Run<'a>),
        /// Become a worker.
        #[serde(borrow)]
        29 Attach(Attach<'a>),
        /// Be an attached worker no more.
        30 Leave(Leave),
        /// A task was cancelled before it was begun.
        31 Dropped(Dropped),
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
        /// Lines or events.
        71 News(News<'a>),
        /// The current task is not wanted any more.
        72 Cancelled(Cancelled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn args(value: serde_json::Value) -> Payload<'static> {
        Payload::from_json(&value).unwrap()
    }

    fn to_json<'a>(message: &impl Message<'a>) -> String {
        let mut out = Vec::new();
        message.encode_json(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// One message, its JSON, and its way through the binary body.
    fn check<'a, M: Message<'a> + PartialEq + fmt::Debug>(message: M, json: &'a str, body: &'a mut Vec<u8>) {
        assert_eq!(to_json(&message), json);
        assert_eq!(M::decode_json(json.as_bytes()).unwrap(), message);
        message.encode_body(body).unwrap();
        assert_eq!(M::decode_body(message.kind(), body).unwrap().unwrap(), message, "{json}");
    }

    #[test]
    fn requests_have_the_shapes_of_the_contract() {
        let call = || Call::new("mailer", "send", args(json!([1, "a"])));
        let full = Call {
            worker: 7.into(),
            reference: Some(Ref::Text("r\"1".into())),
            wait: true,
            existing: true,
            expires_ms: Some(30_000),
            chain: true,
            in_ms: Some(1_000),
            brief: true,
            ..call()
        };
        let letters = |message, worker: Option<&'static str>, all| Letters {
            reference: Ref::Number(1),
            message,
            worker: worker.map(Cow::Borrowed),
            all,
        };
        let dead = |worker: Option<&'static str>, limit, before| {
            Request::Dead(Dead { reference: Ref::Number(1), worker: worker.map(Cow::Borrowed), limit, before })
        };
        let kill = |worker| Kill { worker, ..Kill::default() };
        let full_kill = Kill {
            worker: Some("a".into()),
            reference: Some(Ref::Number(u64::MAX)),
            wait: true,
            within_ms: Some(0),
            drain: true,
            now: true,
        };
        let one = Ref::Number(1);
        for (message, json) in [
            (Request::Ready(Ready { protocol: 1, window: 1 }), r#"{"ready":{"protocol":1,"window":1}}"#),
            (Request::Done(Done { id: 12, result: args(json!(5)) }), r#"{"done":{"id":12,"result":5}}"#),
            (Request::DoneAll(DoneAll { id: 12 }), r#"{"done_all":{"id":12}}"#),
            (Request::Failed(Failed { id: 12, error: "text".into() }), r#"{"failed":{"id":12,"error":"text"}}"#),
            (Request::Call(call()), r#"{"call":{"worker":"mailer","method":"send","args":[1,"a"]}}"#),
            (
                Request::Call(full),
                r#"{"call":{"worker":7,"method":"send","args":[1,"a"],"ref":"r\"1","wait":true,"existing":true,"expires_ms":30000,"chain":true,"in_ms":1000,"brief":true}}"#,
            ),
            (Request::Kill(kill(Some("mailer".into()))), r#"{"kill":{"worker":"mailer"}}"#),
            (Request::Kill(kill(Some(7.into()))), r#"{"kill":{"worker":7}}"#),
            (Request::Kill(kill(None)), r#"{"kill":{}}"#),
            (
                Request::Kill(full_kill),
                r#"{"kill":{"worker":"a","ref":18446744073709551615,"wait":true,"within_ms":0,"drain":true,"now":true}}"#,
            ),
            (Request::List(List { reference: one.clone(), after: None, limit: None }), r#"{"list":{"ref":1}}"#),
            (
                Request::List(List { reference: one.clone(), after: Some(16), limit: Some(1000) }),
                r#"{"list":{"ref":1,"after":16,"limit":1000}}"#,
            ),
            (Request::Info(Info { reference: one.clone(), worker: "7".into() }), r#"{"info":{"ref":1,"worker":"7"}}"#),
            (Request::Status(Status { reference: one.clone() }), r#"{"status":{"ref":1}}"#),
            (
                Request::Wait(Wait { reference: one.clone(), worker: "é\n".into(), until: Until::Gone }),
                r#"{"wait":{"ref":1,"worker":"é\n","until":"gone"}}"#,
            ),
            (dead(None, None, None), r#"{"dead":{"ref":1}}"#),
            (dead(Some("a"), Some(5), None), r#"{"dead":{"ref":1,"worker":"a","limit":5}}"#),
            (dead(None, None, Some(4)), r#"{"dead":{"ref":1,"before":4}}"#),
            (
                Request::DeadShow(DeadShow { reference: one.clone(), message: 12 }),
                r#"{"dead_show":{"ref":1,"message":12}}"#,
            ),
            (Request::Requeue(letters(Some(12), None, false)), r#"{"requeue":{"ref":1,"message":12}}"#),
            (Request::Requeue(letters(None, Some("a"), false)), r#"{"requeue":{"ref":1,"worker":"a"}}"#),
            (Request::DeadDrop(letters(None, None, true)), r#"{"dead_drop":{"ref":1,"all":true}}"#),
            (
                Request::Resume(Resume { reference: one.clone(), worker: 7.into() }),
                r#"{"resume":{"ref":1,"worker":7}}"#,
            ),
            (Request::Reload(Reload { reference: one.clone(), restart: false }), r#"{"reload":{"ref":1}}"#),
            (
                Request::Reload(Reload { reference: one.clone(), restart: true }),
                r#"{"reload":{"ref":1,"restart":true}}"#,
            ),
            (Request::Upgrade(Upgrade { reference: one.clone(), binary: None }), r#"{"upgrade":{"ref":1}}"#),
            (
                Request::Upgrade(Upgrade { reference: one.clone(), binary: Some("/w".into()) }),
                r#"{"upgrade":{"ref":1,"binary":"/w"}}"#,
            ),
            (Request::Pause(Pause { reference: one.clone(), worker: 7.into() }), r#"{"pause":{"ref":1,"worker":7}}"#),
            (
                Request::SignalNew(SignalNew {
                    reference: one.clone(),
                    description: Some("d".into()),
                    keep_ms: Some(5),
                }),
                r#"{"signal_new":{"ref":1,"description":"d","keep_ms":5}}"#,
            ),
            (
                Request::SignalSet(SignalSet {
                    reference: None,
                    signal: "0a".into(),
                    key: "k".into(),
                    value: args(json!(5)),
                }),
                r#"{"signal_set":{"signal":"0a","key":"k","value":5}}"#,
            ),
            (
                Request::SignalTrigger(SignalTrigger { reference: Some(one.clone()), signal: "0a".into() }),
                r#"{"signal_trigger":{"ref":1,"signal":"0a"}}"#,
            ),
            (
                Request::SignalWait(SignalWait { reference: one.clone(), signal: "0a".into(), timeout_ms: Some(0) }),
                r#"{"signal_wait":{"ref":1,"signal":"0a","timeout_ms":0}}"#,
            ),
            (
                Request::SignalGet(SignalGet { reference: one.clone(), signal: "0a".into() }),
                r#"{"signal_get":{"ref":1,"signal":"0a"}}"#,
            ),
            (
                Request::SignalFree(SignalFree { reference: None, signal: "0a".into() }),
                r#"{"signal_free":{"signal":"0a"}}"#,
            ),
            (Request::Cancel(Cancel { reference: one.clone(), message: 12 }), r#"{"cancel":{"ref":1,"message":12}}"#),
            (
                Request::Run(Run {
                    class: "c".into(),
                    method: "m".into(),
                    args: args(json!([5])),
                    reference: Some(one.clone()),
                    wait: true,
                    name: Some("n".into()),
                    unique: true,
                }),
                r#"{"run":{"class":"c","method":"m","args":[5],"ref":1,"wait":true,"name":"n","unique":true}}"#,
            ),
            (
                Request::Attach(Attach { protocol: 1, worker: "w".into(), reference: Some(one.clone()) }),
                r#"{"attach":{"protocol":1,"worker":"w","ref":1}}"#,
            ),
            (Request::Dropped(Dropped { id: 12 }), r#"{"dropped":{"id":12}}"#),
            (Request::Leave(Leave { drain: true }), r#"{"leave":{"drain":true}}"#),
            (Request::Leave(Leave { drain: false }), r#"{"leave":{}}"#),
        ] {
            check(message, json, &mut Vec::new());
        }
    }

    #[test]
    fn replies_have_the_shapes_of_the_contract() {
        let worker = || Cow::Borrowed("counter");
        let receipt = |body| Reply::Receipt(Receipt { reference: Ref::Number(4), body });
        let outcome = |body| Reply::Outcome(Outcome { reference: Ref::Text("w".into()), body });
        let task = |from| Task { id: 12, method: "add".into(), args: args(json!([5])), from, wait: false };
        let report = KillReport {
            worker: worker(),
            number: 7,
            generation: 2,
            discarded: 3,
            current: Current::Finished,
            ended_by: EndedBy::Ask,
            exit: Some(Exit::Code(0)),
            took_ms: 40,
            steps: Steps { ask_ms: Some(40), term_ms: None, kill_ms: None },
        };
        let letter = Letter {
            message: 12,
            worker: worker(),
            number: 7,
            generation: 2,
            method: "add".into(),
            args: args(json!([5])),
            from: Some(Sender { worker: "x".into(), number: 3 }),
            reason: DeadReason::Expired,
            exit: None,
            may_have_run: false,
            accepted_ago_ms: 900,
            died_ago_ms: 40,
        };
        for (message, json) in [
            (
                Reply::Welcome(Welcome { protocol: 1, worker: worker(), number: 7, generation: 1 }),
                r#"{"welcome":{"protocol":1,"worker":"counter","number":7,"generation":1}}"#,
            ),
            (
                Reply::Task(task(Some(Sender { worker: "x".into(), number: 3 }))),
                r#"{"task":{"id":12,"method":"add","args":[5],"from":{"worker":"x","number":3}}}"#,
            ),
            (
                Reply::Task(Task { wait: true, ..task(None) }),
                r#"{"task":{"id":12,"method":"add","args":[5],"from":null,"wait":true}}"#,
            ),
            (Reply::Kill(Ask {}), r#"{"kill":{}}"#),
            (
                receipt(ReceiptBody::Accepted(Accepted { worker: worker(), number: 7, message: 12 })),
                r#"{"receipt":{"ref":4,"accepted":{"worker":"counter","number":7,"message":12}}}"#,
            ),
            (
                receipt(ReceiptBody::Ignored { reason: Ignored::NoStartupMethod }),
                r#"{"receipt":{"ref":4,"ignored":{"reason":"no_startup_method"}}}"#,
            ),
            (
                receipt(ReceiptBody::Refused { reason: Refusal::MailboxFull, detail: "full".into() }),
                r#"{"receipt":{"ref":4,"refused":{"reason":"mailbox_full","detail":"full"}}}"#,
            ),
            (receipt(ReceiptBody::Killed { discarded: 3 }), r#"{"receipt":{"ref":4,"killed":{"discarded":3}}}"#),
            (
                receipt(ReceiptBody::Report(args(json!({"z": [], "a": -1})))),
                r#"{"receipt":{"ref":4,"report":{"z":[],"a":-1}}}"#,
            ),
            (receipt(ReceiptBody::Waiting {}), r#"{"receipt":{"ref":4,"waiting":{}}}"#),
            (
                receipt(ReceiptBody::Letter(Box::new(letter))),
                r#"{"receipt":{"ref":4,"letter":{"message":12,"worker":"counter","number":7,"generation":2,"method":"add","args":[5],"from":{"worker":"x","number":3},"reason":"expired","exit":null,"may_have_run":false,"accepted_ago_ms":900,"died_ago_ms":40}}}"#,
            ),
            (
                receipt(ReceiptBody::Requeued(Requeued { messages: 3, ..Requeued::default() })),
                r#"{"receipt":{"ref":4,"requeued":{"messages":3,"left":0}}}"#,
            ),
            (
                receipt(ReceiptBody::Requeued(Requeued {
                    messages: 3,
                    left: 2,
                    refused: Some(Refused { reason: Refusal::MailboxFull, detail: "full".into() }),
                })),
                r#"{"receipt":{"ref":4,"requeued":{"messages":3,"left":2,"refused":{"reason":"mailbox_full","detail":"full"}}}}"#,
            ),
            (receipt(ReceiptBody::Dropped { messages: 3 }), r#"{"receipt":{"ref":4,"dropped":{"messages":3}}}"#),
            (receipt(ReceiptBody::Resumed {}), r#"{"receipt":{"ref":4,"resumed":{}}}"#),
            (
                receipt(ReceiptBody::AcceptedAll { messages: 64 }),
                r#"{"receipt":{"ref":4,"accepted_all":{"messages":64}}}"#,
            ),
            (receipt(ReceiptBody::Failed { error: "no".into() }), r#"{"receipt":{"ref":4,"failed":{"error":"no"}}}"#),
            (receipt(ReceiptBody::Paused {}), r#"{"receipt":{"ref":4,"paused":{}}}"#),
            (receipt(ReceiptBody::Signal { id: "0a".into() }), r#"{"receipt":{"ref":4,"signal":{"id":"0a"}}}"#),
            (receipt(ReceiptBody::Signalled { first: false }), r#"{"receipt":{"ref":4,"signalled":{"first":false}}}"#),
            (
                receipt(ReceiptBody::Cancelled { running: true }),
                r#"{"receipt":{"ref":4,"cancelled":{"running":true}}}"#,
            ),
            (
                receipt(ReceiptBody::Running(Running { worker: worker(), number: 7 })),
                r#"{"receipt":{"ref":4,"running":{"worker":"counter","number":7}}}"#,
            ),
            (outcome(OutcomeBody::Done { result: nil() }), r#"{"outcome":{"ref":"w","done":{"result":null}}}"#),
            (outcome(OutcomeBody::Failed { error: "no".into() }), r#"{"outcome":{"ref":"w","failed":{"error":"no"}}}"#),
            (
                outcome(OutcomeBody::Discarded { may_have_run: true }),
                r#"{"outcome":{"ref":"w","discarded":{"may_have_run":true}}}"#,
            ),
            (
                outcome(OutcomeBody::Expired { may_have_run: false }),
                r#"{"outcome":{"ref":"w","expired":{"may_have_run":false}}}"#,
            ),
            (
                outcome(OutcomeBody::Dead {
                    reason: DeadReason::TimedOut,
                    exit: Some(Exit::Signal(9)),
                    may_have_run: true,
                }),
                r#"{"outcome":{"ref":"w","dead":{"reason":"timed_out","exit":{"signal":9},"may_have_run":true}}}"#,
            ),
            (
                outcome(OutcomeBody::Killed(report)),
                r#"{"outcome":{"ref":"w","killed":{"worker":"counter","number":7,"generation":2,"discarded":3,"current":"finished","ended_by":"ask","exit":{"code":0},"took_ms":40,"steps":{"ask_ms":40,"term_ms":null,"kill_ms":null}}}}"#,
            ),
            (outcome(OutcomeBody::Reached {}), r#"{"outcome":{"ref":"w","reached":{}}}"#),
            (
                outcome(OutcomeBody::Triggered { values: args(json!({"k": 5})) }),
                r#"{"outcome":{"ref":"w","triggered":{"values":{"k":5}}}}"#,
            ),
            (outcome(OutcomeBody::TimedOut {}), r#"{"outcome":{"ref":"w","timed_out":{}}}"#),
            (outcome(OutcomeBody::Lost {}), r#"{"outcome":{"ref":"w","lost":{}}}"#),
            (Reply::Cancelled(Cancelled { id: 12 }), r#"{"cancelled":{"id":12}}"#),
            (
                Reply::Error(Error { reference: Some(Ref::Number(4)), detail: "what".into() }),
                r#"{"error":{"ref":4,"detail":"what"}}"#,
            ),
            (
                Reply::Error(Error { reference: None, detail: "what".into() }),
                r#"{"error":{"ref":null,"detail":"what"}}"#,
            ),
        ] {
            check(message, json, &mut Vec::new());
        }
    }

    #[test]
    fn c13_times_are_rounded_up_and_do_not_wrap() {
        for (duration, wire) in [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_micros(1500), 2),
            (Duration::from_secs(1 << 62), u64::MAX),
        ] {
            assert_eq!(millis(duration), wire, "{duration:?}");
        }
    }

    #[test]
    fn fields_have_names_and_no_order() {
        for list in [
            r#"{"ready":[1,1]}"#,
            r#"{"done":[12,5]}"#,
            r#"{"done_all":[12]}"#,
            r#"{"failed":[12,"no"]}"#,
            r#"{"call":["a","m",[]]}"#,
            r#"{"call":["a","m",[1],1,true,false,null,false]}"#,
            "{ \"call\" :\t [\"a\"]}",
            r#"{"kill":[]}"#,
            r#"{"kill":["a",1,false,null,false,false]}"#,
            r#"{"list":[1]}"#,
            r#"{"info":[1,"a"]}"#,
            r#"{"status":[1]}"#,
            r#"{"wait":[1,"a","idle"]}"#,
        ] {
            let error = Request::decode_json(list.as_bytes()).unwrap_err();
            assert!(error.contains("an object"), "{list}: {error}");
        }
        let backwards = Request::decode_json(br#"{"failed":{"error":"[:[","id":12}}"#).unwrap();
        assert_eq!(backwards, Request::Failed(Failed { id: 12, error: "[:[".into() }));
    }

    #[test]
    fn what_json_leaves_out_has_its_default() {
        for (short, long) in [
            (r#"{"done":{"id":1}}"#, r#"{"done":{"id":1,"result":null}}"#),
            (
                r#"{"call":{"worker":"a"}}"#,
                r#"{"call":{"worker":"a","method":"","args":[],"ref":null,"wait":false,"existing":false,"expires_ms":null,"chain":false,"in_ms":null,"brief":false}}"#,
            ),
            (r#"{"dead":{"ref":1}}"#, r#"{"dead":{"ref":1,"worker":null,"limit":null}}"#),
            (r#"{"requeue":{"ref":1}}"#, r#"{"requeue":{"ref":1,"message":null,"worker":null,"all":false}}"#),
            (
                r#"{"kill":{}}"#,
                r#"{"kill":{"worker":null,"ref":null,"wait":false,"within_ms":null,"drain":false,"now":false}}"#,
            ),
        ] {
            assert_eq!(Request::decode_json(short.as_bytes()), Request::decode_json(long.as_bytes()));
            assert!(Request::decode_json(long.as_bytes()).is_ok(), "{long}");
        }
        let task = Reply::decode_json(br#"{"task":{"id":1,"method":"m","args":[]}}"#).unwrap();
        assert_eq!(to_json(&task), r#"{"task":{"id":1,"method":"m","args":[],"from":null}}"#);
    }

    #[test]
    fn w04_in_json_a_text_is_a_name_and_a_number_is_a_number() {
        let worker = |json: &str| match serde_json::from_str::<Address>(json) {
            Ok(address) => format!("{:?}", address.into_owned()),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(worker("7"), "Number(7)");
        assert_eq!(worker(r#""7""#), r#"Name("7")"#);
        assert_eq!(worker(r#""%7\t""#), r#"Name("%7\t")"#);
    }
}
