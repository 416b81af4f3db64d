//! Figures: what was measured, its spread, what it is compared with, and whether that is what is wanted.

use comfy_table::{Cell, CellAlignment, Color};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::super::output::{count, table};

/// What the numbers of a row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Messages per second.
    PerSecond,
    /// Microseconds.
    Micros,
    /// Milliseconds.
    Millis,
    /// Bytes.
    Bytes,
    /// Times in the period that the row names.
    Times,
}

impl Unit {
    fn key(self) -> &'static str {
        match self {
            Unit::PerSecond => "per_second",
            Unit::Micros => "us",
            Unit::Millis => "ms",
            Unit::Bytes => "bytes",
            Unit::Times => "times",
        }
    }

    fn shown(self, value: f64) -> String {
        let number = match value {
            _ if value >= 1000.0 || value.fract() == 0.0 => count(value.round() as u64),
            _ if value >= 100.0 => format!("{value:.0}"),
            _ if value >= 10.0 => format!("{value:.1}"),
            _ => format!("{value:.2}"),
        };
        match self {
            Unit::PerSecond => format!("{number}/s"),
            Unit::Micros => format!("{number} µs"),
            Unit::Millis => format!("{number} ms"),
            Unit::Bytes => format!("{number} B"),
            Unit::Times => number,
        }
    }
}

/// What a row is to reach.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// The ratio to the floor: this much or more.
    RatioAtLeast(f64),
    /// The ratio to the floor: this much or less.
    RatioAtMost(f64),
    /// The figure itself: this much or less.
    AtMost(f64),
}

/// One value per round.
pub type Rounds = Vec<f64>;

/// A row of the result.
#[derive(Debug)]
pub struct Row {
    /// The work, as it is named on the command line.
    pub work: &'static str,
    /// Which of its cases.
    pub case: String,
    /// What the numbers are.
    pub unit: Unit,
    /// Ours, one number per round.
    pub subject: Rounds,
    /// What it is compared with, one number per round, each measured beside its own.
    pub floor: Option<(&'static str, Rounds)>,
    /// What is wanted.
    pub goal: Option<Goal>,
    /// Of all single measurements, in nanoseconds.
    pub histogram: Option<Histogram<u64>>,
}

impl Row {
    /// A row without a floor and a goal.
    pub fn new(work: &'static str, case: impl Into<String>, unit: Unit, subject: Rounds) -> Row {
        Row { work, case: case.into(), unit, subject, floor: None, goal: None, histogram: None }
    }

    /// With what it is compared with.
    pub fn beside(mut self, what: &'static str, floor: Rounds) -> Row {
        self.floor = Some((what, floor));
        self
    }

    /// With what is wanted.
    pub fn wanted(mut self, goal: impl Into<Option<Goal>>) -> Row {
        self.goal = goal.into();
        self
    }

    /// With all single measurements.
    pub fn spread(mut self, histogram: Histogram<u64>) -> Row {
        self.histogram = Some(histogram);
        self
    }

    /// The median of the ratios of the rounds: what moves both in a round leaves it alone.
    pub fn ratio(&self) -> Option<f64> {
        let (_, floor) = self.floor.as_ref()?;
        let ratios: Rounds = self.subject.iter().zip(floor).map(|(ours, floor)| ours / floor).collect();
        Some(median(&ratios)).filter(|ratio| ratio.is_finite())
    }

    /// Whether it is as wanted; none where nothing is.
    pub fn met(&self) -> Option<bool> {
        match self.goal? {
            Goal::RatioAtLeast(least) => self.ratio().map(|ratio| ratio >= least),
            Goal::RatioAtMost(most) => self.ratio().map(|ratio| ratio <= most),
            Goal::AtMost(most) => Some(median(&self.subject) <= most),
        }
    }

    fn json(&self) -> Value {
        let spread = |rounds: &Rounds| {
            let (lowest, highest) = ends(rounds);
            json!({ "median": median(rounds), "lowest": lowest, "highest": highest, "rounds": rounds })
        };
        let mut subject = spread(&self.subject);
        if let Some(histogram) = &self.histogram {
            let micros = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1000.0;
            subject["percentiles_us"] =
                json!({ "p50": micros(0.5), "p90": micros(0.9), "p99": micros(0.99), "p99_9": micros(0.999) });
            subject["measurements"] = json!(histogram.len());
        }
        let floor = self.floor.as_ref().map(|(what, rounds)| {
            let mut floor = spread(rounds);
            floor["what"] = json!(what);
            floor
        });
        let goal = self.goal.map(|goal| match goal {
            Goal::RatioAtLeast(least) => json!({ "ratio_at_least": least }),
            Goal::RatioAtMost(most) => json!({ "ratio_at_most": most }),
            Goal::AtMost(most) => json!({ "at_most": most }),
        });
        json!({
            "work": self.work,
            "case": self.case,
            "unit": self.unit.key(),
            "subject": subject,
            "floor": floor,
            "ratio": self.ratio(),
            "goal": goal,
            "met": self.met(),
        })
    }

    fn cells(&self) -> Vec<Cell> {
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let (lowest, highest) = ends(&self.subject);
        let (what, floor) = match &self.floor {
            Some((what, rounds)) => (*what, self.unit.shown(median(rounds))),
            None => ("", String::new()),
        };
        let goal = match self.goal {
            Some(Goal::RatioAtLeast(least)) => format!("≥ {least}"),
            Some(Goal::RatioAtMost(most)) => format!("≤ {most}"),
            Some(Goal::AtMost(most)) => format!("≤ {}", self.unit.shown(most)),
            None => String::new(),
        };
        let met = match self.met() {
            Some(true) => Cell::new("met").fg(Color::Green),
            Some(false) => Cell::new("not met").fg(Color::Red),
            None => Cell::new(""),
        };
        vec![
            Cell::new(self.work),
            Cell::new(&self.case),
            right(self.unit.shown(median(&self.subject))),
            right(self.unit.shown(lowest)),
            right(self.unit.shown(highest)),
            right(floor),
            right(self.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default()),
            Cell::new(goal),
            met,
            Cell::new(what),
        ]
    }
}

/// All rows for people.
pub fn rows_table(rows: &[Row]) -> comfy_table::Table {
    let mut table =
        table(&["WORK", "CASE", "MEDIAN", "LOWEST", "HIGHEST", "FLOOR", "RATIO", "GOAL", "", "THE FLOOR IS"]);
    for row in rows {
        table.add_row(row.cells());
    }
    table
}

/// All rows for programs.
pub fn rows_json(rows: &[Row]) -> Value {
    rows.iter().map(Row::json).collect()
}

/// The middle one, or the mean of the two; NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length.is_multiple_of(2) => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}

fn ends(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_that_of_rounds_side_by_side() {
        let row = Row::new("execute", "x", Unit::PerSecond, vec![50.0, 10.0, 70.0])
            .beside("floor", vec![100.0, 20.0, 100.0])
            .wanted(Goal::RatioAtLeast(0.5));
        assert_eq!((row.ratio(), row.met()), (Some(0.5), Some(true)));
        let json = row.json();
        assert_eq!(json["subject"]["median"], 50.0);
        assert_eq!((&json["subject"]["lowest"], &json["subject"]["highest"]), (&json!(10.0), &json!(70.0)));
        assert_eq!((&json["floor"]["what"], &json["goal"]), (&json!("floor"), &json!({ "ratio_at_least": 0.5 })));
    }

    #[test]
    fn what_has_no_goal_is_neither_met_nor_not() {
        let row = |goal| Row::new("memory", "x", Unit::Bytes, vec![200.0, 202.0]).wanted(goal);
        assert_eq!(row(None).met(), None);
        assert_eq!(row(Some(Goal::AtMost(201.0))).met(), Some(true));
        assert_eq!(row(Some(Goal::AtMost(200.0))).met(), Some(false));
        assert_eq!(row(Some(Goal::RatioAtMost(200.0))).met(), None, "there is no floor");
    }
}
