//! JSON's values become MessagePack while they are read: no tree of values stands between, which would take tens of
//! bytes for each `0`.
//!
//! How many items a list or an object has is known at its end alone: its header is put in then, as short as it can be.
//! Of keys that are there twice the last value counts, in the place of the first, as JSON readers do it.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

use crate::limits::ARGS_DEPTH_MAX;

/// The key of an object that stands for bytes.
const BYTES_KEY: &str = "$bytes";
/// What a list's and an object's headers begin with: of up to 15 items, of up to 65,535, and of more.
const LIST: [u8; 3] = [0x90, 0xdc, 0xdd];
const OBJECT: [u8; 3] = [0x80, 0xde, 0xdf];

/// Reads one value into MessagePack.
pub fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let mut out = Vec::new();
    Value { out: &mut out, depth: 0 }.deserialize(deserializer)?;
    Ok(out)
}

/// Where a value is written to.
struct Value<'a> {
    out: &'a mut Vec<u8>,
    depth: usize,
}

impl Value<'_> {
    fn write<E: Error>(self, value: &(impl Serialize + ?Sized)) -> Result<(), E> {
        write(self.out, value)
    }

    /// Begins a list or an object, with room for the shortest header. Returns where.
    fn open<E: Error>(&mut self) -> Result<usize, E> {
        if self.depth >= ARGS_DEPTH_MAX {
            return Err(E::custom(format_args!("nested deeper than {ARGS_DEPTH_MAX} levels")));
        }
        self.out.push(0);
        Ok(self.out.len() - 1)
    }

    fn inner(&mut self) -> Value<'_> {
        Value { out: self.out, depth: self.depth + 1 }
    }

    fn close<E: Error>(self, start: usize, count: usize, [short, medium, long]: [u8; 3]) -> Result<(), E> {
        let too_many = || E::custom("more items than MessagePack can count");
        match (u16::try_from(count), u32::try_from(count).map_err(|_| too_many())?.to_be_bytes()) {
            (Ok(0..=15), [.., count]) => self.out[start] = short | count,
            (Ok(_), [.., high, low]) => drop(self.out.splice(start..=start, [medium, high, low])),
            (Err(_), [a, b, c, d]) => drop(self.out.splice(start..=start, [long, a, b, c, d])),
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }
    fn visit_bool<E: Error>(self, v: bool) -> Result<(), E> {
        self.write(&v)
    }
    fn visit_i64<E: Error>(self, v: i64) -> Result<(), E> {
        self.write(&v)
    }
    fn visit_u64<E: Error>(self, v: u64) -> Result<(), E> {
        self.write(&v)
    }
    fn visit_f64<E: Error>(self, v: f64) -> Result<(), E> {
        // What JSON itself cannot say.
        self.write(&Some(v).filter(|v| v.is_finite()))
    }
    fn visit_str<E: Error>(self, v: &str) -> Result<(), E> {
        self.write(v)
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.write(&())
    }
    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.write(&())
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let start = self.open()?;
        let mut count = 0;
        while seq.next_element_seed(self.inner())?.is_some() {
            count += 1;
        }
        self.close(start, count, LIST)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let start = self.open()?;
        let mut entries = Vec::new();
        loop {
            let key = self.out.len();
            if map.next_key_seed(Key(self.out))?.is_none() {
                break;
            }
            entries.push(u32::try_from(key).map_err(|_| A::Error::custom("more than MessagePack can carry"))?);
            map.next_value_seed(self.inner())?;
        }
        let count = without_doubles(self.out, start + 1, entries);
        if let (1, Some(bytes)) = (count, bytes_of(&self.out[start + 1..])) {
            let bytes = bytes.map_err(|e| A::Error::custom(format_args!("$bytes is not base64: {e}")))?;
            self.out.truncate(start);
            return self.write(&Bytes(&bytes));
        }
        self.close(start, count, OBJECT)
    }
}

/// Where the key of an object is written to.
struct Key<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string key")
    }
    fn visit_str<E: Error>(self, v: &str) -> Result<(), E> {
        write(self.0, v)
    }
}

struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

fn write<E: Error>(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) -> Result<(), E> {
    rmp_serde::encode::write(out, value).map_err(E::custom)
}

/// The text at the beginning; none if there is no text. Only of what was written here.
fn text(bytes: &[u8]) -> Option<&[u8]> {
    let length =
        |from: Range<usize>| bytes.get(from)?.iter().try_fold(0_usize, |sum, b| Some(sum << 8 | usize::from(*b)));
    let (header, length) = match *bytes.first()? {
        short @ 0xa0..=0xbf => (1, usize::from(short & 0x1f)),
        0xd9 => (2, length(1..2)?),
        0xda => (3, length(1..3)?),
        0xdb => (5, length(1..5)?),
        _ => return None,
    };
    bytes.get(header..header + length)
}

/// The bytes that the one entry of an object stands for, if it does.
fn bytes_of(entry: &[u8]) -> Option<Result<Vec<u8>, base64::DecodeError>> {
    let key = text(entry).filter(|key| *key == BYTES_KEY.as_bytes())?;
    // A short text: its header is one byte.
    Some(BASE64.decode(text(&entry[1 + key.len()..])?))
}

/// Takes away entries whose key comes again. `entries` says where they begin, and `from` where the first would. Returns how
/// many are left.
fn without_doubles(out: &mut Vec<u8>, from: usize, mut entries: Vec<u32>) -> usize {
    if entries.len() < 2 {
        return entries.len();
    }
    let key = |at: u32| text(&out[at as usize..]);
    entries.sort_unstable_by(|a, b| key(*a).cmp(&key(*b)));
    if entries.windows(2).all(|pair| key(pair[0]) != key(pair[1])) {
        return entries.len();
    }
    entries.sort_unstable();
    let ends = entries[1..].iter().map(|next| *next as usize).chain([out.len()]);
    let mut places = HashMap::new();
    let mut kept: Vec<Range<usize>> = Vec::new();
    for (start, end) in entries.iter().zip(ends) {
        let place = *places.entry(key(*start)).or_insert(kept.len());
        match kept.get_mut(place) {
            Some(entry) => *entry = *start as usize..end,
            None => kept.push(*start as usize..end),
        }
    }
    let count = kept.len();
    let mut body = Vec::with_capacity(out.len() - from);
    for entry in kept {
        body.extend_from_slice(&out[entry]);
    }
    out.truncate(from);
    out.extend_from_slice(&body);
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(text: &str) -> Result<Vec<u8>, String> {
        read(&mut serde_json::Deserializer::from_str(text)).map_err(|error| error.to_string())
    }

    /// As rmp-serde writes the tree of the same values, byte for byte.
    #[test]
    fn headers_are_as_short_as_they_can_be() {
        for count in [0, 1, 15, 16, 17, 65_535, 65_536, 70_000] {
            let list = json!(vec![7; count]);
            let object: serde_json::Value = (0..count).map(|key| (key.to_string(), json!([key]))).collect();
            for value in [json!([1, list, "behind"]), json!({"a": object, "b": object}), list, object] {
                assert_eq!(of(&value.to_string()).unwrap(), rmp_serde::to_vec_named(&value).unwrap(), "{count}");
            }
        }
        let numbers = "[0,127,128,255,256,65536,4294967296,18446744073709551615,-1,-32,-33,-129,-32769,-2147483649,1.5,-0,1e300,null,true]";
        let value: serde_json::Value = serde_json::from_str(numbers).unwrap();
        assert_eq!(of(numbers).unwrap(), rmp_serde::to_vec_named(&value).unwrap());
    }

    #[test]
    fn of_keys_that_are_there_twice_the_last_value_counts() {
        let long = "x".repeat(300);
        for (text, same) in [
            (r#"{"a":1,"a":2}"#.to_string(), r#"{"a":2}"#.to_string()),
            (r#"[{"a":1,"b":[2],"a":{"c":1,"c":3},"b":4,"d":5}]"#.into(), r#"[{"a":{"c":3},"b":4,"d":5}]"#.into()),
            (format!(r#"{{"{long}":1,"{long}a":2,"{long}":[]}}"#), format!(r#"{{"{long}":[],"{long}a":2}}"#)),
            (r#"{"$bytes":1,"$bytes":"AAH/"}"#.into(), r#"{"$bytes":"AAH/"}"#.into()),
        ] {
            assert_eq!(of(&text), of(&same), "{text}");
            // Nothing but the bytes is not a tree's.
            if !text.contains("$bytes") {
                let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(of(&text).unwrap(), rmp_serde::to_vec_named(&value).unwrap(), "{text}");
            }
        }
    }

    #[test]
    fn only_an_object_with_this_one_key_and_a_text_is_bytes() {
        assert_eq!(of(r#"{"$bytes":"AAH/"}"#).unwrap(), [0xc4, 3, 0, 1, 255]);
        for text in [r#"{"$bytes":1}"#, r#"{"$bytes":"AAH/","a":1}"#, r#"{"$bytes":["AAH/"]}"#, r#"{"$byte":"AAH/"}"#] {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(of(text).unwrap(), rmp_serde::to_vec_named(&value).unwrap(), "{text}");
        }
        assert!(of(r#"[{"$bytes":"%"}]"#).unwrap_err().contains("$bytes is not base64"));
    }
}
