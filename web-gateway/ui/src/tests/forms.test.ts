import { describe, expect, it } from "vitest";

import { commandLine, middle, quoted } from "../format";
import { cells } from "../pages/files";
import { asCommand, EMPTY, requestOf, words } from "../pages/new-job";
import { encode } from "../tree/cbor";
import { manifest, nameOf } from "../tree/upload";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

const FORM = {
  ...EMPTY,
  line: "cargo test | tee 'out'",
  labels: " gpu, builder ،عربي,",
  artifacts: "out/**",
  retries: "2",
  timeout: "1.5",
};

describe("a new job", () => {
  it("is one shell line, and says only what was said", () => {
    expect(requestOf(FORM)).toEqual({
      command: ["sh", "-c", "cargo test | tee 'out'"],
      labels: ["gpu", "builder", "عربي"],
      outputs: ["out/**"],
      retries: 2,
      timeout_ms: 90_000,
    });
    expect(requestOf({ ...FORM, os: "windows", line: "dir" }).command).toEqual(["cmd", "/d", "/s", "/c", "dir"]);
  });

  it("is the same from a terminal", () => {
    expect(asCommand(FORM, true)).toBe(
      `v6 run --input . --output 'out/**' --label gpu --label builder --label 'عربي' --retries 2 --timeout 1.5m -- sh -c 'cargo test | tee '\\''out'\\'''`,
    );
  });

  it("reads words between commas of both scripts", () => {
    expect(words("a, b،c\n")).toEqual(["a", "b", "c"]);
  });
});

describe("commands", () => {
  it("are shown as one line, and long ones are shortened in the middle", () => {
    expect(commandLine(["sh", "-c", "echo a b"])).toBe("echo a b");
    expect(commandLine(["cmd", "/d", "/s", "/c", "dir"])).toBe("dir");
    expect(commandLine(["echo", "a b", "c"])).toBe("echo 'a b' c");
    expect(quoted("it's")).toBe("'it'\\''s'");
    expect(middle("x".repeat(100), 80)).toHaveLength(80);
    expect(middle("short", 80)).toBe("short");
  });
});

describe("a tree", () => {
  // The bytes that the crate v6-node makes of the same entries: canonical CBOR, sorted by the bytes of the paths.
  it("has the manifest that a node expects", () => {
    const hash = new Uint8Array(32).fill(7);
    const bytes = manifest([
      { path: "b.sh", size: 70_000, hash },
      { path: "a/ب", size: 3, hash },
    ]);
    const entry = (path: string, size: string, flag: string) => `85${path}00${"5820"}${"07".repeat(32)}${size}${flag}`;
    expect(hex(bytes)).toBe(`820182${entry("44612fd8a8", "03", "f4")}${entry("44622e7368", "1a00011170", "f5")}`);
  });

  it("names content as the store does", async () => {
    // BLAKE3 of nothing and of "abc" (the specification's test vectors, and b3sum).
    expect(hex(await nameOf(new Blob([])))).toBe("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
    expect(hex(await nameOf(new Blob(["abc"])))).toBe("6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
  });

  it("encodes numbers in their shortest form", () => {
    expect(hex(encode([23, 24, 255, 256, 65_535, 65_536, 4_294_967_296]))).toBe("87171818" + "18ff" + "190100" + "19ffff" + "1a00010000" + "1b0000000100000000");
  });
});

describe("a table of cells", () => {
  it("reads quotes, separators and line breaks in cells", () => {
    expect(cells('a,"b ""c"", d",e\r\n1,"2\n3",\n', ",")).toEqual([
      ["a", 'b "c", d', "e"],
      ["1", "2\n3", ""],
    ]);
  });
});
