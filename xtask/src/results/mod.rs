//! `cargo xtask results`: measures every codec through the whole pipeline and writes `docs/results.md` and its plots.

mod answers;
mod gap;
mod input;
mod peers;
mod plot;
mod weights;

use anyhow::{Context, Result};
use input::Inputs;
use std::fs;
use std::path::PathBuf;

/// Arguments of `results`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file to write; plots go to a folder `plots` beside it
    #[arg(long, value_name = "FILE", default_value = "docs/results.md")]
    output: PathBuf,
}

/// What is written: the text, and pictures as file name and SVG.
#[derive(Debug, Default)]
struct Page {
    text: String,
    plots: Vec<(&'static str, String)>,
}

impl Page {
    /// Adds a picture, and to the text what shows it.
    fn show(&mut self, file: &'static str, alt: &str, svg: String) {
        self.text.push_str(&format!("![{alt}](plots/{file})\n\n"));
        self.plots.push((file, svg));
    }
}

/// Runs `results`.
///
/// # Errors
/// If compressing or writing fails.
pub fn run(args: &Args) -> Result<()> {
    let work = std::env::temp_dir().join(format!("lsb-results-{}", std::process::id()));
    fs::create_dir_all(&work)?;
    let page = measure(&Inputs::new(work.clone()));
    fs::remove_dir_all(&work)?;
    let page = page?;
    let plots = args.output.with_file_name("plots");
    fs::create_dir_all(&plots).with_context(|| plots.display().to_string())?;
    for (file, svg) in &page.plots {
        let path = plots.join(file);
        fs::write(&path, svg).with_context(|| path.display().to_string())?;
    }
    fs::write(&args.output, &page.text).with_context(|| args.output.display().to_string())?;
    println!("wrote {} and {} plots", args.output.display(), page.plots.len());
    Ok(())
}

fn measure(inputs: &Inputs) -> Result<Page> {
    let mut page = Page::default();
    page.text.push_str(
        "# Measured results\n\n\
         Written by `cargo xtask results`, which runs the whole pipeline; nothing here is typed by hand. Figures are of\n\
         weights, without calibration, but for those under \"What it answers\". *Bits per weight* count every\n\
         stored byte of the tensor (tiles, side information, tile table); *in all* counts the whole package,\n\
         manifest and shard headers included. *MSE* is the mean squared error over the mean square of the weights,\n\
         *SNR* the same in dB, *error / range* the mean of |error| over the range of the tensor.\n\n\
         Shannon's bound for Gaussian weights is 6.02 dB per bit: no codec can be above it, and what it leaves\n\
         is what better codecs can still win.\n\n",
    );
    gap::section(inputs, &mut page)?;
    let gauss = inputs.gaussian("gauss", [4096, 4096], lsb_format::DType::BF16)?;
    weights::gaussian(inputs, &gauss, &mut page.text)?;
    let reports = weights::reflm(inputs, &mut page.text)?;
    answers::section(inputs, &mut page)?;
    weights::kinds(&reports, &mut page.text);
    weights::groups(inputs, &gauss, &mut page.text)?;
    Ok(page)
}
