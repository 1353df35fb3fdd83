//! Codes and numbers of the groups of whole rows.

use super::refit::refit;
use super::{KnownInputs, Levels, columns, forward, stride};

/// When the numbers of groups are fitted to the outputs. A fit takes as long as four ways through the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refits {
    /// They stay what they are.
    Never,
    /// Once, and codes are found anew.
    BeforeCodes,
    /// The same, and once more for the codes found then.
    AfterCodes,
}

impl Refits {
    fn count(self) -> usize {
        match self {
            Refits::Never => 0,
            Refits::BeforeCodes => 1,
            Refits::AfterCodes => 2,
        }
    }
}

/// Rows of a matrix and how their columns are grouped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) stride: usize,
    /// Columns of a group.
    pub(super) group: usize,
}

impl Shape {
    /// Groups of a row.
    pub(super) fn per_row(&self) -> usize {
        self.cols.div_ceil(self.group)
    }

    /// The group of a weight.
    pub(super) fn group_of(&self, row: usize, col: usize) -> usize {
        row * self.per_row() + col / self.group
    }
}

/// Rows after quantization.
#[derive(Clone, Debug)]
pub(crate) struct Quantized<G> {
    /// Groups row by row.
    pub(crate) groups: Vec<G>,
    /// Row-major.
    pub(crate) codes: Vec<u8>,
    /// What the codes decode to, row-major.
    pub(crate) values: Vec<f32>,
    /// Squared error of each row's output, in the unit of the moments.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests compare it with the error itself"))]
    pub(crate) losses: Vec<f64>,
}

/// One way through the columns, column by column in the order they are taken.
struct Pass {
    codes: Vec<u8>,
    values: Vec<f32>,
    errors: Vec<f32>,
    losses: Vec<f64>,
}

/// Quantizes whole rows, given row-major, in groups of `group` columns that start as `groups`, row by row.
pub(crate) fn quantize<L: Levels>(
    levels: &L,
    inputs: &KnownInputs,
    weights: &[f32],
    group: usize,
    mut groups: Vec<L::Group>,
    refits: Refits,
) -> Quantized<L::Group> {
    let cols = inputs.factor.len();
    let rows = weights.len() / cols.max(1);
    let shape = Shape { rows, cols, stride: stride(rows), group: group.max(1) };
    let targets = columns(&inputs.factor, weights);
    let mut best = run(inputs, &targets, &shape, |row, col, _, target| {
        levels.code(&groups[shape.group_of(row, col)], row, col, target)
    });
    for round in 0..refits.count() {
        let changes = refit(levels, inputs, &shape, &best.codes, &best.errors);
        let moved: Vec<L::Group> = groups.iter().zip(&changes).map(|(g, c)| levels.moved(g, c)).collect();
        let pass = run(inputs, &targets, &shape, |row, col, at, target| {
            let group = &moved[shape.group_of(row, col)];
            if round == 0 {
                return levels.code(group, row, col, target);
            }
            // The second time codes stay.
            let code = best.codes[at];
            (code, levels.value(group, code).unwrap_or(best.values[at]))
        });
        for row in 0..rows {
            if pass.losses[row].total_cmp(&best.losses[row]).is_ge() {
                continue;
            }
            best.take_row(&pass, row, &shape);
            let of_row = row * shape.per_row()..(row + 1) * shape.per_row();
            groups[of_row.clone()].clone_from_slice(&moved[of_row]);
        }
    }
    let mut out = Quantized {
        groups,
        codes: vec![0; rows * cols],
        values: vec![0.0; rows * cols],
        losses: best.losses,
    };
    for (place, &c) in inputs.factor.order().iter().enumerate() {
        for row in 0..rows {
            out.codes[row * cols + c] = best.codes[place * shape.stride + row];
            out.values[row * cols + c] = best.values[place * shape.stride + row];
        }
    }
    out
}

/// Goes through the columns once; `code(row, col, at, target)` chooses a code and tells its value.
fn run(
    inputs: &KnownInputs,
    targets: &[f32],
    shape: &Shape,
    mut code: impl FnMut(usize, usize, usize, f32) -> (u8, f32),
) -> Pass {
    let mut pass = Pass {
        codes: vec![0; targets.len()],
        values: vec![0.0; targets.len()],
        errors: targets.to_vec(),
        losses: vec![0.0; shape.rows],
    };
    forward(&inputs.factor, &mut pass.errors, shape.stride, |place, column| {
        let (col, first) = (inputs.factor.order()[place], place * shape.stride);
        let normal = 1.0 / inputs.factor.diagonal(place);
        for (row, (x, loss)) in column.iter_mut().zip(&mut pass.losses).enumerate() {
            let (chosen, value) = code(row, col, first + row, *x);
            (pass.codes[first + row], pass.values[first + row]) = (chosen, value);
            *x = (*x - value) * normal;
            *loss += f64::from(*x) * f64::from(*x);
        }
    });
    pass
}

impl Pass {
    fn take_row(&mut self, other: &Pass, row: usize, shape: &Shape) {
        for at in (row..self.codes.len()).step_by(shape.stride) {
            self.codes[at] = other.codes[at];
            self.values[at] = other.values[at];
            self.errors[at] = other.errors[at];
        }
        self.losses[row] = other.losses[row];
    }
}
