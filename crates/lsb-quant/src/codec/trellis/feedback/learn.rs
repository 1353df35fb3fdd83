//! What a sample of rows teaches: the classes, what levels cost, how far they fall short, and what all will take.

use super::super::encode::Deviations;
use super::super::shape::{MAX_MAGNITUDES, Shape};
use super::super::tile::Size;
use super::band::Band;
use super::{Expected, FeedbackOptions, Plan, QuantizedBand};
use crate::{EncodedTile, Result, RowSample};
use lsb_format::Tile;
use rayon::prelude::*;

pub(super) fn learn(
    plan: &mut Plan,
    lambda: f64,
    sample: &RowSample,
    options: &FeedbackOptions,
) -> Result<()> {
    let cols = plan.matrix.cols as usize;
    let factors: Vec<f32> = sample.rows.iter().map(|&r| plan.row_factors[r as usize]).collect();
    let size = Size { rows: factors.len(), cols };
    plan.classes = Deviations::of(size, plan.in_steps(&factors, &sample.weights)).classes(true, true);
    let gaussian = |class| Shape::gaussian(plan.classes.deviation(class)).rates(lambda);
    plan.rates = (0..plan.classes.count()).map(gaussian).collect();

    let band_rows = plan.tiling.tile_rows() as usize;
    let passes = options.passes.max(1);
    let resolution = options.col_resolution.min(super::super::scales::MAX_RESOLUTION);
    for pass in 0..passes {
        let bands: Vec<_> =
            factors.chunks(band_rows).zip(sample.weights.chunks((band_rows * cols).max(1))).collect();
        let results: Vec<_> = bands
            .par_iter()
            .map(|(factors, weights)| plan.search_band(&Band { factors }, (*weights).into()))
            .collect();
        let shrink: Vec<f64> = (0..cols)
            .map(|c| {
                let (products, squares) = results
                    .iter()
                    .fold((0.0, 0.0), |(p, s), (_, r)| (p + r.moments[c].0, s + r.moments[c].1));
                if squares > 0.0 { (products / squares).clamp(0.5, 1.5) } else { 1.0 }
            })
            .collect();
        let mut counts = vec![[0u32; MAX_MAGNITUDES + 1]; plan.classes.count()];
        for ((levels, sums), (factors, _)) in results.iter().zip(&bands) {
            let mut of_rows = vec![0; factors.len()];
            for (c, levels) in levels.chunks(factors.len()).enumerate() {
                sums.classes.of_column(c, &mut of_rows);
                for (&class, level) in of_rows.iter().zip(levels) {
                    counts[usize::from(class)][(level.unsigned_abs() as usize).min(MAX_MAGNITUDES)] += 1;
                }
            }
        }
        if pass + 1 == passes {
            plan.expected = expect(plan, &results, &bands)?;
        }
        plan.rates = counts.iter().map(|c| Shape::of_counts(&c.map(f64::from)).rates(lambda)).collect();
        plan.set_steps(&shrink, resolution);
    }
    Ok(())
}

/// Codes the sample and takes it for the whole.
fn expect(
    plan: &Plan,
    results: &[(Vec<i32>, super::band::Sums)],
    bands: &[(&[f32], &[f32])],
) -> Result<Expected> {
    let parts: Vec<Result<(f64, f64)>> = results
        .par_iter()
        .zip(bands)
        .map(|((levels, sums), (factors, _))| {
            let band = QuantizedBand {
                levels: levels.clone(),
                rows: factors.len(),
                loss: sums.loss,
                weighted_loss: sums.weighted,
            };
            let mut bytes = 0.0;
            let mut out = EncodedTile::default();
            for i in 0..plan.tiling.across() {
                let tile = Tile { rows: factors.len() as u64, ..plan.tiling.tile(i) };
                out.clear();
                plan.encode_part(&tile, &band, &mut out)?;
                bytes += out.bytes().len() as f64;
            }
            Ok((bytes, sums.weighted))
        })
        .collect();
    let (mut bytes, mut weighted_loss) = (0.0, 0.0);
    for part in parts {
        let (b, w) = part?;
        bytes += b;
        weighted_loss += w;
    }
    let rows: usize = bands.iter().map(|(f, _)| f.len()).sum();
    let scale = plan.matrix.rows as f64 / rows.max(1) as f64;
    Ok(Expected {
        bytes: bytes * scale + plan.side.write().len() as f64,
        weighted_loss: weighted_loss * scale,
    })
}
