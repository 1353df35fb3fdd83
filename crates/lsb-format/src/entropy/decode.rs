//! A run to symbols: the specification that vector kernels must equal.

use super::{DecodeTable, LANES, LOW};
use crate::{Error, Result};

/// Chooses the table of each symbol, in decoding order.
///
/// Symbol `i` is decoded after `update` was told of all symbols before it, but a context must look back
/// only on its own lane (`i - 32`, `i - 64`, ...), so that 32 symbols can be decoded in one vector step.
pub trait Context {
    /// Which table codes symbol `i`.
    fn table(&self, i: usize) -> usize;

    /// Symbol `i` is known now.
    fn update(&mut self, i: usize, symbol: u8);
}

/// One table for all symbols.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleTable;

impl Context for SingleTable {
    #[inline(always)]
    fn table(&self, _i: usize) -> usize {
        0
    }

    #[inline(always)]
    fn update(&mut self, _i: usize, _symbol: u8) {}
}

/// Decodes `out.len()` symbols from all of `bytes`.
///
/// # Errors
/// If the bytes are too short or too long, a state is out of range, or a lane does not end where encoding
/// started.
///
/// # Panics
/// If `context` names a table that is not there.
pub fn decode_run(
    bytes: &[u8],
    tables: &[DecodeTable],
    context: &mut impl Context,
    out: &mut [u8],
) -> Result<()> {
    decode_lanes::<LANES>(bytes, tables, context, out)
}

/// As [`decode_run`], in `N` lanes, a power of two.
pub(super) fn decode_lanes<const N: usize>(
    bytes: &[u8],
    tables: &[DecodeTable],
    context: &mut impl Context,
    out: &mut [u8],
) -> Result<()> {
    let mut run = RunDecoder::<N>::new(bytes, out.len())?;
    run.decode(tables, context, 0, out)?;
    run.finish()
}

/// A run that is decoded in pieces of whole steps: `N` symbols each, one for each lane.
#[derive(Clone, Debug)]
pub struct RunDecoder<'w, const N: usize = LANES> {
    /// The state of each lane.
    pub states: [u32; N],
    words: &'w [[u8; 2]],
    /// Lanes that have symbols.
    lanes: usize,
}

impl<'w, const N: usize> RunDecoder<'w, N> {
    /// The run of `symbols` symbols that is all of `bytes`.
    ///
    /// # Errors
    /// If the bytes are too short, or a state is out of range.
    pub fn new(bytes: &'w [u8], symbols: usize) -> Result<Self> {
        let lanes = symbols.min(N);
        let Some((head, body)) = bytes.split_at_checked(4 * lanes) else {
            return Err(bad(format!("{} bytes cannot hold the states of {lanes} lanes", bytes.len())));
        };
        let (words, rest) = body.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(bad("half a word at the end".into()));
        }
        let mut states = [LOW; N];
        for (lane, (state, bytes)) in states.iter_mut().zip(head.as_chunks::<4>().0).enumerate() {
            *state = u32::from_le_bytes(*bytes);
            if !(LOW..LOW << 16).contains(state) {
                return Err(bad(format!("lane {lane} starts in state {state:#x}, outside 2^15..2^31")));
            }
        }
        Ok(RunDecoder { states, words, lanes })
    }

    /// The words that no lane has taken yet, little-endian.
    pub fn words(&self) -> &'w [[u8; 2]] {
        self.words
    }

    /// Lanes have taken `count` words.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn take(&mut self, count: usize) {
        self.words = &self.words[count..];
    }

    /// Decodes the next symbols, of which the first is symbol `first` of the run. Where these are not whole steps, they are the
    /// last of the run.
    ///
    /// # Errors
    /// If there are too few words.
    ///
    /// # Panics
    /// If `context` names a table that is not there.
    pub fn decode(
        &mut self,
        tables: &[DecodeTable],
        context: &mut impl Context,
        first: usize,
        out: &mut [u8],
    ) -> Result<()> {
        let mut base = first;
        let mut steps = out.chunks_exact_mut(N);
        // While a whole step's words are there, none of them needs a check of its own. The word is read whether
        // the lane takes it or not: a branch here would be guessed wrong at every fourth symbol or so.
        while let Some(window) = self.words.first_chunk::<N>() {
            let Some(symbols) = steps.next() else { break };
            let mut taken = 0;
            for lane in 0..N {
                let (symbol, state) = tables[context.table(base + lane)].step(self.states[lane]);
                symbols[lane] = symbol;
                context.update(base + lane, symbol);
                let refilled = state << 16 | u32::from(u16::from_le_bytes(window[taken % N]));
                let low = state < LOW;
                self.states[lane] = if low { refilled } else { state };
                taken += usize::from(low);
            }
            self.words = &self.words[taken..];
            base += N;
        }
        for symbols in steps.by_ref() {
            self.words = last_step(tables, context, &mut self.states, base, self.words, symbols)?;
            base += N;
        }
        self.words = last_step(tables, context, &mut self.states, base, self.words, steps.into_remainder())?;
        Ok(())
    }

    /// Checks that the run ends here.
    ///
    /// # Errors
    /// If words are left over, or a lane does not end where encoding started.
    pub fn finish(self) -> Result<()> {
        if !self.words.is_empty() {
            return Err(bad(format!("{} words left over", self.words.len())));
        }
        match self.states[..self.lanes].iter().position(|&s| s != LOW) {
            None => Ok(()),
            Some(lane) => Err(bad(format!("lane {lane} ends in state {:#x}, not 2^15", self.states[lane]))),
        }
    }
}

/// A step near the end of the words, every one of them checked. Returns the words left.
fn last_step<'w, const N: usize>(
    tables: &[DecodeTable],
    context: &mut impl Context,
    states: &mut [u32; N],
    base: usize,
    mut words: &'w [[u8; 2]],
    symbols: &mut [u8],
) -> Result<&'w [[u8; 2]]> {
    for (lane, out) in symbols.iter_mut().enumerate() {
        let (symbol, mut state) = tables[context.table(base + lane)].step(states[lane]);
        *out = symbol;
        context.update(base + lane, symbol);
        if state < LOW {
            let Some((word, left)) = words.split_first() else {
                return Err(bad(format!("no word left at symbol {}", base + lane)));
            };
            state = state << 16 | u32::from(u16::from_le_bytes(*word));
            words = left;
        }
        states[lane] = state;
    }
    Ok(words)
}

#[cold]
fn bad(what: String) -> Error {
    Error::corruption("P51", format!("entropy-coded run: {what}"))
}
