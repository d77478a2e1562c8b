//! What the model must find. One test, for the mistake is a setting of the whole process.

use crdt::mutant::Mutant;

#[test]
fn each_property_is_broken_by_a_mistake() {
    let mistakes = [
        (Mutant::QuorumShort, "at-most-once"),
        (Mutant::AnybodyAccepts, "exclusive-acceptance"),
        (Mutant::KeepsSlotBack, "no-stuck-task"),
    ];
    for (mutant, property) in mistakes {
        let checked = simulations::check_model(1, 300_000, Some(mutant));
        let broken: Vec<&str> = checked.broken.iter().map(|(name, _)| &**name).collect();
        assert_eq!(broken, [property], "{mutant:?}");
    }
}
