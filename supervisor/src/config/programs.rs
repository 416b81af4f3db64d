//! Programs: those that are classes by their own names, and where one is looked for.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::ClassFile;
use super::{Class, Config, first_part};

impl Config {
    /// That of an attached worker whose name no class has: its policy is the default one.
    pub fn class_without_program(&self, name: &str) -> Class {
        Class { exec: Vec::new(), ..self.class_of_program(first_part(name), Path::new("/")) }
    }

    pub(super) fn class_of_program(&self, name: &str, program: &Path) -> Class {
        let file = ClassFile { exec: vec![program.to_string_lossy().into_owned()], ..ClassFile::default() };
        let policy = Arc::new(file.policy(name));
        Class {
            policy,
            exec: file.exec,
            directory: None,
            main: false,
            boot: Vec::new(),
            settings: self.plain.clone(),
            call: None,
            logs: None,
            attach: None,
            metrics_by_worker: false,
        }
    }
}

/// A program without a slash. With a relative directory in PATH it would depend on where the supervisor is.
pub(super) fn find_program(program: &str, path: &OsStr) -> Option<PathBuf> {
    let dirs = std::env::split_paths(path).filter(|dir| dir.is_absolute());
    dirs.map(|dir| dir.join(program)).find(|path| is_executable(path))
}

pub(super) fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
