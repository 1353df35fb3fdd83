//! Does the configuration describe the tensors that are there?

use crate::architecture::Architecture;
use crate::config::{ModelConfig, Sizes};
use crate::role::{ExpertPart, Role, role_of};
use lsb_format::{Error, Result, escape};
use lsb_stream::ModelCheck;
use lsb_stream::layers::{LayerId, layer_of};
use lsb_stream::source::{Model, SourceTensor, Warning};
use std::collections::BTreeSet;

const FILE: &str = "config.json";

/// Checks a model's `config.json` and holds it against the tensors; a model without one passes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConfigCheck;

impl ModelCheck for ConfigCheck {
    fn check(&self, model: &Model, duplicates: &[Option<usize>]) -> lsb_stream::Result<Vec<Warning>> {
        let Some(bytes) = model.config_json() else { return Ok(Vec::new()) };
        let config = ModelConfig::parse(bytes)?;
        let mut warnings = config.warnings().to_vec();
        warnings.extend(config.check_against(model, duplicates)?);
        Ok(warnings)
    }
}

impl ModelConfig {
    /// Compares the configuration with the tensors of `model`. `duplicates` maps tensors to earlier equal ones,
    /// as [`lsb_stream::source::find_duplicates`] finds them. Returns what is odd.
    ///
    /// # Errors
    /// `B75` where shapes contradict the configuration, `B76` for a missing head, `B79` for missing layers,
    /// `B82` for an embedding with fewer rows than tokens.
    pub fn check_against(&self, model: &Model, duplicates: &[Option<usize>]) -> Result<Vec<Warning>> {
        let mut warnings = Vec::new();
        self.check_head(model, duplicates, &mut warnings)?;
        let Some(sizes) = self.sizes else { return Ok(warnings) };
        if matches!(self.architecture, Architecture::Unknown(_)) {
            return Ok(warnings);
        }
        self.check_shapes(model, &sizes, &mut warnings)?;
        check_layers(model, &sizes, &mut warnings)?;
        Ok(warnings)
    }

    fn check_head(
        &self,
        model: &Model,
        duplicates: &[Option<usize>],
        warnings: &mut Vec<Warning>,
    ) -> Result<()> {
        let with_role = |role| model.tensors().iter().position(|t| role_of(&t.name) == role);
        let Some(embedding) = with_role(Role::Embedding) else { return Ok(()) };
        let Some(head) = with_role(Role::Head) else {
            let needs_head = self.classes.iter().any(|c| c.contains("LMHead") || c.contains("ForCausalLM"));
            if self.tie_word_embeddings || !needs_head {
                return Ok(());
            }
            let message = "tie_word_embeddings is false and the model has no head; \
                           using the embedding instead would be a guess";
            return Err(Error::corruption("B76", message).in_file(FILE));
        };
        let first = |i: usize| duplicates.get(i).copied().flatten().unwrap_or(i);
        if self.tie_word_embeddings && first(head) != first(embedding) {
            let (head, embedding) = (&model.tensors()[head], &model.tensors()[embedding]);
            let message = format!(
                "tie_word_embeddings is true and the head differs from \"{}\"; both are kept",
                escape(&embedding.name)
            );
            let file = model.files().get(head.file).map_or("", |f| f.name.as_str());
            warnings.push(Warning::new("B76", message).in_file(file).in_tensor(&head.name));
        }
        Ok(())
    }

    fn check_shapes(&self, model: &Model, sizes: &Sizes, warnings: &mut Vec<Warning>) -> Result<()> {
        for tensor in model.tensors().iter().filter(|t| t.dtype.is_float() && t.shape.len() == 2) {
            // Side towers and heads of other tasks have sizes of their own.
            let role = role_of(&tensor.name);
            let in_layer = matches!(layer_of(&tensor.name), LayerId::Layer(_));
            if !in_layer && !matches!(role, Role::Embedding | Role::Head) {
                continue;
            }
            let Some([outputs, inputs]) = self.expected(role, sizes) else { continue };
            let rows = tensor.shape[0];
            if matches!(role, Role::Embedding | Role::Head) && rows != outputs {
                let file = file_of(model, tensor);
                let message = format!("vocab_size is {outputs} and the tensor has {rows} rows");
                if rows < outputs {
                    return Err(Error::corruption("B82", message).in_file(file).in_tensor(&tensor.name));
                }
                warnings.push(Warning::new("B82", message).in_file(file).in_tensor(&tensor.name));
            }
            let outputs = if matches!(role, Role::Embedding | Role::Head) { rows } else { outputs };
            let is_map = !matches!(role, Role::Embedding | Role::Head);
            let transposed = is_map && self.architecture.stores_inputs_first();
            let expected = if transposed { [inputs, outputs] } else { [outputs, inputs] };
            if tensor.shape[..] != expected {
                let message = format!(
                    "the shape is {:?} and by {FILE} it must be {expected:?}: they are from different models",
                    tensor.shape
                );
                return Err(Error::corruption("B75", message)
                    .in_file(file_of(model, tensor))
                    .in_tensor(&tensor.name)
                    .advise("download the model again"));
            }
        }
        Ok(())
    }

    /// Outputs and inputs of a matrix of that role.
    fn expected(&self, role: Role, sizes: &Sizes) -> Option<[u64; 2]> {
        let queries = sizes.heads.checked_mul(sizes.head_dim)?;
        let keys = sizes.kv_heads.checked_mul(sizes.head_dim)?;
        let hidden = sizes.hidden;
        let inner = sizes.intermediate;
        Some(match role {
            Role::Embedding | Role::Head => [sizes.vocab, hidden],
            Role::AttentionQ => [queries, hidden],
            Role::AttentionK | Role::AttentionV => [keys, hidden],
            Role::AttentionQkv => [keys.checked_mul(2)?.checked_add(queries)?, hidden],
            Role::AttentionOut => [hidden, queries],
            Role::MlpGate | Role::MlpUp => [inner, hidden],
            Role::MlpGateUp => [inner.checked_mul(2)?, hidden],
            Role::MlpDown => [hidden, inner],
            Role::Router => [sizes.experts?.count, hidden],
            Role::Expert { part: ExpertPart::Down, .. } => [hidden, sizes.experts?.intermediate],
            Role::Expert { .. } => [sizes.experts?.intermediate, hidden],
            Role::PositionEmbedding | Role::Norm | Role::Bias | Role::Other => return None,
        })
    }
}

/// Compares the number of layers, without counting up to a number that the configuration made up.
fn check_layers(model: &Model, sizes: &Sizes, warnings: &mut Vec<Warning>) -> Result<()> {
    let layers: BTreeSet<u64> = model
        .tensors()
        .iter()
        .filter_map(|t| match layer_of(&t.name) {
            LayerId::Layer(n) => Some(u64::from(n)),
            LayerId::Before | LayerId::After => None,
        })
        .collect();
    let present = (0..).zip(&layers).take_while(|(i, n)| i == *n).count() as u64;
    if present < sizes.layers {
        let message = format!(
            "num_hidden_layers is {} and there are no tensors of layer {present}; {} layers have tensors",
            sizes.layers,
            layers.len()
        );
        return Err(Error::corruption("B79", message)
            .in_file(FILE)
            .advise("the configuration and the weights are from different models, or shards are missing"));
    }
    if let Some(last) = layers.last().filter(|last| **last >= sizes.layers) {
        let message = format!("num_hidden_layers is {} and there are tensors of layer {last}", sizes.layers);
        warnings.push(Warning::new("B79", message).in_file(FILE));
    }
    Ok(())
}

fn file_of<'a>(model: &'a Model, tensor: &SourceTensor) -> &'a str {
    model.files().get(tensor.file).map_or("", |f| f.name.as_str())
}
