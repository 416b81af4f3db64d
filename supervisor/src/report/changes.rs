//! The answers to `reload` and `upgrade`.

use serde::{Deserialize, Serialize};

/// `workhall reload`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReloadReport {
    /// The file that was read.
    pub config: String,
    /// Classes that are new.
    pub added: Vec<String>,
    /// Classes that are there no more.
    pub removed: Vec<String>,
    /// Keys that say something else, those of the other classes and of `[supervisor]`.
    pub changed: Vec<Change>,
    /// What holds only when the supervisor is started again, one sentence each.
    pub later: Vec<String>,
    /// What people may want to know although the file is correct.
    pub warnings: Vec<String>,
    /// What became of the workers.
    pub workers: WorkersReport,
}

/// A key that says something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// With its section: `class.a.mailbox.bytes`.
    pub key: String,
    /// As it was written; null if it was left out.
    pub old: Option<String>,
    /// As it is written; null if it is left out.
    pub new: Option<String>,
}

/// What became of the workers. Those that nothing has changed for are not counted.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct WorkersReport {
    /// They have the new class.
    pub renewed: u64,
    /// Their process goes on as it was started; the next one has the new class.
    pub kept: u64,
    /// Their process was asked to end, and the next one has the new class.
    pub restarted: u64,
    /// They have no class any more, and go on until they have nothing left.
    pub retired: u64,
    /// They had no class any more, and nothing left.
    pub removed: u64,
}

/// `workhall upgrade`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpgradeReport {
    /// The version of the program that answers.
    pub version: String,
    /// That of the one before it.
    pub was: String,
    /// The file that it was executed from.
    pub binary: String,
    /// The process, which is the same.
    pub pid: u32,
    /// For how long nothing was taken in, in microseconds.
    pub pause_us: u64,
    /// How much was handed over, in bytes.
    pub state_bytes: u64,
}

impl ReloadReport {
    /// The differences, one line each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend(self.added.iter().map(|class| format!("+ class {class}")));
        lines.extend(self.removed.iter().map(|class| format!("- class {class}")));
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "(not set)".to_string());
        let changed = self.changed.iter();
        lines.extend(changed.map(|Change { key, old, new }| format!("~ {key}: {} -> {}", shown(old), shown(new))));
        lines.extend(self.later.iter().map(|sentence| format!("! {sentence}")));
        lines
    }

    /// What became of the workers, in one sentence; none if nothing did.
    pub fn workers_line(&self) -> Option<String> {
        let WorkersReport { renewed, kept, restarted, retired, removed } = self.workers;
        let parts = [
            (renewed, "have the new class"),
            (kept, "get it with their next process (`workhall reload --restart` asks for that)"),
            (restarted, "get it as soon as their process has ended, which was asked to"),
            (retired, "have no class any more, and go on until they have nothing left"),
            (removed, "had no class any more, and nothing left: they are gone"),
        ];
        let parts: Vec<String> =
            parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        (!parts.is_empty()).then(|| format!("workers: {}", parts.join("; ")))
    }
}
