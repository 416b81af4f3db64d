//! What is said on stderr. Whoever reads it may have gone away: that ends nobody, least of all the daemon,
//! which `eprintln!` would.

use std::fmt::Display;
use std::io::{self, Write as _};

/// Says one thing.
pub fn say(message: impl Display) {
    let _nobody_reads = writeln!(io::stderr().lock(), "workhall: {message}");
}
