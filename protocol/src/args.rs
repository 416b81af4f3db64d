//! Arguments and results: opaque MessagePack everywhere inside, JSON towards JSON peers.
//!
//! The supervisor never looks inside. A JSON peer's values are translated at its own
//! connection: JSON's text, numbers, lists and objects become MessagePack's, and bytes, which JSON
//! lacks, are written `{"$bytes":"base64"}`. Whole numbers keep 64 bits; beyond that JSON numbers are
//! doubles. NaN and the infinities, which JSON lacks, become `null`.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{self, DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::limits::ARGS_DEPTH_MAX;
use crate::{from_json, to_json};

/// The MessagePack of an empty list of arguments.
pub const NO_ARGS: &[u8] = &[0x90];
/// The MessagePack of nil.
pub const NIL: &[u8] = &[0xc0];

/// One value in MessagePack. Goes through JSON as the value itself, through the binary encoding
/// as its bytes. Not validated on the binary way: the reader at the end is the one who decodes.
#[derive(Clone, Debug, PartialEq, bincode::Encode, bincode::BorrowDecode)]
pub struct Payload<'a>(pub Cow<'a, [u8]>);

impl Payload<'_> {
    /// The list of no arguments.
    pub const fn no_args() -> Payload<'static> {
        Payload(Cow::Borrowed(NO_ARGS))
    }

    /// Encodes any value that serde knows.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Payload<'static>, ArgsError> {
        rmp_serde::to_vec_named(value).map(|bytes| Payload(Cow::Owned(bytes))).map_err(ArgsError::new)
    }

    /// Encodes a list of arguments: a tuple or another list; `()` is the empty list. An error
    /// for anything else, whose meaning as a list would be a guess.
    pub fn encode_list<T: Serialize + ?Sized>(args: &T) -> Result<Payload<'static>, ArgsError> {
        let payload = Self::encode(args)?;
        match payload.0.first() {
            Some(0xc0) if payload.0.len() == 1 => Ok(Payload::no_args()),
            _ if payload.is_list() => Ok(payload),
            _ => Err(ArgsError("arguments are a tuple or a list: for a single one write (value,)".into())),
        }
    }

    /// Whether it begins as a list, as arguments must. What is in the list is for its reader to find out.
    pub fn is_list(&self) -> bool {
        matches!(self.0.first(), Some(0x90..=0x9f | 0xdc | 0xdd))
    }

    /// Translates a JSON value; `{"$bytes":"base64"}` becomes bytes.
    pub fn from_json(value: &Value) -> Result<Payload<'static>, ArgsError> {
        from_json::read(value).map(|bytes| Payload(Cow::Owned(bytes))).map_err(ArgsError::new)
    }

    /// A map of values that are encoded already, with texts of at most 255 bytes as keys.
    pub fn map<'v>(entries: impl ExactSizeIterator<Item = (&'v str, &'v [u8])>) -> Payload<'static> {
        let mut bytes = vec![0xdf];
        bytes.extend_from_slice(&(entries.len() as u32).to_be_bytes());
        for (key, value) in entries {
            debug_assert!(key.len() <= usize::from(u8::MAX), "longer keys have another head");
            bytes.extend_from_slice(&[0xd9, key.len() as u8]);
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend_from_slice(value);
        }
        Payload(Cow::Owned(bytes))
    }

    /// Whether it is one whole value that is not nested too deep to stand so many levels deep in another.
    pub fn check(&self, wraps: usize) -> Result<(), ArgsError> {
        decode_within::<de::IgnoredAny>(&self.0, ARGS_DEPTH_MAX - wraps).map(drop)
    }

    /// Decodes into a value of the caller's type.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, ArgsError> {
        decode(&self.0)
    }

    /// Translates to JSON; bytes become `{"$bytes":"base64"}`.
    pub fn to_json(&self) -> Result<Value, ArgsError> {
        decode_plainly::<ToJson>(&self.0).map(|ToJson(value)| value)
    }

    /// The same value, owning its bytes.
    pub fn into_owned(self) -> Payload<'static> {
        Payload(Cow::Owned(self.0.into_owned()))
    }
}

impl Default for Payload<'_> {
    fn default() -> Self {
        Payload(Cow::Borrowed(NO_ARGS))
    }
}

/// Arguments or a result that cannot be encoded or decoded, with the reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ArgsError(String);

impl ArgsError {
    fn new(error: impl fmt::Display) -> Self {
        ArgsError(error.to_string())
    }
}

/// Decodes MessagePack with a bound on its depth; trailing bytes are an error.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ArgsError> {
    decode_plainly(bytes).map_err(|error| {
        // What MessagePack's reader says of a wrong type names its markers; JSON's names the value and what was
        // expected. The detour is for people, on the way of errors only.
        let told =
            decode_plainly::<ToJson>(bytes).ok().and_then(|ToJson(value)| serde_json::from_value::<T>(value).err());
        told.map_or(error, ArgsError::new)
    })
}

fn decode_plainly<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ArgsError> {
    decode_within(bytes, ARGS_DEPTH_MAX)
}

fn decode_within<T: DeserializeOwned>(bytes: &[u8], depth: usize) -> Result<T, ArgsError> {
    let mut rest = bytes;
    let mut decoder = rmp_serde::Deserializer::new(&mut rest);
    decoder.set_max_depth(depth + 1);
    let value = T::deserialize(&mut decoder).map_err(ArgsError::new)?;
    match rest.len() {
        0 => Ok(value),
        n => Err(ArgsError(format!("{n} bytes follow the value"))),
    }
}

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        to_json::write(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Payload<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_json::read(deserializer).map(|bytes| Payload(Cow::Owned(bytes)))
    }
}

/// MessagePack on its way to JSON. Depth is bounded by the decoder.
struct ToJson(Value);

impl<'de> Deserialize<'de> for ToJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ToJsonVisitor).map(ToJson)
    }
}

/// A key: JSON has only text for it; whole numbers and the like are written as such.
pub(crate) struct JsonKey(pub String);

impl<'de> Deserialize<'de> for JsonKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = String;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key that JSON can carry: text, a number, true or false")
            }
            fn visit_bool<E>(self, v: bool) -> Result<String, E> {
                Ok(v.to_string())
            }
            fn visit_i64<E>(self, v: i64) -> Result<String, E> {
                Ok(v.to_string())
            }
            fn visit_u64<E>(self, v: u64) -> Result<String, E> {
                Ok(v.to_string())
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<String, E> {
                match Value::from(v) {
                    Value::Number(number) => Ok(number.to_string()),
                    _ => Err(E::invalid_value(de::Unexpected::Float(v), &self)),
                }
            }
            fn visit_str<E>(self, v: &str) -> Result<String, E> {
                Ok(v.into())
            }
        }
        deserializer.deserialize_any(KeyVisitor).map(JsonKey)
    }
}

struct ToJsonVisitor;

impl<'de> Visitor<'de> for ToJsonVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can carry")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bytes<E>(self, v: &[u8]) -> Result<Value, E> {
        Ok(serde_json::json!({ "$bytes": BASE64.encode(v) }))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(ToJson(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = serde_json::Map::new();
        while let Some(JsonKey(key)) = map.next_key()? {
            let ToJson(value) = map.next_value()?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn there_and_back(value: Value) {
        let payload = Payload::from_json(&value).unwrap();
        assert_eq!(payload.to_json().unwrap(), value);
    }

    #[test]
    fn json_values_survive_the_way_through_messagepack() {
        there_and_back(json!([]));
        there_and_back(json!([1, -1, u64::MAX, i64::MIN, 1.5, 1.0, "é", null, true]));
        there_and_back(json!({"z": [1, {"a": {}}], "b": ""}));
        // As JSON reads it, with its sign.
        let zero = Payload::from_json(&serde_json::from_str("-0").unwrap()).unwrap();
        assert_eq!(&*zero.0, [0xcb, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        there_and_back(json!({"$bytes": "AAH/"}));
        there_and_back(json!({"$bytes": "not alone", "x": 1}));
    }

    /// Without `float_roundtrip` the JSON reader is off by one in the last bit of some. The fuzzer found them.
    #[test]
    fn c09_numbers_of_json_are_exact() {
        for number in ["123456789.12345679", "1.5000000000218279", "5e-324", "1.7976931348623157e308", "-0.1"] {
            let line = format!("[{number}]");
            let payload = Payload::from_json(&serde_json::from_str(&line).unwrap()).unwrap();
            assert_eq!(payload.decode::<(f64,)>().unwrap(), (number.parse().unwrap(),));
            let again = serde_json::from_str(&payload.to_json().unwrap().to_string()).unwrap();
            assert_eq!(Payload::from_json(&again).unwrap(), payload, "{number}");
        }
    }

    #[test]
    fn bytes_are_real_bytes_inside() {
        let payload = Payload::from_json(&json!({"$bytes": "AAH/"})).unwrap();
        assert_eq!(&*payload.0, [0xc4, 3, 0, 1, 255]);
        let error = Payload::from_json(&json!({"$bytes": "%"})).unwrap_err();
        assert!(error.to_string().contains("base64"), "{error}");
    }

    #[test]
    fn depth_is_bounded_both_ways() {
        let nested = |n| (0..n).fold(json!(1), |inner, _| json!([inner]));
        there_and_back(nested(ARGS_DEPTH_MAX));
        let empty = (0..ARGS_DEPTH_MAX).fold(json!([]), |inner, _| json!([inner]));
        assert!(Payload::from_json(&empty).is_err(), "an empty list is a level too");
        let error = Payload::from_json(&nested(ARGS_DEPTH_MAX + 1)).unwrap_err();
        assert!(error.to_string().contains("deeper"), "{error}");
        let hostile = Payload(Cow::Owned(vec![0x91; 1 << 20]));
        assert!(hostile.to_json().is_err());
    }

    #[test]
    fn a_list_of_arguments_is_a_list() {
        assert_eq!(Payload::encode_list(&()).unwrap(), Payload::no_args());
        assert_eq!(Payload::encode_list(&(1, "a")).unwrap().to_json().unwrap(), json!([1, "a"]));
        assert_eq!(Payload::encode_list(&vec![1; 20]).unwrap().to_json().unwrap(), json!(vec![1; 20]));
        assert!(Payload::encode_list(&5).unwrap_err().to_string().contains("(value,)"));
        assert!(Payload::encode_list("a").is_err());
    }

    #[test]
    fn errors_name_the_value_and_what_was_expected() {
        let error = Payload::encode(&("x",)).unwrap().decode::<(i64,)>().unwrap_err().to_string();
        assert_eq!(error, "invalid type: string \"x\", expected i64");
    }

    #[test]
    fn trailing_bytes_are_an_error() {
        assert!(decode::<u8>(&[1, 2]).unwrap_err().to_string().contains("follow"));
    }

    #[test]
    fn s04_values_that_are_encoded_make_a_map() {
        let values: Vec<(String, Payload)> =
            (0..300).map(|n| (format!("k{n}"), Payload::encode(&(n, "v")).unwrap())).collect();
        let map = Payload::map(values.iter().map(|(key, value)| (&**key, &*value.0)));
        map.check(0).unwrap();
        let read: std::collections::BTreeMap<String, (i64, String)> = map.decode().unwrap();
        assert_eq!((read.len(), &read["k299"]), (300, &(299, "v".to_string())));
        assert_eq!(Payload::map([].into_iter()).to_json().unwrap(), serde_json::json!({}));
        for wrong in [&[0x92, 1][..], &[1, 2], &[], &[0xc1]] {
            assert!(Payload(wrong.into()).check(0).is_err(), "{wrong:?}");
        }
        assert!(Payload(vec![0x91; 100].into()).check(0).is_err());
        let deep = Payload([vec![0x91; ARGS_DEPTH_MAX - 2], vec![0xc0]].concat().into());
        assert!(deep.check(2).is_ok() && deep.check(3).is_err());
    }
}
