//! Elements to byte planes and back: rotate left by one bit, split into bytes, most significant first.

/// Fills `plane` with byte `index` (0 = most significant) of every rotated element of `width` bytes.
pub(super) fn take(width: usize, index: usize, bytes: &[u8], plane: &mut [u8]) {
    match width {
        1 => take_sized::<1>(bytes, plane, |[b]| b.rotate_left(1)),
        2 => {
            let shift = 8 * (1 - index);
            take_sized::<2>(bytes, plane, |b| (u16::from_le_bytes(b).rotate_left(1) >> shift) as u8);
        }
        4 => {
            let shift = 8 * (3 - index);
            take_sized::<4>(bytes, plane, |b| (u32::from_le_bytes(b).rotate_left(1) >> shift) as u8);
        }
        _ => {
            let shift = 8 * (7 - index);
            take_sized::<8>(bytes, plane, |b| (u64::from_le_bytes(b).rotate_left(1) >> shift) as u8);
        }
    }
}

fn take_sized<const N: usize>(bytes: &[u8], plane: &mut [u8], byte: impl Fn([u8; N]) -> u8) {
    for (p, &b) in plane.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *p = byte(b);
    }
}

/// Puts a plane to its place in elements that are still rotated.
pub(super) fn put(width: usize, index: usize, plane: &[u8], out: &mut [u8]) {
    let at = width - 1 - index;
    for (element, &p) in out.chunks_exact_mut(width).zip(plane) {
        element[at] = p;
    }
}

/// Undoes the rotation of every element.
pub(super) fn rotate_right(width: usize, out: &mut [u8]) {
    match width {
        1 => out.iter_mut().for_each(|b| *b = b.rotate_right(1)),
        2 => each::<2>(out, |b| u16::from_le_bytes(b).rotate_right(1).to_le_bytes()),
        4 => each::<4>(out, |b| u32::from_le_bytes(b).rotate_right(1).to_le_bytes()),
        _ => each::<8>(out, |b| u64::from_le_bytes(b).rotate_right(1).to_le_bytes()),
    }
}

fn each<const N: usize>(out: &mut [u8], turn: impl Fn([u8; N]) -> [u8; N]) {
    out.as_chunks_mut::<N>().0.iter_mut().for_each(|b| *b = turn(*b));
}
