//! Identity on every bit pattern, size on bell-shaped weights, no harm from damage.

use super::*;
use lsb_format::Tiling;
use proptest::prelude::*;

fn encode(dtype: DType, bytes: &[u8]) -> (Tile, Vec<u8>) {
    let n = (bytes.len() / width(dtype)) as u64;
    let tile = Tiling::standard(1, n).unwrap().tile(0);
    let mut out = EncodedTile::default();
    Encoder { width: width(dtype) }.encode_tile(&tile, bytes, &mut out).unwrap();
    (tile, out.bytes().to_vec())
}

fn assert_identity(dtype: DType, bytes: &[u8]) -> usize {
    let (tile, coded) = encode(dtype, bytes);
    let mut back = vec![0x55; bytes.len()];
    Decoder { dtype }.decode_exact(&tile, &[&coded], &mut back).unwrap();
    assert!(back == bytes, "{dtype}");
    coded.len()
}

#[test]
fn every_16_bit_pattern_comes_back() {
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for dtype in [DType::BF16, DType::F16] {
        let len = assert_identity(dtype, &all);
        assert!(len <= all.len() + all.len() / 1000 + 16, "{dtype}: {len}");
    }
    let bytes: Vec<u8> = (0..=255).collect();
    assert_identity(DType::F8_E4M3, &bytes);
    assert_identity(DType::F8_E5M2, &bytes);
}

#[test]
fn values_that_once_were_bf16_shrink_to_bf16_size() {
    let mut state = 1u32;
    let bf16: Vec<u16> = (0..1 << 16)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (((state >> 9) as f32 / (1 << 23) as f32 - 0.5).to_bits() >> 16) as u16
        })
        .collect();
    let narrow: Vec<u8> = bf16.iter().flat_map(|x| x.to_le_bytes()).collect();
    let wide: Vec<u8> = bf16.iter().flat_map(|&x| (u32::from(x) << 16).to_le_bytes()).collect();
    let (a, b) = (assert_identity(DType::BF16, &narrow), assert_identity(DType::F32, &wide));
    // The sign moves to the last plane, where it takes its one bit.
    assert!(b <= a + (1 << 13) + 600, "{a} {b}");
}

proptest! {
    #[test]
    fn prop_roundtrip_is_identity(bytes in prop::collection::vec(any::<u8>(), 0..4000), kind in 0usize..6) {
        let dtype = [DType::F64, DType::F32, DType::F16, DType::BF16, DType::F8_E4M3, DType::F8_E5M2][kind];
        let whole = bytes.len() - bytes.len() % width(dtype);
        if whole > 0 {
            let len = assert_identity(dtype, &bytes[..whole]);
            prop_assert!(len <= whole + 5 * width(dtype));
        }
    }

    #[test]
    fn prop_decode_never_panics_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600), n in 1u64..100) {
        let tile = Tiling::standard(1, n).unwrap().tile(0);
        for dtype in [DType::BF16, DType::F32] {
            let mut out = vec![0; n as usize * width(dtype)];
            let _ = Decoder { dtype }.decode_exact(&tile, &[&bytes], &mut out);
        }
    }
}
