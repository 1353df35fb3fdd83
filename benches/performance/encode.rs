//! From weights to the bytes of tiles, without calibration.

use crate::measure::{Contestant, whole};
use crate::tensor::Subject;
use crate::{Bench, Figure, Limit, Outcome, Yardstick, zstd};
use lsb_quant::Needs;
use std::io::Write as _;

const ROWS: usize = 4096;
const COLS: usize = 4096;

pub(crate) fn measure(bench: &mut Bench) -> Outcome {
    for (codec, gigabytes) in [("outlier-binary", 1.0), ("rtn:4", 0.5)] {
        fast(bench, codec, gigabytes)?;
    }
    lossless(bench)?;
    for bpw in [2, 3] {
        trellis(bench, bpw)?;
    }
    Ok(())
}

const PROTOCOL: &str = "A 4096 x 4096 tensor in bf16, into buffers that are kept, on one core; GB are those of the source. With \
                        the survey: the passes before that find what to keep.";

fn fast(bench: &mut Bench, codec: &str, gigabytes: f64) -> Outcome {
    let (alone, all) = (format!("{codec} encode, 1 thread"), format!("{codec} survey and encode, 1 thread"));
    if !bench.wants(&alone) && !bench.wants(&all) {
        return Ok(());
    }
    let subject = Subject::new(codec, ROWS, COLS)?;
    let rate = |s: f64| Figure::new(subject.bytes.len() as f64 / s / 1e9, "GB/s");
    let encode = bench.effort.time(subject.encoding(&bench.one));
    let asked = Yardstick::Asked(gigabytes);
    if subject.codec.needs() == Needs::default() {
        bench.row(&alone, rate(encode), asked, Limit::AtLeast(1.0), PROTOCOL);
        return Ok(());
    }
    let (mut survey, mut encoding) = (survey(&subject, bench), subject.encoding(&bench.one));
    let both = bench.effort.time(Box::new(|| survey() + encoding()));
    drop((survey, encoding));
    bench.row(&alone, rate(encode), Yardstick::None, Limit::None, PROTOCOL);
    bench.row(&all, rate(both), asked, Limit::AtLeast(1.0), PROTOCOL);
    Ok(())
}

fn survey<'a>(subject: &'a Subject, bench: &'a Bench) -> Contestant<'a> {
    whole(|| bench.one.install(|| subject.survey()))
}

/// Beside the speed that was asked for, what a general compressor does with the same bytes.
fn lossless(bench: &mut Bench) -> Outcome {
    let stages = ["encode", "decode"].map(|what| format!("lossless {what}, 1 thread"));
    if !stages.iter().any(|stage| bench.wants(stage)) {
        return Ok(());
    }
    let subject = Subject::new("lossless", ROWS, COLS)?;
    let coded = subject.encoded()?;
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(&subject.bytes)?;
    let ratio = subject.bytes.len() as f64 / coded.bytes();
    let mut contestants = [subject.encoding(&bench.one), whole(|| coded.decode_exact(&bench.one))];
    let seconds = bench.effort.compare(&mut contestants);
    drop(contestants);
    let zstd = zstd::measure(file.path(), bench.effort.long().runs)?;
    let protocol = format!(
        "A 4096 x 4096 tensor in bf16, into buffers that are kept, on one core; GB are those of the source, stored in \
         {ratio:.3} times less ({}).",
        zstd.map_or("no zstd".to_owned(), |z| format!("zstd -3: {:.3}", z.ratio))
    );
    for ((stage, s), asked) in stages.iter().zip(seconds).zip([0.5, 1.0]) {
        let ours = Figure::new(subject.bytes.len() as f64 / s / 1e9, "GB/s");
        bench.row(stage, ours, Yardstick::Asked(asked), Limit::AtLeast(1.0), &protocol);
        let other = zstd.map(|z| if asked < 1.0 { z.encode } else { z.decode });
        let other = other.map_or(Yardstick::Missing(zstd::MISSING), |rate| {
            Yardstick::Measured(rate / 1e9, "zstd -3".to_owned())
        });
        bench.row(&format!("{stage}, beside zstd"), ours, other, Limit::None, &protocol);
    }
    Ok(())
}

fn trellis(bench: &mut Bench, bpw: u32) -> Outcome {
    let stage = format!("trellis encode, {bpw} bpw, 1 thread");
    if !bench.wants(&stage) {
        return Ok(());
    }
    let subject = Subject::new(&format!("trellis:bpw={bpw}"), 1024, COLS)?;
    let (mut survey, mut encoding) = (survey(&subject, bench), subject.encoding(&bench.one));
    let seconds = bench.effort.long().time(Box::new(|| survey() + encoding()));
    drop((survey, encoding));
    let ours = Figure::new(subject.n_weights() / seconds / 1e6, "M weights/s");
    let protocol = "A 1024 x 4096 tensor in bf16, survey and search and coding, 64 states, on one core.";
    bench.row(&stage, ours, Yardstick::Asked(8.0), Limit::AtLeast(1.0), protocol);
    Ok(())
}
