//! Connections: dialling, greeting, which one carries a member's control frames, and when a member counts as connected.
//!
//! Greeting: the dialler opens its gate for the peer's streams (its own stay held), then opens the control stream and says
//! hello. The listener opens its gate, and only then answers; so neither side's gossip ever meets a closed gate. Two
//! members that dial each other at the same moment keep both connections: each sends on the one that came up first, the
//! other stands by.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crdt::ids::NodeId;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};
use tokio::io::WriteHalf;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::{Class, Conn, Dial, Done, GreetError, Service, remote_addr};
use crate::net::control::{self, Delivery, Heard, Outbox, Phase};
use crate::net::stream::NetStream;
use crate::net::wire::Wired;
use crate::net::{NetEvent, OpenError, Path, PeerInfo, count, lock, node_id_to_peer_id, peer_id_to_node_id};

/// A member's control channel over all its connections.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// The connection that this node's frames take, and the task that writes them.
    writer: Option<(ConnectionId, AbortHandle)>,
    /// Connections that are ready to take over.
    standby: Vec<(ConnectionId, WriteHalf<NetStream>)>,
    heard: Arc<tokio::sync::Mutex<Heard>>,
}

impl Link {
    /// The connection that control takes, while there is one.
    pub(super) fn conn(&self) -> Option<ConnectionId> {
        self.writer.as_ref().map(|(conn, _)| *conn)
    }
}

impl Service {
    /// Who may speak has changed.
    pub(super) fn set_members(&mut self, members: Arc<BTreeSet<NodeId>>) {
        let now = Instant::now();
        let me = self.shared.me;
        let gone: Vec<NodeId> = self.members.difference(&members).copied().filter(|node| *node != me).collect();
        let come: Vec<NodeId> = members.difference(&self.members).copied().filter(|node| *node != me).collect();
        self.members = Arc::clone(&members);
        self.swarm.behaviour_mut().wire.set_members(Arc::clone(&members));
        self.book.set_members(&members, now);
        for node in gone {
            self.forget(node);
        }
        for node in come {
            let mut outboxes = self.shared.outboxes.write().expect("no holder of this lock panics");
            outboxes.insert(node, Arc::new(Outbox::new()));
            drop(outboxes);
            let info = PeerInfo { node, addrs: Vec::new(), connected: false, path: None, rtt_ms: None };
            lock(&self.shared.peers).insert(node, info);
            if let Some(addrs) = self.strangers.remove(&node) {
                self.learn(node, addrs);
            }
            self.refresh(node);
        }
        self.promote_guests();
    }

    fn forget(&mut self, node: NodeId) {
        self.shared.outboxes.write().expect("no holder of this lock panics").remove(&node);
        lock(&self.shared.peers).remove(&node);
        self.waiting.remove(&node);
        self.bulk_waiting.remove(&node);
        if let Some((_, writer)) = self.links.remove(&node).and_then(|link| link.writer) {
            writer.abort();
            self.emit(NetEvent::Disconnected { node });
        }
        if let Ok(peer) = node_id_to_peer_id(&node) {
            // An error says that there is no connection.
            let _none = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// Connections that we dialled as a joiner serve for control once the other side is a member to us.
    fn promote_guests(&mut self) {
        let ours: Vec<ConnectionId> = self
            .conns
            .iter()
            .filter(|(_, c)| c.dialler && matches!(c.class, Class::Guest) && self.members.contains(&c.node))
            .map(|(id, _)| *id)
            .collect();
        for id in ours {
            self.begin_control(id);
        }
    }

    fn begin_control(&mut self, id: ConnectionId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.class = Class::Greeting(None);
        conn.since = Instant::now();
        let node = conn.node;
        self.book.begin_dial(&node);
        self.swarm.behaviour_mut().gate.activate(id, true);
    }

    /// Dials the members whose time has come.
    pub(super) fn dial_due(&mut self) {
        for node in self.book.due(Instant::now()) {
            self.dial(node);
        }
    }

    /// A frame waits for a connection.
    pub(super) fn dial_on_demand(&mut self, node: NodeId) {
        if self.book.is_dialable(&node, Instant::now()) {
            self.dial(node);
        } else {
            self.refresh(node);
        }
    }

    fn dial(&mut self, node: NodeId) {
        self.book.begin_dial(&node);
        let addrs = self.book.addrs(&node).to_vec();
        if self.start_dial(node, addrs, Dial::Control(node)).is_err() {
            self.book.lost(&node, Instant::now());
        }
        self.refresh(node);
    }

    pub(super) fn start_dial(&mut self, node: NodeId, addrs: Vec<Multiaddr>, dial: Dial) -> Result<(), OpenError> {
        let peer = node_id_to_peer_id(&node).map_err(|_| OpenError::NotConnected)?;
        let opts = DialOpts::peer_id(peer).addresses(addrs).condition(PeerCondition::Always).build();
        let id = opts.connection_id();
        self.dials.insert(id, dial);
        if let Err(error) = self.swarm.dial(opts) {
            tracing::debug!(%node, %error, "not dialled");
            self.dials.remove(&id);
            return Err(OpenError::NotConnected);
        }
        Ok(())
    }

    pub(super) fn on_dial_failed(&mut self, id: ConnectionId, error: &str) {
        match self.dials.remove(&id) {
            Some(Dial::Control(node)) => {
                tracing::debug!(%node, %error, "dial failed");
                self.on_control_lost(node);
            }
            Some(Dial::Bulk(node)) => self.on_bulk_failed(node),
            Some(Dial::Join(run)) => self.on_join_dial_failed(run),
            None => {}
        }
    }

    /// A dial failed or a control connection is gone: unless another one carries the member, wait and try again.
    fn on_control_lost(&mut self, node: NodeId) {
        if self.links.get(&node).is_some_and(|link| link.writer.is_some()) {
            return;
        }
        self.book.lost(&node, Instant::now());
        self.refresh(node);
        for (_, reply) in self.waiting.remove(&node).unwrap_or_default() {
            // Nobody waiting any more is fine.
            let _unheard = reply.send(Err(OpenError::NotConnected));
        }
    }

    pub(super) fn on_established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let dial = self.dials.remove(&id);
        let Some(node) = peer_id_to_node_id(&peer) else {
            tracing::debug!(%peer, "a key that is not Ed25519");
            self.swarm.close_connection(id);
            if let Some(Dial::Join(run)) = dial {
                self.on_join_dial_failed(run);
            }
            return;
        };
        let addr = remote_addr(endpoint);
        let dialler = endpoint.is_dialer();
        let conn = Conn { peer, node, addr, dialler, class: Class::Guest, since: Instant::now() };
        self.conns.insert(id, conn);
        match dial {
            Some(Dial::Control(_)) if self.members.contains(&node) => self.begin_control(id),
            Some(Dial::Bulk(_)) if self.members.contains(&node) => self.on_bulk(id, node),
            Some(Dial::Join(run)) => self.on_join_connected(run, id, node),
            // Revoked while the dial was under way.
            Some(Dial::Control(_) | Dial::Bulk(_)) => {
                self.swarm.close_connection(id);
            }
            None => {}
        }
    }

    /// The gate is open: the dialler asks for the control stream, the listener answers the hello.
    pub(super) fn on_active(&mut self, id: ConnectionId) {
        let life = self.life;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Class::Greeting(kept) = &mut conn.class else { return };
        if conn.dialler {
            let (reply, opened) = oneshot::channel();
            self.swarm.behaviour_mut().wire.open(conn.peer, id, Wired::Ctl, reply);
            self.tasks.spawn(async move {
                let greeting = async {
                    let mut stream = NetStream::new(opened.await.map_err(|_| OpenError::Closed)??);
                    control::greet(&mut stream, life).await?;
                    let theirs = control::read_greeting(&mut stream).await?;
                    Ok((stream, theirs))
                };
                Done::Greeted(id, greeting.await)
            });
        } else if let Some((mut stream, theirs)) = kept.take() {
            self.tasks.spawn(async move {
                let greeted = control::greet(&mut stream, life).await;
                Done::Greeted(id, greeted.map(|()| (stream, theirs)).map_err(GreetError::from))
            });
        }
    }

    /// The peer opened its control stream.
    pub(super) fn on_ctl_stream(&mut self, id: ConnectionId, mut stream: NetStream) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.dialler || !matches!(conn.class, Class::Guest) {
            count(&self.shared.counters.offences);
            return;
        }
        conn.class = Class::Greeting(None);
        conn.since = Instant::now();
        self.tasks.spawn(async move {
            let read = control::read_greeting(&mut stream).await;
            Done::Hello(id, read.map(|life| (stream, life)))
        });
    }

    pub(super) fn on_hello(&mut self, id: ConnectionId, stream: NetStream, life: u64) {
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| self.members.contains(&conn.node)) else { return };
        conn.class = Class::Greeting(Some((stream, life)));
        self.swarm.behaviour_mut().gate.activate(id, false);
    }

    /// Both have greeted: the connection carries control.
    pub(super) fn on_control(&mut self, id: ConnectionId, stream: NetStream, life: u64) {
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| self.members.contains(&conn.node)) else { return };
        conn.class = Class::Control;
        let (node, addr, dialler) = (conn.node, conn.addr.clone(), conn.dialler);
        if dialler {
            self.swarm.behaviour_mut().gate.release(id);
        }
        self.book.connected(&node, dialler.then_some(&addr));
        let (read, write) = tokio::io::split(stream);
        let link = self.links.entry(node).or_default();
        let heard = Arc::clone(&link.heard);
        if link.writer.is_some() {
            link.standby.push((id, write));
        } else {
            self.start_writer(node, id, write);
            self.refresh(node);
            self.emit(NetEvent::Connected { node, addr, path: Path::Direct });
            self.flush_waiting(node, id);
        }
        let delivery = Delivery { from: node, life, heard, events: self.events.clone() };
        self.tasks.spawn(async move { Done::Ended(id, control::read_loop(read, delivery).await) });
    }

    fn start_writer(&mut self, node: NodeId, id: ConnectionId, write: WriteHalf<NetStream>) {
        let outboxes = self.shared.outboxes.read().expect("no holder of this lock panics");
        let Some(outbox) = outboxes.get(&node).cloned() else { return };
        drop(outboxes);
        let writer = self.tasks.spawn(async move { Done::Ended(id, control::write_loop(outbox, write).await) });
        self.links.entry(node).or_default().writer = Some((id, writer));
    }

    pub(super) fn on_ctl_failed(&mut self, id: ConnectionId, error: &GreetError) {
        let Some(conn) = self.conns.get(&id) else { return };
        tracing::debug!(node = %conn.node, %error, "control stream ended");
        if matches!(error, GreetError::Ctl(error) if error.is_offence()) {
            count(&self.shared.counters.offences);
        }
        self.swarm.close_connection(id);
    }

    pub(super) fn on_closed(&mut self, id: ConnectionId) {
        let Some(conn) = self.conns.remove(&id) else { return };
        let node = conn.node;
        match conn.class {
            Class::Greeting(_) if self.members.contains(&node) => self.on_control_lost(node),
            Class::Control => self.on_control_closed(id, node),
            Class::Guest | Class::Bulk | Class::Greeting(_) => {}
        }
    }

    fn on_control_closed(&mut self, id: ConnectionId, node: NodeId) {
        let Some(link) = self.links.get_mut(&node) else { return };
        link.standby.retain(|(other, _)| *other != id);
        let Some((_, writer)) = link.writer.take_if(|(current, _)| *current == id) else { return };
        writer.abort();
        match link.standby.pop() {
            Some((other, write)) => self.start_writer(node, other, write),
            None => {
                self.emit(NetEvent::Disconnected { node });
                self.on_control_lost(node);
            }
        }
    }

    /// Brings a member's outbox and public record in line with what is known of its connection.
    pub(super) fn refresh(&mut self, node: NodeId) {
        let up = self.links.get(&node).is_some_and(|link| link.writer.is_some());
        let phase = if up {
            Phase::Up
        } else if self.book.is_dialing(&node) {
            Phase::Dialing
        } else if self.book.is_dialable(&node, Instant::now()) {
            Phase::Dialable
        } else {
            Phase::Down
        };
        if let Some(outbox) = self.shared.outboxes.read().expect("no holder of this lock panics").get(&node) {
            outbox.set_phase(phase);
        }
        if let Some(peer) = lock(&self.shared.peers).get_mut(&node) {
            peer.addrs = self.book.addrs(&node).to_vec();
            peer.connected = up;
            peer.path = up.then_some(Path::Direct);
            if !up {
                peer.rtt_ms = None;
            }
        }
    }

    /// Members whose backoff has passed can be dialled on demand again.
    pub(super) fn refresh_down(&mut self) {
        let outboxes = self.shared.outboxes.read().expect("no holder of this lock panics");
        let down: Vec<NodeId> =
            outboxes.iter().filter(|(_, outbox)| outbox.phase() == Phase::Down).map(|(node, _)| *node).collect();
        drop(outboxes);
        for node in down {
            self.refresh(node);
        }
    }
}
