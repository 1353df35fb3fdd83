//! A process that is killed at any time leaves work that the same command finishes, to the same bytes.
#![cfg(unix)]

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};
use support::{assert_same, lsb, run, sharded_model};

const KILLS: usize = 50;

#[test]
fn killed_runs_resume_to_the_same_bytes() {
    let temp = tempfile::tempdir().unwrap();
    let (model, undisturbed, out) =
        (temp.path().join("model"), temp.path().join("undisturbed"), temp.path().join("out"));
    sharded_model(&model, 6, 768);
    // Small shards, so that kills fall between files too.
    let args = |out: &std::path::Path| {
        let out = out.to_str().unwrap().to_owned();
        let model = model.to_str().unwrap().to_owned();
        [
            model,
            "-o".into(),
            out,
            "--codec".into(),
            "outlier-binary".into(),
            "--shard-size".into(),
            "10MB".into(),
        ]
    };
    let start = Instant::now();
    let plain = args(&undisturbed);
    let mut all = vec!["compress"];
    all.extend(plain.iter().map(String::as_str));
    run(&all, 0);
    let whole = start.elapsed();

    // Delays are spread over the length of a run by a fixed sequence, printed with a failure.
    let (mut killed, mut runs) = (0, 0);
    while killed < KILLS && runs < 4 * KILLS {
        let k = runs;
        runs += 1;
        let share = (k as u64 * 0x9e37_79b9 % 1000) as f64 / 1000.0;
        let delay = whole.mul_f64(share);
        let mut child = lsb()
            .arg("compress")
            .args(args(&out))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(delay);
        let before = child.try_wait().unwrap();
        child.kill().unwrap();
        let status = child.wait().unwrap();
        killed += usize::from(before.is_none() && !status.success());
        if out.exists() {
            assert_same(&undisturbed, &out);
            std::fs::remove_dir_all(&out).unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let args = args(&out);
    let mut all = vec!["compress"];
    all.extend(args.iter().map(String::as_str));
    run(&all, 0);
    assert_same(&undisturbed, &out);
    assert!(killed == KILLS, "only {killed} of {runs} runs were killed before they ended");
    println!("{killed} of {runs} runs killed; a whole run takes {whole:?}");
}

/// Kills of a run that calibrates: while gradients are estimated, while the original is surveyed, while tensors are coded.
const CALIBRATED_KILLS: u32 = 6;

#[test]
fn killed_calibrated_runs_resume_to_the_same_bytes() {
    let temp = tempfile::tempdir().unwrap();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/reflm");
    let run_into = |out: &std::path::Path| {
        let mut command = lsb();
        command.args([
            "compress",
            model,
            "-q",
            "--codec",
            // A given precision: to look for a rate would take longer than all that is killed here.
            "trellis:states=4,tau=0.0001",
            "--calib-tokens",
            "1024",
        ]);
        command.args(["--seqlen", "128", "-o"]).arg(out).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let (undisturbed, out) = (temp.path().join("undisturbed"), temp.path().join("out"));
    let start = Instant::now();
    assert!(run_into(&undisturbed).status().unwrap().success());
    let whole = start.elapsed();
    let mut killed = 0;
    for k in 1..=CALIBRATED_KILLS {
        let mut child = run_into(&out).spawn().unwrap();
        std::thread::sleep(whole * k / (CALIBRATED_KILLS + 1));
        let before = child.try_wait().unwrap();
        child.kill().unwrap();
        let status = child.wait().unwrap();
        killed += usize::from(before.is_none() && !status.success());
    }
    assert!(run_into(&out).status().unwrap().success());
    assert_same(&undisturbed, &out);
    assert!(killed >= 3, "only {killed} runs were killed before they ended");
}
