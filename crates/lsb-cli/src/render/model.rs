//! What a source model holds.

use super::kind::groups;
use super::number::{bytes, count};
use super::table::Table;
use lsb_format::escape;
use lsb_model::ModelConfig;
use lsb_stream::layers::{LayerId, layer_of};
use lsb_stream::source::{Model, SourceTensor};
use serde_json::{Value, json};

/// A model and what its `config.json` says, where that can be read.
#[derive(Debug)]
pub(crate) struct ModelFacts<'a> {
    /// The model.
    pub(crate) model: &'a Model,
    /// Its configuration.
    pub(crate) config: Option<ModelConfig>,
    /// Everything odd about both.
    pub(crate) warnings: Vec<String>,
}

impl<'a> ModelFacts<'a> {
    /// Gathers the facts. A configuration that cannot be read is a warning here: the weights still can be.
    pub(crate) fn of(model: &'a Model) -> Self {
        let mut warnings: Vec<String> = model.warnings().iter().map(ToString::to_string).collect();
        let config = match model.config_json().map(ModelConfig::parse).transpose() {
            Ok(config) => config,
            Err(e) => {
                warnings.push(e.to_string());
                None
            }
        };
        warnings.extend(config.iter().flat_map(|c| c.warnings()).map(ToString::to_string));
        ModelFacts { model, config, warnings }
    }

    fn layers(&self) -> u64 {
        let numbers = self.model.tensors().iter().filter_map(|t| match layer_of(&t.name) {
            LayerId::Layer(n) => Some(u64::from(n) + 1),
            _ => None,
        });
        numbers.max().unwrap_or(0)
    }

    fn weights(&self) -> u64 {
        self.model.tensors().iter().map(SourceTensor::elements).sum()
    }

    /// The JSON of `lsb inspect` on a model.
    pub(crate) fn json(&self) -> Value {
        let model = self.model;
        let tensors: Vec<Value> = model
            .tensors()
            .iter()
            .map(|t| {
                json!({"name": t.name, "dtype": t.dtype, "shape": t.shape, "bytes": t.bytes,
                    "file": model.files().get(t.file).map(|f| f.name.as_str()), "offset": t.offset})
            })
            .collect();
        let files: Vec<Value> =
            model.files().iter().map(|f| json!({"file": f.name, "bytes": f.bytes})).collect();
        let others: Vec<Value> =
            model.other_files().iter().map(|f| json!({"file": f.name, "bytes": f.bytes})).collect();
        json!({
            "kind": "model", "name": model.name(), "weight_bytes": model.weight_bytes(),
            "weights": self.weights(), "layers": self.layers(), "files": files, "other_files": others,
            "architecture": self.config.as_ref().map(|c| c.architecture.name()),
            "config": self.config.as_ref().map(config_json),
            "warnings": self.warnings, "tensors": tensors,
        })
    }

    /// What a person sees.
    pub(crate) fn text(&self, full: bool) -> String {
        let model = self.model;
        let mut out = format!(
            "model {}: {} elements in {} tensors, {} layers, {} of weight files\n",
            escape(model.name()),
            count(self.weights()),
            model.tensors().len(),
            self.layers(),
            bytes(model.weight_bytes())
        );
        if let Some(config) = &self.config {
            out += &config_text(config);
        }
        out += "\n";
        let mut table = Table::new(&["file", ">size", "holds"]);
        for file in model.files() {
            table.row(vec![escape(&file.name), bytes(file.bytes), "weights".into()]);
        }
        for file in model.other_files() {
            table.row(vec![escape(&file.name), bytes(file.bytes), "copied as it is".into()]);
        }
        out += &table.render();
        out += "\n";
        out += &if full { every_tensor(model) } else { kinds(model) };
        for warning in &self.warnings {
            out += &format!("warning: {warning}\n");
        }
        out
    }
}

fn config_json(c: &ModelConfig) -> Value {
    let sizes = c.sizes.map(|s| {
        json!({"vocab": s.vocab, "hidden": s.hidden, "intermediate": s.intermediate, "layers": s.layers,
            "heads": s.heads, "kv_heads": s.kv_heads, "head_dim": s.head_dim, "context": s.context,
            "experts": s.experts.map(|e| json!({"count": e.count, "per_token": e.per_token,
                "intermediate": e.intermediate}))})
    });
    json!({"model_type": c.model_type, "classes": c.classes, "sizes": sizes,
        "tie_word_embeddings": c.tie_word_embeddings, "sliding_window": c.sliding_window, "dtype": c.dtype})
}

fn config_text(c: &ModelConfig) -> String {
    let mut out = format!("architecture {}", escape(c.architecture.name()));
    if let Some(s) = &c.sizes {
        out += &format!(
            ": {} layers of width {}, feed-forward {}, {} heads ({} for keys and values) of {}, vocabulary {}",
            s.layers, s.hidden, s.intermediate, s.heads, s.kv_heads, s.head_dim, s.vocab
        );
        if let Some(context) = s.context {
            out += &format!(", context {context}");
        }
        if let Some(e) = &s.experts {
            out += &format!(", {} experts, {} per token", e.count, e.per_token);
        }
    }
    out + "\n"
}

fn every_tensor(model: &Model) -> String {
    let mut table = Table::new(&["tensor", "type", "shape", ">bytes"]);
    for t in model.tensors() {
        table.row(vec![escape(&t.name), t.dtype.to_string(), shape(&t.shape), t.bytes.to_string()]);
    }
    table.render()
}

fn kinds(model: &Model) -> String {
    let mut table = Table::new(&["tensors", ">count", "type", "shape", ">size"]);
    let groups = groups(model.tensors(), |t| t.name.as_str(), |t| format!("{} {}", t.dtype, shape(&t.shape)));
    for group in groups {
        let Some(first) = group.members.first() else { continue };
        table.row(vec![
            escape(&group.title),
            group.members.len().to_string(),
            first.dtype.to_string(),
            shape(&first.shape),
            bytes(group.members.iter().map(|t| t.bytes).sum()),
        ]);
    }
    table.render()
}

/// `4096 x 11008`, or `scalar`.
pub(crate) fn shape(dimensions: &[u64]) -> String {
    if dimensions.is_empty() {
        return "scalar".to_owned();
    }
    dimensions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ")
}
