//! Processes that are not called workers (rules P1, P2).

use std::borrow::Cow;

use bincode::{BorrowDecode, Encode};
use serde::{Deserialize, Serialize};

use super::{Ref, is_false};
use crate::args::Payload;

/// Starts a process that executes one method and ends with it (rule P1); answered by a receipt `accepted`, `running` or
/// `refused`.
#[derive(Clone, Debug, PartialEq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Run<'a> {
    /// Under which class.
    #[serde(borrow)]
    pub class: Cow<'a, str>,
    /// Which method; empty is the class's startup method.
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
    /// The name of the process; one is made for it if left out.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Cow<'a, str>>,
    /// If there is one of this name already, its number is the answer, and nothing is started.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unique: bool,
}

/// The first message of a worker that the supervisor has not started (rule P2); answered by `welcome`, or by a receipt
/// `refused`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Attach<'a> {
    /// [`crate::limits::PROTOCOL_VERSION`].
    pub protocol: u32,
    /// The name that it takes.
    #[serde(borrow)]
    pub worker: Cow<'a, str>,
    /// For the answer, if it is none of welcome.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Ref>,
}

/// An attached worker gives its name back. It is told to end by the supervisor's `kill`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize, Deserialize)]
pub struct Leave {
    /// What is pending is executed first.
    #[serde(default, skip_serializing_if = "is_false")]
    pub drain: bool,
}
