//! A virtual process: what it is like, and what is so at the moment.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use workhall_core::{KillMode, Mark, ProcessKey};
use workhall_protocol::ids::{MessageId, WorkerNumber};
use workhall_protocol::terms::Exit;

use super::rng::Rng;

/// What a process is like; drawn at its start.
#[derive(Clone, Debug)]
pub struct Nature {
    pub start: Start,
    pub start_takes: Duration,
    /// Without a page of marks the window is 1.
    pub window: u32,
    pub has_page: bool,
    /// How many settlements it collects before it writes them, and whether as one word.
    pub batch: usize,
    pub says_all: bool,
    /// Whether it ends when it is asked, and at SIGTERM. Always it begins no more tasks.
    pub obeys_ask: bool,
    pub obeys_term: bool,
    pub exit_takes: Duration,
    /// A process in uninterruptible sleep needs more than one.
    pub kills_needed: u32,
    /// How many Sweeps it takes until nothing is left of its tree.
    pub sweeps_needed: u32,
    pub tree_takes: Duration,
    pub crash_percent: u64,
    pub fail_percent: u64,
    pub hang_percent: u64,
    /// Closes its connection in the middle of a task and lives on.
    pub hang_up_percent: u64,
    pub idle_exit: Option<Duration>,
    /// Settles what it was not given, and what it has settled already.
    pub lie_percent: u64,
    pub task_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Good,
    NeverReady,
    ExitsBefore(Exit),
    Fails,
}

/// No exit and no tree takes longer than this to end, once it does.
pub const ENDING_MAX: Duration = Duration::from_secs(3);
/// No task that ends by itself takes longer.
pub const TASK_MAX: Duration = Duration::from_secs(8);

impl Nature {
    pub fn draw(rng: &mut Rng, calm: bool) -> Nature {
        let has_page = rng.percent(70);
        let naughty = !calm && rng.percent(45);
        let mut often = |percent: u64| naughty && rng.percent(percent);
        let start = match () {
            () if often(12) => Start::Fails,
            () if often(12) => Start::NeverReady,
            () if often(12) => Start::ExitsBefore(Exit::Code(7)),
            () => Start::Good,
        };
        let obeys_ask = !often(40);
        let obeys_term = obeys_ask || !often(50);
        let kills_needed = if often(15) { 2 } else { 1 };
        let slow_exit = often(30);
        let (crashes, fails, hangs, hangs_up) = (often(50), often(40), often(25), often(35));
        let lies = often(20);
        let left_behind = often(40);
        Nature {
            start,
            start_takes: rng.up_to_ms(if calm { 20 } else { 300 }),
            window: if has_page { rng.pick(&[1, 2, 4, 16, 64]) } else { 1 },
            has_page,
            batch: rng.between(1, 6) as usize,
            says_all: rng.percent(50),
            obeys_ask,
            obeys_term,
            exit_takes: rng.up_to_ms(if slow_exit { ENDING_MAX.as_millis() as u64 } else { 20 }),
            kills_needed,
            sweeps_needed: if left_behind { rng.between(1, 2) as u32 } else { 1 },
            tree_takes: if left_behind { rng.up_to_ms(ENDING_MAX.as_millis() as u64) } else { rng.up_to_ms(2) },
            crash_percent: if crashes { 25 } else { 0 },
            fail_percent: if fails { 40 } else { 5 },
            hang_percent: if hangs { 20 } else { 0 },
            hang_up_percent: if hangs_up { 40 } else { 0 },
            idle_exit: rng.percent(10).then(|| rng.up_to_ms(2000)),
            lie_percent: if lies { 50 } else { 0 },
            task_ms: rng.pick(&[0, 1, 20, 20, 200, TASK_MAX.as_millis() as u64]),
        }
    }
}

/// What the supervisor has written to it.
#[derive(Clone, Copy, Debug)]
pub enum ToProcess {
    Task {
        id: MessageId,
        awaited: bool,
        poison: bool,
    },
    Ask,
    /// A task that it was given is not wanted any more.
    Cancel(MessageId),
}

/// What it has written to the supervisor.
#[derive(Clone, Debug)]
pub enum ToShell {
    Ready,
    Done(MessageId),
    DoneAll(MessageId),
    Failed(MessageId),
    /// It has not begun it, and will not.
    Dropped(MessageId),
    /// A settlement of something that it was not given.
    Lie(MessageId),
    Post(Post),
    Kill(KillWish),
}

/// A call that somebody wants to make.
#[derive(Clone, Debug)]
pub struct Post {
    pub to: Whom,
    pub startup: bool,
    pub existing: bool,
    pub expires: Option<Duration>,
    pub after: Option<Duration>,
    pub account: u64,
    pub awaited: bool,
    /// No process survives it.
    pub poison: bool,
    pub padding: usize,
}

/// A kill that somebody wants.
#[derive(Clone, Debug)]
pub struct KillWish {
    pub whom: Whom,
    pub mode: KillMode,
    pub within: Option<Duration>,
    pub reply: bool,
    pub wait: bool,
}

#[derive(Clone, Debug)]
pub enum Whom {
    Name(&'static str),
    Number(WorkerNumber),
}

/// How a task is going to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Done,
    Failed,
    Crash(Exit),
    /// Written to the supervisor, but it dies before it says so in the page.
    SettledThenCrash(Exit),
    Hang,
}

#[derive(Clone, Copy, Debug)]
pub struct Task {
    pub id: MessageId,
    pub awaited: bool,
    pub ending: Ending,
}

/// Between the two halves of a begin: the id is in the page, the stop flag not looked at yet.
#[derive(Clone, Copy, Debug)]
pub struct Beginning {
    pub id: MessageId,
    pub awaited: bool,
    pub poison: bool,
    pub previous: MessageId,
}

#[derive(Debug)]
pub struct Process {
    pub key: ProcessKey,
    pub name: &'static str,
    pub nature: Nature,
    pub alive: bool,
    pub is_ready: bool,
    pub mark: Mark,
    pub stop_flag: bool,
    /// It has seen the flag or Ask: it begins no more tasks.
    pub stops: bool,
    pub asked: bool,
    pub beginning: Option<Beginning>,
    pub running: Option<Task>,
    pub unwritten: Vec<MessageId>,
    /// What it was told is not wanted any more.
    pub unwanted: BTreeSet<MessageId>,
    pub inbox: VecDeque<ToProcess>,
    /// Sent by the supervisor, not arrived.
    pub on_the_way: VecDeque<ToProcess>,
    /// Written by the process, not read.
    pub outbox: VecDeque<ToShell>,
    /// The process's end of the connection.
    pub connected: bool,
    pub kills_seen: u32,
    pub sweeps_seen: u32,
    /// Changes whenever it begins or ends something: an older timer is void.
    pub epoch: u64,
    pub exit: Option<Exit>,
    pub exit_fed: bool,
    pub tree_gone: bool,
}

impl Process {
    pub fn new(key: ProcessKey, name: &'static str, nature: Nature) -> Process {
        Process {
            key,
            name,
            nature,
            alive: true,
            is_ready: false,
            mark: Mark::default(),
            stop_flag: false,
            stops: false,
            asked: false,
            beginning: None,
            running: None,
            unwritten: Vec::new(),
            unwanted: BTreeSet::new(),
            inbox: VecDeque::new(),
            on_the_way: VecDeque::new(),
            outbox: VecDeque::new(),
            connected: true,
            kills_seen: 0,
            sweeps_seen: 0,
            epoch: 0,
            exit: None,
            exit_fed: false,
            tree_gone: false,
        }
    }

    /// The mark as the supervisor reads it.
    pub fn page(&self) -> Option<Mark> {
        self.nature.has_page.then_some(self.mark)
    }

    pub fn write(&mut self, frame: ToShell) {
        if self.connected {
            self.outbox.push_back(frame);
        }
    }

    /// Writes the settlements that were collected.
    pub fn flush(&mut self) {
        let collected = std::mem::take(&mut self.unwritten);
        match collected.last() {
            Some(last) if self.nature.says_all => self.write(ToShell::DoneAll(*last)),
            _ => collected.into_iter().for_each(|id| self.write(ToShell::Done(id))),
        }
    }
}
