//! Starts the process of a worker.
//!
//! `std::process::Command` without anything between fork and exec: that is posix_spawn, which does not
//! copy the supervisor's memory, however many messages it holds.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use workhall_core::ProcessKey;
use workhall_protocol::MarkPage;

use crate::config::Class;
use crate::sys::{self, Inherit, Stream};

/// A process that was started.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id; also the number of its process group.
    pub pid: i32,
    /// What tells its end.
    pub pidfd: OwnedFd,
    /// The supervisor's end of its connection.
    pub stream: Stream,
    /// What it shares with the supervisor.
    pub page: MarkPage,
}

/// Starts a process with its connection and its mark page. The error names the stage.
/// `lock` is inherited, and closed here: the tree alone holds the name.
pub fn spawn(class: &Class, name: &str, process: ProcessKey, socket: &Path, lock: OwnedFd) -> Result<Spawned, String> {
    let stage = |stage: &'static str| move |error: io::Error| failed(stage, &error);
    let (stream, theirs) = sys::stream_pair().map_err(stage("cannot make its connection"))?;
    let (page, page_fd) = MarkPage::create().map_err(stage("cannot make its mark page"))?;
    let mut command = Command::new(&class.exec[0]);
    {
        let connection = Inherit::new(&theirs).map_err(stage("cannot hand over its connection"))?;
        let marks = Inherit::new(&page_fd).map_err(stage("cannot hand over its mark page"))?;
        let _name = Inherit::new(&lock).map_err(stage("cannot hand over the lock of its name"))?;
        command
            .args(&class.exec[1..])
            .env("WORKHALL_FD", connection.number().to_string())
            .env("WORKHALL_MARK_FD", marks.number().to_string())
            .env("WORKHALL_WORKER", name)
            .env("WORKHALL_NUMBER", process.number.0.to_string())
            .env("WORKHALL_GENERATION", process.generation.to_string())
            .env("WORKHALL_SOCKET", socket)
            .stdin(Stdio::null())
            .process_group(0);
        if let Some(directory) = &class.directory {
            command.current_dir(directory);
        }
        #[allow(clippy::zombie_processes, reason = "the event loop reaps it through its pidfd")]
        let mut child = command.spawn().map_err(|error| match &class.directory {
            // The kernel has one error for both.
            Some(directory) if !directory.is_dir() => format!("cannot start in {}: {error}", directory.display()),
            _ => failed(&format!("cannot execute {}", class.exec[0]), &error),
        })?;
        let pid = child.id() as i32;
        sys::open_pidfd(pid).map(|pidfd| Spawned { pid, pidfd, stream, page }).map_err(|error| {
            // Nobody would notice its end: it must not live.
            sys::kill_group(pid);
            let _collected = child.wait();
            failed(&format!("cannot watch process {pid}"), &error)
        })
    }
}

/// Stage and reason, and what is lacking, if that is why.
pub fn failed(stage: &str, error: &io::Error) -> String {
    let lack = sys::shortage(error).map(|lack| format!(" ({lack})")).unwrap_or_default();
    format!("{stage}: {error}{lack}")
}
