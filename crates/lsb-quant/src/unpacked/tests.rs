//! Unpacked tiles against what was packed.

use super::kernel::{GROUP, Width};
use super::*;

fn levels(rows: usize, cols: usize, spread: i64, seed: u64) -> Vec<i16> {
    let padded = cols.next_multiple_of(GROUP);
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The sum of four is close to normal, so that few are far out.
        (0..4).map(|i| (state >> (10 * i + 8)) as i64 % (spread + 1) - spread / 2).sum::<i64>() / 2
    };
    (0..rows * padded).map(|_| next() as i16).collect()
}

#[test]
fn what_is_packed_comes_back() {
    for (rows, cols, spread, width) in [
        (5_usize, 70_usize, 6, Width::Nibbles),
        (64, 32, 8, Width::Nibbles),
        (64, 33, 200, Width::Bytes),
        (9, 100, 900, Width::Bytes),
        (1, 1, 2, Width::Nibbles),
    ] {
        let padded = cols.next_multiple_of(GROUP);
        let given = levels(rows, cols, spread, 7);
        let steps: Vec<f32> = (0..cols).map(|c| 0.5 + c as f32).collect();
        let factors: Vec<f32> = (0..rows).map(|r| 1.0 / (1 + r) as f32).collect();
        let apart = vec![(0, 0, 70_000)];
        let mut shown = given.clone();
        shown[0] = 0;
        let tile = UnpackedTile::new(Unpacking {
            steps: &steps,
            factors: &factors,
            powers: [0.25, 2.0],
            levels: &mut shown,
            apart,
        });
        let Content::Levels(packed) = &tile.content else { panic!("levels") };
        if rows > 1 {
            assert_eq!(packed.width, width, "{rows} x {cols}, levels up to {spread}");
        }
        let mut out = vec![f32::NAN; rows * cols];
        tile.decode(&mut out);
        for (i, w) in out.iter().enumerate() {
            let (row, col) = (i / cols, i % cols);
            let level = if i == 0 { 70_000 } else { i32::from(given[row * padded + col]) };
            assert_eq!(*w, level as f32 * steps[col] * factors[row] * 0.25 * 2.0, "row {row}, column {col}");
        }
        let held = packed.apart.len() * 12;
        assert!(tile.bytes() - held as u64 <= UnpackedTile::most_bytes(rows as u64, cols as u64));
    }
}

#[test]
fn kernels_give_the_bits_of_the_scalar_code() {
    for width in [Width::Nibbles, Width::Bytes] {
        for (rows, cols) in [(1, 32), (4, 64), (7, 96), (33, 512), (3, 0)] {
            let levels: Vec<i16> = levels(rows, cols, 30, 3)
                .iter()
                .map(|&level| level.clamp(*width.range().start(), *width.range().end()))
                .collect();
            let packed = width.pack(&levels);
            let inputs: Vec<f32> = (0..cols).map(|c| ((c * c + 3) as f32).sin()).collect();
            let run = |isa| {
                let mut sums = vec![f32::NAN; rows];
                kernel::sums(isa, width, &packed, &inputs, &mut sums);
                sums.iter().map(|s| s.to_bits()).collect::<Vec<_>>()
            };
            let expected = run(Isa::Scalar);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                assert_eq!(run(isa), expected, "{width:?}, {rows} x {cols}, {}", isa.name());
            }
        }
    }
}

#[test]
fn equal_weights_are_multiplied_as_one() {
    let tile = UnpackedTile::constant(3, 2, 0.5);
    let x = [1.0, 2.0, -4.0, 1.0];
    let mut y = [1.0; 6];
    tile.add_products(|token| &x[2 * token..2 * token + 2], 2, &mut y, &mut Vec::new());
    assert_eq!(y, [2.5, 2.5, 2.5, -0.5, -0.5, -0.5]);
}
