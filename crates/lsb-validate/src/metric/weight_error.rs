//! How far decoded weights are from the originals, from the sums of a [`Distortion`].

use lsb_quant::Distortion;
use serde::Serialize;

/// Centred variances below this share of the mean square are rounding noise of the sums, not variance.
const VARIANCE_NOISE: f64 = 1e-6;

/// Figures of one tensor, one layer or one model. No figure is ever NaN.
///
/// In JSON, infinite figures are `null`; `exact` tells a perfect copy from an unbounded error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct WeightError {
    /// Weights compared.
    pub weights: u64,
    /// True where every decoded value equals its original (also where there are no weights).
    pub exact: bool,
    /// `10 log10(sum w² / sum (w-q)²)` in dB; infinite where exact, minus infinite where all originals are
    /// zero and the decoded values are not.
    #[serde(serialize_with = "super::finite_or_null")]
    pub weight_snr_db: f64,
    /// `100 * mean |w-q| / (max w - min w)`. A wide range makes it small, so it never stands without the SNR.
    /// Infinite where a constant tensor is not restored. Over several tensors: the mean of the tensors' own
    /// figures, weighted by their number of weights.
    #[serde(serialize_with = "super::finite_or_null")]
    pub relative_error_percent: f64,
    /// Pearson correlation of original and decoded weights, -1 to 1; 1 where exact. `None` where it is not
    /// defined because one side is constant.
    pub correlation: Option<f64>,
    /// `sum (w-q)² / sum w²`; infinite where all originals are zero and the decoded values are not.
    #[serde(serialize_with = "super::finite_or_null")]
    pub relative_mse: f64,
    /// Largest `|w-q|`.
    pub max_abs_error: f64,
}

impl From<&Distortion> for WeightError {
    fn from(sums: &Distortion) -> Self {
        if [sums.sum_ee, sums.sum_ww, sums.sum_qq, sums.sum_abs].iter().any(|x| !x.is_finite()) {
            return WeightError::unbounded(sums.weights);
        }
        let exact = sums.sum_ee == 0.0 && sums.sum_abs == 0.0;
        WeightError {
            weights: sums.weights,
            exact,
            weight_snr_db: snr_db(sums),
            relative_error_percent: relative_error_percent(sums),
            correlation: if exact { Some(1.0) } else { correlation(sums) },
            relative_mse: sums.relative_mse(),
            max_abs_error: sums.max_abs,
        }
    }
}

impl WeightError {
    /// Of sums that left the numbers: some weight was NaN or infinite, so no figure can be given.
    fn unbounded(weights: u64) -> Self {
        WeightError {
            weights,
            exact: false,
            weight_snr_db: f64::NEG_INFINITY,
            relative_error_percent: f64::INFINITY,
            correlation: None,
            relative_mse: f64::INFINITY,
            max_abs_error: f64::INFINITY,
        }
    }

    /// Figures of several tensors together.
    ///
    /// SNR, correlation and relative MSE come from the added sums. The relative error is the mean of the
    /// tensors' own figures, weighted by their weights: the range of one tensor says nothing about another's.
    pub fn over<'a>(tensors: impl IntoIterator<Item = &'a Distortion>) -> Self {
        let (mut sums, mut percent) = (Distortion::default(), 0.0);
        for tensor in tensors.into_iter().filter(|t| t.weights > 0) {
            sums.merge(tensor);
            percent += WeightError::from(tensor).relative_error_percent * tensor.weights as f64;
        }
        let mut out = WeightError::from(&sums);
        if sums.weights > 0 {
            out.relative_error_percent = percent / sums.weights as f64;
        }
        out
    }
}

fn snr_db(sums: &Distortion) -> f64 {
    if sums.sum_ee == 0.0 {
        return f64::INFINITY;
    }
    // Two logarithms, so that a ratio out of the range of f64 still has its decibels.
    10.0 * (sums.sum_ww.log10() - sums.sum_ee.log10())
}

fn relative_error_percent(sums: &Distortion) -> f64 {
    if sums.sum_abs == 0.0 {
        return 0.0;
    }
    let range = sums.max_w - sums.min_w;
    if range > 0.0 { 100.0 * (sums.sum_abs / sums.weights as f64) / range } else { f64::INFINITY }
}

fn correlation(sums: &Distortion) -> Option<f64> {
    if sums.weights == 0 {
        return None;
    }
    let n = sums.weights as f64;
    let (mean_w, mean_q) = (sums.sum_w / n, sums.sum_q / n);
    let (square_w, square_q) = (sums.sum_ww / n, sums.sum_qq / n);
    let (var_w, var_q) = (square_w - mean_w * mean_w, square_q - mean_q * mean_q);
    // Written so that zero and NaN variances end here too.
    let varies = |variance: f64, square: f64| variance > VARIANCE_NOISE * square;
    if !varies(var_w, square_w) || !varies(var_q, square_q) {
        return None;
    }
    let covariance = sums.sum_wq / n - mean_w * mean_q;
    let r = covariance / (var_w.sqrt() * var_q.sqrt());
    r.is_finite().then(|| r.clamp(-1.0, 1.0))
}
