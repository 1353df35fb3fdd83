//! Sections on weights: what codecs make of Gaussian ones and of those of a trained model.

use super::input::{Inputs, bits, decibel, error};
use anyhow::Result;
use lsb_stream::{CompressReport, TensorReport};
use std::fmt::Write as _;
use std::path::Path;

/// Codecs that are measured, coarse to fine.
const CODECS: &[&str] = &[
    "residual-binary:1",
    "outlier-binary",
    "ternary",
    "trellis:2",
    "residual-binary:2",
    "rtn:2",
    "trellis:3",
    "residual-binary:3",
    "rtn:3",
    "trellis:4",
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

/// Every codec on one large Gaussian matrix.
pub(super) fn gaussian(inputs: &Inputs, gauss: &Path, out: &mut String) -> Result<()> {
    let _ = writeln!(
        out,
        "## Independent Gaussian weights, 4096 x 4096, bf16\n\n\
         | codec | bits per weight | in all | MSE | SNR dB | Shannon bound dB | error / range % | correlation |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|"
    );
    for codec in CODECS {
        let report = inputs.compress(gauss, codec)?;
        let tensors = [&report.tensors[0]];
        let (bpw, e) = (bits(&tensors), error(&tensors));
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
    Ok(())
}

/// Every codec on the trained model; the reports are those [`kinds`] takes.
pub(super) fn reflm(inputs: &Inputs, out: &mut String) -> Result<Vec<(&'static str, CompressReport)>> {
    let _ = writeln!(
        out,
        "\n## A trained language model (`fixtures/reflm`, 2.89 M parameters, bf16)\n\n\
         The whole package against the whole source. Rows of this small model are 256 to 512 weights long, so\n\
         what is stored per row and per tensor weighs more than in models people use.\n\n\
         | codec | bits per weight in all | ratio | SNR dB | error / range % | correlation |\n\
         |---|--:|--:|--:|--:|--:|"
    );
    let mut reports = Vec::new();
    for &codec in CODECS {
        let report = inputs.compress(&inputs.reflm, codec)?;
        let lossy: Vec<&TensorReport> =
            report.tensors.iter().filter(|t| !t.exact || codec == "lossless").collect();
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
    Ok(reports)
}

/// The trained model by kind of tensor.
pub(super) fn kinds(reports: &[(&str, CompressReport)], out: &mut String) {
    let _ = writeln!(
        out,
        "### By kind of tensor: bits per weight / SNR dB\n\n| codec | {} |\n|---|{}",
        CLASSES.join(" | "),
        "--:|".repeat(CLASSES.len())
    );
    for (codec, report) in reports {
        let cells: Vec<String> = CLASSES.iter().map(|class| cell(report, class)).collect();
        let _ = writeln!(out, "| `{codec}` | {} |", cells.join(" | "));
    }
}

fn cell(report: &CompressReport, class: &str) -> String {
    let tensors: Vec<&TensorReport> = report.tensors.iter().filter(|t| t.name.contains(class)).collect();
    format!("{:.3} / {}", bits(&tensors), decibel(&error(&tensors)))
}

/// Sizes of groups in `outlier-binary`.
pub(super) fn groups(inputs: &Inputs, gauss: &Path, out: &mut String) -> Result<()> {
    let _ = writeln!(
        out,
        "\n### Which weights share a scale in `outlier-binary`\n\n\
         One scale and one mean per row is the default: smaller groups gain less than their bits cost.\n\n\
         | group | matrix | bits per weight | SNR dB |\n|---|---|--:|--:|"
    );
    for (name, model) in [("Gaussian 4096 x 4096", gauss), ("reflm, all matrices", &inputs.reflm)] {
        for group in GROUPS {
            let report = inputs.compress(model, &format!("outlier-binary:group={group}"))?;
            let lossy: Vec<&TensorReport> = report.tensors.iter().filter(|t| !t.exact).collect();
            let _ = writeln!(out, "| {group} | {name} | {:.4} | {} |", bits(&lossy), decibel(&error(&lossy)));
        }
    }
    Ok(())
}
