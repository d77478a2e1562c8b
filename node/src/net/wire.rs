//! Streams of V6's own protocols, each opened on a connection that the caller names.
//!
//! `libp2p-stream` opens on any connection with a peer, but bulk must not travel on the connection that carries control.
//! The handler also is the door: it offers a non-member the join protocol and nothing else, and it bounds the streams that
//! a peer may hold. It knows no policy beyond that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crdt::ids::NodeId;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::limits::{GUESTS_MAX, STREAM_OPEN_TIMEOUT, STREAMS_PER_CONNECTION_MAX};
use super::{OpenError, peer_id_to_node_id};

/// A protocol of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wired {
    Ctl,
    Find,
    Blobs,
    Logs,
    Copies,
    Join,
}

const MEMBERS: [Wired; 6] = [Wired::Ctl, Wired::Find, Wired::Blobs, Wired::Logs, Wired::Copies, Wired::Join];
const GUESTS: [Wired; 1] = [Wired::Join];

impl Wired {
    const fn name(self) -> StreamProtocol {
        StreamProtocol::new(match self {
            Self::Ctl => "/v6/ctl/1",
            Self::Find => "/v6/find/1",
            Self::Blobs => "/v6/blobs/1",
            Self::Logs => "/v6/logs/1",
            Self::Copies => "/v6/copies/1",
            Self::Join => "/v6/join/1",
        })
    }
}

/// A stream as it was negotiated, with its place among the connection's streams.
#[derive(Debug)]
pub(crate) struct Negotiated {
    pub(crate) stream: Stream,
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

pub(crate) type Opened = Result<Negotiated, OpenError>;

/// What the behaviour reports.
#[derive(Debug)]
pub(crate) enum WireEvent {
    /// The peer opened a stream.
    Inbound { conn: ConnectionId, proto: Wired, stream: Negotiated },
    /// The peer holds as many streams as it may; one more was dropped.
    TooManyStreams { peer: PeerId },
}

/// A connection was refused because enough non-members are connected.
#[derive(Debug, thiserror::Error)]
#[error("{GUESTS_MAX} connections of non-members are open already")]
struct TooManyGuests;

/// See the module.
pub(crate) struct Wire {
    members: Arc<BTreeSet<NodeId>>,
    conns: BTreeMap<ConnectionId, (PeerId, bool)>,
    queue: VecDeque<ToSwarm<WireEvent, WireIn>>,
    waker: Option<Waker>,
}

impl Wire {
    pub(crate) fn new(members: Arc<BTreeSet<NodeId>>) -> Self {
        Self { members, conns: BTreeMap::new(), queue: VecDeque::new(), waker: None }
    }

    /// Opens a stream on this connection; the answer comes through `reply`.
    pub(crate) fn open(&mut self, peer: PeerId, conn: ConnectionId, proto: Wired, reply: oneshot::Sender<Opened>) {
        self.notify(peer, conn, WireIn::Open(proto, reply));
    }

    /// Changes who is a member; the open connections learn it at once.
    pub(crate) fn set_members(&mut self, members: Arc<BTreeSet<NodeId>>) {
        self.members = members;
        let mut changed = Vec::new();
        for (id, (peer, member)) in &mut self.conns {
            let is = is_member(&self.members, peer);
            if is != *member {
                *member = is;
                changed.push((*peer, *id, is));
            }
        }
        for (peer, id, is) in changed {
            self.notify(peer, id, WireIn::Member(is));
        }
    }

    fn notify(&mut self, peer_id: PeerId, conn: ConnectionId, event: WireIn) {
        self.queue.push_back(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(conn), event });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn admit(&mut self, conn: ConnectionId, peer: PeerId, inbound: bool) -> Result<WireHandler, ConnectionDenied> {
        let member = is_member(&self.members, &peer);
        if !member && inbound && self.conns.values().filter(|(_, member)| !member).count() >= GUESTS_MAX {
            return Err(ConnectionDenied::new(TooManyGuests));
        }
        self.conns.insert(conn, (peer, member));
        Ok(WireHandler::new(member))
    }
}

fn is_member(members: &BTreeSet<NodeId>, peer: &PeerId) -> bool {
    peer_id_to_node_id(peer).is_some_and(|node| members.contains(&node))
}

impl NetworkBehaviour for Wire {
    type ConnectionHandler = WireHandler;
    type ToSwarm = WireEvent;

    fn handle_established_inbound_connection(
        &mut self,
        conn: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(conn, peer, true)
    }

    fn handle_established_outbound_connection(
        &mut self,
        conn: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(conn, peer, false)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        #[allow(clippy::wildcard_enum_match_arm, reason = "FromSwarm is non-exhaustive; only ends matter here")]
        match event {
            FromSwarm::ConnectionClosed(e) => {
                self.conns.remove(&e.connection_id);
            }
            FromSwarm::DialFailure(e) => {
                self.conns.remove(&e.connection_id);
            }
            FromSwarm::ListenFailure(e) => {
                self.conns.remove(&e.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, conn: ConnectionId, event: THandlerOutEvent<Self>) {
        let event = match event {
            WireOut::Inbound(proto, stream) => WireEvent::Inbound { conn, proto, stream },
            WireOut::TooManyStreams => WireEvent::TooManyStreams { peer },
        };
        self.queue.push_back(ToSwarm::GenerateEvent(event));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(out) = self.queue.pop_front() {
            return Poll::Ready(out);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// What the behaviour tells a handler.
#[derive(Debug)]
pub(crate) enum WireIn {
    Member(bool),
    Open(Wired, oneshot::Sender<Opened>),
}

/// What a handler tells the behaviour.
#[derive(Debug)]
pub(crate) enum WireOut {
    Inbound(Wired, Negotiated),
    TooManyStreams,
}

/// One connection's protocols.
pub(crate) struct WireHandler {
    member: bool,
    /// Places for streams that the peer opened.
    places: Arc<Semaphore>,
    opens: VecDeque<(Wired, oneshot::Sender<Opened>)>,
    outs: VecDeque<WireOut>,
    waker: Option<Waker>,
}

impl WireHandler {
    fn new(member: bool) -> Self {
        let places = if member { STREAMS_PER_CONNECTION_MAX } else { 2 };
        Self {
            member,
            places: Arc::new(Semaphore::new(places)),
            opens: VecDeque::new(),
            outs: VecDeque::new(),
            waker: None,
        }
    }

    fn on_inbound(&mut self, proto: Wired, stream: Stream) {
        // Negotiated before the peer lost its membership: dropped, which resets it.
        if !self.member && proto != Wired::Join {
            return;
        }
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => self.outs.push_back(WireOut::Inbound(proto, Negotiated { stream, permit: Some(permit) })),
            Err(_) => self.outs.push_back(WireOut::TooManyStreams),
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl ConnectionHandler for WireHandler {
    type FromBehaviour = WireIn;
    type ToBehaviour = WireOut;
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = oneshot::Sender<Opened>;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        let offered: &'static [Wired] = if self.member { &MEMBERS } else { &GUESTS };
        SubstreamProtocol::new(Offer(offered), ()).with_timeout(STREAM_OPEN_TIMEOUT)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Offer, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        if let Some(out) = self.outs.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(out));
        }
        if let Some((proto, reply)) = self.opens.pop_front() {
            let at = MEMBERS.iter().position(|p| *p == proto).expect("every protocol is in the list");
            let protocol = SubstreamProtocol::new(Offer(&MEMBERS[at..=at]), reply).with_timeout(STREAM_OPEN_TIMEOUT);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: WireIn) {
        match event {
            WireIn::Open(proto, reply) => self.opens.push_back((proto, reply)),
            WireIn::Member(member) => {
                if member && !self.member {
                    self.places.add_permits(STREAMS_PER_CONNECTION_MAX - 2);
                }
                self.member = member;
            }
        }
        self.wake();
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, Offer, (), Self::OutboundOpenInfo>) {
        #[allow(
            clippy::wildcard_enum_match_arm,
            reason = "ConnectionEvent is non-exhaustive; only streams matter here"
        )]
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (stream, proto), .. }) => {
                self.on_inbound(proto, stream);
            }
            // A failed send means that the asker is gone; the stream is dropped with it.
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: (stream, _), info }) => {
                drop(info.send(Ok(Negotiated { stream, permit: None })));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                drop(info.send(Err(match error {
                    StreamUpgradeError::Timeout => OpenError::Timeout,
                    StreamUpgradeError::NegotiationFailed => OpenError::Refused,
                    StreamUpgradeError::Io(_) => OpenError::Closed,
                    StreamUpgradeError::Apply(never) => match never {},
                })));
            }
            _ => {}
        }
    }
}

/// The protocols that one side offers; the stream itself is the result.
pub(crate) struct Offer(&'static [Wired]);

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Map<std::slice::Iter<'static, Wired>, fn(&'static Wired) -> StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.iter().map(|proto| proto.name())
    }
}

impl Offer {
    fn chosen(&self, info: &StreamProtocol) -> Wired {
        *self.0.iter().find(|proto| proto.name() == *info).expect("only offered protocols are chosen")
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (Stream, Wired);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, info: StreamProtocol) -> Self::Future {
        let proto = self.chosen(&info);
        ready(Ok((stream, proto)))
    }
}

impl OutboundUpgrade<Stream> for Offer {
    type Output = (Stream, Wired);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, info: StreamProtocol) -> Self::Future {
        let proto = self.chosen(&info);
        ready(Ok((stream, proto)))
    }
}
