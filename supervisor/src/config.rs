//! The configuration: from the file, to what is checked, to what the supervisor works with.
//!
//! A file is taken whole or not at all: an unknown key, a wrong type or a value out of range is an error
//! that names file, line, column and what was expected.

mod file;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use globset::{GlobBuilder, GlobMatcher};
use workhall_core::{Limits, Policy, Refused};
use workhall_protocol::ids::WorkerName;
use workhall_protocol::terms::Refusal;

pub use file::parse_duration;
use file::{ClassFile, File};

/// Where the configuration is looked for when nobody says where.
pub const DEFAULT_FILE: &str = "/etc/workhall/workhall.toml";

/// A configuration that was read and checked.
#[derive(Debug)]
pub struct Config {
    /// Where it came from; none without a file.
    pub file: Option<PathBuf>,
    /// `socket` in `[supervisor]`.
    pub socket: Option<PathBuf>,
    /// `shutdown_grace` in `[supervisor]`.
    pub shutdown_grace: Duration,
    /// The bounds of the whole.
    pub limits: Limits,
    /// The most connections at a time.
    pub connections: usize,
    classes: Vec<Arc<Class>>,
    /// Patterns and the class of each, the most specific first.
    patterns: Vec<Pattern>,
    /// Executables that are classes by their own name (rule W9).
    workers_dir: Option<PathBuf>,
}

/// A family of names.
#[derive(Debug)]
pub struct Class {
    /// Its policy, as the core knows it.
    pub policy: Arc<Policy>,
    /// The program and its arguments.
    pub exec: Vec<String>,
    /// Where its processes start; the supervisor's own directory if none.
    pub directory: Option<PathBuf>,
    /// The supervisor starts the worker of this name by itself, as number 1 (rule W5).
    pub main: bool,
}

impl Config {
    /// Reads a file. The error names the place in it.
    pub fn read(file: &Path) -> anyhow::Result<Config> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Config::parse(&text, file)
    }

    /// Reads the text of a file.
    pub fn parse(text: &str, file: &Path) -> anyhow::Result<Config> {
        let parsed: File = toml::from_str(text).map_err(|error| anyhow::anyhow!("{}", at(file, text, &error)))?;
        let base = std::path::absolute(file)?.parent().map(Path::to_path_buf).unwrap_or_default();
        parsed.check(&base, Some(file)).with_context(|| file.display().to_string())
    }

    /// The defaults, for a supervisor without a file.
    pub fn without_file() -> Config {
        File::default().check(Path::new("/"), None).expect("the defaults are in range")
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

    /// Whether any name at all has a class.
    pub fn has_classes(&self) -> bool {
        !self.classes.is_empty() || self.workers_dir.is_some()
    }

    /// The classes of the file, in the order of their names.
    pub fn classes(&self) -> &[Arc<Class>] {
        &self.classes
    }

    /// A class of the file.
    pub fn class(&self, name: &str) -> Option<Arc<Class>> {
        self.classes.iter().find(|class| *class.policy.class == *name).cloned()
    }

    /// The workers directory.
    pub fn workers_dir(&self) -> Option<&Path> {
        self.workers_dir.as_deref()
    }

    /// The class of a name (rule W9), or the refusal that says which classes there are.
    pub fn class_of(&self, name: &str) -> Result<Arc<Class>, Refused> {
        if let Some(pattern) = self.patterns.iter().find(|pattern| pattern.matches(name)) {
            return Ok(pattern.class.clone());
        }
        let Some(dir) = &self.workers_dir else {
            return Err(Refused::new(Refusal::NoClass, self.no_class(name)));
        };
        let program = dir.join(first_part(name));
        match is_executable(&program) {
            true => Ok(Arc::new(self.class_of_program(first_part(name), &program))),
            false if program.is_file() => {
                let detail = format!("{} is there but not executable: chmod +x it", program.display());
                Err(Refused::new(Refusal::NoClass, detail))
            }
            false => Err(Refused::new(Refusal::NoClass, self.no_class(name))),
        }
    }

    /// What a person may want to know although the file is correct.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for class in &self.classes {
            if let Some(dir) = class.directory.as_ref().filter(|dir| !dir.is_dir()) {
                warnings.push(format!("class `{}`: there is no directory {}", class.policy.class, dir.display()));
            }
            if find_program(&class.exec[0]).is_none() {
                let (name, program) = (&class.policy.class, &class.exec[0]);
                warnings.push(format!("class `{name}`: there is no executable `{program}`"));
            }
        }
        warnings
    }

    fn no_class(&self, name: &str) -> String {
        let mut known: Vec<String> = self.classes.iter().map(|class| self.shown(class)).collect();
        let mut sentence = format!("no class matches `{name}`: ");
        match (known.is_empty(), &self.workers_dir) {
            (false, _) => sentence += &format!("the configuration has {}", list(&mut known)),
            (true, Some(_)) => {}
            (true, None) => sentence += "the configuration has no classes",
        }
        if let Some(dir) = &self.workers_dir {
            let mut programs: Vec<String> = std::fs::read_dir(dir)
                .into_iter()
                .flatten()
                .flatten()
                .filter(|entry| is_executable(&entry.path()))
                .map(|entry| format!("`{}`", entry.file_name().to_string_lossy()))
                .collect();
            let and = if known.is_empty() { "" } else { ", and " };
            sentence += &match programs.is_empty() {
                true => format!("{and}{} has no executables", dir.display()),
                false => format!("{and}{} has {}", dir.display(), list(&mut programs)),
            };
        }
        sentence
    }

    /// A class with the patterns of its names, where it has any.
    fn shown(&self, class: &Arc<Class>) -> String {
        let patterns = self.patterns.iter().filter(|pattern| Arc::ptr_eq(&pattern.class, class));
        let globs: Vec<String> = patterns.filter_map(Pattern::glob).map(|glob| format!("`{glob}`")).collect();
        let name = &class.policy.class;
        match globs.is_empty() {
            true => format!("`{name}`"),
            false => format!("`{name}` for {}", globs.join(" and ")),
        }
    }

    fn class_of_program(&self, name: &str, program: &Path) -> Class {
        let file = ClassFile { exec: vec![program.to_string_lossy().into_owned()], ..ClassFile::default() };
        Class { policy: Arc::new(file.policy(name)), exec: file.exec, directory: None, main: false }
    }
}

/// The program that a class would execute, where it can be found.
fn find_program(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| is_executable(path));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The part of a name before its first slash.
fn first_part(name: &str) -> &str {
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

/// One pattern of names.
#[derive(Debug)]
struct Pattern {
    /// How many of its characters stand for themselves; a pattern without wildcards comes before all others.
    specific: (bool, usize),
    /// As it is written; the name of the class for its family.
    text: String,
    kind: PatternKind,
    class: Arc<Class>,
}

#[derive(Debug)]
enum PatternKind {
    /// The name of the class, and all behind its slash.
    Family(String),
    Glob(GlobMatcher),
}

impl Pattern {
    /// As it is written; none for the family of the class's own name.
    fn glob(&self) -> Option<&str> {
        match &self.kind {
            PatternKind::Family(_) => None,
            PatternKind::Glob(matcher) => Some(matcher.glob().glob()),
        }
    }

    fn matches(&self, name: &str) -> bool {
        match &self.kind {
            PatternKind::Family(class) => first_part(name) == class,
            PatternKind::Glob(glob) => glob.is_match(name),
        }
    }
}

// ---- from what is written to what is meant -----------------------------------------------

impl File {
    /// What one key alone cannot show. Paths are relative to `base`.
    fn check(self, base: &Path, file: Option<&Path>) -> anyhow::Result<Config> {
        let mut classes = Vec::new();
        let mut patterns = Vec::new();
        for (name, class) in &self.class {
            WorkerName::check(name).with_context(|| format!("class `{name}`: its name is a worker's name too"))?;
            anyhow::ensure!(!name.contains('/'), "class `{name}`: the name of a class has no slash; use `names`");
            anyhow::ensure!(
                !class.exec.is_empty(),
                "class `{name}`: `exec` is missing: the program and its arguments, as in exec = [\"/usr/bin/{name}\"]"
            );
            let mut exec = class.exec.clone();
            if exec[0].contains('/') {
                exec[0] = base.join(&exec[0]).to_string_lossy().into_owned();
            }
            let directory = class.directory.as_ref().map(|dir| base.join(dir));
            let built = Class { policy: Arc::new(class.policy(name)), exec, directory, main: class.main };
            let built = Arc::new(built);
            classes.push(built.clone());
            match &class.names {
                None => patterns.push(Pattern {
                    specific: (false, name.len()),
                    text: name.clone(),
                    kind: PatternKind::Family(name.clone()),
                    class: built,
                }),
                Some(names) => {
                    anyhow::ensure!(
                        !names.is_empty(),
                        "class `{name}`: `names` is empty: leave it out for `{name}` and all behind `{name}/`"
                    );
                    for pattern in names {
                        patterns.push(glob(name, pattern, &built)?);
                    }
                }
            }
        }
        let mains: Vec<&str> = classes.iter().filter(|class| class.main).map(|class| &*class.policy.class).collect();
        anyhow::ensure!(mains.len() <= 1, "only one class can be `main`, but {} are", mains.join(" and "));
        for (at, pattern) in patterns.iter().enumerate() {
            if let Some(other) =
                patterns[..at].iter().find(|other| other.text == pattern.text && other.specific == pattern.specific)
            {
                let (a, b) = (&other.class.policy.class, &pattern.class.policy.class);
                anyhow::bail!("classes `{a}` and `{b}` both match `{}`: only one can", pattern.text);
            }
        }
        patterns.sort_by(|a, b| (b.specific, &a.class.policy.class).cmp(&(a.specific, &b.class.policy.class)));
        let supervisor = self.supervisor;
        let mut config = Config {
            file: file.map(Path::to_path_buf),
            socket: supervisor.socket.map(|socket| base.join(socket)),
            shutdown_grace: supervisor.shutdown_grace,
            limits: Limits {
                message_bytes: supervisor.message_bytes,
                total_bytes: supervisor.total_bytes,
                workers: u32::try_from(supervisor.max_workers).unwrap_or(u32::MAX),
            },
            connections: supervisor.max_connections as usize,
            classes,
            patterns,
            workers_dir: None,
        };
        if let Some(dir) = supervisor.workers {
            config.set_workers_dir(&base.join(dir)).context("`workers` in [supervisor]")?;
        }
        Ok(config)
    }
}

fn glob(class: &str, pattern: &str, built: &Arc<Class>) -> anyhow::Result<Pattern> {
    let glob = GlobBuilder::new(pattern)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .with_context(|| format!("class `{class}`: `names` has a pattern that cannot be understood"))?;
    let wildcards = ['*', '?', '[', ']', '{', '}'];
    let literal = pattern.chars().filter(|c| !wildcards.contains(c)).count();
    let exact = !pattern.contains(wildcards);
    Ok(Pattern {
        specific: (exact, literal),
        text: pattern.to_string(),
        kind: PatternKind::Glob(glob.compile_matcher()),
        class: built.clone(),
    })
}

/// An error of the TOML reader, with file, line and column.
fn at(file: &Path, text: &str, error: &toml::de::Error) -> String {
    let Some(span) = error.span() else { return format!("{}: {}", file.display(), error.message()) };
    let before = &text[..span.start.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let shown = text.lines().nth(line - 1).unwrap_or_default();
    format!("{}:{line}:{column}: {}\n    {shown}", file.display(), error.message())
}

#[cfg(test)]
mod tests {
    use super::file::parse_bytes;
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
    fn errors_name_file_line_column_and_what_was_expected() {
        for (text, parts) in [
            ("[class.a]\nexec = ['x']\nmailbix = 1", &["w.toml:3:1", "mailbix", "mailbox"][..]),
            ("[supervisor]\nshutdown_grace = 5", &["w.toml:2:18", "string"]),
            ("[supervisor]\nshutdown_grace = 'soon'", &["w.toml:2:18", "soon", "250ms"]),
            ("[class.a]\nexec = 'x'", &["w.toml:2:8", "sequence"]),
            ("[class.a]\nexec = ['x']\nmailbox = { messages = 0 }", &["w.toml:3:", "at least 1"]),
            ("[class.a]\nexec = ['x']\nmailbox = { bytes = '3 potatoes' }", &["w.toml:3:", "16MiB"]),
            ("[class.a]\nexec = ['x']\non_crash = 'retry'", &["w.toml:3:12", "retry", "drop"]),
            ("[supervisor]\nmessage_bytes = '1GiB'", &["w.toml:2:17", "wire"]),
            ("[class.a]\nexec = [", &["w.toml:2:"]),
            ("[class.a]\nmain = true", &["class `a`", "exec"]),
            ("[class.'a/b']\nexec = ['x']", &["a/b", "slash"]),
            (
                "class.a = { exec = ['x'], main = true }\nclass.b = { exec = ['x'], main = true }",
                &["only one", "a and b"],
            ),
            (
                "class.a = { exec = ['x'], names = ['z']}\nclass.b = { exec = ['x'], names = ['z'] }",
                &["`a` and `b`", "`z`"],
            ),
            ("[class.a]\nexec = ['x', \"\\u0000\"]", &["w.toml:2:8", "NUL"]),
            ("[class.a]\nexec = ['x']\nstart_timeout = '0s'", &["w.toml:3:17", "out of range"]),
            ("class.a = { exec = ['x'], names = ['a[']}", &["class `a`", "names"]),
            ("class.a = { exec = ['x'], names = [] }", &["class `a`", "`names` is empty"]),
        ] {
            let error = error(text);
            for part in parts {
                assert!(error.contains(part), "{text}\n-> {error}\nlacks {part}");
            }
        }
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
