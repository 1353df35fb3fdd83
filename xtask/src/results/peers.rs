//! What other programs reach on the same model and text, and how many bits less is needed for the same divergence.

/// A format of another program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Peer {
    pub name: &'static str,
    /// True for formats that only ik_llama.cpp has.
    pub ik: bool,
    /// Bits per weight.
    pub bpw: f64,
    /// Mean divergence from the original model, in nats.
    pub kl: f64,
}

const fn peer(name: &'static str, ik: bool, bpw: f64, kl: f64) -> Peer {
    Peer { name, ik, bpw, kl }
}

/// Measured once with ik_llama.cpp 8337e4c on the same model and text: every matrix in the one format (`--pure`),
/// importance matrix from 64 windows of 512 tokens of the forty books that the bundled calibration text is taken from,
/// weights dequantized and run in f32. Bits count the bytes of tensors alone; divergence is that of the first 40 windows.
pub(super) const PEERS: &[Peer] = &[
    peer("IQ1_KT", true, 1.888, 0.5078),
    peer("IQ2_KT", true, 2.263, 0.2744),
    peer("IQ2_K", true, 2.399, 0.2026),
    peer("Q2_K", false, 2.649, 0.1974),
    peer("IQ3_XXS", false, 3.086, 0.0875),
    peer("IQ3_KT", true, 3.262, 0.0578),
    peer("IQ3_S", false, 3.461, 0.0504),
    peer("IQ3_K", true, 3.461, 0.0391),
    peer("Q3_K", false, 3.461, 0.0503),
    peer("IQ4_KT", true, 4.137, 0.0204),
    peer("IQ4_XS", false, 4.273, 0.0126),
    peer("IQ4_K", true, 4.523, 0.0091),
    peer("Q4_K", false, 4.523, 0.0110),
];

/// Bits per weight at which a line of points (bits, divergence), in order of bits, has this divergence; its logarithm
/// is taken to be linear between two points. `None` outside.
pub(super) fn bits_at(line: &[(f64, f64)], kl: f64) -> Option<f64> {
    line.windows(2).find_map(|pair| {
        let [(x0, y0), (x1, y1)] = *pair else { return None };
        if !(kl <= y0 && kl >= y1 && y1 > 0.0 && y1 < y0) {
            return None;
        }
        Some(x0 + (x1 - x0) * (y0.ln() - kl.ln()) / (y0.ln() - y1.ln()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_divergence_lies_on_the_line_between_points() {
        let line = [(1.0, 1.0), (2.0, 0.1), (4.0, 0.001)];
        assert_eq!(bits_at(&line, 1.0), Some(1.0));
        assert!((bits_at(&line, 0.1f64.sqrt()).unwrap() - 1.5).abs() < 1e-12);
        assert!((bits_at(&line, 0.01).unwrap() - 3.0).abs() < 1e-12);
        assert_eq!(bits_at(&line, 0.001), Some(4.0));
        assert_eq!(bits_at(&line, 1.5), None);
        assert_eq!(bits_at(&line, 0.0), None, "nothing is exact");
        assert_eq!(bits_at(&[], 0.1), None);
    }
}
