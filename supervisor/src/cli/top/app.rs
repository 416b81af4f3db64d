//! What the screen shows, and what a key or an answer makes of it. Knows neither a terminal nor a supervisor.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::confirm::sentence;
use super::model::{Act, Action, Answer, Body, Head, KillHow, Tab, Want};
use super::rows::{Filter, Row, Rows, Sort, rate};
use crate::report::WorkerRow;

/// How many workers' processes are looked at in one round beyond those on the screen, where the order depends on it.
const USED_BESIDE: usize = 100;
/// An answer may be late by so much before it is said.
const LATE: Duration = Duration::from_secs(2);

/// What a key wants of the terminal or the supervisor.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    Quit,
    /// Stop, as the shell's job.
    Suspend,
    /// Draw all of it again.
    Redraw,
    Act(Act),
}

/// What stands before everything else and has the keys.
#[derive(Debug, PartialEq, Eq)]
pub enum Dialog {
    Help,
    /// A filter is written; this was it before.
    Filter(String),
    HowToKill(Act),
    /// Yes or no, and what yes would do.
    Confirm(Act, String),
}

/// One worker is looked at.
#[derive(Debug)]
pub struct Details {
    pub number: u64,
    pub name: String,
    pub tab: Tab,
    /// None until it is known.
    pub body: Option<Body>,
    /// So many lines away from where one looks first: the end of what grows, else the beginning.
    pub scrolled: usize,
}

/// All of it.
#[derive(Debug)]
pub struct App {
    pub rows: Rows,
    pub filter: Filter,
    pub sort: Sort,
    pub reverse: bool,
    pub details: Option<Details>,
    pub dialog: Option<Dialog>,
    pub head: Option<Head>,
    /// Messages accepted and settled per second.
    pub rates: Option<(f64, f64)>,
    /// What came of the last act, and whether it was done.
    pub told: Option<(bool, String)>,
    /// Why there is no supervisor.
    pub lost: Option<String>,
    /// The first row on the screen.
    pub offset: usize,
    order: Vec<u64>,
    selected: Option<(u64, String)>,
    at: usize,
    /// The selection was moved, and not back to the first line.
    moved: bool,
    sweep: u64,
    ledger: Option<((u64, u64), Duration)>,
    answered: Duration,
    now: Duration,
    interval: Duration,
    list_height: usize,
    page_height: usize,
}

impl App {
    pub fn new(filter: &str, sort: Sort, interval: Duration) -> App {
        App {
            rows: Rows::default(),
            filter: Filter::new(filter),
            sort,
            reverse: false,
            details: None,
            dialog: None,
            head: None,
            rates: None,
            told: None,
            lost: None,
            offset: 0,
            order: Vec::new(),
            selected: None,
            at: 0,
            moved: false,
            sweep: 0,
            ledger: None,
            answered: Duration::ZERO,
            now: Duration::ZERO,
            interval,
            list_height: 1,
            page_height: 1,
        }
    }

    /// What is to be known for what is shown.
    pub fn want(&self) -> Want {
        let shown = self.order.iter().skip(self.offset).take(self.list_height);
        let numbers = shown.filter_map(|place| self.rows.at(*place)).filter(|row| row.row.pid.is_some());
        let mut used: Vec<u64> = numbers.map(|row| row.row.number).collect();
        if matches!(self.sort, Sort::Cpu | Sort::Memory) {
            used.extend(
                self.rows.unused(USED_BESIDE).into_iter().filter(|number| !used.contains(number)).collect::<Vec<_>>(),
            );
        }
        let details = self.details.as_ref().map(|details| (details.number, details.name.clone(), details.tab));
        Want { used, details, sweep: self.sweep }
    }

    /// How much room the list and the details have, in lines.
    pub fn resize(&mut self, list: usize, page: usize) {
        (self.list_height, self.page_height) = (list.max(1), page.max(1));
        self.keep_in_sight();
    }

    /// Time goes on.
    pub fn tick(&mut self, now: Duration) {
        self.now = now;
    }

    /// For how long there has been no answer, if it is too long.
    pub fn silent(&self) -> Option<Duration> {
        let silent = self.now.saturating_sub(self.answered);
        (silent > self.interval + LATE).then_some(silent)
    }

    /// The rows on the screen, and which of them is selected.
    pub fn shown(&self) -> (Vec<&Row>, usize) {
        let places = self.order.iter().skip(self.offset).take(self.list_height);
        (places.filter_map(|place| self.rows.at(*place)).collect(), self.at.saturating_sub(self.offset))
    }

    /// Where in the list the selected row is, from 1, and how many there are.
    pub fn position(&self) -> (usize, usize) {
        ((self.at + 1).min(self.order.len()), self.order.len())
    }

    /// The supervisor says something.
    pub fn answer(&mut self, at: Duration, answer: Answer) {
        if !matches!(answer, Answer::Lost(_)) {
            (self.answered, self.now, self.lost) = (at, at.max(self.now), None);
        }
        match answer {
            Answer::Head(head) => self.head(at, *head),
            Answer::Page { after, last, rows } => {
                self.rows.page(after, last, rows, at, &self.filter);
                self.reorder();
            }
            Answer::Used(used) => self.rows.used(*used, at, &self.filter),
            Answer::Gone(number) => self.rows.gone(number),
            Answer::Details(number, tab, body) => {
                if let Some(details) = self.details.as_mut().filter(|it| it.number == number && it.tab == tab) {
                    if let Body::Info(info) = &*body {
                        details.number = info.row.number;
                    }
                    details.body = Some(*body);
                }
            }
            Answer::RoundEnds => self.reorder(),
            Answer::Told(done, text) => self.told = Some((done, text)),
            Answer::Lost(why) => self.lost = Some(why),
        }
    }

    fn head(&mut self, at: Duration, head: Head) {
        let before = self.head.as_ref().map(|head| head.epoch);
        if before.is_some_and(|before| before != head.epoch) {
            // Another supervisor, or the same one after a break: its numbers may be other workers.
            self.rows = Rows::default();
            (self.ledger, self.rates) = (None, None);
            if let Some(details) = &mut self.details {
                (details.number, details.body) = (0, None);
            }
            if matches!(self.dialog, Some(Dialog::Confirm(..) | Dialog::HowToKill(_))) {
                self.dialog = None;
                self.told = Some((false, "nothing was done: the supervisor has been replaced".to_string()));
            }
        }
        let ledger = &head.status.ledger;
        let settled = ledger.accepted.saturating_sub(ledger.pending + ledger.running);
        let now = (ledger.accepted, settled);
        match self.ledger {
            Some((before, then)) => {
                if let (Some(accepted), Some(settled)) =
                    (rate((before.0, then), (now.0, at)), rate((before.1, then), (now.1, at)))
                {
                    (self.rates, self.ledger) = (Some((accepted, settled)), Some((now, at)));
                }
            }
            None => self.ledger = Some((now, at)),
        }
        self.head = Some(head);
    }

    /// The order of the rows; a selection stays at its worker, or a successor of its name, or its line.
    fn reorder(&mut self) {
        self.order = self.rows.order(self.sort, self.reverse);
        // Nobody has moved it: then it stays on the first line, whoever that is.
        if let Some((number, name)) = self.selected.as_ref().filter(|_| self.moved) {
            let find = |is: &dyn Fn(&WorkerRow) -> bool| {
                self.order.iter().position(|place| self.rows.at(*place).is_some_and(|row| is(&row.row)))
            };
            let found = find(&|row| row.number == *number).or_else(|| find(&|row| row.name == *name));
            self.at = found.unwrap_or(self.at);
        }
        self.select(self.at);
    }

    fn select(&mut self, at: usize) {
        self.at = at.min(self.order.len().saturating_sub(1));
        if let Some(row) = self.order.get(self.at).and_then(|place| self.rows.at(*place)) {
            self.selected = Some((row.row.number, row.row.name.clone()));
        }
        self.keep_in_sight();
    }

    fn go(&mut self, at: usize) {
        self.select(at);
        self.moved = self.at > 0;
    }

    fn keep_in_sight(&mut self) {
        let last = self.order.len().saturating_sub(self.list_height);
        self.offset = self.offset.clamp((self.at + 1).saturating_sub(self.list_height), self.at).min(last);
    }

    /// A key.
    pub fn key(&mut self, key: KeyEvent) -> Option<Wish> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Some(Wish::Quit),
                KeyCode::Char('z') => Some(Wish::Suspend),
                KeyCode::Char('l') => Some(Wish::Redraw),
                _ => None,
            };
        }
        self.told = None;
        match self.dialog.take() {
            Some(dialog) => self.key_of_dialog(dialog, key.code),
            None => match key.code {
                KeyCode::Char('q') => Some(Wish::Quit),
                KeyCode::Char('?') => self.open(Dialog::Help),
                KeyCode::Char('K') => self.about(Action::Kill(KillHow::Ask), Dialog::HowToKill),
                KeyCode::Char('p') => self.confirm(Action::Pause),
                KeyCode::Char('r') => self.confirm(Action::Resume),
                KeyCode::Char('R') => self.confirm(Action::Requeue),
                code if self.details.is_some() => self.key_of_details(code),
                code => self.key_of_list(code),
            },
        }
    }

    fn open(&mut self, dialog: Dialog) -> Option<Wish> {
        self.dialog = Some(dialog);
        None
    }

    fn key_of_dialog(&mut self, dialog: Dialog, code: KeyCode) -> Option<Wish> {
        match (dialog, code) {
            (Dialog::Help, _) => None,
            (Dialog::Filter(_), KeyCode::Enter) => None,
            (Dialog::Filter(before), KeyCode::Esc) => self.filter(&before),
            (Dialog::Filter(before), code) => {
                let mut text = self.filter.text.clone();
                match code {
                    KeyCode::Char(c) => text.push(c),
                    KeyCode::Backspace => drop(text.pop()),
                    _ => {}
                }
                self.dialog = Some(Dialog::Filter(before));
                self.filter(&text)
            }
            (Dialog::HowToKill(act), code) => {
                let how = match code {
                    KeyCode::Char('a') | KeyCode::Enter => KillHow::Ask,
                    KeyCode::Char('d') => KillHow::Drain,
                    KeyCode::Char('n') => KillHow::Now,
                    KeyCode::Char('q') | KeyCode::Esc => return None,
                    _ => return self.open(Dialog::HowToKill(act)),
                };
                self.ask(Act { action: Action::Kill(how), ..act })
            }
            (Dialog::Confirm(act, _), KeyCode::Char('y')) => {
                self.told = Some((true, format!("{act}: asked")));
                Some(Wish::Act(act))
            }
            (Dialog::Confirm(..), KeyCode::Char('n' | 'q') | KeyCode::Esc) => None,
            // Not by the way: a key that is held down, or meant for something else, is no answer.
            (confirm @ Dialog::Confirm(..), _) => self.open(confirm),
        }
    }

    fn filter(&mut self, text: &str) -> Option<Wish> {
        if self.filter.text != text {
            self.filter = Filter::new(text);
            self.rows.refilter(&self.filter);
            self.sweep += 1;
            self.reorder();
        }
        None
    }

    fn key_of_list(&mut self, code: KeyCode) -> Option<Wish> {
        match code {
            KeyCode::Down | KeyCode::Char('j') => self.go(self.at + 1),
            KeyCode::Up | KeyCode::Char('k') => self.go(self.at.saturating_sub(1)),
            KeyCode::PageDown | KeyCode::Char(' ') => self.go(self.at + self.list_height),
            KeyCode::PageUp => self.go(self.at.saturating_sub(self.list_height)),
            KeyCode::Home | KeyCode::Char('g') => self.go(0),
            KeyCode::End | KeyCode::Char('G') => self.go(usize::MAX),
            KeyCode::Char('s' | '>') => self.sort_by(self.sort.step(1)),
            KeyCode::Char('<') => self.sort_by(self.sort.step(-1)),
            KeyCode::Char('S') => {
                self.reverse = !self.reverse;
                self.reorder();
            }
            KeyCode::Char('/') => self.dialog = Some(Dialog::Filter(self.filter.text.clone())),
            KeyCode::Esc => drop(self.filter("")),
            KeyCode::Enter => {
                if let Some(row) = self.order.get(self.at).and_then(|place| self.rows.at(*place)) {
                    let (number, name) = (row.row.number, row.row.name.clone());
                    self.details = Some(Details { number, name, tab: Tab::Overview, body: None, scrolled: 0 });
                }
            }
            _ => {}
        }
        None
    }

    fn sort_by(&mut self, sort: Sort) {
        (self.sort, self.reverse) = (sort, false);
        self.reorder();
    }

    fn key_of_details(&mut self, code: KeyCode) -> Option<Wish> {
        let page = self.page_height;
        let Some(details) = &mut self.details else { return None };
        let turn = |details: &mut Details, tab: Tab| {
            if details.tab != tab {
                (details.tab, details.body, details.scrolled) = (tab, None, 0);
            }
        };
        // Which way the end of what is scrolled is.
        let scroll = |details: &mut Details, down: isize| {
            let by = if details.tab.grows() { -down } else { down };
            details.scrolled = details.scrolled.saturating_add_signed(by);
        };
        match code {
            KeyCode::Esc | KeyCode::Backspace => self.details = None,
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => turn(details, details.tab.step(1)),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => turn(details, details.tab.step(-1)),
            KeyCode::Char(digit @ '1'..='5') => turn(details, Tab::ALL[digit as usize - '1' as usize]),
            KeyCode::Down | KeyCode::Char('j') => scroll(details, 1),
            KeyCode::Up | KeyCode::Char('k') => scroll(details, -1),
            KeyCode::PageDown | KeyCode::Char(' ') => scroll(details, page as isize),
            KeyCode::PageUp => scroll(details, -(page as isize)),
            KeyCode::Home | KeyCode::Char('g') => scroll(details, -1_000_000),
            KeyCode::End | KeyCode::Char('G') => scroll(details, 1_000_000),
            _ => {}
        }
        None
    }

    /// So far the details can be scrolled: said by who draws them.
    pub fn limit_scroll(&mut self, most: usize) {
        if let Some(details) = &mut self.details {
            details.scrolled = details.scrolled.min(most);
        }
    }

    fn about(&mut self, action: Action, dialog: impl FnOnce(Act) -> Dialog) -> Option<Wish> {
        let act = self.act(action)?;
        self.open(dialog(act))
    }

    fn confirm(&mut self, action: Action) -> Option<Wish> {
        let act = self.act(action)?;
        self.ask(act)
    }

    fn ask(&mut self, act: Act) -> Option<Wish> {
        let text = sentence(&act, self.row(act.number), self.letters(&act.name));
        self.open(Dialog::Confirm(act, text))
    }

    /// What is known of a worker with this number.
    fn row(&self, number: u64) -> Option<&WorkerRow> {
        let open = self.details.as_ref().and_then(|details| details.body.as_ref());
        if let Some(Body::Info(info)) =
            open.filter(|body| matches!(body, Body::Info(info) if info.row.number == number))
        {
            return Some(&info.row);
        }
        self.rows.numbered(number).map(|row| &row.row)
    }

    /// How many dead letters it has, if they are on the screen.
    fn letters(&self, name: &str) -> Option<u64> {
        let details = self.details.as_ref().filter(|details| details.name == name)?;
        match &details.body {
            Some(Body::Dead(report)) => Some(report.matching),
            _ => None,
        }
    }

    /// An act upon the worker that is looked at, or selected.
    fn act(&mut self, action: Action) -> Option<Act> {
        let epoch = self.head.as_ref()?.epoch;
        let whom = match &self.details {
            Some(details) => Some((details.number, details.name.clone())),
            None => self.selected.clone().filter(|_| !self.order.is_empty()),
        };
        whom.map(|(number, name)| Act { epoch, number, name, action })
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::cli::top::rows::tests::row;
    use crate::report::RunningRow;

    pub const S: Duration = Duration::from_secs(1);

    /// A supervisor with so many workers, that has accepted so many messages; nothing of it pending.
    pub fn head(epoch: u64, workers: u64, accepted: u64) -> Answer {
        let status = serde_json::json!({
            "version": "0.1.0", "pid": 42, "uptime_ms": 192_000, "socket": "/s", "config": null, "workers_dir": "/w",
            "classes": ["c"], "refused": 2, "ignored": 0, "process_tree": "subreaper", "stopping": false, "senders": [],
            "ledger": {"accepted": accepted, "done": accepted, "failed": 0, "discarded": 0, "expired": 0, "dead": 0,
                "pending": 0, "running": 0},
            "counts": {"workers": workers, "processes": 2, "clients": 1, "spawned": 2, "stale": 0, "violations": 0},
            "dead_letters": {"messages": 0, "bytes": 0, "dropped": 0},
            "limits": {"message_bytes": 1, "total_bytes_used": 0, "total_bytes": 1, "total_messages_used": 0,
                "total_messages": 1, "sender_messages": 1, "sender_bytes": 1, "signals_used": 0, "sender_signals": 1, "workers": 9, "processes_used": 2,
                "processes": 4000, "processes_queued": 0, "dead_messages": 1, "dead_bytes": 1, "connections": 9,
                "connections_per_user": 9, "unread_bytes_per_user": 1, "unfinished_bytes_per_user": 1,
                "descriptors": 99},
            "asker": {"uid": 0, "gid": 0, "connections": 1, "may_kill": true, "may_administer": true},
        });
        Answer::Head(Box::new(Head { epoch, status: serde_json::from_value(status).unwrap() }))
    }

    pub fn page(rows: Vec<WorkerRow>) -> Answer {
        Answer::Page { after: None, last: true, rows }
    }

    /// Three workers: `a` is idle, `b` is busy with three pending, `c` waits after crashes. A list of ten lines.
    pub fn app() -> App {
        let mut app = App::new("", Sort::Name, S);
        app.resize(10, 9);
        app.answer(S, head(1, 3, 10));
        let task = Some(RunningRow { message: 7, method: "add".into(), age_ms: 5_000 });
        let b = WorkerRow { state: "busy".into(), pending: 3, running: task, executed: 9, ..row(2, "b") };
        let c = WorkerRow { state: "backoff".into(), pid: None, crashes: 4, ..row(3, "c") };
        app.answer(S, page(vec![row(1, "a"), b, c]));
        app.answer(S, Answer::RoundEnds);
        app
    }

    pub fn press(app: &mut App, keys: &str) -> Option<Wish> {
        keys.chars().fold(None, |_, c| code(app, KeyCode::Char(c)))
    }

    pub fn code(app: &mut App, code: KeyCode) -> Option<Wish> {
        app.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn selected(app: &App) -> &str {
        let (rows, at) = app.shown();
        &rows[at].row.name
    }

    #[test]
    fn the_selection_stays_at_its_worker_whatever_the_order_is() {
        let mut app = app();
        assert_eq!(selected(&app), "a");
        press(&mut app, "j");
        assert_eq!((selected(&app), app.position()), ("b", (2, 3)));
        press(&mut app, "s");
        assert_eq!((app.sort, selected(&app), app.position()), (Sort::State, "b", (2, 3)));
        press(&mut app, ">S");
        assert_eq!((app.sort, app.position()), (Sort::Depth, (3, 3)));
        press(&mut app, "<<");
        assert_eq!((app.sort, app.reverse, selected(&app)), (Sort::Name, false, "b"));
        // It goes; its line is another's. One of its name comes: that is it again.
        app.answer(S, page(vec![row(1, "a"), row(3, "c")]));
        assert_eq!(selected(&app), "c");
        press(&mut app, "jjjG");
        assert_eq!(selected(&app), "c");
        press(&mut app, "gk");
        assert_eq!(selected(&app), "a");
        // On the first line it is with whoever is the first.
        app.answer(S, page(vec![row(1, "a"), row(3, "c"), row(4, "A")]));
        assert_eq!((selected(&app), app.position()), ("A", (1, 3)));
        app.answer(S, page(vec![WorkerRow { number: 77, ..row(9, "a") }, row(3, "c")]));
        assert_eq!(selected(&app), "a");
        app.answer(S, page(vec![]));
        assert_eq!((app.position(), press(&mut app, "jkGgKpr")), ((0, 0), None));
        assert!(app.dialog.is_none());
    }

    #[test]
    fn a_long_list_is_scrolled_so_that_the_selection_is_seen() {
        let mut app = app();
        app.answer(S, page((1..=100).map(|at| row(at, &format!("w{at:03}"))).collect()));
        let seen = |app: &App| app.shown().0.iter().map(|row| row.row.name.clone()).collect::<Vec<_>>();
        press(&mut app, "jjjjjjjjjjj");
        assert_eq!((selected(&app), &*seen(&app)[9]), ("w012", "w012"));
        code(&mut app, KeyCode::PageDown);
        assert_eq!(selected(&app), "w022");
        press(&mut app, "G");
        assert_eq!((selected(&app), &*seen(&app)[0], seen(&app).len()), ("w100", "w091", 10));
        app.resize(4, 3);
        assert_eq!((selected(&app), seen(&app).len()), ("w100", 4));
        app.resize(200, 199);
        assert_eq!((selected(&app), seen(&app).len()), ("w100", 100));
        app.resize(10, 9);
        code(&mut app, KeyCode::Home);
        assert_eq!(seen(&app)[0], "w001");
        // The processes of those on the screen are looked at, and of others where the order needs them.
        assert_eq!(app.want().used, (101..=110).collect::<Vec<_>>());
        press(&mut app, "<");
        assert_eq!(app.sort, Sort::Memory);
        assert_eq!(app.want().used.len(), 100);
    }

    #[test]
    fn a_filter_shows_at_once_and_can_be_put_back() {
        let mut app = app();
        press(&mut app, "/q");
        assert_eq!((app.filter.text.as_str(), app.position()), ("q", (0, 0)));
        code(&mut app, KeyCode::Backspace);
        assert_eq!(app.want().sweep, 2, "the workers are read again, twice");
        app.answer(S, page(vec![row(1, "a"), row(2, "b")]));
        press(&mut app, "b");
        code(&mut app, KeyCode::Enter);
        assert_eq!((app.dialog.is_none(), selected(&app), app.position()), (true, "b", (1, 1)));
        press(&mut app, "/x");
        code(&mut app, KeyCode::Esc);
        assert_eq!(app.filter.text, "b");
        code(&mut app, KeyCode::Esc);
        assert_eq!(app.filter.text, "");
    }

    #[test]
    fn nothing_is_done_without_a_yes() {
        let act = |action| Act { epoch: 1, number: 102, name: "b".into(), action };
        for (keys, action, said) in [
            (
                "Ka",
                Action::Kill(KillHow::Ask),
                "3 messages are discarded, which are pending; it ends after the current task (`add`, for 5.0s)",
            ),
            ("Kd", Action::Kill(KillHow::Drain), "It executes the 3 messages that wait and what it has begun"),
            ("Kn", Action::Kill(KillHow::Now), "is cut short by SIGKILL"),
            ("p", Action::Pause, "Its process 1 stops where it is (SIGSTOP)"),
            ("r", Action::Resume, "Its process goes on"),
            ("R", Action::Requeue, "Posts all its dead letters again"),
        ] {
            for no in ["n", "q", "\u{1b}"] {
                let mut app = app();
                press(&mut app, "j");
                assert_eq!(press(&mut app, keys), None);
                let Some(Dialog::Confirm(about, text)) = &app.dialog else { panic!("{keys}: {:?}", app.dialog) };
                assert!(*about == act(action) && text.contains(said), "{keys}: {text}");
                // Another key is no answer.
                assert_eq!((press(&mut app, "xYj "), app.dialog.is_some()), (None, true));
                let answer = if no == "\u{1b}" { code(&mut app, KeyCode::Esc) } else { press(&mut app, no) };
                assert_eq!((answer, app.dialog.is_none(), app.told.is_none()), (None, true, true), "{keys}{no}");
                press(&mut app, keys);
                assert_eq!(press(&mut app, "y"), Some(Wish::Act(act(action))), "{keys}");
                assert_eq!((press(&mut app, "y"), app.dialog.is_none()), (None, true), "once");
            }
        }
        let mut app = app();
        press(&mut app, "G");
        press(&mut app, "r");
        let Some(Dialog::Confirm(_, text)) = &app.dialog else { panic!() };
        assert!(text.contains("It starts at once, and its crashes are forgotten"), "{text}");
    }

    #[test]
    fn another_supervisor_closes_a_question_about_a_worker_of_the_old_one() {
        let mut app = app();
        press(&mut app, "jp");
        app.answer(2 * S, Answer::Lost("it has gone".into()));
        assert_eq!(app.lost.as_deref(), Some("it has gone"));
        assert!(app.dialog.is_some());
        app.answer(3 * S, head(2, 1, 0));
        assert!(app.lost.is_none() && app.dialog.is_none() && app.rows.len() == 0);
        assert!(app.told.as_ref().is_some_and(|(done, text)| !done && text.contains("replaced")));
        // Its `b` is another number; the selection is at the name.
        app.answer(3 * S, page(vec![row(1, "a"), WorkerRow { number: 5, ..row(2, "b") }]));
        assert_eq!(
            press(&mut app, "py"),
            Some(Wish::Act(Act { epoch: 2, number: 5, name: "b".into(), action: Action::Pause }))
        );
    }

    #[test]
    fn silence_is_said_after_a_while() {
        let mut app = app();
        app.tick(3 * S);
        assert_eq!(app.silent(), None);
        app.tick(6 * S);
        assert_eq!(app.silent(), Some(5 * S));
        app.answer(7 * S, Answer::RoundEnds);
        assert_eq!(app.silent(), None);
    }

    #[test]
    fn the_rates_are_of_the_ledger() {
        let mut app = app();
        assert_eq!(app.rates, None);
        app.answer(3 * S, head(1, 3, 30));
        assert_eq!(app.rates, Some((10.0, 10.0)));
        app.answer(4 * S, head(2, 3, 1));
        assert_eq!(app.rates, None, "another supervisor counts from another number");
    }

    #[test]
    fn details_are_asked_for_by_tab_and_follow_a_successor() {
        let mut app = app();
        press(&mut app, "j");
        assert_eq!(app.want().details, None);
        code(&mut app, KeyCode::Enter);
        assert_eq!(app.want().details, Some((102, "b".into(), Tab::Overview)));
        press(&mut app, "4");
        assert_eq!(app.want().details, Some((102, "b".into(), Tab::Log)));
        // What was asked for before is not shown under another title.
        app.answer(S, Answer::Details(102, Tab::Overview, Box::new(Body::Gone)));
        assert!(app.details.as_ref().unwrap().body.is_none());
        app.answer(S, Answer::Details(102, Tab::Log, Box::new(Body::Lines(Vec::new()))));
        assert!(app.details.as_ref().unwrap().body.is_some());
        code(&mut app, KeyCode::Tab);
        code(&mut app, KeyCode::Tab);
        assert_eq!(app.want().details.unwrap().2, Tab::Overview);
        code(&mut app, KeyCode::BackTab);
        assert_eq!(app.want().details.unwrap().2, Tab::Dead);
        // What grows is scrolled from its end, and not beyond its beginning.
        press(&mut app, "kkkkk");
        app.limit_scroll(3);
        press(&mut app, "j");
        assert_eq!(app.details.as_ref().unwrap().scrolled, 2);
        assert_eq!(
            press(&mut app, "py"),
            Some(Wish::Act(Act { epoch: 1, number: 102, name: "b".into(), action: Action::Pause }))
        );
        code(&mut app, KeyCode::Esc);
        assert!(app.details.is_none() && app.want().details.is_none());
        assert_eq!(press(&mut app, "q"), Some(Wish::Quit));
    }

    #[test]
    fn control_keys_are_heard_everywhere() {
        for keys in ["", "?", "/", "K", "p"] {
            for (c, wish) in [('c', Wish::Quit), ('z', Wish::Suspend), ('l', Wish::Redraw)] {
                let mut app = app();
                press(&mut app, keys);
                assert_eq!(app.key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL)), Some(wish));
            }
        }
    }
}
