//! Seeded runs of the simulator. The seeds are fixed, so this is as deterministic as any other test;
//! `WORKHALL_SEED=n … replay` shows one run, `WORKHALL_RUNS=n … campaign` makes more of them.

use std::time::Instant;

use workhall_tests::sim::{Coverage, Options, run};

/// How many runs the ordinary test makes: about ten seconds of a debug build.
const RUNS: u64 = 3000;

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

/// As many runs as `WORKHALL_RUNS` says, from `WORKHALL_SEED` on.
#[test]
#[ignore = "takes as long as you like"]
fn campaign_of_your_length() {
    let number = |name: &str, default| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
    };
    let first = number("WORKHALL_SEED", RUNS);
    let coverage = campaign(first..first + number("WORKHALL_RUNS", 100_000));
    for (kind, times) in coverage.iter() {
        println!("{times:>10} {kind}");
    }
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
const COVERAGE: &[(&str, u64)] = &[];
