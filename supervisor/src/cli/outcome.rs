//! What is said of the end of a message.

use std::fmt::Display;

use workhall_protocol::messages::OutcomeBody;

use super::output::{Out, ran, safe, word};
use super::{ExitCode, Failure};

/// What came of a message, and the exit status that says it. `worker` has executed it, or was to.
pub fn show_outcome(worker: &str, outcome: &OutcomeBody<'_>, json: bool, out: &mut Out) -> Result<ExitCode, Failure> {
    if json {
        out.line(serde_json::to_value(outcome).map_err(anyhow::Error::from)?);
    }
    match outcome {
        OutcomeBody::Done { result } => {
            if !json {
                out.line(result.to_json().map_err(anyhow::Error::from)?);
            }
            Ok(ExitCode::Done)
        }
        other => Err(not_done(&worker, other)),
    }
}

/// Why there is no result. `who` has executed it, or was to.
pub fn not_done(who: &dyn Display, outcome: &OutcomeBody<'_>) -> Failure {
    let not_executed = |reason: String| Failure::new(ExitCode::NotExecuted, reason);
    match outcome {
        OutcomeBody::Failed { error } => {
            let error: Vec<String> = error.lines().map(safe).collect();
            Failure::new(ExitCode::Failed, format!("{who} failed: {}", error.join("\n")))
        }
        OutcomeBody::Discarded { may_have_run } => {
            not_executed(format!("discarded by kill or cancel: {}", ran(*may_have_run)))
        }
        OutcomeBody::Expired { may_have_run } => {
            let before = if *may_have_run { "tried again" } else { "started" };
            not_executed(format!("expired before it was {before}: {}", ran(*may_have_run)))
        }
        OutcomeBody::Dead { reason, exit, may_have_run } => {
            let exit = exit.map(|exit| format!(" ({exit})")).unwrap_or_default();
            let reason = word(reason).unwrap_or_default().replace('_', " ");
            not_executed(format!("dead letter, {reason}{exit}: {}", ran(*may_have_run)))
        }
        other => Failure::new(ExitCode::Failed, format!("unexpected outcome: {other:?}")),
    }
}
