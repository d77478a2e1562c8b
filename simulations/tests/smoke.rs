//! Two hundred small runs with drawn faults, and that a run depends on its seed alone.

use simulations::{Fault, Plan, Report, Wish, run};

fn wish(seed: u64) -> Wish {
    Wish { seed, nodes: 6, jobs: 30, hours: None, faults: Fault::ALL.to_vec() }
}

fn sweep(seeds: std::ops::Range<u64>) {
    let show = |report: &Report| eprintln!("seed {}: {:?}", report.seed, report.violations);
    assert_eq!(
        simulations::sweep(&wish(0), seeds, show),
        Vec::<u64>::new(),
        "reduce one by `simulations reduce --nodes 6 --jobs 30 …`"
    );
}

#[test]
fn the_first_fifty_seeds_keep_all_invariants() {
    sweep(0..50);
}

#[test]
fn the_second_fifty_seeds_keep_all_invariants() {
    sweep(50..100);
}

#[test]
fn the_third_fifty_seeds_keep_all_invariants() {
    sweep(100..150);
}

#[test]
fn the_fourth_fifty_seeds_keep_all_invariants() {
    sweep(150..200);
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let large = Wish { seed: 3, nodes: 70, jobs: 60, hours: None, faults: Vec::new() };
    assert_eq!(run(Plan::draw(&large)), run(Plan::draw(&large)), "also where nodes run side by side");
    assert_eq!(run(Plan::draw(&wish(5))), run(Plan::draw(&wish(5))));
    assert_ne!(run(Plan::draw(&wish(5))).trace_hash, run(Plan::draw(&wish(6))).trace_hash);
}

#[test]
fn a_fault_that_there_is_not_is_named_with_those_that_there_are() {
    let error = Fault::parse_list("crash,typhoon").expect_err("no such fault");
    assert!(error.contains("typhoon") && error.contains("partition"), "{error}");
    assert_eq!(Fault::parse_list("crash, loss"), Ok(vec![Fault::Crash, Fault::Loss]));
}
