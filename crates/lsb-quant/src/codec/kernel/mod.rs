//! Lanes of the entropy coder in vectors: what the kernels of all codecs that decode runs have in common.
//! [`lsb_format::entropy::DecodeTable::step`] and the refill after it are the specification.

pub(super) mod avx2;
pub(super) mod avx512;
