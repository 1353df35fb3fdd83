//! `trellis`: integers found by a trellis search and entropy coded, at any rate.
//!
//! A weight is an integer level times a step. The levels a weight may take depend on a small machine that is moved by the
//! levels before it: each state allows every second level, so that a level costs a bit less than on the
//! same grid without a machine, while the search finds a path on which most weights still get a level near them.
//! With 8 states independent Gaussian weights take 0.075 bits more than Shannon's bound at any rate, with 64 states
//! 0.047; rounding with the best possible entropy coder is 0.25 bits away.
//!
//! Tiles are grids of about 512 x 512 weights. A tile, little-endian:
//!
//! ```text
//! u8 kind
//! kind 0, all weights the same:   f32 value
//! kind 1, levels:   i16 exponent   f32 step   u32 length, model   u8 k   u32 length, escapes   run
//! ```
//!
//! Source: entropy-coded trellis-coded quantization, T. Fischer and M. Wang (1992); T. Fischer, M. Marcellin and
//! M. Wang, "Trellis-coded vector quantization" (1991); the union codebooks of Joshi, Crump and Fischer (1995).

mod calibrated;
mod classes;
mod decode;
mod encode;
pub mod feedback;
mod kernel;
mod machine;
mod products;
mod rescale;
mod scales;
mod search;
mod shape;
mod step;
#[cfg(test)]
mod tests;
mod tile;

pub use rescale::rescale;

use crate::allocate::RateControl;
use crate::scale::TileExponent;
use crate::{
    CodecEntry, Error, Estimate, MatrixInfo, Needs, ParameterHelp, Parameters, PerTile, Quantizer, Result,
    Statistics, TensorDecoder, TensorEncoder, Wanted,
};
use lsb_format::Tiling;
use lsb_format::entropy::LANES;
use machine::{Machine, STATES};
use std::sync::Arc;

const ID: &str = "trellis";

/// Kind of a tile whose weights are all the same.
const CONSTANT: u8 = 0;
/// Kind of a tile of levels whose trellis runs on from column to column.
const RUNNING_ON: u8 = 1;
/// Kind of a tile of levels whose trellis starts again in each column.
const RESTARTING: u8 = 2;

/// Starts a tile of levels.
fn tile_header(kind: u8, exponent: TileExponent, step: f32, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&exponent.to_le_bytes());
    out.extend_from_slice(&step.to_le_bytes());
}

/// Rows and columns of a tile of a large matrix.
const SIDE: u64 = 512;

/// Weights of the rows that plans with calibration are made on.
const SAMPLE: usize = 1 << 21;

const MIN_BPW: f64 = 0.25;
const MAX_BPW: f64 = 8.0;

const MIN_TAU: f64 = 1e-6;
const MAX_TAU: f64 = 1e6;

/// Trellis-coded integers with a common step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trellis {
    /// Bits per weight aimed at, 0.25 to 8.
    pub bpw: f64,
    /// Step instead of `bpw`, in standard deviations of the tensor or, where its map is calibrated, in units of the
    /// errors that its outputs bear; 0 where `bpw` counts.
    pub tau: f64,
    /// States of the machine: 4, 8, 16, 32, 64, 128 or 256.
    pub states: u32,
    /// What a bit costs in the search, in squared steps.
    pub lambda: f64,
}

impl Default for Trellis {
    fn default() -> Self {
        Trellis { bpw: 3.0, tau: 0.0, states: 64, lambda: 0.2 }
    }
}

const PARAMETERS: &[ParameterHelp] = &[
    ParameterHelp { name: "bpw", values: "3 (0.25 to 8)", summary: "bits per weight aimed at" },
    ParameterHelp {
        name: "tau",
        values: "0 (1e-6 to 1e6)",
        summary: "step in standard deviations, calibrated in units of bearable errors; instead of bpw",
    },
    ParameterHelp {
        name: "states",
        values: "64 (4, 8, 16, 32, 64, 128, 256)",
        summary: "more are better and slower to encode",
    },
    ParameterHelp {
        name: "lambda",
        values: "0.2 (0 to 1)",
        summary: "what a bit costs in the search, in squared steps",
    },
];

const LADDER: &[&str] = &[
    "bpw=0.5", "bpw=1", "bpw=1.5", "bpw=2", "bpw=2.5", "bpw=3", "bpw=3.5", "bpw=4", "bpw=5", "bpw=6",
    "bpw=7", "bpw=8",
];

pub(crate) fn entry() -> CodecEntry {
    CodecEntry::new(ID, "trellis-coded integers with entropy coding, at any rate", |p| {
        Ok(Arc::new(Trellis::from_parameters(p)?))
    })
    .with_parameters(PARAMETERS)
    .with_ladder(LADDER)
}

impl Trellis {
    /// The configuration with these parameters; absent ones have their defaults.
    ///
    /// # Errors
    /// If a parameter is unknown or out of range.
    pub fn from_parameters(parameters: &Parameters) -> Result<Self> {
        let d = Self::default();
        let mut r = parameters.reader(ID);
        let out = Trellis {
            bpw: r.number("bpw", d.bpw, MIN_BPW, MAX_BPW)?,
            tau: r.number("tau", d.tau, 0.0, MAX_TAU)?,
            states: r.integer("states", i64::from(d.states), 4, 256)? as u32,
            lambda: r.number("lambda", d.lambda, 0.0, 1.0)?,
        };
        r.finish()?;
        let bad = |name: &str, message: String| {
            Err(Error::Parameter { codec: ID.to_owned(), name: name.to_owned(), message })
        };
        if !STATES.contains(&out.states) {
            return bad("states", format!("{} is none of 4, 8, 16, 32, 64, 128, 256", out.states));
        }
        if out.tau != 0.0 && out.tau < MIN_TAU {
            return bad("tau", format!("{} is neither 0 nor in {MIN_TAU} to {MAX_TAU}", out.tau));
        }
        Ok(out)
    }

    fn machine(&self) -> Result<Machine> {
        Machine::new(self.states).ok_or_else(|| Error::Parameter {
            codec: ID.to_owned(),
            name: "states".to_owned(),
            message: format!("{} is none of 4, 8, 16, 32, 64, 128, 256", self.states),
        })
    }

    /// Step in standard deviations of Gaussian weights.
    fn gaussian_tau(&self) -> f64 {
        if self.tau > 0.0 { self.tau.clamp(0.002, 3.0) } else { step::tau(self.bpw, self.states) }
    }
}

impl Quantizer for Trellis {
    fn id(&self) -> &str {
        ID
    }

    fn parameters(&self) -> Parameters {
        Parameters::new()
            .with("bpw", self.bpw)
            .with("tau", self.tau)
            .with("states", self.states)
            .with("lambda", self.lambda)
    }

    fn estimate(&self, matrix: &MatrixInfo) -> Option<Estimate> {
        super::float_only(ID, matrix).ok()?;
        let tiles = self.tiling(matrix).ok()?.len() as f64;
        let tau = self.gaussian_tau();
        Some(Estimate {
            bytes: matrix.weights() as f64 * step::rate(tau, self.states) / 8.0 + 180.0 * tiles,
            snr_db: step::snr_db(tau, self.states),
        })
    }

    fn tiling(&self, matrix: &MatrixInfo) -> Result<Tiling> {
        let lanes = LANES as u64;
        let padded = matrix.cols.clamp(1, SIDE * SIDE).next_multiple_of(lanes);
        // Narrow matrices have taller tiles, low ones wider ones.
        let tile_rows = (SIDE * SIDE / padded).max(SIDE).min(matrix.rows).max(1);
        let tile_cols = (SIDE * SIDE / tile_rows / lanes * lanes).max(lanes).min(matrix.cols.max(1));
        Ok(Tiling::new(matrix.rows, matrix.cols, tile_rows, tile_cols, 1)?)
    }

    fn calibrated_bytes(&self, matrix: &MatrixInfo) -> u64 {
        let Ok(tiling) = self.tiling(matrix) else { return 0 };
        let band = tiling.tile_rows().min(matrix.rows) * matrix.cols;
        let sample = (SAMPLE as u64).max(matrix.cols).min(matrix.weights());
        // Targets and levels of the bands in work; the sample with its own.
        8 * band * feedback::bands_at_once(band as usize) as u64 + 12 * sample
    }

    fn needs(&self) -> Needs {
        Needs::magnitudes().with_sample(SAMPLE).with_calibration(Wanted::Yes)
    }

    fn encoder(&self, matrix: &MatrixInfo, statistics: &Statistics) -> Result<Box<dyn TensorEncoder>> {
        super::float_only(ID, matrix)?;
        if let (Some(calibration), Some(sample)) = (&statistics.calibration, &statistics.sample) {
            let plan = calibrated::plan(self, matrix, sample, calibration)?;
            return Ok(Box::new(feedback::FeedbackEncoder::new(plan)));
        }
        let step = match &statistics.magnitudes {
            Some(m) if self.tau > 0.0 => self.tau * m.mean_square().sqrt(),
            Some(m) => step::step(m, self.bpw, self.states),
            None => {
                return Err(lsb_format::Error::argument("trellis needs the magnitudes of the tensor").into());
            }
        };
        let encoder =
            encode::Encoder { machine: self.machine()?, lambda: self.lambda, step, dtype: matrix.dtype };
        Ok(Box::new(PerTile::new(encoder)))
    }

    fn decoder(&self, matrix: &MatrixInfo, side: &[u8]) -> Result<Box<dyn TensorDecoder>> {
        super::float_only(ID, matrix)?;
        Ok(Box::new(decode::Decoder::new(self.machine()?, side, matrix)?))
    }

    fn rate_control(&self) -> Option<&dyn RateControl> {
        Some(self)
    }

    fn finer(&self) -> Option<Arc<dyn Quantizer>> {
        let finer = Trellis { bpw: self.bpw + 0.5, tau: self.tau / 1.4, ..*self };
        let possible = if self.tau > 0.0 { finer.tau >= MIN_TAU } else { finer.bpw <= MAX_BPW };
        possible.then(|| Arc::new(finer) as Arc<dyn Quantizer>)
    }
}
