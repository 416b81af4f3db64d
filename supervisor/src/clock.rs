//! The only file that reads the clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use workhall_core::Instant;

/// The monotonic clock, from the start of the supervisor.
#[derive(Debug)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// Starts at zero.
    pub fn start() -> Clock {
        Clock { start: std::time::Instant::now() }
    }

    /// The time since the start.
    pub fn now(&self) -> Instant {
        Instant::default().after(self.start.elapsed())
    }

    /// How long the supervisor had run at an instant of this clock.
    pub fn since_start(now: Instant) -> Duration {
        now.since(Instant::default())
    }

    /// Milliseconds since 1970, for people.
    pub fn wall_ms() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
    }

    /// A number that differs from start to start, for the jitter of delays.
    pub fn seed() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
    }
}
