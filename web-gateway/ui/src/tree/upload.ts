// Files that were dropped into the page become a job's input tree: hashed here, and only what the node lacks is sent.

import { createBLAKE3, type IHasher } from "hash-wasm";

import { ask, type Schemas, send } from "../api/client";
import { encode, type Value } from "./cbor";

/** A file with its place in the tree. */
export type Dropped = { path: string; file: File };
export type Progress = { files: number; hashed: number; sent: number; bytes: number };

/** Content above this is named by the list of its parts (crate `v6-node`, `blobs/name.rs`). */
const PART_BYTES = 16 * 1024 * 1024;
const HASHES_PER_QUESTION = 50_000;
const ROUNDS_MAX = 3;
const SENT_AT_ONCE = 4;

const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

const digest = (hasher: IHasher): Uint8Array => hasher.digest("binary");

async function hashPart(hasher: IHasher, part: Blob): Promise<Uint8Array> {
  hasher.init();
  const reader = part.stream().getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return digest(hasher);
    hasher.update(value);
  }
}

/** The name of a file's content. */
export async function nameOf(file: Blob, hasher?: IHasher): Promise<Uint8Array> {
  const blake3 = hasher ?? (await createBLAKE3());
  if (file.size <= PART_BYTES) return hashPart(blake3, file);
  const parts: Uint8Array[] = [];
  for (let at = 0; at < file.size; at += PART_BYTES) parts.push(await hashPart(blake3, file.slice(at, at + PART_BYTES)));
  return hashPart(blake3, new Blob(parts as BlobPart[]));
}

type Named = Dropped & { hash: Uint8Array; hex: string };

/** The bytes of the tree's manifest: entries sorted by the bytes of their paths. */
export function manifest(files: { path: string; size: number; hash: Uint8Array }[]): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder();
  const entries = files.map((one) => ({ ...one, bytes: text.encode(one.path) }));
  entries.sort((one, other) => compare(one.bytes, other.bytes));
  return encode([1, entries.map((one): Value => [one.bytes, 0, one.hash, one.size, one.path.endsWith(".sh")])]);
}

function compare(one: Uint8Array, other: Uint8Array): number {
  for (let at = 0; at < Math.min(one.length, other.length); at += 1) {
    const difference = (one[at] ?? 0) - (other[at] ?? 0);
    if (difference !== 0) return difference;
  }
  return one.length - other.length;
}

async function missing(hashes: string[]): Promise<Set<string>> {
  const found = new Set<string>();
  for (let at = 0; at < hashes.length; at += HASHES_PER_QUESTION) {
    const answer = await send<Schemas["MissingAnswer"]>("POST", "/v1/blobs/missing", { hashes: hashes.slice(at, at + HASHES_PER_QUESTION) });
    for (const hash of answer.missing) found.add(hash);
  }
  return found;
}

async function sendAll(files: Named[], onSent: (file: Named) => void): Promise<void> {
  const rest = [...files];
  const worker = async (): Promise<void> => {
    for (let file = rest.pop(); file; file = rest.pop()) {
      await ask(`/v1/blobs/${file.hex}`, { method: "PUT", body: file.file });
      onSent(file);
    }
  };
  await Promise.all(Array.from({ length: SENT_AT_ONCE }, worker));
}

/** Sends a tree and gives its name, for a job's `input`. */
export async function uploadTree(dropped: Dropped[], onProgress: (progress: Progress) => void): Promise<string> {
  const progress: Progress = { files: dropped.length, hashed: 0, sent: 0, bytes: 0 };
  const tell = () => onProgress({ ...progress });
  const hasher = await createBLAKE3();
  const named = new Map<string, Named>();
  const files: Named[] = [];
  for (const one of dropped) {
    const hash = await nameOf(one.file, hasher);
    const file = { ...one, hash, hex: hex(hash) };
    files.push(file);
    named.set(file.hex, file);
    progress.hashed += 1;
    tell();
  }
  const bytes = manifest(files.map((one) => ({ path: one.path, size: one.file.size, hash: one.hash })));
  let lacking = await missing([...named.keys()]);
  for (let round = 0; round < ROUNDS_MAX; round += 1) {
    await sendAll([...named.values()].filter((one) => lacking.has(one.hex)), (file) => {
      progress.sent += 1;
      progress.bytes += file.file.size;
      tell();
    });
    const response = await ask("/v1/trees", { method: "POST", body: bytes });
    const answer = (await response.json()) as Schemas["TreeAdded"];
    if (answer.missing.length === 0) return answer.tree;
    lacking = new Set(answer.missing);
  }
  throw new Error("the node keeps losing files of the tree while it is being sent: is its disk full?");
}

/** What was dropped: folders are walked, and one folder alone is the root of the tree. */
export async function dropped(items: DataTransferItemList): Promise<Dropped[]> {
  const entries = [...items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  const only = entries.length === 1 ? entries[0] : undefined;
  const found: Dropped[] = [];
  for (const entry of entries) await walk(entry, only?.isDirectory ? only.fullPath.length + 1 : 1, found);
  return found;
}

async function walk(entry: FileSystemEntry, cut: number, found: Dropped[]): Promise<void> {
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    found.push({ path: entry.fullPath.slice(cut), file });
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    // A directory is read a hundred entries at a time, until nothing comes.
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return;
    for (const one of some) await walk(one, cut, found);
  }
}

/** Files that were chosen in a dialog; those of a folder have their place in it. */
export function chosen(list: FileList): Dropped[] {
  return [...list].map((file) => ({ path: file.webkitRelativePath.split("/").slice(1).join("/") || file.name, file }));
}
