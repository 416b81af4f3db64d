//! The configuration is read again while the supervisor runs: all or nothing.
//!
//! The file is read and checked whole before anything changes. Then, in one step, the core has the new limits and a
//! policy for each worker, and the shell the new classes, rights and bounds. A class that workers still have is kept,
//! also if the file has it no more. What only a start can change is said, and stays as it is.
//!
//! Reading looks up users and groups, as at the start: for that long nothing else is done.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tracing::{error, info, warn};
use workhall_core::{Instant, Renewal};
use workhall_protocol::messages::{self, ReceiptBody};

use crate::clock::Clock;
use crate::config::{Class, Config, Difference, difference, first_part};
use crate::event_loop::EventLoop;
use crate::log;
use crate::report::{ReloadReport, WorkersReport};
use crate::sys;

/// How many lines of one reload the log has at most.
const LOG_LINES_MAX: usize = 100;

impl EventLoop {
    /// Somebody who may administer asks for it.
    pub(crate) fn reload_asked(&mut self, now: Instant, index: usize, reload: messages::Reload) {
        match self.reload_and_log(now, reload.restart) {
            Ok(report) => self.report(index, reload.reference, &report),
            Err(error) => self.receipt(index, reload.reference, ReceiptBody::Failed { error: error.into() }),
        }
    }

    /// SIGHUP.
    pub(crate) fn reload_signalled(&mut self) {
        let _logged = self.reload_and_log(self.clock.now(), false);
        self.apply();
    }

    fn reload_and_log(&mut self, now: Instant, restart: bool) -> Result<ReloadReport, String> {
        self.notifier.reloading(now, Clock::monotonic_usec());
        let reloaded = self.reload(now, restart);
        self.notifier.ready(now, self.figures());
        match &reloaded {
            Err(error) => error!("the configuration is what it was: {error}"),
            Ok(report) => {
                let lines: Vec<String> = report.lines().into_iter().chain(report.workers_line()).collect();
                let none = if lines.is_empty() { ", and nothing has changed" } else { "" };
                info!("{} was read again{none}", report.config);
                for line in lines.iter().take(LOG_LINES_MAX) {
                    info!("{line}");
                }
                if let more @ 1.. = lines.len().saturating_sub(LOG_LINES_MAX) {
                    info!("and {more} lines more");
                }
                for warning in &report.warnings {
                    warn!("{warning}");
                }
            }
        }
        reloaded
    }

    fn reload(&mut self, now: Instant, restart: bool) -> Result<ReloadReport, String> {
        if self.stopping {
            return Err("the supervisor is stopping".to_string());
        }
        let mut config = self.config.read_again().map_err(|error| format!("{error:#}"))?;
        config.fit(self.descriptors);
        let Difference { added, removed, changed, mut later } = difference(&self.config, &config);
        if self.no_new_privs && !config.no_new_privs() {
            let what = "a class may gain privileges (`no_new_privs = false`)";
            later.push(format!("{what}: that holds from the next start of the supervisor on, which has given them up"));
        }
        // From here on nothing can fail.
        self.trees.enable(&config.controllers());
        self.not_enforced = config.not_enforced(|controller| self.trees.why_not_limited(controller));
        // A start that was commanded just before, in what a look has brought in, is one of the class that it was for.
        self.apply_commands();
        let workers = self.renew_workers(now, &config, restart);
        self.accounts.set_bounds(config.unread_bytes, config.unfinished_bytes);
        let not_as_wanted = self.journal.renew(&config.journal);
        self.config = config;
        let not_started = self.keep_running(now);
        log::set(self.config.log());
        Ok(ReloadReport {
            config: self.config.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default(),
            added,
            removed,
            changed,
            later,
            warnings: self
                .config
                .warnings()
                .into_iter()
                .chain(self.not_enforced.clone())
                .chain(not_as_wanted)
                .chain(not_started)
                .chain(self.lost_socket())
                .collect(),
            workers,
        })
    }

    /// The sentence about the socket, if nobody can find the supervisor by its path any more. It listens at no other: who
    /// has taken the path may have had a reason.
    fn lost_socket(&self) -> Option<String> {
        let (socket, found) = (self.socket.display(), sys::file_id(&self.socket));
        match found {
            Ok(found) if self.socket_file.is_none_or(|ours| ours == found) => None,
            Ok(_) => Some(format!(
                "{socket} is not the socket of this supervisor any more: nobody can connect until it is restarted"
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Some(format!("{socket} is not there any more: nobody can connect until the supervisor is restarted"))
            }
            Err(_) => None,
        }
    }

    /// Each worker has the class of its name from here on, and the shell the classes of all workers.
    fn renew_workers(&mut self, now: Instant, config: &Config, restart: bool) -> WorkersReport {
        let before = std::mem::take(&mut self.classes);
        let mut classes: HashMap<Box<str>, Arc<Class>> = HashMap::new();
        // Programs of the workers directory, each looked for once.
        let mut programs: HashMap<Box<str>, Option<Arc<Class>>> = HashMap::new();
        // Of workers that have no other any more.
        let mut needed: HashSet<Box<str>> = HashSet::new();
        let reloaded = self.core.reload(now, config.limits.clone(), restart, |name, policy| {
            let class = config.class_by_pattern(name).cloned().or_else(|| {
                let program = || config.class_of(name).ok();
                programs.entry(first_part(name).into()).or_insert_with(program).clone()
            });
            let old = before.get(&policy.class);
            let Some(class) = class else {
                needed.insert(policy.class.clone());
                return Renewal::Gone;
            };
            let class = classes.entry(class.policy.class.clone()).or_insert(class);
            match old.is_some_and(|old| old.is_same_as(class)) {
                true => Renewal::Same(class.policy.clone()),
                false => Renewal::Changed(class.policy.clone()),
            }
        });
        // What runs has the class that it was started with until its end.
        needed.extend(self.core.classes_of_runs().map(Box::from));
        for (name, class) in before.into_iter().filter(|(name, _)| needed.contains(name)) {
            classes.entry(name).or_insert(class);
        }
        self.classes = classes;
        WorkersReport {
            renewed: reloaded.renewed,
            kept: reloaded.kept,
            restarted: reloaded.restarted,
            retired: reloaded.retired,
            removed: reloaded.removed,
        }
    }
}
