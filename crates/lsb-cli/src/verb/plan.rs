//! `lsb plan`

use super::limits::Limits;
use super::options::Options;
use crate::Common;
use crate::exit::{Failure, Outcome};
use crate::render::number::{bytes, count};
use crate::render::table::Table;
use crate::render::{print, print_json};
use lsb_stream::{CompressConfig, LoopCompressor, Plan};
use lsb_validate::QualityTargets;
use lsb_validate::feasibility::{Feasibility, Prediction, SourceFacts, feasibility};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Predict size and memory before reading weights
///
/// Says which codec each tensor would get and why, and which of the targets given cannot hold together.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lsb plan models/llama --ratio 5.63 --min-snr 40")]
pub(crate) struct Args {
    /// Model directory, .safetensors file, or id in the local Hub cache
    #[arg(value_name = "MODEL")]
    model: PathBuf,

    /// List every tensor
    #[arg(long)]
    full: bool,

    /// Write a TOML recipe that makes this plan again
    #[arg(long, value_name = "FILE")]
    emit_recipe: Option<PathBuf>,

    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    limits: Limits,
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    let config = args.options.config()?;
    if let Some(path) = &args.emit_recipe {
        let text = toml::to_string(&config).map_err(|e| Failure::usage(e.to_string()))?;
        std::fs::write(path, text).map_err(lsb_stream::Error::io("write", path))?;
    }
    show(&args.model, config, &args.limits, args.full, common)
}

/// Plans and prints; also what `compress --dry-run` does.
pub(crate) fn show(
    model: &Path,
    config: CompressConfig,
    limits: &Limits,
    full: bool,
    common: Common,
) -> Outcome {
    let base = QualityTargets { max_storage_gb: Some(config.target_storage_gb), ..QualityTargets::none() };
    let mut targets = limits.over(base);
    match config.target {
        Some(lsb_stream::Target::Ratio(x)) => targets.min_ratio = targets.min_ratio.or(Some(x)),
        Some(lsb_stream::Target::Bpw(x)) => targets.max_bpw = targets.max_bpw.or(Some(x)),
        Some(lsb_stream::Target::Bytes(n)) => targets.max_storage_gb = Some(n as f64 / 1e9),
        None => {}
    }
    let plan = LoopCompressor::new(config).with_check(Arc::new(lsb_model::ConfigCheck)).plan(model)?;
    let judged = feasibility(&targets, &SourceFacts::from(&plan), Some(&Prediction::from(&plan)));
    if common.json {
        let mut out = serde_json::to_value(&plan).map_err(|e| Failure::usage(e.to_string()))?;
        out["bpw"] = json!(plan.bpw());
        out["ratio"] = json!(plan.ratio());
        out["conflicts"] = json!(judged.conflicts);
        out["notes"] = json!(judged.notes);
        return print_json(&out);
    }
    print(&text(&plan, &judged, full))
}

fn text(plan: &Plan, judged: &Feasibility, full: bool) -> String {
    let mut table =
        Table::new(&["tensor", ">weights", "codec", ">bits/weight", ">expected SNR dB", "because"]);
    let mut seen = BTreeSet::new();
    for t in &plan.tensors {
        let codec = format!("{} {}", t.codec, t.parameters);
        // Without --full, one row per kind of tensor: the name without its numbers.
        let kind = t.name.split('.').filter(|p| p.parse::<u64>().is_err()).collect::<Vec<_>>().join(".");
        if !seen.insert((kind.clone(), codec.clone())) && !full {
            continue;
        }
        let bpw = 8.0 * t.predicted_bytes as f64 / t.weights.max(1) as f64;
        table.row(vec![
            lsb_format::escape(if full { &t.name } else { &kind }),
            count(t.weights),
            codec.trim().to_owned(),
            if t.same_as.is_some() { "-".into() } else { format!("{bpw:.3}") },
            t.predicted_snr_db.map_or("exact".into(), |s| format!("{s:.2}")),
            match &t.same_as {
                Some(other) => format!("same as {}", lsb_format::escape(other)),
                None => t.reason.clone(),
            },
        ]);
    }
    let mut out = table.render();
    if !full && seen.len() < plan.tensors.len() {
        out += &format!("  ({} tensors in all; --full lists them)\n", plan.tensors.len());
    }
    out += &format!(
        "\n{}: {} -> about {}, ratio {:.2}, {:.3} bits per weight\n",
        lsb_format::escape(&plan.model),
        bytes(plan.source_bytes),
        bytes(plan.predicted_bytes),
        plan.ratio(),
        plan.bpw()
    );
    out +=
        &format!("peak memory about {} of {}", bytes(plan.predicted_ram_bytes), bytes(plan.ram_limit_bytes));
    if plan.streamed_tensors > 0 {
        out += &format!(
            "; {} tensors do not fit and are read in row tiles, more than once",
            plan.streamed_tensors
        );
    }
    out += "\n";
    for warning in &plan.warnings {
        out += &format!("warning: {warning}\n");
    }
    for conflict in &judged.conflicts {
        out += &format!(
            "\ncannot hold together: {}\n  {}\n",
            conflict.targets.join(" and "),
            conflict.explanation
        );
    }
    for note in &judged.notes {
        out += &format!("\nnote: {note}\n");
    }
    out
}
