//! systemd's journal, by its own protocol: one datagram of fields per entry. A crate for it would bring more than this
//! needs.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Where the journal listens.
pub const PLACE: &str = "/run/systemd/journal/socket";

/// The way to it. Nobody is waited for.
#[derive(Debug)]
pub struct Journald(UnixDatagram);

impl Journald {
    /// Fails if there is no journal.
    pub fn find() -> io::Result<Journald> {
        Path::new(PLACE).metadata()?;
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Journald(socket))
    }

    /// Fails if it has no room, or is not there just now.
    pub fn send(&self, entry: &Entry) -> io::Result<()> {
        self.0.send_to(&entry.0, PLACE).map(drop)
    }
}

/// Whether stderr is what systemd has connected to the journal: it says device and inode of it.
pub fn is_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|meta| stream == format!("{}:{}", meta.dev(), meta.ino()))
}

/// One entry.
#[derive(Debug)]
pub struct Entry(Vec<u8>);

impl Entry {
    /// Of a syslog priority, by somebody.
    pub fn new(message: &str, priority: u8, identifier: &str) -> Entry {
        let mut entry = Entry(Vec::with_capacity(256));
        entry.field("MESSAGE", message);
        entry.field("PRIORITY", &priority.to_string());
        entry.field("SYSLOG_IDENTIFIER", identifier);
        entry
    }

    /// Adds a field; its name has capital letters, digits and `_` alone.
    pub fn field(&mut self, name: &str, value: &str) {
        self.0.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            // It would be taken for the next field: such a value has its length before it.
            self.0.push(b'\n');
            self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            self.0.push(b'=');
        }
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_several_lines_cannot_be_taken_for_other_fields() {
        let mut entry = Entry::new("one", 4, "w");
        entry.field("WORKHALL_WORKER", "x\nPRIORITY=0");
        let expected = b"MESSAGE=one\nPRIORITY=4\nSYSLOG_IDENTIFIER=w\n\
            WORKHALL_WORKER\n\x0c\0\0\0\0\0\0\0x\nPRIORITY=0\n";
        assert_eq!(entry.0, expected);
    }
}
