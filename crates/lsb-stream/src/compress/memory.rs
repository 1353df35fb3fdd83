//! How the budget is divided before work starts: threads, work, weights.

use super::prepare::Job;
use crate::{Budget, CompressConfig, Error, Result, default_threads};

/// How memory is shared between weights and work.
pub(super) struct Memory {
    pub(super) threads: usize,
    /// Reserved for work: scratch memory of all threads, encoded tiles on their way.
    pub(super) working: u64,
    /// Left for weights.
    pub(super) resident: u64,
    /// Most the process will need.
    pub(super) peak: u64,
    /// Tensors that are read again for each pass.
    pub(super) streamed: usize,
}

/// Encoded tiles on their way to the writer, in chunks.
const CHUNKS_IN_FLIGHT: u64 = 3;
/// Histograms and the like, per thread.
const SURVEY_BYTES: u64 = 1 << 20;

impl Memory {
    pub(super) fn plan(
        jobs: &[Job],
        config: &CompressConfig,
        budget: &Budget,
        calibration: u64,
    ) -> Result<Self> {
        let jobs: Vec<&Job> = jobs.iter().filter(|j| j.facts.same_as.is_none()).collect();
        let largest = |f: &dyn Fn(&Job) -> u64| jobs.iter().map(|j| f(j)).max().unwrap_or(0);
        // Per thread: source values, decoded values, and as much again for the codec itself.
        let tile = largest(&|j| {
            let t = &j.item.tiling;
            t.tile_rows().min(t.rows()) * t.tile_cols().min(t.cols())
        });
        let per_thread = 16 * tile + SURVEY_BYTES;
        let chunk = largest(&|j| j.item.chunk_bytes());
        let calibrated = if calibration > 0 {
            largest(&|j| {
                let all = std::iter::once(&j.assignment.quantizer).chain(&j.assignment.others);
                all.map(|q| q.calibrated_bytes(&j.facts.matrix())).max().unwrap_or(0)
            })
        } else {
            0
        };
        let fixed = CHUNKS_IN_FLIGHT * chunk + calibrated;
        let read = 3 * chunk;
        let room = budget.limit().saturating_sub(fixed + read + calibration);
        let cores = default_threads();
        let threads = match (config.parallel_processing, config.threads) {
            (false, _) => 1,
            // Half of the room at the most goes to threads' scratch memory; results do not depend on it.
            (true, 0) => cores.min(usize::try_from(room / 2 / per_thread).unwrap_or(cores)).max(1),
            (true, n) => n,
        };
        let working = fixed + per_thread * threads as u64;
        let needed = working + read + calibration;
        if needed > budget.limit() {
            return Err(Error::OverBudget {
                what: format!("work on {threads} threads"),
                needed,
                available: budget.limit(),
                advice: format!(
                    "raise --target-ram-mb to {}{}",
                    (needed + Budget::PROCESS_BYTES).div_ceil(1_000_000),
                    if threads > 1 { ", or use fewer --threads" } else { "" }
                ),
            });
        }
        let resident = budget.limit() - working - calibration;
        let total: u64 = jobs.iter().map(|j| j.facts.bytes).sum();
        if !config.streaming_enabled && total > resident {
            return Err(Error::OverBudget {
                what: "the whole model (streaming_enabled = false)".into(),
                needed: total,
                available: resident,
                advice: "leave streaming on".into(),
            });
        }
        let caches = config.caching_enabled || !config.streaming_enabled;
        let held = |j: &Job| if caches && j.facts.bytes <= resident { j.facts.bytes } else { read };
        // While one tensor is worked on, the next is being read, if it may be.
        let ahead = |a: &Job, b: &Job| {
            let open = config.max_layers_in_ram != 1 || a.item.layer == b.item.layer;
            if config.prefetch_enabled && open { held(a) + held(b) } else { held(a) }
        };
        let alone = jobs.iter().map(|j| held(j)).max().unwrap_or(0);
        let pairs = jobs.windows(2).map(|w| ahead(w[0], w[1])).max().unwrap_or(0);
        let weights = if config.streaming_enabled { alone.max(pairs) } else { total };
        Ok(Memory {
            threads,
            working,
            resident,
            peak: Budget::PROCESS_BYTES + working + calibration + weights.min(resident),
            streamed: jobs.iter().filter(|j| !caches || j.facts.bytes > resident).count(),
        })
    }
}
