//! What the workers have written: `KIND NAME NUMBER GENERATION PROCESS SUPERVISOR MESSAGE`, a line each, appended by
//! the kernel in the order in which it happened. S is the start of a process (the last field is its start
//! time), B and E are the beginning and the end of a task, A is a message that it has posted, X is
//! a lock found taken, V is something that the supervisor did not understand.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use super::fates::Message;

/// What was read so far, and what follows from it.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    offset: u64,
    /// The process of each name that has started last.
    names: HashMap<String, Process>,
    /// Messages that were begun, and whether they have ended.
    begun: HashMap<Message, bool>,
    processes: Vec<Started>,
}

/// A process that has started.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    pub pid: i32,
    /// When, in ticks since the boot: tells it from a later process with the same id.
    pub started: u64,
    /// Whose it is.
    pub supervisor: i32,
}

#[derive(Clone, Debug)]
struct Process {
    pid: i32,
    supervisor: i32,
    life: (u64, u64),
    running: Option<u64>,
    /// The last message that any process of the name has begun, under this supervisor.
    last: u64,
}

/// A line that speaks of something outside the log.
pub enum Told {
    Posted(Message),
    Violation(String),
}

impl Log {
    pub fn new(path: PathBuf) -> Log {
        Log { path, offset: 0, names: HashMap::new(), begun: HashMap::new(), processes: Vec::new() }
    }

    /// Reads what was appended since.
    pub fn read(&mut self) -> Vec<Told> {
        let mut text = String::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.read_to_string(&mut text)
        });
        match read {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => return vec![Told::Violation(format!("the workers' log cannot be read: {error}"))],
            Ok(_) => {}
        }
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.offset += whole as u64;
        let mut told = Vec::new();
        for line in text[..whole].lines() {
            match self.line(line) {
                Ok(None) => {}
                Ok(Some(message)) => told.push(Told::Posted(message)),
                Err(what) => told.push(Told::Violation(format!("{what}: `{line}`"))),
            }
        }
        told
    }

    fn line(&mut self, line: &str) -> Result<Option<Message>, String> {
        // A name may have spaces: what is hostile calls names that nobody thought of.
        let (kind, rest) = line.split_once(' ').unwrap_or_default();
        let parts: Vec<&str> = rest.rsplitn(6, ' ').collect();
        let &[last, supervisor, pid, generation, number, name] = parts.as_slice() else {
            return Err("a worker has written what is no line".into());
        };
        let read = |text: &str| text.parse::<u64>().map_err(|_| "a worker has written what is no number".to_string());
        let life = (read(number)?, read(generation)?);
        let (pid, supervisor) = (read(pid)? as i32, read(supervisor)? as i32);
        match kind {
            "S" => {
                self.processes.push(Started { pid, started: read(last)?, supervisor });
                return self.started(name, Process { pid, supervisor, life, running: None, last: 0 }).map(|()| None);
            }
            "X" => return Err("two processes of one name: a lock was taken".into()),
            "V" => return Err("the supervisor did not understand a worker".into()),
            _ => {}
        }
        let id = read(last)?;
        let message = Message { supervisor, id };
        let process = self.names.get_mut(name).ok_or("a process has not said that it started")?;
        if (process.pid, process.supervisor, process.life) != (pid, supervisor, life) {
            return Err(format!("a process goes on although its successor has started, {process:?}"));
        }
        match kind {
            "A" => return Ok(Some(message)),
            "B" => {
                if process.running.is_some() {
                    return Err(format!("a task begins in the middle of another, {process:?}"));
                }
                if id <= process.last {
                    return Err(format!("a task is executed after later ones, {process:?}"));
                }
                process.running = Some(id);
                process.last = id;
                if self.begun.insert(message, false).is_some() {
                    return Err("a message is executed twice".into());
                }
            }
            "E" => {
                if process.running.take() != Some(id) {
                    return Err(format!("a task ends that was not begun, {process:?}"));
                }
                self.begun.insert(message, true);
            }
            _ => return Err("a worker has written what is no line".into()),
        }
        Ok(None)
    }

    fn started(&mut self, name: &str, mut process: Process) -> Result<(), String> {
        let mut result = Ok(());
        if let Some(before) = self.names.get(name).filter(|before| before.supervisor == process.supervisor) {
            if before.life >= process.life {
                result = Err(format!("a number or generation is not new, after {before:?}"));
            }
            process.last = before.last;
        }
        self.names.insert(name.to_string(), process);
        result
    }

    /// Whether a message was begun, and then whether it has ended.
    pub fn executed(&self, message: Message) -> Option<bool> {
        self.begun.get(&message).copied()
    }

    /// How many messages of a supervisor were begun, how many of them ended, and the highest id.
    pub fn totals(&self, supervisor: i32) -> (u64, u64, u64) {
        let of = self.begun.iter().filter(|(message, _)| message.supervisor == supervisor);
        of.fold((0, 0, 0), |(begun, ended, highest), (message, has_ended)| {
            (begun + 1, ended + u64::from(*has_ended), highest.max(message.id))
        })
    }

    /// All processes that have started.
    pub fn processes(&self) -> &[Started] {
        &self.processes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first violation in some lines.
    fn violation(lines: &[&str]) -> Option<String> {
        let mut log = Log::new(PathBuf::new());
        lines.iter().find_map(|line| log.line(line).err())
    }

    #[test]
    fn a_good_log_is_one() {
        let lines = [
            "S a 2 1 100 9 5",
            "B a 2 1 100 9 1",
            "A a 2 1 100 9 7",
            "E a 2 1 100 9 1",
            "B a 2 1 100 9 3",
            "S b 3 1 101 9 5",
            "B b 3 1 101 9 2",
            "S a 2 2 102 9 6",
            "B a 2 2 102 9 4",
            "E b 3 1 101 9 2",
            // Another supervisor begins to count again.
            "S a 2 1 103 10 8",
            "B a 2 1 103 10 1",
        ];
        assert_eq!(violation(&lines), None);
        let mut log = Log::new(PathBuf::new());
        for line in &lines {
            log.line(line).unwrap();
        }
        let executed = |supervisor, id| log.executed(Message { supervisor, id });
        assert_eq!([executed(9, 1), executed(9, 3), executed(9, 9)], [Some(true), Some(false), None]);
        assert_eq!((log.totals(9), log.totals(10)), ((4, 2, 4), (1, 0, 1)));
    }

    #[test]
    fn what_must_not_be_is_seen() {
        for (lines, what) in [
            (&["S a 2 1 100 9 5", "X a 2 1 101 9 0"][..], "two processes of one name"),
            (
                &["S a 2 1 100 9 5", "B a 2 1 100 9 1", "E a 2 1 100 9 1", "S a 2 2 101 9 6", "B a 2 2 101 9 1"],
                "later ones",
            ),
            (&["S a 2 1 100 9 5", "S b 3 1 101 9 5", "B a 2 1 100 9 1", "B b 3 1 101 9 1"], "twice"),
            (&["S a 2 1 100 9 5", "B a 2 1 100 9 2", "E a 2 1 100 9 2", "B a 2 1 100 9 1"], "after later ones"),
            (&["S a 2 1 100 9 5", "B a 2 1 100 9 1", "B a 2 1 100 9 2"], "in the middle of another"),
            (&["S a 2 1 100 9 5", "E a 2 1 100 9 1"], "was not begun"),
            (&["S a 2 1 100 9 5", "S a 2 2 101 9 6", "B a 2 1 100 9 1"], "its successor has started"),
            (&["S a 2 1 100 9 5", "S a 2 1 101 10 6", "E a 2 1 100 9 1"], "its successor has started"),
            (&["S a 2 2 100 9 5", "S a 2 1 101 9 6"], "not new"),
            (&["B a 2 1 100 9 1"], "has not said that it started"),
            (&["S a 2 1 100 9 5", "B a 2 1 100 9"], "no line"),
        ] {
            let found = violation(lines).unwrap_or_default();
            assert!(found.contains(what), "{lines:?}: `{found}`, not `{what}`");
        }
    }
}
