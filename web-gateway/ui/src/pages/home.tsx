// What runs, what waits and why, what needs a person, what came out, who is there.

import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";

import type { Schemas } from "../api/client";
import { doctorQuery, peersQuery, someJobsQuery, statusQuery, topIdeasQuery, waitingQuery } from "../api/queries";
import { commandLine, middle, useFormat, useNow } from "../format";
import { useT } from "../i18n";
import { Page } from "../shell";
import { classes, css as parts, Empty, Id, Name, Problem, Section, Sheet } from "../ui";
import { IdeaPill, StateMark } from "../ui/state";
import css from "./home.module.css";

const RUNNING_MAX = 8;
const OUTCOMES_MAX = 6;
const FAILED_MAX = 5;
const IDEAS_MAX = 5;
/** A failure older than this is history, not news. */
const FAILED_AGE_MS = 24 * 3600 * 1000;

export function Home() {
  const t = useT();
  const status = useQuery(statusQuery);
  return (
    <Page title={t("nav.home")} isHidden isBusy={status.isPending}>
      <Machines />
      <div className={css["two"]}>
        <Running />
        <Waiting />
      </div>
      <div className={css["two"]}>
        <Outcomes />
        <NeedsYou />
      </div>
      <TopIdeas />
    </Page>
  );
}

export type Machine = {
  node: string;
  name: string;
  isHere: boolean;
  online: boolean;
  slots: number;
  busy: number;
  os?: string | null;
  labels: string[];
  paused?: string | null;
};

/** All members as machines, this one first. */
export function useMachines(): Machine[] {
  const { data: status } = useQuery(statusQuery);
  const { data: peers } = useQuery(peersQuery);
  const here: Machine[] = status
    ? [
        {
          node: status.node,
          name: status.name,
          isHere: true,
          online: true,
          slots: status.slots ?? 0,
          busy: status.slots_busy ?? 0,
          labels: status.labels ?? [],
          paused: status.paused ?? null,
        },
      ]
    : [];
  const others = (peers ?? []).map((peer): Machine => ({
    node: peer.node,
    name: peer.name,
    isHere: false,
    online: peer.online,
    slots: peer.slots,
    busy: peer.slots_free === null || peer.slots_free === undefined ? 0 : Math.max(0, peer.slots - peer.slots_free),
    os: peer.os ?? null,
    labels: peer.labels,
  }));
  return [...here, ...others];
}

function Machines() {
  const t = useT();
  const format = useFormat();
  const machines = useMachines();
  const slots = machines.reduce((sum, one) => sum + (one.online ? one.slots : 0), 0);
  const busy = machines.reduce((sum, one) => sum + (one.online ? one.busy : 0), 0);
  return (
    <Section title={t("home.machines")} more={<small>{t("home.slots", { busy: format.number(busy), slots: format.number(slots) })}</small>}>
      <div className={css["machines"]}>
        {machines.map((one) => (
          <MachineCard key={one.node} machine={one} />
        ))}
      </div>
    </Section>
  );
}

/** Slots drawn one by one; more are told as a number. */
const SLOTS_DRAWN = 8;

function MachineCard({ machine }: { machine: Machine }) {
  const t = useT();
  const format = useFormat();
  const says = !machine.online
    ? t("machine.away")
    : machine.paused
      ? machine.paused
      : machine.slots === 0
        ? t("machine.noSlots")
        : t("machine.slots", { busy: format.number(machine.busy), slots: format.number(machine.slots) });
  return (
    <Link to="/nodes/$id" params={{ id: machine.node }} className={classes(parts["sheet"], css["machine"])} data-away={!machine.online || undefined}>
      <header>
        <bdi>{machine.name}</bdi>
        <em>{machine.isHere ? t("machine.here") : (machine.os ?? "")}</em>
      </header>
      <div className={css["slots"]} aria-hidden="true">
        {Array.from({ length: Math.min(machine.slots, SLOTS_DRAWN) }, (_, index) => (
          <i key={index} data-busy={(machine.online && index < Math.ceil((machine.busy * SLOTS_DRAWN) / Math.max(machine.slots, SLOTS_DRAWN))) || undefined} />
        ))}
      </div>
      <p>{says}</p>
    </Link>
  );
}

/** A line of a list: a mark, what it is, what stands beside it. */
export function Row({ mark, title, detail, side }: { mark: ReactNode; title: ReactNode; detail?: ReactNode; side?: ReactNode }) {
  return (
    <li className={css["row"]}>
      {mark}
      <div>
        {title}
        {detail && <div className={css["detail"]}>{detail}</div>}
      </div>
      <div className={css["side"]}>{side}</div>
    </li>
  );
}

export const jobTitle = (job: { name?: string | null; command?: string[]; id: string }): string =>
  job.name || (job.command && job.command.length > 0 ? middle(commandLine(job.command), 80) : job.id.slice(0, 8));

export function JobLink({ job }: { job: { name?: string | null; command?: string[]; id: string } }) {
  return (
    <Link to="/jobs/$id" params={{ id: job.id }} className={css["what"]} data-row="">
      <Name>{jobTitle(job)}</Name>
    </Link>
  );
}

function Running() {
  const t = useT();
  const format = useFormat();
  const { data: status } = useQuery(statusQuery);
  const { data: jobs, error, refetch } = useQuery(someJobsQuery("running", RUNNING_MAX));
  const machines = useMachines();
  const name = (node: string | null | undefined) => machines.find((one) => one.node === node)?.name;
  return (
    <Section
      title={t("home.running")}
      count={status?.jobs["running"] ?? 0}
      more={
        <Link to="/jobs" search={{ state: "running" }}>
          {t("home.all")}
        </Link>
      }
    >
      {error && <Problem error={error} again={() => void refetch()} />}
      {jobs && jobs.length === 0 && (
        <Empty title={t("home.nothingRuns")}>
          <Link to="/jobs/new">{t("nav.new")}</Link>
        </Empty>
      )}
      {jobs && jobs.length > 0 && (
        <Sheet as="ul">
          {jobs.map((job) => (
            <Row
              key={job.id}
              mark={<StateMark state={job.state} />}
              title={<JobLink job={job} />}
              detail={
                <>
                  {name(job.owner) && <Name>{name(job.owner)}</Name>}
                  {job.tasks > 1 && ` · ${t("job.tasksDone", { done: format.number(job.done), tasks: format.number(job.tasks) })}`}
                  {job.tasks > 1 && (
                    <div className={css["bar"]} aria-hidden="true">
                      <i style={{ inlineSize: `${(100 * job.done) / job.tasks}%` }} />
                    </div>
                  )}
                </>
              }
              side={<Since at={job.created} />}
            />
          ))}
        </Sheet>
      )}
    </Section>
  );
}

/** How long ago, counted on while somebody waits. */
export function Since({ at }: { at: string }) {
  const format = useFormat();
  const now = useNow();
  return (
    <time dateTime={at} title={format.time(at)}>
      {format.duration(Math.max(0, now - Date.parse(at)))}
    </time>
  );
}

function Waiting() {
  const t = useT();
  const format = useFormat();
  const { data, error, refetch } = useQuery(waitingQuery);
  return (
    <Section
      title={t("home.waiting")}
      count={data?.waiting ?? 0}
      more={
        <Link to="/jobs" search={{ state: "queued" }}>
          {t("home.all")}
        </Link>
      }
    >
      {error && <Problem error={error} again={() => void refetch()} />}
      {data && data.groups.length === 0 && <Empty title={t("home.nothingWaits")} />}
      {data && data.groups.length > 0 && (
        <Sheet as="ul">
          {data.groups.map((group) => (
            <Row
              key={group.code + group.text}
              mark={
                <span className={classes(parts["mark"], parts["wait"])} aria-hidden="true">
                  …
                </span>
              }
              title={<span className={css["why"]}>{t("waiting.jobs", { count: group.count })}: <WaitingText group={group} /></span>}
              detail={group.jobs.map((job, index) => (
                <span key={job.id}>
                  {index > 0 && " · "}
                  <Link to="/jobs/$id" params={{ id: job.id }}>
                    <Name>{jobTitle(job)}</Name>
                  </Link>
                </span>
              ))}
              side={format.number(group.count)}
            />
          ))}
        </Sheet>
      )}
    </Section>
  );
}

const WAITS = {
  no_slot: "waiting.noSlot",
  nobody_fits: "waiting.nobodyFits",
  after: "waiting.after",
  idea: "waiting.idea",
  placing: "waiting.placing",
} as const;

function WaitingText({ group }: { group: Schemas["WaitingGroup"] }) {
  const t = useT();
  const known = WAITS[group.code as keyof typeof WAITS];
  if (!known) return <span dir="auto">{group.text}</span>;
  return (
    <>
      {t(known)}
      {group.code === "nobody_fits" && (
        <>
          {" "}
          (<span dir="auto">{group.text}</span>)
        </>
      )}
    </>
  );
}

function Outcomes() {
  const t = useT();
  const format = useFormat();
  const now = useNow();
  const { data: jobs } = useQuery(someJobsQuery(undefined, 40));
  const ended = (jobs ?? []).filter((job) => job.ended).sort((one, other) => ((one.ended ?? "") < (other.ended ?? "") ? 1 : -1));
  return (
    <Section title={t("home.outcomes")} more={<Link to="/jobs">{t("home.all")}</Link>}>
      {jobs && ended.length === 0 && <Empty title={t("home.nothingEnded")} />}
      {ended.length > 0 && (
        <Sheet as="ul">
          {ended.slice(0, OUTCOMES_MAX).map((job) => (
            <Row
              key={job.id}
              mark={<StateMark state={job.state} />}
              title={<JobLink job={job} />}
              side={job.ended && <time dateTime={job.ended}>{format.ago(job.ended, now)}</time>}
            />
          ))}
        </Sheet>
      )}
    </Section>
  );
}

function NeedsYou() {
  const t = useT();
  const format = useFormat();
  const now = useNow();
  const { data: failed } = useQuery(someJobsQuery("failed", FAILED_MAX));
  const { data: findings } = useQuery(doctorQuery);
  const news = (failed ?? []).filter((job) => job.ended && now - Date.parse(job.ended) < FAILED_AGE_MS);
  const problems = (findings ?? []).filter((finding) => finding.severity !== "info");
  const count = news.length + problems.length;
  return (
    <Section title={t("home.needs")} count={count}>
      {count === 0 && <Empty title={t("home.nothingNeeded")} />}
      {count > 0 && (
        <Sheet as="ul">
          {news.map((job) => (
            <Row
              key={job.id}
              mark={<StateMark state="failed" />}
              title={<JobLink job={job} />}
              detail={t("home.failed")}
              side={job.ended && <time dateTime={job.ended}>{format.ago(job.ended, now)}</time>}
            />
          ))}
          {problems.map((finding) => (
            <Row
              key={finding.check}
              mark={
                <span className={classes(parts["mark"], finding.severity === "error" ? parts["fail"] : parts["wait"])} aria-hidden="true">
                  !
                </span>
              }
              title={
                <span dir="auto" style={{ fontWeight: 500 }}>
                  {finding.problem}
                </span>
              }
              detail={<span dir="auto">{finding.mend}</span>}
            />
          ))}
        </Sheet>
      )}
    </Section>
  );
}

function TopIdeas() {
  const t = useT();
  const { data: ideas } = useQuery(topIdeasQuery(IDEAS_MAX));
  return (
    <Section title={t("home.ideas")} more={<Link to="/ideas">{t("home.all")}</Link>}>
      {ideas && ideas.length === 0 && (
        <Empty title={t("ideas.empty")}>
          <Link to="/ideas">{t("ideas.add")}</Link>
        </Empty>
      )}
      {ideas && ideas.length > 0 && (
        <Sheet as="ul">
          {ideas.map((idea) => (
            <Row
              key={idea.id}
              mark={
                <span className={classes(parts["mark"], parts["run"])} aria-hidden="true">
                  ✦
                </span>
              }
              title={
                <Link to="/ideas/$id" params={{ id: idea.id }} className={css["what"]}>
                  <Name>{idea.title}</Name>
                </Link>
              }
              detail={<Id>{idea.id.slice(0, 8)}</Id>}
              side={<IdeaPill status={idea.status} />}
            />
          ))}
        </Sheet>
      )}
    </Section>
  );
}
