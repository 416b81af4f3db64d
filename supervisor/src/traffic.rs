//! Bytes in and out of connections, turn by turn, and what keeps one peer's from filling the memory.
//!
//! A client that reads its answers is never cut. One that asks more than it reads is not heard until it has
//! read; messages that its user has begun and does not finish are not read on beyond a bound, all but one. Only
//! the results for which it waits come however little it reads, and who leaves too many of them loses the
//! connections with the most. A worker's words are always heard: they count from when they were written.

use std::cmp::Reverse;
use std::num::NonZeroU64;

use tracing::{debug, warn};
use workhall_core::Event;
use workhall_protocol::messages::ToSupervisor;
use workhall_protocol::wire::DecodeError;

use crate::access::Account;
use crate::connection::{Peer, READ_BYTES};
use crate::event_loop::EventLoop;
use crate::token::Token;

/// How often the connection of a process is read at most when all that it has written is wanted: more than
/// its socket can hold.
const READS_MAX: usize = 64;

impl EventLoop {
    pub(crate) fn readable(&mut self, index: usize, hung_up: bool) {
        let connection = &mut self.connections[index];
        if connection.stalled {
            // Its turn comes at the end of this one. Who has left has no answers to read first.
            if hung_up {
                connection.drop_output();
            }
            return;
        }
        let room = if hung_up { READ_BYTES } else { self.room_to_read(index) };
        if room == 0 {
            return self.hold_back(index);
        }
        let ended = match self.connections[index].read(&mut self.scratch, room) {
            Ok(count) => count == 0,
            Err(e) => e.kind() != std::io::ErrorKind::WouldBlock,
        };
        self.handle_input(index);
        let connection = &mut self.connections[index];
        match (ended, connection.peer) {
            (false, _) => {}
            // It has said all that it wants, and may still read the answers: `… | socat - UNIX:…`.
            (true, Peer::Client(_)) if !hung_up => connection.half_closed = true,
            (true, _) => self.hang_up(index),
        }
    }

    fn room_to_read(&mut self, index: usize) -> usize {
        let connection = &self.connections[index];
        if !connection.peer.is_client() {
            return READ_BYTES;
        }
        let (account, key) = (connection.peer.account(), connection.key.get());
        self.accounts.room(account, key, connection.charged, connection.decoder.buffered(), READ_BYTES)
    }

    fn hold_back(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if !std::mem::replace(&mut connection.held_back, true) {
            self.accounts.hold_back(connection.peer.account(), true);
        }
        self.mark_dirty(index);
    }

    /// Others of this account may go on with what they have begun: each looks for itself.
    fn release(&mut self, account: Account) {
        let held_back = self.connections.iter().filter(|(_, c)| c.held_back && c.peer.account() == account);
        let held_back: Vec<usize> = held_back.map(|(index, _)| index).collect();
        for index in held_back {
            self.connections[index].held_back = false;
            self.accounts.hold_back(account, false);
            self.mark_dirty(index);
        }
    }

    /// Reads and handles all that a process has written so far. Bounded: a child that it left behind may have
    /// inherited the connection, and write without end. The end itself is left for the event that tells it.
    pub(crate) fn read_all(&mut self, index: usize) {
        for _ in 0..READS_MAX {
            match self.connections[index].read(&mut self.scratch, READ_BYTES) {
                Ok(count) if count > 0 => self.handle_input(index),
                _ => {
                    self.connections[index].decoder.give_back(&mut self.scratch);
                    break;
                }
            }
        }
    }

    /// Handles the messages that are complete; of a client as many as one turn may bring.
    pub(crate) fn handle_input(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let mut decoder = std::mem::take(&mut connection.decoder);
        if let Some(encoding) = decoder.encoding() {
            connection.encoding = encoding;
        }
        let before = connection.unwritten();
        let now = self.clock.now();
        let mut stalled = false;
        loop {
            if !self.connections[index].may_ask(before) {
                stalled = true;
                break;
            }
            match decoder.next::<ToSupervisor>() {
                Ok(None) => break,
                Ok(Some(request)) => self.request(now, index, request),
                Err(DecodeError::Message { reference, settles, reason, .. }) => {
                    self.misunderstood(now, index, reference, &reason);
                    self.settle_misunderstood(now, index, settles, &reason);
                }
                Err(DecodeError::Stream(reason)) => {
                    self.misunderstood(now, index, None, &reason);
                    self.connections[index].closing = true;
                    break;
                }
            }
            self.apply();
            if self.connections[index].closing {
                break;
            }
        }
        decoder.give_back(&mut self.scratch);
        self.say_accepted(index);
        let connection = &mut self.connections[index];
        connection.decoder = decoder;
        if stalled {
            self.stall(index);
        }
        self.charge(index);
        self.mark_dirty(index);
    }

    /// Whether there is something to do without an event.
    pub(crate) fn has_unfinished_turns(&self) -> bool {
        let waits_for_us =
            |key: &NonZeroU64| self.connection(*key).is_some_and(|index| self.connections[index].has_read_enough());
        self.stalled.iter().any(waits_for_us)
    }

    /// The next turn of those who had asked more than one turn brings.
    pub(crate) fn go_on_with_stalled(&mut self) {
        for key in std::mem::take(&mut self.stalled) {
            let Some(index) = self.connection(key) else { continue };
            let connection = &mut self.connections[index];
            if connection.has_read_enough() && !connection.questions.is_empty() {
                self.asked.push(key);
            }
            match connection.may_ask(connection.unwritten()) {
                true => {
                    connection.stalled = false;
                    self.handle_input(index);
                }
                false => self.stalled.push(key),
            }
        }
    }

    /// Something that a connection has asked has to wait for another turn.
    pub(crate) fn stall(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if !std::mem::replace(&mut connection.stalled, true) {
            self.stalled.push(connection.key);
        }
        self.mark_dirty(index);
    }

    /// The other side has closed: nothing more comes, and nothing more is written.
    pub(crate) fn hang_up(&mut self, index: usize) {
        let peer = self.forget_connection(index);
        match peer.0 {
            Peer::Client(creds) => {
                debug!(connection = index, pid = creds.pid, uid = creds.uid, "a client's connection is closed");
                // Signals that it has made may be lost to those who wait for them.
                self.apply();
                self.client_left();
            }
            Peer::Attached { process, .. } => {
                self.client_left();
                self.core.handle(self.clock.now(), Event::Disconnected { process });
                self.apply();
            }
            Peer::Worker { process, slot, .. } => {
                let ended = &mut self.processes[slot];
                ended.connection = None;
                ended.unwritten_task = peer.1;
                self.core.handle(self.clock.now(), Event::Disconnected { process });
                self.apply();
            }
        }
    }

    /// Takes a connection out of everything; returns whose it was, and the first task not written to it whole.
    pub(crate) fn forget_connection(&mut self, index: usize) -> (Peer, Option<workhall_protocol::ids::MessageId>) {
        let mut connection = self.connections.remove(index);
        let _closing = self.poller.remove(connection.stream());
        if connection.awaited > 0 {
            self.core.forget_waits(connection.key);
            self.forget_followers(connection.key);
        }
        self.core.forget_signals(connection.key);
        let (account, key) = (connection.peer.account(), connection.key.get());
        self.accounts.close(account, key, &mut connection.charged, connection.held_back);
        if self.accounts.may_go_on(account, READ_BYTES) {
            self.release(account);
        }
        (connection.peer, connection.first_unwritten_task())
    }

    /// Writes what this turn has to say: once per connection.
    pub(crate) fn flush(&mut self) {
        let mut over = Vec::new();
        while let Some(index) = self.dirty.pop() {
            if self.connections.get(index).is_some_and(|connection| connection.dirty) {
                self.flush_one(index, &mut over);
            }
            if self.dirty.is_empty() {
                over.sort_unstable();
                over.dedup();
                over.drain(..).for_each(|account| self.cut(account));
            }
        }
    }

    fn flush_one(&mut self, index: usize, too_much: &mut Vec<Account>) {
        let connection = &mut self.connections[index];
        connection.dirty = false;
        let written = connection.flush(&mut self.spares);
        if written.is_err() {
            connection.drop_output();
        }
        let nothing_waits = !connection.stalled && connection.questions.is_empty();
        let over = match &written {
            Ok(()) => {
                let nothing_follows = connection.half_closed && connection.awaited == 0 && nothing_waits;
                connection.unwritten() == 0 && (connection.closing || nothing_follows)
            }
            // A client that has left has no answers, but what it had asked for before is still taken in.
            Err(error) if has_left(error) => connection.closing || connection.half_closed && nothing_waits,
            Err(_) => true,
        };
        match connection.peer {
            Peer::Client(_) if over => return self.hang_up(index),
            // What a worker has written is still read, up to its end; only a stream beyond repair is cut.
            Peer::Worker { .. } | Peer::Attached { .. } if connection.closing && over => return self.hang_up(index),
            _ => {
                if let Some(interest) = connection.new_interest() {
                    let token = Token::Connection { index, serial: connection.serial() }.pack();
                    let watched = self.poller.modify(connection.stream(), token, interest);
                    debug_assert!(watched.is_ok(), "it is open and in the poller");
                }
            }
        }
        let account = connection.peer.account();
        if self.charge(index) {
            too_much.push(account);
        }
        if self.accounts.may_go_on(account, READ_BYTES) {
            self.release(account);
        }
    }

    /// Charges what a connection holds now to its account. Returns whether that has too much unread.
    pub(crate) fn charge(&mut self, index: usize) -> bool {
        let connection = &mut self.connections[index];
        let (account, now) = (connection.peer.account(), connection.charge());
        if now.unfinished < connection.charged.unfinished {
            self.accounts.finished(account, connection.key.get());
        }
        self.accounts.update(account, &mut connection.charged, now)
    }

    /// An account has left too many answers unread: it loses the connections with the most of them.
    fn cut(&mut self, account: Account) {
        let mut unread: Vec<(Reverse<usize>, NonZeroU64)> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.peer.account() == account)
            .map(|(_, connection)| (Reverse(connection.charged.unread), connection.key))
            .collect();
        unread.sort_unstable();
        for (Reverse(bytes), key) in unread {
            let Some(index) = self.connection(key).filter(|_| self.accounts.unread_excess(account) > 0) else { break };
            let limit = self.config.unread_bytes;
            let detail = format!(
                "{bytes} bytes of answers wait to be read; with all connections it is more than {limit} \
                 (`unread_bytes` in [supervisor])"
            );
            match self.connections[index].peer {
                Peer::Client(creds) => {
                    if self.accounts.tell_once(account) {
                        let (uid, pid) = (creds.uid, creds.pid);
                        warn!(uid, pid, "a connection of user {uid} (process {pid}) is closed: {detail}");
                    }
                }
                Peer::Worker { process, .. } | Peer::Attached { process, .. } => {
                    self.core.handle(self.clock.now(), Event::Violation { process, detail: &detail });
                }
            }
            self.hang_up(index);
        }
    }
}

fn has_left(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset)
}
