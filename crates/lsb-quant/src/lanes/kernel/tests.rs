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
    type Output = ([u32; 3], [f32; LANES]);

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Self::Output {
        let words = [
            lanes.above(&self.values, self.level),
            lanes.at_least(&self.keys, self.least),
            lanes.lowest_bits(&self.bytes),
        ];
        let integers = lanes.integers(self.keys.first_chunk().unwrap());
        (words, lanes.store(integers))
    }
}

fn plain(words: &Words) -> ([u32; 3], [f32; LANES]) {
    let word = |bit: &dyn Fn(usize) -> bool| (0..WORD).fold(0, |word, i| word | u32::from(bit(i)) << i);
    let words_of_bits = [
        word(&|i| words.values[i] > words.level),
        word(&|i| words.keys[i] >= words.least),
        word(&|i| words.bytes[i] & 1 == 1),
    ];
    (words_of_bits, std::array::from_fn(|i| f32::from(words.keys[i])))
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
