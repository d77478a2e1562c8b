//! The claim protocol without its deliberate mistake: a part of the states, in a process of its own.

#[test]
fn nothing_is_accepted_twice_or_started_twice_or_stuck_in_the_states_that_are_looked_at() {
    let checked = simulations::check_model(1, 40_000, None);
    println!("{} states, {} steps deep", checked.states, checked.depth);
    assert!(checked.broken.is_empty(), "{:?}", checked.broken);
    assert!(checked.states > 10_000);
}
