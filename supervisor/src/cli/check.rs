//! `workhall check`.

use std::path::PathBuf;

use super::output::print_line;
use super::{ExitCode, Failure};
use crate::config::Config;
use crate::diagnostics::say;

/// The arguments of `workhall check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The configuration
    file: PathBuf,
}

impl Check {
    /// Reads it as `serve` would.
    pub fn run(self) -> Result<ExitCode, Failure> {
        let config = Config::read(&self.file).map_err(|error| Failure::usage(format!("{error:#}")))?;
        for warning in config.warnings() {
            say(format_args!("warning: {warning}"));
        }
        let classes: Vec<&str> = config.classes().iter().map(|class| &*class.policy.class).collect();
        let shown = match classes.is_empty() {
            true => "no classes".to_string(),
            false => format!("classes {}", classes.join(", ")),
        };
        print_line(format_args!("{}: correct: {shown}", self.file.display()))?;
        Ok(ExitCode::Done)
    }
}
