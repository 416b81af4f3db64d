//! Signals and what is not wanted any more (rules S1–S5).

use std::borrow::Cow;

use bincode::{BorrowDecode, Encode};
use serde::{Deserialize, Serialize};

use super::Ref;
use crate::args::Payload;

/// Makes a signal (rule S1); answered by a receipt `signal` with its id, or `refused`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct SignalNew<'a> {
    /// For the receipt.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// What it is for, for people.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Cow<'a, str>>,
    /// It is kept for so many milliseconds, whoever else holds it; if left out only as long as somebody holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_ms: Option<u64>,
}

/// Writes one value of a signal that was not triggered yet (rule S4); answered by a receipt `signalled`, `ignored` or
/// `refused`.
#[derive(Clone, Debug, PartialEq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct SignalSet<'a> {
    /// Asks for a receipt.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Ref>,
    /// The signal's id.
    #[serde(borrow)]
    pub signal: Cow<'a, str>,
    /// Which value; one that is there is written anew.
    #[serde(borrow)]
    pub key: Cow<'a, str>,
    /// The value.
    #[serde(default = "super::nil")]
    pub value: Payload<'a>,
}

/// Triggers a signal (rule S2); answered by a receipt `signalled` or `ignored`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct SignalTrigger<'a> {
    /// Asks for a receipt.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Ref>,
    /// The signal's id.
    #[serde(borrow)]
    pub signal: Cow<'a, str>,
}

/// Waits for a signal (rules S3, S5); answered by a receipt `waiting`, then an outcome. Or by `ignored` or `refused`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct SignalWait<'a> {
    /// For the receipt and the outcome.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// The signal's id.
    #[serde(borrow)]
    pub signal: Cow<'a, str>,
    /// For so many milliseconds; 0 only looks, for ever if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Asks for all about a signal; answered by a receipt with a report, or `ignored`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct SignalGet<'a> {
    /// For the receipt.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// The signal's id.
    #[serde(borrow)]
    pub signal: Cow<'a, str>,
}

/// This connection holds a signal no more that it has made, and nothing keeps it for its time (rule S4); answered by a
/// receipt `signalled` or `ignored`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct SignalFree<'a> {
    /// Asks for a receipt.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Ref>,
    /// The signal's id.
    #[serde(borrow)]
    pub signal: Cow<'a, str>,
}

/// A message is not wanted any more: one that is pending is discarded, the process of one that is executed is told;
/// answered by a receipt `cancelled`, `ignored` or `refused`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Cancel {
    /// For the receipt.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// Its id.
    pub message: u64,
}

/// A worker settles a task that was cancelled before it was begun: it is not executed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Dropped {
    /// The task's id.
    pub id: u64,
}

/// The task that is executed is not wanted any more: a flag at which its method can look. It is settled as ever.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Cancelled {
    /// The task.
    pub id: u64,
}
