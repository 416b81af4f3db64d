//! Small configurations, completely.
mod books;
mod config;
mod key;
mod process;
mod search;
mod world;

pub use config::{CANARIES, Config, FULL, SMALL};
pub use search::{Count, Settings, Violation, enumerate};
