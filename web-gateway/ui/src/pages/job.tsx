// One job: what it is, where it runs and why, its attempts over time, its log, its files.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { useState } from "react";

import { type Schemas, send } from "../api/client";
import { explainQuery, jobQuery, traceQuery } from "../api/queries";
import { commandLine, middle, short, useFormat, useNow } from "../format";
import { useT } from "../i18n";
import { Log } from "../log/log";
import { Page } from "../shell";
import { Button, classes, Code, css as parts, here, Dialog, Facts, Id, Loading, Name, Problem, Section, Time } from "../ui";
import { isOver, lookOf, StateMark, StatePill, stateWord } from "../ui/state";
import { Files } from "./files";
import { JobLink, Since, useMachines } from "./home";
import css from "./job.module.css";

const route = getRouteApi("/jobs/$id");
const SHAPES: Record<Schemas["JobState"], string> = {
  queued: "…",
  claimed: "◔",
  running: "◐",
  done: "✓",
  failed: "✕",
  cancelled: "⊘",
  skipped: "»",
};

/** Names of members by their id; of one that is not known, the beginning of its id. */
export function useNodeName(): (node: string) => string {
  const machines = useMachines();
  return (node) => machines.find((one) => one.node === node)?.name ?? short(node);
}

export function Job() {
  const t = useT();
  const { id } = route.useParams();
  const job = useQuery(jobQuery(id));
  if (job.error && !job.data)
    return (
      <Page title={t("job.one", { id: short(id) })}>
        <Problem error={job.error} again={() => void job.refetch()} />
      </Page>
    );
  if (!job.data)
    return (
      <Page title={t("job.one", { id: short(id) })} isBusy>
        <Loading />
      </Page>
    );
  return <Shown key={job.data.id} job={job.data} />;
}

function Shown({ job }: { job: Schemas["JobView"] }) {
  const t = useT();
  const line = commandLine(job.command);
  const title = job.name || middle(line, 80) || short(job.id);
  const search = route.useSearch();
  const tab = search.tab ?? "log";
  const task = search.task === undefined ? undefined : Number(search.task);
  const navigate = route.useNavigate();
  const nodeName = useNodeName();
  const tasks = task === undefined ? job.tasks : job.tasks.filter((one) => one.index === task);
  return (
    <Page
      title={title}
      heading={<Name>{title}</Name>}
      actions={<Actions job={job} />}
    >
      <div className={parts["actions"]}>
        <span
          role="status"
          aria-label={t("job.state")}
          className={classes(parts["pill"], parts[lookOf(job.state)], css["state"])}
          data-shape={SHAPES[job.state]}
        >
          {t(stateWord(job.state))}
        </span>
        {job.provisional && <span className={parts["hint"]}>{t("job.provisional")}</span>}
        {job.at_risk && <span className={parts["hint"]}>{t("job.atRisk")}</span>}
        {job.reason && (
          <span className={parts["hint"]} dir="auto">
            {job.reason}
          </span>
        )}
      </div>
      <Code>{line}</Code>
      <JobFacts job={job} />
      {(job.tasks_total ?? 1) > 1 && <Tasks job={job} chosen={task} />}
      <Attempts tasks={tasks} isArray={job.array ?? false} nodeName={nodeName} />
      <div className={css["two"]}>
        <div className={parts["section"]}>
          <nav className={css["tabs"]} aria-label={t("job.parts")}>
            {(["log", "explain", "trace"] as const).map((name) => (
              <Link
                key={name}
                to="/jobs/$id"
                params={{ id: job.id }}
                search={({ tab: _, ...rest }) => (name === "log" ? rest : { ...rest, tab: name })}
                {...here(tab === name)}
              >
                {t(`job.${name}`)}
              </Link>
            ))}
          </nav>
          {tab === "explain" ? (
            <Explain job={job} />
          ) : tab === "trace" ? (
            <Trace job={job} nodeName={nodeName} />
          ) : job.sealed ? (
            <p className={parts["hint"]}>{t("job.sealed")}</p>
          ) : (
            <Log
              job={job.id}
              task={task}
              line={search.line === undefined ? undefined : Number(search.line)}
              onLine={(at) => void navigate({ search: (rest) => ({ ...rest, line: String(at) }), replace: true, resetScroll: false })}
              nodeName={nodeName}
              isArray={job.array ?? false}
            />
          )}
        </div>
        <div className={css["side"]}>
          <Files job={job} tasks={tasks} />
          <After job={job} />
        </div>
      </div>
    </Page>
  );
}

function Actions({ job }: { job: Schemas["JobView"] }) {
  const t = useT();
  const queries = useQueryClient();
  const navigate = route.useNavigate();
  const [isAsking, setAsking] = useState(false);
  const cancel = useMutation({
    mutationFn: () => send<Schemas["Cancelled"]>("POST", `/v1/jobs/${job.id}/cancel`),
    onSettled: () => queries.invalidateQueries({ queryKey: ["job", job.id] }),
  });
  const retry = useMutation({
    mutationFn: () => send<Schemas["Submitted"]>("POST", `/v1/jobs/${job.id}/retry`),
    onSuccess: (made) => navigate({ to: "/jobs/$id", params: { id: made.job }, search: {} }),
  });
  const over = isOver(job.state);
  return (
    <span className={parts["actions"]}>
      {!over && (
        <Button look="danger" onPress={() => setAsking(true)} isDisabled={cancel.isPending}>
          {t("job.cancel")}
        </Button>
      )}
      {over && !job.sealed && (
        <Button onPress={() => retry.mutate()} isDisabled={retry.isPending}>
          {t("job.again")}
        </Button>
      )}
      <Link to="/jobs/new" search={{ like: job.id }} className={parts["button"]}>
        {t("job.like")}
      </Link>
      {(cancel.error ?? retry.error) && <Problem error={cancel.error ?? retry.error} />}
      {isAsking && (
        <Dialog title={t("job.cancelAsk")} onClose={() => setAsking(false)}>
          <p>{t("job.cancelWhat")}</p>
          <div className={parts["actions"]}>
            <Button
              look="danger"
              autoFocus
              onPress={() => {
                setAsking(false);
                cancel.mutate();
              }}
            >
              {t("job.cancelYes")}
            </Button>
            <Button onPress={() => setAsking(false)}>{t("job.cancelNo")}</Button>
          </div>
        </Dialog>
      )}
    </span>
  );
}

function JobFacts({ job }: { job: Schemas["JobView"] }) {
  const t = useT();
  const format = useFormat();
  const nodeName = useNodeName();
  const attempts = job.tasks.flatMap((task) => task.attempts);
  const last = job.tasks.length === 1 ? attempts.at(-1) : undefined;
  const exits = job.tasks.length === 1 ? last?.exit : attempts.find((one) => one.exit !== null && one.exit !== undefined && one.exit !== 0)?.exit;
  const cost = attempts.reduce((sum, one) => sum + (one.cost_micros ?? 0), 0);
  const nodes = [...new Set(attempts.map((one) => one.node))];
  const facts: Parameters<typeof Facts>[0]["facts"] = [
    [t("job.askedBy"), <Name key="n">{nodeName(job.submitter)}</Name>],
    nodes.length > 0 && [
      t("job.runsOn"),
      nodes.map((node, index) => (
        <span key={node}>
          {index > 0 && ", "}
          <Link to="/nodes/$id" params={{ id: node }}>
            <Name>{nodeName(node)}</Name>
          </Link>
        </span>
      )),
    ],
    [t("job.created"), <Time key="t" at={job.created} />],
    [isOver(job.state) ? t("job.took") : t("job.since"), job.ended ? format.duration(Date.parse(job.ended) - Date.parse(job.created)) : <Since key="s" at={job.created} />],
    exits !== null && exits !== undefined && [t("job.exit"), <Id key="x">{exits}</Id>],
    (job.tasks_total ?? 1) > 1 && [t("job.tasks"), format.number(job.tasks_total ?? 1)],
    cost > 0 && [t("job.cost"), format.cost(cost)],
    (job.labels ?? []).length > 0 && [t("job.labels"), <Name key="l">{(job.labels ?? []).join(", ")}</Name>],
    typeof job.idea === "string" && [
      t("job.idea"),
      <Link key="i" to="/ideas/$id" params={{ id: job.idea }}>
        <Id>{short(job.idea)}</Id>
      </Link>,
    ],
    [t("job.id"), <Id key="id" title={job.id}>{short(job.id)}</Id>],
    [t("job.traceId"), <Id key="tr" title={job.trace}>{short(job.trace)}</Id>],
  ];
  return <Facts facts={facts} />;
}

function Tasks({ job, chosen }: { job: Schemas["JobView"]; chosen: number | undefined }) {
  const t = useT();
  const format = useFormat();
  const done = job.tasks.filter((task) => task.state === "done").length;
  return (
    <Section
      title={t("job.tasks")}
      more={
        <>
          <small>{t("job.tasksDone", { done: format.number(done), tasks: format.number(job.tasks.length) })}</small>
          {chosen !== undefined && (
            <Link to="/jobs/$id" params={{ id: job.id }} search={({ task: _, line: __, ...rest }) => rest}>
              {t("job.allTasks")}
            </Link>
          )}
        </>
      }
    >
      <div className={classes(parts["sheet"], css["tasks"])}>
        {job.tasks.map((task) => (
          <Link
            key={task.index}
            to="/jobs/$id"
            params={{ id: job.id }}
            search={({ line: _, ...rest }) => ({ ...rest, task: String(task.index) })}
            className={parts[lookOf(task.state)]}
            aria-label={t("job.taskIs", { task: task.index, state: t(stateWord(task.state)) })}
            {...here(chosen === task.index)}
          >
            {task.index}
          </Link>
        ))}
      </div>
      {(job.tasks_total ?? 1) > job.tasks.length && (
        <p className={parts["hint"]}>{t("job.moreTasks", { count: format.number((job.tasks_total ?? 1) - job.tasks.length) })}</p>
      )}
    </Section>
  );
}

/** Attempts that are drawn. */
const ATTEMPTS_MAX = 40;

function Attempts({ tasks, isArray, nodeName }: { tasks: Schemas["TaskView"][]; isArray: boolean; nodeName: (node: string) => string }) {
  const t = useT();
  const format = useFormat();
  const all = tasks.flatMap((task) => task.attempts.map((attempt) => ({ task, attempt })));
  // What did not go well is looked for first.
  const shown = all.length <= ATTEMPTS_MAX ? all : [...all].sort((one, other) => weight(one.attempt) - weight(other.attempt)).slice(0, ATTEMPTS_MAX);
  if (all.length === 0) return null;
  return (
    <Section title={t("job.attempts")} count={all.length}>
      <div className={classes(parts["sheet"], parts["scroll"])}>
        <Waterfall rows={shown} isArray={isArray} nodeName={nodeName} />
        <table className={parts["table"]}>
          <thead>
            <tr>
              {isArray && <th>{t("job.task")}</th>}
              <th>{t("job.attempt")}</th>
              <th>{t("job.node")}</th>
              <th>{t("job.state")}</th>
              <th>{t("job.exit")}</th>
              <th>{t("job.started")}</th>
              <th>{t("job.took")}</th>
              <th>{t("job.why")}</th>
            </tr>
          </thead>
          <tbody>
            {shown.map(({ task, attempt }) => (
              <tr key={`${task.index} ${attempt.attempt} ${attempt.node}`}>
                {isArray && <td>{format.number(task.index)}</td>}
                <td>
                  {format.number(attempt.attempt)}
                  {task.accepted_attempt === attempt.attempt && !attempt.duplicate && <span title={t("job.accepted")}> ★</span>}
                </td>
                <td>
                  <Name>{nodeName(attempt.node)}</Name>
                </td>
                <td>
                  <StatePill state={attempt.state} />
                </td>
                <td>{attempt.exit ?? ""}</td>
                <td>{attempt.started && <Time at={attempt.started} />}</td>
                <td>{attempt.started && (attempt.ended ? format.duration(Date.parse(attempt.ended) - Date.parse(attempt.started)) : <Since at={attempt.started} />)}</td>
                <td dir="auto">
                  {[attempt.reason, attempt.duplicate && t("job.duplicate"), attempt.checkpoint ? t("job.checkpoint", { n: attempt.checkpoint }) : null]
                    .filter(Boolean)
                    .join(" · ")}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Section>
  );
}

const weight = (attempt: Schemas["AttemptView"]): number =>
  ({ lost: 0, failed: 0, running: 1, claimed: 2, cancelled: 3, done: 4 })[attempt.state];

type AttemptRow = { task: Schemas["TaskView"]; attempt: Schemas["AttemptView"] };

/** Attempts over time, one line each; the table below says the same in words. */
function Waterfall({ rows, isArray, nodeName }: { rows: AttemptRow[]; isArray: boolean; nodeName: (node: string) => string }) {
  const format = useFormat();
  const now = useNow();
  const drawn = rows.flatMap(({ task, attempt }) => {
    if (!attempt.started) return [];
    const from = Date.parse(attempt.started);
    return [{ task, attempt, from, to: attempt.ended ? Date.parse(attempt.ended) : attempt.state === "running" ? now : from }];
  });
  if (drawn.length === 0) return null;
  const first = Math.min(...drawn.map((one) => one.from));
  const last = Math.max(first + 1, ...drawn.map((one) => one.to));
  const share = (at: number) => `${(100 * (at - first)) / (last - first)}%`;
  return (
    <div className={css["bars"]} aria-hidden="true">
      {drawn.map(({ task, attempt, from, to }) => (
        <div key={`${task.index} ${attempt.attempt} ${attempt.node}`} style={{ display: "contents" }}>
          <span>
            <Name>{nodeName(attempt.node)}</Name>
            {isArray && ` · ${format.number(task.index)}`}
          </span>
          <span className={css["lane"]}>
            <i data-look={lookOf(attempt.state)} style={{ insetInlineStart: share(from), inlineSize: `calc(${share(to)} - ${share(from)})` }} />
          </span>
        </div>
      ))}
      <span />
      <span className={css["scale"]}>
        <span>{format.clock(first)}</span>
        <span>{format.clock(last)}</span>
      </span>
    </div>
  );
}

function Explain({ job }: { job: Schemas["JobView"] }) {
  const t = useT();
  const format = useFormat();
  const { data, error, refetch } = useQuery(explainQuery(job.id, job.state));
  if (error) return <Problem error={error} again={() => void refetch()} />;
  if (!data) return <Loading />;
  return (
    <Section title={t("job.explainTitle")}>
      <p dir="auto">{data.summary}</p>
      {(data.reasons ?? []).map((reason) => (
        <p key={reason} dir="auto">
          {reason}
        </p>
      ))}
      <div className={classes(parts["sheet"], parts["scroll"])}>
        <table className={parts["table"]}>
          <thead>
            <tr>
              <th>{t("job.node")}</th>
              <th>{t("job.bid")}</th>
              <th>{t("job.why")}</th>
            </tr>
          </thead>
          <tbody>
            {data.offers.map((offer) => (
              <tr key={offer.node}>
                <td>
                  <Name>{offer.name}</Name>
                </td>
                <td>{offer.bid_micros === null || offer.bid_micros === undefined ? "–" : format.cost(offer.bid_micros)}</td>
                <td dir="auto">{offer.won ? t("job.won") : offer.fits ? t("job.fits") : offer.lacks.join(" · ")}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Section>
  );
}

function Trace({ job, nodeName }: { job: Schemas["JobView"]; nodeName: (node: string) => string }) {
  const t = useT();
  const { data, error, refetch } = useQuery(traceQuery(job.id));
  if (error) return <Problem error={error} again={() => void refetch()} />;
  if (!data) return <Loading />;
  return (
    <div className={classes(parts["sheet"], parts["scroll"])}>
      <table className={parts["table"]}>
        <thead>
          <tr>
            <th>{t("trace.at")}</th>
            <th>{t("trace.who")}</th>
            <th>{t("trace.what")}</th>
          </tr>
        </thead>
        <tbody>
          {data.steps.map((step, index) => (
            <tr key={index}>
              <td>
                <Time at={step.at} />
              </td>
              <td>
                <Name>{nodeName(step.node)}</Name>
              </td>
              <td dir="auto">
                {[step.what, step.attempt && t("trace.attempt", { n: step.attempt }), step.detail].filter(Boolean).join(" · ")}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function After({ job }: { job: Schemas["JobView"] }) {
  const t = useT();
  const after = job.after ?? [];
  if (after.length === 0) return null;
  return (
    <Section title={t("job.after")} count={after.length}>
      <ul className={parts["sheet"]}>
        {after.map((id) => (
          <Before key={id} id={id} />
        ))}
      </ul>
    </Section>
  );
}

function Before({ id }: { id: string }) {
  const { data } = useQuery(jobQuery(id));
  return (
    <li className={css["file"]}>
      <div>
        {data ? (
          <>
            <JobLink job={data} />
            <StateMark state={data.state} />
          </>
        ) : (
          <Id>{short(id)}</Id>
        )}
      </div>
    </li>
  );
}
