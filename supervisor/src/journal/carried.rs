//! What of the journal goes to the next program of this supervisor: all that is kept, and who follows.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::events::{Event, EventReport};
use super::follow::{Follower, LineReport, What};
use super::lines::{ClassName, Line};
use super::store::{Kept, Store};
use super::{Forward, Journal};

/// Plain values, as they are told. Fields are only ever added, with a default.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Carried {
    lines: CarriedStore<LineReport>,
    events: CarriedStore<EventReport>,
    followers: Vec<Follower>,
    /// Events that the core has lost.
    lost_events: u64,
    /// Lines that systemd's journal has not taken, which is not said yet.
    not_forwarded: u64,
}

/// Of a store: in the order of their numbers.
#[derive(Debug, Serialize, Deserialize)]
struct CarriedStore<R> {
    items: Vec<R>,
    /// The number that the next one has.
    next: u64,
    /// How many have left, of all and of each worker.
    dropped: u64,
    dropped_of: Vec<(String, u64)>,
}

impl<R> Default for CarriedStore<R> {
    fn default() -> Self {
        CarriedStore { items: Vec::new(), next: 1, dropped: 0, dropped_of: Vec::new() }
    }
}

impl<R> CarriedStore<R> {
    fn of<T: Kept>(store: &Store<T>, row: impl Fn(u64, &str, &T) -> R) -> CarriedStore<R> {
        CarriedStore {
            items: store.from(0).map(|(at, name, item)| row(at, name, item)).collect(),
            next: store.next(),
            dropped: store.totals().dropped,
            dropped_of: store.dropped().map(|(name, dropped)| (name.to_string(), dropped)).collect(),
        }
    }

    /// Puts all of it into an empty store. What has no room there, because its bounds are others, leaves.
    fn put_into<T: Kept>(
        self,
        store: &mut Store<T>,
        mut item: impl FnMut(R) -> (u64, String, T),
        mut leaves: impl FnMut(u64, &str, &T),
    ) {
        for row in self.items {
            let (at, name, item) = item(row);
            store.go_on_from(at);
            store.push(&name, item, &mut leaves);
        }
        store.go_on_from(self.next);
        store.have_left(self.dropped, &self.dropped_of);
    }
}

impl Journal {
    /// All that the next program needs to go on.
    pub fn carried(&self) -> Carried {
        Carried {
            lines: CarriedStore::of(&self.lines, LineReport::new),
            events: CarriedStore::of(&self.events, EventReport::new),
            followers: self.followers.clone(),
            lost_events: self.lost_events,
            not_forwarded: match &self.forward {
                Forward::Journal { lost, .. } => *lost,
                Forward::Stderr | Forward::Nowhere => 0,
            },
        }
    }

    /// Goes on with it, if nothing has come yet.
    pub fn go_on(&mut self, carried: Carried) {
        let Carried { lines, events, followers, lost_events, not_forwarded } = carried;
        let mut classes: HashMap<String, Arc<str>> = HashMap::new();
        let line = |report: LineReport| {
            let LineReport { seq, at_ms, worker, number, generation, class, stream, cut, text } = report;
            let class = classes.entry(class).or_insert_with_key(|class| class.as_str().into()).clone();
            let class = ClassName::Carried(class);
            (seq, worker, Line { at_ms, number, generation, class, stream, cut, text: text.into() })
        };
        let event = |report: EventReport| (report.seq, report.worker.clone(), Event::Carried(Box::new(report)));
        self.followers = followers;
        let followers = &mut self.followers;
        lines.put_into(&mut self.lines, line, |at, name, line| {
            followers.iter_mut().for_each(|follower| follower.loses(What::Lines, at, name, line));
        });
        events.put_into(&mut self.events, event, |at, name, event| {
            followers.iter_mut().for_each(|follower| follower.loses(What::Events, at, name, event));
        });
        self.lost_events = lost_events;
        if let Forward::Journal { lost, .. } = &mut self.forward {
            *lost = not_forwarded;
        }
    }
}

#[cfg(test)]
mod tests {
    use workhall_core::Policy;

    use super::super::{Bound, Bounds, Settings, Stream, Wanted};
    use super::*;

    fn journal(worker: u64) -> Journal {
        let bound = |count| Bound { count, bytes: 1 << 20 };
        let bounds = Bounds { worker: bound(worker), total: bound(100) };
        Journal::new(&Settings { lines: bounds, line_bytes: 100, forward: Wanted::None, events: bounds }).0
    }

    fn line(text: &str) -> Line {
        let class = ClassName::from(&Arc::new(Policy { class: "c".into(), ..Policy::default() }));
        Line { at_ms: 5, number: 2, generation: 3, class, stream: Stream::Stderr, cut: true, text: text.into() }
    }

    /// With its numbers, and what has left stays counted.
    #[test]
    fn what_is_kept_goes_on_as_it_was() {
        let mut before = journal(3);
        for text in ["1", "2", "3", "4", "5"] {
            before.write("a", vec![line(text)]);
        }
        before.write("b/\u{e9}", vec![line("6")]);
        before.lost_events = 7;
        let event = EventReport { seq: 9, worker: "a".into(), event: "gone".into(), ..EventReport::default() };
        before.events.go_on_from(9);
        before.events.push("a", Event::Carried(Box::new(event)), |_, _, _| {});
        let rows = |journal: &Journal| {
            let lines: Vec<String> = journal
                .lines
                .from(0)
                .map(|(at, name, line)| format!("{:?}", LineReport::new(at, name, line)))
                .collect();
            let events: Vec<String> =
                journal.events.from(0).map(|(at, name, it)| format!("{:?}", EventReport::new(at, name, it))).collect();
            (lines, events, journal.lines.totals(), journal.lines.next(), journal.lost_events)
        };
        let text = rmp_serde::to_vec_named(&before.carried()).unwrap();
        let mut after = journal(3);
        after.go_on(rmp_serde::from_slice(&text).unwrap());
        assert_eq!(rows(&after), rows(&before));
        assert_eq!((after.lines.dropped_of("a"), after.lines.totals().dropped, after.events.next()), (2, 2, 10));
        // Where less is kept, the oldest leave, and are counted.
        let mut less = journal(1);
        less.go_on(rmp_serde::from_slice(&text).unwrap());
        assert_eq!(less.lines.from(0).map(|(at, ..)| at).collect::<Vec<_>>(), [5, 6]);
        assert_eq!((less.lines.dropped_of("a"), less.lines.totals().dropped), (4, 4));
    }
}
