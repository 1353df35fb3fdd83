//! Axes: which values are shown, where they lie, and which get a tick.

/// How values are spread over an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::results) enum Scale {
    Linear,
    /// By the logarithm; values must be above zero.
    Log,
}

/// One axis of a plot.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::results) struct Axis {
    pub label: String,
    pub scale: Scale,
}

/// Most ticks of a linear axis.
const TICKS: f64 = 10.0;

/// The values of an axis, between two ticks, and the pixels they lie on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    scale: Scale,
    /// First and last tick: for a linear axis in units of `step`, for a logarithmic one as in [`log_tick`].
    ticks: (i64, i64),
    /// Between ticks of a linear axis, as a mantissa of 1, 2 or 5 and a power of ten.
    step: (i64, i32),
    pixels: (f64, f64),
}

impl Range {
    /// The smallest range between ticks that holds all `values` the scale can show, on pixels `first` to `last`.
    pub(super) fn of(scale: Scale, values: impl Iterator<Item = f64>, first: f64, last: f64) -> Range {
        let shown = |v: &f64| v.is_finite() && (scale == Scale::Linear || *v > 0.0);
        let (low, high) =
            values.filter(shown).fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        let (low, high) = if low > high { (1.0, 2.0) } else { (low, high) };
        let mut range = Range { scale, ticks: (0, 0), step: (1, 0), pixels: (first, last) };
        match scale {
            Scale::Linear => {
                range.step = step(((high - low) / TICKS).max(1e-6 * high.abs()).max(1e-9));
                let unit = range.tick(1);
                range.ticks = ((low / unit).floor() as i64, (high / unit).ceil() as i64);
            }
            Scale::Log => {
                let below = 3 * low.log10().floor() as i64;
                let above = 3 * high.log10().floor() as i64;
                let first = (below..below + 3).rev().find(|&t| range.tick(t) <= low);
                let last = (above..=above + 3).find(|&t| range.tick(t) >= high);
                range.ticks = (first.unwrap_or(below), last.unwrap_or(above + 3));
            }
        }
        if range.ticks.0 == range.ticks.1 {
            range.ticks.1 += 1;
        }
        range
    }

    /// The pixel of a value; `None` where it lies outside.
    pub(super) fn position(&self, value: f64) -> Option<f64> {
        let spread = |v: f64| if self.scale == Scale::Log { v.ln() } else { v };
        let (low, high) = (spread(self.tick(self.ticks.0)), spread(self.tick(self.ticks.1)));
        let share = (spread(value) - low) / (high - low);
        let inside = (-1e-9..=1.0 + 1e-9).contains(&share);
        inside.then_some(self.pixels.0 + share * (self.pixels.1 - self.pixels.0))
    }

    /// Ticks and their labels.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let digits = |tick: i64| match self.scale {
            Scale::Linear => -self.step.1,
            Scale::Log => -log_tick(tick).1,
        };
        let label = |tick| format!("{:.*}", digits(tick).max(0) as usize, self.tick(tick));
        (self.ticks.0..=self.ticks.1).map(|t| (self.tick(t), label(t))).collect()
    }

    fn tick(&self, index: i64) -> f64 {
        match self.scale {
            Scale::Linear => index as f64 * self.step.0 as f64 * 10f64.powi(self.step.1),
            Scale::Log => {
                let (mantissa, power) = log_tick(index);
                mantissa * 10f64.powi(power)
            }
        }
    }
}

/// Ticks of a logarithmic axis are 1, 2 and 5 times powers of ten; number 0 is 1. As mantissa and power.
fn log_tick(index: i64) -> (f64, i32) {
    ([1.0, 2.0, 5.0][index.rem_euclid(3) as usize], index.div_euclid(3) as i32)
}

/// The smallest step of 1, 2 or 5 times a power of ten that is at least `least`.
fn step(least: f64) -> (i64, i32) {
    let power = least.log10().floor() as i32;
    let unit = 10f64.powi(power);
    let fits = |m: &i64| *m as f64 * unit >= least * (1.0 - 1e-9);
    [1, 2, 5].into_iter().find(fits).map_or((1, power + 1), |mantissa| (mantissa, power))
}
