//! The configuration as it is written: keys, types, defaults, and how single values are read.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer};
use toml::Spanned;
use workhall_core::{CrashLimit, Limits, Policy};
use workhall_protocol::limits::{FRAME_BYTES_MAX, METHOD_BYTES_MAX};

use super::MetricsAt;
use super::kept::{EventsFile, LogsFile};
use super::people::AllowedFile;
use super::settings::{GroupFile, LimitsFile, Nice, Settings, SettingsFile, Umask, UserFile, Value, Variable};
use super::words::{Calls, OnCrash, Start, Unstarted, word};
use super::{Placed, ProcessTree};
use crate::log;
use crate::sys::SOCKET_PATH_BYTES_MAX;

/// Message and envelope share a frame; this much is left for the envelope.
const ENVELOPE_BYTES: u64 = 4096;
const MESSAGE_BYTES_MAX: u64 = FRAME_BYTES_MAX as u64 - ENVELOPE_BYTES;
/// No duration of a configuration is longer than this: thirty days.
const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// How much of a user's answers may wait to be read, in bytes: several readers of large results that are slow.
pub const UNREAD_BYTES_DEFAULT: u64 = 512 << 20;
/// The permission bits of a socket of which nothing is said: its owner's alone.
pub const SOCKET_MODE_DEFAULT: u32 = 0o600;
/// Two of the largest messages: less than that would make some of them impossible to send.
const USER_BYTES_MIN: u64 = 2 * FRAME_BYTES_MAX as u64;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub supervisor: SupervisorFile,
    #[serde(default)]
    pub class: BTreeMap<Spanned<String>, ClassFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table: [supervisor]")]
pub(super) struct SupervisorFile {
    pub socket: Option<Spanned<PathBuf>>,
    pub workers: Option<Spanned<PathBuf>>,
    pub include: Option<Spanned<String>>,
    #[serde(deserialize_with = "duration")]
    pub shutdown_grace: Duration,
    #[serde(deserialize_with = "message_bytes")]
    pub message_bytes: u64,
    #[serde(deserialize_with = "bytes")]
    pub total_bytes: u64,
    #[serde(deserialize_with = "count")]
    pub total_messages: u64,
    #[serde(deserialize_with = "count")]
    pub sender_messages: u64,
    #[serde(deserialize_with = "bytes")]
    pub sender_bytes: u64,
    #[serde(deserialize_with = "count")]
    pub sender_signals: u64,
    pub dead_letters: DeadLettersFile,
    #[serde(deserialize_with = "count")]
    pub max_workers: u64,
    #[serde(deserialize_with = "count")]
    pub max_processes: u64,
    #[serde(deserialize_with = "count")]
    pub max_connections: u64,
    #[serde(deserialize_with = "word")]
    pub process_tree: ProcessTree,
    #[serde(deserialize_with = "some_count")]
    pub max_connections_per_user: Option<u64>,
    #[serde(deserialize_with = "user_bytes")]
    pub unread_bytes: u64,
    #[serde(deserialize_with = "user_bytes")]
    pub unfinished_bytes: u64,
    #[serde(deserialize_with = "super::people::mode")]
    pub socket_mode: u32,
    #[serde(deserialize_with = "super::people::user")]
    pub socket_user: Option<u32>,
    #[serde(deserialize_with = "super::people::group")]
    pub socket_group: Option<u32>,
    #[serde(deserialize_with = "super::metrics::metrics")]
    pub metrics: Option<MetricsAt>,
    #[serde(deserialize_with = "word")]
    pub log_level: log::Level,
    #[serde(deserialize_with = "word")]
    pub log_format: log::Format,
    pub logs: LogsFile,
    pub events: EventsFile,
    pub kill: Option<AllowedFile>,
    pub admin: Option<AllowedFile>,
}

impl Default for SupervisorFile {
    fn default() -> Self {
        let limits = Limits::default();
        SupervisorFile {
            socket: None,
            workers: None,
            include: None,
            shutdown_grace: Duration::from_secs(10),
            message_bytes: limits.message_bytes,
            total_bytes: limits.total_bytes,
            total_messages: limits.total_messages,
            sender_messages: limits.sender_messages,
            sender_bytes: limits.sender_bytes,
            sender_signals: limits.sender_signals,
            dead_letters: DeadLettersFile::default(),
            max_workers: limits.workers.into(),
            max_processes: limits.processes.into(),
            max_connections: 10_000,
            process_tree: ProcessTree::Auto,
            max_connections_per_user: None,
            unread_bytes: UNREAD_BYTES_DEFAULT,
            unfinished_bytes: 64 << 20,
            socket_mode: SOCKET_MODE_DEFAULT,
            socket_user: None,
            socket_group: None,
            metrics: None,
            log_level: log::Level::default(),
            log_format: log::Format::default(),
            logs: LogsFile::default(),
            events: EventsFile::default(),
            kill: None,
            admin: None,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table, like dead_letters = { messages = 1000 }")]
pub(super) struct DeadLettersFile {
    #[serde(deserialize_with = "count")]
    pub messages: u64,
    #[serde(deserialize_with = "bytes")]
    pub bytes: u64,
}

impl Default for DeadLettersFile {
    fn default() -> Self {
        let limits = Limits::default();
        DeadLettersFile { messages: limits.dead_messages, bytes: limits.dead_bytes }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table, like [class.counter]")]
pub(super) struct ClassFile {
    #[serde(deserialize_with = "exec")]
    pub exec: Vec<String>,
    pub names: Option<Vec<Spanned<String>>>,
    #[serde(deserialize_with = "directory")]
    pub directory: Option<PathBuf>,
    pub main: bool,
    #[serde(deserialize_with = "word")]
    pub start: Start,
    #[serde(deserialize_with = "method")]
    pub startup_method: Option<String>,
    #[serde(deserialize_with = "word")]
    pub on_crash: OnCrash,
    #[serde(deserialize_with = "attempts")]
    pub attempts: Option<Spanned<u8>>,
    pub crash_limit: CrashLimitFile,
    pub mailbox: MailboxFile,
    pub call: Option<AllowedFile>,
    pub logs: Option<AllowedFile>,
    pub attach: Option<AllowedFile>,
    pub metrics_by_worker: bool,
    #[serde(deserialize_with = "some_time")]
    pub start_timeout: Duration,
    #[serde(deserialize_with = "maybe_time")]
    pub task_timeout: Option<Duration>,
    #[serde(deserialize_with = "maybe_time")]
    pub idle_timeout: Option<Duration>,
    #[serde(deserialize_with = "some_duration")]
    pub task_grace: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub exit_grace: Duration,
    #[serde(deserialize_with = "duration")]
    pub term_grace: Duration,
    pub user: Option<UserFile>,
    pub group: Option<GroupFile>,
    pub environment: BTreeMap<Variable, Value>,
    pub pass_environment: Vec<Variable>,
    pub umask: Option<Umask>,
    pub nice: Option<Nice>,
    pub limits: LimitsFile,
    #[serde(deserialize_with = "some_bytes")]
    pub memory: Option<u64>,
    #[serde(deserialize_with = "some_count")]
    pub processes: Option<u64>,
    pub no_new_privs: bool,
}

impl Default for ClassFile {
    fn default() -> Self {
        ClassFile {
            exec: Vec::new(),
            names: None,
            directory: None,
            main: false,
            start: Start::Call,
            startup_method: None,
            on_crash: OnCrash::Drop,
            attempts: None,
            crash_limit: CrashLimitFile::default(),
            mailbox: MailboxFile::default(),
            call: None,
            logs: None,
            attach: None,
            metrics_by_worker: false,
            start_timeout: Duration::from_secs(30),
            task_timeout: None,
            idle_timeout: None,
            task_grace: None,
            exit_grace: Duration::from_secs(5),
            term_grace: Duration::from_secs(5),
            user: None,
            group: None,
            environment: BTreeMap::new(),
            pass_environment: Vec::new(),
            umask: None,
            nice: None,
            limits: LimitsFile::default(),
            memory: None,
            processes: None,
            no_new_privs: true,
        }
    }
}

/// How often a message is tried whose class says `retry` and no more.
const ATTEMPTS: u8 = 3;

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table, like crash_limit = { crashes = 5, within = \"1m\" }")]
pub(super) struct CrashLimitFile {
    #[serde(deserialize_with = "crashes")]
    pub crashes: u16,
    #[serde(deserialize_with = "some_time")]
    pub within: Duration,
    #[serde(deserialize_with = "some_time")]
    pub pause: Duration,
    #[serde(deserialize_with = "word")]
    pub calls: Calls,
    #[serde(deserialize_with = "word")]
    pub unstarted: Unstarted,
}

impl Default for CrashLimitFile {
    fn default() -> Self {
        let CrashLimit { crashes, within, pause, .. } = CrashLimit::default();
        CrashLimitFile { crashes, within, pause, calls: Calls::Accept, unstarted: Unstarted::Keep }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table, like mailbox = { messages = 100 }")]
pub(super) struct MailboxFile {
    #[serde(deserialize_with = "count")]
    pub messages: u64,
    #[serde(deserialize_with = "bytes")]
    pub bytes: u64,
}

impl Default for MailboxFile {
    fn default() -> Self {
        MailboxFile { messages: 10_000, bytes: 16 << 20 }
    }
}

impl SupervisorFile {
    /// Where it listens. What the kernel would cut or refuse has no other meaning.
    pub fn socket_path(&self, base: &Path) -> anyhow::Result<Option<PathBuf>> {
        let Some(socket) = &self.socket else { return Ok(None) };
        let (path, limit) = (base.join(socket.get_ref()), SOCKET_PATH_BYTES_MAX);
        let bytes = if socket.get_ref().as_os_str().is_empty() { 0 } else { path.as_os_str().len() };
        if bytes == 0 || bytes > limit || path.as_os_str().as_encoded_bytes().contains(&0) {
            let message = format!(
                "`socket` in [supervisor]: a socket's path has 1 to {limit} bytes, none of them NUL; this one has {bytes}"
            );
            return Err(Placed::at(socket, message));
        }
        Ok(Some(path))
    }
}

impl ClassFile {
    pub fn policy(&self, class: &str) -> Policy {
        Policy {
            class: class.into(),
            startup_method: self.startup_method.as_deref().map(Arc::from),
            mailbox_messages: self.mailbox.messages,
            mailbox_bytes: self.mailbox.bytes,
            start_timeout: self.start_timeout,
            task_grace: self.task_grace,
            exit_grace: self.exit_grace,
            term_grace: self.term_grace,
            attempts: match self.on_crash {
                OnCrash::Drop => 1,
                OnCrash::Retry => self.attempts.as_ref().map_or(ATTEMPTS, |attempts| *attempts.get_ref()),
            },
            task_timeout: self.task_timeout,
            idle_timeout: self.idle_timeout,
            crash_limit: CrashLimit {
                crashes: self.crash_limit.crashes,
                within: self.crash_limit.within,
                pause: self.crash_limit.pause,
                refuse_calls: self.crash_limit.calls == Calls::Refuse,
                drop_unstarted: self.crash_limit.unstarted == Unstarted::Drop,
            },
        }
    }
}

impl ClassFile {
    /// What it sets for its processes.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let settings = SettingsFile {
            user: self.user.as_ref(),
            group: self.group.as_ref(),
            environment: self.environment.clone(),
            pass_environment: self.pass_environment.clone(),
            umask: self.umask,
            nice: self.nice,
            limits: self.limits,
            memory: self.memory,
            processes: self.processes,
            no_new_privs: self.no_new_privs,
        };
        settings.check()
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(de::Error::custom)
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

fn maybe_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    some_time(deserializer).map(Some)
}

fn some_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let duration = duration(deserializer)?;
    match duration < Duration::from_millis(1) {
        true => Err(de::Error::custom("out of range: 1ms is the shortest")),
        false => Ok(duration),
    }
}

/// A duration as people write it, at most thirty days.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("`{text}` is no duration ({error}); write it like \"250ms\", \"5s\" or \"2m\""))?;
    match duration <= DURATION_MAX {
        true => Ok(duration),
        false => Err(format!("`{text}` is too long: at most 30d")),
    }
}

pub(super) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Bytes;
    impl de::Visitor<'_> for Bytes {
        type Value = u64;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of bytes of at least 1, like 65536, \"64KiB\" or \"16MiB\"")
        }
        fn visit_i64<E: de::Error>(self, v: i64) -> Result<u64, E> {
            u64::try_from(v).ok().filter(|v| *v > 0).ok_or_else(|| E::invalid_value(de::Unexpected::Signed(v), &self))
        }
        fn visit_str<E: de::Error>(self, v: &str) -> Result<u64, E> {
            parse_bytes(v).ok_or_else(|| E::invalid_value(de::Unexpected::Str(v), &self))
        }
    }
    deserializer.deserialize_any(Bytes)
}

fn some_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    bytes(deserializer).map(Some)
}

fn some_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    count(deserializer).map(Some)
}

/// Of a size as people write it: `64KiB`.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let shift = match text[digits..].trim_start() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

fn message_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let bytes = bytes(deserializer)?;
    match bytes <= MESSAGE_BYTES_MAX {
        true => Ok(bytes),
        false => {
            Err(de::Error::custom(format_args!("at most {MESSAGE_BYTES_MAX} bytes: that is what the wire carries")))
        }
    }
}

pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        0 => Err(de::Error::custom("0 is out of range: at least 1 (zero never means unlimited)")),
        count => Ok(count),
    }
}

fn attempts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Spanned<u8>>, D::Error> {
    let attempts = Spanned::<u64>::deserialize(deserializer)?;
    match *attempts.get_ref() {
        number @ 2..=255 => Ok(Some(Spanned::new(attempts.span(), number as u8))),
        _ => Err(de::Error::custom("out of range: 2 to 255 executions of one message, all in all")),
    }
}

fn crashes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    match u64::deserialize(deserializer)? {
        crashes @ 1..=1000 => Ok(crashes as u16),
        _ => Err(de::Error::custom("out of range: 1 to 1000 crashes")),
    }
}

fn user_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let bytes = bytes(deserializer)?;
    match bytes >= USER_BYTES_MIN {
        true => Ok(bytes),
        false => Err(de::Error::custom(format_args!(
            "out of range: at least {USER_BYTES_MIN} bytes, two of the largest messages"
        ))),
    }
}

fn directory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let directory = PathBuf::deserialize(deserializer)?;
    match directory.as_os_str().as_encoded_bytes().contains(&0) {
        true => Err(de::Error::custom("no path can contain a NUL character")),
        false => Ok(Some(directory)),
    }
}

fn exec<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let exec = Vec::<String>::deserialize(deserializer)?;
    if exec.first().is_none_or(|program| program.is_empty()) {
        return Err(de::Error::custom("`exec` needs at least the program"));
    }
    match exec.iter().any(|word| word.contains('\0')) {
        true => Err(de::Error::custom("no program or argument can contain a NUL character")),
        false => Ok(exec),
    }
}

fn method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let method = String::deserialize(deserializer)?;
    match (1..=METHOD_BYTES_MAX).contains(&method.len()) {
        true => Ok(Some(method)),
        false => Err(de::Error::custom(format_args!("a method's name has 1 to {METHOD_BYTES_MAX} bytes"))),
    }
}
