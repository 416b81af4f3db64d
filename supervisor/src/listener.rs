//! New clients: who is let in, and what is said to the others.
//!
//! The last connections are kept for root and the supervisor's own user, and no other user gets all of the
//! rest: so an operator always gets in, whatever others do. Who is turned away is told why; who waits for a
//! place is one of those for whom places are kept.

use workhall_protocol::messages::{Error, Reply};
use workhall_protocol::wire::{Encoding, encode};

use crate::access::{Account, Creds, is_master};
use crate::connection::Peer;
use crate::diagnostics::say;
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
            if self.clients >= self.config.connections {
                return self.pause_accepting();
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
        if self.add_connection(stream, Peer::Client(creds)).is_ok() {
            self.clients += 1;
        }
    }

    fn check_connections(&self, creds: Creds) -> Result<(), String> {
        if is_master(self.own.uid, creds) {
            return Ok(());
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
            say(format_args!("turned away: {detail}"));
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
        if !self.accepting && !left_to_the_next && self.clients < self.config.connections {
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
