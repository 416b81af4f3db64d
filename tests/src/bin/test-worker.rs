//! The worker of the tests. It holds an exclusive lock on a file of its own name for its life and cries
//! out if it finds it taken: so an overlap of two processes of one name cannot go unseen.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::FromRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{self as os, SigHandler, raise, signal};
use nix::sys::socket::{Shutdown, shutdown};
use serde_json::Value;
use worker_host::{Call, Context, MethodResult, Run, Signal, SignalError, Worker};

#[derive(Default)]
struct State {
    count: i64,
    errors: Vec<String>,
    /// To be triggered by a later task.
    kept: Option<Signal>,
}

fn main() -> worker_host::Result {
    let _lock = take_lock();
    if std::env::args().nth(1).is_some_and(|arg| arg == "garbage") {
        say_garbage();
    }
    // It was started by somebody else, and takes a name.
    let name = std::env::args().nth(2).filter(|_| std::env::args().nth(1).is_some_and(|arg| arg == "attach"));
    let window = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(worker_host::WINDOW_DEFAULT);
    let worker = Worker::new(State::default())
        .window(window)
        .method("echo", |_, _, args: Vec<Value>| Ok(args))
        .method("count", |state, _, ()| {
            state.count += 1;
            Ok(state.count)
        })
        // Counts like `count`, and fails unless it is told the number: the order, seen from inside.
        .method("in_order", |state, _, (number,): (i64,)| {
            if number != state.count {
                return Err(format!("{number} came when {} was due", state.count).into());
            }
            state.count += 1;
            Ok(())
        })
        .method("pid", |_, _, ()| Ok(std::process::id()))
        .method("who", |_, ctx, ()| Ok((ctx.worker().to_string(), ctx.number(), ctx.generation())))
        .method("sender", |_, ctx, ()| Ok(ctx.sender().map(|sender| (sender.worker.to_string(), sender.number))))
        .method("sender_to", |_, ctx, (file,): (PathBuf,)| {
            let sender = ctx.sender().map_or("nobody".to_string(), |from| format!("{} %{}", from.worker, from.number));
            Ok(append(&file, &sender)?)
        })
        // Appends a line: the order and number of executions, seen from outside.
        .method("log", |_, _, (file, line): (PathBuf, String)| Ok(append(&file, &line)?))
        .method("sleep", |_, _, (ms,): (u64,)| {
            std::thread::sleep(Duration::from_millis(ms));
            Ok(())
        })
        // Says that it has begun, then waits until it is let go.
        .method("block", |_, _, (begun, go): (PathBuf, PathBuf)| {
            append(&begun, "begun")?;
            while !go.exists() {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(append(&begun, "ended")?)
        })
        .method("until_asked", |_, ctx, (begun,): (PathBuf,)| {
            append(&begun, "begun")?;
            while !ctx.end_requested() {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok("asked")
        })
        .method("fail", |_, _, (text,): (String,)| -> MethodResult<()> { Err(text.into()) })
        .method("errors", |state, _, ()| Ok(state.errors.clone()))
        .method("panic", |_, _, ()| -> MethodResult<()> { panic!("as asked") })
        .method("exit", |_, _, (code,): (i32,)| -> MethodResult<()> { std::process::exit(code) })
        .method("die", |_, _, ()| Ok(raise(os::Signal::SIGKILL)?))
        // Writes a line at each attempt, and dies at the first so many.
        .method("die_times", |_, _, (file, line, times): (PathBuf, String, usize)| {
            append(&file, &line)?;
            if fs::read_to_string(&file)?.lines().filter(|other| **other == line).count() <= times {
                raise(os::Signal::SIGKILL)?;
            }
            Ok(())
        })
        // Dies unless the file `go` is there; then it writes a line.
        .method("die_unless", |_, _, (go, file, line): (PathBuf, PathBuf, String)| {
            if !go.exists() {
                raise(os::Signal::SIGKILL)?;
            }
            Ok(append(&file, &line)?)
        })
        // Calls another in so many milliseconds.
        .method("call_in", |_, ctx, (ms, worker, method, args): (u64, String, String, Vec<Value>)| {
            let conditions = Call { after: Some(Duration::from_millis(ms)), ..Call::default() };
            receipt(ctx.call_with(worker.as_str(), &method, args, conditions)?)
        })
        // Calls another, and returns the receipt.
        .method("call", |_, ctx, (worker, method, args): (String, String, Vec<Value>)| {
            receipt(ctx.call(worker.as_str(), &method, args)?)
        })
        .method("call_number", |_, ctx, (number, method): (u64, String)| receipt(ctx.call(number, &method, ())?))
        .method("reply", |_, ctx, (method, args): (String, Vec<Value>)| receipt(ctx.reply(&method, args)?))
        .method("kill", |_, ctx, (worker,): (String,)| receipt(ctx.kill(worker.as_str())?))
        // Kills itself, then goes on: writes a line, and calls itself.
        .method("suicide", |_, ctx, (file,): (PathBuf,)| {
            ctx.kill_self()?;
            let own = ctx.worker().to_string();
            let ignored = receipt(ctx.call(own.as_str(), "count", ())?)?;
            append(&file, "still here")?;
            Ok(ignored)
        })
        // From here on SIGTERM does nothing.
        .method("ignore_term", |_, _, ()| {
            // SAFETY: SIG_IGN runs no handler.
            #[allow(unsafe_code)]
            unsafe {
                signal(os::Signal::SIGTERM, SigHandler::SigIgn)?;
            }
            Ok(())
        })
        .method("stop", |_, _, ()| Ok(raise(os::Signal::SIGSTOP)?))
        // Ends the connection to the supervisor: from here on it is as if that had gone.
        .method("hang_up", |_, _, ()| Ok(shutdown(std::env::var("WORKHALL_FD")?.parse()?, Shutdown::Both)?))
        // Leaves a process behind that has left the group and the session; returns its id.
        .method("orphan", |_, _, (file,): (PathBuf,)| {
            let script = format!(
                "setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000' >/dev/null 2>&1 &",
                file.display()
            );
            Command::new("sh").args(["-c", &script]).status()?;
            while !file.exists() {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(fs::read_to_string(&file)?.trim().parse::<i32>()?)
        })
        // Starts a child and does not wait for its end; the child says in `$FILE` whose ids are to be returned.
        .method("leave", |_, _, (script, file): (String, PathBuf)| {
            let mut child = Command::new("sh");
            child.args(["-c", &script]).env("FILE", &file).stdin(Stdio::null()).stdout(Stdio::null());
            #[allow(clippy::zombie_processes, reason = "left behind on purpose")]
            child.spawn()?;
            while !file.exists() {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(fs::read_to_string(&file)?.split_whitespace().map(str::parse).collect::<Result<Vec<i32>, _>>()?)
        })
        // Which of these processes live.
        .method("living", |_, _, (pids,): (Vec<i32>,)| {
            Ok(pids.into_iter().filter(|pid| workhall_tests::harness::lives(*pid)).collect::<Vec<_>>())
        })
        // Runs a program: its exit status, and what it has written on stdout and stderr.
        .method("program", |_, _, args: Vec<String>| {
            let output = Command::new(&args[0]).args(&args[1..]).stdin(Stdio::null()).output()?;
            let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
            Ok((output.status.code(), out, err))
        })
        // Says that it has begun, waits until it is let go, then calls its own name; the receipt is noted.
        .method("block_then_call_self", |_, ctx, (begun, go): (PathBuf, PathBuf)| {
            append(&begun, "begun")?;
            while !go.exists() {
                std::thread::sleep(Duration::from_millis(2));
            }
            let own = ctx.worker().to_string();
            let by_name = receipt(ctx.call(own.as_str(), "count", ())?)?;
            let number = ctx.number();
            let by_number = receipt(ctx.call(number, "count", ())?)?;
            Ok(append(&begun, &format!("{by_name}; {by_number}"))?)
        })
        .method("descriptors", |_, _, ()| {
            let links = fs::read_dir("/proc/self/fd")?.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
            Ok(links.map(|link| link.display().to_string()).collect::<Vec<_>>())
        })
        // A file of /proc, whose size is not known before, or any other.
        .method("read", |_, _, (file,): (PathBuf,)| Ok(String::from_utf8_lossy(&fs::read(file)?).into_owned()))
        // Signals.
        .method("trigger", |_, ctx, (signal, value): (Signal, Value)| {
            signal.set(ctx, "value", &value)?;
            signal.set(ctx, "by", ctx.worker().to_string().as_str())?;
            Ok(signal.trigger(ctx)?)
        })
        .method("keep", |state, _, (signal,): (Signal,)| {
            state.kept = Some(signal);
            Ok(())
        })
        .method("trigger_kept", |state, ctx, ()| Ok(state.kept.ok_or("none is kept")?.trigger(ctx)?))
        .method("fail_with", |_, _, (_signal, text): (Signal, String)| -> MethodResult<()> { Err(text.into()) })
        .method("die_with", |_, _, (_signal,): (Signal,)| Ok(raise(os::Signal::SIGKILL)?))
        // Waits so many seconds: whether it was triggered, and its value then.
        .method("wait_for", |_, ctx, (signal, seconds): (Signal, f64)| {
            let triggered = match signal.wait(ctx, Some(Duration::from_secs_f64(seconds))) {
                Err(SignalError::Ended(outcome)) => return Ok((false, serde_json::to_value(outcome)?)),
                other => other?,
            };
            let known = signal.signaled(ctx)?;
            assert_eq!(known, triggered);
            Ok((triggered, signal.get(ctx, "value")?.unwrap_or_default()))
        })
        // Sends a signal with what it is to do to another, and waits for it.
        .method("have_triggered", |_, ctx, (worker, method, more): (String, String, Vec<Value>)| {
            let made = ctx.signal("for another")?;
            let mut args = vec![serde_json::to_value(made)?];
            args.extend(more);
            ctx.call(worker.as_str(), &method, args)?;
            match made.wait(ctx, Some(Duration::from_millis(if worker == ctx.worker() { 200 } else { 60_000 }))) {
                Err(SignalError::Ended(outcome)) => Ok(serde_json::to_value(outcome)?),
                triggered => Ok(triggered?.into()),
            }
        })
        // Says that it has begun, and goes on until it is not wanted any more.
        .method("until_cancelled", |_, ctx, (begun,): (PathBuf,)| {
            append(&begun, "begun")?;
            while !ctx.cancelled()? {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok("cancelled")
        })
        .method("is_cancelled", |_, ctx, ()| Ok(ctx.cancelled()?))
        .method("zeros", |_, _, (count,): (usize,)| Ok(vec![0_u8; count]))
        .method("big", |_, _, (bytes,): (usize,)| Ok("x".repeat(bytes)))
        // What the library says of a process, in the words of people.
        .method("process", |_, ctx, (worker,): (String,)| {
            Ok(ctx
                .process(worker.as_str())?
                .map(|it| (it.name.clone(), it.kind.clone(), it.process_type(), it.process_state()))
                .map(|it| format!("{it:?}")))
        })
        .method("pause", |_, ctx, (worker,): (String,)| receipt(ctx.pause(worker.as_str())?))
        .method("resume", |_, ctx, (worker,): (String,)| receipt(ctx.resume(worker.as_str())?))
        .method("run", |_, ctx, (class, method, args, name): (String, String, Vec<Value>, String)| {
            receipt(ctx.run(&class, &method, args, Run { name: Some(&name), unique: false })?)
        })
        .method("give_back", |_, ctx, (drain,): (bool,)| Ok(ctx.leave(drain)?))
        .on_error(|state, ctx: &mut Context<'_>, error| state.errors.push(format!("{}: {error}", ctx.method())));
    match name {
        Some(name) => worker.attach(&name),
        None => worker.run(),
    }
}

/// Says to the supervisor what is no protocol, and lives on.
fn say_garbage() -> ! {
    let number = std::env::var("WORKHALL_FD").expect("a supervisor has started it").parse().expect("a number");
    // SAFETY: the supervisor has opened it for this process, and nobody else here uses it.
    #[allow(unsafe_code)]
    let mut connection = unsafe { File::from_raw_fd(number) };
    connection.write_all(b"hello\n").expect("the supervisor reads");
    loop {
        std::thread::park();
    }
}

/// Taken before anything else, released by the kernel.
fn take_lock() -> Option<Flock<File>> {
    let socket = std::env::var("WORKHALL_SOCKET").ok()?;
    let name = std::env::var("WORKHALL_WORKER").ok()?.replace('/', "%");
    let dir = Path::new(&socket).parent()?;
    let file = File::create(dir.join(format!("lock-{name}"))).ok()?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Some(lock),
        Err(_) => {
            append(&dir.join("OVERLAP"), &name).expect("the directory is there");
            eprintln!("OVERLAP: another process of `{name}` lives");
            None
        }
    }
}

fn append(file: &Path, line: &str) -> std::io::Result<()> {
    let mut file = File::options().create(true).append(true).open(file)?;
    file.write_all(format!("{line}\n").as_bytes())
}

/// A receipt as text that tests compare.
fn receipt(receipt: worker_host::Receipt<'static>) -> MethodResult<String> {
    use worker_host::Receipt;
    Ok(match receipt {
        Receipt::Accepted(accepted) => format!("accepted by {}", accepted.worker),
        Receipt::Ignored { reason } => format!("ignored: {reason:?}"),
        Receipt::Refused { reason, .. } => format!("refused: {reason:?}"),
        Receipt::Killed { discarded } => format!("killed, {discarded} discarded"),
        other => format!("{other:?}"),
    })
}
