//! How values of flags are read.

use lsb_stream::OutputWeights;

/// The most MB any option takes: a petabyte, far from where bytes would overflow.
pub(crate) const MAX_MB: u64 = 1_000_000_000;

/// The most threads worth starting.
const MAX_THREADS: usize = 4096;

/// Memory in MB; below 32 nothing works.
pub(crate) fn ram_mb(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(n) if (32..=MAX_MB).contains(&n) => Ok(n),
        Ok(n) if n < 32 => Err("it must be 32 or more".to_owned()),
        _ => Err(format!("it must be a whole number from 32 to {MAX_MB}")),
    }
}

/// A number of threads; 0 is one per physical core.
pub(crate) fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n <= MAX_THREADS => Ok(n),
        _ => Err(format!("it must be a whole number from 0 to {MAX_THREADS}")),
    }
}

/// A limit: any number that is one.
pub(crate) fn limit(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() => Ok(x),
        _ => Err("it must be a number".to_owned()),
    }
}

/// How errors of outputs are weighed.
pub(crate) fn output_weights(text: &str) -> Result<OutputWeights, String> {
    match text {
        "gradients" => Ok(OutputWeights::Gradients),
        "equal" => Ok(OutputWeights::Equal),
        _ => Err("it must be gradients or equal".to_owned()),
    }
}

/// A number of percent above 0, with or without its sign.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim().parse::<f64>() {
        Ok(n) if n.is_finite() && n > 0.0 => Ok(n),
        _ => Err("a number of percent above 0, such as 1%".into()),
    }
}
