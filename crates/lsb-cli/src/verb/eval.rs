//! `lsb eval`

use super::running::Running;
use super::text::TextOptions;
use crate::Common;
use crate::exit::Outcome;
use crate::render::evaluation;
use crate::render::progress::{Progress, Unit};
use crate::render::{print, print_json};
use lsb_validate::evaluate::{
    EvaluateOptions, EvaluateProgress, evaluate, evaluate_against_reference, save_reference,
};
use lsb_validate::logits::Reference;
use std::path::PathBuf;
use std::time::Instant;

/// Measure how well a model or a package predicts a text
///
/// With --against, the original goes through the text beside it, a block of each at a time: no logits are stored,
/// and both together stay inside the memory that is allowed. The figures come with the protocol that produced
/// them; figures of different protocols do not compare.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  lsb eval out/llama --text eval.txt --against models/llama\n  \
    lsb eval out/llama --text wiki.test.raw --protocol llama.cpp --json")]
pub(crate) struct Args {
    /// Model or package
    #[arg(value_name = "PATH")]
    path: PathBuf,

    /// The original, to be run beside it
    #[arg(long, value_name = "MODEL")]
    against: Option<PathBuf>,

    /// Compare with the predictions of the original that --save-reference kept, instead of running it
    #[arg(long, value_name = "FILE", conflicts_with = "against")]
    reference: Option<PathBuf>,

    /// Keep the most likely tokens of each prediction in this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["against", "reference"])]
    save_reference: Option<PathBuf>,

    /// How many of them
    #[arg(long, value_name = "N", default_value_t = 64, requires = "save_reference")]
    top: usize,

    /// Tokens for which the outputs of each linear map are compared with --against; 0 compares none
    #[arg(long, value_name = "N", default_value_t = 2048, requires = "against")]
    map_tokens: usize,

    /// List every layer and every linear map
    #[arg(long)]
    full: bool,

    #[command(flatten)]
    text: TextOptions,
    #[command(flatten)]
    running: Running,
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    let start = Instant::now();
    let budget = args.running.begin()?;
    let text = args.text.read(&args.path)?;
    // The original first: of the two it needs more memory.
    let models = 1 + u64::from(args.against.is_some());
    let open = |path: &PathBuf| args.running.open(path, &budget, models);
    let original = args.against.as_ref().map(open).transpose()?;
    let model = open(&args.path)?;
    let protocol = args.text.protocol(&text, model.spec().context)?;
    let progress = Progress::new(common, Unit::Steps);
    let options = EvaluateOptions { map_tokens: args.map_tokens };
    let mut tell = |p: EvaluateProgress| progress.set(p.done, p.total, p.what);
    let found = match (&args.save_reference, &args.reference) {
        (Some(file), _) => {
            let name = args.path.display().to_string();
            save_reference(&model, &name, text.tokens(), &protocol, args.top, file, &mut tell)
        }
        (None, Some(file)) => {
            let reference = Reference::open(file)?;
            evaluate_against_reference(&model, &reference, text.tokens(), &protocol, &mut tell)
        }
        (None, None) => evaluate(&model, original.as_ref(), text.tokens(), &protocol, options, &mut tell),
    };
    progress.finish();
    let found = found?;
    let mut read = model.figures().bytes_read;
    read += original.map_or(0, |o| o.figures().bytes_read);
    let cost = evaluation::Cost { seconds: start.elapsed().as_secs_f64(), bytes_read: read };
    if common.json {
        print_json(&evaluation::json(&found, &cost))
    } else {
        print(&evaluation::text(&found, &cost, args.full))
    }
}
