//! What tells one state from another, as 128 bits: the core's snapshot, written into a hash instead of bytes, and with it
//! what the world and the checks remember.
//!
//! The core only compares points in time and adds to them, so all of them count from now: the same situation a
//! second later is the same state. Two kinds of difference are left out, because nothing that is decided later can
//! depend on them:
//!
//! - What is kept for people only: dead letters, counters, when something was accepted or created, the last exits, how
//!   long the steps of a stop took.
//! - How long something is past, beyond the time after which it no longer matters ([`Horizons`]); and entries among
//!   the deadlines that no longer hold.
//!
//! That this is so is not taken on trust: see [`super::search::Settings::prove_key`].

use std::fmt;
use std::hash::Hasher;

use serde::ser::{self, Serialize, Serializer};

/// After how many nanoseconds it no longer matters when something was.
#[derive(Clone, Copy, Debug)]
pub struct Horizons {
    pub start_timeout: u64,
    pub exit_grace: u64,
    pub term_grace: u64,
    /// The limits of time of tasks and of having nothing to do.
    pub task: u64,
    pub crash_window: u64,
}

/// An unanswered Kill or Sweep is repeated after so long.
const REPEAT: u64 = 1_000_000_000;
/// A life that was ready for so long was healthy.
const HEALTHY_AFTER: u64 = 10_000_000_000;
/// The core's [`workhall_core::Instant::NEVER`].
const NEVER: u64 = u64::MAX;
/// Nothing is left out.
const EXACT: u64 = u64::MAX;

/// What is done with a field.
enum Treat {
    Skip,
    /// Points in time in it that are past by more than this are past by this.
    Past(u64),
    /// The heap, of which only what holds counts, in order.
    Deadlines,
    /// The worker's entry in the heap that holds.
    Wake,
    /// Ends with the worker's number.
    Identity,
    /// Counts only until another field says that it does not: kept until then.
    Held(usize, u64),
    /// The step of a ladder.
    Step,
    /// The last task that was settled. How long a life has been ready says whether it was healthy, which only matters
    /// if it has settled nothing and failures came before it. One that is ready may have started at any time.
    Settled,
    /// How many failures came before.
    Failures,
}

#[derive(Debug)]
pub struct Key<'h> {
    halves: [u64; 2],
    now: u64,
    horizons: &'h Horizons,
    past: u64,
    is_instant: bool,
    last: u64,
    holding: bool,
    /// What was held has not counted yet.
    is_open: bool,
    /// When the life was started and when it was ready.
    held: [u64; 2],
    /// The step of the ladder.
    step: u64,
    failures: u64,
    /// Number and deadline of each worker.
    wakes: Vec<(u64, u64)>,
    /// Inside the heap: its entries.
    in_heap: bool,
    entries: Vec<Vec<u64>>,
}

impl<'h> Key<'h> {
    pub fn new(now: u64, horizons: &'h Horizons) -> Key<'h> {
        Key {
            halves: [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344],
            now,
            horizons,
            past: EXACT,
            is_instant: false,
            last: 0,
            holding: false,
            is_open: false,
            held: [0; 2],
            step: 0,
            failures: 0,
            wakes: Vec::new(),
            in_heap: false,
            entries: Vec::new(),
        }
    }

    pub fn value(mut self) -> u128 {
        assert!(!self.is_open, "`Life::settled` comes behind the times that it decides about");
        let mut entries = std::mem::take(&mut self.entries);
        entries.retain(|entry| match entry[..] {
            // The first variant is a worker's own.
            [at, 0, number, ..] => self.wakes.contains(&(number, at)),
            _ => true,
        });
        entries.sort_unstable();
        entries.dedup();
        for token in entries.into_iter().flatten() {
            self.mix(token);
        }
        let [a, b] = self.halves.map(|half| (half ^ half >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        u128::from(a ^ a >> 29) << 64 | u128::from(b ^ b >> 31)
    }

    fn mix(&mut self, token: u64) {
        let [a, b] = self.halves;
        let wide = u128::from(a ^ token).wrapping_mul(0x2d35_8dcc_aa6c_78a5_8bb8_4b93_962e_acc9);
        self.halves =
            [(wide >> 64) as u64 ^ wide as u64, (b.rotate_left(23) ^ token).wrapping_mul(0xd6e8_feb8_6659_fd93)];
    }

    fn token(&mut self, token: u64) {
        self.last = token;
        match self.in_heap {
            _ if self.holding => {}
            true => self.entries.last_mut().expect("an entry is a tuple, which has begun").push(token),
            false => self.mix(token),
        }
    }

    /// From now on; the past is negative.
    fn instant(&mut self, at: u64) {
        let from_now = match at {
            NEVER => NEVER,
            _ if at >= self.now => at - self.now,
            _ => (self.now - at).min(self.past).wrapping_neg(),
        };
        self.token(from_now);
    }

    fn treat(&self, name: &'static str, field: &'static str) -> Treat {
        let h = self.horizons;
        match name {
            "Core" => match field {
                "now" | "counters" | "stats" | "dead_letters" | "gate_broken" => Treat::Skip,
                "deadlines" => Treat::Deadlines,
                _ => Treat::Past(EXACT),
            },
            "Worker" => match field {
                "executed" | "crashes" | "exits" | "violations" | "created" => Treat::Skip,
                "identity" => Treat::Identity,
                "wake_at" => Treat::Wake,
                "backoff_until" | "drain_deadline" => Treat::Past(0),
                _ => Treat::Past(EXACT),
            },
            "Life" => match field {
                "started" => Treat::Held(0, h.start_timeout),
                "ready" => Treat::Held(1, HEALTHY_AFTER),
                "settled" => Treat::Settled,
                "since" | "looked" => Treat::Past(h.task),
                "swept" => Treat::Past(REPEAT),
                "exit" | "ask_again" => Treat::Past(0),
                _ => Treat::Past(EXACT),
            },
            "Stop" => match field {
                "step" => Treat::Step,
                // Ask has its own, Term and Kill have theirs.
                "idle_since" | "task_deadline" if self.step > 0 => Treat::Skip,
                "acted" if self.step == 0 => Treat::Skip,
                "acted" => Treat::Past(h.term_grace.max(REPEAT)),
                "idle_since" => Treat::Past(h.exit_grace),
                "task_deadline" => Treat::Past(0),
                "began" => Treat::Skip,
                _ => Treat::Past(EXACT),
            },
            "Message" => match field {
                "accepted" | "body" | "method_bytes" => Treat::Skip,
                "expires" => Treat::Past(0),
                _ => Treat::Past(EXACT),
            },
            "Mailbox" => Treat::Past(if field == "later" { 0 } else { EXACT }),
            "Failures" => match field {
                "in_a_row" => Treat::Failures,
                "recent" => Treat::Past(h.crash_window),
                _ => Treat::Past(EXACT),
            },
            "Deadlines" => Treat::Past(0),
            "Killer" if field == "since" => Treat::Skip,
            "Written" if field != "core" => Treat::Skip,
            _ => Treat::Past(EXACT),
        }
    }

    fn field<T: ?Sized + Serialize>(
        &mut self,
        name: &'static str,
        field: &'static str,
        value: &T,
    ) -> Result<(), fmt::Error> {
        match self.treat(name, field) {
            Treat::Skip => {}
            Treat::Past(past) => {
                // What surrounds a list says how far its points in time count, not the list's own structs.
                let before = std::mem::replace(&mut self.past, past);
                value.serialize(&mut *self)?;
                self.past = before;
            }
            Treat::Deadlines => {
                self.in_heap = true;
                self.past = 0;
                value.serialize(&mut *self)?;
                (self.in_heap, self.past) = (false, EXACT);
            }
            Treat::Held(which, past) => {
                self.holding = true;
                self.past = past;
                value.serialize(&mut *self)?;
                (self.holding, self.past) = (false, EXACT);
                (self.held[which], self.is_open) = (self.last, true);
            }
            Treat::Step => {
                value.serialize(&mut *self)?;
                self.step = self.last;
            }
            Treat::Failures => {
                value.serialize(&mut *self)?;
                self.failures = self.last;
            }
            Treat::Settled => {
                value.serialize(&mut *self)?;
                let ([started, ready], settled) = (self.held, self.last);
                self.is_open = false;
                self.mix(if ready == NEVER { started } else { NEVER });
                let matters = ready == NEVER || settled == 0 && self.failures > 0;
                self.mix(if matters { ready } else { 1 });
            }
            Treat::Identity => {
                value.serialize(&mut *self)?;
                self.wakes.push((self.last, NEVER));
            }
            Treat::Wake => {
                let before = std::mem::replace(&mut self.past, 0);
                value.serialize(&mut *self)?;
                self.past = before;
                self.wakes.last_mut().expect("the identity came before").1 = self.last;
            }
        }
        Ok(())
    }
}

/// The same for what the world remembers.
impl Hasher for Key<'_> {
    fn finish(&self) -> u64 {
        self.halves[0]
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut token = [0; 8];
            token[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(token));
        }
    }

    fn write_u8(&mut self, token: u8) {
        self.mix(token.into());
    }

    fn write_u32(&mut self, token: u32) {
        self.mix(token.into());
    }

    fn write_u64(&mut self, token: u64) {
        self.mix(token);
    }

    fn write_usize(&mut self, token: usize) {
        self.mix(token as u64);
    }
}

/// The parts of something composed: which struct, if it is one.
#[derive(Debug)]
pub struct Parts<'k, 'h>(&'k mut Key<'h>, &'static str);

macro_rules! tokens {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, value: $type) -> Result<(), fmt::Error> {
            self.token(value as u64);
            Ok(())
        })*
    };
}

impl<'k, 'h> Serializer for &'k mut Key<'h> {
    type Ok = ();
    type Error = fmt::Error;
    type SerializeSeq = Parts<'k, 'h>;
    type SerializeTuple = Parts<'k, 'h>;
    type SerializeTupleStruct = Parts<'k, 'h>;
    type SerializeTupleVariant = Parts<'k, 'h>;
    type SerializeMap = Parts<'k, 'h>;
    type SerializeStruct = Parts<'k, 'h>;
    type SerializeStructVariant = Parts<'k, 'h>;

    tokens!(serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_char: char);

    fn serialize_u64(self, value: u64) -> Result<(), fmt::Error> {
        match std::mem::take(&mut self.is_instant) {
            true => self.instant(value),
            false => self.token(value),
        }
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), fmt::Error> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), fmt::Error> {
        self.serialize_u64(value.to_bits())
    }

    fn serialize_str(self, value: &str) -> Result<(), fmt::Error> {
        self.serialize_bytes(value.as_bytes())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), fmt::Error> {
        self.token(value.len() as u64);
        self.write(value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), fmt::Error> {
        // No point in time.
        self.token(if self.holding { NEVER } else { 0 });
        Ok(())
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<(), fmt::Error> {
        self.token(1);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), fmt::Error> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), fmt::Error> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Result<(), fmt::Error> {
        self.serialize_u32(index)
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(self, name: &'static str, value: &T) -> Result<(), fmt::Error> {
        self.is_instant = name == "Instant";
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), fmt::Error> {
        self.token(index.into());
        value.serialize(self)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Parts<'k, 'h>, fmt::Error> {
        // The heap has more entries than count.
        if !self.in_heap {
            self.token(len.ok_or(fmt::Error)? as u64);
        }
        Ok(Parts(self, ""))
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts<'k, 'h>, fmt::Error> {
        if self.in_heap {
            self.entries.push(Vec::with_capacity(5));
        }
        Ok(Parts(self, ""))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts<'k, 'h>, fmt::Error> {
        Ok(Parts(self, ""))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts<'k, 'h>, fmt::Error> {
        self.token(index.into());
        Ok(Parts(self, ""))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Parts<'k, 'h>, fmt::Error> {
        self.serialize_seq(len)
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Parts<'k, 'h>, fmt::Error> {
        Ok(Parts(self, name))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts<'k, 'h>, fmt::Error> {
        self.token(index.into());
        Ok(Parts(self, name))
    }
}

macro_rules! elements {
    ($($composed:ident: $method:ident),*) => {
        $(impl ser::$composed for Parts<'_, '_> {
            type Ok = ();
            type Error = fmt::Error;

            fn $method<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), fmt::Error> {
                value.serialize(&mut *self.0)
            }

            fn end(self) -> Result<(), fmt::Error> {
                Ok(())
            }
        })*
    };
}

elements!(SerializeSeq: serialize_element, SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field, SerializeTupleVariant: serialize_field);

impl ser::SerializeMap for Parts<'_, '_> {
    type Ok = ();
    type Error = fmt::Error;

    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Result<(), fmt::Error> {
        key.serialize(&mut *self.0)
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), fmt::Error> {
        value.serialize(&mut *self.0)
    }

    fn end(self) -> Result<(), fmt::Error> {
        Ok(())
    }
}

macro_rules! fields {
    ($($composed:ident),*) => {
        $(impl ser::$composed for Parts<'_, '_> {
            type Ok = ();
            type Error = fmt::Error;

            fn serialize_field<T: ?Sized + Serialize>(
                &mut self,
                field: &'static str,
                value: &T,
            ) -> Result<(), fmt::Error> {
                self.0.field(self.1, field, value)
            }

            fn end(self) -> Result<(), fmt::Error> {
                Ok(())
            }
        })*
    };
}

fields!(SerializeStruct, SerializeStructVariant);
