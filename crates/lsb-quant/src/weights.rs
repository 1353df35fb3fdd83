//! Source bytes to f32 values.

use half::{bf16, f16};
use lsb_format::DType;

/// Decodes little-endian elements of a float type into f32. F64 is rounded to nearest.
///
/// # Panics
/// If `dtype` is not a float type or `bytes` is not a whole number of elements.
pub fn to_f32(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() * 8 / dtype.bits() as usize];
    to_f32_into(dtype, bytes, &mut out);
    out
}

/// As [`to_f32`], into a buffer of the right length.
///
/// # Panics
/// If `dtype` is not a float type or the lengths do not match.
#[inline(always)]
pub fn to_f32_into(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len() as u64 * 8, out.len() as u64 * dtype.bits(), "length of the output");
    match dtype {
        DType::F32 => fill(bytes, out, f32::from_le_bytes),
        DType::BF16 => fill(bytes, out, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
        DType::F16 => fill(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
        DType::F64 => fill(bytes, out, |b| f64::from_le_bytes(b) as f32),
        DType::F8_E4M3 => fill(bytes, out, |[b]| f8_e4m3(b)),
        DType::F8_E5M2 => fill(bytes, out, |[b]| f16::from_le_bytes([0, b]).to_f32()),
        other => panic!("{other} is not a float type"),
    }
}

#[inline(always)]
fn fill<const N: usize>(bytes: &[u8], out: &mut [f32], decode: impl Fn([u8; N]) -> f32) {
    let (chunks, _) = bytes.as_chunks::<N>();
    for (o, &b) in out.iter_mut().zip(chunks) {
        *o = decode(b);
    }
}

/// The OCP 8-bit float with 4 exponent bits, bias 7, no infinities, NaN at all ones.
fn f8_e4m3(byte: u8) -> f32 {
    let sign = if byte & 0x80 != 0 { -1.0 } else { 1.0 };
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    sign * match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * 2.0f32.powi(exponent - 7),
    }
}

/// Rounds f32 values to a float type, to nearest with ties to even, as little-endian bytes.
///
/// # Panics
/// If `dtype` is not a float type or the lengths do not match.
pub fn from_f32_into(dtype: DType, values: &[f32], out: &mut [u8]) {
    assert_eq!(out.len() as u64 * 8, values.len() as u64 * dtype.bits(), "length of the output");
    match dtype {
        DType::F32 => spread(values, out, f32::to_le_bytes),
        DType::BF16 => spread(values, out, |x| bf16::from_f32(x).to_le_bytes()),
        DType::F16 => spread(values, out, |x| f16::from_f32(x).to_le_bytes()),
        DType::F64 => spread(values, out, |x| f64::from(x).to_le_bytes()),
        DType::F8_E4M3 | DType::F8_E5M2 => {
            let positive: Vec<f32> = (0..128u8).map(|b| to_f32(dtype, &[b])[0]).collect();
            let finite = positive.iter().take_while(|x| x.is_finite()).count();
            spread(values, out, |x| [nearest_f8(&positive[..finite], x)]);
        }
        other => panic!("{other} is not a float type"),
    }
}

fn spread<const N: usize>(values: &[f32], out: &mut [u8], encode: impl Fn(f32) -> [u8; N]) {
    let (chunks, _) = out.as_chunks_mut::<N>();
    for (o, &x) in chunks.iter_mut().zip(values) {
        *o = encode(x);
    }
}

/// The code of the nearest of `positive`, the finite values of codes 0, 1, 2, ...; the largest one beyond
/// them, and all ones for NaN.
fn nearest_f8(positive: &[f32], x: f32) -> u8 {
    if x.is_nan() {
        return 0xff;
    }
    let sign = if x.is_sign_negative() { 0x80 } else { 0 };
    let size = x.abs();
    let above = positive.partition_point(|&p| p < size);
    let code = match (above.checked_sub(1), positive.get(above)) {
        (None, _) => 0,
        (Some(below), None) => below,
        (Some(below), Some(&p)) => {
            let (down, up) = (size - positive[below], p - size);
            let odd = below % 2 == 1;
            if up < down || (up == down && odd) { above } else { below }
        }
    };
    sign | code as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_floats_have_their_published_values() {
        assert_eq!(f8_e4m3(0x7e), 448.0);
        assert_eq!(f8_e4m3(0x01), 2f32.powi(-9));
        assert_eq!(f8_e4m3(0x38), 1.0);
        assert!(f8_e4m3(0xff).is_nan());
        assert_eq!(to_f32(DType::F8_E5M2, &[0x7b, 0x3c, 0x7c]), [57344.0, 1.0, f32::INFINITY]);
    }

    #[test]
    fn rounding_to_a_narrow_type_keeps_what_it_can_hold() {
        for dtype in [DType::F8_E4M3, DType::F8_E5M2] {
            let all: Vec<u8> = (0..=255).collect();
            let values = to_f32(dtype, &all);
            let mut back = vec![0; 256];
            from_f32_into(dtype, &values, &mut back);
            for (code, value) in all.iter().zip(&values).filter(|(_, v)| v.is_finite()) {
                assert_eq!(back[usize::from(*code)], *code, "{dtype} {value}");
            }
        }
        let mut out = [0];
        for (x, code) in [(1e9, 0x7e), (-1e9, 0xfe), (1.0625, 0x38), (1.1875, 0x3a), (0.0, 0)] {
            from_f32_into(DType::F8_E4M3, &[x], &mut out);
            assert_eq!(out[0], code, "{x}");
        }
        let mut out = [0; 2];
        from_f32_into(DType::BF16, &[1.0 + 1.0 / 256.0], &mut out);
        assert_eq!(u16::from_le_bytes(out), 0x3f80);
    }
}
