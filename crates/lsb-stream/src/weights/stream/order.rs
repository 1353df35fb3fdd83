//! The order in which a pass asks for tensors, counted on from pass to pass.

use super::super::{TensorFacts, facts_of};
use crate::Result;
use lsb_format::Error;
use std::collections::HashMap;

/// Tensor numbers in the order of one pass. A position is `pass * len + slot`: it only ever grows.
#[derive(Debug)]
pub(super) struct Order {
    tensors: Vec<usize>,
    /// For each tensor of the order, its slot. Only looked up in, so that its own order never matters.
    slots: HashMap<usize, u64>,
    /// For each slot, the number of its run of slots of one layer.
    layers: Vec<u64>,
    layers_per_pass: u64,
}

impl Order {
    /// # Errors
    /// If a number does not exist in `facts`, or is there twice.
    pub(super) fn new(tensors: Vec<usize>, facts: &[TensorFacts]) -> Result<Self> {
        let mut slots = HashMap::with_capacity(tensors.len());
        let mut layers: Vec<u64> = Vec::with_capacity(tensors.len());
        let mut last: Option<&str> = None;
        for (slot, &tensor) in (0..).zip(&tensors) {
            let facts = facts_of(facts, tensor)?;
            if slots.insert(tensor, slot).is_some() {
                let message = "the tensor is in the order of a pass twice";
                return Err(Error::argument(message).in_tensor(&facts.name).into());
            }
            let before = layers.last().copied().unwrap_or(0);
            let begins = last.is_some_and(|layer| layer != facts.layer);
            layers.push(before + u64::from(begins));
            last = Some(&facts.layer);
        }
        let layers_per_pass = layers.last().map_or(0, |n| n + 1);
        Ok(Order { tensors, slots, layers, layers_per_pass })
    }

    /// Tensors per pass.
    pub(super) fn len(&self) -> u64 {
        self.tensors.len() as u64
    }

    /// The tensors of a pass.
    pub(super) fn tensors(&self) -> &[usize] {
        &self.tensors
    }

    pub(super) fn contains(&self, tensor: usize) -> bool {
        self.slots.contains_key(&tensor)
    }

    /// The tensor at `position`; `None` only where no pass has any.
    pub(super) fn tensor(&self, position: u64) -> Option<usize> {
        let slot = position.checked_rem(self.len())?;
        self.tensors.get(slot as usize).copied()
    }

    /// The first position from `from` on that is `tensor`'s; `None` where it is not in the order.
    pub(super) fn next(&self, tensor: usize, from: u64) -> Option<u64> {
        let slot = *self.slots.get(&tensor)?;
        let pass_start = from - from % self.len();
        let ahead = if pass_start + slot < from { self.len() } else { 0 };
        Some(pass_start + slot + ahead)
    }

    /// The layer at `position`, counted on from pass to pass.
    pub(super) fn layer(&self, position: u64) -> u64 {
        let Some(slot) = position.checked_rem(self.len()) else { return 0 };
        let layer = self.layers.get(slot as usize).copied().unwrap_or(0);
        position / self.len() * self.layers_per_pass + layer
    }

    /// The position behind the pass that `position` is in.
    pub(super) fn end_of_pass(&self, position: u64) -> u64 {
        position.checked_div(self.len()).map_or(0, |pass| (pass + 1) * self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lsb_format::DType;

    #[test]
    fn positions_go_on_from_pass_to_pass() {
        let facts = |layer: &str| TensorFacts {
            name: "w".into(),
            layer: layer.into(),
            dtype: DType::F32,
            shape: vec![1],
            stored_bytes: 4,
            codec: None,
            same_as: None,
        };
        let all = ["a", "b", "b", "c"].map(facts);
        let order = Order::new(vec![3, 1, 2], &all).unwrap();
        assert_eq!((0..7).map(|p| order.tensor(p).unwrap()).collect::<Vec<_>>(), [3, 1, 2, 3, 1, 2, 3]);
        assert_eq!((0..7).map(|p| order.layer(p)).collect::<Vec<_>>(), [0, 1, 1, 2, 3, 3, 4]);
        assert_eq!([0, 1, 2, 3].map(|from| order.next(1, from)), [Some(1), Some(1), Some(4), Some(4)]);
        assert_eq!((order.next(0, 0), order.contains(0), order.contains(3)), (None, false, true));
        assert_eq!([0, 2, 3].map(|p| order.end_of_pass(p)), [3, 3, 6]);
        assert!(Order::new(vec![1, 1], &all).unwrap_err().to_string().contains("twice"));
        assert!(Order::new(vec![4], &all).is_err());
        let none = Order::new(vec![], &all).unwrap();
        assert_eq!((none.tensor(0), none.next(1, 0), none.layer(9), none.end_of_pass(0)), (None, None, 0, 0));
    }
}
