//! The simulator: the real core, and around it a shell, processes and clients that exist only as data.
//!
//! A run is decided by its seed alone. [`world`] keeps a virtual clock and an agenda; it plays the
//! operating system, the processes ([`process`]) and those who call, and applies the core's effects as the
//! shell would. It gives the guarantees that the shell gives, and no others:
//!
//! - Spawn is answered at once, by Spawned, SpawnFailed or Held;
//! - Ask is answered at once, before anything else is fed;
//! - any other mark is fed after everything that was written before it was stored;
//! - the exit is fed after everything that the process had written.
//!
//! Everything else comes in any order and late: the exit before or after the disconnection, timers after
//! their time, facts after the end of the life they are about.
//!
//! [`checker`] stands apart: it sees what goes in, what comes out, and what the virtual processes really
//! do, and never looks into the core. The rules it proves are named in the violations it reports.
//!
//! In every third run the core goes through a snapshot now and then, which nobody may notice. In some runs the
//! configuration is read again now and then: classes of names change, go and come back, with and without a restart.
//!
//! In a third of the runs clients make signals, send them in messages, trigger them and wait for them, and say of messages
//! that they are not wanted any more; [`signals`] checks what is said of a signal by what became of those who carried it.
//!
//! A run has three parts. First clients and processes do what they like. Then they are calm, and all
//! that was accepted must get its fate by itself. Then comes the shutdown, after which nothing is left;
//! in some runs it comes in the middle of the first part.

mod checker;
mod coverage;
mod process;
mod rng;
mod signals;
mod world;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

pub use coverage::Coverage;
pub use rng::Rng;

/// What a run is to be like, beside its seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The core's respawn gate is broken on purpose: the checkers must see it.
    pub broken_gate: bool,
    /// Keep what happened, line by line.
    pub trace: bool,
    /// The core is written to a snapshot and restored from it before every so many steps: nothing may change by it.
    /// 0 is never.
    pub restore_every: u64,
}

/// A run without a violation.
#[derive(Clone, Debug)]
pub struct Report {
    /// How many steps it had.
    pub steps: u64,
    /// What happened how often.
    pub coverage: Coverage,
    /// What happened, if it was to be kept.
    pub trace: Vec<String>,
}

/// A rule that did not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Of which run.
    pub seed: u64,
    /// Of a core that was broken on purpose.
    pub broken_gate: bool,
    /// At which step.
    pub step: u64,
    /// Which rule, in a word.
    pub rule: &'static str,
    /// What was seen.
    pub detail: String,
    /// What happened until then, if it was to be kept.
    pub trace: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { seed, step, rule, detail, .. } = self;
        writeln!(f, "seed {seed}, step {step}: [{rule}] {detail}")?;
        let canary = if self.broken_gate { "WORKHALL_BROKEN_GATE=1 " } else { "" };
        write!(
            f,
            "replay: {canary}WORKHALL_SEED={seed} cargo test -p workhall-tests --test simulator replay -- --nocapture"
        )
    }
}

/// The options of an ordinary run.
pub fn ordinary(seed: u64) -> Options {
    Options { restore_every: if seed.is_multiple_of(3) { 20 + seed % 50 } else { 0 }, ..Options::default() }
}

/// One run. A panic of the core is a violation like any other.
pub fn run(seed: u64, options: Options) -> Result<Report, Violation> {
    let notes = Arc::new(Mutex::new(world::Notes::default()));
    let result = catch_unwind(AssertUnwindSafe(|| world::World::new(seed, options, notes.clone()).run()));
    let notes = notes.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let failed = |rule, detail| Violation {
        seed,
        broken_gate: options.broken_gate,
        step: notes.steps,
        rule,
        detail,
        trace: notes.trace.clone(),
    };
    match result {
        Ok(Ok(coverage)) => Ok(Report { steps: notes.steps, coverage, trace: notes.trace.clone() }),
        Ok(Err((rule, detail))) => Err(failed(rule, detail)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
            Err(failed("panic", text.unwrap_or_else(|| "without a text".into())))
        }
    }
}
