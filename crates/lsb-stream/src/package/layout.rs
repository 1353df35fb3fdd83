//! Which tensor goes into which shard, decided before the first weight is read.

use crate::{Error, Result};
use lsb_format::DType;
use lsb_format::package::{
    Digest, Hash, MAX_HEADER_BYTES, MAX_RANK, MAX_TENSORS, ShardEntry, ShardHeader, check_tensor_name,
};
use std::collections::BTreeSet;

/// A tensor that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlan {
    /// Its name.
    pub name: String,
    /// Element type of the source.
    pub dtype: DType,
    /// Shape of the source.
    pub shape: Vec<u64>,
    /// Name of the tensor that holds the same weights and is stored in its place.
    pub same_as: Option<String>,
}

/// Where everything goes: a function of the plan and the shard size alone.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) tensors: Vec<TensorPlan>,
    /// Indices of the stored tensors in the order they are written.
    pub(super) stored: Vec<usize>,
    pub(super) shards: Vec<ShardLayout>,
}

#[derive(Debug)]
pub(super) struct ShardLayout {
    /// Its tensors, as positions in [`Layout::stored`].
    pub(super) first: usize,
    pub(super) end: usize,
    /// Bytes of the header, which is where the data starts.
    pub(super) reserved: u64,
    /// Bytes that the data may have at most.
    pub(super) max_data: u64,
}

/// Room for what small tensors need beyond a multiple of their size: tables, code books, escape tables.
const SLACK_BYTES: u64 = 16 << 20;

/// Header bytes at which a shard is full whatever its tensors weigh.
const HEADER_GOAL: u64 = MAX_HEADER_BYTES / 2;

impl Layout {
    /// Cuts `tensors` into shards: a new one starts once the source bytes of the current one have reached
    /// `shard_bytes`.
    pub(super) fn new(tensors: Vec<TensorPlan>, shard_bytes: u64, package: &str) -> Result<Self> {
        check(&tensors)?;
        let mut layout = Layout { tensors, stored: Vec::new(), shards: Vec::new() };
        let mut shards: Vec<(usize, u64)> = Vec::new();
        let (mut bytes, mut header) = (0u64, 0u64);
        for (index, tensor) in layout.tensors.iter().enumerate() {
            if tensor.same_as.is_some() {
                continue;
            }
            if shards.is_empty() || bytes >= shard_bytes.max(1) || header >= HEADER_GOAL {
                shards.push((layout.stored.len(), 0));
                (bytes, header) = (0, 0);
            }
            layout.stored.push(index);
            bytes = bytes.saturating_add(tensor.source_bytes()?);
            // JSON escapes a byte with at most six.
            header += 6 * tensor.name.len() as u64 + 120;
            if let Some(shard) = shards.last_mut() {
                shard.1 = bytes;
            }
        }
        let ends = shards.iter().skip(1).map(|s| s.0).chain([layout.stored.len()]).collect::<Vec<_>>();
        for ((number, (first, source)), end) in shards.iter().enumerate().zip(ends) {
            let max_data = source.saturating_mul(4).saturating_add(SLACK_BYTES);
            let mut shard = ShardLayout { first: *first, end, reserved: 0, max_data };
            let sizes = vec![0; end - first];
            let header = layout.header(package, number, shards.len(), &shard, &sizes);
            shard.reserved = header.reserve(max_data);
            layout.shards.push(shard);
        }
        Ok(layout)
    }

    /// The header of shard `number` of `of` whose tensors have these stored sizes.
    pub(super) fn header(
        &self,
        package: &str,
        number: usize,
        of: usize,
        shard: &ShardLayout,
        sizes: &[u64],
    ) -> ShardHeader {
        let names = self.stored.get(shard.first..shard.end).unwrap_or_default();
        let tensors = names.iter().zip(sizes).filter_map(|(index, bytes)| {
            Some(ShardEntry { name: self.tensors.get(*index)?.name.clone(), bytes: *bytes })
        });
        ShardHeader { package: package.to_owned(), shard: number + 1, of, tensors: tensors.collect() }
    }

    /// The tensor written as number `position`.
    pub(super) fn stored(&self, position: usize) -> Option<&TensorPlan> {
        self.tensors.get(*self.stored.get(position)?)
    }

    /// Number of the shard that holds stored tensor `position`.
    pub(super) fn shard_of(&self, position: usize) -> usize {
        self.shards.partition_point(|s| s.end <= position)
    }

    /// Hash of the plan, for the fingerprint.
    pub(super) fn digest(tensors: &[TensorPlan], shard_bytes: u64) -> Digest {
        let mut text = format!("{shard_bytes}");
        for t in tensors {
            // Lengths keep names apart from what follows them.
            let same = t.same_as.as_deref().unwrap_or("");
            text.push_str(&format!(
                "\n{} {} {} {:?} {} {same}",
                t.name.len(),
                t.name,
                t.dtype,
                t.shape,
                same.len()
            ));
        }
        Hash::of(text.as_bytes())
    }
}

impl TensorPlan {
    /// Bytes of the tensor in the source.
    ///
    /// # Errors
    /// B35 if the shape has no size in bytes.
    pub fn source_bytes(&self) -> Result<u64> {
        let nonzero = self.shape.iter().filter(|d| **d > 0).try_fold(1u64, |n, d| n.checked_mul(*d));
        let elements = nonzero.map(|n| if self.shape.contains(&0) { 0 } else { n });
        elements.and_then(|n| self.dtype.byte_len(n)).ok_or_else(|| {
            let message = format!("shape {:?} of {} has no size in bytes", self.shape, self.dtype);
            lsb_format::Error::corruption("B35", message).in_tensor(self.name.as_str()).into()
        })
    }
}

fn check(tensors: &[TensorPlan]) -> Result<()> {
    let refuse = |message: String| Err(Error::Refused { message });
    if tensors.len() > MAX_TENSORS {
        return refuse(format!("{} tensors: a package holds at most {MAX_TENSORS}", tensors.len()));
    }
    let stored: BTreeSet<&str> =
        tensors.iter().filter(|t| t.same_as.is_none()).map(|t| t.name.as_str()).collect();
    let mut names = BTreeSet::new();
    for tensor in tensors {
        check_tensor_name(&tensor.name)?;
        let name = lsb_format::escape(&tensor.name);
        if !names.insert(tensor.name.as_str()) {
            return refuse(format!("the tensor \"{name}\" is planned twice"));
        }
        if tensor.shape.len() > MAX_RANK {
            let rank = tensor.shape.len();
            return refuse(format!("the tensor \"{name}\" has {rank} dimensions: at most {MAX_RANK}"));
        }
        if tensor.same_as.as_ref().is_some_and(|other| !stored.contains(other.as_str())) {
            return refuse(format!("the tensor \"{name}\" is the same as one that is not stored"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str, elements: u64) -> TensorPlan {
        TensorPlan { name: name.to_owned(), dtype: DType::BF16, shape: vec![elements], same_as: None }
    }

    #[test]
    fn shards_start_once_the_source_bytes_are_reached() {
        let mut tensors = vec![plan("a", 10), plan("b", 10), plan("c", 100), plan("d", 1), plan("e", 1)];
        tensors.insert(1, TensorPlan { same_as: Some("a".to_owned()), ..plan("tied", 10) });
        let layout = Layout::new(tensors.clone(), 40, "0123456789abcdef").unwrap();
        let cuts: Vec<_> = layout.shards.iter().map(|s| (s.first, s.end)).collect();
        assert_eq!(cuts, [(0, 2), (2, 3), (3, 5)]);
        assert_eq!([0, 1, 2, 3, 4].map(|p| layout.shard_of(p)), [0, 0, 1, 2, 2]);
        assert_eq!(layout.stored(1).unwrap().name, "b");
        assert!(layout.shards.iter().all(|s| s.reserved < 512 && s.reserved % 64 == 0));
        assert_ne!(Layout::digest(&tensors, 40), Layout::digest(&tensors, 41));
        tensors[0].shape = vec![2, 5];
        assert_ne!(Layout::digest(&tensors, 40), Layout::digest(&[plan("a", 10)], 40));
    }

    #[test]
    fn impossible_plans_are_refused() {
        assert!(Layout::new(vec![plan("a", 1), plan("a", 1)], 1, "x").is_err());
        let lost = TensorPlan { same_as: Some("b".to_owned()), ..plan("a", 1) };
        assert!(Layout::new(vec![lost], 1, "x").is_err());
        assert!(Layout::new(vec![plan("a", u64::MAX)], 1, "x").is_err());
        let empty = Layout::new(Vec::new(), 1, "x").unwrap();
        assert!(empty.shards.is_empty());
    }
}
