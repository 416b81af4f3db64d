//! Any number of seeded runs of the simulator, on all processors: one line at the end says how many runs, events
//! and faults there were, and how many violations, each rule with the command that replays one of them.
//!
//! `cargo run --release -p workhall-tests --bin campaign -- --runs 1000000 [--seed 0] [--jobs 2]`

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use workhall_tests::sim::{Coverage, Violation, ordinary, run};

/// What a processor takes at a time.
const BATCH: u64 = 500;
/// What counts as a fault in the summary: what a healthy world would not do.
const FAULTS: &[&str] = &[
    "crash of a process",
    "event SpawnFailed",
    "event Violation",
    "hung task",
    "hung up",
    "lie",
    "late tick",
    "left behind",
    "never ready",
    "ended before ready",
    "restored",
    "slow exit",
    "stale facts",
    "deaf to SIGKILL at first",
    "deaf to the ladder",
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut runs, mut first) = (100_000, 0);
    let mut jobs = std::thread::available_parallelism().map_or(1, |jobs| jobs.get() as u64);
    while let Some(name) = arguments.next() {
        let value = arguments.next().and_then(|value| value.replace('_', "").parse().ok());
        match (&*name, value) {
            ("--runs", Some(value)) => runs = value,
            ("--seed", Some(value)) => first = value,
            ("--jobs", Some(value)) if value > 0 => jobs = value,
            _ => {
                eprintln!("usage: campaign [--runs N] [--seed FIRST] [--jobs N]");
                return ExitCode::from(2);
            }
        }
    }
    // A panic of the core is a violation like any other, and told as one.
    std::panic::set_hook(Box::new(|_| {}));
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let results: Vec<Share> = std::thread::scope(|scope| {
        let shares: Vec<_> = (0..jobs).map(|_| scope.spawn(|| Share::of(&next, first + runs))).collect();
        shares.into_iter().map(|share| share.join().expect("a share catches its panics")).collect()
    });
    let mut all = Share::default();
    for share in results {
        all.add(share);
    }
    all.tell(runs, began.elapsed().as_secs())
}

/// What one processor has run.
#[derive(Default)]
struct Share {
    steps: u64,
    coverage: Coverage,
    violations: BTreeMap<&'static str, (u64, Option<Violation>)>,
}

impl Share {
    fn of(next: &AtomicU64, end: u64) -> Share {
        let mut share = Share::default();
        loop {
            let start = next.fetch_add(BATCH, Relaxed);
            if start >= end {
                return share;
            }
            for seed in start..(start + BATCH).min(end) {
                match run(seed, ordinary(seed)) {
                    Ok(report) => {
                        share.steps += report.steps;
                        share.coverage.merge(&report.coverage);
                    }
                    Err(violation) => {
                        let of_rule = share.violations.entry(violation.rule).or_default();
                        of_rule.0 += 1;
                        of_rule.1.get_or_insert(violation);
                    }
                }
            }
        }
    }

    fn add(&mut self, other: Share) {
        self.steps += other.steps;
        self.coverage.merge(&other.coverage);
        for (rule, (count, violation)) in other.violations {
            let of_rule = self.violations.entry(rule).or_default();
            of_rule.0 += count;
            of_rule.1 = of_rule.1.take().or(violation);
        }
    }

    fn tell(&self, runs: u64, seconds: u64) -> ExitCode {
        for (kind, times) in self.coverage.iter() {
            println!("{times:>12} {kind}");
        }
        for (rule, (count, violation)) in &self.violations {
            let example = violation.as_ref().map(Violation::to_string).unwrap_or_default();
            println!("[{rule}] {count} times, such as {example}");
        }
        let events: u64 = self.coverage.iter().filter(|(kind, _)| kind.starts_with("event ")).map(|(_, n)| n).sum();
        let faults: u64 = FAULTS.iter().map(|kind| self.coverage.of(kind)).sum();
        let violations: u64 = self.violations.values().map(|(count, _)| count).sum();
        let steps = self.steps;
        println!("{runs} runs, {steps} steps, {events} events, {faults} faults, {violations} violations, {seconds} s");
        if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
