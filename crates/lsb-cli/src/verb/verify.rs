//! `lsb verify`

use crate::Common;
use crate::exit::{Failure, Outcome};
use crate::render::number::bytes;
use crate::render::{print, print_json};
use lsb_stream::package::{Depth, verify};
use serde_json::json;
use std::path::PathBuf;

/// Check a package for damage, down to the tile
///
/// Reads every byte unless --quick or --weights is given. Damage is listed by file, tensor and tile, and makes
/// the exit code 3.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lsb verify out/llama --quick")]
pub(crate) struct Args {
    /// Package directory
    #[arg(value_name = "PACKAGE")]
    package: PathBuf,

    /// Check the manifest, sizes, headers and tile tables only
    #[arg(long, conflicts_with = "weights")]
    quick: bool,

    /// Check every byte; this is the default
    #[arg(long, conflicts_with_all = ["quick", "weights"])]
    full: bool,

    /// Check only what a decoder needs, not the copied files and documents
    #[arg(long)]
    weights: bool,
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    let depth = match (args.quick, args.weights) {
        (true, _) => Depth::Quick,
        (_, true) => Depth::Weights,
        _ => Depth::Full,
    };
    let report = verify(&args.package, depth)?;
    if common.json {
        let damaged: Vec<_> = report
            .damaged
            .iter()
            .map(|d| json!({"file": d.file, "tensor": d.tensor, "tile": d.tile, "message": d.message}))
            .collect();
        let all =
            json!({"ok": report.ok, "tensors": report.tensors, "bytes": report.bytes, "damaged": damaged});
        print_json(&all)?;
    } else {
        let mut out = String::new();
        for d in &report.damaged {
            let tensor = d.tensor.as_deref().map(|t| format!(", tensor \"{}\"", lsb_format::escape(t)));
            let tile = d.tile.map(|t| format!(", tile {t}"));
            out += &format!(
                "damaged: {}{}{}: {}\n",
                lsb_format::escape(&d.file),
                tensor.unwrap_or_default(),
                tile.unwrap_or_default(),
                d.message
            );
        }
        out += &format!(
            "{}: {}, {} tensors, {} checked\n",
            args.package.display(),
            match report.damaged.len() {
                0 => "ok".to_owned(),
                1 => "damaged in one place".to_owned(),
                n => format!("damaged in {n} places"),
            },
            report.tensors,
            bytes(report.bytes)
        );
        print(&out)?;
    }
    if report.ok { Ok(()) } else { Err(Failure::CheckFailed) }
}
