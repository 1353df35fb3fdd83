//! Elements to byte planes and back: rotate left by one bit, split into bytes, most significant first.

/// Fills `plane` with byte `index` (0 = most significant) of every rotated element of `width` bytes.
pub(super) fn take(width: usize, index: usize, bytes: &[u8], plane: &mut [u8]) {
    let shift = 8 * (width - 1 - index);
    match width {
        1 => take_sized::<1>(bytes, plane, |[b]| b.rotate_left(1)),
        2 => take_sized::<2>(bytes, plane, |b| (u16::from_le_bytes(b).rotate_left(1) >> shift) as u8),
        4 => take_sized::<4>(bytes, plane, |b| (u32::from_le_bytes(b).rotate_left(1) >> shift) as u8),
        _ => take_sized::<8>(bytes, plane, |b| (u64::from_le_bytes(b).rotate_left(1) >> shift) as u8),
    }
}

fn take_sized<const N: usize>(bytes: &[u8], plane: &mut [u8], byte: impl Fn([u8; N]) -> u8) {
    for (p, &b) in plane.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *p = byte(b);
    }
}

/// Puts plane `index` to its place in elements of `width` bytes. Plane 0 comes first and replaces what was
/// there; the last one turns the elements back into what they were.
pub(super) fn put(width: usize, index: usize, plane: &[u8], out: &mut [u8]) {
    let turn = u32::from(index + 1 == width);
    let keep = index > 0;
    match width {
        1 => put_sized::<1>(plane, out, |_, p| [p.rotate_right(turn)]),
        2 => put_sized::<2>(plane, out, |b, p| {
            let kept = if keep { u16::from_le_bytes(b) << 8 } else { 0 };
            (kept | u16::from(p)).rotate_right(turn).to_le_bytes()
        }),
        4 => put_sized::<4>(plane, out, |b, p| {
            let kept = if keep { u32::from_le_bytes(b) << 8 } else { 0 };
            (kept | u32::from(p)).rotate_right(turn).to_le_bytes()
        }),
        _ => put_sized::<8>(plane, out, |b, p| {
            let kept = if keep { u64::from_le_bytes(b) << 8 } else { 0 };
            (kept | u64::from(p)).rotate_right(turn).to_le_bytes()
        }),
    }
}

fn put_sized<const N: usize>(plane: &[u8], out: &mut [u8], put: impl Fn([u8; N], u8) -> [u8; N]) {
    for (b, &p) in out.as_chunks_mut::<N>().0.iter_mut().zip(plane) {
        *b = put(*b, p);
    }
}
