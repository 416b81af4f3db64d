//! The rules, proved with real processes started from the real binary. One file per question.

mod call;
mod command_line;
mod ledger;
mod worker;
mod wrong_input;
