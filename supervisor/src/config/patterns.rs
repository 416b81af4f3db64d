//! Which names belong to a class (rule W9).

use std::sync::Arc;

use anyhow::Context as _;
use globset::{GlobBuilder, GlobMatcher};

use super::{Class, first_part};

/// One pattern of names.
#[derive(Debug)]
pub(super) struct Pattern {
    /// How many of its characters stand for themselves; a pattern without wildcards comes before all others.
    pub specific: (bool, usize),
    /// As it is written; the name of the class for its family.
    pub text: String,
    pub kind: PatternKind,
    pub class: Arc<Class>,
}

#[derive(Debug)]
pub(super) enum PatternKind {
    /// The name of the class, and all behind its slash.
    Family(String),
    Glob(GlobMatcher),
}

impl Pattern {
    /// As it is written; none for the family of the class's own name.
    pub fn glob(&self) -> Option<&str> {
        match &self.kind {
            PatternKind::Family(_) => None,
            PatternKind::Glob(matcher) => Some(matcher.glob().glob()),
        }
    }

    /// Whether another has the same names for the same reason: then neither comes first.
    pub fn is_the_same_as(&self, other: &Pattern) -> bool {
        self.text == other.text && self.specific == other.specific
    }

    pub fn matches(&self, name: &str) -> bool {
        match &self.kind {
            PatternKind::Family(class) => first_part(name) == class,
            PatternKind::Glob(glob) => glob.is_match(name),
        }
    }
}

/// A pattern of `names`. The error names the class.
pub(super) fn glob(class: &str, pattern: &str, built: &Arc<Class>) -> anyhow::Result<Pattern> {
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
