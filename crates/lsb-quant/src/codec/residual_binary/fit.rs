//! The planes of one group: alphas and the level of every weight.

/// Most planes.
pub(super) const MAX_PLANES: usize = 8;

/// Rounds of refinement; on Gaussian and trained weights a ninth changes the error by less than 1e-3 of it.
const ROUNDS: usize = 8;

/// Alphas from large to small, and for every weight its signs: bit `p` set where plane `p` is positive.
#[derive(Clone, Debug)]
pub(super) struct Fit {
    pub(super) alphas: [f64; MAX_PLANES],
    pub(super) codes: Vec<u8>,
}

/// Fits `k` planes to `weights`.
pub(super) fn fit(weights: &[f32], k: usize, refine: bool) -> Fit {
    let mut alphas = looped_passes(weights, k);
    if refine && k > 1 {
        for _ in 0..ROUNDS {
            let levels = Levels::of(&alphas, k);
            let sums = levels.sums(weights);
            let Some(next) = least_squares(&levels, &sums, k) else { break };
            let settled = (0..k).all(|p| (next[p] - alphas[p]).abs() <= 1e-6 * next[0]);
            alphas = next;
            if settled {
                break;
            }
        }
    }
    let levels = Levels::of(&alphas, k);
    let codes = weights.iter().map(|&w| levels.codes[levels.nearest(w)]).collect();
    Fit { alphas, codes }
}

/// Codes for alphas that were rounded after fitting.
pub(super) fn codes(weights: &[f32], alphas: &[f64; MAX_PLANES], k: usize, out: &mut Vec<u8>) {
    let levels = Levels::of(alphas, k);
    out.extend(weights.iter().map(|&w| levels.codes[levels.nearest(w)]));
}

/// One plane after the other: the mean magnitude of what is left, then what is left of that.
fn looped_passes(weights: &[f32], k: usize) -> [f64; MAX_PLANES] {
    let mut alphas = [0.0; MAX_PLANES];
    let mut residual = weights.to_vec();
    for alpha in &mut alphas[..k] {
        *alpha = crate::codec::sums::sum_of_magnitudes(&residual) / weights.len().max(1) as f64;
        let a = *alpha as f32;
        residual.iter_mut().for_each(|r| *r -= if *r < 0.0 { -a } else { a });
    }
    alphas
}

/// The `2^k` sums of signed alphas in increasing order, with the code of each and the middles between them.
struct Levels {
    n: usize,
    values: [f64; 256],
    middles: [f32; 255],
    codes: [u8; 256],
}

impl Levels {
    fn of(alphas: &[f64; MAX_PLANES], k: usize) -> Self {
        let n = 1 << k;
        let mut order: Vec<(f64, u8)> = (0..n)
            .map(|code| {
                let sign = |p: usize| if code >> p & 1 == 1 { 1.0 } else { -1.0 };
                ((0..k).map(|p| sign(p) * alphas[p]).sum(), code as u8)
            })
            .collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut out = Levels { n, values: [0.0; 256], middles: [f32::INFINITY; 255], codes: [0; 256] };
        for (i, (value, code)) in order.into_iter().enumerate() {
            out.values[i] = value;
            out.codes[i] = code;
            if i > 0 {
                out.middles[i - 1] = (0.5 * (out.values[i - 1] + value)) as f32;
            }
        }
        out
    }

    /// Position of the nearest level, the lower of two equally near.
    #[inline]
    fn nearest(&self, w: f32) -> usize {
        // Halving steps without branches: the position is the number of middles below the weight.
        let mut at = 0;
        let mut step = self.n / 2;
        while step > 0 {
            at += if w > self.middles[at + step - 1] { step } else { 0 };
            step /= 2;
        }
        at
    }

    /// For every level, how many weights are nearest to it, and their sum.
    fn sums(&self, weights: &[f32]) -> Vec<(u32, f64)> {
        let mut sums = vec![(0, 0.0); self.n];
        for &w in weights {
            let s = &mut sums[self.nearest(w)];
            s.0 += 1;
            s.1 += f64::from(w);
        }
        sums
    }
}

/// Alphas of least squared error for weights assigned to levels, made non-negative and sorted; `None` where
/// they are not determined.
fn least_squares(levels: &Levels, sums: &[(u32, f64)], k: usize) -> Option<[f64; MAX_PLANES]> {
    // Normal equations: a[p][q] = sum of sign_p sign_q, b[p] = sum of sign_p w.
    let mut a = [[0.0f64; MAX_PLANES]; MAX_PLANES];
    let mut b = [0.0f64; MAX_PLANES];
    let sign = |code: u8, p: usize| if code >> p & 1 == 1 { 1.0 } else { -1.0 };
    for (i, &(n, sum)) in sums.iter().enumerate() {
        let code = levels.codes[i];
        for p in 0..k {
            b[p] += sign(code, p) * sum;
            for q in 0..k {
                a[p][q] += sign(code, p) * sign(code, q) * f64::from(n);
            }
        }
    }
    // Cholesky factor in place; a pivot near zero means that two planes agree everywhere.
    for p in 0..k {
        for q in 0..=p {
            let dot: f64 = (0..q).map(|j| a[p][j] * a[q][j]).sum();
            let rest = a[p][q] - dot;
            if p == q {
                if rest <= 1e-9 * a[0][0].max(1.0) {
                    return None;
                }
                a[p][p] = rest.sqrt();
            } else {
                a[p][q] = rest / a[q][q];
            }
        }
    }
    let mut x = [0.0; MAX_PLANES];
    for p in 0..k {
        let dot: f64 = (0..p).map(|j| a[p][j] * x[j]).sum();
        x[p] = (b[p] - dot) / a[p][p];
    }
    for p in (0..k).rev() {
        let dot: f64 = (p + 1..k).map(|j| a[j][p] * x[j]).sum();
        x[p] = (x[p] - dot) / a[p][p];
    }
    x[..k].iter_mut().for_each(|v| *v = v.abs());
    x[..k].sort_by(|p, q| q.total_cmp(p));
    Some(x)
}
