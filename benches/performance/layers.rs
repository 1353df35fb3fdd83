//! Whether a layer costs the same in a deep model as in a shallow one: time, bytes and peak memory of the whole pipeline.

use crate::measure::median;
use crate::tensor::weights;
use crate::{Bench, Figure, Limit, Outcome, Yardstick};
use lsb_stream::{CompressConfig, LoopCompressor};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

const LAYERS: [usize; 3] = [1, 8, 64];

/// Matrices of a layer: `[MATRIX, MATRIX]` each.
const MATRICES: usize = 2;
const MATRIX: usize = 1024;

/// Writes a model of so many layers: bf16 weights in one file, without a configuration, so that nothing but weights counts.
fn write_model(path: &Path, layers: usize) -> Outcome {
    let bytes = lsb_benches::bf16_bytes(&weights(MATRIX, MATRIX));
    let mut header = serde_json::Map::new();
    for i in 0..layers * MATRICES {
        let name =
            format!("model.layers.{}.mlp.{}.weight", i / MATRICES, ["up_proj", "down_proj"][i % MATRICES]);
        let offsets = [i * bytes.len(), (i + 1) * bytes.len()];
        let tensor = serde_json::json!({"dtype": "BF16", "shape": [MATRIX, MATRIX], "data_offsets": offsets});
        header.insert(name, tensor);
    }
    let header = serde_json::to_vec(&header)?;
    let mut file = File::create(path)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for i in 0..layers * MATRICES {
        // No two tensors are the same: equal ones would be stored once.
        let at = 2 * (i * 64 % (MATRIX * MATRIX));
        file.write_all(&bytes[at..])?;
        file.write_all(&bytes[..at])?;
    }
    Ok(file.sync_all()?)
}

/// Compresses in a process of its own, as a run of this program with `--compress`; prints what it took.
pub(crate) fn compress(model: &Path, package: &Path) -> Outcome {
    lsb_stream::give_freed_memory_back();
    let mut config = CompressConfig::default();
    config.output = Some(package.to_owned());
    config.codec = Some("trellis:bpw=3".into());
    let report = LoopCompressor::new(config).compress_model(model, None)?;
    println!("{} {} {} {}", report.seconds, report.package_bytes, report.weights, report.peak_rss_bytes);
    Ok(())
}

/// What one run took.
#[derive(Clone, Copy, Debug)]
struct Cost {
    nanoseconds: f64,
    bpw: f64,
    peak_mb: f64,
}

/// A kind of cost: its name, its unit and where it stands.
type Kind = (&'static str, &'static str, fn(&Cost) -> f64);

fn cost(model: &Path, folder: &Path) -> Outcome<Cost> {
    let package = folder.join("package");
    let output = Command::new(std::env::current_exe()?).arg("--compress").args([model, &package]).output()?;
    std::fs::remove_dir_all(&package)?;
    let text = String::from_utf8(output.stdout)?;
    let numbers: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [seconds, bytes, weights, peak] = numbers[..] else {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    };
    Ok(Cost { nanoseconds: 1e9 * seconds / weights, bpw: 8.0 * bytes / weights, peak_mb: peak / 1e6 })
}

pub(crate) fn measure(bench: &mut Bench) -> Outcome {
    let stage = |layers: usize, what: &str| match layers {
        1 => format!("whole pipeline, 1 layer, {what}"),
        n => format!("whole pipeline, {n} layers, {what}"),
    };
    let depths = if bench.quick { &LAYERS[..2] } else { &LAYERS[..] };
    let all = depths.iter().flat_map(|n| ["time", "size", "peak memory"].map(|what| stage(*n, what)));
    if !all.into_iter().any(|stage| bench.wants(&stage)) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let models: Vec<_> = depths.iter().map(|n| folder.path().join(format!("{n}.safetensors"))).collect();
    for (path, layers) in models.iter().zip(depths) {
        write_model(path, *layers)?;
    }
    let mut costs = vec![Vec::new(); depths.len()];
    for _ in 0..bench.effort.long().runs {
        for (path, costs) in models.iter().zip(&mut costs) {
            costs.push(cost(path, folder.path())?);
        }
    }
    let middle = |costs: &[Cost], of: fn(&Cost) -> f64| median(costs.iter().map(of).collect());
    let protocol = "A model of layers with two matrices of 1024 x 1024 in bf16, through the whole pipeline at 3 bits per weight \
                    in a process of its own: reading, encoding, checking, writing to disk, on all cores. Held against one layer.";
    let kinds: [Kind; 3] = [
        ("time", "ns/weight", |c| c.nanoseconds),
        ("size", "bpw", |c| c.bpw),
        ("peak memory", "MB", |c| c.peak_mb),
    ];
    for (what, unit, of) in kinds {
        for (i, layers) in depths.iter().enumerate() {
            let (yardstick, limit) = match i {
                0 => (Yardstick::None, Limit::None),
                _ => {
                    let one = middle(&costs[0], of);
                    (Yardstick::Measured(one, "for 1 layer".to_owned()), Limit::Within(0.1))
                }
            };
            let ours = Figure::new(middle(&costs[i], of), unit);
            bench.row(&stage(*layers, what), ours, yardstick, limit, protocol);
        }
    }
    Ok(())
}
