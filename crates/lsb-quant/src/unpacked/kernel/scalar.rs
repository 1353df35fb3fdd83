//! The specification.

use super::Panels;
use crate::unpacked::form::{GROUP, PANEL};
use crate::unpacked::inputs::Inputs;

/// See [`super::sums`].
pub(super) fn sums(panels: &Panels<'_>, inputs: &Inputs, tokens: usize, sums: &mut [f32]) {
    sums.fill(0.0);
    let rows = panels.count() * PANEL;
    for panel in 0..panels.count() {
        let blocks = panels.panel(panel).chunks(panels.form.block_bytes());
        for (group, block) in blocks.enumerate() {
            let levels = panels.form.unpack(block);
            for token in 0..tokens {
                let input = panels.token(inputs, token);
                let [even, odd] = &input.values[group];
                let values: [i16; GROUP] =
                    std::array::from_fn(|c| if c % 2 == 0 { even[c / 2] } else { odd[c / 2] });
                let scale = input.scales[group].scale;
                let sums = &mut sums[token * rows + panel * PANEL..][..PANEL];
                for (sum, levels) in sums.iter_mut().zip(&levels) {
                    let products = levels.iter().zip(&values).map(|(&l, &v)| i32::from(l) * i32::from(v));
                    *sum += products.sum::<i32>() as f32 * scale;
                }
            }
        }
    }
}
