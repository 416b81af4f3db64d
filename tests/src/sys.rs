//! The only `unsafe` of the tests' library: what a program was handed by the one that has started it, and descriptors
//! with a number of one's choice.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

/// The descriptor that an environment variable names. To be called once for each; the error says what is missing.
pub fn inherited(variable: &str) -> Result<OwnedFd, String> {
    let text =
        std::env::var(variable).map_err(|_| format!("{variable} is not set: a supervisor starts this program"))?;
    let number: RawFd = text.parse().map_err(|_| format!("{variable} is `{text}`, which is no number"))?;
    if number <= 2 || !std::fs::exists(format!("/proc/self/fd/{number}")).unwrap_or(false) {
        return Err(format!("{variable} is {number}, which is not open"));
    }
    // SAFETY: it is open (just seen), and was made for this process by whoever has set the variable; nothing else here
    // owns it, as the caller takes each once.
    #[allow(unsafe_code)]
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The same file, close-on-exec, under a number like that of the lock which a supervisor hands to a worker: above those
/// that programs look at next to their own.
pub fn out_of_the_way(file: &File) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(file, 64)?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn what_is_out_of_the_way_is_the_same_file() {
        let file = tempfile::tempfile().unwrap();
        let other = out_of_the_way(&file).unwrap();
        assert!(other.as_raw_fd() >= 64);
        io::Write::write_all(&mut &file, b"here").unwrap();
        assert_eq!(File::from(other).metadata().unwrap().len(), 4);
    }

    #[test]
    fn what_is_no_descriptor_is_said() {
        assert!(inherited("WORKHALL_TESTS_NO_SUCH").unwrap_err().contains("is not set"));
        // PATH is set everywhere.
        assert!(inherited("PATH").unwrap_err().contains("no number"));
    }
}
