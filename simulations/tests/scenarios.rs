//! Runs that once broke an invariant, each as small as `simulations reduce` made it.

use simulations::Plan;

#[test]
fn what_once_went_wrong_goes_right() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let mut count = 0;
    for entry in std::fs::read_dir(dir).expect("the scenarios") {
        let path = entry.expect("an entry").path();
        let plan: Plan = serde_json::from_slice(&std::fs::read(&path).expect("readable")).expect("a scenario");
        assert_eq!(simulations::run(plan).violations, [], "{}", path.display());
        count += 1;
    }
    assert!(count >= 6, "the scenarios are there");
}
