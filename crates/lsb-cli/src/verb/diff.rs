//! `lsb diff`

use crate::Common;
use crate::exit::Outcome;
use crate::render::number::{bytes, decibel};
use crate::render::table::Table;
use crate::render::{print, print_json};
use lsb_quant::Registry;
use lsb_stream::source::OpenOptions;
use lsb_stream::{Budget, open_weights};
use lsb_validate::{DiffState, TensorDiff, diff, summarize};
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
    #[arg(long, value_name = "MB", default_value_t = 400)]
    target_ram_mb: u64,
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    let (registry, options) = (Registry::standard(), OpenOptions::default());
    let a = open_weights(&args.a, &registry, &options)?;
    let b = open_weights(&args.b, &registry, &options)?;
    let budget = Budget::for_process(args.target_ram_mb);
    let tensors = diff(&*a, &*b, &budget)?;
    let summary = summarize(&tensors);
    if common.json {
        return print_json(&json!({"a": args.a, "b": args.b, "summary": summary, "tensors": tensors}));
    }
    let mut table =
        Table::new(&["tensor", "state", "A", "B", ">bytes A", ">bytes B", ">SNR dB", ">correlation"]);
    let mut rows = 0;
    for t in tensors.iter().filter(|t| args.full || t.state != DiffState::Identical) {
        rows += 1;
        table.row(row(t));
    }
    let mut out = if rows == 0 { String::new() } else { table.render() + "\n" };
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
    let side = |s: &Option<lsb_validate::TensorSide>| match s {
        None => "-".to_owned(),
        Some(s) => {
            format!("{} {:?} {}", s.dtype, s.shape, s.codec.as_deref().unwrap_or("")).trim().to_owned()
        }
    };
    let stored =
        |s: &Option<lsb_validate::TensorSide>| s.as_ref().map_or("-".into(), |s| s.bytes.to_string());
    let state = match t.state {
        DiffState::OnlyInA => "only in A",
        DiffState::OnlyInB => "only in B",
        DiffState::Identical => "identical",
        DiffState::Differs => "differs",
        DiffState::Mismatch => "mismatch",
    };
    vec![
        lsb_format::escape(&t.name),
        state.into(),
        side(&t.a),
        side(&t.b),
        stored(&t.a),
        stored(&t.b),
        t.error.map_or("-".into(), |e| decibel(e.weight_snr_db)),
        t.error.and_then(|e| e.correlation).map_or("-".into(), |c| format!("{c:.6}")),
    ]
}
