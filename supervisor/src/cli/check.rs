//! `workhall check`.

use std::path::PathBuf;

use super::output::Out;
use super::{ExitCode, Failure};
use crate::config::Config;
use crate::diagnostics::say;

/// The arguments of `workhall check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The configuration
    file: PathBuf,
    /// Print a JSON object (of a correct configuration; what is wrong is said on stderr)
    #[arg(long)]
    json: bool,
}

impl Check {
    /// Reads it as `serve` would.
    pub fn run(self) -> Result<ExitCode, Failure> {
        let config = Config::read(&self.file).map_err(|error| Failure::usage(format!("{error:#}")))?;
        if !config.has_classes() {
            let file = self.file.display();
            return Err(Failure::usage(format!(
                "{file} has no classes, and names no `workers` and no `include`: there is nothing to serve"
            )));
        }
        let mut warnings = config.warnings();
        warnings.extend(config.not_enforced(crate::cgroup::why_not_offered));
        for warning in &warnings {
            say(format_args!("warning: {warning}"));
        }
        let classes: Vec<&str> = config.classes().iter().map(|class| &*class.policy.class).collect();
        let mut out = Out::default();
        if self.json {
            out.line(serde_json::json!({ "correct": true, "classes": classes, "warnings": warnings }));
            return out.end(Ok(ExitCode::Done));
        }
        let shown = match (classes.is_empty(), config.workers_dir()) {
            (true, Some(dir)) => format!("the executables of {}", dir.display()),
            (true, None) => "no classes yet".to_string(),
            (false, _) => format!("classes {}", classes.join(", ")),
        };
        out.line(format_args!("{}: correct: {shown}", self.file.display()));
        out.end(Ok(ExitCode::Done))
    }
}
