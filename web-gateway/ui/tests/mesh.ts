// Real nodes for the tests of the pages: each in a directory of its own, ended by its process id.

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

const BIN = process.env["V6_BIN"] ?? new URL("../../../target/debug/v6", import.meta.url).pathname;
const run = promisify(execFile);

export type Node = { name: string; id: string; api: string; dir: string; process: ChildProcess };

export class Mesh {
  private readonly root = mkdtempSync(join(tmpdir(), "v6-ui-"));
  readonly nodes: Node[] = [];

  /** A mesh of as many nodes; the first only submits, unless it is alone. */
  static async start(count: number): Promise<Mesh> {
    if (!existsSync(BIN)) throw new Error(`${BIN} is missing: build it with \`cargo build -p v6-node\`, or name it by V6_BIN`);
    const mesh = new Mesh();
    await mesh.add("desk", ["--slots", count === 1 ? "2" : "0", "--labels", "desk"]);
    if (count > 1) {
      const ticket = JSON.parse(await mesh.v6("invite", "--uses", String(count), "--json")) as { ticket: string };
      for (let at = 1; at < count; at += 1)
        await mesh.add(["studio", "laptop", "workshop"][at - 1] ?? `pc-${at}`, ["--slots", "2", "--labels", at === 1 ? "builder,gpu" : "builder", "--join", ticket.ticket]);
      await mesh.until(async () => {
        const peers = JSON.parse(await mesh.v6("peers", "--json")) as { online: boolean; slots: number }[];
        return peers.filter((peer) => peer.online && peer.slots > 0).length === count - 1;
      });
    }
    return mesh;
  }

  get first(): Node {
    const node = this.nodes[0];
    if (!node) throw new Error("no node was started");
    return node;
  }

  private async add(name: string, more: string[]): Promise<void> {
    const dir = join(this.root, name);
    const child = spawn(
      BIN,
      ["up", "--data-dir", dir, "--name", name, "--api", "127.0.0.1:0", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", "--json", ...more],
      { stdio: ["ignore", "pipe", "pipe"] },
    );
    let errors = "";
    child.stderr.on("data", (bytes) => (errors += String(bytes)));
    for await (const line of createInterface({ input: child.stdout })) {
      const said = JSON.parse(line) as { event: string; node: string; api: string };
      if (said.event !== "ready") continue;
      this.nodes.push({ name, id: said.node, api: said.api, dir, process: child });
      child.stdout.resume();
      return;
    }
    throw new Error(`${name} did not start: ${errors}`);
  }

  /** A command on the first node. */
  async v6(...args: string[]): Promise<string> {
    return this.on(this.first, ...args);
  }

  async on(node: Node, ...args: string[]): Promise<string> {
    const { stdout } = await run(BIN, [...args.slice(0, args.indexOf("--") < 0 ? args.length : args.indexOf("--")), "--data-dir", node.dir, ...(args.includes("--") ? args.slice(args.indexOf("--")) : [])]);
    return stdout;
  }

  /** The id of a job. */
  async job(...args: string[]): Promise<string> {
    return (JSON.parse(await this.v6("run", "--detach", "--json", ...args)) as { job: string }).job;
  }

  async link(node = this.first): Promise<string> {
    return (await this.on(node, "open", "--print")).trim();
  }

  async until(holds: () => Promise<boolean>): Promise<void> {
    for (let round = 0; round < 150; round += 1) {
      if (await holds()) return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error("it did not come true in 15 s");
  }

  async stop(): Promise<void> {
    await Promise.all(
      this.nodes.map(
        ({ process: child }) =>
          new Promise<void>((resolve) => {
            if (child.exitCode !== null || child.signalCode !== null) return resolve();
            child.once("exit", () => resolve());
            child.kill("SIGTERM");
            setTimeout(() => child.kill("SIGKILL"), 5000).unref();
          }),
      ),
    );
    rmSync(this.root, { recursive: true, force: true });
  }
}
