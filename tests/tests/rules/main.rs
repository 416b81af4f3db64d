//! The rules, proved with real processes started from the real binary. One file per question.

mod broken_output;
mod call;
mod command_line;
mod crash;
mod dead_letters;
mod death;
mod examples;
mod exhaustion;
mod kill;
mod kill_ladder;
mod ledger;
mod left_behind;
mod lies;
mod one_socket;
mod overlap;
mod quota;
mod raw_client;
mod raw_worker;
mod same_name;
mod shutdown;
mod supervisor_death;
mod time_limits;
mod timeouts;
mod unread;
mod worker;
mod wrong_input;
