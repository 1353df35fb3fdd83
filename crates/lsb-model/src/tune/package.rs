//! Between trained factors and the bytes of a package.

use super::Tuned;
use crate::Result;
use lsb_format::package::Content;
use lsb_quant::codec::trellis;
use lsb_stream::Error;
use lsb_stream::package::Package;
use std::collections::BTreeMap;

/// Names of the stored tensors of `package` whose scales can be tuned: those the `trellis` codec made with calibration.
///
/// # Errors
/// If a tensor's records are damaged.
pub fn tunable(package: &Package) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (number, tensor) in package.manifest().tensors.iter().enumerate() {
        let Content::Stored(stored) = &tensor.content else { continue };
        let codec = package.manifest().codecs.get(stored.codec);
        if codec.is_some_and(|c| c.id == "trellis") && !package.tensor_at(number)?.side().is_empty() {
            names.push(tensor.name.clone());
        }
    }
    Ok(names)
}

/// The side information of every tuned tensor of `package` with its factors in it, by the tensor's name. Scales are
/// stored to `2^-resolution` of an octave, 0 to 8.
///
/// # Errors
/// If a tensor is not there, or its side information is damaged.
pub fn scaled_sides(package: &Package, tuned: &Tuned, resolution: u32) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut sides = BTreeMap::new();
    for (name, [rows, cols]) in &tuned.factors {
        let tensor = package.tensor(name)?;
        let side = trellis::rescale(tensor.side(), &tensor.matrix(), rows, cols, resolution);
        sides.insert(name.clone(), side.map_err(Error::codec(name))?);
    }
    Ok(sides)
}
