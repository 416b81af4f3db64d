//! Figures for those who watch: a thread of its own answers who asks for them, over HTTP, on a Unix socket or an address
//! of loopback.
//!
//! ```text
//! scraper ─▶ thread: reads the request ─ a byte ─▶ loop: fills a [`Sample`] in its turn ─ channel ─▶ thread: writes text
//! ```
//!
//! The loop never waits for the thread, and a scraper that is slow, silent or hostile holds up other scrapers for some
//! seconds and nobody else. There is one at a time; others wait in the backlog of the kernel. At an upgrade the thread
//! goes with its program: the listener stays open, and so do those who wait in it; a scrape that is on its way is cut.

mod http;
mod sample;
mod text;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::config::MetricsAt;
use crate::event_loop::EventLoop;
use crate::sys::{self, FileId, Interest, LeftOpen, Listens, SocketAccess};
use crate::token::Token;
use http::Peer;
use sample::Sample;

/// How long the loop may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long accepting rests after the kernel had no descriptor for a connection.
const ACCEPT_REST: Duration = Duration::from_millis(500);

/// Where scrapers come in.
#[derive(Debug)]
pub struct Door {
    listener: Listener,
    /// The file that goes with the supervisor.
    path: Option<(PathBuf, FileId)>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A door that stays open over an upgrade.
#[derive(Debug, Serialize, Deserialize)]
pub struct CarriedDoor {
    listener: RawFd,
    /// That of a Unix socket.
    path: Option<PathBuf>,
}

impl Door {
    /// Listens. A socket that a supervisor which is gone has left at the path is replaced.
    pub fn open(at: &MetricsAt, access: SocketAccess) -> anyhow::Result<Door> {
        match at {
            MetricsAt::Address(address) => {
                let listener = TcpListener::bind(address)
                    .with_context(|| format!("cannot listen for metrics at {address} (`metrics` in [supervisor])"))?;
                Ok(Door { listener: Listener::Tcp(listener), path: None })
            }
            MetricsAt::Path(path) => {
                let shown = path.display();
                let cannot = || format!("cannot listen for metrics at {shown} (`metrics` in [supervisor])");
                make_room(path)?;
                let listener = sys::listen_and_wait(path, access).with_context(cannot)?;
                let id = sys::file_id(path).with_context(cannot)?;
                Ok(Door { listener: Listener::Unix(listener), path: Some((path.clone(), id)) })
            }
        }
    }

    /// One that was left open by the program before.
    pub fn again(carried: CarriedDoor, left: &mut LeftOpen) -> io::Result<Door> {
        let fd = left.take(carried.listener)?;
        Ok(match carried.path {
            None => Door { listener: Listener::Tcp(fd.into()), path: None },
            Some(path) => {
                let path = sys::file_id(&path).ok().map(|id| (path, id));
                Door { listener: Listener::Unix(fd.into()), path }
            }
        })
    }

    fn carried(&self) -> CarriedDoor {
        let path = match &self.listener {
            Listener::Tcp(_) => None,
            Listener::Unix(_) => Some(self.path.as_ref().map(|(path, _)| path.clone()).unwrap_or_default()),
        };
        CarriedDoor { listener: sys::number(self), path }
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.listener {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Door {
    /// The file goes, unless it is another's by now.
    fn drop(&mut self) {
        if let Some((path, id)) = self.path.take().filter(|(path, id)| sys::file_id(path).is_ok_and(|it| it == *id)) {
            let (_same, _already_gone) = (id, fs::remove_file(path));
        }
    }
}

/// What is at the path is removed, if nobody needs it.
fn make_room(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let Ok(meta) = path.symlink_metadata() else { return Ok(()) };
    if !meta.file_type().is_socket() {
        bail!("{shown} is there and is no socket: it is left alone, name another path for `metrics` in [supervisor]");
    }
    if sys::who_listens(path).with_context(|| format!("cannot find out who listens at {shown}"))? != Listens::Nobody {
        bail!("another program listens at {shown}: name another path for `metrics` in [supervisor]");
    }
    fs::remove_file(path).with_context(|| format!("cannot remove the stale socket {shown}"))
}

/// The loop's side.
#[derive(Debug)]
pub(crate) struct Metrics {
    door: Door,
    /// A byte for each question.
    bell: UnixStream,
    answers: Sender<Box<Sample>>,
}

impl Metrics {
    /// Starts the thread.
    pub fn new(door: Door, clock: Clock) -> io::Result<Metrics> {
        let (bell, theirs) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        let (answers, answered) = channel();
        let copy: OwnedFd = door.as_fd().try_clone_to_owned()?;
        let listener = match &door.listener {
            Listener::Tcp(_) => Listener::Tcp(copy.into()),
            Listener::Unix(_) => Listener::Unix(copy.into()),
        };
        let desk = Desk { listener, bell: theirs, answered, clock };
        thread::Builder::new().name("metrics".into()).spawn(move || desk.serve())?;
        Ok(Metrics { door, bell, answers })
    }

    /// What is watched for questions.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The descriptor that stays open over an upgrade.
    pub fn door(&self) -> BorrowedFd<'_> {
        self.door.as_fd()
    }

    pub fn carried(&self) -> CarriedDoor {
        self.door.carried()
    }

    /// Takes the questions that have come; whether there are any.
    fn is_asked(&mut self) -> bool {
        // The thread asks one at a time.
        matches!(self.bell.read(&mut [0; 8]), Ok(1..))
    }
}

impl EventLoop {
    /// From here on they can be read.
    pub(crate) fn open_metrics(&mut self, door: Option<Door>) -> io::Result<()> {
        let Some(door) = door else { return Ok(()) };
        let metrics = Metrics::new(door, self.clock)?;
        self.poller.add(metrics.bell(), Token::Metrics.pack(), Interest { read: true, write: false })?;
        self.metrics = Some(metrics);
        Ok(())
    }

    /// The thread asks for the figures.
    pub(crate) fn answer_scrape(&mut self) {
        if !self.metrics.as_mut().is_some_and(Metrics::is_asked) {
            return;
        }
        let sample = Box::new(Sample::of(self));
        if let Some(metrics) = &self.metrics {
            let _nobody_waits = metrics.answers.send(sample);
        }
    }
}

/// The thread's side.
struct Desk {
    listener: Listener,
    bell: UnixStream,
    answered: Receiver<Box<Sample>>,
    clock: Clock,
}

impl Desk {
    fn serve(mut self) {
        // Those are the loop's.
        if sys::block_signals().is_err() {
            return;
        }
        loop {
            let accepted: io::Result<Box<dyn Peer>> = match &self.listener {
                Listener::Tcp(listener) => listener.accept().map(|(stream, _)| Box::new(stream) as _),
                Listener::Unix(listener) => listener.accept().map(|(stream, _)| Box::new(stream) as _),
            };
            match accepted {
                // Who has left, or does not keep to the rules, is no matter of ours.
                Ok(mut peer) => drop(http::answer(&mut *peer, self.clock, || self.sample())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Who waits is served when there is a descriptor.
                Err(_) => thread::park_timeout(ACCEPT_REST),
            }
        }
    }

    /// The figures as text; none if the loop does not answer.
    fn sample(&mut self) -> Option<String> {
        // An answer that came too late for the one before.
        while self.answered.try_recv().is_ok() {}
        self.bell.write_all(b"?").ok()?;
        let sample = self.answered.recv_timeout(ANSWER_WITHIN).ok()?;
        text::encode(*sample).ok()
    }
}
