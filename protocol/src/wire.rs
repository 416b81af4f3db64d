//! The two encodings, and the push decoder that tells them apart by the first byte.
//!
//! Binary: a header of [`HEADER_BYTES`] (version, kind, two zero bytes, length of the body as
//! little-endian `u32`), then the body: bincode, standard configuration (variable-length integers).
//! JSON lines: one object per line, the kind is its one key.

use crate::limits::{FRAME_BYTES_MAX, HEADER_BYTES};
use crate::messages::{Direction, Message, Ref, loose_ref, loose_settled};

/// The first byte of every binary frame; not `{`, and not text.
pub const BINARY_VERSION: u8 = 0xB1;

/// How much memory, in bytes, a [`Decoder`] keeps between messages. Enough for several reads.
const IDLE_BYTES_MAX: usize = 256 << 10;

/// How much memory, in bytes, a [`Decoder`] has at least after [`Decoder::compact`]: not worth giving back.
const KEEP_BYTES: usize = 4 << 10;

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
    #[error("{reason}")]
    Message {
        /// The message's `ref`, where it could be read: in a JSON line only.
        reference: Option<Ref>,
        /// The task that it meant to settle, where that could be read: in a JSON line only.
        settles: Option<u64>,
        /// Its kind is none that is known: a later version may say it. Told of binary frames only.
        unknown: bool,
        /// What was wrong with it.
        reason: String,
    },
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

/// With more than this waiting, in bytes, a [`Decoder`] reads into memory of its own and borrows none: copying it out
/// and in again would cost more than that is worth.
pub const LOAN_BYTES_MAX: usize = 4 << 10;

/// Bytes in, messages out. Owns no socket; keeps at most one frame and what was read behind it.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What was read, and behind it room that was used before: it need not be cleared to be read into again.
    buffer: Vec<u8>,
    /// Bytes before this are consumed.
    start: usize,
    /// Bytes from here on are room.
    end: usize,
    /// The buffer is another's ([`Decoder::fill_through`]).
    borrowed: bool,
    /// Bytes of the current line known to hold no newline, so that none is looked at twice.
    scanned: usize,
    encoding: Option<Encoding>,
}

impl Decoder {
    /// The encoding, once the first byte is there.
    pub fn encoding(&self) -> Option<Encoding> {
        self.encoding.or_else(|| match self.unread().first()? {
            b'{' => Some(Encoding::Json),
            &BINARY_VERSION => Some(Encoding::Binary),
            _ => None,
        })
    }

    /// The bytes that wait to be decoded.
    pub fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// One that goes on where another was, of which the encoding and the bytes that waited are known.
    pub fn resumed(encoding: Option<Encoding>, waiting: &[u8]) -> Decoder {
        let mut decoder = Decoder { encoding, ..Decoder::default() };
        decoder.push(waiting);
        decoder
    }

    /// How many bytes wait to be decoded.
    pub fn buffered(&self) -> usize {
        self.end - self.start
    }

    /// Gives back what is not needed for the bytes that wait: for the owner of many connections, most of which
    /// are silent for long.
    pub fn compact(&mut self) {
        self.move_down();
        if self.buffer.capacity() > KEEP_BYTES && self.buffer.capacity() / 2 > self.end {
            self.shrink(KEEP_BYTES);
        }
    }

    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.make_room();
        let (fits, more) = bytes.split_at(bytes.len().min(self.buffer.len() - self.end));
        self.buffer[self.end..][..fits.len()].copy_from_slice(fits);
        self.buffer.extend_from_slice(more);
        self.end += bytes.len();
    }

    /// Lets `read` fill up to `bytes` bytes of room; it returns how many it filled.
    pub fn fill<E>(&mut self, bytes: usize, read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<usize, E> {
        self.make_room();
        let room = self.end + bytes;
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        let result = read(&mut self.buffer[self.end..room]);
        self.end += result.as_ref().map_or(0, |n| *n);
        result
    }

    /// The same through `lent`, which many decoders share: most of what is read at once is decoded at once, and
    /// needs no memory of each one's own. [`Decoder::give_back`] must follow once it is decoded, with the same one.
    /// While another decoder has it, or if it is too short, this one reads into memory of its own.
    pub fn fill_through<E>(
        &mut self,
        lent: &mut Vec<u8>,
        bytes: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let waiting = self.buffered();
        if !self.borrowed && waiting <= LOAN_BYTES_MAX && lent.len() >= waiting + bytes {
            lent[..waiting].copy_from_slice(&self.buffer[self.start..self.end]);
            std::mem::swap(&mut self.buffer, lent);
            (self.start, self.end, self.borrowed) = (0, waiting, true);
        }
        self.fill(bytes, read)
    }

    /// Gives back what [`Decoder::fill_through`] has borrowed, and what else is not needed for the bytes that wait.
    pub fn give_back(&mut self, lent: &mut Vec<u8>) {
        if std::mem::take(&mut self.borrowed) {
            std::mem::swap(&mut self.buffer, lent);
            let rest = self.start..self.end;
            (self.start, self.end) = (0, 0);
            self.push(&lent[rest]);
        }
        self.compact();
    }

    /// The next message, or none until more bytes come.
    #[expect(clippy::should_implement_trait, reason = "no iterator: it lends, and none now is not none for ever")]
    pub fn next<D: Direction>(&mut self) -> Result<Option<D::Message<'_>>, DecodeError> {
        if self.start == self.end {
            self.make_room(); // nothing may ever come to release it
        }
        let encoding = match (self.encoding(), self.unread().first()) {
            (Some(encoding), _) => encoding,
            (None, None) => return Ok(None),
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
        let Some((header, rest)) = self.unread().split_first_chunk::<HEADER_BYTES>() else {
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
        let (unknown, reason) = match D::Message::decode_body(kind, &self.buffer[body..body + length]) {
            Ok(Some(message)) => return Ok(Some(message)),
            Ok(None) => (true, format!("unknown message kind {kind}")),
            Err(reason) => (false, format!("message kind {kind}: {}", cut(reason))),
        };
        Err(DecodeError::Message { reference: None, settles: None, unknown, reason })
    }

    fn next_line<D: Direction>(&mut self) -> Result<Option<D::Message<'_>>, DecodeError> {
        loop {
            let unread = self.unread();
            let waiting = unread.len();
            let Some(length) = unread[self.scanned..].iter().position(|b| *b == b'\n').map(|at| self.scanned + at)
            else {
                self.scanned = waiting;
                if waiting > FRAME_BYTES_MAX {
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
            let line = &self.buffer[line];
            return D::Message::decode_json(line).map(Some).map_err(|reason| DecodeError::Message {
                reference: loose_ref(line),
                settles: loose_settled(line),
                unknown: false,
                reason: cut(reason),
            });
        }
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            // One large frame must not hold its memory for the life of an idle connection.
            if self.buffer.capacity() > IDLE_BYTES_MAX {
                self.buffer = Vec::new();
            }
        } else if self.start > CONSUMED_BYTES_MAX {
            self.move_down();
            if self.end <= IDLE_BYTES_MAX / 2 {
                self.shrink(IDLE_BYTES_MAX);
            }
        }
    }

    fn move_down(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }

    /// Gives back memory down to `bytes`, or to what waits.
    fn shrink(&mut self, bytes: usize) {
        self.buffer.truncate(bytes.max(self.end));
        self.buffer.shrink_to(bytes);
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

/// Why something is not understood may repeat it, however long it is: the beginning and the end say enough.
fn cut(reason: String) -> String {
    const SHOWN: usize = 200;
    let ends = || reason.char_indices().map(|(at, _)| at);
    let (Some(head), Some(tail)) = (ends().nth(SHOWN), ends().rev().nth(SHOWN)) else { return reason };
    if head < tail { format!("{} … {}", &reason[..head], &reason[tail..]) } else { reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Payload;
    use crate::messages::{Done, FromSupervisor, REF_BYTES_MAX, Request, ToSupervisor};
    use crate::recorded;

    /// What a decoder says to all of `bytes`, one text per message or error, up to the first that breaks the stream.
    fn heard<D: Direction>(bytes: &[u8]) -> Vec<String>
    where
        for<'a> D::Message<'a>: std::fmt::Debug,
    {
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        drain::<D>(&mut decoder)
    }

    fn drain<D: Direction>(decoder: &mut Decoder) -> Vec<String>
    where
        for<'a> D::Message<'a>: std::fmt::Debug,
    {
        let mut heard = Vec::new();
        loop {
            match decoder.next::<D>() {
                Ok(Some(message)) => heard.push(format!("{message:?}")),
                Ok(None) => return heard,
                Err(DecodeError::Message { reason, .. }) => heard.push(format!("message: {reason}")),
                Err(DecodeError::Stream(reason)) => {
                    heard.push(format!("stream: {reason}"));
                    return heard;
                }
            }
        }
    }

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![BINARY_VERSION, kind, 0, 0];
        frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
        frame.extend_from_slice(body);
        frame
    }

    const LIST: &[u8] = &[BINARY_VERSION, 6, 0, 0, 4, 0, 0, 0, 0, 1, 0, 0];
    const LIST_HEARD: &str = "List(List { reference: Number(1), after: None, limit: None })";

    fn cut_everywhere<D: Direction>(stream: &[u8], count: usize)
    where
        for<'a> D::Message<'a>: std::fmt::Debug,
    {
        let whole = heard::<D>(stream);
        assert_eq!(whole.len(), count);
        for cut in 0..=stream.len() {
            let mut decoder = Decoder::default();
            decoder.push(&stream[..cut]);
            let mut parts = drain::<D>(&mut decoder);
            decoder.push(&stream[cut..]);
            parts.extend(drain::<D>(&mut decoder));
            assert_eq!(parts, whole, "cut at byte {cut}");
        }
        let mut decoder = Decoder::default();
        let mut single = Vec::new();
        for byte in stream {
            decoder.push(std::slice::from_ref(byte));
            single.extend(drain::<D>(&mut decoder));
        }
        assert_eq!(single, whole, "byte by byte");
        assert_eq!(decoder.buffered(), 0);
    }

    #[test]
    fn a_stream_cut_anywhere_decodes_to_the_same_messages() {
        let (frames, lines, count) = recorded::streams(true);
        cut_everywhere::<ToSupervisor>(&frames, count);
        cut_everywhere::<ToSupervisor>(&lines, count);
        assert_eq!(heard::<ToSupervisor>(&frames), heard::<ToSupervisor>(&lines));
        let (frames, lines, count) = recorded::streams(false);
        cut_everywhere::<FromSupervisor>(&frames, count);
        cut_everywhere::<FromSupervisor>(&lines, count);
        assert_eq!(heard::<FromSupervisor>(&frames), heard::<FromSupervisor>(&lines));
    }

    #[test]
    fn the_first_byte_decides() {
        for byte in 0..=u8::MAX {
            let mut decoder = Decoder::default();
            assert_eq!(decoder.next::<ToSupervisor>(), Ok(None));
            assert_eq!(decoder.encoding(), None);
            decoder.push(&[byte]);
            let encoding = match byte {
                b'{' => Encoding::Json,
                BINARY_VERSION => Encoding::Binary,
                _ => {
                    let error = decoder.next::<ToSupervisor>().unwrap_err();
                    let DecodeError::Stream(reason) = error else { panic!("{error:?}") };
                    assert!(reason.starts_with(&format!("the first byte is 0x{byte:02x}:")), "{reason}");
                    continue;
                }
            };
            assert_eq!(decoder.next::<ToSupervisor>(), Ok(None));
            assert_eq!(decoder.encoding(), Some(encoding));
        }
    }

    #[test]
    fn a_broken_stream_stays_broken() {
        let oversize = (FRAME_BYTES_MAX as u32 + 1).to_le_bytes();
        let too_long = [b"{".as_slice(), &vec![b' '; FRAME_BYTES_MAX], b"\n{\"kill\":{}}\n"].concat();
        let with = |header: &[u8]| [LIST, header].concat();
        for (stream, good, reason) in [
            (b"GET / HTTP".to_vec(), 0, "the first byte is 0x47"),
            (with(b"{\"kill\":"), 1, "is no header"),
            (with(&[BINARY_VERSION, 6, 1, 0, 0, 0, 0, 0]), 1, "is no header"),
            (with(&[BINARY_VERSION, 6, 0, 1, 0, 0, 0, 0]), 1, "is no header"),
            (with(&[&[BINARY_VERSION, 6, 0, 0], &oversize[..]].concat()), 1, "a frame of 16777217 bytes is too large"),
            (with(&[BINARY_VERSION, 6, 0, 0, 255, 255, 255, 255]), 1, "a frame of 4294967295 bytes is too large"),
            (too_long[..too_long.len() - 13].to_vec(), 0, "a line is longer than 16777216 bytes"),
            (too_long, 0, "a line is longer than 16777216 bytes"),
        ] {
            let mut decoder = Decoder::default();
            decoder.push(&stream);
            let first = drain::<ToSupervisor>(&mut decoder);
            assert_eq!(first.len(), good + 1, "{first:?}");
            assert!(first[good].starts_with("stream: ") && first[good].contains(reason), "{first:?}");
            assert_eq!(drain::<ToSupervisor>(&mut decoder), first[good..], "asked again");
        }
    }

    #[test]
    fn a_message_that_is_not_understood_is_named_and_the_next_one_decodes() {
        let hostile_text = |length: &[u8]| frame(6, &[&[1], length].concat());
        for (bad, reason) in [
            (frame(44, b"whatever"), "unknown message kind 44"),
            (frame(66, b""), "unknown message kind 66"), // a task is not for the supervisor
            (frame(6, b""), "message kind 6: the body ends within a field"),
            (frame(1, &[1, 0xfb, 1]), "message kind 1: the body ends within a field"),
            (frame(9, &[0, 1, 1, 7, 4]), "UnexpectedVariant"),
            (frame(6, &[2, 1]), "UnexpectedVariant"),
            (frame(3, &[1, 2, 0xff, 0xff]), "Utf8"),
            (frame(6, &[0, 0xfe]), "InvalidIntegerType"),
            // Lengths far beyond the body: the text of a ref, which is copied, and what is borrowed.
            (hostile_text(&[0xfd, 0, 0, 0, 0, 0, 1, 0, 0]), "the body ends within a field"),
            (hostile_text(&[0xfd, 255, 255, 255, 255, 255, 255, 255, 255]), "the body ends within a field"),
            (hostile_text(&[0xfd, 255, 255, 255, 255, 255, 255, 255, 127]), "the body ends within a field"),
            (hostile_text(&[0xfc, 0, 0, 255, 0, b'x']), "the body ends within a field"),
            (frame(2, &[1, 0xfd, 0, 0, 0, 0, 0, 1, 0, 0]), "message kind 2: the body ends within a field"),
        ] {
            let heard = heard::<ToSupervisor>(&[&bad, LIST].concat());
            assert!(heard[0].starts_with("message: ") && heard[0].contains(reason), "{reason}: {heard:?}");
            assert_eq!(heard[1..], [LIST_HEARD], "{bad:02x?}");
        }
        for (bad, reason) in [
            (r#"{"fly":{}}"#, "`fly`"),
            (r#"{"task":{"id":1}}"#, "`task`"),
            (r#"{"list":{}}"#, "`ref`"),
            (r#"{"list":{"ref":-1}}"#, "a `ref`: a whole number from 0 or a text"),
            (r#"{"call":{"worker":null}}"#, "a worker: its name as a text or its number"),
            (r#"{"call":{"worker":7.5}}"#, "a worker: its name as a text or its number"),
            (r#"{"wait":{"ref":1,"worker":"a","until":"tea"}}"#, "`tea`"),
            (r#"{"list":{"ref":1}"#, "EOF"),
            ("{\"failed\":{\"id\":1,\"error\":\"\u{1}\"}}", "control character"),
            ("nonsense", "expected"),
            ("[]", "expected"),
        ] {
            let heard = heard::<ToSupervisor>(
                format!("{{\"list\":{{\"ref\":1}}}}\n{bad}\n\n \r\n{{\"list\":{{\"ref\":1}}}}\r\n").as_bytes(),
            );
            assert_eq!((heard.len(), &*heard[0], &*heard[2]), (3, LIST_HEARD, LIST_HEARD), "{bad}");
            assert!(heard[1].starts_with("message: ") && heard[1].contains(reason), "{reason}: {heard:?}");
        }
        let not_utf8 = heard::<ToSupervisor>(b"{\"failed\":{\"id\":1,\"error\":\"\xff\"}}\n{\"list\":{\"ref\":1}}\n");
        assert!(not_utf8[0].starts_with("message: ") && not_utf8[1] == LIST_HEARD, "{not_utf8:?}");
    }

    #[test]
    fn what_is_not_understood_may_say_which_task_it_settles() {
        let deep = format!(r#"{{"done":{{"id":7,"result":{}{}}}}}"#, "[".repeat(9999), "]".repeat(9999));
        let settles = |line: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(line);
            decoder.push(b"\n");
            match decoder.next::<ToSupervisor>().unwrap_err() {
                DecodeError::Message { settles, .. } => settles,
                error => panic!("{error}"),
            }
        };
        for (line, expected) in [
            (r#"{"done":{"id":7,"result":NaN}}"#, Some(7)),
            (r#"{"done":{"id":7,"result":1e999}}"#, Some(7)),
            (r#"{"done":{"id":7,"result":{"$bytes":"%"}}}"#, Some(7)),
            (r#"{"done":{"result":{"$bytes":"%"},"id":7}}"#, Some(7)),
            (r#"{ "done" : { "i\u0064" : 7 , "result" : 'x' } }"#, Some(7)),
            (r#"{"done":{"id":7} "#, Some(7)),
            (r#"{"failed":{"id":7}}"#, Some(7)),
            (r#"{"failed":{"error":["x"],"id":18446744073709551615}}"#, Some(u64::MAX)),
            (&*deep, Some(7)),
            // The digits may go on, the id comes too late, or is none.
            (r#"{"done":{"id":7"#, None),
            (r#"{"done":{"result":NaN,"id":7}}"#, None),
            (r#"{"done":{"id":"7"}}"#, None),
            (r#"{"done":{"id":-7}}"#, None),
            (r#"{"done":{"id":7.5}}"#, None),
            (r#"{"done":{"result":{"id":7}}}"#, None),
            (r#"{"done":[7,5]}"#, None),
            (r#"{"done":{}}"#, None),
            // Which of the two?
            (r#"{"done":{"id":7,"id":8}}"#, None),
            (r#"{"done":{"id":7,"id":7,"id":7}}"#, None),
            (r#"{"done":{"id":7},"failed":{"id":8,"error":""}}"#, None),
            (r#"{"call":{"id":7}}"#, None),
            (r#"{"sing":{"id":7}}"#, None),
            ("{", None),
        ] {
            assert_eq!(settles(line.as_bytes()), expected, "{line}");
        }
        assert_eq!(settles(b"{\"done\":{\"id\":7,\"result\":\"\xff\"}}"), Some(7));
    }

    #[test]
    fn who_sent_what_is_not_understood_is_told_its_ref_where_it_can_be_read() {
        let reference = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(b"{\"list\":{\"ref\":1}}\n"); // so that what follows may begin with anything
            assert!(matches!(decoder.next::<ToSupervisor>(), Ok(Some(Request::List(_)))));
            decoder.push(bytes);
            decoder.push(b"\n");
            let error = decoder.next::<ToSupervisor>().unwrap_err();
            let text = error.to_string();
            let DecodeError::Message { reference, reason, .. } = error else { panic!("{error:?}") };
            assert_eq!(text, reason);
            reference
        };
        let deep = format!(r#"{{"call":{{"worker":"a","args":{}{},"ref":7}}}}"#, "[".repeat(9999), "]".repeat(9999));
        let longest = "r".repeat(REF_BYTES_MAX);
        let number = |n| Some(Ref::Number(n));
        for (line, expected) in [
            (r#"{"fly":{"ref":8}}"#, number(8)),
            (
                r#" { "fly" : { "x" : [ { "ref" : 1 } ] , "r\u0065f" : "a" , "y" : null } } "#,
                Some(Ref::Text("a".into())),
            ),
            (&*format!(r#"{{"fly":{{"ref":"{longest}"}}}}"#), Some(Ref::Text(longest.clone()))),
            (r#"{"wait":{"ref":18446744073709551615,"worker":"a","until":"tea"}}"#, number(u64::MAX)),
            (r#"{"call":{"worker":null,"ref":0}}"#, number(0)),
            (r#"{"call":{"worker":"a","args":[1e999],"ref":7}}"#, number(7)),
            (&*deep, number(7)),
            // No valid ref, or none at this place.
            (&*format!(r#"{{"fly":{{"ref":"{longest}r"}}}}"#), None),
            (r#"{"list":{"ref":-1}}"#, None),
            (r#"{"fly":{"ref":1.5}}"#, None),
            (r#"{"fly":{"ref":null}}"#, None),
            (r#"{"fly":{"ref":[1]}}"#, None),
            (r#"{"fly":{"ref":1,"ref":2}}"#, None),
            (r#"{"fly":{"x":{"ref":1}}}"#, None),
            (r#"{"fly":{}}"#, None),
            (r#"{"fly":[1]}"#, None),
            (r#"{"fly":1}"#, None),
            (r#"{"ref":1}"#, None),
            (r#"{"fly":{"ref":1},"list":{"ref":2}}"#, None),
            ("{}", None),
            ("[]", None),
            // No JSON.
            (r#"{"fly":{"ref":1}"#, None),
            (r#"{"fly":{"ref":1}} x"#, None),
            (r#"{"fly":{"ref":1,"x":nonsense}}"#, None),
            ("nonsense", None),
        ] {
            assert_eq!(reference(line.as_bytes()), expected, "{line}");
        }
        assert_eq!(reference(b"{\"fly\":{\"ref\":1,\"x\":\"\xff\"}}"), None);
        // A binary frame of a list with a ref, cut short or of an unknown kind.
        for bad in [frame(44, &[0, 1]), frame(7, &[0, 1])] {
            let mut decoder = Decoder::default();
            decoder.push(&bad);
            assert!(matches!(decoder.next::<ToSupervisor>(), Err(DecodeError::Message { reference: None, .. })));
        }
    }

    #[test]
    fn what_a_later_version_adds_is_ignored() {
        let line = br#"{"list":{"new":[{"x":1}],"ref":1,"other":null}}"#;
        assert_eq!(heard::<ToSupervisor>(&[line, b"\n".as_slice()].concat()), [LIST_HEARD]);
        assert_eq!(heard::<ToSupervisor>(&frame(6, &[0, 1, 0, 0, 9, 9, 9])), [LIST_HEARD]);
        let reached = "Outcome(Outcome { reference: Number(3), body: Reached })";
        let line = br#"{"outcome":{"new":1,"ref":3,"reached":{"new":2},"other":[]}}"#;
        assert_eq!(heard::<FromSupervisor>(&[line, b"\n".as_slice()].concat()), [reached]);
    }

    /// As it was spoken before there were pages.
    #[test]
    fn dead_may_end_before_its_last_field() {
        let short = heard::<ToSupervisor>(&frame(10, &[0, 1, 0, 1, 5]));
        assert_eq!(short, ["Dead(Dead { reference: Number(1), worker: None, limit: Some(5), before: None })"]);
        assert!(heard::<ToSupervisor>(&frame(10, &[0, 1, 0]))[0].starts_with("message: "));
    }

    #[test]
    fn a_ref_has_a_longest_text() {
        for (bytes, fits) in [(REF_BYTES_MAX, true), (REF_BYTES_MAX + 1, false), (1 << 20, false)] {
            let text = "r".repeat(bytes);
            let mut body = vec![1];
            encode_binary_body(&text, &mut body).unwrap();
            let in_reply = [&[1], &body[..], &[0]].concat(); // an error: the ref is optional, then an empty detail
            let line = format!("{{\"list\":{{\"ref\":\"{text}\"}}}}\n");
            let receipt = format!("{{\"receipt\":{{\"ref\":\"{text}\",\"killed\":{{\"discarded\":3}}}}}}\n");
            let all = [
                heard::<ToSupervisor>(&frame(6, &[&body[..], &[0, 0]].concat())), // a list, neither `after` nor `limit`
                heard::<ToSupervisor>(line.as_bytes()),
                heard::<FromSupervisor>(&frame(70, &in_reply)),
                heard::<FromSupervisor>(receipt.as_bytes()),
            ];
            let reason = format!("a `ref` has at most 64 bytes, this one has {bytes}");
            for heard in all {
                assert_eq!(heard.len(), 1);
                assert_eq!(
                    heard[0].contains(&format!("reference: Text({text:?})"))
                        || heard[0].contains(&format!("Some(Text({text:?}))")),
                    fits
                );
                assert_eq!(heard[0].starts_with("message: ") && heard[0].contains(&reason), !fits);
            }
        }
    }

    /// The largest message that can be encoded is one that can be decoded, in both encodings; one byte more
    /// cannot be encoded and leaves nothing behind.
    #[test]
    fn the_bound_is_the_same_on_both_sides() {
        // Once around the payload: id, its length, MessagePack's own header; in JSON the text around it.
        for (encoding, around) in
            [(Encoding::Binary, 1 + 5 + 5), (Encoding::Json, r#"{"done":{"id":1,"result":""}}"#.len())]
        {
            for more in [0, 1] {
                let text = "x".repeat(FRAME_BYTES_MAX - around + more);
                let message = Request::Done(Done { id: 1, result: Payload::encode(&text).unwrap() });
                let mut out = b"before".to_vec();
                let result = encode(&message, encoding, &mut out);
                if more == 1 {
                    assert_eq!(
                        result.unwrap_err().to_string(),
                        "a message of 16777217 bytes is too large, the wire carries 16777216"
                    );
                    assert_eq!(out, b"before", "{encoding:?}");
                    continue;
                }
                result.unwrap();
                let mut decoder = Decoder::default();
                decoder.push(&out[6..]);
                assert_eq!(decoder.next::<ToSupervisor>().unwrap(), Some(message), "{encoding:?}");
                assert_eq!(decoder.next::<ToSupervisor>(), Ok(None));
            }
        }
    }

    #[test]
    fn what_cannot_be_json_leaves_nothing_behind() {
        let message = Request::Done(Done { id: 1, result: Payload(vec![0xc1].into()) }); // never used in MessagePack
        let mut out = b"before".to_vec();
        encode(&message, Encoding::Json, &mut out).unwrap_err();
        assert_eq!(out, b"before");
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        // A large frame, alone and with the start of another behind it.
        for rest in [0, 5] {
            let mut decoder = Decoder::default();
            let large = frame(3, &[&[1, 0xfc, 0, 0, 128, 0], &*vec![b'x'; 8 << 20]].concat());
            let mut peak = 0;
            for piece in [&large[..], &LIST[..rest]].concat().chunks(16 << 10) {
                decoder
                    .fill(16 << 10, |room| {
                        room[..piece.len()].copy_from_slice(piece);
                        Ok::<_, ()>(piece.len())
                    })
                    .unwrap();
                peak = peak.max(decoder.buffer.capacity());
                if decoder.buffered() >= large.len() {
                    assert!(matches!(decoder.next::<ToSupervisor>(), Ok(Some(Request::Failed(_)))));
                }
            }
            assert!(peak <= 2 * (large.len() + (16 << 10)), "{peak}");
            assert_eq!(decoder.next::<ToSupervisor>(), Ok(None));
            decoder.push(&LIST[rest..]);
            assert!(decoder.buffer.capacity() <= IDLE_BYTES_MAX, "{} behind {rest}", decoder.buffer.capacity());
            assert_eq!(drain::<ToSupervisor>(&mut decoder), [LIST_HEARD]);
        }
        // An idle decoder that is not even pushed to.
        let mut decoder = Decoder::default();
        decoder.push(&frame(44, &vec![0; 1 << 20]));
        assert_eq!(drain::<ToSupervisor>(&mut decoder).len(), 1);
        assert_eq!(decoder.buffer.capacity(), 0);
        // Small frames without end, never fully consumed.
        let mut decoder = Decoder::default();
        decoder.push(&LIST[..3]);
        for _ in 0..100_000 {
            decoder.push(&LIST[3..]);
            decoder.push(&LIST[..3]);
            assert_eq!(drain::<ToSupervisor>(&mut decoder), [LIST_HEARD]);
        }
        assert!(decoder.buffer.capacity() <= IDLE_BYTES_MAX, "{}", decoder.buffer.capacity());
    }

    #[test]
    fn a_compact_decoder_holds_what_waits_and_little_more() {
        let mut decoder = Decoder::default();
        decoder.push(&[LIST.repeat(9000), LIST[..4].to_vec()].concat());
        assert_eq!(drain::<ToSupervisor>(&mut decoder).len(), 9000);
        decoder.compact();
        assert!(decoder.buffer.capacity() <= KEEP_BYTES && decoder.buffered() == 4);
        decoder.push(&LIST[4..]);
        assert_eq!(drain::<ToSupervisor>(&mut decoder), [LIST_HEARD]);
        decoder.push(&frame(3, &[1, 0xfc, 0, 0, 128, 0])[..8]);
        decoder.push(&vec![b'x'; 1 << 20]);
        decoder.compact();
        assert_eq!(decoder.buffered(), 8 + (1 << 20));
    }

    fn read_through(decoder: &mut Decoder, lent: &mut Vec<u8>, bytes: &[u8]) -> usize {
        let read = |room: &mut [u8]| {
            room[..bytes.len()].copy_from_slice(bytes);
            Ok::<_, ()>(bytes.len())
        };
        decoder.fill_through(lent, 100, read).unwrap()
    }

    #[test]
    fn decoders_share_memory_one_after_the_other_and_keep_what_waits() {
        let mut lent = vec![0; LOAN_BYTES_MAX + 100];
        let mut decoders = [Decoder::default(), Decoder::default()];
        for cut in 0..=LIST.len() {
            for decoder in &mut decoders {
                for piece in [&LIST[..cut], &LIST[cut..]] {
                    read_through(decoder, &mut lent, piece);
                    let heard = drain::<ToSupervisor>(decoder);
                    assert_eq!(heard.len(), usize::from(decoder.buffered() == 0 && !piece.is_empty()));
                    decoder.give_back(&mut lent);
                    assert_eq!(lent.len(), LOAN_BYTES_MAX + 100, "it came back");
                    assert!(decoder.buffer.capacity() <= KEEP_BYTES && decoder.buffered() < LIST.len());
                }
            }
        }
        // While one has it, another does without.
        let [one, other] = &mut decoders;
        read_through(one, &mut lent, &LIST[..4]);
        read_through(other, &mut lent, LIST);
        assert_eq!(drain::<ToSupervisor>(other), [LIST_HEARD]);
        other.give_back(&mut lent);
        one.give_back(&mut lent);
        assert_eq!((lent.len(), one.buffered()), (LOAN_BYTES_MAX + 100, 4));
        // So does one with much waiting.
        one.push(&LIST[4..]);
        one.push(&frame(44, &vec![0; 2 * LOAN_BYTES_MAX])[..LOAN_BYTES_MAX + 20]);
        read_through(one, &mut lent, &[0; 50]);
        assert_eq!((lent.len(), drain::<ToSupervisor>(one)), (LOAN_BYTES_MAX + 100, vec![LIST_HEARD.to_string()]));
        one.give_back(&mut lent);
        assert_eq!(one.buffered(), LOAN_BYTES_MAX + 70);
    }

    #[test]
    fn a_decoder_goes_on_where_another_was() {
        let (frames, lines, _) = recorded::streams(true);
        for stream in [frames, lines] {
            let whole = heard::<ToSupervisor>(&stream);
            for cut in (0..stream.len()).step_by(7) {
                let mut decoder = Decoder::default();
                decoder.push(&stream[..cut]);
                let mut parts = drain::<ToSupervisor>(&mut decoder);
                let mut other = Decoder::resumed(decoder.encoding(), decoder.unread());
                other.push(&stream[cut..]);
                parts.extend(drain::<ToSupervisor>(&mut other));
                assert_eq!(parts, whole, "cut at byte {cut}");
            }
        }
    }

    #[test]
    fn fill_takes_what_was_read_and_nothing_on_an_error() {
        let mut decoder = Decoder::default();
        assert_eq!(
            decoder.fill(100, |room| {
                room[..4].copy_from_slice(&LIST[..4]);
                Ok::<_, ()>(4)
            }),
            Ok(4)
        );
        assert_eq!(
            decoder.fill(100, |room| {
                room.fill(7);
                Err("no")
            }),
            Err("no")
        );
        assert_eq!(decoder.buffered(), 4);
        decoder.push(&LIST[4..]);
        assert_eq!(drain::<ToSupervisor>(&mut decoder), [LIST_HEARD]);
    }

    #[test]
    fn what_is_not_understood_is_not_repeated_whole() {
        let line = format!("{{\"{}\":{{}}}}\n", "ü".repeat(1 << 20));
        let mut decoder = Decoder::default();
        decoder.push(line.as_bytes());
        let Err(DecodeError::Message { reason, .. }) = decoder.next::<ToSupervisor>() else {
            panic!("it is no message")
        };
        assert!(reason.len() < 1000 && reason.contains("unknown variant") && reason.contains(" … "), "{reason}");
    }
}
