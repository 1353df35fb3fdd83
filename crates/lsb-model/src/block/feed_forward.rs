//! Feed-forward blocks.

use super::Pass;
use crate::spec::{FeedForwardSpec, InnerSpec};
use crate::{Error, Result};
use candle_core::Tensor;

/// The block for inputs `x`, [tokens, hidden], normed already.
pub(super) fn run(spec: &FeedForwardSpec, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
    let failed = || Error::compute(&spec.down.tensor);
    if pass.tape.is_some() {
        return differentiable(spec, x, pass);
    }
    let inner = match &spec.inner {
        InnerSpec::Plain(map) => {
            let inner = pass.map(map, x)?;
            inner.inplace_op1(&spec.activation).map_err(failed())?;
            inner
        }
        InnerSpec::Gated { gate, up } => {
            let inner = pass.map(gate, x)?;
            inner.inplace_op2(&pass.map(up, x)?, &spec.activation).map_err(failed())?;
            inner
        }
        InnerSpec::Fused(map) => {
            let both = pass.map(map, x)?;
            let width = spec.down.inputs;
            // Of a single token, a half is a view of both: the one that is changed must be a copy.
            let inner = both.narrow(1, 0, width).and_then(|x| x.copy()?.contiguous()).map_err(failed())?;
            let up = both.narrow(1, width, width).and_then(|x| x.contiguous()).map_err(failed())?;
            inner.inplace_op2(&up, &spec.activation).map_err(failed())?;
            inner
        }
    };
    pass.map(&spec.down, &inner)
}

/// The same in operations that have gradients.
fn differentiable(spec: &FeedForwardSpec, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
    let failed = || Error::compute(&spec.down.tensor);
    let inner = match &spec.inner {
        InnerSpec::Plain(map) => spec.activation.differentiable(&pass.map(map, x)?),
        InnerSpec::Gated { gate, up } => {
            let gate = spec.activation.differentiable(&pass.map(gate, x)?).map_err(failed())?;
            gate * pass.map(up, x)?
        }
        InnerSpec::Fused(map) => {
            let both = pass.map(map, x)?;
            let width = spec.down.inputs;
            let half = |start| both.narrow(1, start, width).and_then(|x| x.contiguous());
            let gate = half(0).and_then(|x| spec.activation.differentiable(&x)).map_err(failed())?;
            gate * half(width).map_err(failed())?
        }
    };
    pass.map(&spec.down, &inner.map_err(failed())?)
}
