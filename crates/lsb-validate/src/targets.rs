//! What the user will accept: limits on measurements, by name.

use crate::validator::Measurement;
use crate::verdict::{Check, Verdict};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// On which side of its limit a measurement must lie. The limit itself is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The limit or more.
    AtLeast,
    /// The limit or less.
    AtMost,
}

impl Bound {
    /// True where `value` is on the accepted side of `limit`; never for NaN.
    pub fn accepts(self, value: f64, limit: f64) -> bool {
        match self {
            Bound::AtLeast => value >= limit,
            Bound::AtMost => value <= limit,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::AtLeast => ">=",
            Bound::AtMost => "<=",
        })
    }
}

/// A limit on one measurement, written `name>=limit` or `name<=limit`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Limit {
    /// Name of the measurement.
    pub name: String,
    /// Accepted side.
    pub bound: Bound,
    /// The limit.
    pub limit: f64,
}

impl Limit {
    /// `name` must be `limit` or more.
    pub fn at_least(name: &str, limit: f64) -> Self {
        Limit { name: name.to_owned(), bound: Bound::AtLeast, limit }
    }

    /// `name` must be `limit` or less.
    pub fn at_most(name: &str, limit: f64) -> Self {
        Limit { name: name.to_owned(), bound: Bound::AtMost, limit }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.bound, self.limit)
    }
}

impl FromStr for Limit {
    type Err = lsb_format::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let split =
            |bound: Bound| text.split_once(&bound.to_string()).map(|(name, limit)| (name, bound, limit));
        let (name, bound, limit) =
            split(Bound::AtLeast).or_else(|| split(Bound::AtMost)).ok_or_else(|| {
                lsb_format::Error::argument(format!("\"{text}\": write it as name>=1 or name<=1"))
            })?;
        let name = name.trim();
        match limit.trim().parse::<f64>() {
            Ok(limit) if limit.is_finite() && !name.is_empty() => {
                Ok(Limit { name: name.to_owned(), bound, limit })
            }
            _ => Err(lsb_format::Error::argument(format!(
                "\"{text}\": needs the name of a measurement and a number"
            ))),
        }
    }
}

impl TryFrom<String> for Limit {
    type Error = lsb_format::Error;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Limit> for String {
    fn from(limit: Limit) -> String {
        limit.to_string()
    }
}

/// Everything the user will accept. What is `None` is not judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QualityTargets {
    /// Least `weight_snr_db` of the weights that are not exact.
    pub min_weight_snr_db: Option<f64>,
    /// Largest `relative_error_percent` of the weights that are not exact; 1 unless set.
    pub max_relative_error_percent: Option<f64>,
    /// Least `correlation` of the weights that are not exact.
    pub min_correlation: Option<f64>,
    /// Least `ratio`.
    pub min_ratio: Option<f64>,
    /// Largest `bpw`.
    pub max_bpw: Option<f64>,
    /// Largest `storage_gb`.
    pub max_storage_gb: Option<f64>,
    /// Limits on any measurement by name, those of custom validators included.
    pub limits: Vec<Limit>,
}

impl Default for QualityTargets {
    fn default() -> Self {
        QualityTargets { max_relative_error_percent: Some(1.0), ..Self::none() }
    }
}

impl QualityTargets {
    /// Targets that judge nothing.
    pub fn none() -> Self {
        QualityTargets {
            min_weight_snr_db: None,
            max_relative_error_percent: None,
            min_correlation: None,
            min_ratio: None,
            max_bpw: None,
            max_storage_gb: None,
            limits: Vec::new(),
        }
    }

    /// All limits, the named fields first.
    pub fn limits(&self) -> Vec<Limit> {
        use Bound::{AtLeast, AtMost};
        let fields = [
            ("weight_snr_db", AtLeast, self.min_weight_snr_db),
            ("relative_error_percent", AtMost, self.max_relative_error_percent),
            ("correlation", AtLeast, self.min_correlation),
            ("ratio", AtLeast, self.min_ratio),
            ("bpw", AtMost, self.max_bpw),
            ("storage_gb", AtMost, self.max_storage_gb),
        ];
        let fields = fields
            .into_iter()
            .filter_map(|(name, bound, limit)| Some(Limit { name: name.to_owned(), bound, limit: limit? }));
        fields.chain(self.limits.iter().cloned()).collect()
    }

    /// Compares what was measured with every limit. A limit on something that was not measured fails.
    pub fn judge(&self, measurements: &[Measurement]) -> Verdict {
        let find = |name: &str| measurements.iter().find(|m| m.name == name);
        Verdict::of(self.limits().iter().map(|limit| Check::of(limit, find(&limit.name))).collect())
    }
}
