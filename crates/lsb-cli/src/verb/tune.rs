//! `lsb tune`

use super::parents::Parents;
use super::running::Running;
use crate::Common;
use crate::exit::{Failure, Outcome};
use crate::render::progress::{Progress, Unit};
use crate::render::{print, print_json, say, tune as render};
use lsb_model::tune::{TuneOptions, TuneProgress, Tuned, scaled_sides, tunable, tune};
use lsb_model::{ModelRunner, SavedCalibration, TextCalibration, Tokenizer};
use lsb_quant::codec::trellis::feedback::FeedbackOptions;
use lsb_stream::package::Package;
use lsb_stream::retouch::{Retouch, Retouched, retouch};
use lsb_stream::store::RealStore;
use lsb_stream::{CompressConfig, Error};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Tokens of text to train on, and of one sequence.
const TOKENS: usize = 131_072;
const SEQLEN: usize = 512;
const STEPS: usize = 200;
const RATE: f64 = 2e-3;
const RESOLUTION: u32 = 5;

/// Train the scales of a package so that it predicts more like its original
///
/// The integers of every calibrated trellis tensor stay as they are; the scale of each of its rows and columns is moved
/// by gradient descent until the predictions come closer to the original's on a text, of which one window in eight is
/// held out as a check. The result is a new package. Needs memory for the gradients of one window besides what is
/// allowed. The same command takes up an interrupted training, whose state lies beside the output as OUT.training.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  lsb tune out/llama --against models/llama -o out/llama-tuned --steps 100"
)]
pub(crate) struct Args {
    /// Package directory
    #[arg(value_name = "PACKAGE")]
    package: PathBuf,

    /// The original
    #[arg(long, value_name = "MODEL", required = true)]
    against: PathBuf,

    /// Package directory to make
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// Replace an existing package
    #[arg(long)]
    overwrite: bool,

    #[command(flatten)]
    training: Training,
    #[command(flatten)]
    running: Running,
}

/// How scales are trained.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Training")]
pub(super) struct Training {
    /// Text to train on: a file, or `default` for the bundled one
    #[arg(long, value_name = "FILE", default_value = "default")]
    calib: String,

    /// Tokens of that text
    #[arg(long, value_name = "N", default_value_t = TOKENS)]
    calib_tokens: usize,

    /// Tokens of one sequence, as far as the model's context allows
    #[arg(long, value_name = "N", default_value_t = SEQLEN)]
    seqlen: usize,

    /// Seed of the order of sequences
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Steps at most, of eight sequences each; training ends earlier where nothing is gained
    #[arg(long, value_name = "N", default_value_t = STEPS)]
    steps: usize,

    /// How far the logarithm of a scale moves in a step at first
    #[arg(long, value_name = "X", default_value_t = RATE, value_parser = rate)]
    rate: f64,

    /// Scales are stored to 2^-N of an octave, N from 0 to 8
    #[arg(long, value_name = "N", default_value_t = RESOLUTION, value_parser = clap::value_parser!(u32).range(0..=8))]
    resolution: u32,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x > 0.0 && x <= 1.0 => Ok(x),
        _ => Err("it must be above 0 and at most 1".to_owned()),
    }
}

impl Default for Training {
    fn default() -> Self {
        Training {
            calib: "default".to_owned(),
            calib_tokens: TOKENS,
            seqlen: SEQLEN,
            seed: 0,
            steps: STEPS,
            rate: RATE,
            resolution: RESOLUTION,
        }
    }
}

impl Training {
    /// What tuning means for a compression with these options.
    pub(super) fn of(config: &CompressConfig, steps: Option<usize>) -> Training {
        // Saved statistics hold no text that could be trained on.
        let text = !matches!(SavedCalibration::from_config(config), Ok(Some(_)));
        let calib = config.calib.clone().filter(|_| text).unwrap_or_else(|| "default".to_owned());
        Training { calib, seed: config.seed, steps: steps.unwrap_or(STEPS), ..Training::default() }
    }

    /// Trains on the text that comes with the program.
    pub(super) fn use_bundled_text(&mut self) {
        self.calib = "default".to_owned();
    }

    fn options(&self) -> TuneOptions {
        TuneOptions { steps: self.steps, rate: self.rate, seed: self.seed, ..TuneOptions::default() }
    }

    /// Windows of the text, cut by the tokenizer in `folder`.
    fn windows(&self, folder: &Path, context: Option<usize>) -> Result<Vec<Vec<u32>>, Failure> {
        let mut config = CompressConfig::default();
        config.calib = Some(self.calib.clone());
        (config.calib_tokens, config.seqlen) = (self.calib_tokens, self.seqlen);
        let missing = || Failure::usage("training needs a text; --calib takes a file, or default");
        let text = TextCalibration::from_config(&config)?.ok_or_else(missing)?;
        Ok(text.windows(&Tokenizer::open(folder)?, context)?)
    }
}

/// What the scales of a matrix may grow by in bytes when they are stored as finely as tuned ones.
pub(super) fn growth(rows: u64, cols: u64) -> f64 {
    let finer = FeedbackOptions::default();
    let by = |resolution: u32| f64::from(RESOLUTION.saturating_sub(resolution));
    (rows as f64 * by(finer.row_resolution) + cols as f64 * by(finer.col_resolution)) / 8.0
}

/// A package to be tuned, and the one that is made of it.
pub(super) struct Work<'a> {
    pub(super) package: &'a Path,
    pub(super) output: &'a Path,
    pub(super) overwrite: bool,
    pub(super) training: &'a Training,
}

/// What came of it.
pub(super) struct Made {
    pub(super) tuned: Tuned,
    pub(super) retouched: Retouched,
    /// Bytes of side information of the tuned tensors, before and after.
    pub(super) side_bytes: [usize; 2],
}

/// Trains the scales of a package, whose runner is `student`, and writes the result.
pub(super) fn make(
    work: &Work<'_>,
    student: &ModelRunner,
    teacher: &ModelRunner,
    common: Common,
) -> Result<Made, Failure> {
    let package = Package::open(work.package)?;
    let tensors = tunable(&package)?;
    let interrupt = super::interrupt_flag()?;
    let windows = work.training.windows(work.package, student.spec().context)?;
    let progress = Progress::new(common, Unit::Steps);
    let mut last = f64::NAN;
    let mut tell = |p: TuneProgress| {
        let what = format!("KL {:.5}, held out {:.5}", p.training, p.held_out);
        progress.set(p.step as u64, p.steps as u64, &what);
        if progress.lines() && p.held_out != last {
            say(format_args!("step {} of {}: KL {:.5} on held-out text", p.step, p.steps, p.held_out));
            last = p.held_out;
        }
    };
    let training = training_file(work.output);
    let options = TuneOptions { checkpoint: Some(training.clone()), ..work.training.options() };
    let tuned = tune(student, teacher, &tensors, &windows, &options, &interrupt, &mut tell);
    progress.finish();
    let tuned = tuned?;
    let sides = scaled_sides(&package, &tuned, work.training.resolution)?;
    let side_bytes = [
        sides.keys().map(|name| Ok(package.tensor(name)?.side().len())).sum::<Result<usize, Error>>()?,
        sides.values().map(Vec::len).sum(),
    ];
    let wanted = Retouch {
        output: work.output.to_owned(),
        sides,
        note: note(&tuned),
        overwrite: work.overwrite,
        restart: false,
        shard_bytes: CompressConfig::default().shard_bytes,
    };
    let retouched = retouch(&package, Arc::new(RealStore), &wanted, &interrupt)?;
    std::fs::remove_file(&training).map_err(Error::io("remove", &training))?;
    Ok(Made { tuned, retouched, side_bytes })
}

/// The file beside `output` that tells how far training is.
fn training_file(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".training");
    PathBuf::from(name)
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    let start = Instant::now();
    let budget = args.running.begin()?;
    if args.output.exists() && !args.overwrite {
        let message = format!("{} already exists; use --overwrite to replace it", args.output.display());
        return Err(Failure::refused(message));
    }
    let _parents = Parents::of(&args.output)?;
    let teacher = args.running.open(&args.against, &budget, 2)?;
    let student = args.running.open(&args.package, &budget, 2)?;
    let (package, output) = (&*args.package, &*args.output);
    let work = Work { package, output, overwrite: args.overwrite, training: &args.training };
    let made = make(&work, &student, &teacher, common)?;
    let seconds = start.elapsed().as_secs_f64();
    if common.json {
        let mut json = render::json(&made.tuned, &made.retouched, made.side_bytes);
        json["package"] = output.display().to_string().into();
        json["already_done"] = made.retouched.already_done.into();
        json["seconds"] = seconds.into();
        json["peak_rss_bytes"] = lsb_stream::peak_rss_bytes().into();
        return print_json(&json);
    }
    let text = render::text(&made.tuned, &made.retouched, made.side_bytes);
    print(&format!("{}: {text}{seconds:.2} s\n", output.display()))
}

/// What the package's documents say.
fn note(tuned: &Tuned) -> String {
    format!(
        "The scales of {} tensors were tuned after that ({} steps on {} tokens): divergence from the original {:.5} nats \
         per token before, {:.5} after, on {} tokens held out. Figures of weights are those before.",
        tuned.factors.len(),
        tuned.best_step,
        tuned.tokens[0],
        tuned.before,
        tuned.after,
        tuned.tokens[1]
    )
}
