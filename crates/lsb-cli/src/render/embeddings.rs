//! An evaluation of a sentence encoder, for people and machines.

use super::evaluation::{Cost, outputs, tables};
use lsb_model::PoolingKind;
use lsb_stream::peak_rss_bytes;
use lsb_validate::evaluate::EmbeddingEvaluation;
use serde_json::{Value, json};

/// The document with the keys that `docs/command-line.md` promises.
pub(crate) fn json(found: &EmbeddingEvaluation, cost: &Cost) -> Value {
    let mut out = json!(found);
    out["seconds"] = json!(cost.seconds);
    out["bytes_read"] = json!(cost.bytes_read);
    out["peak_rss_bytes"] = json!(peak_rss_bytes());
    out
}

/// The figures without protocol and cost.
pub(crate) fn figures(found: &EmbeddingEvaluation) -> String {
    let error = if found.cosine_mean_se.is_finite() {
        format!(" +- {:.5}", found.cosine_mean_se)
    } else {
        String::new()
    };
    let mut out = format!(
        "cosine with the original mean {:.5}{error}, 1 % below {:.5}, lowest {:.5}\n",
        found.cosine_mean, found.cosine_p1, found.cosine_min
    );
    if found.broken_sentences > 0 {
        out += &format!("sentences whose vector is zero or no number: {}\n", found.broken_sentences);
    }
    out + &outputs(&found.layers, &found.maps)
}

pub(crate) fn text(found: &EmbeddingEvaluation, cost: &Cost, full: bool) -> String {
    let mut out = figures(found);
    if full {
        out += &tables(&found.layers, &found.maps);
    }
    let pooling = match found.pooling.kind {
        PoolingKind::Mean => "the mean over tokens",
        PoolingKind::First => "the first token",
    };
    out += &format!(
        "\nprotocol: {} sentences of {} tokens in all; vectors are {pooling}{}\n",
        found.sentences,
        found.tokens,
        if found.pooling.normalize { ", normalized" } else { "" }
    );
    out += &format!("ids BLAKE3 {}\n", found.ids_blake3);
    out + &cost.text()
}
