//! The checks, in the order of the page.

mod attached;
mod cancelled;
mod death;
mod frames;
mod greeting;
mod hostile;
mod kill;
mod later;
mod requests;
mod signals;
mod tasks;
mod values;

use super::Check;

/// All checks, in the order in which they run.
pub(crate) fn all() -> impl Iterator<Item = Check> {
    let groups = [
        greeting::CHECKS,
        tasks::CHECKS,
        values::CHECKS,
        requests::CHECKS,
        kill::CHECKS,
        death::CHECKS,
        signals::CHECKS,
        cancelled::CHECKS,
        later::CHECKS,
        frames::CHECKS,
        hostile::CHECKS,
        attached::CHECKS,
    ];
    groups.into_iter().flatten().map(|check| Check { ..*check })
}
