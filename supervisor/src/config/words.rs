//! Keys that take one word of a few.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::{Error, StrDeserializer};
use serde::de::{self, Deserializer, IntoDeserializer as _, Visitor};

/// What becomes of a message whose process died (rule D3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnCrash {
    Drop,
    Retry,
}

/// When the workers of a class come into being.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Start {
    /// At the first call.
    Call,
    /// With the supervisor (rule W5).
    Boot,
}

/// What becomes of calls during the pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Calls {
    Accept,
    Refuse,
}

/// What becomes of pending messages at the pause, if the process could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unstarted {
    Keep,
    Drop,
}

/// One of the words that `T` is written as. What is no word at all is told which there are.
pub(super) fn word<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_str(Word(PhantomData))
}

struct Word<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Word<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only the type itself knows its words, and says them of a wrong one.
        let nothing: StrDeserializer<'_, Error> = "".into_deserializer();
        let said = T::deserialize(nothing).err().map(|error| error.to_string()).unwrap_or_default();
        let words = said.split_once("expected ").map_or("a word", |(_, words)| words);
        write!(f, "{words}, in quotes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::deserialize(text.into_deserializer())
    }
}
