//! `lsb diff`

use super::value::ram_mb;
use crate::Common;
use crate::exit::Outcome;
use crate::render::model::shape;
use crate::render::number::bytes;
use crate::render::progress::{Progress, Unit};
use crate::render::table::Table;
use crate::render::{figures, print, print_json};
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

    /// List identical tensors too
    #[arg(long)]
    full: bool,

    /// Memory the process may use, in MB
    #[arg(long, value_name = "MB", default_value_t = 400, value_parser = ram_mb)]
    target_ram_mb: u64,
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
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
    let titles = ["tensor", "state", "A", "B", ">bytes A", ">bytes B"];
    let mut table = Table::new(&[&titles[..], &figures::TITLES[..]].concat());
    let shown = |t: &&TensorDiff| args.full || t.state != DiffState::Identical;
    tensors.iter().filter(shown).for_each(|t| table.row(row(t)));
    let mut out = if tensors.iter().any(|t| shown(&t)) { table.render() + "\n" } else { String::new() };
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

fn row(t: &TensorDiff) -> Vec<String> {
    let describe = |s: &TensorSide| {
        let codec = s.codec.as_deref().map(|c| format!(" {c}")).unwrap_or_default();
        format!("{} {}{codec}", s.dtype, shape(&s.shape))
    };
    let side = |s: &Option<TensorSide>| s.as_ref().map_or("-".into(), describe);
    let stored = |s: &Option<TensorSide>| s.as_ref().map_or("-".into(), |s| s.bytes.to_string());
    let state = match t.state {
        DiffState::OnlyInA => "only in A",
        DiffState::OnlyInB => "only in B",
        DiffState::Identical => "identical",
        DiffState::Differs => "differs",
        DiffState::Mismatch => "mismatch",
    };
    let mut cells = vec![escape(&t.name), state.into(), side(&t.a), side(&t.b), stored(&t.a), stored(&t.b)];
    match &t.error {
        Some(error) => cells.extend(figures::cells(Some(error))),
        None => cells.extend(["-", "-", "-"].map(str::to_owned)),
    }
    cells
}
