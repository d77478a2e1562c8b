//! The node and its mesh: status, peers, members, invites, feeds, findings.

use std::collections::BTreeSet;
use std::sync::Arc;

use ::mesh::Command;
use crdt::SigningKey;
use crdt::bundle::{Bundle, Change};
use crdt::doc::{DocId, Key};
use crdt::ids::{BundleHash, InviteId, NodeId};
use crdt::limits::INVITE_USES_MAX;
use crdt::roster::{Invite, Revocation, Role};
use crdt::ticket::Ticket;
use serde_bytes::ByteArray;
use web_gateway::api::*;

use super::{Api, HOLDS, internal};
use crate::daemon::{now_ms, random, views};

/// How long an invite is good where its maker does not say.
const EXPIRES_MS: u64 = 24 * 3_600 * 1_000;

pub(super) async fn status(api: &Api) -> Result<StatusView, ApiError> {
    let shared = Arc::clone(&api.0);
    let usage = shared.blobs.usage();
    let mirrors = if api.0.options.is_gateway { Some(super::mirror::views(api).await?) } else { None };
    api.ask(move |core| {
        let mut counts = core.replica().job_counts();
        for (_, job) in core.replica().jobs() {
            let away = || job.spec().is_some_and(|(submitter, _)| core.is_away(submitter));
            if let (Some(was), Some(is)) = (job.state(), job.provisional_state().filter(|_| away())) {
                counts.entry(was).and_modify(|count| *count = count.saturating_sub(1));
                *counts.entry(is).or_default() += 1;
            }
        }
        let shown = counts.into_iter().filter(|(_, count)| *count > 0);
        let jobs = shown.map(|(state, count)| (views::state(state), count)).collect();
        let feeds = core.replica().feeds().iter().map(|(author, feed)| {
            (author.to_string(), FeedHead { seq: feed.seq, hash: feed.hash.to_string(), frozen: feed.frozen })
        });
        StatusView {
            node: shared.me.to_string(),
            name: shared.name.clone(),
            role: core.replica().roster().role(&shared.me).map(api_role),
            labels: core.offer().labels.clone(),
            mesh: core.replica().mesh().to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            peers_online: u32::try_from(core.connected().count()).unwrap_or(u32::MAX),
            jobs,
            feeds: feeds.collect(),
            state_hash: data_encoding::HEXLOWER.encode(&core.replica().state_hash()),
            lease_ms: ::mesh::limits::LEASE_MS,
            api_token_file: shared.options.data_dir.join(crate::client::TOKEN_FILE).display().to_string(),
            api: shared.api.get().cloned().unwrap_or_default(),
            listen: shared.net.listen_addrs().iter().map(ToString::to_string).collect(),
            data_dir: shared.options.data_dir.display().to_string(),
            slots: core.offer().slots,
            slots_busy: core.offer().slots.saturating_sub(core.offer().free),
            sandbox: format!("{:?}", shared.sandbox).to_lowercase(),
            paused: usage
                .paused
                .then(|| "the blob store is full".to_owned())
                .or_else(|| core.waits_for_own_feed().then(|| HOLDS.to_owned()))
                .or_else(|| Some(core.offer().paused.clone()).filter(|why| !why.is_empty())),
            uptime_ms: now_ms().saturating_sub(shared.started_ms),
            blob_bytes: usage.bytes,
            blob_quota_bytes: Some(usage.quota_bytes),
            history_bytes: core.replica().history_bytes(),
            recovered: shared.recovered,
            mirrors,
        }
    })
    .await
}

pub(super) async fn peers(api: &Api) -> Result<Vec<PeerView>, ApiError> {
    let (me, infos) = (api.0.me, api.0.net.peers());
    api.ask(move |core| {
        let connected: BTreeSet<NodeId> = core.connected().collect();
        let standing = core.replica().roster().standing().filter(|(node, _)| **node != me);
        standing
            .map(|(node, member)| {
                let offer = core.offer_of(node).cloned().unwrap_or_default();
                let info = infos.iter().find(|info| info.node == *node);
                let online = connected.contains(node);
                PeerView {
                    node: node.to_string(),
                    name: member.name.clone(),
                    role: api_role(member.role()),
                    online,
                    labels: offer.labels,
                    slots: offer.slots,
                    price_micros_per_hour: offer.price_micros_per_hour,
                    region: (!offer.region.is_empty()).then_some(offer.region),
                    rtt_ms: info.and_then(|i| i.rtt_ms),
                    path: online.then_some(PeerPath::Direct),
                    addresses: info.map(|i| i.addrs.iter().map(ToString::to_string).collect()).unwrap_or_default(),
                    slots_free: Some(core.free_slots(node)),
                    cores: Some(offer.cores),
                    memory_bytes: Some(offer.memory_bytes),
                    os: Some(offer.os),
                    attempts_done: 0,
                    attempts_failed: 0,
                    last_seen: None,
                }
            })
            .collect()
    })
    .await
}

pub(super) async fn invite(api: &Api, request: InviteRequest) -> Result<Invited, ApiError> {
    let role = core_role(request.role);
    let uses = request.uses.unwrap_or(1);
    if uses == 0 || uses > INVITE_USES_MAX {
        return Err(ApiError::BadRequest(format!("an invite has 1 to {INVITE_USES_MAX} uses, not {uses}")));
    }
    let expires_ms = now_ms() + request.expires_ms.unwrap_or(EXPIRES_MS);
    let secret: [u8; 32] = random().map_err(internal)?;
    let id = InviteId(SigningKey::from_bytes(&secret).verifying_key().to_bytes());
    let me = api.0.me;
    let (admin, mesh, founder) = api
        .ask(move |core| {
            let admin = core.replica().roster().role(&me).is_some_and(Role::may_administer);
            (admin, core.replica().mesh(), core.replica().founder())
        })
        .await?;
    if !admin {
        return Err(ApiError::NotAllowed("only an admin may invite; run `v6 invite` on an admin's node".into()));
    }
    let invite = Invite { role, expires_ms, uses, person: None };
    api.command(Command::Write(vec![Change::register(DocId::ROSTER, &Key::Invite(id), &invite)])).await?;
    let addrs: Vec<String> = api.0.net.listen_addrs().iter().take(8).map(ToString::to_string).collect();
    let ticket = Ticket { mesh, founder, secret: ByteArray::new(secret), role, expires_ms, members: vec![(me, addrs)] };
    Ok(Invited { ticket: ticket.encode(), role: request.role, expires: views::time(expires_ms), uses })
}

pub(super) async fn join_view(api: &Api) -> Result<JoinView, ApiError> {
    let mesh = api.ask(|core| core.replica().mesh()).await?;
    let peer = crate::net::node_id_to_peer_id(&api.0.me).map_err(internal)?;
    let addresses = api.0.net.listen_addrs().iter().map(|address| format!("{address}/p2p/{peer}")).collect();
    Ok(JoinView { mesh: mesh.to_string(), addresses })
}

pub(super) async fn invites(api: &Api) -> Result<Vec<InviteRow>, ApiError> {
    api.ask(|core| {
        let row = |(id, (invite, used)): (&InviteId, &(Invite, u32))| InviteRow {
            id: id.to_string(),
            role: api_role(invite.role),
            expires: views::time(invite.expires_ms),
            uses: invite.uses,
            used: *used,
            by: String::new(),
        };
        core.replica().roster().invites.iter().map(row).collect()
    })
    .await
}

pub(super) async fn members(api: &Api) -> Result<Vec<MemberRow>, ApiError> {
    let me = api.0.me;
    api.ask(move |core| {
        let roster = core.replica().roster();
        let row = |(node, member): (&NodeId, &crdt::roster::Member)| MemberRow {
            node: node.to_string(),
            name: member.name.clone(),
            role: api_role(member.role()),
            person: Some(member.person.to_string()),
            joined: Some(views::time(member.admitted_ms)),
            revoked: roster.revoked.contains_key(node),
            reason: roster.suspended.contains(node).then(|| "suspended: admins revoked each other".into()),
            this: *node == me,
        };
        roster.members.iter().map(row).collect()
    })
    .await
}

pub(super) async fn revoke(api: &Api, node: NodeId, reason: Option<String>) -> Result<Revoked, ApiError> {
    let me = api.0.me;
    let (admin, known, head) = api
        .ask(move |core| {
            let roster = core.replica().roster();
            let admin = roster.role(&me).is_some_and(Role::may_administer);
            (admin, roster.members.contains_key(&node), core.replica().feeds().get(&node).cloned().unwrap_or_default())
        })
        .await?;
    if !admin {
        return Err(ApiError::NotAllowed("only an admin may revoke a member".into()));
    }
    if !known {
        return Err(ApiError::NotFound(format!("no member {node}: `v6 members` lists them")));
    }
    let value =
        Revocation { last_seq: head.seq, last_hash: head.hash, reason: reason.unwrap_or_default(), recovery: None };
    let ack = api.command(Command::Write(vec![Change::register(DocId::ROSTER, &Key::Revoke(node), &value)])).await?;
    Ok(Revoked { node: node.to_string(), after_seq: head.seq, durable_on: ack.durable_on })
}

pub(super) async fn feeds(api: &Api) -> Result<Vec<FeedView>, ApiError> {
    api.ask(|core| {
        let members = &core.replica().roster().members;
        let view = |(author, feed): (&NodeId, &crdt::replica::Feed)| FeedView {
            author: author.to_string(),
            name: members.get(author).map(|m| m.name.clone()),
            seq: feed.seq,
            hash: feed.hash.to_string(),
            frozen: feed.frozen,
            reason: feed.frozen.then(|| "two versions of this feed exist".into()),
            checkpoint: None,
        };
        core.replica().feeds().iter().map(view).collect()
    })
    .await
}

pub(super) async fn feeds_verify(api: &Api) -> Result<FeedCheck, ApiError> {
    api.ask(|core| {
        let mut feeds = Vec::new();
        for (author, feed) in core.replica().feeds().clone() {
            let (mut prev, mut bundles, mut problem) = (BundleHash::ZERO, 0, None);
            for wire in core.replica().bundles(author, 1, usize::MAX) {
                match Bundle::decode(wire) {
                    Ok(b) if b.header.prev == prev && b.header.seq == bundles + 1 => prev = b.hash,
                    Ok(b) => problem = Some(format!("bundle {} does not follow the one before", b.header.seq)),
                    Err(e) => problem = Some(format!("bundle {}: {e}", bundles + 1)),
                }
                bundles += 1;
            }
            if problem.is_none() && (bundles != feed.seq || prev != feed.hash) {
                problem = Some("the feed's head does not fit its bundles".into());
            }
            feeds.push(FeedCheckRow { author: author.to_string(), bundles, ok: problem.is_none(), problem });
        }
        FeedCheck { ok: feeds.iter().all(|f| f.ok), feeds }
    })
    .await
}

#[allow(clippy::cast_precision_loss, reason = "seconds for a gauge")]
pub(super) async fn metrics(api: &Api) -> Result<String, ApiError> {
    let status = status(api).await?;
    let mut text =
        format!("# TYPE v6_peers_online gauge\nv6_peers_online {}\n# TYPE v6_jobs gauge\n", status.peers_online);
    for (state, count) in &status.jobs {
        text.push_str(&format!("v6_jobs{{state=\"{}\"}} {count}\n", state.as_str()));
    }
    text.push_str(&format!("# TYPE v6_blob_bytes gauge\nv6_blob_bytes {}\n", status.blob_bytes));
    if let Some(mirrors) = &status.mirrors {
        text.push_str(
            "# TYPE v6_mirror_lag_seconds gauge\n# TYPE v6_mirror_pending_bundles gauge\n# TYPE v6_mirror_up gauge\n",
        );
        for mirror in mirrors {
            let (kind, up) = (&mirror.kind, u8::from(mirror.error.is_none()));
            text.push_str(&format!("v6_mirror_lag_seconds{{mirror=\"{kind}\"}} {}\n", mirror.lag_ms as f64 / 1e3));
            text.push_str(&format!("v6_mirror_pending_bundles{{mirror=\"{kind}\"}} {}\n", mirror.pending));
            text.push_str(&format!("v6_mirror_up{{mirror=\"{kind}\"}} {up}\n"));
        }
    }
    Ok(text)
}

pub(super) async fn doctor(api: &Api) -> Result<Vec<Finding>, ApiError> {
    let mut findings = Vec::new();
    let mut find = |check: &str, severity, problem: String, mend: &str| {
        findings.push(Finding { check: check.into(), severity, problem, mend: mend.into() });
    };
    if api.0.sandbox != crate::sandbox::SandboxKind::None
        && let Err(error) = crate::sandbox::probe(api.0.sandbox)
    {
        find("sandbox", Severity::Error, error.to_string(), "choose another with --sandbox, or use a newer kernel");
    }
    if api.0.blobs.usage().paused {
        find("blobs", Severity::Error, "the blob store is full".into(), "raise --blob-quota or remove finished jobs");
    }
    let paused = api.ask(|core| core.offer().paused.clone()).await?;
    if !paused.is_empty() {
        find("offer", Severity::Error, paused, "nothing is taken meanwhile; once it is mended that ends by itself");
    }
    if api.ask(|core| core.connected().next().is_none()).await? {
        find(
            "peers",
            Severity::Info,
            "no peer is connected".into(),
            "invite one with `v6 invite`, or start the others",
        );
    }
    Ok(findings)
}

fn api_role(role: Role) -> web_gateway::api::Role {
    use web_gateway::api::Role as Api;
    match role {
        Role::Admin => Api::Admin,
        Role::Submitter => Api::Submitter,
        Role::Worker => Api::Worker,
        Role::Observer => Api::Observer,
        Role::Gateway => Api::Gateway,
    }
}

fn core_role(role: web_gateway::api::Role) -> Role {
    use web_gateway::api::Role as Api;
    match role {
        Api::Admin => Role::Admin,
        Api::Submitter => Role::Submitter,
        Api::Worker => Role::Worker,
        Api::Observer => Role::Observer,
        Api::Gateway => Role::Gateway,
    }
}
