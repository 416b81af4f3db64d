//! What 4D says of a process, and its numbers for it (rule P3).

use serde::Deserialize;

/// What a process is, by 4D's numbers, where it has one for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum ProcessType {
    /// The main process: worker number 1.
    Main = 1,
    /// A process that executes one method.
    Run = 2,
    /// A worker.
    Worker = 5,
}

/// How a process is, by 4D's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum ProcessState {
    /// Nobody has the name or number.
    DoesNotExist = -100,
    /// The worker is there, and its process is not.
    NoProcess = -1,
    /// It executes a method.
    Executing = 0,
    /// It is about to be ready, or to end.
    Delayed = 1,
    /// It has nothing to do.
    Idle = 2,
    /// Its method waits for a signal.
    WaitingForSignal = 4,
    /// An operator, or a library, has stopped it.
    Paused = 5,
}

impl ProcessType {
    /// 4D's number.
    pub fn number(self) -> i32 {
        self as i32
    }

    /// The type with this number.
    pub fn of(number: i32) -> Option<ProcessType> {
        [ProcessType::Main, ProcessType::Run, ProcessType::Worker].into_iter().find(|known| known.number() == number)
    }
}

impl ProcessState {
    const ALL: [ProcessState; 7] = [
        ProcessState::DoesNotExist,
        ProcessState::NoProcess,
        ProcessState::Executing,
        ProcessState::Delayed,
        ProcessState::Idle,
        ProcessState::WaitingForSignal,
        ProcessState::Paused,
    ];

    /// 4D's number.
    pub fn number(self) -> i32 {
        self as i32
    }

    /// The state with this number.
    pub fn of(number: i32) -> Option<ProcessState> {
        ProcessState::ALL.into_iter().find(|known| known.number() == number)
    }

    /// Whether there is a process: its number is 0 or more.
    pub fn is_alive(self) -> bool {
        self >= ProcessState::Executing
    }
}

/// What is known of one process (rule P3): a part of the answer to `info`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ProcessInfo {
    /// The worker's number.
    pub number: u64,
    /// No other life of a process has the same, of this supervisor and of others on the machine.
    pub unique_id: String,
    /// The worker's name.
    pub name: String,
    /// What it is, in Workhall's words: `worker`, `main`, `boot`, `run`, `attached`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same by 4D's number.
    pub type_number: i32,
    /// How it is, in Workhall's words: `absent`, `starting`, `idle`, `busy`, `ending`, `backoff`, `paused`.
    pub state: String,
    /// The same by 4D's number.
    pub state_number: i32,
    /// When the worker was created, in milliseconds since 1970.
    pub created_ms: u64,
    /// The processor time of the present process and all that it has started, in milliseconds; none without one, and of
    /// one that is attached.
    pub cpu_ms: Option<u64>,
    /// The share of one processor that this is of the life of the process: 1 is all of one, more is several.
    pub cpu_share: Option<f64>,
    /// The process, if there is one.
    pub pid: Option<i32>,
}

impl ProcessInfo {
    /// What it is.
    pub fn process_type(&self) -> Option<ProcessType> {
        ProcessType::of(self.type_number)
    }

    /// How it is; none if this version knows no such state.
    pub fn process_state(&self) -> Option<ProcessState> {
        ProcessState::of(self.state_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p03_the_numbers_are_those_of_4d_and_a_state_from_0_on_is_alive() {
        for (number, alive) in [(-100, false), (-1, false), (0, true), (1, true), (2, true), (4, true), (5, true)] {
            let state = ProcessState::of(number).unwrap();
            assert_eq!((state.number(), state.is_alive()), (number, alive), "{state:?}");
        }
        assert_eq!([-99, 3, 6].map(ProcessState::of), [None; 3]);
        assert_eq!([1, 2, 5].map(|number| ProcessType::of(number).map(ProcessType::number)), [1, 2, 5].map(Some));
    }
}
