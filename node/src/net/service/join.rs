//! Joining, from both sides: one request, one answer, on a connection that can do nothing else until it is a member's.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crdt::ids::NodeId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::{Multiaddr, PeerId};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, oneshot};

use super::{Dial, Done, Service};
use crate::net::book;
use crate::net::limits::{
    JOIN_ADDRESSES_MAX, JOIN_REPLY_BYTES_MAX, JOIN_REQUEST_BYTES_MAX, JOIN_TARGETS_MAX, JOIN_TIMEOUT,
    JOINS_AT_ONCE_MAX, JOINS_PER_ADDRESS_PER_MIN,
};
use crate::net::rate::Bucket;
use crate::net::stream::{NetStream, read_frame, write_frame};
use crate::net::wire::{Opened, Wired};
use crate::net::{JoinError, NetEvent, count, node_id_to_peer_id};

/// One request to join that this node makes.
#[derive(Debug)]
struct Run {
    expected: Vec<NodeId>,
    request: Bytes,
    reply: oneshot::Sender<Result<Bytes, JoinError>>,
    /// Dials that have not ended.
    dials: usize,
    /// Connections that may be asked.
    ready: VecDeque<ConnectionId>,
    asking: bool,
    error: JoinError,
}

/// What joining needs to remember.
#[derive(Debug, Default)]
pub(super) struct Joins {
    next_run: u64,
    runs: BTreeMap<u64, Run>,
    /// Requests of others that wait for their answer.
    answering: usize,
    /// How often each address may still ask.
    addresses: BTreeMap<IpAddr, (Bucket, Instant)>,
}

impl Joins {
    fn may_ask(&mut self, addr: &Multiaddr, now: Instant) -> bool {
        let ip = match addr.iter().next() {
            Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
            Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
            Some(_) | None => return false,
        };
        if !self.addresses.contains_key(&ip) && self.addresses.len() >= JOIN_ADDRESSES_MAX {
            let oldest = self.addresses.iter().min_by_key(|(_, (_, at))| *at).map(|(ip, _)| *ip);
            oldest.and_then(|ip| self.addresses.remove(&ip));
        }
        let minute = Duration::from_secs(60);
        let fresh = || (Bucket::new(JOINS_PER_ADDRESS_PER_MIN, minute, now), now);
        let (bucket, at) = self.addresses.entry(ip).or_insert_with(fresh);
        *at = now;
        bucket.try_take(1, now)
    }
}

impl Service {
    pub(super) fn join(
        &mut self,
        addrs: Vec<Multiaddr>,
        expected: Vec<NodeId>,
        request: Bytes,
        reply: oneshot::Sender<Result<Bytes, JoinError>>,
    ) {
        let id = self.joins.next_run;
        self.joins.next_run += 1;
        let targets = self.join_targets(addrs, &expected);
        let error = JoinError::Unreachable;
        let run = Run { expected, request, reply, dials: 0, ready: VecDeque::new(), asking: false, error };
        self.joins.runs.insert(id, run);
        for opts in targets {
            let conn = opts.connection_id();
            self.dials.insert(conn, Dial::Join(id));
            match self.swarm.dial(opts) {
                Ok(()) => {
                    if let Some(run) = self.joins.runs.get_mut(&id) {
                        run.dials += 1;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "not dialled to join");
                    self.dials.remove(&conn);
                }
            }
        }
        self.ask_next(id);
    }

    /// One dial for each expected node, over all addresses that may be its own; without expected nodes one per address.
    fn join_targets(&self, addrs: Vec<Multiaddr>, expected: &[NodeId]) -> Vec<DialOpts> {
        let named = |addr: &Multiaddr| match addr.iter().last() {
            Some(Protocol::P2p(peer)) => Some(peer),
            Some(_) | None => None,
        };
        let addrs: Vec<(Option<PeerId>, Multiaddr)> = addrs
            .into_iter()
            .map(|addr| (named(&addr), book::bare(addr)))
            .filter(|(_, addr)| book::usable(addr))
            .take(JOIN_TARGETS_MAX)
            .collect();
        if expected.is_empty() {
            let opts = |addr| DialOpts::unknown_peer_id().address(addr).build();
            return addrs.into_iter().map(|(_, addr)| opts(addr)).collect();
        }
        let mut targets = Vec::new();
        for node in expected.iter().take(JOIN_TARGETS_MAX) {
            let Ok(peer) = node_id_to_peer_id(node) else { continue };
            let found = self.strangers.get(node).cloned().unwrap_or_default();
            let its =
                addrs.iter().filter(|(name, _)| name.is_none_or(|name| name == peer)).map(|(_, addr)| addr.clone());
            let its: Vec<Multiaddr> = its.chain(found).collect();
            if !its.is_empty() {
                let condition = libp2p::swarm::dial_opts::PeerCondition::Always;
                targets.push(DialOpts::peer_id(peer).addresses(its).condition(condition).build());
            }
        }
        targets
    }

    pub(super) fn on_join_dial_failed(&mut self, id: u64) {
        if let Some(run) = self.joins.runs.get_mut(&id) {
            run.dials = run.dials.saturating_sub(1);
            self.ask_next(id);
        }
    }

    pub(super) fn on_join_connected(&mut self, id: u64, conn: ConnectionId, node: NodeId) {
        let Some(run) = self.joins.runs.get_mut(&id) else {
            // Somebody else has answered already.
            self.swarm.close_connection(conn);
            return;
        };
        run.dials = run.dials.saturating_sub(1);
        if run.expected.is_empty() || run.expected.contains(&node) {
            run.ready.push_back(conn);
            // Should this connection break before the other is a member to us, it is dialled where it was reached.
            let addr = self.conns.get(&conn).map(|conn| conn.addr.clone());
            self.note_stranger(node, addr);
        } else {
            self.swarm.close_connection(conn);
        }
        self.ask_next(id);
    }

    /// Asks the next node that is connected; ends the run when there is none and none to come.
    fn ask_next(&mut self, id: u64) {
        let Some(run) = self.joins.runs.get_mut(&id) else { return };
        if run.asking {
            return;
        }
        let Some(conn) = run.ready.pop_front() else {
            if run.dials == 0
                && let Some(run) = self.joins.runs.remove(&id)
            {
                // Nobody waiting any more is fine.
                let _unheard = run.reply.send(Err(run.error));
            }
            return;
        };
        run.asking = true;
        let request = run.request.clone();
        let (reply, opened) = oneshot::channel();
        self.open_on(conn, Wired::Join, reply);
        self.tasks.spawn(async move {
            let asked = tokio::time::timeout(JOIN_TIMEOUT, ask(opened, request)).await;
            let late = || Err(JoinError::NoAnswer("it took too long".into()));
            Done::Joined(id, asked.unwrap_or_else(|_| late()))
        });
    }

    pub(super) fn on_joined(&mut self, id: u64, result: Result<Bytes, JoinError>) {
        self.joins.answering = self.joins.answering.saturating_sub(usize::from(id == ANSWERED));
        let Some(run) = self.joins.runs.get_mut(&id) else { return };
        run.asking = false;
        match result {
            Ok(answer) => {
                if let Some(run) = self.joins.runs.remove(&id) {
                    for conn in run.ready {
                        self.swarm.close_connection(conn);
                    }
                    // Nobody waiting any more is fine.
                    let _unheard = run.reply.send(Ok(answer));
                }
            }
            Err(error) => {
                run.error = error;
                self.ask_next(id);
            }
        }
    }

    /// Somebody asks to join.
    pub(super) fn on_join_stream(&mut self, id: ConnectionId, stream: NetStream) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (from, addr) = (conn.node, conn.addr.clone());
        if self.joins.answering >= JOINS_AT_ONCE_MAX || !self.joins.may_ask(&addr, Instant::now()) {
            count(&self.shared.counters.joins_refused);
            return;
        }
        self.joins.answering += 1;
        let (events, shared) = (self.events.clone(), std::sync::Arc::clone(&self.shared));
        self.tasks.spawn(async move {
            let served = tokio::time::timeout(JOIN_TIMEOUT, serve(stream, from, addr, events)).await;
            if !matches!(served, Ok(true)) {
                count(&shared.counters.joins_refused);
            }
            Done::Joined(ANSWERED, Ok(Bytes::new()))
        });
    }
}

/// Stands for a request of somebody else that has been answered.
const ANSWERED: u64 = u64::MAX;

async fn ask(opened: oneshot::Receiver<Opened>, request: Bytes) -> Result<Bytes, JoinError> {
    let failed = |error: &dyn std::fmt::Display| JoinError::NoAnswer(error.to_string());
    let closed = || JoinError::NoAnswer("the connection broke".into());
    let opened = opened.await.map_err(|_| closed())?;
    let mut stream = NetStream::new(opened.map_err(|error| failed(&error))?);
    write_frame(&mut stream, &request).await.map_err(|error| failed(&error))?;
    read_frame(&mut stream, JOIN_REPLY_BYTES_MAX).await.map_err(|error| failed(&error))
}

/// Reads one request and writes its answer; `false` where there was none.
async fn serve(mut stream: NetStream, from: NodeId, addr: Multiaddr, events: mpsc::Sender<NetEvent>) -> bool {
    let Ok(request) = read_frame(&mut stream, JOIN_REQUEST_BYTES_MAX).await else { return false };
    let (reply, answer) = oneshot::channel();
    if events.send(NetEvent::Join { from, addr, request, reply }).await.is_err() {
        return false;
    }
    match answer.await {
        Ok(answer) if answer.len() <= JOIN_REPLY_BYTES_MAX => {
            write_frame(&mut stream, &answer).await.is_ok() && stream.shutdown().await.is_ok()
        }
        Ok(_) | Err(_) => false,
    }
}
