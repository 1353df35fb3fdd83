//! Reused buffers into which bands of weights are decoded.

use super::products::{PARTS_BYTES, kept_bytes};
use crate::{Error, Result};
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Tensor};
use lsb_stream::{Scratch, TensorWeights};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Weights per band where the rows of a matrix allow it: 2 MiB of f32, which stays in the second-level cache
/// while it is multiplied, and is enough rows for the matrix product to run at speed.
pub(crate) const BAND_WEIGHTS: usize = 1 << 19;

/// Buffers for bands, each for one lane of work.
#[derive(Debug)]
pub(crate) struct Bands {
    free: Mutex<Vec<Band>>,
    /// Buffers for tiles that are multiplied as they are decoded.
    scratch: Mutex<Vec<Scratch>>,
    lanes: usize,
}

/// A buffer for one band.
#[derive(Debug)]
pub(crate) struct Band {
    values: Tensor,
    scratch: Mutex<Scratch>,
}

impl Bands {
    /// Bands for matrices whose widest row has `row` weights: as many as there are threads, or as fit in `bytes` beside what
    /// products take, but one.
    pub(crate) fn new(row: usize, bytes: u64) -> Bands {
        let bytes = bytes.saturating_sub(Bands::products_bytes(row));
        let fit = usize::try_from(bytes / Bands::lane_bytes(row)).unwrap_or(usize::MAX);
        Bands {
            free: Mutex::default(),
            scratch: Mutex::default(),
            lanes: fit.min(rayon::current_num_threads()).max(1),
        }
    }

    /// Bytes of a band.
    fn lane_bytes(row: usize) -> u64 {
        // The decoded band, its bytes as they are stored (at most as many), a decoded tile that it covers in part, and two
        // stored tiles that are multiplied as they are decoded.
        2 * 4 * row.max(BAND_WEIGHTS) as u64 + (4 + 2) * lsb_format::TILE_WEIGHTS
    }

    /// Bytes of products that are made without bands.
    fn products_bytes(row: usize) -> u64 {
        PARTS_BYTES as u64 + kept_bytes(row)
    }

    /// Bytes of all bands for such matrices, and of products that are made without them.
    pub(crate) fn bytes(&self, row: usize) -> u64 {
        self.lanes as u64 * Bands::lane_bytes(row) + Bands::products_bytes(row)
    }

    /// How many bands there are.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes
    }

    /// Hands every item to `work`, no more of them at once than there are bands.
    pub(crate) fn for_each<T: Sync>(
        &self,
        items: &[T],
        work: impl Fn(&T) -> Result<()> + Sync,
    ) -> Result<()> {
        // A thread that waits inside of `work` may begin another item: counting threads would not do.
        let next = AtomicUsize::new(0);
        (0..self.lanes.min(items.len())).into_par_iter().try_for_each(|_| {
            while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                work(item)?;
            }
            Ok(())
        })
    }

    /// Rows of `width` weights that a band holds.
    pub(crate) fn rows_at_once(width: usize) -> usize {
        (BAND_WEIGHTS / width.max(1)).max(1)
    }

    /// Calls `work` with a scratch that nobody else uses.
    pub(super) fn with_scratch(
        &self,
        work: impl FnOnce(&mut Scratch) -> lsb_stream::Result<()>,
    ) -> Result<()> {
        let free = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = free().pop().unwrap_or_default();
        let done = work(&mut scratch);
        free().push(scratch);
        Ok(done?)
    }

    /// Decodes `elements` of `weights` and hands them to `use_band` as a tensor of shape `[rows, columns]`.
    pub(crate) fn with<R>(
        &self,
        weights: &dyn TensorWeights,
        elements: Range<u64>,
        [rows, columns]: [usize; 2],
        use_band: impl FnOnce(Tensor) -> candle_core::Result<R>,
    ) -> Result<R> {
        let name = &weights.facts().name;
        let length = rows * columns;
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let band = match free.filter(|band| band.values.elem_count() >= length) {
            Some(band) => band,
            None => Band {
                values: Tensor::zeros(length.max(BAND_WEIGHTS), DType::F32, &Device::Cpu)
                    .map_err(Error::compute(name))?,
                scratch: Mutex::default(),
            },
        };
        let fill = Fill { weights, elements, scratch: &band.scratch, failure: Mutex::new(None) };
        let part = band.values.narrow(0, 0, length).map_err(Error::compute(name))?;
        let filled = part.inplace_op1(&fill);
        if let Some(error) = fill.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error.into());
        }
        let result = filled.and_then(|()| part.reshape((rows, columns))).and_then(use_band);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(band);
        result.map_err(Error::compute(name))
    }
}

/// Decodes weights straight into a tensor.
struct Fill<'a> {
    weights: &'a dyn TensorWeights,
    elements: Range<u64>,
    scratch: &'a Mutex<Scratch>,
    /// What went wrong, as this crate's kind of error.
    failure: Mutex<Option<lsb_stream::Error>>,
}

impl InplaceOp1 for Fill<'_> {
    fn name(&self) -> &'static str {
        "decode"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("weights are decoded into contiguous f32");
        };
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let read = self.weights.read_f32(self.elements.clone(), &mut values[start..end], &mut scratch);
        read.or_else(|error| {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            candle_core::bail!("the weights cannot be read")
        })
    }
}
