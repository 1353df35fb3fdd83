//! Progress on stderr: a bar on a terminal, one line per layer otherwise.

use super::compress::bits;
use super::number::{bytes, decibel};
use super::say;
use crate::Common;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lsb_stream::{LayerReport, Observer};
use lsb_validate::WeightError;
use std::io::IsTerminal;

const BYTES: &str = "{bar:16} {percent:>3}% {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} eta {eta} {wide_msg}";

const WEIGHTS: &str = "{bar:16} {percent:>3}% eta {eta} {wide_msg}";

/// What counts: bytes of weights, or weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Source bytes.
    Bytes,
    /// Weights compared.
    Weights,
    /// Steps of a known number.
    Steps,
}

/// Shows how far the work is.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    lines: bool,
    warnings: bool,
}

impl Progress {
    /// A bar if stderr is a terminal that no log lines go to, else lines. With `--json` no lines: the
    /// document says all of it. With `--quiet` nothing.
    pub(crate) fn new(common: Common, unit: Unit) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let shown = terminal && !common.quiet && common.verbose == 0;
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let template = match unit {
            Unit::Bytes => BYTES,
            Unit::Weights | Unit::Steps => WEIGHTS,
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let plain = !common.quiet && !common.json;
        Progress { bar, lines: plain && !shown, warnings: plain }
    }

    /// Sets how much there is and how much is done.
    pub(crate) fn set(&self, done: u64, total: u64, what: &str) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message(brief(what));
    }

    /// True where lines stand in for the bar.
    pub(crate) fn lines(&self) -> bool {
        self.lines
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// The part of a tensor's name that tells it from others, so that it fits beside the bar.
fn brief(name: &str) -> String {
    let name = name.strip_prefix("model.").unwrap_or(name);
    lsb_format::escape(name.strip_suffix(".weight").unwrap_or(name))
}

/// What a layer became, as one line.
fn layer_line(layer: &LayerReport) -> String {
    let mut out = format!(
        "{}: {} -> {}, {} bits per weight",
        layer.layer,
        bytes(layer.source_bytes),
        bytes(layer.bytes),
        bits(layer.bytes, layer.weights)
    );
    match layer.distortion.as_ref().map(WeightError::from) {
        Some(e) if e.exact => out += ", exact",
        Some(e) => out += &format!(", weight SNR {} dB", decibel(e.weight_snr_db)),
        None => {}
    }
    out
}

impl Observer for Progress {
    fn started(&mut self, tensors: usize, source_bytes: u64, done_bytes: u64) {
        self.bar.set_length(source_bytes);
        self.bar.set_position(done_bytes);
        // Rate and time left are about this run, not about what an earlier one did.
        self.bar.reset_eta();
        if self.lines {
            let resumed = match done_bytes {
                0 => String::new(),
                n => format!(", {} of it done by an earlier run", bytes(n)),
            };
            say(format_args!("{tensors} tensors, {}{resumed}", bytes(source_bytes)));
        }
    }

    fn tensor_started(&mut self, name: &str, _source_bytes: u64) {
        self.bar.set_message(brief(name));
    }

    fn advanced(&mut self, source_bytes: u64) {
        self.bar.inc(source_bytes);
    }

    fn layer_finished(&mut self, layer: &LayerReport) {
        if self.lines {
            say(layer_line(layer));
        }
    }

    fn warned(&mut self, message: &str) {
        if self.warnings {
            self.bar.suspend(|| say(format_args!("warning: {message}")));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_brief_and_harmless() {
        assert_eq!(brief("model.layers.3.mlp.up_proj.weight"), "layers.3.mlp.up_proj");
        assert_eq!(brief("a\u{1b}[2J"), "a\\u{1b}[2J");
    }

    #[test]
    fn a_layer_is_one_line() {
        let layer = serde_json::json!({
            "layer": "layer 3", "weights": 1000, "source_bytes": 2000, "bytes": 250, "distortion": null
        });
        let layer: LayerReport = serde_json::from_value(layer).unwrap();
        assert_eq!(layer_line(&layer), "layer 3: 2.00 kB -> 250 B, 2.000 bits per weight");
    }
}
