//! Factors of rows and columns, and the slopes of an objective along them.
//!
//! A map `y = t * W (c * x)` whose factors are powers, `t = exp(a)` and `c = exp(b)`, has the slopes
//! `dL/da_r = sum g_r y_r` and `dL/db_c = sum x_c (g W')_c` over all tokens, with the gradient `g` at its outputs and the
//! weights `W'` that hold the factors already: all of it is there when gradients have passed the map.

use super::scaled::Base;
use crate::runner::{GradientTap, MapGradient};
use crate::{Error, ModelRunner, Result};
use candle_core::Tensor;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Logarithms of the factors of some tensors, all in one row of parameters.
pub(super) struct Corrections {
    entries: Vec<Entry>,
    /// Entries by the names of their tensors.
    by_name: HashMap<String, usize>,
    /// 0 leaves a scale as it is.
    pub(super) logs: Vec<f64>,
}

/// One stored tensor.
struct Entry {
    /// Its name, then those of tensors stored with it.
    names: Vec<String>,
    base: Base,
    rows: Range<usize>,
    cols: Range<usize>,
}

impl Corrections {
    /// For those of `tensors` that maps of `model` use, or its embedding does. Others take no part, nor do tensors of other
    /// shapes than their map, nor, where a norm follows it, the embedding.
    ///
    /// # Errors
    /// If a tensor cannot be opened.
    pub(super) fn new(model: &ModelRunner, tensors: &[String]) -> Result<Corrections> {
        let (spec, source) = (model.spec(), model.source());
        let mut used: Vec<(&str, [usize; 2])> = Vec::new();
        for map in spec.every_map() {
            let shape = if map.inputs_first { [map.inputs, map.outputs] } else { [map.outputs, map.inputs] };
            used.push((&map.tensor, shape));
        }
        let embedding = (spec.embedding.tokens.as_str(), [spec.vocab, spec.hidden]);
        used.push(embedding);
        let mut out = Corrections { entries: Vec::new(), by_name: HashMap::new(), logs: Vec::new() };
        let mut left_out = Vec::new();
        for (name, shape) in used {
            let Some(number) = source.find(name) else { continue };
            let stored = source.tensors()[number].same_as.clone().unwrap_or_else(|| name.to_owned());
            if !tensors.contains(&stored) || out.by_name.contains_key(name) {
                continue;
            }
            if name == embedding.0 && spec.embedding.norm.is_some() {
                left_out.push(stored.clone());
            }
            if let Some(&known) = out.by_name.get(&stored) {
                out.entries[known].names.push(name.to_owned());
                out.by_name.insert(name.to_owned(), known);
                continue;
            }
            let base = Base::new(source.open(number)?.into());
            if base.shape() != shape {
                continue;
            }
            let first = out.logs.len();
            let middle = first + shape[0];
            out.logs.resize(middle + shape[1], 0.0);
            let mut names = vec![stored.clone()];
            out.by_name.insert(stored.clone(), out.entries.len());
            if stored != name {
                names.push(name.to_owned());
                out.by_name.insert(name.to_owned(), out.entries.len());
            }
            out.entries.push(Entry { names, base, rows: first..middle, cols: middle..out.logs.len() });
        }
        out.entries.retain(|e| !left_out.contains(&e.names[0]));
        let entries = out.entries.iter().enumerate();
        out.by_name = entries.flat_map(|(i, e)| e.names.iter().map(move |n| (n.clone(), i))).collect();
        Ok(out)
    }

    /// True where there is nothing to be tuned.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keeps decoded weights where `model` has memory left, so that they need not be decoded again after every step.
    ///
    /// # Errors
    /// If weights cannot be read.
    pub(super) fn decode(&mut self, model: &ModelRunner) -> Result<()> {
        for entry in &mut self.entries {
            let [rows, cols] = entry.base.shape();
            let budget = model.budget();
            let bytes = 4 * (rows * cols) as u64;
            // Room is left for what is reserved for a moment only.
            if budget.used() + bytes > budget.limit() - budget.limit() / 8 {
                continue;
            }
            if let Ok(memory) = budget.reserve(bytes, "decoded weights") {
                entry.base.decode(memory)?;
            }
        }
        Ok(())
    }

    /// Gives `model` the weights that the parameters make.
    pub(super) fn apply(&self, model: &ModelRunner) {
        for entry in &self.entries {
            let factors = |range: &Range<usize>| {
                self.logs[range.clone()].iter().map(|&x| x.exp() as f32).collect::<Vec<f32>>()
            };
            let scaled = Arc::new(entry.base.scaled(factors(&entry.rows), factors(&entry.cols)));
            for name in &entry.names {
                model.replace(name, Arc::clone(&scaled) as _);
            }
        }
    }

    /// For every stored tensor, by name, the factors of its rows and columns for the parameters `logs`.
    pub(super) fn factors<'a>(
        &'a self,
        logs: &'a [f64],
    ) -> impl Iterator<Item = (&'a str, [Vec<f64>; 2])> + 'a {
        self.entries.iter().map(|entry| {
            let factors =
                [&entry.rows, &entry.cols].map(|range| logs[range.clone()].iter().map(|x| x.exp()).collect());
            (entry.names[0].as_str(), factors)
        })
    }
}

/// Sums up slopes along all parameters of some corrections.
pub(super) struct Slopes<'a> {
    pub(super) model: &'a ModelRunner,
    pub(super) corrections: &'a Corrections,
    pub(super) sums: Vec<f64>,
}

impl<'a> Slopes<'a> {
    pub(super) fn new(model: &'a ModelRunner, corrections: &'a Corrections) -> Slopes<'a> {
        Slopes { model, corrections, sums: vec![0.0; corrections.logs.len()] }
    }

    fn entry(&self, tensor: &str) -> Option<&'a Entry> {
        self.corrections.entries.get(*self.corrections.by_name.get(tensor)?)
    }
}

fn flat(x: &Tensor) -> Result<Vec<f32>> {
    x.flatten_all().and_then(|x| x.to_vec1()).map_err(Error::compute("slopes along scales"))
}

/// Adds the sums of all columns of `a * (b - shift)` to `sums`.
fn add_products(a: &Tensor, b: &Tensor, shift: Option<&[f32]>, sums: &mut [f64]) -> Result<()> {
    let (a, b, width) = (flat(a)?, flat(b)?, sums.len().max(1));
    for (a, b) in a.chunks(width).zip(b.chunks(width)) {
        match shift {
            Some(shift) => {
                for (((sum, &a), &b), &s) in sums.iter_mut().zip(a).zip(b).zip(shift) {
                    *sum += f64::from(a) * f64::from(b - s);
                }
            }
            None => {
                for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
                    *sum += f64::from(a) * f64::from(b);
                }
            }
        }
    }
    Ok(())
}

impl GradientTap for Slopes<'_> {
    fn linear(&mut self, seen: &MapGradient<'_>) -> Result<()> {
        let Some(entry) = self.entry(&seen.map.tensor) else { return Ok(()) };
        let bias = seen.map.bias.as_ref().map(|bias| self.model.vector(bias)).transpose()?;
        let bias = bias.as_ref().map(flat).transpose()?;
        let (outputs, inputs) = match seen.map.inputs_first {
            true => (&entry.cols, &entry.rows),
            false => (&entry.rows, &entry.cols),
        };
        add_products(seen.gradient, seen.y, bias.as_deref(), &mut self.sums[outputs.clone()])?;
        add_products(seen.at_inputs, seen.x, None, &mut self.sums[inputs.clone()])
    }

    fn embedding(&mut self, ids: &[u32], gradient: &Tensor) -> Result<()> {
        let spec = &self.model.spec().embedding;
        let Some(entry) = self.entry(&spec.tokens) else { return Ok(()) };
        let (rows, gradient) = (self.model.embedding_rows(ids)?, flat(gradient)?);
        let width = entry.cols.len().max(1);
        for ((&id, row), gradient) in ids.iter().zip(rows.chunks(width)).zip(gradient.chunks(width)) {
            let mut along_row = 0.0;
            for ((sum, &w), &g) in self.sums[entry.cols.clone()].iter_mut().zip(row).zip(gradient) {
                let product = spec.scale * f64::from(w) * f64::from(g);
                *sum += product;
                along_row += product;
            }
            self.sums[entry.rows.start + id as usize] += along_row;
        }
        Ok(())
    }
}
