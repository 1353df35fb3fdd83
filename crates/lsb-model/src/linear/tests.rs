//! Maps decoded band by band against the same maps in f32.

use super::*;
use candle_core::Device;
use lsb_stream::{MemoryWeights, TensorWeights, WeightSource};
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
        Box::new(Coded::new(spec, coded, Some(bias), Arc::default())),
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
