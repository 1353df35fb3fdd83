//! Increasing positions below a bound, such as the outliers of a tile.
//!
//! Gaps between neighbours are cut into a low part of `k` raw bits and a high part that is entropy-coded;
//! high parts of 255 and more are written as 255 and continued. Layout: `u8` kind; kind 0: every position in
//! `ceil(log2 bound)` bits. Kinds 1 and 2: `u8` k, `u32` number of coded symbols, the low parts packed, then
//! the run of high parts, with the table that follows from count and bound (kind 1) or a table in front
//! (kind 2). Random positions cost their entropy; positions that cluster cost less.

use super::decode::{RunDecoder, SingleTable};
use super::encode::encode_run;
use super::symbols::count_symbols;
use super::table::{DecodeTable, Table};
use crate::bits;
use crate::{Error, Result};

const PACKED: u8 = 0;
const GEOMETRIC: u8 = 1;
const COUNTED: u8 = 2;

/// The high part that continues in the next symbol.
const MORE: u32 = 255;

/// Below this many positions, states and tables cost more than entropy coding saves.
const FEW: usize = 24;

/// A table of its own is only tried above this many positions.
const MANY: usize = 1024;

/// Appends the coded form of `positions`, which are strictly increasing and below `bound`.
///
/// # Errors
/// If they are not.
pub fn encode_positions(positions: &[u32], bound: u32, out: &mut Vec<u8>) -> Result<()> {
    let increasing = positions.windows(2).all(|w| w[0] < w[1]);
    if !increasing || positions.last().is_some_and(|&p| p >= bound) {
        return Err(Error::argument("positions must increase and stay below their bound"));
    }
    if positions.is_empty() {
        return Ok(());
    }
    let packed_bytes = 1 + bits::packed_len(position_bits(bound), positions.len());
    let pack = |out: &mut Vec<u8>| {
        out.push(PACKED);
        bits::pack(positions, position_bits(bound), out);
    };
    if positions.len() < FEW {
        pack(out);
        return Ok(());
    }

    let k = low_bits(positions.len(), bound);
    let (mut low, mut high) = (Vec::with_capacity(positions.len()), Vec::with_capacity(positions.len() + 64));
    let mut next = 0;
    for &p in positions {
        let gap = p - next;
        next = p + 1;
        low.push(gap & ((1 << k) - 1));
        let mut rest = gap >> k;
        while rest >= MORE {
            high.push(MORE as u8);
            rest -= MORE;
        }
        high.push(rest as u8);
    }
    let (kind, table) = choose_table(&high, positions.len(), bound, k);
    let at = out.len();
    out.extend_from_slice(&[kind, k as u8]);
    out.extend_from_slice(&(high.len() as u32).to_le_bytes());
    bits::pack(&low, k, out);
    if kind == COUNTED {
        table.write(out);
    }
    encode_run(&high, &[&table], |_| 0, out)?;
    if out.len() - at > packed_bytes {
        out.truncate(at);
        pack(out);
    }
    Ok(())
}

/// The table that costs less: the one that follows from count and bound, or one counted and written.
fn choose_table(high: &[u8], count: usize, bound: u32, k: u32) -> (u8, Table) {
    let geometric = geometric_table(count, bound, k);
    if count > MANY {
        let counts = count_symbols(high);
        if let Some(counted) = Table::from_counts(&counts) {
            let mut written = Vec::new();
            counted.write(&mut written);
            // A table that codes nothing at all is never chosen.
            let cost = |table: &Table| table.cost_bits(&counts).unwrap_or(u64::MAX);
            if cost(&counted).saturating_add(8 * written.len() as u64) < cost(&geometric) {
                return (COUNTED, counted);
            }
        }
    }
    (GEOMETRIC, geometric)
}

/// Decodes `count` positions below `bound` from all of `bytes` into `out`, which is cleared first.
///
/// # Errors
/// If the bytes are not what [`encode_positions`] writes for such positions.
pub fn decode_positions(bytes: &[u8], bound: u32, count: usize, out: &mut Vec<u32>) -> Result<()> {
    decode_positions_with(bytes, bound, count, out, |_, _, _| 0)
}

/// As [`decode_positions`]. `head` may decode the first symbols of the run of high parts, as in
/// [`decode_symbols_with`](super::decode_symbols_with).
///
/// # Errors
/// As [`decode_positions`].
///
/// # Panics
/// If `head` says more than there are.
pub fn decode_positions_with(
    bytes: &[u8],
    bound: u32,
    count: usize,
    out: &mut Vec<u32>,
    head: impl FnOnce(&mut RunDecoder<'_>, &DecodeTable, &mut [u8]) -> usize,
) -> Result<()> {
    let bad = |what: &str| Error::corruption("P53", format!("coded positions: {what}"));
    out.clear();
    if count == 0 {
        return if bytes.is_empty() { Ok(()) } else { Err(bad("bytes where there are no positions")) };
    }
    if count > bound as usize {
        return Err(bad("more positions than places"));
    }
    let (&kind, rest) = bytes.split_first().ok_or_else(|| bad("empty"))?;
    if kind == PACKED {
        bits::unpack(rest, position_bits(bound), count, out)?;
        if out.windows(2).any(|w| w[0] >= w[1]) || out.last().is_some_and(|&p| p >= bound) {
            out.clear();
            return Err(bad("not increasing, or out of bounds"));
        }
        return Ok(());
    }
    let (&k, rest) = rest.split_first().ok_or_else(|| bad("cut short"))?;
    let k = u32::from(k);
    if kind > COUNTED || k != low_bits(count, bound) {
        return Err(bad("unknown kind"));
    }
    let (n, rest) = rest.split_first_chunk::<4>().ok_or_else(|| bad("cut short"))?;
    let n = u32::from_le_bytes(*n) as usize;
    // Each continuation stands for 255 << k places.
    if n < count || n - count > (bound / (MORE << k)) as usize {
        return Err(bad("an impossible number of symbols"));
    }
    let (low_bytes, rest) =
        rest.split_at_checked(bits::packed_len(k, count)).ok_or_else(|| bad("cut short"))?;
    bits::check_len(low_bytes, k, count)?;
    let (table, rest) = if kind == COUNTED {
        let (table, used) = Table::read(rest)?;
        (table, &rest[used..])
    } else {
        (geometric_table(count, bound, k), rest)
    };
    let mut high = vec![0; n];
    let mut run = RunDecoder::new(rest, n)?;
    let table = table.decoder();
    let done = head(&mut run, &table, &mut high);
    run.decode(std::slice::from_ref(&table), &mut SingleTable, done, &mut high[done..])?;
    run.finish()?;

    out.resize(count, 0);
    match join(&high, low_bytes, k, bound, out) {
        Ok(()) => Ok(()),
        Err(what) => {
            out.clear();
            Err(bad(what))
        }
    }
}

/// Fills `out` with positions, or says what is wrong with their parts.
fn join(
    high: &[u8],
    low: &[u8],
    k: u32,
    bound: u32,
    out: &mut [u32],
) -> std::result::Result<(), &'static str> {
    let damaged = |_| "damaged low parts";
    if k > u8::BITS {
        let mut parts = Vec::new();
        bits::unpack(low, k, out.len(), &mut parts).map_err(damaged)?;
        return join_unpacked(high, &parts, k, bound, out);
    }
    let mut parts = vec![0; out.len()];
    if k > 0 {
        bits::unpack_bytes(low, k, &mut parts).map_err(damaged)?;
    }
    join_unpacked(high, &parts, k, bound, out)
}

/// As [`join`], with a low part for each position.
fn join_unpacked<T: Copy + Into<u64>>(
    mut high: &[u8],
    mut low: &[T],
    k: u32,
    bound: u32,
    mut out: &mut [u32],
) -> std::result::Result<(), &'static str> {
    let mut next = 0_u64;
    loop {
        // Up to the next high part that continues.
        let plain = high.iter().position(|&symbol| u32::from(symbol) == MORE).unwrap_or(high.len());
        let (slots, slots_behind) =
            std::mem::take(&mut out).split_at_mut_checked(plain).ok_or("too many positions")?;
        for ((slot, &high), &low) in slots.iter_mut().zip(high).zip(low) {
            // No sum of gaps of fewer than 41 bits comes near 64 bits.
            let gap = u64::from(high) << k | low.into();
            *slot = next.wrapping_add(gap) as u32;
            next = next.wrapping_add(gap + 1);
        }
        (low, out) = (&low[plain..], slots_behind);
        let Some(behind) = high.get(plain + 1..) else { break };
        high = behind;
        next += u64::from(MORE) << k;
    }
    if !out.is_empty() {
        return Err("too few positions");
    }
    // They only grow: the last one tells for all.
    if next > u64::from(bound) { Err("a position out of bounds") } else { Ok(()) }
}

/// Bits of one position.
fn position_bits(bound: u32) -> u32 {
    32 - bound.saturating_sub(1).leading_zeros()
}

/// Raw bits per gap: the high parts keep a mean of 24 to 48, where raw low bits waste next to nothing and
/// continuations are rare.
fn low_bits(count: usize, bound: u32) -> u32 {
    let mean = u64::from(bound) / (count as u64).max(1);
    (64 - (mean / 24).leading_zeros()).saturating_sub(1)
}

/// The table of high parts of random gaps: falling by a constant factor, in fixed point so that every
/// machine makes the same.
fn geometric_table(count: usize, bound: u32, k: u32) -> Table {
    const ONE: u64 = 1 << 32;
    // Probability of no position at one place, then at 2^k places.
    let mut ratio = ONE - (ONE / u64::from(bound.max(1))).saturating_mul(count as u64).min(ONE - 1);
    for _ in 0..k {
        ratio = (ratio * ratio) >> 32;
    }
    let mut counts = [0u64; 256];
    let mut left = ONE;
    for c in &mut counts[..255] {
        let kept = (left * ratio) >> 32;
        // At least 1: every symbol must stay codable.
        *c = (left - kept).max(1);
        left = kept;
    }
    counts[255] = left.max(1);
    Table::from_counts(&counts).expect("every count is at least 1")
}
