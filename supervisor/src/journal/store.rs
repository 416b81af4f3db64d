//! What is kept for people of each worker, by its name: lines that it wrote, or what happened to it. Bounded per worker
//! and in all, in count and bytes. The oldest leave first: of the worker that has too many, else of all.
//!
//! Everything that comes has the next number. So who reads from a number on knows what it has missed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// What something counts beyond its text, in bytes: about what it needs to keep it.
pub(crate) const OVERHEAD_BYTES: u64 = 128;

/// Something that is kept.
pub(crate) trait Kept {
    /// Bytes of its text.
    fn text_bytes(&self) -> u64;
    /// Whose it is.
    fn number(&self) -> u64;
    /// The class of that worker.
    fn class(&self) -> &str;
    /// When it came, in milliseconds since 1970.
    fn at_ms(&self) -> u64;
}

/// The most that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// How many.
    pub count: u64,
    /// Their bytes, each counted with its overhead.
    pub bytes: u64,
}

/// The bounds of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Of one worker.
    pub worker: Bound,
    /// Of all together.
    pub total: Bound,
}

/// How much is kept, and how much has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub count: u64,
    pub bytes: u64,
    /// Left because there were too many.
    pub dropped: u64,
}

impl Totals {
    fn exceeds(&self, bound: Bound) -> bool {
        self.count > bound.count || self.bytes > bound.bytes
    }

    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }

    fn drop(&mut self, bytes: u64) {
        self.count -= 1;
        self.bytes -= bytes;
        self.dropped += 1;
    }
}

/// What is kept of one worker.
#[derive(Debug)]
struct Ring<T> {
    items: VecDeque<(u64, T)>,
    totals: Totals,
}

/// What is kept of all.
#[derive(Debug)]
pub(crate) struct Store<T> {
    rings: HashMap<Arc<str>, Ring<T>>,
    /// Whose each is, in the order in which they came.
    order: BTreeMap<u64, Arc<str>>,
    next: u64,
    totals: Totals,
    bounds: Bounds,
}

impl<T: Kept> Store<T> {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Store<T> {
        Store { rings: HashMap::new(), order: BTreeMap::new(), next: 1, totals: Totals::default(), bounds }
    }

    /// Keeps one more. What has to leave for it is shown to `leaves` first.
    pub fn push(&mut self, name: &str, item: T, mut leaves: impl FnMut(u64, &str, &T)) {
        let name = match self.rings.get_key_value(name) {
            Some((known, _)) => known.clone(),
            None => Arc::from(name),
        };
        let bytes = charge(&item);
        let empty = || Ring { items: VecDeque::new(), totals: Totals::default() };
        let ring = self.rings.entry(name.clone()).or_insert_with(empty);
        ring.items.push_back((self.next, item));
        ring.totals.add(bytes);
        self.totals.add(bytes);
        self.order.insert(self.next, name.clone());
        self.next += 1;
        while self.rings.get(&name).is_some_and(|ring| ring.totals.exceeds(self.bounds.worker)) {
            self.drop_first(&name, &mut leaves);
        }
        while self.totals.exceeds(self.bounds.total) {
            let Some(oldest) = self.order.first_key_value().map(|(_, name)| name.clone()) else { break };
            self.drop_first(&oldest, &mut leaves);
        }
    }

    fn drop_first(&mut self, name: &Arc<str>, leaves: &mut impl FnMut(u64, &str, &T)) {
        let Some(ring) = self.rings.get_mut(name) else { return };
        let Some((at, item)) = ring.items.pop_front() else { return };
        let bytes = charge(&item);
        ring.totals.drop(bytes);
        self.totals.drop(bytes);
        self.order.remove(&at);
        leaves(at, name, &item);
        // A name of which nothing is kept is not kept either.
        if ring.items.is_empty() {
            self.rings.remove(name);
        }
    }

    /// The number that the next one will have.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// How much there is.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The bounds.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// How many of one worker have left, as far as anything of it is kept.
    pub fn dropped_of(&self, name: &str) -> u64 {
        self.rings.get(name).map_or(0, |ring| ring.totals.dropped)
    }

    /// The same of all of which anything is kept.
    pub fn dropped(&self) -> impl Iterator<Item = (&str, u64)> {
        self.rings.iter().map(|(name, ring)| (&**name, ring.totals.dropped)).filter(|(_, dropped)| *dropped > 0)
    }

    /// The next one has this number, if it is not too late for it.
    pub fn go_on_from(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// So many have left before, of all and of each worker.
    pub fn have_left(&mut self, dropped: u64, of: &[(String, u64)]) {
        self.totals.dropped += dropped;
        for (name, dropped) in of {
            if let Some(ring) = self.rings.get_mut(name.as_str()) {
                ring.totals.dropped += dropped;
            }
        }
    }

    /// Other bounds. What is too much leaves with what comes next.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Those of all workers from a number on.
    pub fn from(&self, at: u64) -> impl DoubleEndedIterator<Item = (u64, &str, &T)> {
        self.order.range(at..).filter_map(|(at, name)| {
            let items = &self.rings.get(name)?.items;
            let (_, item) = items.get(items.binary_search_by_key(at, |(at, _)| *at).ok()?)?;
            Some((*at, &**name, item))
        })
    }

    /// Those of one worker from a number on.
    pub fn of(&self, name: &str, at: u64) -> impl DoubleEndedIterator<Item = (u64, &str, &T)> {
        self.rings.get_key_value(name).into_iter().flat_map(move |(name, ring)| {
            let first = ring.items.partition_point(|(other, _)| *other < at);
            ring.items.range(first..).map(move |(at, item)| (*at, &**name, item))
        })
    }
}

fn charge(item: &impl Kept) -> u64 {
    item.text_bytes() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Kept for u64 {
        fn text_bytes(&self) -> u64 {
            *self
        }
        fn number(&self) -> u64 {
            2
        }
        fn class(&self) -> &str {
            "c"
        }
        fn at_ms(&self) -> u64 {
            0
        }
    }

    const MUCH: Bound = Bound { count: 1000, bytes: 1 << 20 };

    fn all(store: &Store<u64>) -> Vec<(u64, &str)> {
        store.from(0).map(|(at, name, _)| (at, name)).collect()
    }

    #[test]
    fn who_has_too_many_loses_its_own_oldest_first() {
        let mut store = Store::new(Bounds { worker: Bound { count: 2, bytes: 1 << 20 }, total: MUCH });
        let mut left = Vec::new();
        for name in ["a", "b", "a", "a", "a"] {
            store.push(name, 0, |at, name, _| left.push((at, name.to_string())));
        }
        assert_eq!(left, [(1, "a".to_string()), (3, "a".to_string())]);
        assert_eq!(all(&store), [(2, "b"), (4, "a"), (5, "a")]);
        assert_eq!((store.dropped_of("a"), store.dropped_of("b"), store.totals().dropped), (2, 0, 2));
        assert_eq!(store.of("a", 5).map(|(at, ..)| at).collect::<Vec<_>>(), [5]);
        assert_eq!(store.from(3).map(|(at, ..)| at).collect::<Vec<_>>(), [4, 5]);
    }

    #[test]
    fn of_too_many_in_all_the_oldest_leave_whosever_they_are() {
        let bytes = 3 * OVERHEAD_BYTES + 300;
        let mut store = Store::new(Bounds { worker: MUCH, total: Bound { count: 1000, bytes } });
        for name in ["a", "b", "c", "d"] {
            store.push(name, 100, |_, _, _| {});
        }
        assert_eq!(all(&store), [(2, "b"), (3, "c"), (4, "d")]);
        assert_eq!((store.rings.len(), store.totals().bytes), (3, bytes), "nothing stays of a name without any");
        // One that has no place alone leaves nothing, and is not kept itself.
        store.push("e", 1 << 19, |_, _, _| {});
        assert_eq!(
            (all(&store).len(), store.totals(), store.rings.len()),
            (0, Totals { count: 0, bytes: 0, dropped: 5 }, 0)
        );
    }
}
