//! Opens a package: manifest and shard headers, every one checked before anything else is read.

use super::read_exact;
use super::tensor::PackedTensor;
use crate::store::{Entry, OpenMode, RealStore, Store, StoreFile};
use crate::{Error, Result};
use lsb_format::package::{
    Content, Hash, MANIFEST_FILE, MAX_MANIFEST_BYTES, Manifest, ShardHeader, ShardRecord, StoredTensor,
    TensorKey,
};
use lsb_format::{Error as FormatError, ErrorKind, escape};
use lsb_quant::Parameters;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Shards that are kept open at a time, so that a package of any size gets by with few handles.
const OPEN_SHARDS: usize = 8;

/// A package on disk whose manifest and shard headers are valid.
///
/// Tensors are read on demand with positional reads; nothing is mapped. May be shared between threads.
#[derive(Debug)]
pub struct Package {
    files: Files,
    manifest: Manifest,
    /// Tensor indices in the order of their names.
    by_name: Vec<usize>,
    /// Where each stored tensor lies in its shard.
    places: Vec<Option<Range<u64>>>,
}

/// The files of a package, with some of the shards open.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) store: Arc<dyn Store>,
    pub(super) path: PathBuf,
    open: Mutex<Vec<(usize, Arc<dyn StoreFile>)>>,
}

impl Package {
    /// Opens the package in directory `path`.
    ///
    /// # Errors
    /// [`Error::Input`] under a `P` rule if it is damaged, incomplete or no package, [`Error::Io`] if it cannot
    /// be read.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_in(Arc::new(RealStore), path)
    }

    /// As [`Package::open`], in any store.
    ///
    /// # Errors
    /// As [`Package::open`].
    pub fn open_in(store: Arc<dyn Store>, path: &Path) -> Result<Self> {
        let files = Files::new(store, path);
        let manifest = files.manifest()?;
        let mut places = vec![None; manifest.tensors.len()];
        for shard in 0..manifest.shards.len() {
            files.check_size(&manifest, shard)?;
            for (tensor, place) in files.shard_places(&manifest, shard)? {
                if let Some(slot) = places.get_mut(tensor) {
                    *slot = Some(place);
                }
            }
        }
        Ok(Self::assemble(files, manifest, places))
    }

    pub(super) fn assemble(files: Files, manifest: Manifest, places: Vec<Option<Range<u64>>>) -> Self {
        let mut by_name: Vec<usize> = (0..manifest.tensors.len()).collect();
        by_name.sort_by_key(|i| manifest.tensors.get(*i).map(|t| t.name.as_str()));
        Package { files, manifest, by_name, places }
    }

    /// What the package holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Gives the manifest away.
    pub fn into_manifest(self) -> Manifest {
        self.manifest
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.files.path
    }

    /// The tensor `name`, its tile table read and checked. Of a tensor that is the same as another one, that one.
    ///
    /// # Errors
    /// If there is no such tensor, or its tile table is damaged.
    pub fn tensor(&self, name: &str) -> Result<PackedTensor> {
        let Some(index) = self.find(name) else {
            return Err(FormatError::argument(format!("the package has no tensor \"{}\"", escape(name)))
                .in_file(self.files.path.display().to_string())
                .into());
        };
        self.tensor_at(index)
    }

    /// The tensor with index `index` of the manifest.
    ///
    /// # Errors
    /// As [`Package::tensor`].
    pub fn tensor_at(&self, index: usize) -> Result<PackedTensor> {
        let mut at = index;
        for _ in 0..2 {
            match self.manifest.tensors.get(at).map(|t| (&t.name, &t.content)) {
                Some((name, Content::Stored(stored))) => return self.open_tensor(at, name, stored),
                // The manifest's rules say that this leads to a stored tensor.
                Some((_, Content::SameAs(other))) => at = self.find(other).unwrap_or(usize::MAX),
                None => break,
            }
        }
        Err(FormatError::argument(format!("the package has no tensor {index}")).into())
    }

    /// Bytes the tensor with index `index` takes in its shard, tile table included; `None` where it is not
    /// stored itself.
    pub fn stored_bytes(&self, index: usize) -> Option<u64> {
        self.places.get(index)?.as_ref().map(|place| place.end - place.start)
    }

    /// As [`Package::stored_bytes`]; of a tensor that is the same as another one, that one's.
    pub(crate) fn stored_bytes_with(&self, index: usize) -> Option<u64> {
        match &self.manifest.tensors.get(index)?.content {
            Content::Stored(_) => self.stored_bytes(index),
            Content::SameAs(other) => self.stored_bytes(self.find(other)?),
        }
    }

    fn open_tensor(&self, index: usize, name: &str, stored: &StoredTensor) -> Result<PackedTensor> {
        let shard = self.manifest.shards.get(stored.shard);
        let codec = self.manifest.codecs.get(stored.codec);
        let place = self.place(index);
        let (Some(shard), Some(codec), Some(place)) = (shard, codec, place) else {
            return Err(FormatError::corruption("P15", "its shard cannot be read").in_tensor(name).into());
        };
        let parameters = serde_json::to_value(&codec.parameters)
            .and_then(serde_json::from_value::<Parameters>)
            .map_err(|e| FormatError::corruption("P06", format!("parameters of {}: {e}", codec.id)))?;
        let file = self.files.shard(stored.shard, shard)?;
        let key = TensorKey::new(&self.manifest.package_id(), name);
        PackedTensor::open(
            file,
            self.files.path.join(&shard.file),
            key,
            place,
            name.to_owned(),
            stored.clone(),
            codec.id.clone(),
            parameters,
        )
    }

    /// Where a stored tensor lies in its shard, if that has a valid header.
    pub(super) fn place(&self, index: usize) -> Option<Range<u64>> {
        self.places.get(index).cloned().flatten()
    }

    fn find(&self, name: &str) -> Option<usize> {
        let named = |i: &usize| self.manifest.tensors.get(*i).map(|t| t.name.as_str());
        let at = self.by_name.binary_search_by(|i| named(i).cmp(&Some(name))).ok()?;
        self.by_name.get(at).copied()
    }
}

impl Files {
    pub(super) fn new(store: Arc<dyn Store>, path: &Path) -> Self {
        Files { store, path: path.to_owned(), open: Mutex::new(Vec::new()) }
    }

    /// Reads and checks `lsb.json`.
    pub(super) fn manifest(&self) -> Result<Manifest> {
        let path = self.path.join(MANIFEST_FILE);
        let size = match self.store.entry(&path).map_err(Error::io("look at", &path))? {
            Some(Entry::File(size)) => size,
            _ => {
                let message =
                    format!("{} is not an lsb package: it has no {MANIFEST_FILE}", self.path.display());
                return Err(FormatError::new(ErrorKind::Compatibility, "P01", message).into());
            }
        };
        if size > MAX_MANIFEST_BYTES {
            let message = format!("a manifest of {size} bytes: at most {MAX_MANIFEST_BYTES}");
            return Err(FormatError::corruption("P06", message).in_file(MANIFEST_FILE).into());
        }
        let file = self.store.open(&path, OpenMode::Read).map_err(Error::io("open", &path))?;
        // At most 64 MiB by the check above.
        let mut bytes = vec![0; size as usize];
        read_exact(&*file, &path, &mut bytes, 0)?;
        Manifest::parse(&bytes).map_err(|e| e.in_file(MANIFEST_FILE).into())
    }

    /// Compares the size of a shard with the manifest.
    pub(super) fn check_size(&self, manifest: &Manifest, number: usize) -> Result<()> {
        let Some(shard) = manifest.shards.get(number) else { return Ok(()) };
        let path = self.path.join(&shard.file);
        let found = self.store.entry(&path).map_err(Error::io("look at", &path))?;
        check_size(found, &shard.file, shard.bytes)
    }

    /// Reads and checks the header of a shard; returns where each of its tensors lies.
    pub(super) fn shard_places(
        &self,
        manifest: &Manifest,
        number: usize,
    ) -> Result<Vec<(usize, Range<u64>)>> {
        let Some(shard) = manifest.shards.get(number) else { return Ok(Vec::new()) };
        let path = self.path.join(&shard.file);
        let file = self.shard(number, shard)?;
        let mut first = [0; 8];
        read_exact(&*file, &path, &mut first, 0)?;
        let named = |e: FormatError| Error::Input(e.in_file(shard.file.as_str()));
        let length = ShardHeader::locate(shard.bytes, first).map_err(named)?;
        // At most 16 MiB by the rules of `locate`.
        let mut bytes = vec![0; length as usize];
        read_exact(&*file, &path, &mut bytes, 0)?;
        if Hash::of(&bytes) != shard.header_blake3 {
            let message = "the header is not the one the manifest was written with";
            return Err(named(
                FormatError::corruption("P14", message)
                    .at(0)
                    .advise("the shard is damaged or belongs to another package: fetch it again"),
            ));
        }
        let header = ShardHeader::parse(&bytes, shard.bytes - length).map_err(named)?;
        let bad = |message: String| Err(named(FormatError::corruption("P15", message)));
        let expected = (manifest.package_id(), number + 1, manifest.shards.len());
        if (&header.package, header.shard, header.of) != (&expected.0, expected.1, expected.2) {
            return bad(format!(
                "this is shard {}/{} of package {} where {}/{} of {} belongs",
                header.shard,
                header.of,
                escape(&header.package),
                expected.1,
                expected.2,
                expected.0
            ));
        }
        let mut places = Vec::with_capacity(header.tensors.len());
        let mut start = length;
        let mut entries = header.tensors.iter();
        for (index, tensor) in manifest.tensors.iter().enumerate() {
            if !matches!(&tensor.content, Content::Stored(s) if s.shard == number) {
                continue;
            }
            let Some(entry) = entries.next().filter(|e| e.name == tensor.name) else {
                return bad(format!("the tensor \"{}\" is not where it belongs", escape(&tensor.name)));
            };
            // The header's own rules say that all of them fit into the file.
            places.push((index, start..start + entry.bytes));
            start += entry.bytes;
        }
        match entries.next() {
            Some(entry) => bad(format!("the tensor \"{}\" is not in the manifest", escape(&entry.name))),
            None => Ok(places),
        }
    }

    /// An open shard.
    pub(super) fn shard(&self, number: usize, record: &ShardRecord) -> Result<Arc<dyn StoreFile>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = open.iter().position(|(n, _)| *n == number) {
            let entry = open.remove(at);
            let file = Arc::clone(&entry.1);
            open.push(entry);
            return Ok(file);
        }
        let path = self.path.join(&record.file);
        let file: Arc<dyn StoreFile> =
            Arc::from(self.store.open(&path, OpenMode::Read).map_err(Error::io("open", &path))?);
        if open.len() >= OPEN_SHARDS {
            open.remove(0);
        }
        open.push((number, Arc::clone(&file)));
        Ok(file)
    }
}

/// Compares what is found under a name with the size it must have.
pub(super) fn check_size(found: Option<Entry>, name: &str, expected: u64) -> Result<()> {
    let advice = "the package is incomplete: fetch this file again";
    let error = match found {
        Some(Entry::File(size)) if size == expected => return Ok(()),
        Some(Entry::File(size)) => {
            let kind = if size < expected { ErrorKind::Truncated } else { ErrorKind::Corruption };
            FormatError::new(kind, "P12", format!("the file has {size} bytes and should have {expected}"))
        }
        Some(_) => FormatError::corruption("P12", "it is not a file"),
        None => FormatError::new(ErrorKind::Truncated, "P12", "the file is missing"),
    };
    Err(error.in_file(name).advise(advice).into())
}
