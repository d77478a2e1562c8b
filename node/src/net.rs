//! The network: one task owns the libp2p swarm, everybody else holds a [`NetHandle`] and one receiver of [`NetEvent`]s.
//!
//! Who may speak is decided here and only here: members by their key, non-members through the join protocol. What is said
//! is not looked at. Control frames, gossip and bulk streams travel apart: a bulk stream has a connection of its own, so
//! that a control frame never waits behind an artifact. Paths are direct; [`Path::Relayed`] is where a relay's connection
//! will be told apart.
//!
//! ```text
//! NetHandle::send ──► outbox of the peer ──► writer ──► /v6/ctl/1 ─┐
//! NetHandle::gossip ─► service task (swarm) ─► gossipsub ──────────┼─► control connection of a member
//! open_stream(Find, Logs, Copies) ─► /v6/find/1, /v6/logs/1, … ─┘
//! open_stream(Blobs) ────────► /v6/blobs/1 ────────────────────────► bulk connection, closed when idle
//! join_request ──────────────► /v6/join/1 ─────────────────────────► any connection, at most 30 s old
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use bytes::Bytes;
use crdt::ids::{MeshId, NodeId};
use libp2p::identity::{Keypair, PublicKey, ed25519};
use libp2p::multihash::Multihash;
use tokio::sync::{mpsc, oneshot, watch};

mod book;
mod control;
mod gate;
mod gossip;
mod limits;
mod rate;
mod service;
mod stream;
mod wire;

pub use libp2p::{Multiaddr, PeerId};
pub use stream::NetStream;

use control::Outbox;
use service::Command;
use wire::{Opened, Wired};

/// How to start.
#[derive(Debug, Clone)]
pub struct NetConfig {
    /// The node's Ed25519 seed.
    pub seed: [u8; 32],
    /// Where to listen; empty for any free TCP and QUIC port of every interface.
    pub listen: Vec<Multiaddr>,
    /// Where a port of `listen` is taken, listen on a free one instead.
    pub any_port: bool,
    /// Whether to look for peers on the LAN by multicast.
    pub mdns: bool,
    /// Addresses remembered from an earlier run.
    pub known: Vec<(NodeId, Vec<Multiaddr>)>,
    /// Who is a member, this node included; empty before a mesh is joined.
    pub members: Arc<BTreeSet<NodeId>>,
    /// The mesh, once it is known: names the gossip topic.
    pub mesh: Option<MeshId>,
}

/// Why the network did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The transports cannot be set up.
    #[error("the network cannot be set up: {0}")]
    Transport(String),
    /// None of the addresses can be listened on.
    #[error("cannot listen on {addr}: {reason}; free the port or choose another with --listen")]
    Listen {
        /// The first address that was refused.
        addr: Multiaddr,
        /// What the system answered.
        reason: String,
    },
}

/// Why a frame was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The peer is not connected, and no dial is under way or possible at this moment.
    #[error("the peer is not connected")]
    NotConnected,
    /// The peer's queue is full; this frame was not queued.
    #[error("the queue to the peer is full")]
    Full,
    /// The frame is longer than [`MESSAGE_BYTES_MAX`].
    #[error("a message of {bytes} bytes, at most {MESSAGE_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
}

/// Longest control message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = limits::CTL_FRAME_BYTES_MAX - 8;
/// Longest gossip message, in bytes.
pub const GOSSIP_BYTES_MAX: usize = limits::GOSSIP_BYTES_MAX;

/// Why a message was not gossiped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GossipError {
    /// The message is longer than [`GOSSIP_BYTES_MAX`]: announce it and let others fetch it.
    #[error("a gossip message of {bytes} bytes, at most {GOSSIP_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The network task is behind; this message was not queued.
    #[error("the network task is behind")]
    Full,
}

/// Why a stream could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The node is no member.
    #[error("the node is no member of this mesh")]
    NotMember,
    /// The peer cannot be reached.
    #[error("the peer cannot be reached")]
    NotConnected,
    /// The peer does not answer this protocol: to it, we are no member.
    #[error("the peer refused the protocol")]
    Refused,
    /// The peer took too long.
    #[error("the peer took too long")]
    Timeout,
    /// The connection broke.
    #[error("the connection broke")]
    Closed,
}

/// Why a request to join got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// No address led to an expected node.
    #[error("none of the ticket's addresses answers")]
    Unreachable,
    /// A node was there and did not answer the request.
    #[error("the mesh did not answer the request to join: {0}")]
    NoAnswer(String),
    /// The request is too long, in bytes.
    #[error("a request of {0} bytes is too long")]
    TooLarge(usize),
}

/// A protocol whose streams the node opens itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proto {
    /// Whether the receiver holds a blob.
    Find,
    /// Blobs: the streams have a connection of their own.
    Blobs,
    /// Logs that are followed.
    Logs,
    /// Files that the receiver is asked to hold.
    Copies,
}

impl Proto {
    const fn wired(self) -> Wired {
        match self {
            Self::Find => Wired::Find,
            Self::Blobs => Wired::Blobs,
            Self::Logs => Wired::Logs,
            Self::Copies => Wired::Copies,
        }
    }
}

/// How a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// By a connection of its own.
    Direct,
    /// Through another member.
    Relayed,
}

/// A gossip message's name, needed to report what its content is worth.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GossipId {
    id: Vec<u8>,
    via: NodeId,
}

/// What the content of a gossip message is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Pass it on.
    Accept,
    /// It breaks a rule: not passed on, and counted against the peer.
    Reject,
    /// Not passed on, nobody's fault.
    Ignore,
}

/// What happens on the network.
#[derive(Debug)]
#[non_exhaustive]
pub enum NetEvent {
    /// This node can be reached at this address.
    Listening(Multiaddr),
    /// A member's control channel is up.
    Connected {
        /// The member.
        node: NodeId,
        /// Its end of the connection.
        addr: Multiaddr,
        /// How it is reached.
        path: Path,
    },
    /// A member's last control connection is gone; frames that waited are dropped.
    Disconnected {
        /// The member.
        node: NodeId,
    },
    /// A ping came back.
    Rtt {
        /// The member.
        node: NodeId,
        /// Round trip in microseconds.
        micros: u64,
    },
    /// A member can be dialled at these addresses, too: worth remembering.
    AddrsLearned {
        /// The member.
        node: NodeId,
        /// The addresses that were not known.
        addrs: Vec<Multiaddr>,
    },
    /// A control frame.
    Message {
        /// The member that sent it.
        from: NodeId,
        /// The frame.
        bytes: Bytes,
    },
    /// A gossip message. It is passed on only after [`NetHandle::report`]; its author is what its content proves.
    Gossip {
        /// The member that passed it on.
        via: NodeId,
        /// The message.
        bytes: Bytes,
        /// For the report.
        id: GossipId,
    },
    /// A member opened a stream.
    Stream {
        /// The member.
        from: NodeId,
        /// What for.
        proto: Proto,
        /// The stream.
        stream: NetStream,
    },
    /// Somebody, mostly a non-member, asks to join. Dropping `reply` refuses without a word.
    Join {
        /// Who asks: proven by the connection.
        from: NodeId,
        /// From where.
        addr: Multiaddr,
        /// The request, at most 64 KiB.
        request: Bytes,
        /// For the answer, at most 1 MiB.
        reply: oneshot::Sender<Bytes>,
    },
}

/// What is known of a member.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerInfo {
    /// The member.
    pub node: NodeId,
    /// Where it can be dialled, the address that worked last first.
    pub addrs: Vec<Multiaddr>,
    /// Whether its control channel is up.
    pub connected: bool,
    /// How it is reached, while it is connected.
    pub path: Option<Path>,
    /// Last round trip in milliseconds.
    pub rtt_ms: Option<f64>,
}

/// Counts of what was refused or dropped since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) offences: AtomicU64,
    pub(crate) gossip_dropped: AtomicU64,
    pub(crate) gossip_rejected: AtomicU64,
    pub(crate) streams_dropped: AtomicU64,
    pub(crate) joins_refused: AtomicU64,
    pub(crate) guests_closed: AtomicU64,
}

/// What was refused or dropped since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetStats {
    /// Control streams closed because the peer broke the protocol: oversized, malformed, unnumbered.
    pub offences: u64,
    /// Gossip messages dropped because the node was behind.
    pub gossip_dropped: u64,
    /// Gossip messages whose content was rejected.
    pub gossip_rejected: u64,
    /// Streams dropped at a bound.
    pub streams_dropped: u64,
    /// Requests to join refused unread: malformed, too many, too large.
    pub joins_refused: u64,
    /// Connections closed because they were neither control nor bulk for too long.
    pub guests_closed: u64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What the handle and the service share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) me: NodeId,
    pub(crate) outboxes: RwLock<BTreeMap<NodeId, Arc<Outbox>>>,
    pub(crate) peers: Mutex<BTreeMap<NodeId, PeerInfo>>,
    pub(crate) listening: Mutex<BTreeSet<Multiaddr>>,
    pub(crate) counters: Counters,
}

/// Speaks to the network task. Clones are cheap; the network stops when the last one is dropped.
#[derive(Debug, Clone)]
pub struct NetHandle {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    members: watch::Sender<Arc<BTreeSet<NodeId>>>,
}

impl NetHandle {
    /// Starts the network on the current tokio runtime.
    ///
    /// # Errors
    /// When no transport can be set up, or none of the addresses can be listened on. One that can is enough.
    pub fn start(config: NetConfig) -> Result<(Self, mpsc::Receiver<NetEvent>), NetError> {
        service::start(config)
    }

    /// This node.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.shared.me
    }

    /// Says who is a member. Who is no longer one is disconnected at once; who became one is dialled.
    pub fn set_members(&self, members: Arc<BTreeSet<NodeId>>) {
        self.members.send_replace(members);
    }

    /// Names the mesh whose gossip this node takes part in.
    pub async fn set_mesh(&self, mesh: MeshId) {
        // A failure means that the network has stopped, which its owner has asked for.
        drop(self.commands.send(Command::SetMesh(mesh)).await);
    }

    /// Sends a control frame: in order, at most once, never waiting. To a member that is not connected but may be
    /// reachable, a dial is begun and the frame waits for it.
    ///
    /// # Errors
    /// The frame was not queued; see [`SendError`].
    pub fn send(&self, to: NodeId, bytes: Bytes) -> Result<(), SendError> {
        let outboxes = self.shared.outboxes.read().expect("no holder of this lock panics");
        let outbox = outboxes.get(&to).ok_or(SendError::NotConnected)?;
        if outbox.push(bytes)? && self.commands.try_send(Command::Dial(to)).is_err() {
            outbox.set_phase(control::Phase::Dialable);
            return Err(SendError::Full);
        }
        Ok(())
    }

    /// Gossips a message to every member that is reached. The same bytes within a minute are the same message.
    ///
    /// # Errors
    /// The message was not queued; see [`GossipError`].
    pub fn gossip(&self, bytes: Bytes) -> Result<(), GossipError> {
        if bytes.len() > GOSSIP_BYTES_MAX {
            return Err(GossipError::TooLarge { bytes: bytes.len() });
        }
        self.commands.try_send(Command::Gossip(bytes)).map_err(|_| GossipError::Full)
    }

    /// Says what a gossip message is worth, within some 10 s of its arrival; without a report it is not passed on.
    pub fn report(&self, id: GossipId, verdict: Verdict) {
        if self.commands.try_send(Command::Report(id, verdict)).is_err() {
            count(&self.shared.counters.gossip_dropped);
        }
    }

    /// Opens a stream to a member, dialling it if need be. The peer sees it as [`NetEvent::Stream`].
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_stream(&self, to: NodeId, proto: Proto) -> Result<NetStream, OpenError> {
        let (reply, opened) = oneshot::channel::<Opened>();
        let sent = self.commands.send(Command::Open(to, proto.wired(), reply)).await;
        sent.map_err(|_| OpenError::Closed)?;
        let limit = 2 * limits::STREAM_OPEN_TIMEOUT;
        let opened = tokio::time::timeout(limit, opened).await.map_err(|_| OpenError::Timeout)?;
        Ok(NetStream::new(opened.map_err(|_| OpenError::Closed)??))
    }

    /// Asks to join: dials the addresses, and whichever of the `expected` nodes is there first gets the request (anyone,
    /// if none is named). Without a usable answer the next one gets it.
    ///
    /// # Errors
    /// When nobody answered within 14 s; see [`JoinError`].
    pub async fn join_request(
        &self,
        addrs: Vec<Multiaddr>,
        expected: Vec<NodeId>,
        request: Bytes,
    ) -> Result<Bytes, JoinError> {
        if request.len() > limits::JOIN_REQUEST_BYTES_MAX {
            return Err(JoinError::TooLarge(request.len()));
        }
        let (reply, answer) = oneshot::channel();
        let stopped = || JoinError::NoAnswer("the network has stopped".into());
        let command = Command::Join { addrs, expected, request, reply };
        self.commands.send(command).await.map_err(|_| stopped())?;
        let limit = limits::JOIN_TIMEOUT + Duration::from_secs(4);
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer.map_err(|_| stopped())?,
            Err(_) => Err(JoinError::NoAnswer("it took too long".into())),
        }
    }

    /// Adds addresses of a member; of others they are ignored.
    pub async fn add_addrs(&self, node: NodeId, addrs: Vec<Multiaddr>) {
        // A failure means that the network has stopped, which its owner has asked for.
        drop(self.commands.send(Command::AddAddrs(node, addrs)).await);
    }

    /// Every other member, in the order of their ids.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerInfo> {
        lock(&self.shared.peers).values().cloned().collect()
    }

    /// What to listen on at the next start: the same ports, and every interface where that was asked for, for a PC gets
    /// other addresses over time.
    #[must_use]
    pub fn listen_again(&self, asked: &[Multiaddr]) -> Vec<Multiaddr> {
        let every: Vec<Multiaddr> =
            asked.iter().filter(|addr| **addr == book::on_every_interface(addr)).cloned().collect();
        let shape = |addr: &Multiaddr| book::with_any_port(&book::on_every_interface(addr));
        let again = |addr: Multiaddr| {
            let is_every = asked.is_empty() || every.iter().any(|every| shape(every) == shape(&addr));
            if is_every { book::on_every_interface(&addr) } else { addr }
        };
        let again: BTreeSet<Multiaddr> = self.listen_addrs().into_iter().map(again).collect();
        again.into_iter().collect()
    }

    /// Where this node listens, as far as the system has told.
    #[must_use]
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        lock(&self.shared.listening).iter().cloned().collect()
    }

    /// What was refused or dropped since the start.
    #[must_use]
    pub fn stats(&self) -> NetStats {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NetStats {
            offences: read(&counters.offences),
            gossip_dropped: read(&counters.gossip_dropped),
            gossip_rejected: read(&counters.gossip_rejected),
            streams_dropped: read(&counters.streams_dropped),
            joins_refused: read(&counters.joins_refused),
            guests_closed: read(&counters.guests_closed),
        }
    }

    /// Closes every connection and stops; returns when it is done.
    pub async fn shutdown(&self) {
        let (done, stopped) = oneshot::channel();
        if self.commands.send(Command::Stop(done)).await.is_ok() {
            // The sender is dropped when the task has ended, which is as good as an answer.
            drop(stopped.await);
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

/// The libp2p name of a node.
///
/// # Errors
/// When the id is no point of the curve, so that no node can have it.
pub fn node_id_to_peer_id(node: &NodeId) -> Result<PeerId, io::Error> {
    let key = ed25519::PublicKey::try_from_bytes(node.as_bytes()).map_err(io::Error::other)?;
    Ok(PublicKey::from(key).to_peer_id())
}

/// The node behind a libp2p name; `None` where its key is not Ed25519.
#[must_use]
pub fn peer_id_to_node_id(peer: &PeerId) -> Option<NodeId> {
    const IDENTITY_CODE: u64 = 0;
    let hash: &Multihash<64> = peer.as_ref();
    if hash.code() != IDENTITY_CODE {
        return None;
    }
    let key = PublicKey::try_decode_protobuf(hash.digest()).ok()?.try_into_ed25519().ok()?;
    Some(NodeId(key.to_bytes()))
}

/// The libp2p key of a seed.
fn keypair(mut seed: [u8; 32]) -> Keypair {
    let secret = ed25519::SecretKey::try_from_bytes(&mut seed).expect("32 bytes are a seed");
    Keypair::from(ed25519::Keypair::from(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_and_its_libp2p_name_are_one() {
        let peer = keypair([7; 32]).public().to_peer_id();
        let node = peer_id_to_node_id(&peer).expect("an Ed25519 key");
        assert_eq!(node_id_to_peer_id(&node).expect("a point of the curve"), peer);
    }

    #[test]
    fn a_key_that_is_not_ed25519_is_no_node() {
        assert_eq!(peer_id_to_node_id(&PeerId::random()), None);
    }
}
