//! Nodes that went away and come back.

#![cfg(unix)]

mod mesh_support;

use mesh_support::Node;

#[test]
fn a_node_that_dies_as_soon_as_it_joined_finds_the_others_again_from_another_port() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let ticket = alpha.ticket("worker");
    let beta = Node::up(root.path(), "beta", &["--join", &ticket]);
    beta.kill();
    let beta = Node::again(root.path(), "beta", &["--listen", "/ip4/127.0.0.1/tcp/0"]);
    alpha.wait("beta's return", |node| node.json(&["peers", "--json"])[0]["online"] == true);
    assert_eq!(alpha.json(&["peers", "--json"])[0]["node"], beta.id);
}
