//! One file per verb: arguments with their help, then `run`.

pub(crate) mod bench;
pub(crate) mod calibrate;
pub(crate) mod codecs;
pub(crate) mod compress;
pub(crate) mod decompress;
pub(crate) mod diff;
pub(crate) mod embed;
pub(crate) mod eval;
pub(crate) mod inspect;
pub(crate) mod limits;
pub(crate) mod options;
pub(crate) mod parents;
pub(crate) mod plan;
pub(crate) mod recipe;
pub(crate) mod run;
pub(crate) mod running;
mod search;
#[cfg(test)]
mod tests;
pub(crate) mod text;
pub(crate) mod threads;
pub(crate) mod tune;
pub(crate) mod validate;
pub(crate) mod value;
pub(crate) mod verify;

use crate::exit::Failure;
use crate::render::say;
use lsb_format::package::MANIFEST_FILE;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Refuses to compress what is compressed already; without this the message would be about missing files.
pub(crate) fn refuse_package(model: &Path) -> Result<(), Failure> {
    if !model.join(MANIFEST_FILE).exists() {
        return Ok(());
    }
    let name = model.display();
    Err(Failure::refused(format!("{name} is an lsb package; `lsb decompress` turns it into a model first")))
}

/// A flag that the first Ctrl-C sets; the second one ends the process.
pub(crate) fn interrupt_flag() -> Result<Arc<AtomicBool>, Failure> {
    /// The flag of the one handler that a process can have.
    static FLAG: std::sync::OnceLock<Arc<AtomicBool>> = std::sync::OnceLock::new();
    if let Some(flag) = FLAG.get() {
        return Ok(Arc::clone(flag));
    }
    let flag = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&flag);
    let set = ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        say("stopping after the current chunk; the work can be resumed (again to stop at once)");
    });
    set.map_err(|e| Failure::refused(format!("cannot handle Ctrl-C: {e}")))?;
    Ok(Arc::clone(FLAG.get_or_init(|| flag)))
}
