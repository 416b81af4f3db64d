//! Seeded runs of the simulator. The seeds are fixed, so this is as deterministic as any other test;
//! `WORKHALL_SEED=n … replay` shows one run, `WORKHALL_RUNS=n … campaign` makes more of them.

use std::collections::BTreeMap;
use std::time::Instant;

use workhall_tests::sim::{Coverage, Options, run};

/// How many runs the ordinary test makes: ten to fifteen seconds of a debug build.
const RUNS: u64 = 4000;

#[test]
fn the_rules_hold_in_every_run() {
    let coverage = campaign(0..RUNS);
    for (kind, at_least) in COVERAGE {
        let seen = coverage.of(kind);
        assert!(seen >= *at_least, "`{kind}` occurred {seen} times only, not {at_least}: the simulator is too tame");
    }
}

#[test]
fn a_run_is_decided_by_its_seed() {
    let options = Options { trace: true, ..Options::default() };
    for seed in [1, 7, 1000] {
        let [first, second] = [run(seed, options), run(seed, options)].map(|run| run.expect("holds").trace);
        assert!(first.len() > 20, "seed {seed} does next to nothing");
        assert_eq!(first, second, "seed {seed}");
    }
}

/// The canary: the checkers see a core that starts a process before the old one is proved gone.
#[test]
fn a_broken_gate_is_caught() {
    let options = Options { broken_gate: true, ..Options::default() };
    let caught = (0..50).filter(|seed| run(*seed, options).is_err_and(|violation| violation.rule == "gate"));
    assert!(caught.count() >= 10, "the checkers do not see two processes of one name");
}

/// Shows the run of `WORKHALL_SEED`.
#[test]
fn replay() {
    let Ok(seed) = std::env::var("WORKHALL_SEED") else { return };
    let seed = seed.parse().expect("WORKHALL_SEED is a number");
    let broken_gate = std::env::var_os("WORKHALL_BROKEN_GATE").is_some();
    match run(seed, Options { trace: true, broken_gate }) {
        Ok(report) => println!("{}\nseed {seed}: {} steps, all rules hold", report.trace.join("\n"), report.steps),
        Err(violation) => panic!("{}\n{violation}", violation.trace.join("\n")),
    }
}

/// As many runs as `WORKHALL_RUNS` says, from `WORKHALL_SEED` on (a few hundred others than above unless it
/// does); goes on after a violation and tells at the end which rules were broken how often, each with one seed.
#[test]
fn campaign_of_your_length() {
    let number = |name: &str, default| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
    };
    let first = number("WORKHALL_SEED", RUNS);
    let mut coverage = Coverage::default();
    let mut broken = BTreeMap::<&str, Vec<String>>::new();
    for seed in first..first + number("WORKHALL_RUNS", 200) {
        match run(seed, Options::default()) {
            Ok(report) => coverage.merge(&report.coverage),
            Err(violation) => broken.entry(violation.rule).or_default().push(violation.to_string()),
        }
    }
    for (kind, times) in coverage.iter() {
        println!("{times:>10} {kind}");
    }
    for (rule, violations) in &broken {
        println!("[{rule}] {} times, such as {}", violations.len(), violations[0]);
    }
    assert!(broken.is_empty(), "rules were broken");
}

fn campaign(seeds: std::ops::Range<u64>) -> Coverage {
    let began = Instant::now();
    let (mut coverage, mut steps) = (Coverage::default(), 0);
    let runs = seeds.end - seeds.start;
    for seed in seeds {
        let report = run(seed, Options::default()).unwrap_or_else(|violation| panic!("{violation}"));
        steps += report.steps;
        coverage.merge(&report.coverage);
    }
    println!("{runs} runs, {steps} steps in {:.1?}", began.elapsed());
    coverage
}

/// Every kind of event, effect, outcome and receipt, and how often it occurs at least.
const COVERAGE: &[(&str, u64)] = &[
    ("accepted", 80_000),
    ("call ignored: ending", 2_000),
    ("call ignored: no startup method", 2_000),
    ("call ignored: no worker", 20_000),
    ("call ignored: own killed worker", 800),
    ("call refused: mailbox full", 50_000),
    ("call refused: no class or bad name", 800),
    ("call refused: shutting down", 5_000),
    ("call refused: too large", 3_000),
    ("kill by drain", 2_500),
    ("kill by the ladder", 5_000),
    ("kill now", 2_500),
    ("kill ignored", 4_000),
    ("wait", 8_000),
    ("tick", 15_000),
    ("calm runs", 1_000),
    ("shutdown at the end", 1_000),
    ("shutdown in the middle", 500),
    ("hung up", 300),
    ("stale facts", 8_000),
    ("event Asked", 10_000),
    ("event Disconnected", 15_000),
    ("event Done", 50_000),
    ("event Exited", 15_000),
    ("event Failed", 4_000),
    ("event Marked", 8_000),
    ("event Ready", 12_000),
    ("event SpawnFailed", 800),
    ("event Held", 8_000),
    ("event Spawned", 15_000),
    ("event TreeGone", 15_000),
    ("event Undeliverable", 500),
    ("event Violation", 400),
    ("effect Ask", 10_000),
    ("effect Continue", 5_000),
    ("effect Deliver", 60_000),
    ("effect Kill", 4_000),
    ("effect KillEnded", 6_000),
    ("effect Killed", 9_000),
    ("effect Reached", 8_000),
    ("effect Settled", 50_000),
    ("effect Spawn", 15_000),
    ("effect Stopped", 4_000),
    ("effect Sweep", 20_000),
    ("effect Term", 5_000),
    ("outcome done", 30_000),
    ("outcome failed", 2_500),
    ("outcome discarded", 10_000),
    ("outcome discarded, may have run", 800),
    ("outcome expired", 2_000),
    ("outcome crashed", 600),
    ("outcome abandoned", 1_500),
    ("ended by ask", 2_000),
    ("ended by term", 600),
    ("ended by kill", 2_000),
    ("already gone", 800),
    ("only emptied", 500),
    ("current none", 4_000),
    ("current finished", 1_400),
    ("current interrupted", 1_000),
];
