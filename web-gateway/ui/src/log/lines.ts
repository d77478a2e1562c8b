// A job's output as lines, put together from the pieces that come: each stream of each attempt has its own unfinished line.

import type { Schemas } from "../api/client";

export type Item = Schemas["LogLine"];
export type Line = {
  /** From 1, over the whole log as it is shown. */
  n: number;
  task: number;
  attempt: number;
  stream: "stdout" | "stderr" | "note";
  text: string;
  isCut: boolean;
  /** Of a note: what happened. Its words are made when it is drawn, for names may come to be known later. */
  item?: Item;
};

/** A longer line is cut on the page. */
export const LINE_MAX = 64 * 1024;
/** Characters that are kept; of a longer log the beginning is only in the download. */
const KEPT_MAX = 24 * 1024 * 1024;

export class Lines {
  readonly lines: Line[] = [];
  /** Lines that were dropped from the beginning. */
  dropped = 0;
  /** How the job ended, when it has. */
  end: Extract<Item, { type: "end" }> | null = null;
  private readonly open = new Map<string, Line>();
  private readonly decoders = new Map<string, TextDecoder>();
  private kept = 0;

  take(item: Item): void {
    if (item.type === "bytes") {
      this.bytes(item);
      return;
    }
    if (item.type === "end") this.end = item;
    if (item.type === "beat") return;
    const { task, attempt } = "task" in item ? item : { task: 0, attempt: 0 };
    this.push({ n: 0, task, attempt, stream: "note", text: "", isCut: false, item });
  }

  private bytes(item: Extract<Item, { type: "bytes" }>): void {
    const key = `${item.task} ${item.attempt} ${item.stream}`;
    const text = item.text ?? this.decoded(key, item.base64 ?? "");
    const parts = text.split("\n");
    for (const [at, part] of parts.entries()) {
      const isLast = at === parts.length - 1;
      let line = this.open.get(key);
      if (!line) {
        if (isLast && part === "") continue;
        line = { n: 0, task: item.task, attempt: item.attempt, stream: item.stream, text: "", isCut: false };
        this.push(line);
        this.open.set(key, line);
      }
      const room = LINE_MAX - line.text.length;
      const fits = part.slice(0, Math.max(0, room));
      line.text += fits;
      this.kept += fits.length;
      if (part.length > room) line.isCut = true;
      if (!isLast) this.open.delete(key);
    }
    this.trim();
  }

  private decoded(key: string, base64: string): string {
    const decoder = this.decoders.get(key) ?? new TextDecoder();
    this.decoders.set(key, decoder);
    return decoder.decode(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)), { stream: true });
  }

  private push(line: Line): void {
    line.n = this.dropped + this.lines.length + 1;
    this.lines.push(line);
  }

  private trim(): void {
    if (this.kept <= KEPT_MAX) return;
    let gone = 0;
    while (this.kept > KEPT_MAX * 0.8 && gone < this.lines.length - 1) {
      this.kept -= this.lines[gone]?.text.length ?? 0;
      gone += 1;
    }
    this.lines.splice(0, gone);
    this.dropped += gone;
  }

  /** The line that says why: the last one of stderr, of the attempt that ended last. */
  lastError(): Line | undefined {
    return this.lines.findLast((line) => line.stream === "stderr" && line.text.trim() !== "");
  }
}
