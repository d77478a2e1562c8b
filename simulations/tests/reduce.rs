//! A failing run is made smaller, and what is left still fails; a scenario that names what is not there is refused.

use crdt::mutant::Mutant;
use simulations::{Fault, Plan, Wish};

fn drawn(seed: u64, faults: Vec<Fault>) -> Plan {
    Plan::draw(&Wish { seed, nodes: 4, jobs: 12, hours: None, faults })
}

#[test]
fn a_run_that_a_mistake_breaks_gets_smaller_and_stays_broken() {
    crdt::mutant::make(Some(Mutant::LeaksSlot));
    let broken = (0..40).map(|seed| drawn(seed, vec![Fault::Cancel])).find(|plan| {
        let found = simulations::run(plan.clone()).violations;
        !plan.says.is_empty() && found.iter().any(|v| v.invariant == "slots-return")
    });
    let plan = broken.expect("a seed with a ledger shows it");
    let reduced = simulations::reduce(plan.clone(), |_, _| {}).expect("it breaks an invariant");
    let found = simulations::run(reduced.clone()).violations;
    crdt::mutant::make(None);
    assert!(found.iter().any(|v| v.invariant == "slots-return"), "{found:?}");
    assert!(reduced.says.is_empty(), "what is said has no part in it: {:?}", reduced.says);
    assert!(reduced.submits.len() <= 2 && reduced.steps.len() <= 2, "{reduced:?}");
    reduced.check().expect("a scenario that can be run");
    assert!(simulations::run(reduced).violations.is_empty(), "without the mistake it holds");
}

#[test]
fn a_scenario_that_names_what_is_not_there_is_refused() {
    let plan = drawn(1, Fault::ALL.to_vec());
    plan.check().expect("what is drawn can be run");
    let with = |change: fn(&mut Plan)| {
        let mut plan = plan.clone();
        change(&mut plan);
        plan.check().expect_err("it cannot be run")
    };
    assert!(with(|plan| plan.submits[0].node = 99).contains("node 99"));
    assert!(with(|plan| plan.submits[0].after = vec![7]).contains("job 0 waits"));
    assert!(with(|plan| plan.submits[0].idea = Some(4_000)).contains("place 4000"));
    assert!(with(|plan| plan.nodes = 0).contains("nodes"));
}
