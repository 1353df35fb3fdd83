//! Maps that stay in memory from their first use on.

use super::lock;
use crate::Result;
use crate::linear::Linear;
use lsb_stream::{Budget, ReservedWeights, TensorWeights, WeightSource};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Stored bits per weight up to which four bits each are taken to do when memory is planned.
const NARROW_BITS: f64 = 3.6;

/// Bytes per weight of unpacked levels, with room for steps and for levels that lie apart.
const NARROW_BYTES: f64 = 0.6;
const WIDE_BYTES: f64 = 1.1;

/// The form in which maps stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In f32.
    Dense,
    /// Unpacked by their codec.
    Unpacked,
}

/// Maps that were used.
#[derive(Debug)]
pub(super) struct Resident {
    form: Form,
    maps: Mutex<HashMap<String, Arc<dyn Linear>>>,
}

impl Resident {
    pub(super) fn new(form: Form) -> Self {
        Resident { form, maps: Mutex::default() }
    }

    pub(super) fn is_dense(&self) -> bool {
        self.form == Form::Dense
    }

    /// The map of that name, which `read` makes if it was not used yet.
    pub(super) fn map(
        &self,
        name: &str,
        read: impl FnOnce(Form) -> Result<Arc<dyn Linear>>,
    ) -> Result<Arc<dyn Linear>> {
        if let Some(map) = lock(&self.maps).get(name) {
            return Ok(Arc::clone(map));
        }
        let map = read(self.form)?;
        lock(&self.maps).insert(name.to_owned(), Arc::clone(&map));
        Ok(map)
    }

    /// Reads the map again when it is used next.
    pub(super) fn forget(&self, name: &str) {
        lock(&self.maps).remove(name);
    }
}

/// Bytes that the tensors with these numbers will take, about; `None` where no codec of them unpacks anything.
pub(super) fn unpacked_bytes(source: &dyn WeightSource, numbers: &[usize]) -> Result<Option<u64>> {
    let (mut bytes, mut any) = (0, false);
    for &number in numbers {
        let open = source.open(number)?;
        if !open.has_products() {
            bytes += source.held_bytes(number);
            continue;
        }
        any = true;
        let weights = open.facts().weights() as f64;
        let bits = 8.0 * source.held_bytes(number) as f64 / weights.max(1.0);
        bytes += (weights * if bits <= NARROW_BITS { NARROW_BYTES } else { WIDE_BYTES }) as u64;
    }
    Ok(any.then_some(bytes))
}

/// Tensor number `number` unpacked, with memory for it; its stored bytes where its codec unpacks nothing. Where the budget has
/// room for neither, the tensor is read from its file each time, and a warning says so.
pub(super) fn unpack(
    source: &dyn WeightSource,
    number: usize,
    budget: &Budget,
) -> Result<Arc<dyn TensorWeights>> {
    let open = source.open(number)?;
    let name = open.facts().name.clone();
    let most = if open.has_products() { open.unpacked_bytes() } else { source.held_bytes(number) };
    let Ok(memory) = budget.reserve(most, &name) else {
        tracing::warn!("{name} does not fit the memory unpacked and is read for every token");
        return Ok(open.into());
    };
    let Some(weights) = open.unpack()? else {
        return Ok(Arc::new(ReservedWeights::new(source.hold(number)?, memory)));
    };
    // What was unpacked says what it takes.
    drop(memory);
    let memory = budget.reserve(weights.bytes(), &name)?;
    Ok(Arc::new(ReservedWeights::new(Box::new(weights), memory)))
}
