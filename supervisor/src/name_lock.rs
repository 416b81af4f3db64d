//! The kernel's lock on a name (rule D7): at most one process tree per name, also over the supervisor's death.
//!
//! Beside the socket is the directory `SOCKET.names`. Before a process starts, the supervisor opens the file of its
//! name there anew, for reading alone, and locks it. The lock belongs to that open file description (`flock`). The
//! process inherits the descriptor, and so does what it starts; the supervisor closes its own right after the spawn.
//! So it is the process tree, and nothing else, that holds the lock, and the kernel releases it when the last process
//! of the tree has ended or closed the descriptor. A supervisor that follows a killed one finds the names locked
//! whose processes still finish their tasks.
//!
//! A name's file is called by its hash. That is SipHash 2-4 with a random key that is made once and kept in the file
//! `key`: the same name has the same file for every supervisor of this socket, and nobody can choose names that
//! collide. (Should two names collide all the same, one waits while the other has a process: slow, never wrong.) A file
//! of its own for each name, because who has the descriptor can lock all of the file: that harms itself alone. It
//! is removed when the tree is gone, and what a killed supervisor has left when the next one starts.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use siphasher::sip::SipHasher24;
use workhall_core::Instant;

use crate::sys::{self, FileId};

const KEY_BYTES: usize = 16;
/// More than three numbers and two spaces, in digits.
const NOTE_BYTES_MAX: u64 = 64;
/// For how long a look at all processes of the machine serves.
const LOOK_LASTS: Duration = Duration::from_secs(1);
/// How many descriptors of one process are looked at: whoever has a million holds up nobody by it.
const PER_PROCESS_MAX: usize = 4096;
/// And of all processes, in one look: some tenths of a second.
const PER_LOOK_MAX: usize = 65_536;

/// What stands for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Place(u64);

/// What a name's file says of the process that it is locked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Its number.
    pub pid: i32,
    /// The inodes of the pipes that its stdout and stderr were.
    pub pipes: [u64; 2],
}

/// The locks of one socket's names.
#[derive(Debug)]
pub struct NameLocks {
    path: PathBuf,
    /// The files are opened through it: should the directory be moved away, this supervisor is not led astray.
    dir: File,
    hasher: SipHasher24,
    /// Which processes hold which files, whether all were looked at, and when that was.
    seen: Option<(Instant, HashMap<FileId, Vec<i32>>, bool)>,
}

impl NameLocks {
    /// Those of the supervisor that serves this socket; makes the directory and the key if they are not there.
    /// Only the one who has the right to serve the socket may call it.
    pub fn open(socket: &Path) -> anyhow::Result<NameLocks> {
        let mut path = socket.as_os_str().to_os_string();
        path.push(".names");
        let path = PathBuf::from(path);
        let shown = path.display();
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot make the directory {shown} of the names' locks"));
            }
            _ => {}
        }
        let dir = sys::open_directory(&path).with_context(|| format!("cannot open the directory {shown}"))?;
        let meta = dir.metadata().with_context(|| format!("cannot look at {shown}"))?;
        if meta.uid() != sys::user() || meta.mode() & 0o077 != 0 {
            let (owner, mode) = (meta.uid(), meta.mode() & 0o777);
            bail!(
                "{shown} holds the locks of the workers' names, and belongs to user {owner} with mode {mode:o}: it must \
                 be this user's ({}) with mode 700. Remove it, or name another --socket",
                sys::user()
            );
        }
        // Whoever tidies up leaves alone what is locked (systemd-tmpfiles does).
        let _otherwise_it_is_not_heeded = dir.try_lock_shared();
        let mut this = NameLocks { path, dir, hasher: SipHasher24::new(), seen: None };
        let key = this.key().with_context(|| format!("cannot read or make the key in {}", this.path.display()))?;
        this.hasher = SipHasher24::new_with_key(&key);
        this.remove_free_ones().with_context(|| format!("cannot look through {}", this.path.display()))?;
        Ok(this)
    }

    /// The same directory again, for the next program of this supervisor: the locks are its own processes'.
    pub fn again(path: PathBuf, dir: File) -> anyhow::Result<NameLocks> {
        let mut this = NameLocks { path, dir, hasher: SipHasher24::new(), seen: None };
        let key = this.key().with_context(|| format!("cannot read the key in {}", this.path.display()))?;
        this.hasher = SipHasher24::new_with_key(&key);
        Ok(this)
    }

    /// Where it is, and the descriptor by which its files are opened.
    pub fn dir(&self) -> (&Path, &File) {
        (&self.path, &self.dir)
    }

    /// What stands for a name.
    pub fn place(&self, name: &str) -> Place {
        Place(self.hasher.hash(name.as_bytes()))
    }

    /// Takes the lock on a name; none if a process holds it. Whoever inherits the descriptor holds it too.
    pub fn take(&self, name: &str) -> io::Result<Option<OwnedFd>> {
        self.try_take(name).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => io::Error::other(format!(
                "the directory {} was removed while the supervisor runs: no process can be started without it; restart the \
                 supervisor, which makes it anew",
                self.path.display()
            )),
            _ => error,
        })
    }

    fn try_take(&self, name: &str) -> io::Result<Option<OwnedFd>> {
        let path = self.at(&self.place(name).file());
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Who inherits it must not be able to write: so it is opened again, for reading.
                File::options().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
                File::open(&path)?
            }
            other => other?,
        };
        Ok(lock(&file)?.then(|| file.into()))
    }

    /// The file of a name, by which those who hold its lock are known; none if there is none.
    pub fn file(&self, place: Place) -> Option<FileId> {
        sys::file_id(&self.at(&place.file())).ok()
    }

    /// Notes which process a name is locked for, and the pipes into which it was to write: a supervisor that follows may
    /// have to read what it still writes.
    pub fn note(&self, name: &str, note: Noted) {
        let Noted { pid, pipes: [out, err] } = note;
        let _only_a_help = fs::write(self.at(&self.place(name).file()), format!("{pid} {out} {err}"));
    }

    /// What was noted, if the process still holds the lock.
    pub fn noted(&self, name: &str) -> Option<Noted> {
        let place = self.place(name);
        let mut text = String::new();
        File::open(self.at(&place.file())).ok()?.take(NOTE_BYTES_MAX).read_to_string(&mut text).ok()?;
        let mut words = text.split(' ');
        let pid = words.next()?.parse().ok()?;
        let mut pipe = || words.next()?.parse().ok();
        let pipes = [pipe()?, pipe()?];
        let file = self.file(place)?;
        Look::new().opened_by(pid).contains(&file).then_some(Noted { pid, pipes })
    }

    /// Whether nobody holds the lock. One that cannot be looked at may be held.
    pub fn is_free(&self, place: Place) -> bool {
        match File::open(self.at(&place.file())) {
            Ok(file) => lock(&file).is_ok_and(|free| free),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// The tree that held a name is gone: its file is removed, unless somebody who escaped still holds it.
    pub fn forget(&self, place: Place) {
        let path = self.at(&place.file());
        if File::open(&path).and_then(|file| lock(&file)).is_ok_and(|free| free) {
            let _already_gone = fs::remove_file(path);
        }
    }

    /// The files of names that nobody holds. Nothing is lost by it: this supervisor has started nothing yet.
    fn remove_free_ones(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.at("."))? {
            if let Some(place) = place_of(&PathBuf::from(entry?.file_name())) {
                self.forget(place);
            }
        }
        Ok(())
    }

    /// Who holds a name, for people. Looks at all processes of the machine, once for all names that are asked
    /// for within a second.
    pub fn holder(&mut self, now: Instant, name: &str) -> String {
        let file = self.file(self.place(name));
        let (_, holders, all) = match self.seen.take() {
            Some(seen) if now.since(seen.0) < LOOK_LASTS => self.seen.insert(seen),
            _ => {
                let (holders, all) = holders();
                self.seen.insert((now, holders, all))
            }
        };
        let who = match file.and_then(|file| holders.get(&file)).map(Vec::as_slice) {
            None | Some([]) if *all => {
                "a process of an earlier supervisor (which cannot be seen from here)".to_string()
            }
            None | Some([]) => format!(
                "a process (not found among the first {PER_PROCESS_MAX} descriptors of each process, and {PER_LOOK_MAX} in all)"
            ),
            Some([pid]) => format!("process {pid}{} of an earlier supervisor", program(*pid)),
            Some([pid, others @ ..]) => {
                format!("process {pid}{} of an earlier supervisor, and {} more,", program(*pid), others.len())
            }
        };
        format!("{who} still holds the name: the worker starts when that has ended")
    }

    /// The key; a supervisor that dies while it makes it leaves none. One that is too short was not on the disk yet
    /// when the machine stopped: since then nobody holds a lock, and another key does as well.
    fn key(&self) -> io::Result<[u8; KEY_BYTES]> {
        let mut key = [0; KEY_BYTES];
        match File::open(self.at("key")).and_then(|mut file| file.read_exact(&mut key)) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {
                File::open("/dev/urandom")?.read_exact(&mut key)?;
                let mut file = File::create(self.at("key.new"))?;
                file.write_all(&key)?;
                file.sync_all()?;
                fs::rename(self.at("key.new"), self.at("key"))?;
            }
            read => read?,
        }
        Ok(key)
    }

    fn at(&self, file: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{file}", self.dir.as_raw_fd()).into()
    }
}

impl Place {
    /// As it was shown: by sixteen hexadecimal digits.
    pub fn read(text: &str) -> Option<Place> {
        let place = u64::from_str_radix(text, 16).ok().map(Place)?;
        (place.file() == text).then_some(place)
    }

    fn file(self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One look at the descriptors of processes, with its bounds.
#[derive(Debug)]
pub struct Look {
    left: usize,
    /// Nothing was left out.
    all: bool,
}

impl Look {
    /// A new one.
    pub fn new() -> Look {
        Look { left: PER_LOOK_MAX, all: true }
    }

    /// The files of names that a process has open, and so has inherited: none of them can be opened from outside. None if
    /// it may not be looked at.
    pub fn opened_by(&mut self, pid: i32) -> Vec<FileId> {
        let Ok(mut descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
        let mut opened = Vec::new();
        for entry in descriptors.by_ref().take(PER_PROCESS_MAX.min(self.left)).flatten() {
            self.left -= 1;
            // By its name first, for which no file system is asked, however the file is called elsewhere.
            let is_name = fs::read_link(entry.path()).is_ok_and(|link| place_of(&link).is_some());
            opened.extend(is_name.then(|| sys::file_id(&entry.path()).ok()).flatten());
        }
        self.all &= descriptors.next().is_none();
        opened
    }
}

fn lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The processes that hold the lock of a name, by its file, and whether all were looked at.
fn holders() -> (HashMap<FileId, Vec<i32>>, bool) {
    let mut look = Look::new();
    let mut holders: HashMap<FileId, Vec<i32>> = HashMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        for file in look.opened_by(pid) {
            holders.entry(file).or_default().push(pid);
        }
    }
    (holders, look.all)
}

/// Files of names are called by sixteen hexadecimal digits. By the name alone: in another mount namespace the path
/// may look different.
fn place_of(link: &Path) -> Option<Place> {
    let name = link.file_name()?.to_str()?;
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    Place::read(name)
}

fn program(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.trim().is_empty() { String::new() } else { format!(" ({})", name.trim()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory for one test, gone with it.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("workhall-name-lock-{name}-{}", std::process::id()));
            fs::create_dir(&dir).unwrap();
            Dir(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn d07_a_name_is_held_as_long_as_a_copy_of_its_descriptor_is_open() {
        let dir = Dir::new("held");
        let mut locks = NameLocks::open(&dir.0.join("socket")).unwrap();
        let held = locks.take("a").unwrap().expect("nobody has it");
        let copy = held.try_clone().unwrap();
        assert!(locks.take("a").unwrap().is_none());
        assert!(locks.take("A").unwrap().is_some(), "another name");
        drop(held);
        assert!(locks.take("a").unwrap().is_none(), "the copy holds it");
        let opened = Look::new().opened_by(std::process::id() as i32);
        assert!(opened.contains(&locks.file(locks.place("a")).unwrap()));
        assert_eq!(locks.file(locks.place("b")), None);
        let note = Noted { pid: std::process::id() as i32, pipes: [u64::MAX, 7] };
        locks.note("a", note);
        assert_eq!((locks.noted("a"), locks.noted("b")), (Some(note), None));
        let own = format!("process {} (", std::process::id());
        assert!(locks.holder(Instant(0), "a").starts_with(&own));
        assert!(locks.holder(Instant(0), "b").contains("cannot be seen"));
        drop(copy);
        assert!(locks.take("a").unwrap().is_some());
    }

    #[test]
    fn d07_two_supervisors_of_a_socket_agree_and_those_of_two_sockets_do_not_meet() {
        let dir = Dir::new("agree");
        let open = |socket: &str| NameLocks::open(&dir.0.join(socket)).unwrap();
        let (first, second, other) = (open("socket"), open("socket"), open("other"));
        let _held = first.take("a").unwrap().expect("nobody has it");
        assert_eq!(first.place("a"), second.place("a"));
        assert!(second.take("a").unwrap().is_none());
        assert_ne!(first.place("a"), other.place("a"), "the key is its own");
        assert!(other.take("a").unwrap().is_some());
        fs::rename(dir.0.join("socket.names"), dir.0.join("moved")).unwrap();
        assert!(second.take("a").unwrap().is_none(), "the directory is the one that was opened");
    }

    #[test]
    fn d07_a_directory_that_is_open_to_others_is_refused() {
        let dir = Dir::new("refused");
        let names = dir.0.join("socket.names");
        fs::DirBuilder::new().mode(0o700).create(&names).unwrap();
        fs::set_permissions(&names, std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
        let error = NameLocks::open(&dir.0.join("socket")).unwrap_err().to_string();
        assert!(error.contains("mode 750") && error.contains("Remove it"), "{error}");
        fs::remove_dir(&names).unwrap();
        std::os::unix::fs::symlink("/", &names).unwrap();
        assert!(NameLocks::open(&dir.0.join("socket")).is_err(), "a link is not followed");
    }

    #[test]
    fn d07_who_inherits_a_lock_can_neither_write_nor_lock_another_name() {
        let dir = Dir::new("inherits");
        let locks = NameLocks::open(&dir.0.join("socket")).unwrap();
        let mut held = File::from(locks.take("a").unwrap().expect("nobody has it"));
        assert!(held.write_all(b"x").is_err());
        for name in ["b", "c", "d"] {
            assert!(locks.take(name).unwrap().is_some(), "whatever is done to the file of `a`");
        }
    }

    #[test]
    fn d07_a_key_that_was_not_on_the_disk_yet_is_none() {
        let dir = Dir::new("key");
        for text in ["", "short", "0123456789abcde"] {
            fs::create_dir_all(dir.0.join("socket.names")).unwrap();
            fs::set_permissions(dir.0.join("socket.names"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
                .unwrap();
            fs::write(dir.0.join("socket.names/key"), text).unwrap();
            let open = || NameLocks::open(&dir.0.join("socket")).unwrap();
            let (first, second) = (open(), open());
            let _held = first.take("a").unwrap().expect("nobody has it");
            assert!(second.take("a").unwrap().is_none(), "both have the key that was made");
        }
    }

    #[test]
    fn what_nobody_holds_any_more_is_removed() {
        let dir = Dir::new("removed");
        let files = || fs::read_dir(dir.0.join("socket.names")).unwrap().count();
        let locks = NameLocks::open(&dir.0.join("socket")).unwrap();
        let held = locks.take("a").unwrap().expect("nobody has it");
        drop(locks.take("b").unwrap());
        assert_eq!(files(), 3, "with the key");
        locks.forget(locks.place("a"));
        assert_eq!(files(), 3, "it is held");
        let next = NameLocks::open(&dir.0.join("socket")).unwrap();
        assert_eq!(files(), 2, "`b` is free");
        drop(held);
        next.forget(next.place("a"));
        assert_eq!(files(), 1);
    }

    #[test]
    fn the_files_of_names_are_known_by_theirs() {
        let place = Some(Place(0x3f));
        assert_eq!(place_of(Path::new("/x/socket.names/000000000000003f")), place);
        assert_eq!(place_of(Path::new("/000000000000003f (deleted)")), place);
        for other in ["socket:[7]", "/x/key", "/x/3f", "/x/000000000000003F"] {
            assert_eq!(place_of(Path::new(other)), None);
        }
    }
}
