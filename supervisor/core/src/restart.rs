//! How soon after a death the next start (rule D4): the first at once, then with growing delay; past a limit the
//! worker pauses, and is tried again by itself. A healthy life starts the count again.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::time::Duration;

use crate::policy::CrashLimit;
use crate::time::Instant;
use serde::{Deserialize, Serialize};

/// The delay before the second start in a row that follows a death.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// No delay is longer.
const DELAY_MAX: Duration = Duration::from_secs(30);
/// A life that was ready for this long was healthy, even if it settled nothing.
pub(crate) const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// Deaths in a row without a healthy life between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failures {
    pub in_a_row: u16,
    /// When the last of them were: as many as the limit looks at. Few workers have any.
    #[allow(clippy::box_collection, reason = "a worker without any has a pointer, not an empty queue")]
    pub recent: Option<Box<VecDeque<Instant>>>,
    /// The limit was passed, and no life was healthy since: the next death pauses again.
    pub on_trial: bool,
}

/// What follows a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum Next {
    /// A start after this delay.
    After(Duration),
    /// A pause, and then a start.
    Pause(Duration),
}

impl Failures {
    /// Counts a death. `jitter` is any number; it takes up to a quarter off, so that workers that died together do
    /// not start together.
    pub fn count(&mut self, now: Instant, limit: &CrashLimit, jitter: u64) -> Next {
        self.in_a_row = self.in_a_row.saturating_add(1);
        let recent = self.recent.get_or_insert_default();
        recent.push_back(now);
        while recent.len() > usize::from(limit.crashes) {
            recent.pop_front();
        }
        let first = recent.front().copied().unwrap_or(now);
        let passed = recent.len() >= usize::from(limit.crashes) && now.since(first) <= limit.within;
        let shorter = |delay: Duration| delay - delay.mul_f64((jitter % 1024) as f64 / 4096.0);
        if passed || self.on_trial {
            self.on_trial = true;
            self.recent = None;
            return Next::Pause(shorter(limit.pause));
        }
        let Some(doublings) = self.in_a_row.checked_sub(2) else { return Next::After(Duration::ZERO) };
        Next::After(shorter(FIRST_DELAY.saturating_mul(1 << doublings.min(20)).min(DELAY_MAX)))
    }

    /// A healthy life, or somebody who knows better.
    pub fn reset(&mut self) {
        *self = Failures::default();
    }

    pub fn in_a_row(&self) -> u16 {
        self.in_a_row
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const NO_LIMIT: CrashLimit = CrashLimit {
        crashes: u16::MAX,
        within: Duration::ZERO,
        pause: Duration::from_secs(60),
        refuse_calls: false,
        drop_unstarted: false,
    };

    fn at(millis: u64) -> Instant {
        Instant(0).after(Duration::from_millis(millis))
    }

    #[test]
    fn d04_the_first_death_delays_nothing_then_delays_grow_to_a_bound() {
        let mut failures = Failures::default();
        let delays: Vec<u128> = (0..12)
            .map(|_| match failures.count(at(0), &NO_LIMIT, 0) {
                Next::After(delay) => delay.as_millis(),
                Next::Pause(_) => panic!("there is no limit"),
            })
            .collect();
        assert_eq!(delays, [0, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
    }

    #[test]
    fn d04_a_healthy_life_starts_the_count_again() {
        let mut failures = Failures::default();
        failures.count(at(0), &NO_LIMIT, 0);
        assert!(failures.count(at(0), &NO_LIMIT, 0) > Next::After(Duration::ZERO));
        failures.reset();
        assert_eq!(failures.count(at(0), &NO_LIMIT, 0), Next::After(Duration::ZERO));
        assert_eq!(failures.in_a_row(), 1);
    }

    #[test]
    fn d04_jitter_takes_at_most_a_quarter_off() {
        for jitter in [0, 1, 1023, 1024, u64::MAX] {
            let mut failures = Failures { in_a_row: 1, ..Failures::default() };
            let Next::After(delay) = failures.count(at(0), &NO_LIMIT, jitter) else { panic!("there is no limit") };
            assert!(delay <= FIRST_DELAY && delay > FIRST_DELAY * 3 / 4, "{jitter}: {delay:?}");
        }
    }

    #[test]
    fn d04_too_many_deaths_in_the_window_pause_and_one_more_after_the_pause_pauses_again() {
        let within = Duration::from_secs(10);
        let limit = CrashLimit { crashes: 3, within, ..NO_LIMIT };
        let pause = Next::Pause(limit.pause);
        let mut failures = Failures::default();
        assert_eq!([0, 1000, 2000].map(|now| failures.count(at(now), &limit, 0) == pause), [false, false, true]);
        assert_eq!(failures.count(at(70_000), &limit, 0), pause, "it is on trial");
        failures.reset();
        // Far from each other they never pass the limit.
        assert!((0..20).all(|n| failures.count(at(100_000 + n * 6_000), &limit, 0) != pause));
    }

    #[test]
    fn d04_a_limit_of_one_pauses_at_once() {
        let limit = CrashLimit { crashes: 1, within: Duration::from_secs(1), ..NO_LIMIT };
        assert_eq!(Failures::default().count(at(0), &limit, 0), Next::Pause(limit.pause));
    }
}
