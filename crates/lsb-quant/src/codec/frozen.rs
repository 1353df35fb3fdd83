//! Bytes that every codec writes and weights that it gives back are the same on every processor, and those of last year.
//!
//! Inputs are made by additions and multiplications alone. `.ci/kernels` repeats this with each kernel that `LSB_ISA` can
//! choose, `.ci/neon` on 64-bit ARM.

use crate::calibrate::{Calibration, DenseMoments};
use crate::{EncodedTile, Isa, MatrixInfo, Registry, Result, Span, Surveyor};
use lsb_format::DType;
use lsb_format::package::Hash;
use std::sync::Arc;

/// Rows and columns: neither fills its last group.
const SHAPE: [usize; 2] = [150, 75];

/// Codecs, each without and with calibration, and the first bytes of the BLAKE3 hashes of what they wrote and of the weights that
/// came back. A change of an encoder's choices changes its line, and has to say why; a decoder that does is wrong.
const FROZEN: &[[&str; 4]] = &[
    ["raw", "alone", "3a40c7d252a17f7a", "3a40c7d252a17f7a"],
    ["lossless", "alone", "c8b2ae141d0e36aa", "3a40c7d252a17f7a"],
    ["outlier-binary", "alone", "a0ba9c2ab9e870d0", "07aaf1eb0c0c05d6"],
    ["outlier-binary", "calibrated", "c794030b3144f523", "5966f4bf5189a26b"],
    ["residual-binary:3", "alone", "b695d58ea329626d", "6285947de632c4b3"],
    ["residual-binary:3", "calibrated", "f2223d39af3c86dd", "c2d501af5000a407"],
    ["ternary", "alone", "7b21a7904a4b11df", "0be0f0aedb48c3d3"],
    ["rtn:3", "alone", "1db4c09712809282", "fe3c40bd6d86063f"],
    ["gptq:3", "alone", "1db4c09712809282", "fe3c40bd6d86063f"],
    ["gptq:3", "calibrated", "b45d24152bd788b6", "f5beaeb91562fa7b"],
    ["trellis:bpw=2", "alone", "57fb8064e466b435", "8f0e6ca4368a4a4a"],
    ["trellis:bpw=2", "calibrated", "2cefd450566e7d8c", "96988faf3f1477bf"],
    ["trellis:bpw=3,states=8", "alone", "51fa4d938d07f86e", "78ac7369dc9a0ed1"],
    ["trellis:bpw=3,states=8", "calibrated", "b6672d8e7aa1fd41", "280a38e8c9330eb0"],
    ["trellis:tau=0.1,states=64", "alone", "d357132d031f8799", "cc79dd2c4368c384"],
    ["trellis:tau=0.1,states=64", "calibrated", "f66b6430995552b6", "ba68f711c7a45e3b"],
];

/// SplitMix64.
struct Random(u64);

impl Random {
    /// About Gaussian, of mean 0 and variance 1: a sum of twelve.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform() - 0.5).sum()
    }

    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Weights in rows and columns of many sizes, a few of them far out.
fn weights() -> Vec<f32> {
    let [rows, cols] = SHAPE;
    let mut random = Random(7);
    let size = |i: usize| (1 + i * 7 % 5) as f64;
    let weight = |i: usize| {
        let far = if i % 499 == 3 { 40.0 } else { 1.0 };
        (random.normal() * size(i / cols) * size(i % cols + 2) * far / 256.0) as f32
    };
    (0..rows * cols).map(weight).collect()
}

/// What is known of related inputs, and of outputs of which some matter more.
fn calibration() -> Calibration {
    let [rows, n] = SHAPE;
    let (mut random, samples) = (Random(8), 2 * n);
    let mut moments = vec![0.0f64; n * n];
    for _ in 0..samples {
        let shared = random.normal();
        let x: Vec<f64> = (0..n).map(|i| (random.normal() + shared) * (1 + i % 4) as f64).collect();
        for (row, &a) in moments.chunks_mut(n).zip(&x) {
            row.iter_mut().zip(&x).for_each(|(sum, &b)| *sum += a * b);
        }
    }
    let moments = moments.iter().map(|&sum| (sum / samples as f64) as f32).collect();
    let outputs: Vec<f64> = (0..rows).map(|row| (1 + row % 3) as f64).collect();
    Calibration {
        inputs: Arc::new(DenseMoments::new(moments, n)),
        outputs: Some(outputs.into()),
        relative: false,
    }
}

/// What the codec `name` writes for the matrix with these bytes, tiles and side information, and the weights that come back,
/// tile by tile.
fn code(
    name: &str,
    matrix: &MatrixInfo,
    bytes: &[u8],
    calibration: Option<Calibration>,
) -> Result<(Vec<u8>, Vec<f32>)> {
    let codec = Registry::standard().parse(name)?;
    let tiling = codec.tiling(matrix)?;
    let span = Span::new(*matrix, tiling, 0..tiling.len(), bytes);
    let mut surveyor = Surveyor::new(&codec.needs(), matrix, &tiling);
    while surveyor.wants_pass() {
        surveyor.observe(&span)?;
        surveyor.end_pass();
    }
    let mut statistics = surveyor.finish();
    statistics.calibration = calibration;
    let mut encoder = codec.encoder(matrix, &statistics)?;
    let mut tiles = vec![EncodedTile::default(); span.len()];
    encoder.encode(&span, &mut tiles)?;
    let side = encoder.finish()?;
    let decoder = codec.decoder(matrix, &side)?;
    let mut back = Vec::new();
    for (i, coded) in tiles.iter().enumerate() {
        let tile = tiling.tile(i as u64);
        let mut weights = vec![f32::NAN; tile.weights()];
        decoder.decode(&tile, &coded.parts().collect::<Vec<_>>(), &mut weights)?;
        back.extend(weights);
    }
    let tiles = tiles.iter().map(EncodedTile::bytes).collect::<Vec<_>>().concat();
    Ok(([tiles, side].concat(), back))
}

/// Without this a misspelt or forgotten `LSB_ISA` would test the default once more.
fn check_kernels() {
    let Ok(wanted) = std::env::var("LSB_ISA") else { return };
    let isa = Isa::ALL.into_iter().find(|isa| isa.name() == wanted).unwrap();
    if isa.is_available() {
        assert_eq!(Isa::chosen(), isa);
    } else {
        eprintln!("*** SKIPPED: this processor has no {wanted}; its kernels were NOT checked ***");
    }
}

#[test]
fn codecs_write_the_frozen_bytes() {
    check_kernels();
    let [rows, cols] = SHAPE.map(|n| n as u64);
    let matrix = MatrixInfo { rows, cols, dtype: DType::F32 };
    let to_bytes = |weights: &[f32]| -> Vec<u8> { weights.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let (bytes, calibration) = (to_bytes(&weights()), calibration());
    for id in Registry::standard().entries().iter().map(|entry| entry.id) {
        assert!(
            FROZEN.iter().any(|[name, ..]| name.split(':').next() == Some(id)),
            "{id} has no frozen bytes"
        );
    }
    let hash = |bytes: &[u8]| Hash::<8>::of(bytes).to_string();
    let found = FROZEN.iter().map(|&[name, inputs, ..]| {
        let calibration = (inputs == "calibrated").then(|| calibration.clone());
        let (written, back) = code(name, &matrix, &bytes, calibration).unwrap();
        [name.to_owned(), inputs.to_owned(), hash(&written), hash(&to_bytes(&back))]
    });
    let found: Vec<[String; 4]> = found.collect();
    // Lines as they stand above.
    let lines: String = found.iter().map(|line| format!("    {line:?},\n")).collect();
    assert!(found == FROZEN, "{} wrote\n{lines}", Isa::chosen().name());
}
