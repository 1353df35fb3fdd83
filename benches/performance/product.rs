//! Products of stored tensors with activations: one token, and many at once.

use crate::measure::{Contestant, whole};
use crate::memory::{self, dense};
use crate::tensor::{Coded, Subject};
use crate::{Bench, Figure, Limit, Outcome, Yardstick};
use candle_core::DType;

const ROWS: usize = 4096;
const COLS: usize = 14336;

/// Tokens of a batch.
const BATCH: usize = 64;

pub(crate) fn measure(bench: &mut Bench) -> Outcome {
    for codec in ["trellis:bpw=2", "trellis:bpw=3", "outlier-binary", "ternary", "rtn:4"] {
        let rows = if bench.quick { ROWS / 8 } else { ROWS };
        let stages = [
            format!("{codec} times one token, {rows} x {COLS}"),
            format!("{codec} times {BATCH} tokens, {rows} x {COLS}"),
            format!("{codec} unpacked times one token, {rows} x {COLS}"),
            format!("{codec} unpacked times {BATCH} tokens, {rows} x {COLS}"),
        ];
        if !stages.iter().any(|stage| bench.wants(stage)) {
            continue;
        }
        let subject = Subject::new(codec, rows, COLS)?;
        let coded = subject.encoded()?;
        one_token(bench, &stages[0], codec, &subject, &coded);
        batch(bench, &stages[1], &subject, &coded)?;
        if coded.decoder.products().is_some_and(|products| products.unpacks()) {
            unpacked(bench, [&stages[2], &stages[3]], &subject, &coded)?;
        }
    }
    Ok(())
}

/// Beside decoding alone where that is the limit, and beside the reading of memory where bytes are.
fn one_token(bench: &mut Bench, stage: &str, codec: &str, subject: &Subject, coded: &Coded) {
    if !bench.wants(stage) {
        return;
    }
    let (x, mut y) = (lsb_benches::normal_weights(3, COLS, 1.0), vec![0.0; subject.matrix.rows as usize]);
    let ours = whole(|| coded.multiply(&bench.all, &x, &mut y));
    if codec.starts_with("trellis") {
        let seconds = bench.effort.compare(&mut [ours, whole(|| coded.decode_levels(&bench.all))]);
        let rate = |s: f64| subject.n_weights() / s / 1e9;
        let protocol = "Tiles multiplied with one token of f32 activations as they are decoded, on all threads; beside decoding \
                        the same tiles to levels.";
        let yardstick = Yardstick::Measured(rate(seconds[1]), "decode".into());
        bench.row(
            stage,
            Figure::new(rate(seconds[0]), "G weights/s"),
            yardstick,
            Limit::AtLeast(0.85),
            protocol,
        );
        return;
    }
    if coded.decoder.products().is_none() {
        eprintln!("{stage}: there are no products without decoding");
        return;
    }
    let words = memory::words();
    let read = whole(|| bench.all.install(|| memory::read(&words)));
    let seconds = bench.effort.compare(&mut [ours, read]);
    let limit = size_of_val(&*words) as f64 / seconds[1] / 1e9;
    let protocol = "Tiles multiplied with one token as they are unpacked, on all threads; GB are stored bytes, \
                    beside the reading of memory on as many threads.";
    let ours = Figure::new(coded.bytes() / seconds[0] / 1e9, "GB/s");
    let wanted = if codec == "outlier-binary" { Limit::AtLeast(0.6) } else { Limit::None };
    bench.row(stage, ours, Yardstick::Measured(limit, "memory read".into()), wanted, protocol);
}

/// Beside the same product with weights that are dense already.
fn batch(bench: &mut Bench, stage: &str, subject: &Subject, coded: &Coded) -> Outcome {
    if !bench.wants(stage) {
        return Ok(());
    }
    let x = dense(BATCH, COLS, DType::F32)?;
    let weights = dense(subject.matrix.rows as usize, COLS, DType::F32)?.t()?;
    let integers = coded.unpacks_tiles(BATCH);
    let inputs = lsb_benches::normal_weights(3, BATCH * COLS, 1.0);
    let mut y = vec![0.0; BATCH * subject.matrix.rows as usize];
    let ours: Contestant<'_> = if integers {
        whole(|| coded.multiply_many(&bench.all, &inputs, BATCH, &mut y))
    } else {
        whole(|| coded.multiply_decoded(&bench.all, &x))
    };
    let yardstick = whole(|| bench.all.install(|| x.matmul(&weights).is_ok()));
    let seconds = bench.effort.compare(&mut [ours, yardstick]);
    let rate = |s: f64| 2.0 * BATCH as f64 * subject.n_weights() / s / 1e9;
    bench.row(
        stage,
        Figure::new(rate(seconds[0]), "GFLOP/s"),
        Yardstick::Measured(rate(seconds[1]), "f32 matrix product".into()),
        Limit::AtLeast(1.0 / 1.3),
        if integers {
            "Tiles decoded once, to integers, and multiplied with 64 tokens of activations in fixed point, on all \
             threads, as a prompt is; beside the product with f32 weights that are in memory."
        } else {
            "Rows of tiles decoded to f32 once and multiplied with 64 tokens, on all threads, as a forward pass does; beside the \
             product with f32 weights that are in memory."
        },
    );
    Ok(())
}

/// As weights that stay in memory are multiplied: one token beside the reading of memory, many beside the library's product.
fn unpacked(bench: &mut Bench, [one, many]: [&str; 2], subject: &Subject, coded: &Coded) -> Outcome {
    if !bench.wants(one) && !bench.wants(many) {
        return Ok(());
    }
    let tiles = coded.unpack();
    let bytes = tiles.1.iter().map(|tile| tile.bytes()).sum::<u64>() as f64;
    let x = lsb_benches::normal_weights(3, BATCH * COLS, 1.0);
    let mut y = vec![0.0; BATCH * subject.matrix.rows as usize];
    let rows = subject.matrix.rows as usize;
    let mut run = |pool: &rayon::ThreadPool, tokens: usize| {
        coded.multiply_unpacked(pool, &tiles, &x[..tokens * COLS], tokens, &mut y[..tokens * rows]);
        true
    };
    if bench.wants(one) {
        let words = memory::words();
        let seconds = bench.effort.compare(&mut [
            whole(|| run(&bench.all, 1)),
            whole(|| bench.all.install(|| memory::read(&words))),
        ]);
        let limit = size_of_val(&*words) as f64 / seconds[1] / 1e9;
        let protocol = format!(
            "Tiles unpacked to {:.2} bits a weight, multiplied with one token of activations in fixed point, on all threads; GB are \
             unpacked bytes, beside the reading of memory on as many threads.",
            8.0 * bytes / subject.n_weights()
        );
        let ours = Figure::new(bytes / seconds[0] / 1e9, "GB/s");
        bench.row(one, ours, Yardstick::Measured(limit, "memory read".into()), Limit::None, &protocol);
    }
    if bench.wants(many) {
        let dense_x = dense(BATCH, COLS, DType::F32)?;
        let weights = dense(rows, COLS, DType::F32)?.t()?;
        let seconds = bench.effort.compare(&mut [
            whole(|| run(&bench.all, BATCH)),
            whole(|| bench.all.install(|| dense_x.matmul(&weights).is_ok())),
        ]);
        let rate = |s: f64| 2.0 * BATCH as f64 * subject.n_weights() / s / 1e9;
        bench.row(
            many,
            Figure::new(rate(seconds[0]), "GFLOP/s"),
            Yardstick::Measured(rate(seconds[1]), "f32 matrix product".into()),
            Limit::AtLeast(1.0 / 1.3),
            "The same with 64 tokens; beside the product with f32 weights that are in memory.",
        );
    }
    Ok(())
}
