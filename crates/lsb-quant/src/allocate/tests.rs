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
}
