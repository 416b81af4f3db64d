//! What travels between Workhall, its workers and its callers.
//!
//! - [`ids`] and [`terms`]: names, numbers, closed vocabularies; the only part the core sees.
//! - [`messages`]: the closed enums of messages.
//! - [`args`]: arguments and results: MessagePack inside, JSON towards JSON peers.
//! - [`wire`]: both encodings, as a push [`wire::Decoder`] that owns no socket.
//! - [`client`]: the blocking [`Client`] of programs that call.
//! - [`Signal`]: something to trigger and to wait for, as a value in arguments.
//! - [`process`]: what is known of a process, with 4D's numbers.
//! - [`limits`]: the bounds of the wire.
//! - [`MarkPage`]: what a process and the supervisor share in memory.
//!
//! The page for implementers of other languages is `PROTOCOL.md` beside this crate.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod ids;
pub mod limits;
pub mod terms;

#[cfg(feature = "std")]
pub mod args;
#[cfg(feature = "std")]
pub mod client;
#[cfg(feature = "std")]
mod from_json;
#[cfg(feature = "std")]
pub mod messages;
#[cfg(feature = "std")]
pub mod process;
#[cfg(all(test, feature = "std"))]
mod recorded;
#[cfg(feature = "std")]
pub mod signal;
#[cfg(feature = "std")]
mod sys;
#[cfg(feature = "std")]
mod to_json;
#[cfg(feature = "std")]
pub mod wire;

#[cfg(feature = "std")]
pub use client::Client;
#[cfg(feature = "std")]
pub use signal::Signal;
#[cfg(feature = "std")]
pub use sys::MarkPage;
