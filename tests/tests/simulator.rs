//! Seeded runs of the simulator. The seeds are fixed, so this is as deterministic as any other test;
//! `WORKHALL_SEED=n … replay` shows one run, `WORKHALL_RUNS=n … campaign` makes more of them.

use std::collections::BTreeMap;
use std::time::Instant;

use workhall_tests::sim::{Coverage, Options, ordinary, run};

/// How many runs the ordinary test makes: ten to fifteen seconds of a debug build.
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
    for seed in [1, 11, 1000] {
        let [first, second] = [run(seed, options), run(seed, options)].map(|run| run.expect("holds").trace);
        assert!(first.len() > 20, "seed {seed} does next to nothing");
        assert_eq!(first, second, "seed {seed}");
    }
}

/// A core that goes through its snapshot before every step does what one does that never stops.
#[test]
fn a_snapshot_changes_nothing() {
    let options = Options { trace: true, ..Options::default() };
    for seed in 0..20 {
        let traces = [0, 1].map(|restore_every| run(seed, Options { restore_every, ..options }));
        let [first, second] = traces.map(|run| {
            let trace = run.unwrap_or_else(|violation| panic!("{violation}")).trace;
            // The place of a worker in the registry is nobody's business.
            trace.iter().map(|line| without_places(line)).collect::<Vec<_>>()
        });
        for (first, second) in first.iter().zip(&second) {
            assert_eq!(first, second, "seed {seed}");
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}

fn without_places(line: &str) -> String {
    let mut parts = line.split("index: ");
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |text, part| text + part.trim_start_matches(|c: char| c.is_ascii_digit()))
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
    match run(seed, Options { trace: true, broken_gate, ..ordinary(seed) }) {
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
        match run(seed, ordinary(seed)) {
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
        let report = run(seed, ordinary(seed)).unwrap_or_else(|violation| panic!("{violation}"));
        steps += report.steps;
        coverage.merge(&report.coverage);
    }
    println!("{runs} runs, {steps} steps in {:.1?}", began.elapsed());
    coverage
}

/// Every kind of event, effect, outcome and receipt, and how often it occurs at least.
const COVERAGE: &[(&str, u64)] = &[
    ("accepted", 48_000),
    ("call ignored: ending", 1_200),
    ("call ignored: no startup method", 1_200),
    ("call ignored: no worker", 12_000),
    ("call ignored: own killed worker", 480),
    ("call refused: mailbox full", 30_000),
    ("call refused: no class or bad name", 480),
    ("call refused: shutting down", 3_000),
    ("call refused: too large", 1_800),
    ("call refused: crash loop", 1_200),
    ("crash of a process", 1_200),
    ("dead letter dropped", 300),
    ("dead letter requeued", 60),
    ("deaf to SIGKILL at first", 600),
    ("deaf to the ladder", 1_200),
    ("effect Look", 1_500),
    ("ended before ready", 300),
    ("hung task", 240),
    ("late tick", 2_400),
    ("left behind", 1_500),
    ("lie", 120),
    ("never ready", 360),
    ("class back", 600),
    ("class back, and changed", 300),
    ("class changed", 2_400),
    ("class gone", 1_800),
    ("left without a class", 150),
    ("reload", 900),
    ("reload with restart", 900),
    ("restored", 2_400),
    ("run accepted", 600),
    ("run running", 300),
    ("run refused: name taken", 500),
    ("run ignored", 120),
    ("resume", 600),
    ("pause", 600),
    ("pause ignored", 300),
    ("act of a stopped process deferred", 300),
    ("slow exit", 1_200),
    ("outcome expired, may have run", 12),
    ("outcome never started", 300),
    ("outcome poison", 90),
    ("outcome timed out", 180),
    ("kill by drain", 1_500),
    ("kill by the ladder", 3_000),
    ("kill now", 1_500),
    ("kill ignored", 2_400),
    ("wait", 4_800),
    ("tick", 9_000),
    ("signal made", 15_000),
    ("signal triggered", 4_000),
    ("signal triggered again", 1_500),
    ("signal freed", 2_500),
    ("signal refused", 5_000),
    ("message with signals", 5_000),
    ("maker or waiter gone", 2_500),
    ("wait for a signal", 20_000),
    ("told triggered", 4_000),
    ("told the message's end", 700),
    ("told timed out", 5_000),
    ("told lost", 7_000),
    ("cancel discards", 4_000),
    ("cancel told", 2_500),
    ("cancel ignored", 5_000),
    ("event Dropped", 90),
    ("calm runs", 600),
    ("shutdown at the end", 600),
    ("shutdown in the middle", 300),
    ("hung up", 180),
    ("stale facts", 4_800),
    ("event Asked", 6_000),
    ("event Disconnected", 9_000),
    ("event Done", 30_000),
    ("event DoneAll", 4_000),
    ("event Exited", 9_000),
    ("event Failed", 2_400),
    ("event Marked", 4_800),
    ("event Ready", 7_200),
    ("event Held", 4_000),
    ("event SpawnFailed", 480),
    ("event Spawned", 9_000),
    ("event TreeGone", 9_000),
    ("event Undeliverable", 300),
    ("event Violation", 240),
    ("effect Ask", 6_000),
    ("effect Continue", 3_000),
    ("effect Deliver", 36_000),
    ("effect Pause", 300),
    ("effect Kill", 2_400),
    ("effect KillEnded", 3_600),
    ("effect Killed", 5_400),
    ("effect Reached", 4_800),
    ("effect Settled", 30_000),
    ("effect Spawn", 9_000),
    ("effect Stopped", 2_400),
    ("effect Sweep", 12_000),
    ("effect Term", 3_000),
    ("outcome done", 18_000),
    ("outcome failed", 1_500),
    ("outcome discarded", 6_000),
    ("outcome discarded, may have run", 480),
    ("outcome expired", 1_200),
    ("outcome crashed", 360),
    ("outcome abandoned", 900),
    ("ended by ask", 1_200),
    ("ended by term", 360),
    ("ended by kill", 1_200),
    ("already gone", 480),
    ("only emptied", 300),
    ("current none", 2_400),
    ("current finished", 840),
    ("current interrupted", 600),
];
