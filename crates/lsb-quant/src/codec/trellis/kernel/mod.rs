//! From the entropy-coded run of a tile to its levels, a group of 32 columns at a time. [`scalar`] is the specification; the
//! others equal it to the last bit and are chosen by what the processor can do.
//!
//! A step of a run waits for itself: the state that a look-up gives says where the next one looks. Two tiles that are
//! decoded together wait at the same time, so that a pair takes hardly longer than one, where there are registers for both.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::machine::Register;
use super::shape::level_of;
use crate::isa::Isa;
use crate::lanes::{Lanes, Work, dispatch};
use lsb_format::Result;
use lsb_format::entropy::{Alphabet, BUCKET_BITS, BucketTable, LANES, PRECISION, RunDecoder};

/// What a missing column adds to the class of its samples.
pub(super) const MISSING: i16 = 1 << 14;

/// Bits of the number that a bucket has in its table. The bit above them says if levels are odd, those above that one are the class.
const TABLE_BITS: u32 = PRECISION - BUCKET_BITS;

/// How far the bit of a [`Register`] that says if levels are odd is above that place.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const ODD_BITS: u32 = Register::SET - TABLE_BITS;

/// What the symbols of a tile mean.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code<'a> {
    /// What a bit adds to a register of the trellis.
    pub(super) taps: u16,
    /// What each row adds to the class of its samples.
    pub(super) rows: &'a [i16],
    /// What each column adds, in groups; [`MISSING`] where there is none.
    pub(super) cols: &'a [[i16; LANES]],
    /// Two tables for each class, for even levels and for odd ones; the last two are those of missing columns.
    pub(super) tables: &'a [BucketTable],
    /// What each table was made of.
    pub(super) alphabets: &'a [Alphabet],
    /// Whether all lanes start again in state 0 in each group.
    pub(super) restarts: bool,
}

impl Code<'_> {
    /// The class of missing columns: the last one.
    fn missing(&self) -> i16 {
        (self.tables.len() / 2 - 1) as i16
    }

    /// For each lane of a group the largest class that it may have.
    fn caps(&self, group: usize) -> [i16; LANES] {
        let last = self.missing();
        self.cols[group].map(|col| if col == MISSING { last } else { (last - 1).max(0) })
    }
}

/// A sample that is not what its symbol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Escape {
    /// Its group, row and lane.
    pub(super) group: u32,
    pub(super) row: u32,
    pub(super) lane: u8,
    /// 0 where its level is even, 1 where it is odd.
    pub(super) set: u8,
    /// 0 or 1.
    pub(super) symbol: u8,
}

/// What was looked up, in vectors of 16-bit numbers.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Lookups<V> {
    /// Numbers of buckets.
    index: V,
    /// As in a [`Bucket`](lsb_format::entropy::Bucket).
    start: V,
    first: V,
    next: V,
    symbols: V,
}

/// Puts right the lanes whose slot belongs to neither of the symbols in its bucket: symbols, frequencies, and slots before
/// theirs of the symbol.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[cold]
#[inline(never)]
fn correct<const N: usize>(
    mut lanes: u32,
    code: &Code<'_>,
    slots: &[u16; N],
    index: &[u16; N],
    [symbols, freqs, biases]: [&mut [u16; N]; 3],
) {
    while lanes != 0 {
        let lane = lanes.trailing_zeros() as usize;
        lanes &= lanes - 1;
        let alphabet = &code.alphabets[usize::from(index[lane] >> TABLE_BITS)];
        let (symbol, freq, bias) = alphabet.at(slots[lane]);
        (symbols[lane], freqs[lane], biases[lane]) = (symbol.into(), freq, bias);
    }
}

/// Whether loading one by one is faster than the instruction that gathers: on all of AMD's so far.
#[cfg(target_arch = "x86_64")]
fn has_slow_gathers() -> bool {
    if cfg!(test) {
        // Tests try both, in turns.
        static TURN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
        return TURN.fetch_xor(true, std::sync::atomic::Ordering::Relaxed);
    }
    static SLOW: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *SLOW.get_or_init(|| {
        let vendor = std::arch::x86_64::__cpuid(0);
        [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
    })
}

/// A tile that is being decoded.
#[derive(Debug)]
pub(super) struct Stream<'a> {
    code: Code<'a>,
    run: RunDecoder<'a>,
    trellis: [Register; LANES],
    group: usize,
    /// The lowest level of the group, as far as it is decoded.
    lowest: i16,
    /// Levels of the group decoded last, by rows; 0 where one is an escape.
    pub(super) levels: &'a mut Vec<[i16; LANES]>,
    /// All escapes so far, in the order of the run.
    pub(super) escapes: &'a mut Vec<Escape>,
}

impl<'a> Stream<'a> {
    /// The run that is all of `bytes`.
    ///
    /// # Errors
    /// As [`RunDecoder::new`].
    ///
    /// # Panics
    /// If there are no tables for missing columns and a class.
    pub(super) fn new(
        bytes: &'a [u8],
        code: Code<'a>,
        levels: &'a mut Vec<[i16; LANES]>,
        escapes: &'a mut Vec<Escape>,
    ) -> Result<Self> {
        assert!(code.tables.len() >= 4 && code.tables.len().is_multiple_of(2), "two tables for every class");
        assert!(code.tables.len() <= 1 << (16 - TABLE_BITS), "numbers of buckets have 16 bits");
        let run = RunDecoder::new(bytes, LANES * code.rows.len() * code.cols.len())?;
        levels.resize(code.rows.len(), [0; LANES]);
        escapes.clear();
        Ok(Stream { code, run, trellis: [Register::default(); LANES], group: 0, lowest: 0, levels, escapes })
    }

    /// Groups that are left.
    pub(super) fn left(&self) -> usize {
        self.code.cols.len() - self.group
    }

    /// Checks that the run ends here and gives all its escapes.
    ///
    /// # Errors
    /// As [`RunDecoder::finish`].
    pub(super) fn finish(self) -> Result<&'a [Escape]> {
        self.run.finish()?;
        Ok(self.escapes)
    }

    fn begin_group(&mut self) {
        self.lowest = 0;
        if self.code.restarts {
            self.trellis = [Register::default(); LANES];
        }
    }

    /// Decodes what is left of the group from `row` on.
    fn end_group(&mut self, row: usize) -> Result<()> {
        scalar::decode(self, row)?;
        // Symbols 0 and 1 are levels -256 to -253.
        let least = level_of(0, 2);
        if self.lowest < least {
            let Stream { group, levels, escapes, .. } = self;
            dispatch(NoteEscapes { group: *group as u32, least, levels, escapes });
        }
        self.group += 1;
        Ok(())
    }
}

/// Notes the escapes of a group, which are its levels below `least` and say what they are, and makes these zero.
struct NoteEscapes<'a> {
    group: u32,
    least: i16,
    levels: &'a mut [[i16; LANES]],
    escapes: &'a mut Vec<Escape>,
}

impl Work for NoteEscapes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        for (row, levels) in self.levels.iter_mut().enumerate() {
            let mut below = !lanes.at_least(levels, self.least);
            while below != 0 {
                let lane = below.trailing_zeros();
                below &= below - 1;
                let level = std::mem::take(&mut levels[lane as usize]);
                self.escapes.push(Escape {
                    group: self.group,
                    row: row as u32,
                    lane: lane as u8,
                    set: (level & 1) as u8,
                    symbol: ((level >> 1) + 128) as u8,
                });
            }
        }
    }
}

/// Decodes the next group of a tile, which must have one left.
///
/// # Errors
/// If there are too few words.
pub(super) fn next_group(stream: &mut Stream<'_>, isa: Isa) -> Result<()> {
    stream.begin_group();
    let done = decode(stream, isa);
    stream.end_group(done)
}

/// Decodes the next group of two tiles, both of which must have one left, and as many rows.
///
/// # Errors
/// If there are too few words.
pub(super) fn next_groups<'a>(a: &mut Stream<'a>, b: &mut Stream<'a>, isa: Isa) -> Result<()> {
    debug_assert_eq!(a.code.rows.len(), b.code.rows.len());
    a.begin_group();
    b.begin_group();
    let together = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if avx512::is_available() => Some(avx512::decode([a, b])),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Some(neon::decode([a, b])),
        // Where there is AVX2 alone, sixteen registers hold the lanes of one tile, and the first cache its tables: two side by side are
        // slower than one after the other.
        _ => None,
    };
    let [of_a, of_b] = together.map_or_else(|| [decode(a, isa), decode(b, isa)], |done| [done; 2]);
    a.end_group(of_a)?;
    b.end_group(of_b)
}

/// Decodes rows of the group that the tile is at, as long as there are words for all lanes, and says how many.
fn decode(stream: &mut Stream<'_>, isa: Isa) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if avx512::is_available() => avx512::decode([stream]),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx2 => avx2::decode(stream),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => neon::decode([stream]),
        _ => {
            let _ = stream;
            0
        }
    }
}
