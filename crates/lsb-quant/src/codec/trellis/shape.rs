//! How likely each level is in a class: a curve over magnitudes, stored in a few bytes.
//!
//! The curve holds, for each magnitude, minus the logarithm of the probability of a level of that magnitude among the
//! levels of its set, in eighths of a bit. Positive and negative levels are equally likely. It is smooth, so what is
//! stored are second differences of points on it, the further apart the wider it is, with straight lines between. Levels
//! beyond the curve are escapes.

use super::search::{REACH, RateTable};
use crate::codec::bitstream::{BitReader, best_rice};
use crate::number::{exp2, log2};
use lsb_format::entropy::{Alphabet, fold, unfold};
use lsb_format::{Error, Result};

/// The most magnitudes of a curve: symbols are bytes, and two of them are escapes.
pub(super) const MAX_MAGNITUDES: usize = 253;

/// Symbol of level `2 k + set` with `k = 0`.
const CENTER: i32 = 128;
/// Eighths of a bit of the least likely level that is told apart.
const LONGEST: u32 = 127;
/// Points of a curve are at most `2^MAX_SPACING` magnitudes apart.
const MAX_SPACING: u32 = 4;
/// What a level costs, in bits, where nothing of the kind was seen before.
const UNSEEN_BITS: f64 = 18.0;

/// One class: probabilities of its levels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// Eighths of a bit of the magnitudes that are multiples of `2^spacing`.
    points: Vec<u8>,
    spacing: u32,
    /// Eighths of a bit by magnitude.
    curve: Vec<u8>,
    /// Eighths of a bit of each escape, where there are any.
    escape: Option<u8>,
}

/// What a level is coded as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coded {
    /// A symbol says it all.
    Symbol(u8),
    /// A symbol that says "elsewhere", and which level it is, counted from the end of the curve.
    Escape(u8, u32),
}

/// 0 where a level is even, 1 where it is odd.
#[inline(always)]
pub(super) fn set_of(level: i32) -> usize {
    (level & 1) as usize
}

impl Shape {
    /// The shape that suits levels whose magnitudes occur `counts[m]` times.
    pub(super) fn of_counts(counts: &[f64]) -> Shape {
        let totals = totals(counts);
        let total = totals[0] + totals[1];
        // The end of the tail costs more in the table than as escapes.
        let (mut n, mut beyond) = (counts.len(), 0.0);
        while n > 0 && (n > MAX_MAGNITUDES || beyond + counts[n - 1] <= total / 16384.0) {
            n -= 1;
            beyond += counts[n];
        }
        let bits = |share: f64| ((-8.0 * log2(share.clamp(1e-9, 1.0)) + 0.5) as u32).min(LONGEST) as u8;
        // A magnitude that happens to be missing is nearly as likely as one that occurs once.
        let share = |m: usize| {
            let level = if m == 0 { 1.0 } else { 0.5 } * counts.get(m).copied().unwrap_or(0.0);
            (level + 0.25) / (totals[m % 2] + 0.25)
        };
        let of_spacing = |spacing: u32| {
            let (width, half) = (1 << spacing, (1 << spacing) / 2);
            let last = (n.max(1) - 1).div_ceil(width).min((MAX_MAGNITUDES - 1) / width);
            let near = |i: usize| (i * width).saturating_sub(half)..=i * width + half;
            let mean = |i: usize| near(i).map(share).sum::<f64>() / near(i).count() as f64;
            let points = if n == 0 { Vec::new() } else { (0..=last).map(|i| bits(mean(i))).collect() };
            // A curve whose points are far apart may end a little earlier than it has to.
            let end = if n == 0 { 0 } else { last * width + 1 };
            let beyond: f64 = counts.iter().skip(end).sum();
            let escape = (beyond > 0.0).then(|| bits(0.5 * beyond / total.max(1e-9)));
            Shape::of_points(points, spacing, escape)
        };
        let mut best = of_spacing(0);
        let size = |shape: &Shape| shape.cost(counts) + best_rice(&shape.numbers()).1 as f64;
        let mut least = size(&best);
        for spacing in 1..=MAX_SPACING {
            let shape = of_spacing(spacing);
            let size = size(&shape);
            if size < least {
                (best, least) = (shape, size);
            }
        }
        best
    }

    fn of_points(points: Vec<u8>, spacing: u32, escape: Option<u8>) -> Shape {
        let width = 1usize << spacing;
        let n = points.len().saturating_sub(1) * width + usize::from(!points.is_empty());
        let at = |m: usize| {
            let (i, part) = (m >> spacing, m & (width - 1));
            let (a, b) = (usize::from(points[i]), usize::from(points[(i + 1).min(points.len() - 1)]));
            ((a * (width - part) + b * part + width / 2) >> spacing) as u8
        };
        Shape { curve: (0..n).map(at).collect(), points, spacing, escape }
    }

    /// The shape of Gaussian samples with this standard deviation, in steps.
    pub(super) fn gaussian(deviation: f64) -> Shape {
        let deviation = deviation.max(0.02);
        let density = |x: f64| exp2(-0.5 * std::f64::consts::LOG2_E * (x / deviation) * (x / deviation));
        // A level takes what is nearer to it than to its neighbours in the set, which are two steps away: what lies between it
        // and the next two integers.
        const POINTS: usize = 8;
        let mut densities = vec![[0.0; POINTS]; REACH as usize + 2];
        for (m, densities) in densities.iter_mut().enumerate() {
            *densities =
                std::array::from_fn(|i| density(m as f64 - 1.0 + (2 * i + 1) as f64 / (2 * POINTS) as f64));
            // Where it is zero to the right of the middle, it is further out.
            if m > 0 && densities[0] == 0.0 {
                break;
            }
        }
        let mass = |m: usize| -> f64 {
            let around = densities[m].iter().chain(&densities[m + 1]);
            around.sum::<f64>() * if m == 0 { 1.0 } else { 2.0 }
        };
        let counts: Vec<f64> = (0..=REACH as usize).map(mass).collect();
        let total: f64 = counts.iter().sum();
        let scale = 1e6 / total.max(1e-300);
        Shape::of_counts(&counts.iter().map(|c| c * scale).collect::<Vec<_>>())
    }

    /// What every level costs, times `lambda`.
    pub(super) fn rates(&self, lambda: f64) -> RateTable {
        let escape = self.escape.map_or(UNSEEN_BITS, |e| f64::from(e) / 8.0);
        RateTable::new(|level| {
            let bits = match self.curve.get(level.unsigned_abs() as usize) {
                Some(&bits) => f64::from(bits) / 8.0,
                None => {
                    let steps = self.steps_beyond(level);
                    escape + f64::from(2 * (steps + 1).ilog2() + 1)
                }
            };
            (lambda * bits) as f32
        })
    }

    /// Bits that levels with these magnitudes take.
    pub(super) fn cost(&self, counts: &[f64]) -> f64 {
        // Most escapes are just beyond the curve.
        let escape = self.escape.map_or(UNSEEN_BITS, |e| f64::from(e) / 8.0 + 3.0);
        let bits = |m: usize| self.curve.get(m).map_or(escape, |&b| f64::from(b) / 8.0);
        let lengths: f64 = counts.iter().enumerate().map(|(m, c)| c * bits(m)).sum();
        // Frequencies are shares of all in the set.
        let totals = totals(counts);
        let rest: f64 = [0, 1].map(|set| totals[set] * log2(self.weights(set).max(1e-300))).iter().sum();
        lengths + rest
    }

    /// Sum of `2^-bits` over all levels and escapes of a set.
    fn weights(&self, set: usize) -> f64 {
        let unit = weight(0) as f64;
        let of = |bits: u8| weight(bits) as f64 / unit;
        let levels = self.curve.iter().enumerate().skip(set).step_by(2);
        let levels: f64 = levels.map(|(m, &bits)| of(bits) * if m == 0 { 1.0 } else { 2.0 }).sum();
        levels + self.escape.map_or(0.0, |e| 2.0 * of(e))
    }

    /// The symbols of the even levels (set 0) or the odd ones (1) and how likely they are; false if there are none.
    pub(super) fn alphabet_into(&self, set: usize, out: &mut Alphabet) -> bool {
        let escapes = self.escape.into_iter().flat_map(|bits| [0, 1].map(|symbol| (symbol, weight(bits))));
        // Level 2 k + set is beyond the curve where k is beyond half of it.
        let reach = self.curve.len() as i32 / 2 + 1;
        let symbols = (CENTER - reach).max(2)..(CENTER + reach).min(256);
        let levels = symbols.filter_map(|symbol| {
            let level = 2 * (symbol - CENTER) + set as i32;
            self.curve.get(level.unsigned_abs() as usize).map(|&bits| (symbol as u8, weight(bits)))
        });
        out.set(escapes.chain(levels))
    }

    /// Levels of this magnitude or a larger one are escapes.
    pub(super) fn end(&self) -> usize {
        self.curve.len()
    }

    /// How a level is coded.
    pub(super) fn code(&self, level: i32) -> Coded {
        if (level.unsigned_abs() as usize) < self.curve.len() {
            return Coded::Symbol(symbol_of(level));
        }
        Coded::Escape((level >> 1 & 1) as u8, self.steps_beyond(level))
    }

    /// The level that an escape stands for; `symbol` is 0 or 1.
    pub(super) fn escaped(&self, set: usize, symbol: u8, steps: u32) -> i32 {
        let subset = 2 * i32::from(symbol) + set as i32;
        let first = self.first_beyond(subset, steps & 1 == 1);
        let away = (steps >> 1).min(1 << 26) as i32;
        if steps & 1 == 1 { first - 4 * away } else { first + 4 * away }
    }

    /// The level of a subset that is the first beyond the curve.
    fn first_beyond(&self, subset: i32, negative: bool) -> i32 {
        let end = self.curve.len() as i32;
        if negative {
            // An empty curve must not name zero twice.
            let end = end.max(1);
            -end - (-end - subset).rem_euclid(4)
        } else {
            end + (subset - end).rem_euclid(4)
        }
    }

    fn steps_beyond(&self, level: i32) -> u32 {
        let first = self.first_beyond(level.rem_euclid(4), level < 0);
        ((level - first).unsigned_abs() / 4) << 1 | u32::from(level < 0)
    }

    /// Integers that say it all, for a Rice code.
    pub(super) fn numbers(&self) -> Vec<u32> {
        let mut out =
            vec![self.points.len() as u32, self.spacing, self.escape.map_or(0, |e| u32::from(e) + 1)];
        out.extend(
            (0..self.points.len()).map(|i| fold(i32::from(self.points[i]) - expected(&self.points[..i]))),
        );
        out
    }

    /// Reads what [`Shape::numbers`] gave, from a Rice code of `low` bits.
    ///
    /// # Errors
    /// If a number is out of range.
    pub(super) fn read(reader: &mut BitReader<'_>, low: u32) -> crate::Result<Shape> {
        let n = reader.rice(low, MAX_MAGNITUDES as u32)? as usize;
        let spacing = reader.rice(low, MAX_SPACING)?;
        if n > 0 && (n - 1) << spacing >= MAX_MAGNITUDES {
            return Err(out_of_range("a curve").into());
        }
        let escape = reader.rice(low, LONGEST + 1)?;
        let mut points: Vec<u8> = Vec::with_capacity(n);
        for _ in 0..n {
            let bits = expected(&points) + unfold(reader.rice(low, 8 * LONGEST)?);
            let bits = u8::try_from(bits).ok().filter(|&b| u32::from(b) <= LONGEST);
            points.push(bits.ok_or_else(|| out_of_range("a probability"))?);
        }
        Ok(Shape::of_points(points, spacing, escape.checked_sub(1).map(|e| e as u8)))
    }
}

/// What comes next if the curve goes straight on.
fn expected(points: &[u8]) -> i32 {
    match points {
        [] => 0,
        [a] => i32::from(*a),
        [.., a, b] => 2 * i32::from(*b) - i32::from(*a),
    }
}

/// Levels of either set.
fn totals(counts: &[f64]) -> [f64; 2] {
    [0, 1].map(|set| counts.iter().skip(set).step_by(2).sum())
}

fn out_of_range(what: &str) -> Error {
    Error::corruption("P57", format!("trellis levels: {what} out of range"))
}

/// Checks that an escape stands for a level that can be.
///
/// # Errors
/// If it lies further out than any encoder goes.
pub(super) fn check_steps(steps: u32) -> Result<()> {
    if steps >> 1 < 1 << 26 { Ok(()) } else { Err(out_of_range("an escape")) }
}

/// The level a symbol above 1 stands for.
#[inline(always)]
pub(super) fn level_of(set: u16, symbol: u16) -> i16 {
    (2 * symbol + set) as i16 - 2 * CENTER as i16
}

/// The symbol of a level inside a curve.
#[inline(always)]
pub(super) fn symbol_of(level: i32) -> u8 {
    ((level >> 1) + CENTER) as u8
}

/// The alphabet of what needs no bits: one symbol, [`NULL_SYMBOL`].
pub(super) fn set_to_null(alphabet: &mut Alphabet) {
    alphabet.set([(NULL_SYMBOL, 1)].into_iter());
}

/// The symbol of samples that are none.
pub(super) const NULL_SYMBOL: u8 = CENTER as u8;

/// `2^(40 - bits / 8)`, rounded down.
fn weight(bits: u8) -> u64 {
    const POWERS: [u64; 8] = [
        1_099_511_627_776,
        1_008_256_608_221,
        924_575_386_326,
        847_839_367_509,
        777_472_127_993,
        712_945_084_849,
        653_773_525_389,
        599_512_966_122,
    ];
    POWERS[usize::from(bits & 7)] >> (bits >> 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::bitstream::BitWriter;
    use proptest::prelude::*;

    fn level() -> impl Strategy<Value = i32> {
        prop_oneof![-300i32..300, -(1i32 << 24)..1 << 24]
    }

    proptest! {
        #[test]
        fn prop_every_level_comes_back(counts in prop::collection::vec(0u32..5000, 0..254), level in level()) {
            let counts: Vec<f64> = counts.iter().map(|&c| f64::from(c)).collect();
            let shape = Shape::of_counts(&counts);
            let back = match shape.code(level) {
                Coded::Symbol(symbol) => {
                    prop_assert!(symbol >= 2);
                    i32::from(level_of(set_of(level) as u16, symbol.into()))
                }
                Coded::Escape(symbol, steps) => {
                    prop_assert!(symbol < 2 && check_steps(steps).is_ok());
                    shape.escaped(set_of(level), symbol, steps)
                }
            };
            prop_assert_eq!(back, level);
        }

        #[test]
        fn prop_shapes_come_back(counts in prop::collection::vec(0u32..5000, 0..254)) {
            let counts: Vec<f64> = counts.iter().map(|&c| f64::from(c)).collect();
            let shape = Shape::of_counts(&counts);
            let numbers = shape.numbers();
            let low = best_rice(&numbers).0;
            let mut bytes = Vec::new();
            let mut writer = BitWriter::new(&mut bytes);
            numbers.iter().for_each(|&n| writer.push_rice(n, low));
            writer.finish();
            let mut reader = BitReader::new(&bytes);
            prop_assert_eq!(Shape::read(&mut reader, low).unwrap(), shape);
            reader.finish().unwrap();
        }

        #[test]
        fn prop_what_occurs_can_be_coded(counts in prop::collection::vec(0u32..3, 0..=254), scale in 1u32..9) {
            // Smooth curves have points far apart.
            let counts: Vec<f64> = (0..counts.len())
                .map(|m| f64::from(counts[m / 64 * 64]) * f64::from(scale))
                .collect();
            let shape = Shape::of_counts(&counts);
            let tables = [0, 1].map(|set| {
                let mut alphabet = Alphabet::default();
                shape.alphabet_into(set, &mut alphabet).then(|| alphabet.table())
            });
            for m in (0..counts.len()).filter(|&m| counts[m] > 0.0) {
                for level in [m as i32, -(m as i32)] {
                    let (Coded::Symbol(symbol) | Coded::Escape(symbol, _)) = shape.code(level);
                    let table = tables[set_of(level)].as_ref();
                    prop_assert!(table.is_some_and(|table| table.frequency(symbol) > 0), "{level}");
                }
            }
        }
    }

    #[test]
    fn a_shape_costs_hardly_more_than_the_entropy() {
        for deviation in [0.3, 1.0, 4.0, 20.0] {
            let density = |m: usize| (-0.5 * (m as f64 / deviation).powi(2)).exp();
            let counts: Vec<f64> =
                (0..200).map(|m| (1e5 * density(m) * if m == 0 { 1.0 } else { 2.0 }).floor()).collect();
            let total = |set: usize| counts.iter().skip(set).step_by(2).sum::<f64>();
            let entropy: f64 = (0..200)
                .filter(|&m| counts[m] > 0.0)
                .map(|m| {
                    let each = if m == 0 { counts[m] } else { counts[m] / 2.0 };
                    counts[m] * (total(m % 2) / each).log2()
                })
                .sum();
            let cost = Shape::of_counts(&counts).cost(&counts);
            assert!(cost < 1.003 * entropy && cost > 0.999 * entropy, "{deviation}: {cost} for {entropy}");
        }
    }
}
