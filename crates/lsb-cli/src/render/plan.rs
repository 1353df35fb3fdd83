//! A plan, and which targets can hold together under it.

use super::codec::CodecLabels;
use super::compress::bits;
use super::finite;
use super::kind::groups;
use super::number::{bytes, count, decibel};
use super::table::Table;
use lsb_format::escape;
use lsb_stream::{Plan, PlannedTensor};
use lsb_validate::feasibility::{ConflictKind, Feasibility};
use serde_json::{Value, json};

/// The JSON of `lsb plan`: the plan's own fields, and what follows from them.
pub(crate) fn json(plan: &Plan, judged: &Feasibility) -> Value {
    let mut out = json!(plan);
    out["bpw"] = finite(plan.bpw());
    out["ratio"] = finite(plan.ratio());
    out["conflicts"] = json!(judged.conflicts);
    out["notes"] = json!(judged.notes);
    out
}

/// What a person sees after `lsb plan`: a row per kind of tensor, or with `full` per tensor.
pub(crate) fn text(plan: &Plan, judged: &Feasibility, full: bool) -> String {
    let stored = || plan.tensors.iter().filter(|t| t.same_as.is_none());
    let labels = CodecLabels::new(stored().map(|t| (t.codec.as_str(), &t.parameters)));
    let label = |t: &PlannedTensor| labels.label(&t.codec, &t.parameters);
    let mut out = if full {
        let titles = ["tensor", ">weights", "codec", ">bpw", ">SNR dB", "because"];
        let mut table = Table::new(&titles);
        stored().for_each(|t| table.row([vec![escape(&t.name)], row(&[t], label(t))].concat()));
        table.render()
    } else {
        let titles = ["tensors", ">count", ">weights", "codec", ">bpw", ">SNR dB", "because"];
        let mut table = Table::new(&titles);
        for group in groups(stored(), |t| t.name.as_str(), |t| format!("{} {}", label(t), t.reason)) {
            let codec = group.members.first().map(|t| label(t)).unwrap_or_default();
            let start = vec![escape(&group.title), group.members.len().to_string()];
            table.row([start, row(&group.members, codec)].concat());
        }
        table.render()
    };
    out += &labels.legend();
    for t in &plan.tensors {
        if let Some(keeper) = &t.same_as {
            out += &format!("  {} will be stored once, as {}\n", escape(&t.name), escape(keeper));
        }
    }
    out += &totals(plan);
    for warning in &plan.warnings {
        out += &format!("warning: {warning}\n");
    }
    for conflict in &judged.conflicts {
        let what = match conflict.kind {
            ConflictKind::Impossible => "cannot hold together",
            ConflictKind::Codec => "not expected to hold",
        };
        out += &format!("\n{what}: {}\n  {}\n", conflict.targets.join(" and "), conflict.explanation);
    }
    for note in &judged.notes {
        out += &format!("\nnote: {note}\n");
    }
    out
}

/// Everything behind the name and the count.
fn row(members: &[&PlannedTensor], codec: String) -> Vec<String> {
    let weights = members.iter().map(|t| t.weights).sum();
    let stored = members.iter().map(|t| t.predicted_bytes).sum();
    // Predictions depend on shapes a little: the worst one is the promise.
    let snr = members.iter().filter_map(|t| t.predicted_snr_db).min_by(f64::total_cmp);
    let reason = members.first().map(|t| t.reason.clone()).unwrap_or_default();
    vec![count(weights), codec, bits(stored, weights), decibel(snr.unwrap_or(f64::INFINITY)), reason]
}

fn totals(plan: &Plan) -> String {
    let mut out = format!(
        "\n{}: {} -> about {}, ratio {:.2}, {} bits per weight\n",
        escape(&plan.model),
        bytes(plan.source_bytes),
        bytes(plan.predicted_bytes),
        plan.ratio(),
        bits(plan.predicted_bytes, plan.weights)
    );
    out +=
        &format!("peak memory about {} of {}", bytes(plan.predicted_ram_bytes), bytes(plan.ram_limit_bytes));
    match plan.streamed_tensors {
        0 => {}
        1 => out += "; one tensor does not fit and is read in row tiles, more than once",
        n => out += &format!("; {n} tensors do not fit and are read in row tiles, more than once"),
    }
    out + "\n"
}
