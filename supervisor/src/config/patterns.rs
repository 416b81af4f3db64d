//! Which names belong to a class (rule W9).

use std::sync::Arc;

use anyhow::Context as _;
use globset::{GlobBuilder, GlobMatcher};
use workhall_protocol::ids::WorkerName;
use workhall_protocol::limits::NAME_BYTES_MAX;

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

const WILDCARDS: [char; 6] = ['*', '?', '[', ']', '{', '}'];

/// Whether a pattern of `names` is the name of one worker.
pub(super) fn is_exact(pattern: &str) -> bool {
    !pattern.contains(WILDCARDS) && !pattern.contains('\\')
}

/// Refuses what no name can be.
fn check_matches_a_name(pattern: &str, exact: bool) -> anyhow::Result<()> {
    if exact {
        return Ok(WorkerName::check(pattern)?);
    }
    anyhow::ensure!(!pattern.contains(char::is_control), "a name has no control characters");
    // What stands in braces and brackets, or behind a backslash, is more than its name has of it.
    let bytes = pattern.bytes().filter(|byte| *byte != b'*').count();
    anyhow::ensure!(
        pattern.contains(['[', '{', '\\']) || bytes <= NAME_BYTES_MAX,
        "a name has at most {NAME_BYTES_MAX} bytes, and this pattern asks for {bytes}"
    );
    Ok(())
}

/// A pattern of `names`. The error names the class.
pub(super) fn glob(class: &str, pattern: &str, built: &Arc<Class>) -> anyhow::Result<Pattern> {
    let glob = GlobBuilder::new(pattern)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .with_context(|| format!("class `{class}`: `names` has a pattern that cannot be understood"))?;
    let literal = pattern.chars().filter(|c| !WILDCARDS.contains(c)).count();
    let exact = !pattern.contains(WILDCARDS);
    check_matches_a_name(pattern, exact).with_context(|| format!("class `{class}`: `names`: no worker matches"))?;
    Ok(Pattern {
        specific: (exact, literal),
        text: pattern.to_string(),
        kind: PatternKind::Glob(glob.compile_matcher()),
        class: built.clone(),
    })
}
