//! The maps of a block in the order they depend on one another.

use crate::spec::{BlockSpec, ExpertsSpec, FeedForwardSpec, InnerSpec, MapSpec, PartSpec};

/// Maps of one branch that are fed at the same time: what becomes of one does not change the inputs of another.
#[derive(Clone, Debug)]
pub(super) struct Stage<'a> {
    /// The maps, by expert where there are experts: those that one expert feeds with the same input stand together.
    pub(super) maps: Vec<Vec<&'a MapSpec>>,
    /// Where each group belongs to an expert: how many of the experts see each token.
    pub(super) per_token: Option<usize>,
}

impl<'a> Stage<'a> {
    /// Maps that share their input.
    pub(super) fn alone(maps: Vec<&'a MapSpec>) -> Self {
        Stage { maps: vec![maps], per_token: None }
    }

    /// Every map.
    pub(super) fn every_map(&self) -> impl Iterator<Item = &'a MapSpec> + '_ {
        self.maps.iter().flatten().copied()
    }
}

/// The stages of a block whose maps are calibrated, in the order they are compressed in.
pub(super) fn stages(block: &BlockSpec) -> Vec<Stage<'_>> {
    let mut out: Vec<Stage<'_>> = block.branches.iter().flat_map(|b| of_part(&b.part)).collect();
    for stage in &mut out {
        stage.maps.iter_mut().for_each(|group| group.retain(|m| is_calibrated(m)));
        stage.maps.retain(|group| !group.is_empty());
    }
    out.retain(|stage| !stage.maps.is_empty());
    out
}

/// Codecs take the columns of a matrix for its inputs: one that is stored the other way is compressed without calibration.
fn is_calibrated(map: &MapSpec) -> bool {
    !map.inputs_first
}

fn of_part(part: &PartSpec) -> Vec<Stage<'_>> {
    match part {
        PartSpec::Attention(attention) => {
            let mut maps = part.maps();
            maps.pop();
            vec![Stage::alone(maps), Stage::alone(vec![&attention.out])]
        }
        PartSpec::FeedForward(block) => vec![Stage::alone(inner(block)), Stage::alone(vec![&block.down])],
        PartSpec::Experts(ExpertsSpec { router, experts, per_token, .. }) => vec![
            Stage::alone(vec![router]),
            Stage { maps: experts.iter().map(inner).collect(), per_token: Some(*per_token) },
            Stage { maps: experts.iter().map(|e| vec![&e.down]).collect(), per_token: Some(*per_token) },
        ],
    }
}

fn inner(block: &FeedForwardSpec) -> Vec<&MapSpec> {
    match &block.inner {
        InnerSpec::Plain(map) | InnerSpec::Fused(map) => vec![map],
        InnerSpec::Gated { gate, up } => vec![gate, up],
    }
}
