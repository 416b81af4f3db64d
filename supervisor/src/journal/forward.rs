//! Where lines of workers go beside what is kept: to the journal of systemd with fields, or to the supervisor's stderr.
//!
//! Where the supervisor itself speaks JSON (`log_format`), its stderr has nothing but JSON.

use std::fmt::Write as _;

use super::lines::{Line, Stream};
use crate::diagnostics::pass_on;
use crate::journald::{self, Entry, Journald};
use crate::log;

/// syslog's numbers: what is written to stdout is said, what is written to stderr may be worth a look.
const PRIORITY_STDOUT: u8 = 6;
const PRIORITY_STDERR: u8 = 4;

/// `logs.forward` in `[supervisor]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// To the journal if the supervisor's own stderr goes there, else to stderr.
    Auto,
    /// To the journal.
    Journal,
    /// To the supervisor's stderr.
    Stderr,
    /// Nowhere: they are only kept.
    None,
}

/// Where they go.
#[derive(Debug)]
pub(crate) enum Forward {
    Journal { journald: Journald, lost: u64 },
    Stderr,
    Nowhere,
}

impl Forward {
    /// As wanted, and why not, if that cannot be.
    pub fn new(wanted: Wanted) -> (Forward, Option<String>) {
        match wanted {
            Wanted::None => (Forward::Nowhere, None),
            Wanted::Auto if !journald::is_stderr() => (Forward::Stderr, None),
            Wanted::Stderr => (Forward::Stderr, None),
            Wanted::Auto | Wanted::Journal => match Journald::find() {
                Ok(journald) => (Forward::Journal { journald, lost: 0 }, None),
                Err(error) => {
                    let why = format!(
                        "there is no journal at {} ({error}): what workers write goes to stderr (`logs.forward` in [supervisor])",
                        journald::PLACE
                    );
                    (Forward::Stderr, Some(why).filter(|_| wanted == Wanted::Journal))
                }
            },
        }
    }

    /// What it did not take and has not said, if nothing more comes.
    pub fn last_words(self) -> Option<String> {
        match self {
            Forward::Journal { lost: lost @ 1.., .. } => {
                Some(format!("{lost} lines of workers were lost: the journal did not take them"))
            }
            _ => None,
        }
    }

    /// Passes on what one read has brought. Nobody is waited for.
    pub fn pass_on(&mut self, name: &str, lines: &[Line]) {
        match self {
            Forward::Nowhere => {}
            Forward::Stderr => {
                let mut text = String::new();
                for line in lines {
                    match log::is_json() {
                        true => text.push_str(&json(name, line)),
                        false => drop(writeln!(text, "{name} | {}", harmless(&line.text))),
                    }
                }
                pass_on(&text, lines.len() as u64);
            }
            Forward::Journal { journald, lost } => {
                for line in lines {
                    if *lost > 0 {
                        let said =
                            format!("{lost} lines of workers before this one were lost: the journal did not take them");
                        if journald.send(&Entry::new(&said, PRIORITY_STDERR, "workhall")).is_ok() {
                            *lost = 0;
                        }
                    }
                    if *lost > 0 || journald.send(&entry(name, line)).is_err() {
                        *lost += 1;
                    }
                }
            }
        }
    }
}

fn stream(line: &Line) -> (&'static str, u8) {
    match line.stream {
        Stream::Stdout => ("stdout", PRIORITY_STDOUT),
        Stream::Stderr => ("stderr", PRIORITY_STDERR),
    }
}

fn entry(name: &str, line: &Line) -> Entry {
    let (stream, priority) = stream(line);
    let mut entry = Entry::new(&line.text, priority, name);
    entry.field("WORKHALL_WORKER", name);
    entry.field("WORKHALL_NUMBER", &line.number.to_string());
    entry.field("WORKHALL_GENERATION", &line.generation.to_string());
    entry.field("WORKHALL_CLASS", &line.class);
    entry.field("WORKHALL_STREAM", stream);
    entry
}

/// As the supervisor's own sentences are written, beside which it stands.
fn json(name: &str, line: &Line) -> String {
    let fields = [
        ("worker", name.into()),
        ("number", line.number.into()),
        ("generation", line.generation.into()),
        ("class", line.class.to_string().into()),
        ("stream", stream(line).0.into()),
    ];
    log::json(line.at_ms, "info", &line.text, fields)
}

/// What a worker wrote, so that no terminal takes it for a command: control characters stand there as Rust writes
/// them, but for the tabulator.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => shown.push(c),
            // Those that turn the direction of what follows are none of the control characters, and lie as well.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => shown.extend(c.escape_unicode()),
            c if c.is_control() => match u32::from(c) {
                code @ ..0x80 => drop(write!(shown, "\\x{code:02x}")),
                _ => shown.extend(c.escape_unicode()),
            },
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_commands_a_terminal() {
        for (text, shown) in [
            ("a\tb \u{e9}", "a\tb \u{e9}"),
            ("\x1b[31mred\x07\0\r", "\\x1b[31mred\\x07\\x00\\x0d"),
            ("\u{9b}2J\x7f", "\\u{9b}2J\\x7f"),
            ("\u{202e}txt\u{2066}", "\\u{202e}txt\\u{2066}"),
        ] {
            assert_eq!(harmless(text), shown);
        }
        assert!(
            (0..0x11_0000)
                .filter_map(char::from_u32)
                .all(|c| { c == '\t' || harmless(&c.to_string()).chars().all(|shown| !shown.is_control()) })
        );
    }
}
