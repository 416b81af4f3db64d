//! What has changed from one configuration to the next, key by key, as it is written.

use std::collections::BTreeMap;
use std::fmt;

use toml::{Table, Value};

use super::Config;
use crate::report::Change;

/// Keys of `[supervisor]` that are looked at when it starts, and never again.
const AT_START: [&str; 6] = ["socket", "socket_mode", "socket_user", "socket_group", "process_tree", "metrics"];

/// What has changed.
#[derive(Debug, Default)]
pub struct Difference {
    /// Classes that are new.
    pub added: Vec<String>,
    /// Classes that are there no more.
    pub removed: Vec<String>,
    /// Keys that say something else.
    pub changed: Vec<Change>,
    /// What holds only when the supervisor is started again, one sentence each.
    pub later: Vec<String>,
}

/// From an old to a new one, both of which were understood.
pub fn difference(old: &Config, new: &Config) -> Difference {
    let (before, after) = (all_keys(old), all_keys(new));
    let is_new = |class: &str| old.class(class).is_none();
    let is_gone = |class: &str| new.class(class).is_none();
    let mut changed = Vec::new();
    let mut later = Vec::new();
    let named_log = new.named_log;
    let new_log_is_named = |key: &str| match key {
        "log_level" => named_log.level.is_some(),
        "log_format" => named_log.format.is_some(),
        _ => false,
    };
    let both: BTreeMap<&Key, ()> = before.keys().chain(after.keys()).map(|key| (key, ())).collect();
    for key in both.into_keys() {
        let (old, new) = (before.get(key), after.get(key));
        let whole_class = key.class().is_some_and(|class| is_new(class) || is_gone(class));
        if old == new || whole_class {
            continue;
        }
        changed.push(Change { key: key.to_string(), old: key.shown(old), new: key.shown(new) });
        match &key.0[..] {
            [section, name] if section == "supervisor" && AT_START.contains(&name.as_str()) => {
                later.push(format!("`{name}` in [supervisor] holds from the next start of the supervisor on"));
            }
            [section, name] if section == "supervisor" && new_log_is_named(name) => {
                let option = name.replace('_', "-");
                later.push(format!(
                    "`{name}` in [supervisor] does nothing as long as --{option} of `serve` comes first"
                ));
            }
            [section, class, name] if section == "class" && name == "main" => {
                later.push(format!("class `{class}`: `main` holds from the next start of the supervisor on"));
            }
            _ => {}
        }
    }
    let names = |config: &Config| config.classes().iter().map(|class| class.policy.class.to_string()).collect();
    let (were, are): (Vec<String>, Vec<String>) = (names(old), names(new));
    let added: Vec<String> = are.into_iter().filter(|class| is_new(class)).collect();
    for class in added.iter().filter(|class| new.class(class).is_some_and(|class| class.main)) {
        later.push(format!("class `{class}`: `main` holds from the next start of the supervisor on"));
    }
    Difference { added, removed: were.into_iter().filter(|class| is_gone(class)).collect(), changed, later }
}

/// Those of all files. A class stands in one of them.
fn all_keys(config: &Config) -> BTreeMap<Key, Value> {
    config.texts.iter().flat_map(|(_, text)| keys(text)).collect()
}

/// Its parts, from the section on.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key(Vec<String>);

impl Key {
    fn class(&self) -> Option<&str> {
        match &self.0[..] {
            [section, class, ..] if section == "class" => Some(class),
            _ => None,
        }
    }

    /// A value for people. Variables of the environment may be secret, and this goes to a log.
    fn shown(&self, value: Option<&Value>) -> Option<String> {
        let secret = self.class().is_some() && self.0.get(2).is_some_and(|part| part == "environment");
        value.map(|value| if secret { "(not shown)".to_string() } else { value.to_string() })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// All keys of a file and what they say.
fn keys(text: &str) -> BTreeMap<Key, Value> {
    let mut keys = BTreeMap::new();
    // It was read before; one that was not has no keys.
    flatten(&mut Vec::new(), text.parse().unwrap_or_default(), &mut keys);
    keys
}

fn flatten(path: &mut Vec<String>, table: Table, keys: &mut BTreeMap<Key, Value>) {
    for (name, value) in table {
        path.push(name);
        match value {
            Value::Table(table) => flatten(path, table, keys),
            value => drop(keys.insert(Key(path.clone()), value)),
        }
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn between(old: &str, new: &str) -> Difference {
        let [old, new] = [old, new].map(|text| Config::parse(text, Path::new("/w.toml")).unwrap());
        difference(&old, &new)
    }

    #[test]
    fn what_is_written_anew_is_told_by_its_key() {
        let old = "class.a = { exec = ['/a'], mailbox = { messages = 5 } }\nclass.b.exec = ['/b']\n\
                   class.s = { exec = ['/s'], environment = { KEY = 'old' } }";
        let new = "[supervisor]\nsocket = '/s'\n[class.a]\nexec = ['/a', 'x']\n[class.a.mailbox]\nmessages = 5\n\
                   bytes = '1MiB'\n[class.c]\nexec = ['/c']\nmain = true\n\
                   [class.s]\nexec = ['/s']\nenvironment.KEY = 'new'";
        let Difference { added, removed, changed, later } = between(old, new);
        assert_eq!((added, removed), (vec!["c".to_string()], vec!["b".to_string()]));
        let changed: Vec<_> = changed.into_iter().map(|Change { key, old, new }| (key, old, new)).collect();
        let some = |text: &str| Some(text.to_string());
        let expected = [
            ("class.a.exec", some("[\"/a\"]"), some("[\"/a\", \"x\"]")),
            ("class.a.mailbox.bytes", None, some("\"1MiB\"")),
            ("class.s.environment.KEY", some("(not shown)"), some("(not shown)")),
            ("supervisor.socket", None, some("\"/s\"")),
        ];
        assert_eq!(changed, expected.map(|(key, old, new)| (key.to_string(), old, new)));
        assert_eq!(later.len(), 2, "{later:?}");
        assert!(later[0].starts_with("`socket` in [supervisor]") && later[1].starts_with("class `c`: `main`"));
    }

    #[test]
    fn the_same_in_another_order_is_no_difference() {
        let Difference { added, removed, changed, later } =
            between("class.a = { exec = ['/a'], nice = 1 }", "# new\n[class.a]\nnice = 1\nexec = ['/a']");
        assert!(added.is_empty() && removed.is_empty() && changed.is_empty() && later.is_empty());
    }
}
