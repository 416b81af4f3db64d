//! The simulator of the core, and the harness for real processes.

pub mod harness;
pub mod sim;
