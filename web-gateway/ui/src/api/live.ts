// What changes, as it changes: one event stream for the whole page. It tells the cache which answers are old, and the
// person how old what is shown is. A stream that breaks is opened again from the last event that was seen.

import type { InfiniteData, QueryClient } from "@tanstack/react-query";
import { useSyncExternalStore } from "react";

import type { Schemas } from "./client";

type JobEvent = { id: string; state: Schemas["JobState"]; owner?: string | null; tasks?: number; done?: number };

/** Since when nothing has been heard (Unix milliseconds); null: the stream lives. */
let silentSince: number | null = null;
const listeners = new Set<() => void>();

function setSilent(since: number | null): void {
  if ((silentSince === null) === (since === null)) return;
  silentSince = since;
  for (const listener of listeners) listener();
}

/** Since when what is shown may be old; null: it is up to date. */
export function useSilence(): number | null {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => silentSince,
  );
}

/** Shortest time between two readings of the same list. */
const LIST_PAUSE_MS = 500;

/** Time in which changes of rows are gathered. */
const PATCH_PAUSE_MS = 100;

type Rows = { rows: Schemas["JobRow"][]; next: string | null };

function patched(page: Rows, changes: Map<string, JobEvent>): Rows {
  if (!page.rows.some((row) => changes.has(row.id))) return page;
  const rows = page.rows.map((row) => {
    const change = changes.get(row.id);
    return change ? { ...row, state: change.state, owner: change.owner ?? row.owner ?? null, done: change.done ?? row.done } : row;
  });
  return { ...page, rows };
}

/** Follows the node until the returned function is called. */
export function follow(queries: QueryClient, signedOut: () => void): () => void {
  const waiting = new Map<string, ReturnType<typeof setTimeout>>();
  const last = new Map<string, number>();

  /** Says that an answer is old: at once if it was not said lately, else when the pause is over. */
  const old = (key: readonly string[]): void => {
    const name = key.join(" ");
    if (waiting.has(name)) return;
    const wait = Math.max(0, (last.get(name) ?? 0) + LIST_PAUSE_MS - Date.now());
    waiting.set(
      name,
      setTimeout(() => {
        waiting.delete(name);
        last.set(name, Date.now());
        void queries.invalidateQueries({ queryKey: key });
      }, wait),
    );
  };

  // Rows that are on the page change in place; many changes at once are one.
  const changed = new Map<string, JobEvent>();
  const patch = (): void => {
    const now = new Map(changed);
    changed.clear();
    queries.setQueriesData<InfiniteData<Rows>>({ queryKey: ["joblist"] }, (list) =>
      list && { ...list, pages: list.pages.map((page) => patched(page, now)) },
    );
  };

  const job = (event: JobEvent): void => {
    queries.setQueryData<Schemas["JobView"]>(["job", event.id], (shown) => shown && { ...shown, state: event.state });
    old(["job", event.id]);
    if (changed.size === 0) setTimeout(patch, PATCH_PAUSE_MS);
    changed.set(event.id, event);
    old(["jobs"]);
    old(["status"]);
    old(["waiting"]);
  };

  const source = new EventSource("/v1/events");
  source.onopen = () => {
    if (silentSince !== null) void queries.invalidateQueries();
    setSilent(null);
  };
  source.onerror = () => {
    setSilent(Date.now());
    // A stream that was refused is not opened again by the browser: either the session is over or the node is busy.
    if (source.readyState === EventSource.CLOSED) signedOut();
  };
  const on = (kind: string, act: (data: Record<string, unknown>) => void): void => {
    source.addEventListener(kind, (event) => act(JSON.parse((event as MessageEvent<string>).data) as Record<string, unknown>));
  };
  on("job", (data) => job(data as JobEvent));
  on("peer", () => {
    old(["peers"]);
    old(["status"]);
  });
  on("roster", () => {
    for (const key of ["members", "invites", "peers", "status", "policies"]) old([key]);
  });
  // Only what is on the page is read again, so that it need not be told which idea or text it was.
  on("idea", () => {
    old(["ideas"]);
    old(["idea"]);
  });
  on("doc", () => {
    old(["docs"]);
    old(["note"]);
  });
  source.addEventListener("reset", () => void queries.invalidateQueries());
  return () => {
    source.close();
    for (const timer of waiting.values()) clearTimeout(timer);
  };
}
