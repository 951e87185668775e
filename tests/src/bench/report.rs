//! Figures, as a table for people and as JSON for programs.

use serde::Serialize;

/// One figure of the product, beside the bare loop's.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// The scenario that it belongs to.
    pub scenario: &'static str,
    /// How many records it was measured with.
    pub records: usize,
    /// What was measured.
    pub what: String,
    /// In which unit.
    pub unit: &'static str,
    /// The product's; the median when it was measured several times.
    pub product: f64,
    /// The bare loop's, in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bare: Option<f64>,
    /// How many times worse than the bare loop the product is; the median of pairs measured one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// What was aimed at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whether it was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
}

impl Figure {
    /// A figure of the product alone.
    pub fn new(
        scenario: &'static str,
        records: usize,
        what: impl Into<String>,
        unit: &'static str,
        product: f64,
    ) -> Self {
        let what = what.into();
        Self { scenario, records, what, unit, product, bare: None, ratio: None, target: None, met: None }
    }

    /// The bare loop's figure, where less is better.
    pub fn beside(mut self, bare: f64) -> Self {
        (self.bare, self.ratio) = (Some(bare), Some(self.product / bare));
        self
    }

    /// The bare loop's figure, where more is better.
    pub fn against(mut self, bare: f64) -> Self {
        (self.bare, self.ratio) = (Some(bare), Some(bare / self.product));
        self
    }

    /// The product's figure is to be at most this.
    pub fn at_most(mut self, limit: f64) -> Self {
        (self.target, self.met) = (Some(format!("<= {limit}")), Some(self.product <= limit));
        self
    }

    /// The product's figure is to be at least this.
    pub fn at_least(mut self, limit: f64) -> Self {
        (self.target, self.met) = (Some(format!(">= {limit}")), Some(self.product >= limit));
        self
    }

    /// The ratio to the bare loop is to be at most this.
    pub fn within(mut self, times: f64) -> Self {
        self.target = Some(format!("<= {times} x bare"));
        self.met = self.ratio.map(|ratio| ratio <= times);
        self
    }
}

/// The middle one; of an even number the lower of the two.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    percentile(values, 0.5)
}

/// The value that so large a part of all does not exceed.
pub fn percentile(values: impl IntoIterator<Item = f64>, part: f64) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// The table's head.
pub fn print_head() {
    println!(
        "{:<10} {:>8}  {:<44} {:>11} {:>11} {:>7}  target",
        "scenario", "records", "figure", "tuyen", "bare loop", "ratio"
    );
}

/// A line of the table.
pub fn print_line(figure: &Figure) {
    let what = format!("{}, {}", figure.what, figure.unit);
    let bare = figure.bare.map(number).unwrap_or_default();
    let ratio = figure.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
    let target = match (&figure.target, figure.met) {
        (Some(target), Some(met)) => format!("{target} {}", if met { "ok" } else { "MISSED" }),
        _ => String::new(),
    };
    let (product, records) = (number(figure.product), figure.records);
    println!(
        "{:<10} {records:>8}  {what:<44} {product:>11} {bare:>11} {ratio:>7}  {target}",
        figure.scenario
    );
}

fn number(value: f64) -> String {
    match value {
        v if v >= 1000.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.3}"),
    }
}

/// Everything, as one JSON object.
pub fn print_json(figures: &[Figure]) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{:#}", serde_json::json!({ "schema": 1, "cores": cores, "figures": figures }));
}
