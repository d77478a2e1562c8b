//! The claim protocol, every order of what three nodes say for two tasks. One process per test: the mistake is a setting of
//! the whole process.

#[test]
fn a_choice_by_one_vote_less_than_a_majority_starts_a_task_twice() {
    let mutant = Some(crdt::mutant::Mutant::QuorumShort);
    let checked = simulations::check_model(1, 300_000, mutant);
    let broken: Vec<&str> = checked.broken.iter().map(|(name, _)| &**name).collect();
    assert_eq!(broken, ["at-most-once"]);
}
