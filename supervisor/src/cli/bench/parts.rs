//! The other processes of a measurement: this executable, as a worker or as a floor. They are no commands: whoever
//! reads the help does not see them, and the command line is not parsed for them, which a start would be charged for.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
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

/// What a script reads of what it is told.
#[derive(Deserialize)]
struct Told<'a> {
    #[serde(borrow)]
    task: Option<Task<'a>>,
    kill: Option<IgnoredAny>,
}

/// A task.
#[derive(Deserialize)]
struct Task<'a> {
    id: u64,
    method: &'a str,
    args: Vec<Value>,
}

/// What a script says.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Say {
    Ready { protocol: u32, window: u32 },
    Done { id: u64, result: Value },
    Failed { id: u64, error: String },
}

/// A worker as a script is one: JSON lines, one task at a time, no library.
fn lines() -> anyhow::Result<()> {
    let number = std::env::var("WORKHALL_FD").context("WORKHALL_FD")?.parse()?;
    let stream = sys::inherited_stream(number)?;
    let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
    let (mut line, mut said) = (String::new(), Vec::new());
    let mut say = |message: Say| {
        said.clear();
        serde_json::to_writer(&mut said, &message)?;
        said.push(b'\n');
        out.write_all(&said)
    };
    say(Say::Ready { protocol: 1, window: 1 })?;
    let mut count = Count::default();
    while input.read_line(&mut line)? > 0 {
        let told: Told<'_> = serde_json::from_str(&line)?;
        if told.kill.is_some() {
            break;
        }
        if let Some(Task { id, method, mut args }) = told.task {
            let done = match method {
                "take" | "echo" => {
                    let number = args[0].as_u64().unwrap_or_default();
                    count.take(number).map(|()| args[1].take())
                }
                "count" => Ok(count.count().into()),
                other => Err(format!("there is no method {other}")),
            };
            say(match done {
                Ok(result) => Say::Done { id, result },
                Err(error) => Say::Failed { id, error },
            })?;
        }
        line.clear();
    }
    Ok(())
}
