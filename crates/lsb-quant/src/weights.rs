//! Source bytes to f32 values.

use half::f16;
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
}
