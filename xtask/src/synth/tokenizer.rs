//! The tokenizer of a model that has none of its own.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// The bytes of a tokenizer.json all of whose ids are below `vocabulary`.
///
/// # Errors
/// If it cannot be read, is none, or has an id that the model has no row for.
pub(super) fn read(file: &Path, vocabulary: u64) -> Result<Vec<u8>> {
    let name = file.display();
    let bytes = fs::read(file).with_context(|| format!("cannot read {name}"))?;
    let json: Value = serde_json::from_slice(&bytes).with_context(|| format!("{name} is not JSON"))?;
    let tokens = json["model"]["vocab"].as_object().with_context(|| format!("{name} has no model.vocab"))?;
    let added = json["added_tokens"].as_array().into_iter().flatten().map(|token| &token["id"]);
    if let Some(id) = tokens.values().chain(added).filter_map(Value::as_u64).find(|&id| id >= vocabulary) {
        bail!("{name} has a token of id {id}: the model's vocabulary has {vocabulary}");
    }
    Ok(bytes)
}
