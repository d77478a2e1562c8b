//! Streams of members: which connection each is opened on. Blobs go over a connection of their own, dialled for them; only
//! where none can be had (the peer can reach us, we cannot reach it) do they share the control connection.

use crdt::ids::NodeId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use tokio::sync::oneshot;

use super::{Class, Dial, Service};
use crate::net::stream::NetStream;
use crate::net::wire::{Negotiated, Opened, Wired};
use crate::net::{NetEvent, OpenError, Proto, count};

impl Service {
    pub(super) fn open(&mut self, node: NodeId, proto: Wired, reply: oneshot::Sender<Opened>) {
        if !self.members.contains(&node) {
            answer(reply, OpenError::NotMember);
        } else if proto == Wired::Blobs {
            self.open_bulk(node, reply);
        } else {
            self.open_control(node, proto, reply);
        }
    }

    fn open_control(&mut self, node: NodeId, proto: Wired, reply: oneshot::Sender<Opened>) {
        if let Some(id) = self.links.get(&node).and_then(|link| link.conn()) {
            self.open_on(id, proto, reply);
            return;
        }
        self.dial_on_demand(node);
        if self.book.is_dialing(&node) {
            self.waiting.entry(node).or_default().push((proto, reply));
        } else {
            answer(reply, OpenError::NotConnected);
        }
    }

    /// The control connection is up: opens what waited for it.
    pub(super) fn flush_waiting(&mut self, node: NodeId, id: ConnectionId) {
        for (proto, reply) in self.waiting.remove(&node).unwrap_or_default() {
            self.open_on(id, proto, reply);
        }
    }

    fn open_bulk(&mut self, node: NodeId, reply: oneshot::Sender<Opened>) {
        let bulk = self.conns.iter().find(|(_, c)| c.node == node && matches!(c.class, Class::Bulk)).map(|(id, _)| *id);
        if let Some(id) = bulk {
            self.open_on(id, Wired::Blobs, reply);
            return;
        }
        let waiting = self.bulk_waiting.entry(node).or_default();
        waiting.push(reply);
        if waiting.len() > 1 {
            return;
        }
        // TCP moves a quarter more than QUIC on the same path, and blobs have nothing to gain from QUIC's streams.
        let mut addrs = self.book.addrs(&node).to_vec();
        if addrs.iter().any(|addr| addr.iter().any(|part| matches!(part, Protocol::Tcp(_)))) {
            addrs.retain(|addr| addr.iter().any(|part| matches!(part, Protocol::Tcp(_))));
        }
        if self.start_dial(node, addrs, Dial::Bulk(node)).is_err() {
            self.on_bulk_failed(node);
        }
    }

    pub(super) fn on_bulk(&mut self, id: ConnectionId, node: NodeId) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.class = Class::Bulk;
        }
        for reply in self.bulk_waiting.remove(&node).unwrap_or_default() {
            self.open_on(id, Wired::Blobs, reply);
        }
    }

    pub(super) fn on_bulk_failed(&mut self, node: NodeId) {
        for reply in self.bulk_waiting.remove(&node).unwrap_or_default() {
            self.open_control(node, Wired::Blobs, reply);
        }
    }

    pub(super) fn open_on(&mut self, id: ConnectionId, proto: Wired, reply: oneshot::Sender<Opened>) {
        match self.conns.get(&id) {
            Some(conn) => self.swarm.behaviour_mut().wire.open(conn.peer, id, proto, reply),
            None => answer(reply, OpenError::Closed),
        }
    }

    /// A peer opened a stream.
    pub(super) fn on_stream(&mut self, id: ConnectionId, proto: Wired, stream: Negotiated) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let stream = NetStream::new(stream);
        let proto = match proto {
            Wired::Ctl => return self.on_ctl_stream(id, stream),
            Wired::Join => return self.on_join_stream(id, stream),
            Wired::Find => Proto::Find,
            Wired::Logs => Proto::Logs,
            Wired::Copies => Proto::Copies,
            Wired::Blobs => {
                // The first stream of a connection that somebody opened to us says what it is for.
                if matches!(conn.class, Class::Guest) && !conn.dialler {
                    conn.class = Class::Bulk;
                }
                Proto::Blobs
            }
        };
        let from = conn.node;
        if !self.members.contains(&from) || self.is_behind() {
            count(&self.shared.counters.streams_dropped);
            return;
        }
        self.emit(NetEvent::Stream { from, proto, stream });
    }
}

fn answer(reply: oneshot::Sender<Opened>, error: OpenError) {
    // Nobody waiting any more is fine.
    let _unheard = reply.send(Err(error));
}
