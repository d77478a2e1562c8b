// One machine: what it offers, what it runs, how well it kept its word.

import { useQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";

import { membersQuery, peersQuery, someJobsQuery, statusQuery } from "../api/queries";
import { short, useFormat, useNow } from "../format";
import { useT } from "../i18n";
import { Page } from "../shell";
import { Empty, Facts, Id, Name, Problem, Section, Sheet } from "../ui";
import { StateMark } from "../ui/state";
import { JobLink, Row, Since } from "./home";
import { OnlinePill } from "./nodes";

const route = getRouteApi("/nodes/$id");
const JOBS_MAX = 200;

export function Node() {
  const t = useT();
  const { id } = route.useParams();
  const { data: status } = useQuery(statusQuery);
  const peers = useQuery(peersQuery);
  const { data: members } = useQuery(membersQuery);
  const peer = peers.data?.find((one) => one.node.startsWith(id));
  const member = members?.find((one) => one.node.startsWith(id));
  const isHere = status?.node.startsWith(id) ?? false;
  const name = isHere ? status?.name : (peer?.name ?? member?.name);
  if (!name)
    return (
      <Page title={t("node.one", { id: short(id) })} isBusy={peers.isPending}>
        {!peers.isPending && <Problem error={new Error(t("node.unknown"))} />}
      </Page>
    );
  return (
    <Page title={name} heading={<Name>{name}</Name>}>
      {isHere ? <Here /> : <Peer id={id} />}
      <Work node={isHere ? (status?.node ?? id) : (peer?.node ?? member?.node ?? id)} />
    </Page>
  );
}

function Here() {
  const t = useT();
  const format = useFormat();
  const { data: status } = useQuery(statusQuery);
  if (!status) return null;
  return (
    <Facts
      facts={[
        [t("node.state"), status.paused ? <Name key="p">{status.paused}</Name> : t("machine.here")],
        status.role !== null && status.role !== undefined && [t("node.role"), t(`role.${status.role}`)],
        [t("node.slots"), t("machine.slots", { busy: format.number(status.slots_busy ?? 0), slots: format.number(status.slots ?? 0) })],
        (status.labels ?? []).length > 0 && [t("node.labels"), <Name key="l">{(status.labels ?? []).join(", ")}</Name>],
        [t("node.sandbox"), <Id key="s">{status.sandbox}</Id>],
        [t("node.uptime"), format.duration(status.uptime_ms ?? 0)],
        [t("node.version"), <Id key="v">{status.version}</Id>],
        [t("node.directory"), <Id key="d">{status.data_dir}</Id>],
        [t("job.id"), <Id key="i" title={status.node}>{short(status.node)}</Id>],
      ]}
    />
  );
}

function Peer({ id }: { id: string }) {
  const t = useT();
  const format = useFormat();
  const now = useNow();
  const { data: peers } = useQuery(peersQuery);
  const peer = peers?.find((one) => one.node.startsWith(id));
  if (!peer) return null;
  const tried = (peer.attempts_done ?? 0) + (peer.attempts_failed ?? 0);
  return (
    <Facts
      facts={[
        [t("node.state"), <OnlinePill key="o" online={peer.online} />],
        !peer.online && peer.last_seen !== null && peer.last_seen !== undefined && [t("node.lastSeen"), format.ago(peer.last_seen, now)],
        [t("node.role"), t(`role.${peer.role}`)],
        [
          t("node.slots"),
          t("machine.slots", { busy: format.number(Math.max(0, peer.slots - (peer.slots_free ?? peer.slots))), slots: format.number(peer.slots) }),
        ],
        peer.cores !== null && peer.cores !== undefined && [t("new.cores"), format.number(peer.cores)],
        peer.memory_bytes !== null && peer.memory_bytes !== undefined && [t("node.memory"), format.bytes(peer.memory_bytes)],
        peer.os !== null && peer.os !== undefined && [t("new.os"), <Name key="os">{peer.os}</Name>],
        peer.labels.length > 0 && [t("node.labels"), <Name key="l">{peer.labels.join(", ")}</Name>],
        [t("node.price"), peer.price_micros_per_hour > 0 ? t("node.perHour", { cost: format.cost(peer.price_micros_per_hour) }) : t("node.free")],
        peer.path !== null && peer.path !== undefined && [t("node.reached"), t(`path.${peer.path}`)],
        peer.rtt_ms !== null && peer.rtt_ms !== undefined && [t("node.roundTrip"), format.duration(Math.max(1, peer.rtt_ms))],
        tried > 0 && [t("node.health"), t("node.attempts", { done: format.number(peer.attempts_done ?? 0), failed: format.number(peer.attempts_failed ?? 0) })],
        [t("node.addresses"), <Id key="a">{(peer.addresses ?? []).join("  ")}</Id>],
        [t("job.id"), <Id key="i" title={peer.node}>{short(peer.node)}</Id>],
      ]}
    />
  );
}

function Work({ node }: { node: string }) {
  const t = useT();
  const { data: jobs } = useQuery(someJobsQuery(undefined, JOBS_MAX));
  const here = (jobs ?? []).filter((job) => job.owner === node);
  return (
    <Section title={t("node.work")} count={here.length}>
      {jobs && here.length === 0 && <Empty title={t("node.noWork")} />}
      {here.length > 0 && (
        <Sheet as="ul">
          {here.slice(0, 20).map((job) => (
            <Row key={job.id} mark={<StateMark state={job.state} />} title={<JobLink job={job} />} side={<Since at={job.created} />} />
          ))}
        </Sheet>
      )}
    </Section>
  );
}
