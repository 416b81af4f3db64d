//! A virtual process, small enough to be enumerated: what it and its wires hold at the moment.

use super::act::Act;
use super::config::{Config, Obeys};
use workhall_core::{Mark, ProcessKey};
use workhall_protocol::ids::MessageId;
use workhall_protocol::terms::Exit;

/// A message as a process knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    /// Its task number.
    pub id: u64,
    /// Which message it is, by its place in the books.
    pub message: u8,
}

/// What it does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doing {
    Nothing,
    /// The page says that it has begun; the flag is not looked at yet.
    Beginning {
        task: Task,
        previous: u64,
    },
    Running(Task),
    /// The words that it has ended are written; the page does not say so yet.
    Told(Task),
}

/// What it has written, and the shell has not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    Ready,
    Done(u64),
    Failed(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Death {
    /// By itself, in peace.
    Leaves,
    Crash,
    Term,
    Kill,
}

impl Death {
    pub fn exit(self) -> Exit {
        match self {
            Death::Leaves => Exit::Code(0),
            Death::Crash => Exit::Signal(11),
            Death::Term => Exit::Signal(15),
            Death::Kill => Exit::Signal(9),
        }
    }
}

#[derive(Clone, Debug, Hash)]
pub struct Process {
    pub key: ProcessKey,
    pub name: u8,
    pub has_page: bool,
    pub is_ready: bool,
    pub begun: u64,
    pub finished: u64,
    /// The stop flag of the page.
    pub flag: bool,
    /// It begins no more tasks.
    pub stops: bool,
    pub asked: bool,
    /// The strongest signal that it was sent.
    pub signal: Option<Death>,
    pub doing: Doing,
    /// Settlements that it collects.
    pub unwritten: Vec<u64>,
    /// Written by the supervisor, not read by it.
    pub inbox: Vec<Task>,
    pub outbox: Vec<Word>,
    /// Its end of the connection.
    pub connected: bool,
    pub dead: Option<Death>,
    /// What `finished` was when the shell last read it.
    pub finished_fed: u64,
    pub ready_fed: bool,
    pub disconnected_fed: bool,
    pub exit_fed: bool,
    /// The shell was told to sweep its tree.
    pub swept: bool,
    /// The kernel has said too early that its tree is gone.
    pub tree_early: bool,
    pub tree_fed: bool,
}

impl Process {
    pub fn new(key: ProcessKey, name: u8, has_page: bool) -> Process {
        Process {
            key,
            name,
            has_page,
            is_ready: false,
            begun: 0,
            finished: 0,
            flag: false,
            stops: false,
            asked: false,
            signal: None,
            doing: Doing::Nothing,
            unwritten: Vec::new(),
            inbox: Vec::new(),
            outbox: Vec::new(),
            connected: true,
            dead: None,
            finished_fed: 0,
            ready_fed: false,
            disconnected_fed: false,
            exit_fed: false,
            swept: false,
            tree_early: false,
            tree_fed: false,
        }
    }

    /// The marks as the shell reads them.
    pub fn page(&self) -> Option<Mark> {
        let Process { begun, finished, .. } = *self;
        self.has_page.then_some(Mark { begun: MessageId(begun), finished: MessageId(finished) })
    }

    pub fn write(&mut self, word: Word) {
        if self.connected {
            self.outbox.push(word);
        }
    }

    /// Writes what it has collected.
    pub fn flush(&mut self) {
        for id in std::mem::take(&mut self.unwritten) {
            self.write(Word::Done(id));
        }
    }

    /// The kernel ends it. What it had written can still be read.
    pub fn dies(&mut self, death: Death) {
        self.dead = Some(death);
        self.connected = false;
        // Nobody can see any more what it was about to do.
        self.doing = Doing::Nothing;
        self.unwritten.clear();
        self.inbox.clear();
        self.stops = false;
    }

    /// Its exit was seen: how it was tells two states apart no more.
    pub fn forget_how_it_was(&mut self) {
        self.dead = Some(Death::Leaves);
        (self.begun, self.finished, self.finished_fed) = (0, 0, 0);
        (self.flag, self.asked, self.signal, self.ready_fed) = (false, false, None, false);
    }

    /// It ends when it is asked, between two tasks; also when nobody can tell it anything any more.
    pub fn may_leave(&self) -> bool {
        (self.asked || !self.connected) && self.is_idle()
    }

    pub fn is_idle(&self) -> bool {
        self.dead.is_none() && self.is_ready && self.doing == Doing::Nothing && self.inbox.is_empty()
    }

    /// Whether the core may hold it for alive: not both, its exit and the end of its tree, were told.
    pub fn is_there(&self) -> bool {
        !(self.exit_fed && self.tree_fed)
    }

    /// What can happen with it some day, unasked. In this order it comes to an end by itself.
    pub fn acts(&self, slot: u8, config: &Config, acts: &mut Vec<Act>) {
        let mut may = |holds: bool, act: fn(u8) -> Act| {
            if holds {
                acts.push(act(slot));
            }
        };
        let nature = config.natures[usize::from(self.name)];
        let living = self.dead.is_none();
        // The shell.
        may(!self.outbox.is_empty(), Act::ShellReads);
        let further = self.finished != self.finished_fed;
        may(self.has_page && self.is_ready && further && !self.exit_fed, Act::ShellReadsMarks);
        may(!living && !self.exit_fed, Act::ExitIsSeen);
        may(!self.connected && !self.disconnected_fed, Act::DisconnectionIsSeen);
        may(self.swept && self.exit_fed && !self.tree_fed, Act::TreeIsGone);
        may(config.early_trees && !living && !self.exit_fed && !self.tree_early, Act::TreeIsGoneEarly);
        if !living {
            return;
        }
        // The process.
        may(!self.is_ready && nature.starts, Act::SaysReady);
        match self.doing {
            Doing::Nothing => may(self.is_ready && !self.inbox.is_empty(), Act::Takes),
            Doing::Beginning { .. } => may(true, Act::LooksAtFlag),
            Doing::Running(_) => {
                may(nature.returns, Act::Returns);
                may(nature.returns && config.tasks_fail, Act::Fails);
            }
            Doing::Told(_) => may(true, Act::Marks),
        }
        may(!self.unwritten.is_empty() && self.connected, Act::Writes);
        may(self.may_leave() && nature.obeys == Obeys::Ask, Act::Obeys);
        may(self.signal.is_some_and(|signal| nature.obeys == Obeys::Ask || signal == Death::Kill), Act::DiesOfSignal);
    }
}
