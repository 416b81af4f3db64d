//! Where lines of workers go beside what is kept: to the journal of systemd with fields, or to the supervisor's stderr.
//!
//! The journal's own protocol is one datagram per line. A crate for it would bring more than the forty lines that this
//! needs, and those there are belong to a framework of logging (crates.md).

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::lines::{Line, Stream};
use crate::diagnostics::pass_on;

/// Where the journal listens.
const JOURNAL: &str = "/run/systemd/journal/socket";
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
    Journal { socket: UnixDatagram, lost: u64 },
    Stderr,
    Nowhere,
}

impl Forward {
    /// As wanted, and why not, if that cannot be.
    pub fn new(wanted: Wanted) -> (Forward, Option<String>) {
        match wanted {
            Wanted::None => (Forward::Nowhere, None),
            Wanted::Auto if !is_journal() => (Forward::Stderr, None),
            Wanted::Stderr => (Forward::Stderr, None),
            Wanted::Auto | Wanted::Journal => match journal() {
                Ok(socket) => (Forward::Journal { socket, lost: 0 }, None),
                Err(error) => {
                    let why = format!(
                        "there is no journal at {JOURNAL} ({error}): what workers write goes to stderr (`logs.forward` in [supervisor])"
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
                    let _infallible = writeln!(text, "{name} | {}", harmless(&line.text));
                }
                pass_on(&text, lines.len() as u64);
            }
            Forward::Journal { socket, lost } => {
                for line in lines {
                    if *lost > 0 {
                        let said = format!(
                            "MESSAGE={lost} lines of workers before this one were lost: the journal did not take them\nPRIORITY=4\nSYSLOG_IDENTIFIER=workhall\n"
                        );
                        if socket.send_to(said.as_bytes(), JOURNAL).is_ok() {
                            *lost = 0;
                        }
                    }
                    if *lost > 0 || socket.send_to(&datagram(name, line), JOURNAL).is_err() {
                        *lost += 1;
                    }
                }
            }
        }
    }
}

fn journal() -> std::io::Result<UnixDatagram> {
    Path::new(JOURNAL).metadata()?;
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Whether stderr is what systemd has connected to the journal: it says device and inode of it.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|meta| stream == format!("{}:{}", meta.dev(), meta.ino()))
}

/// No value has a newline: so each is one line.
fn datagram(name: &str, line: &Line) -> Vec<u8> {
    let (stream, priority) = match line.stream {
        Stream::Stdout => ("stdout", PRIORITY_STDOUT),
        Stream::Stderr => ("stderr", PRIORITY_STDERR),
    };
    let Line { number, generation, class, text, .. } = line;
    format!(
        "MESSAGE={text}\nPRIORITY={priority}\nSYSLOG_IDENTIFIER={name}\nWORKHALL_WORKER={name}\nWORKHALL_NUMBER={number}\n\
         WORKHALL_GENERATION={generation}\nWORKHALL_CLASS={}\nWORKHALL_STREAM={stream}\n",
        &**class
    )
    .into_bytes()
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
