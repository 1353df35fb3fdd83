//! Scales of columns and rows: powers of two with a few bits behind the point, stored as integers.

use crate::codec::bitstream::{BitReader, BitWriter, best_rice};
use crate::number::{exp2, log2};
use crate::{MatrixInfo, Result};
use lsb_format::Error;
use lsb_format::entropy::{fold, unfold};

/// Codes reach from minus this to this.
const MAX_CODE: i32 = 1 << 15;

/// The finest resolution: codes in an octave, as a power of two.
pub(super) const MAX_RESOLUTION: u32 = 8;

/// Logarithmic scales of one side of a matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scales {
    /// Logarithm to base two in units of `2^-resolution`.
    codes: Vec<i32>,
    resolution: u32,
}

impl Scales {
    /// The nearest scales to positive `values`.
    pub(super) fn nearest(values: &[f64], resolution: u32) -> Scales {
        let unit = f64::from(1u32 << resolution);
        let code = |x: f64| {
            let x = (log2(x.max(1e-30)) * unit + 0.5).floor();
            x.clamp(f64::from(-MAX_CODE), f64::from(MAX_CODE)) as i32
        };
        Scales { codes: values.iter().map(|&x| code(x)).collect(), resolution }
    }

    /// These multiplied by positive `factors`, at another resolution.
    pub(super) fn times(&self, factors: &[f64], resolution: u32) -> Scales {
        let (old, new) = (f64::from(1u32 << self.resolution), f64::from(1u32 << resolution));
        let code = |(&c, &x): (&i32, &f64)| {
            let x = ((f64::from(c) / old + log2(x.max(1e-30))) * new + 0.5).floor();
            x.clamp(f64::from(-MAX_CODE), f64::from(MAX_CODE)) as i32
        };
        Scales { codes: self.codes.iter().zip(factors).map(code).collect(), resolution }
    }

    /// The factors they stand for.
    pub(super) fn factors(&self) -> Vec<f32> {
        let unit = f64::from(1u32 << self.resolution);
        // Up to 2^15 octaves would fit the integers: what no f32 holds saturates.
        let factor = |&c: &i32| exp2(f64::from(c) / unit).clamp(1e-30, 1e30) as f32;
        self.codes.iter().map(factor).collect()
    }

    /// What stands in the middle, so that the others are near it.
    fn center(&self) -> i32 {
        let mut sorted = self.codes.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0)
    }

    fn write(&self, writer: &mut BitWriter<'_>) {
        let center = self.center();
        let numbers: Vec<u32> = self.codes.iter().map(|&c| fold(c - center)).collect();
        let low = best_rice(&numbers).0.min(31);
        writer.push(self.resolution, 4);
        writer.push(fold(center), 17);
        writer.push(low, 5);
        numbers.iter().for_each(|&n| writer.push_rice(n, low));
    }

    fn read(reader: &mut BitReader<'_>, count: usize, room: usize) -> Result<Scales> {
        let resolution = reader.bits(4);
        let center = unfold(reader.bits(17));
        let low = reader.bits(5);
        // Each takes at least a bit: a wrong count reserves nothing.
        if resolution > MAX_RESOLUTION || count > 8 * room {
            return Err(Error::corruption("P58", format!("{count} trellis scales in {room} bytes")).into());
        }
        let mut codes = Vec::with_capacity(count);
        for _ in 0..count {
            let code = center + unfold(reader.rice(low, fold(2 * MAX_CODE))?);
            codes.push(code.clamp(-MAX_CODE, MAX_CODE));
        }
        Ok(Scales { codes, resolution })
    }
}

/// The side information of a tensor: scales of its columns and rows, where it has any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) cols: Option<Scales>,
    pub(super) rows: Option<Scales>,
}

impl Side {
    /// Nothing where there are no scales, else `u8` which, and bits.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let kinds = u8::from(self.cols.is_some()) | u8::from(self.rows.is_some()) << 1;
        if kinds == 0 {
            return out;
        }
        out.push(kinds);
        let mut writer = BitWriter::new(&mut out);
        for scales in [&self.cols, &self.rows].into_iter().flatten() {
            scales.write(&mut writer);
        }
        writer.finish();
        out
    }

    /// Reads what [`Side::write`] wrote for such a matrix.
    ///
    /// # Errors
    /// If the bytes are damaged.
    pub(super) fn read(bytes: &[u8], matrix: &MatrixInfo) -> Result<Side> {
        let Some((&kinds, bytes)) = bytes.split_first() else { return Ok(Side::default()) };
        if !(1..4).contains(&kinds) {
            return Err(Error::corruption("P58", format!("trellis scales of kind {kinds}")).into());
        }
        let mut reader = BitReader::new(bytes);
        let mut scales = |wanted: bool, count: u64| {
            wanted.then(|| Scales::read(&mut reader, count as usize, bytes.len())).transpose()
        };
        let out =
            Side { cols: scales(kinds & 1 != 0, matrix.cols)?, rows: scales(kinds & 2 != 0, matrix.rows)? };
        reader.finish()?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lsb_format::DType;
    use proptest::prelude::*;

    #[test]
    fn factors_are_rounded_correctly_whatever_computes_them() {
        // None of the powers lies so near the middle between two f32 that a last bit of f64 could matter.
        for i in 0..1u32 << MAX_RESOLUTION {
            let x = exp2(f64::from(i) / f64::from(1u32 << MAX_RESOLUTION));
            let beyond_f32 = x.to_bits() & 0x1fff_ffff;
            assert!(beyond_f32.abs_diff(0x1000_0000) > 1 << 12, "{i}");
        }
    }

    proptest! {
        #[test]
        fn prop_side_information_comes_back(
            cols in prop::collection::vec(1e-6f64..1e6, 1..60),
            rows in prop::option::of(prop::collection::vec(0.5f64..2.0, 1..60)),
            resolution in 0u32..=MAX_RESOLUTION,
        ) {
            let matrix = MatrixInfo {
                rows: rows.as_ref().map_or(5, Vec::len) as u64,
                cols: cols.len() as u64,
                dtype: DType::F32,
            };
            let scales = Scales::nearest(&cols, resolution);
            let most = exp2(0.51 / f64::from(1u32 << resolution));
            for (factor, x) in scales.factors().iter().zip(&cols) {
                let off = f64::from(*factor) / x;
                prop_assert!(off < most && off > 1.0 / most);
            }
            let rows = rows.map(|r| Scales::nearest(&r, resolution));
            let side = Side { cols: Some(scales), rows };
            prop_assert_eq!(Side::read(&side.write(), &matrix).unwrap(), side);
        }

        #[test]
        fn prop_any_side_information_ends_in_scales_or_an_error(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0u8), Just(3u8)], 0..60),
            rows in 0u64..50,
            cols in prop_oneof![0u64..50, any::<u64>()],
        ) {
            if let Ok(side) = Side::read(&bytes, &MatrixInfo { rows, cols, dtype: DType::F32 }) {
                for scales in [side.cols, side.rows].into_iter().flatten() {
                    prop_assert!(scales.factors().iter().all(|x| x.is_finite() && *x > 0.0));
                }
            }
        }
    }
}
