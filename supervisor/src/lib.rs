//! The supervisor and its command line. A library only so that the fuzz target of the configuration, which is in
//! another package, reads it as `serve` does; nothing else is meant for others.

mod apply;
mod cli;
mod clock;
#[doc(hidden)]
pub mod config;
mod connection;
mod diagnostics;
mod event_loop;
mod exit_code;
mod process_tree;
mod reaper;
mod report;
mod requests;
mod spawner;
mod sys;
mod token;
mod unix_signals;

/// What `workhall` does.
pub fn main() -> std::process::ExitCode {
    cli::run().into()
}
