//! Output for people: ages, tables, colours only on a terminal and never under NO_COLOR.

use std::io::{self, Write as _};

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;

use super::{ExitCode, Failure};

/// `250ms`, `4.2s`, `3m12s`, `5h07m`, `2d03h`.
pub fn age(millis: u64) -> String {
    let seconds = millis / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match millis {
        0..1_000 => format!("{millis}ms"),
        1_000..10_000 => format!("{}.{}s", seconds, millis % 1000 / 100),
        _ if seconds < 60 => format!("{seconds}s"),
        _ if minutes < 60 => format!("{minutes}m{:02}s", seconds % 60),
        _ if hours < 24 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// `512 B`, `3.1 KiB`, `16 MiB`.
pub fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = "B";
    for next in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if value < 10.0 && value.fract() >= 0.05 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// `12,345`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 line was`, `2,000 lines were`: a number and one of two words, and what goes with them.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A name as it may be shown on a terminal: control characters cannot be in a name, but a method's or an
/// error's text may hold anything.
pub fn safe(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The word of a closed set, as programs see it.
pub fn word(word: impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_value(word)?.as_str().unwrap_or_default().to_string())
}

/// Rule L2, for people.
pub fn ran(may_have_run: bool) -> &'static str {
    match may_have_run {
        true => "it may have run in part",
        false => "it has not run",
    }
}

/// An empty table with a head.
pub fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        table.force_no_tty();
    }
    table.set_header(head.iter().map(|title| Cell::new(title).add_attribute(Attribute::Bold)));
    table
}

/// A cell in the colour of a state.
pub fn state(word: &str) -> Cell {
    let cell = Cell::new(word);
    match word {
        "busy" => cell.fg(Color::Green),
        "starting" | "ending" => cell.fg(Color::Yellow),
        "backoff" | "paused" => cell.fg(Color::Red),
        "absent" => cell.fg(Color::DarkGrey),
        _ => cell,
    }
}

/// Standard output of a command that does more than print: a reader that goes away (`… | head -1`) changes
/// neither what is done nor the status.
#[derive(Debug, Default)]
pub struct Out {
    broken: Option<io::Error>,
}

impl Out {
    /// Prints one line, while somebody reads.
    pub fn line(&mut self, line: impl std::fmt::Display) {
        if self.broken.is_none() {
            self.broken = print_line(line).err();
        }
    }

    /// The end of the command. That nobody reads is no error, but that there is no room for what was asked
    /// for is one, unless something worse is to be told.
    pub fn end(self, result: Result<ExitCode, Failure>) -> Result<ExitCode, Failure> {
        match (result, self.broken) {
            (Ok(ExitCode::Done), Some(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
                ExitCode::Failed,
                format!("what was asked for is done, but it cannot be written to stdout: {error}"),
            )),
            (result, _) => result,
        }
    }
}

/// The end of a command that only prints: it is done when nobody reads any more.
pub fn printed(result: io::Result<()>) -> Result<ExitCode, Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(ExitCode::Failed, format!("cannot write to stdout: {error}")))
        }
        _ => Ok(ExitCode::Done),
    }
}

/// Prints a table without the spaces that would end its lines.
pub fn print_table(table: &Table) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in table.lines() {
        writeln!(out, "{}", line.strip_prefix(' ').unwrap_or(&line).trim_end())?;
    }
    Ok(())
}

/// Prints one line. JSON leaves DEL and the controls from U+0080 on as they are, to which terminals listen: they are
/// written as `\u009b`, which means the same. In a line for people there are none ([`safe`]).
pub fn print_line(line: impl std::fmt::Display) -> io::Result<()> {
    let line = line.to_string();
    let mut out = io::stdout().lock();
    for part in line.split_inclusive(is_late_control) {
        match part.chars().next_back().filter(|c| is_late_control(*c)) {
            Some(control) => {
                write!(out, "{}\\u{:04x}", part.strip_suffix(control).unwrap_or(part), u32::from(control))?;
            }
            None => out.write_all(part.as_bytes())?,
        }
    }
    writeln!(out)
}

fn is_late_control(c: char) -> bool {
    ('\u{7f}'..='\u{9f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short_and_readable() {
        for (millis, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (4_250, "4.2s"),
            (59_999, "59s"),
            (192_000, "3m12s"),
            (18_420_000, "5h07m"),
            (183_600_000, "2d03h"),
        ] {
            assert_eq!(age(millis), text);
        }
    }

    #[test]
    fn sizes_and_counts_are_readable() {
        for (number, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (3200, "3.1 KiB"), (16 << 20, "16 MiB"), (1 << 40, "1 TiB")]
        {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(
            [0, 1, 2_000].map(|n| counted(n, "line was", "lines were")),
            ["0 lines were", "1 line was", "2,000 lines were"]
        );
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
    }
}
