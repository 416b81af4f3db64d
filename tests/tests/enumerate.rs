//! Small configurations of the core, completely: every order in which clients, processes, the kernel and time can act.
//! `WORKHALL_ENUMERATE=full` goes through the larger ones instead, in a few minutes of a release build.

use std::time::Instant;

use workhall_tests::enumerate::{CANARIES, FULL, SMALL, Settings, enumerate};

/// One in so many states that are found a second time is followed, to see that it is the same.
const PROVE_KEY: u64 = 61;

#[test]
fn the_rules_hold_in_every_state() {
    let full = std::env::var_os("WORKHALL_ENUMERATE").is_some_and(|which| which == "full");
    let only = std::env::var("ONLY").unwrap_or_default();
    let (mut states, mut transitions) = (0, 0);
    let began = Instant::now();
    for config in if full { FULL } else { SMALL }.iter().filter(|config| config.name.contains(&only)) {
        let began = Instant::now();
        let settings = Settings { prove_key: PROVE_KEY, ..Settings::default() };
        let count = enumerate(config, settings).unwrap_or_else(|violation| panic!("{violation}"));
        println!("{}: {count:?} {:?}", config.name, began.elapsed());
        states += count.states;
        transitions += count.transitions;
    }
    println!("{states} states, {transitions} transitions in {:.1?}", began.elapsed());
}

/// The canary: a core that starts a process before the old one is proved gone has two of one name in some state.
#[test]
fn a_broken_gate_is_found() {
    let settings = Settings { broken_gate: true, ..Settings::default() };
    for config in CANARIES {
        let violation = enumerate(config, settings).expect_err("there are two processes of one name");
        println!("{violation}");
        assert_eq!(violation.rule, "K8");
    }
}
