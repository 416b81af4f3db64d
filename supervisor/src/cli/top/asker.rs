//! Asks the supervisor, on a thread of its own: however long it takes to answer, the keys are heard.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use workhall_protocol::client::{Ticket, WhichLetters};
use workhall_protocol::ids::WorkerNumber;
use workhall_protocol::messages::{Address, Kill, ReceiptBody};
use workhall_protocol::terms::Ignored;

use super::Event;
use super::model::{Act, Action, Answer, Body, Head, KillHow, Tab, Used, Want};
use crate::cli::connect::{Connection, connect, refused};
use crate::cli::output::{count, safe};
use crate::cli::show::read;
use crate::cli::{ExitCode, Failure};
use crate::report::{DeadReport, StatusReport, WorkerInfo, WorkerRow};

/// How many workers are read at once: what a supervisor answers without keeping others waiting.
const PAGE: u64 = 1_000;
/// How many pages are read in one round until all were read once; then it is one.
const FIRST_PAGES: usize = 10;
/// How many lines, events and dead letters of one worker are shown, the last.
const LAST: u64 = 200;

/// What the screen wants of the supervisor.
#[derive(Debug)]
pub enum Question {
    /// From here on this is to be known.
    Want(Want),
    /// This is to be done.
    Act(Act),
}

/// What is asked, of whom, and who is told.
pub struct Asker {
    pub socket: Option<PathBuf>,
    pub interval: Duration,
    pub started: Instant,
    pub questions: Receiver<Question>,
    pub events: Sender<Event>,
}

/// A supervisor that was connected to, and how far its workers were read.
struct Life {
    connection: Connection,
    epoch: u64,
    after: Option<u64>,
    swept: bool,
}

impl Asker {
    /// Asks until nobody listens any more.
    pub fn run(self, connection: Connection) {
        let mut epoch = 1;
        let mut want = Want::default();
        let mut life = Some(Life { connection, epoch, after: None, swept: false });
        loop {
            let due = Instant::now() + self.interval;
            let result = match &mut life {
                Some(life) => self.round(life, &want),
                None => connect(self.socket.clone(), None).and_then(|connection| {
                    epoch += 1;
                    self.round(life.insert(Life { connection, epoch, after: None, swept: false }), &want)
                }),
            };
            let heard = result.or_else(|failure| {
                life = None;
                self.tell(Answer::Lost(safe(&failure.message)))
            });
            if heard.is_err() || self.wait(&mut life, &mut want, due).is_err() {
                return;
            }
        }
    }

    /// Until the next round is due, or there is something to ask at once.
    fn wait(&self, life: &mut Option<Life>, want: &mut Want, due: Instant) -> Result<(), Failure> {
        let mut urgent = false;
        loop {
            // What was asked for together is answered together. Without a supervisor only time helps.
            let left = match urgent && life.is_some() {
                true => Duration::ZERO,
                false => due.saturating_duration_since(Instant::now()),
            };
            match self.questions.recv_timeout(left) {
                Ok(Question::Want(new)) => {
                    if let (true, Some(life)) = (new.sweep != want.sweep, &mut *life) {
                        (life.after, life.swept) = (None, false);
                    }
                    // Who scrolls does not have the supervisor asked at each key.
                    urgent |= new.sweep != want.sweep || new.details != want.details || want.used.is_empty();
                    *want = new;
                }
                Ok(Question::Act(act)) => {
                    self.act(life, &act)?;
                    urgent = true;
                }
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::new(ExitCode::Done, "nobody listens")),
            }
        }
    }

    fn tell(&self, answer: Answer) -> Result<(), Failure> {
        let at = self.started.elapsed();
        let closed = |_| Failure::new(ExitCode::Done, "nobody listens");
        self.events.send(Event::Answer(at, Box::new(answer))).map_err(closed)
    }

    /// All that the screen shows.
    fn round(&self, life: &mut Life, want: &Want) -> Result<(), Failure> {
        let epoch = life.epoch;
        let status: StatusReport = read(life.connection.report(|client| client.status())?.unwrap_or_default())?;
        self.tell(Answer::Head(Box::new(Head { epoch, status })))?;
        for _ in 0..if life.swept { 1 } else { FIRST_PAGES } {
            let after = life.after;
            let page = life.connection.report(|client| client.list_page(after, Some(PAGE)))?.unwrap_or_default();
            let rows: Vec<WorkerRow> = read(page)?;
            let last = (rows.len() as u64) < PAGE;
            life.after = if last { None } else { rows.last().map(|row| row.at) };
            life.swept |= last;
            self.tell(Answer::Page { after, last, rows })?;
            if last {
                break;
            }
        }
        for number in &want.used {
            let info = life.connection.report(|client| client.info(WorkerNumber(*number).into()))?;
            let info = info.map(read::<WorkerInfo>).transpose()?;
            self.tell(match info {
                Some(info) => Answer::Used(Box::new(Used::new(info))),
                None => Answer::Gone(*number),
            })?;
        }
        if let Some((number, name, tab)) = &want.details {
            let body = body(&mut life.connection, *number, name, *tab)?;
            self.tell(Answer::Details(*number, *tab, Box::new(body)))?;
        }
        self.tell(Answer::RoundEnds)
    }

    /// Does what was confirmed, if it is still the supervisor of which it was said, and says what came of it.
    fn act(&self, life: &mut Option<Life>, act: &Act) -> Result<(), Failure> {
        let Some(now) = life.as_mut().filter(|life| life.epoch == act.epoch) else {
            return self.tell(Answer::Told(false, format!("{act}: nothing was done, another supervisor is here now")));
        };
        match done(&mut now.connection, act) {
            Ok(text) => self.tell(Answer::Told(true, format!("{act}: {text}"))),
            Err(failure) => {
                if failure.code == ExitCode::NoSupervisor {
                    *life = None;
                }
                self.tell(Answer::Told(false, format!("{act}: {}", safe(&failure.message))))
            }
        }
    }
}

/// What is open of one worker. Who has gone has a successor of the same name, or none.
fn body(connection: &mut Connection, number: u64, name: &str, tab: Tab) -> Result<Body, Failure> {
    let refusal = |failure: Failure| match failure.code {
        ExitCode::Refused | ExitCode::Failed => Ok(Body::Refused(failure.message)),
        _ => Err(failure),
    };
    match tab {
        Tab::Overview | Tab::Exits => {
            let mut info = connection.report(|client| client.info(WorkerNumber(number).into()))?;
            if info.is_none() {
                info = connection.report(|client| client.info(Address::from(name)))?;
            }
            Ok(info.map(read::<WorkerInfo>).transpose()?.map_or(Body::Gone, |info| Body::Info(Box::new(info))))
        }
        Tab::Events => {
            let ticket = connection.ask(|client| client.events(Some(Address::from(name)), Some(LAST), false, None))?;
            told(connection, ticket).map(Body::Events).or_else(refusal)
        }
        Tab::Log => {
            let ticket = connection.ask(|client| client.logs(Some(Address::from(name)), Some(LAST), false))?;
            told(connection, ticket).map(Body::Lines).or_else(refusal)
        }
        Tab::Dead => match connection.report(|client| client.dead(Some(name), Some(LAST))) {
            Ok(report) => read::<DeadReport>(report.unwrap_or_default()).map(|report| Body::Dead(Box::new(report))),
            Err(failure) => refusal(failure),
        },
    }
}

/// The answer to `logs` or `events`, to its end.
fn told<T: DeserializeOwned>(connection: &mut Connection, ticket: Ticket) -> Result<Vec<T>, Failure> {
    if let ReceiptBody::Refused { reason, detail } = connection.receipt(ticket)? {
        return Err(refused(reason, &detail));
    }
    let mut all = Vec::new();
    while let Some(news) = connection.ask(|client| client.news(ticket))? {
        let items = news.items.to_json().map_err(|error| Failure::new(ExitCode::Failed, error.to_string()))?;
        all.extend(read::<Vec<T>>(items)?);
    }
    Ok(all)
}

/// Does it; the sentence says what came of it.
fn done(connection: &mut Connection, act: &Act) -> Result<String, Failure> {
    let worker: Address<'_> = WorkerNumber(act.number).into();
    let receipt = match act.action {
        Action::Kill(how) => {
            let (drain, now) = (how == KillHow::Drain, how == KillHow::Now);
            let kill = Kill { worker: Some(worker), drain, now, ..Kill::default() };
            let ticket = connection.ask(|client| client.kill(kill))?;
            connection.receipt(ticket)?
        }
        Action::Pause => connection.ask(|client| client.pause(worker))?,
        Action::Resume => connection.ask(|client| client.resume(worker))?,
        Action::Requeue => connection.ask(|client| client.requeue(WhichLetters::Worker(&act.name)))?,
    };
    Ok(match receipt {
        ReceiptBody::Killed { discarded: 0 } => "it ends; nothing was pending".to_string(),
        ReceiptBody::Killed { discarded } => format!("it ends; {} discarded", messages(discarded)),
        ReceiptBody::Paused {} => "it is paused".to_string(),
        ReceiptBody::Resumed {} => "it goes on".to_string(),
        ReceiptBody::Requeued(sum) => match &sum.refused {
            Some(why) => {
                let (posted, left) = (messages(sum.messages), count(sum.left));
                let detail = safe(&why.detail);
                return Err(Failure::new(ExitCode::Refused, format!("{posted} posted again, {left} left: {detail}")));
            }
            None if sum.messages == 0 => "it has no dead letters, nothing was to do".to_string(),
            None => format!("{} posted again", messages(sum.messages)),
        },
        ReceiptBody::Ignored { reason: Ignored::Ending } => "it is ending already, nothing was to do".to_string(),
        ReceiptBody::Ignored { .. } => "it is not there any more, nothing was to do".to_string(),
        other => return Err(crate::cli::dead::unexpected(&other)),
    })
}

/// So many, in words.
pub fn messages(many: u64) -> String {
    match many {
        1 => "1 message".to_string(),
        many => format!("{} messages", count(many)),
    }
}
