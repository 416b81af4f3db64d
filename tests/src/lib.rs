//! The simulator of the core, and the harness for real processes.

pub mod driver;
pub mod enumerate;
pub mod harness;
pub mod sim;
