//! Nodes over real loopback sockets: control frames, gossip, streams, joining, restarts.

#[path = "net_mesh/bulk.rs"]
mod bulk;
#[path = "net_mesh/hostile.rs"]
mod hostile;
#[path = "net_mesh/kit.rs"]
mod kit;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use kit::{Peer, connected, mesh_of, start};
use node::net::{JoinError, NetEvent, Proto, SendError, Verdict};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_exchange_frames_in_order() {
    let mut nodes = mesh_of(3).await;
    let ids: Vec<_> = nodes.iter().map(Peer::id).collect();
    for (at, node) in nodes.iter().enumerate() {
        for to in ids.iter().filter(|id| **id != ids[at]) {
            for n in 0..500_u32 {
                node.net.send(*to, Bytes::copy_from_slice(&n.to_be_bytes())).expect("room for 500 frames");
            }
        }
    }
    for node in &mut nodes {
        let mut next = std::collections::BTreeMap::new();
        for _ in 0..1_000 {
            let (from, bytes) = node.message().await;
            let next = next.entry(from).or_insert(0_u32);
            assert_eq!(bytes.as_ref(), next.to_be_bytes());
            *next += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_reaches_all_five_nodes_without_loss() {
    const MESSAGES: usize = 2_000;
    let mut nodes = mesh_of(5).await;
    let (first, others) = nodes.split_first_mut().expect("five nodes");
    first.gossip_is_ready(others).await;
    for n in 0..MESSAGES {
        let mut bytes = vec![7; 512];
        bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
        nodes[0].net.gossip(bytes.into()).expect("room for the burst");
    }
    let listeners = nodes.drain(1..).map(|mut node| {
        tokio::spawn(async move {
            let mut seen = BTreeSet::new();
            while seen.len() < MESSAGES {
                if let NetEvent::Gossip { bytes, id, .. } = node.event().await {
                    node.net.report(id, Verdict::Accept);
                    if bytes.len() == 512 {
                        seen.insert(bytes);
                    }
                }
            }
        })
    });
    for listener in listeners.collect::<Vec<_>>() {
        listener.await.expect("every message arrives");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_each_protocol_carry_bytes_both_ways() {
    let mut nodes = mesh_of(2).await;
    for proto in [Proto::Find, Proto::Logs, Proto::Copies, Proto::Blobs] {
        let mut ours = nodes[0].net.open_stream(nodes[1].id(), proto).await.expect("a member's stream");
        ours.write_all(b"ask").await.expect("an open stream");
        ours.shutdown().await.expect("an open stream");
        let (from, seen, mut theirs) = nodes[1].stream().await;
        assert_eq!((from, seen), (nodes[0].id(), proto));
        let mut text = String::new();
        theirs.read_to_string(&mut text).await.expect("what was written");
        theirs.write_all(format!("{text}ed").as_bytes()).await.expect("an open stream");
        theirs.shutdown().await.expect("an open stream");
        let mut answer = String::new();
        ours.read_to_string(&mut answer).await.expect("what was written");
        assert_eq!(answer, "asked");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_asks_is_admitted_and_then_speaks_as_a_member() {
    let (mut host, mut joiner) = (start(1, &[], None), start(2, &[], None));
    host.net.set_members(Arc::new(BTreeSet::from([host.id()])));
    let addrs = host.addrs().await;
    let asked = {
        let net = joiner.net.clone();
        let expected = vec![host.id()];
        tokio::spawn(async move { net.join_request(addrs, expected, Bytes::from_static(b"let me in")).await })
    };
    let both = Arc::new(BTreeSet::from([host.id(), joiner.id()]));
    loop {
        if let NetEvent::Join { from, request, reply, .. } = host.event().await {
            assert_eq!((from, request.as_ref()), (joiner.id(), b"let me in".as_slice()));
            host.net.set_members(Arc::clone(&both));
            reply.send(Bytes::from_static(b"welcome")).expect("the joiner waits");
            break;
        }
    }
    assert_eq!(asked.await.expect("no panic"), Ok(Bytes::from_static(b"welcome")));
    joiner.net.set_members(both);
    connected(&mut joiner, &host).await;
    joiner.net.send(host.id(), Bytes::from_static(b"hello")).expect("connected");
    assert_eq!(host.message().await, (joiner.id(), Bytes::from_static(b"hello")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_to_join_that_nobody_answers_ends_with_a_reason() {
    let (host, other) = (start(1, &[], None), start(2, &[], None));
    let joiner = start(3, &[], None);
    let ask = |addrs, expected| joiner.net.join_request(addrs, expected, Bytes::new());
    assert_eq!(ask(vec![], vec![host.id()]).await, Err(JoinError::Unreachable));
    assert_eq!(ask(host.addrs().await, vec![other.id()]).await, Err(JoinError::Unreachable));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_find_each_other_after_every_order_of_restarts() {
    let mut nodes = mesh_of(3).await;
    let ids: Vec<_> = nodes.iter().map(Peer::id).collect();
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut kept = Vec::new();
        for node in &nodes {
            kept.push(node.remember());
            node.net.shutdown().await;
        }
        drop(nodes);
        let mut again: Vec<Option<Peer>> = (0..3).map(|_| None).collect();
        for at in order {
            again[at] = Some(kept[at].start());
        }
        nodes = again.into_iter().flatten().collect();
        for node in &mut nodes {
            node.connected_to(&ids).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_member_is_disconnected_at_once() {
    let mut nodes = mesh_of(3).await;
    let gone = nodes[2].id();
    let rest = Arc::new(BTreeSet::from([nodes[0].id(), nodes[1].id()]));
    nodes[0].net.set_members(Arc::clone(&rest));
    nodes[0].disconnected(gone).await;
    let me = nodes[0].id();
    nodes[2].disconnected(me).await;
    assert_eq!(nodes[0].net.send(gone, Bytes::new()), Err(SendError::NotConnected));
    assert!(nodes[2].net.open_stream(me, Proto::Find).await.is_err());
}
