//! `lsb eval`

use super::running::Running;
use super::text::{TextOptions, sentences};
use crate::Common;
use crate::exit::{Failure, Outcome};
use crate::render::evaluation::{self, Cost};
use crate::render::progress::{Progress, Unit};
use crate::render::{embeddings, print, print_json};
use lsb_model::{ModelRunner, Pooling};
use lsb_validate::evaluate::{
    EmbeddingEvaluation, EvaluateOptions, EvaluateProgress, evaluate, evaluate_against_reference,
    evaluate_embeddings, save_reference,
};
use lsb_validate::logits::Reference;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Measure how well a model or a package predicts a text
///
/// With --against, the original goes through the text beside it, a block of each at a time: no logits are stored,
/// and both together stay inside the memory that is allowed. The figures come with the protocol that produced
/// them; figures of different protocols do not compare.
///
/// A sentence encoder predicts nothing. Each line of the text that is not blank is then a sentence, and its vector is
/// compared with that of the original, which --against must name; pooling and tokenizer are the original's.
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
    // The original first: of the two it needs more memory.
    let models = 1 + u64::from(args.against.is_some());
    let open = |path: &PathBuf| args.running.open(path, &budget, models);
    let original = args.against.as_ref().map(open).transpose()?;
    let model = open(&args.path)?;
    let cost = |original: Option<&ModelRunner>| {
        let read = |model: &ModelRunner| model.figures().bytes_read;
        let bytes_read = read(&model) + original.map_or(0, read);
        Cost { seconds: start.elapsed().as_secs_f64(), bytes_read }
    };
    if model.logits() == 0 {
        let original = args.original(original.as_ref())?;
        let found = args.embeddings(original, &model, common)?;
        let cost = cost(Some(original.0));
        return if common.json {
            print_json(&embeddings::json(&found, &cost))
        } else {
            print(&embeddings::text(&found, &cost, args.full))
        };
    }
    let text = args.text.read(&args.path)?;
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
    let (found, cost) = (found?, cost(original.as_ref()));
    if common.json {
        print_json(&evaluation::json(&found, &cost))
    } else {
        print(&evaluation::text(&found, &cost, args.full))
    }
}

impl Args {
    /// The original of an encoder, and its folder.
    fn original<'a>(
        &'a self,
        original: Option<&'a ModelRunner>,
    ) -> Result<(&'a ModelRunner, &'a Path), Failure> {
        let flags = [("--reference", &self.reference), ("--save-reference", &self.save_reference)];
        if let Some((flag, _)) = flags.into_iter().find(|(_, file)| file.is_some()) {
            return Err(Failure::usage(format!(
                "{flag} is a file of predictions, and an encoder predicts nothing: use --against"
            )));
        }
        original.zip(self.against.as_deref()).ok_or_else(|| {
            Failure::usage("an encoder is judged beside its original: name that with --against")
        })
    }

    fn embeddings(
        &self,
        (original, folder): (&ModelRunner, &Path),
        model: &ModelRunner,
        common: Common,
    ) -> Result<EmbeddingEvaluation, Failure> {
        let sentences = sentences(&self.text.text, folder, model.spec().context, &self.text.cut)?;
        let pooling = Pooling::open(folder)?;
        let progress = Progress::new(common, Unit::Steps);
        let options = EvaluateOptions { map_tokens: self.map_tokens };
        let found = evaluate_embeddings(original, model, &sentences, pooling, options, &mut |p| {
            progress.set(p.done, p.total, p.what);
        });
        progress.finish();
        Ok(found?)
    }
}
