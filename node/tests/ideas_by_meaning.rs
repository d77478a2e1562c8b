//! Ideas that mean the same in other words, where their owner has a model that tells so.

#![cfg(unix)]

mod mesh_support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_support::Node;
use serde_json::{Value, json};

/// A model that knows three things in two languages, and answers as OpenAI's endpoint does.
struct Model {
    url: String,
    texts: Arc<AtomicUsize>,
}

impl Model {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/v1/embeddings", listener.local_addr().expect("bound"));
        let texts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&texts);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &counted);
            }
        });
        Self { url, texts }
    }

    fn texts(&self) -> usize {
        self.texts.load(Ordering::Relaxed)
    }
}

fn answer(stream: TcpStream, texts: &AtomicUsize) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
    for line in head.lines() {
        if let Some(("content-length", value)) = line.to_ascii_lowercase().split_once(':').map(|(a, b)| (a, b.trim())) {
            length = value.parse().expect("a number");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the whole question");
    let asked: Value = serde_json::from_slice(&body).expect("JSON");
    assert!(head.starts_with("POST /v1/embeddings ") && asked["model"] == "words", "{head}");
    let input = asked["input"].as_array().expect("texts");
    texts.fetch_add(input.len(), Ordering::Relaxed);
    // The last first: they are told apart by their index.
    let data: Vec<Value> = (0..input.len())
        .rev()
        .map(|n| json!({"index": n, "embedding": meaning(input[n].as_str().expect("a text"))}))
        .collect();
    let body = json!({"object": "list", "data": data}).to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    reader.get_mut().write_all(format!("{head}{body}").as_bytes()).expect("answered");
}

fn meaning(text: &str) -> Vec<f64> {
    let things = [["disk", "قرص"], ["night", "ليل"], ["slow", "بطيء"]];
    let of = |words: &[&str; 2]| if words.iter().any(|word| text.contains(word)) { 1.0 } else { 0.05 };
    things.iter().map(of).collect()
}

fn methods(added: &Value) -> Vec<(Value, Value)> {
    added["similar"].as_array().expect("a list").iter().map(|s| (s["id"].clone(), s["method"].clone())).collect()
}

/// Meanings that a node has written down: of three bytes each, under 16 of a name.
fn kept(node: &Node) -> usize {
    let bytes = std::fs::read(node.dir.join("index/meaning")).unwrap_or_default();
    bytes.iter().position(|byte| *byte == b'\n').map_or(0, |end| (bytes.len() - end - 1) / 19)
}

#[test]
fn an_idea_in_another_language_is_told_by_its_meaning() {
    let (root, model) = (tempfile::tempdir().expect("a directory"), Model::new());
    let with = ["--slots", "0", "--embeddings", &model.url, "--embeddings-model", "words"];
    let alpha = Node::up(root.path(), "alpha", &with);
    let add = |node: &Node, title: &str| node.json(&["idea", "add", title, "--json"]);
    let first = add(&alpha, "The disk is slow at night")["id"].clone();
    add(&alpha, "A page for the night shift");
    alpha.wait("the meanings of both", |node| kept(node) == 2);
    let second = add(&alpha, "القرص بطيء في الليل");
    assert_eq!(methods(&second), [(first.clone(), json!("semantic"))]);
    let shown = alpha.json(&["idea", "show", second["id"].as_str().expect("an id"), "--json"]);
    let link = &shown["links"][0];
    assert_eq!((&link["to"], &link["method"], &link["accepted"]), (&first, &json!("semantic"), &json!(false)));
    // What is near by its letters is told so.
    let near = add(&alpha, "The disk is slow at nights");
    assert_eq!(methods(&near)[0], (first.clone(), json!("near")));
    alpha.wait("the meanings of four", |node| kept(node) == 4);
    alpha.stop();

    // They are kept: after a start only what is added is asked about.
    let before = model.texts();
    let alpha = Node::again(root.path(), "alpha", &with);
    assert_eq!(methods(&add(&alpha, "قرص الليل البطيء"))[0].1, json!("semantic"));
    assert!(model.texts() <= before + 2, "{} more were asked", model.texts() - before);
    alpha.stop();

    // Without its model it goes on.
    let alpha =
        Node::again(root.path(), "alpha", &["--embeddings", "http://127.0.0.1:1", "--embeddings-model", "words"]);
    assert_eq!(methods(&add(&alpha, "Every night whatever writes there drags on, so slow has that disk become")), []);
    let far = alpha.refused(&["up", "--embeddings", "http://192.0.2.1/v1/embeddings"]);
    assert!(far.contains("192.0.2.1 is another machine") && far.contains("http://127.0.0.1"), "{far}");
}
