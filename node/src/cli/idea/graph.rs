//! The graph of ideas, as others read it: DOT, JSON, SVG.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use web_gateway::api::{GraphNode, IdeaGraph};

use crate::cli::output::{self, shown};
use crate::client::{Client, percent_encode};

/// Pixels between the columns and the rows of the picture, of a box, and around all of it.
const COLUMN: usize = 300;
const ROW: usize = 64;
const BOX: (usize, usize) = (220, 40);
const MARGIN: usize = 20;
/// Characters of a title in the picture.
const TITLE_CHARS_MAX: usize = 28;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For Graphviz
    Dot,
    /// Nodes and edges
    Json,
    /// A picture
    Svg,
}

/// Write how ideas hang together: those around one, or all.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  v6 idea graph 3f2a --format svg --output ideas.svg\n  v6 idea graph --format dot | dot -Tpdf -o ideas.pdf"
)]
pub(in crate::cli) struct GraphArgs {
    /// The idea in the middle [default: all ideas]
    id: Option<String>,
    /// Links to follow from it
    #[arg(long, value_name = "N", default_value_t = 2)]
    depth: u32,
    /// What to write
    #[arg(long, value_enum, default_value = "dot")]
    format: Format,
    /// The file [default: stdout]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(in crate::cli) async fn graph(args: GraphArgs, client: &Client) -> anyhow::Result<()> {
    let mut path = format!("/v1/ideas/graph?depth={}", args.depth);
    if let Some(id) = &args.id {
        path.push_str(&format!("&idea={}", percent_encode(id)));
    }
    let graph: IdeaGraph = client.get(&path).await?;
    let text = match args.format {
        Format::Dot => dot(&graph),
        Format::Json => format!("{}\n", serde_json::to_string(&graph)?),
        Format::Svg => svg(&graph),
    };
    match &args.output {
        Some(file) => std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))?,
        None => output::emit(text.as_bytes()),
    }
    if !graph.complete {
        output::complain("there are more ideas than one graph holds: name one of them");
    }
    Ok(())
}

/// A text within double quotes of DOT.
fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text).replace('\\', "\\\\").replace('"', "\\\""))
}

fn dot(graph: &IdeaGraph) -> String {
    let mut text = String::from("digraph ideas {\n  rankdir=LR;\n  node [shape=box];\n");
    for node in &graph.nodes {
        let _ =
            writeln!(text, "  {} [label={}, class={}];", quoted(&node.id), quoted(&label(node)), quoted(&node.kind));
    }
    for edge in &graph.edges {
        let _ = writeln!(text, "  {} -> {} [label={}];", quoted(&edge.from), quoted(&edge.to), quoted(&edge.relation));
    }
    text.push_str("}\n");
    text
}

fn label(node: &GraphNode) -> String {
    if node.title.is_empty() { node.kind.clone() } else { format!("{}: {}", node.kind, node.title) }
}

/// The column of each node: how many links lead to it at the least, from one that nothing leads to.
fn columns(graph: &IdeaGraph) -> BTreeMap<&str, usize> {
    let mut columns: BTreeMap<&str, usize> = BTreeMap::new();
    let led_to = |id: &str| graph.edges.iter().any(|edge| edge.to == id && edge.from != id);
    let mut next: Vec<&str> = graph.nodes.iter().map(|node| node.id.as_str()).filter(|id| !led_to(id)).collect();
    let mut at = 0;
    loop {
        // What is left stands in circles that nothing leads into.
        if next.is_empty() {
            let left = graph.nodes.iter().map(|node| node.id.as_str()).find(|id| !columns.contains_key(id));
            let Some(left) = left else { return columns };
            (next, at) = (vec![left], 0);
        }
        columns.extend(next.iter().map(|id| (*id, at)));
        let from = |id: &str| next.contains(&id);
        let further = graph.edges.iter().filter(|edge| from(&edge.from)).map(|edge| edge.to.as_str());
        let further: std::collections::BTreeSet<&str> = further.filter(|id| !columns.contains_key(id)).collect();
        next = further.into_iter().collect();
        at += 1;
    }
}

fn escaped(text: &str) -> String {
    shown(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn svg(graph: &IdeaGraph) -> String {
    let mut places: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut rows: BTreeMap<usize, usize> = BTreeMap::new();
    for (id, column) in columns(graph) {
        let row = rows.entry(column).or_default();
        places.insert(id, (MARGIN + column * COLUMN, MARGIN + *row * ROW));
        *row += 1;
    }
    let right = places.values().map(|(x, _)| x + BOX.0).max().unwrap_or(0) + MARGIN;
    let bottom = places.values().map(|(_, y)| y + BOX.1).max().unwrap_or(0) + MARGIN;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{right}\" height=\"{bottom}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <defs><marker id=\"end\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\">\
         <path d=\"M0 0 8 4 0 8z\"/></marker></defs>\n"
    );
    for edge in &graph.edges {
        let (Some(from), Some(to)) = (places.get(edge.from.as_str()), places.get(edge.to.as_str())) else { continue };
        let (from_x, from_y) = (from.0 + BOX.0, from.1 + BOX.1 / 2);
        let (to_x, to_y) = (to.0, to.1 + BOX.1 / 2);
        let _ = writeln!(
            text,
            "<path d=\"M{from_x} {from_y} L{to_x} {to_y}\" stroke=\"#667\" fill=\"none\" marker-end=\"url(#end)\"/>\
             <text x=\"{}\" y=\"{}\" fill=\"#445\" text-anchor=\"middle\" font-size=\"10\">{}</text>",
            usize::midpoint(from_x, to_x),
            usize::midpoint(from_y, to_y).saturating_sub(4),
            escaped(&edge.relation)
        );
    }
    for node in &graph.nodes {
        let Some((x, y)) = places.get(node.id.as_str()) else { continue };
        let cut: String = node.title.chars().take(TITLE_CHARS_MAX).collect();
        let title = if cut.len() < node.title.len() { format!("{cut}…") } else { cut };
        let _ = writeln!(
            text,
            "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"6\" fill=\"#eef\" stroke=\"#667\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"#667\" font-size=\"10\">{}</text></g>",
            escaped(&node.title),
            BOX.0,
            BOX.1,
            x + BOX.0 / 2,
            y + 17,
            escaped(&title),
            x + BOX.0 / 2,
            y + 32,
            escaped(&node.kind)
        );
    }
    text.push_str("</svg>\n");
    text
}

#[cfg(test)]
mod tests {
    use web_gateway::api::GraphEdge;

    use super::*;

    fn graph(edges: &[(&str, &str)]) -> IdeaGraph {
        let mut ids: Vec<&str> = edges.iter().flat_map(|(from, to)| [*from, *to]).collect();
        ids.sort_unstable();
        ids.dedup();
        let node = |id: &&str| GraphNode {
            id: (*id).to_owned(),
            kind: "idea".into(),
            title: format!("<{id}> \"\u{202e}\""),
            status: None,
        };
        let edge = |(from, to): &(&str, &str)| GraphEdge {
            from: (*from).to_owned(),
            relation: "blocks".into(),
            to: (*to).to_owned(),
        };
        IdeaGraph { nodes: ids.iter().map(node).collect(), edges: edges.iter().map(edge).collect(), complete: true }
    }

    #[test]
    fn every_node_has_a_column_also_in_circles() {
        let it = graph(&[("a", "b"), ("b", "c"), ("a", "c"), ("x", "y"), ("y", "x")]);
        let columns = columns(&it);
        assert_eq!(columns, BTreeMap::from([("a", 0), ("b", 1), ("c", 1), ("x", 0), ("y", 1)]));
    }

    #[test]
    fn titles_are_quoted_and_control_characters_are_shown() {
        let it = graph(&[("a", "b")]);
        assert!(dot(&it).contains(r#"[label="idea: <a> \"\\u{202e}\"", class="idea"]"#), "{}", dot(&it));
        let picture = svg(&it);
        assert!(picture.contains("&lt;a&gt;") && !picture.contains('\u{202e}'), "{picture}");
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    }
}
