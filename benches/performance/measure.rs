//! How often something is measured, and what is made of it.

use std::time::{Duration, Instant};

/// What takes part in a comparison: does its work once and says how long that took, preparations left out.
pub(crate) type Contestant<'a> = Box<dyn FnMut() -> Duration + 'a>;

/// A contestant all of whose work counts.
pub(crate) fn whole<'a, R>(mut work: impl FnMut() -> R + 'a) -> Contestant<'a> {
    Box::new(move || {
        let start = Instant::now();
        std::hint::black_box(work());
        start.elapsed()
    })
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Runs of which the median counts.
    pub(crate) runs: usize,
    /// What one run lasts at least: work that takes less is repeated.
    pub(crate) at_least: Duration,
}

impl Effort {
    /// At least five runs; three short ones where it is to be quick.
    pub(crate) fn new(quick: bool) -> Self {
        let (runs, milliseconds) = if quick { (3, 20) } else { (7, 150) };
        Effort { runs, at_least: Duration::from_millis(milliseconds) }
    }

    /// Fewer runs for work that takes seconds; never fewer than five where it is not to be quick.
    pub(crate) fn long(self) -> Self {
        Effort { runs: self.runs.min(5), ..self }
    }

    /// Median seconds of every contestant. They take turns within every run, after one turn that does not count, so that what
    /// else happens on the machine hits all of them.
    pub(crate) fn compare(self, contestants: &mut [Contestant<'_>]) -> Vec<f64> {
        let mut seconds = vec![Vec::with_capacity(self.runs); contestants.len()];
        for contestant in &mut *contestants {
            contestant();
        }
        for _ in 0..self.runs {
            for (contestant, seconds) in contestants.iter_mut().zip(&mut seconds) {
                let (mut total, mut n) = (Duration::ZERO, 0u32);
                while n == 0 || total < self.at_least {
                    total += contestant();
                    n += 1;
                }
                seconds.push(total.as_secs_f64() / f64::from(n));
            }
        }
        seconds.into_iter().map(median).collect()
    }

    /// Median seconds of one.
    pub(crate) fn time(self, contestant: Contestant<'_>) -> f64 {
        self.compare(&mut [contestant])[0]
    }
}

/// The middle one; of an even number the lower of the two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len().saturating_sub(1) / 2]
}
