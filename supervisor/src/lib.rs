//! The supervisor and its command line. A library only so that the fuzz target of the configuration, which is in
//! another package, reads it as `serve` does; nothing else is meant for others.

mod access;
mod accounts;
mod activation;
mod apply;
mod cgroup;
mod cli;
mod clock;
#[doc(hidden)]
pub mod config;
mod connection;
mod dead_letters;
mod diagnostics;
mod ending;
mod event_loop;
mod exit_code;
mod journal;
mod journald;
mod launcher;
mod listener;
mod log;
mod metrics;
mod name_lock;
mod notify;
mod output;
mod process_tree;
mod processes;
mod questions;
mod reaper;
mod reload;
mod report;
mod requests;
mod signals;
mod spawner;
mod starter;
mod sys;
mod token;
mod traffic;
mod unix_signals;
mod upgrade;

/// What `workhall` does.
pub fn main() -> std::process::ExitCode {
    // In a process of a worker to be, before anything else that would cost time; or after an upgrade, before anything is
    // opened.
    launcher::run_if_asked().or_else(upgrade::run_if_asked).unwrap_or_else(|| cli::run().into())
}
