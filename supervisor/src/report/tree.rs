//! What the processes of a worker use, as the kernel tells it when somebody asks.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sys;

/// How many processes are looked at: a worker may have very many.
const PROCESSES_MAX: usize = 100;

/// The processes of one life.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TreeReport {
    /// Those that live, the worker's own first, then in the order of their numbers; at most the first hundred.
    pub processes: Vec<ProcessReport>,
    /// There are more.
    pub more: bool,
    /// Memory in bytes: of the control group with what it caches, where it is accounted there, else of these processes.
    pub memory_bytes: u64,
    /// Processor time, of those that have ended too where there is a control group, else of these processes.
    pub cpu_ms: u64,
    /// Processes and threads, where the control group counts them.
    pub tasks: Option<u64>,
}

/// A process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProcessReport {
    /// Its number.
    pub pid: i32,
    /// Whose child it is.
    pub parent: i32,
    /// The name of its program.
    pub program: String,
    /// How it is, in the letter of the kernel: `R` runs, `S` and `D` wait, `T` is stopped, `Z` has ended.
    pub state: char,
    /// Memory of its own, in bytes.
    pub memory_bytes: u64,
    /// Processor time.
    pub cpu_ms: u64,
}

impl TreeReport {
    /// Of the process with this number and all below it; by its control group, where it has one.
    pub fn new(pid: i32, group: Option<&Path>) -> TreeReport {
        let mut pids = match group {
            Some(group) => fs::read_to_string(group.join("cgroup.procs"))
                .map(|text| text.lines().filter_map(|line| line.parse().ok()).collect())
                .unwrap_or_default(),
            None => descendants(pid),
        };
        pids.sort_unstable_by_key(|other| (*other != pid, *other));
        let more = pids.len() > PROCESSES_MAX;
        let processes: Vec<_> = pids.into_iter().take(PROCESSES_MAX).filter_map(ProcessReport::new).collect();
        let number = |file: &str| fs::read_to_string(group?.join(file)).ok()?.trim().parse::<u64>().ok();
        let used_us = || {
            let text = fs::read_to_string(group?.join("cpu.stat")).ok()?;
            text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse::<u64>().ok())
        };
        let sum = |of: fn(&ProcessReport) -> u64| processes.iter().map(of).sum();
        TreeReport {
            memory_bytes: number("memory.current").unwrap_or_else(|| sum(|process| process.memory_bytes)),
            cpu_ms: used_us().map_or_else(|| sum(|process| process.cpu_ms), |us| us / 1000),
            tasks: number("pids.current"),
            processes,
            more,
        }
    }
}

impl ProcessReport {
    /// None if it has gone.
    fn new(pid: i32) -> Option<ProcessReport> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything, spaces and brackets too.
        let (before, after) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        Some(ProcessReport {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            program: before.split_once('(').map(|(_, name)| name.to_string()).unwrap_or_default(),
            state: fields.first()?.chars().next()?,
            memory_bytes: resident.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10,
            cpu_ms: (ticks(11) + ticks(12)) * 1000 / sys::ticks_per_second().max(1),
        })
    }
}

/// A process and all that are below it, as far as is looked.
fn descendants(pid: i32) -> Vec<i32> {
    let mut found = vec![pid];
    let mut at = 0;
    while at < found.len() && found.len() <= PROCESSES_MAX {
        // Each thread has its own children.
        let threads = fs::read_dir(format!("/proc/{}/task", found[at])).into_iter().flatten().flatten();
        for thread in threads.take(PROCESSES_MAX) {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
        }
        at += 1;
    }
    found
}
