//! Experts that saw few tokens: what they lack is taken from all experts of their layer.

use super::moments::InputMoments;
use super::stages::Stage;
use lsb_quant::calibrate::{DenseMoments, Moments};
use lsb_stream::{Budget, Reservation};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// An expert with fewer tokens than its inputs over this is starved.
const INPUTS_PER_TOKEN: usize = 4;

/// What is said of experts where nobody counts them.
pub(super) const GENERAL: &str =
    "Experts that see fewer tokens than a quarter of their inputs are pooled with the others of their layer.";

/// What is known of the inputs of maps, by tensor.
pub(super) type Known = HashMap<String, Arc<dyn Moments>>;

/// How many experts were starved, and which maps were not fed at all.
#[derive(Clone, Debug, Default)]
pub(super) struct Starved {
    /// Whether what is found goes into the notes: that of the original does, which is seen from the start whatever was
    /// compressed already.
    pub(super) counted: bool,
    /// By tokens that were too few and by layer: how many of how many experts.
    pooled: BTreeMap<(usize, usize), (usize, usize)>,
    /// By layer: maps that no token came to.
    unused: BTreeMap<usize, usize>,
}

impl Starved {
    /// What was seen of the maps of a stage of layer `layer`. Moments of starved experts are filled up to the number of tokens
    /// that is enough, with those of all experts of the stage; they are held in memory where `budget` has room.
    ///
    /// # Errors
    /// If inputs cannot be read.
    pub(super) fn known(
        &mut self,
        layer: usize,
        stage: &Stage<'_>,
        seen: &mut HashMap<String, Arc<InputMoments>>,
        budget: &Budget,
    ) -> lsb_quant::Result<Known> {
        let mut known = Known::new();
        let mut starved = Vec::new();
        let mut members: Vec<Arc<InputMoments>> = Vec::new();
        let mut enough = 0;
        for group in &stage.maps {
            let found: Vec<_> = group.iter().map(|m| seen.remove(&m.tensor)).collect();
            for (map, inputs) in group.iter().zip(found) {
                enough = map.inputs.div_ceil(INPUTS_PER_TOKEN);
                let Some(inputs) = inputs else {
                    starved.push((&map.tensor, None));
                    continue;
                };
                if !members.iter().any(|m| Arc::ptr_eq(m, &inputs)) {
                    members.push(Arc::clone(&inputs));
                }
                if stage.per_token.is_some() && inputs.tokens() < enough {
                    starved.push((&map.tensor, Some(inputs)));
                } else {
                    known.insert(map.tensor.clone(), inputs);
                }
            }
        }
        if starved.is_empty() {
            return Ok(known);
        }
        let total: usize = members.iter().map(|m| m.tokens()).sum();
        if total == 0 || stage.per_token.is_none() {
            if self.counted {
                *self.unused.entry(layer).or_insert(0) += starved.len();
            }
            return Ok(known);
        }
        let share =
            |m: &Arc<InputMoments>| (m.tokens() as f32 / total as f32, Arc::clone(m) as Arc<dyn Moments>);
        let pool = held(Mixture::new(members.iter().map(share).collect()), budget)?;
        // Maps of one expert that share their input share what it becomes.
        let mut filled: Vec<(Arc<InputMoments>, Arc<dyn Moments>)> = Vec::new();
        let experts =
            stage.maps.iter().filter(|g| g.iter().any(|m| starved.iter().any(|(t, _)| **t == m.tensor)));
        if self.counted {
            self.pooled.insert((enough, layer), (experts.count(), stage.maps.len()));
        }
        for (tensor, own) in starved {
            let inputs = match own {
                None => Arc::clone(&pool),
                Some(own) => match filled.iter().find(|(o, _)| Arc::ptr_eq(o, &own)) {
                    Some((_, filled)) => Arc::clone(filled),
                    None => {
                        let share = own.tokens() as f32 / enough as f32;
                        let parts: Vec<(f32, Arc<dyn Moments>)> =
                            vec![(share, Arc::clone(&own) as _), (1.0 - share, Arc::clone(&pool))];
                        let inputs: Arc<dyn Moments> = Arc::new(Mixture::new(parts));
                        filled.push((own, Arc::clone(&inputs)));
                        inputs
                    }
                },
            };
            known.insert(tensor.clone(), inputs);
        }
        Ok(known)
    }

    /// What a reader of the report should know.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut thresholds: Vec<usize> = self.pooled.keys().map(|k| k.0).collect();
        thresholds.dedup();
        for enough in thresholds {
            let of = |(&(_, layer), (few, all)): (_, &(usize, usize))| {
                format!("{few} of {all} experts of layer {layer}")
            };
            let layers: Vec<String> = self.pooled.iter().filter(|(k, _)| k.0 == enough).map(of).collect();
            out.push(format!(
                "{} saw fewer than {enough} tokens: pooled with the others.",
                layers.join(", ")
            ));
        }
        for (layer, maps) in &self.unused {
            out.push(format!(
                "{maps} maps of layer {layer} were never used: all their inputs count the same."
            ));
        }
        out
    }
}

/// Weighted means of moments of the same inputs.
#[derive(Debug)]
struct Mixture {
    /// Weights that add up to one, and the moments.
    parts: Vec<(f32, Arc<dyn Moments>)>,
    diagonal: Vec<f32>,
}

impl Mixture {
    fn new(parts: Vec<(f32, Arc<dyn Moments>)>) -> Self {
        let n = parts.first().map_or(0, |(_, m)| m.diagonal().len());
        let mut diagonal = vec![0.0; n];
        for (weight, part) in &parts {
            diagonal.iter_mut().zip(part.diagonal()).for_each(|(s, x)| *s += weight * x);
        }
        Mixture { parts, diagonal }
    }

    fn sum(&self, of: impl Fn(&dyn Moments) -> lsb_quant::Result<Vec<f32>>) -> lsb_quant::Result<Vec<f32>> {
        let mut out: Vec<f32> = Vec::new();
        for (weight, part) in &self.parts {
            let values = of(&**part)?;
            out.resize(values.len(), 0.0);
            out.iter_mut().zip(&values).for_each(|(s, x)| *s += weight * x);
        }
        Ok(out)
    }
}

impl Moments for Mixture {
    fn diagonal(&self) -> &[f32] {
        &self.diagonal
    }

    fn block(&self, columns: &[usize]) -> lsb_quant::Result<Vec<f32>> {
        self.sum(|m| m.block(columns))
    }

    fn upper(&self, rows: Range<usize>) -> lsb_quant::Result<Vec<f32>> {
        self.sum(|m| m.upper(rows.clone()))
    }

    fn block_limit(&self) -> usize {
        self.parts.iter().map(|(_, m)| m.block_limit()).min().unwrap_or(usize::MAX)
    }
}

/// Moments in memory that is accounted for.
#[derive(Debug)]
struct Held {
    values: DenseMoments,
    _memory: Reservation,
}

impl Moments for Held {
    fn diagonal(&self) -> &[f32] {
        self.values.diagonal()
    }

    fn block(&self, columns: &[usize]) -> lsb_quant::Result<Vec<f32>> {
        self.values.block(columns)
    }

    fn upper(&self, rows: Range<usize>) -> lsb_quant::Result<Vec<f32>> {
        self.values.upper(rows)
    }

    fn block_limit(&self) -> usize {
        self.values.block_limit()
    }
}

/// The mixture's sums in memory where `budget` has room to make them, else the mixture: every expert asks for them.
fn held(mixture: Mixture, budget: &Budget) -> lsb_quant::Result<Arc<dyn Moments>> {
    let n = mixture.diagonal.len();
    let bytes = 4 * (n as u64) * (n as u64);
    // While they are made, a part and its products are there too.
    let (Ok(memory), Ok(_making)) = (budget.reserve(bytes, "moments"), budget.reserve(2 * bytes, "moments"))
    else {
        return Ok(Arc::new(mixture));
    };
    let columns: Vec<usize> = (0..n).collect();
    let limit = mixture.block_limit();
    let values = DenseMoments::new(mixture.block(&columns)?, n).with_block_limit(limit);
    Ok(Arc::new(Held { values, _memory: memory }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_name_layers_and_thresholds() {
        let pooled = [((12, 1), (2, 6)), ((12, 0), (1, 6)), ((16, 1), (2, 6))].into();
        let starved = Starved { counted: true, pooled, unused: [(3, 4)].into() };
        assert_eq!(
            starved.notes(),
            [
                "1 of 6 experts of layer 0, 2 of 6 experts of layer 1 saw fewer than 12 tokens: pooled with the others.",
                "2 of 6 experts of layer 1 saw fewer than 16 tokens: pooled with the others.",
                "4 maps of layer 3 were never used: all their inputs count the same.",
            ]
        );
    }

    #[test]
    fn mixtures_are_weighted_means() {
        let dense =
            |x: f32| Arc::new(DenseMoments::new(vec![x, 0.5 * x, 0.5 * x, 2.0 * x], 2)) as Arc<dyn Moments>;
        let mixture = || Mixture::new(vec![(0.25, dense(4.0)), (0.75, dense(8.0))]);
        for moments in
            [held(mixture(), &Budget::new(0)).unwrap(), held(mixture(), &Budget::new(1 << 20)).unwrap()]
        {
            assert_eq!(moments.diagonal(), [7.0, 14.0]);
            assert_eq!(moments.block(&[1, 0]).unwrap(), [14.0, 3.5, 3.5, 7.0]);
            assert_eq!(moments.upper(0..2).unwrap(), [7.0, 3.5, 14.0]);
            assert_eq!(moments.block_limit(), usize::MAX);
        }
    }
}
