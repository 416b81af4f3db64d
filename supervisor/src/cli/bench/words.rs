//! The bytes of the messages that are sent, and what is read of the answers.
//!
//! They are made once and only their number is changed, and of an answer only as much is looked at as tells that it
//! is the expected one: the load must not cost more than what is measured.

use anyhow::{Context as _, bail};
use serde_json::json;
use workhall_protocol::args::Payload;
use workhall_protocol::messages::{Call, FromSupervisor, OutcomeBody, Receipt, ReceiptBody, Ref, Reply, Request};
use workhall_protocol::wire::{Decoder, Encoding, encode};

/// The number of the first message of each round. All numbers have as many digits, so that all messages have
/// the same length.
pub const FIRST: u64 = 1_000_000_000;
/// A message's payload has at least so many bytes: its number and an empty text.
pub const PAYLOAD_MIN: usize = 16;
/// What stands before the payload in a frame of the floor: its length and nothing else.
pub const FLOOR_HEADER: usize = 8;

/// `ref` of what is acknowledged.
const POSTED: u64 = 1;
/// `ref` of what is waited for.
const AWAITED: u64 = 2;
/// The kind of a binary receipt.
const RECEIPT: u8 = 68;
/// How the binary receipt of an accepted call begins, behind its header: `ref` number 1, accepted.
const ACCEPTED: &[u8] = &[0, POSTED as u8, 0];
/// The same as a JSON line.
const ACCEPTED_LINE: &[u8] = br#"{"receipt":{"ref":1,"accepted":"#;

/// Who is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// The supervisor.
    Workhall(Encoding),
    /// A floor: it answers with the frame itself.
    Floor,
}

/// A message without its number.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Vec<u8>,
    number_at: usize,
    decimal: bool,
}

impl Template {
    /// To a worker: acknowledged, or with its outcome.
    pub fn call(
        encoding: Encoding,
        worker: &str,
        method: &str,
        payload: usize,
        answer: Answer,
    ) -> anyhow::Result<Template> {
        let (reference, wait, brief) = match answer {
            Answer::None => (None, false, false),
            Answer::Receipt => (Some(Ref::Number(POSTED)), false, true),
            Answer::ReceiptEach => (Some(Ref::Number(POSTED)), false, false),
            Answer::Outcome => (Some(Ref::Number(AWAITED)), true, true),
        };
        let call = Call { reference, wait, brief, ..Call::new(worker, method, arguments(encoding, payload)?) };
        let mut bytes = Vec::new();
        encode(&Request::Call(call), encoding, &mut bytes)?;
        Template::of(bytes, encoding == Encoding::Json)
    }

    /// To a floor: a header and the payload.
    pub fn floor(payload: usize) -> anyhow::Result<Template> {
        let mut bytes = (payload as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(&FIRST.to_be_bytes());
        bytes.resize(FLOOR_HEADER + payload, b'x');
        Template::of(bytes, false)
    }

    fn of(bytes: Vec<u8>, decimal: bool) -> anyhow::Result<Template> {
        let number = if decimal { FIRST.to_string().into_bytes() } else { FIRST.to_be_bytes().to_vec() };
        let number_at = bytes.windows(number.len()).position(|part| part == number).context("the number is lost")?;
        Ok(Template { bytes, number_at, decimal })
    }

    /// How long a message is.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the message with this number.
    pub fn append(&self, number: u64, out: &mut Vec<u8>) {
        let at = out.len() + self.number_at;
        out.extend_from_slice(&self.bytes);
        if !self.decimal {
            out[at..at + 8].copy_from_slice(&number.to_be_bytes());
            return;
        }
        let mut rest = number;
        for digit in out[at..at + 10].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing.
    None,
    /// A receipt for all that the supervisor took in together.
    Receipt,
    /// A receipt for each.
    ReceiptEach,
    /// The outcome.
    Outcome,
}

/// The last message of a round: how many has the worker executed?
pub fn how_many(encoding: Encoding, worker: &str) -> anyhow::Result<Vec<u8>> {
    let reference = Some(Ref::Number(AWAITED));
    let call = Call { reference, wait: true, ..Call::new(worker, "count", Payload::no_args()) };
    let mut bytes = Vec::new();
    encode(&Request::Call(call), encoding, &mut bytes)?;
    Ok(bytes)
}

/// A list of the number and a text, `payload` bytes long in the encoding in which it is sent.
pub fn arguments(encoding: Encoding, payload: usize) -> anyhow::Result<Payload<'static>> {
    if encoding == Encoding::Json {
        let text = "x".repeat(payload.saturating_sub(15));
        return Ok(Payload::from_json(&json!([FIRST, text]))?);
    }
    let mut bytes = vec![0x92, 0xcf];
    bytes.extend_from_slice(&FIRST.to_be_bytes());
    let room = payload.saturating_sub(bytes.len());
    match room {
        0..=257 => bytes.extend_from_slice(&[0xd9, room.saturating_sub(2) as u8]),
        258..=65538 => {
            bytes.push(0xda);
            bytes.extend_from_slice(&((room - 3) as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0xdb);
            bytes.extend_from_slice(&((room - 5) as u32).to_be_bytes());
        }
    }
    bytes.resize(payload, b'x');
    Ok(Payload(bytes.into()))
}

/// What came.
#[derive(Debug, Default)]
pub struct Heard {
    /// So many messages were acknowledged.
    pub acknowledged: u64,
    /// What was waited for ended well.
    pub done: bool,
    /// With this result, if it was a number.
    pub number: Option<u64>,
}

/// The answers of one connection.
#[derive(Debug)]
pub struct Ear {
    language: Language,
    frame: usize,
    input: Vec<u8>,
}

impl Ear {
    /// `frame` is how long the answers of a floor are.
    pub fn new(language: Language, frame: usize) -> Ear {
        Ear { language, frame, input: Vec::new() }
    }

    /// Takes bytes in.
    pub fn hear(&mut self, bytes: &[u8], heard: &mut Heard) -> anyhow::Result<()> {
        self.input.extend_from_slice(bytes);
        let taken = match self.language {
            Language::Floor => {
                let frames = self.input.len() / self.frame;
                heard.acknowledged += frames as u64;
                heard.done |= frames > 0;
                frames * self.frame
            }
            Language::Workhall(Encoding::Binary) => hear_frames(&self.input, heard)?,
            Language::Workhall(Encoding::Json) => hear_lines(&self.input, heard)?,
        };
        self.input.drain(..taken);
        Ok(())
    }
}

fn hear_frames(input: &[u8], heard: &mut Heard) -> anyhow::Result<usize> {
    let mut at = 0;
    while let Some((header, rest)) = input[at..].split_first_chunk::<8>() {
        let [_, kind, _, _, length @ ..] = *header;
        let length = u32::from_le_bytes(length) as usize;
        let Some(body) = rest.get(..length) else { break };
        match kind == RECEIPT && body.starts_with(ACCEPTED) {
            true => heard.acknowledged += 1,
            false => hear_other(&input[at..at + 8 + length], heard)?,
        }
        at += 8 + length;
    }
    Ok(at)
}

fn hear_lines(input: &[u8], heard: &mut Heard) -> anyhow::Result<usize> {
    let mut at = 0;
    while let Some(length) = input[at..].iter().position(|byte| *byte == b'\n') {
        let line = &input[at..=at + length];
        match line.starts_with(ACCEPTED_LINE) {
            true => heard.acknowledged += 1,
            false => hear_other(line, heard)?,
        }
        at += length + 1;
    }
    Ok(at)
}

fn hear_other(message: &[u8], heard: &mut Heard) -> anyhow::Result<()> {
    let mut decoder = Decoder::default();
    decoder.push(message);
    match decoder.next::<FromSupervisor>()? {
        Some(Reply::Receipt(receipt)) if matches!(receipt.body, ReceiptBody::Accepted(_)) => Ok(()),
        Some(Reply::Receipt(Receipt { body: ReceiptBody::AcceptedAll { messages }, .. })) => {
            heard.acknowledged += messages;
            Ok(())
        }
        Some(Reply::Outcome(outcome)) => match outcome.body {
            OutcomeBody::Done { result } => {
                heard.done = true;
                heard.number = result.decode().ok();
                Ok(())
            }
            other => bail!("a message was not executed: {other:?}"),
        },
        Some(Reply::Receipt(Receipt { body: ReceiptBody::Refused { detail, .. }, .. })) => {
            bail!("the supervisor refuses: {detail}; `workhall bench --help` shows what class it needs")
        }
        other => bail!("unexpected answer: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use workhall_protocol::messages::ToSupervisor;

    #[test]
    fn each_message_has_its_number_and_the_payload_its_size() {
        for encoding in [Encoding::Binary, Encoding::Json] {
            for payload in [PAYLOAD_MIN, 64, 267, 268, 4096, 70_000] {
                let template = Template::call(encoding, "bench/1", "take", payload, Answer::Receipt).unwrap();
                let (mut bytes, mut decoder) = (Vec::new(), Decoder::default());
                template.append(FIRST + 1234, &mut bytes);
                decoder.push(&bytes);
                let Some(Request::Call(call)) = decoder.next::<ToSupervisor>().unwrap() else { panic!() };
                let (number, _text): (u64, String) = call.args.decode().unwrap();
                assert_eq!((number, bytes.len()), (FIRST + 1234, template.bytes()));
                match encoding {
                    Encoding::Binary => assert_eq!(call.args.0.len(), payload),
                    Encoding::Json => assert_eq!(call.args.to_json().unwrap().to_string().len(), payload),
                }
            }
        }
    }

    #[test]
    fn answers_are_counted_wherever_they_are_cut() {
        let accepted = br#"{"receipt":{"ref":1,"accepted":{"worker":"b","number":7,"message":12}}}"#;
        let all = br#"{"receipt":{"ref":1,"accepted_all":{"messages":4}}}"#;
        let done = br#"{"outcome":{"ref":2,"done":{"result":3}}}"#;
        let lines = [&accepted[..], b"\n", accepted, b"\n", all, b"\n", done, b"\n"].concat();
        for cut in 0..lines.len() {
            let (mut ear, mut heard) = (Ear::new(Language::Workhall(Encoding::Json), 0), Heard::default());
            ear.hear(&lines[..cut], &mut heard).unwrap();
            ear.hear(&lines[cut..], &mut heard).unwrap();
            assert_eq!((heard.acknowledged, heard.done, heard.number), (6, true, Some(3)));
        }
        let refused = br#"{"receipt":{"ref":1,"refused":{"reason":"mailbox_full","detail":"full"}}}"#;
        let mut ear = Ear::new(Language::Workhall(Encoding::Json), 0);
        let error = ear.hear(&[&refused[..], b"\n"].concat(), &mut Heard::default()).unwrap_err();
        assert!(error.to_string().contains("the supervisor refuses: "), "{error}");
    }
}
