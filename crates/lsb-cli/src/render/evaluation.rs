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
            out += &signals("layer", &against.layers);
            out += &signals("linear map", &against.maps);
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
    out + &format!(
        "{:.1} s, {} read, peak memory {}\n",
        cost.seconds,
        bytes(cost.bytes_read),
        bytes(peak_rss_bytes())
    )
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
    for (what, report) in [("layers", &against.layers), ("linear maps", &against.maps)] {
        if let (Some(mean), Some(worst)) = (report.mean_correlation, &report.worst) {
            let snr = report.worst_snr_db.map_or(String::new(), |snr| format!(" with {}", decibel(snr)));
            out +=
                &format!("outputs of {what}: mean correlation {mean:.5}; worst is {}{snr}\n", escape(worst));
        }
    }
    out
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
