//! How far the predictions of two models are apart, and where that falls fastest.

use crate::runner::{GradientTap, Head, MapGradient, Objective, Piece};
use crate::{Error, ModelRunner, NoTap, Result};
use candle_core::{Device, Tensor};
use lsb_stream::ActivationStore;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Logits of one model held at once.
const LOGITS: usize = 1 << 22;

/// What a model says about some windows: its hidden states behind the last norm.
pub(super) struct Teacher<'m> {
    model: &'m ModelRunner,
    /// One slot for each window.
    hidden: ActivationStore,
}

impl<'m> Teacher<'m> {
    /// Runs `model` on `windows`.
    ///
    /// # Errors
    /// If it cannot be run, or its hidden states cannot be kept.
    pub(super) fn new(
        model: &'m ModelRunner,
        windows: &[Vec<u32>],
        interrupt: &AtomicBool,
    ) -> Result<Teacher<'m>> {
        let width = model.spec().hidden;
        let mut batch = model.whole_batch(windows)?;
        while batch.step(&mut NoTap)?.is_some() {
            check(interrupt)?;
        }
        let hidden = model.store(windows.iter().map(|w| w.len() * width).collect())?;
        for (i, chunk) in batch.chunks().into_iter().enumerate() {
            let x = flat(&batch.output(i)?)?;
            for (window, range) in batch.windows().iter().enumerate() {
                if !range.is_empty() && chunk.start <= range.start && range.end <= chunk.end {
                    let at = (range.start - chunk.start) * width;
                    hidden.put(window, &x[at..at + range.len() * width])?;
                }
            }
        }
        Ok(Teacher { model, hidden })
    }

    /// Hidden states of whole windows, one behind the other, [tokens, hidden].
    fn states(&self, windows: &[usize]) -> Result<Tensor> {
        let (mut all, mut one) = (Vec::new(), Vec::new());
        for &window in windows {
            self.hidden.get(window, &mut one)?;
            all.extend_from_slice(&one);
        }
        let width = self.model.spec().hidden;
        let shape = (all.len() / width.max(1), width);
        Tensor::from_vec(all, shape, &Device::Cpu).map_err(failed())
    }
}

fn failed() -> impl FnOnce(candle_core::Error) -> Error {
    Error::compute("predictions of two models")
}

fn flat(x: &Tensor) -> Result<Vec<f32>> {
    x.flatten_all().and_then(|x| x.to_vec1()).map_err(failed())
}

/// Ends the work where that was asked for.
pub(super) fn check(interrupt: &AtomicBool) -> Result<()> {
    match interrupt.load(Ordering::Relaxed) {
        true => Err(lsb_stream::Error::Interrupted.into()),
        false => Ok(()),
    }
}

/// Tokens whose logits are held at once.
fn slices(tokens: usize, vocab: usize) -> impl Iterator<Item = Range<usize>> {
    let step = (LOGITS / vocab.max(1)).max(1);
    (0..tokens).step_by(step).map(move |first| first..(first + step).min(tokens))
}

fn part(x: &Tensor, range: &Range<usize>) -> Result<Tensor> {
    x.narrow(0, range.start, range.len()).and_then(|x| x.contiguous()).map_err(failed())
}

/// Mean divergence of the predictions of `model` from those of the teacher for `windows`, whose numbers among those of
/// the teacher are `numbers`, in nats per token.
///
/// # Errors
/// If the models cannot be run.
pub(super) fn divergence(
    model: &ModelRunner,
    teacher: &Teacher<'_>,
    windows: &[Vec<u32>],
    numbers: &[usize],
    interrupt: &AtomicBool,
) -> Result<f64> {
    let mut batch = model.whole_batch(windows)?;
    while batch.step(&mut NoTap)?.is_some() {
        check(interrupt)?;
    }
    let (student, original) = (model.head()?, teacher.model.head()?);
    let (mut sum, mut tokens) = (0.0, 0);
    for (i, chunk) in batch.chunks().into_iter().enumerate() {
        let inside = batch.windows().iter().zip(numbers);
        let inside: Vec<usize> =
            inside.filter(|(w, _)| chunk.start <= w.start && w.end <= chunk.end).map(|(_, &n)| n).collect();
        let (x, states) = (batch.output(i)?, teacher.states(&inside)?);
        for range in slices(chunk.len(), model.logits()) {
            let mut rows = flat(&student.logits(&part(&x, &range)?)?)?;
            let p = flat(&original.logits(&part(&states, &range)?)?)?;
            sum += to_gradients(&p, &mut rows, model.logits(), None, 1.0);
        }
        tokens += chunk.len();
    }
    Ok(sum / tokens.max(1) as f64)
}

/// Turns the logits of every row of `rows` into the gradient of its divergence from `teacher` at logits before their cap,
/// times `unit`. Returns the sum of the divergences.
fn to_gradients(teacher: &[f32], rows: &mut [f32], vocab: usize, cap: Option<f32>, unit: f32) -> f64 {
    let vocab = vocab.max(1);
    let each: Vec<f64> = rows
        .par_chunks_mut(vocab)
        .zip(teacher.par_chunks(vocab))
        .map(|(row, teacher)| to_gradient(teacher, row, cap, unit))
        .collect();
    each.iter().sum()
}

fn to_gradient(teacher: &[f32], row: &mut [f32], cap: Option<f32>, unit: f32) -> f64 {
    let normalizer = |row: &[f32]| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = row.iter().map(|&y| f64::from((y - largest).exp())).sum();
        f64::from(largest) + total.ln()
    };
    let (p_log, q_log) = (normalizer(teacher), normalizer(row));
    let mut divergence = 0.0;
    for (y, &t) in row.iter_mut().zip(teacher) {
        let (lp, lq) = (f64::from(t) - p_log, f64::from(*y) - q_log);
        let (p, q) = (f64::from((lp as f32).exp()), f64::from((lq as f32).exp()));
        divergence += p * (lp - lq);
        // The slope of the cap at this logit.
        let slope = cap.map_or(1.0, |cap| 1.0 - (*y / cap) * (*y / cap));
        *y = (q - p) as f32 * slope * unit;
    }
    divergence
}

/// The mean divergence from the teacher over the tokens of a batch.
pub(super) struct Distill<'a> {
    teacher: &'a Teacher<'a>,
    interrupt: &'a AtomicBool,
    /// For each window of the batch: its number among those of the teacher, and its first token.
    windows: Vec<(usize, usize)>,
    tokens: usize,
    sum: f64,
}

impl<'a> Distill<'a> {
    /// For a batch of `windows`, whose numbers among those of the teacher are `numbers`.
    pub(super) fn new(
        teacher: &'a Teacher<'a>,
        windows: &[Vec<u32>],
        numbers: &[usize],
        interrupt: &'a AtomicBool,
    ) -> Distill<'a> {
        let mut tokens = 0;
        let place = |(window, &number): (&Vec<u32>, &usize)| {
            tokens += window.len();
            (number, tokens - window.len())
        };
        let windows = windows.iter().zip(numbers).map(place).collect();
        Distill { teacher, interrupt, windows, tokens: tokens.max(1), sum: 0.0 }
    }

    /// The mean divergence, in nats per token, once all gradients were asked for.
    pub(super) fn mean(&self) -> f64 {
        self.sum / self.tokens as f64
    }

    fn slice(
        &mut self,
        heads: [&Head<'_>; 2],
        states: &Tensor,
        x: &Tensor,
        tap: &mut dyn GradientTap,
    ) -> Result<Tensor> {
        let [student, original] = heads;
        let y = student.outputs(x)?;
        let mut rows = flat(&student.capped(y.clone())?)?;
        let p = flat(&original.logits(states)?)?;
        let (n, vocab) = y.dims2().map_err(failed())?;
        self.sum += to_gradients(&p, &mut rows, vocab, student.soft_cap(), (self.tokens as f32).recip());
        let gradient = Tensor::from_vec(rows, (n, vocab), &Device::Cpu).map_err(failed())?;
        let at_inputs = student.backward(&gradient)?;
        let map = student.map_spec();
        tap.linear(&MapGradient { map, x, y: &y, gradient: &gradient, at_inputs: &at_inputs })?;
        Ok(at_inputs)
    }
}

impl Objective for Distill<'_> {
    fn gradient(
        &mut self,
        model: &ModelRunner,
        piece: &Piece<'_>,
        hidden: &Tensor,
        tap: &mut dyn GradientTap,
    ) -> Result<Tensor> {
        check(self.interrupt)?;
        let inside =
            self.windows.iter().filter(|(_, at)| (piece.first..piece.first + piece.ids.len()).contains(at));
        let numbers: Vec<usize> = inside.map(|(number, _)| *number).collect();
        let states = self.teacher.states(&numbers)?;
        let (student, original) = (model.head()?, self.teacher.model.head()?);
        let mut parts = Vec::new();
        for range in slices(piece.ids.len(), model.logits()) {
            let (states, x) = (part(&states, &range)?, part(hidden, &range)?);
            parts.push(self.slice([&student, &original], &states, &x, tap)?);
        }
        Tensor::cat(&parts, 0).map_err(failed())
    }
}
