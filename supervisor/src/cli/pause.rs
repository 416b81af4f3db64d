//! `workhall pause` and `resume`.

use std::path::PathBuf;
use std::time::Duration;

use workhall_protocol::messages::ReceiptBody;
use workhall_protocol::terms::Ignored;

use super::connect::{Connection, connect};
use super::dead::unexpected;
use super::output::{print_line, printed};
use super::{ExitCode, Failure, WorkerArgument, parse_duration};

pub const EXAMPLES: &str = "Examples:
  workhall pause ledger/eu                    its process stops where it is, and is given nothing more
  workhall call ledger/eu post 7              waits in the mailbox
  workhall resume ledger/eu                   it goes on
A kill, also with --drain, ends the pause, and so does the end of the supervisor.";

/// The arguments of `workhall pause`.
#[derive(Debug, clap::Args)]
pub struct Pause {
    /// The worker: a name, or %7 for number 7
    worker: WorkerArgument,
    /// Print the receipt as JSON
    #[arg(long)]
    json: bool,
    /// Give up after this long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// The arguments of `workhall resume`.
#[derive(Debug, clap::Args)]
pub struct Resume {
    /// The worker: a name, or %7 for number 7
    worker: WorkerArgument,
    /// Print the receipt as JSON
    #[arg(long)]
    json: bool,
    /// Give up after this long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

impl Pause {
    /// Stops it.
    pub fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        self.worker.check()?;
        let mut connection: Connection = connect(socket, self.timeout)?;
        let receipt = connection.ask(|client| client.pause(self.worker.address()))?;
        end(&self.worker, self.json, &receipt, "pause")
    }
}

impl Resume {
    /// Ends its pause or backoff.
    pub fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        self.worker.check()?;
        let mut connection: Connection = connect(socket, self.timeout)?;
        let receipt = connection.ask(|client| client.resume(self.worker.address()))?;
        end(&self.worker, self.json, &receipt, "resume")
    }
}

fn end(worker: &WorkerArgument, json: bool, receipt: &ReceiptBody<'_>, verb: &str) -> Result<ExitCode, Failure> {
    if json {
        printed(print_line(serde_json::to_value(receipt).map_err(anyhow::Error::from)?))?;
    }
    let why = match receipt {
        ReceiptBody::Paused {} | ReceiptBody::Resumed {} => return Ok(ExitCode::Done),
        ReceiptBody::Ignored { reason: Ignored::Ending } => {
            format!("{worker} was killed and is ending, so nothing to {verb}")
        }
        ReceiptBody::Ignored { .. } => {
            format!("there is no worker {worker}, so nothing to {verb}: `workhall ps` lists those there are")
        }
        other => return Err(unexpected(other)),
    };
    Err(Failure::new(ExitCode::Failed, why))
}
