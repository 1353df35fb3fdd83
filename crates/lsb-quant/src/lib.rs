//! Integers to weights and back.
//!
//! The [`Quantizer`] trait, every codec that implements it (one folder each under `codec/`), the statistics
//! codecs ask for, and the [`Registry`] that turns an id and parameters into a codec. This crate knows
//! nothing about files, layer names or tensors' roles, and starts no threads of its own: parallel work runs
//! on whatever rayon pool the caller installed.

pub mod allocate;
pub mod calibrate;
pub mod codec;
mod distortion;
mod error;
mod group;
mod isa;
mod lanes;
mod number;
mod parameters;
mod quantizer;
mod registry;
mod scale;
mod span;
mod statistics;
mod unpacked;
mod vectorize;
mod weights;

pub use distortion::Distortion;
pub use error::{Error, Result};
pub use group::Group;
pub use isa::Isa;
pub use parameters::{Parameters, Reader, Value};
pub use quantizer::{
    Account, EncodedTile, Estimate, MatrixInfo, PerTile, Quantizer, TensorDecoder, TensorEncoder,
    TileEncoder, TileProducts,
};
pub use registry::{CodecEntry, ParameterHelp, Registry};
pub use span::Span;
pub use statistics::{Magnitudes, Needs, OutlierSelection, RowSample, Statistics, Surveyor, Wanted};
pub use unpacked::{Activations, Packing, UnpackedTile};
pub use weights::{from_f32_into, to_f32, to_f32_into};
