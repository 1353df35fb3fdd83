//! How small a package is, as measurements beside those of quality.

use crate::Measurement;

/// `ratio`, `bpw` and `storage_gb` of a package of `package_bytes` (every file a decoder needs) made from
/// `source_bytes` of weight files with `weights` stored weights. Figures that would divide by zero are left
/// out.
pub fn size_measurements(source_bytes: u64, package_bytes: u64, weights: u64) -> Vec<Measurement> {
    let mut out = Vec::new();
    if package_bytes > 0 {
        let ratio = source_bytes as f64 / package_bytes as f64;
        out.push(Measurement::new("ratio", ratio, "", "source bytes over package bytes"));
    }
    if weights > 0 {
        let bpw = 8.0 * package_bytes as f64 / weights as f64;
        out.push(Measurement::new("bpw", bpw, "bit", "all bytes a decoder needs, per stored weight"));
    }
    let gb = package_bytes as f64 / 1e9;
    out.push(Measurement::new("storage_gb", gb, "GB", "every file a decoder needs, 10^9 bytes each"));
    out
}
