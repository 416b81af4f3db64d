//! `workhall run`: a process that executes one method.

use std::path::PathBuf;
use std::time::Duration;

use workhall_protocol::client::ClientError;
use workhall_protocol::messages::{ReceiptBody, Run as RunMessage};
use workhall_protocol::terms::Refusal;

use super::call::{ignored, whole_arguments};
use super::connect::{connect, refused};
use super::outcome::show_outcome;
use super::output::{Out, safe};
use super::{ExitCode, Failure, parse_duration};
use crate::diagnostics::say;

pub const EXAMPLES: &str = "Examples:
  workhall run import load /data/rows.csv     start a process that executes one method, and ends with it
  workhall run report monthly --wait          wait for the result and print it
  workhall run import load --name nightly --unique
                                              do nothing if one of that name runs already";

/// The arguments of `workhall run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// The class: its program is started, with all that it sets
    class: String,
    /// The method; left out or empty it is the startup method of the class
    #[arg(default_value = "", hide_default_value = true)]
    method: String,
    /// The arguments: each is JSON if it parses as JSON, else a string
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    arguments: Vec<String>,
    /// The whole list of arguments as one JSON array; `-` reads it from stdin
    #[arg(long, value_name = "JSON", conflicts_with = "arguments")]
    args: Option<String>,
    /// The name of the process [default: CLASS/run-NUMBER]
    #[arg(long)]
    name: Option<String>,
    /// If one of this name runs already, say which, and start nothing
    #[arg(long, requires = "name")]
    unique: bool,
    /// Wait for the outcome and print the method's result as JSON
    #[arg(long)]
    wait: bool,
    /// Give up waiting after this long (the process goes on)
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Print the receipt, or with --wait the outcome, as JSON
    #[arg(long)]
    json: bool,
}

impl Run {
    /// Starts it, and waits if asked to.
    pub fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let mut out = Out::default();
        let result = self.run_one(socket, &mut out);
        out.end(result)
    }

    fn run_one(&self, socket: Option<PathBuf>, out: &mut Out) -> Result<ExitCode, Failure> {
        let args = whole_arguments(&self.arguments, self.args.as_deref())?;
        let mut connection = connect(socket, self.timeout)?;
        let asked = connection.ask(|client| {
            let run = RunMessage {
                class: self.class.as_str().into(),
                method: self.method.as_str().into(),
                args,
                reference: None,
                wait: self.wait,
                name: self.name.as_deref().map(Into::into),
                unique: self.unique,
            };
            match client.run(run) {
                Err(ClientError::Encode(error)) => Ok(Err(error)),
                other => other.map(Ok),
            }
        })?;
        // What the wire cannot carry is refused here as the supervisor refuses what is too large.
        let too_large = |error: &dyn std::fmt::Display| ReceiptBody::Refused {
            reason: Refusal::TooLarge,
            detail: error.to_string().into(),
        };
        let (ticket, receipt) = match asked {
            Ok((ticket, receipt)) => (Some(ticket), receipt),
            Err(error) => (None, too_large(&error)),
        };
        let accepted = matches!(receipt, ReceiptBody::Accepted(_));
        if self.json && !(accepted && self.wait) {
            out.line(serde_json::to_value(&receipt).map_err(anyhow::Error::from)?);
        }
        match &receipt {
            ReceiptBody::Accepted(process) => match ticket.filter(|_| self.wait) {
                None => Ok(ExitCode::Done),
                Some(ticket) => {
                    let outcome = connection.ask(|client| client.outcome(ticket))?;
                    show_outcome(&safe(&process.worker), &outcome, self.json, out)
                }
            },
            ReceiptBody::Running(running) => {
                if !self.json {
                    say(format!("{} runs already, as %{}: nothing was started", safe(&running.worker), running.number));
                }
                Ok(ExitCode::Done)
            }
            ReceiptBody::Ignored { reason } => {
                if !self.json {
                    say(format!("ignored, and nothing was started: {}", ignored(*reason)));
                }
                Ok(ExitCode::Done)
            }
            ReceiptBody::Refused { reason, detail } => Err(refused(*reason, detail)),
            other => Err(Failure::new(ExitCode::Failed, format!("unexpected answer: {other:?}"))),
        }
    }
}
