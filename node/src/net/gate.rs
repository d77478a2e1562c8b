//! Shows an inner behaviour only the connections that were opened to it.
//!
//! gossipsub and identify take every connection that the swarm makes, speak on it at once, and write a peer off for good
//! when it refuses. Here a connection first proves what it is (a member's, for control), and bulk connections stay out of
//! gossip altogether. So the gate keeps each new connection closed; `activate` hands it to the inner behaviour as if it had
//! been established at that moment. It must never pass on an event of a connection that is not active.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::iter::Flatten;
use std::option;
use std::task::{Context, Poll, Waker};

use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, UpgradeInfo};
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::ConnectionEstablished;
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound, InboundUpgradeSend,
    ListenUpgradeError, SendWrapper, UpgradeInfoSend,
};
use libp2p::swarm::{
    AddressChange, ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId,
    FromSwarm, NetworkBehaviour, NotifyHandler, Stream, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

/// What the gate reports.
#[derive(Debug)]
pub(crate) enum GateEvent<E> {
    /// The inner protocols of this connection are answered from this moment.
    Active(ConnectionId),
    /// The inner behaviour's event.
    Inner(E),
}

struct Conn {
    peer: PeerId,
    point: ConnectedPoint,
    port_use: PortUse,
    active: bool,
}

type Out<B> = ToSwarm<GateEvent<<B as NetworkBehaviour>::ToSwarm>, GateIn<THandler<B>>>;

/// See the module.
pub(crate) struct Gate<B: NetworkBehaviour> {
    inner: B,
    conns: BTreeMap<ConnectionId, Conn>,
    /// Port use of outgoing connections that are not announced yet.
    ports: BTreeMap<ConnectionId, PortUse>,
    queue: VecDeque<Out<B>>,
    waker: Option<Waker>,
}

impl<B: NetworkBehaviour> Gate<B> {
    pub(crate) fn new(inner: B) -> Self {
        Self { inner, conns: BTreeMap::new(), ports: BTreeMap::new(), queue: VecDeque::new(), waker: None }
    }

    pub(crate) fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    /// Opens the gate for one connection. While `held`, inbound streams are answered but none is opened; `release` ends it.
    pub(crate) fn activate(&mut self, id: ConnectionId, held: bool) {
        let Some(conn) = self.conns.get(&id) else { return };
        if conn.active {
            return;
        }
        let (peer, point, port_use) = (conn.peer, conn.point.clone(), conn.port_use);
        let made = match &point {
            ConnectedPoint::Dialer { address, role_override, .. } => {
                self.inner.handle_established_outbound_connection(id, peer, address, *role_override, port_use)
            }
            ConnectedPoint::Listener { local_addr, send_back_addr } => {
                self.inner.handle_established_inbound_connection(id, peer, local_addr, send_back_addr)
            }
        };
        let Ok(handler) = made else { return };
        let other_established = self.active_of(peer).count();
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.active = true;
        }
        self.notify(peer, id, GateIn::Install(Box::new(handler), held));
        self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: id,
            endpoint: &point,
            failed_addresses: &[],
            other_established,
        }));
    }

    /// Lets the inner behaviour open streams of its own on a connection that was activated `held`.
    pub(crate) fn release(&mut self, id: ConnectionId) {
        if let Some(peer) = self.conns.get(&id).filter(|c| c.active).map(|c| c.peer) {
            self.notify(peer, id, GateIn::Release);
        }
    }

    fn active_of(&self, peer: PeerId) -> impl Iterator<Item = ConnectionId> {
        self.conns.iter().filter(move |(_, c)| c.active && c.peer == peer).map(|(id, _)| *id)
    }

    fn notify(&mut self, peer_id: PeerId, id: ConnectionId, event: GateIn<THandler<B>>) {
        self.queue.push_back(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(id), event });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn on_closed(&mut self, closed: ConnectionClosed<'_>) {
        self.ports.remove(&closed.connection_id);
        let Some(conn) = self.conns.remove(&closed.connection_id) else { return };
        if conn.active {
            let remaining_established = self.active_of(closed.peer_id).count();
            self.inner
                .on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed { remaining_established, ..closed }));
        }
    }

    fn on_address_change(&mut self, change: AddressChange<'_>) {
        let Some(conn) = self.conns.get_mut(&change.connection_id) else { return };
        conn.point = change.new.clone();
        if conn.active {
            self.inner.on_swarm_event(FromSwarm::AddressChange(change));
        }
    }

    /// Directs a notification at an active connection; `None` where the peer has none.
    fn redirect(&self, out: ToSwarm<B::ToSwarm, THandlerInEvent<B>>) -> Option<Out<B>> {
        #[allow(clippy::wildcard_enum_match_arm, reason = "ToSwarm is non-exhaustive; all else passes through")]
        match out {
            ToSwarm::NotifyHandler { peer_id, handler, event } => {
                let id = match handler {
                    NotifyHandler::One(id) => self.conns.get(&id).filter(|c| c.active).map(|_| id),
                    NotifyHandler::Any => self.active_of(peer_id).next(),
                }?;
                Some(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(id), event: GateIn::Inner(event) })
            }
            other => Some(other.map_in(GateIn::Inner).map_out(GateEvent::Inner)),
        }
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Gate<B> {
    type ConnectionHandler = GateHandler<THandler<B>>;
    type ToSwarm = GateEvent<B::ToSwarm>;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(GateHandler::shut())
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.ports.insert(id, port_use);
        Ok(GateHandler::shut())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        #[allow(clippy::wildcard_enum_match_arm, reason = "FromSwarm is non-exhaustive; all else passes through")]
        match event {
            FromSwarm::ConnectionEstablished(e) => {
                let port_use = self.ports.remove(&e.connection_id).unwrap_or(PortUse::New);
                let conn = Conn { peer: e.peer_id, point: e.endpoint.clone(), port_use, active: false };
                self.conns.insert(e.connection_id, conn);
            }
            FromSwarm::ConnectionClosed(e) => self.on_closed(e),
            FromSwarm::AddressChange(e) => self.on_address_change(e),
            FromSwarm::DialFailure(e) => {
                self.ports.remove(&e.connection_id);
            }
            FromSwarm::ListenFailure(_) => {}
            other => self.inner.on_swarm_event(other),
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            GateOut::Installed => self.queue.push_back(ToSwarm::GenerateEvent(GateEvent::Active(id))),
            GateOut::Inner(event) => self.inner.on_connection_handler_event(peer, id, event),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(out) = self.queue.pop_front() {
                return Poll::Ready(out);
            }
            match self.inner.poll(cx) {
                Poll::Ready(out) => {
                    if let Some(out) = self.redirect(out) {
                        return Poll::Ready(out);
                    }
                }
                Poll::Pending => {
                    self.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
    }
}

/// What the behaviour tells a connection's handler.
pub(crate) enum GateIn<H: ConnectionHandler> {
    /// The inner handler, and whether it must not open streams yet.
    Install(Box<H>, bool),
    /// It may.
    Release,
    /// For the inner handler.
    Inner(H::FromBehaviour),
}

impl<H: ConnectionHandler> fmt::Debug for GateIn<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Install(_, held) => write!(f, "Install(held: {held})"),
            Self::Release => f.write_str("Release"),
            Self::Inner(event) => f.debug_tuple("Inner").field(event).finish(),
        }
    }
}

/// What a handler tells the behaviour.
#[derive(Debug)]
pub(crate) enum GateOut<E> {
    /// The inner handler is in place.
    Installed,
    /// The inner handler's event.
    Inner(E),
}

/// Refuses every protocol until the inner handler is installed.
pub(crate) struct GateHandler<H> {
    inner: Option<Box<H>>,
    held: bool,
    announce: bool,
    waker: Option<Waker>,
}

impl<H> GateHandler<H> {
    fn shut() -> Self {
        Self { inner: None, held: false, announce: false, waker: None }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// An upgrade that may be absent; then it offers no protocol.
pub(crate) struct Maybe<U>(Option<SendWrapper<U>>);

impl<U: UpgradeInfoSend> UpgradeInfo for Maybe<U> {
    type Info = U::Info;
    type InfoIter = Flatten<option::IntoIter<U::InfoIter>>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.as_ref().map(|upgrade| upgrade.0.protocol_info()).into_iter().flatten()
    }
}

impl<U: InboundUpgradeSend> InboundUpgrade<Stream> for Maybe<U> {
    type Output = U::Output;
    type Error = U::Error;
    type Future = U::Future;

    fn upgrade_inbound(self, stream: Stream, info: Self::Info) -> Self::Future {
        let upgrade = self.0.expect("a protocol was chosen, so one was offered");
        upgrade.0.upgrade_inbound(stream, info)
    }
}

impl<H: ConnectionHandler> ConnectionHandler for GateHandler<H> {
    type FromBehaviour = GateIn<H>;
    type ToBehaviour = GateOut<H::ToBehaviour>;
    type InboundProtocol = Maybe<H::InboundProtocol>;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = Option<H::InboundOpenInfo>;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        match &self.inner {
            Some(inner) => {
                inner.listen_protocol().map_upgrade(|upgrade| Maybe(Some(SendWrapper(upgrade)))).map_info(Some)
            }
            None => SubstreamProtocol::new(Maybe(None), None),
        }
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.as_ref().is_some_and(|inner| inner.connection_keep_alive())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        if std::mem::take(&mut self.announce) {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(GateOut::Installed));
        }
        self.waker = Some(cx.waker().clone());
        match &mut self.inner {
            Some(inner) if !self.held => inner.poll(cx).map(|event| event.map_custom(GateOut::Inner)),
            Some(_) | None => Poll::Pending,
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        match &mut self.inner {
            Some(inner) => inner.poll_close(cx).map(|event| event.map(GateOut::Inner)),
            None => Poll::Ready(None),
        }
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {
            GateIn::Install(inner, held) => {
                self.inner = Some(inner);
                self.held = held;
                self.announce = true;
            }
            GateIn::Release => self.held = false,
            GateIn::Inner(event) => {
                if let Some(inner) = &mut self.inner {
                    inner.on_behaviour_event(event);
                }
            }
        }
        self.wake();
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        let Some(inner) = &mut self.inner else { return };
        #[allow(clippy::wildcard_enum_match_arm, reason = "ConnectionEvent is non-exhaustive")]
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info: Some(info) }) => inner
                .on_connection_event(ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                    protocol,
                    info,
                })),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => inner
                .on_connection_event(ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                    protocol,
                    info,
                })),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                inner.on_connection_event(ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }));
            }
            ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info: Some(info), error }) => {
                inner.on_connection_event(ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error }));
            }
            ConnectionEvent::AddressChange(change) => {
                inner.on_connection_event(ConnectionEvent::AddressChange(change));
            }
            ConnectionEvent::LocalProtocolsChange(change) => {
                inner.on_connection_event(ConnectionEvent::LocalProtocolsChange(change));
            }
            ConnectionEvent::RemoteProtocolsChange(change) => {
                inner.on_connection_event(ConnectionEvent::RemoteProtocolsChange(change));
            }
            _ => {}
        }
    }
}
