//! Every bound of the network, with its unit and what happens when it is met.

use std::time::Duration;

/// Bytes of one control frame. Larger: `send` answers `TooLarge`; a peer that sends one loses its connection.
pub(crate) const CTL_FRAME_BYTES_MAX: usize = 1 << 20;
/// Frames waiting for one peer. More: `send` answers `Full`, the caller keeps the newest.
pub(crate) const CTL_QUEUE_FRAMES_MAX: usize = 16_384;
/// Bytes waiting for one peer. More: `send` answers `Full`.
pub(crate) const CTL_QUEUE_BYTES_MAX: usize = 32 << 20;
/// Bytes that one write to a control stream gathers from the queue, so that many small frames share one record.
pub(crate) const CTL_BATCH_BYTES: usize = 64 << 10;
/// Control frames that a peer may send per second, averaged. More: its stream is read more slowly.
pub(crate) const CTL_FRAMES_PER_S: u32 = 50_000;
/// Control bytes that a peer may send per second, averaged. More: its stream is read more slowly.
pub(crate) const CTL_BYTES_PER_S: u32 = 128 << 20;
/// From the first byte of a control stream to both greetings. Longer: the connection is closed.
pub(crate) const CTL_HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a greeting. Larger: the connection is closed.
pub(crate) const CTL_HELLO_BYTES_MAX: usize = 256;

/// Bytes of one gossip message. Larger: `gossip` answers `TooLarge` (larger bundles are announced and fetched).
pub(crate) const GOSSIP_BYTES_MAX: usize = 64 << 10;
/// Bytes of a gossip message from which on a node tells its neighbours at once that it has it (IDONTWANT, some 30 bytes to each),
/// so that fewer copies come.
pub(crate) const GOSSIP_TELL_BYTES: usize = 256;
/// Envelope that gossipsub adds to a message, in bytes.
pub(crate) const GOSSIP_ENVELOPE_BYTES: usize = 1 << 10;
/// Messages that wait in a peer's gossip queue. More: dropped there, and repair brings them.
pub(crate) const GOSSIP_QUEUE_MAX: usize = 20_000;
/// How long a message may wait in a peer's gossip queue. Longer: dropped there, and repair brings it.
pub(crate) const GOSSIP_QUEUE_DURATION: Duration = Duration::from_secs(60);
/// How long an identical message counts as the same one.
pub(crate) const GOSSIP_DUPLICATE_TIME: Duration = Duration::from_secs(60);
/// Topics that a peer may subscribe to. More: its subscriptions are ignored.
pub(crate) const GOSSIP_TOPICS_MAX: usize = 4;

/// Bytes of a request to join. Larger: the stream is closed.
pub(crate) const JOIN_REQUEST_BYTES_MAX: usize = 64 << 10;
/// Bytes of an answer to a joiner. Larger: the stream is closed.
pub(crate) const JOIN_REPLY_BYTES_MAX: usize = 1 << 20;
/// For a request to join and its answer. Longer: given up.
pub(crate) const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests to join that are answered at once. More: the stream is closed.
pub(crate) const JOINS_AT_ONCE_MAX: usize = 16;
/// Requests to join from one address per minute. More: the stream is closed.
pub(crate) const JOINS_PER_ADDRESS_PER_MIN: u32 = 30;
/// Addresses whose requests to join are counted apart. More: the oldest is forgotten.
pub(crate) const JOIN_ADDRESSES_MAX: usize = 1_024;
/// Addresses that one request to join tries. More: the rest is not tried.
pub(crate) const JOIN_TARGETS_MAX: usize = 16;

/// Streams that a peer may hold open on one connection. More: the newest is dropped.
pub(crate) const STREAMS_PER_CONNECTION_MAX: usize = 256;
/// Streams that may be negotiating on one connection. More: dropped.
pub(crate) const STREAMS_NEGOTIATING_MAX: usize = 64;
/// For a stream to be opened. Longer: `open_stream` answers `Timeout`.
pub(crate) const STREAM_OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that others opened to us. More: refused at the door.
pub(crate) const CONNECTIONS_IN_MAX: u32 = 512;
/// Connections that we opened. More: the dial fails and is tried again later.
pub(crate) const CONNECTIONS_OUT_MAX: u32 = 512;
/// Connections with one peer: two of control at most (each dialled one), bulk, and what is closing. More: refused.
pub(crate) const CONNECTIONS_PER_PEER_MAX: u32 = 8;
/// Incoming connections in their handshake. More: refused.
pub(crate) const CONNECTIONS_PENDING_IN_MAX: u32 = 128;
/// Outgoing connections in their handshake. More: the dial fails and is tried again later.
pub(crate) const CONNECTIONS_PENDING_OUT_MAX: u32 = 128;
/// Connections of those that are no members. More: refused.
pub(crate) const GUESTS_MAX: usize = 32;
/// Life of a connection that is neither control nor bulk (a joiner's, or one that never spoke). Longer: closed.
pub(crate) const GUEST_TIME: Duration = Duration::from_secs(30);
/// Silence after which a connection without streams (a bulk connection) is closed.
pub(crate) const IDLE_TIME: Duration = Duration::from_secs(30);
/// Members up to which a node holds a connection with everyone.
pub(crate) const FULL_MESH_MEMBERS_MAX: usize = 64;
/// Peers that a node keeps connected in a larger mesh; the others are dialled when something is sent to them.
pub(crate) const NEIGHBOURS_MAX: usize = 24;

/// Addresses that are remembered of one peer. More: the one that worked longest ago is forgotten.
pub(crate) const ADDRS_PER_PEER_MAX: usize = 16;
/// Bytes of one address. Longer: ignored.
pub(crate) const ADDR_BYTES_MAX: usize = 256;
/// Peers that multicast told of and that are no members. More: ignored.
pub(crate) const MDNS_STRANGERS_MAX: usize = 256;
/// First wait after a failed dial or a lost connection.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// Longest wait between two dials.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Head start of the smaller id when two members would dial each other.
pub(crate) const DIAL_HEAD_START: Duration = Duration::from_millis(200);

/// Commands on their way to the network task. More: `gossip` answers `Full`, a report is dropped (the message then is not
/// passed on from here), others wait.
pub(crate) const COMMANDS_MAX: usize = 32_768;
/// Events on their way to the node. More: control streams are read no further; gossip and streams are dropped.
pub(crate) const EVENTS_MAX: usize = 8_192;
/// Events that the network task holds back while the channel is full. More: gossip is ignored, streams are closed.
pub(crate) const EVENTS_HELD_MAX: usize = 65_536;

/// Between two pings of a connection.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(5);
/// For a ping's answer. Longer: the connection is closed.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(10);
