//! `lsb decompress`

use super::parents::Parents;
use super::value::{ram_mb, threads};
use crate::Common;
use crate::exit::Outcome;
use crate::render::number::{bytes, parse_bytes};
use crate::render::progress::{Progress, Unit};
use crate::render::{print, print_json};
use lsb_format::DType;
use lsb_quant::Registry;
use lsb_stream::store::{RealStore, Store};
use lsb_stream::{DecompressOptions, decompress};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

/// Turn a package back into a Hugging Face model directory
///
/// Every file that was copied into the package comes back beside the weights. Tensors of exact codecs have the
/// source's own bytes; with another --dtype all float tensors are converted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lsb decompress out/llama -o restored/llama --dtype bf16")]
pub(crate) struct Args {
    /// Package directory
    #[arg(value_name = "PACKAGE")]
    package: PathBuf,

    /// Model directory to make
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// Element type of float tensors: bf16, f16, f32, or original
    #[arg(long, value_name = "TYPE", default_value = "original", value_parser = parse_dtype)]
    dtype: Choice,

    /// Replace an existing directory
    #[arg(long)]
    overwrite: bool,

    /// Memory the process may use, in MB
    #[arg(long, value_name = "MB", default_value_t = 400, value_parser = ram_mb)]
    target_ram_mb: u64,

    /// Number of threads; 0 for one per physical core
    #[arg(short, long, value_name = "N", default_value_t = 0, value_parser = threads)]
    threads: usize,

    /// Largest weight file to make, such as 5GB
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = parse_bytes)]
    shard_size: u64,
}

/// An element type, or that of the source.
#[derive(Clone, Copy, Debug)]
struct Choice(Option<DType>);

fn parse_dtype(text: &str) -> Result<Choice, String> {
    match text.to_ascii_lowercase().as_str() {
        "original" => Ok(Choice(None)),
        "bf16" => Ok(Choice(Some(DType::BF16))),
        "f16" => Ok(Choice(Some(DType::F16))),
        "f32" => Ok(Choice(Some(DType::F32))),
        _ => Err("it must be bf16, f16, f32 or original".into()),
    }
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    let mut options = DecompressOptions::new(&args.package, &args.output);
    options.dtype = args.dtype.0;
    options.overwrite = args.overwrite;
    options.target_ram_mb = args.target_ram_mb;
    options.threads = args.threads;
    options.shard_bytes = args.shard_size;
    let _parents = Parents::of(&args.output)?;
    let store: Arc<dyn Store> = Arc::new(RealStore);
    let mut progress = Progress::new(common, Unit::Bytes);
    let report = decompress(&options, &Registry::standard(), &store, &mut progress)?;
    progress.finish();
    if common.json {
        return print_json(&json!({
            "output": report.output, "tensors": report.tensors, "exact_tensors": report.exact_tensors,
            "bytes": report.bytes, "seconds": report.seconds, "peak_rss_bytes": report.peak_rss_bytes,
        }));
    }
    print(&format!(
        "{}: {} tensors ({} bit for bit the original), {} in {:.2} s, peak memory {}\n",
        report.output.display(),
        report.tensors,
        report.exact_tensors,
        bytes(report.bytes),
        report.seconds,
        bytes(report.peak_rss_bytes)
    ))
}
