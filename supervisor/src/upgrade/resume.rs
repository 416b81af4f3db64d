//! The other side of an upgrade: the new program takes over what the one before it has left.
//!
//! Everything that can be refused was refused before, when this program was asked. What fails here ends the supervisor,
//! as it would at any start: its workers notice, finish their tasks and end.

use std::fs::File;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use tracing::{error, info};
use workhall_core::Core;
use workhall_protocol::MarkPage;
use workhall_protocol::messages::{Receipt, ReceiptBody, Ref, Reply};

use super::state::{self, CarriedProcess, State};
use super::{VARIABLE, own_binary};
use crate::cgroup::{Group, Trees};
use crate::config::Config;
use crate::connection::{Connection, Peer};
use crate::diagnostics::go_on;
use crate::event_loop::{EventLoop, Process, Setup};
use crate::log;
use crate::metrics::Door;
use crate::name_lock::NameLocks;
use crate::notify::Notifier;
use crate::output::{CarriedOutput, Output, Outputs};
use crate::report::UpgradeReport;
use crate::sys::{self, Interest, LeftOpen, Listener, Stream};
use crate::token::Token;

const READ: Interest = Interest { read: true, write: false };

/// Goes on as the supervisor of this process, if the program before has left one.
pub fn run_if_asked() -> Option<ExitCode> {
    let value = std::env::var(VARIABLE).ok()?;
    let (number, process) = value.split_once(':')?;
    // A child may have inherited the variable.
    if process.parse() != Ok(std::process::id()) {
        return None;
    }
    let resumed = number.parse().context("no number").and_then(resume);
    Some(match resumed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("the supervisor cannot go on after its upgrade: {error:#}");
            ExitCode::FAILURE
        }
    })
}

fn resume(number: i32) -> anyhow::Result<()> {
    let mut left = LeftOpen::default();
    let file = File::from(left.take(number)?);
    ensure!(sys::is_sealed(&file), "the state may have been changed");
    let bytes = file.metadata()?.len();
    let (mut state, config, core) = state::read(&file)?;
    drop(file);
    go_on(std::mem::take(&mut state.unsaid));
    log::set(config.log());
    log::have_lost(state.log.lost);
    let (socket, is_ours) = (state.socket.clone(), state.socket_is_ours);
    let mut this = take_over(state, config, core, &mut left, bytes).context("cannot take over what there is")?;
    let ended = this.run().context("the event loop failed");
    if is_ours {
        let _already_gone = std::fs::remove_file(socket);
    }
    ended
}

/// A supervisor that is as the one before it was, and has answered who asked for it.
fn take_over(
    mut state: State,
    config: Config,
    core: Core,
    left: &mut LeftOpen,
    bytes: u64,
) -> anyhow::Result<EventLoop> {
    let mut setup = Setup {
        config,
        socket: state.socket.clone(),
        listener: Listener::from(left.take(state.listener)?),
        lock: sys::lock_again(left.take(state.lock)?)?,
        names: NameLocks::again(std::mem::take(&mut state.names.0), File::from(left.take(state.names.1)?))?,
        descriptors: state.descriptors,
        trees: Trees::again(state.trees.clone()),
        no_new_privs: state.no_new_privs,
        adopted: !state.socket_is_ours,
        metrics: state.metrics.take().map(|door| Door::again(door, left)).transpose()?,
        notifier: Notifier::from_environment(),
        not_enforced: std::mem::take(&mut state.not_enforced),
        // The core has its own.
        seed: 0,
    };
    setup.config.fit(state.descriptors);
    let mut this = EventLoop::bare(setup)?;
    this.core = core;
    // By now it may be another's.
    this.socket_file = state.socket_file.or(this.socket_file);
    this.clock = state.clock;
    this.next_serial = state.next_serial;
    this.foreign = std::mem::take(&mut state.foreign);
    this.inherited = std::mem::take(&mut state.inherited);
    let classes = std::mem::take(&mut state.classes).into_iter();
    this.classes = classes.map(|class| (class.policy.class.clone(), Arc::new(class))).collect();
    this.journal.go_on(std::mem::take(&mut state.journal));
    this.take_over_connections(&mut state, left)?;
    this.take_over_processes(std::mem::take(&mut state.processes), left)?;
    // Signals are handled from here on: what was held back comes now. Children that have ended meanwhile are looked for
    // in any case.
    sys::unblock_signals()?;
    this.reap_adopted = true;
    this.binary = state.binary.take().unwrap_or_else(own_binary);
    let pause = this.clock.on_the_kernels().saturating_sub(state.stopped_at);
    let report = UpgradeReport {
        version: env!("CARGO_PKG_VERSION").to_string(),
        was: std::mem::take(&mut state.version),
        binary: this.binary.display().to_string(),
        pid: std::process::id(),
        pause_us: u64::try_from(pause.as_micros()).unwrap_or(u64::MAX),
        state_bytes: bytes,
    };
    info!("workhall {} goes on for {}, from {}", report.version, report.was, report.binary);
    if let Some((key, reference)) = state.by {
        this.answer_upgrade(key, reference, &report);
    }
    Ok(this)
}

impl EventLoop {
    fn take_over_connections(&mut self, state: &mut State, left: &mut LeftOpen) -> anyhow::Result<()> {
        let mut connections = Vec::new();
        for (number, carried) in std::mem::take(&mut state.connections) {
            let index = (carried.key.get() & u64::from(u32::MAX)) as usize;
            let connection = Connection::again(carried, Stream::from(left.take(number)?));
            let token = Token::Connection { index, serial: connection.serial() }.pack();
            self.poller.add(connection.stream(), token, READ)?;
            self.accounts.open(connection.peer.account());
            self.clients += usize::from(connection.peer.has_connected());
            if connection.stalled {
                self.stalled.push(connection.key);
            }
            connections.push((index, connection));
        }
        let places: Vec<usize> = connections.iter().map(|(index, _)| *index).collect();
        self.connections = connections.into_iter().collect();
        for index in places {
            self.charge(index);
            // What waits to be written, and what it is to be watched for, is seen to at the end of the turn.
            self.mark_dirty(index);
        }
        self.accounts.take_notes(std::mem::take(&mut state.accounts));
        Ok(())
    }

    fn take_over_processes(&mut self, carried: Vec<CarriedProcess>, left: &mut LeftOpen) -> anyhow::Result<()> {
        let mut processes = Vec::new();
        for carried in carried {
            let (slot, pidfd, page_fd) = (carried.slot, left.take(carried.pidfd)?, left.take(carried.page)?);
            let mut outputs: Outputs = [None, None];
            for (output, carried) in outputs.iter_mut().zip(carried.outputs) {
                let Some(CarriedOutput { pipe, rest }) = carried else { continue };
                *output = Some(Output::again(File::from(left.take(pipe)?), rest));
            }
            let process = Process {
                key: carried.key,
                pid: carried.pid,
                page: Arc::new(MarkPage::again(&page_fd)?),
                page_fd,
                pidfd,
                serial: carried.serial,
                connection: carried.connection,
                unwritten_task: carried.unwritten_task,
                reaped: carried.reaped,
                group: carried.group.map(|dir: PathBuf| Group::again(dir)),
                sweep: carried.sweep,
                outputs,
            };
            if !process.reaped {
                // If it has ended meanwhile, that is told at the first wait.
                self.poller.add(&process.pidfd, Token::Process { slot, serial: process.serial }.pack(), READ)?;
                self.leaders.insert(process.pid);
            }
            processes.push((slot, process));
        }
        self.processes = processes.into_iter().collect();
        for (slot, _) in &self.processes {
            self.watch_outputs(slot)?;
        }
        let ended: Vec<usize> =
            self.processes.iter().filter(|(_, it)| it.sweep.is_some()).map(|(slot, _)| slot).collect();
        for slot in ended {
            match self.processes[slot].group {
                Some(_) => self.end_tree(slot, false),
                None => self.hunt_orphans_of(slot, false),
            }
        }
        debug_assert!(self.connections.iter().all(|(_, connection)| match connection.peer {
            Peer::Worker { slot, process, .. } => self.processes.get(slot).is_some_and(|it| it.key == process),
            Peer::Client(_) | Peer::Attached { .. } => true,
        }));
        Ok(())
    }

    fn answer_upgrade(&mut self, key: NonZeroU64, reference: Ref, report: &UpgradeReport) {
        let Some(index) = self.connection(key) else { return };
        self.connections[index].awaited -= 1;
        match workhall_protocol::args::Payload::encode(report) {
            Ok(payload) => {
                self.say(index, &Reply::Receipt(Receipt { reference, body: ReceiptBody::Report(payload) }));
            }
            Err(error) => debug_assert!(false, "a report can be said: {error}"),
        }
    }
}
