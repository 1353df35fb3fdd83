//! The writing side: a thread that owns the package writer, and the handle that feeds it.

use super::engine::TileSink;
use crate::package::{PackageWriter, PackedTensor};
use crate::report::TensorReport;
use crate::{Error, Result};
use lsb_format::Tiling;
use lsb_format::package::{ShortDigest, TileTable};
use lsb_quant::{EncodedTile, Parameters, Quantizer};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

enum Message {
    Begin {
        tensor: usize,
        tiling: Tiling,
    },
    Tiles(Vec<EncodedTile>),
    Abort,
    /// Asks for a tensor that is finished.
    Open {
        name: String,
        reply: Sender<Result<PackedTensor>>,
    },
    Finish {
        side: Vec<u8>,
        digest: ShortDigest,
        codec: String,
        parameters: Parameters,
        facts: serde_json::Value,
    },
}

/// Messages that may wait for the writer: with the one being written and the one being made, this bounds
/// the encoded tiles in memory.
const QUEUE: usize = 1;

/// Sends tiles to the writer thread.
pub(super) struct Output {
    send: Option<SyncSender<Message>>,
    recycled: Receiver<Vec<EncodedTile>>,
    thread: Option<JoinHandle<Result<Box<PackageWriter>>>>,
    spare: Vec<EncodedTile>,
    /// Bytes of tiles and their records since the tensor began.
    pushed: u64,
    tiling: Option<Tiling>,
}

impl Output {
    pub(super) fn start(writer: Box<PackageWriter>) -> Result<Self> {
        let (send, receive) = sync_channel(QUEUE);
        let (give_back, recycled) = channel();
        let thread = std::thread::Builder::new()
            .name("lsb-write".into())
            .spawn(move || write(writer, &receive, &give_back))
            .map_err(|e| Error::Config(format!("cannot start the writer thread: {e}")))?;
        let (spare, pushed) = (Vec::new(), 0);
        Ok(Output { send: Some(send), recycled, thread: Some(thread), spare, pushed, tiling: None })
    }

    pub(super) fn begin(&mut self, tensor: usize, tiling: Tiling) -> Result<()> {
        self.pushed = 0;
        self.tiling = Some(tiling);
        self.send(Message::Begin { tensor, tiling })
    }

    /// Forgets the tiles since `begin`.
    pub(super) fn abort(&mut self) -> Result<()> {
        self.send(Message::Abort)
    }

    /// Ends the tensor; fills in its bytes.
    pub(super) fn finish_tensor(
        &mut self,
        side: Vec<u8>,
        digest: [u8; 32],
        quantizer: &dyn Quantizer,
        mut report: TensorReport,
    ) -> Result<TensorReport> {
        let table = self.tiling.map_or(0, |t| TileTable::overhead(&t, side.len()));
        report.bytes = self.pushed + table;
        let facts = serde_json::to_value(&report).map_err(|e| Error::Config(e.to_string()))?;
        let digest = ShortDigest::from_blake3(&blake3::Hash::from_bytes(digest));
        let (codec, parameters) = (quantizer.id().to_owned(), quantizer.parameters());
        self.send(Message::Finish { side, digest, codec, parameters, facts })?;
        Ok(report)
    }

    /// A tensor that is finished, read from the package that is being written.
    pub(super) fn open(&mut self, name: &str) -> Result<PackedTensor> {
        let (reply, answer) = channel();
        self.send(Message::Open { name: name.to_owned(), reply })?;
        match answer.recv() {
            Ok(tensor) => tensor,
            // The writer stopped: its own error says why.
            Err(_) => Err(self.join().err().unwrap_or(Error::Interrupted)),
        }
    }

    /// Waits for everything to be written and gives the writer back; `None` where it stopped before with an
    /// error that was already returned.
    pub(super) fn finish(mut self) -> Result<Option<Box<PackageWriter>>> {
        drop(self.send.take());
        if self.thread.is_some() { self.join().map(Some) } else { Ok(None) }
    }

    fn send(&mut self, message: Message) -> Result<()> {
        match self.send.as_ref().map(|s| s.send(message)) {
            Some(Ok(())) => Ok(()),
            // The writer stopped: its own error says why.
            _ => Err(self.join().err().unwrap_or(Error::Interrupted)),
        }
    }

    fn join(&mut self) -> Result<Box<PackageWriter>> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Error::Config("the writer thread panicked; this is a bug in lsb".into())),
            None => Err(Error::Interrupted),
        }
    }
}

impl TileSink for Output {
    fn push(&mut self, tiles: Vec<EncodedTile>) -> Result<()> {
        self.pushed += tiles.iter().map(|t| t.bytes().len() as u64).sum::<u64>();
        self.send(Message::Tiles(tiles))
    }

    fn blank(&mut self, n: usize) -> Vec<EncodedTile> {
        while let Ok(tiles) = self.recycled.try_recv() {
            self.spare.extend(tiles);
        }
        // More than a few chunks' worth would be memory nobody counts.
        self.spare.truncate(3 * n.max(8));
        let mut out: Vec<EncodedTile> =
            self.spare.drain(self.spare.len() - n.min(self.spare.len())..).collect();
        out.iter_mut().for_each(EncodedTile::clear);
        out.resize_with(n, EncodedTile::default);
        out
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        drop(self.send.take());
        // Errors were reported by whoever caused the early drop.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn write(
    mut writer: Box<PackageWriter>,
    receive: &Receiver<Message>,
    give_back: &Sender<Vec<EncodedTile>>,
) -> Result<Box<PackageWriter>> {
    for message in receive {
        let _phase = tracing::debug_span!("writing").entered();
        match message {
            Message::Begin { tensor, tiling } => writer.begin_tensor(tensor, tiling)?,
            Message::Tiles(tiles) => {
                writer.push(&tiles)?;
                // The receiver may be gone by now; then the memory is simply freed.
                let _ = give_back.send(tiles);
            }
            Message::Abort => writer.abort_tensor()?,
            Message::Open { name, reply } => {
                // Whoever asked may be gone.
                let _ = reply.send(writer.open_finished(&name));
            }
            Message::Finish { side, digest, codec, parameters, facts } => {
                writer.finish_tensor(&side, digest, &codec, &parameters, facts)?;
            }
        }
    }
    // What is finished is proven even if the encoder stopped in the middle of a tensor.
    writer.checkpoint()?;
    Ok(writer)
}
