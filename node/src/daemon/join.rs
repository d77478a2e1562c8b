//! Joining a mesh by a ticket, and letting others in.

use std::collections::BTreeSet;

use anyhow::Context;
use bytes::Bytes;
use crdt::bundle::Change;
use crdt::doc::{DocId, Key};
use crdt::ids::{MeshId, NodeId};
use crdt::replica::Replica;
use crdt::roster::Admission;
use crdt::shelf::{Shelf, Table};
use crdt::ticket::Ticket;
use crdt::{SigningKey, cbor};
use libp2p::multiaddr::Protocol;
use mesh::Command;
use serde::{Deserialize, Serialize};

use super::driver::NodeCore;
use super::{Shared, driver, now_ms};
use crate::net::{Multiaddr, NetHandle, peer_id_to_node_id};
use crate::store::RedbShelf;

/// Peers whose addresses are remembered.
const PEERS_MAX: usize = 2_000;
/// Addresses that are remembered of one peer. More: the one heard longest ago is forgotten.
const ADDRS_MAX: usize = 16;

/// Addresses that are named beside a ticket's. More are left out.
const NAMED_MAX: usize = 32;

#[derive(Debug, Serialize, Deserialize)]
struct JoinRequest {
    mesh: MeshId,
    node: NodeId,
    admission: Admission,
}

#[derive(Debug, Serialize, Deserialize)]
enum JoinAnswer {
    Welcome { members: Vec<NodeId> },
    Refused(String),
}

/// A mesh that let us in.
pub(super) struct Joined {
    pub(super) mesh: MeshId,
    pub(super) founder: NodeId,
    pub(super) members: BTreeSet<NodeId>,
    /// Where the ticket says that members are reached.
    pub(super) addrs: Vec<(NodeId, Vec<Multiaddr>)>,
}

/// An address that the owner or a server named, and whose it is where it says so.
pub(super) type Named = (Option<NodeId>, Multiaddr);

/// Reads addresses such as `/ip4/192.168.1.10/tcp/4001/p2p/PEER`.
pub(super) fn named(words: &[String]) -> anyhow::Result<Vec<Named>> {
    let read = |word: &String| {
        let address: Multiaddr = word
            .parse()
            .with_context(|| format!("--peer {word:?} is no multiaddr, such as /ip4/192.168.1.10/tcp/4001"))?;
        let peer = |part: Protocol<'_>| if let Protocol::P2p(peer) = part { Some(peer) } else { None };
        let node = address.iter().find_map(peer).and_then(|peer| peer_id_to_node_id(&peer));
        Ok((node, address.iter().filter(|part| peer(part.clone()).is_none()).collect()))
    };
    words.iter().take(NAMED_MAX).map(read).collect()
}

/// Asks the ticket's members, and who is named beside them, to let this node in.
pub(super) async fn join(
    net: &NetHandle,
    key: &SigningKey,
    name: &str,
    text: &str,
    more: &[Named],
) -> anyhow::Result<Joined> {
    let ticket = Ticket::decode(text)?;
    anyhow::ensure!(
        ticket.expires_ms > now_ms(),
        "the ticket has expired; ask for a new one (`v6 invite`), or check this machine's clock"
    );
    let me = NodeId(key.verifying_key().to_bytes());
    let admission = Admission::sign(ticket.mesh, key, name, &ticket.invite_key(), now_ms());
    let request: Bytes = cbor::encode(&JoinRequest { mesh: ticket.mesh, node: me, admission }).into();
    let addrs: Vec<Multiaddr> =
        ticket.members.iter().flat_map(|(_, addrs)| addrs).filter_map(|addr| addr.parse().ok()).collect();
    let addrs = addrs.into_iter().chain(more.iter().map(|(_, address)| address.clone())).collect();
    let mut expected: Vec<NodeId> = ticket.members.iter().map(|(node, _)| *node).collect();
    // Whoever answers proves nothing by it: all that comes is checked against the mesh's id, which the ticket holds.
    for node in more.iter().filter_map(|(node, _)| *node) {
        if !expected.contains(&node) {
            expected.push(node);
        }
    }
    let answer = net.join_request(addrs, expected.clone(), request).await.map_err(|error| {
        anyhow::anyhow!(
            "no member of the ticket's mesh could be asked ({error}); is one of them running and reachable from here?"
        )
    })?;
    match cbor::decode::<JoinAnswer>(&answer)? {
        JoinAnswer::Refused(reason) => anyhow::bail!("the mesh did not let this node in: {reason}"),
        JoinAnswer::Welcome { members } => {
            let parse = |addrs: &[String]| addrs.iter().filter_map(|a| a.parse().ok()).collect();
            let addrs = ticket.members.iter().map(|(node, addrs)| (*node, parse(addrs)));
            let named = more.iter().filter_map(|(node, address)| Some(((*node)?, vec![address.clone()])));
            let addrs = addrs.chain(named).collect();
            let members = members.into_iter().chain(expected).collect();
            Ok(Joined { mesh: ticket.mesh, founder: ticket.founder, members, addrs })
        }
    }
}

/// Answers a join request; what is refused changes nothing.
pub(super) async fn admit(shared: &Shared, request: &[u8]) -> Bytes {
    let answer = match try_admit(shared, request).await {
        Ok(members) => JoinAnswer::Welcome { members },
        Err(reason) => JoinAnswer::Refused(reason),
    };
    cbor::encode(&answer).into()
}

async fn try_admit(shared: &Shared, request: &[u8]) -> Result<Vec<NodeId>, String> {
    let request: JoinRequest = cbor::decode(request).map_err(|_| "the request cannot be read".to_owned())?;
    let node = request.node;
    let admission = request.admission.clone();
    let known = shared
        .core
        .ask(move |core| check(core, &request))
        .await
        .ok_or_else(|| "the node is stopping; ask another member".to_owned())??;
    if !known {
        let change = Change::register(DocId::ROSTER, &Key::Member(node), &admission);
        let written = shared.core.command(Command::Write(vec![change])).await;
        written.ok_or("the node is stopping; ask another member")?.map_err(|refusal| refusal.to_string())?;
    }
    driver::set_members(shared).await;
    let members = shared.core.ask(|core| core.replica().roster().standing().map(|(n, _)| *n).collect()).await;
    Ok(members.unwrap_or_default())
}

/// Whether the node is a member already; else whether it may become one.
fn check(core: &NodeCore, request: &JoinRequest) -> Result<bool, String> {
    let replica = core.replica();
    let roster = replica.roster();
    if request.mesh != replica.mesh() {
        return Err("the ticket is for another mesh; ask its members for one".into());
    }
    if roster.is_member(&request.node) {
        return Ok(true);
    }
    if roster.members.contains_key(&request.node) {
        return Err("this node was revoked; join with a new data directory if an admin agrees".into());
    }
    if request.admission.name.len() > crdt::limits::NAME_BYTES_MAX {
        return Err("the node's name is too long".into());
    }
    if !request.admission.verifies(replica.mesh(), request.node) {
        return Err("the ticket is forged: its signature does not verify".into());
    }
    let Some((invite, used)) = roster.invites.get(&request.admission.invite) else {
        return Err(
            "the ticket's invite is not known here: it is forged, or made a moment ago on another node; try again"
                .into(),
        );
    };
    if invite.expires_ms <= now_ms() {
        return Err("the ticket has expired; ask for a new one (`v6 invite`)".into());
    }
    if *used >= invite.uses {
        return Err(format!(
            "the ticket is used up: it was good for {} nodes; ask for a new one (`v6 invite`)",
            invite.uses
        ));
    }
    Ok(false)
}

/// Remembers where a member is reached, beside where it was before.
pub(super) fn remember(shelf: &mut RedbShelf, node: NodeId, addrs: &[Multiaddr]) {
    let known: Vec<String> =
        shelf.get(Table::Peers, &node.0).and_then(|row| cbor::decode(&row).ok()).unwrap_or_default();
    let merged = newest_first(addrs.iter().map(ToString::to_string), &known);
    if merged != known {
        shelf.put((Table::Peers, node.0.to_vec(), Some(cbor::encode(&merged))));
    }
}

/// What was heard now, then what was known: nobody tells all addresses each time.
fn newest_first(heard: impl Iterator<Item = String>, known: &[String]) -> Vec<String> {
    let mut merged: Vec<String> = Vec::new();
    for addr in heard.chain(known.iter().cloned()) {
        if merged.len() < ADDRS_MAX && !merged.contains(&addr) {
            merged.push(addr);
        }
    }
    merged
}

/// Members with the addresses where they were reached before.
pub(super) fn known_peers(replica: &Replica<RedbShelf>) -> Vec<(NodeId, Vec<Multiaddr>)> {
    let rows = replica.shelf().scan(Table::Peers, &[], &[], PEERS_MAX);
    rows.into_iter()
        .filter_map(|(node, addrs)| {
            let addrs: Vec<String> = cbor::decode(&addrs).ok()?;
            Some((NodeId(node.try_into().ok()?), addrs.iter().filter_map(|a| a.parse().ok()).collect()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_not_forgotten_because_another_or_none_is_heard() {
        let known = ["a".to_owned(), "b".to_owned()];
        let heard = |words: &[&str]| newest_first(words.iter().map(ToString::to_string), &known);
        assert_eq!(heard(&[]), known);
        assert_eq!(heard(&["c", "b"]), ["c", "b", "a"]);
        let many: Vec<String> = (0..99).map(|n| n.to_string()).collect();
        assert_eq!(newest_first(many.into_iter(), &known).len(), ADDRS_MAX);
    }
}
