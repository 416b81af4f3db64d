//! `workhall pause` and `resume`.

use std::path::PathBuf;

use workhall_protocol::messages::ReceiptBody;
use workhall_protocol::terms::Ignored;

use super::connect::connect;
use super::dead::unexpected;
use super::output::{print_line, printed};
use super::{ExitCode, Failure, OneWorker};

pub const EXAMPLES: &str = "Examples:
  workhall pause ledger/eu                    its process stops where it is, and is given nothing more
  workhall call ledger/eu post 7              waits in the mailbox
  workhall resume ledger/eu                   it goes on
A kill, also with --drain, ends the pause, and so does the end of the supervisor.";

/// `workhall pause`: stops it.
pub fn pause(asked: OneWorker, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
    asked.worker.check()?;
    let receipt = connect(socket, asked.timeout)?.ask(|client| client.pause(asked.worker.address()))?;
    end(&asked, &receipt, "pause")
}

/// `workhall resume`: ends its pause or backoff.
pub fn resume(asked: OneWorker, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
    asked.worker.check()?;
    let receipt = connect(socket, asked.timeout)?.ask(|client| client.resume(asked.worker.address()))?;
    end(&asked, &receipt, "resume")
}

fn end(OneWorker { worker, json, .. }: &OneWorker, receipt: &ReceiptBody<'_>, verb: &str) -> Result<ExitCode, Failure> {
    if *json {
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
