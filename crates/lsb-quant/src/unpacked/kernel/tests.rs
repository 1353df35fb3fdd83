//! Kernels against the scalar code.

use super::*;
use crate::lanes::dispatch;
use crate::unpacked::form::GROUP;
use crate::unpacked::pack::Pack;
use crate::unpacked::tests::numbers;
use proptest::prelude::*;

/// Whether all kernels give the bits of the scalar code.
fn agree(
    form: Form,
    [rows, cols]: [usize; 2],
    tokens: usize,
    largest: bool,
    seed: u64,
) -> Result<(), TestCaseError> {
    let mut next = numbers(seed);
    let offset = form.offset();
    let padded = cols.next_multiple_of(GROUP);
    let mut level = || if largest { -offset } else { (next() % (2 * offset as u64)) as i16 - offset };
    let levels: Vec<[i16; GROUP]> =
        (0..rows * padded / GROUP).map(|_| std::array::from_fn(|_| level())).collect();
    let packed = dispatch(Pack { form, levels: &levels, rows });
    let wide = 2 * GROUP + cols;
    // All of the largest magnitude, or of many.
    let x = |token: usize, c: usize| {
        if largest { -1.0 } else { ((token * cols + c * c + 3) as f32).sin().powi(5) }
    };
    let x: Vec<f32> = (0..tokens * wide).map(|i| x(i / wide, i % wide)).collect();
    // Inputs of a wider matrix, of which these are the last columns.
    let panels = Panels { form, first: 2, groups: padded / GROUP, packed: &packed };
    let run = |isa| {
        let mut inputs = Inputs::default();
        let x = |token: usize| &x[token * wide..][..wide];
        inputs.fill_with(isa, form, [tokens, wide], x, &vec![0.25; wide], [1.0, 2.0]);
        let mut found = vec![f32::NAN; tokens * rows.next_multiple_of(PANEL)];
        sums(isa, &panels, &inputs, tokens, &mut found);
        found.iter().map(|s| s.to_bits()).collect::<Vec<_>>()
    };
    let expected = run(Isa::Scalar);
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        prop_assert_eq!(run(isa), expected.clone(), "{:?}, {} x {}, {}", form, rows, cols, isa.name());
    }
    Ok(())
}

proptest! {
    #[test]
    fn prop_kernels_give_the_bits_of_the_scalar_code(
        rows in 1usize..70,
        cols in prop_oneof![1usize..140, 510usize..700],
        tokens in 1usize..8,
        largest in any::<bool>(),
        seed in any::<u64>(),
    ) {
        for form in Form::ALL {
            agree(form, [rows, cols], tokens, largest, seed)?;
        }
    }
}

#[test]
fn kernels_give_the_bits_of_the_scalar_code_for_more_columns_than_tables_are_kept_of() {
    for (largest, tokens) in [(false, 1), (true, 1), (false, 3)] {
        agree(Form::One, [40, 2_100], tokens, largest, 1).unwrap();
    }
}
