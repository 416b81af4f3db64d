//! The chaos run in short: a few seconds, always the same plan. The long form is the binary `chaos`.

use std::time::Duration;

use workhall_tests::chaos::{Options, run};

#[test]
fn l01_under_chaos_nothing_is_lost_nothing_runs_twice_nothing_is_left() {
    let report = run(Options { lasts: Duration::from_secs(5), ..Options::default() });
    println!("{}", report.summary);
    assert!(report.violations.is_empty(), "{:#?}\n{}", report.violations, report.summary);
}
