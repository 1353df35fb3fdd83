//! Which samples share a table: classes by the size of their row and of their column.
//!
//! A row and a column each have an index on a scale of quarter octaves of their standard deviation; the class of a
//! sample is the sum of its two indices, held inside a range.

use crate::codec::bitstream::BitReader;
use crate::number::log2;
use lsb_format::entropy::{fold, unfold};

/// The most classes of a tile.
pub(super) const MAX_CLASSES: usize = 32;

/// Steps of the scale in an octave.
const PER_OCTAVE: f64 = 4.0;

/// Indices are from minus this to this.
const MAX_INDEX: i32 = 100;

/// A class is worth its table only with so many samples.
const MIN_SAMPLES: u64 = 1024;

/// The classes of one tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Classes {
    rows: Vec<i8>,
    cols: Vec<i8>,
    /// Sum of indices of class 0.
    first: i32,
    count: usize,
}

/// The place of a deviation on the scale.
fn index(deviation: f64) -> i8 {
    let octaves = log2(deviation.max(1e-9)).clamp(-3.0, 12.0);
    (PER_OCTAVE * octaves + 0.5).floor() as i8
}

impl Classes {
    /// One class for all.
    pub(super) fn one(rows: usize, cols: usize) -> Classes {
        Classes { rows: vec![0; rows], cols: vec![0; cols], first: 0, count: 1 }
    }

    /// Classes by the standard deviation of columns and of rows in units of their columns', where asked for.
    pub(super) fn of_deviations(rows: &[f64], cols: &[f64], by_rows: bool, by_cols: bool) -> Classes {
        let indices = |deviations: &[f64], wanted: bool| {
            if wanted { deviations.iter().map(|&d| index(d)).collect() } else { vec![0; deviations.len()] }
        };
        let mut out =
            Classes { rows: indices(rows, by_rows), cols: indices(cols, by_cols), first: 0, count: 1 };
        out.choose_range();
        out
    }

    /// The same columns and classes with other rows.
    pub(super) fn with_rows(&self, rows: &[f64]) -> Classes {
        Classes { rows: rows.iter().map(|&d| index(d)).collect(), ..self.clone() }
    }

    /// Deviations in the middle of the columns' indices.
    pub(super) fn col_deviations(&self) -> Vec<f64> {
        self.cols.iter().map(|&i| crate::number::exp2(f64::from(i) / PER_OCTAVE)).collect()
    }

    /// Sets the range so that the outermost classes have enough samples.
    fn choose_range(&mut self) {
        const SIZE: usize = 4 * MAX_INDEX as usize + 1;
        let tally = |indices: &[i8]| {
            let mut counts = [0u64; 2 * MAX_INDEX as usize + 1];
            for &i in indices {
                counts[(i32::from(i) + MAX_INDEX) as usize] += 1;
            }
            counts
        };
        let (rows, cols) = (tally(&self.rows), tally(&self.cols));
        let mut sums = [0u64; SIZE];
        for (i, &r) in rows.iter().enumerate().filter(|(_, r)| **r > 0) {
            for (j, &c) in cols.iter().enumerate().filter(|(_, c)| **c > 0) {
                sums[i + j] += r * c;
            }
        }
        let (mut low, mut high) = (0, SIZE - 1);
        let (mut below, mut above) = (sums[low], sums[high]);
        while low < high && (below < MIN_SAMPLES || above < MIN_SAMPLES || high - low >= MAX_CLASSES) {
            if below <= above {
                low += 1;
                below += sums[low];
            } else {
                high -= 1;
                above += sums[high];
            }
        }
        self.first = low as i32 - 2 * MAX_INDEX;
        self.count = high - low + 1;
    }

    /// Number of classes.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The class of a sample.
    pub(super) fn class(&self, row: usize, col: usize) -> usize {
        let sum = i32::from(self.rows[row]) + i32::from(self.cols[col]) - self.first;
        sum.clamp(0, self.count as i32 - 1) as usize
    }

    /// The classes of some columns of a row, one behind the other, from column `first` on.
    #[inline]
    pub(super) fn classes(&self, row: usize, first: usize, out: &mut [u8]) {
        let (base, last) = (i16::from(self.rows[row]) - self.first as i16, self.count as i16 - 1);
        for (class, &col) in out.iter_mut().zip(&self.cols[first..]) {
            *class = (base + i16::from(col)).clamp(0, last) as u8;
        }
    }

    /// For each row what it adds to the class of its samples; the class is that and what the column adds, held in range.
    pub(super) fn row_terms(&self, out: &mut Vec<i16>) {
        out.clear();
        out.extend(self.rows.iter().map(|&r| i16::from(r) - self.first as i16));
    }

    /// What each column adds.
    pub(super) fn col_terms(&self) -> impl Iterator<Item = i16> {
        self.cols.iter().map(|&c| i16::from(c))
    }

    /// The classes of the rows of a column.
    pub(super) fn of_column(&self, col: usize, out: &mut [u8]) {
        let (base, last) = (i16::from(self.cols[col]) - self.first as i16, self.count as i16 - 1);
        for (class, &row) in out.iter_mut().zip(&self.rows) {
            *class = (base + i16::from(row)).clamp(0, last) as u8;
        }
    }

    /// Standard deviation in the middle of a class, where indices came from deviations.
    pub(super) fn deviation(&self, class: usize) -> f64 {
        crate::number::exp2((self.first + class as i32) as f64 / PER_OCTAVE)
    }

    /// Integers that say it all, for a Rice code.
    pub(super) fn numbers(&self) -> Vec<u32> {
        let mut out = vec![self.count as u32 - 1];
        if self.count == 1 {
            return out;
        }
        let relative = |indices: &[i8], out: &mut Vec<u32>| {
            let center = most_common(indices);
            let all_same = indices.iter().all(|&i| i == center);
            out.extend([fold(i32::from(center)), u32::from(!all_same)]);
            if !all_same {
                out.extend(indices.iter().map(|&i| fold(i32::from(i) - i32::from(center))));
            }
        };
        out.push(fold(self.first));
        relative(&self.rows, &mut out);
        relative(&self.cols, &mut out);
        out
    }

    /// Reads what [`Classes::numbers`] gave, from a Rice code of `low` bits.
    ///
    /// # Errors
    /// If a number is out of range.
    pub(super) fn read(
        reader: &mut BitReader<'_>,
        low: u32,
        rows: usize,
        cols: usize,
    ) -> crate::Result<Classes> {
        let mut out = Classes::one(rows, cols);
        out.count = reader.rice(low, MAX_CLASSES as u32 - 1)? as usize + 1;
        if out.count == 1 {
            return Ok(out);
        }
        out.first = unfold(reader.rice(low, fold(4 * MAX_INDEX))?);
        for indices in [&mut out.rows, &mut out.cols] {
            let center = unfold(reader.rice(low, fold(MAX_INDEX))?);
            indices.fill(center as i8);
            if reader.rice(low, 1)? == 1 {
                for index in indices {
                    let i = center + unfold(reader.rice(low, fold(2 * MAX_INDEX))?);
                    *index = i.clamp(-MAX_INDEX, MAX_INDEX) as i8;
                }
            }
        }
        Ok(out)
    }
}

fn most_common(indices: &[i8]) -> i8 {
    let mut counts = [0u32; 256];
    for &i in indices {
        counts[(i32::from(i) + 128) as usize] += 1;
    }
    let mut best = 128;
    for (i, &n) in counts.iter().enumerate() {
        if n > counts[best] {
            best = i;
        }
    }
    (best as i32 - 128) as i8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::bitstream::{BitWriter, best_rice};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_classes_come_back(
            rows in prop::collection::vec(1e-6f64..300.0, 1..90),
            cols in prop::collection::vec(0.1f64..3.0, 1..90),
            by_rows in any::<bool>(),
            by_cols in any::<bool>(),
        ) {
            let classes = Classes::of_deviations(&rows, &cols, by_rows, by_cols);
            prop_assert!((1..=MAX_CLASSES).contains(&classes.count()));
            let numbers = classes.numbers();
            let low = best_rice(&numbers).0;
            let mut bytes = Vec::new();
            let mut writer = BitWriter::new(&mut bytes);
            numbers.iter().for_each(|&n| writer.push_rice(n, low));
            writer.finish();
            let mut reader = BitReader::new(&bytes);
            let back = Classes::read(&mut reader, low, rows.len(), cols.len()).unwrap();
            for r in 0..rows.len() {
                for c in 0..cols.len() {
                    prop_assert_eq!(back.class(r, c), classes.class(r, c));
                    let mut one = [0];
                    back.classes(r, c, &mut one);
                    prop_assert_eq!(usize::from(one[0]), classes.class(r, c));
                }
            }
        }
    }

    #[test]
    fn classes_follow_the_product_of_deviations() {
        let rows: Vec<f64> = (0..200).map(|r| if r % 2 == 0 { 1.0 } else { 2.0 }).collect();
        let cols: Vec<f64> = (0..200).map(|c| if c < 100 { 1.0 } else { 4.0 }).collect();
        let classes = Classes::of_deviations(&rows, &cols, true, true);
        for (r, c) in [(0, 0), (1, 0), (0, 150), (1, 150)] {
            assert_eq!(classes.deviation(classes.class(r, c)), rows[r] * cols[c]);
        }
    }
}
