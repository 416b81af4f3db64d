//! All of the state of a supervisor as a file: what the shell has, then the core's snapshot.
//!
//! ```text
//! 16 bytes  workhall-upgrade
//!  4 bytes  the format, little endian
//!  4 bytes  0
//!  8 bytes  the length of the shell's part, little endian
//!           the shell's part: MessagePack with named fields
//!           the core's part: the same
//! ```
//!
//! Within a format fields are only ever added, with a default, and fields that are not known are ignored: so of two
//! programs of one format each can go on with the other's state. What changes the meaning of a field is another format,
//! and is refused. Everything here is plain values, which do nothing when they go: the program that only looks must not
//! end what belongs to the other.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek as _, Write as _};
use std::num::NonZeroU64;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use workhall_core::{Core, ProcessKey};
use workhall_protocol::ids::MessageId;
use workhall_protocol::messages::Ref;

use super::{ANSWER, CHECK};
use crate::access::Account;
use crate::cgroup::CarriedTrees;
use crate::clock::Clock;
use crate::config::{Class, Config};
use crate::connection::Carried;
use crate::event_loop::EventLoop;
use crate::journal;
use crate::log;
use crate::metrics::{CarriedDoor, Metrics};
use crate::output::{CarriedOutput, Output};
use crate::process_tree::{Foreign, Inherited, Sweep};
use crate::sys;

const MAGIC: [u8; 16] = *b"workhall-upgrade";
/// What this program writes and reads.
const FORMAT: u32 = 1;
/// No shell's part is longer, in bytes: what all users may have unread and unfinished has its bounds far below.
const SHELL_BYTES_MAX: u64 = 1 << 40;

/// What the shell has.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// Of the program that has written it.
    pub version: String,
    /// The file that is executed; none where it is only asked.
    pub binary: Option<PathBuf>,
    /// Who asked for the upgrade.
    pub by: Option<(NonZeroU64, Ref)>,
    /// When nothing was taken in any more, on the kernel's clock.
    pub stopped_at: Duration,
    pub clock: Clock,
    pub config: CarriedConfig,
    pub socket: PathBuf,
    /// Which file that was; none if it is not known.
    #[serde(default)]
    pub socket_file: Option<sys::FileId>,
    /// The file of the socket goes with the supervisor.
    pub socket_is_ours: bool,
    pub listener: RawFd,
    pub lock: RawFd,
    pub names: (PathBuf, RawFd),
    pub descriptors: u64,
    pub trees: CarriedTrees,
    pub no_new_privs: bool,
    pub not_enforced: Vec<String>,
    /// Those that workers have.
    pub classes: Vec<Class>,
    pub next_serial: u64,
    pub connections: Vec<(RawFd, Carried)>,
    pub accounts: Vec<(Account, Option<u64>, bool)>,
    pub processes: Vec<CarriedProcess>,
    pub foreign: Foreign,
    pub inherited: Inherited,
    /// What finds no room on stderr.
    pub unsaid: (Vec<u8>, u64),
    /// What workers wrote, what happened, and who follows.
    #[serde(default)]
    pub journal: journal::Carried,
    /// Where metrics are read.
    #[serde(default)]
    pub metrics: Option<CarriedDoor>,
    /// How the supervisor itself logs, beside what the configuration says.
    #[serde(default)]
    pub log: log::Carried,
}

/// A configuration as it was read. It is in force until it is read again, whatever the file says meanwhile.
#[derive(Debug, Serialize, Deserialize)]
pub struct CarriedConfig {
    pub file: Option<PathBuf>,
    pub text: String,
    /// The files that it includes, and their texts.
    #[serde(default)]
    pub included: Vec<(PathBuf, String)>,
    /// Named by the command line.
    pub workers_dir: Option<PathBuf>,
}

/// A process that was started and is not proved gone.
#[derive(Debug, Serialize, Deserialize)]
pub struct CarriedProcess {
    /// Its place, which the core knows.
    pub slot: usize,
    pub key: ProcessKey,
    pub pid: i32,
    pub pidfd: RawFd,
    pub page: RawFd,
    pub serial: u64,
    pub connection: Option<usize>,
    pub unwritten_task: Option<MessageId>,
    pub reaped: bool,
    pub group: Option<PathBuf>,
    pub sweep: Option<Sweep>,
    /// Where it writes; nowhere, if the program that has started it had no such pipes.
    #[serde(default)]
    pub outputs: [Option<CarriedOutput>; 2],
}

impl State {
    /// Of a supervisor between two turns.
    fn of(this: &EventLoop, binary: Option<PathBuf>) -> State {
        let config = &this.config;
        let (names, names_fd) = this.names.dir();
        State {
            version: env!("CARGO_PKG_VERSION").to_string(),
            binary,
            by: this.upgrade.as_ref().map(|upgrade| upgrade.by.clone()),
            stopped_at: this.clock.on_the_kernels(),
            clock: this.clock,
            config: CarriedConfig {
                file: config.file.clone(),
                text: config.texts.first().map(|(_, text)| text.clone()).unwrap_or_default(),
                included: config.texts.iter().skip(1).cloned().collect(),
                workers_dir: config.named_workers_dir().map(PathBuf::from),
            },
            socket: this.socket.clone(),
            socket_file: this.socket_file,
            socket_is_ours: !this.adopted,
            listener: sys::number(&this.listener),
            lock: sys::number(&this.lock),
            names: (names.to_path_buf(), sys::number(names_fd)),
            descriptors: this.descriptors,
            trees: this.trees.carried(),
            no_new_privs: this.no_new_privs,
            not_enforced: this.not_enforced.clone(),
            classes: this.classes.values().map(|class| Class::clone(class)).collect(),
            next_serial: this.next_serial,
            connections: this.connections.iter().map(|(_, it)| (sys::number(it.stream()), it.carried())).collect(),
            accounts: this.accounts.notes(),
            processes: this
                .processes
                .iter()
                .map(|(slot, process)| CarriedProcess {
                    slot,
                    key: process.key,
                    pid: process.pid,
                    pidfd: sys::number(&process.pidfd),
                    page: sys::number(&process.page_fd),
                    serial: process.serial,
                    connection: process.connection,
                    unwritten_task: process.unwritten_task,
                    reaped: process.reaped,
                    group: process.group.as_ref().map(|group| group.dir().to_path_buf()),
                    sweep: process.sweep.clone(),
                    outputs: process.outputs.each_ref().map(|output| output.as_ref().map(Output::carried)),
                })
                .collect(),
            foreign: this.foreign.clone(),
            inherited: this.inherited.clone(),
            unsaid: crate::diagnostics::unsaid(),
            journal: this.journal.carried(),
            metrics: this.metrics.as_ref().map(Metrics::carried),
            log: log::Carried { named: config.named_log, lost: log::lost() },
        }
    }

    /// The configuration that was in force, and is.
    pub fn config(&self) -> anyhow::Result<Config> {
        let CarriedConfig { file, text, included, workers_dir } = &self.config;
        let main = file.iter().map(|file| (file.clone(), text.clone()));
        let mut config = Config::parse_again(main.chain(included.iter().cloned()))?;
        if let Some(dir) = workers_dir {
            config.name_workers_dir(dir)?;
        }
        config.named_log = self.log.named;
        config.fit(self.descriptors);
        Ok(config)
    }
}

impl EventLoop {
    /// Writes all of the state into a sealed file in memory; returns it, at its beginning, and its length. `binary` is to
    /// be executed with it.
    pub(super) fn write_state(&self, binary: Option<PathBuf>) -> anyhow::Result<(File, u64)> {
        let shell = rmp_serde::to_vec_named(&State::of(self, binary))?;
        let mut file = sys::sealable_file()?;
        let mut out = BufWriter::with_capacity(1 << 20, &file);
        out.write_all(&MAGIC)?;
        out.write_all(&FORMAT.to_le_bytes())?;
        out.write_all(&[0; 4])?;
        out.write_all(&(shell.len() as u64).to_le_bytes())?;
        out.write_all(&shell)?;
        self.core.snapshot(&mut rmp_serde::Serializer::new(&mut out).with_struct_map())?;
        out.flush()?;
        drop(out);
        let bytes = file.stream_position()?;
        file.rewind()?;
        sys::seal(&file)?;
        Ok((file, bytes))
    }
}

/// Reads what such a file has. Touches nothing.
pub fn read(input: impl Read) -> anyhow::Result<(State, Config, Core)> {
    let mut input = BufReader::with_capacity(1 << 20, input);
    let mut head = [0; 32];
    input.read_exact(&mut head).context("there is no state of a supervisor")?;
    ensure!(head[..16] == MAGIC, "this is no state of a supervisor");
    let format = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
    if format != FORMAT {
        let version = env!("CARGO_PKG_VERSION");
        bail!(
            "the state has format {format}, and workhall {version} reads format {FORMAT}: restart the supervisor instead"
        );
    }
    let length = u64::from_le_bytes([head[24], head[25], head[26], head[27], head[28], head[29], head[30], head[31]]);
    ensure!(length <= SHELL_BYTES_MAX, "the state is not whole");
    let mut shell = Vec::new();
    input.by_ref().take(length).read_to_end(&mut shell).context("the state cannot be read")?;
    let state: State = rmp_serde::from_slice(&shell).context("the shell's part of the state cannot be read")?;
    drop(shell);
    let config = state.config().context("the configuration that is in force cannot be read")?;
    let core = Core::restore(&mut rmp_serde::Deserializer::new(&mut input), config.limits.clone())
        .context("the core's part of the state cannot be read")?;
    ensure!(input.read(&mut [0])? == 0, "there is more in the state than is known");
    Ok((state, config, core))
}

/// `workhall upgrade-check`: says in one line whether this program could go on with the state that is its stdin.
pub fn check() -> bool {
    let read = read(io::stdin().lock());
    let line = match &read {
        Ok((state, ..)) => format!(
            "{ANSWER}workhall {} can go on with format {FORMAT}, written by {}",
            env!("CARGO_PKG_VERSION"),
            state.version
        ),
        Err(error) => format!("{ANSWER}{error:#}"),
    };
    debug_assert!(line.contains(CHECK));
    let said = writeln!(io::stdout(), "{}", line.replace('\n', " "));
    read.is_ok() && said.is_ok()
}
