//! A step of the entropy coder's lanes in vectors; [`lsb_format::entropy::DecodeTable::step`] and the refill after it are the
//! specification.

pub(super) mod avx2;
pub(super) mod avx512;
