//! The highest logits of a token, kept while its vocabulary passes by.

/// Values looked at together before one is compared alone.
const GROUP: usize = 32;

/// Logits and ids of the best so far, best first; of equal logits the lower id is better. Its length is the
/// number kept; places nothing has filled hold minus infinity and [`NO_ID`].
pub(super) struct Best<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) ids: &'a mut [u32],
}

/// Stands where fewer ids than places were shown.
pub(super) const NO_ID: u32 = u32::MAX;

impl Best<'_> {
    /// Shows the logits of ids `first..`, of which the largest is `max`.
    pub(super) fn offer(&mut self, first: u32, logits: &[f32], max: f32) {
        if !self.reaches(max) {
            return;
        }
        for (group, values) in logits.chunks(GROUP).enumerate() {
            let Some(&least) = self.values.last() else { return };
            // Without an early exit: this is a vector comparison, and nearly always all there is to do.
            if !values.iter().fold(false, |any, &value| any | (value >= least)) {
                continue;
            }
            for (i, &value) in values.iter().enumerate() {
                if self.reaches(value) {
                    self.insert(first + (group * GROUP + i) as u32, value);
                }
            }
        }
    }

    /// Whether a logit could be among the best: an equal one can, by its id.
    fn reaches(&self, value: f32) -> bool {
        self.values.last().is_some_and(|&least| value >= least)
    }

    fn insert(&mut self, id: u32, value: f32) {
        let better = |&(&v, &i): &(&f32, &u32)| v > value || (v == value && i < id);
        let place = self.values.iter().zip(self.ids.iter()).take_while(better).count();
        if place < self.ids.len() {
            self.values[place..].rotate_right(1);
            self.ids[place..].rotate_right(1);
            (self.values[place], self.ids[place]) = (value, id);
        }
    }
}

/// The five best of a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopFive {
    values: [f32; 5],
    pub(super) ids: [u32; 5],
}

impl Default for TopFive {
    fn default() -> Self {
        TopFive { values: [f32::NEG_INFINITY; 5], ids: [NO_ID; 5] }
    }
}

impl TopFive {
    pub(super) fn offer(&mut self, first: u32, logits: &[f32], max: f32) {
        Best { values: &mut self.values, ids: &mut self.ids }.offer(first, logits, max);
    }
}

/// The share of the ids of `original` that `other` has as well, in any order.
pub(super) fn overlap(original: &[u32], other: &[u32]) -> f32 {
    let kept = original.iter().filter(|&&id| id != NO_ID);
    let common = kept.clone().filter(|id| other.contains(id)).count();
    common as f32 / kept.count().max(1) as f32
}
