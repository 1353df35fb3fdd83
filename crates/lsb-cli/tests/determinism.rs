//! Same input, same options: same bytes, whatever the number of threads, the memory, or the way of reading.

mod support;

use support::{assert_same, run, sharded_model};

#[test]
fn threads_budgets_and_reading_do_not_change_a_byte() {
    let temp = tempfile::tempdir().unwrap();
    let model = temp.path().join("model");
    sharded_model(&model, 2, 1024);
    let model = model.to_str().unwrap();
    for codec in ["outlier-binary", "residual-binary:3", "lossless", "rtn:3", "ternary"] {
        let reference = temp.path().join("reference");
        run(&["compress", model, "-o", reference.to_str().unwrap(), "--codec", codec], 0);
        let variants: [&[&str]; 8] = [
            &["--threads", "1"],
            &["--threads", "2", "--target-ram-mb", "200"],
            &["--threads", "4", "--target-ram-mb", "400"],
            &["--threads", "1", "--target-ram-mb", "96"],
            &["--threads", "2", "--target-ram-mb", "96"],
            &["--prefetch-enabled=false", "--caching-enabled=false"],
            &["--parallel-processing=false", "--max-layers-in-ram", "3"],
            &["--streaming-enabled=false"],
        ];
        for variant in variants {
            let out = temp.path().join("out");
            let mut args = vec!["compress", model, "-o", out.to_str().unwrap(), "--codec", codec];
            args.extend(variant);
            run(&args, 0);
            assert_same(&reference, &out);
            std::fs::remove_dir_all(&out).unwrap();
        }
        std::fs::remove_dir_all(&reference).unwrap();
    }
}
