// The one way to the node: same origin, the session's cookie, errors with the code and the sentence that the node gave.

import type { components } from "./generated";

export type Schemas = components["schemas"];

/** What the node refused, in its words. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** No answer at all: the node is gone or the network is. */
export class Unreachable extends Error {}

async function refusal(response: Response): Promise<Refused> {
  const text = await response.text();
  try {
    const body = JSON.parse(text) as { error?: { code: string; message: string } };
    if (body.error) return new Refused(response.status, body.error.code, body.error.message);
  } catch {
    // Not one of the node's own answers: the text says what it is.
  }
  return new Refused(response.status, "unknown", text.slice(0, 400) || response.statusText);
}

/** Asks the node; a refusal and a silence are thrown. */
export async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...init });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new Unreachable(error instanceof Error ? error.message : String(error));
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

export async function read<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await ask(path, signal ? { signal } : {});
  return (await response.json()) as T;
}

/** A page of a list, and where the next one begins. */
export async function readPage<T>(path: string, signal?: AbortSignal): Promise<{ rows: T[]; next: string | null }> {
  const response = await ask(path, signal ? { signal } : {});
  return { rows: (await response.json()) as T[], next: response.headers.get("v6-next") };
}

export async function send<T>(method: "POST" | "PUT" | "DELETE", path: string, body?: unknown): Promise<T> {
  const init: RequestInit = { method };
  if (body !== undefined) {
    init.headers = { "content-type": "application/json" };
    init.body = JSON.stringify(body);
  }
  const response = await ask(path, init);
  const text = await response.text();
  return (text === "" ? undefined : JSON.parse(text)) as T;
}

/** A path with its query; empty values are left out. */
export function withQuery(path: string, query: Record<string, string | number | boolean | undefined>): string {
  const pairs = Object.entries(query).flatMap(([name, value]) =>
    value === undefined || value === "" || value === false ? [] : [[name, String(value)] as [string, string]],
  );
  return pairs.length === 0 ? path : `${path}?${new URLSearchParams(pairs).toString()}`;
}

export const artifactUrl = (job: string, path: string, task: number, attempt: number): string =>
  withQuery(`/v1/jobs/${job}/artifacts/${path.split("/").map(encodeURIComponent).join("/")}`, {
    task: String(task),
    attempt: String(attempt),
  });
