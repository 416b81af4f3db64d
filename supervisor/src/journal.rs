//! What people may read of workers: the lines that they wrote, and what happened to them. Kept in memory, bounded, and
//! told to those who follow.

mod carried;
mod events;
mod follow;
mod forward;
mod lines;
mod store;

use workhall_core::News;

pub(crate) use carried::Carried;
pub(crate) use events::{Event, EventReport};
use follow::What;
pub(crate) use follow::{Follower, LineReport};
pub use forward::Wanted;
pub(crate) use forward::{Forward, harmless};
pub(crate) use lines::{Line, Splitter, Stream};
use store::Store;
pub(crate) use store::Totals;
pub use store::{Bound, Bounds};

/// What `[supervisor]` says of it.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many lines are kept.
    pub lines: Bounds,
    /// The longest line, in bytes; a longer one comes in parts.
    pub line_bytes: usize,
    /// Where lines go beside that.
    pub forward: Wanted,
    /// How many events are kept.
    pub events: Bounds,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Journal {
    pub lines: Store<Line>,
    pub events: Store<Event>,
    pub followers: Vec<Follower>,
    pub line_bytes: usize,
    wanted: Wanted,
    forward: Forward,
    /// Events that the core has lost because too much happened at once.
    pub lost_events: u64,
}

impl Journal {
    /// An empty one; and what is not as it was wanted, for people.
    pub fn new(settings: &Settings) -> (Journal, Option<String>) {
        let (forward, warning) = Forward::new(settings.forward);
        let journal = Journal {
            lines: Store::new(settings.lines),
            events: Store::new(settings.events),
            followers: Vec::new(),
            line_bytes: settings.line_bytes,
            wanted: settings.forward,
            forward,
            lost_events: 0,
        };
        (journal, warning)
    }

    /// From here on it is as another configuration says. What is too much leaves with what comes next. Returns what is not
    /// as it was wanted, for people.
    pub fn renew(&mut self, settings: &Settings) -> Option<String> {
        self.lines.set_bounds(settings.lines);
        self.events.set_bounds(settings.events);
        self.line_bytes = settings.line_bytes;
        if self.wanted == settings.forward {
            return None;
        }
        let (forward, warning) = Forward::new(settings.forward);
        self.wanted = settings.forward;
        let before = std::mem::replace(&mut self.forward, forward);
        warning.or(before.last_words())
    }

    /// Lines that one worker wrote, in order.
    pub fn write(&mut self, name: &str, lines: Vec<Line>) {
        self.forward.pass_on(name, &lines);
        for line in lines {
            let followers = &mut self.followers;
            self.lines.push(name, line, |at, name, line| {
                followers.iter_mut().for_each(|follower| follower.loses(What::Lines, at, name, line));
            });
        }
    }

    /// Something happened.
    pub fn note(&mut self, at_ms: u64, news: News) {
        let name = news.worker.name.clone();
        let followers = &mut self.followers;
        self.events.push(&name, Event::Noted { at_ms, news }, |at, name, event| {
            followers.iter_mut().for_each(|follower| follower.loses(What::Events, at, name, event));
        });
    }
}
