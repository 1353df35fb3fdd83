//! Outputs of two models side by side: how much of the signal each layer and each linear map keeps.

use crate::metric::{WeightError, finite_or_null};
use lsb_quant::Distortion;
use rayon::prelude::*;
use serde::Serialize;

/// Values summed by one task. Fixed, so that no sum depends on the number of threads.
const RUN: usize = 1 << 16;

/// Sums over pairs of an original activation and another model's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SignalTally(Distortion);

impl SignalTally {
    /// Takes in activations of the original and as many of the other model, in any shape.
    ///
    /// # Panics
    /// If the two differ in length.
    pub fn observe(&mut self, original: &[f32], other: &[f32]) {
        assert_eq!(original.len(), other.len());
        let runs: Vec<Distortion> = original
            .par_chunks(RUN)
            .zip(other.par_chunks(RUN))
            .map(|(original, other)| Distortion::measure(original, other))
            .collect();
        runs.iter().for_each(|run| self.0.merge(run));
    }

    /// Adds what another tally saw.
    pub fn merge(&mut self, other: &SignalTally) {
        self.0.merge(&other.0);
    }

    /// The figures of what was seen so far.
    pub fn figures(&self) -> SignalFigures {
        let sums = &self.0;
        let error = WeightError::from(sums);
        let cosine = sums.sum_wq / (sums.sum_ww.sqrt() * sums.sum_qq.sqrt());
        SignalFigures {
            values: sums.weights,
            exact: error.exact,
            snr_db: error.weight_snr_db,
            correlation: error.correlation,
            cosine: if error.exact { Some(1.0) } else { cosine.is_finite().then(|| cosine.clamp(-1.0, 1.0)) },
            relative_error: error.relative_mse.sqrt(),
        }
    }
}

/// How far another model's activations `y` are from the original's `x`. No figure is ever NaN; in JSON an
/// infinite one is `null`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SignalFigures {
    /// Values compared.
    pub values: u64,
    /// Whether all are equal.
    pub exact: bool,
    /// `10 log10(sum x² / sum (x-y)²)` in dB; infinite where exact, minus infinite where an activation is NaN
    /// or infinite, or all of `x` is zero and `y` is not.
    #[serde(serialize_with = "finite_or_null")]
    pub snr_db: f64,
    /// Pearson correlation over all values, -1 to 1; 1 where exact. `None` where one side is constant.
    pub correlation: Option<f64>,
    /// Cosine of the angle between `x` and `y`; 1 where exact. `None` where one side is zero.
    pub cosine: Option<f64>,
    /// `|x-y| / |x|` in Euclidean norms.
    #[serde(serialize_with = "finite_or_null")]
    pub relative_error: f64,
}

/// Figures of one named output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NamedSignal {
    /// Name of the layer or linear map.
    pub name: String,
    /// Its figures.
    #[serde(flatten)]
    pub figures: SignalFigures,
}

/// Sums of many named outputs, in the order in which they first appeared.
#[derive(Clone, Debug, Default)]
pub struct SignalTable {
    rows: Vec<(String, SignalTally)>,
    by_name: std::collections::BTreeMap<String, usize>,
}

impl SignalTable {
    /// Takes in activations of the output `name`, which may come in parts.
    ///
    /// # Panics
    /// If the two differ in length.
    pub fn observe(&mut self, name: &str, original: &[f32], other: &[f32]) {
        let row = match self.by_name.get(name) {
            Some(&row) => row,
            None => {
                self.by_name.insert(name.to_owned(), self.rows.len());
                self.rows.push((name.to_owned(), SignalTally::default()));
                self.rows.len() - 1
            }
        };
        self.rows[row].1.observe(original, other);
    }

    /// The figures of each, and of all as the targets judge them.
    pub fn report(&self) -> SignalReport {
        let rows: Vec<NamedSignal> = self
            .rows
            .iter()
            .map(|(name, tally)| NamedSignal { name: name.clone(), figures: tally.figures() })
            .collect();
        let known: Vec<f64> = rows.iter().filter_map(|row| row.figures.correlation).collect();
        // On a tie the first is named.
        let ratios: Vec<f64> =
            rows.iter().map(|row| row.figures.snr_db).filter(|snr| snr.is_finite()).collect();
        let mut all = SignalTally::default();
        self.rows.iter().for_each(|(_, tally)| all.merge(tally));
        let worst = rows.iter().rev().max_by(|a, b| b.figures.snr_db.total_cmp(&a.figures.snr_db));
        SignalReport {
            mean_correlation: mean(&known),
            mean_snr_db: mean(&ratios),
            snr_db: Some(all.figures().snr_db).filter(|snr| snr.is_finite()),
            worst: worst.map(|row| row.name.clone()),
            worst_snr_db: worst.map(|row| row.figures.snr_db).filter(|snr| snr.is_finite()),
            rows,
        }
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Figures of all outputs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SignalReport {
    /// Mean of the correlations of those that have one, each output counted once.
    pub mean_correlation: Option<f64>,
    /// Mean of the SNRs in dB over the outputs whose SNR is finite, each counted once: neither exact outputs nor broken
    /// ones are in it. `None` where there are none.
    pub mean_snr_db: Option<f64>,
    /// `10 log10(sum x² / sum (x-y)²)` in dB with the sums over all outputs: each counts with the energy that it has.
    /// `None` where it is infinite either way.
    pub snr_db: Option<f64>,
    /// The output with the lowest SNR.
    pub worst: Option<String>,
    /// Its SNR in dB; `None` where it is infinite either way.
    pub worst_snr_db: Option<f64>,
    /// Each output, in the order in which they first appeared.
    pub rows: Vec<NamedSignal>,
}

#[cfg(test)]
mod tests;
