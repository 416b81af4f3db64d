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
    core: &'a Core,
}

#[derive(Deserialize)]
struct Read {
    version: u32,
    policies: Vec<PolicyOf<Policy>>,
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
        let mut policies = BTreeMap::<*const Policy, PolicyOf<&Policy>>::new();
        for (index, worker) in self.workers.seats() {
            let policy = worker.policy();
            let shared = policies.entry(Arc::as_ptr(policy));
            let of = shared.or_insert_with(|| PolicyOf { policy: &**policy, workers: Vec::new() });
            of.workers.push(index);
        }
        let mut policies: Vec<_> = policies.into_values().collect();
        policies.sort_unstable_by_key(|of| of.workers[0]);
        Written { version: VERSION, policies, core: self }.serialize(serializer)
    }

    /// Reads what [`Core::snapshot`] has written. Fails if it is of another version, or not whole.
    pub fn restore<'de, D: Deserializer<'de>>(deserializer: D, limits: Limits) -> Result<Core, D::Error> {
        let fault = |what| Err(serde::de::Error::custom(what));
        let Read { version, policies, mut core } = Read::deserialize(deserializer)?;
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
        if left != 0 || !core.ledger.balances() {
            return fault("the snapshot is not whole");
        }
        core.limits = limits;
        core.index_all();
        core.accounts.index_all();
        Ok(core)
    }
}
