//! Encoding one tile, plane by plane.

use super::ResidualBinary;
use super::fit::{MAX_PLANES, codes, fit};
use crate::codec::bitstream::BitWriter;
use crate::codec::signs;
use crate::codec::sums::largest_magnitude;
use crate::scale::{TileExponent, to_half};
use crate::{EncodedTile, Result, TileEncoder, to_f32_into};
use half::f16;
use lsb_format::{DType, Tile};

#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) codec: ResidualBinary,
    pub(super) dtype: DType,
}

impl TileEncoder for Encoder {
    fn encode_tile(&self, tile: &Tile, bytes: &[u8], out: &mut EncodedTile) -> Result<()> {
        let mut weights = vec![0.0; tile.weights()];
        to_f32_into(self.dtype, bytes, &mut weights);
        let exponent = TileExponent::of_magnitude(largest_magnitude(&weights)?);
        exponent.divide_all(&mut weights);

        let k = usize::from(self.codec.planes);
        let cols = (tile.cols as usize).max(1);
        let width = self.codec.group.width(cols);
        let mut alphas: Vec<Vec<f16>> = vec![Vec::new(); k];
        let mut all_codes = Vec::with_capacity(weights.len());
        for row in weights.chunks(cols) {
            for group in row.chunks(width) {
                let fitted = fit(group, k, self.codec.error_compensation);
                let halves = fitted.alphas.map(to_half);
                (0..k).for_each(|p| alphas[p].push(halves[p]));
                if self.codec.error_compensation {
                    // Nearest to the levels a decoder will have, not to those before rounding.
                    codes(group, &halves.map(|a| f64::from(a.to_f32())), k, &mut all_codes);
                } else {
                    all_codes.extend_from_slice(&fitted.codes);
                }
            }
        }
        let factors = self.factors(&weights, &all_codes, &alphas, cols, width);
        for p in 0..k {
            let buffer = out.buffer();
            if p == 0 {
                buffer.extend_from_slice(&exponent.to_le_bytes());
            }
            buffer.extend_from_slice(&factors[p].to_le_bytes());
            alphas[p].iter().for_each(|a| buffer.extend_from_slice(&a.to_le_bytes()));
            let mut plane = BitWriter::new(buffer);
            let (chunks, rest) = all_codes.as_chunks::<32>();
            for chunk in chunks {
                plane.push(signs::gather_bits(&chunk.map(|c| c >> p & 1)), 32);
            }
            for c in rest {
                plane.push(u32::from(c >> p & 1), 1);
            }
            plane.finish();
            out.end_part();
        }
        Ok(())
    }
}

impl Encoder {
    /// For every plane, the factor of least squared error where reading stops after it; 1 after the last.
    fn factors(
        &self,
        weights: &[f32],
        codes: &[u8],
        alphas: &[Vec<f16>],
        cols: usize,
        width: usize,
    ) -> Vec<f16> {
        let k = alphas.len();
        // Per plane: sum of w q and of q² over the tile, where q is the sum of the planes so far.
        let (mut wq, mut qq) = ([0.0f64; MAX_PLANES], [0.0f64; MAX_PLANES]);
        let rows = weights.chunks(cols).zip(codes.chunks(cols));
        let groups = rows.flat_map(|(w, c)| w.chunks(width).zip(c.chunks(width)));
        for (g, (weights, codes)) in groups.enumerate() {
            let alpha: [f32; MAX_PLANES] =
                std::array::from_fn(|p| alphas.get(p).map_or(0.0, |a| a[g].to_f32()));
            // All weights of one code have the same q: only their number and sum matter.
            let mut sums = [(0u32, 0.0f64); 256];
            for (&w, &c) in weights.iter().zip(codes) {
                let s = &mut sums[usize::from(c)];
                s.0 += 1;
                s.1 += f64::from(w);
            }
            for (code, &(n, sum)) in sums.iter().enumerate().take(1 << k) {
                let mut q = 0.0f64;
                for p in 0..k {
                    q += f64::from(if code >> p & 1 == 1 { alpha[p] } else { -alpha[p] });
                    wq[p] += q * sum;
                    qq[p] += q * q * f64::from(n);
                }
            }
        }
        (0..k)
            .map(|p| {
                let best = if p + 1 == k || qq[p] <= 0.0 { 1.0 } else { (wq[p] / qq[p]).clamp(0.0, 4.0) };
                to_half(best)
            })
            .collect()
    }
}
