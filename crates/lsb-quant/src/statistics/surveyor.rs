//! Exact selection of the largest weights by counting, in one to three passes.

use super::magnitudes::Counter;
use super::tally::{BINS, KeyOrder, Tally, count_equal, for_each_magnitude_run};
use super::{Needs, OutlierSelection, RowSample, Statistics};
use crate::{Error, MatrixInfo, Result, Span, to_f32};
use lsb_format::Tiling;
use rayon::prelude::*;
use std::ops::Range;

/// Gathers what [`Needs`] asks for in as few passes over the weights as possible.
///
/// ```text
/// while surveyor.wants_pass() { for span in tensor { surveyor.observe(&span)? } surveyor.end_pass(); }
/// let statistics = surveyor.finish();
/// ```
///
/// The first pass counts the leading 15 bits of every magnitude; a second one, for types that have more bits
/// than that, the remaining 16 bits inside the bin of the threshold; the last counts per tile the weights equal
/// to the threshold. For 16-bit types the first pass usually does the work of the last: it keeps, per tile,
/// the counts in a window of bins around the threshold that the first tile suggests.
///
/// Only integers are added up, so the result depends neither on threads nor on how spans are cut.
#[derive(Debug)]
pub struct Surveyor {
    tiles: usize,
    matrix: MatrixInfo,
    stage: Stage,
    selection: Option<Selection>,
    magnitudes: Option<Counter>,
    sample: Option<RowSample>,
    /// True until the first pass has ended.
    first_pass: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Leading,
    Trailing,
    Ties,
    Done,
}

#[derive(Debug)]
struct Selection {
    order: KeyOrder,
    /// Weights to select.
    count: u64,
    /// One tally per thread, kept from span to span: clearing and merging them costs more than a small span.
    tallies: Vec<Tally>,
    /// Elements in the tallies; they are emptied before a counter could overflow.
    tallied: u64,
    totals: Vec<u64>,
    /// Bins of which every tile's own count is kept.
    window: Option<Range<usize>>,
    windows: Vec<[u32; WINDOW]>,
    /// Threshold as far as it is known.
    threshold: u32,
    /// Weights still to be selected among those at the threshold.
    left: u64,
    ties: Vec<u64>,
}

/// Bins in the window: one octave of bf16 magnitudes.
const WINDOW: usize = 128;
/// Elements after which tallies are emptied.
const TALLY_LIMIT: u64 = 1 << 31;

impl Surveyor {
    /// A surveyor for one tensor.
    ///
    /// # Panics
    /// If outliers are asked for and the partition is not contiguous, or the ratio is not between 0 and 1.
    pub fn new(needs: &Needs, matrix: &MatrixInfo, tiling: &Tiling) -> Self {
        let selection = needs.outlier_ratio.map(|ratio| {
            assert!(tiling.is_contiguous(), "outliers are selected in contiguous partitions");
            assert!((0.0..=1.0).contains(&ratio), "a ratio of {ratio}");
            Selection::new((ratio * matrix.weights() as f64).round() as u64, matrix, tiling)
        });
        let stage = match &selection {
            Some(s) if s.count > 0 => Stage::Leading,
            _ => Stage::Done,
        };
        let magnitudes = needs.magnitudes.then(|| Counter::new(matrix));
        Surveyor {
            tiles: tiling.len() as usize,
            matrix: *matrix,
            stage,
            selection,
            magnitudes,
            sample: needs.sample.map(|weights| RowSample::new(matrix, weights)),
            first_pass: true,
        }
    }

    /// True while another pass over all spans, in order, is needed.
    pub fn wants_pass(&self) -> bool {
        let gathers = self.magnitudes.is_some() || self.sample.is_some();
        self.stage != Stage::Done || (self.first_pass && gathers)
    }

    /// Takes in the next span of the current pass.
    ///
    /// # Errors
    /// [`crate::Error::NonFinite`] at the first NaN or infinity.
    pub fn observe(&mut self, span: &Span<'_>) -> Result<()> {
        if let Some(counter) = self.magnitudes.as_mut().filter(|_| self.first_pass) {
            counter.observe(span)?;
        }
        if let Some(sample) = self.sample.as_mut().filter(|_| self.first_pass) {
            sample.observe(span)?;
        }
        let Some(s) = &mut self.selection else { return Ok(()) };
        match self.stage {
            Stage::Leading => s.count_leading(span)?,
            Stage::Trailing => s.count_trailing(span),
            Stage::Ties => s.count_ties(span),
            Stage::Done => {}
        }
        Ok(())
    }

    /// Ends a pass.
    pub fn end_pass(&mut self) {
        self.first_pass = false;
        let Some(s) = &mut self.selection else { return };
        self.stage = match self.stage {
            Stage::Leading => s.end_leading(),
            Stage::Trailing => s.end_trailing(),
            Stage::Ties | Stage::Done => Stage::Done,
        };
    }

    /// The statistics.
    ///
    /// # Panics
    /// If passes are missing, or did not cover the tensor.
    pub fn finish(self) -> Statistics {
        assert_eq!(self.stage, Stage::Done, "a pass is missing");
        let outliers = self.selection.map(|s| s.into_selection(self.tiles, self.matrix.weights()));
        let magnitudes = self.magnitudes.map(Counter::finish);
        Statistics { outliers, magnitudes, sample: self.sample, calibration: None }
    }
}

impl Selection {
    fn new(count: u64, matrix: &MatrixInfo, tiling: &Tiling) -> Self {
        let order = KeyOrder::of(matrix.dtype);
        let tiles = tiling.len() as usize;
        Selection {
            order,
            count,
            tallies: Vec::new(),
            tallied: 0,
            totals: vec![0; BINS],
            window: None,
            windows: Vec::with_capacity(if order.is_complete() { tiles } else { 0 }),
            threshold: f32::INFINITY.to_bits(),
            left: 0,
            ties: Vec::with_capacity(tiles),
        }
    }

    fn count_leading(&mut self, span: &Span<'_>) -> Result<()> {
        let threads = rayon::current_num_threads().max(1);
        if self.tallies.len() < threads {
            self.tallies.resize(threads, Tally::new());
        }
        let n = span.len();
        if n == 0 {
            return Ok(());
        }
        let order = self.order;
        if order.is_complete() && self.window.is_none() {
            self.window = Some(self.suggest_window(span));
        }
        let window = self.window.clone();
        let (base, per_thread) = (self.windows.len(), n.div_ceil(threads));
        if window.is_some() {
            self.windows.resize(base + n, [0; WINDOW]);
        }
        // Tiles in consecutive runs, one run per tally.
        let mut windows: Vec<&mut [[u32; WINDOW]]> = self.windows[base..].chunks_mut(per_thread).collect();
        windows.resize_with(threads, Default::default);
        self.tallies.par_iter_mut().zip(windows).enumerate().for_each(|(t, (tally, windows))| {
            let run = (t * per_thread).min(n)..((t + 1) * per_thread).min(n);
            match &window {
                None => run.for_each(|i| tally.add(order, span.tile_bytes(i))),
                Some(bins) => {
                    for (i, window) in run.zip(windows) {
                        let before: [u32; WINDOW] = std::array::from_fn(|k| tally.count(bins.start + k));
                        tally.add(order, span.tile_bytes(i));
                        for (k, count) in window.iter_mut().enumerate() {
                            *count = tally.count(bins.start + k) - before[k];
                        }
                    }
                }
            }
        });
        if (order.first_nonfinite()..BINS).any(|key| self.tallies.iter().any(|t| t.count(key) > 0)) {
            return Err(first_nonfinite(span));
        }
        self.tallied += span.tiling().elements(span.tiles()).count() as u64;
        if self.tallied >= TALLY_LIMIT {
            self.drain();
        }
        Ok(())
    }

    fn drain(&mut self) {
        for tally in &mut self.tallies {
            tally.drain_into(&mut self.totals);
        }
        self.tallied = 0;
    }

    /// The window around the threshold that the first tile of `span` alone would have.
    fn suggest_window(&self, span: &Span<'_>) -> Range<usize> {
        let mut tally = Tally::new();
        tally.add(self.order, span.tile_bytes(0));
        let mut counts = vec![0; BINS];
        tally.drain_into(&mut counts);
        let (tile, all) = (span.tile(0).weights() as u64, span.matrix().weights());
        let share = (u128::from(self.count) * u128::from(tile) / u128::from(all)) as u64;
        let (key, _) = threshold_key(&counts, share.max(1));
        let start = key.saturating_sub(WINDOW / 2).min(BINS - WINDOW);
        start..start + WINDOW
    }

    fn end_leading(&mut self) -> Stage {
        self.drain();
        self.tallies = Vec::new();
        let (key, left) = threshold_key(&self.totals, self.count);
        self.left = left;
        if !self.order.is_complete() {
            self.threshold = (key as u32) << 16;
            self.totals = vec![0; 1 << 16];
            return Stage::Trailing;
        }
        self.threshold = self.order.magnitude(key);
        match &self.window {
            Some(window) if window.contains(&key) => {
                self.ties = self.windows.iter().map(|w| u64::from(w[key - window.start])).collect();
                self.windows = Vec::new();
                Stage::Done
            }
            _ => {
                self.windows = Vec::new();
                Stage::Ties
            }
        }
    }

    fn count_trailing(&mut self, span: &Span<'_>) {
        let (leading, dtype) = (self.threshold >> 16, span.matrix().dtype);
        // The bin of the threshold holds few weights: gathering them is cheaper than counters per thread.
        let found: Vec<Vec<u16>> = (0..span.len())
            .into_par_iter()
            .map(|i| {
                let mut found = Vec::new();
                for_each_magnitude_run(dtype, span.tile_bytes(i), |run| {
                    found.extend(run.iter().filter(|&&m| m >> 16 == leading).map(|&m| m as u16));
                });
                found
            })
            .collect();
        for low in found.iter().flatten() {
            self.totals[usize::from(*low)] += 1;
        }
    }

    fn end_trailing(&mut self) -> Stage {
        let (low, left) = threshold_key(&self.totals, self.left);
        self.threshold |= low as u32;
        self.left = left;
        Stage::Ties
    }

    fn count_ties(&mut self, span: &Span<'_>) {
        let (threshold, dtype) = (self.threshold, span.matrix().dtype);
        let counts: Vec<u64> = (0..span.len())
            .into_par_iter()
            .map(|i| count_equal(dtype, span.tile_bytes(i), threshold))
            .collect();
        self.ties.extend(counts);
    }

    fn into_selection(self, tiles: usize, weights: u64) -> OutlierSelection {
        let mut left = self.left;
        let mut ties: Vec<u32> = self
            .ties
            .iter()
            .map(|&in_tile| {
                let taken = in_tile.min(left);
                left -= taken;
                taken as u32
            })
            .collect();
        if self.count == 0 {
            ties = vec![0; tiles];
        }
        assert!(ties.len() == tiles && left == 0, "passes did not cover the {weights} weights");
        OutlierSelection { count: self.count, threshold: self.threshold, ties }
    }
}

/// The largest key at or above which at least `count` elements lie, and how many of its own are among the
/// `count` largest.
fn threshold_key(counts: &[u64], count: u64) -> (usize, u64) {
    let mut left = count;
    for (key, &n) in counts.iter().enumerate().rev() {
        if n >= left {
            return (key, left);
        }
        left -= n;
    }
    (0, left)
}

/// The error that names the first weight of `span` that is NaN or infinite.
pub(super) fn first_nonfinite(span: &Span<'_>) -> Error {
    let first = span.tiling().elements(span.tiles()).start;
    let values = to_f32(span.matrix().dtype, span.bytes());
    // The caller counted one in this span.
    let at = values.iter().position(|x| !x.is_finite()).unwrap_or(0);
    Error::NonFinite { index: first + at as u64, value: values.get(at).copied().unwrap_or(f32::NAN) }
}
