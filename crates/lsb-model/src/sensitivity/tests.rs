//! Gradients against finite differences.

use super::*;
use crate::runner::{Objective, Piece};
use crate::{NoTap, RunOptions};
use candle_core::Device;
use lsb_quant::Registry;
use lsb_stream::{Budget, MemoryWeights, Scratch, WeightSource};
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden").join(name)
}

fn open(name: &str) -> ModelRunner {
    let budget = Budget::new(64_000_000);
    ModelRunner::open(&golden(name), &Registry::standard(), &budget, &RunOptions::default()).unwrap()
}

fn windows() -> Vec<Vec<u32>> {
    vec![(3..12).collect(), vec![7, 1, 30, 2, 2, 9]]
}

fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mixed = |i: usize| (i as u64 + 1 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let value = |i| (mixed(i).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    (0..n).map(value).collect()
}

/// A weighted sum of all hidden states behind the last norm.
struct Weighted;

impl Weighted {
    fn weights(first: usize, x: &Tensor) -> Tensor {
        let (tokens, width) = x.dims2().unwrap();
        let values: Vec<f32> = (first..first + tokens).flat_map(|t| noise(width, 1000 * t as u64)).collect();
        Tensor::from_vec(values, (tokens, width), &Device::Cpu).unwrap()
    }

    fn value(model: &ModelRunner) -> f64 {
        let mut batch = model.batch(&windows()).unwrap();
        batch.run(&mut NoTap).unwrap();
        let mut sum = 0.0;
        for (i, chunk) in batch.chunks().into_iter().enumerate() {
            let x = batch.output(i).unwrap();
            let w = Weighted::weights(chunk.start, &x);
            let products = (x * w).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            sum += products.iter().map(|&p| f64::from(p)).sum::<f64>();
        }
        sum
    }
}

impl Objective for Weighted {
    fn gradient(
        &mut self,
        _: &ModelRunner,
        piece: &Piece<'_>,
        hidden: &Tensor,
        _: &mut dyn GradientTap,
    ) -> Result<Tensor> {
        Ok(Weighted::weights(piece.first, hidden))
    }
}

/// The slope of the objective along a direction of one map's weights.
struct Slope {
    tensor: String,
    direction: Vec<f32>,
    sum: f64,
}

impl GradientTap for Slope {
    fn linear(&mut self, seen: &MapGradient<'_>) -> Result<()> {
        let MapGradient { map, x, gradient, .. } = *seen;
        if map.tensor == self.tensor {
            let shape = if map.inputs_first { (map.inputs, map.outputs) } else { (map.outputs, map.inputs) };
            let d = Tensor::from_vec(self.direction.clone(), shape, &Device::Cpu).unwrap();
            let d = if map.inputs_first { d } else { d.t().unwrap() };
            let products = (x.matmul(&d).unwrap() * gradient).unwrap();
            self.sum += f64::from(products.sum_all().unwrap().to_scalar::<f32>().unwrap());
        }
        Ok(())
    }

    fn embedding(&mut self, ids: &[u32], gradient: &Tensor) -> Result<()> {
        if self.tensor.contains("embed") {
            let rows = gradient.to_vec2::<f32>().unwrap();
            for (&id, row) in ids.iter().zip(rows) {
                let d = &self.direction[id as usize * row.len()..][..row.len()];
                self.sum += row.iter().zip(d).map(|(g, d)| f64::from(g * d)).sum::<f64>();
            }
        }
        Ok(())
    }
}

/// Compares the slope with what small steps both ways give.
fn check(name: &str, tensor: &str) {
    let model = open(name);
    let number = model.source().find(tensor).unwrap();
    let facts = &model.source().tensors()[number];
    let mut weights = vec![0.0; facts.weights() as usize];
    let all = 0..facts.weights();
    model.source().open(number).unwrap().read_f32(all, &mut weights, &mut Scratch::default()).unwrap();
    let size = (weights.iter().map(|w| f64::from(w * w)).sum::<f64>() / weights.len() as f64).sqrt() as f32;
    let direction: Vec<f32> = noise(weights.len(), 5).iter().map(|d| d * size).collect();
    let mut slope = Slope { tensor: tensor.to_owned(), direction: direction.clone(), sum: 0.0 };
    backward(&model, &windows(), &mut Weighted, &mut NoTap, &mut slope).unwrap();
    let step = 3e-3f32;
    let at = |sign: f32| {
        let moved: Vec<f32> = weights.iter().zip(&direction).map(|(w, d)| w + sign * step * d).collect();
        let source = MemoryWeights::new().with_f32(tensor, &facts.shape, &moved).unwrap();
        model.replace(tensor, source.open(0).unwrap().into());
        Weighted::value(&model)
    };
    let measured = (at(1.0) - at(-1.0)) / (2.0 * f64::from(step));
    let scale = measured.abs().max(slope.sum.abs()).max(0.05);
    assert!((slope.sum - measured).abs() < 0.02 * scale, "{name} {tensor}: {} {measured}", slope.sum);
}

#[test]
fn gradients_are_those_of_small_steps() {
    for name in [
        "bert",
        "gemma2",
        "gemma3",
        "gpt-neox",
        "gpt2",
        "llama",
        "mistral",
        "mixtral",
        "phi3",
        "qwen2",
        "qwen3",
        "qwen3-moe",
    ] {
        let model = open(name);
        // The first and the last block's maps, and an expert that is surely chosen by some token.
        let blocks = &model.spec().blocks;
        for block in [blocks.first(), blocks.last()].into_iter().flatten() {
            let maps = block.branches.iter().flat_map(|b| b.part.every_map());
            // A router's choice is no smooth function; its weights are.
            for map in maps.take(6).filter(|m| !m.tensor.contains("gate.weight") || m.outputs > 16) {
                check(name, &map.tensor);
            }
        }
    }
    check("llama", "model.embed_tokens.weight");
}

#[test]
fn sensitivity_depends_on_no_thread() {
    let with = |threads: usize, name: &str| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| Sensitivity::estimate(&open(name), &windows(), 4).unwrap())
    };
    for name in ["llama", "bert", "gemma2"] {
        let (one, three) = (with(1, name), with(3, name));
        assert_eq!(one.outputs, three.outputs);
        assert_eq!(one.embedding, three.embedding);
        let model = open(name);
        for map in model.spec().maps() {
            let outputs = &one.outputs[&map.tensor];
            assert_eq!(outputs.len(), map.outputs);
            assert!(outputs.iter().all(|x| x.is_finite() && *x >= 0.0) && outputs.iter().any(|x| *x > 0.0));
        }
        assert_eq!(one.counts.iter().sum::<u64>() as usize, one.tokens);
    }
}

/// Half the Fisher information times squared errors is the divergence that small errors cause.
#[test]
fn sensitivity_predicts_the_divergence_of_small_errors() {
    let model = open("llama");
    let windows: Vec<Vec<u32>> = (0..24).map(|i| (0..16).map(|k| (i * 5 + k * 7) % 60).collect()).collect();
    let sensitivity = Sensitivity::estimate(&model, &windows, 9).unwrap();
    let map = model.spec().maps().find(|m| m.tensor.contains("down_proj")).unwrap().clone();
    let logits = || {
        let mut batch = model.batch(&windows).unwrap();
        batch.run(&mut NoTap).unwrap();
        let head = model.head().unwrap();
        let all = (0..batch.chunks().len()).flat_map(|i| {
            let x = batch.output(i).unwrap();
            head.logits(&x).unwrap().to_vec2::<f32>().unwrap()
        });
        all.collect::<Vec<_>>()
    };
    let before = logits();
    // The same error at one output for every token: a bias.
    let facts = model.source().tensors()[model.source().find(&map.tensor).unwrap()].clone();
    let mut weights = vec![0.0; facts.weights() as usize];
    let number = model.source().find(&map.tensor).unwrap();
    model
        .source()
        .open(number)
        .unwrap()
        .read_f32(0..facts.weights(), &mut weights, &mut Scratch::default())
        .unwrap();
    let mut errors = vec![0.0f64; map.outputs];
    struct Inputs<'a>(&'a MapSpec, &'a [f32], &'a mut [f64], usize);
    impl Tap for Inputs<'_> {
        fn linear(&mut self, _: usize, map: &MapSpec, x: &Tensor, _: &Tensor) -> Result<()> {
            if map == self.0 {
                for x in x.to_vec2::<f32>().unwrap() {
                    self.3 += 1;
                    for (e, d) in self.2.iter_mut().zip(self.1.chunks(map.inputs)) {
                        let y: f32 = x.iter().zip(d).map(|(x, d)| x * d).sum();
                        *e += f64::from(y) * f64::from(y);
                    }
                }
            }
            Ok(())
        }
    }
    let step: Vec<f32> = noise(weights.len(), 77).iter().map(|d| 2e-3 * d).collect();
    let mut inputs = Inputs(&map, &step, &mut errors, 0);
    let mut batch = model.batch(&windows).unwrap();
    batch.run(&mut inputs).unwrap();
    let tokens = inputs.3 as f64;
    let predicted: f64 =
        sensitivity.outputs[&map.tensor].iter().zip(&errors).map(|(f, e)| 0.5 * f * e / tokens).sum();
    let moved: Vec<f32> = weights.iter().zip(&step).map(|(w, d)| w + d).collect();
    let source = MemoryWeights::new().with_f32(&map.tensor, &facts.shape, &moved).unwrap();
    model.replace(&map.tensor, source.open(0).unwrap().into());
    let mut divergence = 0.0;
    let softmax = |row: &[f32]| {
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        let e: Vec<f64> = row.iter().map(|&y| f64::from(y - largest).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.into_iter().map(|e| e / sum).collect::<Vec<_>>()
    };
    let after = logits();
    for (a, b) in before.iter().zip(&after) {
        let (p, q) = (softmax(a), softmax(b));
        divergence += p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>() / before.len() as f64;
    }
    // One draw per token: the estimate is noisy, and outputs are not independent.
    assert!(divergence > 0.3 * predicted && divergence < 3.0 * predicted, "{divergence} {predicted}");
}
