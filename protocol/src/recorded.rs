//! The recorded frames, and the page that shows some of them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::messages::{Direction, FromSupervisor, Message, OutcomeBody, ReceiptBody, Reply, ToSupervisor};
use crate::wire::{Decoder, Encoding, encode};

const FRAMES: &str = include_str!("../recorded/frames.txt");
const PAGE: &str = include_str!("../PROTOCOL.md");

/// One line of `frames.txt`.
pub struct Recorded {
    pub name: &'static str,
    pub to_supervisor: bool,
    pub frame: Vec<u8>,
    /// Without the newline.
    pub json: &'static str,
}

pub fn all() -> Vec<Recorded> {
    let lines = FRAMES.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let [name, hex, json] = *line.splitn(3, " | ").collect::<Vec<_>>() else {
                panic!("not three parts: {line}")
            };
            let to_supervisor = name.starts_with('>');
            assert!(to_supervisor || name.starts_with('<'), "no direction: {line}");
            Recorded { name, to_supervisor, frame: bytes(hex).unwrap_or_else(|| panic!("not hex: {line}")), json }
        })
        .collect()
}

/// All frames of one direction one after the other, all lines likewise, and how many they are.
pub fn streams(to_supervisor: bool) -> (Vec<u8>, Vec<u8>, usize) {
    let (mut frames, mut lines, mut count) = (Vec::new(), Vec::new(), 0);
    for recorded in all().into_iter().filter(|r| r.to_supervisor == to_supervisor) {
        frames.extend_from_slice(&recorded.frame);
        lines.extend_from_slice(recorded.json.as_bytes());
        lines.push(b'\n');
        count += 1;
    }
    (frames, lines, count)
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    hex.split(' ').map(|two| u8::from_str_radix(two, 16).ok().filter(|_| two.len() == 2)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let space = if text.is_empty() { "" } else { " " };
        write!(text, "{space}{byte:02x}").expect("a String takes everything");
        text
    })
}

/// The frame and the line decode to one message, and it is encoded to just these again.
fn check<D: Direction>(recorded: &Recorded) {
    let Recorded { name, frame, json, .. } = recorded;
    let (mut binary, mut lines) = (Decoder::default(), Decoder::default());
    binary.push(frame);
    lines.push(format!("{json}\n").as_bytes());
    let from_frame =
        binary.next::<D>().unwrap_or_else(|e| panic!("{name}: {e}")).unwrap_or_else(|| panic!("{name}: cut"));
    let from_line = lines.next::<D>().unwrap_or_else(|e| panic!("{name}: {e}")).unwrap();

    for message in [&from_frame, &from_line] {
        let (mut as_frame, mut as_line) = (Vec::new(), Vec::new());
        encode(message, Encoding::Binary, &mut as_frame).unwrap();
        encode(message, Encoding::Json, &mut as_line).unwrap();
        assert_eq!(hex(&as_frame), hex(frame), "{name}");
        assert_eq!(String::from_utf8(as_line).unwrap(), format!("{json}\n"), "{name}");
        assert_eq!(message.kind(), frame[1], "{name}");
    }
}

#[test]
fn every_recorded_frame_is_its_line_and_both_are_encoded_so() {
    for recorded in all() {
        match recorded.to_supervisor {
            true => check::<ToSupervisor>(&recorded),
            false => check::<FromSupervisor>(&recorded),
        }
    }
}

#[test]
fn every_kind_and_every_body_is_recorded() {
    let (mut kinds, mut receipts, mut outcomes) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut names = BTreeSet::new();
    for recorded in all() {
        assert!(names.insert(recorded.name), "{} twice", recorded.name);
        kinds.insert(recorded.frame[1]);
        if recorded.to_supervisor {
            continue;
        }
        // The exhaustive matches make a new variant a compile error here.
        match Reply::decode_json(recorded.json.as_bytes()).unwrap() {
            Reply::Receipt(receipt) => receipts.insert(match receipt.body {
                ReceiptBody::Accepted(_) => 0,
                ReceiptBody::Ignored { .. } => 1,
                ReceiptBody::Refused { .. } => 2,
                ReceiptBody::Killed { .. } => 3,
                ReceiptBody::Report(_) => 4,
                ReceiptBody::Waiting {} => 5,
                ReceiptBody::Letter(_) => 6,
                ReceiptBody::Requeued(_) => 7,
                ReceiptBody::Dropped { .. } => 8,
                ReceiptBody::Resumed {} => 9,
                ReceiptBody::AcceptedAll { .. } => 10,
                ReceiptBody::Failed { .. } => 11,
                ReceiptBody::Paused {} => 12,
                ReceiptBody::Signal { .. } => 13,
                ReceiptBody::Signalled { .. } => 14,
                ReceiptBody::Cancelled { .. } => 15,
                ReceiptBody::Running(_) => 16,
            }),
            Reply::Outcome(outcome) => outcomes.insert(match outcome.body {
                OutcomeBody::Done { .. } => 0,
                OutcomeBody::Failed { .. } => 1,
                OutcomeBody::Discarded { .. } => 2,
                OutcomeBody::Expired { .. } => 3,
                OutcomeBody::Dead { .. } => 4,
                OutcomeBody::Killed(_) => 5,
                OutcomeBody::Reached {} => 6,
                OutcomeBody::Triggered { .. } => 7,
                OutcomeBody::TimedOut {} => 8,
                OutcomeBody::Lost {} => 9,
            }),
            Reply::Welcome(_)
            | Reply::Task(_)
            | Reply::Kill(_)
            | Reply::Error(_)
            | Reply::News(_)
            | Reply::Cancelled(_) => false,
        };
    }
    assert!(kinds.into_iter().eq((1..=31).chain(65..=72)));
    assert!(receipts.into_iter().eq(0..=16));
    assert!(outcomes.into_iter().eq(0..=9));
}

#[test]
fn every_frame_and_line_of_the_page_is_recorded() {
    let recorded = all();
    let (mut frames, mut lines) = (0, 0);
    let mut known = |frame: &[u8]| {
        assert!(recorded.iter().any(|r| r.frame == frame), "not recorded: {}", hex(frame));
        frames += 1;
    };
    // A block marked `frame` explains one frame: bytes, two spaces, meaning.
    for block in PAGE.split("```frame\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let columns = block.lines().map(|line| line.split("  ").next().unwrap());
        known(
            &columns
                .flat_map(|column| bytes(column).unwrap_or_else(|| panic!("not hex: {column}")))
                .collect::<Vec<_>>(),
        );
    }
    // A frame in a code span stands there whole.
    for span in PAGE.split('`').filter_map(bytes).filter(|span| span.starts_with(&[0xb1]) && span.len() > 1) {
        known(&span);
    }
    // A block marked `recorded` has one JSON line per line.
    for block in PAGE.split("```recorded\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            assert!(recorded.iter().any(|r| r.json == line), "not recorded: {line}");
            lines += 1;
        }
    }
    assert!(frames >= 3 && lines >= 5, "the page shows {frames} frames and {lines} lines");
}
