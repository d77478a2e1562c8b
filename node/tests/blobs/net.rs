//! Stores that reach each other over pipes in memory, with faults to order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crdt::ids::{JobId, NodeId};
use node::blobs::{Blobs, BlobsConfig, BoxFuture, BoxedStream, DialError, Dialer, Pin};
use rand::RngExt;
use rand::SeedableRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) const MIB: u64 = 1024 * 1024;

pub(crate) fn bytes_of(seed: u64, len: u64) -> bytes::Bytes {
    let mut bytes = vec![0; usize::try_from(len).expect("fits")];
    rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes.into()
}

pub(crate) fn job(n: u8) -> Pin {
    Pin::job(JobId([n; 16]))
}

pub(crate) fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

pub(crate) async fn open(dir: &std::path::Path) -> Blobs {
    open_with(dir, 1 << 40).await
}

pub(crate) async fn open_with(dir: &std::path::Path, quota_bytes: u64) -> Blobs {
    let opened = Blobs::open(dir, BlobsConfig { quota_bytes }).await.expect("opens");
    assert!(!opened.recovered);
    opened.blobs
}

/// What the way from a holder does to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The holder is away once this many bytes have come from it in all.
    DiesAfter(u64),
    /// The byte at this place of each answer is changed.
    Flips(u64),
    /// The size that it announces is changed.
    Lies,
    /// It opens streams and says nothing.
    Mute,
}

struct Holder {
    blobs: Blobs,
    fault: Fault,
    sent: Arc<AtomicU64>,
    asked: Arc<AtomicU64>,
}

/// The network as one node sees it.
#[derive(Clone, Default)]
pub(crate) struct Net {
    holders: Arc<Mutex<BTreeMap<NodeId, Holder>>>,
}

impl Net {
    pub(crate) fn add(&self, node: NodeId, blobs: &Blobs, fault: Fault) {
        let holder = Holder { blobs: blobs.clone(), fault, sent: Arc::default(), asked: Arc::default() };
        self.holders.lock().expect("unpoisoned").insert(node, holder);
    }

    /// Bytes that have come from a holder since it was added.
    pub(crate) fn sent(&self, node: NodeId) -> u64 {
        self.holders.lock().expect("unpoisoned")[&node].sent.load(Ordering::SeqCst)
    }

    /// Streams that have been opened to a holder since it was added.
    pub(crate) fn asked(&self, node: NodeId) -> u64 {
        self.holders.lock().expect("unpoisoned")[&node].asked.load(Ordering::SeqCst)
    }
}

impl Dialer for Net {
    fn open(&self, node: NodeId) -> BoxFuture<'static, Result<BoxedStream, DialError>> {
        let holders = self.holders.lock().expect("unpoisoned");
        let Some(holder) = holders.get(&node) else {
            return Box::pin(async { Err(DialError("no such node".to_owned())) });
        };
        holder.asked.fetch_add(1, Ordering::SeqCst);
        let (blobs, fault, sent) = (holder.blobs.clone(), holder.fault, holder.sent.clone());
        Box::pin(async move {
            if matches!(fault, Fault::DiesAfter(max) if sent.load(Ordering::SeqCst) >= max) {
                return Err(DialError("it is away".to_owned()));
            }
            let (ours, way) = tokio::io::duplex(256 * 1024);
            let (far, theirs) = tokio::io::duplex(256 * 1024);
            if fault == Fault::Mute {
                std::mem::forget((way, theirs));
                return Ok(Box::new(ours) as BoxedStream);
            }
            tokio::spawn(async move { blobs.serve(Box::new(theirs), NodeId([0xee; 32])).await });
            tokio::spawn(relay(way, far, fault, sent));
            Ok(Box::new(ours) as BoxedStream)
        })
    }
}

async fn relay(
    way: tokio::io::DuplexStream,
    far: tokio::io::DuplexStream,
    fault: Fault,
    sent: Arc<AtomicU64>,
) -> std::io::Result<()> {
    let (mut from_asker, mut to_asker) = tokio::io::split(way);
    let (mut from_holder, mut to_holder) = tokio::io::split(far);
    let forth = async {
        tokio::io::copy(&mut from_asker, &mut to_holder).await?;
        to_holder.shutdown().await
    };
    let back = async {
        let mut buffer = vec![0; 64 * 1024];
        let mut at = 0_u64;
        loop {
            let read = from_holder.read(&mut buffer).await?;
            if read == 0 {
                break;
            }
            let flip = match fault {
                Fault::Flips(place) => Some(place),
                Fault::Lies => Some(3),
                Fault::None | Fault::DiesAfter(_) | Fault::Mute => None,
            };
            if let Some(place) = flip
                && (at..at + read as u64).contains(&place)
            {
                buffer[usize::try_from(place - at).expect("fits")] ^= 1;
            }
            at += read as u64;
            let all = sent.fetch_add(read as u64, Ordering::SeqCst) + read as u64;
            if matches!(fault, Fault::DiesAfter(max) if all >= max) {
                return Ok(());
            }
            to_asker.write_all(&buffer[..read]).await?;
        }
        to_asker.shutdown().await
    };
    tokio::select! {
        done = back => done,
        Err(error) = forth => Err(error),
    }
}
