//! Both decoders, in both directions.
//!
//! The first byte of an input steers: the direction, how frames are built, and how the stream is cut. The
//! rest is the stream. Whatever it is, the decoder says the same however it is cut, holds no more than it
//! was given, and what it understands can be encoded and decoded again to the same.

use workhall_protocol::messages::{Direction, FromSupervisor, ToSupervisor};
use workhall_protocol::wire::{BINARY_VERSION, DecodeError, Decoder, Encoding, encode};

use crate::sim::Rng;

/// Bits of the first byte.
const FROM_SUPERVISOR: u8 = 1;
/// The headers of frames are made: a mutation within a body would else nearly always break the length.
const HEADERS_ARE_MADE: u8 = 2;

/// Binary frames.
pub fn frames(data: &[u8]) {
    let Some((steering, rest)) = data.split_first() else { return };
    let stream = match steering & HEADERS_ARE_MADE {
        0 => [&[BINARY_VERSION], rest].concat(),
        _ => with_headers(rest),
    };
    both_directions(*steering, &stream, Encoding::Binary);
}

/// JSON lines.
pub fn lines(data: &[u8]) {
    let Some((steering, rest)) = data.split_first() else { return };
    both_directions(*steering, &[b"{", rest].concat(), Encoding::Json);
}

fn both_directions(steering: u8, stream: &[u8], encoding: Encoding) {
    match steering & FROM_SUPERVISOR {
        0 => check::<ToSupervisor>(steering, stream, encoding),
        _ => check::<FromSupervisor>(steering, stream, encoding),
    }
}

/// Takes a kind, a length and a body at a time, and puts the header before it. A length of 255 stands
/// for two more bytes.
fn with_headers(mut rest: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    while let [kind, length, behind @ ..] = rest {
        let (length, behind) = match (length, behind) {
            (255, [low, high, behind @ ..]) => (usize::from(u16::from_le_bytes([*low, *high])), behind),
            _ => (usize::from(*length), behind),
        };
        let (body, next) = behind.split_at(length.min(behind.len()));
        stream.extend_from_slice(&[BINARY_VERSION, *kind, 0, 0]);
        stream.extend_from_slice(&(body.len() as u32).to_le_bytes());
        stream.extend_from_slice(body);
        rest = next;
    }
    stream
}

/// What a decoder says: a message as its frame, or what was wrong.
#[derive(Debug, PartialEq)]
enum Heard {
    Message(Vec<u8>),
    Wrong(DecodeError),
}

fn check<D: Direction>(steering: u8, stream: &[u8], encoding: Encoding) {
    let mut whole = Decoder::default();
    whole.push(stream);
    let mut heard = Vec::new();
    hear::<D>(&mut whole, encoding, &mut heard);
    assert!(heard.len() <= stream.len(), "more was heard than said");

    let mut rng = Rng::new(u64::from(steering));
    let mut parts = Decoder::default();
    let (mut rest, mut heard_in_parts) = (stream, Vec::new());
    while !rest.is_empty() && !is_broken(&heard_in_parts) {
        let length = match rng.percent(70) {
            true => rng.between(1, 9),
            false => rng.between(1, stream.len() as u64),
        };
        let (part, next) = rest.split_at(rest.len().min(length as usize));
        rest = next;
        match rng.percent(50) {
            true => parts.push(part),
            false => {
                let filled = parts.fill(part.len() + 3, |room| {
                    room[..part.len()].copy_from_slice(part);
                    Ok::<usize, ()>(part.len())
                });
                assert_eq!(filled, Ok(part.len()));
            }
        }
        hear::<D>(&mut parts, encoding, &mut heard_in_parts);
        assert!(parts.buffered() <= stream.len() - rest.len(), "more is kept than was given");
    }
    assert_eq!(heard, heard_in_parts, "it matters where the stream was cut");
    if !is_broken(&heard) {
        assert_eq!(whole.buffered(), parts.buffered());
    }
}

/// All that can be heard now.
fn hear<D: Direction>(decoder: &mut Decoder, encoding: Encoding, heard: &mut Vec<Heard>) {
    while !is_broken(heard) {
        match decoder.next::<D>() {
            Ok(Some(message)) => heard.push(Heard::Message(again::<D>(&message, encoding))),
            Ok(None) => return,
            Err(error) => heard.push(Heard::Wrong(error)),
        }
    }
    let Some(Heard::Wrong(broken)) = heard.last() else { return };
    assert_eq!(&decoder.next::<D>().err().expect("what is broken stays broken"), broken);
}

fn is_broken(heard: &[Heard]) -> bool {
    matches!(heard.last(), Some(Heard::Wrong(DecodeError::Stream(_))))
}

/// Encodes a message in both encodings, and decodes it again: to the same. Returns its frame.
fn again<D: Direction>(message: &D::Message<'_>, from: Encoding) -> Vec<u8> {
    let frame = encoded::<D>(message, Encoding::Binary).expect("what came over the wire fits the wire");
    let frame_again = decoded::<D, _>(&frame, |message| encoded::<D>(message, Encoding::Binary)).expect("it is ours");
    assert_eq!(frame_again.expect("it was encoded before"), frame);

    let line = match (encoded::<D>(message, Encoding::Json), from) {
        (Ok(line), _) => line,
        // In a frame arguments are bytes that nobody has looked into.
        (Err(_), Encoding::Binary) => return frame,
        (Err(error), Encoding::Json) => panic!("it came as JSON, and cannot be said in JSON: {error}"),
    };
    let both = decoded::<D, _>(&line, |message| {
        (encoded::<D>(message, Encoding::Json), encoded::<D>(message, Encoding::Binary))
    });
    match both {
        Ok((line_again, frame_again)) => {
            let line_again = line_again.expect("it was encoded before");
            // A frame may have a key twice, which is one where JSON is read.
            let same =
                text(&line_again) == text(&line) || from == Encoding::Binary && value(&line_again) == value(&line);
            assert!(same, "{}\n{}", text(&line_again), text(&line));
            let frame_again = frame_again.expect("it was encoded before");
            // What JSON cannot say of MessagePack (NaN, keys that are numbers) is not the same in a frame.
            assert!(from == Encoding::Binary || frame_again == frame, "JSON has changed it: {}", text(&line));
        }
        // JSON writes bytes as a map, and a map of just this shape may have been meant as a map.
        Err(_) if from == Encoding::Binary && text(&line).contains("\"$bytes\"") => {}
        Err(error) => panic!("what was encoded is not understood: {error}: {}", text(&line)),
    }
    frame
}

fn encoded<'a, D: Direction>(message: &D::Message<'a>, encoding: Encoding) -> Result<Vec<u8>, String> {
    let mut out = b"before".to_vec();
    let result = encode(message, encoding, &mut out);
    assert!(out.starts_with(b"before") && (result.is_ok() || out.len() == 6), "on an error `out` is as it was");
    result.map(|()| out.split_off(6)).map_err(|error| error.to_string())
}

fn decoded<D: Direction, R>(bytes: &[u8], take: impl FnOnce(&D::Message<'_>) -> R) -> Result<R, DecodeError> {
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    let taken = take(&decoder.next::<D>()?.expect("it is whole"));
    assert_eq!(decoder.buffered(), 0, "it is one message");
    Ok(taken)
}

fn text(line: &[u8]) -> &str {
    std::str::from_utf8(line).expect("JSON is UTF-8")
}

fn value(line: &[u8]) -> serde_json::Value {
    serde_json::from_slice(line).expect("it is JSON")
}
