//! `gptq` against `rtn`.

use crate::MatrixInfo;
use crate::calibrate::DenseMoments;
use crate::codec::feedback::layers::{Coded, code, layer, matrix, output_error};
use lsb_format::DType;

const SIZE: (usize, usize) = (96, 384);

fn known(h: &[f32]) -> Option<DenseMoments> {
    Some(DenseMoments::new(h.to_vec(), SIZE.1))
}

#[test]
fn outputs_are_closer_than_those_of_rtn_in_as_many_bytes() {
    let (h, weights) = layer(SIZE.0, SIZE.1);
    for dtype in [DType::F32, DType::BF16] {
        let of = |text: &str| {
            let coded = code(text, &matrix(SIZE, dtype), &weights, known(&h)).unwrap();
            (coded.bytes(), output_error(&weights, &coded.back, &h, 0.01))
        };
        for (rest, most) in [("2", 0.70), ("3", 0.68), ("4", 0.66), ("bits=3,symmetric=true", 0.68)] {
            let (rtn, gptq) = (of(&format!("rtn:{rest}")), of(&format!("gptq:{rest}")));
            assert_eq!(rtn.0, gptq.0, "{rest}");
            assert!(gptq.1 < most * rtn.1, "{rest} {dtype}: {} of the error of rtn", gptq.1 / rtn.1);
        }
        let rest = ["", ",act_order=false", ",act_order=false,mse=false"];
        let errors = rest.map(|rest| of(&format!("gptq:3{rest}")).1);
        assert!(errors.is_sorted(), "each refinement helps: {errors:?}");
    }
}

#[test]
fn without_calibration_it_is_rtn() {
    let (h, weights) = layer(SIZE.0, SIZE.1);
    let tiles =
        |text: &str, moments| code(text, &matrix(SIZE, DType::BF16), &weights, moments).unwrap().tiles;
    assert_eq!(tiles("gptq:3", None), tiles("rtn:3", None));
    assert_ne!(tiles("gptq:3", known(&h)), tiles("rtn:3", None));
    // Unrelated inputs of one size leave nothing to feed back.
    let alike: Vec<f32> =
        (0..SIZE.1 * SIZE.1).map(|i| if i % (SIZE.1 + 1) == 0 { 2.0 } else { 0.0 }).collect();
    let of =
        |text: &str| -> Coded { code(text, &matrix(SIZE, DType::F32), &weights, known(&alike)).unwrap() };
    let (gptq, rtn) = (of("gptq:3"), of("rtn:3"));
    let error = |c: &Coded| output_error(&weights, &c.back, &alike, 0.0);
    assert!(error(&gptq) <= error(&rtn) && error(&gptq) > 0.98 * error(&rtn));
}

#[test]
fn rows_longer_than_a_tile_are_rounded_as_rtn_does() {
    let matrix = MatrixInfo { rows: 1, cols: (1 << 18) + 3, dtype: DType::F32 };
    let weights = vec![0.5; matrix.cols as usize];
    let moments = DenseMoments::new(vec![1.0], 1);
    let coded = code("gptq:2", &matrix, &weights, Some(moments)).unwrap();
    assert_eq!(coded.tiles, code("rtn:2", &matrix, &weights, None).unwrap().tiles);
}
