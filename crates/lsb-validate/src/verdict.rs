//! The verdict: every target with its value, its limit, and whether it was met.

use crate::targets::{Bound, Limit};
use crate::validator::Measurement;
use serde::{Serialize, Serializer};

/// All checks, and whether every one passed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// True where every check passed (also where there was none).
    pub passed: bool,
    /// Every target, in the order of the limits.
    pub checks: Vec<Check>,
}

/// One target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Name of the measurement.
    pub name: String,
    /// What was measured; `None` where nothing was. In JSON also `null` where infinite; `explanation` says
    /// which.
    #[serde(serialize_with = "finite_or_null")]
    pub value: Option<f64>,
    /// The limit.
    pub limit: f64,
    /// Accepted side.
    pub comparison: Bound,
    /// Whether the value is on the accepted side.
    pub passed: bool,
    /// Value, limit and unit as one sentence, with what the number covers.
    pub explanation: String,
}

impl Verdict {
    /// The verdict over these checks.
    pub fn of(checks: Vec<Check>) -> Self {
        Verdict { passed: checks.iter().all(|c| c.passed), checks }
    }

    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|c| !c.passed)
    }
}

impl Check {
    /// Compares a measurement with a limit.
    pub fn of(limit: &Limit, measured: Option<&Measurement>) -> Self {
        let value = measured.map(|m| m.value).filter(|v| !v.is_nan());
        let passed = value.is_some_and(|v| limit.bound.accepts(v, limit.limit));
        let explanation = match (measured, value) {
            (Some(m), Some(v)) => {
                let (sign, unit) = (limit.bound, if m.unit.is_empty() { "" } else { " " });
                let outcome = if passed { "is" } else { "is not" };
                let detail = if m.detail.is_empty() { String::new() } else { format!(" ({})", m.detail) };
                format!(
                    "{}{unit}{} {outcome} {sign} {}{unit}{}{detail}",
                    plain(v),
                    m.unit,
                    plain(limit.limit),
                    m.unit
                )
            }
            _ => "not measured, or not defined for these weights".to_owned(),
        };
        Check {
            name: limit.name.clone(),
            value,
            limit: limit.limit,
            comparison: limit.bound,
            passed,
            explanation,
        }
    }
}

/// A number for people: six significant digits, no trailing zeros where it is not too large or small.
pub(crate) fn plain(x: f64) -> String {
    if !x.is_finite() {
        return if x.is_nan() {
            "undefined"
        } else if x > 0.0 {
            "infinite"
        } else {
            "minus infinite"
        }
        .to_owned();
    }
    if x == 0.0 {
        return "0".to_owned();
    }
    let digits = 5 - x.abs().log10().floor() as i32;
    if !(0..=12).contains(&digits) {
        return format!("{x:.5e}");
    }
    let text = format!("{x:.*}", digits as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn finite_or_null<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(x) => crate::metric::finite_or_null(x, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QualityTargets;

    fn measured(name: &str, value: f64) -> Measurement {
        Measurement { name: name.into(), value, unit: "dB".into(), detail: "all".into() }
    }

    #[test]
    fn limits_are_inclusive_and_infinite_quality_passes() {
        let targets = QualityTargets { min_weight_snr_db: Some(40.0), ..QualityTargets::none() };
        for (value, passed) in
            [(40.0, true), (39.999_999, false), (f64::INFINITY, true), (f64::NEG_INFINITY, false)]
        {
            assert_eq!(targets.judge(&[measured("weight_snr_db", value)]).passed, passed, "{value}");
        }
    }

    #[test]
    fn what_was_not_measured_fails_and_says_so() {
        let verdict = QualityTargets::default().judge(&[]);
        assert!(!verdict.passed);
        assert_eq!((verdict.checks[0].value, verdict.checks[0].limit), (None, 1.0));
        assert!(verdict.checks[0].explanation.contains("not measured"));
        let nan = Measurement { value: f64::NAN, ..measured("relative_error_percent", 0.0) };
        assert!(!QualityTargets::default().judge(&[nan]).passed);
        assert!(QualityTargets::none().judge(&[]).passed, "no target, nothing to fail");
    }

    #[test]
    fn every_target_is_listed_whether_it_passed_or_not() {
        let targets = QualityTargets {
            min_weight_snr_db: Some(10.0),
            min_correlation: Some(0.99),
            max_bpw: Some(4.5),
            min_ratio: Some(3.0),
            max_storage_gb: Some(4.0),
            limits: vec!["sign_flips<=0.5".parse().unwrap()],
            ..Default::default()
        };
        let values = [
            ("weight_snr_db", 20.0),
            ("relative_error_percent", 0.5),
            ("correlation", 0.95),
            ("bpw", 4.25),
            ("ratio", 3.7),
            ("storage_gb", 3.9),
            ("sign_flips", 0.4),
        ];
        let measurements: Vec<_> = values.iter().map(|(n, v)| measured(n, *v)).collect();
        let verdict = targets.judge(&measurements);
        assert_eq!(verdict.checks.len(), 7);
        let failed: Vec<&str> = verdict.failures().map(|c| c.name.as_str()).collect();
        assert_eq!(failed, ["correlation"]);
        assert!(!verdict.passed);
    }

    #[test]
    fn json_has_the_contracted_keys() {
        let targets = QualityTargets { min_weight_snr_db: Some(40.0), ..QualityTargets::none() };
        let json = serde_json::to_value(targets.judge(&[measured("weight_snr_db", 17.1)])).unwrap();
        assert_eq!(json["passed"], false);
        let check = &json["checks"][0];
        assert_eq!((&check["name"], &check["passed"]), (&"weight_snr_db".into(), &false.into()));
        assert_eq!((check["value"].as_f64(), check["limit"].as_f64()), (Some(17.1), Some(40.0)));
        assert_eq!(check["comparison"], "at_least");
        assert_eq!(check["explanation"], "17.1 dB is not >= 40 dB (all)");
        let json = serde_json::to_value(targets.judge(&[measured("weight_snr_db", f64::INFINITY)])).unwrap();
        assert!(json["checks"][0]["value"].is_null());
        assert!(json["checks"][0]["explanation"].as_str().unwrap().starts_with("infinite"));
    }

    #[test]
    fn limits_are_typed_and_printed_the_same_way() {
        let limit: Limit = " row_error >= 0.5 ".parse().unwrap();
        assert_eq!(limit, Limit::at_least("row_error", 0.5));
        assert_eq!(limit.to_string().parse::<Limit>().unwrap(), limit);
        for text in ["x", "x=1", ">=1", "x<=", "x<=nan", "x<=inf"] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
        let targets: QualityTargets = serde_json::from_str(r#"{"limits":["a<=1"],"max_bpw":3}"#).unwrap();
        assert_eq!(targets.limits, [Limit::at_most("a", 1.0)]);
        assert_eq!(targets.max_relative_error_percent, Some(1.0), "unset fields keep their defaults");
        assert!(serde_json::from_str::<QualityTargets>(r#"{"max_bwp":3}"#).is_err());
    }

    #[test]
    fn numbers_are_printed_for_people() {
        for (x, text) in [
            (17.112_345_6, "17.1123"),
            (40.0, "40"),
            (0.0, "0"),
            (1234567.0, "1.23457e6"),
            (0.001_25, "0.00125"),
            (-3.5, "-3.5"),
            (1e-20, "1.00000e-20"),
        ] {
            assert_eq!(plain(x), text);
        }
    }
}
