//! The simulator of the core, the harness for real processes, the chaos run, the conformance suite, and the bodies of the fuzz targets.

pub mod chaos;
pub mod conformance;
pub mod driver;
pub mod enumerate;
pub mod fuzz;
pub mod harness;
pub mod sim;
pub mod sys;
