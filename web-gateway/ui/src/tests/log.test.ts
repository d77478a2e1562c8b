import { describe, expect, it } from "vitest";

import { pieces, plain } from "../log/ansi";
import { type Item, LINE_MAX, Lines } from "../log/lines";

const bytes = (text: string, more: Partial<Extract<Item, { type: "bytes" }>> = {}): Item =>
  ({ type: "bytes", task: 0, attempt: 1, stream: "stdout", offset: 0, text, ...more }) as Item;

function linesOf(...items: Item[]): Lines {
  const lines = new Lines();
  for (const item of items) lines.take(item);
  return lines;
}

describe("lines", () => {
  it("are put together from pieces, each stream for itself", () => {
    const { lines } = linesOf(bytes("on"), bytes("err\n", { stream: "stderr" }), bytes("e\ntwo\nthr"), bytes("ee"));
    expect(lines.map((line) => [line.n, line.stream, line.text])).toEqual([
      [1, "stdout", "one"],
      [2, "stderr", "err"],
      [3, "stdout", "two"],
      [4, "stdout", "three"],
    ]);
  });

  it("are cut when they are too long, and the next one is whole", () => {
    const { lines } = linesOf(bytes("x".repeat(LINE_MAX - 1)), bytes("yz"), bytes("\nnext\n"));
    expect([lines[0]?.text.length, lines[0]?.isCut, lines[1]?.text]).toEqual([LINE_MAX, true, "next"]);
  });

  it("of bytes that are split inside a character are text all the same", () => {
    const whole = new TextEncoder().encode("مرحبا\n");
    const base64 = (part: Uint8Array) => btoa(String.fromCharCode(...part));
    const item = (part: Uint8Array): Item => ({ type: "bytes", task: 0, attempt: 1, stream: "stdout", offset: 0, base64: base64(part) }) as Item;
    expect(linesOf(item(whole.slice(0, 3)), item(whole.slice(3))).lines[0]?.text).toBe("مرحبا");
  });

  it("know the last one of stderr", () => {
    const lines = linesOf(bytes("a\n"), bytes("why\n\n", { stream: "stderr" }), bytes("b\n"));
    expect(lines.lastError()?.text).toBe("why");
    expect(linesOf(bytes("a\n")).lastError()).toBeUndefined();
  });

  it("of a very long log are dropped from the beginning and keep their numbers", () => {
    const lines = new Lines();
    for (let n = 0; n < 600; n += 1) lines.take(bytes(`${"x".repeat(60_000)}\n`));
    expect(lines.dropped).toBeGreaterThan(0);
    expect(lines.lines.at(-1)?.n).toBe(600);
  });
});

describe("colours", () => {
  it("are kept, and nothing else of a terminal", () => {
    expect(pieces("\x1b[1;31mred\x1b[0m \x1b[38;5;12mplain\x1b[2K\x1b]0;title\x07!")).toEqual([
      { text: "red", look: "red bold" },
      { text: " ", look: "" },
      { text: "plain", look: "" },
      { text: "!", look: "" },
    ]);
  });

  it("of a line that was written over are those of its last form", () => {
    expect(plain("10 %\r50 %\r100 %\r")).toBe("100 %");
  });
});
