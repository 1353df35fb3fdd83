//! The levels of one tile, and their coded form.
//!
//! The columns of a tile are taken in groups of 32, one lane each; a group is gone through row by row, the
//! next group follows. Where the last group is narrower, its missing columns take part without costing bits. The
//! trellis of a lane starts in state 0 and runs down its columns. Either it runs on from the bottom of one to the top of
//! the next, or it starts again in each, so that they can be searched in any order.

use super::classes::Classes;
use super::kernel::{self, Code, Escape};
use super::machine::Machine;
use super::shape::{Coded, NULL_SYMBOL, Shape, check_steps, null_table, set_of, symbol_of};
use crate::Result;
use crate::codec::bitstream::{BitReader, BitWriter, best_rice};
use crate::codec::payload::Payload;
use crate::isa::Isa;
use lsb_format::entropy::{
    DecodeTable, LANES, MAX_ESCAPE_BITS, Table, decode_escapes, encode_escapes, encode_run,
};
use pulp::Arch;

/// Rows and columns of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) rows: usize,
    pub(super) cols: usize,
}

impl Size {
    /// Groups of 32 columns.
    pub(super) fn groups(self) -> usize {
        self.cols.div_ceil(LANES)
    }

    /// For every step of the lanes its row, its first column and how many columns are there.
    pub(super) fn each_step(self) -> impl Iterator<Item = (usize, usize, usize)> {
        (0..self.groups()).flat_map(move |g| {
            let first = g * LANES;
            let width = (self.cols - first).min(LANES);
            (0..self.rows).map(move |row| (row, first, width))
        })
    }
}

/// The class of every sample, in the order of the lanes; the number of classes where there is none.
pub(super) fn class_map(size: Size, classes: &Classes) -> Vec<[u8; LANES]> {
    let mut map = Vec::new();
    fill_class_map(size, classes, &mut map);
    map
}

fn fill_class_map(size: Size, classes: &Classes, map: &mut Vec<[u8; LANES]>) {
    map.clear();
    map.resize(size.groups() * size.rows, [classes.count() as u8; LANES]);
    for ((row, first, width), out) in size.each_step().zip(map) {
        classes.classes(row, first, &mut out[..width]);
    }
}

/// What the samples of a tile are coded with.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) classes: Classes,
    pub(super) shapes: Vec<Shape>,
}

impl Model {
    /// All numbers of the model and their best Rice parameters: classes first, shapes second.
    fn numbers(&self) -> [Vec<u32>; 2] {
        [self.classes.numbers(), self.shapes.iter().flat_map(Shape::numbers).collect()]
    }

    /// Bits that [`Model::write`] takes.
    pub(super) fn bits(&self) -> u64 {
        self.numbers().iter().map(|n| best_rice(n).1 + 5).sum()
    }

    fn write(&self, out: &mut Vec<u8>) {
        let numbers = self.numbers();
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        let mut writer = BitWriter::new(out);
        for numbers in &numbers {
            let low = best_rice(numbers).0.min(MAX_LOW);
            writer.push(low, LOW_BITS);
            numbers.iter().for_each(|&n| writer.push_rice(n, low));
        }
        writer.finish();
        let length = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn read(payload: &mut Payload<'_>, size: Size) -> Result<Model> {
        let length = payload.u32("model length")? as usize;
        let mut reader = BitReader::new(payload.take("model", length)?);
        let low = reader.bits(LOW_BITS);
        let classes = Classes::read(&mut reader, low, size.rows, size.cols)?;
        let low = reader.bits(LOW_BITS);
        let shapes =
            (0..classes.count()).map(|_| Shape::read(&mut reader, low)).collect::<Result<Vec<_>>>()?;
        reader.finish()?;
        Ok(Model { classes, shapes })
    }

    /// Two tables per class, then those of samples that are none.
    fn tables(&self) -> Vec<Table> {
        let mut out: Vec<Table> = self.shapes.iter().flat_map(Shape::tables).collect();
        out.extend([null_table(), null_table()]);
        out
    }
}

/// Bits of a stored Rice parameter.
const LOW_BITS: u32 = 4;
const MAX_LOW: u32 = 15;

/// Appends the coded form of levels, which `model` must suit.
///
/// # Errors
/// If the model does not suit them.
pub(super) fn encode(
    model: &Model,
    map: &[[u8; LANES]],
    levels: &[[i32; LANES]],
    out: &mut Vec<u8>,
) -> Result<()> {
    model.write(out);
    let (mut symbols, mut which, mut escapes) = (Vec::new(), Vec::new(), Vec::new());
    symbols.resize(levels.len(), [0; LANES]);
    which.resize(levels.len(), [0; LANES]);
    let samples = map.iter().zip(levels);
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for ((classes, levels), (symbols, which)) in
                samples.clone().zip(symbols.iter_mut().zip(&mut which))
            {
                for lane in 0..LANES {
                    symbols[lane] = symbol_of(levels[lane]);
                    which[lane] = 2 * classes[lane] + set_of(levels[lane]) as u8;
                }
            }
        },
    );
    // Samples that are none are beyond all.
    let mut ends = [0; 256];
    for (end, shape) in ends.iter_mut().zip(&model.shapes) {
        *end = shape.end() as u32;
    }
    for ((classes, levels), (symbols, which)) in samples.zip(symbols.iter_mut().zip(&mut which)) {
        let mut beyond = false;
        for (&class, level) in classes.iter().zip(levels) {
            beyond |= level.unsigned_abs() >= ends[usize::from(class)];
        }
        if !beyond {
            continue;
        }
        for lane in 0..LANES {
            let class = usize::from(classes[lane]);
            match model.shapes.get(class).map(|shape| shape.code(levels[lane])) {
                None => (symbols[lane], which[lane]) = (NULL_SYMBOL, 2 * class as u8),
                Some(Coded::Symbol(symbol)) => symbols[lane] = symbol,
                Some(Coded::Escape(symbol, steps)) => {
                    symbols[lane] = symbol;
                    escapes.push(steps);
                }
            }
        }
    }
    let (symbols, which) = (symbols.as_flattened(), which.as_flattened());
    // A value of m bits takes 2 m - k - 1.
    let length = |k: u32| escapes.iter().map(|&e| 2 * (u64::from(e) + (1 << k)).ilog2() - k + 1).sum::<u32>();
    let k = (0..=MAX_ESCAPE_BITS).min_by_key(|&k| length(k)).unwrap_or(0);
    let mut coded = Vec::new();
    encode_escapes(&escapes, k, &mut coded);
    out.push(k as u8);
    out.extend_from_slice(&(coded.len() as u32).to_le_bytes());
    out.extend_from_slice(&coded);
    let tables = model.tables();
    let tables: Vec<&Table> = tables.iter().collect();
    Ok(encode_run(symbols, &tables, |i| usize::from(which[i]), out)?)
}

/// What decoding a tile takes, to be used for the next one.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    map: Vec<[u8; LANES]>,
    tables: Vec<DecodeTable>,
    levels: Vec<[i32; LANES]>,
    escapes: Vec<Escape>,
    steps: Vec<u32>,
}

/// Decodes the levels of a tile, in the order of the lanes, from all that is left of its payload.
///
/// # Errors
/// If the bytes are not what [`encode`] writes for a tile of that size.
pub(super) fn decode<'s>(
    mut payload: Payload<'_>,
    size: Size,
    machine: Machine,
    restarts: bool,
    scratch: &'s mut Scratch,
) -> Result<&'s [[i32; LANES]]> {
    let model = Model::read(&mut payload, size)?;
    let [k] = payload.array("escape parameter")?;
    let length = payload.u32("escapes length")? as usize;
    let coded = payload.take("escapes", length)?;
    let Scratch { map, tables, levels, escapes, steps } = scratch;
    fill_class_map(size, &model.classes, map);
    tables.clear();
    tables.extend(model.tables().iter().map(Table::decoder));
    levels.resize(map.len(), [0; LANES]);
    escapes.clear();
    let code = Code { machine, map, tables, restart: if restarts { size.rows } else { usize::MAX } };
    kernel::decode(payload.rest(), &code, Isa::chosen(), levels, escapes)?;
    steps.clear();
    decode_escapes(coded, u32::from(k), escapes.len(), steps)?;
    for (&Escape { at, set, symbol }, &steps) in escapes.iter().zip(&*steps) {
        check_steps(steps)?;
        let (step, lane) = (at / LANES, at % LANES);
        let shape = &model.shapes[usize::from(map[step][lane])];
        levels[step][lane] = shape.escaped(usize::from(set), symbol, steps);
    }
    Ok(levels)
}
