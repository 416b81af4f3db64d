//! `workhall reload`.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use workhall_protocol::messages::ReceiptBody;

use super::connect::{connect, refused};
use super::output::{Out, safe};
use super::show::read;
use super::{ExitCode, Failure, parse_duration};
use crate::diagnostics::say;
use crate::report::ReloadReport;

pub const EXAMPLES: &str = "Examples:
  workhall reload                 take the file over; running processes stay as they are
  workhall reload --restart       and start those anew whose class has changed, after their current task";

/// The arguments of `workhall reload`.
#[derive(Debug, clap::Args)]
pub struct Reload {
    /// Ask the processes whose class has changed to end after their current task; what waits is executed by the next one
    #[arg(long)]
    restart: bool,
    /// Print the report as a JSON object
    #[arg(long)]
    json: bool,
    /// Give up waiting after this long (the reload goes on)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

impl Reload {
    /// Has the configuration read again, and prints what has changed.
    pub fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let report = done(connect(socket, self.timeout)?.ask(|client| client.reload(self.restart))?)?;
        let mut out = Out::default();
        if self.json {
            out.line(json!({ "reloaded": report }));
            return out.end(Ok(ExitCode::Done));
        }
        let report: ReloadReport = read(report)?;
        for warning in &report.warnings {
            say(format_args!("warning: {}", safe(warning)));
        }
        let lines: Vec<String> = report.lines().into_iter().chain(report.workers_line()).collect();
        if lines.is_empty() {
            out.line(format_args!("{}: nothing has changed", safe(&report.config)));
        }
        for line in lines {
            out.line(safe(&line));
        }
        out.end(Ok(ExitCode::Done))
    }
}

/// The report on what the supervisor has done; or what it could not do, and why, which may quote a line of a file.
pub fn done(receipt: ReceiptBody<'_>) -> Result<Value, Failure> {
    match receipt {
        ReceiptBody::Report(payload) => Ok(payload.to_json().map_err(anyhow::Error::msg)?),
        ReceiptBody::Failed { error } => {
            let lines: Vec<String> = error.lines().map(safe).collect();
            Err(Failure::new(ExitCode::Failed, lines.join("\n")))
        }
        ReceiptBody::Refused { reason, detail } => Err(refused(reason, &detail)),
        other => Err(Failure::new(ExitCode::Failed, format!("unexpected answer: {other:?}"))),
    }
}
