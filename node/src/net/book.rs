//! Where members are to be found, and when to try them: addresses, backoff, and whom a node keeps connected.
//!
//! Pure: time goes in, and jitter is drawn from a hash of (us, them, attempt), so that a run can be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crdt::ids::NodeId;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::limits::{
    ADDR_BYTES_MAX, ADDRS_PER_PEER_MAX, BACKOFF_MAX, BACKOFF_MIN, DIAL_HEAD_START, FULL_MESH_MEMBERS_MAX,
    NEIGHBOURS_MAX,
};

/// Whether anything is under way with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not connected; may be dialled from this time.
    Idle(Instant),
    Dialing,
    Connected,
}

#[derive(Debug)]
struct Entry {
    /// The one that worked last comes first.
    addrs: Vec<Multiaddr>,
    state: State,
    /// Failures since the last success.
    failures: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Book {
    me: NodeId,
    entries: BTreeMap<NodeId, Entry>,
    /// Members that this node dials on its own.
    kept: BTreeSet<NodeId>,
}

impl Book {
    pub(crate) fn new(me: NodeId) -> Self {
        Self { me, entries: BTreeMap::new(), kept: BTreeSet::new() }
    }

    /// Takes over who is a member. Addresses of those who are gone are forgotten.
    pub(crate) fn set_members(&mut self, members: &BTreeSet<NodeId>, now: Instant) {
        self.entries.retain(|node, _| members.contains(node));
        for node in members.iter().filter(|node| **node != self.me) {
            // The larger id waits a little, so that two that start together need not open two connections.
            let at = if self.me < *node { now } else { now + DIAL_HEAD_START };
            self.entries.entry(*node).or_insert(Entry { addrs: Vec::new(), state: State::Idle(at), failures: 0 });
        }
        self.kept = neighbours(self.me, members);
    }

    /// Adds addresses at the end of a member's list; answers those that were not known. Strangers have no entry.
    pub(crate) fn add(&mut self, node: NodeId, addrs: impl IntoIterator<Item = Multiaddr>) -> Vec<Multiaddr> {
        let Some(entry) = self.entries.get_mut(&node) else { return Vec::new() };
        let mut added = Vec::new();
        for addr in addrs {
            let addr = bare(addr);
            if usable(&addr) && !entry.addrs.contains(&addr) {
                if entry.addrs.len() >= ADDRS_PER_PEER_MAX {
                    entry.addrs.pop();
                }
                entry.addrs.push(addr.clone());
                added.push(addr);
            }
        }
        added
    }

    pub(crate) fn addrs(&self, node: &NodeId) -> &[Multiaddr] {
        self.entries.get(node).map_or(&[], |entry| &entry.addrs)
    }

    /// Whether a dial asked for by a sender makes sense at this moment.
    pub(crate) fn is_dialable(&self, node: &NodeId, now: Instant) -> bool {
        self.entries.get(node).is_some_and(|e| !e.addrs.is_empty() && matches!(e.state, State::Idle(at) if at <= now))
    }

    pub(crate) fn is_dialing(&self, node: &NodeId) -> bool {
        self.entries.get(node).is_some_and(|entry| entry.state == State::Dialing)
    }

    /// Marks a dial that begins.
    pub(crate) fn begin_dial(&mut self, node: &NodeId) {
        if let Some(entry) = self.entries.get_mut(node) {
            entry.state = State::Dialing;
        }
    }

    /// A connection stands; `addr` is where it was dialled, if we dialled it.
    pub(crate) fn connected(&mut self, node: &NodeId, addr: Option<&Multiaddr>) {
        let Some(entry) = self.entries.get_mut(node) else { return };
        entry.state = State::Connected;
        entry.failures = 0;
        if let Some(addr) = addr.cloned().map(bare).filter(usable) {
            entry.addrs.retain(|known| *known != addr);
            entry.addrs.insert(0, addr);
            entry.addrs.truncate(ADDRS_PER_PEER_MAX);
        }
    }

    /// A dial failed or the last connection is gone; the next dial waits.
    pub(crate) fn lost(&mut self, node: &NodeId, now: Instant) {
        let me = self.me;
        let Some(entry) = self.entries.get_mut(node) else { return };
        entry.state = State::Idle(now + backoff(me, *node, entry.failures));
        entry.failures = entry.failures.saturating_add(1);
    }

    /// Somebody showed that this member is there: no reason to wait any longer.
    pub(crate) fn retry_soon(&mut self, node: &NodeId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(node)
            && matches!(entry.state, State::Idle(_))
        {
            entry.failures = 0;
            entry.state = State::Idle(now);
        }
    }

    /// Kept members whose time to be dialled has come.
    pub(crate) fn due(&self, now: Instant) -> Vec<NodeId> {
        self.kept_idle().filter(|(_, at)| *at <= now).map(|(node, _)| node).collect()
    }

    /// When `due` next has something.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.kept_idle().map(|(_, at)| at).min()
    }

    fn kept_idle(&self) -> impl Iterator<Item = (NodeId, Instant)> {
        self.kept.iter().filter_map(|node| {
            let entry = self.entries.get(node)?;
            match entry.state {
                State::Idle(at) if !entry.addrs.is_empty() => Some((*node, at)),
                State::Idle(_) | State::Dialing | State::Connected => None,
            }
        })
    }
}

/// The wait after `failures` failures: doubling, with up to half of it as jitter.
fn backoff(me: NodeId, them: NodeId, failures: u32) -> Duration {
    let full = BACKOFF_MIN.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
    let mut hasher = blake3::Hasher::new();
    hasher.update(me.as_bytes()).update(them.as_bytes()).update(&failures.to_be_bytes());
    let draw = hasher.finalize().as_bytes()[0];
    full.mul_f64(0.75 + f64::from(draw) / 255.0 * 0.25)
}

/// Whom a node keeps connected: everyone in a small mesh; in a larger one those at distances 1, 2, 4, … around the ring of
/// ids, then the next ones, so that the graph is connected and its diameter logarithmic.
fn neighbours(me: NodeId, members: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let others: Vec<NodeId> = members.range(me..).chain(members.range(..me)).copied().filter(|n| *n != me).collect();
    if members.len() <= FULL_MESH_MEMBERS_MAX {
        return others.into_iter().collect();
    }
    let powers = (0..usize::BITS).map(|bit| (1_usize << bit) - 1).take_while(|at| *at < others.len());
    let mut kept = BTreeSet::new();
    for at in powers.chain(0..others.len()) {
        if kept.len() >= NEIGHBOURS_MAX {
            break;
        }
        kept.insert(others[at]);
    }
    kept
}

/// An address without a peer's name at its end: the name is checked apart.
pub(crate) fn bare(mut addr: Multiaddr) -> Multiaddr {
    while matches!(addr.iter().last(), Some(Protocol::P2p(_))) {
        addr.pop();
    }
    addr
}

/// The same address with the system's choice of port.
#[allow(clippy::wildcard_enum_match_arm, reason = "everything but the port stays as it is")]
pub(crate) fn with_any_port(addr: &Multiaddr) -> Multiaddr {
    let free = |part| match part {
        Protocol::Tcp(_) => Protocol::Tcp(0),
        Protocol::Udp(_) => Protocol::Udp(0),
        other => other,
    };
    addr.iter().map(free).collect()
}

/// The same port on every address of the family.
#[allow(clippy::wildcard_enum_match_arm, reason = "everything but the address stays as it is")]
pub(crate) fn on_every_interface(addr: &Multiaddr) -> Multiaddr {
    let every = |part| match part {
        Protocol::Ip4(_) => Protocol::Ip4(std::net::Ipv4Addr::UNSPECIFIED),
        Protocol::Ip6(_) => Protocol::Ip6(std::net::Ipv6Addr::UNSPECIFIED),
        other => other,
    };
    addr.iter().map(every).collect()
}

/// Whether an address is one that this node can dial: an IP address with a TCP or QUIC port.
pub(crate) fn usable(addr: &Multiaddr) -> bool {
    let mut parts = addr.iter();
    let specified = match parts.next() {
        Some(Protocol::Ip4(ip)) => !ip.is_unspecified(),
        Some(Protocol::Ip6(ip)) => !ip.is_unspecified(),
        Some(_) | None => false,
    };
    let port = match (parts.next(), parts.next(), parts.next()) {
        (Some(Protocol::Tcp(port)), None, None) | (Some(Protocol::Udp(port)), Some(Protocol::QuicV1), None) => port,
        (_, _, _) => 0,
    };
    specified && port != 0 && addr.len() <= ADDR_BYTES_MAX
}

/// Whether an address leads back to the machine that dials it.
pub(crate) fn is_loopback(addr: &Multiaddr) -> bool {
    match addr.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn addr(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("a literal address")
    }

    #[test]
    fn backoff_grows_to_a_minute_and_starts_again_after_success() {
        let start = Instant::now();
        let mut book = Book::new(node(1));
        book.set_members(&BTreeSet::from([node(1), node(2)]), start);
        book.add(node(2), [addr(1)]);
        let mut waits = Vec::new();
        for _ in 0..12 {
            book.begin_dial(&node(2));
            assert_eq!(book.next_due(), None);
            book.lost(&node(2), start);
            waits.push(book.next_due().expect("a retry is planned") - start);
        }
        assert!(waits[0] <= BACKOFF_MIN && waits[0] >= BACKOFF_MIN / 2, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= BACKOFF_MAX));
        assert!(waits[11] >= BACKOFF_MAX / 2, "{waits:?}");
        book.connected(&node(2), None);
        book.lost(&node(2), start);
        assert!(book.next_due().expect("a retry is planned") - start <= BACKOFF_MIN);
    }

    #[test]
    fn the_address_that_worked_is_tried_first_and_the_list_is_bounded() {
        let mut book = Book::new(node(1));
        book.set_members(&BTreeSet::from([node(1), node(2)]), Instant::now());
        book.add(node(2), (1..100).map(addr));
        assert_eq!(book.addrs(&node(2)).len(), ADDRS_PER_PEER_MAX);
        book.connected(&node(2), Some(&addr(500)));
        assert_eq!(book.addrs(&node(2))[0], addr(500));
        assert_eq!(book.addrs(&node(2)).len(), ADDRS_PER_PEER_MAX);
    }

    #[test]
    fn a_large_mesh_is_connected_with_few_neighbours_each() {
        let members: BTreeSet<NodeId> =
            (0..500_u32).map(|n| NodeId(*blake3::hash(&n.to_be_bytes()).as_bytes())).collect();
        let first = *members.first().expect("500 members");
        let (mut seen, mut queue) = (BTreeSet::from([first]), vec![(first, 0)]);
        let mut depth = 0;
        while let Some((at, far)) = queue.pop() {
            depth = depth.max(far);
            for next in neighbours(at, &members) {
                if seen.insert(next) {
                    queue.insert(0, (next, far + 1));
                }
            }
        }
        assert_eq!(seen.len(), members.len());
        assert!(depth <= 9, "{depth}");
        assert!(neighbours(first, &members).len() <= NEIGHBOURS_MAX);
    }

    #[test]
    fn addresses_that_cannot_be_dialled_are_not_kept() {
        for bad in ["/ip4/0.0.0.0/tcp/1", "/ip4/1.2.3.4/tcp/0", "/dns4/example.org/tcp/1", "/memory/1", "/ip4/1.2.3.4"]
        {
            assert!(!usable(&bad.parse().expect("a literal address")), "{bad}");
        }
        for good in ["/ip4/1.2.3.4/tcp/1", "/ip6/::1/udp/9/quic-v1"] {
            assert!(usable(&good.parse().expect("a literal address")), "{good}");
        }
    }
}
