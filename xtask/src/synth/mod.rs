//! `cargo xtask synth-model`: a model of a known shape with random weights, in the Hugging Face layout.
//!
//! For measuring time and memory on shapes whose real weights nobody wants to download. The weights are independent
//! draws from a Student-t distribution with 5 degrees of freedom times a scale per row and per column, so that
//! outliers, exponent statistics and incompressibility are like those of trained weights (exponent entropy of a bf16
//! tensor about 2.6 bits; no value is ever copied from another place, so a compressor finds no repeats). What they do
//! *not* have is structure between rows: quality figures on such a model say nothing about a real one.
//!
//! The same arguments give the same bytes on every machine and any number of threads.

mod arguments;
mod shape;
mod tokenizer;
mod weights;
mod writer;

#[cfg(test)]
mod tests;

pub use arguments::{Args, Element, ShapeName};
pub use shape::{Shape, TensorSpec};
pub use weights::{Distribution, Fill};

use anyhow::{Context, Result};
use std::fs;
use std::time::Instant;

/// Writes the model.
///
/// # Errors
/// If the folder exists and is not empty, or cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    let out = &args.output;
    if fs::read_dir(out).is_ok_and(|mut d| d.next().is_some()) {
        anyhow::bail!("{} is not empty: choose a new folder, or delete it first", out.display());
    }
    let shape = Shape::new(args.shape, args.layers);
    let tokenizer =
        args.tokenizer.as_deref().map(|file| tokenizer::read(file, shape.vocabulary())).transpose()?;
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    if let Some(tokenizer) = tokenizer {
        let file = out.join("tokenizer.json");
        fs::write(&file, tokenizer).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let tensors = shape.tensors(!args.no_embeddings);
    writer::write_json(&out.join("config.json"), &shape.config(args.dtype))?;
    writer::write_json(&out.join("generation_config.json"), &shape.generation_config())?;
    let written = writer::write_weights(out, &tensors, args)?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{}: {} tensors, {} shards, {} bytes in {seconds:.2} s ({:.2} GB/s)",
        out.display(),
        tensors.len(),
        written.shards,
        written.bytes,
        written.bytes as f64 / seconds / 1e9
    );
    Ok(())
}
