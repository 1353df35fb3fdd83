//! How the lanes of an entropy coder share out the next words, in vectors that cannot expand.

/// Lanes of a vector.
const PART: usize = 8;

/// For each set of lanes that take a word: which of the next words each takes, a byte for each lane.
pub(super) static EXPAND: [u64; 256] = {
    let mut table = [0; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut next) = (0, 0);
        while lane < PART {
            table[mask] |= next << (8 * lane);
            next += (mask >> lane & 1) as u64;
            lane += 1;
        }
        mask += 1;
    }
    table
};
