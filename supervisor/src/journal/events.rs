//! An event as it is kept, and as it is told.

use serde::{Deserialize, Serialize};
use workhall_core::{Change, Ending, KillMode, News};
use workhall_protocol::terms::{DeadReason, EndedBy, Exit, StartStage};

use super::store::Kept;

/// Something that happened to a worker.
#[derive(Debug)]
pub(crate) enum Event {
    /// As the core has said it.
    Noted { at_ms: u64, news: News },
    /// As the program before has written it down.
    Carried(Box<EventReport>),
}

impl Kept for Event {
    fn text_bytes(&self) -> u64 {
        let news = match self {
            Event::Noted { news, .. } => news,
            Event::Carried(report) => return report.detail.as_ref().map_or(0, |detail| detail.len() as u64),
        };
        let text = match &news.what {
            Change::NotStarted { detail, .. } | Change::Violation { detail } => detail.len(),
            Change::Exited { failure, .. } | Change::Paused { failure, .. } => {
                failure.as_ref().map_or(0, |failure| failure.len())
            }
            Change::Ended { fate: Ending::Failed { error }, .. } => error.len(),
            _ => 0,
        };
        text as u64
    }

    fn number(&self) -> u64 {
        match self {
            Event::Noted { news, .. } => news.worker.number.0,
            Event::Carried(report) => report.number,
        }
    }

    fn class(&self) -> &str {
        match self {
            Event::Noted { news, .. } => &news.policy.class,
            Event::Carried(report) => &report.class,
        }
    }

    fn at_ms(&self) -> u64 {
        match self {
            Event::Noted { at_ms, .. } => *at_ms,
            Event::Carried(report) => report.at_ms,
        }
    }
}

/// One line of `workhall events --json`. Keys that say nothing of an event are left out of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct EventReport {
    /// Events are numbered from 1 in the order in which they happened.
    pub seq: u64,
    /// In milliseconds since 1970.
    pub at_ms: u64,
    /// The worker's name.
    pub worker: String,
    /// Its number.
    pub number: u64,
    /// Which life; 0 before the first.
    pub generation: u64,
    /// Its class.
    pub class: String,
    /// What happened: `created`, `started`, `not_started`, `held`, `ready`, `attached`, `left`, `disconnected`, `violation`, `killed`, `idle`, `timed_out`,
    /// `replaced`, `retired`, `signalled`, `exited`, `backoff`, `paused`, `resumed`, `gone`; or the end of a message: `failed`, `discarded`,
    /// `expired`, `dead`.
    pub event: String,
    /// How the process ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Of `exited`: which step of a kill, or of another end, ended the process; none if it ended by itself. Of
    /// `signalled`: which step begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<EndedBy>,
    /// How far a start had come that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<StartStage>,
    /// Words for people: why something failed, what was said wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Of `backoff` and `paused`: until the next start; none if an operator has paused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Of `killed`: `ladder`, `drain` or `now`; of `left`: `drain` or `now`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Of `killed`: how many messages it discarded at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discarded: Option<u64>,
    /// The message; of several the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<u64>,
    /// How many messages ended so, one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<u64>,
    /// Why a message is a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<DeadReason>,
    /// Whether the message may have run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub may_have_run: Option<bool>,
}

impl EventReport {
    /// As it is told.
    pub fn new(seq: u64, name: &str, event: &Event) -> EventReport {
        let (at_ms, News { policy, generation, what, worker, .. }) = match event {
            Event::Noted { at_ms, news } => (*at_ms, news),
            Event::Carried(report) => return EventReport { seq, ..EventReport::clone(report) },
        };
        let about = EventReport {
            seq,
            at_ms,
            worker: name.to_string(),
            number: worker.number.0,
            generation: generation.0,
            class: policy.class.to_string(),
            ..EventReport::default()
        };
        let plain = |event: &str| EventReport { event: event.to_string(), ..about.clone() };
        match what {
            Change::Created => plain("created"),
            Change::Started => plain("started"),
            Change::NotStarted { stage, detail } => {
                EventReport { stage: Some(*stage), detail: Some(detail.to_string()), ..plain("not_started") }
            }
            Change::Held => plain("held"),
            Change::Ready => plain("ready"),
            Change::Attached => plain("attached"),
            Change::Left { drain } => {
                let mode = if *drain { "drain" } else { "now" };
                EventReport { mode: Some(mode.to_string()), ..plain("left") }
            }
            Change::Disconnected => plain("disconnected"),
            Change::Violation { detail } => EventReport { detail: Some(detail.to_string()), ..plain("violation") },
            Change::Killed { mode, discarded } => {
                let mode = match mode {
                    KillMode::Ladder => "ladder",
                    KillMode::Drain => "drain",
                    KillMode::Now => "now",
                };
                EventReport { mode: Some(mode.to_string()), discarded: Some(*discarded), ..plain("killed") }
            }
            Change::Idle => plain("idle"),
            Change::TimedOut { message } => EventReport { message: Some(message.0), ..plain("timed_out") },
            Change::Replaced => plain("replaced"),
            Change::Retired => plain("retired"),
            Change::Signalled { step } => EventReport { ended_by: Some(*step), ..plain("signalled") },
            Change::Exited { exit, ended_by, stage, failure } => EventReport {
                exit: Some(*exit),
                ended_by: *ended_by,
                stage: *stage,
                detail: failure.as_deref().map(str::to_string),
                ..plain("exited")
            },
            Change::Backoff { delay } => EventReport { delay_ms: Some(delay.as_millis() as u64), ..plain("backoff") },
            Change::Paused { pause, .. } => EventReport { delay_ms: Some(pause.as_millis() as u64), ..plain("paused") },
            // Nobody knows for how long.
            Change::Suspended => EventReport { detail: Some("by an operator".to_string()), ..plain("paused") },
            Change::Resumed => plain("resumed"),
            Change::Gone => plain("gone"),
            Change::Ended { message, count, fate, may_have_run } => {
                let (message, messages) = (Some(message.0), Some(*count).filter(|count| *count > 1));
                let about = EventReport { message, messages, may_have_run: Some(*may_have_run), ..about };
                let plain = |event: &str| EventReport { event: event.to_string(), ..about.clone() };
                match fate {
                    Ending::Failed { error } => EventReport { detail: Some(error.to_string()), ..plain("failed") },
                    Ending::Discarded => plain("discarded"),
                    Ending::Expired => plain("expired"),
                    Ending::Dead { reason, exit } => {
                        EventReport { reason: Some(*reason), exit: *exit, ..plain("dead") }
                    }
                }
            }
        }
    }
}
