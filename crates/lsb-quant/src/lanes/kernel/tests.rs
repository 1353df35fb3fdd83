//! Every kernel against the scalar one.

use super::run;
use super::scalar::Scalar;
use crate::isa::Isa;
use crate::lanes::{LANES, Lanes, WORD, Work};
use proptest::prelude::*;

/// Some of everything.
#[derive(Clone, Copy, Debug)]
struct Words {
    values: [f32; WORD],
    level: f32,
    keys: [i16; WORD],
    least: i16,
    bytes: [u8; WORD],
}

impl Work for Words {
    type Output = ([u32; 3], [f32; LANES], [u32; LANES]);

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Self::Output {
        let words = [
            lanes.above(&self.values, self.level),
            lanes.at_least(&self.keys, self.least),
            lanes.lowest_bits(&self.bytes),
        ];
        let integers = lanes.integers(self.keys.first_chunk().unwrap());
        let values = lanes.load(self.values.first_chunk().unwrap());
        // No sum begins with -0, and no payload of a NaN is promised.
        let sums = lanes.store(lanes.add_where(lanes.splat(self.level + 0.0), words[2], values));
        (words, lanes.store(integers), sums.map(bits))
    }
}

/// The bits of a number, those of one NaN for all.
fn bits(x: f32) -> u32 {
    if x.is_nan() { f32::NAN } else { x }.to_bits()
}

fn plain(words: &Words) -> ([u32; 3], [f32; LANES], [u32; LANES]) {
    let word = |bit: &dyn Fn(usize) -> bool| (0..WORD).fold(0, |word, i| word | u32::from(bit(i)) << i);
    let words_of_bits = [
        word(&|i| words.values[i] > words.level),
        word(&|i| words.keys[i] >= words.least),
        word(&|i| words.bytes[i] & 1 == 1),
    ];
    let level = words.level + 0.0;
    let sum = |i: usize| if words.bytes[i] & 1 == 1 { level + words.values[i] } else { level };
    (words_of_bits, std::array::from_fn(|i| f32::from(words.keys[i])), std::array::from_fn(|i| bits(sum(i))))
}

proptest! {
    #[test]
    fn prop_every_kernel_gives_the_bits_of_a_plain_loop(
        values in prop::array::uniform32(prop_oneof![-1.0f32..1.0, any::<f32>(), Just(0.0), Just(-0.0), Just(0.5)]),
        level in prop_oneof![-1.0f32..1.0, Just(0.0), Just(0.5), any::<f32>()],
        keys in prop::array::uniform32(any::<i16>()),
        least in any::<i16>(),
        bytes in prop::array::uniform32(any::<u8>()),
    ) {
        let words = Words { values, level, keys, least, bytes };
        let expected = plain(&words);
        prop_assert_eq!(words.run(Scalar), expected);
        for isa in Isa::ALL {
            prop_assert_eq!(run(isa, words), expected, "{}", isa.name());
        }
        let equal = Words { least: keys[0], ..words };
        prop_assert_eq!(run(Isa::chosen(), equal), plain(&equal));
    }
}
