//! One run of one tensor: read both sides, compare bits where both are exact, values everywhere else.

use super::Pair;
use lsb_quant::{Distortion, to_f32_into};
use lsb_stream::{Result, Scratch};
use std::ops::Range;

/// Buffers of one run, used again and again.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) original: Vec<f32>,
    pub(super) decoded: Vec<f32>,
    original_bytes: Vec<u8>,
    decoded_bytes: Vec<u8>,
    scratch: [Scratch; 2],
}

/// What comparing one run found.
#[derive(Clone, Debug)]
pub(super) struct RunResult {
    pub(super) run: Range<u64>,
    /// Over the pairs that are finite on both sides.
    pub(super) distortion: Distortion,
    /// First element whose bits differ, where bits were compared.
    pub(super) first_difference: Option<u64>,
    /// Elements that are NaN or infinite on a side.
    pub(super) nonfinite: u64,
    /// Of those, how many are not the same on the other side.
    pub(super) nonfinite_lost: u64,
}

impl Slot {
    /// Bytes this grows to for runs of `elements` of `pair`.
    pub(super) fn bytes(pair: &Pair<'_>, elements: u64) -> u64 {
        let exact = if pair.by_bits { 2 * pair.facts[0].dtype.bits().div_ceil(8) } else { 0 };
        let values = if pair.is_float { 8 } else { 0 };
        let scratch: u64 = pair.sides.iter().map(|s| s.scratch_bytes()).sum();
        elements.saturating_mul(exact + values).saturating_add(scratch)
    }

    /// Bytes this has grown to.
    pub(super) fn held_bytes(&self) -> u64 {
        let values = size_of::<f32>() * (self.original.capacity() + self.decoded.capacity());
        let bytes = self.original_bytes.capacity() + self.decoded_bytes.capacity();
        (values + bytes) as u64 + self.scratch.iter().map(Scratch::held_bytes).sum::<u64>()
    }

    /// Reads and compares one run.
    pub(super) fn compare(&mut self, pair: &Pair<'_>, run: Range<u64>) -> Result<RunResult> {
        let n = (run.end - run.start) as usize;
        let mut first_difference = None;
        let [a, b] = &mut self.scratch;
        if pair.is_float {
            self.original.resize(n, 0.0);
            self.decoded.resize(n, 0.0);
        }
        if pair.by_bits {
            let dtype = pair.facts[0].dtype;
            // The number of elements is the source's own: its bytes were counted when it was opened.
            let bytes = (n as u64 * dtype.bits()).div_ceil(8) as usize;
            self.original_bytes.resize(bytes, 0);
            self.decoded_bytes.resize(bytes, 0);
            pair.sides[0].read_exact(run.clone(), &mut self.original_bytes, a)?;
            pair.sides[1].read_exact(run.clone(), &mut self.decoded_bytes, b)?;
            if self.original_bytes != self.decoded_bytes {
                let same = self.original_bytes.iter().zip(&self.decoded_bytes).take_while(|(x, y)| x == y);
                first_difference = Some(run.start + same.count() as u64 * 8 / dtype.bits());
            }
            if pair.is_float {
                to_f32_into(dtype, &self.original_bytes, &mut self.original);
                to_f32_into(dtype, &self.decoded_bytes, &mut self.decoded);
            }
        } else {
            pair.sides[0].read_f32(run.clone(), &mut self.original, a)?;
            pair.sides[1].read_f32(run.clone(), &mut self.decoded, b)?;
        }
        let mut out = RunResult {
            run,
            distortion: Distortion::default(),
            first_difference,
            nonfinite: 0,
            nonfinite_lost: 0,
        };
        if pair.is_float {
            measure(&self.original, &self.decoded, &mut out);
        }
        Ok(out)
    }
}

fn measure(original: &[f32], decoded: &[f32], out: &mut RunResult) {
    let finite = |(w, q): &(&f32, &f32)| w.is_finite() && q.is_finite();
    if original.iter().zip(decoded).all(|pair| finite(&pair)) {
        out.distortion = Distortion::measure(original, decoded);
        return;
    }
    let pairs = || original.iter().zip(decoded);
    for (w, q) in pairs().filter(|pair| !finite(pair)) {
        out.nonfinite += 1;
        out.nonfinite_lost += u64::from(w != q && !(w.is_nan() && q.is_nan()));
    }
    // Rare, so it may allocate: the sums must not meet a NaN.
    let (w, q): (Vec<f32>, Vec<f32>) = pairs().filter(finite).map(|(&w, &q)| (w, q)).unzip();
    out.distortion = Distortion::measure(&w, &q);
}
