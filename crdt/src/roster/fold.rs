//! From registers to members: a fixed point over who is an admin and whose statements count.
//!
//! Revocations form a graph: one attacks its target's statements beyond the place it names. A revocation that nobody
//! attacks counts; what a counting one attacks is void; those that are left attack each other in a circle, count against
//! each other, and suspend their targets. (Grounded semantics of argumentation, Dung 1995.)

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;

use super::values::{
    Admission, Founding, Invite, Person, Policy, RecoveryAct, RecoverySigned, Revocation, Role, RoleChange,
};
use super::{Member, Roster};
use crate::cbor;
use crate::doc::Key;
use crate::ids::{BundleHash, MeshId, NodeId, PersonId};
use crate::limits::{POLICY_VALUE_BYTES_MAX, ROSTER_ROUNDS_MAX};

/// One register of the roster.
pub(crate) struct Entry<'a> {
    pub(crate) author: NodeId,
    pub(crate) key: Key,
    pub(crate) seq: u64,
    pub(crate) value: &'a [u8],
}

struct Parsed {
    founding: Option<(NodeId, Founding)>,
    persons: Vec<(NodeId, u64, PersonId, Person)>,
    invites: Vec<(NodeId, u64, crate::ids::InviteId, Invite)>,
    admissions: Vec<(NodeId, NodeId, Admission)>,
    roles: Vec<(NodeId, u64, NodeId, RoleChange)>,
    revocations: Vec<Attack>,
    policies: Vec<(NodeId, u64, (String, u32), Policy)>,
    restored: BTreeSet<NodeId>,
    recovered: BTreeMap<NodeId, String>,
}

#[derive(Clone, PartialEq, Eq)]
struct Attack {
    by: NodeId,
    at_seq: u64,
    target: NodeId,
    last_seq: u64,
    last_hash: BundleHash,
    recovery: bool,
}

/// Folds the roster's registers, given in any order as `(author, key, seq, value)`; `founder` is the author of the mesh's
/// first bundle.
#[must_use]
pub fn fold<'a>(
    mesh: MeshId,
    founder: NodeId,
    registers: impl IntoIterator<Item = (NodeId, Key, u64, &'a [u8])>,
) -> Roster {
    let entries: Vec<Entry<'a>> =
        registers.into_iter().map(|(author, key, seq, value)| Entry { author, key, seq, value }).collect();
    let mut parsed = parse(mesh, founder, &entries);
    let authors = authors(&parsed);
    parsed.keep_only(&authors);
    let mut cuts: BTreeMap<NodeId, (u64, BundleHash)> = BTreeMap::new();
    let mut seen = Vec::new();
    for _ in 0..ROSTER_ROUNDS_MAX {
        let members = members(&parsed, &cuts);
        let next = effective_cuts(&parsed, &members);
        if next.0 == cuts || seen.contains(&next.0) {
            cuts = next.0;
            break;
        }
        seen.push(std::mem::replace(&mut cuts, next.0));
    }
    let members = members(&parsed, &cuts);
    let suspended = effective_cuts(&parsed, &members).1;
    Roster { authors, ..finish(parsed, members, cuts, suspended) }
}

fn parse(mesh: MeshId, founder: NodeId, entries: &[Entry<'_>]) -> Parsed {
    let founding: Option<Founding> =
        entries.iter().find(|e| e.key == Key::Mesh && e.author == founder && e.seq == 1).and_then(|e| read(e.value));
    let recovery = founding.as_ref().map(|f| f.recovery.into_array());
    let mut parsed = Parsed {
        founding: founding.map(|f| (founder, f)),
        persons: Vec::new(),
        invites: Vec::new(),
        admissions: Vec::new(),
        roles: Vec::new(),
        revocations: Vec::new(),
        policies: Vec::new(),
        restored: BTreeSet::new(),
        recovered: BTreeMap::new(),
    };
    for entry in entries {
        parse_entry(mesh, recovery.as_ref(), entry, &mut parsed);
    }
    parsed.admissions.sort_by_key(|(by, node, admission)| (*node, admission.admitted_ms, admission.invite, *by));
    parsed.roles.sort_by_key(|(by, seq, target, change)| (*target, change.after_seq, *by, *seq));
    parsed.persons.sort_by_key(|(by, seq, id, _)| (*id, *by, *seq));
    parsed.invites.sort_by_key(|(by, seq, id, _)| (*id, *by, *seq));
    parsed.policies.sort_by(|a, b| (&a.2, a.0, a.1).cmp(&(&b.2, b.0, b.1)));
    parsed.revocations.sort_by_key(|r| (r.target, r.last_seq, r.by, r.at_seq));
    parsed
}

fn parse_entry(mesh: MeshId, recovery: Option<&[u8; 32]>, entry: &Entry<'_>, parsed: &mut Parsed) {
    let (by, seq) = (entry.author, entry.seq);
    match &entry.key {
        Key::Person(id, _) => parsed.persons.extend(read(entry.value).map(|v| (by, seq, *id, v))),
        Key::Policy(name, n) => {
            parsed.policies.extend(read(entry.value).map(|v| (by, seq, (name.clone(), *n), v)));
        }
        Key::Invite(id) => parsed.invites.extend(read(entry.value).map(|v| (by, seq, *id, v))),
        Key::Member(node) => parsed
            .admissions
            .extend(read::<Admission>(entry.value).filter(|a| a.verifies(mesh, *node)).map(|a| (by, *node, a))),
        Key::Role(node, _) => parsed.roles.extend(read(entry.value).map(|v| (by, seq, *node, v))),
        Key::Revoke(target) => parsed.revocations.extend(read::<Revocation>(entry.value).map(|r| Attack {
            by,
            at_seq: seq,
            target: *target,
            last_seq: r.last_seq,
            last_hash: r.last_hash,
            recovery: false,
        })),
        Key::Recover(_) => {
            let signed = read::<RecoverySigned>(entry.value);
            let Some(signed) = signed.filter(|s| recovery.is_some_and(|key| s.verifies(mesh, key))) else {
                return;
            };
            match signed.act {
                RecoveryAct::Admit(node) => {
                    parsed.recovered.insert(node, signed.name);
                }
                RecoveryAct::Restore(node) => {
                    parsed.restored.insert(node);
                }
                RecoveryAct::Revoke(target, last_seq, last_hash) => {
                    parsed.revocations.push(Attack { by, at_seq: seq, target, last_seq, last_hash, recovery: true })
                }
            }
        }
        Key::Mesh
        | Key::Spec
        | Key::Control(_)
        | Key::Claim(..)
        | Key::Run(..)
        | Key::Lost(..)
        | Key::Accept(_)
        | Key::Seal
        | Key::Entry(_)
        | Key::Checkpoint(_) => {}
    }
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    cbor::decode(value).ok()
}

/// Who was ever let in by somebody who was ever an admin. It only grows with the registers, whatever is revoked, and uses
/// nothing that other authors say.
fn authors(parsed: &Parsed) -> BTreeSet<NodeId> {
    let mut admins: BTreeSet<NodeId> = parsed.recovered.keys().copied().collect();
    admins.extend(parsed.founding.as_ref().map(|(founder, _)| *founder));
    let mut authors = admins.clone();
    loop {
        let before = (admins.len(), authors.len());
        for (by, node, admission) in parsed.admissions.iter() {
            if !authors.contains(by) {
                continue;
            }
            let invites = parsed.invites.iter().filter(|(by, _, id, _)| *id == admission.invite && admins.contains(by));
            let roles: Vec<Role> = invites.map(|(_, _, _, invite)| invite.role).collect();
            if !roles.is_empty() {
                authors.insert(*node);
            }
            if roles.iter().any(|role| role.may_administer()) {
                admins.insert(*node);
            }
        }
        for (by, _, target, change) in &parsed.roles {
            if change.role.may_administer() && admins.contains(by) && authors.contains(target) {
                admins.insert(*target);
            }
        }
        if (admins.len(), authors.len()) == before {
            return authors;
        }
    }
}

impl Parsed {
    /// Leaves out what others than these authors say; the recovery key speaks through anybody.
    fn keep_only(&mut self, authors: &BTreeSet<NodeId>) {
        self.persons.retain(|(by, ..)| authors.contains(by));
        self.invites.retain(|(by, ..)| authors.contains(by));
        self.admissions.retain(|(by, ..)| authors.contains(by));
        self.roles.retain(|(by, ..)| authors.contains(by));
        self.policies.retain(|(by, ..)| authors.contains(by));
        self.revocations.retain(|r| r.recovery || authors.contains(&r.by));
    }
}

type Members = BTreeMap<NodeId, Member>;

/// Who is a member when the statements beyond `cuts` are left out.
fn members(parsed: &Parsed, cuts: &BTreeMap<NodeId, (u64, BundleHash)>) -> Members {
    let mut members = Members::new();
    let Some((founder, founding)) = &parsed.founding else {
        return members;
    };
    members.insert(*founder, member(&founding.node_name, founding.person, Role::Admin, founding.created_ms, None));
    for (node, name) in &parsed.recovered {
        members.insert(*node, member(name, person_of(*node), Role::Admin, 0, None));
    }
    let counts = |by: &NodeId, seq: u64| cuts.get(by).is_none_or(|(last, _)| seq <= *last);
    for _ in 0..ROSTER_ROUNDS_MAX {
        let before = members.len();
        for (_, node, admission) in &parsed.admissions {
            if members.contains_key(node) {
                continue;
            }
            let invite = parsed
                .invites
                .iter()
                .find(|(by, seq, id, _)| *id == admission.invite && counts(by, *seq) && is_admin(&members, by, *seq));
            if let Some((_, _, id, invite)) = invite {
                let person = invite.person.unwrap_or_else(|| person_of(*node));
                members.insert(*node, member(&admission.name, person, invite.role, admission.admitted_ms, Some(*id)));
            }
        }
        let roles = apply_roles(parsed, &mut members, &counts);
        if members.len() == before && !roles {
            break;
        }
    }
    members
}

fn apply_roles(parsed: &Parsed, members: &mut Members, counts: &impl Fn(&NodeId, u64) -> bool) -> bool {
    let mut changed = false;
    for (by, seq, target, change) in &parsed.roles {
        if !counts(by, *seq) || !is_admin(members, by, *seq) {
            continue;
        }
        if let Some(member) = members.get_mut(target) {
            let step = (change.after_seq, change.role);
            if !member.roles.contains(&step) {
                member.roles.push(step);
                member.roles.sort();
                changed = true;
            }
        }
    }
    changed
}

fn is_admin(members: &Members, node: &NodeId, seq: u64) -> bool {
    members.get(node).is_some_and(|m| m.role_at(seq).may_administer())
}

fn member(name: &str, person: PersonId, role: Role, admitted_ms: u64, invite: Option<crate::ids::InviteId>) -> Member {
    Member { name: name.to_owned(), person, roles: vec![(0, role)], admitted_ms, invite }
}

/// The person that a device stands for until an admin says otherwise.
fn person_of(node: NodeId) -> PersonId {
    let hash = blake3::derive_key("v6 person of a device 1", &node.0);
    PersonId(hash[..16].try_into().expect("16 of 32 bytes"))
}

type Cuts = BTreeMap<NodeId, (u64, BundleHash)>;

/// The cuts that revocations make, and the authors that are only suspended.
fn effective_cuts(parsed: &Parsed, members: &Members) -> (Cuts, BTreeSet<NodeId>) {
    let acts: Vec<&Attack> = parsed
        .revocations
        .iter()
        .filter(|r| r.recovery || is_admin(members, &r.by, r.at_seq))
        .filter(|r| r.recovery || !parsed.restored.contains(&r.target))
        .collect();
    let hits = |a: &Attack, b: &Attack| !b.recovery && a.target == b.by && a.last_seq < b.at_seq;
    let mut state: Vec<Option<bool>> = vec![None; acts.len()];
    loop {
        let mut changed = false;
        for at in 0..acts.len() {
            if state[at].is_some() {
                continue;
            }
            let attackers: Vec<usize> = (0..acts.len()).filter(|other| hits(acts[*other], acts[at])).collect();
            if attackers.iter().all(|other| state[*other] == Some(false)) {
                state[at] = Some(true);
                changed = true;
            } else if attackers.iter().any(|other| state[*other] == Some(true)) {
                state[at] = Some(false);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    let (mut cuts, mut suspended) = (Cuts::new(), BTreeSet::new());
    for (act, state) in acts.iter().zip(&state) {
        if *state == Some(false) {
            continue;
        }
        let cut = (act.last_seq, act.last_hash);
        let entry = cuts.entry(act.target).or_insert(cut);
        *entry = (*entry).min(cut);
        if state.is_none() {
            suspended.insert(act.target);
        }
    }
    (cuts, suspended)
}

fn finish(parsed: Parsed, members: Members, cuts: Cuts, suspended: BTreeSet<NodeId>) -> Roster {
    let mut roster = Roster { members, suspended, ..Roster::default() };
    if let Some((_, founding)) = &parsed.founding {
        roster.mesh_name.clone_from(&founding.name);
        roster.recovery = Some(founding.recovery.into_array());
    }
    let counts = |by: &NodeId, seq: u64| cuts.get(by).is_none_or(|(last, _)| seq <= *last);
    for (by, seq, id, person) in parsed.persons {
        if counts(&by, seq) && is_admin(&roster.members, &by, seq) {
            roster.persons.insert(id, person.name);
        }
    }
    for (by, seq, id, invite) in parsed.invites {
        if counts(&by, seq) && is_admin(&roster.members, &by, seq) {
            let used = roster.members.values().filter(|m| m.invite == Some(id)).count();
            roster.invites.entry(id).or_insert((invite, u32::try_from(used).unwrap_or(u32::MAX)));
        }
    }
    for (by, seq, (name, n), policy) in parsed.policies {
        if counts(&by, seq) && is_admin(&roster.members, &by, seq) && policy.value.len() <= POLICY_VALUE_BYTES_MAX {
            // Of two admins' at the same time that of the higher name counts: it comes last.
            roster.policies.insert(name, (n, policy.value));
        }
    }
    roster.revoked = cuts;
    roster
}
