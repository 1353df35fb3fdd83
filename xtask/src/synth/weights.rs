//! Random weights that look like trained ones, as fast as a disk takes them.

use super::arguments::Element;
use half::{bf16, f16};

/// Points of the table of quantiles.
const POINTS: usize = 1 << 16;

/// Elements that one counter produces; a run of a tensor always starts at a multiple of it.
pub(super) const BLOCK: usize = 1024;

/// What the weights of a tensor look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fill {
    mean: f32,
    /// Standard deviation over the whole tensor, up to the spread of the scales.
    deviation: f32,
    /// Spread of the scales of rows and columns: 0 is all alike.
    spread: f32,
}

impl Fill {
    /// A linear map over `columns` inputs, whose outputs are about as large as its inputs.
    pub fn linear(columns: u64) -> Self {
        Fill { mean: 0.0, deviation: 0.9 / (columns as f32).sqrt(), spread: 0.5 }
    }

    /// An embedding table.
    pub fn embedding() -> Self {
        Fill { mean: 0.0, deviation: 0.02, spread: 0.3 }
    }

    /// Gains of a normalisation layer: near one.
    pub fn norm() -> Self {
        Fill { mean: 1.0, deviation: 0.08, spread: 0.0 }
    }

    /// All bytes of one small tensor.
    pub fn bytes(
        self,
        distribution: &Distribution,
        seed: u64,
        name: &str,
        shape: &[u64],
        element: Element,
    ) -> Vec<u8> {
        let mut out = vec![0; shape.iter().product::<u64>() as usize * element.size()];
        Generator::new(distribution, seed, name, shape, self).write(0, element, &mut out);
        out
    }
}

/// Quantiles of the Student-t distribution with 5 degrees of freedom, scaled to variance one.
#[derive(Clone, Debug)]
pub struct Distribution {
    /// `quantiles[i]` belongs to probability `(i + 0.5) / POINTS`, and one more for interpolation.
    quantiles: Vec<f32>,
}

impl Default for Distribution {
    fn default() -> Self {
        Self::student_t5()
    }
}

impl Distribution {
    /// The table, by integration of the density, which is a rational function: only the four operations decide it, so
    /// it is the same everywhere.
    pub fn student_t5() -> Self {
        // density(x) is proportional to (1 + x²/5)^-3; its variance is 5/3.
        const STEPS: usize = 1 << 21;
        const LIMIT: f64 = 64.0;
        let density = |x: f64| {
            let y = 1.0 + x * x / 5.0;
            1.0 / (y * y * y)
        };
        let width = LIMIT / STEPS as f64;
        let half: f64 = (0..STEPS).map(|k| density((k as f64 + 0.5) * width) * width).sum();
        let scale = (3.0f64 / 5.0).sqrt();
        let mut upper = Vec::with_capacity(POINTS / 2);
        let (mut mass, mut k) = (0.0, 0);
        for i in 0..POINTS / 2 {
            // Share of the upper half below this point.
            let target = (i as f64 + 0.5) / (POINTS / 2) as f64 * half;
            let mut step = density((k as f64 + 0.5) * width) * width;
            while mass + step < target && k + 1 < STEPS {
                mass += step;
                k += 1;
                step = density((k as f64 + 0.5) * width) * width;
            }
            upper.push((((k as f64 + (target - mass) / step) * width) * scale) as f32);
        }
        let mut quantiles: Vec<f32> = upper.iter().rev().map(|x| -x).chain(upper.iter().copied()).collect();
        quantiles.extend(quantiles.last().copied());
        Distribution { quantiles }
    }

    /// The value of 32 random bits: 16 choose a quantile, 16 a place between it and the next.
    #[inline]
    fn value(&self, bits: u32) -> f32 {
        let i = (bits >> 16) as usize;
        let (low, high) = (self.quantiles[i], self.quantiles[i + 1]);
        low + (high - low) * ((bits & 0xffff) as f32 * (1.0 / 65536.0))
    }
}

/// A generator for one tensor: any run of its elements can be made on its own.
pub(super) struct Generator<'a> {
    distribution: &'a Distribution,
    key: u64,
    fill: Fill,
    columns: u64,
    column_scales: Vec<f32>,
}

impl<'a> Generator<'a> {
    pub(super) fn new(
        distribution: &'a Distribution,
        seed: u64,
        name: &str,
        shape: &[u64],
        fill: Fill,
    ) -> Self {
        let hash = blake3::keyed_hash(&seed_key(seed), name.as_bytes());
        let key = hash.as_bytes().first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        let columns = shape.last().copied().unwrap_or(1).max(1);
        let column_scales = (0..columns).map(|c| scale(key ^ 0x636f_6c75, c, fill.spread)).collect();
        Generator { distribution, key, fill, columns, column_scales }
    }

    /// Writes elements `first..` of the tensor into `out`, whose length gives how many. `first` is a multiple of
    /// [`BLOCK`].
    pub(super) fn write(&self, first: u64, element: Element, out: &mut [u8]) {
        let mut values = [0.0f32; BLOCK];
        for (i, bytes) in out.chunks_mut(BLOCK * element.size()).enumerate() {
            let values = &mut values[..bytes.len() / element.size()];
            self.values(first + (i * BLOCK) as u64, values);
            match element {
                Element::Bf16 => store(values, bytes, |v| bf16::from_f32(v).to_le_bytes()),
                Element::F16 => store(values, bytes, |v| f16::from_f32(v).to_le_bytes()),
                Element::F32 => store(values, bytes, f32::to_le_bytes),
            }
        }
    }

    fn values(&self, first: u64, out: &mut [f32]) {
        let start = self.key ^ first.wrapping_mul(0xd1b5_4a32_d192_ed03);
        for (i, pair) in out.chunks_mut(2).enumerate() {
            let bits = mix(start.wrapping_add((i as u64).wrapping_mul(GOLDEN)));
            for (v, bits) in pair.iter_mut().zip([(bits >> 32) as u32, bits as u32]) {
                *v = self.distribution.value(bits);
            }
        }
        // Scales are applied run by run, each run inside one row.
        let mut at = 0;
        while at < out.len() {
            let (row, column) = ((first + at as u64) / self.columns, (first + at as u64) % self.columns);
            let n = (out.len() - at).min((self.columns - column) as usize);
            let row_scale = self.fill.deviation * scale(self.key, row, self.fill.spread);
            let scales = &self.column_scales[column as usize..column as usize + n];
            for (v, s) in out[at..at + n].iter_mut().zip(scales) {
                *v = self.fill.mean + *v * (row_scale * s);
            }
            at += n;
        }
    }
}

fn store<const N: usize>(values: &[f32], bytes: &mut [u8], encode: impl Fn(f32) -> [u8; N]) {
    for (out, &v) in bytes.as_chunks_mut::<N>().0.iter_mut().zip(values) {
        *out = encode(v);
    }
}

fn seed_key(seed: u64) -> [u8; 32] {
    *blake3::hash(&seed.to_le_bytes()).as_bytes()
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of SplitMix64: a counter in, independent bits out.
#[inline]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A positive scale with mean one: `1 + spread * u`, u the sum of two uniforms on [-1, 1]; rarely three times that,
/// as trained models have a few large channels.
fn scale(key: u64, index: u64, spread: f32) -> f32 {
    let bits = mix(key.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN)));
    let uniform = |bits: u64| (bits & 0xffff) as f32 / 32768.0 - 1.0;
    let s = 1.0 + spread * 0.8 * (uniform(bits) + uniform(bits >> 16));
    if spread > 0.0 && bits >> 56 == 0 { 3.0 * s } else { s }
}
