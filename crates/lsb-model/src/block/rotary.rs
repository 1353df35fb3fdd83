//! Tables of cosines and sines.

use crate::spec::RotarySpec;
use crate::{Error, Result};
use candle_core::{Device, Tensor};

/// The tables of one kind of layer.
#[derive(Debug)]
pub(crate) struct Rotary {
    spec: RotarySpec,
    /// [positions, rotated / 2].
    cosines: Tensor,
    sines: Tensor,
}

impl Rotary {
    /// Tables for sequences of up to `positions` tokens.
    pub(crate) fn new(spec: &RotarySpec, positions: usize) -> Result<Rotary> {
        let frequencies = spec.frequencies_for(positions);
        // In f32, as the models were trained.
        let angles = (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
        let (mut sines, mut cosines) = (Vec::new(), Vec::new());
        for angle in angles {
            cosines.push(angle.cos() * spec.amplitude);
            sines.push(angle.sin() * spec.amplitude);
        }
        let shape = (positions, frequencies.len());
        let table = |values| Tensor::from_vec(values, shape, &Device::Cpu);
        let failed = || Error::compute("rotary embedding");
        Ok(Rotary {
            spec: spec.clone(),
            cosines: table(cosines).map_err(failed())?,
            sines: table(sines).map_err(failed())?,
        })
    }

    /// Bytes of the tables.
    pub(crate) fn bytes(spec: &RotarySpec, positions: usize) -> u64 {
        4 * (spec.width() * positions) as u64
    }

    pub(crate) fn is_for(&self, spec: &RotarySpec) -> bool {
        self.spec == *spec
    }

    /// Rotates heads `x`, [heads, tokens, width], whose first token is at position `first`; where gradients are wanted,
    /// the slow way that has some.
    pub(crate) fn apply(&self, x: &Tensor, first: usize, slow: bool) -> candle_core::Result<Tensor> {
        let (_, tokens, width) = x.dims3()?;
        let (cosines, sines) = (self.cosines.narrow(0, first, tokens)?, self.sines.narrow(0, first, tokens)?);
        let rotated = self.spec.width();
        let rope = |x: &Tensor| {
            let x = x.unsqueeze(0)?;
            let turned = match slow {
                true => candle_nn::rotary_emb::rope_slow(&x, &cosines, &sines),
                false => candle_nn::rotary_emb::rope(&x, &cosines, &sines),
            };
            turned?.squeeze(0)
        };
        if rotated == width {
            return rope(x);
        }
        let turned = rope(&x.narrow(2, 0, rotated)?.contiguous()?)?;
        Tensor::cat(&[&turned, &x.narrow(2, rotated, width - rotated)?], 2)
    }
}
