//! Trains the scales of a coded model so that its predictions come closer to those of the original.
//!
//! The integers of a tensor stay as they are. Every row and every column of its matrix gets a factor, 1 at first, and
//! gradient descent moves their logarithms down the divergence of the model's predictions from the original's on a
//! text. A part of the text is held out: factors are kept only where they help on that as well.

mod adam;
mod checkpoint;
mod corrections;
mod distill;
mod package;
mod scaled;
#[cfg(test)]
mod tests;

pub use package::{scaled_sides, tunable};

use crate::runner::backward;
use crate::sample::Random;
use crate::{ModelRunner, NoTap, Result};
use adam::Adam;
use checkpoint::{Checkpoint, State};
use corrections::{Corrections, Slopes};
use distill::{Distill, Teacher, check, divergence};
use lsb_format::Error;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// How scales are trained.
#[derive(Clone, Debug, PartialEq)]
pub struct TuneOptions {
    /// Steps at most.
    pub steps: usize,
    /// How far a logarithm of a scale moves in a step at first; less and less later on, down to nothing at the end.
    pub rate: f64,
    /// Windows of a step.
    pub windows: usize,
    /// Steps after which the windows that are held out are looked at again.
    pub check_every: usize,
    /// Looks without progress after which training ends.
    pub patience: usize,
    /// Seed of the order of windows.
    pub seed: u64,
    /// A file that tells how far training is: an interrupted one goes on from there. It is left there at the end, for whoever
    /// has yet to write down what was found.
    pub checkpoint: Option<PathBuf>,
}

impl Default for TuneOptions {
    fn default() -> Self {
        TuneOptions {
            steps: 200,
            rate: 2e-3,
            windows: 8,
            check_every: 20,
            patience: 4,
            seed: 0,
            checkpoint: None,
        }
    }
}

/// How far training is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TuneProgress {
    /// Steps done.
    pub step: usize,
    /// Steps at most.
    pub steps: usize,
    /// Mean divergence of this step's windows before it, in nats per token; that of the held-out ones at the start.
    pub training: f64,
    /// The last known divergence of the held-out windows.
    pub held_out: f64,
}

/// What training found.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuned {
    /// For each tensor, by the name it is stored under: factors of its rows and of its columns.
    pub factors: BTreeMap<String, [Vec<f64>; 2]>,
    /// Divergence of the held-out windows without these factors, in nats per token.
    pub before: f64,
    /// The same with them.
    pub after: f64,
    /// Steps done in all.
    pub steps: usize,
    /// The step these factors were found at.
    pub best_step: usize,
    /// Tokens trained on, and tokens held out.
    pub tokens: [usize; 2],
}

/// One window of so many is held out.
const HELD_OUT: usize = 8;

/// Trains factors of the rows and columns of `tensors` of `student` on `windows` of token ids, where `teacher` is the
/// original. One window in eight is held out, at least one. The result depends on the seed and never on threads. `student`
/// is left with the factors that were found.
///
/// Memory for gradients is not counted in the budget: windows should be short where memory is.
///
/// # Errors
/// If there are fewer than two windows or nothing to tune, the models do not fit each other, or cannot be run;
/// [`lsb_stream::Error::Interrupted`] soon after `interrupt` becomes true.
pub fn tune(
    student: &ModelRunner,
    teacher: &ModelRunner,
    tensors: &[String],
    windows: &[Vec<u32>],
    options: &TuneOptions,
    interrupt: &AtomicBool,
    tell: &mut dyn FnMut(TuneProgress),
) -> Result<Tuned> {
    if student.logits() != teacher.logits() {
        let message = format!("{} logits against {}", student.logits(), teacher.logits());
        return Err(Error::argument(message).advise("give the original of this package").into());
    }
    let mut corrections = Corrections::new(student, tensors)?;
    if corrections.is_empty() {
        let message = "there is no tensor whose scales could be tuned";
        return Err(Error::argument(message)
            .advise("scales are those of calibrated trellis tensors: lsb compress --codec trellis makes them")
            .into());
    }
    let (training, held): (Vec<usize>, Vec<usize>) = split(windows.len());
    if training.is_empty() {
        let message = format!("{} windows of text are too few: one is held out", windows.len());
        return Err(Error::argument(message).advise("use more text, or shorter windows").into());
    }
    let pick = |numbers: &[usize]| numbers.iter().map(|&n| windows[n].clone()).collect::<Vec<_>>();
    let held_windows = pick(&held);
    let original = Teacher::new(teacher, windows, interrupt)?;
    let judge = || divergence(student, &original, &held_windows, &held, interrupt);
    let before = judge()?;
    // After a first pass: what maps take is taken by now.
    corrections.decode(student)?;
    tell(TuneProgress { step: 0, steps: options.steps, training: before, held_out: before });

    let start = State {
        logs: corrections.logs.clone(),
        adam: Adam::new(corrections.logs.len()),
        order: Order::new(training, options.seed),
        steps: 0,
        held_out: before,
        waited: 0,
        best: (before, 0, corrections.logs.clone()),
    };
    let mut checkpoint = Checkpoint::new(windows, options, start.logs.len(), before);
    let mut state = checkpoint.load(&start)?.unwrap_or(start);
    if state.steps > 0 {
        corrections.logs.clone_from(&state.logs);
        corrections.apply(student);
        tell(TuneProgress {
            step: state.steps,
            steps: options.steps,
            training: before,
            held_out: state.held_out,
        });
    }
    while state.steps < options.steps && state.waited < options.patience.max(1) {
        // What an interrupted step has done by then is done again.
        let next = step(student, &original, &corrections, windows, &state, options, interrupt);
        let training = match next {
            Ok((order, sums, training)) => {
                state.order = order;
                let done = state.steps as f64 / options.steps as f64;
                let rate = options.rate * 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
                state.adam.step(&mut state.logs, &sums, rate);
                training
            }
            Err(error) => {
                checkpoint.keep_now(&state)?;
                return Err(error);
            }
        };
        corrections.logs.clone_from(&state.logs);
        corrections.apply(student);
        state.steps += 1;
        if state.steps.is_multiple_of(options.check_every.max(1)) || state.steps == options.steps {
            state.held_out = judge()?;
            state.waited += 1;
            if state.held_out < state.best.0 {
                state.best = (state.held_out, state.steps, state.logs.clone());
                state.waited = 0;
            }
        }
        checkpoint.keep(&state)?;
        tell(TuneProgress { step: state.steps, steps: options.steps, training, held_out: state.held_out });
    }
    checkpoint.keep_now(&state)?;
    let State { order, steps, best: (after, best_step, logs), .. } = state;
    corrections.logs = logs;
    corrections.apply(student);
    let count = |numbers: &[usize]| numbers.iter().map(|&n| windows[n].len()).sum::<usize>();
    let tokens = [count(&order.windows), count(&held)];
    let factors = corrections.factors(&corrections.logs).map(|(name, f)| (name.to_owned(), f)).collect();
    Ok(Tuned { factors, before, after, steps, best_step, tokens })
}

/// What a step from `state` finds: the order of windows behind it, slopes along all parameters, and the mean divergence of
/// its windows.
fn step(
    student: &ModelRunner,
    original: &Teacher<'_>,
    corrections: &Corrections,
    windows: &[Vec<u32>],
    state: &State,
    options: &TuneOptions,
    interrupt: &AtomicBool,
) -> Result<(Order, Vec<f64>, f64)> {
    check(interrupt)?;
    let mut order = state.order.clone();
    let numbers = order.next(options.windows.max(1));
    let batch: Vec<Vec<u32>> = numbers.iter().map(|&n| windows[n].clone()).collect();
    let mut objective = Distill::new(original, &batch, &numbers, interrupt);
    let mut slopes = Slopes::new(student, corrections);
    backward(student, &batch, &mut objective, &mut NoTap, &mut slopes)?;
    Ok((order, slopes.sums, objective.mean()))
}

/// Numbers of the windows to train on, and of those held out.
fn split(windows: usize) -> (Vec<usize>, Vec<usize>) {
    let last = windows.saturating_sub(1);
    (0..windows).partition(|&n| n % HELD_OUT != HELD_OUT - 1 && (n != last || windows >= HELD_OUT))
}

/// Hands out all windows in a random order, again and again.
#[derive(Clone, Debug)]
struct Order {
    windows: Vec<usize>,
    next: usize,
    random: Random,
}

impl Order {
    fn new(windows: Vec<usize>, seed: u64) -> Order {
        let next = windows.len();
        Order { windows, next, random: Random::new(seed) }
    }

    /// Windows as they lie now, the place of the next one, and the state of what shuffles them.
    fn parts(&self) -> (&[usize], usize, u64) {
        (&self.windows, self.next, self.random.state())
    }

    /// This order at another place, as [`Order::parts`] told; `None` where that is one of other windows.
    fn at(&self, windows: Vec<usize>, next: usize, random: u64) -> Option<Order> {
        let sorted = |windows: &[usize]| {
            let mut windows = windows.to_vec();
            windows.sort_unstable();
            windows
        };
        let same = sorted(&windows) == sorted(&self.windows) && next <= windows.len();
        same.then(|| Order { windows, next, random: Random::new(random) })
    }

    /// The next `count` windows, no more than there are.
    fn next(&mut self, count: usize) -> Vec<usize> {
        let count = count.min(self.windows.len());
        if self.next + count > self.windows.len() {
            for i in (1..self.windows.len()).rev() {
                self.windows.swap(i, (self.random.bits() % (i as u64 + 1)) as usize);
            }
            self.next = 0;
        }
        self.next += count;
        self.windows[self.next - count..self.next].to_vec()
    }
}
