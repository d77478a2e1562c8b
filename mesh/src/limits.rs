//! Bounds and intervals of the core's decisions. Those of what peers may send are in `crdt::limits`.

/// Silence after which a watcher declares an owner lost.
pub const LEASE_MS: u64 = 5_000;
/// Interval between two presences.
pub const PRESENCE_EVERY_MS: u64 = 1_000;
/// Time for which a node says that it is here without hearing from its core.
pub const PRESENCE_REPEATED_MS_MAX: u64 = 30_000;
/// Leases of silence of all watchers after which anybody may take over.
pub const LEASES_UNHEARD: u64 = 3;
/// Time in which a claim must run, beside the transfer of its inputs.
pub const START_BY_MS: u64 = 10_000;
/// Time beyond [`START_BY_MS`] and the transfer that a claim may state for what its owner holds already. More: watchers wait no
/// longer than this.
pub const START_BY_QUEUE_MS_MAX: u64 = 60_000;
/// Running time in which a better concurrent claim still makes the worse one give way.
pub const AWARD_SETTLES_MS: u64 = 2_000;
/// Nodes of a rank to which a spec is streamed at once.
pub const CALL_WIDTH: usize = 8;
/// Time after which the next in rank may claim.
pub const STAGGER_MS: u64 = 30;
/// Time that a call waits for a claim after its last stagger, before the next in rank are called.
pub const CALL_SLACK_MS: u64 = 120;
/// Age from which an open task may be drawn by whoever has a slot, without having been called: its claim, which everybody else
/// hears of by gossip within a second, would be known by then.
pub const DRAW_AFTER_MS: u64 = 1_500;
/// The same, of the tasks of a submitter that says that they wait for slots.
pub const DRAW_WAITING_AFTER_MS: u64 = 400;
/// The same, by a node whose slot frees.
pub const DRAW_ON_FREE_AFTER_MS: u64 = 40;
/// Interval in which a node with free slots looks for open tasks.
pub const DRAW_EVERY_MS: u64 = 250;
/// Tasks in the window that a draw looks at, per slot of the mesh.
pub const DRAW_WINDOW_PER_SLOT: usize = 10;
/// Work that a node claims ahead per slot.
pub const CLAIM_AHEAD_MS: u64 = 1_000;
/// Work of one array that a node holds ahead per slot, beside what runs: enough that no slot waits for a claim.
pub const ARRAY_AHEAD_MS: u64 = 100;
/// Tasks that a node claims of an array before it has measured one.
pub const CLAIM_UNMEASURED_TASKS: u32 = 4;
/// Time that a claim is assumed to take beside its tasks before one was measured.
pub const OVERHEAD_UNMEASURED_MS: u64 = 20;
/// Claims that a node holds beside those that run.
pub const CLAIMS_HELD_MAX: usize = 256;
/// Voters of a job whose tasks may start but once.
pub const VOTERS: usize = 3;
/// The same, where so many nodes are there.
pub const VOTERS_MANY: usize = crdt::limits::VOTERS_MAX;
/// Time after which a proposal without a decision begins anew, at least; doubles each time.
pub const PROPOSE_AGAIN_MS: u64 = 300;
/// Longest of these times.
pub const PROPOSE_AGAIN_MS_MAX: u64 = 10_000;
/// Interval between two flushes under load; bursts of [`FLUSH_BURST`] leave at once.
pub const FLUSH_EVERY_MS: u64 = 20;
/// Flushes that leave at once after a quiet time.
pub const FLUSH_BURST: u64 = 6;
/// Time after which a node that lost its store, or has it from a backup, no longer waits for members that are not here to say
/// what they know of its feed.
pub const HOLD_OWN_FEED_MS: u64 = 60_000;
/// Time after which it no longer waits for what somebody said that there is of its feed, and nobody gave: it may be a lie.
pub const HOLD_FOR_TOLD_MS: u64 = 600_000;
/// Interval in which such a node looks whether it has waited enough.
pub const HOLD_LOOK_EVERY_MS: u64 = 250;
/// Time that a driver may let gossip wait for more of it: whoever takes part in a job is told directly.
pub const GOSSIP_WAIT_MS: u64 = 50;
/// The same for presences: a small part of a lease.
pub const PRESENCE_WAIT_MS: u64 = 200;
/// Interval of gossip.
pub const GOSSIP_EVERY_MS: u64 = 1_000;
/// Bytes of bundles in one gossip message; what is larger is announced.
pub const GOSSIP_BYTES_MAX: usize = 48 * 1024;
/// Bytes of bundles in one direct message; more follow on request.
pub const BUNDLES_MESSAGE_BYTES_MAX: usize = 768 * 1024;
/// Bundles read from the shelf for one direct message.
pub const BUNDLES_PER_MESSAGE_MAX: usize = 512;
/// Authors in one message of heads.
pub const HEADS_PER_MESSAGE_MAX: usize = 4_096;
/// Authors that are not known here and of whose feeds others are said to have something. More: they are not asked for.
pub const STRANGE_HEADS_MAX: usize = 64;
/// Times that a range is asked for of who is said to have it. More: what was said of that feed is forgotten.
pub const WANT_TIMES_MAX: u32 = 8;
/// Bundles of a submitter that may be missing here while its tasks are drawn. More: first its feed is fetched.
pub const FEED_BEHIND_MAX: u64 = 16;
/// Bundles that may be missing of a feed before its newest are fetched first.
pub const FEED_FAR_BEHIND: u64 = 512;
/// Bundles of a feed that are fetched first.
pub const FEED_TAIL: u64 = 64;
/// Rounds of repair after which a tail goes to which no known feed leads.
pub const STALE_TAIL_ROUNDS: u32 = 6;
/// Shortest interval between two rosters for one peer.
pub const ROSTER_AGAIN_MS: u64 = 5_000;
/// Interval of repair with a random peer.
pub const REPAIR_EVERY_MS: u64 = 10_000;
/// Time after which a range that was asked for is asked for again.
pub const WANT_AGAIN_MS: u64 = 2_000;
/// Shortest interval between two offers of a node.
pub const OFFER_CHANGE_EVERY_MS: u64 = 1_000;
/// Interval of offers that did not change, at least.
pub const OFFER_EVERY_MS: u64 = 5_000;
/// The same, per member of the mesh.
pub const OFFER_EVERY_MS_PER_MEMBER: u64 = 50;
/// Intervals without an offer after which it is no longer counted on.
pub const OFFER_STALE_INTERVALS: u64 = 4;
/// Addresses of one offer.
pub const ADDRS_MAX: usize = 16;
/// Labels of one offer.
pub const LABELS_MAX: usize = 64;
/// Time that an acknowledgement waits for a receipt.
pub const RECEIPT_WAIT_MS: u64 = 100;
/// Time that an acceptance waits for a second holder before it says that the result is at risk.
pub const SECURE_WAIT_MS: u64 = 20_000;
/// Backoff after the first failed attempt; doubles each time.
pub const RETRY_BACKOFF_MS: u64 = 1_000;
/// Longest backoff.
pub const RETRY_BACKOFF_MS_MAX: u64 = 60_000;
/// Durations that a node remembers, by command.
pub const DURATIONS_MAX: usize = 512;
/// Time that is assumed for a task of which nothing is known.
pub const ESTIMATE_UNKNOWN_MS: u64 = 60_000;
/// Rate at which data is assumed to move, in bytes per millisecond.
pub const MOVE_BYTES_PER_MS: u64 = 100_000;
/// Tokens in one presence.
pub const TOKENS_PER_PRESENCE_MAX: usize = 2_048;
/// Reasons that are kept of one job's declines.
pub const DECLINES_KEPT_MAX: usize = 1_024;
/// Time that a finished job stays in memory after its last change.
pub const FORGET_AFTER_MS: u64 = 30_000;
/// Finished jobs that stay in memory. More: those that finished first go at once, and are read from their rows again if
/// something of them changes. Whoever joins a mesh with a long history sees all of its jobs finish within a minute.
pub const FINISHED_KEPT_MAX: usize = 2_048;
/// Time that the history of a finished job stays.
pub const RETENTION_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// Bytes of history that a node holds before the oldest finished jobs are sealed whatever their age.
pub const HISTORY_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Time that a finished job stays whole also when there is more history than that.
pub const HISTORY_KEEPS_MS: u64 = 3_600 * 1_000;
/// Time that bodies stay after their job was sealed, at most: a stolen node's seals can be taken back by a revocation.
pub const PRUNE_GRACE_MS_MAX: u64 = 24 * 3_600 * 1_000;
/// Time from the start of the node to its first look at old jobs, at most.
pub const RETAIN_FIRST_MS: u64 = 60_000;
/// Interval between two steps of a pass.
pub const RETAIN_STEP_MS: u64 = 1_000;
/// Interval between two passes, at most.
pub const RETAIN_REST_MS_MAX: u64 = 3_600_000;
/// Jobs that one step looks at.
pub const RETAIN_STEP_JOBS: usize = 512;
/// Jobs that one step seals.
pub const RETAIN_STEP_SEALS: u64 = 128;
/// Bundles that one step looks at.
pub const RETAIN_STEP_BUNDLES: usize = 512;
