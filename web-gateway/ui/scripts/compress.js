// Puts a Brotli form beside everything of dist that gets smaller by it: the node serves it as it is.
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants } from "node:zlib";

const dist = new URL("../dist", import.meta.url).pathname;
for (const name of readdirSync(dist, { recursive: true })) {
  const path = join(dist, name);
  // Browsers that know modules know woff2: the older form would only make the binary larger.
  if (path.endsWith(".woff")) rmSync(path);
  else if (statSync(path).isFile() && /\.(js|css|html|svg|json|wasm)$/.test(path)) {
    const bytes = readFileSync(path);
    const small = brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } });
    if (small.length < bytes.length * 0.95) writeFileSync(`${path}.br`, small);
  }
}
