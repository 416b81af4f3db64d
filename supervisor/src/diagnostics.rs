//! What is said on stderr. Whoever reads it may have gone away: that ends nobody, least of all the daemon,
//! which `eprintln!` would. Or has it open and does not read: that must not hold up the daemon. What finds no room is
//! lost, counted, and said to be lost when there is room again.
//!
//! This is the way out for both: what a command says for itself ([`say`]), and what the supervisor logs
//! ([`crate::log`]).

use std::cell::RefCell;
use std::fmt::Display;
use std::io::{self, Write as _};

use crate::log;
use crate::sys::Stderr;

thread_local! {
    /// Of the one thread that there is; none where writing may wait, as in a command.
    static UNWAITING: RefCell<Option<Unwaiting>> = const { RefCell::new(None) };
}

/// Says one thing, whatever is logged.
pub fn say(message: impl Display) {
    let message = message.to_string();
    match log::is_json() {
        true => pass_on(&log::plain_json(&message), 1),
        false => pass_on(&format!("workhall: {message}\n"), 1),
    }
}

/// Without the characters to which terminals listen, in a text of lines that quotes somebody.
pub fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(shown).collect()
}

/// Passes on whole lines that others have said. Many at once are taken or lost together.
pub fn pass_on(text: &str, lines: u64) {
    UNWAITING.with_borrow_mut(|unwaiting| match unwaiting {
        Some(unwaiting) => unwaiting.pass_on(text, lines),
        None => drop(io::stderr().lock().write_all(text.as_bytes())),
    });
}

/// From here on nothing that is said waits for its reader.
pub fn never_wait() {
    UNWAITING.set(Some(Unwaiting { stderr: Stderr::find(), lost: 0, rest: Vec::new() }));
}

/// Says how many lines were lost, if any were and there is room.
pub fn say_what_was_lost() {
    UNWAITING.with_borrow_mut(|unwaiting| {
        unwaiting.as_mut().map(Unwaiting::catch_up);
    });
}

/// What is not said yet: the rest of a line, and how many lines were lost.
pub fn unsaid() -> (Vec<u8>, u64) {
    UNWAITING.with_borrow(|unwaiting| unwaiting.as_ref().map(|it| (it.rest.clone(), it.lost)).unwrap_or_default())
}

/// Goes on with what another program has left unsaid.
pub fn go_on((rest, lost): (Vec<u8>, u64)) {
    UNWAITING.set(Some(Unwaiting { stderr: Stderr::find(), lost, rest }));
}

struct Unwaiting {
    stderr: Stderr,
    lost: u64,
    /// Of the lines for which there was no room: lines stay whole.
    rest: Vec<u8>,
}

impl Unwaiting {
    fn pass_on(&mut self, text: &str, lines: u64) {
        match self.catch_up() {
            true => self.write(text.as_bytes()),
            false => self.lost += lines,
        }
    }

    /// Returns whether all that there was to say before is said.
    fn catch_up(&mut self) -> bool {
        let rest = std::mem::take(&mut self.rest);
        self.write(&rest);
        if self.rest.is_empty() && self.lost > 0 {
            let lines = std::mem::take(&mut self.lost);
            let said = format!("{lines} lines before this one were lost: nobody read them");
            let line = if log::is_json() { log::plain_json(&said) } else { format!("workhall: {said}\n") };
            self.write(line.as_bytes());
        }
        self.rest.is_empty() && self.lost == 0
    }

    fn write(&mut self, line: &[u8]) {
        let mut rest = line;
        while !rest.is_empty() {
            match self.stderr.write(rest) {
                Ok(count) if count > 0 => rest = &rest[count..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return self.rest = rest.to_vec(),
                // Nobody will ever read it.
                _ => return,
            }
        }
    }
}
