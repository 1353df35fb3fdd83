//! Seeded inputs shared by the benchmarks: the same bytes on every machine and in every run.

/// A small generator of reproducible 64-bit values (xorshift64*). Not for anything but benchmarks.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator for this seed.
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(2).wrapping_add(1))
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Uniform in 0..1.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normally distributed with mean 0 and variance 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

/// `n` weights drawn from a normal distribution with this standard deviation.
pub fn normal_weights(seed: u64, n: usize, sigma: f64) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..n).map(|_| (random.normal() * sigma) as f32).collect()
}

/// Weights as little-endian bf16, rounded to nearest even.
pub fn bf16_bytes(weights: &[f32]) -> Vec<u8> {
    let round = |w: f32| {
        let bits = w.to_bits();
        ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
    };
    weights.iter().flat_map(|&w| round(w).to_le_bytes()).collect()
}

/// Weights as little-endian f32.
pub fn f32_bytes(weights: &[f32]) -> Vec<u8> {
    weights.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// `n` symbols 0 to 255: weights of a normal distribution around 128, rounded, with this spread.
pub fn bell_symbols(seed: u64, n: usize, sigma: f64) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..n).map(|_| (random.normal() * sigma + 128.0).round() as u8).collect()
}

/// Increasing positions below `bound`, each taken with probability `share`.
pub fn positions(seed: u64, bound: u32, share: f64) -> Vec<u32> {
    let mut random = Random::new(seed);
    (0..bound).filter(|_| random.uniform() < share).collect()
}
