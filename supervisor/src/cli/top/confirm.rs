//! What an act would do, said before it is done.

use super::asker::messages;
use super::model::{Act, Action, KillHow};
use crate::cli::output::{age, safe};
use crate::report::WorkerRow;

/// One question with its consequences, by what was last known of the worker and its dead letters.
pub fn sentence(act: &Act, row: Option<&WorkerRow>, letters: Option<u64>) -> String {
    let whom = format!("{} (%{})", safe(&act.name), act.number);
    let pending = row.map_or(0, |row| row.pending);
    let task = row.and_then(|row| row.running.as_ref());
    let task = task.map(|task| format!("`{}`, for {}", safe(&task.method), age(task.age_ms)));
    match act.action {
        Action::Kill(KillHow::Drain) => {
            let first = if pending == 0 { String::new() } else { format!(" the {} that wait and", messages(pending)) };
            format!("Drain {whom}? It executes{first} what it has begun, then ends. Newer calls go to a successor.")
        }
        Action::Kill(how) => {
            let discarded = match pending {
                0 => "Nothing is pending".to_string(),
                1 => "1 pending message is discarded".to_string(),
                many => format!("{} are discarded, which are pending", messages(many)),
            };
            let (verb, end) = match (how == KillHow::Now, task) {
                (true, Some(task)) => ("Kill at once", format!("the current task ({task}) is cut short by SIGKILL")),
                (true, None) => ("Kill at once", "its process is ended by SIGKILL".to_string()),
                (false, Some(task)) => ("Kill", format!("it ends after the current task ({task})")),
                (false, None) => ("Kill", "it is asked to end".to_string()),
            };
            format!("{verb} {whom}? {discarded}; {end}.")
        }
        Action::Pause => {
            let what = match row.and_then(|row| row.pid) {
                Some(pid) => format!("Its process {pid} stops where it is (SIGSTOP)"),
                None => "No process of it is started".to_string(),
            };
            format!("Pause {whom}? {what}; its mailbox goes on accepting, until it is resumed.")
        }
        Action::Resume => match row.filter(|row| row.paused_ms.is_none()).map(|row| row.state.as_str()) {
            Some("backoff" | "paused") => {
                format!("Resume {whom}? It starts at once, and its crashes are forgotten.")
            }
            _ => format!("Resume {whom}? Its process goes on where it was stopped."),
        },
        Action::Requeue => {
            let which = match letters {
                Some(1) => "its dead letter".to_string(),
                Some(many) => format!("its {many} dead letters"),
                None => "all its dead letters".to_string(),
            };
            format!(
                "Requeue for {}? Posts {which} again, each as a new message, in the order in which they died.",
                safe(&act.name)
            )
        }
    }
}
