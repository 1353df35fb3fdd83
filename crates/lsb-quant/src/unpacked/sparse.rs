//! Outliers among signs: what they are more than the levels that stand in their places.

use super::Activations;
use crate::lanes::{LANES, Lanes, Work, dispatch};
use std::fmt;
use std::ops::Range;

/// Outliers that are summed side by side.
const TOGETHER: usize = 8;

/// The bit of a code that tells a negative outlier.
const NEGATIVE: u16 = 1 << 15;

/// Columns that an outlier's number can tell: with inputs for all of them, none has to be checked.
const COLS: usize = 1 << 16;

/// Outliers of rows, group by group.
#[derive(Clone)]
pub(super) struct Sparse {
    /// Where those of each group end, row by row.
    ends: Vec<u32>,
    cols: Vec<u16>,
    values: Values,
}

#[derive(Clone)]
enum Values {
    /// The bits of a magnitude are `smallest + (code << shift)`; the top bit of a code is its sign.
    Codes(Coded, Vec<u16>),
    /// As they are, where codes have too few bits.
    Plain(Vec<f32>),
}

/// How a stored value is read.
trait Reader: Copy {
    type Stored: Copy;

    fn value(self, stored: Self::Stored) -> f32;
}

#[derive(Clone, Copy)]
struct Coded {
    smallest: u32,
    shift: u32,
}

impl Reader for Coded {
    type Stored = u16;

    #[inline(always)]
    fn value(self, stored: u16) -> f32 {
        let magnitude = self.smallest + (u32::from(stored & !NEGATIVE) << self.shift);
        f32::from_bits(magnitude | u32::from(stored & NEGATIVE) << 16)
    }
}

#[derive(Clone, Copy)]
struct AsItIs;

impl Reader for AsItIs {
    type Stored = f32;

    #[inline(always)]
    fn value(self, stored: f32) -> f32 {
        stored
    }
}

/// Inputs of sixteen tokens by column, with room for all columns that can be told. Only that of columns that there are is ever
/// touched.
pub(super) type Sixteen = Vec<[f32; LANES]>;

/// The inputs of a token, with the same room.
#[derive(Default)]
pub(super) struct Workspace {
    one: Vec<f32>,
    /// What `one` is of: activations, their token, and its columns.
    of: Option<(u64, usize, Range<usize>)>,
}

impl fmt::Debug for Workspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workspace").finish_non_exhaustive()
    }
}

/// Columns whose inputs are put side by side at once: as many as the first cache holds.
const BLOCK: usize = 128;

/// Inputs `x(token)` of tokens, sixteen side by side.
pub(super) fn side_by_side<'x>(x: impl Fn(usize) -> &'x [f32], tokens: usize) -> Vec<Sixteen> {
    let sixteen = |first: usize| {
        let mut lanes = vec![[0.0; LANES]; COLS];
        let cols = x(first).len().min(COLS);
        for block in (0..cols).step_by(BLOCK) {
            let block = block..cols.min(block + BLOCK);
            for lane in 0..LANES.min(tokens - first) {
                let x = &x(first + lane)[block.clone()];
                lanes[block.clone()].iter_mut().zip(x).for_each(|(lanes, x)| lanes[lane] = *x);
            }
        }
        lanes
    };
    (0..tokens).step_by(LANES).map(sixteen).collect()
}

impl Sparse {
    /// The most columns of a row.
    pub(super) const MOST_COLS: usize = COLS;

    /// Outliers with these columns and finite values; those of each group end at `ends`.
    pub(super) fn new(ends: &[u32], cols: &[u16], values: &[f32]) -> Self {
        let magnitudes = || values.iter().map(|value| value.abs().to_bits());
        let smallest = magnitudes().min().unwrap_or(0);
        let used = magnitudes().fold(0, |bits, magnitude| bits | (magnitude - smallest));
        let shift = used.trailing_zeros().min(31);
        let largest = magnitudes().max().unwrap_or(0) - smallest;
        let values = if largest >> shift < u32::from(NEGATIVE) {
            let code = |value: &f32| {
                let code = ((value.abs().to_bits() - smallest) >> shift) as u16;
                if value.is_sign_negative() { code | NEGATIVE } else { code }
            };
            Values::Codes(Coded { smallest, shift }, values.iter().map(code).collect())
        } else {
            Values::Plain(values.to_vec())
        };
        Sparse { ends: ends.to_vec(), cols: cols.to_vec(), values }
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        let values = match &self.values {
            Values::Codes(_, codes) => size_of::<u16>() * codes.capacity(),
            Values::Plain(values) => size_of::<f32>() * values.capacity(),
        };
        size_of::<u32>() * self.ends.capacity() + size_of::<u16>() * self.cols.capacity() + values
    }

    fn range(&self, group: usize) -> Range<usize> {
        let start = group.checked_sub(1).map_or(0, |before| self.ends[before]);
        start as usize..self.ends[group] as usize
    }

    /// Calls `each` with the number of the group, counted through all rows, the column and the value of every outlier of `groups`.
    pub(super) fn put(&self, groups: Range<usize>, mut each: impl FnMut(usize, usize, f32)) {
        for group in groups {
            for i in self.range(group) {
                let value = match &self.values {
                    Values::Codes(coded, codes) => coded.value(codes[i]),
                    Values::Plain(values) => values[i],
                };
                each(group, usize::from(self.cols[i]), value);
            }
        }
    }

    /// Adds to `y`, of shape `[tokens, rows]`, what products with outliers are more than those with the `levels` of their groups, the
    /// lower and the upper one, in whose place they are. Inputs are those of columns `cols`.
    pub(super) fn add_products(
        &self,
        levels: &[[f32; 2]],
        x: &Activations<'_>,
        cols: Range<usize>,
        y: &mut [f32],
        work: &mut Workspace,
    ) {
        match &self.values {
            Values::Codes(coded, codes) => {
                let outliers =
                    Outliers { ends: &self.ends, cols: &self.cols, values: codes, reader: *coded, levels };
                outliers.add_products(x, cols, y, work);
            }
            Values::Plain(values) => {
                let outliers =
                    Outliers { ends: &self.ends, cols: &self.cols, values, reader: AsItIs, levels };
                outliers.add_products(x, cols, y, work);
            }
        }
    }
}

/// Fewer tokens than this are multiplied one by one.
const FEW: usize = 12;

/// Outliers with the levels in whose place they are.
#[derive(Clone, Copy)]
struct Outliers<'a, R: Reader> {
    ends: &'a [u32],
    cols: &'a [u16],
    values: &'a [R::Stored],
    reader: R,
    levels: &'a [[f32; 2]],
}

impl<R: Reader> Outliers<'_, R> {
    fn add_products(self, x: &Activations<'_>, cols: Range<usize>, y: &mut [f32], work: &mut Workspace) {
        let tokens = x.tokens();
        let rows = y.len() / tokens.max(1);
        // Beside many tokens, outliers are read once for sixteen of them.
        let many = if tokens < FEW { 0 } else { tokens };
        if many > 0 {
            let own;
            let sixteens = if cols.start == 0 {
                x.sixteens()
            } else {
                own = side_by_side(|token| &x.token(token)[cols.clone()], tokens);
                &own
            };
            for (x, y) in sixteens.iter().zip(y.chunks_mut((LANES * rows).max(1))) {
                dispatch(AddSome { outliers: self, x, rows, y });
            }
        }
        for (token, y) in y.chunks_mut(rows.max(1)).enumerate().skip(many) {
            if work.one.is_empty() {
                work.one = vec![0.0; COLS];
            }
            let of = Some((x.number(), token, cols.clone()));
            if work.of != of {
                work.one[..cols.len()].copy_from_slice(&x.token(token)[cols.clone()]);
                work.of = of;
            }
            dispatch(AddOne { outliers: self, x: &work.one, y });
        }
    }

    /// The difference of an outlier from the level of its sign.
    #[inline(always)]
    fn difference(&self, stored: R::Stored, [low, high]: [f32; 2]) -> f32 {
        let value = self.reader.value(stored);
        value - if value.is_sign_negative() { low } else { high }
    }
}

/// For one token.
struct AddOne<'a, R: Reader> {
    outliers: Outliers<'a, R>,
    /// By column.
    x: &'a [f32],
    y: &'a mut [f32],
}

impl<R: Reader> Work for AddOne<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let AddOne { outliers, x, y } = self;
        let Ok(x) = <&[f32; COLS]>::try_from(x) else { return };
        let groups = outliers.ends.len() / y.len().max(1);
        let mut start = 0;
        let levels = outliers.levels.chunks(groups.max(1)).zip(outliers.ends.chunks(groups.max(1)));
        for (y, (levels, ends)) in y.iter_mut().zip(levels) {
            // One after the other would wait for each sum.
            let mut sums = [0.0; TOGETHER];
            for (&levels, &end) in levels.iter().zip(ends) {
                let here = start..end as usize;
                start = here.end;
                let (cols, last_cols) = outliers.cols[here.clone()].as_chunks::<TOGETHER>();
                let (values, last_values) = outliers.values[here].as_chunks::<TOGETHER>();
                for (cols, values) in cols.iter().zip(values) {
                    let mut inputs = [0.0; TOGETHER];
                    for (input, &col) in inputs.iter_mut().zip(cols) {
                        *input = x[usize::from(col)];
                    }
                    for ((sum, &value), input) in sums.iter_mut().zip(values).zip(inputs) {
                        *sum += outliers.difference(value, levels) * input;
                    }
                }
                for ((sum, &col), &value) in sums.iter_mut().zip(last_cols).zip(last_values) {
                    *sum += outliers.difference(value, levels) * x[usize::from(col)];
                }
            }
            let [a, b, c, d, e, f, g, h] = sums;
            *y += ((a + e) + (b + f)) + ((c + g) + (d + h));
        }
    }
}

/// For up to sixteen tokens.
struct AddSome<'a, R: Reader> {
    outliers: Outliers<'a, R>,
    /// By column, a token in each lane.
    x: &'a [[f32; LANES]],
    rows: usize,
    /// Of shape `[tokens, rows]`.
    y: &'a mut [f32],
}

impl<R: Reader> Work for AddSome<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let AddSome { outliers, x, rows, y } = self;
        let Ok(x) = <&[[f32; LANES]; COLS]>::try_from(x) else { return };
        let groups = outliers.ends.len() / rows.max(1);
        let mut start = 0;
        for row in 0..rows {
            let mut sums = lanes.splat(0.0);
            for group in row * groups..(row + 1) * groups {
                let here = start..outliers.ends[group] as usize;
                start = here.end;
                for (&col, &value) in outliers.cols[here.clone()].iter().zip(&outliers.values[here]) {
                    let difference = outliers.difference(value, outliers.levels[group]);
                    let inputs = lanes.load(&x[usize::from(col)]);
                    sums = lanes.add(sums, lanes.mul(lanes.splat(difference), inputs));
                }
            }
            for (y, sum) in y[row..].iter_mut().step_by(rows).zip(lanes.store(sums)) {
                *y += sum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_values_come_back_whatever_they_are(values in prop::collection::vec(any::<f32>(), 1..50), kept in 0u32..24) {
            // With few bits below the point they have short codes.
            let values: Vec<f32> = values.into_iter().filter(|v| v.is_finite()).map(|v| f32::from_bits(v.to_bits() >> kept << kept)).collect();
            let cols: Vec<u16> = (0..values.len()).map(|i| 3 * i as u16).collect();
            let sparse = Sparse::new(&[0, values.len() as u32 / 2, values.len() as u32], &cols, &values);
            let mut back = Vec::new();
            sparse.put(0..3, |group, col, value| back.push((group, col, value.to_bits())));
            let expected: Vec<_> = values.iter().enumerate().map(|(i, v)| (1 + usize::from(i >= values.len() / 2), 3 * i, v.to_bits())).collect();
            prop_assert_eq!(back, expected);
        }
    }
}
