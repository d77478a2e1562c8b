//! Links, latencies, partitions, and how gossip spreads.
//!
//! Direct messages travel a link in order, unless the run's faults reorder, lose or double them. Gossip floods an overlay of
//! about four neighbours per node, as the real one does; what a node receives twice is counted and not handed on.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Shortest latency of any link of a small mesh: nothing that is sent arrives within it.
const LATENCY_US_MIN: u64 = 150;
/// The same of a large one, which has more than one switch.
const LATENCY_US_MIN_LARGE: u64 = 300;
/// Nodes up to which everybody is connected with everybody, as in `node`.
pub(crate) const FULL_MESH_MAX: usize = 64;
/// Peers that a node dials in a larger mesh; as many again dial it.
const DIALS: usize = 12;
/// Neighbours that a node picks for gossip; as many again pick it.
const GOSSIP_PICKS: usize = 2;

/// What the links of one run are like.
#[derive(Debug, Clone, Default)]
pub(crate) struct Weather {
    /// Sites between which latencies are those of a wide-area network.
    pub(crate) sites: u8,
    /// Site that hangs on a satellite.
    pub(crate) satellite: Option<u8>,
    /// Messages lost, of a million.
    pub(crate) loss_ppm: u32,
    /// Messages doubled, of a million.
    pub(crate) double_ppm: u32,
    /// Whether messages of a link overtake each other.
    pub(crate) reorders: bool,
}

/// The network.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) weather: Weather,
    rng: ChaCha8Rng,
    links: Vec<BTreeSet<u32>>,
    overlay: Vec<Vec<u32>>,
    overlay_is_old: bool,
    /// Side of the partition on which each node is.
    pub(crate) side: Vec<u8>,
    /// Ways on which nothing passes, from the first to the second.
    pub(crate) one_way: BTreeSet<(u32, u32)>,
    /// Nodes whose links are slow.
    pub(crate) slow: BTreeSet<u32>,
    last_us: BTreeMap<(u32, u32), u64>,
}

/// Where gossip arrives: at whom, after how long, from whom, and how many copies.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) to: u32,
    pub(crate) after_us: u64,
    pub(crate) via: u32,
    pub(crate) copies: u32,
}

impl Network {
    pub(crate) fn new(count: usize, rng: ChaCha8Rng) -> Self {
        Self {
            weather: Weather { sites: 1, ..Weather::default() },
            rng,
            links: vec![BTreeSet::new(); count],
            overlay: vec![Vec::new(); count],
            overlay_is_old: true,
            side: vec![0; count],
            one_way: BTreeSet::new(),
            slow: BTreeSet::new(),
            last_us: BTreeMap::new(),
        }
    }

    /// The pairs that connect in a quiet network.
    pub(crate) fn pairs(&mut self) -> Vec<(u32, u32)> {
        let count = u32::try_from(self.links.len()).expect("few nodes");
        if self.links.len() <= FULL_MESH_MAX {
            return (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))).collect();
        }
        let mut pairs = BTreeSet::new();
        for a in 0..count {
            for _ in 0..DIALS {
                let b = self.rng.random_range(0..count);
                if a != b {
                    pairs.insert((a.min(b), a.max(b)));
                }
            }
        }
        pairs.into_iter().collect()
    }

    pub(crate) fn is_linked(&self, a: u32, b: u32) -> bool {
        self.links[a as usize].contains(&b)
    }

    pub(crate) fn links_of(&self, a: u32) -> Vec<u32> {
        self.links[a as usize].iter().copied().collect()
    }

    /// Answers whether that changed anything.
    pub(crate) fn set_link(&mut self, a: u32, b: u32, up: bool) -> bool {
        self.overlay_is_old = true;
        if !up {
            self.links[b as usize].remove(&a);
            return self.links[a as usize].remove(&b);
        }
        self.last_us.remove(&(a, b));
        self.last_us.remove(&(b, a));
        self.links[b as usize].insert(a);
        self.links[a as usize].insert(b)
    }

    /// Whether anything passes from one node to another at present.
    pub(crate) fn passes(&self, from: u32, to: u32) -> bool {
        self.side[from as usize] == self.side[to as usize] && !self.one_way.contains(&(from, to))
    }

    fn site(&self, at: u32) -> u8 {
        u8::try_from(at % u32::from(self.weather.sites.max(1))).expect("few sites")
    }

    /// Shortest latency of any link: nothing that is sent arrives within it.
    pub(crate) fn latency_us_min(&self) -> u64 {
        if self.links.len() > FULL_MESH_MAX { LATENCY_US_MIN_LARGE } else { LATENCY_US_MIN }
    }

    fn latency_us(&mut self, from: u32, to: u32) -> u64 {
        let (a, b) = (self.site(from), self.site(to));
        let base = if a == b {
            self.latency_us_min()
        } else if self.weather.satellite.is_some_and(|site| site == a || site == b) {
            280_000
        } else {
            // Of each pair of sites its own, the same both ways.
            5_000 + u64::from(a.min(b) * 7 + a.max(b)) * 3_000 % 50_000
        };
        let jitter = if self.rng.random_range(0..100) == 0 { base * 2 + 3_000 } else { base / 4 + 400 };
        let slow = if self.slow.contains(&from) || self.slow.contains(&to) { 400_000 } else { 0 };
        base + self.rng.random_range(0..jitter) + self.rng.random_range(0..=slow)
    }

    fn happens(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.rng.random_range(0..1_000_000) < ppm
    }

    /// When a direct message arrives: never, once or twice.
    pub(crate) fn deliver_at(&mut self, from: u32, to: u32, sent_us: u64) -> Vec<u64> {
        if !self.is_linked(from, to) || self.happens(self.weather.loss_ppm) {
            return Vec::new();
        }
        let mut at = sent_us + self.latency_us(from, to);
        if !self.weather.reorders {
            at = at.max(self.last_us.get(&(from, to)).copied().unwrap_or(0) + 1);
            self.last_us.insert((from, to), at);
        }
        let mut times = vec![at];
        if self.happens(self.weather.double_ppm) {
            times.push(at + self.rng.random_range(1..2_000_000));
        }
        times
    }

    /// Whom a gossiped message reaches. `is_up` says who passes anything on.
    pub(crate) fn spread(&mut self, from: u32, is_up: impl Fn(u32) -> bool) -> Vec<Heard> {
        if self.overlay_is_old {
            self.draw_overlay();
        }
        const UNREACHED: (u64, u32) = (u64::MAX, u32::MAX);
        let mut best = vec![UNREACHED; self.links.len()];
        let mut heap = BinaryHeap::from([Reverse((0u64, from, from))]);
        let overlay = std::mem::take(&mut self.overlay);
        while let Some(Reverse((at, node, via))) = heap.pop() {
            if best[node as usize] != UNREACHED {
                continue;
            }
            best[node as usize] = (at, via);
            for next in overlay[node as usize].iter().copied() {
                let lost = self.happens(self.weather.loss_ppm);
                let heard = next == via || best[next as usize] != UNREACHED;
                if heard || lost || !is_up(next) || !self.passes(node, next) {
                    continue;
                }
                // Passing on: decoding and validation beside the transport.
                let hop = self.latency_us(node, next) + self.rng.random_range(100..800);
                heap.push(Reverse((at + hop, next, node)));
            }
        }
        let copies = |to: u32| {
            let sends = |by: &&u32| best[**by as usize] != UNREACHED && best[**by as usize].1 != to;
            u32::try_from(overlay[to as usize].iter().filter(sends).count()).unwrap_or(1).max(1)
        };
        let heard = (0u32..)
            .zip(&best)
            .filter(|(to, reached)| *to != from && **reached != UNREACHED)
            .map(|(to, (after_us, via))| Heard { to, after_us: *after_us, via: *via, copies: copies(to) })
            .collect();
        self.overlay = overlay;
        heard
    }

    fn draw_overlay(&mut self) {
        self.overlay_is_old = false;
        let mut picked: Vec<BTreeSet<u32>> = vec![BTreeSet::new(); self.links.len()];
        for a in 0..self.links.len() {
            let peers: Vec<u32> = self.links[a].iter().copied().collect();
            for _ in 0..GOSSIP_PICKS.min(peers.len()) {
                let b = peers[self.rng.random_range(0..peers.len())];
                picked[a].insert(b);
                picked[b as usize].insert(u32::try_from(a).expect("few nodes"));
            }
        }
        self.overlay = picked.into_iter().map(|peers| peers.into_iter().collect()).collect();
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn gossip_reaches_everybody_of_a_large_mesh_on_its_own_side() {
        let mut net = Network::new(200, ChaCha8Rng::seed_from_u64(1));
        for (a, b) in net.pairs() {
            net.set_link(a, b, true);
        }
        assert_eq!(net.spread(0, |_| true).len(), 199);
        for at in 100..200 {
            net.side[at] = 1;
        }
        let heard = net.spread(0, |_| true);
        assert!(heard.iter().all(|h| h.to < 100 && h.after_us >= LATENCY_US_MIN_LARGE && h.copies > 0));
        assert!(heard.len() > 50, "most of them, though half of the neighbours are cut off");
    }
}
