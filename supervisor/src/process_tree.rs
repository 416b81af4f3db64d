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
use crate::sys;

/// How often an empty environment is read again at once: for about as long as a program takes to begin.
const ENVIRON_READS_MAX: usize = 200;

/// How much of an environment one read takes, in bytes.
const ENVIRON_BYTES: usize = 256 << 10;

/// Whose an orphan is.
enum Owner {
    /// This life's.
    This,
    /// Another's, or nobody's.
    Other,
    /// It has no environment: it begins to execute a program, or it has cleared it.
    Unknown,
    /// There was no descriptor or no memory to look at it.
    Unread,
}

/// Orphans without an environment that stayed so, with their start times: they keep no gate shut.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Foreign(HashSet<(i32, u64)>);

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

impl Foreign {
    /// Forgets those that are gone.
    fn keep(&mut self, children: &[i32]) {
        self.0.retain(|(pid, _)| children.contains(pid));
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

    /// Kills what is left. Returns whether nothing was. `is_leader` knows the processes of living workers;
    /// `foreign` remembers, over all sweeps, those that could not be told and were let be. `repeated`: some time
    /// has passed since the pass before. `look` finds who holds the lock; none if nobody does.
    pub fn pass(
        &mut self,
        is_leader: impl Fn(i32) -> bool,
        foreign: &mut Foreign,
        repeated: bool,
        mut look: Option<&mut Look>,
    ) -> bool {
        loop {
            let (mut left, mut reaped) = (0, 0);
            // What cannot be looked at may be something that is left.
            let Ok(children) = own_children() else { return false };
            foreign.keep(&children);
            for pid in children {
                if is_leader(pid) {
                    continue;
                }
                if sys::reap_adopted(pid) {
                    reaped += 1;
                    continue;
                }
                let Some(stat) = Stat::read(pid) else {
                    left += 1;
                    continue;
                };
                match self.owner(pid, &stat, look.as_deref_mut()) {
                    Owner::This => {
                        self.doom(pid, stat.started);
                        sys::kill_child(pid);
                        left += 1;
                    }
                    Owner::Other => {}
                    Owner::Unread => left += 1,
                    Owner::Unknown if sys::reap_adopted(pid) => reaped += 1,
                    Owner::Unknown => {
                        let known = foreign.0.contains(&(pid, stat.started));
                        let seen_before = repeated && !self.unknown.insert((pid, stat.started));
                        if !known && seen_before {
                            foreign.0.insert((pid, stat.started));
                        }
                        left += u32::from(!known && !seen_before);
                    }
                }
            }
            // What a reaped one left behind is ours since before it could be reaped: look again.
            if reaped == 0 {
                return left == 0;
            }
        }
    }

    fn owner(&self, pid: i32, stat: &Stat, look: Option<&mut Look>) -> Owner {
        let owner = self.owner_by_marks(pid, stat);
        match (&owner, self.place, look) {
            (Owner::Other | Owner::Unknown, Some(place), Some(look)) => match place.is_held_by(pid, look) {
                true => Owner::This,
                false => owner,
            },
            _ => owner,
        }
    }

    fn owner_by_marks(&self, pid: i32, stat: &Stat) -> Owner {
        if stat.group == self.leader
            || stat.session == self.leader
            || self.doomed.get(&pid) == Some(&stat.started)
            || self.led_by_doomed(stat.group)
            || self.led_by_doomed(stat.session)
        {
            return Owner::This;
        }
        // While a process begins to execute another program it has no environment for an instant.
        for _ in 0..ENVIRON_READS_MAX {
            match read_environ(pid) {
                Ok(environ) if environ.is_empty() => {
                    if Stat::read(pid).is_some_and(|now| now.environ == Environ::Empty) {
                        return Owner::Other;
                    }
                }
                Ok(environ) => {
                    let has = |mark: &Vec<u8>| environ.split(|byte| *byte == 0).any(|entry| entry == *mark);
                    return if self.marks.iter().all(has) { Owner::This } else { Owner::Other };
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Owner::Other,
                Err(error) if sys::shortage(&error).is_some() => return Owner::Unread,
                Err(_) => return Owner::Unknown,
            }
        }
        Owner::Unknown
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

/// Reaps adopted children that have ended, whosever they were. Returns how many live.
pub fn reap_adopted(is_leader: impl Fn(i32) -> bool) -> io::Result<usize> {
    loop {
        let (mut left, mut reaped) = (0, false);
        for pid in own_children()?.into_iter().filter(|pid| !is_leader(*pid)) {
            match sys::reap_adopted(pid) {
                true => reaped = true,
                false => left += 1,
            }
        }
        // What a reaped one left behind is ours since before it could be reaped: look again.
        if !reaped {
            return Ok(left);
        }
    }
}

/// Whether the kernel tells who the children of a process are.
pub fn check_kernel() -> io::Result<()> {
    let pid = std::process::id();
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).map(drop)
}

/// The environment of a process, in one read where it is not huge: one that begins to execute another program
/// between two reads would show a part, which looks like another's environment.
fn read_environ(pid: i32) -> io::Result<Vec<u8>> {
    let mut file = File::open(format!("/proc/{pid}/environ"))?;
    let mut environ = vec![0; ENVIRON_BYTES];
    let count = file.read(&mut environ)?;
    environ.truncate(count);
    if count == ENVIRON_BYTES {
        file.read_to_end(&mut environ)?;
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
        Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name of the program is in parentheses and may contain any character, so that the fields are
    /// counted from the last closing one.
    fn parse(text: &str) -> Option<Stat> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        // The kernel says where it begins and ends once a program is executed, and 0 before.
        let environ = match (field(50), field(51)) {
            (Some(begin), Some(end)) if begin == end && begin > 0 => Environ::Empty,
            _ => Environ::Unknown,
        };
        Some(Stat { group: field(5)? as i32, session: field(6)? as i32, started: field(22)?, environ })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stat_line_is_read_from_behind_the_name() {
        let line = "77 (a) b (c) S 1 70 60 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 0 0";
        let stat = |environ| Some(Stat { group: 70, session: 60, started: 12345, environ });
        assert_eq!(Stat::parse(line), stat(Environ::Unknown));
        for (begin, end, environ) in [(0, 0, Environ::Unknown), (9, 9, Environ::Empty), (9, 12, Environ::Unknown)] {
            let line = format!("{line} {} {begin} {end} 0", ["0"; 25].join(" "));
            assert_eq!(Stat::parse(&line), stat(environ), "{line}");
        }
        assert_eq!(Stat::parse("77 (a"), None);
        let own = Stat::read(std::process::id() as i32).unwrap();
        assert!(own.started > 0 && own.group > 0);
    }
}
