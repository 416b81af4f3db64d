//! The chaos run: a real supervisor, real workers of several kinds, many clients that call and kill at random,
//! hostile ones beside them, and agents that end, stop and continue processes. The seed decides what each
//! of them intends; what comes of it depends on real time.
//!
//! Checked continuously: the ledger balances at every look (rule L1); no message was begun twice, no two processes
//! of one name were there at a time, each name executed in the order of the ids (see [`log`]). Checked at the end:
//! each message has one fate, which agrees with what the workers have written (see [`fates`]); nothing is
//! pending or running once all is quiet; the supervisor ends with 0, and no process is left (rule D8).

mod actors;
mod audit;
mod fates;
mod hostile;
mod log;
mod speaker;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Supervisor, python};
use crate::sim::Rng;
use audit::Auditor;
use fates::Book;

/// What a run is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long clients and agents act; the end, in which all becomes quiet, comes on top.
    pub lasts: Duration,
    /// Decides the plan.
    pub seed: u64,
    /// The supervisor itself is killed again and again (rule D7).
    pub supervisor_deaths: bool,
    /// How many well-behaved clients there are.
    pub clients: u64,
    /// Says once in a while how far it has come.
    pub progress: bool,
}

impl Default for Options {
    /// A minute, with everything.
    fn default() -> Self {
        Options { lasts: Duration::from_secs(60), seed: 1, supervisor_deaths: true, clients: 6, progress: false }
    }
}

/// What a run has come to.
#[derive(Clone, Debug)]
pub struct Report {
    /// One line of figures.
    pub summary: String,
    /// What did not hold; the first ones.
    pub violations: Vec<String>,
}

/// From an answer asked for until it must be there, and from the end of the action until all is quiet.
const PATIENCE: Duration = Duration::from_secs(60);
/// No more violations are kept: the first tell the most.
const VIOLATIONS_MAX: usize = 50;
/// How often the auditor looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a supervisor lives before it is killed, at least and at most.
const LIFE_MS: [u64; 2] = [1_000, 6_000];
/// How many names each class has: few, so that lines form.
const NAMES_EACH: u64 = 3;

/// One class for each kind of worker.
const CONFIG: &str = r#"
[supervisor]
shutdown_grace = "3s"
[class.keeper]                # the main worker: a kill only empties it
exec = ["{bin}/chaos-worker"]
crash_limit = { pause = "300ms" }
main = true
[class.window]                # tasks are sent ahead
exec = ["{bin}/chaos-worker"]
crash_limit = { pause = "300ms" }
[class.single]                # one at a time, but with marks
exec = ["{bin}/chaos-worker", "window", "1"]
crash_limit = { pause = "300ms" }
mailbox = { messages = 20 }
[class.script]                # JSON lines, without marks
exec = ["{python}", "{dir}/worker.py"]
crash_limit = { pause = "300ms" }
[class.stubborn]              # SIGTERM does nothing
exec = ["{bin}/chaos-worker", "sigterm", "blocked"]
crash_limit = { pause = "300ms" }
task_grace = "20ms"
exit_grace = "20ms"
term_grace = "50ms"
[class.family]                # leaves processes behind
exec = ["{bin}/chaos-worker", "window", "4"]
crash_limit = { pause = "300ms" }
[class.short]                 # no time for anything
exec = ["{bin}/chaos-worker"]
crash_limit = { pause = "300ms" }
task_grace = "1ms"
exit_grace = "0s"
term_grace = "1ms"
"#;
const CLASSES: [&str; 6] = ["window", "single", "script", "stubborn", "family", "short"];

/// What all threads share.
pub(crate) struct Run {
    socket: PathBuf,
    deaths: bool,
    /// The process of the living supervisor; 0 while there is none.
    supervisor: AtomicI32,
    over: AtomicBool,
    book: Mutex<Book>,
    violations: Mutex<Vec<String>>,
    counts: Counts,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    calls: AtomicU64,
    kills: AtomicU64,
    signals: AtomicU64,
    hostile: AtomicU64,
    looks: AtomicU64,
}

impl Run {
    fn violation(&self, what: impl Into<String>) {
        let mut violations = self.violations.lock().expect("nobody panics with it");
        if violations.len() < VIOLATIONS_MAX {
            let what = what.into();
            eprintln!("chaos: VIOLATION: {what}");
            violations.push(what);
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Whether this supervisor may be gone: it was to be killed, and another may serve already.
    fn may_be_dead(&self, supervisor: i32) -> bool {
        self.deaths && self.supervisor.load(Relaxed) != supervisor
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().expect("nobody panics with it")
    }
}

/// Any worker but the main one.
fn any_name(rng: &mut Rng) -> String {
    match rng.percent(3) {
        true => "keeper".to_string(),
        false => format!("{}/{}", rng.pick(&CLASSES), rng.below(NAMES_EACH)),
    }
}

/// One run. Panics only if the machine does not allow it to begin.
pub fn run(options: Options) -> Report {
    let mut rng = Rng::new(options.seed);
    let mut supervisor = Supervisor::with_config_under(&CONFIG.replace("{python}", python()), |dir| {
        std::fs::write(dir.join("worker.py"), include_str!("worker.py"))
            .expect("the run's own directory can be written to");
        Vec::new()
    });
    let start = Instant::now();
    let run = Run {
        socket: supervisor.socket().to_path_buf(),
        deaths: options.supervisor_deaths,
        supervisor: AtomicI32::new(supervisor.pid()),
        over: AtomicBool::new(false),
        book: Mutex::default(),
        violations: Mutex::default(),
        counts: Counts::default(),
    };
    let mut auditor = Auditor::new(&run, supervisor.path("worker.log"));
    let (mut supervisor_deaths, mut serves) = (0, true);
    let mut seen = HashSet::from([supervisor.pid()]);
    thread::scope(|scope| {
        let run = &run;
        let mut actors = Vec::new();
        for number in 0..options.clients {
            let rng = Rng::new(rng.bits());
            actors.push(scope.spawn(move || actors::client(run, rng, number)));
        }
        let others: [fn(&Run, Rng); 3] = [actors::signaller, hostile::hostile, hostile::hostile];
        for act in others {
            let rng = Rng::new(rng.bits());
            actors.push(scope.spawn(move || act(run, rng)));
        }
        let life = |rng: &mut Rng| Duration::from_millis(rng.between(LIFE_MS[0], LIFE_MS[1]));
        let (mut dies_at, mut said) = (start + life(&mut rng), start);
        while start.elapsed() < options.lasts {
            thread::sleep(LOOK_EVERY.min(options.lasts.saturating_sub(start.elapsed())));
            if options.supervisor_deaths && Instant::now() >= dies_at {
                run.supervisor.store(0, Relaxed);
                supervisor.signal(Signal::SIGKILL);
                let restarted = catch_unwind(AssertUnwindSafe(|| {
                    supervisor.ended();
                    supervisor.restart();
                }));
                if restarted.is_err() {
                    run.violation(format!("D7: no supervisor follows the killed one; the log:\n{}", supervisor.log()));
                    serves = false;
                    break;
                }
                if !seen.insert(supervisor.pid()) {
                    // By their numbers the supervisors, and so their messages, are told apart.
                    run.violation("a process id has come round, so what follows says nothing: raise kernel.pid_max");
                    break;
                }
                run.supervisor.store(supervisor.pid(), Relaxed);
                supervisor_deaths += 1;
                dies_at = Instant::now() + life(&mut rng);
            }
            auditor.look(supervisor.pid());
            if options.progress && said.elapsed() >= Duration::from_secs(15) {
                said = Instant::now();
                eprintln!("chaos: {}", auditor.summary(start.elapsed(), options.seed, supervisor_deaths));
            }
        }
        run.over.store(true, Relaxed);
        for actor in actors {
            if actor.join().is_err() {
                run.violation("an actor of the run itself has panicked");
            }
        }
    });
    if serves {
        auditor.becomes_quiet(supervisor.pid());
        auditor.nothing_of_the_dead_is_left(supervisor.pid());
        actors::last_words(&run, &mut rng);
        supervisor.signal(Signal::SIGTERM);
        let status = supervisor.ended();
        if !status.success() {
            run.violation(format!("D8: the supervisor ended with {status}; its log:\n{}", supervisor.log()));
        }
    }
    auditor.nothing_is_left(|| supervisor.processes());
    let summary = auditor.summary(start.elapsed(), options.seed, supervisor_deaths);
    drop(auditor);
    if supervisor.log().contains("panicked at supervisor") {
        run.violation(format!("the supervisor panicked:\n{}", supervisor.log()));
    }
    Report { summary, violations: run.violations.into_inner().expect("nobody panics with it") }
}
