//! All workers by their places: those at rest packed, the others as they are.
//!
//! A worker at rest has a name, a number and a policy here, and is else as good as absent: who wants more of it wakes it
//! first. The step in which that happens puts it to rest again, if nothing has come of it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Index, IndexMut};

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use workhall_protocol::ids::{WorkerName, WorkerNumber};

use crate::mailbox::Identity;
use crate::policy::Policy;
use crate::resting::Resting;
use crate::time::Instant;
use crate::worker::Worker;

/// The end of the list of vacant places.
const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
pub(crate) struct Workers {
    slots: Vec<Slot>,
    /// The first of the vacant places.
    vacant: u32,
    awake: usize,
    resting: usize,
}

#[derive(Clone, Debug)]
enum Slot {
    Vacant {
        next: u32,
    },
    Resting(Resting),
    /// With [`Worker::counted`], so that workers can be told apart by it without a look at each.
    Awake(Box<Worker>, u32),
}

/// A worker, however it is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seat<'a> {
    Resting(&'a Resting),
    Awake(&'a Worker),
}

impl Workers {
    pub fn new() -> Workers {
        Workers { slots: Vec::new(), vacant: NONE, awake: 0, resting: 0 }
    }

    /// How many there are, those at rest included.
    pub fn len(&self) -> usize {
        self.awake + self.resting
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many are not at rest.
    pub fn awake(&self) -> usize {
        self.awake
    }

    pub fn insert(&mut self, worker: Worker) -> u32 {
        self.awake += 1;
        let counted = worker.counted;
        let slot = Slot::Awake(Box::new(worker), counted);
        match self.slots.get_mut(self.vacant as usize) {
            Some(place) => {
                let index = self.vacant;
                let Slot::Vacant { next } = core::mem::replace(place, slot) else { unreachable!("it was vacant") };
                self.vacant = next;
                index
            }
            None => {
                self.reserve_one();
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        }
    }

    /// A worker that is awake.
    pub fn get(&self, index: usize) -> Option<&Worker> {
        match self.slots.get(index) {
            Some(Slot::Awake(worker, _)) => Some(worker),
            _ => None,
        }
    }

    /// The same.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut Worker> {
        match self.slots.get_mut(index) {
            Some(Slot::Awake(worker, _)) => Some(worker),
            _ => None,
        }
    }

    /// Whether a worker is there, and awake.
    pub fn contains(&self, index: usize) -> bool {
        self.get(index).is_some()
    }

    /// A worker, however it is kept.
    pub fn seat(&self, index: usize) -> Option<Seat<'_>> {
        self.slots.get(index).and_then(Slot::seat)
    }

    /// Takes out a worker that is awake.
    pub fn remove(&mut self, index: usize) -> Worker {
        let vacant = Slot::Vacant { next: self.vacant };
        let Slot::Awake(worker, _) = core::mem::replace(&mut self.slots[index], vacant) else {
            panic!("worker {index} is not awake")
        };
        self.awake -= 1;
        self.vacant = index as u32;
        *worker
    }

    /// Wakes the worker of this place, if it rests. Returns whether it did.
    pub fn wake(&mut self, index: u32) -> bool {
        let Some(slot) = self.slots.get_mut(index as usize) else { return false };
        let Slot::Resting(resting) = slot else { return false };
        let worker = resting.wake();
        let counted = worker.counted;
        *slot = Slot::Awake(Box::new(worker), counted);
        self.awake += 1;
        self.resting -= 1;
        true
    }

    /// Puts a worker to rest, if it may.
    pub fn rest(&mut self, now: Instant, index: u32) {
        if self.get(index as usize).is_some_and(Worker::may_rest) {
            let worker = self.remove(index as usize);
            self.put_to_rest(index, Resting::new(worker, now));
        }
    }

    /// Drops all that rest.
    pub fn drop_resting(&mut self, mut dropped: impl FnMut(u32, &Resting)) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if let Slot::Resting(resting) = slot {
                dropped(index as u32, resting);
                *slot = Slot::Vacant { next: self.vacant };
                self.vacant = index as u32;
            }
        }
        self.resting = 0;
    }

    /// Those that are awake.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Worker)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| match slot {
            Slot::Awake(worker, _) => Some((index, &**worker)),
            _ => None,
        })
    }

    /// All.
    pub fn seats(&self) -> impl Iterator<Item = (u32, Seat<'_>)> {
        self.seats_from(0)
    }

    /// All from this place on.
    pub fn seats_from(&self, first: u32) -> impl Iterator<Item = (u32, Seat<'_>)> {
        let slots = self.slots.get(first as usize..).unwrap_or_default();
        (first..).zip(slots).filter_map(|(index, slot)| Some((index, slot.seat()?)))
    }

    /// All, and where those that are awake are counted. None of these is looked at for that.
    pub fn seats_counted(&self) -> impl Iterator<Item = (Option<u32>, Seat<'_>)> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Awake(worker, counted) => Some((Some(*counted), Seat::Awake(worker))),
            other => Some((None, other.seat()?)),
        })
    }

    /// Counts a worker that is awake there; returns where it was counted before.
    pub fn count_at(&mut self, index: u32, number: u32) -> Option<u32> {
        match self.slots.get_mut(index as usize)? {
            Slot::Awake(worker, counted) => {
                *counted = number;
                Some(core::mem::replace(&mut worker.counted, number))
            }
            _ => None,
        }
    }

    /// Gives a worker its policy, after a snapshot was read. Returns whether there is such a worker.
    pub fn set_policy(&mut self, index: u32, policy: Arc<Policy>) -> bool {
        match self.slots.get_mut(index as usize) {
            Some(Slot::Awake(worker, _)) => worker.policy = policy,
            Some(Slot::Resting(resting)) => resting.policy = policy,
            _ => return false,
        }
        true
    }

    /// The same for the policy of its next life.
    pub fn set_renewed(&mut self, index: u32, policy: Arc<Policy>) -> bool {
        match self.get_mut(index as usize) {
            Some(worker) => worker.renewed = Some(policy),
            None => return false,
        }
        true
    }

    /// The place becomes that of a worker at rest.
    fn put_to_rest(&mut self, index: u32, resting: Resting) {
        let slot = core::mem::replace(&mut self.slots[index as usize], Slot::Resting(resting));
        let Slot::Vacant { next } = slot else { unreachable!("it was left just now") };
        self.vacant = next;
        self.resting += 1;
    }

    /// Growing by doubling would leave up to half of the memory unused.
    fn reserve_one(&mut self) {
        if self.slots.len() == self.slots.capacity() {
            self.slots.reserve_exact(self.slots.len() / 8 + 16);
        }
    }

    /// A worker that a snapshot has, at its old place.
    fn restore(&mut self, index: u32, worker: Worker) -> bool {
        while self.slots.len() <= index as usize {
            self.reserve_one();
            self.slots.push(Slot::Vacant { next: NONE });
        }
        let slot = &mut self.slots[index as usize];
        if !matches!(slot, Slot::Vacant { .. }) {
            return false;
        }
        // Whether a delay is over is not known here.
        *slot = match worker.may_rest() {
            true => Slot::Resting(Resting::new(worker, Instant::default())),
            false => {
                let counted = worker.counted;
                Slot::Awake(Box::new(worker), counted)
            }
        };
        match slot {
            Slot::Resting(_) => self.resting += 1,
            _ => self.awake += 1,
        }
        true
    }
}

impl Slot {
    fn seat(&self) -> Option<Seat<'_>> {
        match self {
            Slot::Vacant { .. } => None,
            Slot::Resting(resting) => Some(Seat::Resting(resting)),
            Slot::Awake(worker, _) => Some(Seat::Awake(worker)),
        }
    }
}

impl<'a> Seat<'a> {
    pub fn name(self) -> &'a WorkerName {
        match self {
            Seat::Resting(resting) => &resting.name,
            Seat::Awake(worker) => &worker.identity.name,
        }
    }

    pub fn number(self) -> WorkerNumber {
        match self {
            Seat::Resting(resting) => resting.number(),
            Seat::Awake(worker) => worker.identity.number,
        }
    }

    pub fn identity(self) -> Identity {
        Identity { name: self.name().clone(), number: self.number() }
    }

    pub fn policy(self) -> &'a Arc<Policy> {
        match self {
            Seat::Resting(resting) => &resting.policy,
            Seat::Awake(worker) => &worker.policy,
        }
    }

    /// That of its next process, should the configuration have changed since this one was started.
    pub fn newest_policy(self) -> &'a Arc<Policy> {
        match self {
            Seat::Resting(resting) => &resting.policy,
            Seat::Awake(worker) => worker.newest_policy(),
        }
    }
}

impl Index<usize> for Workers {
    type Output = Worker;
    fn index(&self, index: usize) -> &Worker {
        self.get(index).expect("a place that is used is that of a worker that is awake")
    }
}

impl IndexMut<usize> for Workers {
    fn index_mut(&mut self, index: usize) -> &mut Worker {
        self.get_mut(index).expect("a place that is used is that of a worker that is awake")
    }
}

/// By their places. Those at rest are written as all others.
impl Serialize for Workers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut workers = serializer.serialize_map(Some(self.len()))?;
        for (index, seat) in self.seats() {
            match seat {
                Seat::Awake(worker) => workers.serialize_entry(&index, worker)?,
                Seat::Resting(resting) => workers.serialize_entry(&index, &resting.wake())?,
            }
        }
        workers.end()
    }
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Workers, D::Error> {
        struct ByPlace;

        impl<'de> Visitor<'de> for ByPlace {
            type Value = Workers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("workers by their places")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Workers, A::Error> {
                let mut workers = Workers::new();
                // Until each has its own.
                let policy = Arc::<Policy>::default();
                while let Some((index, mut worker)) = map.next_entry::<u32, Worker>()? {
                    worker.policy = policy.clone();
                    if !workers.restore(index, worker) {
                        return Err(serde::de::Error::custom("two workers have one place"));
                    }
                }
                workers.vacant = NONE;
                for (index, slot) in workers.slots.iter_mut().enumerate() {
                    if let Slot::Vacant { next } = slot {
                        *next = core::mem::replace(&mut workers.vacant, index as u32);
                    }
                }
                Ok(workers)
            }
        }

        deserializer.deserialize_map(ByPlace)
    }
}

#[cfg(test)]
mod tests {
    use workhall_protocol::ids::Generation;
    use workhall_protocol::terms::Exit;

    use super::*;
    use crate::view::LastExit;

    /// What the allocator needs for a block of so many bytes.
    fn allocated(bytes: usize) -> usize {
        (bytes + 8).next_multiple_of(16).max(32)
    }

    #[test]
    fn a_name_without_a_process_needs_less_than_200_bytes() {
        assert!(size_of::<Slot>() <= 48, "{}", size_of::<Slot>());
        let name = WorkerName::new("worker-0123456789").expect("it is a name");
        let identity = Identity { name: name.clone(), number: WorkerNumber(1_000_000) };
        let mut worker = Worker::new(identity, Arc::new(Policy::default()), Instant(1 << 50));
        worker.startup = Some("startup".into());
        worker.executed = 1000;
        let last = |generation| LastExit {
            generation: Generation(generation),
            exit: Some(Exit::Code(0)),
            stage: None,
            failure: None,
            at: Instant((1 << 50) + (generation << 32)),
        };
        worker.exits = Some(Box::new((1..=2).map(last).collect()));
        let packed = Resting::new(worker, Instant(0)).packed_bytes();
        // Two counts stand before a shared text. An index has a place and a byte for each entry, and twice that when it
        // has just grown.
        let (text, indexes) = (allocated(16 + name.len()), 2 * 2 * 5 * 8 / 7);
        let all = size_of::<Slot>() * 9 / 8 + text + allocated(packed) + indexes;
        assert!(all <= 200, "{all}: {packed} packed");
    }
}
