//! The workers as they were read, page by page: which of them are shown, in what order, and how fast they are.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use globset::{GlobBuilder, GlobMatcher};

use super::model::{Used, UsedTree};
use crate::report::WorkerRow;

/// So many workers are kept; of more, a filter says which.
pub const KEPT_MAX: usize = 20_000;
/// A rate over a shorter time says nothing.
const RATE_OVER: Duration = Duration::from_millis(300);

/// Which workers are shown, by name.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// As it was written; empty for all.
    pub text: String,
    glob: Option<GlobMatcher>,
}

impl Filter {
    /// A part of the name, or with a `*` a pattern for all of it, as `kill` has them.
    pub fn new(text: &str) -> Filter {
        let glob = text.contains('*').then(|| GlobBuilder::new(text).literal_separator(true).build());
        Filter { text: text.to_string(), glob: glob.and_then(Result::ok).map(|glob| glob.compile_matcher()) }
    }

    pub fn admits(&self, name: &str) -> bool {
        self.glob.as_ref().map_or_else(|| name.contains(&self.text), |glob| glob.is_match(name))
    }
}

/// By what the workers stand in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    #[default]
    Name,
    State,
    Depth,
    Age,
    Rate,
    Crashes,
    Cpu,
    Memory,
}

impl Sort {
    const ALL: [Sort; 8] =
        [Sort::Name, Sort::State, Sort::Depth, Sort::Age, Sort::Rate, Sort::Crashes, Sort::Cpu, Sort::Memory];

    /// The next one, or with -1 the one before.
    pub fn step(self, by: isize) -> Sort {
        let at = Sort::ALL.iter().position(|sort| *sort == self).unwrap_or(0) as isize;
        Sort::ALL[(at + by).rem_euclid(Sort::ALL.len() as isize) as usize]
    }

    /// What comes first is what one looks for: the first name, the worst state, the most of all else.
    fn compare(self, a: &Row, b: &Row) -> Ordering {
        let most = |a: Option<f64>, b: Option<f64>| b.unwrap_or(-1.0).total_cmp(&a.unwrap_or(-1.0));
        match self {
            Sort::Name => Ordering::Equal,
            Sort::State => severity(&a.row.state).cmp(&severity(&b.row.state)),
            Sort::Depth => b.row.pending.cmp(&a.row.pending),
            Sort::Age => age(b).cmp(&age(a)),
            Sort::Rate => most(a.rate, b.rate),
            Sort::Crashes => b.row.crashes.cmp(&a.row.crashes),
            Sort::Cpu => most(a.cpu, b.cpu),
            Sort::Memory => b.used.map(|used| used.memory).cmp(&a.used.map(|used| used.memory)),
        }
    }
}

fn severity(state: &str) -> usize {
    ["backoff", "paused", "ending", "starting", "busy", "idle"].iter().position(|word| *word == state).unwrap_or(9)
}

fn age(row: &Row) -> Option<u64> {
    row.row.running.as_ref().map(|task| task.age_ms)
}

/// A worker.
#[derive(Clone, Debug)]
pub struct Row {
    pub row: WorkerRow,
    /// Tasks per second.
    pub rate: Option<f64>,
    /// Share of a processor, 1 is all of one.
    pub cpu: Option<f64>,
    /// Memory and processor time, as far as they were asked for.
    pub used: Option<UsedTree>,
    /// When that was.
    pub used_at: Option<Duration>,
    executed: (u64, Duration),
    spent: Option<(u64, Duration)>,
}

impl Row {
    fn new(row: WorkerRow, at: Duration) -> Row {
        let executed = (row.executed, at);
        Row { row, rate: None, cpu: None, used: None, used_at: None, executed, spent: None }
    }

    fn update(&mut self, row: WorkerRow, at: Duration) {
        if row.number != self.row.number {
            *self = Row::new(row, at);
            return;
        }
        if let Some(rate) = rate(self.executed, (row.executed, at)) {
            (self.rate, self.executed) = (Some(rate), (row.executed, at));
        }
        if row.generation != self.row.generation || row.pid.is_none() {
            (self.cpu, self.used, self.spent) = (None, None, None);
        }
        self.row = row;
    }

    fn use_(&mut self, tree: Option<UsedTree>, at: Duration) {
        (self.used, self.used_at) = (tree, Some(at));
        let Some(tree) = tree else {
            (self.cpu, self.spent) = (None, None);
            return;
        };
        match self.spent {
            // Who has ended took its time with it, where it is summed over those that live.
            Some((before, _)) if before > tree.cpu_ms => self.spent = Some((tree.cpu_ms, at)),
            Some(before) => {
                if let Some(spent) = rate(before, (tree.cpu_ms, at)) {
                    (self.cpu, self.spent) = (Some(spent / 1000.0), Some((tree.cpu_ms, at)));
                }
            }
            None => self.spent = Some((tree.cpu_ms, at)),
        }
    }
}

/// Per second; none over so short a time that it would say nothing.
pub fn rate(before: (u64, Duration), now: (u64, Duration)) -> Option<f64> {
    let over = now.1.checked_sub(before.1).filter(|over| *over >= RATE_OVER)?;
    Some(now.0.saturating_sub(before.0) as f64 / over.as_secs_f64())
}

/// Those that were read and are shown.
#[derive(Debug, Default)]
pub struct Rows {
    by_place: BTreeMap<u64, Row>,
    /// There are more than are kept.
    pub cut: bool,
    /// All that there are were read once.
    pub swept: bool,
}

impl Rows {
    /// What stands between a place and the end of a page is what the page says, and nothing else.
    pub fn page(&mut self, after: Option<u64>, last: bool, rows: Vec<WorkerRow>, at: Duration, filter: &Filter) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let end = if last { Bound::Unbounded } else { rows.last().map_or(from, |row| Bound::Included(row.at)) };
        let there: BTreeSet<u64> = rows.iter().map(|row| row.at).collect();
        let old: Vec<u64> = match (from, end) {
            (Bound::Excluded(from), Bound::Excluded(end)) if from >= end => Vec::new(),
            range => {
                self.by_place.range(range).map(|(place, _)| *place).filter(|place| !there.contains(place)).collect()
            }
        };
        old.iter().for_each(|place| drop(self.by_place.remove(place)));
        for row in rows {
            self.put(row, at, filter);
        }
        if last {
            self.swept = true;
            self.cut &= self.by_place.len() >= KEPT_MAX;
        }
    }

    fn put(&mut self, row: WorkerRow, at: Duration, filter: &Filter) {
        if !filter.admits(&row.name) {
            self.by_place.remove(&row.at);
            return;
        }
        let full = self.by_place.len() >= KEPT_MAX;
        match self.by_place.get_mut(&row.at) {
            Some(known) => known.update(row, at),
            None if full => self.cut = true,
            None => drop(self.by_place.insert(row.at, Row::new(row, at))),
        }
    }

    /// A worker was looked at closer.
    pub fn used(&mut self, used: Used, at: Duration, filter: &Filter) {
        let (place, number) = (used.row.at, used.row.number);
        self.put(used.row, at, filter);
        if let Some(row) = self.by_place.get_mut(&place).filter(|row| row.row.number == number) {
            row.use_(used.tree, at);
        }
    }

    /// There is no worker with this number.
    pub fn gone(&mut self, number: u64) {
        self.by_place.retain(|_, row| row.row.number != number);
    }

    /// Another filter: the workers have to be read again to be complete.
    pub fn refilter(&mut self, filter: &Filter) {
        self.by_place.retain(|_, row| filter.admits(&row.row.name));
        (self.cut, self.swept) = (false, false);
    }

    pub fn len(&self) -> usize {
        self.by_place.len()
    }

    pub fn at(&self, place: u64) -> Option<&Row> {
        self.by_place.get(&place)
    }

    pub fn numbered(&self, number: u64) -> Option<&Row> {
        self.by_place.values().find(|row| row.row.number == number)
    }

    /// Their places, in the order of the screen.
    pub fn order(&self, sort: Sort, reverse: bool) -> Vec<u64> {
        let mut rows: Vec<&Row> = self.by_place.values().collect();
        rows.sort_by(|a, b| {
            let by = sort.compare(a, b).then_with(|| (&a.row.name, a.row.number).cmp(&(&b.row.name, b.row.number)));
            if reverse { by.reverse() } else { by }
        });
        rows.into_iter().map(|row| row.row.at).collect()
    }

    /// Numbers of those whose processes were looked at longest ago, or never.
    pub fn unused(&self, many: usize) -> Vec<u64> {
        let mut rows: Vec<&Row> = self.by_place.values().filter(|row| row.row.pid.is_some()).collect();
        rows.sort_by_key(|row| (row.used_at, row.row.at));
        rows.into_iter().take(many).map(|row| row.row.number).collect()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn row(at: u64, name: &str) -> WorkerRow {
        WorkerRow {
            kind: "worker".into(),
            type_number: 5,
            state_number: 2,
            created_ms: 0,
            name: name.into(),
            number: at + 100,
            at,
            class: "c".into(),
            state: "idle".into(),
            paused_ms: None,
            pid: Some(1),
            generation: 1,
            pending: 0,
            running: None,
            executed: 0,
            crashes: 0,
            age_ms: 0,
            closed: false,
        }
    }

    fn names(rows: &Rows, sort: Sort) -> Vec<String> {
        rows.order(sort, false).into_iter().map(|place| rows.at(place).unwrap().row.name.clone()).collect()
    }

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_page_says_all_of_its_places_and_nothing_of_others() {
        let (mut rows, all) = (Rows::default(), Filter::default());
        rows.page(None, false, vec![row(1, "a"), row(3, "b")], S, &all);
        assert!(!rows.swept);
        rows.page(Some(3), true, vec![row(5, "c"), row(7, "d")], S, &all);
        assert!(rows.swept);
        assert_eq!(names(&rows, Sort::Name), ["a", "b", "c", "d"]);
        // The one at place 1 has gone, and one has come between; the others are on other pages.
        rows.page(None, false, vec![row(2, "x"), row(3, "b")], 2 * S, &all);
        assert_eq!(names(&rows, Sort::Name), ["b", "c", "d", "x"]);
        // The last page is as long as it is, also empty.
        rows.page(Some(5), true, Vec::new(), 2 * S, &all);
        assert_eq!(names(&rows, Sort::Name), ["b", "c", "x"]);
        rows.gone(103);
        rows.page(None, true, Vec::new(), 3 * S, &all);
        assert_eq!(rows.len(), 0);
    }

    #[test]
    fn rates_are_of_one_worker_and_of_one_process() {
        let (mut rows, all) = (Rows::default(), Filter::default());
        let executed = |executed| WorkerRow { executed, ..row(1, "a") };
        rows.page(None, true, vec![executed(10)], S, &all);
        assert_eq!(rows.at(1).unwrap().rate, None);
        rows.page(None, true, vec![executed(10)], S + S / 10, &all);
        assert_eq!(rows.at(1).unwrap().rate, None, "too short a time");
        rows.page(None, true, vec![executed(30)], 3 * S, &all);
        assert_eq!(rows.at(1).unwrap().rate, Some(10.0));
        let used = |generation, cpu_ms| Used {
            row: WorkerRow { generation, ..executed(30) },
            tree: Some(UsedTree { memory: 4096, cpu_ms }),
        };
        rows.used(used(1, 1000), 3 * S, &all);
        rows.used(used(1, 2500), 4 * S, &all);
        assert_eq!(rows.at(1).unwrap().cpu, Some(1.5));
        rows.used(used(1, 2000), 5 * S, &all);
        rows.used(used(1, 2100), 6 * S, &all);
        assert_eq!(rows.at(1).unwrap().cpu, Some(0.1));
        rows.used(used(2, 50), 7 * S, &all);
        assert_eq!(rows.at(1).unwrap().cpu, None, "another process");
        // Another worker in its place.
        rows.page(None, true, vec![WorkerRow { number: 9, executed: 5000, ..row(1, "b") }], 8 * S, &all);
        assert_eq!((rows.at(1).unwrap().rate, rows.at(1).unwrap().used.is_none()), (None, true));
    }

    #[test]
    fn a_filter_is_a_part_of_the_name_or_a_pattern() {
        for (filter, admitted) in [
            ("", vec!["led/eu", "led/us", "thumb-1"]),
            ("u", vec!["led/eu", "led/us", "thumb-1"]),
            ("/u", vec!["led/us"]),
            ("led/*", vec!["led/eu", "led/us"]),
            ("*", vec!["thumb-1"]),
            ("**", vec!["led/eu", "led/us", "thumb-1"]),
            ("[*", vec![]),
        ] {
            let filter = Filter::new(filter);
            let mut rows = Rows::default();
            let page = ["led/eu", "led/us", "thumb-1"].iter().zip(1..).map(|(name, at)| row(at, name)).collect();
            rows.page(None, true, page, S, &filter);
            assert_eq!(names(&rows, Sort::Name), admitted, "{filter:?}");
        }
    }

    #[test]
    fn of_too_many_some_are_kept_and_a_filter_makes_room() {
        let (mut rows, all) = (Rows::default(), Filter::default());
        let many = KEPT_MAX as u64 + 10;
        rows.page(None, true, (1..=many).map(|at| row(at, &format!("w{at}"))).collect(), S, &all);
        assert!(rows.cut && rows.len() == KEPT_MAX);
        let last = Filter::new(&format!("w{many}"));
        rows.refilter(&last);
        assert!(!rows.cut && !rows.swept && rows.len() == 0);
        rows.page(None, true, (1..=many).map(|at| row(at, &format!("w{at}"))).collect(), S, &last);
        assert!(!rows.cut && rows.len() == 1);
    }

    #[test]
    fn each_order_has_first_what_one_looks_for() {
        let (mut rows, all) = (Rows::default(), Filter::default());
        let a = WorkerRow { state: "busy".into(), pending: 5, ..row(1, "a") };
        let task = crate::report::RunningRow { message: 1, method: "m".into(), age_ms: 7 };
        let b = WorkerRow { state: "backoff".into(), crashes: 2, ..row(2, "b") };
        let c = WorkerRow { running: Some(task), executed: 0, ..row(3, "c") };
        rows.page(None, true, vec![c.clone(), b.clone(), a.clone()], S, &all);
        rows.page(None, true, vec![WorkerRow { executed: 9, ..c }, b.clone(), a.clone()], 2 * S, &all);
        rows.used(Used { row: b, tree: Some(UsedTree { memory: 10, cpu_ms: 0 }) }, 2 * S, &all);
        let b_first = ["b", "a", "c"];
        for (sort, order) in [
            (Sort::Name, ["a", "b", "c"]),
            (Sort::State, b_first),
            (Sort::Depth, ["a", "b", "c"]),
            (Sort::Age, ["c", "a", "b"]),
            (Sort::Rate, ["c", "a", "b"]),
            (Sort::Crashes, b_first),
            (Sort::Memory, b_first),
        ] {
            assert_eq!(names(&rows, sort), order, "{sort:?}");
        }
        assert_eq!(rows.order(Sort::Name, true), [3, 2, 1]);
        assert_eq!(rows.unused(2), [101, 103], "the one that was looked at is the last");
        assert_eq!(Sort::Name.step(-1), Sort::Memory);
        assert_eq!(Sort::Memory.step(1), Sort::Name);
    }
}
