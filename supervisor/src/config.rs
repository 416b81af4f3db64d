//! The configuration: from the file, to what is checked, to what the supervisor works with.
//!
//! A file is taken whole or not at all: an unknown key, a wrong type or a value out of range is an error
//! that names file, line, column and what was expected.

mod again;
mod boot;
mod difference;
mod file;
mod include;
mod kept;
mod metrics;
mod no_class;
mod patterns;
mod people;
mod programs;
mod settings;
mod warnings;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use workhall_core::{Limits, Policy, Refused};
use workhall_protocol::ids::WorkerName;
use workhall_protocol::terms::Refusal;

pub use difference::{Difference, difference};
use file::{ClassFile, File, SupervisorFile};
pub use file::{SOCKET_MODE_DEFAULT, UNREAD_BYTES_DEFAULT, parse_bytes, parse_duration};
use include::{Source, include};
pub use metrics::MetricsAt;
use patterns::{Pattern, PatternKind, glob};
use programs::{find_program, is_executable};
pub use settings::Settings;
use words::{OnCrash, Start};

use crate::access::{Allowed, Creds, Rights};
use crate::sys::{self, SocketAccess};
use crate::{journal, log};

/// Where the configuration is looked for when nobody says where.
pub const DEFAULT_FILE: &str = "/etc/workhall/workhall.toml";

/// A configuration that was read and checked.
#[derive(Debug)]
pub struct Config {
    /// Where it came from; none without a file.
    pub file: Option<PathBuf>,
    /// The files that it was read from, the main one first, and their texts.
    pub texts: Vec<(PathBuf, String)>,
    /// In which of them a class stands that is not in the main one.
    from: BTreeMap<String, usize>,
    /// `socket` in `[supervisor]`.
    pub socket: Option<PathBuf>,
    /// `shutdown_grace` in `[supervisor]`.
    pub shutdown_grace: Duration,
    /// The bounds of the whole.
    pub limits: Limits,
    /// The most connections at a time.
    pub connections: usize,
    /// How what processes leave behind is to be found.
    pub process_tree: ProcessTree,
    /// What is set for processes whose class is in no file.
    plain: Settings,
    /// `max_connections_per_user`.
    pub connections_per_user: Option<usize>,
    /// How many bytes of answers a user, or a worker, may leave unread.
    pub unread_bytes: usize,
    /// How many bytes of unfinished messages a user may have sent.
    pub unfinished_bytes: usize,
    /// Whose the socket is, and who may open it.
    pub socket_access: SocketAccess,
    /// Who may do what beyond calls.
    pub rights: Rights,
    /// Where metrics are read; nowhere, if none.
    pub metrics: Option<MetricsAt>,
    /// What is kept of workers' lines and of events.
    pub journal: journal::Settings,
    log: log::Settings,
    /// What the command line says of the supervisor's own log.
    pub named_log: log::Named,
    classes: Vec<Arc<Class>>,
    /// Patterns and the class of each, the most specific first.
    patterns: Vec<Pattern>,
    /// Executables that are classes by their own name (rule W9).
    workers_dir: Option<PathBuf>,
    /// The directory comes from the command line, and so before one that the file names.
    workers_dir_is_named: bool,
    /// More classes may come by files that are added.
    includes: bool,
}

/// `process_tree` in `[supervisor]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessTree {
    /// By control groups where that is possible.
    Auto,
    /// By control groups, or not at all.
    Cgroup,
    /// By what the supervisor inherits as a subreaper.
    Subreaper,
}

/// A family of names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Class {
    /// Its policy, as the core knows it.
    pub policy: Arc<Policy>,
    /// The program and its arguments; nothing, if all of its workers attach.
    pub exec: Vec<String>,
    /// Where its processes start; the supervisor's own directory if none.
    pub directory: Option<PathBuf>,
    /// The supervisor starts the worker of this name by itself, as number 1 (rule W5).
    pub main: bool,
    /// Names of workers that the supervisor starts by itself, and keeps running (rule W5).
    #[serde(default)]
    pub boot: Vec<WorkerName>,
    /// What is set for its processes.
    pub settings: Settings,
    /// Who may call its workers; everyone who may open the socket, if none.
    pub call: Option<Allowed>,
    /// Who may read what its workers wrote, and what happened to them: nobody but who may administer, if none.
    #[serde(default)]
    pub logs: Option<Allowed>,
    /// Who may be an attached worker of it: nobody but root and the supervisor's own user, if none (rule P2).
    #[serde(default)]
    pub attach: Option<Allowed>,
    /// Each of its workers has series of its own among the metrics.
    #[serde(default)]
    pub metrics_by_worker: bool,
}

impl Class {
    /// As whom its processes run, and what they call and kill is judged.
    pub fn runs_as(&self) -> Creds {
        let own = sys::own_creds();
        let Settings { user, group, .. } = &self.settings;
        Creds { uid: user.unwrap_or(own.uid), gid: group.unwrap_or(own.gid), ..own }
    }

    /// The file to execute, looked for as its process would; none if there is none. One that is named by a path is
    /// not looked for.
    pub fn program(&self) -> Option<PathBuf> {
        let program = self.exec.first()?;
        match program.contains('/') {
            true => Some(PathBuf::from(program)),
            false => find_program(program, self.settings.variable("PATH")?),
        }
    }
}

impl Config {
    /// Reads a file. The error names the place in it.
    pub fn read(file: &Path) -> anyhow::Result<Config> {
        Config::parse_with(Source::read(file)?, None)
    }

    /// Reads the text of a file, and the files that it includes.
    pub fn parse(text: &str, file: &Path) -> anyhow::Result<Config> {
        Config::parse_with(Source::new(file, text.to_string())?, None)
    }

    /// The same from texts that were read before: the files that it includes are not looked for.
    pub fn parse_again(texts: impl IntoIterator<Item = (PathBuf, String)>) -> anyhow::Result<Config> {
        let mut sources = texts.into_iter().map(|(file, text)| Source::new(&file, text));
        match sources.next() {
            None => Ok(Config::without_file()),
            Some(main) => Config::parse_with(main?, Some(sources.collect::<anyhow::Result<_>>()?)),
        }
    }

    fn parse_with(main: Source, included: Option<Vec<Source>>) -> anyhow::Result<Config> {
        let mut parsed: File = main.parse()?;
        let (sources, from) = include(main, included, &mut parsed)?;
        let checked = parsed.check(&sources, &from)?;
        let texts = sources.into_iter().filter_map(|source| Some((source.file?, source.text)));
        Ok(Config { texts: texts.collect(), from, ..checked })
    }

    /// The defaults, for a supervisor without a file.
    pub fn without_file() -> Config {
        let nowhere = Source { file: None, text: String::new(), base: PathBuf::from("/") };
        File::default().check(&[nowhere], &BTreeMap::new()).expect("the defaults are in range")
    }

    /// Makes each executable of a directory a class. Fails if it is not a directory.
    pub fn set_workers_dir(&mut self, dir: &Path) -> anyhow::Result<()> {
        let dir = dir.canonicalize().with_context(|| format!("the workers directory {}", dir.display()))?;
        anyhow::ensure!(
            dir.is_dir(),
            "{} is not a directory: --workers names one that holds executables",
            dir.display()
        );
        self.workers_dir = Some(dir);
        Ok(())
    }

    /// Whether any name at all has a class, or may have one when a file is added.
    pub fn has_classes(&self) -> bool {
        !self.classes.is_empty() || self.workers_dir.is_some() || self.includes
    }

    /// The classes of the file, in the order of their names.
    pub fn classes(&self) -> &[Arc<Class>] {
        &self.classes
    }

    /// A class of the file.
    pub fn class(&self, name: &str) -> Option<Arc<Class>> {
        self.classes.iter().find(|class| *class.policy.class == *name).cloned()
    }

    /// The file that a class stands in; none if it stands in none.
    pub fn file_of(&self, class: &str) -> Option<&Path> {
        self.class(class)?;
        let place = self.from.get(class).copied().unwrap_or(0);
        self.texts.get(place).map(|(file, _)| file.as_path())
    }

    /// Whether any class says who may call.
    pub fn has_call_lists(&self) -> bool {
        self.classes.iter().any(|class| class.call.is_some())
    }

    /// The workers directory.
    pub fn workers_dir(&self) -> Option<&Path> {
        self.workers_dir.as_deref()
    }

    /// The class of the file that has this name in its patterns.
    pub fn class_by_pattern(&self, name: &str) -> Option<&Arc<Class>> {
        self.patterns.iter().find(|pattern| pattern.matches(name)).map(|pattern| &pattern.class)
    }

    /// The class of a name (rule W9), or the refusal that says which classes there are.
    pub fn class_of(&self, name: &str) -> Result<Arc<Class>, Refused> {
        if let Some(class) = self.class_by_pattern(name) {
            return Ok(class.clone());
        }
        let Some(dir) = &self.workers_dir else {
            return Err(Refused::new(Refusal::NoClass, self.no_class(name)));
        };
        let program = dir.join(first_part(name));
        if let Some(class) = self.class(first_part(name)) {
            // A class has one meaning: what a name runs must not hang on which name was called first.
            return Err(Refused::new(Refusal::NoClass, self.hidden_program(name, &class, &program)));
        }
        match is_executable(&program) {
            true => Ok(Arc::new(self.class_of_program(first_part(name), &program))),
            false if program.is_file() => {
                let detail = format!("{} is there but not executable: chmod +x it", program.display());
                Err(Refused::new(Refusal::NoClass, detail))
            }
            false => Err(Refused::new(Refusal::NoClass, self.no_class(name))),
        }
    }

    /// The controllers that its classes need.
    pub fn controllers(&self) -> Vec<&'static str> {
        let sets = |set: fn(&Settings) -> Option<u64>| self.classes.iter().any(|class| set(&class.settings).is_some());
        let needed = [("memory", sets(|settings| settings.memory)), ("pids", sets(|settings| settings.processes))];
        needed.into_iter().filter_map(|(name, needed)| needed.then_some(name)).collect()
    }

    /// Whether no class lets its processes gain privileges.
    pub fn no_new_privs(&self) -> bool {
        self.classes.iter().all(|class| class.settings.no_new_privs)
    }
}

/// The part of a name before its first slash.
pub fn first_part(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

fn list(items: &mut Vec<String>) -> String {
    const SHOWN: usize = 20;
    items.sort_unstable();
    let more = items.len().saturating_sub(SHOWN);
    items.truncate(SHOWN);
    let text = items.join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}

// ---- from what is written to what is meant -----------------------------------------------

impl File {
    /// What one key alone cannot show. Each class is judged where it stands: in the first text, or in the one that
    /// `from` says.
    fn check(self, sources: &[Source], from: &BTreeMap<String, usize>) -> anyhow::Result<Config> {
        let mut classes = Vec::new();
        let mut patterns = Vec::new();
        let mut main = None;
        for (name, class) in &self.class {
            let source = &sources[from.get(name.get_ref()).copied().unwrap_or(0)];
            // What is wrong with the whole class stands at its name.
            let place = |error: anyhow::Error| {
                source.place(error.downcast::<Placed>().map_or_else(|e| Placed::at(name, format!("{e:#}")), Into::into))
            };
            let built = class.check(name.get_ref(), &source.base).map_err(place)?;
            class.patterns(name.get_ref(), &built, &mut patterns).map_err(place)?;
            if let Some(other) = built.main.then(|| main.replace(name.get_ref())).flatten() {
                let message = format!("only one class can be `main`, but `{other}` and `{}` are", name.get_ref());
                return Err(place(Placed::at(name, message)));
            }
            classes.push(built);
        }
        self.supervisor.check(&sources[0], classes, patterns).map_err(|error| sources[0].place(error))
    }
}

impl ClassFile {
    /// The class. Paths are relative to `base`.
    fn check(&self, name: &str, base: &Path) -> anyhow::Result<Arc<Class>> {
        WorkerName::check(name).with_context(|| format!("class `{name}`: its name is a worker's name too"))?;
        anyhow::ensure!(!name.contains('/'), "class `{name}`: the name of a class has no slash; use `names`");
        if let Some(attempts) = self.attempts.as_ref().filter(|_| self.on_crash != OnCrash::Retry) {
            let message =
                format!("class `{name}`: `attempts` needs on_crash = \"retry\": without it a message is executed once");
            return Err(Placed::at(attempts, message));
        }
        let attached_only = self.attach.is_some() && !self.main && self.start == Start::Call;
        anyhow::ensure!(
            !self.exec.is_empty() || attached_only,
            "class `{name}`: `exec` is missing: the program and its arguments, as in exec = [\"/usr/bin/{name}\"]"
        );
        let mut exec = self.exec.clone();
        if let Some(program) = exec.first_mut().filter(|program| program.contains('/')) {
            *program = base.join(&*program).to_string_lossy().into_owned();
        }
        let directory = self.directory.as_ref().map(|dir| base.join(dir));
        let settings = self.settings().with_context(|| format!("class `{name}`"))?;
        let call = self.call.as_ref().map(|list| list.allowed());
        let logs = self.logs.as_ref().map(|list| list.allowed());
        let attach = self.attach.as_ref().map(|list| list.allowed());
        let (boot, policy) = (self.boot(name)?, Arc::new(self.policy(name)));
        let (main, metrics_by_worker) = (self.main, self.metrics_by_worker);
        Ok(Arc::new(Class { policy, exec, directory, main, boot, settings, call, logs, attach, metrics_by_worker }))
    }

    /// Adds the patterns of its names to those of the classes before.
    fn patterns(&self, name: &str, built: &Arc<Class>, patterns: &mut Vec<Pattern>) -> anyhow::Result<()> {
        let Some(names) = &self.names else {
            patterns.push(Pattern {
                specific: (false, name.len()),
                text: name.to_string(),
                kind: PatternKind::Family(name.to_string()),
                class: built.clone(),
            });
            return Ok(());
        };
        anyhow::ensure!(
            !names.is_empty(),
            "class `{name}`: `names` is empty: leave it out for `{name}` and all behind `{name}/`"
        );
        for pattern in names {
            let new = glob(name, pattern.get_ref(), built);
            let new = new.map_err(|error| Placed::at(pattern, format!("{error:#}")))?;
            if let Some(other) = patterns.iter().find(|other: &&Pattern| new.is_the_same_as(other)) {
                let message = match &other.class.policy.class {
                    same if **same == *name => format!("class `{name}`: `{}` is there twice", new.text),
                    other => format!("classes `{other}` and `{name}` both match `{}`: only one can", new.text),
                };
                return Err(Placed::at(pattern, message));
            }
            patterns.push(new);
        }
        Ok(())
    }
}

impl SupervisorFile {
    /// The whole, with classes that are checked.
    fn check(self, source: &Source, classes: Vec<Arc<Class>>, mut patterns: Vec<Pattern>) -> anyhow::Result<Config> {
        patterns.sort_by(|a, b| (b.specific, &a.class.policy.class).cmp(&(a.specific, &b.class.policy.class)));
        let base = &source.base;
        let mut config = Config {
            file: source.file.clone(),
            texts: Vec::new(),
            from: BTreeMap::new(),
            socket: self.socket_path(base)?,
            shutdown_grace: self.shutdown_grace,
            limits: Limits {
                message_bytes: self.message_bytes,
                total_bytes: self.total_bytes,
                total_messages: self.total_messages,
                sender_messages: self.sender_messages,
                sender_bytes: self.sender_bytes,
                sender_signals: self.sender_signals,
                workers: u32::try_from(self.max_workers).unwrap_or(u32::MAX),
                processes: u32::try_from(self.max_processes).unwrap_or(u32::MAX),
                dead_messages: self.dead_letters.messages,
                dead_bytes: self.dead_letters.bytes,
            },
            connections: size(self.max_connections),
            process_tree: self.process_tree,
            plain: ClassFile::default().settings().expect("the defaults need nobody's account"),
            connections_per_user: self.max_connections_per_user.map(size),
            unread_bytes: size(self.unread_bytes),
            unfinished_bytes: size(self.unfinished_bytes),
            socket_access: self.socket_access(),
            rights: self.rights(),
            metrics: self.metrics.as_ref().map(|at| at.below(base)),
            journal: self.journal(),
            log: log::Settings { level: self.log_level, format: self.log_format },
            named_log: log::Named::default(),
            classes,
            patterns,
            workers_dir: None,
            workers_dir_is_named: false,
            includes: self.include.is_some(),
        };
        if let Some(dir) = &self.workers {
            let set = config.set_workers_dir(&base.join(dir.get_ref()));
            set.map_err(|error| Placed::at(dir, format!("`workers` in [supervisor]: {error:#}")))?;
        }
        Ok(config)
    }
}

impl SupervisorFile {
    fn socket_access(&self) -> SocketAccess {
        SocketAccess { mode: self.socket_mode, user: self.socket_user, group: self.socket_group }
    }

    fn rights(&self) -> Rights {
        let allowed = |list: &Option<people::AllowedFile>| list.as_ref().map(people::AllowedFile::allowed);
        Rights { kill: allowed(&self.kill), admin: allowed(&self.admin) }
    }
}

/// On a machine with smaller addresses more is as good as all.
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// What is wrong in a file that could be read, and where.
#[derive(Debug)]
struct Placed {
    span: Range<usize>,
    message: String,
}

impl std::error::Error for Placed {}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Placed {
    fn at<T>(value: &toml::Spanned<T>, message: String) -> anyhow::Error {
        Placed { span: value.span(), message }.into()
    }
}

/// An error with file, line and column, where there is a place.
fn at(file: &Path, text: &str, span: Option<Range<usize>>, message: &str) -> String {
    let Some(span) = span else { return format!("{}: {message}", file.display()) };
    let before = &text[..span.start.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let shown = text.lines().nth(line - 1).unwrap_or_default();
    format!("{}:{line}:{column}: {message}\n    {shown}", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Config> {
        let dir = std::env::temp_dir().join(format!(
            "workhall-config-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("w.toml");
        std::fs::write(&file, text).unwrap();
        let result = Config::read(&file);
        std::fs::remove_dir_all(&dir).unwrap();
        result
    }

    fn error(text: &str) -> String {
        format!("{:#}", read(text).expect_err(text))
    }

    #[test]
    fn the_example_of_the_interface_is_read() {
        let config = read(
            r#"
            [supervisor]
            socket = "/run/workhall/workhall.sock"
            shutdown_grace = "10s"
            [class.ledger]
            exec = ["/usr/libexec/workhall/ledger", "--db-dir", "/var/lib/ledger"]
            on_crash = "drop"
            mailbox = { messages = 10_000, bytes = "16MiB" }
            [class.thumbnail]
            names = ["thumb-*"]
            exec = ["python3", "thumbnail.py"]
            "#,
        )
        .unwrap();
        assert_eq!(config.class_of("ledger/eu").unwrap().policy.mailbox_bytes, 16 << 20);
        assert_eq!(&*config.class_of("thumb-1").unwrap().policy.class, "thumbnail");
        assert!(config.class_of("thumbnail").is_err());
        assert!(config.class_of("thumb-a/b").is_err(), "a star does not cross a slash");
    }

    #[test]
    fn w09_the_most_specific_pattern_wins() {
        let config = read(
            r#"
            class.any = { exec = ["a"], names = ["**"] }
            class.db = { exec = ["b"] }
            class.eu = { exec = ["c"], names = ["db/eu-*"] }
            class.one = { exec = ["d"], names = ["db/eu-1"] }
            "#,
        )
        .unwrap();
        for (name, class) in [
            ("x", "any"),
            ("x/y", "any"),
            ("db", "db"),
            ("db/x/y", "db"),
            ("db/eu-2", "eu"),
            ("db/eu-1", "one"),
            ("DB", "any"),
        ] {
            assert_eq!(&*config.class_of(name).unwrap().policy.class, class, "{name}");
        }
    }

    #[test]
    fn w09_no_class_says_which_there_are() {
        let config = read("class.counter.exec = ['c']\nclass.ledger.exec = ['l']").unwrap();
        let refused = config.class_of("foo").unwrap_err();
        assert_eq!(refused.detail, "no class matches `foo`: the configuration has `counter`, `ledger`");
        let config = read("class.thumb = { exec = ['t'], names = ['thumb-*', 'icon'] }").unwrap();
        let refused = config.class_of("thumb").unwrap_err();
        assert_eq!(refused.detail, "no class matches `thumb`: the configuration has `thumb` for `icon` and `thumb-*`");
    }

    #[test]
    fn w09_a_program_is_no_second_class_of_a_name() {
        let mut config = read(
            r#"
            class.cat = { exec = ["/bin/sh"], names = ["cat-*"] }
            class.true = { exec = ["/bin/sh"] }
            class.false = { exec = ["/bin/false"] }
            class.other = { exec = ["/bin/sh"], names = ["other-*"] }
            "#,
        )
        .unwrap();
        config.set_workers_dir(Path::new("/bin")).unwrap();
        for (name, class) in [("cat-1", Some("cat")), ("true/x", Some("true")), ("ls", Some("ls")), ("cat", None)] {
            assert_eq!(config.class_of(name).ok().map(|class| class.policy.class.to_string()).as_deref(), class);
        }
        let refused = config.class_of("cat/x").unwrap_err().detail;
        for part in
            ["no class matches `cat/x`", "/cat does not serve it", "add `cat/x` to the `names` of `cat` for `cat-*`"]
        {
            assert!(refused.contains(part), "{part} in {refused}");
        }
        assert!(!config.class_of("other").unwrap_err().detail.contains("does not serve"));
        // The class that has the program itself hides nothing.
        let warnings = config.warnings();
        assert!(warnings.iter().any(|warning| warning.contains("class `cat` has the name of")), "{warnings:?}");
        assert!(warnings.iter().any(|warning| warning.contains("class `true` has the name of")), "{warnings:?}");
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    #[test]
    fn errors_name_file_line_column_and_what_was_expected() {
        for (text, parts) in [
            ("[class.a]\nexec = ['x']\nmailbix = 1", &["w.toml:3:1", "mailbix", "mailbox"][..]),
            ("[supervisor]\nshutdown_grace = 5", &["w.toml:2:18", "string"]),
            ("[supervisor]\nshutdown_grace = 'soon'", &["w.toml:2:18", "soon", "250ms"]),
            ("[class.a]\nexec = 'x'", &["w.toml:2:8", "a list, like"]),
            ("[class.a]\nexec = ['x']\nmailbox = { messages = 0 }", &["w.toml:3:", "at least 1"]),
            ("[class.a]\nexec = ['x']\nmailbox = { bytes = '3 potatoes' }", &["w.toml:3:", "16MiB"]),
            ("[class.a]\nexec = ['x']\non_crash = 'again'", &["w.toml:3:12", "again", "retry", "drop"]),
            ("[class.a]\nexec = ['x']\nattempts = 3", &["w.toml:3:12", "class `a`", "`attempts`", "retry"]),
            ("[class.a]\nexec = ['x']\non_crash = 'retry'\nattempts = 1", &["w.toml:4:12", "2 to 255"]),
            ("[class.a]\nexec = ['x']\ntask_timeout = '0s'", &["w.toml:3:16", "out of range"]),
            ("[class.a]\nexec = ['x']\ncrash_limit = { crashes = 0 }", &["w.toml:3:", "1 to 1000"]),
            ("[class.a]\nexec = ['x']\ncrash_limit = { calls = 'maybe' }", &["w.toml:3:", "accept", "refuse"]),
            ("[supervisor]\nmessage_bytes = '1GiB'", &["w.toml:2:17", "wire"]),
            ("[class.a]\nexec = [", &["w.toml:2:"]),
            ("[class.a]\nmain = true", &["w.toml:1:8", "class `a`", "exec"]),
            ("[class.'a/b']\nexec = ['x']", &["w.toml:1:8", "a/b", "slash"]),
            ("[class.'']\nexec = ['x']", &["w.toml:1:8", "class ``", "empty"]),
            ("[supervisor]\nworkers = '/not/there'", &["w.toml:2:11", "/not/there"]),
            (
                "class.a = { exec = ['x'], main = true }\nclass.b = { exec = ['x'], main = true }",
                &["w.toml:2:7", "only one", "`a` and `b`"],
            ),
            (
                "class.a = { exec = ['x'], names = ['z']}\nclass.b = { exec = ['x'], names = ['z'] }",
                &["w.toml:2:36", "`a` and `b`", "`z`"],
            ),
            ("[class.a]\nexec = ['x']\nnames = ['y', 'z', 'y']", &["w.toml:3:20", "`a`: `y` is there twice"]),
            ("[supervisor]\nsocket_mode = '0999'", &["w.toml:2:15", "0999", "0660"]),
            ("[supervisor]\nsocket_mode = '01777'", &["w.toml:2:15", "no mode"]),
            ("[supervisor]\nsocket_mode = '0400'", &["w.toml:2:15", "nobody could connect"]),
            ("[supervisor]\nsocket_mode = 660", &["w.toml:2:15", "string"]),
            ("[supervisor]\nsocket_user = 'no-such'", &["w.toml:2:15", "no user `no-such`"]),
            ("[supervisor]\nsocket_group = 'no-such'", &["w.toml:2:16", "no group `no-such`"]),
            ("[supervisor]\nkill = { users = [0, 'no-such'] }", &["w.toml:2:22", "no user `no-such`"]),
            ("[supervisor]\nadmin = { groups = [-1] }", &["w.toml:2:21", "a group by name or number"]),
            ("[supervisor]\nadmin = { user = ['root'] }", &["w.toml:2:11", "user", "users"]),
            ("[class.a]\nexec = ['x']\ncall = { users = ['root', 'nix'] }", &["w.toml:3:27", "no user `nix`"]),
            ("[class.a]\nexec = ['x']\ncall = ['root']", &["w.toml:3:8", "a table, like"]),
            ("[supervisor]\nmax_connections_per_user = 0", &["w.toml:2:28", "never means unlimited"]),
            ("[supervisor]\nunread_bytes = '1MiB'", &["w.toml:2:16", "two of the largest"]),
            ("[class.a]\nexec = ['x', \"\\u0000\"]", &["w.toml:2:8", "NUL"]),
            ("[class.a]\nexec = ['x']\nstart_timeout = '0s'", &["w.toml:3:17", "out of range"]),
            ("class.a = { exec = ['x'], names = ['a[']}", &["w.toml:1:36", "class `a`", "names"]),
            ("class.a = { exec = ['x'], names = [] }", &["w.toml:1:7", "class `a`", "`names` is empty"]),
        ] {
            let error = error(text);
            for part in parts {
                assert!(error.contains(part), "{text}\n-> {error}\nlacks {part}");
            }
        }
    }

    #[test]
    fn lists_of_people_are_numbers_when_they_are_read() {
        let config = read(
            "[supervisor]\nkill = { users = ['root', 4711], groups = ['root', 4712] }\nadmin = {}\n\
             [class.a]\nexec = ['x']\ncall = { groups = ['daemon'] }",
        )
        .unwrap();
        let kill = config.rights.kill.as_ref().unwrap();
        assert_eq!((&kill.users[..2], &kill.groups[..]), (&[0, 4711][..], &[0, 4712][..]));
        assert_eq!(config.rights.admin, Some(Allowed::default()));
        assert_eq!(config.class("a").unwrap().call.as_ref().unwrap().groups, [1]);
        assert_eq!(config.socket_access, SocketAccess { mode: 0o600, user: None, group: None });
        let config = read("[supervisor]\nsocket_mode = '660'\nsocket_user = 'root'\nsocket_group = 12\n").unwrap();
        assert_eq!(config.socket_access, SocketAccess { mode: 0o660, user: Some(0), group: Some(12) });
    }

    #[test]
    fn bytes_are_read_with_their_units() {
        for (text, bytes) in [
            ("1", Some(1)),
            ("64KiB", Some(65536)),
            ("16 MiB", Some(16 << 20)),
            ("0", None),
            ("", None),
            ("1MB", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text}");
        }
    }
}
