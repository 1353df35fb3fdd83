//! The trellis: which levels a state allows, and where each leads.
//!
//! Levels are integers, split into four subsets by their remainder modulo 4. A state allows the even levels (subsets
//! 0 and 2) or the odd ones (1 and 3), and which of the two subsets is taken decides the next state. That is a
//! convolutional code of rate 1/2: the state holds the last bits that went in, the newest lowest; the
//! parity of some of them is the low bit of the subset, the parity of others and of the new bit its high one.
//!
//! Sources: M. Marcellin and T. Fischer, "Trellis coded quantization of memoryless and Gauss-Markov sources"
//! (1990); union codebooks: M. Joshi, V. Crump and T. Fischer, "Image subband coding using arithmetic coded trellis
//! coded quantization" (1995). Codes: G. Ungerboeck, "Trellis-coded modulation with redundant signal sets" (1987).

/// Numbers of states there are machines for.
pub(super) const STATES: [u32; 7] = [4, 8, 16, 32, 64, 128, 256];

/// A machine with a power of two of states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    /// All bits of a state set: the number of states less one.
    mask: u8,
    /// Bits of the state whose parity says if levels are odd.
    odd: u8,
    /// Bits of the state whose parity turns the high bit of the subset into the bit that goes in.
    turn: u8,
}

impl Machine {
    /// The machine with that many states, or `None` if there is none.
    pub(super) const fn new(states: u32) -> Option<Machine> {
        // Parity checks h1 and h0 of Ungerboeck's table for amplitude modulation; bit i is the bit i + 1 steps ago.
        let (odd, turn) = match states {
            4 => (0b01, 0b10),
            8 => (0b001, 0b110),
            16 => (0b0010, 0b1001),
            32 => (0b00100, 0b10010),
            64 => (0b001010, 0b100001),
            128 => (0b0101011, 0b1001110),
            256 => (0b01111001, 0b10100110),
            _ => return None,
        };
        Some(Machine { mask: (states - 1) as u8, odd, turn })
    }

    /// How many states there are.
    pub(super) fn states(self) -> usize {
        usize::from(self.mask) + 1
    }

    /// What a bit that goes in adds to a [`Register`].
    pub(super) fn taps(self) -> u16 {
        // Bit i of `odd` counts the bit that went in i + 1 steps ago: that one counts i steps after it went in.
        u16::from(self.odd) << Register::SET | u16::from(self.turn)
    }

    /// Bits of a state whose parity says if levels are odd, those whose parity turns the bit that goes in, and all.
    #[cfg(target_arch = "x86_64")]
    pub(super) const fn masks(self) -> (u8, u8, u8) {
        (self.odd, self.turn, self.mask)
    }

    /// 0 where a state allows the even levels, 1 where it allows the odd ones.
    #[inline(always)]
    pub(super) fn set(self, state: u8) -> usize {
        parity(state & self.odd) as usize
    }

    /// The state after a level `2 k + set` whose `k` has this lowest bit.
    #[cfg(test)]
    pub(super) fn next(self, state: u8, bit: u8) -> u8 {
        (state << 1 | (bit ^ parity(state & self.turn)) & 1) & self.mask
    }

    /// The two ways into a state: the state before and the subset taken.
    pub(super) fn ways_into(self, state: u8) -> [Way; 2] {
        [0, self.mask ^ self.mask >> 1].map(|top| {
            let from = state >> 1 | top;
            let high = (state & 1) ^ parity(from & self.turn);
            Way { from: usize::from(from), subset: usize::from(high) << 1 | self.set(from) }
        })
    }
}

/// A step of the trellis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) from: usize,
    pub(super) subset: usize,
}

#[inline(always)]
fn parity(bits: u8) -> u8 {
    (bits.count_ones() & 1) as u8
}

/// The state of a machine as decoders keep it: not what went in, but what it will come to.
///
/// From bit [`Register::SET`] on, whether levels are odd now, after one more step, after two, as far as the bits known so far
/// decide it; from bit 0 on the same of what turns the bit that goes in. A step moves all of it down by one
/// and adds [`Machine::taps`] if the bit is set: no parity has to be counted (the transposed form of the filter that the
/// code is).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Register(pub(super) u16);

impl Register {
    /// Place of the bit that says if levels are odd: each part holds eight bits of a state.
    pub(super) const SET: u32 = 8;
    /// Bits that stay when all are moved down: none moves from one part into the other.
    pub(super) const STAY: u16 = !(1 << (Self::SET - 1));

    /// 0 where levels are even, 1 where they are odd.
    #[inline(always)]
    pub(super) fn set(self) -> u16 {
        self.0 >> Self::SET & 1
    }

    /// The register after a level `2 k + set` whose `k` has this lowest bit.
    #[inline(always)]
    pub(super) fn next(self, taps: u16, bit: u16) -> Register {
        let goes_in = (self.0 ^ bit) & 1;
        Register(self.0 >> 1 & Self::STAY ^ goes_in.wrapping_neg() & taps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Subset taken and next state, for both subsets of every state.
    fn table(machine: Machine) -> Vec<[(usize, u8); 2]> {
        (0..=machine.mask)
            .map(|s| [0, 1].map(|bit| (2 * usize::from(bit) + machine.set(s), machine.next(s, bit))))
            .collect()
    }

    #[test]
    fn eight_states_are_the_textbook_table() {
        let expected = [
            [(0, 0), (2, 1)],
            [(1, 2), (3, 3)],
            [(0, 5), (2, 4)],
            [(1, 7), (3, 6)],
            [(0, 1), (2, 0)],
            [(1, 3), (3, 2)],
            [(0, 4), (2, 5)],
            [(1, 6), (3, 7)],
        ];
        assert_eq!(table(Machine::new(8).unwrap()), expected);
    }

    #[test]
    fn registers_go_where_states_go() {
        for states in STATES {
            let machine = Machine::new(states).unwrap();
            let mut random = 1u64;
            let (mut state, mut register) = (0, Register::default());
            for _ in 0..10_000 {
                assert_eq!(usize::from(register.set()), machine.set(state), "{states} states");
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let bit = (random >> 63) as u8;
                (state, register) = (machine.next(state, bit), register.next(machine.taps(), bit.into()));
            }
        }
    }

    #[test]
    fn ways_in_are_the_ways_out() {
        for states in STATES {
            let machine = Machine::new(states).unwrap();
            let mut ways = 0;
            for s in 0..=machine.mask {
                for way in machine.ways_into(s) {
                    let from = way.from as u8;
                    assert_eq!(machine.set(from), way.subset & 1);
                    assert_eq!(machine.next(from, (way.subset >> 1) as u8), s);
                    ways += 1;
                }
            }
            assert_eq!(ways, 2 * states);
            let odd = (0..=machine.mask).filter(|&s| machine.set(s) == 1).count();
            assert_eq!(odd as u32, states / 2, "half the states allow odd levels");
        }
        assert!(Machine::new(2).is_none() && Machine::new(12).is_none());
    }
}
