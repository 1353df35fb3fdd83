//! Calibration text: from a file, or the one that comes with the program.

use super::pass::{Manner, PassCalibrator};
use super::saved::is_safetensors;
use super::stages::stages;
use crate::{Error, ModelConfig, ModelSpec, Result, Tokenizer};
use lsb_stream::source::{Model, OpenOptions};
use lsb_stream::{
    Budget, CalibrationSource, Calibrator, CompressConfig, ModelWeights, OutputWeights, WeightSource,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Excerpts of forty English books in the public domain.
const BUNDLED: &str = include_str!("../../data/calibration.txt");

/// Longest sequence where options say nothing.
const LONGEST: usize = 2048;

/// Calibrates a model on a text.
#[derive(Clone, Debug)]
pub struct TextCalibration {
    text: Text,
    tokens: usize,
    seqlen: usize,
    seed: u64,
    weights: OutputWeights,
    drift: f64,
}

#[derive(Clone, Debug)]
enum Text {
    Bundled,
    File { path: PathBuf, text: String },
}

impl TextCalibration {
    /// What `config` asks for; `None` where it says `none`.
    ///
    /// # Errors
    /// If the file cannot be read, is not UTF-8, or a number is impossible.
    pub fn from_config(config: &CompressConfig) -> Result<Option<TextCalibration>> {
        let text = match config.calib.as_deref() {
            Some("none") => return Ok(None),
            None | Some("default") => Text::Bundled,
            Some(path) => {
                let path = PathBuf::from(path);
                if is_safetensors(&path).unwrap_or(false) {
                    let message = "this is a safetensors file where calibration text is needed";
                    let error = lsb_format::Error::argument(message).in_file(path.display().to_string());
                    return Err(error.advise("name a file of UTF-8 text, or default").into());
                }
                let text = std::fs::read_to_string(&path).map_err(|e| {
                    let message = format!("calibration text {}: {e}", path.display());
                    lsb_format::Error::argument(message).advise("--calib takes a file of UTF-8 text, or none")
                })?;
                Text::File { path, text }
            }
        };
        if config.calib_tokens == 0 || config.seqlen == 1 {
            let message = "calibration needs at least 1 token, in sequences of at least 2";
            return Err(lsb_format::Error::argument(message).into());
        }
        let (tokens, seqlen, seed) = (config.calib_tokens, config.seqlen, config.seed);
        let (weights, drift) = (config.output_weights, config.drift);
        Ok(Some(TextCalibration { text, tokens, seqlen, seed, weights, drift }))
    }

    /// Takes the last quarter of the text away, for whoever has to judge what was calibrated on the rest.
    pub fn split_held_out(&mut self) -> String {
        let text = self.content();
        let mut at = text.len() / 4 * 3;
        while !text.is_char_boundary(at) {
            at += 1;
        }
        let (rest, held_out) = (text[..at].to_owned(), text[at..].to_owned());
        let path = match &self.text {
            Text::Bundled => PathBuf::from("the bundled text"),
            Text::File { path, .. } => path.clone(),
        };
        self.text = Text::File { path, text: rest };
        held_out
    }

    fn content(&self) -> &str {
        match &self.text {
            Text::Bundled => BUNDLED,
            Text::File { text, .. } => text,
        }
    }

    /// BLAKE3 of the text, in hexadecimal digits.
    pub(super) fn text_hash(&self) -> String {
        blake3::hash(self.content().as_bytes()).to_hex().to_string()
    }

    /// Seed of everything random.
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// Runs `model` on the text.
    pub(super) fn calibrator(
        &self,
        model: &Model,
        budget: &Budget,
        interrupt: Arc<AtomicBool>,
    ) -> Result<PassCalibrator> {
        let (config, source, dir) = open(model)?;
        let tokenizer = Tokenizer::open(&dir)?;
        let spec = ModelSpec::new(&config, &*source)?;
        let windows = self.windows(&tokenizer, self.longest(&tokenizer, &spec))?;
        let what = match &self.text {
            Text::Bundled => "the bundled text".to_owned(),
            Text::File { path, .. } => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let seed = (self.weights == OutputWeights::Gradients).then_some(self.seed);
        let manner = Manner { what: &what, seed, drift: self.drift as f32 };
        PassCalibrator::new(config, source, budget, windows, manner, interrupt)
    }

    /// Most tokens of a sequence. Unless told otherwise, an encoder is shown what its tokenizer would let through: one that
    /// was trained on short texts has other outputs at positions which it never sees.
    fn longest(&self, tokenizer: &Tokenizer, spec: &ModelSpec) -> Option<usize> {
        let sentence = if self.seqlen == 0 && !spec.is_causal() { tokenizer.max_tokens() } else { None };
        [sentence, spec.context].into_iter().flatten().min()
    }

    /// The sequences: evenly spaced windows of the text, as many as there are tokens for, none longer than `longest`.
    ///
    /// # Errors
    /// If the text cannot be cut into tokens.
    pub fn windows(&self, tokenizer: &Tokenizer, longest: Option<usize>) -> Result<Vec<Vec<u32>>> {
        let most = longest.unwrap_or(usize::MAX);
        let length = if self.seqlen == 0 { LONGEST.min(most) } else { self.seqlen.min(most) };
        let ids = tokenizer.encode(self.content(), false)?;
        // Where a model's texts begin with a token, every window does.
        let bos = tokenizer.frame().0;
        let (before, after) = (bos.to_vec(), tokenizer.frame().1.to_vec());
        let length = length.saturating_sub(before.len() + after.len()).max(1).min(ids.len().max(1));
        let there = ids.len() / length;
        let count = self.tokens.div_ceil(length).min(there).max(1);
        let shift = (self.seed as usize) % (there - count + 1).max(1);
        Ok((0..count)
            .map(|i| {
                let at = ((2 * i + 1) * there / (2 * count) + shift) % there.max(1) * length;
                let part = ids.iter().skip(at).take(length).copied();
                before.iter().copied().chain(part).chain(after.iter().copied()).collect()
            })
            .collect())
    }
}

/// The folder of the model's configuration.
fn folder(model: &Model) -> Result<&Path> {
    let config = model.other_files().iter().find(|f| f.name == "config.json");
    config.and_then(|f| f.path.parent()).ok_or_else(|| {
        lsb_format::Error::argument("there is no config.json beside the weights")
            .advise("calibration runs the model; use --calib none to do without")
            .into()
    })
}

fn open(model: &Model) -> Result<(ModelConfig, Arc<dyn WeightSource>, PathBuf)> {
    let dir = folder(model)?.to_owned();
    let bytes = model.config_json().unwrap_or_default();
    let again = Model::open(&dir, &OpenOptions::default())?;
    Ok((ModelConfig::parse(bytes)?, Arc::new(ModelWeights::new(again)), dir))
}

impl CalibrationSource for TextCalibration {
    fn identity(&self) -> String {
        let hash = self.text_hash();
        let text = format!(
            "text {}, {} tokens in {}, seed {}, drift {}",
            &hash[..16],
            self.tokens,
            self.seqlen,
            self.seed,
            self.drift
        );
        match self.weights {
            OutputWeights::Gradients => text,
            OutputWeights::Equal => text + ", all outputs the same",
        }
    }

    fn tensors(&self, model: &Model) -> lsb_stream::Result<Vec<String>> {
        let names = || -> Result<Vec<String>> {
            let (config, source, dir) = open(model)?;
            if !dir.join("tokenizer.json").is_file() {
                return Err(
                    lsb_format::Error::argument("there is no tokenizer.json beside the weights").into()
                );
            }
            let spec = ModelSpec::new(&config, &*source)?;
            let mut names = Vec::new();
            for stage in spec.blocks.iter().flat_map(stages) {
                names.extend(stage.every_map().map(|m| m.tensor.clone()));
            }
            names.extend(spec.head.as_ref().map(|h| h.map.tensor.clone()));
            names.push(spec.embedding.tokens.clone());
            Ok(names)
        };
        names().map_err(stream_error)
    }

    fn open(
        &self,
        model: &Model,
        budget: &Budget,
        interrupt: Arc<AtomicBool>,
    ) -> lsb_stream::Result<Box<dyn Calibrator>> {
        Ok(Box::new(self.calibrator(model, budget, interrupt).map_err(stream_error)?))
    }
}

/// This crate's errors as those of the pipeline.
pub(super) fn stream_error(error: Error) -> lsb_stream::Error {
    match error {
        Error::Stream(e) => e,
        Error::Input(e) => lsb_stream::Error::Input(e),
        other => lsb_stream::Error::Config(other.to_string()),
    }
}
