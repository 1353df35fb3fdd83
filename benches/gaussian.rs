//! Seeded Gaussian weights, the same on every run.

/// Independent weights of mean 0 and variance 1.
pub fn gaussian(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    // SplitMix64; the top 53 bits as a number in (0, 1].
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 11) as f64 / (1u64 << 53) as f64 + 1.0 / (1u64 << 54) as f64
    };
    let mut out = Vec::with_capacity(count + 1);
    while out.len() < count {
        // Box and Muller.
        let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), std::f64::consts::TAU * uniform());
        out.push((radius * angle.cos()) as f32);
        out.push((radius * angle.sin()) as f32);
    }
    out.truncate(count);
    out
}

/// The same as bf16 bytes, rounded to nearest even.
pub fn gaussian_bf16(seed: u64, count: usize) -> Vec<u8> {
    let round = |x: f32| {
        let bits = x.to_bits();
        ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
    };
    gaussian(seed, count).into_iter().flat_map(|x| round(x).to_le_bytes()).collect()
}
