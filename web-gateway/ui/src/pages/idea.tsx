// One idea: what it says, the text that people write about it together, whose it is, what hangs on it, what came of it.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { useState } from "react";

import { type Schemas, send } from "../api/client";
import { ideaGraphQuery, ideaQuery, noteQuery } from "../api/queries";
import { short, useFormat } from "../format";
import { type MessageId, useT } from "../i18n";
import { Page } from "../shell";
import { Button, css as parts, Dialog, Facts, Field, Id, Loading, Name, Problem, Section, Time } from "../ui";
import { IdeaPill, type JobState, StateMark } from "../ui/state";
import { Row } from "./home";
import css from "./ideas.module.css";
import { kindWord } from "./ideas";
import { useNodeName } from "./job";

const route = getRouteApi("/ideas/$id");

export function Idea() {
  const t = useT();
  const { id } = route.useParams();
  const idea = useQuery(ideaQuery(id));
  if (!idea.data)
    return (
      <Page title={t("ideas.one", { id: short(id) })} isBusy={!idea.error}>
        {idea.error ? <Problem error={idea.error} again={() => void idea.refetch()} /> : <Loading />}
      </Page>
    );
  return <Shown idea={idea.data} />;
}

function Shown({ idea }: { idea: Schemas["IdeaView"] }) {
  const t = useT();
  return (
    <Page
      title={idea.title}
      heading={<Name>{idea.title}</Name>}
      actions={
        <span className={parts["actions"]}>
          <Say idea={idea} />
          <Link to="/jobs/new" search={{ idea: idea.id }} className={parts["button"]}>
            {t("ideas.run")}
          </Link>
        </span>
      }
    >
      <div className={parts["actions"]}>
        <IdeaPill status={idea.status} />
        <Facts
          facts={[
            [t("ideas.kind"), kindWord(idea.kind, t)],
            [t("ideas.created"), <Time key="c" at={idea.created} />],
            idea.tags.length > 0 && [t("ideas.tags"), <Name key="t">{idea.tags.join(", ")}</Name>],
            idea.program !== null && idea.program !== undefined && [t("ideas.program"), <Name key="p">{idea.program}</Name>],
            [t("job.id"), <Id key="i" title={idea.id}>{short(idea.id)}</Id>],
          ]}
        />
      </div>
      <div className={css["two"]}>
        <div className={css["column"]}>
          {idea.body !== "" && (
            <div className={parts["sheet"]}>
              <div className={css["body"]} dir="auto">
                {idea.body}
              </div>
            </div>
          )}
          <Notebook idea={idea} />
          <Outcomes idea={idea} />
          <Entries idea={idea} />
        </div>
        <div className={css["column"]}>
          <Chain idea={idea} />
          <Links idea={idea} />
          <Graph idea={idea} />
        </div>
      </div>
    </Page>
  );
}

/** The text that people write together; it is sent as a change of what was read, so that what others wrote stays. */
function Notebook({ idea }: { idea: Schemas["IdeaView"] }) {
  const t = useT();
  const queries = useQueryClient();
  const id = `idea:${idea.id}`;
  const note = useQuery({ ...noteQuery(id), enabled: idea.has_note ?? false });
  const [draft, setDraft] = useState<{ text: string; base: string[] } | null>(null);
  const save = useMutation({
    mutationFn: (edit: { text: string; base: string[] }) => send<Schemas["NoteView"]>("PUT", `/v1/notes/${id}`, edit),
    onSuccess: (shown) => {
      queries.setQueryData(noteQuery(id).queryKey, shown);
      setDraft(null);
      void queries.invalidateQueries({ queryKey: ["idea", idea.id] });
    },
  });
  const text = note.data?.text ?? "";
  return (
    <Section
      title={t("ideas.notebook")}
      more={
        draft === null && (
          <Button look="quiet" onPress={() => setDraft({ text, base: note.data?.heads ?? [] })}>
            {text === "" ? t("ideas.write") : t("ideas.edit")}
          </Button>
        )
      }
    >
      {draft ? (
        <>
          <Field label={t("ideas.notebook")} value={draft.text} onChange={(next) => setDraft({ ...draft, text: next })} lines={10} autoFocus />
          {save.error && <Problem error={save.error} />}
          <div className={parts["actions"]}>
            <Button look="main" onPress={() => save.mutate(draft)} isDisabled={save.isPending}>
              {t("ideas.save")}
            </Button>
            <Button onPress={() => setDraft(null)}>{t("ideas.cancel")}</Button>
          </div>
        </>
      ) : text === "" ? (
        <p className={parts["hint"]}>{t("ideas.noText")}</p>
      ) : (
        <div className={parts["sheet"]}>
          <div className={css["body"]} dir="auto">
            {text}
          </div>
        </div>
      )}
    </Section>
  );
}

function Outcomes({ idea }: { idea: Schemas["IdeaView"] }) {
  const t = useT();
  const format = useFormat();
  const outcomes = idea.outcomes ?? [];
  const running = (idea.jobs ?? []).filter((job) => !outcomes.some((one) => one.job === job));
  if (outcomes.length === 0 && running.length === 0) return null;
  return (
    <Section title={t("ideas.outcomes")} count={outcomes.length}>
      <ul className={parts["sheet"]}>
        {running.map((job) => (
          <Row
            key={job}
            mark={<StateMark state="running" />}
            title={
              <Link to="/jobs/$id" params={{ id: job }}>
                <Id>{short(job)}</Id>
              </Link>
            }
          />
        ))}
        {outcomes.map((one) => (
          <Row
            key={one.entry}
            mark={<StateMark state={one.state as JobState} />}
            title={
              <Link to="/jobs/$id" params={{ id: one.job }}>
                <Id>{short(one.job)}</Id>
              </Link>
            }
            detail={
              <>
                <Time at={one.created} />
                {one.artifacts.length > 0 && (
                  <>
                    {" · "}
                    <Name>{one.artifacts.map((file) => file.path).join(", ")}</Name>
                  </>
                )}
              </>
            }
            side={format.duration(one.duration_ms)}
          />
        ))}
      </ul>
    </Section>
  );
}

function Entries({ idea }: { idea: Schemas["IdeaView"] }) {
  const t = useT();
  const nodeName = useNodeName();
  const about = idea.about.filter((entry) => entry.kind !== "outcome" && entry.kind !== "link");
  if (about.length === 0) return null;
  return (
    <Section title={t("ideas.said")} count={about.length}>
      <ul className={parts["sheet"]}>
        {about.map((entry) => (
          <li key={entry.id} className={css["entry"]} data-retracted={entry.retracted || undefined}>
            <header>
              <span>{kindWord(entry.kind, t)}</span>
              <Name>{entry.program ?? nodeName(entry.author)}</Name>
              <Time at={entry.created} />
            </header>
            {entry.title && (
              <p>
                <Name>{entry.title}</Name>
              </p>
            )}
            {entry.body && <p dir="auto">{entry.body}</p>}
            {entry.detail !== null && entry.detail !== undefined && Object.keys(entry.detail).length > 0 && (
              <p className={parts["hint"]}>
                <Name>
                  {Object.entries(entry.detail)
                    .filter(([, value]) => value !== null && typeof value !== "object")
                    .map(([name, value]) => `${name}: ${String(value)}`)
                    .join(" · ")}
                </Name>
              </p>
            )}
          </li>
        ))}
      </ul>
    </Section>
  );
}

function Chain({ idea }: { idea: Schemas["IdeaView"] }) {
  const t = useT();
  const steps = [...(idea.handovers ?? [])];
  return (
    <Section title={t("ideas.chain")}>
      <ol className={`${parts["sheet"]} ${css["chain"]}`}>
        <li>
          <span>
            {t("ideas.noticed")} <Id title={idea.person}>{short(idea.person)}</Id>
            <br />
            <small>
              <Time at={idea.created} />
            </small>
          </span>
        </li>
        {steps.map((one) => (
          <li key={one.offer}>
            <span>
              {t("ideas.handed")} <Id title={one.to}>{short(one.to)}</Id>
            </span>
          </li>
        ))}
        {(idea.offers ?? []).map((one) => (
          <li key={one.offer}>
            <span>
              {t("ideas.offered")} <Id title={one.to}>{short(one.to)}</Id>
            </span>
          </li>
        ))}
      </ol>
    </Section>
  );
}

const RELATIONS: Record<string, MessageId> = {
  broader: "relation.broader",
  narrower: "relation.narrower",
  related: "relation.related",
  "derived-from": "relation.derived-from",
  revises: "relation.revises",
  duplicates: "relation.duplicates",
  answers: "relation.answers",
  supports: "relation.supports",
  "objects-to": "relation.objects-to",
  blocks: "relation.blocks",
  "executed-by": "relation.executed-by",
  produced: "relation.produced",
  implements: "relation.implements",
};

function Links({ idea }: { idea: Schemas["IdeaView"] }) {
  const t = useT();
  const format = useFormat();
  const queries = useQueryClient();
  const links = [...(idea.links ?? []).map((link) => ({ link, other: link.to })), ...(idea.backlinks ?? []).map((link) => ({ link, other: link.from }))];
  const decide = useMutation({
    mutationFn: ({ link, isAccepted }: { link: Schemas["LinkView"]; isAccepted: boolean }) =>
      send("POST", `/v1/ideas/${link.from}/entries`, isAccepted ? { kind: "link", relation: "duplicates", to: link.to } : { kind: "retraction", on: link.entry }),
    onSuccess: () => queries.invalidateQueries({ queryKey: ["idea"] }),
  });
  if (links.length === 0) return null;
  return (
    <Section title={t("ideas.links")} count={links.length}>
      {decide.error && <Problem error={decide.error} />}
      <ul className={parts["sheet"]}>
        {links.map(({ link, other }) => (
          <li key={link.entry} className={css["entry"]}>
            <header>
              <span>{RELATIONS[link.relation] ? t(RELATIONS[link.relation] as MessageId) : link.relation}</span>
              {link.score !== null && link.score !== undefined && <span>{format.number(link.score / 1000)}</span>}
            </header>
            <Target target={other} title={link.title ?? null} />
            {link.relation === "duplicates" && link.method && !link.accepted && (
              <div className={parts["actions"]}>
                <Button onPress={() => decide.mutate({ link, isAccepted: true })}>{t("ideas.same")}</Button>
                <Button onPress={() => decide.mutate({ link, isAccepted: false })}>{t("ideas.notSame")}</Button>
              </div>
            )}
          </li>
        ))}
      </ul>
    </Section>
  );
}

function Target({ target, title }: { target: string; title: string | null }) {
  if (target.startsWith("job:"))
    return (
      <Link to="/jobs/$id" params={{ id: target.slice(4) }}>
        <Id>{target.slice(0, 12)}</Id>
      </Link>
    );
  if (target.startsWith("blob:")) return <Id title={target}>{target.slice(0, 13)}</Id>;
  return (
    <Link to="/ideas/$id" params={{ id: target }}>
      <Name>{title ?? short(target)}</Name>
    </Link>
  );
}

/** Neighbours that are drawn; all of them are in the list of links. */
const DRAWN_MAX = 10;

function Graph({ idea }: { idea: Schemas["IdeaView"] }) {
  const t = useT();
  const { data } = useQuery(ideaGraphQuery(idea.id));
  const others = (data?.nodes ?? []).filter((node) => node.id !== idea.id).slice(0, DRAWN_MAX);
  if (others.length === 0) return null;
  const place = (index: number) => {
    const angle = (2 * Math.PI * index) / others.length - Math.PI / 2;
    return { x: 160 + 110 * Math.cos(angle), y: 110 + 76 * Math.sin(angle) };
  };
  return (
    <Section title={t("ideas.around")}>
      <div className={parts["sheet"]}>
        <svg className={css["graph"]} viewBox="0 0 320 230" role="img" aria-label={t("ideas.aroundAll", { count: others.length })}>
          {others.map((node, index) => {
            const { x, y } = place(index);
            return <line key={node.id} x1={160} y1={110} x2={x} y2={y} stroke="var(--line-2)" />;
          })}
          <circle cx={160} cy={110} r={13} fill="var(--accent)" />
          {others.map((node, index) => {
            const { x, y } = place(index);
            const edge = data?.edges.find((one) => one.from === node.id || one.to === node.id);
            return (
              <g key={node.id}>
                {node.kind === "job" ? (
                  <rect x={x - 8} y={y - 8} width={16} height={16} rx={3} fill="var(--run)" />
                ) : (
                  <circle cx={x} cy={y} r={9} fill="var(--sheet)" stroke="var(--accent)" strokeWidth={2} />
                )}
                <text x={x} y={y + 22} textAnchor="middle">
                  {edge && RELATIONS[edge.relation] ? t(RELATIONS[edge.relation] as MessageId) : (edge?.relation ?? node.kind)}
                </text>
              </g>
            );
          })}
        </svg>
      </div>
    </Section>
  );
}

type Saying = "argument" | "evaluation" | "decision" | "observation" | "retraction";
const SAYINGS: Saying[] = ["argument", "evaluation", "decision", "observation", "retraction"];
const VERDICTS = ["accepted", "rejected", "deferred", "done", "open"] as const;

/** Says something about the idea: an entry of one's own, which stays. */
function Say({ idea }: { idea: Schemas["IdeaView"] }) {
  const t = useT();
  const queries = useQueryClient();
  const [isOpen, setOpen] = useState(false);
  const [kind, setKind] = useState<Saying>("argument");
  const [text, setText] = useState("");
  const [isFor, setFor] = useState(true);
  const [verdict, setVerdict] = useState<(typeof VERDICTS)[number]>("accepted");
  const [value, setValue] = useState("50");
  const [effort, setEffort] = useState("50");
  const say = useMutation({
    mutationFn: () =>
      send<Schemas["EntryAdded"]>("POST", `/v1/ideas/${idea.id}/entries`, {
        kind,
        title: text.trim(),
        ...(kind === "argument" ? { is_for: isFor } : {}),
        ...(kind === "decision" ? { verdict } : {}),
        ...(kind === "evaluation" ? { value: Number(value), effort: Number(effort) } : {}),
      }),
    onSuccess: () => {
      setOpen(false);
      setText("");
      void queries.invalidateQueries({ queryKey: ["idea", idea.id] });
      void queries.invalidateQueries({ queryKey: ["ideas"] });
    },
  });
  return (
    <>
      <Button onPress={() => setOpen(true)}>{t("ideas.say")}</Button>
      {isOpen && (
        <Dialog title={t("ideas.say")} onClose={() => setOpen(false)}>
          <div className={parts["field"]}>
            <label htmlFor="say-kind">{t("ideas.kind")}</label>
            <select id="say-kind" value={kind} onChange={(event) => setKind(event.target.value as Saying)}>
              {SAYINGS.map((one) => (
                <option key={one} value={one}>
                  {kindWord(one, t)}
                </option>
              ))}
            </select>
          </div>
          {kind === "argument" && (
            <div className={parts["field"]}>
              <label htmlFor="say-for">{t("ideas.side")}</label>
              <select id="say-for" value={isFor ? "for" : "against"} onChange={(event) => setFor(event.target.value === "for")}>
                <option value="for">{t("ideas.for")}</option>
                <option value="against">{t("ideas.against")}</option>
              </select>
            </div>
          )}
          {kind === "decision" && (
            <div className={parts["field"]}>
              <label htmlFor="say-verdict">{t("ideas.verdict")}</label>
              <select id="say-verdict" value={verdict} onChange={(event) => setVerdict(event.target.value as (typeof VERDICTS)[number])}>
                {VERDICTS.map((one) => (
                  <option key={one} value={one}>
                    {t(`idea.${one}`)}
                  </option>
                ))}
              </select>
            </div>
          )}
          {kind === "evaluation" && (
            <>
              <Field label={t("ideas.value")} value={value} onChange={setValue} type="number" />
              <Field label={t("ideas.effort")} value={effort} onChange={setEffort} type="number" />
            </>
          )}
          {kind === "retraction" && <p className={parts["hint"]}>{t("ideas.retractHint")}</p>}
          <Field label={t("ideas.words")} value={text} onChange={setText} lines={3} />
          {say.error && <Problem error={say.error} />}
          <div className={parts["actions"]}>
            <Button look="main" onPress={() => say.mutate()} isDisabled={say.isPending}>
              {t("ideas.saySend")}
            </Button>
            <Button onPress={() => setOpen(false)}>{t("ideas.cancel")}</Button>
          </div>
        </Dialog>
      )}
    </>
  );
}
