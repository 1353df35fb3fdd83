//! The entropy coder: 32-lane interleaved static rANS.
//!
//! *Lanes.* Symbol `i` belongs to lane `i mod 32`. Every lane has a 32-bit state in `[2^15, 2^31)`; all lanes
//! share one stream of 16-bit words. To decode symbol `i`, a lane takes the low [`PRECISION`] bits of its state
//! as a slot, looks the slot up in a table, advances, and refills from the next word if it fell below `2^15`.
//! A vector decoder takes 32 symbols a step and then hands the next words to the lanes that need one, in
//! lane order: the same order.
//!
//! *Tables.* [`Table`] holds integer frequencies that sum to `2^12`. [`encode_run`] and [`decode_run`] let the
//! caller choose among several tables for every symbol (by the state of a trellis, say);
//! [`encode_symbols`] and [`decode_symbols`] are the plain form for bytes, with the table inside and an
//! escape for symbols too rare for the precision. [`encode_escapes`] holds integers that no alphabet holds, and
//! [`encode_positions`] increasing positions.
//!
//! *Size.* A run of up to `2^18` symbols takes at most its entropy times 1.003 plus 160 bytes, tables apart.
//!
//! Source: J. Duda, "Asymmetric numeral systems" (2013), in the range variant; interleaving as described by
//! F. Giesen, "Interleaved entropy coders" (2014).

mod bucket;
mod decode;
mod encode;
mod escape;
mod positions;
mod share;
mod symbols;
mod table;
#[cfg(test)]
mod tests;

pub use bucket::{Alphabet, BUCKET_BITS, Bucket, BucketTable};
pub use decode::{Context, RunDecoder, SingleTable, decode_run};
pub use encode::encode_run;
pub use escape::{MAX_ESCAPE_BITS, decode_escapes, encode_escapes, fold, unfold};
pub use positions::{decode_positions, decode_positions_with, encode_positions};
pub use symbols::{
    decode_symbols, decode_symbols_with, encode_symbols, encode_symbols_saving, symbols_len_bound,
};
pub use table::{DecodeTable, PRECISION, Table};

/// Lanes that share a stream.
pub const LANES: usize = 32;

/// The smallest state of a lane, and the state every lane starts encoding with and must end decoding with.
pub const LOW: u32 = 1 << 15;
