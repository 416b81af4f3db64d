//! How soon after a death the next start: the first at once, then with growing delay; a healthy life
//! starts the count again (rule D4; its pause after too many crashes is not built yet).

use core::time::Duration;

/// The delay before the second start in a row that follows a death.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// No delay is longer.
const DELAY_MAX: Duration = Duration::from_secs(30);
/// A life that was ready for this long was healthy, even if it settled nothing.
pub(crate) const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// How many deaths in a row without a healthy life between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failures(u16);

impl Failures {
    /// Counts a death and returns the delay before the next start. `jitter` is any number; it
    /// takes up to a quarter off, so that workers that died together do not start together.
    pub fn count(&mut self, healthy: bool, jitter: u64) -> Duration {
        if healthy {
            self.0 = 0;
        }
        self.0 = self.0.saturating_add(1);
        let Some(doublings) = self.0.checked_sub(2) else { return Duration::ZERO };
        let delay = FIRST_DELAY.saturating_mul(1 << doublings.min(20)).min(DELAY_MAX);
        delay - delay.mul_f64((jitter % 1024) as f64 / 4096.0)
    }

    pub fn in_a_row(self) -> u16 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_death_delays_nothing_then_delays_grow_to_a_bound() {
        let mut failures = Failures::default();
        let delays: [u128; 12] = core::array::from_fn(|_| failures.count(false, 0).as_millis());
        assert_eq!(delays, [0, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
    }

    #[test]
    fn a_healthy_life_starts_the_count_again() {
        let mut failures = Failures::default();
        failures.count(false, 0);
        assert!(failures.count(false, 0) > Duration::ZERO);
        assert_eq!(failures.count(true, 0), Duration::ZERO);
        assert_eq!(failures.in_a_row(), 1);
    }

    #[test]
    fn jitter_takes_at_most_a_quarter_off() {
        for jitter in [0, 1, 1023, 1024, u64::MAX] {
            let mut failures = Failures(1);
            let delay = failures.count(false, jitter);
            assert!(delay <= FIRST_DELAY && delay > FIRST_DELAY * 3 / 4, "{jitter}: {delay:?}");
        }
    }
}
