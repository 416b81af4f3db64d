//! The simulator of the core, and the harness for real processes.

pub mod fuzz;
pub mod harness;
pub mod sim;
