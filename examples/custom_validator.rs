//! A validator of your own: how many weights changed their sign, and the row that moved most.
//!
//! It watches the same comparison as the default judge and its numbers get limits like any others.

use anyhow::{Result, ensure};
use lsb_quant::Registry;
use lsb_stream::{Budget, CompressConfig, LoopCompressor, weights::open_weights};
use lsb_validate::{
    Compare, Domain, Limit, Measurement, Observation, QualityTargets, QualityValidator, Validator,
    size_measurements,
};

/// Counts weights whose sign is not the original's, and finds the row with the largest relative error.
#[derive(Default)]
struct SignsAndRows {
    weights: u64,
    flipped: u64,
    /// Row of a tensor being added up: tensor, row, sum of e², sum of w².
    row: Option<(String, u64, f64, f64)>,
    worst: f64,
    worst_at: String,
}

impl SignsAndRows {
    fn end_row(&mut self) {
        if let Some((tensor, row, noise, signal)) = self.row.take()
            && signal > 0.0
            && (noise / signal).sqrt() > self.worst
        {
            self.worst = (noise / signal).sqrt();
            self.worst_at = format!("row {row} of {}", lsb_format::escape(&tensor));
        }
    }
}

impl Validator for SignsAndRows {
    fn name(&self) -> &str {
        "signs-and-rows"
    }

    fn needs(&self) -> Domain {
        Domain::Weights
    }

    fn observe(&mut self, observation: &Observation<'_>) {
        let Observation::Weights(run) = observation else { return };
        if run.tensor.same_as.is_some() {
            return; // shown already, under the name it is stored with
        }
        let cols = run.tensor.matrix().cols.max(1);
        for (i, (&w, &q)) in run.original.iter().zip(run.decoded).enumerate() {
            self.weights += 1;
            self.flipped += u64::from(w * q < 0.0);
            // A run may begin or end inside a row: rows are told apart by their number.
            let row = (run.first + i as u64) / cols;
            if !matches!(&self.row, Some((t, r, ..)) if *r == row && *t == run.tensor.name) {
                self.end_row();
                self.row = Some((run.tensor.name.clone(), row, 0.0, 0.0));
            }
            if let Some((_, _, noise, signal)) = &mut self.row {
                *noise += f64::from(w - q).powi(2);
                *signal += f64::from(w).powi(2);
            }
        }
    }

    fn finish(&mut self) -> Vec<Measurement> {
        self.end_row();
        let percent = 100.0 * self.flipped as f64 / self.weights.max(1) as f64;
        vec![
            Measurement::new("sign_flip_percent", percent, "%", "weights whose sign changed"),
            Measurement::new("worst_row_error", self.worst, "", self.worst_at.clone()),
        ]
    }
}

/// Compresses a tiny model, shows it to both validators, and prints the verdict.
pub(crate) fn run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let model = lsb_examples::write_tiny_model(dir.path())?;
    let mut config = CompressConfig::default();
    config.output = Some(dir.path().join("tiny-lsb"));
    config.codec = Some("outlier-binary".into());
    let report = LoopCompressor::new(config).compress_model(&model, None)?;

    let registry = Registry::standard();
    let original = open_weights(&model, &registry, &Default::default())?;
    let decoded = open_weights(&report.package, &registry, &Default::default())?;
    let (mut quality, mut mine) = (QualityValidator::new(), SignsAndRows::default());
    let budget = Budget::new(64 << 20);
    let comparison =
        Compare::new(&*original, &*decoded, &budget).validator(&mut quality).validator(&mut mine).run()?;

    let mut measurements = comparison.measurements();
    measurements.extend(size_measurements(report.source_bytes, report.package_bytes, report.weights));
    measurements.extend(quality.finish());
    measurements.extend(mine.finish());
    let mut targets = QualityTargets { min_weight_snr_db: Some(40.0), ..QualityTargets::none() };
    targets.limits.push(Limit::at_most("defective_tensors", 0.0));
    targets.limits.push("sign_flip_percent<=5".parse()?);
    let verdict = targets.judge(&measurements);
    for check in &verdict.checks {
        println!("{} {:20} {}", if check.passed { "pass" } else { "FAIL" }, check.name, check.explanation);
    }

    // One bit a weight keeps the signs and comes nowhere near 40 dB: the verdict says both.
    let failed: Vec<&str> = verdict.failures().map(|c| c.name.as_str()).collect();
    ensure!(failed == ["weight_snr_db"], "unexpected verdict: {failed:?}");
    Ok(())
}

fn main() -> Result<()> {
    run()
}
