//! `workhall top`: the live view in the terminal.
//!
//! Four threads: this one draws and does what keys say, one reads keys, one waits for signals, one asks the supervisor
//! (`asker.rs`). They tell this one what comes, so it waits for all in one place and for none of them alone. What is
//! shown, and what a key makes of it, is `app.rs`, which knows no terminal.

mod app;
mod asker;
mod confirm;
mod details;
mod model;
mod rows;
mod screen;
mod view;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, KeyEvent, KeyEventKind};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;

use super::connect::connect;
use super::{ExitCode, Failure, parse_duration};
use app::{App, Wish};
use asker::{Asker, Question};
use model::{Answer, Want};
use rows::Sort;
use screen::Screen;

pub const EXAMPLES: &str = "Examples:
  workhall top                                all workers, asked for every second
  workhall top -d 5s --sort depth             every five seconds, those with most pending first
  workhall top --filter 'ledger/*' --sort cpu  those whose names match, the busiest first

`?` shows the keys: Enter shows all about one worker, its events, exits, log and dead letters; K kills, p pauses,
r resumes it, R posts its dead letters again, each after a confirmation. Of more than 1,000 workers 1,000 are read each
time, one page after the other, and those on the screen every time.";

/// It asks no more often, and at least so often.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
/// So often the screen is drawn without anything new: it says for how long there was no answer.
const TICK: Duration = Duration::from_secs(1);

/// The arguments of `workhall top`.
#[derive(Debug, clap::Args)]
pub struct Top {
    /// How often the supervisor is asked: 100ms to 1h; a number alone is in seconds
    #[arg(short = 'd', long, value_name = "DURATION", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
    /// Show only workers with this in their names, or whose names match this pattern (`*` within a part of a name,
    /// `**` across slashes)
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
    /// What comes first
    #[arg(short, long, value_enum, value_name = "COLUMN", default_value = "name")]
    sort: Sort,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?,
        Err(_) => parse_duration(text)?,
    };
    match INTERVALS.contains(&interval) {
        true => Ok(interval),
        false => Err("it is from 100ms to 1h".to_string()),
    }
}

/// What comes to the thread that draws.
#[derive(Debug)]
pub enum Event {
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    Signal(i32),
    /// With the time since the start.
    Answer(Duration, Box<Answer>),
    /// Keys cannot be read any more.
    Deaf(io::Error),
}

impl Top {
    /// Shows them, until a key or a signal ends it.
    pub fn run(self, socket: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() || dumb {
            let message = "`top` needs a terminal, and this is none: `workhall ps --json` and `workhall status --json` are for programs";
            return Err(Failure::usage(message));
        }
        // Said as every command says it, before there is a screen.
        let connection = connect(socket.clone(), None)?;
        let started = Instant::now();
        let (events_in, events) = channel();
        let (questions_in, questions) = channel();
        let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT])?;
        let app = App::new(&self.filter, self.sort, self.interval);
        let mut screen = Screen::enter()?;
        let asker = Asker { socket, interval: self.interval, started, questions, events: events_in.clone() };
        thread::Builder::new().name("asker".to_string()).spawn(move || asker.run(connection))?;
        let of_signals = events_in.clone();
        thread::Builder::new().name("signals".to_string()).spawn(move || hear(signals, &of_signals))?;
        thread::Builder::new().name("keys".to_string()).spawn(move || read_keys(&events_in))?;
        let shell = Shell { app, events, questions: questions_in, started, asked: Want::default() };
        let end = shell.run(&mut screen);
        screen.leave()?;
        if let Some(signal) = end? {
            // As it would have ended without a screen: the status says by what.
            signal_hook::low_level::emulate_default_handler(signal)?;
        }
        Ok(ExitCode::Done)
    }
}

fn hear(mut signals: Signals, events: &Sender<Event>) {
    for signal in signals.forever() {
        if events.send(Event::Signal(signal)).is_err() {
            return;
        }
    }
}

fn read_keys(events: &Sender<Event>) {
    loop {
        let event = match event::read() {
            Ok(event::Event::Key(key)) if key.kind != KeyEventKind::Release => Event::Key(key),
            Ok(event::Event::Resize(..)) => Event::Resized,
            Ok(_) => continue,
            Err(error) => Event::Deaf(error),
        };
        let deaf = matches!(event, Event::Deaf(_));
        if events.send(event).is_err() || deaf {
            return;
        }
    }
}

/// What is shown, and who is asked.
struct Shell {
    app: App,
    events: Receiver<Event>,
    questions: Sender<Question>,
    started: Instant,
    asked: Want,
}

/// How it ends: by a key, or by a signal.
type End = Option<i32>;

impl Shell {
    fn run(mut self, screen: &mut Screen) -> Result<End, Failure> {
        loop {
            self.app.tick(self.started.elapsed());
            screen.draw(&mut self.app)?;
            let want = self.app.want();
            if want != self.asked {
                self.ask(Question::Want(want.clone()))?;
                self.asked = want;
            }
            let mut next = match self.events.recv_timeout(TICK) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            };
            // What has come together is drawn together.
            while let Some(event) = next {
                if let Some(end) = self.take(event, screen)? {
                    return Ok(end);
                }
                next = self.events.try_recv().ok();
            }
        }
    }

    fn ask(&self, question: Question) -> Result<(), Failure> {
        let ended = |_| Failure::new(ExitCode::Failed, "the thread that asks the supervisor has ended");
        self.questions.send(question).map_err(ended)
    }

    fn take(&mut self, event: Event, screen: &mut Screen) -> Result<Option<End>, Failure> {
        match event {
            Event::Answer(at, answer) => self.app.answer(at, *answer),
            Event::Resized => {}
            Event::Deaf(error) => {
                return Err(Failure::new(ExitCode::Failed, format!("the terminal cannot be read: {error}")));
            }
            Event::Signal(SIGCONT) => screen.come_back()?,
            Event::Signal(SIGTSTP) => screen.stop()?,
            Event::Signal(signal) => return Ok(Some(Some(signal))),
            Event::Key(key) => match self.app.key(key) {
                None => {}
                Some(Wish::Quit) => return Ok(Some(None)),
                Some(Wish::Suspend) => screen.stop()?,
                Some(Wish::Redraw) => screen.come_back()?,
                Some(Wish::Act(act)) => self.ask(Question::Act(act))?,
            },
        }
        Ok(None)
    }
}
