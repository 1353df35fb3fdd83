//! Identity on every bit pattern and shape, size on bell-shaped weights, no harm from damage.

use super::*;
use crate::{Registry, Span};
use lsb_format::ErrorKind;
use proptest::prelude::*;

const FLOATS: [DType; 6] = [DType::F64, DType::F32, DType::F16, DType::BF16, DType::F8_E4M3, DType::F8_E5M2];

/// A reproducible sequence of 64-bit values.
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Bell-shaped f32 weights: sums of twelve uniform values, whose tails end at 6 sigma.
fn bell(seed: u64, n: usize, sigma: f64) -> Vec<f32> {
    let mut next = random(seed);
    let mut uniform = || (next() >> 11) as f64 / (1u64 << 53) as f64;
    (0..n).map(|_| (((0..12).map(|_| uniform()).sum::<f64>() - 6.0) * sigma) as f32).collect()
}

fn bf16(weights: &[f32]) -> Vec<u8> {
    weights.iter().flat_map(|&w| half::bf16::from_f32(w).to_le_bytes()).collect()
}

/// Encodes a matrix through the registry, in spans of `per_span` tiles; the tiles.
fn encode(matrix: MatrixInfo, bytes: &[u8], per_span: u64) -> Vec<Vec<u8>> {
    let codec = Registry::standard().parse("lossless").unwrap();
    let tiling = codec.tiling(&matrix).unwrap();
    let mut encoder = codec.encoder(&matrix, &Statistics::default()).unwrap();
    let mut tiles = Vec::new();
    for first in (0..tiling.len()).step_by(per_span as usize) {
        let run = first..(first + per_span).min(tiling.len());
        let elements = tiling.elements(run.clone());
        let at = |element: u64| element as usize * width(matrix.dtype);
        let span = Span::new(matrix, tiling, run, &bytes[at(elements.start)..at(elements.end)]);
        let mut out = vec![EncodedTile::default(); span.len()];
        encoder.encode(&span, &mut out).unwrap();
        for tile in &out {
            assert_eq!(tile.parts().len(), 1);
            tiles.push(tile.bytes().to_vec());
        }
    }
    assert!(encoder.finish().unwrap().is_empty());
    tiles
}

/// Decodes every tile, last one first, into buffers that are not clean.
fn decode(matrix: MatrixInfo, tiles: &[Vec<u8>]) -> Vec<u8> {
    let codec = Registry::standard().parse("lossless").unwrap();
    let tiling = codec.tiling(&matrix).unwrap();
    let decoder = codec.decoder(&matrix, &[]).unwrap();
    assert!(decoder.is_exact());
    let mut whole = vec![0x55; matrix.weights() as usize * width(matrix.dtype)];
    for i in (0..tiling.len()).rev() {
        let (tile, run) = (tiling.tile(i), tiling.elements(i..i + 1));
        let at = |element: u64| element as usize * width(matrix.dtype);
        let out = &mut whole[at(run.start)..at(run.end)];
        decoder.decode_exact(&tile, &[&tiles[i as usize]], out).unwrap();
        let mut values = vec![f32::NAN; tile.weights()];
        decoder.decode(&tile, &[&tiles[i as usize]], &mut values).unwrap();
        let expected = crate::to_f32(matrix.dtype, out);
        assert!(values.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
    whole
}

/// Checks identity; returns the coded bytes.
fn assert_identity(rows: u64, cols: u64, dtype: DType, bytes: &[u8]) -> usize {
    let matrix = MatrixInfo { rows, cols, dtype };
    let tiles = encode(matrix, bytes, 3);
    assert!(decode(matrix, &tiles) == bytes, "{rows} x {cols} {dtype}");
    // Per plane a length and a kind: nothing may grow by more.
    assert!(tiles.iter().map(Vec::len).sum::<usize>() <= bytes.len() + 5 * width(dtype) * tiles.len());
    tiles.iter().map(Vec::len).sum()
}

#[test]
fn every_16_bit_pattern_comes_back() {
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for dtype in [DType::BF16, DType::F16] {
        assert_identity(256, 256, dtype, &all);
    }
    let all: Vec<u8> = (0..=255).collect();
    for dtype in [DType::F8_E4M3, DType::F8_E5M2] {
        assert_identity(1, 256, dtype, &all);
    }
}

#[test]
fn special_values_among_weights_come_back() {
    let special = [
        0,
        0x8000_0000,
        1,
        0x8000_0001,
        0x007f_ffff,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0x7f80_0001,
        0xffff_ffff,
        0x7fc1_2345,
        f32::MAX.to_bits(),
        f32::MIN.to_bits(),
    ];
    let mut bits: Vec<u32> = bell(1, 70_000, 0.02).iter().map(|w| w.to_bits()).collect();
    for (i, b) in bits.iter_mut().step_by(997).enumerate() {
        *b = special[i % special.len()];
    }
    let wide: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
    let narrow: Vec<u8> = bits.iter().flat_map(|b| ((b >> 16) as u16).to_le_bytes()).collect();
    assert_identity(100, 700, DType::F32, &wide);
    assert_identity(100, 700, DType::BF16, &narrow);
    assert_identity(100, 700, DType::F16, &narrow);
}

#[test]
fn matrices_of_any_shape_come_back() {
    for (rows, cols) in
        [(1, 1), (1, 31), (31, 1), (33, 7), (1, 70_001), (3, 65_537), (70_001, 1), (1, 300_000)]
    {
        let n = (rows * cols) as usize;
        let weights = bell(rows ^ cols, n, 0.05);
        assert_identity(rows, cols, DType::BF16, &bf16(&weights));
        let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_identity(rows, cols, DType::F32, &bytes);
    }
    assert!(encode(MatrixInfo { rows: 0, cols: 5, dtype: DType::F32 }, &[], 1).is_empty());
}

#[test]
fn constants_and_zeros_take_almost_nothing() {
    for dtype in FLOATS {
        for byte in [0, 0x3c] {
            let len = assert_identity(100, 1000, dtype, &vec![byte; 100_000 * width(dtype)]);
            assert!(len <= 140 * width(dtype), "{dtype} {byte}: {len}");
        }
    }
}

#[test]
fn bell_shaped_bf16_takes_less_than_10_9_bits_all_in() {
    let weights = bell(7, 512 * 4096, 1.0);
    let len = assert_identity(512, 4096, DType::BF16, &bf16(&weights));
    let bpw = len as f64 * 8.0 / weights.len() as f64;
    assert!((10.4..10.6).contains(&bpw), "{bpw}");
}

#[test]
fn estimates_are_met_on_bell_shaped_weights() {
    let weights = bell(5, 1 << 18, 0.02);
    let codec = Registry::standard().parse("lossless").unwrap();
    let bytes = |dtype: DType| -> Vec<u8> {
        let each = |encode: &dyn Fn(f32) -> Vec<u8>| -> Vec<u8> {
            weights.iter().flat_map(|&w| encode(w)).collect()
        };
        match dtype {
            DType::F64 => {
                // An f32 has 29 zero bits that a weight made in f64 has not.
                let mut next = random(9);
                each(&|w| f64::from(w).to_le_bytes().to_vec())
                    .chunks_exact(8)
                    .flat_map(|b| {
                        let bits = u64::from_le_bytes(b.try_into().unwrap());
                        (bits | next() >> 35).to_le_bytes()
                    })
                    .collect()
            }
            DType::F32 => each(&|w| w.to_le_bytes().to_vec()),
            DType::F16 => each(&|w| half::f16::from_f32(w).to_le_bytes().to_vec()),
            DType::BF16 => each(&|w| half::bf16::from_f32(w).to_le_bytes().to_vec()),
            // The upper half of an f16 is an e5m2.
            DType::F8_E5M2 => each(&|w| vec![half::f16::from_f32(w * 50.0).to_le_bytes()[1]]),
            // An e4m3 has one more bit of mantissa, and an exponent that is smaller by 8.
            _ => each(&|w| {
                let bits = half::f16::from_f32(w * 50.0).to_bits();
                vec![((bits & 0x7fff) >> 7).saturating_sub(8 << 3) as u8 | (bits >> 8) as u8 & 0x80]
            }),
        }
    };
    for dtype in FLOATS {
        let matrix = MatrixInfo { rows: 512, cols: 512, dtype };
        let len = assert_identity(512, 512, dtype, &bytes(dtype)) as f64;
        let estimate = codec.estimate(&matrix).unwrap();
        assert_eq!(estimate.snr_db, f64::INFINITY);
        assert!((len / estimate.bytes - 1.0).abs() < 0.01, "{dtype}: {len}, estimate {}", estimate.bytes);
    }
    assert!(codec.estimate(&MatrixInfo { rows: 1, cols: 8, dtype: DType::I64 }).is_none());
}

#[test]
fn values_that_once_were_bf16_shrink_to_bf16_size() {
    let narrow = bf16(&bell(3, 1 << 16, 0.02));
    let wide: Vec<u8> = narrow.as_chunks::<2>().0.iter().flat_map(|&[a, b]| [0, 0, a, b]).collect();
    let a = assert_identity(256, 256, DType::BF16, &narrow);
    let b = assert_identity(256, 256, DType::F32, &wide);
    // The sign moves to the last plane, where it takes its one bit.
    assert!(b <= a + (1 << 13) + 600, "{a} {b}");
}

#[test]
fn bytes_do_not_depend_on_how_the_matrix_is_fed() {
    let bytes = bf16(&bell(8, 40 * 20_000, 0.1));
    let matrix = MatrixInfo { rows: 40, cols: 20_000, dtype: DType::BF16 };
    let tiles = encode(matrix, &bytes, 1);
    assert!(tiles.len() > 3);
    assert!(encode(matrix, &bytes, 2) == tiles && encode(matrix, &bytes, 100) == tiles);
}

#[test]
fn integers_side_bytes_and_missing_parts_are_refused() {
    let codec = Registry::standard().parse("lossless").unwrap();
    let matrix = MatrixInfo { rows: 1, cols: 4, dtype: DType::I32 };
    assert!(matches!(codec.encoder(&matrix, &Statistics::default()), Err(Error::NotApplicable { .. })));
    let matrix = MatrixInfo { dtype: DType::BF16, ..matrix };
    let rule = |e: Error| match e {
        Error::Payload(e) => (e.rule(), e.kind()),
        other => panic!("{other}"),
    };
    let p30 = ("P30", ErrorKind::Corruption);
    assert_eq!(rule(codec.decoder(&matrix, &[1]).err().unwrap()), p30);
    let decoder = codec.decoder(&matrix, &[]).unwrap();
    let tile = codec.tiling(&matrix).unwrap().tile(0);
    assert_eq!(rule(decoder.decode_exact(&tile, &[], &mut [0; 8]).unwrap_err()), p30);
    assert_eq!(rule(decoder.decode_exact(&tile, &[&[], &[]], &mut [0; 8]).unwrap_err()), p30);
    assert!(Registry::standard().parse("lossless:level=3").is_err());
}

#[test]
fn every_change_of_a_byte_and_every_cut_is_survived() {
    let matrix = MatrixInfo { rows: 1, cols: 150, dtype: DType::BF16 };
    let tiles = encode(matrix, &bf16(&bell(2, 150, 1.0)), 1);
    let decoder = Decoder { dtype: DType::BF16 };
    let tile = Lossless.tiling(&matrix).unwrap().tile(0);
    for at in 0..tiles[0].len() {
        assert!(decoder.decode_exact(&tile, &[&tiles[0][..at]], &mut [0; 300]).is_err(), "cut at {at}");
        for change in 1..=255u8 {
            let mut damaged = tiles[0].clone();
            damaged[at] ^= change;
            let (mut a, mut b) = ([0; 300], [0xff; 300]);
            let first = decoder.decode_exact(&tile, &[&damaged], &mut a);
            let second = decoder.decode_exact(&tile, &[&damaged], &mut b);
            assert_eq!(first, second);
            assert!(first.is_err() || a == b, "byte {at}: what was in the buffer shows");
        }
    }
    let long = [&tiles[0][..], &[0]].concat();
    assert!(decoder.decode_exact(&tile, &[&long], &mut [0; 300]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn prop_roundtrip_is_identity(bytes in prop::collection::vec(any::<u8>(), 8..4000), rows in 1u64..9, kind in 0usize..6) {
        let dtype = FLOATS[kind];
        let cols = bytes.len() as u64 / width(dtype) as u64 / rows;
        if cols > 0 {
            assert_identity(rows, cols, dtype, &bytes[..(rows * cols) as usize * width(dtype)]);
        }
    }

    #[test]
    fn prop_roundtrip_of_few_values_is_identity(values in prop::collection::vec(any::<u32>(), 1..6), picks in prop::collection::vec(0usize..6, 1..2000)) {
        let bytes: Vec<u8> = picks.iter().flat_map(|&i| values[i % values.len()].to_le_bytes()).collect();
        assert_identity(1, picks.len() as u64, DType::F32, &bytes);
        assert_identity(picks.len() as u64, 2, DType::F16, &bytes);
    }

    #[test]
    fn prop_decode_never_panics_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600), n in 1u64..100) {
        for dtype in [DType::BF16, DType::F32] {
            let tile = Lossless.tiling(&MatrixInfo { rows: 1, cols: n, dtype }).unwrap().tile(0);
            let mut out = vec![0; n as usize * width(dtype)];
            let _ = Decoder { dtype }.decode_exact(&tile, &[&bytes], &mut out);
        }
    }
}
