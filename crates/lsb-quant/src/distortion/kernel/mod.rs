//! The inner loop of [`super::Distortion::measure`], chosen for the CPU at run time.
//!
//! All kernels sum the same lanes in the same order without fusing, so they agree bit for bit.

mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86_64;

/// Lanes summed side by side: a multiple of every vector width.
pub(super) const LANES: usize = 16;

/// Lane sums of w, q, w², q², w q, (w-q)² and |w-q|, and lane extremes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Lanes {
    pub(super) sums: [[f32; LANES]; 7],
    pub(super) max_abs: [f32; LANES],
    pub(super) low: [f32; LANES],
    pub(super) high: [f32; LANES],
}

/// Sums a block of originals and decoded values.
pub(super) type Kernel = fn(&[[f32; LANES]], &[[f32; LANES]]) -> Lanes;

/// The fastest kernel this CPU runs. `LSB_ISA=scalar` forces the reference.
pub(super) fn best() -> Kernel {
    static BEST: std::sync::OnceLock<Kernel> = std::sync::OnceLock::new();
    *BEST.get_or_init(|| {
        let kernel: Kernel = scalar::block;
        if std::env::var_os("LSB_ISA").is_some_and(|isa| isa == "scalar") {
            return kernel;
        }
        #[cfg(target_arch = "x86_64")]
        let kernel = x86_64::avx2().unwrap_or(kernel);
        kernel
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_kernels_match_scalar(values in prop::collection::vec((any::<f32>(), any::<f32>()), 0..200)) {
            let (w, q): (Vec<f32>, Vec<f32>) = values.into_iter().unzip();
            let (w, q) = (w.as_chunks().0, q.as_chunks().0);
            let bits = |l: Lanes| {
                let sums = l.sums.as_flattened().to_vec();
                let all = [sums.as_slice(), &l.max_abs, &l.low, &l.high].concat();
                // Which NaN comes out of an operation is not specified.
                all.into_iter().map(|x| if x.is_nan() { 1 } else { x.to_bits() }).collect::<Vec<u32>>()
            };
            prop_assert_eq!(bits(best()(w, q)), bits(scalar::block(w, q)));
        }
    }
}
