//! The rules, proved with real processes started from the real binary. One file per question.

mod call;
mod death;
mod examples;
mod kill;
mod overlap;
mod raw_protocol;
