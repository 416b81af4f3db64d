//! The listening socket that a service manager has opened before it started the supervisor.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::path::PathBuf;

use interprocess::local_socket::ListenerNonblockingMode;
use interprocess::local_socket::traits::Listener as _;
use nix::sys::socket::sockopt::{AcceptConn, SockType as TypeOfSocket};
use nix::sys::socket::{SockType, UnixAddr, getsockname, getsockopt};

use super::Listener;

/// The listener at a number, and where it listens. Its path is never removed by us. The number stays open: it is
/// whoever's handed it over.
pub fn adopt_listener(number: RawFd) -> io::Result<(Listener, PathBuf)> {
    let no = |what: &str| Err(io::Error::other(what.to_string()));
    if number <= 2 {
        return no("it is stdin, stdout or stderr");
    }
    // SAFETY: borrowed for the calls below alone, which fail if the number is not open; what they find out of whatever
    // is open there is checked before anything is made of it.
    #[allow(unsafe_code)]
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    match getsockopt(&borrowed, TypeOfSocket) {
        Ok(SockType::Stream) => {}
        Ok(_) => return no("it is no stream socket: use ListenStream="),
        Err(error) => return Err(io::Error::other(format!("it is no socket ({error})"))),
    }
    if !getsockopt(&borrowed, AcceptConn)? {
        return no("it does not listen: use Accept=no");
    }
    let Ok(address) = getsockname::<UnixAddr>(borrowed.as_raw_fd()) else {
        return no("it is no Unix socket: use ListenStream= with a path");
    };
    let Some(path) = address.path().filter(|path| path.is_absolute()).map(PathBuf::from) else {
        return no("it has no absolute path, beside which the lock file would be: use ListenStream= with one");
    };
    let listener = Listener::from(borrowed.try_clone_to_owned()?);
    listener.set_nonblocking(ListenerNonblockingMode::Both)?;
    Ok((listener, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{accept, connect};
    use std::net::TcpListener;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

    #[test]
    fn only_a_listening_unix_socket_with_a_path_is_adopted() {
        let dir = std::env::temp_dir().join(format!("workhall-adopt-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let refused = |number: RawFd, part: &str| {
            let error = adopt_listener(number).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        refused(2, "stderr");
        refused(1 << 20, "no socket");
        refused(std::fs::File::open("/dev/null").unwrap().as_raw_fd(), "no socket");
        refused(UnixDatagram::unbound().unwrap().as_raw_fd(), "ListenStream=");
        refused(UnixStream::pair().unwrap().0.as_raw_fd(), "Accept=no");
        refused(TcpListener::bind("127.0.0.1:0").unwrap().as_raw_fd(), "no Unix socket");
        let name = SocketAddr::from_abstract_name(format!("workhall-adopt-{}", std::process::id())).unwrap();
        refused(UnixListener::bind_addr(&name).unwrap().as_raw_fd(), "no absolute path");

        let path = dir.join("socket");
        let theirs = UnixListener::bind(&path).unwrap();
        let before = UnixStream::connect(&path).unwrap();
        let (listener, found) = adopt_listener(theirs.as_raw_fd()).unwrap();
        assert_eq!(found, path);
        assert!(accept(&listener).unwrap().is_some(), "who came before waits");
        assert!(accept(&listener).unwrap().is_none(), "nobody is waited for");
        drop(listener);
        assert!(path.exists(), "it is the manager's");
        let later = connect(&path, None).unwrap();
        let (listener, _) = adopt_listener(theirs.as_raw_fd()).unwrap();
        assert!(accept(&listener).unwrap().is_some(), "who came while nobody served waits, too");
        drop((before, later));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
