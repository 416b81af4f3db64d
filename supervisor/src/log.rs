//! What the supervisor itself says of its work: sentences with fields (`tracing`), of five levels, as text, as JSON or
//! into systemd's journal.
//!
//! A subscriber of its own and not the `tracing-subscriber` crate: there are no spans, the way out must never wait (see
//! [`crate::diagnostics`]), and the formats are not those of that crate. What is left is below.
//!
//! A sentence of a level that is off costs the look at one number. Nothing is logged on the way of a message that is
//! done.
//!
//! What others choose (names, what a worker has said wrong) may be in it: no line of text and no JSON has control
//! characters of theirs, and no field of the journal can be taken for another.

mod news;

use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::clock::Clock;
use crate::diagnostics::{pass_on, say};
use crate::journal::harmless;
use crate::journald::{self, Entry, Journald};

pub(crate) use news::log_news;

/// As what the supervisor's own entries stand in the journal.
const IDENTIFIER: &str = "workhall";
/// The field that a sentence about a worker has.
const WORKER: &str = "worker";

/// `log_level`: this and all above it is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Level {
    /// What ends the supervisor, or keeps it from what it was asked for
    Error,
    /// Crashes of workers, limits that are reached, what is not as the configuration wants it
    Warn,
    /// Also what an operator has changed: reloads, upgrades
    #[default]
    Info,
    /// Also starts, ends and kills of processes, and connections
    Debug,
    /// Also messages that were not done
    Trace,
}

/// `log_format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// To the journal if stderr is connected to it, else text
    #[default]
    Auto,
    /// To systemd's journal, with fields
    Journal,
    /// To stderr, a line each
    Text,
    /// To stderr, a JSON object per line
    Json,
}

/// What a configuration says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What is said.
    pub level: Level,
    /// How.
    pub format: Format,
}

/// What the command line says of it, which comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(default)]
pub struct Named {
    /// How much to log [default: `log_level` in [supervisor], else info]
    #[arg(long = "log-level", value_name = "LEVEL")]
    pub level: Option<Level>,
    /// How to log [default: `log_format` in [supervisor], else auto]
    #[arg(long = "log-format", value_name = "FORMAT")]
    pub format: Option<Format>,
}

/// What the next program of this supervisor needs to go on with it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Carried {
    /// By the command line.
    pub named: Named,
    /// Entries that the journal has not taken, which is not said yet.
    pub lost: u64,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static JSON: AtomicBool = AtomicBool::new(false);
/// The journal, while sentences go there.
static JOURNAL: Mutex<Option<ToJournal>> = Mutex::new(None);

#[derive(Debug)]
struct ToJournal {
    journald: Journald,
    lost: u64,
}

/// From here on the supervisor speaks as it is told to. Said again it changes that.
pub fn set(Settings { level, format }: Settings) {
    LEVEL.store(level as u8, Ordering::Relaxed);
    JSON.store(format == Format::Json, Ordering::Relaxed);
    let wanted = match format {
        Format::Journal => true,
        Format::Auto => journald::is_stderr(),
        Format::Text | Format::Json => false,
    };
    let mut why_not = None;
    let mut last_words = None;
    with_journal(|journal| match (wanted, journal.is_some()) {
        (true, false) => match Journald::find() {
            Ok(journald) => *journal = Some(ToJournal { journald, lost: 0 }),
            Err(error) => why_not = Some(error),
        },
        (false, true) => last_words = journal.take().map(|journal| journal.lost).filter(|lost| *lost > 0),
        _ => {}
    });
    if tracing::subscriber::set_global_default(Log).is_err() {
        // It is ours, and was told before.
        tracing::callsite::rebuild_interest_cache();
    }
    if let Some(lost) = last_words {
        tracing::warn!("{}", lost_words(lost));
    }
    if let Some(error) = why_not.filter(|_| format == Format::Journal) {
        let place = journald::PLACE;
        tracing::warn!("there is no journal at {place} ({error}): the log goes to stderr as text (`log_format`)");
    }
}

/// The supervisor accepts. People script against this line, so it is always there, and on stderr.
pub fn ready(socket: &Path) {
    say(format_args!("ready at {}", socket.display()));
}

/// Whether stderr has nothing but JSON.
pub fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// How many entries the journal has not taken, which is not said yet.
pub fn lost() -> u64 {
    with_journal(|journal| journal.as_ref().map_or(0, |journal| journal.lost))
}

/// Goes on with those of the program before.
pub fn have_lost(lost: u64) {
    with_journal(|journal| journal.iter_mut().for_each(|journal| journal.lost += lost));
}

fn with_journal<T>(use_it: impl FnOnce(&mut Option<ToJournal>) -> T) -> T {
    // Whoever has panicked has left it whole.
    use_it(&mut JOURNAL.lock().unwrap_or_else(PoisonError::into_inner))
}

fn lost_words(lost: u64) -> String {
    format!("{lost} entries of the supervisor before this one were lost: the journal did not take them")
}

/// The subscriber.
struct Log;

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= filter()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(filter())
    }

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        said.out(*event.metadata().level());
    }

    // There are no spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn filter() -> LevelFilter {
    let all = [LevelFilter::ERROR, LevelFilter::WARN, LevelFilter::INFO, LevelFilter::DEBUG, LevelFilter::TRACE];
    all[usize::from(LEVEL.load(Ordering::Relaxed)).min(all.len() - 1)]
}

/// One sentence, and what goes with it.
#[derive(Debug, Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields.push((name, format!("{value:?}").into())),
        }
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_string(),
            name => self.fields.push((name, value.into())),
        }
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), value.into()));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), value.into()));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), value.into()));
    }
}

impl Said {
    fn out(self, level: tracing::Level) {
        let is_taken = with_journal(|journal| match journal {
            Some(journal) => {
                journal.take(&self.entry(level));
                true
            }
            None => false,
        });
        match (is_taken, is_json()) {
            (true, _) => {}
            (false, true) => pass_on(&json(Clock::wall_ms(), word(level), &self.message, self.fields), 1),
            (false, false) => pass_on(&self.text(level), 1),
        }
    }

    /// `workhall: warning: a: its process has crashed: signal 9 number=2`. What goes on in further lines is
    /// indented: so none of them can be taken for the beginning of another.
    fn text(&self, level: tracing::Level) -> String {
        let mut text = String::from("workhall: ");
        text.push_str(match level {
            tracing::Level::ERROR => "error: ",
            tracing::Level::WARN => "warning: ",
            tracing::Level::INFO => "",
            tracing::Level::DEBUG => "debug: ",
            tracing::Level::TRACE => "trace: ",
        });
        for (number, line) in self.sentence().split('\n').enumerate() {
            if number > 0 {
                text.push_str("\n    ");
            }
            text.push_str(&harmless(line.strip_prefix("    ").filter(|_| number > 0).unwrap_or(line)));
        }
        for (name, value) in self.fields.iter().filter(|(name, _)| *name != WORKER) {
            let _infallible = match value {
                Value::String(value) if value.is_empty() || value.contains([' ', '"', '=', '\t']) => {
                    write!(text, " {name}=\"{}\"", harmless(&value.replace('\\', "\\\\").replace('"', "\\\"")))
                }
                Value::String(value) => write!(text, " {name}={}", harmless(value)),
                other => write!(text, " {name}={other}"),
            };
        }
        text.push('\n');
        text
    }

    /// For people: with whom it is about.
    fn sentence(&self) -> String {
        match self.fields.iter().find(|(name, _)| *name == WORKER) {
            Some((_, worker)) => format!("{}: {}", worker.as_str().unwrap_or_default(), self.message),
            None => self.message.clone(),
        }
    }

    fn entry(&self, level: tracing::Level) -> Entry {
        let priority = match level {
            tracing::Level::ERROR => 3,
            tracing::Level::WARN => 4,
            tracing::Level::INFO => 6,
            tracing::Level::DEBUG | tracing::Level::TRACE => 7,
        };
        let mut entry = Entry::new(&self.sentence(), priority, IDENTIFIER);
        for (name, value) in &self.fields {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            entry.field(&format!("WORKHALL_{}", name.to_ascii_uppercase()), &value);
        }
        entry
    }
}

impl ToJournal {
    fn take(&mut self, entry: &Entry) {
        if self.lost > 0 && self.journald.send(&Entry::new(&lost_words(self.lost), 4, IDENTIFIER)).is_ok() {
            self.lost = 0;
        }
        if self.lost > 0 || self.journald.send(entry).is_err() {
            self.lost += 1;
        }
    }
}

fn word(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warn",
        tracing::Level::INFO => "info",
        tracing::Level::DEBUG => "debug",
        tracing::Level::TRACE => "trace",
    }
}

/// A sentence of no level.
pub fn plain_json(message: &str) -> String {
    json(Clock::wall_ms(), "info", message, [])
}

/// One line: when (in milliseconds since 1970), of which level, what, and what goes with it.
pub fn json<'a>(at_ms: u64, level: &str, message: &str, fields: impl IntoIterator<Item = (&'a str, Value)>) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(at_ms);
    let mut object = serde_json::Map::new();
    object.insert("time".into(), humantime::format_rfc3339_millis(time).to_string().into());
    object.insert("level".into(), level.into());
    object.insert("message".into(), message.into());
    object.extend(fields.into_iter().map(|(name, value)| (name.to_string(), value)));
    // JSON itself allows some of the characters to which terminals listen.
    let mut line = String::new();
    for c in Value::from(object).to_string().chars() {
        match harmless(c.encode_utf8(&mut [0; 4])).chars().eq([c]) {
            true => line.push(c),
            false => drop(write!(line, "\\u{:04x}", u32::from(c))),
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(message: &str, fields: &[(&'static str, Value)]) -> Said {
        Said { message: message.to_string(), fields: fields.to_vec() }
    }

    #[test]
    fn no_text_of_others_makes_a_line_of_its_own_or_commands_a_terminal() {
        let evil = "a\nworkhall: ready at /x\x1b[2J\u{9b}31m";
        let text = said(evil, &[("file", evil.into()), ("pid", 7.into())]).text(tracing::Level::WARN);
        assert_eq!(
            text,
            "workhall: warning: a\n    workhall: ready at /x\\x1b[2J\\u{9b}31m \
             file=\"a\\x0aworkhall: ready at /x\\x1b[2J\\u{9b}31m\" pid=7\n"
        );
        let line = json(0, "warn", evil, [("worker", Value::from("\u{7f}\u{202e}x\r\n"))]);
        assert_eq!(
            line,
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"level\":\"warn\",\
             \"message\":\"a\\nworkhall: ready at /x\\u001b[2J\\u009b31m\",\"worker\":\"\\u007f\\u202ex\\r\\n\"}\n"
        );
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["message"], evil);
    }

    #[test]
    fn values_can_be_told_from_each_other() {
        for (value, shown) in [("", "\"\""), ("a b", "\"a b\""), ("a=b", "\"a=b\""), ("\"", "\"\\\"\""), ("a/1", "a/1")]
        {
            let text = said("m", &[("worker", "w".into()), ("of", value.into())]).text(tracing::Level::DEBUG);
            assert_eq!(text, format!("workhall: debug: w: m of={shown}\n"));
        }
    }
}
