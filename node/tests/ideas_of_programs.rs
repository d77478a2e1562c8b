//! What programs write for a person: under keys and delegations of their own, joined to what is there.

#![cfg(unix)]

mod mesh_support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use mesh_support::Node;
use serde_json::{Value, json};

/// An assistant that speaks with `v6 mcp`.
struct Assistant {
    server: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    asked: u64,
}

impl Assistant {
    fn new(node: &Node, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_v6"));
        let command = command.env("V6_DATA_DIR", &node.dir).arg("mcp").args(args);
        let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("v6 mcp runs");
        let (to, from) = (server.stdin.take(), BufReader::new(server.stdout.take().expect("piped")));
        let mut assistant = Self { server, to, from, asked: 0 };
        let about = json!({"name": "test", "version": "1"});
        let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": about});
        let server = assistant.ask("initialize", hello);
        assert_eq!(server["serverInfo"]["name"], "v6");
        assistant.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        assistant
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.to.as_mut().expect("open"), "{message}").expect("written");
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": self.asked, "method": method, "params": params}));
        loop {
            let mut line = String::new();
            assert!(self.from.read_line(&mut line).expect("readable") > 0, "the server ended");
            let answer: Value = serde_json::from_str(&line).expect("JSON");
            if answer["id"] == self.asked {
                return answer["result"].clone();
            }
        }
    }

    fn call(&mut self, tool: &str, arguments: Value) -> Result<Value, String> {
        let result = self.ask("tools/call", json!({"name": tool, "arguments": arguments}));
        let text = result["content"][0]["text"].as_str().expect("a text").to_owned();
        if result["isError"] == true { Err(text) } else { Ok(serde_json::from_str(&text).expect("JSON")) }
    }

    /// The server ends when nobody speaks with it any more.
    fn leave(mut self) {
        drop(self.to.take());
        assert!(self.server.wait().expect("it ends").success());
    }
}

fn shown(node: &Node, id: &Value) -> Value {
    node.json(&["idea", "show", id.as_str().expect("an id"), "--json"])
}

#[test]
fn an_assistant_writes_under_its_own_name_and_may_not_what_only_an_owner_may() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let ticket = alpha.ticket("worker");
    let beta = Node::up(root.path(), "beta", &["--slots", "0", "--join", &ticket]);
    let mut assistant = Assistant::new(&alpha, &["--name", "helper"]);
    let tools = assistant.ask("tools/list", json!({}));
    let names: Vec<&str> =
        tools["tools"].as_array().expect("tools").iter().map(|tool| tool["name"].as_str().expect("a name")).collect();
    for name in ["add_idea", "search_ideas", "top_ideas", "show_idea", "link_ideas", "observe", "argue"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let added = assistant.call("add_idea", json!({"title": "Cache the toolchains", "tags": ["ci"]})).expect("added");
    let (id, person) = (added["id"].clone(), alpha.json(&["idea", "list", "--json"])[0]["person"].clone());
    for node in [&alpha, &beta] {
        node.wait("the idea", |node| node.v6(&["idea", "show", id.as_str().expect("an id")]).status.success());
        let idea = shown(node, &id);
        assert_eq!((&idea["program"], &idea["person"]), (&json!("helper"), &person));
        assert_ne!(idea["author"], json!(alpha.id), "it has a key of its own");
        assert_eq!(idea["about"][0]["program"], "helper");
    }
    let other = alpha.json(&["idea", "add", "Share one build cache", "--json"])["id"].clone();
    assistant.call("link_ideas", json!({"from": id, "relation": "supports", "to": other})).expect("linked");
    assistant.call("argue", json!({"idea": other, "is_for": false, "text": "it is large"})).expect("argued");
    assistant.call("observe", json!({"idea": other, "text": "3 GB"})).expect("observed");
    let idea = shown(&alpha, &other);
    assert_eq!(
        (&idea["backlinks"][0]["relation"], idea["about"].as_array().map(Vec::len)),
        (&json!("supports"), Some(2))
    );
    let found = assistant.call("search_ideas", json!({"words": "toolchain"})).expect("found");
    assert_eq!(found[0]["id"], id);
    let refused = assistant.call("show_idea", json!({"idea": "00ff00"})).expect_err("no such idea");
    assert!(refused.contains("v6 idea list"), "{refused}");
    // A second session has the same key and the same delegation.
    assistant.leave();
    let mut assistant = Assistant::new(&alpha, &["--name", "helper"]);
    let again = assistant.call("add_idea", json!({"title": "Warm the cache at night"})).expect("added");
    assert_eq!(shown(&alpha, &again["id"])["author"], shown(&alpha, &id)["author"]);
    let all = alpha.json(&["idea", "list", "--all", "--json"]);
    let given: Vec<&Value> =
        all.as_array().expect("a list").iter().filter(|row| row["kind"] == "key-delegation").collect();
    assert_eq!((given.len(), &given[0]["title"]), (1, &json!("helper")));
    // Taken back it writes no more, and what it wrote stays.
    assert!(alpha.v6(&["idea", "retract", given[0]["id"].as_str().expect("an id")]).status.success());
    let refused = assistant.call("observe", json!({"idea": other, "text": "4 GB"})).expect_err("taken back");
    assert!(refused.contains("may not write any more"), "{refused}");
    assert_eq!(shown(&beta, &id)["program"], "helper");
    assistant.leave();
    let mut nameless = Assistant::new(&alpha, &["--name", "../beta"]);
    let refused = nameless.call("add_idea", json!({"title": "x"})).expect_err("no name of a program");
    assert!(refused.contains("no program's name"), "{refused}");
}

#[test]
fn a_hundred_reports_of_one_finding_are_one_idea_with_a_hundred_observations() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let spellings = ["The night run fails", "the night run fails!", "The  NIGHT run fails", "The night run fails."];
    std::thread::scope(|scope| {
        for scout in 0..4 {
            let alpha = &alpha;
            scope.spawn(move || {
                for n in 0..25 {
                    let (title, key) = (spellings[(scout + n) % spellings.len()], format!("{scout}/{n}"));
                    let report = ["idea", "add", title, "--join", "--program", "scout", "--key", &key, "--json"];
                    let added = alpha.json(&report);
                    assert!(added["observation"].is_string(), "{added}");
                    // The same report again is the same.
                    let again = alpha.json(&report);
                    assert_eq!(again["id"], added["id"]);
                }
            });
        }
    });
    let all = alpha.json(&["idea", "list", "--json"]);
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    let idea = shown(&alpha, &all[0]["id"]);
    let about = idea["about"].as_array().expect("entries");
    assert!(about.iter().all(|entry| entry["kind"] == "observation" && entry["program"] == "scout"));
    assert_eq!(about.len(), 100);
    assert!(alpha.v6(&["idea", "verify"]).status.success());
}

#[test]
fn what_is_alike_is_linked_with_a_score_until_somebody_says_so_or_takes_it_back() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let add = |title: &str| alpha.json(&["idea", "add", title, "--json"])["id"].clone();
    let (first, second) = (add("ترجمة لوحة التحكم"), add("تَرْجَمَة لوحه التحكم"));
    let link = &shown(&alpha, &second)["links"][0];
    assert_eq!((&link["relation"], &link["to"]), (&json!("duplicates"), &first));
    assert_eq!((&link["score"], &link["method"]), (&json!(1_000), &json!("exact")));
    let back = &shown(&alpha, &first)["backlinks"][0];
    assert_eq!((&back["method"], &back["entry"]), (&json!("exact"), &link["entry"]));
    let (first, second) = (first.as_str().expect("an id"), second.as_str().expect("an id"));
    let text = String::from_utf8_lossy(&alpha.v6(&["idea", "show", second]).stdout).into_owned();
    assert!(text.contains("100 %, exact") && text.contains("v6 idea retract"), "{text}");
    // A policy may say it for all.
    assert_eq!(link["accepted"], false);
    assert!(alpha.refused(&["policy", "set", "duplicates", "0.2"]).contains("0.55"));
    for (policy, counts) in [("0.95", true), ("never", false)] {
        assert!(alpha.v6(&["policy", "set", "duplicates", policy]).status.success());
        assert_eq!(shown(&alpha, &json!(second))["links"][0]["accepted"], counts);
        assert_eq!(shown(&alpha, &json!(first))["backlinks"][0]["accepted"], counts);
    }
    // Both stay, whatever is said about it.
    assert!(alpha.v6(&["idea", "link", second, "duplicates", first]).status.success());
    assert_eq!(shown(&alpha, &json!(second))["links"].as_array().map(Vec::len), Some(2));
    let entry = link["entry"].as_str().expect("an entry");
    assert!(alpha.v6(&["idea", "retract", second, entry]).status.success());
    let links = &shown(&alpha, &json!(second))["links"];
    assert_eq!((links.as_array().map(Vec::len), links[0]["method"].is_null()), (Some(1), true));
    assert_eq!(links[0]["accepted"], true);
    assert_eq!(alpha.json(&["idea", "list", "--json"]).as_array().map(Vec::len), Some(2));
    add("Something else altogether");
    assert_eq!(alpha.json(&["idea", "list", "--json"])[2]["entries"], 0, "nothing is linked that is not alike");
}
