//! A client of libp2p's own making, without any of V6's code between it and the node, that tries what it must not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crdt::ids::NodeId;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{StreamProtocol, SwarmBuilder, noise, tcp, yamux};
use libp2p_stream::{Control, OpenStreamError};
use node::net::{Proto, node_id_to_peer_id};

use crate::kit::{PATIENCE, Peer, id_of, start};

const MEMBERS_ONLY: [&str; 8] = [
    "/v6/ctl/1",
    "/v6/find/1",
    "/v6/copies/1",
    "/v6/blobs/1",
    "/v6/logs/1",
    "/meshsub/1.1.0",
    "/meshsub/1.2.0",
    "/ipfs/id/1.0.0",
];

/// A bare libp2p client with the key of this seed, connected to the node.
async fn client(seed: u8, node: &Peer) -> Control {
    let key = libp2p::identity::Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes are a seed");
    let mut swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .expect("transports")
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    let control = swarm.behaviour().new_control();
    swarm.dial(node.addrs().await[0].clone()).expect("an address");
    let (up, connected) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut up = Some(up);
        loop {
            if let libp2p::swarm::SwarmEvent::ConnectionEstablished { .. } = swarm.select_next_some().await
                && let Some(up) = up.take()
            {
                up.send(()).expect("the test waits");
            }
        }
    });
    tokio::time::timeout(PATIENCE, connected).await.expect("a connection in time").expect("a connection");
    control
}

async fn open(control: &mut Control, node: &Peer, name: &'static str) -> Result<libp2p::Stream, OpenStreamError> {
    let peer = node_id_to_peer_id(&node.id()).expect("a real key");
    let opened = control.open_stream(peer, StreamProtocol::new(name));
    tokio::time::timeout(PATIENCE, opened).await.expect("an answer in time")
}

/// Reads until the node ends or resets the stream.
async fn until_closed(stream: &mut libp2p::Stream) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    // A reset and an end are both a refusal.
    drop(read.expect("the node closes the stream"));
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat()
}

fn hello() -> Vec<u8> {
    framed(&crdt::cbor::encode(&std::collections::BTreeMap::from([("life", 1_u64)])))
}

async fn offences_reach(node: &Peer, wanted: u64) {
    let counted = async {
        while node.net.stats().offences < wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("the offence is counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_non_member_can_speak_the_join_protocol_and_nothing_else() {
    let node = start(1, &[id_of(1), id_of(2)], None);
    let mut stranger = client(66, &node).await;
    for name in MEMBERS_ONLY {
        let refused = open(&mut stranger, &node, name).await;
        assert!(matches!(refused, Err(OpenStreamError::UnsupportedProtocol(_))), "{name}: {refused:?}");
    }
    open(&mut stranger, &node, "/v6/join/1").await.expect("the join protocol answers");
    // The control: the same client with a member's key is answered.
    let mut member = client(2, &node).await;
    for name in ["/v6/find/1", "/v6/blobs/1", "/v6/logs/1", "/v6/copies/1"] {
        open(&mut member, &node, name).await.expect("a member is answered");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_has_not_greeted_gets_no_gossip_and_a_revoked_one_nothing() {
    let node = start(1, &[id_of(1), id_of(2)], None);
    let mut member = client(2, &node).await;
    let refused = open(&mut member, &node, "/meshsub/1.1.0").await;
    assert!(matches!(refused, Err(OpenStreamError::UnsupportedProtocol(_))), "{refused:?}");
    let mut repair = open(&mut member, &node, "/v6/find/1").await.expect("a member is answered");
    node.net.set_members(Arc::new(BTreeSet::from([node.id()])));
    until_closed(&mut repair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_control_stream_is_refused_and_counted() {
    let mut node = start(1, &[id_of(1), id_of(2)], None);
    let greeting_too_long = framed(&[0; 4_096]);
    let greeting_of_garbage = framed(b"\xff\xff\xff");
    let frame_too_long = [hello(), u32::MAX.to_be_bytes().to_vec()].concat();
    let frame_without_number = [hello(), framed(b"short")].concat();
    let cases = [greeting_too_long, greeting_of_garbage, frame_too_long, frame_without_number];
    for (at, bytes) in cases.into_iter().enumerate() {
        let mut member = client(2, &node).await;
        let mut ctl = open(&mut member, &node, "/v6/ctl/1").await.expect("a member is answered");
        ctl.write_all(&bytes).await.expect("an open stream");
        ctl.flush().await.expect("an open stream");
        until_closed(&mut ctl).await;
        offences_reach(&node, at as u64 + 1).await;
    }
    works_for(&mut node, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_gossip_and_identify_leaves_the_node_unharmed() {
    let mut node = start(1, &[id_of(1), id_of(2)], None);
    for name in ["/meshsub/1.1.0", "/ipfs/id/push/1.0.0"] {
        let mut member = client(2, &node).await;
        // gossipsub stops listening to a peer that does not listen to it.
        let versions = ["/meshsub/1.0.0", "/meshsub/1.1.0", "/meshsub/1.2.0", "/meshsub/1.3.0"];
        let ears = versions.map(|version| member.accept(StreamProtocol::new(version)).expect("not accepted yet"));
        let mut ctl = open(&mut member, &node, "/v6/ctl/1").await.expect("a member is answered");
        ctl.write_all(&hello()).await.expect("an open stream");
        ctl.flush().await.expect("an open stream");
        let mut greeting = [0; 4];
        ctl.read_exact(&mut greeting).await.expect("the node greets");
        let mut stream = open(&mut member, &node, name).await.expect("open to a member that has greeted");
        for bytes in [vec![0xff; 64], vec![0; 100 << 10]] {
            // The node may have reset the stream already.
            drop(stream.write_all(&bytes).await);
        }
        drop(stream.flush().await);
        until_closed(&mut stream).await;
        drop(ears);
    }
    works_for(&mut node, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversized_or_too_frequent_request_to_join_is_refused() {
    let node = start(1, &[id_of(1)], None);
    let mut stranger = client(66, &node).await;
    let mut large = open(&mut stranger, &node, "/v6/join/1").await.expect("the join protocol answers");
    large.write_all(&u32::MAX.to_be_bytes()).await.expect("an open stream");
    large.flush().await.expect("an open stream");
    until_closed(&mut large).await;
    for _ in 0..40 {
        let mut stream = open(&mut stranger, &node, "/v6/join/1").await.expect("the join protocol answers");
        // Refused streams may be reset before the write.
        drop(stream.write_all(&u32::MAX.to_be_bytes()).await);
        drop(stream.flush().await);
        until_closed(&mut stream).await;
    }
    assert_eq!(node.net.stats().joins_refused, 41);
}

/// The node still serves an honest member of this seed.
async fn works_for(node: &mut Peer, seed: u8) {
    let ids: Vec<NodeId> = vec![node.id(), id_of(seed)];
    let mut honest = start(seed, &ids, None);
    honest.net.add_addrs(node.id(), node.addrs().await).await;
    honest.connected_to(&ids).await;
    honest.net.send(node.id(), Bytes::from_static(b"still there?")).expect("connected");
    assert_eq!(node.message().await.1, "still there?");
    honest.net.open_stream(node.id(), Proto::Find).await.expect("an honest member is answered");
}
