//! Activations of feed-forward blocks, in place.

use crate::spec::Activation;
use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Tensor};
use rayon::prelude::*;

/// Values per piece of parallel work.
const PIECE: usize = 1 << 13;

impl Activation {
    /// A new tensor, in operations that have gradients.
    pub(super) fn differentiable(self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Activation::Silu => x.silu(),
            Activation::Gelu => x.gelu_erf(),
            Activation::GeluTanh => x.gelu(),
            Activation::Relu => x.relu(),
        }
    }

    fn apply(self, values: &mut [f32]) {
        // One loop per kind, so that the choice is made once.
        match self {
            Activation::Silu => values.iter_mut().for_each(|x| *x /= 1.0 + (-*x).exp()),
            Activation::Gelu => values.iter_mut().for_each(|x| {
                let x64 = f64::from(*x);
                *x = (0.5
                    * x64
                    * (1.0 + candle_core::cpu::erf::erf_f64(x64 * std::f64::consts::FRAC_1_SQRT_2)))
                    as f32;
            }),
            Activation::GeluTanh => values.iter_mut().for_each(|x| {
                // sqrt(2 / pi)
                let inner = 0.797_884_6 * *x * (1.0 + 0.044_715 * *x * *x);
                *x = 0.5 * *x * (1.0 + inner.tanh());
            }),
            Activation::Relu => values.iter_mut().for_each(|x| *x = x.max(0.0)),
        }
    }
}

fn values<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> candle_core::Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        _ => candle_core::bail!("activations are contiguous f32"),
    }
}

/// `x = act(x)`.
impl InplaceOp1 for Activation {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        values(storage, layout)?.par_chunks_mut(PIECE).for_each(|piece| self.apply(piece));
        Ok(())
    }
}

/// `x = act(x) * up`.
impl InplaceOp2 for Activation {
    fn name(&self) -> &'static str {
        "gated activation"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        xl: &Layout,
        up: &CpuStorage,
        ul: &Layout,
    ) -> candle_core::Result<()> {
        let x = values(x, xl)?;
        let (CpuStorage::F32(up), Some((start, end))) = (up, ul.contiguous_offsets()) else {
            candle_core::bail!("activations are contiguous f32");
        };
        if end - start != x.len() {
            candle_core::bail!("{} gates and {} ups", x.len(), end - start);
        }
        x.par_chunks_mut(PIECE).zip(up[start..end].par_chunks(PIECE)).for_each(|(x, up)| {
            self.apply(x);
            x.iter_mut().zip(up).for_each(|(x, up)| *x *= up);
        });
        Ok(())
    }
}
