//! Frequencies of rotary position embeddings, with every published way to stretch them.

use crate::{ModelConfig, Result, Rope, RopeScaling};
use lsb_format::Error;
use std::f64::consts::PI;

/// Rotary position embedding of one layer (Su et al., 2021, in the half-split form that published weights use).
#[derive(Clone, Debug, PartialEq)]
pub struct RotarySpec {
    /// Radians per position, one for each pair of rotated elements, inside the original context.
    pub frequencies: Vec<f32>,
    /// The same where a sequence is longer than this many tokens.
    pub beyond: Option<(usize, Beyond)>,
    /// What cosines and sines are multiplied by.
    pub amplitude: f32,
}

/// How frequencies change once a sequence is longer than the original context.
#[derive(Clone, Debug, PartialEq)]
pub enum Beyond {
    /// Other fixed frequencies (`longrope`).
    Fixed(Vec<f32>),
    /// A base that grows with the length of the sequence (`dynamic`).
    Dynamic {
        /// Base inside the original context.
        theta: f64,
        /// The factor of the configuration.
        factor: f64,
    },
}

impl RotarySpec {
    /// The rotary embedding of a layer, where `width` elements of a head are rotated. `local` is for layers with
    /// a sliding window that have a base of their own; it is never stretched.
    pub(super) fn new(config: &ModelConfig, rope: &Rope, head_dim: usize, local: bool) -> Result<RotarySpec> {
        let width = ((head_dim as f64 * rope.partial) as usize) & !1;
        if width == 0 {
            return Err(bad("no element of a head is rotated").into());
        }
        let context = config.sizes.and_then(|s| s.context);
        match (&rope.scaling, local.then_some(rope.local_theta).flatten()) {
            (_, Some(theta)) => Ok(RotarySpec::plain(frequencies(theta, width))),
            (None, None) => Ok(RotarySpec::plain(frequencies(rope.theta, width))),
            (Some(scaling), None) => stretched(rope.theta, scaling, width, context),
        }
    }

    fn plain(frequencies: Vec<f64>) -> RotarySpec {
        RotarySpec { frequencies: narrow(frequencies), beyond: None, amplitude: 1.0 }
    }

    /// Elements of a head that are rotated.
    pub fn width(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// Radians per position for sequences of up to `tokens` tokens.
    pub fn frequencies_for(&self, tokens: usize) -> Vec<f32> {
        match &self.beyond {
            Some((limit, Beyond::Fixed(other))) if tokens > *limit => other.clone(),
            Some((limit, Beyond::Dynamic { theta, factor })) if tokens > *limit => {
                let (width, length) = (self.width() as f64, tokens as f64);
                let stretch = factor * length / *limit as f64 - (factor - 1.0);
                narrow(frequencies(theta * stretch.powf(width / (width - 2.0)), self.width()))
            }
            _ => self.frequencies.clone(),
        }
    }
}

fn frequencies(theta: f64, width: usize) -> Vec<f64> {
    (0..width / 2).map(|i| theta.powf(-((2 * i) as f64) / width as f64)).collect()
}

fn narrow(frequencies: Vec<f64>) -> Vec<f32> {
    frequencies.into_iter().map(|f| f as f32).collect()
}

fn bad(message: impl Into<String>) -> Error {
    Error::corruption("B81", message.into()).in_file("config.json")
}

fn stretched(theta: f64, scaling: &RopeScaling, width: usize, context: Option<u64>) -> Result<RotarySpec> {
    let kind = scaling.kind.as_str();
    let needed = |value: Option<f64>, name: &str| {
        value.ok_or_else(|| bad(format!("rope scaling of type \"{kind}\" needs {name}")))
    };
    let original = scaling.original_context.or(context).map(|n| n as f64);
    let base = frequencies(theta, width);
    match kind {
        "linear" => {
            let factor = needed(scaling.factor, "factor")?;
            Ok(RotarySpec::plain(base.into_iter().map(|f| f / factor).collect()))
        }
        "dynamic" => {
            let factor = needed(scaling.factor, "factor")?;
            let limit = needed(context.map(|n| n as f64), "max_position_embeddings")? as usize;
            let mut spec = RotarySpec::plain(base);
            spec.beyond = Some((limit, Beyond::Dynamic { theta, factor }));
            Ok(spec)
        }
        "llama3" => {
            let factor = needed(scaling.factor, "factor")?;
            let low = needed(scaling.low_freq_factor, "low_freq_factor")?;
            let high = needed(scaling.high_freq_factor, "high_freq_factor")?;
            let original = needed(original, "original_max_position_embeddings")?;
            if low >= high {
                return Err(bad("low_freq_factor is not below high_freq_factor").into());
            }
            let stretch = |f: f64| {
                let turns = original * f / (2.0 * PI);
                let keep = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                keep * f + (1.0 - keep) * f / factor
            };
            Ok(RotarySpec::plain(base.into_iter().map(stretch).collect()))
        }
        "yarn" => yarn(theta, scaling, base, needed(original, "original_max_position_embeddings")?, context),
        "longrope" | "su" => {
            let original = needed(original, "original_max_position_embeddings")?;
            let [short, long] = &scaling.factors;
            if short.len() != base.len() || long.len() != base.len() {
                let message = format!(
                    "short_factor and long_factor have {} and {} numbers and need {}",
                    short.len(),
                    long.len(),
                    base.len()
                );
                return Err(bad(message).into());
            }
            let ratio = context.map_or(1.0, |n| n as f64 / original);
            let factor = scaling.factor.unwrap_or(ratio);
            let computed = if factor > 1.0 { (1.0 + factor.ln() / original.ln()).sqrt() } else { 1.0 };
            let divided = |by: &[f64]| narrow(base.iter().zip(by).map(|(f, d)| f / d).collect());
            Ok(RotarySpec {
                frequencies: divided(short),
                beyond: Some((original as usize, Beyond::Fixed(divided(long)))),
                amplitude: scaling.attention_factor.unwrap_or(computed) as f32,
            })
        }
        other => {
            Err(bad(format!("rope scaling of type \"{}\" is not known", lsb_format::escape(other))).into())
        }
    }
}

/// YaRN (Peng et al., 2023), section 3.2 and equation 22.
fn yarn(
    theta: f64,
    scaling: &RopeScaling,
    base: Vec<f64>,
    original: f64,
    context: Option<u64>,
) -> Result<RotarySpec> {
    let width = 2.0 * base.len() as f64;
    let said = scaling.factor.or_else(|| context.map(|n| n as f64 / original));
    let factor = said.ok_or_else(|| bad("rope scaling of type \"yarn\" needs factor"))?;
    // The element of a head that makes so many turns in the original context.
    let element = |turns: f64| width * (original / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let (mut first, mut last) =
        (element(scaling.beta_fast.unwrap_or(32.0)), element(scaling.beta_slow.unwrap_or(1.0)));
    if scaling.truncate.unwrap_or(true) {
        (first, last) = (first.floor(), last.ceil());
    }
    (first, last) = (first.max(0.0), last.min(width - 1.0));
    if first == last {
        last += 0.001;
    }
    let stretch = |(i, f): (usize, f64)| {
        let keep = 1.0 - ((i as f64 - first) / (last - first)).clamp(0.0, 1.0);
        keep * f + (1.0 - keep) * f / factor
    };
    let temperature = |weight: f64| if factor > 1.0 { 0.1 * weight * factor.ln() + 1.0 } else { 1.0 };
    let amplitude = match (scaling.attention_factor, scaling.mscale) {
        (Some(said), _) => said,
        (None, [Some(one), Some(all)]) => temperature(one) / temperature(all),
        (None, _) => temperature(1.0),
    };
    let frequencies = base.into_iter().enumerate().map(stretch).collect();
    Ok(RotarySpec { frequencies: narrow(frequencies), beyond: None, amplitude: amplitude as f32 })
}
