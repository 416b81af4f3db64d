//! A worker that was started as the supervisor starts one, and the conversation with it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};
use serde_json::{Value, json};
use tempfile::TempDir;
use workhall_protocol::MarkPage;
use workhall_protocol::messages::{Message as _, Reply, ToSupervisor};
use workhall_protocol::wire::{DecodeError, Decoder, Encoding, encode};

use super::referee::Referee;

/// The name that the suite gives its workers; one that is easily spoilt on the way.
pub const WORKER: &str = "conformance/é";
/// Their number and generation.
pub const NUMBER: u64 = 300;
pub const GENERATION: u64 = 2;

/// Says to a program, by its value, as whom it is to attach.
pub const ATTACH: &str = "CONFORMANCE_ATTACH";

/// So much of what a worker wrote on stdout and stderr is kept, in bytes.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// How long one read of the connection may take; between reads the pipes are emptied.
const TICK: Duration = Duration::from_millis(20);

/// How a worker is started.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How long an answer may take.
    pub patience: Duration,
}

/// One message of the worker, as its JSON: `kind` is the one key, `fields` its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// Which message.
    pub kind: String,
    /// Its fields.
    pub fields: Value,
}

impl Said {
    /// A field; null if it was left out.
    pub fn field(&self, name: &str) -> &Value {
        &self.fields[name]
    }
}

/// The kind of what was said in answer to rubbish and is none of the protocol's messages itself.
const NOT_UNDERSTOOD: &str = "(not understood)";

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this exit status.
    Code(i32),
    /// By this signal.
    Signal(Signal),
}

/// A started worker. It does not outlive this value.
pub struct Peer {
    pid: Pid,
    end: Option<End>,
    link: Option<UnixStream>,
    decoder: Decoder,
    at_end: bool,
    /// The page that it shares with us.
    pub page: MarkPage,
    pipes: Vec<File>,
    output: Vec<u8>,
    referee: Referee,
    next_id: u64,
    patience: Duration,
    parent: Option<Pid>,
    /// What was said, both ways, for people.
    pub transcript: Vec<String>,
    dir: TempDir,
    /// Where who attaches connects to.
    listener: Option<UnixListener>,
    link_inode: u64,
    _lock: Flock<File>,
}

/// In what a worker is started.
pub enum Under {
    /// This process is its parent.
    Us,
    /// Another process, which can be killed: `conformance --as-parent FILE PROGRAM ARGS…`.
    Another,
    /// This process, and nothing of what a supervisor hands over.
    Nobody,
    /// This process, which waits at its socket for it to take a name ([`Peer::connected`]).
    Attaching,
    /// The same, and nobody is at the socket.
    NobodyThere,
}

impl Peer {
    /// Starts the program. Nothing was heard of it yet.
    pub fn start(plan: &Plan, under: &Under) -> Result<Peer, String> {
        Peer::start_all(plan, under).map_err(|error| format!("`{}` cannot be started: {error}", plan.command[0]))
    }

    fn start_all(plan: &Plan, under: &Under) -> io::Result<Peer> {
        let dir = tempfile::Builder::new().prefix("conformance-").tempdir()?;
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(TICK))?;
        let (page, page_fd) = MarkPage::create()?;
        let lock = File::create(dir.path().join("name-lock"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
        // As the supervisor hands it over: out of the way of programs that look at the first few.
        let inherited = crate::sys::out_of_the_way(&lock)?;
        let (out, out_end) = pipe()?;
        let (err, err_end) = pipe()?;
        let pid_file = dir.path().join("pid");
        let mut command = match under {
            Under::Us | Under::Nobody | Under::Attaching | Under::NobodyThere => Command::new(&plan.command[0]),
            Under::Another => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("--as-parent").arg(&pid_file).arg(&plan.command[0]);
                command
            }
        };
        command.args(&plan.command[1..]).stdin(Stdio::null()).stdout(out_end).stderr(err_end).process_group(0);
        for name in ["FD", "WORKER", "NUMBER", "GENERATION", "SOCKET", "MARK_FD"] {
            command.env_remove(format!("WORKHALL_{name}"));
        }
        let socket = dir.path().join("socket");
        let attaches = matches!(under, Under::Attaching | Under::NobodyThere);
        let listener = matches!(under, Under::Attaching).then(|| UnixListener::bind(&socket)).transpose()?;
        command.env_remove(ATTACH);
        if attaches {
            command.env(ATTACH, WORKER).env("WORKHALL_SOCKET", &socket);
        } else if !matches!(under, Under::Nobody) {
            for fd in [theirs.as_fd(), page_fd.as_fd(), inherited.as_fd()] {
                fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            command
                .env("WORKHALL_FD", theirs.as_raw_fd().to_string())
                .env("WORKHALL_MARK_FD", page_fd.as_raw_fd().to_string())
                .env("WORKHALL_WORKER", WORKER)
                .env("WORKHALL_NUMBER", NUMBER.to_string())
                .env("WORKHALL_GENERATION", GENERATION.to_string())
                .env("WORKHALL_SOCKET", &socket);
        }
        let child = Pid::from_raw(command.spawn()?.id().cast_signed());
        let mut peer = Peer {
            pid: child,
            end: None,
            link: (!attaches).then_some(ours),
            decoder: Decoder::default(),
            at_end: false,
            page,
            pipes: vec![out, err],
            output: Vec::new(),
            referee: if attaches { Referee::of_attached() } else { Referee::default() },
            next_id: 0,
            patience: plan.patience,
            parent: matches!(under, Under::Another).then_some(child),
            transcript: Vec::new(),
            dir,
            listener,
            link_inode: nix::sys::stat::fstat(&theirs)?.st_ino,
            _lock: lock,
        };
        if peer.parent.is_some() {
            peer.pid = peer.wait_for_pid(&pid_file)?;
        }
        Ok(peer)
    }

    /// Waits until the program has connected, to attach.
    pub fn connected(&mut self) -> Result<(), String> {
        match self.attaches()? {
            true => Ok(()),
            false => Err(format!("it was to attach, and it ended without connecting: {:?}", self.end)),
        }
    }

    /// The same, of a program that may not offer it: then it ends by itself, and this is false. The error says that it did neither.
    pub fn attaches(&mut self) -> Result<bool, String> {
        let until = Instant::now() + self.patience;
        let listener = self.listener.take().expect("it was started to attach");
        listener.set_nonblocking(true).map_err(|error| format!("the socket: {error}"))?;
        loop {
            // Looked at first: it may connect and end between the two.
            let end = self.look();
            match listener.accept() {
                Ok((link, _)) => {
                    link.set_read_timeout(Some(TICK)).map_err(|error| format!("the connection: {error}"))?;
                    self.link = Some(link);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("the socket: {error}")),
            }
            match end {
                Some(End::Code(_)) => return Ok(false),
                Some(End::Signal(signal)) => {
                    return Err(format!("it was to attach, and {signal} has ended it before it connected"));
                }
                None => {}
            }
            if Instant::now() > until {
                let seconds = self.patience.as_secs_f64();
                return Err(format!("it was to attach, and it did not connect within {seconds} s, and did not end"));
            }
            self.empty_pipes();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn wait_for_pid(&self, file: &PathBuf) -> io::Result<Pid> {
        let until = Instant::now() + self.patience;
        loop {
            let text = fs::read_to_string(file).unwrap_or_default();
            if let Some(Ok(pid)) = text.strip_suffix('\n').map(str::parse) {
                return Ok(Pid::from_raw(pid));
            }
            if Instant::now() > until {
                return Err(io::Error::other("its parent did not start it"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// How long an answer may take.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// The number by which the system knows the worker's end of the connection.
    pub fn link_inode(&self) -> u64 {
        self.link_inode
    }

    /// Where the file with the lock on its name is.
    pub fn lock_file(&self) -> PathBuf {
        self.dir.path().join("name-lock")
    }

    /// Where the supervisor's socket is for it.
    pub fn socket_path(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// Which encoding it has chosen; none before its first byte.
    pub fn encoding(&self) -> Option<Encoding> {
        self.decoder.encoding()
    }

    /// The ids of the task begun last and of the last one finished; none if it keeps no marks.
    pub fn marks(&self) -> Option<(u64, u64)> {
        self.page.marks().map(|(begun, finished)| (begun.0, finished.0))
    }

    // ---- to the worker ----------------------------------------------------------------------

    /// A message as the bytes of its encoding.
    pub fn bytes(&self, message: &Value) -> Vec<u8> {
        let line = message.to_string();
        let reply =
            Reply::decode_json(line.as_bytes()).unwrap_or_else(|error| panic!("the suite says {line}: {error}"));
        let mut bytes = Vec::new();
        encode(&reply, self.encoding().unwrap_or(Encoding::Json), &mut bytes).expect("the suite's messages are small");
        bytes
    }

    /// Says one message. What the worker does not read any more is not an error: its end tells.
    pub fn say(&mut self, message: &Value) -> Result<(), String> {
        self.say_all(std::slice::from_ref(message))
    }

    /// Says several in one write.
    pub fn say_all(&mut self, messages: &[Value]) -> Result<(), String> {
        let mut bytes = Vec::new();
        for message in messages {
            self.expects(message);
            bytes.extend(self.bytes(message));
        }
        self.write(&bytes)
    }

    /// Notes a message that is going to be written by [`Peer::write`].
    pub fn expects(&mut self, message: &Value) {
        self.note("to the worker:  ", &message.to_string());
        if let Some(task) = message.get("task") {
            self.referee.handed_over(task);
        }
        if let Some(id) = message["cancelled"]["id"].as_u64() {
            self.referee.cancelled(id);
        }
    }

    /// Writes bytes, while its output is read: it may have much to say before it reads.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        let until = Instant::now() + self.patience;
        while !bytes.is_empty() {
            let Some(link) = &self.link else { return Ok(()) };
            match workhall_send_now(link, bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::EAGAIN) => {
                    self.read_some()?;
                    if Instant::now() > until {
                        return Err(format!("it does not read: {} bytes are unread", bytes.len()));
                    }
                }
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(()),
                Err(error) => return Err(format!("writing to the worker: {error}")),
            }
        }
        Ok(())
    }

    /// Notes something for people.
    pub fn note(&mut self, direction: &str, text: &str) {
        const SHOWN: usize = 300;
        let cut = text.chars().nth(SHOWN).is_some();
        let shown: String = text.chars().take(SHOWN).collect();
        self.transcript.push(format!("{direction}{shown}{}", if cut { " …" } else { "" }));
    }

    /// Closes our end: the supervisor is gone.
    pub fn hang_up(&mut self) {
        self.note("to the worker:  ", "(end of file)");
        // What it has said before can still be read from the decoder; the rest is lost, as it would be.
        self.link = None;
        self.at_end = true;
    }

    /// Says that we say no more, and goes on listening.
    pub fn half_close(&mut self) {
        self.note("to the worker:  ", "(end of file)");
        if let Some(link) = &self.link {
            // It may have closed its end before.
            let _ = link.shutdown(std::net::Shutdown::Write);
        }
    }

    /// Kills the process that has started it.
    pub fn kill_parent(&mut self) {
        self.note("to the worker:  ", "(its parent was killed)");
        if let Some(parent) = self.parent.take() {
            // Of the worker's siblings there are none; the group holds the worker too.
            let _ = kill(parent, Signal::SIGKILL);
            let _ = waitpid(parent, None);
        }
    }

    /// The next id of a task. There are gaps, as the ids of one worker have.
    pub fn next_id(&mut self) -> u64 {
        self.next_id += 1 + self.next_id % 3;
        self.next_id
    }

    /// A task for which somebody waits, from a client.
    pub fn task(&mut self, method: &str, args: Value) -> Value {
        json!({"task": {"id": self.next_id(), "method": method, "args": args, "from": null, "wait": true}})
    }

    /// A task for which nobody waits.
    pub fn unheard_task(&mut self, method: &str, args: Value) -> Value {
        json!({"task": {"id": self.next_id(), "method": method, "args": args, "from": null}})
    }

    /// The answer to a request that has a `ref`.
    pub fn answer(&mut self, request: &Said, body: Value) -> Result<(), String> {
        let reference = request.field("ref");
        if reference.is_null() {
            return Err(format!("`{}` came without a `ref`, so its answer cannot reach the method", request.kind));
        }
        let Value::Object(mut receipt) = body else { panic!("a receipt is an object") };
        receipt.insert("ref".into(), reference.clone());
        self.say(&json!({ "receipt": receipt }))
    }

    // ---- from the worker --------------------------------------------------------------------

    /// The next message; none when the worker has closed its end.
    pub fn hear(&mut self) -> Result<Option<Said>, String> {
        let until = Instant::now() + self.patience;
        loop {
            if let Some(said) = self.decoded()? {
                return Ok(Some(said));
            }
            if self.at_end {
                return Ok(None);
            }
            if Instant::now() > until {
                let begun = match self.decoder.buffered() {
                    0 => String::new(),
                    bytes => format!(" whole ({bytes} bytes have come, and not the end of a message)"),
                };
                return Err(format!("it said nothing{begun} for {} s, and did not end", self.patience.as_secs_f64()));
            }
            self.read_some()?;
        }
    }

    /// The next message after something hostile: what was settled is judged by the check, not by the referee.
    pub fn hear_unrefereed(&mut self) -> Result<Option<Said>, String> {
        self.referee.stand_aside();
        self.hear()
    }

    /// The next message, which must come.
    pub fn heard(&mut self, what: &str) -> Result<Said, String> {
        match self.hear() {
            Ok(Some(said)) => Ok(said),
            Ok(None) => {
                let how = self.ended_soon().map_or("it lives on".to_string(), |end| format!("it ended with {end:?}"));
                Err(format!("{what} was due, and it closed its connection instead: {how}"))
            }
            Err(error) => Err(format!("{what} was due: {error}")),
        }
    }

    /// The next message, which must be of this kind.
    pub fn heard_kind(&mut self, kind: &str) -> Result<Said, String> {
        let said = self.heard(&format!("`{kind}`"))?;
        if said.kind != kind {
            return Err(format!("`{kind}` was due, and it said `{}`: {}", said.kind, said.fields));
        }
        Ok(said)
    }

    fn decoded(&mut self) -> Result<Option<Said>, String> {
        let value = match self.decoder.next::<ToSupervisor>() {
            Ok(None) => return Ok(None),
            Ok(Some(request)) => serde_json::to_value(&request).map_err(|error| format!("it is no JSON: {error}")),
            Err(DecodeError::Message { reason, .. }) => Err(reason),
            Err(DecodeError::Stream(reason)) => return Err(format!("its stream is broken: {reason}")),
        };
        let said = match value {
            Ok(Value::Object(object)) => {
                let (kind, fields) = object.into_iter().next().expect("a message has a kind");
                Said { kind, fields }
            }
            Ok(_) => unreachable!("a message is an object"),
            Err(reason) if self.referee.stands_aside() => Said { kind: NOT_UNDERSTOOD.into(), fields: reason.into() },
            Err(reason) => return Err(format!("it said what the protocol does not know: {reason}")),
        };
        self.note("from the worker: ", &json!({ &said.kind: &said.fields }).to_string());
        self.referee.heard(&said, self.page.marks().map(|(begun, _)| begun.0))?;
        Ok(Some(said))
    }

    fn read_some(&mut self) -> Result<(), String> {
        self.empty_pipes();
        let Some(mut link) = self.link.as_ref() else { return Ok(()) };
        match self.decoder.fill(64 << 10, |room| link.read(room)) {
            Ok(0) => self.at_end = true,
            Ok(_) => {}
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => {}
                io::ErrorKind::ConnectionReset => self.at_end = true,
                _ => return Err(format!("reading from the worker: {error}")),
            },
        }
        Ok(())
    }

    fn empty_pipes(&mut self) {
        let mut room = [0; 4096];
        for pipe in &mut self.pipes {
            while let Ok(count @ 1..) = pipe.read(&mut room) {
                let keep = count.min(OUTPUT_BYTES_MAX.saturating_sub(self.output.len()));
                self.output.extend_from_slice(&room[..keep]);
            }
        }
    }

    /// What it wrote on stdout and stderr.
    pub fn output(&mut self) -> String {
        self.empty_pipes();
        String::from_utf8_lossy(&self.output).trim_end().to_string()
    }

    // ---- its end ----------------------------------------------------------------------------

    fn look(&mut self) -> Option<End> {
        if self.end.is_none() {
            self.end = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => Some(End::Code(code)),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(End::Signal(signal)),
                _ => None,
            };
        }
        self.end
    }

    fn ended_soon(&mut self) -> Option<End> {
        let until = Instant::now() + self.patience;
        while self.look().is_none() && Instant::now() < until {
            // Its last words must not hold it up.
            if self.read_some().is_err() || self.at_end {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.end
    }

    /// Waits until it has ended, and returns all that it said until then.
    pub fn ended(&mut self) -> Result<(End, Vec<Said>), String> {
        let end = self.ended_soon();
        while end.is_some() && !self.at_end && self.link.is_some() {
            self.read_some()?;
        }
        let mut last = Vec::new();
        while let Some(said) = self.decoded()? {
            last.push(said);
        }
        match (end, last.as_slice()) {
            (Some(end), _) => Ok((end, last)),
            (None, []) => Err(format!("it did not end within {} s", self.patience.as_secs_f64())),
            (None, _) => {
                Err(format!("it did not end within {} s, and said {}", self.patience.as_secs_f64(), all(&last)))
            }
        }
    }

    /// It must end with status 0, and say nothing more.
    pub fn ends_well(&mut self) -> Result<(), String> {
        match self.ended()? {
            (End::Code(0), last) if last.is_empty() => Ok(()),
            (End::Code(0), last) => Err(format!("it said more before it ended: {}", all(&last))),
            (end, _) => Err(format!("its exit status must be 0, and it ended with {end:?}")),
        }
    }
}

/// Messages, for people.
pub fn all(said: &[Said]) -> String {
    said.iter().map(|said| json!({ &said.kind: &said.fields }).to_string()).collect::<Vec<_>>().join(", ")
}

fn workhall_send_now(link: &UnixStream, bytes: &[u8]) -> Result<usize, Errno> {
    use nix::sys::socket::{MsgFlags, send};
    send(link.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)
}

/// A pipe as the supervisor makes it: its writer has it open for reading too. Our end never waits.
fn pipe() -> io::Result<(File, Stdio)> {
    let (read, _write): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let path = format!("/proc/self/fd/{}", read.as_raw_fd());
    let end = OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_CLOEXEC.bits()).open(path)?;
    Ok((File::from(read), Stdio::from(end)))
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(parent) = self.parent.take() {
            let _ = kill(parent, Signal::SIGKILL);
            let _ = waitpid(parent, None);
        }
        if self.look().is_none() {
            // Its group is its own, unless its parent was another: then the group is that one's, and holds both.
            let _ = killpg(self.pid, Signal::SIGKILL);
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}

/// The body of `conformance --as-parent FILE PROGRAM ARGS…`: starts the program with all that was inherited, writes its
/// process id into the file, and waits to be killed.
pub fn as_parent(mut args: impl Iterator<Item = String>) -> io::Result<()> {
    let (Some(file), Some(program)) = (args.next(), args.next()) else {
        return Err(io::Error::other("--as-parent needs a file and a program"));
    };
    let child = Command::new(program).args(args).spawn()?;
    let mut out = File::create(file)?;
    out.write_all(format!("{}\n", child.id()).as_bytes())?;
    loop {
        std::thread::park();
    }
}
