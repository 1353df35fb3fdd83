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
    let lanes = out.len().min(N);
    let Some((head, body)) = bytes.split_at_checked(4 * lanes) else {
        return Err(bad(format!("{} bytes cannot hold the states of {lanes} lanes", bytes.len())));
    };
    let (mut words, rest) = body.as_chunks::<2>();
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

    let mut base = 0;
    let mut steps = out.chunks_exact_mut(N);
    // While a whole step's words are there, none of them needs a check of its own. The word is read whether
    // the lane takes it or not: a branch here would be guessed wrong at every fourth symbol or so.
    while let Some(window) = words.first_chunk::<N>() {
        let Some(symbols) = steps.next() else { break };
        let mut taken = 0;
        for lane in 0..N {
            let (symbol, state) = tables[context.table(base + lane)].step(states[lane]);
            symbols[lane] = symbol;
            context.update(base + lane, symbol);
            let refilled = state << 16 | u32::from(u16::from_le_bytes(window[taken % N]));
            let low = state < LOW;
            states[lane] = if low { refilled } else { state };
            taken += usize::from(low);
        }
        words = &words[taken..];
        base += N;
    }
    for symbol_chunk in steps.by_ref() {
        words = last_step(tables, context, &mut states, base, words, symbol_chunk)?;
        base += N;
    }
    words = last_step(tables, context, &mut states, base, words, steps.into_remainder())?;

    if !words.is_empty() {
        return Err(bad(format!("{} words left over", words.len())));
    }
    match states[..lanes].iter().position(|&s| s != LOW) {
        None => Ok(()),
        Some(lane) => Err(bad(format!("lane {lane} ends in state {:#x}, not 2^15", states[lane]))),
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
