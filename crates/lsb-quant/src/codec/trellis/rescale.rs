//! Other scales for levels that stay as they are: columns and rows of a coded matrix multiplied by factors.
//!
//! Factors come from whoever trains them; here they only meet the stored scales. Tiles whose weights are all the same
//! take no part in scales.

use super::scales::{MAX_RESOLUTION, Scales, Side};
use crate::{MatrixInfo, Result};
use lsb_format::Error;

/// The side information of a matrix whose rows are multiplied by `rows` and whose columns by `cols`, stored to
/// `2^-resolution` of an octave, 0 to 8. `side` is what is stored now; what it lacks counts as 1.
///
/// # Errors
/// If `side` is damaged, a factor is not positive and finite, or there are not as many as rows and columns.
pub fn rescale(
    side: &[u8],
    matrix: &MatrixInfo,
    rows: &[f64],
    cols: &[f64],
    resolution: u32,
) -> Result<Vec<u8>> {
    if (rows.len() as u64, cols.len() as u64) != (matrix.rows, matrix.cols) {
        let message =
            format!("{} and {} factors for {} x {}", rows.len(), cols.len(), matrix.rows, matrix.cols);
        return Err(Error::argument(message).into());
    }
    if let Some(bad) = rows.iter().chain(cols).find(|x| !(x.is_finite() && **x > 0.0)) {
        return Err(Error::argument(format!("a scale multiplied by {bad}")).into());
    }
    let resolution = resolution.min(MAX_RESOLUTION);
    let Side { cols: old_cols, rows: old_rows } = Side::read(side, matrix)?;
    let scaled = |old: Option<Scales>, factors: &[f64]| match old {
        Some(old) => old.times(factors, resolution),
        None => Scales::nearest(factors, resolution),
    };
    Ok(Side { cols: Some(scaled(old_cols, cols)), rows: Some(scaled(old_rows, rows)) }.write())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Quantizer;
    use crate::codec::trellis::Trellis;
    use lsb_format::DType;

    const MATRIX: MatrixInfo = MatrixInfo { rows: 48, cols: 64, dtype: DType::F32 };

    fn factors(n: usize, seed: usize) -> Vec<f64> {
        (0..n).map(|i| 0.7 + 0.6 * ((i * 37 + seed) % 101) as f64 / 101.0).collect()
    }

    #[test]
    fn weights_are_multiplied_by_the_factors() {
        let (rows, cols) = (factors(48, 3), factors(64, 50));
        let side = Side {
            cols: Some(Scales::nearest(&factors(64, 9), 3)),
            rows: Some(Scales::nearest(&factors(48, 70), 2)),
        };
        for (old, resolution) in [(side.write(), 6), (Vec::new(), 7), (side.write(), 8)] {
            let new = rescale(&old, &MATRIX, &rows, &cols, resolution).unwrap();
            let (before, after) = (Side::read(&old, &MATRIX).unwrap(), Side::read(&new, &MATRIX).unwrap());
            let most = 2f64.powf(0.501 / f64::from(1u32 << resolution));
            for (before, after, wanted) in
                [(before.cols, after.cols, &cols), (before.rows, after.rows, &rows)]
            {
                let before = before.map_or_else(|| vec![1.0; wanted.len()], |s| s.factors());
                for ((b, a), w) in before.iter().zip(after.unwrap().factors()).zip(wanted) {
                    let off = f64::from(a) / (f64::from(*b) * w);
                    assert!(off < most && off > 1.0 / most, "{off}");
                }
            }
            assert!(Trellis::default().decoder(&MATRIX, &new).is_ok());
        }
    }

    #[test]
    fn impossible_factors_are_refused() {
        let (rows, cols) = (factors(48, 3), factors(64, 50));
        assert!(rescale(&[], &MATRIX, &rows[1..], &cols, 6).is_err());
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let rows: Vec<f64> =
                rows.iter().enumerate().map(|(i, &x)| if i == 7 { bad } else { x }).collect();
            assert!(rescale(&[], &MATRIX, &rows, &cols, 6).is_err(), "{bad}");
        }
        assert!(rescale(&[9], &MATRIX, &rows, &cols, 6).is_err());
    }
}
