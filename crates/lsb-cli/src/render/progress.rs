//! Progress on stderr: a bar on a terminal, one line per layer otherwise.

use super::number;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lsb_stream::{LayerReport, Observer};
use std::io::IsTerminal;

/// Shows how far the work is.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    lines: bool,
    quiet: bool,
}

impl Progress {
    /// A bar if stderr is a terminal, lines if it is not, nothing if `quiet`.
    pub(crate) fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target =
            if terminal && !quiet { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let style = ProgressStyle::with_template(
            "{bar:30} {percent:>3}% {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} eta {eta} {wide_msg}",
        );
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Progress { bar, lines: !terminal && !quiet, quiet }
    }

    /// Sets how much there is and how much is done.
    pub(crate) fn set(&self, done: u64, total: u64, what: &str) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message(lsb_format::escape(what));
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Progress {
    fn started(&mut self, tensors: usize, source_bytes: u64, done_bytes: u64) {
        self.bar.set_length(source_bytes);
        self.bar.set_position(done_bytes);
        if self.lines {
            let resumed = if done_bytes > 0 {
                format!(", {} done by an earlier run", number::bytes(done_bytes))
            } else {
                String::new()
            };
            eprintln!("{tensors} tensors, {}{resumed}", number::bytes(source_bytes));
        }
    }

    fn tensor_started(&mut self, name: &str, _source_bytes: u64) {
        self.bar.set_message(lsb_format::escape(name));
    }

    fn advanced(&mut self, source_bytes: u64) {
        self.bar.inc(source_bytes);
    }

    fn layer_finished(&mut self, layer: &LayerReport) {
        if self.lines {
            eprintln!(
                "{}: {} -> {}",
                layer.layer,
                number::bytes(layer.source_bytes),
                number::bytes(layer.bytes)
            );
        }
    }

    fn warned(&mut self, message: &str) {
        if !self.quiet {
            self.bar.suspend(|| eprintln!("warning: {message}"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
