//! Small worlds around the core, completely: every order in which clients, processes, the kernel and time can act.
//!
//! `cargo test -p workhall-tests --test enumerate -- --nocapture` says how many states each has. The larger table takes half
//! an hour of a release build, and some gigabytes:
//! `CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true WORKHALL_ENUMERATE=full cargo test --release -p workhall-tests --test enumerate
//! -- --nocapture`. `WORKHALL_ENUMERATE=full:retry` takes only the worlds that have `retry` in their name.

use std::time::Instant;

use workhall_tests::enumerate::{CANARIES, FULL, SMALL, Settings, enumerate};

#[test]
fn the_rules_hold_in_every_state() {
    let wanted = std::env::var("WORKHALL_ENUMERATE").unwrap_or_default();
    let (table, only) = match wanted.split_once(':').unwrap_or((&wanted, "")) {
        ("full", only) => (FULL, only),
        ("" | "small", only) => (SMALL, only),
        _ => panic!("WORKHALL_ENUMERATE is `small` or `full`, and perhaps `:` and a part of a name"),
    };
    // One in so many states that are found a second time is followed, to see that it is the same.
    let (prove_key, states_max) = if wanted.starts_with("full") { (1009, 50_000_000) } else { (61, 100_000) };
    let settings = Settings { broken_gate: false, prove_key, states_max };
    let (began, mut states, mut transitions) = (Instant::now(), 0, 0);
    for config in table.iter().filter(|config| config.name.contains(only)) {
        let began = Instant::now();
        let count = enumerate(config, settings).unwrap_or_else(|violation| panic!("{violation}"));
        println!("{}: {count}, {:.1?}", config.name, began.elapsed());
        states += count.states;
        transitions += count.transitions;
    }
    assert!(states > 0, "no world has `{only}` in its name");
    println!("all: {states} states, {transitions} transitions, {:.1?}", began.elapsed());
}

/// The canary: a core that starts a process before the old one is proved gone has two of one name in some state.
#[test]
fn a_broken_gate_is_found() {
    let settings = Settings { broken_gate: true, prove_key: 0, states_max: 100_000 };
    for config in CANARIES {
        let violation = enumerate(config, settings).expect_err("there are two processes of one name");
        assert_eq!(violation.rule, "K8", "{violation}");
        // It is the shortest: a post, a kill or a crash that is seen, and what starts the second process.
        assert_eq!(violation.steps, 3, "{violation}");
    }
}
