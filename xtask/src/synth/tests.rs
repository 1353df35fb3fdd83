//! Names, sizes and statistics of synthetic models.

use super::arguments::parse_size;
use super::weights::Generator;
use super::*;
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn tiny(dtype: &str, shards: &str) -> (tempfile::TempDir, Args) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model");
    let line = ["x", "--shape", "tiny", "--dtype", dtype, "--shards", shards, "-o", out.to_str().unwrap()];
    (dir, Line::parse_from(line).args)
}

#[test]
fn sizes_are_decimal() {
    assert_eq!(parse_size("5GB").unwrap(), 5_000_000_000);
    assert_eq!(parse_size("64kb").unwrap(), 64_000);
    assert_eq!(parse_size("17").unwrap(), 17);
    for bad in ["", "GB", "0", "5XB", "-1", "99999999999GB"] {
        assert!(parse_size(bad).is_err(), "{bad}");
    }
}

#[test]
fn known_shapes_have_their_published_number_of_weights() {
    let count = |name| Shape::new(name, None).tensors(true).iter().map(TensorSpec::elements).sum::<u64>();
    assert_eq!(count(ShapeName::Llama7b), 6_738_415_616);
    assert_eq!(count(ShapeName::Mistral7b), 7_241_732_096);
    assert_eq!(count(ShapeName::Llama70b), 68_976_648_192);
    assert_eq!(count(ShapeName::Mixtral), 46_702_792_704);
}

#[test]
fn every_shard_opens_in_the_reference_library_and_the_index_names_every_tensor() {
    let (_dir, args) = tiny("f16", "60KB");
    run(&args).unwrap();
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(args.output.join("model.safetensors.index.json")).unwrap()).unwrap();
    let mut names = std::collections::BTreeSet::new();
    let mut total = 0;
    for entry in fs::read_dir(&args.output).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            let bytes = fs::read(&path).unwrap();
            for (name, tensor) in safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors() {
                assert_eq!(index["weight_map"][&name], path.file_name().unwrap().to_str().unwrap());
                total += tensor.data().len();
                names.insert(name);
            }
        }
    }
    assert_eq!(index["metadata"]["total_size"], total);
    let expected: std::collections::BTreeSet<_> =
        Shape::new(ShapeName::Tiny, None).tensors(true).into_iter().map(|t| t.name).collect();
    assert_eq!(names, expected);
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let read = |threads, seed| {
        let (_dir, mut args) = tiny("bf16", "5GB");
        args.seed = seed;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&args)).unwrap();
        blake3::hash(&fs::read(args.output.join("model.safetensors")).unwrap())
    };
    assert_eq!(read(1, 7), read(3, 7));
    assert_ne!(read(1, 7), read(1, 8));
}

#[test]
fn a_folder_with_files_is_refused() {
    let (_dir, args) = tiny("bf16", "5GB");
    run(&args).unwrap();
    assert!(run(&args).unwrap_err().to_string().contains("not empty"));
}

/// 1 M weights of a linear map, as f32 widened from bf16.
fn sample() -> Vec<f32> {
    let distribution = Distribution::student_t5();
    let generator = Generator::new(&distribution, 3, "a", &[1024, 1024], Fill::linear(1024));
    let mut bytes = vec![0; 2 << 20];
    generator.write(0, Element::Bf16, &mut bytes);
    lsb_quant::to_f32(lsb_format::DType::BF16, &bytes)
}

#[test]
fn weights_have_the_statistics_of_trained_ones() {
    let values = sample();
    let n = values.len() as f64;
    let moment = |k: i32| values.iter().map(|&v| f64::from(v).powi(k)).sum::<f64>() / n;
    let deviation = moment(2).sqrt();
    assert!((0.8..1.3).contains(&(deviation * 32.0 / 0.9)), "deviation {deviation}");
    let kurtosis = moment(4) / moment(2).powi(2);
    assert!(kurtosis > 6.0, "kurtosis {kurtosis}: heavier tails than a Gaussian's 3");

    let mut exponents = [0u32; 256];
    for v in &values {
        exponents[(v.to_bits() >> 23 & 255) as usize] += 1;
    }
    let entropy: f64 =
        exponents.iter().filter(|&&c| c > 0).map(|&c| f64::from(c) / n).map(|p| -p * p.log2()).sum();
    assert!((2.4..2.9).contains(&entropy), "exponent entropy {entropy}");
}

#[test]
fn no_run_of_weights_is_repeated() {
    let values = sample();
    let runs: std::collections::HashSet<_> =
        values.as_chunks::<8>().0.iter().map(|run| run.map(f32::to_bits)).collect();
    assert_eq!(runs.len(), values.len() / 8);
}

#[test]
fn any_run_of_a_tensor_can_be_made_on_its_own() {
    let distribution = Distribution::student_t5();
    let generator = Generator::new(&distribution, 3, "a", &[37, 77], Fill::linear(77));
    let mut whole = vec![0; 37 * 77 * 4];
    generator.write(0, Element::F32, &mut whole);
    let mut tail = vec![0; 37 * 77 * 4 - 4096];
    generator.write(1024, Element::F32, &mut tail);
    assert_eq!(whole[4096..], tail);
}

#[test]
fn a_tokenizer_goes_with_it_if_its_ids_fit() {
    let (dir, mut args) = tiny("bf16", "5GB");
    let file = dir.path().join("given.json");
    args.tokenizer = Some(file.clone());
    fs::write(&file, r#"{"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 4294967296}]}"#).unwrap();
    let refused = run(&args).unwrap_err().to_string();
    assert!(refused.contains("a token of id 4294967296"), "{refused}");
    fs::write(&file, r#"{"model": {"vocab": {"a": 0}}}"#).unwrap();
    run(&args).unwrap();
    assert_eq!(fs::read(args.output.join("tokenizer.json")).unwrap(), fs::read(&file).unwrap());
}
