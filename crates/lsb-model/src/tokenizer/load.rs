//! Builds a tokenizer from `tokenizer.json`, without trusting it.

use super::encode::Frame;
use super::files::{self, RULES};
use super::guard::{MAX_DECODER_GROWTH, Pattern, growth, guarded};
use super::model::{Vocabulary, read_model};
use super::pieces::Pieces;
use super::special::Special;
use super::{FILE, Tokenizer, refuse};
use crate::error::Result;
use lsb_format::json::check_document;
use lsb_format::{Error, ErrorKind, escape};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use std::path::Path;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper};

/// The parts of `tokenizer.json`. The model is parsed on its own: through a general JSON value, as the
/// tokenizers crate does it, a vocabulary of 262,000 tokens takes hundreds of megabytes.
#[derive(Deserialize)]
struct Document<'a> {
    version: Option<String>,
    truncation: Option<Truncation>,
    added_tokens: Option<Vec<Added>>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(borrow)]
    model: &'a RawValue,
}

#[derive(Deserialize)]
struct Truncation {
    max_length: usize,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

impl Tokenizer {
    /// The longest `tokenizer.json` that [`Tokenizer::open`] reads, in bytes. The largest published ones have 35
    /// million; opening one takes about seven times its size in memory.
    pub const MAX_BYTES: u64 = 256 << 20;

    /// Opens the tokenizer in a model or package folder.
    ///
    /// # Errors
    /// As [`Tokenizer::open_limited`].
    pub fn open(dir: &Path) -> Result<Tokenizer> {
        Self::open_limited(dir, Self::MAX_BYTES)
    }

    /// Opens the tokenizer in a model or package folder, from a `tokenizer.json` of at most `max_bytes` bytes.
    ///
    /// # Errors
    /// `T1` to `T11` of `docs/bad-inputs.md`: what is missing, damaged or hostile, and what to do about it.
    pub fn open_limited(dir: &Path, max_bytes: u64) -> Result<Tokenizer> {
        let bytes = files::read(dir, FILE, max_bytes)?.ok_or_else(|| missing(dir))?;
        let special = Special::read(dir)?;
        check_document(&bytes, RULES).map_err(|e| e.in_file(FILE))?;
        build(&bytes, special)
    }
}

/// The error that there is no `tokenizer.json`, which looks at what there is instead.
fn missing(dir: &Path) -> Error {
    let advice = if dir.join("tokenizer.model").exists() {
        "there is a sentencepiece tokenizer.model, which is not read: save the tokenizer once with a fast \
         tokenizer of the transformers library (AutoTokenizer.from_pretrained(...).save_pretrained(...)), which \
         writes tokenizer.json"
    } else if dir.join("vocab.json").exists() || dir.join("vocab.txt").exists() {
        "there is a vocabulary in an older form, which is not read: save the tokenizer once with the transformers \
         library (AutoTokenizer.from_pretrained(...).save_pretrained(...)), which writes tokenizer.json"
    } else {
        "copy tokenizer.json from the model's page into this folder"
    };
    let message = "there is no tokenizer.json";
    Error::new(ErrorKind::InvalidArgument, "T1", message).in_file(dir.display().to_string()).advise(advice)
}

fn build(bytes: &[u8], special: Special) -> Result<Tokenizer> {
    let document: Document<'_> = serde_json::from_slice(bytes)
        .map_err(|e| refuse("T4", format!("not a tokenizer: {}", escape(&e.to_string()))))?;
    match document.version.as_deref() {
        None | Some("1.0") => {}
        Some(other) => {
            let message = format!("version \"{}\" of the file is not known, only 1.0 is", escape(other));
            return Err(Error::new(ErrorKind::Compatibility, "T4", message).in_file(FILE).into());
        }
    }
    let growth = check_parts(&document)?;
    // Before the crate compiles them, which it does without limits.
    let mut patterns = Vec::new();
    backtracking(&document.pre_tokenizer, &mut patterns)?;
    let (model, mut vocabulary) = read_model(document.model.get())?;
    let mut inner = tokenizers::Tokenizer::new(model);
    let normalizer = part::<NormalizerWrapper>("normalizer", &document.normalizer)?;
    guarded("the normalizer cannot be used", || inner.with_normalizer(normalizer).map(|_| ()))
        .map_err(|e| refuse("T4", e.to_string()))?;
    inner.with_pre_tokenizer(part::<PreTokenizerWrapper>("pre_tokenizer", &document.pre_tokenizer)?);
    inner.with_post_processor(part::<PostProcessorWrapper>("post_processor", &document.post_processor)?);
    inner.with_decoder(part::<DecoderWrapper>("decoder", &document.decoder)?);
    let added = add_tokens(&mut inner, document.added_tokens.unwrap_or_default(), &mut vocabulary)?;
    let pieces = Pieces::of(&inner, &document.normalizer, &document.pre_tokenizer, &added);

    let id_of = |text: &Option<String>| text.as_deref().and_then(|text| inner.token_to_id(text));
    let bos = id_of(&special.bos).or(special.bos_id);
    let eos = id_of(&special.eos).or(special.eos_ids.first().copied());
    let mut frame = Frame::of(inner.get_post_processor())?;
    frame.before = flagged(frame.before, special.add_bos, bos);
    frame.after = flagged(frame.after, special.add_eos, eos);
    let mut stop_ids = special.eos_ids;
    stop_ids.extend(eos);
    stop_ids.sort_unstable();
    stop_ids.dedup();
    let max_tokens = document.truncation.map(|t| t.max_length);
    Ok(Tokenizer { inner, growth, patterns, pieces, frame, max_tokens, vocabulary, bos, eos, stop_ids })
}

/// Refuses parts that could blow up a text, and returns how many times longer a text may become.
fn check_parts(document: &Document<'_>) -> Result<f64> {
    for (name, part) in [("normalizer", &document.normalizer), ("decoder", &document.decoder)] {
        linear(name, part)?;
    }
    let decoder = growth(&document.decoder);
    if decoder > MAX_DECODER_GROWTH {
        let message = format!("the decoder can make a token {decoder:.0} times longer");
        return Err(refuse("T11", message));
    }
    Ok(growth(&document.normalizer) * growth(&document.pre_tokenizer))
}

/// Makes sure that the expressions in a part need no backtracking: what an expression given up there would do
/// to a text cannot be seen from outside. Published normalizers and decoders have none that do.
fn linear(name: &str, part: &Value) -> Result<()> {
    for list in ["normalizers", "decoders"] {
        for inner in part.get(list).and_then(Value::as_array).into_iter().flatten() {
            linear(name, inner)?;
        }
    }
    let pattern = part.get("pattern").and_then(|p| p.get("Regex")).and_then(Value::as_str);
    match pattern.filter(|p| !Pattern::is_linear(p)) {
        None => Ok(()),
        Some(p) => Err(refuse(
            "T8",
            format!("the pattern \"{}\" of the {name} is malformed, too large, or looks around", escape(p)),
        )),
    }
}

/// Collects the expressions of a pre-tokenizer that need backtracking.
fn backtracking(part: &Value, patterns: &mut Vec<Pattern>) -> Result<()> {
    for inner in part.get("pretokenizers").and_then(Value::as_array).into_iter().flatten() {
        backtracking(inner, patterns)?;
    }
    if part.get("length").and_then(Value::as_u64) == Some(0) {
        return Err(refuse("T4", "the pre_tokenizer cuts a text into pieces of length 0".to_owned()));
    }
    let pattern = part.get("pattern").and_then(|p| p.get("Regex")).and_then(Value::as_str);
    if let Some(text) = pattern.filter(|p| !Pattern::is_linear(p)) {
        let message = || format!("the pattern \"{}\" is malformed or too large", escape(text));
        patterns.push(Pattern::new(text).ok_or_else(|| refuse("T8", message()))?);
    }
    Ok(())
}

/// Parses one part; `null` is none.
fn part<T: DeserializeOwned>(name: &str, value: &Value) -> Result<Option<T>> {
    let doing = format!("the {name} cannot be used");
    guarded(&doing, || Ok(Option::<T>::deserialize(value)?)).map_err(|e| refuse("T4", e.to_string()))
}

/// Adds the tokens that are matched before everything else, and makes sure that they get the ids they say.
fn add_tokens(
    inner: &mut tokenizers::Tokenizer,
    added: Vec<Added>,
    vocabulary: &mut Vocabulary,
) -> Result<Vec<AddedToken>> {
    use tokenizers::Model;
    let (tokens, ids): (Vec<_>, Vec<_>) = added.into_iter().map(|a| (a.token, a.id)).unzip();
    guarded("the added tokens cannot be used", || inner.add_tokens(tokens.iter().cloned()))
        .map_err(|e| refuse("T4", e.to_string()))?;
    for (token, wanted) in tokens.iter().zip(ids).filter(|(token, _)| !token.content.is_empty()) {
        let found = inner.token_to_id(&token.content);
        if found != Some(wanted) {
            let found = found.map_or("none".to_owned(), |id| id.to_string());
            let shown = escape(&token.content);
            return Err(refuse(
                "T7",
                format!("the added token \"{shown}\" says id {wanted} and gets {found}"),
            ));
        }
        if inner.get_model().token_to_id(&token.content).is_none() {
            vocabulary.size += 1;
            vocabulary.max_id = vocabulary.max_id.max(wanted);
        }
    }
    Ok(tokens)
}

/// One side of the frame, after a flag of `tokenizer_config.json` said whether it is there.
fn flagged(side: Vec<u32>, flag: Option<bool>, token: Option<u32>) -> Vec<u32> {
    match (flag, token) {
        (Some(true), Some(token)) if !side.contains(&token) => vec![token],
        (Some(false), Some(token)) if side == [token] => Vec::new(),
        _ => side,
    }
}
