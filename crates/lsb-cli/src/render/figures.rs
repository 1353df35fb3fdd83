//! Figures of weight error, and verdicts over them, as cells and lines. Every figure is named in full: none
//! of them is "quality".

use super::number::decibel;
use lsb_validate::{Verdict, WeightError, WeightReport};

/// Titles of the columns that [`cells`] fills.
pub(crate) const TITLES: [&str; 3] = [">weight SNR dB", ">|error|/range %", ">correlation"];

/// The three figures, or that nothing was measured.
pub(crate) fn cells(error: Option<&WeightError>) -> [String; 3] {
    let Some(e) = error else { return ["not measured", "-", "-"].map(str::to_owned) };
    let percent = match e.relative_error_percent {
        _ if e.exact => "0".to_owned(),
        x if x.is_finite() => format!("{x:.3}"),
        _ => "unbounded".to_owned(),
    };
    [decibel(e.weight_snr_db), percent, correlation(e)]
}

/// The three figures in one line, with what they are.
pub(crate) fn sentence(e: &WeightError) -> String {
    if e.exact {
        return "every weight is restored exactly".to_owned();
    }
    let [snr, percent, correlation] = cells(Some(e));
    format!("weight SNR {snr} dB, mean |error| / range {percent} %, correlation {correlation}")
}

fn correlation(e: &WeightError) -> String {
    match e.correlation {
        _ if e.exact => "1".to_owned(),
        Some(r) => format!("{r:.5}"),
        None => "undefined".to_owned(),
    }
}

/// The model as a whole, and without the tensors that are exact where there are any: they flatter.
pub(crate) fn model(report: &WeightReport) -> String {
    let mut out = format!("all weights: {}\n", sentence(&report.model));
    if let Some(lossy) = report.lossy.filter(|lossy| lossy.weights < report.model.weights) {
        out += &format!("without the exact tensors: {}\n", sentence(&lossy));
    }
    out
}

/// One line per limit, or nothing where none was given.
pub(crate) fn verdict(verdict: &Verdict) -> String {
    let line = |c: &lsb_validate::Check| {
        let outcome = if c.passed { "pass" } else { "FAIL" };
        format!("{outcome}  {}: {}\n", lsb_format::escape(&c.name), c.explanation)
    };
    verdict.checks.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lsb_quant::Distortion;

    #[test]
    fn exact_unmeasured_and_lossy_read_differently() {
        let exact = WeightError::from(&Distortion::measure(&[1.0, 2.0], &[1.0, 2.0]));
        assert_eq!(cells(Some(&exact)), ["exact", "0", "1"]);
        assert_eq!(cells(None)[0], "not measured");
        let lossy = WeightError::from(&Distortion::measure(&[1.0, 2.0, 3.0], &[1.1, 2.0, 3.1]));
        assert_eq!(cells(Some(&lossy)), ["28.45", "3.333", "0.99834"]);
        assert!(sentence(&lossy).starts_with("weight SNR 28.45 dB, mean |error| / range 3.333 %"));
        let constant = WeightError::from(&Distortion::measure(&[1.0, 1.0], &[1.5, 1.5]));
        assert_eq!(cells(Some(&constant))[1..], ["unbounded", "undefined"]);
    }
}
