//! The comparison on small models in memory.

use super::*;
use crate::{DiffState, Measurement, QualityValidator, WeightError, diff, summarize};
use lsb_format::{DType, Error, Tiling};
use lsb_stream::{MemoryWeights, Scratch};
use std::ops::Range;

/// Stands for a package: the weights of another source, through tiles, with a codec of its own.
#[derive(Debug)]
struct Coded {
    inner: MemoryWeights,
    facts: Vec<TensorFacts>,
    tile: (u64, u64),
    exact: bool,
}

impl Coded {
    fn new(inner: MemoryWeights, tile: (u64, u64), exact: bool) -> Self {
        let mut facts = inner.tensors().to_vec();
        for (i, f) in facts.iter_mut().enumerate() {
            f.codec = Some(("test".into(), Default::default()));
            f.layer = format!("layer {}", i / 2);
        }
        Coded { inner, facts, tile, exact }
    }
}

impl WeightSource for Coded {
    fn tensors(&self) -> &[TensorFacts] {
        &self.facts
    }

    fn open(&self, tensor: usize) -> Result<Box<dyn TensorWeights>> {
        let m = self.facts[tensor].matrix();
        let tiling = Tiling::new(m.rows, m.cols, self.tile.0, self.tile.1, 1)?;
        let facts = self.facts[tensor].clone();
        Ok(Box::new(Open { facts, inner: self.inner.open(tensor)?, tiling, exact: self.exact }))
    }

    fn hold(&self, tensor: usize) -> Result<Box<dyn TensorWeights>> {
        self.open(tensor)
    }

    fn held_bytes(&self, tensor: usize) -> u64 {
        self.inner.held_bytes(tensor)
    }
}

struct Open {
    facts: TensorFacts,
    inner: Box<dyn TensorWeights>,
    tiling: Tiling,
    exact: bool,
}

impl TensorWeights for Open {
    fn facts(&self) -> &TensorFacts {
        &self.facts
    }
    fn tiling(&self) -> &Tiling {
        &self.tiling
    }
    fn is_exact(&self) -> bool {
        self.exact
    }
    fn scratch_bytes(&self) -> u64 {
        64
    }
    fn read_f32(&self, elements: Range<u64>, out: &mut [f32], scratch: &mut Scratch) -> Result<()> {
        if elements.contains(&666) {
            return Err(Error::corruption("P30", "made for the test").in_tile(elements.start).into());
        }
        self.inner.read_f32(elements, out, scratch)
    }
    fn read_exact(&self, elements: Range<u64>, out: &mut [u8], scratch: &mut Scratch) -> Result<()> {
        if !self.exact {
            return Err(Error::argument("not exact").into());
        }
        self.inner.read_exact(elements, out, scratch)
    }
}

fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 - 0.5
        })
        .collect()
}

fn rounded(values: &[f32], step: f32) -> Vec<f32> {
    values.iter().map(|x| (x / step).round() * step).collect()
}

fn budget() -> Budget {
    Budget::new(10_000_000)
}

/// Remembers what it was shown.
#[derive(Default)]
struct Witness(Vec<(String, u64, Vec<u32>)>);

impl Validator for Witness {
    fn name(&self) -> &str {
        "witness"
    }
    fn needs(&self) -> Domain {
        Domain::Weights
    }
    fn observe(&mut self, observation: &Observation<'_>) {
        let Observation::Weights(run) = observation;
        let bits = run.original.iter().chain(run.decoded).map(|x| x.to_bits()).collect();
        self.0.push((run.tensor.name.clone(), run.first, bits));
    }
    fn finish(&mut self) -> Vec<Measurement> {
        Vec::new()
    }
}

#[test]
fn figures_and_observations_do_not_depend_on_threads_or_memory() {
    let shapes: [(&str, [u64; 2]); 3] = [("a", [37, 29]), ("b", [1, 65]), ("c", [40, 16])];
    let (mut original, mut decoded) = (MemoryWeights::new(), MemoryWeights::new());
    for (i, (name, shape)) in shapes.iter().enumerate() {
        let w = noise((shape[0] * shape[1]) as usize, i as u32 + 1);
        original = original.with_f32(name, shape, &w).unwrap();
        decoded = decoded.with_f32(name, shape, &rounded(&w, 0.125)).unwrap();
    }
    for tile in [(4, 1 << 16), (4, 8)] {
        // No element 666 is decoded: it would be an error.
        let decoded = Coded::new(decoded.clone(), tile, true);
        let run = |threads: usize, bytes: u64| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (mut witness, mut quality) = (Witness::default(), QualityValidator::new());
            let budget = Budget::new(bytes);
            let comparison = pool.install(|| {
                Compare::new(&original, &decoded, &budget)
                    .validator(&mut witness)
                    .validator(&mut quality)
                    .run()
                    .unwrap()
            });
            assert_eq!(budget.used(), 0);
            assert!(budget.peak() <= bytes);
            (comparison, witness.0, quality.report())
        };
        let reference = run(1, 4000);
        for (threads, bytes) in [(1, 100_000), (2, 4000), (3, 9000), (4, 1_000_000)] {
            assert_eq!(run(threads, bytes), reference, "{threads} threads, {bytes} bytes");
        }
        let (comparison, shown, report) = reference;
        // The sums over runs are those of the whole tensors, and everything was shown once, in order.
        for (t, (name, shape)) in comparison.tensors.iter().zip(shapes) {
            let direct = noise(
                (shape[0] * shape[1]) as usize,
                1 + shapes.iter().position(|s| s.0 == name).unwrap() as u32,
            );
            let d = Distortion::measure(&direct, &rounded(&direct, 0.125));
            let sums = t.distortion().unwrap();
            assert_eq!((sums.weights, sums.max_abs), (d.weights, d.max_abs));
            assert!((sums.sum_ee / d.sum_ee - 1.0).abs() < 1e-6);
            let n: usize = shown.iter().filter(|s| s.0 == name).map(|s| s.2.len() / 2).sum();
            assert_eq!(n as u64, d.weights);
        }
        assert!(shown.windows(2).all(|w| w[0].0 != w[1].0 || w[0].1 < w[1].1));
        assert_eq!(report.layers.len(), 2);
        let layer: u64 = report.layers.iter().map(|l| l.error.weights).sum();
        assert_eq!(layer, report.model.weights);
    }
}

#[test]
fn missing_extra_and_misshapen_tensors_are_part_of_the_answer() {
    let original = MemoryWeights::new()
        .with_f32("same", &[4], &[1.0, 2.0, 3.0, 4.0])
        .unwrap()
        .with_f32("gone", &[1], &[1.0])
        .unwrap()
        .with_f32("shape", &[2, 2], &[0.0; 4])
        .unwrap()
        .with("ids", DType::I64, &[1], vec![7; 8])
        .unwrap()
        .with("ids2", DType::I64, &[1], vec![7; 8])
        .unwrap()
        .with("empty", DType::F32, &[0, 4], vec![])
        .unwrap();
    let other = MemoryWeights::new()
        .with_f32("extra", &[1], &[1.0])
        .unwrap()
        .with_f32("same", &[4], &[1.0, 2.0, 3.0, 4.0])
        .unwrap()
        .with_f32("shape", &[4], &[0.0; 4])
        .unwrap()
        .with("ids", DType::I64, &[1], vec![7, 7, 7, 7, 7, 7, 7, 8])
        .unwrap()
        .with("ids2", DType::U64, &[1], vec![7; 8])
        .unwrap()
        .with("empty", DType::F32, &[0, 4], vec![])
        .unwrap();
    let coded = Coded::new(other.clone(), (1, 4), true);
    let comparison = Compare::new(&original, &coded, &budget()).run().unwrap();
    let defects: Vec<_> = comparison.defects().map(|(t, why)| format!("{} {why}", t.name)).collect();
    assert_eq!(
        defects,
        [
            "gone is missing",
            "shape has shape [2, 2] here and [4] there",
            "ids differs from the original at element 0, though its codec is exact",
            "ids2 has elements of type I64 here and U64 there",
            "extra is not in the original",
        ]
    );
    let m = &comparison.measurements()[0];
    assert_eq!((m.name.as_str(), m.value), ("defective_tensors", 5.0));
    assert!(m.detail.contains("\"gone\""));
    assert_eq!(comparison.tensors[0].layer, "layer 0");

    let d = diff(&original, &other, &budget()).unwrap();
    let states: Vec<_> = d.iter().map(|t| (t.name.as_str(), t.state)).collect();
    use DiffState::*;
    let expected = [
        ("same", Identical),
        ("gone", OnlyInA),
        ("shape", Mismatch),
        ("ids", Differs),
        ("ids2", Mismatch),
        ("empty", Identical),
        ("extra", OnlyInB),
    ];
    assert_eq!(states, expected);
    let s = summarize(&d);
    assert_eq!((s.only_in_a, s.only_in_b, s.identical, s.different), (1, 1, 2, 3));
    assert_eq!((s.bytes_a, s.bytes_b), (16 + 4 + 16 + 16, 4 + 16 + 16 + 16));
    assert!(d[3].error.is_none() && d[3].explanation.as_deref() == Some("first different element: 0"));
    // Two source models may differ; that is no defect of a codec.
    assert_eq!(Compare::new(&original, &other, &budget()).run().unwrap().defects().count(), 4);
    let json = serde_json::to_value(&d).unwrap();
    assert_eq!((&json[0]["state"], &json[0]["a"]["dtype"]), (&"identical".into(), &"F32".into()));
}

#[test]
fn lossy_integers_are_refused_and_other_float_types_are_compared_by_value() {
    let original = MemoryWeights::new().with("ids", DType::I32, &[1], vec![1; 4]).unwrap();
    let lossy = Coded::new(original.clone(), (1, 1), false);
    let comparison = Compare::new(&original, &lossy, &budget()).run().unwrap();
    assert_eq!(comparison.tensors[0].defect().unwrap(), "of type I32 is not stored exactly");

    let wide = MemoryWeights::new().with_f32("w", &[2], &[1.0, -2.5]).unwrap();
    let narrow = MemoryWeights::new().with("w", DType::BF16, &[2], vec![0x80, 0x3f, 0x20, 0xc0]).unwrap();
    let comparison = Compare::new(&wide, &narrow, &budget()).run().unwrap();
    assert!(matches!(comparison.tensors[0].outcome, Outcome::Differs { first_difference: None, .. }));
    assert!(comparison.tensors[0].error().unwrap().exact);
    assert_eq!(comparison.defects().count(), 0);
}

#[test]
fn nan_and_infinity_are_counted_and_stay_out_of_the_sums() {
    let w = [1.0, f32::NAN, f32::INFINITY, 2.0, 3.0, f32::NEG_INFINITY];
    let q = [1.5, f32::NAN, f32::INFINITY, f32::NAN, 3.0, 7.0];
    let original = MemoryWeights::new().with_f32("w", &[6], &w).unwrap();
    let decoded = Coded::new(MemoryWeights::new().with_f32("w", &[6], &q).unwrap(), (1, 6), false);
    let comparison = Compare::new(&original, &decoded, &budget()).run().unwrap();
    let Outcome::Differs { distortion: Some(d), nonfinite, nonfinite_lost, .. } =
        &comparison.tensors[0].outcome
    else {
        panic!("{comparison:?}")
    };
    assert_eq!((d.weights, d.sum_abs, *nonfinite, *nonfinite_lost), (2, 0.5, 4, 2));
    assert!(comparison.tensors[0].defect().unwrap().contains("2 NaN or infinite"));
    let same = Compare::new(&original, &original, &budget()).run().unwrap();
    assert_eq!(same.defects().count(), 0);
    assert!(same.tensors[0].error().unwrap().exact);
}

#[test]
fn damage_and_a_small_budget_are_errors() {
    let w = noise(1000, 3);
    let original = MemoryWeights::new().with_f32("w", &[1000], &w).unwrap();
    let decoded = Coded::new(original.clone(), (1, 100), false);
    let e = Compare::new(&original, &decoded, &budget()).run().unwrap_err();
    assert!(e.to_string().contains("tile 600"), "{e}");
    let tiny = Budget::new(100);
    let e = Compare::new(&original, &original, &tiny).run().unwrap_err();
    assert!(matches!(e, lsb_stream::Error::OverBudget { .. }), "{e}");
}

#[test]
fn a_tensor_stored_with_another_counts_once() {
    let w = noise(64, 5);
    let both = |values: &[f32]| {
        MemoryWeights::new().with_f32("a", &[64], values).unwrap().with_f32("b", &[64], values).unwrap()
    };
    let mut decoded = Coded::new(both(&rounded(&w, 0.25)), (1, 64), false);
    decoded.facts[1].same_as = Some("a".into());
    let mut quality = QualityValidator::new();
    let (original, mut last) = (both(&w), 0);
    Compare::new(&original, &decoded, &budget())
        .validator(&mut quality)
        .on_progress(|p| {
            assert!(p.done > last && p.total == 128);
            last = p.done;
        })
        .run()
        .unwrap();
    assert_eq!(last, 128);
    let report = quality.report();
    assert_eq!((report.model.weights, report.tensors.len()), (64, 2));
    assert_eq!(report.tensors[1].same_as.as_deref(), Some("a"));
    assert_eq!(report.model, WeightError::from(&Distortion::measure(&w, &rounded(&w, 0.25))));
    let names: Vec<_> = quality.finish().into_iter().map(|m| m.name).collect();
    assert_eq!(
        names,
        [
            "weight_snr_db",
            "all_weights_snr_db",
            "relative_error_percent",
            "correlation",
            "relative_mse",
            "max_abs_error",
            "worst_weight_snr_db",
            "worst_relative_error_percent"
        ]
    );
}
