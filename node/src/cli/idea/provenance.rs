//! Where an idea comes from and what came of it, in the terms of PROV-O (W3C, 2013), as JSON-LD.

use clap::Args;
use serde_json::{Value, json};
use web_gateway::api::{IdeaView, OutcomeView};

use crate::cli::output;
use crate::client::{Client, percent_encode};

/// Write where an idea comes from and what came of it: PROV-O as JSON-LD.
#[derive(Debug, Args)]
pub(in crate::cli) struct ProvenanceArgs {
    /// The idea, or the beginning of its id
    id: String,
}

pub(in crate::cli) async fn provenance(args: ProvenanceArgs, client: &Client) -> anyhow::Result<()> {
    let view: IdeaView = client.get(&format!("/v1/ideas/{}", percent_encode(&args.id))).await?;
    output::json(&graph(&view))
}

fn name(kind: &str, id: &str) -> String {
    format!("urn:v6:{kind}:{id}")
}

fn reference(kind: &str, id: &str) -> Value {
    json!({ "@id": name(kind, id) })
}

fn time(text: &str) -> Value {
    json!({ "@type": "xsd:dateTime", "@value": text })
}

fn graph(view: &IdeaView) -> Value {
    let row = &view.row;
    let mut all = Vec::new();
    let mut agents = std::collections::BTreeSet::new();
    let mut agent = |all: &mut Vec<Value>, person: &str, node: &str| {
        if agents.insert(name("person", person)) {
            all.push(json!({ "@id": name("person", person), "@type": "prov:Person" }));
        }
        if !node.is_empty() && agents.insert(name("node", node)) {
            all.push(json!({
                "@id": name("node", node),
                "@type": "prov:SoftwareAgent",
                "prov:actedOnBehalfOf": reference("person", person),
            }));
        }
    };
    agent(&mut all, &row.person, &row.author);
    agent(&mut all, &row.owner, "");
    let links = |relation: &str| {
        let of = view.links.iter().filter(move |link| link.relation == relation);
        of.map(|link| reference("entry", &link.to)).collect::<Vec<_>>()
    };
    all.push(json!({
        "@id": name("entry", &row.id),
        "@type": ["prov:Entity", format!("v6:{}", row.kind)],
        "dcterms:title": row.title,
        "prov:generatedAtTime": time(&row.created),
        "prov:wasAttributedTo": [reference("person", &row.person), reference("node", &row.author)],
        "prov:wasDerivedFrom": links("derived-from"),
        "prov:wasRevisionOf": links("revises"),
        "v6:owner": reference("person", &row.owner),
        "v6:status": row.status,
    }));
    for entry in &view.about {
        agent(&mut all, &entry.person, &entry.author);
        let mut node = json!({
            "@id": name("entry", &entry.id),
            "@type": ["prov:Entity", format!("v6:{}", entry.kind)],
            "prov:generatedAtTime": time(&entry.created),
            "prov:wasAttributedTo": [reference("person", &entry.person), reference("node", &entry.author)],
            "v6:about": reference("entry", &row.id),
        });
        if entry.retracted {
            node["prov:wasInvalidatedBy"] = json!({ "@type": "prov:Activity", "v6:kind": "retraction" });
        }
        all.push(node);
    }
    for handover in view.handovers.iter() {
        all.push(json!({
            "@id": name("handover", handover.acceptance.as_deref().unwrap_or(&handover.offer)),
            "@type": ["prov:Activity", "v6:Handover"],
            "prov:used": [reference("entry", &handover.offer)],
            "prov:wasAssociatedWith": [reference("person", &handover.from), reference("person", &handover.to)],
            "v6:from": reference("person", &handover.from),
            "v6:to": reference("person", &handover.to),
        }));
    }
    for outcome in &view.outcomes {
        of_outcome(outcome, &row.id, &mut all);
    }
    json!({
        "@context": {
            "prov": "http://www.w3.org/ns/prov#",
            "dcterms": "http://purl.org/dc/terms/",
            "xsd": "http://www.w3.org/2001/XMLSchema#",
            "v6": "urn:v6:term:",
        },
        "@graph": all,
    })
}

/// The job as an activity that used the idea, and its files.
fn of_outcome(outcome: &OutcomeView, idea: &str, all: &mut Vec<Value>) {
    let nodes: Vec<Value> = outcome.nodes.iter().map(|node| reference("node", node)).collect();
    all.push(json!({
        "@id": name("job", &outcome.job),
        "@type": ["prov:Activity", "v6:Job"],
        "prov:used": [reference("entry", idea)],
        "prov:endedAtTime": time(&outcome.created),
        "prov:wasAssociatedWith": nodes,
        "v6:state": outcome.state,
        "v6:exit": outcome.exit,
        "v6:trace": outcome.trace,
    }));
    for file in &outcome.artifacts {
        all.push(json!({
            "@id": name("blob", &file.blob),
            "@type": "prov:Entity",
            "dcterms:title": file.path,
            "prov:wasGeneratedBy": reference("job", &outcome.job),
            "prov:wasDerivedFrom": [reference("entry", idea)],
        }));
    }
}
