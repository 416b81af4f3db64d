//! What happens to workers, as far as it is logged.

use workhall_core::{Change, Ending, KillMode, News};
use workhall_protocol::terms::{EndedBy, Exit, StartStage};

/// Says it, if its level is on, of an end with the number of the process. Starts are said where that is known.
pub(crate) fn log_news(news: &News, pid: Option<i32>) {
    macro_rules! say {
        ($level:ident, $($rest:tt)+) => {
            tracing::$level!(
                worker = &*news.worker.name,
                number = news.worker.number.0,
                generation = news.generation.0,
                class = &*news.policy.class,
                $($rest)+
            )
        };
    }
    match &news.what {
        Change::Started | Change::Created => {}
        Change::NotStarted { detail, .. } => say!(warn, "its process could not be started: {detail}"),
        Change::Held => say!(debug, "a process of an earlier supervisor holds its name"),
        Change::Ready => say!(debug, "its process is ready"),
        Change::Attached => say!(debug, "a process that somebody else has started has taken its name"),
        Change::Left { drain: true } => say!(debug, "it leaves when it is empty"),
        Change::Left { drain: false } => say!(debug, "it leaves"),
        Change::Disconnected => say!(debug, "its connection has ended unasked"),
        Change::Violation { detail } => say!(debug, "its process has said what it must not say: {detail}"),
        Change::Killed { mode, discarded } => {
            let how = match mode {
                KillMode::Ladder => "killed",
                KillMode::Drain => "killed when it is empty",
                KillMode::Now => "killed at once",
            };
            say!(debug, discarded, "it is {how}")
        }
        Change::Idle => say!(debug, "its process is ended: it has nothing to do"),
        Change::TimedOut { message } => {
            say!(warn, message_id = message.0, "its process is ended: the task took too long")
        }
        Change::Replaced => say!(debug, "its process makes place for one of the newest class"),
        Change::Retired => say!(debug, "no class has its name any more"),
        Change::Signalled { step: EndedBy::Kill } => say!(debug, "its process gets SIGKILL"),
        Change::Signalled { .. } => say!(debug, "its process gets SIGTERM"),
        Change::Exited { exit, ended_by: None, stage: Some(_), failure }
        // The supervisor itself has ended it then.
        | Change::Exited { exit, stage: Some(StartStage::NotReadyInTime), failure, .. } => {
            say!(warn, pid, "its process has failed to start: {}", why(Some(*exit), failure.as_deref()))
        }
        Change::Exited { exit: exit @ Exit::Code(0), .. } => say!(debug, pid, "its process has ended: {exit}"),
        Change::Exited { exit, ended_by: None, .. } => say!(warn, pid, "its process has crashed: {exit}"),
        Change::Exited { exit, .. } => say!(debug, pid, "its process has ended: {exit}"),
        Change::Backoff { delay } => {
            say!(debug, delay_ms = delay.as_millis() as u64, "its next process waits")
        }
        Change::Paused { pause, exit, failure } => {
            let (pause_ms, why) = (pause.as_millis() as u64, why(*exit, failure.as_deref()));
            say!(warn, pause_ms, "it has crashed too often, and is paused (`crash_limit`): {why}")
        }
        Change::Suspended => say!(debug, "an operator has paused it"),
        Change::Resumed => say!(debug, "it is resumed"),
        Change::Gone => say!(debug, "it is gone"),
        Change::Ended { message, count, fate, .. } => match fate {
            Ending::Failed { error } => say!(trace, message_id = message.0, "a task has failed: {error}"),
            Ending::Discarded => say!(trace, message_id = message.0, count, "messages were discarded"),
            Ending::Expired => say!(trace, message_id = message.0, count, "messages have expired"),
            Ending::Dead { reason, .. } => {
                say!(debug, message_id = message.0, count, reason = ?reason, "messages are dead letters")
            }
        },
    }
}

/// Why a process is no more, as far as is known.
fn why(exit: Option<Exit>, failure: Option<&str>) -> String {
    match (failure, exit) {
        (Some(failure), Some(exit)) => format!("{failure} ({exit})"),
        (Some(failure), None) => failure.to_string(),
        (None, Some(exit)) => exit.to_string(),
        (None, None) => "nobody knows why".to_string(),
    }
}
