//! Everything that Workhall decides: who gets a message, when a process may start, what a kill does
//! next, who is charged for a crash.
//!
//! [`Core`] takes facts ([`Event`]) and requests ([`Core::call`], [`Core::kill`], …) and returns commands
//! ([`Effect`]). It knows no clock, process id, descriptor, path or source of randomness: time comes in
//! with each call, effects go out as data, and the same input always has the same output.
#![no_std]

extern crate alloc;

mod accounts;
mod attach;
mod boot;
mod cancel;
mod chunk;
mod dead_letters;
mod deadlines;
mod effect;
mod ends;
mod event;
mod fates;
mod held;
mod in_flight;
mod kill;
mod kind;
mod ledger;
mod lifecycle;
mod mailbox;
mod news;
mod overtime;
mod pause;
mod places;
mod policy;
mod post;
mod queue;
mod registry;
mod reload;
mod restart;
mod resting;
mod run;
mod signals;
mod snapshot;
mod stats;
mod stop;
mod time;
mod timers;
mod view;
mod watch;
mod worker;
mod workers;

pub use accounts::Charge;
pub use cancel::Cancelled;
pub use dead_letters::{DeadLetter, DeadTotals, Letters};
pub use effect::{Effect, KillReport, Outcome, SignalEnd};
pub use event::{AccountId, Call, CallReceipt, Event, Kill, KillMode, KillReceipt, Mark, ProcessKey, ReplyTo};
pub use kind::Kind;
pub use ledger::{Counters, Ledger};
pub use mailbox::{Identity, MESSAGE_OVERHEAD_BYTES, Message};
pub use news::{Change, Ending, News};
pub use policy::{CrashLimit, Limits, Policy};
pub use post::Requeued;
pub use registry::{Core, Refused};
pub use reload::{Reloaded, Renewal};
pub use run::{Run, RunReceipt};
pub use signals::{KEEP_MAX, NewSignal, SIGNAL_BYTES_MAX, SignalView, Signalled, Values};
pub use stats::{
    AGES_OF_MAX, Ages, BUCKETS, CRASHES, ClassStats, Counts, DEAD, Histogram, KILLS, REFUSED, WorkerStats,
};
pub use time::Instant;
pub use view::{EndingView, LastExit, Running, State, WorkerView};
