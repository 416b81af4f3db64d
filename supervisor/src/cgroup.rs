//! Control groups (cgroup v2): one per life of a worker, where the supervisor may make them.
//!
//! ```text
//! <the supervisor's own group>/workhall-<its pid>/supervisor     itself, only where controllers are to be enabled
//!                                                /<number>.<generation>.<the place of the worker's name>
//! ```
//!
//! Where systemd has put the supervisor into `NAME.service/supervisor` (`DelegateSubgroup=supervisor`), its own group is
//! `NAME.service`: nothing else may be in there, so that controllers can be enabled in it, also by the next supervisor,
//! which systemd could not start there while processes of the last one live below.
//!
//! A process that was born in a group stays in it whatever it does to its session, its environment or its parent, so
//! the whole tree of a life can be killed at once (`cgroup.kill`), and the kernel says when it is gone
//! (`populated 0` in `cgroup.events`). The process joins the group before it executes the worker's program.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use workhall_core::ProcessKey;

use crate::config::Settings;
use crate::name_lock::Place;
use crate::sys;

use self::left_behind::LeftBehind;

mod left_behind;

/// The beginning of the name of a supervisor's directory; its process id follows.
const PREFIX: &str = "workhall-";
/// More than the kernel writes in `cgroup.events`, in bytes.
const EVENTS_BYTES: usize = 256;
/// The group of the supervisor itself.
const OWN: &str = "supervisor";

/// How the processes that a worker leaves behind are found.
#[derive(Debug)]
pub enum Trees {
    /// By their control group.
    Cgroups(Cgroups),
    /// By what they inherit, once they are the supervisor's orphans ([`crate::process_tree`]).
    Subreaper {
        /// Why not by control groups.
        why: String,
    },
}

impl Trees {
    /// As the configuration calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Trees::Cgroups(_) => "cgroup",
            Trees::Subreaper { .. } => "subreaper",
        }
    }

    /// Why control groups are not used, if they are not.
    pub fn why(&self) -> Option<&str> {
        match self {
            Trees::Cgroups(_) => None,
            Trees::Subreaper { why } => Some(why),
        }
    }

    /// Ends what an earlier supervisor's life of this name has left in its group, although it does not hold the name's
    /// lock any more (rule D7). Returns whether nothing is left; else it is to be asked again.
    pub fn end_left_behind(&mut self, place: Place) -> io::Result<bool> {
        match self {
            Trees::Cgroups(cgroups) => cgroups.left.end(place),
            Trees::Subreaper { .. } => Ok(true),
        }
    }

    /// A new group for a life of the worker whose name has this place, where there are groups.
    pub fn group(&self, process: ProcessKey, place: Place, settings: &Settings) -> io::Result<Option<Group>> {
        let Trees::Cgroups(cgroups) = self else { return Ok(None) };
        let group = cgroups.group(process, place)?;
        for (file, controller, limit) in
            [("memory.max", "memory", settings.memory), ("pids.max", "pids", settings.processes)]
        {
            if let Some(limit) = limit.filter(|_| cgroups.limits(controller)) {
                fs::write(group.dir.join(file), limit.to_string())?;
            }
        }
        Ok(Some(group))
    }

    /// Enables controllers that are wanted newly, where that can be done.
    pub fn enable(&mut self, wanted: &[&'static str]) {
        if let Trees::Cgroups(cgroups) = self {
            let missing: Vec<&'static str> = wanted.iter().copied().filter(|name| !cgroups.limits(name)).collect();
            cgroups.enable(&missing);
        }
    }

    /// Why a controller does not limit the groups; none if it does.
    pub fn why_not_limited(&self, controller: &str) -> Option<String> {
        match self {
            Trees::Cgroups(cgroups) if cgroups.limits(controller) => None,
            Trees::Cgroups(cgroups) => {
                Some(format!("the controller {controller} cannot be enabled in {}", cgroups.parent.display()))
            }
            Trees::Subreaper { why } => Some(format!("there are no control groups: {why}")),
        }
    }
}

/// The same as plain values, which do nothing when they go: for the next program of this supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum CarriedTrees {
    Cgroups {
        parent: PathBuf,
        #[serde(default)]
        apart: bool,
        base: PathBuf,
        enabled: Vec<String>,
        enabled_in_parent: Vec<String>,
    },
    Subreaper {
        why: String,
    },
}

impl Trees {
    /// As plain values.
    pub fn carried(&self) -> CarriedTrees {
        match self {
            Trees::Subreaper { why } => CarriedTrees::Subreaper { why: why.clone() },
            Trees::Cgroups(Cgroups { parent, apart, base, enabled, enabled_in_parent, left: _ }) => {
                CarriedTrees::Cgroups {
                    apart: *apart,
                    parent: parent.clone(),
                    base: base.clone(),
                    enabled: enabled.clone(),
                    enabled_in_parent: enabled_in_parent.clone(),
                }
            }
        }
    }

    /// From plain values: from here on they are this program's.
    pub fn again(carried: CarriedTrees) -> Trees {
        match carried {
            CarriedTrees::Subreaper { why } => Trees::Subreaper { why },
            CarriedTrees::Cgroups { parent, apart, base, enabled, enabled_in_parent } => {
                let left = LeftBehind::find(&parent, &base);
                Trees::Cgroups(Cgroups { parent, apart, base, enabled, enabled_in_parent, left })
            }
        }
    }
}

/// The supervisor's directory of groups. It goes with the supervisor.
#[derive(Debug)]
pub struct Cgroups {
    /// The group in which the supervisor was started, or of which it was given a part of its own.
    parent: PathBuf,
    /// It has such a part, and need not leave the parent.
    apart: bool,
    base: PathBuf,
    /// Controllers that limit the groups.
    enabled: Vec<String>,
    /// Of these, those that were not enabled in the parent before.
    enabled_in_parent: Vec<String>,
    /// What earlier supervisors of this socket have left, by the names of their workers.
    left: LeftBehind,
}

impl Cgroups {
    /// Makes the directory, and sees that groups in it can do what is needed. The error says in one sentence why
    /// not. `wanted` controllers are enabled where that can be done.
    pub fn make(wanted: &[&'static str]) -> Result<Cgroups, String> {
        let (parent, apart) = parent_for(own_group()?);
        remove_leftovers(&parent);
        let pid = std::process::id();
        // Another supervisor of the same number may have left processes: then its directory cannot be ours.
        let names = std::iter::once(format!("{PREFIX}{pid}")).chain((1..).map(|n| format!("{PREFIX}{pid}.{n}")));
        for base in names.map(|name| parent.join(name)) {
            match fs::create_dir(&base) {
                Ok(()) => return Cgroups::check(parent, apart, base, wanted),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(format!("cannot make {}: {e}", base.display())),
            }
        }
        unreachable!("there is no end of names")
    }

    fn check(parent: PathBuf, apart: bool, base: PathBuf, wanted: &[&'static str]) -> Result<Cgroups, String> {
        let left = LeftBehind::find(&parent, &base);
        let mut this = Cgroups { parent, apart, base, enabled: Vec::new(), enabled_in_parent: Vec::new(), left };
        let base = this.base.display();
        if !this.base.join("cgroup.kill").exists() {
            return Err(format!("{base} has no cgroup.kill: the kernel is older than 5.14"));
        }
        match fs::read_to_string(this.base.join("cgroup.type")) {
            Ok(kind) if kind.trim() == "domain" => {}
            Ok(kind) => return Err(format!("{base} is of the type `{}`, which processes cannot join", kind.trim())),
            Err(e) => return Err(format!("cannot read {base}/cgroup.type: {e}")),
        }
        // Who moves a process must be allowed to write both to the new group and to the one above both.
        for procs in [this.base.join("cgroup.procs"), this.parent.join("cgroup.procs")] {
            let opened = File::options().write(true).open(&procs);
            opened.map_err(|e| format!("cannot move processes by {}: {e}", procs.display()))?;
        }
        this.enable(wanted);
        Ok(this)
    }

    /// Enables controllers for the groups. What cannot be enabled is not enforced, and said to be so.
    fn enable(&mut self, wanted: &[&'static str]) {
        let offered = words(&self.parent.join("cgroup.controllers"));
        let wanted: Vec<&'static str> =
            wanted.iter().copied().filter(|name| offered.iter().any(|it| it == name)).collect();
        if wanted.is_empty() {
            return;
        }
        // Only a group without processes of its own can hand controllers on; the root can in any case.
        let own = self.base.join(OWN);
        if !self.apart
            && self.parent.join("cgroup.type").exists()
            && !own.exists()
            && fs::create_dir(&own).and_then(|()| fs::write(own.join("cgroup.procs"), "0")).is_err()
        {
            return;
        }
        let before = words(&self.parent.join("cgroup.subtree_control"));
        for name in wanted {
            let new = !before.iter().any(|it| it == name);
            let enabled = |dir: &Path| fs::write(dir.join("cgroup.subtree_control"), format!("+{name}")).is_ok();
            if !new || enabled(&self.parent) {
                if new {
                    self.enabled_in_parent.push(name.to_string());
                }
                if enabled(&self.base) {
                    self.enabled.push(name.to_string());
                }
            }
        }
    }

    fn limits(&self, controller: &str) -> bool {
        self.enabled.iter().any(|name| name == controller)
    }

    fn group(&self, process: ProcessKey, place: Place) -> io::Result<Group> {
        let dir = self.base.join(left_behind::name(process.number.0, process.generation.0, place));
        // Somebody who tidies up may have taken the empty directory for a left-over.
        fs::create_dir(&dir).or_else(|e| match e.kind() {
            io::ErrorKind::NotFound => fs::create_dir_all(&dir),
            _ => Err(e),
        })?;
        Ok(Group { dir, events: None })
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        // Downwards it was enabled, upwards it is given back; and only into a group that hands on nothing can one return.
        for (dir, names) in [(&self.base, &self.enabled), (&self.parent, &self.enabled_in_parent)] {
            for name in names {
                let _still_used = fs::write(dir.join("cgroup.subtree_control"), format!("-{name}"));
            }
        }
        if self.base.join(OWN).exists() {
            let _back = fs::write(self.parent.join("cgroup.procs"), "0");
        }
        let _in_use = remove(&self.base);
    }
}

/// The group of one life. Its directory goes with it, if no process is left in it.
#[derive(Debug)]
pub struct Group {
    dir: PathBuf,
    /// `cgroup.events`, once it is watched.
    events: Option<File>,
}

impl Group {
    /// One that was made by the program before.
    pub fn again(dir: PathBuf) -> Group {
        Group { dir, events: None }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Kills all its processes, and those that they start meanwhile. A group that is not there has none.
    pub fn kill(&self) -> io::Result<()> {
        match fs::write(self.dir.join("cgroup.kill"), "1") {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Kills all its processes, if there are any. Returns whether there is none. From here on [`Group::events`] tells a
    /// change.
    pub fn end(&mut self) -> io::Result<bool> {
        if !self.is_populated()? {
            return Ok(true);
        }
        self.kill()?;
        Ok(!self.is_populated()?)
    }

    /// Whether a process lives in it.
    fn is_populated(&mut self) -> io::Result<bool> {
        let file = match &mut self.events {
            Some(file) => file,
            none => match File::open(self.dir.join("cgroup.events")) {
                Ok(file) => none.insert(file),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(e) => return Err(e),
            },
        };
        let mut text = [0; EVENTS_BYTES];
        let count = file.read_at(&mut text, 0)?;
        Ok(!text[..count].split(|byte| *byte == b'\n').any(|line| line == b"populated 0"))
    }

    /// Whose processes have all ended: nobody waits for a change any more.
    pub fn unwatched(mut self) -> Group {
        self.events = None;
        self
    }

    /// What tells a change; none before the first look.
    pub fn events(&self) -> Option<BorrowedFd<'_>> {
        self.events.as_ref().map(File::as_fd)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What cannot be removed now is removed with the supervisor's directory.
        let _in_use = remove(&self.dir);
    }
}

/// Why a controller would not limit the groups of a supervisor that is started here; none if it probably would.
/// Looks, and changes nothing.
pub fn why_not_offered(controller: &str) -> Option<String> {
    match own_group() {
        Ok(group) if words(&group.join("cgroup.controllers")).iter().any(|name| name == controller) => None,
        Ok(group) => Some(format!("the controller {controller} is not there in {}", group.display())),
        Err(why) => Some(format!("there are no control groups: {why}")),
    }
}

/// Removes a group and those below it, which a supervisor among its processes may have left.
fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            for entry in fs::read_dir(dir)?.flatten().filter(|entry| entry.path().is_dir()) {
                remove(&entry.path())?;
            }
            fs::remove_dir(dir)
        }
        _ => Ok(()),
    }
}

/// Removes what supervisors that were killed have left, if it is empty.
fn remove_leftovers(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse::<u32>().ok());
        // Its own number is that of one who is gone, too.
        let gone = |pid: u32| pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists();
        if pid.is_some_and(gone) {
            let _in_use = remove(&entry.path());
        }
    }
}

/// The group in which the supervisor makes its directory, when it is in `own`; and whether it is in a part of that.
fn parent_for(own: PathBuf) -> (PathBuf, bool) {
    match own.parent() {
        Some(service) if own.ends_with(OWN) && service.extension().is_some_and(|kind| kind == "service") => {
            (service.to_path_buf(), true)
        }
        _ => (own, false),
    }
}

/// The directory of the group in which this process is.
pub(crate) fn own_group() -> Result<PathBuf, String> {
    let read = |file: &str| fs::read_to_string(file).map_err(|e| format!("cannot read {file}: {e}"));
    let (mounts, groups) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
    let group = find_own_group(&mounts, &groups).map(PathBuf::from)?;
    owned_by_us(&group)?;
    Ok(group)
}

/// Whoever owns a group, or may write to it, may kill and move all processes in it and below: so none on the way from the root may belong
/// to another user. Root may in any case.
fn owned_by_us(group: &Path) -> Result<(), String> {
    for dir in group.ancestors().take_while(|dir| dir.join("cgroup.procs").exists()) {
        for path in [dir.to_path_buf(), dir.join("cgroup.procs"), dir.join("cgroup.kill")] {
            let (owner, mode) = match path.metadata() {
                Ok(meta) => (meta.uid(), meta.mode()),
                // The root has nothing that kills all.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(format!("cannot look at {}: {e}", path.display())),
            };
            if ![0, sys::user()].contains(&owner) {
                return Err(format!("{} belongs to user {owner}, who may end and move what is in it", path.display()));
            }
            if mode & 0o022 != 0 {
                let mode = mode & 0o777;
                return Err(format!(
                    "others may write to {} (mode {mode:o}), and so end and move what is in it",
                    path.display()
                ));
            }
        }
    }
    Ok(())
}

fn find_own_group(mounts: &str, groups: &str) -> Result<String, String> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let own = own.ok_or("this process is in no group of cgroup v2 (/proc/self/cgroup)")?;
    let mut mounted = false;
    for line in mounts.lines() {
        // id, parent, device, root, mount point, options …, a dash, type, …
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let fields: Vec<&str> = before.split(' ').collect();
        if after.split(' ').next() != Some("cgroup2") || fields.len() < 5 {
            continue;
        }
        mounted = true;
        let (root, point) = (unescape(fields[3]), unescape(fields[4]));
        if let Some(below) = below(own, &root) {
            return Ok(format!("{}{below}", point.trim_end_matches('/')));
        }
    }
    Err(match mounted {
        true => format!("its group {own} lies outside of what is mounted of cgroup v2"),
        false => "no cgroup v2 is mounted".to_string(),
    })
}

/// The part of a path below another, with its slash; empty if they are the same.
fn below<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(root.trim_end_matches('/'))?;
    let inside = rest.is_empty() || rest.starts_with('/');
    (inside && !rest.starts_with("/..")).then(|| rest.trim_end_matches('/'))
}

/// Spaces and other marks in mountinfo are written as octal numbers.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                out.push_str(&part[3..]);
            }
            None => {
                out.push('\\');
                out.push_str(part);
            }
        }
    }
    out
}

fn words(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().split_whitespace().map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                          36 31 0:33 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n\
                          41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw\n";

    #[test]
    fn groups_are_made_beside_the_part_of_a_service_that_is_the_supervisors() {
        for (own, parent, apart) in [
            ("/c/system.slice/w.service/supervisor", "/c/system.slice/w.service", true),
            ("/c/system.slice/w.service", "/c/system.slice/w.service", false),
            ("/c/w.service/workhall-7/supervisor", "/c/w.service/workhall-7/supervisor", false),
            ("/c/supervisor", "/c/supervisor", false),
            ("/c/w.service/x", "/c/w.service/x", false),
        ] {
            assert_eq!(parent_for(PathBuf::from(own)), (PathBuf::from(parent), apart), "{own}");
        }
    }

    #[test]
    fn the_own_group_is_found_below_the_mount() {
        let found = |mounts: &str, own: &str| find_own_group(mounts, &format!("8:pids:/x\n0::{own}\n"));
        assert_eq!(found(MOUNTS, "/").unwrap(), "/sys/fs/cgroup/unified");
        assert_eq!(found(MOUNTS, "/a/b").unwrap(), "/sys/fs/cgroup/unified/a/b");
        let part = "41 31 0:38 /a /mnt/c\\040d rw - cgroup2 cgroup2 rw";
        assert_eq!(found(part, "/a/b").unwrap(), "/mnt/c d/b");
        assert_eq!(found(part, "/a").unwrap(), "/mnt/c d");
        assert!(found(part, "/ab").unwrap_err().contains("outside"));
        assert!(found(MOUNTS, "/../x").unwrap_err().contains("outside"));
        assert!(found("", "/").unwrap_err().contains("no cgroup v2 is mounted"));
        assert!(find_own_group(MOUNTS, "8:pids:/x\n").unwrap_err().contains("in no group"));
    }

    /// The way of `memory` and `pids`, by a controller that this machine is likely to have free; the unit test is the
    /// supervisor. Leaves everything as it was.
    #[test]
    fn controllers_are_enabled_from_a_leaf_and_given_back() {
        const FREE: &str = "hugetlb";
        let Ok(root) = own_group() else { return println!("skipped: no cgroup v2") };
        if root.join("cgroup.type").exists() || why_not_offered(FREE).is_some() {
            return println!("skipped: the test needs the root group with the controller {FREE}");
        }
        let test = root.join(format!("workhall-test-{}", std::process::id()));
        if fs::create_dir(&test).is_err() {
            return println!("skipped: not allowed to make control groups");
        }
        let enabled_before = words(&root.join("cgroup.subtree_control")).iter().any(|name| name == FREE);
        fs::write(root.join("cgroup.subtree_control"), format!("+{FREE}")).unwrap();
        fs::write(test.join("cgroup.procs"), "0").unwrap();

        let cgroups = Cgroups::make(&[FREE, "memory-of-nobody"]).unwrap();
        assert_eq!(
            (&cgroups.enabled[..], &cgroups.enabled_in_parent[..]),
            (&[FREE.to_string()][..], &[FREE.to_string()][..])
        );
        assert_eq!(own_group().unwrap(), cgroups.base.join(OWN));
        let generation = workhall_protocol::ids::Generation(3);
        let number = workhall_protocol::ids::WorkerNumber(2);
        let group = cgroups
            .group(ProcessKey { index: 0, number, generation }, Place::read("00000000000000ff").unwrap())
            .unwrap();
        assert!(group.dir().ends_with("2.3.00000000000000ff"));
        assert_eq!(words(&group.dir().join("cgroup.controllers")), [FREE]);
        let (base, dir) = (cgroups.base.clone(), group.dir().to_path_buf());
        drop(group);
        assert!(!dir.exists());
        drop(cgroups);
        assert!(!base.exists());
        assert_eq!((own_group().unwrap(), words(&test.join("cgroup.subtree_control")).len()), (test.clone(), 0));

        fs::write(root.join("cgroup.procs"), "0").unwrap();
        fs::remove_dir(&test).unwrap();
        if !enabled_before {
            fs::write(root.join("cgroup.subtree_control"), format!("-{FREE}")).unwrap();
        }
    }
}
