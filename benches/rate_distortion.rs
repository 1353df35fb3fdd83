//! What does each codec cost and lose, on Gaussian weights and on those of a trained model?
//!
//! The tables of `estimate()` come from here: `cargo bench -p lsb-benches --bench rate_distortion -- rtn:4
//! rtn:bits=4,group=64` measures these codecs instead of the usual ones.

#[path = "../crates/lsb-quant/tests/harness/mod.rs"]
#[allow(dead_code)]
mod harness;

use lsb_format::DType;
use lsb_format::safetensors::Header;
use lsb_quant::{Distortion, MatrixInfo, Registry};

const USUAL: &[&str] = &[
    "outlier-binary",
    "outlier-binary:group=256",
    "outlier-binary:group=128",
    "outlier-binary:group=64",
    "ternary",
    "residual-binary:2",
    "residual-binary:3",
    "residual-binary:4",
    "rtn:3",
    "rtn:4",
    "rtn:bits=4,symmetric=true",
];
const CLASSES: &[&str] =
    &["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens"];

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let usual = USUAL.iter().map(|s| (*s).to_owned()).collect();
    let codecs = if asked.is_empty() { usual } else { asked };
    let gaussian = harness::bytes_of(DType::BF16, &harness::gaussian(1, 4096 * 4096));
    let square = MatrixInfo { rows: 4096, cols: 4096, dtype: DType::BF16 };
    let model = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/reflm/model.safetensors"))
        .expect("the reference model is part of the repository");
    let tensors = matrices(&model);
    for text in codecs {
        let codec = Registry::standard().parse(&text).expect("a codec");
        let line = |name: &str, parts: &[(MatrixInfo, &[u8])]| {
            let (mut bits, mut weights, mut sums) = (0.0, 0.0, Distortion::default());
            for (matrix, bytes) in parts {
                let (bpw, d) = harness::rate_and_distortion(&*codec, matrix, bytes).expect("finite weights");
                bits += bpw * matrix.weights() as f64;
                weights += matrix.weights() as f64;
                sums.merge(&d);
            }
            let mse = sums.relative_mse();
            println!(
                "{text:40} {name:14} {:8.4} bpw  mse {mse:9.6}  {:6.2} dB",
                bits / weights,
                -10.0 * mse.log10()
            );
        };
        line("N(0,1)", &[(square, &gaussian)]);
        for class in CLASSES {
            let of_class: Vec<_> =
                tensors.iter().filter(|t| t.0.contains(class)).map(|t| (t.1, t.2)).collect();
            line(class, &of_class);
        }
        let all: Vec<_> = tensors.iter().map(|t| (t.1, t.2)).collect();
        line("all matrices", &all);
    }
}

/// Every matrix of the model by name.
fn matrices(file: &[u8]) -> Vec<(String, MatrixInfo, &[u8])> {
    let (length, rest) = file.split_first_chunk::<8>().expect("a header");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header = Header::parse(header, data.len() as u64).expect("a valid header");
    let of = |e: lsb_format::safetensors::Entry<'_>| {
        let bytes = &data[e.begin as usize..e.end as usize];
        (e.name.to_owned(), MatrixInfo::of_shape(e.shape, e.dtype), bytes)
    };
    header.entries().filter(|e| e.shape.len() == 2).map(of).collect()
}
