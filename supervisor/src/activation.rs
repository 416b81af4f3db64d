//! Socket activation: a service manager listens before the supervisor is there, and hands the socket over
//! (`LISTEN_FDS`). What is posted before the start waits in it, and so it does while the supervisor is restarted.
//!
//! The socket is the manager's: its path, mode and owner are what the manager says, and it is never removed by us. The
//! lock file and the directory of the names are beside it as ever, and protect as ever.

use std::os::fd::RawFd;
use std::path::PathBuf;

use crate::sys::{self, Listener};

/// The first number that is handed over.
const FIRST: RawFd = 3;

/// A socket that was handed over.
#[derive(Debug)]
pub struct Adopted {
    /// It accepts.
    pub listener: Listener,
    /// Where it listens.
    pub path: PathBuf,
}

/// What the service manager has handed over to this process, if anything. The error says what to change.
pub fn adopted() -> Result<Option<Adopted>, String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let count = count(variable("LISTEN_FDS").as_deref(), variable("LISTEN_PID").as_deref(), std::process::id())?;
    match count {
        0 => Ok(None),
        1 => {
            let (listener, path) = sys::adopt_listener(FIRST)
                .map_err(|error| format!("the socket that the service manager hands over cannot be used: {error}"))?;
            Ok(Some(Adopted { listener, path }))
        }
        more => Err(format!(
            "the service manager hands over {more} sockets, and the supervisor serves one: leave one ListenStream= in \
             its socket unit"
        )),
    }
}

/// How many there are for us.
fn count(fds: Option<&str>, pid: Option<&str>, own: u32) -> Result<usize, String> {
    // Variables that were meant for a parent of ours say so by its number.
    let (Some(fds), true) = (fds, pid == Some(&own.to_string())) else { return Ok(0) };
    fds.parse()
        .map_err(|_| format!("LISTEN_FDS is `{fds}`, which is no number: unset it, or start by a service manager"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_meant_for_this_process_counts() {
        for (fds, pid, meant) in [
            (None, None, Ok(0)),
            (Some("1"), None, Ok(0)),
            (Some("1"), Some("8"), Ok(0)),
            (Some("x"), Some("8"), Ok(0)),
            (None, Some("7"), Ok(0)),
            (Some("1"), Some("7"), Ok(1)),
            (Some("3"), Some("7"), Ok(3)),
        ] {
            assert_eq!(count(fds, pid, 7), meant, "{fds:?} {pid:?}");
        }
        assert!(count(Some("-1"), Some("7"), 7).unwrap_err().contains("LISTEN_FDS is `-1`"));
    }
}
