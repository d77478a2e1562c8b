// Who belongs to the mesh, who may come, who may not any more, and what the mesh as a whole wants.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { lazy, Suspense, useState } from "react";

import { type Schemas, send } from "../api/client";
import { feedsQuery, invitesQuery, membersQuery, policiesQuery, statusQuery } from "../api/queries";
import { short, useFormat } from "../format";
import { useT } from "../i18n";
import { Page } from "../shell";
import { Button, classes, Code, css as parts, Dialog, Empty, Facts, Field, Id, Loading, Name, Problem, Section, Time } from "../ui";

const Qr = lazy(() => import("../ui/qr"));
const ROLES = ["worker", "submitter", "observer", "admin", "gateway"] as const;

export function Mesh() {
  const t = useT();
  const format = useFormat();
  const status = useQuery(statusQuery);
  const [isInviting, setInviting] = useState(false);
  return (
    <Page
      title={t("nav.mesh")}
      isBusy={status.isPending}
      actions={
        <Button onPress={() => setInviting(true)}>
          <span aria-hidden="true">+</span>
          {t("mesh.invite")}
        </Button>
      }
    >
      {status.data && (
        <Facts
          facts={[
            [t("mesh.id"), <Id key="m" title={status.data.mesh}>{short(status.data.mesh)}</Id>],
            [t("mesh.state"), <Id key="h" title={status.data.state_hash}>{short(status.data.state_hash)}</Id>],
            [t("mesh.history"), format.bytes(status.data.history_bytes ?? 0)],
          ]}
        />
      )}
      <Mirrors />
      <Members />
      <Invites />
      <Feeds />
      <Policies />
      {isInviting && <Invite onClose={() => setInviting(false)} />}
    </Page>
  );
}

/** Of a gateway: what it mirrors into, and how far. */
function Mirrors() {
  const t = useT();
  const format = useFormat();
  const { data: status } = useQuery({ ...statusQuery, refetchInterval: 5_000 });
  const mirrors = status?.mirrors ?? [];
  if (mirrors.length === 0) return null;
  return (
    <Section title={t("mesh.mirrors")} count={mirrors.length}>
      <ul className={parts["sheet"]}>
        {mirrors.map((mirror) => (
          <li key={mirror.kind} style={{ padding: "8px 16px" }}>
            <Id>{mirror.kind}</Id> ·{" "}
            {mirror.pending === 0
              ? t("mesh.mirrorWhole")
              : t("mesh.mirrorBehind", { lag: format.duration(mirror.lag_ms), pending: format.number(mirror.pending) })}
            {mirror.error && (
              <p className={parts["error"]} dir="auto">
                {mirror.error}
              </p>
            )}
          </li>
        ))}
      </ul>
    </Section>
  );
}

function Members() {
  const t = useT();
  const queries = useQueryClient();
  const { data: members, error } = useQuery(membersQuery);
  const { data: status } = useQuery(statusQuery);
  const [asked, setAsked] = useState<Schemas["MemberRow"] | null>(null);
  const revoke = useMutation({
    mutationFn: (node: string) => send<Schemas["Revoked"]>("POST", `/v1/members/${node}/revoke`, {}),
    onSuccess: () => queries.invalidateQueries({ queryKey: ["members"] }),
  });
  const mayRevoke = status?.role === "admin";
  return (
    <Section title={t("mesh.members")} count={members?.length}>
      {error && <Problem error={error} />}
      {revoke.error && <Problem error={revoke.error} />}
      {!members && !error && <Loading />}
      {members && (
        <div className={classes(parts["sheet"], parts["scroll"])} tabIndex={0} role="group" aria-label={t("mesh.members")}>
          <table className={parts["table"]}>
            <thead>
              <tr>
                <th>{t("node.name")}</th>
                <th>{t("node.role")}</th>
                <th>{t("mesh.joined")}</th>
                <th>{t("node.state")}</th>
                <th>{t("job.id")}</th>
                <th>
                  <span className="only-read">{t("mesh.revoke")}</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {members.map((one) => (
                <tr key={one.node}>
                  <th scope="row">
                    <Link to="/nodes/$id" params={{ id: one.node }}>
                      <Name>{one.name || short(one.node)}</Name>
                    </Link>
                  </th>
                  <td>{t(`role.${one.role}`)}</td>
                  <td>{one.joined && <Time at={one.joined} />}</td>
                  <td dir="auto">{one.revoked ? t("mesh.revoked") : (one.reason ?? (one.this ? t("machine.here") : t("mesh.member")))}</td>
                  <td>
                    <Id title={one.node}>{short(one.node)}</Id>
                  </td>
                  <td>
                    {!one.revoked && !one.this && (
                      <Button look="quiet" isDisabled={!mayRevoke || revoke.isPending} onPress={() => setAsked(one)}>
                        {t("mesh.revoke")}
                      </Button>
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {!mayRevoke && status && <p className={parts["hint"]}>{t("mesh.onlyAdmins")}</p>}
      {asked && (
        <Dialog title={t("mesh.revokeAsk")} onClose={() => setAsked(null)}>
          <p>
            <Name>{asked.name}</Name> · <Id>{short(asked.node)}</Id>
          </p>
          <p>{t("mesh.revokeWhat")}</p>
          <div className={parts["actions"]}>
            <Button
              look="danger"
              onPress={() => {
                revoke.mutate(asked.node);
                setAsked(null);
              }}
            >
              {t("mesh.revokeYes")}
            </Button>
            <Button autoFocus onPress={() => setAsked(null)}>
              {t("ideas.cancel")}
            </Button>
          </div>
        </Dialog>
      )}
    </Section>
  );
}

function Invites() {
  const t = useT();
  const format = useFormat();
  const { data: invites } = useQuery(invitesQuery);
  if (!invites || invites.length === 0) return null;
  return (
    <Section title={t("mesh.invites")} count={invites.length}>
      <div className={classes(parts["sheet"], parts["scroll"])} tabIndex={0} role="group" aria-label={t("mesh.invites")}>
        <table className={parts["table"]}>
          <thead>
            <tr>
              <th>{t("job.id")}</th>
              <th>{t("node.role")}</th>
              <th>{t("mesh.expires")}</th>
              <th>{t("mesh.uses")}</th>
            </tr>
          </thead>
          <tbody>
            {invites.map((one) => (
              <tr key={one.id}>
                <td>
                  <Id title={one.id}>{short(one.id)}</Id>
                </td>
                <td>{t(`role.${one.role}`)}</td>
                <td>
                  <Time at={one.expires} />
                </td>
                <td>
                  {t("mesh.used", { used: format.number(one.used), uses: format.number(one.uses) })}
                  {one.used > one.uses && ` · ${t("mesh.overused")}`}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Section>
  );
}

function Feeds() {
  const t = useT();
  const { data: feeds } = useQuery(feedsQuery);
  const frozen = (feeds ?? []).filter((feed) => feed.frozen);
  return (
    <Section title={t("mesh.forks")} count={frozen.length}>
      {frozen.length === 0 && <p className={parts["hint"]}>{t("mesh.noForks")}</p>}
      {frozen.length > 0 && (
        <ul className={parts["sheet"]}>
          {frozen.map((feed) => (
            <li key={feed.author} style={{ padding: "8px 16px" }}>
              <Name>{feed.name ?? short(feed.author)}</Name> · <Id>{feed.seq}</Id> · <span dir="auto">{feed.reason}</span>
            </li>
          ))}
        </ul>
      )}
    </Section>
  );
}

function Policies() {
  const t = useT();
  const { data: policies } = useQuery(policiesQuery);
  const { data: status } = useQuery(statusQuery);
  if (!policies || policies.length === 0) return null;
  return (
    <Section title={t("mesh.policies")}>
      <ul className={parts["sheet"]}>
        {policies.map((policy) => (
          <Policy key={policy.name + policy.value} policy={policy} mayChange={status?.role === "admin"} />
        ))}
      </ul>
    </Section>
  );
}

function Policy({ policy, mayChange }: { policy: Schemas["PolicyView"]; mayChange: boolean }) {
  const t = useT();
  const queries = useQueryClient();
  const [value, setValue] = useState(policy.value);
  const set = useMutation({
    mutationFn: () => send<Schemas["PolicySet"]>("PUT", `/v1/policies/${policy.name}`, { value }),
    onSuccess: () => queries.invalidateQueries({ queryKey: ["policies"] }),
  });
  return (
    <li style={{ padding: "12px 16px", display: "grid", gap: 6 }}>
      <Field label={policy.name} value={value} onChange={setValue} hint={<span dir="auto">{policy.about}</span>} mono />
      {set.error && <Problem error={set.error} />}
      {value !== policy.value && (
        <div className={parts["actions"]}>
          <Button onPress={() => set.mutate()} isDisabled={!mayChange || set.isPending}>
            {t("ideas.save")}
          </Button>
          {!mayChange && <span className={parts["hint"]}>{t("mesh.onlyAdmins")}</span>}
        </div>
      )}
    </li>
  );
}

const HOUR_MS = 3_600_000;

function Invite({ onClose }: { onClose: () => void }) {
  const t = useT();
  const queries = useQueryClient();
  const [role, setRole] = useState<(typeof ROLES)[number]>("worker");
  const [uses, setUses] = useState("1");
  const [hours, setHours] = useState("24");
  const [isCopied, setCopied] = useState(false);
  const invite = useMutation({
    mutationFn: () => send<Schemas["Invited"]>("POST", "/v1/invites", { role, uses: Number(uses), expires_ms: Number(hours) * HOUR_MS }),
    onSuccess: () => queries.invalidateQueries({ queryKey: ["invites"] }),
  });
  if (invite.data) {
    const line = `v6 up --join ${invite.data.ticket}`;
    return (
      <Dialog title={t("mesh.ticket")} onClose={onClose}>
        <p>{t("mesh.ticketHow")}</p>
        <Code>{line}</Code>
        <div className={parts["actions"]}>
          <Button autoFocus onPress={() => void navigator.clipboard.writeText(line).then(() => setCopied(true))}>
            {isCopied ? t("new.copied") : t("new.copy")}
          </Button>
          <Button onPress={onClose}>{t("files.close")}</Button>
        </div>
        <Suspense fallback={null}>
          <Qr text={invite.data.ticket} label={t("mesh.qr")} />
        </Suspense>
        <p className={parts["hint"]}>{t("mesh.ticketOnce")}</p>
      </Dialog>
    );
  }
  return (
    <Dialog title={t("mesh.invite")} onClose={onClose}>
      <div className={parts["field"]}>
        <label htmlFor="invite-role">{t("node.role")}</label>
        <select id="invite-role" value={role} onChange={(event) => setRole(event.target.value as (typeof ROLES)[number])}>
          {ROLES.map((one) => (
            <option key={one} value={one}>
              {t(`role.${one}`)}
            </option>
          ))}
        </select>
        <span className={parts["hint"]}>{t(`roleIs.${role}`)}</span>
      </div>
      <Field label={t("mesh.uses")} value={uses} onChange={setUses} type="number" />
      <Field label={t("mesh.hours")} value={hours} onChange={setHours} type="number" />
      {invite.error && <Problem error={invite.error} />}
      <div className={parts["actions"]}>
        <Button look="main" onPress={() => invite.mutate()} isDisabled={invite.isPending}>
          {t("mesh.makeTicket")}
        </Button>
        <Button onPress={onClose}>{t("ideas.cancel")}</Button>
      </div>
      <Empty title={t("mesh.inviteWhat")} />
    </Dialog>
  );
}
