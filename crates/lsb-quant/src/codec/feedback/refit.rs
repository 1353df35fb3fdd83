//! The numbers of all groups of a row that are best for its output, codes being given.
//!
//! With a row's decoded weights `A x`, linear in its numbers `x`, the squared error of its output is
//! `|(w - A x) U^-1|^2`. Conjugate gradients on the normal equations find `x` without ever forming them: a product with
//! `U^-1` is a walk through the columns, one with its transpose a walk back. The equations inside groups alone, with
//! inputs taken for unrelated, serve as preconditioner (M. Hestenes and E. Stiefel, 1952).

use super::search::Shape;
use super::sweep::{backward, forward};
use super::{KnownInputs, Levels, PerNumber};
use crate::codec::least_squares::NormalEquations;

/// Steps of conjugate gradients. The first does away with what all inputs have in common, the second fits the groups;
/// more change the error by less than 1e-3 of it.
const STEPS: usize = 2;

/// What to add to the numbers of each group, row by row, given the codes and normalised errors of all weights.
pub(super) fn refit<L: Levels>(
    levels: &L,
    inputs: &KnownInputs,
    shape: &Shape,
    codes: &[u8],
    errors: &[f32],
) -> Vec<PerNumber<f64>> {
    let table: Vec<PerNumber<f32>> = (0..=255).map(|code| levels.directions(code)).collect();
    let system = System { inputs, shape, codes, table: &table, numbers: levels.numbers() };
    system.solve(errors)
}

struct System<'a> {
    inputs: &'a KnownInputs,
    shape: &'a Shape,
    codes: &'a [u8],
    /// Directions of every code.
    table: &'a [PerNumber<f32>],
    numbers: usize,
}

impl System<'_> {
    fn solve(&self, errors: &[f32]) -> Vec<PerNumber<f64>> {
        let inside = self.inside_groups();
        let precondition = |gradient: &[PerNumber<f64>]| -> Vec<PerNumber<f64>> {
            let solved = inside.iter().zip(gradient);
            solved.map(|(e, &g)| NormalEquations { moments: g, ..*e }.solve(self.numbers)).collect()
        };
        let mut left = errors.to_vec();
        let mut gradient = self.gradient(&left);
        let mut direction = precondition(&gradient);
        let mut gamma = self.products(&gradient, &direction);
        let mut change = vec![[0.0; super::NUMBERS]; gradient.len()];
        for step in 0..STEPS {
            let image = self.image(&direction);
            let mut squares = vec![0.0f64; self.shape.rows];
            self.each_column(&image, |_, row, x| squares[row] += f64::from(x) * f64::from(x));
            let lengths: Vec<f64> = gamma.iter().zip(&squares).map(|(&g, &s)| ratio(g, s)).collect();
            self.add(&mut change, &lengths, &direction);
            if step + 1 == STEPS {
                break;
            }
            for (left, image) in left.chunks_mut(self.shape.stride).zip(image.chunks(self.shape.stride)) {
                for ((x, &i), &length) in left.iter_mut().zip(image).zip(&lengths) {
                    *x -= length as f32 * i;
                }
            }
            gradient = self.gradient(&left);
            let mut next = precondition(&gradient);
            let after = self.products(&gradient, &next);
            let kept: Vec<f64> = after.iter().zip(&gamma).map(|(&a, &g)| ratio(a, g)).collect();
            self.add(&mut next, &kept, &direction);
            (direction, gamma) = (next, after);
        }
        change
    }

    /// Calls `each(place, row, value)` column by column.
    fn each_column(&self, columns: &[f32], mut each: impl FnMut(usize, usize, f32)) {
        for (place, column) in columns.chunks(self.shape.stride).enumerate() {
            for (row, &x) in column[..self.shape.rows].iter().enumerate() {
                each(place, row, x);
            }
        }
    }

    fn place(&self, place: usize, row: usize) -> (usize, &PerNumber<f32>) {
        let col = self.inputs.factor.order()[place];
        let code = self.codes[place * self.shape.stride + row];
        (self.shape.group_of(row, col), &self.table[usize::from(code)])
    }

    /// The equations of each group as if inputs were unrelated.
    fn inside_groups(&self) -> Vec<NormalEquations> {
        let mut out = vec![NormalEquations::default(); self.shape.rows * self.shape.per_row()];
        for (place, &col) in self.inputs.factor.order().iter().enumerate() {
            let square = self.inputs.squares[col];
            for row in 0..self.shape.rows {
                let (group, directions) = self.place(place, row);
                let gram = &mut out[group].gram;
                for (i, &a) in directions[..self.numbers].iter().enumerate() {
                    let a = square * f64::from(a);
                    for (x, &b) in gram[i].iter_mut().zip(&directions[..self.numbers]) {
                        *x += a * f64::from(b);
                    }
                }
            }
        }
        out
    }

    /// `A^T U^-T left`.
    fn gradient(&self, left: &[f32]) -> Vec<PerNumber<f64>> {
        let mut columns = left.to_vec();
        backward(&self.inputs.factor, &mut columns, self.shape.stride);
        let mut out = vec![[0.0; super::NUMBERS]; self.shape.rows * self.shape.per_row()];
        self.each_column(&columns, |place, row, x| {
            let (group, directions) = self.place(place, row);
            for (sum, &d) in out[group].iter_mut().zip(&directions[..self.numbers]) {
                *sum += f64::from(d) * f64::from(x);
            }
        });
        out
    }

    /// `A direction U^-1`.
    fn image(&self, direction: &[PerNumber<f64>]) -> Vec<f32> {
        let mut columns = vec![0.0f32; self.codes.len()];
        for (place, column) in columns.chunks_mut(self.shape.stride).enumerate() {
            for (row, x) in column[..self.shape.rows].iter_mut().enumerate() {
                let (group, directions) = self.place(place, row);
                let terms = directions[..self.numbers].iter().zip(&direction[group]);
                *x = terms.map(|(&d, &n)| f64::from(d) * n).sum::<f64>() as f32;
            }
        }
        forward(&self.inputs.factor, &mut columns, self.shape.stride, |place, column| {
            let normal = 1.0 / self.inputs.factor.diagonal(place);
            column.iter_mut().for_each(|x| *x *= normal);
        });
        columns
    }

    /// For each row the sum of products over its groups.
    fn products(&self, a: &[PerNumber<f64>], b: &[PerNumber<f64>]) -> Vec<f64> {
        let per_row = self.shape.per_row();
        let dot =
            |(a, b): (&PerNumber<f64>, &PerNumber<f64>)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        a.chunks(per_row).zip(b.chunks(per_row)).map(|(a, b)| a.iter().zip(b).map(dot).sum()).collect()
    }

    /// Adds to every row its factor times `other`.
    fn add(&self, to: &mut [PerNumber<f64>], factors: &[f64], other: &[PerNumber<f64>]) {
        let per_row = self.shape.per_row();
        for ((to, other), &factor) in to.chunks_mut(per_row).zip(other.chunks(per_row)).zip(factors) {
            for (to, other) in to.iter_mut().zip(other) {
                to.iter_mut().zip(other).for_each(|(x, &o)| *x += factor * o);
            }
        }
    }
}

/// A quotient, or 0 where there is nothing to gain.
fn ratio(a: f64, b: f64) -> f64 {
    if a > 0.0 && b > 0.0 && a.is_finite() && b.is_finite() { a / b } else { 0.0 }
}
