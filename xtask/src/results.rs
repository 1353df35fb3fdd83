//! `cargo xtask results`: measures every codec through the whole pipeline and writes `docs/results.md`.

use anyhow::{Context, Result};
use half::bf16;
use lsb_format::DType;
use lsb_format::safetensors::{NewEntry, write_header};
use lsb_stream::{CompressConfig, CompressReport, LoopCompressor, TensorReport};
use lsb_validate::benchmark::markdown;
use lsb_validate::protocol::Protocol;
use lsb_validate::{CompressionBenchmark, Metric, WeightError};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Arguments of `results`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "docs/results.md")]
    output: PathBuf,
}

/// Codecs that are measured, coarse to fine.
const CODECS: &[&str] = &[
    "residual-binary:1",
    "outlier-binary",
    "ternary",
    "residual-binary:2",
    "rtn:2",
    "residual-binary:3",
    "rtn:3",
    "residual-binary:4",
    "rtn:4",
    "rtn:8",
    "lossless",
];

/// Ways to group scales that are measured for the default of `outlier-binary`.
const GROUPS: &[&str] = &["row", "256", "128", "64"];

/// Kinds of tensors of the trained model, by a part of their names.
const CLASSES: &[&str] =
    &["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens", "norm"];

const SIDE: u64 = 4096;

/// Runs `results`.
///
/// # Errors
/// If compressing or writing fails.
pub fn run(args: &Args) -> Result<()> {
    let work = std::env::temp_dir().join(format!("lsb-results-{}", std::process::id()));
    fs::create_dir_all(&work)?;
    let text = measure(&work);
    fs::remove_dir_all(&work)?;
    fs::write(&args.output, text?).with_context(|| args.output.display().to_string())?;
    println!("wrote {}", args.output.display());
    Ok(())
}

/// Methods whose packages are run.
const METHODS: &[&str] = &[
    "outlier-binary",
    "trellis:1.6",
    "ternary",
    "trellis:2",
    "residual-binary:2",
    "rtn:2",
    "trellis:2.84",
    "residual-binary:3",
    "rtn:3",
    "trellis:3.25",
    "residual-binary:4",
    "rtn:4",
    "trellis:4.25",
    "lossless",
];

/// What the packages of the trained model answer.
fn answers(reflm: &Path, work: &Path, out: &mut String) -> Result<()> {
    use Metric::{Bleu, Correlation, Divergence, Kl, Perplexity, Rouge, Top1};
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/text/eval.txt");
    let report = CompressionBenchmark::new(reflm, text)
        .methods(METHODS.iter().copied())
        .metrics([Perplexity, Kl, Top1, Correlation, Bleu, Rouge, Divergence])
        .protocol(Protocol::for_context(512))
        .work(work)
        .run(&mut |step| eprintln!("{}: {}", step.method, step.what))?;
    let _ = writeln!(
        out,
        "### What it answers\n\n\
         Each package beside the original on held-out text (`fixtures/text/eval.txt`): {}. Nothing here is\n\
         calibrated. BLEU, ROUGE and divergence compare 16 greedy continuations of 48 tokens with the original's;\n\
         a single other token changes all that follow, so they fall fast. `docs/metrics.md` defines every column;\n\
         peak memory is that of compressing while the original is in memory as f32.\n",
        report.protocol
    );
    let _ = writeln!(out, "{}", markdown(&report));
    Ok(())
}

fn measure(work: &Path) -> Result<String> {
    let gauss = work.join("gauss.safetensors");
    write_gaussian(&gauss)?;
    let reflm = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/reflm");
    let mut out = String::from(
        "# Measured results\n\n\
         Written by `cargo xtask results`, which runs the whole pipeline; nothing here is typed by hand. Figures are of\n\
         weights, but for those under \"What it answers\". *Bits per weight* count every\n\
         stored byte of the tensor (tiles, side information, tile table); *in all* counts the whole package,\n\
         manifest and shard headers included. *MSE* is the mean squared error over the mean square of the weights,\n\
         *SNR* the same in dB, *error / range* the mean of |error| over the range of the tensor.\n\n\
         Shannon's bound for Gaussian weights is 6.02 dB per bit: no codec can be above it, and what it leaves\n\
         is what better codecs can still win.\n\n",
    );

    let _ = writeln!(out, "## Independent Gaussian weights, 4096 x 4096, bf16\n");
    let _ = writeln!(
        out,
        "| codec | bits per weight | in all | MSE | SNR dB | Shannon bound dB | error / range % | correlation |"
    );
    let _ = writeln!(out, "|---|--:|--:|--:|--:|--:|--:|--:|");
    for codec in CODECS {
        let report = compress(&gauss, &work.join("out"), codec)?;
        let t = &report.tensors[0];
        let bpw = 8.0 * t.bytes as f64 / t.weights as f64;
        let e = error(&[t]);
        let bound = if e.exact { "-".into() } else { format!("{:.2}", 6.0206 * bpw) };
        let _ = writeln!(
            out,
            "| `{codec}` | {bpw:.4} | {:.4} | {:.5} | {} | {bound} | {:.3} | {:.5} |",
            report.bpw(),
            e.relative_mse,
            decibel(&e),
            e.relative_error_percent,
            e.correlation.unwrap_or(1.0)
        );
    }

    let _ = writeln!(
        out,
        "\n## A trained language model (`fixtures/reflm`, 2.89 M parameters, bf16)\n\n\
         The whole package against the whole source. Rows of this small model are 256 to 512 weights long, so\n\
         what is stored per row and per tensor weighs more than in models people use.\n"
    );
    let _ =
        writeln!(out, "| codec | bits per weight in all | ratio | SNR dB | error / range % | correlation |");
    let _ = writeln!(out, "|---|--:|--:|--:|--:|--:|");
    let mut reports = Vec::new();
    for codec in CODECS {
        let report = compress(&reflm, &work.join("out"), codec)?;
        let lossy: Vec<&TensorReport> =
            report.tensors.iter().filter(|t| !t.exact || *codec == "lossless").collect();
        let e = error(&lossy);
        let _ = writeln!(
            out,
            "| `{codec}` | {:.4} | {:.3} | {} | {:.3} | {:.5} |",
            report.bpw(),
            report.ratio(),
            decibel(&e),
            e.relative_error_percent,
            e.correlation.unwrap_or(1.0)
        );
        reports.push((codec, report));
    }
    let _ = writeln!(out, "\nSNR, error and correlation are those of the tensors the codec was used for.\n");

    answers(&reflm, &work.join("bench"), &mut out)?;

    let _ = writeln!(out, "### By kind of tensor: bits per weight / SNR dB\n");
    let _ = writeln!(out, "| codec | {} |", CLASSES.join(" | "));
    let _ = writeln!(out, "|---|{}", "--:|".repeat(CLASSES.len()));
    for (codec, report) in &reports {
        let cells: Vec<String> = CLASSES.iter().map(|class| cell(report, class)).collect();
        let _ = writeln!(out, "| `{codec}` | {} |", cells.join(" | "));
    }

    let _ = writeln!(
        out,
        "\n### Which weights share a scale in `outlier-binary`\n\n\
         One scale and one mean per row is the default: smaller groups gain less than their bits cost.\n"
    );
    let _ = writeln!(out, "| group | matrix | bits per weight | SNR dB |");
    let _ = writeln!(out, "|---|---|--:|--:|");
    for (name, model) in [("Gaussian 4096 x 4096", &gauss), ("reflm, all matrices", &reflm)] {
        for group in GROUPS {
            let report = compress(model, &work.join("out"), &format!("outlier-binary:group={group}"))?;
            let lossy: Vec<&TensorReport> = report.tensors.iter().filter(|t| !t.exact).collect();
            let (bytes, weights) = lossy.iter().fold((0, 0), |(b, w), t| (b + t.bytes, w + t.weights));
            let bpw = 8.0 * bytes as f64 / weights as f64;
            let _ = writeln!(out, "| {group} | {name} | {bpw:.4} | {} |", decibel(&error(&lossy)));
        }
    }
    Ok(out)
}

fn cell(report: &CompressReport, class: &str) -> String {
    let tensors: Vec<&TensorReport> = report.tensors.iter().filter(|t| t.name.contains(class)).collect();
    let (bytes, weights) = tensors.iter().fold((0, 0), |(b, w), t| (b + t.bytes, w + t.weights));
    let bpw = 8.0 * bytes as f64 / weights.max(1) as f64;
    format!("{bpw:.3} / {}", decibel(&error(&tensors)))
}

fn error(tensors: &[&TensorReport]) -> WeightError {
    WeightError::over(tensors.iter().filter_map(|t| t.distortion.as_ref()))
}

fn decibel(e: &WeightError) -> String {
    if e.exact { "exact".into() } else { format!("{:.2}", e.weight_snr_db) }
}

fn compress(model: &Path, out: &Path, codec: &str) -> Result<CompressReport> {
    eprintln!("{codec} on {}", model.file_name().unwrap_or_default().to_string_lossy());
    let mut config = CompressConfig::default();
    config.output = Some(out.to_owned());
    config.codec = Some(codec.to_owned());
    config.overwrite = true;
    Ok(LoopCompressor::new(config).compress_model(model, None)?)
}

/// One tensor of unit Gaussian weights, by the polar method from a fixed seed.
fn write_gaussian(path: &Path) -> Result<()> {
    let n = SIDE * SIDE;
    let entry = NewEntry { name: "weight", dtype: DType::BF16, shape: &[SIDE, SIDE], begin: 0, end: 2 * n };
    let mut bytes = write_header(&[entry], &[], 8)?;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    for _ in 0..n / 2 {
        let (x, y, s) = loop {
            let (x, y) = (uniform(), uniform());
            let s: f64 = x * x + y * y;
            if s < 1.0 && s > 0.0 {
                break (x, y, s);
            }
        };
        let scale = (-2.0 * s.ln() / s).sqrt();
        for v in [x * scale, y * scale] {
            bytes.extend_from_slice(&bf16::from_f64(v).to_le_bytes());
        }
    }
    fs::write(path, bytes)?;
    Ok(())
}
