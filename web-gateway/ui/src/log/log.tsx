// The log of a job: it opens at its end and follows; that of a failed job opens at the line that says why.

import { useEffect, useMemo, useReducer, useRef, useState } from "react";

import { withQuery } from "../api/client";
import { useFormat } from "../format";
import { useT } from "../i18n";
import { useKeys } from "../keys";
import { Button, classes, css as parts, Problem } from "../ui";
import { stateWord } from "../ui/state";
import { pieces, plain } from "./ansi";
import { type Item, type Line, Lines } from "./lines";
import css from "./log.module.css";
import { readLog } from "./stream";

/** Characters, and lines, that are in the page at a time: at most 1 MiB, whatever the script. */
const SHOWN_CHARACTERS = 340_000;
const SHOWN_LINES = 1_000;
/** So near to its end a log counts as being at its end. */
const END_PX = 24;

type Words = ReturnType<typeof useT>;

function noteOf(t: Words, name: (node: string) => string, isArray: boolean): (item: Item) => string | null {
  return (item) => {
    switch (item.type) {
      case "waiting":
        return item.text;
      case "attempt": {
        const where = t("log.attempt", { attempt: item.attempt, node: name(item.node), state: t(stateWord(item.state)) });
        const task = isArray ? t("log.task", { task: item.task }) : "";
        const exit = item.exit === null || item.exit === undefined || item.exit === 0 ? "" : t("log.exit", { exit: item.exit });
        return [task, where, exit].filter(Boolean).join(" · ");
      }
      case "lost":
        return t("log.lost", { attempt: item.attempt, node: name(item.node) });
      case "end":
        return [t("log.end", { state: t(stateWord(item.state)) }), item.reason].filter(Boolean).join(" · ");
      case "error":
        return item.message;
      default:
        return null;
    }
  };
}

/** Reads the log; counts up with every batch. */
function useLines(job: string, task: number | undefined) {
  const lines = useRef(new Lines());
  const [version, changed] = useReducer((count: number) => count + 1, 0);
  const [error, setError] = useState<unknown>(null);
  useEffect(() => {
    const stop = new AbortController();
    lines.current = new Lines();
    void readLog(
      job,
      { task },
      stop.signal,
      () => {
        lines.current = new Lines();
        setError(null);
      },
      (items) => {
        for (const item of items) lines.current.take(item);
        changed();
      },
      setError,
    );
    return () => stop.abort();
  }, [job, task]);
  return { lines: lines.current, version, error };
}

export function Log({
  job,
  task,
  line,
  onLine,
  nodeName,
  isArray,
}: {
  job: string;
  task?: number | undefined;
  line?: number | undefined;
  onLine: (line: number) => void;
  nodeName: (node: string) => string;
  isArray: boolean;
}) {
  const t = useT();
  const format = useFormat();
  const { lines, version, error } = useLines(job, task);
  const note = noteOf(t, nodeName, isArray);
  const [word, setWord] = useState("");
  const [streams, setStreams] = useState({ stdout: true, stderr: true });
  const [isFollowing, setFollowing] = useState(line === undefined);
  /** Index, among the lines that pass, of the first one that is in the page; null: the last ones are. */
  const [from, setFrom] = useState<number | null>(null);
  const box = useRef<HTMLDivElement>(null);
  const bar = useRef<HTMLDivElement>(null);
  useKeys({ "/": () => bar.current?.querySelector("input")?.focus() });

  const failed = lines.end?.state === "failed" ? lines.lastError()?.n : undefined;
  const passing = useMemo(() => {
    const wanted = word.toLowerCase();
    return lines.lines.filter(
      (one) => (one.stream === "note" || streams[one.stream]) && (wanted === "" || plain(one.text).toLowerCase().includes(wanted)),
    );
    // The lines grow in place: the version says that they did.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [lines, version, word, streams]);
  const [start, end] = window(passing, from);
  const shown = passing.slice(start, end);

  // Before the jump below: where both happen at once, the line that is looked for wins.
  useEffect(() => {
    if (isFollowing && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [isFollowing, version, shown.length]);

  const marked = line ?? failed;
  const jumped = useRef<number | undefined>(undefined);
  useEffect(() => {
    if (marked === undefined || jumped.current === marked) return;
    const at = passing.findIndex((one) => one.n === marked);
    if (at < 0) return;
    if (at < start || at >= end) {
      setFrom(Math.max(0, at - SHOWN_LINES / 4));
      return;
    }
    jumped.current = marked;
    setFollowing(false);
    box.current?.querySelector(`[data-at="${marked}"]`)?.scrollIntoView({ block: "center" });
  }, [marked, passing, start, end]);

  const scrolled = () => {
    const element = box.current;
    if (!element) return;
    const isAtEnd = element.scrollHeight - element.scrollTop - element.clientHeight < END_PX;
    if (isAtEnd !== isFollowing && (isAtEnd ? end === passing.length && !lines.end : true)) setFollowing(isAtEnd);
  };
  const follow = () => {
    setFrom(null);
    setFollowing(true);
  };

  return (
    <div className={parts["sheet"]}>
      <div className={css["bar"]} ref={bar}>
        <label className={css["find"]}>
          {t("log.filter")}
          <input type="search" value={word} onChange={(event) => setWord(event.target.value)} dir="auto" />
        </label>
        {(["stdout", "stderr"] as const).map((name) => (
          <label key={name}>
            <input type="checkbox" checked={streams[name]} onChange={(event) => setStreams({ ...streams, [name]: event.target.checked })} />
            <code>{name}</code>
          </label>
        ))}
        <span className={classes(parts["actions"], css["end"])}>
          <Button look="quiet" aria-pressed={isFollowing} onPress={() => (isFollowing ? setFollowing(false) : follow())}>
            {isFollowing ? t("log.pause") : t("log.follow")}
          </Button>
          <a href={withQuery(`/v1/jobs/${job}/logs`, { task, text: true })} download={`${job.slice(0, 8)}.log`}>
            {t("log.download")}
          </a>
        </span>
      </div>
      {error !== null && <Problem error={error} />}
      {(start > 0 || lines.dropped > 0) && (
        <div className={css["bar"]}>
          {start > 0 ? (
            <Button look="quiet" onPress={() => { setFollowing(false); setFrom(Math.max(0, start - SHOWN_LINES / 2)); }}>
              {t("log.earlier", { count: format.number(start) })}
            </Button>
          ) : (
            <span>{t("log.dropped", { count: format.number(lines.dropped) })}</span>
          )}
        </div>
      )}
      <div className={css["log"]} role="log" aria-label={t("log.name")} tabIndex={0} ref={box} onScroll={scrolled}>
        {shown.map((one) => (
          <LogLine key={one.n} line={one} length={one.text.length} isWhy={one.n === failed} isLinked={one.n === line} job={job} onLine={onLine} note={note} />
        ))}
      </div>
      {end < passing.length && (
        <div className={css["bar"]}>
          <Button look="quiet" onPress={() => setFrom(start + SHOWN_LINES / 2)}>
            {t("log.later", { count: format.number(passing.length - end) })}
          </Button>
        </div>
      )}
    </div>
  );
}

/** Which lines are in the page: as many as fit the bounds, from `from` on or up to the end. */
function window(lines: Line[], from: number | null): [number, number] {
  let characters = 0;
  if (from === null) {
    let start = lines.length;
    while (start > 0 && lines.length - start < SHOWN_LINES) {
      characters += lines[start - 1]?.text.length ?? 0;
      if (characters > SHOWN_CHARACTERS) break;
      start -= 1;
    }
    return [start, lines.length];
  }
  const start = Math.min(from, Math.max(0, lines.length - 1));
  let end = start;
  while (end < lines.length && end - start < SHOWN_LINES) {
    characters += lines[end]?.text.length ?? 0;
    if (characters > SHOWN_CHARACTERS && end > start) break;
    end += 1;
  }
  return [start, end];
}

function LogLine({
  line,
  isWhy,
  isLinked,
  job,
  onLine,
  note,
}: {
  line: Line;
  /** Only so that a line that grew is drawn again. */
  length: number;
  isWhy: boolean;
  isLinked: boolean;
  job: string;
  onLine: (line: number) => void;
  note: (item: Item) => string | null;
}) {
  const t = useT();
  return (
    <div
      className={css["line"]}
      data-at={line.n}
      data-stream={line.stream}
      data-linked={isLinked || undefined}
      {...(isWhy ? { "aria-current": "true" as const } : {})}
    >
      <a
        href={`?line=${line.n}`}
        data-n={line.n}
        tabIndex={-1}
        aria-label={t("log.line", { line: line.n })}
        onClick={(event) => {
          event.preventDefault();
          onLine(line.n);
        }}
      />
      <span>
        {line.item && note(line.item)}
        {pieces(line.text).map((piece, index) =>
          piece.look === "" ? piece.text : (
            <span key={index} className={piece.look.split(" ").map((name) => css[name]).join(" ")}>
              {piece.text}
            </span>
          ),
        )}
        {line.isCut && (
          <>
            {" … "}
            <a href={withQuery(`/v1/jobs/${job}/logs`, { task: line.task, attempt: line.attempt, text: true })} download>
              {t("log.whole")}
            </a>
          </>
        )}
      </span>
    </div>
  );
}
