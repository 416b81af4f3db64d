//! Small worlds, completely: not drawn by chance as in [`crate::sim`], but every order in which everything can happen.
//!
//! A state is the real [`workhall_core::Core`] and a world around it ([`world`]) that is as small as it can be: clients
//! with up to three messages, one kill and one wait; processes ([`process`]) that begin, end, tell and mark their
//! tasks in single steps; a shell and a kernel that give the guarantees named at the head of `sim/mod.rs` and no others.
//! [`search`] goes from each state to all that can follow it. [`config`] is the table of worlds. [`books`] stands apart
//! from the core and says what must hold in each state:
//!
//! - never two processes of one name: a life ends when its exit and the end of its tree were both told;
//! - what is begun is begun in the order of acceptance, at most as often as the class allows, never after its fate, and
//!   nothing is handed to a process that is to end or to a worker that was killed;
//! - each fate fits what the process really did: what ended by itself and was told or marked is done or failed, with
//!   its result; what was begun is not said to have never run; only the killed worker's messages are discarded, and
//!   the receipts count them;
//! - the report of a kill comes after its receipt, and when nothing of the worker is left;
//! - the ledger balances and agrees, nobody is accused of what he did not do. The core proves its own accounts in
//!   each step, where assertions are compiled in; a panic is a violation.
//!
//! In each state in which nothing more happens by itself, everything that was accepted must have its one fate, and every
//! kill and wait its answer. And from each state such an end must be reached if everybody is calm from there on.
//!
//! # What is bounded
//!
//! Time passes only to the next deadline, never beyond it. While nothing else can happen it passes freely; while something
//! else can, so many times as the world's `ticks` say. The classes' graces are all alike. Where the table does not say
//! otherwise a start may take for ever. A name's processes are of one nature, and nobody posts for himself. What is not
//! bounded is the order.
//!
//! # What counts as the same state
//!
//! See [`key`]. That it leaves out nothing that matters is tested too: of some states that are found again, what follows is
//! compared with what follows the first.

mod act;
mod books;
mod config;
mod key;
mod process;
mod search;
mod world;

pub use config::{CANARIES, Config, FULL, SMALL};
pub use search::{Count, Settings, Violation, enumerate};
