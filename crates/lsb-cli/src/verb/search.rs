//! The search behind `--max-loss`: packages are made and judged until the smallest that keeps the limit is found.

use super::compress::calibrated;
use crate::Common;
use crate::exit::Failure;
use crate::render::progress::{Progress, Unit};
use lsb_model::{ConfigCheck, ModelRunner, RunOptions, SavedCalibration, TextCalibration, Tokenizer};
use lsb_quant::Registry;
use lsb_stream::{Budget, CompressConfig, Target};
use lsb_validate::evaluate::{EvaluateOptions, TokenizedText, evaluate};
use lsb_validate::protocol::Protocol;
use lsb_validate::{SearchReport, smallest_rate};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tokens of held-out text that are scored at most.
const TOKENS: usize = 65536;

/// Finds the smallest rate at which the perplexity on held-out text rises by at most `percent`.
pub(super) fn run(
    model: &Path,
    config: &CompressConfig,
    percent: f64,
    common: Common,
) -> Result<SearchReport, Failure> {
    if SavedCalibration::from_config(config)?.is_some() {
        return Err(Failure::usage(
            "--max-loss holds a part of the calibration text out to judge on; saved statistics know all of theirs, so \
             that --calib must name a text",
        ));
    }
    let Some(mut calibration) = TextCalibration::from_config(config)? else {
        return Err(Failure::usage("--max-loss needs calibration text; leave --calib none out"));
    };
    let held_out = calibration.split_held_out();
    let tokenizer = Tokenizer::open(model)?;
    let ids = tokenizer.encode(&held_out, false)?;
    let budget = Budget::for_process(config.target_ram_mb);
    let options = RunOptions { activation_bytes: Some(budget.limit() / 4), ..RunOptions::default() };
    let package = trial(config, model);
    let interrupt = super::interrupt_flag()?;
    let found = smallest_rate(percent / 100.0, &mut |bpw| -> Result<f64, Failure> {
        let mut trial = config.clone();
        trial.target = Some(Target::Bpw(bpw));
        trial.output = Some(package.clone());
        (trial.overwrite, trial.restart) = (true, true);
        // What a trial needs is given back before it is judged.
        calibrated(trial, true)?
            .with_observer(Box::new(Progress::new(common, Unit::Bytes)))
            .with_check(Arc::new(ConfigCheck))
            .with_interrupt(Arc::clone(&interrupt))
            .compress_model(model, None)?;
        let open = |path: &Path| ModelRunner::open(path, &Registry::standard(), &budget, &options);
        let (original, package) = (open(model)?, open(&package)?);
        let mut protocol = Protocol::for_context(package.spec().context.unwrap_or(usize::MAX));
        protocol.max_tokens = Some(TOKENS);
        let progress = Progress::new(common, Unit::Steps);
        let text = TokenizedText { bytes: held_out.as_bytes(), ids: &ids };
        let judged = evaluate(
            &package,
            Some(&original),
            text,
            &protocol,
            EvaluateOptions { map_tokens: 0 },
            &mut |p| {
                progress.set(p.done, p.total, p.what);
            },
        );
        progress.finish();
        let against = judged?.against;
        let loss = against.map_or(f64::INFINITY, |a| a.logits.ln_ratio.exp_m1());
        tracing::info!("{bpw:.3} bits per weight: perplexity {:+.2} %", 100.0 * loss);
        Ok(loss)
    });
    // Only what the search itself wrote.
    if package.join("lsb.json").is_file() {
        std::fs::remove_dir_all(&package).map_err(lsb_stream::Error::io("remove", &package))?;
    }
    found
}

/// Where trials go: beside the output.
fn trial(config: &CompressConfig, model: &Path) -> PathBuf {
    let default = || PathBuf::from(model.file_name().unwrap_or(model.as_os_str()));
    let mut name = config.output.clone().unwrap_or_else(default).into_os_string();
    name.push(".trial");
    name.into()
}

/// What to say where no rate was enough.
pub(super) fn out_of_reach(search: &SearchReport, percent: f64) -> Failure {
    let last = search.steps.last().map_or((0.0, 0.0), |s| (s.bpw, 100.0 * s.loss));
    Failure::usage(format!(
        "no package keeps the perplexity within {percent} %: at {:.2} bits per weight it rises by {:.2} %",
        last.0, last.1
    ))
}
