//! `lsb calibrate`

use super::options::Calibration;
use super::parents::Parents;
use super::value::{ram_mb, threads};
use crate::Common;
use crate::exit::{Failure, Outcome};
use crate::render::number::{bytes, count};
use crate::render::progress::{Progress, Unit};
use crate::render::table::Table;
use crate::render::{print, print_json};
use lsb_format::escape;
use lsb_model::{SaveOptions, SavedCalibration, SavedStatistics, TextCalibration, save_statistics};
use lsb_stream::source::{Model, OpenOptions};
use lsb_stream::store::RealStore;
use lsb_stream::{Budget, CompressConfig, peak_rss_bytes};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Run a model once and save what compression needs to know of it
///
/// Saves second moments of the inputs of every linear map, and what errors of its outputs cost, in one safetensors
/// file. `lsb compress --calib FILE` then compresses without running the model, as often as wanted, with any codec
/// made for calibration and to any size. Inputs are those of the original: later tensors do not make up for errors of
/// earlier ones, so that a package calibrated while it is compressed is a little better. The file is large: two bytes
/// for each pair of inputs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    lsb calibrate models/llama -o llama.stats.safetensors --calib-tokens 65536\n  \
    lsb compress models/llama -o out/llama-3 --bpw 3 --codec trellis --calib llama.stats.safetensors\n  \
    lsb compress models/llama -o out/llama-2 --bpw 2 --codec trellis --calib llama.stats.safetensors")]
pub(crate) struct Args {
    /// Model directory, or id in the local Hub cache
    #[arg(value_name = "MODEL")]
    model: PathBuf,

    /// File of statistics to make
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    #[command(flatten)]
    calibration: Calibration,

    /// Replace an existing file
    #[arg(long)]
    overwrite: bool,

    /// Memory the process may use, in MB
    #[arg(long, value_name = "MB", default_value_t = 400, value_parser = ram_mb)]
    target_ram_mb: u64,

    /// Number of threads; 0 for one per physical core
    #[arg(short, long, value_name = "N", default_value_t = 0, value_parser = threads)]
    threads: usize,
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    let start = Instant::now();
    super::refuse_package(&args.model)?;
    let mut config = CompressConfig::default();
    args.calibration.lay_over(&mut config);
    if SavedCalibration::from_config(&config)?.is_some() {
        return Err(Failure::usage("--calib names statistics that are saved already; it takes a text here"));
    }
    let Some(text) = TextCalibration::from_config(&config)? else {
        return Err(Failure::usage("there is nothing to save of --calib none; name a text, or leave it out"));
    };
    super::threads::start(args.threads)?;
    let model = Model::open(&args.model, &OpenOptions::default())?;
    let _parents = Parents::of(&args.output)?;
    let options = SaveOptions {
        output: args.output.clone(),
        overwrite: args.overwrite,
        budget: Budget::for_process(args.target_ram_mb),
        store: Arc::new(RealStore),
        interrupt: super::interrupt_flag()?,
    };
    let progress = Progress::new(common, Unit::Steps);
    let saved = save_statistics(&model, &text, &options, &mut |done, total, what| {
        progress.set(done as u64, total as u64, what);
    });
    progress.finish();
    let saved = saved?;
    let seconds = start.elapsed().as_secs_f64();
    if common.json {
        let widest = saved.widest.as_ref().map(|(tensor, n)| json!({"tensor": tensor, "inputs": n}));
        return print_json(&json!({
            "output": args.output, "model": model.name(), "tokens": saved.tokens, "maps": saved.maps,
            "inputs": saved.inputs, "widest": widest, "bytes": saved.bytes, "seconds": seconds,
            "peak_rss_bytes": peak_rss_bytes(), "notes": saved.notes,
        }));
    }
    print(&table(args, &saved, seconds))
}

fn table(args: &Args, saved: &SavedStatistics, seconds: f64) -> String {
    let mut table = Table::new(&["saved", ">"]);
    let mut row = |what: &str, value: String| table.row(vec![what.to_owned(), value]);
    row("linear maps", saved.maps.to_string());
    row("different inputs", saved.inputs.to_string());
    row("tokens", count(saved.tokens as u64));
    if let Some((_, n)) = &saved.widest {
        row("largest matrix", format!("{n} x {n}"));
    }
    row("file", bytes(saved.bytes));
    row("seconds", format!("{seconds:.2}"));
    row("peak memory", format!("{} of {}", bytes(peak_rss_bytes()), bytes(args.target_ram_mb * 1_000_000)));
    let mut out = table.render();
    for note in &saved.notes {
        out += &format!("{}\n", escape(note));
    }
    out + &format!(
        "{}: use it with lsb compress MODEL --calib {}\n",
        escape(&args.output.display().to_string()),
        escape(&args.output.display().to_string())
    )
}
