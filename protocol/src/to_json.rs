//! MessagePack's values become JSON while they are read: no tree of values stands between. A key that is there twice is
//! written twice; JSON's readers take the last.

use std::cell::{Cell, RefCell};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{self, Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::limits::ARGS_DEPTH_MAX;

/// Writes the one value that these bytes are.
pub fn write<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let (mut rest, why) = (bytes, Why::default());
    let mut decoder = rmp_serde::Deserializer::new(&mut rest);
    decoder.set_max_depth(ARGS_DEPTH_MAX + 1);
    let written = Value { from: Cell::new(Some(&mut decoder)), why: &why }.serialize(serializer);
    match (why.0.into_inner(), rest.len()) {
        (Some(why), _) => Err(ser::Error::custom(why)),
        (None, 0) => written,
        (None, n) => Err(ser::Error::custom(format_args!("{n} bytes follow the value"))),
    }
}

/// The first error: each level that it comes through says it in its own words.
#[derive(Default)]
struct Why(RefCell<Option<String>>);

impl Why {
    fn note(&self, error: &impl fmt::Display) {
        self.0.borrow_mut().get_or_insert_with(|| error.to_string());
    }

    fn reading<E: de::Error>(&self, error: impl ser::Error) -> E {
        self.note(&error);
        E::custom(error)
    }

    fn writing<E: ser::Error>(&self, error: impl de::Error) -> E {
        self.note(&error);
        E::custom(error)
    }
}

/// A value that is still to be read; it is written once.
struct Value<'a, D> {
    from: Cell<Option<D>>,
    why: &'a Why,
}

impl<'a, D> Value<'a, D> {
    fn new(from: D, why: &'a Why) -> Self {
        Value { from: Cell::new(Some(from)), why }
    }
}

impl<'de, D: Deserializer<'de>> Serialize for Value<'_, D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let from = self.from.take().ok_or_else(|| ser::Error::custom("it can be written once"))?;
        from.deserialize_any(Writer { to: serializer, why: self.why }).map_err(|error| self.why.writing(error))
    }
}

/// Where a value is written to.
struct Writer<'a, S> {
    to: S,
    why: &'a Why,
}

impl<'de, S: Serializer> Visitor<'de> for Writer<'_, S> {
    type Value = S::Ok;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can carry")
    }
    fn visit_bool<E: de::Error>(self, v: bool) -> Result<S::Ok, E> {
        self.to.serialize_bool(v).map_err(|error| self.why.reading(error))
    }
    fn visit_i64<E: de::Error>(self, v: i64) -> Result<S::Ok, E> {
        self.to.serialize_i64(v).map_err(|error| self.why.reading(error))
    }
    fn visit_u64<E: de::Error>(self, v: u64) -> Result<S::Ok, E> {
        self.to.serialize_u64(v).map_err(|error| self.why.reading(error))
    }
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<S::Ok, E> {
        let finite = Some(v).filter(|v| v.is_finite());
        finite.serialize(self.to).map_err(|error| self.why.reading(error))
    }
    fn visit_str<E: de::Error>(self, v: &str) -> Result<S::Ok, E> {
        self.to.serialize_str(v).map_err(|error| self.why.reading(error))
    }
    fn visit_unit<E: de::Error>(self) -> Result<S::Ok, E> {
        self.to.serialize_unit().map_err(|error| self.why.reading(error))
    }
    fn visit_bytes<E: de::Error>(self, v: &[u8]) -> Result<S::Ok, E> {
        self.to.collect_map([("$bytes", BASE64.encode(v))]).map_err(|error| self.why.reading(error))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<S::Ok, A::Error> {
        let why = self.why;
        let mut to = self.to.serialize_seq(None).map_err(|error| why.reading(error))?;
        while from.next_element_seed(Item { to: &mut to, why })?.is_some() {}
        to.end().map_err(|error| why.reading(error))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<S::Ok, A::Error> {
        let why = self.why;
        let mut to = self.to.serialize_map(None).map_err(|error| why.reading(error))?;
        while let Some(crate::args::JsonKey(key)) = from.next_key()? {
            to.serialize_key(&key).map_err(|error| why.reading(error))?;
            from.next_value_seed(Entry { to: &mut to, why })?;
        }
        to.end().map_err(|error| why.reading(error))
    }
}

/// Where the next item of a list is written to.
struct Item<'a, S> {
    to: &'a mut S,
    why: &'a Why,
}

impl<'de, S: SerializeSeq> DeserializeSeed<'de> for Item<'_, S> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        self.to.serialize_element(&Value::new(from, self.why)).map_err(|error| self.why.reading(error))
    }
}

/// Where the next value of an object is written to.
struct Entry<'a, S> {
    to: &'a mut S,
    why: &'a Why,
}

impl<'de, S: SerializeMap> DeserializeSeed<'de> for Entry<'_, S> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        self.to.serialize_value(&Value::new(from, self.why)).map_err(|error| self.why.reading(error))
    }
}

#[cfg(test)]
mod tests {
    use crate::args::Payload;

    fn of(bytes: &[u8]) -> Result<String, String> {
        serde_json::to_string(&Payload(bytes.into())).map_err(|error| error.to_string())
    }

    /// As the tree of the same values is written, with the same reasons where it cannot be.
    #[test]
    fn it_is_written_as_the_tree_would_be() {
        let nan = [&[0x92, 0xcb][..], &f64::NAN.to_be_bytes(), &[0xca, 0x3f, 0x80, 0, 0]].concat();
        let deep = vec![0x91; 100];
        for bytes in [
            &[0x90][..],
            &[0x80],
            &[0x93, 0xc0, 0xc3, 0xd0, 0x80],
            &[0x82, 0xa1, b'a', 0x91, 0xff, 1, 0xc4, 2, 0, 255],
            &[0x81, 0xc3, 0x81, 0xa0, 0xcf, 255, 255, 255, 255, 255, 255, 255, 255],
            &nan,
            &deep,
            &[0x91, 0x81, 0x90, 1],
            &[0x91, 0xd4, 1, 2],
            &[0x92, 1],
            &[0xc1],
            &[1, 2],
            &[],
        ] {
            let tree = Payload(bytes.into()).to_json();
            assert_eq!(of(bytes), tree.map(|tree| tree.to_string()).map_err(|error| error.to_string()), "{bytes:x?}");
        }
        assert_eq!(of(&[0x82, 0xa1, b'a', 1, 0xa1, b'a', 2]).unwrap(), r#"{"a":1,"a":2}"#);
    }
}
