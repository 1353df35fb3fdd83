//! How far a training is, in a file: an interrupted one goes on from there and finds what it would have found.
//!
//! The file is a line of JSON, then parameters as little-endian f64, then the BLAKE3 hash of all that. It is replaced in one
//! step, so that there is always a whole one.

use super::adam::Adam;
use super::{Order, TuneOptions};
use crate::Result;
use lsb_stream::Error;
use lsb_stream::store::{OpenMode, RealStore, Store};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time after which the state is written again.
const EVERY: Duration = Duration::from_secs(30);

/// All that changes from step to step.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Logarithms of the factors.
    pub(super) logs: Vec<f64>,
    pub(super) adam: Adam,
    pub(super) order: Order,
    /// Steps done.
    pub(super) steps: usize,
    /// The last known divergence of the held-out windows.
    pub(super) held_out: f64,
    /// Looks at them without progress.
    pub(super) waited: usize,
    /// The best divergence of the held-out windows, the step it was found at, and the logarithms there.
    pub(super) best: (f64, usize, Vec<f64>),
}

/// What is not a row of parameters. Numbers that have to come back exactly are bits.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    /// Version of this format.
    lsb_training: u32,
    /// Hash of everything the training depends on.
    key: String,
    parameters: usize,
    steps: usize,
    adam_steps: i32,
    held_out: u64,
    waited: usize,
    best: u64,
    best_step: usize,
    order: Vec<usize>,
    next: usize,
    random: u64,
}

const VERSION: u32 = 1;
const HASH: usize = 32;

/// Where the state of a training is kept, if it is.
pub(super) struct Checkpoint {
    path: Option<PathBuf>,
    key: String,
    last: Instant,
}

impl Checkpoint {
    /// For a training that depends on `windows`, `options`, so many `parameters`, and on models of which `before` is the
    /// divergence: to the last bit, no other ones have that.
    pub(super) fn new(
        windows: &[Vec<u32>],
        options: &TuneOptions,
        parameters: usize,
        before: f64,
    ) -> Checkpoint {
        let mut hash = blake3::Hasher::new();
        let TuneOptions { steps, rate, windows: together, check_every, patience, seed, checkpoint } = options;
        let numbers = [*steps, *together, *check_every, *patience, parameters].map(|n| n as u64);
        for number in numbers.into_iter().chain([*seed, rate.to_bits(), before.to_bits()]) {
            hash.update(&number.to_le_bytes());
        }
        for window in windows {
            hash.update(&(window.len() as u64).to_le_bytes());
            for id in window {
                hash.update(&id.to_le_bytes());
            }
        }
        let key = hash.finalize().to_hex().to_string();
        Checkpoint { path: checkpoint.clone(), key, last: Instant::now() }
    }

    /// The state that was kept, where it belongs to this training, whose first state is `start`.
    ///
    /// # Errors
    /// If the file is there and cannot be read. What it holds is no error: a damaged one, or another training's, is passed over
    /// with a warning.
    pub(super) fn load(&self, start: &State) -> Result<Option<State>> {
        let Some(path) = &self.path else { return Ok(None) };
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("read", path)(e).into()),
        };
        let found = parse(&bytes, &self.key, start);
        if found.is_none() {
            tracing::warn!(
                "{} is damaged, or of another training, or of this one on another processor: training begins anew",
                path.display()
            );
        }
        Ok(found)
    }

    /// Keeps `state` if some time has passed since it was kept last.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn keep(&mut self, state: &State) -> Result<()> {
        if self.path.is_none() || self.last.elapsed() < EVERY {
            return Ok(());
        }
        self.keep_now(state)
    }

    /// Keeps `state`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn keep_now(&mut self, state: &State) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        replace(path, &self.bytes(state)?)?;
        self.last = Instant::now();
        Ok(())
    }

    fn bytes(&self, state: &State) -> Result<Vec<u8>> {
        let (order, next, random) = state.order.parts();
        let line = Line {
            lsb_training: VERSION,
            key: self.key.clone(),
            parameters: state.logs.len(),
            steps: state.steps,
            adam_steps: state.adam.steps(),
            held_out: state.held_out.to_bits(),
            waited: state.waited,
            best: state.best.0.to_bits(),
            best_step: state.best.1,
            order: order.to_vec(),
            next,
            random,
        };
        let mut bytes =
            serde_json::to_vec(&line).map_err(|e| Error::Config(format!("state of training: {e}")))?;
        bytes.push(b'\n');
        let [means, squares] = state.adam.moments();
        for values in [&state.logs, means, squares, &state.best.2] {
            values.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
        }
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        Ok(bytes)
    }
}

/// The state in `bytes`, if they are whole and of the training `key` that began with `start`.
fn parse(bytes: &[u8], key: &str, start: &State) -> Option<State> {
    let (content, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH)?)?;
    if blake3::hash(content).as_bytes() != hash {
        return None;
    }
    let end = content.iter().position(|&b| b == b'\n')?;
    let line: Line = serde_json::from_slice(&content[..end]).ok()?;
    let n = start.logs.len();
    let (numbers, rest) = content[end + 1..].as_chunks::<8>();
    let fits = line.lsb_training == VERSION && line.key == key && line.parameters == n;
    if !fits || !rest.is_empty() || numbers.len() != 4 * n {
        return None;
    }
    let values = |i: usize| numbers[i * n..(i + 1) * n].iter().map(|b| f64::from_le_bytes(*b)).collect();
    Some(State {
        logs: values(0),
        adam: Adam::from_parts([values(1), values(2)], line.adam_steps),
        order: start.order.at(line.order, line.next, line.random)?,
        steps: line.steps,
        held_out: f64::from_bits(line.held_out),
        waited: line.waited,
        best: (f64::from_bits(line.best), line.best_step, values(3)),
    })
}

/// Puts `bytes` into the file `path` in one step.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let file = RealStore.open(&new, OpenMode::Create).map_err(Error::io("create", &new))?;
    file.write_all_at(bytes, 0).map_err(Error::io("write", &new))?;
    file.sync_data().map_err(Error::io("sync", &new))?;
    RealStore.rename(&new, path).map_err(Error::io("rename", &new))?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(RealStore.sync_dir(parent).map_err(Error::io("sync", parent))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let mut adam = Adam::new(3);
        let mut logs = vec![0.5, -1.25, 0.1];
        adam.step(&mut logs, &[1.0, -2.0, 3e-9], 0.01);
        let mut order = Order::new(vec![0, 1, 2, 4], 7);
        order.next(3);
        State { logs, adam, order, steps: 1, held_out: 0.1, waited: 1, best: (0.3, 0, vec![0.0; 3]) }
    }

    #[test]
    fn a_state_comes_back_to_the_last_bit_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let options =
            TuneOptions { checkpoint: Some(dir.path().join("t.training")), ..TuneOptions::default() };
        let windows = vec![vec![1, 2], vec![3]];
        let mut kept = Checkpoint::new(&windows, &options, 3, 0.25);
        let (state, start) = (state(), State { order: Order::new(vec![0, 1, 2, 4], 7), ..state() });
        assert!(kept.load(&start).unwrap().is_none());
        kept.keep(&state).unwrap();
        assert!(kept.load(&start).unwrap().is_none(), "too soon to be written");
        kept.keep_now(&state).unwrap();
        let found = kept.load(&start).unwrap().unwrap();
        assert_eq!(format!("{found:?}"), format!("{state:?}"));
        let (mut a, mut b) = (found.order, state.order.clone());
        assert_eq!([a.next(3), a.next(2)], [b.next(3), b.next(2)]);

        // Another training, other models, a damaged file.
        let other = TuneOptions { seed: 1, ..options.clone() };
        assert!(Checkpoint::new(&windows, &other, 3, 0.25).load(&start).unwrap().is_none());
        assert!(Checkpoint::new(&windows, &options, 3, 0.26).load(&start).unwrap().is_none());
        assert!(Checkpoint::new(&windows[..1], &options, 3, 0.25).load(&start).unwrap().is_none());
        let path = options.checkpoint.as_ref().unwrap();
        let whole = std::fs::read(path).unwrap();
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(path, &bytes).unwrap();
            assert!(kept.load(&start).unwrap().is_none(), "byte {at}");
            std::fs::write(path, &whole[..at]).unwrap();
            assert!(kept.load(&start).unwrap().is_none(), "cut at {at}");
        }
    }
}
