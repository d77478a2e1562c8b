//! Many runs: a sweep over seeds, the search for what each mutant does, and the reduction of a failing run.

use crdt::mutant::Mutant;
use rayon::prelude::*;
use serde::Serialize;

use crate::faults::Fault;
use crate::plan::{Plan, Say, Saying, Wish};
use crate::{Report, run};

/// Runs that a reduction tries at most.
const TRIES_MAX: u32 = 2_000;

/// Runs all seeds; what is found is handed on as it comes.
pub fn sweep(wish: &Wish, seeds: std::ops::Range<u64>, found: impl Fn(&Report) + Sync) -> Vec<u64> {
    let failed = |seed: u64| {
        let report = run(Plan::draw(&Wish { seed, ..wish.clone() }));
        let fails = !report.violations.is_empty();
        if fails {
            found(&report);
        }
        fails.then_some(seed)
    };
    let mut failed: Vec<u64> = seeds.into_par_iter().filter_map(failed).collect();
    failed.sort_unstable();
    failed
}

/// A mutant, and the first seed whose run shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MutantFound {
    /// The invariant that must turn red.
    pub invariant: &'static str,
    /// The mutant.
    pub mutant: String,
    /// The seed; `None`: it survived.
    pub found_by_seed: Option<u64>,
}

/// Which invariant a mutant breaks, and the faults that bring it out.
fn target(mutant: Mutant) -> (&'static str, &'static [Fault]) {
    use Fault::{Cancel, Crash, Equivocate, Flood, Forge, Partition, Revoke};
    match mutant {
        Mutant::AcksWithoutReceipt => ("acknowledged-kept", &[Fault::Loss, Partition, Crash]),
        Mutant::JudgesAtArrival => ("same-feeds-same-state", &[Partition, Revoke]),
        Mutant::AnybodyAccepts => ("one-result", &[Partition]),
        Mutant::QuorumShort => ("at-most-once", &[Partition, Crash]),
        Mutant::TakesUnsigned => ("own-register", &[Forge]),
        Mutant::RewindsWholly => ("ledger-grows", &[Equivocate]),
        Mutant::CountsRevoked => ("revoked-silent", &[Partition, Revoke]),
        Mutant::IgnoresLost => ("ends-or-says-why", &[Crash]),
        Mutant::KeepsSlotBack => ("idle-slot", &[Cancel]),
        Mutant::ShortLease => ("lease-kept", &[Cancel]),
        Mutant::OldestFirst => ("fair", &[Fault::Skew]),
        Mutant::TakesEveryCall => ("bounds", &[Flood]),
        Mutant::LeaksSlot => ("slots-return", &[Cancel]),
        Mutant::StartsUnregistered => ("registered-first", &[Partition, Fault::Loss]),
        Mutant::AnybodyTakes => ("one-owner", &[Cancel]),
        Mutant::RetractionRemoves => ("retraction-hides", &[Cancel]),
    }
}

/// Makes each mistake in turn and looks for a seed that shows it. Nothing else may run in this process meanwhile.
#[must_use]
pub fn mutants(seeds: u64) -> Vec<MutantFound> {
    let search = |mutant: Mutant| {
        let (invariant, faults) = target(mutant);
        crdt::mutant::make(Some(mutant));
        let shows = |seed: &u64| {
            // Unfairness shows beside a queue that is long for the mesh.
            let (nodes, jobs) = if invariant == "fair" { (3, 150) } else { (8, 60) };
            let wish = Wish { seed: *seed, nodes, jobs, hours: None, faults: faults.to_vec() };
            run(Plan::draw(&wish)).violations.iter().any(|v| v.invariant == invariant)
        };
        // A few at a time, so that the first is found soon.
        let blocks = (0..seeds).step_by(8).map(|from| from..(from + 8).min(seeds));
        let first = |block: std::ops::Range<u64>| block.into_par_iter().filter(shows).min();
        let found_by_seed = blocks.into_iter().find_map(first);
        crdt::mutant::make(None);
        MutantFound { invariant, mutant: format!("{mutant:?}"), found_by_seed }
    };
    Mutant::ALL.into_iter().map(search).collect()
}

/// Makes a failing plan smaller while it still breaks the same invariant: fewer jobs, fewer faults, fewer nodes. `None` when it
/// breaks none.
pub fn reduce(plan: Plan, mut progress: impl FnMut(&Plan, u32)) -> Option<Plan> {
    let invariant = run(plan.clone()).violations.first()?.invariant;
    let fails = |plan: &Plan| run(plan.clone()).violations.iter().any(|v| v.invariant == invariant);
    let (mut best, mut tries) = (plan, 0);
    loop {
        let before = best.clone();
        for candidates in [fewer_submits, fewer_says, fewer_steps, calmer, fewer_nodes] {
            let mut at = 0;
            loop {
                let list = candidates(&best);
                let Some(smaller) = list.get(at).filter(|_| tries < TRIES_MAX) else { break };
                tries += 1;
                if fails(smaller) {
                    best = smaller.clone();
                    progress(&best, tries);
                } else {
                    at += 1;
                }
            }
        }
        if best == before || tries >= TRIES_MAX {
            return Some(best);
        }
    }
}

/// Plans without a stretch of the jobs, long stretches first.
fn fewer_submits(plan: &Plan) -> Vec<Plan> {
    let stretches = stretches(plan.submits.len());
    stretches.into_iter().map(|(from, to)| without_submits(plan, from, to)).collect()
}

fn without_submits(plan: &Plan, from: usize, to: usize) -> Plan {
    let mut plan = plan.clone();
    plan.submits.drain(from..to);
    let (from, gone) = (u32::try_from(from).expect("few jobs"), u32::try_from(to - from).expect("few jobs"));
    for submit in &mut plan.submits {
        submit.after.retain(|up| !(from..from + gone).contains(up));
        submit.after.iter_mut().filter(|up| **up >= from + gone).for_each(|up| *up -= gone);
    }
    plan.steps.retain_mut(|(_, step)| {
        if let crate::Step::Cancel(n) = step {
            if (from..from + gone).contains(n) {
                return false;
            }
            *n -= if *n >= from { gone } else { 0 };
        }
        true
    });
    plan
}

/// Plans without a stretch of what is said; what is said about an idea goes with it, and a job that served it serves none.
fn fewer_says(plan: &Plan) -> Vec<Plan> {
    stretches(plan.says.len()).into_iter().map(|(from, to)| without_says(plan, from, to)).collect()
}

fn without_says(plan: &Plan, from: usize, to: usize) -> Plan {
    let mut plan = plan.clone();
    // Ideas are named by their place among what is said: the places that stay, and what they become.
    let mut places: Vec<Option<u32>> = Vec::with_capacity(plan.says.len());
    let mut kept = Vec::with_capacity(plan.says.len());
    for (at, saying) in plan.says.drain(..).enumerate() {
        let about = |place: u32| places.get(place as usize).copied().flatten();
        let say = match saying.say {
            Say::Idea => Some(Say::Idea),
            Say::Offer(idea, to) => about(idea).map(|idea| Say::Offer(idea, to)),
            Say::Take(idea) => about(idea).map(Say::Take),
            Say::Observe(idea) => about(idea).map(Say::Observe),
            Say::Retract(idea) => about(idea).map(Say::Retract),
        };
        let say = say.filter(|_| !(from..to).contains(&at));
        places.push(say.as_ref().map(|_| u32::try_from(kept.len()).expect("few sayings")));
        kept.extend(say.map(|say| Saying { say, ..saying }));
    }
    plan.says = kept;
    for submit in &mut plan.submits {
        submit.idea = submit.idea.and_then(|idea| places.get(idea as usize).copied().flatten());
    }
    plan
}

fn fewer_steps(plan: &Plan) -> Vec<Plan> {
    let without = |(from, to)| {
        let mut plan = plan.clone();
        plan.steps.drain(from..to);
        plan
    };
    stretches(plan.steps.len()).into_iter().map(without).collect()
}

fn calmer(plan: &Plan) -> Vec<Plan> {
    let changes: [fn(&mut Plan); 7] = [
        |plan| plan.loss_ppm = 0,
        |plan| plan.double_ppm = 0,
        |plan| plan.reorders = false,
        |plan| plan.skewed = false,
        |plan| (plan.sites, plan.satellite) = (1, None),
        |plan| plan.idlers.clear(),
        |plan| plan.submits.iter_mut().for_each(|s| (s.array, s.labels) = (0, Vec::new())),
    ];
    let calm = |change: &fn(&mut Plan)| {
        let mut plan = plan.clone();
        change(&mut plan);
        plan
    };
    changes.iter().map(calm).filter(|other| other != plan).collect()
}

/// A plan without its last node, where nothing of the plan needs it.
fn fewer_nodes(plan: &Plan) -> Vec<Plan> {
    let last = plan.nodes.saturating_sub(1);
    let is_said = |saying: &Saying| saying.node == last || matches!(saying.say, Say::Offer(_, to) if to == last);
    let needed = plan.submits.iter().any(|s| s.node == last)
        || plan.says.iter().any(is_said)
        || plan.steps.iter().any(|(_, step)| step.nodes().contains(&last));
    if plan.nodes <= 2 || plan.spares > 0 || needed {
        return Vec::new();
    }
    let mut plan = Plan { nodes: last, ..plan.clone() };
    plan.idlers.retain(|idler| *idler != last);
    for (_, step) in &mut plan.steps {
        if let crate::Step::Split(side) = step {
            side.truncate(last as usize);
        }
    }
    vec![plan]
}

/// Stretches of a list: its halves, its quarters, and so on to single elements.
fn stretches(len: usize) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut size = len.div_ceil(2);
    while size > 0 && len > 0 {
        found.extend((0..len).step_by(size).map(|from| (from, (from + size).min(len))));
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    found
}
