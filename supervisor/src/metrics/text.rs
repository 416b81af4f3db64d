//! The figures as text, in the format of OpenMetrics, which Prometheus reads.

use std::fmt::Error;
use std::fs;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde::Serialize;
use workhall_core::{AGES_OF_MAX, Ages, BUCKETS, CRASHES, ClassStats, DEAD, Histogram, KILLS, REFUSED, WorkerStats};

use super::sample::{Sample, WORKERS_MAX};

/// The text of all figures.
pub(super) fn encode(sample: Sample) -> Result<String, Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(sample));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Sample {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), Error> {
        let mut to = Writer(encoder);
        self.whole(&mut to)?;
        self.by_class(&mut to)?;
        self.by_worker(&mut to)?;
        own(&mut to)
    }
}

impl Sample {
    /// What is of the supervisor as a whole.
    fn whole(&self, to: &mut Writer<'_>) -> Result<(), Error> {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        to.gauges("workhall_build_info", "Always 1; the version is in the label", [(version, 1)])?;
        to.gauge("workhall_uptime_seconds", "Time since the start, also over upgrades", self.uptime.as_secs_f64())?;
        let terms = [("accepted", self.ledger.accepted)].into_iter().chain(self.ledger.terms());
        let help = "Messages since the start: accepted is the sum of all other terms";
        to.gauges("workhall_ledger_messages", help, terms.map(|(term, count)| ([("term", term)], count)))?;
        let counters = &self.counters;
        to.counter("workhall_ignored", "Calls and kills that the rules ignore", counters.ignored)?;
        to.counter("workhall_stale_facts", "Facts from lives that had ended", counters.stale)?;
        to.counter("workhall_violations", "Things that processes said and must not say", counters.violations)?;
        to.gauge("workhall_workers", "Workers, those without a process included", self.workers)?;
        to.gauge("workhall_workers_limit", "The most workers (max_workers)", self.limits.workers)?;
        to.gauge("workhall_processes", "Processes of workers that are not proved gone", self.processes)?;
        to.gauge("workhall_processes_limit", "The most processes (max_processes)", self.limits.processes)?;
        let peers = [("client", self.clients), ("worker", self.connections - self.clients)];
        let peers = peers.map(|(peer, count)| ([("peer", peer)], count));
        to.gauges("workhall_connections", "Open connections", peers)?;
        to.gauge("workhall_message_bytes", "Bytes of messages that wait or are executed", self.message_bytes)?;
        to.gauge("workhall_message_bytes_limit", "The most of them (total_bytes)", self.limits.total_bytes)?;
        to.gauge("workhall_dead_letters", "Dead letters that are kept", self.dead_letters.messages)?;
        to.gauge("workhall_dead_letter_bytes", "Their bytes", self.dead_letters.bytes)?;
        let help = "Dead letters that left because there were too many";
        to.counter("workhall_dead_letters_dropped", help, self.dead_letters.dropped)
    }

    fn by_class(&self, to: &mut Writer<'_>) -> Result<(), Error> {
        let classes = || self.classes.iter().map(|(stats, _)| stats);
        let named = || self.classes.iter().filter(|(stats, _)| !stats.class.is_empty() || stats.accepted > 0);
        let label = |stats: &'_ ClassStats| [("class", stats.class.to_string())];
        let each = |of: fn(&ClassStats) -> u64| named().map(move |(stats, _)| (label(stats), of(stats)));
        to.counters("workhall_messages_accepted", "Messages accepted", each(|stats| stats.accepted))?;
        let fates: [(&str, Count); 5] = [
            ("done", |stats| stats.done),
            ("failed", |stats| stats.failed),
            ("discarded", |stats| stats.discarded),
            ("expired", |stats| stats.expired),
            ("dead", |stats| stats.dead.0.iter().sum()),
        ];
        let settled = named().flat_map(|(stats, _)| {
            fates.map(|(fate, of)| ([("class", stats.class.to_string()), ("outcome", fate.to_string())], of(stats)))
        });
        to.counters("workhall_messages_settled", "Messages that have their outcome", settled)?;
        let words = |words: Vec<String>, key: &'static str, of: fn(&ClassStats) -> &[u64]| {
            let series = move |stats: &ClassStats| {
                let class = stats.class.to_string();
                let counts = words.clone().into_iter().zip(of(stats).to_vec()).filter(|(_, count)| *count > 0);
                counts.map(move |(word, count)| ([("class", class.clone()), (key, word)], count))
            };
            classes().flat_map(series)
        };
        let dead = words(DEAD.iter().map(word).collect(), "reason", |stats| &stats.dead.0);
        to.counters("workhall_messages_dead", "Messages that became dead letters, by reason", dead)?;
        let help = "Messages that wait or are executed";
        to.gauges("workhall_depth", help, each(|stats| stats.depth))?;
        let ages = |of: fn(&Ages) -> Option<Duration>| {
            named().map(move |(stats, ages)| (label(stats), of(ages).unwrap_or_default().as_secs_f64()))
        };
        let help = format!(
            "Time since the acceptance of the oldest message that no process has begun, 0 without one; at most \
             {AGES_OF_MAX} workers are looked at"
        );
        to.gauges("workhall_oldest_message_age_seconds", &help, ages(|ages| ages.oldest_pending))?;
        let help = format!(
            "How long the longest of the tasks lasts that are executed, 0 without one; at most {AGES_OF_MAX} workers are \
             looked at"
        );
        to.gauges("workhall_longest_task_age_seconds", &help, ages(|ages| ages.longest_running))?;
        let help = "From the acceptance of a message, also of one that was posted for later, until a process began it; \
                    of those that are done or failed";
        to.histograms("workhall_queue_latency_seconds", help, named().map(|(stats, _)| (label(stats), &stats.queue)))?;
        let help = "From the beginning of a task until it was done or failed; tasks that a process settles together have \
                    the same part of the time";
        let execution = named().map(|(stats, _)| (label(stats), &stats.execution));
        to.histograms("workhall_execution_latency_seconds", help, execution)?;
        to.counters(
            "workhall_starts",
            "Processes started, those included that did not come to their program",
            each(|stats| stats.starts),
        )?;
        let crashes = words(CRASHES.map(str::to_string).to_vec(), "reason", |stats| &stats.crashes.0);
        to.counters("workhall_crashes", "Deaths that nobody asked for, and starts that failed, by reason", crashes)?;
        let kills = words(KILLS.iter().map(word).collect(), "step", |stats| &stats.kills.0);
        to.counters("workhall_kills", "Workers that were killed, by the step that ended them", kills)?;
        let refused = words(REFUSED.iter().map(word).collect(), "reason", |stats| &stats.refused.0);
        let help = "Requests refused, by reason; without a class where none is known";
        to.counters("workhall_refused", help, refused)
    }

    fn by_worker(&self, to: &mut Writer<'_>) -> Result<(), Error> {
        let class = |number: usize| self.classes[number].0.class.to_string();
        let label = |worker: &WorkerStats| [("class", class(worker.class)), ("worker", worker.name.to_string())];
        let each = |of: fn(&WorkerStats) -> u64| self.named.iter().map(move |worker| (label(worker), of(worker)));
        to.gauges("workhall_worker_depth", "Messages that wait or are executed", each(|worker| worker.depth))?;
        to.counters("workhall_worker_executed", "Tasks that have ended by themselves", each(|worker| worker.executed))?;
        to.counters("workhall_worker_crashes", "Deaths that nobody asked for", each(|worker| worker.crashes))?;
        to.counters("workhall_worker_starts", "Lives that it has had", each(|worker| worker.generations))?;
        let ages = self.named.iter().map(|worker| {
            let age = worker.oldest_pending.unwrap_or_default();
            (label(worker), age.as_secs_f64())
        });
        let help = "Time since the acceptance of the oldest message that no process has begun, 0 without one";
        to.gauges("workhall_worker_oldest_message_age_seconds", help, ages)?;
        let asked = self.by_worker.iter().enumerate().filter(|(_, asked)| **asked);
        let left_out = asked.map(|(number, _)| ([("class", class(number))], self.left_out[number]));
        let help = format!("Workers without series of their own, because {WORKERS_MAX} have some");
        to.gauges("workhall_workers_left_out", &help, left_out)
    }
}

/// What the process of the supervisor needs.
fn own(to: &mut Writer<'_>) -> Result<(), Error> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |key: &str| {
        let number = |line: &str| line.strip_prefix(key)?.trim().strip_suffix(" kB")?.parse::<u64>().ok();
        status.lines().find_map(number).unwrap_or(0) << 10
    };
    to.gauge("process_resident_memory_bytes", "Memory of the supervisor itself", bytes("VmRSS:"))?;
    to.gauge("process_virtual_memory_bytes", "Addresses of the supervisor itself", bytes("VmSize:"))?;
    let open = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count());
    to.gauge("process_open_fds", "Descriptors of the supervisor itself", open)
}

/// One of the numbers of a class.
type Count = fn(&ClassStats) -> u64;

/// A word as the wire has it.
fn word(word: &impl Serialize) -> String {
    match serde_json::to_value(word) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// Writes families, one after the other.
struct Writer<'a>(DescriptorEncoder<'a>);

/// The labels of a series.
type Labels<K, const N: usize> = [(&'static str, K); N];

impl Writer<'_> {
    fn gauge<V>(&mut self, name: &str, help: &str, value: V) -> Result<(), Error>
    where
        ConstGauge<V>: EncodeMetric,
    {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(encoder)
    }

    fn gauges<V, K, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<K, N>, V)>,
    ) -> Result<(), Error>
    where
        ConstGauge<V>: EncodeMetric,
        K: prometheus_client::encoding::EncodeLabelValue,
    {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in series {
            ConstGauge::new(value).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(encoder)
    }

    /// `_total` is added to the name.
    fn counters<K, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<K, N>, u64)>,
    ) -> Result<(), Error>
    where
        K: prometheus_client::encoding::EncodeLabelValue,
    {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in series {
            ConstCounter::new(value).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn histograms<'h>(
        &mut self,
        name: &str,
        help: &str,
        series: impl Iterator<Item = (Labels<String, 1>, &'h Histogram)>,
    ) -> Result<(), Error> {
        const NANOS: f64 = 1e9;
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, histogram) in series {
            let ends = BUCKETS.iter().map(|end| *end as f64 / NANOS).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = ends.zip(histogram.buckets.0).collect();
            encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                histogram.sum / NANOS,
                histogram.count(),
                &buckets,
                None,
            )?;
        }
        Ok(())
    }
}
