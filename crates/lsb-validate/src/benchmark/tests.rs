//! A whole benchmark of the trained model, and going on after an interruption.

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn benchmark(work: &Path, methods: &[&str]) -> CompressionBenchmark {
    CompressionBenchmark::new(fixture("reflm"), fixture("text/eval.txt"))
        .methods(methods.iter().copied())
        .metrics([
            Metric::Perplexity,
            Metric::Kl,
            Metric::Bleu,
            Metric::Rouge,
            Metric::Divergence,
            Metric::Snr,
        ])
        .max_tokens(1024)
        .work(work)
}

#[test]
fn methods_have_figures_and_rows_are_not_measured_twice() {
    let work = tempfile::tempdir().unwrap();
    let first = benchmark(work.path(), &["rtn:8", "bitnet"]).run(&mut |_| {}).unwrap();
    assert_eq!(first.resumed, 0);
    let [fine, coarse] = &first.rows[..] else { panic!("two rows") };
    let of = |row: &BenchmarkRow, name: &str| row.metrics[name].unwrap();
    assert!(fine.bpw > 8.0 && coarse.bpw < 2.0);
    assert!(of(fine, "kl_mean") < 0.001 && of(coarse, "kl_mean") > 0.5);
    assert!(of(fine, "loss_percent").abs() < 1.0 && of(coarse, "loss_percent") > 50.0);
    assert!(of(fine, "bleu") > of(coarse, "bleu") && of(fine, "rougeL") > of(coarse, "rougeL"));
    assert!(of(fine, "tokens_until_divergence") > of(coarse, "tokens_until_divergence"));
    assert!(of(fine, "weight_snr_db") > 40.0);
    // What a crash left of a line is no row.
    let journal = work.path().join("rows.jsonl");
    let mut lines = std::fs::read_to_string(&journal).unwrap();
    lines.truncate(lines.len() - 20);
    std::fs::write(&journal, lines).unwrap();
    let second = benchmark(work.path(), &["rtn:8", "bitnet"]).run(&mut |_| {}).unwrap();
    assert_eq!((second.resumed, &second.rows[0]), (1, fine));
    assert_eq!(second.rows[1].metrics, coarse.metrics, "the same again");
    let third = benchmark(work.path(), &["bitnet"]).run(&mut |_| {}).unwrap();
    assert_eq!((third.resumed, third.rows.len()), (1, 1));
    let other = benchmark(work.path(), &["bitnet"]).max_tokens(512).run(&mut |_| {}).unwrap();
    assert_eq!(other.resumed, 0, "another protocol");
    assert!(!work.path().join("package-1").exists(), "packages are removed");
}

#[test]
fn aliases_and_tables() {
    assert_eq!(codec("loop_singular_bit"), "residual-binary");
    assert_eq!(codec("loop_singular_bit:3"), "residual-binary:3");
    assert_eq!(codec("rtn:4"), "rtn:4");
    let row = BenchmarkRow {
        method: "rtn:bits=4,group=64".to_owned(),
        bpw: 4.25,
        ratio: 3.7,
        metrics: [("kl_mean".to_owned(), None), ("top1".to_owned(), Some(0.5))].into(),
        seconds: 1.0,
        peak_rss_bytes: 7,
    };
    let report = BenchmarkReport { rows: vec![row], resumed: 0, protocol: String::new() };
    assert_eq!(
        csv(&report),
        "method,bpw,ratio,kl_mean,top1,seconds,peak_rss_bytes\n\"rtn:bits=4,group=64\",4.2500,3.700,,0.5,1.00,7\n"
    );
    assert!(markdown(&report).contains("| `rtn:bits=4,group=64` | 4.2500 | 3.700 |  | 0.5 | 1.00 | 7 |"));
    let unknown = benchmark(Path::new("unused"), &["no-such-method"]).run(&mut |_| {});
    assert!(unknown.unwrap_err().to_string().contains("no-such-method"));
    assert!("speed".parse::<Metric>().unwrap_err().contains("perplexity"));
}
