//! Names and numbers. `no_std`: the supervisor's core knows these and nothing else of the protocol.

use alloc::sync::Arc;
use core::fmt;

use crate::limits::NAME_BYTES_MAX;

/// The name of a worker (rule W2): 1 to 255 bytes of UTF-8 without control characters,
/// compared byte by byte. Cloning copies a pointer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerName(Arc<str>);

impl WorkerName {
    /// Checks a name and takes it. Errors say which part of rule W2 the name breaks.
    pub fn new(name: &str) -> Result<Self, NameError> {
        Self::check(name)?;
        Ok(WorkerName(name.into()))
    }

    /// Checks a name without taking it.
    pub fn check(name: &str) -> Result<(), NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong { bytes: name.len() });
        }
        match name.char_indices().find(|(_, c)| c.is_control()) {
            Some((at, c)) => Err(NameError::Control { at, code: c as u32 }),
            None => Ok(()),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl core::ops::Deref for WorkerName {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for WorkerName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for WorkerName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = alloc::string::String::deserialize(deserializer)?;
        WorkerName::new(&name).map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for WorkerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for WorkerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a name is not a worker's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// No bytes at all.
    Empty,
    /// More than [`NAME_BYTES_MAX`] bytes.
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// A control character.
    Control {
        /// Its place, in bytes from the start.
        at: usize,
        /// Its code point.
        code: u32,
    },
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::Empty => write!(f, "a worker's name cannot be empty"),
            NameError::TooLong { bytes } => {
                write!(f, "a worker's name has at most {NAME_BYTES_MAX} bytes, this one has {bytes}")
            }
            NameError::Control { at, code } => {
                write!(f, "a worker's name has no control characters, this one has U+{code:04X} at byte {at}")
            }
        }
    }
}

impl core::error::Error for NameError {}

/// The number of a worker (rule W4). 1 is the main worker, others start at 2, only rise and are
/// never reused while a supervisor lives. Written `%7`.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerNumber(pub u64);

impl WorkerNumber {
    /// The main worker (rule W5).
    pub const MAIN: WorkerNumber = WorkerNumber(1);
}

impl fmt::Display for WorkerNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// Which life of a worker's process: 1, 2, 3 … per worker, never reused.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of an accepted message; rises with acceptance, never reused while a supervisor lives.
/// 0 is no message.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whom a call or a kill is for (rule W4). Text is never taken for a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// By name; not yet checked.
    Name(&'a str),
    /// By number.
    Number(WorkerNumber),
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Name(name) => f.write_str(name),
            Target::Number(number) => number.fmt(f),
        }
    }
}

/// What a signal is known by (rule S1): 16 bytes that nobody can guess. As text it is 32 hexadecimal digits in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignalId(pub [u8; 16]);

impl SignalId {
    /// How a signal stands in arguments: a map with this one key, and the id as its value.
    pub const KEY: &'static str = "$signal";

    /// Reads an id; none unless it is written as an id is.
    pub fn parse(text: &str) -> Option<SignalId> {
        Self::parse_bytes(text.as_bytes())
    }

    fn parse_bytes(text: &[u8]) -> Option<SignalId> {
        let digits: &[u8; 32] = text.try_into().ok()?;
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let mut id = [0; 16];
        for (byte, two) in id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = value(two[0])? << 4 | value(two[1])?;
        }
        Some(SignalId(id))
    }

    /// The ids of all signals that stand in a MessagePack value. It is not decoded, only looked through: what looks like a
    /// signal inside a text is found too.
    pub fn find_all(value: &[u8]) -> impl Iterator<Item = SignalId> {
        /// A text of 32 bytes, in the lengths that MessagePack has for one.
        const TEXT: [&[u8]; 3] = [&[0xd9, 32], &[0xda, 0, 32], &[0xdb, 0, 0, 0, 32]];
        let mut rest = value;
        core::iter::from_fn(move || {
            loop {
                let at = rest.iter().position(|byte| *byte == b'$')?;
                let behind = rest[at..].strip_prefix(Self::KEY.as_bytes());
                rest = &rest[at + 1..];
                let text = behind.and_then(|behind| TEXT.iter().find_map(|head| behind.strip_prefix(*head)));
                if let Some(id) = text.and_then(|text| Self::parse_bytes(text.get(..32)?)) {
                    return Some(id);
                }
            }
        })
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for SignalId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for SignalId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = alloc::string::String::deserialize(deserializer)?;
        SignalId::parse(&text).ok_or_else(|| serde::de::Error::custom("not the id of a signal"))
    }
}

impl fmt::Display for SignalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SignalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn w02_names_are_bytes_of_utf8_without_control_characters() {
        let long = "x".repeat(NAME_BYTES_MAX);
        for good in ["a", "A", "é", " a ", "7", "%7", "$local", "a/b", "a*", &long] {
            assert_eq!(WorkerName::new(good).unwrap().as_str(), good);
        }
        let longer = "x".repeat(NAME_BYTES_MAX + 1);
        for (bad, why) in [
            ("", NameError::Empty),
            (longer.as_str(), NameError::TooLong { bytes: 256 }),
            ("a\nb", NameError::Control { at: 1, code: 10 }),
            ("\u{7f}", NameError::Control { at: 0, code: 0x7f }),
            ("é\u{85}", NameError::Control { at: 2, code: 0x85 }),
        ] {
            assert_eq!(WorkerName::new(bad).unwrap_err(), why, "{bad:?}");
        }
        assert_ne!(WorkerName::new("a").unwrap(), WorkerName::new("A").unwrap());
        assert_ne!(WorkerName::new("e\u{301}").unwrap(), WorkerName::new("é").unwrap());
    }

    #[test]
    fn w04_a_number_is_written_with_a_percent_sign() {
        assert_eq!(WorkerNumber(7).to_string(), "%7");
        assert_eq!(Target::Name("7").to_string(), "7");
    }

    #[test]
    fn s01_the_id_of_a_signal_is_found_wherever_it_stands() {
        let text = "00112233445566778899aabbccddeeff";
        let id = SignalId::parse(text).unwrap();
        assert_eq!(alloc::format!("{id}"), text);
        for wrong in ["", "0", &text[1..], &text.to_uppercase(), "g0112233445566778899aabbccddeeff"] {
            assert_eq!(SignalId::parse(wrong), None, "{wrong}");
        }
        let stands = |head: &[u8]| [b"\x92\xa1$\x81\xa7$signal", head, text.as_bytes(), b"\x01"].concat();
        for head in [&b"\xd9\x20"[..], b"\xda\0\x20", b"\xdb\0\0\0\x20"] {
            assert_eq!(SignalId::find_all(&stands(head)).collect::<alloc::vec::Vec<_>>(), [id]);
        }
        let twice = [stands(b"\xd9\x20"), stands(b"\xd9\x20")].concat();
        assert_eq!(SignalId::find_all(&twice).count(), 2);
        for none in [stands(b"\xd9\x21"), stands(b""), b"$signal".to_vec(), stands(b"\xd9\x20")[..30].to_vec()] {
            assert_eq!(SignalId::find_all(&none).count(), 0, "{none:?}");
        }
    }
}
