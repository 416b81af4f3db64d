//! Draws the list, and what stands above and below everything.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

use super::app::{App, Dialog};
use super::details;
use super::model::Head;
use super::rows::{Row, Sort};
use crate::cli::output::{age, bytes, count, safe};

/// From this width on there is room for the class.
const WIDE: u16 = 100;
/// The columns behind the name, with their widths; the last ones go first where it is narrow.
const COLUMNS: [(&str, usize, Sort); 7] = [
    ("STATE", 8, Sort::State),
    ("DEPTH", 7, Sort::Depth),
    ("AGE", 6, Sort::Age),
    ("RATE", 6, Sort::Rate),
    ("CRASHES", 7, Sort::Crashes),
    ("CPU", 5, Sort::Cpu),
    ("MEM", 8, Sort::Memory),
];
/// A name has at least so much room, as long as there is a column less to be shown.
const NAME_MIN: usize = 16;
const CLASS_WIDTH: usize = 16;

const HELP: [&str; 19] = [
    "up down j k       the next worker, the one before",
    "PgUp PgDn Space   a screen further",
    "Home End g G      the first, the last",
    "/                 filter: a part of the name, or a pattern",
    "                  (led/*; ** for across slashes); Esc ends it",
    "s > <             sort by the next column, the one before",
    "S                 the other way round",
    "Enter             all about one worker; Esc goes back",
    "Tab left right 1-5  there: overview, events, exits, log,",
    "                  dead letters",
    "K                 kill: ask, drain, or at once",
    "p  r              pause it, resume it",
    "R                 post its dead letters again",
    "Ctrl-L  Ctrl-Z    draw again; to the shell and back (fg)",
    "q                 quit",
    "",
    "RATE: tasks ended per second. AGE: of the current task.",
    "CPU, MEM: of all its processes, asked for those on the",
    "screen; by these two all are sorted as they are asked.",
];

/// Colours, or what is told without them.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    pub colour: bool,
}

impl Theme {
    /// Under NO_COLOR there are none.
    pub fn of_environment() -> Theme {
        Theme { colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    fn fg(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    pub fn good(self) -> Style {
        self.fg(Color::Green)
    }

    pub fn bad(self) -> Style {
        self.fg(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub fn state(self, word: &str) -> Style {
        match word {
            "busy" => self.good(),
            "starting" | "ending" => self.fg(Color::Yellow),
            "backoff" | "paused" => self.fg(Color::Red),
            "absent" => self.fg(Color::DarkGray),
            _ => Style::new(),
        }
    }
}

/// Where the parts are: above, the middle, what was told, the keys.
fn parts(area: Rect) -> [Rect; 4] {
    let head = if area.height >= 12 { 3 } else { 1 };
    Layout::vertical([Constraint::Length(head), Constraint::Fill(1), Constraint::Length(1), Constraint::Length(1)])
        .areas(area)
}

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, app: &mut App, theme: Theme) {
    let [head, middle, told, keys] = parts(frame.area());
    app.resize(middle.height.saturating_sub(1) as usize, middle.height.saturating_sub(2) as usize);
    frame.render_widget(Paragraph::new(head_lines(app, theme, head.width as usize)), head);
    match app.details {
        Some(_) => details::draw(frame, app, theme, middle),
        None => list(frame, app, theme, middle),
    }
    frame.render_widget(Paragraph::new(told_line(app, theme, told.width as usize)), told);
    frame.render_widget(Paragraph::new(keys_line(app, keys.width as usize)), keys);
    match &app.dialog {
        None | Some(Dialog::Filter(_)) => {}
        Some(Dialog::Help) => window(frame, "keys", &HELP.map(str::to_string), "any key closes this"),
        Some(Dialog::HowToKill(act)) => {
            let whom = format!("Kill {} (%{}): how?", safe(&act.name), act.number);
            let lines = [
                whom,
                String::new(),
                "a  ask: discard what is pending, end after the current task".to_string(),
                "d  drain: first execute what is pending".to_string(),
                "n  now: SIGKILL at once".to_string(),
            ];
            window(frame, "kill", &lines, "a, d, n; Esc does nothing");
        }
        Some(Dialog::Confirm(_, sentence)) => {
            let width = frame.area().width.saturating_sub(8).clamp(10, 60) as usize;
            window(frame, "confirm", &wrapped(sentence, width), "y: do it   n: do nothing");
        }
    }
}

/// A window in the middle, as large as what it says.
fn window(frame: &mut Frame<'_>, title: &str, lines: &[String], keys: &str) {
    let whole = frame.area();
    let widest = lines.iter().map(|line| width(line)).max().unwrap_or(0).max(width(keys)) as u16;
    let size = ((widest + 4).min(whole.width), (lines.len() as u16 + 2).min(whole.height));
    let area = Rect { x: (whole.width - size.0) / 2, y: (whole.height - size.1) / 2, width: size.0, height: size.1 };
    let block = Block::bordered().title(format!(" {title} ")).title_bottom(Line::from(format!(" {keys} ")).bold());
    let text: Vec<Line<'_>> = lines.iter().map(|line| Line::from(format!(" {line}"))).collect();
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(text).block(block), area);
}

fn head_lines(app: &App, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let alarm = match (&app.lost, app.silent()) {
        (Some(why), _) => Some(why.clone()),
        (None, Some(silent)) => Some(format!("no answer since {}s", silent.as_secs())),
        (None, None) => None,
    };
    let Some(Head { status, .. }) = &app.head else {
        let text = alarm.unwrap_or_else(|| "asking the supervisor\u{2026}".to_string());
        return vec![Line::styled(fit(&text, width), theme.bad())];
    };
    let (ledger, counts, limits) = (&status.ledger, &status.counts, &status.limits);
    let stopping = if status.stopping { ", stopping" } else { "" };
    let first = match &alarm {
        Some(text) => Line::styled(fit(text, width), theme.bad()),
        None => Line::from(vec![
            Span::from(format!("workhall {}", status.version)).bold(),
            Span::from(format!(
                "  up {}{stopping}  workers {}  processes {} of {}  clients {}  pid {}",
                age(status.uptime_ms),
                short(counts.workers),
                short(limits.processes_used),
                short(limits.processes),
                short(counts.clients),
                status.pid,
            )),
        ]),
    };
    let per_second =
        |of: fn((f64, f64)) -> f64| app.rates.map_or_else(|| "-".to_string(), |rates| per_second(of(rates)));
    let second = format!(
        "accepted {} ({}/s)  settled {} ({}/s)  pending {}  running {}",
        short(ledger.accepted),
        per_second(|rates| rates.0),
        short(ledger.accepted.saturating_sub(ledger.pending + ledger.running)),
        per_second(|rates| rates.1),
        short(ledger.pending),
        short(ledger.running)
    );
    let third = format!(
        "done {}  failed {}  discarded {}  expired {}  dead {} ({} kept)  refused {}",
        short(ledger.done),
        short(ledger.failed),
        short(ledger.discarded),
        short(ledger.expired),
        short(ledger.dead),
        short(status.dead_letters.messages),
        short(status.refused)
    );
    vec![first, Line::from(fit(&second, width)), Line::from(fit(&third, width))]
}

fn told_line(app: &App, theme: Theme, width: usize) -> Line<'static> {
    if let Some(Dialog::Filter(_)) = app.dialog {
        return Line::from(format!("filter: {}_", safe(&app.filter.text))).bold();
    }
    if let Some((done, text)) = &app.told {
        return Line::styled(fit(text, width), if *done { theme.good() } else { theme.bad() });
    }
    if app.details.is_some() {
        return Line::default();
    }
    let (at, of) = app.position();
    let mut parts = vec![format!("{} of {}", count(at as u64), count(of as u64))];
    let workers = app.head.as_ref().map_or(0, |head| head.status.counts.workers);
    if !app.filter.text.is_empty() {
        parts.push(format!("filter: {}", safe(&app.filter.text)));
    }
    if app.rows.cut {
        parts.push(format!("{} are shown of {} workers: filter by name (/)", count(of as u64), count(workers)));
    } else if !app.rows.swept && app.head.is_some() && app.rows.len() > 0 {
        parts.push(format!("reading {} workers", count(workers)));
    }
    Line::from(fit(&parts.join("   "), width)).dim()
}

fn keys_line(app: &App, width: usize) -> Line<'static> {
    let keys = match (&app.dialog, &app.details) {
        (Some(Dialog::Filter(_)), _) => "Enter keeps it   Esc puts it back",
        (_, Some(_)) => "Esc back  Tab next  K kill  p pause  r resume  R requeue  ? help  q quit",
        _ => "? help  Enter details  / filter  s sort  K kill  p pause  r resume  q quit",
    };
    Line::from(fit(keys, width)).reversed()
}

fn list(frame: &mut Frame<'_>, app: &App, theme: Theme, area: Rect) {
    let width = area.width as usize;
    let class = area.width >= WIDE;
    let mut columns: &[(&str, usize, Sort)] = &COLUMNS;
    let taken = |columns: &[(&str, usize, Sort)]| columns.iter().map(|(_, width, _)| width + 1).sum::<usize>();
    while !columns.is_empty() && taken(columns) + NAME_MIN > width {
        columns = &columns[..columns.len() - 1];
    }
    let behind = taken(columns) + if class { CLASS_WIDTH + 1 } else { 0 };
    let name = width.saturating_sub(behind).max(1);
    let title = |title: &str, sort: Sort| {
        let arrow = if app.reverse { "\u{25b4}" } else { "\u{25be}" };
        if app.sort == sort { format!("{title}{arrow}") } else { title.to_string() }
    };
    let mut head = fit(&title("NAME", Sort::Name), name);
    for (at, (word, width, sort)) in columns.iter().enumerate() {
        head.push(' ');
        head += &(if at == 0 { fit(&title(word, *sort), *width) } else { right(&title(word, *sort), *width) });
    }
    if class {
        head += &format!(" {}", fit("CLASS", CLASS_WIDTH));
    }
    let (rows, selected) = app.shown();
    let mut lines = vec![Line::from(head).bold()];
    for (at, row) in rows.iter().enumerate() {
        let cells = cells(row);
        let mut spans = vec![Span::from(fit(&safe(&row.row.name), name))];
        for (at, ((_, width, _), cell)) in columns.iter().zip(&cells).enumerate() {
            spans.push(Span::from(" "));
            spans.push(match at {
                0 => Span::styled(fit(cell, *width), theme.state(&row.row.state)),
                _ => Span::from(right(cell, *width)),
            });
        }
        if class {
            spans.push(Span::from(format!(" {}", fit(&safe(&row.row.class), CLASS_WIDTH))));
        }
        let line = Line::from(spans);
        lines.push(if at == selected { line.reversed() } else { line });
    }
    if rows.is_empty() && app.head.is_some() && app.rows.swept {
        lines.push(Line::from(match app.filter.text.is_empty() {
            true => "No worker is there: the first call of a name creates one.".to_string(),
            false => format!("No worker's name has `{}`: Esc shows all.", safe(&app.filter.text)),
        }));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// What stands in the columns of a worker.
fn cells(row: &Row) -> [String; 7] {
    let dash = || "-".to_string();
    let busy = row.row.running.as_ref();
    [
        row.row.state.clone(),
        short(row.row.pending),
        busy.map_or_else(dash, |task| age(task.age_ms)),
        row.rate.map_or_else(dash, per_second),
        short(row.row.crashes),
        row.cpu.map_or_else(dash, |share| format!("{:.0}%", share * 100.0)),
        row.used.map_or_else(dash, |used| bytes(used.memory)),
    ]
}

/// `0`, `0.4`, `12`, `1.2k`.
fn per_second(rate: f64) -> String {
    match rate {
        rate if rate <= 0.0 => "0".to_string(),
        rate if rate < 9.95 => format!("{rate:.1}"),
        rate if rate < 9_999.5 => format!("{rate:.0}"),
        rate if rate < 999_500.0 => format!("{:.0}k", rate / 1e3),
        rate => format!("{:.1}M", rate / 1e6),
    }
}

/// `99,999`, then `1.2M`: at most seven characters.
fn short(number: u64) -> String {
    match number {
        0..1_000_000 => count(number),
        1_000_000..1_000_000_000 => format!("{:.1}M", number as f64 / 1e6),
        _ => format!("{:.1}G", number as f64 / 1e9),
    }
}

/// How many columns of a terminal a text takes.
pub fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// As wide as this: cut with `…`, or filled with spaces.
pub fn fit(text: &str, columns: usize) -> String {
    let whole = width(text);
    if whole <= columns {
        return format!("{text}{}", " ".repeat(columns - whole));
    }
    let (mut cut, mut taken) = (String::new(), 0);
    for c in text.chars() {
        let wide = width(c.encode_utf8(&mut [0; 4]));
        if taken + wide + 1 > columns {
            break;
        }
        cut.push(c);
        taken += wide;
    }
    if columns > taken {
        cut.push('\u{2026}');
        taken += 1;
    }
    cut + &" ".repeat(columns - taken.min(columns))
}

fn right(text: &str, columns: usize) -> String {
    match width(text) {
        whole if whole <= columns => format!("{}{text}", " ".repeat(columns - whole)),
        _ => fit(text, columns),
    }
}

/// Lines of at most so many columns, broken between words where there are some.
pub fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let (mut lines, mut line, mut taken) = (Vec::new(), String::new(), 0);
    for word in text.split_inclusive(' ') {
        let wide = width(word.trim_end());
        if taken > 0 && taken + wide > columns {
            lines.push(std::mem::take(&mut line).trim_end().to_string());
            taken = 0;
        }
        for c in word.chars() {
            let wide = width(c.encode_utf8(&mut [0; 4]));
            if taken + wide > columns {
                if c == ' ' {
                    continue;
                }
                lines.push(std::mem::take(&mut line));
                taken = 0;
            }
            line.push(c);
            taken += wide;
        }
    }
    lines.push(line.trim_end().to_string());
    lines
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyCode;

    use super::super::app::tests::{S, app, code, page, press};
    use super::super::model::{Answer, Body, Tab, Used, UsedTree};
    use super::super::rows::tests::row;
    use super::*;
    use crate::journal::LineReport;

    /// What is on a screen of this size, line by line.
    fn screen(app: &mut App, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, app, Theme { colour: true })).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_string();
        (0..height).map(line).collect()
    }

    fn text(app: &mut App) -> String {
        screen(app, 80, 24).join("\n")
    }

    #[test]
    fn the_list_at_80_columns() {
        let mut app = app();
        let used = |cpu_ms| Used { row: row(1, "a"), tree: Some(UsedTree { memory: 3_250_000, cpu_ms }) };
        app.answer(S, Answer::Used(Box::new(used(0))));
        app.answer(2 * S, Answer::Used(Box::new(used(250))));
        let screen = screen(&mut app, 80, 24);
        for (at, line) in [
            (0, "workhall 0.1.0  up 3m12s  workers 3  processes 2 of 4,000  clients 1  pid 42"),
            (1, "accepted 10 (-/s)  settled 10 (-/s)  pending 0  running 0"),
            (2, "done 10  failed 0  discarded 0  expired 0  dead 0 (0 kept)  refused 2"),
            (3, "NAME\u{25be}                      STATE      DEPTH    AGE   RATE CRASHES   CPU      MEM"),
            (4, "a                          idle           0      -      0       0   25%  3.1 MiB"),
            (5, "b                          busy           3   5.0s      -       0     -        -"),
            (6, "c                          backoff        0      -      -       4     -        -"),
            (22, "1 of 3"),
            (23, "? help  Enter details  / filter  s sort  K kill  p pause  r resume  q quit"),
        ] {
            assert_eq!(screen[at], line);
        }
    }

    #[test]
    fn a_wide_screen_has_the_class_and_a_narrow_one_what_fits() {
        let mut app = app();
        let wide = screen(&mut app, 120, 24);
        assert!(wide[3].ends_with(" CLASS") && wide[4].ends_with(" c"), "{wide:#?}");
        let narrow = screen(&mut app, 50, 8);
        assert!(narrow[1].starts_with("NAME\u{25be}") && !narrow[1].contains("MEM"), "{narrow:#?}");
        assert!(narrow[3].starts_with("b ") && narrow[3].contains("busy"), "{narrow:#?}");
        // Too small for anything, and nothing breaks: not with a window either.
        for keys in ["", "?", "\u{1b}K", "\u{1b}p", "n\u{1b}/"] {
            press(&mut app, keys);
            for size in [(1, 1), (2, 3), (10, 2), (20, 5), (79, 11)] {
                screen(&mut app, size.0, size.1);
            }
        }
    }

    #[test]
    fn names_are_cut_and_never_command_the_terminal() {
        let mut app = app();
        let long = "ledger/a-very-long-name-for-a-tenant-indeed".to_string();
        app.answer(S, page(vec![row(1, &long), row(2, "\u{4e16}\u{754c}/\u{1b}[31m")]));
        let screen = screen(&mut app, 80, 24);
        assert!(screen[4].starts_with("ledger/a-very-long-name-f\u{2026}"), "{screen:#?}");
        assert!(!screen.join("").contains('\u{1b}') && screen[5].contains("[31m"), "{screen:#?}");
        assert_eq!(
            (fit("abc", 2), fit("abc", 5), fit("", 0), fit("abc", 0)),
            ("a\u{2026}".into(), "abc  ".into(), String::new(), String::new())
        );
        assert_eq!(fit("\u{4e16}\u{754c}\u{4e16}", 4), "\u{4e16}\u{2026} ");
    }

    #[test]
    fn windows_say_what_they_are_for() {
        let mut app = app();
        press(&mut app, "?");
        let help = text(&mut app);
        for word in [
            "filter",
            "sort",
            "kill",
            "pause",
            "resume",
            "dead letters",
            "q                 quit",
            "any key closes this",
        ] {
            assert!(help.contains(word), "{word}:\n{help}");
        }
        press(&mut app, "xjK");
        assert!(text(&mut app).contains("Kill b (%102): how?"), "{}", text(&mut app));
        press(&mut app, "n");
        let confirm = text(&mut app);
        assert!(
            confirm.contains("Kill at once b (%102)?") && confirm.contains("y: do it   n: do nothing"),
            "{confirm}"
        );
        press(&mut app, "y");
        assert!(text(&mut app).contains("kill at once b (%102): asked"));
        app.answer(S, Answer::Told(false, "kill b: refused: not_permitted: no".into()));
        assert!(text(&mut app).contains("kill b: refused: not_permitted: no"));
        press(&mut app, "/zz");
        assert!(text(&mut app).contains("filter: zz_"));
        app.answer(S, page(vec![]));
        assert!(text(&mut app).contains("No worker's name has `zz`: Esc shows all."));
    }

    #[test]
    fn what_is_missing_is_said() {
        let mut app = app();
        app.tick(8 * S);
        assert!(screen(&mut app, 80, 24)[0].starts_with("no answer since 7s"));
        app.answer(9 * S, Answer::Lost("no supervisor at /s: there is no socket".into()));
        assert!(screen(&mut app, 80, 24)[0].starts_with("no supervisor at /s: there is no socket"));
        app.rows.cut = true;
        assert!(text(&mut app).contains("3 are shown of 3 workers: filter by name (/)"));
    }

    #[test]
    fn the_log_is_seen_from_its_end_and_can_be_scrolled() {
        let mut app = app();
        code(&mut app, KeyCode::Enter);
        press(&mut app, "4");
        assert!(text(&mut app).contains("asking"));
        let line = |at: u64| LineReport {
            seq: at,
            at_ms: 1_795_738_527_123,
            worker: "a".into(),
            number: 101,
            generation: 2,
            class: "c".into(),
            stream: crate::journal::Stream::Stderr,
            cut: false,
            text: format!("line {at} \u{1b}[2J\u{202e}"),
        };
        app.answer(S, Answer::Details(101, Tab::Log, Box::new(Body::Lines((1..=50).map(line).collect()))));
        let end = screen(&mut app, 80, 24);
        assert_eq!(end[3], "a  idle  lines 34 to 50 of 50");
        assert_eq!(end[4].trim(), "1 overview  2 events  3 exits  4 log  5 dead letters");
        assert!(end[21].contains("%101.2 err| line 50 \\x1b[2J\\u{202e}"), "{end:#?}");
        press(&mut app, "kk");
        assert!(screen(&mut app, 80, 24)[21].contains("line 48 "));
        code(&mut app, KeyCode::Home);
        assert!(screen(&mut app, 80, 24)[5].contains("line 1 "));
        press(&mut app, "j");
        assert!(screen(&mut app, 80, 24)[5].contains("line 2 "), "not from beyond the beginning");
    }

    #[test]
    fn colours_go_under_no_color_and_what_they_say_stays() {
        for state in ["busy", "ending", "backoff", "absent", "idle"] {
            assert_eq!(Theme { colour: false }.state(state).fg, None);
        }
        assert_eq!(Theme { colour: true }.state("busy").fg, Some(Color::Green));
        assert_eq!(Theme { colour: false }.bad(), Style::new().add_modifier(Modifier::BOLD));
    }

    #[test]
    fn text_is_broken_between_words() {
        assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
        assert_eq!(wrapped("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(wrapped("", 3), [""]);
        assert_eq!(wrapped("a bcdefgh i", 3), ["a", "bcd", "efg", "h i"]);
    }

    #[test]
    fn figures_have_room() {
        for (number, text) in [(0, "0"), (999_999, "999,999"), (1_234_567, "1.2M"), (7_000_000_000, "7.0G")] {
            assert_eq!(short(number), text);
        }
        for (rate, text) in
            [(0.0, "0"), (0.44, "0.4"), (12.4, "12"), (9_999.4, "9999"), (12_300.0, "12k"), (2.5e6, "2.5M")]
        {
            assert_eq!(per_second(rate), text);
        }
    }
}
