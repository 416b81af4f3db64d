//! The rules, proved with real processes started from the real binary. One file per question.

mod call;
mod command_line;
mod death;
mod examples;
mod kill;
mod ledger;
mod overlap;
mod raw_protocol;
mod worker;
mod wrong_input;
