//! Unpacked tiles against what was packed.

use super::form::GROUP;
use super::form::{Block, PANEL};
use super::*;
use proptest::prelude::*;

pub(super) fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}

/// Levels as [`Unpacking`] has them.
fn levels(rows: usize, cols: usize, spread: u64, seed: u64) -> Vec<[i16; GROUP]> {
    let mut next = numbers(seed);
    let padded = cols.next_multiple_of(GROUP);
    // The sum of four is close to normal, so that few are far out.
    let mut level = || (0..4).map(|_| (next() % (spread + 1)) as i64 - spread as i64 / 2).sum::<i64>() / 2;
    (0..rows * padded / GROUP).map(|_| std::array::from_fn(|_| level() as i16)).collect()
}

#[test]
fn what_is_packed_comes_back() {
    for (rows, cols, spread, form) in [
        (5_usize, 70_usize, 6, Form::Four),
        (64, 32, 8, Form::Four),
        (40, 100, 14, Form::Five),
        (17, 130, 28, Form::Six),
        (64, 33, 100, Form::Eight),
        (9, 100, 900, Form::Eight),
        (1, 1, 2, Form::One),
        (33, 64, 2, Form::Three),
    ] {
        let padded = cols.next_multiple_of(GROUP);
        let given = levels(rows, cols, spread, 7);
        let steps: Vec<f32> = (0..cols).map(|c| 0.5 + c as f32).collect();
        let factors: Vec<f32> = (0..rows).map(|r| 1.0 / (1 + r) as f32).collect();
        let apart = vec![Apart { row: 0, col: 0, level: 70_000 }];
        let mut shown = given.clone();
        shown[0][0] = 0;
        let tile = UnpackedTile::new(Unpacking {
            rows,
            steps: &steps,
            factors: &factors,
            powers: [0.25, 2.0],
            levels: &mut shown,
            apart,
            packing: Packing::Narrow,
        });
        let Content::ByColumn(packed) = &tile.content else { panic!("levels") };
        if rows > 1 {
            assert_eq!(packed.form(), form, "{rows} x {cols}, levels up to {spread}");
        }
        let mut out = vec![f32::NAN; rows * cols];
        tile.decode(&mut out);
        for (i, w) in out.iter().enumerate() {
            let (row, col) = (i / cols, i % cols);
            let level = if i == 0 { 70_000 } else { i32::from(given[col / GROUP * rows + row][col % GROUP]) };
            assert_eq!(*w, level as f32 * steps[col] * factors[row] * 0.25 * 2.0, "row {row}, column {col}");
        }
        let some = rows / 3..rows.div_ceil(2);
        let mut out_of_some = vec![f32::NAN; some.len() * cols];
        tile.decode_rows(some.clone(), &mut out_of_some);
        assert_eq!(out_of_some, out[some.start * cols..some.end * cols]);
        let padded = rows.next_multiple_of(PANEL) * padded;
        let beside = 4 * (rows + cols) + packed.apart() * size_of::<Apart>() + size_of::<UnpackedTile>();
        assert_eq!(tile.bytes(), (padded * form.bits() / 8 + beside) as u64);
    }
}

proptest! {
    #[test]
    fn prop_blocks_come_back_in_every_form(seed in any::<u64>()) {
        let mut next = numbers(seed);
        for form in Form::ALL {
            let offset = form.offset();
            let block: Block = std::array::from_fn(|_| {
                std::array::from_fn(|_| (next() % (2 * offset as u64)) as i16 - offset)
            });
            let mut packed = vec![0; form.block_bytes()];
            form.pack(&block, &mut packed);
            prop_assert_eq!(form.unpack(&packed), block);
        }
    }

    #[test]
    fn prop_products_are_those_of_the_weights(
        rows in 1usize..40,
        cols in 1usize..100,
        spread in 1u64..200,
        seed in any::<u64>(),
    ) {
        let mut next = numbers(seed);
        let mut number = || next() as f32 / (1u64 << 30) as f32 - 1.0;
        let steps: Vec<f32> = (0..cols).map(|_| 1.5 + number()).collect();
        let factors: Vec<f32> = (0..rows).map(|_| 1.5 + number()).collect();
        let mut levels = levels(rows, cols, spread, seed);
        let apart = if levels[0][0] == 0 { vec![Apart { row: 0, col: 0, level: -300 }] } else { Vec::new() };
        let tile = UnpackedTile::new(Unpacking {
            rows,
            steps: &steps,
            factors: &factors,
            powers: [0.5, 0.5],
            levels: &mut levels,
            apart,
            packing: [Packing::Narrow, Packing::Bytes][(seed % 2) as usize],
        });
        let mut weights = vec![0.0; rows * cols];
        tile.decode(&mut weights);
        let x: Vec<f32> = (0..2 * cols).map(|_| number()).collect();
        let mut y = vec![1.0; 2 * rows];
        tile.add_products(&Activations::new(&x, 2), 0, &mut y);
        for (i, y) in y.iter().enumerate() {
            let (token, row) = (i / rows, i % rows);
            let terms = weights[row * cols..][..cols].iter().zip(&x[token * cols..]);
            let expected = 1.0 + terms.clone().map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
            // Columns have steps that differ by 5 at most: so does the rounding of an input from that of the largest.
            let most: f64 = terms.clone().map(|(w, _)| f64::from(w.abs())).sum();
            let off = (f64::from(*y) - expected).abs();
            let twice = if matches!(&tile.content, Content::ByColumn(l) if l.form() == Form::One) { 4_094.0 } else { 65_278.0 };
            prop_assert!(off <= 5.0 * most / twice + 1e-5, "{off} of {most}");
        }
    }
}

#[test]
fn equal_weights_are_multiplied_as_one() {
    let tile = UnpackedTile::constant(3, 2, 0.5);
    let x = [1.0, 2.0, -4.0, 1.0];
    let mut y = [1.0; 6];
    tile.add_products(&Activations::new(&x, 2), 0, &mut y);
    assert_eq!(y, [2.5, 2.5, 2.5, -0.5, -0.5, -0.5]);
}

#[test]
fn an_activation_that_is_not_finite_makes_products_so() {
    let mut levels = [[1; GROUP]];
    let tile = UnpackedTile::new(Unpacking {
        rows: 1,
        steps: &[1.0; GROUP],
        factors: &[],
        powers: [1.0; 2],
        levels: &mut levels,
        apart: Vec::new(),
        packing: Packing::Narrow,
    });
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = [1.0; GROUP];
        x[3] = bad;
        let mut y = [0.0];
        tile.add_products(&Activations::new(&x, 1), 0, &mut y);
        assert!(!y[0].is_finite());
    }
}

/// A tile of rows of signs, each of one group with outliers in every fifth column.
fn signs(rows: usize, cols: usize) -> UnpackedTile {
    let positions: Vec<u32> = (0..(rows * cols) as u32).step_by(5).collect();
    let stored: Vec<u8> = (0..rows * cols).map(|i| u8::from(i % 3 == 0)).collect();
    let sign = |&at: &u32| if stored[at as usize] == 1 { 2.5 } else { -2.5 };
    let levels = TileLevels {
        scales: vec![0.5; rows],
        middles: vec![0.25; rows],
        outliers: positions.iter().map(sign).collect(),
        positions,
        stored,
        ..TileLevels::default()
    };
    let mut grouped = Grouped::new(Rule::Signs, 1, 1, cols, cols);
    grouped.push(&levels, 0..rows);
    UnpackedTile::of_groups(&grouped, Packing::Narrow)
}

/// Whether products are those of weights, for the columns of a wider matrix from `first` on.
fn check_signs(tile: &UnpackedTile, cols: usize, x: &Activations<'_>, first: usize) {
    let (tokens, rows) = (x.tokens(), tile.rows());
    let mut weights = vec![0.0; rows * cols];
    tile.decode(&mut weights);
    let mut y = vec![0.0; rows * tokens];
    tile.add_products(x, first, &mut y);
    for (i, y) in y.iter().enumerate() {
        let row = &weights[i % rows * cols..][..cols];
        let x = &x.token(i / rows)[first..][..cols];
        let expected: f32 = row.iter().zip(x).map(|(w, x)| w * x).sum();
        // Signs and what stands in their middle are multiplied apart.
        let most = x.iter().fold(0.0_f32, |most, x| most.max(x.abs())) / 4_094.0;
        let bound = most * cols as f32 * (0.5 + 0.25) + 1e-3;
        assert!(
            (y - expected).abs() < bound,
            "{tokens} tokens, {cols} columns from {first}, {i}: {y} is not {expected}"
        );
    }
}

#[test]
fn activations_that_were_prepared_are_not_taken_for_others() {
    let x: Vec<f32> = (0..128 * 20).map(|i| ((i * i) % 31) as f32 - 15.0).collect();
    let mut changed = x.clone();
    changed.iter_mut().for_each(|x| *x += 100.0);
    // The same numbers as one token and as several, others, and the first ones again.
    for (x, tokens) in [(&x, 1), (&x, 2), (&x, 20), (&changed, 1), (&changed, 20), (&x, 2), (&x, 1)] {
        let cols = 128;
        check_signs(&signs(3, cols), cols, &Activations::new(&x[..tokens * cols], tokens), 0);
    }
}

#[test]
fn tiles_of_any_columns_of_a_matrix_share_activations() {
    let wide = 200;
    let x: Vec<f32> = (0..wide * 17).map(|i| ((i * i) % 31) as f32 - 15.0).collect();
    for tokens in [1, 17] {
        let x = Activations::new(&x[..tokens * wide], tokens);
        // Whole groups of inputs, with others behind them and with none; parts of groups.
        for (first, cols) in [(0, 64), (64, 32), (96, 104), (0, 200), (0, 70), (70, 130), (33, 64)] {
            check_signs(&signs(3, cols), cols, &x, first);
        }
    }
}
