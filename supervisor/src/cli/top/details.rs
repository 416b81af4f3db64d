//! Draws all about one worker.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Stylize as _;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::app::App;
use super::model::{Body, Tab};
use super::view::{Theme, fit, width, wrapped};
use crate::cli::Failure;
use crate::cli::dead::reason;
use crate::cli::output::{age, count, ran, safe};
use crate::cli::read::{happened, time};
use crate::cli::show::{exit_line, info_lines};
use crate::journal::{EventReport, LineReport, Stream, harmless};
use crate::report::{DeadReport, WorkerInfo};

/// The keys of `info` stand in so many columns.
const KEYS: usize = 14;

/// The name and the tabs, a line with them, and what is open.
pub fn draw(frame: &mut Frame<'_>, app: &mut App, theme: Theme, area: Rect) {
    let Some(details) = &app.details else { return };
    let columns = area.width as usize;
    let (text, tab) = (text(details.body.as_ref(), details.tab, columns), details.tab);
    let room = area.height.saturating_sub(2) as usize;
    let most = text.len().saturating_sub(room);
    let scrolled = details.scrolled.min(most);
    let from = if tab.grows() { most - scrolled } else { scrolled };
    let mut tabs = vec![];
    for (at, one) in Tab::ALL.iter().enumerate() {
        let title = format!(" {} {} ", at + 1, one.title());
        tabs.push(if *one == tab { Span::from(title).reversed() } else { Span::from(title) });
    }
    let position = match most {
        0 => String::new(),
        _ => format!("  lines {} to {} of {}", from + 1, (from + room).min(text.len()), count(text.len() as u64)),
    };
    let state = match &details.body {
        Some(Body::Info(info)) => info.row.state.clone(),
        _ => app.rows.numbered(details.number).map(|row| row.row.state.clone()).unwrap_or_default(),
    };
    let name = fit(
        &safe(&details.name),
        columns.saturating_sub(width(&position) + state.len() + 2).min(width(&safe(&details.name))),
    );
    let title = Line::from(vec![
        Span::from(name).bold(),
        Span::from("  "),
        Span::styled(state.clone(), theme.state(&state)),
        Span::from(position).dim(),
    ]);
    let lines = [title, Line::from(tabs)].into_iter().chain(text.into_iter().skip(from).take(room).map(Line::from));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), area);
    app.limit_scroll(most);
}

fn text(body: Option<&Body>, tab: Tab, columns: usize) -> Vec<String> {
    let lines = match body {
        None => return vec!["asking\u{2026}".to_string()],
        Some(Body::Gone) => vec!["There is no worker of this name any more; a call would create it.".to_string()],
        Some(Body::Refused(why)) => vec![safe(why)],
        Some(Body::Info(info)) if tab == Tab::Exits => exits(info),
        Some(Body::Info(info)) => return overview(info, columns),
        Some(Body::Events(events)) => said(events.iter().map(event).collect(), "Nothing has happened that is kept."),
        Some(Body::Lines(lines)) => said(lines.iter().map(line).collect(), "It has written nothing that is kept."),
        Some(Body::Dead(report)) => said(letters(report), "It has no dead letters."),
    };
    lines.iter().flat_map(|line| wrapped(line, columns)).collect()
}

fn said(lines: Vec<String>, nothing: &str) -> Vec<String> {
    if lines.is_empty() { vec![nothing.to_string()] } else { lines }
}

fn overview(info: &WorkerInfo, columns: usize) -> Vec<String> {
    // Its exits have a place of their own.
    let exits: Vec<String> = info.exits.iter().map(exit_line).collect();
    let lines = info_lines(info).into_iter().filter(|(key, value)| *key != "last exits" && !exits.contains(value));
    let hanging = |(key, value): (&str, String)| {
        let parts = wrapped(&value, columns.saturating_sub(KEYS).max(20));
        let first = |at| if at == 0 { key } else { "" };
        parts.iter().enumerate().map(|(at, part)| format!("{:<KEYS$}{part}", first(at))).collect::<Vec<_>>()
    };
    lines.flat_map(hanging).collect()
}

fn exits(info: &WorkerInfo) -> Vec<String> {
    said(info.exits.iter().map(exit_line).collect(), "None of its processes has ended.")
}

/// The time of the day (UTC), without the date.
fn clock(at_ms: u64) -> String {
    let time = time(at_ms);
    time.split_once('T').map_or(time.clone(), |(_, clock)| clock.trim_end_matches('Z').to_string())
}

fn event(event: &EventReport) -> String {
    let text = happened(event).unwrap_or_else(|Failure { message, .. }| message);
    format!("{} %{}.{} {}", clock(event.at_ms), event.number, event.generation, safe(&text))
}

fn line(line: &LineReport) -> String {
    let stream = if line.stream == Stream::Stdout { "out" } else { "err" };
    let more = if line.cut { "\u{2026}" } else { "" };
    let text = harmless(&line.text).replace('\t', "    ");
    format!("{} %{}.{} {stream}| {text}{more}", clock(line.at_ms), line.number, line.generation)
}

fn letters(report: &DeadReport) -> Vec<String> {
    let unseen = report.matching.saturating_sub(report.letters.len() as u64);
    let before = (unseen > 0).then(|| format!("{} that died before these are not shown", count(unseen)));
    let letter = |letter: &crate::report::DeadRow| {
        format!(
            "{} {}, %{}.{}, died {} ago: {}; {}",
            letter.message,
            safe(&letter.method),
            letter.number,
            letter.generation,
            age(letter.died_ago_ms),
            reason(letter.reason, letter.exit),
            ran(letter.may_have_run)
        )
    };
    before.into_iter().chain(report.letters.iter().map(letter)).collect()
}
