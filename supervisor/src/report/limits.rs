//! What a class allows its workers, as `info` says it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use workhall_core::Policy;

use crate::config::Settings;

/// What a class allows; null is without a limit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClassLimits {
    /// From the spawn until the process must be ready.
    pub start_timeout_ms: u64,
    /// One task.
    pub task_timeout_ms: Option<u64>,
    /// A process without anything to do.
    pub idle_timeout_ms: Option<u64>,
    /// How long a kill waits for the current task.
    #[serde(default)]
    pub task_grace_ms: Option<u64>,
    /// From the end of the task until SIGTERM.
    #[serde(default)]
    pub exit_grace_ms: u64,
    /// From SIGTERM until SIGKILL.
    #[serde(default)]
    pub term_grace_ms: u64,
    /// Bytes of all its processes.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Its processes and threads.
    #[serde(default)]
    pub processes: Option<u64>,
    /// What `limits` sets of each process, by its key there: a count, seconds of `cpu_time`, or bytes; null is unlimited.
    #[serde(default)]
    pub resources: BTreeMap<String, Option<u64>>,
    /// Which of `memory` and `processes` this machine does not enforce, and why, one sentence each.
    #[serde(default)]
    pub not_enforced: Vec<String>,
    /// How often a message may be executed whose process dies meanwhile.
    pub attempts: u8,
    /// When the worker pauses.
    pub crash_limit: CrashLimitReport,
}

/// When too many crashes pause a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CrashLimitReport {
    /// So many …
    pub crashes: u16,
    /// … within this time …
    pub within_ms: u64,
    /// … pause it for so long.
    pub pause_ms: u64,
    /// `accept` or `refuse`.
    pub calls: String,
    /// `keep` or `drop`.
    pub unstarted: String,
}

impl ClassLimits {
    /// Of a policy, and of what its class sets for processes. `why_not` says why a controller limits nothing.
    pub fn new(policy: &Policy, settings: Option<&Settings>, why_not: impl Fn(&str) -> Option<String>) -> ClassLimits {
        let millis = |duration: std::time::Duration| duration.as_millis() as u64;
        let limit = &policy.crash_limit;
        ClassLimits {
            start_timeout_ms: millis(policy.start_timeout),
            task_timeout_ms: policy.task_timeout.map(millis),
            idle_timeout_ms: policy.idle_timeout.map(millis),
            task_grace_ms: policy.task_grace.map(millis),
            exit_grace_ms: millis(policy.exit_grace),
            term_grace_ms: millis(policy.term_grace),
            memory_bytes: settings.and_then(|settings| settings.memory),
            processes: settings.and_then(|settings| settings.processes),
            resources: settings
                .into_iter()
                .flat_map(|settings| &settings.limits)
                .map(|(limit, most)| (limit.key().to_string(), *most))
                .collect(),
            not_enforced: settings.map(|settings| settings.not_enforced(why_not).collect()).unwrap_or_default(),
            attempts: policy.attempts,
            crash_limit: CrashLimitReport {
                crashes: limit.crashes,
                within_ms: millis(limit.within),
                pause_ms: millis(limit.pause),
                calls: if limit.refuse_calls { "refuse" } else { "accept" }.to_string(),
                unstarted: if limit.drop_unstarted { "drop" } else { "keep" }.to_string(),
            },
        }
    }
}
