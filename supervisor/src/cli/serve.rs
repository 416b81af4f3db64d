//! `workhall serve`: from the command line to a supervisor that accepts.

use std::fs::Permissions;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tracing::warn;

use super::connect::{check_socket_path, default_socket};
use super::{ExitCode, Failure};
use crate::activation::{Adopted, adopted};
use crate::cgroup::{Cgroups, Trees};
use crate::clock::Clock;
use crate::config::{Config, DEFAULT_FILE, MetricsAt, ProcessTree, SOCKET_MODE_DEFAULT};
use crate::diagnostics::never_wait;
use crate::event_loop::{EventLoop, Setup};
use crate::log;
use crate::metrics::Door;
use crate::name_lock::NameLocks;
use crate::notify::Notifier;
use crate::sys::{self, Listens, LockFile, Poller, SocketAccess};

/// The arguments of `workhall serve`.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// The configuration [default: /etc/workhall/workhall.toml, if it is there and --workers is not given]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A directory whose executables are workers by their own names
    #[arg(long, value_name = "DIR")]
    workers: Option<PathBuf>,
    #[command(flatten)]
    log: log::Named,
}

impl Serve {
    /// Serves until SIGTERM or SIGINT.
    pub fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        never_wait();
        let mut config = self.configuration()?;
        log::set(config.log());
        let adopted = adopted().map_err(Failure::usage)?;
        let socket = place(socket.or_else(|| config.socket.clone()), adopted.as_ref())?;
        sys::unblock_signals().context("cannot unblock signals")?;
        sys::seal_inherited_descriptors().context("cannot seal the inherited descriptors (is /proc mounted?)")?;
        sys::become_subreaper().context("cannot become the reaper of orphans")?;
        let descriptors = sys::raise_descriptor_limit().context("cannot raise the limit of descriptors")?;
        crate::process_tree::check_kernel().context("cannot watch process trees")?;
        config.fit(descriptors);
        let access = config.socket_access;
        let lock = claim(&socket, access.mode, adopted.is_some())?;
        let names = NameLocks::open(&socket)?;
        let trees = trees(&config)?;
        let not_enforced = config.not_enforced(|controller| trees.why_not_limited(controller));
        // They hold for that of the metrics.
        let only_ours = matches!(config.metrics, Some(MetricsAt::Path(_)));
        let ignored = adopted.as_ref().filter(|_| !only_ours).and_then(|_| ignored_access(access));
        for warning in config.warnings().iter().chain(&not_enforced).chain(&ignored) {
            warn!("{warning}");
        }
        // What a parent has given up its children never have. With one class that must be able to gain privileges it is
        // left to the processes of the others.
        let no_new_privs = config.no_new_privs();
        if no_new_privs {
            sys::set_no_new_privs().context("cannot give up new privileges")?;
        }
        let is_adopted = adopted.is_some();
        let listener = match adopted {
            Some(adopted) => adopted.listener,
            None => sys::listen(&socket, access).with_context(|| format!("cannot listen at {}", socket.display()))?,
        };
        if !lock.is_at(&lock_path(&socket)) {
            // Whoever has made the next one may have begun to listen there, too.
            sys::leave_path(listener);
            let lock = lock_path(&socket);
            let message = format!("{} was removed at the wrong moment: start again", lock.display());
            return Err(Failure::new(ExitCode::Failed, message));
        }
        let metrics = config.metrics.as_ref().map(|at| Door::open(at, access)).transpose()?;
        let setup = Setup {
            config,
            socket: socket.clone(),
            listener,
            adopted: is_adopted,
            lock,
            names,
            descriptors,
            trees,
            no_new_privs,
            not_enforced,
            metrics,
            notifier: Notifier::from_environment(),
            seed: Clock::seed(),
        };
        let mut event_loop = EventLoop::new(setup).context("cannot start the event loop")?;
        log::ready(&socket);
        event_loop.run().context("the event loop failed")?;
        Ok(ExitCode::Done)
    }

    fn configuration(&self) -> Result<Config, Failure> {
        let default = Some(PathBuf::from(DEFAULT_FILE)).filter(|file| self.workers.is_none() && file.exists());
        // Absolute: so it is shown to who works in another directory.
        let file = self.config.clone().or(default).map(std::path::absolute).transpose()?;
        let usage = |error: anyhow::Error| Failure::usage(format!("{error:#}"));
        let mut config = match &file {
            Some(file) => Config::read(file).map_err(usage)?,
            None => Config::without_file(),
        };
        if let Some(dir) = &self.workers {
            config.name_workers_dir(dir).map_err(usage)?;
        }
        config.named_log = self.log;
        if !config.has_classes() {
            let hint = "name a configuration with --config FILE, or a directory of executables with --workers DIR";
            let message = match &file {
                Some(file) => format!("{} has no classes: {hint}", file.display()),
                None => format!("there is nothing to serve: {hint}"),
            };
            return Err(Failure::usage(message));
        }
        Ok(config)
    }
}

/// Where the supervisor listens: where it was told to, or where the service manager does already.
fn place(named: Option<PathBuf>, adopted: Option<&Adopted>) -> Result<PathBuf, Failure> {
    let Some(Adopted { path, .. }) = adopted else {
        let socket = std::path::absolute(named.unwrap_or_else(default_socket))?;
        check_socket_path(&socket)?;
        return Ok(socket);
    };
    let file = |path: &Path| path.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
    match named.filter(|named| named != path && (file(named).is_none() || file(named) != file(path))) {
        Some(named) => Err(Failure::usage(format!(
            "the service manager hands over the socket {}, and the supervisor is told to listen at {}: leave out `socket` \
             in [supervisor], --socket and WORKHALL_SOCKET, or name the same in both",
            path.display(),
            named.display()
        ))),
        None => Ok(path.clone()),
    }
}

/// What the configuration says of a socket that is not ours to change.
fn ignored_access(access: SocketAccess) -> Option<String> {
    let set = access.mode != SOCKET_MODE_DEFAULT || access.user.is_some() || access.group.is_some();
    set.then(|| {
        "`socket_mode`, `socket_user` and `socket_group` do nothing to a socket of the service manager: set SocketMode=, \
         SocketUser= and SocketGroup= in its socket unit"
            .to_string()
    })
}

/// How what processes leave behind will be found.
fn trees(config: &Config) -> Result<Trees, Failure> {
    if config.process_tree == ProcessTree::Subreaper {
        return Ok(Trees::Subreaper { why: "`process_tree` in [supervisor] says so".to_string() });
    }
    match (Cgroups::make(&config.controllers()), config.process_tree) {
        (Ok(cgroups), _) => Ok(Trees::Cgroups(cgroups)),
        (Err(why), ProcessTree::Cgroup) => {
            let hint = "set `process_tree = \"auto\"` in [supervisor], or let the supervisor make control groups";
            Err(Failure::new(ExitCode::Failed, format!("cannot make control groups: {why}; {hint}")))
        }
        (Err(why), _) => Ok(Trees::Subreaper { why }),
    }
}

/// Takes the right to serve a socket, and the path if a supervisor that is gone has left it. One that was `adopted` is
/// there, and stays.
fn claim(socket: &Path, mode: u32, adopted: bool) -> Result<LockFile, Failure> {
    let shown = socket.display();
    if let Some(dir) = socket.parent().filter(|dir| !dir.exists()) {
        let cannot =
            || format!("cannot make the directory {} of the socket: make it, or name another --socket", dir.display());
        std::fs::DirBuilder::new().mode(0o700).create(dir).with_context(cannot)?;
        // Others who may open the socket must come to it; what else is there they neither see nor may open.
        if mode & 0o077 != 0 {
            std::fs::set_permissions(dir, Permissions::from_mode(0o711)).with_context(cannot)?;
        }
    }
    let lock_path = lock_path(socket);
    let mut patience = Patience::new()?;
    let lock = loop {
        if let Some(lock) = sys::lock(&lock_path).with_context(|| format!("cannot lock {}", lock_path.display()))? {
            break lock;
        }
        let pid = std::fs::read_to_string(&lock_path).unwrap_or_default();
        let pid = pid.trim();
        let alive = pid.parse().is_ok_and(lives);
        if alive || !patience.wait()? {
            let what = if alive { "serves" } else { "is ending and still holds" };
            let message =
                format!("another supervisor (process {pid}) {what} {shown}: stop it, or name another --socket");
            return Err(Failure::new(ExitCode::Failed, message));
        }
    };
    if adopted {
        return Ok(lock);
    }
    match socket.symlink_metadata() {
        Ok(meta) if meta.file_type().is_socket() => {
            nobody_listens(socket, &mut patience)?;
            std::fs::remove_file(socket).with_context(|| format!("cannot remove the stale socket {shown}"))?;
        }
        Ok(_) => {
            let message = format!("{shown} is there and is no socket: it is left alone, name another --socket");
            return Err(Failure::new(ExitCode::Failed, message));
        }
        Err(_) => {}
    }
    Ok(lock)
}

fn lock_path(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_os_string();
    path.push(".lock");
    PathBuf::from(path)
}

/// The lock alone does not show it: whoever tidies up a directory may have removed the lock file of a
/// supervisor that lives.
fn nobody_listens(socket: &Path, patience: &mut Patience) -> Result<(), Failure> {
    let shown = socket.display();
    let who = loop {
        let listens = sys::who_listens(socket)
            .with_context(|| format!("cannot find out who listens at {shown}: name another --socket, or remove it"))?;
        let (who, may_be_dead) = match listens {
            Listens::Nobody => return Ok(()),
            Listens::Process(Some(pid)) => (format!("process {pid}"), !lives(pid)),
            Listens::Process(None) => ("a process that does not answer".to_string(), true),
        };
        if !may_be_dead || !patience.wait()? {
            break who;
        }
    };
    let message = format!(
        "another supervisor, or another program, listens at {shown} ({who}): stop it, or name another --socket"
    );
    Err(Failure::new(ExitCode::Failed, message))
}

/// How long what a dead supervisor has held is waited for, in all: its memory goes before its locks do, which takes a
/// while if it was much; and a process that it was about to start has a copy of all its descriptors, until it
/// executes its program.
const DEAD_HOLD: Duration = Duration::from_secs(10);
/// How long until the next look.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Waits for what a dead supervisor held.
struct Patience {
    until: Instant,
    poller: Poller,
}

impl Patience {
    fn new() -> Result<Patience, Failure> {
        let poller = Poller::new(1).context("cannot make a poller")?;
        Ok(Patience { until: Instant::now() + DEAD_HOLD, poller })
    }

    /// A while; false if it has lasted long enough.
    fn wait(&mut self) -> Result<bool, Failure> {
        if Instant::now() >= self.until {
            return Ok(false);
        }
        self.poller.wait(Some(LOOK_AGAIN), &mut Vec::new()).context("cannot wait")?;
        Ok(true)
    }
}

/// Whether a process lives, or may. One that was killed and has not ended yet does not.
fn lives(pid: i32) -> bool {
    match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => !is_ending(&stat),
        Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
    }
}

/// Whether a line of /proc/PID/stat is that of a process that has ended, or ends: of its own will, or because a signal
/// is about to end it.
fn is_ending(stat: &[u8]) -> bool {
    const EXITING_DUMPING_OR_SIGNALED: u64 = 0x4 | 0x200 | 0x400;
    const SIGKILL: u64 = 1 << 8;
    let behind_name = stat.iter().rposition(|byte| *byte == b')').map_or(0, |at| at + 1);
    let fields: Vec<&str> = str::from_utf8(&stat[behind_name..]).unwrap_or_default().split_whitespace().collect();
    // The state is the third field of all.
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let (flags, pending) = (number(9), number(31));
    fields.first().is_some_and(|state| state.starts_with(['Z', 'X']))
        || flags & EXITING_DUMPING_OR_SIGNALED != 0
        || pending & SIGKILL != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_killed_is_ending_before_it_has_ended() {
        let stat = |state: &str, flags: u64, pending: u64| {
            let zeros = |count| ["0"; 30][..count].join(" ");
            format!("7 (a) b) {state} {} {flags} {} {pending} 0", zeros(5), zeros(21)).into_bytes()
        };
        for living in [stat("S", 0x40_0000, 0), stat("R", 0x40_0100, 1 << 14)] {
            assert!(!is_ending(&living));
        }
        for ending in [stat("Z", 0, 0), stat("R", 0x4, 0), stat("D", 0x400, 0), stat("S", 0, 1 << 8)] {
            assert!(is_ending(&ending));
        }
        assert!(lives(std::process::id() as i32));
    }
}
