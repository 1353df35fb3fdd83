//! `lsb diff`

use super::threads::Threads;
use super::value::ram_mb;
use crate::Common;
use crate::exit::Outcome;
use crate::render::model::shape;
use crate::render::number::bytes;
use crate::render::progress::{Progress, Unit};
use crate::render::table::Table;
use crate::render::{figures, kind, print, print_json};
use lsb_format::escape;
use lsb_quant::Registry;
use lsb_stream::source::OpenOptions;
use lsb_stream::{Budget, open_weights};
use lsb_validate::{Compare, DiffState, TensorDiff, TensorSide, summarize};
use serde_json::json;
use std::path::PathBuf;

/// Compare two models or packages tensor by tensor
///
/// Either side may be a model or a package. Differences are no failure: the exit code is 0.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lsb diff out/llama-2bit out/llama-3bit")]
pub(crate) struct Args {
    /// One model or package
    #[arg(value_name = "A")]
    a: PathBuf,

    /// The other
    #[arg(value_name = "B")]
    b: PathBuf,

    /// List every tensor, identical ones too, not one row per kind
    #[arg(long)]
    full: bool,

    /// Memory the process may use, in MB
    #[arg(long, value_name = "MB", default_value_t = 400, value_parser = ram_mb)]
    target_ram_mb: u64,

    #[command(flatten)]
    threads: Threads,
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    args.threads.start()?;
    let (registry, options) = (Registry::standard(), OpenOptions::default());
    let a = open_weights(&args.a, &registry, &options)?;
    let b = open_weights(&args.b, &registry, &options)?;
    let budget = Budget::for_process(args.target_ram_mb);
    let progress = Progress::new(common, Unit::Weights);
    let comparison =
        Compare::new(&*a, &*b, &budget).on_progress(|p| progress.set(p.done, p.total, p.tensor)).run()?;
    progress.finish();
    let tensors: Vec<TensorDiff> = comparison.tensors.into_iter().map(TensorDiff::from).collect();
    let summary = summarize(&tensors);
    if common.json {
        return print_json(&json!({"a": args.a, "b": args.b, "summary": summary, "tensors": tensors}));
    }
    let titles = ["tensors", ">count", "state", "A", "B", ">bytes A", ">bytes B"];
    let mut table = Table::new(&[&titles[..], &figures::TITLES[..]].concat());
    let shown: Vec<&TensorDiff> =
        tensors.iter().filter(|t| args.full || t.state != DiffState::Identical).collect();
    if args.full {
        shown.iter().for_each(|t| table.row(row(&escape(&t.name), &[t])));
    } else {
        let label = |t: &TensorDiff| format!("{} {} {}", state(t), side(&t.a), side(&t.b));
        let groups = kind::groups(shown.iter().copied(), |t| &t.name, label);
        groups.iter().for_each(|g| table.row(row(&escape(&g.title), &g.members)));
    }
    let mut out = if shown.is_empty() { String::new() } else { table.render() };
    if !args.full && !shown.is_empty() {
        out += "  figures are those of the worst tensor of a row; --full lists every tensor\n";
    }
    if !shown.is_empty() {
        out += "\n";
    }
    for t in &tensors {
        if let Some(why) = &t.explanation {
            out += &format!("{}: {why}\n", escape(&t.name));
        }
    }
    out += &format!(
        "{} identical, {} different, {} only in A, {} only in B; {} against {}\n",
        summary.identical,
        summary.different,
        summary.only_in_a,
        summary.only_in_b,
        bytes(summary.bytes_a),
        bytes(summary.bytes_b)
    );
    print(&out)
}

fn state(t: &TensorDiff) -> &'static str {
    match t.state {
        DiffState::OnlyInA => "only in A",
        DiffState::OnlyInB => "only in B",
        DiffState::Identical => "identical",
        DiffState::Differs if t.error.is_some_and(|e| e.exact) => "same values",
        DiffState::Differs => "differs",
        DiffState::Mismatch => "mismatch",
    }
}

/// Type, shape and codec of a side.
fn side(side: &Option<TensorSide>) -> String {
    side.as_ref().map_or("-".into(), |s| {
        let codec = s.codec.as_deref().map(|c| format!(" {}", escape(c))).unwrap_or_default();
        format!("{} {}{codec}", s.dtype, shape(&s.shape))
    })
}

/// Tensors of one kind in the same state: bytes summed, the figures those of the worst.
fn row(title: &str, tensors: &[&TensorDiff]) -> Vec<String> {
    let stored = |of: &dyn Fn(&TensorDiff) -> Option<u64>| {
        let sizes: Vec<u64> = tensors.iter().filter_map(|t| of(t)).collect();
        if sizes.is_empty() { "-".to_owned() } else { bytes(sizes.iter().sum()) }
    };
    let worst = tensors
        .iter()
        .filter_map(|t| t.error.as_ref())
        .min_by(|a, b| a.weight_snr_db.total_cmp(&b.weight_snr_db));
    let first = tensors.first();
    let mut cells = vec![
        title.to_owned(),
        tensors.len().to_string(),
        first.map_or("-", |t| state(t)).to_owned(),
        first.map_or("-".into(), |t| side(&t.a)),
        first.map_or("-".into(), |t| side(&t.b)),
        stored(&|t| t.a.as_ref().map(|s| s.bytes)),
        stored(&|t| t.b.as_ref().map(|s| s.bytes)),
    ];
    match worst {
        Some(error) => cells.extend(figures::cells(Some(error))),
        None => cells.extend(["-", "-", "-"].map(str::to_owned)),
    }
    cells
}
