import { parse, TYPE, type MessageFormatElement } from "@formatjs/icu-messageformat-parser";
import { describe, expect, it } from "vitest";

import arabic from "../i18n/ar.json";
import english from "../i18n/en.json";

const SIX = ["zero", "one", "two", "few", "many", "other"];

/** Names of all values of a message, and the forms of its plurals. */
function parts(elements: MessageFormatElement[]): { values: Set<string>; plurals: string[][] } {
  const values = new Set<string>();
  const plurals: string[][] = [];
  for (const element of elements) {
    if (element.type === TYPE.argument || element.type === TYPE.number) values.add(element.value);
    if (element.type === TYPE.plural) {
      values.add(element.value);
      plurals.push(Object.keys(element.options));
      for (const option of Object.values(element.options)) {
        const inner = parts(option.value);
        for (const value of inner.values) values.add(value);
      }
    }
  }
  return { values, plurals };
}

describe("messages", () => {
  it("are the same in both languages", () => {
    expect(Object.keys(arabic)).toEqual(Object.keys(english));
  });

  it("name only values that the English ones have", () => {
    for (const [id, text] of Object.entries(english)) {
      const other = parts(parse((arabic as Record<string, string>)[id] ?? ""));
      const own = parts(parse(text));
      // A count of one or two is a word of its own in Arabic.
      for (const value of other.values) expect([...own.values], id).toContain(value);
      if (other.plurals.length === 0) expect([...other.values].sort(), id).toEqual([...own.values].sort());
    }
  });

  it("have all six plural forms in Arabic", () => {
    let found = 0;
    for (const [id, text] of Object.entries(arabic)) {
      for (const forms of parts(parse(text)).plurals) {
        found += 1;
        expect(forms, id).toEqual(expect.arrayContaining(SIX));
      }
    }
    expect(found).toBeGreaterThan(4);
  });

  it("are not left in English", () => {
    for (const [id, text] of Object.entries(arabic))
      if (/[A-Za-z]/.test(text.replace(/\{[^}]*\}|V6\S*|v6 \w+( \w+)?|LINE|out\/\*\*|V6_TASK_ID|QR|zero|one|two|few|many|other|plural/g, "")))
        expect.soft(text, id).toBe("");
  });
});
