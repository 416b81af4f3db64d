//! The worker of the chaos run. Writes what it begins and ends to a log that all workers append to, one small
//! write a line, and holds two locks for its name: one for its own life, one for that of its whole tree.
//! Whoever finds one taken cries out in the log.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::unistd::{getpid, getppid};
use worker_host::{Context, MethodResult, Receipt, Worker};

struct Log {
    file: File,
    /// Name, number, generation, process and supervisor.
    who: String,
}

impl Log {
    fn note(&mut self, kind: char, message: u64) -> std::io::Result<()> {
        self.file.write_all(format!("{kind} {} {message}\n", self.who).as_bytes())
    }
}

struct State {
    log: Log,
    _locks: [Option<Flock<File>>; 2],
}

fn main() -> worker_host::Result {
    let mut options = std::env::args().skip(1);
    let mut worker = Worker::new(State::take()?);
    while let Some(option) = options.next() {
        match (option.as_str(), options.next()) {
            ("window", Some(tasks)) => worker = worker.window(tasks.parse().expect("a number of tasks")),
            // Blocked is as good as ignored, and is inherited by nobody who matters.
            ("sigterm", _) => SigSet::from(Signal::SIGTERM).thread_block().map_err(std::io::Error::from)?,
            (other, _) => panic!("no option `{other}`"),
        }
    }
    worker
        .method("work", |state, ctx, (micros,): (u64,)| {
            task(state, ctx, |_, _| {
                std::thread::sleep(Duration::from_micros(micros));
                Ok(())
            })
        })
        .method("fail", |state, ctx, (_,): (u64,)| task(state, ctx, |_, _| Err("as asked".into())))
        .method("crash", |state, ctx, (how,): (u64,)| task(state, ctx, |_, _| crash(how)))
        .method("big", |state, ctx, (bytes,): (usize,)| {
            task(state, ctx, |_, _| Ok(())).map(|id| (id, "x".repeat(bytes)))
        })
        // Calls another, and goes on.
        .method("pass", |state, ctx, (to, micros): (String, u64)| {
            task(state, ctx, |state, ctx| {
                if let Receipt::Accepted(accepted) = ctx.call(&*to, "work", (micros,))? {
                    state.log.note('A', accepted.message)?;
                }
                Ok(())
            })
        })
        .method("kill", |state, ctx, (whom,): (String,)| task(state, ctx, |_, ctx| Ok(ctx.kill(&*whom).map(drop)?)))
        .method("kill_self", |state, ctx, (_,): (u64,)| task(state, ctx, |_, ctx| Ok(ctx.kill_self().map(drop)?)))
        // Leaves a process behind: a child, or one in a session of its own that has lost its parent.
        .method("leave", |state, ctx, (how,): (u64,)| {
            task(state, ctx, |_, _| {
                let script = ["sleep 3", "setsid sleep 3 &", "trap '' TERM; sleep 3", "(setsid sh -c 'sleep 3' &) &"];
                let mut child = Command::new("sh");
                child.args(["-c", script[how as usize % script.len()]]);
                #[allow(clippy::zombie_processes, reason = "left behind on purpose")]
                child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
                Ok(())
            })
        })
        .run()
}

/// A task: its beginning and its end are in the log. Returns its own id.
fn task(
    state: &mut State,
    ctx: &mut Context<'_>,
    run: impl FnOnce(&mut State, &mut Context<'_>) -> MethodResult<()>,
) -> MethodResult<u64> {
    let id = ctx.message();
    state.log.note('B', id)?;
    let result = run(state, ctx);
    state.log.note('E', id)?;
    result.map(|()| id)
}

fn crash(how: u64) -> MethodResult<()> {
    match how % 5 {
        0 => std::process::exit(3),
        1 => std::process::abort(),
        2 => Ok(raise(Signal::SIGKILL)?),
        3 => std::process::exit(0),
        _ => panic!("as asked"),
    }
}

impl State {
    fn take() -> std::io::Result<State> {
        let variable = |key: &str| std::env::var(format!("WORKHALL_{key}")).map_err(std::io::Error::other);
        let socket = variable("SOCKET")?;
        let dir = Path::new(&socket).parent().expect("a socket is in a directory");
        let (name, number, generation) = (variable("WORKER")?, variable("NUMBER")?, variable("GENERATION")?);
        let who = format!("{name} {number} {generation} {} {}", getpid(), getppid());
        let file = File::options().create(true).append(true).open(dir.join("worker.log"))?;
        let mut log = Log { file, who };
        let mut locks = ["lock", "tree"].map(|kind| lock(&dir.join(format!("{kind}-{}", name.replace('/', "%")))));
        if let Some(tree) = &mut locks[1] {
            // The tree's lock goes with every child.
            fcntl(&**tree, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        if locks.iter().any(Option::is_none) {
            log.note('X', 0)?;
        }
        let stat = fs::read_to_string("/proc/self/stat")?;
        let started = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)?.parse().ok());
        log.note('S', started.expect("the kernel says when it was started"))?;
        Ok(State { log, _locks: locks })
    }
}

fn lock(path: &Path) -> Option<Flock<File>> {
    let file = File::options().create(true).append(true).open(path).ok()?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()
}
