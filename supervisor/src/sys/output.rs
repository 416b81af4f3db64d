//! The pipes through which workers' stdout and stderr come.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};

use nix::fcntl::OFlag;
use nix::libc;
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdout, pipe2};

/// A pipe: our end, which does not block, and the one to be inherited, which does. That one is opened for reading too: a
/// pipe breaks when its last reader goes, so as long as anybody may write to this one it does not break. `owner` may
/// open it again by `/dev/stdout` or `/dev/stderr`, which the kernel allows to the owner alone.
pub fn output_pipe(owner: Option<(u32, u32)>) -> io::Result<(File, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // A description of its own: whatever a worker sets of it is not set of ours.
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let theirs = File::options().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(path)?;
    if let Some((user, group)) = owner {
        nix::unistd::fchown(&theirs, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
    }
    Ok((File::from(reader), theirs.into()))
}

/// Makes them stdout and stderr of this process, which is about to execute a program. Takes no memory.
pub fn write_to([out, err]: &[OwnedFd; 2]) -> io::Result<()> {
    dup2_stdout(out)?;
    Ok(dup2_stderr(err)?)
}

/// How many bytes there are to be read in a pipe now.
pub fn readable_bytes(pipe: &File) -> usize {
    rustix::io::ioctl_fionread(pipe).map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Opens the reading end of a pipe that another process has open under this number, without waiting; none if that is no
/// pipe, or may not be opened.
pub fn open_pipe_of(pid: i32, number: i32) -> Option<File> {
    let path = format!("/proc/{pid}/fd/{number}");
    let is_pipe = std::fs::metadata(&path).is_ok_and(|meta| meta.file_type().is_fifo());
    is_pipe.then(|| File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_pipe_does_not_break_while_somebody_may_write_to_it_and_ends_with_the_last_of_them() {
        let (mut ours, theirs) = output_pipe(None).unwrap();
        let mut theirs = File::from(theirs);
        let mut text = [0; 8];
        assert_eq!(ours.read(&mut text).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        theirs.write_all(b"one").unwrap();
        assert_eq!((ours.read(&mut text).unwrap(), &text[..3]), (3, &b"one"[..]));
        // What they set of theirs is not set of ours.
        nix::fcntl::fcntl(&theirs, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        assert_eq!(ours.read(&mut text).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let other = theirs.try_clone().unwrap();
        drop(theirs);
        assert_eq!(ours.read(&mut text).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        (&other).write_all(b"two").unwrap();
        drop(other);
        assert_eq!((ours.read(&mut text).unwrap(), ours.read(&mut text).unwrap()), (3, 0));
        let (ours, theirs) = output_pipe(None).unwrap();
        drop(ours);
        // Rust ignores SIGPIPE: a pipe that is broken would be an error here.
        assert!(File::from(theirs).write_all(b"nobody reads").is_ok());
    }
}
