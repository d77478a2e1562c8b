//! Why a job runs where it runs, or why it still waits.

use std::collections::BTreeMap;

use crdt::ids::{JobId, NodeId};
use crdt::job::{JobSpec, JobState, Waiting};
use crdt::shelf::Shelf;

use super::Core;
use crate::offer::{Lack, bid_micros, lacks};
use crate::vote::majority;

/// What one node's offer is worth for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferView {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its bid in micros, where it fits.
    pub bid_micros: Option<u64>,
    /// What it lacks, and why it declined.
    pub lacks: Vec<Lack>,
}

/// What a job waits for, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum WaitsFor {
    /// Another job.
    After,
    /// The entry of the idea that it serves.
    Idea,
    /// The rest of what its submitter wrote.
    Submitter,
    /// A person's word.
    Person,
    /// Most of its voters.
    Voters,
    /// Its failure, which is being accepted.
    GivingUp,
    /// A fitting node that has a slot and is about to claim it.
    Placing,
    /// A free slot: some node fits, and is busy.
    Slot,
    /// A node that fits.
    Node,
}

impl WaitsFor {
    /// The word for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::After => "after",
            Self::Idea => "idea",
            Self::Submitter => "submitter",
            Self::Person => "person",
            Self::Voters => "voters",
            Self::GivingUp => "giving_up",
            Self::Placing => "placing",
            Self::Slot => "no_slot",
            Self::Node => "nobody_fits",
        }
    }
}

/// Jobs that wait for the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingFor {
    /// What for.
    pub what: WaitsFor,
    /// The same in one sentence, of the first of them.
    pub summary: String,
    /// All of them, the oldest first.
    pub jobs: Vec<JobId>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// One sentence.
    pub summary: String,
    /// Every offer that is known.
    pub offers: Vec<OfferView>,
}

impl<S: Shelf> Core<S> {
    /// Explains a job; `None` when it is not known.
    pub fn explain(&mut self, id: JobId) -> Option<Explanation> {
        let job = self.replica.job(id)?;
        let (submitter, spec) = job.spec().map(|(node, spec)| (Some(*node), spec.clone()))?;
        let state = job.state()?;
        let segment = job.segments().iter().find(|s| !s.state.is_final()).copied();
        let award = job.attempts(0).into_iter().rev().find(|a| a.award).map(|a| a.id);
        let bid = award.and_then(|a| job.claims().get(&a)).map(|c| c.value.bid_micros);
        let accept = job.accepted(0).cloned();
        let sealed = job.sealed_by().is_some();
        let offers = self.offer_views(id, &spec);
        let name = |node: NodeId| self.name_of(node);
        let mut summary = match (state, award) {
            (_, Some(claim)) if sealed => {
                format!(
                    "{} on {}: attempt {}; why it ran there is no longer kept",
                    state.name(),
                    name(claim.owner),
                    claim.attempt
                )
            }
            (JobState::Queued, _) => self.why_waiting(&spec, submitter, &offers, segment.map(|s| s.waiting)).1,
            (_, Some(claim)) => format!(
                "{} on {}: attempt {}, its bid of {} micros was the best of {} fitting",
                state.name(),
                name(claim.owner),
                claim.attempt,
                bid.unwrap_or(0),
                offers.iter().filter(|o| o.bid_micros.is_some()).count().max(1),
            ),
            (_, None) => state.name().to_owned(),
        };
        if let Some(accept) = accept {
            if let Some(up) = accept.because {
                summary = format!("skipped because job {up} did not succeed");
            } else if !accept.reason.is_empty() {
                summary = format!("{summary}: {}", accept.reason);
            }
        }
        Some(Explanation { summary, offers })
    }

    /// Where a job would run if it were submitted now.
    pub fn explain_spec(&self, spec: &JobSpec) -> Explanation {
        let mut offers = self.offer_views(JobId::ZERO, spec);
        offers.sort_by_key(|offer| (offer.bid_micros.is_none(), offer.bid_micros, offer.node));
        let summary = match offers.first() {
            Some(best) if best.bid_micros.is_some() => {
                let fitting = offers.iter().filter(|offer| offer.bid_micros.is_some()).count();
                format!("the best of {fitting} fitting of {} nodes", offers.len())
            }
            Some(_) | None => count_reasons(&offers),
        };
        Explanation { summary, offers }
    }

    /// Jobs that no node has claimed, by what they wait for: at most `most` are looked at, the oldest first. Cost: an
    /// explanation of each.
    pub fn waiting(&self, most: usize) -> Vec<WaitingFor> {
        let mut queued: Vec<(u64, JobId)> = self
            .replica
            .jobs()
            .filter(|(_, job)| job.state() == Some(JobState::Queued))
            .filter_map(|(id, job)| Some((job.spec()?.1.created_ms, *id)))
            .collect();
        queued.sort_unstable();
        let mut groups: Vec<WaitingFor> = Vec::new();
        for (_, id) in queued.into_iter().take(most) {
            let Some(job) = self.replica.cached_job(&id) else { continue };
            let Some((submitter, spec)) = job.spec() else { continue };
            let segment = job.segments().iter().find(|s| !s.state.is_final());
            let offers = self.offer_views(id, spec);
            let (what, summary) = self.why_waiting(spec, Some(*submitter), &offers, segment.map(|s| s.waiting));
            // What no node has is told apart: one lacks a label, the other its memory.
            let same = |group: &WaitingFor| group.what == what && (what != WaitsFor::Node || group.summary == summary);
            match groups.iter_mut().find(|group| same(group)) {
                Some(group) => group.jobs.push(id),
                None => groups.push(WaitingFor { what, summary, jobs: vec![id] }),
            }
        }
        groups.sort_by(|a, b| b.jobs.len().cmp(&a.jobs.len()).then(a.what.cmp(&b.what)));
        groups
    }

    fn why_waiting(
        &self,
        spec: &JobSpec,
        submitter: Option<NodeId>,
        offers: &[OfferView],
        waiting: Option<Waiting>,
    ) -> (WaitsFor, String) {
        if let Some(up) = spec.after.iter().find(|up| !self.is_done(up)) {
            let state = self.state_of(up).map_or("unknown", JobState::name);
            return (WaitsFor::After, format!("waits for job {up}, which is {state}"));
        }
        if let Some(idea) = spec.idea.filter(|_| !self.knows_idea(spec)) {
            let text =
                format!("waits for the idea {} that it serves: the ledger does not hold it here yet", idea.short());
            return (WaitsFor::Idea, text);
        }
        if submitter.is_some_and(|submitter| self.is_behind(&submitter)) {
            let text = "waits for the rest of what its submitter wrote: much of that has not come here yet";
            return (WaitsFor::Submitter, text.into());
        }
        if let Some(Waiting::Person(claim)) = waiting {
            let text = format!(
                "waits for a person: attempt {} on {} was the one that might start, and is lost or was given back; nobody \
                 starts it again: cancel it, or submit it anew",
                claim.attempt,
                self.name_of(claim.owner)
            );
            return (WaitsFor::Person, text);
        }
        if spec.at_most_once && !self.hears_majority(spec) {
            let (count, lost) = (spec.voters.len(), self.lost_voters(spec));
            if count - lost < majority(count) {
                let text = format!(
                    "waits for a person: {lost} of its {count} voters lost what they had voted; nobody can decide any more: \
                     cancel it, or submit it anew"
                );
                return (WaitsFor::Person, text);
            }
            let text = format!("waits for most of its {count} voters: too few of them can be reached from here");
            return (WaitsFor::Voters, text);
        }
        if let Some(Waiting::GivingUp(reason)) = waiting {
            return (WaitsFor::GivingUp, format!("gives up: {reason}"));
        }
        if offers.iter().any(|o| o.bid_micros.is_some()) {
            return (WaitsFor::Placing, "queued: a fitting node has a slot and is about to claim it".into());
        }
        let passing = offers.iter().any(|offer| offer.lacks.iter().all(Lack::is_passing));
        let what = if passing { WaitsFor::Slot } else { WaitsFor::Node };
        (what, format!("queued: {}", count_reasons(offers)))
    }

    fn offer_views(&self, id: JobId, spec: &JobSpec) -> Vec<OfferView> {
        let estimate_ms = self.durations.of(spec).map(|us| us / 1_000);
        let declines: BTreeMap<NodeId, Lack> =
            self.calls.range((id, 0)..=(id, u32::MAX)).flat_map(|(_, call)| call.declines.clone()).collect();
        self.live_offers()
            .map(|(node, offer)| {
                let mut lacks = lacks(offer, spec);
                if lacks.is_empty() && self.free_slots(&node) == 0 {
                    lacks.push(Lack::Busy);
                }
                if let Some(lack) = declines.get(&node).filter(|lack| !lacks.contains(lack)) {
                    lacks.push(lack.clone());
                }
                let bid_micros = lacks.is_empty().then(|| bid_micros(offer, spec, estimate_ms, 0));
                OfferView { node, name: self.name_of(node), bid_micros, lacks }
            })
            .collect()
    }

    pub(super) fn reasons(&self, spec: &JobSpec) -> String {
        count_reasons(&self.offer_views(JobId::ZERO, spec))
    }

    fn name_of(&self, node: NodeId) -> String {
        self.replica.roster().members.get(&node).map_or_else(|| node.short(), |m| m.name.clone())
    }
}

/// "2 of 3 nodes: label gpu missing; 1: all its slots are taken".
fn count_reasons(offers: &[OfferView]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for offer in offers {
        if let Some(lack) = offer.lacks.first() {
            *counts.entry(lack.to_string()).or_default() += 1;
        }
    }
    if counts.is_empty() {
        return "no node that may run jobs is online".into();
    }
    let total = offers.len();
    let mut parts: Vec<(usize, String)> = counts.into_iter().map(|(reason, n)| (n, reason)).collect();
    parts.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let texts: Vec<String> = parts
        .into_iter()
        .enumerate()
        .map(
            |(at, (n, reason))| {
                if at == 0 { format!("{n} of {total} nodes: {reason}") } else { format!("{n}: {reason}") }
            },
        )
        .collect();
    texts.join("; ")
}
