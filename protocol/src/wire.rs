//! The two encodings, and the push decoder that tells them apart by the first byte.
//!
//! Binary: a header of [`HEADER_BYTES`] (version, kind, two zero bytes, length of the body as
//! little-endian `u32`), then the body: bincode, standard configuration (variable-length integers).
//! JSON lines: one object per line, the kind is its one key.

use crate::limits::{FRAME_BYTES_MAX, HEADER_BYTES};
use crate::messages::{Direction, Message};

/// The first byte of every binary frame; not `{`, and not text.
pub const BINARY_VERSION: u8 = 0xB1;

/// How much memory, in bytes, a [`Decoder`] keeps between messages. Enough for several reads.
const IDLE_BYTES_MAX: usize = 256 << 10;

/// How many consumed bytes a [`Decoder`] leaves at its front before it moves the rest down:
/// many small messages are worth one move.
const CONSUMED_BYTES_MAX: usize = 64 << 10;

/// What decoding a body may claim, in bytes. The fields of a message, which bincode counts by their size
/// in memory, come on top of the frame. Text and bytes are borrowed from the frame, so no
/// length that a body states is ever allocated.
const CLAIM_BYTES_MAX: usize = FRAME_BYTES_MAX + 4096;

/// How a connection is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Binary frames.
    Binary,
    /// JSON lines.
    Json,
}

/// What a decoder found wrong.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// One message could not be understood; the stream goes on behind it.
    #[error("{0}")]
    Message(String),
    /// The stream is beyond repair.
    #[error("{0}")]
    Stream(String),
}

/// A message that cannot be encoded, with the reason; nothing was written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EncodeError(String);

/// Appends one message to `out`. On an error `out` is as it was.
pub fn encode<'a, M: Message<'a>>(message: &M, encoding: Encoding, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    let result = match encoding {
        Encoding::Binary => {
            out.extend_from_slice(&[BINARY_VERSION, message.kind(), 0, 0, 0, 0, 0, 0]);
            message.encode_body(out).map(|()| {
                let length = (out.len() - start - HEADER_BYTES) as u32;
                out[start + 4..start + HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
            })
        }
        Encoding::Json => message.encode_json(out).map(|()| out.push(b'\n')),
    };
    let around = match encoding {
        Encoding::Binary => HEADER_BYTES,
        Encoding::Json => 1, // the newline
    };
    let bytes = (out.len() - start).saturating_sub(around);
    let result = result.and_then(|()| match bytes > FRAME_BYTES_MAX {
        true => Err(format!("a message of {bytes} bytes is too large, the wire carries {FRAME_BYTES_MAX}")),
        false => Ok(()),
    });
    result.map_err(|reason| {
        out.truncate(start);
        EncodeError(reason)
    })
}

/// Bytes in, messages out. Owns no socket; keeps at most one frame and what was read behind it.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes before this are consumed.
    start: usize,
    /// Bytes of the current line known to hold no newline, so that none is looked at twice.
    scanned: usize,
    encoding: Option<Encoding>,
}

impl Decoder {
    /// The encoding, once the first byte is there.
    pub fn encoding(&self) -> Option<Encoding> {
        self.encoding
    }

    /// How many bytes wait to be decoded.
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.make_room();
        self.buffer.extend_from_slice(bytes);
    }

    /// Lets `read` fill up to `bytes` bytes of room; it returns how many it filled.
    pub fn fill<E>(&mut self, bytes: usize, read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<usize, E> {
        self.make_room();
        let old = self.buffer.len();
        self.buffer.resize(old + bytes, 0);
        let result = read(&mut self.buffer[old..]);
        let filled = result.as_ref().map_or(0, |n| *n);
        self.buffer.truncate(old + filled);
        result
    }

    /// The next message, or none until more bytes come.
    #[expect(clippy::should_implement_trait, reason = "no iterator: it lends, and none now is not none for ever")]
    pub fn next<D: Direction>(&mut self) -> Result<Option<D::Message<'_>>, DecodeError> {
        if self.start == self.buffer.len() {
            self.make_room(); // nothing may ever come to release it
        }
        let encoding = match (self.encoding, self.buffer.get(self.start)) {
            (Some(encoding), _) => encoding,
            (None, None) => return Ok(None),
            (None, Some(b'{')) => Encoding::Json,
            (None, Some(&BINARY_VERSION)) => Encoding::Binary,
            (None, Some(byte)) => {
                return Err(DecodeError::Stream(format!(
                    "the first byte is 0x{byte:02x}: neither JSON lines (0x7b, an opening brace) \
                     nor binary frames of version 1 (0x{BINARY_VERSION:02x})"
                )));
            }
        };
        self.encoding = Some(encoding);
        match encoding {
            Encoding::Binary => self.next_frame::<D>(),
            Encoding::Json => self.next_line::<D>(),
        }
    }

    fn next_frame<D: Direction>(&mut self) -> Result<Option<D::Message<'_>>, DecodeError> {
        let Some((header, rest)) = self.buffer[self.start..].split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [version, kind, zero_a, zero_b, length @ ..] = *header;
        let length = u32::from_le_bytes(length) as usize;
        if version != BINARY_VERSION || zero_a != 0 || zero_b != 0 {
            return Err(DecodeError::Stream(format!("{header:02x?} is no header of a binary frame")));
        }
        if length > FRAME_BYTES_MAX {
            return Err(DecodeError::Stream(format!(
                "a frame of {length} bytes is too large, the wire carries {FRAME_BYTES_MAX}"
            )));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let body = self.start + HEADER_BYTES;
        self.start = body + length;
        match D::Message::decode_body(kind, &self.buffer[body..body + length]) {
            Ok(Some(message)) => Ok(Some(message)),
            Ok(None) => Err(DecodeError::Message(format!("unknown message kind {kind}"))),
            Err(reason) => Err(DecodeError::Message(format!("message kind {kind}: {reason}"))),
        }
    }

    fn next_line<D: Direction>(&mut self) -> Result<Option<D::Message<'_>>, DecodeError> {
        loop {
            let unread = &self.buffer[self.start..];
            let Some(length) = unread[self.scanned..].iter().position(|b| *b == b'\n').map(|at| self.scanned + at)
            else {
                self.scanned = unread.len();
                if unread.len() > FRAME_BYTES_MAX {
                    return Err(DecodeError::Stream(format!("a line is longer than {FRAME_BYTES_MAX} bytes")));
                }
                return Ok(None);
            };
            if length > FRAME_BYTES_MAX {
                return Err(DecodeError::Stream(format!("a line is longer than {FRAME_BYTES_MAX} bytes")));
            }
            let line = self.start..self.start + length;
            self.start = line.end + 1;
            self.scanned = 0;
            if self.buffer[line.clone()].iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return D::Message::decode_json(&self.buffer[line]).map(Some).map_err(DecodeError::Message);
        }
    }

    fn make_room(&mut self) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
            // One large frame must not hold its memory for the life of an idle connection.
            if self.buffer.capacity() > IDLE_BYTES_MAX {
                self.buffer = Vec::new();
            }
        } else if self.start > CONSUMED_BYTES_MAX {
            self.buffer.drain(..self.start);
            self.start = 0;
            if self.buffer.len() <= IDLE_BYTES_MAX / 2 {
                self.buffer.shrink_to(IDLE_BYTES_MAX);
            }
        }
    }
}

pub(crate) fn encode_binary_body<T: bincode::Encode>(body: &T, out: &mut Vec<u8>) -> Result<(), String> {
    bincode::encode_into_std_write(body, out, bincode::config::standard()).map(|_| ()).map_err(|e| e.to_string())
}

pub(crate) fn decode_binary_body<'a, T: bincode::BorrowDecode<'a, ()>>(body: &'a [u8]) -> Result<T, String> {
    let config = bincode::config::standard().with_limit::<CLAIM_BYTES_MAX>();
    match bincode::borrow_decode_from_slice(body, config) {
        // Trailing bytes are what a later version appended: unknown fields are ignored.
        Ok((message, _consumed)) => Ok(message),
        Err(bincode::error::DecodeError::OtherString(reason)) => Err(reason),
        Err(bincode::error::DecodeError::UnexpectedEnd { .. } | bincode::error::DecodeError::LimitExceeded) => {
            Err("the body ends within a field".into())
        }
        Err(other) => Err(other.to_string()),
    }
}
