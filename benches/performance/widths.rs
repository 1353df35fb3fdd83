//! Whether a weight costs the same in a wide matrix as in a narrow one.

use crate::measure::Contestant;
use crate::tensor::Subject;
use crate::{Bench, Figure, Limit, Outcome, Yardstick};

const WIDTHS: [usize; 4] = [1024, 2048, 4096, 8192];

pub(crate) fn measure(bench: &mut Bench) -> Outcome {
    for codec in ["outlier-binary", "rtn:4", "trellis:bpw=3"] {
        let stage = |width: usize, what: &str| format!("{codec}, width {width}, {what}");
        if !WIDTHS.iter().any(|w| bench.wants(&stage(*w, "time")) || bench.wants(&stage(*w, "size"))) {
            continue;
        }
        let weights = if codec.starts_with("trellis") && bench.quick { 1 << 21 } else { 1 << 23 };
        let subjects: Vec<Subject> = WIDTHS
            .iter()
            .map(|width| Subject::new(codec, weights / width, *width))
            .collect::<Outcome<_>>()?;
        let mut contestants: Vec<Contestant<'_>> =
            subjects.iter().map(|subject| subject.encoding(&bench.one)).collect();
        let seconds = bench.effort.long().compare(&mut contestants);
        drop(contestants);
        let sizes: Vec<f64> = subjects.iter().map(|s| Ok(s.encoded()?.bpw())).collect::<Outcome<_>>()?;
        let protocol =
            "As many weights in fewer and wider rows, encoded on one core; held against the narrowest.";
        for (i, width) in WIDTHS.into_iter().enumerate() {
            let narrowest = |value: f64| match i {
                0 => (Yardstick::None, Limit::None),
                _ => (Yardstick::Measured(value, format!("at width {}", WIDTHS[0])), Limit::Within(0.1)),
            };
            let nanoseconds = |s: f64| 1e9 * s / weights as f64;
            let (yardstick, limit) = narrowest(nanoseconds(seconds[0]));
            let time = Figure::new(nanoseconds(seconds[i]), "ns/weight");
            bench.row(&stage(width, "time"), time, yardstick, limit, protocol);
            let (yardstick, limit) = narrowest(sizes[0]);
            bench.row(&stage(width, "size"), Figure::new(sizes[i], "bpw"), yardstick, limit, protocol);
        }
    }
    Ok(())
}
