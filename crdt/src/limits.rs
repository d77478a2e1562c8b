//! Every bound of the mesh in one place: each names its unit and says what happens when it is met.
//!
//! Bounds of what peers may send are part of the protocol (docs/protocol.md lists them); the others are local.

/// Nesting of a CBOR value. Deeper: refused.
pub const CBOR_DEPTH_MAX: usize = 24;

/// Bytes of a whole bundle on the wire. Larger: refused; an author splits what it has to say over several bundles.
pub const BUNDLE_BYTES_MAX: usize = 512 * 1024;
/// Changes in one bundle. More: refused; the author's flush starts another bundle.
pub const BUNDLE_CHANGES_MAX: usize = 1_024;
/// Bytes of one register's key. Longer: refused.
pub const KEY_BYTES_MAX: usize = 160;
/// Bytes of one register's value. Larger: refused; larger things are blobs.
pub const VALUE_BYTES_MAX: usize = 256 * 1024;
/// Bundles of one author that wait for a gap to close. More: the newest is dropped, repair brings it again.
pub const WAITING_BUNDLES_PER_AUTHOR_MAX: usize = 64;
/// Bundles of authors that are not known (yet). More: the newest is dropped, repair brings it again.
pub const WAITING_UNKNOWN_BUNDLES_MAX: usize = 256;
/// Bytes of an entry's title.
pub const ENTRY_TITLE_BYTES_MAX: usize = 1_024;
/// Bytes of an entry's body.
pub const ENTRY_BODY_BYTES_MAX: usize = 128 * 1024;
/// Tags of an entry.
pub const ENTRY_TAGS_MAX: usize = 64;
/// Bytes of a tag, and of a language's name.
pub const ENTRY_TAG_BYTES_MAX: usize = 128;
/// Attachments of an entry.
pub const ENTRY_ATTACHMENTS_MAX: usize = 256;
/// Bytes of a policy's name.
pub const POLICY_NAME_BYTES_MAX: usize = 32;
/// Bytes of what a policy says.
pub const POLICY_VALUE_BYTES_MAX: usize = 1_024;
/// Artifacts that an outcome names.
pub const OUTCOME_ARTIFACTS_MAX: usize = 64;
/// Nodes that an outcome names.
pub const OUTCOME_NODES_MAX: usize = 16;
/// Bytes of an attachment's name.
pub const ENTRY_NAME_BYTES_MAX: usize = 1_024;
/// Entries that an entry says to come after.
pub const ENTRY_SEEN_MAX: usize = 256;
/// Bytes of the delegation in a program's entry.
pub const ENTRY_MANDATE_BYTES_MAX: usize = 4 * 1024;
/// Milliseconds that a stamp may lie ahead before no clock advances from it.
pub const CLOCK_AHEAD_MS_MAX: u64 = 5 * 60 * 1_000;

/// Members of a mesh. More: an invite is refused.
pub const MEMBERS_MAX: usize = 1_000;
/// Uses that one invite may have.
pub const INVITE_USES_MAX: u32 = 1_000;
/// Rounds in which the roster's fold looks for its fixed point; a chain of admins longer than this is cut there.
pub const ROSTER_ROUNDS_MAX: usize = 16;
/// Bytes of a name (of a node, person or job). Longer: refused where it is entered.
pub const NAME_BYTES_MAX: usize = 128;
/// Bytes of a ticket's text. Longer: refused.
pub const TICKET_BYTES_MAX: usize = 8 * 1024;
/// Addresses that a ticket carries.
pub const TICKET_ADDRS_MAX: usize = 16;

/// Tasks of one job array. More: refused at submit.
pub const TASKS_PER_JOB_MAX: u32 = 1_000_000;
/// Tasks in one claimed range, so that a run's report stays below [`VALUE_BYTES_MAX`].
pub const TASKS_PER_CLAIM_MAX: u32 = 2_000;
/// Attempts of one task, whatever the spec's retries. More: the task fails.
pub const ATTEMPTS_MAX: u32 = 100;
/// Lost attempts after which a task fails, for its owners vanish.
pub const LOST_ATTEMPTS_MAX: u32 = 3;
/// Voters of a job whose tasks may start but once.
pub const VOTERS_MAX: usize = 5;
/// Watchers that a claim may name: the submitter's node and four more.
pub const WATCHERS_MAX: usize = 5;
/// Artifacts named in a run's report itself. More: the report names a blob with the whole list.
pub const ARTIFACTS_INLINE_MAX: usize = 200;
/// Artifacts of one run. More: those found last are left out, and the node's owner is told.
pub const ARTIFACTS_PER_RUN_MAX: usize = 50_000;
/// Bytes of a list of artifacts. Larger: it is not read.
pub const ARTIFACT_LIST_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Bytes of a sealed job's record. Larger: refused; whoever seals shortens the command first.
pub const SEAL_BYTES_MAX: usize = 300;
/// Bytes of output that stay inline in a run's report.
pub const LOG_INLINE_BYTES_MAX: usize = 4 * 1024;
