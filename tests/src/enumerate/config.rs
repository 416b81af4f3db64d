//! The configurations that are enumerated, as a table: who there is, what clients may do, which fault may happen, and
//! what the class says.

use std::sync::Arc;
use std::time::Duration;

use workhall_core::{CrashLimit, KillMode, Policy};

use super::key::Horizons;

/// What the processes of a name are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nature {
    /// It keeps the page of marks, and takes two tasks at a time. Without: a script, one line at a time.
    pub page: bool,
    /// What makes it end.
    pub obeys: Obeys,
    /// It says some day that it is ready.
    pub starts: bool,
    /// Its tasks end by themselves some day.
    pub returns: bool,
}

/// From which step of the stop ladder on a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum Obeys {
    /// It may, and may let time pass to the next step and the one after it.
    Ask,
    /// Only to SIGKILL.
    Kill,
}

/// The one fault there is, at any moment at which it is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Dies of a signal: while it starts, between two tasks, in one, or after the words for it were written.
    Crash,
    /// Ends by itself, with status 0, when it has nothing to do.
    Leaves,
    /// Closes its connection and lives on.
    HangsUp,
    /// Cannot be started.
    SpawnFails,
}

/// A message that some client may post, to any name.
#[derive(Clone, Copy, Debug)]
pub struct Post {
    /// Somebody waits for its outcome.
    pub awaited: bool,
    /// It is for later.
    pub after: Option<Duration>,
    /// It has a time to live.
    pub expires: Option<Duration>,
}

/// One world. In each of them the clients' acts, in their order, and the fault may come at any moment, or never.
#[derive(Debug)]
pub struct Config {
    /// What is different in it.
    pub name: &'static str,
    /// Of each name's processes.
    pub natures: &'static [Nature],
    /// The messages, in their order.
    pub posts: &'static [Post],
    /// How the one kill may be.
    pub kills: &'static [(KillMode, Option<Duration>)],
    /// Who kills waits for the report too.
    pub reports: bool,
    /// How many faults there may be …
    pub faults_max: u8,
    /// … and of which kinds.
    pub faults: &'static [Fault],
    /// Tasks may end with an error.
    pub tasks_fail: bool,
    /// Somebody may wait until a name has nothing to do.
    pub waits: bool,
    /// The disconnection may be told after the life is over.
    pub late_facts: bool,
    /// The kernel may say that the tree is gone before it says that the process is.
    pub early_trees: bool,
    /// How often time may pass to the next deadline while something else could still happen. While nothing else can, it
    /// passes freely.
    pub ticks: u8,
    /// `max_processes`.
    pub processes: u32,
    /// What the class says.
    pub policy: fn(&mut Policy),
}

/// What is the same in all states.
#[derive(Debug)]
pub struct Setup {
    pub config: &'static Config,
    pub policy: Arc<Policy>,
    pub horizons: Horizons,
}

impl Setup {
    pub fn new(config: &'static Config) -> Setup {
        let mut policy = base_policy();
        (config.policy)(&mut policy);
        // What has no limit is never too old.
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(0);
        let horizons = Horizons {
            start_timeout: nanos(policy.start_timeout),
            exit_grace: nanos(policy.exit_grace),
            term_grace: nanos(policy.term_grace),
            task: nanos(policy.task_timeout.max(policy.idle_timeout).unwrap_or_default()),
            crash_window: nanos(policy.crash_limit.within),
        };
        Setup { config, policy: Arc::new(policy), horizons }
    }
}

const PAGE: Nature = Nature { page: true, obeys: Obeys::Ask, starts: true, returns: true };
const SCRIPT: Nature = Nature { page: false, ..PAGE };
const DEAF: Nature = Nature { obeys: Obeys::Kill, ..PAGE };
const MUTE: Nature = Nature { starts: false, ..DEAF };
const HANGS: Nature = Nature { returns: false, ..DEAF };

const AWAITED: Post = Post { awaited: true, after: None, expires: None };
const NOT_AWAITED: Post = Post { awaited: false, ..AWAITED };
const SOON: Duration = Duration::from_secs(1);

const LATER: Post = Post { after: Some(SOON), ..AWAITED };
const EXPIRES: Post = Post { expires: Some(SOON), ..AWAITED };
const LADDER_WITHIN: (KillMode, Option<Duration>) = (KillMode::Ladder, Some(SOON));
const DRAIN_WITHIN: (KillMode, Option<Duration>) = (KillMode::Drain, Some(SOON));
const GRACE: Duration = Duration::from_secs(5);
const LADDER: (KillMode, Option<Duration>) = (KillMode::Ladder, None);
const NOW: (KillMode, Option<Duration>) = (KillMode::Now, None);
const DRAIN: (KillMode, Option<Duration>) = (KillMode::Drain, None);
const ALL_KILLS: &[(KillMode, Option<Duration>)] = &[LADDER, NOW, DRAIN];

const NO_LIMIT: CrashLimit =
    CrashLimit { crashes: u16::MAX, within: Duration::ZERO, pause: SOON, refuse_calls: false, drop_unstarted: false };

/// All graces are alike: what began at the same time is over at the same time.
fn base_policy() -> Policy {
    Policy {
        class: "c".into(),
        start_timeout: GRACE,
        exit_grace: GRACE,
        term_grace: GRACE,
        crash_limit: NO_LIMIT,
        ..Policy::default()
    }
}

const PATIENT: fn(&mut Policy) = |policy| policy.start_timeout = Duration::MAX;

const BASE: Config = Config {
    name: "",
    natures: &[PAGE, SCRIPT],
    posts: &[AWAITED; 2],
    kills: ALL_KILLS,
    reports: true,
    faults_max: 1,
    faults: &[Fault::Crash],
    tasks_fail: false,
    waits: false,
    late_facts: false,
    early_trees: false,
    ticks: 1,
    processes: 4,
    policy: |_| {},
};

const ONE: Config = Config { natures: &[PAGE], policy: PATIENT, ..BASE };
const BOTH: Config = Config { policy: PATIENT, ..BASE };
const OTHER_FAULTS: &[Fault] = &[Fault::HangsUp, Fault::Leaves, Fault::SpawnFails];

const RETRY: fn(&mut Policy) = |policy| {
    PATIENT(policy);
    policy.attempts = 2;
};
const IDLE: fn(&mut Policy) = |policy| {
    PATIENT(policy);
    policy.idle_timeout = Some(GRACE);
};
const TIMED: fn(&mut Policy) = |policy| {
    PATIENT(policy);
    policy.task_timeout = Some(GRACE);
};
const CRASH_LIMIT: fn(&mut Policy) = |policy| {
    policy.crash_limit.crashes = 1;
    policy.crash_limit.drop_unstarted = true;
};

const IN_VAIN: Config = Config { name: "never ready", natures: &[MUTE], policy: CRASH_LIMIT, ..BASE };
const HUNG: Config = Config { policy: TIMED, faults: &[], kills: &[LADDER_WITHIN, NOW], ..ONE };

/// Small enough for every test run.
pub const SMALL: &[Config] = &[
    Config { name: "two workers", kills: &[LADDER], ticks: 0, ..BOTH },
    Config { name: "three messages", posts: &[AWAITED; 3], ticks: 0, ..ONE },
    Config { name: "slow starts", kills: &[LADDER, DRAIN], ticks: 1, policy: |_| {}, ..ONE },
    Config { name: "other faults", faults: OTHER_FAULTS, late_facts: true, early_trees: true, kills: &[LADDER], ..ONE },
    Config { name: "retry", policy: RETRY, faults_max: 2, kills: &[LADDER], ticks: 0, ..ONE },
    Config { name: "idle_timeout", policy: IDLE, kills: &[LADDER], ticks: 2, ..ONE },
    Config { name: "task_timeout", policy: TIMED, kills: &[LADDER], ticks: 3, ..ONE },
    Config { name: "max_processes 1", policy: IDLE, processes: 1, posts: &[AWAITED, LATER], kills: &[LADDER], ..BOTH },
    Config {
        name: "nobody waits",
        posts: &[NOT_AWAITED; 2],
        tasks_fail: true,
        waits: true,
        kills: &[LADDER],
        ticks: 0,
        ..ONE
    },
    Config { name: "expires", posts: &[AWAITED, EXPIRES], kills: &[LADDER], ..ONE },
    Config {
        name: "crash limit",
        policy: CRASH_LIMIT,
        faults: &[Fault::Crash, Fault::SpawnFails],
        kills: &[DRAIN],
        ..ONE
    },
    Config { name: "within", kills: &[LADDER_WITHIN, DRAIN_WITHIN], ..ONE },
    Config { name: "only SIGKILL", natures: &[DEAF], faults: &[Fault::HangsUp], ..ONE },
    Config { name: "hung task", natures: &[HANGS], ..HUNG },
    Config { name: "hung script", natures: &[Nature { page: false, ..HANGS }], ..HUNG },
    IN_VAIN,
];

/// In which a core without a gate must have two processes of one name.
pub const CANARIES: &[Config] = &[
    Config { name: "a crash, without a gate", kills: &[], ..ONE },
    Config { name: "a kill, without a gate", reports: false, faults: &[], ..ONE },
];

/// What takes minutes of a release build.
pub const FULL: &[Config] = &[
    Config { name: "two workers, three messages, one kill, one crash", posts: &[AWAITED; 3], ticks: 3, ..BOTH },
    Config { name: "slow starts", ticks: 2, policy: |_| {}, ..BOTH },
    Config { name: "other faults", faults: OTHER_FAULTS, late_facts: true, early_trees: true, ticks: 2, ..BOTH },
    Config { name: "retry", policy: RETRY, faults_max: 2, ticks: 1, ..BOTH },
    Config { name: "idle_timeout", policy: IDLE, ticks: 2, ..BOTH },
    Config { name: "task_timeout", policy: TIMED, posts: &[AWAITED; 3], ticks: 7, ..ONE },
    Config { name: "max_processes 1", policy: IDLE, processes: 1, posts: &[AWAITED, LATER, AWAITED], ticks: 2, ..BOTH },
    Config {
        name: "nobody waits",
        posts: &[NOT_AWAITED, AWAITED, NOT_AWAITED],
        tasks_fail: true,
        waits: true,
        ticks: 2,
        ..ONE
    },
    Config { name: "expires", posts: &[AWAITED, EXPIRES, EXPIRES], ticks: 3, ..ONE },
    Config {
        name: "crash limit",
        policy: CRASH_LIMIT,
        faults: &[Fault::Crash, Fault::SpawnFails],
        posts: &[AWAITED; 3],
        ticks: 3,
        ..ONE
    },
    Config { name: "within", kills: &[LADDER_WITHIN, DRAIN_WITHIN], posts: &[AWAITED; 3], ticks: 3, ..ONE },
    Config { name: "only SIGKILL", natures: &[DEAF, SCRIPT], faults: &[Fault::HangsUp], ticks: 2, ..BOTH },
    Config { name: "hung task", natures: &[HANGS], posts: &[AWAITED; 3], ticks: 4, ..HUNG },
    Config { name: "never ready", posts: &[AWAITED; 3], ticks: 4, ..IN_VAIN },
];
