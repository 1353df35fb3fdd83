//! An evaluation, for people and machines.

use super::number::{bytes, decibel};
use super::table::Table;
use lsb_format::escape;
use lsb_stream::peak_rss_bytes;
use lsb_validate::activation::SignalReport;
use lsb_validate::evaluate::{Against, Evaluation};
use serde_json::{Value, json};

/// What it took.
pub(crate) struct Cost {
    pub(crate) seconds: f64,
    pub(crate) bytes_read: u64,
}

impl Cost {
    /// As the last line of a report.
    pub(super) fn text(&self) -> String {
        let (read, peak) = (bytes(self.bytes_read), bytes(peak_rss_bytes()));
        format!("{:.1} s, {read} read, peak memory {peak}\n", self.seconds)
    }
}

/// The document with the keys that `docs/command-line.md` promises.
pub(crate) fn json(found: &Evaluation, cost: &Cost) -> Value {
    let mut out = json!({
        "perplexity": finite(found.perplexity.perplexity), "nll": finite(found.perplexity.nll),
        "standard_error": finite(found.perplexity.standard_error),
        "tokens": found.perplexity.tokens, "window": found.protocol.protocol.window,
        "protocol": found.protocol, "against": null,
        "seconds": cost.seconds, "bytes_read": cost.bytes_read, "peak_rss_bytes": peak_rss_bytes(),
    });
    if let Some(against) = &found.against {
        let mut logits = json!(against.logits);
        logits["perplexity"] = finite(against.logits.original.perplexity);
        logits["loss_percent"] = finite(against.logits.loss_percent());
        logits["layers"] = json!(against.layers);
        logits["maps"] = json!(against.maps);
        out["against"] = logits;
    }
    out
}

fn finite(x: f64) -> Value {
    super::finite(x)
}

/// The figures without protocol and cost.
pub(crate) fn figures(found: &Evaluation) -> String {
    let figures = &found.perplexity;
    let mut out = format!("perplexity {:.4} +- {:.4}\n", figures.perplexity, figures.standard_error);
    if let Some(against) = &found.against {
        out += &beside(against);
    }
    out
}

pub(crate) fn text(found: &Evaluation, cost: &Cost, full: bool) -> String {
    let figures = &found.perplexity;
    let mut out = format!(
        "perplexity {:.4} +- {:.4}, nll {:.5}\n",
        figures.perplexity, figures.standard_error, figures.nll
    );
    if let Some(against) = &found.against {
        out += &beside(against);
        if full {
            out += &tables(&against.layers, &against.maps);
        }
    }
    let protocol = &found.protocol;
    let cut = &protocol.protocol;
    out += &format!(
        "\nprotocol: {} of {} tokens scored in {} windows of {}{}{}; {}\n",
        figures.tokens,
        protocol.text_tokens,
        protocol.windows,
        cut.window,
        cut.stride.map_or(String::new(), |s| format!(", stride {s}")),
        if cut.bos.is_some() { ", with BOS" } else { "" },
        protocol.score
    );
    out += &format!("text BLAKE3 {}\n", protocol.text_blake3);
    out + &cost.text()
}

fn beside(against: &Against) -> String {
    let logits = &against.logits;
    let mut out = format!(
        "original   {:.4}: {:+.3} %, ln ratio {:.5} +- {:.5} (one sigma, paired)\n",
        logits.original.perplexity,
        logits.loss_percent(),
        logits.ln_ratio,
        logits.ln_ratio_se
    );
    out += &format!(
        "KL divergence mean {:.5} +- {:.5}, median {:.5}, 99 % {:.4} nats\n",
        logits.kl_mean, logits.kl_mean_se, logits.kl_median, logits.kl_p99
    );
    out += &format!(
        "same most likely token {:.2} %, of the five most likely {:.2} %\n",
        100.0 * logits.top1,
        100.0 * logits.top5
    );
    if let (Some(correlation), Some(cosine)) = (logits.logit_correlation, logits.logit_cosine) {
        out += &format!("logits: correlation {correlation:.5}, cosine {cosine:.5}\n");
    }
    out + &outputs(&against.layers, &against.maps)
}

/// A line about the outputs of all layers, and one about those of linear maps.
pub(super) fn outputs(layers: &SignalReport, maps: &SignalReport) -> String {
    let mut out = String::new();
    for (what, report) in [("layers", layers), ("linear maps", maps)] {
        let (Some(correlation), Some(worst)) = (report.mean_correlation, &report.worst) else { continue };
        out += &format!("outputs of {what}: mean correlation {correlation:.5}");
        if let Some(mean) = report.mean_snr_db {
            let pooled = report.snr_db.map_or(String::new(), |snr| format!(" (pooled {} dB)", decibel(snr)));
            out += &format!(", mean SNR {} dB{pooled}", decibel(mean));
        }
        let snr = report.worst_snr_db.map_or(String::new(), |snr| format!(" with {} dB", decibel(snr)));
        out += &format!("; worst is {}{snr}\n", escape(worst));
    }
    out
}

/// A table of layers and one of linear maps.
pub(super) fn tables(layers: &SignalReport, maps: &SignalReport) -> String {
    signals("layer", layers) + &signals("linear map", maps)
}

fn signals(title: &str, report: &SignalReport) -> String {
    let mut table = Table::new(&[title, ">SNR", ">correlation", ">cosine"]);
    for row in &report.rows {
        let number = |x: Option<f64>| x.map_or("-".to_owned(), |x| format!("{x:.5}"));
        let f = &row.figures;
        table.row(vec![escape(&row.name), decibel(f.snr_db), number(f.correlation), number(f.cosine)]);
    }
    format!("\n{}", table.render())
}
