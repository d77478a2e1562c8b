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

/// Two nodes of two persons: the first an admin's, the second a worker's.
fn two(root: &std::path::Path) -> (Node, Node) {
    let alpha = Node::up(root, "alpha", &["--slots", "0"]);
    let ticket = alpha.ticket("worker");
    let beta = Node::up(root, "beta", &["--slots", "0", "--join", &ticket]);
    alpha.wait("beta", |node| node.json(&["peers", "--json"])[0]["online"] == true);
    (alpha, beta)
}

fn add(node: &Node, title: &str) -> String {
    node.json(&["idea", "add", title, "--json"])["id"].as_str().expect("an id").to_owned()
}

fn one_state(alpha: &Node, beta: &Node) {
    let state = |node: &Node| {
        let status = node.json(&["status", "--json"]);
        (status["feeds"].clone(), status["state_hash"].clone())
    };
    alpha.wait("one state", |alpha| state(alpha) == state(beta));
}

#[test]
fn what_is_like_an_idea_is_told_when_it_is_added_and_closes_nothing() {
    let root = tempfile::tempdir().expect("a directory");
    let (alpha, beta) = two(root.path());
    let first = add(&alpha, "تخزين أدوات البناء على كل جهاز");
    add(&alpha, "Pause background work whenever somebody touches the mouse");
    one_state(&alpha, &beta);
    // On the other node, in another spelling, and at once.
    let again = beta.json(&["idea", "add", "تخزين ادوات البـناء على كلّ جهاز!", "--json"]);
    assert_eq!((&again["similar"][0]["id"], &again["similar"][0]["score"]), (&first.into(), &1.0.into()));
    let near = beta.json(&["idea", "add", "Pause background work whenever anybody touches the mouse", "--json"]);
    let score = near["similar"][0]["score"].as_f64().expect("a number");
    assert!(near["similar"].as_array().expect("a list").len() == 1 && score < 1.0, "{near}");
    assert_eq!(beta.json(&["idea", "list", "--json"]).as_array().expect("a list").len(), 4);
    // Under a key it is the same, however often it is written.
    let keyed = |title| beta.v6(&["idea", "add", title, "--key", "note 7", "--json"]);
    let (one, two) = (keyed("Numbered"), keyed("Numbered"));
    let id = |out: &std::process::Output| {
        serde_json::from_slice::<serde_json::Value>(&out.stdout).expect("JSON")["id"].clone()
    };
    assert_eq!(id(&one), id(&two));
    assert_eq!(keyed("Renumbered").status.code(), Some(1));
}

#[test]
fn links_arguments_votes_and_decisions_are_the_same_on_both_nodes() {
    let root = tempfile::tempdir().expect("a directory");
    let (alpha, beta) = two(root.path());
    let ids: Vec<String> = ["One", "Two", "Three"].iter().map(|title| add(&alpha, title)).collect();
    one_state(&alpha, &beta);
    let ok = |node: &Node, args: &[&str]| {
        let out = node.v6(args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    };
    let link = ok(&beta, &["idea", "link", &ids[0], "supports", &ids[1]]);
    ok(&beta, &["idea", "link", &ids[0], "broader", &ids[2]]);
    ok(&beta, &["idea", "argue", &ids[1], "It is cheap", "--for"]);
    ok(&beta, &["idea", "vote", &ids[1]]);
    ok(&beta, &["idea", "evaluate", &ids[1], "--value", "90", "--effort", "10"]);
    one_state(&alpha, &beta);
    let shown = alpha.json(&["idea", "show", &ids[1], "--json"]);
    assert_eq!(
        (&shown["backlinks"][0]["from"], &shown["backlinks"][0]["relation"]),
        (&ids[0].clone().into(), &"supports".into())
    );
    let top = |node: &Node| node.json(&["idea", "top", "--json"]);
    ok(&beta, &["idea", "evaluate", &ids[2], "--value", "1", "--effort", "1"]);
    one_state(&alpha, &beta);
    assert_eq!(top(&alpha)[0]["id"], ids[1]);
    assert_eq!(top(&alpha), top(&beta));
    // The mesh may weigh otherwise.
    ok(&alpha, &["policy", "set", "weights", "effort=1 value=0 confidence=0 votes=0 support=0 age=0 novelty=0"]);
    one_state(&alpha, &beta);
    assert_eq!(top(&beta)[0]["id"], ids[2]);
    assert_eq!(top(&alpha), top(&beta));
    ok(&alpha, &["policy", "unset", "weights"]);
    for (args, says) in [
        (&["idea", "link", &ids[2], "broader", &ids[0]][..], "circle"),
        (&["idea", "link", &ids[0], "likes", &ids[1]], "there are broader"),
        (&["idea", "link", &ids[0], "supports", "00ff00ff"], "no idea"),
        (&["idea", "link", &ids[0], "supports", &ids[0]], "itself"),
        (&["idea", "link", &ids[0], "executed-by", "00ff00ff"], "no job"),
        (&["idea", "decide", &ids[0], "perhaps"], "accepted"),
        (&["idea", "evaluate", &ids[0], "--value", "101"], "101"),
    ] {
        let refused = alpha.refused(args);
        assert!(refused.contains(says), "{args:?}: {refused}");
    }
    // Only who owns an idea decides; only who wrote an entry takes it back, or an admin.
    assert_eq!(beta.v6(&["idea", "decide", &ids[0], "done"]).status.code(), Some(4));
    ok(&alpha, &["idea", "decide", &ids[0], "done"]);
    ok(&alpha, &["idea", "decide", &ids[0], "rejected", "--because", "It was not"]);
    ok(&beta, &["idea", "retract", &ids[0], &link]);
    one_state(&alpha, &beta);
    assert_eq!(beta.json(&["idea", "show", &ids[0], "--json"])["status"], "rejected");
    assert_eq!(alpha.json(&["idea", "show", &ids[1], "--json"])["backlinks"], serde_json::json!([]));
    ok(&alpha, &["idea", "retract", &ids[2]]);
    one_state(&alpha, &beta);
    assert_eq!(beta.json(&["idea", "list", "--json"]).as_array().expect("a list").len(), 2);
}

#[test]
fn an_idea_changes_hands_when_both_sign() {
    let root = tempfile::tempdir().expect("a directory");
    let (alpha, beta) = two(root.path());
    let id = add(&alpha, "Mine");
    one_state(&alpha, &beta);
    let owner = |node: &Node| node.json(&["idea", "show", &id, "--json"])["owner"].clone();
    let first = owner(&alpha);
    // Neither by somebody else, nor unasked.
    assert_eq!(beta.v6(&["idea", "transfer", &id, "beta"]).status.code(), Some(4));
    assert!(beta.refused(&["idea", "transfer", &id, "--accept"]).contains("not offered to you"));
    assert!(alpha.refused(&["idea", "transfer", &id, "nobody"]).contains("nobody is called"));
    assert!(alpha.v6(&["idea", "transfer", &id, "beta"]).status.success());
    one_state(&alpha, &beta);
    assert_eq!(owner(&beta), first, "an offer alone changes nothing");
    assert!(beta.v6(&["idea", "transfer", &id, "--accept"]).status.success());
    one_state(&alpha, &beta);
    assert_ne!(owner(&alpha), first);
    assert_eq!(owner(&alpha), owner(&beta));
    assert_eq!(beta.json(&["idea", "show", &id, "--json"])["handovers"].as_array().expect("a list").len(), 1);
    assert!(beta.v6(&["idea", "decide", &id, "accepted"]).status.success());
}

#[test]
fn ideas_are_found_by_their_words_after_a_restart_and_without_their_index() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let arabic = add(&alpha, "تخزين أدوات البناء على كل جهاز");
    let body = "Compilers are downloaded twice a day.";
    let id =
        alpha.json(&["idea", "add", "Cache the toolchains", "--body", body, "--tag", "build", "--json"])["id"].clone();
    let found = |node: &Node, args: &[&str]| {
        let mut all = vec!["idea", "search", "--json"];
        all.extend(args);
        let rows = node.json(&all);
        rows.as_array().expect("a list").iter().map(|row| row["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(found(&alpha, &["ادواتُ", "الــبناء"]), [serde_json::Value::from(arabic.clone())]);
    let one = std::slice::from_ref(&id);
    assert_eq!(found(&alpha, &["compiler", "download"]), one);
    assert_eq!(found(&alpha, &["--tag", "BUILD"]), one);
    assert!(found(&alpha, &["nothing", "of", "this"]).is_empty());
    let shown = alpha.json(&["idea", "search", "download", "--json"]);
    assert_eq!(
        (&shown[0]["snippet"], &shown[0]["highlights"][0]),
        (&body.trim_end_matches('.').into(), &serde_json::json!([14, 24]))
    );
    alpha.kill();
    let alpha = Node::again(root.path(), "alpha", &["--slots", "0"]);
    alpha.wait("the index", |node| found(node, &["toolchain"]) == [id.clone()]);
    alpha.kill();
    std::fs::remove_dir_all(root.path().join("alpha/index")).expect("removed");
    let alpha = Node::again(root.path(), "alpha", &["--slots", "0"]);
    alpha.wait("the index", |node| found(node, &["toolchain"]) == [id.clone()]);
}

#[test]
fn a_ledger_goes_into_another_mesh_with_its_signatures_and_a_tampered_line_does_not() {
    let root = tempfile::tempdir().expect("a directory");
    let (alpha, beta) = two(root.path());
    let ids: Vec<String> = ["أولى", "Second", "Third"].iter().map(|title| add(&alpha, title)).collect();
    one_state(&alpha, &beta);
    assert!(beta.v6(&["idea", "link", &ids[0], "supports", &ids[1]]).status.success());
    assert!(beta.v6(&["idea", "argue", &ids[2], "No", "--against"]).status.success());
    one_state(&alpha, &beta);
    let file = root.path().join("ledger.jsonl");
    let path = file.to_str().expect("UTF-8");
    assert!(alpha.v6(&["idea", "export", path]).status.success());
    let verified = alpha.json(&["idea", "verify", "--json"]);
    assert_eq!((&verified["ok"], &verified["entries"], &verified["links"]), (&true.into(), &5.into(), &1.into()));
    let elsewhere = Node::up(root.path(), "elsewhere", &["--slots", "0"]);
    // Tampered with: named, and nothing is taken.
    let text = std::fs::read_to_string(&file).expect("read");
    let tampered = root.path().join("tampered.jsonl");
    std::fs::write(&tampered, text.replace("Second", "Secund")).expect("written");
    let tampered = tampered.to_str().expect("UTF-8");
    let refused = elsewhere.v6(&["idea", "import", tampered]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains(&ids[1]), "{refused:?}");
    assert_eq!(elsewhere.v6(&["idea", "verify", tampered]).status.code(), Some(1));
    assert_eq!(elsewhere.json(&["idea", "list", "--json"]), serde_json::json!([]));
    assert!(elsewhere.v6(&["idea", "import", tampered, "--skip-bad"]).status.success());
    assert_eq!(elsewhere.json(&["idea", "list", "--json"]).as_array().expect("a list").len(), 2);
    // Whole, twice: the same ids, authors, times and order.
    for _ in 0..2 {
        assert!(elsewhere.v6(&["idea", "import", path]).status.success());
        assert_eq!(elsewhere.json(&["idea", "list", "--json"]), alpha.json(&["idea", "list", "--json"]));
    }
    let shown = |node: &Node, id: &str| node.json(&["idea", "show", id, "--json"]);
    for id in &ids {
        assert_eq!(shown(&elsewhere, id), shown(&alpha, id));
    }
    assert_eq!(elsewhere.json(&["idea", "verify", "--json"])["ok"], true);
    assert!(elsewhere.refused(&["idea", "import", "/dev/null"]).contains("empty"));
}
