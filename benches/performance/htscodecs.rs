//! libhtscodecs' rANS coder with 32 interleaved states of 16-bit renormalization: the yardstick of entropy decoding.
//!
//! The one file of the benchmarks with `unsafe` in it: four functions of a C library, declared by hand.

use std::ffi::{c_int, c_uchar, c_uint};

/// Order 0 with 32 states (`RANS_ORDER_X32`).
const ORDER: c_int = 4;

#[allow(unsafe_code)]
#[link(name = "htscodecs")]
// SAFETY: signatures as in `htscodecs/rANS_static4x16.h` of version 1.3; the library keeps no pointer after it returns.
unsafe extern "C" {
    fn rans_compress_bound_4x16(size: c_uint, order: c_int) -> c_uint;
    fn rans_compress_to_4x16(
        input: *const c_uchar,
        input_size: c_uint,
        out: *mut c_uchar,
        out_size: *mut c_uint,
        order: c_int,
    ) -> *mut c_uchar;
    fn rans_uncompress_to_4x16(
        input: *const c_uchar,
        input_size: c_uint,
        out: *mut c_uchar,
        out_size: *mut c_uint,
    ) -> *mut c_uchar;
}

/// Encodes symbols. `None` where there are too many, or the library refuses.
#[allow(unsafe_code)]
pub(crate) fn compress(symbols: &[u8]) -> Option<Vec<u8>> {
    let size = c_uint::try_from(symbols.len()).ok()?;
    // SAFETY: takes numbers and returns one.
    let mut capacity = unsafe { rans_compress_bound_4x16(size, ORDER) };
    let mut out = vec![0; capacity as usize];
    // SAFETY: `symbols` is readable for `size` bytes and `out` writable for `capacity`; the library reads the one, which it
    // does not change in spite of its header, and writes no more than `capacity` to the other.
    let done =
        unsafe { rans_compress_to_4x16(symbols.as_ptr(), size, out.as_mut_ptr(), &raw mut capacity, ORDER) };
    out.truncate(capacity as usize);
    (!done.is_null()).then_some(out)
}

/// Decodes what [`compress`] made into `out`, as long as the symbols were. False where the library refuses.
#[allow(unsafe_code)]
pub(crate) fn decompress(coded: &[u8], out: &mut [u8]) -> bool {
    let (Ok(size), Ok(mut length)) = (c_uint::try_from(coded.len()), c_uint::try_from(out.len())) else {
        return false;
    };
    // SAFETY: `coded` is readable for `size` bytes and `out` writable for `length`, which the library is told and keeps to.
    let done = unsafe { rans_uncompress_to_4x16(coded.as_ptr(), size, out.as_mut_ptr(), &raw mut length) };
    !done.is_null() && length as usize == out.len()
}
