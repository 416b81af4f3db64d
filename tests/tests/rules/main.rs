//! The rules, proved with real processes started from the real binary. One file per question.

mod call;
mod command_line;
mod death;
mod examples;
mod hostile;
mod kill;
mod kill_ladder;
mod ledger;
mod left_behind;
mod overlap;
mod permissions;
mod raw_client;
mod raw_worker;
mod worker;
mod wrong_input;
