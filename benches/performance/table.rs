//! The rows of the table, as aligned text and as Markdown.

use std::fmt::Write as _;

/// A number with its unit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

impl Figure {
    pub(crate) fn new(value: f64, unit: &'static str) -> Self {
        Figure { value, unit }
    }
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let places = match self.value.abs() {
            x if x >= 100.0 => 0,
            x if x >= 10.0 => 1,
            x if x >= 1.0 => 2,
            _ => 3,
        };
        write!(f, "{:.places$} {}", self.value, self.unit)
    }
}

/// What a figure is held against, in the same unit.
#[derive(Clone, Debug)]
pub(crate) enum Yardstick {
    /// Nothing: the row is a yardstick for others.
    None,
    /// Something else that was measured in the same run.
    Measured(f64, String),
    /// A figure that was asked for.
    Asked(f64),
    /// What is not there, and how to get it.
    Missing(&'static str),
}

/// What the ratio of a figure to its yardstick has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// Anything.
    None,
    AtLeast(f64),
    /// 1, but for this much.
    Within(f64),
}

impl Limit {
    fn text(self) -> String {
        match self {
            Limit::None => String::new(),
            Limit::AtLeast(least) => format!(">= {least:.2}"),
            Limit::Within(share) => format!("1 ± {share:.2}"),
        }
    }

    fn verdict(self, ratio: Option<f64>) -> &'static str {
        let met = match (self, ratio) {
            (Limit::None, _) => return "",
            (_, None) => return "not measured",
            (Limit::AtLeast(least), Some(ratio)) => ratio >= least,
            (Limit::Within(share), Some(ratio)) => (ratio - 1.0).abs() <= share,
        };
        if met { "met" } else { "not met" }
    }
}

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) stage: String,
    pub(crate) ours: Figure,
    pub(crate) yardstick: Yardstick,
    pub(crate) limit: Limit,
    /// How it was measured.
    pub(crate) protocol: String,
}

const HEADINGS: [&str; 7] = ["stage", "ours", "yardstick", "ratio", "wanted", "", "how"];

impl Row {
    fn ratio(&self) -> Option<f64> {
        match self.yardstick {
            Yardstick::Measured(value, _) | Yardstick::Asked(value) if value > 0.0 => {
                Some(self.ours.value / value)
            }
            _ => None,
        }
    }

    fn cells(&self, how: usize) -> [String; 7] {
        let unit = self.ours.unit;
        let yardstick = match &self.yardstick {
            Yardstick::None => String::new(),
            Yardstick::Measured(value, name) => format!("{} {name}", Figure::new(*value, unit)),
            Yardstick::Asked(value) => format!("{} asked for", Figure::new(*value, unit)),
            Yardstick::Missing(_) => "missing".to_owned(),
        };
        let ratio = self.ratio();
        [
            self.stage.clone(),
            self.ours.to_string(),
            yardstick,
            ratio.map_or_else(String::new, |r| format!("{r:.3}")),
            self.limit.text(),
            self.limit.verdict(ratio).to_owned(),
            how.to_string(),
        ]
    }
}

/// All rows, in order.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What is missing, each once.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let all = self.rows.iter().filter_map(|row| match row.yardstick {
            Yardstick::Missing(advice) => Some(advice),
            _ => None,
        });
        unique(all)
    }

    fn protocols(&self) -> Vec<&str> {
        unique(self.rows.iter().map(|row| row.protocol.as_str()))
    }

    fn cells(&self) -> Vec<[String; 7]> {
        let protocols = self.protocols();
        let how = |row: &Row| protocols.iter().position(|p| *p == row.protocol).map_or(0, |at| at + 1);
        self.rows.iter().map(|row| row.cells(how(row))).collect()
    }

    /// Columns aligned with blanks.
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![HEADINGS.map(str::to_owned)];
        lines.extend(self.cells());
        let width = |i: usize| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
        let mut out = String::new();
        for line in &lines {
            let cells: Vec<String> =
                line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
            let _ = writeln!(out, "{}", cells.join("  ").trim_end());
        }
        out
    }

    /// A table and, numbered, how its rows were measured.
    pub(crate) fn markdown(&self) -> String {
        let mut out = format!("| {} |\n|{}\n", HEADINGS.join(" | "), "---|".repeat(HEADINGS.len()));
        for cells in self.cells() {
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
        out.push_str("\n## How the rows are measured\n\n");
        for (i, protocol) in self.protocols().iter().enumerate() {
            let _ = writeln!(out, "{}. {protocol}", i + 1);
        }
        out
    }
}

/// The different ones, in order of their first appearance.
fn unique<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    all.fold(Vec::new(), |mut seen, one| {
        if !seen.contains(&one) {
            seen.push(one);
        }
        seen
    })
}
