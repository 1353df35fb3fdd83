//! A damaged package gives an error or the right weights, never wrong ones.
#![allow(clippy::unwrap_used, reason = "a test that cannot make its input has failed")]

use lsb_quant::Registry;
use lsb_stream::package::{Depth, verify};
use lsb_stream::{CompressConfig, LoopCompressor, Scratch, WeightSource, open_weights};
use std::path::{Path, PathBuf};

/// Bytes between changed ones in the manifest and in shards; the package tests change every byte.
const STRIDES: [usize; 2] = [5, 17];

fn read_all(package: &Path) -> lsb_stream::Result<Vec<Vec<u32>>> {
    let source = open_weights(package, &Registry::standard(), &Default::default())?;
    let source: &dyn WeightSource = &*source;
    let mut scratch = Scratch::default();
    let floats = (0..source.tensors().len()).filter(|&i| source.tensors()[i].dtype.is_float());
    floats
        .map(|i| {
            let mut out = vec![0.0; source.tensors()[i].weights() as usize];
            source.open(i)?.read_f32(0..out.len() as u64, &mut out, &mut scratch)?;
            Ok(out.iter().map(|x| x.to_bits()).collect())
        })
        .collect()
}

#[test]
fn a_changed_byte_is_an_error_or_changes_no_weight_and_verify_finds_it() {
    let temp = tempfile::tempdir().unwrap();
    let package: PathBuf = temp.path().join("package");
    let mut config = CompressConfig::default();
    config.output = Some(package.clone());
    // Every codec in one package.
    config.rules = ["q_proj=rtn:3", "k_proj=ternary", "v_proj=residual-binary:2", "embed=lossless"]
        .iter()
        .map(|r| r.parse().unwrap())
        .collect();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/reflm");
    // Trained weights, one layer of them: all codecs in play, and small enough to read a thousand times.
    let small = temp.path().join("small");
    subset(&model, &small);
    LoopCompressor::new(config).compress_model(&small, None).unwrap();
    let expected = read_all(&package).unwrap();

    let (mut changed, mut refused) = (0, 0);
    for entry in std::fs::read_dir(&package).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name != "lsb.json" && !name.ends_with(".lsb") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for at in (0..bytes.len()).step_by(STRIDES[usize::from(name != "lsb.json")]) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            std::fs::write(&path, &damaged).unwrap();
            changed += 1;
            match read_all(&package) {
                Ok(weights) => assert!(weights == expected, "{name}, byte {at}: wrong weights, no error"),
                Err(_) => refused += 1,
            }
            let found = verify(&package, Depth::Full).map(|report| report.ok);
            assert!(!found.unwrap_or(false), "{name}, byte {at}: verify sees nothing");
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    assert!(verify(&package, Depth::Full).unwrap().ok);
    assert!(changed > 500 && refused == changed, "{refused} of {changed} changes were refused");
    println!("{changed} changed bytes, all refused by readers and found by verify");
}

/// The first rows of a few tensors of `model`, as a model of its own.
fn subset(model: &Path, out: &Path) {
    use lsb_format::safetensors::{NewEntry, write_header};
    use lsb_stream::source::{Model, OpenOptions};
    const ROWS: u64 = 32;
    let model = Model::open(model, &OpenOptions::default()).unwrap();
    let wanted = ["embed_tokens", "layers.0.self_attn", "layers.0.mlp.up", "layers.0.input_layernorm"];
    let kept: Vec<usize> = (0..model.tensors().len())
        .filter(|&i| wanted.iter().any(|w| model.tensors()[i].name.contains(w)))
        .collect();
    let shapes: Vec<Vec<u64>> = kept
        .iter()
        .map(|&i| match model.tensors()[i].shape[..] {
            [rows, cols] => vec![rows.min(ROWS), cols],
            ref other => other.to_vec(),
        })
        .collect();
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (&i, shape) in kept.iter().zip(&shapes) {
        let t = &model.tensors()[i];
        let begin = data.len();
        data.resize(begin + t.dtype.byte_len(shape.iter().product()).unwrap() as usize, 0);
        model.read_at(t.file, t.offset, &mut data[begin..]).unwrap();
        let (begin, end) = (begin as u64, data.len() as u64);
        entries.push(NewEntry { name: &t.name, dtype: t.dtype, shape, begin, end });
    }
    let mut file = write_header(&entries, &[], 8).unwrap();
    file.extend_from_slice(&data);
    std::fs::create_dir(out).unwrap();
    std::fs::write(out.join("model.safetensors"), file).unwrap();
}
