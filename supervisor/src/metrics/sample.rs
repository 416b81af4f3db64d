//! All figures at one moment: what the loop fills in its turn, as plain values.

use std::time::Duration;

use workhall_core::{Ages, ClassStats, Counters, DeadTotals, Ledger, Limits, WorkerStats};

use crate::clock::Clock;
use crate::event_loop::EventLoop;

/// So many workers have series of their own at most, all classes together.
pub(super) const WORKERS_MAX: usize = 1000;

#[derive(Debug)]
pub(super) struct Sample {
    pub uptime: Duration,
    pub ledger: Ledger,
    pub counters: Counters,
    pub limits: Limits,
    /// Bytes of messages that wait or are executed.
    pub message_bytes: u64,
    pub dead_letters: DeadTotals,
    pub classes: Vec<(ClassStats, Ages)>,
    /// Whether each of them asks for series by worker.
    pub by_worker: Vec<bool>,
    pub named: Vec<WorkerStats>,
    /// Workers beyond [`WORKERS_MAX`], by class.
    pub left_out: Vec<u64>,
    pub clients: usize,
    pub connections: usize,
    pub processes: usize,
    pub workers: usize,
}

impl Sample {
    pub fn of(this: &EventLoop) -> Sample {
        let (now, core) = (this.clock.now(), &this.core);
        let asked = |class: &str| this.classes.get(class).is_some_and(|class| class.metrics_by_worker);
        let (named, left_out) = core.worker_stats(now, WORKERS_MAX, asked);
        let (limits, message_bytes) = core.limits();
        Sample {
            uptime: Clock::since_start(now),
            ledger: core.ledger(),
            counters: core.counters(),
            limits: limits.clone(),
            message_bytes,
            dead_letters: core.dead_totals(),
            classes: core.class_stats().iter().cloned().zip(core.ages(now)).collect(),
            by_worker: core.class_stats().iter().map(|stats| asked(&stats.class)).collect(),
            named,
            left_out,
            clients: this.clients,
            connections: this.connections.len(),
            processes: this.processes.len(),
            workers: core.worker_count(),
        }
    }
}
