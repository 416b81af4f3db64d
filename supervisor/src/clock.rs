//! The only file that reads the clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use workhall_core::Instant;

use crate::sys;

/// The monotonic clock, from the start of the supervisor, also over the programs that it becomes.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Clock {
    /// On the kernel's clock, which all programs share.
    start: Duration,
}

impl Clock {
    /// Starts at zero.
    pub fn start() -> Clock {
        Clock { start: sys::monotonic() }
    }

    /// The time since the start.
    pub fn now(&self) -> Instant {
        Instant::default().after(sys::monotonic().saturating_sub(self.start))
    }

    /// The time on the kernel's clock, which the next program of this process shares.
    pub fn on_the_kernels(&self) -> Duration {
        sys::monotonic()
    }

    /// What tells this supervisor from others on the machine, over the programs that it becomes.
    pub fn start_number(&self) -> u128 {
        self.start.as_nanos()
    }

    /// How long the supervisor had run at an instant of this clock.
    pub fn since_start(now: Instant) -> Duration {
        now.since(Instant::default())
    }

    /// Milliseconds since 1970, for people.
    pub fn wall_ms() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
    }

    /// The kernel's monotonic clock, in microseconds: what the service manager compares with.
    pub fn monotonic_usec() -> u64 {
        sys::monotonic().as_micros() as u64
    }

    /// A number that differs from start to start, for the jitter of delays.
    pub fn seed() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
    }
}
