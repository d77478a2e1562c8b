//! What the entries about one subject come to.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::content::{Kind, Link, Relation, Target, Verdict};
use super::entry::Signed;
use crate::ids::{EntryId, NodeId, PersonId};
use crate::mutant::{Mutant, is_made};
use crate::state_hash::Sum;

/// How a subject stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Status {
    /// Nothing was decided of it.
    Open = 0,
    /// Its author took it back; it stays, and is not shown in lists unless they ask for it.
    Retracted = 1,
    /// It is to be done.
    Accepted = 2,
    /// It is not to be done.
    Rejected = 3,
    /// Later.
    Deferred = 4,
    /// It was done.
    Done = 5,
}

impl Status {
    /// All, by number.
    pub const ALL: [Self; 6] =
        [Self::Open, Self::Retracted, Self::Accepted, Self::Rejected, Self::Deferred, Self::Done];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Retracted => "retracted",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Deferred => "deferred",
            Self::Done => "done",
        }
    }
}

/// An entry that counts, with what its place in the feeds tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The entry.
    pub signed: Signed,
    /// Its place in its signer's own feed; none where it came by another's only.
    pub seq: Option<u64>,
    /// Whether an admin's feed carries it.
    pub by_admin: bool,
}

/// A change of owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// The offer.
    pub offer: EntryId,
    /// The acceptance.
    pub acceptance: EntryId,
    /// Whose it was.
    pub from: PersonId,
    /// Whose it is from then on.
    pub to: PersonId,
}

/// What people think of a subject.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opinions {
    /// Median over the persons of each one's median, 0 to 100.
    pub value: Option<u8>,
    /// The same of the effort.
    pub effort: Option<u8>,
    /// The same of the confidence.
    pub confidence: Option<u8>,
    /// Persons who voted for it.
    pub votes_for: u32,
    /// Persons who voted against it.
    pub votes_against: u32,
    /// Persons who argued for it.
    pub arguments_for: u32,
    /// Persons who argued against it.
    pub arguments_against: u32,
}

/// A subject and all that was said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its first entry.
    pub root: Signed,
    /// The entries about it, by time and name, those that were taken back too.
    pub about: Vec<Signed>,
    /// Those of them that were taken back.
    pub retracted: BTreeSet<EntryId>,
    /// How it stands.
    pub status: Status,
    /// The person whose it is.
    pub owner: PersonId,
    /// How it came to its owner, from the first handover on.
    pub handovers: Vec<Handover>,
    /// Handovers that another one had forestalled.
    pub forestalled: Vec<Handover>,
    /// Offers of its present owner that nobody took yet.
    pub offers: Vec<EntryId>,
    /// What people think of it.
    pub opinions: Opinions,
}

/// A link that holds, as the row of its subject keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowLink {
    /// The link's entry.
    pub entry: EntryId,
    /// How they hang together.
    pub relation: Relation,
    /// What it leads to.
    pub to: Target,
    /// Whose link it is.
    pub person: PersonId,
}

/// A link that leads to something, with where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The subject that it is a link of.
    pub from: EntryId,
    /// The link's entry.
    pub entry: EntryId,
    /// How they hang together.
    pub relation: Relation,
    /// Whose link it is.
    pub person: PersonId,
}

/// A subject's line in lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdeaRow {
    /// Its part in the state hash.
    #[serde(with = "serde_bytes")]
    pub digest: Sum,
    /// What there is to show; `None` while its first entry is not here.
    pub shown: Option<Shown>,
    /// Where it leads.
    pub links: Vec<RowLink>,
}

/// What a list shows of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its name.
    pub id: EntryId,
    /// What sort of entry its first one is.
    pub kind: Kind,
    /// The title.
    pub title: String,
    /// The key that signed it.
    pub node: NodeId,
    /// Whose it was first.
    pub person: PersonId,
    /// Whose it is.
    pub owner: PersonId,
    /// When it was written, in milliseconds since 1970, by its device's clock.
    pub created_ms: u64,
    /// Index in [`Status::ALL`].
    pub status: u8,
    /// Entries about it.
    pub entries: u32,
    /// Observations among them.
    pub observations: u32,
    /// Whether it is the observation of a command that ran without an idea.
    pub of_command: bool,
    /// What people think of it.
    pub opinions: Opinions,
}

impl Shown {
    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::ALL.get(usize::from(self.status)).copied().unwrap_or(Status::Open)
    }
}

/// Folds the entries of one document: `None` while its first one is not among them. The order does not matter, nor does it
/// how often an entry comes.
#[must_use]
pub fn fold(entries: impl IntoIterator<Item = Counted>) -> Option<Subject> {
    let mut by_id: BTreeMap<EntryId, Counted> = BTreeMap::new();
    for entry in entries {
        let id = entry.signed.id;
        let known = by_id.entry(id).or_insert_with(|| entry.clone());
        known.by_admin |= entry.by_admin;
        known.seq = known.seq.or(entry.seq);
    }
    let root = by_id.values().find(|entry| entry.signed.says.about.is_none())?.signed.id;
    let root = by_id.remove(&root)?;
    let about: BTreeMap<EntryId, Counted> =
        by_id.into_iter().filter(|(_, entry)| entry.signed.says.about == Some(root.signed.id)).collect();
    let chain = owners(&root, &about);
    let had = |person: PersonId| chain.had(person);
    let (is_retracted, retracted) = retractions(&root, &about, had);
    let holds = |id: &EntryId| !retracted.contains(id);
    let status = if is_retracted { Status::Retracted } else { decided(&about, had, holds) };
    let opinions = opinions(about.values().map(|entry| &entry.signed).filter(|entry| holds(&entry.id)));
    let offers = chain.offers.into_iter().filter(holds).collect();
    let is_left_out = |id: &EntryId| is_made(Mutant::RetractionRemoves) && retracted.contains(id);
    let about = about.into_values().map(|entry| entry.signed).filter(|entry| !is_left_out(&entry.id));
    let mut about: Vec<Signed> = about.collect();
    about.sort_by_key(|entry| (entry.by.created_ms, entry.id));
    let (root, owner, handovers, forestalled) = (root.signed, chain.owner, chain.handovers, chain.forestalled);
    Some(Subject { root, about, retracted, status, owner, handovers, forestalled, offers, opinions })
}

/// Who had a subject, one after the other.
struct Owners {
    first: PersonId,
    owner: PersonId,
    handovers: Vec<Handover>,
    forestalled: Vec<Handover>,
    offers: Vec<EntryId>,
}

impl Owners {
    fn had(&self, person: PersonId) -> bool {
        person == self.first || self.handovers.iter().any(|handover| handover.to == person)
    }
}

/// Follows the handovers from the author on. Each names the one before it; of several that name the same one counts which
/// the others had seen, or come after in a feed, and of concurrent ones that with the lower name.
fn owners(root: &Counted, about: &BTreeMap<EntryId, Counted>) -> Owners {
    let first = root.signed.by.person;
    let mut owners = Owners { first, owner: first, handovers: Vec::new(), forestalled: Vec::new(), offers: Vec::new() };
    let transfers = || about.values().filter(|entry| entry.signed.says.kind == Kind::Transfer);
    let mut state = None;
    loop {
        let mut offers = BTreeMap::new();
        for offer in transfers().filter(|entry| entry.signed.says.on.is_none()) {
            let Some(transfer) = &offer.signed.says.transfer else { continue };
            if transfer.after == state && (offer.signed.by.person == owners.owner || offer.by_admin) {
                offers.insert(offer.signed.id, (offer, transfer.to));
            }
        }
        let taken: Vec<(&Counted, &Counted)> = transfers()
            .filter_map(|entry| {
                let (offer, to) = offers.get(&entry.signed.says.on?)?;
                let is_his = entry.signed.by.person == *to || is_made(Mutant::AnybodyTakes);
                is_his.then_some((*offer, entry))
            })
            .collect();
        let unseen = taken.iter().filter(|one| !taken.iter().any(|other| comes_before(other, one)));
        let Some(next) =
            unseen.min_by_key(|one| one.1.signed.id).or_else(|| taken.iter().min_by_key(|one| one.1.signed.id))
        else {
            owners.offers = offers.into_keys().collect();
            return owners;
        };
        let from = owners.owner;
        let handover = |(offer, acceptance): &(&Counted, &Counted)| Handover {
            offer: offer.signed.id,
            acceptance: acceptance.signed.id,
            from,
            to: acceptance.signed.by.person,
        };
        let others = taken.iter().filter(|one| one.1.signed.id != next.1.signed.id);
        owners.forestalled.extend(others.map(handover));
        owners.handovers.push(handover(next));
        owners.owner = next.1.signed.by.person;
        state = Some(next.1.signed.id);
    }
}

/// Whether a handover comes before another by what was seen, or by their places in one feed.
fn comes_before(a: &(&Counted, &Counted), b: &(&Counted, &Counted)) -> bool {
    let seen = |entry: &Counted| {
        let seen = &entry.signed.says.seen;
        seen.contains(&a.0.signed.id) || seen.contains(&a.1.signed.id)
    };
    let earlier = |a: &Counted, b: &Counted| {
        a.signed.id != b.signed.id
            && a.signed.by.node == b.signed.by.node
            && a.seq.zip(b.seq).is_some_and(|(a, b)| a < b)
    };
    a.1.signed.id != b.1.signed.id && (seen(b.0) || seen(b.1) || earlier(a.0, b.0) || earlier(a.1, b.1))
}

/// Whether the subject was taken back, and which entries about it were. Who wrote an entry may take it back, an admin any, and
/// an owner the subject; what takes back or hands over stays.
fn retractions(
    root: &Counted,
    about: &BTreeMap<EntryId, Counted>,
    had: impl Fn(PersonId) -> bool,
) -> (bool, BTreeSet<EntryId>) {
    let (mut whole, mut entries) = (false, BTreeSet::new());
    for entry in about.values().filter(|entry| entry.signed.says.kind == Kind::Retraction) {
        let person = entry.signed.by.person;
        let on = entry.signed.says.on.unwrap_or(root.signed.id);
        if on == root.signed.id {
            whole |= entry.by_admin || had(person);
        } else if let Some(target) = about.get(&on) {
            let stays = target.signed.says.kind == Kind::Retraction
                || (target.signed.says.kind == Kind::Transfer && target.signed.says.on.is_some());
            if !stays && (entry.by_admin || target.signed.by.person == person) {
                entries.insert(on);
            }
        }
    }
    (whole, entries)
}

/// The last decision of somebody who had the subject, or of an admin; of concurrent ones that with the lowest name.
fn decided(
    about: &BTreeMap<EntryId, Counted>,
    had: impl Fn(PersonId) -> bool,
    holds: impl Fn(&EntryId) -> bool,
) -> Status {
    let decisions: Vec<&Counted> = about
        .values()
        .filter(|entry| entry.signed.says.kind == Kind::Decision && holds(&entry.signed.id))
        .filter(|entry| entry.by_admin || had(entry.signed.by.person))
        .collect();
    let superseded = |one: &Counted| {
        decisions.iter().any(|other| {
            let follows =
                other.signed.by.node == one.signed.by.node && one.seq.zip(other.seq).is_some_and(|(a, b)| a < b);
            other.signed.id != one.signed.id && (follows || other.signed.says.seen.contains(&one.signed.id))
        })
    };
    let last = decisions.iter().find(|one| !superseded(one)).or(decisions.first());
    match last.and_then(|last| last.signed.says.verdict.as_ref()) {
        Some(Verdict::Accepted) => Status::Accepted,
        Some(Verdict::Rejected) => Status::Rejected,
        Some(Verdict::Deferred) => Status::Deferred,
        Some(Verdict::Done) => Status::Done,
        None | Some(Verdict::Open | Verdict::Other(_)) => Status::Open,
    }
}

fn opinions<'a>(entries: impl Iterator<Item = &'a Signed>) -> Opinions {
    let mut found = Opinions::default();
    let mut votes: BTreeMap<PersonId, (u64, EntryId, bool)> = BTreeMap::new();
    let mut numbers: [BTreeMap<PersonId, Vec<u8>>; 3] = Default::default();
    // Who argued against, and who for: each person once a side, however much he says.
    let mut argued: [BTreeSet<PersonId>; 2] = Default::default();
    for entry in entries {
        let (says, person) = (&entry.says, entry.by.person);
        match (&says.kind, says.is_for, says.evaluation) {
            (Kind::Argument, Some(is_for), _) => drop(argued[usize::from(is_for)].insert(person)),
            (Kind::Evaluation, _, Some(evaluation)) => {
                let parts = [evaluation.value, evaluation.effort, evaluation.confidence];
                for (of, number) in numbers.iter_mut().zip(parts) {
                    of.entry(person).or_default().extend(number.map(|number| number.min(100)));
                }
                if let Some(vote) = evaluation.vote {
                    // One vote per person: the last.
                    let vote = (entry.by.created_ms, entry.id, vote);
                    let known = votes.entry(person).or_insert(vote);
                    *known = (*known).max(vote);
                }
            }
            _ => {}
        }
    }
    let [against, is_for] = argued.map(|persons| u32::try_from(persons.len()).unwrap_or(u32::MAX));
    (found.arguments_for, found.arguments_against) = (is_for, against);
    let [value, effort, confidence] = numbers.map(|of| median(of.into_values().filter_map(median)));
    (found.value, found.effort, found.confidence) = (value, effort, confidence);
    for (.., vote) in votes.into_values() {
        if vote {
            found.votes_for += 1;
        } else {
            found.votes_against += 1;
        }
    }
    found
}

/// The lower of the middle ones.
fn median(numbers: impl IntoIterator<Item = u8>) -> Option<u8> {
    let mut numbers: Vec<u8> = numbers.into_iter().collect();
    numbers.sort_unstable();
    numbers.get(numbers.len().checked_sub(1)? / 2).copied()
}

impl Subject {
    /// What a list shows of it.
    #[must_use]
    pub fn shown(&self) -> Shown {
        let (by, says) = (&self.root.by, &self.root.says);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Shown {
            id: self.root.id,
            kind: says.kind.clone(),
            title: says.title.clone(),
            node: by.node,
            person: by.person,
            owner: self.owner,
            created_ms: by.created_ms,
            status: self.status as u8,
            entries: count(self.about.len()),
            observations: count(self.standing().filter(|entry| entry.says.kind == Kind::Observation).count()),
            of_command: self.is_of_command(),
            opinions: self.opinions,
        }
    }

    /// Whether it is the observation of a command that ran without an idea.
    #[must_use]
    pub fn is_of_command(&self) -> bool {
        self.root.says.key.as_ref().is_some_and(|key| key.starts_with(super::OF_COMMAND))
    }

    /// The entries about it that nobody took back.
    pub fn standing(&self) -> impl Iterator<Item = &Signed> {
        self.about.iter().filter(|entry| !self.retracted.contains(&entry.id))
    }

    /// The links from it that hold, each with its entry.
    pub fn links(&self) -> impl Iterator<Item = (&Signed, &Link)> {
        let links = self.standing().filter(|entry| matches!(entry.says.kind, Kind::Link | Kind::Task));
        links.filter_map(|entry| Some((entry, entry.says.link.as_ref()?)))
    }

    /// What its row keeps of its links.
    pub(crate) fn row_links(&self) -> Vec<RowLink> {
        let row = |(entry, link): (&Signed, &Link)| RowLink {
            entry: entry.id,
            relation: link.relation.clone(),
            to: link.to.clone(),
            person: entry.by.person,
        };
        self.links().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SigningKey;
    use crate::ledger::{Content, Transfer};

    const ANNE: u8 = 1;
    const BILAL: u8 = 2;
    const CORA: u8 = 3;

    /// An entry of a person with one device, at a place of its feed.
    fn entry(who: u8, seq: u64, says: Content) -> Counted {
        let nonce = [u8::try_from(seq).expect("few"); 16];
        let key = SigningKey::from_bytes(&[who; 32]);
        let signed = Signed::sign(&key, PersonId([who; 16]), 1_800_000_000_000 + seq, nonce, says).expect("good");
        Counted { signed, seq: Some(seq), by_admin: false }
    }

    fn offer(who: u8, seq: u64, idea: &Counted, to: u8, after: Option<&Counted>, seen: &[&Counted]) -> Counted {
        let transfer = Some(Transfer { to: PersonId([to; 16]), after: after.map(|after| after.signed.id) });
        let seen = seen.iter().map(|entry| entry.signed.id).collect();
        entry(who, seq, Content { transfer, seen, ..Content::about(Kind::Transfer, idea.signed.id) })
    }

    fn take(who: u8, seq: u64, idea: &Counted, offer: &Counted, seen: &[&Counted]) -> Counted {
        let transfer = Some(Transfer { to: PersonId([who; 16]), after: None });
        let seen = seen.iter().map(|entry| entry.signed.id).collect();
        let on = Some(offer.signed.id);
        entry(who, seq, Content { transfer, seen, on, ..Content::about(Kind::Transfer, idea.signed.id) })
    }

    fn folded(entries: &[&Counted]) -> Subject {
        let there = fold(entries.iter().map(|entry| (*entry).clone())).expect("an idea");
        let back = fold(entries.iter().rev().map(|entry| (*entry).clone())).expect("an idea");
        assert_eq!(there, back, "the order does not matter");
        there
    }

    #[test]
    fn of_two_handovers_that_race_one_counts_and_the_other_is_shown() {
        let idea = entry(ANNE, 1, Content::new(Kind::Idea, "x"));
        // The owner's two devices offered it to two people, neither knowing of the other.
        let to_bilal = offer(ANNE, 2, &idea, BILAL, None, &[]);
        let mut to_cora = offer(ANNE, 3, &idea, CORA, None, &[]);
        to_cora.seq = None;
        let bilal = take(BILAL, 1, &idea, &to_bilal, &[]);
        let cora = take(CORA, 1, &idea, &to_cora, &[]);
        let subject = folded(&[&idea, &to_bilal, &to_cora, &bilal, &cora]);
        let (winner, loser) = if bilal.signed.id < cora.signed.id { (&bilal, &cora) } else { (&cora, &bilal) };
        assert_eq!(subject.owner, winner.signed.by.person);
        assert_eq!(
            subject.forestalled.iter().map(|handover| handover.to).collect::<Vec<_>>(),
            [loser.signed.by.person]
        );
        // Who had seen the other comes after it, whatever the names; so does what stands later in the same feed.
        for seen in [true, false] {
            let after: &[&Counted] = if seen { &[&to_bilal] } else { &[] };
            let mut to_cora = offer(ANNE, 3, &idea, CORA, None, after);
            if seen {
                to_cora.seq = None;
            }
            let mut takes = (1..200).map(|seq| take(CORA, seq, &idea, &to_cora, &[]));
            let cora = takes.find(|cora| cora.signed.id < bilal.signed.id).expect("a lower name");
            assert_eq!(folded(&[&idea, &to_bilal, &to_cora, &bilal, &cora]).owner, PersonId([BILAL; 16]));
        }
    }

    #[test]
    fn only_the_owner_hands_over_and_only_with_the_other_s_consent() {
        let idea = entry(ANNE, 1, Content::new(Kind::Idea, "x"));
        let to_bilal = offer(ANNE, 2, &idea, BILAL, None, &[]);
        let forged = offer(CORA, 1, &idea, CORA, None, &[]);
        let taken = take(CORA, 2, &idea, &forged, &[]);
        let stolen = take(CORA, 3, &idea, &to_bilal, &[]);
        let subject = folded(&[&idea, &to_bilal, &forged, &taken, &stolen]);
        assert_eq!((subject.owner, &subject.offers[..]), (PersonId([ANNE; 16]), &[to_bilal.signed.id][..]));
        let bilal = take(BILAL, 1, &idea, &to_bilal, &[]);
        // The former owner has nothing left to hand over; the new one has.
        let again = offer(ANNE, 3, &idea, CORA, Some(&bilal), &[]);
        let cora = take(CORA, 4, &idea, &again, &[]);
        assert_eq!(folded(&[&idea, &to_bilal, &bilal, &again, &cora]).owner, PersonId([BILAL; 16]));
        let on = offer(BILAL, 2, &idea, CORA, Some(&bilal), &[]);
        let cora = take(CORA, 4, &idea, &on, &[]);
        let subject = folded(&[&idea, &to_bilal, &bilal, &on, &cora]);
        assert_eq!((subject.owner, subject.handovers.len()), (PersonId([CORA; 16]), 2));
    }

    #[test]
    fn what_is_taken_back_is_hidden_and_stays() {
        let idea = entry(ANNE, 1, Content::new(Kind::Idea, "x"));
        let argue = |who, seq| {
            entry(who, seq, Content { is_for: Some(true), ..Content::about(Kind::Argument, idea.signed.id) })
        };
        let (one, two) = (argue(BILAL, 1), argue(CORA, 1));
        let retract = |who, seq, on: &Counted| {
            entry(who, seq, Content { on: Some(on.signed.id), ..Content::about(Kind::Retraction, idea.signed.id) })
        };
        let subject = folded(&[&idea, &one, &two, &retract(BILAL, 2, &one), &retract(BILAL, 3, &two)]);
        assert_eq!((subject.opinions.arguments_for, subject.about.len()), (1, 4));
        assert_eq!(subject.retracted, BTreeSet::from([one.signed.id]));
        assert_eq!(folded(&[&idea, &retract(BILAL, 4, &idea)]).status, Status::Open);
        assert_eq!(folded(&[&idea, &retract(ANNE, 4, &idea)]).status, Status::Retracted);
    }

    #[test]
    fn each_person_counts_once() {
        let idea = entry(ANNE, 1, Content::new(Kind::Idea, "x"));
        let say = |who, seq, value: Option<u8>, vote: Option<bool>| {
            let evaluation = Some(crate::ledger::Evaluation { value, vote, ..Default::default() });
            entry(who, seq, Content { evaluation, ..Content::about(Kind::Evaluation, idea.signed.id) })
        };
        let entries = [
            say(ANNE, 2, Some(10), Some(true)),
            say(ANNE, 3, Some(10), Some(true)),
            say(ANNE, 4, Some(10), Some(false)),
            say(BILAL, 1, Some(60), Some(true)),
            say(CORA, 1, Some(90), None),
        ];
        let all: Vec<&Counted> = std::iter::once(&idea).chain(&entries).collect();
        let opinions = folded(&all).opinions;
        assert_eq!((opinions.value, opinions.votes_for, opinions.votes_against), (Some(60), 1, 1));
        let argue = |who, seq, is_for| {
            entry(who, seq, Content { is_for: Some(is_for), ..Content::about(Kind::Argument, idea.signed.id) })
        };
        let entries = [argue(ANNE, 2, true), argue(ANNE, 3, true), argue(ANNE, 4, false), argue(BILAL, 1, true)];
        let all: Vec<&Counted> = std::iter::once(&idea).chain(&entries).collect();
        let opinions = folded(&all).opinions;
        assert_eq!((opinions.arguments_for, opinions.arguments_against), (2, 1));
    }
}
