//! How ideas hang together: the neighbourhood of one, or all of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crdt::doc::DocId;
use crdt::ids::EntryId;
use crdt::ledger::{OUTCOME_OF, Relation, Status, Target};
use web_gateway::api::{ApiError, GraphEdge, GraphNode, GraphQuery, IdeaGraph};

use super::super::Api;
use super::find_shown;
use crate::daemon::driver::NodeCore;

/// Links that are followed from an idea where nobody says how many.
const DEPTH: u32 = 2;
/// Most nodes of a graph.
const NODES_MAX: usize = 2_000;
/// Ideas that are looked at in one question to the core.
const PER_QUESTION: usize = 200;

pub(in crate::daemon::api) async fn graph(api: &Api, query: GraphQuery) -> Result<IdeaGraph, ApiError> {
    let depth = query.depth.unwrap_or(DEPTH);
    let mut waiting: VecDeque<(EntryId, u32)> = match query.idea {
        Some(word) => [(api.ask(move |core| find_shown(core, &word).map(|shown| shown.id)).await??, 0)].into(),
        None => all(api).await?.into_iter().map(|id| (id, depth)).collect(),
    };
    let mut seen: BTreeSet<EntryId> = waiting.iter().map(|(id, _)| *id).collect();
    let mut graph = IdeaGraph { nodes: Vec::new(), edges: Vec::new(), complete: true };
    let (mut nodes, mut edges) = (BTreeMap::new(), BTreeSet::new());
    while !waiting.is_empty() {
        let some: Vec<(EntryId, u32)> = waiting.drain(..waiting.len().min(PER_QUESTION)).collect();
        let ids: Vec<EntryId> = some.iter().map(|(id, _)| *id).collect();
        let found = api.ask(move |core| ids.into_iter().map(|id| around(core, id)).collect::<Vec<_>>()).await?;
        for ((id, at), (node, links)) in some.into_iter().zip(found) {
            if nodes.len() >= NODES_MAX {
                graph.complete = false;
                break;
            }
            nodes.insert(node.id.clone(), node);
            for (from, relation, to) in links {
                let other = if from == Target::Entry(id) { &to } else { &from };
                if let Target::Entry(other) = other {
                    if at < depth && seen.insert(*other) {
                        waiting.push_back((*other, at + 1));
                    }
                } else {
                    nodes.entry(name(other)).or_insert_with(|| thing(other));
                }
                edges.insert((name(&from), relation, name(&to)));
            }
        }
        if !graph.complete {
            break;
        }
    }
    // Links lead on where the depth ends.
    edges.retain(|(from, _, to)| nodes.contains_key(from) && nodes.contains_key(to));
    graph.nodes = nodes.into_values().collect();
    graph.edges = edges.into_iter().map(|(from, relation, to)| GraphEdge { from, relation, to }).collect();
    Ok(graph)
}

/// The first ideas, as many as a graph has nodes, and one more.
async fn all(api: &Api) -> Result<Vec<EntryId>, ApiError> {
    let shown = api.ask(|core| core.replica().subjects(None, NODES_MAX + 1)).await?;
    let listed = shown.into_iter().filter(|shown| shown.status() != Status::Retracted && !shown.of_command);
    Ok(listed.map(|shown| shown.id).collect())
}

type Edge = (Target, String, Target);

/// An idea, and what leads from it and to it.
fn around(core: &NodeCore, id: EntryId) -> (GraphNode, Vec<Edge>) {
    let replica = core.replica();
    let row = replica.subject_row(DocId::ledger(id));
    let node = GraphNode {
        id: id.to_string(),
        kind: row.as_ref().map_or_else(|| "missing".to_owned(), |row| row.kind.as_str().to_owned()),
        title: row.as_ref().map(|row| row.title.clone()).unwrap_or_default(),
        status: row.as_ref().map(|row| row.status().as_str().to_owned()),
    };
    let it = Target::Entry(id);
    let mut edges: Vec<Edge> = Vec::new();
    for link in replica.links_of(DocId::ledger(id)) {
        edges.push((it.clone(), link.relation.as_str().to_owned(), link.to));
    }
    for link in replica.links_to(&it).into_iter().filter(|link| link.relation.as_str() != OUTCOME_OF) {
        edges.push((Target::Entry(link.from), link.relation.as_str().to_owned(), it.clone()));
    }
    let jobs = replica.jobs_of(id).into_iter();
    let over = replica.outcomes(&it).into_iter().filter_map(|entry| entry.says.outcome.map(|outcome| outcome.job));
    for job in jobs.chain(over).collect::<BTreeSet<_>>() {
        edges.push((it.clone(), Relation::ExecutedBy.as_str().to_owned(), Target::Job(job)));
    }
    (node, edges)
}

fn name(target: &Target) -> String {
    if let Target::Entry(id) = target { id.to_string() } else { target.to_string() }
}

/// A job or a blob that an idea leads to.
fn thing(target: &Target) -> GraphNode {
    let (kind, title) = match target {
        Target::Job(id) => ("job", id.short()),
        Target::Blob(hash) => ("blob", hash.short()),
        Target::Entry(_) | Target::Other(_) => ("other", String::new()),
    };
    GraphNode { id: name(target), kind: kind.to_owned(), title, status: None }
}
