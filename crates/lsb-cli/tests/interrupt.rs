//! Ctrl-C stops at a place from which the same command goes on.
#![cfg(unix)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use support::{assert_same, lsb, run, sharded_model};

#[test]
fn an_interrupted_run_says_so_and_resumes() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    sharded_model(&path("model"), 8, 512);
    let name = |n: &str| path(n).to_str().unwrap().to_owned();
    let (model, undisturbed, out) = (name("model"), name("undisturbed"), name("out"));
    // Small shards are small groups of work, so that something is finished when the signal comes.
    let args = |out: &str| {
        ["compress", &model, "-o", out, "--codec", "residual-binary:4", "--shard-size", "2MB", "-t", "1"]
            .map(str::to_owned)
    };
    let plain = args(&undisturbed);
    run(&plain.iter().map(String::as_str).collect::<Vec<_>>(), 0);

    let mut child = lsb().args(args(&out)).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.by_ref().any(|line| line.starts_with("layer 1:")));
    let kill = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(kill.success());
    let rest: Vec<String> = said.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|l| l.contains("can be resumed")), "{rest:?}");
    assert_eq!(
        rest.last().map(String::as_str),
        Some("error: interrupted; run the same command again to resume")
    );
    assert!(!path("out").exists());

    let resumed = [args(&out).to_vec(), vec!["--json".to_owned()]].concat();
    let report = run(&resumed.iter().map(String::as_str).collect::<Vec<_>>(), 0);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert!(report["resumed_tensors"].as_u64().unwrap() > 0, "nothing was taken over");
    assert_same(&path("undisturbed"), &path("out"));
}
