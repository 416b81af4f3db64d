//! The words for what somebody is and how, and 4D's numbers for it (rule P3).

use workhall_core::{Kind, State, WorkerView};
use workhall_protocol::process::{ProcessState, ProcessType};

/// The word for a state.
pub fn state_word(state: State) -> &'static str {
    match state {
        State::Absent => "absent",
        State::Starting => "starting",
        State::Idle => "idle",
        State::Busy => "busy",
        State::Ending => "ending",
        State::Backoff => "backoff",
        State::Paused => "paused",
    }
}

/// 4D's number for what somebody is: all that can be called are workers.
pub(super) fn type_number(kind: Kind) -> ProcessType {
    match kind {
        Kind::Main => ProcessType::Main,
        Kind::Run => ProcessType::Run,
        Kind::Called | Kind::Boot | Kind::Attached => ProcessType::Worker,
    }
}

/// 4D's number for a state. From 0 on there is a process.
pub(super) fn state_number(view: &WorkerView<'_>) -> ProcessState {
    match view.state {
        State::Absent | State::Backoff => ProcessState::NoProcess,
        State::Paused if view.process_age.is_none() => ProcessState::NoProcess,
        State::Paused => ProcessState::Paused,
        State::Starting | State::Ending => ProcessState::Delayed,
        State::Idle => ProcessState::Idle,
        State::Busy => ProcessState::Executing,
    }
}
