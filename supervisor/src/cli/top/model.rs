//! What the screen, the keys and the supervisor tell each other.

use std::fmt;

use crate::cli::output::safe;
use crate::journal::{EventReport, LineReport};
use crate::report::{DeadReport, StatusReport, WorkerInfo, WorkerRow};

/// What is to be known of the supervisor, beside who is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// The numbers of the workers whose processes are looked at.
    pub used: Vec<u64>,
    /// Of which worker something is open, by number and name, and what.
    pub details: Option<(u64, String, Tab)>,
    /// With another number here the workers are read from the first on.
    pub sweep: u64,
}

/// What is shown of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tab {
    Overview,
    Events,
    Exits,
    Log,
    Dead,
}

impl Tab {
    /// All, in their order.
    pub const ALL: [Tab; 5] = [Tab::Overview, Tab::Events, Tab::Exits, Tab::Log, Tab::Dead];

    /// What stands on it.
    pub fn title(self) -> &'static str {
        match self {
            Tab::Overview => "overview",
            Tab::Events => "events",
            Tab::Exits => "exits",
            Tab::Log => "log",
            Tab::Dead => "dead letters",
        }
    }

    /// The next one, or with -1 the one before.
    pub fn step(self, by: isize) -> Tab {
        let at = Tab::ALL.iter().position(|tab| *tab == self).unwrap_or(0) as isize;
        Tab::ALL[(at + by).rem_euclid(Tab::ALL.len() as isize) as usize]
    }

    /// Whether what is new stands at the end, which is then what is looked at.
    pub fn grows(self) -> bool {
        matches!(self, Tab::Events | Tab::Log | Tab::Dead)
    }
}

/// How a worker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillHow {
    Ask,
    Drain,
    Now,
}

/// What is done to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Kill(KillHow),
    Pause,
    Resume,
    Requeue,
}

/// What is to be done, to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// Of which supervisor the number is: another one gives it to another worker.
    pub epoch: u64,
    pub number: u64,
    pub name: String,
    pub action: Action,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.action {
            Action::Kill(KillHow::Ask) => "kill",
            Action::Kill(KillHow::Drain) => "drain",
            Action::Kill(KillHow::Now) => "kill at once",
            Action::Pause => "pause",
            Action::Resume => "resume",
            Action::Requeue => "requeue",
        };
        write!(f, "{verb} {} (%{})", safe(&self.name), self.number)
    }
}

/// The supervisor itself.
#[derive(Clone, Debug)]
pub struct Head {
    /// Which connection this is, from 1.
    pub epoch: u64,
    pub status: StatusReport,
}

/// What the processes of a worker use.
#[derive(Clone, Debug)]
pub struct Used {
    pub row: WorkerRow,
    /// None without a process.
    pub tree: Option<UsedTree>,
}

/// Memory in bytes, and processor time in milliseconds since the start of the process.
#[derive(Clone, Copy, Debug)]
pub struct UsedTree {
    pub memory: u64,
    pub cpu_ms: u64,
}

impl Used {
    pub fn new(info: WorkerInfo) -> Used {
        let tree = info.tree.map(|tree| UsedTree { memory: tree.memory_bytes, cpu_ms: tree.cpu_ms });
        Used { row: info.row, tree }
    }
}

/// What the supervisor says, or that it does not.
#[derive(Debug)]
pub enum Answer {
    Head(Box<Head>),
    /// All workers behind a place, up to the last of these, or with `last` all that there are.
    Page {
        after: Option<u64>,
        last: bool,
        rows: Vec<WorkerRow>,
    },
    Used(Box<Used>),
    /// There is no worker with this number any more.
    Gone(u64),
    Details(u64, Tab, Box<Body>),
    /// All that was wanted has been said.
    RoundEnds,
    /// What came of an act, and whether it was done.
    Told(bool, String),
    /// There is no supervisor, or it has gone.
    Lost(String),
}

/// What is open of one worker.
#[derive(Debug)]
pub enum Body {
    Info(Box<WorkerInfo>),
    Events(Vec<EventReport>),
    Lines(Vec<LineReport>),
    Dead(Box<DeadReport>),
    Refused(String),
    Gone,
}
