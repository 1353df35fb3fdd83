//! Curves and the step that meets a size.

use super::*;
use proptest::prelude::*;

fn curve(points: &[(f64, f64)]) -> RateCurve {
    let points = points.iter().map(|&(octaves, bytes)| RatePoint { octaves, bytes, loss: 0.0 });
    RateCurve::new(800, points.collect())
}

#[test]
fn curves_go_through_their_points_and_on() {
    let c = curve(&[(0.0, 200.0), (1.0, 110.0), (2.0, 50.0)]);
    for (octaves, bytes) in [(0.0, 200.0), (0.5, 155.0), (2.0, 50.0), (-1.0, 300.0), (3.0, 25.0)] {
        assert_eq!(c.bytes(octaves), bytes, "at {octaves}");
    }
}

proptest! {
    #[test]
    fn prop_the_step_meets_the_size(
        tensors in prop::collection::vec(prop::collection::vec((-4f64..4.0, 1f64..1000.0), 1..6), 1..6),
        bytes in 1f64..5000.0,
    ) {
        let curves: Vec<RateCurve> = tensors.iter().map(|t| curve(t)).collect();
        let refs: Vec<&RateCurve> = curves.iter().collect();
        let octaves = solve(&refs, bytes);
        let total = |o: f64| refs.iter().map(|c| c.bytes(o)).sum::<f64>();
        prop_assert!(total(octaves) <= bytes * (1.0 + 1e-9));
        // Two points in one place make a jump there.
        prop_assert!(total(octaves - 1e-6) >= bytes * (1.0 - 1e-3) || total(octaves - 1e-6) > total(octaves));
    }

    #[test]
    fn prop_what_is_stored_otherwise_is_cheaper_at_the_price_and_the_size_is_met(
        others in prop::collection::vec(prop::option::of((20f64..300.0, 0f64..20.0)), 4),
        bytes in 150f64..2000.0,
    ) {
        // Tensors of 800 weights that follow the law of high rates: a bit less for each octave, a quarter of the loss for each
        // bit more.
        let curves: Vec<RateCurve> = others.iter().enumerate().map(|(i, other)| {
            let points = (0..6).map(|k| RatePoint {
                octaves: f64::from(k),
                bytes: 600.0 - 100.0 * f64::from(k) + i as f64,
                loss: 0.01 * 4f64.powi(k),
            });
            let fixed = other.map(|(bytes, loss)| FixedCost { bytes, loss });
            RateCurve::new(800, points.collect()).with_others(fixed.into_iter().collect())
        }).collect();
        let refs: Vec<&RateCurve> = curves.iter().collect();
        let octaves = solve(&refs, bytes);
        let at = |octaves: f64| -> Vec<(f64, f64)> {
            let price = price(&refs, octaves);
            let way = |c: &&RateCurve| match c.chosen(octaves, price) {
                Some((_, f)) => {
                    assert!(f.loss + price * f.bytes < c.loss(octaves) + price * c.bytes(octaves));
                    (f.bytes, f.loss)
                }
                None => (c.bytes(octaves), c.loss(octaves)),
            };
            refs.iter().map(way).collect()
        };
        let sum = |ways: &[(f64, f64)]| ways.iter().map(|w| w.0).sum::<f64>();
        prop_assert!(sum(&at(octaves)) <= bytes * (1.0 + 1e-9));
        // Nothing else of the same size loses less: at its price, every choice is the cheapest of its tensor.
        let (price, chosen) = (price(&refs, octaves), at(octaves));
        for (c, way) in refs.iter().zip(chosen).filter(|(_, w)| w.0 > 0.0) {
            for o in -10..60 {
                let o = f64::from(o) / 10.0;
                if (0.5..4.5).contains(&octaves) && (0.5..4.5).contains(&o) {
                    prop_assert!(way.1 + price * way.0 <= (c.loss(o) + price * c.bytes(o)) * 1.05 + 1e-9);
                }
            }
        }
    }
}
