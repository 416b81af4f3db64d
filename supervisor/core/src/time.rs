//! Points in time. They come from the shell's monotonic clock; the core only compares and adds.

use core::time::Duration;
use serde::{Deserialize, Serialize};

/// Nanoseconds since an arbitrary start that the shell has chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instant(pub u64);

impl Instant {
    /// Later than every instant that comes in.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// This much later; saturates at [`Instant::NEVER`].
    pub fn after(self, duration: Duration) -> Instant {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }

    /// The time since `earlier`; zero if that is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
