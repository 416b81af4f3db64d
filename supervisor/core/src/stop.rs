//! The stop ladder (rule K4): Ask, then Term, then Kill, each after its grace.
//!
//! The grace before Term counts from the end of the current task; a task without a limit is cut
//! short only where the class (`task_grace`) or the killer (`within`) says so. Kill repeats until
//! the exit is there: a process in uninterruptible sleep keeps the gate shut and harms nobody else.

use core::time::Duration;

use serde::{Deserialize, Serialize};
use workhall_protocol::terms::EndedBy;

use crate::policy::Policy;
use crate::time::Instant;

/// How often an unanswered Kill or Sweep is repeated.
pub(crate) const REPEAT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Step {
    Ask,
    Term,
    Kill,
}

/// A ladder on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stop {
    step: Step,
    /// When Ask, Term and Kill began.
    began: [Option<Instant>; 3],
    /// When the last signal of the current step was sent.
    acted: Instant,
    /// When the current task was over; none while it runs.
    pub idle_since: Option<Instant>,
    /// The current task is cut short here.
    pub task_deadline: Instant,
}

impl Stop {
    /// Begins at `step`. `busy`: a task is running.
    pub fn new(now: Instant, step: Step, busy: bool) -> Stop {
        let mut stop = Stop {
            step,
            began: [None; 3],
            acted: now,
            idle_since: (!busy).then_some(now),
            task_deadline: Instant::NEVER,
        };
        stop.enter(now, step);
        stop
    }

    pub fn step(&self) -> Step {
        self.step
    }

    /// Whether a step was taken.
    pub fn has_begun(&self, step: Step) -> bool {
        self.began[step as usize].is_some()
    }

    /// Asked, and the current task still runs.
    pub fn waits_for_task(&self) -> bool {
        self.step == Step::Ask && self.idle_since.is_none()
    }

    /// Goes to `step`, or repeats it. Never goes back.
    pub fn enter(&mut self, now: Instant, step: Step) {
        debug_assert!(step >= self.step);
        self.step = step;
        self.acted = now;
        self.began[step as usize].get_or_insert(now);
    }

    /// The step that follows when the deadline has passed.
    pub fn next_step(&self) -> Step {
        match self.step {
            Step::Ask => Step::Term,
            Step::Term | Step::Kill => Step::Kill,
        }
    }

    /// When that is.
    pub fn deadline(&self, policy: &Policy) -> Instant {
        match (self.step, self.idle_since) {
            (Step::Ask, Some(idle_since)) => idle_since.after(policy.exit_grace),
            (Step::Ask, None) => self.task_deadline,
            (Step::Term, _) => self.acted.after(policy.term_grace),
            (Step::Kill, _) => self.acted.after(REPEAT),
        }
    }

    /// Which step a process that ends now was ended by.
    pub fn ended_by(&self) -> EndedBy {
        match self.step {
            Step::Ask => EndedBy::Ask,
            Step::Term => EndedBy::Term,
            Step::Kill => EndedBy::Kill,
        }
    }

    /// When its first step began.
    pub fn began_at(&self) -> Instant {
        self.began.iter().flatten().next().copied().unwrap_or(self.acted)
    }

    /// When the step began that it is at.
    pub fn step_began_at(&self) -> Instant {
        self.began[self.step as usize].unwrap_or(self.acted)
    }

    /// How long each step took, given when the process ended; none for a step not taken.
    pub fn durations(&self, ended: Instant) -> [Option<Duration>; 3] {
        core::array::from_fn(|step| {
            let began = self.began[step]?;
            let until = self.began[step + 1..].iter().flatten().next().copied().unwrap_or(ended);
            Some(until.since(began))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy { exit_grace: Duration::from_secs(5), term_grace: Duration::from_secs(7), ..Policy::default() }
    }

    fn at(seconds: u64) -> Instant {
        Instant(0).after(Duration::from_secs(seconds))
    }

    #[test]
    fn k04_the_grace_before_term_counts_from_the_end_of_the_task() {
        let mut stop = Stop::new(at(1), Step::Ask, true);
        assert_eq!(stop.deadline(&policy()), Instant::NEVER, "an unlimited task is not cut short");
        stop.task_deadline = at(4);
        assert_eq!(stop.deadline(&policy()), at(4));
        stop.idle_since = Some(at(3));
        assert_eq!(stop.deadline(&policy()), at(8));
    }

    #[test]
    fn k04_each_step_has_its_grace_and_kill_repeats() {
        let mut stop = Stop::new(at(0), Step::Ask, false);
        for (now, step, deadline) in
            [(5, Step::Term, 12), (12, Step::Kill, 13), (13, Step::Kill, 14), (14, Step::Kill, 15)]
        {
            assert_eq!(stop.deadline(&policy()), at(now));
            assert_eq!(stop.next_step(), step);
            stop.enter(at(now), step);
            assert_eq!(stop.deadline(&policy()), at(deadline));
        }
        assert_eq!(stop.durations(at(20)), [5, 7, 8].map(|s| Some(Duration::from_secs(s))));
        assert_eq!(stop.ended_by(), EndedBy::Kill);
    }

    #[test]
    fn k04_abort_starts_at_kill() {
        let stop = Stop::new(at(0), Step::Kill, true);
        assert_eq!(stop.ended_by(), EndedBy::Kill);
        assert_eq!(stop.durations(at(1)), [None, None, Some(Duration::from_secs(1))]);
    }
}
