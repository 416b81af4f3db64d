//! What the service manager is told, where there is one (`sd_notify`): that the supervisor is ready, reloads or stops,
//! what it has in hand, and, as its watchdog, that the event loop still turns.
//!
//! Each is one datagram to the address in `NOTIFY_SOCKET`, and none is waited for. What finds no room is sent again, in
//! order, if it is a change of state; a figure or a sign of life is followed by a newer one anyway.
//!
//! Without a watchdog an idle supervisor does not wake up for any of this: figures are told at wake-ups that have other
//! reasons, at most once in [`STATUS_EVERY`]; only where they have changed since they were told is there one more
//! wake-up, after which they are true for as long as nothing changes.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use workhall_core::Instant;

use tracing::warn;

/// How often figures are told at most.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// When a change of state is sent again for which there was no room.
const SEND_AGAIN: Duration = Duration::from_millis(100);
/// So many changes of state wait for room at most. More than there can be: each start, reload and stop is one or two.
const UNSENT_MAX: usize = 16;
/// The end of the supervisor takes this much longer than the grace of its workers, and some patience more: the orphans
/// that it ends itself.
const END_AFTER_GRACE: Duration = Duration::from_secs(15);

/// What the supervisor has in hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Names.
    pub workers: usize,
    /// Processes that are not proved gone.
    pub processes: usize,
    /// Messages that wait.
    pub pending: u64,
    /// It has been told to stop.
    pub stopping: bool,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { workers, processes, pending, stopping } = self;
        let many = |count: bool, one: &'static str, many: &'static str| if count { one } else { many };
        write!(f, "{}{workers} ", if *stopping { "stopping: " } else { "" })?;
        write!(f, "{}, {processes} ", many(*workers == 1, "worker", "workers"))?;
        write!(f, "{}, {pending} ", many(*processes == 1, "process", "processes"))?;
        write!(f, "{} pending", many(*pending == 1, "message", "messages"))
    }
}

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier(Option<Manager>);

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    /// Changes of state for which there was no room, the oldest first.
    unsent: VecDeque<String>,
    /// When they are tried again.
    again: Option<Instant>,
    watchdog: Option<Watchdog>,
    /// The figures that were told last.
    told: Figures,
    /// Not before this are others told.
    next_status: Instant,
    /// There are others to tell then.
    status_due: bool,
    /// People know that it does not listen.
    complained: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Watchdog {
    every: Duration,
    next: Instant,
}

impl Notifier {
    /// By the variables that the manager sets. What cannot be understood is said, and left.
    pub fn from_environment() -> Notifier {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let Some(path) = variable("NOTIFY_SOCKET") else { return Notifier(None) };
        let socket = || -> io::Result<(UnixDatagram, SocketAddr)> {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok((socket, address(&path)?))
        };
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
        let watchdog = watchdog(text("WATCHDOG_USEC").as_deref(), text("WATCHDOG_PID").as_deref(), std::process::id());
        let watchdog = watchdog.unwrap_or_else(|text| {
            warn!("WATCHDOG_USEC is `{text}`, which is no number of microseconds: there is no watchdog");
            None
        });
        match socket() {
            Ok((socket, address)) => Notifier(Some(Manager::new(socket, address, watchdog))),
            Err(error) => {
                let path = path.display();
                warn!("the service manager cannot be told anything: NOTIFY_SOCKET is {path}: {error}");
                Notifier(None)
            }
        }
    }

    /// The supervisor accepts, from its start or again after [`Notifier::reloading`].
    pub fn ready(&mut self, now: Instant, figures: Figures) {
        if let Some(manager) = &mut self.0 {
            manager.told_with(now, figures);
            manager.state(now, format!("READY=1\nSTATUS={figures}"));
        }
    }

    /// The configuration is being read again; [`Notifier::ready`] ends it. `monotonic_usec` is the kernel's monotonic
    /// clock, by which the manager tells this reload from the one before.
    pub fn reloading(&mut self, now: Instant, monotonic_usec: u64) {
        if let Some(manager) = &mut self.0 {
            manager.state(now, format!("RELOADING=1\nMONOTONIC_USEC={monotonic_usec}"));
        }
    }

    /// The supervisor has been told to stop, and gives its workers this long: the manager is to give it longer.
    pub fn stopping(&mut self, now: Instant, grace: Duration, figures: Figures) {
        if let Some(manager) = &mut self.0 {
            manager.told_with(now, figures);
            let usec = grace.saturating_add(END_AFTER_GRACE).as_micros();
            manager.state(now, format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={usec}\nSTATUS={figures}"));
        }
    }

    /// The loop has turned.
    pub fn turned(&mut self, now: Instant, figures: Figures) {
        if let Some(manager) = &mut self.0 {
            manager.turned(now, figures);
        }
    }

    /// When there is something to send, whatever else happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.as_ref()?.deadline()
    }
}

impl Manager {
    fn new(socket: UnixDatagram, address: SocketAddr, watchdog: Option<Duration>) -> Manager {
        Manager {
            socket,
            address,
            unsent: VecDeque::new(),
            again: None,
            watchdog: watchdog.map(|every| Watchdog { every, next: Instant::default() }),
            told: Figures::default(),
            next_status: Instant::default(),
            status_due: false,
            complained: false,
        }
    }

    fn told_with(&mut self, now: Instant, figures: Figures) {
        (self.told, self.next_status, self.status_due) = (figures, now.after(STATUS_EVERY), false);
    }

    fn state(&mut self, now: Instant, text: String) {
        if self.unsent.len() < UNSENT_MAX {
            self.unsent.push_back(text);
        }
        self.send_states(now);
    }

    fn send_states(&mut self, now: Instant) {
        self.again = None;
        while let Some(text) = self.unsent.pop_front() {
            if !self.send(&text) {
                self.unsent.push_front(text);
                self.again = Some(now.after(SEND_AGAIN));
                return;
            }
        }
    }

    fn turned(&mut self, now: Instant, figures: Figures) {
        if self.again.is_some_and(|again| again <= now) {
            self.send_states(now);
        }
        if let Some(watchdog) = self.watchdog.filter(|watchdog| watchdog.next <= now) {
            self.watchdog = Some(Watchdog { next: now.after(watchdog.every), ..watchdog });
            self.send("WATCHDOG=1");
        }
        self.status_due = figures != self.told;
        if self.status_due && self.next_status <= now {
            self.told_with(now, figures);
            self.send(&format!("STATUS={figures}"));
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let status = self.status_due.then_some(self.next_status);
        [self.again, self.watchdog.map(|watchdog| watchdog.next), status].into_iter().flatten().min()
    }

    /// False if there is no room for it now.
    fn send(&mut self, text: &str) -> bool {
        loop {
            match self.socket.send_to_addr(text.as_bytes(), &self.address) {
                Ok(_) => self.complained = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => {
                    if !std::mem::replace(&mut self.complained, true) {
                        warn!("the service manager does not listen at its NOTIFY_SOCKET: {error}");
                    }
                }
            }
            return true;
        }
    }
}

/// A path, or with an `@` a name in the kernel's abstract space.
fn address(text: &OsStr) -> io::Result<SocketAddr> {
    match text.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(text),
        _ => Err(io::Error::other("it is neither a path nor a name that begins with @")),
    }
}

/// How often to show life: at half of the time after which the manager takes the supervisor for dead. None if it asks
/// for none, or asks another process.
fn watchdog(usec: Option<&str>, pid: Option<&str>, own: u32) -> Result<Option<Duration>, String> {
    let (Some(usec), true) = (usec, pid.is_none_or(|pid| pid == own.to_string())) else { return Ok(None) };
    match usec.parse() {
        Ok(number) if number > 1 => Ok(Some(Duration::from_micros(number) / 2)),
        _ => Err(usec.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manager, and the notifier that tells it.
    fn pair(watchdog: Option<Duration>) -> (UnixDatagram, Notifier) {
        let name = format!("workhall-notify-{}-{:?}", std::process::id(), std::thread::current().id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let theirs = UnixDatagram::bind_addr(&address).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let ours = UnixDatagram::unbound().unwrap();
        ours.set_nonblocking(true).unwrap();
        (theirs, Notifier(Some(Manager::new(ours, address, watchdog))))
    }

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 1000];
        std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned()))
            .collect()
    }

    fn at(ms: u64) -> Instant {
        Instant::default().after(Duration::from_millis(ms))
    }

    fn figures(pending: u64) -> Figures {
        Figures { workers: 2, processes: 1, pending, stopping: false }
    }

    #[test]
    fn figures_are_told_at_most_once_a_second_and_are_true_at_rest() {
        let (manager, mut notifier) = pair(None);
        notifier.ready(at(0), figures(0));
        assert_eq!(heard(&manager), ["READY=1\nSTATUS=2 workers, 1 process, 0 messages pending"]);
        assert_eq!(notifier.deadline(), None, "nothing has changed: nothing to wake up for");
        for pending in 1..500 {
            notifier.turned(at(pending), figures(pending));
        }
        assert_eq!(heard(&manager), [""; 0]);
        assert_eq!(notifier.deadline(), Some(at(1000)), "once more, to tell the last");
        notifier.turned(at(1000), figures(1));
        assert_eq!(heard(&manager), ["STATUS=2 workers, 1 process, 1 message pending"]);
        assert_eq!(notifier.deadline(), None);
        // What has changed back needs no wake-up.
        notifier.turned(at(1100), figures(7));
        assert_eq!(notifier.deadline(), Some(at(2000)));
        notifier.turned(at(1200), figures(1));
        assert_eq!(notifier.deadline(), None);
        // After a rest a change is told at once.
        notifier.turned(at(9000), figures(3));
        assert_eq!(heard(&manager), ["STATUS=2 workers, 1 process, 3 messages pending"]);
    }

    #[test]
    fn the_watchdog_is_the_only_timer_of_its_own() {
        let (manager, mut notifier) = pair(Some(Duration::from_secs(10)));
        notifier.ready(at(0), figures(0));
        notifier.turned(at(1), figures(0));
        assert_eq!(heard(&manager)[1..], ["WATCHDOG=1"]);
        assert_eq!(notifier.deadline(), Some(at(10_001)));
        notifier.turned(at(5000), figures(0));
        assert_eq!(heard(&manager), [""; 0]);
        notifier.turned(at(10_001), figures(0));
        assert_eq!(heard(&manager), ["WATCHDOG=1"]);
        assert_eq!(notifier.deadline(), Some(at(20_001)));
    }

    #[test]
    fn a_reload_and_the_stop_are_told_in_order_although_there_was_no_room() {
        let (manager, mut notifier) = pair(None);
        while notifier.0.as_mut().unwrap().send("STATUS=noise") {}
        notifier.reloading(at(10), 12_345);
        notifier.ready(at(11), figures(0));
        assert_eq!(notifier.deadline(), Some(at(11).after(SEND_AGAIN)));
        let noise = heard(&manager);
        assert!(noise.iter().all(|text| text == "STATUS=noise"), "{noise:?}");
        notifier.turned(at(50), figures(0));
        assert_eq!(heard(&manager), [""; 0], "not before its time");
        notifier.turned(at(111), figures(0));
        let stopping = Figures { stopping: true, ..figures(4) };
        notifier.stopping(at(112), Duration::from_secs(10), stopping);
        assert_eq!(
            heard(&manager),
            [
                "RELOADING=1\nMONOTONIC_USEC=12345",
                "READY=1\nSTATUS=2 workers, 1 process, 0 messages pending",
                "STOPPING=1\nEXTEND_TIMEOUT_USEC=25000000\nSTATUS=stopping: 2 workers, 1 process, 4 messages pending",
            ]
        );
        // A manager that is gone holds nobody up, and what was for it is forgotten.
        drop(manager);
        notifier.reloading(at(200), 1);
        assert_eq!(notifier.deadline(), None);
    }

    #[test]
    fn what_waits_for_room_is_bounded() {
        let (_manager, mut notifier) = pair(None);
        while notifier.0.as_mut().unwrap().send("STATUS=noise") {}
        for reload in 0..100 {
            notifier.reloading(at(reload), reload);
        }
        assert_eq!(notifier.0.unwrap().unsent.len(), UNSENT_MAX);
    }

    #[test]
    fn the_variables_are_read() {
        let half = |seconds: u64| Ok(Some(Duration::from_millis(seconds * 500)));
        for (usec, pid, meant) in [
            (None, None, Ok(None)),
            (None, Some("7"), Ok(None)),
            (Some("30000000"), None, half(30)),
            (Some("30000000"), Some("7"), half(30)),
            (Some("30000000"), Some("8"), Ok(None)),
            (Some("soon"), Some("7"), Err("soon".to_string())),
            (Some("0"), None, Err("0".to_string())),
        ] {
            assert_eq!(watchdog(usec, pid, 7), meant, "{usec:?} {pid:?}");
        }
        let address = |text: &str| address(OsStr::new(text));
        assert_eq!(address("/run/x").unwrap().as_pathname(), Some(std::path::Path::new("/run/x")));
        assert_eq!(address("@a/b").unwrap().as_abstract_name(), Some(&b"a/b"[..]));
        for wrong in ["x", "vsock:2:1234", &format!("/{}", "x".repeat(200))] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
