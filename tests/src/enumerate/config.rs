//! The configurations that are enumerated, as a table: who there is, what clients may do, which fault may happen, and
//! what the class says.

use std::time::Duration;

use workhall_core::{CrashLimit, KillMode, Policy};

/// What the processes of a name are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// Keeps the page of marks, and takes two tasks at a time.
    Page,
    /// A script: one line at a time.
    Script,
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
    pub after: Option<Duration>,
    pub expires: Option<Duration>,
}

/// One world. In each of them the clients' acts, in their order, and the fault may come at any moment, or never.
#[derive(Debug)]
pub struct Config {
    pub name: &'static str,
    /// Of each name's processes.
    pub natures: &'static [Nature],
    pub posts: &'static [Post],
    /// How the one kill may be.
    pub kills: &'static [(KillMode, Option<Duration>)],
    /// What the one fault may be.
    pub faults: &'static [Fault],
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
    pub policy: fn(&mut Policy),
}

const AWAITED: Post = Post { awaited: true, after: None, expires: None };
const NOT_AWAITED: Post = Post { awaited: false, ..AWAITED };
const SOON: Duration = Duration::from_secs(1);

const LADDER: (KillMode, Option<Duration>) = (KillMode::Ladder, None);
const NOW: (KillMode, Option<Duration>) = (KillMode::Now, None);
const DRAIN: (KillMode, Option<Duration>) = (KillMode::Drain, None);
const ALL_KILLS: &[(KillMode, Option<Duration>)] = &[LADDER, NOW, DRAIN];

const BASE: Config = Config {
    name: "",
    natures: &[Nature::Page, Nature::Script],
    posts: &[AWAITED; 2],
    kills: ALL_KILLS,
    faults: &[Fault::Crash],
    tasks_fail: false,
    waits: false,
    late_facts: false,
    early_trees: false,
    ticks: 2,
    processes: 4,
    policy: |_| {},
};

/// Small enough for every test run.
pub const SMALL: &[Config] = &[
    Config { name: "one page, three messages", natures: &[Nature::Page], posts: &[AWAITED; 3], ticks: 0, ..BASE },
    Config { name: "two workers, two messages", ticks: 0, ..BASE },
];

/// What the campaign goes through.
pub const FULL: &[Config] = &[];
