//! Maps that stay in memory from their first use on.

use super::lock;
use crate::Result;
use crate::linear::Linear;
use lsb_stream::{Budget, ReservedWeights, TensorWeights, WeightSource};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

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
    /// Tensors of maps, and those of which rows are read.
    tensors: Mutex<HashMap<String, Arc<dyn TensorWeights>>>,
}

impl Resident {
    pub(super) fn new(form: Form) -> Self {
        Resident { form, maps: Mutex::default(), tensors: Mutex::default() }
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

    /// The tensor of that name, which `unpack` makes if it was not used yet.
    pub(super) fn tensor(
        &self,
        name: &str,
        unpack: impl FnOnce() -> Result<Arc<dyn TensorWeights>>,
    ) -> Result<Arc<dyn TensorWeights>> {
        if let Some(tensor) = lock(&self.tensors).get(name) {
            return Ok(Arc::clone(tensor));
        }
        let tensor = unpack()?;
        lock(&self.tensors).insert(name.to_owned(), Arc::clone(&tensor));
        Ok(tensor)
    }

    /// Reads the map again when it is used next.
    pub(super) fn forget(&self, name: &str) {
        lock(&self.maps).remove(name);
        lock(&self.tensors).remove(name);
    }
}

/// Bytes that the tensors with these numbers will take, about; `None` where no codec of them unpacks anything.
pub(super) fn unpacked_bytes(source: &dyn WeightSource, numbers: &[usize]) -> Result<Option<u64>> {
    let (mut bytes, mut any) = (0, false);
    for &number in numbers {
        let unpacked = source.open(number)?.unpacked_bytes();
        any |= unpacked.is_some();
        bytes += unpacked.unwrap_or_else(|| source.held_bytes(number));
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
    let kept = if open.unpacked_bytes().is_some() {
        let room = budget.limit().saturating_sub(budget.used());
        open.unpack(room)?.and_then(|weights| {
            let memory = budget.reserve(weights.bytes(), &name).ok()?;
            Some(ReservedWeights::new(Box::new(weights), memory))
        })
    } else if let Ok(memory) = budget.reserve(source.held_bytes(number), &name) {
        Some(ReservedWeights::new(source.hold(number)?, memory))
    } else {
        None
    };
    Ok(match kept {
        Some(weights) => Arc::new(weights),
        None => {
            tracing::warn!("{name} does not fit the memory unpacked and is read for every token");
            open.into()
        }
    })
}
