//! The report: one row per bar, as one table or as JSON.

use serde::Serialize;

use super::super::output::{self, Table};
use super::stats::{Samples, Summary};

/// One bar and what was measured.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    /// Name for `--only`.
    pub(super) name: &'static str,
    /// What was measured.
    pub(super) what: String,
    /// The bar, in words.
    pub(super) bar: String,
    /// What came out, in words.
    pub(super) measured: String,
    /// Whether the bar is met; none where it was not measured.
    pub(super) met: Option<bool>,
    /// What others need for the same work in the same run, or why that is not known.
    pub(super) peers: Vec<String>,
    /// How it was measured, and what to know of it.
    pub(super) notes: Vec<String>,
    /// The numbers behind the words, by name with the unit last.
    pub(super) numbers: Vec<(String, Summary)>,
}

impl Row {
    pub(super) fn new(name: &'static str, what: impl Into<String>, bar: impl Into<String>) -> Self {
        Self {
            name,
            what: what.into(),
            bar: bar.into(),
            measured: String::new(),
            met: None,
            peers: Vec::new(),
            notes: Vec::new(),
            numbers: Vec::new(),
        }
    }

    pub(super) fn not_measured(mut self, why: &str) -> Self {
        self.measured = format!("not measured: {why}");
        self.met = None;
        self
    }

    pub(super) fn measured(mut self, met: bool, words: impl Into<String>) -> Self {
        self.measured = words.into();
        self.met = Some(met);
        self
    }

    /// What came out where there is no bar.
    pub(super) fn told(mut self, words: impl Into<String>) -> Self {
        self.measured = words.into();
        self
    }

    pub(super) fn peer(mut self, words: impl Into<String>) -> Self {
        self.peers.push(words.into());
        self
    }

    pub(super) fn note(mut self, words: impl Into<String>) -> Self {
        self.notes.push(words.into());
        self
    }

    pub(super) fn numbers(mut self, name: &str, samples: &Samples) -> Self {
        self.numbers.push((name.to_owned(), samples.summary()));
        self
    }

    fn verdict(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "not met",
            None => "-",
        }
    }
}

/// Everything that a run found out.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    /// The program measured.
    pub(super) binary: String,
    pub(super) cores: usize,
    /// Load of the last minute before the first row, and after the last.
    pub(super) load_before: Option<f64>,
    pub(super) load_after: Option<f64>,
    pub(super) rows: Vec<Row>,
}

impl Report {
    pub(super) fn print(&self) {
        let mut table = Table::new(&["NAME", "WHAT", "BAR", "MEASURED", "VERDICT", "BESIDE IT"]);
        for row in &self.rows {
            let beside = row.peers.join("; ");
            table.row(&[row.name, &row.what, &row.bar, &row.measured, row.verdict(), &beside]);
        }
        table.print();
        for row in &self.rows {
            for note in &row.notes {
                output::say(&format!("{}: {note}", row.name));
            }
        }
        let load = |load: Option<f64>| load.map_or_else(|| "unknown".to_owned(), |load| format!("{load:.2}"));
        let (before, after) = (load(self.load_before), load(self.load_after));
        output::say(&format!(
            "v6 {} ({}), {} cores, load of a minute before {before}, after {after}",
            self.version, self.binary, self.cores
        ));
    }
}
