// Finds anything: an id, a name, a word.

import { useQuery } from "@tanstack/react-query";
import { useRouter } from "@tanstack/react-router";
import { useState } from "react";

import { read, type Schemas, withQuery } from "./api/client";
import { peersQuery, statusQuery } from "./api/queries";
import { commandLine, middle, short } from "./format";
import { type MessageId, useT } from "./i18n";
import css from "./palette.module.css";
import { Dialog, Id, Name, css as parts } from "./ui";

type Hit = { key: string; kind: MessageId; title: string; id: string; to: string };

const FOUND_MAX = 6;

function pagesFor(text: string, t: (id: MessageId) => string): Hit[] {
  const pages: [MessageId, string][] = [
    ["nav.home", "/"],
    ["nav.jobs", "/jobs"],
    ["nav.new", "/jobs/new"],
    ["nav.ideas", "/ideas"],
    ["nav.nodes", "/nodes"],
    ["nav.mesh", "/mesh"],
    ["nav.storage", "/storage"],
  ];
  return pages
    .filter(([word]) => t(word).toLowerCase().includes(text.toLowerCase()))
    .map(([word, to]) => ({ key: to, kind: "find.page", title: t(word), id: "", to }));
}

export default function Palette({ onClose }: { onClose: () => void }) {
  const t = useT();
  const router = useRouter();
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const word = text.trim();
  const status = useQuery(statusQuery).data;
  const peers = useQuery(peersQuery).data ?? [];
  const jobs = useQuery({
    queryKey: ["jobs", "found", word],
    enabled: word !== "",
    queryFn: ({ signal }) => read<Schemas["JobRow"][]>(withQuery("/v1/jobs", { q: word, limit: FOUND_MAX }), signal),
  }).data;
  const ideas = useQuery({
    queryKey: ["ideas", "found", word],
    enabled: word !== "",
    queryFn: ({ signal }) => findIdeas(word, signal),
  }).data;

  const machines = status ? [{ node: status.node, name: status.name }, ...peers] : peers;
  const hits: Hit[] = [
    ...(jobs ?? []).map((job): Hit => ({
      key: job.id,
      kind: "find.job",
      title: job.name ?? commandLine(job.command ?? []),
      id: short(job.id),
      to: `/jobs/${job.id}`,
    })),
    ...(ideas ?? []).map((idea): Hit => ({ key: idea.id, kind: "find.idea", title: idea.title, id: short(idea.id), to: `/ideas/${idea.id}` })),
    ...machines
      .filter((one) => word !== "" && (one.name.toLowerCase().includes(word.toLowerCase()) || one.node.startsWith(word.toLowerCase())))
      .slice(0, FOUND_MAX)
      .map((one): Hit => ({ key: one.node, kind: "find.node", title: one.name, id: short(one.node), to: `/nodes/${one.node}` })),
    ...pagesFor(word, t),
  ];
  const chosen = Math.min(at, hits.length - 1);
  const go = (hit: Hit | undefined) => {
    if (!hit) return;
    onClose();
    void router.navigate({ to: hit.to });
  };
  return (
    <Dialog title={t("find.title")} onClose={onClose}>
      <input
        className={parts["input"]}
        type="text"
        role="combobox"
        aria-expanded="true"
        aria-controls="found"
        aria-activedescendant={hits[chosen] ? `hit-${chosen}` : undefined}
        aria-label={t("nav.find")}
        dir="auto"
        autoFocus
        value={text}
        onChange={(event) => {
          setText(event.target.value);
          setAt(0);
        }}
        onKeyDown={(event) => {
          if (event.key === "ArrowDown") setAt(Math.min(hits.length - 1, chosen + 1));
          else if (event.key === "ArrowUp") setAt(Math.max(0, chosen - 1));
          else if (event.key === "Enter") go(hits[chosen]);
          else return;
          event.preventDefault();
        }}
      />
      <div id="found" role="listbox" aria-label={t("find.title")} className={css["results"]}>
        {hits.map((hit, index) => (
          <div
            key={hit.key}
            id={`hit-${index}`}
            role="option"
            aria-selected={index === chosen}
            className={css["hit"]}
            onPointerMove={() => setAt(index)}
            onClick={() => go(hit)}
          >
            <small>{t(hit.kind)}</small>
            <span>
              <Name>{middle(hit.title, 80)}</Name>
            </span>
            <Id>{hit.id}</Id>
          </div>
        ))}
      </div>
      {hits.length === 0 && <p className={parts["hint"]}>{t("find.none")}</p>}
    </Dialog>
  );
}

/** An id is looked up, words are searched for. */
async function findIdeas(word: string, signal: AbortSignal): Promise<Schemas["IdeaRow"][]> {
  if (/^[0-9a-f]{6,64}$/i.test(word)) {
    const idea = await read<Schemas["IdeaView"]>(`/v1/ideas/${word.toLowerCase()}`, signal).catch(() => null);
    return idea ? [idea] : [];
  }
  return read<Schemas["IdeaFound"][]>(withQuery("/v1/ideas/search", { q: word, limit: FOUND_MAX }), signal).catch(() => []);
}
