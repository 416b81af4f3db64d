//! Calls: what may be posted, in which order it is executed (rules C1–C13).

use workhall_tests::harness::Supervisor;

#[test]
fn c02_a_call_starts_the_process_which_executes_it() {
    let supervisor = Supervisor::start();
    assert!(supervisor.ps("a").is_null());
    supervisor.cli(&["call", "a", "count"]).ok();
    assert_eq!(supervisor.call(&["a", "count"]), 2);
    assert_eq!(supervisor.ps("a")["state"], "idle");
    assert_eq!(supervisor.status()["ledger"]["done"], 2);
}
