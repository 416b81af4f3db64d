//! The same configuration once more: read again while the supervisor runs, and compared with what it was.

use std::path::Path;

use anyhow::Context as _;

use super::{Class, Config};
use crate::log::{self, Named};

impl Config {
    /// Reads the same file again.
    pub fn read_again(&self) -> anyhow::Result<Config> {
        let file = self.file.as_ref().context(
            "there is no configuration to read again: the supervisor was started without one (a program that is new in \
             its workers directory needs no reload)",
        )?;
        let mut config = Config::read(file)?;
        if let Some(dir) = self.workers_dir.as_ref().filter(|_| self.workers_dir_is_named) {
            config.name_workers_dir(dir)?;
        }
        config.named_log = self.named_log;
        if !config.has_classes() {
            anyhow::bail!("{} has no classes, and names no directory of `workers`", file.display());
        }
        Ok(config)
    }

    /// How the supervisor itself logs: as the command line says, else as the file does.
    pub fn log(&self) -> log::Settings {
        let Named { level, format } = self.named_log;
        log::Settings { level: level.unwrap_or(self.log.level), format: format.unwrap_or(self.log.format) }
    }

    /// Bounds what it allows by what the system allows.
    pub fn fit(&mut self, descriptors: u64) {
        // Clients leave half of them to the workers.
        let for_clients = usize::try_from(descriptors.saturating_sub(64) / 2).unwrap_or(usize::MAX).max(16);
        self.connections = self.connections.min(for_clients);
        // One has its connection, its pidfd, its mark page and two pipes, and at its end the events of its control group;
        // its start takes some more, for a moment.
        let for_processes = u32::try_from(descriptors.saturating_sub(64) / 2 / 6).unwrap_or(u32::MAX).max(4);
        self.limits.processes = self.limits.processes.min(for_processes);
    }

    /// The same, for a directory that the command line names.
    pub fn name_workers_dir(&mut self, dir: &Path) -> anyhow::Result<()> {
        self.workers_dir_is_named = true;
        self.set_workers_dir(dir)
    }

    /// The directory that the command line names.
    pub fn named_workers_dir(&self) -> Option<&Path> {
        self.workers_dir().filter(|_| self.workers_dir_is_named)
    }
}

impl Class {
    /// Whether a process of this class is what one of the other would be.
    pub fn is_same_as(&self, other: &Class) -> bool {
        self.policy == other.policy
            && self.exec == other.exec
            && self.directory == other.directory
            && self.settings == other.settings
    }
}
