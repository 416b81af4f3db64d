//! Workers that no call creates, because the configuration says that they are there (rule W5): the main worker, and those
//! that are started at boot.
//!
//! A process of them is wished for at all times: it is started at once, and again after a death under the same backoff as
//! any other. A kill only empties their mailboxes (rule K10). A new configuration may add some, which makes of a worker of
//! that name that is there one that stays, and may take some back, which are then as if a call had created them.

use alloc::sync::Arc;
use alloc::vec::Vec;

use workhall_protocol::ids::{Target, WorkerName, WorkerNumber};

use crate::kind::Kind;
use crate::mailbox::Identity;
use crate::policy::Policy;
use crate::registry::Core;
use crate::time::Instant;
use crate::worker::Goal;

impl Core {
    /// Creates a worker that no call creates, and starts its process: number 1 if `main` (rule W5).
    pub fn start(&mut self, now: Instant, name: WorkerName, policy: Arc<Policy>, main: bool) {
        self.now = now;
        if self.stopping.is_some() || self.find_name(&name).is_some() {
            return;
        }
        let (number, kind) = match main {
            true => (WorkerNumber::MAIN, Kind::Main),
            false => (self.take_number(), Kind::Boot),
        };
        self.create_kept(now, Identity { name, number }, policy, kind);
        self.finish_step();
    }

    /// Those of these names, and no others beside the main worker, are kept running from here on. Returns the names that
    /// somebody else has: a process that runs or is attached, beside which there can be no other.
    pub fn keep_running(&mut self, now: Instant, boot: &[(WorkerName, Arc<Policy>)]) -> Vec<WorkerName> {
        self.now = now;
        let mut taken = Vec::new();
        if self.stopping.is_some() {
            return taken;
        }
        for index in self.in_order_of_numbers() {
            let worker = &mut self.workers[index as usize];
            if worker.kind == Kind::Boot && !boot.iter().any(|(name, _)| *name == worker.identity.name) {
                (worker.kind, worker.kept) = (Kind::Called, false);
                if worker.life.is_none() {
                    self.try_start(now, index);
                }
                self.arm(index);
                self.touch(index);
            }
        }
        for (name, policy) in boot {
            let found = self.find_awake(Target::Name(name));
            let found = found.map(|index| (index, &mut self.workers[index as usize]));
            match found {
                Some((_, worker)) if worker.kept => {}
                Some((_, worker)) if worker.kind == Kind::Run || worker.is_attached() && worker.goal == Goal::Up => {
                    taken.push(name.clone());
                }
                Some((index, worker)) if worker.goal == Goal::Up => {
                    (worker.kind, worker.kept) = (Kind::Boot, true);
                    self.try_start(now, index);
                    self.arm(index);
                    self.touch(index);
                }
                // One that is about to end has a successor, whose turn comes behind the gate.
                _ => {
                    let number = self.take_number();
                    self.create_kept(now, Identity { name: name.clone(), number }, policy.clone(), Kind::Boot);
                }
            }
        }
        self.finish_step();
        taken
    }

    fn create_kept(&mut self, now: Instant, identity: Identity, policy: Arc<Policy>, kind: Kind) {
        let index = self.create(now, identity, policy);
        let worker = &mut self.workers[index as usize];
        (worker.kind, worker.kept) = (kind, true);
        worker.startup = worker.policy.startup_method.clone();
        self.try_start(now, index);
    }
}
