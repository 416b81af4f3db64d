//! Groups of an earlier supervisor's lives that still have processes (rule D7).
//!
//! The lock on a name is not enough there: a process that has closed its descriptor holds it no more (children of
//! Python's `subprocess` close all), and may outlive both its leader and the supervisor. In its group it stays.
//!
//! A group says in its name for which worker it was made, by the place of the worker's name among the locks of this
//! socket. That is made with a key that only the supervisors of one socket share, and one at a time serves it: so
//! a group that has such a place, and is not in the directory of this supervisor, is of one that is gone.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Group, PREFIX};
use crate::name_lock::Place;

/// The groups that have been left, by the place of the worker's name.
#[derive(Debug, Default)]
pub(super) struct LeftBehind(HashMap<Place, Vec<PathBuf>>);

impl LeftBehind {
    /// Those beside the directory `own`. What cannot be looked at is none.
    pub(super) fn find(parent: &Path, own: &Path) -> LeftBehind {
        let mut left: HashMap<Place, Vec<PathBuf>> = HashMap::new();
        for base in directories(parent).filter(|dir| dir != own && is_a_supervisors(dir)) {
            for group in directories(&base) {
                if let Some(place) = place_of(&group) {
                    left.entry(place).or_default().push(group);
                }
            }
        }
        LeftBehind(left)
    }

    /// Ends what was left for a name whose lock is had. Returns whether nothing is left; else it is to be asked again.
    pub(super) fn end(&mut self, place: Place) -> io::Result<bool> {
        let Some(groups) = self.0.get_mut(&place) else { return Ok(true) };
        while let Some(dir) = groups.last() {
            // It is removed when it is dropped, if it is empty.
            if !Group::again(dir.clone()).end()? {
                return Ok(false);
            }
            groups.pop();
        }
        self.0.remove(&place);
        Ok(true)
    }
}

/// The name of the group of a life.
pub(super) fn name(number: u64, generation: u64, place: Place) -> String {
    format!("{number}.{generation}.{place}")
}

fn place_of(group: &Path) -> Option<Place> {
    let mut parts = group.file_name()?.to_str()?.splitn(3, '.');
    parts.next()?.parse::<u64>().ok()?;
    parts.next()?.parse::<u64>().ok()?;
    Place::read(parts.next()?)
}

fn is_a_supervisors(dir: &Path) -> bool {
    dir.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX))
}

fn directories(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_says_for_whom_it_was_made() {
        let place = Place::read("0123456789abcdef").unwrap();
        assert_eq!(name(7, 2, place), "7.2.0123456789abcdef");
        assert_eq!(place_of(Path::new("/x/workhall-3/7.2.0123456789abcdef")), Some(place));
        for other in
            ["7.2", "supervisor", "7.2.3", "a.2.0123456789abcdef", "7.2.0123456789abcdef.1", "7.2.0123456789ABCDEF"]
        {
            assert_eq!(place_of(&Path::new("/x/workhall-3").join(other)), None, "{other}");
        }
    }

    #[test]
    fn those_of_other_supervisors_are_found() {
        let dir = std::env::temp_dir().join(format!("workhall-left-behind-{}", std::process::id()));
        for group in [
            "workhall-1/1.1.00000000000000aa",
            "workhall-2/3.1.00000000000000aa",
            "workhall-3/1.1.00000000000000bb",
            "else/1.1.00000000000000cc",
        ] {
            fs::create_dir_all(dir.join(group)).unwrap();
        }
        let left = LeftBehind::find(&dir, &dir.join("workhall-3"));
        let groups = &left.0[&Place::read("00000000000000aa").unwrap()];
        assert_eq!((left.0.len(), groups.len()), (1, 2), "{left:?}");
        fs::remove_dir_all(&dir).unwrap();
    }
}
