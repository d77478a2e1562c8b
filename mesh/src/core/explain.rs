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
            (JobState::Queued, _) => self.why_waiting(&spec, submitter, &offers, segment.map(|s| s.waiting)),
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

    fn why_waiting(
        &self,
        spec: &JobSpec,
        submitter: Option<NodeId>,
        offers: &[OfferView],
        waiting: Option<Waiting>,
    ) -> String {
        if let Some(up) = spec.after.iter().find(|up| !self.is_done(up)) {
            return format!("waits for job {up}, which is {}", self.state_of(up).map_or("unknown", JobState::name));
        }
        if let Some(idea) = spec.idea.filter(|_| !self.knows_idea(spec)) {
            return format!("waits for the idea {} that it serves: the ledger does not hold it here yet", idea.short());
        }
        if submitter.is_some_and(|submitter| self.is_behind(&submitter)) {
            return "waits for the rest of what its submitter wrote: much of that has not come here yet".into();
        }
        if let Some(Waiting::Person(claim)) = waiting {
            return format!(
                "waits for a person: attempt {} on {} was the one that might start, and is lost or was given back; nobody \
                 starts it again: cancel it, or submit it anew",
                claim.attempt,
                self.name_of(claim.owner)
            );
        }
        if spec.at_most_once && !self.hears_majority(spec) {
            let (count, lost) = (spec.voters.len(), self.lost_voters(spec));
            if count - lost < majority(count) {
                return format!(
                    "waits for a person: {lost} of its {count} voters lost what they had voted; nobody can decide any more: \
                     cancel it, or submit it anew"
                );
            }
            return format!("waits for most of its {count} voters: too few of them can be reached from here");
        }
        if let Some(Waiting::GivingUp(reason)) = waiting {
            return format!("gives up: {reason}");
        }
        if offers.iter().any(|o| o.bid_micros.is_some()) {
            return "queued: a fitting node has a slot and is about to claim it".into();
        }
        format!("queued: {}", count_reasons(offers))
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
