//! Nodes for tests: real sockets on loopback, events awaited with a limit.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crdt::ids::{MeshId, NodeId};
use node::net::{Multiaddr, NetConfig, NetEvent, NetHandle, NetStream, Proto, Verdict, node_id_to_peer_id};
use tokio::sync::mpsc;

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A node under test.
pub(crate) struct Peer {
    pub(crate) net: NetHandle,
    pub(crate) events: mpsc::Receiver<NetEvent>,
    seed: u8,
    members: Vec<NodeId>,
    /// Members that the events have shown as connected.
    up: BTreeSet<NodeId>,
}

/// What a node needs to start again as itself.
pub(crate) struct Remembered {
    seed: u8,
    listen: Vec<Multiaddr>,
    members: Vec<NodeId>,
    known: Vec<(NodeId, Vec<Multiaddr>)>,
}

impl Remembered {
    pub(crate) fn start(&self) -> Peer {
        let config = NetConfig {
            seed: [self.seed; 32],
            listen: self.listen.clone(),
            any_port: false,
            mdns: false,
            known: self.known.clone(),
            members: Arc::new(self.members.iter().copied().collect()),
            mesh: Some(MeshId([9; 32])),
        };
        let (net, events) = NetHandle::start(config).expect("loopback can be listened on");
        Peer { net, events, seed: self.seed, members: self.members.clone(), up: BTreeSet::new() }
    }
}

/// Starts a node on a free TCP port of loopback.
pub(crate) fn start(seed: u8, members: &[NodeId], listen: Option<Vec<Multiaddr>>) -> Peer {
    let tcp = || vec![Multiaddr::from(Ipv4Addr::LOCALHOST).with(libp2p::multiaddr::Protocol::Tcp(0))];
    let listen = listen.unwrap_or_else(tcp);
    Remembered { seed, listen, members: members.to_vec(), known: Vec::new() }.start()
}

/// The node that a seed of `start` gives.
pub(crate) fn id_of(seed: u8) -> NodeId {
    NodeId(ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes())
}

/// Nodes that know each other, all connected.
pub(crate) async fn mesh_of(size: u8) -> Vec<Peer> {
    mesh_on(size, || None).await
}

/// The same, listening where `listen` says.
pub(crate) async fn mesh_on(size: u8, listen: impl Fn() -> Option<Vec<Multiaddr>>) -> Vec<Peer> {
    let ids: Vec<NodeId> = (1..=size).map(id_of).collect();
    let mut nodes: Vec<Peer> = (1..=size).map(|seed| start(seed, &ids, listen())).collect();
    for at in 0..nodes.len() {
        let addrs = nodes[at].addrs().await;
        for other in nodes.iter().skip(at + 1) {
            other.net.add_addrs(nodes[at].id(), addrs.clone()).await;
        }
    }
    for node in &mut nodes {
        node.connected_to(&ids).await;
    }
    nodes
}

/// Waits until one node is connected to the other.
pub(crate) async fn connected(node: &mut Peer, other: &Peer) {
    node.connected_to(&[other.id()]).await;
}

impl Peer {
    pub(crate) fn id(&self) -> NodeId {
        self.net.node_id()
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> NetEvent {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        let event = event.expect("an event in time").expect("the network runs");
        if let NetEvent::Connected { node, .. } = &event {
            self.up.insert(*node);
        }
        if let NetEvent::Disconnected { node } = &event {
            self.up.remove(node);
        }
        event
    }

    pub(crate) async fn message(&mut self) -> (NodeId, Bytes) {
        loop {
            if let NetEvent::Message { from, bytes } = self.event().await {
                return (from, bytes);
            }
        }
    }

    pub(crate) async fn stream(&mut self) -> (NodeId, Proto, NetStream) {
        loop {
            if let NetEvent::Stream { from, proto, stream } = self.event().await {
                return (from, proto, stream);
            }
        }
    }

    /// Waits until this node is connected to all of them (but itself).
    pub(crate) async fn connected_to(&mut self, nodes: &[NodeId]) {
        while !nodes.iter().all(|node| *node == self.id() || self.up.contains(node)) {
            self.event().await;
        }
    }

    pub(crate) async fn disconnected(&mut self, node: NodeId) {
        while self.up.contains(&node) {
            self.event().await;
        }
    }

    /// Where this node listens, with its name.
    pub(crate) async fn addrs(&self) -> Vec<Multiaddr> {
        let peer = node_id_to_peer_id(&self.id()).expect("a real key");
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let addrs = self.net.listen_addrs();
            if !addrs.is_empty() {
                return addrs.into_iter().map(|addr| addr.with(libp2p::multiaddr::Protocol::P2p(peer))).collect();
            }
            assert!(tokio::time::Instant::now() < until, "the node listens");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until what this node gossips arrives at each of the others: gossipsub grafts in its own time.
    pub(crate) async fn gossip_is_ready(&mut self, others: &mut [Peer]) {
        for other in others {
            let mut tries = 0_u32;
            loop {
                tries += 1;
                self.net.gossip(format!("probe {tries} for {}", other.id()).into()).expect("room for a probe");
                let seen = tokio::time::timeout(Duration::from_millis(100), async {
                    loop {
                        if let NetEvent::Gossip { id, .. } = other.event().await {
                            other.net.report(id, Verdict::Accept);
                            return;
                        }
                    }
                });
                if seen.await.is_ok() {
                    break;
                }
                assert!(tries < 100, "gossip arrives within ten seconds");
            }
        }
    }

    /// What the node would have on disk.
    pub(crate) fn remember(&self) -> Remembered {
        Remembered {
            seed: self.seed,
            listen: self.net.listen_addrs(),
            members: self.members.clone(),
            known: self.net.peers().into_iter().map(|peer| (peer.node, peer.addrs)).collect(),
        }
    }
}
