//! Why a name has no class, and which there are, for people.

use std::path::Path;
use std::sync::Arc;

use super::patterns::Pattern;
use super::{Class, Config, is_executable, list};

/// So many files of the workers directory are looked at to say which programs there are: it is done for each call that
/// is refused, by the loop that serves all.
const LISTED_MAX: usize = 1_000;

impl Config {
    /// Why a name has no class although its first part is that of a class, and maybe of a program.
    pub(super) fn hidden_program(&self, name: &str, class: &Arc<Class>, program: &Path) -> String {
        let sentence = self.no_class(name);
        match is_executable(program) {
            true => format!(
                "{sentence}; {} does not serve it, because the configuration has a class of that name: \
                 add `{name}` to the `names` of {}, or rename one of them",
                program.display(),
                self.shown(class)
            ),
            false => sentence,
        }
    }

    /// Why a name has no class.
    pub(super) fn no_class(&self, name: &str) -> String {
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
                .take(LISTED_MAX)
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
}
