//! The search for each group's range, and the rounding.

use super::RoundToNearest;
use crate::codec::sums::largest_magnitude;
use crate::scale::{TileExponent, to_half};
use crate::{EncodedTile, Result, TileEncoder, to_f32_into};
use half::f16;
use lsb_format::{DType, Tile, bits};

#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) codec: RoundToNearest,
    pub(super) dtype: DType,
}

/// A group's levels: `(q - zero) * scale`.
#[derive(Clone, Copy, Debug)]
struct Levels {
    scale: f16,
    zero: f32,
    top: f32,
}

impl TileEncoder for Encoder {
    fn encode_tile(&self, tile: &Tile, bytes: &[u8], out: &mut EncodedTile) -> Result<()> {
        let mut weights = vec![0.0; tile.weights()];
        to_f32_into(self.dtype, bytes, &mut weights);
        let exponent = TileExponent::of_magnitude(largest_magnitude(&weights)?);
        exponent.divide_all(&mut weights);

        let (b, cols) = (self.codec.bits, tile.cols as usize);
        let width = self.codec.group.width(cols);
        let groups = self.codec.group.in_tile(tile);
        let mut zeros = Vec::with_capacity(groups);
        let mut codes = Vec::with_capacity(weights.len());
        let buffer = out.buffer();
        buffer.extend_from_slice(&exponent.to_le_bytes());
        for row in weights.chunks(cols.max(1)) {
            for group in row.chunks(width) {
                let levels = self.search(group);
                buffer.extend_from_slice(&levels.scale.to_le_bytes());
                zeros.push(levels.zero as u8);
                codes.extend(group.iter().map(|&w| levels.code(w) as u8));
            }
        }
        if !self.codec.symmetric {
            bits::pack(&zeros, b, buffer);
        }
        bits::pack(&codes, b, buffer);
        out.end_part();
        Ok(())
    }
}

/// Steps of the search over the share of the range that is kept.
const COARSE: usize = 11;
/// Distance between coarse steps; the finest distance is a quarter of it.
const STEP: f32 = 0.06;

impl Encoder {
    /// The levels of least squared error among ranges shrunk from the group's own.
    fn search(&self, group: &[f32]) -> Levels {
        let (mut low, mut high) = (0.0f32, 0.0f32);
        for &w in group {
            low = if w < low { w } else { low };
            high = if w > high { w } else { high };
        }
        let try_share = |share: f32| {
            let levels = self.levels(low * share, high * share);
            (levels.error(group), levels)
        };
        let mut best = (try_share(1.0), 1.0f32);
        let consider = |share: f32, best: &mut ((f32, Levels), f32)| {
            let tried = try_share(share);
            if tried.0 < best.0.0 {
                *best = (tried, share);
            }
        };
        for i in 1..COARSE {
            consider(1.0 - STEP * i as f32, &mut best);
        }
        for step in [STEP / 2.0, STEP / 4.0] {
            let center = best.1;
            consider(center - step, &mut best);
            consider(center + step, &mut best);
        }
        best.0.1
    }

    fn levels(&self, low: f32, high: f32) -> Levels {
        let top = ((1u32 << self.codec.bits) - 1) as f32;
        if self.codec.symmetric {
            let reach = high.max(-low);
            return Levels { scale: to_half(f64::from(2.0 * reach / top)), zero: top / 2.0, top };
        }
        let scale = to_half(f64::from((high - low) / top));
        let step = scale.to_f32();
        let zero = if step > 0.0 { round(-low / step).clamp(0.0, top) } else { 0.0 };
        Levels { scale, zero, top }
    }
}

impl Levels {
    /// Level of a weight: 0 to `top`.
    #[inline(always)]
    fn code_by(&self, w: f32, inverse: f32) -> f32 {
        let q = round(w * inverse + self.zero);
        let q = if q < 0.0 { 0.0 } else { q };
        if q > self.top { self.top } else { q }
    }

    fn code(&self, w: f32) -> f32 {
        self.code_by(w, self.inverse())
    }

    fn inverse(&self) -> f32 {
        let step = self.scale.to_f32();
        if step > 0.0 { 1.0 / step } else { 0.0 }
    }

    /// Squared error of a group, summed in sixteen lanes.
    fn error(&self, group: &[f32]) -> f32 {
        const LANES: usize = 16;
        let (step, inverse) = (self.scale.to_f32(), self.inverse());
        let mut lanes = [0.0f32; LANES];
        let (chunks, rest) = group.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, &w) in lanes.iter_mut().zip(chunk) {
                let e = w - (self.code_by(w, inverse) - self.zero) * step;
                *lane += e * e;
            }
        }
        for (lane, &w) in lanes.iter_mut().zip(rest) {
            let e = w - (self.code_by(w, inverse) - self.zero) * step;
            *lane += e * e;
        }
        lanes.iter().sum()
    }
}

/// To the nearest integer, ties to even, for magnitudes below 2^22. Adding and taking away 1.5 * 2^23 leaves
/// no room for a fraction, and vectorises where a call to `round` does not.
#[inline(always)]
fn round(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (x.clamp(-4_000_000.0, 4_000_000.0) + MAGIC) - MAGIC
}
