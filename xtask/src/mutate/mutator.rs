//! Random changes to inputs, all from one seed.

/// A small generator (SplitMix64): the same seed gives the same run.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; zero where `n` is zero.
    pub(super) fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next() % n as u64) as usize }
    }
}

/// Numbers at which arithmetic goes wrong.
const INTERESTING: &[u64] = &[
    0,
    1,
    7,
    8,
    127,
    128,
    255,
    256,
    65_535,
    65_536,
    (1 << 20) + 1,
    i32::MAX as u64,
    u32::MAX as u64,
    1 << 32,
    1 << 53,
    i64::MAX as u64,
    u64::MAX - 7,
    u64::MAX,
];

/// What JSON readers stumble over.
const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "null",
    "true",
    "-1",
    "1e999",
    "1.5",
    "NaN",
    "\\ud800",
    "[[[[[[[[[[[[[[[[[[[[",
    "\"F4\"",
    "\"BF16\"",
    "\"I64\"",
    "18446744073709551615",
    "18446744073709551616",
    "../",
];

/// Inputs longer than this are cut: most faults need few bytes, and short inputs run fast.
pub(super) const MAX_LEN: usize = 1 << 16;

/// A changed copy of `input`; `other` gives material for splices.
pub(super) fn mutate(random: &mut Random, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..1 << random.below(4) {
        change(random, &mut out, other);
    }
    out.truncate(MAX_LEN);
    out
}

fn change(random: &mut Random, out: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(out.len());
    match random.below(10) {
        0 | 1 => flip(random, out, at),
        2 => {
            if let Some(byte) = out.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        3 => {
            let n = 1 + random.below(8);
            let bytes: Vec<u8> = (0..n).map(|_| random.next() as u8).collect();
            out.splice(at..at, bytes);
        }
        4 => {
            let n = (1 + random.below(16)).min(out.len() - at);
            out.drain(at..at + n);
        }
        5 => {
            let from = random.below(other.len());
            let n = (1 + random.below(64)).min(other.len() - from);
            let end = if random.below(2) == 0 { at } else { (at + n).min(out.len()) };
            out.splice(at..end, other[from..from + n].iter().copied());
        }
        6 => {
            let width = 1 << random.below(4);
            let number = INTERESTING[random.below(INTERESTING.len())].to_le_bytes();
            let n = width.min(out.len() - at);
            out[at..at + n].copy_from_slice(&number[..n]);
        }
        7 => {
            let token = TOKENS[random.below(TOKENS.len())].as_bytes();
            let replaced = random.below(token.len() + 1).min(out.len() - at);
            out.splice(at..at + replaced, token.iter().copied());
        }
        8 => change_number(random, out, at),
        _ => {
            let n = (1 + random.below(64)).min(out.len() - at);
            let copy = out[at..at + n].to_vec();
            let to = random.below(out.len());
            out.splice(to..to, copy);
        }
    }
}

fn flip(random: &mut Random, out: &mut [u8], at: usize) {
    if let Some(byte) = out.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

/// Replaces a run of decimal digits after `at`.
fn change_number(random: &mut Random, out: &mut Vec<u8>, at: usize) {
    let Some(start) = (at..out.len()).find(|&i| out[i].is_ascii_digit()) else { return };
    let end = (start..out.len()).find(|&i| !out[i].is_ascii_digit()).unwrap_or(out.len());
    let old: u64 = std::str::from_utf8(&out[start..end]).ok().and_then(|t| t.parse().ok()).unwrap_or(0);
    let new = match random.below(5) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        2 => old.wrapping_mul(2),
        3 => random.next() >> random.below(64),
        _ => INTERESTING[random.below(INTERESTING.len())],
    };
    out.splice(start..end, new.to_string().into_bytes());
}
