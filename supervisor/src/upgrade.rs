//! The supervisor becomes another program, in place: same process, same workers, same connections.
//!
//! ```text
//! asked ─▶ the state is written ─▶ NEW upgrade-check reads it ─▶ the state is written again ─▶ exec NEW ─▶ it goes on
//!                                   │ no, or too late             │ fails                     │ fails
//!                                   ▼                             ▼                           ▼
//!                                   this program goes on as if nothing had been
//! ```
//!
//! The new program is asked first whether it can read the state, as a child with a time limit, while this one goes on:
//! so another version refuses before anything is touched. Then all of the state goes into a sealed file in memory
//! ([`state`]), the descriptors it names lose their close-on-exec flag, and the file is executed that was asked. Signals
//! that come meanwhile stay pending. [`resume`] is the other side, and says the answer.
//!
//! The state is written between two turns, both times: within one, what was read before the request is still being
//! handled.
//!
//! To carry something more: a field in [`state::State`] with a default, a line in [`state::State::of`], its descriptor in
//! `descriptors` below, and a line in `resume.rs`.

mod resume;
mod state;

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{self, Read as _};
use std::num::NonZeroU64;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tracing::error;
use workhall_core::{Instant, Refused};
use workhall_protocol::messages::{self, ReceiptBody, Ref};
use workhall_protocol::terms::{Exit, Refusal};

use crate::access::is_master;
use crate::event_loop::EventLoop;
use crate::metrics::Metrics;
use crate::sys::{self, Image, Interest, StayOpen, Stream};
use crate::token::Token;

pub use resume::run_if_asked;
pub use state::check;

/// The word by which a program is asked whether it can go on with a state, which is its stdin.
pub const CHECK: &str = "upgrade-check";
/// How the answer begins.
const ANSWER: &str = "workhall upgrade-check: ";
/// In the environment of the next program: the number of the descriptor, and the process that it is meant for.
const VARIABLE: &str = "WORKHALL_UPGRADE";

/// How long the program that is asked may take.
const CHECK_LASTS: Duration = Duration::from_secs(20);
/// So much of its answer is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4096;
/// How often a turn is finished, at most, before the state is written. Each time there is less left to do.
const TURNS_MAX: usize = 100;

const READ: Interest = Interest { read: true, write: false };

/// An upgrade under way.
#[derive(Debug)]
pub(crate) struct Upgrade {
    /// Who asked, to be answered.
    by: (NonZeroU64, Ref),
    binary: PathBuf,
    /// The file that is asked is the file that is executed.
    file: FileIdentity,
    stage: Stage,
}

/// How far it has come.
#[derive(Debug)]
enum Stage {
    /// The new program is to be asked at the end of this turn.
    Asked,
    /// It is being asked.
    Checked(Check),
    /// It has said yes, and is to be executed at the end of this turn.
    Agreed,
}

/// The program that is asked.
#[derive(Debug)]
struct Check {
    pid: i32,
    pidfd: OwnedFd,
    output: Stream,
    until: Instant,
    late: bool,
}

/// What tells one file from another that was put in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileIdentity([i128; 4]);

impl FileIdentity {
    fn of(path: &Path) -> Result<FileIdentity, String> {
        let shown = path.display();
        let meta: Metadata = path.metadata().map_err(|error| format!("cannot look at {shown}: {error}"))?;
        if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
            return Err(format!("{shown} is no executable file"));
        }
        let time = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        Ok(FileIdentity([meta.dev().into(), meta.ino().into(), meta.size().into(), time]))
    }
}

/// The file that this program was started from. Of one that was replaced the kernel says so behind its path.
pub fn own_binary() -> PathBuf {
    let path = std::env::current_exe().unwrap_or_default().into_os_string();
    match path.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(path),
    }
}

impl EventLoop {
    /// Somebody who may administer asks for it.
    pub(crate) fn upgrade_asked(&mut self, index: usize, upgrade: messages::Upgrade<'_>) {
        let reference = upgrade.reference;
        // What is executed has all that the supervisor may.
        if upgrade.binary.is_some() && !is_master(self.own.uid, self.connections[index].peer.creds()) {
            let detail = "which program it becomes is said by root and the supervisor's own user alone; without \
                          `binary` it is the one that it was started from";
            let Refused { reason, detail } = Refused::new(Refusal::NotPermitted, detail);
            self.core.count_refused(reason, None);
            return self.receipt(index, reference, ReceiptBody::Refused { reason, detail });
        }
        let binary = upgrade.binary.map_or_else(|| self.binary.clone(), |path| PathBuf::from(&*path));
        match self.admit_upgrade(&binary) {
            Ok(file) => {
                let connection = &mut self.connections[index];
                connection.awaited += 1;
                self.upgrade = Some(Upgrade { by: (connection.key, reference), binary, file, stage: Stage::Asked });
            }
            Err(error) => self.receipt(index, reference, ReceiptBody::Failed { error: error.into() }),
        }
    }

    /// What can be said against it at once.
    fn admit_upgrade(&self, binary: &Path) -> Result<FileIdentity, String> {
        if self.upgrade.is_some() {
            return Err("another upgrade is under way".to_string());
        }
        if self.stopping {
            return Err("the supervisor is stopping".to_string());
        }
        if !binary.is_absolute() {
            return Err(format!("{} is no absolute path", binary.display()));
        }
        FileIdentity::of(binary)
    }

    /// Asks the program whether it can go on with the state as it is now.
    fn begin_check(&mut self, binary: &Path) -> Result<Check, String> {
        let shown = binary.display();
        let (state, _) = self.write_state(None).map_err(|error| format!("the state cannot be written: {error:#}"))?;
        let ask = || -> io::Result<Check> {
            let (output, theirs) = sys::stream_pair()?;
            let mut command = Command::new(binary);
            command.arg(CHECK).env_remove(VARIABLE).stdin(state).process_group(0);
            command.stdout(Stdio::from(theirs.try_clone()?)).stderr(Stdio::from(theirs));
            #[allow(clippy::zombie_processes, reason = "the event loop reaps it through its pidfd")]
            let child = command.spawn()?;
            let pid = child.id() as i32;
            let watched = sys::open_pidfd(pid).and_then(|pidfd| {
                self.poller.add(&pidfd, Token::Check.pack(), READ)?;
                Ok(pidfd)
            });
            let pidfd = watched.inspect_err(|_| sys::kill_group(pid))?;
            Ok(Check { pid, pidfd, output, until: self.clock.now().after(CHECK_LASTS), late: false })
        };
        let check = ask().map_err(|error| format!("cannot ask {shown} whether it can go on: {error}"))?;
        // Nobody else reaps it.
        self.leaders.insert(check.pid);
        Ok(check)
    }

    /// Whether only the end of a turn is awaited.
    pub(crate) fn upgrade_waits_for_a_turn(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|upgrade| !matches!(upgrade.stage, Stage::Checked(_)))
    }

    /// When the program that is asked has taken too long.
    pub(crate) fn upgrade_deadline(&self) -> Option<Instant> {
        match &self.upgrade.as_ref()?.stage {
            Stage::Checked(check) if !check.late => Some(check.until),
            _ => None,
        }
    }

    /// Ends the program that is asked if its time is over; its end is told as any other.
    pub(crate) fn end_late_check(&mut self, now: Instant) {
        let Some(Upgrade { stage: Stage::Checked(check), .. }) = &mut self.upgrade else { return };
        if !check.late && check.until <= now {
            check.late = true;
            sys::kill_group(check.pid);
        }
    }

    /// The program that was asked has ended.
    pub(crate) fn check_ended(&mut self) {
        let Some(upgrade) = &mut self.upgrade else { return };
        let Stage::Checked(check) = &upgrade.stage else { return };
        let exit = match sys::reap(&check.pidfd) {
            Ok(None) => return,
            Ok(Some(exit)) => exit,
            // Nobody else reaps our children.
            Err(_) => Exit::Signal(0),
        };
        let said = first_line(&check.output);
        let _open = self.poller.remove(&check.pidfd);
        self.leaders.remove(&check.pid);
        let (late, shown) = (check.late, upgrade.binary.display());
        let answer = said.strip_prefix(ANSWER);
        let refused = match (exit, answer) {
            _ if late => format!("{shown} did not say within {} s whether it can go on", CHECK_LASTS.as_secs()),
            (Exit::Code(0), Some(_)) => {
                upgrade.stage = Stage::Agreed;
                return;
            }
            (_, Some(answer)) => format!("{shown} cannot go on: {answer}"),
            (_, None) if said.is_empty() => format!("{shown} is no workhall that can go on: it says nothing"),
            (_, None) => format!("{shown} is no workhall that can go on: it says `{said}`"),
        };
        self.upgrade_failed(&refused);
    }

    /// This program goes on.
    fn upgrade_failed(&mut self, error: &str) {
        let Some(Upgrade { by: (key, reference), .. }) = self.upgrade.take() else { return };
        error!("no upgrade, all goes on as it was: {error}");
        if let Some(index) = self.connection(key) {
            self.connections[index].awaited -= 1;
            self.receipt(index, reference, ReceiptBody::Failed { error: error.to_string().into() });
        }
    }

    /// Between two turns. Comes back if there is nothing to do, or it has failed, or must wait for the next turn.
    pub(crate) fn upgrade_if_ready(&mut self) -> io::Result<()> {
        if !self.upgrade_waits_for_a_turn() {
            return Ok(());
        }
        if self.stopping {
            self.upgrade_failed("the supervisor is stopping");
            self.flush();
            return Ok(());
        }
        if !self.finish_turn() {
            return Ok(());
        }
        let Some(Upgrade { stage, binary, file, .. }) = &self.upgrade else { return Ok(()) };
        let (binary, file) = (binary.clone(), *file);
        if let Stage::Asked = stage {
            match self.begin_check(&binary) {
                Ok(check) => {
                    let stage = Stage::Checked(check);
                    self.upgrade = self.upgrade.take().map(|upgrade| Upgrade { stage, ..upgrade });
                }
                Err(error) => self.upgrade_failed(&error),
            }
            self.flush();
            return Ok(());
        }
        // From here on nothing may be started, which would inherit that.
        sys::block_signals()?;
        let signals = self.take_signals();
        // Those that came before are for this program; the next turn is as good.
        let error = match signals {
            (0, 0) => Some(self.become_program(&binary, file)),
            _ => None,
        };
        sys::unblock_signals()?;
        self.obey(signals);
        if let Some(error) = error {
            self.upgrade_failed(&error);
        }
        self.flush();
        Ok(())
    }

    /// Comes back only if it fails, with the reason.
    fn become_program(&self, binary: &Path, file: FileIdentity) -> String {
        match self.try_to_become(binary, file) {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }

    fn try_to_become(&self, binary: &Path, file: FileIdentity) -> Result<Infallible, String> {
        let shown = binary.display();
        if FileIdentity::of(binary)? != file {
            return Err(format!("{shown} was replaced after it was asked: ask for the upgrade again"));
        }
        let (state, _) = self
            .write_state(Some(binary.to_path_buf()))
            .map_err(|error| format!("the state cannot be written: {error:#}"))?;
        let mut descriptors = self.descriptors_to_keep();
        descriptors.push(state.as_fd());
        let open = StayOpen::new(descriptors).map_err(|error| format!("descriptors cannot be kept open: {error}"))?;
        let words: Vec<OsString> = std::env::args_os().collect();
        let handed_over = format!("{}:{}", sys::number(&state), std::process::id());
        let environment = std::env::vars_os().filter(|(name, _)| name != VARIABLE);
        let environment: Vec<_> = environment.chain([(VARIABLE.into(), handed_over.into())]).collect();
        let image = Image::new(binary.as_os_str(), &words, &environment);
        let error = image.map_or_else(io::Error::from, |image| image.execute());
        drop(open);
        Err(format!("cannot execute {shown}: {error}"))
    }

    /// Does what is left to do at once, so that nothing is on its way. Returns whether that is so.
    fn finish_turn(&mut self) -> bool {
        for _ in 0..TURNS_MAX {
            self.apply();
            self.hunt();
            self.flush();
            if !self.core.has_effects() && self.hunted.is_empty() && self.dirty.is_empty() {
                return true;
            }
        }
        false
    }

    /// Whatever [`state::State::of`] writes the number of.
    fn descriptors_to_keep(&self) -> Vec<BorrowedFd<'_>> {
        let mut all = vec![self.listener.as_fd(), self.lock.as_fd(), self.names.dir().1.as_fd()];
        all.extend(self.connections.iter().map(|(_, connection)| connection.stream().as_fd()));
        all.extend(self.metrics.as_ref().map(Metrics::door));
        for (_, process) in &self.processes {
            all.extend([process.pidfd.as_fd(), process.page_fd.as_fd()]);
            all.extend(process.outputs.iter().flatten().map(|output| output.pipe().as_fd()));
        }
        all
    }
}

/// The first line of what a program has written, for people.
fn first_line(output: &Stream) -> String {
    let (mut text, mut output) = (vec![0; ANSWER_BYTES_MAX], output);
    let count = output.read(&mut text).unwrap_or(0);
    text.truncate(count);
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or_default().trim().to_string()
}
