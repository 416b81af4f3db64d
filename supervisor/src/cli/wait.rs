//! `workhall wait`.

use std::path::PathBuf;
use std::time::Duration;

use workhall_protocol::messages::{ReceiptBody, Until};

use super::connect::{connect, refused};
use super::output::Out;
use super::{ExitCode, Failure, WorkerArgument, parse_duration};

/// The arguments of `workhall wait`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("until").required(true).args(["idle", "gone", "empty"])))]
pub struct Wait {
    /// The worker: a name, or %7 for number 7
    worker: WorkerArgument,
    /// WORKER is a name, also if it looks like a number
    #[arg(long)]
    name: bool,
    /// Until nothing is executed and nothing is pending
    #[arg(long)]
    idle: bool,
    /// Until there is no process, and none is about to be started
    #[arg(long)]
    gone: bool,
    /// Until nothing is pending (a task may still be running)
    #[arg(long)]
    empty: bool,
    /// Give up after this long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Print `{"reached":{}}` when it is so
    #[arg(long)]
    json: bool,
}

impl Wait {
    fn what(&self) -> &'static str {
        match (self.idle, self.gone) {
            (true, _) => "idle",
            (_, true) => "gone",
            _ => "empty",
        }
    }

    /// Returns when it is so.
    pub fn run(mut self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        self.worker = self.worker.read(self.name);
        let until = match (self.idle, self.gone) {
            (true, _) => Until::Idle,
            (_, true) => Until::Gone,
            _ => Until::Empty,
        };
        self.worker.check()?;
        let mut connection = connect(socket, self.timeout)?;
        let ticket = connection.ask(|client| client.wait(self.worker.address(), until))?;
        if let ReceiptBody::Refused { reason, detail } = connection.receipt(ticket)? {
            return Err(refused(reason, &detail));
        }
        let outcome = connection.ask(|client| client.outcome(ticket)).map_err(|failure| match failure.code {
            ExitCode::TimedOut => Failure::new(
                ExitCode::TimedOut,
                format!("the time ran out, and {} is not {}", self.worker, self.what()),
            ),
            _ => failure,
        })?;
        let mut out = Out::default();
        if self.json {
            out.line(serde_json::to_value(outcome).map_err(anyhow::Error::from)?);
        }
        out.end(Ok(ExitCode::Done))
    }
}
