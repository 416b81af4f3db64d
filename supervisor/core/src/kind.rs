//! What somebody who has a name is: a worker in the narrow sense, or one of those that no call has created.

use serde::{Deserialize, Serialize};

/// How somebody has come to a name, and what follows from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A worker that a call has created.
    #[default]
    Called,
    /// The main worker (rule W5): a process of it is wished for at all times, and a kill only empties it (rule K10).
    Main,
    /// The same for one that is not the first.
    Boot,
    /// A process that executes one method and ends with it (rule P1). It is nobody's to call.
    Run,
    /// A worker that the supervisor has not started (rule P2). A kill only empties it (rule K10).
    Attached,
}

impl Kind {
    /// For people and programs.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Called => "worker",
            Kind::Main => "main",
            Kind::Boot => "boot",
            Kind::Run => "run",
            Kind::Attached => "attached",
        }
    }
}
