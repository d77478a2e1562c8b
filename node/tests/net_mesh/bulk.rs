//! Bulk apart from control.

use std::time::{Duration, Instant};

use bytes::Bytes;
use node::net::Proto;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::kit::{Peer, mesh_of};

/// Round trips of a control frame, sorted; the peer's task echoes.
async fn round_trips(node: &mut Peer, other: crdt::ids::NodeId, count: usize) -> Vec<Duration> {
    let mut trips = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        node.net.send(other, Bytes::from_static(b"ping")).expect("connected");
        node.message().await;
        trips.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    trips.sort_unstable();
    trips
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures time; run it alone on an idle machine"]
async fn control_frames_do_not_wait_behind_a_bulk_transfer() {
    const BYTES: u64 = 512 << 20;
    let mut nodes = mesh_of(2).await;
    let (mut far, mut near) = (nodes.pop().expect("two nodes"), nodes.pop().expect("two nodes"));
    let far_id = far.id();
    tokio::spawn(async move {
        loop {
            #[allow(
                clippy::wildcard_enum_match_arm,
                reason = "NetEvent is non-exhaustive; the rest is of no interest here"
            )]
            match far.event().await {
                node::net::NetEvent::Message { from, bytes } => drop(far.net.send(from, bytes)),
                node::net::NetEvent::Stream { mut stream, .. } => drop(tokio::spawn(async move {
                    let chunk = vec![7; 64 << 10];
                    for _ in 0..BYTES / chunk.len() as u64 {
                        stream.write_all(&chunk).await.expect("the reader reads");
                    }
                    stream.shutdown().await.expect("the reader reads");
                })),
                _ => {}
            }
        }
    });
    let idle = round_trips(&mut near, far_id, 500).await;
    let mut stream = near.net.open_stream(far_id, Proto::Blobs).await.expect("a bulk stream");
    let reading = tokio::spawn(async move {
        let start = Instant::now();
        let mut buffer = vec![0; 256 << 10];
        let mut got = 0_u64;
        loop {
            match stream.read(&mut buffer).await.expect("the writer writes") {
                0 => return (got, start.elapsed()),
                read => got += read as u64,
            }
        }
    });
    let busy = round_trips(&mut near, far_id, 300).await;
    let (got, took) = reading.await.expect("no panic");
    assert_eq!(got, BYTES);
    let at = |trips: &[Duration], percent: usize| trips[(trips.len() - 1) * percent / 100];
    println!("control, idle: median {:?}, p99 {:?}", at(&idle, 50), at(&idle, 99));
    println!("control, bulk: median {:?}, p99 {:?}", at(&busy, 50), at(&busy, 99));
    println!("bulk: {:.0} MB/s", got as f64 / 1e6 / took.as_secs_f64());
}
