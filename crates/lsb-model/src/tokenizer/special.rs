//! Which tokens begin and end a text, as the files beside the model say.

use super::files;
use crate::error::Result;
use lsb_format::{Error, escape};
use serde_json::{Map, Value};
use std::path::Path;

/// The file with the tokenizer's settings.
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const CONFIG: &str = "config.json";

/// What the files say about special tokens, before the vocabulary is consulted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Special {
    /// Text of the token that begins a text.
    pub(crate) bos: Option<String>,
    /// Text of the token that ends a text.
    pub(crate) eos: Option<String>,
    /// Id of the token that begins a text, as the model's configuration has it.
    pub(crate) bos_id: Option<u32>,
    /// Ids of tokens that end a text: `generation_config.json`, or else `config.json`.
    pub(crate) eos_ids: Vec<u32>,
    /// Whether to add the beginning, where that is said and the tokenizer's class heeds it.
    pub(crate) add_bos: Option<bool>,
    /// Whether to add the end, likewise.
    pub(crate) add_eos: Option<bool>,
}

impl Special {
    /// Reads the files in `dir`; those that are not there say nothing.
    pub(crate) fn read(dir: &Path) -> Result<Special> {
        let tokenizer = files::read_json(dir, TOKENIZER_CONFIG)?.unwrap_or_default();
        let generation = files::read_json(dir, GENERATION_CONFIG)?.unwrap_or_default();
        let config = files::read_json(dir, CONFIG)?.unwrap_or_default();
        let inner = config.get("text_config").and_then(Value::as_object);
        let models = [(&generation, GENERATION_CONFIG), (&config, CONFIG)];
        let models = models.into_iter().chain(inner.map(|inner| (inner, CONFIG)));
        let mut special = Special {
            bos: token(&tokenizer, "bos_token")?,
            eos: token(&tokenizer, "eos_token")?,
            ..Special::default()
        };
        for (fields, file) in models {
            if special.bos_id.is_none() {
                special.bos_id = ids(fields, "bos_token_id", file)?.first().copied();
            }
            if special.eos_ids.is_empty() {
                special.eos_ids = ids(fields, "eos_token_id", file)?;
            }
        }
        // Only these classes of transformers build the frame of a text from the two flags; all others leave it
        // to tokenizer.json.
        let class = tokenizer.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
        if ["LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer"]
            .contains(&class.trim_end_matches("Fast"))
        {
            special.add_bos = tokenizer.get("add_bos_token").and_then(Value::as_bool);
            special.add_eos = tokenizer.get("add_eos_token").and_then(Value::as_bool);
        }
        Ok(special)
    }
}

/// A token's text: a string, or an object with `content`.
fn token(fields: &Map<String, Value>, name: &str) -> Result<Option<String>> {
    let value = fields.get(name).unwrap_or(&Value::Null);
    match value.get("content").unwrap_or(value) {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        other => Err(wrong(name, "a text or an object with content", other).in_file(TOKENIZER_CONFIG).into()),
    }
}

/// One id or a list of ids. Some published files say -1 for "none".
fn ids(fields: &Map<String, Value>, name: &str, file: &str) -> Result<Vec<u32>> {
    let value = fields.get(name).unwrap_or(&Value::Null);
    let one = |value: &Value| match value.as_i64() {
        Some(-1) => Some(None),
        Some(id) => u32::try_from(id).ok().map(Some),
        None => None,
    };
    let list = match value {
        Value::Null => Some(Vec::new()),
        Value::Array(list) => list.iter().map(one).collect(),
        single => one(single).map(|id| vec![id]),
    };
    match list {
        Some(list) => Ok(list.into_iter().flatten().collect()),
        None => Err(wrong(name, "a token id or a list of token ids", value).in_file(file).into()),
    }
}

fn wrong(name: &str, wanted: &str, found: &Value) -> Error {
    Error::corruption("T4", format!("{name} must be {wanted} and is {}", escape(&found.to_string())))
}
