//! `workhall upgrade`.

use std::path::PathBuf;

use serde_json::json;

use super::connect::connect;
use super::output::{Out, bytes, safe};
use super::reload::done;
use super::show::read;
use super::{ExitCode, Failure};
use crate::report::UpgradeReport;

pub const EXAMPLES: &str = "Examples:
  workhall upgrade                                 after a new version was installed over the old one
  workhall upgrade --binary /opt/workhall/workhall";

/// The arguments of `workhall upgrade`.
#[derive(Debug, clap::Args)]
pub struct Upgrade {
    /// The program to become [default: the file that the supervisor was started from]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Print the report as a JSON object
    #[arg(long)]
    json: bool,
}

impl Upgrade {
    /// Has the supervisor become another program, and waits for the word of that one.
    pub fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let binary = self.binary.as_ref().map(std::path::absolute).transpose()?;
        let binary = match &binary {
            None => None,
            Some(path) => Some(path.to_str().ok_or_else(|| Failure::usage("the path is no UTF-8"))?),
        };
        let report = done(connect(socket, None)?.ask(|client| client.upgrade(binary))?)?;
        let mut out = Out::default();
        if self.json {
            out.line(json!({ "upgraded": report }));
            return out.end(Ok(ExitCode::Done));
        }
        let UpgradeReport { version, was, binary, pid, pause_us, state_bytes } = read(report)?;
        let (millis, state) = (pause_us as f64 / 1000.0, bytes(state_bytes));
        out.line(format_args!(
            "workhall {} goes on for {}, as process {pid}, from {}: a pause of {millis:.1} ms, {state} handed over",
            safe(&version),
            safe(&was),
            safe(&binary)
        ));
        out.end(Ok(ExitCode::Done))
    }
}
