//! Five authors of one mesh and what they write: a founder, an admin, three workers.

#![allow(dead_code, reason = "each test target uses its part")]

use std::collections::BTreeSet;

use bytes::Bytes;
use crdt::SigningKey;
use crdt::bundle::{Bundle, Change};
use crdt::doc::{DocId, Key, TaskRange};
use crdt::ids::{BundleHash, InviteId, JobId, MeshId, NodeId, NoteId, PersonId, TraceId};
use crdt::job::{
    Accept, Basis, Claim, Control, ControlOp, Exit, JobSpec, Lost, Origin, Outcome, RunReport, Seal, SealedRun,
    TaskReport, job_id_of_key, job_id_of_nonce,
};
use crdt::notebook::Notebook;
use crdt::replica::{Checkpoint, ForkProof, FoundingWords, Replica};
use crdt::roster::{Admission, Invite, Person, Revocation, Role, RoleChange};
use crdt::shelf::{MemoryShelf, Shelf, Table};
use serde_bytes::ByteArray;

/// The clock of all writers, in milliseconds since 1970.
pub(crate) const NOW_MS: u64 = 1_800_000_000_000;
/// Founder, admin, three workers.
pub(crate) const AUTHORS: usize = 5;

/// What one author may write next; numbers are taken modulo what there is.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Spec {
        job: u8,
        tasks: u8,
        made_ms: u8,
    },
    Claim {
        job: u8,
        attempt: u8,
        start: u8,
        len: u8,
        lost: bool,
    },
    Run {
        job: u8,
        attempt: u8,
        start: u8,
        len: u8,
        code: u8,
        ended: bool,
    },
    Lost {
        job: u8,
        attempt: u8,
        start: u8,
        len: u8,
        owner: u8,
    },
    Accept {
        job: u8,
        start: u8,
        len: u8,
    },
    /// A record of a job, true or not.
    Seal {
        job: u8,
        tasks: u8,
        end: u8,
        outcome: u8,
    },
    /// Up to one of the last places of an author's feed bodies may go; its own word, an admin's, or nobody's who may.
    Checkpoint {
        target: u8,
        back: u8,
    },
    Cancel {
        job: u8,
        n: u8,
    },
    Priority {
        job: u8,
        n: u8,
        value: u8,
    },
    Note {
        note: u8,
        text: u8,
    },
    Role {
        target: u8,
        n: u8,
        role: u8,
        after: u8,
    },
    Revoke {
        target: u8,
        last: u8,
    },
    Person {
        n: u8,
    },
    Invite {
        n: u8,
    },
    /// A sixth node is let in under an invite of one of the admins.
    Admit {
        by: u8,
    },
}

/// All that was ever signed, and who signed it.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) keys: Vec<SigningKey>,
    pub(crate) mesh: MeshId,
    pub(crate) feeds: Vec<Vec<Bundle>>,
    notes: Vec<Vec<Notebook>>,
}

impl Mesh {
    /// The mesh with its founder, its admin and its workers; the sixth key is nobody yet.
    pub(crate) fn new() -> Self {
        let keys: Vec<SigningKey> = (1..=6).map(|n| SigningKey::from_bytes(&[n; 32])).collect();
        let words = FoundingWords {
            mesh_name: "five".into(),
            node_name: "founder".into(),
            recovery: SigningKey::from_bytes(&[99; 32]).verifying_key().to_bytes(),
            nonce: [4; 16],
            now_ms: NOW_MS,
        };
        let (_, first, _) = Replica::found(MemoryShelf::default(), &keys[0], &words);
        let note = |n| Notebook::new(NoteId([n; 16]));
        let notes = keys.iter().map(|_| (0..2).map(note).collect()).collect();
        let mut mesh = Self { mesh: MeshId(first.hash.0), feeds: vec![Vec::new(); 6], keys, notes };
        mesh.feeds[0].push(first);
        let mut changes = Vec::new();
        for (role, n) in [(Role::Admin, 201), (Role::Worker, 202)] {
            let terms = Invite { role, expires_ms: u64::MAX, uses: 9, person: None };
            changes.push(Change::register(DocId::ROSTER, &Key::Invite(invite_id(n)), &terms));
        }
        for at in 1..AUTHORS {
            changes.push(mesh.admission(at, if at == 1 { 201 } else { 202 }));
        }
        mesh.sign(0, &changes);
        mesh
    }

    pub(crate) fn id(&self, at: usize) -> NodeId {
        NodeId(self.keys[at].verifying_key().to_bytes())
    }

    fn admission(&self, at: usize, invite: u8) -> Change {
        let admission = Admission::sign(
            self.mesh,
            &self.keys[at],
            &format!("n{at}"),
            &SigningKey::from_bytes(&[invite; 32]),
            NOW_MS,
        );
        Change::register(DocId::ROSTER, &Key::Member(self.id(at)), &admission)
    }

    /// Signs changes as the author's next bundle.
    pub(crate) fn sign(&mut self, at: usize, changes: &[Change]) -> Bundle {
        let (seq, prev) = self.feeds[at].last().map_or((0, BundleHash::ZERO), |b| (b.header.seq, b.hash));
        let hlc = (NOW_MS + seq) << 16;
        let bundle = Bundle::sign(&self.keys[at], self.mesh, seq + 1, prev, hlc, changes);
        self.feeds[at].push(bundle.clone());
        bundle
    }

    /// A second bundle for a place of an author's feed that is taken.
    pub(crate) fn fork(&self, at: usize, place: usize) -> Bundle {
        let taken = &self.feeds[at][place];
        let control = Control { op: ControlOp::Cancel, at_ms: 1 };
        let changes = [Change::register(DocId::job(job_id(0)), &Key::Control(77), &control)];
        let header = &taken.header;
        Bundle::sign(&self.keys[at], self.mesh, header.seq, header.prev, header.hlc, &changes)
    }

    /// The proof that two bundles of one author took one place.
    pub(crate) fn proof(one: &Bundle, two: &Bundle) -> ForkProof {
        let mut pair = [one, two];
        pair.sort_by_key(|b| b.hash);
        let branches: [Bytes; 2] = pair.map(|b| b.wire.clone());
        ForkProof { author: one.header.author, seq: one.header.seq, branches }
    }

    fn person(&self, at: usize) -> PersonId {
        person_of(self.id(at))
    }

    /// Writes acts as one bundle of an author.
    pub(crate) fn write(&mut self, at: usize, acts: &[Act]) {
        let changes: Vec<Change> = acts.iter().filter_map(|act| self.change(at, act)).collect();
        if !changes.is_empty() {
            self.sign(at, &changes);
        }
    }

    fn change(&mut self, at: usize, act: &Act) -> Option<Change> {
        let job = |n: &u8| DocId::job(job_id(*n));
        Some(match act {
            Act::Spec { job: n, tasks, made_ms } => {
                let spec = JobSpec {
                    command: vec!["true".into()],
                    array: u32::from(*tasks % 6),
                    retries: 1,
                    person: self.person(at),
                    created_ms: NOW_MS + u64::from(*made_ms),
                    nonce: (n % JOBS == 3).then(|| NONCE.into()),
                    key: (n % JOBS == 4).then(|| JOB_KEY.into()),
                    ..JobSpec::default()
                };
                Change::register(job(n), &Key::Spec, &spec)
            }
            Act::Claim { job: n, attempt, start, len, lost } => {
                let owner = self.id(2 + usize::from(*len) % 3);
                let basis = match (attempt % 3, lost) {
                    (0, _) => Basis::First,
                    (_, true) => Basis::Lost { owner, unheard: vec![self.id(1)] },
                    (_, false) => Basis::Retry,
                };
                let claim = Claim {
                    bid_micros: u64::from(*len % 2),
                    price_micros_per_hour: 0,
                    seen: if *lost { vec![self.id(2)] } else { Vec::new() },
                    watchers: vec![self.id(0), self.id(1), self.id(3)],
                    basis,
                    start_by_ms: 1,
                    at_ms: NOW_MS,
                };
                Change::register(job(n), &Key::Claim(attempt_of(*attempt), range(*start, *len)), &claim)
            }
            Act::Run { job: n, attempt, start, len, code, ended } => {
                let range = range(*start, *len);
                let exit = Some((NOW_MS + 1, Exit::Code(i32::from(*code % 2))));
                let tasks = (range.start..range.end).map(|task| TaskReport(task, NOW_MS, exit.clone())).collect();
                let report = RunReport { tasks, ended: *ended, ..RunReport::default() };
                Change::register(job(n), &Key::Run(attempt_of(*attempt), range), &report)
            }
            Act::Lost { job: n, attempt, start, len, owner } => {
                let lost = Lost { owners: vec![self.id(usize::from(*owner) % AUTHORS)] };
                let key = Key::Lost(attempt_of(*attempt), range(*start, *len), self.id(at));
                Change::register(job(n), &key, &lost)
            }
            Act::Accept { job: n, start, len } => {
                let accept = Accept {
                    outcome: if *len % 2 == 0 { Outcome::Done } else { Outcome::Failed },
                    attempt: 1,
                    node: Some(self.id(2)),
                    because: None,
                    at_risk: false,
                    reason: String::new(),
                    at_ms: NOW_MS,
                };
                Change::register(job(n), &Key::Accept(range(*start, *len)), &accept)
            }
            Act::Seal { job: n, tasks, end, outcome } => {
                Change::register(job(n), &Key::Seal, &self.seal(at, *n, *tasks, (*end, *outcome)))
            }
            Act::Checkpoint { target, back } => {
                let target = usize::from(*target) % 6;
                let place = self.feeds[target].len().checked_sub(1 + usize::from(*back % 3))?;
                let (seq, hash) = (place as u64 + 1, self.feeds[target][place].hash);
                Change::register(DocId::FEED, &Key::Checkpoint(self.id(target)), &Checkpoint { seq, hash })
            }
            Act::Cancel { job: n, n: count } => {
                let control = Control { op: ControlOp::Cancel, at_ms: NOW_MS };
                Change::register(job(n), &Key::Control(u32::from(*count % 3)), &control)
            }
            Act::Priority { job: n, n: count, value } => {
                let control = Control { op: ControlOp::Priority(i32::from(*value)), at_ms: NOW_MS };
                Change::register(job(n), &Key::Control(u32::from(*count % 3)), &control)
            }
            Act::Note { note, text } => {
                let me = self.id(at);
                let notebook = &mut self.notes[at][usize::from(*note % 2)];
                let text = format!("{}{text}", notebook.text());
                let change = notebook.edit(me, &text, 1).expect("a short text")?;
                Change::notebook(DocId::note(notebook.id()), change)
            }
            Act::Role { .. } | Act::Revoke { .. } | Act::Person { .. } | Act::Invite { .. } | Act::Admit { .. } => {
                self.roster_change(act)?
            }
        })
    }

    /// A record of a job; now and then one that no job could leave.
    fn seal(&self, at: usize, job: u8, tasks: u8, (end, outcome): (u8, u8)) -> Seal {
        let origin = if job % JOBS == 4 { Origin::Key(JOB_KEY.into()) } else { Origin::Nonce(NONCE.into()) };
        // Now and then a record that no job could leave.
        let tasks = tasks % 6;
        let end = if end % 7 == 0 { end / 7 } else { 1 + end % tasks.max(1) };
        let outcome = if outcome % 2 == 0 { Outcome::Done } else { Outcome::Failed };
        let run = SealedRun(self.id(2), (NOW_MS, NOW_MS + 1), Exit::Code(i32::from(tasks)));
        Seal(
            origin,
            self.person(at),
            TraceId([1; 16]),
            (NOW_MS, NOW_MS + 1, NOW_MS + 2),
            ByteArray::new([0; 16]),
            (String::new(), vec!["true".into()], false),
            (u32::from(tasks), 0),
            vec![(u32::from(end), outcome, 1)],
            Some(run),
            (None, "a reason".into()),
        )
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "what is not named gets the same answer, also when kinds are added"
    )]
    fn roster_change(&self, act: &Act) -> Option<Change> {
        let target = |n: u8| usize::from(n) % 6;
        let head = |at: usize, last: u8| {
            let len = self.feeds[at].len();
            let last = usize::from(last).min(len);
            let hash = if last == 0 { BundleHash::ZERO } else { self.feeds[at][last - 1].hash };
            (last as u64, hash)
        };
        Some(match act {
            Act::Role { target: t, n, role, after } => {
                let (after_seq, after_hash) = head(target(*t), *after);
                let role = Role::ALL[usize::from(*role) % Role::ALL.len()];
                let change = RoleChange { role, after_seq, after_hash };
                Change::register(DocId::ROSTER, &Key::Role(self.id(target(*t)), u32::from(*n % 2)), &change)
            }
            Act::Revoke { target: t, last } => {
                let (last_seq, last_hash) = head(target(*t), *last);
                let value = Revocation { last_seq, last_hash, reason: "a test".into(), recovery: None };
                Change::register(DocId::ROSTER, &Key::Revoke(self.id(target(*t))), &value)
            }
            Act::Person { n } => {
                let key = Key::Person(self.person(target(*n)), u32::from(*n % 2));
                Change::register(DocId::ROSTER, &key, &Person { name: format!("person {n}") })
            }
            Act::Invite { n } => {
                let terms = Invite { role: Role::Worker, expires_ms: u64::MAX, uses: 1, person: None };
                Change::register(DocId::ROSTER, &Key::Invite(invite_id(210 + n % 2)), &terms)
            }
            Act::Admit { by } => self.admission(5, 210 + by % 2),
            _ => return None,
        })
    }
}

fn invite_id(n: u8) -> InviteId {
    InviteId(SigningKey::from_bytes(&[n; 32]).verifying_key().to_bytes())
}

/// Jobs that there are.
pub(crate) const JOBS: u8 = 5;
const NONCE: [u8; 16] = [7; 16];
const JOB_KEY: &str = "nightly";

/// The name of a job by number: anybody's but the fourth, which is the first worker's by its nonce, and the fifth, which is
/// the second worker's by its idempotency key.
pub(crate) fn job_id(n: u8) -> JobId {
    match n % JOBS {
        3 => job_id_of_nonce(node_id(2), &NONCE),
        4 => job_id_of_key(person_of(node_id(3)), JOB_KEY),
        n => JobId([n + 1; 16]),
    }
}

fn node_id(at: u8) -> NodeId {
    NodeId(SigningKey::from_bytes(&[at + 1; 32]).verifying_key().to_bytes())
}

fn person_of(node: NodeId) -> PersonId {
    let hash = blake3::derive_key("v6 person of a device 1", &node.0);
    PersonId(hash[..16].try_into().expect("16 of 32 bytes"))
}

fn attempt_of(n: u8) -> u32 {
    u32::from(n % 3) + 1
}

fn range(start: u8, len: u8) -> TaskRange {
    let start = u32::from(start % 3);
    TaskRange { start, end: start + 1 + u32::from(len % 3) }
}

/// A replica that knows the mesh's name and founder only.
pub(crate) fn empty(mesh: &Mesh) -> Replica<MemoryShelf> {
    Replica::begin(MemoryShelf::default(), mesh.mesh, mesh.id(0))
}

/// All rows but those that may differ between replicas of one state: the feeds' proofs.
pub(crate) fn rows(replica: &Replica<MemoryShelf>) -> BTreeSet<(Table, Vec<u8>, Vec<u8>)> {
    let tables = Table::ALL.into_iter().filter(|table| *table != Table::Forks);
    tables
        .flat_map(|table| replica.shelf().all(table, &[]).into_iter().map(move |(key, row)| (table, key, row)))
        .collect()
}
