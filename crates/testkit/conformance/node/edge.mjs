// Edges for the Node suite. How an edge is started is known to `../edge.py` alone; this runs it and reads its one line.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const HARNESS = fileURLToPath(new URL("../edge.py", import.meta.url));

export class Edge {
  static async start() {
    const process_ = spawn("python3", [HARNESS, "serve"], { stdio: ["pipe", "pipe", "inherit"] });
    const lines = createInterface({ input: process_.stdout });
    const ended = once(process_, "exit").then(([code]) => {
      throw new Error(`edge.py ended with ${code} before the edge was ready`);
    });
    const [line] = await Promise.race([once(lines, "line"), ended]);
    ended.catch(() => {});
    return new Edge(process_, JSON.parse(line));
  }

  constructor(process_, about) {
    this.process = process_;
    Object.assign(this, about);
    this.v1 = about.v1;
    this.apiV1 = about.api_v1;
    this.model = about.models[0];
  }

  /** Puts every simulated provider into the same state. */
  async fault(name) {
    await Promise.all(
      this.sims.map(async ({ control }) => {
        const script = encodeURIComponent(this.faults[name]);
        const answer = await fetch(`${control}/fault?script=${script}`, { method: "POST" });
        if (!answer.ok) throw new Error(`fault ${name}: ${answer.status} ${await answer.text()}`);
      }),
    );
  }

  /** The provider's answer to an authenticated GET below `/api/v1`. */
  async get(path) {
    const answer = await fetch(this.apiV1 + path, { headers: { authorization: `Bearer ${this.key}` } });
    return answer.ok ? await answer.json() : null;
  }

  async stop() {
    const exit = once(this.process, "exit");
    this.process.stdin.end();
    const [code] = await exit;
    if (code !== 0) throw new Error(`edge.py ended with ${code}`);
  }
}

/** What the function returns once that is truthy; throws when it does not become so in time. */
export async function eventually(probe, withinMs = 5000) {
  const deadline = Date.now() + withinMs;
  while (Date.now() < deadline) {
    const result = await probe();
    if (result) return result;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`not true within ${withinMs} ms`);
}
