// Colours of a terminal, and nothing else of it: cursor movements, titles and links are left out.

export type Piece = { text: string; look: string };

const COLOURS = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

// CSI … final byte, OSC … BEL or ST, and two-byte escapes.
// eslint-disable-next-line no-control-regex
const ESCAPES = /\x1b(?:\[([0-9;:?]*)[ -/]*([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])/g;

type Pen = { colour: string; isBold: boolean; isDim: boolean; isUnderlined: boolean };
const BARE: Pen = { colour: "", isBold: false, isDim: false, isUnderlined: false };

function drawn(pen: Pen, codes: string): Pen {
  const numbers = codes.split(/[;:]/).map(Number);
  let next = { ...pen };
  for (let at = 0; at < numbers.length; at += 1) {
    const code = numbers[at] ?? 0;
    if (code === 0) next = { ...BARE };
    else if (code === 1) next.isBold = true;
    else if (code === 2) next.isDim = true;
    else if (code === 4) next.isUnderlined = true;
    else if (code === 22) next.isBold = next.isDim = false;
    else if (code === 24) next.isUnderlined = false;
    else if (code >= 30 && code <= 37) next.colour = COLOURS[code - 30] ?? "";
    else if (code >= 90 && code <= 97) next.colour = COLOURS[code - 90] ?? "";
    else if (code === 39) next.colour = "";
    else if (code === 38 || code === 48) at += numbers[at + 1] === 5 ? 2 : 4;
  }
  return next;
}

const lookOf = (pen: Pen): string =>
  [pen.colour, pen.isBold && "bold", pen.isDim && "dim", pen.isUnderlined && "underlined"].filter(Boolean).join(" ");

/** A line as pieces of one look each. A line that was written over shows its last form. */
export function pieces(line: string): Piece[] {
  const text = line.replace(/\r+$/, "");
  const shown = text.slice(text.lastIndexOf("\r") + 1);
  if (!shown.includes("\x1b")) return [{ text: shown, look: "" }];
  const found: Piece[] = [];
  let pen = BARE;
  let from = 0;
  for (const match of shown.matchAll(ESCAPES)) {
    if (match.index > from) found.push({ text: shown.slice(from, match.index), look: lookOf(pen) });
    if (match[2] === "m") pen = drawn(pen, match[1] ?? "");
    from = match.index + match[0].length;
  }
  if (from < shown.length) found.push({ text: shown.slice(from), look: lookOf(pen) });
  return found;
}

/** The text without any escape. */
export const plain = (line: string): string => pieces(line).map((piece) => piece.text).join("");
