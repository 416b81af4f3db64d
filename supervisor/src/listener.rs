//! New clients: who is let in, and what is said to the others.
//!
//! The last connections are kept for root and the supervisor's own user, and no other user gets all of the
//! rest: so an operator always gets in, whatever others do. A few beyond the limit of all are for programs of
//! these two that have no connection yet: so an operator gets in too where their own programs have used up all
//! the others. Who is turned away is told why. Only while the system has no descriptor does anybody wait.

use tracing::{debug, warn};
use workhall_protocol::messages::{Error, Reply};
use workhall_protocol::wire::{Encoding, encode};

use crate::access::{Account, Creds, is_master};
use crate::connection::Peer;
use crate::event_loop::EventLoop;
use crate::sys::{self, Interest, Stream};
use crate::token::Token;

/// How many connections are accepted in one turn at most.
const ACCEPTS_MAX: usize = 64;
/// How long accepting rests after the kernel had no descriptor for a connection.
const ACCEPT_REST: std::time::Duration = std::time::Duration::from_millis(500);
/// So many connections are kept for root and the supervisor's own user: an operator with a few terminals. Of
/// very few connections it is half.
const RESERVED_CONNECTIONS: usize = 16;
/// So many more than all are for processes of these two that have none: the command line of an operator, while
/// one of their programs has used up what was kept.
const CONNECTIONS_BEYOND_ALL: usize = 4;
/// The part of all connections that one user may have, unless the configuration says how many.
const PART_OF_ONE_USER: usize = 4;

const READ: Interest = Interest { read: true, write: false };
const NOTHING: Interest = Interest { read: false, write: false };

impl EventLoop {
    /// Takes in those who wait.
    pub(crate) fn accept(&mut self) -> std::io::Result<()> {
        for _ in 0..ACCEPTS_MAX {
            // Found ready in the same wake-up that has paused it.
            if !self.accepting {
                return Ok(());
            }
            match sys::accept(&self.listener) {
                Ok(Some(stream)) => self.admit(stream),
                Ok(None) => return Ok(()),
                // No descriptor or no memory for one more: those who wait are served when there is.
                Err(_) => {
                    self.accept_later();
                    return self.pause_accepting();
                }
            }
        }
        Ok(())
    }

    fn admit(&mut self, stream: Stream) {
        // Who cannot be known has left already.
        let Ok(creds) = sys::peer_creds(&stream) else { return };
        if let Err(detail) = self.check_connections(creds) {
            return self.turn_away(&stream, Account::of_user(creds.uid), &detail);
        }
        if let Ok(index) = self.add_connection(stream, Peer::Client(creds)) {
            self.clients += 1;
            debug!(connection = index, pid = creds.pid, uid = creds.uid, "a client has connected");
        }
    }

    fn check_connections(&self, creds: Creds) -> Result<(), String> {
        if is_master(self.own.uid, creds) {
            return self.check_all_connections(creds);
        }
        let (uid, (per_user, open_to_all)) = (creds.uid, self.connection_limits());
        if self.accounts.connections(Account::of_user(uid)) >= per_user {
            return Err(format!(
                "user {uid} has {per_user} connections, which is the limit (`max_connections_per_user` in [supervisor])"
            ));
        }
        match self.clients < open_to_all {
            true => Ok(()),
            false => Err(format!(
                "there are {} connections, and the last ones are kept for the supervisor's own user \
                 (`max_connections` in [supervisor])",
                self.clients
            )),
        }
    }

    /// What bounds root and the own user.
    fn check_all_connections(&self, creds: Creds) -> Result<(), String> {
        let all = self.config.connections;
        // Looked at only while there is such a place: a program that tries again and again costs little.
        let has_none =
            || self.connections.iter().all(|(_, it)| !it.peer.has_connected() || it.peer.creds().pid != creds.pid);
        match self.clients < all || self.clients < all.saturating_add(CONNECTIONS_BEYOND_ALL) && has_none() {
            true => Ok(()),
            false => Err(format!(
                "there are {} connections, and {all} are the limit of all (`max_connections` in [supervisor])",
                self.clients
            )),
        }
    }

    /// How many connections one user may have, and how many all users but root and the own one.
    pub(crate) fn connection_limits(&self) -> (usize, usize) {
        let all = self.config.connections;
        let per_user = self.config.connections_per_user.unwrap_or(all / PART_OF_ONE_USER).clamp(1, all);
        (per_user, all - RESERVED_CONNECTIONS.min(all / 2))
    }

    /// One line, in the encoding of those who have not said theirs; it always fits into the socket of a new
    /// connection.
    fn turn_away(&mut self, stream: &Stream, account: Account, detail: &str) {
        let mut line = Vec::new();
        let error = Reply::Error(Error { reference: None, detail: detail.into() });
        if encode(&error, Encoding::Json, &mut line).is_ok() {
            let mut stream = stream;
            let _gone = std::io::Write::write(&mut stream, &line);
        }
        if self.accounts.tell_once(account) {
            warn!("turned away: {detail}");
        }
    }

    pub(crate) fn accept_later(&mut self) {
        self.accept_again = Some(self.clock.now().after(ACCEPT_REST));
    }

    pub(crate) fn pause_accepting(&mut self) -> std::io::Result<()> {
        self.accepting = false;
        self.poller.modify(&self.listener, Token::Listener.pack(), NOTHING)
    }

    pub(crate) fn resume_accepting(&mut self) -> std::io::Result<()> {
        let left_to_the_next = self.stopping && self.adopted;
        if !self.accepting && !left_to_the_next {
            self.accepting = true;
            self.poller.modify(&self.listener, Token::Listener.pack(), READ)?;
        }
        Ok(())
    }

    /// A client has left: another may have its place.
    pub(crate) fn client_left(&mut self) {
        self.clients -= 1;
        if self.resume_accepting().is_err() {
            self.accept_later();
        }
    }
}
