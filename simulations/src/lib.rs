//! The real `crdt` and `mesh` code under a virtual clock, network and disk, with faults that are drawn from a seed.
//!
//! [`Plan::draw`] says what a run does, [`run`] runs it and looks at the [`INVARIANTS`] meanwhile and afterwards. The same plan
//! gives the same trace on every machine, in debug and release builds and on any number of threads.

mod checks;
mod disk;
mod faults;
mod ledger;
mod model;
mod network;
mod node;
mod plan;
mod replay;
mod report;
mod search;
mod world;

pub use checks::{INVARIANTS, Violation};
pub use faults::Fault;
pub use model::{Checked, check_model};
pub use plan::{JOBS_MAX, NODES_MAX, Plan, Step, Submit, Wish};
pub use replay::{Replayed, replay};
pub use report::{Bystander, Placement, Report};
pub use search::{MutantFound, mutants, reduce, sweep};

/// Reads a seed from a command line.
///
/// # Errors
/// A sentence with the range.
pub fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("a seed is a number from 0 to {}", u64::MAX))
}

/// Runs a plan.
#[must_use]
pub fn run(plan: Plan) -> Report {
    played(plan).1
}

/// Runs a plan as the last thing that a process does: the mesh is left to the system, which takes gigabytes back faster than
/// they are freed row by row.
#[must_use]
pub fn run_last(plan: Plan) -> Report {
    let (world, report) = played(plan);
    std::mem::forget(world);
    report
}

fn played(plan: Plan) -> (world::World, Report) {
    let mut world = world::World::new(plan);
    world.run();
    world.check_end();
    let report = Report::of(&mut world);
    (world, report)
}
