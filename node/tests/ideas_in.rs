//! Ways into the ledger, and out of it: other programs' files, the inbox, notebooks, graphs, provenance.

#![cfg(unix)]

mod mesh_support;

use std::io::Write;
use std::process::Stdio;

use mesh_support::Node;
use serde_json::{Value, json};

fn titles(node: &Node) -> Vec<String> {
    let rows = node.json(&["idea", "list", "--json"]);
    let mut titles: Vec<String> =
        rows.as_array().expect("a list").iter().map(|row| row["title"].as_str().expect("a title").to_owned()).collect();
    titles.sort();
    titles
}

#[test]
fn another_program_s_file_is_told_first_and_taken_in_once() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let file = root.path().join("notes.md");
    std::fs::write(&file, "# Notes\n\n## Cache the tools\n\nThey are large.\n\n## ترجمة\n").expect("written");
    let path = file.to_str().expect("a path");
    let import = |more: &[&str]| {
        let args: Vec<&str> = ["idea", "import", path, "--format", "markdown"].iter().chain(more).copied().collect();
        alpha.v6(&args)
    };
    let told = String::from_utf8_lossy(&import(&[]).stdout).into_owned();
    assert!(told.contains("+ Cache the tools") && told.contains("2 ideas would be added"), "{told}");
    assert_eq!(titles(&alpha), Vec::<String>::new(), "nothing was added");
    assert!(import(&["--yes"]).status.success());
    assert_eq!(titles(&alpha), ["Cache the tools", "ترجمة"]);
    // The same file adds nothing, a longer one what is new.
    let more = "# Notes\n\n## Cache the tools\n\nThey are large.\n\n## ترجمة\n\n## Third\n";
    std::fs::write(&file, more).expect("written");
    let again: Value = serde_json::from_slice(&import(&["--yes", "--json"]).stdout).expect("JSON");
    assert_eq!((&again["added"], &again["known"]), (&json!(1), &json!(2)));
    assert_eq!(titles(&alpha).len(), 3);
    // Where something is bad nothing is added: a changed text is not another idea.
    std::fs::write(&file, "# Notes\n\n## Cache the tools\n\nOther words.\n\n## Fourth\n").expect("written");
    let refused = import(&["--yes"]);
    assert!(!refused.status.success());
    let says = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(says.contains("Cache the tools") && says.contains("--skip-bad"), "{says}");
    assert_eq!(titles(&alpha).len(), 3);
    assert!(import(&["--yes", "--skip-bad"]).status.success());
    assert_eq!(titles(&alpha).len(), 4);
    std::fs::write(&file, [0xff, 0xfe, 0]).expect("written");
    assert!(!import(&[]).status.success(), "no text");
}

#[test]
fn what_is_put_into_the_inbox_becomes_an_idea_and_what_is_none_says_why() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let inbox = root.path().join("alpha/inbox");
    alpha.wait("the inbox", |_| inbox.is_dir());
    std::fs::write(inbox.join("one.md"), "# ماكو فكرة تضيع\n\nوهذا نصها.\n").expect("written");
    std::fs::write(inbox.join("empty.md"), "\n").expect("written");
    std::fs::write(inbox.join("binary"), [0xff, 0xfe, 0, 1]).expect("written");
    alpha.wait("all three are put aside", |_| {
        inbox.join("added/one.md").exists()
            && inbox.join("refused/empty.md.reason").exists()
            && inbox.join("refused/binary.reason").exists()
    });
    let rows = alpha.json(&["idea", "list", "--json"]);
    assert_eq!(rows.as_array().map(Vec::len), Some(1));
    let id = rows[0]["id"].as_str().expect("an id");
    let shown = alpha.json(&["idea", "show", id, "--json"]);
    assert_eq!((&shown["title"], &shown["body"]), (&json!("ماكو فكرة تضيع"), &json!("وهذا نصها.")));
    let reason = std::fs::read_to_string(inbox.join("refused/empty.md.reason")).expect("a reason");
    assert!(reason.contains("title is empty"), "{reason}");
    // The same words again are the same idea.
    std::fs::write(inbox.join("again.txt"), "# ماكو فكرة تضيع\n\nوهذا نصها.").expect("written");
    alpha.wait("it is taken in", |_| inbox.join("added/again.txt").exists());
    assert_eq!(alpha.json(&["idea", "list", "--json"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn an_idea_s_text_is_written_together_and_its_graph_and_provenance_are_told() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "1"]);
    let ticket = alpha.ticket("worker");
    let beta = Node::up(root.path(), "beta", &["--slots", "0", "--join", &ticket]);
    alpha.wait("beta", |node| node.json(&["peers", "--json"])[0]["online"] == true);
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_v6"))
        .args(["idea", "add", "-", "--json", "--data-dir"])
        .arg(root.path().join("alpha"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    child.stdin.take().expect("piped").write_all(b"Cache the tools\n\nThey are large.\n").expect("written");
    let added: Value = serde_json::from_slice(&child.wait_with_output().expect("it ends").stdout).expect("JSON");
    let idea = added["id"].as_str().expect("an id").to_owned();
    let other = alpha.json(&["idea", "add", "Measure first", "--json"])["id"].as_str().expect("an id").to_owned();
    assert!(alpha.v6(&["idea", "link", &idea, "derived-from", &other]).status.success());
    beta.wait("both", |node| titles(node).len() == 2);
    // Both write; what each wrote stays.
    assert!(alpha.v6(&["idea", "edit", &idea, "--text", "one\n"]).status.success());
    beta.wait("the first line", |node| node.json(&["note", "show", &idea, "--json"])["text"] == "one\n");
    assert!(beta.v6(&["idea", "edit", &idea, "--append", "--text", "two\n"]).status.success());
    alpha.wait("both lines", |node| {
        String::from_utf8_lossy(&node.v6(&["idea", "show", &idea]).stdout).contains("one\ntwo")
    });
    assert!(alpha.v6(&["run", "--idea", &idea, "--", "true"]).status.success());
    let graph: Value =
        serde_json::from_slice(&beta.v6(&["idea", "graph", &other, "--depth", "1", "--format", "json"]).stdout)
            .expect("JSON");
    let edge = json!({ "from": idea, "relation": "derived-from", "to": other });
    assert!(graph["edges"].as_array().is_some_and(|edges| edges.contains(&edge)), "{graph}");
    let picture = alpha.v6(&["idea", "graph", "--format", "svg"]).stdout;
    let picture = String::from_utf8(picture).expect("text");
    assert!(picture.contains("Measure first") && picture.contains("executed-by"), "{picture}");
    let told = alpha.v6(&["idea", "provenance", &idea]).stdout;
    let told: Value = serde_json::from_slice(&told).expect("JSON");
    let all = told["@graph"].as_array().expect("a graph");
    let it = all.iter().find(|node| node["@id"] == format!("urn:v6:entry:{idea}")).expect("the idea");
    assert_eq!(it["prov:wasDerivedFrom"][0]["@id"], format!("urn:v6:entry:{other}"));
    alpha.wait("the job's outcome", |node| {
        let told: Value = serde_json::from_slice(&node.v6(&["idea", "provenance", &idea]).stdout).expect("JSON");
        let used = json!([{ "@id": format!("urn:v6:entry:{idea}") }]);
        told["@graph"].as_array().is_some_and(|all| all.iter().any(|node| node["prov:used"] == used))
    });
}
