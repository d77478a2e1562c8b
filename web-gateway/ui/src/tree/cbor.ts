// Canonical CBOR (RFC 8949 §4.2) of what a manifest holds: numbers from 0, bytes, truth values, lists.

export type Value = number | boolean | Uint8Array | Value[];

function head(major: number, value: number): number[] {
  if (value < 24) return [(major << 5) | value];
  if (value < 0x100) return [(major << 5) | 24, value];
  if (value < 0x1_0000) return [(major << 5) | 25, value >> 8, value & 255];
  const low = value % 0x1_0000_0000;
  const bytes = (word: number) => [24, 16, 8, 0].map((shift) => (word >>> shift) & 255);
  if (value < 0x1_0000_0000) return [(major << 5) | 26, ...bytes(low)];
  return [(major << 5) | 27, ...bytes(Math.floor(value / 0x1_0000_0000)), ...bytes(low)];
}

function collect(value: Value, into: Uint8Array[]): void {
  if (typeof value === "boolean") into.push(Uint8Array.of(value ? 0xf5 : 0xf4));
  else if (typeof value === "number") into.push(Uint8Array.from(head(0, value)));
  else if (value instanceof Uint8Array) into.push(Uint8Array.from(head(2, value.length)), value);
  else {
    into.push(Uint8Array.from(head(4, value.length)));
    for (const item of value) collect(item, into);
  }
}

export function encode(value: Value): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  collect(value, parts);
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
