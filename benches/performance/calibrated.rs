//! What calibration adds: second moments of inputs, their factor, and codecs that feed errors back.

use crate::measure::whole;
use crate::memory::dense;
use crate::tensor::Subject;
use crate::{Bench, Figure, Limit, Outcome, Yardstick};
use candle_core::DType;
use lsb_quant::calibrate::{Calibration, DenseMoments, UpperFactor};
use std::sync::Arc;

pub(crate) fn measure(bench: &mut Bench) -> Outcome {
    let n = if bench.quick { 512 } else { 2048 };
    factor(bench, n)?;
    // Ways through all columns: `gptq` finds codes twice, and fits scales in between with two steps of conjugate gradients, of
    // which each goes through the columns and back.
    for (codec, ways) in [("gptq:4", 6), ("trellis:bpw=3", 1)] {
        feedback(bench, codec, ways, n)?;
    }
    Ok(())
}

/// Second moments of `n` inputs that depend on each other.
fn moments(n: usize) -> Outcome<Vec<f32>> {
    let (noise, mix) = (dense(2 * n, n, DType::F32)?, dense(n, n, DType::F32)?);
    // Half of each input's variance is shared with others.
    let x = ((noise.matmul(&mix)? / (n as f64).sqrt())? + noise)?;
    let sums = (x.t()?.contiguous()?.matmul(&x)? / (2.0 * n as f64))?;
    Ok(sums.flatten_all()?.to_vec1()?)
}

fn factor(bench: &mut Bench, n: usize) -> Outcome {
    let stage = format!("Cholesky factor and its inverse, {n} inputs, 1 thread");
    if !bench.wants(&stage) {
        return Ok(());
    }
    let moments = moments(n)?;
    let (a, b) = (dense(n, n, DType::F64)?, dense(n, n, DType::F64)?);
    let mut contestants = [
        whole(|| bench.one.install(|| UpperFactor::new(&moments, n, 0.01).is_ok())),
        whole(|| bench.one.install(|| a.matmul(&b).is_ok())),
    ];
    let seconds = bench.effort.long().compare(&mut contestants);
    drop(contestants);
    let cube = (n as f64).powi(3);
    bench.row(
        &stage,
        Figure::new(2.0 / 3.0 * cube / seconds[0] / 1e9, "GFLOP/s"),
        Yardstick::Measured(2.0 * cube / seconds[1] / 1e9, "f64 matrix product".to_owned()),
        Limit::None,
        "From moments in f32 to the factor in f32, in f64 between: n³/3 operations for each of the two, beside a product of two \
         matrices of that size.",
    );
    Ok(())
}

/// Encoding with feedback beside the matrix products that are in it, as many as it goes through all columns.
fn feedback(bench: &mut Bench, codec: &str, ways: usize, n: usize) -> Outcome {
    let stage = format!("{codec} calibrated encode, {n} x {n}, 1 thread");
    if !bench.wants(&stage) {
        return Ok(());
    }
    let mut subject = Subject::new(codec, n, n)?;
    subject.statistics.calibration = Some(Calibration {
        inputs: Arc::new(DenseMoments::new(moments(n)?, n)),
        outputs: None,
        relative: false,
    });
    let (a, b) = (dense(n, n / 2, DType::F32)?, dense(n / 2, n, DType::F32)?);
    let product = whole(|| bench.one.install(|| (0..ways).all(|_| a.matmul(&b).is_ok())));
    let seconds = bench.effort.long().compare(&mut [subject.encoding(&bench.one), product]);
    let rate = |s: f64| subject.n_weights() / s / 1e6;
    bench.row(
        &stage,
        Figure::new(rate(seconds[0]), "M weights/s"),
        Yardstick::Measured(rate(seconds[1]), "f32 product of as many operations".to_owned()),
        Limit::AtLeast(1.0 / 1.5),
        "All of encoding but the factor and the plan, which are made before. A way through the columns takes every weight's \
         error to all later ones: as many operations as a product of [n, n/2] with [n/2, n]. `trellis` goes once, `gptq` twice \
         for codes and four times to fit scales in between.",
    );
    Ok(())
}
