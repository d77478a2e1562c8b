//! The task that owns the swarm: turns commands and swarm events into each other. Policy of connections is in `links`,
//! streams in `streams`, joining in `join`; bounds are in `limits`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use crdt::ids::{MeshId, NodeId};
use futures::StreamExt as _;
use libp2p::core::ConnectedPoint;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance, MessageId};
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{ConnectionId, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, connection_limits, identify, mdns, noise, ping, tcp, yamux};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::book::{self, Book};
use super::control::CtlError;
use super::gate::{Gate, GateEvent};
use super::gossip::{self, Gossip};
use super::limits;
use super::stream::NetStream;
use super::wire::{Opened, Wire, WireEvent, Wired};
use super::{
    Counters, GossipId, JoinError, NetConfig, NetError, NetEvent, NetHandle, OpenError, Shared, Verdict, count,
    keypair, lock, node_id_to_peer_id, peer_id_to_node_id,
};

mod join;
mod links;
mod streams;

/// What a handle asks for.
#[derive(Debug)]
pub(crate) enum Command {
    SetMesh(MeshId),
    Dial(NodeId),
    Gossip(Bytes),
    Report(GossipId, Verdict),
    Open(NodeId, Wired, oneshot::Sender<Opened>),
    Join {
        addrs: Vec<Multiaddr>,
        expected: Vec<NodeId>,
        request: Bytes,
        reply: oneshot::Sender<Result<Bytes, JoinError>>,
    },
    AddAddrs(NodeId, Vec<Multiaddr>),
    Stop(oneshot::Sender<()>),
}

/// What only members' control connections see.
#[derive(NetworkBehaviour)]
struct MembersOnly {
    gossip: Gossip,
    identify: identify::Behaviour,
}

/// Everything that the swarm does.
#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    gate: Gate<MembersOnly>,
    wire: Wire,
    ping: ping::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

/// What a connection is for.
#[derive(Debug)]
enum Class {
    /// Nobody has said yet: a joiner's, or one that has just been opened to us.
    Guest,
    /// Control, still in its greeting. A listener keeps the peer's stream and life until the gate is open.
    Greeting(Option<(NetStream, u64)>),
    /// Control.
    Control,
    /// Blobs.
    Bulk,
}

#[derive(Debug)]
struct Conn {
    peer: PeerId,
    node: NodeId,
    addr: Multiaddr,
    /// Whether this node dialled.
    dialler: bool,
    class: Class,
    since: Instant,
}

/// What a dial is for.
#[derive(Debug)]
enum Dial {
    Control(NodeId),
    Bulk(NodeId),
    Join(u64),
}

/// How a task of this service ended.
#[derive(Debug)]
enum Done {
    /// We dialled, and the peer has greeted.
    Greeted(ConnectionId, Result<(NetStream, u64), GreetError>),
    /// The peer dialled, and has greeted.
    Hello(ConnectionId, Result<(NetStream, u64), CtlError>),
    /// A control stream ended.
    Ended(ConnectionId, CtlError),
    /// A request to join was answered, or not.
    Joined(u64, Result<Bytes, JoinError>),
    /// Nothing to be told.
    Quiet,
}

/// Why a control stream that we opened did not come up.
#[derive(Debug, thiserror::Error)]
enum GreetError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Ctl(#[from] CtlError),
}

struct Service {
    swarm: Swarm<Behaviour>,
    shared: Arc<Shared>,
    /// Microseconds since 1970 at the start; see `control::Hello`.
    life: u64,
    members: Arc<BTreeSet<NodeId>>,
    topic: Option<IdentTopic>,
    book: Book,
    conns: BTreeMap<ConnectionId, Conn>,
    links: BTreeMap<NodeId, links::Link>,
    dials: BTreeMap<ConnectionId, Dial>,
    waiting: BTreeMap<NodeId, Vec<(Wired, oneshot::Sender<Opened>)>>,
    bulk_waiting: BTreeMap<NodeId, Vec<oneshot::Sender<Opened>>>,
    joins: join::Joins,
    /// Where strangers are reached: multicast told, or they were asked to let us in.
    strangers: BTreeMap<NodeId, Vec<Multiaddr>>,
    tasks: JoinSet<Done>,
    events: mpsc::Sender<NetEvent>,
    held: VecDeque<NetEvent>,
}

pub(super) fn start(config: NetConfig) -> Result<(NetHandle, mpsc::Receiver<NetEvent>), NetError> {
    let key = keypair(config.seed);
    let me = peer_id_to_node_id(&key.public().to_peer_id()).expect("our key is Ed25519");
    let mut swarm = build_swarm(&key, &config)?;
    listen(&mut swarm, &config.listen, config.any_port)?;
    let (commands, inbox) = mpsc::channel(limits::COMMANDS_MAX);
    let (events, events_out) = mpsc::channel(limits::EVENTS_MAX);
    let (members, changes) = watch::channel(Arc::clone(&config.members));
    let shared = Arc::new(Shared {
        me,
        outboxes: RwLock::default(),
        peers: Mutex::default(),
        listening: Mutex::default(),
        counters: Counters::default(),
    });
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut service = Service {
        swarm,
        shared: Arc::clone(&shared),
        life: u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX),
        members: Arc::default(),
        topic: None,
        book: Book::new(me),
        conns: BTreeMap::new(),
        links: BTreeMap::new(),
        dials: BTreeMap::new(),
        waiting: BTreeMap::new(),
        bulk_waiting: BTreeMap::new(),
        joins: join::Joins::default(),
        strangers: BTreeMap::new(),
        tasks: JoinSet::new(),
        events,
        held: VecDeque::new(),
    };
    service.set_members(config.members);
    if let Some(mesh) = config.mesh {
        service.set_mesh(mesh);
    }
    for (node, addrs) in config.known {
        service.book.add(node, addrs);
        service.refresh(node);
    }
    tokio::spawn(service.run(inbox, changes));
    Ok((NetHandle { shared, commands, members }, events_out))
}

fn build_swarm(key: &libp2p::identity::Keypair, config: &NetConfig) -> Result<Swarm<Behaviour>, NetError> {
    let failed = |error: &dyn std::error::Error| NetError::Transport(error.to_string());
    let yamux = || {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(2 * limits::STREAMS_PER_CONNECTION_MAX);
        config
    };
    let behaviour = |key: &libp2p::identity::Keypair| -> Result<Behaviour, Box<dyn std::error::Error + Send + Sync>> {
        let peer = key.public().to_peer_id();
        let identify = identify::Config::new("/v6/1".into(), key.public())
            .with_agent_version(concat!("v6/", env!("CARGO_PKG_VERSION")).into())
            .with_push_listen_addr_updates(true)
            .with_cache_size(0);
        let mdns = if config.mdns { Some(mdns::tokio::Behaviour::new(mdns::Config::default(), peer)?) } else { None };
        Ok(Behaviour {
            limits: connection_limits::Behaviour::new(connection_bounds()),
            gate: Gate::new(MembersOnly { gossip: gossip::behaviour(), identify: identify::Behaviour::new(identify) }),
            wire: Wire::new(Arc::default()),
            ping: ping::Behaviour::new(
                ping::Config::new().with_interval(limits::PING_INTERVAL).with_timeout(limits::PING_TIMEOUT),
            ),
            mdns: mdns.into(),
        })
    };
    let swarm = libp2p::SwarmBuilder::with_existing_identity(key.clone())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux)
        .map_err(|error| failed(&error))?
        .with_quic()
        .with_behaviour(behaviour)
        .map_err(|error| failed(&error))?
        .with_swarm_config(|swarm| {
            swarm
                .with_idle_connection_timeout(limits::IDLE_TIME)
                .with_max_negotiating_inbound_streams(limits::STREAMS_NEGOTIATING_MAX)
        })
        .with_connection_timeout(Duration::from_secs(8))
        .build();
    Ok(swarm)
}

fn connection_bounds() -> connection_limits::ConnectionLimits {
    connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(limits::CONNECTIONS_PENDING_IN_MAX))
        .with_max_pending_outgoing(Some(limits::CONNECTIONS_PENDING_OUT_MAX))
        .with_max_established_incoming(Some(limits::CONNECTIONS_IN_MAX))
        .with_max_established_outgoing(Some(limits::CONNECTIONS_OUT_MAX))
        .with_max_established_per_peer(Some(limits::CONNECTIONS_PER_PEER_MAX))
}

/// Listens wherever it can; that one transport or address family is missing is no failure. `any_port`: where a port is
/// taken, on a free one.
fn listen(swarm: &mut Swarm<Behaviour>, wanted: &[Multiaddr], any_port: bool) -> Result<(), NetError> {
    let defaults = ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1", "/ip6/::/tcp/0", "/ip6/::/udp/0/quic-v1"];
    let defaults = defaults.map(|addr| addr.parse::<Multiaddr>().expect("a literal address"));
    let addrs = if wanted.is_empty() { &defaults } else { wanted };
    let mut first_failure = None;
    let mut listening = 0_usize;
    for addr in addrs {
        let mut listens = swarm.listen_on(addr.clone());
        if listens.is_err() && any_port {
            listens = swarm.listen_on(book::with_any_port(addr));
        }
        match listens {
            Ok(_) => listening += 1,
            Err(error) => {
                tracing::info!(%addr, %error, "cannot listen here");
                first_failure.get_or_insert((addr.clone(), error.to_string()));
            }
        }
    }
    match first_failure {
        Some((addr, reason)) if listening == 0 => Err(NetError::Listen { addr, reason }),
        Some(_) | None => Ok(()),
    }
}

impl Service {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>, mut changes: watch::Receiver<Arc<BTreeSet<NodeId>>>) {
        let events = self.events.clone();
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = self.book.next_due().unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm(event),
                command = inbox.recv() => match command {
                    Some(Command::Stop(done)) => return self.stop(done).await,
                    Some(command) => self.on_command(command),
                    None => return,
                },
                Ok(()) = changes.changed() => {
                    let members = Arc::clone(&changes.borrow_and_update());
                    self.set_members(members);
                }
                Some(done) = self.tasks.join_next() => self.on_done(done.unwrap_or(Done::Quiet)),
                place = events.reserve(), if !self.held.is_empty() => match (place, self.held.pop_front()) {
                    (Ok(place), Some(event)) => place.send(event),
                    // Nobody listens any more: the node is stopping.
                    (Ok(_) | Err(_), _) => self.held.clear(),
                },
                () = tokio::time::sleep_until(due.into()) => self.dial_due(),
                _ = second.tick() => self.on_second(),
            }
        }
    }

    /// Closes every connection in order, so that peers see an end and not a silence.
    async fn stop(mut self, done: oneshot::Sender<()>) {
        self.tasks.abort_all();
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // An error says that the peer is gone already.
            let _gone = self.swarm.disconnect_peer_id(peer);
        }
        let drained = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        // A peer that does not answer the close must not hold up the stop.
        let _late = tokio::time::timeout(Duration::from_secs(1), drained).await;
        drop(self);
        // Nobody waiting is fine.
        let _unheard = done.send(());
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::SetMesh(mesh) => self.set_mesh(mesh),
            Command::Dial(node) => self.dial_on_demand(node),
            Command::Gossip(bytes) => self.publish(bytes),
            Command::Report(id, verdict) => self.report(&id, verdict),
            Command::Open(node, proto, reply) => self.open(node, proto, reply),
            Command::Join { addrs, expected, request, reply } => self.join(addrs, expected, request, reply),
            Command::AddAddrs(node, addrs) => self.learn(node, addrs),
            Command::Stop(_) => {}
        }
    }

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        #[allow(clippy::wildcard_enum_match_arm, reason = "SwarmEvent is non-exhaustive; the rest needs no answer")]
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { connection_id, cause, .. } => {
                tracing::debug!(%connection_id, ?cause, "connection closed");
                self.on_closed(connection_id);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_dial_failed(connection_id, &error.to_string());
            }
            SwarmEvent::IncomingConnectionError { error, .. } => {
                tracing::debug!(%error, "a connection did not come up")
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                lock(&self.shared.listening).insert(address.clone());
                self.emit(NetEvent::Listening(address));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                lock(&self.shared.listening).remove(&address);
            }
            SwarmEvent::ListenerError { error, .. } => tracing::info!(%error, "a listener failed"),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gate(GateEvent::Active(conn)) => self.on_active(conn),
            BehaviourEvent::Gate(GateEvent::Inner(MembersOnlyEvent::Gossip(event))) => self.on_gossip(event),
            BehaviourEvent::Gate(GateEvent::Inner(MembersOnlyEvent::Identify(event))) => self.on_identify(event),
            BehaviourEvent::Wire(WireEvent::Inbound { conn, proto, stream, .. }) => self.on_stream(conn, proto, stream),
            BehaviourEvent::Wire(WireEvent::TooManyStreams { peer }) => {
                tracing::debug!(%peer, "a stream too many");
                count(&self.shared.counters.streams_dropped);
            }
            BehaviourEvent::Ping(event) => self.on_ping(event),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => self.on_found(found),
            BehaviourEvent::Mdns(mdns::Event::Expired(_)) => {}
            BehaviourEvent::Limits(never) => match never {},
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Greeted(conn, Ok((stream, life))) => self.on_control(conn, stream, life),
            Done::Greeted(conn, Err(error)) => self.on_ctl_failed(conn, &error),
            Done::Hello(conn, Ok((stream, life))) => self.on_hello(conn, stream, life),
            Done::Hello(conn, Err(error)) | Done::Ended(conn, error) => {
                self.on_ctl_failed(conn, &GreetError::Ctl(error))
            }
            Done::Joined(run, result) => self.on_joined(run, result),
            Done::Quiet => {}
        }
    }

    /// Once a second: ends what has lasted too long.
    fn on_second(&mut self) {
        let now = Instant::now();
        let old: Vec<ConnectionId> = self
            .conns
            .iter()
            .filter(|(_, c)| matches!(c.class, Class::Guest | Class::Greeting(_)))
            .filter(|(_, c)| now.duration_since(c.since) > limits::GUEST_TIME)
            .map(|(id, _)| *id)
            .collect();
        for conn in old {
            count(&self.shared.counters.guests_closed);
            self.swarm.close_connection(conn);
        }
        self.refresh_down();
    }

    /// Hands an event to the node; while the node is behind, it is held back.
    fn emit(&mut self, event: NetEvent) {
        if !self.held.is_empty() {
            self.held.push_back(event);
        } else if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
            self.held.push_back(event);
        }
    }

    /// Whether so much is held back that what can be spared is dropped.
    fn is_behind(&self) -> bool {
        self.held.len() >= limits::EVENTS_HELD_MAX
    }

    fn set_mesh(&mut self, mesh: MeshId) {
        let topic = gossip::topic_of(mesh);
        let gossip = &mut self.swarm.behaviour_mut().gate.inner_mut().gossip;
        if let Some(old) = self.topic.take() {
            gossip.unsubscribe(&old);
        }
        if let Err(error) = gossip.subscribe(&topic) {
            tracing::warn!(%error, "cannot take part in gossip");
        }
        self.topic = Some(topic);
    }

    fn publish(&mut self, bytes: Bytes) {
        let Some(topic) = self.topic.clone() else { return };
        let gossip = &mut self.swarm.behaviour_mut().gate.inner_mut().gossip;
        if let Err(error) = gossip.publish(topic, Vec::from(bytes)) {
            // Nobody there, or said a moment ago: repair brings it to those who come later.
            tracing::debug!(%error, "not gossiped");
        }
    }

    fn report(&mut self, id: &GossipId, verdict: Verdict) {
        let Ok(via) = node_id_to_peer_id(&id.via) else { return };
        let acceptance = match verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Reject => MessageAcceptance::Reject,
            Verdict::Ignore => MessageAcceptance::Ignore,
        };
        if verdict == Verdict::Reject {
            count(&self.shared.counters.gossip_rejected);
        }
        let gossip = &mut self.swarm.behaviour_mut().gate.inner_mut().gossip;
        gossip.report_message_validation_result(&MessageId::new(&id.id), &via, acceptance);
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let via = peer_id_to_node_id(&propagation_source).filter(|node| self.members.contains(node));
                let ours = self.topic.as_ref().is_some_and(|topic| topic.hash() == message.topic);
                let Some(via) = via.filter(|_| ours && !self.is_behind()) else {
                    count(&self.shared.counters.gossip_dropped);
                    let gossip = &mut self.swarm.behaviour_mut().gate.inner_mut().gossip;
                    let ignore = MessageAcceptance::Ignore;
                    gossip.report_message_validation_result(&message_id, &propagation_source, ignore);
                    return;
                };
                let id = GossipId { id: message_id.0, via };
                self.emit(NetEvent::Gossip { via, bytes: message.data.into(), id });
            }
            gossipsub::Event::SlowPeer { peer_id, failed_messages } => {
                tracing::debug!(%peer_id, ?failed_messages, "a peer takes gossip too slowly");
            }
            gossipsub::Event::Subscribed { .. }
            | gossipsub::Event::Unsubscribed { .. }
            | gossipsub::Event::GossipsubNotSupported { .. } => {}
        }
    }

    fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { connection_id, peer_id, info } = event else { return };
        let Some(node) = peer_id_to_node_id(&peer_id) else { return };
        let near = self.conns.get(&connection_id).is_some_and(|conn| book::is_loopback(&conn.addr));
        let addrs = info.listen_addrs.into_iter().take(2 * limits::ADDRS_PER_PEER_MAX);
        let addrs: Vec<Multiaddr> = addrs.filter(|addr| near || !book::is_loopback(addr)).map(book::bare).collect();
        self.learn(node, addrs.clone());
        // Told also where the book knew them, from a ticket say: what a member says of itself outlasts this process.
        let addrs: Vec<Multiaddr> = addrs.into_iter().filter(book::usable).take(limits::ADDRS_PER_PEER_MAX).collect();
        if self.members.contains(&node) && !addrs.is_empty() {
            self.emit(NetEvent::AddrsLearned { node, addrs });
        }
    }

    /// Takes over addresses of a member and tells the node of those that it does not know.
    fn learn(&mut self, node: NodeId, addrs: Vec<Multiaddr>) {
        let addrs = self.book.add(node, addrs);
        if !addrs.is_empty() {
            self.refresh(node);
            self.emit(NetEvent::AddrsLearned { node, addrs });
        }
    }

    fn on_ping(&mut self, event: ping::Event) {
        match event.result {
            Ok(rtt) => {
                let Some(conn) = self.conns.get(&event.connection) else { return };
                if matches!(conn.class, Class::Control) {
                    let node = conn.node;
                    if let Some(peer) = lock(&self.shared.peers).get_mut(&node) {
                        peer.rtt_ms = Some(rtt.as_secs_f64() * 1_000.0);
                    }
                    let micros = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
                    self.emit(NetEvent::Rtt { node, micros });
                }
            }
            Err(ping::Failure::Unsupported) => {}
            Err(error) => {
                tracing::debug!(peer = %event.peer, %error, "no answer to a ping");
                self.swarm.close_connection(event.connection);
            }
        }
    }

    fn on_found(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        let now = Instant::now();
        for (peer, addr) in found {
            let Some(node) = peer_id_to_node_id(&peer) else { continue };
            if self.members.contains(&node) {
                self.learn(node, vec![addr]);
                self.book.retry_soon(&node, now);
            } else {
                self.note_stranger(node, Some(addr));
            }
        }
    }

    /// Remembers where a node is reached that is no member (yet).
    fn note_stranger(&mut self, node: NodeId, addr: Option<Multiaddr>) {
        if !self.strangers.contains_key(&node) && self.strangers.len() >= limits::MDNS_STRANGERS_MAX {
            return;
        }
        let addrs = self.strangers.entry(node).or_default();
        let addr = addr.map(book::bare).filter(book::usable);
        if let Some(addr) = addr.filter(|addr| addrs.len() < limits::ADDRS_PER_PEER_MAX && !addrs.contains(addr)) {
            addrs.push(addr);
        }
    }
}

/// The peer's end of a connection.
fn remote_addr(endpoint: &ConnectedPoint) -> Multiaddr {
    book::bare(endpoint.get_remote_address().clone())
}
