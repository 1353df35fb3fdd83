//! The reference. Written so that the compiler can put lanes side by side for whatever CPU it compiles for.

use super::{LANES, Lanes};

#[inline(always)]
pub(super) fn block(original: &[[f32; LANES]], decoded: &[[f32; LANES]]) -> Lanes {
    let mut l = Lanes {
        sums: [[0.0; LANES]; 7],
        max_abs: [0.0; LANES],
        low: [f32::INFINITY; LANES],
        high: [f32::NEG_INFINITY; LANES],
    };
    for (w, q) in original.iter().zip(decoded) {
        for i in 0..LANES {
            let e = w[i] - q[i];
            let size = e.abs();
            l.sums[0][i] += w[i];
            l.sums[1][i] += q[i];
            l.sums[2][i] += w[i] * w[i];
            l.sums[3][i] += q[i] * q[i];
            l.sums[4][i] += w[i] * q[i];
            l.sums[5][i] += e * e;
            l.sums[6][i] += size;
            l.max_abs[i] = if size > l.max_abs[i] { size } else { l.max_abs[i] };
            l.low[i] = if w[i] < l.low[i] { w[i] } else { l.low[i] };
            l.high[i] = if w[i] > l.high[i] { w[i] } else { l.high[i] };
        }
    }
    l
}
