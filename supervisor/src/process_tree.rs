//! What a worker's process leaves behind when it ends (rule K8): its orphans, which the kernel gives to
//! the supervisor because it is a subreaper. Where there are control groups these end most of them first.
//!
//! An orphan belongs to a life if it is in the process group or session of that life's leader, if its environment names
//! the supervisor's socket, that worker and generation, if it was seen below such a process, if it is in the group or
//! session of one, or if it holds the lock of the worker's name. Only children of ours are killed, so no number can
//! meanwhile be another's; their own children become ours by that, and the sweep goes on until a whole pass finds none.
//!
//! The limit: a descendant that made a session of its own, cleared its environment, closed the descriptor of the
//! lock, and was orphaned before a sweep could see it below its parent is not recognised.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use workhall_core::ProcessKey;

use crate::name_lock::{Look, Place};
use crate::sys::{self, FileId};

/// How often an empty environment is read again at once: for about as long as a program takes to begin.
const ENVIRON_READS_MAX: usize = 200;

/// How much of an environment one read takes, in bytes.
const ENVIRON_BYTES: usize = 256 << 10;

/// How much is read of a longer one: the kernel executes no program with more, but a process may say of any of its
/// memory that it is its environment.
const ENVIRON_BYTES_MAX: u64 = 6 << 20;

/// How much is read of all the longer ones, in one census: whoever has many of them holds up nobody by it.
const LONG_ENVIRONS_BYTES_MAX: u64 = 32 << 20;

/// Of the entries that say whose a process is, so many are looked at, and none that is longer: the longest names a socket.
const MARKS_MAX: usize = 16;
const MARK_BYTES_MAX: usize = 256;

/// How often all children are gone through in one turn as long as some of them have ended: each may have left children
/// of its own, and somebody may do nothing else than end and leave them.
const REAPING_ROUNDS_MAX: usize = 16;

/// Orphans without an environment that stayed so, with their start times: they keep no gate shut.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Foreign(HashSet<(i32, u64)>);

/// All adopted children at one moment. Each is looked at once, however many sweeps ask whose it is.
#[derive(Debug)]
pub struct Census {
    orphans: Vec<Orphan>,
    /// Nothing was left out.
    complete: bool,
}

#[derive(Debug)]
struct Orphan {
    pid: i32,
    stat: Stat,
    environ: Marks,
    /// The files of names that it has open, once somebody has asked.
    open: Option<Vec<FileId>>,
}

/// What an environment says of whose a process is.
#[derive(Debug)]
enum Marks {
    /// The entries that may say it.
    These(Vec<Box<[u8]>>),
    /// There is none: the process begins to execute a program, or has cleared it.
    Unknown,
    /// There was no descriptor or no memory to look at it.
    Unread,
}

/// Whose an orphan is.
enum Owner {
    /// This life's.
    This,
    /// Another's, or nobody's.
    Other,
    /// It has no environment.
    Unknown,
    /// It could not be looked at.
    Unread,
}

/// The sweep of one life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sweep {
    leader: i32,
    /// The environment entries that the whole tree inherits.
    marks: [Vec<u8>; 3],
    /// The lock that the whole tree inherits.
    place: Option<Place>,
    /// Known to belong, with their start times: numbers are used again.
    doomed: HashMap<i32, u64>,
    /// Had no environment at an earlier, repeated pass.
    unknown: HashSet<(i32, u64)>,
}

impl Census {
    /// Reaps those that have ended, and looks at the others. `is_leader` knows the processes of living workers.
    pub fn take(is_leader: impl Fn(i32) -> bool, foreign: &mut Foreign) -> Census {
        let mut long_environs = LONG_ENVIRONS_BYTES_MAX;
        for _ in 0..REAPING_ROUNDS_MAX {
            // What cannot be looked at may be something that is left.
            let Ok(children) = own_children() else { break };
            let (mut orphans, mut complete, mut reaped) = (Vec::new(), true, false);
            for pid in children.iter().copied().filter(|pid| !is_leader(*pid)) {
                if sys::reap_adopted(pid) {
                    reaped = true;
                    continue;
                }
                // Once one was reaped all are gone through again.
                let Some(stat) = Stat::read(pid).filter(|_| !reaped) else {
                    complete = false;
                    continue;
                };
                let environ = read_marks(pid, &mut long_environs);
                match environ {
                    Marks::Unknown if sys::reap_adopted(pid) => reaped = true,
                    environ => orphans.push(Orphan { pid, stat, environ, open: None }),
                }
            }
            // What a reaped one left behind is ours since before it could be reaped: look again.
            if !reaped {
                foreign.keep(&children);
                return Census { orphans, complete };
            }
        }
        Census { orphans: Vec::new(), complete: false }
    }

    /// Whether nothing was left out.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether there is surely none.
    pub fn found_nobody(&self) -> bool {
        self.complete && self.orphans.is_empty()
    }
}

impl Foreign {
    /// Forgets those that are gone.
    fn keep(&mut self, children: &[i32]) {
        if !self.0.is_empty() {
            let children: HashSet<i32> = children.iter().copied().collect();
            self.0.retain(|(pid, _)| children.contains(pid));
        }
    }
}

impl Orphan {
    /// Whether it has a file open.
    fn has_open(&mut self, file: FileId, look: &mut Look) -> bool {
        self.open.get_or_insert_with(|| look.opened_by(self.pid)).contains(&file)
    }
}

impl Sweep {
    /// For the life that `leader` led. The leader is reaped already.
    pub fn new(leader: i32, process: ProcessKey, socket: &Path, place: Option<Place>) -> Sweep {
        let marks = [
            // A supervisor may run as another's worker: then the numbers alone would be ambiguous.
            [b"WORKHALL_SOCKET=", socket.as_os_str().as_bytes()].concat(),
            format!("WORKHALL_NUMBER={}", process.number.0).into_bytes(),
            format!("WORKHALL_GENERATION={}", process.generation).into_bytes(),
        ];
        Sweep { leader, marks, place, doomed: HashMap::new(), unknown: HashSet::new() }
    }

    /// The lock that the whole tree inherits.
    pub fn place(&self) -> Option<Place> {
        self.place
    }

    /// Kills what is left. Returns whether nothing was. `foreign` remembers, over all sweeps, those that could not be told
    /// and were let be. `repeated`: some time has passed since the pass before. `lock` is the file whose lock
    /// somebody holds; none if nobody does.
    pub fn pass(
        &mut self,
        census: &mut Census,
        foreign: &mut Foreign,
        repeated: bool,
        mut lock: Option<(FileId, &mut Look)>,
    ) -> bool {
        let mut left = 0;
        for orphan in &mut census.orphans {
            let mut owner = self.owner_by_marks(orphan);
            if let (Owner::Other | Owner::Unknown, Some((file, look))) = (&owner, &mut lock)
                && orphan.has_open(*file, look)
            {
                owner = Owner::This;
            }
            let known_as = (orphan.pid, orphan.stat.started);
            match owner {
                Owner::This => {
                    self.doom(orphan.pid, orphan.stat.started);
                    sys::kill_child(orphan.pid);
                    left += 1;
                }
                Owner::Other => {}
                Owner::Unread => left += 1,
                Owner::Unknown => {
                    let known = foreign.0.contains(&known_as);
                    let seen_before = repeated && !self.unknown.insert(known_as);
                    if !known && seen_before {
                        foreign.0.insert(known_as);
                    }
                    left += u32::from(!known && !seen_before);
                }
            }
        }
        census.complete && left == 0
    }

    fn owner_by_marks(&self, orphan: &Orphan) -> Owner {
        let stat = &orphan.stat;
        if stat.group == self.leader
            || stat.session == self.leader
            || self.doomed.get(&orphan.pid) == Some(&stat.started)
            || self.led_by_doomed(stat.group)
            || self.led_by_doomed(stat.session)
        {
            return Owner::This;
        }
        match &orphan.environ {
            Marks::Unknown => Owner::Unknown,
            Marks::Unread => Owner::Unread,
            Marks::These(entries) => {
                let has = |mark: &Vec<u8>| entries.iter().any(|entry| **entry == **mark);
                if self.marks.iter().all(has) { Owner::This } else { Owner::Other }
            }
        }
    }

    /// Whether the leader of this group or session is known to belong. As long as a group or session has a
    /// member its number is given to no other process, so a leader that is gone has not been replaced.
    fn led_by_doomed(&self, leader: i32) -> bool {
        self.doomed.get(&leader).is_some_and(|started| Stat::read(leader).is_none_or(|stat| stat.started == *started))
    }

    /// Remembers it and all below it, which will be orphaned by its death.
    fn doom(&mut self, pid: i32, started: u64) {
        let mut stack = vec![(pid, started)];
        while let Some((pid, started)) = stack.pop() {
            if self.doomed.insert(pid, started) != Some(started) {
                let below = children(pid).unwrap_or_default().into_iter();
                stack.extend(below.filter_map(|child| Stat::read(child).map(|stat| (child, stat.started))));
            }
        }
    }
}

/// Children that the supervisor had before it was one, by whoever executed it: with their start times.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Inherited(HashSet<(i32, u64)>);

impl Inherited {
    /// Those that are there now.
    pub fn now() -> io::Result<Inherited> {
        let children = own_children()?.into_iter();
        Ok(Inherited(children.filter_map(|pid| Some((pid, Stat::read(pid)?.started))).collect()))
    }
}

/// Kills and reaps all other children, whosever they were, for the end of the supervisor. Returns how many are left to
/// be reaped; what these leave behind are children then.
pub fn kill_all_but(inherited: &Inherited) -> io::Result<usize> {
    let mut left = 0;
    for pid in own_children()? {
        let spared = Stat::read(pid).is_some_and(|stat| inherited.0.contains(&(pid, stat.started)));
        if !spared && !sys::reap_adopted(pid) {
            sys::kill_child(pid);
            left += 1;
        }
    }
    Ok(left)
}

/// Whether a process is stopped by a signal.
pub fn is_stopped(pid: i32) -> bool {
    Stat::read(pid).is_some_and(|stat| stat.stopped)
}

/// Whether the kernel tells who the children of a process are.
pub fn check_kernel() -> io::Result<()> {
    let pid = std::process::id();
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).map(drop)
}

/// What the environment of a process says. `long` is how much may still be read of long ones.
fn read_marks(pid: i32, long: &mut u64) -> Marks {
    let none = || Marks::These(Vec::new());
    // While a process begins to execute another program it has no environment for an instant.
    for _ in 0..ENVIRON_READS_MAX {
        match read_environ(pid, long) {
            Ok(environ) if environ.is_empty() => {
                if Stat::read(pid).is_some_and(|now| now.environ == Environ::Empty) {
                    return none();
                }
            }
            Ok(environ) => {
                let entries = environ
                    .split(|byte| *byte == 0)
                    .filter(|entry| entry.starts_with(b"WORKHALL_") && entry.len() <= MARK_BYTES_MAX);
                return Marks::These(entries.take(MARKS_MAX).map(Box::from).collect());
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return none(),
            Err(error) if sys::shortage(&error).is_some() => return Marks::Unread,
            Err(_) => return Marks::Unknown,
        }
    }
    Marks::Unknown
}

/// The environment of a process, in one read where it is not long: one that begins to execute another program
/// between two reads would show a part, which looks like another's environment.
fn read_environ(pid: i32, long: &mut u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(format!("/proc/{pid}/environ"))?;
    let mut environ = vec![0; ENVIRON_BYTES];
    let count = file.read(&mut environ)?;
    environ.truncate(count);
    if count == ENVIRON_BYTES {
        *long -= file.take((*long).min(ENVIRON_BYTES_MAX)).read_to_end(&mut environ)? as u64;
    }
    Ok(environ)
}

fn own_children() -> io::Result<Vec<i32>> {
    children(std::process::id() as i32)
}

/// The children of all threads of a process; none if it has gone.
fn children(pid: i32) -> io::Result<Vec<i32>> {
    let unless_gone = |error: io::Error| if sys::shortage(&error).is_some() { Err(error) } else { Ok(()) };
    let mut children = Vec::new();
    match fs::read_dir(format!("/proc/{pid}/task")) {
        Err(error) => unless_gone(error)?,
        Ok(tasks) => {
            for task in tasks.flatten() {
                match fs::read_to_string(task.path().join("children")) {
                    Err(error) => unless_gone(error)?,
                    Ok(list) => children.extend(list.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok())),
                }
            }
        }
    }
    Ok(children)
}

/// What /proc/PID/stat says.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// It was stopped by a signal.
    stopped: bool,
    group: i32,
    session: i32,
    /// In clock ticks since the machine's start.
    started: u64,
    environ: Environ,
}

/// Where an environment lies says more than what is in it.
#[derive(Debug, PartialEq, Eq)]
enum Environ {
    /// The program was executed with an empty one.
    Empty,
    /// There is none yet, or one with entries; or it may not be looked at.
    Unknown,
}

impl Stat {
    fn read(pid: i32) -> Option<Stat> {
        Stat::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name of the program is in parentheses and may contain any bytes, so that the fields are counted from the
    /// last closing one.
    fn parse(line: &[u8]) -> Option<Stat> {
        let name_ends = line.iter().rposition(|byte| *byte == b')')?;
        let fields: Vec<&str> = str::from_utf8(&line[name_ends + 1..]).ok()?.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        // The kernel says where it begins and ends once a program is executed, and 0 before.
        let environ = match (field(50), field(51)) {
            (Some(begin), Some(end)) if begin == end && begin > 0 => Environ::Empty,
            _ => Environ::Unknown,
        };
        let stopped = fields.first() == Some(&"T");
        Some(Stat { stopped, group: field(5)? as i32, session: field(6)? as i32, started: field(22)?, environ })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stat_line_is_read_from_behind_the_name() {
        let line = "77 (a) b (c) S 1 70 60 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 0 0";
        let stat = |environ| Some(Stat { stopped: false, group: 70, session: 60, started: 12345, environ });
        assert_eq!(Stat::parse(line.as_bytes()), stat(Environ::Unknown));
        let cut_name = [b"77 (gr\xc3".as_slice(), &line.as_bytes()[11..]].concat();
        assert_eq!(Stat::parse(&cut_name), stat(Environ::Unknown), "a name need not be text");
        for (begin, end, environ) in [(0, 0, Environ::Unknown), (9, 9, Environ::Empty), (9, 12, Environ::Unknown)] {
            let line = format!("{line} {} {begin} {end} 0", ["0"; 25].join(" "));
            assert_eq!(Stat::parse(line.as_bytes()), stat(environ), "{line}");
        }
        assert!(Stat::parse(line.replace(" S ", " T ").as_bytes()).unwrap().stopped);
        assert_eq!(Stat::parse(b"77 (a"), None);
        let own = Stat::read(std::process::id() as i32).unwrap();
        assert!(own.started > 0 && own.group > 0);
    }
}
