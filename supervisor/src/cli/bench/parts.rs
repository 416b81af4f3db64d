//! The other processes of a measurement: this executable, as a worker or as a floor. They are no commands: whoever
//! reads the help does not see them, and the command line is not parsed for them, which a start would be charged for.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use worker_host::Worker;

use super::words::FIRST;
use super::{PART, floor};
use crate::diagnostics::say;
use crate::exit_code::ExitCode;
use crate::sys;

/// How often a task that is held looks whether it may end.
const HELD: Duration = Duration::from_millis(20);

/// Plays a part, if this process was started for one.
pub fn play_if_asked() -> Option<ExitCode> {
    let mut words = std::env::args().skip(1);
    if words.next()? != PART {
        return None;
    }
    let words: Vec<String> = words.collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Some(match play(&words) {
        Ok(()) => ExitCode::Done,
        Err(error) => {
            say(format_args!("{PART} {}: {error:#}", words.join(" ")));
            ExitCode::Failed
        }
    })
}

fn play(words: &[&str]) -> anyhow::Result<()> {
    match words {
        ["worker", window] => worker(window.parse()?),
        ["lines"] => lines(),
        ["answer"] => floor::answer(),
        ["byte"] => floor::first_byte(),
        ["forward", socket, clients, workers] => {
            floor::raise_descriptors()?;
            floor::run(Path::new(socket), clients.parse()?, *workers == "workers", None)
        }
        ["mailbox", socket, clients, ahead] => {
            floor::raise_descriptors()?;
            floor::run(Path::new(socket), clients.parse()?, true, Some(ahead.parse()?))
        }
        _ => bail!("there is no such part"),
    }
}

/// What a worker has executed since it was last asked.
#[derive(Default)]
struct Count {
    executed: u64,
    expected: Option<u64>,
}

impl Count {
    /// Numbers rise by one, and begin anew with each round.
    fn take(&mut self, number: u64) -> Result<(), String> {
        match self.expected {
            Some(expected) if number != expected && number != FIRST => {
                return Err(format!("{number} came instead of {expected}"));
            }
            _ => {}
        }
        self.executed += 1;
        self.expected = Some(number + 1);
        Ok(())
    }

    fn count(&mut self) -> u64 {
        std::mem::take(self).executed
    }
}

/// A worker on the library that is for everybody.
fn worker(window: u32) -> anyhow::Result<()> {
    Worker::new(Count::default())
        .window(window)
        .method("take", |count: &mut Count, _, (number, _text): (u64, IgnoredAny)| Ok(count.take(number)?))
        .method("echo", |count, _, (number, text): (u64, String)| {
            count.take(number)?;
            Ok(text)
        })
        .method("count", |count, _, ()| Ok(count.count()))
        .method("hold", |_, context, ()| {
            while !context.end_requested() {
                std::thread::sleep(HELD);
            }
            Ok(())
        })
        .method("die", |_, _, ()| {
            sys::kill_child(std::process::id() as i32);
            Ok(())
        })
        .run()?;
    Ok(())
}

/// What a script reads of a task.
#[derive(Deserialize)]
struct Task {
    id: u64,
    method: String,
    args: Value,
}

/// A worker as a script is one: JSON lines, one task at a time, no library.
fn lines() -> anyhow::Result<()> {
    let number = std::env::var("WORKHALL_FD").context("WORKHALL_FD")?.parse()?;
    let stream = sys::inherited_stream(number)?;
    let mut out = stream.try_clone()?;
    let mut say = |message: Value| out.write_all(format!("{message}\n").as_bytes());
    say(json!({ "ready": { "protocol": 1, "window": 1 } }))?;
    let mut count = Count::default();
    for line in BufReader::new(stream).lines() {
        let mut message: Value = serde_json::from_str(&line?)?;
        if message.get("kill").is_some() {
            break;
        }
        let Some(task) = message.get_mut("task") else { continue };
        let task: Task = serde_json::from_value(task.take())?;
        let done = match &*task.method {
            "take" | "echo" => count.take(task.args[0].as_u64().unwrap_or_default()).map(|()| task.args[1].clone()),
            "count" => Ok(count.count().into()),
            other => Err(format!("there is no method {other}")),
        };
        match done {
            Ok(result) => say(json!({ "done": { "id": task.id, "result": result } }))?,
            Err(error) => say(json!({ "failed": { "id": task.id, "error": error } }))?,
        }
    }
    Ok(())
}
