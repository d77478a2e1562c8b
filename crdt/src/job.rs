//! A job: what is wanted, who claimed it, what came of it, and which result counts.
//!
//! [`Job`] holds a job's registers in decoded form and answers questions about its tasks. Its answers are a function of
//! the registers and the roster alone: no clock, no order of arrival. Where the mesh core decides *who acts next*, it does
//! so from these answers.

mod ended;
mod fold;
mod registers;
mod seal;
mod values;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use fold::{Attempt, AttemptState, JobState, Segment, TaskState, Waiting, rendezvous};
pub use registers::Registers;
pub use seal::{Origin, Seal, SealedRun};
use serde::{Deserialize, Serialize};
pub use values::{
    Accept, ArtifactList, ArtifactRef, Basis, CheckpointRef, Claim, Control, ControlOp, Exit, JobSpec, LogRef, Lost,
    Outcome, RunReport, TaskReport, Voter, job_id_of_key, job_id_of_nonce,
};

use crate::cbor;
use crate::doc::{DocId, Key, TaskRange};
use crate::ids::{JobId, NodeId};
use crate::roster::Roster;
use crate::state_hash::{Sum, add, subtract};

/// One write to a job's register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written<T> {
    /// Place in the author's feed.
    pub seq: u64,
    /// The value.
    pub value: T,
}

/// Which claim: attempt, range and owner. Its order is the fencing order within a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClaimId {
    /// Attempt, from 1.
    pub attempt: u32,
    /// The tasks.
    pub range: TaskRange,
    /// Who claims.
    pub owner: NodeId,
}

/// A job's registers, decoded.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    registers: Facts,
    seals: BTreeMap<NodeId, (Written<Seal>, Sum)>,
    /// Once it is sealed: by whom, and what the record says instead of the registers.
    sealed: Option<Box<(NodeId, Facts)>>,
    /// Whether a register was written whose value cannot be read: it is a row and nothing here.
    has_unreadable: bool,
    register_sum: Sum,
    view: fold::View,
}

/// What a job's state comes from: its registers, or the record of a sealed one.
#[derive(Debug, Clone, Default)]
struct Facts {
    specs: Registers<NodeId, Arc<JobSpec>>,
    controls: Registers<(NodeId, u32), Control>,
    claims: Registers<ClaimId, Claim>,
    runs: Registers<ClaimId, RunReport>,
    losts: Registers<(u32, TaskRange, NodeId), Lost>,
    accepts: Registers<(NodeId, TaskRange), Accept>,
}

impl Job {
    /// A job of which nothing is known.
    #[must_use]
    pub fn new(id: JobId) -> Self {
        Self {
            id,
            registers: Facts::default(),
            seals: BTreeMap::new(),
            sealed: None,
            has_unreadable: false,
            register_sum: [0; 32],
            view: fold::View::default(),
        }
    }

    /// Takes in a register; `old` is the value that it replaces. A value that cannot be read counts as absent.
    ///
    /// The caller calls [`Job::refresh`] after the last of a group.
    pub fn set(&mut self, author: NodeId, key: &Key, seq: u64, value: &[u8], old: Option<&[u8]>) {
        let term = |value: &[u8]| register_digest(self.id, author, key, value);
        let (new_term, old_term) = (term(value), old.map(term));
        if let Some(old) = old_term {
            subtract(&mut self.register_sum, &old);
        }
        add(&mut self.register_sum, &new_term);
        let registers = &mut self.registers;
        let readable = match key {
            Key::Spec => put(&mut registers.specs, author, seq, value, Arc::new),
            Key::Control(n) => put(&mut registers.controls, (author, *n), seq, value, |v| v),
            Key::Claim(attempt, range) => put(
                &mut registers.claims,
                ClaimId { attempt: *attempt, range: *range, owner: author },
                seq,
                value,
                |v| v,
            ),
            Key::Run(attempt, range) => {
                let id = ClaimId { attempt: *attempt, range: *range, owner: author };
                put(&mut registers.runs, id, seq, value, |v: RunReport| v)
            }
            Key::Lost(attempt, range, node) => put(&mut registers.losts, (*attempt, *range, *node), seq, value, |v| v),
            Key::Accept(range) => put(&mut registers.accepts, (author, *range), seq, value, |v| v),
            Key::Mesh
            | Key::Person(..)
            | Key::Invite(_)
            | Key::Member(_)
            | Key::Role(..)
            | Key::Revoke(_)
            | Key::Recover(_)
            | Key::Policy(..)
            | Key::Entry(_)
            | Key::Checkpoint(_) => true,
            Key::Seal => match cbor::decode(value) {
                Ok(seal) => {
                    self.seals.insert(author, (Written { seq, value: seal }, new_term));
                    true
                }
                Err(_) => {
                    self.seals.remove(&author);
                    false
                }
            },
        };
        self.has_unreadable |= !readable;
    }

    /// Place at which an author wrote a register, as far as that is known here without its row: `Err` when it is not.
    pub(crate) fn written_at(&self, author: NodeId, key: &Key) -> Result<Option<u64>, ()> {
        if self.has_unreadable {
            return Err(());
        }
        let registers = &self.registers;
        let claim = |attempt: u32, range: TaskRange| ClaimId { attempt, range, owner: author };
        Ok(match key {
            Key::Spec => registers.specs.get(&author).map(|w| w.seq),
            Key::Control(n) => registers.controls.get(&(author, *n)).map(|w| w.seq),
            Key::Claim(attempt, range) => registers.claims.get(&claim(*attempt, *range)).map(|w| w.seq),
            Key::Run(attempt, range) => registers.runs.get(&claim(*attempt, *range)).map(|w| w.seq),
            Key::Lost(attempt, range, node) => registers.losts.get(&(*attempt, *range, *node)).map(|w| w.seq),
            Key::Accept(range) => registers.accepts.get(&(author, *range)).map(|w| w.seq),
            Key::Seal => self.seals.get(&author).map(|(w, _)| w.seq),
            Key::Mesh
            | Key::Person(..)
            | Key::Invite(_)
            | Key::Member(_)
            | Key::Role(..)
            | Key::Revoke(_)
            | Key::Recover(_)
            | Key::Policy(..)
            | Key::Entry(_)
            | Key::Checkpoint(_) => return Err(()),
        })
    }

    fn facts(&self) -> &Facts {
        self.sealed.as_ref().map_or(&self.registers, |sealed| &sealed.1)
    }

    /// Who sealed it: then its record is all that counts, and all else may have been dropped.
    #[must_use]
    pub fn sealed_by(&self) -> Option<NodeId> {
        self.sealed.as_ref().map(|sealed| sealed.0)
    }

    /// The record of a sealed job.
    #[must_use]
    pub fn seal(&self) -> Option<&Seal> {
        self.seals.get(&self.sealed_by()?).map(|(seal, _)| &seal.value)
    }

    /// Whether this spec asks for what the job's own asks for; `None` while none is known.
    #[must_use]
    pub fn wants(&self, spec: &JobSpec) -> Option<bool> {
        let digest = spec.digest();
        match self.seal() {
            Some(seal) => Some(digest[..16] == *seal.4),
            None => self.spec().map(|(_, known)| known.digest() == digest),
        }
    }

    /// Whether nothing at all is known of it.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.register_sum == [0; 32]
    }

    /// Folds again after registers or the roster changed.
    pub fn refresh(&mut self, roster: &Roster) {
        let counting = self.seals.iter().filter(|(node, (seal, _))| {
            let role = roster.role_at(node, seal.seq);
            role.is_some_and(|role| role.may_submit()) && seal.value.binds(self.id, **node, roster)
        });
        let first = counting.min_by_key(|(node, (seal, _))| (seal.value.3.0, **node));
        self.sealed = first.map(|(node, (seal, _))| Box::new((*node, seal.value.facts(*node))));
        self.view = match &self.sealed {
            Some(sealed) => fold::fold_sealed(self, sealed.0),
            None => fold::fold(self, roster),
        };
    }

    /// The digest that goes into the state hash: registers and what they fold to; of a sealed job its seal alone.
    #[must_use]
    pub fn digest(&self) -> Sum {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&DocId::job(self.id).to_bytes());
        if let Some((_, term)) = self.sealed_by().and_then(|node| self.seals.get(&node)) {
            hasher.update(b"sealed").update(term);
            return *hasher.finalize().as_bytes();
        }
        hasher.update(&self.register_sum);
        hasher.update(&cbor::encode(&self.view.summary()));
        *hasher.finalize().as_bytes()
    }

    /// The spec that counts and the node that submitted it; `None` while no counting spec is known.
    #[must_use]
    pub fn spec(&self) -> Option<(&NodeId, &Arc<JobSpec>)> {
        let submitter = self.view.submitter.as_ref()?;
        self.facts().specs.get(submitter).map(|spec| (submitter, &spec.value))
    }

    /// Claims by attempt, range and owner, the void ones too.
    #[must_use]
    pub fn claims(&self) -> &Registers<ClaimId, Claim> {
        &self.facts().claims
    }

    /// A claim's report, if its owner wrote one.
    #[must_use]
    pub fn run(&self, id: &ClaimId) -> Option<&RunReport> {
        self.facts().runs.get(id).map(|w| &w.value)
    }

    /// Who declared a claim lost.
    pub fn lost_by<'a>(&'a self, id: &'a ClaimId) -> impl Iterator<Item = NodeId> + 'a {
        self.facts()
            .losts
            .range((id.attempt, id.range, NodeId::ZERO)..=(id.attempt, id.range, NodeId([0xff; 32])))
            .filter(|(_, lost)| lost.value.owners.contains(&id.owner))
            .map(|((_, _, by), _)| *by)
    }

    /// Number of the next control register of an author.
    #[must_use]
    pub fn next_control(&self, author: NodeId) -> u32 {
        self.registers.controls.range((author, 0)..=(author, u32::MAX)).next_back().map_or(0, |((_, n), _)| n + 1)
    }
}

/// Keeps a value that can be read; answers whether it can.
fn put<K: Ord, V: serde::de::DeserializeOwned, W>(
    map: &mut Registers<K, W>,
    key: K,
    seq: u64,
    value: &[u8],
    wrap: impl Fn(V) -> W,
) -> bool {
    match cbor::decode(value) {
        Ok(value) => {
            map.insert(key, Written { seq, value: wrap(value) });
            true
        }
        Err(_) => {
            map.remove(&key);
            false
        }
    }
}

fn register_digest(job: JobId, author: NodeId, key: &Key, value: &[u8]) -> Sum {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&job.0).update(&author.0);
    let key = key.to_string();
    hasher.update(&[u8::try_from(key.len()).unwrap_or(u8::MAX)]).update(key.as_bytes()).update(value);
    *hasher.finalize().as_bytes()
}
