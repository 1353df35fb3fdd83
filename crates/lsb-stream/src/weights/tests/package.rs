//! A package written tile by tile with a codec of the test's own, read back as runs.

use crate::package::{Begin, Package, PackageWriter, TensorPlan, WriteOptions};
use crate::store::RealStore;
use crate::weights::{FEW_TOKENS, PackageWeights, Scratch, open_weights};
use lsb_format::package::{Fingerprint, ShortDigest, Source};
use lsb_format::{DType, Error, Tile, Tiling};
use lsb_quant::{
    Activations, CodecEntry, EncodedTile, Estimate, MatrixInfo, Parameters, Quantizer, Registry, Statistics,
    TensorDecoder, TensorEncoder, TileProducts,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ROWS: u64 = 10;
const COLS: u64 = 7;

/// Halves of f32 in two parts, in tiles of 4 x `width`.
#[derive(Clone, Copy, Debug)]
struct Halves {
    width: u64,
    exact: bool,
}

impl Halves {
    fn register(registry: &mut Registry, width: u64) {
        registry.register(CodecEntry::new("halves", "for tests", move |p: &Parameters| {
            let mut reader = p.reader("halves");
            let exact = reader.flag("exact", true)?;
            reader.finish()?;
            Ok(Arc::new(Halves { width, exact }) as Arc<dyn Quantizer>)
        }));
    }
}

impl Quantizer for Halves {
    fn id(&self) -> &str {
        "halves"
    }
    fn parameters(&self) -> Parameters {
        Parameters::new().with("exact", self.exact)
    }
    fn estimate(&self, _: &MatrixInfo) -> Option<Estimate> {
        None
    }
    fn tiling(&self, matrix: &MatrixInfo) -> lsb_quant::Result<Tiling> {
        Ok(Tiling::new(matrix.rows, matrix.cols, 4, self.width, 2)?)
    }
    fn encoder(&self, _: &MatrixInfo, _: &Statistics) -> lsb_quant::Result<Box<dyn TensorEncoder>> {
        Err(Error::argument("the test encodes by hand").into())
    }
    fn decoder(&self, _: &MatrixInfo, _: &[u8]) -> lsb_quant::Result<Box<dyn TensorDecoder>> {
        Ok(Box::new(*self))
    }
}

impl TensorDecoder for Halves {
    fn decode(&self, tile: &Tile, parts: &[&[u8]], out: &mut [f32]) -> lsb_quant::Result<()> {
        let [high, low] = parts else { return Err(Error::corruption("T1", "two parts").into()) };
        assert_eq!((out.len(), high.len()), (tile.weights(), 2 * tile.weights()));
        for (i, x) in out.iter_mut().enumerate() {
            *x = f32::from_le_bytes([low[2 * i], low[2 * i + 1], high[2 * i], high[2 * i + 1]]);
            if x.is_nan() {
                return Err(Error::corruption("T2", format!("weight {i} is NaN")).into());
            }
        }
        Ok(())
    }
    fn is_exact(&self) -> bool {
        self.exact
    }
    fn decode_exact(&self, tile: &Tile, parts: &[&[u8]], out: &mut [u8]) -> lsb_quant::Result<()> {
        let mut values = vec![0.0; tile.weights()];
        self.decode(tile, parts, &mut values)?;
        out.copy_from_slice(&values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>());
        Ok(())
    }
    fn products(&self) -> Option<&dyn TileProducts> {
        self.exact.then_some(self as _)
    }
}

impl TileProducts for Halves {
    fn add_products(
        &self,
        tiles: &[(Tile, &[&[u8]])],
        x: &Activations<'_>,
        y: &mut [f32],
    ) -> lsb_quant::Result<()> {
        for (tile, parts) in tiles {
            let (rows, cols) = (tile.rows as usize, tile.cols as usize);
            let mut values = vec![0.0; tile.weights()];
            self.decode(tile, parts, &mut values)?;
            for (token, y) in y.chunks_mut(rows).enumerate() {
                let x = &x.token(token)[tile.col as usize..];
                for (y, w) in y.iter_mut().zip(values.chunks(cols)) {
                    *y += w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
                }
            }
        }
        Ok(())
    }
}

fn value(row: u64, col: u64) -> f32 {
    (row * COLS + col) as f32 * 1.001 - 20.0
}

/// Writes tensors `a` and `b` = `a` (the latter stored with the former) and `lossy`, with a NaN at `poison`.
fn write(dir: &Path, width: u64, poison: Option<u64>) -> PathBuf {
    let plan = |name: &str, same_as: Option<&str>| TensorPlan {
        name: name.to_owned(),
        dtype: DType::F32,
        shape: vec![ROWS, COLS],
        same_as: same_as.map(str::to_owned),
    };
    let options = WriteOptions {
        fingerprint: Fingerprint::new().with("test", "halves"),
        restart: false,
        overwrite: false,
        tool: "test".into(),
        source: Source::default(),
        tensors: vec![
            plan("layers.0.a", None),
            plan("lm_head.b", Some("layers.0.a")),
            plan("layers.1.lossy", None),
        ],
        shard_bytes: 1 << 30,
    };
    let out = dir.join("package");
    let Begin::Write { mut writer, .. } = PackageWriter::begin(Arc::new(RealStore), &out, options).unwrap()
    else {
        panic!("nothing was there")
    };
    for (index, exact) in [(0, true), (2, false)] {
        let codec = Halves { width, exact };
        let tiling = codec.tiling(&MatrixInfo::of_shape(&[ROWS, COLS], DType::F32)).unwrap();
        writer.begin_tensor(index, tiling).unwrap();
        for tile in (0..tiling.len()).map(|i| tiling.tile(i)) {
            let mut encoded = EncodedTile::default();
            let places = (tile.row..tile.row + tile.rows)
                .flat_map(|r| (tile.col..tile.col + tile.cols).map(move |c| (r, c)));
            let values: Vec<f32> = places
                .map(|(r, c)| if poison == Some(r * COLS + c) { f32::NAN } else { value(r, c) })
                .collect();
            for half in [2, 0] {
                let bytes = values.iter().flat_map(|x| [x.to_le_bytes()[half], x.to_le_bytes()[half + 1]]);
                encoded.buffer().extend(bytes);
                encoded.end_part();
            }
            writer.push(&[encoded]).unwrap();
        }
        let source = ShortDigest::of(b"source");
        let facts = serde_json::Value::Null;
        writer.finish_tensor(&[], source, "halves", &codec.parameters(), facts).unwrap();
    }
    writer.publish().unwrap();
    out
}

fn registry(width: u64) -> Registry {
    let mut registry = Registry::empty();
    Halves::register(&mut registry, width);
    registry
}

#[test]
fn any_run_of_a_package_is_the_slice_of_the_tensor() {
    let all: Vec<f32> = (0..ROWS).flat_map(|r| (0..COLS).map(move |c| value(r, c))).collect();
    // Whole rows in a tile, and a grid whose tiles no run covers in one piece.
    for width in [COLS, 3] {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), width, None);
        let source = open_weights(&path, &registry(width), &Default::default()).unwrap();
        let mut scratch = Scratch::default();
        for tensor in 0..3 {
            let open = source.open(tensor).unwrap();
            for (start, end) in (0..=70).flat_map(|s| (s..=70).map(move |e| (s, e))) {
                let mut out = vec![f32::NAN; end - start];
                open.read_f32(start as u64..end as u64, &mut out, &mut scratch).unwrap();
                assert_eq!(out, all[start..end]);
                if open.is_exact() {
                    let mut bytes = vec![0; 4 * (end - start)];
                    open.read_exact(start as u64..end as u64, &mut bytes, &mut scratch).unwrap();
                    let expected: Vec<u8> = all[start..end].iter().flat_map(|x| x.to_le_bytes()).collect();
                    assert_eq!(bytes, expected);
                }
            }
            // Values and bytes were both read here; a reader of one of them stays below the promise.
            assert!(scratch.held_bytes() <= 2 * open.scratch_bytes());
            assert!(open.read_f32(0..71, &mut [0.0; 71], &mut scratch).is_err());
        }
        let facts = source.tensors();
        assert_eq!(facts[1].same_as.as_deref(), Some("layers.0.a"));
        assert_eq!((facts[1].stored_bytes, facts[1].codec_id()), (0, "halves"));
        assert_eq!((facts[0].layer.as_str(), facts[1].layer.as_str()), ("layer 0", "after layers"));
        assert!(facts[0].stored_bytes > 280);
        let lossy = source.open(2).unwrap();
        assert!(!lossy.is_exact());
        let e = lossy.read_exact(0..1, &mut [0; 4], &mut scratch).unwrap_err();
        assert!(e.to_string().contains("does not keep the bits"), "{e}");
        assert!(source.open(3).is_err());
    }
}

#[test]
fn tiles_are_multiplied_where_they_lie() {
    let dir = tempfile::tempdir().unwrap();
    // Tiles of 4 x 3: rows of three tiles, that is a pair and one more.
    let path = write(dir.path(), 3, None);
    let source = open_weights(&path, &registry(3), &Default::default()).unwrap();
    let x: Vec<f32> = (0..2 * COLS).map(|i| i as f32 - 5.0).collect();
    let mut scratch = Scratch::default();
    for weights in [source.open(0).unwrap(), source.hold(1).unwrap()] {
        assert!(weights.has_products(2) && !weights.has_products(FEW_TOKENS + 1));
        for row in 0..3 {
            let tiles = 3 * row..3 * row + 3;
            let height = weights.tiling().tile(3 * row).rows;
            let mut y = vec![1.0; 2 * height as usize];
            weights.add_products(tiles, &Activations::new(&x, 2), &mut y, &mut scratch).unwrap();
            let places = (0..2).flat_map(|t| (4 * row..4 * row + height).map(move |r| (t, r)));
            for (y, (t, r)) in y.iter().zip(places) {
                let dot: f32 = (0..COLS).map(|c| value(r, c) * x[(t * COLS + c) as usize]).sum();
                assert!((y - 1.0 - dot).abs() < 1e-3, "token {t}, row {r}: {y} {dot}");
            }
        }
    }
    assert!(scratch.held_bytes() <= source.open(0).unwrap().scratch_bytes());
    let without = source.open(2).unwrap();
    assert!(!without.has_products(2));
    let e = without.add_products(0..1, &Activations::new(&x, 2), &mut [0.0; 8], &mut scratch).unwrap_err();
    assert!(e.to_string().contains("no products of its own"), "{e}");
}

#[test]
fn unknown_codecs_and_other_partitions_are_told_before_decoding() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), 3, None);
    let e = PackageWeights::new(Package::open(&path).unwrap(), &Registry::empty()).unwrap_err();
    assert!(e.to_string().contains("\"halves\"") && e.to_string().contains("layers.0.a"), "{e}");
    let other = open_weights(&path, &registry(2), &Default::default()).unwrap();
    let e = other.open(0).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(e.contains("[P10]") && e.contains("4 x 3 in 2 parts where halves makes tiles of 4 x 2"), "{e}");
}

#[test]
fn damage_is_located_to_file_tensor_and_tile() {
    let dir = tempfile::tempdir().unwrap();
    // Checksums are right, the codec objects: weight 69 is the last, in the last tile.
    let path = write(dir.path(), COLS, Some(69));
    let source = open_weights(&path, &registry(COLS), &Default::default()).unwrap();
    let (mut out, mut scratch) = (vec![0.0; 70], Scratch::default());
    let open = source.open(0).unwrap();
    let e = open.read_f32(0..70, &mut out, &mut scratch).unwrap_err().to_string();
    assert_eq!(e, "[T2] weights-00001.lsb, tensor \"layers.0.a\", tile 2: weight 13 is NaN");
    open.read_f32(0..56, &mut out[..56], &mut scratch).unwrap();

    // A flipped bit never reaches the codec.
    let shard = path.join("weights-00001.lsb");
    let mut bytes = std::fs::read(&shard).unwrap();
    let needle = value(0, 0).to_le_bytes();
    let at = bytes.windows(2).position(|w| w == &needle[2..]).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&shard, bytes).unwrap();
    let source = open_weights(&path, &registry(COLS), &Default::default()).unwrap();
    let e = source.open(0).unwrap().read_f32(0..1, &mut [0.0], &mut scratch).unwrap_err().to_string();
    assert!(e.contains("weights-00001.lsb") && e.contains("tile 0") && e.contains("at byte"), "{e}");
}
