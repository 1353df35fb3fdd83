//! Selection against a sort.

use super::*;
use crate::{Error, MatrixInfo, Span, to_f32};
use lsb_format::{DType, Tiling};
use proptest::prelude::*;

fn survey(
    matrix: MatrixInfo,
    tiling: Tiling,
    bytes: &[u8],
    ratio: f64,
    step: u64,
) -> crate::Result<Statistics> {
    let mut s = Surveyor::new(&Needs::outliers(ratio), &matrix, &tiling);
    while s.wants_pass() {
        let mut at = 0;
        while at < tiling.len() {
            let tiles = at..(at + step).min(tiling.len());
            let e = tiling.elements(tiles.clone());
            let width = matrix.dtype.bits() / 8;
            s.observe(&Span::new(
                matrix,
                tiling,
                tiles,
                &bytes[(e.start * width) as usize..(e.end * width) as usize],
            ))?;
            at += step;
        }
        s.end_pass();
    }
    Ok(s.finish())
}

/// Indices selected, tile by tile, as an encoder would do it.
fn selected(tiling: &Tiling, values: &[f32], s: &OutlierSelection) -> Vec<usize> {
    let mut out = Vec::new();
    for t in 0..tiling.len() {
        let mut ties = s.ties[t as usize];
        let run = tiling.elements(t..t + 1);
        for i in run.start as usize..run.end as usize {
            let m = values[i].abs().to_bits();
            if m > s.threshold || (m == s.threshold && ties > 0) {
                ties -= u32::from(m == s.threshold);
                out.push(i);
            }
        }
        assert_eq!(ties, 0);
    }
    out
}

fn expected(values: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(values[i].abs().to_bits()));
    order.truncate(count);
    order.sort_unstable();
    order
}

fn bytes_of(dtype: DType, values: &[f32]) -> Vec<u8> {
    match dtype {
        DType::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F64 => values.iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn prop_selection_matches_a_stable_sort(
        cols in 1u64..40,
        tile_rows in 1u64..4,
        values in prop::collection::vec(prop_oneof![4 => -3.0f32..3.0, 2 => -1e-3f32..1e-3, 2 => Just(0.5f32), 1 => Just(0.0f32)], 1..600),
        ratio in prop_oneof![Just(0.02), Just(0.0), Just(1.0), 0.0..0.6f64],
        dtype in prop::sample::select(vec![DType::F32, DType::F64, DType::F16, DType::BF16]),
        step in 1u64..9,
    ) {
        let rows = (values.len() as u64 / cols).max(1);
        let n = ((rows * cols) as usize).min(values.len());
        let (rows, cols) = if n < (rows * cols) as usize { (1, n as u64) } else { (rows, cols) };
        let bytes = bytes_of(dtype, &values[..n]);
        let values = to_f32(dtype, &bytes);
        let matrix = MatrixInfo { rows, cols, dtype };
        let tiling = Tiling::new(rows, cols, tile_rows, cols, 1).unwrap();
        let got = survey(matrix, tiling, &bytes, ratio, step).unwrap().outliers.unwrap();
        let count = (ratio * n as f64).round() as usize;
        prop_assert_eq!(got.count, count as u64);
        prop_assert_eq!(selected(&tiling, &values, &got), expected(&values, count));
        prop_assert_eq!(survey(matrix, tiling, &bytes, ratio, 1).unwrap().outliers.unwrap(), got);
    }
}

#[test]
fn a_first_tile_unlike_the_rest_costs_a_pass_and_nothing_else() {
    let values: Vec<f32> = (0..4000).map(|i| if i < 1000 { 1e-6 } else { 1.0 } * (i % 97) as f32).collect();
    let bytes = bytes_of(DType::BF16, &values);
    let matrix = MatrixInfo { rows: 40, cols: 100, dtype: DType::BF16 };
    let tiling = Tiling::new(40, 100, 10, 100, 1).unwrap();
    let got = survey(matrix, tiling, &bytes, 0.1, 2).unwrap().outliers.unwrap();
    let values = to_f32(DType::BF16, &bytes);
    assert_eq!(selected(&tiling, &values, &got), expected(&values, 400));
}

#[test]
fn nan_and_infinity_are_located() {
    for (dtype, bad) in
        [(DType::BF16, f32::NAN), (DType::F16, f32::INFINITY), (DType::F32, f32::NEG_INFINITY)]
    {
        let mut values = vec![1.0f32; 5000];
        values[4321] = bad;
        values[4400] = bad;
        let matrix = MatrixInfo { rows: 50, cols: 100, dtype };
        let tiling = Tiling::new(50, 100, 7, 100, 1).unwrap();
        let e = survey(matrix, tiling, &bytes_of(dtype, &values), 0.02, 3).unwrap_err();
        assert!(
            matches!(e, Error::NonFinite { index: 4321, value } if value.to_bits() == bad.to_bits() || bad.is_nan()),
            "{e}"
        );
    }
}

#[test]
fn empty_matrices_need_no_pass() {
    let matrix = MatrixInfo { rows: 0, cols: 7, dtype: DType::F32 };
    let tiling = Tiling::standard(0, 7).unwrap();
    let got = survey(matrix, tiling, &[], 0.5, 1).unwrap().outliers.unwrap();
    assert_eq!(got, OutlierSelection { count: 0, threshold: f32::INFINITY.to_bits(), ties: vec![] });
}
