//! The ledger on real nodes: what is added on one is on all, and stays.

#![cfg(unix)]

mod mesh_support;

use mesh_support::Node;

#[test]
fn an_idea_is_on_every_node_survives_restarts_and_is_named_by_a_part_of_its_id() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let ticket = alpha.ticket("worker");
    let beta = Node::up(root.path(), "beta", &["--slots", "0", "--join", &ticket]);
    alpha.wait("beta", |node| node.json(&["peers", "--json"])[0]["online"] == true);
    assert_eq!(alpha.json(&["idea", "list", "--json"]), serde_json::json!([]));
    let added = alpha.json(&["idea", "add", "Cache the toolchains", "--body", "They are **large**.", "--json"]);
    assert_eq!((&added["durable_on"], &added["similar"]), (&2.into(), &serde_json::json!([])));
    let id = added["id"].as_str().expect("an id").to_owned();
    let arabic = beta.json(&["idea", "add", "ماكو فكرة تضيع", "--language", "ar", "--tag", "أفكار", "--json"]);
    let ids = [id.clone(), arabic["id"].as_str().expect("an id").to_owned()];
    let listed = |node: &Node| {
        let rows = node.json(&["idea", "list", "--json"]);
        rows.as_array()
            .expect("a list")
            .iter()
            .map(|row| row["id"].as_str().expect("an id").to_owned())
            .collect::<Vec<_>>()
    };
    for node in [&alpha, &beta] {
        node.wait("both ideas, by the time they were written", |node| listed(node) == ids);
        let rows = node.json(&["idea", "list", "--json"]);
        assert_eq!((&rows[0]["author"], &rows[0]["status"]), (&alpha.id.clone().into(), &"open".into()));
        assert_eq!(rows[1]["title"], "ماكو فكرة تضيع");
        let shown = node.json(&["idea", "show", &id[..10], "--json"]);
        assert_eq!((&shown["id"], &shown["body"]), (&id.clone().into(), &"They are **large**.".into()));
    }
    let hash = |node: &Node| node.json(&["status", "--json"])["state_hash"].clone();
    alpha.wait("one state", |alpha| hash(alpha) == hash(&beta));
    alpha.kill();
    let alpha = Node::again(root.path(), "alpha", &["--slots", "0"]);
    assert_eq!(listed(&alpha), ids);
    // A store that is gone comes back from the other.
    alpha.kill();
    std::fs::remove_file(root.path().join("alpha/v6.redb")).expect("removed");
    let alpha = Node::again(root.path(), "alpha", &["--slots", "0"]);
    alpha.wait("both ideas again", |node| listed(node) == ids);
}

#[test]
fn what_is_no_idea_is_refused_with_the_reason_and_changes_nothing() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let large = "x".repeat(2_000);
    for (args, says) in [
        (&["idea", "add", ""][..], "title is empty"),
        (&["idea", "add", "two\nlines"], "one line"),
        (&["idea", "add", &large], "put the rest into its body"),
        (&["idea", "add", "x", "--kind", "mood"], "an idea, an observation or an issue"),
        (&["idea", "show", "00ff00"], "v6 idea list"),
        (&["idea", "show", "zz"], "no idea \"zz\""),
    ] {
        let refused = alpha.refused(args);
        assert!(refused.contains(says), "{args:?}: {refused}");
    }
    assert_eq!(alpha.json(&["idea", "list", "--json"]), serde_json::json!([]));
    for title in ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"] {
        assert!(alpha.v6(&["idea", "add", title]).status.success());
    }
    // Pages of a size that does not divide them.
    let rows = alpha.json(&["idea", "list", "--limit", "3", "--json"]);
    let titles: Vec<_> = rows.as_array().expect("a list").iter().map(|row| row["title"].clone()).collect();
    assert_eq!(titles, ["one", "two", "three"]);
    let one = rows[0]["id"].as_str().expect("an id");
    let shown = String::from_utf8_lossy(&alpha.v6(&["idea", "show", one]).stdout).into_owned();
    assert!(shown.starts_with("one\nidea") && shown.contains(one), "{shown}");
}
