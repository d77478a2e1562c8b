// The inbox of ideas: added here, found by words, on a board by how they stand.

import { useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { useRef, useState } from "react";

import { type Schemas, send } from "../api/client";
import { ideasQuery } from "../api/queries";
import { useFormat, useNow } from "../format";
import { type MessageId, useT } from "../i18n";
import { useKeys, useRowKeys } from "../keys";
import { Page } from "../shell";
import { Button, classes, css as parts, Dialog, Empty, Field, here, Loading, Name, Problem, Section } from "../ui";
import { SearchBox } from "../ui/search-box";
import { IDEA_STATES, IdeaPill } from "../ui/state";
import { Row } from "./home";
import css from "./ideas.module.css";
import list from "./jobs.module.css";
import { words } from "./new-job";

const route = getRouteApi("/ideas");
type Found = Schemas["IdeaRow"] & Partial<Schemas["IdeaFound"]>;

export function Ideas() {
  const t = useT();
  const search = route.useSearch();
  const [isAdding, setAdding] = useState(false);
  const ideas = useInfiniteQuery(ideasQuery(search));
  const all: Found[] = ideas.data?.pages.flatMap((page) => page.rows) ?? [];
  // A search comes best first, a list oldest first: people want to see what came last.
  const rows = (search.q ? all : [...all].reverse()).filter(
    (row) => (search.q !== undefined || !search.status || row.status === search.status) && (search.q !== undefined || !search.kind || row.kind === search.kind),
  );
  useKeys({ n: () => setAdding(true) });
  return (
    <Page
      title={t("nav.ideas")}
      isBusy={ideas.isPending}
      actions={
        <Button onPress={() => setAdding(true)}>
          <span aria-hidden="true">+</span>
          {t("ideas.add")}
        </Button>
      }
    >
      <Filters />
      {ideas.error && <Problem error={ideas.error} again={() => void ideas.refetch()} />}
      {ideas.isPending && <Loading />}
      {ideas.data && rows.length === 0 && (
        <Empty title={Object.keys(search).length > 0 ? t("ideas.noneFit") : t("ideas.empty")}>
          <Button onPress={() => setAdding(true)}>{t("ideas.add")}</Button>
        </Empty>
      )}
      {rows.length > 0 && (search.view === "board" ? <Board rows={rows} /> : <List rows={rows} />)}
      {ideas.hasNextPage && (
        <div>
          <Button onPress={() => void ideas.fetchNextPage()} isDisabled={ideas.isFetchingNextPage}>
            {t("ideas.more")}
          </Button>
        </div>
      )}
      {isAdding && <Add onClose={() => setAdding(false)} />}
    </Page>
  );
}

function Filters() {
  const t = useT();
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const isBoard = search.view === "board";
  const change = (q: string) => void navigate({ search: ({ q: _, ...rest }) => (q ? { ...rest, q } : rest), replace: true });
  return (
    <SearchBox label={t("ideas.search")} words={search.q ?? ""} onWords={change}>
      <nav className={list["states"]} aria-label={t("ideas.states")}>
        <Link to="/ideas" search={({ status: _, ...rest }) => rest} {...here(!search.status)}>
          {t("jobs.all")}
        </Link>
        {IDEA_STATES.map((status) => (
          <Link key={status} to="/ideas" search={(rest) => ({ ...rest, status })} {...here(search.status === status)}>
            {t(`idea.${status}`)}
          </Link>
        ))}
        <Link to="/ideas" search={({ view: _, ...rest }) => (isBoard ? rest : { ...rest, view: "board" })} {...here(isBoard)}>
          {t("ideas.board")}
        </Link>
      </nav>
    </SearchBox>
  );
}

function List({ rows }: { rows: Found[] }) {
  const format = useFormat();
  const now = useNow();
  const t = useT();
  const box = useRef<HTMLDivElement>(null);
  useRowKeys(box);
  return (
    <div ref={box}>
      <ul className={parts["sheet"]}>
        {rows.map((row) => (
          <Row
            key={row.id}
            mark={
              <span className={classes(parts["mark"], parts["run"])} aria-hidden="true">
                ✦
              </span>
            }
            title={
              <Link to="/ideas/$id" params={{ id: row.id }} data-row="" style={{ fontWeight: 500, color: "var(--ink)" }}>
                <Name>{row.title}</Name>
              </Link>
            }
            detail={
              <>
                {row.snippet && <Snippet text={row.snippet} marks={(row.highlights ?? []) as [number, number][]} />}
                {kindWord(row.kind, t)} · <time dateTime={row.created}>{format.ago(row.created, now)}</time>
                {row.entries > 0 && ` · ${t("ideas.entries", { count: row.entries })}`}
              </>
            }
            side={<IdeaPill status={row.status} />}
          />
        ))}
      </ul>
    </div>
  );
}

const KINDS: Record<string, MessageId> = {
  idea: "kind.idea",
  observation: "kind.observation",
  issue: "kind.issue",
  argument: "kind.argument",
  evaluation: "kind.evaluation",
  decision: "kind.decision",
  link: "kind.link",
  transfer: "kind.transfer",
  retraction: "kind.retraction",
  outcome: "kind.outcome",
};

export const kindWord = (kind: string, t: (id: MessageId) => string): string => {
  const word = KINDS[kind];
  return word ? t(word) : kind;
};

function Snippet({ text, marks }: { text: string; marks: [number, number][] }) {
  // Places are counted in characters, as people do, not in units of UTF-16.
  const characters = [...text];
  let at = 0;
  const pieces = marks.flatMap(([from, to]) => {
    const before = characters.slice(at, from).join("");
    at = to;
    return [before, <mark key={from}>{characters.slice(from, to).join("")}</mark>];
  });
  return (
    <p className={css["snippet"]} dir="auto">
      {pieces}
      {characters.slice(at).join("")}
    </p>
  );
}

function Board({ rows }: { rows: Found[] }) {
  const t = useT();
  return (
    <div className={css["board"]} tabIndex={0} role="group" aria-label={t("ideas.board")}>
      {IDEA_STATES.filter((status) => status !== "retracted").map((status) => {
        const here = rows.filter((row) => row.status === status);
        return (
          <Section key={status} title={t(`idea.${status}`)} count={here.length}>
            {here.length > 0 && (
              <div className={parts["sheet"]}>
                {here.map((row) => (
                  <Link key={row.id} to="/ideas/$id" params={{ id: row.id }} className={css["card"]}>
                    <Name>{row.title}</Name>
                  </Link>
                ))}
              </div>
            )}
          </Section>
        );
      })}
    </div>
  );
}

function Add({ onClose }: { onClose: () => void }) {
  const t = useT();
  const format = useFormat();
  const queries = useQueryClient();
  const [title, setTitle] = useState("");
  const [body, setBody] = useState("");
  const [tags, setTags] = useState("");
  const [wasTried, setTried] = useState(false);
  const add = useMutation({
    mutationFn: () => send<Schemas["IdeaAdded"]>("POST", "/v1/ideas", { title: title.trim(), body, tags: words(tags) }),
    onSuccess: () => queries.invalidateQueries({ queryKey: ["ideas"] }),
  });
  const submit = () => {
    setTried(true);
    if (title.trim() !== "") add.mutate();
  };
  if (add.data)
    return (
      <Dialog title={t("ideas.added")} onClose={onClose}>
        <p>
          <Link to="/ideas/$id" params={{ id: add.data.id }}>
            <Name>{title}</Name>
          </Link>
        </p>
        <p className={parts["hint"]}>{t("ideas.durable", { count: add.data.durable_on })}</p>
        {add.data.similar.length > 0 && (
          <Section title={t("ideas.similar")} count={add.data.similar.length}>
            <ul className={parts["sheet"]}>
              {add.data.similar.map((one) => (
                <li key={one.id} className={css["card"]}>
                  <Link to="/ideas/$id" params={{ id: one.id }}>
                    <Name>{one.title || one.id.slice(0, 8)}</Name>
                  </Link>{" "}
                  · {format.number(Math.round(one.score * 100) / 100)}
                </li>
              ))}
            </ul>
          </Section>
        )}
        <div className={parts["actions"]}>
          <Button onPress={onClose} autoFocus>
            {t("files.close")}
          </Button>
        </div>
      </Dialog>
    );
  return (
    <Dialog title={t("ideas.add")} onClose={onClose}>
      <Field label={t("ideas.title")} value={title} onChange={setTitle} error={wasTried && title.trim() === "" ? t("ideas.titleMissing") : undefined} autoFocus required />
      <Field label={t("ideas.body")} value={body} onChange={setBody} lines={5} />
      <Field label={t("ideas.tags")} value={tags} onChange={setTags} />
      {add.error && <Problem error={add.error} />}
      <div className={parts["actions"]}>
        <Button look="main" onPress={submit} isDisabled={add.isPending}>
          {t("ideas.add")}
        </Button>
        <Button onPress={onClose}>{t("ideas.cancel")}</Button>
      </div>
    </Dialog>
  );
}
