//! What a class sets for its processes: as it is written, and as its start needs it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use super::file::{parse_bytes, parse_duration};
use crate::sys::{self, Limit};

/// What passes from the supervisor's environment without being named. Names, and beginnings of names with a star.
const PASSES: [&str; 8] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_*", "TZ", "TMPDIR"];
/// For a supervisor that was started without one.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";
/// What a service manager tells the supervisor itself. A worker that took it for its own would speak in its name.
const SUPERVISORS_OWN: [&str; 7] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES"];
/// Variables that only the supervisor sets.
const RESERVED: &str = "WORKHALL_";

/// What is set for a process. Plain values: names were looked up when the configuration was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The user to become, and what it is called.
    pub user: Option<u32>,
    /// The group to take.
    pub group: Option<u32>,
    /// The supplementary groups to take.
    pub groups: Option<Vec<u32>>,
    shown: String,
    /// The whole environment, but for what the supervisor adds.
    pub environment: Vec<(OsString, OsString)>,
    /// Which permissions new files lack.
    pub umask: Option<u32>,
    /// From -20 to 19.
    pub nice: Option<i32>,
    /// Limits of the kernel for each process; none is unlimited.
    pub limits: Vec<(Limit, Option<u64>)>,
    /// Bytes for all processes of a worker, by its control group.
    pub memory: Option<u64>,
    /// Processes of a worker, by its control group.
    pub processes: Option<u64>,
    /// Nothing that is executed gains privileges by it.
    pub no_new_privs: bool,
}

impl Settings {
    /// Whom a process is to become, for people.
    pub fn user_shown(&self) -> String {
        self.shown.clone()
    }

    /// A variable of the environment.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.environment.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_os_str())
    }
}

/// The keys of a class that are about its processes.
#[derive(Clone, Debug, Default)]
pub(super) struct SettingsFile<'a> {
    pub user: Option<&'a UserFile>,
    pub group: Option<&'a GroupFile>,
    pub environment: BTreeMap<Variable, Value>,
    pub pass_environment: Vec<Variable>,
    pub umask: Option<Umask>,
    pub nice: Option<Nice>,
    pub limits: LimitsFile,
    pub memory: Option<u64>,
    pub processes: Option<u64>,
    pub no_new_privs: bool,
}

impl SettingsFile<'_> {
    pub fn check(self) -> anyhow::Result<Settings> {
        let account = self.user.and_then(|user| user.account.as_ref());
        let group = self.group.map(|group| group.number).or(account.map(|account| account.group));
        if let (Some(user), None) = (self.user, group) {
            anyhow::bail!("`user` {} has no entry in the user database: set `group` too", user.number);
        }
        if let Some(own) = self.pass_environment.iter().find(|own| SUPERVISORS_OWN.contains(&&*own.0)) {
            anyhow::bail!("`pass_environment`: `{}` is what the service manager tells the supervisor alone", own.0);
        }
        let groups = self.user.map(|_| account.map_or_else(Vec::new, |account| account.groups.clone()));
        let shown = [
            self.user.map(|user| format!("user {}", user.name())),
            self.group.map(|group| format!("group {}", group.name)),
        ];
        Ok(Settings {
            user: self.user.map(|user| user.number),
            group,
            groups,
            shown: shown.into_iter().flatten().collect::<Vec<_>>().join(" with "),
            environment: self.variables(),
            umask: self.umask.map(|umask| umask.0),
            nice: self.nice.map(|nice| nice.0),
            limits: self.limits.list(),
            memory: self.memory,
            processes: self.processes,
            no_new_privs: self.no_new_privs,
        })
    }

    /// The environment: what passes, what belongs to the user, what is named, what is set; later ones win.
    fn variables(&self) -> Vec<(OsString, OsString)> {
        let mut all: BTreeMap<OsString, OsString> = BTreeMap::new();
        all.insert("PATH".into(), PATH_DEFAULT.into());
        let named = |name: &OsStr| self.pass_environment.iter().any(|variable| name == variable.0.as_str());
        all.extend(std::env::vars_os().filter(|(name, _)| passes(name) || named(name)));
        if let Some(user) = self.user {
            let home = user.account.as_ref().map_or("/".into(), |account| account.home.clone());
            let own = [("HOME", home.into_os_string()), ("USER", user.name().into()), ("LOGNAME", user.name().into())];
            all.extend(own.map(|(name, value)| (name.into(), value)));
        }
        all.extend(self.environment.iter().map(|(name, value)| (name.0.clone().into(), value.0.clone().into())));
        all.into_iter().collect()
    }
}

fn passes(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    PASSES.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == *pattern,
    })
}

// ---- single values ------------------------------------------------------------------------

/// A user, by name or by number.
#[derive(Clone, Debug)]
pub(super) struct UserFile {
    pub number: u32,
    pub account: Option<sys::Account>,
}

impl UserFile {
    fn name(&self) -> String {
        self.account.as_ref().map_or_else(|| self.number.to_string(), |account| account.name.clone())
    }
}

impl<'de> Deserialize<'de> for UserFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let NameOrNumber(name) = only_as_root(deserializer, "user")?;
        let account = sys::account(&name)
            .map_err(|error| de::Error::custom(format_args!("cannot look up the user `{name}`: {error}")))?;
        let number = account.as_ref().map(|account| account.user).or(id(&name));
        let number = number.ok_or_else(|| de::Error::custom(format_args!("there is no user `{name}`")))?;
        Ok(UserFile { number, account })
    }
}

/// A group, by name or by number.
#[derive(Clone, Debug)]
pub(super) struct GroupFile {
    pub number: u32,
    name: String,
}

impl<'de> Deserialize<'de> for GroupFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let NameOrNumber(name) = only_as_root(deserializer, "group")?;
        let known = sys::group_number(&name)
            .map_err(|error| de::Error::custom(format_args!("cannot look up the group `{name}`: {error}")))?;
        let number = known.or(id(&name));
        let number = number.ok_or_else(|| de::Error::custom(format_args!("there is no group `{name}`")))?;
        Ok(GroupFile { number, name })
    }
}

fn only_as_root<'de, D: Deserializer<'de>>(deserializer: D, key: &str) -> Result<NameOrNumber, D::Error> {
    let value = NameOrNumber::deserialize(deserializer)?;
    match sys::is_root() {
        true => Ok(value),
        false => Err(de::Error::custom(format_args!(
            "`{key}` needs a supervisor that runs as root, and this one does not: leave it out, or start it as root"
        ))),
    }
}

/// The number of a user or a group. The largest means "leave it" to the kernel, and is nobody's.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != u32::MAX)
}

struct NameOrNumber(String);

impl<'de> Deserialize<'de> for NameOrNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = NameOrNumber;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a number")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<NameOrNumber, E> {
                match text.is_empty() || text.contains('\0') {
                    true => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                    false => Ok(NameOrNumber(text.to_string())),
                }
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<NameOrNumber, E> {
                match id(&number.to_string()) {
                    Some(number) => Ok(NameOrNumber(number.to_string())),
                    None => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The name of a variable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Variable(String);

impl<'de> Deserialize<'de> for Variable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(de::Error::custom(format_args!("`{name}` cannot be the name of a variable")));
        }
        match name.starts_with(RESERVED) {
            true => Err(de::Error::custom(format_args!(
                "`{name}`: variables that begin with {RESERVED} are set by the supervisor alone"
            ))),
            false => Ok(Variable(name)),
        }
    }
}

/// The value of a variable.
#[derive(Clone, Debug)]
pub(super) struct Value(String);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = String::deserialize(deserializer)?;
        match value.contains('\0') {
            true => Err(de::Error::custom("no variable can contain a NUL character")),
            false => Ok(Value(value)),
        }
    }
}

/// An octal mask of permissions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Umask(u32);

impl<'de> Deserialize<'de> for Umask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A TOML number would be decimal, or lose its leading zeros: only text says what is meant.
        let text = String::deserialize(deserializer)?;
        let octal = text.len() <= 5 && text.bytes().all(|digit| digit.is_ascii_digit());
        let mask = octal.then(|| u32::from_str_radix(&text, 8).ok()).flatten().filter(|mask| *mask <= 0o777);
        mask.map(Umask)
            .ok_or_else(|| de::Error::custom(format_args!("`{text}` is no umask: write it in octal, like \"0027\"")))
    }
}

/// How nice to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nice(i32);

impl<'de> Deserialize<'de> for Nice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let nice = i32::deserialize(deserializer)?;
        match (-20..=19).contains(&nice) {
            true => Ok(Nice(nice)),
            false => Err(de::Error::custom(format_args!("{nice} is out of range: -20 (first) to 19 (last)"))),
        }
    }
}

/// `limits` of a class.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table, like limits = { open_files = 1024 }")]
pub(super) struct LimitsFile {
    open_files: Option<LimitFile<COUNT, 16>>,
    user_processes: Option<LimitFile<COUNT, 1>>,
    cpu_time: Option<LimitFile<TIME, 1>>,
    address_space: Option<LimitFile<SIZE, 1>>,
    data: Option<LimitFile<SIZE, 1>>,
    stack: Option<LimitFile<SIZE, 1>>,
    core: Option<LimitFile<SIZE, 0>>,
    file_size: Option<LimitFile<SIZE, 0>>,
    locked_memory: Option<LimitFile<SIZE, 0>>,
}

impl LimitsFile {
    fn list(&self) -> Vec<(Limit, Option<u64>)> {
        let all = [
            (Limit::OpenFiles, self.open_files.map(|limit| limit.0)),
            (Limit::UserProcesses, self.user_processes.map(|limit| limit.0)),
            (Limit::CpuTime, self.cpu_time.map(|limit| limit.0)),
            (Limit::AddressSpace, self.address_space.map(|limit| limit.0)),
            (Limit::Data, self.data.map(|limit| limit.0)),
            (Limit::Stack, self.stack.map(|limit| limit.0)),
            (Limit::Core, self.core.map(|limit| limit.0)),
            (Limit::FileSize, self.file_size.map(|limit| limit.0)),
            (Limit::LockedMemory, self.locked_memory.map(|limit| limit.0)),
        ];
        all.into_iter().filter_map(|(limit, value)| Some((limit, value?))).collect()
    }
}

const COUNT: u8 = 0;
const TIME: u8 = 1;
const SIZE: u8 = 2;

/// One limit of a kind, at least `MIN`; none is `"unlimited"`.
#[derive(Clone, Copy, Debug)]
struct LimitFile<const KIND: u8, const MIN: u64>(Option<u64>);

impl<'de, const KIND: u8, const MIN: u64> Deserialize<'de> for LimitFile<KIND, MIN> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<const KIND: u8, const MIN: u64>;
        impl<const KIND: u8, const MIN: u64> de::Visitor<'_> for Visitor<KIND, MIN> {
            type Value = Option<u64>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match KIND {
                    COUNT => write!(f, "a number of at least {MIN}, or \"unlimited\""),
                    TIME => f.write_str("whole seconds of at least one, like \"30s\" or \"2m\", or \"unlimited\""),
                    _ => write!(f, "a size of at least {MIN}, like 65536 or \"16MiB\", or \"unlimited\""),
                }
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Option<u64>, E> {
                let number = u64::try_from(v).ok().filter(|v| *v >= MIN && KIND != TIME);
                number.map(Some).ok_or_else(|| E::invalid_value(de::Unexpected::Signed(v), &self))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Option<u64>, E> {
                let number = match (v, KIND) {
                    ("unlimited", _) => return Ok(None),
                    (_, TIME) => parse_duration(v).ok().filter(|time| time.subsec_nanos() == 0).map(|t| t.as_secs()),
                    ("0", SIZE) => Some(0),
                    (_, SIZE) => parse_bytes(v),
                    _ => None,
                };
                let number = number.filter(|number| *number >= MIN);
                number.map(Some).ok_or_else(|| E::invalid_value(de::Unexpected::Str(v), &self))
            }
        }
        deserializer.deserialize_any(Visitor::<KIND, MIN>).map(LimitFile)
    }
}
