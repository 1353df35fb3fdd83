//! Maps decoded band by band against the same maps in f32.

use super::*;
use candle_core::Device;
use lsb_format::Tiling;
use lsb_quant::Activations;
use lsb_stream::{MemoryWeights, Scratch, TensorFacts, TensorWeights, WeightSource};
use std::sync::Arc;

fn values(n: usize, seed: usize) -> Vec<f32> {
    let mixed = |i: usize| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed as u64).rotate_left(29);
    let value = |i| (mixed(i).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    (0..n).map(value).collect()
}

/// Both forms of a map, wide enough that it takes several bands.
fn both(inputs: usize, outputs: usize, inputs_first: bool) -> [Box<dyn Linear>; 2] {
    let shape = if inputs_first { [inputs, outputs] } else { [outputs, inputs] };
    let weights = values(inputs * outputs, 1);
    let long = shape.map(|n| n as u64);
    let source = MemoryWeights::new().with_f32("w", &long, &weights).unwrap();
    let coded: Arc<dyn TensorWeights> = source.open(0).unwrap().into();
    let bias = Tensor::from_vec(values(outputs, 2), outputs, &Device::Cpu).unwrap();
    let weights = Tensor::from_vec(weights, &shape, &Device::Cpu).unwrap();
    let spec = MapSpec { tensor: "w".into(), bias: Some("b".into()), inputs, outputs, inputs_first };
    [
        Box::new(Dense::new(spec.clone(), weights, Some(bias.clone()), None)),
        Box::new(Coded::new(spec, coded, Some(bias), Arc::new(Bands::new(inputs.max(outputs), u64::MAX)))),
    ]
}

#[test]
fn bands_give_what_the_whole_gives() {
    for (inputs, outputs) in [(64, 48), (700, 2100), (3, 5000), (300_000, 3)] {
        for inputs_first in [false, true] {
            let [dense, coded] = both(inputs, outputs, inputs_first);
            for tokens in [1, 5] {
                let x = Tensor::from_vec(values(tokens * inputs, 3), (tokens, inputs), &Device::Cpu).unwrap();
                for rows in [0..outputs, 1..outputs - 1] {
                    let [a, b] = [&dense, &coded].map(|map| {
                        let y = map.forward_rows(&x, rows.clone()).unwrap();
                        assert_eq!(y.dims(), [tokens, rows.len()]);
                        y.flatten_all().unwrap().to_vec1::<f32>().unwrap()
                    });
                    let scale = (inputs as f32).sqrt();
                    for (a, b) in a.iter().zip(&b) {
                        assert!((a - b).abs() < 1e-4 * scale, "{inputs} x {outputs}: {a} {b}");
                    }
                }
            }
        }
    }
}

#[test]
fn gradients_go_back_the_same_way_from_bands_and_from_the_whole() {
    for (inputs, outputs) in [(64, 48), (700, 2100), (3, 5000)] {
        for inputs_first in [false, true] {
            let [dense, coded] = both(inputs, outputs, inputs_first);
            let y = Tensor::from_vec(values(5 * outputs, 3), (5, outputs), &Device::Cpu).unwrap();
            let [a, b] = [&dense, &coded].map(|map| {
                let x = map.backward(&y).unwrap();
                assert_eq!(x.dims(), [5, inputs]);
                x.flatten_all().unwrap().to_vec1::<f32>().unwrap()
            });
            let scale = (outputs as f32).sqrt();
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4 * scale), "{inputs} x {outputs}");
            // <y, W x> is <W^T y, x>.
            let x = Tensor::from_vec(values(5 * inputs, 4), (5, inputs), &Device::Cpu).unwrap();
            let sum =
                |t: candle_core::Result<Tensor>| t.unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            let forward =
                (dense.forward(&x).unwrap() - dense.forward(&x.zeros_like().unwrap()).unwrap()).unwrap();
            let (one, other) = (sum(forward * &y), sum(x * dense.backward(&y).unwrap()));
            assert!((one - other).abs() < 1e-2 * one.abs().max(1.0), "{one} {other}");
        }
    }
}

/// Weights in memory, in tiles that multiply themselves.
struct Tiles {
    weights: Box<dyn TensorWeights>,
    tiling: Tiling,
}

impl TensorWeights for Tiles {
    fn facts(&self) -> &TensorFacts {
        self.weights.facts()
    }
    fn tiling(&self) -> &Tiling {
        &self.tiling
    }
    fn is_exact(&self) -> bool {
        true
    }
    fn scratch_bytes(&self) -> u64 {
        self.weights.scratch_bytes()
    }
    fn read_f32(&self, run: Range<u64>, out: &mut [f32], scratch: &mut Scratch) -> lsb_stream::Result<()> {
        self.weights.read_f32(run, out, scratch)
    }
    fn read_exact(&self, run: Range<u64>, out: &mut [u8], scratch: &mut Scratch) -> lsb_stream::Result<()> {
        self.weights.read_exact(run, out, scratch)
    }
    fn has_products(&self, _: usize) -> bool {
        true
    }
    fn add_products(
        &self,
        tiles: Range<u64>,
        x: &Activations<'_>,
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> lsb_stream::Result<()> {
        for tile in tiles.map(|index| self.tiling.tile(index)) {
            let (rows, first) = (tile.rows as usize, tile.col as usize);
            for row in 0..rows {
                let start = (tile.row + row as u64) * self.tiling.cols() + tile.col;
                let mut w = vec![0.0; tile.cols as usize];
                self.weights.read_f32(start..start + tile.cols, &mut w, scratch)?;
                for token in 0..x.tokens() {
                    let x = &x.token(token)[first..];
                    y[token * rows + row] += w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
                }
            }
        }
        Ok(())
    }
}

#[test]
fn steps_of_generation_multiply_tiles_and_give_the_same_on_any_number_of_threads() {
    // One tile, a grid with odd edges, and so many rows of tiles that their sums do not fit at once.
    for (inputs, outputs, tile) in [(9, 7, (16, 16)), (37, 50, (8, 16)), (20_000, 600, (2, 30))] {
        let weights = values(inputs * outputs, 1);
        let shape = [outputs as u64, inputs as u64];
        let source = MemoryWeights::new().with_f32("w", &shape, &weights).unwrap();
        let tiling = Tiling::new(shape[0], shape[1], tile.0, tile.1, 1).unwrap();
        let tiles = Tiles { weights: source.open(0).unwrap(), tiling };
        let bias = Tensor::from_vec(values(outputs, 2), outputs, &Device::Cpu).unwrap();
        let spec =
            MapSpec { tensor: "w".into(), bias: Some("b".into()), inputs, outputs, inputs_first: false };
        let map = Coded::new(spec, Arc::new(tiles), Some(bias), Arc::new(Bands::new(inputs, u64::MAX)));
        for tokens in [1, 9, if inputs < 100 { products::TOKENS + 1 } else { 2 }] {
            let x = Tensor::from_vec(values(tokens * inputs, 3), (tokens, inputs), &Device::Cpu).unwrap();
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let y = pool.install(|| map.forward_step(&x)).unwrap();
                assert_eq!(y.dims(), [tokens, outputs]);
                y.flatten_all().unwrap().to_vec1::<f32>().unwrap()
            };
            let found = run(1);
            assert_eq!(found, run(3));
            let expected = map.forward(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let scale = (inputs as f32).sqrt();
            for (a, b) in found.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-4 * scale, "{inputs} x {outputs}, {tokens} tokens: {a} {b}");
            }
        }
    }
}
