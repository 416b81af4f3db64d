//! From bytes to lines, each of bounded length.

use std::ops::Deref;
use std::sync::Arc;

use serde::Serialize;
use workhall_core::Policy;

use super::store::Kept;

/// A line that a worker wrote.
#[derive(Debug)]
pub(crate) struct Line {
    pub at_ms: u64,
    pub number: u64,
    pub generation: u64,
    pub class: ClassName,
    pub stream: Stream,
    /// It was longer than a line may be, and goes on in the next.
    pub cut: bool,
    /// What is no UTF-8 was replaced.
    pub text: Box<str>,
}

/// The name of a class. It takes no memory of its own while its policy is there.
#[derive(Clone, Debug)]
pub(crate) enum ClassName {
    Of(Arc<Policy>),
    /// The program before has written it down.
    Carried(Arc<str>),
}

impl From<&Arc<Policy>> for ClassName {
    fn from(policy: &Arc<Policy>) -> ClassName {
        ClassName::Of(policy.clone())
    }
}

impl Deref for ClassName {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            ClassName::Of(policy) => &policy.class,
            ClassName::Carried(name) => name,
        }
    }
}

/// Where a worker writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub const BOTH: [Stream; 2] = [Stream::Stdout, Stream::Stderr];
}

impl Kept for Line {
    fn text_bytes(&self) -> u64 {
        self.text.len() as u64
    }

    fn number(&self) -> u64 {
        self.number
    }

    fn class(&self) -> &str {
        &self.class
    }

    fn at_ms(&self) -> u64 {
        self.at_ms
    }
}

/// The beginning of a line whose end has not come.
#[derive(Debug, Default)]
pub(crate) struct Splitter(Vec<u8>);

impl Splitter {
    /// Takes in bytes; gives each line without its end, and whether it was cut because it is longer than `most`.
    pub fn take_in(&mut self, mut bytes: &[u8], most: usize, mut each: impl FnMut(&[u8], bool)) {
        while !bytes.is_empty() {
            let room = most.saturating_sub(self.0.len());
            match bytes.iter().take(room + 1).position(|byte| *byte == b'\n') {
                Some(end) if self.0.is_empty() => {
                    each(trimmed(&bytes[..end]), false);
                    bytes = &bytes[end + 1..];
                }
                Some(end) => {
                    self.0.extend_from_slice(&bytes[..end]);
                    each(trimmed(&self.0), false);
                    self.0.clear();
                    bytes = &bytes[end + 1..];
                }
                None if bytes.len() <= room => {
                    self.0.extend_from_slice(bytes);
                    return;
                }
                None => {
                    self.0.extend_from_slice(&bytes[..room]);
                    bytes = &bytes[room..];
                    let end = whole_characters(&self.0);
                    each(&self.0[..end], true);
                    self.0.drain(..end);
                }
            }
        }
    }

    /// One that goes on with the beginning of a line.
    pub fn again(rest: Vec<u8>) -> Splitter {
        Splitter(rest)
    }

    /// The beginning of a line.
    pub fn rest(&self) -> &[u8] {
        &self.0
    }

    /// Nothing more comes: what is there is a line too.
    pub fn end(&mut self, mut each: impl FnMut(&[u8], bool)) {
        let rest = std::mem::take(&mut self.0);
        if !rest.is_empty() {
            each(trimmed(&rest), false);
        }
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Where to cut, so that a character that began is not torn, if it is UTF-8. Never at the beginning.
fn whole_characters(bytes: &[u8]) -> usize {
    let start = bytes.iter().rposition(|byte| byte & 0xc0 != 0x80).unwrap_or(0);
    let needed = match bytes.get(start).copied().unwrap_or(0) {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf7 => 4,
        _ => 1,
    };
    match start > 0 && bytes.len() - start < needed {
        true => start,
        false => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]], most: usize) -> Vec<String> {
        let (mut splitter, mut lines) = (Splitter::default(), Vec::new());
        let mut each =
            |line: &[u8], cut| lines.push(String::from_utf8_lossy(line).into_owned() + if cut { "…" } else { "" });
        pieces.iter().for_each(|piece| splitter.take_in(piece, most, &mut each));
        splitter.end(&mut each);
        splitter.end(&mut each);
        lines
    }

    #[test]
    fn lines_are_the_same_in_whatever_pieces_they_come() {
        let text = "one\n\ntwo\r\n\u{e9}\u{20ac}\0\x1b[31m\nno end".as_bytes();
        let expected = ["one", "", "two", "\u{e9}\u{20ac}\0\x1b[31m", "no end"];
        assert_eq!(split(&[text], 100), expected);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(split(&bytes, 100), expected);
        for size in 2..9 {
            assert_eq!(split(&text.chunks(size).collect::<Vec<_>>(), 100), expected, "{size}");
        }
    }

    #[test]
    fn a_long_line_comes_in_parts_and_no_character_is_torn() {
        assert_eq!(
            split(&[b"12345\n", b"123456\n", b"1234567890123"], 5),
            ["12345", "12345…", "6", "12345…", "67890…", "123"]
        );
        assert_eq!(split(&["1234\u{20ac}678\n".as_bytes()], 5), ["1234…", "\u{20ac}67…", "8"]);
        // What is no UTF-8 at all gets on, too.
        assert_eq!(split(&[&[0x80; 7]], 5).len(), 2);
        assert_eq!(split(&[&[0xff; 11]], 5).len(), 3);
        for size in 1..9 {
            let text = "\u{20ac}".repeat(9);
            assert_eq!(split(&text.as_bytes().chunks(size).collect::<Vec<_>>(), 7).concat().replace('…', ""), text);
        }
    }
}
