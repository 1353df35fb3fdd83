//! Statistics that are saved once, and packages made with them.
#![allow(clippy::unwrap_used, reason = "a test that cannot make its input has failed")]

mod support;

use support::{json, reflm, run};

#[test]
fn statistics_are_saved_once_and_used_for_packages_of_any_size() {
    let dir = tempfile::tempdir().unwrap();
    let text = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let model = reflm().to_str().unwrap().to_owned();
    let stats = text("made/stats.safetensors");
    let calibrate = ["calibrate", &model, "-o", &stats, "--calib-tokens", "256", "--seqlen", "128"];
    let report = json(&calibrate, 0);
    assert_eq!(report["bytes"].as_u64(), Some(std::fs::metadata(&stats).unwrap().len()));
    assert_eq!((report["maps"].as_u64(), report["inputs"].as_u64()), (Some(29), Some(17)));
    assert_eq!((report["tokens"].as_u64(), report["widest"]["inputs"].as_u64()), (Some(256), Some(512)));
    assert!(report["seconds"].is_number() && report["peak_rss_bytes"].is_u64());
    assert!(report["notes"].as_array().is_some_and(|n| n.len() >= 2));
    let refused = run(&calibrate, 1);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--overwrite"));
    let again = run(&[&calibrate[..], &["--overwrite", "-t", "1"]].concat(), 0);
    let shown = String::from_utf8_lossy(&again.stdout).into_owned();
    for part in ["linear maps", "29", "512 x 512", "peak memory", "--calib"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    for bpw in ["2.5", "4"] {
        let package = text(&format!("p{bpw}"));
        let args = [
            "compress",
            &model,
            "-o",
            &package,
            "--codec",
            "trellis:states=8",
            "--bpw",
            bpw,
            "--calib",
            &stats,
        ];
        let report = json(&args, 0);
        let made = report["bpw"].as_f64().unwrap();
        assert!((made / bpw.parse::<f64>().unwrap() - 1.0).abs() < 0.005, "{made}");
        let notes = report["calibration"].to_string();
        assert!(notes.contains("stats.safetensors") && notes.contains("256 tokens"), "{notes}");
        run(&["verify", &package], 0);
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let text = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let model = reflm().to_str().unwrap().to_owned();
    let weights = reflm().join("model.safetensors").to_str().unwrap().to_owned();
    let stats = text("stats");
    run(&["calibrate", &model, "-o", &stats, "--calib", "none"], 2);
    let other = run(&["calibrate", &model, "-o", &stats, "--calib", &weights], 1);
    assert!(String::from_utf8_lossy(&other.stderr).contains("no calibration statistics"));
    let other = run(&["compress", &model, "-o", &text("p"), "--codec", "trellis", "--calib", &weights], 1);
    assert!(String::from_utf8_lossy(&other.stderr).contains("no calibration statistics"));
    // A lone file has no tokenizer.
    run(&["calibrate", &weights, "-o", &stats], 2);
    assert!(!std::path::Path::new(&stats).exists());
}
