//! Weights of a package, decoded tile by tile with the codecs of a registry.

use super::bytes::{Bytes, read_whole};
use super::cover::gather;
use super::{
    FEW_TOKENS, Scratch, TensorFacts, TensorWeights, UnpackedWeights, WeightSource, check_float, check_run,
    facts_of, no_products, not_exact,
};
use crate::layers::layer_of;
use crate::package::{Package, PackedTensor};
use crate::{Error, Result};
use lsb_format::package::{CodecRecord, Content, MANIFEST_FILE};
use lsb_format::{Tile, Tiling};
use lsb_quant::{
    Activations, Packing, Parameters, Quantizer, Registry, TensorDecoder, TileProducts, UnpackedTile,
};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An opened [`Package`] as a [`WeightSource`]. Every tile is checked against its checksum when its bytes are
/// read from the file.
#[derive(Debug)]
pub struct PackageWeights {
    package: Package,
    facts: Vec<TensorFacts>,
    /// For each tensor, the codec that decodes it.
    codecs: Vec<Arc<dyn Quantizer>>,
    /// Bytes read from the shards.
    bytes_read: Arc<AtomicU64>,
}

impl PackageWeights {
    /// The weights of `package`, whose codecs are built from `registry`.
    ///
    /// # Errors
    /// If the registry lacks a codec, or a codec refuses the parameters it was stored with.
    pub fn new(package: Package, registry: &Registry) -> Result<Self> {
        let (mut facts, mut codecs) = (Vec::new(), Vec::new());
        // One codec per record of the manifest, however many tensors share it.
        let mut built: Vec<Option<(Parameters, Arc<dyn Quantizer>)>> =
            vec![None; package.manifest().codecs.len()];
        for (index, record) in package.manifest().tensors.iter().enumerate() {
            let missing =
                |what: &str| lsb_format::Error::corruption("P15", what.to_owned()).in_tensor(&record.name);
            let (content, same_as) = match &record.content {
                Content::Stored(_) => (Some(&record.content), None),
                Content::SameAs(other) => {
                    (package.manifest().tensor(other).map(|t| &t.content), Some(other.clone()))
                }
            };
            let Some(Content::Stored(stored)) = content else {
                return Err(missing("the tensor it is the same as is not stored").into());
            };
            let codec = package.manifest().codecs.get(stored.codec).zip(built.get_mut(stored.codec));
            let (codec, slot) = codec.ok_or_else(|| missing("its codec is not listed"))?;
            let (parameters, quantizer) = match slot {
                Some(known) => known,
                None => {
                    let parameters = parameters(codec)?;
                    let quantizer =
                        registry.build(&codec.id, &parameters).map_err(Error::codec(&record.name))?;
                    slot.insert((parameters, quantizer))
                }
            };
            facts.push(TensorFacts {
                name: record.name.clone(),
                layer: layer_of(&record.name).to_string(),
                dtype: stored.dtype,
                shape: stored.shape.clone(),
                stored_bytes: package.stored_bytes(index).unwrap_or(0),
                codec: Some((codec.id.clone(), parameters.clone())),
                same_as,
            });
            codecs.push(Arc::clone(quantizer));
        }
        Ok(PackageWeights { package, facts, codecs, bytes_read: Arc::default() })
    }

    /// The package.
    pub fn package(&self) -> &Package {
        &self.package
    }

    /// Opens a tensor whose partition is the one its codec makes.
    fn open_tensor(&self, tensor: usize) -> Result<Open> {
        let facts = facts_of(&self.facts, tensor)?.clone();
        let codec = self.codecs.get(tensor).ok_or_else(|| Error::Config("a tensor has no codec".into()))?;
        let packed = self.package.tensor_at(tensor)?;
        self.bytes_read.fetch_add(packed.stored_bytes() - packed.data_bytes(), Ordering::Relaxed);
        Open::new(facts, packed, &**codec, Arc::clone(&self.bytes_read))
    }
}

fn parameters(codec: &CodecRecord) -> Result<Parameters> {
    let parameters = serde_json::to_value(&codec.parameters).and_then(serde_json::from_value);
    parameters.map_err(|e| {
        let message = format!("parameters of {}: {e}", lsb_format::escape(&codec.id));
        lsb_format::Error::corruption("P06", message).in_file(MANIFEST_FILE).into()
    })
}

impl WeightSource for PackageWeights {
    fn tensors(&self) -> &[TensorFacts] {
        &self.facts
    }

    fn open(&self, tensor: usize) -> Result<Box<dyn TensorWeights>> {
        Ok(Box::new(self.open_tensor(tensor)?))
    }

    fn hold(&self, tensor: usize) -> Result<Box<dyn TensorWeights>> {
        let mut open = self.open_tensor(tensor)?;
        let Open { facts, packed, .. } = &open;
        let mut checked = 0;
        let read = |at, out: &mut [u8]| {
            packed.read_data(at, out)?;
            self.bytes_read.fetch_add(out.len() as u64, Ordering::Relaxed);
            Ok(())
        };
        // Tiles are checked while their bytes are still in the cache.
        let bytes = read_whole(packed.data_bytes(), &facts.name, read, |bytes| {
            while packed.data_range(checked).is_some_and(|range| range.end <= bytes.len() as u64) {
                packed.check_tile(checked, bytes)?;
                checked += 1;
            }
            Ok(())
        })?;
        // Tiles without bytes are left where no byte was read at all.
        for tile in checked..packed.tiling().len() {
            packed.check_tile(tile, &bytes)?;
        }
        open.held = Some(bytes);
        Ok(Box::new(open))
    }

    fn held_bytes(&self, tensor: usize) -> u64 {
        self.package.stored_bytes_with(tensor).unwrap_or(0)
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }
}

/// A tensor of a package that is still being written, decoded with `codec`.
///
/// # Errors
/// If the codec refuses what is stored.
pub(crate) fn written(packed: PackedTensor, codec: &dyn Quantizer) -> Result<Arc<dyn TensorWeights>> {
    let facts = TensorFacts {
        name: packed.name().to_owned(),
        layer: layer_of(packed.name()).to_string(),
        dtype: packed.stored().dtype,
        shape: packed.stored().shape.clone(),
        stored_bytes: packed.stored_bytes(),
        codec: Some((packed.codec().to_owned(), packed.parameters().clone())),
        same_as: None,
    };
    Ok(Arc::new(Open::new(facts, packed, codec, Arc::default())?))
}

struct Open {
    facts: TensorFacts,
    packed: PackedTensor,
    decoder: Box<dyn TensorDecoder>,
    /// The bytes of all tiles, where they are held in memory.
    held: Option<Bytes>,
    bytes_read: Arc<AtomicU64>,
}

impl Open {
    fn new(
        facts: TensorFacts,
        packed: PackedTensor,
        codec: &dyn Quantizer,
        bytes_read: Arc<AtomicU64>,
    ) -> Result<Open> {
        let matrix = packed.matrix();
        // A decoder may rely on the partition its codec makes; the table only says what is stored.
        let tiling = codec.tiling(&matrix).map_err(Error::codec(&facts.name))?;
        if tiling != *packed.tiling() {
            let shape = |t: &Tiling| format!("{} x {} in {} parts", t.tile_rows(), t.tile_cols(), t.parts());
            let message = format!(
                "tiles of {} where {} makes tiles of {}",
                shape(packed.tiling()),
                codec.id(),
                shape(&tiling)
            );
            return Err(lsb_format::Error::corruption("P10", message)
                .in_file(packed.file_name())
                .in_tensor(&facts.name)
                .into());
        }
        let decoder = codec.decoder(&matrix, packed.side()).map_err(Error::codec(&facts.name))?;
        Ok(Open { facts, packed, decoder, held: None, bytes_read })
    }

    /// Finds one tile with all its parts, in memory or in the file, and hands them to `decode`.
    fn tile(
        &self,
        tile: &Tile,
        stored: &mut Vec<u8>,
        decode: impl FnOnce(&dyn TensorDecoder, &[&[u8]]) -> lsb_quant::Result<()>,
    ) -> Result<()> {
        let parts = self.parts(tile, stored)?;
        decode(&*self.decoder, &parts).map_err(|e| self.in_tile(e, tile))
    }

    /// All parts of a tile, in memory or read from the file into `stored`.
    fn parts<'b>(&'b self, tile: &Tile, stored: &'b mut Vec<u8>) -> Result<Vec<&'b [u8]>> {
        if let Some(held) = &self.held {
            return self.packed.tile_in(tile.index, held);
        }
        let parts = self.packed.read_tile(tile.index, self.tiling().parts(), stored)?;
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        Ok(parts)
    }

    /// A codec's error with the place where it happened.
    fn in_tile(&self, error: lsb_quant::Error, tile: &Tile) -> Error {
        match Error::codec(&self.facts.name)(error) {
            Error::Input(e) => Error::Input(e.in_file(self.packed.file_name()).in_tile(tile.index)),
            other => other,
        }
    }
}

impl TensorWeights for Open {
    fn facts(&self) -> &TensorFacts {
        &self.facts
    }

    fn tiling(&self) -> &Tiling {
        self.packed.tiling()
    }

    fn is_exact(&self) -> bool {
        self.decoder.is_exact()
    }

    fn scratch_bytes(&self) -> u64 {
        let tile = self.tiling().tile_rows().min(self.tiling().rows())
            * self.tiling().tile_cols().min(self.tiling().cols());
        // Two tiles where they are multiplied as they are decoded, and as many as are unpacked as one.
        let units = self.products_tiling(usize::MAX);
        let unit = units.tile_rows().min(units.rows()).div_ceil(self.tiling().tile_rows());
        let tiles = if self.has_products(0) { unit.max(2) } else { 1 };
        let stored = if self.held.is_some() { 0 } else { tiles * self.packed.largest_tile_bytes() };
        // Either as f32 or in its own type: a reader uses one of the two. Bytes of levels, in the order of rows and packed, take half
        // of that.
        stored + tile * (self.facts.dtype.bits().div_ceil(8).max(4)).max(2 * unit)
    }

    fn read_f32(&self, elements: Range<u64>, out: &mut [f32], scratch: &mut Scratch) -> Result<()> {
        let _phase = tracing::debug_span!("decoding").entered();
        check_float(&self.facts)?;
        check_run(&self.facts, &elements, size_of_val(out), 32)?;
        let Scratch { stored, values, .. } = scratch;
        gather(
            self.tiling(),
            elements,
            |n| n as usize,
            out,
            values,
            |tile, out| self.tile(tile, stored, |decoder, parts| decoder.decode(tile, parts, out)),
        )
    }

    fn read_exact(&self, elements: Range<u64>, out: &mut [u8], scratch: &mut Scratch) -> Result<()> {
        let _phase = tracing::debug_span!("decoding").entered();
        let bits = self.facts.dtype.bits();
        check_run(&self.facts, &elements, out.len(), bits)?;
        if !self.is_exact() {
            return Err(not_exact(&self.facts));
        }
        let Scratch { stored, exact, .. } = scratch;
        gather(
            self.tiling(),
            elements,
            |n| (n * bits / 8) as usize,
            out,
            exact,
            |tile, out| self.tile(tile, stored, |decoder, parts| decoder.decode_exact(tile, parts, out)),
        )
    }

    fn has_products(&self, tokens: usize) -> bool {
        self.decoder.products().is_some_and(|products| tokens <= FEW_TOKENS || products.multiplies(tokens))
    }

    fn activation_bytes(&self) -> usize {
        self.decoder.products().map_or(0, |products| products.activation_bytes())
    }

    fn products_tiling(&self, tokens: usize) -> Tiling {
        self.units(tokens).unwrap_or(*self.tiling())
    }

    fn add_products(
        &self,
        tiles: Range<u64>,
        x: &Activations<'_>,
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let _phase = tracing::debug_span!("multiplying").entered();
        check_float(&self.facts)?;
        let products = self.decoder.products().ok_or_else(|| no_products(&self.facts))?;
        let Scratch { stored, second, several, .. } = scratch;
        if let Some(units) = self.units(x.tokens()) {
            for unit in tiles.map(|index| units.tile(index)) {
                let rows = unit.row..unit.row + unit.rows;
                self.unpack_rows(products, rows, Packing::Bytes, several)?.add_products(x, 0, y);
            }
            return Ok(());
        }
        let mut indices = tiles;
        while let Some(index) = indices.next() {
            let tile = self.tiling().tile(index);
            let parts = self.parts(&tile, stored)?;
            match indices.next().map(|index| self.tiling().tile(index)) {
                Some(next) => {
                    let next_parts = self.parts(&next, second)?;
                    multiply(products, &[(tile, &parts), (next, &next_parts)], x, y)
                }
                None => multiply(products, &[(tile, &parts)], x, y),
            }
            .map_err(|e| self.in_tile(e, &tile))?;
        }
        Ok(())
    }

    fn unpacked_bytes(&self) -> Option<u64> {
        let weights = self.facts.weights() as f64;
        let stored = 8.0 * self.packed.stored_bytes() as f64 / weights.max(1.0);
        let bits = self.decoder.products()?.unpacked_bits(stored)?;
        Some((weights * bits / 8.0) as u64)
    }

    fn unpack(&self, room: u64) -> Result<Option<UnpackedWeights>> {
        let Some(products) = self.decoder.products().filter(|products| products.unpacks()) else {
            return Ok(None);
        };
        check_float(&self.facts)?;
        let tiling = self.tiling();
        let (tiling, tiles) = if let Some(cuts) = products.unpacked_tiling(tiling, Packing::Narrow) {
            let units = (0..cuts.len()).map(|index| index..index + 1).collect();
            let tiles = self.unpack_units(units, room, |unit, buffers| {
                let cut = cuts.tile(unit.start);
                self.unpack_rows(products, cut.row..cut.row + cut.rows, Packing::Narrow, buffers)
                    .map(|tile| vec![tile])
            })?;
            (cuts, tiles)
        } else {
            // Two neighbours in a row of tiles at a time.
            let across = tiling.across();
            let pairs = (0..tiling.len())
                .step_by(across.max(1) as usize)
                .flat_map(|row| (row..row + across).step_by(2).map(move |i| i..(i + 2).min(row + across)))
                .collect();
            let tiles = self.unpack_units(pairs, room, |pair, buffers| {
                let tiles = self.with_parts(pair.clone(), buffers)?;
                let unpacked = products.unpack(&borrowed(&tiles), Packing::Narrow);
                unpacked.map_err(|e| self.in_tile(e, &tiling.tile(pair.start)))
            })?;
            (*tiling, tiles)
        };
        Ok(tiles.map(|tiles| UnpackedWeights::new(self.facts.clone(), tiling, tiles)))
    }
}

/// Tiles with their parts.
type WithParts<'b> = Vec<(Tile, Vec<&'b [u8]>)>;

/// The same, as codecs take them.
fn borrowed<'t>(tiles: &'t WithParts<'_>) -> Vec<(Tile, &'t [&'t [u8]])> {
    tiles.iter().map(|(tile, parts)| (*tile, &parts[..])).collect()
}

impl Open {
    /// Tiles with their parts, whose bytes are in `buffers` where they are not in memory.
    fn with_parts<'b>(&'b self, tiles: Range<u64>, buffers: &'b mut Vec<Vec<u8>>) -> Result<WithParts<'b>> {
        buffers.resize_with(buffers.len().max((tiles.end - tiles.start) as usize), Vec::new);
        let parts = tiles.zip(buffers).map(|(index, buffer)| {
            let tile = self.tiling().tile(index);
            Ok((tile, self.parts(&tile, buffer)?))
        });
        parts.collect()
    }

    /// The tiles of rows that are unpacked as one for a product with so many tokens; `None` where stored tiles are multiplied.
    fn units(&self, tokens: usize) -> Option<Tiling> {
        let products = self.decoder.products().filter(|_| tokens > FEW_TOKENS)?;
        products.unpacked_tiling(self.tiling(), Packing::Bytes)
    }

    /// Some rows unpacked as one.
    fn unpack_rows(
        &self,
        products: &dyn TileProducts,
        rows: Range<u64>,
        packing: Packing,
        buffers: &mut Vec<Vec<u8>>,
    ) -> Result<UnpackedTile> {
        let height = self.tiling().tile_rows();
        let tiles = self.with_parts(rows.start / height..rows.end.div_ceil(height), buffers)?;
        products.unpack_rows(&borrowed(&tiles), rows, packing).map_err(|e| {
            // Of the first that is damaged.
            let alone = |tile: &Tile, parts: &[&[u8]]| products.unpack(&[(*tile, parts)], Packing::Narrow);
            match tiles.iter().find(|(tile, parts)| alone(tile, parts).is_err()).or(tiles.first()) {
                Some((tile, _)) => self.in_tile(e, tile),
                None => Error::codec(&self.facts.name)(e),
            }
        })
    }

    /// Unpacks ranges of tiles in parallel; `None` where they do not fit in `room` bytes.
    fn unpack_units(
        &self,
        units: Vec<Range<u64>>,
        room: u64,
        unpack: impl Fn(Range<u64>, &mut Vec<Vec<u8>>) -> Result<Vec<UnpackedTile>> + Sync,
    ) -> Result<Option<Vec<UnpackedTile>>> {
        let taken = AtomicU64::new(0);
        let tiles: Vec<Result<Option<Vec<UnpackedTile>>>> = units
            .into_par_iter()
            .map_init(Vec::new, |buffers, unit| {
                if taken.load(Ordering::Relaxed) > room {
                    return Ok(None);
                }
                let unpacked = unpack(unit, buffers)?;
                taken.fetch_add(unpacked.iter().map(UnpackedTile::bytes).sum(), Ordering::Relaxed);
                Ok(Some(unpacked))
            })
            .collect();
        // The first error in the order of the tiles wins, whatever order the threads ran in.
        let tiles: Option<Vec<Vec<_>>> = tiles.into_iter().collect::<Result<_>>()?;
        Ok(tiles.filter(|_| taken.into_inner() <= room).map(|units| units.into_iter().flatten().collect()))
    }
}

/// Adds the products of tiles: of few tokens as levels are decoded, of more with levels as integers.
fn multiply(
    products: &dyn TileProducts,
    tiles: &[(Tile, &[&[u8]])],
    x: &Activations<'_>,
    y: &mut [f32],
) -> lsb_quant::Result<()> {
    if x.tokens() <= FEW_TOKENS {
        return products.add_products(tiles, x, y);
    }
    for (unpacked, (tile, _)) in products.unpack(tiles, Packing::Bytes)?.iter().zip(tiles) {
        unpacked.add_products(x, tile.col as usize, y);
    }
    Ok(())
}
