//! The maps of a block in the order they depend on one another.

use crate::spec::{BlockSpec, ExpertsSpec, FeedForwardSpec, InnerSpec, MapSpec, PartSpec};

/// Maps of one branch that are fed at the same time: what becomes of one does not change the inputs of another.
#[derive(Clone, Debug)]
pub(super) struct Stage<'a> {
    /// The maps, by expert where there are experts: those that one expert feeds with the same input stand together.
    pub(super) maps: Vec<Vec<&'a MapSpec>>,
    /// Whether each group belongs to an expert, which sees only some of the tokens.
    pub(super) experts: bool,
}

impl<'a> Stage<'a> {
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
    let alone = |maps: Vec<_>| Stage { maps: vec![maps], experts: false };
    match part {
        PartSpec::Attention(attention) => {
            let mut maps = part.maps();
            maps.pop();
            vec![alone(maps), alone(vec![&attention.out])]
        }
        PartSpec::FeedForward(block) => vec![alone(inner(block)), alone(vec![&block.down])],
        PartSpec::Experts(ExpertsSpec { router, experts, .. }) => vec![
            alone(vec![router]),
            Stage { maps: experts.iter().map(inner).collect(), experts: true },
            Stage { maps: experts.iter().map(|e| vec![&e.down]).collect(), experts: true },
        ],
    }
}

fn inner(block: &FeedForwardSpec) -> Vec<&MapSpec> {
    match &block.inner {
        InnerSpec::Plain(map) | InnerSpec::Fused(map) => vec![map],
        InnerSpec::Gated { gate, up } => vec![gate, up],
    }
}
