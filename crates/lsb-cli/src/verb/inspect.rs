//! `lsb inspect`

use crate::Common;
use crate::exit::Outcome;
use crate::render::model::ModelFacts;
use crate::render::package::PackageFacts;
use crate::render::{print, print_json};
use lsb_format::package::MANIFEST_FILE;
use lsb_stream::package::Package;
use lsb_stream::source::{Model, OpenOptions};
use std::path::PathBuf;

/// Show what a package or a model holds
///
/// Reads names and headers, no weights. A package is a directory with a manifest, lsb.json; anything else is
/// opened as a model.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lsb inspect out/llama --full")]
pub(crate) struct Args {
    /// Package directory, model directory, .safetensors file, or id in the local Hub cache
    #[arg(value_name = "PATH")]
    path: PathBuf,

    /// List every tensor
    #[arg(long)]
    full: bool,
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    if args.path.join(MANIFEST_FILE).exists() {
        let package = Package::open(&args.path)?;
        let facts = PackageFacts::of(&package)?;
        return if common.json { print_json(&facts.json()) } else { print(&facts.text(args.full)) };
    }
    let model = Model::open(&args.path, &OpenOptions::default())?;
    let facts = ModelFacts::of(&model);
    if common.json { print_json(&facts.json()) } else { print(&facts.text(args.full)) }
}
