// Reads a job's log from the node, line of JSON by line of JSON, and goes on where the connection broke.

import { ask, withQuery } from "../api/client";
import type { Item } from "./lines";

const AGAIN_MS = 1000;

async function* jsonLines(response: Response): AsyncGenerator<Item> {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  if (!reader) return;
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line !== "") yield JSON.parse(line) as Item;
  }
}

export type Part = { task?: number | undefined; attempt?: number | undefined };

/**
 * Gives batches of items until the job has ended. After a break everything is read again: `onStart` says that a new
 * reading begins.
 */
export async function readLog(
  job: string,
  part: Part,
  signal: AbortSignal,
  onStart: () => void,
  onItems: (items: Item[]) => void,
  onError: (error: unknown) => void,
): Promise<void> {
  while (!signal.aborted) {
    try {
      const response = await ask(withQuery(`/v1/jobs/${job}/logs`, { follow: true, task: part.task, attempt: part.attempt }), { signal });
      onStart();
      let batch: Item[] = [];
      let isPlanned = false;
      let hasEnded = false;
      const flush = () => {
        isPlanned = false;
        if (signal.aborted) return;
        const items = batch;
        batch = [];
        onItems(items);
      };
      for await (const item of jsonLines(response)) {
        if (item.type === "beat") continue;
        batch.push(item);
        hasEnded ||= item.type === "end" || item.type === "error";
        if (!isPlanned) {
          isPlanned = true;
          setTimeout(flush, batch.length < 2 ? 0 : 30);
        }
      }
      flush();
      if (hasEnded) return;
    } catch (error) {
      if (signal.aborted) return;
      onError(error);
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}
