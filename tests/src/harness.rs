//! Real supervisors, real workers. Each test has a supervisor of its own in a directory of its own; no
//! process outlives it.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::Pid;
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;
use workhall_protocol::Client;
use workhall_protocol::args::Payload;

/// How long a condition may take before a test gives up, on a machine that does other things too.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// No environment of a test's process is larger.
const ENVIRON_BYTES: u64 = 4 << 20;

/// Where the executables of this workspace are. Builds them first: Cargo does not build the binaries of
/// other packages for a test.
pub fn bin_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let exe = std::env::current_exe().expect("a test knows its own path");
        let dir = exe.parent().expect("target/PROFILE/deps/TEST, or target/PROFILE/BIN");
        let dir = if dir.ends_with("deps") { dir.parent().expect("target/PROFILE") } else { dir }.to_path_buf();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // The whole workspace, as `cargo test --workspace` has it: so features are the same and nothing is
        // built twice.
        cargo.args(["build", "--quiet", "--workspace", "--bins"]).current_dir(workspace());
        if dir.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo runs").success(), "the workspace does not build");
        dir
    })
}

/// The root of the checkout.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace")
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Output {
    /// The exit status; -1 for a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Output {
    fn of(output: &std::process::Output) -> Output {
        Output {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The same, for a command that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> Output {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// The same, for a command that must have ended with this status, and said why: in one sentence of
    /// its own, below which may stand the line of a file that it is about, or in the form in which wrong usage is explained.
    #[track_caller]
    pub fn fails(self, code: i32, parts: &[&str]) -> Output {
        assert_eq!(self.code, code, "{self:?}");
        let usage = self.err.starts_with("error: ") && self.err.contains("--help");
        let line_of_a_file = |line: &str| line.starts_with("    ");
        let sentence = self.err.starts_with("workhall: ")
            && self.err.trim_end().lines().skip(1).enumerate().all(|(at, line)| at == 0 && line_of_a_file(line));
        assert!(usage || sentence, "not one sentence: {self:?}");
        for part in parts {
            assert!(self.err.contains(part), "stderr lacks `{part}`: {self:?}");
        }
        self
    }
}

/// Every name is a worker of the tests.
pub const ANY_NAME: &str = "class.any = { exec = ['{bin}/test-worker'], names = ['**'] }\n";

/// A running supervisor.
pub struct Supervisor {
    child: Option<Child>,
    dir: TempDir,
    socket: PathBuf,
    args: Vec<String>,
    redirections: &'static str,
    under: Vec<String>,
    listener: Option<UnixListener>,
    holds: u32,
}

/// A task that is held; see [`Supervisor::hold`].
pub struct Held {
    log: PathBuf,
    go: PathBuf,
}

impl Held {
    /// Whether the task was begun.
    pub fn has_begun(&self) -> bool {
        lines(&self.log).first().is_some_and(|line| line == "begun")
    }

    /// Whether the task has come to its end.
    pub fn has_ended(&self) -> bool {
        lines(&self.log).get(1).is_some_and(|line| line == "ended")
    }

    /// Lets it go.
    pub fn release(&self) {
        File::create(&self.go).unwrap();
    }
}

impl Supervisor {
    /// With a workers directory that holds `test-worker` under the names `a` and `b` and its own.
    pub fn start() -> Supervisor {
        Supervisor::start_with("")
    }

    /// The same, by a shell that opens more descriptors for it: `7</dev/null`.
    pub fn start_with(redirections: &'static str) -> Supervisor {
        let mut this = Supervisor::prepare();
        this.redirections = redirections;
        let workers = this.path("workers");
        fs::create_dir(&workers).unwrap();
        for name in ["a", "b", "test-worker"] {
            std::os::unix::fs::symlink(bin_dir().join("test-worker"), workers.join(name)).unwrap();
        }
        let workers = workers.to_str().unwrap().to_string();
        this.run(vec!["--workers".into(), workers])
    }

    /// With a configuration; `{bin}` in it is the directory of the executables, `{dir}` the test's own.
    pub fn with_config(config: &str) -> Supervisor {
        Supervisor::with_config_under(config, |_| Vec::new())
    }

    /// The same, started by a command that executes the one that follows it: `prlimit --nofile=40`. `under` is given
    /// the test's own directory.
    pub fn with_config_under(config: &str, under: impl FnOnce(&Path) -> Vec<String>) -> Supervisor {
        let mut this = Supervisor::prepare();
        this.under = under(this.dir.path());
        this.run_config(config)
    }

    fn run_config(self, config: &str) -> Supervisor {
        let config =
            config.replace("{bin}", bin_dir().to_str().unwrap()).replace("{dir}", self.dir.path().to_str().unwrap());
        let file = self.path("workhall.toml");
        fs::write(&file, config).unwrap();
        let file = file.to_str().unwrap().to_string();
        self.run(vec!["--config".into(), file])
    }

    /// The same, with a socket that is handed over and stays open while no supervisor is there, as a service manager
    /// does it. `before` comes between the two.
    pub fn activated(config: &str, before: impl FnOnce(&Supervisor)) -> Supervisor {
        const HAND_OVER: &str = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=w exec \"$0\" \"$@\"";
        let mut this = Supervisor::prepare();
        this.listener = Some(UnixListener::bind(&this.socket).unwrap());
        this.under = ["sh", "-c", HAND_OVER].map(str::to_string).to_vec();
        before(&this);
        this.run_config(config)
    }

    fn prepare() -> Supervisor {
        bin_dir();
        let dir = tempfile::Builder::new().prefix("workhall-").tempdir().unwrap();
        let socket = dir.path().join("socket");
        Supervisor {
            child: None,
            dir,
            socket,
            args: Vec::new(),
            redirections: "",
            under: Vec::new(),
            listener: None,
            holds: 0,
        }
    }

    fn run(mut self, args: Vec<String>) -> Supervisor {
        self.args = args;
        self.restart();
        self
    }

    /// Starts it (again) with the same arguments on the same socket, and waits until it is ready.
    pub fn restart(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let seen = fs::metadata(self.log_path()).unwrap().len() as usize;
        let workhall = bin_dir().join("workhall");
        let mut command = Command::new(if self.redirections.is_empty() { workhall.as_path() } else { Path::new("sh") });
        if let [program, args @ ..] = &self.under[..] {
            command = Command::new(program);
            command.args(args).arg(&workhall);
        }
        if !self.redirections.is_empty() {
            let script = format!("exec \"$0\" \"$@\" {}", self.redirections);
            command.args(["-c", &script]).arg(&workhall);
        }
        let child = command
            .arg("serve")
            .args(&self.args)
            .arg("--socket")
            .arg(&self.socket)
            .env_remove("WORKHALL_SOCKET")
            .stdin(self.listener.as_ref().map_or(Stdio::null(), |it| OwnedFd::from(it.try_clone().unwrap()).into()))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.until("the supervisor is ready", |this| {
            if let Some(status) = this.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("the supervisor ended with {status}:\n{}", this.log());
            }
            let said = &this.log()[seen..];
            said.contains("workhall: ready at ") || said.contains("\"message\":\"ready at ")
        });
    }

    /// A path in the test's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.as_ref().expect("it runs").id() as i32
    }

    /// What it and its workers have written.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.path("log")
    }

    /// The command line, ready to be changed and run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(bin_dir().join("workhall"));
        command.args(args).env("WORKHALL_SOCKET", &self.socket).env_remove("WORKHALL_NUMBER").stdin(Stdio::null());
        command
    }

    /// Runs the command line.
    pub fn cli(&self, args: &[&str]) -> Output {
        output(&mut self.command(args))
    }

    /// Calls, waits, and returns the result; the test fails if the method does.
    #[track_caller]
    pub fn call(&self, args: &[&str]) -> Value {
        self.cli(&[&["call", "--wait", "--timeout", "60s"], args].concat()).ok().json()
    }

    /// A connection of its own.
    pub fn client(&self) -> Client<UnixStream> {
        let client = Client::connect(&self.socket).unwrap();
        client.stream().set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    /// A bare connection, for those who write their own bytes.
    pub fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Stops it, and connects to it until no more connections are taken in: who connects now waits.
    pub fn stop_with_full_backlog(&self) {
        self.signal(Signal::SIGSTOP);
        let address = UnixAddr::new(&self.socket).unwrap();
        loop {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
            // One that is closed at once keeps its place, and needs no descriptor.
            match connect(stream.as_raw_fd(), &address) {
                Ok(()) => {}
                Err(Errno::EAGAIN) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Holds a worker in a task until it is let go; returns when the task has begun.
    #[track_caller]
    pub fn hold(&mut self, worker: &str) -> Held {
        let held = self.post_hold(worker);
        self.until("the task has begun", |_| held.has_begun());
        held
    }

    /// Posts such a task, without waiting until it begins.
    #[track_caller]
    pub fn post_hold(&mut self, worker: &str) -> Held {
        self.holds += 1;
        let (log, go) = (self.path(&format!("held-{}", self.holds)), self.path(&format!("go-{}", self.holds)));
        self.cli(&["call", worker, "block", log.to_str().unwrap(), go.to_str().unwrap()]).ok();
        Held { log, go }
    }

    /// The row of a worker in `ps --json`; null if there is none. The newest one of the name.
    pub fn ps(&self, name: &str) -> Value {
        let list = self.cli(&["ps", "--json"]).ok().json();
        let rows = list.as_array().unwrap().iter().filter(|row| row["name"] == name);
        rows.max_by_key(|row| row["number"].as_u64()).cloned().unwrap_or_default()
    }

    /// The process id of a worker that has one.
    #[track_caller]
    pub fn worker_pid(&self, name: &str) -> i32 {
        self.ps(name)["pid"].as_i64().unwrap_or_else(|| panic!("{name} has no process")) as i32
    }

    /// `status --json`. Fails if the ledger does not balance (rule L1).
    pub fn status(&self) -> Value {
        let status = self.cli(&["status", "--json"]).ok().json();
        let ledger = &status["ledger"];
        let term = |name: &str| ledger[name].as_u64().unwrap_or_else(|| panic!("no {name} in {ledger}"));
        let sum: u64 = ["done", "failed", "discarded", "expired", "dead", "pending", "running"].map(term).iter().sum();
        assert_eq!(term("accepted"), sum, "the ledger does not balance: {ledger}");
        status
    }

    /// Waits for a condition; fails with its name and the log if it does not come.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Supervisor) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < PATIENCE, "waited in vain until {what}; the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        self.until("the supervisor has ended", |this| {
            status = this.child.as_mut().expect("it runs").try_wait().unwrap();
            status.is_some()
        });
        self.child = None;
        status.expect("was waited for")
    }

    /// Processes that this supervisor, or one before it on the same socket, has started and that live.
    pub fn processes(&self) -> Vec<i32> {
        let mark = format!("WORKHALL_SOCKET={}", self.socket.display());
        let pids =
            fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i32| {
            // Not all of one that belongs to others: it may be as large as memory is.
            let mut environ = Vec::new();
            let read = |file: File| file.take(ENVIRON_BYTES).read_to_end(&mut environ);
            File::open(format!("/proc/{pid}/environ")).and_then(read).is_ok()
                && environ.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
        })
        .collect()
    }
}

/// Helpers for tests that watch a worker from outside.
impl Supervisor {
    /// Writes a file into the test's own directory: the `{dir}` of the configuration.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The lines of a file of the test's own directory; none if it is not there.
    pub fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.path(name)).unwrap_or_default().lines().map(str::to_string).collect()
    }

    /// Waits until a worker has written so many lines into a file.
    #[track_caller]
    pub fn until_lines(&mut self, name: &str, count: usize) {
        self.until(&format!("{name} has {count} lines"), |this| this.lines(name).len() >= count);
    }

    /// Starts the command line; [`Running::end`] collects what it prints.
    pub fn start_cli(&self, args: &[&str]) -> Running {
        let child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running(child)
    }

    /// Kills, waits, and returns the receipt.
    #[track_caller]
    pub fn kill(&self, args: &[&str]) -> Value {
        self.cli(&[&["kill", "--wait", "--json", "--timeout", "60s"], args].concat()).ok().json()
    }

    /// A worker executes `block`, which has begun and said so in the file `begun`.
    #[track_caller]
    pub fn block(&mut self, worker: &str) {
        let lines = self.lines("begun").len();
        let (begun, go) = (self.path("begun"), self.path("go"));
        self.cli(&["call", worker, "block", begun.to_str().unwrap(), go.to_str().unwrap()]).ok();
        self.until_lines("begun", lines + 1);
    }

    /// Lets all end that execute `block`.
    pub fn let_go(&self) {
        self.file("go", "");
    }

    /// A term of the ledger.
    #[track_caller]
    pub fn ledger(&self, term: &str) -> u64 {
        self.status()["ledger"][term].as_u64().unwrap()
    }

    /// No two processes of one name have lived at a time, as far as `test-worker` has seen.
    #[track_caller]
    pub fn no_overlap(&self) {
        assert!(!self.path("OVERLAP").exists(), "{:?}", self.lines("OVERLAP"));
    }
}

/// Helpers for tests of who may do what, and of how much memory that takes.
impl Supervisor {
    /// Lets other users come to the socket and to what lies beside it, and gives them the command line.
    pub fn open_to_others(&self) {
        fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let copy = self.path("workhall");
        copy_program(&bin_dir().join("workhall"), &copy);
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A program, run by another user with this primary group and no other. Only root can do that.
    pub fn command_of(&self, uid: u32, gid: u32, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--clear-groups", "--", program]);
        command.args(args).env("WORKHALL_SOCKET", &self.socket).env_remove("WORKHALL_NUMBER");
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// The command line, run by another user. After [`Supervisor::open_to_others`].
    pub fn cli_of(&self, uid: u32, gid: u32, args: &[&str]) -> Output {
        output(&mut self.command_of(uid, gid, self.path("workhall").to_str().unwrap(), args))
    }

    /// How much memory its process has had at most, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }
}

/// Whether the tests may become other users.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A command line on its way.
pub struct Running(Child);

impl Running {
    /// Waits for its end.
    pub fn end(self) -> Output {
        Output::of(&self.0.wait_with_output().unwrap())
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the log of the supervisor:\n{}---", self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _ended = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
            let start = Instant::now();
            while child.try_wait().is_ok_and(|status| status.is_none()) && start.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ended = child.kill();
            let _reaped = child.wait();
        }
        let left = self.processes();
        for pid in &left {
            let _ended = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "processes outlived the supervisor: {left:?}");
        }
    }
}

/// The ways of finding what processes leave behind that are possible here; says which are not.
pub fn tree_modes() -> Vec<&'static str> {
    static WHY_NOT: OnceLock<Option<String>> = OnceLock::new();
    let why_not = WHY_NOT.get_or_init(|| {
        let status = Supervisor::start().status();
        (status["process_tree"] != "cgroup").then(|| status["why_not_cgroup"].to_string())
    });
    match why_not {
        None => vec!["cgroup", "subreaper"],
        Some(why) => {
            println!("skipped for control groups, which are not possible here: {why}");
            vec!["subreaper"]
        }
    }
}

impl Supervisor {
    /// With classes `a` and `b`, and one way of finding what processes leave behind. `more` goes into `[class.a]`.
    pub fn in_mode(mode: &str, more: &str) -> Supervisor {
        let class = "exec = ['{bin}/test-worker']\n";
        Supervisor::with_config(&format!(
            "[supervisor]\nprocess_tree = '{mode}'\n[class.a]\n{class}{more}\n[class.b]\n{class}"
        ))
    }

    /// The control group of a life, as `2.1` for the first of number 2. What follows in its name stands for the worker's.
    pub fn group_of(&self, life: &str) -> PathBuf {
        let groups = fs::read_dir(self.cgroups()).unwrap().map(|entry| entry.unwrap().path());
        let is_its = |name: &str| name.strip_prefix(life).is_some_and(|rest| rest.starts_with('.'));
        let mut groups = groups.filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_its));
        groups.next().unwrap_or_else(|| panic!("no group of {life} in {}", self.cgroups().display()))
    }

    /// The directory of this supervisor's control groups.
    pub fn cgroups(&self) -> PathBuf {
        own_cgroup().join(format!("workhall-{}", self.pid()))
    }
}

/// Copies a program that is to be executed. By another process: here one that another test starts just then would have the
/// file open for writing until it executes its own program, and so long nobody can execute the copy (ETXTBSY).
pub fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status().unwrap();
    assert!(copied.success(), "cp {} {}", from.display(), to.display());
}

/// The control group in which the tests run.
pub fn own_cgroup() -> PathBuf {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).expect("cgroup v2 is there").to_string();
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).expect("it is mounted");
    let mount = mount.split(' ').nth(1).unwrap().to_string();
    PathBuf::from(mount + own.trim_end_matches('/'))
}

/// Waits for a condition where no supervisor is at hand.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits so long for a condition; returns whether it came.
pub fn until_or(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() >= patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The lines of a file that workers write to; none if it is not there. Whole lines only.
pub fn lines(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_string).collect()
}

/// Runs a command with this text on its stdin, and collects what it prints.
pub fn output_of(command: &mut Command, stdin: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().expect("it is piped");
    let output = std::thread::scope(|scope| {
        // One that ends without reading all of it is no error here: its status tells.
        scope.spawn(move || pipe.write_all(stdin).is_ok());
        child.wait_with_output().expect("the command ends")
    });
    Output::of(&output)
}

/// Runs a command and collects what it prints.
pub fn output(command: &mut Command) -> Output {
    Output::of(&command.output().expect("the command starts"))
}

/// A Python for workers of the tests: the system's own where there is one, which starts fastest.
pub fn python() -> &'static str {
    if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" }
}

/// Whether a process lives (a zombie does not).
pub fn lives(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| {
        !matches!(stat.rsplit_once(')').map(|(_, rest)| rest.trim_start().as_bytes()[0]), Some(b'Z' | b'X'))
    })
}

/// Whose child a process is; 0 if it is gone.
pub fn parent(pid: i32) -> i32 {
    let stat = stat(pid).unwrap_or_default();
    stat.rsplit_once(')').and_then(|(_, rest)| rest.split(' ').nth(2)?.parse().ok()).unwrap_or(0)
}

/// The name of a program need not be text.
fn stat(pid: i32) -> Option<String> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    Some(String::from_utf8_lossy(&stat).into_owned())
}

/// The name of the program that a process executes; empty if it is gone.
pub fn program(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_string()
}

/// Arguments of a call, from a tuple or an array.
pub fn payload(args: &impl Serialize) -> Payload<'static> {
    Payload::encode_list(args).unwrap()
}

/// The numbers of a range as lines, as workers of the tests write them.
pub fn numbers(range: Range<usize>) -> Vec<String> {
    range.map(|line| line.to_string()).collect()
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
