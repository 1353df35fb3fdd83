//! Statistics on their way into a file and back, and what is made of files that are damaged.

use super::record::{KEY, Record};
use super::*;
use crate::calibrate::tests::{files, golden, reflm, tiny};
use crate::{Error, TextCalibration};
use lsb_format::safetensors::{Header, PREFIX_LEN};
use lsb_quant::calibrate::{Calibration, DenseMoments};
use lsb_stream::source::{Model, OpenOptions};
use lsb_stream::store::{CountdownStore, Fault, RealStore, Store};
use lsb_stream::{Budget, CalibrationSource, CompressConfig, CompressReport, LoopCompressor};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn open(model: &Path) -> Model {
    Model::open(model, &OpenOptions::default()).unwrap()
}

fn options(output: &Path) -> SaveOptions {
    SaveOptions {
        output: output.to_owned(),
        overwrite: false,
        budget: Budget::new(120_000_000),
        store: Arc::new(RealStore),
        interrupt: Arc::default(),
    }
}

fn text() -> TextCalibration {
    TextCalibration::from_config(&tiny(Path::new("x"), "trellis")).unwrap().unwrap()
}

fn save(model: &Path, output: &Path) -> SavedStatistics {
    save_statistics(&open(model), &text(), &options(output), &mut |_, _, _| {}).unwrap()
}

fn compress(model: &Path, config: CompressConfig) -> lsb_stream::Result<CompressReport> {
    let saved = SavedCalibration::from_config(&config).unwrap().expect("statistics");
    LoopCompressor::new(config).with_calibration(Arc::new(saved)).compress_model(model, None)
}

fn with(statistics: &Path, output: &Path) -> CompressConfig {
    let mut config = tiny(output, "trellis:bpw=3,states=8");
    config.calib = Some(statistics.display().to_string());
    config
}

/// A tiny model and its statistics.
struct Place {
    dir: tempfile::TempDir,
    model: PathBuf,
    statistics: PathBuf,
}

impl Place {
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = golden(name, dir.path());
        let statistics = dir.path().join("stats.safetensors");
        save(&model, &statistics);
        Place { model, statistics, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The header and the record of the statistics, with all bytes.
    fn parts(&self) -> (Vec<u8>, Header, Record) {
        let bytes = std::fs::read(&self.statistics).unwrap();
        let len = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        let start = (PREFIX_LEN + len) as usize;
        let header = Header::parse(&bytes[8..start], (bytes.len() - start) as u64).unwrap();
        let record = header.metadata().find(|(k, _)| *k == KEY).unwrap().1;
        let record = serde_json::from_str(record).unwrap();
        (bytes, header, record)
    }

    /// Statistics with another record, at a place of their own.
    fn with_record(&self, change: impl FnOnce(&mut Record)) -> PathBuf {
        let (mut bytes, header, mut record) = self.parts();
        let text = |r: &Record| serde_json::Value::from(serde_json::to_string(r).unwrap()).to_string();
        let start = header.data_start() as usize;
        let old = text(&record);
        change(&mut record);
        let json = String::from_utf8(bytes[8..start].to_vec()).unwrap().replacen(&old, &text(&record), 1);
        let mut json = json.trim_end().to_owned();
        json.extend(std::iter::repeat_n(' ', start - 8 - json.len()));
        bytes.splice(8..start, json.into_bytes());
        let path = self.path("changed.safetensors");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// What compressing with the file at `path` says.
    fn refused(&self, path: &Path) -> String {
        let mut config = with(path, &self.path("refused"));
        config.restart = true;
        match SavedCalibration::from_config(&config) {
            Err(e) => e.to_string(),
            Ok(saved) => {
                let saved = Arc::new(saved.unwrap());
                let mut compressor = LoopCompressor::new(config).with_calibration(saved);
                compressor.compress_model(&self.model, None).unwrap_err().to_string()
            }
        }
    }
}

#[test]
fn packages_from_saved_statistics_are_the_same_on_any_number_of_threads() {
    for name in ["llama", "mixtral"] {
        let place = Place::new(name);
        let mut packages = Vec::new();
        for threads in [1, 3] {
            let mut config = with(&place.statistics, &place.path(&format!("p{threads}")));
            config.threads = threads;
            let report = compress(&place.model, config.clone()).unwrap();
            assert!(report.tensors.iter().filter(|t| t.tau.is_some()).count() > 10, "{name}");
            let notes = report.calibration.join("\n");
            assert!(notes.contains("stats.safetensors") && notes.contains("gradients"), "{notes}");
            packages.push(files(config.output.as_deref().unwrap()));
        }
        assert!(packages[0] == packages[1], "{name}");
        let budget = Budget::new(120_000_000);
        let registry = lsb_quant::Registry::standard();
        let package = place.path("p1");
        let model = crate::ModelRunner::open(&package, &registry, &budget, &Default::default()).unwrap();
        let mut batch = model.batch(&[vec![3, 4, 5]]).unwrap();
        batch.run(&mut crate::NoTap).unwrap();
        assert!(
            batch
                .output(0)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
                .iter()
                .all(|x| x.is_finite())
        );
    }
}

#[test]
fn a_package_from_saved_statistics_meets_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let statistics = dir.path().join("stats");
    let saved = save(&reflm(), &statistics);
    assert!(saved.tokens >= 256 && saved.widest.as_ref().is_some_and(|(_, n)| *n == 512), "{saved:?}");
    let mut config = with(&statistics, &dir.path().join("p"));
    (config.codec, config.target) = (Some("trellis:states=8".into()), Some(lsb_stream::Target::Bpw(2.5)));
    let report = compress(&reflm(), config).unwrap();
    let bpw = 8.0 * report.package_bytes as f64 / report.weights as f64;
    assert!((bpw / 2.5 - 1.0).abs() < 0.005, "{bpw}");
}

#[test]
fn the_same_is_saved_every_time_and_in_place_of_nothing_unasked() {
    let place = Place::new("qwen3");
    let again = place.path("again");
    let saved = save(&place.model, &again);
    assert!(std::fs::read(&again).unwrap() == std::fs::read(&place.statistics).unwrap());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| save(&place.model, &place.path("alone")));
    assert!(std::fs::read(place.path("alone")).unwrap() == std::fs::read(&again).unwrap());
    let (_, header, record) = place.parts();
    assert_eq!((saved.maps, saved.inputs), (record.maps.len(), record.inputs.len()));
    assert_eq!(saved.tokens, record.tokens);
    assert_eq!(header.data_start() % 64, 0);
    // Queries, keys and values share one matrix, as do gates and ups.
    let input = |part: &str| record.maps.iter().find(|m| m.tensor.contains(part)).unwrap().input;
    assert_eq!((input("q_proj"), input("gate_proj")), (input("v_proj"), input("up_proj")));
    assert_ne!(input("q_proj"), input("o_proj"));
    assert!(record.maps[0].tensor.contains("q_proj"), "{}", record.maps[0].tensor);

    let refused = save_statistics(&open(&place.model), &text(), &options(&again), &mut |_, _, _| {});
    assert!(refused.unwrap_err().to_string().contains("--overwrite"));
    let mut over = options(&again);
    over.overwrite = true;
    std::fs::write(place.path("again.partial"), vec![7; 1 << 20]).unwrap();
    save_statistics(&open(&place.model), &text(), &over, &mut |_, _, _| {}).unwrap();
    assert!(std::fs::read(&again).unwrap() == std::fs::read(&place.statistics).unwrap());
    assert!(!place.path("again.partial").exists());
}

#[test]
fn what_is_read_is_what_calibration_knew() {
    let place = Place::new("llama");
    let model = open(&place.model);
    let (budget, interrupt) = (Budget::new(120_000_000), Arc::default());
    let saved = SavedCalibration::open(&place.statistics).unwrap();
    let mut reader = saved.open(&model, &budget, Arc::clone(&interrupt)).unwrap();
    let mut maps = 0;
    let mut compare = |tensor: &str, known: &Calibration| -> lsb_stream::Result<()> {
        let read = reader.calibration(tensor).unwrap().unwrap();
        assert_eq!(read.inputs.diagonal(), known.inputs.diagonal());
        assert_eq!((&read.outputs, read.relative), (&known.outputs, known.relative));
        let n = known.inputs.diagonal().len();
        let columns: Vec<usize> = [n - 1, 0, 5, 17, 6].into();
        assert_eq!(read.inputs.block(&columns).unwrap(), known.inputs.block(&columns).unwrap(), "{tensor}");
        assert_eq!(read.inputs.upper(3..9).unwrap(), known.inputs.upper(3..9).unwrap());
        assert!(read.inputs.block(&[n]).is_err() && read.inputs.block(&[]).unwrap().is_empty());
        maps += 1;
        Ok(())
    };
    text().open(&model, &budget, interrupt).unwrap().survey(&mut compare).unwrap();
    assert_eq!(maps, saved.tensors(&model).unwrap().len());
    assert!(reader.calibration("model.norm.weight").unwrap().is_none());
}

#[test]
fn another_model_is_refused() {
    let place = Place::new("llama");
    let other = golden("mistral", &place.path(""));
    let error = compress(&other, with(&place.statistics, &place.path("p"))).unwrap_err().to_string();
    assert!(error.contains("another model") && error.contains("stats.safetensors"), "{error}");
    // The same shapes with other weights.
    let trained = place.path("trained");
    std::fs::create_dir(&trained).unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(place.model.join(file), trained.join(file)).unwrap();
    }
    let mut bytes = std::fs::read(trained.join("model.safetensors")).unwrap();
    let len = bytes.len();
    bytes[len / 3..].iter_mut().for_each(|b| *b ^= 1);
    std::fs::write(trained.join("model.safetensors"), bytes).unwrap();
    let error = compress(&trained, with(&place.statistics, &place.path("p"))).unwrap_err().to_string();
    assert!(error.contains("another model") && error.contains("lsb calibrate"), "{error}");
}

#[test]
fn damaged_files_are_errors_with_names() {
    let place = Place::new("llama");
    let (bytes, header, record) = place.parts();
    let (start, end) = (header.data_start() as usize, bytes.len());
    let path = place.path("damaged.safetensors");
    for len in [9, 100, start - 1, start, start + 4, (start + end) / 2, end - 1] {
        std::fs::write(&path, &bytes[..len]).unwrap();
        let error = place.refused(&path);
        assert!(error.contains("damaged.safetensors"), "{len}: {error}");
    }
    // A byte in every kind of tensor.
    let input = &record.inputs[0];
    for name in [input.moments_tensor(), input.diagonal_tensor(), record.maps[0].outputs_tensor()] {
        let entry = header.find(&name).unwrap();
        let mut damaged = bytes.clone();
        damaged[start + entry.end as usize - 2] ^= 4;
        std::fs::write(&path, damaged).unwrap();
        let error = place.refused(&path);
        assert!(error.contains("BLAKE3") && error.contains(&name), "{error}");
    }
    // Other safetensors files, and a length that fits.
    let error = place.refused(&place.model.join("model.safetensors"));
    assert!(error.contains("no calibration statistics"), "{error}");
}

#[test]
fn a_good_digest_does_not_make_numbers_right() {
    let place = Place::new("llama");
    let (bytes, header, record) = place.parts();
    let start = header.data_start() as usize;
    let input = record.inputs[0].clone();
    let names = [input.moments_tensor(), input.diagonal_tensor(), record.maps[0].outputs_tensor()];
    let cases: [(usize, &[u8]); 5] = [
        (0, &f32::NAN.to_le_bytes()),
        (0, &f32::INFINITY.to_le_bytes()),
        (1, &(-1.0f32).to_le_bytes()),
        (1, &f32::NAN.to_le_bytes()),
        (2, &(-1.0f64).to_le_bytes()),
    ];
    for (which, value) in cases {
        let entry = header.find(&names[which]).unwrap();
        let mut data = bytes.clone();
        let range = start + entry.begin as usize..start + entry.end as usize;
        data[range.start + 8..range.start + 8 + value.len()].copy_from_slice(value);
        let digest = blake3::hash(&data[range]).to_hex().to_string();
        let changed = place.with_record(|r| match which {
            0 => r.inputs[0].moments = digest,
            1 => r.inputs[0].diagonal = digest,
            _ => r.maps[0].outputs = Some(digest),
        });
        let head = std::fs::read(&changed).unwrap()[..start].to_vec();
        data[..start].copy_from_slice(&head);
        std::fs::write(&changed, data).unwrap();
        let error = place.refused(&changed);
        assert!(error.contains(&names[which]) && error.contains("changed.safetensors"), "{error}");
    }
    let record_of = |change: &dyn Fn(&mut Record)| place.refused(&place.with_record(change));
    let error = record_of(&|r| r.version = 2);
    assert!(error.contains("version 2") && error.contains("lsb calibrate"), "{error}");
    let error = record_of(&|r| r.maps[0].input = 99);
    assert!(error.contains("q_proj"), "{error}");
    // Names of other lengths would not fit without room: these are shorter.
    let error = record_of(&|r| r.inputs[1].name = "x".into());
    assert!(error.contains("diagonal.x"), "{error}");
    let error = record_of(&|r| r.maps[1].tensor = r.maps[0].tensor.clone());
    assert!(error.contains("twice"), "{error}");
    let error = record_of(&|r| r.maps[0].tensor = "y".into());
    assert!(error.contains("outputs.y"), "{error}");
    // Inputs of another width.
    let down = record.maps.iter().find(|m| m.tensor.contains("down_proj")).unwrap().input;
    let error = record_of(&|r| r.maps[0].input = down);
    assert!(error.contains("q_proj") && error.contains("shape"), "{error}");
}

#[test]
fn nothing_half_written_ever_has_the_final_name() {
    let dir = tempfile::tempdir().unwrap();
    let model = open(&golden("qwen2", dir.path()));
    let mut config = tiny(Path::new("x"), "trellis");
    (config.calib_tokens, config.seqlen) = (8, 8);
    let calibration = TextCalibration::from_config(&config).unwrap().unwrap();
    let output = dir.path().join("stats");
    let attempt = |at: u64| {
        let store = Arc::new(CountdownStore::new(Arc::new(RealStore), at, Fault::Stop));
        let mut options = options(&output);
        options.store = Arc::clone(&store) as Arc<dyn Store>;
        (save_statistics(&model, &calibration, &options, &mut |_, _, _| {}), store.operations())
    };
    let (whole, operations) = attempt(u64::MAX);
    whole.unwrap();
    let whole = std::fs::read(&output).unwrap();
    std::fs::remove_file(&output).unwrap();
    for at in [0, 1, 2, operations / 2].into_iter().chain(operations - 5..operations) {
        let (result, _) = attempt(at);
        assert!(result.is_err(), "{at} of {operations}");
        // Only the last operation comes behind the new name.
        assert!(
            !output.exists() || (at == operations - 1 && std::fs::read(&output).unwrap() == whole),
            "{at}"
        );
    }
}

#[test]
fn inputs_that_are_not_finite_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let record = Record {
        version: 1,
        model: String::new(),
        text: String::new(),
        tokens: 0,
        seqlen: 0,
        seed: 0,
        notes: Vec::new(),
        inputs: Vec::new(),
        maps: Vec::new(),
    };
    let options = options(&dir.path().join("s"));
    let mut writer = super::write::Writer::begin(&options, record, &["w".into()], 1 << 10).unwrap();
    let known = |values: [f32; 4], outputs: Option<Vec<f64>>| Calibration {
        inputs: Arc::new(DenseMoments::new(values.to_vec(), 2)),
        outputs: outputs.map(Arc::from),
        relative: false,
    };
    for known in [
        known([1.0, f32::NAN, f32::NAN, 1.0], None),
        known([1.0, 0.0, 0.0, f32::INFINITY], None),
        known([1.0, 0.0, 0.0, 1.0], Some(vec![1.0, f64::NAN])),
    ] {
        let error = writer.map("w", &known).unwrap_err().to_string();
        assert!(error.contains('w') && error.contains("--calib none"), "{error}");
    }
}

#[test]
fn a_text_is_no_file_of_statistics() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("text");
    for text in ["", "short", "{\"a\": \"text in braces\"}", "eight chars {"] {
        std::fs::write(&path, text).unwrap();
        let config = with(&path, Path::new("p"));
        assert!(SavedCalibration::from_config(&config).unwrap().is_none(), "{text}");
    }
    let model = golden("llama", dir.path()).join("model.safetensors");
    let error = TextCalibration::from_config(&with(&model, Path::new("p"))).unwrap_err().to_string();
    assert!(error.contains("text is needed") && error.contains("model.safetensors"), "{error}");
    let config = with(Path::new("/no/such/file"), Path::new("p"));
    assert!(SavedCalibration::from_config(&config).unwrap().is_none());
    assert!(matches!(TextCalibration::from_config(&config), Err(Error::Input(_))));
}
