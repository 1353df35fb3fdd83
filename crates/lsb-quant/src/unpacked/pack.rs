//! From levels to blocks.

use super::form::{Block, Form, GROUP, PANEL, for_each_form};
use crate::lanes::{Lanes, Work};

/// Looks for the narrowest form that leaves no more than `apart` levels out; the widest one may leave more.
pub(super) struct Narrowest<'a> {
    pub(super) levels: &'a [[i16; GROUP]],
    pub(super) apart: usize,
}

impl Work for Narrowest<'_> {
    type Output = Form;

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) -> Form {
        // How many levels each form leaves out, in lanes that are read before they could overflow.
        let mut out = [0_usize; Form::ALL.len()];
        for groups in self.levels.chunks(1 << 10) {
            for (out, form) in out.iter_mut().zip(Form::ALL) {
                let (least, most) = (*form.range().start(), *form.range().end());
                let mut lanes = [0_u16; GROUP];
                for group in groups {
                    for (lane, &level) in lanes.iter_mut().zip(group) {
                        *lane += u16::from((level < least) | (level > most));
                    }
                }
                *out += lanes.iter().map(|&lane| usize::from(lane)).sum::<usize>();
            }
        }
        let fits = |&(out, _): &(usize, Form)| out <= self.apart;
        out.into_iter().zip(Form::ALL).find(fits).map_or(Form::Eight, |(_, form)| form)
    }
}

/// Packs levels, group by group and in each row by row, into panels; rows that the last panel lacks are 0.
pub(super) struct Pack<'a> {
    pub(super) form: Form,
    pub(super) levels: &'a [[i16; GROUP]],
    pub(super) rows: usize,
}

impl Work for Pack<'_> {
    type Output = Vec<u8>;

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) -> Vec<u8> {
        for_each_form!(self.form, |form| self.blocks(form))
    }
}

impl Pack<'_> {
    #[inline(always)]
    fn blocks(&self, form: Form) -> Vec<u8> {
        let rows = self.rows.max(1);
        let (panels, groups) = (rows.div_ceil(PANEL), self.levels.len() / rows);
        let mut packed = vec![0; panels * groups * form.block_bytes()];
        for (index, packed) in packed.chunks_exact_mut(form.block_bytes()).enumerate() {
            let (panel, group) = (index / groups, index % groups);
            let levels = &self.levels[group * rows..][panel * PANEL..rows.min((panel + 1) * PANEL)];
            match <&Block>::try_from(levels).ok() {
                Some(block) => form.pack(block, packed),
                None => {
                    let mut block: Block = [[0; GROUP]; PANEL];
                    block[..levels.len()].copy_from_slice(levels);
                    form.pack(&block, packed);
                }
            }
        }
        packed
    }
}
