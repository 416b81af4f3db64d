//! `workhall`: the supervisor and its command line, in one binary.

mod access;
mod accounts;
mod apply;
mod cli;
mod clock;
mod config;
mod connection;
mod diagnostics;
mod event_loop;
mod exit_code;
mod listener;
mod process_tree;
mod reaper;
mod report;
mod requests;
mod spawner;
mod sys;
mod token;
mod traffic;
mod unix_signals;

fn main() -> std::process::ExitCode {
    cli::run().into()
}
