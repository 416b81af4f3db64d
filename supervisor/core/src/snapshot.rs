//! All of the state as one value, so that a new program can go on where an old one was (for upgrades), and the
//! simulator can stop anywhere.
//!
//! The fields are named, whatever the encoding: a later version may add some with a default. What the workers share,
//! their policies, is written once. Indexes are made anew, and the limits come from the configuration that is in force
//! then.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::policy::{Limits, Policy};
use crate::registry::Core;

/// The version of the snapshot; one that is not known is not read.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    policies: Vec<PolicyOf<&'a Policy>>,
    /// Those of the next lives, where they differ.
    renewed: Vec<PolicyOf<&'a Policy>>,
    core: &'a Core,
}

#[derive(Deserialize)]
struct Read {
    version: u32,
    policies: Vec<PolicyOf<Policy>>,
    #[serde(default)]
    renewed: Vec<PolicyOf<Policy>>,
    core: Core,
}

/// A policy and the places of the workers that have it.
#[derive(Serialize, Deserialize)]
struct PolicyOf<P> {
    policy: P,
    workers: Vec<u32>,
}

impl Core {
    /// Writes all of the state. To be called when all effects were taken.
    pub fn snapshot<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        debug_assert!(
            self.effects.is_empty() && self.touched.is_empty() && self.idle.is_empty(),
            "between two steps nothing is on its way"
        );
        let policies = shared(self.workers.seats().map(|(index, worker)| (index, worker.policy())));
        let renewed = self.workers.iter().filter_map(|(index, worker)| Some((index as u32, worker.renewed.as_ref()?)));
        Written { version: VERSION, policies, renewed: shared(renewed), core: self }.serialize(serializer)
    }

    /// Reads what [`Core::snapshot`] has written. Fails if it is of another version, or not whole.
    pub fn restore<'de, D: Deserializer<'de>>(deserializer: D, limits: Limits) -> Result<Core, D::Error> {
        let fault = |what| Err(serde::de::Error::custom(what));
        let Read { version, policies, renewed, mut core } = Read::deserialize(deserializer)?;
        if version != VERSION {
            return fault("the snapshot is of another version");
        }
        let mut left = core.workers.len();
        for PolicyOf { policy, workers } in policies {
            let policy = Arc::new(policy);
            for index in workers {
                if !core.workers.set_policy(index, policy.clone()) {
                    return fault("a policy belongs to no worker");
                }
                left = left.wrapping_sub(1);
            }
        }
        for PolicyOf { policy, workers } in renewed {
            let policy = Arc::new(policy);
            if !workers.into_iter().all(|index| core.workers.set_renewed(index, policy.clone())) {
                return fault("a policy of the next life belongs to no worker");
            }
        }
        if left != 0 || !core.ledger.balances() {
            return fault("the snapshot is not whole");
        }
        core.set_limits(limits);
        core.index_all();
        core.count_again();
        core.accounts.index_all();
        Ok(core)
    }
}

/// Each policy once, with the places of those who have it, in the order of the first of these.
fn shared<'a>(all: impl Iterator<Item = (u32, &'a Arc<Policy>)>) -> Vec<PolicyOf<&'a Policy>> {
    let mut policies = BTreeMap::<*const Policy, PolicyOf<&Policy>>::new();
    for (index, policy) in all {
        let shared = policies.entry(Arc::as_ptr(policy));
        let of = shared.or_insert_with(|| PolicyOf { policy: &**policy, workers: Vec::new() });
        of.workers.push(index);
    }
    let mut policies: Vec<_> = policies.into_values().collect();
    policies.sort_unstable_by_key(|of| of.workers[0]);
    policies
}
