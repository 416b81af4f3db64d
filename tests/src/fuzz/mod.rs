//! The bodies of the fuzz targets: ordinary functions that take any bytes, and panic at a fault.
//!
//! `tests/fuzz` wraps each into a target of cargo-fuzz; `tests/tests/fuzz.rs` runs the same functions over the
//! stored corpus and over seeded random inputs, as ordinary tests. How to run them is in `tests/fuzz/README.md`.

mod args;
mod config;
mod core;
mod wire;

/// A target: its name, and what it does with an input.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As `cargo fuzz run` knows it, and the name of its corpus.
    pub name: &'static str,
    /// Panics if the input shows a fault.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "frames", run: wire::frames },
    Target { name: "lines", run: wire::lines },
    Target { name: "args", run: args::args },
    Target { name: "config", run: config::config },
    Target { name: "core", run: core::core },
];

/// The target of this name. Panics if there is none: the name is written in the source.
pub fn target(name: &str) -> fn(&[u8]) {
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no fuzz target `{name}`")).run
}
