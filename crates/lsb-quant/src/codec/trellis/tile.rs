//! The levels of one tile, and their coded form.
//!
//! The columns of a tile are taken in groups of 32, one lane each; a group is gone through row by row, the
//! next group follows. Where the last group is narrower, its missing columns take part without costing bits. The
//! trellis of a lane starts in state 0 and runs down its columns. Either it runs on from the bottom of one to the top of
//! the next, or it starts again in each, so that they can be searched in any order.

use super::classes::Classes;
use super::kernel::{self, Code, Escape, MISSING, Stream};
use super::machine::Machine;
use super::shape::{Coded, NULL_SYMBOL, Shape, check_steps, set_of, set_to_null, symbol_of};
use crate::Result;
use crate::codec::bitstream::{BitReader, BitWriter, best_rice};
use crate::codec::payload::Payload;
use crate::isa::Isa;
use crate::lanes::{Lanes, Work, dispatch};
use lsb_format::entropy::{
    Alphabet, BucketTable, LANES, MAX_ESCAPE_BITS, Table, decode_escapes, encode_escapes, encode_run,
};

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
    let mut map = vec![[classes.count() as u8; LANES]; size.groups() * size.rows];
    for ((row, first, width), out) in size.each_step().zip(&mut map) {
        classes.classes(row, first, &mut out[..width]);
    }
    map
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
        let mut alphabets = Vec::new();
        self.alphabets_into(&mut alphabets);
        alphabets.iter().map(Alphabet::table).collect()
    }

    /// The symbols of all tables, in the place of others.
    fn alphabets_into(&self, out: &mut Vec<Alphabet>) {
        out.resize_with(2 * (self.shapes.len() + 1), Alphabet::default);
        let (pairs, _) = out.as_chunks_mut::<2>();
        for (pair, shape) in pairs.iter_mut().zip(self.shapes.iter().map(Some).chain([None])) {
            for (set, alphabet) in pair.iter_mut().enumerate() {
                if !shape.is_some_and(|shape| shape.alphabet_into(set, alphabet)) {
                    set_to_null(alphabet);
                }
            }
        }
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
    dispatch(Symbols { map, levels, symbols: &mut symbols, which: &mut which });
    let samples = map.iter().zip(levels);
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

/// Symbols of levels and which tables code them, as if all lay inside their curves.
struct Symbols<'a> {
    map: &'a [[u8; LANES]],
    levels: &'a [[i32; LANES]],
    symbols: &'a mut [[u8; LANES]],
    which: &'a mut [[u8; LANES]],
}

impl Work for Symbols<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let samples = self.map.iter().zip(self.levels);
        for ((classes, levels), (symbols, which)) in samples.zip(self.symbols.iter_mut().zip(self.which)) {
            for lane in 0..LANES {
                symbols[lane] = symbol_of(levels[lane]);
                which[lane] = 2 * classes[lane] + set_of(levels[lane]) as u8;
            }
        }
    }
}

/// What decoding a tile takes, to be used for the next one.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    rows: Vec<i16>,
    cols: Vec<[i16; LANES]>,
    tables: Vec<BucketTable>,
    alphabets: Vec<Alphabet>,
    levels: Vec<[i16; LANES]>,
    escapes: Vec<Escape>,
    steps: Vec<u32>,
}

/// The coded levels of one tile.
#[derive(Debug)]
pub(super) struct CodedTile<'a> {
    /// All that is left of its payload.
    pub(super) payload: Payload<'a>,
    pub(super) size: Size,
    /// Whether the trellis starts again in each column.
    pub(super) restarts: bool,
}

/// What becomes of levels.
pub(super) trait Sink {
    /// The levels of 32 columns of tile `tile`, by rows, of which column `first` of the tile is the first. Those beyond its last
    /// column mean nothing. Groups of a tile come from left to right.
    fn group(&mut self, tile: usize, first: usize, levels: &[[i16; LANES]]);

    /// A level that does not fit: [`Sink::group`] saw a zero for it.
    fn escape(&mut self, tile: usize, row: usize, col: usize, level: i32);
}

/// Decodes the levels of one tile, or of two that have as many rows: that takes hardly longer.
///
/// # Errors
/// If the bytes are not what [`encode`] writes for tiles of that size.
pub(super) fn decode<'p>(
    tiles: impl IntoIterator<Item = CodedTile<'p>>,
    machine: Machine,
    scratch: &mut [Scratch; 2],
    sink: &mut impl Sink,
) -> Result<()> {
    let isa = Isa::chosen();
    let [scratch_a, scratch_b] = scratch;
    let mut tiles = tiles.into_iter();
    let Some(first) = tiles.next() else { return Ok(()) };
    let mut a = Opened::new(first, machine, scratch_a)?;
    if let Some(second) = tiles.next() {
        let mut b = Opened::new(second, machine, scratch_b)?;
        while a.stream.left().min(b.stream.left()) > 0 {
            kernel::next_groups(&mut a.stream, &mut b.stream, isa)?;
            a.show(0, sink);
            b.show(1, sink);
        }
        b.rest(1, isa, sink)?;
    }
    a.rest(0, isa, sink)
}

/// A tile that is being decoded.
struct Opened<'a> {
    stream: Stream<'a>,
    shapes: Vec<Shape>,
    classes: Classes,
    /// Column of the tile that is the first of the next group.
    col: usize,
    escapes: (&'a [u8], u32),
    steps: &'a mut Vec<u32>,
}

impl<'a> Opened<'a> {
    fn new(tile: CodedTile<'a>, machine: Machine, scratch: &'a mut Scratch) -> Result<Self> {
        let CodedTile { mut payload, size, restarts } = tile;
        let model = Model::read(&mut payload, size)?;
        let [k] = payload.array("escape parameter")?;
        let length = payload.u32("escapes length")? as usize;
        let coded = payload.take("escapes", length)?;
        let Scratch { rows, cols, tables, alphabets, levels, escapes, steps } = scratch;
        model.classes.row_terms(rows);
        cols.clear();
        cols.resize(size.groups(), [MISSING; LANES]);
        let terms = cols.as_flattened_mut().iter_mut();
        terms.zip(model.classes.col_terms()).for_each(|(out, term)| *out = term);
        // Tables are written in place: they are large.
        model.alphabets_into(alphabets);
        tables.resize_with(alphabets.len(), BucketTable::default);
        alphabets.iter().zip(&mut *tables).for_each(|(alphabet, out)| alphabet.buckets_into(out));
        let code = Code { taps: machine.taps(), rows, cols, tables, alphabets, restarts };
        let stream = Stream::new(payload.rest(), code, levels, escapes)?;
        let Model { classes, shapes } = model;
        Ok(Opened { stream, shapes, classes, col: 0, escapes: (coded, u32::from(k)), steps })
    }

    fn show(&mut self, tile: usize, sink: &mut impl Sink) {
        sink.group(tile, self.col, self.stream.levels);
        self.col += LANES;
    }

    /// Decodes what is left of the tile.
    fn rest(mut self, tile: usize, isa: Isa, sink: &mut impl Sink) -> Result<()> {
        while self.stream.left() > 0 {
            kernel::next_group(&mut self.stream, isa)?;
            self.show(tile, sink);
        }
        let escapes = self.stream.finish()?;
        self.steps.clear();
        decode_escapes(self.escapes.0, self.escapes.1, escapes.len(), self.steps)?;
        for (&Escape { group, row, lane, set, symbol }, &steps) in escapes.iter().zip(&*self.steps) {
            check_steps(steps)?;
            let (row, col) = (row as usize, group as usize * LANES + usize::from(lane));
            // Missing columns have no escapes: their table has one symbol.
            let shape = &self.shapes[self.classes.class(row, col)];
            sink.escape(tile, row, col, shape.escaped(usize::from(set), symbol, steps));
        }
        Ok(())
    }
}
