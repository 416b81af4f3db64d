//! What is measured: a supervisor of our own in a directory of our own, or one that is there; and the daemons of the
//! floors. All of them end, and the directory goes, when their value is dropped.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;
use workhall_protocol::Client;
use workhall_protocol::args::Payload;
use workhall_protocol::client::{ClientError, WhichLetters};
use workhall_protocol::messages::{Call, Kill, OutcomeBody, ReceiptBody};

use super::PART;
use crate::diagnostics::say;
use crate::sys;

/// How long a supervisor may take until it is ready, or gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether it is.
const LOOK: Duration = Duration::from_millis(2);

/// A connection that asks and waits.
pub type Caller = Client<std::os::unix::net::UnixStream>;

/// A directory that is removed when it is dropped.
pub struct Dir(PathBuf);

impl Dir {
    /// For this process alone.
    pub fn make() -> anyhow::Result<Dir> {
        let path = std::env::temp_dir().join(format!("workhall-bench-{}", std::process::id()));
        let _left_by_an_earlier_process_of_our_number = fs::remove_dir_all(&path);
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Dir(path))
    }

    /// A path in it that was not given out before.
    pub fn path(&self, name: &str) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.0.join(format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _removed = fs::remove_dir_all(&self.0);
    }
}

/// The supervisor that is measured.
pub struct Server {
    socket: PathBuf,
    /// Of a supervisor of ours.
    child: Option<Child>,
    log: PathBuf,
    /// What all names of workers begin with.
    pub prefix: String,
    /// The names that were used at a supervisor that is not ours: it is to be left as it was found.
    used: RefCell<BTreeSet<String>>,
}

impl Server {
    /// A supervisor of our own: this executable, with bounds that nothing here reaches. Workers below `bench/` are on
    /// the library, those below `lines/` are as scripts are.
    pub fn start(dir: &Dir, window: u32) -> anyhow::Result<Server> {
        Server::start_with(dir, window, "auto")
    }

    /// The same, and where its metrics are read. Workers below `named/` have series of their own.
    pub fn start_with_metrics(dir: &Dir, window: u32) -> anyhow::Result<(Server, PathBuf)> {
        let metrics = dir.path("metrics");
        let shown = metrics.to_str().context("the temporary directory's path is not UTF-8")?;
        let server = Server::start_as(dir, window, &format!("metrics = \"{shown}\""))?;
        Ok((server, metrics))
    }

    /// The same, with the trees of its processes found in this way.
    pub fn start_with(dir: &Dir, window: u32, process_tree: &str) -> anyhow::Result<Server> {
        Server::start_as(dir, window, &format!("process_tree = \"{process_tree}\""))
    }

    fn start_as(dir: &Dir, window: u32, setting: &str) -> anyhow::Result<Server> {
        let (socket, file, log) = (dir.path("socket"), dir.path("config"), dir.path("log"));
        let exe = std::env::current_exe()?;
        let exe = serde_json::to_string(exe.to_str().context("the path of this executable is not UTF-8")?)?;
        let room = "mailbox = { messages = 100_000_000, bytes = \"64GiB\" }";
        let text = format!(
            "[supervisor]\n{setting}\n\
             total_messages = 100_000_000\ntotal_bytes = \"64GiB\"\n\
             sender_messages = 100_000_000\nsender_bytes = \"64GiB\"\n\
             max_workers = 2_000_000\nshutdown_grace = \"2s\"\n\
             max_connections_per_user = 10_000\n\
             [class.bench]\nexec = [{exe}, \"{PART}\", \"worker\", \"{window}\"]\n{room}\n\
             [class.named]\nexec = [{exe}, \"{PART}\", \"worker\", \"{window}\"]\n{room}\nmetrics_by_worker = true\n\
             [class.lines]\nexec = [{exe}, \"{PART}\", \"lines\"]\n{room}\n"
        );
        fs::write(&file, text)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("serve").arg("--config").arg(&file).arg("--socket").arg(&socket);
        // A group of its own: who ends the measurement by Ctrl-C ends it through us.
        command.env_remove("WORKHALL_SOCKET").stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        let child = command.stderr(fs::File::create(&log)?).spawn().context("cannot start a supervisor")?;
        let mut server =
            Server { socket, child: Some(child), log, prefix: "bench/".to_string(), used: RefCell::default() };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// One that is there, whose workers of these names are the same.
    pub fn existing(socket: &Path, prefix: &str) -> Server {
        let used = RefCell::default();
        Server { socket: socket.to_path_buf(), child: None, log: PathBuf::new(), prefix: prefix.to_string(), used }
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(&self.log)?;
            if log.contains("workhall: ready at ") {
                return Ok(());
            }
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || Instant::now() > until {
                bail!("the supervisor has not started: {}", log.trim_end());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A name of a worker.
    pub fn name(&self, name: impl std::fmt::Display) -> String {
        let name = format!("{}{name}", self.prefix);
        if self.child.is_none() {
            self.used.borrow_mut().insert(name.clone());
        }
        name
    }

    /// Ends the workers that were used, with what waits for them and what has died.
    fn clean_up(&self) -> anyhow::Result<()> {
        // Where nobody answers nothing is left.
        let Ok(mut client) = self.client() else { return Ok(()) };
        for name in self.used.take() {
            kill(&mut client, &name, true)?;
            // Only who may administer may; others leave them.
            let _refused = client.dead_drop(WhichLetters::Worker(&name))?;
        }
        Ok(())
    }

    /// A connection of its own.
    pub fn client(&self) -> anyhow::Result<Caller> {
        let client =
            Client::connect(&self.socket).with_context(|| format!("no supervisor at {}", self.socket.display()))?;
        client.stream().set_read_timeout(Some(PATIENCE))?;
        Ok(client)
    }

    /// Its process id; none of one that is not ours.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else {
            if let Err(error) = self.clean_up() {
                say(format_args!("the workers of the benchmark may still be there: {error:#}"));
            }
            return;
        };
        sys::terminate(child.id() as i32);
        let until = Instant::now() + PATIENCE;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > until {
                let _killed = child.kill();
                let _collected = child.wait();
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Calls and waits: the result.
pub fn ask(client: &mut Caller, worker: &str, method: &str, args: Payload<'_>) -> anyhow::Result<Payload<'static>> {
    match client.call_and_wait(Call::new(worker, method, args))? {
        (_, Some(OutcomeBody::Done { result })) => Ok(result),
        (receipt, outcome) => bail!("{worker} {method}: {receipt:?}, {outcome:?}"),
    }
}

/// Kills a worker and waits until it is gone.
pub fn kill(client: &mut Caller, worker: &str, now: bool) -> anyhow::Result<()> {
    let ticket = client.kill(Kill { worker: Some(worker.into()), wait: true, now, ..Kill::default() })?;
    match client.outcome(ticket) {
        Ok(OutcomeBody::Killed(_)) | Err(ClientError::NoOutcome(ReceiptBody::Ignored { .. })) => Ok(()),
        other => bail!("{worker} was not killed: {other:?}"),
    }
}

/// The report of `status`, or of `list`.
pub fn report(receipt: ReceiptBody<'_>) -> anyhow::Result<Value> {
    match receipt {
        ReceiptBody::Report(payload) => Ok(payload.to_json()?),
        other => bail!("no report: {other:?}"),
    }
}

/// A daemon of a floor.
pub struct FloorDaemon {
    socket: PathBuf,
    child: Child,
}

impl FloorDaemon {
    /// Copies bytes between so many clients and as many workers.
    pub fn forward(dir: &Dir, clients: usize) -> anyhow::Result<FloorDaemon> {
        FloorDaemon::start(dir, |socket| ["forward".into(), socket, clients.to_string(), "workers".into()])
    }

    /// Answers itself.
    pub fn echo(dir: &Dir) -> anyhow::Result<FloorDaemon> {
        FloorDaemon::start(dir, |socket| ["forward".into(), socket, "1".into(), "alone".into()])
    }

    /// One queue, for one client and one worker, that many sent ahead.
    pub fn mailbox(dir: &Dir, ahead: u32) -> anyhow::Result<FloorDaemon> {
        FloorDaemon::start(dir, |socket| ["mailbox".into(), socket, "1".into(), ahead.to_string()])
    }

    fn start(dir: &Dir, words: impl FnOnce(String) -> [String; 4]) -> anyhow::Result<FloorDaemon> {
        let socket = dir.path("floor");
        let text = socket.to_str().context("the temporary directory's path is not UTF-8")?.to_string();
        let mut command = Command::new("/proc/self/exe");
        command.arg(PART).args(words(text)).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().context("cannot start a floor")?;
        let out = child.stdout.take().context("its stdout is a pipe")?;
        let this = FloorDaemon { socket, child };
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        match line.trim_end() {
            "ready" => Ok(this),
            _ => bail!("a floor has not started"),
        }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for FloorDaemon {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _collected = self.child.wait();
    }
}
