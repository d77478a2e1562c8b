// The machines of the mesh: what each sells, how it is reached from here.

import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import { peersQuery, statusQuery } from "../api/queries";
import { useFormat } from "../format";
import { useT } from "../i18n";
import { Page } from "../shell";
import { classes, css as parts, Empty, Loading, Name, Problem, Section } from "../ui";

export function Nodes() {
  const t = useT();
  const format = useFormat();
  const status = useQuery(statusQuery);
  const peers = useQuery(peersQuery);
  const here = status.data;
  return (
    <Page title={t("nav.nodes")} isBusy={peers.isPending}>
      {peers.error && <Problem error={peers.error} again={() => void peers.refetch()} />}
      {peers.isPending && <Loading />}
      {here && peers.data && (
        <div className={classes(parts["sheet"], parts["scroll"])} tabIndex={0} role="group" aria-label={t("nav.nodes")}>
          <table className={parts["table"]}>
            <thead>
              <tr>
                <th>{t("node.name")}</th>
                <th>{t("node.state")}</th>
                <th>{t("node.role")}</th>
                <th>{t("node.slots")}</th>
                <th>{t("node.labels")}</th>
                <th>{t("node.reached")}</th>
                <th>{t("node.price")}</th>
                <th>{t("node.health")}</th>
              </tr>
            </thead>
            <tbody>
              <tr>
                <th scope="row">
                  <Link to="/nodes/$id" params={{ id: here.node }}>
                    <Name>{here.name}</Name>
                  </Link>
                </th>
                <td>{t("machine.here")}</td>
                <td>{here.role ? t(`role.${here.role}`) : ""}</td>
                <td>{t("machine.slots", { busy: format.number(here.slots_busy ?? 0), slots: format.number(here.slots ?? 0) })}</td>
                <td>
                  <Name>{(here.labels ?? []).join(", ")}</Name>
                </td>
                <td />
                <td />
                <td />
              </tr>
              {peers.data.map((peer) => (
                <tr key={peer.node}>
                  <th scope="row">
                    <Link to="/nodes/$id" params={{ id: peer.node }}>
                      <Name>{peer.name}</Name>
                    </Link>
                  </th>
                  <td>
                    <OnlinePill online={peer.online} />
                  </td>
                  <td>{t(`role.${peer.role}`)}</td>
                  <td>
                    {t("machine.slots", {
                      busy: format.number(Math.max(0, peer.slots - (peer.slots_free ?? peer.slots))),
                      slots: format.number(peer.slots),
                    })}
                  </td>
                  <td>
                    <Name>{peer.labels.join(", ")}</Name>
                  </td>
                  <td>
                    {peer.path && t(`path.${peer.path}`)}
                    {peer.rtt_ms !== null && peer.rtt_ms !== undefined && ` · ${format.duration(Math.max(1, peer.rtt_ms))}`}
                  </td>
                  <td>{peer.price_micros_per_hour > 0 ? t("node.perHour", { cost: format.cost(peer.price_micros_per_hour) }) : t("node.free")}</td>
                  <td>{t("node.attempts", { done: format.number(peer.attempts_done ?? 0), failed: format.number(peer.attempts_failed ?? 0) })}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {peers.data?.length === 0 && (
        <Empty title={t("node.alone")}>
          <Link to="/mesh">{t("mesh.invite")}</Link>
        </Empty>
      )}
      {here && peers.data && peers.data.length > 0 && (
        <Section title={t("node.topology")}>
          <Topology here={here.name} peers={peers.data} />
        </Section>
      )}
    </Page>
  );
}

export function OnlinePill({ online }: { online: boolean }) {
  const t = useT();
  return (
    <span className={classes(parts["pill"], online ? parts["done"] : parts["idle"])}>
      <span aria-hidden="true">{online ? "●" : "○"}</span>
      <span>{online ? t("machine.online") : t("machine.away")}</span>
    </span>
  );
}

/** Machines that are drawn around this one. */
const DRAWN_MAX = 24;

function Topology({ here, peers }: { here: string; peers: { node: string; name: string; online: boolean; path?: string | null }[] }) {
  const t = useT();
  const drawn = peers.slice(0, DRAWN_MAX);
  const place = (index: number) => {
    const angle = (2 * Math.PI * index) / drawn.length - Math.PI / 2;
    return { x: 400 + 280 * Math.cos(angle), y: 150 + 105 * Math.sin(angle) };
  };
  return (
    <div className={parts["sheet"]}>
      <svg viewBox="0 0 800 310" role="img" aria-label={t("node.topologyAll", { count: peers.length })} style={{ inlineSize: "min(760px, 100%)", blockSize: "auto", display: "block", marginInline: "auto" }}>
        {drawn.map((peer, index) => {
          const { x, y } = place(index);
          return (
            <line
              key={peer.node}
              x1={400}
              y1={150}
              x2={x}
              y2={y}
              stroke={peer.online ? "var(--accent)" : "var(--line-2)"}
              strokeDasharray={!peer.online ? "2 5" : peer.path === "relayed" ? "7 4" : undefined}
            />
          );
        })}
        <circle cx={400} cy={150} r={12} fill="var(--accent)" />
        <text x={420} y={154} direction="ltr" fontSize={12} fill="var(--ink)">
          {here}
        </text>
        {drawn.map((peer, index) => {
          const { x, y } = place(index);
          return (
            <g key={peer.node}>
              <circle cx={x} cy={y} r={9} fill={peer.online ? "var(--accent-soft)" : "var(--sheet)"} stroke={peer.online ? "var(--accent)" : "var(--line-2)"} strokeWidth={2} />
              <text x={x < 399 ? x - 16 : x + 16} y={y + 4} direction="ltr" textAnchor={x < 399 ? "end" : "start"} fontSize={12} fill="var(--ink-2)">
                {peer.name}
              </text>
            </g>
          );
        })}
      </svg>
      <p className={parts["hint"]} style={{ padding: "0 16px 12px" }}>
        {t("node.topologyHint")}
      </p>
    </div>
  );
}
