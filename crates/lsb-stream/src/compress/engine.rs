//! One tensor through one codec: survey, encode, decode again, compare.

use crate::manager::TensorLease;
use crate::{Budget, Error, Reservation, Result};
use lsb_format::Tiling;
use lsb_quant::calibrate::Calibration;
use lsb_quant::{
    Account, Distortion, EncodedTile, MatrixInfo, Quantizer, Span, Surveyor, TensorDecoder, to_f32_into,
};
use rayon::prelude::*;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Takes encoded tiles in order.
pub(super) trait TileSink {
    /// Takes the next tiles.
    fn push(&mut self, tiles: Vec<EncodedTile>) -> Result<()>;
    /// An empty vector of `n` cleared tiles, reusing memory where possible.
    fn blank(&mut self, n: usize) -> Vec<EncodedTile>;
}

/// What encoding a tensor gave, apart from its tiles.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) side: Vec<u8>,
    /// True where the decoder restores the source bit for bit (and was seen to, if monitored).
    pub(super) exact: bool,
    /// Error sums, where monitored and the tensor is numeric.
    pub(super) distortion: Option<Distortion>,
    /// What calibration came to.
    pub(super) account: Option<Account>,
}

/// Two tiles' worth of values per thread, used again and again.
#[derive(Debug, Default)]
struct Scratch {
    original: Vec<f32>,
    decoded: Vec<f32>,
    exact: Vec<u8>,
}

/// Encodes tensors on a pool of threads.
pub(super) struct Engine {
    pool: rayon::ThreadPool,
    monitor: bool,
    interrupt: Arc<AtomicBool>,
    scratch: Mutex<Vec<Scratch>>,
    budget: Budget,
}

impl Engine {
    pub(super) fn new(
        threads: usize,
        monitor: bool,
        interrupt: Arc<AtomicBool>,
        budget: Budget,
    ) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("lsb-compute-{i}"))
            .build()
            .map_err(|e| Error::Config(format!("cannot start {threads} threads: {e}; use --threads 1")))?;
        Ok(Engine { pool, monitor, interrupt, scratch: Mutex::default(), budget })
    }

    /// Runs `work` on the pool.
    pub(super) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// Encodes the tensor of `lease` with `quantizer`, which is told of `calibration`. `advanced` hears of source bytes encoded.
    ///
    /// # Errors
    /// If reading, encoding or the sink fails, or a decoder does not agree with its encoder.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn encode(
        &self,
        name: &str,
        lease: &mut TensorLease,
        matrix: &MatrixInfo,
        quantizer: &dyn Quantizer,
        calibration: Option<&Calibration>,
        sink: &mut dyn TileSink,
        advanced: &mut dyn FnMut(u64),
    ) -> Result<Encoded> {
        let codec = |e| Error::codec(name)(e);
        let tiling = quantizer.tiling(matrix).map_err(codec)?;
        same_geometry(&tiling, &lease.item().tiling, quantizer.id())?;

        let mut surveyor = Surveyor::new(&quantizer.needs(), matrix, &tiling);
        while surveyor.wants_pass() {
            lease.pass(|chunk| {
                self.check_interrupt()?;
                let span = Span::new(*matrix, tiling, chunk.tiles.clone(), &chunk.bytes);
                let _phase = tracing::debug_span!("survey").entered();
                self.pool.install(|| surveyor.observe(&span)).map_err(codec)?;
                Ok(ControlFlow::Continue(()))
            })?;
            surveyor.end_pass();
        }
        let mut statistics = surveyor.finish();
        statistics.calibration = calibration.cloned();

        let mut encoder = self.pool.install(|| quantizer.encoder(matrix, &statistics)).map_err(codec)?;
        drop(statistics);
        let decoder = match encoder.side() {
            Some(side) if self.monitor => Some(quantizer.decoder(matrix, &side).map_err(codec)?),
            _ => None,
        };
        let side_known = encoder.side().is_some();
        let mut meter = Meter { distortion: Distortion::default() };
        // Tiles that cannot be checked yet because their side information is not known yet.
        let mut held: Vec<(Vec<EncodedTile>, Reservation)> = Vec::new();
        lease.pass(|chunk| {
            self.check_interrupt()?;
            let span = Span::new(*matrix, tiling, chunk.tiles.clone(), &chunk.bytes);
            let mut tiles = sink.blank(span.len());
            self.pool.install(|| encoder.encode(&span, &mut tiles)).map_err(codec)?;
            if let Some(decoder) = &decoder {
                self.check(name, &span, &tiles, &**decoder, &mut meter)?;
            }
            if side_known || !self.monitor {
                sink.push(tiles)?;
            } else {
                let bytes = tiles.iter().map(|t| t.bytes().len() as u64).sum();
                held.push((tiles, self.budget.reserve(bytes, "encoded tiles")?));
            }
            advanced(chunk.bytes.len() as u64);
            Ok(ControlFlow::Continue(()))
        })?;
        let side = encoder.finish().map_err(codec)?;
        let decoder = quantizer.decoder(matrix, &side).map_err(codec)?;
        if !held.is_empty() {
            let mut batches = held.into_iter();
            lease.pass(|chunk| {
                let span = Span::new(*matrix, tiling, chunk.tiles.clone(), &chunk.bytes);
                if let Some((tiles, _reservation)) = batches.next() {
                    self.check(name, &span, &tiles, &*decoder, &mut meter)?;
                    sink.push(tiles)?;
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        let distortion = (self.monitor && matrix.dtype.is_float()).then_some(meter.distortion);
        Ok(Encoded { side, exact: decoder.is_exact(), distortion, account: encoder.account() })
    }

    fn check_interrupt(&self) -> Result<()> {
        if self.interrupt.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Decodes what was just encoded and compares it with the source. This is also the only defence
    /// against a defect of our own or of the memory before the source is out of sight.
    fn check(
        &self,
        name: &str,
        span: &Span<'_>,
        tiles: &[EncodedTile],
        decoder: &dyn TensorDecoder,
        meter: &mut Meter,
    ) -> Result<()> {
        let results: Vec<Result<Distortion>> = self.pool.install(|| {
            tiles
                .par_iter()
                .enumerate()
                .map(|(i, tile)| {
                    let mut scratch = self.take_scratch();
                    let result = check_tile(name, span, i, tile, decoder, &mut scratch);
                    self.scratch.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
                    result
                })
                .collect()
        });
        for result in results {
            meter.distortion.merge(&result?);
        }
        Ok(())
    }

    fn take_scratch(&self) -> Scratch {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }
}

struct Meter {
    distortion: Distortion,
}

fn same_geometry(a: &Tiling, b: &Tiling, codec: &str) -> Result<()> {
    if (a.tile_rows(), a.tile_cols()) == (b.tile_rows(), b.tile_cols()) {
        return Ok(());
    }
    Err(Error::Config(format!("{codec}: a finer configuration must keep the partition into tiles")))
}

fn check_tile(
    name: &str,
    span: &Span<'_>,
    i: usize,
    encoded: &EncodedTile,
    decoder: &dyn TensorDecoder,
    scratch: &mut Scratch,
) -> Result<Distortion> {
    let _phase = tracing::debug_span!("checking").entered();
    let tile = span.tile(i);
    let disagree = |what: String| {
        Error::Input(
            lsb_format::Error::corruption("P40", what)
                .in_tensor(name)
                .in_tile(tile.index)
                .advise("nothing of it was published; this is faulty memory or a bug in the codec"),
        )
    };
    let parts: Vec<&[u8]> = encoded.parts().collect();
    let dtype = span.matrix().dtype;
    if parts.len() != usize::from(span.tiling().parts()) {
        return Err(disagree(format!(
            "the encoder made {} parts, not {}",
            parts.len(),
            span.tiling().parts()
        )));
    }
    let decoded = |e: lsb_quant::Error| disagree(format!("the decoder refuses what the encoder wrote: {e}"));
    if decoder.is_exact() {
        let source = &*span.tile_source(i);
        scratch.exact.resize(source.len(), 0);
        decoder.decode_exact(&tile, &parts, &mut scratch.exact).map_err(decoded)?;
        if scratch.exact != source {
            return Err(disagree("the decoder does not restore the source".into()));
        }
        if !dtype.is_float() {
            return Ok(Distortion::default());
        }
        scratch.original.resize(tile.weights(), 0.0);
        to_f32_into(dtype, source, &mut scratch.original);
        let same = Distortion::measure(&scratch.original, &scratch.original);
        // NaN and infinity are kept exactly but have no place in sums.
        return Ok(if same.sum_ww.is_finite() { same } else { Distortion::default() });
    }
    scratch.original.resize(tile.weights(), 0.0);
    scratch.decoded.resize(tile.weights(), 0.0);
    to_f32_into(dtype, &span.tile_source(i), &mut scratch.original);
    decoder.decode(&tile, &parts, &mut scratch.decoded).map_err(decoded)?;
    let distortion = Distortion::measure(&scratch.original, &scratch.decoded);
    if !distortion.sum_ee.is_finite() {
        return Err(disagree("the decoded weights are not finite".into()));
    }
    Ok(distortion)
}
