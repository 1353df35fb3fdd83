//! Which files of a folder are the model's weights.

use super::file::read_small;
use super::warning::{Warning, Warnings};
use crate::error::{Error, Result};
use lsb_format::shard_index::{MAX_INDEX_LEN, ShardIndex};
use lsb_format::{ErrorKind, escape};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const WEIGHTS: &str = ".safetensors";
const INDEX: &str = ".safetensors.index.json";

/// Names listed in one message.
const LISTED: usize = 8;

/// The weight files of a model, and how they were found.
#[derive(Debug)]
pub(super) struct Layout {
    /// Name relative to the folder, and path; in order of name.
    pub(super) files: Vec<(String, PathBuf)>,
    /// The index and its file name, where there is one.
    pub(super) index: Option<(ShardIndex, String)>,
}

/// The layout of a model that is one file.
pub(super) fn of_file(path: &Path, warnings: &mut Warnings) -> Result<Layout> {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    if let Some(shard) = ShardNumber::of(&name).filter(|shard| shard.of > 1) {
        let message = format!("this is one of {} shards; only its tensors are read", shard.of);
        warnings.add(Warning::new("B74", message).in_file(&name))?;
    }
    Ok(Layout { files: vec![(name, path.to_owned())], index: None })
}

/// The layout of a folder with the regular entries `names`, sorted.
pub(super) fn of_dir(
    dir: &Path,
    names: &[String],
    subfolders: bool,
    warnings: &mut Warnings,
) -> Result<Layout> {
    let ends = |end: &'static str| names.iter().filter(move |n| n.ends_with(end) && !n.starts_with('.'));
    let indices: Vec<&String> = ends(INDEX).collect();
    let weights: Vec<&String> = ends(WEIGHTS).collect();
    let usual = indices.iter().copied().find(|n| *n == "model.safetensors.index.json");
    let index = match (usual, indices.as_slice()) {
        (Some(name), _) => Some(name),
        (None, []) => None,
        (None, [only]) => Some(*only),
        (None, several) => return Err(ambiguous(dir, "indices", several)),
    };
    let (chosen, index) = match index {
        Some(name) => {
            let bytes = read_small(&dir.join(name), name, MAX_INDEX_LEN, "B73")?;
            let index = ShardIndex::parse(&bytes, subfolders).map_err(|e| e.in_file(name))?;
            let chosen: Vec<String> = index.shards().iter().map(|s| s.as_str().to_owned()).collect();
            require(dir, name, &chosen)?;
            (chosen, Some((index, name.clone())))
        }
        None => (without_index(dir, names, &weights)?, None),
    };
    for stray in weights.iter().filter(|n| chosen.binary_search(n).is_err()) {
        let message = match &index {
            Some((_, index)) => {
                format!("{} does not list this file; its tensors are left out", escape(index))
            }
            None => "this file is not part of the model; its tensors are left out".to_owned(),
        };
        warnings.add(Warning::new("B71", message).in_file(stray.as_str()))?;
    }
    let files = chosen.into_iter().map(|name| (name.clone(), dir.join(name))).collect();
    Ok(Layout { files, index })
}

/// Refuses an index whose shards are not all there, naming every missing one.
fn require(dir: &Path, index: &str, shards: &[String]) -> Result<()> {
    // A link to nowhere is there, and is reported as an unfinished download when it is opened.
    let missing: Vec<_> = shards.iter().filter(|s| dir.join(s).symlink_metadata().is_err()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{} of the {} shards in the index are not there: {}",
        missing.len(),
        shards.len(),
        listed(missing.iter().map(|s| s.as_str()))
    );
    Err(lsb_format::Error::new(ErrorKind::Truncated, "B67", message)
        .in_file(index)
        .advise("finish the download")
        .into())
}

/// Chooses among the `.safetensors` files of a folder without an index.
fn without_index(dir: &Path, names: &[String], weights: &[&String]) -> Result<Vec<String>> {
    let mut sets: BTreeMap<(&str, &str), Vec<ShardNumber<'_>>> = BTreeMap::new();
    for shard in weights.iter().filter_map(|name| ShardNumber::of(name)) {
        sets.entry((shard.prefix, shard.of_text)).or_default().push(shard);
    }
    let single = weights.iter().copied().find(|n| *n == "model.safetensors");
    let mut sets = sets.into_values();
    match (single, sets.next(), sets.next()) {
        (Some(name), None, _) => Ok(vec![name.clone()]),
        (None, Some(set), None) => complete(dir, &set),
        (None, None, _) => match weights {
            [] => Err(nothing(dir, names)),
            [only] => Ok(vec![(*only).clone()]),
            several => Err(ambiguous(dir, "weight files", several)),
        },
        _ => Err(ambiguous(dir, "models", weights)),
    }
}

/// The names of a set of numbered shards, if none is missing.
fn complete(dir: &Path, set: &[ShardNumber<'_>]) -> Result<Vec<String>> {
    let Some(first) = set.first() else { return Ok(Vec::new()) };
    let mut missing = (1..=first.of).filter(|i| set.iter().all(|s| s.number != *i));
    let odd = set.iter().find(|s| s.number == 0 || s.number > s.of);
    let message = match (missing.next(), odd) {
        (None, None) => return Ok(set.iter().map(|s| s.name.to_owned()).collect()),
        (None, Some(odd)) => format!("{} is not a number from 1 to {}", odd.number, odd.of),
        (Some(one), _) => {
            let numbers: Vec<String> =
                std::iter::once(one).chain(missing.by_ref().take(LISTED)).map(|i| i.to_string()).collect();
            let more = missing.count();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!(
                "there is no index, and of {} shards number {} is missing{more}",
                first.of,
                numbers.join(", ")
            )
        }
    };
    Err(lsb_format::Error::new(ErrorKind::Truncated, "B74", message)
        .in_file(dir.join(first.name).file_name().unwrap_or_default().to_string_lossy())
        .advise("finish the download")
        .into())
}

/// `model-00001-of-00003.safetensors`, taken apart.
#[derive(Debug)]
struct ShardNumber<'a> {
    name: &'a str,
    prefix: &'a str,
    of_text: &'a str,
    number: u32,
    of: u32,
}

impl<'a> ShardNumber<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let (rest, of_text) = name.strip_suffix(WEIGHTS)?.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let digits = |s: &str| {
            let plain = s.len() == of_text.len() && (1..=5).contains(&s.len());
            (plain && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse().ok())?
        };
        Some(ShardNumber { name, prefix, of_text, number: digits(number)?, of: digits(of_text)? })
    }
}

/// The error for a folder without weights, which says what is there instead.
fn nothing(dir: &Path, names: &[String]) -> Error {
    if let Some(name) = names.iter().find(|n| n.contains(WEIGHTS) && n.ends_with(".incomplete")) {
        return lsb_format::Error::new(ErrorKind::Truncated, "B12", "the download was not finished")
            .in_file(name)
            .advise("finish the download")
            .into();
    }
    let ends = [".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack"];
    let others = names.iter().filter(|n| ends.iter().any(|end| n.ends_with(end))).map(String::as_str);
    let instead = match listed(others) {
        list if list.is_empty() => "check the path, or finish the download".to_owned(),
        list => format!("it holds {list}; convert these to safetensors first"),
    };
    Error::Refused { message: format!("{} has no .safetensors file; {instead}", dir.display()) }
}

fn ambiguous(dir: &Path, what: &str, names: &[&String]) -> Error {
    let names = listed(names.iter().map(|n| n.as_str()));
    let message = format!("the folder holds several {what}: {names}");
    lsb_format::Error::new(ErrorKind::InvalidArgument, "B71", message)
        .in_file(dir.to_string_lossy())
        .advise("name one file, or keep one model in the folder")
        .into()
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names = names.map(escape);
    let mut text = names.by_ref().take(LISTED).collect::<Vec<_>>().join(", ");
    let more = names.count();
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_numbers_are_read_from_names() {
        let s = ShardNumber::of("model-00002-of-00003.safetensors").unwrap();
        assert_eq!((s.prefix, s.number, s.of), ("model", 2, 3));
        let s = ShardNumber::of("a-of-b-1-of-4.safetensors").unwrap();
        assert_eq!((s.prefix, s.number, s.of), ("a-of-b", 1, 4));
        for name in [
            "model.safetensors",
            "m-1-of-x.safetensors",
            "m-+1-of-02.safetensors",
            "m-1-of-03.safetensors",
            "x-of-1",
        ] {
            assert!(ShardNumber::of(name).is_none(), "{name}");
        }
    }
}
