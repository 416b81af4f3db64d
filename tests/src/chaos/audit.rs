//! Who looks at the accounts: the ledger at every look, the workers' log, and at the end each message.

use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::Value;
use workhall_protocol::Client;
use workhall_protocol::messages::ReceiptBody;

use super::actors::started;
use super::fates::Fate;
use super::log::{Log, Told};
use super::{PATIENCE, Run};
use crate::harness::until_or;

/// The terms whose sum is `accepted` (rule L1).
const TERMS: [&str; 7] = ["done", "failed", "discarded", "expired", "dead", "pending", "running"];
/// No run makes the supervisor take more memory: floods are bounded. In KiB.
const PEAK_KIB_MAX: u64 = 1 << 20;

pub struct Auditor<'a> {
    run: &'a Run,
    log: Log,
    client: Option<(i32, Client<UnixStream>)>,
    /// The last look at each supervisor: its process id and its status.
    seen: Vec<(i32, Value)>,
    peak_kib: u64,
}

impl<'a> Auditor<'a> {
    pub fn new(run: &'a Run, log: std::path::PathBuf) -> Auditor<'a> {
        Auditor { run, log: Log::new(log), client: None, seen: Vec::new(), peak_kib: 0 }
    }

    /// One look. None if the supervisor could not be asked, which is a violation.
    pub fn look(&mut self, supervisor: i32) -> Option<()> {
        self.run.counts.looks.fetch_add(1, Relaxed);
        self.read_log();
        let status = match self.status(supervisor) {
            Ok(status) => status,
            Err(error) => {
                self.run.violation(format!("the supervisor does not say its status: {error}"));
                return None;
            }
        };
        let ledger = &status["ledger"];
        let sum: u64 = TERMS.iter().map(|term| term_of(ledger, term)).sum();
        if term_of(ledger, "accepted") != sum {
            self.run.violation(format!("L1: the ledger does not balance: {ledger}"));
        }
        match self.seen.last_mut() {
            Some((pid, last)) if *pid == supervisor => {
                if TERMS[..5].iter().any(|term| term_of(&last["ledger"], term) > term_of(ledger, term)) {
                    self.run.violation(format!("L1: a fate was taken back: {} became {ledger}", last["ledger"]));
                }
                *last = status;
            }
            _ => self.seen.push((supervisor, status)),
        }
        let memory = std::fs::read_to_string(format!("/proc/{supervisor}/status")).unwrap_or_default();
        let peak =
            memory.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        let peak: u64 = peak.unwrap_or(0);
        if peak > PEAK_KIB_MAX && self.peak_kib <= PEAK_KIB_MAX {
            self.run.violation(format!("the supervisor has taken {peak} KiB of memory"));
        }
        self.peak_kib = self.peak_kib.max(peak);
        Some(())
    }

    fn status(&mut self, supervisor: i32) -> Result<Value, String> {
        let known = self.client.take().filter(|(pid, _)| *pid == supervisor).map(|(_, client)| client);
        let mut client = match known {
            Some(client) => client,
            None => Client::connect(&self.run.socket).map_err(|error| error.to_string())?,
        };
        client.stream().set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
        let report = client.status().map_err(|error| error.to_string())?;
        self.client = Some((supervisor, client));
        match report {
            ReceiptBody::Report(report) => report.to_json().map_err(|error| error.to_string()),
            other => Err(format!("{other:?}")),
        }
    }

    fn read_log(&mut self) {
        for told in self.log.read() {
            let entered = match told {
                // The worker has read the receipt; nobody waits for the fate.
                Told::Posted(message) => self.run.book().accepted(message, false),
                Told::Violation(what) => Err(what),
            };
            if let Err(violation) = entered {
                self.run.violation(violation);
            }
        }
    }

    /// Nobody acts any more: all that was accepted gets its fate by itself, and the fates agree with the log.
    pub fn becomes_quiet(&mut self, supervisor: i32) {
        let quiet = until_or(PATIENCE, || {
            // What cannot be asked is told already.
            self.look(supervisor).is_none()
                || self.ledger(supervisor, "pending") + self.ledger(supervisor, "running") == 0
        });
        if !quiet {
            let status = self.seen.last().map(|(_, status)| status.clone()).unwrap_or_default();
            self.run.violation(format!("not all has its fate {PATIENCE:?} after the end: {}", status["ledger"]));
        }
        self.read_log();
        self.fates_agree(true);
        self.totals_agree(supervisor);
    }

    /// What senders were told, beside what workers have written.
    fn fates_agree(&self, all_told: bool) {
        for (message, fate) in self.run.book().all() {
            let executed = self.log.executed(message);
            let agrees = match fate {
                Fate::Done | Fate::Failed => executed == Some(true),
                Fate::Awaited => !all_told,
                other if other.never_ran() => executed.is_none(),
                _ => true,
            };
            if !agrees {
                let seen = match executed {
                    None => "was not begun",
                    Some(false) => "was begun, and has not ended",
                    Some(true) => "was executed",
                };
                self.run.violation(format!("{message:?} is {fate:?} for its sender, and {seen}"));
            }
        }
    }

    /// The ledger, beside all that is known of its messages: what hostile clients and dying workers got accepted
    /// is known to nobody else, so that many may be missing.
    fn totals_agree(&self, supervisor: i32) {
        let accepted = self.ledger(supervisor, "accepted");
        let book = self.run.book();
        let own: Vec<Fate> =
            book.all().filter(|(message, _)| message.supervisor == supervisor).map(|(_, fate)| fate).collect();
        let told = own.iter().filter(|fate| fate.term().is_some()).count() as u64;
        for term in &TERMS[..5] {
            let known = own.iter().filter(|fate| fate.term() == Some(term)).count() as u64;
            let in_ledger = self.ledger(supervisor, term);
            if known > in_ledger || in_ledger > known + (accepted.saturating_sub(told)) {
                self.run.violation(format!(
                    "L1: {known} senders were told `{term}`, the ledger has {in_ledger}, and the fates of {} are unknown",
                    accepted.saturating_sub(told)
                ));
            }
        }
        let (begun, ended, highest) = self.log.totals(supervisor);
        let highest_known =
            book.all().filter(|(message, _)| message.supervisor == supervisor).map(|(message, _)| message.id);
        let highest = highest.max(highest_known.max().unwrap_or(0));
        if own.len() as u64 > accepted || highest > accepted {
            self.run.violation(format!(
                "L1: {} receipts up to message {highest}, but the ledger has accepted {accepted}",
                own.len()
            ));
        }
        // What hostile clients have spoiled fails without a beginning.
        let spoiled = accepted.saturating_sub(own.len() as u64);
        let settled = self.ledger(supervisor, "done") + self.ledger(supervisor, "failed");
        let may_have_run = settled + self.ledger(supervisor, "dead") + self.ledger(supervisor, "discarded");
        if settled > ended + spoiled || begun > may_have_run {
            self.run.violation(format!(
                "L1: the workers have begun {begun} and ended {ended}; the ledger has settled {settled}, and {may_have_run} may have run"
            ));
        }
    }

    fn ledger(&self, supervisor: i32, term: &str) -> u64 {
        self.seen.iter().find(|(pid, _)| *pid == supervisor).map_or(0, |(_, status)| term_of(&status["ledger"], term))
    }

    /// The processes of supervisors that were killed have ended by themselves (rule D7).
    pub fn nothing_of_the_dead_is_left(&mut self, supervisor: i32) {
        let mut left = Vec::new();
        let gone = until_or(PATIENCE, || {
            left = self.living(|of| of != supervisor);
            left.is_empty()
        });
        if !gone {
            self.run.violation(format!("D7: processes of a supervisor that was killed live on: {left:?}"));
        }
    }

    /// After the shutdown: `found` are processes whose environment names this run's socket.
    pub fn nothing_is_left(&mut self, mut found: impl FnMut() -> Vec<i32>) {
        self.read_log();
        self.fates_agree(false);
        // What the workers of a killed supervisor have left behind ends by itself, after a while.
        let patience = if self.run.deaths { PATIENCE } else { Duration::ZERO };
        let mut left = Vec::new();
        if !until_or(patience, || {
            left = found();
            left.extend(self.living(|_| true));
            left.is_empty()
        }) {
            self.run.violation(format!("D8: processes are left after the shutdown: {left:?}"));
        }
    }

    fn living(&self, of: impl Fn(i32) -> bool) -> Vec<i32> {
        let known = self.log.processes().iter().filter(|process| of(process.supervisor));
        known.filter(|process| started(process.pid) == Some(process.started)).map(|process| process.pid).collect()
    }

    /// One line of figures.
    pub fn summary(&self, elapsed: Duration, seed: u64, supervisor_deaths: u64) -> String {
        let sum = |term: &str| -> u64 { self.seen.iter().map(|(_, status)| term_of(&status["ledger"], term)).sum() };
        let terms =
            ["accepted", "done", "failed", "discarded", "expired", "dead"].map(|term| format!("{} {term}", sum(term)));
        let other: u64 = self
            .seen
            .iter()
            .map(|(_, status)| status["refused"].as_u64().unwrap_or(0) + status["ignored"].as_u64().unwrap_or(0))
            .sum();
        let counts = &self.run.counts;
        format!(
            "{} s, seed {seed}: {}; {other} refused or ignored; {} calls and {} kills by clients, {} signals, {} hostile \
             clients; {} worker processes, {supervisor_deaths} supervisor deaths; {} looks, {} MiB at most; {} violations",
            elapsed.as_secs(),
            terms.join(", "),
            counts.calls.load(Relaxed),
            counts.kills.load(Relaxed),
            counts.signals.load(Relaxed),
            counts.hostile.load(Relaxed),
            self.log.processes().len(),
            counts.looks.load(Relaxed),
            self.peak_kib >> 10,
            self.run.violations.lock().expect("nobody panics with it").len(),
        )
    }
}

fn term_of(ledger: &Value, term: &str) -> u64 {
    ledger[term].as_u64().unwrap_or(0)
}
